//! Snapshots: when there is a new one, and what is told of it.

use std::{collections::HashSet, sync::Arc, time::Duration};

use tokio::time::Instant;
use tracing::{debug, error, info};

use super::{Discovery, moves::Moves, reach::News};
use crate::{
    cluster::topology::{Node, Role, Topology, slots_text},
    metrics::{
        NodeState, Slots,
        events::EventKind,
        readable::{length, time_of_day},
    },
    protocol::{names::Name, slot::SLOTS},
};

/// How often the operator is told again of what is not served.
const REMIND: Duration = Duration::from_secs(60);
/// The least time between two such lines, where the reasons differ.
const ANOTHER_REASON: Duration = Duration::from_secs(10);
/// What to do where the nodes answer and own no slots.
pub(super) const NOT_FORMED: &str =
    "form the cluster (redis-cli --cluster create HOST:PORT ...), or wait for whoever forms it";

/// What the operator has been told of what is not served.
#[derive(Debug, Default)]
pub(super) struct Notices {
    /// What can be done about it.
    pub(super) remedy: &'static str,
    /// Whether all slots were served once.
    was_ready: bool,
    /// Since when something is not served, and when that was said last.
    unserved: Option<(std::time::SystemTime, Instant)>,
}

impl Discovery {
    pub(super) fn current(&self) -> Arc<Topology> {
        self.publisher.borrow().clone()
    }

    /// Publishes the layout that is known; `false` where one of its nodes is still being searched for the first time.
    pub(super) fn publish_layout(&mut self) -> bool {
        let next = self.known_cluster.layout(&self.current(), Instant::now());
        next.map(|next| self.publish(next)).is_some()
    }

    /// Publishes a snapshot where it differs from the current one. The epoch only grows where requests would go
    /// elsewhere.
    pub(super) fn publish(&mut self, mut next: Topology) {
        let current = self.current();
        note_demoted(&current, &mut next);
        self.meet_primaries(&mut next);
        let changed = !next.same_routes(&current);
        next.epoch = current.epoch + u64::from(changed);
        if changed || next.fallen != current.fallen {
            self.tell_changes(&current, &next);
            self.schedule.changed(Instant::now());
        }
        if next.accepts != current.accepts {
            debug!("what the nodes take from a connection: {:?}", next.accepts);
        }
        let is_other = next.trouble != current.trouble || next.lost != current.lost || next.fallen != current.fallen;
        let is_other = is_other || next.failing != current.failing;
        if changed || is_other || next.failed != current.failed || next.accepts != current.accepts {
            self.publisher.send_replace(Arc::new(next));
        }
        self.show_nodes();
        let news = self.known_cluster.take_news();
        news.into_iter().for_each(|news| self.tell_reach(news));
        self.tell_served(&current);
    }

    /// Says where nodes are reached, and where they are not.
    fn tell_reach(&self, news: News) {
        let (events, current) = (self.metrics.events(), self.current());
        let glances = self.metrics.nodes();
        match news {
            News::Dialled(text) => info!("{text}"),
            News::Lost { id, announced, why } => {
                let slots = current.nodes.iter().position(|node| node.id == id).map(|index| current.ranges(index));
                let what = match slots.filter(|ranges| !ranges.is_empty()) {
                    Some(ranges) => format!("; {} answer errors", slots_text(&ranges)),
                    None => "; no slot depends on it".to_owned(),
                };
                let label = current.node(&id).map_or_else(|| announced.to_string(), |node| node.label.to_string());
                let text = Name::NodeUnreachable.on(format!("node {label} cannot be reached: {why}{what}"));
                events.warn(EventKind::NodeLost, text);
            }
            News::Back { id, announced, since } => {
                let label = current.node(&id).map_or_else(|| announced.to_string(), |node| node.label.to_string());
                let failed = glances.iter().find(|glance| *glance.state.label == *label);
                let failed = failed.map_or(0, |glance| glance.failed);
                let away = length(since.elapsed().unwrap_or_default());
                events.info(
                    EventKind::NodeBack,
                    format!("node {label} is back after {away}; {failed} requests to it have failed so far"),
                );
            }
        }
    }

    /// Says what is served, where that is other than before, and again and again where something is not.
    fn tell_served(&mut self, before: &Topology) {
        let current = self.current();
        let events = self.metrics.events();
        let Some(why) = current.complaint() else {
            self.notices.unserved = None;
            let is_first = !std::mem::replace(&mut self.notices.was_ready, true);
            if is_first {
                let replicas = current.nodes.iter().filter(|node| node.role == Role::Replica).count();
                let replicas = if replicas == 1 { "1 replica".to_owned() } else { format!("{replicas} replicas") };
                let text = format!("ready: {}, with {replicas}", current.served_text());
                events.info(EventKind::Served, text);
            } else if !before.is_served_like(&current) {
                events.info(EventKind::Served, format!("{} again", current.served_text()));
            }
            return;
        };
        let now = Instant::now();
        let is_news = !before.is_served_like(&current);
        let is_due = match self.notices.unserved {
            None => true,
            Some((_, last)) if is_news => now - last >= Duration::from_millis(500) || current.reachable() == 0,
            Some((_, last)) => now - last >= if before.trouble != current.trouble { ANOTHER_REASON } else { REMIND },
        };
        if !is_due {
            return;
        }
        let since = self.notices.unserved.map_or_else(std::time::SystemTime::now, |(since, _)| since);
        let again = match self.notices.unserved {
            Some(_) if !is_news => format!(", since {}", time_of_day(since)),
            _ => String::new(),
        };
        self.notices.unserved = Some((since, now));
        if current.reachable() > 0 {
            events.warn(EventKind::Served, format!("{}{again}: {why}", current.served_text()));
        } else {
            let remedy = self.remedy(&current);
            let text = Name::NotServed.on(format!("nothing is served{again}: {why}; {remedy}"));
            events.error(EventKind::Served, text);
        }
    }

