//! Learning the cluster and keeping up with it: the only writer of the [`Topology`].
//!
//! One task, one refresh at a time. A refresh asks at most three nodes that are well, or as many as it takes until one
//! answers (`survey`); what they say goes into the `KnownCluster`, which makes snapshots of it. Workers send [`Hint`]s. A
//! MOVED patches its one slot at once; the refresh that it asks for follows, never sooner than a gap that grows while
//! hints keep coming. Nobody waits for a refresh: the last snapshot serves until there is a better one.

mod contacts;
mod failing;
mod framing;
mod functions;
mod hints;
mod identity;
mod known_cluster;
mod moves;
mod names;
mod publish;
pub mod reach;
mod schedule;
#[cfg(test)]
pub(super) mod scripted;
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
    contacts::Contacts,
    functions::{Functions, Outcome},
    identity::ClusterIdentity,
    known_cluster::KnownCluster,
    moves::Moves,
    names::Resolved,
    publish::Notices,
    reach::ReachedNode,
    schedule::{Found, Schedule},
    survey::{NodeAnswer, Survey},
};
use crate::{
    cluster::topology::{Hint, Role, Topology, View},
    config::Config,
    metrics::{Metrics, Trigger, events::EventKind},
    protocol::{address::Address, names::Name},
    upstream::dial::{Credentials, DialError, DialStep, Dialer, Login},
};

/// How long nodes that do not tell the proxy's user their limits are not asked again: it would fill their ACL LOG.
const ASK_AGAIN: Duration = Duration::from_secs(600);
/// The task that learns the cluster.
pub struct Discovery {
    /// Whom to ask.
    contacts: Contacts,
    login: Login,
    dialer: Dialer,
    publisher: watch::Sender<Arc<Topology>>,
    hints: mpsc::Receiver<Hint>,
    metrics: Metrics,

    known_cluster: KnownCluster,
    /// Addresses in other clusters, as complained of.
    strangers: HashSet<Address>,
    /// Where another node was met in the place of a known one, and who that is.
    supplanted: HashMap<Address, String>,
    /// Since when nodes do not tell what they take from a connection.
    secretive: Option<Instant>,
    /// Nodes that turn connections away, and since when that has been logged.
    turned_away: HashMap<String, Instant>,
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
    schedule: Schedule,
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
            contacts: Contacts::new(config.seeds.to_vec()),
            login: Login { credentials: Credentials::of(config), ..Login::default() },
            dialer,
            publisher,
            hints,
            metrics,
            known_cluster: KnownCluster::new(map),
            strangers: HashSet::new(),
            supplanted: HashMap::new(),
            secretive: None,
            turned_away: HashMap::new(),
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
            schedule: Schedule::new(config.refresh_interval, Instant::now()),
        }
    }

    /// Learns the cluster until cancelled.
    pub async fn run(mut self, cancel: CancellationToken) {
        loop {
            let due = self.survey.is_none().then(|| self.schedule.due());
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

    // ---- Surveys ----

    fn start_survey(&mut self) {
        let (now, current) = (Instant::now(), self.current());
        self.survey = Some((self.schedule.begin(now), now));
        let candidates = self.contacts.candidates(&current, now);
        let (identity, known) = (ClusterIdentity::of(&current), self.known_cluster.known_servers());
        let asks_limits = self.secretive.is_none_or(|since| now - since >= ASK_AGAIN);
        let (login, dialer) = (self.login.clone(), self.dialer.clone());
        let resolving = names::resolve(self.contacts.seeds.clone(), dialer.clone());
        let survey = survey::survey(candidates, identity, login, dialer, known, asks_limits);
        self.jobs.spawn(async {
            let (survey, resolved) = tokio::join!(survey, resolving);
            Done::Surveyed(Survey { resolved, ..survey })
        });
    }

    fn surveyed(&mut self, mut survey: Survey) {
        let now = Instant::now();
        let Some((trigger, since)) = self.survey.take() else { return };
        for failure in &survey.failures {
            debug!("refresh: {failure}");
            self.contacts.suspect(failure.node.clone(), now);
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
            self.contacts.answered(&answer.asked);
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
        let found = if !well || current.trouble.is_some() {
            Found::Trouble(if current.nodes.is_empty() { Trigger::Start } else { Trigger::Uncovered })
        } else if self.known_cluster.misses_nodes() || self.known_cluster.has_failing(now) {
            Found::Failing
        } else {
            let mut shares = current.nodes.iter().zip(current.slot_counts());
            Found::Well { idle_primary: shares.any(|(node, slots)| node.role == Role::Primary && slots == 0) }
        };
        self.schedule.surveyed(found, now);
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
        let search = reach::search(lost, self.contacts.seeds.clone(), self.login.clone(), self.dialer.clone());
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
}

/// The standard library seeds each `RandomState` anew: random enough to choose whom to ask.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests;
