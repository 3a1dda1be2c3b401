//! MULTI, EXEC, DISCARD, WATCH: in every order as on one Redis, once or not at all whatever the cluster does meanwhile.

use std::{io::Write, thread, time::Duration};

use crate::support::{
    Act, Client, Cluster, FakeNode, Node, Proxy, Reply, Settings,
    client::{frame, words},
    cluster::shared,
    eventually,
};

/// Sequences that must be answered as one Redis answers them. All keys are in one slot.
const SEQUENCES: &[&[&str]] = &[
    &["MULTI", "SET {t}k 1", "INCR {t}k", "GET {t}k", "LRANGE {t}k 0 -1", "EXEC", "GET {t}k"],
    &["MULTI", "MULTI", "SET {t}k 1", "MULTI", "EXEC", "GET {t}k"],
    &["MULTI", "WATCH {t}k", "SET {t}k 1", "EXEC", "GET {t}k"],
    &["EXEC", "DISCARD", "UNWATCH", "MULTI", "EXEC", "EXEC"],
    &["MULTI", "SET {t}k", "SET {t}k 1", "EXEC", "GET {t}k", "EXEC"],
    &["MULTI", "NOSUCH command", "SET {t}k 1", "EXEC", "GET {t}k"],
    &["MULTI", "CONFIG NOSUCH", "EXEC"],
    &["MULTI", "EXEC now", "SET {t}k 1", "EXEC", "DISCARD"],
    &["MULTI", "SET {t}k 1", "DISCARD", "GET {t}k", "DISCARD"],
    &["MULTI", "SET {t}k 1", "RESET", "GET {t}k", "EXEC"],
    &["MULTI", "PING", "PING text", "ECHO text", "PUBLISH {t}nobody x", "UNWATCH", "EXEC"],
    &["MULTI", "BLPOP {t}none 0", "RPUSH {t}l 1 2", "BLPOP {t}l 0", "BRPOPLPUSH {t}none {t}l 0", "EXEC"],
    &["MULTI", "XREAD BLOCK 0 STREAMS {t}s $", "BZPOPMIN {t}none 0", "EXEC"],
    &["MULTI", "EVAL redis.call('set',KEYS[1],ARGV[1]);return{1,2} 1 {t}k v", "GET {t}k", "EXEC"],
    &["WATCH {t}k", "MULTI", "SET {t}k 1", "EXEC", "GET {t}k"],
    &["WATCH {t}k", "SET {t}k 1", "MULTI", "SET {t}k 2", "EXEC", "GET {t}k", "MULTI", "GET {t}k", "EXEC"],
    &["WATCH {t}k {t}l", "RPUSH {t}l 1", "MULTI", "EXEC", "MULTI", "EXEC"],
    &["WATCH {t}k", "WATCH {t}l", "RPUSH {t}l 1", "MULTI", "GET {t}k", "EXEC"],
    &["WATCH {t}k", "SET {t}k 1", "UNWATCH", "MULTI", "GET {t}k", "EXEC"],
    &["WATCH {t}k", "SET {t}k 1", "MULTI", "DISCARD", "MULTI", "GET {t}k", "EXEC"],
    &["WATCH {t}k", "SET {t}k 1", "MULTI", "SET {t}k", "EXEC", "MULTI", "GET {t}k", "EXEC"],
    &["WATCH {t}k", "SET {t}k 1", "RESET", "HELLO 2", "MULTI", "GET {t}k", "EXEC"],
    &["WATCH", "WATCH {t}k", "EXEC", "GET {t}k", "MULTI", "UNWATCH", "EXEC"],
    &["WATCH {t}k", "MULTI", "MULTI", "WATCH {t}k", "EXEC"],
    &[
        "SET {t}k v",
        "WATCH {t}k",
        "MULTI",
        "CLIENT SETNAME inside",
        "GET {t}k",
        "CLIENT GETNAME",
        "EXEC",
        "CLIENT GETNAME",
    ],
    &["MULTI", "CLIENT SETNAME me", "SET {t}k 1", "CLIENT GETNAME", "HGETALL {t}h", "SELECT 0", "INCR {t}k", "EXEC"],
    &["MULTI", "CLIENT SETNAME me", "CLIENT GETNAME", "CLIENT NO-EVICT on", "CLIENT UNBLOCK 99999", "EXEC"],
    &["CLIENT SETNAME out", "MULTI", "CLIENT SETNAME me", "SET {t}k", "EXEC", "CLIENT GETNAME"],
    &["MULTI", "SELECT x", "CLIENT SETNAME a\nb", "CLIENT KILL 1.2.3.4:5", "GET {t}k", "EXEC"],
    &[
        "MULTI",
        "CONFIG GET hz",
        "SET {t}k 1",
        "CONFIG SET hz 20",
        "CONFIG GET hz",
        "CONFIG SET hz 10",
        "CONFIG SET nosuch 1",
        "CONFIG GET hz",
        "EXEC",
        "GET {t}k",
    ],
    &["MULTI", "CONFIG SET hz 20", "SET {t}k", "EXEC", "CONFIG GET hz"],
    &[
        "CLIENT TRACKING ON OPTIN",
        "MULTI",
        "GET {t}k",
        "CLIENT CACHING no",
        "CLIENT CACHING yes",
        "CLIENT TRACKINGINFO",
        "CLIENT TRACKING OFF",
        "CLIENT TRACKING OFF",
        "CLIENT TRACKING ON BCAST PREFIX a PREFIX ab",
        "CLIENT TRACKINGINFO",
        "EXEC",
        "CLIENT TRACKINGINFO",
    ],
    &["MULTI", "AUTH a b c", "SET {t}k 1", "EXEC"],
    &["MULTI", "SORT {t}l", "OBJECT ENCODING {t}l", "XADD {t}s 1-1 f v", "XINFO HELP", "OBJECT HELP", "EXEC"],
    &["MULTI", "DEL {t}k {t}l", "MSET {t}k 1 {t}l 2", "MGET {t}k {t}l", "EXISTS {t}k {t}k", "EXEC"],
    &["SUBSCRIBE {t}c", "EXEC", "exec", "EXEC x", "UNSUBSCRIBE {t}c", "EXEC"],
];

