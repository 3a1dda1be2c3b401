//! Tables: words of a request, what becomes of it.

use super::*;
use crate::{
    commands::table::{CommandTable, treatment::ClusterView},
    protocol::resp::{request::Parser, write},
};

/// Runs `check` on the request of these words.
fn with<T>(words: &[&str], check: impl FnOnce(&Request, Option<&Spec>) -> T) -> T {
    let mut frame = Vec::new();
    write::request(&mut frame, words);
    let mut parser = Parser::default();
    let found = parser.find(&frame).unwrap().unwrap();
    let request = parser.request(&frame, found);
    let table = CommandTable::builtin();
    check(&request, table.find(&request))
}

fn planned(line: &str) -> Plan {
    let words: Vec<&str> = line.split(' ').map(|word| if word == "''" { "" } else { word }).collect();
    with(&words, |request, spec| plan(request, spec, &Policy::default()))
}

fn one(key: &str) -> Plan {
    Plan::One(Slot::of(key.as_bytes()))
}

#[test]
fn requests_go_by_their_keys() {
    for (line, key) in [
        ("GET a", "a"),
        ("get {t}a", "t"),
        ("SET a 1 EX 10", "a"),
        ("MGET {t}a {t}b", "t"),
        ("MSET {t}a 1 {t}b 2", "t"),
        ("MSETNX {t}a 1 {t}b 2", "t"),
        ("XREAD COUNT 1 STREAMS a 0", "a"),
        ("XREAD COUNT STREAMS STREAMS a 0", "a"),
        ("XREADGROUP GROUP streams block NOACK STREAMS a >", "a"),
        ("XREAD BLOCK x STREAMS a 0", "a"),
        ("XREAD BLOCK -1 STREAMS a 0", "a"),
        ("XGROUP CREATE a g $", "a"),
        ("OBJECT ENCODING a", "a"),
        ("MEMORY USAGE a", "a"),
        ("SORT {t}a BY nosort GET # STORE {t}b", "t"),
        ("SORT {t}a STORE b STORE {t}c", "t"),
        ("GEORADIUS {t}a 1 2 3 m STORE {t}b", "t"),
        ("GEORADIUSBYMEMBER {t}a m 3 m STOREDIST {t}b", "t"),
        ("ZUNIONSTORE {t}a 2 {t}b {t}c WEIGHTS 1 2", "t"),
        ("ZINTERCARD 2 {t}a {t}b LIMIT 1", "t"),
        ("LMPOP 2 {t}a {t}b LEFT", "t"),
        ("BITOP AND {t}a {t}b {t}c", "t"),
        ("RENAME {t}a {t}b", "t"),
        ("SPUBLISH a hello", "a"),
        ("MSETEX 2 {t}a 1 {t}b 2 NX EX 3", "t"),
        ("CLUSTERSCAN 0-{06S}-0", "06S"),
        ("BLPOP a x", "a"),
        ("BLPOP a -1", "a"),
        ("KEYS {t}*", "t"),
        ("DEBUG OBJECT a", "a"),
        ("GEOSEARCHSTORE {t}a {t}b FROMMEMBER m BYRADIUS 1 m ASC", "t"),
        ("PFCOUNT {t}a {t}b", "t"),
        ("SINTERSTORE {t}a {t}b {t}c", "t"),
    ] {
        assert_eq!(planned(line), one(key), "{line}");
    }
    assert_eq!(planned("CLUSTER COUNTKEYSINSLOT 7"), Plan::One(Slot::new(7).unwrap()));
}

#[test]
fn what_has_no_key_or_is_malformed_goes_to_some_primary() {
    for line in [
        "TIME",
        "GET",
        "FROBNICATE a b",
        "CONFIG FROB",
        "CONFIG",
        "OBJECT HELP",
        "XINFO HELP",
        "SINTERCARD 5 a",
        "ZUNION 0 a",
        "XREAD COUNT 1",
        "XREAD STREAMS a",
        "XREAD STREAMS a 1 b",
        "LMPOP x a LEFT",
        "COMMAND COUNT",
        "CLUSTER COUNTKEYSINSLOT x",
        "CLUSTER COUNTKEYSINSLOT 16384",
        "SCAN x",
        "KEYS",
        "KEYS * *",
        "CLIENT FROB",
        "CLIENT HELP",
        "BLPOP a",
        "LOLWUT",
        "ACL LIST",
        "DEBUG HELP",
        "MSETEX x a 1",
    ] {
        assert_eq!(planned(line), Plan::Any, "{line}");
    }
}

