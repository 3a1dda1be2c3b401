//! WAIT and WAITAOF: how many replicas have what this client wrote.
//!
//! A node counts for the connection on which it is asked, and the client's writes went by connections that others share.
//! So the proxy counts itself. Once the line has settled, every node that the client has written to says how far its
//! replication stream has come: that is at or behind the client's last write, and a replica that acknowledges as much has
//! all its writes. The reply is the least count of these nodes.
//!
//! A number is only given where it is sure to be about the same process with the same data as when the client wrote:
//! a node that has restarted or has lost its role since, may have lost the writes, and the client is told so, once.

use std::{
    cell::Cell,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::task::JoinSet;

use super::{
    ask::ask,
    blocking::{Blocked, Interrupt, told},
    caller::Caller,
};
use crate::{
    clients::Unblock,
    cluster::{
        recovery::Backoff,
        topology::{Node, Role, Route},
    },
    protocol::{
        resp::{Request, Value, request::decimal, write},
        says,
    },
    upstream::{dedicated::Dedicated, router::Router, ticket::Line},
};

/// How often the nodes are asked again.
const LAST_PAUSE: Duration = Duration::from_millis(100);
const BETWEEN_LOOKS: Backoff = Backoff::new(Duration::from_millis(1), LAST_PAUSE);
/// A node's uptime is told in whole seconds.
const UPTIME_STEP: Duration = Duration::from_secs(1);
const INFO_SERVER: &[u8] = b"*2\r\n$4\r\nINFO\r\n$6\r\nserver\r\n";
const INFO_REPLICATION: &[u8] = b"*2\r\n$4\r\nINFO\r\n$11\r\nreplication\r\n";
/// Waits for more replicas than there can be: the node asks all it has for their acknowledgements at once.
const HURRY: &[u8] = b"*3\r\n$4\r\nWAIT\r\n$7\r\n1000000\r\n$1\r\n1\r\n";
/// A FUNCTION DUMP of no functions: restoring it changes nothing, but is written to the replication stream, behind all
/// that was written before.
const NO_FUNCTIONS: &[u8] = b"\n\0\x5d\x9b\\@\x0f\x7f\xa2\xda";

/// What a WAIT asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WaitTerms {
    replicas: i64,
    /// `None` is for ever.
    timeout: Option<Duration>,
}

impl WaitTerms {
    /// Reads a count and a timeout; `None` where the server would refuse them.
    fn parse(replicas: &[u8], timeout: &[u8]) -> Option<WaitTerms> {
        let timeout = u64::try_from(decimal(timeout)?).ok()?;
        let timeout = (timeout > 0).then(|| Duration::from_millis(timeout));
        Some(WaitTerms { replicas: decimal(replicas)?, timeout })
    }
}

/// How many replicas of a node, and whether the node itself (WAITAOF), have what was written.
type Counts = (i64, i64);

/// A WAIT or WAITAOF.
pub(super) struct Wait {
    wanted: WaitTerms,
    /// How many nodes themselves have to have it on their disks, for WAITAOF.
    local: Option<i64>,
}

impl Wait {
    /// WAIT; `None` where servers refuse it.
    pub(super) fn for_replicas(request: &Request<'_>) -> Option<Wait> {
        Some(Wait { wanted: WaitTerms::parse(request.arg(1), request.arg(2))?, local: None })
    }

    /// WAITAOF; `None` where servers refuse it.
    pub(super) fn for_disks(request: &Request<'_>) -> Option<Wait> {
        let wanted = WaitTerms::parse(request.arg(2), request.arg(3)).filter(|wanted| wanted.replicas >= 0)?;
        let local = decimal(request.arg(1)).filter(|local| (0..=1).contains(local))?;
        Some(Wait { wanted, local: Some(local) })
    }

    /// The reply, once there is what is wanted, or the time is over; `None` where the proxy ends.
    pub(super) async fn run(self, caller: Caller) -> Option<Bytes> {
        let known = Rc::new(Cell::new((0, 0)));
        let _blocked = Blocked::new(caller.client.clone(), caller.router.tally().clone());
        tokio::select! {
            biased;
            counted = self.count(&caller, known.clone()) => {
                Some(counted.map_or_else(|error| write::error_frame(&error), |counts| self.reply(counts)))
            }
            told = told(&caller.client) => match told {
                Interrupt::Unblock(Unblock::Timeout) => Some(self.reply(known.get())),
                told => told.reply(false),
            },
        }
    }

