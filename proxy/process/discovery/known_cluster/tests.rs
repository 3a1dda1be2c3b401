use super::*;
use crate::cluster::topology::{NOBODY, Seen};

/// A view in which each node (host, id, config epoch) owns a hundred slots, the first from slot 0 on.
fn view(nodes: &[(&str, &str, u64)]) -> View {
    let seen = |&(host, id, epoch): &(&str, &str, u64)| Seen { epoch, ..Seen::bare(id, Address::new(host, 7000)) };
    let mut slots = Box::new([NOBODY; SLOTS]);
    (0..nodes.len()).for_each(|index| slots[index * 100..][..100].fill(index as u16));
    View { seen: nodes.iter().map(seen).collect(), slots, fallen: Vec::new() }
}

/// What is known of a cluster that has found each node of a view where it announces.
fn known_cluster(view: &View) -> KnownCluster {
    let mut known_cluster = KnownCluster::new(Arc::default());
    known_cluster.believe(view.clone(), &[], &Vec::new());
    view.seen.iter().for_each(|seen| known_cluster.settle(ReachedNode::announced(seen)));
    known_cluster
}

fn unknown() -> Topology {
    Topology::unknown("")
}

fn owner(topology: &Topology, slot: u64) -> &str {
    topology.owner(Slot::new(slot).unwrap()).map_or("", |node| &node.id)
}

#[test]
fn a_node_is_searched_before_it_is_served() {
    let seen = view(&[("10.0.0.1", "a", 1), ("10.0.0.2", "b", 2)]);
    let mut known_cluster = KnownCluster::new(Arc::default());
    known_cluster.believe(seen.clone(), &[("a".to_owned(), Address::new("10.0.0.1", 7000))], &Vec::new());
    assert!(known_cluster.layout(&unknown(), Instant::now()).is_none());
    let lost: Vec<String> = known_cluster.lost().iter().map(|wanted| wanted.id.clone()).collect();
    assert_eq!(lost, ["b"], "a was met where it announces");
    known_cluster.settle(ReachedNode::announced(&seen.seen[1]));
    let topology = known_cluster.layout(&unknown(), Instant::now()).unwrap();
    assert_eq!((owner(&topology, 0), owner(&topology, 100), topology.covered()), ("a", "b", 200));
    assert_eq!(topology.trouble.as_deref(), Some("16184 of 16384 slots have no owner"));
}

#[test]
fn an_older_view_is_disbelieved_for_a_while() {
    let now = Instant::now();
    let new = view(&[("10.0.0.1", "a", 7), ("10.0.0.2", "b", 2)]);
    let old = view(&[("10.0.0.1", "a", 1), ("10.0.0.2", "b", 2)]);
    let known_cluster = known_cluster(&new);
    assert!(!known_cluster.is_stale(&new, now));
    assert!(known_cluster.is_stale(&old, now), "its node is cut off");
    assert!(
        !known_cluster.is_stale(&old, now + STALE_COUNTS + Duration::from_secs(1)),
        "for good: nothing newer was seen"
    );
    assert!(!known_cluster.is_stale(&view(&[("10.0.0.1", "z", 1)]), now), "a new cluster at the old addresses");
}

#[test]
fn a_moved_outweighs_views_until_gossip_has_spread() {
    let now = Instant::now();
    let behind = view(&[("10.0.0.1", "a", 1), ("10.0.0.2", "b", 2)]);
    let mut known_cluster = known_cluster(&behind);
    known_cluster.moved(Slot::new(5).unwrap(), Address::new("10.0.0.2", 7000), now);
    known_cluster.believe(behind.clone(), &[], &Vec::new());
    let topology = known_cluster.layout(&unknown(), now).unwrap();
    assert_eq!((owner(&topology, 4), owner(&topology, 5), owner(&topology, 6)), ("a", "b", "a"));
    let later = known_cluster.layout(&topology, now + MOVED_COUNTS + Duration::from_secs(1)).unwrap();
    assert_eq!(owner(&later, 5), "a", "the nodes insist");
}

#[test]
fn a_doubted_node_serves_on_while_it_is_searched() {
    let seen = view(&[("10.0.0.1", "a", 1)]);
    let mut known_cluster = known_cluster(&seen);
    assert!(known_cluster.lost().is_empty());
    assert_eq!(known_cluster.doubt("a"), Some(Address::new("10.0.0.1", 7000)));
    assert_eq!(known_cluster.doubt("unknown"), None);
    assert_eq!(known_cluster.lost().len(), 1);
    assert!(known_cluster.layout(&unknown(), Instant::now()).is_some());
    assert!(known_cluster.is_up("a"));
}

#[test]
fn what_the_operator_has_mapped_is_looked_for_there_alone() {
    let mut known_cluster = KnownCluster::new(Arc::new("10.0.0.0/8=127.0.0.1".parse().unwrap()));
    known_cluster.believe(view(&[("10.0.0.1", "a", 1)]), &[], &Vec::new());
    assert!(known_cluster.lost().is_empty());
    let topology = known_cluster.layout(&unknown(), Instant::now()).unwrap();
    let node = topology.owner(Slot::new(0).unwrap()).unwrap();
    assert_eq!((node.reach.to_string().as_str(), &*node.label), ("127.0.0.1:7000", "10.0.0.1:7000"));
    known_cluster.doubt("a");
    assert_eq!(known_cluster.lost().len(), 1, "a worker has trouble with it");
}

#[test]
fn a_guessed_address_does_not_replace_a_given_one() {
    let given = view(&[("10.0.0.1", "a", 1)]);
    let mut known_cluster = known_cluster(&given);
    let mut guessed = view(&[("seed", "a", 1)]);
    guessed.seen[0].implied = true;
    known_cluster.believe(guessed, &[], &Vec::new());
    let topology = known_cluster.layout(&unknown(), Instant::now()).unwrap();
    assert_eq!(&*topology.nodes[0].label, "10.0.0.1:7000");
    assert_eq!(topology.nodes[0].aliases, ["seed"]);
}

#[test]
fn a_node_that_moves_is_searched_anew() {
    let mut known_cluster = known_cluster(&view(&[("10.0.0.1", "a", 1)]));
    known_cluster.believe(view(&[("10.0.0.9", "a", 1)]), &[], &Vec::new());
    assert!(known_cluster.layout(&unknown(), Instant::now()).is_none());
    assert_eq!(known_cluster.lost().len(), 1);
}
