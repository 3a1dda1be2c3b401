//! Requests that came back: where they go next, and when to give up.

use std::{
    future::Future,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{
    Session,
    scripts::{awaits_functions, make_ready, scripts_of},
};
use crate::{
    link::{Link, Prelude},
    plan,
    refusal::{self, Later},
    resp::request::Parser,
    router::{Lane, Router},
    slot::Slot,
    ticket::{Bounced, Caching, Route, Ticket, Why},
    topology::{Hint, Kind, Node},
};

/// How long a request that cannot be served now waits before it goes again: doubled each time, up to the last.
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(5);
pub(super) const LAST_PAUSE: Duration = Duration::from_millis(100);
/// Redirects after which the cluster is thought to disagree with itself, so that waiting helps more than running on.
pub(super) const HASTY_REDIRECTS: u8 = 4;
pub(super) const ASKING: &[u8] = b"*1\r\n$6\r\nASKING\r\n";

/// The state of a session that has requests to send again. It ends when the line has settled.
pub(super) struct Retry {
    since: Instant,
    pause: Duration,
    /// How often redirects were followed: requests that had to wait for other reasons before have all of theirs left.
    redirects: u8,
    /// A slot whose keys are at both ends of its move, and how a node says so: it is asked at one end, then at the other.
    torn: Option<(Slot, Bytes)>,
    /// The place up to which requests have been sent again.
    reached: Option<u64>,
    /// Requests that wait for a pause to end, or for their nodes to be given what they run.
    held: Option<Pin<Box<dyn Future<Output = Vec<Bounced>>>>>,
}

impl Session {
    /// Sends again what has bounced, once nothing else is in flight. Pending while anything of it is unanswered: until
    /// then nothing new may be sent.
    pub(super) fn poll_retry(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if let Some(retry) = &mut self.retry
                && let Some(held) = &mut retry.held
            {
                let again = ready!(held.as_mut().poll(cx));
                retry.held = None;
                self.router.refresh();
                again.into_iter().for_each(|bounced| self.send_again(bounced));
            }
            if self.line.is_settled() {
                self.retry = None;
                return Poll::Ready(());
            }
            if !self.line.has_bounced() {
                return if self.retry.is_some() { Poll::Pending } else { Poll::Ready(()) };
            }
            if !self.line.only_bounces_left() {
                return Poll::Pending;
            }
            self.take_up_bounced();
            if self.too_large.is_some() {
                return Poll::Pending;
            }
        }
    }

    /// Nothing but bounced requests is left: answers those that have had their chances, and sends the others again, at
    /// once or after a pause, all in their order.
    fn take_up_bounced(&mut self) {
        let bounced = self.line.take_bounced();
        let bounced = self.take_too_large(bounced);
        if bounced.is_empty() {
            return;
        }
        let now = self.router.clock().now();
        let settings = self.router.settings().clone();
        let begin = || Retry { since: now, pause: FIRST_PAUSE, redirects: 0, torn: None, reached: None, held: None };
        let retry = self.retry.get_or_insert_with(begin);
        let late = now - retry.since >= settings.retry_timeout;
        self.router.refresh();
        let topology = self.router.topology().clone();
        let mut again = Vec::new();
        bounced.iter().for_each(|bounced| note_move(&self.router, bounced));
        let bounced = first_to_go(bounced, settings.strict_order);
        // What had to wait until now has its chance, however late it is.
        let reached = retry.reached;
        let is_first = |bounced: &Bounced| reached.is_none_or(|reached| bounced.ticket.place() > reached);
        if bounced.first().is_some_and(is_first) {
            (retry.pause, retry.redirects) = (FIRST_PAUSE, 0);
        }
        retry.reached = reached.max(bounced.last().map(|bounced| bounced.ticket.place()));
        // Discovery will know where they lead, or there is no such node.
        let strange =
            |why: &Why| matches!(why, Why::Redirected(redirect, from) if topology.target(redirect, from).is_none());
        if let Some(torn) = bounced.iter().rev().find_map(torn) {
            retry.torn = Some(torn);
        }
        let is_torn = |why: &Why| {
            matches!((why, &retry.torn), (Why::Redirected(redirect, _), Some((slot, _)))
                if redirect.kind == Kind::Ask && redirect.slot == *slot)
        };
        // One end sends to the other as long as the keys are not together: that ends with the move, or with the time.
        let redirected = |why: &Why| matches!(why, Why::Redirected(..)) && !strange(why) && !is_torn(why);
        retry.redirects = retry.redirects.saturating_add(u8::from(bounced.iter().any(|one| redirected(&one.why))));
        for bounced in bounced {
            if strange(&bounced.why)
                && let Why::Redirected(_, from) = &bounced.why
            {
                self.router.hint(Hint::Stranger { from: from.clone() });
            }
            let given_up = match &bounced.why {
                why if redirected(why) => late && !is_first(&bounced) || retry.redirects > settings.max_redirects,
                Why::Hopeless(_) => true,
                Why::Later(..) | Why::Unsent(_) if self.line.has_overtaken(&bounced.ticket) => true,
                _ => late && !is_first(&bounced),
            };
            if given_up {
                self.router.tally().gave_up(bounced.why.word());
                let error = match &retry.torn {
                    Some((_, said)) if is_torn(&bounced.why) => refusal::lossy_text(said),
                    _ => bounced.why.last_error(),
                };
                bounced.ticket.fail(&error);
            } else {
                again.push(bounced);
            }
        }
        let waits = |bounced: &Bounced| match &bounced.why {
            why @ Why::Redirected(..) => bounced.ticket.tries > HASTY_REDIRECTS || strange(why),
            // The parts of a command that can be split go again one by one.
            Why::Later(Later::TryAgain, _) => bounced.ticket.tries > 1,
            Why::NoScript(..) => false,
            _ => true,
        };
        let pause = again.iter().any(waits).then_some(retry.pause);
        if let Some(pause) = pause {
            retry.pause = (pause * 2).min(LAST_PAUSE);
        }
        if pause.is_some() || again.iter().any(|bounced| bounced.ticket.needs.scripts) {
            let (router, lane) = (self.router.clone(), self.lane.clone());
            retry.held = Some(Box::pin(make_ready(router, lane, self.favourite, pause, again)));
        } else {
            again.into_iter().for_each(|bounced| self.send_again(bounced));
        }
    }

    /// Puts aside the first request where it is too large for its way; else the others go before one that is.
    fn take_too_large(&mut self, mut bounced: Vec<Bounced>) -> Vec<Bounced> {
        let Some(at) = bounced.iter().position(|bounced| matches!(bounced.why, Why::TooLarge)) else { return bounced };
        let mut later = bounced.split_off(at);
        if bounced.is_empty() {
            self.too_large = Some(later.remove(0));
        }
        later.into_iter().for_each(|Bounced { ticket, request, why }| ticket.bounce(request, why));
        bounced
    }

    /// All that go again at a time go by the same topology.
    fn send_again(&mut self, bounced: Bounced) {
        self.epoch = self.router.epoch();
        self.follow_tracking();
        let Bounced { ticket, request, why } = bounced;
        self.router.tally().retried(why.word());
        match why {
            Why::Redirected(redirect, from) => {
                let Some(node) = self.router.topology().target(&redirect, &from) else {
                    // It is asked again where to.
                    return self.lane.send(&self.router, self.favourite, &request, ticket);
                };
                if ticket.needs.functions
                    && let Some(why) = awaits_functions(&self.router, &node)
                {
                    return ticket.bounce(request, why);
                }
                let link = self.lane.link_to(&self.router, &node);
                match redirect.kind {
                    Kind::Moved => link.send(&request, ticket),
                    Kind::Ask => {
                        // ASKING and CLIENT CACHING cannot both stand right in front of the request.
                        if ticket.caching == Caching::Yes {
                            self.owe_flush("read while its slot moves");
                        }
                        link.send_after(&Prelude::of(ASKING), &request, ticket);
                    }
                }
            }
            Why::Later(Later::TryAgain, _) => self.send_by_key(&request, ticket),
            Why::NoScript(..) => self.lane.send(&self.router, self.favourite, &request, ticket),
            Why::Later(..) | Why::Unsent(_) | Why::Hopeless(_) | Why::TooLarge => {
                if ticket.route == Route::All {
                    return self.send_to_all(&request, ticket);
                }
                if let Some(node) = same_node(&self.router, &ticket) {
                    return self.lane.link_to(&self.router, &node).send(&request, ticket);
                }
                if ticket.route == Route::Any {
                    self.favourite = self.favourite.wrapping_add(1);
                }
                if ticket.needs.functions {
                    return self.send_ready(&[], &request, ticket);
                }
                self.lane.send(&self.router, self.favourite, &request, ticket);
            }
        }
    }

    /// No slot had an owner: what goes to all of them is split among those that there are now.
    fn send_to_all(&mut self, frame: &[u8], mut ticket: Ticket) {
        let topology = self.router.topology().clone();
        let mut parser = Parser::default();
        if let Ok(Some(found)) = parser.find(frame) {
            let request = parser.request(frame, found);
            let spec = topology.commands.find(&request);
            if let Some(fold) = plan::plan(&request, spec, &self.router.settings().policy).fold_of_all() {
                let named = if self.is_trusted() { scripts_of(&self.router, frame) } else { Vec::new() };
                return self.send_to_primaries(&request, spec, fold, &named, ticket);
            }
        }
        // The server, whose own table is known by now, has other ideas of it.
        ticket.route = Route::Any;
        self.lane.send(&self.router, self.favourite, frame, ticket);
    }

    /// A slot is half moved: of a command that can be split, each key is then found where it is.
    fn send_by_key(&self, frame: &[u8], ticket: Ticket) {
        let topology = self.router.topology();
        let mut parser = Parser::default();
        // A transaction is more than one frame, and never split.
        if let Ok(Some(found)) = parser.find(frame)
            && found.used == frame.len()
        {
            let request = parser.request(frame, found);
            let spec = topology.commands.find(&request);
            if let Some(split) = spec.and_then(|spec| plan::by_key(&request, spec)) {
                return self.send_split(&request, spec, &split, ticket);
            }
        }
        self.lane.send(&self.router, self.favourite, frame, ticket);
    }
}

