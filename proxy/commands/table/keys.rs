//! Which arguments of a request are keys. Specs tell most of it; what they cannot tell is here, as the server's own
//! routing has it (`getKeysFromCommand` of Redis 7 and Valkey 9).

use super::{
    command_info::{Begin, Find, Flags, KeySpec},
    spec::Spec,
};
use crate::protocol::resp::{Request, request::is_option};

/// What is known of a request's keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys {
    /// All of them have been visited.
    Known,
    /// The request is malformed: the server will answer an error, whichever node it comes to.
    Malformed,
    /// Only the server can tell (`COMMAND GETKEYS`).
    AskServer,
}

/// How the keys of a command are found; decided once, when its row is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finder {
    /// The command has no keys.
    None,
    /// Exactly one key, at this index.
    At(u8),
    /// By its key specs.
    Specs,
    /// `SORT key ... STORE key`, the last STORE counts.
    Sort,
    /// `GEORADIUS key ... STORE key`, likewise.
    Georadius,
    /// `XREAD ... STREAMS key... id...`.
    Streams,
    /// `MIGRATE host port key|"" ... KEYS key...`.
    Migrate,
    /// Only the server knows.
    Server,
}

impl Finder {
    pub(super) fn of(name: &str, flags: Flags, keys: &[KeySpec]) -> Finder {
        match name {
            "sort" | "sort_ro" => return Finder::Sort,
            "georadius" | "georadiusbymember" => return Finder::Georadius,
            "xread" | "xreadgroup" => return Finder::Streams,
            "migrate" => return Finder::Migrate,
            _ => {}
        }
        if keys.iter().any(KeySpec::is_open) {
            return Finder::Server;
        }
        match keys {
            [] if flags.has(Flags::MOVABLE_KEYS) => Finder::Server,
            [] => Finder::None,
            [KeySpec { begin: Begin::Index(at), find: Find::Range { last: 0, .. }, .. }] => {
                u8::try_from(*at).map_or(Finder::Specs, Finder::At)
            }
            _ => Finder::Specs,
        }
    }
}

impl Spec {
    /// Where its keys are, as the prologue of scripts reads it; `None` where that takes more than places.
    pub fn rule_of_keys(&self) -> Option<String> {
        let rule = |spec: &KeySpec| match (&spec.begin, spec.find) {
            (Begin::Index(begin), Find::Range { last, step, limit: 0 | 1 }) => {
                Some(format!("{begin}:{last}:{}", step.max(1)))
            }
            (Begin::Index(begin), Find::Count { count_at, first, step }) => {
                Some(format!("{begin}#{count_at}:{first}:{}", step.max(1)))
            }
            _ => None,
        };
        match self.finder {
            Finder::Georadius => Some("g".to_owned()),
            Finder::At(_) | Finder::Specs => {
                self.keys.iter().map(rule).collect::<Option<Vec<_>>>().map(|all| all.join(";"))
            }
            Finder::None | Finder::Sort | Finder::Streams | Finder::Migrate | Finder::Server => None,
        }
    }

    /// The index of the key of a command that has exactly one, always at the same place.
    pub fn only_key(&self) -> Option<usize> {
        match self.finder {
            Finder::At(index) => Some(usize::from(index)),
            Finder::None | Finder::Specs | Finder::Sort | Finder::Georadius | Finder::Streams => None,
            Finder::Migrate | Finder::Server => None,
        }
    }

    /// Whether requests of this command have keys at all.
    pub fn has_keys(&self) -> bool {
        self.finder != Finder::None
    }

    /// Whether its keys follow STREAMS.
    pub fn reads_streams(&self) -> bool {
        self.finder == Finder::Streams
    }

    /// Calls `visit` with the index of each key of `request`, in the order of its specs. Nothing is allocated.
    ///
    /// `visit` may have been called before a request proves malformed.
    pub fn visit_keys(&self, request: &Request, mut visit: impl FnMut(usize)) -> Keys {
        let found = match self.finder {
            Finder::None => Some(()),
            Finder::At(index) => one(request, usize::from(index), &mut visit),
            Finder::Specs => self.keys.iter().try_for_each(|spec| by_spec(spec, self.arity, request, &mut visit)),
            Finder::Sort => sort(&self.name, request, &mut visit),
            Finder::Georadius => georadius(request, &mut visit),
            Finder::Streams => streams(request).map(|places| places.keys.for_each(&mut visit)),
            Finder::Migrate => migrate(request, &mut visit),
            Finder::Server => return Keys::AskServer,
        };
        if found.is_some() { Keys::Known } else { Keys::Malformed }
    }

    /// The indexes of all keys of `request`; what was in `into` before is dropped.
    pub fn keys_of(&self, request: &Request, into: &mut Vec<usize>) -> Keys {
        into.clear();
        let keys = self.visit_keys(request, |index| into.push(index));
        if keys != Keys::Known {
            into.clear();
        }
        keys
    }

    /// Where `request` holds the number of its keys, for a command that has such an argument.
    pub fn count_at(&self) -> Option<usize> {
        self.keys.iter().find_map(|spec| match (&spec.begin, spec.find) {
            (Begin::Index(begin), Find::Count { count_at, .. }) => Some(*begin as usize + count_at as usize),
            _ => None,
        })
    }

    /// How many arguments belong to each key of a command that is split by key (2 for MSET).
    pub fn step(&self) -> usize {
        self.keys.first().map_or(1, |spec| match spec.find {
            Find::Range { step, .. } | Find::Count { step, .. } => (step as usize).max(1),
            Find::Unknown => 1,
        })
    }
}

/// Where an XREAD or XREADGROUP has what matters.
pub struct Streams {
    /// The indexes of its keys.
    pub keys: std::ops::Range<usize>,
    /// Where the milliseconds of BLOCK are, if it blocks.
    pub block_at: Option<usize>,
}

