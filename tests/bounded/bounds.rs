//! Whatever a client sends or does not read: the same errors as one server, bounded memory, and nobody else notices.

use std::{
    io,
    time::{Duration, Instant},
};

use crate::support::{
    Act, Client, Cluster, FakeNode, Node, Proxy, Random, Settings, Setup, client::frame, cluster::shared, eventually,
};

const MIB: u64 = 1024 * 1024;

/// What both answer to these bytes, up to the end of the connection.
fn answer(mut client: Client, bytes: &[u8]) -> String {
    client.patience = Duration::from_secs(5);
    let _ = client.try_send_raw(bytes);
    client
        .read_to_end()
        .unwrap_or_else(|error| panic!("{}: {error}", bytes[..bytes.len().min(80)].escape_ascii()))
        .escape_ascii()
        .to_string()
}

#[test]
fn what_is_no_request_is_logged_with_its_bytes_cut_and_escaped() {
    for (show, shown) in [("true", true), ("false", false)] {
        let proxy = Proxy::start(Settings::new(shared().seeds()).with("SHOW_KEYS", show));
        let mut client = proxy.client();
        client.send_raw(&[&b"*2\r\n$3\r\nGET\r\n!\x01"[..], &[b'x'; 500], b"\r\n"].concat());
        eventually("a line in the log", || proxy.log().contains("sent what is no request (expected '$', got '!')"));
        let log = proxy.log();
        let line = log.lines().find(|line| line.contains("what is no request")).expect("the line");
        assert_eq!(line.contains("\"*2\\r\\n$3\\r\\nGET\\r\\n!\\x01xxx"), shown, "{line}");
        assert!(line.len() < 400, "{line}");
    }
}

#[test]
fn protocol_errors_are_those_of_one_server() {
    let proxy = Proxy::start(Settings::new(shared().seeds()).expecting("possible SECURITY ATTACK"));
    let oracle = Node::standalone();
    let long = vec![b'a'; 64 * 1024 + 16];
    let star = [b"*".as_slice(), &vec![b'1'; 64 * 1024 + 16]].concat();
    let dollar = [b"*1\r\n$".as_slice(), &vec![b'1'; 64 * 1024 + 16]].concat();
    let nasties: Vec<Vec<u8>> = [
        &b"*x\r\n"[..],
        b"*2147483648\r\n",
        b"*99999999999999999999\r\n",
        b"*01\r\n",
        b"*+1\r\n",
        b"* 1\r\n",
        b"*1 \r\n",
        b"*\r\n",
        b"*1\r\n\xff4\r\nPING\r\n",
        b"*1\r\n+x\r\n",
        b"*1\r\nPING\r\n",
        b"*1\r\n*1\r\n",
        b"*1\r\n\r\n",
        b"*1\r\n$-1\r\n",
        b"*1\r\n$-2\r\n",
        b"*1\r\n$x\r\n",
        b"*1\r\n$\r\n",
        b"*1\r\n$ 4\r\nPING\r\n",
        b"*1\r\n$04\r\nPING\r\n",
        b"*1\r\n$536870913\r\n",
        b"*1\r\n$9223372036854775808\r\n",
        b"*2\r\n$3\r\nGET\r\n:1\r\n",
        b"set 'a\r\n",
        b"set \"a\r\n",
        b"set 'a'b\r\n",
        b"set \"a\"b c\r\n",
        b"PING\r\n*x\r\n",
        b"*1\r\n$4\r\nPING\r\n*1\r\n!\r\n",
        b"SET nasty:a 1\r\nGET nasty:a\r\n*-x\r\nPING\r\n",
        b"QUIT\r\nPING\r\n",
        b"*-1\r\n*0\r\n\r\nQUIT\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"POST / HTTP/1.1\r\n\r\n",
        b"PING\r\nhost: x\r\nPING\r\n",
    ]
    .into_iter()
    .map(<[u8]>::to_vec)
    .chain([long, star, dollar])
    .collect();
    for bytes in &nasties {
        let theirs = answer(oracle.client(), bytes);
        assert_eq!(answer(proxy.client(), bytes), theirs, "{}", bytes[..bytes.len().min(80)].escape_ascii());
    }
    assert_eq!(proxy.client().line("PING"), "+PONG\r\n");
    eventually("the errors to be counted", || proxy.metric("slotway_client_protocol_errors_total", &[]) >= 20.0);
}

