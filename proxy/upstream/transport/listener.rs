//! Where clients, and visitors of the admin port, connect.

use std::{
    fs,
    future::poll_fn,
    io,
    net::SocketAddr,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::{FileTypeExt, PermissionsExt},
    },
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
};

use rustls::ServerConfig;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::{
    Carrier, Keepalive, Stream,
    tls::{
        Tls,
        for_clients::{self, ForClients},
    },
};
use crate::protocol::endpoint::{Endpoint, ListenAddress};

/// Connections that the kernel holds until they are accepted (Redis' `tcp-backlog`).
const BACKLOG: i32 = 511;

/// A socket that is listened on.
#[derive(Debug)]
pub enum Listener {
    /// Of a network; and how TLS is spoken there, if it is.
    Tcp(TcpListener, Option<ForClients>),
    /// A unix socket; its file goes with it.
    Unix(UnixListener, SocketFile),
}

/// The file of a unix socket that is listened on.
#[derive(Debug)]
pub struct SocketFile {
    path: Arc<str>,
    /// Whether it goes when nobody listens any more: not where somebody else has made it, or listens on.
    is_ours: AtomicBool,
}

/// A client, or a visitor of the admin port, that has connected.
#[derive(Debug)]
pub struct Arrival {
    stream: Stream,
    tls: Option<Arc<ServerConfig>>,
    /// From where.
    pub peer: Endpoint,
    /// To which of this host's addresses.
    pub local: Endpoint,
}

/// A stream that has been accepted, on its way to the event loop of the thread that serves it.
#[derive(Debug)]
pub struct Accepted {
    socket: Socket,
    is_unix: bool,
    tls: Option<Arc<ServerConfig>>,
}

impl Listener {
    /// Listens where clients connect. With `reuse_port`, several processes may listen on one port. The file of a unix
    /// socket that nobody listens on any more is taken over. Where TLS is spoken, `tls` says how.
    ///
    /// # Errors
    /// What the system says: the address is in use, say.
    pub fn bind(address: &ListenAddress, reuse_port: bool, tls: Option<&ForClients>) -> io::Result<Listener> {
        match address {
            ListenAddress::Tcp(address) => Listener::bind_tcp(*address, reuse_port, None),
            ListenAddress::Tls(address) => {
                // Never in plain text, whoever forgot what.
                let tls = tls.ok_or(io::ErrorKind::InvalidInput)?;
                Listener::bind_tcp(*address, reuse_port, Some(tls.clone()))
            }
            ListenAddress::Unix { path, mode } => Listener::bind_unix(path, *mode),
        }
    }

    /// Goes on listening at this address by a socket that does already; the file of a unix socket is `ours` where it goes with
    /// the listener.
    ///
    /// # Errors
    /// As [`Listener::bind`].
    pub fn over(socket: Socket, address: &ListenAddress, tls: Option<&ForClients>, ours: bool) -> io::Result<Listener> {
        match address {
            ListenAddress::Tcp(_) => Listener::tcp(socket, None),
            ListenAddress::Tls(_) => Listener::tcp(socket, Some(tls.ok_or(io::ErrorKind::InvalidInput)?.clone())),
            ListenAddress::Unix { path, .. } => {
                let file = SocketFile { path: path.clone(), is_ours: AtomicBool::new(ours) };
                UnixListener::from_std(socket.into()).map(|listener| Listener::Unix(listener, file))
            }
        }
    }

    /// By a TCP socket that listens already.
    ///
    /// # Errors
    /// What the system says.
    pub fn tcp(socket: Socket, tls: Option<ForClients>) -> io::Result<Listener> {
        TcpListener::from_std(socket.into()).map(|listener| Listener::Tcp(listener, tls))
    }

    /// Somebody else listens on by the same socket: its file stays.
    pub fn is_handed_over(&self) {
        if let Listener::Unix(_, file) = self {
            file.is_ours.store(false, Relaxed);
        }
    }

    /// Listens on a port; `[::]` serves IPv4 as well.
    ///
    /// # Errors
    /// As [`Listener::bind`].
    pub fn bind_tcp(address: SocketAddr, reuse_port: bool, tls: Option<ForClients>) -> io::Result<Listener> {
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
        Listener::tcp(socket, tls)
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
        let removed_at_the_end = SocketFile { path: path.clone(), is_ours: AtomicBool::new(true) };
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
            Listener::Tcp(listener, _) => listener.local_addr().map(Endpoint::Tcp),
            Listener::Unix(_, file) => Ok(Endpoint::Unix(file.path.clone())),
        }
    }

    /// Who connects next.
    ///
    /// # Errors
    /// What the system says: there are no more open files, say.
    pub async fn accept(&self) -> io::Result<Arrival> {
        poll_fn(|cx| self.poll_accept(cx)).await
    }

    /// As [`Listener::accept`], to be polled.
    pub fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<Arrival>> {
        Poll::Ready(Ok(match self {
            Listener::Tcp(listener, tls) => {
                let (stream, peer) = ready!(listener.poll_accept(cx))?;
                let local = stream.local_addr()?.into();
                let tls = tls.as_ref().map(ForClients::config);
                Arrival { stream: Stream::over(Carrier::Tcp(stream)), tls, peer: peer.into(), local }
            }
            Listener::Unix(listener, file) => {
                let (stream, _) = ready!(listener.poll_accept(cx))?;
                let end = Endpoint::Unix(file.path.clone());
                Arrival { stream: Stream::over(Carrier::Unix(stream)), tls: None, peer: end.clone(), local: end }
            }
        }))
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Listener::Tcp(listener, _) => listener.as_fd(),
            Listener::Unix(listener, _) => listener.as_fd(),
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.is_ours.load(Relaxed) {
            let _ = fs::remove_file(&*self.path);
        }
    }
}

