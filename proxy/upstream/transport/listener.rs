//! Where clients, and visitors of the admin port, connect.

use std::{
    future::poll_fn,
    io,
    net::SocketAddr,
    task::{Context, Poll, ready},
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};

use super::{Carrier, Stream};

/// Connections that the kernel holds until they are accepted (Redis' `tcp-backlog`).
const BACKLOG: i32 = 511;

/// A socket that is listened on.
#[derive(Debug)]
pub struct Listener(TcpListener);

/// A stream that has been accepted, on its way to the event loop of the thread that serves it.
#[derive(Debug)]
pub struct Accepted(std::net::TcpStream);

impl Listener {
    /// Listens on `address`; `[::]` serves IPv4 as well. With `reuse_port`, several processes may listen on one port.
    ///
    /// # Errors
    /// What the system says: the address is in use, say.
    pub fn bind(address: SocketAddr, reuse_port: bool) -> io::Result<Listener> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        if address.is_ipv6() {
            // Whatever the system's default is.
            socket.set_only_v6(false)?;
        }
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(reuse_port)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        TcpListener::from_std(socket.into()).map(Listener)
    }

    /// The address that is listened on: with the port that the system chose, where it was asked to.
    ///
    /// # Errors
    /// What the system says.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// The next stream, from whom, and to which of this host's addresses.
    ///
    /// # Errors
    /// What the system says: there are no more open files, say.
    pub async fn accept(&self) -> io::Result<(Stream, SocketAddr, SocketAddr)> {
        poll_fn(|cx| self.poll_accept(cx)).await
    }

    /// As [`Listener::accept`], to be polled.
    pub fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Stream, SocketAddr, SocketAddr)>> {
        let (stream, peer) = ready!(self.0.poll_accept(cx))?;
        let local = stream.local_addr()?;
        Poll::Ready(Ok((Stream::over(Carrier::Tcp(stream)), peer, local)))
    }
}

impl Stream {
    /// Takes an accepted stream off this thread's event loop.
    ///
    /// # Errors
    /// What the system says.
    pub fn detach(self) -> io::Result<Accepted> {
        match self.carrier {
            Carrier::Tcp(stream) => stream.into_std().map(Accepted),
            #[cfg(test)]
            Carrier::Memory(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

impl Accepted {
    /// Puts the stream on this thread's event loop.
    ///
    /// # Errors
    /// What the system says.
    pub fn attach(self) -> io::Result<Stream> {
        TcpStream::from_std(self.0).map(|stream| Stream::over(Carrier::Tcp(stream)))
    }
}
