//! What the process has one of, and its threads share.

use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    clients::{Clients, users::Users},
    cluster::topology::Topology,
    config::Config,
    metrics::Metrics,
    process::{admin::AdminView, certificates::Certificates, worker::Worker},
    upstream::{
        descriptors::Descriptors,
        dial::{Credentials, Dialer, Login},
    },
};

/// What every system allows.
const FEW_FILES: u64 = 256;

/// What the process has one of.
pub(in crate::process) struct Shared {
    /// The configuration that the process began with.
    pub(in crate::process) config: Arc<Config>,
    pub(in crate::process) topology: watch::Receiver<Arc<Topology>>,
    pub(in crate::process) clients: Arc<Clients>,
    pub(in crate::process) users: Arc<Users>,
    pub(in crate::process) descriptors: Arc<Descriptors>,
    pub(in crate::process) dialer: Dialer,
    pub(in crate::process) metrics: Metrics,
}

impl Shared {
    /// What goes by this configuration; and where discovery is to publish the topology.
    pub(in crate::process) fn of(
        config: Config,
        certificates: &Certificates,
    ) -> (Shared, watch::Sender<Arc<Topology>>) {
        let descriptors = Descriptors::new(raise_file_limit(), config.max_clients, config.worker_count());
        // Until the nodes are known, there are as many as seeds.
        descriptors.follow(config.seeds.len());
        let (publisher, topology) = watch::channel(Arc::new(Topology::unknown("no seed has answered yet")));
        let shared = Shared {
            clients: Arc::new(Clients::new(config.max_buffered)),
            users: Arc::new(Users::of(&config)),
            descriptors,
            dialer: Dialer::of(&config, certificates.to_nodes(Some(&topology))),
            metrics: Metrics::new(),
            topology,
            config: Arc::new(config),
        };
        (shared, publisher)
    }

    /// How the proxy's own questions are asked at nodes.
    pub(super) fn login(&self) -> Login {
        Login { credentials: Credentials::of(&self.config), ..Login::default() }
    }

    /// What the admin port shows of it.
    pub(super) fn admin_view(&self, workers: &[Worker], shutdown: &CancellationToken) -> AdminView {
        AdminView {
            topology: self.topology.clone(),
            descriptors: self.descriptors.clone(),
            metrics: self.metrics.clone(),
            shutdown: shutdown.clone(),
            clients: self.clients.clone(),
            login: self.login(),
            dialer: self.dialer.clone(),
            publishers: workers.iter().map(Worker::publisher).collect(),
            show_keys: self.config.show_keys,
        }
    }
}

/// Every client and every link is an open file: takes as many as the system lets us have, and says how many that is.
fn raise_file_limit() -> usize {
    let files = rlimit::increase_nofile_limit(u64::MAX).unwrap_or_else(|error| {
        tracing::warn!(%error, "cannot raise the limit of open files");
        rlimit::Resource::NOFILE.get_soft().unwrap_or(FEW_FILES)
    });
    tracing::debug!(files, "open files allowed");
    usize::try_from(files).unwrap_or(usize::MAX)
}
