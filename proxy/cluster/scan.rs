//! SCAN over all nodes: the cursor that a client sees, and which node to ask next.
//!
//! A node scans its own keyspace by a cursor of its own. A whole scan asks one primary after the other, in *stages*. What
//! a stage has delivered is kept as a set of slots, since keys may move from node to node but never leave their slot:
//! - a stage covers the slots that its node owned from the stage's beginning to its end, by the topology at each call and
//!   by the node's own word at the end ([`NodeSelf`]);
//! - a slot that was leaving the node at the end is covered only once the node that it goes to has been scanned after it;
//! - the scan is over when every slot that has an owner is covered.
//!
//! So a key that existed throughout is delivered at least once, however slots move, and a slot that moves costs no more
//! than another look at its new owner. Keys may come twice, as with any SCAN while things change. (A slot whose move is
//! called off half-way, `SETSLOT STABLE`, is the one case where a key may be missed: it may have moved back to where the
//! scan has been.)
//!
//! The cursor holds the stage's number and the node's cursor, together below 2^53 wherever possible: some clients keep
//! it in a double (node-redis), and one that is rounded would begin anew or end too soon. A stage's number is a hash of what it is, so that any proxy in
//! front of the same cluster continues it while the topology stays as it is; stages that came about while slots moved
//! are remembered in [`Scans`]. A cursor of an unknown stage begins anew: keys come twice then, but none is missed.
//!
//! Node cursors of Redis up to 7.2 are below the number of hash buckets; from Redis 7.4 and Valkey 8 on their low 14
//! bits are a slot and the bits above a bucket within it. Both stay below 2^36 unless a slot has some million keys; then
//! the bits beyond stand above the stage's.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::{
    cluster::topology::Topology,
    commands::merge::elements::Head,
    protocol::{
        resp::{Request, reply::Scanner, write},
        slot::{SLOTS, Slot},
    },
};

/// The low bits of the cursor, which are the node's.
const NODE_BITS: u32 = 36;
/// The bits above them, which are the stage's number.
const STAGE_BITS: u32 = 53 - NODE_BITS;
/// The bits above those: of a node's cursor that needs more. No cursor reaches 2^63.
const MORE_BITS: u32 = 63 - NODE_BITS - STAGE_BITS;
/// How many stages are remembered, 4 KiB each. While the topology stays as it is, all scans share one stage per node.
const MOST_STAGES: usize = 256;

/// The stages of all scans under way. All workers should share one, since a client's next page may come by another
/// connection than its last.
#[derive(Debug, Default)]
pub struct Scans {
    stages: VecDeque<(u64, NodeScan)>,
}

/// Whom to ask next.
#[derive(Clone, Debug, PartialEq)]
pub struct ScanStep {
    /// The node's id.
    pub node: String,
    /// The node's own cursor.
    pub cursor: u64,
    /// Continues the scan where this stage ends.
    stage: u64,
}

/// What a node says of itself: `CLUSTER NODES`, its line with `myself`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeSelf {
    slots: SlotSet,
    /// Slots that are on their way to another node, and to which.
    leaving: Vec<(Slot, String)>,
    /// Slots that are on their way to this node.
    coming: SlotSet,
}

/// The scan of one node.
#[derive(Clone, Debug, PartialEq, Hash)]
struct NodeScan {
    node: String,
    /// What has been delivered before.
    done: SlotSet,
    /// What this stage delivers.
    covers: SlotSet,
    /// Slots of which one node has delivered what it had, while the rest is with another.
    halves: Vec<HalfMoved>,
    /// The topology under which `covers` has been looked at last.
    epoch: u64,
}

/// A slot that was on its way when the node that it was leaving had been scanned.
#[derive(Clone, Debug, PartialEq, Hash)]
struct HalfMoved {
    slot: Slot,
    /// Who owned it when it was seen last: it must not change hands but once, from the one to the other.
    owner: String,
    /// Where the rest of its keys is.
    rest: String,
}

