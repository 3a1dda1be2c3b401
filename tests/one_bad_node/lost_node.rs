//! One bad node costs its own slots only, also of what is about all nodes: every row of the command table with a primary
//! killed, and with one frozen.

use std::{
    collections::BTreeMap,
    process::Command,
    time::{Duration, Instant},
};

use slotway::commands::table::{CommandTable, lost::WhenLost};

use crate::support::{Client, Cluster, Flavour, Proxy, Reply, Settings, Shape, eventually, until};

/// How the node is lost.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    Killed,
    Frozen,
}

const WAYS: [Way; 2] = [Way::Killed, Way::Frozen];
const LOST: usize = 1;
/// What a proxy waits for where it waits for the lost node.
const LONG: Duration = Duration::from_secs(40);

/// Tabs, since words end at spaces.
const LIBRARY: &str =
    "FUNCTION LOAD REPLACE #!lua\tname=lost\nredis.register_function('lost',function()return\t1\tend)";

fn lose(cluster: &mut Cluster, way: Way) {
    match way {
        Way::Killed => cluster.nodes[LOST].kill(),
        Way::Frozen => cluster.nodes[LOST].pause(),
    }
}

fn bring_back(cluster: &mut Cluster, way: Way) {
    match way {
        Way::Killed => cluster.nodes[LOST].restart(),
        Way::Frozen => cluster.nodes[LOST].resume(),
    }
}

fn cluster_of(flavour: Flavour) -> Cluster {
    Cluster::start(Shape { flavour, node_timeout: Duration::from_secs(60), ..Shape::default() })
}

/// A proxy that waits for long, so that what comes sooner has not waited.
fn patient_proxy(cluster: &Cluster) -> Proxy {
    let settings = ["REQUEST_TIMEOUT", "RETRY_TIMEOUT", "NODE_TIMEOUT"]
        .into_iter()
        .fold(Settings::new(cluster.seeds()).expecting_warnings(), |settings, name| settings.with(name, "40s"));
    let proxy = Proxy::start(settings);
    // Both workers have links to all nodes.
    let _ = proxy.open_files_with_links();
    proxy
}

fn at_once(proxy: &Proxy, line: &str, way: Way) -> Reply {
    let mut client = proxy.client().patient(LONG * 2);
    let start = Instant::now();
    let reply = client.line(line);
    assert!(start.elapsed() < LONG / 2, "{way:?}: {line} took {:?}: {reply:?}", start.elapsed());
    reply
}

/// A request of each command that all primaries are asked for.
fn examples() -> BTreeMap<&'static str, &'static str> {
    let lines = [
        ("acl|log", "ACL LOG"),
        ("bgrewriteaof", "BGREWRITEAOF"),
        ("bgsave", "BGSAVE"),
        ("client|tracking", "CLIENT TRACKING ON BCAST"),
        ("cluster|slot-stats", "CLUSTER SLOT-STATS SLOTSRANGE 0 1"),
        ("commandlog|get", "COMMANDLOG GET 1 slow"),
        ("commandlog|len", "COMMANDLOG LEN slow"),
        ("commandlog|reset", "COMMANDLOG RESET slow"),
        ("config|resetstat", "CONFIG RESETSTAT"),
        ("config|set", "CONFIG SET slowlog-max-len 200"),
        ("dbsize", "DBSIZE"),
        ("flushall", "FLUSHALL"),
        ("flushdb", "FLUSHDB"),
        ("function|delete", "FUNCTION DELETE lost"),
        ("function|flush", "FUNCTION FLUSH"),
        ("function|load", LIBRARY),
        ("function|restore", "FUNCTION RESTORE nonsense"),
        ("function|kill", "FUNCTION KILL"),
        ("function|stats", "FUNCTION STATS"),
        ("info", "INFO"),
        ("keys", "KEYS *"),
        ("lastsave", "LASTSAVE"),
        ("latency|doctor", "LATENCY DOCTOR"),
        ("latency|graph", "LATENCY GRAPH command"),
        ("latency|histogram", "LATENCY HISTOGRAM"),
        ("latency|history", "LATENCY HISTORY command"),
        ("latency|latest", "LATENCY LATEST"),
        ("latency|reset", "LATENCY RESET"),
        ("memory|doctor", "MEMORY DOCTOR"),
        ("memory|malloc-stats", "MEMORY MALLOC-STATS"),
        ("memory|purge", "MEMORY PURGE"),
        ("memory|stats", "MEMORY STATS"),
        ("monitor", "MONITOR"),
        ("psubscribe", "PSUBSCRIBE __keyspace@0__:*"),
        ("pubsub|shardchannels", "PUBSUB SHARDCHANNELS"),
        ("pubsub|shardnumsub", "PUBSUB SHARDNUMSUB a"),
        ("randomkey", "RANDOMKEY"),
        ("scan", "SCAN 0 COUNT 1000000"),
        ("script|exists", "SCRIPT EXISTS e0e1f9fabfc9d4800c877a703b823ac0578ff8db"),
        ("script|flush", "SCRIPT FLUSH"),
        ("script|kill", "SCRIPT KILL"),
        ("script|load", "SCRIPT LOAD return'lost'"),
        ("slowlog|get", "SLOWLOG GET 1"),
        ("slowlog|len", "SLOWLOG LEN"),
        ("slowlog|reset", "SLOWLOG RESET"),
        ("subscribe", "SUBSCRIBE __keyspace@0__:a"),
    ];
    lines.into()
}

