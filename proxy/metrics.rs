//! What operators see: every metric, and how a count gets from a worker's hot path to a scrape.
//!
//! - A worker counts in a [`ClientTally`] and one [`NodeTally`] for each node: plain numbers of its own, no atomics, no
//!   names. About once a second it publishes them, and again when it ends.
//! - Published numbers are shared by all workers ([`client`], [`node`]): handles of the `metrics` facade, atomics for
//!   levels, and [`histogram::SharedHistogram`]; `registry` has all series.
//! - [`Metrics::render`] writes them out for one scrape.
//!
//! **The registry** is our own, and writes the page with the exporter's functions for its format. The exporter's recorder keeps each
//! sample of a histogram (16 bytes) until the next upkeep and sorts it into its buckets then, `record_many` included, which records
//! one by one: at 500,000 requests a second that is 8 MB and about 12 ms each second. Buckets counted by the workers cost one
//! addition for each request, a publication touches 17 numbers whatever the load, and count and sum stay exact. And it makes each
//! series' text anew for each scrape: see `registry`. What must vanish at once when a node changes its role or leaves (`node_up`,
//! `node_slots`) is written beside, and so is `process_cpu_seconds_total`, which is no whole number.
//!
//! **Departed nodes.** A series that nobody has is dropped [`KEPT`] later. Whoever counts has its own, so that only series of
//! departed nodes get old, and a quiet one stays.

mod asked;
pub mod client;
mod command;
mod database;
pub mod events;
pub mod histogram;
pub mod history;
pub mod hot;
mod labels;
mod libraries;
pub mod names;
pub mod node;
mod process;
pub mod readable;
mod refresh;
mod registry;
mod series;
pub mod slow;
pub mod spans;
mod text;
mod tls;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak, atomic::Ordering::Relaxed},
    time::{Duration, SystemTime},
};

pub use asked::{CommandCalls, Snapshot};
pub use client::{ClientTally, Disconnect, Handshake, Transaction};
pub use command::{CommandClass, CommandId};
pub use database::{DatabaseGlance, DatabaseTallies, DatabaseTally};
pub use libraries::{Libraries, Library};
pub use node::{NodeError, NodeTallies, NodeTally, RequestClass};
pub use refresh::{NodeState, Slots, Trigger};
pub use tls::Side;

use crate::protocol::slot::Slot;
use registry::Registry;

/// How long a departed node's series are still shown: long enough for a scrape to get its last counts, and for a node
/// that restarts to go on where it was.
pub const KEPT: Duration = Duration::from_secs(300);

/// The process's metrics. Clones are the same metrics.
#[derive(Clone)]
pub struct Metrics {
    shared: Arc<Shared>,
}

struct Shared {
    registry: Registry,
    client: Arc<client::ClientSeries>,
    refresh: refresh::RefreshSeries,
    tls: tls::TlsSeries,
    databases: database::DatabaseSeries,
    events: events::Events,
    history: history::History,
    hot: Arc<hot::Hot>,
    slow: Arc<slow::SlowLog>,
    spans: Arc<spans::Spans>,
    nodes: Mutex<BTreeMap<Arc<str>, Weak<node::NodeSeries>>>,
    libraries: Mutex<Libraries>,
}

/// What is counted of one node, for the status page and INFO.
#[derive(Clone, Debug)]
pub struct NodeGlance {
    /// The node, and what discovery says of it.
    pub state: NodeState,
    /// Requests sent to it.
    pub requests: u64,
    /// Requests that it or its connections failed.
    pub errors: u64,
    /// Requests of those that ended in an error for the client.
    pub failed: u64,
    /// Open connections.
    pub connections: i64,
    /// Requests without a reply.
    pub inflight: i64,
    /// Bytes that have not been written to it yet.
    pub queued_bytes: i64,
}

impl Metrics {
    /// All metrics, at zero.
    pub fn new() -> Metrics {
        let registry = Registry::default();
        let client = Arc::new(client::ClientSeries::new(&registry));
        let refresh = refresh::RefreshSeries::new(&registry);
        let tls = tls::TlsSeries::new(&registry);
        let events = events::Events::default();
        let (databases, nodes) = (database::DatabaseSeries::default(), Mutex::default());
        let (history, hot, slow, spans, libraries) = Default::default();
        let shared =
            Shared { registry, client, refresh, tls, databases, events, history, hot, slow, spans, nodes, libraries };
        Metrics { shared: Arc::new(shared) }
    }

    /// What one worker counts of its clients.
    pub fn client_tally(&self) -> ClientTally {
        ClientTally::new(self.clone())
    }

    /// What one worker counts of each node.
    pub fn node_tallies(&self) -> NodeTallies {
        NodeTallies::new(self.clone())
    }

    /// What one worker counts of each database of its own.
    pub fn database_tallies(&self) -> DatabaseTallies {
        DatabaseTallies::new(self.clone())
    }

    /// The databases of their own that there are, by the names of the configuration, with their slots. Said once.
    pub fn know_databases(&self, names: Vec<(String, Vec<(String, Slot)>)>) {
        self.shared.databases.know(&self.shared.registry, names);
    }

