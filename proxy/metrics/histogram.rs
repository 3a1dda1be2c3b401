//! Durations counted by size: locally by each worker, exactly, and added up once a second.

use std::{
    cell::{Cell, RefCell},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

/// The buckets' upper bounds in microseconds, from what a request on one machine takes to the default request timeout
/// and beyond; what is longer goes into one more bucket.
pub const BOUNDS_MICROS: [u64; 16] = [
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000,
];

/// The same in nanoseconds.
const BOUNDS_NANOS: [u64; BOUNDS_MICROS.len()] = {
    let (mut bounds, mut at) = (BOUNDS_MICROS, 0);
    while at < bounds.len() {
        bounds[at] *= 1_000;
        at += 1;
    }
    bounds
};

/// The buckets, the unbounded one last.
type Buckets<T> = [T; BOUNDS_MICROS.len() + 1];

/// How many durations there were in each bucket.
pub type Counts = Buckets<u64>;

/// One worker's durations since the last publication.
#[derive(Debug, Default)]
pub(super) struct LocalHistogram {
    counts: RefCell<Buckets<u32>>,
    nanos: Cell<u64>,
}

impl LocalHistogram {
    pub(super) fn observe(&self, took: Duration) {
        if took.is_zero() {
            self.counts.borrow_mut()[0] += 1;
            return;
        }
        let nanos = match took.as_secs() {
            0 => u64::from(took.subsec_nanos()),
            secs => secs.saturating_mul(1_000_000_000).saturating_add(u64::from(took.subsec_nanos())),
        };
        // Most are short: by halves it would take longer.
        let bucket = BOUNDS_NANOS.iter().position(|bound| nanos <= *bound).unwrap_or(BOUNDS_NANOS.len());
        if let Some(count) = self.counts.borrow_mut().get_mut(bucket) {
            *count = count.saturating_add(1);
        }
        self.nanos.set(self.nanos.get().saturating_add(nanos));
    }

    pub(super) fn publish(&self, shared: &SharedHistogram) {
        for (count, total) in self.counts.borrow_mut().iter_mut().zip(&shared.counts) {
            if *count > 0 {
                total.fetch_add(u64::from(std::mem::take(count)), Relaxed);
            }
        }
        shared.nanos.fetch_add(self.nanos.take(), Relaxed);
    }
}

/// All workers' durations.
#[derive(Debug, Default)]
pub struct SharedHistogram {
    counts: Buckets<AtomicU64>,
    nanos: AtomicU64,
}

impl SharedHistogram {
    /// Counts one duration at once: for what is rare and has no worker.
    pub fn observe(&self, took: Duration) {
        let local = LocalHistogram::default();
        local.observe(took);
        local.publish(self);
    }

    /// How many there are in each bucket.
    pub(super) fn counts(&self) -> Counts {
        std::array::from_fn(|at| self.counts[at].load(Relaxed))
    }

    /// Their sum in seconds.
    pub(super) fn seconds(&self) -> f64 {
        self.nanos.load(Relaxed) as f64 / 1e9
    }
}

/// How many durations there are in each bucket of all of these.
pub(super) fn sum(all: &[Arc<SharedHistogram>]) -> Counts {
    let mut sum = Counts::default();
    for one in all {
        sum.iter_mut().zip(one.counts()).for_each(|(sum, count)| *sum += count);
    }
    sum
}
