//! What clients in a database of their own are told of servers and of each other (INFO, MONITOR, SLOWLOG, ACL LOG ...): what is
//! their database's, in their own words; and what acts on more than a database.

use std::collections::BTreeSet;

use crate::support::{Cluster, Flavour, Node, Proxy, Reply, Settings, Setup, Shape, until};

fn in_database(cluster: &Cluster, name: &str) -> Proxy {
    Proxy::start(Settings::new(cluster.seeds()).with("DATABASE", name).with("DATABASES", 3))
}

fn words(line: &str) -> Vec<String> {
    line.split(' ').map(|word| word.replace('~', " ")).collect()
}

#[test]
fn info_counts_the_databases_own_keys() {
    let cluster = Cluster::three();
    let (shop, other, oracle) = (in_database(&cluster, "shop"), in_database(&cluster, "other"), Node::standalone());
    other.client().line("MSET a 1 b 2 c 3 {shop}x 4");
    Proxy::before(&cluster).client().line("SET x{shop} others");
    let (mut ours, mut theirs) = (shop.client(), oracle.client());
    let keyspace = |reply: &Reply| -> Vec<String> {
        let text = reply.string();
        let lines = text.lines().skip_while(|line| *line != "# Keyspace").take_while(|line| !line.is_empty());
        lines.map(|line| line.split(",avg_ttl").next().unwrap_or_default().to_owned()).collect()
    };
    for line in ["MSET a 1 b 2 c 3", "SET d 1 EX 1000", "SELECT 2", "SET a 1 PX 50000", "SELECT 0"] {
        assert_eq!(ours.line(line), theirs.line(line));
        for info in ["INFO", "INFO keyspace", "INFO all", "INFO server keyspace", "INFO server"] {
            assert_eq!(keyspace(&ours.line(info)), keyspace(&theirs.line(info)), "{info} behind {line}");
        }
    }
    assert_eq!(keyspace(&ours.line("INFO")), ["# Keyspace", "db0:keys=4,expires=1", "db2:keys=1,expires=1"]);
    ours.line("MULTI");
    ours.line("INFO keyspace");
    assert_eq!(ours.line("EXEC").value().items().len(), 1);
    // FLUSHALL empties what SELECT leads to, and nothing else.
    assert_eq!(ours.line("FLUSHALL"), "+OK\r\n");
    assert_eq!(ours.line("FLUSHALL ASYNC"), "+OK\r\n");
    assert_eq!(ours.line("FLUSHALL NOSUCH"), theirs.line("FLUSHALL NOSUCH"));
    assert_eq!(keyspace(&ours.line("INFO")), ["# Keyspace"]);
    assert_eq!(other.client().line("DBSIZE").integer(), 4);
}

#[test]
fn slow_commands_are_told_in_the_clients_words() {
    for flavour in [Flavour::Redis, Flavour::Valkey] {
        if !flavour.is_here("databases_seen::slow_commands_are_told_in_the_clients_words") {
            continue;
        }
        let cluster = Cluster::start(Shape { flavour, ..Shape::default() });
        for node in &cluster.nodes {
            node.line("CONFIG SET slowlog-log-slower-than 0");
            node.line("CONFIG SET slowlog-max-len 10000");
        }
        let (shop, other) = (in_database(&cluster, "shop"), in_database(&cluster, "other"));
        let (mut client, mut stranger) = (shop.client(), other.client());
        let script = "return~redis.call('GET','computed')";
        client.call(&words(&format!("EVAL {script} 1 k arg")));
        for line in
            ["SET a {shop}b", "MGET a b", "KEYS a*", "DBSIZE", "SORT l BY w_* GET #", "XADD s 1-1 f v", "FLUSHDB"]
        {
            client.line(line);
            stranger.line(&line.replace('a', "secret"));
        }
        client.call(&words(&format!("EVAL {script} 1 k arg")));
        stranger.line("SET secret x");
        let entries = |reply: &Reply| -> Vec<String> {
            let entries = reply.value().items().to_vec();
            let words = |entry: &slotway::protocol::resp::Value| {
                let words = entry.items()[3].items().iter().map(|word| word.str().expect("a word").to_owned());
                words.collect::<Vec<_>>().join(" ")
            };
            entries.iter().map(words).collect()
        };
        let told = entries(&client.line("SLOWLOG GET -1"));
        for expected in
            ["SET a {shop}b", "MGET a b", "KEYS a*", "DBSIZE", "SORT l BY w_* GET #", "XADD s 1-1 f v", "FLUSHDB"]
        {
            assert!(told.iter().any(|told| told == expected), "{expected}, {flavour:?}: {told:?}");
        }
        assert!(told.iter().any(|told| told.starts_with("EVALSHA ") && told.ends_with(" 1 k arg")), "{told:?}");
        assert!(!told.iter().any(|told| told.contains("secret") || told.contains("slotway")), "{told:?}");
        assert_eq!(client.line("SLOWLOG LEN").integer(), told.len() as i64);
        assert_eq!(entries(&client.line("SLOWLOG GET 2")), told[..2]);
        assert_eq!(entries(&client.line("SLOWLOG GET")).len(), 10.min(told.len()));
        let oracle = Node::start(&Setup { flavour, ..Setup::default() });
        for line in ["SLOWLOG GET x", "SLOWLOG GET -2", "SLOWLOG HELP", "SLOWLOG"] {
            assert_eq!(client.line(line), oracle.line(line), "{line}");
        }
    }
}