/// The rows that say what becomes of them while a primary is lost, of commands that this server has.
fn rows(proxy: &Proxy) -> Vec<(&'static str, WhenLost)> {
    let table = CommandTable::learn(&proxy.client().line("COMMAND").value()).expect("a table");
    let concerned = |spec: &&slotway::commands::table::Spec| spec.when_lost.words().is_some() && spec.refused.is_none();
    let examples = examples();
    let example_of = |name: &str| {
        let (name, line) = examples.get_key_value(name).unwrap_or_else(|| panic!("{name} has no example"));
        (*name, *line)
    };
    table.rows().iter().filter(concerned).map(|spec| (example_of(&spec.name).1, spec.when_lost)).collect()
}

#[test]
fn what_all_nodes_are_asked_for_does_without_a_lost_one_where_it_can() {
    for flavour in [Flavour::Redis, Flavour::Valkey] {
        if !flavour.is_here("what_all_nodes_are_asked_for_does_without_a_lost_one_where_it_can") {
            continue;
        }
        for way in WAYS {
            let mut cluster = cluster_of(flavour);
            let proxy = patient_proxy(&cluster);
            for index in [0, 2] {
                proxy.client().call(&["SET", &cluster.key_on(index, "there:"), "v"]);
            }
            let rows = rows(&proxy);
            lose(&mut cluster, way);
            for (line, when_lost) in rows {
                match when_lost {
                    // Where nobody has what was asked for, the lost node may have it: see the other tests.
                    WhenLost::Fails => continue,
                    WhenLost::OthersThatHave if line != "RANDOMKEY" => continue,
                    // As long as a node may be busy with a script.
                    _ if line == "FUNCTION STATS" && way == Way::Frozen => continue,
                    _ => {}
                }
                let reply = if line.contains("TRACKING") {
                    let mut client = proxy.client_of(3).patient(LONG * 2);
                    let start = Instant::now();
                    let reply = client.line(line);
                    assert!(start.elapsed() < LONG / 2, "{way:?}: {line} took {:?}", start.elapsed());
                    reply
                } else {
                    at_once(&proxy, line, way)
                };
                assert!(!reply.is_error(), "{way:?}: {line}: {reply:?}");
            }
            // What no node must know, any other answers.
            for line in ["TIME", "CONFIG GET maxmemory", "COMMAND COUNT", "EVAL return'1' 0", "PING", "ROLE"] {
                for _ in 0..3 {
                    at_once(&proxy, line, way);
                }
            }
            if way == Way::Frozen {
                cluster.nodes[LOST].resume();
            }
        }
    }
}

