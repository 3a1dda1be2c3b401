//! WAIT and WAITAOF: a true number or a clear error.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::support::{
    Cluster, Flavour, Node, Proxy, Reply, Settings, Setup, Shape, cluster::shared, eventually, until,
};

fn text(reply: &Reply) -> String {
    String::from_utf8_lossy(&reply.0).into_owned()
}

#[test]
fn without_replicas_it_answers_as_one_redis_does() {
    let (proxy, oracle) = (Proxy::before(shared()), Node::standalone());
    let lines = [
        "WAIT 0 0",
        "SET {w}k 1",
        "WAIT 0 0",
        "WAIT -1 0",
        "WAIT 0 -1",
        "WAIT a 1",
        "WAIT 1 a",
        "WAIT 1",
        "WAIT 1 1 1",
        "WAIT 01 1",
        "WAIT +1 1",
        "WAIT 1 99999999999999999999",
        "WAIT 1 30",
        "WAITAOF 0 0 0",
        "MULTI",
        "SET {w}k 2",
        "WAIT 1 0",
        "WAIT x 0",
        "GET {w}k",
        "EXEC",
        "MULTI",
        "WAIT 1 0",
        "EXEC",
    ];
    let run = |address: String| -> Vec<Reply> {
        let mut client = crate::support::Client::connect(&address);
        lines.iter().map(|line| client.line(line)).collect()
    };
    for (line, (ours, theirs)) in lines.iter().zip(run(proxy.address()).iter().zip(&run(oracle.address()))) {
        assert_eq!(ours, theirs, "{line}");
    }
    let mut client = proxy.client();
    let begun = Instant::now();
    client.line("SET {w}k 1");
    assert_eq!(client.line("WAIT 1 120"), ":0\r\n");
    assert!(begun.elapsed() >= Duration::from_millis(120));
    // In a pipeline it stands in its place.
    let requests = ["SET {w}k 3", "WAIT 1 20", "GET {w}k"].map(crate::support::words);
    assert_eq!(
        client.pipeline(&requests),
        [Reply(b"+OK\r\n".to_vec()), Reply(b":0\r\n".to_vec()), Reply(b"$1\r\n3\r\n".to_vec())]
    );
}

#[test]
fn the_number_is_true() {
    for flavour in [Flavour::Redis, Flavour::Valkey] {
        if flavour.is_here("the_number_is_true") {
            true_number(flavour);
        }
    }
}

fn true_number(flavour: Flavour) {
    let mut cluster = Cluster::start(Shape { flavour, primaries: 2, replicas: 1, ..Shape::default() });
    let proxy = Proxy::start(Settings::new(cluster.seeds()).expecting_warnings());
    let (here, there) = (cluster.key_on(0, "w"), cluster.key_on(1, "w"));
    let (mut client, mut other, mut silent) = (proxy.client(), proxy.client(), proxy.client());
    for round in 0..20 {
        client.call(&["SET", &here, &round.to_string()]);
        let begun = Instant::now();
        assert_eq!(client.line("WAIT 1 5000"), ":1\r\n");
        assert!(begun.elapsed() < Duration::from_secs(2), "it took {:?}", begun.elapsed());
    }
    // One replica does not take anything: its primary's writes are on no replica, the other's are.
    cluster.nodes[2].pause();
    client.call(&["SET", &here, "unseen"]);
    assert_eq!(client.line("WAIT 1 300"), ":0\r\n");
    other.call(&["SET", &there, "seen"]);
    assert_eq!(other.line("WAIT 1 5000"), ":1\r\n");
    other.call(&["MSET", &here, "1", &there, "2"]);
    assert_eq!(other.line("WAIT 1 300"), ":0\r\n", "the least of both");
    assert_eq!(silent.line("WAIT 1 300"), ":1\r\n", "it has written nothing");
    // Blocked for ever, until it is told or the replica goes on.
    let id = client.line("CLIENT ID").integer();
    client.send(&["WAIT", "1", "0"]);
    eventually("it to wait", || proxy.metric("slotway_blocked_clients", &[]) >= 1.0);
    assert_eq!(other.line(&format!("CLIENT UNBLOCK {id}")), ":1\r\n");
    assert_eq!(client.reply(), ":0\r\n");
    client.send(&["WAIT", "1", "0"]);
    until("it to wait", Duration::from_secs(10), || {
        (other.line(&format!("CLIENT UNBLOCK {id} ERROR")) == ":1\r\n").then_some(())
    });
    assert!(text(&client.reply()).starts_with("-UNBLOCKED "));
    client.send(&["WAIT", "1", "0"]);
    eventually("it to wait", || proxy.metric("slotway_blocked_clients", &[]) >= 1.0);
    cluster.nodes[2].resume();
    assert_eq!(client.reply(), ":1\r\n");
    // One that goes away leaves nothing behind.
    let mut gone = proxy.client();
    gone.call(&["SET", &here, "x"]);
    gone.send(&["WAIT", "5", "0"]);
    eventually("it to wait", || proxy.metric("slotway_blocked_clients", &[]) >= 1.0);
    drop(gone);
    eventually("it to be gone", || proxy.metric("slotway_blocked_clients", &[]) == 0.0);
    // Every way of writing counts.
    cluster.nodes[2].pause();
    for write in [
        vec!["EVAL", "return redis.call('SET',KEYS[1],'e')", "1", &here],
        vec!["BLMPOP", "0.01", "1", &here.replace('w', "none"), "LEFT"],
    ] {
        let mut fresh = proxy.client();
        fresh.call(&["SET", &there, "1"]);
        fresh.call(&write);
        if write[0] == "EVAL" {
            assert_eq!(fresh.line("WAIT 1 200"), ":0\r\n", "{write:?}");
        }
    }
    for lines in [
        vec!["MULTI", "SET {k} 1", "EXEC"],
        vec!["MULTI", "SET {k} 1", "CLIENT GETNAME", "EXEC"],
        vec!["WATCH {k}", "MULTI", "SET {k} 1", "EXEC"],
    ] {
        let mut fresh = proxy.client();
        for line in &lines {
            fresh.line(&line.replace("{k}", &here));
        }
        assert_eq!(fresh.line("WAIT 1 200"), ":0\r\n", "{lines:?}");
    }
    cluster.nodes[2].resume();
}

