//! What is counted of clients: by each worker here, and of all of them in `totals`.

mod outcomes;
mod totals;

use std::{cell::RefCell, collections::HashMap, fmt, sync::Arc, time::Duration};

use metrics::Counter;

pub(super) use self::totals::ClientSeries;
pub use self::{
    outcomes::{Disconnect, Handshake, Redirect, Transaction},
    totals::Totals,
};
use super::{
    CommandClass, CommandId, Metrics, NodeError, Registry,
    asked::{CallKind, WorkerAsked},
    hot::Sampler,
    names,
    series::series,
};

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
            series.answered(well, failed);
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
