//! The verdict: what is wrong with which node, since when and whom it hurts, and the state of everything in one sentence.

use std::{sync::Arc, time::SystemTime};

use crate::{
    cluster::topology::{Node, Role, Topology, slots_text},
    metrics::{
        DatabaseGlance,
        history::Present,
        readable::{grouped, time_of_day},
    },
    protocol::slot::SLOTS,
};

/// How many nodes the sentence names.
const MOST_NAMED: usize = 3;

/// What is wrong with a node.
pub(super) struct Trouble {
    /// The node's label.
    pub node: Arc<str>,
    /// Whether the node cannot be reached; if it can, it is slow.
    pub is_lost: bool,
    pub since: SystemTime,
    pub why: String,
    /// Whom it hurts, in words.
    pub hurts: String,
    /// Whether it owns slots, which are not served without it.
    owns: bool,
}

impl Trouble {
    /// What is wrong with the node at this place of [`Topology::shown`]; `None` where all is well with it.
    pub fn of(
        node: &Node,
        index: usize,
        topology: &Topology,
        present: &Present,
        databases: &[DatabaseGlance],
    ) -> Option<Trouble> {
        let (pace, slow) = present.node(&node.label);
        let lost = topology.lost(&node.id);
        let (since, why) = match (lost, slow) {
            (Some(lost), _) => (lost.since, lost.why.to_string()),
            (None, Some(since)) => {
                (since, pace.slowness().unwrap_or_else(|| "it was asked nothing of late".to_owned()))
            }
            (None, None) => return None,
        };
        let ranges = topology.ranges(index);
        let hurts = match (lost.is_some(), ranges.is_empty()) {
            (true, false) => format!("{} answer errors", data_of(node, &ranges, topology, databases)),
            (false, false) => format!("requests for {} wait", data_of(node, &ranges, topology, databases)),
            (true, true) => left_without(node, topology),
            (false, true) => "reads that go to it wait".to_owned(),
        };
        Some(Trouble { node: node.label.clone(), is_lost: lost.is_some(), since, why, hurts, owns: !ranges.is_empty() })
    }

    fn text(&self) -> String {
        let what = if self.is_lost { "does not answer" } else { "is slow" };
        format!("{} {what} since {} ({}): {}", self.node, time_of_day(self.since), self.why, self.hurts)
    }
}

/// What a node has: its slots, and the databases in them.
fn data_of(node: &Node, ranges: &[(usize, usize)], topology: &Topology, databases: &[DatabaseGlance]) -> String {
    let is_here = |database: &&DatabaseGlance| {
        database.is_in_use() && topology.owner(database.slot).is_some_and(|owner| owner.id == node.id)
    };
    let names: Vec<&str> = databases.iter().filter(is_here).map(|database| &*database.name).collect();
    match names.len() {
        0 => slots_text(ranges),
        1 => format!("{} with database {}", slots_text(ranges), names[0]),
        _ => format!("{} with databases {}", slots_text(ranges), names.join(", ")),
    }
}

/// Whom the loss of a node without slots hurts.
fn left_without(node: &Node, topology: &Topology) -> String {
    let primary = node.replicates.as_deref().and_then(|id| topology.node(id));
    let Some(primary) = primary.filter(|_| node.role == Role::Replica) else {
        return "no slot depends on it".to_owned();
    };
    let others = topology.replicas(primary).filter(|other| other.id != node.id && topology.lost(&other.id).is_none());
    match others.count() {
        0 => format!("no slot depends on it, but {} has no replica left", primary.label),
        _ => format!("no slot depends on it, and {} has other replicas", primary.label),
    }
}

/// The state of everything: `ok`, `warn` (all slots are served, but some node is lost or slow), `part` (some are not) or `down`.
pub(super) fn state(topology: &Topology, is_ready: bool, troubles: &[Trouble]) -> &'static str {
    match (is_ready, topology.reachable() == SLOTS) {
        (false, _) => "down",
        (true, false) => "part",
        (true, true) if troubles.is_empty() => "ok",
        (true, true) => "warn",
    }
}

