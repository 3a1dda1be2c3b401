//! What nodes are told to take from one connection, connections that clients share keep to, whatever one client sends or
//! asks for: no neighbour meets an error, and no such connection is lost.

use std::{
    collections::BTreeSet,
    io::Read,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::Duration,
};

use crate::{
    in_step::frames::{Bench, Over, with_both},
    support::{Client, Flavour, client::frame, eventually, until},
};

const KIB: usize = 1024;

/// The connections by which SETs have come to a node last.
fn shared(bench: &Bench, node: usize) -> BTreeSet<String> {
    bench.connections(bench.cluster.node(node), "cmd=set").into_iter().collect()
}

/// Does `work` while neighbours write and read at the first node: none of them may meet an error, or what is another's,
/// and the connection that they share may not be lost.
fn beside_writers(bench: &Bench, work: impl FnOnce()) {
    let done = AtomicBool::new(false);
    let key = bench.cluster.key_on(0, "writer:");
    thread::scope(|scope| {
        let writers: Vec<_> = (0..2)
            .map(|number| {
                let (done, key) = (&done, format!("{{{key}}}{number}"));
                let mut client = bench.proxy.client();
                assert_eq!(client.call(&["SET", &key, "0"]), "+OK\r\n");
                scope.spawn(move || {
                    for round in (0..).take_while(|_| !done.load(Relaxed)) {
                        let value = format!("{round}");
                        assert_eq!(client.call(&["SET", &key, &value]), "+OK\r\n");
                        assert_eq!(client.call(&["GET", &key]).string(), value);
                        assert_eq!(client.call(&["SET", &key, &value]), "+OK\r\n");
                    }
                })
            })
            .collect();
        let before = bench.cluster.node(0).line("CLIENT LIST").string();
        let links: Vec<String> = before.lines().filter_map(|line| line.split(' ').next().map(str::to_owned)).collect();
        let _over = Over(&done);
        let first = until("the shared connection", Duration::from_secs(10), || {
            shared(bench, 0).into_iter().find(|one| links.iter().any(|id| one.ends_with(id)))
        });
        // They have to be told to end, whatever becomes of the work.
        let over = Over(&done);
        work();
        drop(over);
        writers.into_iter().for_each(|writer| writer.join().expect("a neighbour met no error"));
        assert!(shared(bench, 0).contains(&first), "a shared connection was lost; the log:\n{}", bench.proxy.log());
    });
}

#[test]
fn what_a_paused_node_has_not_read_is_within_its_query_buffer() {
    with_both("node_limits::what_a_paused_node_has_not_read_is_within_its_query_buffer", |flavour| {
        let bench = Bench::new(flavour, &["client-query-buffer-limit 1mb"]);
        let key = bench.cluster.key_on(0, "paused:");
        let value = vec![b'v'; 200 * KIB];
        bench.beside_neighbours(|| {
            assert_eq!(bench.cluster.node(0).line("CLIENT PAUSE 1000 ALL"), "+OK\r\n");
            thread::scope(|scope| {
                for number in 0..12 {
                    let (bench, key, value) = (&bench, format!("{{{key}}}{number}"), &value);
                    scope.spawn(move || {
                        let mut client = bench.proxy.client();
                        client.send_raw(&frame(&[b"SET", key.as_bytes(), value]).repeat(4));
                        (0..4).for_each(|_| assert_eq!(client.reply(), "+OK\r\n"));
                    });
                }
            });
        });
    });
}

#[test]
fn a_node_that_closes_idle_connections_closes_no_shared_one() {
    with_both("node_limits::a_node_that_closes_idle_connections_closes_no_shared_one", |flavour| {
        let bench = Bench::new(flavour, &["timeout 1"]);
        let keys: Vec<String> = (0..3).map(|index| bench.cluster.key_on(index, "idle:")).collect();
        keys.iter().for_each(|key| assert_eq!(bench.proxy.client().call(&["SET", key, "v"]), "+OK\r\n"));
        let ids = |node: usize| -> BTreeSet<String> {
            let list = bench.cluster.node(node).line("CLIENT LIST").string();
            list.lines().filter_map(|line| line.split(' ').next().map(str::to_owned)).collect()
        };
        let links: Vec<BTreeSet<String>> = (0..3).map(|node| shared(&bench, node)).collect();
        assert!(links.iter().all(|links| links.len() == 1), "{links:?}");
        for _ in 0..2 {
            // As idle as the connections of the proxy, and closed.
            let mut others: Vec<Client> = bench.cluster.nodes.iter().map(|node| node.client()).collect();
            for other in &mut others {
                other.stream().set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
                assert!(matches!(other.stream().read(&mut [0]), Ok(0)), "the node closes it");
            }
        }
        for (node, links) in links.iter().enumerate() {
            let open = ids(node);
            assert!(links.iter().all(|link| open.contains(link.split(' ').nth(1).expect("its id"))), "a link was lost");
        }
        keys.iter().for_each(|key| assert_eq!(bench.proxy.client().call(&["APPEND", key, "w"]), ":2\r\n"));
    });
}

