//! compose.tls.yaml: TLS between all, with the certificates of deploy/tls-certificates.

use std::{fs, os::unix::fs::PermissionsExt, process::Command, time::Duration};

use super::{
    engine::{docker, repository, said, turn, until},
    readme::block_after,
    stack::{NODES, Stack},
    support::reaper,
};

const REPLICAS: [&str; 3] = ["redis-7003", "redis-7004", "redis-7005"];

#[test]
fn tls_is_all_that_is_spoken_and_new_certificates_are_taken() {
    let Some(_turn) = turn() else { return };
    // Containers read it as users of their own.
    let folder = reaper::folder("docker-tls");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).expect("a folder");
    let folder = folder.join("tls").to_str().expect("UTF-8").to_owned();
    let mut stack = Stack::new("tls", &["compose.yaml", "compose.tls.yaml"]);
    stack.set("TLS_FOLDER", &folder);
    let answer = stack.run(
        block_after("With TLS between clients and proxy, proxy and nodes, and the nodes themselves:")
            .with("deploy/tls-certificates", &format!("deploy/tls-certificates {folder}"))
            .with("deploy/secrets/tls", &folder)
            .with("up -d", "up -d --no-build")
            .with("redis-cli -p 6380", &format!("redis-cli -p {}", stack.port)),
    );
    assert_eq!(answer.lines().last(), Some("OK"), "{answer}");
    stack.formed();
    stack.healthy("proxy");
    NODES.iter().for_each(|node| stack.healthy(node));

    let (port, ca) = (stack.port.to_string(), format!("{folder}/ca.crt"));
    let cli = |args: &[&str]| {
        let tls = ["-h", "localhost", "-p", &port, "--tls", "--cacert", &ca];
        said(Command::new("redis-cli").args(tls).args(args)).expect("an answer").trim().to_owned()
    };
    assert_eq!(cli(&["mset", "a", "1", "b", "2", "c", "3"]), "OK");
    assert_eq!(cli(&["mget", "a", "b", "c"]).split_whitespace().collect::<Vec<_>>(), ["1", "2", "3"]);
    for node in NODES {
        let plain = stack.ask_node(node, &["ping"]);
        assert!(!plain.clone().is_ok_and(|said| said.contains("PONG")), "{node} speaks plain text: {plain:?}");
    }

    said(Command::new(repository().join("deploy/tls-certificates")).arg(&folder)).expect("new certificates");
    let proxy = stack.container("proxy");
    until("new certificates to be taken", Duration::from_secs(20), || {
        let log = said(Command::new("sh").args(["-c", &format!("docker logs {proxy} 2>&1")])).expect("its log");
        let taken =
            ["clients", "nodes"].iter().all(|side| log.contains(&format!("TLS files for {side} have been read again")));
        taken.then_some(())
    });
    assert_eq!(cli(&["get", "a"]), "1");
    assert!(docker(&["inspect", "--format", "{{.RestartCount}}", &proxy]) == "0");

    // Replicas later, and a node is lost: one of them takes over.
    stack.add("compose.replicas.yaml");
    stack.add("compose.tls.replicas.yaml");
    stack.up(&[]);
    stack.formed();
    let at_node = |node: &str, command: &str| {
        let files =
            "--tls --cacert /run/secrets/tls/ca.crt --cert /run/secrets/tls/node.crt --key /run/secrets/tls/node.key";
        stack.inside(node, &["sh", "-c", &format!("redis-cli {files} -p {} {command}", &node["redis-".len()..])])
    };
    until("the replicas to follow", Duration::from_secs(30), || {
        let follows = |node| at_node(node, "info replication").contains("master_link_status:up");
        REPLICAS.into_iter().all(follows).then_some(())
    });
    docker(&["kill", &stack.container("redis-7000")]);
    until("a replica to take over", Duration::from_secs(30), || {
        let promoted = |node| at_node(node, "role").starts_with("master");
        REPLICAS.into_iter().any(promoted).then_some(())
    });
    until("all slots to be served", Duration::from_secs(10), || {
        (cli(&["mget", "a", "b", "c"]).split_whitespace().collect::<Vec<_>>() == ["1", "2", "3"]).then_some(())
    });
}
