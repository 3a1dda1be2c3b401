//! What TLS to clients costs the proxy: handshakes, requests beside plain ones, idle clients.
//!
//! `cargo bench --bench tls`. It needs `redis-server`. Nodes, proxy and load share the machine: CPU time is what to compare, and
//! requests by TLS and without take turns. Certificates are of ECDSA P-256.

// Shared with the tests, which use more of it.
#[allow(unused_imports)]
#[path = "../tests/support/mod.rs"]
mod support;

use std::{fs, sync::Arc, thread, time::Duration};

use rustls::{ClientConfig, client::Resumption};
use support::{Authority, Client, Cluster, Proxy, Settings, client::frame, eventually, ports::free_port};

/// Handshakes of each kind.
const HANDSHAKES: usize = 4_000;
/// Connections, pipeline depth, pipelines that each connection sends.
const LOADS: [(usize, usize, usize); 2] = [(50, 1, 2_000), (50, 16, 400)];
/// How often plain and TLS take turns.
const ROUNDS: usize = 5;
/// Clients that do nothing.
const IDLE: usize = 1_000;

fn main() {
    let release = support::proxy::build_release();
    let (cluster, authority, port) = (Cluster::three(), Authority::new("bench"), free_port());
    let own = authority.issue("proxy", &["localhost"]);
    let start = || {
        let mut settings = Settings::new(cluster.seeds())
            .of(release.clone())
            .with("WORKERS", 1)
            .with("TLS_CERT_FILE", own.certificate.display())
            .with("TLS_KEY_FILE", own.key.display());
        settings.flags = vec!["--listen".to_owned(), format!("rediss://127.0.0.1:{port}")];
        Proxy::start(settings)
    };
    let address = format!("127.0.0.1:{port}");
    let resuming = authority.trusting(None);
    let mut full = ClientConfig::clone(&resuming);
    full.resumption = Resumption::disabled();
    let full = Arc::new(full);
    let secured = |config: &Arc<ClientConfig>| {
        Client::try_connect_tls(&address, "localhost", config.clone()).expect("a client by TLS")
    };

    let proxy = start();
    for (name, config) in [("full", &full), ("resumed", &resuming)] {
        secured(config).line("PING");
        let before = cpu_time(&proxy);
        for _ in 0..HANDSHAKES {
            // The reply brings the ticket along.
            secured(config).line("PING");
        }
        let each = (cpu_time(&proxy) - before).as_micros() as f64 / HANDSHAKES as f64;
        println!("handshake, {name:<8} {each:>8.1} us CPU with connection and PING: {:>6.0}/s of a core", 1e6 / each);
    }

    proxy.client().call(&["SET", "tls:key", &"x".repeat(64)]);
    println!("{:<10} {:>8} {:>16} {:>16} {:>8}", "GET", "pipeline", "us CPU, plain", "us CPU, TLS", "ratio");
    for (clients, depth, rounds) in LOADS {
        let mut found: Vec<[f64; 2]> = (0..ROUNDS)
            .map(|_| {
                let plain = measure(&proxy, (0..clients).map(|_| proxy.client()).collect(), depth, rounds);
                let tls = measure(&proxy, (0..clients).map(|_| secured(&full)).collect(), depth, rounds);
                [plain, tls]
            })
            .collect();
        found.sort_by(|a, b| (a[1] / a[0]).total_cmp(&(b[1] / b[0])));
        let [plain, tls] = found[ROUNDS / 2];
        println!("{clients:<10} {depth:>8} {plain:>16.2} {tls:>16.2} {:>8.2}", tls / plain);
    }
    drop(proxy);

    for (name, by_tls) in [("plain", false), ("TLS", true)] {
        let proxy = start();
        let before = proxy.resident();
        let clients: Vec<Client> = (0..IDLE)
            .map(|_| {
                let mut client = if by_tls { secured(&full) } else { proxy.client() };
                client.line("PING");
                client
            })
            .collect();
        let each = proxy.resident().saturating_sub(before) as f64 / 1024.0 / IDLE as f64;
        println!("idle client, {name:<6} {each:>8.1} KiB");
        drop(clients);
        eventually("all to be closed", || proxy.metric("slotway_client_connections", &[]) == 0.0);
    }
}

/// Microseconds of the proxy's CPU time per GET.
fn measure(proxy: &Proxy, clients: Vec<Client>, depth: usize, rounds: usize) -> f64 {
    let requests = (clients.len() * depth * rounds) as f64;
    let pipeline = frame(&["GET", "tls:key"]).repeat(depth);
    let before = cpu_time(proxy);
    thread::scope(|scope| {
        for mut client in clients {
            let pipeline = &pipeline;
            scope.spawn(move || {
                for _ in 0..rounds {
                    client.send_raw(pipeline);
                    (0..depth).for_each(|_| assert!(!client.reply().is_error()));
                }
            });
        }
    });
    (cpu_time(proxy) - before).as_micros() as f64 / requests
}

/// The CPU time that the proxy has used, in the kernel and out of it.
fn cpu_time(proxy: &Proxy) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{}/stat", proxy.pid())).expect("its state");
    let fields: Vec<u64> =
        stat.rsplit(") ").next().expect("fields").split(' ').map(|field| field.parse().unwrap_or(0)).collect();
    // Fields 14 and 15 of proc(5), in ticks of 10 ms; the first here is field 3.
    Duration::from_millis((fields[11] + fields[12]) * 10)
}
