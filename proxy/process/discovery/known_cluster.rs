//! All that is known of the cluster, and the snapshot that it comes to. No I/O: what was learnt is put in, a
//! [`Topology`] is taken out.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::time::Instant;
use tracing::{debug, info};

use super::{
    failing::{self, Failing},
    names::{Names, Resolved},
    reach::{News, ReachedNode, SoughtNode},
    survey::Survey,
};
use crate::{
    cluster::topology::{Accepts, AddressMap, Lost, Seen, ServerInfo, Topology, View},
    commands::table::CommandTable,
    protocol::{
        address::Address,
        slot::{SLOTS, Slot},
    },
};

/// How long a MOVED outweighs the views of nodes that may not have heard of the move: gossip takes about a second.
const MOVED_COUNTS: Duration = Duration::from_secs(2);
/// How long a view older than one seen before is disbelieved. Then it is taken: the cluster was made anew, perhaps.
const STALE_COUNTS: Duration = Duration::from_secs(15);

/// How many kinds of servers are remembered.
const MOST_LEARNT: usize = 8;

/// What is known of the cluster.
pub struct KnownCluster {
    map: Arc<AddressMap>,
    /// The last view believed.
    view: Option<View>,
    /// The highest config epoch believed, and when it was last seen.
    newest: Option<(u64, Instant)>,
    /// Where nodes are reached, by node id.
    reached: HashMap<String, ReachedNode>,
    /// What to call nodes.
    names: Names,
    /// Slots that MOVED has moved lately.
    moved: HashMap<Slot, (Address, Instant)>,
    /// The server of each node that has been asked, by node id.
    servers: HashMap<String, ServerInfo>,
    /// What each node that has told takes from one connection, by node id.
    accepts: HashMap<String, Accepts>,
    /// All who answered last say that the cluster is down.
    failed: bool,
    /// Nodes that nothing is to go through that could as well go by another.
    failing: Failing,
    /// Some node that answered last holds another for failing.
    accusing: bool,
    /// What was learnt of each kind of server.
    learnt: Vec<(ServerInfo, Arc<CommandTable>)>,
    /// What is to be told of where nodes are reached.
    news: Vec<News>,
}

impl KnownCluster {
    /// An empty one.
    pub fn new(map: Arc<AddressMap>) -> KnownCluster {
        KnownCluster {
            map,
            view: None,
            newest: None,
            reached: HashMap::new(),
            names: Names::default(),
            moved: HashMap::new(),
            servers: HashMap::new(),
            accepts: HashMap::new(),
            failed: false,
            failing: Failing::default(),
            accusing: false,
            learnt: Vec::new(),
            news: Vec::new(),
        }
    }

    /// Notes what servers have answered, and returns who was met where.
    pub fn meet(&mut self, survey: &Survey) -> Vec<(String, Address)> {
        if let Some((server, commands)) = &survey.learnt {
            info!("{:?} {} has {} commands", server.kind, server.version, commands.rows().len());
            self.learnt.push((server.clone(), commands.clone()));
            // Each change of modules counts as another kind of server.
            self.learnt.drain(..self.learnt.len().saturating_sub(MOST_LEARNT));
        }
        self.failed = !survey.answers.is_empty() && survey.answers.iter().all(|answer| answer.failed);
        let (failing, accusing) = failing::convicted(&survey.answers);
        let now = Instant::now();
        for id in &failing {
            self.failing.note(id, now);
            // Nobody may have asked it for anything: whether it can be reached is to be known all the same.
            self.doubt(id);
        }
        self.accusing = accusing;
        let met = survey.answers.iter().map(|answer| {
            self.servers.insert(answer.name(), answer.server.clone());
            if let Some(accepts) = answer.accepts {
                self.accepts.insert(answer.name(), accepts);
            }
            (answer.name(), answer.asked.clone())
        });
        met.collect()
    }

    /// The servers whose commands are known.
    pub fn known_servers(&self) -> Vec<ServerInfo> {
        self.learnt.iter().map(|(server, _)| server.clone()).collect()
    }

    /// Whether a view is older than one believed before: whoever gave it may be cut off from the others. It is not stale
    /// where it has no node in common with what is known, or where nothing newer has been seen for long.
    pub fn is_stale(&self, view: &View, now: Instant) -> bool {
        let Some((newest, since)) = self.newest else { return false };
        let of_this_cluster = view.seen.iter().any(|seen| self.reached.contains_key(&seen.id));
        let stale = view.epoch() < newest && of_this_cluster && now - since < STALE_COUNTS;
        if stale {
            debug!("a view of config epoch {} is older than {newest}: not believed", view.epoch());
        }
        stale
    }

