//! A worker without sockets, for unit tests: its router, over nodes that say what a test has them say.

use std::{cell::RefCell, rc::Rc, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, watch},
    task::LocalSet,
};

use super::{Registries, Reloads, ReplicationNews, Router, Settings};
use crate::{
    clients::{Clients, rights::UserRules},
    cluster::{
        replication::Replication,
        topology::{AddressMap, Hint, Hints, Topology},
    },
    config::Config,
    metrics::Metrics,
    protocol::{
        address::Address,
        resp::{
            Value,
            request::{OwnedRequest, Parser},
            write,
        },
    },
    upstream::{
        connector::Connector,
        descriptors::Descriptors,
        dial::{Dialer, Login},
        doubt::Ender,
        link::{Sizes, Timeouts, WorkerContext},
        ticket::Clock,
        transport::memory::{Backlog, Memory, Peer},
    },
};

/// Nodes at 127.0.0.1:7000 and on, which share the slots evenly, and the router of one worker.
pub struct Scripted {
    /// The worker's router.
    pub router: Rc<Router>,
    /// What discovery would be told.
    pub hints: mpsc::Receiver<Hint>,
    /// What discovery publishes.
    pub topology: watch::Sender<Arc<Topology>>,
    /// How far replicas have come.
    pub progress: watch::Sender<Arc<Replication>>,
    memory: Memory,
    backlogs: Vec<Option<Backlog>>,
}

impl Scripted {
    /// So many nodes, with the default configuration.
    pub fn new(nodes: u16) -> Scripted {
        Scripted::configured(nodes, &Config::defaults())
    }

    /// So many nodes, with this configuration.
    pub fn configured(nodes: u16, config: &Config) -> Scripted {
        let (memory, metrics) = (Memory::default(), Metrics::new());
        let backlogs = (0..nodes).map(|index| Some(memory.listen(&address(index)))).collect();
        let (topology, news) = watch::channel(Arc::new(evenly(nodes)));
        let (sender, hints) = Hints::channel(64);
        let descriptors = Descriptors::new(10_000, 1_000, 1);
        descriptors.follow(usize::from(nodes));
        let dialer = Dialer::to(&memory);
        let context = WorkerContext {
            timeouts: Rc::new(Timeouts::of(config)),
            connector: Connector { ender: Ender::new(Login::default(), dialer.clone()), dialer, descriptors },
            sizes: Sizes::default(),
            clock: Rc::new(Clock::start()),
            buffer: Rc::new(RefCell::new(vec![0; 64 * 1024].into_boxed_slice())),
            hints: sender,
            departures: Rc::default(),
        };
        let (replication, progress, _) = ReplicationNews::channel(false);
        let common = Registries {
            clients: Arc::new(Clients::new(config.max_buffered)),
            scans: Arc::default(),
            scripts: Arc::default(),
            rights: Arc::default(),
            admissions: Arc::default(),
            users: Arc::default(),
            replication,
            reloads: Reloads::default(),
        };
        let tally = Rc::new(metrics.client_tally());
        let router = Router::new(
            news,
            context,
            Settings::of(config),
            tally,
            metrics.node_tallies(),
            metrics.database_tallies(),
            common,
        );
        let user = router.own_user();
        user.learn(may_do_all(), user.generation(), router.clock().now());
        Scripted { router, hints, topology, progress, memory, backlogs }
    }

    /// The next connection to a node, logged in.
    pub async fn node(&mut self, index: u16) -> Peer {
        let mut peer = self.dialled(index).await;
        // HELLO tells who wants to know what the node calls the connection.
        let is_asked = peer.request().await == frame("HELLO 2");
        peer.says(if is_asked { b"*2\r\n$2\r\nid\r\n:7\r\n" } else { b"+PONG\r\n" }).await;
        peer
    }

    /// The next connection to a node, before anything is said.
    pub async fn dialled(&mut self, index: u16) -> Peer {
        self.backlogs[usize::from(index)].as_mut().expect("the node listens").accept().await
    }

    /// The node refuses connections from now on.
    pub fn stop(&mut self, index: u16) {
        self.backlogs[usize::from(index)] = None;
    }

    /// The node listens again.
    pub fn start(&mut self, index: u16) {
        self.backlogs[usize::from(index)] = Some(self.memory.listen(&address(index)));
    }
}

/// Runs a test that ends within a minute of the paused clock, where it may spawn tasks of this thread.
pub async fn within_a_minute(test: impl Future<Output = ()>) {
    let tasks = LocalSet::new();
    tokio::time::timeout(Duration::from_secs(60), tasks.run_until(test)).await.expect("nothing waits for ever");
}

/// The request of these words.
pub fn frame(words: &str) -> Vec<u8> {
    let mut frame = Vec::new();
    write::request(&mut frame, &words.split(' ').collect::<Vec<_>>());
    frame
}

/// The request of these words, as a client has sent it.
pub fn request(words: &str) -> OwnedRequest {
    let (frame, mut parser) = (frame(words), Parser::default());
    let found = parser.find(&frame).expect("a request").expect("the whole of it");
    parser.request(&frame, found).to_owned()
}

fn address(index: u16) -> String {
    format!("127.0.0.1:{}", 7000 + index)
}

/// What ACL GETUSER tells of a user who may do all.
fn may_do_all() -> UserRules {
    let rules = [&b"*6\r\n"[..], &frame("commands +@all keys ~* channels &*")[4..]].concat();
    let (rules, _) = Value::parse(&rules).unwrap().unwrap();
    UserRules::parse(&rules).unwrap()
}

/// What CLUSTER SLOTS would tell, of nodes without ids.
fn evenly(nodes: u16) -> Topology {
    let share = |index: u16| u32::from(index) * 16384 / u32::from(nodes);
    let mut slots = format!("*{nodes}\r\n");
    for index in 0..nodes {
        let (first, last, port) = (share(index), share(index + 1) - 1, 7000 + index);
        slots += &format!("*3\r\n:{first}\r\n:{last}\r\n*2\r\n$9\r\n127.0.0.1\r\n:{port}\r\n");
    }
    let (slots, _) = Value::parse(slots.as_bytes()).unwrap().unwrap();
    Topology::from_slots(&slots, &Address::new("127.0.0.1", 7000), Arc::new(AddressMap::default())).unwrap()
}
