//! Scripts in a database: what nodes are given shows them the database's world (`prologue.rs`). They are kept at nodes by the
//! digests of that, and known to clients by those of what clients said.
//!
//! No text of a client's goes to a node as it is, unless it shows by itself that it only hands its declared keys on
//! (`Reach::Declared` in `lua.rs`): any other could reach the keys of all databases.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    hash::BuildHasher,
    rc::Rc,
    sync::Arc,
};

use super::{
    Database, Entered, GUARDS, Scope,
    prologue::{KeyRules, wrap},
};
use crate::{
    commands::{
        plan::Policy,
        scripts::{Met, ScriptCache, Sha, is_kept},
        table::{CommandTable, Spec, in_database::Code},
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

/// A script whose texts are known, both that of the client and that of nodes.
#[derive(Debug)]
struct Found {
    wrapped: Rc<Wrapped>,
    /// How often texts had been given up before.
    losses: u64,
}

/// One worker's scripts in databases.
#[derive(Debug, Default)]
pub struct WrappedScripts {
    hasher: foldhash::quality::RandomState,
    /// By the hash of prefix and text.
    by_text: RefCell<HashMap<u64, Rc<Wrapped>>>,
    /// What nodes can be given at once, by whose clients call it what.
    found: RefCell<HashMap<(Scope, Sha), Found, foldhash::quality::RandomState>>,
    /// What clients call a script, by what nodes call it.
    names: RefCell<HashMap<Sha, Name>>,
    /// The script that was entered last as a whole and has not been seen to run.
    not_run_yet: Cell<Option<Sha>>,
    /// What servers know.
    commands: RefCell<Option<Arc<CommandTable>>>,
    /// Where commands have their keys, written for the prologue, and of which table.
    rules: RefCell<Option<(Arc<CommandTable>, Rc<KeyRules>)>>,
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
                self.enter_call(request, name, script, self.guards_of(Some(&wrapped), request), anew);
            }
            Code::Evalsha => {
                let wrapped = known.find(self, request.arg(1));
                // Nothing is left to do but to name its key. It has no other, so that no reply says that they are apart.
                if request.arg(2) == b"1"
                    && request.len() > 3
                    && wrapped.as_ref().is_some_and(|it| it.is_bare && it.sha_kept.digits() == request.arg(1))
                {
                    anew.put_before(request, 3, &self.headed);
                    return Entered::RewrittenUntold;
                }
                let digest = wrapped.as_ref().map_or(NOBODYS, |wrapped| wrapped.sha_kept.digits());
                self.enter_call(request, request.name(), digest, self.guards_of(wrapped.as_deref(), request), anew);
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
    fn guards_of(&self, script: Option<&Wrapped>, request: &Request) -> &[Box<[u8]>] {
        match script {
            Some(script) if script.is_bare => &[],
            // Two keys are several.
            _ if request.arg(2) != b"0" && request.arg(3) != GUARDS[0] => &self.guards[..1],
            _ => &self.guards,
        }
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
        let (named, losses) = ((self.scope, Sha::parse(digits)?), self.scripts.losses());
        if let Some(found) = self.wrapped.found.borrow().get(&named)
            && found.losses == losses
            && found.wrapped.prefix == database.prefix
            && self.wrapped.is_of(self.commands)
        {
            return Some(found.wrapped.clone());
        }
        let script = self.scripts.find_in(self.scope, digits)?;
        let wrapped = self.wrapped.of(database, &script.text, self.commands);
        // A node that lacks it is to be given it, also where clients of all of the cluster have flushed what nodes had.
        if self.scripts.find(wrapped.sha_kept.digits()).is_none() {
            self.scripts.learn(&wrapped.kept, Met::Evaluated);
        }
        let found = &mut *self.wrapped.found.borrow_mut();
        if found.len() >= MOST {
            found.clear();
        }
        found.insert(named, Found { wrapped: wrapped.clone(), losses });
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

    /// Whether the texts that are known are written by this table.
    fn is_of(&self, commands: &Arc<CommandTable>) -> bool {
        self.rules.borrow().as_ref().is_some_and(|(table, _)| Arc::ptr_eq(table, commands))
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
            self.found.borrow_mut().clear();
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
