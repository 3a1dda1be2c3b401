//! The time that a worker's sessions and links share.

use std::{cell::Cell, time::Instant};

/// The worker's time, read once per batch of work instead of once per request.
#[derive(Debug)]
pub struct Clock(Cell<Instant>);

impl Clock {
    /// A clock that shows the present.
    pub fn start() -> Clock {
        Clock(Cell::new(present()))
    }

    /// Reads the time anew.
    pub fn tick(&self) -> Instant {
        self.0.set(present());
        self.0.get()
    }

    /// The time of the last [`Clock::tick`].
    pub fn now(&self) -> Instant {
        self.0.get()
    }
}

/// The runtime's time, which a unit test may pause.
fn present() -> Instant {
    tokio::time::Instant::now().into_std()
}
