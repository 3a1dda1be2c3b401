//! Where the replies to a split request's parts become one.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;

use super::{Bounced, Envelope, Line, OWED_LIMIT, OnSuccess};
use crate::{
    cluster::{recovery::Why, topology::Node},
    commands::{merge::Merge, plan::Split},
};

/// How long those that have not answered are waited for, once the others suffice without them.
const GRACE: Duration = Duration::from_millis(500);

/// Bytes of parts that are put together here, where they could pass through instead.
const MOST_GATHERED: usize = OWED_LIMIT;

/// Does later at a node what it has missed.
pub type MakeUp = Box<dyn Fn(&Arc<Node>)>;

/// Where the parts of a split request come together: their merged reply answers the ticket of the whole.
///
/// Where the merge spares lost nodes, a part that comes back unexecuted is put off as long as others may suffice without
/// it, and one that does not answer is given up.
pub(super) struct Gather {
    merge: RefCell<Merge>,
    whole: RefCell<Option<Envelope>>,
    /// What the whole's success teaches.
    on_success: Cell<Option<OnSuccess>>,
    make_up: Option<MakeUp>,
    /// Parts that have come back, and may not be needed.
    put_off: RefCell<Vec<Bounced>>,
    /// Parts that are under way.
    under_way: Cell<usize>,
    /// The request and how it was cut, where it can go again by another way once its parts turn out to be too large.
    request: RefCell<Option<(Bytes, Rc<Split>)>>,
    /// The whole has been answered, or has gone by another way: the parts that still come are for nobody.
    is_given_up: Cell<bool>,
    /// The line in which the whole request has its place, and the place's number.
    pub line: Rc<Line>,
    pub number: u64,
    /// The node that each part is for, where the request is about nodes and not about keys.
    pub nodes: Vec<Arc<Node>>,
}

impl Gather {
    /// Waits for the `parts` of what `whole` has to answer, which has the place `number` in `line`.
    pub fn new(
        merge: Merge,
        parts: usize,
        mut whole: Envelope,
        (line, number): (Rc<Line>, u64),
        nodes: Vec<Arc<Node>>,
        make_up: Option<MakeUp>,
    ) -> Rc<Gather> {
        Rc::new(Gather {
            merge: RefCell::new(merge),
            on_success: Cell::new(whole.take_on_success()),
            whole: RefCell::new(Some(whole)),
            make_up,
            put_off: RefCell::default(),
            under_way: Cell::new(parts),
            is_given_up: Cell::new(false),
            request: RefCell::default(),
            line,
            number,
            nodes,
        })
    }

    /// Takes the reply to one part, or the error that says why its node is lost; the last one answers the whole.
    pub fn take(self: &Rc<Gather>, index: u32, reply: &[u8], lost: bool) {
        self.line.touch(self.number);
        {
            let merge = &mut *self.merge.borrow_mut();
            match lost {
                true => merge.take_lost(index as usize, reply),
                false => merge.take(index as usize, reply),
            };
        }
        self.under_way.set(self.under_way.get() - 1);
        self.look();
    }

    /// Whether a part that comes back is to be put off.
    pub fn puts_off(&self) -> bool {
        self.merge.borrow().spares()
    }

    /// Takes a part that has come back.
    pub fn put_off(self: &Rc<Gather>, part: Bounced) {
        self.put_off.borrow_mut().push(part);
        self.under_way.set(self.under_way.get() - 1);
        self.look();
    }

    /// A part has come back that goes again, once all that has come back does: what was put off comes along, since nothing
    /// goes again while anything else is out.
    pub fn put_off_no_more(&self) {
        let parts = self.put_off.take();
        self.under_way.set(self.under_way.get() + parts.len());
        parts.into_iter().for_each(|part| self.line.give_back(part));
    }

    /// Whether nobody waits for it any more.
    pub fn is_given_up(&self) -> bool {
        self.is_given_up.get()
    }

    fn look(self: &Rc<Gather>) {
        let suffices = self.merge.borrow().suffices();
        match self.under_way.get() {
            0 if suffices || self.put_off.borrow().is_empty() => self.finish(),
            0 => {
                // It takes them all the same.
                self.put_off_no_more();
            }
            _ if suffices => {
                let gather = Rc::downgrade(self);
                tokio::task::spawn_local(async move {
                    tokio::time::sleep(GRACE).await;
                    if let Some(gather) = gather.upgrade() {
                        gather.finish();
                    }
                });
            }
            _ => self.give_up_if_too_large(),
        }
    }

    /// Answers the whole with what has come.
    fn finish(&self) {
        let Some(whole) = self.whole.borrow_mut().take() else { return };
        self.is_given_up.set(true);
        let put_off = self.put_off.take();
        // The parts' tickets stood for the whole until now; those that are left stand for nothing.
        self.line.open_tickets.set(self.line.open_tickets.get() + 1 - self.under_way.get() - put_off.len());
        drop(put_off);
        self.line.forget_what_is_over();
        let mut merged = Vec::new();
        let (held, missed) = {
            let merge = &mut *self.merge.borrow_mut();
            let (held, missed) = (merge.held(), merge.missed());
            // What one node has taken counts: its users have changed, say.
            if let Some(taught) = self.on_success.take().filter(|_| merge.any_succeeded()) {
                taught.act();
            }
            merge.finish(&mut merged);
            (held, missed)
        };
        if let Some(make_up) = &self.make_up {
            missed.into_iter().filter_map(|part| self.nodes.get(part)).for_each(make_up);
        }
        whole.fill(&merged);
        self.line.gather(held, 0);
    }

    /// The request may go again by another way.
    pub fn may_go_again(&self, request: Bytes, split: Rc<Split>) {
        self.request.replace(Some((request, split)));
    }

    /// Gives the request back where its parts are too large and it may go another way.
    pub fn give_up_if_too_large(&self) {
        if self.line.gathered() < MOST_GATHERED {
            return;
        }
        let Some((request, split)) = self.request.take() else { return };
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
        whole.bounce(request, Why::TooLarge(split));
    }
}

#[cfg(test)]
mod tests;