    /// Counts until there is what is wanted; `known` gets the counts so far.
    async fn count(&self, caller: &Caller, known: Rc<Cell<Counts>>) -> Result<Counts, String> {
        let (router, line) = (caller.router.clone(), caller.line.clone());
        let WaitTerms { replicas, timeout } = self.wanted;
        match self.local {
            Some(local) => count_synced(router, line, (local, replicas), timeout, known).await,
            None => {
                let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
                count(router, line, replicas, deadline, known).await
            }
        }
    }

    fn reply(&self, (local, replicas): Counts) -> Bytes {
        let mut out = Vec::new();
        if self.local.is_some() {
            write::array(&mut out, 2);
            write::integer(&mut out, local);
        }
        write::integer(&mut out, replicas);
        out.into()
    }
}

/// The reply to WAIT as it is within a transaction, where it does not wait.
pub(super) async fn wait_in_transaction(caller: &Caller, request: &Request<'_>) -> Vec<u8> {
    let Some(wait) = Wait::for_replicas(request) else { return server_says(caller, request).await.to_vec() };
    let known = Rc::new(Cell::new((0, 0)));
    let now = Some(Instant::now());
    let counted = count(caller.router.clone(), caller.line.clone(), wait.wanted.replicas, now, known).await;
    counted.map_or_else(|error| write::error_frame(&error), |counts| wait.reply(counts)).to_vec()
}

/// What a node says of a request that it will refuse, on a connection that nobody shares.
pub(super) async fn server_says(caller: &Caller, request: &Request<'_>) -> Bytes {
    let Some(node) = caller.router.node_for(Route::Any, caller.affinity) else {
        return write::error_frame(caller.router.topology().down());
    };
    let timeouts = caller.router.timeouts();
    let said = async {
        let mut connection = caller.lane.pool().take(&node).await?;
        let mut replies = connection.exchange(request.frame(), 1, timeouts.request_timeout).await?;
        connection.give_back();
        Ok::<_, Box<dyn std::error::Error>>(replies.pop())
    };
    match said.await {
        Ok(Some(reply)) => reply,
        Ok(None) => write::error_frame(says::ODD_REPLIES),
        Err(why) => write::error_frame(format!("ERR proxy: {}: {why}", node.label)),
    }
}

/// A node and how far its replicas have to be.
struct NodeOffset {
    node: Arc<Node>,
    /// When the client first wrote there, if it did.
    written: Option<Instant>,
    /// What its stream is called: a node that has lost data has another.
    stream: String,
    offset: u64,
    acknowledged: i64,
}

/// The nodes that the client has written to; all that own slots where it has written nothing.
fn targets(router: &Router, line: &Line) -> Result<Vec<NodeOffset>, String> {
    let target = |node, written| NodeOffset { node, written, stream: String::new(), offset: 0, acknowledged: 0 };
    let written = line.written();
    if !written.is_empty() {
        return Ok(written.into_iter().map(|(node, since)| target(node, Some(since))).collect());
    }
    router.refresh();
    let topology = router.topology();
    let owners: Vec<_> = topology.owners().cloned().collect();
    if owners.is_empty() {
        Err(topology.down())
    } else {
        Ok(owners.into_iter().map(|node| target(node, None)).collect())
    }
}

/// Counts until so many replicas have acknowledged or the deadline has passed, but once at least. `known` gets the
/// counts so far.
async fn count(
    router: Rc<Router>,
    line: Rc<Line>,
    wanted: i64,
    deadline: Option<Instant>,
    known: Rc<Cell<Counts>>,
) -> Result<Counts, String> {
    let mut targets = meet(&router, &line).await?;
    let mut backoff = None;
    loop {
        let least = targets.iter().map(|target| target.acknowledged).min().unwrap_or(0);
        known.set((0, least));
        let now = Instant::now();
        if least >= wanted || deadline.is_some_and(|deadline| now >= deadline) {
            return Ok((0, least));
        }
        if backoff.is_none() {
            targets
                .iter()
                .filter(|target| target.acknowledged < wanted)
                .for_each(|target| hurry(&router, &target.node));
        }
        let next = backoff.get_or_insert(BETWEEN_LOOKS).pause();
        let left = deadline.map_or(next, |deadline| next.min(deadline - now));
        tokio::time::sleep(left).await;
        targets = look_all(&router, &line, targets, false).await?;
    }
}

