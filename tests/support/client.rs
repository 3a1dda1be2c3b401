//! A plain RESP client that keeps replies as the bytes that came, so that two servers can be compared byte by byte.

use std::{
    fmt,
    io::{self, Read, Write},
    net::{Shutdown, TcpStream},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use rustls::ClientConfig;
use slotway::protocol::resp::{Value, reply::Scanner, write};

use super::wire::Wire;

/// How long a reply may take unless a test says otherwise.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// One connection.
pub struct Client {
    stream: Wire,
    received: Vec<u8>,
    scanner: Scanner,
    /// How long each reply may take.
    pub patience: Duration,
}

/// One reply, as its bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reply(pub Vec<u8>);

/// The words of a line, split at spaces.
pub fn words(line: &str) -> Vec<&str> {
    line.split(' ').collect()
}

/// The frame of a request.
pub fn frame<T: AsRef<[u8]>>(args: &[T]) -> Vec<u8> {
    let mut out = Vec::new();
    write::request(&mut out, args);
    out
}

impl Client {
    /// Connects to `address`, `host:port`.
    #[track_caller]
    pub fn connect(address: &str) -> Client {
        Client::try_connect(address).unwrap_or_else(|error| panic!("connecting to {address}: {error}"))
    }

    /// Connects to `address` where that is possible within the patience.
    pub fn try_connect(address: &str) -> io::Result<Client> {
        let address = address.parse().map_err(io::Error::other)?;
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_nodelay(true)?;
        Ok(Client::over(Wire::Plain(stream)))
    }

    /// Connects to `address` by TLS where that is possible: its certificate must be for `name`.
    pub fn try_connect_tls(address: &str, name: &str, config: Arc<ClientConfig>) -> io::Result<Client> {
        let address = address.parse().map_err(io::Error::other)?;
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Client::over(Wire::secured(stream, name, config)?))
    }

    /// Over a connection.
    pub fn over(stream: Wire) -> Client {
        Client { stream, received: Vec::new(), scanner: Scanner::default(), patience: PATIENCE }
    }

    /// The same, waiting no longer than `patience` for each reply.
    pub fn patient(mut self, patience: Duration) -> Client {
        self.patience = patience;
        self
    }

    /// Sends one request and reads its reply.
    #[track_caller]
    pub fn call<T: AsRef<[u8]>>(&mut self, args: &[T]) -> Reply {
        match self.try_call(args) {
            Ok(reply) => reply,
            Err(error) => panic!("{}: {error}", show(args)),
        }
    }

    /// [`Client::call`] for the words of a line.
    #[track_caller]
    pub fn line(&mut self, line: &str) -> Reply {
        self.call(&words(line))
    }

    /// Sends one request and reads its reply, if it comes.
    pub fn try_call<T: AsRef<[u8]>>(&mut self, args: &[T]) -> io::Result<Reply> {
        self.stream.write_all(&frame(args))?;
        self.read()
    }

    /// Sends one request.
    #[track_caller]
    pub fn send<T: AsRef<[u8]>>(&mut self, args: &[T]) {
        self.send_raw(&frame(args));
    }

    /// Sends `bytes` as they are.
    #[track_caller]
    pub fn send_raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("sending");
    }

    /// Sends `bytes` as they are, if that is possible.
    pub fn try_send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends all of `bytes` while the `count` replies are being read: neither side waits for the other.
    #[track_caller]
    pub fn exchange(&mut self, bytes: &[u8], count: usize) -> Vec<Reply> {
        if matches!(self.stream, Wire::Tls(_)) {
            self.stream.exchange(bytes, &mut self.received, self.patience).expect("sending");
            return (0..count).map(|_| self.reply()).collect();
        }
        let mut sender = self.stream.socket().try_clone().expect("a second handle");
        thread::scope(|scope| {
            scope.spawn(move || sender.write_all(bytes));
            (0..count)
                .map(|index| self.read().unwrap_or_else(|error| panic!("reply {index} of {count}: {error}")))
                .collect()
        })
    }

    /// Sends all requests at once and reads all replies.
    #[track_caller]
    pub fn pipeline<T: AsRef<[u8]>>(&mut self, requests: &[Vec<T>]) -> Vec<Reply> {
        let bytes: Vec<u8> = requests.iter().flat_map(|args| frame(args)).collect();
        self.exchange(&bytes, requests.len())
    }

    /// The next reply.
    pub fn read(&mut self) -> io::Result<Reply> {
        let end = Instant::now() + self.patience;
        loop {
            let found = self.scanner.find(&self.received).map_err(|_| {
                let start = &self.received[..self.received.len().min(200)];
                io::Error::other(format!("malformed reply: {}", start.escape_ascii()))
            })?;
            if let Some(length) = found {
                let rest = self.received.split_off(length);
                let reply = Reply(std::mem::replace(&mut self.received, rest));
                reply.is_named();
                return Ok(reply);
            }
            self.receive(end)?;
        }
    }

    /// The next reply; panics where none comes.
    #[track_caller]
    pub fn reply(&mut self) -> Reply {
        self.read().unwrap_or_else(|error| panic!("no reply: {error}"))
    }

    /// Everything up to the end of the connection.
    pub fn read_to_end(&mut self) -> io::Result<Vec<u8>> {
        let end = Instant::now() + self.patience;
        loop {
            match self.receive(end) {
                Ok(()) => {}
                Err(error) if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) => {
                    return Ok(std::mem::take(&mut self.received));
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Says that no more requests will come.
    pub fn finish_sending(&mut self) {
        self.stream.socket().shutdown(Shutdown::Write).expect("shutdown");
    }

    /// The socket.
    pub fn stream(&self) -> &TcpStream {
        self.stream.socket()
    }

    fn receive(&mut self, end: Instant) -> io::Result<()> {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let held = self.received.escape_ascii().to_string();
            let held = held.get(..200).unwrap_or(&held);
            let text = format!("nothing within {:?}; unread: {held}", self.patience);
            return Err(io::Error::new(io::ErrorKind::TimedOut, text));
        }
        self.stream.socket().set_read_timeout(Some(left))?;
        let mut chunk = [0; 64 * 1024];
        match self.stream.read(&mut chunk) {
            Ok(0) => {
                let held = self.received.escape_ascii().to_string();
                let held = held.get(..200).unwrap_or(&held);
                Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("connection closed; unread: {held}")))
            }
            Ok(count) => {
                self.received.extend_from_slice(&chunk[..count]);
                Ok(())
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl Reply {
    /// What the proxy says of its own accord ends with its name, in all tests: `deploy/troubleshooting.md` has them.
    #[track_caller]
    fn is_named(&self) {
        let Some(said) = self.0.strip_prefix(b"-") else { return };
        let said = String::from_utf8_lossy(said);
        let is_own = ["ERR proxy: ", "CLUSTERDOWN proxy: ", "NOPERM proxy: ", "TRYAGAIN proxy: "];
        let is_own = is_own.iter().any(|start| said.starts_with(start));
        // What a script raises has its place behind it.
        assert!(!is_own || said.contains(" (SLOTWAY-"), "an error without a name: {said}");
    }

    /// Whether it is an error.
    pub fn is_error(&self) -> bool {
        matches!(self.0.first(), Some(b'-' | b'!'))
    }

    /// As a tree.
    #[track_caller]
    pub fn value(&self) -> Value {
        match Value::parse(&self.0) {
            Ok(Some((value, used))) if used == self.0.len() => value,
            other => panic!("{self:?} is no reply: {other:?}"),
        }
    }

    /// The text of a bulk or simple string.
    #[track_caller]
    pub fn text(&self) -> Vec<u8> {
        self.value().text().unwrap_or_else(|| panic!("{self:?} is no text")).to_vec()
    }

    /// The text of a bulk or simple string, as UTF-8.
    #[track_caller]
    pub fn string(&self) -> String {
        String::from_utf8(self.text()).expect("UTF-8")
    }

    /// The bytes, without the client's id that HELLO tells.
    pub fn without_id(&self) -> Vec<u8> {
        const ID: &[u8] = b"$2\r\nid\r\n:";
        match self.0.windows(ID.len()).position(|part| part == ID) {
            Some(at) => {
                let (before, id) = self.0.split_at(at + ID.len());
                let end = id.iter().position(|&byte| byte == b'\r').unwrap_or(0);
                [before, &id[end..]].concat()
            }
            None => self.0.clone(),
        }
    }

    /// The number of an integer reply.
    #[track_caller]
    pub fn integer(&self) -> i64 {
        match self.value() {
            Value::Integer(number) => number,
            _ => panic!("{self:?} is no integer"),
        }
    }

    /// The texts of a flat array.
    #[track_caller]
    pub fn texts(&self) -> Vec<String> {
        let texts = self.value();
        texts.items().iter().map(|item| item.str().unwrap_or_else(|| panic!("{self:?}")).to_owned()).collect()
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let start = &self.0[..self.0.len().min(600)];
        write!(f, "{}", start.escape_ascii())?;
        if start.len() < self.0.len() { write!(f, "... ({} bytes)", self.0.len()) } else { Ok(()) }
    }
}

impl PartialEq<&str> for Reply {
    fn eq(&self, other: &&str) -> bool {
        self.0 == other.as_bytes()
    }
}

/// A request for people to read.
pub fn show<T: AsRef<[u8]>>(args: &[T]) -> String {
    let args = args.iter().map(|arg| {
        let arg = arg.as_ref();
        let start = &arg[..arg.len().min(60)];
        format!("{}{}", start.escape_ascii(), if start.len() < arg.len() { "..." } else { "" })
    });
    args.collect::<Vec<_>>().join(" ")
}
