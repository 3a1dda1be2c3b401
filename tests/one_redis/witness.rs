//! Who asks what has been done sees what clients did, as on one server: MONITOR, SLOWLOG, INFO commandstats and
//! latencystats, LATENCY HISTOGRAM, each beside a plain server that has been told the same.

use std::{collections::BTreeMap, time::Duration};

use slotway::protocol::resp::Value;

use crate::support::{Client, Cluster, Flavour, Node, Proxy, Settings, Setup, Shape, eventually, until};

/// A cluster behind a proxy, and one server of the same kind.
struct Pair {
    proxy: Proxy,
    plain: Node,
    /// Behind the proxy, and gone after it.
    _cluster: Cluster,
}

impl Pair {
    /// Of each kind of server that is here.
    fn all(test: &str) -> impl Iterator<Item = (Flavour, Pair)> {
        [Flavour::Redis, Flavour::Valkey].into_iter().filter(move |flavour| flavour.is_here(test)).map(|flavour| {
            let cluster = Cluster::start(Shape { flavour, ..Shape::default() });
            let proxy = Proxy::start(Settings::new(cluster.seeds()));
            let plain = Node::start(&Setup { flavour, ..Setup::default() });
            (flavour, Pair { proxy, plain, _cluster: cluster })
        })
    }

    /// What `look` sees by the proxy, and by the plain server.
    fn both<T>(&self, look: impl Fn(&str) -> T) -> [T; 2] {
        [self.proxy.address(), self.plain.address()].map(|address| look(&address))
    }
}

/// What clients do, one behind the other on one connection.
const DONE: &[&str] = &[
    "SET w:a 1",
    "GET w:a",
    "GET",
    "GET a b",
    "LPUSH w:a x",
    "MSET w:a 1 w:b 2 w:c 3 w:d 4",
    "MGET w:a w:b w:c w:d",
    "MGET w:a",
    "DEL w:a w:b w:c",
    "EXISTS w:a w:b w:d",
    "UNLINK w:d",
    "PING",
    "PING w",
    "ECHO w",
    "SELECT 0",
    "SELECT x",
    "CLIENT GETNAME",
    "CLIENT SETNAME me",
    "CLIENT NOSUCH",
    "HELLO 2",
    "AUTH nobody wrong",
    "CLUSTER SLOTS",
    "CLUSTER MYID",
    "CLUSTER KEYSLOT",
    "ACL WHOAMI",
    "ACL DRYRUN default get a",
    "COMMAND COUNT",
    "COMMAND GETKEYS GET a",
    "CONFIG GET hz",
    "CONFIG SET hz 10",
    "CONFIG",
    "INFO server",
    "DBSIZE",
    "KEYS w:*",
    "RANDOMKEY",
    "TIME",
    "SCRIPT LOAD return(1)",
    "SCRIPT EXISTS e0e1f9fabfc9d4800c877a703b823ac0578ff8db",
    "EVALSHA e0e1f9fabfc9d4800c877a703b823ac0578ff8db 0",
    "EVAL redis.call('set',KEYS[1],1)return(redis.call('del',KEYS[1])) 1 w:s",
    SCRIPTED_PING,
    "EVALSHA 0000000000000000000000000000000000000000 0",
    "FUNCTION LIST",
    "MULTI",
    "SET w:{t}a 1",
    "MGET w:{t}a w:{t}b",
    "EXEC",
    "MULTI",
    "SET w:{t}a",
    "EXEC",
    "MULTI",
    "GET w:{t}a",
    "DISCARD",
    "WATCH w:{t}a",
    "MULTI",
    "GET w:{t}a",
    "EXEC",
    "WATCH w:{t}a",
    "UNWATCH",
    "WATCH w:{t}a",
    "SET w:{t}a 2",
    "MULTI",
    "GET w:{t}a",
    "EXEC",
    "MULTI",
    "EXEC",
    "MULTI",
    "PING",
    "CLIENT GETNAME",
    "GET w:{t}a",
    "EXEC",
    "EXEC",
    "DISCARD",
    "PUBLISH w:channel x",
    "SPUBLISH w:channel x",
    "SUBSCRIBE w:channel",
    "UNSUBSCRIBE w:channel",
    "BLPOP w:none 0.01",
    "OBJECT HELP",
    "OBJECT",
    "MEMORY USAGE w:{t}a",
    "LATENCY RESET",
    "NOSUCH a",
    "WAIT 0 10",
    "READONLY",
    "FLUSHALL",
];

/// A script that calls what the proxy answers itself: MONITOR shows that, but nobody can count it.
const SCRIPTED_PING: &str = "EVAL return(redis.call('ping')) 0";

fn do_all(client: &mut Client) {
    DONE.iter().for_each(|line| drop(client.line(line)));
}

