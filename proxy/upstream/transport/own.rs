//! By which addresses nodes know this process's connections: what a node tells of its clients (MONITOR) can then be told
//! apart by who speaks.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// How long a node may still tell of a connection that has been closed here.
const TOLD_LATE: Duration = Duration::from_secs(10);
/// After so many new addresses, old ones are forgotten.
const FORGOTTEN_EVERY: usize = 64;

/// The local addresses of this process's connections to nodes; when each was closed, if it was.
#[derive(Clone, Debug, Default)]
pub struct OwnAddresses(Arc<Mutex<HashMap<SocketAddr, Option<Instant>>>>);

/// An address that is in use until this is dropped.
#[derive(Debug)]
pub(super) struct InUse {
    address: SocketAddr,
    all: OwnAddresses,
}

impl OwnAddresses {
    /// Whether `address`, as a node writes it, is that of a connection of this process. Not where addresses are translated
    /// between here and the node.
    pub fn contain(&self, address: &str) -> bool {
        let Ok(address) = address.parse() else { return false };
        self.lock().get(&address).is_some_and(is_told_of)
    }

    pub(super) fn add(&self, address: SocketAddr) -> InUse {
        let mut all = self.lock();
        all.insert(address, None);
        if all.len().is_multiple_of(FORGOTTEN_EVERY) {
            all.retain(|_, closed| is_told_of(closed));
        }
        InUse { address, all: self.clone() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SocketAddr, Option<Instant>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.all.lock().insert(self.address, Some(Instant::now()));
    }
}

fn is_told_of(closed: &Option<Instant>) -> bool {
    closed.is_none_or(|at| at.elapsed() < TOLD_LATE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_connections_are_known_by_their_address() {
        let own = OwnAddresses::default();
        let in_use = own.add("127.0.0.1:5000".parse().unwrap());
        assert!(own.contain("127.0.0.1:5000") && !own.contain("127.0.0.1:5001"));
        assert!(!own.contain("lua") && !own.contain("unix:/tmp/socket"));
        drop(in_use);
        assert!(own.contain("127.0.0.1:5000"), "a node may still tell of it");
    }
}
