//! How it has gone of late: rates and latencies of all and of each node, for a quarter of an hour, and which nodes are slow.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex},
    time::{Duration, Instant, SystemTime},
};

use super::{
    Metrics,
    events::EventKind,
    histogram::{self, BOUNDS_MICROS},
    lock,
};

/// Seconds in one point of the history.
pub const STEP: u64 = 5;
/// How many points there are: a quarter of an hour.
pub const POINTS: usize = 180;
/// Seconds that the present is the mean of.
const PRESENT: usize = 5;
/// A node is slow where half of its requests take this long, until half of them take no more than half of it for [`WELL_FOR`] seconds.
const SLOW: Duration = Duration::from_millis(50);
/// A node is slow, too, where half of its requests take [`SLOW_BESIDE_OTHERS`], and this many times what the others
/// take in the middle.
const SLOWER: f64 = 10.0;
const SLOW_BESIDE_OTHERS: Duration = Duration::from_millis(20);
/// Beside others a node is slow, too, where a tenth of its requests take [`SLOW`] and so many times as long as a tenth of theirs.
/// Fewer replies within [`PRESENT`] seconds tell nothing of a tenth.
const ENOUGH: u64 = 50;
/// Beside others a node is slow, too, that stalls again and again: for [`STALLS_FOR`] seconds on end a hundredth of its requests
/// take [`STALL`] and so many times as long as a hundredth of theirs. Fewer replies tell nothing of a hundredth.
const STALL: Duration = Duration::from_millis(100);
const STALLS_FOR: u32 = 10;
const MANY: u64 = 200;
/// For how many seconds on end a node has to be well that was slow: one that stalls now and then is not told of each time.
const WELL_FOR: u32 = 10;
/// Fewer requests within [`PRESENT`] seconds tell nothing.
const FEW: u64 = 5;
/// After so many seconds without a reply nothing is known of a node that was slow.
const FORGOTTEN: u32 = 60;

/// What was counted up to a moment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counted {
    pub(super) requests: u64,
    pub(super) errors: u64,
    /// Of a node: requests that ended in an error for the client. Those to a node that is lost are no errors of its own.
    pub(super) failed: u64,
    pub(super) durations: histogram::Counts,
}

impl Counted {
    fn since(&self, before: &Counted) -> Counted {
        let mut durations = self.durations;
        durations.iter_mut().zip(before.durations).for_each(|(now, then)| *now = now.saturating_sub(then));
        let requests = self.requests.saturating_sub(before.requests);
        let failed = self.failed.saturating_sub(before.failed);
        let errors = self.errors.saturating_sub(before.errors).max(failed);
        Counted { requests, errors, failed, durations }
    }

    fn add(&mut self, more: &Counted) {
        self.requests += more.requests;
        self.errors += more.errors;
        self.failed += more.failed;
        self.durations.iter_mut().zip(more.durations).for_each(|(sum, more)| *sum += more);
    }
}

/// How many requests there are, and how long they take, at some time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pace {
    /// Requests a second.
    pub rate: f64,
    /// Requests a second that end in an error.
    pub errors: f64,
    /// Half of them take this long at most, in seconds; `None`: there were none.
    pub p50: Option<f64>,
    /// Nine of ten take this long at most, in seconds.
    pub p90: Option<f64>,
    /// 99 of a hundred take this long at most, in seconds.
    pub p99: Option<f64>,
}

impl Pace {
    /// How slow it is, in words: what half of the requests take, or where these are quick, a tenth, or else a hundredth.
    pub fn slowness(&self) -> Option<String> {
        let (part, least) = if self.p50? >= SLOW_BESIDE_OTHERS.as_secs_f64() {
            ("half", self.p50?)
        } else if self.p90? >= SLOW.as_secs_f64() {
            ("a tenth", self.p90?)
        } else {
            ("a hundredth", self.p99?)
        };
        Some(format!("{part} of its requests take {} or more", millis(least)))
    }
}

