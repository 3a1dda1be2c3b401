//! A node broken in any of four ways (killed, frozen, cut off, slow): whoever looks is told which one, since when, and whom it
//! hurts, be it a primary or a replica that no slot depends on.

use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::Duration,
};

use serde_json::Value;

use super::{
    alerts::Stop,
    top::{top, url},
};
use crate::support::{Client, Cluster, Namespace, Proxy, Settings, Shape, eventually, until};

/// How long it takes until a node that nobody hears of is given up.
const NOTICED: Duration = Duration::from_secs(20);

fn settings(cluster: &Cluster) -> Settings {
    Settings::new(cluster.seeds())
        .with("REFRESH_INTERVAL", "1s")
        .with("RETRY_TIMEOUT", "300ms")
        .with("REQUEST_TIMEOUT", "1s")
        .with("NODE_TIMEOUT", "2s")
        .expecting_warnings()
}

fn status(proxy: &Proxy) -> Value {
    serde_json::from_str(&proxy.page("/api/status").1).expect("JSON")
}

fn node(status: &Value, label: &str) -> Option<Value> {
    status["nodes"].as_array()?.iter().find(|node| node["node"] == label).cloned()
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

/// What a node that is broken in some way is called.
struct Broken<'a> {
    label: &'a str,
    role: &'a str,
    /// How all is: `part`, or `warn` where all slots are served.
    state: &'a str,
    is_slow: bool,
    hurts: &'a str,
    logged: &'a str,
}

impl Broken<'_> {
    fn is_told(&self, proxy: &Proxy, how: &str) {
        let Broken { label, role, state, is_slow, hurts, logged } = self;
        let (what, word, since) = match is_slow {
            true => ("is slow", "SLOW", "slow_since"),
            false => ("does not answer", "LOST", "lost_since"),
        };
        let named = format!("{label} {what} since ");
        let told = until(&format!("{how}: the page to say it"), NOTICED, || {
            let status = status(proxy);
            (text(&status, "sentence").contains(&named) && text(&status, "state") == *state).then_some(status)
        });
        let node = node(&told, label).unwrap_or_default();
        assert!(text(&node, "role") == *role && node["up"] == *is_slow && node["slow"] == *is_slow, "{how}: {node}");
        let age = told["time"].as_u64().zip(node[since].as_u64()).map(|(now, since)| now - since);
        assert!(age.is_some_and(|age| age < 30) && text(&node, "hurts").contains(hurts), "{how}: {node}");
        assert!(text(&told, "sentence").contains(hurts), "{how}: {told}");
        let shown = String::from_utf8(top(&[&url(proxy), "--once"]).stdout).expect("text");
        let line = shown.lines().find(|line| line.contains(label) && line.contains(word));
        assert!(line.is_some() && shown.contains(&named), "{how}:\n{shown}");
        let nodes = proxy.client().line("PROXY NODES").texts().join("\n");
        let since = if *is_slow { " slow since " } else { " lost since " };
        let line = nodes.lines().find(|line| line.starts_with(&format!("{label} {role} ")));
        assert!(line.is_some_and(|line| line.contains(since)), "{how}:\n{nodes}");
        let labels = [format!("node=\"{label}\""), format!("role=\"{role}\"")];
        let up = proxy.metric("slotway_node_up", &[&labels[0], &labels[1]]);
        assert_eq!(up, f64::from(u8::from(*is_slow)), "{how}");
        assert!(proxy.log().contains(&format!("node {label} {logged}")), "{how}:\n{}", proxy.log());
    }
}

fn is_well(proxy: &Proxy, how: &str) {
    until(&format!("{how}: all to be well"), NOTICED, || (text(&status(proxy), "state") == "ok").then_some(()));
}

/// Asks for these keys until told to stop, whatever becomes of it.
fn asks(proxy: &Proxy, keys: &[String], stop: &AtomicBool) {
    let mut client = proxy.client();
    while !stop.load(Relaxed) {
        keys.iter().for_each(|key| drop(client.call(&["GET", key])));
        thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_primary_that_is_killed_frozen_or_slow_is_named() {
    let mut cluster = Cluster::three();
    let proxy = Proxy::start(settings(&cluster));
    let (label, keys) = (cluster.node(2).address(), [0, 1, 2].map(|index| cluster.key_on(index, "broken:")));
    let lost = Broken {
        label: &label,
        role: "primary",
        state: "part",
        is_slow: false,
        hurts: "slots 10923-16383 answer errors",
        logged: "cannot be reached: ",
    };
    is_well(&proxy, "before");
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| asks(&proxy, &keys, &stop));
        let _stop = Stop(&stop);
        cluster.nodes[2].kill();
        lost.is_told(&proxy, "killed");
        cluster.nodes[2].restart();
        is_well(&proxy, "killed");

        cluster.nodes[2].pause();
        lost.is_told(&proxy, "frozen");
        cluster.nodes[2].resume();
        is_well(&proxy, "frozen");

        let well = AtomicBool::new(false);
        thread::scope(|scope| {
            let (node, well) = (&cluster.nodes[2], &well);
            scope.spawn(move || {
                let mut client: Client = node.client();
                while !well.load(Relaxed) {
                    client.line("DEBUG SLEEP 0.12");
                    thread::sleep(Duration::from_millis(5));
                }
            });
            let _well = Stop(well);
            let hurts = "requests for slots 10923-16383 wait";
            Broken { state: "warn", is_slow: true, hurts, logged: "is slow: ", ..lost }.is_told(&proxy, "slow");
        });
        is_well(&proxy, "slow");
    });
}

