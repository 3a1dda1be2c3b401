//! Commands about the server: the cluster answers them as one server would.

use std::collections::BTreeSet;

use slotway::{commands::table::CommandTable, protocol::resp::Value};

use crate::support::{
    Client, Cluster, Flavour, Node, Proxy, Reply, Settings, Setup, Shape, cluster::shared, eventually, words,
};

/// A cluster behind a proxy, and one server of the same kind.
struct Pair {
    proxy: Proxy,
    plain: Node,
    /// Behind the proxy, and gone after it.
    _cluster: Cluster,
}

impl Pair {
    /// `None` where this machine has no such server.
    fn of(flavour: Flavour, test: &str) -> Option<Pair> {
        if !flavour.is_here(test) {
            return None;
        }
        let cluster = Cluster::start(Shape { flavour, ..Shape::default() });
        let proxy = Proxy::start(Settings::new(cluster.seeds()));
        Some(Pair { proxy, plain: Node::start(&Setup { flavour, ..Setup::default() }), _cluster: cluster })
    }

    /// A client of each, both speaking `version`: ours and theirs.
    fn clients(&self, version: u8) -> [Client; 2] {
        let mut theirs = self.plain.client();
        theirs.line(&format!("HELLO {version}"));
        [self.proxy.client_of(version), theirs]
    }
}

/// Answered with the same bytes.
const SAME: &[&str] = &[
    "ACL CAT",
    "ACL CAT nosuch",
    "ACL CAT a b",
    "ACL WHOAMI",
    "ACL LIST",
    "ACL USERS",
    "ACL GETUSER default",
    "ACL GETUSER nosuch",
    "ACL DRYRUN default get a",
    "ACL DRYRUN nosuch get a",
    "ACL DRYRUN default nosuch",
    "ACL GENPASS 0",
    "ACL GENPASS abc",
    "ACL LOG",
    "ACL LOG 5",
    "ACL LOG RESET",
    "ACL LOG x",
    "ACL LOG -1",
    "COMMAND COUNT",
    "COMMAND LIST FILTERBY MODULE json",
    "COMMAND LIST FILTERBY x y",
    "COMMAND INFO get",
    "COMMAND INFO get nosuch",
    "COMMAND INFO config|get",
    "COMMAND DOCS get",
    "COMMAND DOCS nosuch",
    "COMMAND GETKEYS MSET a b c d",
    "COMMAND GETKEYS GET",
    "COMMAND GETKEYS nosuch",
    "COMMAND GETKEYS PING",
    "COMMAND GETKEYSANDFLAGS SET a b",
    "CONFIG GET nosuch",
    "CONFIG GET cluster-enabled",
    "CONFIG GET requirepass",
    "CONFIG GET masterauth",
    "CONFIG GET maxclients",
    "CONFIG GET hz",
    "CONFIG GET save",
    "CONFIG SET hz",
    "CONFIG SET nosuch 1",
    "CONFIG SET hz abc",
    "CONFIG SET hz 10",
    "CONFIG SET hz 10 hz 11",
    "CONFIG SET maxmemory 0 nosuch 1",
    "CONFIG RESETSTAT",
    "DBSIZE",
    "DEBUG OBJECT nosuch",
    "DEBUG DIGEST-VALUE a",
    "DEBUG STRINGMATCH-LEN 10 a*",
    "DEBUG PROTOCOL string",
    "DEBUG PROTOCOL map",
    "DEBUG PROTOCOL attrib",
    "DEBUG PROTOCOL x",
    "DEBUG SET-ACTIVE-EXPIRE 1",
    "DEBUG SDSLEN nosuch",
    "DEBUG LISTPACK nosuch",
    "DEBUG QUICKLIST-PACKED-THRESHOLD 0",
    "FLUSHALL x",
    "FLUSHDB SYNC",
    "FLUSHALL ASYNC",
    "INFO nosuch",
    "INFO keyspace",
    "INFO cluster",
    "INFO modules",
    "INFO sentinel",
    "LATENCY DOCTOR",
    "LATENCY GRAPH command",
    "LATENCY HISTORY command",
    "LATENCY LATEST",
    "LATENCY RESET",
    "LATENCY RESET command other",
    "LATENCY HISTOGRAM nosuch",
    "LOLWUT VERSION x",
    "MEMORY PURGE",
    "MEMORY USAGE nosuch",
    "MEMORY USAGE a SAMPLES",
    "MEMORY USAGE a SAMPLES x",
    "MEMORY USAGE a SAMPLES -1",
    "MODULE LIST",
    "OBJECT ENCODING nosuch",
    "OBJECT FREQ nosuch",
    "OBJECT IDLETIME nosuch",
    "OBJECT REFCOUNT nosuch",
    "OBJECT NOSUCH a",
    "PFDEBUG GETREG nosuch",
    "PUBSUB CHANNELS",
    "PUBSUB NUMSUB a b",
    "PUBSUB NUMPAT",
    "PUBSUB SHARDCHANNELS",
    "PUBSUB SHARDNUMSUB a b",
    "ROLE",
    "SELECT 0",
    "SELECT x",
    "SELECT 99",
    "SELECT -1",
    "SLOWLOG LEN",
    "SLOWLOG GET",
    "SLOWLOG GET -1",
    "SLOWLOG GET -2",
    "SLOWLOG GET x",
    "SLOWLOG RESET",
    "SCAN x",
    "SCAN 0 MATCH",
    "SCAN 0 COUNT 0",
    "NOSUCH a b",
    "HELLO 4",
    "HELLO x",
    "AUTH a",
    "AUTH a b c",
    "CLUSTER INFO",
    "CLUSTER NODES",
    "CLUSTER SLOTS",
    "CLUSTER SHARDS",
    "CLUSTER MYID",
    "CLUSTER LINKS",
    "CLUSTER REPLICAS x",
    "CLUSTER COUNT-FAILURE-REPORTS x",
    "SENTINEL MASTERS",
    "FT._LIST",
];

