//! A link's unanswered requests with their bytes, written or not.

use std::{
    collections::{HashSet, VecDeque},
    ops::Range,
    time::Instant,
};

use bytes::{Buf, Bytes, BytesMut};

use crate::{commands::scripts::Sha, upstream::ticket::Envelope};

/// The queue's capacity that is kept while nothing is queued.
const KEPT_QUEUE: usize = 64 * 1024;

/// What a link has been given to send, in its order.
#[derive(Default)]
pub(super) struct Queue {
    /// The unanswered requests' bytes.
    pub bytes: BytesMut,
    /// How many of them the socket has taken.
    pub written: usize,
    pub entries: VecDeque<Entry>,
    /// Where the exclusive ones among them end, counted from the first byte that was ever queued.
    fences: VecDeque<u64>,
    /// How many bytes have left the queue.
    gone: u64,
    /// Scripts that a queued request loads which is not wholly written: ahead of whatever is queued next.
    pub loads: HashSet<Sha>,
}

/// One request in the queue.
pub(super) struct Entry {
    /// `None` once its deadline has passed: the place in the queue remains, to swallow the late reply.
    pub envelope: Option<Envelope>,
    /// Bytes in the queue, and how many of them stand before the request itself.
    pub length: usize,
    pub prefix: usize,
    /// Replies to what stands before, and then those that come before the one which answers.
    pub prelude: u32,
    pub swallow: u32,
    /// Nothing behind it is written before it is answered.
    pub exclusive: bool,
    /// The command may change its connection, unless the node does not know it either.
    pub unknown: bool,
    /// The first error among the `swallow` replies: it says why a transaction was aborted.
    pub fault: Option<Box<Bytes>>,
    pub since: Instant,
    /// The link's own PING.
    pub heartbeat: bool,
}

/// A request that is taken out of the queue.
pub(super) struct Taken {
    pub bytes: Bytes,
    pub written: bool,
}

/// What a node may be sent before it has answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    pub bytes: usize,
    pub requests: usize,
}

impl Entry {
    /// Whether it is a request whose answer nobody waits for.
    fn is_abandoned(&self) -> bool {
        self.envelope.as_ref().is_some_and(|envelope| envelope.ticket.is_abandoned())
    }
}

impl Queue {
    /// How many bytes may be written by now: up to the end of the first exclusive request, and as many whole requests as there
    /// is room for, one in any case.
    pub fn writable(&self, room: Room) -> usize {
        let whole = self.fences.front().map_or(self.bytes.len(), |fence| (fence - self.gone) as usize);
        if whole <= room.bytes && self.entries.len() <= room.requests { whole } else { whole.min(self.fitting(room)) }
    }

    #[cold]
    fn fitting(&self, room: Room) -> usize {
        let mut end = 0;
        for (index, entry) in self.entries.iter().take(room.requests.max(1)).enumerate() {
            if index > 0 && end + entry.length > room.bytes {
                break;
            }
            end += entry.length;
        }
        // What has been written stays so, though a node takes less by now.
        end.max(self.written)
    }

    /// Adds an entry, whose bytes have just been added.
    #[inline(always)]
    pub fn push(&mut self, entry: Entry) {
        if entry.exclusive {
            self.fences.push_back(self.gone + self.bytes.len() as u64);
        }
        self.entries.push_back(entry);
    }

    /// Takes out what nobody waits for any more and of which nothing has been written; says how many requests and bytes
    /// that were. What loads a script stays: others rely on it.
    pub fn drop_abandoned(&mut self) -> (usize, usize) {
        let is_dropped = |entry: &Entry| entry.prelude == 0 && entry.is_abandoned();
        let (mut start, mut kept, mut tail) = (0, VecDeque::with_capacity(self.entries.len()), BytesMut::new());
        let mut dropped = (0, 0);
        let first_whole = self.entries.iter().take_while(|entry| {
            let is_begun = start < self.written;
            start += if is_begun { entry.length } else { 0 };
            is_begun
        });
        let begun = first_whole.count();
        if !self.entries.iter().skip(begun).any(is_dropped) {
            return dropped;
        }
        let mut at = start;
        for (index, entry) in std::mem::take(&mut self.entries).into_iter().enumerate() {
            if index >= begun {
                let end = at + entry.length;
                if is_dropped(&entry) {
                    dropped = (dropped.0 + 1, dropped.1 + entry.length);
                    at = end;
                    continue;
                }
                tail.extend_from_slice(&self.bytes[at..end]);
                at = end;
            }
            kept.push_back(entry);
        }
        self.bytes.truncate(start);
        self.bytes.extend_from_slice(&tail);
        let mut end = self.gone;
        let fences = kept.iter().filter_map(|entry| {
            end += entry.length as u64;
            entry.exclusive.then_some(end)
        });
        self.fences = fences.collect();
        self.entries = kept;
        dropped
    }

    /// Takes out everything: each ticket that is still to be used, with its request.
    pub fn take_all(&mut self) -> Vec<(Option<Envelope>, Taken)> {
        let mut bytes = std::mem::take(&mut self.bytes).freeze();
        let mut written = std::mem::take(&mut self.written);
        self.loads.clear();
        self.fences.clear();
        self.gone += bytes.len() as u64;
        let mut all = Vec::with_capacity(self.entries.len());
        for entry in self.entries.drain(..) {
            let mut request = bytes.split_to(entry.length);
            let whole = written >= entry.length;
            written = written.saturating_sub(entry.length);
            request.advance(entry.prefix);
            all.push((entry.envelope, Taken { bytes: request, written: whole }));
        }
        all
    }

    /// Takes the answered front entry out.
    pub fn pop(&mut self) -> Option<Entry> {
        let entry = self.entries.pop_front()?;
        self.gone += entry.length as u64;
        if entry.exclusive {
            self.fences.pop_front();
        }
        if self.entries.is_empty() && self.bytes.capacity() > KEPT_QUEUE {
            self.bytes = BytesMut::new();
        } else {
            self.bytes.advance(entry.length);
        }
        self.written -= entry.length;
        Some(entry)
    }

    /// The bytes that are written and not answered, counted from the first byte that was ever queued.
    pub fn in_flight(&self) -> Range<u64> {
        self.gone..self.gone + self.written as u64
    }

    /// Where the front entry ends, in bytes from the first that was ever queued.
    pub fn front_end(&self) -> u64 {
        self.gone + self.entries.front().map_or(0, |front| front.length as u64)
    }

    /// Whether no reply is missing that anybody waits for.
    pub fn owes_nothing(&self) -> bool {
        self.entries.iter().all(|entry| entry.envelope.is_none() || entry.is_abandoned())
    }

    /// The front entry's request.
    pub fn front_frame(&self) -> &[u8] {
        self.entries.front().map_or(&[], |entry| &self.bytes[entry.prefix..entry.length])
    }

    /// A copy of the front entry's request.
    pub fn front_request(&self) -> Bytes {
        Bytes::copy_from_slice(self.front_frame())
    }
}

#[cfg(test)]
mod tests;
