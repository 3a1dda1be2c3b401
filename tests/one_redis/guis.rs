//! What graphical clients and redis-cli's tools send when they connect and when their pages open: no command of theirs
//! may fail that one server would answer, and none may lead them to a node.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use slotway::protocol::resp::Value;

use crate::support::{Client, Cluster, Node, Proxy, Reply};

/// What somebody has in a database: one key of each type.
const DATA: &[&str] = &[
    "SET gui:string value EX 1000",
    "RPUSH gui:list a b c",
    "SADD gui:set a b c",
    "ZADD gui:zset 1 a 2 b",
    "HSET gui:hash field value other value",
    "XADD gui:stream 1-1 field value",
    "XGROUP CREATE gui:stream group 0",
    "PFADD gui:hll a b c",
    "GEOADD gui:geo 13.3 38.1 Palermo",
];

/// RedisInsight: adding a database, its overview, the browser, a key of each type, slow log, analysis, profiler.
const REDIS_INSIGHT: &[&str] = &[
    "HELLO 2",
    "CLIENT SETNAME redisinsight-common-1",
    "CLIENT SETINFO lib-name redisinsight",
    "INFO",
    "PING",
    "ACL WHOAMI",
    "CLUSTER INFO",
    "CLUSTER NODES",
    "SENTINEL MASTERS",
    "MODULE LIST",
    "COMMAND INFO ft.search json.get ts.add bf.add",
    "COMMAND",
    "COMMAND DOCS",
    "CONFIG GET databases",
    "INFO keyspace",
    "DBSIZE",
    "CLIENT LIST",
    "CLIENT ID",
    "SELECT 0",
    "SCAN 0 MATCH * COUNT 10000",
    "SCAN 0 MATCH gui:* COUNT 500 TYPE hash",
    "TYPE gui:hash",
    "TTL gui:hash",
    "PTTL gui:string",
    "MEMORY USAGE gui:hash SAMPLES 0",
    "MEMORY USAGE gui:none",
    "STRLEN gui:string",
    "HLEN gui:hash",
    "HSCAN gui:hash 0 MATCH * COUNT 500",
    "LLEN gui:list",
    "LRANGE gui:list 0 499",
    "SCARD gui:set",
    "SSCAN gui:set 0 MATCH * COUNT 500",
    "ZCARD gui:zset",
    "ZRANGE gui:zset 0 499 WITHSCORES",
    "ZREVRANGE gui:zset 0 499 WITHSCORES",
    "XLEN gui:stream",
    "XINFO STREAM gui:stream",
    "XRANGE gui:stream - + COUNT 500",
    "XINFO GROUPS gui:stream",
    "XINFO CONSUMERS gui:stream group",
    "XPENDING gui:stream group",
    "GETRANGE gui:string 0 4999",
    "OBJECT ENCODING gui:string",
    "FT._LIST",
    "SLOWLOG GET 50",
    "SLOWLOG LEN",
    "SLOWLOG RESET",
    "CONFIG GET slowlog*",
    "CONFIG SET slowlog-log-slower-than 10000",
    "CONFIG SET slowlog-max-len 128",
    "CONFIG GET maxmemory",
    "CONFIG GET requirepass",
    "ACL DRYRUN default PUBLISH a b",
    "ACL CAT",
    "ACL LIST",
    "ACL USERS",
    "LATENCY LATEST",
    "MEMORY STATS",
    "MEMORY DOCTOR",
    "INFO commandstats",
    "FUNCTION LIST",
    "FUNCTION STATS",
    "PUBSUB CHANNELS",
    "PUBSUB NUMPAT",
    "ROLE",
    "TIME",
    "LASTSAVE",
    "CLIENT INFO",
];

/// Another Redis Desktop Manager, over ioredis.
const ANOTHER_DESKTOP_MANAGER: &[&str] = &[
    "INFO",
    "SELECT 0",
    "CONFIG GET databases",
    "INFO keyspace",
    "DBSIZE",
    "SCAN 0 MATCH * COUNT 500",
    "EXISTS gui:string",
    "TYPE gui:string",
    "TTL gui:list",
    "GET gui:string",
    "LLEN gui:list",
    "LRANGE gui:list 0 199",
    "HSCAN gui:hash 0 MATCH * COUNT 200",
    "SSCAN gui:set 0 MATCH * COUNT 200",
    "ZREVRANGE gui:zset 0 199 WITHSCORES",
    "XREVRANGE gui:stream + - COUNT 200",
    "MEMORY USAGE gui:string",
    "OBJECT FREQ gui:string",
    "CONFIG GET maxmemory-policy",
    "SLOWLOG GET 200",
    "CONFIG GET slowlog-log-slower-than",
    "CONFIG GET slowlog-max-len",
    "CLUSTER NODES",
];

/// Redis Commander, over ioredis.
const REDIS_COMMANDER: &[&str] = &[
    "INFO",
    "PING",
    "CLIENT SETNAME redis-commander",
    "SELECT 0",
    "COMMAND",
    "INFO server",
    "CONFIG GET databases",
    "DBSIZE",
    "SCAN 0 MATCH * COUNT 100",
    "KEYS gui:*",
    "TYPE gui:zset",
    "TTL gui:zset",
    "OBJECT ENCODING gui:zset",
    "ZCARD gui:zset",
    "ZREVRANGE gui:zset 0 19 WITHSCORES",
    "SMEMBERS gui:set",
    "HGETALL gui:hash",
    "XLEN gui:stream",
    "XRANGE gui:stream - + COUNT 20",
    "GET gui:string",
    "CLIENT LIST",
    "CONFIG GET *",
];

