//! KEYS over all nodes: what one server would say, however much that is and however slowly it is read.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use crate::support::{Act, Client, Cluster, FakeNode, Node, Proxy, Reply, Settings, client::frame, eventually};

const MIB: u64 = 1024 * 1024;
/// Keys on each node of a large cluster, and how long their names are at least: what a node has to say of them does not
/// fit into the buffers of the sockets on the way.
const KEYS_EACH: usize = 100_000;
/// DEBUG POPULATE cuts longer names.
const NAME: usize = 110;

fn sorted(reply: &Reply) -> Vec<String> {
    let mut keys = reply.texts();
    keys.sort_unstable();
    keys
}

#[test]
fn keys_are_those_of_one_server() {
    let cluster = Cluster::three();
    let (proxy, oracle) = (Proxy::before(&cluster), Node::standalone());
    let (mut ours, mut theirs) = (proxy.client(), oracle.client());
    // One long name, so that a piece ends within it.
    let names = (0..3000).map(|number| format!("keys:{number}")).chain(["k".repeat(100_000), "{tag}one".into()]);
    let sets: Vec<Vec<String>> = names.map(|name| vec!["SET".into(), name, "v".into()]).collect();
    for client in [&mut ours, &mut theirs] {
        assert!(client.pipeline(&sets).iter().all(|reply| *reply == "+OK\r\n"));
    }
    let users = ["ACL", "SETUSER", "bob", "on", ">secret", "~*", "&*", "+@all", "-keys"];
    cluster.nodes.iter().for_each(|node| assert_eq!(node.client().call(&users), "+OK\r\n"));
    assert_eq!(theirs.call(&users), "+OK\r\n");

    for version in [2, 3] {
        let hello = format!("HELLO {version}");
        for client in [&mut ours, &mut theirs] {
            assert!(!client.line(&hello).is_error());
        }
        for pattern in ["*", "keys:1*", "keys:1?", "k[a-f]ys:2", "k*k", "{tag}*", "nosuch*", "nosuch", "", "keys:7"] {
            let replies = [&mut ours, &mut theirs].map(|client| client.call(&["KEYS", pattern]));
            assert_eq!(replies[0].0.len(), replies[1].0.len(), "KEYS {pattern}");
            assert_eq!(sorted(&replies[0]), sorted(&replies[1]), "KEYS {pattern}");
        }
        for line in ["KEYS", "KEYS a b", "KEYS {a} b"] {
            assert_eq!(ours.line(line), theirs.line(line), "{line}");
        }
        // Between others in a pipeline each sees what stands before it, and the next sees what came of it.
        let requests: Vec<Vec<&str>> =
            ["SET pipe:a 1", "KEYS pipe:*", "SET pipe:b 2", "KEYS pipe:*", "GET pipe:b", "DEL pipe:a pipe:b"]
                .map(|line| line.split(' ').collect())
                .to_vec();
        let replies = [&mut ours, &mut theirs].map(|client| client.pipeline(&requests));
        for (place, (ours, theirs)) in replies[0].iter().zip(&replies[1]).enumerate() {
            if matches!(place, 1 | 3) {
                assert_eq!(sorted(ours), sorted(theirs), "reply {place}");
            } else {
                assert_eq!(ours, theirs, "reply {place}");
            }
        }
        // Replies that are not wanted.
        for client in [&mut ours, &mut theirs] {
            client.send_raw(&frame(&["CLIENT", "REPLY", "SKIP"]));
            client.send_raw(&frame(&["KEYS", "*"]));
            assert_eq!(client.line("ECHO skipped").string(), "skipped");
            client.send_raw(&frame(&["CLIENT", "REPLY", "OFF"]));
            client.send_raw(&frame(&["KEYS", "*"]));
            client.send_raw(&frame(&["KEYS"]));
            assert_eq!(client.line("CLIENT REPLY ON"), "+OK\r\n");
        }
    }
    for client in [&mut ours, &mut theirs] {
        assert_eq!(client.line("SELECT 0"), "+OK\r\n");
        assert!(!client.line("HELLO 2 AUTH bob secret").is_error());
    }
    let refused = theirs.line("KEYS *");
    assert!(refused.0.starts_with(b"-NOPERM "), "{refused:?}");
    assert_eq!(ours.line("KEYS *"), refused);
    assert_eq!(ours.line("KEYS {tag}*"), refused);

    let mut client = proxy.client();
    client.line("MULTI");
    assert!(client.line("KEYS *").is_error() && client.line("EXEC").0.starts_with(b"-EXECABORT"));
    let explained = client.line("PROXY EXPLAIN KEYS *").texts().join("\n");
    assert!(explained.contains("by every primary") && explained.contains(&cluster.node(2).address()), "{explained}");
}

