//! TLS over TCP, by rustls.
//!
//! Whoever reads and writes a [`Stream`](super::Stream) knows nothing of records, so two things must hold here:
//! - What has been taken to be written is sent, without anybody's flushing: see `Tls::poll_write`.
//! - A task that reads until it must wait has everything that has come: no reader looks at the socket while there is
//!   something left to hand out.
//!
//! No early data is taken (it could be replayed), and no other protocol is agreed on (ALPN).

pub mod certificate;
pub mod files;
pub mod for_clients;
pub mod to_nodes;
pub mod to_ourselves;

use std::{
    fmt,
    io::{self, BufRead, IoSlice, Read, Write},
    mem::MaybeUninit,
    pin::Pin,
    task::{Context, Poll, Waker, ready},
    time::SystemTime,
};

use rustls::Connection;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    task::unconstrained,
};

/// What is read from the socket at once: a record of the longest kind.
const RECEIVED_AT_ONCE: usize = 16 * 1024;
/// What is encrypted for a client at once: so much may be held for one that does not read, beside what its session owes.
const SENT_AT_ONCE: usize = 16 * 1024;
/// The kinds that a record may be of, as its first byte says.
const KINDS: std::ops::RangeInclusive<u8> = 20..=24;

/// A TLS connection.
pub(super) struct Tls {
    socket: TcpStream,
    connection: Connection,
    /// What has been received and not decrypted, since there was no room for more.
    unfed: Vec<u8>,
    /// The last byte that was taken counts as written once all records are sent.
    owes: bool,
    /// Whether anything has been received.
    has_heard: bool,
}

/// The other end speaks something else.
#[derive(Debug)]
pub struct PlainText;

impl Tls {
    pub(super) fn new(socket: TcpStream, connection: impl Into<Connection>) -> Tls {
        let mut connection = connection.into();
        if let Connection::Server(client) = &mut connection {
            client.set_buffer_limit(Some(SENT_AT_ONCE));
        }
        Tls { socket, connection, unfed: Vec::new(), owes: false, has_heard: false }
    }

    pub(super) fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// When the peer's certificate ends, or the first of those behind it.
    pub(super) fn peer_valid_until(&self) -> Option<SystemTime> {
        self.connection.peer_certificates()?.iter().filter_map(|one| certificate::valid_until(one)).min()
    }

    /// Whether nothing has been decrypted that nobody has read.
    pub(super) fn has_nothing_left(&mut self) -> bool {
        self.unfed.is_empty() && matches!(self.connection.reader().fill_buf(), Err(why) if is_blocked(&why))
    }

