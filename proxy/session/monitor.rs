//! MONITOR: what every primary shows, in one stream, each line as its node wrote it; and what the proxy answers itself,
//! as a server would show it.
//!
//! The nodes see the proxy's connections, so that the addresses in their lines are its own, and what it splits is shown
//! in parts. What no node sees in the client's words, the proxy shows with the client's address.

mod shown;

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;

use super::{Session, attend::Eof, transaction::Transaction};
use crate::{
    clients::{Client, Monitoring},
    command::{Flags, Spec, treatment::Local},
    dial::{Login, Version},
    feed::{Feed, News},
    resp::{Request, request::Parser, write},
    router::Router,
    ticket::Line,
    topology::{Hint, Node},
};

const MONITOR: &[u8] = b"*1\r\n$7\r\nMONITOR\r\n";

/// The nodes that are monitored for a client.
pub(super) struct Monitor {
    login: Login,
    nodes: Vec<Monitored>,
    epoch: u64,
    news: Pin<Box<dyn Future<Output = ()>>>,
    _own: Monitoring,
}

struct Monitored {
    feed: Feed,
    /// It has said OK.
    begun: bool,
    /// It cannot be reached now.
    lost: bool,
}

impl Monitor {
    fn new(login: &Login, router: &Router, client: &Arc<Client>) -> Monitor {
        let login = Login { version: Version::Resp2, database: 0, ..login.clone() };
        let news = router.next_news();
        let mut monitor = Monitor { login, nodes: Vec::new(), epoch: 0, news, _own: router.clients().monitor(client) };
        monitor.follow(router);
        monitor
    }

    /// Passes on what the nodes show. Ready with an error where a node does not allow it.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, router: &Router, line: &Line) -> Poll<Bytes> {
        while self.news.as_mut().poll(cx).is_ready() {
            self.news = router.next_news();
            router.refresh();
        }
        if self.epoch != router.epoch() {
            self.follow(router);
        }
        for Monitored { feed, begun, lost } in &mut self.nodes {
            while let Poll::Ready(news) = feed.poll(cx, router.buffer()) {
                match news {
                    News::Opened => {
                        *lost = false;
                        feed.send(MONITOR);
                    }
                    News::Frame(frame) if *begun => line.push(&frame),
                    News::Frame(frame) if frame.starts_with(b"+") => *begun = true,
                    News::Frame(frame) => return Poll::Ready(frame),
                    News::Lost(why) => {
                        *begun = false;
                        tracing::info!(node = %feed.node().label, why, "MONITOR interrupted");
                        router.hint(Hint::Timeout { node: feed.node().id.clone() });
                    }
                    News::Unreachable(error) => {
                        *lost = true;
                        router.hint(error.hint(feed.node()));
                    }
                }
            }
        }
        Poll::Pending
    }

    /// Whether all show what they do that can; one that is lost is heard when it is back.
    fn has_begun(&self) -> bool {
        self.nodes.iter().any(|node| node.begun) && self.nodes.iter().all(|node| node.begun || node.lost)
    }

    /// Monitors the primaries of a new topology.
    fn follow(&mut self, router: &Router) {
        self.epoch = router.epoch();
        let owners: Vec<Arc<Node>> = router.topology().owners().cloned().collect();
        self.nodes.retain(|node| owners.iter().any(|owner| owner.reach == node.feed.node().reach));
        for owner in owners {
            if !self.nodes.iter().any(|node| node.feed.node().reach == owner.reach) {
                let tally = router.node_tally(&owner);
                let around = router.around();
                let feed = Feed::open(owner, self.login.clone(), around.limits.dial, tally, &around.descriptors);
                self.nodes.push(Monitored { feed, begun: false, lost: false });
            }
        }
    }
}

impl Session {
    /// Begins to show the client what the nodes do; OK once all of them have begun, or one at least in time. `None` where
    /// the client has gone.
    pub(super) async fn start_monitor(&mut self) -> Option<Bytes> {
        if self.monitor.is_some() {
            // Redis does not answer this one.
            return Some(Bytes::new());
        }
        self.router.refresh();
        let monitor = Box::new(Monitor::new(self.lane.login(), &self.router, &self.client));
        let begun = begin(monitor, self.router.clone());
        match self.attend(begun, Eof::Lingers).await {
            Ok(Ok((monitor, lines))) => {
                self.monitor = Some(monitor);
                Some([b"+OK\r\n", &*lines].concat().into())
            }
            Ok(Err(error)) => Some(error),
            Err(reason) => {
                self.ending = Some(reason);
                None
            }
        }
    }

    /// Whether a command that the session answers is to be shown to those who monitor. Asked before it is answered.
    pub(super) fn is_to_show(&self, local: Local) -> bool {
        self.router.clients().is_monitored() && !self.is_seen_by_a_node(local)
    }

    /// Whether the client's own words go to a node, which shows them; or may tell a secret.
    fn is_seen_by_a_node(&self, local: Local) -> bool {
        match local {
            // They go with the transaction; if that goes nowhere, they are shown then.
            Local::Multi => self.transaction.is_none(),
            Local::Exec => {
                self.transaction.as_ref().is_some_and(|transaction| transaction.needs_node(self.watch.is_some()))
            }
            Local::Watch => self.transaction.is_none(),
            Local::Unwatch => self.watch.is_some(),
            Local::Proxy(_) => true,
            _ => false,
        }
    }

    /// Shows a command that has been carried out to those who monitor, if a server would.
    pub(super) fn show(&self, request: &Request<'_>, spec: Option<&Spec>) {
        let hidden = |spec: &Spec| spec.flags.has(Flags::ADMIN) || spec.flags.has(Flags::SKIP_MONITOR);
        let Some(spec) = spec.filter(|spec| spec.takes(request.len()) && !spec.container && !hidden(spec)) else {
            return;
        };
        let most = self.router.settings().pubsub.hard_limit;
        let line = shown::line(&self.client, request, &spec.name, most);
        self.router.clients().show(&line.into(), most);
    }

    /// A transaction has ended without a node: its MULTI is shown now.
    pub(super) fn show_unsent(&self, transaction: &Transaction) {
        let topology = self.router.topology();
        let (mut parser, frames) = (Parser::default(), transaction.frames());
        if self.router.clients().is_monitored()
            && let Ok(Some(found)) = parser.find(frames)
        {
            let multi = parser.request(frames, found);
            self.show(&multi, topology.commands.find(&multi));
        }
    }
}

/// Waits until all nodes show what they do, or one at least in time: with what they have shown meanwhile, which goes
/// behind the OK. Or the error for the client.
async fn begin(mut monitor: Box<Monitor>, router: Rc<Router>) -> Result<(Box<Monitor>, Vec<u8>), Bytes> {
    let mut patience = Box::pin(tokio::time::sleep(router.settings().retry_timeout));
    let mut lines = Vec::new();
    let hold = Line::new(router.tally().clone(), router.clock().clone(), 1);
    poll_fn(|cx| {
        if let Poll::Ready(error) = monitor.poll(cx, &router, &hold) {
            return Poll::Ready(Err(error));
        }
        hold.write_out(|bytes| (bytes.len(), lines.extend_from_slice(bytes)));
        if monitor.has_begun() { Poll::Ready(Ok(())) } else { patience.as_mut().poll(cx).map(Ok) }
    })
    .await?;
    if monitor.nodes.iter().any(|node| node.begun) {
        return Ok((monitor, lines));
    }
    let mut error = Vec::new();
    write::error(&mut error, b"CLUSTERDOWN proxy: no node can be monitored now");
    Err(error.into())
}
