//! Learning the cluster and keeping up with it: the only writer of the [`Topology`].
//!
//! One task, one refresh at a time. A refresh asks at most three nodes that are well, or as many as it takes until one
//! answers (`survey`); what they say goes into the `KnownCluster`, which makes snapshots of it. Workers send [`Hint`]s. A
//! MOVED patches its one slot at once; the refresh that it asks for follows, never sooner than a gap that grows while
//! hints keep coming. Nobody waits for a refresh: the last snapshot serves until there is a better one.

mod failing;
mod framing;
mod functions;
mod identity;
mod known_cluster;
mod moves;
mod names;
mod publish;
pub mod reach;
mod strays;
mod supplanted;
mod survey;

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasher, Hasher, RandomState},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error};

use self::{
    functions::{Functions, Outcome, Task},
    identity::ClusterIdentity,
    known_cluster::KnownCluster,
    moves::Moves,
    names::Resolved,
    publish::Notices,
    reach::ReachedNode,
    survey::{NodeAnswer, Survey},
};
use crate::{
    cluster::topology::{Hint, Role, Topology, View},
    config::Config,
    metrics::{Metrics, Trigger, events::EventKind},
    protocol::{address::Address, names::Name, slot::SLOTS},
    upstream::dial::{Credentials, DialError, DialStep, Dialer, Login},
};

/// The least time between two refreshes. It doubles while hints keep coming.
const GAP: Duration = Duration::from_millis(150);
/// The most time that hints have to wait: what bounds how long a promoted replica stays unknown.
const LONGEST_GAP: Duration = Duration::from_millis(500);
/// Refreshes further apart than this do not make the gap grow.
const CALM: Duration = Duration::from_secs(2);
/// Time between refreshes while slots are uncovered or nobody answers: a cluster that forms is to be served within a
/// second.
const UNEASY_INTERVAL: Duration = Duration::from_millis(500);
/// Time between refreshes for a while after a change, and while a node is nowhere to be found or held for failing: the
/// nodes themselves take a moment to agree.
const WATCHFUL_INTERVAL: Duration = Duration::from_secs(1);
/// How long a change is watched.
const SETTLING: Duration = Duration::from_secs(3);
/// How long a change is watched that has left a primary without slots.
const SLOW_SETTLING: Duration = Duration::from_secs(20);
/// How long a node with a failure is asked last.
const SUSPECT: Duration = Duration::from_secs(10);
/// How often it is logged that a node turns connections away.
const COMPLAIN_AGAIN: Duration = Duration::from_secs(10);
/// How long nodes that do not tell the proxy's user their limits are not asked again: it would fill their ACL LOG.
const ASK_AGAIN: Duration = Duration::from_secs(600);
/// How many addresses of former nodes are kept to fall back on.
const MOST_FORMER: usize = 64;

/// The task that learns the cluster.
pub struct Discovery {
    /// Where to begin, and what is fallen back on for ever.
    seeds: Vec<Address>,
    login: Login,
    dialer: Dialer,
    interval: Duration,
    publisher: watch::Sender<Arc<Topology>>,
    hints: mpsc::Receiver<Hint>,
    metrics: Metrics,

    known_cluster: KnownCluster,
    /// Who has named a node that is not known.
    witness: Option<Address>,
    /// Addresses that failed lately.
    suspects: HashMap<Address, Instant>,
    /// Addresses in other clusters, as complained of.
    strangers: HashSet<Address>,
    /// Where another node was met in the place of a known one, and who that is.
    supplanted: HashMap<Address, String>,
    /// Since when nodes do not tell what they take from a connection.
    secretive: Option<Instant>,
    /// Nodes that turn connections away, and since when that has been logged.
    turned_away: HashMap<String, Instant>,
    /// Where nodes were once reached; the latest last.
    former: Vec<Address>,
    /// Two nodes at one address, as last complained of.
    clash: Option<String>,
    /// When seeds that lead nowhere were looked for.
    strays_looked: Option<Instant>,
    /// Whether nobody answered last time.
    alone: bool,
    /// What the operator has been told of what is not served.
    notices: Notices,
    /// Slots that have moved.
    moves: Moves,

