//! Connecting to a node: resolve, connect, log in, all within one deadline.
//!
//! Names are resolved at every connect and never kept: containers come back under their name with another address.
//! The login goes out in one write, so that a new connection costs two round trips, not four.

mod control;
mod socket;

use std::{fmt, future::Future, io, net::SocketAddr, time::Duration};

use bytes::Bytes;
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpStream, lookup_host},
    time::{Instant, timeout_at},
};

pub use self::control::Control;
use self::control::Replies;
pub use self::socket::Socket;
use crate::{
    address::Address,
    config::Config,
    resp::{Value, write},
    topology::{Hint, Node},
};

/// The longest part of a node's own error text that is passed on.
const LONGEST_REASON: usize = 200;

/// How a connection speaks: RESP2 or RESP3.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Version {
    /// RESP2, what a node speaks unasked.
    #[default]
    Resp2,
    /// RESP3, after HELLO 3.
    Resp3,
}

/// Who logs in. Printing it does not show the secret.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Credentials {
    /// The ACL user; `None` for the server's password alone (`requirepass`), which is that of the user `default`.
    pub username: Option<Bytes>,
    /// The password.
    pub secret: Bytes,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}

impl Credentials {
    /// Those of the configuration, with which the proxy itself goes to the nodes.
    pub fn of(config: &Config) -> Option<Credentials> {
        let secret = Bytes::copy_from_slice(config.password.as_ref()?.reveal().as_bytes());
        let username = config.username.as_ref().map(|name| Bytes::copy_from_slice(name.as_bytes()));
        Some(Credentials { username, secret })
    }
}

/// What is agreed with a node before the first request: connections whose logins are equal may be shared.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Login {
    /// RESP2 or RESP3.
    pub version: Version,
    /// The database to SELECT; 0 is where a connection starts.
    pub database: u32,
    /// Whom to log in as; nobody where the nodes ask for nothing.
    pub credentials: Option<Credentials>,
    /// Whether to say READONLY, so that a replica answers reads.
    pub readonly: bool,
    /// Whether to say CLIENT NO-EVICT, so that a node with `maxmemory-clients` closes others first. A node that will not
    /// have it is content without.
    pub stays: bool,
    /// What the node is to tell of changed keys; such a connection is one client's own.
    pub tracking: Option<Tracking>,
    /// The id of the node that is meant: its address may have passed to another, of another cluster perhaps.
    pub node: Option<String>,
    /// The proxy's own credentials: where another user is to log in, what the proxy itself has to know is asked first, by
    /// these.
    pub own: Option<Credentials>,
    /// Whether to say PING where there is nothing else to say: a server that turns connections away says so at once, and
    /// that must not be taken for the answer to the first request.
    pub greets: bool,
}

impl Login {
    /// The nodes' user who logs in.
    pub fn user(&self) -> &[u8] {
        self.credentials.as_ref().and_then(|credentials| credentials.username.as_deref()).unwrap_or(b"default")
    }

    /// Whether it is the proxy's own user who logs in.
    pub fn is_own(&self) -> bool {
        self.credentials == self.own
    }

    /// Bytes that a client has said for it.
    pub fn size(&self) -> usize {
        self.credentials.as_ref().map_or(0, |own| own.secret.len() + own.username.as_ref().map_or(0, Bytes::len))
    }

    /// This login, at this very node.
    pub fn at(&self, node: &Node) -> Login {
        // Some servers tell no ids.
        let is_known = node.id != *node.label;
        Login { node: is_known.then(|| node.id.clone()), greets: true, ..self.clone() }
    }
}

/// What a node is asked to tell of changed keys (CLIENT TRACKING).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tracking {
    /// Of which keys.
    pub mode: TrackingMode,
    /// In the mode BCAST, only of keys that begin with one of these; none: of all.
    pub prefixes: Vec<Bytes>,
    /// Not of what this connection changes itself.
    pub noloop: bool,
    /// To the connection that the node calls so, instead of this one.
    pub redirect: Option<i64>,
}

/// Which keys a node tells of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TrackingMode {
    /// Those that this connection has read.
    #[default]
    Read,
    /// Those read right behind a CLIENT CACHING YES.
    OptIn,
    /// Those read, but not right behind a CLIENT CACHING NO.
    OptOut,
    /// All that begin so, read or not.
    Broadcast,
}

