//! Databases of their own beside each other: what is a server's own besides its keys (scripts, pauses, channels) is each
//! database's own, and what acts on all of them is refused unless it is allowed.

use std::time::{Duration, Instant};

use super::listeners::{at, with_file};
use crate::support::{Client, Cluster, Node, Proxy, Settings, eventually};

const TWO: &str = "databases = 4\n\
    [[listeners]]\naddress = \"127.0.0.1:{a}\"\ndatabase = \"shop\"\n\
    [[listeners]]\naddress = \"127.0.0.1:{b}\"\ndatabase = \"blog\"\n";

/// The same words to both, which are answered alike.
fn same(ours: &mut Client, theirs: &mut Client, line: &str) {
    assert_eq!(ours.line(line), theirs.line(line), "{line}");
}

#[test]
fn a_database_flushes_no_scripts_but_its_own() {
    let cluster = Cluster::three();
    let (settings, ports) = with_file(&cluster, TWO);
    let (proxy, oracle) = (Proxy::start(settings), Node::standalone());
    let (mut whole, mut shop, mut blog, mut plain) = (proxy.client(), at(ports[0]), at(ports[1]), oracle.client());
    let digest = plain.call(&["SCRIPT", "LOAD", "return 1"]).string();
    let (runs, exists) = (format!("EVALSHA {digest} 0"), format!("SCRIPT EXISTS {digest}"));
    for client in [&mut whole, &mut shop, &mut blog] {
        assert_eq!(client.call(&["SCRIPT", "LOAD", "return 1"]).string(), digest);
    }
    assert_eq!(shop.line("SELECT 3"), "+OK\r\n");
    // One server has its scripts for all its numbers.
    assert_eq!(shop.line(&runs), ":1\r\n");
    for flush in ["SCRIPT FLUSH", "SCRIPT FLUSH ASYNC", "SCRIPT FLUSH NOW", "SCRIPT FLUSH SYNC more"] {
        same(&mut shop, &mut plain, flush);
        same(&mut shop, &mut plain, &exists);
        same(&mut shop, &mut plain, &runs);
    }
    for client in [&mut whole, &mut blog] {
        assert_eq!(client.line(&runs), ":1\r\n", "neighbours keep theirs");
        assert_eq!(client.line(&exists), "*1\r\n:1\r\n");
    }
    for client in [&mut shop, &mut plain] {
        client.call(&["EVAL", "return 1", "0"]);
    }
    for line in ["MULTI", "SCRIPT FLUSH", "EXEC", &exists, &runs] {
        same(&mut shop, &mut plain, line);
    }
    // Who works in all of the cluster flushes what is known there.
    assert_eq!(whole.line("SCRIPT FLUSH"), "+OK\r\n");
    assert!(whole.line(&runs).0.starts_with(b"-NOSCRIPT"));
    assert_eq!(blog.line(&runs), ":1\r\n");
    assert_eq!(blog.line(&exists), "*1\r\n:1\r\n");
}

#[test]
fn a_pause_in_a_database_holds_nobody_elses_clients() {
    let cluster = Cluster::three();
    let (settings, ports) = with_file(&cluster, TWO);
    let proxy = Proxy::start(settings);
    let (mut whole, mut shop, mut again, mut blog) = (proxy.client(), at(ports[0]), at(ports[0]), at(ports[1]));
    assert_eq!(again.line("SELECT 2"), "+OK\r\n");
    assert_eq!(shop.line("CLIENT PAUSE 60000 WRITE"), "+OK\r\n");
    again.send(&["SET", "a", "1"]);
    eventually("the client of another number waits", || {
        shop.line("INFO clients").string().contains("blocked_clients:1")
    });
    for client in [&mut whole, &mut blog] {
        assert_eq!(client.line("SET a 1"), "+OK\r\n");
        assert_eq!(client.line("CLIENT UNPAUSE"), "+OK\r\n", "it ends no pause of others");
    }
    assert_eq!(shop.line("GET a"), "$-1\r\n");
    assert!(shop.line("INFO clients").string().contains("blocked_clients:1"));
    assert_eq!(shop.line("CLIENT UNPAUSE"), "+OK\r\n");
    assert_eq!(again.reply(), "+OK\r\n");
    // One of all of the cluster is for everybody.
    let begun = Instant::now();
    assert_eq!(whole.line("CLIENT PAUSE 500 ALL"), "+OK\r\n");
    assert_eq!(blog.line("GET a"), "$1\r\n1\r\n");
    assert!(begun.elapsed() >= Duration::from_millis(500));
}

