//! The texts of scripts that clients have used, so that a node which lacks one can be given it.
//!
//! EVALSHA names a script by its digest. A node that has restarted, was promoted or has just joined does not have it, where one
//! Redis would. So the process remembers the texts of EVAL and SCRIPT LOAD, within bounds, until SCRIPT FLUSH. Texts of clients
//! with a database of their own are known to those clients alone ([`Scope`]). Workers look into their own [`ScriptCache`] first:
//! a script in use costs neither a digest nor a lock.

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, HashSet},
    hash::BuildHasher,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use sha1::{Digest, Sha1};

use super::database::Scope;
use crate::protocol::resp::write;

/// A text that is longer is not kept.
const LONGEST: usize = 1024 * 1024;
/// How many scripts, and how many bytes of their texts, each half of [`Generations`] may have.
const MOST: usize = 1024;
const MOST_BYTES: usize = 8 * 1024 * 1024;
/// Texts that a worker knows to be kept; then it begins anew.
const MOST_SEEN: usize = 4 * MOST;
/// For how long it counts that a script was loaded at a node: longer than any request takes.
const LATELY: Duration = Duration::from_secs(10);
/// Nodes of which that is known at a time.
const MOST_NODES: usize = 64;

/// Whether the line that names a script's engine has escapes, which servers answer as what they stand for: no script in
/// use has any, and none is given to a node on a connection that others share.
pub fn has_escapes(text: &[u8]) -> bool {
    text.starts_with(b"#!") && text.iter().take_while(|&&byte| byte != b'\n').any(|&byte| byte == b'\\')
}

/// Whether a text is remembered once it has been met.
pub fn is_kept(text: &[u8]) -> bool {
    text.len() <= LONGEST && !has_escapes(text)
}

/// A script's SHA1 in lower case hexadecimal digits: its name in EVALSHA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sha([u8; 40]);

impl Sha {
    /// The digest of a text.
    pub fn of(text: &[u8]) -> Sha {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut sha = [0; 40];
        for (pair, byte) in sha.chunks_exact_mut(2).zip(Sha1::digest(text)) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        Sha(sha)
    }

    /// What a client wrote, in any case; `None` where it cannot be a digest.
    pub fn parse(text: &[u8]) -> Option<Sha> {
        let sha: [u8; 40] = text.try_into().ok()?;
        Some(Sha(sha.map(|digit| digit.to_ascii_lowercase())))
    }

    /// The digest's 40 digits.
    pub fn digits(&self) -> &[u8] {
        &self.0
    }
}

/// A script whose text is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// Its name.
    pub sha: Sha,
    /// Its text.
    pub text: Bytes,
}

impl Script {
    /// Appends the request that gives it to a node.
    pub fn encode_load(&self, out: &mut Vec<u8>) {
        write::request::<&[u8]>(out, &[b"SCRIPT", b"LOAD", &self.text]);
    }

    /// Whether it can hardly end in an error of its own making.
    pub fn makes_no_errors(&self) -> bool {
        ![&b"err"[..], b"cjson", b"cmsgpack", b"loadstring"].iter().any(|word| contains(&self.text, word))
    }
}

/// How a text was met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Met {
    /// In EVAL: the client can say it again.
    Evaluated,
    /// In SCRIPT LOAD: the client relies on its being kept.
    Loaded,
}

/// The scripts of the process.
#[derive(Debug, Default)]
pub struct Scripts {
    kept: Mutex<KeptText>,
    /// Grows when a text is given up, so that workers look anew.
    losses: AtomicU64,
}

#[derive(Debug, Default)]
struct KeptText {
    /// Apart from `loaded`: a flood of texts in EVAL must not push out a script that was loaded on purpose.
    evaluated: Generations,
    loaded: Generations,
    /// When which script was loaded last at which node.
    given: HashMap<Arc<str>, HashMap<Sha, Instant>>,
}

/// Scripts in two halves: what is used moves to the young half, and when that is full the old one is given up.
#[derive(Debug, Default)]
struct Generations {
    young: Generation,
    old: Generation,
    /// How often an old half has been given up.
    turns: u64,
}

/// The digests of scripts.
pub type Shas = HashSet<Sha, foldhash::quality::RandomState>;

#[derive(Debug, Default)]
struct Generation {
    texts: HashMap<(Scope, Sha), Bytes>,
    bytes: usize,
}

impl Scripts {
    fn learn(&self, scope: Scope, text: &[u8], met: Met) {
        let name = (scope, Sha::of(text));
        self.with_kept(|kept| {
            let generations = if met == Met::Loaded { &mut kept.loaded } else { &mut kept.evaluated };
            if generations.find(&name).is_none() {
                generations.put(name, Bytes::copy_from_slice(text));
            }
        });
    }

    fn find(&self, name: &(Scope, Sha)) -> Option<Bytes> {
        self.with_kept(|kept| kept.loaded.find(name).or_else(|| kept.evaluated.find(name)))
    }