impl Scans {
    /// Whom to ask for the page at `cursor`; with `only`, for the keys of one slot. `None` where no slot has an owner.
    pub fn step(&mut self, cursor: u64, only: Option<Slot>, topology: &Topology) -> Option<ScanStep> {
        let (number, node_cursor) = taken_apart(cursor);
        if cursor != 0 {
            if !self.stages.iter().any(|(known, _)| *known == number) {
                self.recall(number, only, topology);
            }
            if let Some((_, stage)) = self.stages.iter_mut().find(|(known, _)| *known == number) {
                if stage.still_goes(topology) {
                    return Some(ScanStep { node: stage.node.clone(), cursor: node_cursor, stage: number });
                }
                let (done, halves) = (stage.done.clone(), stage.halves.clone());
                return self.begin(NodeScan::next(done, halves, topology)?);
            }
        }
        self.begin(NodeScan::next(before(only), Vec::new(), topology)?)
    }

    /// The cursor to go on with when the node of `step` has come to the end of its keys and then said `own` of itself; 0
    /// where the whole scan is at its end. Without the node's word there is no next cursor: the page must fail then, so
    /// that the client asks for it again.
    pub fn next(&mut self, step: &ScanStep, own: &NodeSelf, topology: &Topology) -> u64 {
        let found = self.stages.iter().find(|(number, _)| *number == step.stage);
        // Forgotten meanwhile: any cursor of that stage begins anew.
        let Some((_, stage)) = found else { return start_of(step.stage) };
        let (done, halves) = stage.ended(own);
        match NodeScan::next(done, halves, topology) {
            Some(next) => self.begin(next).map_or(0, |step| start_of(step.stage)),
            None => 0,
        }
    }

    /// Finds a stage that another proxy began: under an unchanged topology its number is the same here.
    fn recall(&mut self, number: u64, only: Option<Slot>, topology: &Topology) {
        let mut done = before(only);
        while let Some(stage) = NodeScan::next(done, Vec::new(), topology) {
            done = stage.done.clone();
            done.add(&stage.covers);
            if stage.number() == number {
                self.remember(number, stage);
                return;
            }
        }
    }

    fn begin(&mut self, stage: NodeScan) -> Option<ScanStep> {
        let mut number = stage.number();
        let node = stage.node.clone();
        // Another stage may have the same number by chance, or the same stage may have been entered before.
        while let Some((_, known)) = self.stages.iter().find(|(known, _)| *known == number) {
            if *known == stage {
                return Some(ScanStep { node, cursor: 0, stage: number });
            }
            number = number % ((1 << STAGE_BITS) - 1) + 1;
        }
        self.remember(number, stage);
        Some(ScanStep { node, cursor: 0, stage: number })
    }

    fn remember(&mut self, number: u64, stage: NodeScan) {
        if self.stages.len() >= MOST_STAGES {
            self.stages.pop_front();
        }
        self.stages.push_back((number, stage));
    }
}

impl ScanStep {
    /// The cursor to go on with after a page of the node's that ended at `cursor`, which is not its last. `None` where
    /// the node's cursor is larger than any known server's.
    pub fn after(&self, cursor: u64) -> Option<u64> {
        let more = cursor >> NODE_BITS;
        let low = cursor & ((1 << NODE_BITS) - 1);
        (more >> MORE_BITS == 0).then_some(more << (NODE_BITS + STAGE_BITS) | start_of(self.stage) | low)
    }

    /// Appends the request for the node: as it came, with the node's cursor.
    pub fn encode(&self, request: &Request, out: &mut Vec<u8>) {
        write::request_head(out, request.len());
        for (index, arg) in request.args().enumerate() {
            write::bulk(out, if index == 1 { self.cursor.to_string().into_bytes() } else { arg.to_vec() }.as_ref());
        }
    }
}

