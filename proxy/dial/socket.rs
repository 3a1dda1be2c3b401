//! A socket to a node, and by which addresses such sockets of this process are known: what a node tells of its
//! connections (MONITOR) can then be told apart by who speaks on them.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    ops::{Deref, DerefMut},
    pin::Pin,
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// How long a node may still tell of a connection that has been closed here.
const TOLD_LATE: Duration = Duration::from_secs(10);

/// After so many new addresses, old ones are forgotten.
const FORGOTTEN_EVERY: usize = 64;

/// The local addresses of this process's sockets to nodes; when each was closed, if it was.
static OWN: Mutex<Option<HashMap<SocketAddr, Option<Instant>>>> = Mutex::new(None);

/// A connection to a node. A [`TcpStream`] whose address is known as the proxy's own.
#[derive(Debug)]
pub struct Socket {
    stream: TcpStream,
    address: Option<SocketAddr>,
}

impl Socket {
    /// A socket that has just been connected.
    pub(super) fn new(stream: TcpStream) -> Socket {
        let address = stream.local_addr().ok();
        if let Some(address) = address {
            let mut own = own();
            let own = own.get_or_insert_default();
            own.insert(address, None);
            if own.len().is_multiple_of(FORGOTTEN_EVERY) {
                own.retain(|_, closed| is_told_of(closed));
            }
        }
        Socket { stream, address }
    }

    /// Whether `address`, as a node writes it, is that of a connection of this process. Not where addresses are translated
    /// between here and the node.
    pub fn is_own(address: &str) -> bool {
        let Ok(address) = address.parse::<SocketAddr>() else { return false };
        own().as_ref().and_then(|own| own.get(&address)).is_some_and(is_told_of)
    }
}

fn is_told_of(closed: &Option<Instant>) -> bool {
    closed.is_none_or(|at| at.elapsed() < TOLD_LATE)
}

fn own() -> MutexGuard<'static, Option<HashMap<SocketAddr, Option<Instant>>>> {
    OWN.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Some(address) = self.address
            && let Some(closed) = own().as_mut().and_then(|own| own.get_mut(&address))
        {
            *closed = Some(Instant::now());
        }
    }
}

impl Deref for Socket {
    type Target = TcpStream;

    fn deref(&self) -> &TcpStream {
        &self.stream
    }
}

impl DerefMut for Socket {
    fn deref_mut(&mut self) -> &mut TcpStream {
        &mut self.stream
    }
}

impl AsyncRead for Socket {
    #[inline]
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl AsyncWrite for Socket {
    #[inline]
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn own_sockets_are_known_by_their_address() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let stranger = TcpStream::connect(at).await.unwrap();
        let socket = Socket::new(TcpStream::connect(at).await.unwrap());
        let address = socket.local_addr().unwrap().to_string();
        assert!(Socket::is_own(&address) && !Socket::is_own(&stranger.local_addr().unwrap().to_string()));
        assert!(!Socket::is_own("lua") && !Socket::is_own("unix:/tmp/socket"));
        drop(socket);
        assert!(Socket::is_own(&address), "a node may still tell of it");
    }
}