impl Arrival {
    /// As [`Stream::tune`].
    ///
    /// # Errors
    /// As there.
    pub fn tune(&self, keepalive: Keepalive) -> io::Result<()> {
        self.stream.tune(keepalive)
    }

    /// Sends it away with these words, where it can read them: not before TLS is agreed on.
    pub fn turn_away(mut self, words: &[u8]) {
        if self.tls.is_none() {
            self.stream.say_at_once(words);
        }
    }

    /// The stream, to be served by this thread.
    ///
    /// # Errors
    /// TLS cannot be begun.
    pub fn into_stream(self) -> io::Result<Stream> {
        secured(self.stream, self.tls)
    }

    /// Takes the stream off this thread's event loop.
    ///
    /// # Errors
    /// What the system says.
    pub fn detach(self) -> io::Result<Accepted> {
        let socket = match self.stream.carrier {
            Carrier::Tcp(stream) => Socket::from(stream.into_std()?),
            Carrier::Unix(stream) => Socket::from(stream.into_std()?),
            _ => return Err(io::ErrorKind::Unsupported.into()),
        };
        Ok(Accepted { socket, is_unix: matches!(self.local, Endpoint::Unix(_)), tls: self.tls })
    }
}

impl Accepted {
    /// Puts the stream on this thread's event loop.
    ///
    /// # Errors
    /// What the system says.
    pub fn attach(self) -> io::Result<Stream> {
        let carrier = if self.is_unix {
            Carrier::Unix(UnixStream::from_std(self.socket.into())?)
        } else {
            Carrier::Tcp(TcpStream::from_std(self.socket.into())?)
        };
        secured(Stream::over(carrier), self.tls)
    }
}

fn secured(stream: Stream, tls: Option<Arc<ServerConfig>>) -> io::Result<Stream> {
    match (stream.carrier, tls) {
        (Carrier::Tcp(socket), Some(tls)) => {
            Ok(Stream::over(Carrier::Tls(Box::new(Tls::new(socket, for_clients::connection(tls)?)))))
        }
        (carrier, _) => Ok(Stream::over(carrier)),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn unix(path: &Path, mode: Option<u32>) -> ListenAddress {
        ListenAddress::Unix { path: path.to_str().unwrap().into(), mode }
    }

    fn bind(address: &ListenAddress) -> Result<Listener, io::ErrorKind> {
        Listener::bind(address, false, None).map_err(|error| error.kind())
    }

    #[tokio::test]
    async fn the_file_of_a_unix_socket_is_taken_from_nobody_and_goes_with_its_listener() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let address = unix(&path, Some(0o600));
        let first = bind(&address).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(bind(&address).unwrap_err(), io::ErrorKind::AddrInUse, "somebody listens");
        drop(first);
        assert!(!path.exists());
        // What is left of a process that has crashed.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let second = bind(&address).unwrap();
        second.is_handed_over();
        drop(second);
        assert!(path.exists(), "another listens on by it");
        drop(bind(&address).unwrap());
        fs::write(&path, "a file of somebody").unwrap();
        assert_eq!(bind(&address).unwrap_err(), io::ErrorKind::AddrInUse);
        assert_eq!(fs::read(&path).unwrap(), b"a file of somebody");
    }

    #[tokio::test]
    async fn where_tls_is_wanted_nobody_is_served_without() {
        let tls = ListenAddress::Tls("127.0.0.1:0".parse().unwrap());
        assert_eq!(bind(&tls).unwrap_err(), io::ErrorKind::InvalidInput);
        let Listener::Tcp(plain, None) = bind(&ListenAddress::Tcp("127.0.0.1:0".parse().unwrap())).unwrap() else {
            panic!("it speaks no TLS");
        };
        let socket = Socket::from(plain.into_std().unwrap());
        assert_eq!(Listener::over(socket, &tls, None, true).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }

    #[tokio::test]
    async fn who_arrives_is_turned_away_in_words_or_served_by_another_thread() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let (by_file, by_port) =
            (bind(&unix(&path, None)).unwrap(), Listener::bind_tcp("[::]:0".parse().unwrap(), false, None).unwrap());
        let Endpoint::Tcp(port) = by_port.address().unwrap() else { panic!("a port") };
        // IPv4 as well.
        let connect = async || TcpStream::connect(("127.0.0.1", port.port())).await.unwrap();
        let (mut client, arrival) = (connect().await, by_port.accept().await.unwrap());
        arrival.turn_away(b"-ERR max number of clients reached\r\n");
        let mut said = String::new();
        client.read_to_string(&mut said).await.unwrap();
        assert_eq!(said, "-ERR max number of clients reached\r\n");

        let mut client = connect().await;
        let arrival = by_port.accept().await.unwrap();
        assert_eq!(arrival.peer, client.local_addr().unwrap().into());
        echoes(arrival, &mut client).await;
        let mut client = UnixStream::connect(&path).await.unwrap();
        let arrival = by_file.accept().await.unwrap();
        assert_eq!(arrival.peer, by_file.address().unwrap());
        echoes(arrival, &mut client).await;
    }

    /// Another thread, with a runtime of its own, says back what the client says.
    async fn echoes(arrival: Arrival, client: &mut (impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin)) {
        let accepted = arrival.detach().unwrap();
        let served = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let (mut stream, mut word) = (accepted.attach().unwrap(), [0; 4]);
                stream.read_exact(&mut word).await.unwrap();
                stream.write_all(&word).await.unwrap();
            });
        });
        client.write_all(b"word").await.unwrap();
        let mut said = Vec::new();
        client.read_to_end(&mut said).await.unwrap();
        assert_eq!(said, b"word");
        served.join().unwrap();
    }
}