fn do_all_that_counts(client: &mut Client) {
    DONE.iter().filter(|line| **line != SCRIPTED_PING).for_each(|line| drop(client.line(line)));
}

/// What is shown by those who monitor at `address` up to the end: of clients, in its order, and of scripts.
fn monitored(address: &str, also: impl Fn(&mut Client)) -> [Vec<String>; 2] {
    let mut monitor = Client::connect(address);
    assert_eq!(monitor.line("MONITOR"), "+OK\r\n");
    // Some node may look after itself meanwhile, and discovery after all.
    let mut client = Client::connect(address);
    also(&mut client);
    client.line("ECHO the-end");
    let mut shown = [Vec::new(), Vec::new()];
    let (mut over, mut scripted) = (false, 0);
    loop {
        if over && scripted == 0 {
            return shown;
        }
        let text = monitor.reply().string();
        let (from, command) = text.split_once("] ").expect("a line");
        let is_script = from.ends_with(" lua");
        match command {
            "\"ECHO\" \"the-end\"" => over = true,
            _ if is_script => {
                scripted -= 1;
                shown[1].push(command.to_owned());
            }
            _ => {
                // Three calls of two scripts are owed.
                scripted += 2 * i32::from(command.contains("KEYS[1]")) + i32::from(command.contains("'ping'"));
                shown[0].push(command.to_owned());
            }
        }
    }
}

#[test]
fn monitor_shows_what_clients_did_once_and_in_their_words() {
    for (flavour, pair) in Pair::all("witness::monitor") {
        for _ in 0..2 {
            let [mut ours, mut theirs] = pair.both(|address| monitored(address, do_all));
            // What the scripts of two nodes call is in no order.
            [&mut ours, &mut theirs].into_iter().for_each(|shown| shown[1].sort());
            assert_eq!(ours[0], theirs[0], "{flavour:?}");
            assert_eq!(ours[1], theirs[1], "{flavour:?}: of scripts");
            assert!(ours[0].len() > 60 && ours[1].len() == 3, "{flavour:?} {ours:?}");
        }
    }
}

#[test]
fn monitor_shows_the_address_of_the_client_and_what_others_do_at_nodes() {
    let cluster = Cluster::three();
    let proxy = Proxy::before(&cluster);
    let (mut monitor, mut client) = (proxy.client(), proxy.client());
    let other = Proxy::before(&cluster);
    assert_eq!(monitor.line("MONITOR"), "+OK\r\n");
    let [own, theirs, direct] = [0, 1, 2].map(|index| cluster.key_on(index, "w:"));
    client.call(&["GET", &own]);
    other.client().call(&["GET", &theirs]);
    let mut at_node = cluster.node(2).client();
    at_node.call(&["GET", &direct]);
    let address = client.stream().local_addr().expect("an address").to_string();
    let at_node = at_node.stream().local_addr().expect("an address").to_string();
    let mut shown = Vec::new();
    until("all three to be shown", Duration::from_secs(10), || {
        shown.push(monitor.reply().string());
        [&own, &theirs, &direct].iter().all(|key| shown.iter().any(|line| line.contains(*key))).then_some(())
    });
    let of = |key: &str| shown.iter().filter(|line| line.contains(key)).collect::<Vec<_>>();
    let line_of = |key: &str| match of(key)[..] {
        [line] => line.clone(),
        _ => panic!("{key} is not shown once: {shown:?}"),
    };
    assert!(line_of(&own).contains(&format!(" [0 {address}] \"GET\"")), "{shown:?}");
    assert!(line_of(&direct).contains(&format!(" [0 {at_node}] \"GET\"")), "{shown:?}");
    line_of(&theirs);
    // The other proxy has just connected and looks around.
    eventually("the other proxy to look around", || other.metric("slotway_topology_refreshes_total", &[]) > 1.0);
    client.line("ECHO the-end");
    while !shown.last().expect("a line").contains("the-end") {
        shown.push(monitor.reply().string());
    }
    assert!(!shown.iter().any(|line| line.contains("\"CLUSTER\"") || line.contains("\"PING\"")), "{shown:?}");
}

/// By command: calls, such as were rejected, such as failed.
type Counts = BTreeMap<String, [u64; 3]>;

/// Rows that differ for reasons of their own: one server outside of a cluster refuses READONLY.
const OTHERWISE: &[&str] = &["readonly"];

fn counts(client: &mut Client) -> Counts {
    let info = client.line("INFO commandstats").string();
    assert!(info.starts_with("# Commandstats\r\n"), "{info}");
    let read = |value: &str, field: &str| -> u64 {
        let number = value.split(',').find_map(|part| part.strip_prefix(field)?.strip_prefix('='));
        number.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{field} in {value}"))
    };
    let lines = info.lines().filter_map(|line| line.strip_prefix("cmdstat_")?.split_once(':'));
    let rows = lines.map(|(name, value)| {
        let [calls, usec] = ["calls", "usec"].map(|field| read(value, field));
        assert!(value.contains(&format!("usec_per_call={:.2}", usec as f64 / calls.max(1) as f64)), "{name} {value}");
        (name.to_owned(), [calls, read(value, "rejected_calls"), read(value, "failed_calls")])
    });
    rows.filter(|(name, _)| !OTHERWISE.contains(&&**name)).collect()
}

