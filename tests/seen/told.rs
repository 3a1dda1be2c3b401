//! What operators are told, wherever they look: what is assigned is not what is served, and each change of state is a line.

use std::{
    io::{Read, Write},
    net::TcpListener,
    thread,
    time::Duration,
};

use crate::support::{Cluster, Node, Proxy, Settings, Shape, eventually, ports::free_port, until};

/// In front of a cluster some of whose nodes are lost.
fn settings(cluster: &Cluster) -> Settings {
    Settings::new(cluster.seeds()).with("REFRESH_INTERVAL", "1s").with("RETRY_TIMEOUT", "300ms").expecting_warnings()
}

fn proxy_lines(proxy: &Proxy, command: &str) -> String {
    let mut client = proxy.client();
    client.line(command).texts().join("\n")
}

#[test]
fn a_lost_primary_is_told_wherever_one_looks() {
    let mut cluster = Cluster::three();
    let proxy = Proxy::start(settings(&cluster));
    let label = cluster.node(2).address();
    let reachable = |proxy: &Proxy| proxy.metric("slotway_slots_reachable", &[]);
    eventually("all slots to be served", || reachable(&proxy) == 16384.0);
    let ready = "ready: all 16384 slots are served by 3 primaries";
    eventually("it to be logged", || proxy.log().contains(ready));
    assert!(proxy.log().contains(&format!("listening on {}", proxy.address())), "{}", proxy.log());

    // Nobody sends anything: it is noticed all the same.
    cluster.nodes[2].kill();
    eventually("its slots to be known as lost", || reachable(&proxy) == 10923.0);
    assert_eq!(proxy.metric("slotway_slots_assigned", &[]), 16384.0);
    assert_eq!(proxy.metric("slotway_node_up", &[&format!("node=\"{label}\"")]), 0.0);
    let since = format!("{label} does not answer since ");
    let (status, page) = proxy.page("/readyz");
    assert!(status == 200 && page.contains(&since) && page.contains("slots 10923-16383"), "{status} {page}");
    let (_, page) = proxy.page("/api/status");
    assert!(page.contains("\"slots_reachable\":10923") && page.contains(&since), "{page}");
    let info = proxy_lines(&proxy, "PROXY INFO");
    assert!(info.contains("slots_assigned:16384\nslots_reachable:10923\ntrouble:") && info.contains(&since), "{info}");
    let nodes = proxy_lines(&proxy, "PROXY NODES");
    assert!(nodes.contains(&format!("{label} primary")) && nodes.contains(" lost since "), "{nodes}");
    let log = proxy.log();
    for line in [
        format!("node {label} cannot be reached: connection refused; slots 10923-16383 answer errors"),
        format!("10923 of 16384 slots are served by 2 primaries: {since}"),
    ] {
        assert!(log.contains(&line), "no line {line:?} in\n{log}");
    }

    let (mut client, key) = (proxy.client(), cluster.key_on(2, "lost:"));
    (0..3).for_each(|_| assert!(client.line(&format!("GET {key}")).is_error()));
    let failed = || proxy.metric("slotway_node_failed_requests_total", &[&format!("node=\"{label}\"")]);
    eventually("them to be counted", || failed() == 3.0);

    cluster.nodes[2].restart();
    eventually("all slots to be served", || reachable(&proxy) == 16384.0);
    eventually("it to be logged", || {
        let log = proxy.log();
        log.contains(&format!("node {label} is back after "))
            && log.contains("3 requests to it have failed so far")
            && log.contains("all 16384 slots are served by 3 primaries again")
    });
    assert_eq!(proxy.page("/readyz").1, "{\"ready\":true}");
}

#[test]
fn who_took_over_which_slots_from_whom_is_logged() {
    let cluster = Cluster::start(Shape { replicas: 1, ..Shape::default() });
    let proxy = Proxy::start(settings(&cluster));
    let follows = |index: usize| cluster.node(index).info("master_port") == cluster.node(0).port.to_string();
    let replica = (3..6).find(|&index| follows(index));
    let replica = replica.expect("a replica of the first node");
    let (old, new) = (cluster.node(0).address(), cluster.node(replica).address());
    cluster.fail_over_to(replica, "");
    let line = format!("fail-over: {new} took over slots 0-546");
    eventually("the fail-over to be logged", || proxy.log().contains(&line));
    eventually("the former primary to be known as a replica", || {
        let log = proxy.log();
        log.contains(&format!("from {old}, which is its replica now"))
            || log.contains(&format!("node {old} is a replica of {new} now"))
    });
    assert!(!proxy.log().contains("has left"), "{}", proxy.log());
}