    fn with_kept<T>(&self, act: impl FnOnce(&mut KeptText) -> T) -> T {
        let kept = &mut *self.lock();
        let turns = |kept: &KeptText| kept.evaluated.turns + kept.loaded.turns;
        let before = turns(kept);
        let done = act(kept);
        if turns(kept) != before {
            self.losses.fetch_add(1, Relaxed);
        }
        done
    }

    /// The digests of all that nodes are given: for who has very many to look up.
    pub fn known(&self) -> Shas {
        let kept = &*self.lock();
        let generations = [&kept.loaded.young, &kept.loaded.old, &kept.evaluated.young, &kept.evaluated.old];
        let of_nodes = |(scope, sha): &(Scope, Sha)| (*scope == Scope::CLUSTER).then_some(*sha);
        generations.into_iter().flat_map(|generation| generation.texts.keys().filter_map(of_nodes)).collect()
    }

    /// Forgets all that have been said by clients of this scope, as SCRIPT FLUSH does.
    pub fn forget(&self, scope: Scope) {
        let kept = &mut *self.lock();
        for generations in [&mut kept.loaded, &mut kept.evaluated] {
            [&mut generations.young, &mut generations.old].into_iter().for_each(|half| half.forget(scope));
        }
        if scope == Scope::CLUSTER {
            kept.given.clear();
        }
        self.losses.fetch_add(1, Relaxed);
    }

    /// The script is being loaded at a node.
    pub fn give(&self, sha: Sha, node: &Arc<str>) {
        let given = &mut self.lock().given;
        if given.len() >= MOST_NODES && !given.contains_key(node) {
            given.clear();
        }
        let there = given.entry(node.clone()).or_default();
        if there.len() >= MOST {
            there.clear();
        }
        there.insert(sha, Instant::now());
    }

    /// Whether the process itself has lately loaded the script at a node.
    pub fn has_given(&self, sha: &Sha, node: &str) -> bool {
        let kept = self.lock();
        kept.given.get(node).and_then(|there| there.get(sha)).is_some_and(|since| since.elapsed() < LATELY)
    }

    fn lock(&self) -> MutexGuard<'_, KeptText> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Generations {
    /// The text; what is found is young again.
    fn find(&mut self, name: &(Scope, Sha)) -> Option<Bytes> {
        if let Some(text) = self.young.texts.get(name) {
            return Some(text.clone());
        }
        let text = self.old.texts.remove(name)?;
        self.old.bytes -= text.len();
        self.put(*name, text.clone());
        Some(text)
    }

    fn put(&mut self, name: (Scope, Sha), text: Bytes) {
        if self.young.texts.len() >= MOST || self.young.bytes + text.len() > MOST_BYTES {
            self.old = std::mem::take(&mut self.young);
            self.turns += 1;
        }
        self.young.bytes += text.len();
        self.young.texts.insert(name, text);
    }
}

impl Generation {
    fn forget(&mut self, scope: Scope) {
        self.texts.retain(|(of, _), _| *of != scope);
        self.bytes = self.texts.values().map(Bytes::len).sum();
    }
}

/// One worker's view of the scripts.
#[derive(Debug)]
pub struct ScriptCache {
    all: Arc<Scripts>,
    losses: Cell<u64>,
    hasher: foldhash::quality::RandomState,
    /// Texts that are known to be kept, by hash: where two have one hash, one of them may not be.
    seen: RefCell<HashSet<(u64, Met), foldhash::fast::RandomState>>,
    texts: RefCell<HashMap<(Scope, Sha), Bytes, foldhash::fast::RandomState>>,
}

impl ScriptCache {
    /// A view of `all`.
    pub fn new(all: Arc<Scripts>) -> ScriptCache {
        ScriptCache {
            all,
            losses: Cell::new(0),
            hasher: foldhash::quality::RandomState::default(),
            seen: RefCell::default(),
            texts: RefCell::default(),
        }
    }

    /// The scripts of the process.
    pub fn all(&self) -> &Arc<Scripts> {
        &self.all
    }

    /// Nodes have been given a text.
    pub fn learn(&self, text: &[u8], met: Met) {
        self.learn_in(Scope::CLUSTER, text, met);
    }

    /// A client of this scope has said a text.
    pub fn learn_in(&self, scope: Scope, text: &[u8], met: Met) {
        if self.knows_in(scope, text, met) {
            return;
        }
        self.all.learn(scope, text, met);
        let mut seen = self.seen.borrow_mut();
        if seen.len() >= MOST_SEEN {
            seen.clear();
        }
        seen.insert((self.hasher.hash_one((scope, text)), met));
    }

    /// Whether there is nothing to learn from a text: it is kept, or never will be.
    pub fn knows(&self, text: &[u8], met: Met) -> bool {
        self.knows_in(Scope::CLUSTER, text, met)
    }

    fn knows_in(&self, scope: Scope, text: &[u8], met: Met) -> bool {
        self.keep_up();
        !is_kept(text) || self.seen.borrow().contains(&(self.hasher.hash_one((scope, text)), met))
    }

    /// The script that nodes know by this name, where its text is known.
    pub fn find(&self, digits: &[u8]) -> Option<Script> {
        self.find_in(Scope::CLUSTER, digits)
    }

