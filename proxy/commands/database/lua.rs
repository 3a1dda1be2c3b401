//! What a script asks for, as far as its text tells: its words, and the calls of commands among them. Where the text does
//! not tell for sure, the answer is no: the script then gets a prologue that looks at what it does while it runs.

use std::{collections::HashSet, ops::Range};

use super::script::has_one_key_first;
use crate::{
    commands::table::{
        CommandTable, Keys, Spec,
        in_database::{InDatabase, ReplyKeys},
    },
    protocol::resp::{request::Parser, write},
};

/// How a script gets at keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// All that it has of `redis` are calls of named commands and what has to do with no key; all keys in them are elements
    /// of KEYS by number, or locals that are such, and it has KEYS and those for nothing else. It never sees a key.
    Declared,
    /// All that it has of `redis` are calls of named commands whose only key is their first argument.
    Named,
    /// Any other.
    Any,
}

/// How the script gets at keys whose code this is.
pub(super) fn reach(code: &[u8], commands: &CommandTable) -> Reach {
    // Other ways to what `redis` stands for.
    let is_there = |word: &[u8]| memchr::memmem::find(code, word).is_some();
    if [&b"server"[..], b"_G", b"load", b"fenv"].into_iter().any(is_there) {
        return Reach::Any;
    }
    let Some(words) = words(code) else { return Reach::Any };
    let script = Script { words: &words, commands };
    if script.is_declared() {
        Reach::Declared
    } else if script.is_named() {
        Reach::Named
    } else {
        Reach::Any
    }
}

