//! Clients that have to go: those who fall idle, and all of them at the end.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    clients::{Clients, Order},
    config::Config,
    process::worker::Worker,
};

/// How often idle clients are looked for.
const IDLE_LOOK: Duration = Duration::from_millis(500);
/// How long a client has been silent that a process closes whose place another has taken.
const FALLEN_IDLE: Duration = Duration::from_secs(1);
/// How often a drain looks whether all clients have gone.
const DRAIN_LOOK: Duration = Duration::from_millis(10);

/// Wakes the sessions of clients that have been silent for too long, again and again.
pub(super) async fn look_for_idle(clients: &Clients, mut config: watch::Receiver<Arc<Config>>) {
    loop {
        let limit = config.borrow_and_update().client_idle_timeout;
        tokio::select! {
            Ok(()) = config.changed() => {}
            () = tokio::time::sleep(IDLE_LOOK), if limit.is_some() => limit.into_iter().for_each(|limit| clients.wake_idle(limit)),
        }
    }
}

/// Serves on whom there is, and closes those who fall idle, up to `drain_timeout`.
pub(super) async fn retire(clients: &Clients, workers: &[Worker], config: &Config) {
    let limit = config.client_idle_timeout.unwrap_or(FALLEN_IDLE).min(FALLEN_IDLE);
    let brief = Arc::new(Config { client_idle_timeout: Some(limit), ..config.clone() });
    for adopted in workers.iter().map(|worker| worker.adopt(brief.clone())).collect::<Vec<_>>() {
        let _ = adopted.await;
    }
    let gone = async {
        while clients.count() > 0 {
            clients.wake_idle(limit);
            tokio::time::sleep(DRAIN_LOOK).await;
        }
    };
    let _ = tokio::time::timeout(config.drain_timeout, gone).await;
}

/// Lets every session answer what is in flight, and ends those that take too long.
pub(super) async fn drain(clients: &Clients, patience: Duration, now: &CancellationToken) {
    let tell = |order| clients.all().iter().for_each(|client| client.tell(order));
    let gone = async {
        while clients.count() > 0 {
            // Again each time: a client may have come in between.
            tell(Order::Drain);
            tokio::time::sleep(DRAIN_LOOK).await;
        }
    };
    tokio::select! {
        () = gone => return,
        () = tokio::time::sleep(patience) => tracing::warn!(clients = clients.count(), "drain_timeout is over: closing the clients that are left"),
        () = now.cancelled() => tracing::info!(clients = clients.count(), "asked again: closing the clients that are left"),
    }
    tell(Order::Leave);
    let until = Instant::now() + Duration::from_secs(1);
    while clients.count() > 0 && Instant::now() < until {
        tokio::time::sleep(DRAIN_LOOK).await;
    }
}
