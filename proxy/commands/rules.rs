//! What a user of the proxy's own may do: rules in the syntax of Redis' ACL SETUSER, and the decision by them. It is pure.
//!
//! Rules are read once ([`Rules::parse`]), and held against the table of the servers' commands ([`Rights::of`]), which tells the
//! commands of a category. A request is then judged by a bit for its command, and a pattern for each key and channel.

mod parse;
mod shown;

use std::sync::{Arc, LazyLock};

pub use self::shown::{Refusal, RefusalContext, Shown};
use super::table::{
    CommandTable, Flags, Spec,
    access::{Access, Channels},
};
use crate::protocol::{glob, resp::Request};

/// A user's rules: a request is allowed that one of its selectors allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// The user's own, then those in parentheses; never empty.
    selectors: Vec<Selector>,
}

/// Rules that have to allow all of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Selector {
    /// In their order: a later one counts.
    commands: Vec<CommandRule>,
    keys: Patterns<KeyPattern>,
    channels: Patterns<Box<[u8]>>,
}

/// Patterns of names.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Patterns<T> {
    All,
    These(Vec<T>),
}

/// Keys, and what may be done with them.
#[derive(Clone, Debug, PartialEq, Eq)]
struct KeyPattern {
    pattern: Box<[u8]>,
    access: Access,
}

/// One rule about commands.
#[derive(Clone, Debug, PartialEq, Eq)]
struct CommandRule {
    allows: bool,
    about: About,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum About {
    All,
    /// A category, without its `@`.
    Category(Box<str>),
    /// A command and its subcommands, or one subcommand (`config|get`).
    Command(Box<str>),
    /// A command with this first argument.
    First(Box<str>, Box<str>),
}

impl<T> Default for Patterns<T> {
    fn default() -> Patterns<T> {
        Patterns::These(Vec::new())
    }
}

impl Selector {
    fn allows_key(&self, key: &[u8], wanted: Access) -> bool {
        let fits = |own: &KeyPattern| {
            (own.access.reads || !wanted.reads)
                && (own.access.writes || !wanted.writes)
                && glob::matches(&own.pattern, key)
        };
        match &self.keys {
            Patterns::All => true,
            Patterns::These(patterns) => patterns.iter().any(fits),
        }
    }

    /// Whether all keys may be read.
    fn reads_all(&self) -> bool {
        match &self.keys {
            Patterns::All => true,
            Patterns::These(patterns) => patterns.iter().any(|own| own.access.reads && *own.pattern == *b"*"),
        }
    }

    fn allows_channel(&self, channel: &[u8], is_pattern: bool) -> bool {
        match &self.channels {
            Patterns::All => true,
            // What patterns may match is not known: only the very same pattern is allowed.
            Patterns::These(patterns) if is_pattern => patterns.iter().any(|own| **own == *channel),
            Patterns::These(patterns) => patterns.iter().any(|own| glob::matches(own, channel)),
        }
    }
}

/// Rules, held against a table of commands.
#[derive(Debug)]
pub struct Rights {
    rules: Arc<Rules>,
    table: Arc<CommandTable>,
    /// Which commands each of the selectors allows.
    commands: Vec<Commands>,
    /// Whether one of the selectors allows all that a script could do.
    may_run_code: bool,
}

/// Commands that are allowed, by their places in the table.
#[derive(Debug, Default)]
struct Commands {
    bits: Box<[u64]>,
    /// Those that are allowed with a first argument.
    firsts: Vec<(usize, Box<str>)>,
}

impl Rights {
    /// What `rules` mean for the commands of `table`.
    pub fn of(rules: &Arc<Rules>, table: &Arc<CommandTable>) -> Rights {
        let commands: Vec<Commands> =
            rules.selectors.iter().map(|selector| Commands::of(&selector.commands, table)).collect();
        let allows_all = |(selector, commands): (&Selector, &Commands)| {
            let may_be_called = |spec: &&Spec| {
                !spec.flags.has(Flags::NOSCRIPT) && !spec.container && !spec.traits.helps && !spec.is_own()
            };
            let mut called = table.rows().iter().filter(may_be_called);
            selector.keys == Patterns::All
                && selector.channels == Patterns::All
                && called.all(|spec| commands.has(spec))
        };
        let may_run_code = rules.selectors.iter().zip(&commands).any(allows_all);
        Rights { rules: rules.clone(), table: table.clone(), commands, may_run_code }
    }

    /// Whether they are those of this table.
    pub fn are_of(&self, table: &Arc<CommandTable>) -> bool {
        Arc::ptr_eq(&self.table, table)
    }

