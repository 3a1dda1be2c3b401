//! What is told of each node.

use std::sync::Arc;

use serde::Serialize;

use super::{Shown, verdict::Trouble};
use crate::{
    cluster::topology::{Node, Topology},
    metrics::{NodeGlance, history::Present, readable::unix_time},
    process::admin::{Pages, vitals::NodeVitals},
};

#[derive(Serialize)]
pub(super) struct NodeStatus {
    node: String,
    id: String,
    /// Where it is dialled, if not where it says.
    reached_at: Option<String>,
    role: &'static str,
    /// Whose replica it is, by label.
    replica_of: Option<String>,
    zone: Option<String>,
    up: bool,
    /// Since when it cannot be reached, in Unix time.
    lost_since: Option<u64>,
    slow: bool,
    slow_since: Option<u64>,
    /// Why it is lost or slow, and whom that hurts.
    why: Option<String>,
    hurts: Option<String>,
    slots: usize,
    slot_ranges: Vec<String>,
    requests: u64,
    errors: u64,
    /// Those that ended in an error for the client.
    failed: u64,
    connections: i64,
    inflight: i64,
    queued_bytes: i64,
    pace: Shown,
    /// What the node tells of itself, some seconds old; nothing where it has not been asked yet.
    #[serde(flatten)]
    vitals: NodeVitals,
}

pub(super) fn node(
    stage: &Pages,
    topology: &Topology,
    (index, (node, role)): (usize, (&Arc<Node>, &'static str)),
    glances: &[NodeGlance],
    present: &Present,
    troubles: &[Trouble],
) -> NodeStatus {
    let glance = glances.iter().find(|glance| glance.state.label == node.label);
    let ranges = topology.ranges(index);
    let lost = topology.lost(&node.id);
    let (pace, slow) = present.node(&node.label);
    let trouble = troubles.iter().find(|trouble| trouble.node == node.label);
    let label_of = |id: &String| topology.node(id).map_or_else(|| id.clone(), |primary| primary.label.to_string());
    NodeStatus {
        node: node.label.to_string(),
        id: node.id.clone(),
        reached_at: (node.reach != node.announced).then(|| node.reach.to_string()),
        role,
        replica_of: node.replicates.as_ref().map(label_of),
        zone: node.zone.clone(),
        up: lost.is_none(),
        lost_since: lost.map(|lost| unix_time(lost.since).as_secs()),
        slow: slow.is_some(),
        slow_since: slow.map(|since| unix_time(since).as_secs()),
        why: trouble.map(|trouble| trouble.why.clone()),
        hurts: trouble.map(|trouble| trouble.hurts.clone()),
        slots: ranges.iter().map(|(first, last)| last - first + 1).sum(),
        slot_ranges: ranges.iter().map(|(first, last)| format!("{first}-{last}")).collect(),
        requests: glance.map_or(0, |glance| glance.requests),
        errors: glance.map_or(0, |glance| glance.errors),
        failed: glance.map_or(0, |glance| glance.failed),
        connections: glance.map_or(0, |glance| glance.connections),
        inflight: glance.map_or(0, |glance| glance.inflight),
        queued_bytes: glance.map_or(0, |glance| glance.queued_bytes),
        pace: Shown::of(pace),
        vitals: stage.vitals.of(&node.id),
    }
}
