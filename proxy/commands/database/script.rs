//! Scripts in a database: a prologue on their first line shows them the database's world (`prologue.lua`). They are kept at
//! nodes by the digests of what nodes are given, and known to clients by those of what clients said.
//!
//! No text of a client's goes to a node without the prologue, and no digest but that of a text that has it, unless the text
//! itself shows that it only hands its declared keys on ([`Reach::Declared`]): any other could reach the keys of all databases.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    fmt::Write,
    hash::BuildHasher,
    rc::Rc,
    sync::{Arc, LazyLock},
};

use super::{
    ChannelUse, Database, Entered, Scope,
    lua::{self, Reach},
};
use crate::{
    commands::{
        plan::Policy,
        scripts::{Met, ScriptCache, Sha, is_kept},
        table::{
            CommandTable, Flags, Spec,
            in_database::{Code, InDatabase, ReplyKeys},
        },
    },
    protocol::resp::{
        Request,
        request::{RequestWriter, decimal},
    },
};

/// Scripts that are kept, and the longest text.
const MOST: usize = 1024;
const LONGEST: usize = 64 * 1024;
/// A digest that no script has.
const NOBODYS: &[u8] = b"ffffffffffffffffffffffffffffffffffffffff";

/// The prologue without comments and line ends.
static PROLOGUE: LazyLock<String> = LazyLock::new(|| compact(include_str!("prologue.lua")));
/// Likewise, of that for scripts that only call commands with one key.
static SIMPLE_PROLOGUE: LazyLock<String> = LazyLock::new(|| compact(include_str!("prologue_simple.lua")));

/// A script of the proxy's own without comments and line ends.
pub(super) fn compact(text: &str) -> String {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("--"));
    lines.collect::<Vec<_>>().join(" ")
}

/// A script as a database's clients know it, and as nodes do.
#[derive(Debug)]
struct Wrapped {
    prefix: Box<[u8]>,
    said: Box<[u8]>,
    sha_said: Sha,
    kept: Box<[u8]>,
    sha_kept: Sha,
    /// The text itself is kept, and needs no guards: it touches no keys but those that are declared.
    is_bare: bool,
}

#[derive(Clone, Copy, Debug)]
struct Name {
    said: Sha,
    /// The script has run without an error: it is no text that does not compile, so that its digest will do.
    proven: bool,
}

/// One worker's scripts in databases.
#[derive(Debug, Default)]
pub struct WrappedScripts {
    hasher: foldhash::quality::RandomState,
    /// By the hash of prefix and text.
    by_text: RefCell<HashMap<u64, Rc<Wrapped>>>,
    /// What clients call a script, by what nodes call it.
    names: RefCell<HashMap<Sha, Name>>,
    /// The script that was entered last as a whole and has not been seen to run.
    not_run_yet: Cell<Option<Sha>>,
    /// What servers know.
    commands: RefCell<Option<Arc<CommandTable>>>,
    /// Where commands have their keys, written for the prologue, and of which table.
    rules: RefCell<Option<(Arc<CommandTable>, Rc<KeyRules>)>>,
}

/// Where commands have their keys: those with one key as their first argument, and others by rules.
#[derive(Debug, PartialEq, Eq)]
struct KeyRules {
    one: String,
    some: String,
}

/// What is known where a request enters a database.
#[derive(Clone, Copy)]
pub struct KnownScripts<'a> {
    /// How they are kept at nodes.
    pub wrapped: &'a WrappedScripts,
    /// The texts that clients have said, and those that nodes have been given.
    pub scripts: &'a ScriptCache,
    /// Whose clients' texts count.
    pub scope: Scope,
    /// The servers' commands.
    pub commands: &'a Arc<CommandTable>,
    /// Whether a script that nodes have been given may be named by its digest: the client's user may do all.
    pub by_digest: bool,
    /// The request joins a transaction.
    pub is_queued: bool,
    /// What the configuration lets through.
    pub policy: &'a Policy,
}

