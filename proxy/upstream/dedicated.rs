//! A node connection that one session holds alone, for what cannot share one: waiting in BLPOP, WATCH, MONITOR.
//!
//! A connection goes back to its lane only by [`Dedicated::give_back`], which its holder calls when every reply has
//! come and no state is left on it. Dropping it closes it, and with it ends whatever was going on there: nothing is
//! popped for a client that has gone.

mod asked;
mod unanswered;

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, HashSet, VecDeque},
    future::Future,
    io,
    pin::{Pin, pin},
    rc::{Rc, Weak},
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncWriteExt, ReadBuf},
    time::timeout,
};
use tokio_util::io::poll_read_buf;

use crate::{
    clients::{Clients, Held},
    cluster::topology::{Accepts, Node, Topology},
    metrics::{NodeError, NodeTallies, NodeTally},
    protocol::{address::Address, resp::reply::Scanner, says},
    upstream::{
        descriptors::{Descriptor, Descriptors},
        dial::{DialError, Dialer, Login},
        doubt::{Connection, Doubts, Ender},
        transport::Stream,
    },
};

use self::unanswered::Unanswered;
pub use asked::CountedRequest;

/// Idle connections that are kept for each node and lane, and for how long: a client that waits in BLPOP again and
/// again finds its connection warm, however many such clients there are.
const KEPT: usize = 1024;
const KEPT_FOR: Duration = Duration::from_secs(15);
/// So many are made ahead where one was taken, and kept for longer. Clients see in which order their commands reach a
/// node: who waits in BLPOP first is served first, and finds what is pushed afterwards. While one connects, others
/// overtake it.
const SPARE: usize = 2;
const SPARE_FOR: Duration = Duration::from_secs(600);
/// How much is read at a time, of a reply's beginning and then of the rest.
const READ: usize = 16 * 1024;
const READ_ON: usize = 64 * 1024;

/// A connection of one's own.
pub struct Dedicated {
    open: Open,
    node: Arc<Node>,
    partial: BytesMut,
    held: Held,
    scanner: Scanner,
    /// Bytes that the node has sent.
    received: u64,
    pool: Rc<Pool>,
    unanswered: Unanswered,
}

/// Idle connections of one lane, ready for the next who needs one.
pub struct Pool {
    clients: Arc<Clients>,
    tallies: Rc<NodeTallies>,
    descriptors: Arc<Descriptors>,
    way: Connector,
    accepts: Rc<Cell<Accepts>>,
    /// By node, the longest idle first.
    idle: RefCell<HashMap<Address, VecDeque<Idle>>>,
    /// Nodes for which a spare connection is being made.
    filling: RefCell<HashSet<Address>>,
    swept: Cell<bool>,
}

/// How the connections of a pool are made.
#[derive(Clone)]
pub struct Connector {
    /// How nodes are connected to.
    pub dialer: Dialer,
    /// How its connections log in.
    pub login: Login,
    /// Who has nodes end what was lost on them.
    pub ender: Rc<Ender>,
}

struct Idle {
    open: Open,
    since: Instant,
}

/// A connection, counted as its node's until it is closed.
struct Open {
    stream: Stream,
    tally: Rc<NodeTally>,
    /// What the node calls it, and what may be left on it.
    connection: Rc<Connection>,
    _descriptor: Descriptor,
}

impl Open {
    async fn dial(
        descriptor: Descriptor,
        node: &Arc<Node>,
        way: &Connector,
        tally: Rc<NodeTally>,
    ) -> Result<Open, DialError> {
        let opened = way.dialer.open(&node.reach, &way.login.at(node)).await;
        let dialled = opened.and_then(|opened| opened.quiet(&node.reach));
        let opened = dialled.inspect_err(|error| tally.connect_failed(error.permanent))?;
        tally.connected();
        let connection = Connection::new(node.clone(), way.ender.clone());
        connection.opened(opened.id, Instant::now());
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
        clients: &Arc<Clients>,
        tallies: &Rc<NodeTallies>,
        descriptors: &Arc<Descriptors>,
        way: Connector,
        accepts: &Rc<Cell<Accepts>>,
    ) -> Rc<Pool> {
        Rc::new(Pool {
            clients: clients.clone(),
            tallies: tallies.clone(),
            descriptors: descriptors.clone(),
            way,
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
                return Ok(self.dedicate(open, node));
            }
        }
        let descriptor = self.descriptors.take(&node.reach).await?;
        let open = Open::dial(descriptor, node, &self.way, self.tallies.of(&node.label)).await?;
        self.fill(node);
        Ok(self.dedicate(open, node))
    }

