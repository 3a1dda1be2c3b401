//! What all workers have counted of their clients.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use metrics::{Counter, Gauge};

use super::ClientTotals;
use crate::metrics::{
    CommandId, Registry,
    asked::AllAsked,
    histogram,
    history::Counted,
    lock, names,
    series::{Level, Total},
};

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
pub(in crate::metrics) struct ClientSeries {
    pub(in crate::metrics) totals: ClientTotals,
    pub(in crate::metrics) asked: AllAsked,
    commands: Mutex<HashMap<CommandId, Arc<[Counter; 2]>>>,
    all_commands: AtomicU64,
    all_failed: AtomicU64,
    /// Counters whose label values are not known beforehand.
    named: Mutex<HashMap<(&'static str, &'static str), Counter>>,
    all_rejected: AtomicU64,
    pub(in crate::metrics) buffered: Level,
    build_info: Gauge,
}

impl ClientSeries {
    pub(in crate::metrics) fn new(registry: &Registry) -> ClientSeries {
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

    pub(in crate::metrics) fn rejected(&self, registry: &Registry, reason: &'static str) {
        self.all_rejected.fetch_add(1, Relaxed);
        self.named(registry, &names::CLIENT_REJECTED, reason).increment(1);
    }

    pub(in crate::metrics) fn command(&self, registry: &Registry, id: CommandId) -> Arc<[Counter; 2]> {
        let make = || {
            let name = id.name();
            let counter = |result| registry.counter(&names::COMMANDS, &[("command", &name), ("result", result)]);
            Arc::new([counter("ok"), counter("error")])
        };
        lock(&self.commands).entry(id).or_insert_with(make).clone()
    }

    pub(in crate::metrics) fn named(
        &self,
        registry: &Registry,
        family: &'static names::Family,
        reason: &'static str,
    ) -> Counter {
        let make = || registry.counter(family, &[("reason", reason)]);
        lock(&self.named).entry((family.name, reason)).or_insert_with(make).clone()
    }

    pub(in crate::metrics) fn totals(&self) -> Totals {
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

    /// So many more commands were answered well, and so many with an error.
    pub(in crate::metrics) fn answered(&self, well: u64, failed: u64) {
        self.all_commands.fetch_add(well + failed, Relaxed);
        self.all_failed.fetch_add(failed, Relaxed);
    }

    /// What was counted of all commands up to now.
    pub(in crate::metrics) fn counted(&self) -> Counted {
        let durations = histogram::sum(&self.totals.durations);
        let (requests, errors) = (self.all_commands.load(Relaxed), self.all_failed.load(Relaxed));
        Counted { requests, errors, failed: 0, durations }
    }

    /// Has the series show the present values.
    pub(in crate::metrics) fn show(&self) {
        self.totals.show();
        self.buffered.show();
        self.build_info.set(1);
    }
}
