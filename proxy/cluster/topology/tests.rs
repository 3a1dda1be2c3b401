//! Topologies, owners and redirects.

use super::*;

fn topology(map: &str) -> Topology {
    let reply = b"*2\r\n*4\r\n:0\r\n:8191\r\n*4\r\n$9\r\n10.0.0.11\r\n:7000\r\n$1\r\na\r\n*2\r\n$8\r\nhostname\r\n$5\r\nred-a\r\n\
        *4\r\n$9\r\n10.0.0.13\r\n:7002\r\n$1\r\nc\r\n*0\r\n\
        *3\r\n:8192\r\n:16382\r\n*4\r\n$9\r\n10.0.0.12\r\n:7001\r\n$1\r\nb\r\n*0\r\n";
    let (value, _) = Value::parse(reply).unwrap().unwrap();
    let map = if map.is_empty() { AddressMap::default() } else { AddressMap::parse(&[map]).unwrap() };
    Topology::from_slots(&value, &Address::new("10.0.0.11", 7000), Arc::new(map)).unwrap()
}

fn slot(number: u64) -> Slot {
    Slot::new(number).unwrap()
}

#[test]
fn owners_and_counts() {
    let topology = topology("");
    assert_eq!(&*topology.owner(slot(8191)).unwrap().label, "10.0.0.11:7000");
    assert_eq!(topology.owner(slot(8192)).unwrap().id, "b");
    assert!(topology.owner(slot(16383)).is_none());
    assert_eq!(topology.covered(), 16383);
    assert_eq!(topology.primaries().count(), 2);
    let primary = topology.node("a").unwrap();
    assert_eq!(topology.replicas(primary).map(|node| node.id.as_str()).collect::<Vec<_>>(), ["c"]);
    assert_eq!(topology.slot_counts().iter().sum::<usize>(), 16383);
}

#[test]
fn moved_patches_one_slot_and_no_other() {
    let old = topology("10.0.0.0/16=127.0.0.1");
    let moved = |topology: &Topology, host, port| {
        let mut next = topology.with_layout(topology.nodes.clone(), topology.slots.clone());
        next.move_slot(slot(100), &Address::new(host, port)).then_some(next)
    };
    let new = moved(&old, "10.0.0.12", 7001).unwrap();
    assert_eq!(new.epoch, old.epoch + 1);
    let changed: Vec<usize> = (0..SLOTS).filter(|&slot| old.slots[slot] != new.slots[slot]).collect();
    assert_eq!(changed, [100]);
    assert_eq!(new.owner(slot(100)).unwrap().id, "b");
    assert!(moved(&new, "10.0.0.12", 7001).is_none(), "there already");

    assert!(moved(&old, "10.0.0.99", 7009).is_none(), "nobody is known there");

    let new = moved(&old, "10.0.0.13", 7002).unwrap();
    let promoted = new.owner(slot(100)).unwrap();
    assert_eq!((promoted.id.as_str(), promoted.role), ("c", Role::Primary));
    assert!(Arc::ptr_eq(new.node("a").unwrap(), old.node("a").unwrap()), "others keep their Arc");
}

#[test]
fn redirects_find_their_target_in_every_form() {
    let topology = topology("");
    let from = topology.node("a").unwrap();
    for (text, expected) in [
        ("MOVED 1 10.0.0.12:7001", Some("b")),
        ("MOVED 1 red-a:7000", Some("a")),
        ("MOVED 1 :7000", Some("a")),
        ("MOVED 1 :7001", Some("b")),
        ("MOVED 1 :7777", None),
        ("ASK 1 ?:7002", Some("c")),
        ("ASK 1 ?:7777", None),
        ("MOVED 1 10.0.0.99:7001", None),
        ("MOVED 1 ::1:7000", None),
    ] {
        let redirect = Redirect::parse(text.as_bytes()).unwrap();
        let target = topology.target(&redirect, from);
        assert_eq!(target.as_ref().map(|node| node.id.as_str()), expected, "{text}");
    }
}

#[test]
fn two_nodes_at_one_address_are_named() {
    assert_eq!(topology("").clash(), None);
    let mut clashing = topology("");
    let reach = clashing.nodes[0].reach.clone();
    clashing.nodes[2] = Arc::new(Node { reach, ..(*clashing.nodes[2]).clone() });
    let text = clashing.clash().unwrap();
    assert!(text.contains("10.0.0.11:7000 (a)") && text.contains("10.0.0.13:7002 (c)"), "{text}");
}

#[test]
fn departed_nodes_are_told() {
    let old = topology("");
    let mut new = old.clone();
    new.nodes.truncate(2);
    assert_eq!(old.departed(&new).map(|node| node.id.as_str()).collect::<Vec<_>>(), ["c"]);
    assert_eq!(new.departed(&old).count(), 0);
}
