//! Where the replies to a split request's parts become one.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
};

use bytes::Bytes;

use super::{Line, OWED_LIMIT, Ticket, Why};
use crate::{merge::Merge, topology::Node};

/// Bytes of parts that are put together here, where they could pass through instead.
const MOST_GATHERED: usize = OWED_LIMIT;

/// Where the parts of a split request come together: their merged reply answers the ticket of the whole.
pub(super) struct Gather {
    merge: RefCell<Merge>,
    whole: RefCell<Option<Ticket>>,
    /// The request, where it can go again by another way once its parts turn out to be too large.
    request: RefCell<Option<Bytes>>,
    /// It has gone by another way: the parts that still come are for nobody.
    is_given_up: Cell<bool>,
    /// Where the whole has its place, and which.
    pub line: Rc<Line>,
    pub number: u64,
    /// The node that each part is for, where the request is about nodes and not about keys.
    pub nodes: Vec<Arc<Node>>,
}

impl Gather {
    /// Waits for the parts of what `whole` has to answer, which has the place `number` in `line`.
    pub fn new(merge: Merge, whole: Ticket, line: Rc<Line>, number: u64, nodes: Vec<Arc<Node>>) -> Rc<Gather> {
        Rc::new(Gather {
            merge: RefCell::new(merge),
            whole: RefCell::new(Some(whole)),
            request: RefCell::default(),
            is_given_up: Cell::default(),
            line,
            number,
            nodes,
        })
    }

    /// The request may go again by another way.
    pub fn may_go_again(&self, request: Bytes) {
        self.request.replace(Some(request));
    }

    /// Whether the parts that still come are for nobody.
    pub fn is_given_up(&self) -> bool {
        self.is_given_up.get()
    }

    /// Takes the reply to one part; the last one answers the whole.
    pub fn take(&self, index: u32, reply: &[u8]) {
        self.line.touch(self.number);
        if !self.merge.borrow_mut().take(index as usize, reply) {
            return self.give_up_if_too_large();
        }
        let whole = self.whole.borrow_mut().take();
        if let Some(whole) = whole {
            // The parts' tickets stood for it until now.
            self.line.open_tickets.set(self.line.open_tickets.get() + 1);
            let mut merged = Vec::new();
            let held = {
                let merge = &mut *self.merge.borrow_mut();
                merge.finish(&mut merged);
                merge.held()
            };
            whole.fill(&merged);
            self.line.gather(held, 0);
        }
    }

    /// Gives the request back where its parts are too large and it may go another way.
    pub fn give_up_if_too_large(&self) {
        if self.line.gathered() < MOST_GATHERED {
            return;
        }
        let Some(request) = self.request.take() else { return };
        let Some(whole) = self.whole.take() else { return };
        let (held, missing) = {
            let merge = &mut *self.merge.borrow_mut();
            let missing = merge.missing();
            (merge.clear(), missing)
        };
        self.is_given_up.set(true);
        self.line.gather(held, 0);
        // The parts that are missing stand for nothing any more.
        self.line.open_tickets.set(self.line.open_tickets.get() + 1 - missing);
        whole.bounce(request, Why::TooLarge);
    }
}
