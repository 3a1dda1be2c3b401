//! What is counted of clients.

use std::{
    cell::RefCell,
    collections::HashMap,
    fmt, io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use metrics::{Counter, Gauge};

use super::{
    CommandClass, CommandId, Metrics, NodeError, Registry,
    asked::{AllAsked, CallKind, WorkerAsked},
    histogram,
    history::Counted,
    hot::Sampler,
    labels::labels,
    lock, names,
    series::{Level, Total, series},
};

labels! {
    /// Why a client's connection ended.
    Disconnect {
        /// The client closed it.
        Eof = "eof",
        /// The client said QUIT.
        Quit = "quit",
        /// The connection broke.
        Reset = "reset",
        /// The client was silent for too long.
        Idle = "idle",
        /// The client did not read what it was owed.
        OutputLimit = "output_limit",
        /// What it sent was no request.
        Protocol = "protocol",
        /// Somebody said CLIENT KILL, or the proxy stopped without more patience.
        Killed = "killed",
        /// The node that held state of this client was lost.
        NodeLost = "node_lost",
        /// The proxy stopped; everything had been answered.
        Drain = "drain",
        /// The client had come to a port of TLS, and TLS was not agreed on.
        Handshake = "handshake",
        /// The client came from another machine to a port that is open to everyone (`protected_mode`).
        Protected = "protected_mode",
        /// A PROXY header should have come first, and did not.
        ProxyHeader = "proxy_header",
        /// A bug in the proxy.
        Panic = "panic",
    }
}

impl Disconnect {
    /// What an error of its socket says.
    pub fn of(error: &io::Error) -> Disconnect {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Disconnect::Eof,
            _ => Disconnect::Reset,
        }
    }
}

labels! {
    /// How a TLS handshake with a client ended.
    Handshake {
        /// TLS is spoken.
        Agreed = "ok",
        /// The client spoke plain text.
        PlainText = "plain_text",
        /// A certificate was missing, or did not count.
        Certificate = "certificate",
        /// Something else was wrong.
        Failed = "failed",
        /// The client left, or took too long.
        Gone = "gone",
    }
}

labels! {
    /// How a transaction ended.
    Transaction {
        /// EXEC ran it.
        Executed = "executed",
        /// A watched key had changed.
        Dirty = "dirty",
        /// A command in it could not be queued.
        Aborted = "aborted",
        /// The client discarded it, or left.
        Discarded = "discarded",
        /// The transaction failed, or its outcome is unknown.
        Failed = "failed",
    }
}

labels! {
    /// What a node's redirect is about.
    Redirect {
        /// The slot has another owner.
        Moved = "moved",
        /// Some keys of the slot are elsewhere.
        Ask = "ask",
        /// Keys of one request are in two places.
        TryAgain = "tryagain",
    }
}

impl Redirect {
    fn of(error: NodeError) -> Option<Redirect> {
        match error {
            NodeError::Moved => Some(Redirect::Moved),
            NodeError::Ask => Some(Redirect::Ask),
            NodeError::TryAgain => Some(Redirect::TryAgain),
            NodeError::ClusterDown | NodeError::Loading | NodeError::MasterDown | NodeError::ReadOnly => None,
            NodeError::Replica | NodeError::NoScript | NodeError::Timeout | NodeError::Connection => None,
            NodeError::Other => None,
        }
    }
}

series! {
    /// What a worker counts of its clients.
    worker Counts;
    /// What all workers have counted of theirs.
    process ClientTotals;
    counters {
        received: CLIENT_RECEIVED;
        sent: CLIENT_SENT;
        came: CLIENT_CONNECTIONS_TOTAL;
        subscription_gaps: SUBSCRIPTION_GAPS;
        tracking_flushes: TRACKING_FLUSHES;
        read_at_replica: REPLICA_READS;
    }
    counters by label {
        handshakes: CLIENT_TLS_HANDSHAKES by "outcome" in Handshake;
        left: CLIENT_DISCONNECTS by "reason" in Disconnect;
        retries: RETRIES by "reason" in NodeError;
        given_up: GIVEN_UP by "reason" in NodeError;
        absorbed: REDIRECTS by "type" in Redirect and "outcome" = "absorbed";
        exhausted: REDIRECTS by "type" in Redirect and "outcome" = "exhausted";
        transactions: TRANSACTIONS by "result" in Transaction;
    }
    levels {
        connections: CLIENT_CONNECTIONS;
        blocked: BLOCKED_CLIENTS;
        subscriptions: SUBSCRIPTIONS;
    }
    durations {}
    durations by label {
        durations: COMMAND_DURATION by "class" in CommandClass;
    }
}

