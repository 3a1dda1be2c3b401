//! How long an exchange waits: for late replies, for a silent node, and for a client that reads slowly.

use std::{
    pin::{Pin, pin},
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::{task::unconstrained, time::Sleep};

use super::Exchange;
use crate::{
    cluster::{recovery::Why, topology::Hint},
    metrics::NodeError,
    protocol::says,
    upstream::{
        link::queue::{Entry, Queue},
        ticket::{Envelope, OWED_LIMIT},
    },
};

/// What a client may be owed before the link stops reading the long reply that it is being sent.
const STREAM_LIMIT: usize = 4 * OWED_LIMIT;
/// How often a waiting link looks whether that client has read on.
const STREAM_PAUSE: Duration = Duration::from_millis(2);
/// How long a link waits for a client that does not read on, or that keeps others waiting. Then the link reads on, and the
/// process's limit bounds the memory.
const STREAM_PATIENCE: Duration = Duration::from_millis(100);

/// A client reads its long reply too slowly.
pub(super) struct Stall {
    owed: usize,
    /// When it was looked at last; `None` while it is owed little.
    looked: Option<Instant>,
    /// How long it has been waited for.
    waited: Duration,
    look_again: Pin<Box<Sleep>>,
}

impl Exchange {
    /// Pending while the client of the reply that is being read should catch up.
    pub(super) fn poll_stall(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let queue = self.link.queue.borrow();
        let (owed, alone) = match queue.entries.front() {
            Some(Entry { envelope: Some(Envelope { ticket, .. }), .. })
                if !self.partial.is_empty() || ticket.has_begun() =>
            {
                (ticket.owed(), queue.entries.len() == 1)
            }
            _ => (0, true),
        };
        drop(queue);
        if owed < STREAM_LIMIT {
            if let Some(stall) = &mut self.stall {
                stall.looked = None;
            }
            return Poll::Ready(());
        }
        let now = self.link.context.clock.now();
        let stall = self.stall.get_or_insert_with(|| Stall {
            owed,
            looked: None,
            waited: Duration::ZERO,
            look_again: Box::pin(tokio::time::sleep(STREAM_PAUSE)),
        });
        // One that reads on may take its time, unless others wait behind it.
        stall.waited = match stall.looked.replace(now) {
            _ if alone && owed < stall.owed => Duration::ZERO,
            Some(looked) => stall.waited + (now - looked),
            None => stall.waited,
        };
        stall.owed = owed;
        if stall.waited > STREAM_PATIENCE {
            return Poll::Ready(());
        }
        // A node that is not listened to is not silent.
        self.last_heard = now;
        while stall.look_again.as_mut().poll(cx).is_ready() {
            stall.look_again.set(tokio::time::sleep(STREAM_PAUSE));
        }
        Poll::Pending
    }

    /// Ready when the node has been silent for too long.
    pub(super) fn poll_deadlines(&mut self, cx: &mut Context<'_>) -> Poll<String> {
        let timeouts = self.link.context.timeouts.clone();
        loop {
            let queue = self.link.queue.borrow();
            let is_asked = || queue.entries.back().is_some_and(|entry| entry.envelope.is_some());
            if !self.deadline_set || self.deadline_idle && is_asked() {
                let Some(at) = self.next_deadline(&queue) else { return Poll::Pending };
                self.deadline.as_mut().reset(at.into());
                self.deadline_set = true;
                self.deadline_idle = queue.entries.iter().all(|entry| entry.envelope.is_none());
            }
            drop(queue);
            // Not within the budget of a task: a node that always has more to say would use it up each time.
            ready!(pin!(unconstrained(self.deadline.as_mut())).poll(cx));
            self.deadline_set = false;
            let now = self.link.context.clock.tick();
            self.expire(now);
            let is_empty = self.link.queue.borrow().entries.is_empty();
            if is_empty && self.quiet().is_some_and(|quiet| now - self.last_heard >= quiet) {
                self.link.ping();
                cx.waker().wake_by_ref();
            }
            if let (Some(companion), Some(quiet)) = (&mut self.companion, self.link.context.sizes.accepts.get().quiet())
            {
                companion.stay(now, quiet);
            }
            let queue = self.link.queue.borrow();
            if queue.entries.front().is_some_and(|front| now >= self.sound_until(&queue, front)) {
                return Poll::Ready(format!("silent for {:?}", timeouts.node_timeout()));
            }
        }
    }

    /// When there may be something to do next.
    fn next_deadline(&self, queue: &Queue) -> Option<Instant> {
        let timeouts = &self.link.context.timeouts;
        let Some(front) = queue.entries.front() else {
            return self.quiet().map(|quiet| self.last_heard + quiet);
        };
        // Entries are in the order of their coming, so that no later deadline is earlier. What comes while only given-up
        // requests are there has its own no sooner than `unasked`.
        let oldest = queue.entries.iter().find(|entry| entry.envelope.is_some());
        let unasked = self.link.context.clock.now() + timeouts.request_timeout();
        let answered = oldest.map(|entry| self.answered_until(entry)).unwrap_or(unasked);
        let until = answered.min(self.sound_until(queue, front));
        // By then it may have nothing to do.
        let quiet = self.link.context.sizes.accepts.get().quiet();
        Some(quiet.map_or(until, |quiet| until.min(self.link.context.clock.now() + quiet)))
    }

    /// How long the connection may be idle before it is pinged: on a private one nobody would miss a node that is gone, and a
    /// node with a `timeout` closes idle connections.
    fn quiet(&self) -> Option<Duration> {
        let missed = self.link.audience().is_some().then_some(self.link.context.timeouts.node_timeout());
        missed.into_iter().chain(self.link.context.sizes.accepts.get().quiet()).min()
    }

    /// Until when a request waits for its answer. A deadline is about the node's silence: as long as replies flow, those
    /// ahead of this one in the queue are on their way, and its turn comes. A node that speaks on other connections is
    /// busy; that this connection is sound is believed for `node_timeout`.
    fn answered_until(&self, entry: &Entry) -> Instant {
        let timeouts = &self.link.context.timeouts;
        let (request_timeout, node_timeout) = (timeouts.request_timeout(), timeouts.node_timeout());
        let last = self.last_heard.max(entry.since);
        let believed = last + node_timeout.saturating_sub(request_timeout);
        let heard = self.link.tally.heard().unwrap_or(last).min(believed);
        last.max(heard) + request_timeout
    }

    /// Until when the node may send nothing while it owes the front's reply, or take nothing of the front's bytes.
    fn sound_until(&self, queue: &Queue, front: &Entry) -> Instant {
        let last = if queue.written < front.length { self.last_taken } else { self.last_heard };
        last.max(front.since) + self.link.context.timeouts.node_timeout()
    }

    /// Answers the requests whose time is over. Their entries stay, to swallow the late replies by position.
    fn expire(&self, now: Instant) {
        let limit = self.link.context.timeouts.request_timeout();
        let mut expired = Vec::new();
        {
            let Queue { entries, bytes, .. } = &mut *self.link.queue.borrow_mut();
            let mut start = 0;
            for entry in entries {
                if now < self.answered_until(entry) {
                    break;
                }
                let request = start + entry.prefix..start + entry.length;
                start += entry.length;
                let Some(envelope) = entry.envelope.take() else { continue };
                let goes_again = envelope.is_for_replica() && !envelope.ticket.has_begun();
                expired.push((envelope, goes_again.then(|| Bytes::copy_from_slice(&bytes[request]))));
            }
        }
        if expired.is_empty() {
            return;
        }
        let connection = self.link.connection();
        for (envelope, again) in expired {
            self.link.tally.error(NodeError::Timeout);
            if let Some(request) = again {
                envelope.bounce(request, Why::Unsent(says::no_answer(&self.link.node.label, limit)));
                continue;
            }
            let error = says::no_answer(&self.link.node.label, limit);
            self.link.tally.failed(|node| envelope.span(node, now, &error));
            envelope.wrote(&self.link.node);
            connection.gives_up_one();
            envelope.in_doubt(&connection);
            envelope.fail(&error);
        }
        self.link.context.hints.tell(Hint::Timeout { node: self.link.node.id.clone() });
    }
}
