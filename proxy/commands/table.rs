//! What is known of each command: the [`CommandTable`], learned from the servers' own `COMMAND`.
//!
//! A built-in table, made from real servers and checked in as text, serves until a server has been asked and where its
//! reply is of no use (`commands/table/table.txt`; `tests/every_command/keys.rs` says how it is made). Nobody keeps a list of commands by
//! hand: only what a command *means* for a proxy is written down, in [`treatment`].

pub mod access;
mod aliases;
pub mod busy;
pub mod command_info;
pub mod differences;
pub mod in_database;
pub mod keys;
mod learn;
pub mod lost;
pub mod merge_rule;
pub mod refused;
mod replies;
pub mod secrets;
pub mod sender;
pub mod spec;
pub mod traits;
pub mod treatment;

pub use self::{command_info::Flags, spec::Spec};
pub use keys::Keys;
pub use learn::{NoTable, listing};
pub use treatment::Treatment;

use std::sync::{Arc, LazyLock};

use self::aliases::Aliases;
use crate::protocol::resp::{Request, Value};

/// The rows of Valkey 9.1 and what Redis 7.0.15 has beyond them.
const BUILTIN: &str = include_str!("table/table.txt");

/// The proxy's own commands, in the text of the built-in table: rows of every table, whatever the servers know.
const OWN: &str = include_str!("table/own.txt");

/// Every command and subcommand, found by name. Its rows never change: a new table takes its place. The names that an
/// operator gave to commands are learned as clients use them.
#[derive(Debug)]
pub struct CommandTable {
    rows: Vec<Spec>,
    /// Indexes into `rows`, by hash of the name; `EMPTY` where there is none. At least half of it is empty.
    places: Box<[u16]>,
    aliases: Aliases,
}

const EMPTY: u16 = u16::MAX;

/// A row that has left the turn in which it was found, with its table.
#[derive(Clone, Debug)]
pub struct OwnedSpec {
    table: Arc<CommandTable>,
    place: usize,
}

impl OwnedSpec {
    /// The row.
    pub fn as_spec(&self) -> &Spec {
        &self.table.rows[self.place]
    }
}

impl CommandTable {
    /// The table that serves until a server has been asked.
    pub fn builtin() -> Arc<CommandTable> {
        static TABLE: LazyLock<Arc<CommandTable>> =
            LazyLock::new(|| Arc::new(CommandTable::new(BUILTIN.lines().filter_map(learn::row_of_text).collect())));
        TABLE.clone()
    }

    /// The table of a server, from its reply to `COMMAND` in RESP2 or RESP3. A command that the server does not have is
    /// not in it, so that the server itself answers what it thinks of it.
    pub fn learn(reply: &Value) -> Result<CommandTable, NoTable> {
        learn::rows_of_reply(reply, &CommandTable::builtin()).map(CommandTable::new)
    }

    /// What to ask the server whose rows these are, for [`CommandTable::with_names`]: what it knows by each command's own
    /// name.
    pub fn question(&self) -> String {
        let names: Vec<&str> = self.named_by_server().map(|spec| &*spec.name).collect();
        format!("COMMAND INFO {}", names.join(" "))
    }

    /// The table, once the server has answered that: it has found out which commands go by other names only.
    pub fn with_names(mut self, reply: &Value) -> CommandTable {
        let mut renamed = 0;
        for (row, spec) in reply.items().iter().zip(self.rows.iter_mut().filter(|spec| is_named_by_server(spec))) {
            spec.is_renamed = !name_in(row).is_some_and(|name| name.eq_ignore_ascii_case(&spec.name));
            renamed += usize::from(spec.is_renamed);
        }
        self.aliases = Aliases::of(renamed);
        self
    }

    /// The commands that a server has.
    fn named_by_server(&self) -> impl Iterator<Item = &Spec> {
        self.rows.iter().filter(|spec| is_named_by_server(spec))
    }

    /// Whether the servers know a command by its own name.
    pub fn serves(&self, name: &str) -> bool {
        self.named(name.as_bytes(), b"").is_some_and(|spec| !spec.is_renamed)
    }

    /// Whether only the server can tell whose name this is.
    pub fn is_open(&self, name: &[u8]) -> bool {
        self.aliases.is_open(name)
    }

