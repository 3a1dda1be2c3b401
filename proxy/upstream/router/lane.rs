//! The links of one lane, and how they follow the topology.

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, HashSet, hash_map::Entry},
    rc::Rc,
    sync::Arc,
};

use super::Router;
use crate::{
    cluster::{
        recovery::Why,
        replication::Read,
        topology::{Node, Route, Topology},
    },
    protocol::address::Address,
    upstream::{
        dedicated::Pool,
        dial::{Login, TrackingRequest, Version},
        link::{Audience, Link, Purpose, Sides},
        ticket::Envelope,
    },
};

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
    /// The lane is one client's own: its nodes tell that client which keys change.
    private: Option<(RefCell<TrackingRequest>, Rc<dyn Audience>)>,
    /// A link has ended that nodes may have told something on.
    let_go: Cell<bool>,
}

impl Lane {
    pub(super) fn new(login: &Login, pool: Rc<Pool>, private: Option<(TrackingRequest, Rc<dyn Audience>)>) -> Lane {
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

    /// The link to a node by its index, where it has been opened.
    pub(super) fn open_link(&self, index: usize) -> Option<Rc<Link>> {
        self.links.borrow().get(index)?.clone()
    }

    /// Has nodes spare its links that are open.
    pub(super) fn stay(&self) {
        self.links.borrow().iter().flatten().for_each(|link| link.stay());
    }

    /// How its connections log in.
    pub fn login(&self) -> &Login {
        &self.login
    }

    /// Sends a request where its envelope says. `affinity` picks among all primaries, for requests that any may answer.
    pub fn send(&self, router: &Router, affinity: usize, request: &[u8], envelope: Envelope) {
        match self.link(router, affinity, envelope.route) {
            Some(link) => link.send(request, envelope),
            None => refuse(router, request, envelope),
        }
    }

    /// The link to where a request is to go; `None` where no node serves that.
    #[inline]
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

    /// The replica that a read goes to, where that is not the primary. Only of a lane whose connections say READONLY.
    pub fn replica_for(&self, router: &Router, read: &Read, affinity: usize) -> Option<Route> {
        let topology = router.topology.borrow();
        self.follow(&topology);
        let known = router.replication.progress.borrow();
        let policy = &router.settings.reads.borrow();
        let index = known.pick(&topology, read, policy, affinity, |index| self.is_well(index))?;
        Some(Route::Replica(read.slot, u16::try_from(index).ok()?))
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
    pub fn track(&self, all: &TrackingRequest, new: &TrackingRequest) -> Vec<(Rc<Link>, Vec<u8>)> {
        if let Some((tracking, _)) = &self.private {
            tracking.replace(all.clone());
        }
        let asked = |link: Rc<Link>| link.track(all, new).map(|frame| (link, frame));
        self.every_link().into_iter().filter_map(asked).collect()
    }

    /// A client's own lane in another version of RESP: this one's links go over to it, and what nodes remember of them is
    /// kept. The nodes are to be told ([`Lane::hello`]).
    pub fn speaking(&self, router: &Router, version: Version) -> Rc<Lane> {
        let login = Login { version, ..self.login.clone() };
        let private = self.private.as_ref();
        let private = private.map(|(tracking, audience)| (RefCell::new(tracking.borrow().clone()), audience.clone()));
        Rc::new(Lane {
            links: RefCell::new(self.links.take()),
            epoch: self.epoch.clone(),
            strangers: RefCell::new(self.strangers.take()),
            pool: router.lane(&login).pool().clone(),
            may_multi: self.may_multi.clone(),
            private,
            let_go: self.let_go.clone(),
            login,
        })
    }

    /// From now on its links speak the lane's version of RESP. Those that are connected have to say so, by these requests.
    pub fn hello(&self) -> Vec<(Rc<Link>, Vec<u8>)> {
        let asked = |link: Rc<Link>| link.speak(self.login.version).map(|frame| (link, frame));
        self.every_link().into_iter().filter_map(asked).collect()
    }

    fn every_link(&self) -> Vec<Rc<Link>> {
        let (links, strangers) = (self.links.borrow(), self.strangers.borrow());
        links.iter().flatten().chain(strangers.values()).cloned().collect()
    }

    fn open(&self, router: &Router, node: &Arc<Node>) -> Rc<Link> {
        let private = self.private.as_ref().map(|(tracking, audience)| (tracking.borrow().clone(), audience.clone()));
        let (tracking, audience) = private.unzip();
        let login = Login { tracking, ..self.login.clone() };
        let is_kept_back = login.is_own() && login.database == 0 && !login.readonly;
        let purpose = match audience {
            Some(audience) => Purpose::Private(audience),
            None => Purpose::Shared { is_kept_back, sides: Sides::default() },
        };
        let tally = router.nodes.of(&node.label);
        Link::open(node.clone(), login, tally, router.context.clone(), purpose)
    }

    /// Puts the links in the order of a new topology. A link whose node has kept its id, its name and the address where it
    /// is reached goes on, whatever else has changed; the others end once they have answered what they owe.
    pub(super) fn follow(&self, topology: &Topology) {
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
fn refuse(router: &Router, request: &[u8], envelope: Envelope) {
    let topology = router.topology.borrow();
    let error = topology.down();
    router.context.hints.tell(crate::cluster::topology::Hint::Uncovered);
    envelope.bounce(bytes::Bytes::copy_from_slice(request), Why::Unsent(error));
}