/// Where an XREAD or XREADGROUP has its keys; `None` where it is not well formed.
pub fn streams(request: &Request) -> Option<Streams> {
    let (at, block_at) = before_streams(request)?;
    let rest = request.len() - at;
    (rest > 0 && rest.is_multiple_of(2)).then_some(Streams { keys: at..at + rest / 2, block_at })
}

/// Whether an XREAD or XREADGROUP is wrong in nothing but that its keys and ids are not as many as each other.
pub fn lacks_stream_ids(request: &Request) -> bool {
    before_streams(request).is_some() && streams(request).is_none()
}

/// Reads the options of XREAD and XREADGROUP up to the STREAMS that is an option, not a group or a key of that name: the
/// index behind it, and where the milliseconds of BLOCK are. `None` where they are not well formed.
fn before_streams(request: &Request) -> Option<(usize, Option<usize>)> {
    let mut block_at = None;
    let mut at = 1;
    while at < request.len() {
        let option = request.arg(at);
        let is = |word: &str| is_option(option, word);
        if is("STREAMS") {
            return Some((at + 1, block_at));
        } else if is("BLOCK") {
            block_at = Some(at + 1);
            at += 2;
        } else if is("COUNT") || is("CLAIM") {
            at += 2;
        } else if is("GROUP") {
            at += 3;
        } else if is("NOACK") {
            at += 1;
        } else {
            return None;
        }
    }
    None
}

impl KeySpec {
    /// As [`Spec::visit_keys`], of the keys that this spec tells.
    pub(super) fn visit(&self, arity: i32, request: &Request, mut visit: impl FnMut(usize)) -> Keys {
        if by_spec(self, arity, request, &mut visit).is_some() { Keys::Known } else { Keys::Malformed }
    }
}

fn one(request: &Request, index: usize, visit: &mut impl FnMut(usize)) -> Option<()> {
    (index < request.len()).then(|| visit(index))
}

fn by_spec(spec: &KeySpec, arity: i32, request: &Request, visit: &mut impl FnMut(usize)) -> Option<()> {
    let begin = match &spec.begin {
        Begin::Index(index) => *index as usize,
        Begin::Keyword { word, from } => match behind_keyword(word, *from, request) {
            Some(begin) => begin,
            // An option that was not given.
            None => return Some(()),
        },
        Begin::Unknown => return None,
    };
    let count = request.len();
    let (first, last, step) = match spec.find {
        Find::Range { last, step, limit } => {
            let last = match usize::try_from(last) {
                Ok(last) => begin.checked_add(last)?,
                Err(_) if limit > 1 => {
                    begin + (count.checked_sub(begin)? / limit as usize).checked_add_signed(last as isize)?
                }
                Err(_) => count.checked_add_signed(last as isize)?,
            };
            (begin, last, step)
        }
        Find::Count { count_at, first, step } => {
            let number = request.get(begin + count_at as usize)?;
            let number: usize = std::str::from_utf8(number).ok()?.parse().ok()?;
            let first = begin + first as usize;
            (first, number.checked_sub(1)?.checked_mul(step as usize)?.checked_add(first)?, step)
        }
        Find::Unknown => return None,
    };
    // What may follow and does not: PFMERGE of a target alone.
    if first >= count {
        return Some(());
    }
    // A command with a fixed number of arguments is not checked further by the server either.
    if last < first || (last >= count && arity < 0) {
        return None;
    }
    (first..=last.min(count - 1)).step_by((step as usize).max(1)).for_each(visit);
    Some(())
}

/// The index behind the keyword.
fn behind_keyword(word: &str, from: i32, request: &Request) -> Option<usize> {
    let count = request.len();
    let found = match usize::try_from(from) {
        Ok(from) => (from..count).find(|&index| request.is(index, word)),
        Err(_) => (1..=count.checked_add_signed(from as isize)?).rev().find(|&index| request.is(index, word)),
    };
    found.map(|index| index + 1)
}

/// The last STORE counts. Options' own arguments are stepped over, that of STORE is not: so does the server.
fn sort(name: &str, request: &Request, visit: &mut impl FnMut(usize)) -> Option<()> {
    one(request, 1, visit)?;
    if name == "sort_ro" {
        return Some(());
    }
    let mut store = None;
    let mut at = 2;
    while at < request.len() {
        if request.is(at, "LIMIT") {
            at += 2;
        } else if request.is(at, "GET") || request.is(at, "BY") {
            at += 1;
        } else if request.is(at, "STORE") && at + 1 < request.len() {
            store = Some(at + 1);
        }
        at += 1;
    }
    store.into_iter().for_each(visit);
    Some(())
}

fn georadius(request: &Request, visit: &mut impl FnMut(usize)) -> Option<()> {
    one(request, 1, visit)?;
    let mut store = None;
    let mut at = 5;
    while at + 1 < request.len() {
        if request.is(at, "STORE") || request.is(at, "STOREDIST") {
            store = Some(at + 1);
            at += 1;
        }
        at += 1;
    }
    store.into_iter().for_each(visit);
    Some(())
}

fn migrate(request: &Request, visit: &mut impl FnMut(usize)) -> Option<()> {
    if !request.get(3)?.is_empty() {
        visit(3);
        return Some(());
    }
    let mut at = 6;
    let keys = loop {
        match at {
            _ if at >= request.len() => return None,
            _ if request.is(at, "KEYS") => break at + 1..request.len(),
            _ if request.is(at, "AUTH") => at += 2,
            _ if request.is(at, "AUTH2") => at += 3,
            _ => at += 1,
        }
    };
    keys.for_each(visit);
    Some(())
}
