//! Learning the cluster and keeping up with it: the only writer of the [`Topology`].
//!
//! One task, one refresh at a time. A refresh asks at most three nodes that are well, or as many as it takes until one
//! answers; what they say is merged by config epoch. Workers send [`Hint`]s. A MOVED patches its one slot at once; the
//! refresh that it asks for follows, never sooner than a gap that grows while hints keep coming. Nobody waits for a
//! refresh: the last snapshot serves until there is a better one.

mod reach;
mod status;
mod survey;

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasher, Hasher, RandomState},
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use self::{
    reach::{Found, Wanted},
    survey::Survey,
};
use crate::{
    address::Address,
    command::CommandTable,
    config::Config,
    dial::{Credentials, Limits, Login},
    slot::{SLOTS, Slot},
    topology::{AddressMap, ServerInfo, Topology, View, address_map::BadRule},
};
pub use status::{Mapping, Outcome, Refresh, Status, Trigger};

/// The least time between two refreshes. It doubles while hints keep coming.
const GAP: Duration = Duration::from_millis(150);
/// The most time that hints have to wait: what bounds how long a promoted replica stays unknown.
const LONGEST_GAP: Duration = Duration::from_millis(500);
/// Refreshes further apart than this do not make the gap grow.
const CALM: Duration = Duration::from_secs(2);
/// Time between refreshes while slots are uncovered or nobody answers: a cluster that forms is to be served within a
/// second.
const UNEASY_INTERVAL: Duration = Duration::from_millis(500);
/// How long a MOVED outweighs the views of nodes that may not have heard of the move: gossip takes about a second.
const MOVED_COUNTS: Duration = Duration::from_secs(2);
/// How long a view older than one seen before is disbelieved. Then it is taken: the cluster was made anew, perhaps.
const STALE_COUNTS: Duration = Duration::from_secs(15);
/// How long a node with a failure is asked last.
const SUSPECT: Duration = Duration::from_secs(10);
/// How many addresses of former nodes are kept to fall back on.
const MOST_FORMER: usize = 64;

/// What a worker has noticed. Nodes are named by their node id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hint {
    /// A node said MOVED. The address is the announced one of the target ([`Topology::target`]).
    Moved {
        /// The slot that moved.
        slot: Slot,
        /// Where to.
        address: Address,
    },
    /// A node cannot be connected to.
    ConnectFailed {
        /// The node's id.
        node: String,
    },
    /// A node did not answer in time.
    Timeout {
        /// The node's id.
        node: String,
    },
    /// A node said CLUSTERDOWN.
    ClusterDown,
    /// A node taken for a primary said READONLY.
    Readonly {
        /// The node's id.
        node: String,
    },
    /// A request for a slot that nobody owns.
    Uncovered {
        /// The slot.
        slot: Slot,
    },
}

/// What discovery needs to know of the configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where to begin, and what is fallen back on for ever.
    pub seeds: Vec<Address>,
    /// The operator's address rules.
    pub map: Arc<AddressMap>,
    /// How to log in to nodes.
    pub login: Login,
    /// Deadlines of connections to nodes.
    pub limits: Limits,
    /// Time between refreshes when nothing seems wrong.
    pub refresh_interval: Duration,
}

impl Settings {
    /// The settings of a configuration.
    pub fn of(config: &Config) -> Result<Settings, BadRule> {
        Ok(Settings {
            seeds: config.seeds.clone(),
            map: Arc::new(AddressMap::parse(&config.address_map)?),
            login: Login { credentials: Credentials::of(config), ..Login::default() },
            limits: Limits::default().within(config.connect_timeout),
            refresh_interval: config.refresh_interval,
        })
    }

    /// The snapshot that serves until the cluster has been learnt.
    pub fn unknown(&self) -> Arc<Topology> {
        Arc::new(Topology::unknown(self.map.clone(), "the cluster has not been asked yet"))
    }
}

