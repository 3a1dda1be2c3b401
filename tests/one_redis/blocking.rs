//! Commands that wait: they wait as on one Redis, they lose nothing, and nothing is popped for a client that has gone.

use std::time::{Duration, Instant};

use crate::support::{
    Act, Client, Cluster, FakeNode, Node, Proxy, Settings, Shape,
    client::{frame, words},
    cluster::shared,
    eventually, until,
};

/// How many clients wait at the nodes.
fn waiting(cluster: &Cluster) -> usize {
    cluster.nodes.iter().map(|node| node.info("blocked_clients").parse::<usize>().expect("a number")).sum()
}

fn wait_for_waiting(cluster: &Cluster, count: usize) {
    eventually(&format!("{count} blocked clients"), || waiting(cluster) == count);
}

/// A cluster and a proxy of a test's own: others that wait would be counted too.
fn own() -> (Cluster, Proxy) {
    let cluster = Cluster::three();
    let proxy = Proxy::before(&cluster);
    (cluster, proxy)
}

#[test]
fn every_blocking_command_answers_as_one_redis() {
    let (proxy, oracle) = (Proxy::before(shared()), Node::standalone());
    for version in [2, 3] {
        let mut ours = proxy.client_of(version);
        let mut theirs = oracle.client();
        theirs.line(&format!("HELLO {version}"));
        for line in [
            "DEL {bk}l {bk}m {bk}z {bk}s",
            // What is there comes at once.
            "RPUSH {bk}l a b c d e f g",
            "BLPOP {bk}none {bk}l 0",
            "BRPOP {bk}l 1",
            "BLMOVE {bk}l {bk}m LEFT RIGHT 1",
            "BRPOPLPUSH {bk}l {bk}m 1",
            "BLMPOP 1 2 {bk}none {bk}l LEFT COUNT 2",
            "LRANGE {bk}m 0 -1",
            "ZADD {bk}z 1 a 2 b 3.5 c 4 d",
            "BZPOPMIN {bk}z 1",
            "BZPOPMAX {bk}none {bk}z 0",
            "BZMPOP 0 1 {bk}z MIN COUNT 5",
            "XADD {bk}s 1-1 f v",
            "XREAD BLOCK 0 STREAMS {bk}s 0",
            "XREAD COUNT 1 BLOCK 10 STREAMS {bk}s 0-5",
            "XGROUP CREATE {bk}s g 0",
            "XREADGROUP GROUP g c BLOCK 0 STREAMS {bk}s >",
            // What is not, does not.
            "BLPOP {bk}none 0.01",
            "BRPOP {bk}none {bk}other 0.01",
            "BLMOVE {bk}none {bk}l LEFT LEFT 0.01",
            "BRPOPLPUSH {bk}none {bk}l 0.01",
            "BLMPOP 0.01 1 {bk}none RIGHT",
            "BZPOPMIN {bk}none 0.01",
            "BZMPOP 0.01 1 {bk}none MAX",
            "XREAD BLOCK 10 STREAMS {bk}s $",
            "XREADGROUP GROUP g c BLOCK 10 STREAMS {bk}s >",
            // What is wrong is said in the server's words.
            "BLPOP {bk}l",
            "BLPOP {bk}l x",
            "BLPOP {bk}l -1",
            "BLPOP {bk}l inf",
            "BLPOP {bk}z 1e300",
            "BLPOP {bk}s 0",
            "BLMOVE {bk}l {bk}m UP LEFT 0",
            "BLMPOP 0 0 {bk}l LEFT",
            "BLMPOP 0 1 {bk}l UP",
            "XREAD BLOCK -1 STREAMS {bk}s $",
            "XREAD BLOCK x STREAMS {bk}s $",
            "XREADGROUP GROUP none c BLOCK 0 STREAMS {bk}s >",
            "DEL {bk}l {bk}m {bk}z {bk}s",
        ] {
            assert_eq!(ours.line(line), theirs.line(line), "{line} in RESP{version}");
        }
    }
}

