//! Locals that a script defines once.

use std::{collections::HashMap, ops::Range};

use super::{script::Script, words::Word};

/// `local name = value`, where the value is a string, or `nil` if it is an element of KEYS.
pub(super) struct Definition<'a> {
    pub(super) name_at: usize,
    pub(super) name: &'a [u8],
    pub(super) value: Range<usize>,
}

/// Names that no value has.
pub(super) const KEYWORDS: &[&[u8]] = &[
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

impl<'a> Script<'a> {
    /// All `local a, b = KEYS[1], 'text' .. c` and the like.
    pub(super) fn definitions(&self) -> Vec<Definition<'a>> {
        let mut named: HashMap<&[u8], usize> = HashMap::new();
        let mut definitions: Vec<_> = self.all(b"local").filter_map(|at| self.defined(at)).flatten().collect();
        definitions.iter().for_each(|definition| *named.entry(definition.name).or_default() += 1);
        // Each name once: it is the same wherever it stands.
        definitions.retain(|definition| named[definition.name] == 1);
        definitions
    }

    pub(super) fn defined(&self, at: usize) -> Option<Vec<Definition<'a>>> {
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
    pub(super) fn operands(&self, mut at: usize) -> Option<usize> {
        loop {
            at = self.operand(at)?;
            if !self.is(at, b"..") {
                return Some(at);
            }
            at += 1;
        }
    }

    pub(super) fn operand(&self, at: usize) -> Option<usize> {
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
}
