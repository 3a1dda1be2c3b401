//! What is made of a node's words on users.

use super::*;
use crate::{
    commands::table::CommandTable,
    protocol::resp::{request::Parser, write},
};

fn user_reply(fields: &[(&str, &str)]) -> Value {
    let text = |text: &str| Value::Text(Bytes::copy_from_slice(text.as_bytes()));
    Value::Array(fields.iter().flat_map(|(name, value)| [text(name), text(value)]).collect())
}

fn rules(commands: &str, keys: &str, channels: &str) -> UserRules {
    UserRules::parse(&user_reply(&[("commands", commands), ("keys", keys), ("channels", channels)])).unwrap()
}

#[test]
fn who_may_do_all_is_told_from_who_may_not() {
    for (commands, keys, channels, all, all_keys) in [
        ("+@all", "~*", "&*", true, true),
        ("+@all -debug", "~*", "&*", false, true),
        ("-@all", "~*", "&*", false, true),
        ("+@all", "~k*", "&*", false, false),
        ("+@all", "%R~*", "&*", false, false),
        ("+@all", "~*", "", false, false),
        ("-@all", "", "", false, false),
    ] {
        let rules = rules(commands, keys, channels);
        assert_eq!((rules.all, rules.all_keys), (all, all_keys), "{commands} {keys} {channels}");
    }
    let valkey = |databases: &str| {
        let fields = [("commands", "+@all"), ("keys", "~*"), ("channels", "&*"), ("databases", databases)];
        UserRules::parse(&user_reply(&fields)).unwrap().all
    };
    assert!(valkey("alldbs") && !valkey("db=0"));
    // Redis 6.2 lists patterns.
    let star = || Value::Array(vec![Value::Text(Bytes::from_static(b"*"))]);
    let Value::Array(mut fields) = user_reply(&[("commands", "+@all")]) else { unreachable!() };
    for name in ["keys", "channels"] {
        fields.extend([Value::Text(Bytes::copy_from_slice(name.as_bytes())), star()]);
    }
    assert!(UserRules::parse(&Value::Array(fields)).unwrap().all);
    assert_eq!(UserRules::parse(&Value::Null), None);
}

#[test]
fn refusals_are_in_the_servers_words() {
    for (told, error) in [
        (
            "This user has no permissions to run the 'client|list' command",
            "NOPERM this user has no permissions to run the 'client|list' command",
        ),
        (
            "User nob has no permissions to run the 'ping' command",
            "NOPERM User nob has no permissions to run the 'ping' command",
        ),
        (
            "This user has no permissions to access the 'a b' key",
            "NOPERM this user has no permissions to access one of the keys used as arguments",
        ),
        ("User k has no permissions to access the 'a' key", "NOPERM No permissions to access a key"),
        (
            "This user has no permissions to access the 'x' channel",
            "NOPERM this user has no permissions to access one of the channels used as arguments",
        ),
        (
            "User k has no permissions to access the ' has no permissions to run the ' channel",
            "NOPERM No permissions to access a channel",
        ),
        ("User u has no permissions to access database 1", "NOPERM No permissions to access database"),
        ("User u has no permissions to do something new", "NOPERM User u has no permissions to do something new"),
    ] {
        assert_eq!(refusal(told).as_deref(), Some(error));
    }
    for other in ["", "OK", "User", "User u", "This user", "has no permissions to run the 'get' command"] {
        assert_eq!(refusal(other), None, "{other}");
    }
}

fn with_request<T>(args: &[&[u8]], look: impl FnOnce(&Request, &Spec) -> T) -> T {
    let mut frame = Vec::new();
    write::request(&mut frame, args);
    let mut parser = Parser::default();
    let found = parser.find(&frame).unwrap().unwrap();
    let request = parser.request(&frame, found);
    let commands = CommandTable::builtin();
    look(&request, commands.find(&request).unwrap())
}

#[test]
fn verdicts_are_kept_where_they_are_not_about_the_arguments() {
    let (by_key, by_row, by_first) =
        (rules("+@all -ping", "~k*", "&*"), rules("-@all +get", "~*", "&*"), rules("-@all +select|0", "~*", "&*"));
    for (line, rules, key) in [
        ("PING", Some(&by_key), Some("ping")),
        ("PING a", Some(&by_key), Some("ping")),
        ("CLIENT KILL ID 7", Some(&by_key), Some("client|kill")),
        ("GET k", Some(&by_key), None),
        ("GET k", Some(&by_row), Some("get")),
        ("SUBSCRIBE a", Some(&by_key), None),
        ("SUBSCRIBE a", Some(&by_row), Some("subscribe")),
        ("SELECT 0", Some(&by_key), None),
        ("SELECT 0", Some(&by_first), Some("select 0")),
        ("SELECT 1", Some(&by_row), Some("select")),
        ("PING", None, Some("ping")),
        ("PING a", None, Some("ping a")),
        ("GET k", None, None),
    ] {
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        let kept = with_request(&words, |request, spec| UserRules::key(rules, request, spec));
        assert_eq!(kept.as_deref(), key, "{line}");
    }
}

#[test]
fn long_values_are_not_sent_along() {
    let long = vec![b'x'; LONGEST_WORD + 1];
    let lengths = |args: &[&[u8]]| {
        with_request(args, |request, spec| words(request, spec).iter().map(|word| word.len()).collect::<Vec<_>>())
    };
    assert_eq!(lengths(&[b"SET", b"k", &long]), [3, 1, 0]);
    assert_eq!(lengths(&[b"SET", &long, b"v"]), [3, long.len(), 1]);
    assert_eq!(lengths(&[b"EVAL", &long, b"1", b"k", &long]), [4, 0, 1, 1, 0]);
    assert_eq!(lengths(&[b"PUBLISH", &long, b"v"]), [7, long.len(), 1]);
}

#[test]
fn what_is_known_ages_and_is_forgotten() {
    let rights = Rights::default();
    let (user, now) = (rights.user(b"a"), Instant::now());
    assert!(Arc::ptr_eq(&user, &rights.user(b"a")));
    assert!(!user.is_free(now) && user.is_due(now) && !user.is_due(now));
    let all = rules("+@all", "~*", "&*");
    user.learn(all.clone(), user.generation(), now);
    user.asked();
    assert!(user.is_free(now) && !user.is_due(now) && user.rules(now).is_some());
    assert!(user.is_free(now + FRESH) && user.is_due(now + FRESH) && user.rules(now + FRESH).is_none());
    assert!(!user.is_free(now + FREE + SILENCE));
    // Where nobody answers, it stays as it was.
    assert!(user.nobody_answered(false, now + FREE) && user.is_free(now + FREE));
    let before = user.generation();
    user.judged("ping".into(), Ok(()), before, now);
    assert_eq!(user.verdict("ping", now), Some(Ok(())));
    assert_eq!(user.verdict("ping", now + FRESH), None);
    rights.forget();
    assert!(!user.is_free(now) && user.verdict("ping", now).is_none());
    // What was asked before does not count afterwards.
    user.learn(all, before, now);
    user.judged("ping".into(), Ok(()), before, now);
    assert!(!user.is_free(now) && user.verdict("ping", now).is_none());
    assert!(!user.nobody_answered(false, now) && user.nobody_answered(true, now));
    drop(user);
    assert!(rights.in_use().is_empty());
}
