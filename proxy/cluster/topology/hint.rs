//! What workers tell discovery.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::{Node, Redirect};

/// News from a worker. A hint that is lost is no harm: the next request brings it again.
#[derive(Clone, Debug)]
pub enum Hint {
    /// A node said MOVED.
    Moved {
        /// What it said.
        redirect: Redirect,
        /// Who said it.
        from: Arc<Node>,
    },
    /// A node could not be connected to.
    ConnectFailed {
        /// Its id.
        node: String,
        /// What it said where it turned the connection away.
        said: Option<String>,
    },
    /// A node did not answer in time, or its connection was lost.
    Timeout {
        /// Its id.
        node: String,
    },
    /// A node said CLUSTERDOWN, LOADING, MASTERDOWN or READONLY, or keeps a request waiting.
    Unwell {
        /// Its id.
        node: String,
    },
    /// The functions of other nodes were changed, and this one's not: it was busy or lost.
    FunctionsMissed {
        /// Its id.
        node: String,
    },
    /// A node's redirect names a node that is not known.
    Stranger {
        /// Who said it, and should know.
        from: Arc<Node>,
    },
    /// A request found no owner for its slot.
    Uncovered,
}

/// The way to discovery, for all workers.
#[derive(Clone, Debug)]
pub struct Hints(mpsc::Sender<Hint>);

impl Hints {
    /// A way for so many hints at a time, and its other end.
    pub fn channel(most: usize) -> (Hints, mpsc::Receiver<Hint>) {
        let (sender, receiver) = mpsc::channel(most);
        (Hints(sender), receiver)
    }

    /// Tells discovery something, where there is room: it has plenty to do otherwise, and the next request says the same.
    pub fn tell(&self, hint: Hint) {
        let _ = self.0.try_send(hint);
    }

    /// Tells discovery something that must not be lost.
    pub async fn tell_surely(&self, hint: Hint) {
        let _ = self.0.send(hint).await;
    }
}
