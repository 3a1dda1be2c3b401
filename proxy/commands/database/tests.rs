mod replies;
mod scripts;

use std::{rc::Rc, sync::Arc};

use super::*;
use crate::{
    commands::{
        plan::Policy,
        scripts::ScriptCache,
        table::{
            CommandTable,
            in_database::{InDatabase, ReplyKeys},
        },
    },
    protocol::{
        resp::{
            request::{Parser, RequestWriter},
            write,
        },
        says,
    },
};

fn shop() -> Arc<Database> {
    Arc::new(Database::new("shop", "{%}").unwrap())
}

/// What goes on of a request, its words with spaces between; or what became of it.
fn entered(database: &Database, line: &str) -> String {
    entered_where(database, &[], line)
}

/// Likewise, where the configuration allows these commands.
fn entered_where(database: &Database, allow: &[&str], line: &str) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    let (mut frame, mut parser, mut writer) = (Vec::new(), Parser::default(), RequestWriter::default());
    write::request(&mut frame, &words);
    let found = parser.find(&frame).unwrap().unwrap();
    let request = parser.request(&frame, found);
    let commands = CommandTable::builtin();
    let scripts = ScriptCache::new(Arc::default());
    let known = KnownScripts {
        wrapped: &WrappedScripts::default(),
        scripts: &scripts,
        scope: Scope::of(database.prefix()),
        commands: &commands,
        by_digest: true,
        is_queued: false,
        policy: &Policy::new(false, &[], allow),
    };
    match database.enter(&request, commands.find(&request), known, &mut writer) {
        Entered::AsItCame => "as it came".to_owned(),
        Entered::Refused(error) => String::from_utf8(error).unwrap(),
        Entered::InEach => "in each".to_owned(),
        Entered::CountsKeys => "counts keys".to_owned(),
        Entered::CountsPatterns => "counts patterns".to_owned(),
        Entered::ForgetsScripts => "forgets scripts".to_owned(),
        Entered::Unchanged(_) => "where it is so already".to_owned(),
        Entered::Rewritten | Entered::RewrittenUntold => {
            let request = writer.request();
            // What was written is a frame, and its arguments are where they are said to be.
            let (mut again, mut written) = (Parser::default(), Vec::new());
            let found = again.find(request.frame()).unwrap().unwrap();
            assert_eq!(found.used, request.frame().len());
            for (index, arg) in again.request(request.frame(), found).args().enumerate() {
                assert_eq!(request.get(index), Some(arg));
                written.push(String::from_utf8(arg.to_vec()).unwrap());
            }
            assert_eq!(request.len(), written.len());
            written.join(" ")
        }
    }
}

