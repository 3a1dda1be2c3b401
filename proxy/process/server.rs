//! The whole process: built here, served here, drained here.

mod acceptor;
mod error;
mod leaving;

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
    thread,
    time::Duration,
};

pub use self::error::ServeError;
use self::{
    acceptor::Acceptor,
    leaving::{drain, look_for_idle, retire},
};
use sd_notify::NotifyState;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    clients::{Clients, users::Users},
    cluster::{
        replication::ReadFrom,
        topology::{Hints, Topology},
    },
    config::Config,
    metrics::{Metrics, events::EventKind},
    process::{
        admin::{Admin, AdminView},
        certificates::Certificates,
        databases::Databases,
        discovery::Discovery,
        inherited::Inherited,
        passwords::Passwords,
        reload::{Reloader, Rereading},
        replication::Following,
        takeover::{self, Post, Predecessor, Successor},
        worker::{Blueprint, Worker},
    },
    protocol::endpoint::ListenAddress,
    upstream::{
        descriptors::Descriptors,
        dial::{Credentials, Dialer, Login},
        router::{Registries, ReplicationNews},
        transport::{Listener, tls::for_clients::ForClients},
    },
};

/// Hints that wait for discovery: it coalesces them, so that more would tell it nothing new.
const HINTS: usize = 1024;
/// What every system allows.
const FEW_FILES: u64 = 256;
/// How long a successor may take to find the cluster.
const BECOMING_READY: Duration = Duration::from_secs(30);

