//! Requests that are worth a span of a trace: those that took long, and those that ended in an error on a node's account. They
//! are handed to whoever exports them, where somebody does; else a note costs one look.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use tokio::sync::mpsc;

use super::RequestClass;
use crate::protocol::slot::Slot;

/// Spans that may wait to be exported; more are dropped, and counted.
const MOST_WAITING: usize = 4096;

/// A request that took long, or failed.
#[derive(Clone, Debug)]
pub struct Span {
    /// When it ended.
    pub end: SystemTime,
    /// How long it took, as far as it is known.
    pub took: Duration,
    /// The node's label.
    pub node: Arc<str>,
    /// Its slot, where it has one.
    pub slot: Option<Slot>,
    /// What it does.
    pub class: RequestClass,
    /// The command, where it is known. Never its arguments.
    pub command: Option<String>,
    /// The client's id; 0: none is known.
    pub client: u64,
    /// How long it waited here, and then at the node, where it was answered.
    pub parts: Option<(Duration, Duration)>,
    /// The error that its client got on the node's account.
    pub error: Option<String>,
}

/// Where spans go.
#[derive(Debug, Default)]
pub struct Spans {
    listener: OnceLock<mpsc::Sender<Span>>,
    dropped: AtomicU64,
}

impl Spans {
    /// Whoever exports them gets them from here. Asked for once.
    pub fn listen(&self) -> mpsc::Receiver<Span> {
        let (sender, receiver) = mpsc::channel(MOST_WAITING);
        let _ = self.listener.set(sender);
        receiver
    }

    /// Notes one, if anybody listens.
    pub fn note(&self, span: impl FnOnce() -> Span) {
        if let Some(listener) = self.listener.get()
            && listener.try_send(span()).is_err()
        {
            self.dropped.fetch_add(1, Relaxed);
        }
    }

    /// How many had no room since the last call.
    pub fn dropped(&self) -> u64 {
        self.dropped.swap(0, Relaxed)
    }
}
