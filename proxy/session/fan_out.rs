//! One request that goes to several nodes: its parts, or all of it to each of them.

use std::{rc::Rc, sync::Arc};

use bytes::Bytes;

use super::{ask::ask, barrier::Barrier, called, caller::Caller, everywhere, make_up, scripts, server};
use crate::{
    cluster::topology::{Node, Route},
    commands::{
        merge::Merge,
        plan::{self, Split},
        scripts::Script,
        table::{Spec, busy::WhenBusy, lost::WhenLost, treatment::MergeRule},
    },
    protocol::resp::Request,
    upstream::ticket::{Envelope, ForAll},
};

/// Sends each part of a split request to the owner of its slot.
pub(super) fn send_split(
    caller: &Caller,
    request: &Request<'_>,
    spec: Option<&Spec>,
    split: &Rc<Split>,
    envelope: Envelope,
) {
    let mut frame = Vec::with_capacity(request.frame().len());
    for (index, envelope) in parts_of(caller, request, spec, split, envelope).into_iter().enumerate() {
        send_part(caller, split, index, request, envelope, &mut frame);
    }
}

/// The parts of a split request.
pub(super) fn parts_of(
    caller: &Caller,
    request: &Request<'_>,
    spec: Option<&Spec>,
    split: &Rc<Split>,
    envelope: Envelope,
) -> Vec<Envelope> {
    called::count_parts(&caller.router, spec, split.parts.len().saturating_sub(1));
    let merge = Merge::of_split(split, written(spec), caller.speaks_resp3());
    let parts = envelope.split(merge, split.parts.len());
    if split.rule == MergeRule::KeyOrder
        && spec.is_some_and(Spec::is_readonly)
        && !caller.lane.is_private()
        && let Some(part) = parts.first()
    {
        part.ticket.may_go_again(Bytes::copy_from_slice(request.frame()), split.clone());
    }
    parts
}

/// Sends one part of a request, written into `frame`.
pub(super) fn send_part(
    caller: &Caller,
    split: &Split,
    index: usize,
    request: &Request<'_>,
    mut envelope: Envelope,
    frame: &mut Vec<u8>,
) {
    frame.clear();
    split.encode(index, request, frame);
    envelope.route = Route::Slot(split.parts[index].slot);
    caller.send(frame, envelope);
}

/// Sends a request, and ahead of it the scripts that it names, to every primary that owns slots; and to the other nodes
/// where it concerns them.
pub(super) fn send_to_primaries(
    caller: &Caller,
    barrier: &mut Barrier,
    (request, spec): (&Request<'_>, Option<&Spec>),
    rule: MergeRule,
    named: &[Script],
    mut envelope: Envelope,
) {
    // Part of it may have to go again, and must not meet what was sent behind it: FLUSHALL would delete a later SET.
    barrier.hold_behind(Route::Any);
    let topology = caller.router.topology().clone();
    let slots = topology.first_slots();
    if slots.is_empty() {
        envelope.route = Route::Any;
        let spec = spec.and_then(|spec| topology.commands.keep(spec));
        envelope.wait_for_all(ForAll { spec, rule, scripts: named.to_vec() });
        return caller.send(request.frame(), envelope);
    }
    let mut merge = Merge::new(rule, slots.len(), written(spec), caller.speaks_resp3());
    merge.know(server::facts(caller, rule));
    merge.keep_account(server::account_for(caller, rule, request));
    let asked = plan::all_entries(request, spec, rule);
    let when_lost = spec.map_or(WhenLost::Fails, |spec| scripts::when_lost(spec, request));
    if when_lost.is_spared() {
        merge.spare_lost();
    }
    let make_up = if spec.is_some_and(|spec| spec.when_busy == WhenBusy::Alike) {
        Some(everywhere::make_alike(&caller.router))
    } else {
        (when_lost == WhenLost::MadeUp).then(|| make_up::make_up(caller, request))
    };
    if make_up.is_some() {
        merge.follow();
    }
    let parts = envelope.split_among(merge, topology.owners().cloned().collect(), make_up);
    for (slot, mut envelope) in slots.iter().zip(parts) {
        // By slot, so that where the node fails, the one that takes its place answers.
        envelope.route = Route::Slot(*slot);
        scripts::send_ready(caller, named, asked.as_deref().unwrap_or(request.frame()), envelope);
    }
    tell_others(caller, request, spec);
}

/// Sends a request to the nodes without slots as well, where it concerns them. The client waits for the others alone:
/// one Redis has no replicas that could refuse.
pub(super) fn tell_others(caller: &Caller, request: &Request<'_>, spec: Option<&Spec>) {
    let Some(spec) = spec.filter(|spec| spec.replicas_too) else { return };
    let others: Vec<Arc<Node>> = {
        let topology = caller.router.topology();
        let owns = |node: &Arc<Node>| topology.owners().any(|owner| Arc::ptr_eq(owner, node));
        topology.nodes.iter().filter(|node| !owns(node)).cloned().collect()
    };
    for node in others {
        let (router, link) = (caller.router.clone(), caller.lane.link_to(&caller.router, &node));
        let (name, frame) = (spec.name.clone(), request.frame().to_vec());
        tokio::task::spawn_local(async move {
            let why = match ask(&router, &link, &frame).await {
                Ok(reply) if reply.first() != Some(&b'-') => return,
                // Its text may have a secret in it.
                Ok(_) => "it answered an error".to_owned(),
                Err(why) => why,
            };
            tracing::warn!(node = %node.label, "a replica is not like its primary: {name} failed ({why})");
        });
    }
}

/// Sends a request to any primary, whose reply is amended on its way back.
pub(super) fn send_to_be_amended(caller: &Caller, request: &Request<'_>, rule: MergeRule, envelope: Envelope) {
    let mut merge = Merge::new(rule, 1, None, caller.speaks_resp3());
    merge.know(server::facts(caller, rule));
    for envelope in envelope.split(merge, 1) {
        caller.send(request.frame(), envelope);
    }
}

/// The name of a command that changes something: an error in one part of it has to say what the others did.
fn written(spec: Option<&Spec>) -> Option<&str> {
    spec.filter(|spec| spec.is_write() || spec.when_busy.asks_first()).map(|spec| &*spec.name)
}
