//! Connections of which the other end has gone without a word, as where a cable is pulled: no FIN, no RST, no packet at all.

use std::{collections::BTreeSet, fs, time::Duration};

use crate::support::{Client, Cluster, Namespace, Proxy, Settings, eventually, until};

/// How long it takes, at most, until somebody who has gone is noticed.
const NOTICED: Duration = Duration::from_secs(20);

/// Who looks after peers once a second, and gives nodes up soon. One worker, so that all clients share one connection.
fn settings(cluster: &Cluster) -> Settings {
    Settings::new(cluster.seeds())
        .with("TCP_KEEPALIVE", "1s")
        .with("REQUEST_TIMEOUT", "1s")
        .with("NODE_TIMEOUT", "2s")
        .with("WORKERS", "1")
        .expecting_warnings()
}

/// The ports at which a node's connections begin, but for those of this test, which asks by CLIENT LIST.
fn origins(node: &mut Client) -> BTreeSet<u16> {
    let list = node.line("CLIENT LIST").string();
    let origin = |line: &str| line.split(" addr=").nth(1)?.split(' ').next()?.rsplit(':').next()?.parse().ok();
    let others = list.lines().filter(|line| !line.contains(" cmd=client|list "));
    others.map(|line| origin(line).expect("an address")).collect()
}

/// Where the connections to `port` begin of which the kernel knows anything yet, on this thread's network.
fn known_origins(port: u16) -> BTreeSet<u16> {
    let table = fs::read_to_string("/proc/thread-self/net/tcp").expect("Linux's table of connections");
    let number = |address: &str| u16::from_str_radix(address.split(':').nth(1)?, 16).ok();
    let ends = table.lines().skip(1).filter_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        Some((number(fields.next()?)?, number(fields.next()?)?))
    });
    ends.filter(|&(_, remote)| remote == port).map(|(local, _)| local).collect()
}

#[test]
fn what_was_given_up_at_a_node_that_is_cut_off_does_not_run_later() {
    Namespace::run("what_was_given_up_at_a_node_that_is_cut_off_does_not_run_later", |network| {
        let cluster = Cluster::three();
        let proxy = Proxy::start(settings(&cluster));
        let keys: Vec<String> = (0..3).map(|index| cluster.key_on(index, "cut:")).collect();
        let mut client = proxy.client();
        for key in &keys {
            assert_eq!(client.call(&["SET", key, "first"]), "+OK\r\n");
        }
        let queue = format!("{{{}}}queue", keys[0]);
        let mut blocked = proxy.client().patient(NOTICED);
        blocked.send(&["BLPOP", &queue, "0"]);
        eventually("it to wait at the node", || cluster.node(0).line("CLIENT LIST").string().contains("cmd=blpop"));
        let before = origins(&mut cluster.nodes[0].client());
        let port = cluster.nodes[0].port;
        network.cut_off(port);

        // Sent, and never answered.
        let reply = client.call(&["SET", &keys[0], "OLD"]);
        let text = String::from_utf8_lossy(&reply.0).into_owned();
        assert!(text.contains(&cluster.nodes[0].address()) && text.contains("may have run"), "{text}");
        // Who only waits is told, too.
        assert!(blocked.reply().is_error());
        // All others are served.
        for round in 0..50 {
            for key in &keys[1..] {
                let value = round.to_string();
                assert_eq!(client.call(&["SET", key, &value]), "+OK\r\n");
                assert_eq!(client.call(&["GET", key]).string(), value);
            }
        }

        network.join_again(port);
        until("a write to be taken", NOTICED, || (client.call(&["SET", &keys[0], "NEW"]) == "+OK\r\n").then_some(()));
        // Nobody waits there any more for who was told that he waits no longer.
        assert_eq!(blocked.call(&["RPUSH", &queue, "x"]), ":1\r\n");
        // What the kernel still held of given-up connections has come, or never will, by the time that it has forgotten them.
        until("the connections of before to end", NOTICED, || known_origins(port).is_disjoint(&before).then_some(()));
        assert_eq!(blocked.call(&["LLEN", &queue]), ":1\r\n");
        assert_eq!(client.call(&["GET", &keys[0]]).string(), "NEW");
    });
}

#[test]
fn a_client_that_has_vanished_is_noticed_and_nothing_is_popped_for_it() {
    Namespace::run("a_client_that_has_vanished_is_noticed_and_nothing_is_popped_for_it", |network| {
        let cluster = Cluster::three();
        let proxy = Proxy::start(settings(&cluster));
        let mut waiting = proxy.client();
        waiting.send(&["BLPOP", "vanished:queue", "0"]);
        let mut listening = proxy.client();
        listening.line("SUBSCRIBE vanished:news");
        let mut idle = proxy.client();
        idle.line("PING");
        let connected = || proxy.metric("slotway_client_connections", &[]);
        eventually("all to be there", || connected() == 3.0 && proxy.client().line("PING") == "+PONG\r\n");
        for client in [&waiting, &listening, &idle] {
            network.cut(client.stream());
        }
        until("them to be noticed", NOTICED, || (connected() == 0.0).then_some(()));
        let mut client = proxy.client();
        assert_eq!(client.line("RPUSH vanished:queue x"), ":1\r\n");
        assert_eq!(client.line("PUBLISH vanished:news x"), ":0\r\n");
        assert_eq!(client.line("LLEN vanished:queue"), ":1\r\n");
    });
}