    /// Whether nothing has been heard of the cluster for so long that another may have taken its place.
    pub fn is_forsaken(&self, now: Instant) -> bool {
        self.newest.is_none_or(|(_, since)| now - since >= STALE_COUNTS)
    }

    /// Takes a view for true. `here`: nodes that were met in person; `resolved`: where seeds' names lead.
    pub fn believe(&mut self, mut view: View, here: &[(String, Address)], resolved: &Resolved) {
        self.newest = Some((view.epoch(), Instant::now()));
        // An address that was only guessed does not replace one that was given: node labels must not flap.
        for seen in view.seen.iter_mut().filter(|seen| seen.implied) {
            if let Some(known) = self.reached.get(&seen.id).filter(|known| known.announced.port == seen.announced.port)
            {
                let guess = std::mem::replace(&mut seen.announced, known.announced.clone());
                seen.alias(&guess.host);
            }
        }
        self.reached.retain(|id, _| view.members().any(|seen| seen.id == *id));
        self.servers.retain(|id, _| view.seen.iter().any(|seen| seen.id == *id));
        self.accepts.retain(|id, _| view.seen.iter().any(|seen| seen.id == *id));
        for seen in &view.seen {
            if let Some(mapped) = self.map.find(&seen.announced) {
                if self.place(&seen.id, &seen.announced).is_none_or(|found| found.reach != mapped) {
                    self.settle(ReachedNode::mapped(seen, mapped));
                }
            } else if self.place(&seen.id, &seen.announced).is_none()
                && here.iter().any(|(id, asked)| *id == seen.id && *asked == seen.announced)
            {
                self.settle(ReachedNode::announced(seen));
            }
        }
        for fallen in &view.fallen {
            let known = self.reached.entry(fallen.id.clone());
            known.or_insert_with(|| ReachedNode::announced(fallen)).fall();
        }
        self.names.learn(&view, resolved, here);
        self.view = Some(view);
    }

    /// Notes where a node is reached; what is new about that is to be told.
    pub fn settle(&mut self, found: ReachedNode) {
        let before = self.reached.get(&found.id);
        let found = found.after(before);
        self.news.extend(found.news(before));
        if !found.sure || before.is_some_and(|before| !before.sure) {
            self.failing.note(&found.id, Instant::now());
        }
        self.reached.insert(found.id.clone(), found);
    }

    /// What is new about where nodes are reached, since it was asked for last.
    pub fn take_news(&mut self) -> Vec<News> {
        std::mem::take(&mut self.news)
    }

    /// Nothing answers where a node was reached.
    pub fn doubt_at(&mut self, address: &Address) {
        self.reached.values_mut().filter(|found| found.reach == *address).for_each(|found| found.doubted = true);
    }

    /// A worker has trouble with a node: it is to be searched again. Where it was reached so far.
    pub fn doubt(&mut self, id: &str) -> Option<Address> {
        let found = self.reached.get_mut(id)?;
        found.doubted = true;
        Some(found.reach.clone())
    }

    /// Where a node was reached last.
    pub fn place_of(&self, id: &str) -> Option<Address> {
        self.reached.get(id).map(|found| found.reach.clone())
    }

    /// The node that was reached at this address, where the one with this id was not: it has taken its place.
    pub fn supplanted_at(&self, address: &Address, id: &str) -> Option<String> {
        let is_there = |found: &&ReachedNode| found.reach == *address;
        let is_right = self.reached.get(id).is_some_and(|found| is_there(&found));
        if is_right {
            return None;
        }
        self.reached.values().find(is_there).map(|found| found.id.clone())
    }

    /// Notes a MOVED.
    pub fn moved(&mut self, slot: Slot, address: Address, now: Instant) {
        self.moved.insert(slot, (address, now));
    }

    /// The nodes to be searched: those that were never reached, those that are lost, and those that are doubted. Where
    /// the operator has said where a node is, only that place is looked at.
    pub fn lost(&self) -> Vec<SoughtNode> {
        let seen = self.view.iter().flat_map(|view| &view.seen);
        let lost = seen
            .filter(|seen| !self.place(&seen.id, &seen.announced).is_some_and(|found| found.sure && !found.doubted));
        lost.map(|seen| SoughtNode::of(seen, self.map.find(&seen.announced))).collect()
    }

