//! How long a node is trusted to keep a client waiting.

use std::{
    future::pending,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    cluster::topology::{Node, Topology},
    protocol::slot::Slot,
    session::attempts::Attempts,
};

/// Says when waiting on has become pointless: the node is overdue, or no longer the one to ask and silent about it.
pub(super) struct Watchdog {
    news: tokio::sync::watch::Receiver<Arc<Topology>>,
    slot: Option<Slot>,
    /// The node has been the slot's owner.
    was_owner: bool,
    patience: Duration,
    /// When the node should have answered at the latest.
    overdue: Option<Instant>,
    /// When it should have said that the slot has moved.
    unsaid: Option<Instant>,
}

impl Watchdog {
    /// For attempts that may take until `deadline`, and `patience` more.
    pub fn new(attempts: &Attempts, deadline: Option<Instant>, patience: Duration) -> Watchdog {
        let overdue = deadline.and_then(|deadline| deadline.checked_add(patience));
        let mut news = attempts.router.news();
        news.mark_changed();
        Watchdog { news, slot: attempts.slot(), was_owner: !attempts.asks(), patience, overdue, unsaid: None }
    }

    /// The node has been asked to end the wait by then.
    pub fn hurries(&mut self, until: Instant) {
        self.overdue = Some(self.overdue.map_or(until, |overdue| overdue.min(until)));
    }

    /// Why waiting on is pointless, once it is.
    pub async fn alarm(&mut self, node: &Node) -> String {
        loop {
            tokio::select! {
                changed = self.news.changed() => {
                    if changed.is_err() {
                        // Discovery has ended; so will the proxy.
                        return pending().await;
                    }
                    let topology = self.news.borrow_and_update().clone();
                    let Some(slot) = self.slot else { continue };
                    let owns = topology.owner(slot).is_some_and(|owner| owner.id == node.id);
                    self.was_owner |= owns;
                    // A node without the slot tells those who wait within a second.
                    self.unsaid = match self.unsaid {
                        _ if owns || !self.was_owner => None,
                        None => Instant::now().checked_add(self.patience),
                        unsaid => unsaid,
                    };
                }
                () = until(self.overdue) => return "it did not answer in time".to_owned(),
                () = until(self.unsaid) => return "its slot has moved away and it said nothing".to_owned(),
            }
        }
    }
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => pending().await,
    }
}
