//! At most once, and never another's reply: what must hold when nodes and clients die in the middle of things.

use std::{
    collections::HashSet,
    io,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::support::{
    Act, Client, Cluster, FakeNode, Flavour, Node, Proxy, Random, Settings, Shape,
    client::{frame, show},
    eventually, until,
};

#[test]
fn a_killed_primary_doubles_no_write_and_hurts_no_other_slot() {
    let shape = Shape { replicas: 1, node_timeout: Duration::from_secs(2), ..Shape::default() };
    let mut cluster = Cluster::start(shape);
    let proxy = Proxy::start(Settings::new(cluster.seeds()).expecting_warnings());
    let done = AtomicBool::new(false);
    let victim_key = cluster.key_on(0, "victim:");
    let other_key = cluster.key_on(1, "other:");
    thread::scope(|scope| {
        let victims: Vec<_> = (0..4)
            .map(|number| {
                scope.spawn({
                    let (proxy, done, key) = (&proxy, &done, &victim_key);
                    move || push(proxy, number, key, done)
                })
            })
            .collect();
        let other = scope.spawn({
            let (proxy, done, key) = (&proxy, &done, &other_key);
            move || push(proxy, 9, key, done)
        });
        eventually("the writers to have written", || {
            cluster.node(0).line(&format!("LLEN {victim_key}")).integer() > 200
        });
        cluster.nodes[0].kill();
        cluster.wait_until_primary(3);
        let before = cluster.node(3).line(&format!("LLEN {victim_key}")).integer();
        // Served again without anybody doing anything.
        eventually("the new primary to be written to", || {
            cluster.node(3).line(&format!("LLEN {victim_key}")).integer() > before + 100
        });
        done.store(true, Ordering::Release);
        for victim in victims {
            victim.join().expect("only clear errors");
        }
        let (sent, errors) = other.join().expect("no error");
        assert_eq!(errors, 0, "of {sent} requests to a healthy node");
    });
    for (node, key) in [(3, &victim_key), (1, &other_key)] {
        let list = cluster.node(node).line(&format!("LRANGE {key} 0 -1")).texts();
        let distinct: HashSet<&String> = list.iter().collect();
        assert_eq!(distinct.len(), list.len(), "some of {} writes to {key} took effect twice", list.len());
    }
}

/// Pushes distinct values in small pipelines until done; how many were sent and how many ended in an error.
fn push(proxy: &Proxy, number: usize, key: &str, done: &AtomicBool) -> (usize, usize) {
    let mut client = proxy.client();
    let (mut sent, mut errors) = (0, 0);
    while !done.load(Ordering::Acquire) {
        let requests: Vec<Vec<String>> = (0..10)
            .map(|place| vec!["RPUSH".to_owned(), key.to_owned(), format!("{number}-{}", sent + place)])
            .collect();
        for reply in client.pipeline(&requests) {
            if reply.is_error() {
                errors += 1;
                let text = String::from_utf8_lossy(&reply.0).into_owned();
                assert!(text.starts_with("-ERR ") || text.starts_with("-CLUSTERDOWN "), "no clear error: {text}");
            }
        }
        sent += requests.len();
    }
    (sent, errors)
}

/// Another server comes to the address of a node that has died: first one of another cluster that owns the same slots.
#[test]
fn another_server_at_a_known_address_gets_no_requests() {
    let two = || Cluster::start(Shape { primaries: 2, ..Shape::default() });
    let (mut ours, mut other) = (two(), two());
    let proxy = Proxy::start(Settings::new(ours.node(0).address()).expecting_warnings());
    let mut client = proxy.client();
    let (stays, lost) = (ours.key_on(0, "passed:"), ours.key_on(1, "passed:"));
    assert_eq!(client.call(&["SET", &lost, "ours"]), "+OK\r\n");
    ours.nodes[1].kill();
    other.nodes[1].kill();
    let port = ours.node(1).port;
    other.nodes[1].move_to(port);
    other.nodes[1].restart();
    until("the stranger to serve its slots", Duration::from_secs(30), || {
        other.node(1).line("CLUSTER INFO").string().contains("cluster_state:ok").then_some(())
    });
    let reply = format!("{:?}", client.call(&["SET", &lost, "strange"]));
    assert!(reply.contains("another node is there"), "{reply}");
    assert_eq!(other.node(1).line("DBSIZE"), ":0\r\n");
    // Nor does a server that is in no cluster, and would take whatever comes.
    other.nodes[1].kill();
    let mut single = Node::standalone();
    single.kill();
    single.move_to(port);
    single.restart();
    eventually("the server to be known for what it is", || {
        format!("{:?}", client.call(&["SET", &lost, "strange"])).contains("cluster support disabled")
    });
    assert_eq!(single.line("DBSIZE"), ":0\r\n");
    assert_eq!(client.call(&["SET", &stays, "ours"]), "+OK\r\n");
    ours.nodes.truncate(1);
}

/// A node is taken from one cluster and put into another, where it owns the same slots, and never restarts: what is open to it
/// stays open.
#[test]
fn a_node_that_has_joined_another_cluster_gets_no_requests() {
    let two = || Cluster::start(Shape { primaries: 2, ..Shape::default() });
    let (ours, other) = (two(), two());
    let proxy = Proxy::start(Settings::new(ours.seeds()).expecting_warnings());
    let (mut client, mut blocked, mut subscribed) = (proxy.client(), proxy.client(), proxy.client());
    let (stays, lost) = (ours.key_on(0, "reset:"), ours.key_on(1, "reset:"));
    let (list, channel) = (format!("{{{lost}}}list"), format!("{{{lost}}}channel"));
    let slot = client.call(&["CLUSTER", "KEYSLOT", &lost]).integer() as usize;
    assert_eq!(client.call(&["SET", &lost, "ours"]), "+OK\r\n");
    blocked.send(&["BLPOP", &list, "0"]);
    assert!(!subscribed.call(&["SSUBSCRIBE", &channel]).is_error());
    eventually("the client to wait at the node", || ours.node(1).info("blocked_clients") == "1");
    let moved = ours.node(1);
    assert_eq!(moved.line("FLUSHALL"), "+OK\r\n");
    assert_eq!(moved.line("CLUSTER RESET HARD"), "+OK\r\n");
    let (id, owner) = (moved.line("CLUSTER MYID").string(), other.node(1));
    assert!(!owner.line(&format!("CLUSTER MEET 127.0.0.1 {} {}", moved.port, moved.bus)).is_error());
    eventually("the two to know each other", || {
        owner.line("CLUSTER NODES").string().contains(&id)
            && moved.line("CLUSTER NODES").string().contains(&other.id(1))
    });
    for node in [moved, owner, other.node(0)] {
        eventually("the slot to be the stranger's", || {
            !node.line(&format!("CLUSTER SETSLOT {slot} NODE {id}")).is_error()
        });
    }
    eventually("the stranger to serve it", || {
        moved.try_line(&format!("SET {lost} strange")).is_some_and(|said| said == "+OK\r\n")
    });
    // What comes first may still find it; what is known is that soon nothing does.
    eventually("the node to be known for another", || {
        format!("{:?}", client.call(&["GET", &lost])).contains("another node is there")
    });
    assert_eq!(moved.line(&format!("RPUSH {list} strange")), ":1\r\n");
    assert_eq!(moved.line(&format!("SPUBLISH {channel} strange")), ":0\r\n", "nobody listens there");
    assert!(blocked.reply().is_error(), "nothing is popped in another cluster");
    assert!(client.call(&["SET", &lost, "ours"]).is_error());
    assert_eq!(moved.line(&format!("GET {lost}")).string(), "strange");
    assert_eq!(client.call(&["SET", &stays, "ours"]), "+OK\r\n");
}

#[test]
fn what_may_have_run_is_not_sent_again() {
    let settings = |node: &FakeNode| {
        Settings::new(node.address())
            .with("REQUEST_TIMEOUT", "1s")
            .with("NODE_TIMEOUT", "1500ms")
            .with("RETRY_TIMEOUT", "1s")
            .expecting_warnings()
    };
    for act in [Act::HangUp, Act::SayAndHangUp(b":".to_vec()), Act::SayAndHangUp(b"$3\r\nab".to_vec()), Act::FallSilent]
    {
        let node = FakeNode::start();
        node.when("INCR k", act.clone());
        node.always(|heard| Some(if heard.args[0] == b"INCR" { Act::say(":1") } else { Act::bulk(&heard.args[1]) }));
        let proxy = Proxy::start(settings(&node));
        let mut client = proxy.client();
        let reply = client.line("INCR k");
        let text = String::from_utf8_lossy(&reply.0).into_owned();
        assert!(text.starts_with("-ERR ") && text.contains(&node.address()), "{act:?}: {text}");
        assert_eq!(node.count("INCR k"), 1, "{act:?}: sent again, though it may have run");
        // The same client and others go on, and nothing is out of step.
        until("the node to be served again", Duration::from_secs(5), || {
            let reply = client.line("GET mine");
            assert!(reply.is_error() || reply.string() == "mine", "{act:?}: {reply:?}");
            (!reply.is_error()).then_some(())
        });
        assert_eq!(proxy.client().line("GET yours").string(), "yours", "{act:?}");
    }
}

#[test]
fn a_read_whose_node_hung_up_is_read_again() {
    let node = FakeNode::start();
    node.when("GET k", Act::HangUp).when("GET k", Act::bulk("v"));
    let proxy = Proxy::start(Settings::new(node.address()).expecting_warnings());
    assert_eq!(proxy.client().line("GET k").string(), "v");
    assert_eq!(node.count("GET k"), 2);
}

#[test]
fn replies_that_nobody_asked_for_reach_nobody() {
    for extra in [&b"$5\r\nEXTRA\r\n"[..], b"+OK\r\n+OK\r\n", b">2\r\n+message\r\n+EXTRA\r\n", b"nonsense\r\n"] {
        let node = FakeNode::start();
        node.when("GET first", Act::Say([b"$5\r\nfirst\r\n", extra].concat()));
        node.always(|heard| Some(Act::bulk(&heard.args[1])));
        let proxy = Proxy::start(Settings::new(node.address()).expecting_warnings());
        let mut client = proxy.client();
        assert_eq!(client.line("GET first").string(), "first");
        for _ in 0..20 {
            for (client, key) in [(&mut client, "mine"), (&mut proxy.client(), "yours")] {
                let reply = client.call(&["GET", key]);
                assert!(reply.is_error() || reply.string() == key, "{}: {key} got {reply:?}", extra.escape_ascii());
            }
        }
        assert_eq!(client.line("GET mine").string(), "mine", "{}", extra.escape_ascii());
    }
}

#[test]
fn replies_may_arrive_in_any_pieces() {
    let node = FakeNode::start();
    let reply = b"*3\r\n$5\r\nhello\r\n:42\r\n*1\r\n$2\r\n\r\n\r\n";
    for cut in 1..reply.len() {
        node.when("LRANGE k", Act::Pieces(vec![reply[..cut].to_vec(), reply[cut..].to_vec()]));
    }
    node.always(|heard| Some(Act::bulk(&heard.args[1])));
    let proxy = Proxy::start(Settings::new(node.address()));
    let mut client = proxy.client();
    let requests: Vec<Vec<&str>> =
        (1..reply.len()).flat_map(|_| [vec!["LRANGE", "k", "0", "-1"], vec!["GET", "x"]]).collect();
    for (place, got) in client.pipeline(&requests).iter().enumerate() {
        let expected: &[u8] = if place % 2 == 0 { reply } else { b"$1\r\nx\r\n" };
        assert_eq!(got.0.escape_ascii().to_string(), expected.escape_ascii().to_string(), "reply {place}");
    }
}

#[test]
fn a_late_reply_is_swallowed_by_its_place() {
    let node = FakeNode::start();
    node.when("GET slow", Act::Hold(Box::new(Act::bulk("slow"))));
    node.always(|heard| Some(Act::bulk(&heard.args[1])));
    let proxy = Proxy::start(
        Settings::new(node.address()).with("REQUEST_TIMEOUT", "300ms").with("NODE_TIMEOUT", "20s").expecting_warnings(),
    );
    let mut client = proxy.client();
    let start = Instant::now();
    let reply = client.line("GET slow");
    assert!(reply.is_error() && String::from_utf8_lossy(&reply.0).contains(&node.address()), "{reply:?}");
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    node.release();
    for number in 0..50 {
        let key = format!("key{number}");
        let reply = client.call(&["GET", &key]);
        assert!(reply.is_error() || reply.string() == key, "{key} got {reply:?}");
    }
    assert_eq!(client.line("GET last").string(), "last");
}

#[test]
fn no_client_ever_gets_another_s_reply() {
    let mut cluster = Cluster::three();
    let settings = Settings::new(cluster.seeds())
        .with("REQUEST_TIMEOUT", "300ms")
        .with("RETRY_TIMEOUT", "300ms")
        .expecting_warnings();
    let proxy = Proxy::start(settings);
    let keys: Vec<String> = (0..300).map(|number| format!("mine:{number}")).collect();
    let mset: Vec<&str> =
        ["MSET"].into_iter().chain(keys.iter().flat_map(|key| [key.as_str(), key.as_str()])).collect();
    assert_eq!(proxy.client().call(&mset), "+OK\r\n");
    let (done, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    let random = Random::seeded("no_client_ever_gets_another_s_reply");
    thread::scope(|scope| {
        let clients: Vec<_> = (0..8)
            .map(|number| {
                let (proxy, keys, done, answered) = (&proxy, &keys, &done, &answered);
                let random = Random::new(random.seed.wrapping_add(number * 7919));
                scope.spawn(move || ask_for_own(proxy, keys, random, done, answered))
            })
            .collect();
        for index in 0..3 {
            let goal = answered.load(Ordering::Relaxed) + 2000;
            eventually("the clients to get on", || answered.load(Ordering::Relaxed) > goal);
            cluster.nodes[index].pause();
            // Long enough for requests to time out: the point is what becomes of their late replies.
            thread::sleep(Duration::from_millis(700));
            cluster.nodes[index].resume();
        }
        let goal = answered.load(Ordering::Relaxed) + 2000;
        eventually("the clients to get on", || answered.load(Ordering::Relaxed) > goal);
        done.store(true, Ordering::Release);
        for client in clients {
            client.join().expect("only its own replies");
        }
    });
    assert_eq!(proxy.client().call(&["GET", &keys[0]]).string(), keys[0]);
}

/// What servers answer by an error with the client's own bytes in it, line breaks and all; each forges `:666`.
const FORGERIES: &[&[&str]] = &[
    &["EVAL", "#!lua \"x\\r\\n:666\"\nreturn 1", "1", "k"],
    &["EVAL_RO", "#!lua flags=\"\\r\\n:666\"\nreturn 1", "0"],
    // What was said in EVAL would be loaded ahead of these.
    &["EVALSHA", "bd6fb2ad797e6b21d295b176109fe4bca1e9be34", "1", "k"],
    &["SCRIPT", "LOAD", "#!lua \"\\r\\n:666\"\nreturn 1"],
    &["FUNCTION", "LOAD", "#!\"lua\\r\\n:666\" name=x\nreturn 1"],
    &["FUNCTION", "LOAD", "#!lua name=x\nlocal t = {} t[\"x\\r\\n:666\"]()"],
    &["FUNCTION", "LOAD", "#!lua name=x\nredis[\"x\\r\\n:666\"]()"],
    &["FUNCTION", "LIST", "x\r\n:666"],
    &["FUNCTION", "LIST", "WITHCODE", "x\r\n:666\r\n$4\r\nfake"],
];

#[test]
fn redis_s_errors_forge_no_replies() {
    errors_forge_no_replies(Flavour::Redis);
}

#[test]
fn valkey_s_errors_forge_no_replies() {
    if Flavour::Valkey.is_here("safety::valkey_s_errors_forge_no_replies") {
        errors_forge_no_replies(Flavour::Valkey);
    }
}

fn errors_forge_no_replies(flavour: Flavour) {
    let cluster = Cluster::start(Shape { flavour, ..Shape::default() });
    let proxy = Proxy::start(Settings::new(cluster.seeds()));
    let keys: Vec<String> = (0..cluster.nodes.len()).map(|index| cluster.key_on(index, "mine")).collect();
    for version in [2, 3] {
        let mut client = proxy.client_of(version);
        keys.iter().for_each(|key| assert_eq!(client.call(&["SET", key, key]), "+OK\r\n"));
        for forgery in FORGERIES {
            // As others would ask on the same connections to the nodes, right behind it.
            let requests: Vec<Vec<&str>> = [forgery.to_vec()]
                .into_iter()
                .chain(keys.iter().cycle().take(4 * keys.len()).map(|key| vec!["GET", key]))
                .collect();
            let replies = client.pipeline(&requests);
            assert!(replies[0].is_error(), "{}: {:?}", show(forgery), replies[0]);
            for (request, reply) in requests.iter().zip(&replies).skip(1) {
                let own = format!("${}\r\n{}\r\n", request[1].len(), request[1]);
                assert_eq!(*reply, own.as_str(), "RESP{version}, {} behind {}", show(request), show(forgery));
            }
        }
        let transaction = [vec!["MULTI"], FORGERIES[0].to_vec(), vec!["EXEC"], vec!["GET", &keys[0]]];
        let replies = client.pipeline(&transaction);
        assert_eq!(replies[2], "-EXECABORT Transaction discarded because of previous errors.\r\n");
        assert_eq!(replies[3].string(), keys[0]);
    }
}

/// Asks for values that name their key, over connections that it drops at random in the middle of a pipeline.
fn ask_for_own(proxy: &Proxy, keys: &[String], mut random: Random, done: &AtomicBool, answered: &AtomicUsize) {
    let mut client = proxy.client();
    while !done.load(Ordering::Acquire) {
        let asked: Vec<Vec<&str>> = (0..=random.below(30))
            .map(|_| {
                let count = if random.one_in(4) { 1 + random.below(5) } else { 1 };
                (0..count).map(|_| random.pick(keys).as_str()).collect()
            })
            .collect();
        let bytes: Vec<u8> = asked
            .iter()
            .flat_map(|keys| frame(&[vec![if keys.len() > 1 { "MGET" } else { "GET" }], keys.clone()].concat()))
            .collect();
        let quit_after = random.one_in(10).then(|| random.below(asked.len() + 1));
        let sent = if quit_after.is_some() && random.one_in(2) { &bytes[..random.below(bytes.len())] } else { &bytes };
        client.send_raw(sent);
        let mut read = || -> io::Result<()> {
            for keys in asked.iter().take(if sent.len() < bytes.len() { 0 } else { quit_after.unwrap_or(asked.len()) })
            {
                let reply = client.read()?;
                answered.fetch_add(1, Ordering::Relaxed);
                if !reply.is_error() {
                    let got = if keys.len() > 1 { reply.texts() } else { vec![reply.string()] };
                    assert_eq!(got, *keys, "the reply of another request");
                }
            }
            Ok(())
        };
        read().expect("the proxy keeps its connections");
        if quit_after.is_some() {
            client = Client::connect(&proxy.address());
        }
    }
}
