//! The certificates in force: read here, and handed to whoever secures connections.

use std::sync::Arc;

use tokio::sync::watch;

use crate::{
    cluster::topology::Topology,
    config::Config,
    process::server::ServeError,
    upstream::transport::tls::{
        for_clients::{ForClients, Served},
        to_nodes::{ToNodes, Trusted},
    },
};

/// All certificates in force; the process has one.
pub struct Certificates {
    clients: Option<watch::Sender<Arc<Served>>>,
    nodes: Option<watch::Sender<Arc<Trusted>>>,
}

impl Certificates {
    /// Reads what the configuration names.
    ///
    /// # Errors
    /// A file is not named, is missing, or of no use.
    pub fn load(config: &Config) -> Result<Certificates, ServeError> {
        let clients = match config.client_tls()? {
            Some(settings) => Some(watch::Sender::new(Arc::new(Served::load(&settings)?))),
            None => None,
        };
        let nodes = match config.node_tls()? {
            Some(settings) => Some(watch::Sender::new(Arc::new(Trusted::load(&settings)?))),
            None => None,
        };
        Ok(Certificates { clients, nodes })
    }

    /// How connections of clients are secured, where any are.
    pub fn for_clients(&self) -> Option<ForClients> {
        self.clients.as_ref().map(|served| ForClients::new(served.subscribe()))
    }

    /// How connections to nodes are secured, where they are; `topology` tells their names.
    pub fn to_nodes(&self, topology: Option<&watch::Receiver<Arc<Topology>>>) -> Option<ToNodes> {
        self.nodes.as_ref().map(|trusted| ToNodes::new(trusted.subscribe(), topology.cloned()))
    }
}
