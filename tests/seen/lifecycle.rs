//! From the start, before there is a cluster, to the end by SIGTERM; and nodes that are not where they say they are.

use std::{
    net::{Ipv4Addr, SocketAddr},
    thread,
    time::{Duration, Instant},
};

use crate::support::{
    Act, Client, Cluster, FakeNode, Proxy, Settings, Shape, cluster::shared, eventually, relay, until,
};

#[test]
fn it_may_start_before_the_nodes_and_before_the_cluster() {
    let mut cluster = Cluster::unformed(Shape::default());
    for node in &mut cluster.nodes {
        node.kill();
    }
    let mut proxy = Proxy::launch(Settings::new(cluster.seeds()).expecting_warnings());
    for stage in ["no node", "no slots"] {
        let start = Instant::now();
        let mut client = proxy.client();
        assert_eq!(client.line("PING"), "+PONG\r\n", "{stage}");
        let reply = client.line("GET foo");
        assert!(reply.0.starts_with(b"-CLUSTERDOWN "), "{stage}: {reply:?}");
        assert!(start.elapsed() < Duration::from_secs(6), "{stage}: {:?}", start.elapsed());
        let (status, why) = proxy.page("/readyz");
        assert_eq!(status, 503, "{stage}: {why}");
        assert_eq!(proxy.page("/livez").0, 200, "{stage}");
        proxy.assert_running();
        if stage == "no node" {
            cluster.nodes.iter_mut().for_each(crate::support::Node::restart);
        }
    }
    cluster.form();
    let formed = Instant::now();
    let mut client = proxy.client();
    until("the cluster to be served", Duration::from_secs(5), || {
        (client.line("SET foo bar") == "+OK\r\n").then_some(())
    });
    println!("served {:?} after the cluster formed", formed.elapsed());
    proxy.wait_until_ready(Duration::from_secs(2));
}

#[test]
fn part_of_a_cluster_is_served() {
    let cluster = Cluster::unformed(Shape::default());
    let mut client = cluster.node(0).client();
    assert_eq!(client.line("CLUSTER ADDSLOTSRANGE 12000 13000"), "+OK\r\n");
    until("the node to be well", Duration::from_secs(10), || (!client.line("GET foo").is_error()).then_some(()));
    let proxy =
        Proxy::launch(Settings::new(cluster.node(0).address()).with("RETRY_TIMEOUT", "300ms").expecting_warnings());
    let mut client = proxy.client();
    until("its slots to be served", Duration::from_secs(5), || (client.line("SET foo bar") == "+OK\r\n").then_some(()));
    let reply = client.line("GET bar");
    assert!(reply.0.starts_with(b"-CLUSTERDOWN "), "{reply:?}");
}

#[test]
fn sigterm_answers_what_is_in_flight() {
    let node = FakeNode::start();
    node.when("GET slow", Act::Hold(Box::new(Act::bulk("slow"))));
    node.always(|heard| Some(Act::bulk(&heard.args[1])));
    let proxy = Proxy::start(Settings::new(node.address()).with("REQUEST_TIMEOUT", "10s"));
    let (port, admin) = (proxy.port, proxy.admin);
    let mut busy = proxy.client();
    let mut idle = proxy.client();
    assert_eq!(idle.line("GET idle").string(), "idle");
    busy.send_raw(b"GET slow\r\nGET behind\r\n");
    node.wait_until_held(1);
    proxy.ask_to_end();
    eventually("new clients to be refused", || {
        Client::try_connect(&format!("127.0.0.1:{port}"))
            .is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
    });
    node.release();
    assert_eq!(busy.reply().string(), "slow");
    assert_eq!(busy.reply().string(), "behind");
    assert_eq!(busy.read_to_end().unwrap(), b"");
    assert_eq!(idle.read_to_end().unwrap(), b"");
    let start = Instant::now();
    proxy.shut_down();
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    for port in [port, admin] {
        std::net::TcpListener::bind(("127.0.0.1", port)).expect("the port is free at once");
    }
}

#[test]
fn sigterm_waits_no_longer_than_it_was_told() {
    let node = FakeNode::start();
    node.when("GET never", Act::FallSilent);
    let proxy = Proxy::start(
        Settings::new(node.address())
            .with("REQUEST_TIMEOUT", "60s")
            .with("DRAIN_TIMEOUT", "500ms")
            .expecting_warnings(),
    );
    let mut client = proxy.client();
    client.send(&["GET", "never"]);
    eventually("the node to hear", || node.count("GET never") == 1);
    let start = Instant::now();
    proxy.shut_down();
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
}

