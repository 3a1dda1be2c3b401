//! compose.password.yaml: nodes and proxy ask for a password, which nobody finds by looking at the containers.

use std::{fs, os::unix::fs::PermissionsExt, process::Command};

use super::{
    engine::{docker, said, turn},
    stack::{NODES, Stack},
    support::reaper,
};

const PASSWORD: &str = "correct-horse-battery-staple-7000";

#[test]
fn a_password_from_a_file_is_shown_nowhere() {
    let Some(_turn) = turn() else { return };
    let folder = reaper::folder("secrets");
    let file = folder.join("redis_password");
    fs::write(&file, format!("{PASSWORD}\n")).expect("the secret");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("permissions");
    let mut stack = Stack::new("password", &["compose.yaml", "compose.password.yaml"]);
    stack.set("REDIS_PASSWORD_FILE", file.to_str().expect("UTF-8"));
    stack.up(&[]);
    stack.formed();
    stack.healthy("proxy");

    let node = stack.ask_node("redis-7001", &["get", "foo"]);
    assert!(node.clone().is_ok_and(|said| said.contains("NOAUTH")), "{node:?}");
    let mut client = stack.client();
    let refused = client.line("GET foo");
    assert!(refused.0.starts_with(b"-NOAUTH "), "{refused:?}");
    assert_eq!(client.line(&format!("AUTH {PASSWORD}")), "+OK\r\n");
    for number in 0..60 {
        assert_eq!(client.line(&format!("SET key:{number} {number}")), "+OK\r\n");
    }

    for service in [&NODES[..], &["proxy", "cluster"]].concat() {
        let container = stack.container(service);
        assert!(!docker(&["inspect", &container]).contains(PASSWORD), "docker inspect {service}");
        let log = said(Command::new("sh").args(["-c", &format!("docker logs {container} 2>&1")])).expect("its log");
        assert!(!log.contains(PASSWORD), "docker logs {service}");
        if service != "cluster" {
            assert!(!docker(&["top", &container]).contains(PASSWORD), "docker top {service}");
        }
    }
    assert!(!stack.page("/api/status").is_ok_and(|(_, body)| body.contains(PASSWORD)));
}
