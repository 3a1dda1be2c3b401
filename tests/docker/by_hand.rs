//! The classical tutorial, line by line as deploy/README.md has it, and one more `docker run`.

use super::{
    engine::{images, try_docker, turn},
    readme::block_after,
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
    let port = free_port();
    let published = format!("-p 127.0.0.1:{port}:6380 {}", images().proxy);
    let said = block_after("Linux and macOS:")
        .with("docker build -t slotway -f deploy/Dockerfile .\n", "")
        .with("redis-cluster", NETWORK)
        .with("redis-$port", "byhand-redis-$port")
        .with("redis-7000", "byhand-redis-7000")
        .with("--name slotway", "--name byhand-slotway")
        .with("docker exec slotway", "docker exec byhand-slotway")
        .with("-p 127.0.0.1:$port:$port", "-p 127.0.0.1::$port")
        .with("-p 127.0.0.1:6380:6380 slotway", &published)
        .with("redis-cli -p 6380", &format!("redis-cli -p {port}"))
        .run([]);
    assert_eq!(said.lines().last(), Some("OK"), "{said}");

    healthy(CONTAINERS[3]);
    let mut client = Client::connect(&format!("127.0.0.1:{port}"));
    for number in 0..100 {
        assert_eq!(client.line(&format!("SET key:{number} {number}")), "+OK\r\n");
    }
    assert_eq!(client.line("DBSIZE"), ":101\r\n");
}
