//! What operators see: true per-node counts, clean for Prometheus, and bounded.

use std::{
    io::Write,
    process::{Command, Stdio},
    time::Instant,
};

use crate::support::{Cluster, Proxy, Settings, cluster::shared, eventually};

#[test]
fn every_request_is_counted_at_its_node() {
    let cluster = Cluster::three();
    let proxy = Proxy::before(&cluster);
    let mut client = proxy.client();
    let keys: Vec<String> = (0..3).map(|index| cluster.key_on(index, "counted:")).collect();
    let label = |index: usize| format!("node=\"{}\"", cluster.node(index).address());
    let before: Vec<f64> = (0..3).map(|index| proxy.metric("slotway_node_requests_total", &[&label(index)])).collect();
    for (index, key) in keys.iter().enumerate() {
        let requests: Vec<Vec<&str>> = (0..500 * (index + 1)).map(|_| vec!["SET", key, "v"]).collect();
        client.pipeline(&requests);
    }
    for (index, before) in before.into_iter().enumerate() {
        let sent = 500.0 * (index + 1) as f64;
        eventually("the counts to be published", || {
            let counted = proxy.metric("slotway_node_requests_total", &[&label(index)]) - before;
            counted >= sent && counted <= sent * 1.1
        });
        eventually("the durations to be published", || {
            proxy.metric("slotway_node_request_duration_seconds_count", &[&label(index)]) >= sent
        });
        assert_eq!(proxy.metric("slotway_node_up", &[&label(index)]), 1.0);
        assert!(proxy.metric("slotway_node_connections", &[&label(index)]) >= 1.0);
        assert!(proxy.metric("slotway_node_sent_bytes_total", &[&label(index)]) > sent);
        assert!(proxy.metric("slotway_node_received_bytes_total", &[&label(index)]) > sent);
    }
    assert_eq!(proxy.metric("slotway_node_slots", &[]), 16384.0);
    assert_eq!(proxy.metric("slotway_slots_assigned", &[]), 16384.0);
    assert_eq!(proxy.metric("slotway_ready", &[]), 1.0);
    assert_eq!(proxy.metric("slotway_build_info", &[]), 1.0);
    assert_eq!(proxy.metric("slotway_client_connections", &[]), 1.0);
    assert!(proxy.metric("slotway_client_received_bytes_total", &[]) > 3000.0);
    assert!(proxy.metric("slotway_client_sent_bytes_total", &[]) > 3000.0);
    assert!(proxy.metric("process_resident_memory_bytes", &[]) > 0.0);
}

#[test]
fn a_node_that_announces_another_address_is_counted_by_that() {
    let cluster = Cluster::three();
    // It is reached where it was before: the connections are as good as ever, the name is not.
    let proxy = Proxy::start(Settings::new(cluster.seeds()).with("ADDRESS_MAP", "127.0.0.0/8=127.0.0.1"));
    let (mut client, key) = (proxy.client(), cluster.key_on(0, "renamed:"));
    let former = format!("node=\"{}\"", cluster.node(0).address());
    let label = format!("node=\"127.0.0.9:{}\"", cluster.node(0).port);
    let count = |labels: &str| proxy.metric("slotway_node_requests_total", &[labels]);
    client.call(&["SET", &key, "v"]);
    eventually("the request to be counted", || count(&former) > 0.0);
    assert_eq!(cluster.node(0).line("CONFIG SET cluster-announce-ip 127.0.0.9"), "+OK\r\n");
    eventually("requests to be counted by the new address", || {
        client.call(&["SET", &key, "v"]);
        count(&label) > 0.0
    });
    eventually("the connections of the former name to close", || {
        proxy.metric("slotway_node_connections", &[&former]) == 0.0
    });
}

