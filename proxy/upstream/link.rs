//! The worker's shared, pipelined connection to one node, in one lane.
//!
//! Sessions append requests and tickets to the link's queue; its task writes what has gathered once per turn of the
//! event loop and hands replies to the tickets in order. A request's bytes stay in the queue until it is answered, as
//! TCP keeps its send queue, so that one which comes back unexecuted needs no copy of its own.
//!
//! Three facts decide what becomes of a request when the connection is lost: it was never wholly written, so it did not
//! run and goes back to its session; it was written and only reads, so it goes back too, once; or it was written and
//! may have run, and then its client is told so.

mod companion;
mod context;
mod exchange;
mod queue;
mod side;
mod task;

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;

pub use self::{
    context::{Sizes, Timeouts, WorkerContext},
    side::{LARGEST_SHARED, Sides},
};
use self::{
    queue::{Entry, Queue, Room},
    task::run,
};
use crate::{
    cluster::{recovery::Why, topology::Node},
    commands::scripts::Script,
    metrics::NodeTally,
    protocol::{resp::write, says},
    upstream::{
        dial::{self, DialError, Login},
        doubt::Connection,
        sizes::LARGE_REPLY,
        ticket::Envelope,
        waking::Waking,
    },
};

/// How long a node may take before requests that any node may answer go to another.
const SILENCE: Duration = Duration::from_millis(500);

/// Bytes of unanswered requests beyond which a link takes no more: a node that has stopped reading costs no more memory
/// than this, and the largest request.
const MOST_QUEUED: usize = 64 * 1024 * 1024;

