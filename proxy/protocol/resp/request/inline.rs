//! Inline requests: a line as a person types it.

/// The words of an inline request, with the quotes and escapes of `sdssplitargs`; `None` where a quote stays open. Where it
/// `joins`, a word goes on behind a closing quote; else a space or the end of the line must follow.
pub fn split_line(line: &[u8], joins: bool) -> Option<Vec<Vec<u8>>> {
    let mut words = Vec::new();
    let mut rest = line;
    loop {
        let word = rest.iter().position(|&byte| !is_space(byte)).unwrap_or(rest.len());
        rest = &rest[word..];
        // sdssplitargs works on C strings: it ends at a NUL.
        if rest.first().is_none_or(|&byte| byte == 0) {
            return Some(words);
        }
        let mut word = Vec::new();
        while let Some((&byte, behind)) = rest.split_first() {
            match byte {
                b' ' | b'\n' | b'\r' | b'\t' | 0 => break,
                b'"' | b'\'' => {
                    rest = if byte == b'"' {
                        double_quoted(behind, &mut word)?
                    } else {
                        single_quoted(behind, &mut word)?
                    };
                    if !joins {
                        rest = ends_word(rest)?;
                        break;
                    }
                }
                _ => {
                    word.push(byte);
                    rest = behind;
                }
            }
        }
        words.push(word);
    }
}

/// Reads up to the closing quote; what follows it.
fn double_quoted<'a>(mut rest: &'a [u8], word: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        match rest {
            [b'\\', b'x', high, low, behind @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                let digit = |byte: &u8| char::from(*byte).to_digit(16).unwrap_or_default() as u8;
                word.push(digit(high) * 16 + digit(low));
                rest = behind;
            }
            [b'\\', escaped, behind @ ..] => {
                word.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 8,
                    b'a' => 7,
                    other => *other,
                });
                rest = behind;
            }
            [b'"', behind @ ..] => return Some(behind),
            [byte, behind @ ..] if *byte != 0 => {
                word.push(*byte);
                rest = behind;
            }
            _ => return None,
        }
    }
}

fn single_quoted<'a>(mut rest: &'a [u8], word: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        match rest {
            [b'\\', b'\'', behind @ ..] => {
                word.push(b'\'');
                rest = behind;
            }
            [b'\'', behind @ ..] => return Some(behind),
            [byte, behind @ ..] if *byte != 0 => {
                word.push(*byte);
                rest = behind;
            }
            _ => return None,
        }
    }
}

fn ends_word(rest: &[u8]) -> Option<&[u8]> {
    rest.first().is_none_or(|&byte| is_space(byte) || byte == 0).then_some(rest)
}

/// `isspace` of C.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}