    /// What can be done where nothing is served.
    fn remedy(&self, current: &Topology) -> &'static str {
        if current.covered() < SLOTS {
            return self.notices.remedy;
        }
        if current.failed {
            return "`redis-cli --cluster check HOST:PORT` says what is lost; cluster-require-full-coverage no serves the rest";
        }
        "are the nodes running? `slotway doctor` asks each"
    }

    /// When there is something to be told that nothing else brings up.
    pub(super) fn news_due(&self) -> Option<Instant> {
        let again = self.notices.unserved.map(|(_, last)| last + REMIND);
        again.into_iter().chain(self.moves.due()).min()
    }

    /// Tells it.
    pub(super) fn tell_news(&mut self) {
        let now = Instant::now();
        for text in self.moves.take(now) {
            self.metrics.events().info(EventKind::SlotsMoved, text);
        }
        let current = self.current();
        self.tell_served(&current);
    }

    fn tell_changes(&mut self, current: &Topology, next: &Topology) {
        debug!("layout {}: {} nodes, {} slots", next.epoch, next.nodes.len(), next.covered());
        let events = self.metrics.events();
        for takeover in self.moves.note(current, next, Instant::now()).0 {
            events.warn(EventKind::FailOver, takeover);
        }
        if let (Some(old), Some(new)) = (current.pubsub_node(), next.pubsub_node())
            && old.id != new.id
        {
            let why = if next.is_failing(&old.id) { ": the node before it fails" } else { "" };
            events.info(EventKind::Publishing, format!("all publishing goes through {} now{why}", new.label));
        }
        // Nodes of the first layout have not joined.
        if !current.nodes.is_empty() {
            let known: HashSet<&str> = current.shown().map(|(node, _)| node.id.as_str()).collect();
            for (index, node) in next.nodes.iter().enumerate().filter(|(_, node)| !known.contains(node.id.as_str())) {
                events.info(EventKind::Member, format!("node {} has joined: {}", node.label, part(next, index)));
            }
            for (node, _) in current.shown() {
                events_of_member(node, current, next, &self.moves)
                    .into_iter()
                    .for_each(|text| events.info(EventKind::Member, text));
            }
        }
        self.contacts.departed(current.departed(next).map(|gone| gone.reach.clone()));
        let clash = next.clash();
        if let Some(clash) = clash.as_deref().filter(|_| clash != self.clash) {
            error!("{}", Name::Addresses.on(clash));
        }
        self.clash = clash;
    }

    fn show_nodes(&self) {
        let topology = self.current();
        let counts = topology.slot_counts().into_iter().chain(std::iter::repeat(0));
        let states = topology.shown().zip(counts).map(|((node, role), slots)| NodeState {
            label: node.label.clone(),
            address: node.announced.to_string().into(),
            role,
            up: topology.lost(&node.id).is_none(),
            slots,
        });
        let slots = Slots { assigned: topology.covered(), reachable: topology.reachable() };
        self.metrics.topology(topology.epoch, slots, states.collect());
    }
}

/// The part that a node plays in the cluster, in words.
fn part(topology: &Topology, index: usize) -> String {
    let Some(node) = topology.nodes.get(index) else { return String::new() };
    match (&node.replicates, topology.role_of(index)) {
        (Some(id), _) => format!("a replica of {}", topology.node(id).map_or(id.as_str(), |primary| &primary.label)),
        (None, "primary") => format!("the primary of {}", slots_text(&topology.ranges(index))),
        (None, _) => "it has no slots yet, and is nobody's replica".to_owned(),
    }
}

/// What has become of a node that was there before.
fn events_of_member(before: &Node, current: &Topology, next: &Topology, moves: &Moves) -> Vec<String> {
    let Some(index) = next.nodes.iter().position(|node| node.id == before.id) else {
        let (has_fallen, had_fallen) =
            [next, current].map(|topology| topology.fallen.iter().any(|node| node.id == before.id)).into();
        let why = match (had_fallen, has_fallen) {
            (true, true) => return Vec::new(),
            (false, true) => "owns no slot, and the others hold it for failing: nothing is sent to it until it is back",
            (_, false) => "has left",
        };
        return vec![format!("node {} {why} ({})", before.label, before.id)];
    };
    let now = &next.nodes[index];
    let mut texts = Vec::new();
    if now.label != before.label {
        texts.push(format!("node {} goes by {} now", before.label, now.label));
    }
    let follows_anew = |primary: &String| !moves.has_followed(&now.id, primary);
    if now.role == Role::Replica
        && now.replicates != before.replicates
        && now.replicates.as_ref().is_some_and(follows_anew)
    {
        texts.push(format!("node {} is {} now", now.label, part(next, index)));
    }
    texts
}

/// Notes which nodes were primaries and no longer are.
fn note_demoted(current: &Topology, next: &mut Topology) {
    let is_primary = |id: &str| next.node(id).is_some_and(|node| node.role == Role::Primary);
    let mut fallen = current.primaries().map(|node| node.id.as_str()).filter(|id| !is_primary(id)).peekable();
    if fallen.peek().is_some() {
        let mut demoted = (*current.demoted).clone();
        // Nodes that are gone for good are of no interest: whoever asks is told that they are gone.
        demoted.retain(|id, _| next.node(id).is_some());
        demoted.extend(fallen.map(|id| (id.to_owned(), std::time::Instant::now())));
        next.demoted = demoted.into();
    }
}
