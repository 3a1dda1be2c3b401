//! A session's line of replies, and the duty to fill its places.
//!
//! For every request the session opens a place in its [`Line`] and hands the [`Ticket`] for it on. Tickets come back in
//! any order; the line gives the client its replies in the order of the requests. A ticket is used exactly once: filled,
//! failed or bounced, and one that is dropped answers with an error, so that no client ever waits for nothing.
//!
//! A ticket's place in the line, not its request, decides where a reply goes: nothing that comes late or twice can
//! reach another request.

mod clock;
mod gather;
mod label;
mod line;

use std::{cell::Cell, rc::Rc, sync::Arc};

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

use self::gather::Gather;
pub use self::{
    clock::Clock,
    gather::MakeUp,
    label::Label,
    line::{Line, OWED_LIMIT, Standing},
};
use crate::{
    cluster::{
        recovery::Why,
        topology::{Node, Route},
    },
    commands::merge::Merge,
    protocol::{resp::write, slot::Slot},
    upstream::doubt,
};

/// The duty to answer one request, or one part of it.
#[derive(Debug)]
pub struct Ticket {
    duty: Duty,
    /// Where the request goes.
    pub route: Route,
    /// How often the request has been sent again.
    pub tries: u8,
    /// How many replies come before the one that answers: the rest are those of a transaction's commands.
    pub replies_before: usize,
    /// The request only reads, so that it may be sent once more though it may have run.
    pub repeatable: bool,
    /// The request may write, so that WAIT is about it.
    pub writes: bool,
    /// What it runs.
    pub needs: Needs,
    /// What its success teaches.
    pub on_success: Option<OnSuccess>,
    /// Whether the node is to remember the keys that it reads.
    pub caching: Caching,
    /// The server may answer it by bytes that the client chose: nothing follows it before it is answered.
    pub exclusive: bool,
    /// Nothing is known of its command, which may change the connection that it goes by, or end it.
    pub unknown: bool,
    /// The place that it takes among the requests whose replies may be large, until the reply has begun.
    pub admission: Admitted,
}

/// A place among the few requests at a node whose replies may be large; free again when this is dropped or emptied.
#[derive(Default)]
pub struct Admitted(Cell<Option<OwnedSemaphorePermit>>);

impl Admitted {
    /// Holds this place from now on.
    pub fn set(&self, place: Option<OwnedSemaphorePermit>) {
        self.0.set(place);
    }

    /// Takes the place out.
    pub fn take(&self) -> Option<OwnedSemaphorePermit> {
        self.0.take()
    }
}

impl std::fmt::Debug for Admitted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Admitted")
    }
}

/// What a request runs that its node may lack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Scripts that it names by their digests, and whose texts are known.
    pub scripts: bool,
    /// Functions.
    pub functions: bool,
    /// Nothing of its session that could overtake it is under way, so that it may go again where its script is missing.
    pub reloads: bool,
}

/// Whether the node is to remember which keys are read (CLIENT CACHING).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Caching {
    /// As the connection's tracking has it.
    #[default]
    AsEver,
    /// Of this request, though of others only where they say so too.
    Yes,
    /// Of this request not.
    No,
}

impl Caching {
    /// What has to stand right in front of the request.
    pub fn prefix(self) -> &'static [u8] {
        match self {
            Caching::AsEver => b"",
            Caching::Yes => b"*3\r\n$6\r\nCLIENT\r\n$7\r\nCACHING\r\n$3\r\nYES\r\n",
            Caching::No => b"*3\r\n$6\r\nCLIENT\r\n$7\r\nCACHING\r\n$2\r\nNO\r\n",
        }
    }
}

/// What is to be done once a node has answered a request with anything but an error.
pub struct OnSuccess(Box<dyn FnOnce()>);

impl OnSuccess {
    /// That `act` is to be done.
    pub fn new(act: impl FnOnce() + 'static) -> OnSuccess {
        OnSuccess(Box::new(act))
    }

    /// Does it.
    pub fn act(self) {
        (self.0)();
    }
}

impl std::fmt::Debug for OnSuccess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Lesson")
    }
}

/// A request that came back, with the duty to answer it.
#[derive(Debug)]
pub struct Bounced {
    /// The duty.
    pub ticket: Ticket,
    /// The request's bytes: its frame, or the frames of a transaction.
    pub request: Bytes,
    /// Why it came back.
    pub why: Why,
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

    /// Answers with a whole reply of a node's, which has executed the request.
    pub fn fill_by(mut self, node: &Arc<Node>, reply: &[u8]) {
        self.is_executed_by(node, reply);
        self.fill(reply);
    }

