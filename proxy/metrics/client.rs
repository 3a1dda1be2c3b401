//! What is counted of clients.

use std::{
    cell::RefCell,
    collections::HashMap,
    fmt, io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use metrics::{Counter, Gauge};

use super::{
    CommandClass, CommandId, Count, Metrics, NodeError, Part, Registry,
    asked::{AllAsked, Kind, WorkerAsked},
    histogram,
    labels::labels,
    lock, names,
};

labels! {
    /// Why a client's connection ended.
    Disconnect {
        /// The client closed it.
        Eof = "eof",
        /// The client said QUIT.
        Quit = "quit",
        /// It broke.
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
        /// It failed, or its outcome is unknown.
        Failed = "failed",
    }
}

/// What one worker has counted of its clients since it last published.
pub struct ClientTally {
    metrics: Metrics,
    /// By [`CommandId`].
    asked: Arc<WorkerAsked>,
    /// What of it has been published: answered well, and with an error.
    published: RefCell<Vec<[u64; 2]>>,
    command_series: RefCell<HashMap<CommandId, Arc<[Counter; 2]>>>,
    durations: [histogram::Local; CommandClass::ALL.len()],
    received: Count,
    sent: Count,
    came: Count,
    left: [Count; Disconnect::ALL.len()],
    protocol_errors: RefCell<Vec<(&'static str, u64)>>,
    retries: [Count; NodeError::ALL.len()],
    given_up: [Count; NodeError::ALL.len()],
    transactions: [Count; Transaction::ALL.len()],
    subscription_gaps: Count,
    tracking_flushes: Count,
    connections: Part,
    blocked: Part,
    subscriptions: Part,
}

impl ClientTally {
    pub(super) fn new(metrics: Metrics) -> ClientTally {
        ClientTally {
            asked: metrics.shared.client.asked.worker(),
            metrics,
            published: RefCell::default(),
            command_series: RefCell::default(),
            durations: Default::default(),
            received: Count::default(),
            sent: Count::default(),
            came: Count::default(),
            left: Default::default(),
            protocol_errors: RefCell::default(),
            retries: Default::default(),
            given_up: Default::default(),
            transactions: Default::default(),
            subscription_gaps: Count::default(),
            tracking_flushes: Count::default(),
            connections: Part::default(),
            blocked: Part::default(),
            subscriptions: Part::default(),
        }
    }

    /// The metrics it is published to.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// A command was answered, so long after it came; `failed` where the reply is an error.
    pub fn command(&self, command: CommandId, class: CommandClass, failed: bool, took: Duration) {
        self.asked.add(command, if failed { Kind::Failed } else { Kind::Well }, 1);
        self.durations[class as usize].observe(took);
    }

    /// The error that a command is answered with says that it was not carried out at all.
    pub fn rejected(&self, command: CommandId) {
        self.asked.add(command, Kind::Rejected, 1);
    }

    /// Nodes see so many more calls of a command that is split than clients have made; or a command that was answered with
    /// QUEUED so many times is never carried out.
    pub fn surplus(&self, command: CommandId, calls: usize) {
        self.asked.add(command, Kind::Surplus, calls as u64);
    }

    /// So many bytes were read from a client.
    pub fn received(&self, bytes: usize) {
        self.received.add(bytes as u64);
    }

    /// So many bytes were written to a client.
    pub fn sent(&self, bytes: usize) {
        self.sent.add(bytes as u64);
    }

    /// A client was accepted.
    pub fn client_came(&self) {
        self.came.add(1);
        self.connections.add(1);
    }

    /// An accepted client is gone.
    pub fn client_left(&self, reason: Disconnect) {
        self.left[reason as usize].add(1);
        self.connections.add(-1);
    }

    /// A client sent what is no request; `reason` is one of a few fixed words.
    pub fn protocol_error(&self, reason: &'static str) {
        let mut errors = self.protocol_errors.borrow_mut();
        match errors.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, count)) => *count += 1,
            None => errors.push((reason, 1)),
        }
    }

    /// A request that a node did not execute goes again; `reason` is the label of a [`NodeError`].
    pub fn retried(&self, reason: &'static str) {
        self.retries[NodeError::named(reason) as usize].add(1);
    }

    /// A request that a node did not execute goes no more: the client gets the error. `reason` as above.
    pub fn gave_up(&self, reason: &'static str) {
        self.given_up[NodeError::named(reason) as usize].add(1);
    }

    /// A transaction ended.
    pub fn transaction(&self, result: Transaction) {
        self.transactions[result as usize].add(1);
    }

    /// So many more clients (or fewer, below zero) wait in a blocking command.
    pub fn blocked(&self, more: i64) {
        self.blocked.add(more);
    }

    /// So many more subscriptions (or fewer, below zero) there are.
    pub fn subscribed(&self, more: i64) {
        self.subscriptions.add(more);
    }

    /// Subscriptions moved to another connection.
    pub fn subscription_gap(&self) {
        self.subscription_gaps.add(1);
    }

    /// A client with CLIENT TRACKING was told to drop all that it holds, since changes may have been missed.
    pub fn tracking_flush(&self) {
        self.tracking_flushes.add(1);
    }

    /// Adds what this worker has counted to what all have.
    pub fn publish(&self) {
        let series = &*self.metrics.shared.client;
        let registry = &self.metrics.shared.registry;
        self.publish_commands(registry, series);
        self.durations.iter().zip(&series.durations).for_each(|(local, shared)| local.publish(shared));
        series.all_received.fetch_add(self.received.publish(&series.received), Relaxed);
        series.all_sent.fetch_add(self.sent.publish(&series.sent), Relaxed);
        series.all_came.fetch_add(self.came.publish(&series.came), Relaxed);
        publish_each(&self.left, &series.left);
        for (reason, count) in self.protocol_errors.borrow_mut().drain(..) {
            series.named(registry, &names::CLIENT_PROTOCOL_ERRORS, reason).increment(count);
        }
        for (index, counter) in series.redirects_absorbed.iter().enumerate() {
            counter.increment(self.retries[index].0.get());
        }
        for (index, counter) in series.redirects_exhausted.iter().enumerate() {
            counter.increment(self.given_up[index].0.get());
        }
        publish_each(&self.retries, &series.retries);
        publish_each(&self.given_up, &series.given_up);
        publish_each(&self.transactions, &series.transactions);
        self.subscription_gaps.publish(&series.subscription_gaps);
        self.tracking_flushes.publish(&series.tracking_flushes);
        self.connections.publish(&series.connections);
        self.blocked.publish(&series.blocked);
        self.subscriptions.publish(&series.subscriptions);
    }

    fn publish_commands(&self, registry: &Registry, series: &Series) {
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
        }
    }
}

