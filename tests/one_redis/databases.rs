//! A database of its own: what random commands (`differential/inside.rs`) do not come to. Its clients see one server, and
//! nothing of what else is in the cluster; whoever works in all of the cluster sees how its keys are kept.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
};

use slotway::protocol::resp::Value;

use crate::support::{
    Client, Cluster, Flavour, Node, Proxy, Reply, Settings, Setup, Shape, client::words, cluster::shared, eventually,
};

fn in_database(cluster: &Cluster, name: &str) -> Proxy {
    Proxy::start(Settings::new(cluster.seeds()).with("DATABASE", name))
}

#[test]
fn keys_are_kept_with_the_prefix_and_shown_without() {
    let cluster = Cluster::three();
    let (shop, whole) = (in_database(&cluster, "shop"), Proxy::before(&cluster));
    let (mut inside, mut outside) = (shop.client(), whole.client());
    inside.line("MSET foo 1 bar {shop}2 {shop}baz 3");
    let kept: BTreeSet<String> = outside.line("KEYS *").texts().into_iter().collect();
    assert_eq!(kept, ["{shop}foo", "{shop}bar", "{shop}{shop}baz"].map(String::from).into());
    assert_eq!(inside.line("GET bar"), "$7\r\n{shop}2\r\n", "a value is the client's own");
    // Keys in its slot that are others' are there for nobody inside.
    outside.line("MSET x{shop}foo other {shop other");
    outside.line("SADD y{shop}foo other");
    for (line, expected) in
        [("EXISTS x{shop}foo y{shop}foo", 0), ("EXISTS foo bar {shop}baz", 3), ("DEL x{shop}foo", 0)]
    {
        assert_eq!(inside.line(line).integer(), expected, "{line}");
    }
    let own: BTreeSet<String> = ["foo", "bar", "{shop}baz"].map(String::from).into();
    assert_eq!(inside.line("KEYS *").texts().into_iter().collect::<BTreeSet<_>>(), own);
    assert_eq!(super::differential::scanned(&mut inside, ""), own);
    for _ in 0..20 {
        assert!(own.contains(&inside.line("RANDOMKEY").string()));
    }
    assert_eq!(inside.line("FLUSHALL"), "+OK\r\n");
    assert_eq!(inside.line("RANDOMKEY"), "$-1\r\n");
    assert_eq!(inside.line("KEYS *"), "*0\r\n");
    let left: BTreeSet<String> = outside.line("KEYS *").texts().into_iter().collect();
    assert_eq!(left, ["x{shop}foo", "y{shop}foo", "{shop"].map(String::from).into());
}

#[test]
fn many_keys_are_listed_and_removed() {
    let cluster = Cluster::three();
    let (shop, whole) = (in_database(&cluster, "shop"), Proxy::before(&cluster));
    let (mut inside, mut outside) = (shop.client(), whole.client());
    let sets = |key: &dyn Fn(usize) -> String| -> Vec<Vec<String>> {
        (0..5000).map(|number| vec!["SET".into(), key(number), "v".into()]).collect()
    };
    inside.pipeline(&sets(&|number| format!("a rather long name of a key {number}")));
    outside.pipeline(&sets(&|number| format!("other{{shop}}{number}")));
    let listed = inside.line("KEYS *").texts();
    assert_eq!(listed.len(), 5000);
    assert!(listed.iter().all(|key| key.starts_with("a rather long name of a key ")));
    assert_eq!(super::differential::scanned(&mut inside, " COUNT 500").len(), 5000);
    inside.line("MULTI");
    inside.line("KEYS *");
    inside.line("FLUSHDB");
    inside.line("KEYS *");
    let done = inside.line("EXEC").value();
    assert_eq!((done.items()[0].items().len(), done.items()[2].items().len()), (5000, 0));
    assert_eq!(outside.line("DBSIZE").integer(), 5000);
}

