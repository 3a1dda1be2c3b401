//! A client that waits in a blocking command, as others see it, and what ends its wait beside the reply.

use std::{future::poll_fn, rc::Rc, sync::Arc, task::Poll};

use bytes::Bytes;

use crate::{
    clients::{Client, Order, Unblock},
    metrics::ClientTally,
    protocol::{resp::write, says},
};

/// A client is blocked as long as this exists.
pub(in crate::session) struct Blocked {
    client: Arc<Client>,
    tally: Rc<ClientTally>,
}

impl Blocked {
    pub(in crate::session) fn new(client: Arc<Client>, tally: Rc<ClientTally>) -> Blocked {
        client.set_waiting(true);
        tally.blocked(1);
        Blocked { client, tally }
    }

    /// As [`Blocked::new`], for a client that CLIENT PAUSE holds: CLIENT UNBLOCK does not end that.
    pub(in crate::session) fn by_pause(client: Arc<Client>, tally: Rc<ClientTally>) -> Blocked {
        let blocked = Blocked::new(client, tally);
        blocked.client.set_paused();
        blocked
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        self.client.set_waiting(false);
        self.tally.blocked(-1);
    }
}

/// What ends a wait from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::session) enum Interrupt {
    /// CLIENT UNBLOCK.
    Unblock(Unblock),
    /// The proxy is to end.
    Drain,
}

/// Ready when the client's wait is to end.
pub(in crate::session) async fn told(client: &Client) -> Interrupt {
    poll_fn(|_| match client.unblocked() {
        Some(how) => Poll::Ready(Interrupt::Unblock(how)),
        // The session's own waker is woken by orders, so that this is looked at again.
        None if client.order() == Order::Drain => Poll::Ready(Interrupt::Drain),
        None => Poll::Pending,
    })
    .await
}

impl Interrupt {
    /// The reply of a command that has not been executed; none where the client is to go.
    pub(in crate::session) fn reply(self, resp3: bool) -> Option<Bytes> {
        match self {
            Interrupt::Unblock(Unblock::Timeout) if resp3 => Some(Bytes::from_static(b"_\r\n")),
            Interrupt::Unblock(Unblock::Timeout) => Some(Bytes::from_static(b"*-1\r\n")),
            Interrupt::Unblock(Unblock::Error) => Some(write::error_frame(says::UNBLOCKED)),
            Interrupt::Drain => None,
        }
    }
}
