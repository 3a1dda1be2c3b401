//! What a script asks for, as far as its text tells: its words, and the calls of commands among them. Where the text does
//! not tell for sure, the answer is no: the script then gets a prologue that looks at what it does while it runs.

mod calls;
mod locals;
mod script;
mod words;

use std::{collections::HashSet, ops::Range};

use self::{
    locals::Definition,
    script::Script,
    words::{Word, words},
};
use crate::commands::table::CommandTable;

/// How a script gets at keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// All that it has of `redis` are calls of named commands and what has to do with no key; all keys in them are elements
    /// of KEYS by number, or locals that are such, and it has KEYS and those for nothing else. It never sees a key.
    Declared,
    /// All that it has of `redis` are calls of named commands whose keys are where the text tells.
    Told(Rewriting),
    /// Any other.
    Any,
}

/// What makes a text name its keys as they are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rewriting {
    /// What to put in before which of its bytes, from the front to the back.
    pub(super) insertions: Vec<(usize, Insertion)>,
    /// What it has to see in KEYS.
    pub(super) sees: Sees,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Insertion {
    /// The prefix, within a string.
    Prefix,
    /// The prefix, to be put before what is put together there.
    PrefixAnd,
    /// The beginning of a call of [`KEY`].
    Call,
    /// The beginning of what stands in brackets.
    Open,
    /// The end of a call, or of what stands in brackets.
    End,
}

/// What a script has to see in KEYS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sees {
    /// Anything: it does not look.
    Nothing,
    /// Its keys as they are kept: it only hands them on.
    Kept,
    /// Its keys as the client named them.
    Said,
}

/// The function that names a key as it is kept, which is no word of the script's own.
pub(super) const KEY: &str = "slotway_key";

/// Longer texts are not looked into.
const LONGEST: usize = 64 * 1024;
/// How often it is looked which locals are nothing but keys, before none is taken for one.
const ROUNDS: usize = 4;

/// How the script gets at keys whose code this is.
pub(super) fn reach(code: &[u8], commands: &CommandTable) -> Reach {
    let Some(words) = words_of(code).filter(|words| !name_another_way(words)) else { return Reach::Any };
    let script = Script { words: &words, commands };
    script.rewriting().unwrap_or(Reach::Any)
}

/// What makes a script return the values of its calls, not the calls themselves: these would take its own place, so that no
/// error in them knew the script's line.
pub(super) fn returning_values(code: &[u8], commands: &CommandTable) -> Vec<(usize, Insertion)> {
    let Some(words) = words_of(code) else { return Vec::new() };
    let returned = Script { words: &words, commands }.returned().into_iter();
    let mut insertions: Vec<_> =
        returned.flat_map(|call| [(call.start, Insertion::Open), (call.end, Insertion::End)]).collect();
    insertions.sort_by_key(|(at, _)| *at);
    insertions
}

/// Whether a script might get at what `redis` stands for by another name.
pub(super) fn may_go_another_way(code: &[u8]) -> bool {
    words_of(code).is_none_or(|words| name_another_way(&words))
}

/// The words of a code; `None` where that is too long, or is not told.
fn words_of(code: &[u8]) -> Option<Vec<(Word<'_>, Range<usize>)>> {
    (code.len() <= LONGEST).then(|| words(code)).flatten()
}

fn name_another_way(words: &[(Word, Range<usize>)]) -> bool {
    words.iter().any(|(word, _)| matches!(word, Word::Name(name) if OTHER_WAYS.contains(name)))
}

/// Other ways to what `redis` stands for, or to give `..` another meaning; and the name that is put in.
const OTHER_WAYS: &[&[u8]] = &[
    b"server",
    b"_G",
    b"_VERSION",
    b"load",
    b"loadstring",
    b"loadfile",
    b"dofile",
    b"require",
    b"module",
    b"package",
    b"debug",
    b"newproxy",
    b"getfenv",
    b"setfenv",
    b"getmetatable",
    b"setmetatable",
    KEY.as_bytes(),
];

/// What of `redis` has to do with no key.
const HARMLESS: &[&[u8]] = &[
    b"status_reply",
    b"error_reply",
    b"sha1hex",
    b"log",
    b"setresp",
    b"replicate_commands",
    b"REDIS_VERSION",
    b"REDIS_VERSION_NUM",
    b"LOG_DEBUG",
    b"LOG_VERBOSE",
    b"LOG_NOTICE",
    b"LOG_WARNING",
];

