//! Calls of commands in a script, and which of their arguments are keys.

use std::ops::Range;

use super::{locals::KEYWORDS, script::Script, words::Word};
use crate::{
    commands::table::{
        Keys, Spec,
        in_database::{InDatabase, ReplyKeys},
    },
    protocol::resp::{request::Parser, write},
};

/// `redis.call('NAME', ...)`
pub(super) struct Call<'a> {
    spec: &'a Spec,
    name: &'a [u8],
    /// The words of each argument behind the name.
    args: Vec<Range<usize>>,
    /// The last argument may be several values, or none.
    is_open: bool,
}

impl<'a> Script<'a> {
    /// The name in `local name = redis.call`, where that stands around here.
    pub(super) fn alias(&self, at: usize) -> Option<&'a [u8]> {
        let before = at.checked_sub(3)?;
        let is_it = self.name(before) == Some(b"local") && self.is(before + 2, b"=") && self.is_over(at + 3);
        self.name(before + 1).filter(|name| is_it && !KEYWORDS.contains(name))
    }

    /// The calls that a script returns as they are, `return redis.call(...)`, by where each begins and ends in its text.
    pub(super) fn returned(&self) -> Vec<Range<usize>> {
        // Elsewhere, both may be something else.
        let aliases: Vec<&[u8]> = self.all(b"redis").filter_map(|at| self.alias(at)).collect();
        let is_call = |at: usize| self.is(at + 1, b"(");
        let keeps = |alias: &&[u8]| self.all(alias).filter(|at| !is_call(*at) && !self.is_field(*at)).count() == 1;
        let is_redis = self.all(b"redis").all(|at| self.is(at + 1, b".") && !self.is_field(at));
        let opens = |at: usize| match self.name(at)? {
            b"redis" if is_redis && matches!(self.name(at + 2), Some(b"call" | b"pcall")) => Some(at + 3),
            name if aliases.contains(&name) && keeps(&name) => Some(at + 1),
            _ => None,
        };
        let returned = self.all(b"return").filter_map(|at| {
            let open = opens(at + 1).filter(|open| self.is(*open, b"("))?;
            let end = self.closed(open).filter(|end| self.is_over(*end))?;
            Some(self.words[at + 1].1.start..self.words[end - 1].1.end)
        });
        returned.collect()
    }

    /// Where the keys of a call are, if its text tells.
    pub(super) fn keys(&self, call: &Call) -> Option<Vec<Range<usize>>> {
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
    pub(super) fn call(&self, open: usize) -> Option<Call<'a>> {
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
}
