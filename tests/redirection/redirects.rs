//! MOVED, ASK, TRYAGAIN and their like never reach a client: against real half-migrated slots, and against a scripted
//! node for what real ones do too rarely.

use std::{
    thread,
    time::{Duration, Instant},
};

use slotway::protocol::slot::Slot;

use crate::support::{Act, Cluster, FakeNode, Proxy, Settings, eventually, until};

#[test]
fn a_half_migrated_slot_looks_whole() {
    let cluster = Cluster::three();
    let proxy = Proxy::before(&cluster);
    let slot = Slot::of(b"half").index();
    let (from, to) = (cluster.home_of("half"), (cluster.home_of("half") + 1) % 3);
    let keys: Vec<String> = (0..40).map(|number| format!("{{half}}{number}")).collect();
    for version in [2, 3] {
        let mut client = proxy.client_of(version);
        for key in &keys {
            client.call(&["SET", key, "0"]);
        }
        cluster.open_slot(slot, from, to);
        cluster.move_keys(&keys[..20], from, to);

        let requests: Vec<Vec<&str>> = (0..1500).map(|number| vec!["INCR", keys[number % 40].as_str()]).collect();
        let replies = client.pipeline(&requests);
        for (number, reply) in replies.iter().enumerate() {
            assert_eq!(*reply, format!(":{}\r\n", number / 40 + 1).as_str(), "INCR {} ({number})", keys[number % 40]);
        }
        let all =
            |name: &'static str| -> Vec<&str> { [name].into_iter().chain(keys.iter().map(String::as_str)).collect() };
        assert_eq!(client.call(&all("EXISTS")), ":40\r\n");
        let expected: Vec<String> = (0..40).map(|key| (1500 / 40 + usize::from(key < 1500 % 40)).to_string()).collect();
        assert_eq!(client.call(&all("MGET")).texts(), expected);
        let mset: Vec<&str> = ["MSET"].into_iter().chain(keys.iter().flat_map(|key| [key.as_str(), "set"])).collect();
        assert_eq!(client.call(&mset), "+OK\r\n");
        assert_eq!(client.call(&["MGET", &keys[0], "{half}absent", &keys[39]]).value().items().len(), 3);
        assert_eq!(client.call(&["SET", "{half}new", "1"]), "+OK\r\n");
        assert_eq!(client.call(&["GET", "{half}new"]), "$1\r\n1\r\n");
        assert_eq!(client.call(&["DEL", "{half}new"]), ":1\r\n");
        assert_eq!(client.call(&all("TOUCH")), ":40\r\n");
        assert_eq!(client.call(&all("DEL")), ":40\r\n");
        assert_eq!(client.call(&all("UNLINK")), ":0\r\n");
        cluster.close_slot(slot, from, to);
        assert_eq!(client.call(&["SET", &keys[0], "after"]), "+OK\r\n");
        assert_eq!(client.call(&["GET", &keys[0]]).string(), "after");
        client.call(&all("DEL"));
        cluster.move_slot(slot, to, from);
    }
    for kind in ["ask", "moved"] {
        eventually("absorbed redirects to be counted", || proxy.metric("slotway_redirects_total", &[kind]) > 0.0);
    }
}

#[test]
fn tryagain_is_absorbed_until_the_slot_is_whole() {
    let cluster = Cluster::three();
    // More patience than a busy machine takes to publish a metric and move a slot.
    let proxy = Proxy::start(Settings::new(cluster.seeds()).with("RETRY_TIMEOUT", "20s"));
    let slot = Slot::of(b"again").index();
    let (from, to) = (cluster.home_of("again"), (cluster.home_of("again") + 1) % 3);
    let mut client = proxy.client();
    client.line("SADD {again}a 1 2");
    client.line("SADD {again}b 2 3");
    cluster.open_slot(slot, from, to);
    cluster.move_keys(&["{again}a"], from, to);
    thread::scope(|scope| {
        let asked = scope.spawn(|| client.line("SINTER {again}a {again}b"));
        // The slot becomes whole only once the proxy has been told to try again.
        until("TRYAGAIN", Duration::from_secs(5), || {
            (proxy.metric("slotway_redirects_total", &["tryagain"]) > 0.0).then_some(())
        });
        cluster.move_slot(slot, from, to);
        assert_eq!(asked.join().expect("the reply"), "*1\r\n$1\r\n2\r\n");
    });
}

#[test]
fn slots_that_moved_unseen_are_found() {
    let cluster = Cluster::three();
    let proxy = Proxy::before(&cluster);
    let mut client = proxy.client();
    let keys: Vec<String> = (0..60).map(|number| format!("unseen:{number}")).collect();
    let mset: Vec<&str> =
        ["MSET"].into_iter().chain(keys.iter().flat_map(|key| [key.as_str(), key.as_str()])).collect();
    let mget: Vec<&str> = ["MGET"].into_iter().chain(keys.iter().map(String::as_str)).collect();
    assert_eq!(client.call(&mset), "+OK\r\n");
    for key in &keys {
        let from = cluster.home_of(key);
        cluster.move_slot(Slot::of(key.as_bytes()).index(), from, (from + 1) % 3);
    }
    assert_eq!(client.call(&mget).texts(), keys);
    for key in &keys {
        assert_eq!(client.call(&["GET", key]).string(), *key);
    }
}

