//! One worker's view of the cluster: its topology snapshot, and its links to every node in every lane.
//!
//! The router is what the sessions of a worker share. It decides nothing about a request; it knows which link leads
//! where, and keeps that true when the topology changes.

mod admissions;
mod moving;
#[cfg(test)]
pub mod scripted;

use std::{
    cell::{Cell, Ref, RefCell},
    collections::{HashMap, HashSet, hash_map::Entry},
    future::Future,
    pin::Pin,
    rc::{Rc, Weak},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use tokio::sync::watch;

pub use self::admissions::{Admission, Admissions};
use self::moving::Moving;
use crate::{
    clients::{
        Clients,
        rights::{Rights, User},
    },
    cluster::{
        recovery::Why,
        scan::Scans,
        topology::{Hint, Node, Route, Topology},
    },
    commands::{
        plan::Policy,
        scripts::{ScriptCache, Scripts},
    },
    config::{Config, CrossSlot, PubSubLimits, Secret},
    metrics::{ClientTally, NodeTallies, NodeTally},
    protocol::address::Address,
    upstream::{
        dedicated::{Pool, Way},
        dial::{Credentials, Login, Tracking},
        link::{Audience, Link, WorkerContext},
        ticket::{Clock, Ticket},
    },
};

/// How long a request to the node that all publishing goes through may wait before the others are asked about that node.
const LONG_WAIT: std::time::Duration = std::time::Duration::from_millis(500);

/// What an operator has decided about sessions.
#[derive(Debug)]
pub struct Settings {
    /// How each command is treated.
    pub policy: Policy,
    /// Whether what a client sends to a node waits for what it has under way at others.
    pub strict_order: bool,
    /// How long a client may send nothing.
    pub idle_timeout: Option<std::time::Duration>,
    /// Requests that one client may have in flight.
    pub client_window: usize,
    /// What a subscriber may owe.
    pub pubsub: PubSubLimits,
    /// How the proxy logs in for clients that have no credentials of their own.
    pub login: Login,
    /// What clients must say in AUTH; `None`: the nodes decide.
    pub client_credentials: Option<Credentials>,
}

impl Settings {
    /// What the configuration decides.
    pub fn of(config: &Config) -> Settings {
        let credentials = |name: &Option<String>, secret: &Option<Secret>| {
            let secret = Bytes::copy_from_slice(secret.as_ref()?.reveal().as_bytes());
            Some(Credentials { username: name.clone().map(Bytes::from), secret })
        };
        let own = credentials(&config.username, &config.password);
        let login = Login { credentials: own.clone(), own, ..Login::default() };
        Settings {
            policy: Policy::new(config.cross_slot == CrossSlot::Reject, &config.deny, &config.allow),
            strict_order: config.strict_order,
            idle_timeout: config.client_idle_timeout,
            client_window: config.client_window,
            pubsub: config.pubsub,
            login,
            client_credentials: credentials(&config.client_username, &config.client_password),
        }
    }
}

/// What the workers of the process share.
#[derive(Clone)]
pub struct Shared {
    /// All clients.
    pub clients: Arc<Clients>,
    /// The scans under way.
    pub scans: Arc<Mutex<Scans>>,
    /// The texts of scripts.
    pub scripts: Arc<Scripts>,
    /// What users may do.
    pub rights: Arc<Rights>,
    /// The places at nodes for requests whose replies may be large.
    pub admissions: Arc<Admissions>,
}

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
    clients: Arc<Clients>,
    scans: Arc<Mutex<Scans>>,
    scripts: ScriptCache,
    admissions: Arc<Admissions>,
    moving: Moving,
    rights: Arc<Rights>,
    /// Whom clients without credentials of their own work as.
    own_user: Arc<User>,
    /// What is to be done at nodes that have missed it, when they are back: at which, and what.
    owed: RefCell<HashSet<(String, Bytes)>>,
}

