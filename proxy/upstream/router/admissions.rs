//! How many requests whose replies may be large are at a node at a time.
//!
//! A node runs one command at a time, and makes each reply whole before it sends a byte of it. More than a few such
//! requests would be served no sooner; they would pile up replies in the node's memory, those for clients who have gone
//! in the meantime too.

use std::{
    collections::HashMap,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::cluster::topology::Node;

/// Requests at one node whose replies may be large and have not begun.
const MOST_AT_ONCE: usize = 4;
/// How long a request waits for its place. A node that answers nothing for so long owes nothing more if it gets the
/// request too, and the request's own deadline begins.
const PATIENCE: Duration = Duration::from_secs(1);

/// The places at each node, for all workers.
#[derive(Default)]
pub struct Admissions(Mutex<HashMap<Arc<str>, Arc<Semaphore>>>);

/// A place that will be free in time, or none where that takes too long.
pub type Admission = Pin<Box<dyn Future<Output = Option<OwnedSemaphorePermit>>>>;

impl Admissions {
    /// A place at the node, at once; or the wait for one.
    pub fn at(&self, node: &Node) -> Result<OwnedSemaphorePermit, Admission> {
        let places = {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let places = || Arc::new(Semaphore::new(MOST_AT_ONCE));
            all.entry(node.label.clone()).or_insert_with(places).clone()
        };
        places.clone().try_acquire_owned().map_err(|_| {
            let admission: Admission =
                Box::pin(async move { tokio::time::timeout(PATIENCE, places.acquire_owned()).await.ok()?.ok() });
            admission
        })
    }

    /// Forgets the places at nodes that are none any more.
    pub fn keep(&self, is_node: impl Fn(&str) -> bool) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|label, places| is_node(label) || places.available_permits() < MOST_AT_ONCE);
    }
}

#[cfg(test)]
mod tests;
