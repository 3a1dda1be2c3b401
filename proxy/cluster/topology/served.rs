//! What is served, beside what is assigned: a slot whose owner cannot be reached has an owner, and answers errors.

use std::{sync::Arc, time::SystemTime};

use super::{Node, Role, Topology};
use crate::{metrics::readable::time_of_day, protocol::slot::SLOTS};

/// How many ranges of slots a sentence names.
const MOST_RANGES: usize = 4;

/// A node that cannot be reached from here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Its id.
    pub id: String,
    /// Since when.
    pub since: SystemTime,
    /// Why, as far as the network tells.
    pub why: Arc<str>,
}

impl Topology {
    /// Since when and why a node cannot be reached; `None` where it can, as far as is known.
    pub fn lost(&self, id: &str) -> Option<&Lost> {
        self.lost.iter().find(|lost| lost.id == id)
    }

    /// How many slots have an owner that can be reached and serves; [`SLOTS`] where all is well.
    pub fn reachable(&self) -> usize {
        if self.failed {
            return 0;
        }
        let counts = self.nodes.iter().zip(self.slot_counts());
        counts.filter(|(node, _)| self.lost(&node.id).is_none()).map(|(_, slots)| slots).sum()
    }

    /// Whether as many slots are served as in the other, by as many nodes that are lost.
    pub fn is_served_like(&self, other: &Topology) -> bool {
        let owners = |topology: &Topology| -> Vec<String> {
            topology.lost_owners().map(|(lost, _, _)| lost.id.clone()).collect()
        };
        self.failed == other.failed && self.covered() == other.covered() && owners(self) == owners(other)
    }

    /// Why not all slots are served, in a sentence that says which ones; `None` where all are.
    pub fn complaint(&self) -> Option<String> {
        let trouble = || self.trouble.as_deref().map(str::to_owned);
        if self.covered() == 0 {
            return trouble();
        }
        let lost = self.lost_owners().map(|(lost, node, index)| {
            let silent = format!("{} does not answer since {} ({})", node.label, time_of_day(lost.since), lost.why);
            // Where the cluster is down all slots answer errors: who is lost is why.
            if self.failed { silent } else { format!("{silent}: {} answer errors", slots_text(&self.ranges(index))) }
        });
        let all: Vec<String> = match self.failed {
            true => trouble().into_iter().chain(lost).collect(),
            false => lost.chain(trouble()).collect(),
        };
        (!all.is_empty()).then(|| all.join("; "))
    }

    fn lost_owners(&self) -> impl Iterator<Item = (&Lost, &Arc<Node>, usize)> {
        let counts = self.nodes.iter().enumerate().zip(self.slot_counts());
        counts
            .filter(|(_, slots)| *slots > 0)
            .filter_map(|((index, node), _)| Some((self.lost(&node.id)?, node, index)))
    }

    /// What a node is, in a word: `primary`, `replica`, or `empty` for one that owns no slot and follows nobody, such as
    /// one that has just joined and is to be a replica.
    pub fn role_of(&self, index: usize) -> &'static str {
        let Some(node) = self.nodes.get(index) else { return "empty" };
        let owns = || self.first_slots().iter().any(|slot| self.owner_index(*slot) == Some(index));
        match node.role {
            Role::Primary if !owns() => "empty",
            role => role.label(),
        }
    }

    /// All that is served, in a sentence: `all 16384 slots are served by 3 primaries`.
    pub fn served_text(&self) -> String {
        let (reachable, owners) = (self.reachable(), self.first_slots().len());
        let all = if reachable == SLOTS { "all 16384".to_owned() } else { format!("{reachable} of {SLOTS}") };
        let lost = self.lost_owners().count();
        let nodes = if owners - lost == 1 { "primary" } else { "primaries" };
        format!("{all} slots are served by {} {nodes}", owners - lost)
    }
}

/// Ranges of slots in words: `slots 0-5460, 5462`.
pub fn slots_text(ranges: &[(usize, usize)]) -> String {
    let shown = ranges.iter().take(MOST_RANGES).map(|(first, last)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    });
    let shown: Vec<String> = shown.collect();
    let count: usize = ranges.iter().map(|(first, last)| last - first + 1).sum();
    let more = ranges.len().saturating_sub(MOST_RANGES);
    match more {
        0 if count == 1 => format!("slot {}", shown.join(", ")),
        0 => format!("slots {}", shown.join(", ")),
        _ => format!("{count} slots ({} and {more} more ranges)", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    /// Three primaries that share the slots, a replica, and one that has just joined.
    fn topology() -> Topology {
        let mut nodes: Vec<Arc<Node>> =
            ["a", "b", "c", "d", "e"].map(|id| Node::primary(id, &format!("{id}:1"))).into();
        nodes[3] = Arc::new(Node { role: Role::Replica, replicates: Some("a".into()), ..(*nodes[3]).clone() });
        let mut slots = Box::new([0; SLOTS]);
        slots[5461..=10922].fill(1);
        slots[10923..].fill(2);
        Topology { trouble: None, ..Topology::unknown("").with_layout(nodes, slots) }
    }

    fn lost(id: &str) -> Lost {
        Lost { id: id.into(), since: UNIX_EPOCH + Duration::from_secs(50_531), why: "connection refused".into() }
    }

    #[test]
    fn what_is_assigned_is_not_what_is_served() {
        let whole = topology();
        assert_eq!((whole.covered(), whole.reachable(), whole.complaint()), (SLOTS, SLOTS, None));
        assert_eq!(whole.served_text(), "all 16384 slots are served by 3 primaries");

        let torn = Topology { lost: vec![lost("c")], ..topology() };
        assert_eq!((torn.covered(), torn.reachable()), (SLOTS, 10923));
        assert_eq!(torn.served_text(), "10923 of 16384 slots are served by 2 primaries");
        assert_eq!(
            torn.complaint().unwrap(),
            "c:1 does not answer since 14:02:11 UTC (connection refused): slots 10923-16383 answer errors"
        );
        assert!(!torn.is_served_like(&whole));

        let without_replica = Topology { lost: vec![lost("d")], ..topology() };
        assert_eq!((without_replica.reachable(), without_replica.complaint()), (SLOTS, None));
        assert!(without_replica.is_served_like(&whole));

        let down = Topology { failed: true, trouble: Some("cluster_state:fail".into()), ..topology() };
        assert_eq!((down.reachable(), down.complaint().as_deref()), (0, Some("cluster_state:fail")));
        let down = Topology { lost: vec![lost("c")], ..down };
        let why = "cluster_state:fail; c:1 does not answer since 14:02:11 UTC (connection refused)";
        assert_eq!(down.complaint().as_deref(), Some(why));
    }

    #[test]
    fn who_has_just_joined_is_no_primary() {
        let topology = topology();
        let roles: Vec<&str> = (0..6).map(|index| topology.role_of(index)).collect();
        assert_eq!(roles, ["primary", "primary", "primary", "replica", "empty", "empty"]);
    }

    #[test]
    fn long_lists_of_slots_are_cut() {
        assert_eq!(slots_text(&[(7, 7)]), "slot 7");
        assert_eq!(slots_text(&[(0, 5460), (5462, 5462)]), "slots 0-5460, 5462");
        let many: Vec<(usize, usize)> = (0..6).map(|number| (number * 10, number * 10 + 1)).collect();
        assert_eq!(slots_text(&many), "12 slots (0-1, 10-11, 20-21, 30-31 and 2 more ranges)");
    }
}
