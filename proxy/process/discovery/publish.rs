//! Snapshots: when there is a new one, and what is told of it.

use std::{collections::HashSet, sync::Arc};

use tokio::time::Instant;
use tracing::{debug, error, info};

use super::{Discovery, MOST_FORMER, WATCHFUL_INTERVAL};
use crate::{
    cluster::topology::{Role, Topology},
    metrics::{NodeState, Trigger},
};

impl Discovery {
    pub(super) fn current(&self) -> Arc<Topology> {
        self.publisher.borrow().clone()
    }

    /// Publishes what is known comes to; `false` where a node of it is still being searched for the first time.
    pub(super) fn publish_layout(&mut self) -> bool {
        let next = self.known_cluster.layout(&self.current(), Instant::now());
        next.map(|next| self.publish(next)).is_some()
    }

    /// Publishes a snapshot where it differs from the current one. The epoch only grows where requests would go
    /// elsewhere.
    pub(super) fn publish(&mut self, mut next: Topology) {
        let current = self.current();
        note_demoted(&current, &mut next);
        self.meet_primaries(&mut next);
        let changed = !next.same_routes(&current);
        next.epoch = current.epoch + u64::from(changed);
        if next.trouble != current.trouble {
            match &next.trouble {
                Some(why) => info!("not all slots are served: {why}"),
                None => info!("all slots are served"),
            }
        }
        if changed {
            self.tell_changes(&current, &next);
            self.last_change = Some(Instant::now());
            self.look_again(WATCHFUL_INTERVAL, Trigger::Interval, Instant::now());
        }
        if next.accepts != current.accepts {
            debug!("what the nodes take from a connection: {:?}", next.accepts);
        }
        if changed || next.trouble != current.trouble || next.accepts != current.accepts {
            self.publisher.send_replace(Arc::new(next));
        }
        self.show_nodes();
    }

    fn tell_changes(&mut self, current: &Topology, next: &Topology) {
        let primaries = next.primaries().count();
        let replicas = next.nodes.len() - primaries;
        let ids = |topology: &Topology| topology.primaries().map(|node| node.id.clone()).collect::<HashSet<_>>();
        // A slot that moves is no news: a reshard moves thousands.
        if current.nodes.len() != next.nodes.len() || ids(current) != ids(next) {
            info!("layout {}: {primaries} primaries, {replicas} replicas, {} slots", next.epoch, next.covered());
        } else {
            debug!("layout {}: {} slots", next.epoch, next.covered());
        }
        if let (Some(old), Some(new)) = (current.home(), next.home())
            && old.id != new.id
        {
            let why = if next.is_failing(&old.id) { ": the node before it fails" } else { "" };
            info!("all publishing goes through {} now{why}", new.label);
        }
        for gone in current.departed(next) {
            info!("node {} has left ({})", gone.label, gone.id);
            self.former.push(gone.reach.clone());
        }
        self.former.drain(..self.former.len().saturating_sub(MOST_FORMER));
        let clash = next.clash();
        if let Some(clash) = clash.as_deref().filter(|_| clash != self.clash) {
            error!("{clash}");
        }
        self.clash = clash;
    }

    fn show_nodes(&self) {
        let topology = self.current();
        let states = topology.nodes.iter().zip(topology.slot_counts()).map(|(node, slots)| NodeState {
            label: node.label.clone(),
            role: node.role.label(),
            up: self.known_cluster.is_up(&node.id),
            slots,
        });
        self.metrics.topology(topology.epoch, topology.covered(), states.collect());
    }
}

/// Notes which primaries are none any more.
fn note_demoted(current: &Topology, next: &mut Topology) {
    let is_primary = |id: &str| next.node(id).is_some_and(|node| node.role == Role::Primary);
    let mut fallen = current.primaries().map(|node| node.id.as_str()).filter(|id| !is_primary(id)).peekable();
    if fallen.peek().is_some() {
        let mut demoted = (*current.demoted).clone();
        // Nodes that are gone for good are of no interest: whoever asks is told that they are gone.
        demoted.retain(|id, _| next.node(id).is_some());
        demoted.extend(fallen.map(|id| (id.to_owned(), std::time::Instant::now())));
        next.demoted = demoted.into();
    }
}
