//! CLIENT PAUSE is about all clients of the proxy: what waits, what does not, and how long.

use std::time::{Duration, Instant};

use crate::support::{
    Client, Cluster, Flavour, Node, Proxy, Settings, Setup, Shape,
    client::{PATIENCE, words},
    cluster::shared,
    eventually, until,
};

fn flags_of(client: &mut Client, id: i64) -> String {
    let list = client.line("CLIENT LIST").string();
    let line = list.lines().find(|line| line.starts_with(&format!("id={id} "))).expect("a line").to_owned();
    line.split(" flags=").nth(1).expect("flags").split(' ').next().expect("a word").to_owned()
}

/// Whether a request is answered within a moment in which an idle server would have answered it many times over.
fn answers(client: &mut Client, line: &str) -> bool {
    client.send(&words(line));
    client.patience = Duration::from_millis(150);
    let answered = client.read().is_ok();
    client.patience = Duration::from_secs(15);
    answered
}

#[test]
fn writes_wait_and_reads_do_not() {
    let (proxy, redis) = (Proxy::before(shared()), Node::standalone());
    for address in [proxy.address(), redis.address()] {
        let connect = || Client::connect(&address);
        let mut other = connect();
        other.line("SET {pw}k 0");
        let held = [
            "INCR {pw}k",
            "PUBLISH pw x",
            "SPUBLISH pw x",
            "PFCOUNT {pw}hll",
            "EVAL return(1) 0",
            "EVALSHA 0000000000000000000000000000000000000000 0",
            "DEL {pw}k",
            "BLPOP {pw}l 0.01",
            "SORT {pw}l",
        ];
        let free = [
            "GET {pw}k",
            "EVAL_RO return(1) 0",
            "PING",
            "CLIENT ID",
            "SUBSCRIBE pw",
            "INCR",
            "NOSUCH x",
            "CLIENT UNPAUSE",
        ];
        for line in held {
            assert_eq!(other.line("CLIENT PAUSE 60000 WRITE"), "+OK\r\n");
            let mut client = connect();
            let id = client.line("CLIENT ID").integer();
            assert!(!answers(&mut client, line), "{line} at {address}");
            assert_eq!(flags_of(&mut other, id), "b", "{line} at {address}");
            assert!(other.line("INFO clients").string().contains("blocked_clients:1\r\n"), "{line} at {address}");
            // What came behind it waits too, and the order is kept.
            client.send(&words("ECHO behind"));
            assert_eq!(other.line(&format!("CLIENT UNBLOCK {}", 999_999)), ":0\r\n");
            assert_eq!(other.line("CLIENT UNPAUSE"), "+OK\r\n");
            client.reply();
            assert_eq!(client.reply(), "$6\r\nbehind\r\n", "{line} at {address}");
            assert_eq!(flags_of(&mut other, id), "N", "{line} at {address}");
        }
        assert_eq!(other.line("CLIENT PAUSE 60000 WRITE"), "+OK\r\n");
        for line in free {
            assert!(answers(&mut connect(), line), "{line} at {address}");
        }
        let info = other.line("INFO clients").string();
        assert!(info.contains("blocked_clients:0\r\n"), "{info}");
        // A transaction that writes waits as a whole, its queueing too; one that reads does not.
        other.line("CLIENT UNPAUSE");
        let (mut writes, mut reads) = (connect(), connect());
        writes.line("MULTI");
        writes.line("SET {pw}k 1");
        reads.line("MULTI");
        reads.line("GET {pw}k");
        other.line("CLIENT PAUSE 60000 WRITE");
        assert!(!answers(&mut writes, "EXEC"), "{address}");
        assert!(answers(&mut reads, "EXEC"), "{address}");
        reads.line("MULTI");
        assert!(!answers(&mut reads, "SET {pw}k 2"), "{address}");
        other.line("CLIENT UNPAUSE");
        assert_eq!(writes.reply(), "*1\r\n+OK\r\n");
        assert_eq!(reads.reply(), "+QUEUED\r\n");
        other.line("DEL {pw}k");
    }
}

/// Sends a request; says whether it waits for the end of the pause, by what comes first: its reply, or the flag.
fn waits(client: &mut Client, id: i64, other: &mut Client, args: &[&str]) -> bool {
    client.send(args);
    client.patience = Duration::from_millis(20);
    let waits = until("a reply, or the flag", PATIENCE, || {
        if client.read().is_ok() {
            return Some(false);
        }
        flags_of(other, id).contains('b').then_some(true)
    });
    client.patience = PATIENCE;
    waits
}

const READS: &str = "#!lua flags=no-writes\nreturn redis.call('GET', KEYS[1])";
const WRITES: &str = "#!lua\nreturn redis.call('GET', KEYS[1])";
const PLAIN: &str = "return redis.call('GET', KEYS[1])";
const LIBRARY: &str = "#!lua name=pauselib\nredis.register_function{function_name='pausero', callback=function(k) \
                       return redis.call('GET', k[1]) end, flags={'no-writes'}}\n\
                       redis.register_function('pauserw', function(k) return redis.call('GET', k[1]) end)";