#[test]
fn announced_giants_cost_nothing() {
    let proxy = Proxy::before(shared());
    proxy.client().line("PING");
    let before = proxy.resident();
    let mut giants = Vec::new();
    for number in 0..120 {
        let mut client = proxy.client();
        let head: &[u8] = match number % 4 {
            0 => b"*2\r\n$3\r\nGET\r\n$536870912\r\nabc",
            1 => b"*1048576\r\n$3\r\nDEL\r\n$1\r\na\r\n",
            2 => b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$536870912\r\n0123456789",
            _ => b"*1\r\n$536870912\r\n",
        };
        client.send_raw(head);
        giants.push(client);
    }
    // What was sent has been read once a later client has been served by each worker.
    for _ in 0..4 {
        assert_eq!(proxy.client().line("SET giants:a 1"), "+OK\r\n");
    }
    let grown = proxy.resident().saturating_sub(before);
    assert!(grown < 64 * MIB, "{} MiB for bytes that were only announced", grown / MIB);
    drop(giants);
}

#[test]
fn mutated_requests_end_nothing_but_their_connection() {
    let mut proxy = Proxy::start(Settings::new(shared().seeds()).expecting_warnings());
    let mut random = Random::seeded("mutated_requests_end_nothing_but_their_connection");
    let mut steady = proxy.client();
    let corpus: Vec<Vec<u8>> = [
        "SET mutated:a b",
        "GET mutated:a",
        "MSET mutated:a 1 mutated:b 2",
        "MGET mutated:a mutated:b mutated:c",
        "EVAL return 1 1 mutated:a",
        "XREAD COUNT 1 STREAMS mutated:s 0",
        "ZUNIONSTORE {mutated}d 2 {mutated}a {mutated}b WEIGHTS 1 2",
        "SORT mutated:a BY nosort STORE mutated:a",
        "SCAN 0 MATCH mutated:* COUNT 10",
        "HELLO 3 AUTH default x SETNAME y",
        "CLIENT LIST ID 1 2 3",
        "COMMAND GETKEYS EVAL a 2 b c",
        "OBJECT ENCODING mutated:a",
        "CLUSTER KEYSLOT mutated",
        "EVAL x 99999999999 a",
        "LMPOP -1 a LEFT",
    ]
    .iter()
    .map(|line| frame(&crate::support::words(line)))
    .collect();
    steady.line("SET steady:a here");
    let files = proxy.open_files_with_links();
    for round in 0..3000 {
        let mut bytes: Vec<u8> = (0..=random.below(3)).flat_map(|_| random.pick(&corpus).clone()).collect();
        for _ in 0..=random.below(4) {
            let place = random.below(bytes.len());
            match random.below(5) {
                0 => bytes[place] = random.next() as u8,
                1 => drop(bytes.remove(place)),
                2 => bytes.insert(place, *random.pick(b"\r\n*$0123456789-+:'\"\\x{}\0")),
                3 => bytes.truncate(place.max(1)),
                _ => {
                    let piece = random.pick(&corpus).clone();
                    bytes.splice(place..place, piece);
                }
            }
            if bytes.is_empty() {
                bytes.push(b'*');
            }
        }
        let mut client = proxy.client();
        let _ = client.try_send_raw(&bytes);
        if random.one_in(3) {
            client.finish_sending();
            client.patience = Duration::from_secs(10);
            let end = client.read_to_end();
            assert!(end.is_ok(), "round {round}: {}: {end:?}", bytes.escape_ascii());
        }
        if round % 100 == 0 {
            assert_eq!(steady.line("GET steady:a").string(), "here");
        }
    }
    proxy.assert_running();
    eventually("the connections to be closed", || proxy.open_files() <= files + 10);
    assert_eq!(steady.line("GET steady:a").string(), "here");
    assert!(!proxy.log().contains("panicked"), "{}", proxy.log());
}

#[test]
fn slow_readers_are_owed_little() {
    let proxy = Proxy::before(shared());
    let value = vec![b'v'; MIB as usize];
    let mut steady = proxy.client();
    assert_eq!(steady.call(&[b"SET".as_slice(), b"slow:value", &value]), "+OK\r\n");
    assert_eq!(steady.call(&[b"SET".as_slice(), b"slow:small", b"here"]), "+OK\r\n");
    steady.line("GET slow:value");
    let before = proxy.resident();
    // Each is owed 300 MiB and reads none of it.
    let requests = frame(&["GET", "slow:value"]).repeat(300);
    let mut owed = Vec::new();
    for _ in 0..4 {
        let mut client = proxy.client();
        client.send_raw(&requests);
        owed.push(client);
    }
    let (mut worst_memory, mut worst_wait) = (0, Duration::ZERO);
    for _ in 0..300 {
        let start = Instant::now();
        assert_eq!(steady.line("GET slow:small").string(), "here");
        worst_wait = worst_wait.max(start.elapsed());
        worst_memory = worst_memory.max(proxy.resident());
    }
    assert!(worst_memory < before + 64 * MIB, "grown by {} MiB for four slow readers", (worst_memory - before) / MIB);
    assert!(worst_wait < Duration::from_secs(1), "another client waited {worst_wait:?}");
    // They get everything once they read.
    for client in &mut owed {
        for place in 0..300 {
            let reply = client.reply();
            assert!(reply.0.len() == value.len() + 12, "reply {place}: {reply:?}");
        }
    }
    steady.line("DEL slow:value");
}