#[test]
fn keys_and_patterns_are_named_as_they_are_kept() {
    for (line, expected) in [
        ("GET foo", "GET {shop}foo"),
        ("get {shop}foo", "get {shop}{shop}foo"),
        ("SET foo foo EX 10", "SET {shop}foo foo EX 10"),
        ("SET ", "SET {shop}"),
        ("GET", "as it came"),
        ("MGET a b {x}c a", "MGET {shop}a {shop}b {shop}{x}c {shop}a"),
        ("MSET a a b b", "MSET {shop}a a {shop}b b"),
        ("OBJECT ENCODING a", "OBJECT ENCODING {shop}a"),
        ("OBJECT ENCODING", "as it came"),
        ("XINFO STREAM a FULL", "XINFO STREAM {shop}a FULL"),
        ("BITOP AND a b c", "BITOP AND {shop}a {shop}b {shop}c"),
        ("ZUNIONSTORE a 2 b c WEIGHTS 1 2", "ZUNIONSTORE {shop}a 2 {shop}b {shop}c WEIGHTS 1 2"),
        ("ZUNIONSTORE a 5 b c", "as it came"),
        ("LMPOP 2 a b LEFT", "LMPOP 2 {shop}a {shop}b LEFT"),
        ("BLPOP a b 0", "BLPOP {shop}a {shop}b 0"),
        ("BLMPOP 0 1 a LEFT", "BLMPOP 0 1 {shop}a LEFT"),
        ("GEORADIUS a 1 2 3 km STORE b", "GEORADIUS {shop}a 1 2 3 km STORE {shop}b"),
        ("XREAD COUNT 1 STREAMS a b 0 0", "XREAD COUNT 1 STREAMS {shop}a {shop}b 0 0"),
        ("XREADGROUP GROUP g c STREAMS a >", "XREADGROUP GROUP g c STREAMS {shop}a >"),
        // Unbalanced: the server says so.
        ("XREAD STREAMS a b 0", "as it came"),
        ("XREADGROUP GROUP streams c STREAMS a", "as it came"),
        // What is not understood might name keys.
        ("XREAD NEW STREAMS a 0", "ERR syntax error"),
        (
            "SORT a BY w_* GET o_*->f GET # BY nosort STORE b",
            "SORT {shop}a BY {shop}w_* GET {shop}o_*->f GET # BY nosort STORE {shop}b",
        ),
        ("SORT a BY none GET const GET #", "SORT {shop}a BY none GET {shop}const GET #"),
        ("SORT a LIMIT 0 BY STORE b", "SORT {shop}a LIMIT 0 BY STORE {shop}b"),
        ("COPY a b REPLACE", "COPY {shop}a {shop}b REPLACE"),
        (
            "COPY a b DB 3",
            "ERR proxy: COPY is not served in the database 'shop': option DB: the other database is in another slot; DUMP here and RESTORE there copy a key (SLOTWAY-REFUSED-IN-DATABASE)",
        ),
        ("KEYS", "as it came"),
        ("SCAN 0", "SCAN 0 MATCH {shop}*"),
        ("SCAN 0 COUNT 5 MATCH a* TYPE set", "SCAN 0 MATCH {shop}* COUNT 5 MATCH {shop}a* TYPE set"),
        ("SCAN 0 MATCH", "SCAN 0 MATCH {shop}* MATCH"),
        ("DBSIZE x", "as it came"),
        ("FLUSHDB NOSUCH", "ERR syntax error"),
        ("COMMAND GETKEYS GET a", "as it came"),
        ("PUBLISH a b", "as it came"),
        ("SUBSCRIBE a", "as it came"),
        ("INFO", "counts keys"),
        ("INFO server", "as it came"),
        ("CONFIG SET a b", "where it is so already"),
        ("DEBUG OBJECT a", "DEBUG OBJECT {shop}a"),
        ("ACL DRYRUN u MGET a b", "ACL DRYRUN u MGET {shop}a {shop}b"),
        ("ACL DRYRUN u PING", "as it came"),
        ("SLOWLOG GET 5", "SLOWLOG GET -1"),
        ("SLOWLOG GET x", "as it came"),
        ("SPUBLISH a b", "SPUBLISH {shop}a b"),
        ("SSUBSCRIBE a b", "SSUBSCRIBE {shop}a {shop}b"),
        ("SUNSUBSCRIBE", "SUNSUBSCRIBE"),
        ("PUBSUB SHARDNUMSUB a b", "PUBSUB SHARDNUMSUB {shop}a {shop}b"),
        ("PUBSUB SHARDCHANNELS", "PUBSUB SHARDCHANNELS {shop}*"),
        ("PUBSUB SHARDCHANNELS a*", "PUBSUB SHARDCHANNELS {shop}a*"),
        ("CLUSTER GETKEYSINSLOT 1 1", "ERR This instance has cluster support disabled"),
        ("OBJECT NOSUCH a", "ERR unknown subcommand 'NOSUCH'. Try OBJECT HELP."),
        ("OBJECT", "as it came"),
        ("NOSUCH a", "ERR unknown command 'NOSUCH', with args beginning with: 'a' "),
    ] {
        assert_eq!(entered(&shop(), line), expected, "{line}");
    }
    for (line, name, last) in [
        ("FLUSHDB", "EVAL", "flush 3808 {shop}"),
        ("FLUSHALL ASYNC", "EVAL", "flush 3808 {shop}"),
        ("RANDOMKEY", "EVAL_RO", "random 3808 {shop}"),
        ("DBSIZE", "EVAL_RO", "count 3808 {shop}"),
        ("KEYS a*", "EVAL_RO", "keys 3808 {shop} a* {shop}a*"),
    ] {
        let entered = entered(&shop(), line);
        let end = format!(" 2 {{shop}}\0slotway1 {{shop}}\0slotway2 {last}");
        assert!(entered.starts_with(name) && entered.ends_with(&end), "{line}: {entered:?}");
    }
    for line in ["SWAPDB 0 1", "MIGRATE h 1 k 0 5", "PROXY NODE a GET b", "MOVE a 1"] {
        let refused = entered(&shop(), line);
        assert!(refused.contains("is not served in the database 'shop': "), "{line}: {refused}");
    }
}

