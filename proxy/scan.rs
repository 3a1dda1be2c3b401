//! SCAN over all nodes: the cursor that a client sees, and which node to ask next.
//!
//! A node scans its own keyspace by a cursor of its own. A whole scan asks one primary after the other, in *stages*. What
//! a stage has delivered is kept as a set of slots, since keys may move from node to node but never leave their slot:
//! - a stage covers the slots that its node owned from the stage's beginning to its end, by the topology at each call and
//!   by the node's own word at the end ([`Own`]);
//! - a slot that was leaving the node at the end is covered only once the node that it goes to has been scanned after it;
//! - the scan is over when every slot that has an owner is covered.
//!
//! So a key that existed throughout is delivered at least once, however slots move, and a slot that moves costs no more
//! than another look at its new owner. Keys may come twice, as with any SCAN while things change. (A slot whose move is
//! called off half-way, `SETSLOT STABLE`, is the one case where a key may be missed: it may have moved back to where the
//! scan has been.)
//!
//! The cursor is `stage << 44 | node cursor`, below 2^63. A stage's number is a hash of what it is, so that any proxy in
//! front of the same cluster continues it while the topology stays as it is; stages that came about while slots moved
//! are remembered in [`Scans`]. A cursor of an unknown stage begins anew: keys come twice then, but none is missed.
//!
//! Node cursors of Redis up to 7.2 are below the number of hash buckets; from Redis 7.4 and Valkey 8 on their low 14
//! bits are a slot and the bits above a bucket within it. Both stay far below 2^44.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::{
    merge::elements::Head,
    resp::{Request, reply::Scanner, write},
    slot::{SLOTS, Slot},
    topology::Topology,
};

/// Bits of the cursor that are the node's.
const NODE_BITS: u32 = 44;
/// Bits of the cursor that are the stage's number.
const STAGE_BITS: u32 = 63 - NODE_BITS;
/// How many stages are remembered, 4 KiB each. While the topology stays as it is, all scans share one stage per node.
const MOST_STAGES: usize = 256;

/// The stages of all scans under way. All workers should share one, since a client's next page may come by another
/// connection than its last.
#[derive(Debug, Default)]
pub struct Scans {
    stages: VecDeque<(u64, Stage)>,
}

/// Whom to ask next.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// The node's id.
    pub node: String,
    /// The node's own cursor.
    pub cursor: u64,
    /// Continues the scan where this stage ends.
    stage: u64,
}

/// What a node says of itself: `CLUSTER NODES`, its line with `myself`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Own {
    slots: SlotSet,
    /// Slots that are on their way to another node, and to which.
    leaving: Vec<(Slot, String)>,
    /// Slots that are on their way to this node.
    coming: SlotSet,
}

/// The scan of one node.
#[derive(Clone, Debug, PartialEq, Hash)]
struct Stage {
    node: String,
    /// What has been delivered before.
    done: SlotSet,
    /// What this stage delivers.
    covers: SlotSet,
    /// Slots of which one node has delivered what it had, while the rest is with another.
    halves: Vec<Half>,
    /// The topology under which `covers` has been looked at last.
    epoch: u64,
}

/// A slot that was on its way when the node that it was leaving had been scanned.
#[derive(Clone, Debug, PartialEq, Hash)]
struct Half {
    slot: Slot,
    /// Who owned it when it was seen last: it must not change hands but once, from the one to the other.
    owner: String,
    /// Where the rest of its keys is.
    rest: String,
}

impl Scans {
    /// Whom to ask for the page at `cursor`; with `only`, for the keys of one slot. `None` where no slot has an owner.
    pub fn step(&mut self, cursor: u64, only: Option<Slot>, topology: &Topology) -> Option<Step> {
        let number = cursor >> NODE_BITS;
        if cursor != 0 {
            if !self.stages.iter().any(|(known, _)| *known == number) {
                self.recall(number, only, topology);
            }
            if let Some((_, stage)) = self.stages.iter_mut().find(|(known, _)| *known == number) {
                if stage.still_goes(topology) {
                    let cursor = cursor & ((1 << NODE_BITS) - 1);
                    return Some(Step { node: stage.node.clone(), cursor, stage: number });
                }
                let (done, halves) = (stage.done.clone(), stage.halves.clone());
                return self.begin(Stage::next(done, halves, topology)?);
            }
        }
        self.begin(Stage::next(before(only), Vec::new(), topology)?)
    }

