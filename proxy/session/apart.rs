//! Large replies, apart from what others share.
//!
//! Where nothing is known of the size of a client's replies, or its last one was large, it needs one of the few places that each
//! node has for such requests ([`crate::upstream::router::Admissions`]). A request whose reply is known to be large takes a
//! connection of its client's own: others do not wait behind it, and the node stops sending when the client leaves.

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

use super::{
    caller::Caller,
    streamed::{self, ErrorReply},
    transaction::Transaction,
    work::Work,
};
use crate::{
    cluster::topology::Route,
    commands::{
        plan::{Local, Plan, Scripting, Split},
        table::{Spec, treatment::MergeRule},
    },
    protocol::{resp::Request, slot::Slot},
    upstream::{
        router::{Admission, Router},
        sizes::LARGE_REPLY,
        ticket::{Caching, Envelope, ReplySize},
    },
};

/// The place that a request needs whose reply may be large: `Ok` where it is free, `Err` with the wait for it, `None` where the
/// request needs none. `queued` is the slot of what an EXEC carries out.
pub(super) fn place_for(
    caller: &Caller,
    plan: &Plan,
    queued: Option<Slot>,
) -> Option<Result<OwnedSemaphorePermit, Admission>> {
    let node = match plan {
        Plan::Scripting(which, None) if which.runs() => caller.router.node_for(Route::Any, caller.affinity),
        plan => slot_of_reply(plan, queued).and_then(|slot| caller.router.topology().owner(slot).cloned()),
    };
    node.map(|node| caller.router.admissions().at(&node))
}

/// The slot by which a request goes whose reply may be large.
fn slot_of_reply(plan: &Plan, queued: Option<Slot>) -> Option<Slot> {
    match plan {
        Plan::One(slot) => Some(*slot),
        Plan::Split(split) if split.rule == MergeRule::KeyOrder => split.parts.first().map(|part| part.slot),
        Plan::Scripting(which, slot) if *which != Scripting::Flush => *slot,
        Plan::Local(Local::Exec) => queued,
        // They are small, or their sizes are looked at on their way.
        Plan::Any | Plan::PubSub | Plan::Split(_) | Plan::LongSplit(_) | Plan::Primaries(_) | Plan::AnyRewritten(_) => {
            None
        }
        Plan::Scan(_) | Plan::Keys | Plan::Local(_) | Plan::Blocking(_) | Plan::Scripting(..) | Plan::OutOfBand(_) => {
            None
        }
        Plan::Unchanged(_) | Plan::InTurn(_) | Plan::CountsKeys | Plan::Refuse(_) | Plan::AskServer => None,
    }
}

/// The work that a request is on a connection of the session's own, where its reply is likely to be large; nothing where it
/// goes as it would.
pub(super) fn goes_apart(
    caller: &Caller,
    caching: Caching,
    plan: &Plan,
    request: &Request<'_>,
    spec: Option<&Spec>,
) -> Option<Work> {
    let spec = spec.filter(|spec| may_go_apart(caller, caching, request, spec))?;
    let large = caller.router.large();
    let is_large = |slot: Slot| {
        let mut is_known = is_large_anyway(caller, request);
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
    if let Plan::One(slot) = plan {
        return is_large(*slot).then_some(Work::Stream(Some(*slot), None));
    }
    if let Plan::Scripting(which, slot) = plan {
        return (which.runs() && is_large_code(*slot)).then_some(Work::Stream(*slot, Some(*which)));
    }
    let Plan::Split(split) = plan else { return None };
    are_parts_large(caller, split, request).then(|| Work::StreamParts(split.clone()))
}

/// Whether a split request goes that way.
pub(super) fn split_goes_apart(
    caller: &Caller,
    caching: Caching,
    split: &Split,
    request: &Request<'_>,
    spec: Option<&Spec>,
) -> bool {
    spec.is_some_and(|spec| may_go_apart(caller, caching, request, spec)) && are_parts_large(caller, split, request)
}

fn may_go_apart(caller: &Caller, caching: Caching, request: &Request<'_>, spec: &Spec) -> bool {
    spec.may_reply_at_length(request.len()) && !caller.lane.is_private() && caching == Caching::AsEver
}

/// Whether a reply is taken for large whatever its keys are.
fn is_large_anyway(caller: &Caller, request: &Request<'_>) -> bool {
    caller.line.reply_size() == ReplySize::Large || caller.router.large().may_be_too_large(request.frame())
}

fn are_parts_large(caller: &Caller, split: &Split, request: &Request<'_>) -> bool {
    let large = caller.router.large();
    let is_known = |part: usize, slot| {
        let mut keys = split.keys_of(part).iter().map(|&key| request.arg(key as usize));
        keys.any(|key| large.knows(slot, request.name(), key))
    };
    split.rule == MergeRule::KeyOrder
        && (is_large_anyway(caller, request)
            || split.parts.iter().enumerate().any(|(index, part)| is_known(index, part.slot)))
}

/// Whether EXEC takes one.
pub(super) fn exec_goes_apart(caller: &Caller, caching: Caching, transaction: &Transaction) -> bool {
    let large = caller.router.large();
    let slot = transaction.slot().filter(|_| !caller.lane.is_private() && caching == Caching::AsEver);
    slot.is_some_and(|slot| large.is_frugal() || large.knows_transaction(slot))
}

/// Whether the sizes of replies are to be looked at: nothing is known of the client's, or some have been large.
#[inline]
pub(super) fn is_careful(caller: &Caller) -> bool {
    caller.line.reply_size() != ReplySize::Small || !caller.router.large().is_empty()
}

/// Gives the client the reply to a request on a connection of its own.
pub(super) async fn pass_on(
    caller: Caller,
    slot: Option<Slot>,
    place: Option<OwnedSemaphorePermit>,
    request: &Request<'_>,
    envelope: &mut Envelope,
) -> Result<(), ErrorReply> {
    let router = &caller.router;
    let frame = Bytes::copy_from_slice(request.frame());
    let place = match place {
        Some(place) => Some(place),
        None => place_at(router, slot, caller.affinity).await,
    };
    let reply = streamed::ask_for(caller.attempts(slot), &frame, Some(&mut *envelope)).await?;
    drop(place);
    let sender = reply.sender().cloned();
    let length = reply.pass_on(router, &envelope.ticket).await?;
    if let Some(node) = sender.filter(|_| length >= LARGE_REPLY) {
        router.node_tally(&node).large_reply(&frame, length);
    }
    let now = router.clock().now();
    router.large().note_length(slot, &frame, length, now);
    if length < LARGE_REPLY {
        router.large().note_small(&frame, now);
    }
    Ok(())
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