fn same(sequence: &[&str], version: u8, ours: &[Reply], theirs: &[Reply]) {
    for (line, (ours, theirs)) in sequence.iter().zip(ours.iter().zip(theirs)) {
        let equal = ours.without_id() == theirs.without_id();
        assert!(equal, "{line} of {sequence:?} in RESP{version}: {ours:?}, by one Redis {theirs:?}");
    }
}

#[test]
fn every_order_is_answered_as_by_one_redis() {
    let (proxy, oracle) = (Proxy::before(shared()), Node::standalone());
    for version in [2, 3] {
        for (number, sequence) in SEQUENCES.iter().enumerate() {
            for pipelined in [false, true] {
                let tag = format!("{{tx{number}-{version}-{pipelined}}}");
                let requests: Vec<Vec<String>> = sequence
                    .iter()
                    .map(|line| words(line).into_iter().map(|word| word.replace("{t}", &tag)).collect())
                    .collect();
                let run = |address: String| -> Vec<Reply> {
                    let mut client = Client::connect(&address);
                    client.line(&format!("HELLO {version}"));
                    if pipelined {
                        client.pipeline(&requests)
                    } else {
                        requests.iter().map(|request| client.call(request)).collect()
                    }
                };
                same(sequence, version, &run(proxy.address()), &run(oracle.address()));
            }
        }
    }
}