#[test]
fn calls_are_counted_as_what_clients_said() {
    let cluster = Cluster::three();
    let proxy = in_database(&cluster, "counted");
    let mut client = proxy.client();
    for request in [&["DBSIZE"][..], &["DBSIZE"], &["KEYS", "*"]] {
        client.call(request);
    }
    for _ in 0..3 {
        client.call(&["EVAL", "return KEYS", "0"]);
    }
    let told = client.line("INFO commandstats").string();
    for (command, calls) in [("dbsize", 2), ("keys", 1), ("eval", 3)] {
        assert!(told.contains(&format!("cmdstat_{command}:calls={calls},")), "{command}: {told}");
    }
    assert!(!told.contains("cmdstat_eval_ro:") && !told.contains("cmdstat_evalsha:"), "{told}");
}

#[test]
fn monitor_shows_what_is_done_in_the_database() {
    let cluster = Cluster::three();
    let (shop, again, other) =
        (in_database(&cluster, "shop"), in_database(&cluster, "shop"), in_database(&cluster, "other"));
    let mut monitor = shop.client();
    assert_eq!(monitor.line("MONITOR"), "+OK\r\n");
    let (mut client, mut beside, mut stranger) = (shop.client(), again.client(), other.client());
    for line in ["SET secret x", "GET secret"] {
        stranger.line(line);
    }
    for line in ["SET a {shop}b", "KEYS a*", "SELECT 2", "DEL x y", "PING", "MULTI", "INCR n", "EXEC"] {
        client.line(line);
    }
    client.call(&words("EVAL return~redis.call('INCR','computed') 1 k"));
    // By another proxy, as its node sees it.
    beside.line("SET besides {shop}x");
    client.line("ECHO end");
    let mut shown = Vec::new();
    let mut wanted: BTreeSet<&str> = [
        "[0 \"SET\" \"a\" \"{shop}b\"",
        "[0 \"KEYS\" \"a*\"",
        "[2 \"SELECT\" \"2\"",
        "[2 \"DEL\" \"x\" \"y\"",
        "[2 \"INCR\" \"n\"",
        "[2 \"EVAL\" \"return redis.call('INCR','computed')\" \"1\" \"k\"",
        "[2 \"INCR\" \"computed\"",
        "[0 \"SET\" \"besides\" \"{shop}x\"",
        "[2 \"ECHO\" \"end\"",
    ]
    .into();
    while !wanted.is_empty() {
        let Ok(line) = monitor.read() else { panic!("{wanted:?} are not among {shown:?}") };
        let line = String::from_utf8(line.0).expect("text");
        let (number, rest) = line.split_once('[').and_then(|(_, rest)| rest.split_once(' ')).expect("a line");
        let words = rest.split_once("] ").expect("words").1.trim_end();
        let line = format!("[{number} {words}");
        wanted.remove(line.as_str());
        shown.push(line);
    }
    assert!(!shown.iter().any(|line| line.contains("secret") || line.contains("slotway1")), "{shown:?}");
    let seen = Proxy::before(&cluster);
    let mut whole = seen.client();
    assert_eq!(whole.line("MONITOR"), "+OK\r\n");
    client.line("SET a 1");
    let real = until("it is shown as it is kept", std::time::Duration::from_secs(10), || {
        let line = String::from_utf8(whole.reply().0).expect("text");
        line.contains("\"SET\"").then_some(line)
    });
    assert!(real.contains("\"{shop/2}a\""), "{real}");
}

