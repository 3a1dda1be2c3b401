//! One command: the cluster, the proxy before it, and who looks on.

use std::{fs, time::Duration};

use super::{
    engine::{docker, turn, until},
    readme::block_after,
    stack::{NODES, Sample, Stack, health},
    support::http,
};

#[test]
fn one_command_and_redis_cli_works() {
    let Some(_turn) = turn() else { return };
    let stack = Stack::new("everyday", &["compose.yaml"]);

    the_proxy_waits_for_the_cluster(&stack);
    let block = block_after("## One command").with("up -d", "up -d --no-build");
    let said = stack.run(block.with("redis-cli -p 6380", &format!("redis-cli -p {}", stack.port)));
    assert_eq!(said.lines().last(), Some("OK"), "{said}");
    stack.formed();
    stack.healthy("proxy");
    assert_eq!(stack.page("/readyz").expect("/readyz").0, 200);

    from_the_host(&stack);
    from_inside(&stack);
    the_cluster_is_as_promised(&stack);
    forming_again_changes_nothing(&stack);
    the_container_is_locked_down(&stack);
    stack.compose(&["--profile", "metrics", "up", "-d", "--no-build", "prometheus"]);
    prometheus_scrapes_the_proxy(&stack);
}

/// Before the cluster is formed the proxy is up, says why it cannot serve, and docker does not call it healthy.
fn the_proxy_waits_for_the_cluster(stack: &Stack) {
    stack.up(&["proxy"]);
    assert_eq!(stack.client().line("PING"), "+PONG\r\n");
    let (status, why) = until("the admin port", Duration::from_secs(10), || stack.page("/readyz").ok());
    assert_eq!(status, 503, "{why}");
    stack.up(&NODES);
    until("the nodes", Duration::from_secs(20), || {
        NODES.iter().all(|node| stack.ask_node(node, &["ping"]).is_ok_and(|pong| pong.trim() == "PONG")).then_some(())
    });
    let reply = stack.client().line("SET foo bar");
    assert!(reply.0.starts_with(b"-CLUSTERDOWN "), "{reply:?}");
    assert_ne!(health(&stack.container("proxy")), "healthy");
}

fn from_the_host(stack: &Stack) {
    assert_eq!(stack.redis_cli(&["set", "foo", "bar"]), "OK");
    assert_eq!(stack.redis_cli(&["get", "foo"]), "bar");
    // Keys of three slots on three nodes, in one command.
    assert_eq!(stack.redis_cli(&["mset", "a", "1", "b", "2", "c", "3"]), "OK");
    assert_eq!(stack.redis_cli(&["mget", "a", "b", "c"]), "1\n2\n3");
    let mut client = stack.client();
    Sample::write(&mut client, 300).is_whole(&mut client).expect("every key");
}

fn from_inside(stack: &Stack) {
    let cli = |args: &[&str]| stack.inside("redis-7001", &[&["redis-cli", "-h", "proxy", "-p", "6380"], args].concat());
    assert_eq!(cli(&["get", "foo"]), "bar");
    assert_eq!(cli(&["incr", "counter"]), "1");
}

fn the_cluster_is_as_promised(stack: &Stack) {
    assert!(stack.is_whole(&NODES), "{:?}", stack.ask_node("redis-7000", &["cluster", "nodes"]));
    let view = stack.ask_node("redis-7000", &["cluster", "nodes"]).expect("CLUSTER NODES");
    assert!(!view.contains("/16") && !view.contains("slave"), "{view}");
    assert_eq!(view.lines().count(), 3, "{view}");
    for (node, port) in NODES.iter().zip(7000..) {
        let announced = format!("{}:{port}@1{port},{node} ", stack.address(node));
        assert!(view.contains(&announced), "{announced} in {view}");
        let mounts = docker(&["inspect", "--format", "{{json .Mounts}}", &stack.container(node)]);
        assert!(mounts.contains("/usr/local/etc/redis/redis.conf"), "{mounts}");
    }
}

fn forming_again_changes_nothing(stack: &Stack) {
    let ids = || NODES.map(|node| stack.ask_node(node, &["cluster", "myid"]).expect("its id"));
    let before = (ids(), stack.redis_cli(&["dbsize"]));
    let proxy = stack.container("proxy");
    stack.up(&[]);
    stack.formed();
    assert_eq!((ids(), stack.redis_cli(&["dbsize"])), before);
    assert_eq!(stack.container("proxy"), proxy, "up again replaces nothing");
}

fn the_container_is_locked_down(stack: &Stack) {
    let proxy = stack.container("proxy");
    let format =
        "{{.HostConfig.ReadonlyRootfs}} {{.HostConfig.CapDrop}} {{.HostConfig.SecurityOpt}} {{.HostConfig.Privileged}}";
    assert_eq!(docker(&["inspect", "--format", format, &proxy]), "true [ALL] [no-new-privileges:true] false");
    // What the kernel says, where the engine's processes are this kernel's.
    let pid = docker(&["inspect", "--format", "{{.State.Pid}}", &proxy]);
    let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else { return };
    let line =
        |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim().to_owned();
    for name in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(line(name), "0000000000000000", "{name}");
    }
    assert_eq!(line("NoNewPrivs:"), "1");
    assert_eq!(line("Uid:").split_whitespace().collect::<Vec<_>>(), ["65532"; 4]);
}

fn prometheus_scrapes_the_proxy(stack: &Stack) {
    let ask =
        |path: &str| http::fetch(stack.setting("PROMETHEUS_PORT"), path).ok().filter(|(status, _)| *status == 200);
    let targets = until("the proxy's target to be up", Duration::from_secs(40), || {
        ask("/api/v1/targets?state=active").filter(|(_, body)| body.contains(r#""health":"up""#))
    });
    let address = format!("http://{}:9380/metrics", stack.address("proxy"));
    assert!(targets.1.contains(&address), "{address} in {}", targets.1);
    assert!(!targets.1.contains(r#""health":"down""#), "{}", targets.1);

    // Every node is seen, with the requests it had.
    let seen = until("requests of every node", Duration::from_secs(20), || {
        let (_, body) = ask("/api/v1/query?query=sum%20by%20(node)%20(slotway_node_requests_total)%20%3E%200")?;
        let nodes = NODES.iter().all(|node| body.contains(&format!(":{}\"", &node["redis-".len()..])));
        nodes.then_some(body)
    });
    assert!(seen.contains(r#""status":"success""#), "{seen}");

    // The alerts are loaded, and none of them has an error.
    let (_, rules) = ask("/api/v1/rules").expect("the rules");
    assert!(rules.contains("SlotwayDown") && !rules.contains(r#""health":"err""#), "{rules}");

    // What the dashboard and the alerts ask for is what the proxy has.
    let (_, page) = stack.page("/metrics").expect("/metrics");
    let missing: Vec<String> =
        super::files::metrics_asked_for().into_iter().filter(|name| !page.contains(name.as_str())).collect();
    assert!(missing.is_empty(), "asked for by deploy/, unknown to the proxy: {missing:?}");
}
