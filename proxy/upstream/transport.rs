//! Streams of bytes to clients and nodes, whatever carries them.
//!
//! [`Stream`] is the one connection type of the proxy: sessions, links and everything else above read and write it and
//! never ask what it is. [`Network`] makes those to nodes, [`Listener`] those from clients. A new carrier is one more
//! variant here and nothing elsewhere; unit tests bring pipes within the process.
//!
//! Carriers are an enum and no trait object: the hot path pays one predictable branch for each read and write (is it TCP?),
//! and the number of system calls stays what it is for a bare socket.

mod listener;
#[cfg(test)]
pub mod memory;
mod own;
pub mod tls;

use std::{
    future::poll_fn,
    io,
    mem::MaybeUninit,
    net::SocketAddr,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
    time::{Duration, SystemTime},
};

use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf, Ready},
    net::{TcpStream, UnixStream, lookup_host},
    task::unconstrained,
};

pub use self::{
    listener::{Accepted, Arrival, Listener},
    own::OwnAddresses,
};
use self::{
    own::InUse,
    tls::{Tls, to_nodes::ToNodes},
};
use crate::protocol::address::Address;

/// A stream of bytes to a client or a node. Dropping it closes it.
#[derive(Debug)]
pub struct Stream {
    carrier: Carrier,
    /// The address by which a node knows it.
    _own: Option<Box<InUse>>,
}

#[derive(Debug)]
enum Carrier {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<Tls>),
    #[cfg(test)]
    Memory(tokio::io::DuplexStream),
}

/// After so many probes without an answer, a third of the idle time apart, a peer has gone: as in Redis' `anetKeepAlive`.
const UNANSWERED_PROBES: u32 = 3;

/// When the kernel finds out that a peer has gone without a word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keepalive {
    /// How long a connection is idle before TCP asks whether the peer is still there; `None`: it never asks.
    pub idle: Option<Duration>,
    /// How long sent bytes may stay unacknowledged before TCP gives the peer up (Linux); `None`: as the system has it.
    pub unacknowledged: Option<Duration>,
}

impl Stream {
    fn over(carrier: Carrier) -> Stream {
        Stream { carrier, _own: None }
    }

    /// Has small writes sent at once, and the peer looked after. Only sockets that may be idle on a network need it.
    ///
    /// # Errors
    /// What the system says, where it will not have an option.
    pub fn tune(&self, keepalive: Keepalive) -> io::Result<()> {
        // Of a unix socket the kernel knows at once when the peer, which is of this host, has gone.
        let Some(stream) = self.carrier.tcp() else { return Ok(()) };
        stream.set_nodelay(true)?;
        let socket = SockRef::from(stream);
        if let Some(idle) = keepalive.idle {
            let again = (idle / 3).max(Duration::from_secs(1));
            let asked = TcpKeepalive::new().with_time(idle).with_interval(again).with_retries(UNANSWERED_PROBES);
            socket.set_tcp_keepalive(&asked)?;
        }
        #[cfg(target_os = "linux")]
        if keepalive.unacknowledged.is_some() {
            socket.set_tcp_user_timeout(keepalive.unacknowledged)?;
        }
        Ok(())
    }

    /// TLS over this stream to the node at `target`, yet to be agreed on.
    ///
    /// # Errors
    /// No certificate could be for this node, or the stream is not one of TCP.
    pub fn secured(self, tls: &ToNodes, target: &Address) -> io::Result<Stream> {
        let Carrier::Tcp(socket) = self.carrier else { return Err(io::ErrorKind::Unsupported.into()) };
        let carrier = Carrier::Tls(Box::new(Tls::new(socket, tls.connection(target)?)));
        Ok(Stream { carrier, _own: self._own })
    }