#[test]
fn replies_that_are_not_wanted_stay_away() {
    let (proxy, oracle) = (Proxy::before(shared()), Node::standalone());
    let requests = "MULTI|CLIENT REPLY SKIP|SET {mute}k 1|EXEC|MULTI|SET {mute}k 2|DISCARD";
    let outside = "CLIENT REPLY SKIP|MULTI|INCR {mute}n|EXEC|MULTI|INCR {mute}n|CLIENT SETNAME x|EXEC|CLIENT REPLY OFF|MULTI|INCR {mute}n|CLIENT GETNAME|EXEC|CLIENT REPLY ON|GET {mute}n|CLIENT REPLY SKIP|RESET|PING|CLIENT REPLY OFF|RESET|PING";
    let mut replies = Vec::new();
    for address in [proxy.address(), oracle.address()] {
        let mut client = Client::connect(&address);
        let mut bytes: Vec<u8> = outside.split('|').flat_map(|line| frame(&words(line))).collect();
        // What is no request counts as one here.
        for blank in ["\r\n", "*0\r\n"] {
            bytes.extend([&frame(&words("CLIENT REPLY SKIP")), blank.as_bytes(), &frame(&["PING", "x"])].concat());
        }
        client.send_raw(&bytes);
        client.finish_sending();
        replies.push(client.read_to_end().unwrap());
    }
    assert_eq!(replies[0].escape_ascii().to_string(), replies[1].escape_ascii().to_string());
    // Within MULTI it would tear EXEC's reply apart, as it does on one Redis: it is refused.
    let replies = proxy.client().pipeline(&requests.split('|').map(words).collect::<Vec<_>>());
    assert!(replies[1].is_error());
    assert!(String::from_utf8_lossy(&replies[3].0).starts_with("-EXECABORT"));
    assert_eq!(replies[6], "+OK\r\n");
}

#[test]
fn an_exec_that_the_node_gives_up_says_why() {
    let (cluster, oracle) = (Cluster::three(), Node::standalone());
    let proxy = Proxy::before(&cluster);
    let (mut ours, mut theirs) = (proxy.client(), oracle.client());
    let (mut set_ours, mut set_theirs) = (proxy.client(), oracle.client());
    for (setting, reset) in [("min-replicas-to-write 1", "min-replicas-to-write 0"), ("maxmemory 1", "maxmemory 0")] {
        // On a shared connection, where keys are watched, and with an answer of the proxy's own among the replies.
        for sequence in
            [&["MULTI", "SET {t}k 1"][..], &["WATCH {t}k", "MULTI", "SET {t}k 1"], &["MULTI", "SELECT 0", "SET {t}k 1"]]
        {
            for line in sequence {
                assert_eq!(ours.line(line), theirs.line(line), "{line}");
            }
            // Only then does the server's state change.
            for client in [&mut set_ours, &mut set_theirs] {
                assert_eq!(client.line(&format!("CONFIG SET {setting}")), "+OK\r\n");
            }
            let reply = ours.line("EXEC");
            assert_eq!(reply, theirs.line("EXEC"), "{sequence:?} with {setting}");
            assert!(reply.0.starts_with(b"-EXECABORT Transaction discarded because of: "), "{reply:?}");
            for client in [&mut set_ours, &mut set_theirs] {
                assert_eq!(client.line(&format!("CONFIG SET {reset}")), "+OK\r\n");
            }
            assert_eq!(ours.line("GET {t}k"), theirs.line("GET {t}k"));
        }
    }
}

#[test]
fn an_exec_that_is_not_allowed_is_answered_as_by_one_redis() {
    let (proxy, oracle) = (Proxy::before(shared()), Node::standalone());
    let locked = Proxy::start(Settings::new(shared().seeds()).with("CLIENT_PASSWORD", "secret"));
    let locked_oracle = Node::standalone();
    locked_oracle.line("CONFIG SET requirepass secret");
    let requests = "EXEC|SUBSCRIBE c|EXEC|PING|RESET|EXEC|PING";
    for pair in [[proxy.address(), oracle.address()], [locked.address(), locked_oracle.address()]] {
        let said = pair.map(|address| {
            let mut client = Client::connect(&address);
            requests.split('|').map(|line| client.line(line)).collect::<Vec<_>>()
        });
        assert_eq!(said[0], said[1]);
    }
}

