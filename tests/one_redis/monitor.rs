//! MONITOR: what the nodes show, and what the proxy answers itself.

use std::time::Duration;

use crate::support::{Client, Cluster, Node, Proxy, Settings, client::words, cluster::shared, eventually, until};

/// What the proxy answers itself, each on one connection in this order: shown as one Redis shows it.
const ANSWERED: &[&str] = &[
    "PING",
    "ping hello",
    "PING a b",
    "ECHO a\"b\\c\n\r\t\u{7}\u{8}\u{0}\u{7f}~é",
    "SELECT 0",
    "SELECT x",
    "CLIENT GETNAME",
    "CLIENT SETNAME me",
    "CLIENT SETNAME a\u{1}b",
    "CLIENT INFO",
    "CLIENT LIST",
    "CLIENT KILL 1.2.3.4:5",
    "CLIENT UNBLOCK 99999",
    "CLIENT NO-EVICT on",
    "CLIENT PAUSE 0",
    "CLIENT NOSUCH",
    "CLIENT REPLY ON",
    "CLIENT TRACKING ON",
    "CLIENT TRACKING OFF",
    "CLIENT CACHING yes",
    "CLIENT TRACKINGINFO",
    "NOSUCH command",
    "ECHO",
    "HELLO",
    "HELLO 3 SETNAME me",
    "HELLO 2 AUTH nobody secret",
    "HELLO 9",
    "AUTH secret",
    "AUTH nobody secret",
    "CONFIG SET cluster-enabled no",
    "ACL WHOAMI",
    "WAIT 0 1",
    "EXEC",
    "DISCARD",
    "UNWATCH",
    "MULTI",
    "DISCARD",
    "MULTI",
    "EXEC",
    "MULTI",
    "CLIENT GETNAME",
    "SELECT 0",
    "EXEC",
    "MULTI",
    "NOSUCH command",
    "EXEC",
    "SUBSCRIBE a b",
    "PING",
    "UNSUBSCRIBE a b",
    "PSUBSCRIBE a*",
    "PUNSUBSCRIBE a*",
    "SSUBSCRIBE a",
    "SUNSUBSCRIBE a",
    "RESET",
];

/// What is shown of the clients at `address`, up to a command with the word `end`: each as its database and words.
fn shown_of(monitor: &mut Client, address: &str, end: &str) -> Vec<String> {
    let mut shown = Vec::new();
    loop {
        let text = monitor.reply().string();
        let (time, rest) = text.split_once(" [").expect("a line of MONITOR");
        let (database, rest) = rest.split_once(' ').expect("a database");
        let (from, command) = rest.split_once("] ").expect("an address");
        assert!(time.split_once('.').is_some_and(|(_, micros)| micros.len() == 6), "{text}");
        if from == address {
            if command.contains(end) {
                return shown;
            }
            shown.push(format!("[{database}] {command}"));
        }
    }
}

#[test]
fn monitor_shows_what_the_proxy_answers_as_one_redis_shows_it() {
    let (proxy, redis) = (Proxy::before(shared()), Node::standalone());
    for version in [2, 3] {
        let shown = [proxy.address(), redis.address()].map(|address| {
            let mut monitors = [Client::connect(&address), Client::connect(&address), Client::connect(&address)];
            for monitor in &mut monitors {
                monitor.line(&format!("HELLO {version}"));
                assert_eq!(monitor.line("MONITOR"), "+OK\r\n");
            }
            let mut client = Client::connect(&address);
            let own = client.stream().local_addr().expect("an address").to_string();
            for line in ANSWERED {
                client.send(&words(line));
                let replies = if line.contains(" b") && line.contains("SUBSCRIBE") { 2 } else { 1 };
                (0..replies).for_each(|_| drop(client.reply()));
            }
            client.line("ECHO the-end");
            let mut shown = monitors.iter_mut().map(|monitor| shown_of(monitor, &own, "the-end"));
            let first = shown.next().expect("a monitor");
            shown.for_each(|others| assert_eq!(others, first, "at {address}"));
            first
        });
        assert_eq!(shown[0], shown[1], "in RESP{version}");
        assert!(shown[0].len() > 40 && !shown[0].iter().any(|line| line.contains("secret")), "{:?}", shown[0]);
    }
}

