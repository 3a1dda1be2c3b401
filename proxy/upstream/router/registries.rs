//! What the routers of all workers share.

use std::sync::{Arc, Mutex};

use tokio::sync::watch;

use super::{Admissions, Reloads};
use crate::{
    clients::{Clients, rights::Rights, users::Users},
    cluster::{replication::Replication, scan::Scans},
    commands::scripts::Scripts,
};

/// What the workers of the process share.
#[derive(Clone)]
pub struct Registries {
    /// All clients.
    pub clients: Arc<Clients>,
    /// The scans under way.
    pub scans: Arc<Mutex<Scans>>,
    /// The texts of scripts.
    pub scripts: Arc<Scripts>,
    /// What users may do.
    pub rights: Arc<Rights>,
    /// The places at nodes for requests whose replies may be large.
    pub admissions: Arc<Admissions>,
    /// The proxy's own users.
    pub users: Arc<Users>,
    /// How far replicas have come.
    pub replication: ReplicationNews,
    /// Requests to read the configuration again.
    pub reloads: Reloads,
}

/// How far replicas have come, where anybody wants to know.
#[derive(Clone)]
pub struct ReplicationNews {
    /// What is known.
    pub progress: watch::Receiver<Arc<Replication>>,
    /// Whether somebody reads from replicas.
    pub wanted: watch::Sender<bool>,
}

impl ReplicationNews {
    /// The workers' end of a new channel, and the two ends of the task that asks nodes: where it publishes, and whether anybody wants
    /// to know.
    pub fn channel(wanted: bool) -> (ReplicationNews, watch::Sender<Arc<Replication>>, watch::Receiver<bool>) {
        let (publisher, progress) = watch::channel(Arc::default());
        let (wanted, is_wanted) = watch::channel(wanted);
        (ReplicationNews { progress, wanted }, publisher, is_wanted)
    }
}