    functions: Functions,
    /// After so long every request that was under way has been answered.
    request_timeout: Duration,

    /// Work under way beside the loop.
    jobs: JoinSet<Done>,
    /// The survey under way: why, and since when.
    survey: Option<(Trigger, Instant)>,
    /// Whether nodes are being searched.
    searching: bool,
    /// When the next survey is due, and why.
    next: (Instant, Trigger),
    last_survey: Option<Instant>,
    last_change: Option<Instant>,
    /// How many surveys in a row came hard on the heels of the one before.
    rush: u32,
}

/// Work that has come to its end.
enum Done {
    Surveyed(Survey),
    Searched(Vec<ReachedNode>),
    /// Seeds that lead nowhere.
    Strays(Vec<DialError>),
    /// What was open to a node that is another now; or why that could not be closed.
    Closed(Address, Result<usize, DialError>),
    /// A primary was looked after; whether it was for the first time.
    LookedAfter(Outcome, bool),
}

impl Discovery {
    /// A discovery that publishes to `publisher` and takes what workers notice from `hints`.
    pub fn new(
        config: &Config,
        dialer: Dialer,
        publisher: watch::Sender<Arc<Topology>>,
        hints: mpsc::Receiver<Hint>,
        metrics: Metrics,
    ) -> Discovery {
        let map = config.address_map.clone();
        publisher.send_replace(Arc::new(Topology::unknown("no node has been asked yet")));
        Discovery {
            seeds: config.seeds.to_vec(),
            login: Login { credentials: Credentials::of(config), ..Login::default() },
            dialer,
            interval: config.refresh_interval,
            publisher,
            hints,
            metrics,
            known_cluster: KnownCluster::new(map),
            suspects: HashMap::new(),
            strangers: HashSet::new(),
            supplanted: HashMap::new(),
            secretive: None,
            turned_away: HashMap::new(),
            former: Vec::new(),
            witness: None,
            clash: None,
            strays_looked: None,
            alone: false,
            notices: Notices::default(),
            moves: Moves::default(),
            functions: Functions::default(),
            request_timeout: config.request_timeout,
            jobs: JoinSet::new(),
            survey: None,
            searching: false,
            next: (Instant::now(), Trigger::Start),
            last_survey: None,
            last_change: None,
            rush: 0,
        }
    }

    /// Learns the cluster until cancelled.
    pub async fn run(mut self, cancel: CancellationToken) {
        loop {
            let due = self.survey.is_none().then_some(self.next.0);
            let news = self.news_due();
            tokio::select! {
                () = cancel.cancelled() => return,
                Some(hint) = self.hints.recv() => self.take_hints(hint),
                Some(done) = self.jobs.join_next() => match done {
                    Ok(Done::Surveyed(survey)) => self.surveyed(survey),
                    Ok(Done::Searched(found)) => self.searched(found),
                    Ok(Done::Strays(failures)) => self.tell_strays(&failures),
                    Ok(Done::Closed(address, closed)) => self.closed_at(&address, closed),
                    Ok(Done::LookedAfter(outcome, first)) => self.looked_after(outcome, first),
                    Err(fault) => self.job_failed(&fault),
                },
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => self.start_survey(),
                () = sleep_until(news.unwrap_or_else(Instant::now)), if news.is_some() => self.tell_news(),
            }
        }
    }

    // ---- Hints ----