#[test]
fn logs_are_asked_for_all_of_their_entries() {
    for (line, asked) in [
        ("slowlog len", Some("slowlog GET -1")),
        ("SLOWLOG get 3", Some("SLOWLOG GET -1")),
        ("SLOWLOG GET", Some("SLOWLOG GET -1")),
        ("COMMANDLOG GET 3 large-reply", Some("COMMANDLOG GET -1 large-reply")),
        ("COMMANDLOG LEN slow", Some("COMMANDLOG GET -1 slow")),
        // For a node to refuse.
        ("SLOWLOG GET x", None),
        ("SLOWLOG GET -2", None),
        ("SLOWLOG GET 1 2", None),
        ("SLOWLOG LEN x", None),
        ("DBSIZE", None),
    ] {
        let words: Vec<&str> = line.split(' ').collect();
        let found = with(&words, |request, spec| match plan(request, spec, &Policy::default()) {
            Plan::Primaries(rule) => all_entries(request, spec, rule),
            other => panic!("{line}: {other:?}"),
        });
        let expected = asked.map(|asked| {
            let mut frame = Vec::new();
            write::request(&mut frame, &asked.split(' ').collect::<Vec<_>>());
            frame
        });
        assert_eq!(found, expected, "{line}");
    }
}

#[test]
fn what_is_about_all_goes_to_all() {
    for (line, rule) in [
        ("DBSIZE", MergeRule::Sum),
        ("FLUSHALL ASYNC", MergeRule::AllSucceeded),
        ("BGSAVE SCHEDULE", MergeRule::AllSucceeded),
        ("BGREWRITEAOF", MergeRule::AllSucceeded),
        ("DEBUG RELOAD", MergeRule::AllSucceeded),
        ("DEBUG DIGEST", MergeRule::Digest),
        ("FUNCTION LOAD x", MergeRule::AllSucceeded),
        ("CONFIG SET maxmemory 1", MergeRule::AllSucceeded),
        ("CONFIG RESETSTAT", MergeRule::AllSucceeded),
        ("RANDOMKEY", MergeRule::RandomKey),
        ("INFO", MergeRule::Info),
        ("SLOWLOG GET", MergeRule::Newest(10)),
        ("SLOWLOG GET 3", MergeRule::Newest(3)),
        ("SLOWLOG GET -1", MergeRule::Newest(u32::MAX)),
        ("SLOWLOG LEN", MergeRule::Entries),
        ("LATENCY RESET", MergeRule::Max),
        ("LATENCY LATEST", MergeRule::Latest),
        ("ACL LOG", MergeRule::Youngest(10)),
        ("ACL LOG 3", MergeRule::Youngest(3)),
        ("ACL LOG reset", MergeRule::AllSucceeded),
        ("LASTSAVE", MergeRule::Min),
        ("MEMORY DOCTOR", MergeRule::Fullest),
        ("PUBSUB SHARDCHANNELS", MergeRule::Concat),
    ] {
        assert_eq!(planned(line), Plan::Primaries(rule), "{line}");
    }
    for line in ["KEYS *", "KEYS {}*", "KEYS {a*}", "KEYS \\{a}*"] {
        assert_eq!(planned(line), Plan::Keys, "{line}");
    }
    assert_eq!(planned("PUBLISH a b"), Plan::PubSub);
    assert_eq!(planned("ROLE"), Plan::AnyRewritten(MergeRule::Role));
    assert_eq!(planned("CONFIG GET *"), Plan::AnyRewritten(MergeRule::Config));
}

