//! One OS thread that owns its clients and its links: nothing of them is shared with other threads.

mod handshake;
mod proxy_header;

use std::{
    cell::RefCell,
    io,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use tokio::{
    io::AsyncWriteExt,
    runtime::{Builder, LocalOptions},
    sync::{mpsc, oneshot, watch},
    task::spawn_local,
    time::{MissedTickBehavior, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    clients::{Client, Clients},
    cluster::topology::{Hints, Topology},
    config::Config,
    metrics::{Disconnect, Metrics},
    protocol::says,
    session::{self, Session},
    upstream::{
        connector::Connector,
        descriptors::{Descriptor, Descriptors},
        dial::{Credentials, Dialer, Login},
        doubt::Ender,
        link::{Sizes, Timeouts, WorkerContext},
        router::{Registries, Router, Settings},
        ticket::Clock,
        transport::Accepted,
    },
};

/// The read buffer that everything on a worker shares: large enough for a deep pipeline, small enough for the cache.
const READ_BUFFER: usize = 64 * 1024;
/// How long a client that is refused may take to be told why.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How often what a worker has counted is published.
const PUBLISH_EVERY: Duration = Duration::from_secs(1);
/// How many tasks that are ready get their turn before the worker looks for events anew: all sessions of a busy worker, so
/// that each link writes what they all have sent at once.
const READY_AT_ONCE: u32 = 1024;

/// A running worker, as the acceptor sees it.
pub struct Worker {
    thread: JoinHandle<()>,
    messages: mpsc::UnboundedSender<WorkerMessage>,
    clients: Arc<Clients>,
    sessions: Arc<AtomicUsize>,
}

/// What all workers are built from.
#[derive(Clone)]
pub struct Blueprint {
    /// The configuration.
    pub config: Arc<Config>,
    /// Topology snapshots.
    pub topology: watch::Receiver<Arc<Topology>>,
    /// The way to discovery.
    pub hints: Hints,
    /// What all workers share.
    pub common: Registries,
    /// The process's open files.
    pub descriptors: Arc<Descriptors>,
    /// How nodes are connected to.
    pub dialer: Dialer,
    /// The process's metrics.
    pub metrics: Metrics,
    /// Ends the workers at once.
    pub stop: CancellationToken,
}

/// What a worker is to do.
enum WorkerMessage {
    /// Serve a client.
    Serve(Accepted, ClientGuard),
    /// Go by a new configuration from now on, and say when that is done.
    Adopt(Arc<Config>, oneshot::Sender<()>),
    /// Publish what has been counted, and then say so.
    Publish(oneshot::Sender<()>),
}

/// Has a worker publish what it has counted.
#[derive(Clone)]
pub struct Publisher(mpsc::UnboundedSender<WorkerMessage>);

impl Publisher {
    /// Asks for it; ready once it has been done.
    pub fn ask(&self) -> oneshot::Receiver<()> {
        let (done, heard) = oneshot::channel();
        let _ = self.0.send(WorkerMessage::Publish(done));
        heard
    }
}

impl Worker {
    /// Starts the worker with this number.
    pub fn start(number: usize, blueprint: Blueprint) -> io::Result<Worker> {
        let (messages, queue) = mpsc::unbounded_channel();
        let sessions = Arc::new(AtomicUsize::new(0));
        let clients = blueprint.common.clients.clone();
        let runtime = move || {
            let mut builder = Builder::new_current_thread();
            builder.enable_all().event_interval(READY_AT_ONCE).build_local(LocalOptions::default())
        };
        let thread = thread::Builder::new().name(format!("worker-{number}")).spawn(move || match runtime() {
            Ok(runtime) => runtime.block_on(run(blueprint, queue)),
            Err(error) => tracing::error!(%error, "a worker cannot start"),
        })?;
        Ok(Worker { thread, messages, clients, sessions })
    }

    /// How many clients it serves. One that has ended is full: the others are to be preferred.
    pub fn load(&self) -> usize {
        if self.messages.is_closed() { usize::MAX } else { self.sessions.load(Relaxed) }
    }

    /// Hands it a client, with the open file that it takes. A worker that has ended closes it.
    pub fn welcome(&self, stream: Accepted, client: Arc<Client>, descriptor: Descriptor) {
        self.sessions.fetch_add(1, Relaxed);
        let (clients, sessions) = (self.clients.clone(), self.sessions.clone());
        let guard = ClientGuard { client, clients, sessions, _descriptor: descriptor };
        let _ = self.messages.send(WorkerMessage::Serve(stream, guard));
    }

    /// Has it go by this configuration. Resolves when it does; fails where it has ended.
    pub fn adopt(&self, config: Arc<Config>) -> oneshot::Receiver<()> {
        let (done, adopted) = oneshot::channel();
        let _ = self.messages.send(WorkerMessage::Adopt(config, done));
        adopted
    }

    /// A handle by which others have it publish its newest counts.
    pub fn publisher(&self) -> Publisher {
        Publisher(self.messages.clone())
    }

    /// Waits for its end.
    pub fn join(self) {
        drop(self.messages);
        if self.thread.join().is_err() {
            tracing::error!("a worker panicked");
        }
    }
}

async fn run(blueprint: Blueprint, mut messages: mpsc::UnboundedReceiver<WorkerMessage>) {
    let router = build_router(&blueprint);
    let mut publish = tokio::time::interval(PUBLISH_EVERY);
    publish.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            message = messages.recv() => match message {
                Some(WorkerMessage::Publish(done)) => {
                    router.publish();
                    let _ = done.send(());
                }
                Some(WorkerMessage::Serve(stream, guard)) => {
                    spawn_local(serve(router.clone(), stream, guard));
                }
                Some(WorkerMessage::Adopt(config, done)) => {
                    router.adopt(&config);
                    let _ = done.send(());
                }
                None => break,
            },
            _ = publish.tick() => {
                router.publish();
                session::look_after_users(&router);
            }
            () = blueprint.stop.cancelled() => break,
        }
    }
    router.publish();
}