fn scripts_wait_where_they_may_write(proxy: &Proxy, server: &Node) {
    let mut seen = Vec::new();
    for address in [proxy.address(), server.address()] {
        let connect = || Client::connect(&address);
        let mut other = connect();
        other.line("SET {ps}k v");
        assert_eq!(other.call(&["FUNCTION", "LOAD", "REPLACE", LIBRARY]).string(), "pauselib");
        let [reads, writes, plain] =
            [READS, WRITES, PLAIN].map(|script| other.call(&["SCRIPT", "LOAD", script]).string());
        let none = "f".repeat(40);
        let key = ["1", "{ps}k"];
        let call = |name: &'static str, what: &str| [name, what, key[0], key[1]].map(str::to_owned).to_vec();
        let mut calls = Vec::new();
        for name in ["EVAL", "EVAL_RO"] {
            let odd = "#!lua flags=nonsense\nreturn 1";
            let several = "#!lua flags=allow-oom,no-writes\nreturn 1";
            let breaks = "#!lua flags=no-writes\nreturn redis.call('SET', KEYS[1], 'x')";
            calls.extend([READS, WRITES, PLAIN, odd, several, breaks].map(|script| call(name, script)));
        }
        for name in ["EVALSHA", "EVALSHA_RO"] {
            calls.extend([&reads, &writes, &plain, &none].map(|sha| call(name, sha)));
        }
        for name in ["FCALL", "FCALL_RO"] {
            calls.extend(["pausero", "pauserw", "pausenone"].map(|function| call(name, function)));
        }
        let mut told = Vec::new();
        for call in &calls {
            let args: Vec<&str> = call.iter().map(String::as_str).collect();
            // By itself, queued during a pause, and queued before one.
            let (mut alone, mut within, mut before) = (connect(), connect(), connect());
            let [first, second, third] =
                [&mut alone, &mut within, &mut before].map(|client| client.line("CLIENT ID").integer());
            before.line("MULTI");
            before.call(&args);
            assert_eq!(other.line("CLIENT PAUSE 60000 WRITE"), "+OK\r\n");
            let by_itself = waits(&mut alone, first, &mut other, &args);
            assert_eq!(within.line("MULTI"), "+OK\r\n");
            let in_queue = waits(&mut within, second, &mut other, &args);
            let at_exec = !in_queue && waits(&mut within, second, &mut other, &["EXEC"]);
            let queued_before = waits(&mut before, third, &mut other, &["EXEC"]);
            told.push((args.join(" "), by_itself, in_queue, at_exec, queued_before));
            assert_eq!(other.line("CLIENT UNPAUSE"), "+OK\r\n");
        }
        other.line("FUNCTION DELETE pauselib");
        other.line("DEL {ps}k");
        seen.push(told);
    }
    for (ours, theirs) in seen[0].iter().zip(&seen[1]) {
        assert_eq!(ours, theirs, "waits by itself, in MULTI, in EXEC, in EXEC of what was queued before");
    }
    assert_eq!(seen[0].len(), 26);
}

#[test]
fn scripts_that_only_read_run_meanwhile() {
    scripts_wait_where_they_may_write(&Proxy::before(shared()), &Node::standalone());
}

#[test]
fn scripts_that_only_read_run_meanwhile_before_valkey() {
    if Flavour::Valkey.is_here("scripts_that_only_read_run_meanwhile_before_valkey") {
        let cluster = Cluster::start(Shape { flavour: Flavour::Valkey, ..Shape::default() });
        let server = Node::start(&Setup { flavour: Flavour::Valkey, ..Setup::default() });
        scripts_wait_where_they_may_write(&Proxy::before(&cluster), &server);
    }
}

/// A key whose time is over is gone for whoever reads it, pause or not.
#[test]
fn keys_that_expire_meanwhile_are_gone_for_readers() {
    let (proxy, redis) = (Proxy::before(shared()), Node::standalone());
    for address in [proxy.address(), redis.address()] {
        let mut client = Client::connect(&address);
        client.line("SET {pexp}k v PX 100");
        assert_eq!(client.line("CLIENT PAUSE 60000 WRITE"), "+OK\r\n");
        eventually("it to be over", || client.line("GET {pexp}k") == "$-1\r\n");
        for (line, reply) in [
            ("EXISTS {pexp}k", ":0\r\n"),
            ("PTTL {pexp}k", ":-2\r\n"),
            ("TYPE {pexp}k", "+none\r\n"),
            ("KEYS {pexp}*", "*0\r\n"),
        ] {
            assert_eq!(client.line(line), reply, "{line} at {address}");
        }
        assert_eq!(client.line("CLIENT UNPAUSE"), "+OK\r\n");
    }
}