/// What is about the whole database, as one server has it, where others have keys in its slot and many at its node.
#[test]
fn the_whole_database_is_its_own_keys() {
    for flavour in [Flavour::Redis, Flavour::Valkey] {
        if !flavour.is_here("databases::the_whole_database_is_its_own_keys") {
            continue;
        }
        let cluster = Cluster::start(Shape { flavour, ..Shape::default() });
        let oracle = Node::start(&Setup { flavour, ..Setup::default() });
        let (shop, whole) = (in_database(&cluster, "shop"), Proxy::before(&cluster));
        let mut outside = whole.client();
        // The first is at its node, the second in its slot.
        for kind in ["other:$", "o{shop}:$"] {
            let sets: Vec<Vec<String>> =
                (0..2000).map(|at| vec!["SET".into(), kind.replace('$', &at.to_string()), "v".into()]).collect();
            outside.pipeline(&sets);
        }
        let names =
            ["a", "b", "ab", "a[b", "a*c", "a?c", "a\\c", "[a-c]", "hello", "hallo", "hxllo", "{shop}", "*", "^x", "é"];
        let patterns = [
            "*", "a*", "?", "a[?]c", "[a-c]", "[c-a]", "[^a]", "h[ae]llo", "h[^e]llo", "h*o", "*l*l*", "a\\*c",
            "a\\\\c", "\\[*", "[a-", "[", "[]", "[^]", "a\\", "{shop}*", "**", "*a*b*", "[\\]]", "é", "?\\?*",
        ];
        for version in [2, 3] {
            let (mut ours, mut theirs) = (shop.client_of(version), oracle.client());
            theirs.line(&format!("HELLO {version}"));
            for client in [&mut ours, &mut theirs] {
                client.line("FLUSHDB");
                for (at, name) in names.iter().enumerate() {
                    client.call(&["SET", name, "v", "EX", if at % 3 == 0 { "1000" } else { "2000" }]);
                }
                client.line("RPUSH list a");
                client.line("SET gone v PX 1");
                eventually("it has expired", || client.line("EXISTS gone").integer() == 0);
            }
            let sorted = |reply: &Reply| reply.texts().into_iter().collect::<BTreeSet<_>>();
            for pattern in patterns {
                let both = [&mut ours, &mut theirs].map(|client| {
                    let keys = sorted(&client.call(&["KEYS", pattern]));
                    client.line("MULTI");
                    client.call(&["KEYS", pattern]);
                    client.call(&["SCAN", "0", "MATCH", pattern, "COUNT", "1000"]);
                    client.call(&["SCAN", "0", "MATCH", pattern, "TYPE", "list", "COUNT", "1000"]);
                    let done = client.line("EXEC").value();
                    let list = |at: usize| texts(&done.items()[at]).into_iter().collect::<BTreeSet<_>>();
                    let page = |at: usize| {
                        let page = done.items()[at].items();
                        (page[0].text().map(<[u8]>::to_vec), texts(&page[1]).into_iter().collect::<BTreeSet<_>>())
                    };
                    (keys, list(0), page(1), page(2))
                });
                assert_eq!(both[0], both[1], "{pattern} in RESP{version}, {flavour:?}");
                let scans = [&mut ours, &mut theirs]
                    .map(|client| super::differential::scanned_for(client, &["MATCH", pattern, "COUNT", "3"]));
                assert_eq!(scans[0], scans[1], "SCAN {pattern} in RESP{version}, {flavour:?}");
            }
            for line in [
                "DBSIZE",
                "SCAN 0 COUNT 0",
                "SCAN x",
                "SCAN 0 MATCH",
                "SCAN 0 TYPE",
                "SCAN 0 COUNT x",
                "SCAN 0 NOSUCH 1",
            ] {
                for is_queued in [false, true] {
                    let both = [&mut ours, &mut theirs].map(|client| {
                        if !is_queued {
                            return client.line(line);
                        }
                        client.line("MULTI");
                        client.line(line);
                        client.line("EXEC")
                    });
                    assert_eq!(both[0], both[1], "{line} in RESP{version}, {flavour:?}, queued: {is_queued}");
                }
            }
            for _ in 0..50 {
                assert!(ours.call(&["EXISTS", &ours_random(&mut shop.client())]).integer() == 1);
            }
        }
        let mut inside = shop.client();
        inside.line("FLUSHDB");
        assert_eq!((inside.line("DBSIZE").integer(), outside.line("DBSIZE").integer()), (0, 4000));
        assert_eq!(inside.line("RANDOMKEY"), "$-1\r\n");
    }
}

