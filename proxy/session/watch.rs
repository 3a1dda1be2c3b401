//! WATCH: a connection of the session's own to the slot's owner, from the first WATCH to EXEC, DISCARD, UNWATCH or RESET.
//!
//! Only the watching and the transaction itself go that way; what the client sends in between takes the shared link as
//! ever. Whatever befalls the connection, the transaction then fails as if a key had been touched: a transaction whose
//! watched keys may have changed never runs.

use std::{rc::Rc, time::Duration};

use bytes::Bytes;

use super::{Session, attempts::Attempts, attend::Eof, retry::ASKING};
use crate::{
    cluster::refusal::Refusal,
    commands::{
        plan::{self, Slots},
        table::Spec,
    },
    protocol::{
        resp::{Request, write},
        says,
        slot::Slot,
    },
    upstream::{dedicated::Dedicated, router::Lane},
};

/// Watched keys, all of one slot.
pub(super) struct Watch {
    slot: Slot,
    /// `None` once it was lost: the transaction can only fail.
    connection: Option<Dedicated>,
    /// The slot is on its way to this node.
    asks: bool,
    lane: Rc<Lane>,
}

const UNWATCH: &[u8] = b"*1\r\n$7\r\nUNWATCH\r\n";
const OK: Bytes = Bytes::from_static(b"+OK\r\n");

impl Watch {
    pub(super) fn slot(&self) -> Slot {
        self.slot
    }

    /// Whether the session still is in the lane that it watches in: replies of another would not be what the client
    /// speaks, or not what its user may see.
    pub(super) fn fits(&self, lane: &Rc<Lane>) -> bool {
        self.lane.login() == lane.login()
    }

    /// What has to stand in front of a transaction.
    pub(super) fn prefix(&self) -> &'static [u8] {
        if self.asks { ASKING } else { b"" }
    }

    /// The connection, if it still is what it was.
    pub(super) fn into_connection(self) -> Option<Dedicated> {
        let mut connection = self.connection?;
        connection.is_quiet().then_some(connection)
    }

    /// Watches more keys of the slot.
    async fn add(&mut self, request: &[u8], patience: Duration) -> Bytes {
        let prefix = self.prefix();
        let Some(connection) = &mut self.connection else { return OK };
        let replies = connection.exchange(&[prefix, request].concat(), 1 + usize::from(self.asks), patience).await;
        match replies.ok().and_then(|mut replies| replies.pop()) {
            Some(reply) if Refusal::of(&reply).is_none() => reply,
            _ => {
                self.connection = None;
                OK
            }
        }
    }
}

impl Session {
    /// WATCH; `None` where the client has gone.
    pub(super) async fn watch(&mut self, request: &Request<'_>, spec: Option<&Spec>) -> Option<Bytes> {
        let malformed = || write::error_frame(says::wrong_arity("watch").as_bytes());
        let Some(spec) = spec else { return Some(malformed()) };
        let slot = match plan::slots(request, spec) {
            Slots::One(slot) => slot,
            Slots::Several => return Some(write::error_frame(plan::cross_slot_error(request, spec))),
            _ => return Some(malformed()),
        };
        let patience = self.caller.router.context().limits.request_timeout;
        let watched = match self.watch.take() {
            Some(watch) if watch.slot != slot => {
                let text = says::cross_slot_in_transaction(watch.slot, slot);
                self.watch = Some(watch);
                return Some(write::error_frame(&text));
            }
            Some(mut watch) => {
                let add = async {
                    let reply = watch.add(request.frame(), patience).await;
                    (reply, Some(watch))
                };
                self.attend(add, Eof::Waits).await
            }
            None => {
                let attempts = self.caller.attempts(Some(slot));
                let open = open(attempts, slot, self.caller.lane.clone(), request.frame(), patience);
                self.attend(open, Eof::Waits).await
            }
        };
        match watched {
            Ok((reply, watch)) => {
                self.watch = watch;
                Some(reply)
            }
            Err(reason) => {
                self.ending = Some(reason);
                None
            }
        }
    }

    /// Watches nothing any more.
    pub(super) fn unwatch(&mut self) {
        let Some(mut connection) = self.watch.take().and_then(Watch::into_connection) else { return };
        if !self.caller.is_trusted() {
            // It ends with its connection, and that takes no right.
            return;
        }
        let patience = self.caller.router.context().limits.request_timeout;
        tokio::task::spawn_local(async move {
            if let Ok(replies) = connection.exchange(UNWATCH, 1, patience).await
                && replies.first() == Some(&OK)
            {
                connection.give_back();
            }
        });
    }
}

/// Watches the first keys, wherever their slot is: the reply, and the watch where it is one.
async fn open(
    mut attempts: Attempts,
    slot: Slot,
    lane: Rc<Lane>,
    request: &[u8],
    patience: Duration,
) -> (Bytes, Option<Watch>) {
    loop {
        let mut connection = match attempts.connect().await {
            Ok(connection) => connection,
            Err(text) => return (write::error_frame(&text), None),
        };
        let asks = attempts.asks();
        let frames = [attempts.prefix(), request].concat();
        let reply =
            connection.exchange(&frames, 1 + usize::from(asks), patience).await.map(|mut replies| replies.pop());
        let why = match reply {
            Ok(Some(reply)) => match Refusal::of(&reply) {
                None if reply == OK => return (reply, Some(Watch { slot, connection: Some(connection), asks, lane })),
                // It may have come to watch all the same: the connection is closed.
                None => return (reply, None),
                Some(refusal) => attempts.refused(refusal, reply, connection.node()),
            },
            // Watching changes nothing, so that it may be asked for again.
            Ok(None) => attempts.lost(connection.node(), "it said nothing"),
            Err(why) => attempts.lost(connection.node(), &why.to_string()),
        };
        if let Err(text) = attempts.again(why).await {
            return (write::error_frame(&text), None);
        }
    }
}
