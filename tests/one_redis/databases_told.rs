//! What clients in a database of their own are told unasked: keyspace notifications with their own keys and numbers, and what
//! is published on shard channels of the database.

use super::pubsub::Pair;
use crate::support::{Cluster, Flavour, Node, Proxy, Settings, Setup, Shape, cluster::shared, eventually};

const ALL: &str = "CONFIG SET notify-keyspace-events KEA";

#[test]
fn notifications_are_those_of_one_server() {
    for flavour in [Flavour::Redis, Flavour::Valkey] {
        if !flavour.is_here("databases_told::notifications_are_those_of_one_server") {
            continue;
        }
        let cluster = Cluster::start(Shape { flavour, ..Shape::default() });
        let redis = Node::start(&Setup { flavour, ..Setup::default() });
        cluster.nodes.iter().chain([&redis]).for_each(|node| drop(node.line(ALL)));
        for name in [Some("shop"), None] {
            let settings = Settings::new(cluster.seeds()).with("DATABASES", 3);
            let settings = match name {
                Some(name) => settings.with("DATABASE", name),
                None => settings,
            };
            let (proxy, other) =
                (Proxy::start(settings), Proxy::start(Settings::new(cluster.seeds()).with("DATABASE", "other")));
            let mut stranger = other.client();
            let [mut events, mut keys, mut all, mut writer] = [("events", 2), ("keys", 3), ("all", 2), ("writer", 2)]
                .map(|(what, version)| Pair::new(what, &proxy, &redis, version));
            events.line("PSUBSCRIBE __keyevent@1__:* __keyevent@1__:set plain.*", 3);
            events.line("SUBSCRIBE __keyevent@2__:del __keyevent@1__:set", 2);
            keys.line("SUBSCRIBE __keyspace@1__:a __keyspace@2__:a __keyspace@7__:a", 3);
            keys.line("PSUBSCRIBE __keyspace@1__:a[bc]* __keyspace@1__:{other}*", 2);
            all.line("PSUBSCRIBE *", 1);
            all.line("PSUBSCRIBE __key*@2__:?", 1);
            writer.line("SELECT 1", 1);
            // Applications ask for what is on already.
            writer.line("CONFIG SET notify-keyspace-events Ex", 1);
            redis.line(ALL);
            for line in [
                "SET a 1",
                "SET b 1",
                "SET abc 1",
                "MSET {other}x 1 acc 2",
                "RENAME a ax",
                "DEL none ab abc",
                "SELECT 2",
                "SET a 2",
                "DEL a",
                "RPUSH list x",
                "LPOP list",
                "SELECT 1",
                "EVAL return{redis.call('SET','a',1),redis.call('DEL','a')} 0",
                "PUBLISH plain.x once",
            ] {
                // Database 0 without a name has all others in it.
                if name.is_some() {
                    stranger.line("SET a 1");
                    stranger.line("DEL a");
                }
                writer.line(line, 1);
                for pair in [&mut events, &mut keys, &mut all] {
                    pair.told(line);
                }
            }
            for pair in [&mut events, &mut keys] {
                pair.quiet();
            }
            // What is for several goes with the last of them.
            events.line("PUNSUBSCRIBE __keyevent@1__:set", 1);
            writer.line("SET a 1", 1);
            assert_eq!((events.told("one less"), keys.told("the same")), (2, 1));
            events.line("PUNSUBSCRIBE __keyevent@1__:*", 1);
            writer.line("SET a 1", 1);
            assert_eq!((events.told("two less"), keys.told("the same")), (1, 1));
            events.line("UNSUBSCRIBE __keyevent@1__:set", 1);
            writer.line("SET a 1", 1);
            events.quiet();
            writer.line("DEL a {other}x acc ax b", 1);
        }
    }
}

/// Where the slot has gone, the notifications come from.
#[test]
fn notifications_follow_the_slot() {
    let cluster = Cluster::three();
    cluster.nodes.iter().for_each(|node| drop(node.line(ALL)));
    let proxy = Proxy::start(Settings::new(cluster.seeds()).with("DATABASE", "moves"));
    let (mut subscriber, mut writer) = (proxy.client(), proxy.client());
    subscriber.line("SUBSCRIBE __keyspace@0__:a");
    writer.line("SET a 1");
    assert_eq!(subscriber.reply().texts(), ["message", "__keyspace@0__:a", "set"]);
    let from = cluster.home_of("{moves}");
    let to = (from + 1) % 3;
    let slot =
        usize::try_from(cluster.node(0).client().call(&["CLUSTER", "KEYSLOT", "moves"]).integer()).expect("a slot");
    cluster.open_slot(slot, from, to);
    cluster.move_keys(&["{moves}a"], from, to);
    cluster.close_slot(slot, from, to);
    eventually("the new owner is heard", || {
        writer.line("APPEND a 1");
        subscriber.send(&["PING"]);
        let mut heard = false;
        loop {
            match subscriber.reply().texts().as_slice() {
                [verb, ..] if verb == "pong" => return heard,
                [_, channel, event] => heard |= channel == "__keyspace@0__:a" && event == "append",
                _ => {}
            }
        }
    });
}

/// Shard channels belong to a database: nobody else hears what is published there.
#[test]
fn shard_channels_are_the_databases_own() {
    let cluster = shared();
    let inside = |name: &str| Proxy::start(Settings::new(cluster.seeds()).with("DATABASE", name));
    let (proxy, other, redis) = (inside("shards"), inside("others"), Node::standalone());
    let mut stranger = other.client();
    for version in [2, 3] {
        let mut subscriber = Pair::new("subscriber", &proxy, &redis, version);
        let mut publisher = Pair::new("publisher", &proxy, &redis, 2);
        subscriber.line("SSUBSCRIBE s1 s2 {shards}s3 s1", 4);
        subscriber.line("SUBSCRIBE s1", 1);
        for channel in ["s1", "s2", "{shards}s3", "s7"] {
            assert_eq!(stranger.line(&format!("SPUBLISH {channel} unheard")).integer(), 0);
            publisher.line(&format!("SPUBLISH {channel} {{shards}}text"), 1);
            if channel != "s7" {
                subscriber.same(channel, 1);
            }
        }
        publisher.line("MULTI", 1);
        publisher.line("SET key 1", 1);
        publisher.line("SPUBLISH s1 within", 1);
        publisher.line("EXEC", 1);
        subscriber.same("within", 1);
        publisher.line("EVAL return(redis.call('SPUBLISH','s2','scripted')) 0", 1);
        subscriber.same("scripted", 1);
        publisher.line("PUBSUB SHARDNUMSUB s1 s2 s7", 1);
        publisher.line("PUBSUB SHARDNUMSUB", 1);
        publisher.line("PUBSUB SHARDCHANNELS s2*", 1);
        publisher.line("PUBSUB SHARDCHANNELS nothing", 1);
        assert_eq!(publisher.proxy.line("PUBSUB SHARDCHANNELS").texts().len(), 3);
        assert_eq!(stranger.line("PUBSUB SHARDCHANNELS").texts().len(), 0);
        publisher.redis.line("PING");
        subscriber.line("SUNSUBSCRIBE s2 other", 2);
        publisher.line("SPUBLISH s2 unheard", 1);
        subscriber.line("SUNSUBSCRIBE {shards}s3", 1);
        subscriber.line("SUNSUBSCRIBE", 1);
        subscriber.line("SUNSUBSCRIBE", 1);
        subscriber.line("UNSUBSCRIBE", 1);
        subscriber.quiet();
    }
}
