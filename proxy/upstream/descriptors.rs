//! The open files that the system allows the process, and who may have them.
//!
//! What serves everybody comes first: the workers, the admin port, discovery, and the shared links to every node. The
//! rest is for clients, and for the node connections that are some client's own (BLPOP, WATCH, SUBSCRIBE, MONITOR): each
//! of them holds a [`Descriptor`]. Clients cannot have all of it: a client whose next command needs a connection would
//! find none.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use crate::{
    protocol::{address::Address, says},
    upstream::dial::{DialError, DialStep},
};

/// Files of the process itself: standard streams, listeners, requests at the admin port, discovery's questions.
const FOR_PROCESS: usize = 32;
/// Files of a worker's runtime.
const FOR_WORKER: usize = 4;
/// The lanes that every worker may have open to every node: RESP2 and RESP3 with the proxy's own login.
const LANES: usize = 2;
/// One client of so many may hold a connection of its own when all clients are there.
const CLIENTS_PER_CONNECTION: usize = 3;
/// How long a connection is waited for where there is none to be had.
const PATIENCE: Duration = Duration::from_secs(1);

/// How the open files are shared out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shares {
    /// How many clients there may be.
    max_clients: usize,
    /// Files for clients and for their own connections together.
    shared: usize,
}

impl Shares {
    fn of(limit: usize, wanted: usize, workers: usize, nodes: usize) -> Shares {
        // Where the limit is absurdly small, somebody is served all the same.
        let shared = limit.saturating_sub(kept_back(workers, nodes)).max(limit / 4);
        let for_clients = shared - shared / (CLIENTS_PER_CONNECTION + 1);
        Shares { max_clients: wanted.min(for_clients).max(1), shared }
    }
}

fn kept_back(workers: usize, nodes: usize) -> usize {
    FOR_PROCESS + workers * FOR_WORKER + nodes * (workers * LANES + 1)
}

/// How many open files it takes to serve so many clients.
pub fn files_for(max_clients: usize, workers: usize, nodes: usize) -> usize {
    kept_back(workers, nodes) + max_clients + max_clients.div_ceil(CLIENTS_PER_CONNECTION)
}

/// The process's open files.
#[derive(Debug)]
pub struct Descriptors {
    limit: usize,
    wanted: AtomicUsize,
    workers: usize,
    /// For how many nodes files are kept back.
    nodes: AtomicUsize,
    max_clients: AtomicUsize,
    /// How many there are in `free` and in use. Only [`Descriptors::follow`] changes it.
    shared: AtomicUsize,
    free: Arc<Semaphore>,
    scarce: Notify,
}

/// One open file; free for others when it is dropped.
#[derive(Debug)]
pub struct Descriptor {
    _permit: OwnedSemaphorePermit,
}

impl Descriptors {
    /// So many files are allowed (`ulimit -n`), and so many clients wanted, served by so many workers.
    pub fn new(limit: usize, max_clients: usize, workers: usize) -> Arc<Descriptors> {
        Arc::new(Descriptors {
            limit: limit.min(Semaphore::MAX_PERMITS),
            wanted: AtomicUsize::new(max_clients),
            workers,
            nodes: AtomicUsize::new(0),
            max_clients: AtomicUsize::new(max_clients),
            shared: AtomicUsize::new(0),
            free: Arc::new(Semaphore::new(0)),
            scarce: Notify::new(),
        })
    }

    /// The cluster has so many primaries: each costs its links. Says so where `max_clients` has to be lowered.
    pub fn follow(&self, nodes: usize) {
        self.nodes.store(nodes, Relaxed);
        let wanted = self.wanted.load(Relaxed);
        let new = Shares::of(self.limit, wanted, self.workers, nodes);
        let shared = self.shared.load(Relaxed);
        if new.shared >= shared {
            self.free.add_permits(new.shared - shared);
            self.shared.store(new.shared, Relaxed);
        } else {
            // What is in use cannot be taken away; the next time finds it free, perhaps.
            self.shared.store(shared - self.free.forget_permits(shared - new.shared), Relaxed);
        }
        let before = self.max_clients.swap(new.max_clients, Relaxed);
        if new.max_clients < wanted && new.max_clients != before {
            let needed = files_for(wanted, self.workers, nodes);
            tracing::warn!(
                max_clients = new.max_clients,
                configured = wanted,
                files = self.limit,
                "max_clients is lowered, since too few open files are allowed: raise `ulimit -n` to {needed}"
            );
        }
    }