#[test]
fn what_acts_on_all_databases_is_done_where_it_is_allowed() {
    let cluster = Cluster::three();
    let refusing = Proxy::start(Settings::new(cluster.seeds()).with("DATABASE", "shop"));
    let allowed = "function,config set,config resetstat,script kill,debug,slowlog reset,latency reset,acl log";
    let allowing = Proxy::start(Settings::new(cluster.seeds()).with("DATABASE", "shop").with("ALLOW", allowed));
    let oracle = Node::standalone();
    let (mut refused, mut owner, mut plain) = (refusing.client(), allowing.client(), oracle.client());
    let code = "#!lua name=lib\nredis.register_function('f', function(keys, args) return args[1] end)";
    let requests: Vec<Vec<&str>> = vec![
        vec!["FUNCTION", "LOAD", code],
        vec!["FCALL", "f", "0", "x"],
        vec!["FUNCTION", "DELETE", "lib"],
        vec!["FUNCTION", "FLUSH"],
        vec!["FUNCTION", "KILL"],
        vec!["SCRIPT", "KILL"],
        vec!["CONFIG", "SET", "slowlog-max-len", "77"],
        vec!["CONFIG", "GET", "slowlog-max-len"],
        vec!["CONFIG", "RESETSTAT"],
        vec!["SLOWLOG", "RESET"],
        vec!["LATENCY", "RESET"],
        vec!["ACL", "LOG", "RESET"],
        vec!["DEBUG", "SLEEP", "0"],
    ];
    for request in &requests {
        assert_eq!(owner.call(request), plain.call(request), "{request:?}");
    }
    for node in &cluster.nodes {
        assert_eq!(node.line("CONFIG GET slowlog-max-len").texts(), ["slowlog-max-len", "77"], "all nodes are alike");
    }
    for request in requests.iter().filter(|request| !matches!(request[0], "FCALL") && request[1] != "GET") {
        // What is so already is no change.
        if request[..2] != ["CONFIG", "SET"] {
            let told = refused.call(request);
            assert!(told.0.starts_with(b"-ERR proxy: "), "{request:?}: {told:?}");
        }
    }
}

/// Beyond 10,000 keys in the slot a part of them tells how many of all are others'.
#[test]
fn very_many_keys_are_counted_exactly_or_nearly_where_others_have_keys_in_the_slot() {
    let cluster = Cluster::three();
    let (shop, whole) =
        (Proxy::start(Settings::new(cluster.seeds()).with("DATABASE", "shop")), Proxy::before(&cluster));
    let (mut inside, mut outside) = (shop.client(), whole.client());
    let sets = |client: &mut Client, name: &str, numbers: std::ops::Range<usize>| {
        let pairs = numbers.flat_map(|number| [format!("{name}{number}"), "v".into()]);
        let request: Vec<String> = ["MSET".into()].into_iter().chain(pairs).collect();
        assert_eq!(client.call(&request), "+OK\r\n");
    };
    (0..11).for_each(|part| sets(&mut inside, "own:", part * 1000..(part + 1) * 1000));
    assert_eq!(inside.line("DBSIZE").integer(), 11_000, "exactly, where the slot has none of others");
    inside.line("FLUSHDB");
    assert_eq!(inside.line("DBSIZE").integer(), 0);
    for part in 0..100 {
        sets(&mut inside, "own:", part * 100..(part + 1) * 100);
        sets(&mut outside, "other{shop}", part * 50..(part + 1) * 50);
    }
    let counted = inside.line("DBSIZE").integer();
    assert!((9_500..10_500).contains(&counted), "10,000 of 15,000: {counted}");
    let told = inside.line("INFO keyspace").string();
    assert!(told.contains(&format!("keys={counted},")), "{told}");
    assert_eq!(inside.line("KEYS own:*").texts().len(), 10_000, "what is listed is exact");
    assert_eq!(super::differential::scanned(&mut inside, " COUNT 1000").len(), 10_000);
    inside.line("FLUSHDB");
    assert_eq!((inside.line("DBSIZE").integer(), outside.line("DBSIZE").integer()), (0, 5_000));
}

