//! Client-side caching: what a client may keep, it is told to drop in time; in front of a cluster as in front of one Redis.

use std::time::Duration;

use crate::support::{
    Client, Cluster, Flavour, Node, Proxy, Reply, Settings, Setup, Shape,
    client::{frame, words},
    cluster::shared,
    eventually, until,
};

/// Several clients of the proxy and as many of one Redis, that do the same: the bytes that come are compared.
struct Scene {
    pairs: Vec<[Client; 2]>,
    ids: Vec<[String; 2]>,
}

impl Scene {
    fn new(proxy: &Proxy, redis: &Node, versions: &[u8]) -> Scene {
        let (mut pairs, mut ids) = (Vec::new(), Vec::new());
        for version in versions {
            let mut pair = [proxy.client(), redis.client()];
            pair.iter_mut().for_each(|client| drop(client.line(&format!("HELLO {version}"))));
            ids.push(pair.each_mut().map(|client| client.line("CLIENT ID").integer().to_string()));
            pairs.push(pair);
        }
        Scene { pairs, ids }
    }

    /// The client `who` sends a line, in which `#n` stands for the id of client n; `frames` come.
    #[track_caller]
    fn line(&mut self, who: usize, line: &str, frames: usize) {
        for server in 0..2 {
            let mut line = line.to_owned();
            for (number, ids) in self.ids.iter().enumerate() {
                line = line.replace(&format!("#{number}"), &ids[server]);
            }
            self.pairs[who][server].send(&words(&line));
        }
        self.same(who, line, frames);
    }

    /// So many frames come for `who`.
    #[track_caller]
    fn same(&mut self, who: usize, line: &str, frames: usize) {
        for index in 0..frames {
            let [ours, theirs] = &mut self.pairs[who];
            let expected = theirs.reply();
            let found = ours.read().unwrap_or_else(|error| panic!("{line}, {index}: {error}, expected {expected:?}"));
            let (found, expected) = (shown(line, &found, &self.ids, 0), shown(line, &expected, &self.ids, 1));
            assert_eq!(found, expected, "{line}, frame {index}");
        }
    }

    /// The client `who` speaks this version of RESP from now on.
    fn speak(&mut self, who: usize, version: u8) {
        for client in &mut self.pairs[who] {
            let greeting = client.line(&format!("HELLO {version}"));
            assert!(matches!(greeting.0.first(), Some(b'*' | b'%')), "{greeting:?}");
        }
    }

    /// Nothing has come for `who` unasked.
    #[track_caller]
    fn quiet(&mut self, who: usize) {
        self.line(who, "PING", 1);
    }
}

/// A reply in which ids of clients, where they are told, are numbers of clients.
fn shown(line: &str, reply: &Reply, ids: &[[String; 2]], server: usize) -> String {
    let mut text = format!("{reply:?}");
    if !line.ends_with("GETREDIR") && !text.contains("redir") {
        return text;
    }
    for (number, ids) in ids.iter().enumerate() {
        text = text.replace(&format!(":{}\\r", ids[server]), &format!(":#{number}\\r"));
    }
    text
}

/// The proxy before all of the cluster, and before a database of its own there; each with a plain server to compare.
fn before_each() -> [(Proxy, Node); 2] {
    let inside = Settings::new(shared().seeds()).with("DATABASE", "tracked");
    [Proxy::before(shared()), Proxy::start(inside)].map(|proxy| (proxy, Node::standalone()))
}

const FLUSH: &str = ">2\r\n$10\r\ninvalidate\r\n_\r\n";

fn invalidation(key: &str) -> String {
    format!(">2\r\n$10\r\ninvalidate\r\n*1\r\n${}\r\n{key}\r\n", key.len())
}

/// Reads up to a message that drops `key`: by its name, or all.
#[track_caller]
fn dropped(client: &mut Client, key: &str, when: &str) {
    loop {
        let reply = client.read().unwrap_or_else(|error| panic!("{when}: {key} is not dropped: {error}"));
        if reply == FLUSH || reply == invalidation(key).as_str() {
            return;
        }
    }
}

