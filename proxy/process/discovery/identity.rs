//! Which answers are those of the cluster that is served: addresses pass to others, and seeds are mistyped. Two clusters
//! in one map would have one's requests run at the other.

use std::collections::HashSet;

use tracing::warn;

use super::{Discovery, survey::NodeAnswer};
use crate::{
    cluster::topology::{Topology, View},
    protocol::{address::Address, slot::SLOTS},
};

/// How many addresses in other clusters are remembered, so that each is logged once.
const MOST_COMPLAINTS: usize = 64;

/// The ids by which the cluster is told from others: those of the owners of slots. A node without any may have left to
/// join another.
#[derive(Clone, Default)]
pub struct ClusterIdentity(HashSet<String>);

impl ClusterIdentity {
    /// The ids of the cluster that is served. Where no slot has an owner yet there are none, and every answer counts.
    pub fn of(topology: &Topology) -> ClusterIdentity {
        ClusterIdentity(topology.owners().map(|node| node.id.clone()).collect())
    }

    /// Whether that is a view of this cluster.
    pub fn has(&self, view: &View) -> bool {
        self.0.is_empty() || view.seen.iter().any(|seen| self.0.contains(&seen.id))
    }
}

/// Of answers of several clusters those of one, and the others: of the one with the most slots, or else the one whose
/// seed is named first.
pub fn parted(mut answers: Vec<NodeAnswer>, seeds: &[Address]) -> (Vec<NodeAnswer>, Vec<NodeAnswer>) {
    let place = |answer: &NodeAnswer| seeds.iter().position(|seed| *seed == answer.asked).unwrap_or(seeds.len());
    let last = |answer: &&NodeAnswer| (answer.view.covered(), seeds.len() - place(answer));
    let Some(first) = answers.iter().max_by_key(last) else { return (answers, Vec::new()) };
    let asked = first.asked.clone();
    let mut known: HashSet<String> = first.view.seen.iter().map(|seen| seen.id.clone()).collect();
    let mut ours = Vec::new();
    loop {
        // The first has no node in common with itself where it tells of none: nobody owns a slot yet.
        let is_known = |answer: &mut NodeAnswer| {
            answer.asked == asked || answer.view.seen.iter().any(|seen| known.contains(&seen.id))
        };
        let more: Vec<NodeAnswer> = answers.extract_if(.., is_known).collect();
        if more.is_empty() {
            return (ours, answers);
        }
        known.extend(more.iter().flat_map(|answer| &answer.view.seen).map(|seen| seen.id.clone()));
        ours.extend(more);
    }
}

/// Whether a view is of a cluster that was made anew where the other one was.
fn replaces(view: &View, topology: &Topology) -> bool {
    let (mut all, mut kept) = (0, 0);
    for owner in topology.owners() {
        all += 1;
        kept += usize::from(view.seen.iter().any(|seen| owner.goes_by(&seen.announced)));
    }
    view.covered() > 0 && kept * 2 >= all
}

impl Discovery {
    /// The answers that count, of those that a survey brought. Strangers do only where nobody of the cluster answers, and
    /// has not for long, or where they stand in its place.
    pub(super) fn answers_of_one(
        &mut self,
        ours: Vec<NodeAnswer>,
        strangers: Vec<NodeAnswer>,
        forsaken: bool,
    ) -> Vec<NodeAnswer> {
        let current = self.current();
        let (mut answers, others) = if ours.is_empty() {
            let (heirs, others): (Vec<_>, Vec<_>) =
                strangers.into_iter().partition(|answer| forsaken || replaces(&answer.view, &current));
            let (heirs, more) = parted(heirs, &self.contacts.seeds);
            (heirs, others.into_iter().chain(more).collect())
        } else {
            let (ours, more) =
                if current.covered() == 0 { parted(ours, &self.contacts.seeds) } else { (ours, Vec::new()) };
            (ours, strangers.into_iter().chain(more).collect::<Vec<_>>())
        };
        self.strangers.retain(|stranger| !answers.iter().any(|answer| answer.asked == *stranger));
        for other in others.iter().filter(|other| other.view.covered() == SLOTS) {
            if self.strangers.len() < MOST_COMPLAINTS && self.strangers.insert(other.asked.clone()) {
                warn!("{} is in another cluster than the one that is served: what it says does not count", other.asked);
            }
        }
        // A node that takes the cluster for down may be cut off from it: of views that seem equally new the last counts.
        answers.sort_by_key(|answer| !answer.failed);
        answers
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::topology::{AddressMap, ServerInfo};

    /// The answer of the node at `asked`, to whom the first slots belong and who knows the other too.
    fn answer(asked: &str, slots: u16, other: &str) -> NodeAnswer {
        let (asked, other): (Address, Address) = (asked.parse().unwrap(), other.parse().unwrap());
        let node = |at: &Address| format!("*3\r\n+{}\r\n:{}\r\n+{}\r\n", at.host, at.port, at.host);
        let text = format!("*1\r\n*4\r\n:0\r\n:{}\r\n{}{}", slots - 1, node(&asked), node(&other));
        let (value, _) = crate::protocol::resp::Value::parse(text.as_bytes()).unwrap().unwrap();
        let view = View::parse(&value, None, None, &asked).unwrap();
        NodeAnswer {
            asked,
            id: None,
            view,
            server: ServerInfo::default(),
            accepts: None,
            failed: false,
            accused: Default::default(),
        }
    }

    fn hosts(answers: &[NodeAnswer]) -> Vec<&str> {
        answers.iter().map(|answer| &*answer.asked.host).collect()
    }

    #[test]
    fn of_two_clusters_the_larger_or_first_named_is_served() {
        let seeds: Vec<Address> = ["b:1", "c:1", "a:1"].map(|seed| seed.parse().unwrap()).into();
        let told = |slots| vec![answer("a:1", slots, "aa:1"), answer("b:1", 100, "c:1"), answer("c:1", 100, "b:1")];
        let (ours, others) = parted(told(100), &seeds);
        assert_eq!((hosts(&ours), hosts(&others)), (vec!["b", "c"], vec!["a"]));
        let (ours, others) = parted(told(200), &seeds);
        assert_eq!((hosts(&ours), hosts(&others)), (vec!["a"], vec!["b", "c"]));
    }

    #[test]
    fn a_cluster_in_the_place_of_another_has_its_addresses() {
        let text = b"*1\r\n*3\r\n:0\r\n:9\r\n*3\r\n+a\r\n:1\r\n+id\r\n";
        let (value, _) = crate::protocol::resp::Value::parse(text).unwrap().unwrap();
        let at: Address = "a:1".parse().unwrap();
        let topology = Topology::from_slots(&value, &at, AddressMap::default().into()).unwrap();
        assert!(replaces(&answer("b:1", 9, "a:1").view, &topology));
        assert!(!replaces(&answer("b:1", 9, "c:1").view, &topology));
    }
}
