//! Program order: what one connection does to one key takes effect in the order sent, while slots move under load.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use slotway::protocol::slot::Slot;

use crate::support::{
    Act, Client, Cluster, FakeNode, Flavour, Proxy, Random, Settings, Shape,
    client::{frame, show},
    eventually,
    fake_node::Heard,
    words,
};

const CLIENTS: usize = 6;
const SLOTS_MOVED: usize = 6;
const ROUNDS: usize = 4;

#[test]
fn histories_are_exact_while_slots_move() {
    exact_histories(&Cluster::three(), Cluster::move_slot);
}

/// Valkey 9 moves a slot with all its keys in one moment, and keeps writes to it waiting for the last of it.
#[test]
fn histories_are_exact_while_slots_move_whole() {
    if Flavour::Valkey.is_here("order::histories_are_exact_while_slots_move_whole") {
        exact_histories(
            &Cluster::start(Shape { flavour: Flavour::Valkey, ..Shape::default() }),
            Cluster::move_slot_whole,
        );
    }
}

/// Moves slots as `move_slot` does, from one node to another, while clients write to them.
fn exact_histories(cluster: &Cluster, move_slot: fn(&Cluster, usize, usize, usize)) {
    let proxy = Proxy::before(cluster);
    let done = AtomicBool::new(false);
    let tags: Vec<String> = (0..SLOTS_MOVED).map(|number| format!("t{number}")).collect();
    let total: usize = thread::scope(|scope| {
        let writers: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let (tags, done, client) = (&tags, &done, proxy.client_of(2 + (number % 2) as u8));
                scope.spawn(move || write_histories(client, number, tags, done))
            })
            .collect();
        for round in 0..ROUNDS {
            for tag in &tags {
                let home = cluster.home_of(tag);
                let (from, to) = ((home + round) % 3, (home + round + 1) % 3);
                move_slot(cluster, Slot::of(tag.as_bytes()).index(), from, to);
            }
        }
        done.store(true, Ordering::Release);
        writers.into_iter().map(|writer| writer.join().expect("an exact history")).sum()
    });
    // Where nothing is redirected, nothing is tested.
    eventually("redirects to be counted", || proxy.metric("slotway_redirects_total", &[]) > 0.0);
    println!("{total} requests, {} redirects", proxy.metric("slotway_redirects_total", &[]));
}

/// Writes numbered histories in pipelines of random length, checks every reply, and at last each history.
fn write_histories(mut client: Client, number: usize, tags: &[String], done: &AtomicBool) -> usize {
    let mut random = Random::new(1000 + number as u64);
    let keys: Vec<String> = tags.iter().map(|tag| format!("{{{tag}}}client{number}")).collect();
    let (mut appended, mut counted) = (vec![String::new(); keys.len()], vec![0; keys.len()]);
    let mut sent = 0;
    while !done.load(Ordering::Acquire) {
        let (mut requests, mut expected) = (Vec::new(), Vec::new());
        for _ in 0..=random.below(60) {
            let place = random.below(keys.len());
            let (list, counter) = (format!("{}:list", keys[place]), format!("{}:counter", keys[place]));
            match random.below(5) {
                0 | 1 => {
                    counted[place] += 1;
                    requests.push(vec!["INCR".to_owned(), counter]);
                    expected.push(format!(":{}\r\n", counted[place]));
                }
                2 | 3 => {
                    let entry = format!("{sent}-{},", requests.len());
                    appended[place].push_str(&entry);
                    requests.push(vec!["APPEND".to_owned(), list, entry]);
                    expected.push(format!(":{}\r\n", appended[place].len()));
                }
                _ => {
                    // Across all keys of this client, in one command.
                    requests.push(
                        [vec!["MGET".to_owned()], keys.iter().map(|key| format!("{key}:list")).collect()].concat(),
                    );
                    let null = if number.is_multiple_of(2) { "$-1\r\n" } else { "_\r\n" };
                    let items = appended.iter().map(|text| match text.as_str() {
                        "" => null.to_owned(),
                        text => format!("${}\r\n{text}\r\n", text.len()),
                    });
                    expected.push(format!("*{}\r\n{}", keys.len(), items.collect::<String>()));
                }
            }
        }
        sent += requests.len();
        for ((request, reply), expected) in requests.iter().zip(client.pipeline(&requests)).zip(&expected) {
            assert!(reply == expected.as_str(), "{}: expected {expected}, got {reply:?}", request.join(" "));
        }
    }
    for (place, key) in keys.iter().enumerate() {
        if !appended[place].is_empty() {
            assert_eq!(client.call(&["GET", &format!("{key}:list")]).string(), appended[place], "{key}");
        }
        if counted[place] > 0 {
            assert_eq!(client.call(&["GET", &format!("{key}:counter")]).string(), counted[place].to_string(), "{key}");
        }
    }
    sent
}

