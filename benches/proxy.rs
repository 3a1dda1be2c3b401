//! End to end, against three real nodes on this machine: what a request costs the proxy, and how long it takes.
//!
//! `cargo bench --bench proxy`; with `-- strict` what `strict_order` costs, with `-- unix` what a unix socket saves, as
//! ratios. It needs `redis-server` and `redis-benchmark`; it starts everything on free ports of 127.0.0.1 and ends it. Nodes,
//! proxy and load share the machine, so that requests a second say little: CPU time per request is what to compare.

// Shared with the tests, which use more of it.
#[allow(unused_imports)]
#[path = "../tests/support/mod.rs"]
mod support;

use std::{
    fs,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use support::{Client, Cluster, Proxy, Settings, client::frame};

/// Connections, pipeline depth, pipelines that each connection sends.
const LOADS: [(usize, usize, usize); 4] = [(1, 1, 10_000), (50, 1, 2_000), (50, 16, 500), (1, 16, 5_000)];
const KEYS: usize = 10_000;
/// How often two proxies take turns where they are compared.
const ROUNDS: usize = 5;

fn main() {
    let release = support::proxy::build_release();
    let cluster = Cluster::three();
    let settings = || Settings::new(cluster.seeds()).of(release.clone());
    let usual = Proxy::start(settings());
    let mut client = usual.client();
    for key in 0..KEYS {
        client.call(&["SET", &format!("key:{key:012}"), "xxx"]);
    }
    if std::env::args().any(|arg| arg == "strict") {
        return compare(&usual, &Proxy::start(settings().with("STRICT_ORDER", true)));
    }
    if std::env::args().any(|arg| arg == "unix") {
        return compare_sockets(settings());
    }
    println!(
        "{:<6} {:>7} {:>8} {:>12} {:>12} {:>10} {:>10}",
        "", "clients", "pipeline", "requests/s", "us CPU/req", "p50 us", "p99 us"
    );
    for name in ["GET", "SET", "MGET"] {
        for (clients, depth, rounds) in LOADS {
            let rounds = if name == "MGET" { rounds / 4 } else { rounds };
            let Figures { rate, cpu, waits } = measure(&usual, name, clients, depth, rounds);
            let at = |part: f64| waits[((waits.len() - 1) as f64 * part) as usize].as_micros();
            println!("{name:<6} {clients:>7} {depth:>8} {rate:>12.0} {cpu:>12.2} {:>10} {:>10}", at(0.5), at(0.99));
        }
    }
    println!("resident memory: {:.1} MiB", usual.resident() as f64 / 1048576.0);
}

/// What `strict_order` costs: the median of the ratios of rounds that take turns.
fn compare(usual: &Proxy, strict: &Proxy) {
    println!("{:<6} {:>7} {:>8} {:>20} {:>20}", "", "clients", "pipeline", "requests/s, strict", "CPU/req, strict");
    for name in ["GET", "SET"] {
        for (clients, depth, rounds) in LOADS {
            let mut ratios: [Vec<f64>; 2] = Default::default();
            for _ in 0..ROUNDS {
                let [plain, strict] = [usual, strict].map(|proxy| measure(proxy, name, clients, depth, rounds));
                ratios[0].push(strict.rate / plain.rate);
                ratios[1].push(strict.cpu / plain.cpu);
            }
            let [rate, cpu] = ratios.map(median);
            println!("{name:<6} {clients:>7} {depth:>8} {rate:>20.2} {cpu:>20.2}");
        }
    }
}

/// What clients save by a unix socket: the median of the ratios of rounds that take turns. The load is redis-benchmark's.
fn compare_sockets(settings: Settings) {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("slotway.sock");
    let flags = ["--listen".to_owned(), format!("unix://{}", socket.display())];
    let proxy = Proxy::start(Settings { flags: flags.into(), ..settings.with("WORKERS", 1) });
    let ways = [["-p".to_owned(), proxy.port.to_string()], ["-s".to_owned(), socket.display().to_string()]];
    println!("{:<6} {:>7} {:>8} {:>20} {:>20}", "", "clients", "pipeline", "requests/s, unix", "CPU/req, unix");
    for name in ["get", "set"] {
        for (clients, depth, count) in [(1, 1, 20_000), (50, 1, 100_000), (50, 16, 800_000)] {
            let mut ratios: [Vec<f64>; 2] = Default::default();
            for _ in 0..ROUNDS {
                let [tcp, unix] = [&ways[0], &ways[1]].map(|way| {
                    let (cpu, start) = (cpu_time(&proxy), Instant::now());
                    let load = ["-t", name, "-r", "10000", "-q", "-d", "64"].map(str::to_owned);
                    let size = [
                        "-c".into(),
                        clients.to_string(),
                        "-P".into(),
                        depth.to_string(),
                        "-n".into(),
                        count.to_string(),
                    ];
                    let done = Command::new("redis-benchmark").args(way).args(load).args(size).output();
                    assert!(done.expect("redis-benchmark").status.success(), "redis-benchmark");
                    (start.elapsed().as_secs_f64(), cpu_time(&proxy).saturating_sub(cpu).as_secs_f64())
                });
                ratios[0].push(tcp.0 / unix.0);
                ratios[1].push(unix.1 / tcp.1);
            }
            let [rate, cpu] = ratios.map(median);
            println!("{name:<6} {clients:>7} {depth:>8} {rate:>20.2} {cpu:>20.2}");
        }
    }
}

fn median(mut ratios: Vec<f64>) -> f64 {
    ratios.sort_by(f64::total_cmp);
    ratios[ratios.len() / 2]
}

/// How one load went.
struct Figures {
    /// Requests per second.
    rate: f64,
    /// Microseconds of CPU time per request.
    cpu: f64,
    /// How long each pipeline took, the shortest first.
    waits: Vec<Duration>,
}

/// Puts one load on a proxy.
fn measure(proxy: &Proxy, name: &str, clients: usize, depth: usize, rounds: usize) -> Figures {
    let (cpu, start) = (cpu_time(proxy), Instant::now());
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
    let (took, cpu) = (start.elapsed(), cpu_time(proxy).saturating_sub(cpu));
    let requests = (clients * depth * rounds) as f64;
    waits.sort_unstable();
    Figures { rate: requests / took.as_secs_f64(), cpu: cpu.as_micros() as f64 / requests, waits }
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
