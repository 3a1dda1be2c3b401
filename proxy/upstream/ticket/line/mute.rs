//! Which replies the client does not want (CLIENT REPLY, RESET).

use std::cell::Cell;

/// What the client has said of its replies.
#[derive(Default)]
pub struct Mute(Cell<Unwanted>);

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Unwanted {
    #[default]
    None,
    Next,
    All,
}

impl Mute {
    /// The client wants all.
    pub fn off(&self) {
        self.0.set(Unwanted::None);
    }

    /// The client wants none from now on.
    pub fn all(&self) {
        self.0.set(Unwanted::All);
    }

    /// The client does not want the reply to its next request.
    pub fn next(&self) {
        if self.0.get() == Unwanted::None {
            self.0.set(Unwanted::Next);
        }
    }

    /// The client starts anew: it wants replies again, if it wanted none. What it wants no next reply for stays so.
    pub fn reset(&self) {
        if self.0.get() == Unwanted::All {
            self.0.set(Unwanted::None);
        }
    }

    /// Whether the reply to the request that comes now is not for the client.
    pub fn take(&self) -> bool {
        let unwanted = self.0.get();
        if unwanted == Unwanted::Next {
            self.0.set(Unwanted::None);
        }
        unwanted != Unwanted::None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_does_not_want_is_the_next_reply_or_all() {
        let mute = Mute::default();
        let taken = || [mute.take(), mute.take()];
        assert_eq!(taken(), [false, false]);
        mute.next();
        mute.reset();
        assert_eq!(taken(), [true, false], "RESET leaves SKIP");
        mute.all();
        mute.next();
        assert_eq!(taken(), [true, true], "SKIP changes nothing where all are off");
        mute.reset();
        assert_eq!(taken(), [false, false]);
        mute.all();
        mute.off();
        assert_eq!(taken(), [false, false]);
    }
}
