//! Nodes and clients that do what none should, and large values among them: nobody else notices, and nothing is mixed up.

use std::{collections::BTreeSet, io::Read, thread, time::Duration};

use crate::support::{
    Act, Client, FakeNode, Node, Proxy, Random, Settings, client::frame, cluster::shared, eventually, until, words,
};

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
fn nothing_follows_a_reply_that_broke_off() {
    let node = FakeNode::start();
    let front = [b"*3\r\n$40000\r\n".as_slice(), &vec![b'v'; 40_000], b"\r\n"].concat();
    node.when("LRANGE list", Act::SayAndHangUp(front.clone()));
    let proxy = Proxy::start(Settings::new(node.address()).expecting_warnings());
    let mut client = proxy.client();
    // These two would make three of that list.
    client.send_raw(&[frame(&words("LRANGE list 0 -1")), frame(&["PING"]), frame(&["PING"])].concat());
    let said = client.read_to_end().unwrap();
    assert!(front.starts_with(&said), "{} bytes, the last {}", said.len(), said[said.len() - 20..].escape_ascii());
}

#[test]
fn a_text_may_be_of_any_length() {
    let (proxy, oracle) = (Proxy::before(shared()), Node::standalone());
    for script in [
        "return redis.status_reply(string.rep('x', 3000000))",
        "return redis.error_reply('ERR ' .. string.rep('x', 3000000))",
        "return {1, redis.status_reply(string.rep('x', 3000000)), 2}",
    ] {
        let [ours, theirs] = [proxy.client(), oracle.client()].map(|mut client| client.call(&["EVAL", script, "0"]));
        assert!(ours == theirs, "{script}: {} bytes instead of {}", ours.0.len(), theirs.0.len());
    }
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
            .with("WORKERS", 1)
            .expecting_warnings(),
    );
    let mut client = proxy.client();
    let mut writers: Vec<_> = (0..80).map(|_| proxy.client()).collect();
    writers.iter_mut().for_each(|writer| assert_eq!(writer.line("GET other").string(), "other"));
    assert_eq!(client.line("GET k").string(), "v");
    // Requests of 32 MiB in all, each small enough for the connection that all share.
    for (number, writer) in writers.iter_mut().enumerate() {
        let value = format!("{number:02}{}", "v".repeat(400 << 10));
        writer.send(&["SET", "k", &value]);
    }
    // On a busy machine the last of them may only come when there is a new link.
    let is_served = |(number, writer): (usize, &mut Client)| (!writer.reply().is_error()).then_some(number);
    let served: BTreeSet<usize> = writers.iter_mut().enumerate().filter_map(is_served).collect();
    assert!(served.len() < writers.len(), "the node took all of it");
    until("a new link to serve", Duration::from_secs(5), || {
        let reply = client.line("GET other");
        assert!(reply.is_error() || reply.string() == "other", "{reply:?}");
        (!reply.is_error()).then_some(())
    });
    let heard = |is_stalled: bool| -> BTreeSet<usize> {
        let all = node.heard();
        let stalled = all.iter().find(|heard| heard.text() == "GET k").map(|heard| heard.connection);
        let sets =
            all.iter().filter(|heard| heard.args[0] == b"SET" && (Some(heard.connection) == stalled) == is_stalled);
        sets.map(|heard| String::from_utf8_lossy(&heard.args[2][..2]).parse().expect("a number")).collect()
    };
    assert_eq!(heard(false), served);
    // The node reads at last what had been written when it was left: it may have run, and was not sent again.
    node.release();
    eventually("the node to read on", || !heard(true).is_empty());
    assert!(heard(true).is_disjoint(&heard(false)), "{:?} and {:?}", heard(true), heard(false));
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
    for (timeout, other) in [("1s", false), ("10s", true)] {
        let settings = Settings::new(cluster.seeds()).with("REQUEST_TIMEOUT", timeout).with("WORKERS", 1);
        let proxy = Proxy::start(settings);
        let mut client = proxy.client();
        client.send(&["GET", &key]);
        let mut stream = client.stream();
        stream.set_read_timeout(Some(Duration::from_secs(15))).expect("a timeout");
        thread::scope(|scope| {
            let slow = scope.spawn(move || {
                let (mut got, mut chunk) = (0, vec![0; 64 * 1024]);
                while got < SIZE {
                    match stream.read(&mut chunk).expect("more of the value") {
                        0 => break,
                        count if got == 0 => {
                            assert_eq!(chunk[0], b'$', "{}", String::from_utf8_lossy(&chunk[..count.min(200)]));
                            got = count;
                        }
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

/// A reply that a node might give, or that none would: trees of all kinds with odd numbers in them.
fn odd_reply(random: &mut Random, depth: usize, out: &mut Vec<u8>) {
    const ERRORS: &[&str] = &[
        "ERR x",
        "MOVED 1 127.0.0.1:1",
        "ASK 1 ?:7",
        "NOSCRIPT No matching script.",
        "EXECABORT Transaction discarded because of previous errors.",
        "TRYAGAIN Multiple keys request during rehashing of slot",
        "NOPERM x",
        "UNBLOCKED x",
    ];
    let number = |random: &mut Random| match random.below(10) {
        0 => i64::MAX.to_string(),
        1 => i64::MIN.to_string(),
        2 => "-1".to_owned(),
        3 => "99999999999999999999".to_owned(),
        4 => String::new(),
        5 => format!("0.{}", "1".repeat(if random.one_in(9) { 70_000 } else { 3 })),
        _ => random.below(1000).to_string(),
    };
    match random.below(if depth == 0 { 9 } else { 14 }) {
        0 => out.extend(format!("+{}\r\n", number(random)).bytes()),
        1 => out.extend(format!("-{}\r\n", random.pick(ERRORS)).bytes()),
        2 | 3 => out.extend(format!("{}{}\r\n", char::from(*random.pick(b"::,(#_")), number(random)).bytes()),
        4 => out.extend(*random.pick(&[&b"$-1\r\n"[..], b"*-1\r\n", b"_\r\n", b"%-1\r\n", b">-1\r\n", b"|-1\r\n"])),
        5..=8 => {
            let text = match random.below(4) {
                0 => format!("# A\r\nb:{0}\r\nused_memory:{0}\r\ndb0:keys={0}\r\n", number(random)).into_bytes(),
                1 => vec![b'v'; 40_000 * random.below(2)],
                2 => number(random).into_bytes(),
                _ => random.below(30).to_string().into_bytes(),
            };
            out.push(*random.pick(b"$$$=!"));
            out.extend(format!("{}\r\n", text.len()).bytes());
            out.extend(text);
            out.extend(b"\r\n");
        }
        _ => {
            let (kind, count) = (*random.pick(b"****~>%%|"), random.below(5));
            out.push(kind);
            out.extend(format!("{count}\r\n").bytes());
            let count = if matches!(kind, b'%' | b'|') { 2 * count } else { count } + usize::from(kind == b'|');
            (0..count).for_each(|_| odd_reply(random, depth - 1, out));
        }
    }
}

/// Something odd that a node does where it should answer.
fn odd_act(random: &mut Random) -> Act {
    let mut out = Vec::new();
    odd_reply(random, 4, &mut out);
    match random.below(12) {
        0 => Act::HangUp,
        1 => Act::FallSilent,
        2 => Act::SayAndHangUp(out[..random.below(out.len())].to_vec()),
        3 => Act::Pieces(vec![out[..out.len() / 2].to_vec(), out[out.len() / 2..].to_vec()]),
        4 => Act::Say([out.as_slice(), &out].concat()),
        5 => {
            let place = random.below(out.len());
            out[place] = random.next() as u8;
            Act::Say(out)
        }
        _ => Act::Say(out),
    }
}

#[test]
fn odd_nodes_harm_nothing_but_their_own_replies() {
    const REQUESTS: &str = "GET foo,SET foo bar,MGET foo bar baz,DEL foo bar baz,MSET a 1 b 2,INFO,CONFIG GET *,DBSIZE,SCAN 0,\
        SCAN 68719476736 COUNT 100,EVALSHA e0e1f9fabfc9d4800c877a703b823ac0578ff8db 1 foo,\
        SCRIPT EXISTS e0e1f9fabfc9d4800c877a703b823ac0578ff8db,SCRIPT LOAD x,SLOWLOG GET,LATENCY LATEST,LATENCY HISTORY x,\
        LATENCY HISTOGRAM,MEMORY STATS,ACL LOG,ROLE,DEBUG DIGEST,RANDOMKEY,BLPOP foo 0.05,XREAD BLOCK 50 STREAMS foo $,\
        WAIT 1 50,WAITAOF 1 0 50,FUNCTION LIST,PUBSUB CHANNELS,PUBSUB NUMSUB a b,PUBLISH a b,SORT foo BY nosort,FCALL f 1 foo,\
        EXISTS a b c d,FLUSHALL,MULTI,EXEC,DISCARD,WATCH foo,SUBSCRIBE a,UNSUBSCRIBE,SSUBSCRIBE a,SUNSUBSCRIBE,MONITOR,\
        CLIENT TRACKING ON,RESET,HELLO 2,HELLO 3,AUTH a b";
    let requests: Vec<Vec<&str>> = REQUESTS.split(',').map(|line| line.split(' ').collect()).collect();
    let random = Random::seeded("odd_nodes_harm_nothing_but_their_own_replies");
    let (one, two) = FakeNode::pair();
    for (number, node) in [&one, &two].into_iter().enumerate() {
        let mut random = Random::new(random.seed.wrapping_add(number as u64 * 77));
        node.always(move |_| Some(odd_act(&mut random)));
    }
    let settings = Settings::new(one.address())
        .with("REQUEST_TIMEOUT", "100ms")
        .with("NODE_TIMEOUT", "200ms")
        .with("RETRY_TIMEOUT", "100ms")
        .with("REFRESH_INTERVAL", "300ms");
    let mut proxy = Proxy::launch(settings.expecting_warnings());
    // Until one of them has given all the right answers in a row, in a tenth of a second each.
    proxy.wait_until_ready(Duration::from_secs(60));
    thread::scope(|scope| {
        for number in 0..6 {
            let (proxy, nodes, requests) = (&proxy, [&one, &two], &requests);
            let mut random = Random::new(random.seed.wrapping_mul(31).wrapping_add(number * 7919));
            scope.spawn(move || (0..60).for_each(|_| meet_odd_nodes(proxy, nodes, requests, &mut random)));
        }
    });
    proxy.assert_running();
    assert!(!proxy.log().contains("panicked"), "{}", proxy.log());
}

/// Some requests of one client: each is answered in time, or the connection ends; and nothing is left over.
fn meet_odd_nodes(proxy: &Proxy, nodes: [&FakeNode; 2], requests: &[Vec<&str>], random: &mut Random) {
    if random.one_in(10) {
        let question =
            *random.pick(&["INFO", "CLUSTER SLOTS", "CLUSTER NODES", "HELLO", "COMMAND", "MODULE", "CLIENT"]);
        random.pick(&nodes).when(question, odd_act(random));
    }
    let mut client = proxy.client();
    let mut sent = Vec::new();
    for step in 0..5 {
        let request = random.pick(requests);
        // A second MONITOR is not answered.
        if request[0] == "MONITOR" && sent.contains(request) {
            continue;
        }
        sent.push(request.clone());
        let alone =
            sent.iter().all(|sent| !["MULTI", "SUBSCRIBE", "SSUBSCRIBE", "MONITOR", "CLIENT"].contains(&sent[0]));
        let tag = format!("tag {step}");
        let answered = client
            .try_call(request)
            .and_then(|_| if alone { client.try_call(&["ECHO", &tag]) } else { client.try_call(&["PING"]) });
        match answered {
            // Who has logged in is a user of the nodes, and they may not tell what that one may do.
            Ok(reply) if reply.is_error() && sent.iter().any(|sent| sent[0] == "AUTH") => {}
            Ok(reply) => assert!(!alone || reply.string() == tag, "{sent:?} leave behind {reply:?}"),
            Err(error) => {
                assert_ne!(error.kind(), std::io::ErrorKind::TimedOut, "{sent:?}: {error}");
                return;
            }
        }
    }
}

#[test]
fn a_page_of_keys_that_breaks_off_is_none() {
    let node = FakeNode::start();
    let keys: Vec<u8> = (0..2000).flat_map(|number| format!("$20\r\n{number:0>20}\r\n").into_bytes()).collect();
    let page = [b"*2\r\n$1\r\n7\r\n*2000\r\n".as_slice(), &keys].concat();
    let begun = page[..page.len() - 5000].to_vec();
    node.when("SCAN", Act::SayAndHangUp(begun.clone()))
        .when("SCAN", Act::Pieces(vec![begun, page[page.len() - 5000..].to_vec()]));
    node.always(|heard| Some(Act::bulk(&heard.args[1])));
    let proxy = Proxy::start(Settings::new(node.address()).expecting_warnings());
    let mut client = proxy.client();
    let reply = client.line("SCAN 0 COUNT 2000");
    assert!(reply.is_error() && String::from_utf8_lossy(&reply.0).contains(&node.address()), "{reply:?}");
    assert_eq!(client.line("GET mine").string(), "mine");
    until("the node to be served again", Duration::from_secs(5), || {
        let reply = client.line("SCAN 0 COUNT 2000");
        (!reply.is_error()).then(|| assert_eq!(reply.value().items()[1].items().len(), 2000))
    });
}

#[test]
fn a_scan_does_not_wait_for_a_node_that_has_left() {
    let (one, two) = FakeNode::pair();
    for node in [&one, &two] {
        node.always(|heard| Some(Act::bulk(&heard.args[1])));
    }
    two.when("SCAN", Act::Hold(Box::new(Act::Say(b"*2\r\n$1\r\n0\r\n*1\r\n$5\r\n{foo}\r\n".to_vec()))));
    let settings = Settings::new(one.address()).with("REFRESH_INTERVAL", "100ms").with("REQUEST_TIMEOUT", "20s");
    let proxy = Proxy::start(settings.with("NODE_TIMEOUT", "20s").with("WORKERS", 1).expecting_warnings());
    let mut client = proxy.client();
    client.send(&["SCAN", "0", "MATCH", "{foo}*"]);
    two.wait_until_held(1);
    for node in [&one, &two] {
        node.owns(&[(0, 16383, &one)]);
    }
    let mut other = proxy.client();
    until("the node to have left", Duration::from_secs(10), || {
        (other.line("PROXY NODES").value().items().len() == 1).then_some(())
    });
    assert_eq!(other.line("GET bar").string(), "bar");
    two.release();
    client.reply();
    assert_eq!(client.line("GET foo").string(), "foo");
}
