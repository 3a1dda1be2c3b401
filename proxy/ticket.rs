//! A session's line of replies, and the duty to fill its places.
//!
//! For every request the session opens a place in its [`Line`] and hands the [`Ticket`] for it on. Tickets come back in
//! any order; the line gives the client its replies in the order of the requests. A ticket is used exactly once: filled,
//! failed or bounced, and one that is dropped answers with an error, so that no client ever waits for nothing.
//!
//! A ticket's place in the line, not its request, decides where a reply goes: nothing that comes late or twice can
//! reach another request.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
    sync::Arc,
    task::Waker,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};

use crate::{
    command::{Flags, Spec},
    merge::Merge,
    metrics::{ClientTally, CommandClass, CommandId, NodeError},
    refusal::{self, Later},
    resp::write,
    slot::Slot,
    topology::{Node, Redirect},
};

/// Bytes that a client may be owed before no more of its requests are read: the bound of a slow reader's cost.
pub const OWED_LIMIT: usize = 1024 * 1024;
/// Requests in flight that a new client starts with. One more is allowed for each small reply, as TCP opens its window:
/// a burst of requests with huge replies is then over before it has cost much.
const FIRST_WINDOW: usize = 8;
/// Buffers for replies out of turn that a line keeps for the next ones, and the largest that is kept.
const SPARE_BUFFERS: usize = 32;
const SPARE_CAPACITY: usize = 512;
/// The output buffer's capacity that a line keeps while nothing is owed.
const KEPT_OUTPUT: usize = 4096;

/// The worker's time, read once per batch of work instead of once per request.
#[derive(Debug)]
pub struct Clock(Cell<Instant>);

impl Clock {
    /// A clock that shows the present.
    pub fn start() -> Clock {
        Clock(Cell::new(Instant::now()))
    }

    /// Reads the time anew.
    pub fn tick(&self) -> Instant {
        self.0.set(Instant::now());
        self.0.get()
    }

    /// The time of the last [`Clock::tick`].
    pub fn now(&self) -> Instant {
        self.0.get()
    }
}

/// What a place is counted as when it is answered.
#[derive(Clone, Copy, Debug)]
pub struct Label {
    /// The command.
    pub command: CommandId,
    /// The class under which its duration is recorded.
    pub class: CommandClass,
}

/// Why a request came back unexecuted.
#[derive(Clone, Debug)]
pub enum Why {
    /// Another node serves it: what this one said.
    Redirected(Redirect, Arc<Node>),
    /// The node cannot serve it now: its error.
    Later(Later, Bytes),
    /// The node lacks the script that it names: what the node said.
    NoScript(Arc<Node>, Bytes),
    /// It did not reach a node, or only reads and may be sent again: the error to give up with.
    Unsent(String),
    /// As `Unsent`, and waiting is in vain.
    Hopeless(String),
}

impl Why {
    /// One word for it, as a metric's label.
    pub fn word(&self) -> &'static str {
        let error = match self {
            Why::Redirected(redirect, _) => NodeError::from(redirect.kind),
            Why::Later(later, _) => NodeError::from(*later),
            Why::NoScript(..) => NodeError::NoScript,
            Why::Unsent(_) | Why::Hopeless(_) => NodeError::Connection,
        };
        error.label()
    }

    /// What a client is told whose request was refused to the last.
    pub fn last_error(&self) -> String {
        match self {
            Why::Redirected(Redirect { kind, slot, host, port }, from) => {
                let label = &from.label;
                format!("ERR proxy: too many redirects for slot {slot}: {label} still says {kind:?} {host}:{port}")
            }
            Why::Later(_, error) | Why::NoScript(_, error) => {
                String::from_utf8_lossy(refusal::text(error)).into_owned()
            }
            Why::Unsent(error) | Why::Hopeless(error) => error.clone(),
        }
    }
}

/// Where a request is to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// To the owner of the slot.
    Slot(Slot),
    /// To any primary; a session keeps to the same one.
    Any,
    /// To the primary that all publishing goes through.
    Home,
}

/// What a request runs that its node may lack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Scripts that it names by their digests, and whose texts are known.
    pub scripts: bool,
    /// Functions.
    pub functions: bool,
    /// Nothing of its session that could overtake it is under way, so that it may go again where its script is missing.
    pub heals: bool,
}

