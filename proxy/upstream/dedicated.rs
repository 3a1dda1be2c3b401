//! A node connection that one session holds alone, for what cannot share one: waiting in BLPOP, WATCH, MONITOR.
//!
//! A connection goes back to its lane only by [`Dedicated::give_back`], which its holder calls when every reply has
//! come and no state is left on it. Dropping it closes it, and with it ends whatever was going on there: nothing is
//! popped for a client that has gone.

mod counted;
mod pool;
mod unanswered;

use std::{
    future::Future,
    io,
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncWriteExt, ReadBuf},
    time::timeout,
};
use tokio_util::io::poll_read_buf;

pub use self::{counted::CountedRequest, pool::Pool};
use self::{pool::Open, unanswered::Unanswered};
use crate::{
    clients::Held,
    cluster::topology::Node,
    metrics::NodeError,
    protocol::{resp::reply::Scanner, says},
    upstream::doubt::Doubts,
};

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

impl Dedicated {
    fn new(open: Open, node: &Arc<Node>, pool: &Rc<Pool>) -> Dedicated {
        Dedicated {
            unanswered: Unanswered::none(&open.connection),
            open,
            node: node.clone(),
            partial: BytesMut::new(),
            held: Held::nothing(&pool.clients),
            scanner: Scanner::default(),
            received: 0,
            pool: pool.clone(),
        }
    }

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
        self.open.tally.received(count, tokio::time::Instant::now().into_std());
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
            pool.put(&node.reach, open);
        }
    }
}

async fn within<T>(patience: Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(patience, work).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

#[cfg(test)]
mod tests;