/// A word of Lua 5.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word<'a> {
    /// A name or a keyword.
    Name(&'a [u8]),
    /// A string between quotes, as it is written between them.
    Quoted(&'a [u8]),
    /// A string between long brackets.
    Long,
    Number(&'a [u8]),
    Sign(&'a [u8]),
}

/// The words of a text without its comments; `None` where some are none of Lua's, or might be others to another reader.
fn words(text: &[u8]) -> Option<Vec<Word<'_>>> {
    let (mut words, mut at) = (Vec::new(), 0);
    while let Some(&byte) = text.get(at) {
        let rest = &text[at..];
        let (word, length) = match byte {
            b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c => (None, 1),
            b'-' if rest.starts_with(b"--") => (None, comment(rest)?),
            b'[' if rest.starts_with(b"[[") || rest.starts_with(b"[=") => (Some(Word::Long), bracketed(rest)?),
            b'\'' | b'"' => {
                let length = quoted(rest)?;
                (Some(Word::Quoted(&rest[1..length - 1])), length)
            }
            b'0'..=b'9' => {
                let length = number(rest);
                (Some(Word::Number(&rest[..length])), length)
            }
            b'.' if rest.get(1).is_some_and(u8::is_ascii_digit) => {
                let length = number(rest);
                (Some(Word::Number(&rest[..length])), length)
            }
            b'_' | b'a'..=b'z' | b'A'..=b'Z' => {
                let length = run(rest, is_of_name);
                (Some(Word::Name(&rest[..length])), length)
            }
            _ => {
                let length = SIGNS.iter().find(|sign| rest.starts_with(sign))?.len();
                (Some(Word::Sign(&rest[..length])), length)
            }
        };
        words.extend(word);
        at += length;
    }
    Some(words)
}

/// The signs of Lua 5.1, longer ones first.
const SIGNS: &[&[u8]] = &[
    b"...", b"..", b"==", b"~=", b"<=", b">=", b"+", b"-", b"*", b"/", b"%", b"^", b"#", b"<", b">", b"=", b"(", b")",
    b"{", b"}", b"[", b"]", b";", b":", b",", b".",
];

fn is_of_name(byte: u8) -> bool {
    byte == b'_' || byte.is_ascii_alphanumeric()
}

/// How many bytes at the front are such.
fn run(text: &[u8], is: impl Fn(u8) -> bool) -> usize {
    text.iter().position(|&byte| !is(byte)).unwrap_or(text.len())
}

/// How long the number is that stands here (`read_numeral` of Lua 5.1).
fn number(text: &[u8]) -> usize {
    let mut length = run(text, |byte| byte == b'.' || byte.is_ascii_digit());
    if let Some(b'e' | b'E') = text.get(length) {
        length += 1;
        length += usize::from(matches!(text.get(length), Some(b'+' | b'-')));
    }
    length + run(&text[length..], is_of_name)
}

/// How long the string is that begins with this quote.
fn quoted(text: &[u8]) -> Option<usize> {
    let mut at = 1;
    loop {
        match text.get(at)? {
            b'\\' => at += 2,
            b'\n' | b'\r' => return None,
            byte if *byte == text[0] => return Some(at + 1),
            _ => at += 1,
        }
    }
}

/// How long the string between long brackets is that begins here.
fn bracketed(text: &[u8]) -> Option<usize> {
    let level = run(&text[1..], |byte| byte == b'=');
    let begin = level + 2;
    if text.get(level + 1) != Some(&b'[') {
        return None;
    }
    let end = [b"]", &text[1..=level], b"]"].concat();
    memchr::memmem::find(&text[begin..], &end).map(|found| begin + found + end.len())
}

fn comment(text: &[u8]) -> Option<usize> {
    let rest = &text[2..];
    if rest.first() == Some(&b'[') && rest.get(1 + run(&rest[1..], |byte| byte == b'=')) == Some(&b'[') {
        return bracketed(rest).map(|length| length + 2);
    }
    Some(2 + run(rest, |byte| byte != b'\n' && byte != b'\r'))
}

/// The words of a script.
struct Script<'a> {
    words: &'a [Word<'a>],
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

/// What of `redis` has to do with no key.
const HARMLESS: &[&[u8]] =
    &[b"status_reply", b"error_reply", b"sha1hex", b"log", b"LOG_DEBUG", b"LOG_VERBOSE", b"LOG_NOTICE", b"LOG_WARNING"];

/// What a statement may begin with, or end a block with, behind an expression that is over.
const BEGINS: &[&[u8]] = &[
    b"local",
    b"if",
    b"for",
    b"while",
    b"repeat",
    b"return",
    b"do",
    b"end",
    b"else",
    b"elseif",
    b"until",
    b"break",
    b"function",
    b"redis",
];

impl<'a> Script<'a> {
    /// See [`Reach::Named`].
    fn is_named(&self) -> bool {
        self.all(b"redis").all(|at| {
            let call = self.call(at).filter(|call| has_one_key_first(call.spec));
            // What is one value for sure: the prologue takes it as the second of several.
            call.is_some_and(|call| !(call.args.is_empty() || call.is_open && call.args.len() == 1))
        })
    }

    /// See [`Reach::Declared`].
    fn is_declared(&self) -> bool {
        let (mut told, mut locals) = (HashSet::new(), HashSet::new());
        for at in self.all(b"local") {
            self.declares(at, &mut told, &mut locals);
        }
        for at in self.all(b"redis") {
            if self.is(at + 1, b".") && self.name(at + 2).is_some_and(|name| HARMLESS.contains(&name)) {
                continue;
            }
            let Some(places) = self.call(at).and_then(|call| self.keys(&call)) else { return false };
            for place in places {
                if !self.is_key(&place, &locals) {
                    return false;
                }
                told.insert(place.start);
            }
        }
        let is_length = |at: usize| {
            at > 0 && self.is(at - 1, b"#") && ![&b"["[..], b".", b":", b"("].iter().any(|sign| self.is(at + 1, sign))
        };
        let is_known = |at: usize, name: &[u8]| told.contains(&at) || name == b"KEYS" && is_length(at);
        self.words.iter().enumerate().all(|(at, word)| match word {
            Word::Name(name) => (*name != b"KEYS" && !locals.contains(name)) || is_known(at, name),
            _ => true,
        })
    }

    /// Takes note of `local a, b = KEYS[1], KEYS[2]`, where that stands here.
    fn declares(&self, at: usize, told: &mut HashSet<usize>, locals: &mut HashSet<&'a [u8]>) {
        let (mut names, mut values, mut at) = (Vec::new(), Vec::new(), at + 1);
        loop {
            let Some(name) = self.name(at) else { return };
            names.push((at, name));
            at += 1;
            match self.words.get(at) {
                Some(Word::Sign(b",")) => at += 1,
                Some(Word::Sign(b"=")) => break,
                _ => return,
            }
        }
        loop {
            at += 1;
            if !self.is_element(at) {
                return;
            }
            values.push(at);
            at += 4;
            if !self.is(at, b",") {
                break;
            }
        }
        let is_over = match self.words.get(at) {
            None | Some(Word::Sign(b";")) => true,
            Some(Word::Name(name)) => BEGINS.contains(name),
            _ => false,
        };
        // Each name once: it is the same wherever it stands.
        let is_new = names.iter().all(|(_, name)| *name != b"KEYS" && !locals.contains(name));
        if is_over && is_new && names.len() == values.len() {
            locals.extend(names.iter().map(|(_, name)| *name));
            told.extend(names.iter().map(|(at, _)| *at));
            told.extend(values);
        }
    }

    /// Whether it is `KEYS[1]` or such a local, and nothing more.
    fn is_key(&self, place: &Range<usize>, locals: &HashSet<&[u8]>) -> bool {
        match place.len() {
            1 => self.name(place.start).is_some_and(|name| locals.contains(name)),
            4 => self.is_element(place.start),
            _ => false,
        }
    }

    /// Whether `KEYS[1]`, with any number, begins here.
    fn is_element(&self, at: usize) -> bool {
        self.name(at) == Some(b"KEYS")
            && self.is(at + 1, b"[")
            && matches!(self.words.get(at + 2), Some(Word::Number(digits)) if digits.iter().all(u8::is_ascii_digit))
            && self.is(at + 3, b"]")
    }

    /// Where the keys of a call are, if its text tells.
    fn keys(&self, call: &Call) -> Option<Vec<Range<usize>>> {
        let Call { spec, args, is_open, .. } = call;
        let is_plain = spec.in_database == InDatabase::Keys && spec.reply_keys == ReplyKeys::Nothing;
        // Where keys depend on options, an argument may turn out to be one.
        if !is_plain || spec.container || spec.rule_of_keys().is_none_or(|rule| rule == "g") {
            return None;
        }
        // What comes of the last argument must be no key.
        if *is_open && !(spec.only_key() == Some(1) && args.len() > 1) {
            return None;
        }
        let said = args.iter().map(|arg| match self.words.get(arg.clone()) {
            Some([Word::Quoted(text) | Word::Number(text)]) if !text.contains(&b'\\') => text,
            _ => &b"?"[..],
        });
        let (mut frame, mut parser, mut places) = (Vec::new(), Parser::default(), Vec::new());
        write::request(&mut frame, &std::iter::once(call.name).chain(said).collect::<Vec<_>>());
        let found = parser.find(&frame).ok()??;
        let keys = spec.keys_of(&parser.request(&frame, found), &mut places);
        (keys == Keys::Known && !places.is_empty())
            .then(|| places.iter().map(|place| args[place - 1].clone()).collect())
    }

    /// The call that begins here.
    fn call(&self, at: usize) -> Option<Call<'a>> {
        let is_field = at > 0 && (self.is(at - 1, b".") || self.is(at - 1, b":"));
        let is_call = self.is(at + 1, b".") && matches!(self.name(at + 2), Some(b"call" | b"pcall"));
        if is_field || !is_call || !self.is(at + 3, b"(") {
            return None;
        }
        let Some(Word::Quoted(name)) = self.words.get(at + 4) else { return None };
        let spec = self.commands.named(name, b"").filter(|_| name.iter().all(u8::is_ascii_alphanumeric))?;
        let (first, mut depth, mut args) = (at + 6, 0, Vec::new());
        let mut begin = first;
        if !self.is(at + 5, b",") {
            return None;
        }
        for at in first..self.words.len() {
            match self.words[at] {
                Word::Sign(b"(" | b"[" | b"{") => depth += 1,
                Word::Sign(b")") if depth == 0 => {
                    args.push(begin..at);
                    let is_open = match self.words[at - 1] {
                        Word::Sign(b")" | b"...") => true,
                        // A call without brackets: f'text', f{}.
                        Word::Sign(b"}") => at - begin > 1,
                        Word::Quoted(_) | Word::Long => at - begin > 1 && !self.is(at - 2, b".."),
                        _ => false,
                    };
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
    fn all(&self, name: &'static [u8]) -> impl Iterator<Item = usize> + use<'_, 'a> {
        let is_it = move |word: &Word| matches!(word, Word::Name(it) if *it == name);
        self.words.iter().enumerate().filter(move |(_, word)| is_it(word)).map(|(at, _)| at)
    }

    fn name(&self, at: usize) -> Option<&'a [u8]> {
        match self.words.get(at) {
            Some(Word::Name(name)) => Some(name),
            _ => None,
        }
    }

    fn is(&self, at: usize, sign: &[u8]) -> bool {
        matches!(self.words.get(at), Some(Word::Sign(it)) if *it == sign)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_a_script_tells_how_it_gets_at_keys() {
        use Reach::{Any, Declared, Named};
        for (text, expected) in [
            ("return 1", Declared),
            ("return redis.call('get', KEYS[1])", Declared),
            (
                "if redis.call(\"get\",KEYS[1]) == ARGV[1] then return redis.call(\"del\",KEYS[1]) else return 0 end",
                Declared,
            ),
            ("local k = KEYS[1] local v = redis.call('get', k) return redis.call('set', k, v .. ARGV[1])", Declared),
            ("local a, b = KEYS[1], KEYS[2];\nreturn redis.call('rename', a, b)", Declared),
            ("redis.call('hset', KEYS[1], unpack(ARGV)) return redis.status_reply('OK')", Declared),
            ("return redis.call('zinterstore', KEYS[1], 2, KEYS[2], KEYS[3])", Declared),
            ("return redis.call('set', KEYS[1], redis.call('get', KEYS[2]))", Declared),
            ("return #KEYS", Declared),
            ("-- KEYS, redis\nreturn 'KEYS and redis' .. [[KEYS]]", Declared),
            ("--[[ redis.call('get', KEYS[1]) ]] return redis.call('get', KEYS[1])", Declared),
            // It sees a key, or may.
            ("return KEYS[1]", Named),
            ("return #KEYS[1]", Named),
            ("local k = KEYS[1] redis.call('get', k) return k", Named),
            ("local k = KEYS[1] k = 'other' return redis.call('get', k)", Named),
            ("local k = KEYS[1] .. 'x' return redis.call('get', k)", Named),
            ("local k = KEYS[1] return redis.call('set', KEYS[1], k)", Named),
            ("local k = KEYS[1] (f)() return redis.call('get', k)", Named),
            ("return redis.call('set', KEYS[1], KEYS[1])", Named),
            ("return redis.call('get', KEYS[i])", Named),
            ("return redis.call('get', 'computed')", Named),
            ("return redis.call('get', KEYS[1] .. 'x')", Named),
            ("KEYS[1] = 'x' return redis.call('get', KEYS[1])", Named),
            ("for _, k in ipairs(KEYS) do redis.call('get', k) end", Named),
            ("redis.pcall( \"SET\" , KEYS[1], 'v') return redis.call('incr',k)", Named),
            ("f(--redis.call('get',\n KEYS[1])", Named),
            // Where the keys are, or what is called, is seen as it runs.
            ("return redis.call('mget', KEYS[1], 'x')", Any),
            ("return redis.call('del', unpack(KEYS))", Any),
            ("return redis.call('del', KEYS[1], unpack(ARGV))", Any),
            ("return redis.call('zinterstore', KEYS[1], ARGV[1], KEYS[2])", Any),
            ("return redis.call('get', f())", Any),
            ("return redis.call('get', ...)", Any),
            ("return redis.call('get', f'x')", Any),
            ("return redis.call('set', KEYS[1], function() return 1, KEYS[2] end)", Any),
            ("return redis.call('keys', '*')", Any),
            ("return redis.call('sort', KEYS[1], ARGV[1], ARGV[2])", Any),
            ("return redis.call('georadius', KEYS[1], 1, 2, 3, 'km', ARGV[1], ARGV[2])", Any),
            ("return redis.call('lmpop', 1, KEYS[1], 'LEFT')", Any),
            ("return redis.call('nonesuch', KEYS[1])", Any),
            ("return redis.call('get')", Any),
            ("return redis.call(ARGV[1], KEYS[1])", Any),
            ("return redis.call('get'..'x', KEYS[1])", Any),
            ("return redis.call(('get'), KEYS[1])", Any),
            ("local call = redis.call return call('get', 'k')", Any),
            ("return pcall(redis.call, 'get', KEYS[1])", Any),
            ("return redis.callx('get', 'k')", Any),
            ("return redis", Any),
            ("return x.redis.call('get', KEYS[1])", Any),
            ("return redis.acl_check_cmd('get', KEYS[1])", Any),
            ("return server.call('get', KEYS[1])", Any),
            ("return _G['red'..'is'].call('get', 'k')", Any),
            ("return loadstring('return red'..'is.call(\"get\", \"k\")')()", Any),
            ("return getfenv(1)['red'..'is']", Any),
            ("return 'open", Any),
            ("return [==[ open ]=]", Any),
            ("return 1 @ 2", Any),
        ] {
            assert_eq!(reach(text.as_bytes(), &CommandTable::builtin()), expected, "{text}");
        }
    }

    #[test]
    fn words_are_those_of_lua() {
        let said = words(b"x1=0x1F..'a\\'b' --c\n[=[ ]] ]=] a.b 1e-5.x ~=\"\" .5 3..2").expect("words");
        let texts: Vec<String> = said
            .iter()
            .map(|word| match word {
                Word::Name(text) | Word::Quoted(text) | Word::Number(text) | Word::Sign(text) => {
                    String::from_utf8_lossy(text).into_owned()
                }
                Word::Long => "long".to_owned(),
            })
            .collect();
        let expected =
            ["x1", "=", "0x1F", "..", "a\\'b", "long", "a", ".", "b", "1e-5", ".", "x", "~=", "", ".5", "3..2"];
        assert_eq!(texts, expected);
    }
}