/// Calls by command, as LATENCY HISTOGRAM tells them.
fn timed(client: &mut Client, of: &str) -> BTreeMap<String, i64> {
    let told = client.line(&format!("LATENCY HISTOGRAM {of}")).value();
    let pairs =
        |value: &Value| value.items().chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect::<Vec<_>>();
    let rows = pairs(&told).into_iter().map(|(name, entry)| {
        let calls = entry.field("calls").and_then(Value::integer).expect("calls");
        let buckets = pairs(entry.field("histogram_usec").expect("a histogram"));
        let numbers: Vec<[i64; 2]> = buckets
            .iter()
            .map(|(bound, count)| [bound, count].map(|number| number.integer().expect("a number")))
            .collect();
        assert!(numbers.is_sorted_by(|a, b| a[0] < b[0] && a[1] < b[1]), "{name:?} {numbers:?}");
        assert_eq!(numbers.last().map(|last| last[1]), Some(calls), "{name:?} {numbers:?}");
        (name.str().expect("a name").to_owned(), calls)
    });
    rows.filter(|(name, _)| !OTHERWISE.contains(&&**name)).collect()
}

/// The commands of which INFO tells percentiles.
fn percentiles(client: &mut Client) -> Vec<String> {
    let info = client.line("INFO latencystats").string();
    let lines = info.lines().filter_map(|line| line.strip_prefix("latency_percentiles_usec_")?.split_once(':'));
    let mut names: Vec<String> = lines
        .map(|(name, value)| {
            let fields: Vec<&str> = value.split(',').filter_map(|part| Some(part.split_once('=')?.0)).collect();
            assert_eq!(fields, ["p50", "p99", "p99.9"], "{name} {value}");
            name.to_owned()
        })
        .filter(|name| !OTHERWISE.contains(&&**name))
        .collect();
    names.sort();
    names
}

#[test]
fn statistics_count_what_clients_did() {
    for (flavour, pair) in Pair::all("witness::statistics") {
        for version in [2, 3] {
            let looks = pair.both(|address| {
                let mut client = Client::connect(address);
                client.line(&format!("HELLO {version}"));
                // The second time around, what was before does not count.
                for _ in 0..2 {
                    assert_eq!(client.line("CONFIG RESETSTAT"), "+OK\r\n");
                    // Connections that are new to a node look after themselves.
                    do_all_that_counts(&mut Client::connect(address));
                }
                let all = (counts(&mut client), percentiles(&mut client), timed(&mut client, ""));
                let some = ["get", "PING", "config", "nosuch client|getname mget"].map(|of| timed(&mut client, of));
                (all, some)
            });
            let [(ours, some), (theirs, their_some)] = looks;
            assert_eq!(ours.0, theirs.0, "{flavour:?}: commandstats");
            assert_eq!(ours.1, theirs.1, "{flavour:?}: latencystats");
            assert_eq!(ours.2, theirs.2, "{flavour:?}: LATENCY HISTOGRAM");
            assert_eq!(some, their_some, "{flavour:?}: LATENCY HISTOGRAM of some");
            assert!(ours.0.len() > 40, "{ours:?}");
        }
    }
}

#[test]
fn statistics_of_all_clients_and_connections_are_there_at_once() {
    let cluster = Cluster::three();
    let proxy = Proxy::before(&cluster);
    let mut clients: Vec<Client> = (0..8).map(|_| proxy.client()).collect();
    assert_eq!(clients[0].line("CONFIG RESETSTAT"), "+OK\r\n");
    for round in 1..=20 {
        for client in &mut clients {
            client.line("PING");
            client.line("MGET w:a w:b w:c");
        }
        let told = counts(&mut clients[0]);
        let expected = [("config|resetstat", 1), ("info", round - 1), ("mget", 8 * round), ("ping", 8 * round)];
        let expected = expected.into_iter().filter(|(_, calls)| *calls > 0);
        let expected: Counts = expected.map(|(name, calls)| (name.to_owned(), [calls, 0, 0])).collect();
        assert_eq!(told, expected);
    }
    // In a transaction.
    let replies =
        clients[0].pipeline(&["MULTI", "PING", "CONFIG RESETSTAT", "EXEC", "PING"].map(crate::support::words));
    assert_eq!(replies[3], "*2\r\n+PONG\r\n+OK\r\n");
    let told = counts(&mut clients[0]);
    assert_eq!(told.get("ping"), Some(&[1, 0, 0]), "{told:?}");
    assert!(!told.contains_key("mget"), "{told:?}");
}

