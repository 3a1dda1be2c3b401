//! What nodes tell of themselves: version, memory, how far a replica is behind, slots that are half moved. Nodes are asked only
//! while somebody looks at the status.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use serde::Serialize;
use tokio::{sync::Notify, task::JoinSet};

use super::AdminView;
use crate::{
    cluster::topology::{ServerInfo, Topology, member::Member},
    protocol::address::Address,
    upstream::dial::Control,
};

/// How often nodes are asked.
const EVERY: Duration = Duration::from_secs(5);
/// How long after the last look nodes are still asked.
const WATCHED_FOR: Duration = Duration::from_secs(15);
/// How long a node may take.
const PATIENCE: Duration = Duration::from_secs(1);

/// What one node tells of itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct NodeVitals {
    /// `Redis 7.0.15`.
    pub version: Option<String>,
    pub memory_bytes: Option<u64>,
    /// 0: no limit.
    pub memory_limit_bytes: Option<u64>,
    /// How many bytes of the replication stream this replica is behind its primary.
    pub lag_bytes: Option<u64>,
    /// Whether a replica has its connection to its primary.
    pub linked: Option<bool>,
    #[serde(skip)]
    offset: Option<u64>,
    /// Slots that it is giving away: the slot, and the node id that it goes to.
    #[serde(skip)]
    gives: Vec<(usize, String)>,
}

/// What all nodes told last.
#[derive(Debug, Default)]
pub(super) struct Vitals {
    by_id: Mutex<HashMap<String, NodeVitals>>,
    watched: Mutex<Option<Instant>>,
    wanted: Notify,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Vitals {
    /// Notes that somebody looks at the status now.
    pub(super) fn watch(&self) {
        let is_new = lock(&self.watched).replace(Instant::now()).is_none_or(|last| last.elapsed() >= WATCHED_FOR);
        if is_new {
            self.wanted.notify_one();
        }
    }

    fn is_watched(&self) -> bool {
        lock(&self.watched).is_some_and(|last| last.elapsed() < WATCHED_FOR)
    }

    /// What the node with this id told last.
    pub(super) fn of(&self, id: &str) -> NodeVitals {
        lock(&self.by_id).get(id).cloned().unwrap_or_default()
    }

    /// The slots that are half moved: the slot, its owner and its next owner, by labels.
    pub(super) fn moving(&self, topology: &Topology) -> Vec<(usize, String, String)> {
        let label = |id: &str| topology.node(id).map_or_else(|| id.to_owned(), |node| node.label.to_string());
        let by_id = lock(&self.by_id);
        let moves = by_id.iter().flat_map(|(id, vitals)| {
            vitals.gives.iter().map(|(slot, to)| (*slot, label(id), label(to))).collect::<Vec<_>>()
        });
        let mut moves: Vec<_> = moves.collect();
        moves.sort();
        moves
    }

    /// Asks nodes again and again while somebody looks. It never ends.
    pub(super) async fn keep(&self, view: &AdminView) {
        loop {
            if !self.is_watched() {
                self.wanted.notified().await;
            }
            let topology = view.topology.borrow().clone();
            let mut asking = JoinSet::new();
            for node in topology.nodes.iter().filter(|node| topology.lost(&node.id).is_none()) {
                let (id, reach) = (node.id.clone(), node.reach.clone());
                let (login, dialer) = (view.login.clone(), view.dialer.within(PATIENCE));
                asking.spawn(async move { (id, ask(&reach, &login, &dialer).await) });
            }
            let told = asking.join_all().await;
            let mut all: HashMap<String, NodeVitals> =
                told.into_iter().filter_map(|(id, vitals)| Some((id, vitals?))).collect();
            for node in &topology.nodes {
                let ahead = node.replicates.as_ref().and_then(|primary| all.get(primary)?.offset);
                if let (Some(ahead), Some(vitals)) = (ahead, all.get_mut(&node.id)) {
                    vitals.lag_bytes = vitals.offset.map(|offset| ahead.saturating_sub(offset));
                }
            }
            *lock(&self.by_id) = all;
            tokio::time::sleep(EVERY).await;
        }
    }
}

async fn ask(
    at: &Address,
    login: &crate::upstream::dial::Login,
    dialer: &crate::upstream::dial::Dialer,
) -> Option<NodeVitals> {
    let mut control = Control::open(at, login, dialer).await.ok()?;
    let replies = control.ask_all(&["INFO server", "INFO memory", "INFO replication", "CLUSTER NODES"]).await.ok()?;
    let [server, memory, replication, nodes] = replies.as_slice() else { return None };
    let number = |text: Option<&str>, name: &str| field(text?, name)?.parse::<u64>().ok();
    let info = ServerInfo::from_info(server.str()?);
    let replication = replication.str();
    let link = replication.and_then(|text| field(text, "master_link_status"));
    let own =
        nodes.str().into_iter().flat_map(str::lines).filter_map(Member::parse).find(|member| member.has("myself"));
    let gives = own.iter().flat_map(Member::open_slots).filter(|(_, gives, _)| *gives);
    Some(NodeVitals {
        version: Some(format!("{:?} {}", info.kind, info.version)),
        memory_bytes: number(memory.str(), "used_memory"),
        memory_limit_bytes: number(memory.str(), "maxmemory"),
        lag_bytes: None,
        linked: link.map(|status| status == "up"),
        offset: number(replication, if link.is_some() { "slave_repl_offset" } else { "master_repl_offset" }),
        gives: gives.map(|(slot, _, to)| (slot, to.to_owned())).collect(),
    })
}

fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}