#[test]
fn what_waits_for_a_slot_to_move_is_not_overtaken() {
    let cluster = Cluster::three();
    let proxy = Proxy::before(&cluster);
    let mut client = proxy.client();
    let (from, to) = (cluster.home_of("{half}"), (cluster.home_of("{half}") + 1) % 3);
    let (here, there) = ("{half}here", "{half}there");
    assert_eq!(client.call(&["MSET", here, "0", there, "0"]), "+OK\r\n");
    cluster.open_slot(Slot::of(b"{half}").index(), from, to);
    cluster.move_keys(&[there], from, to);
    // One after the other: from the first of them on, the slot is known to be on its way.
    let mut refused = 0;
    for round in 0..30 {
        let number = (10 * round).to_string();
        let requests = [
            vec!["MSET", here, &number, there, &number],
            vec!["INCR", here],
            vec!["INCR", there],
            vec!["MGET", here, there, here],
            vec!["INCRBY", here, "5"],
            vec!["MSET", "elsewhere", "1", here, "x", there, "y"],
            vec!["DEL", "elsewhere", there],
            vec!["SET", there, "z"],
            vec!["MGET", "elsewhere", here, there],
        ];
        let replies = client.pipeline(&requests);
        refused += replies.iter().filter(|reply| reply.0.starts_with(b"-TRYAGAIN ")).count();
        if replies.iter().all(|reply| !reply.is_error()) {
            let next = (10 * round + 1).to_string();
            assert_eq!(replies[1], format!(":{next}\r\n").as_str());
            assert_eq!(replies[2], format!(":{next}\r\n").as_str());
            assert_eq!(replies[3].texts(), [&*next, &next, &next]);
            assert_eq!(replies[4], format!(":{}\r\n", 10 * round + 6).as_str());
            assert_eq!(replies[6], ":2\r\n");
            assert_eq!(replies[8].0.escape_ascii().to_string(), "*3\\r\\n$-1\\r\\n$1\\r\\nx\\r\\n$1\\r\\nz\\r\\n");
        }
        assert!(round == 0 || replies.iter().all(|reply| !reply.is_error()), "round {round}: {replies:?}");
    }
    assert!(refused < 9, "{refused} requests refused");
}

#[test]
fn what_was_refused_does_not_run_behind_what_came_after_it() {
    for error in [
        "-TRYAGAIN Multiple keys request during rehashing of slot",
        "-CLUSTERDOWN The cluster is down",
        "-READONLY You can't write against a read only replica.",
    ] {
        let node = FakeNode::start();
        node.when("MSET", Act::say(error));
        node.always(|heard| Some(if heard.args[0] == b"INCR" { Act::say(":8") } else { Act::say("+OK") }));
        let proxy = Proxy::start(Settings::new(node.address()).expecting_warnings());
        let requests =
            [vec!["MSET", "{t}a", "1", "{t}b", "1"], vec!["INCR", "{t}a"], vec!["MSET", "{t}a", "2", "{t}b", "2"]];
        let replies = proxy.client().pipeline(&requests);
        assert_eq!(replies, [&*format!("{error}\r\n"), ":8\r\n", "+OK\r\n"]);
        assert_eq!(node.count("MSET {t}a 1"), 1, "{error}");
    }
}

#[test]
fn nothing_overtakes_what_all_nodes_do() {
    for error in [
        "-READONLY You can't write against a read only replica.",
        "-LOADING Redis is loading the dataset in memory",
        "-CLUSTERDOWN The cluster is down",
    ] {
        for command in ["FLUSHALL", "FLUSHDB ASYNC", "SCRIPT FLUSH", "DBSIZE"] {
            let (one, two) = FakeNode::pair();
            for node in [&one, &two] {
                node.always(|heard| Some(if heard.args[0] == b"DBSIZE" { Act::say(":0") } else { Act::say("+OK") }));
            }
            one.when(command, Act::say(error));
            let proxy = Proxy::start(Settings::new(one.address()).expecting_warnings());
            // "bar" and "{bar}2" are with the first node, and not in its first slot.
            let behind = ["SET bar 1", "SET {bar}2 2", "SET foo 3"];
            let requests: Vec<Vec<&str>> = [&[command], &behind[..]].concat().iter().map(|line| words(line)).collect();
            let replies = proxy.client().pipeline(&requests);
            let first = if command == "DBSIZE" { ":0\r\n" } else { "+OK\r\n" };
            assert_eq!(replies, [first, "+OK\r\n", "+OK\r\n", "+OK\r\n"], "{command}: {error}");
            let ours = |text: &String| requests.iter().any(|request| *text == show(request));
            let heard: Vec<String> = one.heard().iter().map(Heard::text).filter(ours).collect();
            assert_eq!(heard, [&[command, command], &behind[..2]].concat(), "{error}");
        }
    }
}

#[test]
fn a_part_that_ran_counts_as_overtaking() {
    let (one, two) = FakeNode::pair();
    for node in [&one, &two] {
        node.always(|_| Some(Act::say("+OK")));
    }
    let error = "-READONLY You can't write against a read only replica.";
    one.when("SET bar 1", Act::say(error));
    two.when("MSET foo 2", Act::say(error));
    let proxy = Proxy::start(Settings::new(one.address()).expecting_warnings());
    let mut client = proxy.client();
    // That its user may do all is known from then on: nothing waits for it.
    assert_eq!(client.line("PING"), "+PONG\r\n");
    let replies = client.pipeline(&[words("SET bar 1"), words("MSET bar 2 foo 2")]);
    assert_eq!(replies, [&*format!("{error}\r\n"), "+OK\r\n"]);
    assert_eq!((one.count("SET bar 1"), one.count("MSET bar 2"), two.count("MSET foo 2")), (1, 1, 2));
}

