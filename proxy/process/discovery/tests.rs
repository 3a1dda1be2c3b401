use std::time::Duration;

use super::*;
use crate::{
    cluster::topology::{Hints, Redirect},
    process::discovery::scripted::{Network, slots},
    protocol::slot::{SLOTS, Slot},
};

const A: &str = "10.0.0.1:7000";
const B: &str = "10.0.0.2:7000";
/// Half of the slots each.
const HALVES: [(usize, usize, &str, &str); 2] = [(0, 8191, A, "a"), (8192, SLOTS - 1, B, "b")];

/// A discovery at work over scripted nodes, and what it publishes.
struct Learning {
    network: Network,
    topology: watch::Receiver<Arc<Topology>>,
    hints: Hints,
    stop: CancellationToken,
}

impl Drop for Learning {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Learning {
    /// The cluster of these nodes says that its slots are so.
    fn begin(network: Network, seeds: &[&str]) -> Learning {
        let seeds = seeds.iter().map(|seed| seed.parse::<Address>().unwrap()).collect();
        let config = Config { seeds, ..Config::defaults() };
        let (publisher, topology) = watch::channel(Arc::new(Topology::unknown("")));
        let (hints, hints_in) = Hints::channel(64);
        let stop = CancellationToken::new();
        let discovery = Discovery::new(&config, network.dialer(), publisher, hints_in, Metrics::new());
        tokio::spawn(discovery.run(stop.clone()));
        Learning { network, topology, hints, stop }
    }

    /// Two nodes that own half of the slots each, learnt.
    async fn of_halves() -> Learning {
        let network = Network::default();
        network.start(A, "a");
        network.start(B, "b");
        say(&network, &HALVES);
        let mut learning = Learning::begin(network, &[A, B]);
        learning.until("all is served", Duration::from_secs(1), |topology| topology.reachable() == SLOTS).await;
        learning
    }

    /// Waits until the topology is so; how long that took. Fails where it takes longer than `patience`.
    async fn until(&mut self, what: &str, patience: Duration, is_so: impl Fn(&Topology) -> bool) -> Duration {
        let began = Instant::now();
        let found = tokio::time::timeout(patience, self.topology.wait_for(|topology| is_so(topology))).await;
        let is_found = matches!(found, Ok(Ok(_)));
        drop(found);
        assert!(is_found, "{what}: {:?}", self.topology.borrow());
        began.elapsed()
    }