#[test]
fn what_was_read_is_told() {
    for (proxy, redis) in before_each() {
        let mut scene = Scene::new(&proxy, &redis, &[3, 2]);
        for line in ["MSET tr.a 1 tr.b 2 tr.c 3", "DEL tr.l"] {
            scene.line(1, line, 1);
        }
        scene.line(0, "CLIENT TRACKING ON", 1);
        scene.line(0, "CLIENT TRACKINGINFO", 1);
        scene.line(0, "CLIENT GETREDIR", 1);
        scene.line(0, "GET tr.a", 1);
        scene.line(1, "SET tr.a 2", 1);
        scene.same(0, "tr.a has changed", 1);
        // Once told, it is no longer remembered.
        scene.line(1, "SET tr.a 3", 1);
        scene.quiet(0);
        // Several keys, also of several nodes; what does not exist, too.
        scene.line(0, "MGET tr.a tr.b tr.c tr.none", 1);
        for key in ["tr.c", "tr.none", "tr.a"] {
            scene.line(1, &format!("SET {key} 5"), 1);
            scene.same(0, key, 1);
        }
        scene.line(1, "DEL tr.none", 1);
        scene.quiet(0);
        // What the client changes itself is told behind the reply.
        scene.line(0, "GET tr.a", 1);
        scene.line(0, "SET tr.a 6", 2);
        scene.line(0, "LRANGE tr.l 0 -1", 1);
        scene.line(0, "RPUSH tr.l x", 2);
        // In a transaction as well.
        scene.line(0, "MULTI", 1);
        scene.line(0, "GET tr.a", 1);
        scene.line(0, "EXEC", 1);
        scene.line(1, "INCR tr.a", 1);
        scene.same(0, "read in a transaction", 1);
        // A key that ends by itself.
        scene.line(1, "SET tr.e 1 PX 2000", 1);
        scene.line(0, "GET tr.e", 1);
        scene.same(0, "expired", 1);
        scene.line(0, "GET tr.b", 1);
        scene.line(0, "CLIENT TRACKING OFF", 1);
        scene.line(1, "SET tr.b 9", 1);
        scene.quiet(0);
        scene.line(0, "CLIENT TRACKINGINFO", 1);
        scene.line(1, "MGET tr.a tr.b tr.c", 1);
    }
}

#[test]
fn one_own_changes_are_not_told_with_noloop() {
    for (proxy, redis) in before_each() {
        let mut scene = Scene::new(&proxy, &redis, &[3, 2]);
        for mode in ["NOLOOP", "NOLOOP BCAST PREFIX nl."] {
            scene.line(0, &format!("CLIENT TRACKING ON {mode}"), 1);
            scene.line(0, "CLIENT TRACKINGINFO", 1);
            scene.line(0, "GET nl.a", 1);
            scene.line(0, "SET nl.a 1", 1);
            scene.quiet(0);
            scene.line(0, "GET nl.a", 1);
            scene.line(1, "SET nl.a 2", 1);
            scene.same(0, "another has changed it", 1);
            scene.line(0, "CLIENT TRACKING OFF", 1);
        }
    }
}

#[test]
fn caching_is_said_for_one_command() {
    for (proxy, redis) in before_each() {
        let mut scene = Scene::new(&proxy, &redis, &[3, 2]);
        for (mode, word) in [("OPTIN", "YES"), ("OPTOUT", "NO")] {
            scene.line(0, &format!("CLIENT TRACKING ON {mode}"), 1);
            let told = |yes: bool| usize::from((mode == "OPTIN") == yes);
            let mut read = |before: &[&str], lines: &[&str], frames: usize| {
                for line in before.iter().chain(lines) {
                    scene.line(0, line, 1);
                }
                scene.line(1, "INCR {oi}a", 1);
                scene.same(0, &format!("{mode}: {before:?} {lines:?}"), frames);
                scene.quiet(0);
            };
            let caching = format!("CLIENT CACHING {word}");
            read(&[], &["GET {oi}a"], told(false));
            read(&[&caching], &["GET {oi}a"], told(true));
            // For the next one, not for that behind it.
            read(&[&caching], &["GET {oi}b", "GET {oi}a"], told(false));
            read(&[&caching], &["PING", "GET {oi}a"], told(false));
            // CLIENT commands do not count.
            read(&[&caching, "CLIENT TRACKINGINFO", "CLIENT GETNAME"], &["GET {oi}a"], told(true));
            // For all of a transaction.
            read(&[&caching], &["MULTI", "GET {oi}b", "GET {oi}a", "EXEC"], told(true));
            read(&[], &["MULTI", "GET {oi}a", "EXEC"], told(false));
            // For all parts of what is split.
            read(&[&caching], &["MGET {oi}b oi.c {oi}a"], told(true));
            for line in ["CLIENT CACHING x", "CLIENT CACHING YES", "CLIENT CACHING NO", "CLIENT TRACKING ON BCAST"] {
                scene.line(0, line, 1);
            }
            scene.line(0, "CLIENT TRACKING OFF", 1);
        }
        scene.line(1, "DEL {oi}a", 1);
    }
}

