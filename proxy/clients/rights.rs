//! What the nodes' ACL users may do, as nodes have told. Commands that the proxy answers itself are judged by it.
//!
//! A node judges every command that it is sent. Other commands the proxy must judge as the node would, for the user that the
//! client's connections log in as. Most users may do all (`+@all ~* &*`): that is learned once, and looked up again from time
//! to time. For the others a node is asked command by command (`ACL DRYRUN`), and verdicts are kept for a moment.
//!
//! Users change by `ACL SETUSER` and the like. Where that goes through the proxy, it forgets all that it knows; else what it
//! knows is out of date for a few seconds.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;

use crate::{
    commands::table::{Flags, Keys, Spec},
    protocol::resp::{Request, Value},
};

/// How long a verdict counts.
const FRESH: Duration = Duration::from_secs(2);
/// How long a user may be taken for one who may do all; from [`FRESH`] on, a node is asked again meanwhile.
const FREE: Duration = Duration::from_secs(10);
/// How long nobody is asked again where no node has answered.
const SILENCE: Duration = Duration::from_secs(1);
/// How often the nodes are asked whether users still exist.
const SWEEP: Duration = Duration::from_secs(3);
/// How long the nodes are not asked once they have refused the proxy's own user: each try is an entry in their ACL LOG.
const MUTE: Duration = Duration::from_secs(600);
/// How many verdicts are kept for a user.
const MOST_VERDICTS: usize = 512;
/// Arguments that are longer, and no keys, have no part in a verdict: they are not sent along.
const LONGEST_WORD: usize = 256;
/// A first argument that a rule may name, as `+select|0`.
const LONGEST_FIRST: usize = 32;

/// All ACL users that clients work as.
#[derive(Default)]
pub struct Rights {
    users: Mutex<HashMap<Bytes, Arc<User>>>,
    swept: Mutex<Option<Instant>>,
    /// When a node last said that the proxy's own user may not ask.
    mute: Mutex<Option<Instant>>,
    /// The proxy's user may not ask which users there are.
    unlisted: AtomicBool,
}

/// What is known of one user.
pub struct User {
    /// The name.
    pub name: Bytes,
    since: Instant,
    /// Until when the user may do all; in milliseconds after `since`.
    free_until: AtomicU64,
    /// From when on a node is to be asked again.
    due: AtomicU64,
    /// A node is being asked again.
    asking: AtomicBool,
    /// Grows when all that is known is forgotten.
    generation: AtomicU64,
    known: Mutex<Cached>,
}

#[derive(Default)]
struct Cached {
    rules: Option<(Arc<UserRules>, Instant)>,
    verdicts: HashMap<String, (Verdict, Instant)>,
}

/// Whether a user may do something; else the text of the error.
pub type Verdict = Result<(), Bytes>;

/// A user's rules, from `ACL GETUSER`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserRules {
    /// The user may do all.
    pub all: bool,
    /// Keys, channels and databases have no part in a verdict.
    all_keys: bool,
    commands: String,
}

impl Rights {
    /// The user of this name. It is known as long as somebody holds it.
    pub fn user(&self, name: &[u8]) -> Arc<User> {
        let mut users = lock(&self.users);
        if let Some(user) = users.get(name) {
            return user.clone();
        }
        users.retain(|_, user| Arc::strong_count(user) > 1);
        let name = Bytes::copy_from_slice(name);
        let user = Arc::new(User::new(name.clone()));
        users.insert(name, user.clone());
        user
    }

    /// The users that somebody holds.
    pub fn in_use(&self) -> Vec<Bytes> {
        let users = lock(&self.users);
        users.values().filter(|user| Arc::strong_count(user) > 1).map(|user| user.name.clone()).collect()
    }

    /// Users have changed, or may have: nothing that is known counts any more.
    pub fn forget(&self) {
        lock(&self.users).values().for_each(|user| user.forget());
    }

    /// Whether the proxy's own user may ask, as far as is known.
    pub fn may_ask(&self, now: Instant) -> bool {
        lock(&self.mute).is_none_or(|since| now.saturating_duration_since(since) >= MUTE)
    }

