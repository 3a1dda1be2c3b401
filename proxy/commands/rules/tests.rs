//! Rules and requests, and what is decided: by a table.

use super::*;
use crate::protocol::resp::{request::Parser, write};

fn judged(rules: &str, line: &str) -> String {
    let rules = Arc::new(Rules::parse(rules).unwrap());
    let rights = Rights::of(&rules, &CommandTable::builtin());
    let mut frame = Vec::new();
    write::request(&mut frame, &line.split(' ').collect::<Vec<_>>());
    let mut parser = Parser::default();
    let found = parser.find(&frame).unwrap().unwrap();
    let request = parser.request(&frame, found);
    let spec = rights.table.find(&request).unwrap();
    let text = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
    match rights.refusal(spec, &request) {
        None => "ok".to_owned(),
        Some(Refusal::Command) => "command".to_owned(),
        Some(Refusal::Key(key)) => format!("key {}", text(key)),
        Some(Refusal::Channel(channel)) => format!("channel {}", text(channel)),
        Some(Refusal::Option(option)) => format!("option {option}"),
        Some(Refusal::Code) => "code".to_owned(),
    }
}

#[test]
fn what_a_user_may_do_follows_from_its_rules() {
    for (rules, line, expected) in [
        ("", "GET a", "command"),
        ("", "HELLO 3", "ok"),
        ("", "AUTH a b", "ok"),
        ("", "QUIT", "ok"),
        ("+@all", "PING", "ok"),
        ("+@all", "GET a", "key a"),
        ("+@all ~*", "GET a", "ok"),
        ("+@all allkeys", "SUBSCRIBE a", "channel a"),
        ("allcommands allkeys allchannels", "PSUBSCRIBE *", "ok"),
        ("+@read ~cache:*", "GET cache:a", "ok"),
        ("+@read ~cache:*", "GET other", "key other"),
        ("+@read ~cache:*", "SET cache:a b", "command"),
        ("+@read ~cache:*", "MGET cache:a b cache:c", "key b"),
        ("+@read ~cache:* ~b", "MGET cache:a b cache:c", "ok"),
        // The order counts.
        ("+@all -@dangerous +keys", "KEYS *", "ok"),
        ("+@all +keys -@dangerous", "KEYS *", "command"),
        ("+@all -@dangerous ~*", "FLUSHALL", "command"),
        ("+@all -get ~*", "GET a", "command"),
        ("+get -@all", "GET a", "command"),
        ("+get nocommands +set ~*", "SET a b", "ok"),
        ("+get reset", "GET a", "command"),
        // Containers and their subcommands.
        ("+config", "CONFIG GET a", "ok"),
        ("+config -config|set", "CONFIG SET a b", "command"),
        ("+config -config|set", "CONFIG GET a", "ok"),
        ("+config|get", "CONFIG GET a", "ok"),
        ("+config|get", "CONFIG RESETSTAT", "command"),
        ("+CLIENT|ID", "client id", "ok"),
        // A first argument.
        ("+select|0", "SELECT 0", "ok"),
        ("+select|0", "SELECT 1", "command"),
        ("+select|0 -select", "SELECT 0", "command"),
        // What is done with keys.
        ("+@all %R~a", "GET a", "ok"),
        ("+@all %R~a", "SET a b", "key a"),
        ("+@all %W~a", "SET a b", "ok"),
        ("+@all %W~a", "GET a", "key a"),
        ("+@all %W~a", "SET a b GET", "key a"),
        ("+@all %W~a", "EXISTS a", "ok"),
        ("+@all %R~a %W~a", "INCR a", "ok"),
        ("+@all %R~* %W~a", "INCR a", "key a"),
        ("+@all %r~src:* %w~dst:*", "COPY src:1 dst:1", "ok"),
        ("+@all %r~src:* %w~dst:*", "COPY dst:1 src:1", "key dst:1"),
        ("+@all ~a resetkeys ~b", "GET a", "key a"),
        // Channels: patterns have to be the very same.
        ("+@all &news.*", "SUBSCRIBE news.a news.b", "ok"),
        ("+@all &news.*", "SUBSCRIBE news.a other", "channel other"),
        ("+@all &news.*", "PSUBSCRIBE news.*", "ok"),
        ("+@all &news.*", "PSUBSCRIBE news.a*", "channel news.a*"),
        ("+@all &news.*", "PUBLISH news.a text", "ok"),
        ("+@all &news.*", "PUBLISH other news.a", "channel other"),
        ("+@all ~* &news.*", "SPUBLISH other x", "channel other"),
        ("+@all &news.*", "SSUBSCRIBE news.a", "ok"),
        ("+@all", "UNSUBSCRIBE a", "ok"),
        ("+@all", "PUNSUBSCRIBE", "ok"),
        ("+@all &a resetchannels", "PUBLISH a b", "channel a"),
        // SORT reads what it does not name.
        ("+@all ~a", "SORT a BY w_*", "option BY"),
        ("+@all ~a", "SORT a BY nosort", "ok"),
        ("+@all ~a ~b", "SORT a GET # STORE b", "option GET"),
        ("+@all ~a %R~*", "SORT a BY w_* GET v_*", "ok"),
        ("+@all ~*", "SORT a BY w_* GET v_*", "ok"),
        ("+@all ~a", "SORT a STORE b", "key b"),
        // Code could do anything.
        ("+@all ~* &*", "EVAL x 0", "ok"),
        ("+@all ~* &* -config -shutdown", "EVAL x 0", "ok"),
        ("+@all ~k", "ZDIFFSTORE d 5 a", "ok"),
        ("+@all ~* &* -flushall", "EVAL x 0", "code"),
        ("+@all ~* &*", "FCALL f 0", "ok"),
        ("+@all ~a &*", "EVAL x 0", "code"),
        ("+@all ~a &*", "EVALSHA x 1 b", "key b"),
        ("+@all ~* &a", "FCALL_RO f 0", "code"),
        ("+@all ~*", "PROXY NODE x GET a", "code"),
        ("+@all ~* &*", "PROXY NODE x GET a", "ok"),
        ("+@read", "PROXY NODE x GET a", "command"),
        // Selectors: one of them has to allow all.
        ("+get ~a (+set ~b)", "GET a", "ok"),
        ("+get ~a (+set ~b)", "SET b x", "ok"),
        ("+get ~a (+set ~b)", "SET a x", "key a"),
        ("+get ~a ( +set ~b )", "GET b", "key b"),
        ("+get ~a (+set ~b)", "DEL a", "command"),
        ("+get ~a (+set ~b) clearselectors", "SET b x", "command"),
        ("+mget ~a (+mget ~b)", "MGET a b", "key a"),
    ] {
        assert_eq!(judged(rules, line), expected, "{rules}: {line}");
    }
}