#[test]
fn arguments_that_do_not_fit_are_refused() {
    for (proxy, redis) in before_each() {
        let mut scene = Scene::new(&proxy, &redis, &[3, 3]);
        for line in [
            "CLIENT TRACKING ON BCAST PREFIX a: PREFIX b:",
            "CLIENT TRACKING ON BCAST PREFIX a:b",
            "CLIENT TRACKING ON BCAST PREFIX c: PREFIX c:d",
            "CLIENT TRACKING ON BCAST PREFIX c:",
            "CLIENT TRACKINGINFO",
            "CLIENT TRACKING ON",
            "CLIENT TRACKING ON OPTIN",
            "CLIENT TRACKING ON BCAST OPTIN",
            "CLIENT CACHING YES",
            "CLIENT TRACKING OFF",
            "CLIENT TRACKING OFF",
            "CLIENT TRACKING ON OPTIN",
            "CLIENT TRACKING ON OPTOUT",
            "CLIENT TRACKING ON BCAST",
            "CLIENT CACHING NO",
            "CLIENT CACHING YES",
            "CLIENT TRACKINGINFO",
            "CLIENT TRACKING OFF",
            "CLIENT TRACKING ON REDIRECT #1 REDIRECT #1",
            "CLIENT TRACKING ON REDIRECT #1",
            "CLIENT GETREDIR",
            "CLIENT TRACKINGINFO",
            "CLIENT TRACKING ON REDIRECT 0",
            "RESET",
            "CLIENT TRACKINGINFO",
            "CLIENT GETREDIR",
        ] {
            scene.line(0, line, 1);
        }
    }
}

/// A cluster of each server, and a plain server beside it.
fn servers(test: &str) -> Vec<(Cluster, Node)> {
    let here = [Flavour::Redis, Flavour::Valkey].into_iter().filter(|flavour| flavour.is_here(test));
    let pair = |flavour| {
        let plain = Node::start(&Setup { flavour, ..Setup::default() });
        (Cluster::start(Shape { flavour, ..Shape::default() }), plain)
    };
    here.map(pair).collect()
}

#[test]
fn what_is_asked_for_besides_costs_nothing_that_is_cached() {
    for (cluster, redis) in servers("what_is_asked_for_besides_costs_nothing_that_is_cached") {
        let proxy = Proxy::before(&cluster);
        // Reader, two listeners and a writer; the reader in RESP3 and in RESP2, where nodes tell on another connection.
        for version in [3, 2] {
            let mut scene = Scene::new(&proxy, &redis, &[version, 3, 2, 2]);
            scene.line(2, "SUBSCRIBE __redis__:invalidate", 1);
            let to = if version == 3 { "" } else { " REDIRECT #1" };
            let told = if version == 3 { 0 } else { 1 };
            let ask = |scene: &mut Scene, options: &str| {
                scene.line(0, &format!("CLIENT TRACKING ON{to}{options}"), 1);
                scene.line(0, "CLIENT TRACKINGINFO", 1);
                scene.line(0, "CLIENT GETREDIR", 1);
            };
            // Prefixes, one after the other: each node tells of the old ones as well as of the new.
            ask(&mut scene, " BCAST PREFIX a: PREFIX b:");
            ask(&mut scene, " BCAST PREFIX c:");
            ask(&mut scene, " BCAST PREFIX d: NOLOOP");
            scene.quiet(told);
            for index in 0..12 {
                for prefix in ["a", "b", "c", "d"] {
                    scene.line(3, &format!("SET {prefix}:{index} 1"), 1);
                    scene.same(told, "a prefix", 1);
                }
                scene.line(0, &format!("SET b:{index} 2"), 1);
                scene.line(3, &format!("SET e:{index} 1"), 1);
            }
            scene.quiet(told);
            scene.line(0, "CLIENT TRACKING OFF", 1);

            // Of what was read, whatever is said afterwards.
            let mut round = 0;
            for (first, then) in [
                ("", " NOLOOP"),
                (" NOLOOP", ""),
                ("", " OPTIN"),
                (" OPTIN", ""),
                ("", " OPTOUT"),
                (" OPTOUT", " NOLOOP OPTOUT"),
            ] {
                round += 1;
                ask(&mut scene, first);
                if first == " OPTIN" {
                    scene.line(0, "CLIENT CACHING YES", 1);
                }
                scene.line(0, &format!("MGET rt:{round}:a rt:{round}:b rt:{round}:c"), 1);
                ask(&mut scene, then);
                scene.quiet(told);
                for key in ["a", "b", "c"] {
                    scene.line(3, &format!("SET rt:{round}:{key} x"), 1);
                    scene.same(told, &format!("{first} then {then}"), 1);
                }
                scene.quiet(told);
                scene.line(0, "CLIENT TRACKING OFF", 1);
            }

            // To another than before.
            scene.line(0, "CLIENT TRACKING ON REDIRECT #1", 1);
            scene.line(0, &format!("GET rr:{version}:a"), 1);
            scene.line(0, "CLIENT TRACKING ON REDIRECT #2", 1);
            scene.line(0, "CLIENT GETREDIR", 1);
            scene.line(0, "CLIENT TRACKINGINFO", 1);
            scene.line(3, &format!("SET rr:{version}:a 1"), 1);
            scene.same(2, "redirected anew", 1);
            scene.quiet(1);
            scene.line(0, "CLIENT TRACKING OFF", 1);
            scene.line(0, "CLIENT GETREDIR", 1);
            scene.line(3, "FLUSHALL", 1);
            scene.quiet(0);
        }
    }
}