    /// What is known of each database of its own.
    pub fn databases(&self) -> Vec<DatabaseGlance> {
        self.shared.databases.glances()
    }

    /// How many keys each of them has, in the order of [`Metrics::databases`], and how many requests come in a second.
    pub fn learn_databases(&self, told: &[(Option<u64>, u64)]) {
        self.shared.databases.learn(told);
    }

    /// A client was turned away; `reason` is a short fixed word (`max_clients`, `descriptors`).
    pub fn rejected(&self, reason: &'static str) {
        self.shared.client.rejected(&self.shared.registry, reason);
    }

    /// Bytes now held for all clients.
    pub fn client_buffered(&self, bytes: usize) {
        self.shared.client.buffered.set(bytes as i64);
    }

    /// The libraries of the clients that are connected now.
    pub fn client_libraries(&self, libraries: Libraries) {
        *lock(&self.shared.libraries) = libraries;
    }

    /// Discovery has asked the cluster for its layout, because of `trigger`, which took so long.
    pub fn refreshed(&self, trigger: Trigger, well: bool, took: Duration) {
        self.shared.refresh.refreshed(trigger, well, took);
    }

    /// What has happened, for operators.
    pub fn events(&self) -> &events::Events {
        &self.shared.events
    }

    /// What is asked for most.
    pub fn hot(&self) -> &Arc<hot::Hot> {
        &self.shared.hot
    }

    /// Requests that took long.
    pub fn slow(&self) -> &Arc<slow::SlowLog> {
        &self.shared.slow
    }

    /// Requests that are worth a span.
    pub fn spans(&self) -> &Arc<spans::Spans> {
        &self.shared.spans
    }

    /// What discovery now knows: the topology's epoch, how many slots have an owner and how many of these owners can be
    /// reached, and every node.
    pub fn topology(&self, epoch: u64, slots: Slots, nodes: Vec<NodeState>) {
        let series_of = |node: &NodeState| {
            let series = self.node_series(&node.label);
            series.set_role(&self.shared.registry, node.role);
            series
        };
        let series = nodes.iter().map(series_of).collect();
        self.shared.refresh.topology(epoch, slots, nodes, series);
    }

    /// So many function libraries were given to a primary that joined.
    pub fn functions_given(&self, count: u64) {
        self.shared.refresh.functions_given(count);
    }

    /// A certificate is in force until then, or for ever where there is none.
    pub fn certificate(&self, side: Side, until: Option<SystemTime>) {
        self.shared.tls.in_force(side, until);
    }

    /// The files of a certificate have changed, and are of no use.
    pub fn certificate_refused(&self, side: Side) {
        self.shared.tls.refused(side);
    }

    /// Whether the proxy can serve.
    pub fn ready(&self, ready: bool) {
        self.shared.refresh.ready.store(ready, Relaxed);
    }

    /// Every node that discovery knows, with its counts up to the last publication.
    pub fn nodes(&self) -> Vec<NodeGlance> {
        self.shared.refresh.nodes()
    }

    /// Totals over all clients up to the last publication, for the status page and INFO.
    pub fn totals(&self) -> client::Totals {
        self.shared.client.totals()
    }

    /// What clients have asked for of a command since the last reset, up to now.
    pub fn asked(&self, command: CommandId) -> CommandCalls {
        self.shared.client.asked.of(command)
    }

    /// What clients have asked for of a command since the start.
    pub fn ever_asked(&self, command: CommandId) -> CommandCalls {
        self.shared.client.asked.ever(command)
    }

    /// What [`Metrics::asked`] counts from, once it has been reset to it.
    pub fn snapshot_of_asked(&self) -> Snapshot {
        self.shared.client.asked.snapshot()
    }

    /// From now on [`Metrics::asked`] tells of what has come since the snapshot.
    pub fn reset_asked(&self, to: Snapshot) {
        self.shared.client.asked.reset_to(to);
    }

    /// All metrics in the Prometheus text format, sorted by name.
    pub fn render(&self) -> String {
        let Shared { registry, client, refresh, tls, databases, nodes, libraries, .. } = &*self.shared;
        let mut nodes = lock(nodes);
        nodes.retain(|_, series| series.strong_count() > 0);
        nodes.values().filter_map(Weak::upgrade).for_each(|series| series.show());
        drop(nodes);
        client.show();
        refresh.show();
        tls.show();
        databases.show();
        let mut text = String::new();
        registry.write(&mut text);
        refresh.write_nodes(&mut text);
        lock(libraries).write(&mut text);
        process::write(&mut text);
        text::sorted(&text)
    }

    fn node_series(&self, label: &Arc<str>) -> Arc<node::NodeSeries> {
        let mut nodes = lock(&self.shared.nodes);
        if let Some(series) = nodes.get(label).and_then(Weak::upgrade) {
            return series;
        }
        let series = Arc::new(node::NodeSeries::new(&self.shared.registry, label));
        nodes.insert(label.clone(), Arc::downgrade(&series));
        series
    }
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics::new()
    }
}

/// Takes a lock, whose holder may have panicked: nothing here is left half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