#[test]
fn what_waits_for_the_first_owners_goes_to_all_of_them() {
    for command in ["FLUSHALL", "SCRIPT FLUSH", "SCRIPT EXISTS x"] {
        let (one, two) = FakeNode::pair();
        for node in [&one, &two] {
            node.always(|heard| Some(Act::say(if heard.args.len() == 3 { "*1\r\n:1" } else { "+OK" })));
            node.announces(Vec::new());
        }
        let settings = Settings::new(one.address()).with("RETRY_TIMEOUT", "20s").expecting_warnings();
        let proxy = Proxy::launch(settings);
        let mut client = proxy.client();
        client.send(&words(command));
        let seen = format!(" cmd={} ", command.to_lowercase().split(' ').take(2).collect::<Vec<_>>().join("|"));
        eventually("it to wait", || proxy.client().line("CLIENT LIST").string().contains(&seen));
        for node in [&two, &one] {
            node.owns(&[(0, 8191, &one), (8192, 16383, &two)]);
        }
        let reply = client.reply();
        assert!(!reply.is_error(), "{command}: {reply:?}");
        assert_eq!((one.count(command), two.count(command)), (1, 1), "{command}");
    }
}

#[test]
fn what_all_nodes_do_skips_none_whose_first_slot_moves() {
    let (one, two) = FakeNode::pair();
    let moved = Arc::new(AtomicBool::new(false));
    for node in [&one, &two] {
        node.always(|_| Some(Act::say("+OK")));
    }
    let seen = moved.clone();
    one.always(move |heard| {
        let ready = heard.args[0] != b"FLUSHALL" || seen.load(Ordering::Acquire);
        Some(Act::say(if ready { "+OK" } else { "-LOADING Redis is loading the dataset in memory" }))
    });
    let proxy = Proxy::start(Settings::new(one.address()).with("RETRY_TIMEOUT", "20s").expecting_warnings());
    let mut client = proxy.client();
    client.send(&words("FLUSHALL"));
    eventually("it to be refused", || one.count("FLUSHALL") > 0);
    for node in [&one, &two] {
        node.owns(&[(0, 0, &two), (1, 8191, &one), (8192, 16383, &two)]);
    }
    // The slot of "3560" is the first.
    let explained = || proxy.client().line("PROXY EXPLAIN GET 3560").texts().join(" ");
    eventually("the move to be known", || explained().contains(&two.address()));
    moved.store(true, Ordering::Release);
    assert_eq!(client.reply(), "+OK\r\n");
    assert_eq!(two.count("FLUSHALL"), 1);
}

#[test]
fn order_holds_across_nodes_where_it_is_strict_and_only_there() {
    let mut cluster = Cluster::three();
    let (first, second) = (cluster.key_on(0, "strict:"), cluster.key_on(1, "strict:"));
    let script = "return redis.call('RPUSH', KEYS[1], 'x')";
    let ways: [&[&[&str]]; 3] = [
        &[&["LPUSH", &second, "x"]],
        &[&["EVAL", script, "1", &second]],
        &[&["MULTI"], &["LPUSH", &second, "x"], &["EXEC"]],
    ];
    for strict in [true, false] {
        let settings = Settings::new(cluster.seeds()).with("STRICT_ORDER", strict).with("REQUEST_TIMEOUT", "30s");
        let proxy = Proxy::start(settings.with("NODE_TIMEOUT", "30s").expecting_warnings());
        for behind in ways {
            let (mut client, mut other) = (proxy.client(), proxy.client());
            client.call(&["DEL", &first, &second]);
            let id = client.line("CLIENT ID").integer();
            cluster.nodes[0].pause();
            client.send_raw(&frame(&["SET", &first, "1"]));
            behind.iter().for_each(|request| client.send_raw(&frame(request)));
            let command = behind.last().expect("a request")[0].to_lowercase();
            let seen = format!(" cmd={command} ");
            eventually("it to be looked at", || other.line(&format!("CLIENT LIST ID {id}")).string().contains(&seen));
            let mut direct = cluster.nodes[1].client();
            let mut is_there = || direct.call(&["EXISTS", &second]) == ":1\r\n";
            if strict {
                // Whatever had been sent would be there by the time that other requests are answered.
                for _ in 0..20 {
                    assert!(other.call(&["EXISTS", &second]) == ":0\r\n" && !is_there());
                }
            } else {
                eventually("it to overtake", &mut is_there);
            }
            cluster.nodes[0].resume();
            let replies: Vec<_> = (0..=behind.len()).map(|_| client.reply()).collect();
            assert!(replies.iter().all(|reply| !reply.is_error()), "{replies:?}");
            assert!(is_there());
        }
    }
}