#[test]
fn unread_writes_are_not_hoarded() {
    let proxy = Proxy::before(shared());
    let mut steady = proxy.client();
    steady.line("SET hoard:small here");
    let before = proxy.resident();
    // Requests of 256 MiB in all, whose replies nobody reads.
    let request = frame(&[b"SET".as_slice(), b"hoard:value", &vec![b'v'; 256 * 1024]]);
    let client = proxy.client();
    let stream = client.stream().try_clone().expect("a second handle");
    stream.set_write_timeout(Some(Duration::from_secs(2))).expect("a timeout");
    let mut worst = 0;
    for _ in 0..1024 {
        if io::Write::write_all(&mut (&stream), &request).is_err() {
            break;
        }
        worst = worst.max(proxy.resident());
    }
    assert!(worst < before + 64 * MIB, "grown by {} MiB", (worst - before) / MIB);
    assert_eq!(steady.line("GET hoard:small").string(), "here");
}

#[test]
fn what_waits_for_a_frozen_node_is_bounded() {
    let node = FakeNode::start();
    node.when("GET k", Act::SayAndStall(b"$1\r\nv\r\n".to_vec()));
    let settings = Settings::new(node.address()).with("MAX_BUFFERED", "64MiB").with("WORKERS", 1);
    let proxy = Proxy::start(settings.expecting_warnings());
    assert_eq!(proxy.client().line("GET k").string(), "v");
    let before = proxy.resident();
    // Requests of 960 MiB in all, for which the node does not make room.
    let request = frame(&[b"SET".as_slice(), b"k", &vec![b'v'; 24 * MIB as usize]]);
    let (mut clients, mut worst) = (Vec::new(), 0);
    for _ in 0..40 {
        let mut client = proxy.client();
        client.stream().set_write_timeout(Some(Duration::from_secs(1))).expect("a timeout");
        let _ = client.try_send_raw(&request);
        worst = worst.max(proxy.resident().saturating_sub(before));
        clients.push(client);
    }
    assert!(worst < 384 * MIB, "grown by {} MiB", worst / MIB);
    node.release();
}

#[test]
fn parts_that_are_gathered_cost_little() {
    let settings = Settings::new(shared().seeds()).with("MAX_BUFFERED", "64MiB").with("WORKERS", 1);
    let proxy = Proxy::start(settings.with("REQUEST_TIMEOUT", "30s"));
    let value = vec![b'v'; 8 * MIB as usize];
    let keys: Vec<String> = (0..48).map(|number| format!("gathered:{number}")).collect();
    for key in &keys {
        assert_eq!(proxy.client().call(&[b"SET".as_slice(), key.as_bytes(), &value]), "+OK\r\n");
    }
    let before = proxy.resident();
    let mut greedy = proxy.client().patient(Duration::from_secs(60));
    let all = [vec!["MGET"], keys.iter().map(String::as_str).collect()].concat();
    greedy.send(&all);
    let reply = std::thread::scope(|scope| {
        let read = scope.spawn(move || greedy.read());
        let mut worst = 0;
        while !read.is_finished() {
            worst = worst.max(proxy.resident().saturating_sub(before));
            assert_eq!(proxy.client().line("ECHO served"), "$6\r\nserved\r\n");
        }
        assert!(worst < 160 * MIB, "grown by {} MiB", worst / MIB);
        read.join().expect("no panic").expect("384 MiB").value()
    });
    assert_eq!(reply.items().len(), 48);
    assert!(reply.items().iter().all(|item| item.text() == Some(&value)));
    let removed = proxy.client().call(&[vec!["DEL"], keys.iter().map(String::as_str).collect()].concat());
    assert_eq!(removed, ":48\r\n");
}