/// What a connection may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// For all of it: name, connection, login.
    pub connect: Duration,
    /// How long a connection is idle before TCP asks whether the peer is still there.
    pub keepalive: Duration,
    /// How long sent bytes may stay unacknowledged before TCP gives the peer up: that notices one that is gone without
    /// a FIN (Linux).
    pub unacknowledged: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connect: Duration::from_secs(1),
            keepalive: Duration::from_secs(60),
            unacknowledged: Duration::from_secs(10),
        }
    }
}

impl Limits {
    /// These limits with another deadline.
    pub fn within(self, connect: Duration) -> Limits {
        Limits { connect, ..self }
    }
}

/// What was being done when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Looking up the name.
    Resolve,
    /// Connecting, and asking whether it is the node that is meant.
    Connect,
    /// AUTH as the proxy's own user, and asking what only the proxy wants to know. Nothing depends on it.
    Introduce,
    /// Being let in: the server turned the connection away, in its own words, whatever it was asked.
    Admission,
    /// HELLO or AUTH.
    Login,
    /// HELLO, for the id of the connection.
    Identify,
    /// SELECT.
    Select,
    /// READONLY.
    Readonly,
    /// CLIENT NO-EVICT.
    Stay,
    /// CLIENT TRACKING.
    Tracking,
    /// Asking a control connection.
    Ask,
}

/// Why a node could not be had. The text says which node, what was being done and why it failed, fit for a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DialError {
    /// The address dialled.
    pub node: Address,
    /// What was being done.
    pub step: Step,
    /// Why it failed.
    pub why: String,
    /// Whether trying again is pointless until somebody changes something: the node refuses the login.
    pub permanent: bool,
}

impl DialError {
    /// The error for a client whose request needed the node: one that is loading, or wants a password, says so in its own
    /// words, as clients know them.
    pub fn reply(&self) -> String {
        let known = ["LOADING", "NOAUTH"].iter().any(|code| self.why.starts_with(code));
        if known { self.why.clone() } else { format!("ERR proxy: {self}") }
    }

    /// What discovery is to know of it, where `node` was dialled.
    pub fn hint(&self, node: &Node) -> Hint {
        let said = (self.step == Step::Admission).then(|| self.why.clone());
        Hint::ConnectFailed { node: node.id.clone(), said }
    }
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let doing = match self.step {
            Step::Resolve => "cannot resolve",
            Step::Connect | Step::Admission => "cannot connect to",
            Step::Introduce | Step::Login | Step::Identify => "cannot log in to",
            Step::Select => "cannot select the database on",
            Step::Readonly => "cannot read from replica",
            Step::Stay => "cannot stay connected to",
            Step::Tracking => "cannot track the keys of",
            Step::Ask => "no answer from",
        };
        write!(f, "{doing} {}: {}", self.node, self.why)
    }
}

impl std::error::Error for DialError {}

/// A connection to the node at `target`, logged in and with nothing left to read.
pub async fn dial(target: &Address, login: &Login, limits: &Limits) -> Result<Socket, DialError> {
    quiet(target, open_as(target, login, limits, false).await?).map(|opened| opened.stream)
}

/// As [`dial`], for who wants to know what the node calls the connection.
pub async fn open_quiet(target: &Address, login: &Login, limits: &Limits) -> Result<Opened, DialError> {
    quiet(target, open(target, login, limits).await?)
}

fn quiet(target: &Address, opened: Opened) -> Result<Opened, DialError> {
    // Whatever lies behind the last reply would be taken for the answer to the first request.
    if opened.rest.is_empty() {
        Ok(opened)
    } else {
        let why = "it said more than it was asked".to_owned();
        Err(DialError { node: target.clone(), step: Step::Login, why, permanent: false })
    }
}

/// A connection that is logged in.
pub struct Opened {
    /// The connection.
    pub stream: Socket,
    /// What the node calls it, where it has said so (HELLO, or CLIENT ID to the proxy's own user).
    pub id: Option<i64>,
    /// What the node has said beyond what it was asked: with [`Tracking`] it may speak at once.
    pub rest: Vec<u8>,
}

/// As [`dial_known`], for who listens to what the node says unasked.
pub async fn open(target: &Address, login: &Login, limits: &Limits) -> Result<Opened, DialError> {
    open_as(target, login, limits, true).await
}

async fn open_as(target: &Address, login: &Login, limits: &Limits, known: bool) -> Result<Opened, DialError> {
    let deadline = Instant::now() + limits.connect;
    let stream = connect(target, deadline, limits).await?;
    log_in(stream, target, login, known, deadline).await
}