    /// The script that a client of this scope names, where its text is known.
    pub fn find_in(&self, scope: Scope, digits: &[u8]) -> Option<Script> {
        self.keep_up();
        let sha = Sha::parse(digits)?;
        if let Some(text) = self.texts.borrow().get(&(scope, sha)) {
            return Some(Script { sha, text: text.clone() });
        }
        let text = self.all.find(&(scope, sha))?;
        let mut texts = self.texts.borrow_mut();
        if texts.len() >= MOST {
            texts.clear();
        }
        texts.insert((scope, sha), text.clone());
        Some(Script { sha, text })
    }

    /// How often texts have been given up: while it is the same, what has been found is there.
    pub fn losses(&self) -> u64 {
        self.all.losses.load(Relaxed)
    }

    /// Forgets what may have been given up.
    fn keep_up(&self) {
        let losses = self.losses();
        if self.losses.replace(losses) != losses {
            self.seen.borrow_mut().clear();
            self.texts.borrow_mut().clear();
        }
    }
}

/// Whether `part` stands somewhere in `text`.
pub fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_redis_own() {
        let sha = Sha::of(b"return 1");
        assert_eq!(sha.digits(), b"e0e1f9fabfc9d4800c877a703b823ac0578ff8db");
        assert_eq!(Sha::parse(b"E0E1F9FABFC9D4800C877A703B823AC0578FF8DB"), Some(sha));
        assert_eq!(Sha::parse(b"e0e1"), None);
    }

    #[test]
    fn what_is_used_stays_and_the_rest_is_bounded() {
        let all = Arc::new(Scripts::default());
        let (one, other) = (ScriptCache::new(all.clone()), ScriptCache::new(all.clone()));
        one.learn(b"return 'loaded'", Met::Loaded);
        one.learn(b"return 'used'", Met::Evaluated);
        one.learn(b"return 'unused'", Met::Evaluated);
        for number in 0..10 * MOST {
            other.learn(format!("return {number}").as_bytes(), Met::Evaluated);
            one.learn(b"return 'used'", Met::Evaluated);
        }
        assert!(one.find(Sha::of(b"return 'loaded'").digits()).is_some());
        assert!(one.find(Sha::of(b"return 'used'").digits()).is_some());
        assert!(one.find(Sha::of(b"return 'unused'").digits()).is_none());
        let kept = all.lock();
        assert!(kept.evaluated.young.texts.len() <= MOST && kept.evaluated.old.texts.len() <= MOST);
        drop(kept);
        for number in 0..40 {
            let text = vec![number; LONGEST];
            other.learn(&text, Met::Loaded);
            assert!(one.find(Sha::of(&text).digits()).is_some());
        }
        let kept = all.lock();
        assert!(kept.loaded.young.bytes <= MOST_BYTES && kept.loaded.old.bytes <= MOST_BYTES);
    }

    #[test]
    fn a_flush_reaches_every_worker() {
        let all = Arc::new(Scripts::default());
        let (one, other) = (ScriptCache::new(all.clone()), ScriptCache::new(all.clone()));
        let sha = Sha::of(b"return 1");
        one.learn(b"return 1", Met::Loaded);
        assert!(one.find(sha.digits()).is_some() && other.find(sha.digits()).is_some());
        assert!(all.known().into_iter().eq([sha]));
        all.forget(Scope::CLUSTER);
        assert!(all.known().is_empty());
        assert!(one.find(sha.digits()).is_none() && other.find(sha.digits()).is_none());
        one.learn(b"return 1", Met::Loaded);
        assert_eq!(other.find(sha.digits()).unwrap().text, "return 1");
    }

    #[test]
    fn what_is_said_in_one_scope_is_known_and_flushed_there_alone() {
        let one = ScriptCache::new(Arc::default());
        let (shop, blog, sha) = (Scope::of(b"{shop}"), Scope::of(b"{blog}"), Sha::of(b"return 1"));
        let known = |scopes: [Scope; 3]| scopes.map(|scope| one.find_in(scope, sha.digits()).is_some());
        one.learn_in(shop, b"return 1", Met::Evaluated);
        assert_eq!(known([Scope::CLUSTER, shop, blog]), [false, true, false]);
        one.learn_in(blog, b"return 1", Met::Loaded);
        one.learn(b"return 1", Met::Loaded);
        one.all().forget(shop);
        assert_eq!(known([Scope::CLUSTER, shop, blog]), [true, false, true]);
        one.learn_in(shop, b"return 1", Met::Evaluated);
        one.all().forget(Scope::CLUSTER);
        assert_eq!(known([Scope::CLUSTER, shop, blog]), [false, true, true]);
    }

    #[test]
    fn loads_are_remembered_by_node() {
        let all = Scripts::default();
        let (sha, node) = (Sha::of(b"return 1"), Arc::from("a:1"));
        all.give(sha, &node);
        assert!(all.has_given(&sha, "a:1") && !all.has_given(&sha, "b:1"));
    }
}