    /// What `request` would do that it may not; `spec` is its row in the table. Only of what takes as many arguments as it has.
    pub fn refusal<'a>(&self, spec: &Spec, request: &Request<'a>) -> Option<Refusal<'a>> {
        let mut worst: Option<Refusal<'a>> = None;
        for (selector, commands) in self.rules.selectors.iter().zip(&self.commands) {
            match refusal_by(selector, commands, spec, request) {
                None => {
                    worst = None;
                    break;
                }
                // As servers do: of what several selectors say, what came closest to being allowed is told.
                Some(refusal) => worst = worst.filter(|worst| worst.order() > refusal.order()).or(Some(refusal)),
            }
        }
        if worst.is_some() {
            return worst;
        }
        if spec.traits.runs_code && !self.may_run_code {
            return Some(Refusal::Code);
        }
        let option = spec.reaches_beyond(request)?;
        let mut both = self.rules.selectors.iter().zip(&self.commands);
        let reads_all = both.any(|(selector, commands)| commands.allow(spec, request) && selector.reads_all());
        (!reads_all).then_some(Refusal::Option(option))
    }
}

/// What one selector says of a request.
fn refusal_by<'a>(selector: &Selector, commands: &Commands, spec: &Spec, request: &Request<'a>) -> Option<Refusal<'a>> {
    if !commands.allow(spec, request) && !spec.flags.has(Flags::NO_AUTH) {
        return Some(Refusal::Command);
    }
    if selector.keys != Patterns::All {
        let mut forbidden: &[u8] = b"";
        let are = spec.all_keys_are(request, |index, access| {
            let key = request.arg(index);
            let is_allowed = selector.allows_key(key, access);
            if !is_allowed {
                forbidden = key;
            }
            is_allowed
        });
        if !are {
            return Some(Refusal::Key(forbidden));
        }
    }
    if selector.channels == Patterns::All {
        return None;
    }
    let (count, is_pattern) = match spec.channels() {
        Channels::None => return None,
        Channels::First => (1, false),
        Channels::All => (usize::MAX, false),
        Channels::Patterns => (usize::MAX, true),
    };
    let mut channels = request.args().skip(1).take(count);
    channels.find(|channel| !selector.allows_channel(channel, is_pattern)).map(Refusal::Channel)
}

impl Commands {
    fn of(rules: &[CommandRule], table: &CommandTable) -> Commands {
        let mut commands = Commands { bits: vec![0; table.rows().len().div_ceil(64)].into(), firsts: Vec::new() };
        for CommandRule { allows, about } in rules {
            match about {
                About::All => table.rows().iter().for_each(|spec| commands.set(spec, *allows)),
                About::Category(name) => {
                    let named = table.rows().iter().filter(|spec| spec.is_in_category(name));
                    named.for_each(|spec| commands.set_with_subcommands(spec, table, *allows));
                }
                About::Command(name) => {
                    if let Some(spec) = row(table, name) {
                        commands.set_with_subcommands(spec, table, *allows);
                    }
                }
                About::First(name, first) => {
                    let spec = row(table, name).filter(|spec| !commands.has(spec));
                    commands.firsts.extend(spec.map(|spec| (spec.place(), first.clone())));
                }
            }
        }
        commands
    }

    fn set_with_subcommands(&mut self, spec: &Spec, table: &CommandTable, allows: bool) {
        self.set(spec, allows);
        if spec.container {
            let is_sub = |other: &&Spec| other.name.strip_prefix(&*spec.name).is_some_and(|rest| rest.starts_with('|'));
            table.rows().iter().filter(is_sub).for_each(|sub| self.set(sub, allows));
        }
    }

    fn set(&mut self, spec: &Spec, allows: bool) {
        let (word, bit) = (spec.place() / 64, 1 << (spec.place() % 64));
        if let Some(word) = self.bits.get_mut(word) {
            *word = if allows { *word | bit } else { *word & !bit };
        }
        self.firsts.retain(|(place, _)| *place != spec.place());
    }

    #[inline]
    fn has(&self, spec: &Spec) -> bool {
        self.bits.get(spec.place() / 64).is_some_and(|word| word >> (spec.place() % 64) & 1 == 1)
    }

    #[inline]
    fn allow(&self, spec: &Spec, request: &Request) -> bool {
        let has_first = |(place, first): &(usize, Box<str>)| {
            *place == spec.place() && request.get(1).is_some_and(|arg| arg.eq_ignore_ascii_case(first.as_bytes()))
        };
        self.has(spec) || self.firsts.iter().any(has_first)
    }
}

/// The row of a name as `config|get`.
fn row<'a>(table: &'a CommandTable, name: &str) -> Option<&'a Spec> {
    let (name, sub) = name.split_once('|').unwrap_or((name, ""));
    table.named(name.as_bytes(), sub.as_bytes())
}

/// The categories that there are, of the servers that are known and of their modules.
fn categories() -> &'static [&'static str] {
    const OF_MODULES: [&str; 9] =
        ["bloom", "cuckoo", "cms", "json", "search", "tdigest", "timeseries", "topk", "vectorset"];
    static ALL: LazyLock<Vec<&str>> = LazyLock::new(|| {
        static TABLE: LazyLock<Arc<CommandTable>> = LazyLock::new(CommandTable::builtin);
        let mut all: Vec<&str> = TABLE.rows().iter().flat_map(|spec| spec.categories.split(',')).collect();
        all.extend(OF_MODULES);
        all.sort_unstable();
        all.dedup();
        all.retain(|name| !name.is_empty());
        all
    });
    &ALL
}

#[cfg(test)]
mod tests;
