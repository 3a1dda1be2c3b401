//! State of the request at the front of the input, which may be dispatched several times before it goes.

use tokio::sync::OwnedSemaphorePermit;

use super::{gate::Stop, permission::Judgment};

/// What is known of the request at the front of the input, and what it has been given.
#[derive(Default)]
pub(super) struct Front {
    /// What a node has said of it.
    pub(super) judgment: Option<Judgment>,
    /// Why it goes no further, where its client works as a user of the proxy's own.
    pub(super) stop: Option<Stop>,
    /// The request has its place among the requests whose replies may be large; or it has waited too long, and goes
    /// without.
    place: Option<Option<OwnedSemaphorePermit>>,
    /// Where the request ends that was counted last, in bytes from the first that the client has sent.
    counted: u64,
    /// How many bytes were read behind it.
    behind: usize,
}

impl Front {
    /// Whether the request has its place, or goes without one.
    pub(super) fn has_place(&self) -> bool {
        self.place.is_some()
    }

    /// How many bytes were read behind the request.
    pub(super) fn behind(&self) -> usize {
        self.behind
    }

    /// So many bytes were read behind the request.
    pub(super) fn set_behind(&mut self, behind: usize) {
        self.behind = behind;
    }

    /// Whether the request is to be counted: it has not been, though it may have been here before. The client has sent
    /// `received` bytes.
    pub(super) fn is_counted_first(&mut self, received: u64) -> bool {
        let end = received.saturating_sub(self.behind as u64);
        std::mem::replace(&mut self.counted, end) != end
    }

    /// The request has its place, or goes without.
    pub(super) fn give_place(&mut self, place: Option<OwnedSemaphorePermit>) {
        self.place = Some(place);
    }

    /// The place goes with the request that is being dispatched.
    pub(super) fn take_place(&mut self) -> Option<OwnedSemaphorePermit> {
        self.place.take().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_comes_again_is_counted_once() {
        let mut front = Front::default();
        front.set_behind(20);
        assert!(front.is_counted_first(100) && !front.is_counted_first(100), "dispatched anew");
        assert!(!front.is_counted_first(100));
        front.set_behind(0);
        assert!(front.is_counted_first(100), "the next one");
        front.set_behind(30);
        assert!(!front.is_counted_first(130), "more has come behind it");
    }

    #[test]
    fn a_place_is_taken_once_and_may_be_none() {
        let mut front = Front::default();
        assert!(!front.has_place() && front.take_place().is_none());
        front.give_place(None);
        assert!(front.has_place(), "it has waited long enough, and goes without");
        assert!(front.take_place().is_none() && !front.has_place());
    }
}
