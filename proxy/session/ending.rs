//! How a session ends: why, and what its client may still read.

use std::{io, time::Duration};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Session, busy::Busy};
use crate::{
    clients::{Order, Usage},
    metrics::Disconnect,
    protocol::{
        resp::{request::ProtocolError, write},
        says,
    },
    upstream::ticket::Label,
};

/// How long a client that is closed for what it costs may take to read why.
const LINGER: Duration = Duration::from_secs(1);

impl Session {
    /// Whether the session is over, and why.
    #[inline]
    pub(super) fn ended(&mut self, drained: bool) -> Option<Disconnect> {
        match self.caller.client.order() {
            Order::Leave => return Some(Disconnect::Killed),
            Order::Evict => {
                self.say_why_evicted();
                return Some(Disconnect::OutputLimit);
            }
            // All that the client had sent when it was told to go is answered.
            // What waits for the end of a pause has not begun.
            Order::Drain if (drained || self.busy.is_paused()) && !self.busy.is_ending() => {
                self.busy = Busy::Ending(Disconnect::Drain);
            }
            Order::Drain | Order::Serve => {}
        }
        if self.caller.line.is_broken() {
            return Some(Disconnect::NodeLost);
        }
        if drained && self.is_idle_too_long() {
            return Some(Disconnect::Idle);
        }
        match self.busy {
            Busy::Ending(reason) if self.caller.line.is_idle() => Some(reason),
            _ => None,
        }
    }

    /// Whether the client has been silent for longer than it may. As in Redis, who listens may be silent.
    fn is_idle_too_long(&self) -> bool {
        let limit = self.caller.router.settings().idle_timeout.get();
        let may_be = self.listening.may_be_silent();
        limit.is_some_and(|limit| !may_be && self.caller.line.is_idle() && self.caller.client.idle() >= limit)
    }

    /// Tells the client what is wrong with its bytes; behind them nothing can be understood.
    pub(super) fn refuse_protocol(&mut self, wrong: &ProtocolError) {
        self.caller.router.tally().protocol_error(wrong.reason);
        let server = self.caller.router.topology().server.clone();
        let text = match &server.framing.refuses_line_end {
            Some(text) if wrong.reason == ProtocolError::LINE_END => text.as_bytes(),
            _ => &wrong.text,
        };
        let error = write::error_frame([b"ERR Protocol error: ", text].concat());
        self.caller.line.answer(Label::of(None), &error);
        self.busy = Busy::Ending(Disconnect::Protocol);
    }

    /// Memory is short, and this client has most of it: tells the log, and the client where that can be.
    pub(super) fn say_why_evicted(&mut self) {
        let Usage { input, requests, queued, output, parked, named, .. } = self.account.held;
        let (owed, unread) = (output + parked, input + requests);
        tracing::info!(peer = %self.caller.client.peer(), owed, unread, queued, named, "max_buffered is used up: the client that holds most is closed");
        if self.caller.line.is_settled() && self.caller.line.nothing_to_write() {
            self.stream.say_at_once(&write::error_frame(says::EVICTED));
        }
    }

    /// Lets the client read why it is closed: bytes of its that are not read would make the kernel take that back.
    pub(super) async fn linger(&mut self) {
        self.caller.line.close();
        self.reader.clear();
        self.multi.take(&self.caller);
        self.listening.drop_subscriptions(&self.caller);
        self.listening.end_tracking(&mut self.caller);
        {
            let about = &mut *self.caller.client.about();
            (about.name, about.library, about.library_version) = Default::default();
        }
        self.account.forget_names();
        self.keep_account();
        let mut chunk = [0; 4096];
        let rest = async {
            self.stream.shutdown().await?;
            while self.stream.read(&mut chunk).await? > 0 {}
            io::Result::Ok(())
        };
        let _ = tokio::time::timeout(LINGER, rest).await;
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.caller.router.clients().account(self.account.held.total(), 0);
        self.listening.drop_subscriptions(&self.caller);
        if !self.caller.line.is_settled() {
            self.caller.router.client_departed();
        }
        self.caller.line.close();
    }
}