#[test]
fn a_primary_that_is_cut_off_is_named() {
    Namespace::run("a_primary_that_is_cut_off_is_named", |network| {
        let cluster = Cluster::three();
        let proxy = Proxy::start(settings(&cluster));
        let (label, key) = (cluster.node(2).address(), cluster.key_on(2, "cut:"));
        is_well(&proxy, "before");
        // To the other nodes it is there: they talk by other ports.
        network.cut_off(cluster.node(2).port);
        assert!(proxy.client().call(&["GET", &key]).is_error());
        let hurts = "slots 10923-16383 answer errors";
        let (role, state, logged) = ("primary", "part", "cannot be reached: ");
        Broken { label: &label, role, state, is_slow: false, hurts, logged }.is_told(&proxy, "cut off");
        network.join_again(cluster.node(2).port);
        is_well(&proxy, "cut off");
    });
}

#[test]
fn a_node_that_no_slot_depends_on_stays_in_sight() {
    let mut cluster = Cluster::start(Shape { replicas: 1, node_timeout: Duration::from_secs(3), ..Shape::default() });
    let proxy = Proxy::start(settings(&cluster));
    is_well(&proxy, "before");
    let follows = |index: usize| cluster.node(index).info("master_port") == cluster.node(0).port.to_string();
    let replica = (3..6).find(|&index| follows(index)).expect("a replica of the first node");
    let (label, id) = (cluster.node(replica).address(), cluster.id(replica));
    let (primary, first_id) = (cluster.node(0).address(), cluster.id(0));
    let left = format!("no slot depends on it, but {primary} has no replica left");
    let lost = Broken {
        label: &label,
        role: "replica",
        state: "warn",
        is_slow: false,
        hurts: &left,
        logged: "cannot be reached: ",
    };
    let is_failed = |cluster: &Cluster, id: &str| {
        let nodes = cluster.node(1).line("CLUSTER NODES").string();
        nodes.lines().any(|line| line.starts_with(id) && line.contains("fail ") && !line.contains("fail?"))
    };

    cluster.nodes[replica].kill();
    lost.is_told(&proxy, "killed");
    // The others show it to no client any more.
    until("the others to hold it for failed", NOTICED, || is_failed(&cluster, &id).then_some(()));
    eventually("that to be told", || proxy.log().contains("the others hold it for failing"));
    lost.is_told(&proxy, "held for failed");
    // Who comes only now sees it, too.
    let late = Proxy::start(settings(&cluster));
    until("the late one to know it", NOTICED, || {
        let status = status(&late);
        (node(&status, &label)?["up"] == false && text(&status, "state") == "warn").then_some(())
    });
    cluster.nodes[replica].restart();
    is_well(&proxy, "the replica");
    is_well(&late, "the replica, for the late one");
    let log = proxy.log();
    assert!(log.contains(&format!("node {label} is back after ")) && !log.contains("has joined"), "{log}");

    // Its primary dies, and it takes over: the former primary is lost, and no slot is.
    cluster.nodes[0].kill();
    cluster.wait_until_primary(replica);
    let hurts = "no slot depends on it";
    Broken { label: &primary, role: "empty", hurts, ..lost }.is_told(&proxy, "failed over");
    // Once all are told to forget it, it is forgotten here, too.
    until("the others to hold it for failed", NOTICED, || is_failed(&cluster, &first_id).then_some(()));
    (1..6).for_each(|index| drop(cluster.node(index).line(&format!("CLUSTER FORGET {first_id}"))));
    is_well(&proxy, "forgotten");
    assert!(node(&status(&proxy), &primary).is_none());
    assert!(proxy.log().contains(&format!("node {primary} has left")), "{}", proxy.log());
}

#[test]
fn who_is_lost_is_named_where_the_whole_cluster_is_down() {
    let shape = Shape { full_coverage: true, node_timeout: Duration::from_secs(3), ..Shape::default() };
    let mut cluster = Cluster::start(shape);
    let proxy = Proxy::start(settings(&cluster));
    is_well(&proxy, "before");
    cluster.nodes[2].kill();
    let silent = format!("{} does not answer since ", cluster.node(2).address());
    until("the cause to be told", NOTICED, || {
        let (code, reason) = proxy.page("/readyz");
        let down = reason.split_once("cluster_state:fail");
        (code == 503 && down.is_some_and(|(_, cause)| cause.contains(&silent))).then_some(())
    });
    let status = status(&proxy);
    assert!(text(&status, "state") == "down" && text(&status, "sentence").contains(&silent), "{status}");
    assert!(proxy.log().contains("nothing is served") && proxy.log().contains(&silent), "{}", proxy.log());
    cluster.nodes[2].restart();
    is_well(&proxy, "after");
}
