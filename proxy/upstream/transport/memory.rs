//! Streams within the process, for unit tests: a client without a socket, and nodes that say what a test has them say.
//!
//! Nothing here waits for the kernel, so that tests may pause the clock.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    sync::mpsc,
};

use super::{Carrier, Stream};
use crate::protocol::{address::Address, resp::request::Parser};

/// What a pipe holds in each direction.
const ROOM: usize = 64 * 1024;

/// Addresses at which scripted nodes listen. Others refuse connections.
#[derive(Clone, Debug, Default)]
pub struct Memory(Arc<Mutex<HashMap<SocketAddr, mpsc::UnboundedSender<Peer>>>>);

/// Where a scripted node accepts connections.
pub struct Backlog(mpsc::UnboundedReceiver<Peer>);

/// The other end of a stream, in a test's hands.
#[derive(Debug)]
pub struct Peer(pub DuplexStream);

impl Memory {
    /// Listens at `address` from now on; dropping what it returns refuses connections again.
    pub fn listen(&self, address: &str) -> Backlog {
        let (sender, backlog) = mpsc::unbounded_channel();
        let address = address.parse().expect("an address");
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(address, sender);
        Backlog(backlog)
    }

    pub(super) fn resolve(&self, target: &Address) -> io::Result<Vec<SocketAddr>> {
        let address = target.to_string().parse();
        address.map(|address| vec![address]).map_err(|_| io::Error::other("the name is not known"))
    }

    pub(super) fn connect(&self, address: SocketAddr) -> io::Result<DuplexStream> {
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (here, there) = tokio::io::duplex(ROOM);
        all.get(&address).ok_or_else(refused)?.send(Peer(there)).map_err(|_| refused())?;
        Ok(here)
    }
}

impl Backlog {
    /// The next connection.
    pub async fn accept(&mut self) -> Peer {
        self.0.recv().await.expect("the network has gone")
    }
}

impl Peer {
    /// A stream, and its other end.
    pub fn pair() -> (Stream, Peer) {
        let (here, there) = tokio::io::duplex(ROOM);
        (Stream::over(Carrier::Memory(here)), Peer(there))
    }

    /// Sends bytes.
    pub async fn says(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.expect("the other end has gone");
    }

    /// Reads just these bytes.
    pub async fn hears(&mut self, expected: &[u8]) {
        let mut bytes = vec![0; expected.len()];
        let read = self.0.read_exact(&mut bytes).await;
        assert!(read.is_ok(), "the stream ended before {}", expected.escape_ascii());
        assert_eq!(bytes.escape_ascii().to_string(), expected.escape_ascii().to_string());
    }

    /// The next request, as its frame.
    pub async fn request(&mut self) -> Vec<u8> {
        let (mut bytes, mut parser) = (Vec::new(), Parser::default());
        loop {
            if let Some(found) = parser.find(&bytes).expect("a request") {
                assert_eq!(found.used, bytes.len());
                return bytes;
            }
            bytes.push(self.0.read_u8().await.expect("the other end has gone"));
        }
    }

    /// Reads to the end: the other end has closed the stream. What came before that.
    pub async fn hears_the_end(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        self.0.read_to_end(&mut rest).await.expect("an end");
        rest
    }
}