/// What stands in the log of the slow where everything is slow, but not what the proxy answers itself, which never is.
const LOGGED: &[&str] = &[
    "SET w:a 1",
    "GET w:a",
    "GET",
    "LPUSH w:a x",
    "PING",
    "MGET w:a",
    "DEL w:{t}a w:{t}b",
    "CONFIG GET hz",
    "CONFIG SET hz 10",
    "CONFIG SET hz 10",
    "INFO server",
    "DBSIZE",
    "KEYS w:*",
    "TIME",
    "SCRIPT LOAD return(1)",
    "EVALSHA e0e1f9fabfc9d4800c877a703b823ac0578ff8db 0",
    "EVAL redis.call('set',KEYS[1],1)return(redis.call('del',KEYS[1])) 1 w:s",
    SCRIPTED_PING,
    "FUNCTION LIST",
    "MULTI",
    "SET w:{t}a 1",
    "EXEC",
    "PUBLISH w:channel x",
    "BLPOP w:none 0.01",
    "ACL DRYRUN default get a",
    "SLOWLOG LEN",
    "FLUSHALL",
];

/// The commands in the log.
fn logged(client: &mut Client, line: &str) -> Vec<String> {
    let entries = client.line(line).value();
    let words = |entry: &Value| {
        let words: Vec<&str> = entry.items()[3].items().iter().filter_map(Value::str).collect();
        // Nodes are asked for all of their entries, whatever the client asks.
        if words[0] == "SLOWLOG" && words[1] != "RESET" { "SLOWLOG GET or LEN".to_owned() } else { words.join(" ") }
    };
    entries.items().iter().map(words).collect()
}

#[test]
fn the_slow_log_is_of_what_clients_did() {
    for (flavour, pair) in Pair::all("witness::slow_log") {
        for version in [2, 3] {
            let looks = pair.both(|address| {
                let mut client = Client::connect(address);
                client.line(&format!("HELLO {version}"));
                assert_eq!(client.line("CONFIG SET slowlog-log-slower-than 0"), "+OK\r\n");
                assert_eq!(client.line("SLOWLOG RESET"), "+OK\r\n");
                // A new connection of the client's and of the proxy's.
                let mut other = Client::connect(address);
                LOGGED.iter().for_each(|line| drop(other.line(line)));
                let length = client.line("SLOWLOG LEN").integer();
                let newest = logged(&mut client, "SLOWLOG GET 2");
                let mut all = logged(&mut client, "SLOWLOG GET -1");
                let some = logged(&mut client, "SLOWLOG GET").len();
                assert_eq!(client.line("CONFIG SET slowlog-log-slower-than -1"), "+OK\r\n");
                // On one server it is slow, too. What a script of Valkey calls could be anybody's.
                let is_ping = |line: &String| line.eq_ignore_ascii_case("ping");
                let own = all.iter().filter(|line| is_ping(line)).count();
                all.retain(|line| !is_ping(line));
                all.sort();
                let more = ["COMMANDLOG LEN slow", "COMMANDLOG GET 1 slow"].map(|line| client.line(line).is_error());
                (length - own as i64, newest, all, some, more)
            });
            let [ours, theirs] = looks;
            assert_eq!(ours, theirs, "{flavour:?} RESP{version}");
            assert!(ours.2.len() > 20, "{ours:?}");
        }
    }
}

#[test]
fn discovery_is_in_no_log_of_the_slow() {
    let cluster = Cluster::start(Shape { config: vec!["slowlog-log-slower-than 0".into()], ..Shape::default() });
    let proxy = Proxy::start(Settings::new(cluster.seeds()).with("REFRESH_INTERVAL", "1s"));
    let mut client = proxy.client();
    // What discovery asks for as well.
    for line in ["INFO server", "CONFIG GET cluster-databases", "COMMAND COUNT", "FUNCTION LIST", "SLOWLOG RESET"] {
        assert!(!client.line(line).is_error());
    }
    let before = proxy.metric("slotway_topology_refreshes_total", &[]);
    eventually("discovery to look again", || proxy.metric("slotway_topology_refreshes_total", &[]) > before + 1.0);
    let at_node = cluster.node(0).line("SLOWLOG GET -1").value();
    assert!(at_node.items().iter().any(|entry| entry.items()[5].str() == Some("slotway")), "{at_node:?}");
    let log = logged(&mut client, "SLOWLOG GET -1");
    // The harness looks after its own nodes.
    let log: Vec<&String> = log.iter().filter(|line| *line != "SLOWLOG GET or LEN").collect();
    assert_eq!(log, ["SLOWLOG RESET"]);
}
