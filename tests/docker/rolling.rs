//! Two proxies behind one name, each replaced in its turn under load: no acknowledged write is lost, no request fails.

use std::{collections::BTreeSet, time::Duration};

use super::{
    engine::{docker, images, repository, turn, until},
    readme::block_after,
    stack::{Stack, healthy},
    support::ports::free_port,
};

#[test]
fn two_proxies_replaced_one_by_one() {
    let Some(_turn) = turn() else { return };
    let mut stack = Stack::new("rolling", &["compose.yaml"]);
    let first = free_port();
    stack.set("PROXY_PORT", &format!("127.0.0.1:{first}-{}", first + 9));
    let first = free_port();
    stack.set("PROXY_ADMIN_PORT", &format!("127.0.0.1:{first}-{}", first + 9));
    stack.form();
    scale(&stack);
    let names = stack.inside("redis-7000", &["getent", "ahostsv4", "proxy"]);
    for container in stack.containers("proxy") {
        assert!(names.contains(&super::stack::address(&container)), "one name for both: {names}");
    }

    let load = Load::start(&stack);
    let first = stack.containers("proxy");
    let ports = |stack: &Stack| -> BTreeSet<String> {
        stack.containers("proxy").iter().map(|proxy| docker(&["port", proxy, "6380/tcp"])).collect()
    };
    let at_first = ports(&stack);
    let since = docker(&["info", "--format", "{{.SystemTime}}"]);
    // The image is built already.
    stack.run(
        block_after("with the same two variables set:")
            .with("docker compose -f deploy/compose.yaml build proxy\n", "")
            .with("up -d", "up -d --no-build"),
    );
    assert!(stack.containers("proxy").iter().all(|new| !first.contains(new)), "{first:?} were to be replaced");
    assert_eq!(ports(&stack), at_first, "clients of the host find them where they were");
    for old in &first {
        let until = docker(&["info", "--format", "{{.SystemTime}}"]);
        let format = "{{.Actor.Attributes.exitCode}}";
        let filters = ["--filter", "event=die", "--filter", &format!("container={old}"), "--format", format];
        let end = docker(&[&["events", "--since", &since, "--until", &until], &filters[..]].concat());
        // 137 is what docker's own SIGKILL leaves, after the grace period.
        assert_eq!(end, "0", "the end of a proxy that was asked to stop");
    }
    let account = load.account();
    println!("{account}");
    let number = |name: &str| account[name].as_u64().expect("a number");
    assert_eq!(account["errors"], serde_json::json!([]), "{account}");
    assert_eq!(account["wrong"], serde_json::json!([]), "acknowledged writes lost, or done twice: {account}");
    assert!(number("acknowledged") > 500, "{account}");
    // Each client loses its connection at least once, as no proxy of the beginning is left, and at most once for each.
    assert!((Load::CLIENTS..=2 * Load::CLIENTS).contains(&number("closed")), "{account}");
    // A new proxy may have an old one's address.
    assert!(account["addresses"].as_array().expect("addresses").len() >= 2, "one name for both: {account}");
    let kept: u64 = (0..Load::CLIENTS)
        .map(|client| {
            stack
                .inside("redis-7000", &["redis-cli", "-c", "-p", "7000", "get", &format!("load:{client}")])
                .parse::<u64>()
                .expect("a count")
        })
        .sum();
    assert_eq!(kept, number("acknowledged"), "what the nodes hold is what clients were told");
}

/// Two proxies, both healthy; those that run stay as they are.
fn scale(stack: &Stack) {
    stack.compose(&["up", "-d", "--no-build", "--no-deps", "--no-recreate", "--scale", "proxy=2", "proxy"]);
    let all = stack.containers("proxy");
    assert_eq!(all.len(), 2);
    all.iter().for_each(|container| healthy(container));
}

struct Load {
    container: String,
}

impl Load {
    const CLIENTS: u64 = 8;

    fn start(stack: &Stack) -> Load {
        let mount = format!("{}:/load.py:ro", repository().join("tests/docker/load.py").display());
        let clients = Load::CLIENTS.to_string();
        let run = ["run", "-d", "--net", &stack.network(), "-v", &mount, "--tmpfs", "/tmp", &images().application];
        let container = docker(&[&run[..], &["python3", "/load.py", "proxy", "6380", &clients, "/tmp/stop"]].concat());
        let load = Load { container };
        until("the load to run", Duration::from_secs(20), || {
            let set = stack.inside("redis-7000", &["redis-cli", "-c", "-p", "7000", "exists", "load:0"]);
            (set == "1").then_some(())
        });
        load
    }

    fn account(&self) -> serde_json::Value {
        docker(&["exec", &self.container, "touch", "/tmp/stop"]);
        docker(&["wait", &self.container]);
        let said = docker(&["logs", &self.container]);
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = super::engine::try_docker(&["rm", "-f", "-v", &self.container]);
    }
}
