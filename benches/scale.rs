//! How the cost of a request grows: with nodes, clients, workers, the size of values, the depth of pipelines, the keys of an
//! MGET; and what others feel of one hot key or node. Markdown tables, and a plot of them as SVG.
//!
//! `cargo bench --bench scale`, or some of it: `cargo bench --bench scale -- clients pipeline`. `SLOTWAY_BENCH_SECONDS` is how
//! long each point takes (2), `SLOTWAY_BENCH_PLOT` where the plot goes (`scale.svg` in cargo's target folder). It needs
//! `redis-server`, starts everything on free ports of 127.0.0.1 and ends it. Nodes, proxy and load share the machine: CPU time
//! per request is what to compare, and only within one run.

// Shared with the tests, which use more of it.
#[allow(unused_imports)]
#[path = "../tests/support/mod.rs"]
mod support;

#[path = "scale/plot.rs"]
mod plot;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use plot::Panel;
use support::{Client, Cluster, Proxy, Settings, Shape, client::frame};

const KEYS: usize = 10_000;
/// Threads of the load; each has its share of the connections, and sends on all of them before it reads.
const THREADS: usize = 4;
/// Bytes of replies that a round of one connection asks for at most: the load's own memory is bounded.
const MOST_IN_FLIGHT: usize = 64 * 1024 * 1024;

/// What is asked for.
#[derive(Clone, Copy)]
struct Load {
    clients: usize,
    depth: usize,
    /// Keys of one request: GET with one, MGET with more.
    keys: usize,
    /// Bytes of a value; keys of each size are their own.
    size: usize,
}

const USUAL: Load = Load { clients: 50, depth: 1, keys: 1, size: 64 };

/// How it went.
struct Figures {
    /// Microseconds of CPU time per request.
    cpu: f64,
    /// Requests per second.
    rate: f64,
    /// How long each round of a connection took, the shortest first.
    waits: Vec<Duration>,
}

/// One thing that grows.
struct Scale {
    name: &'static str,
    steps: &'static [usize],
    run: fn(&Bench, usize) -> (Figures, String),
}

const SCALES: &[Scale] = &[
    Scale { name: "nodes", steps: &[3, 10, 30, 100], run: nodes },
    Scale { name: "clients", steps: &[1, 10, 100, 1_000, 10_000], run: clients },
    Scale { name: "workers", steps: &[1, 2], run: workers },
    Scale {
        name: "value",
        steps: &[1, 64, 1024, 16 * 1024, 256 * 1024, 4 * 1024 * 1024, 50 * 1024 * 1024],
        run: |bench, size| {
            let load = Load { clients: if size > 1024 * 1024 { 1 } else { 50 }, size, ..USUAL };
            let figures = bench.measure(&bench.usual, load);
            let per_mib = figures.cpu / (size as f64 / 1048576.0);
            let per_mib = if size < 16 * 1024 { String::new() } else { format!("{per_mib:.0} µs/MiB, ") };
            (figures, format!("{per_mib}{:.1} MiB resident", mib(&bench.usual)))
        },
    },
    Scale {
        name: "pipeline",
        steps: &[1, 4, 16, 64, 250, 1_000],
        run: |bench, depth| (bench.measure(&bench.usual, Load { depth, clients: 10, ..USUAL }), String::new()),
    },
    Scale {
        name: "keys",
        steps: &[1, 3, 10, 30, 100, 300, 1_000],
        run: |bench, keys| {
            let figures = bench.measure(&bench.usual, Load { keys, clients: 10, ..USUAL });
            let per_key = figures.cpu / keys as f64;
            (figures, format!("{per_key:.2} µs/key"))
        },
    },
];

struct Bench {
    release: PathBuf,
    // Before the cluster: it ends first.
    usual: Proxy,
    cluster: Cluster,
}