#[test]
fn a_prefix_with_letters_of_patterns_is_taken_as_it_is() {
    let odd = Database::new("a", "[x]*{%}:").unwrap();
    assert_eq!(entered(&odd, "GET k"), "GET [x]*{a}:k");
    assert!(entered(&odd, "KEYS k*").ends_with(" \\[x]\\*{a}:k*"));
    assert_eq!(odd.slot(), Slot::of(b"a"));
}

#[test]
fn several_are_told_apart_by_their_numbers() {
    let prefixes = |name: Option<&str>, count: usize| {
        let all = Databases::new(name, "{%}", count).unwrap();
        let prefix =
            |number: u32| all.get(number).map_or("", |database| std::str::from_utf8(database.prefix()).unwrap());
        (0..all.count()).map(prefix).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(prefixes(Some("shop"), 3), ["{shop}", "{shop/1}", "{shop/2}"]);
    assert_eq!(prefixes(Some("shop"), 0), ["{shop}"]);
    assert_eq!(prefixes(None, 3), ["", "{db/1}", "{db/2}"]);
    assert_eq!(prefixes(None, 0), [""]);
    let (several, one) = [3, 0].map(|count| Databases::new(Some("shop"), "{%}", count).unwrap()).into();
    assert_eq!(entered(several.get(1).unwrap(), "FLUSHALL"), "in each");
    assert!(entered(several.get(1).unwrap(), "FLUSHDB").starts_with("EVAL "));
    assert!(entered(one.get(0).unwrap(), "FLUSHALL").starts_with("EVAL "));
    assert!(!one.are_selected() && several.are_selected());
    assert_eq!(several.own(b"{shop/2}a"), Some((2, &b"a"[..])));
    assert_eq!(several.own(b"{shop/3}a"), None);
}

#[test]
fn names_and_forms_are_checked() {
    for name in ["shop", "shop/1", "a.b:c_d-e", "7"] {
        assert!(Database::new(name, "{%}").is_ok(), "{name}");
    }
    for name in ["", "my shop", "a{b", "a}", "é", "a%b", "a*"] {
        assert!(Database::new(name, "{%}").is_err(), "{name}");
    }
    for form in ["{%}", "app:{%}:", "{app:%}", "{%}{x}"] {
        assert!(Database::new("shop", form).is_ok(), "{form}");
    }
    for form in ["", "%", "{}%", "{x}%", "%{x}", "{%", "{%}%", "{%}\r\n"] {
        assert!(Database::new("shop", form).is_err(), "{form}");
    }
}

#[test]
fn what_acts_on_all_databases_is_refused_unless_it_is_allowed() {
    let allow = ["function", "script kill", "config set", "debug", "acl setuser"];
    for line in ["FUNCTION FLUSH", "SCRIPT KILL", "CONFIG SET maxmemory 1", "DEBUG SLEEP 0", "ACL SETUSER ann on"] {
        assert_ne!(entered(&shop(), line), "as it came", "{line}");
        assert_eq!(entered_where(&shop(), &allow, line), "as it came");
    }
    assert_eq!(entered_where(&shop(), &allow, "DEBUG OBJECT a"), "DEBUG OBJECT {shop}a");
    for line in ["MIGRATE h 1 a 0 1", "SWAPDB 0 1", "MOVE a 1"] {
        let allow = ["migrate", "swapdb", "move"];
        assert!(entered_where(&shop(), &allow, line).starts_with("ERR"), "{line} would reach the keys of others");
    }
}

#[test]
fn channels_are_the_databases_own_where_that_is_wanted() {
    let shared = shop();
    let isolating = |name, count| Databases::new(Some(name), "*{%}", count).unwrap().isolating_channels();
    let databases = isolating("shop", 3);
    let cases = [
        ("PUBLISH c m", "PUBLISH *{shop}c m"),
        ("PUBLISH __keyspace@0__:k del", "PUBLISH *{shop}__keyspace@0__:k del"),
        ("SUBSCRIBE a b", "SUBSCRIBE *{shop}a *{shop}b"),
        (
            "SUBSCRIBE a __keyspace@0__:k __redis__:invalidate",
            "SUBSCRIBE *{shop}a __keyspace@0__:k __redis__:invalidate",
        ),
        ("PSUBSCRIBE n?ws.[ab]* *", "PSUBSCRIBE \\*{shop}n?ws.[ab]* \\*{shop}*"),
        ("PSUBSCRIBE __keyevent@*__:*", "PSUBSCRIBE __keyevent@*__:*"),
        ("UNSUBSCRIBE", "UNSUBSCRIBE"),
        ("PUNSUBSCRIBE n*", "PUNSUBSCRIBE \\*{shop}n*"),
        ("PUBSUB CHANNELS", "PUBSUB CHANNELS \\*{shop}*"),
        ("PUBSUB CHANNELS n*", "PUBSUB CHANNELS \\*{shop}n*"),
        ("PUBSUB NUMSUB a b", "PUBSUB NUMSUB *{shop}a *{shop}b"),
        ("PUBSUB NUMSUB", "PUBSUB NUMSUB"),
        ("PUBSUB NUMPAT", "counts patterns"),
    ];
    for (line, expected) in cases {
        // One server has its channels for all its numbers.
        for number in [0, 2] {
            assert_eq!(entered(databases.get(number).unwrap(), line), expected);
        }
        assert_eq!(entered(&shared, line), "as it came", "{line}");
    }
    let channels = databases.channels().unwrap();
    assert_eq!(channels.own(b"*{shop}a", false), Some(&b"a"[..]));
    assert_eq!(channels.own(b"\\*{shop}a*", true), Some(&b"a*"[..]));
    assert_eq!(channels.own(b"{other}a", false), None);
    assert!(
        Databases::new(None, "{%}", 3).unwrap().isolating_channels().channels().is_none(),
        "it is all of the cluster"
    );
    let strip = |reply_keys, reply: &[u8]| {
        Strip::new(databases.get(2).unwrap(), &Rc::default(), reply_keys).unwrap().feed(reply)
    };
    let said = strip(ReplyKeys::Channels, b"*2\r\n$8\r\n*{shop}a\r\n$3\r\nbcd\r\n");
    assert_eq!(said, b"*1\r\n$1\r\na\r\n");
    let said = strip(ReplyKeys::ChannelPairs, b"*4\r\n$8\r\n*{shop}a\r\n:1\r\n$8\r\n*{shop}b\r\n:0\r\n");
    assert_eq!(said, b"*4\r\n$1\r\na\r\n:1\r\n$1\r\nb\r\n:0\r\n");
    assert!(Strip::new(&shared, &Rc::default(), ReplyKeys::ChannelPairs).is_none(), "nothing is to be told otherwise");
}

#[test]
fn a_database_flushes_its_own_scripts() {
    for line in ["SCRIPT FLUSH", "SCRIPT FLUSH ASYNC", "SCRIPT FLUSH SYNC"] {
        assert_eq!(entered(&shop(), line), "forgets scripts");
    }
    // A server says what is wrong with it.
    assert_eq!(entered(&shop(), "SCRIPT FLUSH NOW"), "as it came");
    assert_eq!(entered(&shop(), "COPY a b DB notanumber"), says::NOT_INTEGER);
}

/// What no row's allowance may be by accident: each command that is let in has keys that are known, or none.
#[test]
fn what_is_let_in_keeps_its_keys_within() {
    for spec in CommandTable::builtin().rows() {
        let refused = matches!(spec.in_database, InDatabase::Refused(_) | InDatabase::NoCluster);
        let names_keys = !matches!(
            spec.in_database,
            InDatabase::AsItCame | InDatabase::OnAll(_) | InDatabase::Channels(_) | InDatabase::Info
        );
        let alone = spec.container && !spec.name.contains('|');
        assert!(refused || alone || names_keys || !spec.has_keys(), "{} has keys and goes on as it came", spec.name);
    }
}

#[test]
fn notifications_are_asked_for_and_told_by_number() {
    let [named, nameless, one] = [(Some("shop"), 3), (None, 3), (Some("shop"), 0)]
        .map(|(name, count)| Databases::new(name, "{%}", count).unwrap());
    let asked = |databases: &Databases, name: &str, is_pattern: bool| {
        let all = databases.notified(name.as_bytes(), is_pattern).into_iter();
        all.map(|asked| String::from_utf8(asked.name).unwrap()).collect::<Vec<_>>().join(" ")
    };
    for (databases, name, is_pattern, expected) in [
        (&named, "__keyspace@1__:a*", false, "__keyspace@0__:{shop/1}a*"),
        (&named, "__keyspace@1__:a*", true, "__keyspace@0__:{shop/1}a*"),
        (&named, "__keyspace@3__:a", false, ""),
        (&named, "__keyspace@01__:a", false, ""),
        (&named, "__keyevent@2__:*", true, "__keyevent@0__:*"),
        (&named, "__keyevent@2__:set", false, "__keyevent@0__:set"),
        (&one, "__keyspace@2__:a", false, "__keyspace@2__:{shop}a"),
        (&one, "*", true, "__keyspace@*__:{shop}* __keyevent@*__:*"),
        (&nameless, "__keyspace@0__:a", false, "__keyspace@0__:a"),
        (&nameless, "__keyspace@1__:a", false, "__keyspace@0__:{db/1}a"),
    ] {
        assert_eq!(asked(databases, name, is_pattern), expected, "{name}");
    }
    let told = |databases: &Databases, name: &str, message: &str| {
        let told = databases.told(name.as_bytes(), message.as_bytes());
        told.map(|(name, message)| [name, message].map(|text| String::from_utf8(text).unwrap()).join(" "))
    };
    for (databases, name, message, expected) in [
        (&named, "__keyspace@0__:{shop/1}a", "set", Some("__keyspace@1__:a set")),
        (&named, "__keyevent@0__:set", "{shop}a", Some("__keyevent@0__:set a")),
        (&named, "__keyevent@0__:set", "a", None),
        (&named, "__keyevent@1__:set", "{shop}a", None),
        (&named, "__keyspace@0__:{other}a", "set", None),
        (&one, "__keyspace@5__:{shop}a", "set", Some("__keyspace@5__:a set")),
        (&nameless, "__keyspace@0__:{other}a", "set", Some("__keyspace@0__:{other}a set")),
        (&nameless, "__keyspace@0__:{db/2}a", "set", Some("__keyspace@2__:a set")),
    ] {
        assert_eq!(told(databases, name, message).as_deref(), expected, "{name} {message}");
    }
}