#[test]
fn what_comes_later_ends_the_wait() {
    let (cluster, proxy) = own();
    let oracle = Node::standalone();
    let mut pusher = proxy.client();
    for version in [2, 3] {
        for (wait, push) in [
            ("BLPOP {later}a {later}b 0", "RPUSH {later}b 1"),
            ("BRPOP {later}a 0", "RPUSH {later}a 1 2"),
            ("BLMOVE {later}c {later}d LEFT LEFT 0", "RPUSH {later}c 1"),
            ("BLMPOP 0 1 {later}f LEFT COUNT 3", "RPUSH {later}f 1 2"),
            ("BZPOPMIN {later}z 0", "ZADD {later}z 1.5 m"),
            ("BZMPOP 0 1 {later}y MAX", "ZADD {later}y 1 m 2 n"),
            ("XREAD BLOCK 0 STREAMS {later}s $", "XADD {later}s 1-1 f v"),
        ] {
            let mut replies = Vec::new();
            for server in [proxy.address(), oracle.address()] {
                let mut waiter = Client::connect(&server);
                waiter.line(&format!("HELLO {version}"));
                waiter.send(&words(wait));
                if server == oracle.address() {
                    eventually("the oracle to block", || oracle.info("blocked_clients") == "1");
                    oracle.line(push);
                } else {
                    wait_for_waiting(&cluster, 1);
                    pusher.line(push);
                }
                replies.push(waiter.reply());
            }
            assert_eq!(replies[0], replies[1], "{wait}");
        }
        pusher.line("FLUSHALL");
        oracle.line("FLUSHALL");
    }
}

#[test]
fn who_waits_first_is_served_first() {
    let cluster = Cluster::three();
    let proxy = Proxy::start(Settings::new(cluster.seeds()).with("WORKERS", 1));
    let mut pusher = proxy.client();
    // One wait that is over leaves connections ready for the next, on which the node was only asked who it is.
    assert_eq!(proxy.client().line("BLPOP first 0.01"), "*-1\r\n");
    let owner = cluster.node(cluster.home_of("first"));
    eventually("spare connections", || {
        let idle =
            owner.line("CLIENT LIST").string().lines().filter(|line| line.contains(" cmd=cluster|myid ")).count();
        idle >= 2
    });
    for round in 0..20 {
        let mut waiters: Vec<Client> = (0..2).map(|_| proxy.client()).collect();
        // Nobody waits for the one before to be seen waiting.
        waiters.iter_mut().for_each(|waiter| waiter.send(&words("BLPOP first 0")));
        pusher.send(&words("RPUSH first 1"));
        assert_eq!(waiters[0].reply(), "*2\r\n$5\r\nfirst\r\n$1\r\n1\r\n", "round {round}");
        assert_eq!(pusher.reply(), ":1\r\n", "round {round}");
        assert_eq!(pusher.line("RPUSH first 2"), ":1\r\n", "round {round}");
        assert_eq!(waiters[1].reply(), "*2\r\n$5\r\nfirst\r\n$1\r\n2\r\n", "round {round}");
    }
}

#[test]
fn a_client_that_has_gone_takes_nothing() {
    let (cluster, proxy) = own();
    let mut pusher = proxy.client();
    let mut gone: Vec<Client> = (0..20).map(|_| proxy.client()).collect();
    for (number, client) in gone.iter_mut().enumerate() {
        client.send(&words(&format!("BLPOP gone{number} 0")));
    }
    wait_for_waiting(&cluster, 20);
    let blocked = |proxy: &Proxy| proxy.metric("slotway_blocked_clients", &[]) == 20.0;
    eventually("the metric to count them", || blocked(&proxy));
    // Half of them close, the others are killed by name.
    for (number, client) in gone.into_iter().enumerate() {
        if number % 2 == 0 {
            drop(client);
        } else {
            let address = client.stream().local_addr().unwrap().to_string();
            assert_eq!(pusher.line(&format!("CLIENT KILL {address}")), "+OK\r\n");
        }
    }
    wait_for_waiting(&cluster, 0);
    for number in 0..20 {
        assert_eq!(pusher.line(&format!("RPUSH gone{number} element")), ":1\r\n");
        assert_eq!(pusher.line(&format!("LLEN gone{number}")), ":1\r\n");
    }
    eventually("the metric to fall", || proxy.metric("slotway_blocked_clients", &[]) == 0.0);
}

#[test]
fn a_client_that_goes_with_much_sent_ahead_takes_nothing() {
    let (cluster, proxy) = own();
    let mut client = proxy.client();
    client.send(&words("BLPOP ahead 0"));
    wait_for_waiting(&cluster, 1);
    // More than the proxy takes in while the client waits; what is left fits into the socket, or its end could not come.
    let ahead = frame(&["SET".as_bytes(), b"k", &vec![b'v'; (1024 + 16) * 1024]]);
    client.send_raw(&ahead);
    drop(client);
    wait_for_waiting(&cluster, 0);
    assert_eq!(proxy.client().line("RPUSH ahead 1"), ":1\r\n");
    assert_eq!(proxy.client().line("LLEN ahead"), ":1\r\n");
}