/// Looks the name up and tries its addresses in turn, each with its share of the time that is left, so that one that
/// drops packets does not cost the others their chance.
async fn connect(target: &Address, deadline: Instant, limits: &Limits) -> Result<Socket, DialError> {
    let failed = |step: Step, why: String| DialError { node: target.clone(), step, why, permanent: false };
    let found = within(deadline, lookup_host((target.host.as_str(), target.port))).await;
    let addresses: Vec<SocketAddr> = found.map_err(|why| failed(Step::Resolve, why))?.collect();
    let mut why = "the name has no address".to_owned();
    for (index, address) in addresses.iter().enumerate() {
        let left = deadline.saturating_duration_since(Instant::now());
        let share = left / u32::try_from(addresses.len() - index).unwrap_or(1);
        match within(Instant::now() + share, TcpStream::connect(address)).await {
            Ok(stream) => {
                return tune(&stream, limits)
                    .map(|()| Socket::new(stream))
                    .map_err(|why| failed(Step::Connect, plain(&why)));
            }
            Err(reason) => why = reason,
        }
    }
    Err(failed(Step::Connect, why))
}

fn tune(stream: &TcpStream, limits: &Limits) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(limits.keepalive))?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(limits.unacknowledged))?;
    Ok(())
}

async fn log_in(
    mut stream: Socket,
    node: &Address,
    login: &Login,
    known: bool,
    deadline: Instant,
) -> Result<Opened, DialError> {
    let (out, steps) = handshake(login, known);
    let failed = |step: Step, why: String, permanent: bool| DialError { node: node.clone(), step, why, permanent };
    let (mut replies, mut id) = (Replies::default(), None);
    // A server that turns the connection away closes it: what it has said can be read all the same.
    let sent = if out.is_empty() { Ok(()) } else { within(deadline, stream.write_all(&out)).await };
    for step in steps {
        let said = replies.next(&mut stream, deadline).await;
        let said = said.map_err(|why| failed(step, sent.clone().err().unwrap_or(why), false))?;
        if let Value::Error(text) = &said
            && is_turned_away(text)
        {
            return Err(failed(Step::Admission, reason(text), is_permanent(text)));
        }
        match said {
            // Before 6.0 nodes know no HELLO; there the connection has no name.
            Value::Error(_) if step == Step::Identify => {}
            said if step == Step::Introduce => id = id.or_else(|| said.integer()),
            Value::Error(_) if step == Step::Stay => {}
            // The client's own login is still to come, and the proxy has none that counts.
            Value::Error(text) if step == Step::Connect && text.starts_with(b"NOAUTH") && !login.is_own() => {}
            Value::Error(text) if step != Step::Connect || text.starts_with(b"NOAUTH") => {
                let step = if step == Step::Connect { Step::Login } else { step };
                return Err(failed(step, reason(&text), is_permanent(&text)));
            }
            said if step == Step::Connect => {
                if let Some(why) = another(&said, login.node.as_deref()) {
                    return Err(failed(step, why, false));
                }
            }
            said => id = id.or_else(|| said.field("id")?.integer()),
        }
    }
    sent.map_err(|why| failed(Step::Connect, why, false))?;
    Ok(Opened { stream, id, rest: replies.bytes })
}

/// The requests of a login, and what each is for. The id of the connection is asked for where it is to be `known`: by
/// HELLO, which every user may say.
fn handshake(login: &Login, known: bool) -> (Vec<u8>, Vec<Step>) {
    let (mut out, mut steps) = (Vec::new(), Vec::new());
    let mut say = |step: Step, args: &[&[u8]]| {
        write::request(&mut out, args);
        steps.push(step);
    };
    let is_own = login.is_own();
    if login.node.is_some() && !is_own {
        // What the client's user may not ask would fill the node's ACL LOG in its name.
        match &login.own {
            None => {}
            Some(Credentials { username: None, secret }) => say(Step::Introduce, &[b"AUTH", secret]),
            Some(Credentials { username: Some(user), secret }) => say(Step::Introduce, &[b"AUTH", user, secret]),
        }
        say(Step::Connect, &[b"CLUSTER", b"MYID"]);
        say(Step::Introduce, &[b"CLIENT", b"ID"]);
    }
    match (login.version, &login.credentials) {
        (Version::Resp2, None) => {}
        (Version::Resp2, Some(Credentials { username: None, secret })) => say(Step::Login, &[b"AUTH", secret]),
        (Version::Resp2, Some(Credentials { username: Some(user), secret })) => {
            say(Step::Login, &[b"AUTH", user, secret])
        }
        (Version::Resp3, None) => say(Step::Login, &[b"HELLO", b"3"]),
        (Version::Resp3, Some(Credentials { username, secret })) => {
            let user = username.as_deref().unwrap_or(b"default");
            say(Step::Login, &[b"HELLO", b"3", b"AUTH", user, secret]);
        }
    }
    if known && login.version == Version::Resp2 && (is_own || login.node.is_none()) {
        say(Step::Identify, &[b"HELLO", b"2"]);
    }
    if login.database != 0 {
        say(Step::Select, &[b"SELECT", login.database.to_string().as_bytes()]);
    }
    if login.readonly {
        say(Step::Readonly, &[b"READONLY"]);
    }
    if login.stays {
        say(Step::Stay, &[b"CLIENT", b"NO-EVICT", b"ON"]);
    }
    if login.node.is_some() && is_own {
        say(Step::Connect, &[b"CLUSTER", b"MYID"]);
    }
    if let Some(tracking) = &login.tracking {
        say(Step::Tracking, &tracking.words().iter().map(AsRef::as_ref).collect::<Vec<_>>());
    }
    if steps.is_empty() && login.greets {
        write::request(&mut out, &[b"PING"]);
        steps.push(Step::Connect);
    }
    (out, steps)
}