    /// Takes a hint and all that wait behind it, so that many MOVED make one snapshot.
    fn take_hints(&mut self, first: Hint) {
        let now = Instant::now();
        let current = self.current();
        let (mut patched, mut missed): (Option<Topology>, _) = (None, Vec::new());
        let mut waiting = Some(first);
        while let Some(hint) = waiting {
            let trigger = match hint {
                Hint::Moved { redirect, from } => {
                    if let Some(target) = patched.as_ref().unwrap_or(&current).target(&redirect, &from) {
                        self.known_cluster.moved(redirect.slot, target.announced.clone(), now);
                        let next = || current.with_layout(current.nodes.clone(), current.slots.clone());
                        patched.get_or_insert_with(next).move_slot(redirect.slot, &target.announced);
                    } else {
                        self.witness = Some(from.reach.clone());
                    }
                    Trigger::Moved
                }
                Hint::Stranger { from } => {
                    self.witness = Some(from.reach.clone());
                    Trigger::Moved
                }
                Hint::ConnectFailed { node, said } => {
                    self.turned_away(&node, said, now);
                    self.doubt(&node, Trigger::ConnectFailure, now)
                }
                Hint::Timeout { node } => self.doubt(&node, Trigger::Timeout, now),
                Hint::Unwell { node } => {
                    // It may be another by now.
                    self.witness = self.known_cluster.place_of(&node).or(self.witness.take());
                    Trigger::Unwell
                }
                Hint::FunctionsMissed { node } => {
                    missed.push(node);
                    Trigger::Unwell
                }
                Hint::Uncovered => Trigger::Uncovered,
            };
            self.hurry(trigger, now);
            waiting = self.hints.try_recv().ok();
        }
        if let Some(mut patched) = patched {
            patched.trouble = known_cluster::trouble(&patched);
            self.publish(patched);
        }
        if !missed.is_empty() {
            self.functions.missed(&missed);
            missed.iter().for_each(|id| self.make_alike(id, Duration::ZERO));
        }
    }

    /// A node turns connections away though it may let in the next one: nothing else would tell the operator.
    fn turned_away(&mut self, id: &str, said: Option<String>, now: Instant) {
        let Some(said) = said else { return };
        self.turned_away.retain(|_, since| now - *since < COMPLAIN_AGAIN);
        if !self.turned_away.contains_key(id) {
            let label = self.current().node(id).map_or_else(|| id.into(), |node| node.label.clone());
            let text = Name::NodeRefuses.on(format!("node {label} turns connections away: {said}"));
            self.metrics.events().warn(EventKind::NodeLost, text);
            self.turned_away.insert(id.to_owned(), now);
        }
    }

    fn doubt(&mut self, id: &str, trigger: Trigger, now: Instant) -> Trigger {
        if let Some(address) = self.known_cluster.doubt(id) {
            self.suspects.insert(address, now);
        }
        trigger
    }

    /// Brings the next survey forward, as far as the gap allows.
    fn hurry(&mut self, trigger: Trigger, now: Instant) {
        let gap = (GAP * (1 << self.rush.min(4))).min(LONGEST_GAP);
        let due = self.last_survey.map_or(now, |last| last + jittered(gap)).max(now);
        if due < self.next.0 {
            self.next = (due, trigger);
        }
    }

    // ---- Surveys ----

    fn start_survey(&mut self) {
        let now = Instant::now();
        let hard_on = self.last_survey.is_some_and(|last| now - last < CALM);
        self.rush = if hard_on { self.rush + 1 } else { 0 };
        self.last_survey = Some(now);
        self.survey = Some((self.next.1, now));
        self.next = (now + jittered(self.interval), Trigger::Interval);
        self.suspects.retain(|_, since| now - *since < SUSPECT);
        let (candidates, identity, known) =
            (self.candidates(), ClusterIdentity::of(&self.current()), self.known_cluster.known_servers());
        let asks_limits = self.secretive.is_none_or(|since| now - since >= ASK_AGAIN);
        let (login, dialer) = (self.login.clone(), self.dialer.clone());
        let resolving = names::resolve(self.seeds.clone(), dialer.clone());
        let survey = survey::survey(candidates, identity, login, dialer, known, asks_limits);
        self.jobs.spawn(async {
            let (survey, resolved) = tokio::join!(survey, resolving);
            Done::Surveyed(Survey { resolved, ..survey })
        });
    }