#[test]
fn rights_are_about_the_databases_keys() {
    let cluster = Cluster::three();
    for node in &cluster.nodes {
        node.line("ACL SETUSER clerk on >secret +@all ~{shop}open* &*");
    }
    let (shop, other) = (in_database(&cluster, "shop"), in_database(&cluster, "other"));
    let mut client = shop.client();
    assert_eq!(client.line("ACL DRYRUN clerk GET open1"), "+OK\r\n");
    let said = client.line("ACL DRYRUN clerk MGET open1 closed").string();
    assert!(said.contains("'closed'") || !said.contains("{shop}"), "{said}");
    let (mut clerk, mut stranger) = (shop.client(), other.client());
    for client in [&mut clerk, &mut stranger] {
        assert_eq!(client.line("AUTH clerk secret"), "+OK\r\n");
    }
    assert_eq!(clerk.line("SET open1 x"), "+OK\r\n");
    assert!(clerk.line("GET closed").0.starts_with(b"-NOPERM "));
    assert!(stranger.line("GET anything").0.starts_with(b"-NOPERM "));
    let log = client.line("ACL LOG").value();
    let objects: Vec<&str> = log.items().iter().filter_map(|entry| entry.field("object")?.str()).collect();
    assert_eq!(objects, ["closed"]);
    assert!(client.line("ACL LOG RESET").0.starts_with(b"-ERR proxy: "));
}

#[test]
fn what_looks_at_a_key_finds_it() {
    let cluster = Cluster::three();
    let (shop, oracle) = (in_database(&cluster, "shop"), Node::standalone());
    let (mut ours, mut theirs) = (shop.client(), oracle.client());
    for line in [
        "SET a {shop}b",
        "COMMAND GETKEYS MSET a 1 b 2",
        "COMMAND GETKEYSANDFLAGS SORT a STORE b",
        "OBJECT ENCODING a",
        "DEBUG STRINGMATCH-LEN 10 a",
        "CONFIG SET appendonly no",
        "CONFIG SET",
        "MOVE",
        "FUNCTION LIST",
        "PUBSUB CHANNELS",
        "CLUSTER GETKEYSINSLOT 1 1",
        "LATENCY LATEST",
    ] {
        assert_eq!(ours.line(line), theirs.line(line), "{line}");
    }
    for (line, why) in [
        ("CONFIG SET maxmemory 1", "all databases"),
        ("CONFIG RESETSTAT", "all databases"),
        ("FUNCTION LOAD x", "all databases"),
        ("SCRIPT KILL", "all databases"),
        ("ACL LIST", "other databases"),
        ("SHUTDOWN", "stop a node"),
        ("MOVE a 1", "two slots"),
        ("SWAPDB 0 1", "two slots"),
        ("DEBUG SLEEP 0", "a whole node"),
        ("SLOWLOG RESET", "all databases"),
    ] {
        let said = String::from_utf8_lossy(&ours.line(line).0).into_owned();
        assert!(said.starts_with("-ERR proxy: ") && said.contains(why), "{line}: {said}");
    }
}

/// SCRIPT SHOW, which Valkey has: the text as its client said it.
#[test]
fn a_script_is_shown_as_it_was_said() {
    if !Flavour::Valkey.is_here("databases_seen::a_script_is_shown_as_it_was_said") {
        return;
    }
    let flavour = Flavour::Valkey;
    let cluster = Cluster::start(Shape { flavour, ..Shape::default() });
    let (shop, oracle) = (in_database(&cluster, "shop"), Node::start(&Setup { flavour, ..Setup::default() }));
    let (mut ours, mut theirs) = (shop.client(), oracle.client());
    let mut same = |request: &[&str]| {
        let [ours, theirs] = [&mut ours, &mut theirs].map(|client| client.call(request));
        assert_eq!(ours, theirs, "{request:?}");
        ours.string()
    };
    let digest = same(&["SCRIPT", "LOAD", "return redis.call('GET', KEYS[1])"]);
    same(&["SCRIPT", "SHOW", &digest]);
    for other in ["f".repeat(40), "x".to_owned()] {
        let [ours, theirs] = [&mut ours, &mut theirs].map(|client| client.call(&["SCRIPT", "SHOW", &other]));
        assert_eq!(ours, theirs, "{other}");
    }
}
