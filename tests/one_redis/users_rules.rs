//! What a user of the proxy's own may not do by its `rules`, it is refused as by a plain server whose user has the same.

use std::{fs, time::Duration};

use super::listeners::{checked, with_file};
use crate::support::{
    Client, Cluster, Flavour, Node, Proxy, Reply, Setup, Shape, cluster::shared, eventually, ports::free_port, reaper,
    until,
};

/// A user's table, whose password is `secret`.
fn user(name: &str, more: &str) -> String {
    let file = reaper::folder("rules").join(format!("{name}-{}", free_port()));
    fs::write(&file, "secret\n").expect("a file");
    format!("[users.{name}]\npassword_file = \"{}\"\n{more}\n", file.display())
}

/// A user of these rules at a plain server and at the proxy, in a database of its own and in all of the cluster.
struct Alike {
    plain: Node,
    proxy: Proxy,
    _cluster: Cluster,
}

impl Alike {
    fn of(flavour: Flavour, rules: &str) -> Alike {
        let plain = Node::start(&Setup { flavour, ..Setup::default() });
        for name in ["inside", "spread"] {
            assert_eq!(plain.line(&format!("ACL SETUSER {name} on >secret {rules}")), "+OK\r\n");
        }
        let cluster = Cluster::start(Shape { flavour, ..Shape::default() });
        let rules = format!("rules = \"{rules}\"");
        let text = user("inside", &format!("{rules}\ndatabase = \"inside\"")) + &user("spread", &rules);
        let (settings, _) = with_file(&cluster, &text);
        Alike { plain, proxy: Proxy::start(settings), _cluster: cluster }
    }

    /// Clients of the proxy and of the plain server.
    fn both(&self, user: &str, version: u8) -> [Client; 2] {
        [self.proxy.client(), self.plain.client()].map(|mut client| {
            let greeting = client.line(&format!("HELLO {version} AUTH {user} secret"));
            assert!(!greeting.is_error(), "{greeting:?}");
            client
        })
    }
}

const RULES: &str = "~k* %R~r* %W~w* &c* +@all -@dangerous -client|list -mset -ping +keys +select|0";

/// What is refused by the proxy itself, by several nodes or by one.
const LINES: &[&str] = &[
    "PING",
    "ECHO a",
    "CLIENT LIST",
    "CLIENT ID",
    "CLIENT KILL ID 1",
    "MULTI",
    "EXEC",
    "SELECT 0",
    "GET a",
    "GET k",
    "GET w",
    "SET r x",
    "SET w x",
    "SET w x GET",
    "MGET k1 k2",
    "MGET k1 a",
    "MSET k1 a",
    "DEL k1 r",
    "EXISTS w a",
    "TOUCH k1 k2",
    "RENAME k1 a",
    "COPY r1 w1",
    "COPY w1 r1",
    "FLUSHALL",
    "FLUSHDB",
    "KEYS k*",
    "SORT k BY nosort",
    "SORT k BY w_*",
    "SORT k GET r",
    "SORT k STORE a",
    "SORT a",
    "SORT_RO a",
    "BLPOP k a 1",
    "BLPOP a 1",
    "XREAD STREAMS a 0",
    "XREAD BLOCK 1 STREAMS a 0",
    "PUBLISH c x",
    "PUBLISH a x",
    "SUBSCRIBE a",
    "SUBSCRIBE c a",
    "PSUBSCRIBE c*",
    "PSUBSCRIBE c?",
    "PSUBSCRIBE *",
    "UNSUBSCRIBE",
    "PUNSUBSCRIBE",
    "SSUBSCRIBE a",
    "SPUBLISH a b",
    "CONFIG GET port",
    "CONFIG SET port 1",
    "SCAN 0 MATCH none",
    "INFO",
    "WATCH a",
    "UNWATCH",
    "OBJECT ENCODING a",
    "SCRIPT FLUSH",
    "SCRIPT KILL",
    "FUNCTION KILL",
    "ACL LIST",
    "ACL WHOAMI",
    "ACL SETUSER x",
    "NOSUCH a",
    "GET",
    "GET a b",
    "CONFIG NOSUCH",
    "CLIENT",
    "WAIT 0 0",
    "MIGRATE h 1 a 0 1",
    "DEBUG SLEEP 0",
    "SHUTDOWN NOSAVE",
    "RESTORE a 0 x",
    "BITFIELD r GET u8 0",
    "BITFIELD r SET u8 0 1",
    "GEORADIUS k 1 2 3 m STORE a",
    "EVAL x 1 a",
    "ZUNIONSTORE w 2 r k",
    "ZUNIONSTORE r 2 w k",
    "LMPOP 2 a k LEFT",
    "MEMORY USAGE a",
];

