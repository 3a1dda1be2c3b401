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
    doubt::Doubts,
    metrics::NodeError,
    refusal::{self, Later, Refusal},
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
    /// What its client gave up before.
    doubts: Rc<Doubts>,
    /// Where a redirect has sent it, and whether by ASK.
    target: Option<(Arc<Node>, Kind)>,
    trouble: Option<Trouble>,
}

/// Refusals in a row.
struct Trouble {
    since: Instant,
    pause: Duration,
    redirects: u8,
    /// The keys are at both ends of their slot's move: how a node says so.
    torn: Option<Bytes>,
}

impl Errand {
    /// On the way to the owner of `slot`, or to some primary.
    pub(super) fn new(
        router: Rc<Router>,
        lane: Rc<Lane>,
        slot: Option<Slot>,
        favourite: usize,
        doubts: Rc<Doubts>,
    ) -> Errand {
        Errand { router, lane, slot, favourite, doubts, target: None, trouble: None }
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
        let trouble = self.trouble.get_or_insert(Trouble { since: now, pause: FIRST_PAUSE, redirects: 0, torn: None });
        if let Why::Later(Later::TryAgain, said) = &why {
            trouble.torn = Some(said.clone());
        }
        let asked = matches!(&why, Why::Redirected(redirect, _) if redirect.kind == Kind::Ask);
        let torn = trouble.torn.clone().filter(|_| asked);
        // One end sends to the other as long as the keys are not together: that ends with the move, or with the time.
        let redirected = matches!(why, Why::Redirected(..)) && torn.is_none();
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
            return Err(torn.map_or_else(|| why.last_error(), |said| refusal::lossy_text(&said)));
        }
        self.router.tally().retried(why.word());
        let waits = !matches!(why, Why::Redirected(..)) || stranger.is_some() || trouble.redirects > HASTY_REDIRECTS;
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
