//! What is counted of each node.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::Rc,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use metrics::Counter;

use super::{
    Metrics, Registry, histogram,
    history::Counted,
    hot::{Hot, Large},
    labels::labels,
    lock, names,
    series::{Count, Total, series},
    slow::{Slow, SlowLog},
    spans::{Span, Spans},
};

labels! {
    /// Why a node, or a connection to it, did not serve a request.
    NodeError {
        /// The node said MOVED.
        Moved = "moved",
        /// The node said ASK.
        Ask = "ask",
        /// The node said TRYAGAIN.
        TryAgain = "tryagain",
        /// The node said CLUSTERDOWN.
        ClusterDown = "clusterdown",
        /// The node said LOADING.
        Loading = "loading",
        /// The node said MASTERDOWN.
        MasterDown = "masterdown",
        /// The node said READONLY.
        ReadOnly = "readonly",
        /// A replica that did not answer a read, or could not be believed: its primary was asked.
        Replica = "replica",
        /// The node said NOSCRIPT, and was given the script.
        NoScript = "noscript",
        /// The node did not answer in time.
        Timeout = "timeout",
        /// The connection could not be made, or was lost.
        Connection = "connection",
        /// Anything else.
        Other = "other",
    }
}

labels! {
    /// What a request does, as far as its duration at the node is concerned.
    RequestClass {
        /// It only reads.
        Read = "read",
        /// It may write.
        Write = "write",
        /// Anything else, and what goes on a connection of its own.
        Other = "other",
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
        let new = || Rc::new(NodeTally::new(self.metrics.node_series(label), &self.metrics));
        let tally = by_node.entry(label.clone()).or_insert_with(new);
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

series! {
    /// What a worker counts of one node.
    worker Counts;
    /// What all workers have counted of it.
    process Totals;
    counters {
        late: NODE_LATE;
        failed: NODE_FAILED;
        connects: NODE_CONNECTS;
        connect_failures: NODE_CONNECT_FAILURES;
        sent_bytes: NODE_SENT;
        received_bytes: NODE_RECEIVED;
    }
    counters by label {
        errors: NODE_ERRORS by "error" in NodeError;
    }
    levels {
        connections: NODE_CONNECTIONS;
        inflight: NODE_INFLIGHT;
        queued_bytes: NODE_QUEUED;
    }
    durations {
        queue: NODE_QUEUE;
    }
    durations by label {
        duration: NODE_DURATION by "class" in RequestClass;
    }
}

/// What one worker has counted of one node since it last published.
///
/// Every [`NodeTally::queued`] must be followed by one [`NodeTally::replied`] or be part of one [`NodeTally::dropped`],
/// and its bytes by [`NodeTally::sent`] or the same `dropped`, or the levels would drift.
#[derive(Debug)]
pub struct NodeTally {
    series: Arc<NodeSeries>,
    slow: Arc<SlowLog>,
    spans: Arc<Spans>,
    hot: Arc<Hot>,
    counts: Counts,
    requests: Count,
    /// When the worker has heard from the node last, on any connection.
    heard: Cell<Option<Instant>>,
    /// Since when no connection could be made, and when that was tried last.
    unreachable: Cell<Option<(Instant, Instant)>>,
}

/// After so long it has to be tried anew whether a node can be reached.
const OUTAGE: Duration = Duration::from_secs(5);

impl NodeTally {
    fn new(series: Arc<NodeSeries>, metrics: &Metrics) -> NodeTally {
        NodeTally {
            series,
            slow: metrics.slow().clone(),
            spans: metrics.spans().clone(),
            hot: metrics.hot().clone(),
            counts: Counts::default(),
            requests: Count::default(),
            heard: Cell::default(),
            unreachable: Cell::default(),
        }
    }

    /// A request of so many bytes was queued for the node.
    pub fn queued(&self, bytes: usize) {
        self.requests.add(1);
        self.counts.inflight.add(1);
        self.counts.queued_bytes.add(bytes as i64);
    }

    /// So many bytes of what was queued were written.
    pub fn sent(&self, bytes: usize) {
        self.counts.sent_bytes.add(bytes as u64);
        self.counts.queued_bytes.add(-(bytes as i64));
    }

    /// A request was sent that is answered by messages, if at all: SUBSCRIBE, MONITOR.
    pub fn told(&self) {
        self.requests.add(1);
    }

    /// So many bytes were written that were never [`NodeTally::queued`].
    pub fn wrote(&self, bytes: usize) {
        self.counts.sent_bytes.add(bytes as u64);
    }

    /// So many bytes were read, at this time.
    pub fn received(&self, bytes: usize, now: Instant) {
        self.counts.received_bytes.add(bytes as u64);
        self.heard.set(Some(now));
    }

    /// When the worker has heard from the node last, on any connection.
    pub fn heard(&self) -> Option<Instant> {
        self.heard.get()
    }

    /// A queued request was answered, so long after it was queued.
    pub fn replied(&self, class: RequestClass, took: Duration) {
        self.counts.inflight.add(-1);
        self.counts.duration[class as usize].observe(took);
    }

    /// The reply just counted took long.
    pub fn slow(&self, slow: Slow) {
        self.spans.note(|| slow.span());
        self.slow.note(slow);
    }

    /// The reply to the request in `frame` is large: at least so many bytes of it have come.
    pub fn large_reply(&self, frame: &[u8], bytes: usize) {
        self.hot.note_large(Large::of(true, bytes, frame, &self.series.label));
    }

    /// A large request goes to the node.
    pub fn large_request(&self, frame: &[u8]) {
        self.hot.note_large(Large::of(false, frame.len(), frame, &self.series.label));
    }

    /// What was queued is written, so long after it was there to be written.
    pub fn left_queue(&self, after: Duration) {
        self.counts.queue.observe(after);
    }

    /// The reply just counted came after its request's time.
    pub fn late(&self) {
        self.counts.late.add(1);
    }

    /// So many queued requests will never be answered, and so many of their bytes never be written.
    pub fn dropped(&self, requests: usize, unwritten_bytes: usize) {
        self.counts.inflight.add(-(requests as i64));
        self.counts.queued_bytes.add(-(unwritten_bytes as i64));
    }

    /// The node, or a connection to it, did not serve a request.
    pub fn error(&self, error: NodeError) {
        self.counts.errors[error as usize].add(1);
    }

    /// A request ended in an error for the client on the node's account; `tell` says more of it, if anybody asks.
    pub fn failed(&self, tell: impl FnOnce(Arc<str>) -> Span) {
        self.counts.failed.add(1);
        self.spans.note(|| tell(self.series.label.clone()));
    }

    /// A connection is ready for use.
    pub fn connected(&self) {
        self.counts.connects.add(1);
        self.counts.connections.add(1);
        self.unreachable.set(None);
    }

    /// A connection that was ready is closed.
    pub fn disconnected(&self) {
        self.counts.connections.add(-1);
    }

    /// A connection could not be made. Where that is `permanent`, it is the login that is refused: others may be let in.
    pub fn connect_failed(&self, permanent: bool) {
        self.counts.connect_failures.add(1);
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
        self.series.requests(self.requests.take());
        self.counts.publish(&self.series.totals);
    }
}

impl Drop for NodeTally {
    fn drop(&mut self) {
        self.publish();
        self.counts.withdraw(&self.series.totals);
    }
}

/// A node's series, shared by all workers. It lives as long as anyone counts into it or discovery knows the node.
#[derive(Debug)]
pub(super) struct NodeSeries {
    label: Arc<str>,
    pub(super) totals: Totals,
    /// By the role that the node has now.
    requests: Mutex<(&'static str, Counter)>,
    pub(super) all_requests: AtomicU64,
}

impl NodeSeries {
    pub(super) fn new(registry: &Registry, label: &Arc<str>) -> NodeSeries {
        NodeSeries {
            label: label.clone(),
            totals: Totals::new(registry, &[("node", label)]),
            requests: Mutex::new((PRIMARY, requests(registry, label, PRIMARY))),
            all_requests: AtomicU64::default(),
        }
    }

    fn requests(&self, more: u64) {
        lock(&self.requests).1.increment(more);
        self.all_requests.fetch_add(more, Relaxed);
    }

    /// Requests that the node or its connections failed.
    pub(super) fn all_errors(&self) -> u64 {
        self.totals.errors.iter().map(Total::sum).sum()
    }

    /// What was counted up to now.
    pub(super) fn counted(&self) -> Counted {
        let requests = self.all_requests.load(Relaxed);
        let (errors, failed) = (self.all_errors(), self.totals.failed.sum());
        Counted { requests, errors, failed, durations: histogram::sum(&self.totals.duration) }
    }

    /// Requests count under this role from now on.
    pub(super) fn set_role(&self, registry: &Registry, role: &'static str) {
        let mut current = lock(&self.requests);
        if current.0 != role {
            *current = (role, requests(registry, &self.label, role));
        }
    }

    /// Has the series show the present values.
    pub(super) fn show(&self) {
        self.totals.show();
    }
}

impl Drop for NodeSeries {
    /// The counts are shown for a while, but nothing is open or under way any more.
    fn drop(&mut self) {
        self.show();
    }
}

/// What a node is taken for until discovery says more.
const PRIMARY: &str = "primary";

fn requests(registry: &Registry, label: &str, role: &str) -> Counter {
    registry.counter(&names::NODE_REQUESTS, &[("node", label), ("role", role)])
}