#[test]
fn an_argument_may_be_as_long_as_on_one_server() {
    with_both("node_limits::an_argument_may_be_as_long_as_on_one_server", |flavour| {
        for (line, length) in [("proto-max-bulk-len 1mb", 2 * KIB * KIB), ("proto-max-bulk-len 1gb", 600 * KIB * KIB)] {
            let bench = Bench::new(flavour, &[line]);
            let behind = vec![b'v'; 64 * KIB];
            let bytes = [format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${length}\r\n").as_bytes(), &behind].concat();
            bench.beside_neighbours(|| {
                let [ours, theirs] = bench.answers(&bytes);
                assert_eq!(ours.escape_ascii().to_string(), theirs.escape_ascii().to_string(), "{line}");
            });
        }
    });
}

#[test]
fn replies_that_a_node_will_not_keep_cost_nobody_but_who_asked() {
    with_both("node_limits::replies_that_a_node_will_not_keep_cost_nobody_but_who_asked", |flavour| {
        let bench = Bench::new(flavour, &["client-output-buffer-limit normal 1mb 0 0"]);
        let key = bench.cluster.key_on(0, "kept:");
        let (middling, large) = (format!("{{{key}}}middling"), format!("{{{key}}}large"));
        for mut node in [bench.cluster.node(0).client(), bench.oracle.client()] {
            assert_eq!(node.call(&[b"SET", middling.as_bytes(), &vec![b'm'; 100 * KIB]]), "+OK\r\n");
            assert_eq!(node.call(&[b"SET", large.as_bytes(), &vec![b'l'; 4 * KIB * KIB]]), "+OK\r\n");
        }
        beside_writers(&bench, || {
            // Together they are more than the node keeps.
            let mut client = bench.proxy.client();
            client.send_raw(&frame(&["GET", &middling]).repeat(100));
            (0..100).for_each(|_| assert_eq!(client.reply().string().len(), 100 * KIB));
            thread::scope(|scope| {
                for _ in 0..10 {
                    let (bench, middling) = (&bench, &middling);
                    scope.spawn(move || {
                        let mut client = bench.proxy.client();
                        (0..20).for_each(|_| assert_eq!(client.call(&["GET", middling]).string().len(), 100 * KIB));
                    });
                }
            });
            // For such a one a node closes the connection, unless it need not copy the value.
            let script = "return redis.call('GET', KEYS[1])";
            for request in [vec!["GET", &*large], vec!["GETEX", &*large], vec!["EVAL", script, "1", &*large]] {
                for _ in 0..3 {
                    let ours = bench.proxy.client().call(&request);
                    match bench.oracle.client().try_call(&request) {
                        Ok(theirs) => assert!(ours == theirs, "{request:?}: {ours:?} instead of {theirs:?}"),
                        // One server may have closed before it could send, and another of the same kind not.
                        Err(_) if ours.is_error() => {
                            assert!(format!("{ours:?}").contains("lost"), "{request:?}: {ours:?}")
                        }
                        Err(_) => assert_eq!(ours.string().len(), 4 * KIB * KIB, "{request:?}"),
                    }
                }
            }
            let transaction = [frame(&["MULTI"]), frame(&["GET", &large]), frame(&["EXEC"])].concat();
            let replies = bench.proxy.client().exchange(&transaction, 3);
            let is_closed = flavour == Flavour::Redis;
            assert_eq!(format!("{:?}", replies[2]).contains("lost"), is_closed, "{:?}", replies[2]);
        });
    });
}

#[test]
fn a_limit_that_is_set_later_is_heeded() {
    with_both("node_limits::a_limit_that_is_set_later_is_heeded", |flavour| {
        let bench = Bench::new(flavour, &[]);
        let key = bench.cluster.key_on(0, "later:");
        for node in &bench.cluster.nodes {
            assert_eq!(node.line("ACL SETUSER guest on >word +@all -client ~*"), "+OK\r\n");
        }
        assert_eq!(bench.proxy.client().call(&["SET", &key, "v"]), "+OK\r\n");
        for node in &bench.cluster.nodes {
            assert_eq!(node.line("CONFIG SET maxmemory-clients 100mb"), "+OK\r\n");
        }
        let is_spared = |user: &str, command: &str| {
            let list = bench.cluster.node(0).line("CLIENT LIST").string();
            let is_meant = |line: &&str| line.contains(&format!(" user={user} ")) && line.contains(command);
            let mut flags = list.lines().filter(is_meant).filter_map(|line| line.split(" flags=").nth(1));
            flags.any(|flags| flags.split(' ').next().is_some_and(|flags| flags.contains('e')))
        };
        until("the shared connection to be spared", Duration::from_secs(30), || {
            is_spared("default", " cmd=client|no-evict ").then_some(())
        });
        eventually("another user's connection to be spared, too", || {
            let mut guest = bench.proxy.client();
            assert_eq!(guest.line("AUTH guest word"), "+OK\r\n");
            assert_eq!(guest.call(&["GET", &key]).string(), "v");
            is_spared("guest", " cmd=get ")
        });
        let denied = bench.cluster.node(0).line("ACL LOG").value();
        assert!(denied.items().is_empty(), "{denied:?}");
    });
}
