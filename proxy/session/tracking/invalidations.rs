//! What a tracking client's links hear, on its way to the client, or to the one that it has named.

use std::{
    cell::{Cell, RefCell},
    collections::HashSet,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;

use super::Tracking;
use crate::{
    clients::{Client, Clients, Mail, Mark},
    cluster::topology::Node,
    commands::database::Database,
    metrics::ClientTally,
    protocol::resp::{Value, write},
    upstream::{
        dial::TrackingMode,
        link::{Audience, PushEvent},
        router::Router,
        ticket::Line,
    },
};

/// How a message in RESP3 begins; the keys follow, or null for all of them.
pub const INVALIDATE: &[u8] = b">2\r\n$10\r\ninvalidate\r\n";

/// The audience of a tracking client's links.
pub(super) struct Invalidations {
    line: Rc<Line>,
    client: Arc<Client>,
    clients: Arc<Clients>,
    tally: Rc<ClientTally>,
    /// The client speaks RESP3; in RESP2 it cannot be told itself.
    pub resp3: Cell<bool>,
    broadcast: bool,
    /// The database of its own that the keys are in.
    database: Option<Arc<Database>>,
    /// The client that is told; 0: this one.
    pub redirect: Cell<u64>,
    /// What another client may have waiting for it.
    most_mail: usize,
    /// Nobody listens any more.
    closed: Cell<bool>,
    /// The client has been told that its tracking has begun.
    begun: Cell<bool>,
    /// Nodes that tell what changes.
    opened: RefCell<HashSet<String>>,
    /// Nodes that cannot be reached now.
    lost: RefCell<HashSet<String>>,
    /// A node's error: it does not allow this.
    refused: RefCell<Option<String>>,
    waker: Cell<Option<Waker>>,
}

impl Invalidations {
    pub fn new(
        router: &Router,
        line: &Rc<Line>,
        client: &Arc<Client>,
        tracking: &Tracking,
        resp3: bool,
    ) -> Rc<Invalidations> {
        Rc::new(Invalidations {
            line: line.clone(),
            client: client.clone(),
            clients: router.clients().clone(),
            tally: router.tally().clone(),
            resp3: Cell::new(resp3),
            broadcast: tracking.mode == TrackingMode::Broadcast,
            database: tracking.database.clone(),
            redirect: Cell::new(tracking.redirect),
            most_mail: router.settings().pubsub.get().hard_limit,
            closed: Cell::new(false),
            begun: Cell::new(false),
            opened: RefCell::default(),
            lost: RefCell::default(),
            refused: RefCell::default(),
            waker: Cell::default(),
        })
    }

    /// Nothing more is passed on.
    pub fn close(&self) {
        self.closed.set(true);
    }

    /// From now on the client relies on what it is told.
    pub fn begin(&self) {
        self.begun.set(true);
    }

    /// Ready when all of these nodes tell what changes that can be reached, or with the error of one that will not. A node
    /// that is lost tells nothing, and when it is back the client is told to forget.
    pub fn poll_opened(&self, cx: &mut Context<'_>, nodes: &[Arc<Node>]) -> Poll<Result<(), String>> {
        if let Some(error) = self.refused.take() {
            return Poll::Ready(Err(error));
        }
        let (opened, lost) = (self.opened.borrow(), self.lost.borrow());
        if nodes.iter().all(|node| opened.contains(&node.id) || lost.contains(&node.id)) {
            return Poll::Ready(Ok(()));
        }
        self.waker.set(Some(cx.waker().clone()));
        Poll::Pending
    }

    /// Has the client forget all that it holds, since a change may have been missed.
    pub fn flush(&self, why: &str) {
        if self.closed.get() || self.tells_nobody() {
            return;
        }
        self.tally.tracking_flush();
        tracing::info!(client = %self.client.peer(), id = self.client.id, why, "a tracking client is told to drop what it has cached");
        self.pass_on(if self.resp3.get() { b"_\r\n" } else { b"$-1\r\n" });
    }

    /// The client speaks RESP2, and has named no other.
    fn tells_nobody(&self) -> bool {
        !self.resp3.get() && self.redirect.get() == 0
    }

    fn pass_on(&self, keys: &[u8]) {
        let id = self.redirect.get();
        let all = keys.first() != Some(&b'*');
        if id != 0 {
            // After FLUSHALL every node says so.
            if all && self.line.flushed_elsewhere() && !self.broadcast {
                return;
            }
            return match self.clients.find(id) {
                Some(other) => other.deliver(Mail::Changed(Bytes::copy_from_slice(keys)), self.most_mail),
                None => self.say_broken(id),
            };
        }
        if self.tells_nobody() {
            return;
        }
        let message = [INVALIDATE, keys].concat();
        if all {
            self.line.push_flush(&message, !self.broadcast);
        } else {
            self.line.push_behind(&message);
        }
    }

    /// The client that is to be told has gone.
    fn say_broken(&self, id: u64) {
        self.client.mark(Mark::BrokenRedirect, true);
        if self.resp3.get() {
            let mut message = b">2\r\n".to_vec();
            write::bulk(&mut message, b"tracking-redir-broken");
            write::integer(&mut message, id as i64);
            self.line.push_behind(&message);
        }
    }
}

/// The list of the keys that are the database's, as its clients know them; `None` where none is.
fn own_keys(database: &Database, keys: &[u8]) -> Option<Vec<u8>> {
    let (keys, _) = Value::parse(keys).ok()??;
    let own: Vec<&[u8]> = keys.items().iter().filter_map(|key| database.own(key.text()?)).collect();
    let mut list = Vec::new();
    write::array(&mut list, own.len());
    own.iter().for_each(|key| write::bulk(&mut list, key));
    (!own.is_empty()).then_some(list)
}

impl Audience for Invalidations {
    fn hear(&self, node: &Node, news: PushEvent<'_>) {
        if self.closed.get() {
            return;
        }
        match news {
            PushEvent::Opened => {
                self.opened.borrow_mut().insert(node.id.clone());
                self.lost.borrow_mut().remove(&node.id);
                // What has changed before that, nobody has told.
                if self.broadcast && self.begun.get() {
                    self.flush("a node tells again what changes");
                }
            }
            PushEvent::Said(frame) => match (frame.strip_prefix(INVALIDATE), &self.database) {
                (None, _) => {}
                (Some(keys), Some(database)) if keys.first() == Some(&b'*') => {
                    if let Some(keys) = own_keys(database, keys) {
                        self.pass_on(&keys);
                    }
                }
                (Some(keys), _) => self.pass_on(keys),
            },
            PushEvent::Lost(why) => {
                self.opened.borrow_mut().remove(&node.id);
                self.flush(&format!("connection to {} lost ({why})", node.label));
            }
            PushEvent::Unreachable(error) if error.permanent => {
                self.refused.replace(Some(error.why.clone()));
            }
            PushEvent::Unreachable(_) => {
                self.lost.borrow_mut().insert(node.id.clone());
            }
        }
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests;