    /// The cursor to go on with when the node of `step` has come to the end of its keys and then said `own` of itself; 0
    /// where the whole scan is at its end. Without the node's word there is no next cursor: the page must fail then, so
    /// that the client asks for it again.
    pub fn next(&mut self, step: &Step, own: &Own, topology: &Topology) -> u64 {
        let found = self.stages.iter().find(|(number, _)| *number == step.stage);
        // Forgotten meanwhile: any cursor of that stage begins anew.
        let Some((_, stage)) = found else { return step.stage << NODE_BITS };
        let (done, halves) = stage.ended(own);
        match Stage::next(done, halves, topology) {
            Some(next) => self.begin(next).map_or(0, |step| step.stage << NODE_BITS),
            None => 0,
        }
    }

    /// Finds a stage that another proxy began: under an unchanged topology its number is the same here.
    fn recall(&mut self, number: u64, only: Option<Slot>, topology: &Topology) {
        let mut done = before(only);
        while let Some(stage) = Stage::next(done, Vec::new(), topology) {
            done = stage.done.clone();
            done.add(&stage.covers);
            if stage.number() == number {
                self.remember(number, stage);
                return;
            }
        }
    }

    fn begin(&mut self, stage: Stage) -> Option<Step> {
        let mut number = stage.number();
        let node = stage.node.clone();
        // Another stage may have the same number by chance, or the same stage may have been entered before.
        while let Some((_, known)) = self.stages.iter().find(|(known, _)| *known == number) {
            if *known == stage {
                return Some(Step { node, cursor: 0, stage: number });
            }
            number = number % ((1 << STAGE_BITS) - 1) + 1;
        }
        self.remember(number, stage);
        Some(Step { node, cursor: 0, stage: number })
    }

    fn remember(&mut self, number: u64, stage: Stage) {
        if self.stages.len() >= MOST_STAGES {
            self.stages.pop_front();
        }
        self.stages.push_back((number, stage));
    }
}

impl Step {
    /// The cursor to go on with after a page of the node's that ended at `cursor`, which is not its last. `None` where
    /// the node's cursor is larger than any known server's.
    pub fn after(&self, cursor: u64) -> Option<u64> {
        (cursor >> NODE_BITS == 0).then_some(self.stage << NODE_BITS | cursor)
    }

    /// Appends the request for the node: as it came, with the node's cursor.
    pub fn encode(&self, request: &Request, out: &mut Vec<u8>) {
        write::request_head(out, request.len());
        for (index, arg) in request.args().enumerate() {
            write::bulk(out, if index == 1 { self.cursor.to_string().into_bytes() } else { arg.to_vec() }.as_ref());
        }
    }
}

impl Stage {
    /// The stage after what is `done`: at the owner of the first slot that is not. `None` where nothing is left.
    fn next(done: SlotSet, mut halves: Vec<Half>, topology: &Topology) -> Option<Stage> {
        halves.retain_mut(|half| half.still_goes(topology));
        let waits = |slot: Slot| halves.iter().any(|half| half.slot == slot);
        let undone = || all_slots().filter(|&slot| !done.has(slot) && !waits(slot));
        let next = undone().find_map(|slot| topology.owner_index(slot));
        let (node, covers) = match next.and_then(|index| Some((index, topology.nodes.get(index)?))) {
            Some((index, node)) => {
                let owned = undone().filter(|&slot| topology.owner_index(slot) == Some(index));
                (node.id.clone(), owned.collect())
            }
            None => (halves.first()?.rest.clone(), SlotSet::default()),
        };
        Some(Stage { node, done, covers, halves, epoch: topology.epoch })
    }