    /// Whom to ask, the best first: who has named a stranger, nodes that are well, seeds, nodes that failed lately, former
    /// nodes.
    fn candidates(&mut self) -> Vec<Address> {
        let current = self.current();
        let witness = self.witness.take();
        let suspect = |address: &Address| self.suspects.contains_key(address);
        let seeds = shuffled(self.seeds.clone());
        let nodes = shuffled(current.nodes.iter().map(|node| node.reach.clone()).collect());
        // While the view has holes the seeds come first: they may know what the known nodes do not.
        let (first, second) = if current.covered() < SLOTS { (seeds, nodes) } else { (nodes, seeds) };
        let (doubtful, well): (Vec<_>, Vec<_>) = first.into_iter().chain(second).partition(suspect);
        let former = self.former.iter().rev().cloned();
        let mut named = HashSet::new();
        witness.into_iter().chain(well).chain(doubtful).chain(former).filter(|one| named.insert(one.clone())).collect()
    }

    fn surveyed(&mut self, mut survey: Survey) {
        let now = Instant::now();
        let Some((trigger, since)) = self.survey.take() else { return };
        for failure in &survey.failures {
            debug!("refresh: {failure}");
            self.suspects.insert(failure.node.clone(), now);
            // Who takes long may be busy; where nobody listens, nobody is.
            if failure.step == DialStep::Resolve || failure.why == "connection refused" {
                self.known_cluster.doubt_at(&failure.node);
            }
        }
        for answer in survey.answers.iter().chain(&survey.strangers) {
            answer.id.iter().for_each(|id| self.met_at(&answer.asked, id));
        }
        let (ours, strangers) = (std::mem::take(&mut survey.answers), std::mem::take(&mut survey.strangers));
        survey.answers = self.answers_of_one(ours, strangers, self.known_cluster.is_forsaken(now));
        for answer in &survey.answers {
            self.suspects.remove(&answer.asked);
        }
        self.note_secretive(&survey.answers, now);
        let (failures, remedy) = (survey.failures_text(), survey.remedy());
        let here = self.known_cluster.meet(&survey);
        let resolved = std::mem::take(&mut survey.resolved);
        let well = match View::merge(survey.answers.into_iter().map(|answer| answer.view).collect()) {
            None => self.nobody_answered(&failures, remedy),
            Some(view) if self.known_cluster.is_stale(&view, now) => {
                self.search();
                false
            }
            Some(view) => self.believe(view, &here, &resolved),
        };
        let current = self.current();
        if well && current.covered() > 0 {
            self.look_for_strays(now);
        }
        if !well || current.trouble.is_some() {
            let why = if current.nodes.is_empty() { Trigger::Start } else { Trigger::Uncovered };
            self.look_again(UNEASY_INTERVAL, why, now);
        } else if self.known_cluster.misses_nodes()
            || self.known_cluster.has_failing(now)
            || self.last_change.is_some_and(|change| now - change < self.settling())
        {
            self.look_again(WATCHFUL_INTERVAL, Trigger::Interval, now);
        }
        self.metrics.refreshed(trigger, well, now - since);
    }

    /// Notes whether the nodes tell what they take from a connection.
    fn note_secretive(&mut self, answers: &[NodeAnswer], now: Instant) {
        if answers.iter().any(|answer| answer.accepts.is_some()) {
            self.secretive = None;
        } else if !answers.is_empty() && self.secretive.is_none_or(|since| now - since >= ASK_AGAIN) {
            self.secretive = Some(now);
        }
    }

    /// How long a change is watched. A primary without slots is most likely a replica of which the nodes have not all heard
    /// yet.
    fn settling(&self) -> Duration {
        let current = self.current();
        let counts = current.slot_counts();
        let idle = current.nodes.iter().zip(counts).any(|(node, slots)| node.role == Role::Primary && slots == 0);
        if idle { SLOW_SETTLING } else { SETTLING }
    }

    /// Has the next survey in so long, if it is not to be sooner.
    fn look_again(&mut self, after: Duration, trigger: Trigger, now: Instant) {
        let soon = now + jittered(after.min(self.interval));
        if soon < self.next.0 {
            self.next = (soon, trigger);
        }
    }

