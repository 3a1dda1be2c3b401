//! Idle connections of one lane, and those that are made ahead.

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, HashSet, VecDeque},
    rc::{Rc, Weak},
    sync::Arc,
    time::Duration,
};

use tokio::time::{Instant, timeout};

use super::Dedicated;
use crate::{
    clients::Clients,
    cluster::topology::{Accepts, Node, Topology},
    metrics::{NodeTallies, NodeTally},
    protocol::address::Address,
    upstream::{
        connector::Connector,
        descriptors::Descriptor,
        dial::{DialError, Login},
        doubt::Connection,
        transport::Stream,
    },
};

/// Idle connections that are kept for each node and lane, and for how long: a client that waits in BLPOP again and
/// again finds its connection warm, however many such clients there are.
const KEPT: usize = 1024;
const KEPT_FOR: Duration = Duration::from_secs(15);
/// So many are made ahead where one was taken, and kept for longer. Clients see in which order their commands reach a
/// node: who waits in BLPOP first is served first, and finds what is pushed afterwards. While one connects, others
/// overtake it.
const SPARE: usize = 2;
const SPARE_FOR: Duration = Duration::from_secs(600);
/// Idle connections of one lane, ready for the next who needs one.
pub struct Pool {
    /// For whom its connections are held.
    pub(super) clients: Arc<Clients>,
    tallies: Rc<NodeTallies>,
    /// How its connections log in.
    login: Login,
    connector: Connector,
    accepts: Rc<Cell<Accepts>>,
    /// By node, the longest idle first.
    idle: RefCell<HashMap<Address, VecDeque<Idle>>>,
    /// Nodes for which a spare connection is being made.
    filling: RefCell<HashSet<Address>>,
    swept: Cell<bool>,
}

struct Idle {
    open: Open,
    since: Instant,
}

/// A connection, counted as its node's until it is closed.
pub(super) struct Open {
    pub stream: Stream,
    pub tally: Rc<NodeTally>,
    /// What the node calls it, and what may be left on it.
    pub connection: Rc<Connection>,
    _descriptor: Descriptor,
}

impl Open {
    async fn dial(
        descriptor: Descriptor,
        node: &Arc<Node>,
        login: &Login,
        connector: &Connector,
        tally: Rc<NodeTally>,
    ) -> Result<Open, DialError> {
        let opened = connector.dialer.open(&node.reach, &login.at(node)).await;
        let dialled = opened.and_then(|opened| opened.quiet(&node.reach));
        let opened = dialled.inspect_err(|error| tally.connect_failed(error.permanent))?;
        tally.connected();
        let connection = Connection::new(node.clone(), connector.ender.clone());
        connection.opened(opened.id, Instant::now().into_std());
        Ok(Open { stream: opened.stream, tally, connection, _descriptor: descriptor })
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.tally.disconnected();
    }
}

impl Pool {
    /// No connections yet; what is read on them is held for these clients.
    pub fn new(
        login: &Login,
        connector: &Connector,
        accepts: &Rc<Cell<Accepts>>,
        clients: &Arc<Clients>,
        tallies: &Rc<NodeTallies>,
    ) -> Rc<Pool> {
        Rc::new(Pool {
            clients: clients.clone(),
            tallies: tallies.clone(),
            login: login.clone(),
            connector: connector.clone(),
            accepts: accepts.clone(),
            idle: RefCell::default(),
            filling: RefCell::default(),
            swept: Cell::default(),
        })
    }

    /// A connection to `node`: an idle one that is still alive, or a new one.
    pub async fn take(self: &Rc<Pool>, node: &Arc<Node>) -> Result<Dedicated, DialError> {
        let idle = || self.idle.borrow_mut().get_mut(&node.reach)?.pop_back();
        // The node may be about to close one that has long been idle.
        let quiet = self.accepts.get().quiet();
        while let Some(Idle { mut open, since }) = idle() {
            if open.stream.is_quiet() && quiet.is_none_or(|quiet| since.elapsed() < quiet) {
                self.fill(node);
                return Ok(Dedicated::new(open, node, self));
            }
        }
        let descriptor = self.connector.descriptors.take(&node.reach).await?;
        let open = Open::dial(descriptor, node, &self.login, &self.connector, self.tallies.of(&node.label)).await?;
        self.fill(node);
        Ok(Dedicated::new(open, node, self))
    }

