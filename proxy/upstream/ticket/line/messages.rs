//! Messages that answer nothing, and their places among the replies.

use super::Line;

impl Line {
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
}