/// StackExchange.Redis, which GUIs and services on .NET connect with: it finds out what kind of server it meets.
const STACK_EXCHANGE: &[&str] = &[
    "CLIENT SETNAME app(SE.Redis-v2.8)",
    "CLIENT SETINFO lib-name SE.Redis",
    "CLIENT SETINFO lib-ver 2.8.0",
    "CLIENT ID",
    "CONFIG GET slave-read-only",
    "CONFIG GET replica-read-only",
    "CONFIG GET timeout",
    "CONFIG GET databases",
    "INFO replication",
    "INFO server",
    "CLUSTER NODES",
    "SENTINEL MASTERS",
    "GET __Booksleeve_TieBreak",
    "ECHO probe",
    "SUBSCRIBE __Booksleeve_MasterChanged",
];

#[test]
fn graphical_clients_start_up() {
    // PUBSUB and DBSIZE count what everybody has: a cluster of its own.
    let cluster = Cluster::three();
    let (proxy, plain) = (Proxy::before(&cluster), Node::standalone());
    let ports: Vec<String> = cluster.nodes.iter().map(|node| node.port.to_string()).collect();
    for line in DATA {
        assert_eq!(proxy.client().line(line).is_error(), plain.client().line(line).is_error(), "{line}");
    }
    for (gui, lines) in [
        ("RedisInsight", REDIS_INSIGHT),
        ("Another Redis Desktop Manager", ANOTHER_DESKTOP_MANAGER),
        ("Redis Commander", REDIS_COMMANDER),
        ("StackExchange.Redis", STACK_EXCHANGE),
    ] {
        let (mut ours, mut theirs): (Client, Client) = (proxy.client(), plain.client());
        for line in lines {
            let (ours, theirs) = (ours.line(line), theirs.line(line));
            assert_eq!(kind(&ours), kind(&theirs), "{gui}, {line}\n   the proxy: {ours:?}\n  one server: {theirs:?}");
            let told = String::from_utf8_lossy(&ours.0).into_owned();
            let names_a_node = ports.iter().any(|port| told.contains(&format!(":{port}")));
            assert!(!names_a_node, "{gui}, {line}: it names a node: {told}");
        }
    }
}

/// An error's text, or the type of a reply and of its first element: what code that reads it relies on.
fn kind(reply: &Reply) -> String {
    let first = |value: &Value| match value {
        Value::Null => "null",
        Value::Integer(_) => "integer",
        Value::Text(_) => "text",
        Value::Error(_) => "error",
        Value::Array(_) => "array",
    };
    match reply.value() {
        Value::Error(text) => String::from_utf8_lossy(&text).into_owned(),
        // What has been logged, and which clients are there, is not the same on both sides.
        Value::Array(items) => {
            format!("array of {}", items.first().map_or("any", first)).replace("array of array", "array of any")
        }
        other => first(&other).to_owned(),
    }
}

/// Runs redis-cli at the proxy: what it printed.
#[track_caller]
fn redis_cli(proxy: &Proxy, args: &[&str]) -> String {
    let port = proxy.port.to_string();
    let output = Command::new("redis-cli").args(["-p", &port]).args(args).stdin(Stdio::null()).output();
    let output = output.expect("redis-cli");
    let printed = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "redis-cli {args:?}: {printed}");
    printed
}

/// `redis-cli --stat` goes on for ever.
fn first_lines_of_stat(proxy: &Proxy) -> Vec<String> {
    let port = proxy.port.to_string();
    let mut child = Command::new("redis-cli")
        .args(["-p", &port, "--stat", "-i", "0.05"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("redis-cli");
    let lines = BufReader::new(child.stdout.take().expect("its output")).lines();
    let lines = lines.take(3).map(|line| line.expect("a line")).collect();
    let _ = child.kill();
    let _ = child.wait();
    lines
}

#[test]
fn the_tools_of_redis_cli_work() {
    let cluster = Cluster::three();
    let proxy = Proxy::before(&cluster);
    let mut client = proxy.client();
    for number in 0..50 {
        client.line(&format!("SET tool:{number} {}", "x".repeat(number + 1)));
    }
    client.line("RPUSH tool:list a b c d");
    client.line("HSET tool:hash a b c d");
    let big = redis_cli(&proxy, &["--bigkeys"]);
    assert!(big.contains("Sampled 52 keys in the keyspace!"), "{big}");
    assert!(big.contains("Biggest string found") && big.contains("has 50 bytes"), "{big}");
    assert!(big.contains("Biggest   list found") && big.contains("has 4 items"), "{big}");
    let memory = redis_cli(&proxy, &["--memkeys"]);
    assert!(memory.contains("Sampled 52 keys in the keyspace!"), "{memory}");
    assert_eq!(client.line("CONFIG SET maxmemory-policy allkeys-lfu"), "+OK\r\n");
    (0..200).for_each(|_| drop(client.line("GET tool:7")));
    let hot = redis_cli(&proxy, &["--hotkeys"]);
    assert!(hot.contains("Sampled 52 keys in the keyspace!") && hot.contains("tool:7"), "{hot}");
    let stat = first_lines_of_stat(&proxy);
    assert!(stat[0].contains("data") && stat[2].starts_with("52 "), "{stat:?}");
    let scanned = redis_cli(&proxy, &["--scan", "--pattern", "tool:*"]);
    assert_eq!(scanned.lines().count(), 52);
    assert_eq!(redis_cli(&proxy, &["-3", "GET", "tool:0"]).trim(), "x");
    assert_eq!(redis_cli(&proxy, &["-c", "GET", "tool:0"]).trim(), "x");
    let info = redis_cli(&proxy, &["INFO", "keyspace"]);
    assert!(info.contains("db0:keys=52,"), "{info}");
}