fn is_refused_in_the_words_of(flavour: Flavour) {
    let alike = Alike::of(flavour, RULES);
    for (name, version) in [("inside", 2), ("spread", 3), ("spread", 2), ("inside", 3)] {
        let [mut ours, mut theirs] = alike.both(name, version);
        let mut refused = 0;
        let is_refusal = |reply: &Reply| {
            reply.0.starts_with(b"-NOPERM ")
                || reply.0.starts_with(b"-ERR BY option")
                || reply.0.starts_with(b"-ERR GET option")
        };
        for line in LINES {
            let (our, their) = (ours.line(line), theirs.line(line));
            if name == "spread" && line.starts_with("SORT k ") && !is_refusal(&their) {
                continue;
            }
            assert_eq!(is_refusal(&our), is_refusal(&their), "{name} {version} {line}: {our:?} {their:?}");
            if is_refusal(&their) {
                assert_eq!(our, their, "{name} {version} {line}");
                refused += 1;
            }
            if [our, their].iter().any(|reply| reply.0.starts_with(b"*3\r\n$") || reply.0.starts_with(b">3")) {
                // They have subscribed, the one that may: from here on by others.
                [ours, theirs] = alike.both(name, version);
            }
        }
        assert!(refused > 40, "{refused}");
        // Within a transaction when it is queued, and then nothing is done.
        for client in [&mut ours, &mut theirs] {
            client.line("DISCARD");
            assert_eq!(client.line("MULTI"), "+OK\r\n");
            assert_eq!(client.line("SET k1 here"), "+QUEUED\r\n");
        }
        assert_eq!(ours.line("GET a"), theirs.line("GET a"));
        assert_eq!(ours.line("EXEC"), theirs.line("EXEC"));
        for client in [&mut ours, &mut theirs] {
            assert!(!client.line("GET k1").is_error());
        }
    }
}

#[test]
fn what_rules_forbid_is_refused_in_the_words_of_redis() {
    is_refused_in_the_words_of(Flavour::Redis);
}

#[test]
fn what_rules_forbid_is_refused_in_the_words_of_valkey() {
    if Flavour::Valkey.is_here("what_rules_forbid_is_refused_in_the_words_of_valkey") {
        is_refused_in_the_words_of(Flavour::Valkey);
    }
}

#[test]
fn code_takes_a_user_who_may_do_all_that_it_could() {
    let text = [
        user("some", "rules = \"+@all ~k* &*\"\ndatabase = \"some\""),
        user("most", "rules = \"+@all -config -shutdown ~* &*\"\ndatabase = \"most\""),
        user("free", ""),
    ];
    let (settings, _) = with_file(shared(), &text.concat());
    let proxy = Proxy::start(settings);
    let log_in = |name: &str| {
        let mut client = proxy.client();
        assert_eq!(client.line(&format!("AUTH {name} secret")), "+OK\r\n");
        client
    };
    let (mut some, mut most) = (log_in("some"), log_in("most"));
    let refused = some.call(&["EVAL", "return redis.call('get', 'other')", "0"]);
    let expected = "-NOPERM proxy: what EVAL runs is not held to the rules of 'some': it takes a user with ~* &* and every command \
                    that scripts may call, such as by +@all (SLOTWAY-RIGHTS)\r\n";
    assert_eq!(refused, expected);
    for line in ["EVALSHA x 0", "FCALL f 0", "FCALL_RO f 0", "EVAL_RO x 0", "PROXY NODE slot:1 GET a"] {
        assert!(some.line(line).0.starts_with(b"-NOPERM proxy: "), "{line}");
    }
    assert_eq!(most.call(&["EVAL", "return redis.call('set', KEYS[1], 'x')", "1", "a"]), "+OK\r\n");
    assert_eq!(most.line("GET a").string(), "x");
    assert!(most.line("CONFIG GET port").0.starts_with(b"-NOPERM "));
    // What takes a script at the node is the proxy's to run.
    assert_eq!(some.line("SET k1 x"), "+OK\r\n");
    assert_eq!(some.line("KEYS *").texts(), ["k1"]);
    assert_eq!(some.line("DBSIZE"), ":1\r\n");
    assert_eq!(log_in("free").line("PROXY HELP").0.first(), Some(&b'*'));
}

