//! One number is the same wherever it is told: at the nodes, in the metrics, on the status page, by PROXY and by INFO.

use crate::support::{Cluster, Flavour, Proxy, Settings, Shape, eventually, node::info_field};

/// How often a server says that it has run a command.
fn calls(info: &str, command: &str) -> u64 {
    let line = info_field(info, &format!("cmdstat_{command}")).unwrap_or("calls=0,");
    line.strip_prefix("calls=").and_then(|rest| rest.split(',').next()?.parse().ok()).expect("a number")
}

fn status(proxy: &Proxy) -> serde_json::Value {
    serde_json::from_str(&proxy.page("/api/status").1).expect("JSON")
}

#[test]
fn numbers_agree_wherever_they_are_told() {
    let mut cluster = Cluster::three();
    let proxy = Proxy::start(
        Settings::new(cluster.seeds())
            .with("REFRESH_INTERVAL", "1s")
            .with("RETRY_TIMEOUT", "100ms")
            .expecting_warnings(),
    );
    let mut client = proxy.client();
    let keys: Vec<String> = (0..3).map(|index| cluster.key_on(index, "agree:")).collect();
    let sent = |index: usize| 100 * (index as u64 + 1);
    for (index, key) in keys.iter().enumerate() {
        for _ in 0..sent(index) {
            assert_eq!(client.call(&["SET", key, "v"]), "+OK\r\n");
            client.call(&["GET", key]);
        }
    }
    let total: u64 = (0..3).map(sent).sum();

    // Each node has run what the proxy says that it has sent there. Nobody else asks it for these two.
    let labels: Vec<String> = cluster.nodes.iter().map(|node| node.address()).collect();
    let of = |label: &str| format!("node=\"{label}\"");
    let told = status(&proxy);
    for (index, label) in labels.iter().enumerate() {
        let info = cluster.node(index).line("INFO commandstats").string();
        assert_eq!((calls(&info, "get"), calls(&info, "set")), (sent(index), sent(index)), "{label}");
        let durations = |class: &str| {
            let name = "slotway_node_request_duration_seconds_count";
            proxy.metric(name, &[&of(label), &format!("class=\"{class}\"")]) as u64
        };
        assert_eq!((durations("read"), durations("write")), (sent(index), sent(index)), "{label}");
        let requests = proxy.metric("slotway_node_requests_total", &[&of(label)]) as u64;
        assert!((2 * sent(index)..=2 * sent(index) + 5).contains(&requests), "{label}: {requests}");
        let shown = told["nodes"].as_array().and_then(|all| all.iter().find(|node| node["node"] == label.as_str()));
        assert_eq!(shown.expect("it is shown")["requests"], requests, "{label}");
    }

    // And all of them together are what clients have asked for.
    let info = client.line("INFO commandstats").string();
    for command in ["get", "set"] {
        assert_eq!(calls(&info, command), total, "INFO: {command}");
        let counted = proxy.metric("slotway_commands_total", &[&format!("command=\"{command}\""), "result=\"ok\""]);
        assert_eq!(counted as u64, total, "/metrics: {command}");
    }
    let commands = |proxy: &Proxy| proxy.metric("slotway_commands_total", &[]) as u64;
    assert_eq!(status(&proxy)["commands"], commands(&proxy));
    assert_eq!(proxy.metric("slotway_clients", &[]), proxy.metric("slotway_client_connections", &[]));

    // What is lost is told alike, too.
    cluster.nodes[2].kill();
    eventually("it to be noticed", || proxy.metric("slotway_slots_reachable", &[]) == 10923.0);
    (0..7).for_each(|_| assert!(client.call(&["GET", &keys[2]]).is_error()));
    let told = status(&proxy);
    let lost = told["nodes"].as_array().and_then(|all| all.iter().find(|node| node["node"] == labels[2].as_str()));
    let failed = proxy.metric("slotway_node_failed_requests_total", &[&of(&labels[2])]) as u64;
    assert_eq!(failed, 7);
    assert_eq!(lost.expect("it is shown")["failed"], failed);
    let errors = proxy.metric("slotway_commands_total", &["command=\"get\"", "result=\"error\""]) as u64;
    assert_eq!(errors, failed);
    let given_up = proxy.metric("slotway_retries_exhausted_total", &[]) as u64;
    assert_eq!((&told["absorbed"]["given_up"], given_up), (&failed.into(), failed));
}

#[test]
fn memory_and_its_limit_are_both_of_all_nodes() {
    let cluster = Cluster::three();
    let proxy = Proxy::before(&cluster);
    let mut client = proxy.client();
    assert_eq!(client.line("CONFIG SET maxmemory 104857600"), "+OK\r\n");
    assert_eq!(client.line("CONFIG GET maxmemory").texts(), ["maxmemory", "104857600"], "each node's");
    let info = client.line("INFO memory").string();
    assert_eq!(info_field(&info, "maxmemory"), Some("314572800"));
    let used: u64 = info_field(&info, "used_memory").and_then(|used| used.parse().ok()).expect("a number");
    let least = |index: usize| cluster.node(index).info("used_memory").parse::<u64>().expect("a number") / 2;
    assert!(used > (0..3).map(least).sum(), "{used}");
    // One node without a limit: there is none.
    cluster.node(1).line("CONFIG SET maxmemory 0");
    assert_eq!(info_field(&client.line("INFO memory").string(), "maxmemory"), Some("0"));
}

#[test]
fn clients_are_counted_by_their_libraries() {
    // The servers of before 7.2 know no CLIENT SETINFO, and so neither does the proxy before them.
    if !Flavour::Valkey.is_here("clients by their libraries") {
        return;
    }
    let cluster = Cluster::start(Shape { flavour: Flavour::Valkey, ..Shape::default() });
    let proxy = Proxy::before(&cluster);
    let mut clients: Vec<_> = (0..4).map(|_| proxy.client()).collect();
    for (client, name) in clients.iter_mut().zip(["redis-py", "redis-py(django-redis_v5)", "homemade"]) {
        assert_eq!(client.line(&format!("CLIENT SETINFO LIB-NAME {name}")), "+OK\r\n");
    }
    let count = |library: &str| proxy.metric("slotway_clients", &[&format!("library=\"{library}\"")]);
    eventually("them to be counted", || [count("redis-py"), count("other"), count("none")] == [2.0, 1.0, 1.0]);
    assert_eq!(status(&proxy)["libraries"]["redis-py"], 1);
    assert!(!proxy.page("/metrics").1.contains("homemade"), "a client's word became a label");
}