#[test]
fn what_cannot_do_without_a_lost_node_names_it_as_soon_as_a_key_there_would() {
    for way in WAYS {
        let mut cluster = cluster_of(Flavour::Redis);
        let settings = Settings::new(cluster.seeds()).expecting_warnings();
        let proxy = Proxy::start(settings.with("REQUEST_TIMEOUT", "500ms").with("RETRY_TIMEOUT", "500ms"));
        let _ = proxy.open_files_with_links();
        let (rows, key) = (rows(&proxy), cluster.key_on(LOST, "lost:"));
        let lost = cluster.node(LOST).address();
        assert!(!proxy.client().line(LIBRARY).is_error());
        lose(&mut cluster, way);
        let timed = |line: &str| {
            let mut client = proxy.client().patient(LONG);
            let start = Instant::now();
            let reply = client.line(line);
            (start.elapsed(), String::from_utf8_lossy(&reply.0).into_owned())
        };
        for (line, when_lost) in rows {
            let has_none = when_lost == WhenLost::OthersThatHave && line != "RANDOMKEY";
            // These the others refuse: a node that rewrites its file does not save meanwhile.
            let is_refused = ["BGSAVE", "FUNCTION RESTORE nonsense"].contains(&line);
            if when_lost != WhenLost::Fails && !has_none || is_refused {
                continue;
            }
            let (as_key, _) = timed(&format!("GET {key}"));
            let (took, mut said) = timed(line);
            if line.starts_with("SCAN") {
                // One node after the other: it comes to the lost one sooner or later.
                while !said.starts_with('-') {
                    let cursor = said.split("\r\n").nth(2).expect("a cursor").to_owned();
                    assert_ne!(cursor, "0", "a scan that is over without the lost node");
                    said = timed(&format!("SCAN {cursor} COUNT 1000000")).1;
                }
            }
            assert!(said.starts_with('-') && said.contains(&lost), "{way:?}: {line}: {said}");
            // A node that runs a script answers what ends it only after `busy-reply-threshold`, 5 s: a frozen one is waited
            // for as long, unless it is found silent when it is connected to.
            let more = if line.ends_with(" KILL") && way == Way::Frozen { 11 } else { 3 };
            assert!(took < as_key + Duration::from_secs(more), "{way:?}: {line}: {took:?}, a key {as_key:?}");
        }
        if way == Way::Frozen {
            cluster.nodes[LOST].resume();
        }
    }
}

#[test]
fn a_random_key_of_the_others_comes_and_none_is_not_said_where_the_lost_node_may_have_one() {
    for way in WAYS {
        let mut cluster = cluster_of(Flavour::Redis);
        let settings = Settings::new(cluster.seeds()).expecting_warnings();
        let proxy = Proxy::start(settings.with("REQUEST_TIMEOUT", "1s").with("RETRY_TIMEOUT", "1s"));
        lose(&mut cluster, way);
        let mut client = proxy.client().patient(LONG);
        let said = String::from_utf8_lossy(&client.line("RANDOMKEY").0).into_owned();
        assert!(said.starts_with('-') && said.contains(&cluster.node(LOST).address()), "{way:?}: {said}");
        let key = cluster.key_on(2, "some:");
        client.call(&["SET", &key, "v"]);
        for _ in 0..5 {
            assert_eq!(client.line("RANDOMKEY").string(), key, "{way:?}");
        }
        if way == Way::Frozen {
            cluster.nodes[LOST].resume();
        }
    }
}

