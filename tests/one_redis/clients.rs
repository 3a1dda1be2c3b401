//! The clients that people use, with their default settings.

use std::{
    io::Write,
    process::{Command, Output, Stdio},
    time::Duration,
};

use crate::support::{Cluster, Proxy, cluster::shared, eventually};

/// Runs a program to its end, by `timeout` after a minute at the latest.
#[track_caller]
pub fn run(program: &str, args: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new("timeout")
        .args(["60", program])
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}; tests/run installs it"));
    let mut stdin = child.stdin.take().expect("its input");
    std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input));
        child.wait_with_output().expect("its output")
    })
}

pub fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.clone(), output.stderr.clone()].concat()).into_owned()
}

#[track_caller]
fn redis_cli(proxy: &Proxy, args: &[&str], input: &[u8]) -> String {
    let port = proxy.port.to_string();
    let output = run("redis-cli", &[&["-p", &port], args].concat(), input);
    let text = said(&output);
    assert!(output.status.success(), "redis-cli {args:?}: {}\n{text}", output.status);
    text
}

#[test]
fn redis_cli_sets_and_gets() {
    let proxy = Proxy::before(shared());
    assert_eq!(redis_cli(&proxy, &["set", "cli:foo", "bar"], b"").trim(), "OK");
    assert_eq!(redis_cli(&proxy, &["get", "cli:foo"], b"").trim(), "bar");
    assert_eq!(redis_cli(&proxy, &["-3", "get", "cli:foo"], b"").trim(), "bar");
    let session = redis_cli(&proxy, &[], b"set cli:a 1\nincr cli:a\nhgetall cli:none\nselect 0\nget cli:a\n");
    assert_eq!(session.split_whitespace().collect::<Vec<_>>(), ["OK", "2", "OK", "2"]);
}

#[test]
fn redis_cli_pipes_scans_and_looks_for_big_keys() {
    let cluster = Cluster::three();
    let proxy = Proxy::before(&cluster);
    let mut lines = String::new();
    for number in 0..5000 {
        lines.push_str(&format!("SET pipe:{number} value{number}\r\n"));
    }
    let text = redis_cli(&proxy, &["--pipe"], lines.as_bytes());
    assert!(text.contains("errors: 0, replies: 5000"), "{text}");
    let keys = redis_cli(&proxy, &["--scan"], b"");
    assert_eq!(keys.lines().collect::<std::collections::BTreeSet<_>>().len(), 5000);
    let some = redis_cli(&proxy, &["--scan", "--pattern", "pipe:499?"], b"");
    assert_eq!(some.lines().count(), 10);
    redis_cli(&proxy, &["rpush", "biglist", "1", "2", "3", "4"], b"");
    let big = redis_cli(&proxy, &["--bigkeys"], b"");
    assert!(big.contains("Sampled 5001 keys") && big.contains("biglist"), "{big}");
    let memory = redis_cli(&proxy, &["--memkeys"], b"");
    assert!(memory.contains("Sampled 5001 keys"), "{memory}");
}

#[test]
fn redis_cli_shows_statistics_and_latency() {
    let proxy = Proxy::before(shared());
    let port = proxy.port.to_string();
    let stat = run("timeout", &["2", "stdbuf", "-oL", "redis-cli", "-p", &port, "--stat", "-i", "0.3"], b"");
    let stat = said(&stat);
    assert!(stat.contains("keys") && stat.lines().count() >= 3, "{stat}");
    let numbers = stat.lines().nth(2).unwrap_or_default();
    assert!(numbers.split_whitespace().next().is_some_and(|keys| keys.parse::<u64>().is_ok()), "{stat}");
    let latency = run("timeout", &["3", "redis-cli", "-p", &port, "--latency", "--raw", "-i", "1"], b"");
    assert!(!said(&latency).to_lowercase().contains("error"), "{}", said(&latency));
}

#[test]
fn redis_benchmark_runs_its_default_tests() {
    let proxy = Proxy::before(shared());
    let port = proxy.port.to_string();
    let output = run("redis-benchmark", &["-p", &port, "-P", "16", "-n", "2000", "-c", "20", "-q"], b"");
    let text = said(&output).replace('\r', "\n");
    assert!(output.status.success(), "{}\n{text}", output.status);
    assert!(!text.to_lowercase().contains("error"), "{text}");
    for test in ["PING_INLINE", "PING_MBULK", "SET:", "GET:", "INCR:", "LPUSH:", "LRANGE_600", "MSET (10 keys)"] {
        assert!(
            text.lines().any(|line| line.starts_with(test) && line.contains("requests per second")),
            "{test}: {text}"
        );
    }
}

