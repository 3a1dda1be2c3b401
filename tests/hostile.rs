//! Nodes and clients that do what none should, and large values among them: nobody else notices, and nothing is mixed up.

use std::{io::Read, thread, time::Duration};

use crate::support::{Act, FakeNode, Proxy, Settings, cluster::shared, until};

/// A bulk string whose text ends in `tail`, in two pieces: the second is just the tail.
fn long_value(tail: &str) -> (Vec<u8>, Act) {
    let mut text = vec![b'v'; 48 * 1024];
    text.extend_from_slice(tail.as_bytes());
    let mut first = format!("${}\r\n", text.len()).into_bytes();
    first.extend_from_slice(&text[..48 * 1024]);
    (text, Act::Pieces(vec![first, format!("{tail}\r\n").into_bytes()]))
}

#[test]
fn the_end_of_a_long_value_is_no_error() {
    let (one, two) = FakeNode::pair();
    for node in [&one, &two] {
        node.always(|heard| Some(Act::bulk(&heard.args[1])));
    }
    let proxy = Proxy::start(Settings::new(one.address()).expecting_warnings());
    let mut client = proxy.client();
    for tail in [
        &format!("-MOVED 5061 {}", two.address()),
        "-CLUSTERDOWN Hash slot not served",
        "-TRYAGAIN Multiple keys request during rehashing of slot",
        "-NOPERM x",
        ">2\r\n+a\r\n+b",
    ] {
        let (text, act) = long_value(tail);
        one.when("GET bar", act);
        assert_eq!(client.line("GET bar").text(), text, "{tail}");
        assert_eq!(client.line("GET {bar}next").string(), "{bar}next");
    }
    assert_eq!(two.count("GET bar"), 0);
}

#[test]
fn a_node_that_takes_nothing_is_connected_to_anew() {
    let node = FakeNode::start();
    node.when("GET k", Act::SayAndStall(b"$1\r\nv\r\n".to_vec()));
    node.always(|heard| Some(Act::bulk(&heard.args[1])));
    let proxy = Proxy::start(
        Settings::new(node.address())
            .with("REQUEST_TIMEOUT", "300ms")
            .with("NODE_TIMEOUT", "600ms")
            .expecting_warnings(),
    );
    let mut client = proxy.client();
    assert_eq!(client.line("GET k").string(), "v");
    client.send(&[&b"SET"[..], b"k", &vec![b'v'; 32 << 20]]);
    assert!(client.reply().is_error());
    until("a new link to serve", Duration::from_secs(5), || {
        let reply = client.line("GET other");
        assert!(reply.is_error() || reply.string() == "other", "{reply:?}");
        (!reply.is_error()).then_some(())
    });
    assert_eq!(node.count("SET"), 0, "sent again, though it may have run");
    node.release();
}

#[test]
fn a_value_read_slowly_comes_whole() {
    const SIZE: usize = 96 << 20;
    let cluster = shared();
    let key = cluster.key_on(0, "slowly:");
    let small = format!("{{{key}}}small");
    let mut owner = cluster.node(0).client().patient(Duration::from_secs(60));
    assert_eq!(owner.call(&[&b"SET"[..], key.as_bytes(), &vec![b'v'; SIZE]]), "+OK\r\n");
    assert_eq!(owner.call(&["SET", &small, "here"]), "+OK\r\n");
    // Alone, for longer than a request may take; then with another who waits for the same node.
    for (timeout, other) in [("300ms", false), ("10s", true)] {
        let settings = Settings::new(cluster.seeds()).with("REQUEST_TIMEOUT", timeout).with("WORKERS", 1);
        let proxy = Proxy::start(settings);
        let mut client = proxy.client();
        client.send(&["GET", &key]);
        let mut stream = client.stream();
        thread::scope(|scope| {
            let slow = scope.spawn(move || {
                let (mut got, mut chunk) = (0, vec![0; 64 * 1024]);
                while got < SIZE {
                    match stream.read(&mut chunk).expect("more of the value") {
                        0 => break,
                        count => got += count,
                    }
                    // Not synchronisation: it is slow, and steady.
                    thread::sleep(Duration::from_millis(1));
                }
                got
            });
            let mut steady = proxy.client();
            while other && !slow.is_finished() {
                assert_eq!(steady.line(&format!("GET {small}")).string(), "here");
            }
            let got = slow.join().expect("the slow one");
            assert!(got >= SIZE, "closed after {got} bytes, with another: {other}");
        });
    }
    owner.line(&format!("DEL {key} {small}"));
}

#[test]
fn attributes_upon_attributes() {
    let node = FakeNode::start();
    let mut deep = b"|0\r\n".repeat(4 << 20);
    deep.extend_from_slice(b"+OK\r\n");
    node.when("CLIENT ID", Act::Say(deep));
    node.always(|heard| Some(Act::bulk(&heard.args[1])));
    let mut proxy = Proxy::start(Settings::new(node.address()).expecting_warnings());
    let mut client = proxy.client();
    assert!(!client.line("BLPOP k 0.1").0.is_empty());
    proxy.assert_running();
}
