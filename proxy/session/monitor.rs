//! MONITOR: what clients do, each command once and in the client's own words and with its address, whatever becomes of it
//! at the nodes; and what nodes show beyond that.
//!
//! Every primary is monitored for what the proxy cannot see: what scripts call, and what comes to nodes by others than
//! this proxy. What comes by the proxy's own connections is passed over: it is its housekeeping, or what a client has been
//! shown to do already.

mod shown;

use std::{
    future::{Future, poll_fn},
    hash::{BuildHasher, RandomState},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;

use self::shown::MonitorLine;
use super::{caller::Caller, transaction::Transaction};
use crate::{
    clients::{Client, Monitoring},
    cluster::topology::{Hint, Node},
    commands::{
        database::{Databases, Said, is_guard},
        table::{CommandTable, Flags, Spec, Treatment, sender::Sender},
    },
    protocol::{
        resp::{Request, write},
        says,
    },
    upstream::{
        dial::{Dialer, Login, Version},
        feed::{Feed, FeedEvent},
        router::Router,
    },
};

/// The nodes that are monitored for a client.
pub(super) struct Monitor {
    login: Login,
    nodes: Vec<Monitored>,
    epoch: u64,
    news: Pin<Box<dyn Future<Output = ()>>>,
    /// What each node is asked.
    question: Vec<u8>,
    /// A word in it that nobody else says.
    token: String,
    /// The databases that it is shown; all where the first is none of its own.
    databases: Arc<Databases>,
    /// What the client is to be shown.
    lines: Vec<Bytes>,
    _own: Monitoring,
}

struct Monitored {
    feed: Feed,
    /// The node has said OK to MONITOR.
    shows: bool,
    /// The node has answered all of the question.
    begun: bool,
    /// The node cannot be reached now.
    lost: bool,
    /// Where addresses are translated between here and the node: the host by which it knows the proxy.
    host: Option<String>,
}

impl Monitor {
    fn new(login: &Login, router: &Router, client: &Arc<Client>, databases: &Arc<Databases>) -> Monitor {
        let login = Login { version: Version::Resp2, database: 0, ..login.clone() };
        let (mut question, token) = (Vec::new(), format!("slotway-{:x}", RandomState::new().hash_one(client.id)));
        write::request(&mut question, &["MONITOR"]);
        // The node shows it with the address by which it knows the connection. Everybody may say HELLO.
        write::request(&mut question, &["HELLO", "2", "SETNAME", &token]);
        let mut monitor = Monitor {
            login,
            nodes: Vec::new(),
            epoch: 0,
            news: router.next_news(),
            question,
            token,
            databases: databases.clone(),
            lines: Vec::new(),
            _own: router.clients().monitor(client, databases),
        };
        monitor.follow(router);
        monitor
    }

    /// Collects what the nodes show. Ready with an error where a node does not allow it.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, router: &Router) -> Poll<Bytes> {
        while self.news.as_mut().poll(cx).is_ready() {
            self.news = router.next_news();
            router.refresh();
        }
        if self.epoch != router.epoch() {
            self.follow(router);
        }
        for node in &mut self.nodes {
            while let Poll::Ready(news) = node.feed.poll(cx, router.buffer()) {
                match news {
                    FeedEvent::Opened => {
                        node.lost = false;
                        node.feed.send(&self.question);
                    }
                    FeedEvent::Frame(frame) if !node.shows => {
                        if !frame.starts_with(b"+") {
                            return Poll::Ready(frame);
                        }
                        node.shows = true;
                    }
                    FeedEvent::Frame(frame) if !frame.starts_with(b"+") => node.begun = true,
                    FeedEvent::Frame(frame) => {
                        let topology = router.topology();
                        if node.is_to_show(&frame, &self.token, &topology.commands, &router.connector().dialer) {
                            self.lines.extend(shown_to(&self.databases, frame, &topology.commands, router));
                        }
                    }
                    FeedEvent::Lost(why) => {
                        (node.shows, node.begun) = (false, false);
                        tracing::info!(node = %node.feed.node().label, why, "MONITOR interrupted");
                        router.hint(Hint::Timeout { node: node.feed.node().id.clone() });
                    }
                    FeedEvent::Unreachable(error) => {
                        node.lost = true;
                        router.hint(error.hint(node.feed.node()));
                    }
                }
            }
        }
        Poll::Pending
    }

    /// What the client is to be shown, in its order.
    pub(super) fn take_lines(&mut self) -> Vec<Bytes> {
        std::mem::take(&mut self.lines)
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
                let feed = Feed::open(owner, self.login.clone(), router.connector(), tally);
                self.nodes.push(Monitored { feed, shows: false, begun: false, lost: false, host: None });
            }
        }
    }
}