    /// A node has executed the request, and its reply begins so.
    pub fn is_executed_by(&mut self, node: &Arc<Node>, front: &[u8]) {
        self.wrote(node);
        if let Some(OnSuccess(act)) = self.on_success.take()
            && !matches!(front.first(), Some(b'-' | b'!'))
        {
            act();
        }
    }

    /// The node has executed the request, or may have.
    pub fn wrote(&self, node: &Arc<Node>) {
        if self.writes
            && let Some(line) = self.duty.line()
        {
            line.wrote(node);
        }
    }

    /// The request is given up on this connection, where it may still run.
    pub fn in_doubt(&self, connection: &Rc<doubt::Connection>) {
        if !self.repeatable
            && let Some(line) = self.duty.line()
        {
            line.doubts.add(connection);
        }
    }

    /// What its client had to give up before, where there is anything.
    #[inline]
    pub fn doubts(&self) -> Option<&doubt::Doubts> {
        self.duty.line().map(|line| &*line.doubts).filter(|doubts| !doubts.is_empty())
    }

    /// Passes on the front of a reply whose end has not come yet. Only where [`Ticket::streams`].
    pub fn stream(&self, chunk: &[u8]) {
        self.admission.take();
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

    /// Gives the request back to its session, unexecuted.
    pub fn bounce(self, request: Bytes, why: Why) {
        if self.is_abandoned() {
            return;
        }
        // A node that answers is not lost: what it cannot do now, it does soon.
        if let Duty::Part { gather, .. } = &self.duty
            && gather.puts_off()
        {
            let gather = gather.clone();
            if matches!(why, Why::Unsent(_) | Why::Hopeless(_)) && !gather.line.has_bounced() {
                return gather.put_off(Bounced { ticket: self, request, why });
            }
            gather.put_off_no_more();
        }
        if let Some(line) = self.duty.line().cloned() {
            line.give_back(Bounced { ticket: self, request, why });
        }
    }

    /// Turns the duty to answer into the duties to answer `merge`'s parts, in their order.
    pub fn split(self, merge: Merge, parts: usize) -> Vec<Ticket> {
        self.split_for(merge, parts, Vec::new(), None)
    }

    /// The whole of which this is a part only reads: where the parts are too large to be put together, the request comes
    /// back ([`Why::TooLarge`]).
    pub fn may_go_again(&self, request: Bytes) {
        if let Duty::Part { gather, .. } = &self.duty {
            gather.may_go_again(request);
        }
    }

    /// As [`Ticket::split`], one part for each of these nodes; those that the merge has done without are made up for.
    pub fn split_among(self, merge: Merge, nodes: Vec<Arc<Node>>, make_up: Option<MakeUp>) -> Vec<Ticket> {
        self.split_for(merge, nodes.len(), nodes, make_up)
    }

    fn split_for(mut self, merge: Merge, parts: usize, nodes: Vec<Arc<Node>>, make_up: Option<MakeUp>) -> Vec<Ticket> {
        let Ticket { route, tries, repeatable, writes, needs, caching, exclusive, unknown, .. } = self;
        let (Some(line), number) = (self.duty.line().cloned(), self.place()) else { return Vec::new() };
        let admission = self.admission.take();
        let ticket = |duty| Ticket {
            duty,
            admission: Admitted::default(),
            route,
            tries,
            replies_before: 0,
            repeatable,
            writes,
            needs,
            on_success: None,
            caching,
            exclusive,
            unknown,
        };
        let mut whole = ticket(std::mem::replace(&mut self.duty, Duty::Done));
        whole.admission.set(admission);
        whole.on_success = self.on_success.take();
        let gather = Gather::new(merge, parts, whole, (line.clone(), number), nodes, make_up);
        line.open_tickets.set(line.open_tickets.get() + parts - 1);
        let part = |index| ticket(Duty::Part { gather: gather.clone(), index, counted: Cell::new(0) });
        (0..parts as u32).map(part).collect()
    }

    /// The slot that the request is for, where it has one.
    pub fn slot(&self) -> Option<Slot> {
        match self.route {
            Route::Slot(slot) => Some(slot),
            _ => None,
        }
    }

    /// The node that this part is for, where the request is about nodes and not about keys.
    pub fn node(&self) -> Option<&Arc<Node>> {
        match &self.duty {
            Duty::Part { gather, index, .. } => gather.nodes.get(*index as usize),
            _ => None,
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
            _ => false,
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
            _ => self.fill_now(&error_frame(error), true),
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.fail_now("ERR proxy: the request was dropped unanswered, it may have run; please report this as a bug");
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

fn error_frame(error: &str) -> Vec<u8> {
    let mut frame = Vec::with_capacity(error.len() + 3);
    write::error(&mut frame, error.as_bytes());
    frame
}
