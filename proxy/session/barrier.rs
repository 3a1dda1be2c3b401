//! What keeps one client's requests in their order: which of them have to wait until those ahead are answered.
//!
//! - Requests are never in flight under two topologies: what is on its way to an old owner could be overtaken.
//! - What may have to go again (its node may lack its script or some of its keys, or one of all nodes may not serve its
//!   part) must not be overtaken by what goes to the same place.
//! - With `strict_order`, what a client sends to a node waits for what it has under way at others, so that everybody sees
//!   its commands take effect in the order sent, whatever their keys. What goes to one node stays pipelined.

use std::sync::Arc;

use super::{caller::Caller, transaction::Transaction};
use crate::{
    cluster::topology::{Node, Route},
    commands::{
        plan::{Plan, Scripting},
        table::{Spec, treatment::Local},
    },
    upstream::router::Router,
};

/// The barriers of one session.
#[derive(Debug)]
pub(super) struct Barrier {
    /// The topology under which requests are in flight.
    epoch: u64,
    /// Where something is under way that may have to go again.
    may_go_again: Option<Route>,
    /// Everybody is to see its client's commands take effect in their order.
    is_strict: bool,
    /// Where all that is in flight goes, where order is strict.
    under_way: Target,
}

/// Where requests take effect.
#[derive(Clone, Debug)]
pub(super) enum Target {
    /// At the proxy alone, and for their client alone.
    Here,
    /// At one node.
    Node(Arc<Node>),
    /// At several, or for other clients, or at a node that is not known yet.
    Several,
}

impl Target {
    /// Whether what goes there keeps its order with what is under way `there`.
    fn keeps_order_with(&self, there: &Target) -> bool {
        match (self, there) {
            (Target::Node(one), Target::Node(other)) => one.id == other.id,
            (Target::Here | Target::Several | Target::Node(_), _) => false,
        }
    }
}

impl Barrier {
    /// The barriers of a session that has nothing in flight, under this topology.
    pub(super) fn new(epoch: u64, is_strict: bool) -> Barrier {
        Barrier { epoch, may_go_again: None, is_strict, under_way: Target::Here }
    }

    /// Order is strict from now on, or not. Nothing is in flight.
    pub(super) fn be_strict(&mut self, is_strict: bool) {
        self.is_strict = is_strict;
        self.under_way = Target::Here;
    }

    /// Whether order is strict.
    #[inline]
    pub(super) fn is_strict(&self) -> bool {
        self.is_strict
    }

    /// Whether requests in flight go by this topology.
    pub(super) fn is_at(&self, epoch: u64) -> bool {
        self.epoch == epoch
    }

    /// Requests go by this topology from now on. Nothing is in flight by another.
    pub(super) fn follow(&mut self, epoch: u64) {
        self.epoch = epoch;
    }

    /// A request that may have to go again is sent to `route`: later requests for that route wait until the line has settled.
    pub(super) fn hold_behind(&mut self, route: Route) {
        self.may_go_again = Some(match self.may_go_again {
            Some(other) if other != route => Route::Any,
            _ => route,
        });
    }

    /// Raises the barrier behind a request with several keys in a slot that is moving: a node may answer TRYAGAIN until all keys
    /// are at one node, and nothing must overtake the request meanwhile.
    pub(super) fn guard(&mut self, router: &Router, spec: Option<&Spec>, route: Route) {
        if let Route::Slot(slot) = route
            && spec.is_none_or(|spec| spec.only_key().is_none())
            && router.moving().has(slot, router.clock().now())
        {
            self.hold_behind(route);
        }
    }

    /// Whether there is something that may have to go again.
    #[inline]
    pub(super) fn is_up(&self) -> bool {
        self.may_go_again.is_some()
    }

