//! What is asked for most, and what is large: estimated from about one request in two hundred, since looking at each would cost
//! every request something.
//!
//! A worker counts down to its next sample, whose distance is random so that no rhythm of a client's hides from it. What it
//! has sampled it counts by the space-saving algorithm (Metwally, Agrawal and El Abbadi, 2005): the most frequent keys of any
//! number in a table of fixed size. Once a second all workers' tables go into one, whose counts fade by half in
//! twenty seconds, so that rates are those of the last minute or so.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    hash::BuildHasher,
    sync::Mutex,
    time::{Duration, Instant, SystemTime},
};

use foldhash::fast::FixedState;

use super::{CommandId, lock};
use crate::protocol::{
    resp::request::Parser,
    slot::{SLOTS, Slot},
};

/// The mean distance between samples, in requests.
const GAP: u32 = 200;
/// Keys that a table has room for.
const MOST_KEYS: usize = 128;
/// The longest part of a key that is kept.
const LONGEST_KEY: usize = 256;
/// After so long a count is worth half.
const HALF_LIFE: Duration = Duration::from_secs(20);
/// Large requests and replies that are remembered, and for how long.
const MOST_LARGE: usize = 32;
const LARGE_FOR: Duration = Duration::from_secs(900);

/// What is counted of a key.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Count {
    requests: f64,
    writes: f64,
    command: Option<CommandId>,
}

/// The most frequent keys, by space-saving. A key that gives place leaves its memory to the next one, so that workers
/// allocate nothing for samples once their tables are full.
#[derive(Debug, Default)]
struct Sketch {
    places: Vec<Place>,
    /// How many of them are taken.
    used: usize,
}

/// A key and its count. Hashes are compared first: few keys are compared at all.
#[derive(Debug, Default)]
struct Place {
    hash: u64,
    key: Vec<u8>,
    count: Count,
}

impl Sketch {
    fn add(&mut self, key: &[u8], mut more: Count) {
        let hash = FixedState::default().hash_one(key);
        let is_it = |place: &&mut Place| place.hash == hash && place.key == key;
        if let Some(Place { count, .. }) = self.places[..self.used].iter_mut().find(is_it) {
            count.requests += more.requests;
            count.writes += more.writes;
            count.command = more.command.or(count.command);
            return;
        }
        let place = if self.used < MOST_KEYS {
            if self.used == self.places.len() {
                self.places.push(Place::default());
            }
            self.used += 1;
            self.places.get_mut(self.used - 1)
        } else {
            let least = self.places.iter_mut().min_by(|one, other| one.count.requests.total_cmp(&other.count.requests));
            // It may have been there before, as often as whatever makes room for it.
            more.requests += least.as_ref().map_or(0.0, |least| least.count.requests);
            least
        };
        if let Some(place) = place {
            place.key.clear();
            place.key.extend_from_slice(key);
            (place.hash, place.count) = (hash, more);
        }
    }

    fn counts(&self) -> &[Place] {
        &self.places[..self.used]
    }

    fn clear(&mut self) {
        self.used = 0;
    }

    /// All counts are worth so much less; what is worth hardly anything goes.
    fn fade(&mut self, left: f64) {
        for Place { count, .. } in &mut self.places[..self.used] {
            count.requests *= left;
            count.writes *= left;
        }
        let mut at = 0;
        while at < self.used {
            if self.places[at].count.requests > 0.5 {
                at += 1;
            } else {
                self.used -= 1;
                self.places.swap(at, self.used);
            }
        }
    }
}

/// One worker's samples since the last publication.
#[derive(Debug)]
pub struct Sampler {
    left: Cell<u32>,
    gap: Cell<u32>,
    seed: Cell<u32>,
    keys: RefCell<Sketch>,
    slots: RefCell<HashMap<u16, f64>>,
}

/// A request that is sampled.
#[derive(Clone, Copy, Debug)]
pub struct Sample<'a> {
    /// One of its keys.
    pub key: &'a [u8],
    /// How many it has.
    pub keys: usize,
    /// That key's slot.
    pub slot: Slot,
    /// Whether it writes.
    pub writes: bool,
    /// The command.
    pub command: CommandId,
}

impl Default for Sampler {
    fn default() -> Sampler {
        let sampler = Sampler {
            left: Cell::new(0),
            gap: Cell::new(1),
            seed: Cell::new(0x9E37_79B9),
            keys: RefCell::default(),
            slots: RefCell::default(),
        };
        sampler.aim();
        sampler
    }
}

impl Sampler {
    /// Whether this request is to be sampled. Asked once for each.
    #[inline]
    pub fn is_due(&self) -> bool {
        let left = self.left.get();
        self.left.set(left.wrapping_sub(1));
        left == 0
    }