#[test]
fn acl_tells_of_the_user_itself() {
    let text =
        [user("ann", "rules = \"~k* &c +@all -keys (+get %R~r*)\"\ndatabase = \"ann\""), user("free", "")].concat();
    let (settings, _) = with_file(shared(), &text);
    let proxy = Proxy::start(settings);
    let mut ann = proxy.client();
    assert_eq!(ann.line("AUTH ann secret"), "+OK\r\n");
    assert_eq!(ann.line("ACL WHOAMI").string(), "ann");
    assert_eq!(ann.line("ACL USERS").texts(), ["ann"]);
    let line = "user ann on sanitize-payload ~k* resetchannels &c +@all -keys (%R~r* resetchannels -@all +get)";
    assert_eq!(ann.line("ACL LIST").texts(), [line]);
    assert_eq!(ann.line("ACL GETUSER default"), "*-1\r\n");
    let told = ann.line("ACL GETUSER ann").value();
    let field = |name: &str| told.field(name).and_then(|value| value.str().map(str::to_owned)).unwrap_or_default();
    assert_eq!(["commands", "keys", "channels"].map(field), ["+@all -keys", "~k*", "&c"]);
    for (asked, said) in [
        ("GET k", "+OK\r\n"),
        ("GET r", "+OK\r\n"),
        ("NOSUCH r", "-ERR Command 'NOSUCH' not found\r\n"),
        ("GET", "-ERR wrong number of arguments for 'get' command\r\n"),
    ] {
        assert_eq!(ann.line(&format!("ACL DRYRUN ann {asked}")), said, "{asked}");
    }
    assert_eq!(ann.line("ACL DRYRUN ann SET r x").string(), "This user has no permissions to access the 'r' key");
    assert_eq!(ann.line("ACL DRYRUN free GET k"), "-ERR User 'free' not found\r\n");
    assert!(!ann.line("ACL CAT").is_error());
    // What was refused is in its log, and in no other's.
    for line in ["GET other", "KEYS *", "GET other", "PUBLISH d x"] {
        assert!(ann.line(line).0.starts_with(b"-NOPERM "), "{line}");
    }
    let entries = ann.line("ACL LOG").value();
    let told = |entry: &slotway::protocol::resp::Value| {
        let text = |name: &str| entry.field(name).and_then(|value| value.str().map(str::to_owned)).unwrap_or_default();
        let count = entry.field("count").and_then(|value| value.integer()).unwrap_or_default();
        (count, text("reason"), text("object"), text("username"))
    };
    let all: Vec<_> = entries.items().iter().map(told).collect();
    let expected = [(1, "channel", "d"), (2, "key", "other"), (1, "command", "keys")];
    assert_eq!(all, expected.map(|(count, reason, object)| (count, reason.into(), object.into(), "ann".into())));
    assert_eq!(ann.line("ACL LOG 1").value().items().len(), 1);
    assert_eq!(ann.line("ACL LOG RESET"), "+OK\r\n");
    assert_eq!(ann.line("ACL LOG"), "*0\r\n");
    assert!(String::from_utf8_lossy(&ann.line("ACL SETUSER ann +@all").0).contains("is about the nodes' users"));
    let mut free = proxy.client();
    assert!(!free.line("HELLO 3 AUTH free secret").is_error());
    assert_eq!(free.line("ACL LIST").texts(), ["user free on sanitize-payload ~* &* +@all"]);
    assert_eq!(free.line("ACL GETUSER ann"), "_\r\n");
    assert!(free.line("ACL GETUSER free").0.starts_with(b"%6\r\n"));
}

#[test]
fn rules_change_while_clients_are_served() {
    let (settings, _) = with_file(shared(), "");
    let file = std::path::PathBuf::from(&settings.flags[1]);
    let change = {
        let name = file.clone();
        move |rules: &str| fs::write(&name, user("ann", rules) + &user("root", "")).expect("a file")
    };
    change("rules = \"+@all ~k* &*\"");
    let proxy = Proxy::start(settings.expecting("is not taken"));
    let (mut ann, mut listens, mut root) = (proxy.client(), proxy.client(), proxy.client());
    for (client, name) in [(&mut ann, "ann"), (&mut listens, "ann"), (&mut root, "root")] {
        assert_eq!(client.line(&format!("AUTH {name} secret")), "+OK\r\n");
    }
    assert!(!listens.line("SUBSCRIBE news").is_error());
    assert_eq!(ann.line("SET k1 x"), "+OK\r\n");
    change("rules = \"+@all ~other* &c*\"");
    assert!(!root.line("PROXY RELOAD").is_error());
    assert!(ann.line("GET k1").0.starts_with(b"-NOPERM "));
    assert!(!ann.line("GET other").is_error());
    until("who listens to what it may not any more to be closed", Duration::from_secs(5), || {
        listens.read().is_err().then_some(())
    });
    change("");
    assert!(!root.line("PROXY RELOAD").is_error());
    assert_eq!(ann.line("GET k1").string(), "x");
    change("rules = \"+@al\"");
    let refused = root.line("PROXY RELOAD");
    assert!(String::from_utf8_lossy(&refused.0).contains("there is no category `al`"), "{refused:?}");
    eventually("the old ones to serve on", || ann.line("GET k1").string() == "x");
}

#[test]
fn a_wrong_rule_is_named_at_the_start() {
    for (rules, why) in [
        ("~a +gett", "`+gett`: there is no command `gett`; did you mean `get`?"),
        ("allkeys ~a", "`~a`: behind allkeys it has no effect"),
    ] {
        let (settings, _) = with_file(shared(), &user("a", &format!("rules = \"{rules}\"")));
        let said = checked(&settings).expect_err(rules);
        assert!(said.contains("users.a.rules") && said.contains(why), "{rules}: {said}");
    }
}