#[test]
fn what_holds_the_cluster_together_may_only_stay_as_it_is() {
    let error = |line: &str| match planned(line) {
        Plan::Unchanged(error) => String::from_utf8(error).expect("a text"),
        other => panic!("{line}: {other:?}"),
    };
    let text = "ERR CONFIG SET is not served by the proxy: the cluster or the proxy depends on requirepass";
    assert!(error("CONFIG SET requirepass x").starts_with(text));
    assert!(error("CONFIG SET RequirePass x bind y").starts_with(text));
    assert_eq!(planned("CONFIG SET requirepass"), Plan::Any);
    assert!(matches!(planned("CONFIG SET requirepass x hz 1"), Plan::Refuse(_)));
    assert!(matches!(planned("CONFIG SET requirepass x bind"), Plan::Refuse(_)));
}

#[test]
fn scripts_go_by_their_keys_and_are_looked_after() {
    for (line, which, key) in [
        ("EVAL script 2 {t}a {t}b c", Scripting::Eval, Some("t")),
        ("EVAL script 0 a", Scripting::Eval, None),
        ("EVAL script -1", Scripting::Eval, None),
        ("EVAL script x", Scripting::Eval, None),
        ("EVAL script 3 a b", Scripting::Eval, None),
        ("EVALSHA_RO sha 1 a b", Scripting::Evalsha, Some("a")),
        ("FCALL f 1 a b", Scripting::Fcall, Some("a")),
        ("FCALL_RO f 0", Scripting::Fcall, None),
        ("SCRIPT LOAD x", Scripting::Load, None),
        ("SCRIPT EXISTS x y", Scripting::Exists, None),
        ("SCRIPT FLUSH", Scripting::Flush, None),
    ] {
        let slot = key.map(|key| Slot::of(key.as_bytes()));
        assert_eq!(planned(line), Plan::Scripting(which, slot), "{line}");
    }
    assert!(matches!(planned("EVAL script 2 a b"), Plan::Refuse(_)));
    assert_eq!(planned("SCRIPT KILL"), Plan::OutOfBand(MergeRule::OneSucceeded));
    assert_eq!(planned("FUNCTION STATS"), Plan::OutOfBand(MergeRule::Fullest));
    assert_eq!(planned("FUNCTION LIST"), Plan::Any);
}

#[test]
fn scans_know_a_tag() {
    assert_eq!(planned("SCAN 0"), Plan::Scan(None));
    assert_eq!(planned("SCAN 0 COUNT 5 match {t}*"), Plan::Scan(Some(Slot::of(b"t"))));
    assert_eq!(planned("SCAN 0 MATCH {t}* MATCH a*"), Plan::Scan(None));
    assert_eq!(planned("SCAN 0 MATCH"), Plan::Scan(None));
}

#[test]
fn the_session_does_what_is_about_it() {
    for (line, local) in [
        ("PING", Local::Ping),
        ("CLIENT SETINFO lib-name x", Local::Client(ClientCommand::Setinfo)),
        ("MULTI", Local::Multi),
        ("HELLO 3", Local::Hello),
        ("WAIT 1 100", Local::Wait),
        ("PROXY NODES", Local::Proxy(ProxyCommand::Nodes)),
        ("SUBSCRIBE a", Local::Subscribe),
    ] {
        assert_eq!(planned(line), Plan::Local(local), "{line}");
    }
    for (line, text) in [
        ("MULTI x", "ERR wrong number of arguments for 'multi' command"),
        ("CLIENT ID x", "ERR wrong number of arguments for 'client|id' command"),
    ] {
        assert_eq!(planned(line), Plan::Refuse(text.into()), "{line}");
    }
}

#[test]
fn what_may_wait_waits_alone() {
    for (line, key, at, unit) in [
        ("BLPOP {t}a {t}b 1.5", "t", 3, Unit::Seconds),
        ("BLMOVE {t}a {t}b LEFT RIGHT 0", "t", 5, Unit::Seconds),
        ("BZMPOP 2 1 a MIN", "a", 1, Unit::Seconds),
        ("XREAD BLOCK 100 STREAMS a $", "a", 2, Unit::Milliseconds),
        ("XREADGROUP GROUP g c COUNT 1 BLOCK 0 STREAMS a >", "a", 7, Unit::Milliseconds),
    ] {
        let blocking = Blocking { slot: Some(Slot::of(key.as_bytes())), timeout: Some((at, unit)) };
        assert_eq!(planned(line), Plan::Blocking(blocking), "{line}");
    }
}

