//! The certificates in force: read here, and handed to whoever secures connections.

use std::sync::Arc;

use tokio::sync::watch;

use crate::{
    config::Config,
    process::server::ServeError,
    upstream::transport::tls::for_clients::{ForClients, Served},
};

/// All certificates in force; the process has one.
pub struct Certificates {
    clients: Option<watch::Sender<Arc<Served>>>,
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
        Ok(Certificates { clients })
    }

    /// How connections of clients are secured, where any are.
    pub fn for_clients(&self) -> Option<ForClients> {
        self.clients.as_ref().map(|served| ForClients::new(served.subscribe()))
    }
}
