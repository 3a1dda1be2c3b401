//! compose.password.yaml: nodes and proxy ask for a password, which nobody finds by looking at the containers.

use std::{fs, process::Command};

use super::{
    engine::{docker, said, turn},
    readme::block_after,
    stack::{NODES, Stack},
    support::reaper,
};

#[test]
fn a_password_from_a_file_is_shown_nowhere() {
    let Some(_turn) = turn() else { return };
    let secrets = reaper::folder("password").join("secrets");
    let secrets = secrets.to_str().expect("UTF-8");
    let file = format!("{secrets}/redis_password");
    let mut stack = Stack::new("password", &["compose.yaml", "compose.password.yaml"]);
    stack.set("REDIS_PASSWORD_FILE", &file);
    let answer = stack.run(
        block_after("For a password:")
            .with("deploy/secrets", secrets)
            .with("up -d", "up -d --no-build")
            .with("redis-cli -p 6380", &format!("redis-cli -p {}", stack.port)),
    );
    assert_eq!(answer.lines().last(), Some("OK"), "{answer}");
    let password = fs::read_to_string(&file).expect("the secret").trim().to_owned();
    assert_eq!(password.len(), 48);
    stack.formed();
    stack.healthy("proxy");

    let node = stack.ask_node("redis-7001", &["get", "foo"]);
    assert!(node.clone().is_ok_and(|said| said.contains("NOAUTH")), "{node:?}");
    let mut client = stack.client();
    let refused = client.line("GET foo");
    assert!(refused.0.starts_with(b"-NOAUTH "), "{refused:?}");
    assert_eq!(client.line(&format!("AUTH {password}")), "+OK\r\n");
    for number in 0..60 {
        assert_eq!(client.line(&format!("SET key:{number} {number}")), "+OK\r\n");
    }

    for service in [&NODES[..], &["proxy", "cluster"]].concat() {
        let container = stack.container(service);
        assert!(!docker(&["inspect", &container]).contains(&password), "docker inspect {service}");
        let log = said(Command::new("sh").args(["-c", &format!("docker logs {container} 2>&1")])).expect("its log");
        assert!(!log.contains(&password), "docker logs {service}");
        if service != "cluster" {
            assert!(!docker(&["top", &container]).contains(&password), "docker top {service}");
        }
    }
    assert!(!stack.page("/api/status").is_ok_and(|(_, body)| body.contains(&password)));
}