/// What one worker has counted of its clients since it last published.
pub struct ClientTally {
    metrics: Metrics,
    counts: Counts,
    /// By [`CommandId`].
    asked: Arc<WorkerAsked>,
    /// What of it has been published: answered well, and with an error.
    published: RefCell<Vec<[u64; 2]>>,
    command_series: RefCell<HashMap<CommandId, Arc<[Counter; 2]>>>,
    protocol_errors: RefCell<Vec<(&'static str, u64)>>,
    /// Which keys are asked for.
    pub sampler: Sampler,
}

impl ClientTally {
    pub(super) fn new(metrics: Metrics) -> ClientTally {
        ClientTally {
            asked: metrics.shared.client.asked.worker(),
            metrics,
            counts: Counts::default(),
            published: RefCell::default(),
            command_series: RefCell::default(),
            protocol_errors: RefCell::default(),
            sampler: Sampler::default(),
        }
    }

    /// The metrics it is published to.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// A command was answered, so long after it came; `failed` where the reply is an error.
    pub fn command(&self, command: CommandId, class: CommandClass, failed: bool, took: Duration) {
        self.asked.add(command, if failed { CallKind::Failed } else { CallKind::Well }, 1);
        self.counts.durations[class as usize].observe(took);
    }

    /// The error that a command is answered with says that it was not carried out at all.
    pub fn rejected(&self, command: CommandId) {
        self.asked.add(command, CallKind::Rejected, 1);
    }

    /// Nodes see so many more calls of a command that is split than clients have made; or a command that was answered with
    /// QUEUED so many times is never carried out.
    pub fn surplus(&self, command: CommandId, calls: usize) {
        self.asked.add(command, CallKind::Surplus, calls as u64);
    }

    /// A read went to a replica.
    pub fn read_at_replica(&self) {
        self.counts.read_at_replica.add(1);
    }

    /// So many bytes were read from a client.
    pub fn received(&self, bytes: usize) {
        self.counts.received.add(bytes as u64);
    }

    /// So many bytes were written to a client.
    pub fn sent(&self, bytes: usize) {
        self.counts.sent.add(bytes as u64);
    }

    /// A client was accepted.
    pub fn client_came(&self) {
        self.counts.came.add(1);
        self.counts.connections.add(1);
    }

    /// An accepted client is gone.
    pub fn client_left(&self, reason: Disconnect) {
        self.counts.left[reason as usize].add(1);
        self.counts.connections.add(-1);
    }

    /// A TLS handshake ended.
    pub fn handshake(&self, outcome: Handshake) {
        self.counts.handshakes[outcome as usize].add(1);
    }

    /// A client sent what is no request; `reason` is one of a few fixed words.
    pub fn protocol_error(&self, reason: &'static str) {
        let mut errors = self.protocol_errors.borrow_mut();
        match errors.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, count)) => *count += 1,
            None => errors.push((reason, 1)),
        }
    }

    /// A request that a node did not execute, for this reason, goes again.
    pub fn retried(&self, why: NodeError) {
        self.counts.retries[why as usize].add(1);
        if let Some(redirect) = Redirect::of(why) {
            self.counts.absorbed[redirect as usize].add(1);
        }
    }

    /// A request that a node did not execute, for this reason, goes no more: the client gets the error.
    pub fn gave_up(&self, why: NodeError) {
        self.counts.given_up[why as usize].add(1);
        if let Some(redirect) = Redirect::of(why) {
            self.counts.exhausted[redirect as usize].add(1);
        }
    }

    /// A transaction ended.
    pub fn transaction(&self, result: Transaction) {
        self.counts.transactions[result as usize].add(1);
    }

    /// So many more clients (or fewer, below zero) wait in a blocking command.
    pub fn blocked(&self, more: i64) {
        self.counts.blocked.add(more);
    }

    /// So many more subscriptions (or fewer, below zero) there are.
    pub fn subscribed(&self, more: i64) {
        self.counts.subscriptions.add(more);
    }

    /// Subscriptions moved to another connection.
    pub fn subscription_gap(&self) {
        self.counts.subscription_gaps.add(1);
    }

    /// A client with CLIENT TRACKING was told to drop all that it holds, since changes may have been missed.
    pub fn tracking_flush(&self) {
        self.counts.tracking_flushes.add(1);
    }

    /// Adds what this worker has counted to what all have.
    pub fn publish(&self) {
        let series = &*self.metrics.shared.client;
        let registry = &self.metrics.shared.registry;
        self.publish_commands(registry, series);
        self.metrics.shared.hot.merge(&self.sampler);
        self.counts.publish(&series.totals);
        for (reason, count) in self.protocol_errors.borrow_mut().drain(..) {
            series.named(registry, &names::CLIENT_PROTOCOL_ERRORS, reason).increment(count);
        }
    }

    fn publish_commands(&self, registry: &Registry, series: &ClientSeries) {
        let mut known = self.command_series.borrow_mut();
        let mut published = self.published.borrow_mut();
        for (index, now) in self.asked.answered() {
            let before = published.get(usize::from(index)).copied().unwrap_or_default();
            if now == before {
                continue;
            }
            if published.len() <= usize::from(index) {
                published.resize(usize::from(index) + 1, [0; 2]);
            }
            published[usize::from(index)] = now;
            let [well, failed] = [now[0] - before[0], now[1] - before[1]];
            let id = CommandId(index);
            let counters = known.entry(id).or_insert_with(|| series.command(registry, id));
            counters[0].increment(well);
            counters[1].increment(failed);
            series.all_commands.fetch_add(well + failed, Relaxed);
            series.all_failed.fetch_add(failed, Relaxed);
        }
    }
}

