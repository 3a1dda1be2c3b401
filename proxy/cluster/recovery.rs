//! What becomes of a request that no node has executed: it goes again, at once or after a pause, or it is given up.
//!
//! The rules stand here once, without I/O. Who asks a node (a link, a session's retry, a request on a connection of its
//! own, a subscription) reports what the node said by [`refused`], and asks [`History::decide`] what to do.

mod backoff;
mod why;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;

pub use self::{backoff::Backoff, why::Why};
use crate::{
    cluster::{
        refusal::{self, Later, Refusal},
        topology::{Hints, Node, RedirectKind},
    },
    metrics::NodeTally,
    protocol::slot::Slot,
};

/// Between the tries of one request.
pub const BETWEEN_TRIES: Backoff = Backoff::new(Duration::from_millis(5), Duration::from_millis(100));
/// Between two attempts to connect to a node.
pub const BETWEEN_DIALS: Backoff = Backoff::new(Duration::from_millis(20), Duration::from_secs(1));

/// Redirects after which the cluster is thought to disagree with itself, so that waiting helps more than running on.
const HASTY_REDIRECTS: u8 = 4;

/// How long a request is tried, and how often it is redirected.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// From the first refusal to giving up.
    pub timeout: Duration,
    /// How many redirects one request may meet.
    pub redirects: u8,
}

/// A request that has come back, as far as it matters for what becomes of it.
#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    /// Why it has come back.
    pub why: &'a Why,
    /// Its slot, where it has one.
    pub slot: Option<Slot>,
    /// How often a node has refused it.
    pub refusals: u8,
    /// A redirect names a node that is not known: discovery will know where it leads, or there is no such node.
    pub is_strange: bool,
    /// The request has waited for requests ahead of it until now: it has its chance, however late it is.
    pub is_first: bool,
    /// Requests of its client that came behind it have run.
    pub is_overtaken: bool,
    /// The request goes again key by key, where that is possible: keys of a slot that is half moved are then found one
    /// by one.
    pub goes_by_key: bool,
}

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// The request goes again now.
    Again,
    /// The request goes again after the next pause of its history.
    Wait,
    /// The request is answered with this error.
    GiveUp(String),
}

/// Refusals in a row: of one request, or of all that one session has to send again.
#[derive(Clone, Debug)]
pub struct History {
    since: Instant,
    backoff: Backoff,
    /// How often redirects were followed.
    redirects: u8,
    /// A slot whose keys are at both ends of its move, and how a node says so: it is asked at one end, then at the other.
    torn: Option<(Slot, Bytes)>,
}

impl History {
    /// The first refusal comes now.
    pub fn begin(now: Instant) -> History {
        History { since: now, backoff: BETWEEN_TRIES, redirects: 0, torn: None }
    }

    /// Takes note of requests that have come back together: one round of redirects, however many they are.
    pub fn note<'a>(&mut self, cases: impl Iterator<Item = Case<'a>> + Clone) {
        let torn = |case: Case<'_>| Some((case.slot?, case.why.try_again()?.clone()));
        if let Some(torn) = cases.clone().filter_map(torn).last() {
            self.torn = Some(torn);
        }
        let redirected = cases.into_iter().any(|case| self.counts(&case));
        self.redirects = self.redirects.saturating_add(u8::from(redirected));
    }

    /// What becomes of a request that has come back now.
    ///
    /// ```
    /// use std::time::{Duration, Instant};
    /// use slotway::cluster::recovery::{Action, Case, History, Limits, Why};
    ///
    /// let limits = Limits { timeout: Duration::from_secs(3), redirects: 16 };
    /// let why = Why::Unsent("ERR proxy: a:7000 refused the connection".into());
    /// let case = Case {
    ///     why: &why,
    ///     slot: None,
    ///     refusals: 1,
    ///     is_strange: false,
    ///     is_first: false,
    ///     is_overtaken: false,
    ///     goes_by_key: false,
    /// };
    /// let start = Instant::now();
    /// let mut history = History::begin(start);
    /// history.note([case].into_iter());
    /// assert_eq!(history.decide(&case, start, &limits), Action::Wait);
    /// // Pauses grow; when the time is over, the client is told the last error.
    /// assert!(history.pause() < history.pause());
    /// let end = history.decide(&case, start + limits.timeout, &limits);
    /// assert_eq!(end, Action::GiveUp("ERR proxy: a:7000 refused the connection".into()));
    /// ```
    pub fn decide(&self, case: &Case<'_>, now: Instant, limits: &Limits) -> Action {
        let is_late = now.saturating_duration_since(self.since) >= limits.timeout && !case.is_first;
        let is_given_up = match case.why {
            Why::Redirected(..) if self.counts(case) => is_late || self.redirects > limits.redirects,
            Why::Hopeless(_) => true,
            // Its primary has not been asked yet.
            Why::ByReplica(_) => false,
            Why::Later(..) | Why::Unsent(_) if case.is_overtaken => true,
            Why::Redirected(..) | Why::Later(..) | Why::NoScript(..) | Why::Unsent(_) | Why::TooLarge(_) => is_late,
        };
        if is_given_up {
            return Action::GiveUp(match &self.torn {
                Some((_, said)) if self.is_torn(case.why) => refusal::lossy_text(said),
                _ => case.why.last_error(),
            });
        }
        let waits = match case.why {
            Why::Redirected(..) => case.is_strange || case.refusals > HASTY_REDIRECTS,
            Why::Later(Later::TryAgain, _) => !case.goes_by_key,
            Why::NoScript(..) | Why::ByReplica(_) => false,
            Why::Later(..) | Why::Unsent(_) | Why::Hopeless(_) | Why::TooLarge(_) => true,
        };
        if waits { Action::Wait } else { Action::Again }
    }

    /// The pause that is due now; the next one is longer.
    pub fn pause(&mut self) -> Duration {
        self.backoff.pause()
    }

    /// Others have their turn now: they have redirects and pauses of their own, and what time is left.
    pub fn turn(&mut self) {
        (self.backoff, self.redirects) = (BETWEEN_TRIES, 0);
    }

    /// Whether it is a redirect of those that are counted. Between the ends of a move requests go to and fro as long as
    /// their keys are not together: that ends with the move, or with the time.
    fn counts(&self, case: &Case<'_>) -> bool {
        matches!(case.why, Why::Redirected(..)) && !case.is_strange && !self.is_torn(case.why)
    }

    fn is_torn(&self, why: &Why) -> bool {
        matches!((why, &self.torn), (Why::Redirected(redirect, _), Some((slot, _)))
            if redirect.kind == RedirectKind::Ask && redirect.slot == *slot)
    }
}

/// A node's word that it did not execute a request: counted, told to discovery where that should look, and as the reason to
/// go again. `error` is the reply that says so.
pub fn refused(refusal: Refusal, error: Bytes, from: &Arc<Node>, tally: &NodeTally, hints: &Hints) -> Why {
    tally.error(refusal.error());
    if let Some(hint) = refusal.hint(from) {
        hints.tell(hint);
    }
    match refusal {
        Refusal::Redirect(redirect) => Why::Redirected(redirect, from.clone()),
        Refusal::Later(later) => Why::Later(later, error),
    }
}

#[cfg(test)]
mod tests;