    /// Whether a node of the view is nowhere to be found.
    pub fn misses_nodes(&self) -> bool {
        self.reached.values().any(|found| !found.sure)
    }

    /// Whether an address is that of a node: where it announces, where it is reached, or a seed's name for it.
    pub fn is_node_at(&self, address: &Address) -> bool {
        let view = self.view.iter().flat_map(|view| &view.seen);
        let mut goes_by = view.map(|seen| (&seen.announced, &seen.aliases, self.names.label(seen)));
        self.reached.values().any(|found| found.reach == *address)
            || goes_by.any(|(announced, aliases, label)| {
                *announced == *address
                    || label == *address
                    || announced.port == address.port && aliases.contains(&address.host)
            })
    }

    /// Whether a node can be reached, as far as is known.
    pub fn is_up(&self, id: &str) -> bool {
        self.reached.get(id).is_none_or(|found| found.sure)
    }

    /// Whether a node is failing, or held for that by some other: there may soon be news.
    pub fn has_failing(&mut self, now: Instant) -> bool {
        self.failing.any(now) || self.accusing
    }

    /// The snapshot after `current`: what the view and the latest MOVED come to. `None` where there is no view, or a
    /// node in it has never been searched. One that is searched again stays where it was meanwhile.
    pub fn layout(&mut self, current: &Topology, now: Instant) -> Option<Topology> {
        let view = self.view.as_ref()?;
        if view.seen.iter().any(|seen| self.place(&seen.id, &seen.announced).is_none()) {
            return None;
        }
        let reach = |seen: &Seen| match self.place(&seen.id, &seen.announced) {
            Some(found) => found.reach.clone(),
            None => seen.announced.clone(),
        };
        let nodes = view.nodes(&current.nodes, reach, |seen| self.names.label(seen));
        let mut next = current.with_layout(nodes, view.slots.clone());
        let fallen = view.fallen.iter().map(|seen| seen.node(reach(seen), self.names.label(seen)).into());
        next.fallen = fallen.collect();
        (next.server, next.commands) = self.newest_server(current);
        next.accepts = self.accepts.values().copied().reduce(Accepts::strictest).unwrap_or_default();
        self.moved.retain(|_, (_, since)| now - *since < MOVED_COUNTS);
        for (slot, (address, _)) in &self.moved {
            next.move_slot(*slot, address);
        }
        next.failed = self.failed;
        let is_failing = |id: &str| self.failing.has(id, now) || !self.is_up(id);
        next.failing = next.nodes.iter().map(|node| &node.id).filter(|id| is_failing(id)).cloned().collect();
        next.lost = self.lost_nodes();
        next.trouble = trouble(&next);
        Some(next)
    }

    fn lost_nodes(&self) -> Vec<Lost> {
        let lost = |found: &ReachedNode| {
            let why = found.why_not.as_str().into();
            found.lost_since.map(|since| Lost { id: found.id.clone(), since, why })
        };
        let mut all: Vec<Lost> = self.reached.values().filter(|found| !found.sure).filter_map(lost).collect();
        all.sort_by(|one, other| one.id.cmp(&other.id));
        all
    }

    /// Where a node is reached that is announced there.
    fn place(&self, id: &str, announced: &Address) -> Option<&ReachedNode> {
        self.reached.get(id).filter(|found| found.announced == *announced)
    }

    /// The newest server among the nodes, and its commands.
    fn newest_server(&self, current: &Topology) -> (Arc<ServerInfo>, Arc<CommandTable>) {
        let newest = self.servers.values().map(ServerInfo::newness).max();
        let learnt = newest.and_then(|newest| self.learnt.iter().find(|(server, _)| server.newness() == newest));
        match learnt {
            Some((server, commands)) if *server != *current.server => (Arc::new(server.clone()), commands.clone()),
            _ => (current.server.clone(), current.commands.clone()),
        }
    }
}

/// Why not all slots are served.
pub fn trouble(topology: &Topology) -> Option<Arc<str>> {
    match topology.covered() {
        SLOTS if topology.failed => Some("the nodes say that the cluster is down (cluster_state:fail)".into()),
        SLOTS => None,
        0 => Some("the nodes answer, but no slot has an owner: the cluster is not formed yet".into()),
        covered => Some(format!("{} of {SLOTS} slots have no owner", SLOTS - covered).into()),
    }
}

#[cfg(test)]
mod tests;