fn texts(value: &Value) -> Vec<String> {
    value.items().iter().map(|item| item.str().expect("text").to_owned()).collect()
}

fn ours_random(client: &mut Client) -> String {
    client.line("RANDOMKEY").string()
}

/// A user who may not run scripts at the node is told so, where a command is one.
#[test]
fn who_may_run_no_scripts_is_told_what_it_takes() {
    let cluster = Cluster::three();
    for node in &cluster.nodes {
        node.line("ACL SETUSER plain on >secret ~* &* +@all -@scripting");
    }
    let shop = in_database(&cluster, "shop");
    let mut client = shop.client();
    assert_eq!(client.line("AUTH plain secret"), "+OK\r\n");
    client.line("SET a 1");
    for line in ["DBSIZE", "KEYS *", "RANDOMKEY", "FLUSHDB"] {
        let said = client.line(line);
        assert!(
            said.0.starts_with(b"-NOPERM proxy: in a database of its own this command is a script"),
            "{line}: {said:?}"
        );
    }
    assert_eq!(super::differential::scanned(&mut client, ""), [String::from("a")].into());
}

#[test]
fn replies_that_name_keys_are_whole_at_any_size() {
    let (proxy, oracle) = (in_database(shared(), "large"), Node::standalone());
    let value = "{large}".repeat(20_000);
    for version in [2, 3] {
        let (mut ours, mut theirs) = (proxy.client_of(version), oracle.client());
        theirs.line(&format!("HELLO {version}"));
        let mut same = |args: &[&str]| {
            let (ours, theirs) = (ours.call(args), theirs.call(args));
            assert_eq!(ours, theirs, "{:.60} in RESP{version}", args.join(" "));
        };
        same(&["DEL", "l", "s", "z"]);
        for number in 0..12 {
            same(&["RPUSH", "l", &value, "{large}"]);
            same(&["XADD", "s", &format!("1-{}", number + 1), "{large}", &value]);
        }
        for _ in 0..3 {
            same(&["XREAD", "COUNT", "10", "STREAMS", "none", "s", "0", "0"]);
            same(&["LMPOP", "2", "none", "l", "LEFT", "COUNT", "3"]);
            same(&["BLMPOP", "1", "2", "none", "l", "LEFT", "COUNT", "3"]);
            same(&["BLPOP", "none", "l", "1"]);
            same(&["MULTI"]);
            same(&["XREAD", "COUNT", "5", "STREAMS", "s", "none", "0", "0"]);
            same(&["KEYS", "l"]);
            same(&["LMPOP", "1", "l", "RIGHT"]);
            same(&["GET", "nothing"]);
            same(&["EXEC"]);
        }
    }
}

#[test]
fn waiting_is_as_at_one_server() {
    let (proxy, oracle) = (in_database(shared(), "waiting"), Node::standalone());
    for (waits, comes) in [
        ("BLPOP a b 5", "RPUSH b v"),
        ("BRPOP b a 5", "RPUSH a v w"),
        ("BLMPOP 5 2 c d LEFT COUNT 2", "RPUSH d x y z"),
        ("BLMOVE e f LEFT RIGHT 5", "RPUSH e x"),
        ("BZPOPMIN g h 5", "ZADD h 1.5 m"),
        ("BZMPOP 5 2 i j MAX", "ZADD j 1 m 2 n"),
        ("XREAD BLOCK 5000 STREAMS k l $ $", "XADD l 1-1 f v"),
    ] {
        let both = [proxy.client(), oracle.client()].map(|mut waiter| {
            thread::spawn(move || {
                waiter.send(&words(waits));
                waiter.reply()
            })
        });
        let blocked = |client: &mut Client| client.line("INFO clients").string().contains("blocked_clients:1");
        for mut client in [proxy.client(), oracle.client()] {
            eventually(&format!("{waits} waits"), || blocked(&mut client));
            client.line(comes);
        }
        let [ours, theirs]: [Reply; 2] = both.map(|waiter| waiter.join().expect("a reply"));
        assert_eq!(ours, theirs, "{waits}");
    }
}