fn main() {
    // Each client takes a file here and one in the proxy, which inherits the limit.
    let files = rlimit::increase_nofile_limit(25_000).unwrap_or(1024);
    let release = support::proxy::build_release();
    let cluster = Cluster::three();
    let usual = Proxy::start(Settings::new(cluster.seeds()).of(release.clone()).with("WORKERS", 1));
    let bench = Bench { release, cluster, usual };
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|word| word == name);
    let mut panels = Vec::new();
    for scale in SCALES.iter().filter(|scale| is_wanted(scale.name)) {
        println!("\n| {} | µs CPU/request | requests/s | p50 | p99 | |\n|---:|---:|---:|---:|---:|---|", scale.name);
        let mut points = Vec::new();
        for &step in scale.steps {
            if scale.name == "clients" && step as u64 + 500 > files {
                println!("| {step} | | | | | no more than {files} open files |");
                continue;
            }
            let (figures, note) = (scale.run)(&bench, step);
            let [p50, p99] = [0.5, 0.99].map(|part| figures.at(part));
            println!("| {step} | {:.2} | {:.0} | {p50:.0?} | {p99:.0?} | {note} |", figures.cpu, figures.rate);
            points.push((step as f64, figures.cpu));
        }
        panels.push(Panel { name: scale.name, points });
    }
    if is_wanted("hot") {
        hot(&bench);
    }
    if !panels.is_empty() {
        let path = std::env::var_os("SLOTWAY_BENCH_PLOT").map_or_else(plot_by_default, PathBuf::from);
        fs::write(&path, plot::svg("µs of CPU time per request", &panels)).expect("the plot");
        println!("\nThe plot: {}", path.display());
    }
}

fn plot_by_default() -> PathBuf {
    let target = Path::new(env!("CARGO_BIN_EXE_slotway")).ancestors().nth(2).expect("cargo's folder");
    target.join("scale.svg")
}

/// How long each point takes.
fn patience() -> Duration {
    let seconds = std::env::var("SLOTWAY_BENCH_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs_f64(seconds.unwrap_or(2.0))
}

fn nodes(bench: &Bench, count: usize) -> (Figures, String) {
    let cluster = Cluster::start(Shape { primaries: count, ..Shape::default() });
    let proxy = Proxy::start(Settings::new(cluster.seeds()).of(bench.release.clone()).with("WORKERS", 1));
    let figures = bench.measure(&proxy, USUAL);
    let memory = mib(&proxy);
    (figures, format!("{memory:.1} MiB resident"))
}

fn workers(bench: &Bench, count: usize) -> (Figures, String) {
    let proxy = Proxy::start(Settings::new(bench.cluster.seeds()).of(bench.release.clone()).with("WORKERS", count));
    (bench.measure(&proxy, USUAL), String::new())
}

fn clients(bench: &Bench, count: usize) -> (Figures, String) {
    let proxy = Proxy::start(
        Settings::new(bench.cluster.seeds())
            .of(bench.release.clone())
            .with("WORKERS", 1)
            .with("MAX_CLIENTS", 11_000)
            .expecting_warnings(),
    );
    let before = proxy.resident();
    let mut connections = connect(&proxy, count);
    let figures = bench.measure_on(&proxy, &mut connections, Load { clients: count, ..USUAL });
    let each = proxy.resident().saturating_sub(before) as f64 / 1024.0 / count as f64;
    (figures, format!("{:.1} MiB resident, {each:.1} KiB a client", mib(&proxy)))
}

fn mib(proxy: &Proxy) -> f64 {
    proxy.resident() as f64 / 1048576.0
}

fn connect(proxy: &Proxy, count: usize) -> Vec<Client> {
    (0..count).map(|_| proxy.client().patient(Duration::from_secs(60))).collect()
}

impl Bench {
    fn measure(&self, proxy: &Proxy, load: Load) -> Figures {
        self.measure_on(proxy, &mut connect(proxy, load.clients), load)
    }

    fn measure_on(&self, proxy: &Proxy, clients: &mut [Client], load: Load) -> Figures {
        let keys = (MOST_IN_FLIGHT / load.size).clamp(1, KEYS);
        let mut first = proxy.client().patient(Duration::from_secs(60));
        for key in 0..keys {
            first.call(&["SET", &name(load.size, key), &"x".repeat(load.size)]);
        }
        drive(clients, load, keys, Duration::from_millis(200), &AtomicBool::new(true));
        let (cpu, start) = (cpu_time(proxy), Instant::now());
        let mut waits = drive(clients, load, keys, patience(), &AtomicBool::new(true));
        let (took, cpu) = (start.elapsed(), cpu_time(proxy).saturating_sub(cpu));
        waits.sort_unstable();
        let requests = (waits.len() * load.depth) as f64;
        Figures { cpu: cpu.as_secs_f64() * 1e6 / requests, rate: requests / took.as_secs_f64(), waits }
    }
}

impl Figures {
    fn at(&self, part: f64) -> Duration {
        self.waits[((self.waits.len() - 1) as f64 * part) as usize]
    }
}

fn name(size: usize, key: usize) -> String {
    format!("v{size}:{key:08}")
}

/// Sends rounds on all connections while `goes_on`, for so long; how long each took.
fn drive(clients: &mut [Client], load: Load, keys: usize, long: Duration, goes_on: &AtomicBool) -> Vec<Duration> {
    let share = clients.len().div_ceil(THREADS);
    thread::scope(|scope| {
        let threads: Vec<_> = clients
            .chunks_mut(share)
            .enumerate()
            .map(|(number, clients)| scope.spawn(move || rounds(clients, load, keys, number, long, goes_on)))
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("a thread of the load")).collect()
    })
}

