//! A node connection over which a node speaks unasked: messages of subscriptions, invalidations, what MONITOR shows.
//!
//! A feed connects by itself, and again after each loss; what is to be said then is up to its owner, who is told by
//! [`FeedEvent::Opened`]. It keeps no read buffer while nothing comes: a thousand idle subscribers cost their sockets.

use std::{
    cell::RefCell,
    future::Future,
    io,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Sleep,
};

use crate::{
    cluster::{
        recovery::{BETWEEN_DIALS, Backoff},
        topology::Node,
    },
    metrics::NodeTally,
    protocol::resp::Inbox,
    upstream::{
        connector::Connector,
        descriptors::{Descriptor, Descriptors},
        dial::{DialError, Dialer, Login, plain},
        transport::Stream,
    },
};

/// How many bytes one turn takes from one feed, so that a flood does not keep others of the worker waiting.
const TURN: usize = 256 * 1024;
/// The least that a frame counts as, in bytes: small ones take time, too.
const LEAST: usize = 256;

/// A node connection that is read all the time.
pub struct Feed {
    node: Arc<Node>,
    login: Login,
    dialer: Dialer,
    tally: Rc<NodeTally>,
    descriptors: Arc<Descriptors>,
    state: FeedState,
    /// Requests that the socket has not taken yet.
    out: BytesMut,
    /// Frames that have come.
    inbox: Inbox,
    backoff: Backoff,
    /// Bytes taken since it last had nothing.
    turn: usize,
}

/// A connection, and the open file that it takes.
type Dialled = Result<(Stream, Descriptor), DialError>;

enum FeedState {
    Dialling(Pin<Box<dyn Future<Output = Dialled>>>),
    /// The connection, and the open file that it takes.
    Open {
        stream: Stream,
        _descriptor: Descriptor,
    },
    Pausing(Pin<Box<Sleep>>),
}

/// What has happened on a feed.
#[derive(Debug)]
pub enum FeedEvent {
    /// The feed is connected and logged in; nothing has been asked for on it.
    Opened,
    /// A whole frame.
    Frame(Bytes),
    /// The connection is gone; it connects again.
    Lost(String),
    /// The node could not be reached; the feed tries again.
    Unreachable(DialError),
}

impl Feed {
    /// A feed from `node`; it connects as soon as it is polled.
    pub fn open(node: Arc<Node>, login: Login, connector: &Connector, tally: Rc<NodeTally>) -> Feed {
        let (dialer, descriptors) = (connector.dialer.clone(), connector.descriptors.clone());
        let dialled = dial(node.clone(), login.clone(), dialer.clone(), descriptors.clone());
        Feed {
            node,
            login,
            dialer,
            tally,
            descriptors,
            state: FeedState::Dialling(Box::pin(dialled)),
            out: BytesMut::new(),
            inbox: Inbox::default(),
            backoff: BETWEEN_DIALS,
            turn: 0,
        }
    }

    /// The node that it leads to.
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// Whether it is connected.
    pub fn is_open(&self) -> bool {
        matches!(self.state, FeedState::Open { .. })
    }

    /// Queues a request. To be called while the feed is open: the queue is lost with the connection.
    pub fn send(&mut self, frame: &[u8]) {
        self.tally.told();
        self.out.extend_from_slice(frame);
    }

    /// Connects, writes what is queued and reads; `buffer` is borrowed only while it reads.
    pub fn poll(&mut self, cx: &mut Context<'_>, buffer: &RefCell<Box<[u8]>>) -> Poll<FeedEvent> {
        loop {
            match &mut self.state {
                FeedState::Pausing(pause) => {
                    ready!(pause.as_mut().poll(cx));
                    let (node, login, descriptors) = (self.node.clone(), self.login.clone(), self.descriptors.clone());
                    self.state = FeedState::Dialling(Box::pin(dial(node, login, self.dialer.clone(), descriptors)));
                }
                FeedState::Dialling(dialling) => match ready!(dialling.as_mut().poll(cx)) {
                    Ok((stream, descriptor)) => {
                        self.tally.connected();
                        self.state = FeedState::Open { stream, _descriptor: descriptor };
                        return Poll::Ready(FeedEvent::Opened);
                    }
                    Err(error) => {
                        self.tally.connect_failed(error.permanent);
                        self.rest();
                        return Poll::Ready(FeedEvent::Unreachable(error));
                    }
                },
                FeedState::Open { .. } => match ready!(self.poll_open(cx, buffer)) {
                    Ok(frame) => {
                        self.backoff.reset();
                        return Poll::Ready(FeedEvent::Frame(frame));
                    }
                    Err(error) => {
                        self.tally.disconnected();
                        self.rest();
                        return Poll::Ready(FeedEvent::Lost(plain(&error)));
                    }
                },
            }
        }
    }

    fn poll_open(&mut self, cx: &mut Context<'_>, buffer: &RefCell<Box<[u8]>>) -> Poll<io::Result<Bytes>> {
        let FeedState::Open { stream, .. } = &mut self.state else { return Poll::Pending };
        while !self.out.is_empty() {
            match Pin::new(&mut *stream).poll_write(cx, &self.out) {
                Poll::Ready(count) => {
                    let count = count?;
                    self.tally.wrote(count);
                    bytes::Buf::advance(&mut self.out, count);
                }
                Poll::Pending => break,
            }
        }
        if self.out.is_empty() {
            // Its room would stay as long as the connection.
            self.out = BytesMut::new();
        }
        loop {
            if self.turn >= TURN {
                self.turn = 0;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if let Some(frame) = self.inbox.next_frame().map_err(|_| io::ErrorKind::InvalidData)? {
                self.turn += LEAST.saturating_sub(frame.len());
                return Poll::Ready(Ok(frame));
            }
            let buffer = &mut *buffer.borrow_mut();
            let mut read = ReadBuf::new(buffer);
            if Pin::new(&mut *stream).poll_read(cx, &mut read)?.is_pending() {
                self.turn = 0;
                return Poll::Pending;
            }
            if read.filled().is_empty() {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            self.turn += read.filled().len();
            self.tally.received(read.filled().len(), std::time::Instant::now());
            self.inbox.add(read.filled());
        }
    }

    /// Leaves the node alone for a while.
    fn rest(&mut self) {
        self.out = BytesMut::new();
        self.inbox = Inbox::default();
        self.state = FeedState::Pausing(Box::pin(tokio::time::sleep(self.backoff.pause())));
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        if self.is_open() {
            self.tally.disconnected();
        }
    }
}

async fn dial(node: Arc<Node>, login: Login, dialer: Dialer, descriptors: Arc<Descriptors>) -> Dialled {
    let descriptor = descriptors.take(&node.reach).await?;
    Ok((dialer.dial(&node.reach, &login.at(&node)).await?, descriptor))
}

#[cfg(test)]
mod tests;
