//! What clients cost that do nothing: connected, blocked, subscribed, and with client-side caching.
//!
//! `cargo bench --bench idle`, or with a number of clients: `cargo bench --bench idle -- 200`. It needs `redis-server`; each
//! kind meets a proxy of its own. A blocked or subscribed client has one node connection beside its own, a tracking one as
//! many as there are primaries.

// Shared with the tests, which use more of it.
#[allow(unused_imports)]
#[path = "../tests/support/mod.rs"]
mod support;

use std::{fs, thread, time::Duration};

use support::{Client, Cluster, Proxy, Settings, eventually, words};

/// How long the clients are left alone while CPU time is measured.
const QUIET: Duration = Duration::from_secs(10);

fn main() {
    let release = support::proxy::build_release();
    let count = std::env::args().find_map(|arg| arg.parse().ok()).unwrap_or(1000);
    let cluster = Cluster::three();
    println!("{count} clients{:>12} {:>14} {:>8} {:>16}", "KiB each", "files each", "threads", "ms CPU / s");
    for kind in ["connected", "blocked", "subscribed", "tracking"] {
        let proxy = Proxy::start(Settings::new(cluster.seeds()).of(release.clone()));
        let (files, memory) = (proxy.open_files_with_links(), proxy.resident());
        let clients: Vec<Client> = (0..count).map(|number| start(&proxy, kind, number)).collect();
        if kind == "blocked" {
            eventually("all to wait", || proxy.metric("slotway_blocked_clients", &[]) == count as f64);
        }
        // What was just opened has its handshakes behind it then.
        thread::sleep(QUIET / 5);
        let cpu = cpu_time(&proxy);
        thread::sleep(QUIET);
        let cpu = cpu_time(&proxy) - cpu;
        println!(
            "{kind:<12} {:>15.1} {:>14.2} {:>8} {:>16.1}",
            proxy.resident().saturating_sub(memory) as f64 / 1024.0 / count as f64,
            proxy.open_files().saturating_sub(files) as f64 / count as f64,
            fs::read_dir(format!("/proc/{}/task", proxy.pid())).map_or(0, Iterator::count),
            cpu.as_secs_f64() * 1000.0 / QUIET.as_secs_f64(),
        );
        drop(clients);
        eventually("all to be closed", || proxy.metric("slotway_client_connections", &[]) == 0.0);
    }
}

fn start(proxy: &Proxy, kind: &str, number: usize) -> Client {
    let mut client = if kind == "tracking" { proxy.client_of(3) } else { proxy.client() };
    match kind {
        "blocked" => client.send(&words(&format!("BLPOP idle:{number} 0"))),
        "subscribed" => drop(client.line(&format!("SUBSCRIBE idle:{number}"))),
        "tracking" => drop(client.line("CLIENT TRACKING ON")),
        _ => drop(client.line("PING")),
    }
    client
}

/// The CPU time that the proxy has used, in the kernel and out of it.
fn cpu_time(proxy: &Proxy) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{}/stat", proxy.pid())).expect("its state");
    let fields: Vec<u64> =
        stat.rsplit(") ").next().expect("fields").split(' ').map(|field| field.parse().unwrap_or(0)).collect();
    // Fields 14 and 15 of proc(5), in ticks of 10 ms; the first here is field 3.
    Duration::from_millis((fields[11] + fields[12]) * 10)
}
