//! Waiting for a condition, never for a time.

use std::{
    thread,
    time::{Duration, Instant},
};

/// How often a condition is looked at.
const STEP: Duration = Duration::from_millis(10);

/// The first `Some` of `look`; panics with `what` where it has not come within `patience`.
#[track_caller]
pub fn until<T>(what: &str, patience: Duration, look: impl FnMut() -> Option<T>) -> T {
    until_by(STEP, what, patience, look)
}

/// As [`until`], but looks only so often: where looking costs a process.
#[track_caller]
pub fn until_by<T>(step: Duration, what: &str, patience: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + patience;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "waited {patience:?} for: {what}");
        thread::sleep(step);
    }
}

/// Waits until `holds`, for ten seconds at most.
#[track_caller]
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    until(what, Duration::from_secs(10), || holds().then_some(()));
}