/// What a node shows, for a client of these databases; none where it is about no key of theirs.
fn shown_to(databases: &Databases, line: Bytes, commands: &CommandTable, router: &Router) -> Option<Bytes> {
    if databases.get(0).is_none() {
        return Some(line);
    }
    let told = MonitorLine::of(&line)?;
    let words = told.unquoted();
    let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
    let own = databases.all().find_map(|(number, database)| match database.said(&words, commands, router.wrapped()) {
        Said::Own(words) => (!words.iter().any(|word| is_guard(word))).then_some((number, words)),
        Said::Keyless | Said::Others => None,
    });
    let (number, words) = own?;
    Some(told.rewritten(databases.are_selected().then_some(number), &words).into())
}

impl Monitored {
    /// Whether what the node tells is some client's doing that the proxy has not shown itself.
    fn is_to_show(&mut self, line: &[u8], token: &str, commands: &CommandTable, dialer: &Dialer) -> bool {
        let Some(told) = MonitorLine::of(line) else { return true };
        if told.says(token) {
            self.host = (!dialer.is_own(told.address)).then(|| told.host().to_owned());
            return false;
        }
        if told.is_of_a_script() {
            return true;
        }
        let is_own = dialer.is_own(told.address) || self.host.as_deref() == Some(told.host());
        // Other proxies keep house as well.
        !is_own && told.command(commands).is_none_or(|spec| spec.sender != Sender::Proxy)
    }
}

/// Shows a command to those who monitor, if a server would.
pub(super) fn show(caller: &Caller, request: &Request<'_>, spec: Option<&Spec>) {
    let clients = caller.router.clients();
    let is_shown = |spec: &&Spec| spec.takes(request.len()) && !spec.container && is_shown(spec);
    let Some(spec) = spec.filter(|spec| clients.is_monitored() && is_shown(spec)) else { return };
    let most = caller.router.settings().pubsub.get().hard_limit;
    let (mut at_nodes, mut inside) = (None, None);
    let line_for = |databases: &Databases| {
        let line = if databases.get(0).is_none() {
            at_nodes.get_or_insert_with(|| {
                let words = request.args().map(<[u8]>::to_vec).collect::<Vec<_>>();
                Some(Bytes::from(shown::line(&caller.client, &words, &spec.secrets.within(request), most)))
            })
        } else if *databases == *caller.databases {
            inside.get_or_insert_with(|| line_inside(caller, request, spec, most))
        } else {
            return None;
        };
        line.clone()
    };
    clients.show(line_for, most);
}

/// The line for those who work in the caller's databases: in the words of its client.
fn line_inside(caller: &Caller, request: &Request<'_>, spec: &Spec, most: usize) -> Option<Bytes> {
    let words: Vec<&[u8]> = request.args().collect();
    let topology = caller.router.topology();
    let said = caller.database.as_ref()?.database.said(&words, &topology.commands, caller.router.wrapped());
    let words = match said {
        Said::Own(words) => words,
        Said::Keyless => words.into_iter().map(<[u8]>::to_vec).collect(),
        Said::Others => return None,
    };
    Some(shown::line(&caller.client, &words, &spec.secrets.within(request), most).into())
}

