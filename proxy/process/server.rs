//! The whole process. [`run`] is its life, in acts whose order matters:
//!
//! 1. `Sockets`: taken from whoever had them, or bound. First, since a port that is in use has to end the process before
//!    anything else begins.
//! 2. `Shared` and `Tasks`: what the process has one of, then its workers and what learns the cluster. The metrics know
//!    the databases before anybody counts or asks.
//! 3. With a predecessor: once the cluster is known, the service manager is told which process is the service now, and the
//!    predecessor steps down. Until then it holds `takeover`, and perhaps the admin port.
//! 4. `Ports`: `takeover` and the admin port are opened; then the service manager is told that the process serves.
//! 5. Serving, until a successor has come or somebody asks for the end.
//! 6. The end: nobody new is accepted, clients are drained, tasks stop. The admin port stays to the last, so that the drain can
//!    be watched, unless a successor has it.

mod acceptor;
mod error;
mod leaving;
mod listeners;
mod ports;
mod shared;
mod tasks;

use std::{io, sync::Arc, time::Duration};

pub use self::error::ServeError;
pub(super) use self::{
    acceptor::Acceptor,
    listeners::{Listeners, Open, Prepared},
    shared::Shared,
};
use self::{
    leaving::{drain, look_for_idle, retire},
    ports::{Ports, Sockets},
    tasks::Tasks,
};
use sd_notify::NotifyState;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    cluster::topology::Topology,
    config::Config,
    metrics::{Metrics, events::EventKind},
    process::{
        certificates::Certificates,
        databases::Databases,
        passwords::Passwords,
        reload::{Reloader, Rereading},
        takeover::{Predecessor, Successor},
    },
    upstream::descriptors::Descriptors,
};

/// How long a successor may take to find the cluster.
const BECOMING_READY: Duration = Duration::from_secs(30);

/// Why serving ends.
enum End {
    /// Somebody has asked for it.
    Shutdown,
    /// Another process has the listening sockets, and is ready.
    Succeeded(Successor),
}

/// Serves until `shutdown` is cancelled, then drains: what is in flight is answered. Cancelling `now` ends the drain.
/// `rereading` says how the configuration is read again. `listening` is called once all ports are there.
///
/// # Errors
/// The process could not begin to serve.
pub async fn run(
    config: Config,
    shutdown: CancellationToken,
    now: CancellationToken,
    rereading: Rereading,
    listening: impl FnOnce(),
) -> Result<(), ServeError> {
    let certificates = Certificates::load(&config)?;
    let (sockets, predecessor) = Sockets::open(&config, &certificates)?;
    let (shared, publisher) = Shared::of(config, &certificates);
    let Shared { dialer, topology, metrics, .. } = &shared;
    let databases = Databases::of(&shared.config, dialer.clone(), topology.clone(), metrics.clone());
    let mut tasks = Tasks::start(&shared, publisher, rereading.reloads.clone())?;
    if let Some(predecessor) = predecessor {
        tokio::select! {
            taken = succeed(predecessor, topology.clone()) => taken?,
            // Nothing is served here yet: the running process serves on.
            () = shutdown.cancelled() => return Ok(()),
        }
    }
    let view = shared.admin_view(&tasks.workers, &shutdown);
    let ports = Ports::open(sockets, &shared.config, certificates.for_clients(), view, &tasks.stop)?;
    listening();
    metrics.events().info(EventKind::Process, ports.told());
    tasks.export(&shared);
    tell_manager(&[NotifyState::Ready]);

    let acceptor = Acceptor::new(&shared, &tasks.workers);
    let in_force = watch::Sender::new(shared.config.clone());
    let passwords = Passwords::of(&shared.config, &shared.users);
    let (workers, config) = (&tasks.workers[..], &in_force);
    let (listeners, acceptor, shared) = (ports.listeners(), &acceptor, &shared);
    let reloader = Reloader { rereading, config, certificates, passwords, workers, listeners, acceptor, shared };
    let end = serve(shared, &ports, acceptor, reloader, databases, &shutdown).await;

    let config = in_force.borrow().clone();
    let admin = match end {
        End::Shutdown => {
            tell_manager(&[NotifyState::Stopping]);
            ports.close(acceptor).await
        }
        // The service goes on, by another process: the manager is told nothing.
        End::Succeeded(successor) => {
            ports.leave_to(successor).await;
            let text = format!(
                "a successor has the listening sockets: {} clients are served on until they fall idle",
                shared.clients.count()
            );
            metrics.events().info(EventKind::Process, text);
            tokio::select! {
                () = retire(&shared.clients, &tasks.workers, &config) => {}
                () = shutdown.cancelled() => {}
            }
            None
        }
    };
    drain(&shared.clients, config.drain_timeout, &now).await;
    tasks.end().await;
    if let Some(admin) = admin {
        admin.join();
    }
    tracing::info!("stopped: every client has been answered or closed");
    Ok(())
}