/// Two tenants and a plain server for each: what they say and hear is the same.
#[test]
fn channels_are_each_databases_own_where_that_is_wanted() {
    let cluster = Cluster::three();
    let (settings, ports) = with_file(&cluster, &format!("isolate_channels = true\n{TWO}"));
    let proxy = Proxy::start(settings);
    for version in [2, 3] {
        let servers = [Node::standalone(), Node::standalone()];
        let clients = || -> Vec<(Client, Client)> {
            let pair = |(port, server): (&u16, &Node)| (at(*port), server.client());
            let mut pairs: Vec<_> = ports.iter().zip(&servers).map(pair).collect();
            for (ours, theirs) in &mut pairs {
                for client in [ours, theirs] {
                    client.line(&format!("HELLO {version}"));
                }
            }
            pairs
        };
        let (mut hearing, mut saying) = (clients(), clients());
        // Subscriptions are for all numbers of a name.
        saying[0].0.line("SELECT 3");
        saying[0].1.line("SELECT 3");
        let subscribe: [(&[&str], usize); 3] = [
            (&["SUBSCRIBE", "news", "b", "{shop}news"], 3),
            (&["PSUBSCRIBE", "n?w[a-s]", "*", "\\{*", "news*"], 4),
            (&["UNSUBSCRIBE", "b", "none"], 2),
        ];
        for (request, count) in subscribe {
            for (ours, theirs) in &mut hearing {
                for client in [&mut *ours, &mut *theirs] {
                    client.send(request);
                }
                for _ in 0..count {
                    assert_eq!(ours.reply(), theirs.reply(), "{request:?} as version {version}");
                }
            }
        }
        for (tenant, (ours, theirs)) in saying.iter_mut().enumerate() {
            for line in ["PUBSUB CHANNELS", "PUBSUB CHANNELS n*"] {
                let sorted = |client: &mut Client| {
                    let mut all = client.line(line).texts();
                    all.sort_unstable();
                    all
                };
                assert_eq!(sorted(ours), sorted(theirs), "{line}");
            }
            for line in ["PUBSUB NUMSUB news b {shop}news", "PUBSUB NUMSUB", "PUBSUB NUMPAT"] {
                same(ours, theirs, line);
            }
            // Of a script its node tells how many it reaches itself.
            let script = "redis.call('PUBLISH', ARGV[1], 'by script') return redis.pcall('PUBLISH', {}, 1)";
            let said: Vec<Vec<&str>> = vec![
                vec!["PUBLISH", "news", "one"],
                vec!["PUBLISH", "b", "two"],
                vec!["PUBLISH", "{shop}news", "three"],
                vec!["MULTI"],
                vec!["PUBLISH", "news", "within"],
                vec!["PUBSUB", "NUMSUB", "news"],
                vec!["EXEC"],
                vec!["EVAL", script, "0", "news"],
            ];
            for request in &said {
                assert_eq!(ours.call(request), theirs.call(request), "{request:?} by tenant {tenant}");
            }
        }
        // What scripts publish comes last, to the channel and three patterns.
        let until_end = |client: &mut Client| -> Vec<String> {
            let (mut heard, mut by_script) = (Vec::new(), 0);
            while by_script < 4 {
                let message = client.reply();
                by_script += usize::from(message.texts().contains(&"by script".to_owned()));
                heard.push(format!("{message:?}"));
            }
            heard.sort_unstable();
            heard
        };
        for (ours, theirs) in &mut hearing {
            assert_eq!(until_end(ours), until_end(theirs), "as version {version}");
        }
        drop(hearing);
        for (client, _) in &mut saying {
            eventually("nobody is subscribed", || {
                client.line("PUBSUB NUMPAT") == ":0\r\n" && client.line("PUBSUB CHANNELS") == "*0\r\n"
            });
        }
    }
    // Who works in all of the cluster meets them by their real names.
    let (mut whole, mut shop) = (proxy.client(), at(ports[0]));
    whole.line("PSUBSCRIBE {*");
    assert_eq!(shop.line("PUBLISH news one"), ":1\r\n");
    assert_eq!(whole.reply().texts(), ["pmessage", "{*", "{shop}news", "one"]);
}

/// Notifications are told as ever, and no tenant can make up those of another.
#[test]
fn notifications_reach_their_database_with_channels_of_its_own() {
    let cluster = Cluster::three();
    cluster.nodes.iter().for_each(|node| drop(node.line("CONFIG SET notify-keyspace-events KEA")));
    let (settings, ports) = with_file(&cluster, &format!("isolate_channels = true\n{TWO}"));
    let _proxy = Proxy::start(settings);
    let (mut hearing, mut shop, mut blog) = (at(ports[0]), at(ports[0]), at(ports[1]));
    assert_eq!(hearing.line("PSUBSCRIBE __key*__:*"), "*3\r\n$10\r\npsubscribe\r\n$10\r\n__key*__:*\r\n:1\r\n");
    assert_eq!(
        hearing.line("SUBSCRIBE __keyspace@0__:k"),
        "*3\r\n$9\r\nsubscribe\r\n$16\r\n__keyspace@0__:k\r\n:2\r\n"
    );
    blog.line("SET k 1");
    blog.line("PUBLISH __keyspace@0__:{shop}k forged");
    blog.line("PUBLISH __keyspace@0__:k forged");
    shop.line("SET k 1");
    let mut heard: Vec<Vec<String>> = (0..3).map(|_| hearing.reply().texts()).collect();
    heard.sort_unstable();
    assert_eq!(
        heard,
        [
            vec!["message", "__keyspace@0__:k", "set"],
            vec!["pmessage", "__key*__:*", "__keyevent@0__:set", "k"],
            vec!["pmessage", "__key*__:*", "__keyspace@0__:k", "set"],
        ]
    );
}
