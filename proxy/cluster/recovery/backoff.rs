//! How long something that failed is left alone.

use std::time::Duration;

/// Pauses, each twice as long as the one before, up to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    next: Duration,
    last: Duration,
}

impl Backoff {
    /// From the `first` pause to the `last`.
    pub const fn new(first: Duration, last: Duration) -> Backoff {
        Backoff { first, next: first, last }
    }

    /// The pause that is due now; the next one is longer.
    pub fn pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(self.last);
        pause
    }

    /// What had failed went well: the next pause is the first again.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_last() {
        let millis = |pause: Duration| pause.as_millis();
        let mut backoff = Backoff::new(Duration::from_millis(20), Duration::from_millis(100));
        let pauses: Vec<_> = (0..5).map(|_| millis(backoff.pause())).collect();
        assert_eq!(pauses, [20, 40, 80, 100, 100]);
        backoff.reset();
        assert_eq!(millis(backoff.pause()), 20);
    }
}
