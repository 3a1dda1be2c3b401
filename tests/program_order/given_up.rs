//! What was given up on one connection does not run behind what the same client sent afterwards by another.

use std::time::{Duration, Instant};

use crate::support::{
    Client, Cluster, Flavour, Proxy, Settings, Shape,
    client::{frame, words},
    eventually,
};

/// How a client comes to give up a write of "OLD", with the last of its replies.
struct Way {
    name: &'static str,
    /// Before the node stands still.
    before: &'static [&'static str],
    /// Around the large writes.
    begin: &'static [&'static str],
    end: &'static [&'static str],
    /// How the client then writes "NEW".
    new: &'static [&'static str],
    /// The proxy's `NODE_TIMEOUT`: a short one has the shared connection lost as well.
    node_timeout: &'static str,
}

const LONG: &str = "30s";
const WAYS: &[Way] = &[
    Way {
        name: "a transaction with an answer by another node",
        before: &[],
        begin: &["MULTI"],
        end: &["PUBLISH {k}nobody x", "EXEC"],
        new: &["SET {k} NEW"],
        node_timeout: LONG,
    },
    Way {
        name: "a transaction with a watched key",
        before: &["WATCH {k}other"],
        begin: &["MULTI"],
        end: &["EXEC"],
        new: &["SET {k} NEW"],
        node_timeout: LONG,
    },
    Way {
        name: "a shared connection, and another of the other protocol version",
        before: &["SET {k} first"],
        begin: &[],
        end: &["SET {k} OLD"],
        new: &["HELLO 3", "SET {k} NEW"],
        node_timeout: LONG,
    },
    Way {
        name: "a shared connection, and one of a transaction's own",
        before: &["SET {k} first"],
        begin: &[],
        end: &["SET {k} OLD"],
        new: &["MULTI", "SET {k} NEW", "CLIENT GETNAME", "EXEC"],
        node_timeout: LONG,
    },
    Way {
        name: "a shared connection that is lost, and the next one",
        before: &["SET {k} first"],
        begin: &[],
        end: &["SET {k} OLD"],
        new: &["SET {k} NEW"],
        node_timeout: "1s",
    },
];

fn nothing_old_wins(flavour: Flavour) {
    let mut cluster = Cluster::start(Shape { flavour, ..Shape::default() });
    for way in WAYS {
        let settings = Settings::new(cluster.seeds())
            .with("REQUEST_TIMEOUT", if way.node_timeout == LONG { "1s" } else { "5s" })
            .with("NODE_TIMEOUT", way.node_timeout)
            .with("RETRY_TIMEOUT", "20s");
        let proxy = Proxy::start(settings.expecting_warnings());
        nothing_old_wins_by(way, &mut cluster, &proxy);
    }
}

fn nothing_old_wins_by(way: &Way, cluster: &mut Cluster, proxy: &Proxy) {
    let mut client = proxy.client().patient(Duration::from_secs(30));
    let id = client.line("CLIENT ID").integer();
    let (key, old) = (
        format!("{{{}}}", cluster.key_on(1, "given:")),
        vec![b'o'; if way.begin.is_empty() { 100 } else { 28 } * 1024],
    );
    let line = |line: &str| words(line).iter().map(|word| word.replace("{k}", &key)).collect::<Vec<_>>();
    // Once while all is well, so that every connection is there.
    for step in way.begin.iter().chain(&["SET {k} first"]).chain(way.end).chain(&["HELLO 2"]) {
        client.call(&line(step));
    }
    way.before.iter().for_each(|step| drop(client.call(&line(step))));
    cluster.nodes[1].pause();
    let set = frame(&[b"SET".as_slice(), key.as_bytes(), &old]);
    let mut requests: Vec<u8> = way.begin.iter().flat_map(|step| frame(&line(step))).collect();
    // Much more than a node reads at a time. Outside a transaction no more is sent at once than may be under way.
    let count = if way.begin.is_empty() { 6 } else { 200 };
    (0..count).for_each(|_| requests.extend_from_slice(&set));
    way.end.iter().for_each(|step| requests.extend(frame(&line(step))));
    let replies = client.exchange(&requests, way.begin.len() + count + way.end.len());
    let last = replies.last().expect("a reply");
    assert!(String::from_utf8_lossy(&last.0).contains("may have run"), "{}: {last:?}", way.name);
    // What comes now is on its way, or held, when the node goes on.
    let new: Vec<u8> = way.new.iter().flat_map(|step| frame(&line(step))).collect();
    client.send_raw(&new);
    let command = way.new.last().and_then(|step| step.split(' ').next()).expect("a command").to_lowercase();
    let mut other = proxy.client();
    eventually("the client to have sent it", || {
        let seen = other.line(&format!("CLIENT LIST ID {id}")).string();
        seen.contains(&format!(" cmd={command} "))
    });
    cluster.nodes[1].resume();
    let done = way.new.iter().map(|_| client.reply()).last().expect("a reply");
    assert!(!done.is_error(), "{}: {done:?}", way.name);
    // What lies in the node's kernel has its time to come to light.
    let end = Instant::now() + Duration::from_millis(500);
    while Instant::now() < end {
        assert_eq!(client.call(&["GET", &key]), "$3\r\nNEW\r\n", "{}", way.name);
    }
}