#[test]
fn watched_keys_are_the_databases_own() {
    let (one, other) = (in_database(shared(), "one"), in_database(shared(), "other"));
    let (mut client, mut same, mut elsewhere) = (one.client(), one.client(), other.client());
    for (intruder, expected) in [(&mut elsewhere, "*1\r\n+OK\r\n"), (&mut same, "*-1\r\n")] {
        client.line("WATCH watched another");
        intruder.line("SET watched x");
        client.line("MULTI");
        client.line("SET result y");
        assert_eq!(client.line("EXEC"), expected);
    }
}

#[test]
fn what_may_reach_others_is_refused() {
    let proxy = in_database(shared(), "closed");
    let mut client = proxy.client();
    for line in [
        "SWAPDB 0 1",
        "MIGRATE 127.0.0.1 1 key 0 10",
        "FUNCTION FLUSH",
        "CONFIG SET maxmemory 1",
        "PROXY NODE slot:1 GET key",
        "COPY a b DB 1",
    ] {
        let reply = client.line(line);
        let text = String::from_utf8_lossy(&reply.0).into_owned();
        assert!(text.starts_with("-ERR proxy: ") && text.contains("in the database 'closed': "), "{line}: {text}");
    }
    assert_eq!(client.line("CLUSTER NODES"), "-ERR This instance has cluster support disabled\r\n");
    // A transaction with such a command in it is given up.
    client.line("MULTI");
    assert!(client.line("SWAPDB 0 1").is_error());
    assert!(client.line("EXEC").0.starts_with(b"-EXECABORT"));
}

/// While its slot is on its way, keys are at either node, and commands with several keys wait until they are at one.
#[test]
fn a_slot_that_moves_takes_its_database_with_it() {
    let cluster = Cluster::three();
    let proxy = in_database(&cluster, "shop");
    let mut client = proxy.client();
    client.line("MSET a 1 b 2 c 3");
    let slot = client_slot(&cluster, "shop");
    let from = cluster.home_of("{shop}");
    let to = (from + 1) % 3;
    cluster.open_slot(slot, from, to);
    cluster.move_keys(&["{shop}a"], from, to);
    assert_eq!(client.line("GET a").string(), "1");
    assert_eq!(client.line("MGET a b c").texts(), ["1", "2", "3"]);
    assert_eq!(client.line("SET new 4"), "+OK\r\n");
    // What may touch any key waits for as long as that is half done, and has not begun then.
    for line in ["EVAL redis.call('INCR','began')return~redis.call('GET','b') 0", "DBSIZE", "KEYS *", "FLUSHDB"] {
        let words: Vec<String> = line.split(' ').map(|word| word.replace('~', " ")).collect();
        let reply = client.call(&words);
        assert!(reply.0.starts_with(b"-TRYAGAIN "), "{line}: {reply:?}");
    }
    assert_eq!(client.line("EXISTS began a b c new").integer(), 4);
    let waits = thread::spawn(move || {
        client.send(&words("RENAME a moved"));
        (client.reply(), client)
    });
    cluster.move_keys(&["{shop}b", "{shop}c"], from, to);
    cluster.close_slot(slot, from, to);
    let (reply, mut client) = waits.join().expect("a reply");
    assert_eq!(reply, "+OK\r\n");
    assert_eq!(client.line("MGET moved b c new").texts(), ["1", "2", "3", "4"]);
    assert_eq!(client.line("DBSIZE").integer(), 4);
}

