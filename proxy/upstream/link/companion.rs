//! RESP2 has no pushes. A tracking client that speaks it, or may come to, has the node send invalidations to a second
//! connection, in RESP3.

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::io::{AsyncRead, ReadBuf};

use super::HELLO;
use crate::{
    protocol::{address::Address, resp::Inbox},
    upstream::{
        connector::Connector,
        descriptors::Descriptor,
        dial::{DialError, Login, Version},
        transport::Stream,
    },
};

/// The second connection.
pub(super) struct Companion {
    stream: Stream,
    inbox: Inbox,
    /// When something was said on it last.
    asked: Instant,
    _descriptor: Descriptor,
}

impl Companion {
    /// Opens one where `login` needs it, and lets the login say that messages go there.
    pub async fn of(node: &Address, login: &mut Login, connector: &Connector) -> Result<Option<Companion>, DialError> {
        let Some(tracking) = login.tracking.as_mut().filter(|tracking| tracking.apart) else { return Ok(None) };
        let own = Login { version: Version::Resp3, credentials: login.credentials.clone(), ..Login::default() };
        let descriptor = connector.descriptors.take(node).await?;
        let opened = connector.dialer.open(node, &own).await?;
        tracking.redirect = opened.id;
        let mut inbox = Inbox::default();
        inbox.add(&opened.rest);
        Ok(Some(Companion { stream: opened.stream, inbox, asked: Instant::now(), _descriptor: descriptor }))
    }

    /// Says HELLO where the connection has been idle for `quiet`: the node might close it.
    pub fn stay(&mut self, now: Instant, quiet: Duration) {
        if now.saturating_duration_since(self.asked) >= quiet {
            self.asked = now;
            self.stream.say_at_once(HELLO);
        }
    }

    /// The next message.
    pub fn poll(&mut self, cx: &mut Context<'_>, buffer: &RefCell<Box<[u8]>>) -> Poll<io::Result<Bytes>> {
        loop {
            if let Some(frame) = self.inbox.next_frame().map_err(|_| io::ErrorKind::InvalidData)? {
                if frame.first() == Some(&b'>') {
                    return Poll::Ready(Ok(frame));
                }
                continue;
            }
            let buffer = &mut *buffer.borrow_mut();
            let mut read = ReadBuf::new(buffer);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut read))?;
            if read.filled().is_empty() {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            self.inbox.add(read.filled());
        }
    }
}
