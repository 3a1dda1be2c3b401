//! CLIENT PAUSE is about all clients of the proxy: what waits, what does not, and how long.

use std::time::{Duration, Instant};

use crate::support::{Client, Node, Proxy, Settings, client::words, cluster::shared, eventually};

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
