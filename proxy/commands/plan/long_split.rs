//! A request with very many keys, cut slot by slot: some keys at a time, so that whoever carries it out can let others go
//! on in between. The order of all steps is that of the keys; what it costs is in proportion to their number.

use super::split::{Part, Shape, Split, shape_of};
use crate::{
    commands::table::{Spec, treatment::MergeRule},
    protocol::{
        resp::Request,
        slot::{SLOTS, Slot},
    },
};

/// Requests with more arguments are cut in portions.
pub const LONG: usize = 4096;

/// A long request that is being cut.
#[derive(Clone, Debug, PartialEq)]
pub struct LongSplit {
    rule: MergeRule,
    shape: Shape,
    /// How many keys there are.
    count: usize,
    /// The slot of each key, as far as they have been hashed.
    slots: Vec<Slot>,
    /// By slot, how many keys it has; once all are hashed, where its next key goes in `keys`.
    next: Vec<u32>,
    /// How many keys have gone there.
    placed: usize,
    keys: Vec<u32>,
}

impl LongSplit {
    /// Begins to cut `request`; `None` as for [`Split::by_slot`].
    pub fn begin(request: &Request, spec: &Spec, rule: MergeRule) -> Option<LongSplit> {
        let (mut count, mut first, mut last) = (0, 0, 0);
        let (step, mut even) = (spec.step(), true);
        let found = spec.visit_keys(request, |index| {
            if count == 0 {
                first = index;
            }
            even &= index == first + count * step;
            (count, last) = (count + 1, index);
        });
        let shape = shape_of(request, spec, found, (first, last)).filter(|_| even && count > 0)?;
        let (slots, next, keys) = (Vec::with_capacity(count), vec![0; SLOTS], Vec::new());
        Some(LongSplit { rule, shape, count, slots, next, placed: 0, keys })
    }

    /// Goes on for so many keys; true once that was all.
    pub fn go_on(&mut self, request: &Request, most: usize) -> bool {
        let hashed = self.slots.len();
        if hashed < self.count {
            for index in hashed..self.count.min(hashed + most) {
                let slot = Slot::of(request.arg(self.shape.index_of(index)));
                self.slots.push(slot);
                self.next[slot.index()] += 1;
            }
            return false;
        }
        if self.placed == 0 {
            let mut start = 0;
            for next in &mut self.next {
                start += std::mem::replace(next, start);
            }
            self.keys = vec![0; self.count];
        }
        let portion = self.placed..self.count.min(self.placed + most);
        for (index, slot) in portion.clone().zip(&self.slots[portion]) {
            let next = &mut self.next[slot.index()];
            self.keys[*next as usize] = self.shape.index_of(index) as u32;
            *next += 1;
            self.placed += 1;
        }
        self.placed == self.count
    }

    /// What it has come to, at once.
    pub fn finish(mut self, request: &Request) -> Split {
        while !self.go_on(request, usize::MAX - self.count) {}
        let mut start = 0;
        let part = |(slot, end): (usize, u32)| {
            let keys = std::mem::replace(&mut start, end)..end;
            Slot::new(slot as u64).filter(|_| !keys.is_empty()).map(|slot| Part { slot, keys })
        };
        let parts = self.next.into_iter().enumerate().filter_map(part).collect();
        Split { parts, rule: self.rule, keys: self.keys, shape: self.shape }
    }
}
