//! Commands that an operator renamed: what a node calls so ([`crate::commands::table`]). Such a request stays at the front
//! of the input until a node has told, and then is what the command is.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;

use super::{Flow, Session, ask::ask, attend::Eof, leave::Leave};
use crate::{
    protocol::{
        resp::{Request, Value, request::OwnedRequest, write},
        says,
    },
    upstream::router::Router,
};

/// How long one node may take to tell; then the next is asked.
const PATIENCE: Duration = Duration::from_millis(500);

impl Session {
    /// The end of a request of which a node has to tell what command it is; nothing where it goes on.
    #[cold]
    pub(super) fn lacks_name(&mut self, request: &Request<'_>) -> Option<Flow> {
        match self.said_of_name(request) {
            None => Some(Flow::Ask),
            Some(verdict) => verdict.err().map(|error| self.refuse(None, &error)),
        }
    }

    /// Has a node tell what command the request at the front of the input is.
    pub(super) async fn ask_name_of(&mut self, request: &OwnedRequest) {
        let verdict = match self.knows_name(request.as_request().name()).await {
            Ok(true) => Ok(()),
            Ok(false) => return,
            Err(error) => Err(error.into()),
        };
        self.leave = Some(Leave::of_name(request.frame().clone(), verdict));
    }

    /// Makes the table know whose name this is, where it can be a command's; false where the client has gone, an error
    /// where no node has told.
    pub(super) async fn knows_name(&mut self, name: &[u8]) -> Result<bool, String> {
        let commands = self.caller.router.topology().commands.clone();
        if commands.named(name, b"").is_some() || !commands.is_open(name) {
            return Ok(true);
        }
        let router = self.caller.router.clone();
        let told = match self.attend(ask_nodes(&router, self.caller.affinity, name), Eof::Waits).await {
            Ok(told) => told.map_err(|why| says::no_name(&why))?,
            Err(reason) => {
                self.ending = Some(reason);
                return Ok(false);
            }
        };
        commands.learn_name(name, &told);
        Ok(true)
    }
}

/// What the primaries say of a name, asked in turn by the proxy's own login until one answers.
async fn ask_nodes(router: &Router, affinity: usize, name: &[u8]) -> Result<Value, String> {
    router.refresh();
    let mut nodes: Vec<_> = router.topology().owners().cloned().collect();
    let mut why = router.topology().down();
    let first = affinity % nodes.len().max(1);
    nodes.rotate_left(first);
    let mut frame = Vec::new();
    write::request(&mut frame, &[&b"COMMAND"[..], b"INFO", name]);
    for node in nodes {
        let link = router.first_lane().link_to(router, &node);
        why = match timeout(PATIENCE, ask(router, &link, &frame)).await {
            Ok(Ok(reply)) => match parsed(&reply) {
                Value::Array(rows) => return Ok(Value::Array(rows)),
                Value::Error(text) => String::from_utf8_lossy(&text).into_owned(),
                _ => says::no_answer(&node.label, PATIENCE),
            },
            Ok(Err(error)) => error,
            Err(_) => says::no_answer(&node.label, PATIENCE),
        };
    }
    Err(why)
}

fn parsed(reply: &Bytes) -> Value {
    Value::parse(reply).ok().flatten().map_or(Value::Null, |(value, _)| value)
}