    /// The proxy's user may not ask.
    pub fn may_not_ask(&self, now: Instant) {
        *lock(&self.mute) = Some(now);
    }

    /// The proxy's own user may not ask whether users still exist.
    pub fn may_not_sweep(&self) {
        self.unlisted.store(true, Relaxed);
    }

    /// Whether it is time to ask whether users still exist; true for one asker only.
    pub fn is_time_to_sweep(&self, now: Instant) -> bool {
        let mut swept = lock(&self.swept);
        let is_time =
            !self.unlisted.load(Relaxed) && swept.is_none_or(|last| now.saturating_duration_since(last) >= SWEEP);
        if is_time {
            *swept = Some(now);
        }
        is_time
    }
}

impl User {
    fn new(name: Bytes) -> User {
        User {
            name,
            since: Instant::now(),
            free_until: AtomicU64::new(0),
            due: AtomicU64::new(0),
            asking: AtomicBool::new(false),
            generation: AtomicU64::new(0),
            known: Mutex::default(),
        }
    }

    /// Whether the user may do all, as far as is known.
    #[inline]
    pub fn is_free(&self, now: Instant) -> bool {
        self.free_until.load(Relaxed) > self.millis(now)
    }

    /// Whether what is known should be looked at again; true for one asker only, until [`User::asked`].
    pub fn is_due(&self, now: Instant) -> bool {
        self.due.load(Relaxed) <= self.millis(now) && !self.asking.swap(true, Relaxed)
    }

    /// The asker of [`User::is_due`] is done.
    pub fn asked(&self) {
        self.asking.store(false, Relaxed);
    }

    /// What is known of the rules, where that is fresh.
    pub fn rules(&self, now: Instant) -> Option<Arc<UserRules>> {
        let known = lock(&self.known);
        known.rules.as_ref().filter(|(_, at)| is_fresh(*at, now)).map(|(rules, _)| rules.clone())
    }

    /// The number of times that all was forgotten: what was asked before does not count.
    pub fn generation(&self) -> u64 {
        self.generation.load(Relaxed)
    }

    /// A node has told the rules.
    pub fn learn(&self, rules: UserRules, asked: u64, now: Instant) -> Arc<UserRules> {
        let rules = Arc::new(rules);
        let mut known = lock(&self.known);
        if self.generation() == asked {
            let free = if rules.all { self.millis(now + FREE) } else { 0 };
            self.free_until.store(free, Relaxed);
            self.due.store(self.millis(now + FRESH), Relaxed);
            known.rules = Some((rules.clone(), now));
        }
        rules
    }

    /// No node has answered. Returns whether the user counts as one who may do all: as a node last told, or else `unknown`.
    pub fn nobody_answered(&self, unknown: bool, now: Instant) -> bool {
        let known = lock(&self.known);
        let free = known.rules.as_ref().map_or(unknown, |(rules, _)| rules.all);
        let until = self.millis(now + SILENCE);
        if free {
            self.free_until.store(until, Relaxed);
        }
        self.due.store(until, Relaxed);
        free
    }

    /// What was judged of late.
    pub fn verdict(&self, key: &str, now: Instant) -> Option<Verdict> {
        let known = lock(&self.known);
        known.verdicts.get(key).filter(|(_, at)| is_fresh(*at, now)).map(|(verdict, _)| verdict.clone())
    }

    /// Keeps a verdict for a moment.
    pub fn judged(&self, key: String, verdict: Verdict, asked: u64, now: Instant) {
        let mut known = lock(&self.known);
        if known.verdicts.len() >= MOST_VERDICTS {
            known.verdicts.clear();
        }
        if self.generation() == asked {
            known.verdicts.insert(key, (verdict, now));
        }
    }

    fn forget(&self) {
        let mut known = lock(&self.known);
        self.generation.fetch_add(1, Relaxed);
        self.free_until.store(0, Relaxed);
        self.due.store(0, Relaxed);
        *known = Cached::default();
    }

    fn millis(&self, at: Instant) -> u64 {
        // From 1 on: at 0 nothing is known.
        at.saturating_duration_since(self.since).as_millis() as u64 + 1
    }
}