    /// Takes what the server says of one name, its reply to `COMMAND INFO name`; false where that tells nothing.
    pub fn learn_name(&self, name: &[u8], reply: &Value) -> bool {
        let [row] = reply.items() else { return false };
        let own = name_in(row).and_then(|own| self.rows.iter().position(|spec| spec.name.eq_ignore_ascii_case(own)));
        self.aliases.learn(name, own.map(|index| index as u16));
        true
    }

    fn new(mut rows: Vec<Spec>) -> CommandTable {
        rows.extend(OWN.lines().filter_map(learn::row_of_text));
        rows.sort_by(|a, b| a.name.cmp(&b.name));
        rows.dedup_by(|a, b| a.name == b.name);
        rows.truncate(usize::from(EMPTY));
        rows.iter_mut().enumerate().for_each(|(index, spec)| spec.place = index as u16);
        let mut places = vec![EMPTY; (rows.len() * 4).next_power_of_two()].into_boxed_slice();
        let mask = places.len() - 1;
        for (index, spec) in rows.iter().enumerate() {
            let (name, sub) = spec.name.split_once('|').unwrap_or((&spec.name, ""));
            let mut place = hash(name.as_bytes(), sub.as_bytes()) & mask;
            while places[place] != EMPTY {
                place = (place + 1) & mask;
            }
            places[place] = index as u16;
        }
        CommandTable { rows, places, aliases: Aliases::default() }
    }

    /// The row of a request: of the subcommand where there is one, else of the command.
    pub fn find(&self, request: &Request) -> Option<&Spec> {
        let spec = self.named(request.name(), b"")?;
        match request.get(1) {
            Some(sub) if spec.container => self.named(spec.name.as_bytes(), sub).or(Some(spec)),
            _ => Some(spec),
        }
    }

    /// The row of a command, or of its subcommand where `sub` is not empty; both in any case.
    pub fn named(&self, name: &[u8], sub: &[u8]) -> Option<&Spec> {
        let mask = self.places.len() - 1;
        let mut place = hash(name, sub) & mask;
        loop {
            // An empty place has no row either.
            let Some(spec) = self.rows.get(usize::from(self.places[place])) else { return self.renamed(name, sub) };
            if is_named(&spec.name, name, sub) {
                return Some(spec);
            }
            place = (place + 1) & mask;
        }
    }

    /// As [`CommandTable::named`], of a command that goes by another name than its own.
    #[cold]
    fn renamed(&self, name: &[u8], sub: &[u8]) -> Option<&Spec> {
        let spec = self.rows.get(usize::from(self.aliases.row(name)?))?;
        if sub.is_empty() { Some(spec) } else { self.named(spec.name.as_bytes(), sub) }
    }

    /// The row of the same command as `spec`, which may be another table's, to be kept.
    pub fn keep(self: &Arc<CommandTable>, spec: &Spec) -> Option<OwnedSpec> {
        let place = self.rows.binary_search_by(|row| row.name.cmp(&spec.name)).ok()?;
        Some(OwnedSpec { table: self.clone(), place })
    }

    /// All rows, by name.
    pub fn rows(&self) -> &[Spec] {
        &self.rows
    }
}

fn is_named_by_server(spec: &Spec) -> bool {
    !spec.is_own() && !spec.name.contains('|')
}

/// The name in a row of the server's.
fn name_in(row: &Value) -> Option<&str> {
    row.items().first()?.str()
}

/// A name as it stands in the tables, from one as people write it: `config|get` from `CONFIG GET` or `Config|Get`.
pub fn canonical(name: &str) -> String {
    let words: Vec<&str> = name.split([' ', '|']).filter(|word| !word.is_empty()).collect();
    words.join("|").to_ascii_lowercase()
}

/// A name is hashed by its length, its beginning and its end: enough to tell most commands apart, and no long loop over
/// what a client sends. Case does not matter: bit 5 is set in every byte.
fn hash(name: &[u8], sub: &[u8]) -> usize {
    let mixed = |text: &[u8]| {
        let ends = match text.len() {
            0 => 0,
            1..=3 => text.iter().fold(0u64, |word, &byte| word << 8 | u64::from(byte)),
            4..=7 => u64::from(word4(text, 0)) << 32 | u64::from(word4(text, text.len() - 4)),
            length => {
                (u64::from(word4(text, 0)) << 32 | u64::from(word4(text, 4)))
                    ^ (u64::from(word4(text, length - 4)) << 24 | u64::from(word4(text, length - 8)))
            }
        };
        ((ends | 0x2020_2020_2020_2020) ^ (text.len() as u64) << 56).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    };
    let hash = mixed(name).rotate_left(23) ^ if sub.is_empty() { 0 } else { mixed(sub) };
    (hash ^ hash >> 29) as usize
}

