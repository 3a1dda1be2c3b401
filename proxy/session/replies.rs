//! What becomes of a client's replies before they go into its line, which only orders them.

use std::time::Duration;

use bytes::Bytes;

use super::dispatch::{Dispatcher, Flow};
use crate::{
    cluster::topology::Route,
    commands::table::Spec,
    protocol::resp::write,
    upstream::ticket::{Label, ReplyFilter, Ticket},
};

/// What the client, or an EXEC, wants of its replies.
#[derive(Debug, Default)]
pub(super) struct Replies {
    unwanted: Unwanted,
    /// What is answered while an EXEC asks: its reply is put together of that.
    aside: Option<Vec<u8>>,
}

/// Which replies the client does not want.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Unwanted {
    #[default]
    None,
    Next,
    All,
}

/// What `CLIENT REPLY` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReplyMode {
    /// The client wants all replies.
    On,
    /// The client wants none from now on.
    Off,
    /// The client does not want the reply to its next request.
    Skip,
}

impl Replies {
    pub(super) fn set(&mut self, mode: ReplyMode) {
        self.unwanted = match mode {
            ReplyMode::On => Unwanted::None,
            ReplyMode::Off => Unwanted::All,
            ReplyMode::Skip if self.unwanted == Unwanted::All => Unwanted::All,
            ReplyMode::Skip => Unwanted::Next,
        };
    }

    /// RESET: the client wants replies again. CLIENT REPLY SKIP stays in force for the next request.
    pub(super) fn reset(&mut self) {
        if self.unwanted == Unwanted::All {
            self.unwanted = Unwanted::None;
        }
    }

    /// Whether the reply to the request that comes now is not for the client.
    #[inline]
    pub(super) fn is_next_unwanted(&mut self) -> bool {
        let unwanted = self.unwanted;
        if unwanted == Unwanted::Next {
            self.unwanted = Unwanted::None;
        }
        unwanted != Unwanted::None
    }
}

impl Dispatcher {
    /// Opens the next place in the line, for a request of `request_bytes` that goes to `route`.
    #[inline]
    pub(super) fn open_place(&mut self, label: Label, request_bytes: usize, route: Route) -> Ticket {
        let filter = ReplyFilter {
            is_unwanted: self.replies.is_next_unwanted(),
            strip: self.caller.database.as_ref().and_then(|inside| inside.take_strip()),
        };
        self.caller.line.open_through(filter, Some(label), request_bytes, route)
    }

    /// Answers a request on the spot: in its turn behind those that are still on their way.
    pub(super) fn answer_as(&mut self, label: Label, reply: &[u8]) {
        if let Some(aside) = &mut self.replies.aside {
            return aside.extend_from_slice(reply);
        }
        let strip = self.caller.database.as_ref().and_then(|inside| inside.take_strip());
        let stripped = strip.map(|mut strip| strip.feed(reply));
        let reply = stripped.as_deref().unwrap_or(reply);
        let failed = reply.first() == Some(&b'-');
        self.caller.router.tally().command(label.command, label.class, failed, Duration::ZERO);
        if !self.replies.is_next_unwanted() {
            self.caller.line.answer(reply);
        }
    }

    /// As [`Dispatcher::answer_as`], a request of the command in this row.
    pub(super) fn answer(&mut self, spec: Option<&Spec>, reply: &[u8]) -> Flow {
        self.answer_as(Label::of(spec), reply);
        Flow::Taken
    }

    /// Answers with an error that does not spoil a transaction.
    pub(super) fn answer_error(&mut self, spec: Option<&Spec>, error: &str) -> Flow {
        self.answer(spec, &write::error_frame(error))
    }

    /// What is answered within `answer`, for an EXEC instead of the line. It has been counted before, when it was queued.
    pub(super) fn answer_aside<T>(&mut self, answer: impl FnOnce(&mut Dispatcher) -> T) -> (T, Bytes) {
        self.replies.aside = Some(Vec::new());
        let done = answer(self);
        (done, self.replies.aside.take().unwrap_or_default().into())
    }
}

#[cfg(test)]
mod tests;