fn rounds(
    clients: &mut [Client],
    load: Load,
    keys: usize,
    number: usize,
    long: Duration,
    goes_on: &AtomicBool,
) -> Vec<Duration> {
    let (mut key, mut waits, end) = (number * 7919, Vec::new(), Instant::now() + long);
    let mut next = || {
        key = (key + 104_729) % keys;
        name(load.size, key)
    };
    while goes_on.load(Relaxed) && Instant::now() < end {
        let start = Instant::now();
        for client in &mut *clients {
            let request = |_| match load.keys {
                1 => frame(&["GET".to_owned(), next()]),
                keys => frame(&std::iter::once("MGET".to_owned()).chain((0..keys).map(|_| next())).collect::<Vec<_>>()),
            };
            client.send_raw(&(0..load.depth).flat_map(request).collect::<Vec<u8>>());
        }
        for client in &mut *clients {
            for _ in 0..load.depth {
                let reply = client.reply();
                assert!(!reply.is_error(), "{reply:?}");
            }
            waits.push(start.elapsed());
        }
    }
    waits
}

/// What ten clients of the first node feel while fifty others press one key, or all keys, of the last one.
fn hot(bench: &Bench) {
    println!("\n| others, beside | p50 | p99 |\n|---|---:|---:|");
    let at_node = |node: usize| {
        (0..).map(|key| format!("h{key}")).filter(move |key| bench.cluster.home_of(key) == node).take(100)
    };
    let (cold, pressed): (Vec<String>, Vec<String>) = (at_node(0).collect(), at_node(2).collect());
    let mut others = connect(&bench.usual, 10);
    let mut pressing = connect(&bench.usual, 50);
    for (beside, keys) in [("nobody", 0), ("one hot key", 1), ("one hot node", pressed.len())] {
        let goes_on = AtomicBool::new(true);
        let mut waits = thread::scope(|scope| {
            if keys > 0 {
                let (pressing, pressed, goes_on) = (&mut pressing, &pressed[..keys], &goes_on);
                scope.spawn(move || {
                    while goes_on.load(Relaxed) {
                        let requests = |at: usize| frame(&["GET", &pressed[at % pressed.len()]]);
                        pressing
                            .iter_mut()
                            .for_each(|client| client.send_raw(&(0..16).flat_map(requests).collect::<Vec<u8>>()));
                        pressing.iter_mut().for_each(|client| (0..16).for_each(|_| drop(client.reply())));
                    }
                });
            }
            let (mut waits, end) = (Vec::new(), Instant::now() + patience());
            for key in cold.iter().cycle() {
                for client in &mut others {
                    let start = Instant::now();
                    client.call(&["GET", key]);
                    waits.push(start.elapsed());
                }
                if Instant::now() > end {
                    break;
                }
            }
            goes_on.store(false, Relaxed);
            waits
        });
        waits.sort_unstable();
        let at = |part: f64| waits[((waits.len() - 1) as f64 * part) as usize];
        println!("| {beside} | {:.0?} | {:.0?} |", at(0.5), at(0.99));
    }
}

/// The CPU time that the proxy's threads have used, in nanoseconds by the kernel's scheduler.
fn cpu_time(proxy: &Proxy) -> Duration {
    let tasks = fs::read_dir(format!("/proc/{}/task", proxy.pid())).expect("its threads");
    let of = |task: fs::DirEntry| fs::read_to_string(task.path().join("schedstat")).ok();
    let times = tasks.flatten().filter_map(of).filter_map(|text| text.split(' ').next()?.parse::<u64>().ok());
    Duration::from_nanos(times.sum())
}
