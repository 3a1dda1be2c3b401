//! Requests that came back: where they go next, and when to give up.

use std::{
    future::Future,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
};

use super::{
    barrier::Barrier,
    caller::Caller,
    fan_out,
    listening::Listening,
    scripts::{self, awaits_functions, make_ready},
};
use crate::{
    cluster::{
        recovery::{Action, Case, History, Why},
        refusal::Later,
        topology::{Hint, Node, RedirectKind, Route},
    },
    commands::{plan, table::OwnedSpec},
    protocol::resp::request::Parser,
    upstream::{
        link::{Link, Prelude},
        router::{Lane, Router},
        ticket::{Bounced, Caching, Envelope, ForAll, Line, Ticket},
    },
};

pub(super) const ASKING: &[u8] = b"*1\r\n$6\r\nASKING\r\n";

/// The state of a session that has requests to send again. It ends when the line has settled.
pub(super) struct Retry {
    history: History,
    /// The place up to which requests have been sent again.
    reached: Option<u64>,
    /// Requests that wait for a pause to end, or for their nodes to be given what they run.
    held: Option<Pin<Box<dyn Future<Output = Vec<Bounced>>>>>,
}

/// How requests go again.
pub(super) struct Resend<'a> {
    pub(super) caller: &'a mut Caller,
    pub(super) barrier: &'a mut Barrier,
    pub(super) listening: &'a mut Listening,
}

/// Whether anything has to go again.
pub(super) enum Again {
    /// Nothing, or nothing any more.
    Done,
    /// Some of it is under way, or waits.
    UnderWay,
    /// A request whose reply is too large for its way. Nothing else is in flight.
    TooLarge(Box<Bounced>),
}

