//! Which replies have been large of late, so that the next one like it takes a connection of its client's own.
//!
//! A node makes each reply whole before it sends a byte of it, and a shared connection brings replies in their order:
//! large ones pile up at the node, and keep the clients behind them waiting. What cannot be known beforehand is learned
//! from what has come.

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, HashSet},
    hash::{BuildHasher, Hash, Hasher},
    time::{Duration, Instant},
};

use foldhash::fast::RandomState;

use crate::protocol::{
    resp::request::Parser,
    slot::{SLOTS, Slot},
};

/// Bytes from which on a reply is large. One server, too, writes no more than half of that to a client in one turn.
pub const LARGE_REPLY: usize = 128 * 1024;
/// How long a large reply is remembered.
const REMEMBERED_FOR: Duration = Duration::from_secs(60);
/// How many are remembered at most.
const MOST_REMEMBERED: usize = 4096;
/// What stands for all transactions of a slot.
const EXEC: &[u8] = b"exec";
/// Arguments of a request that are looked at.
const MOST_ARGS: usize = 64;

/// How long a small reply is remembered, and how many are at most.
const SMALL_FOR: Duration = Duration::from_secs(60);
const MOST_SMALL: usize = 65536;

/// The commands and keys whose replies have been large, those of one worker.
pub struct LargeReplies {
    /// Whether there are any, and in which slots: one bit for each.
    any: Cell<bool>,
    slots: RefCell<Box<[u64]>>,
    /// By the hash of command and key.
    known: RefCell<HashMap<u64, (Slot, Instant)>>,
    /// Whole requests whose replies were small, by their hash, and since when these are gathered.
    small: RefCell<(HashSet<u64>, Option<Instant>)>,
    /// What a node lets a client leave unread is limited: what is not known to be small may be too large.
    is_frugal: Cell<bool>,
    hasher: RandomState,
}

impl Default for LargeReplies {
    fn default() -> LargeReplies {
        LargeReplies {
            any: Cell::new(false),
            slots: RefCell::new(vec![0; SLOTS.div_ceil(64)].into_boxed_slice()),
            known: RefCell::default(),
            small: RefCell::default(),
            is_frugal: Cell::new(false),
            hasher: RandomState::default(),
        }
    }
}

impl LargeReplies {
    /// A large reply has come to the request in `frame`, whose keys are in `slot`; `None`: it is a script without keys, for
    /// which its own name stands.
    pub fn note(&self, slot: Option<Slot>, frame: &[u8], now: Instant) {
        self.note_length(slot, frame, LARGE_REPLY, now);
    }

    /// A reply of `length` bytes has come to the request in `frame`, likewise: large or no longer so.
    pub fn note_length(&self, slot: Option<Slot>, frame: &[u8], length: usize, now: Instant) {
        let mut parser = Parser::default();
        let Some(request) = parser.find_front(frame, 1 + MOST_ARGS) else { return };
        let slot = slot.unwrap_or_else(|| Slot::of(request.arg(1)));
        for key in request.args().skip(1).filter(|arg| Slot::of(arg) == slot) {
            if length < LARGE_REPLY {
                self.known.borrow_mut().remove(&self.hash(request.name(), key));
            } else {
                self.remember(slot, request.name(), key, now);
            }
        }
        if length >= LARGE_REPLY {
            self.small.borrow_mut().0.remove(&self.hasher.hash_one(frame));
        }
    }

    /// What EXEC answered to a transaction in `slot` was large.
    pub fn note_transaction(&self, slot: Slot, now: Instant) {
        self.remember(slot, EXEC, b"", now);
    }

    /// Whether what EXEC answered to a transaction in `slot` has been large of late.
    pub fn knows_transaction(&self, slot: Slot) -> bool {
        !self.is_empty() && self.knows(slot, EXEC, b"")
    }

    fn remember(&self, slot: Slot, name: &[u8], key: &[u8], now: Instant) {
        let mut known = self.known.borrow_mut();
        if known.len() < MOST_REMEMBERED {
            known.insert(self.hash(name, key), (slot, now + REMEMBERED_FOR));
            self.mark(slot);
        }
    }

    /// Whether nodes close connections for replies that are too large.
    pub fn set_frugal(&self, is_frugal: bool) {
        self.is_frugal.set(is_frugal);
        self.any.set(self.any.get() || is_frugal);
    }

    /// Whether the reply to this very request may be larger than a node allows, as far as is known.
    pub fn may_be_too_large(&self, frame: &[u8]) -> bool {
        self.is_frugal.get() && !self.was_small(frame)
    }

    /// Whether that has to be thought of.
    pub fn is_frugal(&self) -> bool {
        self.is_frugal.get()
    }