#[test]
fn what_cannot_be_part_of_a_transaction_is_refused_clearly() {
    let proxy = Proxy::before(shared());
    let mut client = proxy.client();
    for line in ["SUBSCRIBE c", "MONITOR", "DBSIZE", "SCAN 0", "HELLO 3", "FLUSHALL"] {
        client.line("MULTI");
        let refused = client.line(line);
        assert!(String::from_utf8_lossy(&refused.0).starts_with("-ERR "), "{line}: {refused:?}");
        assert!(String::from_utf8_lossy(&client.line("EXEC").0).starts_with("-EXECABORT"), "{line}");
        assert_eq!(client.line("PING"), "+PONG\r\n");
    }
    client.line("MULTI");
    assert_eq!(client.line("SET a 1"), "+QUEUED\r\n");
    let crossing = client.line("SET b 1");
    assert!(String::from_utf8_lossy(&crossing.0).starts_with("-CROSSSLOT"), "{crossing:?}");
    assert!(String::from_utf8_lossy(&client.line("EXEC").0).starts_with("-EXECABORT"));
    // Watched keys and the transaction's are of one slot, too.
    assert_eq!(client.line("WATCH a"), "+OK\r\n");
    assert!(String::from_utf8_lossy(&client.line("WATCH b").0).starts_with("-CROSSSLOT"));
    assert!(String::from_utf8_lossy(&client.line("WATCH a b").0).starts_with("-CROSSSLOT"));
    client.line("MULTI");
    assert!(String::from_utf8_lossy(&client.line("SET b 1").0).starts_with("-CROSSSLOT"));
    client.line("DISCARD");
}

#[test]
fn what_all_nodes_are_asked_for_has_its_place_in_a_transaction() {
    let proxy = Proxy::before(shared());
    let mut client = proxy.client();
    for line in ["MULTI", "SET {all}k 1", "INFO server", "SLOWLOG LEN", "GET {all}k"] {
        assert!(!client.line(line).is_error(), "{line}");
    }
    let replies = client.line("EXEC").value();
    let [set, info, length, get] = replies.items() else { panic!("{replies:?}") };
    assert_eq!((set.str(), get.str()), (Some("OK"), Some("1")));
    assert!(info.str().expect("a text").contains(&format!("tcp_port:{}\r\n", proxy.port)), "{info:?}");
    assert!(length.integer().is_some(), "{length:?}");
    // All nodes are set when the transaction has run: nothing in it may count on that.
    client.line("MULTI");
    assert_eq!(client.line("CONFIG SET hz 10"), "+QUEUED\r\n");
    assert!(client.line("SET {all}k 2").is_error());
    assert!(String::from_utf8_lossy(&client.line("EXEC").0).starts_with("-EXECABORT"));
    assert_eq!(client.line("GET {all}k"), "$1\r\n1\r\n");
}

#[test]
fn info_in_a_transaction_does_not_wait_for_a_node_that_hangs() {
    let mut cluster = Cluster::three();
    let proxy = Proxy::start(Settings::new(cluster.seeds()).with("REQUEST_TIMEOUT", "1s").expecting_warnings());
    let mut client = proxy.client().patient(Duration::from_secs(5));
    let key = cluster.key_on(0, "hang:");
    let transaction: Vec<Vec<String>> = ["MULTI", &format!("INCR {key}"), "INFO server", "CONFIG SET hz 10", "EXEC"]
        .map(|line| words(line).into_iter().map(str::to_owned).collect())
        .to_vec();
    // Once while all is well, so that there are connections to use again.
    for (hangs, count) in [(false, 1), (true, 2)] {
        if hangs {
            cluster.nodes[2].pause();
        }
        let replies = client.pipeline(&transaction);
        let value = replies[4].value();
        let [counted, info, set] = value.items() else { panic!("{:?}", replies[4]) };
        assert_eq!(counted.integer(), Some(count));
        assert!(info.str().is_some_and(|text| text.starts_with("# Server")), "{info:?}");
        assert_eq!(set.str() == Some("OK"), !hangs, "{set:?}");
    }
    cluster.nodes[2].resume();
}

#[test]
fn what_is_read_behind_client_tracking_in_a_transaction_is_tracked() {
    let (proxy, oracle) = (Proxy::before(shared()), Node::standalone());
    for address in [proxy.address(), oracle.address()] {
        for (tracking, caching) in [("CLIENT TRACKING ON", "PING"), ("CLIENT TRACKING ON OPTIN", "CLIENT CACHING yes")]
        {
            let (mut client, mut other) = (Client::connect(&address), Client::connect(&address));
            client.line("HELLO 3");
            other.line("SET {tt}k 1");
            for line in ["MULTI", tracking, caching, "GET {tt}k"] {
                assert!(!client.line(line).is_error(), "{line} at {address}");
            }
            let replies = client.line("EXEC").value();
            assert_eq!(replies.items().last().and_then(|value| value.str()), Some("1"), "{replies:?} at {address}");
            other.line("SET {tt}k 2");
            let told = client.reply();
            assert!(told.0.starts_with(b">2\r\n$10\r\ninvalidate\r\n"), "{told:?} at {address}");
        }
    }
}

