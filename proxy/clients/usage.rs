//! What a session holds for its client: what CLIENT LIST shows of it, and what it costs.

use std::time::{Duration, Instant};

/// How long the peak of what waits to be written is counted (`reply-buffer-peak-reset-time`).
pub const PEAK_RESET: Duration = Duration::from_secs(5);

/// Bytes by what they are held for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Requests that have been read and not dispatched.
    pub input: usize,
    /// Room that is reserved for more of them.
    pub input_free: usize,
    /// The arguments of a request that is not whole, or that keeps the session waiting. They are part of what holds them.
    pub arguments: usize,
    /// Requests that wait outside of the input, and what is known of one that is not whole.
    pub requests: usize,
    /// What is queued in a transaction.
    pub queued: usize,
    /// Replies that can be written.
    pub output: usize,
    /// The room that they have.
    pub output_capacity: usize,
    /// The most that there was of them of late.
    pub output_peak: usize,
    /// Until when that counts: [`PEAK_RESET`] after it was first counted.
    pub peak_until: Option<Instant>,
    /// Replies that wait for others ahead of them, and parts of replies.
    pub parked: usize,
    /// How many these are.
    pub waiting: usize,
    /// What the client has named: itself, its user, subscriptions, prefixes of keys that it tracks.
    pub named: usize,
}

impl Usage {
    /// The most that waited to be written of late.
    pub fn peak(&self) -> usize {
        let is_late = self.peak_until.is_some_and(|until| Instant::now() < until);
        if is_late { self.output_peak } else { self.output }
    }

    /// What counts towards `max_buffered`.
    pub fn total(&self) -> usize {
        self.input + self.requests + self.queued + self.output + self.parked + self.named
    }
}
