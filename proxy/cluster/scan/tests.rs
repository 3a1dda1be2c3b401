//! Scans of a cluster in little, in which slots move between pages.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::*;
use crate::cluster::topology::{Node, Role};

/// A cluster in little: where each key is, who owns each slot, which slots are on their way.
struct Model {
    topology: Topology,
    keys: Vec<BTreeMap<u64, Slot>>,
    leaving: BTreeMap<usize, usize>,
    chance: u64,
}

impl Model {
    fn new(nodes: usize, keys: u64, chance: u64) -> Model {
        let mut topology = Topology::unknown("");
        topology.epoch = 1;
        topology.nodes = (0..nodes)
            .map(|index| {
                let address = crate::protocol::address::Address::new("h", index as u16 + 1);
                Arc::new(Node {
                    id: format!("node{index}"),
                    announced: address.clone(),
                    reach: address,
                    label: Arc::from("h"),
                    role: Role::Primary,
                    replicates: None,
                    zone: None,
                    aliases: Vec::new(),
                })
            })
            .collect();
        for slot in 0..SLOTS {
            topology.slots[slot] = (slot * nodes / SLOTS) as u16;
        }
        let mut model = Model { topology, keys: vec![BTreeMap::new(); nodes], leaving: BTreeMap::new(), chance };
        for _ in 0..keys {
            let (key, slot) = (model.chance(u64::MAX >> 20), model.slot());
            let owner = model.topology.owner_index(slot).unwrap();
            model.keys[owner].insert(key, slot);
        }
        model
    }

    /// One of few slots, so that slots have many keys and are met again.
    fn slot(&mut self) -> Slot {
        Slot::new(self.chance(32) * 511).unwrap()
    }

    fn chance(&mut self, below: u64) -> u64 {
        self.chance ^= self.chance << 13;
        self.chance ^= self.chance >> 7;
        self.chance ^= self.chance << 17;
        self.chance % below
    }

    /// A node's page: some keys from the cursor on, in the node's own order of buckets.
    fn page(&self, node: usize, cursor: u64) -> (u64, Vec<u64>) {
        let bucket = |key: u64| key.wrapping_mul(2 * node as u64 + 3) % 64 + 1;
        let keys = self.keys[node].keys().copied().filter(|&key| bucket(key) == cursor.max(1)).collect();
        (if cursor == 64 { 0 } else { cursor.max(1) + 1 }, keys)
    }

    fn own(&self, node: usize) -> NodeSelf {
        let owns = |slot: &Slot| self.topology.owner_index(*slot) == Some(node);
        let leaving = self.leaving.iter().filter(|(slot, _)| owns(&Slot::new(**slot as u64).unwrap()));
        NodeSelf {
            slots: all_slots().filter(owns).collect(),
            leaving: leaving.map(|(slot, to)| (Slot::new(*slot as u64).unwrap(), format!("node{to}"))).collect(),
            coming: self
                .leaving
                .iter()
                .filter(|(_, to)| **to == node)
                .map(|(slot, _)| Slot::new(*slot as u64).unwrap())
                .collect(),
        }
    }

    /// Opens, drains or closes a slot.
    fn disturb(&mut self) {
        let nodes = self.keys.len() as u64;
        let open: Vec<usize> = self.leaving.keys().copied().collect();
        if open.is_empty() || (open.len() < 4 && self.chance(9) == 0) {
            let (slot, to) = (self.slot().index(), self.chance(nodes) as usize);
            if self.topology.slots[slot] != to as u16 {
                self.leaving.entry(slot).or_insert(to);
            }
            return;
        }
        let slot = open[self.chance(open.len() as u64) as usize];
        let (from, to) = (self.topology.slots[slot] as usize, self.leaving[&slot]);
        let here = self.keys[from].iter().filter(|(_, at)| at.index() == slot).map(|(key, _)| *key).next();
        match here {
            Some(key) => {
                let at = self.keys[from].remove(&key).unwrap();
                self.keys[to].insert(key, at);
            }
            None => {
                self.leaving.remove(&slot);
                self.topology.slots[slot] = to as u16;
                self.topology.epoch += 1;
            }
        }
    }

    /// A whole scan; `between` is called between its pages. How often each key came, and how many pages there were.
    fn scan(&mut self, only: Option<Slot>, mut between: impl FnMut(&mut Model, &mut Scans)) -> (Vec<u64>, usize) {
        let (mut scans, mut cursor, mut found) = (Scans::default(), 0, Vec::new());
        for pages in 1..100_000 {
            let step = scans.step(cursor, only, &self.topology).unwrap();
            let node = step.node.trim_start_matches("node").parse().unwrap();
            let (at, keys) = self.page(node, step.cursor);
            found.extend(keys);
            cursor = match at {
                0 => scans.next(&step, &self.own(node), &self.topology),
                at => step.after(at).unwrap(),
            };
            assert!(cursor < 1 << 53);
            if cursor == 0 {
                return (found, pages);
            }
            between(self, &mut scans);
        }
        panic!("the scan does not end");
    }
}