fn publish_each(counts: &[Count], counters: &[Counter]) {
    for (count, counter) in counts.iter().zip(counters) {
        count.publish(counter);
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
        let series = &*self.metrics.shared.client;
        self.connections.withdraw(&series.connections);
        self.blocked.withdraw(&series.blocked);
        self.subscriptions.withdraw(&series.subscriptions);
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
}

/// The clients' series, shared by all workers.
pub(super) struct Series {
    commands: Mutex<HashMap<CommandId, Arc<[Counter; 2]>>>,
    pub(super) asked: AllAsked,
    durations: [Arc<histogram::Shared>; CommandClass::ALL.len()],
    received: Counter,
    sent: Counter,
    came: Counter,
    left: [Counter; Disconnect::ALL.len()],
    /// Counters whose label values are not known beforehand.
    named: Mutex<HashMap<(&'static str, &'static str), Counter>>,
    /// By the first values of [`NodeError`]: moved, ask, tryagain.
    redirects_absorbed: [Counter; REDIRECTS.len()],
    redirects_exhausted: [Counter; REDIRECTS.len()],
    retries: [Counter; NodeError::ALL.len()],
    given_up: [Counter; NodeError::ALL.len()],
    transactions: [Counter; Transaction::ALL.len()],
    subscription_gaps: Counter,
    tracking_flushes: Counter,
    build_info: Gauge,
    connections_gauge: Gauge,
    blocked_gauge: Gauge,
    subscriptions_gauge: Gauge,
    buffered_gauge: Gauge,
    connections: AtomicI64,
    blocked: AtomicI64,
    subscriptions: AtomicI64,
    pub(super) buffered_bytes: AtomicI64,
    /// Counters of the recorder cannot be read; these are for the status page and INFO.
    all_commands: AtomicU64,
    all_received: AtomicU64,
    all_sent: AtomicU64,
    all_came: AtomicU64,
    all_rejected: AtomicU64,
}

/// The errors that name another place or time: a prefix of [`NodeError::ALL`].
const REDIRECTS: [NodeError; 3] = [NodeError::Moved, NodeError::Ask, NodeError::TryAgain];

impl Series {
    pub(super) fn new(registry: &Registry) -> Series {
        let class = |class: CommandClass| registry.histogram(&names::COMMAND_DURATION, Some(("class", class.label())));
        let plain = |family| registry.counter(family, &[]);
        let reason = |family| move |error: NodeError| registry.counter(family, &[("reason", error.label())]);
        let redirect = |outcome: &'static str| {
            move |error: NodeError| {
                registry.counter(&names::REDIRECTS, &[("type", error.label()), ("outcome", outcome)])
            }
        };
        let build = [
            ("version", env!("CARGO_PKG_VERSION")),
            ("revision", option_env!("SLOTWAY_REVISION").unwrap_or("unknown")),
        ];
        let series = Series {
            commands: Mutex::default(),
            asked: AllAsked::default(),
            durations: CommandClass::ALL.map(class),
            received: plain(&names::CLIENT_RECEIVED),
            sent: plain(&names::CLIENT_SENT),
            came: plain(&names::CLIENT_CONNECTIONS_TOTAL),
            left: Disconnect::ALL.map(|why| registry.counter(&names::CLIENT_DISCONNECTS, &[("reason", why.label())])),
            named: Mutex::default(),
            redirects_absorbed: REDIRECTS.map(redirect("absorbed")),
            redirects_exhausted: REDIRECTS.map(redirect("exhausted")),
            retries: NodeError::ALL.map(reason(&names::RETRIES)),
            given_up: NodeError::ALL.map(reason(&names::GIVEN_UP)),
            transactions: Transaction::ALL
                .map(|end| registry.counter(&names::TRANSACTIONS, &[("result", end.label())])),
            subscription_gaps: plain(&names::SUBSCRIPTION_GAPS),
            tracking_flushes: plain(&names::TRACKING_FLUSHES),
            build_info: registry.gauge(&names::BUILD_INFO, &build),
            connections_gauge: registry.gauge(&names::CLIENT_CONNECTIONS, &[]),
            blocked_gauge: registry.gauge(&names::BLOCKED_CLIENTS, &[]),
            subscriptions_gauge: registry.gauge(&names::SUBSCRIPTIONS, &[]),
            buffered_gauge: registry.gauge(&names::CLIENT_BUFFERED, &[]),
            connections: AtomicI64::default(),
            blocked: AtomicI64::default(),
            subscriptions: AtomicI64::default(),
            buffered_bytes: AtomicI64::default(),
            all_commands: AtomicU64::default(),
            all_received: AtomicU64::default(),
            all_sent: AtomicU64::default(),
            all_came: AtomicU64::default(),
            all_rejected: AtomicU64::default(),
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
            connections_received: self.all_came.load(Relaxed),
            rejected: self.all_rejected.load(Relaxed),
            received_bytes: self.all_received.load(Relaxed),
            sent_bytes: self.all_sent.load(Relaxed),
            clients: self.connections.load(Relaxed),
            blocked: self.blocked.load(Relaxed),
        }
    }

    /// Shows the recorder that all of these are still in use.
    pub(super) fn touch(&self) {
        let single = [&self.received, &self.sent, &self.came, &self.subscription_gaps, &self.tracking_flushes];
        let groups: [&[Counter]; 6] = [
            &self.left,
            &self.redirects_absorbed,
            &self.redirects_exhausted,
            &self.retries,
            &self.given_up,
            &self.transactions,
        ];
        single.into_iter().chain(groups.into_iter().flatten()).for_each(|counter| counter.increment(0));
        lock(&self.commands).values().flat_map(|counters| counters.iter()).for_each(|counter| counter.increment(0));
        lock(&self.named).values().for_each(|counter| counter.increment(0));
        self.build_info.set(1);
        self.connections_gauge.set(self.connections.load(Relaxed) as f64);
        self.blocked_gauge.set(self.blocked.load(Relaxed) as f64);
        self.subscriptions_gauge.set(self.subscriptions.load(Relaxed) as f64);
        self.buffered_gauge.set(self.buffered_bytes.load(Relaxed) as f64);
    }
}
