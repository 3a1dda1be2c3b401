//! How connections, handshakes, transactions and redirects end: the values of labels.

use std::io;

use crate::metrics::{NodeError, labels::labels};

labels! {
    /// Why a client's connection ended.
    Disconnect {
        /// The client closed it.
        Eof = "eof",
        /// The client said QUIT.
        Quit = "quit",
        /// The connection broke.
        Reset = "reset",
        /// The client was silent for too long.
        Idle = "idle",
        /// The client did not read what it was owed.
        OutputLimit = "output_limit",
        /// What it sent was no request.
        Protocol = "protocol",
        /// Somebody said CLIENT KILL, or the proxy stopped without more patience.
        Killed = "killed",
        /// The node that held state of this client was lost.
        NodeLost = "node_lost",
        /// The proxy stopped; everything had been answered.
        Drain = "drain",
        /// The client had come to a port of TLS, and TLS was not agreed on.
        Handshake = "handshake",
        /// The client came from another machine to a port that is open to everyone (`protected_mode`).
        Protected = "protected_mode",
        /// A PROXY header should have come first, and did not.
        ProxyHeader = "proxy_header",
        /// A bug in the proxy.
        Panic = "panic",
    }
}

impl Disconnect {
    /// What an error of its socket says.
    pub fn of(error: &io::Error) -> Disconnect {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Disconnect::Eof,
            _ => Disconnect::Reset,
        }
    }
}

labels! {
    /// How a TLS handshake with a client ended.
    Handshake {
        /// TLS is spoken.
        Agreed = "ok",
        /// The client spoke plain text.
        PlainText = "plain_text",
        /// A certificate was missing, or did not count.
        Certificate = "certificate",
        /// Something else was wrong.
        Failed = "failed",
        /// The client left, or took too long.
        Gone = "gone",
    }
}

labels! {
    /// How a transaction ended.
    Transaction {
        /// EXEC ran it.
        Executed = "executed",
        /// A watched key had changed.
        Dirty = "dirty",
        /// A command in it could not be queued.
        Aborted = "aborted",
        /// The client discarded it, or left.
        Discarded = "discarded",
        /// The transaction failed, or its outcome is unknown.
        Failed = "failed",
    }
}

labels! {
    /// What a node's redirect is about.
    Redirect {
        /// The slot has another owner.
        Moved = "moved",
        /// Some keys of the slot are elsewhere.
        Ask = "ask",
        /// Keys of one request are in two places.
        TryAgain = "tryagain",
    }
}

impl Redirect {
    pub(super) fn of(error: NodeError) -> Option<Redirect> {
        match error {
            NodeError::Moved => Some(Redirect::Moved),
            NodeError::Ask => Some(Redirect::Ask),
            NodeError::TryAgain => Some(Redirect::TryAgain),
            NodeError::ClusterDown | NodeError::Loading | NodeError::MasterDown | NodeError::ReadOnly => None,
            NodeError::Replica | NodeError::NoScript | NodeError::Timeout | NodeError::Connection => None,
            NodeError::Other => None,
        }
    }
}
