//! A session's line of replies, and the duty to fill its places.
//!
//! For every request the session opens a place in its [`Line`] and hands the [`Ticket`] for it on. Tickets come back in
//! any order; the line gives the client its replies in the order of the requests. A ticket is used exactly once: filled,
//! failed or bounced, and one that is dropped answers with an error, so that no client ever waits for nothing.
//!
//! A ticket's place in the line, not its request, decides where a reply goes: nothing that comes late or twice can
//! reach another request.

mod clock;
mod envelope;
mod gather;
mod label;
mod line;
mod writes;

use std::{cell::Cell, rc::Rc, sync::Arc};

use bytes::Bytes;

use self::gather::Gather;
pub use self::{
    clock::Clock,
    envelope::{Bounced, Caching, Envelope, ForAll, Needs, OnSuccess, RequestTraits},
    gather::MakeUp,
    label::Label,
    line::{Line, OWED_LIMIT, ReplyFilter, ReplySize},
    writes::Writes,
};
use crate::{
    cluster::topology::Node,
    commands::plan::Split,
    protocol::{resp::write, says},
};

/// The duty to answer one request, or one part of it.
#[derive(Debug)]
pub struct Ticket {
    duty: Duty,
}

enum Duty {
    Place {
        line: Rc<Line>,
        number: u64,
    },
    /// One part of a reply, of which so many bytes are in the line's account.
    Part {
        gather: Rc<Gather>,
        index: u32,
        counted: Cell<usize>,
    },
    Done,
}

impl std::fmt::Debug for Duty {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Duty::Place { number, .. } => write!(f, "place {number}"),
            Duty::Part { index, .. } => write!(f, "part {index}"),
            Duty::Done => f.write_str("done"),
        }
    }
}

impl Ticket {
    /// Answers with a whole reply, or with the end of one that [`Ticket::stream`] began.
    pub fn fill(mut self, reply: &[u8]) {
        self.fill_now(reply, false);
    }

    /// Passes on the front of a reply whose end has not come yet. Only where [`Ticket::streams`].
    pub fn stream(&self, chunk: &[u8]) {
        if let Duty::Place { line, number } = &self.duty {
            line.fill(*number, chunk, false);
        }
    }

    /// Whether a reply can be passed on in pieces: not where it is to be merged with others, unless nobody waits for that
    /// any more.
    pub fn streams(&self) -> bool {
        matches!(self.duty, Duty::Place { .. }) || self.is_abandoned()
    }

    /// So many bytes are there of a reply whose end has not come, and that is not passed on in pieces.
    pub fn holds(&self, bytes: usize) {
        if let Duty::Part { gather, counted, .. } = &self.duty {
            gather.line.gather(counted.replace(bytes), bytes);
            gather.give_up_if_too_large();
        }
    }

    /// Answers with an error: a code word and a text, without the leading `-`. Where a part of the reply has already
    /// been passed on, the client's connection is closed instead: nothing else would keep it in step.
    pub fn fail(mut self, error: &str) {
        self.fail_now(error);
    }

    /// The whole of which this is a part only reads: where the parts are too large to be put together, the request comes
    /// back ([`crate::cluster::recovery::Why::TooLarge`]).
    pub fn may_go_again(&self, request: Bytes, split: Rc<Split>) {
        if let Duty::Part { gather, .. } = &self.duty {
            gather.may_go_again(request, split);
        }
    }

    /// The node that this part is for, where the request is about nodes and not about keys.
    pub fn node(&self) -> Option<&Arc<Node>> {
        match &self.duty {
            Duty::Part { gather, index, .. } => gather.nodes.get(*index as usize),
            Duty::Place { .. } | Duty::Done => None,
        }
    }

    /// Whether the request that this is a part of has been answered without it.
    pub(super) fn is_over(&self) -> bool {
        self.duty.is_given_up()
    }

    /// Whether nobody waits for the answer any more.
    pub fn is_abandoned(&self) -> bool {
        self.duty.is_given_up() || self.duty.line().is_none_or(|line| line.is_closed())
    }

    /// Whether the front of the reply has been passed on already.
    pub fn has_begun(&self) -> bool {
        match &self.duty {
            Duty::Place { line, number } => line.has_begun(*number),
            Duty::Part { .. } | Duty::Done => false,
        }
    }

    /// Bytes owed to the client that waits for this answer.
    pub fn owed(&self) -> usize {
        self.duty.line().map_or(0, |line| line.owed())
    }

    /// Bytes of these that are ready, and that the client's socket has not taken.
    pub fn unwritten(&self) -> usize {
        self.duty.line().map_or(0, |line| line.unwritten())
    }

    pub(super) fn line(&self) -> Option<&Rc<Line>> {
        self.duty.line()
    }

    /// Where the parts come together that this is one of.
    fn gather(&self) -> Option<&Rc<Gather>> {
        match &self.duty {
            Duty::Part { gather, .. } => Some(gather),
            Duty::Place { .. } | Duty::Done => None,
        }
    }

    /// The number of its place in the line: it grows with each request.
    pub fn place(&self) -> u64 {
        self.order().0
    }

    /// The place in the line, then the part.
    fn order(&self) -> (u64, u32) {
        match &self.duty {
            Duty::Place { number, .. } => (*number, 0),
            Duty::Part { gather, index, .. } => (gather.number, *index),
            Duty::Done => (0, 0),
        }
    }

    /// Uses the ticket; `lost` where the reply is the proxy's own and says that no node has answered.
    fn fill_now(&mut self, reply: &[u8], lost: bool) {
        let duty = std::mem::replace(&mut self.duty, Duty::Done);
        let Some(line) = duty.line().cloned() else { return };
        if let Duty::Part { counted, .. } = &duty
            && duty.is_given_up()
        {
            return line.gather(counted.get(), 0);
        }
        line.open_tickets.set(line.open_tickets.get() - 1);
        match duty {
            Duty::Place { number, .. } => line.fill(number, reply, true),
            Duty::Part { gather, index, counted } => {
                line.gather(counted.get(), reply.len());
                gather.take(index, reply, lost);
            }
            Duty::Done => {}
        }
        // A reply behind the front, or one part of many, shows nothing to the client; but what has bounced may have
        // waited for it.
        if line.only_bounces_left() {
            line.wake();
        }
    }

    fn fail_now(&mut self, error: &str) {
        match &self.duty {
            Duty::Place { line, number } if line.has_begun(*number) => {
                line.break_off(*number);
                self.fill_now(b"", false);
            }
            Duty::Done => {}
            Duty::Place { .. } | Duty::Part { .. } => self.fill_now(&write::error_frame(error), true),
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.fail_now(says::DROPPED);
    }
}

impl Duty {
    /// Whether it is a part of what has gone by another way.
    fn is_given_up(&self) -> bool {
        matches!(self, Duty::Part { gather, .. } if gather.is_given_up())
    }

    fn line(&self) -> Option<&Rc<Line>> {
        match self {
            Duty::Place { line, .. } => Some(line),
            Duty::Part { gather, .. } => Some(&gather.line),
            Duty::Done => None,
        }
    }
}