/// The links of one lane: of connections that are alike in RESP version, database and credentials.
pub struct Lane {
    login: Login,
    /// Links by the index of their node in the topology of `epoch`.
    links: RefCell<Vec<Option<Rc<Link>>>>,
    epoch: Cell<u64>,
    /// Links to nodes that the topology does not have any more, for what had begun there.
    strangers: RefCell<HashMap<Address, Rc<Link>>>,
    /// Connections for those who need one of their own.
    pool: Rc<Pool>,
    /// Its user may use MULTI, as far as is known.
    may_multi: Cell<bool>,
    /// It is one client's own: its nodes tell that client which keys change.
    private: Option<(RefCell<Tracking>, Rc<dyn Audience>)>,
    /// A link has ended that nodes may have told something on.
    let_go: Cell<bool>,
}

impl Router {
    /// The router of a worker.
    pub fn new(
        news: watch::Receiver<Arc<Topology>>,
        context: WorkerContext,
        settings: Settings,
        tally: Rc<ClientTally>,
        nodes: NodeTallies,
        common: Shared,
    ) -> Rc<Router> {
        let topology = news.borrow().clone();
        context.heed(topology.accepts);
        Rc::new(Router {
            epoch: Cell::new(topology.epoch),
            topology: RefCell::new(topology),
            news: RefCell::new(news),
            lanes: RefCell::default(),
            kept: RefCell::default(),
            context,
            own_user: common.rights.user(settings.login.user()),
            rights: common.rights,
            settings: Rc::new(settings),
            tally,
            nodes: Rc::new(nodes),
            clients: common.clients,
            scans: common.scans,
            scripts: ScriptCache::new(common.scripts),
            admissions: common.admissions,
            moving: Moving::default(),
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
        let evicted = self.context.accepts.get().evicts_clients;
        self.context.heed(newest.accepts);
        if newest.accepts.evicts_clients && !evicted {
            let lanes = self.lanes.borrow().values().filter_map(Weak::upgrade).collect::<Vec<_>>();
            lanes.iter().for_each(|lane| lane.links.borrow().iter().flatten().for_each(|link| link.stay()));
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

    /// Its number.
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
        if login.credentials == self.settings.login.credentials && login.database == 0 {
            self.kept.borrow_mut().push(lane.clone());
        }
        lane
    }

    /// A pool of connections that log in like this. No lane shares it.
    pub fn pool(&self, login: &Login) -> Rc<Pool> {
        let WorkerContext { dialer, descriptors, ender, accepts, .. } = &self.context;
        let way = Way { dialer: dialer.clone(), login: login.clone(), ender: ender.clone() };
        Pool::new(&self.clients, &self.nodes, descriptors, way, accepts)
    }

    /// A lane of one client's own, whose nodes tell `audience` which keys change. Connections for other uses are those of
    /// all who log in like this.
    pub fn private_lane(&self, login: &Login, tracking: Tracking, audience: Rc<dyn Audience>) -> Rc<Lane> {
        Rc::new(Lane::new(login, self.lane(login).pool.clone(), Some((tracking, audience))))
    }

    /// The lane of a client that has said nothing yet.
    pub fn first_lane(&self) -> Rc<Lane> {
        self.lane(&self.settings.login)
    }

    /// The node that serves a route now.
    pub fn node_for(&self, route: Route, affinity: usize) -> Option<Arc<Node>> {
        self.topology.borrow().node_for(route, affinity).cloned()
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
        let home = topology.home_index();
        for lane in self.lanes.borrow().values().filter_map(Weak::upgrade) {
            lane.follow(&topology);
            // Others may know by now whether it fails: what goes through it could go by another node.
            if let Some(link) = home.and_then(|home| lane.links.borrow().get(home).cloned().flatten())
                && link.keeps_waiting(LONG_WAIT)
            {
                self.hint(Hint::Unwell { node: link.node().id.clone() });
            }
        }
        self.context.large.expire(std::time::Instant::now());
        self.admissions.keep(|label| topology.nodes.iter().any(|node| *node.label == *label));
        self.tally.publish();
        self.nodes.publish(|label| topology.nodes.iter().any(|node| *node.label == *label));
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

    /// What links and dedicated connections share.
    pub fn context(&self) -> &WorkerContext {
        &self.context
    }

    /// The scans under way, those of all workers: a client may fetch its next page by another connection.
    pub fn scans(&self) -> MutexGuard<'_, Scans> {
        self.scans.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The slots that are on their way from node to node.
    pub fn moving(&self) -> &Moving {
        &self.moving
    }

    /// What is to be done at nodes that have missed it, when they are back: at which, and what.
    pub fn owed(&self) -> &RefCell<HashSet<(String, Bytes)>> {
        &self.owed
    }

    /// The texts of scripts.
    pub fn scripts(&self) -> &ScriptCache {
        &self.scripts
    }

    /// What users may do.
    pub fn rights(&self) -> &Rights {
        &self.rights
    }

    /// The user of a lane.
    pub fn user_of(&self, login: &Login) -> Arc<User> {
        self.rights.user(login.user())
    }

    /// Whom clients without credentials of their own work as.
    pub fn own_user(&self) -> &Arc<User> {
        &self.own_user
    }

    /// The places at nodes for requests whose replies may be large.
    pub fn admissions(&self) -> &Arc<Admissions> {
        &self.admissions
    }

    /// All clients of the process.
    pub fn clients(&self) -> &Arc<Clients> {
        &self.clients
    }
}

impl Lane {
    fn new(login: &Login, pool: Rc<Pool>, private: Option<(Tracking, Rc<dyn Audience>)>) -> Lane {
        Lane {
            login: login.clone(),
            links: RefCell::default(),
            epoch: Cell::new(u64::MAX),
            strangers: RefCell::default(),
            pool,
            // Without credentials it is the default user, who is told of restrictions by the server.
            may_multi: Cell::new(login.credentials.is_none()),
            private: private.map(|(tracking, audience)| (RefCell::new(tracking), audience)),
            let_go: Cell::new(false),
        }
    }

    /// Idle connections that log in like this, for those who need one of their own.
    pub fn pool(&self) -> &Rc<Pool> {
        &self.pool
    }

    /// Whether its user is known to be allowed MULTI.
    pub fn may_multi(&self) -> bool {
        self.may_multi.get()
    }

    /// A node let its user use MULTI.
    pub fn set_may_multi(&self) {
        self.may_multi.set(true);
    }

    /// Whether it is one client's own.
    pub fn is_private(&self) -> bool {
        self.private.is_some()
    }

    /// How its connections log in.
    pub fn login(&self) -> &Login {
        &self.login
    }

    /// Sends a request where its ticket says. `affinity` picks among all primaries, for requests that any may answer.
    pub fn send(&self, router: &Router, affinity: usize, request: &[u8], ticket: Ticket) {
        match self.link(router, affinity, ticket.route) {
            Some(link) => link.send(request, ticket),
            None => refuse(router, request, ticket),
        }
    }

    /// The link to where a request is to go; `None` where no node serves that.
    pub fn link(&self, router: &Router, affinity: usize, route: Route) -> Option<Rc<Link>> {
        let topology = router.topology.borrow();
        self.follow(&topology);
        let index = topology.resolve(route, affinity, |index| self.is_well(index))?;
        let links = &mut *self.links.borrow_mut();
        let place = links.get_mut(index)?;
        if place.is_none() {
            *place = Some(self.open(router, topology.nodes.get(index)?));
        }
        place.clone()
    }

    /// Whether nothing bad is known of the link to a node.
    fn is_well(&self, index: usize) -> bool {
        self.links.borrow().get(index).is_some_and(|link| link.as_ref().is_none_or(|link| !link.is_unwell()))
    }

    /// The link to this very node.
    pub fn link_to(&self, router: &Router, node: &Arc<Node>) -> Rc<Link> {
        let topology = router.topology.borrow();
        self.follow(&topology);
        if let Some(index) = topology.nodes.iter().position(|known| known.id == node.id) {
            let links = &mut *self.links.borrow_mut();
            if let Some(place) = links.get_mut(index) {
                return place.get_or_insert_with(|| self.open(router, node)).clone();
            }
        }
        let mut strangers = self.strangers.borrow_mut();
        strangers.entry(node.reach.clone()).or_insert_with(|| self.open(router, node)).clone()
    }

    /// Opens links to all primaries that own slots and ends those to others, which would tell everything twice. Says
    /// whether a link has ended since the last time: what was to be told there is lost.
    pub fn cover(&self, router: &Router) -> bool {
        let topology = router.topology.borrow();
        self.follow(&topology);
        let owners: HashSet<usize> =
            topology.first_slots().iter().filter_map(|slot| topology.owner_index(*slot)).collect();
        for (index, place) in self.links.borrow_mut().iter_mut().enumerate() {
            match topology.nodes.get(index) {
                Some(node) if owners.contains(&index) => {
                    place.get_or_insert_with(|| self.open(router, node));
                }
                _ => {
                    if let Some(link) = place.take() {
                        link.retire();
                        self.let_go.set(true);
                    }
                }
            }
        }
        self.let_go.take()
    }

    /// From now on the nodes of a client's own lane are to tell which keys change as `all` says. Those that are connected
    /// have to be asked for what is `new` in that, by these requests.
    pub fn track(&self, all: &Tracking, new: &Tracking) -> Vec<(Rc<Link>, Vec<u8>)> {
        if let Some((tracking, _)) = &self.private {
            tracking.replace(all.clone());
        }
        let (links, strangers) = (self.links.borrow(), self.strangers.borrow());
        let every = links.iter().flatten().chain(strangers.values());
        every.filter_map(|link| Some((link.clone(), link.track(all, new)?))).collect()
    }

    fn open(&self, router: &Router, node: &Arc<Node>) -> Rc<Link> {
        let private = self.private.as_ref().map(|(tracking, audience)| (tracking.borrow().clone(), audience.clone()));
        let (tracking, audience) = private.unzip();
        let login = Login { tracking, ..self.login.clone() };
        let own = &router.settings.login;
        let is_kept_back = self.private.is_none() && login.credentials == own.credentials && login.database == 0;
        let tally = router.nodes.of(&node.label);
        Link::open(node.clone(), login, tally, router.context.clone(), audience, is_kept_back)
    }

    /// Puts the links in the order of a new topology. A link whose node has kept its id, its name and the address where it
    /// is reached goes on, whatever else has changed; the others end once they have answered what they owe.
    fn follow(&self, topology: &Topology) {
        if self.epoch.get() == topology.epoch {
            return;
        }
        self.pool.follow(topology);
        let old = self.links.take().into_iter().flatten();
        let mut spare: HashMap<Address, Rc<Link>> = self.strangers.take();
        for link in old {
            // Two that lead to one address have become one; nothing may be left to itself.
            if let Some(other) = spare.insert(link.node().reach.clone(), link) {
                other.retire();
            }
        }
        let still_right = |link: &Rc<Link>, node: &Node| link.node().id == node.id && link.node().label == node.label;
        let mut link_of = |node: &Arc<Node>| match spare.entry(node.reach.clone()) {
            Entry::Occupied(entry) if still_right(entry.get(), node) => Some(entry.remove()),
            _ => None,
        };
        let links = topology.nodes.iter().map(&mut link_of).collect();
        self.links.replace(links);
        self.let_go.set(self.let_go.get() || !spare.is_empty());
        spare.into_values().for_each(|link| link.retire());
        self.epoch.set(topology.epoch);
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.links.take().iter().flatten().for_each(|link| link.retire());
        self.strangers.take().values().for_each(|link| link.retire());
    }
}

/// Nobody serves the slot. That may change at any moment, so the request comes back to be sent again.
fn refuse(router: &Router, request: &[u8], ticket: Ticket) {
    let topology = router.topology.borrow();
    let error = topology.down();
    router.context.hints.tell(crate::cluster::topology::Hint::Uncovered);
    ticket.bounce(bytes::Bytes::copy_from_slice(request), Why::Unsent(error));
}

#[cfg(test)]
mod tests;