/// Serves until `shutdown` is cancelled, then drains: what is in flight is answered. Cancelling `now` ends the drain.
/// `rereading` says how the configuration is read again. `listening` is called once all ports are there.
pub async fn run(
    config: Config,
    shutdown: CancellationToken,
    now: CancellationToken,
    rereading: Rereading,
    listening: impl FnOnce(),
) -> Result<(), ServeError> {
    let config = Arc::new(config);
    let certificates = Certificates::load(&config)?;
    let (mut inherited, predecessor) = inherit(&config)?;
    let succeeds = predecessor.is_some();
    let mut listen = |address: &ListenAddress| {
        let tls = certificates.for_clients();
        let listener = match inherited.take(address) {
            Some(socket) => Listener::over(socket, address, tls.as_ref(), inherited.owns_files),
            None => Listener::bind(address, config.reuse_port, tls.as_ref()),
        };
        listener.map_err(|error| ServeError::Bind(address.clone(), error))
    };
    let listeners = config.addresses().map(&mut listen).collect::<Result<Vec<_>, _>>()?;
    let admin_socket = config.admin.and_then(|address| inherited.take(&ListenAddress::Tcp(address)));
    for address in inherited.left() {
        tracing::warn!("a socket at {address} has been passed that no listener names: it is closed");
    }
    drop(inherited);
    let count = match config.workers {
        0 => thread::available_parallelism().map_or(1, usize::from),
        count => count,
    };
    let descriptors = Descriptors::new(raise_file_limit(), config.max_clients, count);
    // Until the nodes are known, there are as many as seeds.
    descriptors.follow(config.seeds.len());
    let metrics = Metrics::new();
    let (publisher, topology) = watch::channel(Arc::new(Topology::unknown("no seed has answered yet")));
    let (hints, hints_in) = Hints::channel(HINTS);
    let clients = Arc::new(Clients::new(config.max_buffered));
    let users = Arc::new(Users::of(&config));
    let stop = CancellationToken::new();
    let (replication, publisher_of_progress, progress_wanted) =
        ReplicationNews::channel(config.reads != ReadFrom::Primary);
    let dialer = Dialer::of(&config, certificates.to_nodes(Some(&topology)));
    let blueprint = Blueprint {
        config: config.clone(),
        topology: topology.clone(),
        hints,
        common: Registries {
            clients: clients.clone(),
            scans: Arc::default(),
            scripts: Arc::default(),
            rights: Arc::default(),
            admissions: Arc::default(),
            users: users.clone(),
            replication,
            reloads: rereading.reloads.clone(),
        },
        descriptors: descriptors.clone(),
        dialer: dialer.clone(),
        metrics: metrics.clone(),
        stop: stop.clone(),
    };
    let databases = Databases::of(&config, dialer.clone(), topology.clone(), metrics.clone());
    let workers = (0..count).map(|number| Worker::start(number, blueprint.clone()));
    let workers =
        workers.collect::<io::Result<Vec<_>>>().map_err(|error| ServeError::System("cannot start a worker", error))?;
    let following = Following {
        dialer: dialer.clone(),
        login: Login { credentials: Credentials::of(&config), ..Login::default() },
        topology: topology.clone(),
        wanted: progress_wanted,
        publisher: publisher_of_progress,
    };
    let following = tokio::spawn(following.run(stop.clone()));
    let discovery =
        tokio::spawn(Discovery::new(&config, dialer.clone(), publisher, hints_in, metrics.clone()).run(stop.clone()));
    if let Some(predecessor) = predecessor {
        tokio::select! {
            taken = succeed(predecessor, topology.clone()) => taken?,
            // Nothing is served here yet: the running process serves on.
            () = shutdown.cancelled() => return Ok(()),
        }
    }
    let post = config.takeover.as_deref().map(Post::at).transpose();
    let post = post.map_err(|error| ServeError::System("`takeover`: cannot listen there", error))?;
    let admin = match config.admin {
        Some(address) => {
            let view = AdminView {
                topology: topology.clone(),
                descriptors: descriptors.clone(),
                metrics: metrics.clone(),
                shutdown: shutdown.clone(),
                clients: clients.clone(),
                login: Login { credentials: Credentials::of(&config), ..Login::default() },
                dialer: dialer.clone(),
                publishers: workers.iter().map(Worker::publisher).collect(),
                show_keys: config.show_keys,
            };
            let tls = certificates.for_clients().filter(|_| config.admin_tls).map(ForClients::for_visitors);
            let admin = Admin::start(address, admin_socket, config.reuse_port, tls, view, stop.clone());
            Some(admin.map_err(|error| ServeError::Bind(ListenAddress::Tcp(address), error))?)
        }
        None => None,
    };
    listening();
    let at = config.addresses().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let admin_at =
        admin.as_ref().map_or_else(String::new, |admin| format!("; status page and metrics at {}", admin.address()));
    metrics.events().info(EventKind::Process, format!("listening on {at}{admin_at}"));
    let acceptor = Acceptor::new(&config, &clients, &descriptors, &metrics, &workers);
    let in_force = watch::Sender::new(config.clone());
    let reloader = Reloader {
        rereading,
        config: &in_force,
        certificates,
        passwords: Passwords::of(&config, &users),
        workers: &workers,
        clients: &clients,
        users: &users,
        descriptors: &descriptors,
        dialer: &dialer,
        metrics: &metrics,
    };
    #[cfg(feature = "otlp")]
    let exporting = tokio::spawn(super::otlp::export(config.clone(), metrics.clone(), stop.clone()));
    if succeeds {
        // The manager has started the other.
        tell_manager(&[NotifyState::MainPid(std::process::id()), NotifyState::Ready]);
    } else {
        tell_manager(&[NotifyState::Ready]);
    }
    let handed_over: Vec<_> = listeners.iter().map(AsFd::as_fd).chain(admin.as_ref().map(Admin::socket)).collect();
    let mut successor = None;
    tokio::select! {
        found = hand_over(post.as_ref(), &handed_over) => successor = Some(found),
        () = acceptor.run(&listeners) => {}
        () = look_for_idle(&clients, in_force.subscribe()) => {}
        () = follow_nodes(&descriptors, topology) => {}
        () = databases.look_after() => {}
        () = observe(&metrics) => {}
        () = reloader.run() => {}
        () = async {
            shutdown.cancelled().await;
            let text = format!("draining: {} clients have what they asked for answered, and are then closed", clients.count());
            metrics.events().info(EventKind::Process, text);
            let delay = in_force.borrow().drain_delay;
            tokio::time::sleep(delay).await;
        } => {}
    }
    if successor.is_none() {
        // Else the service goes on, by another process.
        tell_manager(&[NotifyState::Stopping]);
    }
    let patience = in_force.borrow().drain_timeout;
    let mut admin = admin;
    if let Some(successor) = successor {
        // Who is in the backlog is the successor's client.
        listeners.iter().for_each(Listener::is_handed_over);
        drop((listeners, post));
        if let Some(admin) = admin.take() {
            let _ = tokio::task::spawn_blocking(|| admin.step_down()).await;
        }
        drop(successor);
        let text = format!(
            "a successor has the listening sockets: {} clients are served on until they fall idle",
            clients.count()
        );
        metrics.events().info(EventKind::Process, text);
        let config = in_force.borrow().clone();
        tokio::select! {
            () = retire(&clients, &workers, &config) => {}
            () = shutdown.cancelled() => {}
        }
    } else {
        // Who is in the backlog already has been promised a connection.
        acceptor.accept_rest(&listeners).await;
        drop((listeners, post));
    }
    drain(&clients, patience, &now).await;
    stop.cancel();
    for worker in workers {
        let _ = tokio::task::spawn_blocking(|| worker.join()).await;
    }
    let _ = discovery.await;
    let _ = following.await;
    #[cfg(feature = "otlp")]
    let _ = exporting.await;
    if let Some(admin) = admin {
        admin.join();
    }
    tracing::info!("stopped: every client has been answered or closed");
    Ok(())
}

