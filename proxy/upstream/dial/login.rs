//! What is agreed with a node before the first request.

use std::fmt;

use bytes::Bytes;

use super::DialStep;
use crate::{cluster::topology::Node, config::Config, protocol::resp::write};

/// A version of RESP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Version {
    /// RESP2, the version of a new connection.
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
    /// The configuration's credentials, by which the proxy itself logs in to nodes.
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
    pub tracking: Option<TrackingRequest>,
    /// The id of the node that is meant: its address may have passed to another, of another cluster perhaps.
    pub node: Option<String>,
    /// The proxy's own credentials: where another user is to log in, what the proxy itself has to know is asked first, by
    /// these.
    pub own: Option<Credentials>,
    /// Whether a client has said credentials that were the proxy's own once and no longer are: only the nodes can say whether they
    /// are right.
    pub is_said: bool,
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
        self.credentials == self.own && !self.is_said
    }

    /// Bytes that a client has said for it.
    pub fn size(&self) -> usize {
        self.credentials.as_ref().map_or(0, |own| own.secret.len() + own.username.as_ref().map_or(0, Bytes::len))
    }

    /// This login, at this very node.
    pub fn at(&self, node: &Node) -> Login {
        // Some servers tell no ids.
        let is_known = node.id != node.announced.to_string();
        Login { node: is_known.then(|| node.id.clone()), greets: true, ..self.clone() }
    }
}

/// What a node is asked to tell of changed keys (CLIENT TRACKING).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct TrackingRequest {
    /// Of which keys.
    pub mode: TrackingMode,
    /// In the mode BCAST, only of keys that begin with one of these; none: of all.
    pub prefixes: Vec<Bytes>,
    /// Not of what this connection changes itself.
    pub noloop: bool,
    /// On a second connection, so that it does not matter which version of RESP this one speaks.
    pub apart: bool,
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

/// The requests of a login, and what each is for. The id of the connection is asked for where it is to be `known`: by
/// HELLO, which every user may say.
pub(super) fn handshake(login: &Login, known: bool) -> (Vec<u8>, Vec<DialStep>) {
    let (mut out, mut steps) = (Vec::new(), Vec::new());
    let mut say = |step: DialStep, args: &[&[u8]]| {
        write::request(&mut out, args);
        steps.push(step);
    };
    let is_own = login.is_own();
    if (login.node.is_some() || login.stays) && !is_own {
        // What the client's user may not ask would fill the node's ACL LOG in its name.
        match &login.own {
            None => {}
            Some(Credentials { username: None, secret }) => say(DialStep::Introduce, &[b"AUTH", secret]),
            Some(Credentials { username: Some(user), secret }) => say(DialStep::Introduce, &[b"AUTH", user, secret]),
        }
        if login.node.is_some() {
            say(DialStep::Connect, &[b"CLUSTER", b"MYID"]);
            say(DialStep::Introduce, &[b"CLIENT", b"ID"]);
        }
        if login.stays {
            say(DialStep::Stay, &[b"CLIENT", b"NO-EVICT", b"ON"]);
        }
    }
    match (login.version, &login.credentials) {
        (Version::Resp2, None) => {}
        (Version::Resp2, Some(Credentials { username: None, secret })) => say(DialStep::Login, &[b"AUTH", secret]),
        (Version::Resp2, Some(Credentials { username: Some(user), secret })) => {
            say(DialStep::Login, &[b"AUTH", user, secret])
        }
        (Version::Resp3, None) => say(DialStep::Login, &[b"HELLO", b"3"]),
        (Version::Resp3, Some(Credentials { username, secret })) => {
            let user = username.as_deref().unwrap_or(b"default");
            say(DialStep::Login, &[b"HELLO", b"3", b"AUTH", user, secret]);
        }
    }
    if known && login.version == Version::Resp2 && (is_own || login.node.is_none()) {
        say(DialStep::Identify, &[b"HELLO", b"2"]);
    }
    if login.database != 0 {
        say(DialStep::Select, &[b"SELECT", login.database.to_string().as_bytes()]);
    }
    if login.readonly {
        say(DialStep::Readonly, &[b"READONLY"]);
    }
    if login.stays && is_own {
        say(DialStep::Stay, &[b"CLIENT", b"NO-EVICT", b"ON"]);
    }
    if login.node.is_some() && is_own {
        say(DialStep::Connect, &[b"CLUSTER", b"MYID"]);
    }
    if let Some(tracking) = &login.tracking {
        say(DialStep::Tracking, &tracking.words().iter().map(AsRef::as_ref).collect::<Vec<_>>());
    }
    if steps.is_empty() && login.greets {
        write::request(&mut out, &[b"PING"]);
        steps.push(DialStep::Connect);
    }
    (out, steps)
}

impl TrackingRequest {
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