/// What is to be done once a node has answered a request with anything but an error.
pub struct Lesson(Box<dyn FnOnce()>);

impl Lesson {
    /// That `act` is to be done.
    pub fn new(act: impl FnOnce() + 'static) -> Lesson {
        Lesson(Box::new(act))
    }
}

impl std::fmt::Debug for Lesson {
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

/// Which replies the client does not want (CLIENT REPLY).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mute {
    /// It wants all.
    #[default]
    No,
    /// All but the next.
    Next,
    /// None.
    All,
}

impl Label {
    /// The label of a command; `None` is a command that is not known.
    pub fn of(spec: Option<&Spec>) -> Label {
        let Some(spec) = spec else { return Label { command: CommandId::OTHER, class: CommandClass::Admin } };
        let class = match spec {
            spec if spec.flags.has(Flags::BLOCKING) => CommandClass::Blocking,
            spec if spec.is_readonly() => CommandClass::Read,
            spec if spec.is_write() => CommandClass::Write,
            _ => CommandClass::Admin,
        };
        Label { command: spec.metric, class }
    }
}

/// The ordered reply places of one session.
pub struct Line {
    state: RefCell<State>,
    tally: Rc<ClientTally>,
    clock: Rc<Clock>,
    most_in_flight: usize,
    /// Tickets that still have to be used, those of bounced requests included.
    open_tickets: Cell<usize>,
    /// Whether the replies to what comes now are for the client.
    mute: Cell<Mute>,
    /// The nodes that have been written to, and since when.
    written: RefCell<Vec<(Arc<Node>, Instant)>>,
}

#[derive(Default)]
struct State {
    /// Replies in their order, for the client to read.
    out: BytesMut,
    /// Messages that came while a reply was half written.
    pushes: BytesMut,
    places: VecDeque<Place>,
    /// The number of the front place.
    front: u64,
    /// Bytes of replies that wait for their turn.
    parked: usize,
    /// Bytes of requests that wait for their replies.
    asked: usize,
    bounced: Vec<Bounced>,
    window: usize,
    waker: Option<Waker>,
    /// The session has been woken, or is at work.
    awake: bool,
    spare: Vec<Vec<u8>>,
    closed: bool,
    /// A reply could not be finished: all that can be done is to close the connection.
    broken: bool,
    /// What the client has been sent last says that it is to forget all that it holds.
    flushed: bool,
}

struct Place {
    reply: Vec<u8>,
    /// Bytes of the reply so far, also of those that are already on their way.
    length: usize,
    whole: bool,
    /// Something of its reply has come, perhaps only one of the parts that make it.
    touched: bool,
    failed: bool,
    mute: bool,
    request_bytes: u32,
    opened: Instant,
    /// `None` for what the proxy answered itself: that has been counted.
    label: Option<Label>,
}

impl Place {
    fn answered(reply: Vec<u8>, opened: Instant) -> Place {
        Place {
            length: reply.len(),
            reply,
            whole: true,
            touched: true,
            failed: false,
            mute: false,
            request_bytes: 0,
            opened,
            label: None,
        }
    }
}

impl Line {
    /// An empty line, for a client that may have `most_in_flight` requests on their way.
    pub fn new(tally: Rc<ClientTally>, clock: Rc<Clock>, most_in_flight: usize) -> Rc<Line> {
        let state = State { window: FIRST_WINDOW.min(most_in_flight), ..State::default() };
        Rc::new(Line {
            state: RefCell::new(state),
            tally,
            clock,
            most_in_flight,
            open_tickets: Cell::new(0),
            mute: Cell::new(Mute::No),
            written: RefCell::default(),
        })
    }

    /// Opens the next place, for a request of `request_bytes` that goes to `route`; it is `repeatable` where it only
    /// reads.
    pub fn open(self: &Rc<Line>, label: Option<Label>, request_bytes: usize, route: Route, repeatable: bool) -> Ticket {
        let state = &mut *self.state.borrow_mut();
        let place = Place {
            reply: state.spare.pop().unwrap_or_default(),
            length: 0,
            whole: false,
            touched: false,
            failed: false,
            mute: self.takes_mute(),
            request_bytes: u32::try_from(request_bytes).unwrap_or(u32::MAX),
            opened: self.clock.now(),
            label,
        };
        state.asked += place.request_bytes as usize;
        state.places.push_back(place);
        let number = state.front + state.places.len() as u64 - 1;
        self.open_tickets.set(self.open_tickets.get() + 1);
        Ticket {
            duty: Duty::Place { line: self.clone(), number },
            route,
            tries: 0,
            replies_before: 0,
            repeatable,
            writes: false,
            needs: Needs::default(),
            lesson: None,
            caching: Caching::AsEver,
        }
    }