/// The paces of one thing, the present one and those of the last quarter of an hour.
#[derive(Debug, Default)]
struct Track {
    before: Option<Counted>,
    seconds: VecDeque<(Counted, f64)>,
    step: Counted,
    points: VecDeque<Pace>,
    slow_since: Option<SystemTime>,
    /// For how many seconds it has answered nothing.
    quiet: u32,
    /// For how many seconds a hundredth of its requests have taken far longer than those of others.
    stalls: u32,
    /// For how many seconds it has been well.
    well: u32,
}

impl Track {
    fn second(&mut self, now: Counted, took: f64) {
        let new = now.since(&self.before.replace(now).unwrap_or(now));
        self.step.add(&new);
        self.quiet = if new.durations.iter().any(|count| *count > 0) { 0 } else { self.quiet.saturating_add(1) };
        self.seconds.push_back((new, took));
        if self.seconds.len() > PRESENT {
            self.seconds.pop_front();
        }
    }

    fn end_step(&mut self, took: f64) {
        self.points.push_back(pace(&std::mem::take(&mut self.step), took));
        if self.points.len() > POINTS {
            self.points.pop_front();
        }
    }

    fn present(&self) -> (Pace, u64) {
        let (mut sum, mut time) = (Counted::default(), 0.0);
        for (second, took) in &self.seconds {
            sum.add(second);
            time += took;
        }
        (pace(&sum, time), sum.durations.iter().sum())
    }
}

fn pace(counted: &Counted, took: f64) -> Pace {
    if took <= 0.0 {
        return Pace::default();
    }
    Pace {
        rate: counted.requests as f64 / took,
        errors: counted.errors as f64 / took,
        p50: quantile(&counted.durations, 0.5),
        p90: quantile(&counted.durations, 0.9),
        p99: quantile(&counted.durations, 0.99),
    }
}

/// How long this part of the requests took at most, in seconds: within a bucket they are taken to be spread evenly.
fn quantile(counts: &histogram::Counts, part: f64) -> Option<f64> {
    let all: u64 = counts.iter().sum();
    let mut left = (all > 0).then_some(all as f64 * part)?;
    let mut from = 0;
    for (bound, &count) in BOUNDS_MICROS.iter().chain([&(2 * BOUNDS_MICROS[BOUNDS_MICROS.len() - 1])]).zip(counts) {
        if left <= count as f64 && count > 0 {
            return Some((from as f64 + (bound - from) as f64 * left / count as f64) / 1e6);
        }
        left -= count as f64;
        from = *bound;
    }
    Some(from as f64 / 1e6)
}

/// The last quarter of an hour.
#[derive(Debug, Default)]
pub struct History(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    last: Option<Instant>,
    step: u64,
    step_since: Option<Instant>,
    all: Track,
    nodes: BTreeMap<Arc<str>, Track>,
}

/// A copy of the history, oldest point first.
#[derive(Debug, Default)]
pub struct Points {
    /// The pace of all requests of clients.
    pub all: Vec<Pace>,
    /// The pace of each node, by its label; a node that came later has fewer points.
    pub nodes: Vec<(Arc<str>, Vec<Pace>)>,
}

/// The pace of the last seconds.
#[derive(Debug, Default)]
pub struct Present {
    /// The pace of all requests of clients.
    pub all: Pace,
    /// The pace of each node, by its label, and since when it is slow.
    pub nodes: Vec<(Arc<str>, Pace, Option<SystemTime>)>,
}

impl Present {
    /// How a node does, and since when it is slow.
    pub fn node(&self, label: &str) -> (Pace, Option<SystemTime>) {
        let known = self.nodes.iter().find(|(known, ..)| **known == *label);
        known.map_or_else(Default::default, |(_, pace, slow)| (*pace, *slow))
    }
}

