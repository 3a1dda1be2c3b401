//! Splits the time of a slow request: how long it waited here, and how long at the node.

use std::{
    collections::VecDeque,
    ops::Range,
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;

use super::{Exchange, Queue};
use crate::metrics::slow::Slow;

/// Writes that are remembered: more are unanswered only where a node is far behind.
const MOST_WRITES: usize = 1024;
/// Bytes of a request that are kept.
const LONGEST_FRONT: usize = 512;

/// When the bytes in flight were written.
#[derive(Default)]
pub(super) struct Writes {
    /// Up to which byte, counted from the first that was ever queued, and when.
    done: VecDeque<(u64, Instant)>,
    /// Since when there is something to be written that the socket has not taken.
    waits_since: Option<Instant>,
}

impl Writes {
    /// There is something to be written.
    pub(super) fn begin(&mut self, now: Instant) {
        self.waits_since.get_or_insert(now);
    }

    /// All of it is written, and these bytes are unanswered now. How long the write took.
    pub(super) fn end(&mut self, in_flight: Range<u64>, now: Instant) -> Duration {
        while self.done.front().is_some_and(|(end, _)| *end <= in_flight.start) || self.done.len() >= MOST_WRITES {
            self.done.pop_front();
        }
        self.done.push_back((in_flight.end, now));
        self.waits_since.take().map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// When everything up to this byte was written; `None` where that is not remembered.
    fn time_of(&self, end: u64) -> Option<Instant> {
        self.done.iter().find(|(until, _)| *until >= end).map(|(_, at)| *at)
    }
}

impl Exchange {
    /// The front of the queue has been answered, and took long.
    #[cold]
    pub(super) fn note_slow(&self, queue: &Queue, took: Duration) {
        let Some(envelope) = queue.entries.front().and_then(|front| front.envelope.as_ref()) else { return };
        let written = self.writes.time_of(queue.front_end());
        let there = written.map_or(took, |at| self.link.context.clock.now().saturating_duration_since(at)).min(took);
        let frame = queue.front_frame();
        self.link.tally.slow(Slow {
            id: 0,
            at: SystemTime::now(),
            node: self.link.node.label.clone(),
            slot: envelope.slot(),
            class: envelope.traits.class(),
            frame: Bytes::copy_from_slice(&frame[..frame.len().min(LONGEST_FRONT)]),
            client: envelope.ticket.line().map_or(0, |line| line.client.get()),
            here: took - there,
            there,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_write_takes_from_its_first_try_until_the_socket_has_all() {
        let (mut writes, start) = (Writes::default(), Instant::now());
        writes.begin(start);
        // The socket took a part of it, and takes the rest.
        writes.begin(start + SECOND);
        assert_eq!(writes.end(0..10, start + 3 * SECOND), 3 * SECOND);
        writes.begin(start + 4 * SECOND);
        assert_eq!(writes.end(0..20, start + 4 * SECOND), Duration::ZERO, "at once");
    }

    #[test]
    fn a_request_was_written_when_its_last_byte_was() {
        let (mut writes, start) = (Writes::default(), Instant::now());
        assert_eq!(writes.time_of(1), None);
        writes.end(0..10, start);
        writes.end(0..25, start + SECOND);
        for (end, written) in [(5, Some(0)), (10, Some(0)), (11, Some(1)), (25, Some(1)), (26, None)] {
            assert_eq!(writes.time_of(end), written.map(|seconds| start + seconds * SECOND), "up to {end}");
        }
        // The first ten bytes are answered: when they were written is forgotten.
        writes.end(10..30, start + 2 * SECOND);
        assert_eq!(writes.done.len(), 2);
        assert_eq!(writes.time_of(25), Some(start + SECOND));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (mut writes, start) = (Writes::default(), Instant::now());
        for byte in 1..=2 * MOST_WRITES as u64 {
            writes.end(0..byte, start);
        }
        assert_eq!(writes.done.len(), MOST_WRITES);
    }
}
