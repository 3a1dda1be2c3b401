//! `strict_order`: what one client sends to a node waits for what it has under way at others, so that everybody sees its
//! commands take effect in the order sent, whatever their keys. What goes to one node stays pipelined.

use std::sync::Arc;

use super::Session;
use crate::{
    command::treatment::Local,
    plan::{Plan, Scripting},
    topology::Node,
};

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
            _ => false,
        }
    }
}

impl Session {
    /// Whether a request must wait, where order is strict, until all that is under way has been answered.
    pub(super) fn must_keep_order(&mut self, plan: &Plan) -> bool {
        let place = self.place_of(plan);
        if matches!(place, Target::Here) || place.keeps_order_with(&self.under_way) {
            return false;
        }
        let waits = !self.line.is_settled();
        if !waits {
            self.under_way = place;
        }
        waits
    }

    fn place_of(&self, plan: &Plan) -> Target {
        let topology = self.router.topology();
        let node = |node: Option<Arc<Node>>| node.map_or(Target::Several, Target::Node);
        let slot = |slot| node(topology.owner(slot).cloned());
        let any = || node(self.router.any_primary(self.favourite));
        match plan {
            Plan::One(one) => slot(*one),
            Plan::Scripting(Scripting::Load | Scripting::Flush | Scripting::Exists, _) => Target::Several,
            Plan::Scripting(_, Some(one)) => slot(*one),
            Plan::Any | Plan::Amended(_) | Plan::Scripting(_, None) => any(),
            Plan::Home => node(topology.home().cloned()),
            Plan::Local(Local::Exec) => match &self.transaction {
                Some(transaction) => transaction.slot().map_or_else(any, slot),
                None => Target::Here,
            },
            Plan::Local(Local::Client(_)) => Target::Several,
            Plan::Local(_) | Plan::Refuse(_) => Target::Here,
            Plan::Split(_)
            | Plan::Primaries(_)
            | Plan::Scan(_)
            | Plan::Keys
            | Plan::Blocking(_)
            | Plan::Aside(_)
            | Plan::Unchanged(_)
            | Plan::AskServer => Target::Several,
        }
    }
}