#[test]
fn sigterm_under_load_fails_no_request_that_was_answered() {
    let proxy = Proxy::before(shared());
    thread::scope(|scope| {
        let writers: Vec<_> = (0..4)
            .map(|number| {
                let mut client = proxy.client();
                scope.spawn(move || {
                    let key = format!("drained:{number}");
                    client.call(&["DEL", &key]);
                    let mut acknowledged = 0;
                    while let Ok(reply) = client.try_call(&["INCR", &key]) {
                        assert!(!reply.is_error(), "{reply:?}");
                        acknowledged = reply.integer();
                    }
                    (key, acknowledged)
                })
            })
            .collect();
        eventually("load", || proxy.metric("slotway_node_requests_total", &[]) > 500.0);
        proxy.ask_to_end();
        for writer in writers {
            let (key, acknowledged) = writer.join().expect("no error reply");
            let node = shared().node(shared().home_of(&key));
            let stored: i64 = node.line(&format!("GET {key}")).string().parse().expect("a number");
            assert!(stored - acknowledged <= 1, "{key}: {acknowledged} answered, {stored} done");
        }
    });
    proxy.shut_down();
}

/// A cluster whose nodes announce addresses at which only the other nodes reach them.
fn cluster_elsewhere(network: u8) -> (Cluster, Vec<Ipv4Addr>) {
    let shape = Shape { node_timeout: Duration::from_secs(30), ..Shape::default() };
    let cluster = Cluster::unformed(shape);
    let hosts: Vec<Ipv4Addr> = (0..3).map(|number| Ipv4Addr::new(127, 77, network, number + 1)).collect();
    for (node, host) in cluster.nodes.iter().zip(&hosts) {
        // The nodes' own bus works at those addresses; their clients' port does not.
        let real = SocketAddr::from((Ipv4Addr::LOCALHOST, node.bus));
        relay::relay(SocketAddr::from((*host, node.bus)), real).expect("a relay");
        assert_eq!(node.line(&format!("CONFIG SET cluster-announce-ip {host}")), "+OK\r\n");
    }
    cluster.form();
    for (node, host) in cluster.nodes.iter().zip(&hosts) {
        assert!(
            node.line("CLUSTER SLOTS").0.windows(8).any(|part| part == b"127.77.0" || part.starts_with(b"127.77."))
        );
        assert!(Client::try_connect(&format!("{host}:{}", node.port)).is_err(), "{host} is reachable");
    }
    (cluster, hosts)
}

#[test]
fn announced_addresses_may_be_unreachable() {
    let (cluster, hosts) = cluster_elsewhere(1);
    serves_everything(&cluster, &hosts);
}

#[test]
fn announced_addresses_may_swallow_connections() {
    let (cluster, hosts) = cluster_elsewhere(2);
    let holes: Vec<relay::BlackHole> = cluster
        .nodes
        .iter()
        .zip(&hosts)
        .map(|(node, host)| relay::BlackHole::at(SocketAddr::from((*host, node.port))).expect("a black hole"))
        .collect();
    serves_everything(&cluster, &hosts);
    drop(holes);
}

fn serves_everything(cluster: &Cluster, hosts: &[Ipv4Addr]) {
    let start = Instant::now();
    let proxy = Proxy::start(Settings::new(cluster.seeds()).expecting_warnings());
    let mut client = proxy.client();
    for index in 0..3 {
        let key = cluster.key_on(index, "elsewhere:");
        assert_eq!(client.call(&["SET", &key, &key]), "+OK\r\n");
        assert_eq!(client.call(&["GET", &key]).string(), key);
    }
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    // A redirection names the unreachable address, too.
    let key = cluster.key_on(0, "elsewhere:");
    cluster.move_slot(slotway::protocol::slot::Slot::of(key.as_bytes()).index(), 0, 1);
    assert_eq!(client.call(&["GET", &key]).string(), key);
    let log = proxy.shut_down();
    for host in hosts {
        assert!(log.contains(&host.to_string()), "the log does not say what {host} was mapped to:\n{log}");
    }
}

#[test]
fn silent_clients_are_closed_but_not_those_who_listen_or_wait() {
    let proxy = Proxy::start(Settings::new(shared().seeds()).with("CLIENT_IDLE_TIMEOUT", "1s"));
    let (mut silent, mut half) = (proxy.client(), proxy.client());
    let (mut subscriber, mut blocked, mut busy) = (proxy.client(), proxy.client(), proxy.client());
    assert_eq!(silent.line("PING"), "+PONG\r\n");
    half.send_raw(b"*2\r\n$3\r\nGET\r\n");
    assert!(subscriber.line("SUBSCRIBE idle:news").0.starts_with(b"*3\r\n"));
    blocked.send(&["BLPOP", "idle:queue", "0"]);
    until("the silent to be closed", Duration::from_secs(10), || {
        assert_eq!(busy.line("PING"), "+PONG\r\n");
        (proxy.metric("slotway_client_disconnects_total", &["reason=\"idle\""]) == 2.0).then_some(())
    });
    assert!(silent.read_to_end().expect("the end").is_empty());
    assert!(half.read_to_end().expect("the end").is_empty());
    assert_eq!(busy.line("PUBLISH idle:news hello"), ":1\r\n");
    assert!(subscriber.reply().0.ends_with(b"hello\r\n"));
    assert_eq!(busy.line("RPUSH idle:queue element"), ":1\r\n");
    assert_eq!(blocked.reply(), "*2\r\n$10\r\nidle:queue\r\n$7\r\nelement\r\n");
}