#[test]
fn every_key_comes_once_while_nothing_changes() {
    let mut model = Model::new(5, 2000, 77);
    // Fragments do not matter: each node is scanned once.
    for slot in (0..SLOTS).step_by(511) {
        let (from, to) = (model.topology.slots[slot] as usize, slot % 5);
        let moved: Vec<u64> =
            model.keys[from].iter().filter(|(_, at)| at.index() == slot).map(|(key, _)| *key).collect();
        moved.iter().for_each(|key| {
            let at = model.keys[from].remove(key).unwrap();
            model.keys[to].insert(*key, at);
        });
        model.topology.slots[slot] = to as u16;
    }
    let all: BTreeSet<u64> = model.keys.iter().flat_map(|keys| keys.keys().copied()).collect();
    // Another proxy, or this one after a restart, knows no stages.
    let (found, pages) = model.scan(None, |_, scans| *scans = Scans::default());
    assert_eq!((found.len(), pages), (all.len(), 5 * 64));
    assert_eq!(found.into_iter().collect::<BTreeSet<u64>>(), all);
}

#[test]
fn no_key_is_missed_while_slots_move() {
    for seed in (1..8).chain([58]) {
        let mut model = Model::new(4, 300, seed * 7919);
        (0..200).for_each(|_| model.disturb());
        let all: BTreeSet<u64> = model.keys.iter().flat_map(|keys| keys.keys().copied()).collect();
        let (found, _) = model.scan(None, |model, _| model.disturb());
        let missed = all.difference(&found.into_iter().collect()).count();
        assert_eq!(missed, 0, "seed {seed}");
    }
}

#[test]
fn one_slot_is_one_node() {
    let mut model = Model::new(4, 1000, 5);
    let (key, slot) = model.keys[2].iter().map(|(key, slot)| (*key, *slot)).next().unwrap();
    let (found, pages) = model.scan(Some(slot), |_, _| ());
    assert!(found.contains(&key));
    assert_eq!(pages, 64);
}

#[test]
fn a_node_that_fails_is_replaced() {
    let mut model = Model::new(3, 1000, 9);
    let all: BTreeSet<u64> = model.keys.iter().flat_map(|keys| keys.keys().copied()).collect();
    let mut calls = 0;
    let (found, _) = model.scan(None, |model, _| {
        calls += 1;
        if calls == 80 {
            // node1 dies in the midst of its scan; its replica has all it had.
            let mut heir = (*model.topology.nodes[1]).clone();
            heir.id = "node3".into();
            model.topology.nodes.push(Arc::new(heir));
            model.topology.slots.iter_mut().filter(|owner| **owner == 1).for_each(|owner| *owner = 3);
            let keys = std::mem::take(&mut model.keys[1]);
            model.keys.push(keys);
            model.topology.epoch += 1;
        }
    });
    assert_eq!(found.into_iter().collect::<BTreeSet<u64>>(), all);
}

#[test]
fn cursors_fit_in_a_double_unless_they_cannot() {
    let number = (1 << STAGE_BITS) - 1;
    let step = ScanStep { node: "a".to_owned(), cursor: 0, stage: number };
    for (cursor, most) in [(1, 1 << 53), ((1 << 36) - 1, 1 << 53), (1 << 36, 1 << 63), ((1 << 46) - 1, 1 << 63)] {
        let whole = step.after(cursor).unwrap();
        assert!(whole < most, "{cursor}");
        assert_eq!(taken_apart(whole), (number, cursor));
    }
    assert_eq!(step.after(1 << 46), None);
}

#[test]
fn cursors_in_replies() {
    let reply = b"*2\r\n$2\r\n17\r\n*1\r\n$1\r\na\r\n";
    assert_eq!(cursor_of(reply), Some(17));
    let mut keys = Vec::new();
    assert_eq!(keys_of(reply, &mut keys) + keys_of(reply, &mut keys), 2);
    assert_eq!(page(0, 2, &keys), b"*2\r\n$1\r\n0\r\n*2\r\n$1\r\na\r\n$1\r\na\r\n");
    assert_eq!(cursor_of(b"-ERR syntax error\r\n"), None);
}

#[test]
fn what_a_node_says_of_itself() {
    let text = "a h:1@2 master - 0 0 1 connected 0-5\nb h:2@3,name myself,master - 0 0 2 connected 10-12 20 [11->-a] [30-<-a]\n";
    let own = NodeSelf::parse(text).unwrap();
    let slots: Vec<usize> = all_slots().filter(|&slot| own.slots.has(slot)).map(Slot::index).collect();
    assert_eq!(slots, [10, 11, 12, 20]);
    assert_eq!(own.leaving, [(Slot::new(11).unwrap(), "a".to_owned())]);
    assert!(own.coming.has(Slot::new(30).unwrap()));
    assert_eq!(NodeSelf::parse("a h:1@2 master - 0 0 1 connected"), None);
}
