//! `slotway doctor`, from the image and from the host: it finds what is wrong where it is asked.

use std::{process::Command, time::Duration};

use super::{
    engine::{docker, images, said, try_docker, turn, until},
    host::{USER, Unreachable, binary_for_all, subnet_of},
    stack::{NODES, Stack},
    support::proxy::only_set_here,
};

#[test]
fn the_doctor_finds_what_is_wrong() {
    let Some(_turn) = turn() else { return };
    let stack = Stack::new("doctor", &["compose.yaml"]);
    stack.up(&[]);
    stack.formed();
    stack.healthy("proxy");

    inside_the_running_proxy(&stack);
    outside_the_network();
    on_the_host(&stack);
    a_node_in_protected_mode(&stack);
    a_node_that_announces_everybodys_own_machine(&stack);
    a_node_that_is_gone(&stack);
}

/// What the doctor says in a container of its own, on the cluster's network, and how it ends.
fn beside(stack: &Stack) -> (String, bool) {
    let run = ["run", "--rm", "--net", &stack.network(), &images().proxy, "doctor", "--allow-insecure-bind"];
    match try_docker(&[&run[..], &["--seeds", "redis-7000:7000,redis-7001:7001,redis-7002:7002"]].concat()) {
        Ok(said) => (said, true),
        Err(said) => (said, false),
    }
}

/// Asks until every part is said: what one node knows takes the others a moment.
#[track_caller]
fn comes_to_say(stack: &Stack, parts: &[&str]) {
    let mut last = String::new();
    let end = std::time::Instant::now() + Duration::from_secs(40);
    while std::time::Instant::now() < end {
        let (said, well) = beside(stack);
        if !well && parts.iter().all(|part| said.contains(part)) {
            return;
        }
        last = said;
    }
    panic!("the doctor does not come to say {parts:?}:\n{last}");
}

#[track_caller]
fn says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no {part:?} in:\n{text}");
    }
}

/// As deploy/README.md has it: the same configuration as the proxy, which is in the container's environment.
fn inside_the_running_proxy(stack: &Stack) {
    let said = stack.inside("proxy", &["/slotway", "doctor"]);
    says(
        &said,
        &[
            "ok       seeds: 3 of 3 lead to the cluster",
            "ok       addresses: 3 nodes are reached where they announce",
            "ok       slots: all 16384 slots have one owner",
            "ok       proxy: one runs here",
            "warning  replicas: no node has a replica",
            "no problems",
        ],
    );
    let (said, well) = beside(stack);
    assert!(well, "{said}");
    says(&said, &["ok       proxy: 0.0.0.0:6380 is free to listen on"]);
}

/// The commonest mistake: a container that is not on the nodes' network.
fn outside_the_network() {
    let image = &images().proxy;
    let said = try_docker(&["run", "--rm", image, "doctor", "--seeds", "redis-7000:7000"]).expect_err("a problem");
    says(&said, &["problem  seeds: cannot resolve redis-7000:7000", "docker run --net NETWORK", "exit status: 1"]);
}

/// Behind published ports, where the announced addresses are not reached.
fn on_the_host(stack: &Stack) {
    let seeds = stack.published_nodes();
    let flags = ["doctor", "--listen", "127.0.0.1:0", "--admin", "off", "--seeds", &seeds];
    let binary = binary_for_all();
    let said_to_root = said(only_set_here(&mut Command::new(&binary)).args(flags)).expect("no problem");
    says(&said_to_root, &["ok       slots: all 16384"]);
    let unreachable = match Unreachable::new(&subnet_of(stack)) {
        Ok(unreachable) => unreachable,
        Err(why) => return eprintln!("NOT SHOWN with unreachable addresses (this takes root and iptables): {why}"),
    };
    let as_user = ["--reuid", USER, "--regid", USER, "--clear-groups", "--"];
    let mapped =
        said(only_set_here(&mut Command::new("setpriv")).args(as_user).arg(&binary).args(flags)).expect("no problem");
    drop(unreachable);
    says(
        &mapped,
        &["warning  addresses: announced where this machine does not reach it", "address_map = [\"", "timed out"],
    );
    for (node, seed) in NODES.iter().zip(seeds.split(',')) {
        let rule = format!("\"{}:{}={seed}\"", stack.address(node), &node["redis-".len()..]);
        says(&mapped, &[&rule]);
    }
}

fn a_node_in_protected_mode(stack: &Stack) {
    let set = |value| assert_eq!(configure(stack, "redis-7001", "protected-mode", value), "OK");
    set("yes");
    comes_to_say(stack, &["problem  login: cannot connect to redis-7001:7001: DENIED", "protected-mode no"]);
    set("no");
    until("the node to be let in again", Duration::from_secs(20), || beside(stack).1.then_some(()));
}

fn a_node_that_announces_everybodys_own_machine(stack: &Stack) {
    assert_eq!(configure(stack, "redis-7002", "cluster-announce-ip", "127.0.0.1"), "OK");
    let remedy = format!("config set cluster-announce-ip {}", stack.address("redis-7002"));
    comes_to_say(stack, &["problem  addresses: 127.0.0.1:7002", "announces 127.0.0.1", &remedy]);
    assert_eq!(configure(stack, "redis-7002", "cluster-announce-ip", ""), "OK");
    stack.whole(&NODES);
}

fn a_node_that_is_gone(stack: &Stack) {
    let node = stack.container("redis-7000");
    docker(&["pause", &node]);
    comes_to_say(stack, &["problem  nodes: ", ":7000 (", "is down", "docker start NODE"]);
    docker(&["unpause", &node]);
}

fn configure(stack: &Stack, node: &str, key: &str, value: &str) -> String {
    let said = stack.ask_node(node, &["config", "set", key, value]);
    said.unwrap_or_else(|error| panic!("{error}")).trim().to_owned()
}