    /// Answers a request on the spot: in its turn behind those that are still on their way.
    pub fn answer(&self, label: Label, reply: &[u8]) {
        self.tally.command(label.command, label.class, reply.first() == Some(&b'-'), Duration::ZERO);
        if self.takes_mute() {
            return;
        }
        let state = &mut *self.state.borrow_mut();
        state.flushed = false;
        if state.places.is_empty() {
            state.out.extend_from_slice(reply);
        } else {
            let mut buffer = state.spare.pop().unwrap_or_default();
            buffer.extend_from_slice(reply);
            state.parked += buffer.len();
            state.places.push_back(Place::answered(buffer, self.clock.now()));
        }
    }

    /// What is answered within `answer`, for the caller instead of the client. Only while nothing is in flight.
    pub fn aside(&self, answer: impl FnOnce()) -> Vec<u8> {
        let kept = std::mem::take(&mut self.state.borrow_mut().out);
        answer();
        std::mem::replace(&mut self.state.borrow_mut().out, kept).to_vec()
    }

    /// A node has executed a request that may write.
    pub fn wrote(&self, node: &Arc<Node>) {
        let mut written = self.written.borrow_mut();
        // Nearly always it is a known one, by the same link.
        if written.iter().any(|(known, _)| Arc::ptr_eq(known, node))
            || written.iter().any(|(known, _)| known.id == node.id)
        {
            return;
        }
        written.push((node.clone(), self.clock.now()));
    }

    /// The nodes that have been written to, each with the time of the first write.
    pub fn written(&self) -> Vec<(Arc<Node>, Instant)> {
        self.written.borrow().clone()
    }

    /// What was written to the node counts no more: the client has been told what became of it.
    pub fn forget_writes(&self, node: &str) {
        self.written.borrow_mut().retain(|(known, _)| known.id != node);
    }

    /// The client does not want the reply to its next request.
    pub fn mute_next(&self) {
        if self.mute.get() == Mute::No {
            self.mute.set(Mute::Next);
        }
    }

    /// From now on the client wants these replies.
    pub fn mute(&self, which: Mute) {
        self.mute.set(which);
    }

    /// Whether the reply to the request that comes now is not for the client.
    fn takes_mute(&self) -> bool {
        let mute = self.mute.get();
        if mute == Mute::Next {
            self.mute.set(Mute::No);
        }
        mute != Mute::No
    }

    /// Whether the next request must wait: too much is on its way or owed.
    pub fn is_full(&self) -> bool {
        let state = self.state.borrow();
        state.places.len() >= state.window || state.owed() + state.asked >= OWED_LIMIT
    }

    /// Whether every request has been answered. The answers may still have to be written.
    pub fn is_settled(&self) -> bool {
        self.state.borrow().places.is_empty()
    }

    /// Whether nothing is left to do: all answered, all written.
    pub fn is_idle(&self) -> bool {
        let state = self.state.borrow();
        state.places.is_empty() && state.out.is_empty()
    }

    /// Whether all that is still missing has bounced: nothing is on its way any more.
    pub fn only_bounces_left(&self) -> bool {
        let bounced = self.state.borrow().bounced.len();
        bounced > 0 && bounced == self.open_tickets.get()
    }

    /// Whether a request has bounced.
    pub fn has_bounced(&self) -> bool {
        !self.state.borrow().bounced.is_empty()
    }

    /// Takes the bounced requests, in the order of their places.
    pub fn take_bounced(&self) -> Vec<Bounced> {
        let mut bounced = std::mem::take(&mut self.state.borrow_mut().bounced);
        bounced.sort_by_key(|bounced| bounced.ticket.order());
        bounced
    }

