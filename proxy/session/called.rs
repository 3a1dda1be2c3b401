//! What of a client's commands counts as called, where that is not as simple as one reply for one call: for INFO
//! commandstats and LATENCY HISTOGRAM ([`crate::commands::merge::account`]).

use super::transaction::Transaction;
use crate::{
    commands::table::{Spec, sender::Sender},
    protocol::{resp::Request, says},
    upstream::{router::Router, ticket::OnSuccess},
};

/// A request is refused with this error.
pub(super) fn count_rejected(router: &Router, spec: Option<&Spec>, error: &[u8]) {
    if let Some(spec) = spec.filter(|_| says::is_rejection(error)) {
        router.tally().rejected(spec.metric);
    }
}

/// A request goes to nodes. Where these have to refuse it for its number of arguments, and do not count for clients, it
/// is counted here.
pub(super) fn count_malformed(router: &Router, request: &Request<'_>, spec: Option<&Spec>) {
    if let Some(spec) = spec.filter(|spec| !spec.takes(request.len()) && is_counted_here(spec)) {
        router.tally().rejected(spec.metric);
    }
}

/// A split request costs nodes so many calls beyond its one.
pub(super) fn count_parts(router: &Router, spec: Option<&Spec>, beyond: usize) {
    if let Some(spec) = spec {
        router.tally().surplus(spec.metric, beyond);
    }
}

/// A transaction ends without being carried out: what was queued is not called.
pub(super) fn count_not_called(router: &Router, transaction: &Transaction) {
    let topology = router.topology();
    transaction.in_order(|request| {
        if let Some(spec) = topology.commands.find(request).filter(|spec| is_counted_here(spec)) {
            router.tally().surplus(spec.metric, 1);
        }
    });
}

/// CONFIG RESETSTAT: has it all counted anew from now on, once a node has done so.
pub(super) fn counts_anew(router: &Router, spec: Option<&Spec>) -> Option<OnSuccess> {
    spec.filter(|spec| spec.traits.counts_anew)?;
    let metrics = router.tally().metrics().clone();
    let now = metrics.snapshot_of_asked();
    Some(OnSuccess::new(move || metrics.reset_asked(now)))
}

fn is_counted_here(spec: &Spec) -> bool {
    matches!(spec.sender, Sender::Both | Sender::Proxy)
}
