//! Commands with keys of several slots: split, merged in key order, and never half a truth.

use std::time::{Duration, Instant};

use crate::support::{Act, Cluster, FakeNode, Node, Proxy, Random, Settings, cluster::shared};

#[test]
fn split_commands_equal_those_of_one_server() {
    let (proxy, oracle) = (Proxy::before(shared()), Node::standalone());
    for version in [2, 3] {
        let mut ours = proxy.client_of(version);
        let mut theirs = oracle.client();
        theirs.line(&format!("HELLO {version}"));
        let keys: Vec<String> = (0..200).map(|number| format!("split:{version}:{number}")).collect();
        let mut mset = vec!["MSET".to_owned()];
        for (number, key) in keys.iter().enumerate().filter(|(number, _)| number % 3 != 0) {
            mset.extend([key.clone(), format!("value {number}")]);
        }
        let with = |name: &str, keys: &[String]| [vec![name.to_owned()], keys.to_vec()].concat();
        let doubled: Vec<String> = keys.iter().chain(&keys[..50]).cloned().collect();
        let requests = vec![
            mset,
            with("MGET", &keys),
            with("MGET", &doubled),
            vec!["LPUSH".into(), keys[3].clone(), "x".into()],
            with("mget", &keys[..10]),
            with("EXISTS", &doubled),
            with("TOUCH", &doubled),
            with("DEL", &keys[..60]),
            with("MGET", &keys),
            with("UNLINK", &doubled),
            with("EXISTS", &keys),
            with("MGET", &keys[..1]),
        ];
        for request in &requests {
            assert_eq!(ours.call(request), theirs.call(request), "{} of {} keys", request[0], request.len() - 1);
        }
        assert_eq!(ours.pipeline(&requests), theirs.pipeline(&requests));
    }
}

#[test]
fn what_cannot_be_split_names_keys_slots_and_the_remedy() {
    let proxy = Proxy::before(shared());
    let mut client = proxy.client();
    for line in
        ["MSETNX foo 1 bar 2", "SUNION foo bar", "RENAME foo bar", "SINTERSTORE foo bar foo", "LMOVE foo bar LEFT LEFT"]
    {
        let reply = client.line(line);
        let text = String::from_utf8_lossy(&reply.0).into_owned();
        assert!(text.starts_with("-CROSSSLOT "), "{line}: {text}");
        for part in ["foo", "bar", "12182", "5061", "{"] {
            assert!(text.contains(part), "{line}: no {part} in {text}");
        }
    }
    assert_eq!(client.line("MSETNX {nx}a 1 {nx}b 2"), ":1\r\n");
    assert_eq!(client.line("MSETNX {nx}b 1 {nx}c 2"), ":0\r\n");
    assert_eq!(client.line("DEL {nx}a {nx}b"), ":2\r\n");
}

#[test]
fn parts_go_to_each_node_in_one_batch() {
    let (one, two) = FakeNode::pair();
    for node in [&one, &two] {
        node.always(|heard| {
            let mut reply = format!("*{}\r\n", heard.args.len() - 1).into_bytes();
            for key in &heard.args[1..] {
                reply.extend(format!("${}\r\n{}\r\n", key.len(), String::from_utf8_lossy(key)).into_bytes());
            }
            Some(Act::Say(reply))
        });
    }
    let proxy = Proxy::start(Settings::new(one.address()));
    let keys: Vec<String> = (0..30).map(|number| format!("k{number}")).collect();
    let request: Vec<&str> = ["MGET"].into_iter().chain(keys.iter().map(String::as_str)).collect();
    assert_eq!(proxy.client().call(&request).texts(), keys);
    for node in [&one, &two] {
        let connections: std::collections::BTreeSet<usize> =
            node.heard().iter().filter(|heard| heard.args[0] == b"MGET").map(|heard| heard.connection).collect();
        assert_eq!(connections.len(), 1, "one connection a node");
        for heard in node.heard().iter().filter(|heard| heard.args[0] == b"MGET") {
            let slots: std::collections::BTreeSet<_> =
                heard.args[1..].iter().map(|key| slotway::protocol::slot::Slot::of(key)).collect();
            assert_eq!(slots.len(), 1, "a server refuses two slots in one command: {}", heard.text());
        }
    }
}

#[test]
fn a_failed_part_is_an_error_and_never_a_nil() {
    let mut cluster = Cluster::three();
    let settings = Settings::new(cluster.seeds())
        .with("REQUEST_TIMEOUT", "1s")
        .with("RETRY_TIMEOUT", "500ms")
        .expecting_warnings();
    let proxy = Proxy::start(settings);
    let mut client = proxy.client();
    let keys: Vec<String> = (0..3).map(|index| cluster.key_on(index, "part:")).collect();
    for key in &keys {
        assert_eq!(client.call(&["SET", key, "here"]), "+OK\r\n");
    }
    let address = cluster.node(1).address();
    cluster.nodes[1].kill();
    for name in ["MGET", "EXISTS", "DEL", "TOUCH"] {
        let start = Instant::now();
        let reply = client.call(&[name, &keys[0], &keys[1], &keys[2]]);
        assert!(reply.is_error(), "{name}: {reply:?}");
        assert!(String::from_utf8_lossy(&reply.0).contains(&address), "{name} does not name {address}: {reply:?}");
        assert!(start.elapsed() < Duration::from_secs(4), "{name} took {:?}", start.elapsed());
    }
    assert_eq!(client.call(&["MGET", &keys[0]]).value().items().len(), 1);
    let reply = client.call(&["MSET", &keys[0], "1", &keys[1], "2"]);
    assert!(reply.is_error(), "{reply:?}");
}

#[test]
fn random_key_sets_come_back_in_key_order() {
    let proxy = Proxy::before(shared());
    let mut random = Random::seeded("random_key_sets_come_back_in_key_order");
    let mut client = proxy.client();
    let keys: Vec<String> = (0..500).map(|number| format!("order:{number}")).collect();
    let mset: Vec<&str> =
        ["MSET"].into_iter().chain(keys.iter().flat_map(|key| [key.as_str(), key.as_str()])).collect();
    assert_eq!(client.call(&mset), "+OK\r\n");
    let requests: Vec<Vec<&str>> = (0..100)
        .map(|_| {
            let count = 1 + random.below(40);
            ["MGET"].into_iter().chain((0..count).map(|_| random.pick(&keys).as_str())).collect()
        })
        .collect();
    for (request, reply) in requests.iter().zip(client.pipeline(&requests)) {
        assert_eq!(reply.texts(), request[1..]);
    }
}