    /// Bytes that the client is owed.
    pub fn owed(&self) -> usize {
        self.state.borrow().owed()
    }

    /// Appends a message that belongs to no request, between two replies.
    pub fn push(&self, message: &[u8]) {
        let state = &mut *self.state.borrow_mut();
        if state.closed {
            return;
        }
        if state.front_is_half_written() {
            state.pushes.extend_from_slice(message);
        } else {
            state.out.extend_from_slice(message);
        }
        state.wake();
    }

    /// Appends a message about what nodes have said in replies: behind every reply of which something has come, and of
    /// others that come sooner or later. A node that tells of a changed key has been asked for it before: were its message
    /// passed on ahead of that reply, the client would keep the old value for good.
    pub fn push_behind(&self, message: &[u8]) {
        let state = &mut *self.state.borrow_mut();
        state.flushed = false;
        state.push_behind(message, self.clock.now());
    }

    /// As [`Line::push_behind`], for a message that makes the client forget all that it holds: not where one just like it
    /// stands there already. `once_read` says that this counts even where the client may have read that one: all that it
    /// holds comes by this line.
    pub fn push_flush(&self, message: &[u8], once_read: bool) {
        let state = &mut *self.state.borrow_mut();
        let parked = state.places.iter().rposition(|place| place.touched).map(|last| {
            let place = state.places.get(last + 1).or(state.places.get(last));
            place.is_some_and(|place| place.reply.ends_with(message) && (place.label.is_none() || !place.touched))
        });
        let there = match parked {
            Some(parked) => parked,
            None => state.out.ends_with(message) || state.flushed && once_read,
        };
        if !there {
            state.push_behind(message, self.clock.now());
            state.flushed = true;
        }
    }

    /// Somebody else is told instead that all is to be forgotten; says whether that was so already, and nothing has come
    /// since.
    pub fn flushed_elsewhere(&self) -> bool {
        std::mem::replace(&mut self.state.borrow_mut().flushed, true)
    }

    /// Who is to be woken when next there is something to write or to send again. To be called at the end of a turn:
    /// what happens within the turn needs no waking.
    pub fn wake_with(&self, waker: &Waker) {
        let state = &mut *self.state.borrow_mut();
        state.awake = false;
        match &mut state.waker {
            Some(old) if old.will_wake(waker) => {}
            slot => *slot = Some(waker.clone()),
        }
    }

    /// The session is at work.
    pub fn awake(&self) {
        self.state.borrow_mut().awake = true;
    }

    /// Whether no reply is waiting to be written.
    pub fn nothing_to_write(&self) -> bool {
        self.state.borrow().out.is_empty()
    }

    /// Lets `write` take bytes from the front of the output; it says how many it took.
    pub fn write_out<T>(&self, write: impl FnOnce(&[u8]) -> (usize, T)) -> T {
        let state = &mut *self.state.borrow_mut();
        let (taken, result) = write(&state.out);
        if taken == state.out.len() {
            if state.out.capacity() > KEPT_OUTPUT {
                state.out = BytesMut::new();
            } else {
                state.out.clear();
            }
        } else {
            bytes::Buf::advance(&mut state.out, taken);
        }
        result
    }

    /// Whether a reply could not be finished, so that the connection must be closed.
    pub fn is_broken(&self) -> bool {
        self.state.borrow().broken
    }

    /// The client has gone: replies that still come are dropped.
    pub fn close(&self) {
        let bounced = {
            let state = &mut *self.state.borrow_mut();
            state.closed = true;
            state.out = BytesMut::new();
            state.pushes = BytesMut::new();
            std::mem::take(&mut state.bounced)
        };
        // Their tickets borrow the line again when they are dropped.
        drop(bounced);
    }

    /// Adds bytes to a place's reply, its last ones where `last` is set.
    fn fill(&self, number: u64, bytes: &[u8], last: bool) {
        let state = &mut *self.state.borrow_mut();
        let Some(index) = number.checked_sub(state.front).map(|index| index as usize) else { return };
        let Some(place) = state.places.get_mut(index) else { return };
        if place.length == 0 {
            place.failed = matches!(bytes.first(), Some(b'-' | b'!'));
        }
        place.length += bytes.len();
        place.whole = last;
        place.touched = true;
        state.flushed = false;
        if !place.mute && !state.closed {
            if index == 0 {
                state.out.extend_from_slice(bytes);
            } else {
                place.reply.extend_from_slice(bytes);
                state.parked += bytes.len();
            }
        }
        if index == 0 {
            if last {
                self.advance(state);
            }
            state.wake();
        }
    }