#[test]
fn who_has_just_joined_is_no_primary() {
    let mut cluster = Cluster::three();
    let proxy = Proxy::start(settings(&cluster));
    let added = cluster.add_node();
    let label = cluster.node(added).address();
    eventually("it to be known", || proxy_lines(&proxy, "PROXY NODES").contains(&format!("{label} empty ")));
    let log = proxy.log();
    assert!(log.contains(&format!("node {label} has joined: it has no slots yet")), "{log}");
    assert_eq!(proxy.metric("slotway_node_up", &[&format!("node=\"{label}\""), "role=\"empty\""]), 1.0);
    cluster.move_slot(0, 0, added);
    let line = format!("1 slot moved from {} to {label}: slot 0", cluster.node(0).address());
    // The proxy learns of it at its next refresh, and waits whether more follow.
    until("the move to be logged", Duration::from_secs(20), || proxy.log().contains(&line).then_some(()));
    assert!(proxy_lines(&proxy, "PROXY NODES").contains(&format!("{label} primary ")));
}

#[test]
fn a_seed_that_leads_nowhere_is_told_though_others_serve() {
    let cluster = Cluster::three();
    let (dead, bad) = (free_port(), "no-such-name.invalid:7000");
    let seeds = format!("{},127.0.0.1:{dead},{bad}", cluster.node(0).address());
    let proxy = Proxy::start(Settings::new(seeds).expecting("cannot be reached, the others serve"));
    let lines = [
        format!(
            "WARN seed 127.0.0.1:{dead} cannot be reached, the others serve: connection refused; is the node running"
        ),
        format!("WARN seed {bad} cannot be reached, the others serve: "),
    ];
    for line in &lines {
        eventually("it to be told", || proxy.log().contains(line));
    }
    assert_eq!(proxy.log().matches("the others serve").count(), 2, "{}", proxy.log());
    assert_eq!(proxy.page("/readyz").1, "{\"ready\":true}");
}

#[test]
fn a_node_is_called_by_the_host_name_that_it_announces() {
    let mut cluster = Cluster::three();
    let port = cluster.node(0).port;
    for node in &cluster.nodes {
        assert_eq!(node.line("CONFIG SET cluster-announce-hostname red-a.example"), "+OK\r\n");
    }
    let proxy = Proxy::start(settings(&cluster));
    let (name, address) = (format!("red-a.example:{port}"), cluster.node(0).address());
    until("the name to be known", Duration::from_secs(30), || {
        proxy_lines(&proxy, "PROXY NODES").contains(&format!("{name} primary ")).then_some(())
    });
    // It is reached where it is all the same, and found by either.
    let (mut client, key) = (proxy.client(), cluster.key_on(0, "named:"));
    assert_eq!(client.line(&format!("SET {key} v")), "+OK\r\n");
    for known in [&name, &address] {
        assert_eq!(client.line(&format!("PROXY NODE {known} GET {key}")), "$1\r\nv\r\n");
    }
    let labels = [format!("node=\"{name}\""), format!("address=\"{address}\"")];
    assert_eq!(proxy.metric("slotway_node_info", &[&labels[0], &labels[1]]), 1.0);
    assert!(proxy.metric("slotway_node_requests_total", &[&labels[0]]) > 0.0);
    cluster.nodes[0].kill();
    let line = format!("node {name} cannot be reached: connection refused; slots 0-5461 answer errors");
    eventually("it to be told by its name", || proxy.log().contains(&line));
    assert!(proxy.page("/readyz").1.contains(&format!("{name} does not answer since ")));
}

/// Says what a web server says to whatever comes.
fn web_server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("its address").port();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
        }
    });
    port
}

#[test]
fn that_nothing_works_is_an_error_with_the_remedy() {
    let plain = Node::standalone();
    for (seed, why, remedy) in [
        ("no-such-name.invalid:7000".to_owned(), "no-such-name.invalid:7000", "is the name right"),
        (format!("127.0.0.1:{}", free_port()), "connection refused", "is the node running"),
        (plain.address(), "cluster support disabled", "cluster-enabled yes"),
        (format!("127.0.0.1:{}", web_server()), "does not speak the Redis protocol", "no Redis"),
    ] {
        let proxy = Proxy::launch(Settings::new(&seed).with("LOG", "warn").expecting("nothing is served"));
        eventually("it to be logged", || proxy.log().contains("nothing is served"));
        let log = proxy.log();
        assert!(log.contains(" ERROR ") && log.contains(why) && log.contains(remedy), "{seed}:\n{log}");
        let (status, page) = proxy.page("/readyz");
        assert!(status == 503 && page.contains(why), "{status} {page}");
    }
}
