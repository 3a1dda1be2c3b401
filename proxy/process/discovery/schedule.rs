//! When the cluster is looked at anew: at an interval, sooner where something seems to have changed, and never in a rush.
//! No I/O and no clock: what happens is put in with its time.

use std::time::Duration;

use tokio::time::Instant;

use super::random;
use crate::metrics::Trigger;

/// The least time between two surveys. It doubles while hints keep coming.
pub const GAP: Duration = Duration::from_millis(150);
/// The most time that hints have to wait: what bounds how long a promoted replica stays unknown.
const LONGEST_GAP: Duration = Duration::from_millis(500);
/// Surveys further apart than this do not make the gap grow.
pub const CALM: Duration = Duration::from_secs(2);
/// Time between surveys while slots are uncovered or nobody answers: a cluster that forms is to be served within a second.
const UNEASY_INTERVAL: Duration = Duration::from_millis(500);
/// Time between surveys for a while after a change, and while a node is nowhere to be found or held for failing: the nodes
/// themselves take a moment to agree.
const WATCHFUL_INTERVAL: Duration = Duration::from_secs(1);
/// How long a change is watched.
const SETTLING: Duration = Duration::from_secs(3);
/// How long a change is watched that has left a primary without slots: most likely it is a replica of which the nodes have
/// not all heard yet.
const SLOW_SETTLING: Duration = Duration::from_secs(20);

/// When the next survey is due, and why.
#[derive(Debug)]
pub struct Schedule {
    /// Time between surveys where all is well.
    interval: Duration,
    next: (Instant, Trigger),
    last_survey: Option<Instant>,
    last_change: Option<Instant>,
    /// How many surveys in a row came within [`CALM`] of the one before.
    rush: u32,
}

/// What a survey has found.
#[derive(Clone, Copy, Debug)]
pub enum Found {
    /// Nobody answered, or not all slots are served; why it is to be looked again.
    Trouble(Trigger),
    /// All is served, and a node is nowhere to be found, or held for failing.
    Failing,
    /// All is served; whether a primary has no slots.
    Well {
        /// Some primary has none.
        idle_primary: bool,
    },
}

impl Schedule {
    /// The first survey is due at once.
    pub fn new(interval: Duration, now: Instant) -> Schedule {
        Schedule { interval, next: (now, Trigger::Start), last_survey: None, last_change: None, rush: 0 }
    }

    /// When the next survey is due.
    pub fn due(&self) -> Instant {
        self.next.0
    }

    /// A survey begins now: why.
    pub fn begin(&mut self, now: Instant) -> Trigger {
        let is_hard_on = self.last_survey.is_some_and(|last| now - last < CALM);
        self.rush = if is_hard_on { self.rush + 1 } else { 0 };
        self.last_survey = Some(now);
        std::mem::replace(&mut self.next, (now + jittered(self.interval), Trigger::Interval)).1
    }

    /// Something seems to have changed: brings the next survey forward, as far as the gap allows.
    pub fn hurry(&mut self, trigger: Trigger, now: Instant) {
        let gap = (GAP * (1 << self.rush.min(4))).min(LONGEST_GAP);
        let due = self.last_survey.map_or(now, |last| last + jittered(gap)).max(now);
        self.bring_forward(due, trigger);
    }

    /// The layout has changed.
    pub fn changed(&mut self, now: Instant) {
        self.last_change = Some(now);
        self.look_again(WATCHFUL_INTERVAL, Trigger::Interval, now);
    }

    /// A survey has come to its end.
    pub fn surveyed(&mut self, found: Found, now: Instant) {
        match found {
            Found::Trouble(why) => self.look_again(UNEASY_INTERVAL, why, now),
            Found::Failing => self.look_again(WATCHFUL_INTERVAL, Trigger::Interval, now),
            Found::Well { idle_primary } => {
                let settling = if idle_primary { SLOW_SETTLING } else { SETTLING };
                if self.last_change.is_some_and(|change| now - change < settling) {
                    self.look_again(WATCHFUL_INTERVAL, Trigger::Interval, now);
                }
            }
        }
    }

    fn look_again(&mut self, after: Duration, trigger: Trigger, now: Instant) {
        self.bring_forward(now + jittered(after.min(self.interval)), trigger);
    }

    fn bring_forward(&mut self, due: Instant, trigger: Trigger) {
        if due < self.next.0 {
            self.next = (due, trigger);
        }
    }
}