    fn nobody_answered(&mut self, failures: &str, remedy: &'static str) -> bool {
        let current = self.current();
        self.notices.remedy = remedy;
        if current.covered() == 0 {
            let mut next = (*current).clone();
            next.trouble = Some(format!("no node answered: {failures}").into());
            self.publish(next);
        } else {
            if !self.alone {
                let text = format!("no node answered, the last known layout serves on: {failures}; {remedy}");
                let text = Name::NodeUnreachable.on(text);
                self.metrics.events().warn(EventKind::NodeLost, text);
            }
            // Whether they serve is not known by that.
            self.current().nodes.iter().for_each(|node| drop(self.known_cluster.doubt(&node.id)));
            self.search();
        }
        self.alone = true;
        false
    }

    fn believe(&mut self, view: View, here: &[(String, Address)], resolved: &Resolved) -> bool {
        self.alone = false;
        self.known_cluster.believe(view, here, resolved);
        self.notices.remedy = publish::NOT_FORMED;
        self.search();
        self.publish_layout();
        true
    }

    fn job_failed(&mut self, fault: &tokio::task::JoinError) {
        error!("a refresh ended in a fault: {fault}");
        self.survey = None;
        self.searching = false;
    }

    // ---- Reaching nodes ----

    /// Searches the nodes that are not known to be reached anywhere, or no longer.
    fn search(&mut self) {
        let lost = self.known_cluster.lost();
        if self.searching || lost.is_empty() {
            return;
        }
        self.searching = true;
        let search = reach::search(lost, self.seeds.clone(), self.login.clone(), self.dialer.clone());
        self.jobs.spawn(async { Done::Searched(search.await) });
    }

    fn searched(&mut self, found: Vec<ReachedNode>) {
        self.searching = false;
        for found in &found {
            found.other.iter().for_each(|(address, id)| self.met_at(address, id));
        }
        found.into_iter().for_each(|found| self.known_cluster.settle(found));
        if !self.publish_layout() {
            self.search();
        }
    }

    // ---- Functions ----

    /// Looks after the primaries that are new in a snapshot; FCALL to them waits until that is done.
    fn meet_primaries(&mut self, next: &mut Topology) {
        for (task, waits) in self.functions.meet(next) {
            if waits {
                next.unready.push(task.id.clone());
            }
            self.look_after(task, Duration::ZERO, true);
        }
        next.unready.retain(|id| next.nodes.iter().any(|node| node.id == *id));
        next.behind = self.functions.behind();
    }

    /// Makes the functions of a node that has missed a change like those of the others.
    fn make_alike(&mut self, id: &str, after: Duration) {
        let current = self.current();
        self.publish((*current).clone());
        if let Some(task) = self.functions.again(id, &current) {
            self.look_after(task, after, true);
        }
    }

    fn look_after(&mut self, task: Task, after: Duration, first: bool) {
        let work = functions::look_after(task, after, self.login.clone(), self.dialer.clone());
        self.jobs.spawn(async move { Done::LookedAfter(work.await, first) });
    }

    fn looked_after(&mut self, outcome: Outcome, first: bool) {
        let id = outcome.task.id.clone();
        self.metrics.functions_given(outcome.given);
        let look_again = !outcome.gifts.is_empty() && (first || !outcome.complete);
        let late = outcome.late;
        self.functions.done(outcome);
        if self.functions.is_behind(&id) {
            return self.make_alike(&id, GAP);
        }
        let mut next = (*self.current()).clone();
        if next.unready.contains(&id) || next.behind.contains(&id) {
            next.unready.retain(|unready| *unready != id);
            self.publish(next);
        }
        if (look_again || late.is_some())
            && let Some(again) = self.functions.again(&id, &self.current())
        {
            match late {
                Some(late) => self.look_after(again.late(late), GAP, first),
                None => self.look_after(again, self.request_timeout + CALM, false),
            }
        }
    }
}

/// A time of about this length, so that many proxies do not ask at once: 10 % more or less.
fn jittered(time: Duration) -> Duration {
    time.mul_f64(0.9 + 0.2 * (random() % 1024) as f64 / 1024.0)
}

fn shuffled<T>(mut items: Vec<T>) -> Vec<T> {
    for last in (1..items.len()).rev() {
        items.swap(last, (random() % (last as u64 + 1)) as usize);
    }
    items
}

/// The standard library seeds each `RandomState` anew: random enough to choose whom to ask.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
