//! What stands before the scripts of a database's clients, and within: so that they name keys as they are kept.

use std::{fmt::Write, sync::LazyLock};

use super::{
    ChannelUse, Database,
    lua::{self, Insertion, Reach, Sees},
};
use crate::commands::table::{
    CommandTable, Flags, Spec,
    in_database::{InDatabase, ReplyKeys},
};

/// The prologue without comments and line ends.
static PROLOGUE: LazyLock<String> = LazyLock::new(|| compact(include_str!("prologue.lua")));
/// The part of it that only scripts need which name other ways to what `redis` stands for.
static GLOBALS: LazyLock<String> = LazyLock::new(|| compact(include_str!("globals.lua")));
/// The names by which these go.
const GLOBAL_NAMES: &str = ", _G, load, loadstring, getfenv, setfenv";
/// What they stand for.
const GLOBAL_VALUES: &str = ", globals, hidden.load, hidden.loadstring, hidden.getfenv, hidden.setfenv";
/// Takes from KEYS what the proxy has declared.
static TRIM: LazyLock<String> = LazyLock::new(|| compact(include_str!("trim.lua")));
/// Takes from KEYS what the proxy has declared, and the prefix from those of the client.
static STRIP: LazyLock<String> = LazyLock::new(|| compact(include_str!("strip.lua")));
/// The function by which texts name keys as they are kept.
static KEY: LazyLock<String> = LazyLock::new(|| compact(include_str!("key.lua")));

/// A script of the proxy's own without comments and line ends.
pub(super) fn compact(text: &str) -> String {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("--"));
    lines.collect::<Vec<_>>().join(" ")
}

/// Where commands have their keys: those with one key as their first argument, and others by rules.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct KeyRules {
    one: String,
    some: String,
}

impl KeyRules {
    pub(super) fn of(commands: &CommandTable) -> KeyRules {
        let (mut one, mut some) = (" ".to_owned(), " ".to_owned());
        for spec in commands.rows() {
            if has_one_key_first(spec) {
                let _ = write!(one, "{} ", spec.name);
            } else if let Some(rule) = rule(spec) {
                let _ = write!(some, "{}={rule} ", spec.name);
            }
        }
        KeyRules { one, some }
    }
}

fn has_one_key_first(spec: &Spec) -> bool {
    spec.in_database == InDatabase::Keys && spec.only_key() == Some(1) && spec.reply_keys == ReplyKeys::Nothing
}

/// Where a command has its keys, and what its reply tells of them: see `prologue.lua`.
fn rule(spec: &Spec) -> Option<String> {
    let keys = match spec.in_database {
        _ if spec.container && !spec.name.contains('|') => "|".to_owned(),
        // What is others' is left out of these replies, which scripts cannot.
        _ if spec.reply_keys == ReplyKeys::Channels => return None,
        InDatabase::AsItCame => "-".to_owned(),
        InDatabase::Channels(ChannelUse::Publish) => "p".to_owned(),
        InDatabase::Channels(_) if !spec.flags.has(Flags::NOSCRIPT) => "q".to_owned(),
        InDatabase::Keys if spec.reads_streams() => "x".to_owned(),
        InDatabase::Keys => spec.rule_of_keys()?,
        InDatabase::Sort => "o".to_owned(),
        InDatabase::Copy => "c".to_owned(),
        InDatabase::Pattern => "k".to_owned(),
        InDatabase::Scan => "n".to_owned(),
        InDatabase::Count => "d".to_owned(),
        InDatabase::Random => "r".to_owned(),
        InDatabase::Flush => "f".to_owned(),
        InDatabase::FlushAll => "a".to_owned(),
        // Servers refuse it in scripts, and say so.
        _ if spec.flags.has(Flags::NOSCRIPT) => "-".to_owned(),
        InDatabase::Info
        | InDatabase::ConfigSet
        | InDatabase::Debug
        | InDatabase::Inner(_)
        | InDatabase::Log(_)
        | InDatabase::ShardChannels
        | InDatabase::AllFrom(_)
        | InDatabase::Channels(_)
        | InDatabase::Script(_)
        | InDatabase::NoCluster
        | InDatabase::OnAll(_)
        | InDatabase::Refused(_) => return None,
    };
    let reply_keys = match spec.reply_keys {
        ReplyKeys::Key => "/K",
        ReplyKeys::Each => "/E",
        ReplyKeys::First => "/F",
        ReplyKeys::Page => "/P",
        ReplyKeys::Streams => "/S",
        ReplyKeys::Group => "/G",
        _ if spec.in_database == InDatabase::Random => "/K",
        _ if spec.in_database == InDatabase::Pattern => "/E",
        _ => "",
    };
    Some(keys + reply_keys)
}