    /// Has TLS agreed on, where it is spoken: who reads or writes without has it agreed on first, but does not learn what
    /// went wrong.
    ///
    /// # Errors
    /// The two ends cannot agree, or the stream is broken.
    pub async fn handshake(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll_handshake(cx)).await
    }

    /// As [`Stream::handshake`], to be polled.
    pub fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.carrier {
            Carrier::Tls(tls) => tls.poll_handshake(cx),
            Carrier::Tcp(_) | Carrier::Unix(_) => Poll::Ready(Ok(())),
            #[cfg(test)]
            Carrier::Memory(_) => Poll::Ready(Ok(())),
        }
    }

    /// Fills `buffer` with what comes first, TLS or not: before that is agreed on, and before anything else is read.
    ///
    /// # Errors
    /// The stream is broken, or has ended before.
    pub async fn read_ahead_of_tls(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        let mut filled = 0;
        while filled < buffer.len() {
            let rest = &mut buffer[filled..];
            let read = match &self.carrier {
                Carrier::Tcp(stream) => ready_to_read(stream.readable(), || stream.try_read(rest)).await?,
                Carrier::Tls(tls) => ready_to_read(tls.socket().readable(), || tls.socket().try_read(rest)).await?,
                Carrier::Unix(stream) => ready_to_read(stream.readable(), || stream.try_read(rest)).await?,
                #[cfg(test)]
                Carrier::Memory(_) => return Err(io::ErrorKind::Unsupported.into()),
            };
            match read {
                Some(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Some(count) => filled += count,
                None => {}
            }
        }
        Ok(())
    }

    /// Whether TLS is spoken.
    pub fn is_secured(&self) -> bool {
        matches!(self.carrier, Carrier::Tls(_))
    }

    /// The address of the other end, where it has one.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.carrier.tcp()?.peer_addr().ok()
    }

    /// When the certificate ends that the other end has shown, if it has.
    pub fn peer_valid_until(&self) -> Option<SystemTime> {
        let Carrier::Tls(tls) = &self.carrier else { return None };
        tls.peer_valid_until()
    }

    /// Whether the stream is open and has nothing to read: where nothing is asked, what comes is an end, or out of step. A
    /// stream that is not quiet is of no more use.
    ///
    /// The socket itself is asked: the runtime would only know after its next turn.
    pub fn is_quiet(&mut self) -> bool {
        match &mut self.carrier {
            Carrier::Tcp(stream) => has_nothing_to_read(&SockRef::from(&*stream)),
            Carrier::Unix(stream) => has_nothing_to_read(&SockRef::from(&*stream)),
            Carrier::Tls(tls) => tls.has_nothing_left() && has_nothing_to_read(&SockRef::from(tls.socket())),
            #[cfg(test)]
            Carrier::Memory(pipe) => {
                let mut byte = [0];
                let mut cx = Context::from_waker(Waker::noop());
                Pin::new(pipe).poll_read(&mut cx, &mut ReadBuf::new(&mut byte)).is_pending()
            }
        }
    }

    /// Sends a few last words where they go at once: one packet into an empty send buffer. Where they do not, nobody is
    /// listening.
    pub fn say_at_once(&mut self, words: &[u8]) {
        // Not within the budget of a task, which may be used up.
        let said = unconstrained(poll_fn(|cx| Pin::new(&mut *self).poll_write(cx, words)));
        let _ = pin!(said).poll(&mut Context::from_waker(Waker::noop()));
        if let Carrier::Tls(tls) = &mut self.carrier {
            // Nobody comes again with these words.
            tls.owes_nothing();
        }
    }

    /// Says so in plain text to a peer that does not speak TLS, where it goes at once.
    pub fn say_plainly(&mut self, words: &[u8]) {
        if let Carrier::Tls(tls) = &mut self.carrier {
            tls.say_plainly(words);
        }
    }

    /// The error that has ended the stream, as far as the kernel knows by now: the peer has reset it, say.
    pub fn error(&self) -> Option<io::Error> {
        match &self.carrier {
            Carrier::Tcp(stream) => SockRef::from(stream).take_error().ok().flatten(),
            Carrier::Unix(stream) => SockRef::from(stream).take_error().ok().flatten(),
            Carrier::Tls(tls) => SockRef::from(tls.socket()).take_error().ok().flatten(),
            #[cfg(test)]
            Carrier::Memory(_) => None,
        }
    }

    /// Whether the peer is known to have closed its sending side, though bytes of its are still to be read. Where that is
    /// not known, the next change of the stream's state wakes the task.
    pub fn is_closed_by_peer(&self, cx: &mut Context<'_>) -> bool {
        match &self.carrier {
            Carrier::Tcp(stream) => says_closed(pin!(stream.ready(Interest::READABLE)).poll(cx)),
            Carrier::Unix(stream) => says_closed(pin!(stream.ready(Interest::READABLE)).poll(cx)),
            Carrier::Tls(tls) => says_closed(pin!(tls.socket().ready(Interest::READABLE)).poll(cx)),
            // A pipe tells its end only to who reads it.
            #[cfg(test)]
            Carrier::Memory(_) => false,
        }
    }
}

