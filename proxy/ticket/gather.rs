//! Where the replies to a split request's parts become one.

use std::{cell::RefCell, rc::Rc, sync::Arc};

use super::{Line, Ticket};
use crate::{merge::Merge, topology::Node};

/// Where the parts of a split request come together: their merged reply answers the ticket of the whole.
pub(super) struct Gather {
    merge: RefCell<Merge>,
    whole: RefCell<Option<Ticket>>,
    /// Where the whole has its place, and which.
    pub line: Rc<Line>,
    pub number: u64,
    /// The node that each part is for, where the request is about nodes and not about keys.
    pub nodes: Vec<Arc<Node>>,
}

impl Gather {
    /// Waits for the parts of what `whole` has to answer, which has the place `number` in `line`.
    pub fn new(merge: Merge, whole: Ticket, line: Rc<Line>, number: u64, nodes: Vec<Arc<Node>>) -> Rc<Gather> {
        Rc::new(Gather { merge: RefCell::new(merge), whole: RefCell::new(Some(whole)), line, number, nodes })
    }

    /// Takes the reply to one part; the last one answers the whole.
    pub fn take(&self, index: u32, reply: &[u8]) {
        self.line.touch(self.number);
        if !self.merge.borrow_mut().take(index as usize, reply) {
            return;
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
}