    /// A random number, to choose among a request's keys.
    pub fn random(&self) -> usize {
        // Xorshift (Marsaglia, 2003).
        let mut seed = self.seed.get();
        seed ^= seed << 13;
        seed ^= seed >> 17;
        seed ^= seed << 5;
        self.seed.set(seed);
        seed as usize
    }

    /// Chooses the next one.
    fn aim(&self) {
        let gap = 1 + self.random() as u32 % (2 * GAP - 1);
        self.gap.set(gap);
        self.left.set(gap - 1);
    }

    /// Counts the request that is due for all since the last one; `None`: it has no keys.
    #[cold]
    pub fn take(&self, sample: Option<Sample<'_>>) {
        let weight = f64::from(self.gap.get());
        self.aim();
        let Some(Sample { key, keys, slot, writes, command }) = sample else { return };
        let requests = weight * keys as f64;
        let count = Count { requests, writes: if writes { requests } else { 0.0 }, command: Some(command) };
        self.keys.borrow_mut().add(&key[..key.len().min(LONGEST_KEY)], count);
        *self.slots.borrow_mut().entry(slot.number()).or_default() += weight;
    }
}

/// Something large.
#[derive(Clone, Debug, PartialEq)]
pub struct Large {
    /// When it was seen last.
    pub at: SystemTime,
    /// Whether it is a reply.
    pub is_reply: bool,
    /// How many bytes it has, as far as they had come when it was noted; of several alike, the most.
    pub bytes: usize,
    /// How often it was seen.
    pub times: u64,
    /// The command, in lower case.
    pub command: String,
    /// Its first key, cut; empty where it has none.
    pub key: Vec<u8>,
    /// The node that it was for.
    pub node: String,
}

impl Large {
    /// What the request in `frame` is, or is answered by, at the node with this label.
    pub(super) fn of(is_reply: bool, bytes: usize, frame: &[u8], node: &str) -> Large {
        let mut parser = Parser::default();
        let request = parser.find_front(frame, 2);
        let arg = |at: usize| request.as_ref().and_then(|request| request.get(at)).unwrap_or_default();
        let key = arg(1);
        Large {
            at: SystemTime::now(),
            is_reply,
            bytes,
            times: 1,
            command: String::from_utf8_lossy(arg(0)).to_lowercase(),
            key: key[..key.len().min(LONGEST_KEY)].to_vec(),
            node: node.to_owned(),
        }
    }
}

/// A key that is asked for often.
#[derive(Clone, Debug, PartialEq)]
pub struct HotKey {
    /// The key, cut after 256 bytes.
    pub key: Vec<u8>,
    /// Requests a second, about.
    pub rate: f64,
    /// The part of them that writes, from 0 to 1.
    pub writes: f64,
    /// What it was asked for by last.
    pub command: CommandId,
}

/// All workers' samples.
#[derive(Debug)]
pub struct Hot(Mutex<All>);

#[derive(Debug)]
struct All {
    keys: Sketch,
    slots: Box<[f32]>,
    faded: Instant,
    large: Vec<Large>,
}

impl Default for Hot {
    fn default() -> Hot {
        let slots = vec![0.0; SLOTS].into_boxed_slice();
        Hot(Mutex::new(All { keys: Sketch::default(), slots, faded: Instant::now(), large: Vec::new() }))
    }
}

impl Hot {
    /// Takes a worker's samples.
    pub(super) fn merge(&self, sampler: &Sampler) {
        let (mut keys, mut slots) = (sampler.keys.borrow_mut(), sampler.slots.borrow_mut());
        let mut all = lock(&self.0);
        all.fade();
        keys.counts().iter().for_each(|place| all.keys.add(&place.key, place.count));
        keys.clear();
        for (slot, count) in slots.drain() {
            if let Some(sum) = all.slots.get_mut(usize::from(slot)) {
                *sum += count as f32;
            }
        }
    }

    /// The keys that are asked for most, the hottest first. What makes up less than one request in ten seconds is left out.
    pub fn keys(&self, most: usize) -> Vec<HotKey> {
        let mut all = lock(&self.0);
        all.fade();
        let hot = all.keys.counts().iter().map(|Place { key, count, .. }| HotKey {
            key: key.clone(),
            rate: rate(count.requests),
            writes: if count.requests > 0.0 { (count.writes / count.requests).min(1.0) } else { 0.0 },
            command: count.command.unwrap_or(CommandId::OTHER),
        });
        let mut hot: Vec<HotKey> = hot.filter(|hot| hot.rate >= 0.1).collect();
        hot.sort_by(|one, other| other.rate.total_cmp(&one.rate).then_with(|| one.key.cmp(&other.key)));
        hot.truncate(most);
        hot
    }