impl AsyncRead for Stream {
    #[inline]
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().carrier {
            Carrier::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            other => other.poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    #[inline]
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().carrier {
            Carrier::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            other => other.poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().carrier {
            Carrier::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Carrier::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Carrier::Tls(tls) => tls.poll_flush(cx),
            #[cfg(test)]
            Carrier::Memory(pipe) => Pin::new(pipe).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().carrier {
            Carrier::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Carrier::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Carrier::Tls(tls) => tls.poll_shutdown(cx),
            #[cfg(test)]
            Carrier::Memory(pipe) => Pin::new(pipe).poll_shutdown(cx),
        }
    }
}

impl Carrier {
    /// The socket, where it is one of TCP.
    fn tcp(&self) -> Option<&TcpStream> {
        match self {
            Carrier::Tcp(stream) => Some(stream),
            Carrier::Tls(tls) => Some(tls.socket()),
            Carrier::Unix(_) => None,
            #[cfg(test)]
            Carrier::Memory(_) => None,
        }
    }

    // Apart, so that the way by TCP has one branch, whatever else there is.
    #[inline(never)]
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Carrier::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Carrier::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
            Carrier::Tls(tls) => tls.poll_read(cx, buffer),
            #[cfg(test)]
            Carrier::Memory(pipe) => Pin::new(pipe).poll_read(cx, buffer),
        }
    }

    #[inline(never)]
    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Carrier::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Carrier::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
            Carrier::Tls(tls) => tls.poll_write(cx, bytes),
            #[cfg(test)]
            Carrier::Memory(pipe) => Pin::new(pipe).poll_write(cx, bytes),
        }
    }
}

/// What `read` reads, once that may be done; nothing where it could not after all.
async fn ready_to_read(
    ready: impl Future<Output = io::Result<()>>,
    read: impl FnOnce() -> io::Result<usize>,
) -> io::Result<Option<usize>> {
    ready.await?;
    match read() {
        Ok(count) => Ok(Some(count)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

fn has_nothing_to_read(socket: &SockRef<'_>) -> bool {
    let mut byte = [MaybeUninit::uninit()];
    matches!(socket.peek(&mut byte), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

fn says_closed(state: Poll<io::Result<Ready>>) -> bool {
    matches!(state, Poll::Ready(Ok(state)) if state.is_read_closed())
}

/// What leads to the nodes.
#[derive(Clone, Debug)]
pub enum Network {
    /// TCP, with the system's name resolution; and the addresses that connections have taken.
    Tcp(OwnAddresses),
    /// Pipes within the process, to scripted peers.
    #[cfg(test)]
    Memory(memory::Memory),
}

impl Default for Network {
    fn default() -> Network {
        Network::Tcp(OwnAddresses::default())
    }
}

impl Network {
    /// Whether a node that tells of `address` means a connection of this network.
    pub fn is_own(&self, address: &str) -> bool {
        match self {
            Network::Tcp(own) => own.contain(address),
            #[cfg(test)]
            Network::Memory(_) => false,
        }
    }

    /// The addresses that a name has now.
    ///
    /// # Errors
    /// What the system's resolver says.
    pub async fn resolve(&self, target: &Address) -> io::Result<Vec<SocketAddr>> {
        match self {
            Network::Tcp(_) => Ok(lookup_host((target.host.as_str(), target.port)).await?.collect()),
            #[cfg(test)]
            Network::Memory(memory) => memory.resolve(target),
        }
    }

    /// A new stream to `address`.
    ///
    /// # Errors
    /// What the system says: the connection was refused, say.
    pub async fn connect(&self, address: SocketAddr) -> io::Result<Stream> {
        match self {
            Network::Tcp(own) => {
                let stream = TcpStream::connect(address).await?;
                let own = stream.local_addr().ok().map(|address| Box::new(own.add(address)));
                Ok(Stream { carrier: Carrier::Tcp(stream), _own: own })
            }
            #[cfg(test)]
            Network::Memory(memory) => memory.connect(address).map(|pipe| Stream::over(Carrier::Memory(pipe))),
        }
    }
}
