//! What workers notice: a MOVED patches the map at once, everything brings the next survey forward.

use std::time::Duration;

use tokio::time::Instant;

use super::{Discovery, known_cluster};
use crate::{
    cluster::topology::{Hint, Topology},
    metrics::{Trigger, events::EventKind},
    protocol::names::Name,
};

/// How often it is logged that a node turns connections away.
const COMPLAIN_AGAIN: Duration = Duration::from_secs(10);

impl Discovery {
    /// Takes a hint and all that wait behind it, so that many MOVED make one snapshot.
    pub(super) fn take_hints(&mut self, first: Hint) {
        let now = Instant::now();
        let current = self.current();
        let (mut patched, mut missed): (Option<Topology>, _) = (None, Vec::new());
        let mut waiting = Some(first);
        while let Some(hint) = waiting {
            let trigger = match hint {
                Hint::Moved { redirect, from } => {
                    if let Some(target) = patched.as_ref().unwrap_or(&current).target(&redirect, &from) {
                        self.known_cluster.moved(redirect.slot, target.announced.clone(), now);
                        let next = || current.with_layout(current.nodes.clone(), current.slots.clone());
                        patched.get_or_insert_with(next).move_slot(redirect.slot, &target.announced);
                    } else {
                        self.contacts.witnessed(from.reach.clone());
                    }
                    Trigger::Moved
                }
                Hint::Stranger { from } => {
                    self.contacts.witnessed(from.reach.clone());
                    Trigger::Moved
                }
                Hint::ConnectFailed { node, said } => {
                    self.turned_away(&node, said, now);
                    self.doubt(&node, Trigger::ConnectFailure, now)
                }
                Hint::Timeout { node } => self.doubt(&node, Trigger::Timeout, now),
                Hint::Unwell { node } => {
                    // It may be another by now.
                    if let Some(place) = self.known_cluster.place_of(&node) {
                        self.contacts.witnessed(place);
                    }
                    Trigger::Unwell
                }
                Hint::FunctionsMissed { node } => {
                    missed.push(node);
                    Trigger::Unwell
                }
                Hint::Uncovered => Trigger::Uncovered,
            };
            self.schedule.hurry(trigger, now);
            waiting = self.hints.try_recv().ok();
        }
        if let Some(mut patched) = patched {
            patched.trouble = known_cluster::trouble(&patched);
            self.publish(patched);
        }
        if !missed.is_empty() {
            self.functions.missed(&missed);
            missed.iter().for_each(|id| self.make_alike(id, Duration::ZERO));
        }
    }

    /// A node turns connections away though it may let in the next one: nothing else would tell the operator.
    fn turned_away(&mut self, id: &str, said: Option<String>, now: Instant) {
        let Some(said) = said else { return };
        self.turned_away.retain(|_, since| now - *since < COMPLAIN_AGAIN);
        if !self.turned_away.contains_key(id) {
            let label = self.current().node(id).map_or_else(|| id.into(), |node| node.label.clone());
            let text = Name::NodeRefuses.on(format!("node {label} turns connections away: {said}"));
            self.metrics.events().warn(EventKind::NodeLost, text);
            self.turned_away.insert(id.to_owned(), now);
        }
    }

    fn doubt(&mut self, id: &str, trigger: Trigger, now: Instant) -> Trigger {
        if let Some(address) = self.known_cluster.doubt(id) {
            self.contacts.suspect(address, now);
        }
        trigger
    }
}
