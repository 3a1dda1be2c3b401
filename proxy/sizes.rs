//! Which replies have been large of late, so that the next one like it takes a connection of its client's own.
//!
//! A node makes each reply whole before it sends a byte of it, and a shared connection brings replies in their order:
//! large ones pile up at the node, and keep the clients behind them waiting. What cannot be known beforehand is learned
//! from what has come.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    hash::{BuildHasher, Hash, Hasher},
    time::{Duration, Instant},
};

use foldhash::fast::RandomState;

use crate::{
    resp::request::Parser,
    slot::{SLOTS, Slot},
};

/// Bytes from which on a reply is large. One server, too, writes no more than half of that to a client in one turn.
pub const LARGE_REPLY: usize = 128 * 1024;
/// How long a large reply is remembered.
const REMEMBERED_FOR: Duration = Duration::from_secs(60);
/// How many are remembered at most.
const MOST_REMEMBERED: usize = 4096;
/// Arguments of a request that are looked at.
const MOST_ARGS: usize = 64;

/// The commands and keys whose replies have been large, those of one worker.
pub struct LargeReplies {
    /// Whether there are any, and in which slots: one bit for each.
    any: Cell<bool>,
    slots: RefCell<Box<[u64]>>,
    /// By the hash of command and key.
    known: RefCell<HashMap<u64, (Slot, Instant)>>,
    hasher: RandomState,
}

impl Default for LargeReplies {
    fn default() -> LargeReplies {
        LargeReplies {
            any: Cell::new(false),
            slots: RefCell::new(vec![0; SLOTS.div_ceil(64)].into_boxed_slice()),
            known: RefCell::default(),
            hasher: RandomState::default(),
        }
    }
}

impl LargeReplies {
    /// A large reply has come to the request in `frame`, whose keys are in `slot`.
    pub fn note(&self, slot: Slot, frame: &[u8], now: Instant) {
        self.note_length(slot, frame, LARGE_REPLY, now);
    }

    /// A reply of `length` bytes has come to the request in `frame`, whose keys are in `slot`: large or no longer so.
    pub fn note_length(&self, slot: Slot, frame: &[u8], length: usize, now: Instant) {
        let mut parser = Parser::default();
        let Some(request) = parser.find_front(frame, 1 + MOST_ARGS) else { return };
        let mut known = self.known.borrow_mut();
        for key in request.args().skip(1).filter(|arg| Slot::of(arg) == slot) {
            let hash = self.hash(request.name(), key);
            if length < LARGE_REPLY {
                known.remove(&hash);
            } else if known.len() < MOST_REMEMBERED {
                known.insert(hash, (slot, now + REMEMBERED_FOR));
                self.mark(slot);
            }
        }
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
        if self.is_empty() {
            return;
        }
        self.known.borrow_mut().retain(|_, (_, until)| now < *until);
        self.slots.borrow_mut().fill(0);
        self.any.set(false);
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
    use crate::resp::write;

    fn known(large: &LargeReplies, [name, key]: [&str; 2]) -> bool {
        large.knows(Slot::of(key.as_bytes()), name.as_bytes(), key.as_bytes())
    }

    #[test]
    fn a_command_about_a_key_is_large_for_a_while() {
        let (large, now) = (LargeReplies::default(), Instant::now());
        assert!(large.is_empty() && !known(&large, ["GET", "{t}big"]));
        large.note(Slot::of(b"{t}big"), b"*2\r\n$3\r\nGET\r\n$6\r\n{t}big\r\n", now);
        assert!(known(&large, ["get", "{t}big"]), "in any case");
        assert!(!known(&large, ["GET", "{t}small"]), "another key of the slot");
        assert!(!known(&large, ["STRLEN", "{t}big"]), "another command");
        large.expire(now + REMEMBERED_FOR / 2);
        assert!(known(&large, ["GET", "{t}big"]));
        large.expire(now + REMEMBERED_FOR);
        assert!(large.is_empty() && !known(&large, ["GET", "{t}big"]));
        large.note(Slot::of(b"k"), b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n", now);
        large.note_length(Slot::of(b"k"), b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n", 3, now);
        assert!(!known(&large, ["GET", "k"]), "it has become small");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (large, now) = (LargeReplies::default(), Instant::now());
        for number in 0..2 * MOST_REMEMBERED {
            let (key, mut frame) = (format!("k{number}"), Vec::new());
            write::request(&mut frame, &["GET", &key]);
            large.note(Slot::of(key.as_bytes()), &frame, now);
        }
        assert_eq!(large.known.borrow().len(), MOST_REMEMBERED);
    }
}
