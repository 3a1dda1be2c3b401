//! The attempts of a request on connections of its own: which node it goes to, and which is next where one did not execute
//! it. The counterpart of `retry` for what cannot share a connection; `cluster::recovery` has the rules of both.

use std::{rc::Rc, sync::Arc};

use bytes::Bytes;

use super::retry::ASKING;
use crate::{
    cluster::{
        recovery::{self, Action, Case, History, Why},
        refusal::Refusal,
        topology::{Hint, Node, RedirectKind, Route},
    },
    metrics::NodeError,
    protocol::{says, slot::Slot},
    upstream::{
        dedicated::Dedicated,
        dial::DialError,
        doubt::Doubts,
        router::{Lane, Router},
    },
};

/// The attempts of one request.
pub(super) struct Attempts {
    pub(super) router: Rc<Router>,
    lane: Rc<Lane>,
    slot: Option<Slot>,
    affinity: usize,
    /// What its client gave up before.
    doubts: Rc<Doubts>,
    /// Where a redirect has sent it, and whether by ASK.
    target: Option<(Arc<Node>, RedirectKind)>,
    /// Refusals in a row, and how many there were.
    trouble: Option<(History, u8)>,
}

impl Attempts {
    /// On the way to the owner of `slot`, or to some primary.
    pub(super) fn new(
        router: Rc<Router>,
        lane: Rc<Lane>,
        slot: Option<Slot>,
        affinity: usize,
        doubts: Rc<Doubts>,
    ) -> Attempts {
        Attempts { router, lane, slot, affinity, doubts, target: None, trouble: None }
    }

    /// A connection to the node that serves the request now. The error is the client's.
    pub(super) async fn connect(&mut self) -> Result<Dedicated, String> {
        loop {
            self.router.refresh();
            let Some(node) = self.node() else {
                self.router.hint(Hint::Uncovered);
                let why = self.router.topology().down();
                self.again(Why::Unsent(why)).await?;
                continue;
            };
            if !self.doubts.is_empty()
                && let Some(held) = self.doubts.hold(&node, None)
            {
                self.again(if held.busy { Why::Hopeless(held.error) } else { Why::Unsent(held.error) }).await?;
                continue;
            }
            let dialled = self.lane.pool().take(&node).await;
            match dialled {
                Ok(connection) => return Ok(connection.on_behalf_of(&self.doubts)),
                Err(error) => {
                    self.router.hint(error.hint(&node));
                    let text = error.reply();
                    self.again(if self.is_given_up(&error, &node) { Why::Hopeless(text) } else { Why::Unsent(text) })
                        .await?;
                }
            }
        }
    }

    /// Whether waiting is in vain: as for requests that share a connection, where others have waited long enough.
    fn is_given_up(&self, error: &DialError, node: &Node) -> bool {
        let since = self.router.node_tally(node).unreachable_since();
        error.permanent || since.is_some_and(|since| since.elapsed() >= self.router.timeouts().recovery().timeout)
    }

    fn node(&self) -> Option<Arc<Node>> {
        match (&self.target, self.slot) {
            (Some((node, _)), _) => Some(node.clone()),
            (None, slot) => self.router.node_for(slot.map_or(Route::Any, Route::Slot), self.affinity),
        }
    }

    /// What has to stand in front of each request with keys.
    pub(super) fn prefix(&self) -> &'static [u8] {
        if self.asks() { ASKING } else { b"" }
    }

    /// Whether it is where ASK sent it.
    pub(super) fn asks(&self) -> bool {
        matches!(self.target, Some((_, RedirectKind::Ask)))
    }

    /// The slot that it is for.
    pub(super) fn slot(&self) -> Option<Slot> {
        self.slot
    }

    /// A node was content for a while: what comes is a trouble of its own.
    pub(super) fn fares_well(&mut self) {
        self.trouble = None;
    }

    /// A node's word that it did not execute the request, for discovery and the metrics; and as the reason to go again.
    pub(super) fn refused(&self, refusal: Refusal, error: Bytes, from: &Arc<Node>) -> Why {
        let tally = self.router.node_tally(from);
        recovery::refused(refusal, error, from, &tally, self.router.hints())
    }

    /// The connection to `from` was lost; as the reason to go again, where that may be.
    pub(super) fn lost(&self, from: &Arc<Node>, why: &str) -> Why {
        lost(&self.router, from, why)
    }

    /// Makes for the next node, at once or after a pause; the error where it has had its chances.
    pub(super) async fn again(&mut self, why: Why) -> Result<(), String> {
        self.router.refresh();
        let now = self.router.clock().tick();
        let limits = self.router.timeouts().recovery();
        let target = why.redirect().and_then(|(redirect, from)| {
            self.router.topology().target(redirect, from).map(|node| (node, redirect.kind))
        });
        let (history, refusals) = self.trouble.get_or_insert_with(|| (History::begin(now), 0));
        *refusals = refusals.saturating_add(1);
        let case = Case {
            why: &why,
            slot: self.slot,
            refusals: *refusals,
            is_strange: why.redirect().is_some() && target.is_none(),
            is_first: false,
            is_overtaken: false,
            goes_by_key: false,
        };
        history.note([case].into_iter());
        let action = history.decide(&case, now, &limits);
        if let Action::GiveUp(error) = action {
            self.router.tally().gave_up(why.error());
            return Err(error);
        }
        self.router.tally().retried(why.error());
        if action == Action::Wait {
            let pause = history.pause();
            if case.is_strange
                && let Some((_, from)) = why.redirect()
            {
                self.router.hint(Hint::Stranger { from: from.clone() });
            }
            tokio::time::sleep(pause).await;
            self.router.refresh();
        }
        // Discovery may know by now where a redirect leads.
        self.target = match (target, &why) {
            (None, Why::Redirected(redirect, from)) => {
                self.router.topology().target(redirect, from).map(|node| (node, redirect.kind))
            }
            (target, _) => target,
        };
        if matches!(why, Why::Unsent(_)) {
            self.affinity = self.affinity.wrapping_add(1);
        }
        Ok(())
    }
}

/// As [`Attempts::lost`], for what cannot go again.
pub(super) fn lost(router: &Router, from: &Arc<Node>, why: &str) -> Why {
    router.node_tally(from).error(NodeError::Connection);
    router.hint(Hint::Timeout { node: from.id.clone() });
    Why::Unsent(says::connection_lost(&from.label, why))
}

#[cfg(test)]
mod tests;