#[test]
fn what_a_lost_node_has_missed_is_made_up_for_when_it_is_back() {
    const OLD: &str = "return 'old'";
    const NEW: &str = "return 'new'";
    for flavour in [Flavour::Redis, Flavour::Valkey] {
        if !flavour.is_here("what_a_lost_node_has_missed_is_made_up_for_when_it_is_back") {
            continue;
        }
        for way in WAYS {
            let mut cluster = cluster_of(flavour);
            let proxy = patient_proxy(&cluster);
            let mut client = proxy.client().patient(LONG * 2);
            let old = client.call(&["SCRIPT", "LOAD", OLD]).string();
            let there = cluster.node(LOST);
            assert_eq!(there.line(&format!("SCRIPT EXISTS {old}")), "*1\r\n:1\r\n");
            for line in ["CONFIG SET slowlog-log-slower-than 0", "PING", "CONFIG SET slowlog-log-slower-than -1"] {
                there.line(line);
            }
            assert_ne!(there.line("SLOWLOG LEN").integer(), 0);
            lose(&mut cluster, way);
            assert_eq!(at_once(&proxy, "SCRIPT FLUSH", way), "+OK\r\n", "{way:?}");
            assert_eq!(at_once(&proxy, "SLOWLOG RESET", way), "+OK\r\n", "{way:?}");
            let new = client.call(&["SCRIPT", "LOAD", NEW]).string();
            assert_eq!(client.line(&format!("SCRIPT EXISTS {new} {old}")), "*2\r\n:1\r\n:0\r\n", "{way:?}");
            bring_back(&mut cluster, way);
            let there = cluster.node(LOST);
            eventually("the log there to be reset", || there.line("SLOWLOG LEN").integer() == 0);
            eventually("the old script to be gone there", || {
                there.line(&format!("SCRIPT EXISTS {old}")) == "*1\r\n:0\r\n"
            });
            let key = cluster.key_on(LOST, "lost:");
            let said = until("the node to serve", Duration::from_secs(20), || {
                let reply = client.call(&["EVALSHA", &new, "1", &key]);
                (!reply.is_error() || reply.0.starts_with(b"-NOSCRIPT")).then_some(reply)
            });
            assert_eq!(said.string(), "new", "{way:?}");
        }
    }
}

#[test]
fn subscriptions_to_notifications_monitors_and_tracking_go_on_without_a_lost_node() {
    let mut cluster = cluster_of(Flavour::Redis);
    for node in &cluster.nodes {
        node.line("CONFIG SET notify-keyspace-events KA");
    }
    let proxy = patient_proxy(&cluster);
    lose(&mut cluster, Way::Killed);
    let key = cluster.key_on(2, "heard:");
    let mut subscriber = proxy.client();
    assert!(!subscriber.line("PSUBSCRIBE __keyspace@0__:heard:*").is_error());
    let mut monitor = proxy.client();
    assert_eq!(monitor.line("MONITOR"), "+OK\r\n");
    let mut tracker = proxy.client_of(3);
    assert_eq!(tracker.line("CLIENT TRACKING ON BCAST PREFIX heard:"), "+OK\r\n");
    proxy.client().call(&["SET", &key, "v"]);
    let says = |client: &mut Client| String::from_utf8_lossy(&client.reply().0).into_owned();
    assert!(says(&mut subscriber).contains(&key));
    let shown = until("the command to be shown", Duration::from_secs(10), || {
        Some(says(&mut monitor)).filter(|line| line.contains("\"SET\""))
    });
    assert!(shown.contains(&key));
    assert!(says(&mut tracker).contains(&key));
}

#[test]
fn locks_of_redis_py_on_living_nodes_work_while_another_is_lost() {
    let Ok(python) = std::env::var("SLOTWAY_TEST_PYTHON") else {
        eprintln!("skipped: SLOTWAY_TEST_PYTHON is not set");
        return;
    };
    for way in WAYS {
        let mut cluster = cluster_of(Flavour::Redis);
        let proxy = patient_proxy(&cluster);
        let keys: Vec<String> = [0, 2].map(|index| cluster.key_on(index, "lock:")).into();
        lose(&mut cluster, way);
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/one_redis/clients/locks.py");
        let mut child = Command::new("timeout")
            .args(["30", &python, script, &proxy.port.to_string()])
            .args(&keys)
            .spawn()
            .expect("python");
        assert!(child.wait().expect("its end").success(), "{way:?}");
        if way == Way::Frozen {
            cluster.nodes[LOST].resume();
        }
    }
}
