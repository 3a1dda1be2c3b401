//! A request that goes to its node on a connection of its own: which node that is, and which is next where one did not
//! execute it. The counterpart of `retry` for what cannot share a connection; the rules are the same.

use std::{
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::retry::{ASKING, FIRST_PAUSE, HASTY_REDIRECTS, LAST_PAUSE};
use crate::{
    dedicated::Dedicated,
    dial::DialError,
    metrics::NodeError,
    refusal::{Later, Refusal},
    router::{Lane, Router},
    slot::Slot,
    ticket::Why,
    topology::{Hint, Kind, Node},
};

/// The way of one request.
pub(super) struct Errand {
    pub(super) router: Rc<Router>,
    lane: Rc<Lane>,
    slot: Option<Slot>,
    favourite: usize,
    /// Where a redirect has sent it, and whether by ASK.
    target: Option<(Arc<Node>, Kind)>,
    trouble: Option<Trouble>,
}

/// Refusals in a row.
struct Trouble {
    since: Instant,
    pause: Duration,
    redirects: u8,
}

impl Errand {
    /// On the way to the owner of `slot`, or to some primary.
    pub(super) fn new(router: Rc<Router>, lane: Rc<Lane>, slot: Option<Slot>, favourite: usize) -> Errand {
        Errand { router, lane, slot, favourite, target: None, trouble: None }
    }

    /// A connection to the node that serves the request now. The error is the client's.
    pub(super) async fn connect(&mut self) -> Result<Dedicated, String> {
        loop {
            self.router.refresh();
            let Some(node) = self.node() else {
                self.hint(Hint::Uncovered);
                let why = self.router.topology().down();
                self.again(Why::Unsent(why)).await?;
                continue;
            };
            let dialled = self.lane.pool().take(&node, self.lane.login(), &self.router.around().limits.dial).await;
            match dialled {
                Ok(connection) => return Ok(connection),
                Err(error) => {
                    self.hint(error.hint(&node));
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
        error.permanent || since.is_some_and(|since| since.elapsed() >= self.router.settings().retry_timeout)
    }

    fn node(&self) -> Option<Arc<Node>> {
        match (&self.target, self.slot) {
            (Some((node, _)), _) => Some(node.clone()),
            (None, Some(slot)) => self.router.topology().owner(slot).cloned(),
            (None, None) => self.router.any_primary(self.favourite),
        }
    }

    /// What has to stand in front of each request with keys.
    pub(super) fn prefix(&self) -> &'static [u8] {
        if self.asks() { ASKING } else { b"" }
    }

    /// Whether it is where ASK sent it.
    pub(super) fn asks(&self) -> bool {
        matches!(self.target, Some((_, Kind::Ask)))
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
        match refusal {
            Refusal::Redirect(redirect) => {
                tally.error(redirect.kind.into());
                if redirect.kind == Kind::Moved {
                    self.hint(Hint::Moved { redirect: redirect.clone(), from: from.clone() });
                }
                Why::Redirected(redirect, from.clone())
            }
            Refusal::Later(later) => {
                tally.error(later.into());
                if later != Later::TryAgain {
                    self.hint(Hint::Unwell { node: from.id.clone() });
                }
                Why::Later(later, error)
            }
        }
    }

    /// The connection to `from` was lost; as the reason to go again, where that may be.
    pub(super) fn lost(&self, from: &Arc<Node>, why: &str) -> Why {
        lost(&self.router, from, why)
    }

    /// Makes for the next node, at once or after a pause; the error where it has had its chances.
    pub(super) async fn again(&mut self, why: Why) -> Result<(), String> {
        let now = Instant::now();
        let settings = self.router.settings().clone();
        let trouble = self.trouble.get_or_insert(Trouble { since: now, pause: FIRST_PAUSE, redirects: 0 });
        let redirected = matches!(why, Why::Redirected(..));
        trouble.redirects = trouble.redirects.saturating_add(u8::from(redirected));
        let stranger = match &why {
            Why::Redirected(redirect, from) => {
                self.router.refresh();
                self.router.topology().target(redirect, from).is_none().then(|| from.clone())
            }
            _ => None,
        };
        let late = now - trouble.since >= settings.retry_timeout;
        let lost = stranger.is_none() && trouble.redirects > settings.max_redirects;
        if late || lost || matches!(why, Why::Hopeless(_)) {
            self.router.tally().gave_up(why.word());
            return Err(why.last_error());
        }
        self.router.tally().retried(why.word());
        let waits = !redirected || stranger.is_some() || trouble.redirects > HASTY_REDIRECTS;
        let pause = waits.then_some(trouble.pause);
        if let Some(pause) = pause {
            trouble.pause = (pause * 2).min(LAST_PAUSE);
            if let Some(from) = stranger {
                self.hint(Hint::Stranger { from });
            }
            tokio::time::sleep(pause).await;
        }
        self.router.refresh();
        self.target = match &why {
            Why::Redirected(redirect, from) => {
                self.router.topology().target(redirect, from).map(|node| (node, redirect.kind))
            }
            _ => None,
        };
        if matches!(why, Why::Unsent(_)) {
            self.favourite = self.favourite.wrapping_add(1);
        }
        Ok(())
    }

    fn hint(&self, hint: Hint) {
        // One that does not fit is no loss: discovery has plenty to do.
        let _ = self.router.around().hints.try_send(hint);
    }
}

/// As [`Errand::lost`], for what cannot go again.
pub(super) fn lost(router: &Router, from: &Arc<Node>, why: &str) -> Why {
    router.node_tally(from).error(NodeError::Connection);
    router.hint(Hint::Timeout { node: from.id.clone() });
    Why::Unsent(format!("ERR proxy: connection to {} lost ({why})", from.label))
}