impl Database {
    /// EVAL, EVALSHA and the subcommands of SCRIPT.
    pub(super) fn enter_script(
        &self,
        request: &Request,
        (code, spec): (Code, &Spec),
        known: KnownScripts,
        anew: &mut RequestWriter,
    ) -> Entered {
        match code {
            Code::Eval => {
                let wrapped = known.wrap(self, request.arg(1), Met::Evaluated);
                let sha = wrapped.sha_kept;
                let is_kept =
                    known.by_digest && known.wrapped.is_proven(&sha) && known.scripts.find(sha.digits()).is_some();
                known.wrapped.not_run_yet.set((!is_kept).then_some(sha));
                let (name, script): (&[u8], &[u8]) = match (is_kept, spec.is_readonly()) {
                    (false, _) => (request.name(), &wrapped.kept),
                    (true, false) => (b"EVALSHA", wrapped.sha_kept.digits()),
                    (true, true) => (b"EVALSHA_RO", wrapped.sha_kept.digits()),
                };
                self.enter_call(request, name, script, self.guards_of(Some(&wrapped)), anew);
            }
            Code::Evalsha => {
                let wrapped = known.find(self, request.arg(1));
                let digest = wrapped.as_ref().map_or(NOBODYS, |wrapped| wrapped.sha_kept.digits());
                self.enter_call(request, request.name(), digest, self.guards_of(wrapped.as_deref()), anew);
            }
            Code::Load => {
                anew.begin(3);
                anew.push(&[request.name()]);
                anew.push(&[request.arg(1)]);
                anew.push(&[&known.wrap(self, request.arg(2), Met::Loaded).kept]);
            }
            Code::Flush => {
                let is_well_formed = request.get(2).is_none() || request.is(2, "SYNC") || request.is(2, "ASYNC");
                let is_own = known.scope != Scope::CLUSTER && request.len() <= 3 && is_well_formed;
                return if is_own { Entered::ForgetsScripts } else { Entered::AsItCame };
            }
            Code::Show => match known.find(self, request.arg(2)) {
                Some(wrapped) => {
                    anew.begin(2);
                    anew.push(&[b"ECHO"]);
                    anew.push(&[&wrapped.said]);
                }
                None => {
                    anew.begin(3);
                    [request.name(), request.arg(1), NOBODYS].into_iter().for_each(|arg| anew.push(&[arg]));
                }
            },
            Code::Exists => {
                anew.begin(request.len());
                for (index, arg) in request.args().enumerate() {
                    let wrapped = (index > 1).then(|| known.find(self, arg));
                    match wrapped {
                        None => anew.push(&[arg]),
                        Some(None) => anew.push(&[NOBODYS]),
                        Some(Some(wrapped)) => anew.push(&[wrapped.sha_kept.digits()]),
                    }
                }
            }
        }
        Entered::Rewritten
    }

    /// What a call of the script declares besides its keys.
    fn guards_of(&self, script: Option<&Wrapped>) -> &[Box<[u8]>] {
        if script.is_some_and(|script| script.is_bare) { &[] } else { &self.guards }
    }

    /// The script's keys are named as they are kept; the guards stand behind them, so that one without keys goes to where the
    /// database is.
    fn enter_call(
        &self,
        request: &Request,
        name: &[u8],
        script: &[u8],
        guards: &[Box<[u8]>],
        anew: &mut RequestWriter,
    ) {
        let number = decimal(request.arg(2)).and_then(|number| usize::try_from(number).ok());
        let Some(number) = number.filter(|number| *number <= request.len() - 3) else {
            // A server says so, and nothing runs.
            anew.begin(request.len());
            anew.push(&[name]);
            anew.push(&[script]);
            return request.args().skip(2).for_each(|arg| anew.push(&[arg]));
        };
        anew.begin(request.len() + guards.len());
        anew.push(&[name]);
        anew.push(&[script]);
        anew.push(&[(number + guards.len()).to_string().as_bytes()]);
        let mut args = request.args().skip(3);
        args.by_ref().take(number).for_each(|key| anew.push(&[&self.prefix, key]));
        guards.iter().for_each(|guard| anew.push(&[guard]));
        args.for_each(|arg| anew.push(&[arg]));
    }
}

impl KnownScripts<'_> {
    /// A text that a client has said, as nodes are given it.
    fn wrap(self, database: &Database, text: &[u8], met: Met) -> Rc<Wrapped> {
        self.scripts.learn_in(self.scope, text, met);
        self.wrapped.of(database, text, self.commands)
    }

    /// The script that a client calls so, where its text is known.
    fn find(self, database: &Database, digits: &[u8]) -> Option<Rc<Wrapped>> {
        let script = self.scripts.find_in(self.scope, digits)?;
        let wrapped = self.wrapped.of(database, &script.text, self.commands);
        // A node that lacks it is to be given it, also where clients of all of the cluster have flushed what nodes had.
        if self.scripts.find(wrapped.sha_kept.digits()).is_none() {
            self.scripts.learn(&wrapped.kept, Met::Evaluated);
        }
        Some(wrapped)
    }
}

impl WrappedScripts {
    fn of(&self, database: &Database, text: &[u8], commands: &Arc<CommandTable>) -> Rc<Wrapped> {
        let rules = self.rules_of(commands);
        let hash = self.hasher.hash_one((&*database.prefix, text));
        let is_it = |known: &&Rc<Wrapped>| *known.said == *text && known.prefix == database.prefix;
        if let Some(known) = self.by_text.borrow().get(&hash).filter(is_it) {
            return known.clone();
        }
        let kept = wrap(database, text, &rules, commands);
        let is_bare = kept.is_none();
        let kept = kept.unwrap_or_else(|| text.to_vec());
        let wrapped = Rc::new(Wrapped {
            prefix: database.prefix.clone(),
            said: text.into(),
            sha_said: Sha::of(text),
            sha_kept: Sha::of(&kept),
            kept: kept.into(),
            is_bare,
        });
        let (by_text, names) = (&mut *self.by_text.borrow_mut(), &mut *self.names.borrow_mut());
        if names.len() >= MOST {
            by_text.clear();
            names.clear();
        }
        names.entry(wrapped.sha_kept).or_insert(Name { said: wrapped.sha_said, proven: false });
        if text.len() <= LONGEST && is_kept(text) {
            by_text.insert(hash, wrapped.clone());
        }
        wrapped
    }

