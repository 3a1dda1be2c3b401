//! Whether what the tests stand on is sound: without it no other result means anything.

use std::time::Duration;

use crate::support::{Act, Client, Cluster, FakeNode, Flavour, Node, Shape, cluster::shared, eventually};

#[test]
fn a_client_keeps_replies_as_they_came() {
    let node = Node::standalone();
    let mut client = node.client();
    assert_eq!(client.line("SET k v"), "+OK\r\n");
    assert_eq!(client.line("GET k"), "$1\r\nv\r\n");
    assert_eq!(client.line("GET none"), "$-1\r\n");
    assert!(client.line("INCR k").is_error());
    let many: Vec<Vec<String>> = (0..10_000).map(|number| vec!["ECHO".into(), number.to_string()]).collect();
    let replies = client.pipeline(&many);
    assert!(replies.iter().enumerate().all(|(number, reply)| reply.string() == number.to_string()));
}

#[test]
fn a_cluster_forms_and_moves_slots() {
    let cluster = Cluster::three();
    let (key, slot) = ("foo", 12182);
    assert_eq!(cluster.home_of(key), 2);
    let mut owner = cluster.node(2).client();
    assert_eq!(owner.line("SET foo bar"), "+OK\r\n");
    cluster.open_slot(slot, 2, 0);
    assert_eq!(owner.line("GET foo"), "$3\r\nbar\r\n");
    let asked = owner.line("GET {foo}absent");
    assert_eq!(asked, format!("-ASK 12182 {}\r\n", cluster.node(0).address()).as_str());
    cluster.move_keys(&[key], 2, 0);
    cluster.close_slot(slot, 2, 0);
    assert_eq!(cluster.node(0).line("GET foo"), "$3\r\nbar\r\n");
    eventually("all to know the new owner", || (0..3).all(|index| cluster.owner_seen_by(index, slot) == 0));
}

#[test]
fn a_frozen_node_does_not_answer_and_a_killed_one_comes_back() {
    let mut node = Node::standalone();
    node.pause();
    let mut client = node.client().patient(Duration::from_millis(200));
    assert!(client.try_call(&["PING"]).is_err());
    node.resume();
    client.patience = Duration::from_secs(5);
    assert_eq!(client.read().unwrap(), "+PONG\r\n");
    node.kill();
    assert!(Client::try_connect(&node.address()).is_err());
    node.restart();
    assert_eq!(node.line("PING"), "+PONG\r\n");
}

#[test]
fn a_replica_takes_over() {
    let shape = Shape { replicas: 1, node_timeout: Duration::from_secs(2), ..Shape::default() };
    let mut cluster = Cluster::start(shape);
    cluster.fail_over_to(3, "");
    eventually("the old primary to know", || cluster.node(0).info("role") == "slave");
    cluster.nodes[3].kill();
    cluster.wait_until_primary(0);
}

#[test]
fn a_scripted_node_says_what_it_was_told() {
    let node = FakeNode::start();
    node.when("GET k", Act::say("-MOVED 1 :6379")).when("GET k", Act::HangUp);
    node.always(|heard| (heard.args[0] == b"ECHO").then(|| Act::bulk(&heard.args[1])));
    let mut client = Client::connect(&node.address());
    assert_eq!(client.line("CLUSTER SLOTS").value().items().len(), 1);
    assert_eq!(client.line("ECHO a"), "$1\r\na\r\n");
    assert_eq!(client.line("GET k"), "-MOVED 1 :6379\r\n");
    assert!(client.try_call(&["GET", "k"]).is_err());
    assert_eq!((node.count("GET k"), node.unused()), (2, 0));
}

#[test]
fn valkey_forms_a_cluster_too() {
    if !Flavour::Valkey.is_here("valkey_forms_a_cluster_too") {
        return;
    }
    let cluster = Cluster::start(Shape { flavour: Flavour::Valkey, ..Shape::default() });
    assert_eq!(cluster.node(2).line("SET foo bar"), "+OK\r\n");
    assert_eq!(shared().nodes.len(), 3);
}