#[test]
fn connections_of_keys_are_used_again_and_counted() {
    let cluster = Cluster::three();
    let proxy = Proxy::before(&cluster);
    let mut client = proxy.client();
    for number in 0..1000 {
        client.call(&["SET", &format!("again:{number}:{}", "n".repeat(100)), "v"]);
    }
    (0..5).for_each(|_| assert_eq!(client.line("KEYS *").texts().len(), 1000));
    let connections =
        || cluster.nodes.iter().map(|node| node.info("total_connections_received").parse::<usize>().unwrap()).sum();
    let before: usize = connections();
    (0..50).for_each(|_| assert_eq!(client.line("KEYS *").texts().len(), 1000));
    let made = connections() - before;
    // Those by which this test looks, and perhaps spare ones and discovery's.
    assert!(made < 20, "{made} connections for 50 KEYS");
    eventually("the commands to be counted", || {
        proxy.metric("slotway_commands_total", &["command=\"keys\"", "result=\"ok\""]) == 55.0
    });
    for node in &cluster.nodes {
        let label = format!("node=\"{}\"", node.address());
        assert!(proxy.metric("slotway_node_requests_total", &[&label]) >= 55.0);
        eventually("nothing to be under way", || proxy.metric("slotway_node_inflight_requests", &[&label]) == 0.0);
        eventually("nothing to be queued", || proxy.metric("slotway_node_queued_bytes", &[&label]) == 0.0);
    }
}

/// A cluster whose list of keys is large, and all their names.
fn large() -> (Cluster, BTreeSet<String>) {
    let cluster = Cluster::three();
    let mut names = BTreeSet::new();
    for (index, node) in cluster.nodes.iter().enumerate() {
        let prefix = format!("large{index}{}", "n".repeat(NAME));
        let reply = node.client().call(&["DEBUG", "POPULATE", &KEYS_EACH.to_string(), &prefix]);
        assert_eq!(reply, "+OK\r\n");
        names.extend((0..KEYS_EACH).map(|number| format!("{prefix}:{number}")));
    }
    (cluster, names)
}

/// Has a client ask for all keys, and waits until the reply has begun.
fn begin(proxy: &Proxy, version: u8) -> Client {
    let mut client = proxy.client_of(version).patient(Duration::from_secs(60));
    client.send(&["KEYS", "*"]);
    peek(&client);
    client
}

/// Waits until something has come, and leaves it there.
fn peek(client: &Client) {
    client.stream().set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
    assert_eq!(client.stream().peek(&mut [0]).expect("the front of a reply"), 1);
}

fn same(reply: &Reply, names: &BTreeSet<String>) -> bool {
    let found = reply.texts();
    found.len() == names.len() && found.iter().all(|name| names.contains(name))
}

#[test]
fn a_large_list_of_keys_costs_little_however_it_is_read() {
    let (mut cluster, names) = large();
    let proxy = Proxy::start(
        Settings::new(cluster.seeds()).with("REQUEST_TIMEOUT", "2s").with("NODE_TIMEOUT", "1s").expecting_warnings(),
    );
    let mut steady = proxy.client();
    let ours: Vec<String> = (0..3).map(|index| cluster.key_on(index, "own:")).collect();
    steady.line("PING");
    let before = proxy.resident();

    // They read nothing for longer than any deadline; the others notice nothing of it.
    let mut slow = [begin(&proxy, 2), begin(&proxy, 3), begin(&proxy, 2)];
    let (mut worst_memory, mut worst_wait) = (0, Duration::ZERO);
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(3) {
        for key in &ours {
            let start = Instant::now();
            assert!(!steady.call(&["GET", key]).is_error());
            worst_wait = worst_wait.max(start.elapsed());
        }
        worst_memory = worst_memory.max(proxy.resident());
    }
    assert!(worst_wait < Duration::from_secs(1), "another client waited {worst_wait:?}");
    for client in &mut slow {
        let reply = client.reply();
        assert!(same(&reply, &names), "{reply:?}");
        worst_memory = worst_memory.max(proxy.resident());
        assert_eq!(client.line("PING"), "+PONG\r\n");
    }
    let grown = worst_memory.saturating_sub(before);
    println!("grown by {} KiB for three lists of {} MiB", grown / 1024, (names.len() * NAME) as u64 / MIB);
    assert!(grown < 16 * MIB, "grown by {} MiB", grown / MIB);

    // What is published to it meanwhile comes behind the list, however much that is.
    let mut client = proxy.client_of(3).patient(Duration::from_secs(60));
    client.line("SUBSCRIBE large");
    client.send(&["KEYS", "*"]);
    peek(&client);
    let message = "m".repeat(MIB as usize);
    (0..3).for_each(|_| assert_eq!(steady.call(&["PUBLISH", "large", &message]).integer(), 1));
    assert!(same(&client.reply(), &names), "with messages behind it");
    (0..3).for_each(|_| assert!(client.reply().0.starts_with(b">3\r\n$7\r\nmessage\r\n")));

    // One that leaves takes its connections with it.
    let asking = |node: &Node| node.line("CLIENT LIST").string().contains("cmd=keys");
    let client = begin(&proxy, 2);
    assert!(cluster.nodes.iter().any(asking));
    drop(client);
    let idle = |node: &Node| {
        let clients = node.line("CLIENT LIST").string();
        clients.lines().filter(|line| line.contains("cmd=keys")).all(|line| line.contains(" omem=0 "))
    };
    eventually("its connections to be closed", || cluster.nodes.iter().all(idle));
    assert!(same(&begin(&proxy, 2).reply(), &names), "after one that left");

    // A node that falls silent, or dies, in the midst of its list: nothing but the end of the connection can say so.
    let unfinished = |mut client: Client| {
        let bytes = client.read_to_end().expect("the end of the connection");
        assert!(bytes.starts_with(format!("*{}\r\n", names.len()).as_bytes()), "{}", bytes[..40].escape_ascii());
        assert!(bytes.len() > MIB as usize && bytes.len() < names.len() * NAME, "{} bytes", bytes.len());
    };
    let client = begin(&proxy, 2);
    cluster.nodes[1].pause();
    unfinished(client);
    cluster.nodes[1].resume();
    eventually("the node to be served again", || !steady.call(&["GET", &ours[1]]).is_error());
    assert!(same(&begin(&proxy, 3).reply(), &names), "after one that was broken off");
    let client = begin(&proxy, 3);
    cluster.nodes[2].kill();
    unfinished(client);
    assert!(!steady.call(&["GET", &ours[0]]).is_error());
    eventually("both ends to be counted", || {
        proxy.metric("slotway_client_disconnects_total", &["reason=\"node_lost\""]) == 2.0
    });
}

