//! One bad node costs its own slots only, and nobody waits for ever.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::support::{Act, Cluster, FakeNode, Proxy, Settings, cluster::shared, eventually, until};

#[test]
fn a_frozen_node_is_contained() {
    let mut cluster = Cluster::three();
    let proxy = Proxy::start(
        Settings::new(cluster.seeds()).with("REQUEST_TIMEOUT", "500ms").with("NODE_TIMEOUT", "2s").expecting_warnings(),
    );
    let keys: Vec<String> = (0..3).map(|index| cluster.key_on(index, "frozen:")).collect();
    let mut client = proxy.client();
    for key in &keys {
        assert_eq!(client.call(&["SET", key, key]), "+OK\r\n");
    }
    let address = cluster.node(0).address();
    cluster.nodes[0].pause();

    // Its own requests end in an error that names it, in time.
    let start = Instant::now();
    let reply = client.call(&["GET", &keys[0]]);
    assert!(reply.is_error() && String::from_utf8_lossy(&reply.0).contains(&address), "{reply:?}");
    assert!(start.elapsed() < Duration::from_millis(2500), "{:?}", start.elapsed());

    // Others are served meanwhile, also to clients that wait for the frozen one elsewhere.
    thread::scope(|scope| {
        let waiting = scope.spawn(|| proxy.client().call(&["GET", &keys[0]]));
        let mut worst = Duration::ZERO;
        for _ in 0..200 {
            for key in &keys[1..] {
                let start = Instant::now();
                assert_eq!(client.call(&["GET", key]).string(), *key);
                worst = worst.max(start.elapsed());
            }
        }
        assert!(worst < Duration::from_millis(300), "a healthy node's reply took {worst:?}");
        assert!(waiting.join().expect("an error").is_error());
    });

    // A pipeline over good and bad keeps its order.
    let requests: Vec<Vec<&str>> = (0..30).map(|number| vec!["GET", keys[number % 3].as_str()]).collect();
    for (number, reply) in client.pipeline(&requests).iter().enumerate() {
        match number % 3 {
            0 => assert!(reply.is_error(), "{number}: {reply:?}"),
            place => assert_eq!(reply.string(), keys[place]),
        }
    }
    assert!(client.call(&["MGET", &keys[0], &keys[1]]).is_error());

    cluster.nodes[0].resume();
    until("the node to be served again", Duration::from_secs(4), || {
        let reply = client.call(&["GET", &keys[0]]);
        assert!(reply.is_error() || reply.string() == keys[0], "another's reply: {reply:?}");
        (!reply.is_error()).then_some(())
    });
    for _ in 0..100 {
        for key in &keys {
            assert_eq!(client.call(&["GET", key]).string(), *key);
        }
    }
}

#[test]
fn a_silent_node_s_link_is_replaced() {
    let node = FakeNode::start();
    node.when("GET k", Act::FallSilent);
    node.always(|heard| Some(Act::bulk(&heard.args[1])));
    let proxy = Proxy::start(
        Settings::new(node.address())
            .with("REQUEST_TIMEOUT", "200ms")
            .with("NODE_TIMEOUT", "600ms")
            .expecting_warnings(),
    );
    let mut client = proxy.client();
    assert!(client.line("GET k").is_error());
    until("a new link to serve", Duration::from_secs(5), || {
        let reply = client.line("GET other");
        assert!(reply.is_error() || reply.string() == "other", "{reply:?}");
        (!reply.is_error()).then_some(())
    });
}

#[test]
fn a_dead_node_is_answered_at_once_and_comes_back() {
    let mut cluster = Cluster::three();
    let proxy = Proxy::start(Settings::new(cluster.seeds()).with("RETRY_TIMEOUT", "500ms").expecting_warnings());
    let keys: Vec<String> = (0..3).map(|index| cluster.key_on(index, "dead:")).collect();
    let mut client = proxy.client();
    cluster.nodes[1].kill();
    let start = Instant::now();
    let reply = client.call(&["SET", &keys[1], "x"]);
    assert!(reply.is_error(), "{reply:?}");
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    assert_eq!(client.call(&["SET", &keys[0], "x"]), "+OK\r\n");
    assert_eq!(client.call(&["SET", &keys[2], "x"]), "+OK\r\n");
    cluster.nodes[1].restart();
    cluster.wait_until_well();
    until("the node to be served again", Duration::from_secs(3), || {
        (client.call(&["SET", &keys[1], "y"]) == "+OK\r\n").then_some(())
    });
}

#[test]
fn clients_that_leave_take_their_requests_with_them() {
    let proxy = Proxy::before(shared());
    let mut client = proxy.client();
    client.line("PING");
    let files = proxy.open_files_with_links();
    for number in 0..150 {
        let mut leaver = proxy.client();
        let requests: Vec<u8> = (0..50).flat_map(|key| format!("GET leaver:{number}:{key}\r\n").into_bytes()).collect();
        leaver.send_raw(&requests);
    }
    eventually("the connections to be closed", || proxy.open_files() <= files + 10);
    eventually("the gauge to follow", || proxy.metric("slotway_client_connections", &[]) <= 1.0);
    assert_eq!(client.line("PING"), "+PONG\r\n");
}
