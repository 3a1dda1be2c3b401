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
pub fn until_by<T>(step: Duration, what: &str, patience: Duration, look: impl FnMut() -> Option<T>) -> T {
    wait(step, || what.to_owned(), patience, look)
}

/// As [`until`], where what is to be told of a failure takes some asking.
#[track_caller]
pub fn until_or<T>(what: impl FnOnce() -> String, patience: Duration, look: impl FnMut() -> Option<T>) -> T {
    wait(STEP, what, patience, look)
}

#[track_caller]
fn wait<T>(
    step: Duration,
    what: impl FnOnce() -> String,
    patience: Duration,
    mut look: impl FnMut() -> Option<T>,
) -> T {
    let end = Instant::now() + patience;
    loop {
        if let Some(found) = look() {
            return found;
        }
        if Instant::now() >= end {
            panic!("waited {patience:?} for: {}", what());
        }
        thread::sleep(step);
    }
}

/// Waits until `holds`, for ten seconds at most.
#[track_caller]
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    until(what, Duration::from_secs(10), || holds().then_some(()));
}
