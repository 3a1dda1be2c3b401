//! The visits: to the seeds first, then to every node of the cluster that they lead to.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Duration,
};

use tokio::task::JoinSet;

use super::chart::Chart;
use crate::{
    cluster::topology::{Seen, View},
    config::Config,
    process::discovery::reach::{self, ReachedNode, SoughtNode},
    protocol::address::Address,
    upstream::{
        dial::{Credentials, DialError, Dialer, Login},
        transport::tls::to_nodes::ToNodes,
    },
};

/// The most time that connecting, or an answer, may take: a frozen node is not to hold up the report.
const PATIENCE: Duration = Duration::from_secs(1);
/// The most nodes that are visited.
const MOST_NODES: usize = 256;

/// What a visit brought.
pub type Visit = Result<Chart, DialError>;

/// One node of the cluster.
pub struct Patient {
    /// What the others say of it.
    pub seen: Seen,
    /// Where it is reached.
    pub found: ReachedNode,
    /// What it says; `None` where it is nowhere to be found.
    pub chart: Option<Visit>,
}

/// All that is known once everybody has been asked.
pub struct Exam<'a> {
    /// The configuration that led here.
    pub config: &'a Config,
    /// The seeds' answers, in their order.
    pub seeds: Vec<(Address, Visit)>,
    /// The seeds, by their places in `seeds`, that are in one cluster: the one to be served first.
    pub clusters: Vec<Vec<usize>>,
    /// What the views of that cluster's seeds come to.
    pub view: Option<View>,
    /// Its nodes.
    pub members: Vec<Patient>,
    /// How they are asked.
    pub dialer: Dialer,
}

impl<'a> Exam<'a> {
    /// Visits everybody.
    pub async fn of(config: &'a Config, tls: Option<ToNodes>) -> Exam<'a> {
        let login = Login { credentials: Credentials::of(config), ..Login::default() };
        let dialer = Dialer::of(config, tls).within(config.connect_timeout.min(PATIENCE));
        let mut answers = visit(config.seeds.iter().cloned(), &login, &dialer).await;
        let seeds: Vec<(Address, Visit)> = config.seeds.iter().filter_map(|seed| answers.remove_entry(seed)).collect();
        let clusters = clusters(&seeds);
        let mut exam = Exam { config, seeds, clusters, view: None, members: Vec::new(), dialer: dialer.clone() };
        let views: Vec<View> = exam.joined().filter_map(|chart| chart.view.clone().ok()).collect();
        exam.view = View::merge(views);
        exam.visit_members(login, dialer).await;
        exam
    }

    /// What the seeds of the cluster say.
    fn joined(&self) -> impl Iterator<Item = &Chart> {
        let places = self.clusters.first().into_iter().flatten();
        places.filter_map(|&place| self.seeds.get(place)?.1.as_ref().ok())
    }

    /// Finds where each member is reached, as discovery would, and visits those that are no seeds.
    async fn visit_members(&mut self, login: Login, dialer: Dialer) {
        let seen: Vec<Seen> = self.view.iter().flat_map(|view| view.seen.iter().take(MOST_NODES).cloned()).collect();
        let (mapped, lost): (Vec<&Seen>, Vec<&Seen>) =
            seen.iter().partition(|seen| self.config.address_map.find(&seen.announced).is_some());
        let wanted = lost.into_iter().map(|seen| SoughtNode::of(seen, None)).collect();
        let mut found = reach::search(wanted, self.config.seeds.to_vec(), login.clone(), dialer.clone()).await;
        found.extend(
            mapped.into_iter().map(|seen| ReachedNode::mapped(seen, self.config.address_map.apply(&seen.announced))),
        );
        let places: HashMap<&str, &ReachedNode> = found.iter().map(|found| (found.id.as_str(), found)).collect();
        let asked: HashSet<&Address> = self.seeds.iter().map(|(seed, _)| seed).collect();
        let unasked = found.iter().filter(|found| found.sure && !asked.contains(&found.reach));
        let mut charts = visit(unasked.map(|found| found.reach.clone()), &login, &dialer).await;
        let members = seen.iter().filter_map(|seen| {
            let found = (*places.get(seen.id.as_str())?).clone();
            let chart = charts.remove(&found.reach);
            Some(Patient { seen: seen.clone(), found, chart })
        });
        self.members = members.collect();
    }

    /// The charts of all members that answered, each with its member.
    pub fn charts(&self) -> impl Iterator<Item = (&Patient, &Chart)> + '_ {
        self.members.iter().filter_map(|member| Some((member, self.chart(member)?)))
    }

    /// What a member said, as a seed or when it was visited.
    pub fn chart<'b>(&'b self, member: &'b Patient) -> Option<&'b Chart> {
        let visited = member.chart.as_ref().and_then(|visit| visit.as_ref().ok());
        let as_seed = || {
            let seed = self.seeds.iter().find(|(seed, _)| member.found.sure && *seed == member.found.reach)?;
            seed.1.as_ref().ok()
        };
        visited.or_else(as_seed)
    }

    /// `host:port` of a node id, as the cluster has it.
    pub fn name(&self, id: &str) -> String {
        let member = self.members.iter().find(|member| member.seen.id == id);
        member.map_or_else(|| id.to_owned(), |member| member.seen.announced.to_string())
    }
}

async fn visit(addresses: impl Iterator<Item = Address>, login: &Login, dialer: &Dialer) -> HashMap<Address, Visit> {
    let addresses: HashSet<Address> = addresses.take(MOST_NODES).collect();
    let mut visits = JoinSet::new();
    for address in addresses {
        let (login, dialer) = (login.clone(), dialer.clone());
        visits.spawn(async move { (address.clone(), Chart::take(address, login, dialer).await) });
    }
    visits.join_all().await.into_iter().collect()
}

/// Which seeds are in one cluster: one of the two knows the other, or both know a third. The cluster with the most slots
/// comes first.
fn clusters(seeds: &[(Address, Visit)]) -> Vec<Vec<usize>> {
    let mut groups: Vec<(HashSet<&str>, Vec<usize>)> = Vec::new();
    for (place, (_, visit)) in seeds.iter().enumerate() {
        let Some(chart) = visit.as_ref().ok().filter(|chart| chart.view.is_ok()) else { continue };
        let mut known: HashSet<&str> = chart.members().into_keys().chain(chart.id()).collect();
        let mut places = vec![place];
        let (same, others): (Vec<_>, Vec<_>) = groups.into_iter().partition(|(ids, _)| !ids.is_disjoint(&known));
        groups = others;
        for (ids, more) in same {
            known.extend(ids);
            places.extend(more);
        }
        places.sort_unstable();
        groups.push((known, places));
    }
    let covered = |places: &[usize]| {
        let views = places.iter().filter_map(|&place| seeds.get(place)?.1.as_ref().ok()?.view.as_ref().ok());
        views.map(View::covered).max().unwrap_or(0)
    };
    let ranked: BTreeMap<_, _> = groups
        .into_iter()
        .map(|(ids, places)| ((usize::MAX - covered(&places), usize::MAX - ids.len(), places[0]), places))
        .collect();
    ranked.into_values().collect()
}