impl Resend<'_> {
    /// Sends again what has bounced, once nothing else is in flight. As long as anything of it is unanswered, nothing new may
    /// be sent.
    #[inline]
    pub(super) fn poll(self, retry: &mut Option<Retry>, cx: &mut Context<'_>) -> Again {
        // Nearly every turn ends here.
        if retry.is_none() && !self.caller.line.has_bounced() { Again::Done } else { self.poll_again(retry, cx) }
    }

    fn poll_again(mut self, retry: &mut Option<Retry>, cx: &mut Context<'_>) -> Again {
        self.caller.router.clock().tick();
        loop {
            if let Some(waiting) = retry
                && let Some(held) = &mut waiting.held
            {
                let Poll::Ready(again) = held.as_mut().poll(cx) else { return Again::UnderWay };
                waiting.held = None;
                self.caller.router.refresh();
                again.into_iter().for_each(|bounced| self.send_again(bounced));
            }
            if self.caller.line.is_settled() {
                *retry = None;
                return Again::Done;
            }
            if !self.caller.line.has_bounced() {
                return if retry.is_some() { Again::UnderWay } else { Again::Done };
            }
            if !self.caller.line.only_bounces_left() {
                return Again::UnderWay;
            }
            if let Some(bounced) = self.take_up_bounced(retry) {
                return Again::TooLarge(bounced);
            }
        }
    }

    /// Nothing but bounced requests is left: answers those that have had their chances, and sends the others again, at
    /// once or after a pause, all in their order. Where the first is too large for its way, it is returned alone.
    fn take_up_bounced(&mut self, retry: &mut Option<Retry>) -> Option<Box<Bounced>> {
        let mut bounced = self.caller.line.take_bounced();
        if let Some(first) = take_too_large(&mut bounced) {
            return Some(first);
        }
        if bounced.is_empty() {
            return None;
        }
        let now = self.caller.router.clock().now();
        let (limits, strict) = (self.caller.router.timeouts().recovery(), self.barrier.is_strict());
        let begin = || Retry { history: History::begin(now), reached: None, held: None };
        let retry = retry.get_or_insert_with(begin);
        self.caller.router.refresh();
        bounced.iter().for_each(|bounced| note_move(&self.caller.router, bounced));
        let bounced = first_to_go(bounced, strict);
        // A request that had to wait until now gets a first try, however late it is.
        let reached = retry.reached;
        let is_first = |bounced: &Bounced| reached.is_none_or(|reached| bounced.envelope.ticket.place() > reached);
        if bounced.first().is_some_and(is_first) {
            retry.history.turn();
        }
        retry.reached = reached.max(bounced.last().map(|bounced| bounced.envelope.ticket.place()));
        let (router, line) = (&self.caller.router, &self.caller.line);
        let case = |bounced| Case { is_first: is_first(bounced), ..case(router, line, bounced) };
        let cases: Vec<Case<'_>> = bounced.iter().map(case).collect();
        retry.history.note(cases.iter().copied());
        for case in &cases {
            if case.is_strange
                && let Some((_, from)) = case.why.redirect()
            {
                router.hint(Hint::Stranger { from: from.clone() });
            }
        }
        let actions: Vec<Action> = cases.iter().map(|case| retry.history.decide(case, now, &limits)).collect();
        let (mut again, mut waits) = (Vec::new(), false);
        for (bounced, action) in bounced.into_iter().zip(actions) {
            match action {
                Action::GiveUp(error) => {
                    self.caller.router.tally().gave_up(bounced.why.error());
                    if let Some(owner) =
                        bounced.envelope.slot().and_then(|slot| self.caller.router.topology().owner(slot).cloned())
                    {
                        let span = |node| bounced.envelope.span(node, now, &error);
                        self.caller.router.node_tally(&owner).failed(span);
                    }
                    bounced.envelope.fail(&error);
                    continue;
                }
                Action::Wait => waits = true,
                Action::Again => {}
            }
            again.push(bounced);
        }
        let pause = waits.then(|| retry.history.pause());
        if pause.is_some() || again.iter().any(|bounced| bounced.envelope.traits.needs.scripts) {
            let (router, lane) = (self.caller.router.clone(), self.caller.lane.clone());
            retry.held = Some(Box::pin(make_ready(router, lane, self.caller.affinity, pause, again)));
        } else {
            again.into_iter().for_each(|bounced| self.send_again(bounced));
        }
        None
    }

    /// All that go again at a time go by the same topology.
    fn send_again(&mut self, bounced: Bounced) {
        self.barrier.follow(self.caller.router.epoch());
        self.listening.follow(self.caller);
        let Bounced { mut envelope, request, why } = bounced;
        self.caller.router.tally().retried(why.error());
        match why {
            Why::Redirected(redirect, from) => {
                let Some(node) = self.caller.router.topology().target(&redirect, &from) else {
                    // It is asked again where to.
                    return self.caller.send(&request, envelope);
                };
                if envelope.traits.needs.functions
                    && let Some(why) = awaits_functions(&self.caller.router, &node)
                {
                    return envelope.bounce(request, why);
                }
                let link = self.caller.lane.link_to(&self.caller.router, &node);
                match redirect.kind {
                    RedirectKind::Moved => link.send(&request, envelope),
                    RedirectKind::Ask => {
                        // ASKING and CLIENT CACHING cannot both stand right in front of the request.
                        if envelope.traits.caching == Caching::Yes
                            && let Some(tracking) = &mut self.listening.tracking
                        {
                            tracking.owe_flush("read while its slot moves");
                        }
                        link.send_after(&Prelude::of(ASKING), &request, envelope);
                    }
                }
            }
            Why::Later(Later::TryAgain, _) => send_by_key(self.caller, &request, envelope),
            Why::NoScript(..) | Why::ByReplica(_) => self.caller.send(&request, envelope),
            Why::Later(..) | Why::Unsent(_) | Why::Hopeless(_) | Why::TooLarge(_) => {
                if let Some(plan) = envelope.take_for_all() {
                    return self.send_to_all(&request, &plan, envelope);
                }
                if let Some(node) = same_node(&self.caller.router, &envelope.ticket) {
                    return self.caller.lane.link_to(&self.caller.router, &node).send(&request, envelope);
                }
                if envelope.route == Route::Any {
                    self.caller.affinity = self.caller.affinity.wrapping_add(1);
                }
                if envelope.traits.needs.functions {
                    return scripts::send_ready(self.caller, &[], &request, envelope);
                }
                self.caller.send(&request, envelope);
            }
        }
    }

    /// No slot had an owner: what goes to all of them is split among those that there are now.
    fn send_to_all(&mut self, frame: &[u8], plan: &ForAll, envelope: Envelope) {
        let mut parser = Parser::default();
        let Ok(Some(found)) = parser.find(frame) else { return };
        let (request, spec) = (parser.request(frame, found), plan.spec.as_ref().map(OwnedSpec::as_spec));
        fan_out::send_to_primaries(self.caller, self.barrier, (&request, spec), plan.rule, &plan.scripts, envelope);
    }
}

