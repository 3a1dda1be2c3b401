//! What is counted of each node.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::Rc,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use metrics::{Counter, Gauge};

use super::{Count, Metrics, Part, Registry, histogram, labels::labels, lock, names};

labels! {
    /// Why a node, or a connection to it, did not serve a request.
    NodeError {
        /// It said MOVED.
        Moved = "moved",
        /// It said ASK.
        Ask = "ask",
        /// It said TRYAGAIN.
        TryAgain = "tryagain",
        /// It said CLUSTERDOWN.
        ClusterDown = "clusterdown",
        /// It said LOADING.
        Loading = "loading",
        /// It said MASTERDOWN.
        MasterDown = "masterdown",
        /// It said READONLY.
        ReadOnly = "readonly",
        /// It said NOSCRIPT, and was given the script.
        NoScript = "noscript",
        /// It did not answer in time.
        Timeout = "timeout",
        /// The connection could not be made, or was lost.
        Connection = "connection",
        /// Anything else.
        Other = "other",
    }
}

impl NodeError {
    /// The error with this label.
    pub fn named(label: &str) -> NodeError {
        NodeError::ALL.into_iter().find(|error| error.label() == label).unwrap_or(NodeError::Other)
    }
}

/// One worker's tallies, by node. All links to a node, whatever their lane, share one.
pub struct NodeTallies {
    metrics: Metrics,
    by_node: RefCell<HashMap<Arc<str>, Rc<NodeTally>>>,
}

impl NodeTallies {
    pub(super) fn new(metrics: Metrics) -> NodeTallies {
        NodeTallies { metrics, by_node: RefCell::default() }
    }

    /// The tally of the node that is labelled so.
    pub fn of(&self, label: &Arc<str>) -> Rc<NodeTally> {
        let mut by_node = self.by_node.borrow_mut();
        let tally =
            by_node.entry(label.clone()).or_insert_with(|| Rc::new(NodeTally::new(self.metrics.node_series(label))));
        tally.clone()
    }

    /// Adds what this worker has counted to what all have. Where a node has left, its tally goes with its last
    /// connection, and its series [`super::KEPT`] later.
    pub fn publish(&self, is_known: impl Fn(&str) -> bool) {
        self.by_node.borrow_mut().retain(|label, tally| {
            tally.publish();
            is_known(label) || Rc::strong_count(tally) > 1
        });
    }
}

/// What one worker has counted of one node since it last published.
///
/// Every [`NodeTally::queued`] must be followed by one [`NodeTally::replied`] or be part of one [`NodeTally::dropped`],
/// and its bytes by [`NodeTally::sent`] or the same `dropped`, or the levels would drift.
#[derive(Debug)]
pub struct NodeTally {
    series: Arc<Series>,
    requests: Count,
    errors: [Count; NodeError::ALL.len()],
    late: Count,
    connects: Count,
    connect_failures: Count,
    sent_bytes: Count,
    received_bytes: Count,
    connections: Part,
    inflight: Part,
    queued_bytes: Part,
    duration: histogram::Local,
    /// When the worker has heard from the node last, on any connection.
    heard: Cell<Option<Instant>>,
    /// Since when no connection could be made, and when that was tried last.
    unreachable: Cell<Option<(Instant, Instant)>>,
}

/// After so long it has to be tried anew whether a node can be reached.
const OUTAGE: Duration = Duration::from_secs(5);

impl NodeTally {
    fn new(series: Arc<Series>) -> NodeTally {
        NodeTally {
            series,
            requests: Count::default(),
            errors: Default::default(),
            late: Count::default(),
            connects: Count::default(),
            connect_failures: Count::default(),
            sent_bytes: Count::default(),
            received_bytes: Count::default(),
            connections: Part::default(),
            inflight: Part::default(),
            queued_bytes: Part::default(),
            duration: histogram::Local::default(),
            heard: Cell::default(),
            unreachable: Cell::default(),
        }
    }

    /// A request of so many bytes was queued for the node.
    pub fn queued(&self, bytes: usize) {
        self.requests.add(1);
        self.inflight.add(1);
        self.queued_bytes.add(bytes as i64);
    }

    /// So many bytes of what was queued were written.
    pub fn sent(&self, bytes: usize) {
        self.sent_bytes.add(bytes as u64);
        self.queued_bytes.add(-(bytes as i64));
    }

    /// A request was sent that is answered by messages, if at all: SUBSCRIBE, MONITOR.
    pub fn told(&self) {
        self.requests.add(1);
    }

    /// So many bytes were written that were never [`NodeTally::queued`].
    pub fn wrote(&self, bytes: usize) {
        self.sent_bytes.add(bytes as u64);
    }

    /// So many bytes were read, at this time.
    pub fn received(&self, bytes: usize, now: Instant) {
        self.received_bytes.add(bytes as u64);
        self.heard.set(Some(now));
    }

    /// When the worker has heard from the node last, on any connection.
    pub fn heard(&self) -> Option<Instant> {
        self.heard.get()
    }

    /// A queued request was answered, so long after it was queued.
    pub fn replied(&self, took: Duration) {
        self.inflight.add(-1);
        self.duration.observe(took);
    }

    /// The reply just counted came after its request's time.
    pub fn late(&self) {
        self.late.add(1);
    }

    /// So many queued requests will never be answered, and so many of their bytes never be written.
    pub fn dropped(&self, requests: usize, unwritten_bytes: usize) {
        self.inflight.add(-(requests as i64));
        self.queued_bytes.add(-(unwritten_bytes as i64));
    }

