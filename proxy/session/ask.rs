//! Asking a node on the session's own behalf, for commands that take more than one request.

use std::{
    future::poll_fn,
    rc::Rc,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::task::JoinSet;

use super::{caller::Caller, server};
use crate::{
    clients::Held,
    cluster::{
        recovery::{BETWEEN_TRIES, Why},
        topology::{Node, Route},
    },
    commands::{
        merge::{Merge, MergeRule},
        plan::{self, Plan},
    },
    protocol::{
        resp::{Request, Value, write},
        says,
    },
    upstream::{
        doubt::Doubts,
        link::Link,
        router::{Lane, Router},
        ticket::{Bounced, Envelope, Line, RequestTraits},
    },
};

/// How long a node that is busy with a script may take to answer what could end it: more than the five seconds after which
/// it listens again.
pub(super) const BUSY_PATIENCE: Duration = Duration::from_secs(10);

impl Caller {
    /// One request to the node at the other end of `link`, one reply. What the node refuses (MOVED, LOADING ...) is an
    /// error here: whoever asks one very node has no use for another's answer.
    pub(super) async fn ask(&self, link: &Link, frame: &[u8]) -> Result<Bytes, String> {
        let (doubts, patience) = (&self.line.doubts, self.router.timeouts().recovery().timeout);
        doubts.settled(link.node(), Some(&link.connection()), patience).await?;
        try_ask(&self.router, link, frame, doubts.clone()).await.map_err(|why| why.text(link))
    }

    /// One request to the node that all publishing goes through, or to the one that takes its place.
    pub(super) async fn ask_pubsub_node(&self, request: &Request<'_>) -> Result<Bytes, String> {
        self.ask_route(Route::PubSub, request.frame()).await
    }

    /// One request to where a route leads, also where that changes meanwhile.
    pub(super) async fn ask_route(&self, route: Route, frame: &[u8]) -> Result<Bytes, String> {
        let (begun, mut backoff) = (Instant::now(), BETWEEN_TRIES);
        loop {
            let unsent = match self.link(route) {
                Some(link) => {
                    let (doubts, patience) = (&self.line.doubts, self.router.timeouts().recovery().timeout);
                    doubts.settled(link.node(), Some(&link.connection()), patience).await?;
                    match try_ask(&self.router, &link, frame, doubts.clone()).await {
                        Err(NoReply::Bounced(why @ (Why::Unsent(_) | Why::Later(..) | Why::Redirected(..)))) => {
                            why.last_error()
                        }
                        other => return other.map_err(|why| why.text(&link)),
                    }
                }
                None => self.router.topology().down(),
            };
            if begun.elapsed() >= self.router.timeouts().recovery().timeout {
                return Err(unsent);
            }
            tokio::time::sleep(backoff.pause()).await;
            self.router.refresh();
        }
    }
}

/// Closes its line where the asker leaves.
struct Asking(Rc<Line>);

impl Drop for Asking {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// As [`Caller::ask`], for what outlives a look at the session.
pub(super) async fn ask(router: &Router, link: &Link, frame: &[u8]) -> Result<Bytes, String> {
    try_ask(router, link, frame, Rc::default()).await.map_err(|why| why.text(link))
}

/// Why there is no reply.
enum NoReply {
    /// The request came back.
    Bounced(Why),
    TooLarge,
    BrokenOff,
}

impl NoReply {
    /// The error for a client.
    fn text(&self, link: &Link) -> String {
        let node = &link.node().label;
        match self {
            NoReply::Bounced(Why::Redirected(..)) => says::given_away(node),
            NoReply::Bounced(other) => other.last_error(),
            NoReply::TooLarge => says::reply_too_large(node),
            NoReply::BrokenOff => says::broken_off(node),
        }
    }
}

async fn try_ask(router: &Router, link: &Link, frame: &[u8], doubts: Rc<Doubts>) -> Result<Bytes, NoReply> {
    let line = Line::of(router.tally().clone(), router.clock().clone(), 1, doubts);
    // A request that came back to a line which nobody looks at any more would keep it for ever.
    let _asking = Asking(line.clone());
    let mut held = Held::nothing(router.clients());
    let ticket = line.open(None, frame.len(), Route::Any);
    link.send(frame, Envelope::new(ticket, Route::Any, RequestTraits::default()));
    let fits = poll_fn(|cx| {
        if !held.is_now(line.owed()) {
            return Poll::Ready(false);
        }
        if line.is_settled() || line.has_bounced() {
            return Poll::Ready(true);
        }
        line.wake_with(cx.waker());
        Poll::Pending
    })
    .await;
    if !fits {
        return Err(NoReply::TooLarge);
    }
    if let Some(bounced) = line.take_bounced().pop() {
        let Bounced { why, .. } = bounced;
        return Err(NoReply::Bounced(why));
    }
    if line.is_broken() {
        return Err(NoReply::BrokenOff);
    }
    Ok(line.write_out(|reply| (reply.len(), Bytes::copy_from_slice(reply))))
}

/// What becomes of a request whose keys only the server can find, once it has told them, to the proxy's own user.
pub(super) async fn plan_by_server(caller: &Caller, request: &Request<'_>) -> Plan {
    let mut frame = Vec::new();
    write::request_head(&mut frame, 2 + request.len());
    write::bulk(&mut frame, b"COMMAND");
    write::bulk(&mut frame, b"GETKEYS");
    request.args().for_each(|arg| write::bulk(&mut frame, arg));
    let keys = match caller.router.first_lane().link(&caller.router, caller.affinity, Route::Any) {
        Some(link) => caller.ask(&link, &frame).await.unwrap_or_default(),
        None => Bytes::new(),
    };
    // Where the server finds no keys, it is left to say what it thinks of the request.
    let keys = Value::parse(&keys).ok().flatten().map_or(Value::Null, |(keys, _)| keys);
    let keys: Vec<&[u8]> = keys.items().iter().filter_map(Value::text).collect();
    plan::of_keys(&keys)
}

/// A request to every primary, on connections that nobody shares: a node that runs a script answers nothing on the
/// one by which the script came, and elsewhere only what may end it.
pub(super) async fn out_of_band(caller: &Caller, request: &Request<'_>, rule: MergeRule, patience: Duration) -> Bytes {
    let nodes: Vec<Arc<Node>> = caller.router.topology().owners().cloned().collect();
    let mut merge = Merge::new(rule, nodes.len(), None, caller.speaks_resp3());
    merge.know(server::facts(caller, rule));
    merge.keep_account(server::account_for(caller, rule, request));
    let topology = caller.router.topology().clone();
    let spec = topology.commands.find(request);
    let frame = plan::all_entries(request, spec, rule);
    let frame = frame.map_or_else(|| Bytes::copy_from_slice(request.frame()), Bytes::from);
    if spec.is_some_and(|spec| spec.when_lost.is_spared()) {
        merge.spare_lost();
    }
    let mut asking = JoinSet::new();
    for (index, node) in nodes.into_iter().enumerate() {
        let lane = caller.lane.clone();
        let (frame, doubts) = (frame.clone(), caller.line.doubts.clone());
        asking.spawn_local(async move { (index, ask_out_of_band(&lane, &node, &frame, &doubts, patience).await) });
    }
    while let Some(Ok((index, reply))) = asking.join_next().await {
        match reply {
            Ok(reply) => merge.take(index, &reply),
            Err(error) => merge.take_lost(index, &error),
        };
        if rule == MergeRule::OneSucceeded && merge.suffices() {
            // The others are told all the same.
            asking.detach_all();
            break;
        }
    }
    let mut reply = Vec::new();
    merge.finish(&mut reply);
    reply.into()
}

/// One request and its reply on a connection of its own; an error that says why there is none.
pub(super) async fn ask_out_of_band(
    lane: &Lane,
    node: &Arc<Node>,
    frame: &[u8],
    doubts: &Rc<Doubts>,
    patience: Duration,
) -> Result<Bytes, Bytes> {
    let failed = |why: String| Err(write::error_frame(says::could_not_ask(&node.label, why)));
    let mut connection = match lane.pool().take(node).await {
        Ok(connection) => connection.on_behalf_of(doubts),
        Err(why) => return failed(why.to_string()),
    };
    match connection.exchange(frame, 1, patience).await {
        Ok(replies) => {
            connection.give_back();
            Ok(replies.into_iter().next().unwrap_or_default())
        }
        Err(why) => failed(why.to_string()),
    }
}
