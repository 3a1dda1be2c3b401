use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use super::*;
use crate::{
    cluster::topology::Lost,
    metrics::{NodeState, Slots},
    protocol::{address::Address, resp::Value},
};

/// A running admin server, and what it shows.
struct Stage {
    topology: watch::Sender<Arc<Topology>>,
    metrics: Metrics,
    shutdown: CancellationToken,
    stop: CancellationToken,
    admin: Admin,
}

impl Stage {
    fn set() -> Stage {
        let (topology, seen) = watch::channel(Arc::new(Topology::unknown("no seed has answered yet")));
        let (metrics, shutdown, stop) = (Metrics::new(), CancellationToken::new(), CancellationToken::new());
        let clients = Arc::new(Clients::new(1 << 20));
        clients.account(0, 4096);
        let view = AdminView {
            topology: seen,
            descriptors: Descriptors::new(100, 10, 1),
            metrics: metrics.clone(),
            shutdown: shutdown.clone(),
            clients,
            login: Login::default(),
            dialer: Dialer::default(),
            publishers: Vec::new(),
            show_keys: true,
        };
        let admin = Admin::start("127.0.0.1:0".parse().unwrap(), None, false, None, view, stop.clone()).unwrap();
        Stage { topology, metrics, shutdown, stop, admin }
    }

    /// One node, owner of all slots.
    fn know_a_node(&self, up: bool) {
        let reply = b"*1\r\n*3\r\n:0\r\n:16383\r\n*3\r\n$9\r\n127.0.0.1\r\n:7000\r\n$2\r\nid\r\n";
        let (slots, _) = Value::parse(reply).unwrap().unwrap();
        let topology = Topology::from_slots(&slots, &Address::new("127.0.0.1", 7000), Arc::default()).unwrap();
        let label = topology.nodes[0].label.clone();
        let slots = Slots { assigned: 16384, reachable: if up { 16384 } else { 0 } };
        self.metrics.topology(
            1,
            slots,
            vec![NodeState { address: label.clone(), label, role: "primary", up, slots: 16384 }],
        );
        let since = std::time::SystemTime::UNIX_EPOCH;
        let lost = Lost { id: topology.nodes[0].id.clone(), since, why: "connection refused".into() };
        let mut topology = topology;
        topology.lost = if up { Vec::new() } else { vec![lost] };
        self.topology.send_replace(Arc::new(topology));
    }

    /// The status and the body.
    fn get(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.admin.address()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }
}

#[test]
fn readiness_follows_the_topology_and_the_shutdown() {
    let stage = Stage::set();
    assert_eq!(stage.get("/livez").0, 200);
    assert_eq!(stage.get("/readyz"), (503, "{\"ready\":false,\"reason\":\"no seed has answered yet\"}".to_owned()));
    assert!(stage.get("/metrics").1.contains("\nslotway_ready 0\n"));

    stage.know_a_node(true);
    assert_eq!(stage.get("/readyz"), (200, "{\"ready\":true}".to_owned()));
    let metrics = stage.get("/metrics").1;
    assert!(metrics.contains("\nslotway_ready 1\n") && metrics.contains("\nslotway_client_buffered_bytes 4096\n"));

    stage.know_a_node(false);
    let why = "127.0.0.1:7000 does not answer since 00:00:00 UTC (connection refused): slots 0-16383 answer errors";
    assert_eq!(stage.get("/readyz"), (503, format!("{{\"ready\":false,\"reason\":\"{why}\"}}")));
    assert!(stage.get("/metrics").1.contains("\nslotway_slots_reachable 0\n"));
    assert!(stage.get("/api/status").1.contains(why));
    stage.know_a_node(true);

    stage.shutdown.cancel();
    assert_eq!(stage.get("/readyz"), (503, "{\"ready\":false,\"reason\":\"shutting down\"}".to_owned()));
    assert_eq!(stage.get("/livez").0, 200);

    let address = stage.admin.address();
    stage.stop.cancel();
    stage.admin.join();
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn the_status_shows_every_node() {
    let stage = Stage::set();
    stage.know_a_node(true);
    let tallies = stage.metrics.node_tallies();
    tallies.of(&"127.0.0.1:7000".into()).queued(10);
    tallies.publish(|_| true);
    let status: serde_json::Value = serde_json::from_str(&stage.get("/api/status").1).unwrap();
    assert_eq!(status["slots_assigned"], 16384);
    let node = &status["nodes"][0];
    assert_eq!((&node["node"], &node["slot_ranges"][0]), (&"127.0.0.1:7000".into(), &"0-16383".into()));
    assert_eq!((&node["requests"], &node["inflight"], &node["up"]), (&1.into(), &1.into(), &true.into()));
    assert!(stage.get("/").1.starts_with("<!doctype html>"));
    let (status, body) = stage.get("/nothing");
    assert!(status == 404 && body.contains("/nothing") && body.contains("/metrics"), "{status} {body}");
    stage.stop.cancel();
    stage.admin.join();
}

/// What a scrape costs with many nodes and clients: `cargo test --lib -- --nocapture a_scrape`. The limit is that of a build
/// without optimisation, on a machine that has other things to do.
#[test]
fn a_scrape_of_a_hundred_nodes_and_ten_thousand_clients_is_quick() {
    use crate::{
        commands::table::CommandTable,
        metrics::{CommandClass, CommandId, RequestClass},
        protocol::endpoint::Endpoint,
    };

    let metrics = Metrics::new();
    let label = |number: usize| -> Arc<str> { format!("redis-{number}.example.internal:7000").into() };
    let state = |number| {
        let (label, address) = (label(number), label(number));
        NodeState { label, address, role: "primary", up: true, slots: 163 }
    };
    metrics.topology(1, Slots { assigned: 16384, reachable: 16384 }, (0..100).map(state).collect());
    let (clients, nodes) = (metrics.client_tally(), metrics.node_tallies());
    for spec in CommandTable::builtin().rows() {
        clients.command(CommandId::of(&spec.name), CommandClass::Read, false, Duration::from_micros(300));
    }
    for number in 0..100 {
        let tally = nodes.of(&label(number));
        tally.queued(30);
        tally.replied(RequestClass::Read, Duration::from_micros(300));
    }
    clients.publish();
    nodes.publish(|_| true);
    let registry = Clients::new(usize::MAX);
    let end = Endpoint::Tcp(([127, 0, 0, 1], 1).into());
    for _ in 0..10_000 {
        registry.join(end.clone(), end.clone(), Arc::default()).about().library = b"redis-py".to_vec();
    }
    let scrape = || {
        let start = std::time::Instant::now();
        metrics.client_libraries(status::client_libraries(&registry));
        (start.elapsed(), metrics.render().len(), start.elapsed())
    };
    let (libraries, bytes, took) = (0..5).map(|_| scrape()).min_by_key(|(_, _, took)| *took).expect("a scrape");
    let series = metrics.render().lines().filter(|line| !line.starts_with('#')).count();
    println!("{series} series, {bytes} bytes: {took:?}, of which the clients {libraries:?}");
    assert!(took < Duration::from_millis(500), "{took:?}");
}