    /// Requests a second for each slot, about.
    pub fn slots(&self) -> Vec<f32> {
        let mut all = lock(&self.0);
        all.fade();
        all.slots.iter().map(|count| rate(f64::from(*count)) as f32).collect()
    }

    /// Notes something large.
    pub fn note_large(&self, large: Large) {
        let mut all = lock(&self.0);
        let long_ago = SystemTime::now() - LARGE_FOR;
        all.large.retain(|known| known.at >= long_ago);
        let alike = |known: &&mut Large| {
            known.is_reply == large.is_reply && known.command == large.command && known.key == large.key
        };
        if let Some(known) = all.large.iter_mut().find(alike) {
            (known.at, known.times, known.bytes) = (large.at, known.times + 1, known.bytes.max(large.bytes));
        } else {
            all.large.push(large);
        }
        all.large.sort_by_key(|large| std::cmp::Reverse(large.bytes));
        all.large.truncate(MOST_LARGE);
    }

    /// What was large within the last quarter of an hour, the largest first.
    pub fn large(&self) -> Vec<Large> {
        lock(&self.0).large.clone()
    }
}

impl All {
    fn fade(&mut self) {
        let passed = self.faded.elapsed();
        if passed < Duration::from_millis(250) {
            return;
        }
        self.faded = Instant::now();
        let left = 0.5_f64.powf(passed.as_secs_f64() / HALF_LIFE.as_secs_f64());
        self.keys.fade(left);
        self.slots.iter_mut().for_each(|count| *count *= left as f32);
    }
}

/// The rate that keeps a fading count where it is.
fn rate(count: f64) -> f64 {
    count * std::f64::consts::LN_2 / HALF_LIFE.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(sampler: &Sampler, key: &[u8]) {
        if sampler.is_due() {
            let slot = Slot::of(key);
            sampler.take(Some(Sample { key, keys: 1, slot, writes: key == b"hot", command: CommandId::OTHER }));
        }
    }

    #[test]
    fn the_hottest_of_many_keys_are_found() {
        let (sampler, hot) = (Sampler::default(), Hot::default());
        for number in 0..200_000u32 {
            ask(
                &sampler,
                match number % 10 {
                    0 | 1 => b"hot",
                    2 => b"warm",
                    _ => b"",
                },
            );
            if number % 10 > 2 {
                ask(&sampler, format!("cold:{}", number.wrapping_mul(2_654_435_761) % 50_000).as_bytes());
            }
        }
        hot.merge(&sampler);
        let found: Vec<HotKey> = hot.keys(10).into_iter().filter(|hot| !hot.key.is_empty()).collect();
        assert_eq!(found[0].key, b"hot");
        assert_eq!(found[1].key, b"warm");
        assert_eq!((found[0].writes, found[1].writes), (1.0, 0.0));
        let ratio = found[0].rate / found[1].rate;
        assert!((1.5..3.0).contains(&ratio), "{ratio}");
        // 40,000 of them, as a rate that fades by half in 20 s.
        let expected = 40_000.0 * std::f64::consts::LN_2 / 20.0;
        assert!((0.7..1.5).contains(&(found[0].rate / expected)), "{} is not about {expected}", found[0].rate);
        let slots = hot.slots();
        let hottest = (0..SLOTS).max_by(|&one, &other| slots[one].total_cmp(&slots[other])).unwrap();
        assert!([Slot::of(b"hot").index(), Slot::of(b"").index()].contains(&hottest));
    }

    #[test]
    fn memory_is_bounded_and_what_is_large_is_told_once() {
        let (sampler, hot) = (Sampler::default(), Hot::default());
        (0..1_000_000u32).for_each(|number| ask(&sampler, &number.to_be_bytes()));
        assert_eq!(sampler.keys.borrow().counts().len(), MOST_KEYS);
        hot.merge(&sampler);
        hot.merge(&sampler);
        assert!(hot.keys(usize::MAX).len() <= MOST_KEYS);
        let large = |bytes, key: &str| Large {
            at: SystemTime::now(),
            is_reply: true,
            bytes,
            times: 1,
            command: "get".to_owned(),
            key: key.into(),
            node: "a:1".to_owned(),
        };
        hot.note_large(large(5, "a"));
        (0..100).for_each(|size| hot.note_large(large(1000 + size, &format!("b{size}"))));
        hot.note_large(large(2000, "b99"));
        let all = hot.large();
        assert_eq!((all.len(), all[0].bytes, all[0].times), (MOST_LARGE, 2000, 2));
    }
}
