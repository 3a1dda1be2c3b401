//! Connecting to a node: resolve, connect, log in, all within one deadline.
//!
//! Names are resolved at every connect and never kept: containers come back under their name with another address.
//! The login goes out in one write, so that a new connection costs two round trips, not four.

mod control;
mod error;
mod login;
mod own;

use std::{future::Future, io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::AsyncWriteExt,
    time::{Instant, timeout_at},
};

pub use self::{
    control::Control,
    error::{DialError, DialStep, is_turned_away, may_not_tell, plain, reason},
    login::{Credentials, Login, TrackingMode, TrackingRequest, Version},
};
use self::{
    control::Replies,
    error::{another, is_permanent},
    login::handshake,
    own::InForce,
};
use crate::{
    config::Config,
    protocol::{address::Address, resp::Value},
    upstream::transport::{Keepalive, Network, Stream, tls::to_nodes::ToNodes},
};

/// When the kernel gives up a node that has gone without a word, where the configuration does not say.
const KEEPALIVE: Keepalive =
    Keepalive { idle: Some(Duration::from_secs(60)), unacknowledged: Some(Duration::from_secs(10)) };

/// How nodes are connected to: what leads to them, and how long connecting may take. All clones know each other's
/// connections as their own; the process has one.
#[derive(Clone, Debug)]
pub struct Dialer {
    network: Network,
    tls: Option<ToNodes>,
    keepalive: Keepalive,
    /// Where it is not what the configuration says.
    patience: Option<Duration>,
    in_force: Arc<InForce>,
}

impl Default for Dialer {
    fn default() -> Dialer {
        let in_force = Arc::new(InForce::new(Duration::from_secs(1), None));
        Dialer { network: Network::default(), tls: None, keepalive: KEEPALIVE, patience: None, in_force }
    }
}

/// A connection that is logged in.
pub struct Opened {
    /// The connection.
    pub stream: Stream,
    /// What the node calls it, where it has said so (HELLO, or CLIENT ID to the proxy's own user).
    pub id: Option<i64>,
    /// What the node has said beyond what it was asked: with [`TrackingRequest`] it may speak at once.
    pub rest: Vec<u8>,
}

impl Dialer {
    /// As the configuration says, by TLS where that is given.
    pub fn of(config: &Config, tls: Option<ToNodes>) -> Dialer {
        let in_force = Arc::new(InForce::new(config.connect_timeout, Credentials::of(config)));
        let keepalive = Keepalive { idle: config.tcp_keepalive, ..KEEPALIVE };
        Dialer { tls, keepalive, in_force, ..Dialer::default() }
    }

    /// To servers beside the cluster: with `patience` for a connection, by TLS where that is given.
    pub fn with(tls: Option<ToNodes>, patience: Duration) -> Dialer {
        Dialer { tls, patience: Some(patience), ..Dialer::default() }
    }

    /// To scripted nodes.
    #[cfg(test)]
    pub fn to(memory: &crate::upstream::transport::memory::Memory) -> Dialer {
        Dialer { network: Network::Memory(memory.clone()), ..Dialer::default() }
    }

    /// This one, with so much time for a connection: name, connection, login.
    pub fn within(&self, patience: Duration) -> Dialer {
        Dialer { patience: Some(patience), ..self.clone() }
    }

    /// From now on as this configuration says: how long connecting may take, and what the proxy's own credentials are. Who is
    /// logged in stays so.
    pub fn adopt(&self, config: &Config) {
        self.in_force.adopt(config.connect_timeout, Credentials::of(config));
    }

    /// Whether these credentials have been the proxy's own, and are no more.
    pub fn were_own(&self, credentials: &Credentials) -> bool {
        self.in_force.were_own(credentials)
    }

    /// Whether a node that tells of `address` means a connection that was made by this dialer.
    pub fn is_own(&self, address: &str) -> bool {
        self.network.is_own(address)
    }

    /// How long a connection may take: name, connection, login.
    pub fn patience(&self) -> Duration {
        self.patience.unwrap_or_else(|| self.in_force.patience())
    }

    /// The addresses that a name leads to, as the system's resolver says.
    ///
    /// # Errors
    /// It does not say.
    pub async fn resolve(&self, target: &Address) -> io::Result<Vec<SocketAddr>> {
        self.network.resolve(target).await
    }

    /// A connection to the node at `target`, logged in and with nothing left to read.
    ///
    /// # Errors
    /// The node cannot be reached in time, is another, or lets nobody in.
    pub async fn dial(&self, target: &Address, login: &Login) -> Result<Stream, DialError> {
        Ok(self.log_in(target, login, false).await?.quiet(target)?.stream)
    }

    /// As [`Dialer::dial`], for who listens to what the node says unasked, or wants to know what it calls the connection.
    ///
    /// # Errors
    /// As [`Dialer::dial`].
    pub async fn open(&self, target: &Address, login: &Login) -> Result<Opened, DialError> {
        self.log_in(target, login, true).await
    }

