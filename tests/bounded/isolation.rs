//! Nothing that one client asks for, reads slowly or leaves behind hurts another: what a node owes for a client is
//! bounded and ends with it, and what was taken for a client is not lost for want of room.

use std::{
    io::Write,
    net::TcpStream,
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use socket2::SockRef;

use crate::support::{Act, Client, Cluster, FakeNode, Proxy, Settings, client::frame, eventually};

const MIB: usize = 1024 * 1024;

/// A value that is unlike any other of these.
fn value(number: usize, size: usize) -> Vec<u8> {
    let mut value = format!("value {number} ").into_bytes().repeat(size / 8);
    value.truncate(size);
    value
}

/// Leaves without a goodbye: the kernel answers whatever still comes with RST.
fn reset(stream: &TcpStream) {
    SockRef::from(stream).set_linger(Some(Duration::ZERO)).expect("SO_LINGER");
}

fn used_memory(client: &mut Client, field: &str) -> usize {
    let info = client.line("INFO memory").string();
    let value = info.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    value.and_then(|value| value.trim().parse().ok()).unwrap_or_else(|| panic!("no {field}: {info}"))
}

#[test]
fn clients_that_have_gone_leave_nothing_at_a_node() {
    let cluster = Cluster::three();
    let proxy = Proxy::before(&cluster);
    let key = cluster.key_on(0, "gone:");
    let small = format!("{{{key}}}small");
    let large = value(0, 8 * MIB);
    let mut bystander = proxy.client();
    assert_eq!(bystander.call(&[b"SET".as_slice(), key.as_bytes(), &large]), "+OK\r\n");
    assert_eq!(bystander.call(&["SET", &small, "here"]), "+OK\r\n");
    let mut node = cluster.nodes[0].client();
    let before = used_memory(&mut node, "used_memory");
    let requests = frame(&["GET", &key]).repeat(2);
    for _ in 0..200 {
        let client = proxy.client();
        let _ = client.stream().write_all(&requests);
        reset(client.stream());
        drop(client);
        assert_eq!(bystander.call(&["GET", &small]).string(), "here");
    }
    let peak = used_memory(&mut node, "used_memory_peak");
    assert!(peak < before + 10 * large.len(), "the node's memory grew by {} MiB", (peak - before) / MIB);
    eventually("the node to owe nothing", || used_memory(&mut node, "used_memory") < before + 2 * MIB);
    assert_eq!(proxy.client().call(&["GET", &key]).string().into_bytes(), large);
}

#[test]
fn slow_readers_keep_what_they_ask_for_to_themselves() {
    let cluster = Cluster::three();
    let proxy = Proxy::start(Settings::new(cluster.seeds()).with("MAX_BUFFERED", "64MiB"));
    let key = cluster.key_on(0, "slow:");
    let small = format!("{{{key}}}small");
    let large = value(0, 8 * MIB);
    let mut bystander = proxy.client();
    assert_eq!(bystander.call(&[b"SET".as_slice(), key.as_bytes(), &large]), "+OK\r\n");
    assert_eq!(bystander.call(&["SET", &small, "here"]), "+OK\r\n");
    let before = proxy.resident();
    let mut slow: Vec<Client> = Vec::new();
    for _ in 0..30 {
        let mut client = proxy.client().patient(Duration::from_secs(60));
        client.send(&["GET", &key]);
        slow.push(client);
        assert_eq!(bystander.call(&["GET", &small]).string(), "here");
    }
    let grown = proxy.resident().saturating_sub(before) / MIB as u64;
    assert!(grown < 128, "grown by {grown} MiB for 30 slow readers");
    for client in &mut slow {
        assert_eq!(client.reply().string().into_bytes(), large);
    }
}

#[test]
fn what_is_popped_is_delivered_whatever_room_there_is() {
    let cluster = Cluster::three();
    let proxy = Proxy::start(Settings::new(cluster.seeds()).with("MAX_BUFFERED", "8MiB"));
    let values: Vec<Vec<u8>> = (0..12).map(|number| value(number, 4 * MIB)).collect();
    let mut taken: Vec<Vec<u8>> = thread::scope(|scope| {
        let poppers: Vec<_> = (0..12)
            .map(|_| {
                let mut client = proxy.client().patient(Duration::from_secs(60));
                scope
                    .spawn(move || client.call(&["BLPOP", "popped", "0"]).value().items()[1].text().map(<[u8]>::to_vec))
            })
            .collect();
        eventually("twelve blocked clients", || proxy.metric("slotway_blocked_clients", &[]) == 12.0);
        let owner = cluster.home_of("popped");
        let mut node = cluster.nodes[owner].client();
        for value in &values {
            node.call(&[b"RPUSH".as_slice(), b"popped", value]);
        }
        poppers.into_iter().filter_map(|popper| popper.join().expect("an element")).collect()
    });
    taken.sort();
    let mut expected = values;
    expected.sort();
    assert!(taken == expected, "{} elements came", taken.len());
    assert_eq!(proxy.client().line("LLEN popped"), ":0\r\n");
}

#[test]
fn large_values_of_several_slots_pass_through_in_order() {
    let cluster = Cluster::three();
    let proxy = Proxy::start(Settings::new(cluster.seeds()).unhurried().with("MAX_BUFFERED", "16MiB"));
    let keys: Vec<String> = (0..6).map(|number| cluster.key_on(number % 3, &format!("parts:{number}:"))).collect();
    let values: Vec<Vec<u8>> = (0..6).map(|number| value(number, 12 * MIB)).collect();
    for (key, value) in keys.iter().zip(&values) {
        let owner = &cluster.nodes[cluster.home_of(key)];
        assert_eq!(owner.client().call(&[b"SET".as_slice(), key.as_bytes(), value]), "+OK\r\n");
    }
    let before = proxy.resident();
    let absent = "parts:absent".to_owned();
    let all: Vec<&str> = ["MGET"].into_iter().chain(keys.iter().chain([&absent]).map(String::as_str)).collect();
    thread::scope(|scope| {
        for _ in 0..4 {
            let mut client = proxy.client().patient(Duration::from_secs(60));
            let (all, values) = (&all, &values);
            scope.spawn(move || {
                // The first time nothing is known of their sizes.
                for _ in 0..2 {
                    let reply = client.call(all);
                    let reply = reply.value();
                    assert_eq!(reply.items().len(), 7, "{reply:?}");
                    for (item, value) in reply.items().iter().zip(values) {
                        assert!(item.text() == Some(value), "another value");
                    }
                    assert_eq!(reply.items()[6].text(), None);
                    assert_eq!(client.line("PING"), "+PONG\r\n");
                }
            });
        }
    });
    let grown = proxy.resident().saturating_sub(before) / MIB as u64;
    assert!(grown < 128, "grown by {grown} MiB");
}

#[test]
fn a_deadline_is_about_a_node_s_silence() {
    let node = FakeNode::start();
    // A reply on its way for five times as long as a node may be silent.
    let pieces: Vec<Vec<u8>> =
        [b"$20\r\n".to_vec()].into_iter().chain((0..20).map(|_| b"x".to_vec())).chain([b"\r\n".to_vec()]).collect();
    node.when("GET dripping", Act::Drip(pieces, Duration::from_millis(50)));
    node.when("GET silent", Act::FallSilent);
    node.always(|heard| Some(Act::bulk(&heard.args[1])));
    let settings = Settings::new(node.address()).with("REQUEST_TIMEOUT", "200ms").with("WORKERS", 1);
    let proxy = Proxy::start(settings.expecting_warnings());
    let (mut first, mut behind) = (proxy.client(), proxy.client());
    assert_eq!(behind.line("GET warm").string(), "warm");
    first.line("GET warm");
    first.send(&["GET", "dripping"]);
    eventually("the node to answer", || node.count("GET dripping") == 1);
    assert_eq!(behind.line("GET behind").string(), "behind");
    assert_eq!(first.reply().string(), "x".repeat(20));
    let start = Instant::now();
    assert!(behind.line("GET silent").is_error());
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[test]
fn all_of_many_large_reads_at_once_are_served() {
    let cluster = Cluster::three();
    // That all of them together may take longer than one: `session/tests/large.rs`, where time is what the test says.
    let proxy = Proxy::start(Settings::new(cluster.seeds()).unhurried().with("WORKERS", 1));
    let large = value(0, 10 * MIB);
    assert_eq!(proxy.client().call(&[b"SET".as_slice(), b"many", &large]), "+OK\r\n");
    thread::scope(|scope| {
        for _ in 0..40 {
            let (proxy, large) = (&proxy, &large);
            scope.spawn(move || {
                let mut client = proxy.client().patient(Duration::from_secs(60));
                assert_eq!(client.call(&["GET", "many"]).string().into_bytes(), *large);
            });
        }
    });
}

#[test]
fn many_long_requests_at_one_pace_all_come_to_their_end() {
    let cluster = Cluster::three();
    let proxy = Proxy::start(Settings::new(cluster.seeds()).with("MAX_BUFFERED", "64MiB"));
    let before = proxy.resident();
    let all_begun = Barrier::new(40);
    thread::scope(|scope| {
        for number in 0..40 {
            let (proxy, all_begun) = (&proxy, &all_begun);
            scope.spawn(move || {
                let mut client = proxy.client().patient(Duration::from_secs(60));
                let (key, large) = (format!("pace:{number}"), value(number, 4 * MIB));
                let request = frame(&[b"SET".as_slice(), key.as_bytes(), &large]);
                let (first, rest) = request.split_at(MIB);
                client.send_raw(first);
                all_begun.wait();
                // 160 MiB in all.
                rest.chunks(64 * 1024).for_each(|chunk| client.send_raw(chunk));
                assert_eq!(client.reply(), "+OK\r\n");
                assert_eq!(client.call(&["GET", &key]).string().into_bytes(), large);
            });
        }
    });
    let grown = proxy.resident().saturating_sub(before) / MIB as u64;
    assert!(grown < 256, "grown by {grown} MiB");
}

#[test]
fn a_client_that_is_closed_for_what_it_holds_is_told_why() {
    let cluster = Cluster::three();
    let proxy = Proxy::start(Settings::new(cluster.seeds()).with("MAX_BUFFERED", "8MiB"));
    let mut client = proxy.client();
    let _ = client.try_send_raw(&frame(&[b"SET".as_slice(), b"too:long", &value(0, 32 * MIB)]));
    let said = client.read().expect("the reason");
    assert!(String::from_utf8_lossy(&said.0).contains("raise max_buffered"), "{said:?}");
    assert!(proxy.log().contains("max_buffered is used up"), "{}", proxy.log());
    assert_eq!(proxy.client().line("GET too:long"), "$-1\r\n");
}