fn build_router(blueprint: &Blueprint) -> Rc<Router> {
    let config = &blueprint.config;
    let dialer = blueprint.dialer.clone();
    let own = Login { credentials: Credentials::of(config), own: Credentials::of(config), ..Login::default() };
    let context = WorkerContext {
        clock: Rc::new(Clock::start()),
        buffer: Rc::new(RefCell::new(vec![0; READ_BUFFER].into_boxed_slice())),
        hints: blueprint.hints.clone(),
        sizes: Sizes::default(),
        departures: Rc::default(),
        timeouts: Rc::new(Timeouts::of(config)),
        connector: Connector {
            ender: Ender::new(own, dialer.clone()),
            descriptors: blueprint.descriptors.clone(),
            dialer,
        },
    };
    Router::new(
        blueprint.topology.clone(),
        context,
        Settings::of(config),
        Rc::new(blueprint.metrics.client_tally()),
        blueprint.metrics.node_tallies(),
        blueprint.metrics.database_tallies(),
        blueprint.common.clone(),
    )
}

/// A client's place in the registry and in the worker's count, given back however its session ends, and where none begins.
struct ClientGuard {
    client: Arc<Client>,
    clients: Arc<Clients>,
    sessions: Arc<AtomicUsize>,
    _descriptor: Descriptor,
}

impl Drop for ClientGuard {
    fn drop(&mut self) {
        self.clients.leave(self.client.id);
        self.sessions.fetch_sub(1, Relaxed);
    }
}

async fn serve(router: Rc<Router>, stream: Accepted, guard: ClientGuard) {
    let Ok(mut stream) = stream.attach() else { return };
    let tally = router.tally().clone();
    tally.client_came();
    let listener = guard.client.listener.clone();
    if listener.proxy_protocol
        && !Box::pin(proxy_header::is_read(&mut stream, &guard.client, &guard.clients, &listener.trusted_proxies)).await
    {
        return tally.client_left(Disconnect::ProxyHeader);
    }
    // Boxed, so that its memory is given back when it is over.
    if !Box::pin(handshake::is_agreed(&mut stream, &guard.client, &guard.clients, &tally)).await {
        return tally.client_left(Disconnect::Handshake);
    }
    if listener.is_open && router.settings().protects.get() && !guard.client.peer().is_here() {
        guard.clients.complaints.of_protected(&guard.client);
        let _ = timeout(LAST_WORDS, stream.write_all(format!("-{}\r\n", says::PROTECTED).as_bytes())).await;
        return tally.client_left(Disconnect::Protected);
    }
    let session = Session::new(router, stream, guard.client.clone());
    // A panic ends this client alone, and is counted as what it is.
    let reason = spawn_local(session.run()).await.unwrap_or(Disconnect::Panic);
    tally.client_left(reason);
    drop(guard);
}

#[cfg(test)]
mod tests;
