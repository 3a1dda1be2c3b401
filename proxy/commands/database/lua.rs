//! What a script asks for, as far as its text tells: its words, and the calls of commands among them. Where the text does
//! not tell for sure, the answer is no: the script then gets a prologue that looks at what it does while it runs.

mod words;

use std::{
    collections::{HashMap, HashSet},
    ops::Range,
};

use self::words::{Word, words};
use crate::{
    commands::table::{
        CommandTable, Keys, Spec,
        in_database::{InDatabase, ReplyKeys},
    },
    protocol::resp::{request::Parser, write},
};

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
    /// Its end.
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
    let Some(words) = (code.len() <= LONGEST).then(|| words(code)).flatten() else { return Reach::Any };
    let is_another_way = |(word, _): &(Word, _)| matches!(word, Word::Name(name) if OTHER_WAYS.contains(name));
    if words.iter().any(is_another_way) {
        return Reach::Any;
    }
    let script = Script { words: &words, commands };
    script.rewriting().unwrap_or(Reach::Any)
}

/// The words of a script.
struct Script<'a> {
    words: &'a [(Word<'a>, Range<usize>)],
    commands: &'a CommandTable,
}

/// `redis.call('NAME', ...)`
struct Call<'a> {
    spec: &'a Spec,
    name: &'a [u8],
    /// The words of each argument behind the name.
    args: Vec<Range<usize>>,
    /// The last argument may be several values, or none.
    is_open: bool,
}

/// `local name = value`, where the value is a string, or `nil` if it is an element of KEYS.
struct Definition<'a> {
    name_at: usize,
    name: &'a [u8],
    value: Range<usize>,
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

