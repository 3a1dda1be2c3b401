//! Large replies, apart from what others share.
//!
//! Of clients of whose replies nothing is known yet, or whose last one was large, only a few requests are at a node at
//! once ([`crate::upstream::router::Admissions`]). A request whose reply is known to be large takes a connection of its client's
//! own, from the first byte to the last: others do not wait behind it, and what the node owes on it ends with the client.

use std::{
    io,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

use super::{
    Session,
    alone::Work,
    attend::Eof,
    caller::Caller,
    scripts,
    streamed::{self, Failure},
    transaction::Transaction,
};
use crate::{
    cluster::topology::Route,
    commands::{
        plan::{Local, Plan, Scripting, Split},
        table::{Spec, treatment::Fold},
    },
    metrics::Disconnect,
    protocol::{resp::Request, slot::Slot},
    upstream::{
        router::{Admission, Router},
        sizes::LARGE_REPLY,
        ticket::{Caching, Standing},
    },
};

/// The session's place among the requests whose replies may be large.
#[derive(Default)]
pub(super) enum Place {
    /// None is asked for.
    #[default]
    None,
    /// Nothing is dispatched until it is free.
    Awaited(Admission),
    /// For the next request; `None`: the wait was too long, and the request goes without.
    Free(Option<OwnedSemaphorePermit>),
}

impl Session {
    /// Whether a request may go to its node now, as far as the size of its reply is concerned; else its place is awaited.
    pub(super) fn is_admitted(&mut self, plan: &Plan) -> bool {
        if self.caller.line.standing() == Standing::Small || matches!(self.place, Place::Free(_)) {
            return true;
        }
        let node = match plan {
            Plan::Scripting(which, None) if which.runs() => {
                self.caller.router.node_for(Route::Any, self.caller.affinity)
            }
            plan => self.slot_of_reply(plan).and_then(|slot| self.caller.router.topology().owner(slot).cloned()),
        };
        let Some(node) = node else { return true };
        let admission = self.caller.router.admissions().at(&node);
        match admission {
            Ok(permit) => {
                self.place = Place::Free(Some(permit));
                true
            }
            Err(admission) => {
                self.place = Place::Awaited(admission);
                false
            }
        }
    }

    /// The slot by which a request goes whose reply may be large.
    fn slot_of_reply(&self, plan: &Plan) -> Option<Slot> {
        match plan {
            Plan::One(slot) => Some(*slot),
            Plan::Split(split) if split.fold == Fold::KeyOrder => split.parts.first().map(|part| part.slot),
            Plan::Scripting(which, slot) if *which != Scripting::Flush => *slot,
            Plan::Local(Local::Exec) => self.transaction.as_ref().and_then(Transaction::slot),
            _ => None,
        }
    }

    /// Whether a place is awaited.
    pub(super) fn awaits_place(&self) -> bool {
        matches!(self.place, Place::Awaited(_))
    }

    /// Ready where no place is awaited, or it is free; an error where the client has gone meanwhile.
    pub(super) fn poll_place(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Disconnect>> {
        if let Place::Awaited(admission) = &mut self.place {
            let permit = ready!(admission.as_mut().poll(cx));
            self.place = Place::Free(permit);
            if let Some(error) = self.is_gone() {
                return Poll::Ready(Err(Disconnect::of(&error)));
            }
        }
        Poll::Ready(Ok(()))
    }

    /// The place for the request that is being dispatched.
    pub(super) fn take_place(&mut self) -> Option<OwnedSemaphorePermit> {
        match std::mem::take(&mut self.place) {
            Place::Free(permit) => permit,
            _ => None,
        }
    }

    /// Whether the client has reset its connection, as far as the kernel knows by now.
    fn is_gone(&self) -> Option<io::Error> {
        self.stream.error()
    }

    /// The work that a request is on a connection of the session's own, where its reply is likely to be large; else its
    /// plan.
    pub(super) fn goes_apart(&self, plan: Plan, request: &Request<'_>, spec: Option<&Spec>) -> Result<Work, Plan> {
        let large = &self.caller.router.context().large;
        let was_large = self.caller.line.standing() == Standing::Large;
        let Some(spec) = spec.filter(|spec| spec.may_reply_at_length(request.len())) else { return Err(plan) };
        if self.caller.lane.is_private() || self.caching() != Caching::AsEver {
            return Err(plan);
        }
        let is_large = |slot: Slot| {
            let mut is_known = was_large || large.may_be_too_large(request.frame());
            spec.visit_keys(request, |index| is_known |= large.knows(slot, request.name(), request.arg(index)));
            is_known
        };
        // The name of a script without keys stands for its key.
        let is_large_code = |slot: Option<Slot>| {
            let name = request.arg(1);
            spec.takes(request.len())
                && match slot {
                    Some(slot) => is_large(slot),
                    None => is_large(Slot::of(name)) || large.knows(Slot::of(name), request.name(), name),
                }
        };
        let are_large = |split: &Split| {
            let is_known = |part: usize, slot| {
                let mut keys = split.keys_of(part).iter().map(|&key| request.arg(key as usize));
                keys.any(|key| large.knows(slot, request.name(), key))
            };
            was_large
                || large.may_be_too_large(request.frame())
                || split.parts.iter().enumerate().any(|(index, part)| is_known(index, part.slot))
        };
        match plan {
            Plan::One(slot) if is_large(slot) => Ok(Work::Stream(Some(slot), None)),
            Plan::Scripting(which, slot) if which.runs() && is_large_code(slot) => Ok(Work::Stream(slot, Some(which))),
            Plan::Split(split) if split.fold == Fold::KeyOrder && are_large(&split) => Ok(Work::StreamParts(split)),
            plan => Err(plan),
        }
    }

    /// Whether EXEC takes one.
    pub(super) fn exec_goes_apart(&self, transaction: &Transaction) -> bool {
        let large = &self.caller.router.context().large;
        let slot = transaction.slot().filter(|_| !self.caller.lane.is_private() && self.caching() == Caching::AsEver);
        slot.is_some_and(|slot| large.is_frugal() || large.knows_transaction(slot))
    }

    /// Carries out a request on a connection of the session's own; it may be `which` runs code.
    pub(super) async fn stream_apart(
        &mut self,
        slot: Option<Slot>,
        which: Option<Scripting>,
        request: &Request<'_>,
        spec: Option<&Spec>,
    ) {
        let place = self.take_place();
        let mut envelope = self.open(request, spec, slot.map_or(Route::Any, Route::Slot));
        if let Some(which) = which {
            scripts::prepare(&self.caller, which, request, &mut envelope);
        }
        let (router, affinity) = (self.caller.router.clone(), self.caller.affinity);
        let attempts = self.caller.attempts(slot);
        let frame = Bytes::copy_from_slice(request.frame());
        let context = router.context();
        let work = async {
            let place = match place {
                Some(place) => Some(place),
                None => place_at(&router, slot, affinity).await,
            };
            let reply = streamed::ask_for(attempts, &frame, Some(&mut envelope)).await?;
            drop(place);
            let length = reply.pass_on(&router, &envelope.ticket).await?;
            let now = router.clock().now();
            context.large.note_length(slot, &frame, length, now);
            if length < LARGE_REPLY {
                context.large.note_small(&frame, now);
            }
            Ok::<(), Failure>(())
        };
        let done = self.attend(work, Eof::IsNoted).await;
        self.end_streamed(envelope.ticket, done);
    }
}

/// Whether the sizes of replies are to be looked at: nothing is known of the client's, or some have been large.
#[inline]
pub(super) fn is_careful(caller: &Caller) -> bool {
    caller.line.standing() != Standing::Small || !caller.router.context().large.is_empty()
}

/// A place at the owner of a slot, or the primary that `affinity` stands for, among the requests whose replies may be
/// large; `None` where that takes too long.
pub(super) async fn place_at(router: &Router, slot: Option<Slot>, affinity: usize) -> Option<OwnedSemaphorePermit> {
    let node = router.node_for(slot.map_or(Route::Any, Route::Slot), affinity)?;
    let admission = router.admissions().at(&node);
    match admission {
        Ok(place) => Some(place),
        Err(admission) => admission.await,
    }
}
