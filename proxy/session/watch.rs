//! WATCH: a connection of the session's own to the slot's owner, from the first WATCH to EXEC, DISCARD, UNWATCH or RESET.
//!
//! Only the watching and the transaction itself go that way; what the client sends in between takes the shared link as
//! ever. Whatever befalls the connection, the transaction then fails as if a key had been touched: a transaction whose
//! watched keys may have changed never runs.

use std::{rc::Rc, time::Duration};

use bytes::Bytes;

use super::{attempts::Attempts, caller::Caller, retry::ASKING};
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

/// Watches nothing any more.
pub(super) fn end(watch: Watch, caller: &Caller) {
    let Some(mut connection) = watch.into_connection() else { return };
    if !caller.is_trusted() {
        // It ends with its connection, and that takes no right.
        return;
    }
    let patience = caller.router.timeouts().request_timeout();
    tokio::task::spawn_local(async move {
        if let Ok(replies) = connection.exchange(UNWATCH, 1, patience).await
            && replies.first() == Some(&OK)
        {
            connection.give_back();
        }
    });
}

/// WATCH: the reply, and what is watched then.
pub(super) async fn watch(
    caller: Caller,
    watched: Option<Watch>,
    request: &Request<'_>,
    spec: Option<&Spec>,
) -> (Bytes, Option<Watch>) {
    let slot = match spec.map(|spec| (spec, plan::slots(request, spec))) {
        Some((_, Slots::One(slot))) => slot,
        Some((spec, Slots::Several)) => {
            return (write::error_frame(plan::cross_slot_error(request, spec)), watched);
        }
        _ => return (write::error_frame(says::wrong_arity("watch")), watched),
    };
    let patience = caller.router.timeouts().request_timeout();
    match watched {
        Some(watch) if watch.slot != slot => {
            (write::error_frame(says::cross_slot_in_transaction(watch.slot, slot)), Some(watch))
        }
        Some(mut watch) => (watch.add(request.frame(), patience).await, Some(watch)),
        None => open(caller.attempts(Some(slot)), slot, caller.lane.clone(), request.frame(), patience).await,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::router::scripted::{Scripted, frame, request, within_a_minute};

    #[tokio::test(start_paused = true)]
    async fn keys_are_watched_on_a_connection_that_is_given_back() {
        within_a_minute(async {
            let mut nodes = Scripted::new(2);
            let (caller, topology) = (Caller::of(&nodes), nodes.router.topology().clone());
            let says = async |watched, words: &str| {
                let words = request(words);
                let spec = topology.commands.find(&words.as_request());
                watch(caller.clone(), watched, &words.as_request(), spec).await
            };
            // `foo` is in slot 12182, of the second node.
            let node = async {
                let mut node = nodes.node(1).await;
                node.hears(&frame("WATCH foo")).await;
                node.says(b"+OK\r\n").await;
                node
            };
            let ((reply, watched), mut node) = tokio::join!(says(None, "WATCH foo"), node);
            assert_eq!(reply, OK);
            let (reply, watched) = says(watched, "WATCH bar").await;
            assert!(reply.starts_with(b"-CROSSSLOT"), "{reply:?}");
            let watched = watched.expect("it still watches foo");
            assert_eq!(watched.slot(), Slot::of(b"foo"));
            end(watched, &caller);
            node.hears(&frame("UNWATCH")).await;
            node.says(b"+OK\r\n").await;
            let again = async {
                node.hears(&frame("WATCH foo")).await;
                node.says(b"+OK\r\n").await;
            };
            assert!(tokio::join!(says(None, "WATCH foo"), again).0.1.is_some(), "by the same connection");
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_whose_connection_is_lost_says_so_at_exec_only() {
        within_a_minute(async {
            let mut nodes = Scripted::new(1);
            let (caller, words) = (Caller::of(&nodes), request("WATCH foo"));
            let topology = nodes.router.topology().clone();
            let spec = topology.commands.find(&words.as_request());
            let node = async {
                let mut node = nodes.node(0).await;
                node.hears(&frame("WATCH foo")).await;
                node.says(b"+OK\r\n").await;
            };
            let words = words.as_request();
            let ((_, watched), ()) = tokio::join!(watch(caller.clone(), None, &words, spec), node);
            let (reply, watched) = watch(caller.clone(), watched, &words, spec).await;
            assert_eq!(reply, OK);
            assert!(watched.expect("a watch").into_connection().is_none());
        })
        .await;
    }
}
