//! How far nodes and their replicas are with what a client has written.

use std::{
    cell::Cell,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::task::JoinSet;

use super::Counts;
use crate::{
    cluster::{
        recovery::Backoff,
        topology::{Node, Role},
    },
    protocol::{
        resp::{Value, write},
        says,
    },
    session::ask::ask,
    upstream::{dedicated::Dedicated, router::Router, ticket::Line},
};

/// How often the nodes are asked again.
const LAST_PAUSE: Duration = Duration::from_millis(100);
const BETWEEN_LOOKS: Backoff = Backoff::new(Duration::from_millis(1), LAST_PAUSE);
/// A node's uptime is told in whole seconds.
const UPTIME_STEP: Duration = Duration::from_secs(1);
pub(super) const INFO_SERVER: &[u8] = b"*2\r\n$4\r\nINFO\r\n$6\r\nserver\r\n";
pub(super) const INFO_REPLICATION: &[u8] = b"*2\r\n$4\r\nINFO\r\n$11\r\nreplication\r\n";
/// Waits for more replicas than there can be: the node asks all it has for their acknowledgements at once.
pub(super) const HURRY: &[u8] = b"*3\r\n$4\r\nWAIT\r\n$7\r\n1000000\r\n$1\r\n1\r\n";
/// A FUNCTION DUMP of no functions: restoring it changes nothing, but is written to the replication stream, behind all
/// that was written before.
const NO_FUNCTIONS: &[u8] = b"\n\0\x5d\x9b\\@\x0f\x7f\xa2\xda";

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
    let written = line.writes.all();
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
pub(super) async fn count(
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
        let now = router.clock().tick();
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
                line.writes.forget(&target.node.id);
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
    /// The node does not tell.
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
            if uptime < router.clock().tick() - written + UPTIME_STEP {
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
pub(super) fn acknowledged(line: &str) -> Option<u64> {
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
        if connection.exchange(HURRY, 1, timeouts.request_timeout()).await.is_ok() {
            connection.give_back();
        }
    });
}

pub(super) async fn proxys_own(router: &Router, node: &Arc<Node>) -> Result<Dedicated, String> {
    let lane = router.first_lane();
    let dialled = lane.pool().take(node).await;
    dialled.map_err(|why| why.to_string())
}

/// Counts fsyncs until there are as many as wanted or the time is over. Nodes do not tell of their replicas' fsyncs but
/// by WAITAOF itself, on a connection that has written: something that changes nothing is written on one of the
/// proxy's own, behind all of the client's writes, and there the node counts.
pub(super) async fn count_synced(
    router: Rc<Router>,
    line: Rc<Line>,
    wanted: Counts,
    timeout: Option<Duration>,
    known: Rc<Cell<Counts>>,
) -> Result<Counts, String> {
    let deadline = timeout.and_then(|timeout| router.clock().tick().checked_add(timeout));
    let patience = router.timeouts().request_timeout();
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
        let now = router.clock().tick();
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
        if enough || deadline.is_some_and(|deadline| router.clock().tick() >= deadline) {
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