#[test]
fn two_may_redirect_to_one() {
    for (cluster, redis) in servers("two_may_redirect_to_one") {
        let proxy = Proxy::before(&cluster);
        for listener in [2, 3] {
            let mut scene = Scene::new(&proxy, &redis, &[3, 2, listener, 2]);
            if listener == 2 {
                scene.line(2, "SUBSCRIBE __redis__:invalidate", 1);
            }
            for reader in [0, 1] {
                scene.line(reader, "CLIENT TRACKING ON REDIRECT #2", 1);
                scene.line(reader, "GET to.a", 1);
            }
            scene.line(1, "GET to.b", 1);
            scene.line(3, "SET to.a 1", 1);
            scene.same(2, "of both", 2);
            scene.line(3, "SET to.b 1", 1);
            scene.same(2, "of one", 1);
            scene.line(0, "CLIENT TRACKING OFF", 1);
            scene.line(1, "GET to.a", 1);
            scene.line(3, "SET to.a 2", 1);
            scene.same(2, "of the one that is left", 1);
            for who in 0..3 {
                scene.quiet(who);
            }
            scene.line(3, "DEL to.a to.b", 1);
        }
    }
}

#[test]
fn what_a_node_can_remember_no_more_is_dropped() {
    for (cluster, redis) in servers("what_a_node_can_remember_no_more_is_dropped") {
        let proxy = Proxy::before(&cluster);
        let mut scene = Scene::new(&proxy, &redis, &[3, 2]);
        scene.line(1, "CONFIG SET tracking-table-max-keys 2", 1);
        scene.line(0, "CLIENT TRACKING ON", 1);
        // All in one slot: each node has a table of its own.
        for key in 0..6 {
            scene.pairs[0].iter_mut().for_each(|client| client.send(&["GET", &format!("{{mk}}{key}")]));
        }
        // Which ones are dropped, the server chooses.
        let kinds = scene.pairs[0].each_mut().map(|client| {
            let frames: Vec<Reply> = (0..10).map(|_| client.reply()).collect();
            let told = frames.iter().filter(|frame| frame.0.starts_with(b">2\r\n$10\r\ninvalidate\r\n*1\r\n")).count();
            (told, frames.iter().filter(|frame| **frame == "_\r\n").count())
        });
        assert_eq!(kinds, [(4, 6), (4, 6)]);
        scene.quiet(0);
    }
}

#[test]
fn broadcasts_come_from_all_nodes() {
    for (proxy, redis) in before_each() {
        let mut scene = Scene::new(&proxy, &redis, &[3, 2]);
        scene.line(0, "CLIENT TRACKING ON BCAST PREFIX bc.x PREFIX bc.y", 1);
        for number in 0..20 {
            scene.line(1, &format!("SET bc.x{number} 1"), 1);
            scene.same(0, "x", 1);
            scene.line(1, &format!("SET bc.z{number} 1"), 1);
            scene.line(1, &format!("DEL bc.y{number} bc.x{number} bc.z{number}"), 1);
            scene.same(0, "x", 1);
            scene.quiet(0);
        }
        // Its own, behind the reply.
        scene.line(0, "SET bc.y 1", 2);
        scene.line(0, "RESET", 1);
        scene.line(1, "DEL bc.y", 1);
        scene.quiet(0);
    }
}

