//! End to end, against three real nodes on this machine: what a request costs the proxy, and how long it takes.
//!
//! `cargo bench --bench proxy`. It needs `redis-server`; it starts everything on free ports of 127.0.0.1 and ends it. Nodes, proxy
//! and load share the machine, so that requests a second say little: CPU time per request is what to compare.

// Shared with the tests, which use more of it.
#[allow(unused_imports)]
#[path = "../tests/support/mod.rs"]
mod support;

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use support::{Client, Cluster, Proxy, client::frame};

/// Connections, pipeline depth, pipelines that each connection sends.
const LOADS: [(usize, usize, usize); 4] = [(1, 1, 10_000), (50, 1, 2_000), (50, 16, 500), (1, 16, 5_000)];
const KEYS: usize = 10_000;

fn main() {
    support::proxy::build_release();
    let cluster = Cluster::three();
    let proxy = Proxy::before(&cluster);
    let mut client = proxy.client();
    for key in 0..KEYS {
        client.call(&["SET", &format!("key:{key:012}"), "xxx"]);
    }
    println!(
        "{:<6} {:>7} {:>8} {:>12} {:>12} {:>10} {:>10}",
        "", "clients", "pipeline", "requests/s", "us CPU/req", "p50 us", "p99 us"
    );
    for name in ["GET", "SET", "MGET"] {
        for (clients, depth, rounds) in LOADS {
            let rounds = if name == "MGET" { rounds / 4 } else { rounds };
            let (cpu, start) = (cpu_time(&proxy), Instant::now());
            let mut waits: Vec<Duration> = thread::scope(|scope| {
                let address = proxy.address();
                let threads: Vec<_> = (0..clients)
                    .map(|number| {
                        let client = Client::connect(&address);
                        scope.spawn(move || load(client, name, number, depth, rounds))
                    })
                    .collect();
                threads.into_iter().flat_map(|thread| thread.join().expect("a client")).collect()
            });
            let (took, cpu) = (start.elapsed(), cpu_time(&proxy).saturating_sub(cpu));
            let requests = (clients * depth * rounds) as f64;
            waits.sort_unstable();
            let at = |part: f64| waits[((waits.len() - 1) as f64 * part) as usize].as_micros();
            println!(
                "{name:<6} {clients:>7} {depth:>8} {:>12.0} {:>12.2} {:>10} {:>10}",
                requests / took.as_secs_f64(),
                cpu.as_micros() as f64 / requests,
                at(0.5),
                at(0.99)
            );
        }
    }
    println!("resident memory: {:.1} MiB", proxy.resident() as f64 / 1048576.0);
}

/// Sends `rounds` pipelines of `depth` requests; how long each took.
fn load(mut client: Client, name: &str, number: usize, depth: usize, rounds: usize) -> Vec<Duration> {
    let mut key = number * 7919;
    let mut next = || {
        key = (key + 104_729) % KEYS;
        format!("key:{key:012}")
    };
    (0..rounds)
        .map(|_| {
            let requests: Vec<u8> = (0..depth)
                .flat_map(|_| match name {
                    "GET" => frame(&["GET", &next()]),
                    "SET" => frame(&["SET", &next(), "xxx"]),
                    _ => frame(&["MGET", &next(), &next(), &next(), &next(), &next()]),
                })
                .collect();
            let start = Instant::now();
            client.send_raw(&requests);
            for _ in 0..depth {
                let reply = client.reply();
                assert!(!reply.is_error(), "{reply:?}");
            }
            start.elapsed()
        })
        .collect()
}

/// The CPU time that the proxy has used, in the kernel and out of it.
fn cpu_time(proxy: &Proxy) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{}/stat", proxy.pid())).expect("its state");
    let fields: Vec<u64> =
        stat.rsplit(") ").next().expect("fields").split(' ').map(|field| field.parse().unwrap_or(0)).collect();
    // Fields 14 and 15 of proc(5), in ticks of 10 ms; the first here is field 3.
    Duration::from_millis((fields[11] + fields[12]) * 10)
}
