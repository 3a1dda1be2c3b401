//! Publish and subscribe: in front of a cluster as in front of one Redis.

use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::{Duration, Instant},
};

use crate::support::{Client, Cluster, Node, Proxy, Reply, Settings, Shape, cluster::shared, eventually, until};

/// The same in both: the bytes that come are compared.
pub(super) struct Pair {
    what: &'static str,
    pub(super) proxy: Client,
    pub(super) redis: Client,
}

impl Pair {
    pub(super) fn new(what: &'static str, proxy: &Proxy, redis: &Node, version: u8) -> Pair {
        let mut pair = Pair { what, proxy: proxy.client(), redis: redis.client() };
        if version == 3 {
            pair.proxy.line("HELLO 3");
            pair.redis.line("HELLO 3");
        }
        pair
    }

    /// Sends a line, and compares so many frames.
    #[track_caller]
    pub(super) fn line(&mut self, line: &str, frames: usize) {
        let args: Vec<&str> = line.split(' ').collect();
        self.proxy.send(&args);
        self.redis.send(&args);
        self.same(line, frames);
    }

    #[track_caller]
    pub(super) fn same(&mut self, line: &str, frames: usize) {
        for index in 0..frames {
            let expected = self.redis.reply();
            let found = self
                .proxy
                .read()
                .unwrap_or_else(|error| panic!("{}: {line}, {index}: {error}, expected {expected:?}", self.what));
            assert_eq!(found, expected, "{}: {line}, frame {index}", self.what);
        }
    }

    /// All that the server tells comes from the proxy as well, and as often; how much that is. In which order several patterns
    /// are told of one message, no server promises.
    #[track_caller]
    pub(super) fn told(&mut self, line: &str) -> usize {
        self.redis.send(&["PING"]);
        let is_end = |reply: &Reply| *reply == "+PONG\r\n" || *reply == "*2\r\n$4\r\npong\r\n$0\r\n\r\n";
        let mut expected: Vec<Reply> =
            std::iter::from_fn(|| Some(self.redis.reply()).filter(|told| !is_end(told))).collect();
        let mut found = Vec::new();
        for _ in &expected {
            let told = self.proxy.read();
            found
                .push(told.unwrap_or_else(|error| panic!("{}: {line}: {error}: {found:?} of {expected:?}", self.what)));
        }
        found.sort();
        expected.sort();
        assert_eq!(found, expected, "{}: {line}", self.what);
        found.len()
    }

    /// Nothing more has come: the next reply is the one to PING.
    #[track_caller]
    pub(super) fn quiet(&mut self) {
        self.line("PING", 1);
    }
}

fn sorted(client: &mut Client, line: &str, frames: usize) -> Vec<crate::support::Reply> {
    client.send(&line.split(' ').collect::<Vec<_>>());
    let mut replies: Vec<_> = (0..frames).map(|_| client.reply()).collect();
    replies.sort();
    replies
}

#[test]
fn classic_pubsub_is_that_of_one_redis() {
    // PUBSUB NUMPAT counts the patterns of everybody: a cluster of its own.
    let cluster = Cluster::three();
    let (proxy, redis) = (Proxy::before(&cluster), Node::standalone());
    for version in [2, 3] {
        let mut subscriber = Pair::new("subscriber", &proxy, &redis, version);
        let mut other = Pair::new("other", &proxy, &redis, version);
        let mut publisher = Pair::new("publisher", &proxy, &redis, 2);
        subscriber.line("UNSUBSCRIBE", 1);
        subscriber.line("SUBSCRIBE c.a c.b c.a", 3);
        subscriber.line("PSUBSCRIBE c.* x", 2);
        subscriber.line("SUBSCRIBE c.b", 1);
        other.line("SUBSCRIBE c.a", 1);
        publisher.line("PUBLISH c.a hello", 1);
        publisher.line("PUBLISH c.z only-by-pattern", 1);
        publisher.line("PUBLISH nobody x", 1);
        subscriber.same("published", 3);
        other.same("published", 1);
        publisher.line("PUBSUB NUMSUB c.a c.b nobody", 1);
        publisher.line("PUBSUB NUMPAT", 1);
        publisher.line("PUBSUB CHANNELS c.a", 1);
        subscriber.line("PING", 1);
        subscriber.line("PING hi", 1);
        subscriber.line("PING a b", 1);
        subscriber.line("UNSUBSCRIBE c.b nothing", 2);
        subscriber.line("PUNSUBSCRIBE c.*", 1);
        publisher.line("PUBLISH c.b unheard", 1);
        publisher.line("PUBLISH c.a heard", 1);
        subscriber.same("published", 1);
        other.same("published", 1);
        subscriber.line("UNSUBSCRIBE", 1);
        subscriber.line("PUNSUBSCRIBE", 1);
        subscriber.line("PUNSUBSCRIBE", 1);
        subscriber.line("GET k", 1);
        other.line("RESET", 1);
        other.line("GET k", 1);
        publisher.line("PUBLISH c.a nobody", 1);
        subscriber.quiet();
        other.quiet();
    }
}