#[test]
fn messages_go_to_whom_they_are_redirected() {
    for (proxy, redis) in before_each() {
        for source in [2, 3] {
            // Six clients, so that reader and listener are on both workers.
            let mut scene = Scene::new(&proxy, &redis, &[source, source, 2, 2, 3, 2]);
            for listener in [2, 3] {
                scene.line(listener, "SUBSCRIBE __redis__:invalidate", 1);
            }
            let writer = 5;
            for (reader, listener) in [(0, 2), (1, 3), (0, 3), (1, 4), (0, 4), (1, 2)] {
                scene.line(reader, &format!("CLIENT TRACKING ON REDIRECT #{listener}"), 1);
                scene.line(reader, "CLIENT GETREDIR", 1);
                scene.line(reader, "GET rd.a", 1);
                scene.line(writer, "INCR rd.a", 1);
                scene.same(listener, "redirected", 1);
                scene.line(reader, "CLIENT TRACKING OFF", 1);
                scene.line(reader, "CLIENT TRACKING ON OPTIN NOLOOP", 1);
                scene.line(reader, "CLIENT TRACKING OFF", 1);
                scene.line(reader, &format!("CLIENT TRACKING ON BCAST PREFIX rd. REDIRECT #{listener}"), 1);
                scene.line(writer, "INCR rd.b", 1);
                scene.same(listener, "redirected broadcast", 1);
                scene.line(reader, "CLIENT TRACKING OFF", 1);
                scene.line(writer, "INCR rd.b", 1);
                scene.quiet(reader);
                scene.quiet(listener);
            }
            // One who speaks RESP2 and has not subscribed hears nothing.
            scene.line(0, "CLIENT TRACKING ON REDIRECT #5", 1);
            scene.line(0, "GET rd.a", 1);
            scene.line(1, "INCR rd.a", 1);
            scene.quiet(5);
            // The listener goes.
            scene.line(0, "CLIENT TRACKING OFF", 1);
            scene.line(0, "CLIENT TRACKING ON REDIRECT #2", 1);
            scene.line(0, "GET rd.a", 1);
            scene.line(2, "QUIT", 1);
            let listed = |client: &mut Client| client.line("CLIENT LIST TYPE pubsub").string().lines().count();
            eventually("it to go", || scene.pairs[5].each_mut().map(listed) == [1, 1]);
            scene.line(writer, "INCR rd.a", 1);
            scene.same(0, "broken", usize::from(source == 3));
            // The node's message about the change is on its way.
            eventually("the proxy to find nobody there", || {
                let said = scene.pairs[0][0].line("CLIENT TRACKINGINFO");
                String::from_utf8_lossy(&said.0).contains("broken_redirect")
            });
            scene.line(0, "CLIENT TRACKINGINFO", 1);
            scene.line(0, "CLIENT TRACKING ON REDIRECT #2", 1);
            scene.line(0, "CLIENT TRACKING OFF", 1);
            scene.line(writer, "DEL rd.a rd.b", 1);
        }
    }
}

#[test]
fn a_flush_drops_everything() {
    let cluster = Cluster::three();
    let (proxy, redis) = (Proxy::before(&cluster), Node::standalone());
    let mut scene = Scene::new(&proxy, &redis, &[3, 2, 2]);
    scene.line(2, "SUBSCRIBE __redis__:invalidate", 1);
    scene.line(0, "CLIENT TRACKING ON", 1);
    scene.line(1, "CLIENT TRACKING ON REDIRECT #2", 1);
    scene.line(1, "GET a", 1);
    scene.line(0, "MGET a b c", 1);
    // Its own, behind the reply; and that of others. Several nodes tell, once is enough.
    scene.line(0, "FLUSHALL", 2);
    scene.same(2, "flushed", 1);
    scene.line(0, "GET a", 1);
    scene.line(1, "FLUSHDB", 1);
    scene.same(0, "flushed", 1);
    eventually("no more", || {
        let reply = scene.pairs[0][0].line("PING");
        assert!(reply == "+PONG\r\n" || reply == FLUSH, "{reply:?}");
        reply == "+PONG\r\n"
    });
}

#[test]
fn the_protocol_may_change() {
    for (proxy, redis) in before_each() {
        let mut scene = Scene::new(&proxy, &redis, &[2, 2]);
        // In RESP2 nobody can be told; what has been read is remembered all the same.
        scene.line(0, "CLIENT TRACKING ON", 1);
        scene.line(0, "MGET pv.a pv.b pv.c", 1);
        scene.line(1, "INCR pv.a", 1);
        scene.quiet(0);
        scene.speak(0, 3);
        scene.quiet(0);
        scene.line(0, "GET pv.a", 1);
        for key in ["pv.a", "pv.b"] {
            scene.line(1, &format!("INCR {key}"), 1);
            scene.same(0, "in RESP3", 1);
        }
        scene.speak(0, 2);
        scene.line(1, "INCR pv.c", 1);
        scene.quiet(0);
        scene.line(1, "DEL pv.a pv.b pv.c", 1);
        scene.quiet(0);
    }
}

