//! compose.replicas.yaml: three replicas more, added to a running cluster; then a master is lost for good.

use std::time::Duration;

use super::{
    engine::{docker, turn, until},
    stack::{NODES, Sample, Stack},
};

const REPLICAS: [&str; 3] = ["redis-7003", "redis-7004", "redis-7005"];

#[test]
fn replicas_join_and_take_over() {
    let Some(_turn) = turn() else { return };
    let mut stack = Stack::new("replicas", &["compose.yaml"]);
    stack.up(&[]);
    stack.formed();
    stack.healthy("proxy");
    let mut client = stack.client();
    let sample = Sample::write(&mut client, 60);

    stack.add("compose.replicas.yaml");
    stack.up(&[]);
    stack.formed();
    stack.whole(&[&NODES[..], &REPLICAS[..]].concat());
    let view = stack.ask_node("redis-7000", &["cluster", "nodes"]).expect("CLUSTER NODES");
    for node in REPLICAS {
        let role = stack.ask_node(node, &["role"]).expect("ROLE");
        assert!(role.starts_with("slave"), "{node} is {role}");
    }
    let masters: std::collections::BTreeSet<&str> =
        view.lines().filter(|line| line.contains("slave")).filter_map(|line| line.split(' ').nth(3)).collect();
    assert_eq!(masters.len(), 3, "one replica for each master: {view}");
    sample.is_whole(&mut client).expect("every key, with replicas");
    let names: Vec<String> = (7000..=7005).map(|port| format!("redis-{port}:{port}")).collect();
    until("the proxy to know them by their names", Duration::from_secs(20), || (stack.labels() == names).then_some(()));

    let in_sync = |node: &str| {
        stack.ask_node(node, &["info", "replication"]).is_ok_and(|info| info.contains("master_link_status:up"))
    };
    until("the replicas to follow", Duration::from_secs(20), || {
        REPLICAS.iter().all(|node| in_sync(node)).then_some(())
    });
    docker(&["kill", &stack.container("redis-7000")]);
    until("a replica to take over", Duration::from_secs(30), || {
        let view = stack.ask_node("redis-7001", &["cluster", "nodes"]).ok()?;
        let promoted = |line: &&str| {
            line.contains(" master ") && REPLICAS.iter().any(|node| line.contains(&format!(":{}@", &node[6..])))
        };
        view.lines().any(|line| promoted(&line) && line.contains("connected ")).then_some(())
    });
    let after = sample.served_after(&stack.proxy(), &mut client, Duration::from_secs(3));
    println!("served {after:?} after the promotion");
}