#[test]
fn a_subscriber_in_resp2_may_only_subscribe() {
    let (proxy, redis) = (Proxy::before(shared()), Node::standalone());
    let mut pair = Pair::new("subscriber", &proxy, &redis, 2);
    pair.line("SUBSCRIBE only", 1);
    for line in
        ["GET k", "SET k v", "CONFIG GET x", "CLIENT ID", "MULTI", "HELLO 3", "PUBLISH a b", "GET", "NOSUCH a b"]
    {
        pair.line(line, 1);
    }
    pair.line("RESET", 1);
    pair.line("GET k", 1);
    pair.line("SUBSCRIBE only", 1);
    pair.line("QUIT", 1);
    assert_eq!(pair.proxy.read_to_end().unwrap(), b"");

    let mut pair = Pair::new("subscriber", &proxy, &redis, 3);
    pair.line("SUBSCRIBE only", 1);
    pair.line("GET none", 1);
    pair.line("HELLO 2 SETNAME", 1);
    pair.proxy.line("HELLO 2");
    pair.redis.line("HELLO 2");
    pair.line("GET none", 1);
    redis.line("PUBLISH only 1");
    proxy.client().line("PUBLISH only 1");
    pair.same("after HELLO 2", 1);
}

#[test]
fn confirmations_keep_their_place_in_a_pipeline() {
    let (proxy, redis) = (Proxy::before(shared()), Node::standalone());
    let mut pair = Pair::new("pipeline", &proxy, &redis, 3);
    let lines =
        "SET p 1,INCR p,SUBSCRIBE p.a p.b,GET p,ECHO x,PSUBSCRIBE p.*,UNSUBSCRIBE p.a,INCR p,SSUBSCRIBE p1,GET p";
    let frame = |line: &str| crate::support::client::frame(&line.split(' ').collect::<Vec<_>>());
    let bytes: Vec<u8> = lines.split(',').flat_map(frame).collect();
    pair.proxy.send_raw(&bytes);
    pair.redis.send_raw(&bytes);
    pair.same("pipeline", 11);
    pair.quiet();
}

#[test]
fn counts_and_order_hold_over_workers_and_proxies() {
    let cluster = shared();
    let proxies = [Proxy::before(cluster), Proxy::before(cluster)];
    let mut subscribers: Vec<Client> = (0..20).map(|index| proxies[index % 2].client()).collect();
    for subscriber in &mut subscribers {
        assert_eq!(subscriber.line("SUBSCRIBE many"), "*3\r\n$9\r\nsubscribe\r\n$4\r\nmany\r\n:1\r\n");
    }
    let mut publishers: Vec<Client> = (0..4).map(|index| proxies[index % 2].client()).collect();
    for number in 0..100 {
        let publisher = &mut publishers[number % 4];
        assert_eq!(publisher.line(&format!("PUBLISH many {number}")), ":20\r\n");
    }
    for subscriber in &mut subscribers {
        for number in 0..100 {
            assert_eq!(subscriber.reply().texts()[2], number.to_string());
        }
    }
    let listed = |proxy: &Proxy| {
        let list = proxy.client().line("CLIENT LIST TYPE pubsub").string();
        list.lines().filter(|line| line.contains(" sub=1 psub=0 ssub=0 ")).count()
    };
    assert_eq!(listed(&proxies[0]) + listed(&proxies[1]), 20);
    eventually("the metric", || proxies[0].metric("slotway_subscriptions", &[]) == 10.0);
    drop(subscribers);
    eventually("the subscriptions to end", || {
        publishers[0].line("PUBSUB NUMSUB many").value().items()[1].integer() == Some(0)
    });
    eventually("the metric", || proxies[0].metric("slotway_subscriptions", &[]) == 0.0);
}

