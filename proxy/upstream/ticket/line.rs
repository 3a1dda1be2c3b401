//! The line itself: places are opened at its end, filled in any order, and read from its front.

mod account;
mod messages;
mod state;

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    task::Waker,
    time::Instant,
};

use bytes::BytesMut;

use self::state::{FIRST_WINDOW, KEPT_OUTPUT, KEPT_PLACES, LineState, Place};
pub use self::state::{ReplyFilter, ReplySize};
use super::{Bounced, Clock, Duty, Envelope, Label, Ticket, writes::Writes};
use crate::{
    cluster::topology::{Node, Route},
    metrics::ClientTally,
    protocol::slot::Slot,
    upstream::doubt::Doubts,
};

/// Bytes that a client may be owed before no more of its requests are read: the bound of a slow reader's cost.
pub const OWED_LIMIT: usize = 1024 * 1024;

/// The ordered reply places of one session.
pub struct Line {
    state: RefCell<LineState>,
    tally: Rc<ClientTally>,
    clock: Rc<Clock>,
    most_in_flight: Cell<usize>,
    /// Tickets that still have to be used, those of bounced requests included.
    pub(super) open_tickets: Cell<usize>,
    /// Where its client has written.
    pub writes: Writes,
    /// What was given up and may still run.
    pub doubts: Rc<Doubts>,
    /// The id of the client whose line it is; 0: it is nobody's.
    pub client: Cell<u64>,
}

impl Line {
    /// An empty line, for a client that may have `most_in_flight` requests on their way.
    pub fn new(tally: Rc<ClientTally>, clock: Rc<Clock>, most_in_flight: usize) -> Rc<Line> {
        Line::of(tally, clock, most_in_flight, Rc::default())
    }

    /// As [`Line::new`], for a client that may have had to give something up.
    pub fn of(tally: Rc<ClientTally>, clock: Rc<Clock>, most_in_flight: usize, doubts: Rc<Doubts>) -> Rc<Line> {
        let state = LineState { window: FIRST_WINDOW.min(most_in_flight), ..LineState::default() };
        Rc::new(Line {
            state: RefCell::new(state),
            tally,
            clock,
            most_in_flight: Cell::new(most_in_flight),
            open_tickets: Cell::new(0),
            writes: Writes::default(),
            doubts,
            client: Cell::new(0),
        })
    }

    /// Opens the next place, for a request of `request_bytes` that goes to `route`.
    pub fn open(self: &Rc<Line>, label: Option<Label>, request_bytes: usize, route: Route) -> Ticket {
        self.open_through(ReplyFilter::default(), label, request_bytes, route)
    }

    /// As [`Line::open`], for a reply that goes through a filter on its way to the client.
    #[inline]
    pub fn open_through(
        self: &Rc<Line>,
        ReplyFilter { is_unwanted, strip }: ReplyFilter,
        label: Option<Label>,
        request_bytes: usize,
        route: Route,
    ) -> Ticket {
        let state = &mut *self.state.borrow_mut();
        let place = Place {
            reply: state.spare.pop().unwrap_or_default(),
            length: 0,
            whole: false,
            touched: false,
            failed: false,
            is_unwanted,
            strip,
            request_bytes: u32::try_from(request_bytes).unwrap_or(u32::MAX),
            route,
            opened: self.clock.now(),
            label,
        };
        state.asked += place.request_bytes as usize;
        state.places.push_back(place);
        let number = state.front + state.places.len() as u64 - 1;
        self.open_tickets.set(self.open_tickets.get() + 1);
        Ticket { duty: Duty::Place { line: self.clone(), number } }
    }

    /// Gives the client a whole reply: in its turn behind those that are still on their way.
    pub fn answer(&self, reply: &[u8]) {
        let state = &mut *self.state.borrow_mut();
        if state.closed {
            return;
        }
        state.flushed = false;
        if state.places.is_empty() {
            state.out.extend_from_slice(reply);
        } else {
            let mut buffer = state.spare.pop().unwrap_or_default();
            buffer.extend_from_slice(reply);
            state.parked += buffer.len();
            state.waiting += usize::from(!buffer.is_empty());
            state.places.push_back(Place::answered(buffer, self.clock.now()));
        }
    }

    /// A node has executed a request that may write.
    pub fn wrote(&self, node: &Arc<Node>) {
        self.writes.note(node, || self.clock.now());
    }

    /// From now on its client may have so many requests on their way.
    pub fn allow(&self, most_in_flight: usize) {
        self.most_in_flight.set(most_in_flight);
        let window = &mut self.state.borrow_mut().window;
        *window = most_in_flight.min(*window);
    }

    /// Whether the next request must wait: too much is on its way or owed.
    pub fn is_full(&self) -> bool {
        let state = self.state.borrow();
        state.places.len() >= state.window || state.owed() + state.asked >= OWED_LIMIT
    }

    /// The number of the place that is opened next; those of a lower one than [`Line::front`] have been answered.
    pub fn next(&self) -> u64 {
        let state = self.state.borrow();
        state.front + state.places.len() as u64
    }

    /// The number of the first place that has not been answered, or of the next one.
    pub fn front(&self) -> u64 {
        self.state.borrow().front
    }

