//! Who MONITORs: the clients that are shown what all clients of the proxy do, or those of their own databases.

use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::{Client, Clients, Mail, Mark, lock};
use crate::commands::database::Databases;

/// Those who monitor.
#[derive(Default)]
pub(super) struct Monitors(Mutex<Vec<(Arc<Client>, Arc<Databases>)>>);

/// A client monitors as long as this lives.
pub struct Monitoring {
    clients: Arc<Clients>,
    client: Arc<Client>,
}

impl Monitoring {
    /// Who monitors.
    pub fn client(&self) -> &Arc<Client> {
        &self.client
    }
}

impl Clients {
    /// Whether anybody monitors.
    #[inline]
    pub fn is_monitored(&self) -> bool {
        self.pause.apart.is_monitored()
    }

    /// From now on `client` is shown what clients do; where it works in databases of its own, what is done there.
    pub fn monitor(self: &Arc<Clients>, client: &Arc<Client>, databases: &Arc<Databases>) -> Monitoring {
        lock(&self.monitors.0).push((client.clone(), databases.clone()));
        self.pause.apart.monitors(true);
        client.mark(Mark::Monitor, true);
        Monitoring { clients: self.clone(), client: client.clone() }
    }

    /// Shows all who monitor the line that is for those who work in these databases. Who does not fetch what it is shown has to
    /// go once there are more than `most` bytes.
    pub fn show(&self, mut line_for: impl FnMut(&Databases) -> Option<Bytes>, most: usize) {
        for (monitor, databases) in &*lock(&self.monitors.0) {
            if let Some(line) = line_for(databases) {
                monitor.deliver(Mail::Shown(line), most);
            }
        }
    }
}

impl Drop for Monitoring {
    fn drop(&mut self) {
        self.client.mark(Mark::Monitor, false);
        self.clients.pause.apart.monitors(false);
        lock(&self.clients.monitors.0).retain(|(client, _)| client.id != self.client.id);
    }
}