impl NodeScan {
    /// The stage after what is `done`: at the owner of the first slot that is not. `None` where nothing is left.
    fn next(done: SlotSet, mut halves: Vec<HalfMoved>, topology: &Topology) -> Option<NodeScan> {
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
        Some(NodeScan { node, done, covers, halves, epoch: topology.epoch })
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
    fn ended(&self, own: &NodeSelf) -> (SlotSet, Vec<HalfMoved>) {
        let mut done = self.done.clone();
        let (awaited, mut halves): (Vec<_>, Vec<_>) =
            self.halves.iter().cloned().partition(|half| half.rest == self.node);
        let came = awaited.iter().filter(|half| half.owner != self.node && own.coming.has(half.slot));
        came.for_each(|half| done.insert(half.slot));
        let awaited: SlotSet = awaited.iter().map(|half| half.slot).collect();
        // What the node does not own has moved on: whoever owns it now is scanned for it.
        for slot in all_slots().filter(|&slot| own.slots.has(slot) && (self.covers.has(slot) || awaited.has(slot))) {
            match own.leaving.iter().find(|(leaving, _)| *leaving == slot) {
                Some((_, rest)) => halves.push(HalfMoved { slot, owner: self.node.clone(), rest: rest.clone() }),
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

impl HalfMoved {
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

impl NodeSelf {
    /// From the reply to `CLUSTER NODES`; `None` where it has no line of the node itself.
    pub fn parse(nodes: &str) -> Option<NodeSelf> {
        let line = nodes.lines().find(|line| line.split(' ').nth(2).is_some_and(|flags| flags.contains("myself")))?;
        let mut own = NodeSelf::default();
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

/// The cursor at which a stage begins.
fn start_of(stage: u64) -> u64 {
    stage << NODE_BITS
}

/// The stage's number and the node's cursor in a client's.
fn taken_apart(cursor: u64) -> (u64, u64) {
    let bits = |bits: u32| (1 << bits) - 1;
    let more = cursor >> (NODE_BITS + STAGE_BITS);
    (cursor >> NODE_BITS & bits(STAGE_BITS), more << NODE_BITS | cursor & bits(NODE_BITS))
}

/// The cursor in a node's reply to SCAN; `None` where the reply is none, such as an error.
pub fn cursor_of(reply: &[u8]) -> Option<u64> {
    let (start, end) = cursor_at(reply)?;
    // Elements can be told from their head's count in an array only.
    Head::of(reply.get(end..)?).filter(|keys| keys.kind == b'*')?;
    let text = reply.get(start..end)?.strip_suffix(b"\r\n")?;
    let text = text.iter().position(|&byte| byte == b'\n').and_then(|line| text.get(line + 1..))?;
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Whether a client's cursor is where a node's scan begins.
pub fn begins_a_stage(cursor: u64) -> bool {
    taken_apart(cursor).1 == 0
}

/// Appends the keys in a node's reply to SCAN as they are; how many there are. `reply` must be one that [`cursor_of`]
/// could read.
pub fn keys_of(reply: &[u8], out: &mut Vec<u8>) -> usize {
    let keys = cursor_at(reply).and_then(|(_, end)| reply.get(end..)).unwrap_or_default();
    let Some(head) = Head::of(keys) else { return 0 };
    out.extend_from_slice(keys.get(head.body..).unwrap_or_default());
    head.count
}

/// The reply to SCAN: a cursor and `count` keys.
pub fn page(cursor: u64, count: usize, keys: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(keys.len() + 48);
    write::array(&mut out, 2);
    write::bulk(&mut out, cursor.to_string().as_bytes());
    write::array(&mut out, count);
    out.extend_from_slice(keys);
    out
}

/// Where the frame of the cursor begins and ends.
fn cursor_at(reply: &[u8]) -> Option<(usize, usize)> {
    let head = Head::of(reply).filter(|head| head.kind == b'*' && head.count == 2)?;
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
mod tests;
