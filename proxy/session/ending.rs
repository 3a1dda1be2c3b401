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
};

/// How long a client that is closed for what it costs may take to read why.
const LINGER: Duration = Duration::from_secs(1);

impl Session {
    /// Whether the session is over, and why.
    #[inline]
    pub(super) fn ended(&mut self, drained: bool) -> Option<Disconnect> {
        match self.dispatcher.caller.client.order() {
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
        if self.dispatcher.caller.line.is_broken() {
            return Some(Disconnect::NodeLost);
        }
        if drained && self.is_idle_too_long() {
            return Some(Disconnect::Idle);
        }
        let Busy::Ending(reason) = self.busy else { return None };
        self.dispatcher.caller.line.is_idle().then_some(reason)
    }

    /// Whether the client has been silent for longer than it may. As in Redis, who listens may be silent.
    fn is_idle_too_long(&self) -> bool {
        let limit = self.dispatcher.caller.router.settings().idle_timeout.get();
        let may_be = self.dispatcher.listening.may_be_silent();
        limit.is_some_and(|limit| {
            !may_be && self.dispatcher.caller.line.is_idle() && self.dispatcher.caller.client.idle() >= limit
        })
    }

    /// Tells the client what is wrong with its bytes; behind them nothing can be understood.
    pub(super) fn refuse_protocol(&mut self, wrong: &ProtocolError, bytes: &[u8]) {
        let caller = &self.dispatcher.caller;
        let shown = caller.router.settings().show_keys.then_some(bytes);
        caller.router.clients().complaints.of_protocol(&caller.client, &wrong.text, shown);
        caller.router.tally().protocol_error(wrong.reason);
        let server = caller.router.topology().server.clone();
        let text = match &server.framing.refuses_line_end {
            Some(text) if wrong.reason == ProtocolError::LINE_END => text.as_bytes(),
            _ => &wrong.text,
        };
        let error = write::error_frame([b"ERR Protocol error: ", text].concat());
        self.dispatcher.answer(None, &error);
        self.busy = Busy::Ending(Disconnect::Protocol);
    }

    /// Memory is short, and this client has most of it: tells the log, and the client where that can be.
    pub(super) fn say_why_evicted(&mut self) {
        let Usage { input, requests, queued, output, parked, named, .. } = self.dispatcher.account.held;
        let (owed, unread) = (output + parked, input + requests);
        tracing::info!(peer = %self.dispatcher.caller.client.peer(), owed, unread, queued, named, "max_buffered is used up: the client that holds most is closed");
        if self.dispatcher.caller.line.is_settled() && self.dispatcher.caller.line.nothing_to_write() {
            self.stream.say_at_once(&write::error_frame(says::EVICTED));
        }
    }

    /// Lets the client read why it is closed: bytes of its that are not read would make the kernel take that back.
    pub(super) async fn linger(&mut self) {
        self.dispatcher.caller.line.close();
        self.reader.clear();
        self.dispatcher.multi.take(&self.dispatcher.caller);
        self.dispatcher.listening.drop_subscriptions(&self.dispatcher.caller);
        self.dispatcher.listening.end_tracking(&mut self.dispatcher.caller);
        {
            let about = &mut *self.dispatcher.caller.client.about();
            (about.name, about.library, about.library_version) = Default::default();
        }
        self.dispatcher.account.forget_names();
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
        self.dispatcher.caller.router.clients().account(self.dispatcher.account.held.total(), 0);
        self.dispatcher.listening.drop_subscriptions(&self.dispatcher.caller);
        if !self.dispatcher.caller.line.is_settled() {
            self.dispatcher.caller.router.client_departed();
        }
        self.dispatcher.caller.line.close();
    }
}