/// Who hears what a node says unasked, where its login asks for that ([`dial::TrackingRequest`]).
pub trait Audience {
    /// Something has happened on the link to `node`.
    fn hear(&self, node: &Node, news: PushEvent<'_>);
}

/// What an [`Audience`] hears.
#[derive(Clone, Copy, Debug)]
pub enum PushEvent<'a> {
    /// The node is connected, and will speak.
    Opened,
    /// A message: its whole frame. It is behind every reply that the node has sent before it.
    Said(&'a [u8]),
    /// The connection is lost, and what the node said last with it.
    Lost(&'a str),
    /// The node cannot be reached, or lets nobody in; it is tried again.
    Unreachable(&'a DialError),
}

/// What a link is for.
pub enum Purpose {
    /// All clients of its lane share it.
    Shared {
        /// Its open file is kept back for it; else it takes one of those for clients.
        is_kept_back: bool,
        /// Where what must not go by it goes.
        sides: Sides,
    },
    /// The link is one client's own: its node speaks to this audience. The link connects unasked, and sees to it that
    /// the node is still there.
    Private(Rc<dyn Audience>),
    /// The link carries what must not go by a shared one.
    Side,
}

/// The connection, as its users see it.
pub struct Link {
    node: Arc<Node>,
    login: RefCell<Login>,
    /// `None` while it is not connected. Else the id of the other connection to which the node sends invalidations, if any.
    told: Cell<Option<Option<i64>>>,
    tally: Rc<NodeTally>,
    context: WorkerContext,
    purpose: Purpose,
    queue: RefCell<Queue>,
    /// The connection that is open, or the next one.
    connection: RefCell<Rc<Connection>>,
    waking: Waking,
    retired: Cell<bool>,
    /// Nobody serves it any more.
    ended: Cell<bool>,
    /// Its user may not load scripts.
    never_loads: Cell<bool>,
}

/// Requests that go right in front of another, as one unit with it: nothing ever comes between.
#[derive(Clone, Debug, Default)]
pub struct Prelude {
    frames: Vec<u8>,
    replies: u32,
}

impl Prelude {
    /// One request.
    pub fn of(frame: &[u8]) -> Prelude {
        Prelude { frames: frame.to_vec(), replies: 1 }
    }

    /// Adds a request; nothing where it is empty.
    pub fn add(&mut self, frame: &[u8]) {
        self.frames.extend_from_slice(frame);
        self.replies += u32::from(!frame.is_empty());
    }
}

const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";
const NO_EVICT: &[u8] = b"*3\r\n$6\r\nCLIENT\r\n$8\r\nNO-EVICT\r\n$2\r\nON\r\n";
/// A request that every user may send.
const HELLO: &[u8] = b"*1\r\n$5\r\nHELLO\r\n";

impl Link {
    /// A link to `node`; it connects when the first request comes, or at once where it has an audience.
    pub fn open(
        node: Arc<Node>,
        login: Login,
        tally: Rc<NodeTally>,
        context: WorkerContext,
        purpose: Purpose,
    ) -> Rc<Link> {
        let connection = Connection::new(node.clone(), context.connector.ender.clone());
        let link = Rc::new(Link {
            node,
            login: RefCell::new(login),
            told: Cell::default(),
            tally,
            context,
            purpose,
            queue: RefCell::default(),
            connection: RefCell::new(connection),
            waking: Waking::default(),
            retired: Cell::default(),
            ended: Cell::default(),
            never_loads: Cell::default(),
        });
        let served = link.clone();
        tokio::task::spawn_local(async move {
            // Should a fault end the task, what is queued must not wait for ever, nor what comes.
            while tokio::task::spawn_local(run(served.clone())).await.is_err_and(|fault| fault.is_panic()) {
                served.give_up("a fault of the proxy's own");
            }
        });
        link
    }

    /// Who hears what its node says unasked.
    fn audience(&self) -> Option<&Rc<dyn Audience>> {
        match &self.purpose {
            Purpose::Private(audience) => Some(audience),
            Purpose::Shared { .. } | Purpose::Side => None,
        }
    }

    /// The node that it leads to.
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// Queues a request.
    pub fn send(&self, request: &[u8], envelope: Envelope) {
        let ahead = envelope.traits.caching.prefix();
        self.enqueue(ahead, u32::from(!ahead.is_empty()), request, envelope);
    }

    /// Queues a request with a prelude.
    pub fn send_after(&self, prelude: &Prelude, request: &[u8], envelope: Envelope) {
        self.enqueue(&prelude.frames, prelude.replies, request, envelope);
    }

    /// Queues a request behind others that are one unit with it, and have so many replies. Where too much is queued already,
    /// or the link has ended, the request comes back.
    fn enqueue(&self, ahead: &[u8], replies: u32, request: &[u8], envelope: Envelope) {
        let beside = self.goes_beside(request, &envelope);
        if beside
            && !self.ended.get()
            && let Some(side) = self.side()
        {
            if request.len() > LARGEST_SHARED {
                self.tally.large_request(request);
            }
            return side.enqueue(ahead, replies, request, envelope);
        }
        if self.ended.get() || beside || self.is_full() {
            let label = &self.node.label;
            let why = if self.ended.get() { says::node_has_left(label) } else { says::node_takes_no_more(label) };
            return envelope.bounce(Bytes::copy_from_slice(request), Why::Unsent(why));
        }
        if let Some(why) = self.would_overtake(&envelope) {
            // What the prelude was to load is not loaded.
            self.queue.borrow_mut().loads.clear();
            return envelope.bounce(Bytes::copy_from_slice(request), why);
        }
        let queue = &mut *self.queue.borrow_mut();
        let prefix = ahead.len();
        // Nothing follows a command that may change its connection before that is known.
        let exclusive = envelope.traits.exclusive || envelope.traits.unknown;
        queue.bytes.extend_from_slice(ahead);
        queue.bytes.extend_from_slice(request);
        queue.push(Entry {
            prelude: replies,
            swallow: envelope.replies_before,
            exclusive,
            unknown: envelope.traits.unknown,
            envelope: Some(envelope),
            length: prefix + request.len(),
            prefix,
            fault: None,
            since: self.context.clock.now(),
            heartbeat: false,
        });
        self.tally.queued(prefix + request.len());
        self.wake();
    }

    /// Adds SCRIPT LOAD to a prelude, which must be sent next; false where a queued request loads the script already, or the
    /// link cannot load it ([`Link::never_loads`]).
    pub fn load(&self, script: &Script, prelude: &mut Prelude) -> bool {
        if self.is_full() || script.text.len() > LARGEST_SHARED {
            return false;
        }
        let loads = &mut self.queue.borrow_mut().loads;
        if self.never_loads.get() || !loads.insert(script.sha) {
            return false;
        }
        script.encode_load(&mut prelude.frames);
        prelude.replies += 1;
        true
    }

    /// Why a request must not go by this connection now: a request that its client gave up may still run on another.
    fn would_overtake(&self, envelope: &Envelope) -> Option<Why> {
        let held = envelope.doubts()?.hold(&self.node, Some(&self.connection.borrow()))?;
        Some(match held.busy {
            false => Why::Unsent(held.error),
            true if envelope.replies_before > 0 => Why::Hopeless(says::exec_aborted(&held.error)),
            true => Why::Hopeless(held.error),
        })
    }

    /// The connection that it sends by.
    pub fn connection(&self) -> Rc<Connection> {
        self.connection.borrow().clone()
    }

    /// What the node may be sent before it answers: half of the bytes that it buffers unread, and as many requests as fit its limit
    /// on unsent replies, if each reply has just less than [`LARGE_REPLY`].
    fn room(&self) -> Room {
        let accepts = self.context.sizes.accepts.get();
        let requests = accepts.unsent.map_or(usize::MAX, |unsent| unsent / 2 / LARGE_REPLY);
        Room { bytes: accepts.unread / 2, requests }
    }

    fn is_full(&self) -> bool {
        self.queue.borrow().bytes.len() >= MOST_QUEUED
    }

    /// Whether requests that any node may answer should go elsewhere: the node cannot be reached, or its oldest request has
    /// waited for `SILENCE`.
    pub fn is_unwell(&self) -> bool {
        let now = self.context.clock.now();
        let waits = |entry: &Entry| now.saturating_duration_since(entry.since) >= SILENCE;
        self.tally.unreachable_since().is_some() || self.queue.borrow().entries.front().is_some_and(waits)
    }

    /// Whether its user may not load scripts.
    pub fn never_loads(&self) -> bool {
        self.never_loads.get()
    }

    /// Asks the node for a sign of life.
    fn ping(&self) {
        self.say(if self.login.borrow().is_own() { PING } else { HELLO });
    }

    /// The nodes evict clients from now on (`maxmemory-clients`): an open connection asks to be spared (CLIENT NO-EVICT), as new
    /// ones do in their login. Users other than the proxy's own may not be allowed to ask.
    pub fn stay(&self) {
        if self.told.get().is_some() && self.audience().is_none() && self.login.borrow().is_own() {
            self.say(NO_EVICT);
            self.wake();
        }
    }

    /// Says something whose reply is of no interest.
    fn say(&self, frame: &[u8]) {
        let queue = &mut *self.queue.borrow_mut();
        queue.bytes.extend_from_slice(frame);
        queue.push(Entry {
            envelope: None,
            length: frame.len(),
            prefix: 0,
            prelude: 0,
            swallow: 0,
            exclusive: false,
            unknown: false,
            fault: None,
            since: self.context.clock.now(),
            heartbeat: true,
        });
        self.tally.queued(frame.len());
    }

    /// Whether a request has waited for so long.
    pub fn keeps_waiting(&self, long: Duration) -> bool {
        let now = self.context.clock.now();
        self.queue.borrow().entries.front().is_some_and(|front| now.saturating_duration_since(front.since) >= long)
    }

    /// From now on the node is to tell of changed keys as `all` says. Where it is connected, it has to be asked for what is
    /// `new` in that, by this request; what it remembers already, it goes on to remember.
    pub fn track(&self, all: &dial::TrackingRequest, new: &dial::TrackingRequest) -> Option<Vec<u8>> {
        self.login.borrow_mut().tracking = Some(all.clone());
        let redirect = self.told.get()?.filter(|_| all.apart);
        self.told.set(Some(redirect));
        let mut frame = Vec::new();
        write::request(&mut frame, &dial::TrackingRequest { redirect, ..new.clone() }.words());
        Some(frame)
    }

    /// Lets the link end once all that it owes has been answered.
    pub fn retire(&self) {
        self.retired.set(true);
        self.sides().into_iter().for_each(Sides::retire);
        self.wake();
    }

    /// From now on the connection speaks this version of RESP. Where it is connected, the node has to be told, by this
    /// request; what it remembers of changed keys, it goes on to remember.
    pub fn speak(&self, version: dial::Version) -> Option<Vec<u8>> {
        self.login.borrow_mut().version = version;
        self.told.get()?;
        let mut frame = Vec::new();
        let number: &[u8] = if version == dial::Version::Resp3 { b"3" } else { b"2" };
        write::request(&mut frame, &[b"HELLO", number]);
        Some(frame)
    }

    fn wake(&self) {
        self.waking.wake();
    }
}

#[cfg(test)]
mod tests;