/// Has all targets say how far they are.
async fn meet(router: &Rc<Router>, line: &Line) -> Result<Vec<NodeOffset>, String> {
    look_all(router, line, targets(router, line)?, true).await
}

async fn look_all(
    router: &Rc<Router>,
    line: &Line,
    targets: Vec<NodeOffset>,
    first: bool,
) -> Result<Vec<NodeOffset>, String> {
    let mut looks = JoinSet::new();
    for mut target in targets {
        let router = router.clone();
        looks.spawn_local(async move {
            let looked = target.look(&router, first).await;
            (target, looked)
        });
    }
    let (mut all, mut error) = (Vec::new(), None);
    while let Some(looked) = looks.join_next().await {
        let Ok((target, looked)) = looked else { return Err(says::ODD_REPLIES.to_owned()) };
        match looked {
            Ok(()) => {}
            Err(Unsure::Lost(why)) => {
                // Said once: what is written from now on counts anew.
                line.forget_writes(&target.node.id);
                error = Some(says::wait_lost(&target.node.label, &why));
            }
            Err(Unsure::Silent(why)) => {
                error.get_or_insert(says::wait_unsure(&target.node.label, &why));
            }
        }
        all.push(target);
    }
    error.map_or(Ok(all), Err)
}

/// Why no number can be given.
enum Unsure {
    /// The node may have lost what was written.
    Lost(String),
    /// It does not tell.
    Silent(String),
}

impl NodeOffset {
    /// Asks the node how far it and its replicas are.
    async fn look(&mut self, router: &Rc<Router>, first: bool) -> Result<(), Unsure> {
        let link = router.first_lane().link_to(router, &self.node);
        if first && let Some(written) = self.written {
            self.check_role(router, written)?;
            let server = text(ask(router, &link, INFO_SERVER).await)?;
            let uptime = field(&server, "uptime_in_seconds").and_then(|seconds| seconds.parse().ok());
            let uptime = Duration::from_secs(uptime.ok_or_else(|| Unsure::Silent("INFO lacks its uptime".to_owned()))?);
            if uptime < written.elapsed() + UPTIME_STEP {
                return Err(Unsure::Lost("it has restarted since".to_owned()));
            }
        }
        let info = text(ask(router, &link, INFO_REPLICATION).await)?;
        if field(&info, "role") != Some("master") {
            return Err(Unsure::Lost("it is no longer a primary".to_owned()));
        }
        let offset = field(&info, "master_repl_offset").and_then(|offset| offset.parse::<u64>().ok());
        let parsed = field(&info, "master_replid").zip(offset);
        let (stream, offset) = parsed.ok_or_else(|| Unsure::Silent("INFO lacks its offset".to_owned()))?;
        if first {
            self.stream = stream.to_owned();
            self.offset = if self.written.is_some() { offset } else { 0 };
        } else if stream != self.stream || offset < self.offset {
            return Err(Unsure::Lost("its replication stream is another".to_owned()));
        }
        let has_it = |line: &&str| acknowledged(line).is_some_and(|offset| offset >= self.offset);
        self.acknowledged = info.lines().filter(has_it).count() as i64;
        Ok(())
    }

    /// What discovery knows of the node's role.
    fn check_role(&self, router: &Router, written: Instant) -> Result<(), Unsure> {
        router.refresh();
        let topology = router.topology();
        let same = |node: &&Arc<Node>| node.id == self.node.id || node.goes_by(&self.node.announced);
        match topology.nodes.iter().find(same) {
            Some(node) if node.role != Role::Primary => Err(Unsure::Lost("it is no longer a primary".to_owned())),
            Some(node) if topology.was_demoted(&node.id, written) => {
                Err(Unsure::Lost("it has not been a primary all the time".to_owned()))
            }
            Some(_) => Ok(()),
            None => Err(Unsure::Lost("it has left the cluster".to_owned())),
        }
    }
}