fn word4(text: &[u8], at: usize) -> u32 {
    text.get(at..at + 4).and_then(|word| word.try_into().ok()).map_or(0, u32::from_le_bytes)
}

fn is_named(full: &str, name: &[u8], sub: &[u8]) -> bool {
    let full = full.as_bytes();
    if sub.is_empty() {
        return full.eq_ignore_ascii_case(name);
    }
    full.len() == name.len() + 1 + sub.len()
        && full[..name.len()].eq_ignore_ascii_case(name)
        && full[name.len()] == b'|'
        && full[name.len() + 1..].eq_ignore_ascii_case(sub)
}

#[cfg(test)]
mod tests {
    use super::{treatment::Local, *};
    use crate::{
        commands::plan::{Plan, Policy, plan},
        protocol::resp::{request::Parser, write},
    };

    fn found(args: &[&str]) -> Option<String> {
        let mut frame = Vec::new();
        write::request(&mut frame, args);
        let mut parser = Parser::default();
        let found = parser.find(&frame).unwrap().unwrap();
        CommandTable::builtin().find(&parser.request(&frame, found)).map(|spec| spec.name.to_string())
    }

    #[test]
    fn names_are_found_in_any_case() {
        for (args, name) in [
            (&["GET", "a"][..], Some("get")),
            (&["gEt"], Some("get")),
            (&["config", "GET", "x"], Some("config|get")),
            (&["CONFIG", "frob"], Some("config")),
            (&["CONFIG"], Some("config")),
            (&["CLUSTER", "count-failure-reports", "x"], Some("cluster|count-failure-reports")),
            (&["config|get"], None),
            (&["GETT"], None),
            (&["", ""], None),
            (&["GE\0"], None),
            (&["FT.SEARCH"], None),
            (&["Proxy", "NODE", "x"], Some("proxy|node")),
            (&["PROXY", "frob"], Some("proxy")),
        ] {
            assert_eq!(found(args).as_deref(), name, "{args:?}");
        }
    }

    #[test]
    fn every_row_is_found_by_its_name() {
        let table = CommandTable::builtin();
        assert!(table.rows().len() > 380, "{}", table.rows().len());
        for spec in table.rows() {
            let upper = spec.name.to_ascii_uppercase();
            let (name, sub) = upper.split_once('|').unwrap_or((&upper, ""));
            assert_eq!(table.named(name.as_bytes(), sub.as_bytes()), Some(spec));
            assert_eq!(table.keep(spec).expect("it is there").as_spec(), spec);
        }
    }

    #[test]
    fn commands_that_the_servers_have_renamed_are_told_from_the_others() {
        let table = CommandTable::builtin();
        let names: Vec<&Spec> = table.named_by_server().collect();
        // A module's name may have capital letters.
        let said = |spec: &&Spec| match &*spec.name {
            "exec" | "ping" => Value::Null,
            name => Value::Array(vec![Value::Text(name.to_ascii_uppercase().into())]),
        };
        let reply = Value::Array(names.iter().map(said).collect());
        let table = CommandTable::new(table.rows().to_vec()).with_names(&reply);
        assert!(table.serves("get") && table.serves("multi"));
        assert!(!table.serves("exec") && !table.serves("ping") && !table.serves("none"));
        let exec = table.named(b"exec", b"").expect("it is there by its other name");
        assert!(!exec.goes_by(b"EXEC") && exec.goes_by(b"xexec"));
        assert!(table.is_open(b"xexec") && !table.is_open(b""));

        // A transaction is ended by the name that nodes know.
        let row = |name: &'static str| Value::Array(vec![Value::Array(vec![Value::Text(name.into())])]);
        assert!(table.learn_name(b"xexec", &row("exec")));
        let planned = |name: &str| {
            let (mut frame, mut parser) = (Vec::new(), Parser::default());
            write::request(&mut frame, &[name]);
            let found = parser.find(&frame).unwrap().unwrap();
            let request = parser.request(&frame, found);
            plan(&request, table.find(&request), &Policy::default())
        };
        assert!(matches!(planned("EXEC"), Plan::Refuse(error) if error.starts_with(b"ERR unknown command 'EXEC'")));
        assert_eq!(planned("XEXEC"), Plan::Local(Local::Exec));
        assert_eq!(planned("MULTI"), Plan::Local(Local::Multi));
    }
}