    /// Makes spare connections, in the background, where there are too few.
    fn fill(self: &Rc<Pool>, node: &Arc<Node>) {
        if self.lacks(&node.reach) == 0 || !self.filling.borrow_mut().insert(node.reach.clone()) {
            return;
        }
        let (pool, node, way) = (Rc::downgrade(self), node.clone(), self.way.clone());
        let tally = self.tallies.of(&node.label);
        tokio::task::spawn_local(async move {
            while let Some(descriptor) = pool.upgrade().and_then(|pool| pool.descriptor_for_spare(&node.reach)) {
                let dialled = Open::dial(descriptor, &node, &way, tally.clone()).await;
                let (Some(pool), Ok(open)) = (pool.upgrade(), dialled) else { break };
                pool.put(&node.reach, Idle { open, since: Instant::now() });
            }
            if let Some(pool) = pool.upgrade() {
                pool.filling.borrow_mut().remove(&node.reach);
            }
        });
    }

    fn lacks(&self, address: &Address) -> usize {
        match self.descriptors.are_plenty() {
            true => SPARE.saturating_sub(self.idle.borrow().get(address).map_or(0, VecDeque::len)),
            false => 0,
        }
    }

    fn descriptor_for_spare(&self, address: &Address) -> Option<Descriptor> {
        if self.lacks(address) == 0 { None } else { self.descriptors.try_take() }
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

    fn dedicate(self: &Rc<Pool>, open: Open, node: &Arc<Node>) -> Dedicated {
        Dedicated {
            unanswered: Unanswered::none(&open.connection),
            open,
            node: node.clone(),
            partial: BytesMut::new(),
            held: Held::nothing(&self.clients),
            scanner: Scanner::default(),
            received: 0,
            pool: self.clone(),
        }
    }

    fn put(self: &Rc<Pool>, address: &Address, idle: Idle) {
        {
            let mut all = self.idle.borrow_mut();
            let kept = all.entry(address.clone()).or_default();
            if kept.len() >= KEPT || !self.descriptors.are_plenty() {
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

async fn within<T>(patience: Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(patience, work).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Closes idle connections when their time is over, or others need their descriptors, as long as there are any.
async fn sweep(pool: Weak<Pool>) {
    loop {
        let Some(descriptors) = pool.upgrade().map(|pool| pool.descriptors.clone()) else { return };
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

impl Dedicated {
    /// The node that it leads to.
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// What is given up on it, when it is dropped unanswered, is in doubt for this client.
    pub fn on_behalf_of(mut self, doubts: &Rc<Doubts>) -> Dedicated {
        self.unanswered.is_of(doubts);
        self
    }

    /// What the node calls this connection, where that is known.
    pub fn id(&self) -> Option<i64> {
        self.open.connection.id()
    }

    /// The node has told what it calls this connection.
    pub fn is_known_as(&self, id: i64) {
        self.open.connection.is_known_as(id);
    }

    /// Whether it is open and owes nothing.
    pub fn is_quiet(&mut self) -> bool {
        self.partial.is_empty() && self.open.stream.is_quiet()
    }

    /// Sends requests and reads their `count` replies; the node may be silent for `patience`. After an error the connection
    /// is of no more use; [`io::ErrorKind::OutOfMemory`] says that there is no room for a reply.
    pub async fn exchange(&mut self, frames: &[u8], count: usize, patience: Duration) -> io::Result<Vec<Bytes>> {
        let asked = within(patience, self.send(frames)).await?;
        let replies = self.replies(count, patience).await?;
        asked.answered();
        self.unanswered.owes(false);
        Ok(replies)
    }

    /// As [`Dedicated::exchange`], for a last reply of any size: the replies before it, its front, and whether that is all
    /// ([`Dedicated::piece`]).
    pub async fn exchange_up_to(
        &mut self,
        frames: &[u8],
        before: usize,
        patience: Duration,
    ) -> io::Result<(Vec<Bytes>, Bytes, bool)> {
        let asked = within(patience, self.send(frames)).await?;
        let replies = self.replies(before, patience).await?;
        loop {
            let (front, last) = within(patience, self.piece()).await?;
            // A push answers nothing.
            if front.first() != Some(&b'>') {
                asked.answered();
                self.unanswered.owes(!last);
                return Ok((replies, front, last));
            }
        }
    }

    async fn replies(&mut self, count: usize, patience: Duration) -> io::Result<Vec<Bytes>> {
        let mut replies = Vec::with_capacity(count.min(1024));
        while replies.len() < count {
            let reply = self.reply_within(patience).await?;
            if reply.first() != Some(&b'>') {
                replies.push(reply);
            }
        }
        Ok(replies)
    }

    /// The next whole reply or push; the node may be silent for `patience`, however long the reply is on its way.
    async fn reply_within(&mut self, patience: Duration) -> io::Result<Bytes> {
        let mut silent = pin!(tokio::time::sleep(patience));
        let mut received = self.received;
        std::future::poll_fn(|cx| {
            if let Poll::Ready(reply) = self.poll_reply(cx) {
                return Poll::Ready(reply);
            }
            if std::mem::replace(&mut received, self.received) != self.received {
                silent.as_mut().reset(tokio::time::Instant::now() + patience);
            }
            silent.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
        })
        .await
    }

    /// Sends a request with all that belongs to it, which counts as one. Whoever times the reply says when it has come.
    pub async fn send(&mut self, frames: &[u8]) -> io::Result<CountedRequest> {
        self.unanswered.owes(true);
        let mut asked = CountedRequest::new(self.open.tally.clone(), frames.len());
        self.open.stream.write_all(frames).await?;
        asked.written();
        Ok(asked)
    }

    /// Counts what made the node, or the connection, fail a request.
    pub fn count_failure(&self, why: &io::Error) {
        match why.kind() {
            io::ErrorKind::TimedOut => self.open.tally.error(NodeError::Timeout),
            // It was the proxy that had no room.
            io::ErrorKind::OutOfMemory => {}
            _ => self.open.tally.error(NodeError::Connection),
        }
    }

    /// The next whole reply or push. Nothing is lost where the future is dropped before it comes.
    pub async fn reply(&mut self) -> io::Result<Bytes> {
        std::future::poll_fn(|cx| self.poll_reply(cx)).await
    }

    /// The next piece of a reply of any size, and whether it is the last one. A piece begins where the one before it
    /// ended, and the first has the whole first line. Nothing is lost where the future is dropped before it comes.
    pub async fn piece(&mut self) -> io::Result<(Bytes, bool)> {
        loop {
            if !self.partial.is_empty() {
                if let Some(end) = self.scanner.find(&self.partial).map_err(|_| io::ErrorKind::InvalidData)? {
                    return Ok((self.cut(end), true));
                }
                let scanned = self.scanner.scanned(self.partial.len());
                if scanned > 0 {
                    self.scanner.passed_on(scanned);
                    return Ok((self.cut(scanned), false));
                }
            }
            std::future::poll_fn(|cx| self.poll_more(cx)).await?;
        }
    }

    /// As [`Dedicated::reply`], to be polled.
    pub fn poll_reply(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        loop {
            if !self.partial.is_empty()
                && let Some(end) = self.scanner.find(&self.partial).map_err(|_| io::ErrorKind::InvalidData)?
            {
                return Poll::Ready(Ok(self.cut(end)));
            }
            ready!(self.poll_more(cx))?;
        }
    }

    fn cut(&mut self, length: usize) -> Bytes {
        let cut = self.partial.split_to(length).freeze();
        let _ = self.held.is_now(self.partial.len());
        cut
    }

    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let count = if self.scanner.is_within_reply() {
            self.partial.reserve(READ_ON);
            ready!(poll_read_buf(Pin::new(&mut self.open.stream), cx, &mut self.partial))?
        } else {
            // Nothing is held for a reply that may not come for hours.
            let mut chunk = [0; READ];
            let mut read = ReadBuf::new(&mut chunk);
            ready!(Pin::new(&mut self.open.stream).poll_read(cx, &mut read))?;
            self.partial.extend_from_slice(read.filled());
            read.filled().len()
        };
        if count == 0 {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed by the node")));
        }
        self.received += count as u64;
        self.open.tally.received(count, Instant::now());
        if !self.held.is_now(self.partial.len()) {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::OutOfMemory, says::NO_ROOM)));
        }
        Poll::Ready(Ok(()))
    }

    /// Leaves the connection to the next who needs one. Only where every reply has come and it holds no state.
    pub fn give_back(self) {
        let Dedicated { open, node, pool, partial, mut unanswered, .. } = self;
        unanswered.owes(false);
        if partial.is_empty() {
            pool.put(&node.reach, Idle { open, since: Instant::now() });
        }
    }
}

#[cfg(test)]
mod tests;
