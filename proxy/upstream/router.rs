//! One worker's view of the cluster: its topology snapshot, and its links to every node in every lane.
//!
//! The router is what the sessions of a worker share. It decides nothing about a request; it knows which link leads
//! where, and keeps that true when the topology changes.

mod admissions;
mod lane;
mod moving;
mod registries;
mod reloads;
#[cfg(test)]
pub mod scripted;
mod settings;

use std::{
    cell::{Cell, Ref, RefCell, RefMut},
    collections::{HashMap, HashSet},
    future::Future,
    pin::Pin,
    rc::{Rc, Weak},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use tokio::sync::watch;

use self::moving::Moving;
pub use self::{
    admissions::{Admission, Admissions},
    lane::Lane,
    registries::{Registries, ReplicationNews},
    reloads::{ReloadRequest, Reloads},
    settings::Settings,
};
use crate::{
    clients::{
        Clients, ListenerSettings,
        rights::{Rights, User},
        users::Users,
    },
    cluster::{
        scan::Scans,
        topology::{Hint, Hints, Node, Route, Topology},
    },
    commands::{database::WrappedScripts, scripts::ScriptCache},
    config::Config,
    metrics::{ClientTally, DatabaseTallies, DatabaseTally, NodeTallies, NodeTally},
    protocol::resp::request::RequestWriter,
    upstream::{
        connector::Connector,
        dedicated::Pool,
        dial::{Login, TrackingRequest},
        link::{Audience, Timeouts, WorkerContext},
        sizes::LargeReplies,
        ticket::Clock,
    },
};

/// How long a request to the node that all publishing goes through may wait before the others are asked about that node.
const LONG_WAIT: std::time::Duration = std::time::Duration::from_millis(500);

/// What the sessions of one worker share.
pub struct Router {
    topology: RefCell<Arc<Topology>>,
    news: RefCell<watch::Receiver<Arc<Topology>>>,
    epoch: Cell<u64>,
    lanes: RefCell<HashMap<Login, Weak<Lane>>>,
    /// Lanes of clients without credentials of their own stay open: clients come and go all the time.
    kept: RefCell<Vec<Rc<Lane>>>,
    context: WorkerContext,
    settings: Rc<Settings>,
    tally: Rc<ClientTally>,
    nodes: Rc<NodeTallies>,
    databases: DatabaseTallies,
    clients: Arc<Clients>,
    scans: Arc<Mutex<Scans>>,
    scripts: ScriptCache,
    wrapped: Rc<WrappedScripts>,
    writer: RefCell<RequestWriter>,
    admissions: Arc<Admissions>,
    moving: Moving,
    replication: ReplicationNews,
    rights: Arc<Rights>,
    users: Arc<Users>,
    reloads: Reloads,
    /// The nodes' user for clients without credentials of their own.
    own_user: Arc<User>,
    /// Requests that nodes have missed, with those nodes' ids: they are made up for when the nodes are back.
    owed: RefCell<HashSet<(String, Bytes)>>,
}

impl Router {
    /// The router of a worker.
    pub fn new(
        news: watch::Receiver<Arc<Topology>>,
        context: WorkerContext,
        settings: Settings,
        tally: Rc<ClientTally>,
        nodes: NodeTallies,
        databases: DatabaseTallies,
        common: Registries,
    ) -> Rc<Router> {
        let topology = news.borrow().clone();
        context.sizes.heed(topology.accepts);
        Rc::new(Router {
            epoch: Cell::new(topology.epoch),
            topology: RefCell::new(topology),
            news: RefCell::new(news),
            lanes: RefCell::default(),
            kept: RefCell::default(),
            context,
            own_user: common.rights.user(settings.login.user()),
            rights: common.rights,
            users: common.users,
            reloads: common.reloads,
            settings: Rc::new(settings),
            tally,
            nodes: Rc::new(nodes),
            databases,
            clients: common.clients,
            scans: common.scans,
            scripts: ScriptCache::new(common.scripts),
            wrapped: Rc::default(),
            writer: RefCell::default(),
            admissions: common.admissions,
            moving: Moving::default(),
            replication: common.replication,
            owed: RefCell::default(),
        })
    }

    /// Takes the newest topology.
    pub fn refresh(&self) {
        let mut news = self.news.borrow_mut();
        if !news.has_changed().unwrap_or(false) {
            return;
        }
        let newest = news.borrow_and_update().clone();
        self.epoch.set(newest.epoch);
        let evicted = self.context.sizes.accepts.get().evicts_clients;
        self.context.sizes.heed(newest.accepts);
        if newest.accepts.evicts_clients && !evicted {
            let lanes = self.lanes.borrow().values().filter_map(Weak::upgrade).collect::<Vec<_>>();
            lanes.iter().for_each(|lane| lane.stay());
        }
        self.topology.replace(newest);
    }

    /// The topologies to come.
    pub fn news(&self) -> watch::Receiver<Arc<Topology>> {
        self.news.borrow().clone()
    }

    /// The topology in use.
    pub fn topology(&self) -> Ref<'_, Arc<Topology>> {
        self.topology.borrow()
    }

    /// The number of the topology in use.
    pub fn epoch(&self) -> u64 {
        self.epoch.get()
    }

    /// Ready when there is a newer topology than the one that [`Router::refresh`] has taken last.
    pub fn next_news(&self) -> Pin<Box<dyn Future<Output = ()>>> {
        let mut news = self.news.borrow().clone();
        Box::pin(async move {
            if news.changed().await.is_err() {
                // The process ends.
                std::future::pending().await
            }
        })
    }

    /// Tells discovery something.
    pub fn hint(&self, hint: Hint) {
        self.context.hints.tell(hint);
    }

    /// As [`Router::hint`], what must not be lost.
    pub fn tell(&self, hint: Hint) {
        let hints = self.context.hints.clone();
        tokio::task::spawn_local(async move { hints.tell_surely(hint).await });
    }

    /// What the worker counts of a node.
    pub fn node_tally(&self, node: &Node) -> Rc<NodeTally> {
        self.nodes.of(&node.label)
    }

    /// The lane of connections that log in like this.
    pub fn lane(&self, login: &Login) -> Rc<Lane> {
        if let Some(lane) = self.lanes.borrow().get(login).and_then(Weak::upgrade) {
            return lane;
        }
        let lane = Rc::new(Lane::new(login, self.pool(login), None));
        let mut lanes = self.lanes.borrow_mut();
        lanes.retain(|_, lane| lane.strong_count() > 0);
        lanes.insert(login.clone(), Rc::downgrade(&lane));
        if login.is_own() && login.database == 0 {
            self.kept.borrow_mut().push(lane.clone());
        }
        lane
    }

    /// A pool of connections that log in like this. No lane shares it.
    pub fn pool(&self, login: &Login) -> Rc<Pool> {
        let WorkerContext { connector, sizes, .. } = &self.context;
        Pool::new(login, connector, &sizes.accepts, &self.clients, &self.nodes)
    }

    /// A lane of one client's own, whose nodes tell `audience` which keys change. Connections for other uses are those of
    /// all who log in like this.
    pub fn private_lane(&self, login: &Login, tracking: TrackingRequest, audience: Rc<dyn Audience>) -> Rc<Lane> {
        Rc::new(Lane::new(login, self.lane(login).pool().clone(), Some((tracking, audience))))
    }

    /// The lane of a client that has said nothing yet.
    pub fn first_lane(&self) -> Rc<Lane> {
        self.lane(&self.settings.login)
    }

    /// The node that serves a route now.
    pub fn node_for(&self, route: Route, affinity: usize) -> Option<Arc<Node>> {
        self.topology.borrow().node_for(route, affinity).cloned()
    }

    /// From now on the operator has decided this.
    pub fn adopt(&self, config: &Config) {
        self.settings.adopt(config);
        self.context.timeouts.adopt(config);
    }

    /// What the operator has decided.
    pub fn settings(&self) -> &Rc<Settings> {
        &self.settings
    }

    /// Adds what this worker has counted to what all have. Where nobody sends anything, this is what lets go of nodes that
    /// have left: their series stay as long as any worker counts there.
    pub fn publish(&self) {
        self.refresh();
        let topology = self.topology();
        let pubsub_node = topology.pubsub_index();
        for lane in self.lanes.borrow().values().filter_map(Weak::upgrade) {
            lane.follow(&topology);
            // Others may know by now whether it fails: what goes through it could go by another node.
            if let Some(link) = pubsub_node.and_then(|pubsub_node| lane.open_link(pubsub_node))
                && link.keeps_waiting(LONG_WAIT)
            {
                self.hint(Hint::Unwell { node: link.node().id.clone() });
            }
        }
        self.context.sizes.large.expire(std::time::Instant::now());
        self.admissions.keep(|label| topology.nodes.iter().any(|node| *node.label == *label));
        self.tally.publish();
        self.databases.publish();
        self.nodes.publish(|label| topology.nodes.iter().any(|node| *node.label == *label));
    }

    /// What the worker counts of a database of its own.
    pub fn database_tally(&self, name: &str) -> Rc<DatabaseTally> {
        self.databases.of(name)
    }

    /// The worker's time.
    pub fn clock(&self) -> &Rc<Clock> {
        &self.context.clock
    }

    /// The worker's read buffer.
    pub fn buffer(&self) -> &Rc<RefCell<Box<[u8]>>> {
        &self.context.buffer
    }

    /// What the worker counts of its clients.
    pub fn tally(&self) -> &Rc<ClientTally> {
        &self.tally
    }

    /// How long requests may take, and nodes.
    pub fn timeouts(&self) -> &Timeouts {
        &self.context.timeouts
    }

    /// How nodes are connected to.
    pub fn connector(&self) -> &Connector {
        &self.context.connector
    }

    /// Which replies have been large.
    pub fn large(&self) -> &LargeReplies {
        &self.context.sizes.large
    }

    /// Where news for discovery go.
    pub fn hints(&self) -> &Hints {
        &self.context.hints
    }

    /// A client has gone with requests unanswered.
    pub fn client_departed(&self) {
        let departures = &self.context.departures;
        departures.set(departures.get().wrapping_add(1));
    }

    /// The scans under way, those of all workers: a client may fetch its next page by another connection.
    pub fn scans(&self) -> MutexGuard<'_, Scans> {
        self.scans.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody reads from replicas: how far those have come is asked for from now on.
    pub fn watch_replicas(&self) {
        self.replication.wanted.send_if_modified(|wanted| !std::mem::replace(wanted, true));
    }

    /// The slots that are on their way from node to node.
    pub fn moving(&self) -> &Moving {
        &self.moving
    }

    /// Requests that nodes have missed, with those nodes' ids: they are made up for when the nodes are back.
    pub fn owed(&self) -> &RefCell<HashSet<(String, Bytes)>> {
        &self.owed
    }

    /// Scripts as they are kept in databases of their own.
    pub fn wrapped(&self) -> &Rc<WrappedScripts> {
        &self.wrapped
    }

    /// The buffer in which a session rewrites a request; one session at a time uses it.
    pub fn writer(&self) -> RefMut<'_, RequestWriter> {
        let mut writer = self.writer.borrow_mut();
        writer.shrink();
        writer
    }

    /// The texts of scripts.
    pub fn scripts(&self) -> &ScriptCache {
        &self.scripts
    }

    /// What users may do.
    pub fn rights(&self) -> &Rights {
        &self.rights
    }

    /// The proxy's own users.
    pub fn users(&self) -> &Users {
        &self.users
    }

    /// Whether the clients of this listener have to log in before anything else.
    pub fn asks_who(&self, listener: &ListenerSettings) -> bool {
        self.settings.client_credentials.borrow().is_some() || !self.users.is_empty() || !listener.users.is_empty()
    }

    /// Whether it is left to the nodes whether a client of this listener may log in as this user. Where the proxy has users
    /// of its own, the nodes' `default` is only where the listener names it: it may need no password.
    pub fn passes_on(&self, user: &[u8], listener: &ListenerSettings) -> bool {
        self.users.is_empty() || user != b"default" || listener.users.iter().any(|name| name == "default")
    }

    /// The user of a lane.
    pub fn user_of(&self, login: &Login) -> Arc<User> {
        self.rights.user(login.user())
    }

    /// The nodes' user for clients without credentials of their own.
    pub fn own_user(&self) -> &Arc<User> {
        &self.own_user
    }

    /// The places at nodes for requests whose replies may be large.
    pub fn admissions(&self) -> &Arc<Admissions> {
        &self.admissions
    }

    /// Requests to read the configuration again.
    pub fn reloads(&self) -> &Reloads {
        &self.reloads
    }

    /// All clients of the process.
    pub fn clients(&self) -> &Arc<Clients> {
        &self.clients
    }
}

#[cfg(test)]
mod tests;
