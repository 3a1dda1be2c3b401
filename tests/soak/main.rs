//! Endurance: under a steady load nodes fail over, stand still, are killed, restarted and cut off, slots move, the
//! configuration and the certificates are read again, processes take each other's place, and clients come and go. Histories
//! stay exact, and what the proxy holds does not grow.
//!
//! `cargo test --test soak` runs for as long as CI can wait; `SLOTWAY_SOAK_SECONDS=7200` for two hours. A primary is never
//! killed, since what it had not yet given to its replica would be lost by the nodes' own doing.

// Shared with the other tests, which use more of it.
#[allow(unused_imports)]
#[path = "../support/mod.rs"]
mod support;

mod clients;
mod tally;
mod troubles;

use std::{
    env,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use clients::Entrance;
use support::{Cluster, Shape};
use tally::Tally;
use troubles::Scene;

const SECONDS: u64 = 180;
/// An even number: half of them come by TLS.
const WRITERS: usize = 4;
/// How much more the proxy may hold at the end than half-way.
const GROWTH: u64 = 24 << 20;
/// Who may have had a connection that a process closed as it gave up its place: the writers, who pushes, who pops.
const STEADY: usize = WRITERS + 2;

/// Ends the clients, however the troubles end.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

fn main() {
    let seconds = env::var("SLOTWAY_SOAK_SECONDS").ok().map_or(SECONDS, |text| text.parse().expect("seconds"));
    let cluster = Cluster::start(Shape { replicas: 1, node_timeout: Duration::from_secs(4), ..Shape::default() });
    let mut scene = Scene::of(cluster);
    let (tally, over) = (Tally::default(), AtomicBool::new(false));
    let begin = Instant::now();
    let (half, end) = (begin + Duration::from_secs(seconds / 2), begin + Duration::from_secs(seconds));
    let mut early = Held::default();
    thread::scope(|scope| {
        let (tally, over, entrance) = (&tally, &over, scene.entrance());
        for number in 0..WRITERS {
            let entrance = if number % 2 == 0 { entrance.clone() } else { entrance.clone().by_tls() };
            scope.spawn(move || clients::write_histories(&entrance, number, tally, over));
        }
        let others: [fn(&Entrance, &Tally, &AtomicBool); 3] = [clients::push, clients::pop, clients::come_and_go];
        for work in others {
            let entrance = entrance.clone();
            scope.spawn(move || work(&entrance, tally, over));
        }
        let _over = Over(over);
        // First processes follow one another; from half-way on one serves, and may not grow.
        scene.make_trouble(tally, true, half);
        scene.make_each_trouble(tally);
        early = Held::by(&scene);
        scene.make_trouble(tally, false, end);
    });
    // Nobody is connected any more but this test.
    support::eventually("all clients to have left", || scene.proxy.metric("slotway_client_connections", &[]) == 0.0);
    let late = Held::by(&scene);
    let mut client = scene.proxy.client();
    let left = client.call(&["LLEN", clients::QUEUE]).integer() as usize;
    tally.print(seconds, left);
    println!("  {early}, then {late}");
    assert!(tally.lost_elements().abs_diff(left) <= tally.unsure.load(Relaxed), "elements were lost or doubled");
    assert!(tally.closed.load(Relaxed) <= scene.takeovers * STEADY, "clients were closed, and no process had ended");
    assert!(late.memory <= early.memory + GROWTH, "memory grows");
    // Nodes may have got a connection or two more than they had half-way, for blocking and long requests, which are kept a while.
    assert!(late.files <= early.files + 2 * NODES, "descriptors are left over");
    assert!(late.threads <= early.threads, "threads are left over");
    assert!(tally.requests.load(Relaxed) > 100 * seconds as usize, "there was hardly any load");
}

/// Three primaries with a replica each.
const NODES: usize = 6;

/// What a process holds.
#[derive(Default)]
struct Held {
    memory: u64,
    files: usize,
    threads: usize,
}

impl Held {
    fn by(scene: &Scene) -> Held {
        let proxy = &scene.proxy;
        Held { memory: proxy.resident(), files: proxy.open_files(), threads: proxy.threads() }
    }
}

impl std::fmt::Display for Held {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{} MiB, {} files, {} threads", self.memory >> 20, self.files, self.threads)
    }
}
