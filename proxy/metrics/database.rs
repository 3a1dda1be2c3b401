//! What is counted of databases of their own. Series are those of the names in the configuration, so that they are few; what
//! SELECT chooses from (`shop/3`) counts for its name (`shop`).

use std::{
    cell::RefCell,
    collections::HashMap,
    rc::Rc,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    },
};

use metrics::{Counter, Gauge};

use super::{
    Metrics, Registry, names,
    series::{Count, GaugeShare, Level},
};
use crate::protocol::slot::Slot;

/// A database, as far as is known.
#[derive(Clone, Debug, PartialEq)]
pub struct DatabaseGlance {
    /// Its name.
    pub name: Arc<str>,
    /// The slot of its keys.
    pub slot: Slot,
    /// Requests of its clients.
    pub requests: u64,
    /// Requests of its clients in a second, of late.
    pub rate: u64,
    /// Clients that work in it now.
    pub clients: i64,
    /// Keys of its slot; `None` where no node has told.
    pub keys: Option<u64>,
}

impl DatabaseGlance {
    /// Whether anybody works in it, has done so since the start, or has left keys there.
    pub fn is_in_use(&self) -> bool {
        self.clients > 0 || self.requests > 0 || self.keys.is_some_and(|keys| keys > 0)
    }
}

/// All databases; none before the configuration is known.
#[derive(Default)]
pub(super) struct DatabaseSeries(OnceLock<Configured>);

struct Configured {
    databases: Vec<Arc<Counts>>,
    names: Vec<Name>,
}

/// A name of the configuration.
struct Name {
    clients: Gauge,
    keys: Gauge,
    /// Where its databases are in the list of all.
    databases: std::ops::Range<usize>,
}

/// What is counted of a database.
struct Counts {
    name: Arc<str>,
    slot: Slot,
    requests: AtomicU64,
    rate: AtomicU64,
    clients: Level,
    /// Below zero where no node has told.
    keys: AtomicI64,
    published: Counter,
}

impl DatabaseSeries {
    /// Makes the configuration's names known, with the databases and slots of each. Only the first call counts.
    pub(super) fn know(&self, registry: &Registry, names: Vec<(String, Vec<(String, Slot)>)>) {
        let mut known = Configured { databases: Vec::new(), names: Vec::new() };
        for (name, numbered) in names {
            let (label, first) = ([("database", &*name)], known.databases.len());
            let requests = registry.counter(&names::DATABASE_REQUESTS, &label);
            let clients = registry.gauge(&names::DATABASE_CLIENTS, &label);
            let keys = registry.gauge(&names::DATABASE_KEYS, &label);
            known.databases.extend(numbered.iter().map(|(name, slot)| {
                Arc::new(Counts {
                    name: (**name).into(),
                    slot: *slot,
                    requests: AtomicU64::default(),
                    rate: AtomicU64::default(),
                    clients: Level::new(Gauge::noop()),
                    keys: AtomicI64::new(-1),
                    published: requests.clone(),
                })
            }));
            known.names.push(Name { clients, keys, databases: first..known.databases.len() });
        }
        let _ = self.0.set(known);
    }

    fn all(&self) -> &[Arc<Counts>] {
        self.0.get().map_or(&[], |known| &known.databases)
    }

    pub(super) fn glances(&self) -> Vec<DatabaseGlance> {
        let glance = |counts: &Arc<Counts>| DatabaseGlance {
            name: counts.name.clone(),
            slot: counts.slot,
            requests: counts.requests.load(Relaxed),
            rate: counts.rate.load(Relaxed),
            clients: counts.clients.now(),
            keys: counts.keys.load(Relaxed).try_into().ok(),
        };
        self.all().iter().map(glance).collect()
    }

    /// What nodes have told of the keys of each, in the order of [`DatabaseSeries::glances`], and how many requests came in a second.
    pub(super) fn learn(&self, told: &[(Option<u64>, u64)]) {
        for (counts, (keys, rate)) in self.all().iter().zip(told) {
            counts.keys.store(keys.map_or(-1, |keys| i64::try_from(keys).unwrap_or(i64::MAX)), Relaxed);
            counts.rate.store(*rate, Relaxed);
        }
    }

    /// Has the series show the present values.
    pub(super) fn show(&self) {
        let Some(known) = self.0.get() else { return };
        for name in &known.names {
            let all = &known.databases[name.databases.clone()];
            name.clients.set(all.iter().map(|counts| counts.clients.now()).sum::<i64>() as f64);
            let keys: i64 = all.iter().map(|counts| counts.keys.load(Relaxed).max(0)).sum();
            name.keys.set(keys as f64);
        }
    }
}

/// What one worker counts of each database.
pub struct DatabaseTallies {
    metrics: Metrics,
    tallies: RefCell<HashMap<Box<str>, Rc<DatabaseTally>>>,
}

/// What one worker counts of one database.
pub struct DatabaseTally {
    requests: Count,
    clients: GaugeShare,
    /// `None` where the configuration does not name it.
    counts: Option<Arc<Counts>>,
}

impl DatabaseTallies {
    pub(super) fn new(metrics: Metrics) -> DatabaseTallies {
        DatabaseTallies { metrics, tallies: RefCell::default() }
    }

    /// The tally of the database of this name.
    pub fn of(&self, name: &str) -> Rc<DatabaseTally> {
        if let Some(tally) = self.tallies.borrow().get(name) {
            return tally.clone();
        }
        let counts = self.metrics.shared.databases.all().iter().find(|counts| *counts.name == *name).cloned();
        let tally = Rc::new(DatabaseTally { requests: Count::default(), clients: GaugeShare::default(), counts });
        self.tallies.borrow_mut().insert(name.into(), tally.clone());
        tally
    }

    /// Adds what this worker has counted to what all have.
    pub fn publish(&self) {
        self.tallies.borrow().values().for_each(|tally| tally.publish());
    }
}

impl DatabaseTally {
    /// A client has asked for something.
    pub fn asked(&self) {
        self.requests.add(1);
    }

    /// A client works in it from now on.
    pub fn client_came(&self) {
        self.clients.add(1);
    }

    /// A client works in it no more.
    pub fn client_left(&self) {
        self.clients.add(-1);
    }

    fn publish(&self) {
        let Some(counts) = &self.counts else { return };
        let requests = self.requests.take();
        counts.requests.fetch_add(requests, Relaxed);
        counts.published.increment(requests);
        self.clients.publish(&counts.clients);
    }
}

impl Drop for DatabaseTally {
    fn drop(&mut self) {
        self.publish();
        if let Some(counts) = &self.counts {
            self.clients.withdraw(&counts.clients);
        }
    }
}