#[test]
fn a_client_that_goes_leaves_nothing_behind() {
    let proxy = Proxy::before(shared());
    let mut observer = proxy.client();
    let mut client = proxy.client();
    let id = client.line("CLIENT ID").integer();
    client.line("WATCH {gone}k");
    client.line("MULTI");
    client.line("SET {gone}k 1");
    client.line("SET {gone}k 2");
    let listed = observer.line(&format!("CLIENT LIST ID {id}")).string();
    assert!(listed.contains(" multi=2 ") && listed.contains(" flags=x "), "{listed}");
    drop(client);
    eventually("it to be gone", || observer.line(&format!("CLIENT LIST ID {id}")).string().is_empty());
    assert_eq!(observer.line("GET {gone}k"), "$-1\r\n");
    // One that has sent all and waits for the replies with its sending side closed gets them.
    let mut client = proxy.client();
    let requests = ["WATCH {gone}k", "MULTI", "INCR {gone}k", "CLIENT GETNAME", "EXEC"];
    client.send_raw(&requests.iter().flat_map(|line| frame(&words(line))).collect::<Vec<_>>());
    client.finish_sending();
    let replies = client.read_to_end().unwrap();
    assert_eq!(
        replies.escape_ascii().to_string(),
        "+OK\\r\\n+OK\\r\\n+QUEUED\\r\\n+QUEUED\\r\\n*2\\r\\n:1\\r\\n$-1\\r\\n"
    );
    // QUIT within MULTI discards.
    let mut client = proxy.client();
    let requests = ["MULTI", "INCR {gone}k", "QUIT"];
    client.send_raw(&requests.iter().flat_map(|line| frame(&words(line))).collect::<Vec<_>>());
    assert_eq!(client.read_to_end().unwrap(), b"+OK\r\n+QUEUED\r\n+OK\r\n");
    assert_eq!(observer.line("GET {gone}k"), "$1\r\n1\r\n");
}

#[test]
fn optimistic_increments_count_exactly() {
    let cluster = Cluster::three();
    let proxy = Proxy::before(&cluster);
    let address = proxy.address();
    thread::scope(|scope| {
        for worker in 0..8 {
            let address = &address;
            scope.spawn(move || {
                let mut client = Client::connect(address);
                for number in 0..40 {
                    let key = format!("counter{}", (worker + number) % 3);
                    loop {
                        client.call(&["WATCH", &key]);
                        let now = client.call(&["GET", &key]);
                        let now = if now == "$-1\r\n" { 0 } else { now.string().parse::<i64>().unwrap() };
                        client.line("MULTI");
                        client.call(&["SET", &key, &(now + 1).to_string()]);
                        let done = client.line("EXEC");
                        if done == "*1\r\n+OK\r\n" {
                            break;
                        }
                        assert_eq!(done, "*-1\r\n");
                    }
                }
            });
        }
    });
    let mut client = proxy.client();
    let total: i64 = (0..3).map(|key| client.line(&format!("GET counter{key}")).string().parse::<i64>().unwrap()).sum();
    assert_eq!(total, 320);
    // What was taken has gone back: nobody watches, and the next who does finds a warm connection.
    let connections: usize =
        cluster.nodes.iter().map(|node| node.info("connected_clients").parse::<usize>().unwrap()).sum();
    assert!(connections < 60, "{connections} connections at the nodes");
}