impl UserRules {
    /// From the reply to `ACL GETUSER`, of Redis from 6.0 on and Valkey.
    pub fn parse(reply: &Value) -> Option<UserRules> {
        let commands = reply.field("commands")?.str()?.to_owned();
        let is_all = |field: &str, all: &[&str]| match reply.field(field) {
            Some(Value::Text(text)) => all.iter().any(|all| all.as_bytes() == text),
            // Redis 6 has lists.
            Some(Value::Array(patterns)) => patterns.iter().any(|one| one.text() == Some(b"*")),
            _ => false,
        };
        let databases = reply.field("databases").is_none() || is_all("databases", &["alldbs"]);
        // Before 6.2 there were no channels.
        let channels = reply.field("channels").is_none() || is_all("channels", &["&*"]);
        let everything = is_all("keys", &["~*"]) && channels && databases;
        let selectors = reply.field("selectors").is_some_and(|selectors| !selectors.items().is_empty());
        Some(UserRules { all: everything && commands == "+@all", all_keys: everything && !selectors, commands })
    }

    /// Under which name a verdict on `request` may be kept; `None` where it is about these very arguments.
    pub fn key(rules: Option<&UserRules>, request: &Request, spec: &Spec) -> Option<String> {
        let about_names = spec.has_keys() || spec.flags.has(Flags::PUBSUB) || names_database(&spec.name);
        if about_names && !rules.is_some_and(|rules| rules.all_keys) {
            return None;
        }
        // A rule may name the first argument, as `+select|0`.
        let may_name = |rules: &UserRules| rules.commands.contains(&format!("{}|", spec.name));
        match request.get(1) {
            Some(first) if !spec.name.contains('|') && rules.is_none_or(may_name) => {
                let first = std::str::from_utf8(first).ok().filter(|first| first.len() <= LONGEST_FIRST)?;
                Some(format!("{} {}", spec.name, first.to_ascii_lowercase()))
            }
            _ => Some(spec.name.to_string()),
        }
    }
}

/// Whether a command is about databases, which Valkey's rules may name.
fn names_database(name: &str) -> bool {
    matches!(name, "select" | "swapdb" | "flushall" | "flushdb")
}

/// The arguments of `request` that a verdict depends on, the others empty where they are long.
pub fn words<'a>(request: &Request<'a>, spec: &Spec) -> Vec<&'a [u8]> {
    let mut words: Vec<&[u8]> = request.args().collect();
    if words.iter().all(|word| word.len() <= LONGEST_WORD) || !spec.has_keys() {
        return words;
    }
    let mut keys = Vec::new();
    if spec.keys_of(request, &mut keys) == Keys::Known {
        for (index, word) in words.iter_mut().enumerate().skip(1) {
            if word.len() > LONGEST_WORD && !keys.contains(&index) {
                *word = b"";
            }
        }
    }
    words
}

/// The error of a command that a user may not run, in the server's words, from what `ACL DRYRUN` says; `None` where that is
/// no refusal.
pub fn refusal(told: &str) -> Option<String> {
    // Redis 7.0 speaks of this user, newer servers name it.
    let (old, what) = match told.strip_prefix("This user ") {
        Some(what) => (true, what),
        None => (false, told.strip_prefix("User ")?.split_once(' ')?.1),
    };
    let may_not = what.strip_prefix("has no permissions to ")?;
    if may_not.starts_with("run the '") {
        return Some(if old { format!("NOPERM this user {what}") } else { format!("NOPERM {told}") });
    }
    let (new_name, old_name) = if may_not.ends_with("' key") {
        ("a key", "one of the keys used as arguments")
    } else if may_not.ends_with("' channel") {
        ("a channel", "one of the channels used as arguments")
    } else if may_not.starts_with("access database") {
        ("database", "database")
    } else {
        return Some(format!("NOPERM {told}"));
    };
    Some(if old {
        format!("NOPERM this user has no permissions to access {old_name}")
    } else {
        format!("NOPERM No permissions to access {new_name}")
    })
}

fn is_fresh(at: Instant, now: Instant) -> bool {
    now.saturating_duration_since(at) < FRESH
}

/// Locks, also where a holder has panicked: every change is made in one step, so that the data is sound.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