/// Scripts run as a whole or not at all, however the slot moves: node by node as of old, or at once (Valkey 9).
#[test]
fn scripts_are_whole_while_the_slot_moves_under_load() {
    for (flavour, at_once) in [(Flavour::Redis, false), (Flavour::Valkey, false), (Flavour::Valkey, true)] {
        if !flavour.is_here("databases::scripts_are_whole_while_the_slot_moves_under_load") {
            continue;
        }
        let cluster = Cluster::start(Shape { flavour, ..Shape::default() });
        let proxy = in_database(&cluster, "moving");
        let mut client = proxy.client();
        let fill: Vec<Vec<String>> =
            (0..500).map(|at| vec!["SET".into(), format!("key:{at}"), "v".repeat(100)]).collect();
        client.pipeline(&fill);
        let is_over = Arc::new(AtomicBool::new(false));
        let workers: Vec<_> = (0..3)
            .map(|worker: usize| {
                let (mut client, is_over) = (proxy.client(), is_over.clone());
                thread::spawn(move || {
                    // Keys that are not declared, one of them in the midst of the move.
                    let script = "redis.call('INCR','first:'..ARGV[1]) redis.call('APPEND','key:'..ARGV[2],'x') \
                                  return redis.call('INCR','second:'..ARGV[1])";
                    let (mut done, mut refused) = (0_i64, Vec::new());
                    for round in 0.. {
                        if is_over.load(Relaxed) {
                            break;
                        }
                        let key = (round * 7 + worker) % 500;
                        let reply = client.call(&["EVAL", script, "0", &worker.to_string(), &key.to_string()]);
                        if reply.is_error() { refused.push(reply) } else { done += 1 }
                    }
                    (done, refused)
                })
            })
            .collect();
        let slot = client_slot(&cluster, "moving");
        let mut from = cluster.home_of("{moving}");
        for _ in 0..3 {
            let to = (from + 1) % 3;
            if at_once {
                cluster.move_slot_whole(slot, from, to)
            } else {
                cluster.move_slot(slot, from, to)
            }
            from = to;
        }
        is_over.store(true, Relaxed);
        for (worker, thread) in workers.into_iter().enumerate() {
            let (done, refused) = thread.join().expect("a worker");
            let [first, second] = ["first", "second"].map(|name| client.line(&format!("GET {name}:{worker}")).string());
            assert_eq!((&*first, &*second), (&*done.to_string(), &*done.to_string()), "{flavour:?}, {refused:?}");
            let has_not_begun = |reply: &Reply| reply.0.starts_with(b"-TRYAGAIN proxy: slot ");
            assert!(done > 0 && refused.iter().all(has_not_begun), "{flavour:?}: {refused:?}");
            assert!(!at_once || refused.is_empty(), "{refused:?}");
        }
        assert_eq!(client.line("DBSIZE").integer(), 506);
    }
}

fn client_slot(cluster: &Cluster, tag: &str) -> usize {
    usize::try_from(cluster.node(0).client().call(&["CLUSTER", "KEYSLOT", tag]).integer()).expect("a slot")
}

