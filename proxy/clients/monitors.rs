//! Clients that MONITOR: each is shown what all clients of the proxy do, or what is done in its own databases.

use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::{Client, Clients, Mail, Mark, lock};
use crate::commands::database::Databases;

/// The clients that monitor, and their databases.
#[derive(Default)]
pub(super) struct Monitors(Mutex<Vec<(Arc<Client>, Arc<Databases>)>>);

/// A client monitors as long as this lives.
pub struct Monitoring {
    clients: Arc<Clients>,
    client: Arc<Client>,
}

impl Monitoring {
    /// The client that monitors.
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

    /// Begins to show `client` what clients do, until the returned guard is dropped. A client with databases of its own is shown
    /// what is done there.
    pub fn monitor(self: &Arc<Clients>, client: &Arc<Client>, databases: &Arc<Databases>) -> Monitoring {
        lock(&self.monitors.0).push((client.clone(), databases.clone()));
        self.pause.apart.monitors(true);
        client.mark(Mark::Monitor, true);
        Monitoring { clients: self.clone(), client: client.clone() }
    }

    /// Shows each monitoring client the line that `line_for` has for its databases. A client that does not fetch its lines is
    /// evicted once more than `most` bytes wait.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clients::Order, protocol::endpoint::Endpoint};

    fn join(clients: &Clients) -> Arc<Client> {
        let end = || Endpoint::Tcp("127.0.0.1:1".parse().expect("an address"));
        clients.join(end(), end(), Arc::default())
    }

    #[test]
    fn a_client_monitors_as_long_as_it_wants_to() {
        let clients = Arc::new(Clients::new(1 << 20));
        let (one, other, all) = (join(&clients), join(&clients), Arc::new(Databases::default()));
        let line = |text: &'static str| move |_: &Databases| Some(Bytes::from_static(text.as_bytes()));
        clients.show(line("a"), 0);
        assert!(!clients.is_monitored() && !one.has_mail(), "nobody is shown anything");
        let first = clients.monitor(&one, &all);
        let second = clients.monitor(&other, &all);
        assert!(clients.is_monitored() && one.has(Mark::Monitor) && Arc::ptr_eq(first.client(), &one));
        clients.show(line("b"), 0);
        drop(first);
        assert!(clients.is_monitored() && !one.has(Mark::Monitor) && other.has(Mark::Monitor));
        clients.show(line("c"), 0);
        let shown = |text: &'static str| Mail::Shown(Bytes::from_static(text.as_bytes()));
        assert_eq!((one.take_mail(), other.take_mail()), (vec![shown("b")], vec![shown("b"), shown("c")]));
        drop(second);
        assert!(!clients.is_monitored());
    }

    #[test]
    fn each_is_shown_what_is_for_its_databases() {
        let clients = Arc::new(Clients::new(1 << 20));
        let (all, shop) = (Arc::default(), Arc::new(Databases::new(Some("shop"), "{%}", 1).unwrap()));
        let (operator, shopper) = (join(&clients), join(&clients));
        let _monitoring = [clients.monitor(&operator, &all), clients.monitor(&shopper, &shop)];
        clients.show(|databases| (!databases.is_any_own()).then(|| Bytes::from_static(b"for all")), 0);
        assert!(operator.has_mail() && !shopper.has_mail());
    }

    #[test]
    fn one_that_does_not_fetch_its_lines_has_to_go_and_others_stay() {
        let clients = Arc::new(Clients::new(1 << 20));
        let (slow, quick, all) = (join(&clients), join(&clients), Arc::default());
        let _monitoring = [clients.monitor(&slow, &all), clients.monitor(&quick, &all)];
        for _ in 0..3 {
            clients.show(|_| Some(Bytes::from_static(b"line")), 8);
            quick.take_mail();
        }
        assert_eq!((slow.order(), quick.order()), (Order::Evict, Order::Serve));
    }
}