    /// What the client's replies have been like.
    pub fn reply_size(&self) -> ReplySize {
        self.state.borrow().reply_size
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

    /// Whether something that the client sent behind a request has run, so that the request must not run any more: each
    /// would find what the other should have found.
    pub fn has_overtaken(&self, envelope: &Envelope) -> bool {
        let state = self.state.borrow();
        let number = envelope.ticket.place();
        envelope.slot().is_some_and(|slot| state.ran_behind(number, slot, !envelope.traits.repeatable))
    }

    /// Whether something that the client sent behind a request which only reads has run and may have written in `slot`.
    pub fn ran_behind(&self, ticket: &Ticket, slot: Slot) -> bool {
        self.state.borrow().ran_behind(ticket.place(), slot, false)
    }

    /// Takes the bounced requests, in the order of their places.
    pub fn take_bounced(&self) -> Vec<Bounced> {
        let mut bounced = std::mem::take(&mut self.state.borrow_mut().bounced);
        bounced.sort_by_key(|bounced| bounced.envelope.ticket.order());
        bounced
    }

    /// Lets go of parts that nobody waits for any more.
    pub(super) fn forget_what_is_over(&self) {
        let over = {
            let bounced = &mut self.state.borrow_mut().bounced;
            let (over, left) =
                std::mem::take(bounced).into_iter().partition(|one: &Bounced| one.envelope.ticket.is_over());
            *bounced = left;
            over
        };
        // Their tickets borrow the line again when they are dropped.
        drop::<Vec<Bounced>>(over);
    }

    /// Who is to be woken when next there is something to write or to send again. To be called at the end of a turn:
    /// what happens within the turn needs no waking.
    #[inline]
    pub fn wake_with(&self, waker: &Waker) {
        self.state.borrow().waking.listen(waker);
    }

    /// The session is at work.
    pub fn awake(&self) {
        self.state.borrow().waking.is_at_work();
    }

    /// Whether no reply is waiting to be written.
    pub fn nothing_to_write(&self) -> bool {
        self.state.borrow().out.is_empty()
    }

    /// Lets `write` take bytes from the front of the output; it says how many it took.
    pub fn write_out<T>(&self, write: impl FnOnce(&[u8]) -> (usize, T)) -> T {
        let state = &mut *self.state.borrow_mut();
        state.note_peak(self.clock.now());
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
        state.note_room();
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
            state.note_room();
            state.pushes = BytesMut::new();
            std::mem::take(&mut state.bounced)
        };
        // Their tickets borrow the line again when they are dropped.
        drop(bounced);
    }

    /// Adds bytes to a place's reply, its last ones where `last` is set.
    pub(super) fn fill(&self, number: u64, bytes: &[u8], last: bool) {
        let state = &mut *self.state.borrow_mut();
        let Some(index) = number.checked_sub(state.front).map(|index| index as usize) else { return };
        let Some(place) = state.places.get_mut(index) else { return };
        if place.length == 0 {
            place.failed = matches!(bytes.first(), Some(b'-' | b'!'));
        }
        place.length += bytes.len();
        let stripped = place.strip.as_mut().map(|strip| strip.feed(bytes));
        let bytes = stripped.as_deref().unwrap_or(bytes);
        place.whole = last;
        place.touched = true;
        state.flushed = false;
        if !place.is_unwanted && !state.closed {
            if index == 0 {
                state.out.extend_from_slice(bytes);
            } else {
                state.waiting += usize::from(place.reply.is_empty() && !bytes.is_empty());
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
    pub(super) fn touch(&self, number: u64) {
        let state = &mut *self.state.borrow_mut();
        let index = number.checked_sub(state.front).map(|index| index as usize);
        if let Some(place) = index.and_then(|index| state.places.get_mut(index)) {
            place.touched = true;
        }
    }

    /// Moves on over the places that are whole, and shows what the new front has of its reply.
    fn advance(&self, state: &mut LineState) {
        let now = self.clock.now();
        while state.places.front().is_some_and(|place| place.whole) {
            let Some(mut place) = state.places.pop_front() else { break };
            state.front += 1;
            state.asked -= place.request_bytes as usize;
            state.take_parked(&mut place.reply);
            if place.label.is_some() {
                state.learn_size(place.length, self.most_in_flight.get());
            }
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
        } else if state.places.capacity() > KEPT_PLACES {
            state.places.shrink_to(FIRST_WINDOW);
        }
    }

    /// A request has come back unexecuted.
    pub(super) fn give_back(&self, bounced: Bounced) {
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

    /// A place's reply cannot be finished: nothing but closing the connection keeps the client in step, where the reply
    /// is for the client at all. Nothing may follow, which the client would take for the rest of that reply.
    pub(super) fn break_off(&self, number: u64) {
        let state = &mut *self.state.borrow_mut();
        let index = number.checked_sub(state.front).map(|index| index as usize);
        state.broken |= index.and_then(|index| state.places.get(index)).is_some_and(|place| !place.is_unwanted);
        if state.broken {
            state.closed = true;
            state.pushes = BytesMut::new();
        }
        state.wake();
    }

    /// Whether the front of a place's reply has come.
    pub(super) fn has_begun(&self, number: u64) -> bool {
        let state = self.state.borrow();
        let index = number.checked_sub(state.front).map(|index| index as usize);
        index.and_then(|index| state.places.get(index)).is_some_and(|place| place.length > 0)
    }

    /// When the request of a place came.
    pub(super) fn opened(&self, number: u64) -> Option<Instant> {
        let state = self.state.borrow();
        let index = number.checked_sub(state.front).map(|index| index as usize);
        index.and_then(|index| state.places.get(index)).map(|place| place.opened)
    }

    /// Whether the client has gone.
    pub(super) fn is_closed(&self) -> bool {
        self.state.borrow().closed
    }

    /// There is something for the session to do.
    pub(super) fn wake(&self) {
        self.state.borrow_mut().wake();
    }
}

#[cfg(test)]
mod tests;
