//! A request in parts, each with keys of one slot only.

use std::ops::Range;

use crate::{
    commands::table::{Keys, Spec, treatment::MergeRule},
    protocol::{
        resp::{Request, write},
        slot::Slot,
    },
};

/// How a request is cut.
#[derive(Clone, Debug, PartialEq)]
pub struct Split {
    /// The parts, by slot.
    pub parts: Vec<Part>,
    /// How their replies become one.
    pub rule: MergeRule,
    /// The indexes of the keys, part by part; ascending within a part, so that what comes last in the request comes
    /// last in its part.
    pub(super) keys: Vec<u32>,
    pub(super) shape: Shape,
}

/// The keys of one slot.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// Their slot.
    pub slot: Slot,
    /// Where they are in [`Split::keys`].
    pub(super) keys: Range<u32>,
}

/// How many arguments, and bytes of them, may stand behind the keys: options, which every part has. No command has more
/// that a server would take, and each part would bear it again.
const MOST_OPTIONS: usize = 16;
const MOST_OPTION_BYTES: usize = 1024;

/// Which arguments are what in the request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Shape {
    /// The first key: all before it are in every part.
    first: usize,
    /// How many arguments belong to each key, itself included.
    step: usize,
    /// Behind the last key and what belongs to it: all from there on are in every part too.
    end: usize,
    /// The argument that says how many keys there are.
    count_at: Option<usize>,
}

impl Shape {
    /// Which argument the key of this number is.
    pub(super) fn index_of(&self, key: usize) -> usize {
        self.first + key * self.step
    }
}

impl Split {
    /// Cuts `request` slot by slot; `None` where a key lacks what belongs to it, or where more follows than any server
    /// takes.
    pub fn by_slot(request: &Request, spec: &Spec, rule: MergeRule) -> Option<Split> {
        let (shape, mut keys) = shape(request, spec)?;
        // Stable: within a slot, keys stay in the request's order.
        keys.sort_by_key(|(slot, _)| *slot);
        Some(Split::of(&keys, |a, b| a.0 == b.0, rule, shape))
    }

    /// Cuts `request` key by key. A key that comes again stays with its first place, so that what is said of it last
    /// counts and what is said of it once is counted once.
    pub fn by_key(request: &Request, spec: &Spec, rule: MergeRule) -> Option<Split> {
        let (shape, mut keys) = shape(request, spec)?;
        keys.sort_by(|a, b| request.arg(a.1 as usize).cmp(request.arg(b.1 as usize)));
        let is_same = |a: &(Slot, u32), b: &(Slot, u32)| request.arg(a.1 as usize) == request.arg(b.1 as usize);
        Some(Split::of(&keys, is_same, rule, shape))
    }

    /// Cuts between keys that do not belong together.
    fn of(
        keys: &[(Slot, u32)],
        are_together: impl FnMut(&(Slot, u32), &(Slot, u32)) -> bool,
        rule: MergeRule,
        shape: Shape,
    ) -> Split {
        // Most have a part for each key.
        let (mut parts, mut start) = (Vec::with_capacity(keys.len()), 0);
        for part in keys.chunk_by(are_together) {
            let end = start + part.len() as u32;
            parts.push(Part { slot: part[0].0, keys: start..end });
            start = end;
        }
        Split { parts, rule, keys: keys.iter().map(|(_, index)| *index).collect(), shape }
    }

    /// Appends the request of a part.
    pub fn encode(&self, part: usize, request: &Request, out: &mut Vec<u8>) {
        let Shape { first, step, end, count_at } = self.shape;
        let keys = self.keys_of(part);
        write::request_head(out, first + keys.len() * step + (request.len() - end));
        for index in 0..first {
            if Some(index) == count_at {
                write::bulk(out, keys.len().to_string().as_bytes());
            } else {
                write::bulk(out, request.arg(index));
            }
        }
        let grouped = keys.iter().flat_map(|&key| key as usize..key as usize + step);
        grouped.chain(end..request.len()).for_each(|index| write::bulk(out, request.arg(index)));
    }

    /// The argument indexes of a part's keys, ascending.
    pub fn keys_of(&self, part: usize) -> &[u32] {
        let keys = self.parts.get(part).map_or(0..0, |part| part.keys.start as usize..part.keys.end as usize);
        self.keys.get(keys).unwrap_or_default()
    }

    /// The part of each key, in the request's order of keys.
    pub fn part_of_each_key(&self) -> Vec<u32> {
        let mut places = vec![0; self.keys.len()];
        for part in 0..self.parts.len() {
            for &key in self.keys_of(part) {
                if let Some(place) = places.get_mut((key as usize - self.shape.first) / self.shape.step) {
                    *place = part as u32;
                }
            }
        }
        places
    }
}

/// The request's shape, and each key's slot and index.
fn shape(request: &Request, spec: &Spec) -> Option<(Shape, Vec<(Slot, u32)>)> {
    let mut keys = Vec::with_capacity(request.len());
    let found = spec.visit_keys(request, |index| keys.push((Slot::of(request.arg(index)), index as u32)));
    let (first, last) = (keys.first()?.1 as usize, keys.last()?.1 as usize);
    // Keys must lie evenly, or the rest of the request could not be told from them.
    let even = keys.iter().zip((first..).step_by(spec.step())).all(|((_, index), at)| *index as usize == at);
    let shape = shape_of(request, spec, found, (first, last)).filter(|_| even)?;
    Some((shape, keys))
}

/// The shape of a request whose first and last keys are these, where it is whole.
pub(super) fn shape_of(request: &Request, spec: &Spec, found: Keys, (first, last): (usize, usize)) -> Option<Shape> {
    let step = spec.step();
    let end = last + step;
    if found != Keys::Known || end > request.len() {
        return None;
    }
    let mut options = request.args().skip(end).map(<[u8]>::len);
    if options.len() > MOST_OPTIONS || options.by_ref().sum::<usize>() > MOST_OPTION_BYTES {
        return None;
    }
    Some(Shape { first, step, end, count_at: spec.count_at() })
}
