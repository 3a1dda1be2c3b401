//! How often clients have asked for each command: exact at any moment, where series are brought up to date once a second.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use super::{
    command::{CommandId, MOST_COMMANDS},
    lock,
};

/// How a command's calls are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CallKind {
    /// Answered well.
    Well,
    /// Answered with an error.
    Failed,
    /// Answered with an error, and not carried out at all.
    Rejected,
    /// See [`CommandCalls::surplus`].
    Surplus,
}

const KINDS: usize = 4;

type Counts = [AtomicU64; KINDS];

/// What clients have asked for of one command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CommandCalls {
    /// Answered, well or with an error.
    pub answered: u64,
    /// Answered with an error.
    pub failed: u64,
    /// Answered with an error, and not carried out at all: the number of arguments was wrong, or the command not
    /// allowed.
    pub rejected: u64,
    /// Where it is split: how many more calls nodes have seen than clients have made. Else: answered (QUEUED), but never
    /// carried out.
    pub surplus: u64,
}

/// What one worker has counted since the start. Only the worker writes, so that counting takes no lock on the bus; all may
/// read.
pub(super) struct WorkerAsked(Box<[Counts]>);

impl WorkerAsked {
    #[inline]
    pub fn add(&self, command: CommandId, kind: CallKind, more: u64) {
        if let Some(counts) = self.0.get(usize::from(command.index())) {
            let count = &counts[kind as usize];
            count.store(count.load(Relaxed) + more, Relaxed);
        }
    }

    /// Answered well and with an error since the start, by the number of the command.
    pub fn answered(&self) -> impl Iterator<Item = (u16, [u64; 2])> {
        let of = |counts: &Counts| [CallKind::Well, CallKind::Failed].map(|kind| counts[kind as usize].load(Relaxed));
        self.0.iter().enumerate().map(move |(index, counts)| (index as u16, of(counts)))
    }
}

/// Counts by the number of the command.
pub type Snapshot = Vec<[u64; KINDS]>;

/// What all workers have counted.
#[derive(Default)]
pub(super) struct AllAsked {
    workers: Mutex<Vec<Arc<WorkerAsked>>>,
    /// What was counted before the last reset (CONFIG RESETSTAT), and is told no more.
    before: Mutex<Snapshot>,
}

impl AllAsked {
    pub fn worker(&self) -> Arc<WorkerAsked> {
        let worker = Arc::new(WorkerAsked((0..MOST_COMMANDS).map(|_| Counts::default()).collect()));
        lock(&self.workers).push(worker.clone());
        worker
    }

    /// Since the start.
    pub fn ever(&self, command: CommandId) -> CommandCalls {
        asked(self.sums(command))
    }

    /// Since the last reset.
    pub fn of(&self, command: CommandId) -> CommandCalls {
        let mut sums = self.sums(command);
        if let Some(before) = lock(&self.before).get(usize::from(command.index())) {
            sums.iter_mut().zip(before).for_each(|(sum, before)| *sum = sum.saturating_sub(*before));
        }
        asked(sums)
    }

    pub fn snapshot(&self) -> Snapshot {
        (0..MOST_COMMANDS as u16).map(|index| self.sums(CommandId(index))).collect()
    }

    pub fn reset_to(&self, snapshot: Snapshot) {
        *lock(&self.before) = snapshot;
    }

    fn sums(&self, command: CommandId) -> [u64; KINDS] {
        let mut sums = [0; KINDS];
        for worker in &*lock(&self.workers) {
            let Some(counts) = worker.0.get(usize::from(command.index())) else { continue };
            sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count.load(Relaxed));
        }
        sums
    }
}

fn asked([well, failed, rejected, surplus]: [u64; KINDS]) -> CommandCalls {
    CommandCalls { answered: well + failed, failed, rejected, surplus }
}
