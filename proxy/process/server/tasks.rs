//! What runs from the start to the end of the process, whoever is served: the workers, and the tasks that learn the cluster.

use std::{io, sync::Arc};

use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::{ServeError, Shared};
use crate::{
    cluster::{
        replication::ReadFrom,
        topology::{Hints, Topology},
    },
    process::{
        discovery::Discovery,
        replication::Following,
        worker::{Blueprint, Worker},
    },
    upstream::router::{Registries, Reloads, ReplicationNews},
};

/// Hints that wait for discovery: it coalesces them, so that more would tell it nothing new.
const HINTS: usize = 1024;

/// The workers and the tasks beside them.
pub(super) struct Tasks {
    pub(super) workers: Vec<Worker>,
    /// Ends all of them.
    pub(super) stop: CancellationToken,
    others: Vec<JoinHandle<()>>,
}

impl Tasks {
    /// Starts the workers, and the tasks that learn the cluster. `publisher` is where the topology is published, `reloads`
    /// how clients ask for a reload.
    ///
    /// # Errors
    /// A worker cannot start.
    pub(super) fn start(
        shared: &Shared,
        publisher: watch::Sender<Arc<Topology>>,
        reloads: Reloads,
    ) -> Result<Tasks, ServeError> {
        let Shared { config, topology, dialer, metrics, .. } = shared;
        let stop = CancellationToken::new();
        let (hints, hints_in) = Hints::channel(HINTS);
        let (replication, progress, progress_wanted) = ReplicationNews::channel(config.reads != ReadFrom::Primary);
        let blueprint = Blueprint {
            config: config.clone(),
            topology: topology.clone(),
            hints,
            common: Registries {
                clients: shared.clients.clone(),
                scans: Arc::default(),
                scripts: Arc::default(),
                rights: Arc::default(),
                admissions: Arc::default(),
                users: shared.users.clone(),
                replication,
                reloads,
            },
            descriptors: shared.descriptors.clone(),
            dialer: dialer.clone(),
            metrics: metrics.clone(),
            stop: stop.clone(),
        };
        let workers = (0..config.worker_count()).map(|number| Worker::start(number, blueprint.clone()));
        let workers = workers.collect::<io::Result<Vec<_>>>();
        let workers = workers.map_err(|error| ServeError::System("cannot start a worker", error))?;
        let following = Following {
            dialer: dialer.clone(),
            login: shared.login(),
            topology: topology.clone(),
            wanted: progress_wanted,
            publisher: progress,
        };
        let discovery = Discovery::new(config, dialer.clone(), publisher, hints_in, metrics.clone());
        let others = vec![tokio::spawn(following.run(stop.clone())), tokio::spawn(discovery.run(stop.clone()))];
        Ok(Tasks { workers, stop, others })
    }

    /// Starts the export by OTLP, in builds that have it.
    #[cfg_attr(not(feature = "otlp"), expect(clippy::unused_self, unused_variables, clippy::needless_pass_by_ref_mut))]
    pub(super) fn export(&mut self, shared: &Shared) {
        #[cfg(feature = "otlp")]
        self.others.push(tokio::spawn(crate::process::otlp::export(
            shared.config.clone(),
            shared.metrics.clone(),
            self.stop.clone(),
        )));
    }

    /// Ends them, and waits until they have ended.
    pub(super) async fn end(self) {
        self.stop.cancel();
        for worker in self.workers {
            let _ = tokio::task::spawn_blocking(|| worker.join()).await;
        }
        for other in self.others {
            let _ = other.await;
        }
    }
}