    /// Whether there is still something to be had from the node; what has left it is not covered by this stage.
    fn still_goes(&mut self, topology: &Topology) -> bool {
        if self.epoch != topology.epoch {
            self.epoch = topology.epoch;
            let index = topology.nodes.iter().position(|node| node.id == self.node);
            let owned = |slot| index.is_some() && topology.owner_index(slot) == index;
            self.covers = all_slots().filter(|&slot| self.covers.has(slot) && owned(slot)).collect();
            self.halves.retain_mut(|half| half.still_goes(topology));
        }
        !self.covers.is_empty() || self.halves.iter().any(|half| half.rest == self.node)
    }

    /// What is done, and half done, when the node has been scanned.
    fn ended(&self, own: &Own) -> (SlotSet, Vec<Half>) {
        let mut done = self.done.clone();
        let (awaited, mut halves): (Vec<_>, Vec<_>) =
            self.halves.iter().cloned().partition(|half| half.rest == self.node);
        let came = awaited.iter().filter(|half| half.owner != self.node && own.coming.has(half.slot));
        came.for_each(|half| done.insert(half.slot));
        let awaited: SlotSet = awaited.iter().map(|half| half.slot).collect();
        // What the node does not own has moved on: whoever owns it now is scanned for it.
        for slot in all_slots().filter(|&slot| own.slots.has(slot) && (self.covers.has(slot) || awaited.has(slot))) {
            match own.leaving.iter().find(|(leaving, _)| *leaving == slot) {
                Some((_, rest)) => halves.push(Half { slot, owner: self.node.clone(), rest: rest.clone() }),
                None => done.insert(slot),
            }
        }
        (done, halves)
    }

    /// Never 0, so that no cursor but the last is.
    fn number(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (&self.node, &self.done, &self.covers, &self.halves).hash(&mut hasher);
        hasher.finish() % ((1 << STAGE_BITS) - 1) + 1
    }
}

impl Half {
    /// Whether the slot is still on the one way that it was on, or has come to its end. What went on from there, or whose
    /// other node is gone, is not even half done: its owner is scanned again.
    fn still_goes(&mut self, topology: &Topology) -> bool {
        let owner = topology.owner(self.slot);
        if owner.is_some_and(|owner| owner.id == self.rest) {
            self.owner.clone_from(&self.rest);
        }
        owner.is_some_and(|owner| owner.id == self.owner) && topology.node(&self.rest).is_some()
    }
}

impl Own {
    /// From the reply to `CLUSTER NODES`; `None` where it has no line of the node itself.
    pub fn parse(nodes: &str) -> Option<Own> {
        let line = nodes.lines().find(|line| line.split(' ').nth(2).is_some_and(|flags| flags.contains("myself")))?;
        let mut own = Own::default();
        for word in line.split(' ').skip(8) {
            if let Some(inner) = word.strip_prefix('[').and_then(|word| word.strip_suffix(']')) {
                if let Some((slot, node)) = inner.split_once("->-") {
                    own.leaving.push((Slot::new(slot.parse().ok()?)?, node.to_owned()));
                } else if let Some((slot, _)) = inner.split_once("-<-") {
                    own.coming.insert(Slot::new(slot.parse().ok()?)?);
                }
                continue;
            }
            let (first, last) = word.split_once('-').unwrap_or((word, word));
            let (Ok(first), Ok(last)) = (first.parse::<u64>(), last.parse::<u64>()) else { continue };
            (first..=last.min(SLOTS as u64 - 1)).filter_map(Slot::new).for_each(|slot| own.slots.insert(slot));
        }
        Some(own)
    }
}