/// The listening sockets that are there already, from the service manager or from the process whose place this one takes.
fn inherit(config: &Config) -> Result<(Inherited, Option<Predecessor>), ServeError> {
    let found = config.takeover.as_deref().map(takeover::ask).transpose();
    let found = found.map_err(|error| ServeError::System("`takeover`: the running process gives no sockets", error))?;
    match found.flatten() {
        Some((inherited, predecessor)) => Ok((inherited, Some(predecessor))),
        None => Inherited::from_service_manager()
            .map(|inherited| (inherited, None))
            .map_err(|error| ServeError::System("the service manager passes what is no listening socket", error)),
    }
}

/// Takes the place of the running process once the cluster is known; where it is not in time, that one serves on.
async fn succeed(predecessor: Predecessor, mut topology: watch::Receiver<Arc<Topology>>) -> Result<(), ServeError> {
    let known = topology.wait_for(|topology| topology.reachable() > 0);
    if !matches!(tokio::time::timeout(BECOMING_READY, known).await, Ok(Ok(_))) {
        let why = io::Error::new(io::ErrorKind::TimedOut, "no slot is served; the running process serves on");
        return Err(ServeError::System("the place of the running process is not taken", why));
    }
    let stepped = tokio::task::spawn_blocking(|| predecessor.step_down()).await;
    if !matches!(stepped, Ok(Ok(()))) {
        tracing::warn!("the process whose place this one takes has gone without a word");
    }
    tracing::info!("the place of the running process is taken");
    Ok(())
}

/// Waits for a successor; for ever where none can come.
async fn hand_over(post: Option<&Post>, sockets: &[BorrowedFd<'_>]) -> Successor {
    match post {
        Some(post) => post.hand_over(sockets).await,
        None => std::future::pending().await,
    }
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

/// Every client and every link is an open file: takes as many as the system lets us have, and says how many that is.
fn raise_file_limit() -> usize {
    let files = rlimit::increase_nofile_limit(u64::MAX).unwrap_or_else(|error| {
        tracing::warn!(%error, "cannot raise the limit of open files");
        rlimit::Resource::NOFILE.get_soft().unwrap_or(FEW_FILES)
    });
    tracing::debug!(files, "open files allowed");
    usize::try_from(files).unwrap_or(usize::MAX)
}