#[test]
fn writes_that_may_be_lost_are_no_number() {
    let mut cluster = Cluster::start(Shape { primaries: 2, replicas: 1, ..Shape::default() });
    let proxy = Proxy::start(Settings::new(cluster.seeds()).expecting_warnings());
    let (here, there) = (cluster.key_on(0, "w"), cluster.key_on(1, "w"));
    let (mut client, mut other) = (proxy.client(), proxy.client());
    client.call(&["SET", &here, "1"]);
    other.call(&["SET", &there, "1"]);
    cluster.fail_over_to(2, "");
    cluster.wait_until_agreed();
    let reply = client.line("WAIT 1 1000");
    assert!(text(&reply).contains("may be lost"), "{reply:?}");
    assert_eq!(other.line("WAIT 1 1000"), ":1\r\n");
    // Said once; what is written from now on counts.
    client.call(&["SET", &here, "2"]);
    until("the new primary's replica", Duration::from_secs(20), || {
        (client.line("WAIT 1 1000") == ":1\r\n").then_some(())
    });
    // Back again: what was written before is told, though the node is a primary now as it was then.
    let mut third = proxy.client();
    third.call(&["SET", &here, "3"]);
    cluster.fail_over_to(0, "");
    cluster.wait_until_agreed();
    eventually("the proxy to know", || client.call(&["SET", &here, "4"]) == "+OK\r\n");
    thread::sleep(Duration::from_millis(1500));
    cluster.fail_over_to(2, "");
    cluster.wait_until_agreed();
    eventually("the proxy to know", || client.call(&["SET", &here, "4"]) == "+OK\r\n");
    let reply = third.line("WAIT 1 1000");
    assert!(text(&reply).contains("may be lost"), "{reply:?}");
    // A restarted node has lost what it had.
    other.call(&["SET", &there, "1"]);
    thread::sleep(Duration::from_millis(1100));
    cluster.nodes[1].kill();
    let reply = other.line("WAIT 1 1000");
    assert!(text(&reply).starts_with("-ERR proxy: "), "{reply:?}");
    cluster.nodes[1].restart();
    until("it to be told", Duration::from_secs(20), || {
        let reply = other.line("WAIT 1 1000");
        assert!(text(&reply).starts_with("-ERR proxy: "), "{reply:?}");
        text(&reply).contains("may be lost").then_some(())
    });
}

#[test]
fn waitaof_counts_what_is_on_disk() {
    if !Flavour::Valkey.is_here("waitaof_counts_what_is_on_disk") {
        return;
    }
    let config = vec!["appendonly yes".to_owned(), "appendfsync always".to_owned()];
    let shape = Shape { flavour: Flavour::Valkey, primaries: 2, replicas: 1, config, ..Shape::default() };
    let mut cluster = Cluster::start(shape);
    let proxy = Proxy::start(Settings::new(cluster.seeds()).expecting_warnings());
    let (here, there) = (cluster.key_on(0, "w"), cluster.key_on(1, "w"));
    let (mut client, mut other) = (proxy.client(), proxy.client());
    client.call(&["SET", &here, "1"]);
    assert_eq!(client.line("WAITAOF 1 1 5000"), "*2\r\n:1\r\n:1\r\n");
    cluster.nodes[2].pause();
    client.call(&["SET", &here, "2"]);
    assert_eq!(client.line("WAITAOF 1 1 300"), "*2\r\n:1\r\n:0\r\n");
    other.call(&["SET", &there, "2"]);
    assert_eq!(other.line("WAITAOF 1 1 5000"), "*2\r\n:1\r\n:1\r\n");
    client.send(&["WAITAOF", "0", "1", "0"]);
    eventually("it to wait", || proxy.metric("slotway_blocked_clients", &[]) >= 1.0);
    cluster.nodes[2].resume();
    assert_eq!(client.reply(), "*2\r\n:1\r\n:1\r\n");
    // Errors are the server's own.
    let oracle = Node::start(&Setup { flavour: Flavour::Valkey, ..Setup::default() });
    let plain = Cluster::start(Shape { flavour: Flavour::Valkey, ..Shape::default() });
    let proxy = Proxy::before(&plain);
    for line in [
        "WAITAOF 0 0 0",
        "WAITAOF 1 0 0",
        "WAITAOF 2 0 0",
        "WAITAOF a 0 0",
        "WAITAOF 0 -1 0",
        "WAITAOF 0 0 -1",
        "WAITAOF 0 0",
    ] {
        assert_eq!(proxy.client().line(line), Reply(oracle.line(line).0), "{line}");
    }
}