#[test]
fn shard_channels_of_many_slots() {
    let (proxy, redis) = (Proxy::before(shared()), Node::standalone());
    for version in [2, 3] {
        let mut subscriber = Pair::new("subscriber", &proxy, &redis, version);
        let mut publisher = Pair::new("publisher", &proxy, &redis, 2);
        subscriber.line("SSUBSCRIBE s1 s2 s3 s4 s5 s6 s1", 7);
        subscriber.line("SUBSCRIBE s1", 1);
        for channel in ["s1", "s2", "s3", "s4", "s5", "s6", "s7"] {
            publisher.line(&format!("SPUBLISH {channel} to-{channel}"), 1);
            if channel != "s7" {
                subscriber.same(channel, 1);
            }
        }
        publisher.line("PUBLISH s1 classic", 1);
        subscriber.same("classic", 1);
        publisher.line("PUBSUB SHARDNUMSUB s1 s2 s7", 1);
        subscriber.line("SUNSUBSCRIBE s2 s3 other", 3);
        publisher.line("SPUBLISH s2 unheard", 1);
        subscriber.line("UNSUBSCRIBE", 1);
        let line = "SUNSUBSCRIBE";
        let counts = |replies: Vec<crate::support::Reply>| -> Vec<i64> {
            replies.iter().map(|reply| reply.value().items()[2].integer().unwrap()).collect()
        };
        let (found, expected) = (sorted(&mut subscriber.proxy, line, 4), sorted(&mut subscriber.redis, line, 4));
        let (mut found, mut expected) = (counts(found), counts(expected));
        found.sort();
        expected.sort();
        assert_eq!(found, expected);
        subscriber.line("SUNSUBSCRIBE", 1);
        subscriber.quiet();
    }
}

#[test]
fn notifications_come_from_all_primaries() {
    let cluster = Cluster::three();
    for node in &cluster.nodes {
        node.line("CONFIG SET notify-keyspace-events KEA");
    }
    let (proxy, redis) = (Proxy::before(&cluster), Node::standalone());
    redis.line("CONFIG SET notify-keyspace-events KEA");
    let mut events = Pair::new("events", &proxy, &redis, 2);
    let mut all = Pair::new("all", &proxy, &redis, 3);
    let mut writer = Pair::new("writer", &proxy, &redis, 2);
    events.line("PSUBSCRIBE __keyevent@0__:set plain.*", 2);
    events.line("SUBSCRIBE __keyspace@0__:k1", 1);
    all.line("PSUBSCRIBE *", 1);
    for index in 0..20 {
        writer.line(&format!("SET k{index} v"), 1);
        events.same("set", if index == 1 { 2 } else { 1 });
        all.same("set", 2);
    }
    writer.line("PUBLISH plain.x once", 1);
    events.same("plain", 1);
    all.same("plain", 1);
    events.line("PUNSUBSCRIBE __keyevent@0__:set", 1);
    writer.line("SET k1 w", 1);
    events.same("k1", 1);
    events.quiet();
    all.same("k1", 2);
    all.quiet();
}

/// The node that all publishing goes through: the primary with the lowest id.
fn home(cluster: &Cluster) -> usize {
    (0..3).min_by_key(|index| cluster.id(*index)).unwrap()
}

/// Publishes numbers, from `first` on, until the last of `subscribers` has one.
#[track_caller]
fn publish_until_heard(publisher: &mut Client, channel: &str, first: i64, subscriber: &mut Client) -> i64 {
    subscriber.patience = Duration::from_millis(100);
    let mut number = first;
    let heard = until("a message to arrive", Duration::from_secs(30), || {
        number += 1;
        publisher.line(&format!("PUBLISH {channel} {number}"));
        Some(subscriber.read().ok()?.texts()[2].parse::<i64>().unwrap())
    });
    subscriber.patience = Duration::from_secs(15);
    assert!(heard > first, "{heard} is older than {first}");
    number
}

