//! A plain client meets one Redis: single keys, binary data, large values, long pipelines, keyless commands.

use slotway::protocol::slot::{SLOTS, Slot};

use crate::support::{Client, Cluster, Node, Proxy, Reply, cluster::shared, words};

/// One key for each slot, in slot order.
pub fn a_key_of_each_slot(prefix: &str) -> Vec<String> {
    let mut keys = vec![String::new(); SLOTS];
    let mut missing = SLOTS;
    for number in 0.. {
        let key = format!("{prefix}{number}");
        let place = &mut keys[Slot::of(key.as_bytes()).index()];
        if place.is_empty() {
            *place = key;
            missing -= 1;
            if missing == 0 {
                break;
            }
        }
    }
    keys
}

#[test]
fn foo_is_bar_and_lies_on_the_third_node() {
    let proxy = Proxy::before(shared());
    for version in [2, 3] {
        let mut client = proxy.client_of(version);
        assert_eq!(client.line("SET foo bar"), "+OK\r\n");
        assert_eq!(client.line("GET foo"), "$3\r\nbar\r\n");
        assert_eq!(client.line("get nothing-here"), if version == 3 { "_\r\n" } else { "$-1\r\n" });
    }
    assert_eq!(shared().node(2).line("GET foo"), "$3\r\nbar\r\n");
}

#[test]
fn inline_requests_are_served() {
    let proxy = Proxy::before(shared());
    let mut client = proxy.client();
    client.send_raw(b"PING\r\nset inline:a \"x\\x41 y\"\r\n\r\nGET inline:a\nECHO 'q'\r\n");
    let replies: Vec<Reply> = (0..4).map(|_| client.reply()).collect();
    assert_eq!(replies[0], "+PONG\r\n");
    assert_eq!(replies[1], "+OK\r\n");
    assert_eq!(replies[2], "$4\r\nxA y\r\n");
    assert_eq!(replies[3], "$1\r\nq\r\n");
}

#[test]
fn a_client_that_stops_sending_still_gets_its_replies() {
    let proxy = Proxy::before(shared());
    let mut client = proxy.client();
    client.send_raw(b"PING\r\nSET half:a 1\r\nGET half:a\r\n");
    client.finish_sending();
    assert_eq!(client.read_to_end().unwrap().escape_ascii().to_string(), "+PONG\\r\\n+OK\\r\\n$1\\r\\n1\\r\\n");
}

#[test]
fn keys_and_values_are_any_bytes() {
    let proxy = Proxy::before(shared());
    let mut client = proxy.client();
    let all: Vec<u8> = (0..=255).collect();
    let keys: Vec<Vec<u8>> = vec![
        [b"bin:".as_slice(), &all].concat(),
        b"bin:\r\n$3\r\nfoo\r\n".to_vec(),
        b"bin:\0".to_vec(),
        b"{}bin".to_vec(),
        b"".to_vec(),
        vec![0xff; 1000],
    ];
    for key in &keys {
        assert_eq!(client.call(&[b"SET".as_slice(), key, &all]), "+OK\r\n");
    }
    for key in &keys {
        assert_eq!(client.call(&[b"GET".as_slice(), key]).text(), all, "{}", key.escape_ascii());
    }
}

