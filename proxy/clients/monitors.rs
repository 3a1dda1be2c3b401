//! Who MONITORs: the clients that are shown what the proxy answers itself.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use bytes::Bytes;

use super::{Client, Clients, Mail, Mark, lock};

/// How many monitor: what is asked for each command that the proxy answers itself.
#[derive(Default)]
pub(super) struct Monitors(AtomicUsize);

/// A client monitors as long as this lives.
pub struct Monitoring {
    clients: Arc<Clients>,
    client: Arc<Client>,
}

impl Clients {
    /// Whether anybody monitors.
    #[inline]
    pub fn is_monitored(&self) -> bool {
        self.monitors.0.load(Relaxed) > 0
    }

    /// From now on `client` is shown what the proxy answers itself.
    pub fn monitor(self: &Arc<Clients>, client: &Arc<Client>) -> Monitoring {
        self.monitors.0.fetch_add(1, Relaxed);
        client.mark(Mark::Monitor, true);
        Monitoring { clients: self.clone(), client: client.clone() }
    }

    /// Shows all who monitor a line. Who does not fetch what it is shown has to go once there are more than `most` bytes.
    pub fn show(&self, line: &Bytes, most: usize) {
        for monitor in lock(&self.live).values().filter(|client| client.has(Mark::Monitor)) {
            monitor.deliver(Mail::Answered(line.clone()), most);
        }
    }
}

impl Drop for Monitoring {
    fn drop(&mut self) {
        self.client.mark(Mark::Monitor, false);
        self.clients.monitors.0.fetch_sub(1, Relaxed);
    }
}