#[test]
fn refusals_say_why() {
    for (line, start) in [
        ("SHUTDOWN", "ERR SHUTDOWN is not served by the proxy: it would stop a node"),
        ("CLUSTER MEET a 1", "ERR CLUSTER MEET is not served by the proxy: "),
        ("CONFIG SET maxmemory 1 Cluster-enabled no", "ERR CONFIG SET is not served"),
        ("DEBUG SLEEP 10", "ERR DEBUG is not served"),
        ("DEBUG RELOAD NOSAVE", "ERR DEBUG is not served"),
        ("MIGRATE a", "ERR wrong number of arguments for 'migrate' command"),
        ("CLUSTER NODES x", "ERR wrong number of arguments for 'cluster|nodes' command"),
        (
            "RENAME a b",
            "CROSSSLOT Keys in request don't hash to the same slot: 'a' is in slot 15495, 'b' is in slot 3300. Give",
        ),
        ("MSETNX a 1 b 2", "CROSSSLOT Keys in request don't hash to the same slot"),
        ("MSETEX 2 a 1 b 2 XX", "CROSSSLOT Keys in request don't hash to the same slot"),
        ("BLPOP a b 0", "CROSSSLOT Keys in request don't hash to the same slot"),
        ("RENAME a b c", "ERR wrong number of arguments for 'rename' command"),
        ("BLMOVE a b", "ERR wrong number of arguments for 'blmove' command"),
        ("MSET a 1 b", "ERR wrong number of arguments for 'mset' command"),
        ("MSETEX 2 a 1 b", "ERR syntax error"),
    ] {
        let Plan::Refuse(text) = planned(line) else { panic!("{line}") };
        assert!(text.starts_with(start.as_bytes()), "{line}: {}", text.escape_ascii());
    }
    // What the cluster is, the proxy says: its listener has what it is to its clients.
    assert_eq!(planned("CLUSTER NODES"), Plan::Local(Local::ClusterView(ClusterView::Nodes)));
}

#[test]
fn operators_choose() {
    let policy = Policy::new(true, &["FLUSHALL", "config", "acl  list"], &["shutdown", "debug"]);
    let planned = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        with(&words, |request, spec| plan(request, spec, &policy))
    };
    for line in ["FLUSHALL", "CONFIG GET a", "CONFIG FROB", "ACL LIST", "MGET a b"] {
        assert!(matches!(planned(line), Plan::Refuse(_)), "{line}");
    }
    assert_eq!(planned("SHUTDOWN"), Plan::Any);
    assert_eq!(planned("DEBUG SLEEP 0"), Plan::Primaries(MergeRule::AllSucceeded));
    assert_eq!(planned("MGET {t}a {t}b"), one("t"));
}

/// The requests of a split's parts, each as one line.
fn parts(line: &str, cut: impl FnOnce(&Request, &Spec) -> Option<Split>) -> Vec<String> {
    let words: Vec<&str> = line.split(' ').collect();
    with(&words, |request, spec| {
        let spec = spec.unwrap_or_else(|| panic!("{line}: table.txt, the built-in table, has no row for it"));
        let split = cut(request, spec).unwrap_or_else(|| panic!("{line} is not split: see treatment/of_command.rs"));
        let lines = (0..split.parts.len()).map(|part| {
            let mut frame = Vec::new();
            split.encode(part, request, &mut frame);
            let mut parser = Parser::default();
            let found = parser.find(&frame).unwrap().unwrap();
            assert_eq!(found.used, frame.len());
            let words = parser.request(&frame, found).args().map(|arg| String::from_utf8_lossy(arg).into_owned());
            words.collect::<Vec<_>>().join(" ")
        });
        lines.collect()
    })
}

fn by_slot(request: &Request, spec: &Spec) -> Option<Split> {
    match plan(request, Some(spec), &Policy::default()) {
        Plan::Split(split) => Some((*split).clone()),
        _ => None,
    }
}