#[test]
fn a_node_that_joins_is_served() {
    let mut cluster = Cluster::three();
    let proxy = Proxy::before(&cluster);
    let mut client = proxy.client();
    client.line("SET foo bar");
    let added = cluster.add_node();
    cluster.move_slot(12182, 2, added);
    assert_eq!(client.line("GET foo"), "$3\r\nbar\r\n");
    assert_eq!(cluster.node(added).line("GET foo"), "$3\r\nbar\r\n");
}

#[test]
fn manual_failover_is_invisible() {
    let shape = crate::support::Shape { replicas: 1, node_timeout: Duration::from_secs(4), ..Default::default() };
    let cluster = Cluster::start(shape);
    // The primary itself holds its clients back, for up to 5 s: others vote against a second failover that follows the
    // first within two node timeouts, so that it takes a second try.
    let proxy = Proxy::start(
        Settings::new(cluster.seeds()).with("REQUEST_TIMEOUT", "30s").with("NODE_TIMEOUT", "30s").expecting_warnings(),
    );
    let mut client = proxy.client().patient(Duration::from_secs(40));
    let key = cluster.key_on(0, "manual:");
    let mut count = 0;
    for target in [3, 0] {
        thread::scope(|scope| {
            let done = scope.spawn(|| cluster.fail_over_to(target, ""));
            let mut after = 0;
            while after < 50 {
                count += 1;
                assert_eq!(client.call(&["INCR", &key]), format!(":{count}\r\n").as_str());
                after += usize::from(done.is_finished());
            }
        });
    }
}

/// A proxy in front of scripted nodes, with short deadlines.
fn before(node: &FakeNode) -> Proxy {
    let settings =
        Settings::new(node.address()).with("REQUEST_TIMEOUT", "2s").with("RETRY_TIMEOUT", "1s").expecting_warnings();
    Proxy::start(settings)
}

#[test]
fn redirects_may_name_no_host() {
    let (one, two) = FakeNode::pair();
    two.always(|heard| Some(Act::bulk(format!("two {}", heard.text()))));
    one.when("GET bar", Act::say(format!("-MOVED 5061 :{}", two.port)));
    one.when("GET {bar}asked", Act::say(format!("-ASK 5061 :{}", two.port)));
    for (request, expected) in [("GET bar", "two GET bar"), ("GET {bar}asked", "two GET {bar}asked")] {
        // A proxy of its own for each, since what one learns of the slot would hide the next from `one`.
        let proxy = before(&one);
        if request.ends_with("asked}") || request.ends_with("asked") {
            two.when("ASKING", Act::say("+OK"));
        }
        assert_eq!(proxy.client().line(request).string(), expected);
    }
    assert_eq!(one.unused(), 0);
}

#[test]
fn a_redirect_to_a_stranger_waits_until_the_nodes_know_it() {
    for word in ["MOVED", "ASK"] {
        let (one, two) = FakeNode::pair();
        let stranger = FakeNode::start();
        stranger.always(|heard| match heard.text().as_str() {
            "ASKING" => Some(Act::say("+OK")),
            text => Some(Act::bulk(format!("stranger {text}"))),
        });
        let redirect = format!("-{word} 5061 localhost:{}", stranger.port);
        one.always(move |heard| (heard.text() == "GET bar").then(|| Act::say(&redirect)));
        let proxy = Proxy::start(Settings::new(one.address()).with("RETRY_TIMEOUT", "20s").expecting_warnings());
        let mut client = proxy.client();
        client.send(&["GET", "bar"]);
        // Any error of a script's may read like this: nobody is dialled because of it.
        until("it to be asked again", Duration::from_secs(10), || (one.count("GET bar") > 8).then_some(()));
        assert_eq!(stranger.heard(), []);
        // By its hostname, as clusters may be told to announce nodes.
        let newcomer = || (1, 1, "localhost".to_owned(), stranger.port, stranger.id.clone());
        for node in [&one, &two] {
            let range =
                |first, last, node: &FakeNode| (first, last, "127.0.0.1".to_owned(), node.port, node.id.clone());
            node.announces(vec![range(0, 0, &one), newcomer(), range(2, 8191, &one), range(8192, 16383, &two)]);
        }
        assert_eq!(client.reply().string(), "stranger GET bar", "{word}");
    }
}

