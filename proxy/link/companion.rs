//! RESP2 has no way to say something unasked: there a node tells of changed keys on a second connection, in RESP3.

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, ReadBuf},
    net::TcpStream,
};

use crate::{
    address::Address,
    dial::{self, DialError, Limits, Login, Version},
    resp::reply::Scanner,
};

/// The second connection.
pub(super) struct Companion {
    stream: TcpStream,
    input: BytesMut,
    scanner: Scanner,
}

impl Companion {
    /// Opens one where `login` needs it, and lets the login say that messages go there.
    pub async fn of(node: &Address, login: &mut Login, limits: &Limits) -> Result<Option<Companion>, DialError> {
        let (Version::Resp2, Some(tracking)) = (login.version, &mut login.tracking) else { return Ok(None) };
        let own = Login { version: Version::Resp3, credentials: login.credentials.clone(), ..Login::default() };
        let opened = dial::open(node, &own, limits).await?;
        tracking.redirect = opened.id;
        let input = BytesMut::from(opened.rest.as_slice());
        Ok(Some(Companion { stream: opened.stream, input, scanner: Scanner::default() }))
    }

    /// The next message.
    pub fn poll(&mut self, cx: &mut Context<'_>, buffer: &RefCell<Box<[u8]>>) -> Poll<io::Result<Bytes>> {
        loop {
            if !self.input.is_empty() {
                if let Some(end) = self.scanner.find(&self.input).map_err(|_| io::ErrorKind::InvalidData)? {
                    return Poll::Ready(Ok(self.input.split_to(end).freeze()));
                }
            } else if self.input.capacity() > 0 {
                self.input = BytesMut::new();
            }
            let buffer = &mut *buffer.borrow_mut();
            let mut read = ReadBuf::new(buffer);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut read))?;
            if read.filled().is_empty() {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            self.input.extend_from_slice(read.filled());
        }
    }
}