    /// One part of a place's reply has come.
    fn touch(&self, number: u64) {
        let state = &mut *self.state.borrow_mut();
        let index = number.checked_sub(state.front).map(|index| index as usize);
        if let Some(place) = index.and_then(|index| state.places.get_mut(index)) {
            place.touched = true;
        }
    }

    /// Moves on over the places that are whole, and shows what the new front has of its reply.
    fn advance(&self, state: &mut State) {
        let now = self.clock.now();
        while state.places.front().is_some_and(|place| place.whole) {
            let Some(mut place) = state.places.pop_front() else { break };
            state.front += 1;
            state.asked -= place.request_bytes as usize;
            state.take_parked(&mut place.reply);
            state.learn_size(place.length, self.most_in_flight);
            if let Some(label) = place.label {
                self.tally.command(label.command, label.class, place.failed, now - place.opened);
            }
            state.recycle(place.reply);
            if !state.pushes.is_empty() {
                let pushes = state.pushes.split();
                state.out.extend_from_slice(&pushes);
            }
        }
        if let Some(front) = state.places.front_mut() {
            let mut begun = std::mem::take(&mut front.reply);
            state.take_parked(&mut begun);
            state.recycle(begun);
        } else {
            state.places.shrink_to(FIRST_WINDOW);
        }
    }

    fn give_back(&self, bounced: Bounced) {
        let closed = {
            let state = &mut *self.state.borrow_mut();
            if state.closed {
                Some(bounced)
            } else {
                state.bounced.push(bounced);
                state.wake();
                None
            }
        };
        drop(closed);
    }

    /// A reply cannot be finished: nothing but closing the connection keeps the client in step.
    fn break_off(&self) {
        let state = &mut *self.state.borrow_mut();
        state.broken = true;
        state.wake();
    }

    fn has_begun(&self, number: u64) -> bool {
        let state = self.state.borrow();
        let index = number.checked_sub(state.front).map(|index| index as usize);
        index.and_then(|index| state.places.get(index)).is_some_and(|place| place.length > 0)
    }
}

impl State {
    fn push_behind(&mut self, message: &[u8], now: Instant) {
        if self.closed {
            return;
        }
        match self.places.iter().rposition(|place| place.touched) {
            None => self.out.extend_from_slice(message),
            Some(last) => {
                self.parked += message.len();
                match self.places.get_mut(last + 1) {
                    // Nothing of its own reply has come, so that the message stands in front of that.
                    Some(next) => next.reply.extend_from_slice(message),
                    None => self.places.push_back(Place::answered(message.to_vec(), now)),
                }
            }
        }
        self.wake();
    }

    fn owed(&self) -> usize {
        self.out.len() + self.parked + self.pushes.len()
    }

    fn front_is_half_written(&self) -> bool {
        self.places.front().is_some_and(|place| place.length > 0 && !place.mute)
    }

    fn take_parked(&mut self, reply: &mut Vec<u8>) {
        self.parked -= reply.len();
        self.out.extend_from_slice(reply);
        reply.clear();
    }

    fn recycle(&mut self, buffer: Vec<u8>) {
        if self.spare.len() < SPARE_BUFFERS && (1..=SPARE_CAPACITY).contains(&buffer.capacity()) {
            self.spare.push(buffer);
        }
    }

    /// Opens the window a little, or closes it so far that replies of this size keep within the limit.
    fn learn_size(&mut self, length: usize, most: usize) {
        self.window =
            if length * self.window > OWED_LIMIT { (OWED_LIMIT / length).max(1) } else { (self.window + 1).min(most) };
    }

    fn wake(&mut self) {
        if !std::mem::replace(&mut self.awake, true)
            && let Some(waker) = &self.waker
        {
            waker.wake_by_ref();
        }
    }
}

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
    pub lesson: Option<Lesson>,
    /// Whether the node is to remember the keys that it reads.
    pub caching: Caching,
}