    /// Makes spare connections, in the background, where there are too few.
    fn fill(self: &Rc<Pool>, node: &Arc<Node>) {
        if self.lacks(&node.reach) == 0 || !self.filling.borrow_mut().insert(node.reach.clone()) {
            return;
        }
        let (pool, node) = (Rc::downgrade(self), node.clone());
        let (login, connector) = (self.login.clone(), self.connector.clone());
        let tally = self.tallies.of(&node.label);
        tokio::task::spawn_local(async move {
            while let Some(descriptor) = pool.upgrade().and_then(|pool| pool.descriptor_for_spare(&node.reach)) {
                let dialled = Open::dial(descriptor, &node, &login, &connector, tally.clone()).await;
                let (Some(pool), Ok(open)) = (pool.upgrade(), dialled) else { break };
                pool.put(&node.reach, open);
            }
            if let Some(pool) = pool.upgrade() {
                pool.filling.borrow_mut().remove(&node.reach);
            }
        });
    }

    fn lacks(&self, address: &Address) -> usize {
        match self.connector.descriptors.are_plenty() {
            true => SPARE.saturating_sub(self.idle.borrow().get(address).map_or(0, VecDeque::len)),
            false => 0,
        }
    }

    fn descriptor_for_spare(&self, address: &Address) -> Option<Descriptor> {
        if self.lacks(address) == 0 { None } else { self.connector.descriptors.try_take() }
    }

    /// Closes what leads to where no node is any more, or one that goes by another name.
    pub fn follow(&self, topology: &Topology) {
        self.idle.borrow_mut().retain(|address, kept| {
            let Some(node) = topology.nodes.iter().find(|node| node.reach == *address) else { return false };
            let tally = self.tallies.of(&node.label);
            kept.retain(|idle| Rc::ptr_eq(&idle.open.tally, &tally));
            !kept.is_empty()
        });
    }

    /// A connection that owes nothing is ready for the next.
    pub(super) fn put(self: &Rc<Pool>, address: &Address, open: Open) {
        let idle = Idle { open, since: Instant::now() };
        {
            let mut all = self.idle.borrow_mut();
            let kept = all.entry(address.clone()).or_default();
            if kept.len() >= KEPT || !self.connector.descriptors.are_plenty() {
                return;
            }
            kept.push_back(idle);
        }
        if !self.swept.replace(true) {
            tokio::task::spawn_local(sweep(Rc::downgrade(self)));
        }
    }

    /// Closes what nobody has needed for long; says whether anything is left.
    fn close_old(&self) -> bool {
        let mut all = self.idle.borrow_mut();
        all.retain(|_, kept| {
            while let Some(idle) = kept.front() {
                let time = if kept.len() > SPARE { KEPT_FOR } else { SPARE_FOR };
                if idle.since.elapsed() < time {
                    break;
                }
                kept.pop_front();
            }
            !kept.is_empty()
        });
        !all.is_empty()
    }
}

/// Closes idle connections when their time is over, or others need their descriptors, as long as there are any.
async fn sweep(pool: Weak<Pool>) {
    loop {
        let Some(descriptors) = pool.upgrade().map(|pool| pool.connector.descriptors.clone()) else { return };
        let is_scarce = timeout(KEPT_FOR / 4, descriptors.scarce()).await.is_ok();
        let Some(pool) = pool.upgrade() else { return };
        if is_scarce {
            pool.idle.take();
        }
        if !pool.close_old() {
            pool.swept.set(false);
            return;
        }
    }
}