#[test]
fn replies_before_the_wait_come_before_it_and_requests_behind_it_after() {
    let (cluster, proxy) = own();
    let mut client = proxy.client();
    let requests = ["SET order 1", "GET order", "BLPOP orderlist 0", "GET order", "PING"];
    client.send_raw(&requests.iter().flat_map(|line| frame(&words(line))).collect::<Vec<_>>());
    assert_eq!(client.reply(), "+OK\r\n");
    assert_eq!(client.reply(), "$1\r\n1\r\n");
    wait_for_waiting(&cluster, 1);
    client.send(&words("ECHO sent-while-waiting"));
    let mut other = proxy.client();
    assert_eq!(other.line("SET order 2"), "+OK\r\n");
    assert_eq!(other.line("RPUSH orderlist x"), ":1\r\n");
    assert_eq!(client.reply(), "*2\r\n$9\r\norderlist\r\n$1\r\nx\r\n");
    assert_eq!(client.reply(), "$1\r\n2\r\n");
    assert_eq!(client.reply(), "+PONG\r\n");
    assert_eq!(client.reply(), "$18\r\nsent-while-waiting\r\n");
}

#[test]
fn unblocking_works_across_workers_and_says_so() {
    let (cluster, proxy) = own();
    let oracle = Node::standalone();
    let mut other = proxy.client();
    for (version, command) in [
        (2, "BLPOP unblock 0"),
        (3, "BLPOP unblock 0"),
        (2, "BLMOVE unblock {unblock}to LEFT LEFT 0"),
        (2, "XREAD BLOCK 0 STREAMS unblock $"),
        (2, "BZMPOP 0 1 unblock MIN"),
    ] {
        for how in ["", " TIMEOUT", " ERROR"] {
            let mut replies = Vec::new();
            for (address, other) in [(proxy.address(), &mut other), (oracle.address(), &mut oracle.client())] {
                let mut client = Client::connect(&address);
                client.line(&format!("HELLO {version}"));
                let id = client.line("CLIENT ID").integer();
                assert_eq!(other.line(&format!("CLIENT UNBLOCK {id}{how}")), ":0\r\n");
                client.send(&words(command));
                if address == proxy.address() {
                    wait_for_waiting(&cluster, 1);
                    // The node may know it a little earlier than the proxy, which has just sent the command.
                    eventually("the client to be listed as blocked", || {
                        other.line(&format!("CLIENT LIST ID {id}")).string().contains(" flags=b ")
                    });
                } else {
                    eventually("the oracle to block", || oracle.info("blocked_clients") == "1");
                }
                assert_eq!(other.line(&format!("CLIENT UNBLOCK {id}{how}")), ":1\r\n");
                replies.push(client.reply());
                assert_eq!(client.line("PING"), "+PONG\r\n");
            }
            assert_eq!(replies[0], replies[1], "{command}, UNBLOCK{how}");
        }
    }
    for line in ["CLIENT UNBLOCK 999999", "CLIENT UNBLOCK x", "CLIENT UNBLOCK 1 WHY", "CLIENT UNBLOCK"] {
        assert_eq!(other.line(line), oracle.line(line), "{line}");
    }
}

#[test]
fn a_wait_follows_its_slot() {
    let (cluster, proxy) = own();
    let slot = 12182; // foo's
    let mut lists = proxy.client();
    lists.send(&words("BLPOP foo 0"));
    let mut timed = proxy.client();
    let begin = Instant::now();
    timed.send(&words("BLPOP {foo}timed 4"));
    let mut stream = proxy.client();
    assert!(!stream.line("XADD {foo}s 1-1 f before").is_error());
    stream.send(&words("XREAD BLOCK 0 STREAMS {foo}s $"));
    wait_for_waiting(&cluster, 3);
    cluster.open_slot(slot, 2, 0);
    cluster.move_keys(&["{foo}s"], 2, 0);
    // Between the two nodes, the new one already has what the stream's reader waits for.
    let mut target = cluster.node(0).client();
    assert_eq!(target.line("ASKING"), "+OK\r\n");
    assert_eq!(target.line("XADD {foo}s 2-1 f while-moving"), "$3\r\n2-1\r\n");
    cluster.close_slot(slot, 2, 0);
    assert_eq!(
        stream.reply(),
        "*1\r\n*2\r\n$6\r\n{foo}s\r\n*1\r\n*2\r\n$3\r\n2-1\r\n*2\r\n$1\r\nf\r\n$12\r\nwhile-moving\r\n"
    );
    assert_eq!(proxy.client().line("RPUSH foo moved"), ":1\r\n");
    assert_eq!(lists.reply(), "*2\r\n$3\r\nfoo\r\n$5\r\nmoved\r\n");
    assert_eq!(timed.reply(), "*-1\r\n");
    let took = begin.elapsed();
    assert!((Duration::from_secs(4)..Duration::from_secs(6)).contains(&took), "a wait of 4 s took {took:?}");
}

