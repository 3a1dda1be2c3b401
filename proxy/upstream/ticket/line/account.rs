//! What the line holds for its client.

use super::{Line, state::GATHERED_STEP};
use crate::clients::Usage;

impl Line {
    /// Bytes that the client is owed.
    pub fn owed(&self) -> usize {
        self.state.borrow().owed()
    }

    /// Bytes of parts that are to become replies.
    pub fn gathered(&self) -> usize {
        self.state.borrow().gathered
    }

    /// What is held for the client here.
    pub fn usage(&self) -> Usage {
        let state = self.state.borrow();
        Usage {
            output: state.out.len(),
            output_capacity: state.out.capacity(),
            output_peak: state.peak.0,
            peak_until: state.peak.1,
            parked: state.parked + state.pushes.len() + state.gathered,
            waiting: state.waiting,
            ..Usage::default()
        }
    }

    /// Whether the line holds nothing but room for replies, and that is of the shape that [`Line::shape`] told.
    #[inline]
    pub fn rests_in(&self, shape: u32) -> bool {
        let state = self.state.borrow();
        state.owed() + state.gathered + state.bounced.len() == 0 && state.shape == shape
    }

    /// Another number whenever the room for replies, or the most that there was of them of late, has become another.
    pub fn shape(&self) -> u32 {
        self.state.borrow().shape
    }

    /// A part has `new` bytes instead of `old`. The session hears of it at times, to keep its account.
    pub(in crate::upstream::ticket) fn gather(&self, old: usize, new: usize) {
        let state = &mut *self.state.borrow_mut();
        let steps = state.gathered / GATHERED_STEP;
        state.gathered = (state.gathered + new).saturating_sub(old);
        if state.gathered / GATHERED_STEP > steps {
            state.wake();
        }
    }

    /// Bytes of the requests that wait for their replies.
    pub fn asked(&self) -> usize {
        self.state.borrow().asked
    }

    /// Bytes of these that are ready, and that the client's socket has not taken.
    pub fn unwritten(&self) -> usize {
        self.state.borrow().out.len()
    }
}
