//! Containers come back with other addresses: the cluster of our compose files heals by itself, and the proxy serves
//! again within three seconds of the cluster's own recovery, without being restarted.

use std::time::Duration;

use super::{
    engine::{docker, turn},
    stack::{NODES, Sample, Stack},
};

const SOON: Duration = Duration::from_secs(3);

#[test]
fn containers_come_back_at_other_addresses() {
    let Some(_turn) = turn() else { return };
    let stack = Stack::new("addresses", &["compose.yaml"]);
    stack.up(&[]);
    stack.formed();
    stack.healthy("proxy");
    let mut client = stack.client();
    let sample = Sample::write(&mut client, 60);
    let container = stack.container("proxy");
    let started = || docker(&["inspect", "--format", "{{.State.StartedAt}} {{.RestartCount}}", &container]);
    let first_start = started();
    let mut served_again = |what: &str| {
        stack.whole(&NODES);
        let after = sample.served_after(&stack.proxy(), &mut client, SOON);
        println!("{what}: served {after:?} after the cluster's recovery");
        assert_eq!(started(), first_start, "{what}: the proxy was restarted");
    };

    docker(&["restart", "-t", "2", &stack.container("redis-7001")]);
    served_again("docker restart");

    // One node recreated; its old address is another container's by then.
    let before = stack.address("redis-7002");
    stack.compose(&["rm", "-sf", "redis-7002"]);
    stack.occupy(std::slice::from_ref(&before));
    stack.up(&["redis-7002"]);
    assert_ne!(stack.address("redis-7002"), before);
    served_again("one node recreated");

    // All of them stopped and started in another order: nodes get each other's addresses.
    let before = NODES.map(|node| stack.address(node));
    let containers = NODES.map(|node| stack.container(node));
    docker(&[&["stop", "-t", "2"], &containers.each_ref().map(String::as_str)[..]].concat());
    stack.vacate();
    for container in [&containers[2], &containers[0], &containers[1]] {
        docker(&["start", container]);
    }
    assert_ne!(NODES.map(|node| stack.address(node)), before);
    served_again("all nodes started in another order");

    // All of them recreated, in yet another order, and no address as before.
    let before = NODES.map(|node| stack.address(node));
    stack.compose(&[&["rm", "-sf"], &NODES[..]].concat());
    stack.occupy(&before);
    for node in [NODES[1], NODES[2], NODES[0]] {
        stack.up(&[node]);
    }
    for node in NODES {
        assert!(!before.contains(&stack.address(node)), "{node}: {before:?}");
    }
    served_again("all nodes recreated");
}

#[test]
fn down_and_up_keeps_the_data() {
    let Some(_turn) = turn() else { return };
    let stack = Stack::new("downup", &["compose.yaml"]);
    stack.up(&[]);
    stack.formed();
    stack.healthy("proxy");
    let sample = Sample::write(&mut stack.client(), 60);
    let before = NODES.map(|node| stack.address(node));
    let names = ["redis-7000:7000", "redis-7001:7001", "redis-7002:7002"];
    assert_eq!(stack.labels(), names);
    stack.compose(&["down", "-t", "2"]);

    // The proxy first, then the nodes in another order, after somebody who takes an address away from them.
    stack.up(&["proxy"]);
    stack.occupy(&before[..1]);
    for node in ["redis-7002", "redis-7000", "redis-7001"] {
        stack.up(&[node]);
    }
    assert_ne!(NODES.map(|node| stack.address(node)), before);
    stack.up(&["cluster"]);
    stack.formed();
    stack.whole(&NODES);
    let mut client = stack.client();
    sample.served_after(&stack.proxy(), &mut client, SOON);
    stack.healthy("proxy");
    assert_eq!(stack.labels(), names, "their series go on, though their addresses are others");
}
