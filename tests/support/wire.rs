//! What carries a test's client: TCP, bare or with TLS.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use rustls::{ClientConfig, ClientConnection, StreamOwned, pki_types::ServerName};

/// A connection.
pub enum Wire {
    /// Bare.
    Plain(TcpStream),
    /// With TLS.
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Wire {
    /// TLS with the server that the certificate must be of, agreed on.
    pub fn secured(mut socket: TcpStream, name: &str, config: Arc<ClientConfig>) -> io::Result<Wire> {
        let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
        let mut connection = ClientConnection::new(config, name).map_err(io::Error::other)?;
        while connection.is_handshaking() {
            connection.complete_io(&mut socket)?;
        }
        Ok(Wire::Tls(Box::new(StreamOwned::new(connection, socket))))
    }

    /// The socket.
    pub fn socket(&self) -> &TcpStream {
        match self {
            Wire::Plain(socket) => socket,
            Wire::Tls(stream) => &stream.sock,
        }
    }

    /// Sends all of `bytes` by TLS, and meanwhile reads whatever comes, as neither side should wait for the other.
    pub fn exchange(&mut self, bytes: &[u8], received: &mut Vec<u8>, patience: Duration) -> io::Result<()> {
        let end = Instant::now() + patience;
        let Wire::Tls(stream) = self else { unreachable!("a bare socket has two handles") };
        stream.sock.set_nonblocking(true)?;
        let mut left = bytes;
        while !left.is_empty() || stream.conn.wants_write() {
            let taken = stream.conn.writer().write(left)?;
            left = &left[taken..];
            let sent = unless_blocked(stream.conn.write_tls(&mut stream.sock))?;
            let heard = unless_blocked(stream.conn.read_tls(&mut stream.sock))?;
            stream.conn.process_new_packets().map_err(io::Error::other)?;
            let mut chunk = [0; 64 * 1024];
            while let Some(count @ 1..) = unless_blocked(stream.conn.reader().read(&mut chunk))? {
                received.extend_from_slice(&chunk[..count]);
            }
            if heard == Some(0) || Instant::now() > end {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if sent.is_none() && heard.is_none() {
                thread::sleep(Duration::from_millis(1));
            }
        }
        stream.sock.set_nonblocking(false)
    }
}

fn unless_blocked(done: io::Result<usize>) -> io::Result<Option<usize>> {
    match done {
        Err(why) if matches!(why.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(None),
        done => done.map(Some),
    }
}

impl Read for Wire {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Wire::Plain(socket) => socket.read(bytes),
            Wire::Tls(stream) => stream.read(bytes),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Wire::Plain(socket) => socket.write(bytes),
            Wire::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Wire::Plain(socket) => socket.flush(),
            Wire::Tls(stream) => stream.flush(),
        }
    }
}