#[test]
fn subscriptions_outlive_the_pubsub_node() {
    let shape = Shape { replicas: 1, node_timeout: Duration::from_secs(2), ..Shape::default() };
    let mut cluster = Cluster::start(shape);
    for node in &cluster.nodes {
        node.line("CONFIG SET notify-keyspace-events KEA");
    }
    let proxy = Proxy::start(Settings::new(cluster.seeds()).expecting_warnings());
    let (mut subscriber, mut events, mut publisher) = (proxy.client(), proxy.client(), proxy.client());
    subscriber.line("SUBSCRIBE a");
    events.line("PSUBSCRIBE __keyevent@0__:set");
    let dead = home(&cluster);
    cluster.nodes[dead].kill();
    let last = publish_until_heard(&mut publisher, "a", 0, &mut subscriber);
    // What was published in between is lost; from here on nothing is.
    eventually("a stable state", || publisher.line("PUBLISH a settled") == ":1\r\n");
    let mut numbers = Vec::new();
    for number in last + 1..last + 50 {
        publisher.line(&format!("PUBLISH a {number}"));
    }
    publisher.line("PUBLISH a end");
    loop {
        match &*subscriber.reply().texts()[2] {
            "end" => break,
            text => numbers.extend(text.parse::<i64>()),
        }
    }
    let tail: Vec<i64> = numbers.into_iter().filter(|number| *number > last).collect();
    assert_eq!(tail, (last + 1..last + 50).collect::<Vec<_>>());
    eventually("the gap to be counted", || proxy.metric("slotway_subscription_gaps_total", &[]) >= 1.0);
    assert!(proxy.log().contains("subscriptions interrupted"), "{}", proxy.log());

    // The promoted replica must notify as well.
    let promoted = dead + 3;
    cluster.wait_until_primary(promoted);
    let key = cluster.key_on(dead, "k");
    events.patience = Duration::from_millis(100);
    until("a notification of the promoted replica", Duration::from_secs(20), || {
        publisher.line(&format!("SET {key} v"));
        events.read().ok().filter(|reply| reply.texts()[3] == key)
    });
}

#[test]
fn a_planned_move_of_the_pubsub_node_loses_nothing() {
    let cluster = Cluster::start(Shape { replicas: 1, ..Shape::default() });
    let proxy = Proxy::start(Settings::new(cluster.seeds()).expecting_warnings());
    let (mut subscriber, mut publisher) = (proxy.client(), proxy.client());
    subscriber.line("SUBSCRIBE a");
    subscriber.line("PSUBSCRIBE a*");
    let old = home(&cluster);
    let mut number = 0;
    let mut publish = |count: usize, publisher: &mut Client| {
        for _ in 0..count {
            number += 1;
            assert!(!publisher.line(&format!("PUBLISH a {number}")).is_error());
        }
        number
    };
    publish(50, &mut publisher);
    cluster.fail_over_to(old + 3, "");
    // As a fail-over, or as slots that have moved, where the former primary still calls itself one.
    let moved = || ["fail-over: ", "slots moved from"].iter().any(|said| proxy.log().contains(said));
    while !moved() {
        publish(10, &mut publisher);
    }
    let before = publish(200, &mut publisher);
    eventually("the new subscription", || publisher.line("PUBLISH a settled") == ":2\r\n");
    publish(50, &mut publisher);
    publisher.line("PUBLISH a end");
    let mut heard = [Vec::new(), Vec::new()];
    let mut ends = 0;
    while ends < 2 {
        let texts = subscriber.reply().texts();
        let by_pattern = usize::from(texts[0] == "pmessage");
        match texts.last().unwrap().as_str() {
            "end" => ends += 1,
            text => heard[by_pattern].extend(text.parse::<u32>()),
        }
    }
    for mut heard in heard {
        heard.sort();
        let odd: Vec<_> =
            (1..=before + 50).filter(|one| heard.iter().filter(|other| *other == one).count() != 1).collect();
        assert!(odd.is_empty(), "lost or doubled: {odd:?} of {}", heard.len());
    }
    assert_eq!(proxy.metric("slotway_subscription_gaps_total", &[]), 0.0);
}