    async fn log_in(&self, target: &Address, login: &Login, known: bool) -> Result<Opened, DialError> {
        let deadline = Instant::now() + self.patience();
        let stream = self.connect(target, deadline).await?;
        log_in(stream, target, &self.in_force.login(login), known, deadline).await
    }

    /// Looks the name up and tries its addresses in turn, each with its share of the time that is left, so that one that
    /// drops packets does not cost the others their chance.
    async fn connect(&self, target: &Address, deadline: Instant) -> Result<Stream, DialError> {
        let failed = |step: DialStep, why: String| DialError { node: target.clone(), step, why, permanent: false };
        let found = within(deadline, self.network.resolve(target)).await;
        let addresses: Vec<SocketAddr> = found.map_err(|why| failed(DialStep::Resolve, why))?;
        let mut last = failed(DialStep::Connect, "the name has no address".to_owned());
        for (index, address) in addresses.iter().enumerate() {
            let left = deadline.saturating_duration_since(Instant::now());
            let share = left / u32::try_from(addresses.len() - index).unwrap_or(1);
            let until = Instant::now() + share;
            let stream = match within(until, self.network.connect(*address)).await {
                Ok(stream) => stream,
                Err(why) => {
                    last = failed(DialStep::Connect, why);
                    continue;
                }
            };
            stream.tune(self.keepalive).map_err(|why| failed(DialStep::Connect, plain(&why)))?;
            match self.secure(stream, target, until).await {
                Ok(stream) => return Ok(stream),
                Err(why) => last = failed(DialStep::Secure, why),
            }
        }
        Err(last)
    }

    /// The stream itself, or TLS over it, agreed on; or why not.
    async fn secure(&self, stream: Stream, target: &Address, until: Instant) -> Result<Stream, String> {
        let Some(tls) = &self.tls else { return Ok(stream) };
        let mut stream = stream.secured(tls, target).map_err(|why| why.to_string())?;
        match timeout_at(until, stream.handshake()).await {
            Ok(Ok(())) => Ok(stream),
            Ok(Err(why)) => Err(plain(&why)),
            Err(_) => Err("timed out: is it a port of TLS?".to_owned()),
        }
    }
}

impl Opened {
    /// The connection, unless the node at `target` has said more than it was asked: that would be taken for the answer to
    /// the first request.
    ///
    /// # Errors
    /// The node has said something unasked.
    pub fn quiet(self, target: &Address) -> Result<Opened, DialError> {
        if self.rest.is_empty() {
            Ok(self)
        } else {
            let why = "it said more than it was asked".to_owned();
            Err(DialError { node: target.clone(), step: DialStep::Login, why, permanent: false })
        }
    }
}

async fn log_in(
    mut stream: Stream,
    node: &Address,
    login: &Login,
    known: bool,
    deadline: Instant,
) -> Result<Opened, DialError> {
    let (out, steps) = handshake(login, known);
    let failed = |step: DialStep, why: String, permanent: bool| DialError { node: node.clone(), step, why, permanent };
    let (mut replies, mut id) = (Replies::default(), None);
    // A server that turns the connection away closes it: what it has said can be read all the same.
    let sent = if out.is_empty() { Ok(()) } else { within(deadline, stream.write_all(&out)).await };
    for step in steps {
        let said = replies.next(&mut stream, deadline).await;
        let said = said.map_err(|why| failed(step, sent.clone().err().unwrap_or(why), false))?;
        if let Value::Error(text) = &said
            && is_turned_away(text)
        {
            return Err(failed(DialStep::Admission, reason(text), is_permanent(text)));
        }
        match said {
            // Before 6.0 nodes know no HELLO; there the connection has no name.
            Value::Error(_) if step == DialStep::Identify => {}
            said if step == DialStep::Introduce => id = id.or_else(|| said.integer()),
            Value::Error(_) if step == DialStep::Stay => {}
            // The client's own login is still to come, and the proxy has none that counts.
            Value::Error(text) if step == DialStep::Connect && text.starts_with(b"NOAUTH") && !login.is_own() => {}
            Value::Error(text) if step != DialStep::Connect || text.starts_with(b"NOAUTH") => {
                let step = if step == DialStep::Connect { DialStep::Login } else { step };
                return Err(failed(step, reason(&text), is_permanent(&text)));
            }
            said if step == DialStep::Connect => {
                if let Some(why) = another(&said, login.node.as_deref()) {
                    return Err(failed(step, why, false));
                }
            }
            said => id = id.or_else(|| said.field("id")?.integer()),
        }
    }
    sent.map_err(|why| failed(DialStep::Connect, why, false))?;
    Ok(Opened { stream, id, rest: replies.bytes })
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