/// Work under way beside the loop.
enum Done {
    Surveyed(Survey),
    Reached(Vec<Found>),
}

/// The task that learns the cluster.
pub struct Discovery {
    settings: Settings,
    topology: watch::Sender<Arc<Topology>>,
    status: watch::Sender<Status>,
    hints: mpsc::Receiver<Hint>,
    observer: Box<dyn Fn(&Refresh) + Send>,

    jobs: JoinSet<Done>,
    /// The survey under way: why, and since when.
    survey: Option<(Trigger, Instant)>,
    /// Whether nodes are being searched.
    searching: bool,
    /// When the next survey is due, and why.
    next: (Instant, Trigger),
    last_survey: Option<Instant>,
    /// How many surveys in a row came hard on the heels of the one before.
    rush: u32,

    /// The last view believed.
    view: Option<View>,
    /// The highest config epoch seen, and when it was last seen.
    newest: (u64, Instant),
    /// Where nodes are reached, by node id.
    reached: HashMap<String, Found>,
    /// Slots that MOVED has moved lately.
    moved: HashMap<Slot, (Address, Instant)>,
    /// Addresses that failed lately.
    suspects: HashMap<Address, Instant>,
    /// Where nodes were once reached; the latest last.
    former: Vec<Address>,
    /// The server of each node that has been asked, by node id.
    servers: HashMap<String, ServerInfo>,
    /// What was learnt of each kind of server.
    learnt: Vec<(ServerInfo, Arc<CommandTable>)>,
}

impl Discovery {
    /// A discovery that publishes to `topology` and takes what workers notice from `hints`.
    pub fn new(settings: Settings, topology: watch::Sender<Arc<Topology>>, hints: mpsc::Receiver<Hint>) -> Discovery {
        let now = Instant::now();
        Discovery {
            settings,
            topology,
            status: watch::Sender::default(),
            hints,
            observer: Box::new(|_| {}),
            jobs: JoinSet::new(),
            survey: None,
            searching: false,
            next: (now, Trigger::Start),
            last_survey: None,
            rush: 0,
            view: None,
            newest: (0, now),
            reached: HashMap::new(),
            moved: HashMap::new(),
            suspects: HashMap::new(),
            former: Vec::new(),
            servers: HashMap::new(),
            learnt: Vec::new(),
        }
    }

    /// Calls `observer` after each refresh, for metrics.
    pub fn observed_by(mut self, observer: impl Fn(&Refresh) + Send + 'static) -> Discovery {
        self.observer = Box::new(observer);
        self
    }

    /// How discovery fares, for operators.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// Learns the cluster until cancelled.
    pub async fn run(mut self, cancel: CancellationToken) {
        loop {
            let due = self.survey.is_none().then_some(self.next.0);
            tokio::select! {
                () = cancel.cancelled() => return,
                Some(hint) = self.hints.recv() => self.take_hints(hint),
                Some(done) = self.jobs.join_next() => match done {
                    Ok(Done::Surveyed(survey)) => self.surveyed(survey),
                    Ok(Done::Reached(found)) => self.searched(found),
                    Err(failure) => self.job_failed(&failure),
                },
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => self.start_survey(),
            }
        }
    }

    // ---- Hints ----

    /// Takes a hint and all that wait behind it, so that many MOVED make one snapshot.
    fn take_hints(&mut self, first: Hint) {
        let now = Instant::now();
        let before = self.current();
        let mut patched: Option<Topology> = None;
        let mut hint = Some(first);
        while let Some(this) = hint {
            match &this {
                Hint::Moved { slot, address } => {
                    self.moved.insert(*slot, (address.clone(), now));
                    patched.get_or_insert_with(|| (*before).clone()).move_slot(*slot, address);
                }
                Hint::ConnectFailed { node } | Hint::Timeout { node } => self.doubt(node, now),
                Hint::ClusterDown | Hint::Readonly { .. } | Hint::Uncovered { .. } => {}
            }
            self.hurry(Trigger::of(&this), now);
            hint = self.hints.try_recv().ok();
        }
        if let Some(patched) = patched {
            self.publish(patched);
        }
    }