#[test]
fn who_is_told_instead_is_told_whatever_the_reader_speaks() {
    for (proxy, redis) in before_each() {
        let mut scene = Scene::new(&proxy, &redis, &[2, 2, 2]);
        scene.line(1, "SUBSCRIBE __redis__:invalidate", 1);
        scene.line(0, "CLIENT TRACKING ON REDIRECT #1", 1);
        // What is read in one version is told in the next, by its name, once.
        for (round, version) in [3, 2, 2, 3, 3, 2].into_iter().enumerate() {
            scene.line(0, &format!("MGET pr.{round} pr.again"), 1);
            scene.speak(0, version);
            scene.quiet(1);
            scene.line(2, &format!("SET pr.{round} 1"), 1);
            scene.same(1, "read before HELLO", 1);
            scene.line(0, "GET pr.again", 1);
            scene.line(2, "INCR pr.again", 1);
            scene.same(1, "read before HELLO, and behind it", 1);
            scene.quiet(1);
        }
        // Nor is anything forgotten where the reader is to be told itself from now on.
        scene.speak(0, 3);
        scene.line(0, "GET pr.a", 1);
        scene.line(0, "CLIENT TRACKING ON", 1);
        scene.line(0, "GET pr.b", 1);
        scene.quiet(0);
        for key in ["pr.a", "pr.b"] {
            scene.line(2, &format!("SET {key} 1"), 1);
            scene.same(0, key, 1);
        }
        scene.quiet(1);
        scene.line(0, "CLIENT TRACKING OFF", 1);
        scene.line(2, "DEL pr.0 pr.1 pr.2 pr.3 pr.4 pr.5 pr.again pr.a pr.b", 1);
        scene.quiet(0);
    }
}

#[test]
fn who_selects_the_database_where_it_is_keeps_what_it_holds() {
    let inside = Settings::new(shared().seeds()).with("DATABASE", "selected").with("DATABASES", "4");
    let (proxy, redis) = (Proxy::start(inside), Node::standalone());
    let mut scene = Scene::new(&proxy, &redis, &[3, 2]);
    scene.line(0, "SELECT 2", 1);
    scene.line(1, "SELECT 2", 1);
    scene.line(0, "CLIENT TRACKING ON", 1);
    scene.line(0, "GET sel.a", 1);
    scene.line(0, "SELECT 2", 1);
    scene.line(0, "SELECT 99", 1);
    scene.quiet(0);
    scene.line(1, "SET sel.a 1", 1);
    scene.same(0, "read before SELECT", 1);
    scene.quiet(0);
    scene.line(1, "DEL sel.a", 1);
}

#[test]
fn a_message_never_overtakes_the_reply_that_it_is_about() {
    // The reply from one node waits behind that of a slow one; the message about it must wait too.
    let cluster = Cluster::three();
    let proxy = Proxy::before(&cluster);
    let (mut reader, mut writer) = (proxy.client_of(3), proxy.client());
    let (slow, fast) = (cluster.key_on(0, "s"), cluster.key_on(1, "f"));
    assert_eq!(reader.line("CLIENT TRACKING ON"), "+OK\r\n");
    writer.line(&format!("SET {fast} old"));
    for round in 0..3 {
        cluster.node(0).line("CLIENT PAUSE 400 ALL");
        let lines = match round {
            0 => vec![format!("GET {slow}"), format!("GET {fast}")],
            1 => vec![format!("GET {slow}"), format!("GET {fast}"), "PING".to_owned()],
            // One of the two parts is there, the whole is not.
            _ => vec![format!("MGET {fast} {slow}")],
        };
        let bytes: Vec<u8> = lines.iter().flat_map(|line| frame(&words(line))).collect();
        reader.send_raw(&bytes);
        eventually("the fast node to remember the key", || cluster.node(1).info("tracking_total_keys") == "1");
        eventually("the change", || {
            writer.line(&format!("SET {fast} new{round}"));
            // As soon as nobody is remembered any more, the message is on its way.
            cluster.node(1).info("tracking_total_keys") == "0"
        });
        let mut replies: Vec<Reply> = lines.iter().map(|_| reader.reply()).collect();
        assert!(replies.iter().all(|reply| reply.0[0] != b'>'), "{round}: {replies:?}");
        replies.clear();
        assert_eq!(reader.reply(), invalidation(&fast).as_str(), "{round}");
    }
}

