//! How long an exchange waits: for late replies, for a silent node, and for a client that reads slowly.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use tokio::time::Sleep;

use super::Exchange;
use crate::{link::queue::Entry, metrics::NodeError, says, ticket::OWED_LIMIT, topology::Hint};

/// What a client may be owed before the link stops reading the long reply that it is being sent.
const STREAM_LIMIT: usize = 4 * OWED_LIMIT;
/// How often a waiting link looks whether that client has read on, and how long it waits for one that does not: then
/// it reads on for the sake of the clients behind, and the client's memory is a matter for the worker's limit.
const STREAM_PAUSE: Duration = Duration::from_millis(2);
const STREAM_PATIENCE: Duration = Duration::from_millis(100);

/// A client reads its long reply too slowly.
pub(super) struct Stall {
    owed: usize,
    since: Instant,
    look_again: Pin<Box<Sleep>>,
}

impl Exchange {
    /// Pending while the client of the reply that is being read should catch up.
    pub(super) fn poll_stall(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let owed = match self.link.queue.borrow().entries.front() {
            Some(Entry { ticket: Some(ticket), .. }) if !self.partial.is_empty() || ticket.has_begun() => ticket.owed(),
            _ => 0,
        };
        if owed < STREAM_LIMIT {
            self.stall = None;
            return Poll::Ready(());
        }
        let now = self.link.around.clock.now();
        let stall = self.stall.get_or_insert_with(|| Stall {
            owed,
            since: now,
            look_again: Box::pin(tokio::time::sleep(STREAM_PAUSE)),
        });
        if owed < stall.owed {
            (stall.owed, stall.since) = (owed, now);
        }
        if now - stall.since > STREAM_PATIENCE {
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
        let limits = &self.link.around.limits;
        loop {
            let queue = self.link.queue.borrow();
            if !self.deadline_set || self.deadline_idle && !queue.entries.is_empty() {
                let oldest = queue.entries.iter().find(|entry| entry.ticket.is_some()).or(queue.entries.front());
                let at = match oldest {
                    Some(oldest) => {
                        let answer = oldest.since + limits.request_timeout;
                        let sound = self.last_heard.max(oldest.since) + limits.node_timeout;
                        if oldest.ticket.is_some() { answer.min(sound) } else { sound }
                    }
                    // A node that is gone would be missed by nobody, and what it should tell with it.
                    None if self.link.audience.is_some() => self.last_heard + limits.node_timeout,
                    None => return Poll::Pending,
                };
                self.deadline.as_mut().reset(at.into());
                self.deadline_set = true;
                self.deadline_idle = oldest.is_none();
            }
            drop(queue);
            ready!(self.deadline.as_mut().poll(cx));
            self.deadline_set = false;
            let now = self.link.around.clock.tick();
            self.expire(now);
            if self.deadline_idle && now - self.last_heard >= limits.node_timeout {
                self.link.ping();
                cx.waker().wake_by_ref();
            }
            let queue = self.link.queue.borrow();
            let waits = queue
                .entries
                .front()
                .is_some_and(|entry| queue.written >= entry.length && now - entry.since >= limits.node_timeout);
            if waits && now - self.last_heard >= limits.node_timeout {
                return Poll::Ready(format!("silent for {:?}", limits.node_timeout));
            }
        }
    }

    /// Answers the requests whose time is over. Their entries stay, to swallow the late replies by position.
    fn expire(&self, now: Instant) {
        let limit = self.link.around.limits.request_timeout;
        let mut expired = Vec::new();
        for entry in &mut self.link.queue.borrow_mut().entries {
            if now - entry.since < limit {
                break;
            }
            expired.extend(entry.ticket.take());
        }
        if expired.is_empty() {
            return;
        }
        for ticket in expired {
            self.link.tally.error(NodeError::Timeout);
            ticket.wrote(&self.link.node);
            ticket.fail(&says::no_answer(&self.link.node.label, limit));
        }
        let _ = self.link.around.hints.try_send(Hint::Timeout { node: self.link.node.id.clone() });
    }
}