/// A time of about this length, so that many proxies do not ask at once: 10 % more or less.
fn jittered(time: Duration) -> Duration {
    time.mul_f64(0.9 + 0.2 * (random() % 1024) as f64 / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(10);

    /// That the next survey is due about so long after `now`, and why.
    fn assert_due(schedule: &Schedule, now: Instant, after: Duration, why: Trigger) {
        let (due, trigger) = (schedule.due() - now, schedule.next.1);
        let range = after.mul_f64(0.9)..=after.mul_f64(1.1);
        assert!(range.contains(&due) && trigger == why, "{trigger:?} in {due:?}, not {why:?} in {after:?}");
    }

    /// A schedule whose last survey began now, long after the one before.
    fn begun(now: Instant) -> Schedule {
        let mut schedule = Schedule::new(INTERVAL, now);
        assert_eq!((schedule.due(), schedule.begin(now)), (now, Trigger::Start));
        assert_due(&schedule, now, INTERVAL, Trigger::Interval);
        schedule
    }

    #[test]
    fn a_hint_comes_at_once_but_never_within_the_gap_of_the_last_survey() {
        let now = Instant::now();
        let mut schedule = begun(now);
        schedule.hurry(Trigger::Moved, now);
        assert_due(&schedule, now, GAP, Trigger::Moved);
        let due = schedule.due();
        schedule.hurry(Trigger::Timeout, now + GAP / 2);
        assert!(schedule.due() <= due, "it is never put off");

        let (mut schedule, later) = (begun(now), now + Duration::from_secs(3));
        schedule.hurry(Trigger::Moved, later);
        assert_eq!(schedule.due(), later);
    }

    #[test]
    fn the_gap_grows_while_hints_keep_coming_and_not_without_bounds() {
        let mut now = Instant::now();
        let mut schedule = begun(now);
        for gap in [GAP, GAP * 2, LONGEST_GAP, LONGEST_GAP, LONGEST_GAP, LONGEST_GAP, LONGEST_GAP] {
            schedule.hurry(Trigger::Moved, now);
            assert_due(&schedule, now, gap, Trigger::Moved);
            now = schedule.due();
            assert_eq!(schedule.begin(now), Trigger::Moved);
        }
        now += CALM;
        schedule.begin(now);
        schedule.hurry(Trigger::Moved, now);
        assert_due(&schedule, now, GAP, Trigger::Moved);
    }

    #[test]
    fn what_a_survey_finds_says_when_the_next_is_due() {
        let second = Duration::from_secs(1);
        for (found, since_change, after, why) in [
            (Found::Trouble(Trigger::Start), None, UNEASY_INTERVAL, Trigger::Start),
            (Found::Trouble(Trigger::Uncovered), None, UNEASY_INTERVAL, Trigger::Uncovered),
            (Found::Failing, None, WATCHFUL_INTERVAL, Trigger::Interval),
            (Found::Well { idle_primary: false }, None, INTERVAL, Trigger::Interval),
            (Found::Well { idle_primary: true }, None, INTERVAL, Trigger::Interval),
            // A change is watched for a while, and longer where it has left a primary without slots.
            (Found::Well { idle_primary: false }, Some(2 * second), WATCHFUL_INTERVAL, Trigger::Interval),
            (Found::Well { idle_primary: false }, Some(3 * second), INTERVAL, Trigger::Interval),
            (Found::Well { idle_primary: true }, Some(19 * second), WATCHFUL_INTERVAL, Trigger::Interval),
            (Found::Well { idle_primary: true }, Some(20 * second), INTERVAL, Trigger::Interval),
        ] {
            let start = Instant::now();
            let mut schedule = Schedule::new(INTERVAL, start);
            since_change.into_iter().for_each(|_| schedule.changed(start));
            let now = start + since_change.unwrap_or_default();
            schedule.begin(now);
            schedule.surveyed(found, now);
            assert_due(&schedule, now, after, why);
        }
    }

    #[test]
    fn a_short_interval_is_kept_whatever_is_found() {
        let now = Instant::now();
        let mut schedule = Schedule::new(Duration::from_millis(100), now);
        schedule.begin(now);
        schedule.surveyed(Found::Failing, now);
        assert_due(&schedule, now, Duration::from_millis(100), Trigger::Interval);
    }
}