    /// The node, or a connection to it, did not serve a request.
    pub fn error(&self, error: NodeError) {
        self.errors[error as usize].add(1);
    }

    /// A connection is ready for use.
    pub fn connected(&self) {
        self.connects.add(1);
        self.connections.add(1);
        self.unreachable.set(None);
    }

    /// A connection that was ready is closed.
    pub fn disconnected(&self) {
        self.connections.add(-1);
    }

    /// A connection could not be made. Where that is `permanent`, it is the login that is refused: others may be let in.
    pub fn connect_failed(&self, permanent: bool) {
        self.connect_failures.add(1);
        self.error(NodeError::Connection);
        if !permanent {
            let now = Instant::now();
            self.unreachable.set(Some((self.unreachable_since().unwrap_or(now), now)));
        }
    }

    /// Since when no connection could be made, as far as this worker has tried of late.
    pub fn unreachable_since(&self) -> Option<Instant> {
        self.unreachable.get().filter(|(_, last)| last.elapsed() < OUTAGE).map(|(since, _)| since)
    }

    fn publish(&self) {
        let series = &*self.series;
        let requests = self.requests.publish(&lock(&series.requests).1);
        let errors = self.errors.iter().zip(&series.errors).map(|(count, counter)| count.publish(counter)).sum();
        series.all_requests.fetch_add(requests, Relaxed);
        series.all_errors.fetch_add(errors, Relaxed);
        self.late.publish(&series.late);
        self.connects.publish(&series.connects);
        self.connect_failures.publish(&series.connect_failures);
        self.sent_bytes.publish(&series.sent_bytes);
        self.received_bytes.publish(&series.received_bytes);
        self.connections.publish(&series.connections);
        self.inflight.publish(&series.inflight);
        self.queued_bytes.publish(&series.queued_bytes);
        self.duration.publish(&series.duration);
    }
}

impl Drop for NodeTally {
    fn drop(&mut self) {
        self.publish();
        self.connections.withdraw(&self.series.connections);
        self.inflight.withdraw(&self.series.inflight);
        self.queued_bytes.withdraw(&self.series.queued_bytes);
    }
}

/// A node's series, shared by all workers. It lives as long as anyone counts into it or discovery knows the node.
#[derive(Debug)]
pub(super) struct Series {
    label: Arc<str>,
    /// By the role that the node has now.
    requests: Mutex<(&'static str, Counter)>,
    errors: [Counter; NodeError::ALL.len()],
    late: Counter,
    connects: Counter,
    connect_failures: Counter,
    sent_bytes: Counter,
    received_bytes: Counter,
    connections_gauge: Gauge,
    inflight_gauge: Gauge,
    queued_gauge: Gauge,
    duration: Arc<histogram::Shared>,
    pub(super) connections: AtomicI64,
    pub(super) inflight: AtomicI64,
    queued_bytes: AtomicI64,
    /// Counters of the recorder cannot be read; these are for the status page.
    pub(super) all_requests: AtomicU64,
    pub(super) all_errors: AtomicU64,
}

impl Series {
    pub(super) fn new(registry: &Registry, label: &Arc<str>) -> Series {
        let node = [("node", &**label)];
        let counter = |family| registry.counter(family, &node);
        let gauge = |family| registry.gauge(family, &node);
        let error = |error: NodeError| registry.counter(&names::NODE_ERRORS, &[node[0], ("error", error.label())]);
        Series {
            label: label.clone(),
            requests: Mutex::new((PRIMARY, requests(registry, label, PRIMARY))),
            errors: NodeError::ALL.map(error),
            late: counter(&names::NODE_LATE),
            connects: counter(&names::NODE_CONNECTS),
            connect_failures: counter(&names::NODE_CONNECT_FAILURES),
            sent_bytes: counter(&names::NODE_SENT),
            received_bytes: counter(&names::NODE_RECEIVED),
            connections_gauge: gauge(&names::NODE_CONNECTIONS),
            inflight_gauge: gauge(&names::NODE_INFLIGHT),
            queued_gauge: gauge(&names::NODE_QUEUED),
            duration: registry.histogram(&names::NODE_DURATION, Some(node[0])),
            connections: AtomicI64::default(),
            inflight: AtomicI64::default(),
            queued_bytes: AtomicI64::default(),
            all_requests: AtomicU64::default(),
            all_errors: AtomicU64::default(),
        }
    }

    /// Requests count under this role from now on.
    pub(super) fn set_role(&self, registry: &Registry, role: &'static str) {
        let mut current = lock(&self.requests);
        if current.0 != role {
            *current = (role, requests(registry, &self.label, role));
        }
    }

    /// Shows the recorder that the node is still there.
    pub(super) fn touch(&self) {
        lock(&self.requests).1.increment(0);
        let single = [&self.late, &self.connects, &self.connect_failures, &self.sent_bytes, &self.received_bytes];
        self.errors.iter().chain(single).for_each(|counter| counter.increment(0));
        self.connections_gauge.set(self.connections.load(Relaxed) as f64);
        self.inflight_gauge.set(self.inflight.load(Relaxed) as f64);
        self.queued_gauge.set(self.queued_bytes.load(Relaxed) as f64);
    }
}

impl Drop for Series {
    /// The counts are shown for a while, but nothing is open or under way any more.
    fn drop(&mut self) {
        self.touch();
    }
}

/// What a node is taken for until discovery says more.
const PRIMARY: &str = "primary";

fn requests(registry: &Registry, label: &str, role: &str) -> Counter {
    registry.counter(&names::NODE_REQUESTS, &[("node", label), ("role", role)])
}