    fn doubt(&mut self, id: &str, now: Instant) {
        if let Some(found) = self.reached.get_mut(id) {
            found.doubted = true;
            self.suspects.insert(found.reach.clone(), now);
        }
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
        self.next = (now + jittered(self.settings.refresh_interval), Trigger::Periodic);
        self.suspects.retain(|_, since| now - *since < SUSPECT);
        let known = self.learnt.iter().map(|(server, _)| server.clone()).collect();
        let survey = survey::survey(self.candidates(), self.settings.login.clone(), self.settings.limits, known);
        self.jobs.spawn(async { Done::Surveyed(survey.await) });
    }

    /// Whom to ask, the best first: nodes that are well, seeds, nodes that failed lately, former nodes.
    fn candidates(&self) -> Vec<Address> {
        let current = self.current();
        let suspect = |address: &Address| self.suspects.contains_key(address);
        let seeds = shuffled(self.settings.seeds.clone());
        let nodes = shuffled(current.nodes.iter().map(|node| node.reach.clone()).collect());
        let (doubtful, well): (Vec<_>, Vec<_>) = nodes.into_iter().partition(suspect);
        // While the view has holes the seeds come first: they may know what the known nodes do not.
        let (first, second) = if current.covered() < SLOTS { (seeds, well) } else { (well, seeds) };
        let (later, first): (Vec<_>, Vec<_>) = first.into_iter().chain(second).partition(suspect);
        let former = self.former.iter().rev().cloned();
        let mut named = HashSet::new();
        first.into_iter().chain(later).chain(doubtful).chain(former).filter(|one| named.insert(one.clone())).collect()
    }

    fn surveyed(&mut self, survey: Survey) {
        let now = Instant::now();
        for failure in &survey.failures {
            self.suspects.insert(failure.node.clone(), now);
            debug!("refresh: {failure}");
        }
        for answer in &survey.answers {
            self.suspects.remove(&answer.asked);
            self.servers.insert(answer.name(), answer.server.clone());
        }
        self.take_learnt(&survey);
        let asked = survey.answers.iter().map(|answer| answer.asked.clone()).collect();
        let here: Vec<_> = survey.answers.iter().map(|answer| (answer.name(), answer.asked.clone())).collect();
        let failures = survey.failures_text();
        let outcome = match View::merge(survey.answers.into_iter().map(|answer| answer.view).collect()) {
            None => self.nobody_answered(&failures),
            Some(view) if self.is_stale(&view, now) => Outcome::Stale,
            Some(view) => self.believe(view, &here),
        };
        if self.current().covered() < SLOTS || matches!(outcome, Outcome::Failed | Outcome::Stale) {
            let soon = now + jittered(UNEASY_INTERVAL.min(self.settings.refresh_interval));
            if soon < self.next.0 {
                self.next = (soon, Trigger::Uncovered);
            }
        }
        self.report(outcome, asked, failures, now);
    }

    fn nobody_answered(&mut self, failures: &str) -> Outcome {
        let current = self.current();
        if current.covered() == 0 {
            self.publish(Topology {
                trouble: Some(format!("no node answered: {failures}").into()),
                ..(*current).clone()
            });
        } else if self.status.borrow().last_failure.is_none() {
            warn!("no node answered, the last known topology serves on: {failures}");
        }
        Outcome::Failed
    }

    /// Whether a view is older than one seen before: its node may be cut off from the others. It is believed all the
    /// same where it has no node in common with what is known, or where nothing newer has been seen for long.
    fn is_stale(&mut self, view: &View, now: Instant) -> bool {
        let epoch = view.epoch();
        let (newest, since) = self.newest;
        let of_this_cluster = view.seen.iter().any(|seen| self.reached.contains_key(&seen.id));
        if epoch < newest && of_this_cluster && now - since < STALE_COUNTS {
            debug!("a view of config epoch {epoch} is older than {newest}: not believed");
            return true;
        }
        self.newest = (epoch, now);
        false
    }

