//! Saving, loading and comparing all keys: commands about every node at once, answered as by one server.

use crate::support::{Cluster, Node, Proxy, eventually, node::info_field};

/// Everything of INFO that is called `field`, as a number.
fn info(proxy: &Proxy, field: &str) -> i64 {
    let text = proxy.client().line("INFO").string();
    info_field(&text, field).expect("a field of INFO").parse().expect("a number")
}

#[test]
fn the_digest_of_all_keys_is_that_of_one_server() {
    let cluster = Cluster::three();
    let (proxy, oracle) = (Proxy::before(&cluster), Node::standalone());
    let (mut ours, mut theirs) = (proxy.client(), oracle.client());
    assert_eq!(ours.line("DEBUG DIGEST"), theirs.line("DEBUG DIGEST"));
    // One node, two nodes, three nodes and more of each kind of value.
    for line in
        ["SET a 1", "SADD b x y", "HSET c f v", "RPUSH d 1 2 3", "ZADD e 1.5 m", "XADD f 1-1 f v", "EXPIRE a 1000"]
    {
        assert_eq!(ours.line(line), theirs.line(line), "{line}");
        assert_eq!(ours.line("DEBUG DIGEST"), theirs.line("DEBUG DIGEST"), "after {line}");
    }
}

#[test]
fn all_nodes_save_and_load() {
    let cluster = Cluster::three();
    let (proxy, oracle) = (Proxy::before(&cluster), Node::standalone());
    let (mut ours, mut theirs) = (proxy.client(), oracle.client());
    for key in 0..30 {
        assert_eq!(ours.line(&format!("SET key{key} {key}")), "+OK\r\n");
    }
    let before = ours.line("DEBUG DIGEST");
    for line in ["BGSAVE", "BGREWRITEAOF", "DEBUG RELOAD"] {
        let saved =
            |proxy: &Proxy| info(proxy, "rdb_bgsave_in_progress") == 0 && info(proxy, "aof_rewrite_in_progress") == 0;
        eventually("the nodes to be done with saving", || saved(&proxy));
        eventually("the oracle to be done with saving", || {
            oracle.info("rdb_bgsave_in_progress") == "0" && oracle.info("aof_rewrite_in_progress") == "0"
        });
        assert_eq!(ours.line(line), theirs.line(line), "{line}");
    }
    for node in &cluster.nodes {
        assert!(node.log().contains("Background saving started"), "{}", node.log());
        assert!(node.log().contains("Background append only file rewriting started"), "{}", node.log());
        assert!(node.log().contains("DB reloaded by DEBUG RELOAD"), "{}", node.log());
    }
    assert_eq!(ours.line("DEBUG DIGEST"), before);
    let refused = ours.line("DEBUG RELOAD NOSAVE");
    assert!(refused.0.starts_with(b"-ERR DEBUG is not served by the proxy"), "{refused:?}");
}