#[test]
fn what_is_too_large_to_be_held_is_refused() {
    let cluster = Cluster::three();
    let settings = Settings::new(cluster.seeds()).with("MAX_BUFFERED", "8MiB").with("WORKERS", 1);
    let proxy = Proxy::start(settings.with("REQUEST_TIMEOUT", "30s"));
    let prefix = "n".repeat(100);
    assert_eq!(cluster.nodes[0].line(&format!("DEBUG POPULATE 200000 {prefix}")), "+OK\r\n");
    let before = proxy.resident();
    let mut client = proxy.client().patient(Duration::from_secs(30));
    for _ in 0..3 {
        let reply = client.line("SCAN 0 COUNT 1000000");
        let expected =
            format!("-ERR proxy: no answer from {}: its reply is too large (max", cluster.nodes[0].address());
        assert!(reply.0.starts_with(expected.as_bytes()), "{reply:?}");
    }
    let entry = "v".repeat(MIB as usize);
    for _ in 0..20 {
        assert!(!client.call(&["XADD", "stream", "*", "field", &entry]).is_error());
    }
    let watching = |client: &mut Client| {
        assert_eq!(client.line("WATCH stream"), "+OK\r\n");
        assert_eq!(client.line("MULTI"), "+OK\r\n");
        assert_eq!(client.line("XRANGE stream - +"), "+QUEUED\r\n");
        client.line("EXEC")
    };
    let keys = client.line(&format!("PROXY NODE {} KEYS *", cluster.nodes[0].address()));
    assert!(keys.0.escape_ascii().to_string().contains("its reply is too large (max_buffered)"), "{keys:?}");
    // What is passed on as it is read needs no room.
    let all = client.line("XRANGE stream - +").value();
    assert_eq!(all.items().len(), 20);
    assert_eq!(watching(&mut client).value().items()[0], all);
    let blocked = client.line("XREAD BLOCK 1000 STREAMS stream 0").value();
    assert_eq!(blocked.items()[0].items()[1], all);
    let grown = proxy.resident().saturating_sub(before);
    assert!(grown < 64 * MIB, "grown by {} MiB", grown / MIB);
    let few = client.line("XREAD COUNT 2 BLOCK 1000 STREAMS stream 0").value();
    assert_eq!(few.items()[0].items()[1].items().len(), 2);
    // Who the client is stays in the account.
    eventually("its memory to be given back", || proxy.metric("slotway_client_buffered_bytes", &[]) < 1024.0);
    let page = client.line("SCAN 0 COUNT 100").value();
    assert!(page.items()[1].items().len() >= 100);
}

#[test]
fn many_large_writes_at_once_are_all_taken() {
    let proxy = Proxy::start(Settings::new(shared().seeds()).with("WORKERS", 1));
    let value = vec![b'v'; 3 * MIB as usize];
    let key = shared().key_on(0, "large:");
    std::thread::scope(|scope| {
        for number in 0..50 {
            let (proxy, value, key) = (&proxy, &value, format!("{{{key}}}{number}"));
            scope.spawn(move || {
                let mut client = proxy.client().patient(Duration::from_secs(30));
                assert_eq!(client.call(&[b"SET".as_slice(), key.as_bytes(), value]), "+OK\r\n");
                assert_eq!(client.call(&["DEL", &key]), ":1\r\n");
            });
        }
    });
}

#[test]
fn a_long_pipeline_that_is_never_read_holds_back_its_sender() {
    let proxy = Proxy::before(shared());
    let before = proxy.resident();
    let client = proxy.client();
    let stream = client.stream().try_clone().expect("a second handle");
    stream.set_write_timeout(Some(Duration::from_millis(500))).expect("a timeout");
    let requests = frame(&["ECHO", &"e".repeat(1000)]).repeat(100);
    let mut blocked = false;
    for _ in 0..2000 {
        if io::Write::write_all(&mut (&stream), &requests).is_err() {
            blocked = true;
            break;
        }
    }
    assert!(blocked, "200 MB of requests were taken while no reply was read");
    let grown = proxy.resident().saturating_sub(before);
    assert!(grown < 64 * MIB, "grown by {} MiB", grown / MIB);
    assert_eq!(proxy.client().line("PING"), "+PONG\r\n");
}

#[test]
fn one_client_too_many_is_told_so() {
    let proxy = Proxy::start(Settings::new(shared().seeds()).with("MAX_CLIENTS", 10).expecting_warnings());
    let oracle = Node::start(&Setup { config: vec!["maxclients 10".into()], ..Setup::default() });
    let mut answers = Vec::new();
    for address in [proxy.address(), oracle.address()] {
        eventually("earlier connections to be gone", || {
            let mut clients: Vec<Client> = (0..10).map(|_| Client::connect(&address)).collect();
            clients.iter_mut().all(|client| client.try_call(&["PING"]).is_ok_and(|reply| reply == "+PONG\r\n"))
        });
        let mut clients: Vec<Client> = Vec::new();
        eventually("ten clients", || {
            clients.retain_mut(|client| client.try_call(&["PING"]).is_ok_and(|reply| reply == "+PONG\r\n"));
            clients.push(Client::connect(&address));
            clients.len() > 10
        });
        let answer = clients.pop().expect("the eleventh").read_to_end().unwrap();
        answers.push(answer.escape_ascii().to_string());
        clients.pop();
        eventually("a place to be free again", || {
            Client::connect(&address).try_call(&["PING"]).is_ok_and(|reply| reply == "+PONG\r\n")
        });
    }
    assert_eq!(answers[0], answers[1]);
    assert_eq!(answers[1], "-ERR max number of clients reached\\r\\n");
}
