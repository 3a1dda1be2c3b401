//! The words of a text in Lua 5.1.

use std::ops::Range;

/// A word of Lua 5.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word<'a> {
    /// A name or a keyword.
    Name(&'a [u8]),
    /// A string between quotes, as it is written between them.
    Quoted(&'a [u8]),
    /// A string between long brackets.
    Long,
    Number(&'a [u8]),
    Sign(&'a [u8]),
}

/// The words of a text without its comments, and where each stands in it; `None` where some are none of Lua's, or might be
/// others to another reader.
pub(super) fn words(text: &[u8]) -> Option<Vec<(Word<'_>, Range<usize>)>> {
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
        words.extend(word.map(|word| (word, at..at + length)));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_lua() {
        let said = words(b"x1=0x1F..'a\\'b' --c\n[=[ ]] ]=] a.b 1e-5.x ~=\"\" .5 3..2").expect("words");
        let texts: Vec<String> = said
            .iter()
            .map(|(word, _)| match word {
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