#[test]
fn who_monitors_is_shown_to_itself_and_no_more_once_it_has_stopped() {
    let (proxy, redis) = (Proxy::before(shared()), Node::standalone());
    for address in [proxy.address(), redis.address()] {
        let (mut monitor, mut other) = (Client::connect(&address), Client::connect(&address));
        assert_eq!(monitor.line("MONITOR"), "+OK\r\n");
        let id = other.line("CLIENT LIST TYPE normal").string();
        assert!(id.lines().any(|line| line.contains(" flags=O ") && line.contains(" cmd=monitor ")), "{id}");
        let own = monitor.stream().local_addr().expect("an address").to_string();
        monitor.send(&["ECHO", "mine"]);
        let mut seen = Vec::new();
        until("its own command and the reply", Duration::from_secs(10), || {
            let reply = monitor.reply();
            let text = reply.string();
            seen.extend((text == "mine" || text.contains(&own)).then_some(text));
            (seen.len() == 2).then_some(())
        });
        assert_eq!(seen[0], "mine", "at {address}");
        assert!(seen[1].ends_with("] \"ECHO\" \"mine\""), "{seen:?} at {address}");
        monitor.send(&["RESET"]);
        until("the end of it", Duration::from_secs(10), || (monitor.reply() == "+RESET\r\n").then_some(()));
        other.line("ECHO unseen");
        assert_eq!(monitor.line("PING"), "+PONG\r\n");
        // What it is shown ends with its own end.
        assert_eq!(monitor.line("MONITOR"), "+OK\r\n");
        monitor.send(&["QUIT"]);
        let end = String::from_utf8_lossy(&monitor.read_to_end().expect("the end")).into_owned();
        assert!(end.contains("+OK\r\n") && !end.contains("QUIT"), "{end} at {address}");
    }
}

#[test]
fn a_slow_monitor_is_closed_and_slows_nobody() {
    let proxy =
        Proxy::start(Settings::new(shared().seeds()).with("PUBSUB__HARD_LIMIT", "4MiB").expecting("reads too slowly"));
    let (mut slow, mut quick) = (proxy.client(), proxy.client());
    assert_eq!(slow.line("MONITOR"), "+OK\r\n");
    let message = "x".repeat(256 * 1024);
    until("the slow one to be closed", Duration::from_secs(30), || {
        assert_eq!(quick.call(&["ECHO", &message]).text().len(), message.len());
        (proxy.metric("slotway_client_disconnects_total", &["output_limit"]) == 1.0).then_some(())
    });
    eventually("its memory to be given back", || proxy.metric("slotway_client_buffered_bytes", &[]) < 1e6);
    // One line that nobody may owe as a whole.
    let mut slow = proxy.client();
    assert_eq!(slow.line("MONITOR"), "+OK\r\n");
    let long = "\0".repeat(2 * 1024 * 1024);
    assert_eq!(quick.call(&["ECHO", &long]).text().len(), long.len());
    eventually("the next to be closed", || proxy.metric("slotway_client_disconnects_total", &["output_limit"]) == 2.0);
    assert_eq!(quick.line("PING"), "+PONG\r\n");
}

#[test]
fn monitor_shows_what_all_nodes_do() {
    let cluster = Cluster::three();
    let proxy = Proxy::before(&cluster);
    for version in [2, 3] {
        let (mut monitor, mut writer) = (proxy.client_of(version), proxy.client());
        assert_eq!(monitor.line("MONITOR"), "+OK\r\n");
        let keys: Vec<String> = (0..3).map(|index| cluster.key_on(index, "m")).collect();
        for key in &keys {
            writer.call(&["SET", key, "v w"]);
        }
        let mut shown = Vec::new();
        until("all three to be shown", Duration::from_secs(10), || {
            let text = monitor.reply().string();
            let (time, rest) = text.split_once(' ').unwrap();
            assert!(time.parse::<f64>().unwrap() > 1e9 && rest.starts_with("[0 127.0.0.1:"), "{text}");
            shown.extend(
                rest.split_once("] ")
                    .filter(|(_, command)| command.starts_with("\"SET\""))
                    .map(|pair| pair.1.to_owned()),
            );
            (shown.len() == 3).then_some(())
        });
        shown.sort();
        let mut expected: Vec<String> = keys.iter().map(|key| format!("\"SET\" \"{key}\" \"v w\"")).collect();
        expected.sort();
        assert_eq!(shown, expected);
        monitor.send(&["RESET"]);
        until("the end of it", Duration::from_secs(10), || (monitor.reply() == "+RESET\r\n").then_some(()));
        writer.call(&["SET", &keys[0], "unseen"]);
        assert_eq!(monitor.line("PING"), "+PONG\r\n");
    }
}

#[test]
fn monitor_shows_a_transaction_as_it_was_written() {
    let cluster = Cluster::three();
    let proxy = Proxy::before(&cluster);
    let (mut monitor, mut writer) = (proxy.client(), proxy.client());
    assert_eq!(monitor.line("MONITOR"), "+OK\r\n");
    for watch in ["ping", "watch seen"] {
        for line in [watch, "mULTi", "set seen 1", "exEc"] {
            assert!(!writer.line(line).is_error(), "{line}");
        }
        // Discovery's own commands are shown in between.
        let mut shown: Vec<String> = Vec::new();
        until("the transaction's end to be shown", Duration::from_secs(10), || {
            let text = monitor.reply().string();
            let command = text.split_once("] ").expect("a command").1.to_owned();
            shown.extend(["mULTi", "set", "exEc"].iter().any(|word| command.contains(word)).then_some(command));
            (shown.len() == 3).then_some(())
        });
        assert_eq!(shown, ["\"mULTi\"", "\"set\" \"seen\" \"1\"", "\"exEc\""], "after {watch}");
    }
}