#[test]
fn what_was_given_up_does_not_win_over_what_came_after_it() {
    nothing_old_wins(Flavour::Redis);
}

#[test]
fn what_was_given_up_does_not_win_over_what_came_after_it_on_valkey() {
    if Flavour::Valkey.is_here("given_up::what_was_given_up_does_not_win_over_what_came_after_it_on_valkey") {
        nothing_old_wins(Flavour::Valkey);
    }
}

#[test]
fn what_would_overtake_is_not_sent_while_the_node_stands_still() {
    let mut cluster = Cluster::three();
    let settings = Settings::new(cluster.seeds()).with("REQUEST_TIMEOUT", "500ms").with("RETRY_TIMEOUT", "1s");
    let proxy = Proxy::start(settings.expecting_warnings());
    let (mut client, mut other) = (proxy.client(), proxy.client());
    let (key, elsewhere) = (cluster.key_on(1, "held:"), cluster.key_on(0, "held:"));
    let exec = |client: &mut Client, value: &str| {
        let lines = ["MULTI", &format!("SET {key} {value}"), "PUBLISH nobody x", "EXEC"].map(str::to_owned);
        lines.map(|line| client.line(&line)).into_iter().last().expect("a reply")
    };
    assert!(!exec(&mut client, "first").is_error());
    cluster.nodes[1].pause();
    let given_up = exec(&mut client, "old");
    assert!(String::from_utf8_lossy(&given_up.0).contains("may have run"), "{given_up:?}");
    let held = client.call(&["SET", &key, "new"]);
    assert!(String::from_utf8_lossy(&held.0).contains("not sent"), "{held:?}");
    // Other nodes, and what other clients send to others, are not concerned.
    assert_eq!(client.call(&["SET", &elsewhere, "1"]), "+OK\r\n");
    assert_eq!(other.call(&["GET", &elsewhere]), "$1\r\n1\r\n");
    cluster.nodes[1].resume();
    // It was not sent: the value is one of the others, and stays what it is from then on.
    eventually("the node to serve the client again", || !client.call(&["GET", &key]).is_error());
    let value = client.call(&["GET", &key]).string();
    assert!(["first", "old"].contains(&&*value), "{value}");
    assert_eq!(client.call(&["SET", &key, "new"]), "+OK\r\n");
    assert_eq!(client.call(&["GET", &key]), "$3\r\nnew\r\n");
}

#[test]
fn nothing_is_held_once_the_node_has_been_killed_and_started_again() {
    let mut cluster = Cluster::three();
    let settings = Settings::new(cluster.seeds()).with("REQUEST_TIMEOUT", "500ms");
    let proxy = Proxy::start(settings.expecting_warnings());
    let mut client = proxy.client();
    let key = cluster.key_on(1, "killed:");
    assert_eq!(client.line("MULTI"), "+OK\r\n");
    client.call(&["SET", &key, "old"]);
    client.line("PUBLISH nobody x");
    cluster.nodes[1].pause();
    assert!(client.line("EXEC").is_error());
    cluster.nodes[1].kill();
    cluster.nodes[1].restart();
    eventually("the node to be served again", || client.call(&["SET", &key, "new"]) == "+OK\r\n");
    assert_eq!(client.call(&["GET", &key]), "$3\r\nnew\r\n");
}