/// Keys as one way to rewrite a text takes them.
#[derive(Default)]
struct Taken<'a> {
    /// Words that are keys as they are kept, or names of locals that are.
    told: HashSet<usize>,
    /// The locals that are keys as they are kept, and nothing else.
    locals: HashSet<&'a [u8]>,
    insertions: Vec<(usize, Insertion)>,
    /// Some keys are none that are declared.
    computes: bool,
}

impl<'a> Script<'a> {
    /// How it gets at keys; `None` where the text does not tell.
    fn rewriting(&self) -> Option<Reach> {
        let mut places = Vec::new();
        for at in self.all(b"redis") {
            let field = self.name(at + 2).filter(|_| self.is(at + 1, b".") && !self.is_field(at))?;
            if HARMLESS.contains(&field) {
                continue;
            }
            if !matches!(field, b"call" | b"pcall") {
                return None;
            }
            match self.alias(at) {
                Some(alias) => {
                    for named in self.all(alias).filter(|named| *named != at - 2 && !self.is_field(*named)) {
                        places.extend(self.keys(&self.call(named + 1)?)?);
                    }
                }
                None => places.extend(self.keys(&self.call(at + 3)?)?),
            }
        }
        let definitions = self.definitions();
        self.rewritten(&places, &definitions, Sees::Kept).or_else(|| self.rewritten(&places, &definitions, Sees::Said))
    }

    /// What makes the text name its keys as they are kept, where it sees this in KEYS.
    fn rewritten(&self, places: &[Range<usize>], definitions: &[Definition<'a>], sees: Sees) -> Option<Reach> {
        // Locals that are something else, too.
        let mut others: HashSet<&[u8]> = HashSet::new();
        for round in 0..=ROUNDS {
            let mut taken = Taken::default();
            for Definition { name_at, name, value } in definitions {
                let is_one = round < ROUNDS && !others.contains(name) && !taken.locals.contains(name);
                if is_one && self.take(value, sees, false, &mut taken) {
                    taken.told.insert(*name_at);
                    taken.locals.insert(name);
                }
            }
            for place in places {
                self.take(place, sees, true, &mut taken);
            }
            let before = others.len();
            for (at, (word, _)) in self.words.iter().enumerate().filter(|(at, _)| !taken.told.contains(at)) {
                match word {
                    Word::Name(b"KEYS") if sees == Sees::Kept && !self.is_length(at) => return None,
                    Word::Name(name) if taken.locals.contains(name) => others.extend([name]),
                    _ => {}
                }
            }
            if others.len() == before {
                return Some(taken.reach(if self.all(b"KEYS").next().is_some() { sees } else { Sees::Nothing }));
            }
        }
        None
    }

    /// Takes what stands here for a key; false where that is only to be done for what is a string for sure, or an element of
    /// KEYS as it is kept, and it is none.
    fn take(&self, place: &Range<usize>, sees: Sees, is_any: bool, taken: &mut Taken<'a>) -> bool {
        let (first, is_joined) = (place.start, self.is_joined(place));
        let kept = match self.name(first) {
            Some(name) if taken.locals.contains(name) => 1,
            Some(b"KEYS") if sees == Sees::Kept && self.is_element(first) => 4,
            _ => 0,
        };
        let is_literal = matches!(self.words[first].0, Word::Quoted(_));
        let (begin, end) = (self.words[first].1.start, self.words[place.end - 1].1.end);
        if kept > 0 && (place.len() == kept || is_joined && self.is(first + kept, b"..")) {
            taken.told.insert(first);
            taken.computes |= place.len() > kept;
            return true;
        } else if is_literal && (place.len() == 1 || is_joined && self.is(first + 1, b"..")) {
            taken.insertions.push((begin + 1, Insertion::Prefix));
        } else if is_joined {
            taken.insertions.push((begin, Insertion::PrefixAnd));
        } else if is_any {
            taken.insertions.extend([(begin, Insertion::Call), (end, Insertion::End)]);
        } else {
            return false;
        }
        taken.computes = true;
        true
    }
}

impl Taken<'_> {
    /// What has become of a script that sees this in KEYS.
    fn reach(mut self, sees: Sees) -> Reach {
        if !self.computes && sees != Sees::Said {
            return Reach::Declared;
        }
        self.insertions.sort_by_key(|(at, _)| *at);
        Reach::Told(Rewriting { insertions: self.insertions, sees })
    }
}

#[cfg(test)]
mod tests;