    /// Takes a view for true, and publishes it as soon as it is known where its nodes are reached.
    fn believe(&mut self, mut view: View, here: &[(String, Address)]) -> Outcome {
        // An address that was only guessed does not replace one that was given: node labels must not flap.
        for seen in view.seen.iter_mut().filter(|seen| seen.implied) {
            if let Some(known) = self.reached.get(&seen.id).filter(|known| known.announced.port == seen.announced.port)
            {
                let guess = std::mem::replace(&mut seen.announced, known.announced.clone());
                seen.alias(&guess.host);
            }
        }
        for seen in &view.seen {
            let given = |found: &Found| found.announced == seen.announced;
            if let Some(mapped) = self.settings.map.find(&seen.announced) {
                self.settle(Found::mapped(seen, mapped));
            } else if !self.reached.get(&seen.id).is_some_and(given)
                && here.iter().any(|(id, asked)| *id == seen.id && *asked == seen.announced)
            {
                self.settle(Found::announced(seen));
            }
        }
        self.view = Some(view);
        self.search();
        self.publish_view()
    }

    fn take_learnt(&mut self, survey: &Survey) {
        if let Some((server, commands)) = &survey.learnt {
            self.learnt.push((server.clone(), commands.clone()));
            info!("learnt {} commands from {:?} {}", commands.rows().len(), server.kind, server.version);
        }
    }

    fn report(&mut self, outcome: Outcome, asked: Vec<Address>, failures: String, now: Instant) {
        let Some((trigger, since)) = self.survey.take() else { return };
        let refresh = Refresh { trigger, outcome, took: now - since };
        (self.observer)(&refresh);
        self.status.send_modify(|status| {
            *status.refreshes.entry((trigger, outcome)).or_default() += 1;
            status.last_took = refresh.took;
            if outcome == Outcome::Failed {
                status.last_failure = Some((SystemTime::now(), failures));
            } else {
                status.asked = asked;
                status.last_success = Some(SystemTime::now());
                status.last_failure = None;
            }
        });
    }

    fn job_failed(&mut self, failure: &tokio::task::JoinError) {
        error!("a refresh ended in a fault: {failure}");
        self.survey = None;
        self.searching = false;
    }

    // ---- Reaching nodes ----

    /// Searches the nodes of the view that are not known to be reached anywhere, or no longer.
    fn search(&mut self) {
        let Some(view) = self.view.as_ref().filter(|_| !self.searching) else { return };
        let lost = |id: &str, announced: &Address| {
            self.reached.get(id).is_none_or(|found| !found.sure || found.doubted || found.announced != *announced)
        };
        let wanted: Vec<Wanted> =
            view.seen.iter().filter(|seen| lost(&seen.id, &seen.announced)).map(Wanted::from).collect();
        if wanted.is_empty() {
            return;
        }
        self.searching = true;
        let search =
            reach::search(wanted, self.settings.seeds.clone(), self.settings.login.clone(), self.settings.limits);
        self.jobs.spawn(async { Done::Reached(search.await) });
    }

    fn searched(&mut self, found: Vec<Found>) {
        self.searching = false;
        for found in found {
            self.settle(found);
        }
        if self.publish_view() == Outcome::Waiting {
            self.search();
        }
    }

    /// Notes where a node is reached, and says so where that is news.
    fn settle(&mut self, found: Found) {
        let before = self.reached.get(&found.id);
        let found = found.after(before);
        if before.is_none_or(|before| before.reach != found.reach || before.sure != found.sure) {
            found.log(before.is_some_and(|before| !before.sure));
        }
        self.reached.insert(found.id.clone(), found);
    }

