//! What links share with everything else of their worker.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use crate::{
    cluster::{
        recovery,
        topology::{Accepts, Hints},
    },
    config::Config,
    upstream::{
        descriptors::Descriptors,
        dial::Dialer,
        doubt::Ender,
        sizes::LargeReplies,
        ticket::{Clock, Envelope},
    },
};

/// What a link shares with everything else of its worker.
#[derive(Clone)]
pub struct WorkerContext {
    /// Deadlines.
    pub timeouts: Rc<Timeouts>,
    /// How long requests are tried, and how often they are redirected.
    pub recovery: recovery::Limits,
    /// How nodes are connected to.
    pub dialer: Dialer,
    /// The worker's time.
    pub clock: Rc<Clock>,
    /// The worker's read buffer: what is read is handed on before anybody else reads.
    pub buffer: Rc<RefCell<Box<[u8]>>>,
    /// What the nodes take from one connection.
    pub accepts: Rc<Cell<Accepts>>,
    /// Where news for discovery go.
    pub hints: Hints,
    /// The open files for what not everybody shares.
    pub descriptors: Arc<Descriptors>,
    /// Which replies have been large.
    pub large: Rc<LargeReplies>,
    /// How often a client has gone with requests unanswered.
    pub departures: Rc<Cell<u64>>,
    /// Who has nodes end what was lost.
    pub ender: Rc<Ender>,
}

impl WorkerContext {
    /// The nodes take so much from now on.
    pub fn heed(&self, accepts: Accepts) {
        self.accepts.set(accepts);
        self.large.set_frugal(accepts.unsent.is_some());
    }

    /// The reply to a request turns out to be large.
    pub(super) fn note_large(&self, envelope: &Envelope, frame: &[u8]) {
        let now = self.clock.now();
        match envelope.slot() {
            Some(slot) if envelope.replies_before > 0 => self.large.note_transaction(slot, now),
            slot => self.large.note(slot, frame, now),
        }
    }
}

/// Deadlines of the links.
#[derive(Debug)]
pub struct Timeouts {
    /// From a request's coming to its answer.
    pub request_timeout: Duration,
    /// How long a node that owes replies may be silent.
    pub node_timeout: Duration,
}

impl Timeouts {
    /// The deadlines that the configuration sets.
    pub fn of(config: &Config) -> Timeouts {
        Timeouts { request_timeout: config.request_timeout, node_timeout: config.node_timeout }
    }
}
