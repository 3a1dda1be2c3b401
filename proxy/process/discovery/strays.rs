//! Seeds that lead to no node of the cluster, while others do: mistyped, or of machines that are gone. Nobody would notice before
//! the others fail, too.

use std::time::Duration;

use tokio::{task::JoinSet, time::Instant};

use super::{Discovery, Done};
use crate::{
    metrics::events::EventKind,
    protocol::{address::Address, names::Name},
    upstream::dial::{Control, DialError, Dialer, Login},
};

/// How often they are looked for, and logged.
const AGAIN: Duration = Duration::from_secs(60);
/// The most time that a seed may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// Seeds that are asked each time.
const MOST_ASKED: usize = 16;

/// The seeds among these that cannot be reached, and why.
pub async fn unreachable(seeds: Vec<Address>, login: Login, dialer: Dialer) -> Vec<DialError> {
    let dialer = dialer.within(dialer.patience().min(PATIENCE));
    let mut asking = JoinSet::new();
    for seed in seeds.into_iter().take(MOST_ASKED) {
        let (login, dialer) = (login.clone(), dialer.clone());
        asking.spawn(async move { Control::open(&seed, &login, &dialer).await.err() });
    }
    let mut failures: Vec<DialError> = asking.join_all().await.into_iter().flatten().collect();
    failures.sort_by_key(|failure| failure.node.to_string());
    failures
}

impl Discovery {
    /// Looks for seeds that lead nowhere, where that is due. One that is a known node's address is not asked: that node
    /// is told of.
    pub(super) fn look_for_strays(&mut self, now: Instant) {
        if self.strays_looked.is_some_and(|last| now - last < AGAIN) {
            return;
        }
        self.strays_looked = Some(now);
        let strays: Vec<Address> =
            self.contacts.seeds.iter().filter(|seed| !self.known_cluster.is_node_at(seed)).cloned().collect();
        if !strays.is_empty() {
            let looking = unreachable(strays, self.login.clone(), self.dialer.clone());
            self.jobs.spawn(async { Done::Strays(looking.await) });
        }
    }

    /// Logs those that were found.
    pub(super) fn tell_strays(&self, failures: &[DialError]) {
        for failure in failures {
            let (seed, why, remedy) = (&failure.node, &failure.why, failure.remedy());
            let text = Name::Seed.on(format!("seed {seed} cannot be reached, the others serve: {why}; {remedy}"));
            self.metrics.events().warn(EventKind::NodeLost, text);
        }
    }
}
