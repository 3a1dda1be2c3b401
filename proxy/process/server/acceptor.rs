//! Clients come in here: each goes to a worker, or is turned away.

use std::{
    cell::Cell,
    io,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use socket2::{Domain, Socket, Type};

use super::{
    Shared,
    listeners::{Listeners, Open},
};
use crate::{
    clients::ListenerSettings,
    process::worker::Worker,
    protocol::says,
    upstream::transport::{Arrival, Keepalive},
};

/// How long a full process or file table is left alone before the next connection is accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How often the log tells of newcomers that are turned away.
const COMPLAIN_EVERY: Duration = Duration::from_secs(10);

/// Accepts clients and hands each to the worker that has the fewest. SO_REUSEPORT instead would hash them: few and
/// long-lived clients would leave workers idle.
pub(in crate::process) struct Acceptor<'a> {
    shared: &'a Shared,
    workers: &'a [Worker],
    /// An open file to give up where the system has no other, so that a newcomer can be told so.
    spare: Cell<Option<Socket>>,
    /// When the log has last told of newcomers that were turned away.
    complaint: Cell<Option<Instant>>,
}

impl<'a> Acceptor<'a> {
    pub(in crate::process) fn new(shared: &'a Shared, workers: &'a [Worker]) -> Acceptor<'a> {
        Acceptor { shared, workers, spare: Cell::new(open_file()), complaint: Cell::new(None) }
    }

    /// Accepts clients for ever.
    pub(super) async fn run(&self, listeners: &Listeners) {
        loop {
            match listeners.accept().await {
                (Ok(arrival), settings) => self.admit(arrival, settings),
                (Err(error), _)
                    if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted) => {}
                (Err(error), _) => {
                    if self.may_complain() {
                        tracing::warn!(%error, "cannot accept clients");
                    }
                    if self.spare.take().is_some() {
                        self.refuse_next(&listeners.all()).await;
                        self.spare.set(open_file());
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Accepts those who wait already: they have been promised a connection.
    pub(in crate::process) async fn accept_rest(&self, listeners: &[Rc<Open>]) {
        for listener in listeners {
            while let Some((arrival, settings)) = listener.next_in_line().await {
                self.admit(arrival, settings);
            }
        }
    }

    /// Tells one of those who wait that there is no open file for it.
    async fn refuse_next(&self, listeners: &[Rc<Open>]) {
        for listener in listeners {
            if let Some((arrival, _)) = listener.next_in_line().await {
                return self.refuse(arrival, "descriptors");
            }
        }
    }

    fn refuse(&self, arrival: Arrival, reason: &'static str) {
        self.shared.metrics.rejected(reason);
        arrival.turn_away(format!("-{}\r\n", says::MAX_CLIENTS).as_bytes());
    }

    /// Whether the log is to be told: not for each newcomer.
    fn may_complain(&self) -> bool {
        let may = self.complaint.get().is_none_or(|last| last.elapsed() >= COMPLAIN_EVERY);
        if may {
            self.complaint.set(Some(Instant::now()));
        }
        may
    }

    /// Lets in who has come, where there is room.
    fn admit(&self, arrival: Arrival, listener: Arc<ListenerSettings>) {
        if self.shared.clients.count() >= self.shared.descriptors.max_clients() {
            return self.refuse(arrival, "max_clients");
        }
        let Some(descriptor) = self.shared.descriptors.try_take() else {
            if self.may_complain() {
                let clients = self.shared.clients.count();
                tracing::warn!(clients, "clients are turned away: all open files are in use, raise `ulimit -n`");
            }
            return self.refuse(arrival, "descriptors");
        };
        let (peer, local) = (arrival.peer.clone(), arrival.local.clone());
        let _ = arrival.tune(Keepalive { idle: self.shared.config.tcp_keepalive, unacknowledged: None });
        let (Ok(stream), Some(worker)) = (arrival.detach(), self.workers.iter().min_by_key(|worker| worker.load()))
        else {
            return;
        };
        worker.welcome(stream, self.shared.clients.join(peer, local, listener), descriptor);
    }
}

/// An open file that is there to be given up.
fn open_file() -> Option<Socket> {
    Socket::new(Domain::IPV4, Type::STREAM, None).ok()
}