#[test]
fn a_transaction_meets_a_slot_on_its_way_once() {
    let cluster = Cluster::three();
    let proxy = Proxy::before(&cluster);
    let slot = 12182; // foo's
    let mut client = proxy.client();
    for (number, own) in [false, true].into_iter().enumerate() {
        client.line("MSET {foo}moved 0 {foo}stayed 0");
        cluster.open_slot(slot, 2, 0);
        cluster.move_keys(&["{foo}moved"], 2, 0);
        let name = if own { vec!["CLIENT GETNAME"] } else { vec![] };
        let tail = if own { "$-1\r\n" } else { "" };
        let mut run = |lines: &[&str]| {
            let lines: Vec<&str> =
                ["MULTI"].into_iter().chain(lines.iter().copied()).chain(name.clone()).chain(["EXEC"]).collect();
            client.pipeline(&lines.iter().map(|line| words(line)).collect::<Vec<_>>()).pop().unwrap()
        };
        let count = 2 + usize::from(own);
        // Where the keys are at either end, and where they are yet to come.
        assert_eq!(run(&["INCR {foo}moved", "INCR {foo}moved"]), format!("*{count}\r\n:1\r\n:2\r\n{tail}").as_str());
        assert_eq!(run(&["INCR {foo}stayed", "INCR {foo}stayed"]), format!("*{count}\r\n:1\r\n:2\r\n{tail}").as_str());
        let new = format!("{{foo}}new{number}");
        assert_eq!(
            run(&[&format!("INCR {new}"), &format!("GET {new}")]),
            format!("*{count}\r\n:1\r\n$1\r\n1\r\n{tail}").as_str()
        );
        // Keys at both ends: it waits until they are together.
        thread::scope(|scope| {
            let both = scope.spawn(|| run(&["INCR {foo}moved", "INCR {foo}stayed"]));
            eventually("it to be refused", || proxy.metric("slotway_retries_total", &[]) > 0.0);
            cluster.move_keys(&["{foo}stayed"], 2, 0);
            cluster.close_slot(slot, 2, 0);
            assert_eq!(both.join().unwrap(), format!("*{count}\r\n:3\r\n:3\r\n{tail}").as_str());
        });
        assert_eq!(client.line("MGET {foo}moved {foo}stayed").texts(), ["3", "3"]);
        cluster.move_slot(slot, 0, 2);
        client.line("DEL {foo}new0 {foo}new1");
    }
}

#[test]
fn a_transaction_whose_keys_do_not_come_together_ends_as_the_server_says_it() {
    let cluster = Cluster::three();
    // Redirects do not use up the time that there is.
    let settings = Settings::new(cluster.seeds()).with("RETRY_TIMEOUT", "1s").with("MAX_REDIRECTS", 4);
    let proxy = Proxy::start(settings.expecting_warnings());
    let mut client = proxy.client();
    client.line("MSET {foo}moved 0 {foo}stayed 0");
    cluster.open_slot(12182, 2, 0);
    cluster.move_keys(&["{foo}moved"], 2, 0);
    for own in [&[][..], &["CLIENT GETNAME"]] {
        let lines = [&["MULTI", "INCR {foo}moved", "INCR {foo}stayed"][..], own, &["EXEC"]].concat();
        let replies = client.pipeline(&lines.iter().map(|line| words(line)).collect::<Vec<_>>());
        let exec = replies.last().expect("a reply");
        assert_eq!(*exec, "-TRYAGAIN Multiple keys request during rehashing of slot\r\n");
    }
    assert_eq!(client.line("GET {foo}moved"), "$1\r\n0\r\n");
    cluster.move_keys(&["{foo}stayed"], 2, 0);
    cluster.close_slot(12182, 2, 0);
    assert_eq!(client.line("MGET {foo}moved {foo}stayed").texts(), ["0", "0"]);
}