    /// Ready once both ends have agreed.
    ///
    /// # Errors
    /// [`PlainText`] or a [`rustls::Error`] within; or what the system says.
    pub(super) fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_send(cx))?;
            if !self.connection.is_handshaking() {
                return Poll::Ready(Ok(()));
            }
            if ready!(self.poll_receive(cx, &mut ReadBuf::new(&mut [])))? == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    /// The end of the stream is told whether the peer has announced it (close_notify) or not: replies and requests say
    /// themselves where they end.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = out.filled().len();
        loop {
            let is_over = self.hand_out(out)?;
            if is_over || out.filled().len() > before || out.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            let received = self.poll_receive(cx, out)?;
            if out.filled().len() > before {
                return Poll::Ready(Ok(()));
            }
            if ready!(received) == 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Takes bytes, encrypts and sends them. While the socket does not take all, the last byte of them is not said to be
    /// written, so that the caller comes again with it: it has something to write as long as there is something to send.
    /// A frame that has been begun is therefore to be finished, as on any stream.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_send(cx))?;
        let owed = usize::from(std::mem::take(&mut self.owes)).min(bytes.len());
        let taken = owed + self.connection.writer().write(&bytes[owed..])?;
        if self.poll_send(cx)?.is_ready() {
            return Poll::Ready(Ok(taken));
        }
        self.owes = taken > 0;
        if taken > 1 { Poll::Ready(Ok(taken - 1)) } else { Poll::Pending }
    }

    /// Whoever writes next begins with something new.
    pub(super) fn owes_nothing(&mut self) {
        self.owes = false;
    }

    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_send(cx)
    }

    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.connection.send_close_notify();
        ready!(self.poll_send(cx))?;
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }

    /// Says something in plain text to a peer that speaks no TLS, where it goes at once.
    pub(super) fn say_plainly(&mut self, words: &[u8]) {
        let said = unconstrained(std::future::poll_fn(|cx| Pin::new(&mut self.socket).poll_write(cx, words)));
        let _ = std::pin::pin!(said).poll(&mut Context::from_waker(Waker::noop()));
    }

    /// Sends what is encrypted.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.connection.wants_write() {
            let sent = self.connection.write_tls(&mut Out { socket: &mut self.socket, cx });
            match sent {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(_) => {}
                Err(why) if is_blocked(&why) => return Poll::Pending,
                Err(why) => return Poll::Ready(Err(why)),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Takes what has come and decrypts into `out` as much as there is room for; how many bytes have come, or had been kept.
    fn poll_receive(&mut self, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<usize>> {
        if !self.unfed.is_empty() {
            let unfed = std::mem::take(&mut self.unfed);
            return Poll::Ready(self.feed(cx, &unfed, out).map(|()| unfed.len()));
        }
        let mut space = [MaybeUninit::uninit(); RECEIVED_AT_ONCE];
        let mut received = ReadBuf::uninit(&mut space);
        ready!(Pin::new(&mut self.socket).poll_read(cx, &mut received))?;
        let received = received.filled();
        if received.is_empty() {
            self.connection.read_tls(&mut io::empty())?;
        } else if !std::mem::replace(&mut self.has_heard, true) && !KINDS.contains(&received[0]) {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, PlainText)));
        }
        Poll::Ready(self.feed(cx, received, out).map(|()| received.len()))
    }

    fn feed(&mut self, cx: &mut Context<'_>, mut received: &[u8], out: &mut ReadBuf<'_>) -> io::Result<()> {
        while !received.is_empty() {
            let taken = self.connection.read_tls(&mut received)?;
            if let Err(why) = self.connection.process_new_packets() {
                // The peer is told why, as far as that can be said at once.
                let _ = self.poll_send(cx);
                return Err(io::Error::new(io::ErrorKind::InvalidData, why));
            }
            let is_over = self.hand_out(out)?;
            if is_over || taken == 0 {
                break;
            }
            if out.remaining() == 0 {
                self.unfed = received.to_vec();
                break;
            }
        }
        // New keys, say, that the peer has asked for. What does not go at once goes with what is written next.
        let _ = self.poll_send(cx)?;
        Ok(())
    }

    /// Hands out what is decrypted; whether the peer has said that this was all.
    fn hand_out(&mut self, out: &mut ReadBuf<'_>) -> io::Result<bool> {
        while out.remaining() > 0 {
            match self.connection.reader().read(out.initialize_unfilled()) {
                Ok(0) => return Ok(true),
                Ok(count) => out.advance(count),
                Err(why) if why.kind() == io::ErrorKind::UnexpectedEof => return Ok(true),
                Err(why) if is_blocked(&why) => break,
                Err(why) => return Err(why),
            }
        }
        Ok(false)
    }
}

impl Drop for Tls {
    /// Says that this is the end, where that goes at once.
    fn drop(&mut self) {
        if !self.connection.is_handshaking() {
            self.connection.send_close_notify();
            let said = unconstrained(std::future::poll_fn(|cx| self.poll_send(cx)));
            let _ = std::pin::pin!(said).poll(&mut Context::from_waker(Waker::noop()));
        }
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("socket", &self.socket).finish_non_exhaustive()
    }
}

impl fmt::Display for PlainText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it speaks plain text")
    }
}

impl std::error::Error for PlainText {}

/// The socket, for rustls to write to; all records in one system call.
struct Out<'a, 'b> {
    socket: &'a mut TcpStream,
    cx: &'a mut Context<'b>,
}

impl Write for Out<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        or_blocked(Pin::new(&mut *self.socket).poll_write(self.cx, bytes))
    }

    fn write_vectored(&mut self, records: &[IoSlice<'_>]) -> io::Result<usize> {
        match records {
            [record] => self.write(record),
            records => or_blocked(Pin::new(&mut *self.socket).poll_write_vectored(self.cx, records)),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn or_blocked(written: Poll<io::Result<usize>>) -> io::Result<usize> {
    match written {
        Poll::Ready(written) => written,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}

fn is_blocked(why: &io::Error) -> bool {
    why.kind() == io::ErrorKind::WouldBlock
}