impl History {
    /// Takes note of what was counted up to now; to be called once a second. What is to be told of slow nodes.
    pub(super) fn second(&self, all: Counted, nodes: Vec<(Arc<str>, Counted)>, now: Instant) -> Vec<String> {
        let kept = &mut *lock(&self.0);
        let took = kept.last.replace(now).map_or(0.0, |last| (now - last).as_secs_f64());
        let since = *kept.step_since.get_or_insert(now);
        kept.all.second(all, took);
        kept.nodes.retain(|label, _| nodes.iter().any(|(known, _)| known == label));
        for (label, counted) in nodes {
            kept.nodes.entry(label).or_default().second(counted, took);
        }
        kept.step += 1;
        if kept.step >= STEP {
            let took = (now - since).as_secs_f64();
            (kept.step, kept.step_since) = (0, Some(now));
            kept.all.end_step(took);
            kept.nodes.values_mut().for_each(|track| track.end_step(took));
        }
        let usual: Vec<(Arc<str>, [f64; 3])> = kept.nodes.iter().filter_map(usual_of).collect();
        let news = |(label, track): (&Arc<str>, &mut Track)| {
            let others =
                |at: usize| usual.iter().filter(|(other, _)| other != label).map(|(_, takes)| takes[at]).collect();
            let limits =
                [limit_beside(others(0)), limit_far_beside(others(1), SLOW), limit_far_beside(others(2), STALL)];
            news_of(label, track, limits)
        };
        kept.nodes.iter_mut().filter_map(news).collect()
    }

    /// All points.
    pub fn points(&self) -> Points {
        let kept = lock(&self.0);
        let points = |track: &Track| track.points.iter().copied().collect();
        let nodes = kept.nodes.iter().map(|(label, track)| (label.clone(), points(track)));
        Points { all: points(&kept.all), nodes: nodes.collect() }
    }

    /// The pace of the last seconds.
    pub fn present(&self) -> Present {
        let kept = lock(&self.0);
        let nodes = kept.nodes.iter().map(|(label, track)| (label.clone(), track.present().0, track.slow_since));
        Present { all: kept.all.present().0, nodes: nodes.collect() }
    }
}

/// What half of a node's requests take, a tenth and a hundredth, where there are enough.
fn usual_of((label, track): (&Arc<str>, &Track)) -> Option<(Arc<str>, [f64; 3])> {
    let (pace, replies) = track.present();
    Some((label.clone(), [pace.p50.filter(|_| replies >= FEW)?, pace.p90?, pace.p99?]))
}

/// From when on a node is slow, given what half of the requests of each other node take.
fn limit_beside(mut others: Vec<f64>) -> f64 {
    others.sort_by(f64::total_cmp);
    let usual = others.get(others.len() / 2).map_or(f64::INFINITY, |middle| middle * SLOWER);
    usual.clamp(SLOW_BESIDE_OTHERS.as_secs_f64(), SLOW.as_secs_f64())
}

/// From when on a node is slow, given what a tenth, or a hundredth, of the requests of each other node take; never below `least`.
fn limit_far_beside(mut others: Vec<f64>, least: Duration) -> f64 {
    others.sort_by(f64::total_cmp);
    others.get(others.len() / 2).map_or(f64::INFINITY, |middle| (middle * SLOWER).max(least.as_secs_f64()))
}

fn millis(seconds: f64) -> String {
    format!("{:.0} ms", seconds * 1000.0)
}

fn news_of(label: &str, track: &mut Track, [half, tenth, hundredth]: [f64; 3]) -> Option<String> {
    let (pace, replies) = track.present();
    if track.quiet >= FORGOTTEN && track.slow_since.take().is_some() {
        return Some(format!("node {label} is slow no more, as far as is known: it was asked nothing for a minute"));
    }
    let (p50, p90, p99) = (pace.p50?, pace.p90?, pace.p99?);
    track.stalls = if replies >= MANY && p99 >= hundredth { track.stalls.saturating_add(1) } else { 0 };
    let stalls = track.stalls >= STALLS_FOR;
    let is_slow = replies >= FEW && p50 >= half || replies >= ENOUGH && p90 >= tenth || stalls;
    // One that answers nothing any more is not slow, but lost: others say so.
    if track.slow_since.is_none() && is_slow && track.quiet == 0 {
        track.slow_since = Some(SystemTime::now());
        return Some(format!("node {label} is slow: {} (p99 {})", pace.slowness()?, millis(p99)));
    }
    let is_well = p50 < half / 2.0 && p90 < tenth / 2.0 && track.stalls == 0;
    track.well = if is_well { track.well.saturating_add(1) } else { 0 };
    if track.well >= WELL_FOR && track.slow_since.take().is_some() {
        return Some(format!("node {label} is slow no more: half of its requests take {} at most", millis(p50)));
    }
    None
}

