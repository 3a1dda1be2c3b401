//! What a session is busy with: at any time one thing.
//!
//! ```text
//!             ┌─▶ Settling    until every earlier request is answered ─┐
//!   Serving ──┼─▶ Queueing    until its place is free ─────────────────┼─▶ Serving: the request is dispatched anew
//!      ▲      ├─▶ Paused      until CLIENT PAUSE is over ──────────────┘
//!      └──────┴── Work        one request has the session for itself; nothing is in flight
//!                  Ending     nothing more is dispatched; all is answered and written, then it ends
//! ```
//!
//! The first three are about the request at the front of the input, which waits there, and all that comes behind it. (While a
//! node is asked whether the client's user may run it, the session does nothing else: [`super::Turn::Ask`].) Whatever a session
//! is busy with, some of what is in flight may have to go again ([`super::retry`]); nothing is dispatched then either.

use std::task::{Context, Poll};

use super::pause::PauseWait;
use crate::{
    metrics::Disconnect,
    upstream::{router::Admission, ticket::Line},
};

/// What a session is busy with.
#[derive(Default)]
pub(super) enum Busy {
    /// The session reads and dispatches.
    #[default]
    Serving,
    /// The next request waits until every earlier one has been answered.
    Settling,
    /// The next request waits for a place among those whose replies may be large.
    Queueing(Admission),
    /// The next request waits until clients are no longer paused.
    Paused(Box<PauseWait>),
    /// One request has the session for itself.
    Work,
    /// Nothing more is dispatched: it ends once everything is answered and written, for this reason.
    Ending(Disconnect),
}

impl Busy {
    /// Whether nothing may be dispatched now. `Settling` ends here once the line has settled.
    pub(super) fn holds(&mut self, line: &Line) -> bool {
        if matches!(self, Busy::Settling) && line.is_settled() {
            *self = Busy::Serving;
        }
        !matches!(self, Busy::Serving | Busy::Work)
    }

    /// Whether the session may go on with its input after having stopped.
    pub(super) fn may_go_on(&self, line: &Line) -> bool {
        match self {
            Busy::Serving | Busy::Work => !line.is_full(),
            Busy::Settling => line.is_settled(),
            Busy::Queueing(_) | Busy::Paused(_) | Busy::Ending(_) => false,
        }
    }

    /// Whether clients are paused, and this one waits for the end of that.
    pub(super) fn is_paused(&self) -> bool {
        matches!(self, Busy::Paused(_))
    }

    /// Whether the session is to end.
    pub(super) fn is_ending(&self) -> bool {
        matches!(self, Busy::Ending(_))
    }

    /// Ends a pause that is over or has changed. In the latter case the next request waits again.
    pub(super) fn poll_pause(&mut self, cx: &mut Context<'_>) {
        if let Busy::Paused(wait) = self
            && wait.poll_over(cx).is_ready()
        {
            *self = Busy::Serving;
        }
    }

    /// Ready with `None` where no place is awaited, and with the outcome of the wait once it is over.
    pub(super) fn poll_place(&mut self, cx: &mut Context<'_>) -> Poll<Option<<Admission as Future>::Output>> {
        let Busy::Queueing(admission) = self else { return Poll::Ready(None) };
        let place = std::task::ready!(admission.as_mut().poll(cx));
        *self = Busy::Serving;
        Poll::Ready(Some(place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cluster::topology::Route,
        session::caller::Caller,
        upstream::router::scripted::{Scripted, within_a_minute},
    };

    #[tokio::test(start_paused = true)]
    async fn it_settles_until_the_line_has() {
        within_a_minute(async {
            let caller = Caller::of(&Scripted::new(1));
            let line = &caller.line;
            let mut busy = Busy::Settling;
            let ticket = line.open(None, 1, Route::Any);
            assert!(busy.holds(line) && !busy.may_go_on(line));
            ticket.fill(b"+OK\r\n");
            assert!(busy.may_go_on(line) && matches!(busy, Busy::Settling), "to look changes nothing");
            assert!(!busy.holds(line) && matches!(busy, Busy::Serving));
            let _ticket = line.open(None, 1, Route::Any);
            assert!(!busy.holds(line), "it has done its work");
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_is_waited_for_and_the_end_is_the_end() {
        within_a_minute(async {
            let caller = Caller::of(&Scripted::new(1));
            let mut cx = Context::from_waker(std::task::Waker::noop());
            let mut busy = Busy::Queueing(Box::pin(std::future::pending()));
            assert!(busy.holds(&caller.line) && busy.poll_place(&mut cx).is_pending());
            busy = Busy::Queueing(Box::pin(async { None }));
            assert!(matches!(busy.poll_place(&mut cx), Poll::Ready(Some(None))), "it goes without");
            assert!(!busy.holds(&caller.line));
            assert!(matches!(busy.poll_place(&mut cx), Poll::Ready(None)), "none is awaited");
            busy = Busy::Ending(Disconnect::Quit);
            busy.poll_pause(&mut cx);
            assert!(busy.holds(&caller.line) && busy.is_ending() && !busy.may_go_on(&caller.line));
        })
        .await;
    }
}