#[test]
fn nothing_is_missed_while_a_slot_moves_and_a_node_fails() {
    let cluster = Cluster::start(Shape { replicas: 1, node_timeout: Duration::from_secs(2), ..Shape::default() });
    let mut cluster = cluster;
    let proxy = Proxy::start(Settings::new(cluster.seeds()).expecting_warnings());
    let mut readers: Vec<Client> = (0..4).map(|_| proxy.client_of(3)).collect();
    let modes = ["", "OPTOUT", "OPTIN", "BCAST"];
    for (reader, mode) in readers.iter_mut().zip(modes) {
        assert_eq!(reader.line(format!("CLIENT TRACKING ON {mode}").trim()), "+OK\r\n");
    }
    let mut writer = proxy.client();
    let key = "mv";
    let slot = slotway::protocol::slot::Slot::of(key.as_bytes()).index();
    let home = cluster.home_of(key);
    let target = (home + 1) % 3;
    let read = |readers: &mut Vec<Client>, value: &str| {
        for (reader, mode) in readers.iter_mut().zip(modes) {
            let mut replies = Vec::new();
            if mode == "OPTIN" {
                reader.send(&["CLIENT", "CACHING", "YES"]);
                replies.push("+OK\r\n".to_owned());
            }
            reader.send(&["GET", key]);
            replies.push(value.to_owned());
            // Messages from before may stand in between.
            for expected in replies {
                let reply = loop {
                    let reply = reader.reply();
                    if reply.0[0] != b'>' {
                        break reply;
                    }
                };
                assert_eq!(reply, expected.as_str(), "{mode}");
            }
        }
    };
    let told = |readers: &mut Vec<Client>, when: &str| {
        for (reader, mode) in readers.iter_mut().zip(modes) {
            dropped(reader, key, &format!("{when}, {mode}"));
        }
    };

    // Read where it is not yet, changed where it then is.
    read(&mut readers, "_\r\n");
    cluster.move_slot(slot, home, target);
    assert_eq!(writer.line(&format!("SET {key} 1")), "+OK\r\n");
    told(&mut readers, "changed elsewhere");
    // Read while the slot is half moved, by ASK.
    cluster.open_slot(slot, target, home);
    cluster.move_keys(&[key], target, home);
    read(&mut readers, "$1\r\n1\r\n");
    assert_eq!(writer.line(&format!("SET {key} 2")), "+OK\r\n");
    told(&mut readers, "by ASK");
    read(&mut readers, "$1\r\n2\r\n");
    cluster.close_slot(slot, target, home);
    assert_eq!(writer.line(&format!("SET {key} 3")), "+OK\r\n");
    told(&mut readers, "moved back");
    // A failover by hand: the old primary goes on as a replica. Without votes: Redis would count them again where the same
    // replica is to be elected within seconds, as it is below, and then nobody would own the slots.
    read(&mut readers, "$1\r\n3\r\n");
    cluster.fail_over_to(3 + home, "TAKEOVER");
    eventually("a write", || writer.line(&format!("SET {key} 4")) == "+OK\r\n");
    told(&mut readers, "failed over");
    // Back again, and then the node dies.
    cluster.fail_over_to(home, "");
    eventually("a read", || {
        let reply = writer.line(&format!("GET {key}"));
        reply == "$1\r\n4\r\n"
    });
    cluster.wait_until_agreed();
    read(&mut readers, "$1\r\n4\r\n");
    cluster.nodes[home].kill();
    told(&mut readers, "killed");
    cluster.wait_until_primary(3 + home);
    // On a busy machine the nodes may take a while to be sure of one another again.
    until("a write", Duration::from_secs(30), || {
        let reply = writer.line(&format!("SET {key} 5"));
        println!("{reply:?}");
        (reply == "+OK\r\n").then_some(())
    });
    read(&mut readers, "$1\r\n5\r\n");
    assert_eq!(writer.line(&format!("SET {key} 6")), "+OK\r\n");
    told(&mut readers, "promoted");
    assert!(proxy.metric("slotway_tracking_flushes_total", &[]) >= 4.0);
}

#[test]
fn what_tracking_takes_is_released() {
    let cluster = Cluster::three();
    let proxy = Proxy::before(&cluster);
    let open = proxy.open_files_with_links();
    let tracking = |cluster: &Cluster| -> usize {
        cluster.nodes.iter().map(|node| node.info("tracking_clients").parse::<usize>().expect("a number")).sum()
    };
    for (version, mode) in [(3, ""), (3, "BCAST"), (2, "REDIRECT 1"), (2, "BCAST PREFIX x")] {
        let _first = proxy.client();
        let mode = mode.replace('1', &proxy.client().line("CLIENT ID").integer().to_string());
        let mut target = proxy.client();
        let id = target.line("CLIENT ID").integer();
        let mode = if mode.starts_with("REDIRECT") { format!("REDIRECT {id}") } else { mode };
        for ending in ["CLIENT TRACKING OFF", "RESET", "QUIT"] {
            let mut client = proxy.client_of(version);
            assert_eq!(client.line(format!("CLIENT TRACKING ON {mode}").trim()), "+OK\r\n");
            eventually("the links", || tracking(&cluster) == 3);
            client.line(ending);
            eventually(&format!("{mode}: {ending}: the links to end"), || tracking(&cluster) == 0);
        }
        let mut client = proxy.client_of(version);
        assert_eq!(client.line(format!("CLIENT TRACKING ON {mode}").trim()), "+OK\r\n");
        drop(client);
        eventually("the links to end", || tracking(&cluster) == 0);
    }
    eventually("the files to be closed", || proxy.open_files() <= open);
}