    fn rules_of(&self, commands: &Arc<CommandTable>) -> Rc<KeyRules> {
        if let Some((table, rules)) = &*self.rules.borrow()
            && Arc::ptr_eq(table, commands)
        {
            return rules.clone();
        }
        let rules = Rc::new(KeyRules::of(commands));
        let before = self.rules.replace(Some((commands.clone(), rules.clone())));
        if before.is_some_and(|(_, before)| before != rules) {
            self.by_text.borrow_mut().clear();
        }
        rules
    }

    /// The script that was entered last as a whole, whose reply is to show whether it runs.
    pub fn take_not_run_yet(&self) -> Option<Sha> {
        self.not_run_yet.take()
    }

    /// The script has run without an error.
    pub(super) fn prove(&self, sha: &Sha) {
        if let Some(name) = self.names.borrow_mut().get_mut(sha) {
            name.proven = true;
        }
    }

    fn is_proven(&self, sha: &Sha) -> bool {
        self.names.borrow().get(sha).is_some_and(|name| name.proven)
    }

    /// The text that a client has said, of what a node is given.
    pub(super) fn text_said(&self, kept: &[u8]) -> Option<Vec<u8>> {
        let by_text = self.by_text.borrow();
        by_text.values().find(|wrapped| *wrapped.kept == *kept).map(|wrapped| wrapped.said.to_vec())
    }

    /// Whether a database's clients have said a script that nodes are given as it is, by its text or digest.
    pub(super) fn is_said(&self, prefix: &[u8], script: &[u8]) -> bool {
        let is_it = |known: &Wrapped| *known.kept == *script || known.sha_kept.digits() == script;
        self.by_text.borrow().values().any(|known| known.is_bare && *known.prefix == *prefix && is_it(known))
    }

    /// The commands of servers: as they were known last.
    pub(super) fn commands(&self) -> Arc<CommandTable> {
        self.commands.borrow().clone().unwrap_or_else(CommandTable::builtin)
    }

    /// Servers have these commands.
    pub fn know(&self, commands: &Arc<CommandTable>) {
        self.commands.replace(Some(commands.clone()));
    }

    /// A text of a node's with clients' names for scripts instead of its own.
    pub fn as_said(&self, text: &[u8]) -> Vec<u8> {
        let names = self.names.borrow();
        let (mut told, mut at) = (Vec::with_capacity(text.len()), 0);
        while at < text.len() {
            let digits = text[at..].iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
            let word = &text[at..at + digits.max(1)];
            let said = Sha::parse(word).and_then(|sha| names.get(&sha));
            told.extend_from_slice(said.map_or(word, |name| name.said.digits()));
            at += word.len();
        }
        told
    }
}

impl KeyRules {
    fn of(commands: &CommandTable) -> KeyRules {
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

pub(super) fn has_one_key_first(spec: &Spec) -> bool {
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

/// The text with the prologue in front of its first line of code; `None` where it needs none.
fn wrap(database: &Database, text: &[u8], rules: &KeyRules, commands: &CommandTable) -> Option<Vec<u8>> {
    let code = match text.iter().position(|&byte| byte == b'\n') {
        _ if !text.starts_with(b"#!") => 0,
        Some(end) => end + 1,
        // There is no code.
        None => return None,
    };
    let template = match lua::reach(&text[code..], commands) {
        Reach::Declared => return None,
        Reach::Named => &*SIMPLE_PROLOGUE,
        Reach::Any => &*PROLOGUE,
    };
    let mut prologue = String::new();
    // Every other part is the name of what is put in.
    for (index, part) in template.split('@').enumerate() {
        match (index % 2, part) {
            (1, "ONE") => prologue.push_str(&literal(rules.one.as_bytes())),
            (1, "SOME") => prologue.push_str(&literal(rules.some.as_bytes())),
            (1, "NAMES") => prologue.push_str(&names_in(text, commands)),
            (1, "PREFIX") => prologue.push_str(&literal(&database.prefix)),
            (1, "PATTERN") => prologue.push_str(&literal(&database.pattern)),
            (1, "CHANNELS") => {
                let channels = database.channels.as_ref().map(|channels| &*channels.prefix);
                prologue.push_str(&literal(channels.unwrap_or_default()));
            }
            (1, "SEVERAL") => prologue.push_str(if database.is_one_of_several { "true" } else { "false" }),
            (1, "SLOT") => prologue.push_str(&database.slot.to_string()),
            (1, _) => prologue.push_str(&database.name),
            _ => prologue.push_str(part),
        }
    }
    Some([&text[..code], prologue.as_bytes(), &text[code..]].concat())
}

/// A string of Lua's.
fn literal(text: &[u8]) -> String {
    let mut out = String::from("'");
    for &byte in text {
        match byte {
            b' '..=b'~' if !b"'\\".contains(&byte) => out.push(byte.into()),
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