#[test]
fn a_wait_begins_where_the_key_will_come() {
    let (cluster, proxy) = own();
    cluster.open_slot(12182, 2, 0);
    let mut client = proxy.client();
    client.send(&words("BLPOP foo 0"));
    eventually("the wait at the importing node", || cluster.node(0).info("blocked_clients") == "1");
    assert_eq!(proxy.client().line("RPUSH foo here"), ":1\r\n");
    assert_eq!(client.reply(), "*2\r\n$3\r\nfoo\r\n$4\r\nhere\r\n");
    cluster.close_slot(12182, 2, 0);
}

#[test]
fn a_failover_does_not_end_a_wait() {
    let shape = Shape { replicas: 1, node_timeout: Duration::from_secs(2), ..Shape::default() };
    let cluster = Cluster::start(shape);
    let proxy = Proxy::start(Settings::new(cluster.seeds()).expecting_warnings());
    let key = cluster.key_on(0, "failover");
    let mut client = proxy.client();
    client.send(&words(&format!("BLPOP {key} 0")));
    wait_for_waiting(&cluster, 1);
    cluster.fail_over_to(3, "");
    eventually("the wait at the new primary", || cluster.node(3).info("blocked_clients") == "1");
    until("a push", Duration::from_secs(10), || {
        (proxy.client().line(&format!("RPUSH {key} x")) == ":1\r\n").then_some(())
    });
    assert_eq!(client.reply().texts(), [&key, "x"]);
}

#[test]
fn what_may_have_popped_is_not_sent_again() {
    let node = FakeNode::start();
    node.always(|heard| match heard.text().as_str() {
        "CLIENT ID" => Some(Act::say(":7")),
        text if text.starts_with("XINFO") => Some(Act::say("-ERR no such key")),
        _ => None,
    });
    let proxy = Proxy::start(Settings::new(node.address()).expecting_warnings());
    let mut client = proxy.client();
    node.when("BLPOP k", Act::HangUp);
    let reply = client.line("BLPOP k 0");
    assert!(reply.is_error() && String::from_utf8_lossy(&reply.0).contains("may have run"), "{reply:?}");
    assert_eq!(node.count("BLPOP"), 1);
    // What only reads goes again, from where it began.
    node.when("XREAD BLOCK 0 STREAMS s $", Act::HangUp).when("XREAD BLOCK 0 STREAMS s 0-0", Act::say("*-1"));
    assert_eq!(client.line("XREAD BLOCK 0 STREAMS s $"), "*-1\r\n");
    // Refused, it goes again, with the time that is left.
    let busy = "-UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)";
    node.when("BLPOP k 100", Act::say(busy))
        .when("BLPOP k 9", Act::say("-LOADING Redis is loading the dataset in memory"));
    node.when("BLPOP k 9", Act::say("*-1"));
    assert_eq!(client.line("BLPOP k 100"), "*-1\r\n");
    assert_eq!(node.unused(), 0);
    // The server's own word for a stream that has gone is the command's reply.
    node.when("XREADGROUP", Act::say("-UNBLOCKED the stream key no longer exists"));
    assert_eq!(
        client.line("XREADGROUP GROUP g c BLOCK 0 STREAMS s >"),
        "-UNBLOCKED the stream key no longer exists\r\n"
    );
}

#[test]
fn a_draining_proxy_ends_waits_without_loss() {
    let cluster = Cluster::three();
    let proxy = Proxy::before(&cluster);
    let mut clients: Vec<Client> = (0..5).map(|_| proxy.client()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.send(&words(&format!("BLPOP drain{number} 0")));
    }
    wait_for_waiting(&cluster, 5);
    let begin = Instant::now();
    proxy.shut_down();
    assert!(begin.elapsed() < Duration::from_secs(5), "the drain took {:?}", begin.elapsed());
    wait_for_waiting(&cluster, 0);
    for mut client in clients {
        assert_eq!(client.read_to_end().unwrap(), b"", "it is closed without an answer, as Redis does when it ends");
    }
}
