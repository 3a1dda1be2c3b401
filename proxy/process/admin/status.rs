//! `/api/status`.

use std::time::Duration;

use serde::Serialize;

use super::AdminView;
use crate::{
    cluster::topology::Topology,
    metrics::{DatabaseGlance, NodeGlance},
    protocol::slot::SLOTS,
};

/// The proxy at a glance. Counts are those of the last publication, up to a second old.
#[derive(Serialize)]
pub(super) struct Status {
    version: &'static str,
    revision: &'static str,
    uptime_seconds: u64,
    ready: bool,
    /// Why it is not ready, or only in part.
    reason: Option<String>,
    epoch: u64,
    slots_assigned: usize,
    /// Those whose owner can be reached, and serves.
    slots_reachable: usize,
    slots: usize,
    /// Why not all slots are served.
    trouble: Option<String>,
    commands: u64,
    clients: ClientsStatus,
    nodes: Vec<NodeStatus>,
    /// The databases of their own that are in use.
    databases: Vec<DatabaseStatus>,
}

#[derive(Serialize)]
struct ClientsStatus {
    connected: i64,
    blocked: i64,
    accepted: u64,
    rejected: u64,
    received_bytes: u64,
    sent_bytes: u64,
    buffered_bytes: usize,
}

#[derive(Serialize)]
struct DatabaseStatus {
    database: String,
    slot: usize,
    /// The owner of the slot.
    node: Option<String>,
    /// Keys of the slot, where they are known.
    keys: Option<u64>,
    clients: i64,
    requests: u64,
}

#[derive(Serialize)]
struct NodeStatus {
    node: String,
    id: String,
    /// Where it is dialled, if not where it says.
    reached_at: Option<String>,
    role: &'static str,
    up: bool,
    slots: usize,
    slot_ranges: Vec<String>,
    requests: u64,
    errors: u64,
    connections: i64,
    inflight: i64,
}

pub(super) fn of(view: &AdminView, readiness: Result<Option<String>, String>, uptime: Duration) -> Status {
    let topology = view.topology.borrow().clone();
    let totals = view.metrics.totals();
    let glances = view.metrics.nodes();
    Status {
        version: env!("CARGO_PKG_VERSION"),
        revision: option_env!("SLOTWAY_REVISION").unwrap_or("unknown"),
        uptime_seconds: uptime.as_secs(),
        ready: readiness.is_ok(),
        reason: readiness.unwrap_or_else(Some),
        epoch: topology.epoch,
        slots_assigned: topology.covered(),
        slots_reachable: topology.reachable(),
        slots: SLOTS,
        trouble: topology.complaint(),
        commands: totals.commands,
        clients: ClientsStatus {
            connected: totals.clients,
            blocked: totals.blocked,
            accepted: totals.connections_received,
            rejected: totals.rejected,
            received_bytes: totals.received_bytes,
            sent_bytes: totals.sent_bytes,
            buffered_bytes: (view.buffered)(),
        },
        databases: databases(view, &topology),
        nodes: (0..topology.nodes.len()).filter_map(|index| node(&topology, index, &glances)).collect(),
    }
}

fn databases(view: &AdminView, topology: &Topology) -> Vec<DatabaseStatus> {
    let all = view.metrics.databases().into_iter().filter(DatabaseGlance::is_in_use);
    let shown = all.map(|glance| DatabaseStatus {
        database: glance.name.to_string(),
        slot: glance.slot.index(),
        node: topology.owner(glance.slot).map(|node| node.label.to_string()),
        keys: glance.keys,
        clients: glance.clients,
        requests: glance.requests,
    });
    shown.collect()
}

fn node(topology: &Topology, index: usize, glances: &[NodeGlance]) -> Option<NodeStatus> {
    let node = topology.nodes.get(index)?;
    let glance = glances.iter().find(|glance| glance.state.label == node.label);
    let ranges = topology.ranges(index);
    Some(NodeStatus {
        node: node.label.to_string(),
        id: node.id.clone(),
        reached_at: (node.reach != node.announced).then(|| node.reach.to_string()),
        role: topology.role_of(index),
        up: topology.lost(&node.id).is_none(),
        slots: ranges.iter().map(|(first, last)| last - first + 1).sum(),
        slot_ranges: ranges.iter().map(|(first, last)| format!("{first}-{last}")).collect(),
        requests: glance.map_or(0, |glance| glance.requests),
        errors: glance.map_or(0, |glance| glance.errors),
        connections: glance.map_or(0, |glance| glance.connections),
        inflight: glance.map_or(0, |glance| glance.inflight),
    })
}