impl Metrics {
    /// Takes note of how it goes; to be called once a second.
    pub fn observe(&self) {
        let shared = &self.shared;
        let news = shared.history.second(shared.client.counted(), shared.refresh.counted(), Instant::now());
        for text in news {
            match text.contains("no more") {
                true => shared.events.info(EventKind::NodeSlow, text),
                false => shared.events.warn(EventKind::NodeSlow, text),
            }
        }
    }

    /// How it has gone of late.
    pub fn history(&self) -> &History {
        &self.shared.history
    }
}

/// The time of a point that is so many steps before the last one.
pub fn point_time(steps_before: usize) -> SystemTime {
    SystemTime::now() - Duration::from_secs(STEP * steps_before as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(requests: u64, bucket: usize) -> Counted {
        let mut durations = histogram::Counts::default();
        durations[bucket] = requests;
        Counted { requests, errors: requests / 10, failed: requests / 20, durations }
    }

    #[test]
    fn rates_and_latencies_of_seconds_and_steps() {
        let (history, start, label) = (History::default(), Instant::now(), Arc::<str>::from("a:1"));
        for second in 0..=10u64 {
            // From 500 µs to 1 ms.
            let now = counted(100 * second, 4);
            let at = start + Duration::from_secs(second);
            assert!(history.second(now, vec![(label.clone(), now)], at).is_empty());
        }
        let present = history.present();
        assert_eq!((present.all.rate, present.all.errors), (100.0, 10.0));
        assert!((present.all.p50.unwrap() - 0.00075).abs() < 1e-5, "{present:?}");
        let points = history.points();
        assert_eq!((points.all.len(), points.nodes[0].1.len()), (2, 2));
        assert_eq!(points.all[1].rate, 100.0);
    }

    #[test]
    fn who_takes_far_longer_than_the_others_is_slow() {
        for (others, limit) in [
            (vec![], 0.05),
            (vec![0.0003], 0.02),
            (vec![0.0003, 0.0004, 0.03], 0.02),
            (vec![0.003, 0.003], 0.03),
            (vec![0.0002, 0.02, 0.02], 0.05),
        ] {
            assert_eq!(limit_beside(others.clone()), limit, "{others:?}");
        }
    }

    #[test]
    fn who_keeps_a_tenth_waiting_is_slow_beside_others_that_do_not() {
        assert_eq!(limit_far_beside(vec![], SLOW), f64::INFINITY);
        assert_eq!((limit_far_beside(vec![0.001], SLOW), limit_far_beside(vec![0.001, 0.02, 0.02], SLOW)), (0.05, 0.2));
        let (history, start) = (History::default(), Instant::now());
        let (label, other) = (Arc::<str>::from("a:1"), Arc::<str>::from("b:1"));
        let (mut sum, mut well, mut told) = (Counted::default(), Counted::default(), Vec::new());
        for second in 0..30u64 {
            // Of a hundred requests a fifth take 50 to 100 ms, and later none.
            sum.add(&counted(80, 2));
            sum.add(&counted(20, if second < 10 { 10 } else { 2 }));
            well.add(&counted(100, 2));
            let nodes = vec![(label.clone(), sum), (other.clone(), well)];
            told.extend(history.second(sum, nodes, start + Duration::from_secs(second)));
        }
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].starts_with("node a:1 is slow: a tenth of its requests take 75 ms or more"), "{told:?}");
        assert!(told[1].starts_with("node a:1 is slow no more"), "{told:?}");
    }

    #[test]
    fn who_stalls_again_and_again_is_slow_and_who_stalls_once_is_not() {
        let (history, start) = (History::default(), Instant::now());
        let [label, once, other] = ["a:1", "b:1", "c:1"].map(Arc::<str>::from);
        let [mut stalls, mut stalled, mut well] = [Counted::default(); 3];
        let mut told = Vec::new();
        for second in 0..40u64 {
            // Of two hundred requests a second four take 250 to 500 ms.
            for (sum, is_bad) in [(&mut stalls, second < 20), (&mut stalled, second == 5), (&mut well, false)] {
                sum.add(&counted(196, 2));
                sum.add(&counted(4, if is_bad { 12 } else { 2 }));
            }
            let nodes = vec![(label.clone(), stalls), (once.clone(), stalled), (other.clone(), well)];
            let news = history.second(stalls, nodes, start + Duration::from_secs(second));
            told.extend(news.into_iter().map(|text| (second, text)));
        }
        let [(first, slow), (last, over)] = &told[..] else { panic!("{told:?}") };
        assert!(
            (10..15).contains(first) && slow.starts_with("node a:1 is slow: a hundredth of its requests take "),
            "{told:?}"
        );
        assert!((30..36).contains(last) && over.starts_with("node a:1 is slow no more"), "{told:?}");
    }

    #[test]
    fn what_failed_for_clients_is_an_error_of_its_node() {
        let before = Counted { requests: 9, errors: 1000, failed: 5, ..Counted::default() };
        for (errors, failed, shown) in [(1002, 5, 2), (1002, 45, 40), (1050, 45, 50)] {
            let now = Counted { requests: 60, errors, failed, ..Counted::default() };
            assert_eq!(now.since(&before).errors, shown, "{errors} {failed}");
        }
    }

    #[test]
    fn a_slow_node_is_told_once_and_when_it_is_over() {
        let (history, start, label) = (History::default(), Instant::now(), Arc::<str>::from("a:1"));
        let mut told = Vec::new();
        let mut sum = Counted::default();
        for second in 0..40u64 {
            // 100 to 250 ms, and then 100 µs.
            let more = counted(10, if second < 10 { 11 } else { 1 });
            sum.add(&more);
            told.extend(history.second(sum, vec![(label.clone(), sum)], start + Duration::from_secs(second)));
        }
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(history.present().node("a:1").1.is_none());
        assert!(told[0].starts_with("node a:1 is slow: half of its requests take "), "{told:?}");
        assert!(told[1].starts_with("node a:1 is slow no more"), "{told:?}");
    }

    #[test]
    fn who_answers_nothing_any_more_is_not_told_to_be_slow() {
        let (history, start, label) = (History::default(), Instant::now(), Arc::<str>::from("a:1"));
        let mut sum = Counted::default();
        // Its last replies are slow ones, and only those are left once it has been silent for some seconds.
        let replies = [Counted::default(), counted(10, 1), counted(6, 11)].into_iter().chain([Counted::default(); 8]);
        for (second, more) in replies.enumerate() {
            sum.add(&more);
            let told = history.second(sum, vec![(label.clone(), sum)], start + Duration::from_secs(second as u64));
            assert!(told.is_empty(), "{second}: {told:?}");
        }
    }

    #[test]
    fn who_was_slow_and_is_asked_nothing_is_so_for_a_minute() {
        let (history, start, label) = (History::default(), Instant::now(), Arc::<str>::from("a:1"));
        let mut told = Vec::new();
        let mut sum = Counted::default();
        for second in 0..80u64 {
            if second < 10 {
                sum.add(&counted(10, 11));
            }
            told.extend(history.second(sum, vec![(label.clone(), sum)], start + Duration::from_secs(second)));
            assert_eq!(history.present().node("a:1").1.is_some(), (1..69).contains(&second), "{second}: {told:?}");
        }
        assert!(told.len() == 2 && told[1].ends_with("it was asked nothing for a minute"), "{told:?}");
    }
}