#[test]
fn who_may_not_track_is_told_so() {
    let (cluster, redis) = (Cluster::three(), Node::standalone());
    let proxy = Proxy::before(&cluster);
    for node in cluster.nodes.iter().chain([&redis]) {
        node.line("ACL SETUSER poor on >pw ~* &* +@all -client|tracking");
        node.line("ACL SETUSER rich on >pw ~* &* +@all");
    }
    let mut scene = Scene::new(&proxy, &redis, &[3, 2]);
    scene.line(0, "AUTH poor pw", 1);
    for line in ["CLIENT TRACKING ON", "CLIENT TRACKING ON BCAST", "CLIENT TRACKINGINFO", "GET na"] {
        scene.line(0, line, 1);
    }
    scene.line(0, "AUTH rich pw", 1);
    for line in ["CLIENT TRACKING ON", "GET na", "CLIENT TRACKINGINFO"] {
        scene.line(0, line, 1);
    }
    scene.line(1, "SET na 1", 1);
    scene.same(0, "by a user of its own", 1);
}

#[test]
fn what_is_read_apart_is_dropped_at_once() {
    let proxy = Proxy::before(shared());
    let (mut client, mut other) = (proxy.client_of(3), proxy.client());
    other.line("RPUSH {ap}l 1");
    other.line("XADD {ap}s 1-1 f v");
    client.line("CLIENT TRACKING ON");
    for line in ["WATCH {ap}w", "MULTI", "LRANGE {ap}l 0 -1", "EXEC"] {
        assert!(!client.line(line).is_error(), "{line}");
    }
    assert_eq!(client.reply(), FLUSH);
    // What only writes leaves nothing behind that is stale.
    for line in ["WATCH {ap}w", "MULTI", "SET {ap}x 1", "EXEC", "PING"] {
        assert!(!client.line(line).is_error(), "{line}");
    }
    client.line("XREAD BLOCK 10 STREAMS {ap}s 0");
    assert_eq!(client.reply(), FLUSH);
    other.line("DEL {ap}l {ap}s {ap}x");
    assert_eq!(client.line("PING"), "+PONG\r\n");
}

#[test]
fn one_that_does_not_read_what_it_is_told_is_closed() {
    let cluster = shared();
    let settings = Settings::new(cluster.seeds()).expecting("reads too slowly");
    let proxy = Proxy::start(settings.with("PUBSUB__HARD_LIMIT", "1MiB").with("PUBSUB__SOFT_LIMIT", "512KiB"));
    let mut slow = proxy.client_of(3);
    assert_eq!(slow.line("CLIENT TRACKING ON BCAST PREFIX slow."), "+OK\r\n");
    let mut writer = proxy.client();
    let key = format!("slow.{}", "x".repeat(50_000));
    let request = frame(&["SET", &key, "1"]);
    eventually("it to be closed", || {
        writer.exchange(&request.repeat(40), 40);
        writer.line("CLIENT LIST").string().lines().count() == 1
    });
    assert_eq!(writer.call(&["DEL", &key]), ":1\r\n");
}

/// Of other databases a client is told nothing, whatever it tracks; and when it SELECTs another, it forgets.
#[test]
fn only_keys_of_the_clients_database_are_told() {
    let cluster = shared();
    let settings = |name: &str| Settings::new(cluster.seeds()).with("DATABASE", name).with("DATABASES", 3);
    let (tracked, other, whole) =
        (Proxy::start(settings("told")), Proxy::start(settings("untold")), Proxy::before(cluster));
    let (mut client, mut same) = (tracked.client_of(3), tracked.client());
    let strangers = [other.client(), whole.client()];
    assert_eq!(client.line("CLIENT TRACKING ON BCAST"), "+OK\r\n");
    for mut stranger in strangers {
        stranger.line("MSET a 1 x{told}a 1 {untold}a 1");
    }
    same.line("SET {told}a 1");
    assert_eq!(client.read().expect("a message"), invalidation("{told}a").as_str());
    assert_eq!(client.line("SELECT 1"), "+OK\r\n");
    assert_eq!(client.read().expect("a message"), FLUSH);
    same.line("SET a 1");
    same.line("SELECT 1");
    same.line("SET b 1");
    assert_eq!(client.read().expect("a message"), invalidation("b").as_str());
    assert_eq!(client.line("CLIENT TRACKING OFF"), "+OK\r\n");
    assert_eq!(client.line("CLIENT TRACKING ON"), "+OK\r\n");
    // Each key that it has read, where one server would say that all are gone.
    client.line("MGET b c");
    same.line("FLUSHDB");
    dropped(&mut client, "b", "all are flushed");
    assert_eq!(client.line("PING"), "+PONG\r\n");
}