#[test]
fn what_goes_on_connections_of_its_own_is_counted_too() {
    let cluster = Cluster::three();
    let proxy = Proxy::start(Settings::new(cluster.seeds()).with("WORKERS", 1));
    let mut client = proxy.client();
    let key = cluster.key_on(0, "own:");
    let node = format!("node=\"{}\"", cluster.node(0).address());
    let count = |name: &str| proxy.metric(name, &[&node]);
    // SUBSCRIBE goes to a node that the proxy chooses.
    let requests = || proxy.metric("slotway_node_requests_total", &[]);

    for _ in 0..20 {
        assert_eq!(client.line(&format!("BLPOP {key} 0.01")).0, b"*-1\r\n");
    }
    eventually("each wait to be counted", || count("slotway_node_requests_total") == 20.0);
    eventually("the bytes of each", || count("slotway_node_sent_bytes_total") > 20.0 * key.len() as f64);
    eventually("those of the last answer", || count("slotway_node_received_bytes_total") >= 20.0 * 5.0);
    assert_eq!(count("slotway_node_request_duration_seconds_count"), 0.0, "a client's patience is no node's slowness");

    client.line(&format!("WATCH {key}"));
    client.line("MULTI");
    client.line(&format!("SET {key} v"));
    assert_eq!(client.line("EXEC").0, b"*1\r\n+OK\r\n");
    eventually("WATCH and the transaction", || count("slotway_node_requests_total") == 22.0);
    eventually("their durations", || count("slotway_node_request_duration_seconds_count") == 2.0);

    let mut subscriber = proxy.client();
    subscriber.line("SUBSCRIBE own");
    // And a HELLO of the proxy's own, where it asks what the node calls the connection.
    eventually("the subscription", || (23.0..=24.0).contains(&requests()));
    assert_eq!(client.line("PUBLISH own news").integer(), 1);
    eventually("the message", || proxy.metric("slotway_node_received_bytes_total", &[]) > 200.0);

    let mut waiting: Vec<_> = (0..20).map(|_| proxy.client()).collect();
    let before = count("slotway_node_connections");
    waiting.iter_mut().for_each(|client| client.send(&["BLPOP", "{own}none", "0"]));
    eventually("their connections", || proxy.metric("slotway_blocked_clients", &[]) == 20.0);
    let connections = || proxy.metric("slotway_node_connections", &[]);
    eventually("their connections", || connections() >= before + 15.0);
    let most = connections();
    drop(waiting);
    // Spare ones stay.
    eventually("their connections to end", || connections() <= most - 12.0);
    assert_eq!(proxy.metric("slotway_node_inflight_requests", &[]), 0.0);
    assert_eq!(proxy.metric("slotway_node_queued_bytes", &[]), 0.0);
}

#[test]
fn nodes_that_have_left_are_let_go_where_nobody_sends_anything() {
    let mut cluster = Cluster::three();
    let extra = cluster.add_node();
    let key = cluster.key_on(0, "left:");
    let slot = cluster.node(0).line(&format!("CLUSTER KEYSLOT {key}")).integer() as usize;
    cluster.move_slot(slot, 0, extra);
    let proxy = Proxy::start(Settings::new(cluster.node(0).address()).with("WORKERS", 1).expecting_warnings());
    let mut client = proxy.client();
    client.line(&format!("GET {key}"));
    client.line(&format!("BLPOP {key} 0.01"));
    let node = format!("node=\"{}\"", cluster.node(extra).address());
    let connections = || proxy.metric("slotway_node_connections", &[&node]);
    eventually("connections to the node", || connections() >= 2.0);
    drop(client);
    cluster.move_slot(slot, extra, 0);
    let id = cluster.id(extra);
    for index in 0..extra {
        cluster.node(index).line(&format!("CLUSTER FORGET {id}"));
    }
    eventually("them to be closed", || connections() == 0.0);
}

#[test]
fn prometheus_finds_nothing_to_complain_of() {
    let proxy = Proxy::before(shared());
    let mut client = proxy.client();
    client.line("SET prom:a 1");
    client.line("MGET prom:a prom:b prom:c");
    client.line("NOSUCH");
    let (status, page) = proxy.page("/metrics");
    assert_eq!(status, 200);
    let checker = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut checker = checker
        .unwrap_or_else(|error| panic!("promtool: {error}; Debian's package prometheus has it, tests/run installs it"));
    checker.stdin.take().expect("its input").write_all(page.as_bytes()).expect("writing");
    let result = checker.wait_with_output().expect("its result");
    let said = String::from_utf8_lossy(&[result.stdout, result.stderr].concat()).into_owned();
    assert!(result.status.success() && said.trim().is_empty(), "{said}\n{page}");
}

#[test]
fn series_are_bounded_and_errors_are_told_apart() {
    let proxy = Proxy::start(Settings::new(shared().seeds()).expecting_warnings());
    let mut client = proxy.client();
    client.line("SET bounded:a text");
    eventually("the first series", || proxy.page("/metrics").1.contains("slotway_commands_total"));
    let series = |proxy: &Proxy| proxy.page("/metrics").1.lines().filter(|line| !line.starts_with('#')).count();
    let before = series(&proxy);
    for number in 0..600 {
        client.line(&format!("JUNK{number} a{number}"));
    }
    assert!(client.line("INCR bounded:a").is_error());
    let start = Instant::now();
    let after = series(&proxy);
    assert!(start.elapsed().as_millis() < 500, "a scrape took {:?}", start.elapsed());
    assert!(after < before + 60, "{before} series became {after}");
    eventually("junk to be counted", || proxy.metric("slotway_commands_total", &["command=\"other\""]) >= 600.0);
    assert!(!proxy.page("/metrics").1.contains("junk"), "a client's word became a label");
}