/// SELECT, as one server has it. FLUSHALL is refused there; what is about two databases at once is not served.
#[test]
fn select_chooses_among_databases() {
    let cluster = Cluster::three();
    let settings = || Settings::new(cluster.seeds()).with("DATABASE", "shop").with("DATABASES", 16);
    let (proxy, oracle) = (Proxy::start(settings()), Node::standalone());
    for version in [2, 3] {
        let (mut ours, mut theirs) = (proxy.client_of(version), oracle.client());
        theirs.line(&format!("HELLO {version}"));
        for line in [
            "SET k zero",
            "SELECT 1",
            "GET k",
            "MSET k one l one m one",
            "DBSIZE",
            "SELECT 15",
            "GET k",
            "SET k fifteen",
            "SELECT 16",
            "SELECT -1",
            "SELECT x",
            "GET k",
            "MULTI",
            "SELECT 15",
            "SET n 1",
            "DBSIZE",
            "EXEC",
            "EVAL return~redis.call('GET','k') 0",
            "SELECT 0",
            "GET k",
            "EVAL return~redis.call('GET','k') 0",
            "KEYS *",
            "SCAN 0",
            "SELECT 1",
            "FLUSHDB",
            "DBSIZE",
            "CONFIG GET databases",
            "RESET",
            "GET k",
            "SELECT 15",
            "DBSIZE",
            "FLUSHDB",
            "SELECT 0",
            "FLUSHDB",
        ] {
            let words: Vec<String> = line.split(' ').map(|word| word.replace('~', " ")).collect();
            assert_eq!(ours.call(&words), theirs.call(&words), "{line} in RESP{version}");
        }
    }
    let mut client = proxy.client();
    client.line("SELECT 2");
    assert!(client.line("CLIENT INFO").string().contains(" db=2 "));
    client.line("SET foo bar");
    assert_eq!(Proxy::before(&cluster).client().line("GET {shop/2}foo").string(), "bar");
    assert_eq!(client.line("FLUSHALL"), "+OK\r\n");
    assert_eq!(client.line("EXISTS foo").integer(), 0);
}

/// Without a name, number 0 is all of the cluster, and the others are within it.
#[test]
fn select_leads_out_of_a_spread_database() {
    let cluster = Cluster::three();
    let (proxy, oracle) = (Proxy::start(Settings::new(cluster.seeds()).with("DATABASES", 16)), Node::standalone());
    for version in [2, 3] {
        let (mut ours, mut theirs) = (proxy.client_of(version), oracle.client());
        theirs.line(&format!("HELLO {version}"));
        for line in [
            "SET a zero",
            "SET b zero",
            "SELECT 3",
            "MGET a b c",
            "MULTI",
            "SET a three",
            "SELECT 3",
            "SET b three",
            "EXEC",
            "EVAL return{redis.call('GET','a'),redis.call('GET','b')} 0",
            "DBSIZE",
            "KEYS *",
            "MULTI",
            "SELECT 16",
            "SELECT x",
            "EXEC",
            "SELECT 16",
            "SELECT -1",
            "CONFIG GET databases",
            "SELECT 0",
            "MGET a b",
            "SELECT 3",
            "DEL a",
            "RENAME b a",
            "FLUSHDB",
            "RANDOMKEY",
            "RESET",
            "DEL a b",
        ] {
            let words: Vec<String> = line.split(' ').map(|word| word.replace('~', " ")).collect();
            let (ours, theirs) = (ours.call(&words), theirs.call(&words));
            if line == "KEYS *" {
                let sorted = |reply: &Reply| reply.texts().into_iter().collect::<BTreeSet<_>>();
                assert_eq!(sorted(&ours), sorted(&theirs), "{line} in RESP{version}");
            } else {
                assert_eq!(ours, theirs, "{line} in RESP{version}");
            }
        }
    }
    let mut client = proxy.client();
    client.line("SELECT 7");
    client.line("SET foo bar");
    client.line("SELECT 0");
    assert_eq!(client.line("GET {db/7}foo").string(), "bar");
    assert!(
        client.line("FLUSHDB").0.starts_with(b"-ERR FLUSHDB is not served by the proxy: it would empty the databases")
    );
    assert_eq!(client.line("FLUSHALL"), "+OK\r\n");
    client.line("SELECT 7");
    assert_eq!(client.line("GET foo"), "$-1\r\n");
}

#[test]
fn an_explanation_names_keys_as_they_are_kept() {
    let proxy = in_database(shared(), "explained");
    let mut client = proxy.client();
    let explained = client.line("PROXY EXPLAIN MGET foo bar").texts().join("\n");
    assert!(explained.contains("database explained: a key foo is kept as {explained}foo, in slot "), "{explained}");
    assert!(explained.contains("{explained}bar  (slot ") && explained.contains("by the owner of slot "), "{explained}");
    let refused = client.line("PROXY EXPLAIN SWAPDB 0 1").texts().join("\n");
    assert!(refused.contains("not at all: ERR proxy: SWAPDB is not served"), "{refused}");
}
