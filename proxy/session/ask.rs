//! Asking a node on the session's own behalf, for commands that take more than one request.

use std::{future::poll_fn, task::Poll};

use bytes::Bytes;

use super::Session;
use crate::{
    link::Link,
    plan,
    resp::{Request, Value, write},
    ticket::{Line, Route, Why},
};

impl Session {
    /// One request to the node at the other end of `link`, one reply. What the node refuses (MOVED, LOADING ...) is an
    /// error here: whoever asks one very node has no use for another's answer.
    pub(super) async fn ask(&self, link: &Link, frame: &[u8]) -> Result<Bytes, String> {
        let line = Line::new(self.router.tally().clone(), self.router.clock().clone(), 1);
        link.send(frame, line.open(None, frame.len(), Route::Any, false));
        poll_fn(|cx| {
            if line.is_settled() || line.has_bounced() {
                return Poll::Ready(());
            }
            line.wake_with(cx.waker());
            Poll::Pending
        })
        .await;
        if let Some(bounced) = line.take_bounced().pop() {
            line.close();
            return Err(match &bounced.why {
                Why::Redirected(..) => format!("ERR proxy: {} has just given this away, ask again", link.node().label),
                other => other.last_error(),
            });
        }
        Ok(line.write_out(|reply| (reply.len(), Bytes::copy_from_slice(reply))))
    }

    /// One request to the node that all publishing goes through.
    pub(super) async fn ask_home(&self, request: &Request<'_>) -> Result<Bytes, String> {
        match self.lane.link(&self.router, self.favourite, Route::Home) {
            Some(link) => self.ask(&link, request.frame()).await,
            None => Err(self.router.topology().down()),
        }
    }

    /// Forwards a request whose keys only the server can find, once it has told them.
    pub(super) async fn forward_by_server(&mut self, request: &Request<'_>) {
        let mut frame = Vec::new();
        write::request_head(&mut frame, 2 + request.len());
        write::bulk(&mut frame, b"COMMAND");
        write::bulk(&mut frame, b"GETKEYS");
        request.args().for_each(|arg| write::bulk(&mut frame, arg));
        let keys = match self.lane.link(&self.router, self.favourite, Route::Any) {
            Some(link) => self.ask(&link, &frame).await.unwrap_or_default(),
            None => Bytes::new(),
        };
        // Where the server finds no keys, it is left to say what it thinks of the request.
        let keys = Value::parse(&keys).ok().flatten().map_or(Value::Null, |(keys, _)| keys);
        let keys: Vec<&[u8]> = keys.items().iter().filter_map(Value::text).collect();
        let router = self.router.clone();
        let topology = router.topology();
        let spec = topology.commands.find(request);
        let plan = plan::of_keys(&keys);
        let _ = self.carry_out(plan, request, spec);
    }
}