    fn owner(&self, slot: u64) -> String {
        let topology = self.topology.borrow();
        topology.owner(Slot::new(slot).unwrap()).map_or_else(String::new, |node| node.id.clone())
    }
}

/// Has both nodes tell these slots.
fn say(network: &Network, ranges: &[(usize, usize, &str, &str)]) {
    for at in [A, B] {
        network.says(at, "CLUSTER SLOTS", &slots(ranges));
    }
}

#[tokio::test(start_paused = true)]
async fn a_cluster_is_learnt_from_any_seed_that_answers() {
    let network = Network::default();
    network.start(A, "a");
    network.start(B, "b");
    say(&network, &HALVES);
    let mut learning = Learning::begin(network, &["10.0.0.8:1", B, "10.0.0.9:1"]);
    let took = learning.until("all is served", Duration::from_secs(1), |topology| topology.reachable() == SLOTS).await;
    assert!(took < Duration::from_millis(10), "{took:?}");
    assert_eq!((learning.owner(0), learning.owner(SLOTS as u64 - 1)), ("a".to_owned(), "b".to_owned()));
    assert_eq!(learning.topology.borrow().trouble, None);
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_forms_is_served_within_a_second() {
    let network = Network::default();
    network.start(A, "a");
    network.says(A, "CLUSTER SLOTS", &slots(&[]));
    let mut learning = Learning::begin(network.clone(), &[A]);
    let says = |topology: &Topology, what: &str| topology.trouble.as_deref().is_some_and(|why| why.contains(what));
    let second = Duration::from_secs(1);
    learning.until("it says why", second, |topology| says(topology, "not formed yet")).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    network.start(B, "b");
    say(&network, &HALVES);
    learning
        .until("it is served", second, |topology| topology.reachable() == SLOTS && topology.trouble.is_none())
        .await;
}

#[tokio::test(start_paused = true)]
async fn where_nobody_answers_it_is_said_why_and_looked_again() {
    let mut learning = Learning::begin(Network::default(), &[A]);
    let second = Duration::from_secs(1);
    let why = format!("no node answered: {A}: connection refused");
    learning.until("it says why", second, |topology| topology.trouble.as_deref() == Some(&why)).await;
    learning.network.start(A, "a");
    learning.network.says(A, "CLUSTER SLOTS", &slots(&[(0, SLOTS - 1, A, "a")]));
    learning.until("it is served", second, |topology| topology.reachable() == SLOTS).await;
}

#[tokio::test(start_paused = true)]
async fn a_moved_counts_at_once_and_outweighs_nodes_that_have_not_heard_of_it() {
    let mut learning = Learning::of_halves().await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    let from = learning.topology.borrow().node("a").unwrap().clone();
    let (before, epoch) = (learning.network.heard(A, "CLUSTER SLOTS"), learning.topology.borrow().epoch);
    let redirect = Redirect::parse(b"MOVED 7 10.0.0.2:7000").unwrap();
    learning.hints.tell(Hint::Moved { redirect, from });
    let slot = Slot::new(7).unwrap();
    let is_moved = |topology: &Topology| topology.owner(slot).is_some_and(|node| node.id == "b");
    let took = learning.until("the slot is moved", Duration::from_millis(1), is_moved).await;
    assert_eq!((took, learning.topology.borrow().epoch), (Duration::ZERO, epoch + 1));
    assert_eq!(learning.owner(8), "a", "no other is");
    // The survey that follows is told the old owner: gossip takes about a second.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(learning.network.heard(A, "CLUSTER SLOTS") > before, "it has looked at once");
    assert_eq!(learning.owner(7), "b");
    learning.until("the nodes are believed", Duration::from_secs(5), |topology| !is_moved(topology)).await;
}

#[tokio::test(start_paused = true)]
async fn a_storm_of_hints_makes_few_surveys() {
    let learning = Learning::of_halves().await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    let asked = || [A, B].map(|at| learning.network.heard(at, "CLUSTER SLOTS")).iter().sum::<usize>();
    let before = asked();
    for _ in 0..10_000 {
        learning.hints.tell(Hint::Timeout { node: "a".to_owned() });
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let surveys = (asked() - before) / 2;
    assert!((15..=30).contains(&surveys), "{surveys} within ten seconds");
}

#[tokio::test(start_paused = true)]
async fn the_last_layout_serves_on_where_nobody_answers_and_all_are_found_again() {
    let mut learning = Learning::of_halves().await;
    let network = learning.network.clone();
    network.stop(A).await;
    network.stop(B).await;
    let both_lost = |topology: &Topology| topology.lost("a").is_some() && topology.lost("b").is_some();
    learning.until("they are lost", Duration::from_secs(15), both_lost).await;
    assert_eq!(learning.topology.borrow().covered(), SLOTS, "requests still know where to go");
    tokio::time::sleep(Duration::from_secs(30)).await;
    network.start(A, "a");
    network.start(B, "b");
    let none_lost = |topology: &Topology| topology.reachable() == SLOTS;
    learning.until("they are back", Duration::from_secs(2), none_lost).await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_killed_costs_the_others_nothing() {
    let mut learning = Learning::of_halves().await;
    learning.network.stop(B).await;
    learning.hints.tell(Hint::ConnectFailed { node: "b".to_owned(), said: None });
    let is_lost = |topology: &Topology| topology.lost("b").is_some();
    let took = learning.until("it is lost", Duration::from_secs(2), is_lost).await;
    assert!(took < Duration::from_millis(600), "{took:?}");
    assert_eq!(learning.topology.borrow().reachable(), 8192);
}

#[tokio::test(start_paused = true)]
async fn a_seed_in_another_cluster_has_no_say() {
    let mut learning = Learning::of_halves().await;
    learning.network.says(B, "CLUSTER SLOTS", &slots(&[(0, SLOTS - 1, "10.0.9.9:7000", "z")]));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!((learning.owner(0), learning.owner(9000)), ("a".to_owned(), "b".to_owned()));
    // For good, where nobody of the old cluster answers any more.
    learning.network.start("10.0.9.9:7000", "z");
    learning.network.stop(A).await;
    let is_other = |topology: &Topology| topology.owner(Slot::of(b"foo")).is_some_and(|node| node.id == "z");
    learning.until("the other one is served", Duration::from_secs(60), is_other).await;
}