/// Shows the commands of a transaction that is carried out.
pub(super) fn show_queued(caller: &Caller, transaction: &Transaction) {
    if caller.router.clients().is_monitored() {
        let topology = caller.router.topology();
        transaction.in_order(|request| show(caller, request, topology.commands.find(request)));
    }
}

/// Whether MONITOR shows a command at all. Those that run scripts show themselves, ahead of what the scripts call.
fn is_shown(spec: &Spec) -> bool {
    let runs_scripts = matches!(spec.treatment, Treatment::Scripting(_));
    // The proxy's own commands may tell secrets.
    !spec.flags.has(Flags::ADMIN) && (!spec.flags.has(Flags::SKIP_MONITOR) || runs_scripts) && !spec.is_own()
}

/// Begins to show the client what the nodes do: waits until all nodes show what they do, or one at least in time. Or the error for the client.
pub(super) async fn begin(caller: Caller) -> Result<Box<Monitor>, Bytes> {
    let router = &caller.router;
    router.refresh();
    let mut monitor = Box::new(Monitor::new(caller.lane.login(), router, &caller.client, &caller.databases));
    let mut patience = Box::pin(tokio::time::sleep(router.timeouts().recovery().timeout));
    poll_fn(|cx| {
        if let Poll::Ready(error) = monitor.poll(cx, router) {
            return Poll::Ready(Err(error));
        }
        if monitor.has_begun() { Poll::Ready(Ok(())) } else { patience.as_mut().poll(cx).map(Ok) }
    })
    .await?;
    if monitor.nodes.iter().any(|node| node.begun) {
        return Ok(monitor);
    }
    Err(write::error_frame(says::NO_MONITOR))
}

#[cfg(test)]
mod tests {
    use tokio::task::spawn_local;

    use super::*;
    use crate::upstream::router::scripted::{Scripted, frame, within_a_minute};

    #[tokio::test(start_paused = true)]
    async fn what_scripts_call_is_shown_and_the_proxys_own_is_not() {
        within_a_minute(async {
            let mut nodes = Scripted::new(1);
            let caller = Caller::of(&nodes);
            let beginning = spawn_local(begin(caller.clone()));
            let mut node = nodes.node(0).await;
            node.hears(&frame("MONITOR")).await;
            let hello = node.request().await;
            let token = String::from_utf8(hello).unwrap().split("\r\n").nth(8).unwrap().to_owned();
            node.says(b"+OK\r\n").await;
            node.says(format!("+1.0 [0 10.0.0.1:5] \"HELLO\" \"2\" \"SETNAME\" \"{token}\"\r\n").as_bytes()).await;
            node.says(b"*0\r\n").await;
            let mut monitor = beginning.await.unwrap().unwrap_or_else(|error| panic!("{error:?}"));
            node.says(b"+1.0 [0 lua] \"GET\" \"a\"\r\n+1.0 [0 10.0.0.1:6] \"GET\" \"b\"\r\n").await;
            node.says(b"+1.0 [0 10.0.0.9:6] \"GET\" \"c\"\r\n").await;
            let shown = poll_fn(|cx| {
                assert!(monitor.poll(cx, &nodes.router).is_pending());
                let count = monitor.lines.len();
                if count > 1 { Poll::Ready(monitor.take_lines()) } else { Poll::Pending }
            });
            let shown = shown.await;
            assert_eq!(shown, ["+1.0 [0 lua] \"GET\" \"a\"\r\n", "+1.0 [0 10.0.0.9:6] \"GET\" \"c\"\r\n"]);
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_does_not_allow_it_has_its_error_passed_on() {
        within_a_minute(async {
            let mut nodes = Scripted::new(1);
            let beginning = spawn_local(begin(Caller::of(&nodes)));
            let mut node = nodes.node(0).await;
            node.hears(&frame("MONITOR")).await;
            node.says(b"-NOPERM no\r\n").await;
            assert_eq!(beginning.await.unwrap().err().unwrap(), "-NOPERM no\r\n");
        })
        .await;
    }
}