/// The cursor in a node's reply to SCAN; `None` where the reply is none, such as an error.
pub fn cursor_of(reply: &[u8]) -> Option<u64> {
    let (start, end) = cursor_at(reply)?;
    let text = reply.get(start..end)?.strip_suffix(b"\r\n")?;
    let text = text.iter().position(|&byte| byte == b'\n').and_then(|line| text.get(line + 1..))?;
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Appends a node's reply to SCAN with another cursor in it. `reply` must be one that [`cursor_of`] could read.
pub fn with_cursor(reply: &[u8], cursor: u64, out: &mut Vec<u8>) {
    let Some((start, end)) = cursor_at(reply) else { return out.extend_from_slice(reply) };
    out.extend_from_slice(reply.get(..start).unwrap_or_default());
    write::bulk(out, cursor.to_string().as_bytes());
    out.extend_from_slice(reply.get(end..).unwrap_or_default());
}

/// Where the frame of the cursor begins and ends.
fn cursor_at(reply: &[u8]) -> Option<(usize, usize)> {
    let head = Head::of(reply).filter(|head| head.count == 2)?;
    let rest = reply.get(head.body..).filter(|rest| rest.starts_with(b"$"))?;
    Some((head.body, head.body + Scanner::default().find(rest).ok()??))
}

/// What counts as delivered before a scan begins: nothing, or all but the one slot that is wanted.
fn before(only: Option<Slot>) -> SlotSet {
    only.map_or_else(SlotSet::default, |only| all_slots().filter(|&slot| slot != only).collect())
}

fn all_slots() -> impl Iterator<Item = Slot> {
    (0..SLOTS as u64).filter_map(Slot::new)
}

/// A set of slots, as bits.
#[derive(Clone, Debug, PartialEq, Hash)]
struct SlotSet(Box<[u64; SLOTS / 64]>);

impl Default for SlotSet {
    fn default() -> SlotSet {
        SlotSet(Box::new([0; SLOTS / 64]))
    }
}

impl SlotSet {
    fn has(&self, slot: Slot) -> bool {
        self.0[slot.index() / 64] & 1 << (slot.index() % 64) != 0
    }

    fn insert(&mut self, slot: Slot) {
        self.0[slot.index() / 64] |= 1 << (slot.index() % 64);
    }

    fn add(&mut self, other: &SlotSet) {
        self.0.iter_mut().zip(other.0.iter()).for_each(|(word, other)| *word |= other);
    }

    fn is_empty(&self) -> bool {
        self.0.iter().all(|&word| word == 0)
    }
}

impl FromIterator<Slot> for SlotSet {
    fn from_iter<T: IntoIterator<Item = Slot>>(slots: T) -> SlotSet {
        let mut set = SlotSet::default();
        slots.into_iter().for_each(|slot| set.insert(slot));
        set
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::sync::Arc;

    use super::*;
    use crate::topology::{Node, Role};

    /// A cluster in little: where each key is, who owns each slot, which slots are on their way.
    struct Model {
        topology: Topology,
        keys: Vec<BTreeMap<u64, Slot>>,
        leaving: BTreeMap<usize, usize>,
        chance: u64,
    }

    impl Model {
        fn new(nodes: usize, keys: u64, chance: u64) -> Model {
            let mut topology = Topology::unknown(Arc::default(), "");
            topology.epoch = 1;
            topology.nodes = (0..nodes)
                .map(|index| {
                    let address = crate::address::Address::new("h", index as u16 + 1);
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

        fn own(&self, node: usize) -> Own {
            let owns = |slot: &Slot| self.topology.owner_index(*slot) == Some(node);
            let leaving = self.leaving.iter().filter(|(slot, _)| owns(&Slot::new(**slot as u64).unwrap()));
            Own {
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
                assert!(cursor < 1 << 63);
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
    fn cursors_in_replies() {
        let reply = b"*2\r\n$2\r\n17\r\n*1\r\n$1\r\na\r\n";
        assert_eq!(cursor_of(reply), Some(17));
        let mut out = Vec::new();
        with_cursor(reply, 0, &mut out);
        assert_eq!(out, b"*2\r\n$1\r\n0\r\n*1\r\n$1\r\na\r\n");
        assert_eq!(cursor_of(b"-ERR syntax error\r\n"), None);
    }

    #[test]
    fn what_a_node_says_of_itself() {
        let text = "a h:1@2 master - 0 0 1 connected 0-5\nb h:2@3,name myself,master - 0 0 2 connected 10-12 20 [11->-a] [30-<-a]\n";
        let own = Own::parse(text).unwrap();
        let slots: Vec<usize> = all_slots().filter(|&slot| own.slots.has(slot)).map(Slot::index).collect();
        assert_eq!(slots, [10, 11, 12, 20]);
        assert_eq!(own.leaving, [(Slot::new(11).unwrap(), "a".to_owned())]);
        assert!(own.coming.has(Slot::new(30).unwrap()));
        assert_eq!(Own::parse("a h:1@2 master - 0 0 1 connected"), None);
    }
}
