//! Whom a survey may ask, and in which order.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use tokio::time::Instant;

use super::random;
use crate::{
    cluster::topology::Topology,
    protocol::{address::Address, slot::SLOTS},
};

/// How long a node with a failure is asked last.
const SUSPECT: Duration = Duration::from_secs(10);
/// How many addresses of former nodes are kept to fall back on.
const MOST_FORMER: usize = 64;

/// The addresses at which somebody may know the cluster, beside the nodes of the topology.
#[derive(Debug)]
pub struct Contacts {
    /// Where to begin, and what is fallen back on for ever.
    pub seeds: Vec<Address>,
    /// Who has named a node that is not known.
    witness: Option<Address>,
    /// Addresses that failed lately, and when.
    suspects: HashMap<Address, Instant>,
    /// Where nodes were once reached; the latest last.
    former: Vec<Address>,
}

impl Contacts {
    /// Nobody but the seeds.
    pub fn new(seeds: Vec<Address>) -> Contacts {
        Contacts { seeds, witness: None, suspects: HashMap::new(), former: Vec::new() }
    }

    /// The node there has named one that is not known: it is asked first, once.
    pub fn witnessed(&mut self, address: Address) {
        self.witness = Some(address);
    }

    /// The node there has failed: it is asked last, for a while.
    pub fn suspect(&mut self, address: Address, now: Instant) {
        self.suspects.insert(address, now);
    }

    /// The node there has answered.
    pub fn answered(&mut self, address: &Address) {
        self.suspects.remove(address);
    }

    /// Nodes were reached there, and have left.
    pub fn departed(&mut self, addresses: impl Iterator<Item = Address>) {
        self.former.extend(addresses);
        self.former.drain(..self.former.len().saturating_sub(MOST_FORMER));
    }

    /// Whom to ask now, the best first: who has named a stranger, nodes that are well, seeds, nodes that failed lately, former
    /// nodes. Among equals chance decides, so that no node is asked by all proxies.
    pub fn candidates(&mut self, current: &Topology, now: Instant) -> Vec<Address> {
        self.suspects.retain(|_, since| now - *since < SUSPECT);
        let witness = self.witness.take();
        let seeds = shuffled(self.seeds.clone());
        let nodes = shuffled(current.nodes.iter().map(|node| node.reach.clone()).collect());
        // While the view has holes the seeds come first: they may know what the known nodes do not.
        let (first, second) = if current.covered() < SLOTS { (seeds, nodes) } else { (nodes, seeds) };
        let is_suspect = |address: &Address| self.suspects.contains_key(address);
        let (doubtful, well): (Vec<_>, Vec<_>) = first.into_iter().chain(second).partition(is_suspect);
        let former = self.former.iter().rev().cloned();
        let mut named = HashSet::new();
        witness.into_iter().chain(well).chain(doubtful).chain(former).filter(|one| named.insert(one.clone())).collect()
    }
}

fn shuffled<T>(mut items: Vec<T>) -> Vec<T> {
    for last in (1..items.len()).rev() {
        items.swap(last, (random() % (last as u64 + 1)) as usize);
    }
    items
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::topology::{NOBODY, Node};

    fn at(text: &str) -> Address {
        text.parse().unwrap()
    }

    /// Nodes `a:1` and `b:1`, with all slots or none.
    fn topology(covered: bool) -> Topology {
        let nodes = ["a", "b"].map(|id| Node::primary(id, &format!("{id}:1")));
        let owner = if covered { 0 } else { NOBODY };
        Topology::unknown("").with_layout(nodes.into(), Box::new([owner; SLOTS]))
    }

    /// The candidates in groups of these sizes, each in the order of the alphabet.
    fn groups(contacts: &mut Contacts, topology: &Topology, now: Instant, sizes: &[usize]) -> Vec<Vec<String>> {
        let mut all = contacts.candidates(topology, now).into_iter().map(|one| one.to_string());
        let group = |size: &usize| {
            let mut group: Vec<String> = all.by_ref().take(*size).collect();
            group.sort();
            group
        };
        sizes.iter().map(group).collect()
    }

    #[test]
    fn nodes_come_before_seeds_unless_the_view_has_holes() {
        let now = Instant::now();
        let mut contacts = Contacts::new(vec![at("s:1"), at("b:1")]);
        assert_eq!(groups(&mut contacts, &topology(true), now, &[2, 9]), [vec!["a:1", "b:1"], vec!["s:1"]]);
        assert_eq!(groups(&mut contacts, &topology(false), now, &[2, 9]), [vec!["b:1", "s:1"], vec!["a:1"]]);
        assert_eq!(groups(&mut contacts, &Topology::unknown(""), now, &[9]), [vec!["b:1", "s:1"]]);
    }

    #[test]
    fn who_has_failed_is_asked_last_until_it_answers_or_for_a_while() {
        let now = Instant::now();
        let mut contacts = Contacts::new(vec![at("s:1")]);
        contacts.suspect(at("a:1"), now);
        contacts.departed([at("old:1")].into_iter());
        let (first, then) = (vec![vec!["b:1"], vec!["s:1"], vec!["a:1"], vec!["old:1"]], now + SUSPECT);
        assert_eq!(groups(&mut contacts, &topology(true), now, &[1, 1, 1, 9]), first);
        assert_eq!(groups(&mut contacts, &topology(true), then, &[2])[0], ["a:1", "b:1"], "it is forgiven");
        contacts.suspect(at("a:1"), then);
        contacts.answered(&at("a:1"));
        assert_eq!(groups(&mut contacts, &topology(true), then, &[2])[0], ["a:1", "b:1"]);
    }

    #[test]
    fn who_has_named_a_stranger_is_asked_first_and_once() {
        let now = Instant::now();
        let mut contacts = Contacts::new(vec![at("s:1")]);
        contacts.suspect(at("w:1"), now);
        contacts.witnessed(at("w:1"));
        assert_eq!(groups(&mut contacts, &topology(true), now, &[1])[0], ["w:1"]);
        assert_eq!(groups(&mut contacts, &topology(true), now, &[3])[0], ["a:1", "b:1", "s:1"]);
    }

    #[test]
    fn the_latest_of_the_former_nodes_are_kept() {
        let now = Instant::now();
        let mut contacts = Contacts::new(Vec::new());
        contacts.departed((0..100).map(|port| Address::new("gone", port)));
        let all = contacts.candidates(&Topology::unknown(""), now);
        assert_eq!((all.len(), all[0].port, all[63].port), (MOST_FORMER, 99, 36));
    }
}
