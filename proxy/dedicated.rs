//! A node connection that one session holds alone, for what cannot share one: waiting in BLPOP, WATCH, MONITOR.
//!
//! A connection goes back to its lane only by [`Dedicated::give_back`], which its holder calls when every reply has
//! come and no state is left on it. Dropping it closes it, and with it ends whatever was going on there: nothing is
//! popped for a client that has gone.

use std::{
    cell::RefCell,
    collections::HashMap,
    io,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncWriteExt, ReadBuf},
    net::TcpStream,
};

use crate::{
    address::Address,
    dial::{self, DialError, Login},
    resp::reply::Scanner,
    topology::Node,
};

/// Idle connections that are kept for each node and lane.
const KEPT: usize = 16;
/// How much is read at a time.
const READ: usize = 16 * 1024;

/// A connection of one's own.
pub struct Dedicated {
    stream: TcpStream,
    node: Arc<Node>,
    partial: BytesMut,
    scanner: Scanner,
    pool: Rc<Pool>,
}

/// Idle connections of one lane, ready for the next who needs one.
#[derive(Default)]
pub struct Pool {
    idle: RefCell<HashMap<Address, Vec<TcpStream>>>,
}

impl Pool {
    /// A connection to `node`: an idle one that is still alive, or a new one.
    pub async fn take(
        self: &Rc<Pool>,
        node: &Arc<Node>,
        login: &Login,
        limits: &dial::Limits,
    ) -> Result<Dedicated, DialError> {
        let idle = || self.idle.borrow_mut().get_mut(&node.reach)?.pop();
        while let Some(stream) = idle() {
            // An idle connection has nothing to read: what has, is closed or out of step.
            let mut byte = [0];
            if matches!(stream.try_read(&mut byte), Err(error) if error.kind() == io::ErrorKind::WouldBlock) {
                return Ok(self.dedicate(stream, node));
            }
        }
        Ok(self.dedicate(dial::dial(&node.reach, login, limits).await?, node))
    }

    fn dedicate(self: &Rc<Pool>, stream: TcpStream, node: &Arc<Node>) -> Dedicated {
        Dedicated {
            stream,
            node: node.clone(),
            partial: BytesMut::new(),
            scanner: Scanner::default(),
            pool: self.clone(),
        }
    }

    /// Closes what is idle.
    pub fn clear(&self) {
        self.idle.take();
    }
}

impl Dedicated {
    /// The node that it leads to.
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// Sends requests, all of their bytes.
    pub async fn send(&mut self, frames: &[u8]) -> io::Result<()> {
        self.stream.write_all(frames).await
    }

    /// The next whole reply or push. Nothing is lost where the future is dropped before it comes.
    pub async fn reply(&mut self) -> io::Result<Bytes> {
        std::future::poll_fn(|cx| self.poll_reply(cx)).await
    }

    /// As [`Dedicated::reply`], to be polled.
    pub fn poll_reply(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        loop {
            if !self.partial.is_empty()
                && let Some(end) = self.scanner.find(&self.partial).map_err(|_| io::ErrorKind::InvalidData)?
            {
                return Poll::Ready(Ok(self.partial.split_to(end).freeze()));
            }
            self.partial.reserve(READ);
            let mut chunk = [0; READ];
            let mut read = ReadBuf::new(&mut chunk);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut read))?;
            if read.filled().is_empty() {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            self.partial.extend_from_slice(read.filled());
        }
    }

    /// Leaves the connection to the next who needs one. Only where every reply has come and it holds no state.
    pub fn give_back(self) {
        if !self.partial.is_empty() {
            return;
        }
        let mut idle = self.pool.idle.borrow_mut();
        let kept = idle.entry(self.node.reach.clone()).or_default();
        if kept.len() < KEPT {
            kept.push(self.stream);
        }
    }
}