#[test]
fn large_values_pass_whole() {
    let proxy = Proxy::before(shared());
    let value: Vec<u8> =
        (0..16u32 * 1024 * 1024).map(|place| (place.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for version in [2, 3] {
        let mut client = proxy.client_of(version);
        let set = [b"SET".as_slice(), b"large:a", &value];
        let get = [b"GET".as_slice(), b"large:a", b""];
        // Before and behind the large ones small ones must keep their places.
        let requests = [
            vec![b"ECHO".as_slice(), b"first"],
            set.to_vec(),
            vec![b"ECHO".as_slice(), b"second"],
            get[..2].to_vec(),
            vec![b"ECHO".as_slice(), b"third"],
            get[..2].to_vec(),
        ];
        let replies = client.pipeline(&requests);
        assert_eq!(replies[0], "$5\r\nfirst\r\n");
        assert_eq!(replies[1], "+OK\r\n");
        assert_eq!(replies[2], "$6\r\nsecond\r\n");
        assert!(replies[3].text() == value, "the value came back changed");
        assert_eq!(replies[4], "$5\r\nthird\r\n");
        assert!(replies[5].text() == value, "the value came back changed the second time");
    }
    proxy.client().line("DEL large:a");
}

#[test]
fn one_pipeline_over_all_slots_keeps_its_order() {
    let proxy = Proxy::before(shared());
    let keys = a_key_of_each_slot("all:");
    for version in [2, 3] {
        let mut client = proxy.client_of(version);
        let mut requests = Vec::new();
        for (slot, key) in keys.iter().enumerate() {
            requests.push(vec!["SET".to_owned(), key.clone(), format!("v{slot}")]);
            requests.push(vec!["GET".to_owned(), key.clone()]);
        }
        let replies = client.pipeline(&requests);
        for (slot, pair) in replies.chunks(2).enumerate() {
            assert_eq!(pair[0], "+OK\r\n", "slot {slot}");
            assert_eq!(pair[1].string(), format!("v{slot}"));
        }
    }
    let mut client = proxy.client();
    let del: Vec<&str> = ["DEL"].into_iter().chain(keys.iter().map(String::as_str)).collect();
    assert_eq!(client.call(&del).integer(), SLOTS as i64);
}

#[test]
fn errors_in_a_pipeline_take_their_own_places() {
    let (proxy, oracle) = (Proxy::before(shared()), Node::standalone());
    let mut requests: Vec<Vec<String>> = Vec::new();
    for number in 0..3000 {
        let key = format!("mixed:{}", number % 97);
        requests.push(match number % 7 {
            0 => vec!["SET".into(), key, format!("text{number}")],
            1 => vec!["INCR".into(), format!("mixed:text:{number}")],
            2 => vec!["GET".into()],
            3 => vec!["NOSUCHCOMMAND".into(), key, format!("{number}")],
            4 => vec!["LPUSH".into(), key, "x".into()],
            5 => vec!["ECHO".into(), format!("{number}")],
            _ => vec!["GET".into(), key],
        });
    }
    let ours = proxy.client().pipeline(&requests);
    let theirs = oracle.client().pipeline(&requests);
    for ((request, ours), theirs) in requests.iter().zip(&ours).zip(&theirs) {
        assert_eq!(ours, theirs, "{}", request.join(" "));
    }
}

#[test]
fn keyless_commands_speak_for_the_whole_cluster() {
    let cluster = Cluster::three();
    let proxy = Proxy::before(&cluster);
    let mut client = proxy.client();
    let keys: Vec<String> = (0..600).map(|number| format!("key:{number}")).collect();
    assert_eq!(client.line("DBSIZE"), ":0\r\n");
    assert_eq!(client.line("RANDOMKEY"), "$-1\r\n");
    for key in &keys {
        client.call(&["SET", key, key]);
    }
    assert_eq!(client.line("DBSIZE"), ":600\r\n");
    let mut found = client.line("KEYS *").texts();
    found.sort_unstable();
    let mut sorted = keys.clone();
    sorted.sort_unstable();
    assert_eq!(found, sorted);
    assert_eq!(client.line("KEYS key:59?").texts().len(), 10);
    assert!(keys.contains(&client.line("RANDOMKEY").string()));
    for (options, expected) in [("", 600), (" COUNT 100", 600), (" MATCH key:5* COUNT 50", 111), (" TYPE hash", 0)] {
        assert_eq!(scan(&mut client, options).len(), expected, "SCAN{options}");
    }
    let sha = client.call(&["SCRIPT", "LOAD", "return redis.call('GET', KEYS[1])"]).string();
    assert_eq!(client.line(&format!("SCRIPT EXISTS {sha} {}", "0".repeat(40))), "*2\r\n:1\r\n:0\r\n");
    for key in &keys[..50] {
        assert_eq!(client.line(&format!("EVALSHA {sha} 1 {key}")).string(), *key);
    }
    assert_eq!(client.line("SCRIPT FLUSH"), "+OK\r\n");
    assert_eq!(client.line(&format!("SCRIPT EXISTS {sha}")), "*1\r\n:0\r\n");
    assert_eq!(client.line("TIME").value().items().len(), 2);
    assert_eq!(client.line("FLUSHALL"), "+OK\r\n");
    assert!((0..3).all(|index| cluster.node(index).line("DBSIZE") == ":0\r\n"));
    for key in &keys {
        client.call(&["SET", key, key]);
    }
    assert_eq!(client.line("FLUSHDB ASYNC"), "+OK\r\n");
    assert_eq!(client.line("DBSIZE"), ":0\r\n");
}

/// All keys that a whole SCAN finds; checks the cursor on the way.
pub fn scan(client: &mut Client, options: &str) -> Vec<String> {
    let mut cursor = "0".to_owned();
    let mut found = Vec::new();
    for _ in 0..10_000 {
        let page = client.line(&format!("SCAN {cursor}{options}")).value();
        cursor = page.items()[0].str().expect("a cursor").to_owned();
        let number: u64 = cursor.parse().expect("a decimal cursor");
        assert!(number < 1 << 63, "cursor {cursor}");
        found.extend(page.items()[1].items().iter().map(|key| key.str().expect("a key").to_owned()));
        if cursor == "0" {
            found.sort_unstable();
            found.dedup();
            return found;
        }
    }
    panic!("SCAN does not end");
}

#[test]
fn the_connection_s_own_commands_answer_as_one_server_does() {
    let (proxy, oracle) = (Proxy::before(shared()), Node::standalone());
    for line in [
        "PING",
        "PING hello",
        "PING a b",
        "ECHO hi",
        "ECHO",
        "ECHO a b",
        "SELECT 0",
        "SELECT abc",
        "SELECT",
        "SELECT 99",
        "SELECT -1",
        "AUTH",
        "AUTH nothing-set",
        "AUTH default nothing-set",
        "AUTH nobody nothing",
        "AUTH a b c",
        "HELLO 1",
        "HELLO 4",
        "HELLO x",
        "HELLO 3 SETNAME",
        "HELLO 2 WHAT",
        "CLIENT",
        "CLIENT NOSUCH",
        "CLIENT SETNAME me",
        "CLIENT GETNAME",
        "CLIENT SETNAME",
        "CLIENT SETINFO LIB-NAME x",
        "CLIENT NO-EVICT on",
        "CLIENT NO-TOUCH on",
        "RESET",
        "CLIENT GETNAME",
        "CONFIG GET maxmemory-policy",
        "CONFIG NOSUCH",
        "COMMAND COUNT",
        "COMMAND GETKEYS MSET a 1 b 2",
        "COMMAND GETKEYS GET",
        "COMMAND INFO get",
        "COMMAND INFO nosuch",
        "COMMAND NOSUCH",
        "COMMAND DOCS get",
        "OBJECT HELP",
        "SCRIPT NOSUCH",
        "SCAN",
        "SCAN x",
        "SCAN 0 NOSUCH 1",
        "SCAN 0 COUNT 0",
        "SCAN 0 COUNT x",
        "KEYS",
        "DBSIZE x",
        "FLUSHALL x",
        "TIME x",
        "NOSUCH",
        "NOSUCH a b c",
        "GET",
        "GET a b",
        "MSET a",
        "MSET",
        "MGET",
        "DEL",
        "READONLY x",
        "MULTI x",
        "EXEC",
        "DISCARD",
    ] {
        let (ours, theirs) = (proxy.client().line(line), oracle.client().line(line));
        assert_eq!(ours, theirs, "{line}");
    }
    let (mut ours, mut theirs) = (proxy.client(), oracle.client());
    for line in [
        "CLIENT SETNAME me",
        "CLIENT GETNAME",
        "HELLO 2 SETNAME you",
        "CLIENT GETNAME",
        "RESET",
        "CLIENT GETNAME",
        "QUIT",
    ] {
        let (ours, theirs) = (ours.line(line), theirs.line(line));
        if !line.starts_with("HELLO") {
            assert_eq!(ours, theirs, "{line}");
        }
    }
    assert_eq!(ours.read_to_end().unwrap(), b"", "QUIT closes");
}

#[test]
fn arguments_that_break_a_line_cannot_forge_a_reply() {
    let (proxy, oracle) = (Proxy::before(shared()), Node::standalone());
    for request in [
        vec!["NO\r\n+SUCH", "a"],
        vec!["NOSUCH", "a\r\n+OK"],
        vec!["CLIENT", "NO\r\nSUCH"],
        vec!["SET", "crlf:k", "v", "NO\r\nSUCH"],
        vec!["HELLO", "3\r\n"],
    ] {
        let (mut ours, mut theirs) = (proxy.client(), oracle.client());
        assert_eq!(ours.call(&request), theirs.call(&request), "{request:?}");
        assert_eq!(ours.line("PING"), "+PONG\r\n");
    }
}

#[test]
fn hello_describes_one_standalone_server() {
    let (proxy, oracle) = (Proxy::before(shared()), Node::standalone());
    for version in ["2", "3"] {
        let (mut client, mut other) = (proxy.client(), oracle.client());
        let (ours, theirs) = (client.call(&["HELLO", version]), other.call(&["HELLO", version]));
        assert_eq!(ours.0[..4], theirs.0[..4], "the same kind and size");
        let (ours, theirs) = (ours.value(), theirs.value());
        for field in ["server", "version", "proto", "mode", "role"] {
            assert_eq!(ours.field(field), theirs.field(field), "{field}");
        }
        assert_eq!(client.line("PING"), "+PONG\r\n");
    }
    let mut client = proxy.client();
    let (one, two) = (client.line("CLIENT ID").integer(), proxy.client().line("CLIENT ID").integer());
    assert!(one > 0 && two > 0 && one != two, "client ids {one} and {two}");
    assert_eq!(client.line("HELLO").value().field("id").and_then(|id| id.integer()), Some(one));
    let info = client.line("INFO").string();
    assert!(info.contains("redis_mode:standalone"), "{info}");
    assert!(info.contains("# Keyspace") && info.contains("# Server") && info.contains("redis_version:"), "{info}");
    let list = client.line("CLIENT LIST").string();
    assert!(list.contains(&format!("id={one} ")), "{list}");
    let own = client.line("CLIENT INFO").string();
    assert!(own.starts_with(&format!("id={one} ")), "{own}");
}

#[test]
fn what_only_a_node_may_be_told_is_refused() {
    let proxy = Proxy::before(shared());
    let mut client = proxy.client();
    for line in [
        "SHUTDOWN NOSAVE",
        "REPLICAOF NO ONE",
        "CLUSTER RESET HARD",
        "CLUSTER ADDSLOTS 1",
        "CLUSTER FORGET x",
        "DEBUG SLEEP 0",
        "MIGRATE h 1 k 0 1",
        "SWAPDB 0 1",
        "FAILOVER",
        "SYNC",
        "PSYNC ? -1",
        "SAVE",
        "MODULE LOAD /x",
    ] {
        let reply = client.line(line);
        assert!(reply.is_error(), "{line}: {reply:?}");
        assert_eq!(client.line("PING"), "+PONG\r\n", "after {line}");
    }
    assert_eq!(client.line("CLUSTER KEYSLOT foo"), ":12182\r\n");
    assert_eq!(client.call(&words("SELECT 0")), "+OK\r\n");
    assert!(client.line("SELECT 1").is_error());
}
