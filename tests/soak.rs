//! Endurance: under a steady load nodes fail over, stand still, are killed, restarted and cut off, slots move, the
//! configuration is read again, and clients come and go. Histories stay exact, and what the proxy holds does not grow.
//!
//! `cargo test --test soak` runs for as long as CI can wait; `SLOTWAY_SOAK_SECONDS=7200` for two hours. A primary is never
//! killed, since what it had not yet given to its replica would be lost by the nodes' own doing.

// Shared with the other tests, which use more of it.
#[allow(unused_imports)]
#[path = "support/mod.rs"]
mod support;

use std::{
    env,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use slotway::protocol::slot::Slot;
use support::{Client, Cluster, Proxy, Random, Reply, Settings, Shape};

const SECONDS: u64 = 120;
const WRITERS: usize = 4;
/// Between two requests of a client: half of what the machine could do is enough to meet every trouble.
const PACE: Duration = Duration::from_millis(2);
/// How much more the proxy may hold at the end than after a quarter of the time.
const GROWTH: u64 = 24 << 20;

/// What the clients have met.
#[derive(Default)]
struct Tally {
    requests: AtomicUsize,
    errors: AtomicUsize,
    /// The first errors, to show.
    examples: Mutex<Vec<String>>,
    pushed: AtomicUsize,
    popped: AtomicUsize,
    /// Pushes and pops of which nobody can tell whether they took place.
    unsure: AtomicUsize,
    troubles: AtomicUsize,
}

impl Tally {
    fn failed(&self, request: &str, reply: &Reply) {
        self.errors.fetch_add(1, Relaxed);
        let mut examples = self.examples.lock().expect("no panic");
        if examples.len() < 10 {
            examples.push(format!("{request}: {}", text(reply)));
        }
    }
}

/// Ends the clients, however the troubles end.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

fn main() {
    let seconds = env::var("SLOTWAY_SOAK_SECONDS").ok().map_or(SECONDS, |text| text.parse().expect("seconds"));
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut cluster = Cluster::start(Shape { replicas: 1, node_timeout: Duration::from_secs(4), ..Shape::default() });
    let proxy = Proxy::start(Settings::new(cluster.seeds()).with("READS", "replica").expecting_warnings());
    let (tally, over) = (Tally::default(), AtomicBool::new(false));
    let mut early = 0;
    thread::scope(|scope| {
        let (proxy, tally, over) = (&proxy, &tally, &over);
        for number in 0..WRITERS {
            scope.spawn(move || write_histories(proxy, number, tally, over));
        }
        scope.spawn(move || push(proxy, tally, over));
        scope.spawn(move || pop(proxy, tally, over));
        scope.spawn(move || come_and_go(proxy, over));
        let _over = Over(over);
        early = make_trouble(&mut cluster, proxy, tally, end);
    });
    // Nobody is connected any more but this test.
    support::eventually("all clients to have left", || proxy.metric("slotway_client_connections", &[]) == 0.0);
    let late = proxy.resident();
    let lost = tally.pushed.load(Relaxed).saturating_sub(tally.popped.load(Relaxed));
    let left = proxy.client().call(&["LLEN", "soak:queue"]).integer() as usize;
    println!(
        "{} s: {} requests, {} errors, {} troubles; {} pushed, {} popped, {left} left, {} unsure; {} MiB, then {} MiB; {} files",
        seconds,
        tally.requests.load(Relaxed),
        tally.errors.load(Relaxed),
        tally.troubles.load(Relaxed),
        tally.pushed.load(Relaxed),
        tally.popped.load(Relaxed),
        tally.unsure.load(Relaxed),
        early >> 20,
        late >> 20,
        proxy.open_files(),
    );
    for example in tally.examples.lock().expect("no panic").iter() {
        println!("  {example}");
    }
    assert!(lost.abs_diff(left) <= tally.unsure.load(Relaxed), "elements were lost or doubled");
    assert!(late <= early + GROWTH, "memory grows: {early}, then {late}");
    assert!(tally.requests.load(Relaxed) > 100 * seconds as usize, "there was hardly any load");
}

/// One trouble after the other until the end; the memory of the proxy after a quarter of the time.
fn make_trouble(cluster: &mut Cluster, proxy: &Proxy, tally: &Tally, end: Instant) -> u64 {
    let begin = Instant::now();
    let (mut early, mut round, mut random) = (0, 0, Random::seeded("soak"));
    while Instant::now() < end {
        let shard = random.below(3);
        match round % 7 {
            // Once there, once back: primaries are the first three again.
            0 => {
                cluster.fail_over_to(shard + 3, "");
                support::eventually("the former primary to know", || !cluster.is_primary(shard));
                cluster.wait_until_agreed();
                cluster.fail_over_to(shard, "");
                support::eventually("its replica to know", || !cluster.is_primary(shard + 3));
                cluster.wait_until_agreed();
            }
            1 => {
                let slot = Slot::of(format!("soak{}", random.below(4)).as_bytes()).index();
                let (from, to) = (cluster.owner_seen_by(0, slot), random.below(3));
                if from != to {
                    cluster.move_slot(slot, from, to);
                }
            }
            2 => stand_still(cluster, shard, Duration::from_millis(1500)),
            3 => stand_still(cluster, shard + 3, Duration::from_millis(1500)),
            4 => {
                cluster.nodes[shard + 3].kill();
                cluster.nodes[shard + 3].restart();
                cluster.wait_until_well();
            }
            5 => drop(cluster.node(shard).line("CLIENT KILL TYPE normal SKIPME yes")),
            _ => {
                let hung_up = std::process::Command::new("kill").args(["-HUP", &proxy.pid().to_string()]).status();
                assert!(hung_up.expect("kill").success());
            }
        }
        tally.troubles.fetch_add(1, Relaxed);
        round += 1;
        if early == 0 && (begin.elapsed() > (end - begin) / 4 || round == 7) {
            early = proxy.resident();
        }
        thread::sleep(Duration::from_millis(300));
    }
    early.max(1)
}

fn stand_still(cluster: &mut Cluster, node: usize, long: Duration) {
    cluster.nodes[node].pause();
    thread::sleep(long);
    cluster.nodes[node].resume();
}

fn text(reply: &Reply) -> String {
    String::from_utf8_lossy(&reply.0).trim_end().to_owned()
}

/// Whether an error leaves open what became of a request.
fn may_have_run(reply: &Reply) -> bool {
    let text = text(reply);
    text.contains("may have run") || text.contains("no answer")
}

/// A client's own keys: a counter, a text that grows, and two counters that change together.
fn write_histories(proxy: &Proxy, number: usize, tally: &Tally, over: &AtomicBool) {
    let mut client = proxy.client().patient(Duration::from_secs(30));
    let mut random = Random::seeded("soak");
    let tag = |slot: usize| format!("{{soak{slot}}}{number}");
    // All begin at 0, so that each has a value at any time.
    (0..4).for_each(|slot| assert_eq!(client.call(&["SET", &tag(slot), "0"]), "+OK\r\n"));
    let mut counted = [0i64; 4];
    let mut together = [0i64; 4];
    while !over.load(Relaxed) {
        let at = random.below(4);
        let (counter, one, other) = (tag(at), format!("{}:a", tag(at)), format!("{}:b", tag(at)));
        match random.below(4) {
            0 => {
                let reply = client.call(&["INCR", &counter]);
                tally.requests.fetch_add(1, Relaxed);
                if !reply.is_error() {
                    counted[at] += 1;
                    assert_eq!(reply.integer(), counted[at], "{counter}");
                    continue;
                }
                tally.failed("INCR", &reply);
                let now = certain(&mut client, &counter, tally);
                let most = counted[at] + i64::from(may_have_run(&reply));
                assert!((counted[at]..=most).contains(&now), "{counter}: {now} after {reply:?} at {}", counted[at]);
                counted[at] = now;
            }
            1 => {
                let reply = client.call(&["GET", &counter]);
                tally.requests.fetch_add(1, Relaxed);
                match reply.is_error() {
                    true => tally.failed("GET", &reply),
                    false => assert_eq!(reply.string(), counted[at].to_string(), "{counter}"),
                }
            }
            2 => {
                let requests = [vec!["MULTI"], vec!["INCR", &one], vec!["INCR", &other], vec!["EXEC"]];
                let replies = client.pipeline(&requests);
                tally.requests.fetch_add(4, Relaxed);
                if !replies[3].is_error() {
                    together[at] += 1;
                    let both = format!("*2\r\n:{0}\r\n:{0}\r\n", together[at]);
                    assert!(replies[3] == both.as_str(), "{one}: {:?} instead of {both}", replies[3]);
                    continue;
                }
                tally.failed("EXEC", &replies[3]);
                let (now, same) = (certain(&mut client, &one, tally), certain(&mut client, &other, tally));
                assert_eq!(now, same, "a transaction ran half");
                let most = together[at] + i64::from(may_have_run(&replies[3]));
                assert!((together[at]..=most).contains(&now), "{one}: {now} at {}", together[at]);
                together[at] = now;
            }
            _ => {
                let all: Vec<String> = (0..4).map(tag).collect();
                let reply = client.call(&[vec!["MGET".to_owned()], all].concat());
                tally.requests.fetch_add(1, Relaxed);
                if reply.is_error() {
                    tally.failed("MGET", &reply);
                    continue;
                }
                assert_eq!(reply.texts(), counted.map(|count| count.to_string()), "client {number}");
            }
        }
        thread::sleep(PACE);
    }
}

/// The value of a counter, asked until a node tells.
fn certain(client: &mut Client, key: &str, tally: &Tally) -> i64 {
    support::until("an answer", Duration::from_secs(60), || {
        // A write has the answer come from the primary.
        let reply = client.call(&["INCRBY", key, "0"]);
        tally.requests.fetch_add(1, Relaxed);
        (!reply.is_error()).then(|| reply.integer())
    })
}

fn push(proxy: &Proxy, tally: &Tally, over: &AtomicBool) {
    let mut client = proxy.client().patient(Duration::from_secs(30));
    while !over.load(Relaxed) {
        let reply = client.call(&["LPUSH", "soak:queue", "x"]);
        tally.requests.fetch_add(1, Relaxed);
        match reply.is_error() {
            false => drop(tally.pushed.fetch_add(1, Relaxed)),
            true => {
                tally.failed("LPUSH", &reply);
                tally.unsure.fetch_add(usize::from(may_have_run(&reply)), Relaxed);
            }
        }
        thread::sleep(PACE);
    }
}

fn pop(proxy: &Proxy, tally: &Tally, over: &AtomicBool) {
    let mut client = proxy.client().patient(Duration::from_secs(30));
    while !over.load(Relaxed) {
        let reply = client.call(&["BRPOP", "soak:queue", "1"]);
        tally.requests.fetch_add(1, Relaxed);
        if reply.is_error() {
            tally.failed("BRPOP", &reply);
            tally.unsure.fetch_add(usize::from(may_have_run(&reply)), Relaxed);
        } else if reply.texts().len() == 2 {
            tally.popped.fetch_add(1, Relaxed);
        }
    }
}

/// Clients that leave in the midst of what they do.
fn come_and_go(proxy: &Proxy, over: &AtomicBool) {
    let parts: [&[u8]; 5] = [
        b"*2\r\n$3\r\nGET\r\n$3\r\nfo",
        b"*2\r\n$3\r\nGET\r\n$3\r\nfoo\r\n*1\r\n$4\r\nPING\r\n",
        b"*3\r\n$5\r\nBLPOP\r\n$6\r\nnobody\r\n$1\r\n0\r\n",
        b"*2\r\n$9\r\nSUBSCRIBE\r\n$4\r\nnews\r\n",
        b"*1\r\n$5\r\nMULTI\r\n*3\r\n$3\r\nSET\r\n$1\r\nq\r\n$1\r\nv\r\n",
    ];
    let mut round = 0;
    while !over.load(Relaxed) {
        let mut client = proxy.client();
        client.send_raw(parts[round % parts.len()]);
        round += 1;
        thread::sleep(Duration::from_millis(20));
    }
}