/// Remembers that a slot is on its way.
fn note_move(router: &Router, bounced: &Bounced) {
    let moves = match &bounced.why {
        Why::Redirected(redirect, _) => redirect.kind == Kind::Ask,
        why => matches!(why, Why::Later(Later::TryAgain, _)),
    };
    if moves && let Some(slot) = bounced.ticket.slot() {
        router.moving().note(slot, router.clock().now());
    }
}

/// The slot of a request whose keys are at both ends of its move, and the node's words for that.
fn torn(bounced: &Bounced) -> Option<(Slot, Bytes)> {
    match &bounced.why {
        Why::Later(Later::TryAgain, said) => Some((bounced.ticket.slot()?, said.clone())),
        _ => None,
    }
}

/// Of requests in their order, those that may go again now; the others come back to their line. Behind one with keys at
/// both ends of a slot's move all others wait until it is answered: they could be served where it cannot yet. Where order
/// is `strict`, they go one by one.
fn first_to_go(mut bounced: Vec<Bounced>, strict: bool) -> Vec<Bounced> {
    let split = |bounced: &&Bounced| strict || matches!(bounced.why, Why::Later(Later::TryAgain, _));
    if let Some(last) = bounced.iter().find(split).map(|bounced| bounced.ticket.place()) {
        let others = bounced.split_off(bounced.partition_point(|bounced| bounced.ticket.place() <= last));
        others.into_iter().for_each(|Bounced { ticket, request, why }| ticket.bounce(request, why));
    }
    bounced
}

/// The node that a part of a command about all nodes goes to again: the one that it was for, as long as that owns slots,
/// though perhaps no longer the slot that the part goes by.
fn same_node(router: &Router, ticket: &Ticket) -> Option<Arc<Node>> {
    let node = ticket.node()?;
    router.topology().owners().find(|owner| owner.id == node.id).cloned()
}

/// The link by which a request is to go again.
pub(super) fn link_for(router: &Router, lane: &Lane, favourite: usize, bounced: &Bounced) -> Option<Rc<Link>> {
    router.refresh();
    let target = match &bounced.why {
        Why::Redirected(redirect, from) => router.topology().target(redirect, from),
        _ => same_node(router, &bounced.ticket),
    };
    // As in `send_again`: another primary gets its chance.
    let next = bounced.ticket.route == Route::Any && matches!(bounced.why, Why::Later(..) | Why::Unsent(_));
    match target {
        Some(node) => Some(lane.link_to(router, &node)),
        None => lane.link(router, favourite.wrapping_add(usize::from(next)), bounced.ticket.route),
    }
}