#[test]
fn keys_are_asked_again_where_they_were_not_told() {
    let (one, two) = FakeNode::pair();
    let proxy = Proxy::start(
        Settings::new(format!("{},{}", one.address(), two.address()))
            .with("REQUEST_TIMEOUT", "1s")
            .with("RETRY_TIMEOUT", "1s")
            .expecting_warnings(),
    );
    let list = |key: &str| Act::Say(format!("*1\r\n$1\r\n{key}\r\n").into_bytes());
    one.always(move |heard| (heard.text() == "KEYS *").then(|| list("a")));
    two.always(move |heard| (heard.text() == "KEYS *").then(|| list("b")));
    let both = "*2\r\n$1\r\na\r\n$1\r\nb\r\n";
    let mut client = proxy.client();
    assert_eq!(client.line("KEYS *"), both);

    let loading = || Act::say("-LOADING Redis is loading the dataset in memory");
    two.when("KEYS", loading()).when("KEYS", loading());
    assert_eq!(client.line("KEYS *"), both);
    two.when("KEYS", Act::HangUp);
    assert_eq!(client.line("KEYS *"), both);
    assert_eq!((one.unused(), two.unused()), (0, 0));

    // Not for ever.
    two.when("KEYS", Act::HangUp).when("KEYS", Act::HangUp);
    let lost = format!(
        "-ERR proxy: connection to {} lost (closed by the node), the command may have run (SLOTWAY-NODE-LOST)\r\n",
        two.address()
    );
    assert_eq!(client.line("KEYS *"), lost.as_str());
    for _ in 0..200 {
        two.when("KEYS", loading());
    }
    assert_eq!(client.line("KEYS *"), "-LOADING Redis is loading the dataset in memory\r\n");
    assert!(two.unused() > 100, "{}", two.unused());
    while two.unused() > 0 {
        client.line("KEYS *");
    }
    two.when("KEYS", Act::FallSilent);
    let silent = format!(
        "-ERR proxy: no answer from {} within 1s, the command may have run (SLOTWAY-NO-ANSWER)\r\n",
        two.address()
    );
    assert_eq!(client.line("KEYS *"), silent.as_str());

    // A node's own error, and what is no list, are the whole reply.
    two.when("KEYS", Act::say("-NOPERM no"));
    assert_eq!(client.line("KEYS *"), "-NOPERM no\r\n");
    two.when("KEYS", Act::say("+OK"));
    assert!(client.line("KEYS *").is_error());
    assert_eq!(client.line("KEYS *"), both);

    // In pieces, however they are cut.
    let bytes = b"*2\r\n$5\r\n12345\r\n$1\r\nb\r\n";
    for length in 1..bytes.len() {
        two.when("KEYS", Act::Pieces(bytes.chunks(length).map(<[u8]>::to_vec).collect()));
        assert_eq!(client.line("KEYS *"), "*3\r\n$1\r\na\r\n$5\r\n12345\r\n$1\r\nb\r\n");
    }
    // Cut off for good, where the client has been told the head, and where it wants nothing of it.
    two.when("KEYS", Act::SayAndHangUp(b"*2\r\n$5\r\n123".to_vec()));
    client.send(&["KEYS", "*"]);
    assert_eq!(client.read_to_end().expect("the end"), b"*3\r\n$1\r\na\r\n$5\r\n123");
    two.when("KEYS", Act::SayAndHangUp(b"*2\r\n$5\r\n123".to_vec()));
    let mut client = proxy.client();
    client.send(&["CLIENT", "REPLY", "SKIP"]);
    client.send(&["KEYS", "*"]);
    assert_eq!(client.line("KEYS *"), both);
}