    /// From now on so many clients are wanted. Who is here stays.
    pub fn want(&self, max_clients: usize) {
        self.wanted.store(max_clients, Relaxed);
        self.follow(self.nodes.load(Relaxed));
    }

    /// How many clients there may be.
    pub fn max_clients(&self) -> usize {
        self.max_clients.load(Relaxed)
    }

    /// One file, where there is one.
    pub fn try_take(&self) -> Option<Descriptor> {
        let permit = self.free.clone().try_acquire_owned();
        if !self.are_plenty() {
            self.scarce.notify_waiters();
        }
        Some(Descriptor { _permit: permit.ok()? })
    }

    /// One file for a connection to `node`; waits a little where there is none.
    pub async fn take(&self, node: &Address) -> Result<Descriptor, DialError> {
        if let Some(descriptor) = self.try_take() {
            return Ok(descriptor);
        }
        match timeout(PATIENCE, self.free.clone().acquire_owned()).await {
            Ok(Ok(permit)) => Ok(Descriptor { _permit: permit }),
            _ => Err(DialError {
                node: node.clone(),
                step: DialStep::Connect,
                why: says::TOO_FEW_FILES.to_owned(),
                permanent: false,
            }),
        }
    }

    /// Whether connections may be kept that nobody uses.
    pub fn are_plenty(&self) -> bool {
        self.free.available_permits() > self.shared.load(Relaxed) / 3
    }

    /// Ready when what is kept unused is to be closed, since others need it.
    pub async fn scarce(&self) {
        self.scarce.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_shared_out() {
        for (limit, wanted, workers, nodes, max_clients, shared) in [
            // Plenty: nothing changes.
            (1_048_576, 10_000, 8, 100, 10_000, 1_048_576 - 32 - 32 - 1700),
            (20_000, 10_000, 2, 3, 10_000, 20_000 - 55),
            // Too few: a quarter of what is left is for connections of clients' own.
            (120, 10_000, 2, 3, 49, 65),
            (1024, 10_000, 4, 6, 692, 922),
            (1024, 100, 4, 6, 100, 922),
            // Fewer than the process itself needs.
            (64, 10_000, 8, 100, 12, 16),
            (0, 10_000, 8, 100, 1, 0),
        ] {
            let shares = Shares::of(limit, wanted, workers, nodes);
            assert_eq!(shares, Shares { max_clients, shared }, "{limit} {wanted} {workers} {nodes}");
        }
        for wanted in [50, 100, 9999, 10_000] {
            let files = files_for(wanted, 2, 3);
            assert_eq!(Shares::of(files, wanted, 2, 3).max_clients, wanted, "{files} files for {wanted} clients");
            let lowered = Shares::of(files - 2, wanted, 2, 3).max_clients;
            assert!(lowered < wanted, "{} files are too few for {wanted} clients", files - 2);
        }
    }

    #[tokio::test]
    async fn who_finds_none_waits_a_little_and_is_told_why() {
        let descriptors = Descriptors::new(60, 10, 1);
        descriptors.follow(1);
        let node = Address::new("node", 7000);
        let mut taken: Vec<Descriptor> = std::iter::from_fn(|| descriptors.try_take()).collect();
        assert_eq!(taken.len(), 60 - 39);
        assert!(!descriptors.are_plenty());
        let told = descriptors.take(&node).await.expect_err("there is none").to_string();
        assert_eq!(told, format!("cannot connect to node:7000: {}", says::TOO_FEW_FILES));
        let waits = descriptors.take(&node);
        let freed = async {
            tokio::time::sleep(PATIENCE / 2).await;
            taken.truncate(1);
        };
        assert!(tokio::join!(waits, freed).0.is_ok());
        // More nodes leave less for clients, and what is lent comes back first.
        descriptors.follow(3);
        taken.clear();
        assert_eq!(std::iter::from_fn(|| descriptors.try_take()).collect::<Vec<_>>().len(), 60 - 45);
    }
}
