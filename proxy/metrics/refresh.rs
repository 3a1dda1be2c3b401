//! What discovery knows and does.

use std::{
    fmt::Write,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use metrics::{Counter, Gauge};

use super::{
    NodeGlance, Registry, histogram, history::Counted, labels::labels, lock, names, node, readable::unix_time, text,
};

labels! {
    /// Why the cluster is asked for its layout.
    Trigger {
        /// The proxy starts, or has found no node yet.
        Start = "start",
        /// The interval is over.
        Interval = "interval",
        /// A node said MOVED.
        Moved = "moved",
        /// A node could not be connected to.
        ConnectFailure = "connect_failure",
        /// A node was silent, or its connection lost.
        Timeout = "timeout",
        /// A node said CLUSTERDOWN, LOADING, MASTERDOWN or READONLY.
        Unwell = "unwell",
        /// A request's slot had no owner.
        Uncovered = "uncovered",
        /// Somebody asked for it.
        Asked = "asked",
    }
}

/// A node as discovery knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeState {
    /// `host:port` by which people know it.
    pub label: Arc<str>,
    /// `host:port` as the cluster announces it.
    pub address: Arc<str>,
    /// `primary`, `replica`, or `empty`: no slots, and nobody's replica.
    pub role: &'static str,
    /// Whether it can be reached.
    pub up: bool,
    /// How many slots it owns.
    pub slots: usize,
}

/// Slots by what becomes of requests for them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slots {
    /// They have an owner.
    pub assigned: usize,
    /// Their owner can be reached, and serves.
    pub reachable: usize,
}

pub(super) struct RefreshSeries {
    outcomes: [[Counter; 2]; Trigger::ALL.len()],
    duration: Arc<histogram::SharedHistogram>,
    functions_given: Counter,
    last_success: Gauge,
    epoch: Gauge,
    slots_assigned: Gauge,
    slots_reachable: Gauge,
    ready_gauge: Gauge,
    pub(super) ready: AtomicBool,
    known: Mutex<KnownNodes>,
}

#[derive(Default)]
struct KnownNodes {
    last_success: f64,
    epoch: u64,
    slots: Slots,
    /// The series keep a node's numbers shown from when it is known, not from when it is used.
    nodes: Vec<(NodeState, Arc<node::NodeSeries>)>,
}

impl RefreshSeries {
    pub(super) fn new(registry: &Registry) -> RefreshSeries {
        let outcomes = |trigger: Trigger| {
            ["ok", "error"].map(|outcome| {
                registry.counter(&names::REFRESHES, &[("trigger", trigger.label()), ("outcome", outcome)])
            })
        };
        RefreshSeries {
            outcomes: Trigger::ALL.map(outcomes),
            duration: registry.histogram(&names::REFRESH_DURATION, &[]),
            functions_given: registry.counter(&names::FUNCTIONS_GIVEN, &[]),
            last_success: registry.gauge(&names::LAST_SUCCESS, &[]),
            epoch: registry.gauge(&names::EPOCH, &[]),
            slots_assigned: registry.gauge(&names::SLOTS_ASSIGNED, &[]),
            slots_reachable: registry.gauge(&names::SLOTS_REACHABLE, &[]),
            ready_gauge: registry.gauge(&names::READY, &[]),
            ready: AtomicBool::new(false),
            known: Mutex::default(),
        }
    }

    pub(super) fn refreshed(&self, trigger: Trigger, well: bool, took: Duration) {
        self.outcomes[trigger as usize][usize::from(!well)].increment(1);
        self.duration.observe(took);
        if well {
            lock(&self.known).last_success = unix_time(SystemTime::now()).as_secs_f64();
        }
    }

    pub(super) fn functions_given(&self, count: u64) {
        self.functions_given.increment(count);
    }

    pub(super) fn topology(&self, epoch: u64, slots: Slots, nodes: Vec<NodeState>, series: Vec<Arc<node::NodeSeries>>) {
        let mut known = lock(&self.known);
        (known.epoch, known.slots) = (epoch, slots);
        known.nodes = nodes.into_iter().zip(series).collect();
    }

    pub(super) fn nodes(&self) -> Vec<NodeGlance> {
        let glance = |(state, series): &(NodeState, Arc<node::NodeSeries>)| NodeGlance {
            state: state.clone(),
            requests: series.all_requests.load(Relaxed),
            errors: series.all_errors(),
            failed: series.totals.failed.sum(),
            connections: series.totals.connections.now(),
            inflight: series.totals.inflight.now(),
            queued_bytes: series.totals.queued_bytes.now(),
        };
        lock(&self.known).nodes.iter().map(glance).collect()
    }

    /// What was counted of each node.
    pub(super) fn counted(&self) -> Vec<(Arc<str>, Counted)> {
        lock(&self.known).nodes.iter().map(|(state, series)| (state.label.clone(), series.counted())).collect()
    }

    /// Has the series show the present values.
    pub(super) fn show(&self) {
        let known = lock(&self.known);
        self.last_success.set(known.last_success);
        self.epoch.set(known.epoch as f64);
        self.slots_assigned.set(known.slots.assigned as f64);
        self.slots_reachable.set(known.slots.reachable as f64);
        self.ready_gauge.set(u8::from(self.ready.load(Relaxed)));
    }

    /// The series that go with a node's role or with the node, at once.
    pub(super) fn write_nodes(&self, text: &mut String) {
        let known = lock(&self.known);
        let mut write = |family, value: fn(&NodeState) -> usize| {
            text::head(text, family);
            for (state, _) in &known.nodes {
                let node = text::escaped(&state.label);
                let _ = writeln!(text, "{}{{node=\"{node}\",role=\"{}\"}} {}", family.name, state.role, value(state));
            }
            text.push('\n');
        };
        write(&names::NODE_UP, |state| usize::from(state.up));
        write(&names::NODE_SLOTS, |state| state.slots);
        text::head(text, &names::NODE_INFO);
        for (state, _) in &known.nodes {
            let (node, address) = (text::escaped(&state.label), text::escaped(&state.address));
            let name = names::NODE_INFO.name;
            let _ = writeln!(text, "{name}{{node=\"{node}\",role=\"{}\",address=\"{address}\"}} 1", state.role);
        }
        text.push('\n');
    }
}