/// The text with what nodes need in front of its first line of code, and within; `None` where it needs nothing.
pub(super) fn wrap(database: &Database, text: &[u8], rules: &KeyRules, commands: &CommandTable) -> Option<Vec<u8>> {
    let code = match text.iter().position(|&byte| byte == b'\n') {
        _ if !text.starts_with(b"#!") => 0,
        Some(end) => end + 1,
        // There is no code.
        None => return None,
    };
    let (flags, code) = text.split_at(code);
    let filled = |template: &str| filled(template, database, code, rules, commands);
    let (before, code) = match lua::reach(code, commands) {
        Reach::Declared => return None,
        Reach::Any => (filled(&PROLOGUE), rewritten(&database.prefix, code, &lua::returning_values(code, commands))),
        Reach::Told(rewriting) => {
            let sees: &[&LazyLock<String>] = match rewriting.sees {
                Sees::Nothing => &[],
                Sees::Kept => &[&TRIM],
                Sees::Said => &[&STRIP],
            };
            let calls = rewriting.insertions.iter().any(|(_, what)| *what == Insertion::Call);
            let before = sees.iter().chain(calls.then_some(&&KEY)).map(|template| filled(template)).collect();
            (before, rewritten(&database.prefix, code, &rewriting.insertions))
        }
    };
    Some([flags, before.as_bytes(), &code].concat())
}

/// The code with what is to be put in.
fn rewritten(prefix: &[u8], code: &[u8], insertions: &[(usize, Insertion)]) -> Vec<u8> {
    let (literal, mut out, mut from) = (literal(prefix), Vec::new(), 0);
    for (at, what) in insertions {
        out.extend_from_slice(&code[from..*at]);
        from = *at;
        match what {
            Insertion::Prefix => out.extend_from_slice(&literal.as_bytes()[1..literal.len() - 1]),
            Insertion::PrefixAnd => out.extend_from_slice(format!("{literal} .. ").as_bytes()),
            Insertion::Call => out.extend_from_slice(format!("{}(", lua::KEY).as_bytes()),
            Insertion::Open => out.push(b'('),
            Insertion::End => out.push(b')'),
        }
    }
    out.extend_from_slice(&code[from..]);
    out
}

/// A template with what it has between two @.
fn filled(template: &str, database: &Database, text: &[u8], rules: &KeyRules, commands: &CommandTable) -> String {
    let mut out = String::new();
    // Every other part is the name of what is put in.
    for (index, part) in template.split('@').enumerate() {
        match (index % 2, part) {
            (1, "ONE") => out.push_str(&literal(rules.one.as_bytes())),
            (1, "SOME") => out.push_str(&literal(rules.some.as_bytes())),
            (1, "NAMES") => out.push_str(&names_in(text, commands)),
            (1, "GLOBALS" | "GLOBAL NAMES" | "GLOBAL VALUES") if !lua::may_go_another_way(text) => {}
            (1, "GLOBALS") => out.push_str(&GLOBALS),
            (1, "GLOBAL NAMES") => out.push_str(GLOBAL_NAMES),
            (1, "GLOBAL VALUES") => out.push_str(GLOBAL_VALUES),
            (1, "PREFIX") => out.push_str(&literal(&database.prefix)),
            (1, "BEHIND") => out.push_str(&(database.prefix.len() + 1).to_string()),
            (1, "GUARD") => out.push_str(&literal(&database.guards[1])),
            (1, "KEY") => out.push_str(lua::KEY),
            (1, "PATTERN") => out.push_str(&literal(&database.pattern)),
            (1, "CHANNELS") => {
                let channels = database.channels.as_ref().map(|channels| &*channels.prefix);
                out.push_str(&literal(channels.unwrap_or_default()));
            }
            (1, "SEVERAL") => out.push_str(if database.is_one_of_several { "true" } else { "false" }),
            (1, "SLOT") => out.push_str(&database.slot.to_string()),
            (1, _) => out.push_str(&database.name),
            _ => out.push_str(part),
        }
    }
    out
}

/// A string of Lua's; what stands between its quotes may stand between others, too.
fn literal(text: &[u8]) -> String {
    let mut out = String::from("'");
    for &byte in text {
        match byte {
            b' '..=b'~' if !b"'\"\\".contains(&byte) => out.push(byte.into()),
            _ => {
                let _ = write!(out, "\\{byte:03}");
            }
        }
    }
    out + "'"
}

/// The names of commands with one key as their first argument that stand between quotes in the text, as they stand there.
fn names_in(text: &[u8], commands: &CommandTable) -> String {
    const LONGEST_NAME: usize = 24;
    let mut names = std::collections::BTreeSet::new();
    for word in text.split(|byte| b"'\"".contains(byte)) {
        let is_name = (1..=LONGEST_NAME).contains(&word.len()) && word.iter().all(u8::is_ascii_alphanumeric);
        if is_name && commands.named(word, b"").is_some_and(has_one_key_first) {
            names.insert(String::from_utf8_lossy(word).into_owned());
        }
    }
    let names: Vec<String> = names.into_iter().map(|name| format!("['{name}']=1")).collect();
    format!("{{{}}}", names.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_into_a_string_ends_none() {
        let shop = Database::new("shop", "\"'\\{%}").expect("a form");
        let insertions = vec![(9, Insertion::Prefix), (17, Insertion::Prefix)];
        let code = rewritten(&shop.prefix, b"local a=\"b\" c = 'd'", &insertions);
        assert_eq!(
            String::from_utf8(code).expect("text"),
            "local a=\"\\034\\039\\092{shop}b\" c = '\\034\\039\\092{shop}d'"
        );
    }
}
