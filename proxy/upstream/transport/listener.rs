//! Where clients, and visitors of the admin port, connect.

use std::{
    fs,
    future::poll_fn,
    io,
    net::SocketAddr,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::Path,
    sync::Arc,
    task::{Context, Poll, ready},
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::{Carrier, Stream};
use crate::protocol::endpoint::{Endpoint, ListenAddress};

/// Connections that the kernel holds until they are accepted (Redis' `tcp-backlog`).
const BACKLOG: i32 = 511;

/// A socket that is listened on.
#[derive(Debug)]
pub enum Listener {
    /// Of a network.
    Tcp(TcpListener),
    /// A unix socket; its file goes with it.
    Unix(UnixListener, SocketFile),
}

/// The file of a unix socket that is listened on.
#[derive(Debug)]
pub struct SocketFile(Arc<str>);

/// A stream that has been accepted, on its way to the event loop of the thread that serves it.
#[derive(Debug)]
pub enum Accepted {
    /// By TCP.
    Tcp(std::net::TcpStream),
    /// By a unix socket.
    Unix(std::os::unix::net::UnixStream),
}

impl Listener {
    /// Listens where clients connect. With `reuse_port`, several processes may listen on one port. The file of a unix
    /// socket that nobody listens on any more is taken over.
    ///
    /// # Errors
    /// What the system says: the address is in use, say.
    pub fn bind(address: &ListenAddress, reuse_port: bool) -> io::Result<Listener> {
        match address {
            ListenAddress::Tcp(address) => Listener::bind_tcp(*address, reuse_port),
            ListenAddress::Unix { path, mode } => Listener::bind_unix(path, *mode),
        }
    }

    /// Listens on a port; `[::]` serves IPv4 as well.
    ///
    /// # Errors
    /// As [`Listener::bind`].
    pub fn bind_tcp(address: SocketAddr, reuse_port: bool) -> io::Result<Listener> {
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
        TcpListener::from_std(socket.into()).map(Listener::Tcp)
    }

    fn bind_unix(path: &Arc<str>, mode: Option<u32>) -> io::Result<Listener> {
        let file = Path::new(&**path);
        if fs::symlink_metadata(file).is_ok_and(|found| found.file_type().is_socket()) {
            match std::os::unix::net::UnixStream::connect(file) {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(file)?,
                _ => return Err(io::ErrorKind::AddrInUse.into()),
            }
        }
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.bind(&socket2::SockAddr::unix(file)?)?;
        let removed_at_the_end = SocketFile(path.clone());
        if let Some(mode) = mode {
            // Nobody can connect before it is listened on.
            fs::set_permissions(file, fs::Permissions::from_mode(mode))?;
        }
        socket.listen(BACKLOG)?;
        UnixListener::from_std(socket.into()).map(|listener| Listener::Unix(listener, removed_at_the_end))
    }

    /// The address that is listened on: with the port that the system chose, where it was asked to.
    ///
    /// # Errors
    /// What the system says.
    pub fn address(&self) -> io::Result<Endpoint> {
        match self {
            Listener::Tcp(listener) => listener.local_addr().map(Endpoint::Tcp),
            Listener::Unix(_, file) => Ok(Endpoint::Unix(file.0.clone())),
        }
    }

    /// The next stream, from whom, and to which of this host's addresses.
    ///
    /// # Errors
    /// What the system says: there are no more open files, say.
    pub async fn accept(&self) -> io::Result<(Stream, Endpoint, Endpoint)> {
        poll_fn(|cx| self.poll_accept(cx)).await
    }

    /// As [`Listener::accept`], to be polled.
    pub fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Stream, Endpoint, Endpoint)>> {
        Poll::Ready(Ok(match self {
            Listener::Tcp(listener) => {
                let (stream, peer) = ready!(listener.poll_accept(cx))?;
                let local = stream.local_addr()?;
                (Stream::over(Carrier::Tcp(stream)), peer.into(), local.into())
            }
            Listener::Unix(listener, file) => {
                let (stream, _) = ready!(listener.poll_accept(cx))?;
                let end = Endpoint::Unix(file.0.clone());
                (Stream::over(Carrier::Unix(stream)), end.clone(), end)
            }
        }))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&*self.0);
    }
}

impl Stream {
    /// Takes an accepted stream off this thread's event loop.
    ///
    /// # Errors
    /// What the system says.
    pub fn detach(self) -> io::Result<Accepted> {
        match self.carrier {
            Carrier::Tcp(stream) => stream.into_std().map(Accepted::Tcp),
            Carrier::Unix(stream) => stream.into_std().map(Accepted::Unix),
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
        let carrier = match self {
            Accepted::Tcp(stream) => Carrier::Tcp(TcpStream::from_std(stream)?),
            Accepted::Unix(stream) => Carrier::Unix(UnixStream::from_std(stream)?),
        };
        Ok(Stream::over(carrier))
    }
}
