//! Counting what goes to a node on a connection of its own.

use std::{rc::Rc, time::Instant};

use crate::metrics::{NodeTally, RequestClass};

/// A request in the counts of its node: answered, or, where nobody times its reply, dropped with this.
pub struct CountedRequest {
    tally: Rc<NodeTally>,
    since: Instant,
    unwritten: usize,
    answered: bool,
}

impl CountedRequest {
    /// A request of so many bytes, about to be sent.
    pub(super) fn new(tally: Rc<NodeTally>, bytes: usize) -> CountedRequest {
        tally.queued(bytes);
        CountedRequest { tally, since: Instant::now(), unwritten: bytes, answered: false }
    }

    /// All of it has been sent.
    pub(super) fn written(&mut self) {
        self.tally.sent(std::mem::take(&mut self.unwritten));
    }

    /// The reply is there, or so much of it that the node has done its work.
    pub fn answered(mut self) {
        self.answered = true;
        self.tally.replied(RequestClass::Other, self.since.elapsed());
    }
}

impl Drop for CountedRequest {
    fn drop(&mut self) {
        if !self.answered {
            self.tally.dropped(1, self.unwritten);
        }
    }
}
