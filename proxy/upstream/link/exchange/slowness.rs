//! Where the time of slow requests went: how long they waited here, and then at the node.

use std::{
    collections::VecDeque,
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;

use super::{Exchange, Queue};
use crate::metrics::slow::Slow;

/// Writes that are remembered: more are unanswered only where a node is far behind.
const MOST_WRITES: usize = 1024;
/// Bytes of a request that are kept.
const LONGEST_FRONT: usize = 512;

/// When what was written.
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

    /// It is written. How long that took.
    pub(super) fn end(&mut self, queue: &Queue, now: Instant) -> Duration {
        let end = queue.reached();
        let start = end - queue.written as u64;
        while self.done.front().is_some_and(|(end, _)| *end <= start) || self.done.len() >= MOST_WRITES {
            self.done.pop_front();
        }
        self.done.push_back((end, now));
        self.waits_since.take().map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// When everything up to this byte was written.
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