/// The same, of Valkey only.
const SAME_IN_VALKEY: &[&str] = &[
    "CLUSTER MYSHARDID",
    "CLUSTER GETSLOTMIGRATIONS",
    "CLUSTER SLOT-STATS SLOTSRANGE 0 1",
    "COMMANDLOG LEN slow",
    "COMMANDLOG LEN x",
    "COMMANDLOG GET -1 large-reply",
    "COMMANDLOG GET x slow",
    "COMMANDLOG GET -2 slow",
    "COMMANDLOG RESET slow",
    "COMMANDLOG RESET x",
];

/// Answered with the same kinds and names, in other numbers or another order.
const ALIKE: &[&str] = &[
    "ACL GENPASS",
    "ACL CAT read",
    "COMMAND",
    "COMMAND LIST",
    "COMMAND LIST FILTERBY ACLCAT hyperloglog",
    "COMMAND LIST FILTERBY PATTERN xr*",
    "CONFIG GET *",
    "CONFIG GET maxmemory* hz databases port",
    "HELLO",
    "LASTSAVE",
    "LOLWUT",
    "LOLWUT VERSION 5 1 1 1",
    "MEMORY DOCTOR",
    "MEMORY STATS",
    "MEMORY MALLOC-STATS",
    "TIME",
];

#[test]
fn redis_answers_as_one_server() {
    same_and_alike(Flavour::Redis);
}

#[test]
fn valkey_answers_as_one_server() {
    same_and_alike(Flavour::Valkey);
}

