//! Errors by which a node says that it did not execute a command, so that it may go again.

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    cluster::topology::{Hint, Node, Redirect, RedirectKind},
    metrics::NodeError,
    protocol::{resp::write, says, slot::Slot},
};

/// A node's word that it did not execute the command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// MOVED or ASK: another node serves it.
    Redirect(Redirect),
    /// The request cannot be served now, but may be soon.
    Later(Later),
}

/// Why a command cannot be served now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Later {
    /// TRYAGAIN: the keys of a multi-key command are spread over both ends of a slot's move.
    TryAgain,
    /// CLUSTERDOWN: the node does not see a whole cluster.
    ClusterDown,
    /// LOADING: the node is reading its data set.
    Loading,
    /// MASTERDOWN: a replica has lost its primary.
    MasterDown,
    /// READONLY: a primary has become a replica.
    ReadOnly,
}

/// An EXECABORT with the reason for which the node refused a command of the transaction, in the words of Redis where EXEC itself
/// is refused: the client was told that the command is queued. `None` where the reply has a reason, or is no EXECABORT.
pub fn abort_because(reply: &[u8], fault: &[u8]) -> Option<Vec<u8>> {
    let text = reply.strip_prefix(b"-")?.strip_suffix(b"\r\n")?;
    let why = fault.strip_prefix(b"-")?.strip_suffix(b"\r\n")?;
    (text == says::EXECABORT.as_bytes()).then(|| {
        let mut reply = Vec::new();
        write::error(&mut reply, &[says::EXECABORT_BECAUSE.as_bytes(), why].concat());
        reply
    })
}

/// What servers say (Redis 7.0 to 8, Valkey 8 and 9: `server.c`, `cluster.c`, `script.c`), to the letter: a script can
/// make an error with any of the words, after commands that have run. LOADING has the server's name in it.
const LATER: &[(&[u8], Later)] = &[
    (b"TRYAGAIN Multiple keys request during rehashing of slot", Later::TryAgain),
    (b"CLUSTERDOWN The cluster is down", Later::ClusterDown),
    (b"CLUSTERDOWN The cluster is down and only accepts read commands", Later::ClusterDown),
    (b"CLUSTERDOWN Hash slot not served", Later::ClusterDown),
    (b"LOADING Redis is loading the dataset in memory", Later::Loading),
    (b"LOADING Valkey is loading the dataset in memory", Later::Loading),
    (b"MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.", Later::MasterDown),
    (b"READONLY You can't write against a read only replica.", Later::ReadOnly),
    (b"READONLY Can not run script with write flag on readonly replica", Later::ReadOnly),
];

impl Refusal {
    /// What an error reply says, from its `-` on; `None` where it is the command's own error.
    pub fn of(reply: &[u8]) -> Option<Refusal> {
        let text = reply.strip_prefix(b"-")?;
        let text = text.strip_suffix(b"\r\n").unwrap_or(text);
        if text.starts_with(b"MOVED ") || text.starts_with(b"ASK ") {
            return Redirect::parse(text).map(Refusal::Redirect);
        }
        LATER.iter().find(|(said, _)| *said == text).map(|(_, later)| Refusal::Later(*later))
    }

    /// Whether it can be about a request for this slot: a node only redirects what it was asked for.
    pub fn fits(&self, slot: Option<Slot>) -> bool {
        match self {
            Refusal::Redirect(redirect) => slot.is_none_or(|slot| redirect.slot == slot),
            Refusal::Later(_) => true,
        }
    }
}

impl Refusal {
    /// The kind under which metrics count it.
    pub fn error(&self) -> NodeError {
        match self {
            Refusal::Redirect(redirect) => redirect.kind.into(),
            Refusal::Later(later) => (*later).into(),
        }
    }

    /// What discovery should know: that a slot has a new owner, or that the node is not well. ASK and TRYAGAIN are no news: the
    /// slot is still moving.
    pub fn hint(&self, from: &Arc<Node>) -> Option<Hint> {
        match self {
            Refusal::Redirect(redirect) if redirect.kind == RedirectKind::Moved => {
                Some(Hint::Moved { redirect: redirect.clone(), from: from.clone() })
            }
            Refusal::Redirect(_) | Refusal::Later(Later::TryAgain) => None,
            Refusal::Later(_) => Some(Hint::Unwell { node: from.id.clone() }),
        }
    }
}

impl From<Later> for NodeError {
    fn from(later: Later) -> NodeError {
        match later {
            Later::TryAgain => NodeError::TryAgain,
            Later::ClusterDown => NodeError::ClusterDown,
            Later::Loading => NodeError::Loading,
            Later::MasterDown => NodeError::MasterDown,
            Later::ReadOnly => NodeError::ReadOnly,
        }
    }
}

impl From<RedirectKind> for NodeError {
    fn from(kind: RedirectKind) -> NodeError {
        match kind {
            RedirectKind::Moved => NodeError::Moved,
            RedirectKind::Ask => NodeError::Ask,
        }
    }
}

/// Whether a node says that it lacks the script which EVALSHA names, in its own words.
pub fn lacks_script(reply: &[u8]) -> bool {
    reply.starts_with(b"-NOSCRIPT No matching script.")
}

/// The text of an error reply, without its `-` and line end.
pub fn text(reply: &Bytes) -> &[u8] {
    let text = reply.strip_prefix(b"-").unwrap_or(reply);
    text.strip_suffix(b"\r\n").unwrap_or(text)
}

/// As [`text`], to be printed.
pub fn lossy_text(reply: &Bytes) -> String {
    String::from_utf8_lossy(text(reply)).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_told_apart() {
        let later = |cause| Some(Refusal::Later(cause));
        for (reply, refusal) in [
            ("-TRYAGAIN Multiple keys request during rehashing of slot\r\n", later(Later::TryAgain)),
            ("-CLUSTERDOWN Hash slot not served\r\n", later(Later::ClusterDown)),
            ("-LOADING Redis is loading the dataset in memory\r\n", later(Later::Loading)),
            ("-READONLY You can't write against a read only replica.\r\n", later(Later::ReadOnly)),
            ("-READONLY You can't write against a read only replica. script: 5f1, on @user_script:1.\r\n", None),
            ("-TRYAGAIN says a script\r\n", None),
            ("-MOVED nonsense\r\n", None),
            ("-ERR MOVED 1 a:1\r\n", None),
            ("+MOVED 1 a:1\r\n", None),
        ] {
            assert_eq!(Refusal::of(reply.as_bytes()), refusal, "{reply}");
        }
        assert!(matches!(Refusal::of(b"-MOVED 3999 127.0.0.1:6381\r\n"), Some(Refusal::Redirect(_))));
    }
}
