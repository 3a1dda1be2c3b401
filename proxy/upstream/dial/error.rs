//! Why a node could not be had, and what its errors mean while a connection is made.

use std::{fmt, io};

use crate::{
    cluster::topology::{Hint, Node},
    protocol::{address::Address, resp::Value, says},
    upstream::transport::tls::to_nodes,
};

/// The longest part of a node's own error text that is passed on.
pub(super) const LONGEST_REASON: usize = 200;

/// What to do where an error says nothing that is known.
const ASK_THE_DOCTOR: &str = "`slotway doctor` with the same settings says more";

/// What was being done when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DialStep {
    /// Looking up the name.
    Resolve,
    /// Connecting, and asking whether it is the node that is meant.
    Connect,
    /// Agreeing on TLS.
    Secure,
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
    pub step: DialStep,
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
        if known { self.why.clone() } else { says::cannot_connect(self, self.refuses()) }
    }

    /// Whether there is a node, and it does not let the proxy in.
    fn refuses(&self) -> bool {
        matches!(self.step, DialStep::Admission | DialStep::Introduce | DialStep::Login | DialStep::Identify)
            || self.permanent
    }

    /// What discovery is to know of it, where `node` was dialled.
    pub fn hint(&self, node: &Node) -> Hint {
        let said = (self.step == DialStep::Admission).then(|| self.why.clone());
        Hint::ConnectFailed { node: node.id.clone(), said }
    }
}

impl DialError {
    /// What an operator can do about it, in a sentence.
    pub fn remedy(&self) -> &'static str {
        let says = |what: &str| self.why.contains(what);
        match self.step {
            _ if says("cluster support disabled") => {
                "that is a Redis without cluster: put `cluster-enabled yes` into its configuration, or have clients connect \
                 to it without a proxy"
            }
            _ if says("NOAUTH") => "the nodes ask for a password: set password_file (SLOTWAY_PASSWORD_FILE=FILE)",
            _ if says("WRONGPASS") || says("invalid password") || says("without any password") => {
                "the nodes refuse this user and password: compare username and password_file with their `requirepass` or ACL"
            }
            _ if says("NOPERM") => "the nodes' ACL forbids what the proxy must ask: `slotway doctor` names the rules",
            _ if says("does not speak the Redis protocol") => {
                "what answers there is no Redis: are host and port right?"
            }
            DialStep::Resolve => "is the name right, and known where the proxy runs (in docker: on the same network)?",
            DialStep::Connect if says("refused") => "is the node running, and is this its port?",
            DialStep::Connect if says("closed") => {
                "is it a Redis, and does it speak TLS (rediss://host:port) or plain text?"
            }
            DialStep::Connect => {
                "is the address right, and can it be reached from where the proxy runs? Addresses of a docker network \
                 (172.x) mean something inside of it alone"
            }
            DialStep::Secure => {
                "does it speak TLS at this port, with a certificate for this name by a CA that is known here?"
            }
            DialStep::Admission => {
                "it turns connections away: see protected-mode, bind and maxclients in its configuration"
            }
            DialStep::Ask => "is it loading, or busy? Its own log tells (docker logs NODE)",
            DialStep::Introduce | DialStep::Login | DialStep::Identify | DialStep::Select => ASK_THE_DOCTOR,
            DialStep::Readonly | DialStep::Stay | DialStep::Tracking => ASK_THE_DOCTOR,
        }
    }
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let doing = match self.step {
            DialStep::Resolve => "cannot resolve",
            DialStep::Connect | DialStep::Admission => "cannot connect to",
            DialStep::Secure => "cannot speak TLS with",
            DialStep::Introduce | DialStep::Login | DialStep::Identify => "cannot log in to",
            DialStep::Select => "cannot select the database on",
            DialStep::Readonly => "cannot read from replica",
            DialStep::Stay => "cannot stay connected to",
            DialStep::Tracking => "cannot track the keys of",
            DialStep::Ask => "no answer from",
        };
        write!(f, "{doing} {}: {}", self.node, self.why)
    }
}

impl std::error::Error for DialError {}

/// Why the server that answers CLUSTER MYID (or PING, where nobody is `meant`) like this is not to be taken for the node
/// that is meant.
pub(super) fn another(said: &Value, meant: Option<&str>) -> Option<String> {
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

pub(super) fn is_permanent(text: &[u8]) -> bool {
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
pub fn plain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::ConnectionReset => "connection reset".to_owned(),
        io::ErrorKind::UnexpectedEof => "it closed the connection".to_owned(),
        io::ErrorKind::TimedOut => "timed out".to_owned(),
        // What TLS finds wrong has more to say.
        io::ErrorKind::InvalidData if error.get_ref().is_none() => "it does not speak the Redis protocol".to_owned(),
        // In TLS 1.3 a node says only afterwards that it does not take our certificate.
        _ => to_nodes::why(error),
    }
}