#[test]
fn watched_keys_whose_slot_moves_count_as_touched() {
    let cluster = Cluster::three();
    // Should all connections be lost while the map is asked for.
    let proxy = Proxy::start(Settings::new(cluster.seeds()).expecting("no node answered"));
    let mut client = proxy.client();
    client.line("SET foo 1");
    client.line("WATCH foo {foo}absent");
    cluster.move_slot(12182, 2, 0);
    client.line("MULTI");
    client.line("INCR foo");
    assert_eq!(client.line("EXEC"), "*-1\r\n");
    // Again, where it is now.
    client.line("WATCH foo");
    client.line("MULTI");
    client.line("INCR foo");
    assert_eq!(client.line("EXEC"), "*1\r\n:2\r\n");
    // Half moved: an absent key is watched where it will come.
    cluster.open_slot(12182, 0, 1);
    client.line("WATCH {foo}absent");
    assert_eq!(proxy.client().line("SET {foo}absent here"), "+OK\r\n");
    client.line("MULTI");
    client.line("INCR {foo}other");
    assert_eq!(client.line("EXEC"), "*-1\r\n");
    client.line("WATCH {foo}third");
    client.line("MULTI");
    client.line("INCR {foo}third");
    assert_eq!(client.line("EXEC"), "*1\r\n:1\r\n");
    cluster.move_keys(&["foo"], 0, 1);
    cluster.close_slot(12182, 0, 1);
    // A connection that is lost while watching.
    client.line("WATCH foo");
    for node in &cluster.nodes {
        node.line("CLIENT KILL TYPE normal");
    }
    client.line("MULTI");
    client.line("INCR foo");
    assert_eq!(client.line("EXEC"), "*-1\r\n");
    assert_eq!(client.line("GET foo"), "$1\r\n2\r\n");
}

#[test]
fn a_lost_connection_at_exec_is_said_once() {
    let node = FakeNode::start();
    let proxy = Proxy::start(Settings::new(node.address()).expecting_warnings());
    let ok = || Act::say("+OK");
    let mut client = proxy.client();
    for watched in [false, true] {
        if watched {
            node.when("WATCH", ok());
            assert_eq!(client.line("WATCH k"), "+OK\r\n");
        }
        let before = node.count("EXEC");
        node.when("MULTI", ok()).when("INCR", Act::say("+QUEUED")).when("EXEC", Act::HangUp);
        client.line("MULTI");
        client.line("INCR k");
        let reply = client.line("EXEC");
        assert!(String::from_utf8_lossy(&reply.0).contains("may have run"), "{reply:?}");
        assert_eq!(node.count("EXEC"), before + 1);
    }
    // Refused while queueing, it goes again as a whole; watched, it fails as if a key were touched.
    for (watched, expected) in [(false, "*1\r\n:1\r\n"), (true, "*-1\r\n")] {
        if watched {
            node.when("WATCH", ok());
            client.line("WATCH k");
        }
        node.when("MULTI", ok()).when("INCR", Act::say("-LOADING Redis is loading the dataset in memory"));
        node.when("EXEC", Act::say("-EXECABORT Transaction discarded because of previous errors."));
        if !watched {
            node.when("MULTI", ok()).when("INCR", Act::say("+QUEUED")).when("EXEC", Act::say("*1\r\n:1"));
        }
        client.line("MULTI");
        client.line("INCR k");
        assert_eq!(client.line("EXEC"), expected);
        assert_eq!(node.unused(), 0);
    }
}

#[test]
fn a_transaction_may_be_larger_than_what_the_sockets_hold() {
    let proxy = Proxy::before(shared());
    let mut client = proxy.client();
    let value = vec![b'v'; 16 << 20];
    client.line("MULTI");
    for key in ["{large}1", "{large}2", "{large}3"] {
        assert_eq!(client.call(&[b"SET", key.as_bytes(), &value]), "+QUEUED\r\n");
    }
    // The node answers the first of them while the last are still on their way.
    assert_eq!(client.line("EXEC"), "*3\r\n+OK\r\n+OK\r\n+OK\r\n");
    assert_eq!(client.line("DEL {large}1 {large}2 {large}3"), ":3\r\n");
}

#[test]
fn a_transaction_of_many_commands_is_bounded_by_the_process() {
    let proxy = Proxy::start(Settings::new(shared().seeds()).with("MAX_BUFFERED", "8MiB").expecting_warnings());
    let mut client = proxy.client();
    client.line("MULTI");
    let set = frame(&["SET".as_bytes(), b"{big}k", &vec![b'v'; 64 * 1024]]);
    // It is closed when it costs too much, and what it queued has not run.
    let refused = (0..1000).any(|_| client.stream().write_all(&set).is_err());
    let end = client.read_to_end().unwrap();
    assert!(refused || end.len() < 1000 * 9, "all of {} bytes were queued", 1000 * set.len());
    assert_eq!(proxy.client().line("EXISTS {big}k"), ":0\r\n");
    assert!(proxy.resident() < 200 << 20);
    drop(client.patient(Duration::from_secs(1)));
}
