//! The classical tutorial, line by line, and one more `docker run`.

use std::{process::Command, time::Duration};

use super::{
    engine::{docker, images, repository, said, try_docker, turn, until},
    stack::healthy,
    support::{Client, ports::free_port},
};

const NETWORK: &str = "slotwaytest-by-hand";
const CONTAINERS: [&str; 4] = ["byhand-redis-7000", "byhand-redis-7001", "byhand-redis-7002", "byhand-slotway"];

struct Swept;

impl Swept {
    fn new() -> Swept {
        drop(Swept);
        Swept
    }
}

impl Drop for Swept {
    fn drop(&mut self) {
        for container in CONTAINERS {
            let _ = try_docker(&["rm", "-f", "-v", container]);
        }
        let _ = try_docker(&["network", "rm", NETWORK]);
    }
}

#[test]
fn by_hand_and_one_docker_run_more() {
    let Some(_turn) = turn() else { return };
    let _swept = Swept::new();
    docker(&["network", "create", NETWORK]);
    let mut addresses = Vec::new();
    for port in 7000..=7002 {
        let config = repository().join(format!("deploy/redis/{port}.conf"));
        let mount = format!("{}:/usr/local/etc/redis/redis.conf:ro", config.display());
        let (name, alias) = (format!("byhand-redis-{port}"), format!("redis-{port}"));
        let flags = ["run", "-d", "--name", &name, "--net", NETWORK, "--network-alias", &alias, "-v", &mount];
        docker(&[&flags[..], &["redis:7", "redis-server", "/usr/local/etc/redis/redis.conf"]].concat());
        let address = docker(&["inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", &name]);
        addresses.push(format!("{address}:{port}"));
    }
    for (container, port) in CONTAINERS.iter().zip(["7000", "7001", "7002"]) {
        until("the node", Duration::from_secs(10), || {
            try_docker(&["exec", container, "redis-cli", "-p", port, "ping"]).ok()
        });
    }
    let create = ["exec", CONTAINERS[0], "redis-cli", "--cluster", "create"];
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    docker(&[&create[..], &addresses, &["--cluster-yes"]].concat());

    let port = free_port();
    let published = format!("127.0.0.1:{port}:6380");
    let run = ["run", "-d", "--name", CONTAINERS[3], "--net", NETWORK, "-p", &published, &images().proxy];
    docker(&[&run[..], &["--seeds", "redis-7000:7000"]].concat());
    healthy(CONTAINERS[3]);

    let said = said(Command::new("redis-cli").args(["-p", &port.to_string(), "set", "foo", "bar"]));
    assert_eq!(said.expect("redis-cli"), "OK");
    let mut client = Client::connect(&format!("127.0.0.1:{port}"));
    for number in 0..100 {
        assert_eq!(client.line(&format!("SET key:{number} {number}")), "+OK\r\n");
    }
    assert_eq!(client.line("DBSIZE"), ":101\r\n");
}
