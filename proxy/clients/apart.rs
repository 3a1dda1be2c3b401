//! Whether clients are paused or anybody monitors: one atomic word, since every request asks.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

const PAUSED: usize = 1;
const MONITOR: usize = 2;

/// The lowest bit says that clients are paused; above it is counted how many monitor.
#[derive(Debug, Default)]
pub(super) struct Apart(AtomicUsize);

impl Apart {
    #[inline]
    pub fn is_any(&self) -> bool {
        self.0.load(Relaxed) != 0
    }

    #[inline]
    pub fn is_paused(&self) -> bool {
        self.0.load(Relaxed) & PAUSED != 0
    }

    #[inline]
    pub fn is_monitored(&self) -> bool {
        self.0.load(Relaxed) >= MONITOR
    }

    pub fn pause(&self, on: bool) {
        if on {
            self.0.fetch_or(PAUSED, Relaxed);
        } else {
            self.0.fetch_and(!PAUSED, Relaxed);
        }
    }

    /// One more monitors, or one fewer.
    pub fn monitors(&self, one_more: bool) {
        if one_more {
            self.0.fetch_add(MONITOR, Relaxed);
        } else {
            self.0.fetch_sub(MONITOR, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_and_monitors_do_not_touch_each_other() {
        let apart = Apart::default();
        let seen = || (apart.is_any(), apart.is_paused(), apart.is_monitored());
        assert_eq!(seen(), (false, false, false));
        apart.monitors(true);
        apart.pause(true);
        apart.pause(true);
        apart.monitors(true);
        assert_eq!(seen(), (true, true, true));
        apart.pause(false);
        apart.monitors(false);
        assert_eq!(seen(), (true, false, true));
        apart.monitors(false);
        apart.pause(true);
        assert_eq!(seen(), (true, true, false));
    }
}