    /// Whether a request must wait, since it could overtake what may have to go again.
    pub(super) fn holds(&mut self, plan: &Plan, is_settled: bool) -> bool {
        let Some(may_go_again) = self.may_go_again else { return false };
        if is_settled {
            self.may_go_again = None;
            return false;
        }
        match plan {
            Plan::One(slot) | Plan::Scripting(_, Some(slot)) => {
                may_go_again == Route::Any || may_go_again == Route::Slot(*slot)
            }
            Plan::Any | Plan::PubSub | Plan::Scripting(_, None) | Plan::Split(_) | Plan::LongSplit(_) => true,
            Plan::Primaries(_) | Plan::AnyRewritten(_) | Plan::Scan(_) | Plan::Keys | Plan::OutOfBand(_) => true,
            Plan::Local(_) | Plan::Blocking(_) | Plan::Unchanged(_) | Plan::InTurn(_) | Plan::CountsKeys => true,
            Plan::Refuse(_) | Plan::AskServer => true,
        }
    }

    /// Whether a request for `target` must wait, where order is strict.
    pub(super) fn holds_strictly(&mut self, target: Target, is_settled: bool) -> bool {
        if matches!(target, Target::Here) || target.keeps_order_with(&self.under_way) {
            return false;
        }
        if is_settled {
            self.under_way = target;
        }
        !is_settled
    }
}

/// Where a request takes effect; `queued` is what an EXEC carries out.
pub(super) fn target_of(caller: &Caller, queued: Option<&Transaction>, plan: &Plan) -> Target {
    let at = |route| caller.router.node_for(route, caller.affinity).map_or(Target::Several, Target::Node);
    let slot = |slot| at(Route::Slot(slot));
    let any = || at(Route::Any);
    match plan {
        Plan::One(one) => slot(*one),
        Plan::Scripting(Scripting::Load | Scripting::Flush | Scripting::Exists, _) => Target::Several,
        Plan::Scripting(_, Some(one)) => slot(*one),
        Plan::Any | Plan::AnyRewritten(_) | Plan::Scripting(_, None) => any(),
        Plan::PubSub => at(Route::PubSub),
        Plan::Local(Local::Exec) => match queued {
            Some(transaction) => transaction.slot().map_or_else(any, slot),
            None => Target::Here,
        },
        Plan::Local(Local::Client(_)) => Target::Several,
        Plan::Local(_) | Plan::Refuse(_) => Target::Here,
        Plan::Split(_)
        | Plan::LongSplit(_)
        | Plan::Primaries(_)
        | Plan::Scan(_)
        | Plan::Keys
        | Plan::Blocking(_)
        | Plan::OutOfBand(_)
        | Plan::Unchanged(_)
        | Plan::InTurn(_)
        | Plan::CountsKeys
        | Plan::AskServer => Target::Several,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::slot::Slot;

    fn at(id: &str) -> Target {
        Target::Node(Node::primary(id, id))
    }

    #[test]
    fn what_goes_to_the_same_place_waits_for_what_may_go_again() {
        let (foo, bar) = (Slot::of(b"foo"), Slot::of(b"bar"));
        let one = |slot| Plan::One(slot);
        let mut barrier = Barrier::new(1, true);
        barrier.hold_behind(Route::Slot(foo));
        assert!(barrier.holds(&one(foo), false) && !barrier.holds(&one(bar), false));
        assert!(barrier.holds(&Plan::Any, false) && barrier.holds(&Plan::Keys, false));
        // Of two places, all wait.
        barrier.hold_behind(Route::Slot(bar));
        assert!(barrier.holds(&one(Slot::of(b"other")), false));
        assert!(!barrier.holds(&one(foo), true) && !barrier.is_up());
    }

    #[test]
    fn strict_order_waits_between_nodes_and_not_at_one() {
        let mut barrier = Barrier::new(1, true);
        assert!(!barrier.holds_strictly(at("a"), true));
        assert!(!barrier.holds_strictly(at("a"), false), "one node's are pipelined");
        assert!(!barrier.holds_strictly(Target::Here, false), "nobody else sees it");
        assert!(barrier.holds_strictly(at("b"), false) && barrier.holds_strictly(Target::Several, false));
        assert!(!barrier.holds_strictly(Target::Several, true));
        assert!(barrier.holds_strictly(Target::Several, false), "among several nothing is known");
    }
}