/// The state of everything, for people: the first sentence of the page.
pub(super) fn sentence(
    topology: &Topology,
    readiness: &Result<Option<String>, String>,
    present: &Present,
    troubles: &[Trouble],
) -> String {
    let pace = &present.all;
    let rate = match pace.p99 {
        Some(p99) => format!("{} requests/s, p99 {}", grouped(pace.rate.round() as i64), millis(p99)),
        None => "no requests now".to_owned(),
    };
    let served = match readiness {
        Err(reason) => return format!("Nothing is served: {reason}."),
        Ok(Some(reason)) => {
            format!("{reason}. {} of 16,384 slots are served; {rate}.", grouped(topology.reachable() as i64))
        }
        Ok(None) => {
            let owners = topology.first_slots().len();
            let primaries = if owners == 1 { "primary" } else { "primaries" };
            format!("All 16,384 slots are served by {owners} {primaries}; {rate}.")
        }
    };
    // The reason names lost owners of slots already.
    let untold: Vec<&Trouble> = troubles.iter().filter(|trouble| !(trouble.is_lost && trouble.owns)).collect();
    let named = untold.iter().take(MOST_NAMED).map(|trouble| format!(" {}.", trouble.text()));
    let more = untold.len().saturating_sub(MOST_NAMED);
    let more = (more > 0).then(|| format!(" {more} more nodes are lost or slow."));
    [served].into_iter().chain(named).chain(more).collect()
}

fn millis(seconds: f64) -> String {
    let millis = seconds * 1000.0;
    if millis < 10.0 { format!("{millis:.1} ms") } else { format!("{millis:.0} ms") }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::{cluster::topology::Lost, metrics::history::Pace};

    /// `a` and `b` share the slots; `c` and `d` follow `a`.
    fn topology() -> Topology {
        let mut nodes: Vec<Arc<Node>> = ["a", "b", "c", "d"].map(|id| Node::primary(id, &format!("{id}:1"))).into();
        for replica in &mut nodes[2..] {
            let follows = Some("a".to_owned());
            *replica = Arc::new(Node { role: Role::Replica, replicates: follows, ..(**replica).clone() });
        }
        let mut slots = Box::new([0; SLOTS]);
        slots[8192..].fill(1);
        let mut topology = Topology::unknown("").with_layout(nodes, slots);
        topology.trouble = None;
        topology
    }

    fn without(ids: &[&str]) -> Topology {
        let mut topology = topology();
        topology.lost = ids.iter().map(|id| lost(id)).collect();
        topology
    }

    fn lost(id: &str) -> Lost {
        Lost { id: id.into(), since: UNIX_EPOCH + Duration::from_secs(50_531), why: "connection refused".into() }
    }

    fn slow(label: &str) -> Present {
        let pace = Pace { p50: Some(0.12), ..Pace::default() };
        Present { all: Pace::default(), nodes: vec![(label.into(), pace, Some(UNIX_EPOCH))] }
    }

    fn troubles(topology: &Topology, present: &Present) -> Vec<Trouble> {
        let all = topology.shown().enumerate();
        all.filter_map(|(index, (node, _))| Trouble::of(node, index, topology, present, &[])).collect()
    }

    #[test]
    fn short_times_have_a_fraction() {
        assert_eq!((millis(0.0021), millis(0.25)), ("2.1 ms".to_owned(), "250 ms".to_owned()));
    }

    #[test]
    fn which_node_since_when_and_whom_it_hurts() {
        let well = Present::default();
        let mut fallen = without(&["d"]);
        fallen.fallen = vec![fallen.nodes.pop().unwrap()];
        let all = "All 16,384 slots are served by 2 primaries; no requests now.";
        let gone = "does not answer since 14:02:11 UTC (connection refused): no slot depends on it";
        let takes = "half of its requests take 120 ms or more";
        for (topology, present, state_then, sentence_then) in [
            (topology(), &well, "ok", all.to_owned()),
            (without(&["c"]), &well, "warn", format!("{all} c:1 {gone}, and a:1 has other replicas.")),
            (
                without(&["c", "d"]),
                &well,
                "warn",
                format!("{all} c:1 {gone}, but a:1 has no replica left. d:1 {gone}, but a:1 has no replica left."),
            ),
            (fallen, &well, "warn", format!("{all} d:1 {gone}, and a:1 has other replicas.")),
            (
                without(&["b"]),
                &slow("a:1"),
                "part",
                format!(
                    "b:1 does not answer since 14:02:11 UTC (connection refused): slots 8192-16383 answer errors. 8,192 of \
                     16,384 slots are served; no requests now. a:1 is slow since 00:00:00 UTC ({takes}): requests for \
                     slots 0-8191 wait."
                ),
            ),
            (
                topology(),
                &slow("b:1"),
                "warn",
                format!("{all} b:1 is slow since 00:00:00 UTC ({takes}): requests for slots 8192-16383 wait."),
            ),
            (
                topology(),
                &slow("c:1"),
                "warn",
                format!("{all} c:1 is slow since 00:00:00 UTC ({takes}): reads that go to it wait."),
            ),
        ] {
            let found = troubles(&topology, present);
            let readiness = Ok(topology.complaint());
            assert_eq!(sentence(&topology, &readiness, present, &found), sentence_then);
            assert_eq!(state(&topology, true, &found), state_then);
            assert_eq!(state(&topology, false, &found), "down");
        }
    }
}