fn same_and_alike(flavour: Flavour) {
    let Some(pair) = Pair::of(flavour, "server::same_and_alike") else { return };
    let more = if flavour == Flavour::Valkey { SAME_IN_VALKEY } else { &[] };
    let mut wrong = Vec::new();
    for version in [2, 3] {
        let [mut ours, mut theirs] = pair.clients(version);
        for client in [&mut ours, &mut theirs] {
            // On a busy machine, anything is slow.
            client.line("CONFIG SET slowlog-log-slower-than -1");
            client.line("SLOWLOG RESET");
        }
        for line in SAME.iter().chain(more) {
            let (ours, theirs) = (ours.line(line), theirs.line(line));
            if ours != theirs {
                wrong.push(format!("RESP{version} {line}\n   the proxy: {ours:?}\n  one server: {theirs:?}"));
            }
        }
        for line in ALIKE {
            let (ours, theirs) = (ours.line(line), theirs.line(line));
            if shape(&ours) != shape(&theirs) {
                wrong.push(format!("RESP{version} {line}\n   the proxy: {ours:?}\n  one server: {theirs:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// The kinds of a reply's elements and the names among them, in no order.
fn shape(reply: &Reply) -> BTreeSet<String> {
    fn add(value: &Value, depth: usize, shape: &mut BTreeSet<String>) {
        match value {
            Value::Array(items) => {
                shape.insert(format!("{depth} array"));
                items.iter().for_each(|item| add(item, depth + 1, shape));
            }
            Value::Text(text) => {
                let text = String::from_utf8_lossy(text).into_owned();
                let name = text.len() < 30
                    && text.chars().all(|letter| letter.is_ascii_lowercase() || ".-|_".contains(letter));
                shape.insert(format!("{depth} {}", if name { &text } else { "text" }));
            }
            Value::Integer(_) => drop(shape.insert(format!("{depth} integer"))),
            other => drop(shape.insert(format!("{depth} {other:?}"))),
        }
    }
    let mut all = BTreeSet::from([format!("{:?}", reply.0.first().map(|kind| char::from(*kind)))]);
    add(&reply.value(), 0, &mut all);
    all
}

/// Commands that a wrong number of arguments may do something to all the same.
const NOT_CALLED: &[&str] = &["quit", "monitor", "hello", "reset"];
/// Commands that the proxy and one server treat otherwise on purpose, with HELP and unknown subcommands.
const OTHERWISE: &[&str] = &["cluster|help"];

#[test]
fn every_command_of_redis_is_refused_alike() {
    wrong_arguments(Flavour::Redis);
}

#[test]
fn every_command_of_valkey_is_refused_alike() {
    wrong_arguments(Flavour::Valkey);
}

/// Every command with too few and too many arguments, the HELP of every container and a subcommand that it has not.
fn wrong_arguments(flavour: Flavour) {
    let Some(pair) = Pair::of(flavour, "server::wrong_arguments") else { return };
    let table = CommandTable::learn(&pair.plain.line("COMMAND").value()).expect("a table");
    let mut wrong = Vec::new();
    let mut compared = 0;
    for version in [2, 3] {
        let [mut ours, mut theirs] = pair.clients(version);
        for spec in table.rows() {
            let name = &*spec.name;
            if NOT_CALLED.contains(&name) || OTHERWISE.contains(&name) || name.starts_with("proxy") {
                continue;
            }
            let mut requests: Vec<Vec<String>> = Vec::new();
            let base: Vec<String> = name.split('|').map(str::to_owned).collect();
            if spec.container {
                requests.push([&base[..], &["nosuch".into()]].concat());
                requests.push([&base[..], &["nosuch".into(), "x".into()]].concat());
            }
            if name.ends_with("|help") {
                requests.push(base.clone());
            }
            for count in base.len()..(spec.arity.unsigned_abs() as usize + 2) {
                if !spec.takes(count) {
                    let filler = (base.len()..count).map(|index| index.to_string());
                    requests.push(base.iter().cloned().chain(filler).collect());
                }
            }
            for request in requests {
                let (ours, theirs) = (ours.call(&request), theirs.call(&request));
                compared += 1;
                if ours != theirs {
                    let request = request.join(" ");
                    wrong.push(format!("RESP{version} {request}\n   the proxy: {ours:?}\n  one server: {theirs:?}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {compared}\n{}", wrong.len(), wrong.join("\n"));
    assert!(compared > 1000, "{compared}");
}

/// A section of INFO with the names of its lines.
fn names_of_info(text: &str) -> Vec<(String, BTreeSet<String>)> {
    let mut sections: Vec<(String, BTreeSet<String>)> = Vec::new();
    for line in text.lines() {
        if let Some(section) = line.strip_prefix("# ") {
            sections.push((section.to_owned(), BTreeSet::new()));
        } else if let (Some((name, _)), Some((section, names))) = (line.split_once(':'), sections.last_mut()) {
            // What has happened is not the same on both sides.
            if !["Commandstats", "Errorstats", "Latencystats"].contains(&&**section) {
                names.insert(name.to_owned());
            }
        }
    }
    sections
}

fn line_of<'a>(info: &'a str, name: &str) -> &'a str {
    let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no line {name} in {info}"))
}

#[test]
fn info_has_the_sections_and_lines_of_one_server() {
    for flavour in [Flavour::Redis, Flavour::Valkey] {
        let Some(pair) = Pair::of(flavour, "server::info") else { continue };
        for version in [2, 3] {
            let [mut ours, mut theirs] = pair.clients(version);
            (0..30).for_each(|number| {
                let set = ["SET", &format!("info:{number}"), "1", "EX", "1000"];
                ours.call(&set);
                theirs.call(&set);
            });
            for line in [
                "INFO",
                "INFO all",
                "INFO everything",
                "INFO default",
                "INFO server clients keyspace",
                "info CPU nosuch Stats",
                "INFO commandstats",
                "INFO errorstats latencystats",
                "INFO replication persistence memory",
            ] {
                let (ours, theirs) = (ours.line(line), theirs.line(line));
                assert_eq!(ours.0[0], theirs.0[0], "{flavour:?} RESP{version} {line}: the kind of reply");
                let [ours, theirs] = [ours, theirs].map(|reply| names_of_info(&reply.string()));
                assert_eq!(ours, theirs, "{flavour:?} RESP{version} {line}");
            }
        }
    }
}

#[test]
fn info_tells_of_one_server() {
    let cluster = Cluster::three();
    let proxy = Proxy::start(Settings::new(cluster.seeds()).with("MAX_CLIENTS", 77));
    let mut client = proxy.client();
    let mut others: Vec<Client> = (0..4).map(|_| proxy.client()).collect();
    for number in 0..300 {
        client.line(&format!("SET info:{number} {number}"));
    }
    others[0].send(&["BLPOP", "info:none", "0"]);
    others[1].line("SUBSCRIBE info:channel");
    others[2].line("PSUBSCRIBE info:*");
    eventually("the client to be blocked", || line_of(&client.line("INFO clients").string(), "blocked_clients") == "1");
    let info = client.line("INFO everything").string();
    for (name, value) in [
        ("redis_mode", "standalone"),
        ("cluster_enabled", "0"),
        ("role", "master"),
        ("connected_slaves", "0"),
        ("connected_clients", "5"),
        ("blocked_clients", "1"),
        ("maxclients", "77"),
        ("tcp_port", &proxy.port.to_string()),
        ("process_id", &proxy.pid().to_string()),
        ("pubsub_channels", "1"),
        ("pubsub_patterns", "1"),
        ("db0", "keys=300,expires=0,avg_ttl=0"),
    ] {
        assert_eq!(line_of(&info, name), value, "{name}");
    }
    let sum = |name: &str| -> i64 { cluster.nodes.iter().map(|node| node.info(name).parse::<i64>().unwrap()).sum() };
    let number = |name: &str| line_of(&info, name).parse::<i64>().unwrap_or_else(|_| panic!("{name}"));
    assert!((number("used_memory") - sum("used_memory")).abs() < sum("used_memory") / 2);
    assert!(number("total_connections_received") >= 5 && number("uptime_in_seconds") < 600);
    let calls = line_of(&info, "cmdstat_set");
    assert!(calls.starts_with("calls=300,"), "{calls}");
    assert_eq!(client.line("DBSIZE").integer(), 300);
}

#[test]
fn info_is_told_though_a_node_is_down() {
    let mut cluster = Cluster::three();
    let settings = Settings::new(cluster.seeds()).with("RETRY_TIMEOUT", "300ms").expecting_warnings();
    let proxy = Proxy::start(settings);
    let mut client = proxy.client();
    for index in 0..3 {
        let key = cluster.key_on(index, "down:");
        client.call(&["SET", &key, "1"]);
    }
    assert_eq!(line_of(&client.line("INFO").string(), "db0"), "keys=3,expires=0,avg_ttl=0");
    cluster.nodes[1].kill();
    for version in [2, 3] {
        let mut client = proxy.client_of(version);
        let info = client.line("INFO").string();
        assert_eq!(line_of(&info, "db0"), "keys=2,expires=0,avg_ttl=0");
        assert_eq!((line_of(&info, "loading"), line_of(&info, "role")), ("0", "master"));
        // What would be a wrong number is an error.
        assert!(client.line("DBSIZE").is_error());
    }
}

#[test]
fn config_reaches_every_primary_and_leaves_the_cluster_alone() {
    let cluster = Cluster::three();
    let proxy = Proxy::before(&cluster);
    let mut client = proxy.client();
    assert_eq!(client.line("CONFIG SET slowlog-log-slower-than 77 maxmemory-policy allkeys-lfu"), "+OK\r\n");
    for node in &cluster.nodes {
        assert_eq!(node.line("CONFIG GET slowlog-log-slower-than").texts()[1], "77");
    }
    let mut got = client.line("CONFIG GET slowlog-log* maxmemory-policy databases port").texts();
    got = got.chunks(2).map(|pair| pair.join("=")).collect();
    got.sort();
    let port = format!("port={}", proxy.port);
    assert_eq!(got, ["databases=1", "maxmemory-policy=allkeys-lfu", &port, "slowlog-log-slower-than=77"]);
    for line in [
        "CONFIG SET requirepass x",
        "CONFIG SET cluster-node-timeout 1",
        "CONFIG SET hz 20 PORT 1",
        "CONFIG SET masterauth x",
        "CONFIG REWRITE",
    ] {
        let reply = client.line(line);
        assert!(
            reply.is_error() && String::from_utf8_lossy(&reply.0).contains("is not served by the proxy"),
            "{reply:?}"
        );
    }
    assert_eq!(cluster.node(0).line("CONFIG GET hz").texts()[1], "10");
}

#[test]
fn config_set_of_what_is_so_already_is_done() {
    let cluster = Cluster::three();
    let proxy = Proxy::before(&cluster);
    for version in [2, 3] {
        let mut client = proxy.client_of(version);
        assert_eq!(client.line("CONFIG GET PORT").texts(), ["PORT", &proxy.port.to_string()]);
        // As whoever puts back what it has found.
        for name in
            ["port", "bind", "masterauth", "cluster-enabled", "Cluster-Node-Timeout", "unixsocket", "requirepass"]
        {
            let value = client.line(&format!("CONFIG GET {name}")).texts()[1].clone();
            assert_eq!(client.call(&["CONFIG", "SET", name, &value]), "+OK\r\n", "{name} {value}");
            let other = client.call(&["CONFIG", "SET", "port", &proxy.port.to_string(), name, "x"]);
            assert!(other.is_error(), "{name} {other:?}");
        }
        assert_eq!(
            client.call(&["CONFIG", "SET", "port", &proxy.port.to_string(), "cluster-enabled", "no"]),
            "+OK\r\n"
        );
        let node = cluster.node(0).line("CONFIG GET port").texts()[1].clone();
        for line in [&*format!("CONFIG SET port {node}"), "CONFIG SET cluster-* x", "CONFIG SET cluster-nosuch x"] {
            let reply = client.line(line);
            assert!(String::from_utf8_lossy(&reply.0).contains("is not served by the proxy"), "{line} {reply:?}");
        }
        let short = client.line("CONFIG SET port");
        assert_eq!(short, "-ERR wrong number of arguments for 'config|set' command\r\n");
    }
}

#[test]
fn settings_reach_whoever_may_be_the_next_primary() {
    let cluster = Cluster::start(Shape { replicas: 1, ..Shape::default() });
    let settings = Settings::new(cluster.seeds()).with("ALLOW", "acl setuser, acl deluser");
    let proxy = Proxy::start(settings.expecting("a replica is not like its primary"));
    let mut client = proxy.client();
    let on_all = |what: &str, is: &dyn Fn(&Node) -> bool| eventually(what, || cluster.nodes.iter().all(is));
    // In their order: what was said last is in force.
    for events in ["KEA", "Ex"] {
        assert_eq!(client.line(&format!("CONFIG SET notify-keyspace-events {events}")), "+OK\r\n");
    }
    on_all("the last setting", &|node| node.line("CONFIG GET notify-keyspace-events").texts()[1] == "xE");
    assert_eq!(client.line("ACL SETUSER bob on >pw ~* +@all"), "+OK\r\n");
    on_all("the user", &|node| node.line("ACL LIST").texts().len() == 2);
    assert_eq!(client.line("ACL DELUSER bob"), ":1\r\n");
    on_all("the user gone", &|node| node.line("ACL LIST").texts().len() == 1);
    // A replica that cannot take it is named to the operator, not to the client.
    cluster.nodes[3].line("ACL SETUSER default -config|set");
    assert_eq!(client.line("CONFIG SET notify-keyspace-events Kx"), "+OK\r\n");
    eventually("the warning", || proxy.log().contains("a replica is not like its primary: config|set failed"));
}

#[test]
fn logs_of_all_nodes_are_one_log() {
    let cluster = Cluster::three();
    let proxy = Proxy::before(&cluster);
    for version in [2, 3] {
        let mut client = proxy.client_of(version);
        client.line("CONFIG SET slowlog-log-slower-than 0 latency-monitor-threshold 15");
        client.line("SLOWLOG RESET");
        let keys: Vec<String> = (0..3).map(|index| cluster.key_on(index, "logs:")).collect();
        keys.iter().for_each(|key| drop(client.call(&["SET", key, "1"])));
        let entries = client.line("SLOWLOG GET 100").value();
        for key in &keys {
            let logged = |entry: &Value| {
                entry.items()[3].items().iter().filter_map(Value::str).collect::<Vec<_>>() == ["SET", key, "1"]
            };
            assert!(entries.items().iter().any(logged), "{key} in {entries:?}");
        }
        assert_eq!(client.line("SLOWLOG GET 2").value().items().len(), 2);
        assert!(client.line("SLOWLOG LEN").integer() >= 3);
        client.line("CONFIG SET slowlog-log-slower-than -1");
        client.line("SLOWLOG RESET");
        assert_eq!(client.line("SLOWLOG LEN"), ":0\r\n");

        client.line("LATENCY RESET");
        for index in 0..2 {
            let node = cluster.node(index).address();
            let pause = format!("0.0{}", 2 + index);
            assert_eq!(client.call(&["PROXY", "NODE", &node, "DEBUG", "SLEEP", &pause]), "+OK\r\n");
        }
        let latest = client.line("LATENCY LATEST").value();
        assert_eq!(latest.items().len(), 1, "{latest:?}");
        let event = latest.items()[0].items();
        assert_eq!(event[0].str(), Some("command"));
        assert!(event[3].integer() >= Some(30), "{latest:?}");
        assert_eq!(client.line("LATENCY HISTORY command").value().items().len(), 2);
        assert!(client.line("LATENCY GRAPH command").string().starts_with("command - high "));
        assert_eq!(client.line("LATENCY RESET command"), ":1\r\n");
        assert_eq!(client.line("LATENCY LATEST"), "*0\r\n");

        client.line("CONFIG RESETSTAT");
        keys.iter().for_each(|key| drop(client.call(&["GET", key])));
        let histogram = client.line("LATENCY HISTOGRAM get").value();
        assert_eq!(histogram.field("get").and_then(|get| get.field("calls")?.integer()), Some(3), "{histogram:?}");
        let stats = client.line("MEMORY STATS").value();
        assert_eq!(stats.field("keys.count").and_then(Value::integer), Some(3), "{stats:?}");

        client.line("ACL LOG RESET");
        assert!(client.line("AUTH nobody wrong").is_error());
        let log = client.line("ACL LOG").value();
        assert_eq!(log.items().len(), 1, "{log:?}");
        assert_eq!(log.items()[0].field("username").and_then(Value::str), Some("nobody"));
        assert_eq!(client.line("ACL LOG RESET"), "+OK\r\n");
        assert_eq!(client.line("ACL LOG"), "*0\r\n");
        assert_eq!(client.line("ACL WHOAMI").string(), "default");
    }
}

#[test]
fn what_is_allowed_is_done_by_all() {
    let proxy =
        Proxy::start(Settings::new(shared().seeds()).with("ALLOW", "debug, cluster|slots, acl|setuser, acl|deluser"));
    let mut client = proxy.client();
    assert_eq!(client.line("DEBUG SLEEP 0"), "+OK\r\n");
    assert_eq!(client.line("CLUSTER SLOTS").value().items().len(), 3);
    assert!(client.line("CLUSTER NODES").is_error());
    assert_eq!(client.line("ACL SETUSER server:bob on >secret ~* +@all"), "+OK\r\n");
    for node in &shared().nodes {
        assert!(!node.line("ACL GETUSER server:bob").0.starts_with(b"*-1"));
    }
    assert_eq!(client.line("AUTH server:bob secret"), "+OK\r\n");
    assert_eq!(client.line("ACL WHOAMI").string(), "server:bob");
    assert_eq!(client.line("PROXY NODE key:foo ACL WHOAMI").string(), "server:bob");
    let mut client = proxy.client();
    assert_eq!(client.line("ACL DELUSER server:bob"), ":1\r\n");
}

#[test]
fn a_transaction_may_ask_about_the_server() {
    let (proxy, plain) = (Proxy::before(shared()), Node::standalone());
    for line in ["ACL WHOAMI", "CONFIG GET hz", "ROLE", "COMMAND COUNT"] {
        let [ours, theirs] = [proxy.client(), plain.client()].map(|mut client| {
            let requests = ["MULTI", line, "EXEC"].map(|line| words(line));
            client.pipeline(&requests)
        });
        // Its offset is the node's own.
        if line == "ROLE" { assert_eq!(ours[1], theirs[1]) } else { assert_eq!(ours, theirs, "{line}") }
    }
    for version in [2, 3] {
        let requests = ["MULTI", "SET asked:a 1", "CONFIG GET port", "GET asked:a", "EXEC"].map(|line| words(line));
        let replies = proxy.client_of(version).pipeline(&requests);
        let executed = replies[4].value();
        let port = Value::Text(proxy.port.to_string().into());
        assert_eq!(executed.items()[1].field("port"), Some(&port), "{replies:?}");
        assert_eq!(executed.items()[2].str(), Some("1"), "{replies:?}");
    }
}