impl Tracking {
    /// The request for it.
    pub fn words(&self) -> Vec<Bytes> {
        let mut words = vec!["CLIENT".into(), "TRACKING".into(), "ON".into()];
        if let Some(id) = self.redirect {
            words.extend(["REDIRECT".into(), id.to_string().into()]);
        }
        match self.mode {
            TrackingMode::Read => {}
            TrackingMode::OptIn => words.push("OPTIN".into()),
            TrackingMode::OptOut => words.push("OPTOUT".into()),
            TrackingMode::Broadcast => words.push("BCAST".into()),
        }
        for prefix in &self.prefixes {
            words.extend(["PREFIX".into(), prefix.clone()]);
        }
        if self.noloop {
            words.push("NOLOOP".into());
        }
        words
    }
}

/// Why the server that answers CLUSTER MYID (or PING, where nobody is `meant`) like this is not to be taken for the node
/// that is meant.
fn another(said: &Value, meant: Option<&str>) -> Option<String> {
    match said {
        Value::Error(text) => (!may_not_tell(text)).then(|| reason(text)),
        said => {
            let meant = meant?;
            let other = said.str().filter(|id| meant != *id)?;
            Some(format!("another node is there, {}", reason(other.as_bytes())))
        }
    }
}

/// Whether a server that answers CLUSTER MYID with this error may well be the node that is meant: its user may not ask, a
/// script that runs for long keeps it from answering, or it knows no such command, as managed services do not. Any other
/// error is a reason not to send it requests.
pub fn may_not_tell(error: &[u8]) -> bool {
    let lower = error.to_ascii_lowercase();
    let says = |what: &[u8]| lower.windows(what.len()).any(|part| part == what);
    [&b"NOPERM "[..], b"BUSY "].iter().any(|code| error.starts_with(code))
        || [&b"unknown command"[..], b"unknown subcommand", b"unsupported command", b"not supported"]
            .into_iter()
            .any(says)
}

/// Whether a server that says this turns the connection away, whatever it was asked: it does so on accepting it, and then
/// closes it.
pub fn is_turned_away(error: &[u8]) -> bool {
    error.starts_with(b"DENIED ") || error.starts_with(b"ERR max number of clients")
}

/// A node's error, short enough to be passed on.
pub fn reason(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    text.chars().take(LONGEST_REASON).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn is_permanent(text: &[u8]) -> bool {
    let lower = text.to_ascii_lowercase();
    let says = |what: &[u8]| lower.windows(what.len()).any(|part| part == what);
    [&b"WRONGPASS"[..], b"NOAUTH", b"NOPERM", b"NOPROTO", b"DENIED"].iter().any(|code| text.starts_with(code))
        // Before 6.0: no ACL, and AUTH of a node that wants none.
        || says(b"invalid password")
        || says(b"without any password")
        || says(b"unknown command")
        || says(b"out of range")
}

/// An I/O error in few words.
fn plain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::ConnectionReset => "connection reset".to_owned(),
        io::ErrorKind::UnexpectedEof => "it closed the connection".to_owned(),
        io::ErrorKind::TimedOut => "timed out".to_owned(),
        _ => error.to_string(),
    }
}

async fn within<T>(deadline: Instant, work: impl Future<Output = io::Result<T>>) -> Result<T, String> {
    match timeout_at(deadline, work).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(plain(&error)),
        Err(_) => Err("timed out".to_owned()),
    }
}

#[cfg(test)]
mod tests;
