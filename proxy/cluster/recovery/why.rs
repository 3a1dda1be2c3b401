//! Why a request came back to its session: what recovery decides by, what metrics count, what the client is told in the end.

use std::{rc::Rc, sync::Arc};

use bytes::Bytes;

use crate::{
    cluster::{
        refusal::{self, Later},
        topology::{Node, Redirect},
    },
    commands::plan::Split,
    metrics::NodeError,
    protocol::says,
};

/// Why a request came back unexecuted.
#[derive(Clone, Debug)]
pub enum Why {
    /// Another node serves it: what this one said.
    Redirected(Redirect, Arc<Node>),
    /// The node cannot serve it now: its error.
    Later(Later, Bytes),
    /// The node lacks the script that it names: what the node said.
    NoScript(Arc<Node>, Bytes),
    /// The request did not reach a node, or only reads and may be sent again: the error to give up with.
    Unsent(String),
    /// As `Unsent`, and waiting is in vain.
    Hopeless(String),
    /// The request only reads, and a replica did not answer it, or not so that it is to be believed: why.
    ByReplica(String),
    /// The request only reads, and the replies to its parts are too large to be put together from what others share: how it
    /// was cut.
    TooLarge(Rc<Split>),
}

impl Why {
    /// Where else the request is served, and who says so.
    pub fn redirect(&self) -> Option<(&Redirect, &Arc<Node>)> {
        match self {
            Why::Redirected(redirect, from) => Some((redirect, from)),
            Why::Later(..) | Why::NoScript(..) | Why::Unsent(_) | Why::Hopeless(_) | Why::ByReplica(_) => None,
            Why::TooLarge(_) => None,
        }
    }

    /// What a node said of a request with keys at both ends of its slot's move.
    pub fn try_again(&self) -> Option<&Bytes> {
        match self {
            Why::Later(Later::TryAgain, said) => Some(said),
            Why::Later(Later::ClusterDown | Later::Loading | Later::MasterDown | Later::ReadOnly, _) => None,
            Why::Redirected(..) | Why::NoScript(..) | Why::Unsent(_) | Why::Hopeless(_) | Why::ByReplica(_) => None,
            Why::TooLarge(_) => None,
        }
    }

    /// The kind under which metrics count it.
    pub fn error(&self) -> NodeError {
        match self {
            Why::Redirected(redirect, _) => NodeError::from(redirect.kind),
            Why::Later(later, _) => NodeError::from(*later),
            Why::NoScript(..) => NodeError::NoScript,
            Why::ByReplica(_) => NodeError::Replica,
            Why::Unsent(_) | Why::Hopeless(_) | Why::TooLarge(_) => NodeError::Connection,
        }
    }

    /// What a client is told whose request was refused to the last.
    pub fn last_error(&self) -> String {
        match self {
            Why::Redirected(Redirect { kind, slot, host, port }, from) => {
                let label = &from.label;
                says::too_many_redirects(*slot, label, format_args!("{kind:?} {host}:{port}"))
            }
            Why::Later(_, error) | Why::NoScript(_, error) => refusal::lossy_text(error),
            Why::Unsent(error) | Why::Hopeless(error) | Why::ByReplica(error) => error.clone(),
            Why::TooLarge(_) => says::PARTS_TOO_LARGE.to_owned(),
        }
    }
}