/// The offset that a replica has acknowledged: `slave0:ip=...,port=...,state=online,offset=...,lag=...`.
fn acknowledged(line: &str) -> Option<u64> {
    let (number, fields) = line.strip_prefix("slave")?.split_once(':')?;
    let field = |name: &str| fields.trim_end().split(',').find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
    number.parse::<u32>().ok()?;
    field("offset").filter(|_| field("state") == Some("online"))?.parse().ok()
}

/// Has a node ask its replicas for their acknowledgements.
fn hurry(router: &Rc<Router>, node: &Arc<Node>) {
    let (router, node) = (router.clone(), node.clone());
    tokio::task::spawn_local(async move {
        let timeouts = router.timeouts();
        let Ok(mut connection) = proxys_own(&router, &node).await else { return };
        if connection.exchange(HURRY, 1, timeouts.request_timeout).await.is_ok() {
            connection.give_back();
        }
    });
}

async fn proxys_own(router: &Router, node: &Arc<Node>) -> Result<Dedicated, String> {
    let lane = router.first_lane();
    let dialled = lane.pool().take(node).await;
    dialled.map_err(|why| why.to_string())
}

/// Counts fsyncs until there are as many as wanted or the time is over. Nodes do not tell of their replicas' fsyncs but
/// by WAITAOF itself, on a connection that has written: something that changes nothing is written on one of the
/// proxy's own, behind all of the client's writes, and there the node counts.
async fn count_synced(
    router: Rc<Router>,
    line: Rc<Line>,
    wanted: Counts,
    timeout: Option<Duration>,
    known: Rc<Cell<Counts>>,
) -> Result<Counts, String> {
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let patience = router.timeouts().request_timeout;
    let mut connections = Vec::new();
    for target in meet(&router, &line).await? {
        let unsure = |why: String| says::wait_unsure(&target.node.label, &why);
        let mut connection = proxys_own(&router, &target.node).await.map_err(unsure)?;
        if target.written.is_some() {
            let mut frame = Vec::new();
            write::request::<&[u8]>(&mut frame, &[b"FUNCTION", b"RESTORE", NO_FUNCTIONS, b"APPEND"]);
            let restored = connection.exchange(&frame, 1, patience).await.map_err(|why| unsure(why.to_string()))?;
            match restored.first() {
                Some(ok) if ok.as_ref() == b"+OK\r\n" => {}
                said => return Err(unsure(format!("{:?}", said.map(|said| said.escape_ascii().to_string())))),
            }
        }
        connections.push(connection);
    }
    loop {
        let now = Instant::now();
        let left = deadline.map_or(LAST_PAUSE, |deadline| deadline.saturating_duration_since(now).min(LAST_PAUSE));
        let slice = left.as_millis().max(1).to_string();
        let (local, replicas) = (wanted.0.to_string(), wanted.1.to_string());
        let mut frame = Vec::new();
        write::request(&mut frame, &["WAITAOF", &local, &replicas, &slice]);
        let mut least: Option<Counts> = None;
        for connection in &mut connections {
            let label = connection.node().label.clone();
            let replies = connection.exchange(&frame, 1, patience).await;
            let reply = replies.map_err(|why| says::wait_unsure(&label, &why.to_string()))?.pop().unwrap_or_default();
            let counts = match Value::parse(&reply) {
                Ok(Some((Value::Error(text), _))) => return Err(String::from_utf8_lossy(&text).into_owned()),
                Ok(Some((Value::Array(counts), _))) => counts.iter().map(Value::integer).collect::<Option<Vec<_>>>(),
                _ => None,
            };
            let Some([local, replicas]) = counts.as_deref() else { return Err(says::ODD_REPLIES.to_owned()) };
            least = Some(least.map_or((*local, *replicas), |least| (least.0.min(*local), least.1.min(*replicas))));
        }
        let least = least.unwrap_or_default();
        known.set(least);
        let enough = least.0 >= wanted.0 && least.1 >= wanted.1;
        if enough || deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            connections.into_iter().for_each(Dedicated::give_back);
            return Ok(least);
        }
    }
}

fn text(reply: Result<Bytes, String>) -> Result<String, Unsure> {
    let reply = reply.map_err(Unsure::Silent)?;
    match Value::parse(&reply) {
        Ok(Some((Value::Text(text), _))) => Ok(String::from_utf8_lossy(&text).into_owned()),
        Ok(Some((Value::Error(text), _))) => Err(Unsure::Silent(String::from_utf8_lossy(&text).into_owned())),
        _ => Err(Unsure::Silent("it says what is no reply to INFO".to_owned())),
    }
}

fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

#[cfg(test)]
mod tests {
    use tokio::task::{spawn_local, yield_now};

    use super::*;
    use crate::upstream::router::scripted::{Scripted, request, within_a_minute};

    async fn some_turns() {
        for _ in 0..10 {
            yield_now().await;
        }
    }

    /// What a primary says of its replicas.
    fn info(replicas: &str) -> Vec<u8> {
        let mut reply = Vec::new();
        let text = format!("role:master\r\nmaster_replid:a\r\nmaster_repl_offset:10\r\n{replicas}");
        write::bulk(&mut reply, text.as_bytes());
        reply
    }

    #[tokio::test(start_paused = true)]
    async fn replicas_are_hurried_and_counted_once_they_have_it() {
        within_a_minute(async {
            let mut nodes = Scripted::new(1);
            let (caller, words) = (Caller::of(&nodes), request("WAIT 1 0"));
            let wait = Wait::for_replicas(&words.as_request()).unwrap();
            let waiting = spawn_local(wait.run(caller.clone()));
            let mut shared = nodes.node(0).await;
            shared.hears(INFO_REPLICATION).await;
            assert!(caller.client.waits(), "others see it blocked");
            shared.says(&info("")).await;
            let mut own = nodes.node(0).await;
            own.hears(HURRY).await;
            shared.hears(INFO_REPLICATION).await;
            shared.says(&info("slave0:ip=a,port=1,state=online,offset=10,lag=0\r\n")).await;
            assert_eq!(waiting.await.unwrap().unwrap(), ":1\r\n");
            assert!(!caller.client.waits());
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_unblocked_is_told_how_many_there_are() {
        within_a_minute(async {
            let mut nodes = Scripted::new(1);
            let (caller, words) = (Caller::of(&nodes), request("WAIT 3 0"));
            let mut wait = Box::pin(Wait::for_replicas(&words.as_request()).unwrap().run(caller.clone()));
            let asked = async {
                let mut node = nodes.node(0).await;
                node.hears(INFO_REPLICATION).await;
                node
            };
            let mut node = tokio::select! {
                ended = &mut wait => panic!("it waits for three: {ended:?}"),
                node = asked => node,
            };
            node.says(&info("slave0:ip=a,port=1,state=online,offset=10,lag=0\r\n")).await;
            tokio::select! {
                ended = &mut wait => panic!("it waits for three: {ended:?}"),
                () = some_turns() => {}
            }
            assert!(caller.client.unblock(Unblock::Timeout));
            assert_eq!(wait.await.unwrap(), ":1\r\n");
        })
        .await;
    }

    #[test]
    fn what_servers_refuse_is_no_wait() {
        for (words, is_wait) in [("WAITAOF 1 0 0", true), ("WAITAOF 2 0 0", false), ("WAITAOF 0 -1 0", false)] {
            assert_eq!(Wait::for_disks(&request(words).as_request()).is_some(), is_wait, "{words}");
        }
        assert!(Wait::for_replicas(&request("WAIT 1 x").as_request()).is_none());
    }

    #[test]
    fn only_replicas_that_are_up_count() {
        let line = "slave0:ip=127.0.0.1,port=7003,state=online,offset=42,lag=0\r";
        assert_eq!(acknowledged(line), Some(42));
        assert_eq!(acknowledged("slave12:ip=::1,port=7003,state=online,offset=7,lag=1,type=replica"), Some(7));
        assert_eq!(acknowledged("slave0:ip=127.0.0.1,port=7003,state=wait_bgsave,offset=0,lag=0"), None);
        assert_eq!(acknowledged("slave_read_only:1"), None);
        assert_eq!(acknowledged("slaves:1"), None);
    }

    #[test]
    fn what_is_wanted_is_read_as_the_server_reads_it() {
        let forever = WaitTerms { replicas: -1, timeout: None };
        assert_eq!(WaitTerms::parse(b"-1", b"0"), Some(forever));
        assert_eq!(WaitTerms::parse(b"1", b"-1"), None);
    }
}