/// Accepts clients, and looks after all that the process has one of.
async fn serve(
    shared: &Shared,
    ports: &Ports,
    acceptor: &Acceptor<'_>,
    reloader: Reloader<'_>,
    databases: Databases,
    shutdown: &CancellationToken,
) -> End {
    let in_force = reloader.config;
    tokio::select! {
        successor = ports.successor() => End::Succeeded(successor),
        () = shutdown_is_due(shared, in_force, shutdown) => End::Shutdown,
        () = acceptor.run(ports.listeners()) => End::Shutdown,
        () = look_for_idle(&shared.clients, in_force.subscribe()) => End::Shutdown,
        () = follow_nodes(&shared.descriptors, shared.topology.clone()) => End::Shutdown,
        () = databases.look_after() => End::Shutdown,
        () = observe(&shared.metrics) => End::Shutdown,
        () = reloader.run() => End::Shutdown,
    }
}

/// Waits until the end is asked for, and then for `drain_delay`: clients still come in meanwhile.
async fn shutdown_is_due(shared: &Shared, in_force: &watch::Sender<Arc<Config>>, shutdown: &CancellationToken) {
    shutdown.cancelled().await;
    let clients = shared.clients.count();
    let text = format!("draining: {clients} clients get their replies, and are then closed");
    shared.metrics.events().info(EventKind::Process, text);
    let delay = in_force.borrow().drain_delay;
    tokio::time::sleep(delay).await;
}

/// Takes the place of the running process once the cluster is known; where it is not in time, that one serves on.
async fn succeed(predecessor: Predecessor, mut topology: watch::Receiver<Arc<Topology>>) -> Result<(), ServeError> {
    let known = topology.wait_for(|topology| topology.reachable() > 0);
    if !matches!(tokio::time::timeout(BECOMING_READY, known).await, Ok(Ok(_))) {
        let why = io::Error::new(io::ErrorKind::TimedOut, "no slot is served; the running process serves on");
        return Err(ServeError::System("the place of the running process is not taken", why));
    }
    // First: the predecessor may end at once, and its end is that of the service to a manager that knows no other process.
    tell_manager(&[NotifyState::MainPid(std::process::id())]);
    let stepped = tokio::task::spawn_blocking(|| predecessor.step_down()).await;
    if !matches!(stepped, Ok(Ok(()))) {
        tracing::warn!("the process whose place this one takes has gone without a word");
    }
    tracing::info!("the place of the running process is taken");
    Ok(())
}

/// Tells the service manager, where there is one that wants to know (`Type=notify`).
fn tell_manager(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}

/// Takes note of how it goes, each second.
async fn observe(metrics: &Metrics) {
    let mut seconds = tokio::time::interval(Duration::from_secs(1));
    seconds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        seconds.tick().await;
        metrics.observe();
    }
}

/// Keeps back as many open files as it takes to reach all nodes.
async fn follow_nodes(descriptors: &Descriptors, mut topology: watch::Receiver<Arc<Topology>>) {
    while topology.changed().await.is_ok() {
        let primaries = topology.borrow_and_update().first_slots().len();
        if primaries > 0 {
            descriptors.follow(primaries);
        }
    }
    std::future::pending().await
}
