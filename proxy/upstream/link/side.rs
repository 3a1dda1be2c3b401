//! Connections beside the shared one, for requests that would harm the clients who share it: very large ones, which others would
//! wait behind and for which a node may close the connection; and unknown commands, one of which may be a renamed MONITOR or
//! CLIENT.

use std::{cell::RefCell, rc::Rc};

use super::{Link, MOST_QUEUED, Purpose};
use crate::upstream::ticket::Envelope;

/// The largest request that goes by the shared connection, in bytes: half of the least that may be set as a node's
/// `client-query-buffer-limit` or `proto-max-bulk-len`.
pub const LARGEST_SHARED: usize = 512 * 1024;
/// How many such connections a link has at most. Each carries one request at a time, as long as there are enough.
const MOST: usize = 4;

/// The links beside a link; they have none themselves.
#[derive(Default)]
pub struct Sides(RefCell<Vec<Rc<Link>>>);

impl Sides {
    /// Lets them end once all that they owe has been answered.
    pub(super) fn retire(&self) {
        self.0.borrow().iter().for_each(|side| side.retire());
    }
}

impl Link {
    /// Whether a request must not go by the shared connection.
    pub(super) fn goes_beside(&self, request: &[u8], envelope: &Envelope) -> bool {
        (envelope.traits.unknown || request.len() > LARGEST_SHARED) && self.sides().is_some()
    }

    /// The links beside it, where it is one that everybody shares.
    pub(super) fn sides(&self) -> Option<&Sides> {
        match &self.purpose {
            Purpose::Shared { sides, .. } => Some(sides),
            Purpose::Private(_) | Purpose::Side => None,
        }
    }

    /// The side link that has the least to send; `None` where too much waits for the node already.
    pub(super) fn side(&self) -> Option<Rc<Link>> {
        let mut sides = self.sides()?.0.borrow_mut();
        sides.retain(|side| !side.ended.get());
        let queued = |side: &Rc<Link>| side.queue.borrow().bytes.len();
        if sides.iter().map(queued).sum::<usize>() >= MOST_QUEUED {
            return None;
        }
        let freest = sides.iter().min_by_key(|side| queued(side)).cloned();
        if freest.as_ref().is_some_and(|side| sides.len() == MOST || queued(side) == 0) {
            return freest;
        }
        let Link { node, login, tally, context, .. } = self;
        let side = Link::open(node.clone(), login.borrow().clone(), tally.clone(), context.clone(), Purpose::Side);
        sides.push(side.clone());
        Some(side)
    }
}
