//! Which nodes count as failing: what all publishing goes through is chosen among the others, and every proxy should
//! choose alike.
//!
//! So it goes by what all of them can see: the nodes' own opinion, `fail` and `fail?` in CLUSTER NODES, by most of those
//! who were asked. Where nodes have not made up their minds yet, a node that cannot be reached counts as failing too: a
//! process that has died is gone for every proxy at once. Should two proxies differ for a while, their messages reach
//! everybody all the same, since a node passes on to all others what is published on it; only the receivers that PUBLISH
//! counts are then those of one node.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use tokio::time::Instant;

use super::survey::NodeAnswer;
use crate::cluster::topology::member::Member;

/// How long a node must be well before it counts as such: it has to find the others again, and they it, before what is
/// published on it reaches them.
const CONVALESCENCE: Duration = Duration::from_secs(2);

/// The nodes that are failing, or lately were.
#[derive(Debug, Default)]
pub struct Failing {
    /// When each was last seen to be.
    last: HashMap<String, Instant>,
}

impl Failing {
    /// A node is failing now.
    pub fn note(&mut self, id: &str, now: Instant) {
        self.last.insert(id.to_owned(), now);
    }

    /// Whether a node counts as failing.
    pub fn has(&self, id: &str, now: Instant) -> bool {
        self.last.get(id).is_some_and(|last| now.saturating_duration_since(*last) < CONVALESCENCE)
    }

    /// Forgets those that count no more. Whether any is left.
    pub fn any(&mut self, now: Instant) -> bool {
        self.last.retain(|_, last| now.saturating_duration_since(*last) < CONVALESCENCE);
        !self.last.is_empty()
    }
}

/// The ids of the members that a node holds for failing, in its CLUSTER NODES.
pub fn accused(nodes: &str) -> HashSet<String> {
    let lines = nodes.lines().filter_map(Member::parse);
    lines.filter(|member| member.has("fail") || member.has("fail?")).map(|member| member.id.to_owned()).collect()
}

/// The nodes that most of those who answered hold for failing; and whether any is so held by anybody, so that the others
/// may soon agree. Nobody is asked about itself.
pub fn convicted(answers: &[NodeAnswer]) -> (Vec<String>, bool) {
    let accused: HashSet<&String> = answers.iter().flat_map(|answer| &answer.accused).collect();
    let any = !accused.is_empty();
    let by_most = |id: &&String| {
        let others = answers.iter().filter(|answer| answer.id.as_ref() != Some(*id));
        let (against, all) = others
            .fold((0, 0), |(against, all), answer| (against + usize::from(answer.accused.contains(*id)), all + 1));
        2 * against > all
    };
    (accused.into_iter().filter(by_most).cloned().collect(), any)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cluster::topology::{NOBODY, ServerInfo, View},
        protocol::{address::Address, slot::SLOTS},
    };

    fn answer(id: &str, accused: &[&str]) -> NodeAnswer {
        NodeAnswer {
            asked: Address::new("10.0.0.1", 7000),
            id: Some(id.to_owned()),
            view: View { seen: Vec::new(), slots: Box::new([NOBODY; SLOTS]), fallen: Vec::new() },
            server: ServerInfo::default(),
            accepts: None,
            failed: false,
            accused: accused.iter().map(|id| (*id).to_owned()).collect(),
        }
    }

    #[test]
    fn most_of_those_who_answer_decide() {
        for (answers, failing, any) in [
            (vec![], vec![], false),
            (vec![("a", vec![]), ("b", vec![]), ("c", vec![])], vec![], false),
            // One alone may be cut off itself.
            (vec![("a", vec!["b", "c"]), ("b", vec![]), ("c", vec![])], vec![], true),
            (vec![("a", vec!["b"]), ("b", vec![]), ("c", vec!["b"])], vec!["b"], true),
            (vec![("a", vec!["b"]), ("c", vec!["b"])], vec!["b"], true),
            (vec![("a", vec!["b"]), ("c", vec![])], vec![], true),
            // Nobody else is left to ask.
            (vec![("a", vec!["b", "c"])], vec!["b", "c"], true),
            // What comes back does not hold itself for well in the others' stead.
            (vec![("a", vec!["b"]), ("b", vec!["a"])], vec!["a", "b"], true),
        ] {
            let shown = format!("{answers:?}");
            let answers: Vec<NodeAnswer> = answers.iter().map(|(id, accused)| answer(id, accused)).collect();
            let (mut found, found_any) = convicted(&answers);
            found.sort();
            assert_eq!((found, found_any), (failing.into_iter().map(str::to_owned).collect(), any), "{shown}");
        }
    }

    #[test]
    fn a_node_has_to_be_well_for_a_while() {
        let (mut failing, now) = (Failing::default(), Instant::now());
        failing.note("a", now);
        assert!(failing.has("a", now) && !failing.has("b", now) && failing.any(now));
        let later = now + CONVALESCENCE / 2;
        failing.note("a", later);
        assert!(failing.has("a", now + CONVALESCENCE) && failing.any(now + CONVALESCENCE), "seen again meanwhile");
        assert!(!failing.has("a", later + CONVALESCENCE) && !failing.any(later + CONVALESCENCE));
    }

    #[test]
    fn flags_are_read_from_cluster_nodes() {
        let text = "a 10.0.0.1:7000@17000 myself,master - 0 0 1 connected 0-1\n\
            b 10.0.0.2:7000@17000 master,fail? - 0 0 2 connected 2-3\n\
            c 10.0.0.3:7000@17000 master,fail - 0 0 3 disconnected 4-5\n\
            d :0@0 slave,noaddr a 0 0 1 disconnected\n";
        let mut accused: Vec<String> = accused(text).into_iter().collect();
        accused.sort();
        assert_eq!(accused, ["b", "c"]);
    }
}