#[test]
fn everything_waits_until_the_time_is_over() {
    let (proxy, redis) = (Proxy::before(shared()), Node::standalone());
    for address in [proxy.address(), redis.address()] {
        // Several, so that all workers have some.
        let mut clients: Vec<Client> = (0..8).map(|_| Client::connect(&address)).collect();
        let start = Instant::now();
        assert_eq!(clients[0].line("CLIENT PAUSE 300"), "+OK\r\n");
        // Neither a shorter nor a narrower one takes anything away from it. It waits itself.
        clients.iter_mut().for_each(|client| client.send(&words("GET pa")));
        clients.iter_mut().for_each(|client| assert_eq!(client.reply(), "$-1\r\n"));
        assert!(start.elapsed() >= Duration::from_millis(300), "{address}");
        assert_eq!(clients[0].line("CLIENT PAUSE 0"), "+OK\r\n");
        assert_eq!(clients[0].line("GET pa"), "$-1\r\n");
        let start = Instant::now();
        assert_eq!(clients[0].line("CLIENT PAUSE 400 WRITE"), "+OK\r\n");
        assert_eq!(clients[1].line("CLIENT PAUSE 1 WRITE"), "+OK\r\n");
        assert_eq!(clients[2].line("DEL pa"), ":0\r\n");
        assert!(start.elapsed() >= Duration::from_millis(400), "{address}: shortened");
    }
}

#[test]
fn a_paused_client_that_leaves_has_done_nothing() {
    let proxy = Proxy::before(shared());
    let mut other = proxy.client();
    other.line("SET pl 0");
    other.line("CLIENT PAUSE 60000 WRITE");
    let mut gone = proxy.client();
    gone.send(&words("INCR pl"));
    eventually("it to wait", || other.line("CLIENT LIST").string().contains(" flags=b "));
    eventually("the metric", || proxy.metric("slotway_blocked_clients", &[]) == 1.0);
    drop(gone);
    eventually("it to go", || other.line("CLIENT LIST").string().lines().count() == 1);
    other.line("CLIENT UNPAUSE");
    assert_eq!(other.line("GET pl"), "$1\r\n0\r\n");
    other.line("DEL pl");
}

#[test]
fn a_paused_client_cannot_be_unblocked_but_killed() {
    let proxy = Proxy::before(shared());
    let (mut paused, mut other) = (proxy.client(), proxy.client());
    let id = paused.line("CLIENT ID").integer();
    other.line("CLIENT PAUSE 60000 WRITE");
    paused.send(&words("INCR pk"));
    eventually("it to wait", || flags_of(&mut other, id) == "b");
    assert_eq!(other.line(&format!("CLIENT UNBLOCK {id}")), ":0\r\n");
    assert_eq!(other.line(&format!("CLIENT KILL ID {id}")), ":1\r\n");
    assert_eq!(paused.read_to_end().expect("the end"), b"");
    other.line("CLIENT UNPAUSE");
    assert_eq!(other.line("EXISTS pk"), ":0\r\n");
}

#[test]
fn a_pause_does_not_keep_the_proxy_from_ending() {
    let proxy = Proxy::start(Settings::new(shared().seeds()));
    let mut paused = proxy.client();
    let mut other = proxy.client();
    other.line("CLIENT PAUSE 60000 WRITE");
    paused.send(&words("INCR pe"));
    eventually("it to wait", || other.line("CLIENT LIST").string().contains(" flags=b "));
    let start = Instant::now();
    proxy.shut_down();
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    assert_eq!(paused.read_to_end().expect("the end"), b"");
}

#[test]
fn keys_waits_as_one_server_has_it() {
    let (proxy, redis) = (Proxy::before(shared()), Node::standalone());
    for address in [proxy.address(), redis.address()] {
        let connect = || Client::connect(&address);
        let mut other = connect();
        let names = ["{pkeys}1", "{pkeys}2", "pkeys3"];
        names.iter().for_each(|name| assert_eq!(other.call(&["SET", name, "x"]), "+OK\r\n"));
        // Of all nodes, and of one slot.
        for pattern in ["*pkeys*", "{pkeys}*"] {
            let line = format!("KEYS {pattern}");
            let whole = connect().line(&line).0.len();
            let mut client = connect();
            assert_eq!(other.line("CLIENT PAUSE 60000 WRITE"), "+OK\r\n");
            assert!(answers(&mut client, &line), "{line} at {address}");
            assert_eq!(connect().line(&line).0.len(), whole, "{line} at {address}");
            assert_eq!(other.line("CLIENT UNPAUSE"), "+OK\r\n");
            let start = Instant::now();
            assert_eq!(other.line("CLIENT PAUSE 600 ALL"), "+OK\r\n");
            assert!(!answers(&mut client, &line), "{line} at {address}");
            client.send(&words("ECHO behind"));
            assert_eq!(client.reply().0.len(), whole, "{line} at {address}");
            assert!(start.elapsed() >= Duration::from_millis(600), "{line} at {address}: {:?}", start.elapsed());
            assert_eq!(client.reply(), "$6\r\nbehind\r\n", "{line} at {address}");
        }
        names.iter().for_each(|name| assert_eq!(other.call(&["DEL", name]), ":1\r\n"));
    }
}