#[test]
fn splits_keep_each_key_with_what_belongs_to_it() {
    // Slots: b 3300, c 7365, d 11298, a 15495.
    for (line, rule, expected) in [
        ("MGET a b {b}2 a", MergeRule::KeyOrder, &["MGET b {b}2", "MGET a a"][..]),
        ("MSET a 1 b 2 {a}2 3", MergeRule::AllSucceeded, &["MSET b 2", "MSET a 1 {a}2 3"]),
        ("DEL d c b", MergeRule::Sum, &["DEL b", "DEL c", "DEL d"]),
        ("UNLINK b a", MergeRule::Sum, &["UNLINK b", "UNLINK a"]),
        ("EXISTS b a", MergeRule::Sum, &["EXISTS b", "EXISTS a"]),
        ("TOUCH b a", MergeRule::Sum, &["TOUCH b", "TOUCH a"]),
        (
            "MSETEX 3 a 1 b 2 {b}2 3 EX 10",
            MergeRule::AllSucceeded,
            &["MSETEX 2 b 2 {b}2 3 EX 10", "MSETEX 1 a 1 EX 10"],
        ),
    ] {
        let cut = |request: &Request, spec: &Spec| {
            let split = by_slot(request, spec);
            assert_eq!(split.as_ref().map(|split| split.rule), Some(rule), "{line}: see treatment/of_command.rs");
            split
        };
        assert_eq!(parts(line, cut), expected, "{line}");
    }
}

#[test]
fn a_half_moved_slot_is_asked_key_by_key() {
    for (line, expected) in [
        ("MGET {t}b {t}a {t}b", &["MGET {t}a", "MGET {t}b {t}b"][..]),
        ("MSET {t}a 1 {t}b 2 {t}a 3", &["MSET {t}a 1 {t}a 3", "MSET {t}b 2"]),
        ("EXISTS {t}a", &["EXISTS {t}a"]),
    ] {
        assert_eq!(parts(line, by_key), expected, "{line}");
    }
    for line in ["MSETNX {t}a 1 {t}b 2", "SINTER {t}a {t}b", "MSETEX 1 a 1 NX"] {
        let words: Vec<&str> = line.split(' ').collect();
        assert_eq!(with(&words, |request, spec| by_key(request, spec.unwrap())), None, "{line}");
    }
}

#[test]
fn told_keys_decide() {
    assert_eq!(of_keys(&[]), Plan::Any);
    assert_eq!(of_keys(&[b"{t}a", b"{t}b"]), one("t"));
    assert!(matches!(of_keys(&[b"a", b"b"]), Plan::Refuse(_)));
}

#[test]
fn what_is_cut_in_portions_is_as_cut_at_once() {
    let keys =
        |step: usize| (0..5000).map(move |index| (index % 4000).to_string()).flat_map(move |key| vec![key; step]);
    let requests: [Vec<String>; 3] = [
        ["MGET".to_owned()].into_iter().chain(keys(1)).collect(),
        ["MSET".to_owned()].into_iter().chain(keys(2)).collect(),
        ["MSETEX", "5000"].map(str::to_owned).into_iter().chain(keys(2)).chain(["KEEPTTL".to_owned()]).collect(),
    ];
    for words in &requests {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        with(&words, |request, spec| {
            let Plan::LongSplit(cut) = plan(request, spec, &Policy::default()) else {
                panic!("{} is not long", words[0])
            };
            let whole = Split::by_slot(request, spec.unwrap(), cut.clone().finish(request).rule).unwrap();
            for portion in [1, 999, 5000, 1 << 20] {
                let mut cut = cut.clone();
                while !cut.go_on(request, portion) {}
                assert_eq!(cut.finish(request), whole, "{} by {portion}", words[0]);
            }
        });
    }
    // What lacks something is refused as ever.
    let mut odd = requests[1].clone();
    odd.pop();
    let odd: Vec<&str> = odd.iter().map(String::as_str).collect();
    assert!(with(&odd, |request, spec| matches!(plan(request, spec, &Policy::default()), Plan::Refuse(_))));
}
