//! `present = "cluster"`: clients that insist on a cluster find one, whose only node is the proxy.

use std::process::Command;

use redis::Commands;

use super::{
    clients::{python, run, said, script},
    listeners::{at, checked, with_file},
};
use crate::support::{Client, Cluster, Proxy, cluster::shared};

const PRESENTS: &str = "[[listeners]]\naddress = \"127.0.0.1:{a}\"\npresent = \"cluster\"\n";

/// A proxy that presents a cluster, and the port where it does.
fn presenting(cluster: &Cluster, more: &str) -> (Proxy, u16) {
    let (settings, ports) = with_file(cluster, &format!("{PRESENTS}{more}"));
    (Proxy::start(settings), ports[0])
}

fn told(client: &mut Client, line: &str) -> String {
    String::from_utf8_lossy(&client.line(line).0).into_owned()
}

#[test]
fn the_proxy_is_the_only_node_of_its_cluster() {
    let (proxy, port) = presenting(shared(), "");
    let (mut client, mut plain) = (at(port), proxy.client());
    let id = client.line("CLUSTER MYID").string();
    assert_eq!(id.len(), 40);
    let slots = format!("*1\r\n*3\r\n:0\r\n:16383\r\n*4\r\n$0\r\n\r\n:{port}\r\n$40\r\n{id}\r\n*0\r\n");
    assert_eq!(told(&mut client, "CLUSTER SLOTS"), slots);
    let nodes = client.line("CLUSTER NODES").string();
    assert_eq!(nodes, format!("{id} :{port}@{} myself,master - 0 0 1 connected 0-16383\n", u32::from(port) + 10_000));
    let info = client.line("CLUSTER INFO").string();
    for line in
        ["cluster_state:ok\r\n", "cluster_slots_ok:16384\r\n", "cluster_known_nodes:1\r\n", "cluster_size:1\r\n"]
    {
        assert!(info.contains(line), "{info}");
    }
    assert_eq!(client.line("CLUSTER KEYSLOT foo"), ":12182\r\n");
    assert_eq!(told(&mut client, &format!("CLUSTER REPLICAS {id}")), "*0\r\n");
    assert_eq!(told(&mut client, "CLUSTER REPLICAS other"), "-ERR Unknown node other\r\n");
    assert_eq!(told(&mut client, "CLUSTER SLOTS x"), "-ERR wrong number of arguments for 'cluster|slots' command\r\n");
    for line in ["READONLY", "READWRITE", "ASKING"] {
        assert_eq!(client.line(line), "+OK\r\n", "{line}");
    }
    assert!(client.line("CLUSTER FORGET x").is_error(), "what changes it is refused");
    client.line("MULTI");
    client.line("CLUSTER MYID");
    assert_eq!(client.line("EXEC").texts().concat(), id);
    let info = client.line("INFO").string();
    assert!(info.contains("redis_mode:cluster\r\n") && info.contains("cluster_enabled:1\r\n"), "{info}");
    assert_eq!(client.line("CONFIG GET cluster-enabled").texts(), ["cluster-enabled", "yes"]);
    let hello = told(&mut client, "HELLO 3");
    assert!(hello.contains("$4\r\nmode\r\n$7\r\ncluster\r\n"), "{hello}");
    let shards = told(&mut client, "CLUSTER SHARDS");
    assert!(
        shards.starts_with("*1\r\n%2\r\n$5\r\nslots\r\n*2\r\n:0\r\n:16383\r\n$5\r\nnodes\r\n*1\r\n%7\r\n"),
        "{shards}"
    );
    assert!(told(&mut client, "CLUSTER SLOTS").ends_with("%0\r\n"));
    // By the other listener it is one server, as ever.
    for line in ["CLUSTER SLOTS", "CLUSTER NODES", "CLUSTER MYID"] {
        assert_eq!(told(&mut plain, line), "-ERR This instance has cluster support disabled\r\n", "{line}");
    }
    plain.line("MULTI");
    assert_eq!(told(&mut plain, "CLUSTER INFO"), "-ERR This instance has cluster support disabled\r\n");
    assert!(plain.line("EXEC").0.starts_with(b"-EXECABORT"));
    assert!(plain.line("INFO").string().contains("redis_mode:standalone\r\n"));
}

#[test]
fn its_place_may_be_announced_and_it_may_have_a_database() {
    let (proxy, port) = presenting(shared(), "announce = \"proxy.example:7777\"\ndatabase = \"presented\"\n");
    let mut client = at(port);
    assert!(told(&mut client, "CLUSTER SLOTS").contains("$13\r\nproxy.example\r\n:7777\r\n"));
    assert!(told(&mut client, "CLUSTER NODES").contains(" proxy.example:7777@17777 myself"));
    client.line("MSET a 1 b 2 c 3");
    assert_eq!(proxy.client().line("EXISTS {presented}a {presented}b {presented}c").integer(), 3);
    assert_eq!(client.line("CLUSTER KEYSLOT foo"), ":12182\r\n");
    client.line("FLUSHDB");
    let (settings, _) = with_file(shared(), "[[listeners]]\naddress = \":1\"\nannounce = \"a:1\"\n");
    let wrong = checked(&settings).expect_err("it is of no use");
    assert!(wrong.contains("the listener 0.0.0.0:1: `announce` is for `present = \"cluster\"`"), "{wrong}");
}

#[test]
fn redis_py_as_cluster_client() {
    if let Some(python) = python("redis_py_as_cluster_client", "redis.cluster") {
        let cluster = Cluster::three();
        let (proxy, port) = presenting(&cluster, "");
        script(&python, &proxy, "cluster.py", &[&port.to_string()]);
    }
}

#[test]
fn redis_rs_as_cluster_client() {
    let (_proxy, port) = presenting(shared(), "");
    let client = redis::cluster::ClusterClient::new([format!("redis://127.0.0.1:{port}")]).expect("a client");
    let mut connection = client.get_connection().expect("a connection");
    for number in 0..100 {
        let _: () = connection.set(format!("rs-cluster:{number}"), number).expect("SET");
    }
    let keys: Vec<String> = (0..100).map(|number| format!("rs-cluster:{number}")).collect();
    let many: Vec<i64> = connection.mget(&keys).expect("MGET");
    assert_eq!(many, (0..100).collect::<Vec<_>>());
    let gone: i64 = connection.del(&keys).expect("DEL");
    assert_eq!(gone, 100);
}

#[test]
fn node_redis_as_cluster_client() {
    let node = "NODE_PATH=/usr/share/nodejs";
    let is_here = Command::new("env").args([node, "node", "-e", "require('redis')"]).output();
    if !is_here.is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED node_redis_as_cluster_client: no node with Debian's node-redis");
        return;
    }
    let (_proxy, port) = presenting(shared(), "");
    let path = format!("{}/tests/one_redis/clients/cluster.js", env!("CARGO_MANIFEST_DIR"));
    let output = run("env", &[node, "node", &path, &port.to_string()], b"");
    assert!(output.status.success() && said(&output).contains("all well"), "{}", said(&output));
}