    /// The reply to this very request was small.
    pub fn note_small(&self, frame: &[u8], now: Instant) {
        if !self.is_frugal.get() {
            return;
        }
        let (small, since) = &mut *self.small.borrow_mut();
        since.get_or_insert(now);
        if small.len() < MOST_SMALL {
            small.insert(self.hasher.hash_one(frame));
        }
    }

    /// Whether the reply to this very request was small of late.
    fn was_small(&self, frame: &[u8]) -> bool {
        self.small.borrow().0.contains(&self.hasher.hash_one(frame))
    }

    /// Whether nothing is known.
    #[inline]
    pub fn is_empty(&self) -> bool {
        !self.any.get()
    }

    /// Whether a reply to the command called `name` about this key, which is in `slot`, has been large of late.
    pub fn knows(&self, slot: Slot, name: &[u8], key: &[u8]) -> bool {
        let index = slot.index();
        if self.slots.borrow().get(index / 64).is_none_or(|bits| bits & (1 << (index % 64)) == 0) {
            return false;
        }
        self.known.borrow().contains_key(&self.hash(name, key))
    }

    /// Forgets what has not been large for a while. To be called every now and then.
    pub fn expire(&self, now: Instant) {
        if self.small.borrow().1.is_some_and(|since| now.saturating_duration_since(since) >= SMALL_FOR) {
            self.small.take();
        }
        if self.is_empty() {
            return;
        }
        self.known.borrow_mut().retain(|_, (_, until)| now < *until);
        self.slots.borrow_mut().fill(0);
        self.any.set(self.is_frugal.get());
        self.known.borrow().values().for_each(|(slot, _)| self.mark(*slot));
    }

    fn mark(&self, slot: Slot) {
        self.any.set(true);
        if let Some(bits) = self.slots.borrow_mut().get_mut(slot.index() / 64) {
            *bits |= 1 << (slot.index() % 64);
        }
    }

    fn hash(&self, name: &[u8], key: &[u8]) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        name.iter().for_each(|byte| hasher.write_u8(byte.to_ascii_lowercase()));
        key.hash(&mut hasher);
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::resp::write;

    fn known(large: &LargeReplies, [name, key]: [&str; 2]) -> bool {
        large.knows(Slot::of(key.as_bytes()), name.as_bytes(), key.as_bytes())
    }

    #[test]
    fn a_command_about_a_key_is_large_for_a_while() {
        let (large, now) = (LargeReplies::default(), Instant::now());
        assert!(large.is_empty() && !known(&large, ["GET", "{t}big"]));
        large.note(Some(Slot::of(b"{t}big")), b"*2\r\n$3\r\nGET\r\n$6\r\n{t}big\r\n", now);
        assert!(known(&large, ["get", "{t}big"]), "in any case");
        assert!(!known(&large, ["GET", "{t}small"]), "another key of the slot");
        assert!(!known(&large, ["STRLEN", "{t}big"]), "another command");
        large.expire(now + REMEMBERED_FOR / 2);
        assert!(known(&large, ["GET", "{t}big"]));
        large.expire(now + REMEMBERED_FOR);
        assert!(large.is_empty() && !known(&large, ["GET", "{t}big"]));
        large.note(Some(Slot::of(b"k")), b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n", now);
        large.note_length(Some(Slot::of(b"k")), b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n", 3, now);
        assert!(!known(&large, ["GET", "k"]), "it has become small");
        let keyless = b"*3\r\n$5\r\nFCALL\r\n$4\r\nlong\r\n$1\r\n0\r\n";
        large.note(None, keyless, now);
        assert!(known(&large, ["FCALL", "long"]), "the function's name stands for its key");
        assert!(!large.knows_transaction(Slot::of(b"k")));
        large.note_transaction(Slot::of(b"k"), now);
        assert!(large.knows_transaction(Slot::of(b"k")) && !large.knows_transaction(Slot::of(b"other")));
    }

    #[test]
    fn a_request_is_small_for_a_while() {
        let (large, now) = (LargeReplies::default(), Instant::now());
        let frame = b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n";
        assert!(!large.may_be_too_large(frame), "no node minds");
        large.set_frugal(true);
        assert!(large.may_be_too_large(frame) && !large.is_empty());
        large.note_small(frame, now);
        assert!(large.was_small(frame) && !large.was_small(&frame[..frame.len() - 1]));
        large.note(Some(Slot::of(b"k")), frame, now);
        assert!(!large.was_small(frame), "it has become large");
        large.note_small(frame, now);
        large.expire(now + SMALL_FOR);
        assert!(!large.was_small(frame));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (large, now) = (LargeReplies::default(), Instant::now());
        for number in 0..2 * MOST_REMEMBERED {
            let (key, mut frame) = (format!("k{number}"), Vec::new());
            write::request(&mut frame, &["GET", &key]);
            large.note(Some(Slot::of(key.as_bytes())), &frame, now);
        }
        assert_eq!(large.known.borrow().len(), MOST_REMEMBERED);
    }
}