/// Takes out the first request where it is too large for its way; else the others go before one that is.
fn take_too_large(bounced: &mut Vec<Bounced>) -> Option<Box<Bounced>> {
    let at = bounced.iter().position(|bounced| matches!(bounced.why, Why::TooLarge(_)))?;
    let mut later = bounced.split_off(at);
    let first = bounced.is_empty().then(|| Box::new(later.remove(0)));
    later.into_iter().for_each(Bounced::bounce);
    first
}

/// A slot is half moved: of a command that can be split, each key is then found where it is.
fn send_by_key(caller: &Caller, frame: &[u8], envelope: Envelope) {
    let topology = caller.router.topology();
    let mut parser = Parser::default();
    // A transaction is more than one frame, and never split.
    if let Ok(Some(found)) = parser.find(frame)
        && found.used == frame.len()
    {
        let request = parser.request(frame, found);
        let spec = topology.commands.find(&request);
        if let Some(split) = spec.and_then(|spec| plan::by_key(&request, spec)) {
            return fan_out::send_split(caller, &request, spec, &Rc::new(split), envelope);
        }
    }
    caller.send(frame, envelope);
}

/// Remembers that a slot is on its way.
fn note_move(router: &Router, bounced: &Bounced) {
    let why = &bounced.why;
    let asks = why.redirect().is_some_and(|(redirect, _)| redirect.kind == RedirectKind::Ask);
    if (asks || why.try_again().is_some())
        && let Some(slot) = bounced.envelope.slot()
    {
        router.moving().note(slot, router.clock().now());
    }
}

/// What matters of a request that has bounced.
fn case<'a>(router: &Router, line: &Line, bounced: &'a Bounced) -> Case<'a> {
    let Bounced { envelope, why, .. } = bounced;
    let is_strange = why.redirect().is_some_and(|(redirect, from)| router.topology().target(redirect, from).is_none());
    Case {
        why,
        slot: envelope.slot(),
        refusals: envelope.tries,
        is_strange,
        is_first: true,
        is_overtaken: line.has_overtaken(envelope),
        // The parts of a command that can be split go again one by one.
        goes_by_key: envelope.tries <= 1,
    }
}

/// The requests that may go again now, from the first on; the others go back to their line. Behind one that got TRYAGAIN all
/// others wait until it is answered: they could be served before it. Where order is `strict`, requests go one by one.
fn first_to_go(mut bounced: Vec<Bounced>, strict: bool) -> Vec<Bounced> {
    let split = |bounced: &&Bounced| strict || bounced.why.try_again().is_some();
    if let Some(last) = bounced.iter().find(split).map(|bounced| bounced.envelope.ticket.place()) {
        let others = bounced.split_off(bounced.partition_point(|bounced| bounced.envelope.ticket.place() <= last));
        others.into_iter().for_each(Bounced::bounce);
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
pub(super) fn link_for(router: &Router, lane: &Lane, affinity: usize, bounced: &Bounced) -> Option<Rc<Link>> {
    router.refresh();
    let target = match bounced.why.redirect() {
        Some((redirect, from)) => router.topology().target(redirect, from),
        None => same_node(router, &bounced.envelope.ticket),
    };
    // As in `send_again`: another primary gets its chance.
    let next = bounced.envelope.route == Route::Any && matches!(bounced.why, Why::Later(..) | Why::Unsent(_));
    match target {
        Some(node) => Some(lane.link_to(router, &node)),
        None => lane.link(router, affinity.wrapping_add(usize::from(next)), bounced.envelope.route),
    }
}

#[cfg(test)]
mod tests;
