//! A script as its words, and what stands around one of them.

use std::ops::Range;

use super::words::Word;
use crate::commands::table::CommandTable;

/// The words of a script.
pub(super) struct Script<'a> {
    pub(super) words: &'a [(Word<'a>, Range<usize>)],
    pub(super) commands: &'a CommandTable,
}

impl<'a> Script<'a> {
    /// Where this name stands.
    pub(super) fn all(&self, name: &'a [u8]) -> impl Iterator<Item = usize> + use<'_, 'a> {
        let is_it = move |word: &Word| matches!(word, Word::Name(it) if *it == name);
        self.words.iter().enumerate().filter(move |(_, (word, _))| is_it(word)).map(|(at, _)| at)
    }

    pub(super) fn name(&self, at: usize) -> Option<&'a [u8]> {
        match self.words.get(at) {
            Some((Word::Name(name), _)) => Some(name),
            _ => None,
        }
    }

    pub(super) fn is(&self, at: usize, sign: &[u8]) -> bool {
        matches!(self.words.get(at), Some((Word::Sign(it), _)) if *it == sign)
    }

    /// Whether a name is the field of what stands before: `x.name` or `x:name`.
    pub(super) fn is_field(&self, at: usize) -> bool {
        at > 0 && (self.is(at - 1, b".") || self.is(at - 1, b":"))
    }

    /// Whether what stands here is only asked for its length.
    pub(super) fn is_length(&self, at: usize) -> bool {
        at > 0 && self.is(at - 1, b"#") && ![&b"["[..], b".", b":", b"("].iter().any(|sign| self.is(at + 1, sign))
    }

    /// Whether `KEYS[1]`, with any number, begins here.
    pub(super) fn is_element(&self, at: usize) -> bool {
        let is_whole =
            |(word, _): &(Word, _)| matches!(word, Word::Number(digits) if digits.iter().all(u8::is_ascii_digit));
        self.is(at + 1, b"[") && self.words.get(at + 2).is_some_and(is_whole) && self.is(at + 3, b"]")
    }

    /// Whether it is put together by `..`: no operator in it binds less.
    pub(super) fn is_joined(&self, place: &Range<usize>) -> bool {
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

    /// Behind the bracket that closes this one.
    pub(super) fn closed(&self, at: usize) -> Option<usize> {
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
    pub(super) fn is_over(&self, at: usize) -> bool {
        match self.words.get(at).map(|(word, _)| word) {
            None | Some(Word::Sign(b";")) => true,
            Some(Word::Name(name)) => !matches!(*name, b"and" | b"or"),
            _ => false,
        }
    }
}