#[test]
fn a_wrong_word_is_named() {
    for (rules, why) in [
        ("~a +gett", "`+gett`: there is no command `gett`; did you mean `get`?"),
        ("-@dangerouss", "`-@dangerouss`: there is no category `dangerouss`; did you mean `dangerous`?"),
        ("+config|gett", "`+config|gett`: config has no subcommand `gett`; did you mean `get`?"),
        ("-select|0", "`-select|0`: a first argument can be allowed, not forbidden: `-select +select|...`"),
        ("+config|", "`+config|`: behind | there is one subcommand"),
        ("allkeys ~a", "`~a`: behind allkeys it has no effect; `resetkeys` ends that"),
        ("&* &a", "`&a`: behind allchannels it has no effect; `resetchannels` ends that"),
        ("%~a", "`%~a`: between % and ~ there is R, W or RW"),
        ("%Ra", "`%Ra`: what is said by % ends in a ~ and a pattern, such as %R~cache:*"),
        ("off", "`off`: a user that is switched off is none: leave out its table"),
        ("nopass", "`nopass`: passwords are those of `password_file`"),
        (">secret", "a word with `>`, `<`, `#` or `!` in front: passwords are those of `password_file`"),
        ("(+get ~a", "`(` has no `)`: each selector ends in one"),
        ("db=1", "`db=1`: in which database a user works is said by `database`"),
        ("get", "`get`: this is no rule: there are ~key %R~key &channel +command -command +@category -@category"),
    ] {
        assert_eq!(Rules::parse(rules).unwrap_err(), why);
    }
    for fine in ["+ft.search", "+@json", "on +@all ~*", "+@all ~* &*", "RESET +PING", "+select|0"] {
        assert!(Rules::parse(fine).is_ok(), "{fine}");
    }
}

#[test]
fn rules_are_shown_as_servers_show_theirs() {
    for (rules, line) in [
        ("", "resetchannels -@all"),
        ("+@all allkeys allchannels", "~* &* +@all"),
        ("~a %R~b &c +@read -get", "~a %R~b resetchannels &c -@all +@read -get"),
        ("+@all ~* (+select|0 %W~b)", "~* resetchannels +@all (%W~b resetchannels -@all +select|0)"),
    ] {
        assert_eq!(String::from_utf8(Rules::parse(rules).unwrap().line()).unwrap(), line);
    }
}
