//! A node is lost in each way docker knows: its own slots fail, with errors that name it, and nobody else notices.

use std::time::{Duration, Instant};

use slotway::protocol::slot::{SLOTS, Slot};

use super::{
    engine::{docker, turn},
    stack::{NODES, Sample, Stack},
    support::Client,
};

/// A key of the thirds into which `redis-cli --cluster create` cuts the slots.
fn key_of(third: usize) -> String {
    let third_of = |key: &String| Slot::of(key.as_bytes()).index() * 3 / (SLOTS + 2);
    (0..).map(|number| format!("key:{number}")).find(|key| third_of(key) == third).expect("some key")
}

struct Loss<'a> {
    what: &'a str,
    lost: usize,
    lose: &'a dyn Fn(),
    give_back: &'a dyn Fn(),
}

#[test]
fn a_lost_node_costs_its_own_slots_only() {
    let Some(_turn) = turn() else { return };
    let stack = Stack::new("losses", &["compose.yaml"]);
    stack.up(&[]);
    stack.formed();
    stack.healthy("proxy");
    let node = |index: usize| stack.container(NODES[index]);
    let network = stack.network();

    let kill = || drop(docker(&["kill", &node(0)]));
    let start = || drop(docker(&["start", &node(0)]));
    suffer(&stack, Loss { what: "docker kill", lost: 0, lose: &kill, give_back: &start });

    let pause = || drop(docker(&["pause", &node(1)]));
    let unpause = || drop(docker(&["unpause", &node(1)]));
    suffer(&stack, Loss { what: "docker pause", lost: 1, lose: &pause, give_back: &unpause });

    // No FIN, no RST: packets go nowhere.
    let cut = || drop(docker(&["network", "disconnect", &network, &node(2)]));
    let join = || drop(docker(&["network", "connect", "--alias", NODES[2], &network, &node(2)]));
    suffer(&stack, Loss { what: "docker network disconnect", lost: 2, lose: &cut, give_back: &join });
}

fn suffer(stack: &Stack, loss: Loss) {
    let mut old = stack.client();
    let sample = Sample::write(&mut old, 60);
    let lost_key = key_of(loss.lost);
    let others: Vec<String> = (0..3).filter(|third| *third != loss.lost).map(key_of).collect();
    for key in others.iter().chain([&lost_key]) {
        assert_eq!(old.call(&["SET", key, "here"]), "+OK\r\n", "before {}", loss.what);
    }

    (loss.lose)();
    let lost_at = Instant::now();
    // A connection that waits for the lost node, while others go on: past the cluster's own verdict (5 s).
    let address = stack.proxy();
    let complaint = std::thread::spawn(move || complaint_about(&address, &lost_key));
    let mut slowest = Duration::ZERO;
    while lost_at.elapsed() < Duration::from_secs(7) {
        for key in &others {
            let start = Instant::now();
            let reply = old.call(&["GET", key]);
            assert_eq!(reply, "$4\r\nhere\r\n", "{}: another node's key after {:?}", loss.what, lost_at.elapsed());
            slowest = slowest.max(start.elapsed());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let (took, said) = complaint.join().expect("the lost key's client");
    println!("{}: slowest of the others {slowest:?}; the lost key after {took:?}: {said}", loss.what);
    assert!(slowest < Duration::from_millis(500), "{}: others waited {slowest:?}", loss.what);
    assert!(took < Duration::from_secs(8), "{}: an error after {took:?}", loss.what);
    let port = format!("{}", 7000 + loss.lost);
    assert!(said.starts_with('-') && said.contains(&port), "{}: the error names no node: {said}", loss.what);

    (loss.give_back)();
    stack.whole(&NODES);
    let after = sample.served_after(&stack.proxy(), &mut old, Duration::from_secs(3));
    println!("{}: served {after:?} after the cluster's recovery", loss.what);
}

/// The first error a client gets for the key, and how long it waited for it.
fn complaint_about(address: &str, key: &str) -> (Duration, String) {
    let mut client = Client::connect(address);
    let start = Instant::now();
    loop {
        let asked = Instant::now();
        let reply = client.call(&["GET", key]);
        if reply.is_error() {
            return (asked.elapsed(), String::from_utf8_lossy(&reply.0).trim_end().to_owned());
        }
        assert!(start.elapsed() < Duration::from_secs(15), "the lost node still answers: {reply:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
