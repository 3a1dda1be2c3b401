//! What the request at the front of the input has been given ahead of being dispatched: it may be dispatched more than once
//! before it goes.

use tokio::sync::OwnedSemaphorePermit;

use super::{gate::Stop, permission::Judgment};

/// What has been found out about the request at the front of the input.
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
}

impl Front {
    /// Whether nothing keeps it, as far as the size of its reply is concerned.
    pub(super) fn has_place(&self) -> bool {
        self.place.is_some()
    }

    /// Whether the request is to be counted: it has not been, though it may have been here before. The client has sent
    /// `received` bytes, so many of them behind it.
    pub(super) fn is_counted_first(&mut self, received: u64, behind: usize) -> bool {
        let end = received.saturating_sub(behind as u64);
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
