//! What one long request costs, and whom: twice as long, it should cost twice as much, and another client of the same
//! worker should not have to wait for its end.
//!
//! `cargo bench --bench linear`. It needs `redis-server`; it starts everything on free ports of 127.0.0.1 and ends it. A plain
//! server does the same beside the proxy.

// Shared with the tests, which use more of it.
#[allow(unused_imports)]
#[path = "../tests/support/mod.rs"]
mod support;

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use slotway::protocol::resp::reply::Scanner;
use support::{Client, Cluster, Node, Proxy, Settings, client::frame};

/// How many names, or requests, the shortest has, unless `SLOTWAY_BENCH_NAMES` says otherwise; each next one has twice as
/// many.
const SHORTEST: usize = 20_000;
const STEPS: u32 = 3;

/// What is sent, and how many replies that gets.
type Load = fn(usize) -> (Vec<u8>, usize);

const LOADS: &[(&str, Load)] = &[
    ("SUBSCRIBE", |n| (named("SUBSCRIBE", n), n)),
    ("UNSUBSCRIBE", |n| ([named("SUBSCRIBE", n), frame(&["UNSUBSCRIBE"])].concat(), 2 * n)),
    ("SUBSCRIBE one by one", |n| ((0..n).flat_map(|i| frame(&["SUBSCRIBE", &name(i)])).collect(), n)),
    ("SSUBSCRIBE", |n| (named("SSUBSCRIBE", n), n)),
    ("MGET", |n| (named("MGET", n), 1)),
    // More than a mebibyte of values: its parts pass through as they come.
    ("MGET of 100 bytes", |n| {
        let pairs = (0..n).flat_map(|i| [name(i), "v".repeat(100)]);
        let set = frame(&std::iter::once("MSET".to_owned()).chain(pairs).collect::<Vec<_>>());
        ([set, named("MGET", n)].concat(), 2)
    }),
    ("DEL", |n| (named("DEL", n), 1)),
    ("EXISTS", |n| (named("EXISTS", n), 1)),
    ("MSET", |n| {
        let pairs = (0..n).flat_map(|i| [name(i), "v".to_owned()]);
        (frame(&std::iter::once("MSET".to_owned()).chain(pairs).collect::<Vec<_>>()), 1)
    }),
    ("PUBSUB NUMSUB", |n| {
        (frame(&["PUBSUB".to_owned(), "NUMSUB".to_owned()].into_iter().chain((0..n).map(name)).collect::<Vec<_>>()), 1)
    }),
    ("SCRIPT EXISTS", |n| {
        let shas = (0..n).map(|i| format!("{i:040x}"));
        (frame(&["SCRIPT".to_owned(), "EXISTS".to_owned()].into_iter().chain(shas).collect::<Vec<_>>()), 1)
    }),
    ("MULTI of SET", |n| {
        let set = |_| frame(&["SET", "{t}k", "v"]);
        ([frame(&["MULTI"]), (0..n).flat_map(set).collect(), frame(&["EXEC"])].concat(), n + 2)
    }),
    ("MULTI of CLIENT ID", |n| {
        let id = |_| frame(&["CLIENT", "ID"]);
        ([frame(&["MULTI"]), (0..n).flat_map(id).collect(), frame(&["EXEC"])].concat(), n + 2)
    }),
    ("WATCH", |n| {
        let keys = (0..n).map(|i| format!("{{w}}{i}"));
        (frame(&std::iter::once("WATCH".to_owned()).chain(keys).collect::<Vec<_>>()), 1)
    }),
    ("XREAD", |n| {
        let keys = (0..n).map(|i| format!("{{x}}{i}"));
        let words = ["XREAD".to_owned(), "STREAMS".to_owned()].into_iter().chain(keys);
        (frame(&words.chain((0..n).map(|_| "0".to_owned())).collect::<Vec<_>>()), 1)
    }),
    ("CLIENT LIST ID", |n| {
        let ids = (0..n).map(|i| (1_000_000 + i).to_string());
        (
            frame(
                &["CLIENT".to_owned(), "LIST".to_owned(), "ID".to_owned()].into_iter().chain(ids).collect::<Vec<_>>(),
            ),
            1,
        )
    }),
    ("COMMAND INFO", |n| {
        let names = (0..n).map(|_| "get".to_owned());
        (frame(&["COMMAND".to_owned(), "INFO".to_owned()].into_iter().chain(names).collect::<Vec<_>>()), 1)
    }),
];

fn main() {
    let release = support::proxy::build_release();
    let only: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let cluster = Cluster::three();
    let proxy = Proxy::start(Settings::new(cluster.seeds()).of(release).with("WORKERS", 1).expecting_warnings());
    let redis = Node::standalone();
    let shortest = std::env::var("SLOTWAY_BENCH_NAMES").ok().and_then(|names| names.parse().ok()).unwrap_or(SHORTEST);
    println!(
        "{:<22} {:>8} {:>10} {:>14} {:>10} {:>14}",
        "", "names", "proxy ms", "others wait ms", "plain ms", "others wait ms"
    );
    for (what, load) in LOADS {
        if !only.is_empty() && !only.iter().any(|part| what.contains(part.as_str())) {
            continue;
        }
        for step in 0..STEPS {
            let count = shortest << step;
            let (bytes, replies) = load(count);
            let ours = measure(&proxy.address(), &bytes, replies);
            let theirs = measure(&redis.address(), &bytes, replies);
            let ms = |time: Duration| time.as_secs_f64() * 1e3;
            println!(
                "{what:<22} {count:>8} {:>10.1} {:>14.1} {:>10.1} {:>14.1}",
                ms(ours.0),
                ms(ours.1),
                ms(theirs.0),
                ms(theirs.1)
            );
        }
    }
}

fn name(index: usize) -> String {
    format!("name:{index:012}")
}

fn named(command: &str, count: usize) -> Vec<u8> {
    frame(&std::iter::once(command.to_owned()).chain((0..count).map(name)).collect::<Vec<_>>())
}

/// How long it takes until all replies have come, and the longest that another client waits for its PING meanwhile.
fn measure(address: &str, bytes: &[u8], replies: usize) -> (Duration, Duration) {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let other = scope.spawn(|| {
            let (mut client, mut longest) = (Client::connect(address), Duration::ZERO);
            client.patience = Duration::from_secs(120);
            while !done.load(Relaxed) {
                let start = Instant::now();
                client.line("PING");
                longest = longest.max(start.elapsed());
                thread::sleep(Duration::from_millis(1));
            }
            longest
        });
        let mut stream = TcpStream::connect(address).expect("a connection");
        let mut reader = stream.try_clone().expect("the same");
        thread::sleep(Duration::from_millis(20));
        let start = Instant::now();
        scope.spawn(move || stream.write_all(bytes));
        let (mut scanner, mut received, mut at) = (Scanner::default(), Vec::new(), 0);
        let mut chunk = vec![0; 1 << 16];
        let mut left = replies;
        while left > 0 {
            match scanner.find(&received[at..]).expect("a reply") {
                Some(end) => {
                    let reply = &received[at..at + end];
                    assert!(reply.first() != Some(&b'-'), "{}", reply[..reply.len().min(200)].escape_ascii());
                    (at, left) = (at + end, left - 1);
                }
                None => {
                    received.drain(..std::mem::take(&mut at));
                    let count = reader.read(&mut chunk).expect("bytes");
                    assert!(count > 0, "closed, {left} replies are missing");
                    received.extend_from_slice(&chunk[..count]);
                }
            }
        }
        let took = start.elapsed();
        done.store(true, Relaxed);
        (took, other.join().expect("the other client"))
    })
}