impl fmt::Debug for ClientTally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTally").finish_non_exhaustive()
    }
}

impl Drop for ClientTally {
    fn drop(&mut self) {
        self.publish();
        self.counts.withdraw(&self.metrics.shared.client.totals);
    }
}

/// Sums over all workers since the start, up to the last publication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Totals {
    /// Commands answered.
    pub commands: u64,
    /// Clients accepted.
    pub connections_received: u64,
    /// Clients turned away.
    pub rejected: u64,
    /// Bytes read from clients.
    pub received_bytes: u64,
    /// Bytes written to clients.
    pub sent_bytes: u64,
    /// Clients connected now.
    pub clients: i64,
    /// Clients in a blocking command now.
    pub blocked: i64,
    /// Redirects that were followed for clients.
    pub redirects: u64,
    /// Requests that were sent again for clients, redirected ones included.
    pub retries: u64,
    /// Requests that were sent again in vain.
    pub given_up: u64,
}

fn sum(totals: &[Total]) -> u64 {
    totals.iter().map(Total::sum).sum()
}

/// The clients' series, shared by all workers.
pub(super) struct ClientSeries {
    totals: ClientTotals,
    pub(super) asked: AllAsked,
    commands: Mutex<HashMap<CommandId, Arc<[Counter; 2]>>>,
    all_commands: AtomicU64,
    all_failed: AtomicU64,
    /// Counters whose label values are not known beforehand.
    named: Mutex<HashMap<(&'static str, &'static str), Counter>>,
    all_rejected: AtomicU64,
    pub(super) buffered: Level,
    build_info: Gauge,
}

impl ClientSeries {
    pub(super) fn new(registry: &Registry) -> ClientSeries {
        let build = [("version", crate::VERSION), ("revision", crate::REVISION)];
        let series = ClientSeries {
            totals: ClientTotals::new(registry, &[]),
            asked: AllAsked::default(),
            commands: Mutex::default(),
            all_commands: AtomicU64::default(),
            all_failed: AtomicU64::default(),
            named: Mutex::default(),
            all_rejected: AtomicU64::default(),
            buffered: Level::new(registry.gauge(&names::CLIENT_BUFFERED, &[])),
            build_info: registry.gauge(&names::BUILD_INFO, &build),
        };
        // Shown from the start, so that the first one is an increase from zero and not a new series.
        series.command(registry, CommandId::OTHER);
        for reason in ["max_clients", "descriptors"] {
            let _ = series.named(registry, &names::CLIENT_REJECTED, reason);
        }
        for reason in ["bulk_len", "multibulk_len", "inline"] {
            let _ = series.named(registry, &names::CLIENT_PROTOCOL_ERRORS, reason);
        }
        series
    }

    pub(super) fn rejected(&self, registry: &Registry, reason: &'static str) {
        self.all_rejected.fetch_add(1, Relaxed);
        self.named(registry, &names::CLIENT_REJECTED, reason).increment(1);
    }

    fn command(&self, registry: &Registry, id: CommandId) -> Arc<[Counter; 2]> {
        let make = || {
            let name = id.name();
            let counter = |result| registry.counter(&names::COMMANDS, &[("command", &name), ("result", result)]);
            Arc::new([counter("ok"), counter("error")])
        };
        lock(&self.commands).entry(id).or_insert_with(make).clone()
    }

    fn named(&self, registry: &Registry, family: &'static names::Family, reason: &'static str) -> Counter {
        let make = || registry.counter(family, &[("reason", reason)]);
        lock(&self.named).entry((family.name, reason)).or_insert_with(make).clone()
    }

    pub(super) fn totals(&self) -> Totals {
        Totals {
            commands: self.all_commands.load(Relaxed),
            connections_received: self.totals.came.sum(),
            rejected: self.all_rejected.load(Relaxed),
            received_bytes: self.totals.received.sum(),
            sent_bytes: self.totals.sent.sum(),
            clients: self.totals.connections.now(),
            blocked: self.totals.blocked.now(),
            redirects: sum(&self.totals.absorbed),
            retries: sum(&self.totals.retries),
            given_up: sum(&self.totals.given_up),
        }
    }

    /// What was counted of all commands up to now.
    pub(super) fn counted(&self) -> Counted {
        let durations = histogram::sum(&self.totals.durations);
        let (requests, errors) = (self.all_commands.load(Relaxed), self.all_failed.load(Relaxed));
        Counted { requests, errors, failed: 0, durations }
    }

    /// Has the series show the present values.
    pub(super) fn show(&self) {
        self.totals.show();
        self.buffered.show();
        self.build_info.set(1);
    }
}