/// Names that no value has.
const KEYWORDS: &[&[u8]] = &[
    b"and",
    b"break",
    b"do",
    b"else",
    b"elseif",
    b"end",
    b"false",
    b"for",
    b"function",
    b"if",
    b"in",
    b"local",
    b"nil",
    b"not",
    b"or",
    b"repeat",
    b"return",
    b"then",
    b"true",
    b"until",
    b"while",
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

    /// The name in `local name = redis.call`, where that stands around here.
    fn alias(&self, at: usize) -> Option<&'a [u8]> {
        let before = at.checked_sub(3)?;
        let is_it = self.name(before) == Some(b"local") && self.is(before + 2, b"=") && self.is_over(at + 3);
        self.name(before + 1).filter(|name| is_it && !KEYWORDS.contains(name))
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

    /// Whether it is put together by `..`: no operator in it binds less.
    fn is_joined(&self, place: &Range<usize>) -> bool {
        let (mut depth, mut is_joined) = (0, false);
        for (word, _) in &self.words[place.clone()] {
            match word {
                Word::Sign(b"(" | b"[" | b"{") => depth += 1,
                Word::Sign(b")" | b"]" | b"}") => depth -= 1,
                Word::Sign(b"..") if depth == 0 => is_joined = true,
                Word::Sign(b"==" | b"~=" | b"<" | b"<=" | b">" | b">=") if depth == 0 => return false,
                Word::Name(b"and" | b"or") if depth == 0 => return false,
                _ => {}
            }
        }
        is_joined
    }

    /// All `local a, b = KEYS[1], 'text' .. c` and the like.
    fn definitions(&self) -> Vec<Definition<'a>> {
        let mut named: HashMap<&[u8], usize> = HashMap::new();
        let mut definitions: Vec<_> = self.all(b"local").filter_map(|at| self.defined(at)).flatten().collect();
        definitions.iter().for_each(|definition| *named.entry(definition.name).or_default() += 1);
        // Each name once: it is the same wherever it stands.
        definitions.retain(|definition| named[definition.name] == 1);
        definitions
    }

    fn defined(&self, at: usize) -> Option<Vec<Definition<'a>>> {
        let (mut names, mut values, mut at) = (Vec::new(), Vec::new(), at + 1);
        loop {
            names.push((at, self.name(at).filter(|name| !KEYWORDS.contains(name))?));
            at += 1;
            if self.is(at, b"=") {
                break;
            }
            at = Some(at + 1).filter(|_| self.is(at, b","))?;
        }
        loop {
            let end = self.operands(at + 1)?;
            values.push(at + 1..end);
            at = end;
            if !self.is(at, b",") {
                break;
            }
        }
        let defined = |((name_at, name), value)| Definition { name_at, name, value };
        (self.is_over(at) && names.len() == values.len()).then(|| names.into_iter().zip(values).map(defined).collect())
    }

    /// Where what stands here with `..` between ends.
    fn operands(&self, mut at: usize) -> Option<usize> {
        loop {
            at = self.operand(at)?;
            if !self.is(at, b"..") {
                return Some(at);
            }
            at += 1;
        }
    }

    fn operand(&self, at: usize) -> Option<usize> {
        let at = if self.is(at, b"#") { at + 1 } else { at };
        match &self.words.get(at)?.0 {
            Word::Quoted(_) | Word::Number(_) => return Some(at + 1),
            Word::Name(name) if !KEYWORDS.contains(name) => {}
            _ => return None,
        }
        let mut at = at + 1;
        loop {
            match self.words.get(at).map(|(word, _)| word) {
                Some(Word::Sign(b"." | b":")) => at += 2,
                Some(Word::Sign(b"(" | b"[")) => at = self.closed(at)?,
                Some(Word::Sign(b"{") | Word::Quoted(_) | Word::Long) => return None,
                _ => return Some(at),
            }
        }
    }

    /// Behind the bracket that closes this one.
    fn closed(&self, at: usize) -> Option<usize> {
        let mut depth = 0;
        for (index, (word, _)) in self.words.iter().enumerate().skip(at) {
            match word {
                Word::Sign(b"(" | b"[" | b"{") => depth += 1,
                Word::Sign(b")" | b"]" | b"}") if depth == 1 => return Some(index + 1),
                Word::Sign(b")" | b"]" | b"}") => depth -= 1,
                _ => {}
            }
        }
        None
    }

    /// Whether an expression that ends before this is over.
    fn is_over(&self, at: usize) -> bool {
        match self.words.get(at).map(|(word, _)| word) {
            None | Some(Word::Sign(b";")) => true,
            Some(Word::Name(name)) => !matches!(*name, b"and" | b"or"),
            _ => false,
        }
    }

    fn is_field(&self, at: usize) -> bool {
        at > 0 && (self.is(at - 1, b".") || self.is(at - 1, b":"))
    }

    /// Whether what stands here is only asked for its length.
    fn is_length(&self, at: usize) -> bool {
        at > 0 && self.is(at - 1, b"#") && ![&b"["[..], b".", b":", b"("].iter().any(|sign| self.is(at + 1, sign))
    }

    /// Whether `KEYS[1]`, with any number, begins here.
    fn is_element(&self, at: usize) -> bool {
        let is_whole =
            |(word, _): &(Word, _)| matches!(word, Word::Number(digits) if digits.iter().all(u8::is_ascii_digit));
        self.is(at + 1, b"[") && self.words.get(at + 2).is_some_and(is_whole) && self.is(at + 3, b"]")
    }

    /// Where the keys of a call are, if its text tells.
    fn keys(&self, call: &Call) -> Option<Vec<Range<usize>>> {
        let Call { spec, args, is_open, .. } = call;
        if spec.container || spec.reply_keys != ReplyKeys::Nothing {
            return None;
        }
        if spec.in_database == InDatabase::AsItCame {
            return Some(Vec::new());
        }
        // Where keys depend on options, an argument may turn out to be one.
        if spec.in_database != InDatabase::Keys || spec.rule_of_keys().is_none_or(|rule| rule == "g") {
            return None;
        }
        // What comes of the last argument must be no key.
        if *is_open && !(spec.only_key() == Some(1) && args.len() > 1) {
            return None;
        }
        let said = args.iter().map(|arg| match self.words.get(arg.clone()) {
            Some([(Word::Quoted(text) | Word::Number(text), _)]) if !text.contains(&b'\\') => text,
            _ => &b"?"[..],
        });
        let (mut frame, mut parser, mut places) = (Vec::new(), Parser::default(), Vec::new());
        write::request(&mut frame, &std::iter::once(call.name).chain(said).collect::<Vec<_>>());
        let found = parser.find(&frame).ok()??;
        let keys = spec.keys_of(&parser.request(&frame, found), &mut places);
        (keys == Keys::Known && !places.is_empty())
            .then(|| places.iter().map(|place| args[place - 1].clone()).collect())
    }

    /// The call whose bracket opens here.
    fn call(&self, open: usize) -> Option<Call<'a>> {
        let Some(Word::Quoted(name)) = self.words.get(open + 1).filter(|_| self.is(open, b"(")).map(|(word, _)| word)
        else {
            return None;
        };
        let spec = self.commands.named(name, b"").filter(|_| name.iter().all(u8::is_ascii_alphanumeric))?;
        let (first, mut depth, mut args) = (open + 3, 0, Vec::new());
        if self.is(open + 2, b")") {
            return Some(Call { spec, name, args, is_open: false });
        }
        let mut begin = first;
        if !self.is(open + 2, b",") {
            return None;
        }
        for at in first..self.words.len() {
            match self.words[at].0 {
                Word::Sign(b"(" | b"[" | b"{") => depth += 1,
                Word::Sign(b")") if depth == 0 => {
                    let may_be_open = match self.words[at - 1].0 {
                        Word::Sign(b")" | b"...") => true,
                        // A call without brackets: f'text', f{}.
                        Word::Sign(b"}") | Word::Quoted(_) | Word::Long => at - begin > 1,
                        _ => false,
                    };
                    let is_open = may_be_open && !self.is_joined(&(begin..at));
                    args.push(begin..at);
                    return args.iter().all(|arg| !arg.is_empty()).then_some(Call { spec, name, args, is_open });
                }
                Word::Sign(b")" | b"]" | b"}") => depth -= 1,
                Word::Sign(b",") if depth == 0 => {
                    args.push(begin..at);
                    begin = at + 1;
                }
                // There, commas are of its own.
                Word::Name(b"function") => return None,
                _ => {}
            }
        }
        None
    }

    /// Where this name stands.
    fn all(&self, name: &'a [u8]) -> impl Iterator<Item = usize> + use<'_, 'a> {
        let is_it = move |word: &Word| matches!(word, Word::Name(it) if *it == name);
        self.words.iter().enumerate().filter(move |(_, (word, _))| is_it(word)).map(|(at, _)| at)
    }

    fn name(&self, at: usize) -> Option<&'a [u8]> {
        match self.words.get(at) {
            Some((Word::Name(name), _)) => Some(name),
            _ => None,
        }
    }

    fn is(&self, at: usize, sign: &[u8]) -> bool {
        matches!(self.words.get(at), Some((Word::Sign(it), _)) if *it == sign)
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