    // ---- Snapshots ----

    fn current(&self) -> Arc<Topology> {
        self.topology.borrow().clone()
    }

    /// Publishes what the view and the latest MOVED come to, unless a node of it is still being searched for the first
    /// time. A node that is searched again serves on where it was.
    fn publish_view(&mut self) -> Outcome {
        let Some(view) = &self.view else { return Outcome::Failed };
        let placed = |found: &Found, announced: &Address| found.announced == *announced;
        if !view.seen.iter().all(|seen| self.reached.get(&seen.id).is_some_and(|found| placed(found, &seen.announced)))
        {
            return Outcome::Waiting;
        }
        let current = self.current();
        let nodes = view.nodes(&current.nodes, |seen| match self.reached.get(&seen.id) {
            Some(found) => found.reach.clone(),
            None => seen.announced.clone(),
        });
        let slots = view.slots.clone();
        self.servers.retain(|id, _| nodes.iter().any(|node| node.id == *id));
        let (server, commands) = self.newest_server(&current);
        let mut next = Topology { nodes, slots, server, commands, ..(*current).clone() };
        let now = Instant::now();
        self.moved.retain(|_, (_, since)| now - *since < MOVED_COUNTS);
        for (slot, (address, _)) in &self.moved {
            next.move_slot(*slot, address);
        }
        next.trouble = trouble(next.covered());
        if self.publish(next) { Outcome::Changed } else { Outcome::Same }
    }

    /// The newest server among the nodes, and its commands.
    fn newest_server(&self, current: &Topology) -> (Arc<ServerInfo>, Arc<CommandTable>) {
        let newest = self.servers.values().map(ServerInfo::newness).max();
        let learnt = newest.and_then(|newest| self.learnt.iter().find(|(server, _)| server.newness() == newest));
        match learnt {
            Some((server, _)) if *server == *current.server => (current.server.clone(), current.commands.clone()),
            Some((server, commands)) => (Arc::new(server.clone()), commands.clone()),
            None => (current.server.clone(), current.commands.clone()),
        }
    }

    /// Publishes a snapshot where it differs from the current one; its epoch only grows where requests would go
    /// elsewhere. Whether it does.
    fn publish(&mut self, mut next: Topology) -> bool {
        let current = self.current();
        let changed = !next.same_routes(&current);
        if !changed && next.trouble == current.trouble {
            return false;
        }
        next.epoch = current.epoch + u64::from(changed);
        let covered = next.covered();
        if next.trouble != current.trouble {
            match &next.trouble {
                Some(why) => info!("not all slots are served: {why}"),
                None => info!("all slots are served"),
            }
        }
        if changed {
            let (nodes, primaries, epoch) = (next.nodes.len(), next.primaries().count(), next.epoch);
            info!("topology {epoch}: {primaries} primaries, {} replicas, {covered} slots", nodes - primaries);
            for gone in current.departed(&next) {
                info!("node {} has left ({})", gone.label, gone.id);
                self.former.push(gone.reach.clone());
                self.reached.remove(&gone.id);
            }
            self.former.drain(..self.former.len().saturating_sub(MOST_FORMER));
        }
        let clash = next.clash();
        if clash.is_some() && clash != self.status.borrow().clash {
            error!("{}", clash.as_deref().unwrap_or_default());
        }
        let mapped = self.reached.values().filter_map(Found::mapping).collect();
        self.status.send_modify(|status| (status.clash, status.mapped) = (clash, mapped));
        self.topology.send_replace(Arc::new(next));
        changed
    }
}

/// Why not all slots are served.
fn trouble(covered: usize) -> Option<Arc<str>> {
    match covered {
        SLOTS => None,
        0 => Some("the nodes answer, but no slot has an owner: the cluster is not formed yet".into()),
        _ => Some(format!("{} of {SLOTS} slots have no owner", SLOTS - covered).into()),
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