/// What was published before the new node was subscribed to is on its way to the old one, however long that takes.
#[test]
fn an_old_pubsub_node_that_is_behind_is_heard_out() {
    let mut cluster = Cluster::start(Shape { replicas: 1, ..Shape::default() });
    let proxy = Proxy::start(Settings::new(cluster.seeds()).with("WORKERS", 1).expecting_warnings());
    let (mut subscriber, mut publisher) = (proxy.client(), proxy.client());
    subscriber.line("SUBSCRIBE a");
    let old = home(&cluster);
    cluster.fail_over_to(old + 3, "");
    let explained = || proxy.client().line("PROXY EXPLAIN PUBLISH a x").texts().join(" ");
    eventually("the proxy to know", || !explained().contains(&cluster.nodes[old].address()));
    cluster.nodes[old].pause();
    let mut published: u32 = 0;
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(1) {
        published += 1;
        assert!(!publisher.line(&format!("PUBLISH a {published}")).is_error());
    }
    cluster.nodes[old].resume();
    // What the old node had not brought comes behind the rest.
    let mut numbers: Vec<u32> = (0..published).map(|_| subscriber.reply().texts()[2].parse().unwrap()).collect();
    numbers.sort();
    assert!(numbers.iter().copied().eq(1..=published), "some came twice");
}

#[test]
fn shard_subscriptions_follow_their_slot() {
    let cluster = Cluster::three();
    let proxy = Proxy::start(Settings::new(cluster.seeds()).expecting_warnings());
    let (mut subscriber, mut publisher) = (proxy.client(), proxy.client_of(3));
    let channel = cluster.key_on(0, "c");
    let stays = cluster.key_on(1, "c");
    let slot = slotway::protocol::slot::Slot::of(channel.as_bytes()).index();
    subscriber.call(&["SSUBSCRIBE", &channel, &stays]);
    subscriber.reply();
    let mut from = 0;
    // The same messages each time, and one move soon after the other: what one node says is no echo of the other's.
    for to in [2, 1, 0, 1, 2, 0, 2, 1] {
        // Somebody publishes all the while: the proxy then learns of the move now by a publisher, now by the subscriber.
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut busy = proxy.client();
                while !stop.load(Relaxed) {
                    busy.call(&["SPUBLISH", &channel, "try"]);
                }
            });
            cluster.move_slot(slot, from, to);
            stop.store(true, Relaxed);
        });
        from = to;
        eventually("the subscription to follow", || publisher.call(&["SPUBLISH", &channel, "try"]) == ":1\r\n");
        publisher.call(&["SPUBLISH", &channel, "here"]);
        publisher.call(&["SPUBLISH", &stays, "end"]);
        let mut heard = Vec::new();
        // Two nodes: what the one says may come before what the other has said.
        while !(heard.contains(&"end".to_owned()) && heard.contains(&"here".to_owned())) {
            let texts = subscriber.reply().texts();
            assert_eq!(texts[0], "smessage", "{texts:?}");
            heard.push(texts[2].clone());
        }
        assert_eq!(heard.iter().filter(|text| *text != "try").count(), 2, "{heard:?}");
    }
}

#[test]
fn a_slow_subscriber_is_closed_and_slows_nobody() {
    let proxy =
        Proxy::start(Settings::new(shared().seeds()).with("PUBSUB__HARD_LIMIT", "4MiB").expecting("reads too slowly"));
    let (mut slow, mut quick, mut publisher) = (proxy.client(), proxy.client(), proxy.client());
    slow.line("SUBSCRIBE big");
    quick.line("SUBSCRIBE big");
    let message = "x".repeat(256 * 1024);
    let mut sent = 0;
    until("the slow one to be closed", Duration::from_secs(30), || {
        let receivers = publisher.call(&["PUBLISH", "big", &message]).integer();
        sent += 1;
        assert_eq!(quick.reply().texts()[2].len(), message.len());
        (receivers == 1).then_some(())
    });
    assert!(sent >= 16, "closed after {sent} messages");
    assert!(proxy.log().contains("a subscriber that reads too slowly"));
    eventually("the count", || proxy.metric("slotway_client_disconnects_total", &["output_limit"]) == 1.0);
    eventually("its memory to be given back", || proxy.metric("slotway_client_buffered_bytes", &[]) < 1e6);
    let end = slow.read_to_end().unwrap();
    assert!(end.len() < sent * message.len());
}