#[test]
fn redis_rs_works_with_default_settings() {
    let proxy = Proxy::before(shared());
    for suffix in ["", "?protocol=resp3"] {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}/{suffix}", proxy.port)).expect("a client");
        let mut connection = client.get_connection_with_timeout(Duration::from_secs(5)).expect("a connection");
        let _: () = redis::cmd("SET").arg("rs:a").arg(1).query(&mut connection).expect("SET");
        let sum: i64 = redis::cmd("INCRBY").arg("rs:a").arg(41).query(&mut connection).expect("INCRBY");
        assert_eq!(sum, 42);
        let (set, got, many): (String, i64, Vec<Option<String>>) = redis::pipe()
            .cmd("SET")
            .arg("rs:b")
            .arg("x")
            .cmd("GET")
            .arg("rs:a")
            .cmd("MGET")
            .arg("rs:a")
            .arg("rs:b")
            .arg("rs:none")
            .query(&mut connection)
            .expect("a pipeline");
        assert_eq!((set.as_str(), got), ("OK", 42));
        assert_eq!(many, [Some("42".into()), Some("x".into()), None]);
        let _: i64 = redis::cmd("DEL").arg("rs:a").arg("rs:b").query(&mut connection).expect("DEL");
    }
}

/// A script of `tests/one_redis/clients/` by an interpreter; all of its connections must be closed after it.
#[track_caller]
pub fn script(program: &str, proxy: &Proxy, name: &str, args: &[&str]) {
    let path = format!("{}/tests/one_redis/clients/{name}", env!("CARGO_MANIFEST_DIR"));
    let port = proxy.port.to_string();
    let output = run(program, &[&[path.as_str(), &port], args].concat(), b"");
    assert!(output.status.success(), "{name} {args:?}: {}", said(&output));
    assert!(said(&output).contains("all well"), "{name} {args:?}: {}", said(&output));
    eventually("its connections to be closed", || proxy.metric("slotway_client_connections", &[]) == 0.0);
}

/// The Python that has the clients, where `modules` can be imported; some need an older redis-py, in another one.
pub fn python(test: &str, modules: &str) -> Option<String> {
    let pythons =
        ["SLOTWAY_TEST_PYTHON", "SLOTWAY_TEST_PYTHON_OLDER"].into_iter().filter_map(|name| std::env::var(name).ok());
    let has_them = |python: &String| run(python, &["-c", &format!("import {modules}")], b"").status.success();
    let python = pythons.into_iter().find(has_them);
    if python.is_none() {
        eprintln!("SKIPPED {test}: no Python with {modules} (tests/run makes one, SLOTWAY_TEST_PYTHON names it)");
    }
    python
}

#[test]
fn redis_py_works_with_default_settings() {
    if let Some(python) = python("redis_py_works_with_default_settings", "redis") {
        script(&python, &Proxy::before(shared()), "plain.py", &[]);
    }
}

#[test]
fn redis_py_does_more_than_single_commands() {
    if let Some(python) = python("redis_py_does_more_than_single_commands", "redis") {
        // It flushes scripts, which others would miss.
        let cluster = Cluster::three();
        script(&python, &Proxy::before(&cluster), "more.py", &[]);
    }
}

#[test]
fn redis_py_works_with_asyncio() {
    if let Some(python) = python("redis_py_works_with_asyncio", "redis.asyncio") {
        script(&python, &Proxy::before(shared()), "aio.py", &[]);
    }
}

#[test]
fn the_cache_of_redis_py_works() {
    if let Some(python) = python("the_cache_of_redis_py_works", "redis") {
        script(&python, &Proxy::before(shared()), "cached.py", &[]);
    }
}

#[test]
fn job_queues_and_caches_run() {
    // What others do to a cluster that they share must not be taken for a queue that stands still.
    let cluster = Cluster::three();
    let proxy = Proxy::before(&cluster);
    for library in ["celery", "bullmq", "huey", "cachelib"] {
        if let Some(python) = python(&format!("job_queues_and_caches_run: {library}"), library) {
            script(&python, &proxy, "apps.py", &[library]);
        }
    }
}

#[test]
fn node_redis_works_with_default_settings() {
    // Where Debian has it; ioredis comes from npm only.
    const MODULES: &str = "/usr/share/nodejs";
    let node = format!("NODE_PATH={MODULES}");
    let is_here = Command::new("env").args([&node, "node", "-e", "require('redis')"]).output();
    if !is_here.is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED node_redis_works_with_default_settings: no node with Debian's node-redis");
        return;
    }
    let proxy = Proxy::before(shared());
    let path = format!("{}/tests/one_redis/clients/plain.js", env!("CARGO_MANIFEST_DIR"));
    let output = run("env", &[&node, "node", &path, &proxy.port.to_string()], b"");
    assert!(output.status.success() && said(&output).contains("all well"), "{}", said(&output));
}