enum Duty {
    Place { line: Rc<Line>, number: u64 },
    Part { gather: Rc<Gather>, index: u32 },
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

/// Where the parts of a split request come together: their merged reply answers the ticket of the whole.
struct Gather {
    merge: RefCell<Merge>,
    whole: RefCell<Option<Ticket>>,
    line: Rc<Line>,
    number: u64,
}

impl Ticket {
    /// Answers with a whole reply, or with the end of one that [`Ticket::stream`] began.
    pub fn fill(mut self, reply: &[u8]) {
        self.fill_now(reply);
    }

    /// Answers with a whole reply of a node's, which has executed the request.
    pub fn fill_by(mut self, node: &Arc<Node>, reply: &[u8]) {
        self.wrote(node);
        if let Some(Lesson(act)) = self.lesson.take()
            && !matches!(reply.first(), Some(b'-' | b'!'))
        {
            act();
        }
        self.fill(reply);
    }

    /// The node has executed the request, or may have.
    pub fn wrote(&self, node: &Arc<Node>) {
        if self.writes
            && let Some(line) = self.duty.line()
        {
            line.wrote(node);
        }
    }

    /// Passes on the front of a reply whose end has not come yet. Only where [`Ticket::streams`].
    pub fn stream(&self, chunk: &[u8]) {
        if let Duty::Place { line, number } = &self.duty {
            line.fill(*number, chunk, false);
        }
    }

    /// Whether a reply can be passed on in pieces: not where it is to be merged with others.
    pub fn streams(&self) -> bool {
        matches!(self.duty, Duty::Place { .. })
    }

    /// Answers with an error: a code word and a text, without the leading `-`. Where a part of the reply has already
    /// been passed on, the client's connection is closed instead: nothing else would keep it in step.
    pub fn fail(mut self, error: &str) {
        self.fail_now(error);
    }

    /// Gives the request back to its session, unexecuted.
    pub fn bounce(self, request: Bytes, why: Why) {
        if let Some(line) = self.duty.line().cloned() {
            line.give_back(Bounced { ticket: self, request, why });
        }
    }

    /// Turns the duty to answer into the duties to answer `merge`'s parts, in their order.
    pub fn split(mut self, merge: Merge, parts: usize) -> Vec<Ticket> {
        let Ticket { route, tries, repeatable, writes, needs, caching, .. } = self;
        let (Some(line), number) = (self.duty.line().cloned(), self.order().0) else { return Vec::new() };
        let ticket =
            |duty| Ticket { duty, route, tries, replies_before: 0, repeatable, writes, needs, lesson: None, caching };
        let whole = ticket(std::mem::replace(&mut self.duty, Duty::Done));
        let gather = Rc::new(Gather {
            merge: RefCell::new(merge),
            whole: RefCell::new(Some(whole)),
            line: line.clone(),
            number,
        });
        line.open_tickets.set(line.open_tickets.get() + parts - 1);
        let part = |index| ticket(Duty::Part { gather: gather.clone(), index });
        let mut all: Vec<Ticket> = (0..parts as u32).map(part).collect();
        if let Some(first) = all.first_mut() {
            first.lesson = self.lesson.take();
        }
        all
    }

