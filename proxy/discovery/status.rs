//! How discovery fares, for operators and metrics.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use super::Hint;
use crate::address::Address;

/// What brought a refresh about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Trigger {
    /// The start.
    Start,
    /// Time.
    Periodic,
    /// A MOVED.
    Moved,
    /// A node that cannot be connected to.
    ConnectFailed,
    /// A node that does not answer.
    Timeout,
    /// A CLUSTERDOWN.
    ClusterDown,
    /// A READONLY.
    Readonly,
    /// Slots without an owner, or nobody to ask.
    Uncovered,
}

impl Trigger {
    /// All of them, to register their series.
    pub const ALL: [Trigger; 8] = [
        Trigger::Start,
        Trigger::Periodic,
        Trigger::Moved,
        Trigger::ConnectFailed,
        Trigger::Timeout,
        Trigger::ClusterDown,
        Trigger::Readonly,
        Trigger::Uncovered,
    ];

    /// The value of the metric label `trigger`.
    pub fn label(self) -> &'static str {
        match self {
            Trigger::Start => "start",
            Trigger::Periodic => "periodic",
            Trigger::Moved => "moved",
            Trigger::ConnectFailed => "connect_failed",
            Trigger::Timeout => "timeout",
            Trigger::ClusterDown => "clusterdown",
            Trigger::Readonly => "readonly",
            Trigger::Uncovered => "uncovered",
        }
    }

    pub(super) fn of(hint: &Hint) -> Trigger {
        match hint {
            Hint::Moved { .. } => Trigger::Moved,
            Hint::ConnectFailed { .. } => Trigger::ConnectFailed,
            Hint::Timeout { .. } => Trigger::Timeout,
            Hint::ClusterDown => Trigger::ClusterDown,
            Hint::Readonly { .. } => Trigger::Readonly,
            Hint::Uncovered { .. } => Trigger::Uncovered,
        }
    }
}

/// What came of a refresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// A new snapshot.
    Changed,
    /// Nothing new.
    Same,
    /// News, but a node in it has yet to be found.
    Waiting,
    /// Only views older than what is known.
    Stale,
    /// Nobody answered.
    Failed,
}

impl Outcome {
    /// All of them, to register their series.
    pub const ALL: [Outcome; 5] = [Outcome::Changed, Outcome::Same, Outcome::Waiting, Outcome::Stale, Outcome::Failed];

    /// The value of the metric label `outcome`.
    pub fn label(self) -> &'static str {
        match self {
            Outcome::Changed => "changed",
            Outcome::Same => "same",
            Outcome::Waiting => "waiting",
            Outcome::Stale => "stale",
            Outcome::Failed => "failed",
        }
    }
}

/// One refresh, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refresh {
    /// What brought it about.
    pub trigger: Trigger,
    /// What came of it.
    pub outcome: Outcome,
    /// How long it took.
    pub took: Duration,
}

/// How discovery fares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Who answered last.
    pub asked: Vec<Address>,
    /// When somebody last answered.
    pub last_success: Option<SystemTime>,
    /// When and why nobody answered; `None` once somebody has.
    pub last_failure: Option<(SystemTime, String)>,
    /// How long the last refresh took.
    pub last_took: Duration,
    /// How many refreshes there were.
    pub refreshes: BTreeMap<(Trigger, Outcome), u64>,
    /// Nodes that are not dialled where they announce.
    pub mapped: Vec<Mapping>,
    /// Two nodes that are dialled at one address, in a sentence.
    pub clash: Option<String>,
}

/// A node that is not dialled where it announces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// The node id.
    pub id: String,
    /// What it announces.
    pub announced: Address,
    /// What is dialled.
    pub reach: Address,
    /// How that was found, in words.
    pub how: &'static str,
}

impl Mapping {
    /// The rule that pins it.
    pub fn rule(&self) -> String {
        format!("{}={}", self.announced, self.reach)
    }
}