#[test]
fn a_script_cannot_make_the_proxy_connect_anywhere() {
    let cluster = Cluster::three();
    let proxy = Proxy::start(Settings::new(cluster.seeds()).with("RETRY_TIMEOUT", "500ms"));
    let stranger = FakeNode::start();
    let mut client = proxy.client();
    for word in ["MOVED", "ASK"] {
        let script = format!("return redis.error_reply('{word} 12182 {}')", stranger.address());
        let reply = client.call(&["EVAL", &script, "1", "foo"]);
        assert!(reply.is_error(), "{reply:?}");
        // Of another slot a node would not speak.
        let script = format!("return redis.error_reply('{word} 5061 {}')", cluster.node(1).address());
        let reply = client.call(&["EVAL", &script, "1", "foo"]);
        assert_eq!(reply, format!("-{word} 5061 {}\r\n", cluster.node(1).address()).as_str());
    }
    assert_eq!(stranger.heard(), []);
    // Nor run twice.
    let script = "redis.call('INCR', KEYS[1]) return redis.error_reply('TRYAGAIN later')";
    assert_eq!(client.call(&["EVAL", script, "1", "foo"]), "-TRYAGAIN later\r\n");
    assert_eq!(client.line("GET foo"), "$1\r\n1\r\n");
}

#[test]
fn asking_and_its_command_are_never_parted() {
    let (one, two) = FakeNode::pair();
    let target = two.address();
    one.always(move |heard| Some(Act::say(format!("-ASK {} {target}", Slot::of(&heard.args[1])))));
    two.always(|heard| Some(if heard.args[0] == b"ASKING" { Act::say("+OK") } else { Act::bulk(&heard.args[1]) }));
    let proxy = before(&one);
    let low: Vec<String> = (0..)
        .map(|number| format!("k{number}"))
        .filter(|key| Slot::of(key.as_bytes()).index() < 8192)
        .take(20)
        .collect();
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let requests: Vec<Vec<&str>> = (0..200).map(|number| vec!["GET", low[number % 20].as_str()]).collect();
                let replies = proxy.client().pipeline(&requests);
                for (request, reply) in requests.iter().zip(replies) {
                    assert_eq!(reply.string(), request[1]);
                }
            });
        }
    });
    let heard = two.heard();
    let connections: std::collections::BTreeSet<usize> = heard.iter().map(|heard| heard.connection).collect();
    for connection in connections {
        let mut asked = false;
        for request in heard.iter().filter(|heard| heard.connection == connection) {
            let asking = request.args[0] == b"ASKING";
            assert_ne!(
                asking,
                asked,
                "connection {connection}: ASKING and commands must alternate: {}",
                request.text()
            );
            asked = asking;
        }
    }
    assert_eq!(two.count("GET"), 1600);
}

#[test]
fn errors_that_pass_are_waited_for() {
    for error in [
        "-TRYAGAIN Multiple keys request during rehashing of slot",
        "-CLUSTERDOWN The cluster is down",
        "-CLUSTERDOWN Hash slot not served",
        "-LOADING Redis is loading the dataset in memory",
        "-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
        "-READONLY You can't write against a read only replica.",
    ] {
        let node = FakeNode::start();
        node.when("INCR k", Act::say(error)).when("INCR k", Act::say(error)).when("INCR k", Act::say(":1"));
        let proxy = before(&node);
        assert_eq!(proxy.client().line("INCR k"), ":1\r\n", "{error}");
        assert_eq!(node.count("INCR k"), 3, "{error}");
    }
}

#[test]
fn errors_that_do_not_pass_end_in_an_answer() {
    for error in [
        "-TRYAGAIN Multiple keys request during rehashing of slot",
        "-CLUSTERDOWN The cluster is down",
        "-LOADING Valkey is loading the dataset in memory",
        "-READONLY You can't write against a read only replica.",
    ] {
        let node = FakeNode::start();
        node.always(move |_| Some(Act::say(error)));
        let proxy = before(&node);
        let start = Instant::now();
        let reply = proxy.client().line("INCR k");
        assert!(reply.is_error(), "{error}: {reply:?}");
        assert!(start.elapsed() < Duration::from_secs(5), "{error} took {:?}", start.elapsed());
    }
    // Two nodes that send each other's clients back for ever.
    let (one, two) = FakeNode::pair();
    for (node, other) in [(&one, &two), (&two, &one)] {
        let target = other.address();
        node.always(move |_| Some(Act::say(format!("-MOVED 12182 {target}"))));
    }
    let proxy = before(&one);
    let start = Instant::now();
    assert!(proxy.client().line("GET foo").is_error());
    assert!(start.elapsed() < Duration::from_secs(5));
    let sent = one.count("GET") + two.count("GET");
    assert!(sent < 100, "{sent} hops for one request");
}

#[test]
fn errors_that_are_the_client_s_own_pass_through() {
    let node = FakeNode::start();
    let proxy = before(&node);
    let mut client = proxy.client();
    for error in [
        "-WRONGTYPE x",
        "-OOM x",
        "-NOREPLICAS x",
        "-NOPERM x",
        "-MISCONF x",
        "-BUSY x",
        "-ERR MOVED is no word here",
        "-MOVEDX 1 h:1",
    ] {
        node.when("INCR k", Act::say(error));
        assert_eq!(client.line("INCR k"), format!("{error}\r\n").as_str());
    }
    // A value that looks like a redirection is a value.
    node.when("GET k", Act::bulk("-MOVED 1 127.0.0.1:1"));
    assert_eq!(client.line("GET k").string(), "-MOVED 1 127.0.0.1:1");
}