    /// Whether nobody waits for the answer any more.
    pub fn is_abandoned(&self) -> bool {
        self.duty.line().is_none_or(|line| line.state.borrow().closed)
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

    /// The place in the line, then the part.
    fn order(&self) -> (u64, u32) {
        match &self.duty {
            Duty::Place { number, .. } => (*number, 0),
            Duty::Part { gather, index } => (gather.number, *index),
            Duty::Done => (0, 0),
        }
    }

    fn fill_now(&mut self, reply: &[u8]) {
        let duty = std::mem::replace(&mut self.duty, Duty::Done);
        let Some(line) = duty.line().cloned() else { return };
        line.open_tickets.set(line.open_tickets.get() - 1);
        match duty {
            Duty::Place { number, .. } => line.fill(number, reply, true),
            Duty::Part { gather, index } => gather.take(index, reply),
            Duty::Done => {}
        }
        // A reply behind the front, or one part of many, shows nothing to the client; but what has bounced may have
        // waited for it.
        if line.only_bounces_left() {
            line.state.borrow_mut().wake();
        }
    }

    fn fail_now(&mut self, error: &str) {
        match &self.duty {
            Duty::Place { line, number } if line.has_begun(*number) => {
                line.break_off();
                self.fill_now(b"");
            }
            Duty::Done => {}
            _ => self.fill_now(&error_frame(error)),
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.fail_now("ERR proxy: the request was dropped unanswered, it may have run; please report this as a bug");
    }
}

impl Duty {
    fn line(&self) -> Option<&Rc<Line>> {
        match self {
            Duty::Place { line, .. } => Some(line),
            Duty::Part { gather, .. } => Some(&gather.line),
            Duty::Done => None,
        }
    }
}

impl Gather {
    fn take(&self, index: u32, reply: &[u8]) {
        self.line.touch(self.number);
        if !self.merge.borrow_mut().take(index as usize, reply) {
            return;
        }
        let mut merged = Vec::new();
        self.merge.borrow_mut().finish(&mut merged);
        let whole = self.whole.borrow_mut().take();
        if let Some(whole) = whole {
            // The parts' tickets stood for it until now.
            self.line.open_tickets.set(self.line.open_tickets.get() + 1);
            whole.fill(&merged);
        }
    }
}

fn error_frame(error: &str) -> Vec<u8> {
    let mut frame = Vec::with_capacity(error.len() + 3);
    write::error(&mut frame, error.as_bytes());
    frame
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{merge::Merge, metrics::Metrics};

    fn line() -> Rc<Line> {
        Line::new(Rc::new(Metrics::new().client_tally()), Rc::new(Clock::start()), 1024)
    }

    fn open(line: &Rc<Line>) -> Ticket {
        line.open(None, 10, Route::Any, true)
    }

    fn written(line: &Line) -> String {
        line.write_out(|bytes| (bytes.len(), String::from_utf8_lossy(bytes).into_owned()))
    }

    #[test]
    fn a_message_stands_behind_the_replies_that_came_before_it() {
        let line = line();
        line.push_behind(b"<1>");
        let (first, second, third) = (open(&line), open(&line), open(&line));
        line.push_behind(b"<2>");
        assert_eq!(written(&line), "<1><2>", "nothing has come that it could be about");
        second.fill(b"B");
        line.push_behind(b"<3>");
        line.push_behind(b"<4>");
        first.stream(b"a");
        line.push_behind(b"<5>");
        assert_eq!(written(&line), "a");
        first.fill(b"A");
        assert_eq!(written(&line), "AB<3><4><5>");
        third.stream(b"c");
        line.push_behind(b"<6>");
        let fourth = open(&line);
        assert_eq!(written(&line), "c");
        fourth.fill(b"D");
        line.push_behind(b"<7>");
        third.fill(b"C");
        assert_eq!((written(&line).as_str(), line.is_settled()), ("C<6>D<7>", true));
        assert_eq!(line.owed(), 0);
    }

    #[test]
    fn a_message_about_a_part_stands_behind_the_whole() {
        let line = line();
        let merge = Merge::new(crate::command::treatment::Fold::Sum, 2, None, false);
        let mut parts = open(&line).split(merge, 2);
        let next = open(&line);
        parts.remove(1).fill(b":1\r\n");
        line.push_behind(b"<1>");
        assert_eq!(written(&line), "");
        parts.remove(0).fill(b":2\r\n");
        next.fill(b"N");
        assert_eq!(written(&line), ":3\r\n<1>N");
    }

    #[test]
    fn everything_is_forgotten_once() {
        let line = line();
        let flush = || line.push_flush(b"<all>", true);
        flush();
        flush();
        assert_eq!(written(&line), "<all>");
        flush();
        assert_eq!(written(&line), "", "nothing has come since");
        let (first, second) = (open(&line), open(&line));
        second.fill(b"B");
        flush();
        flush();
        line.push_behind(b"<key>");
        flush();
        first.fill(b"A");
        assert_eq!(written(&line), "AB<all><key><all>");
        line.push_flush(b"<all>", false);
        line.push_flush(b"<all>", false);
        assert_eq!(written(&line), "<all>", "the client may have read elsewhere in between");
        line.push_flush(b"<all>", false);
        assert_eq!(written(&line), "<all>");
        open(&line).fill(b"A");
        flush();
        assert_eq!(written(&line), "A<all>");
    }
}
