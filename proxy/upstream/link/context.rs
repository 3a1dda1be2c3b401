//! What links share with everything else of their worker.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use crate::{
    cluster::{
        recovery,
        topology::{Accepts, Hints},
    },
    config::Config,
    upstream::{
        connector::Connector,
        sizes::LargeReplies,
        ticket::{Clock, Envelope},
    },
};

/// What a link shares with everything else of its worker.
#[derive(Clone)]
pub struct WorkerContext {
    /// The worker's time.
    pub clock: Rc<Clock>,
    /// The worker's read buffer: what is read is handed on before anybody else reads.
    pub buffer: Rc<RefCell<Box<[u8]>>>,
    /// How long requests may take, and nodes.
    pub timeouts: Rc<Timeouts>,
    /// Where news for discovery go.
    pub hints: Hints,
    /// How nodes are connected to.
    pub connector: Connector,
    /// How much goes over a connection.
    pub sizes: Sizes,
    /// How often a client has gone with requests unanswered.
    pub departures: Rc<Cell<u64>>,
}

/// How much goes over a connection.
#[derive(Clone, Default)]
pub struct Sizes {
    /// What the nodes take from one.
    pub accepts: Rc<Cell<Accepts>>,
    /// Which replies have been large.
    pub large: Rc<LargeReplies>,
}

impl Sizes {
    /// The nodes take so much from now on.
    pub fn heed(&self, accepts: Accepts) {
        self.accepts.set(accepts);
        self.large.set_frugal(accepts.unsent.is_some());
    }
}

impl WorkerContext {
    /// The reply to a request turns out to be large.
    pub(super) fn note_large(&self, envelope: &Envelope, frame: &[u8]) {
        let (large, now) = (&self.sizes.large, self.clock.now());
        match envelope.slot() {
            Some(slot) if envelope.replies_before > 0 => large.note_transaction(slot, now),
            slot => large.note(slot, frame, now),
        }
    }
}

/// How long requests may take, and nodes. It may change while others read it: [`Timeouts::adopt`].
#[derive(Debug)]
pub struct Timeouts {
    request: Cell<Duration>,
    node: Cell<Duration>,
    recovery: Cell<recovery::Limits>,
    /// How long a request takes that is remembered as slow.
    slow_request: Cell<Duration>,
}

impl Timeouts {
    /// The timeouts of a configuration.
    pub fn of(config: &Config) -> Timeouts {
        Timeouts {
            request: Cell::new(config.request_timeout),
            node: Cell::new(config.node_timeout),
            recovery: Cell::new(config.recovery()),
            slow_request: Cell::new(config.slow_request),
        }
    }

    /// Takes the timeouts of a new configuration.
    pub fn adopt(&self, config: &Config) {
        let Timeouts { request, node, recovery, slow_request } = Timeouts::of(config);
        self.slow_request.swap(&slow_request);
        self.request.swap(&request);
        self.node.swap(&node);
        self.recovery.swap(&recovery);
    }

    /// How long a request may take from its arrival to its answer.
    pub fn request_timeout(&self) -> Duration {
        self.request.get()
    }

    /// How long a node that owes replies may be silent.
    pub fn node_timeout(&self) -> Duration {
        self.node.get()
    }

    /// How long a request takes that is remembered as slow.
    pub fn slow_request(&self) -> Duration {
        self.slow_request.get()
    }

    /// How long requests are tried, and how often they are redirected.
    pub fn recovery(&self) -> recovery::Limits {
        self.recovery.get()
    }
}
