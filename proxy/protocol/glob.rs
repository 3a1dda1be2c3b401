//! Patterns, as servers match them (`stringmatchlen`): `*`, `?`, `[a-c]`, `[^a]`, and `\` before what is meant as it stands.

/// Whether `text` matches `pattern`.
///
/// ```
/// use slotway::protocol::glob::matches;
///
/// assert!(matches(b"h[^e]*\\?", b"hallo?"));
/// assert!(!matches(b"h?llo", b"hllo"));
/// ```
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    matches_from(pattern, text).0
}

/// Whether the pattern matches; the second says that it would not match from further on in the text either.
fn matches_from(mut pattern: &[u8], mut text: &[u8]) -> (bool, bool) {
    while let (Some((&first, behind)), Some((&letter, rest))) = (pattern.split_first(), text.split_first()) {
        match first {
            b'*' => {
                let behind = behind.trim_stars();
                if behind.is_empty() {
                    return (true, false);
                }
                while !text.is_empty() {
                    let (is, hopeless) = matches_from(behind, text);
                    if is || hopeless {
                        return (is, hopeless);
                    }
                    text = &text[1..];
                }
                return (false, true);
            }
            b'[' => {
                let (is, behind) = is_among(behind, letter);
                if !is {
                    return (false, false);
                }
                pattern = behind;
            }
            b'?' => pattern = behind,
            _ => {
                let (meant, behind) = match (first, behind.split_first()) {
                    (b'\\', Some((&meant, behind))) => (meant, behind),
                    _ => (first, behind),
                };
                if meant != letter {
                    return (false, false);
                }
                pattern = behind;
            }
        }
        text = rest;
        if text.is_empty() {
            pattern = pattern.trim_stars();
        }
    }
    (pattern.is_empty() && text.is_empty(), false)
}

/// Whether a letter is among those that `class` names, behind its `[`; and what stands behind the `]`.
fn is_among(class: &[u8], letter: u8) -> (bool, &[u8]) {
    let (is_negated, mut class) = match class {
        [b'^', rest @ ..] => (true, rest),
        _ => (false, class),
    };
    let mut is = false;
    loop {
        class = match class {
            [b'\\', meant, rest @ ..] => {
                is |= *meant == letter;
                rest
            }
            [b']', rest @ ..] => return (is != is_negated, rest),
            [] => return (is != is_negated, class),
            [from, b'-', to, rest @ ..] => {
                is |= (*from.min(to)..=*from.max(to)).contains(&letter);
                rest
            }
            [one, rest @ ..] => {
                is |= *one == letter;
                rest
            }
        };
    }
}

trait Stars {
    fn trim_stars(&self) -> &Self;
}

impl Stars for [u8] {
    /// What is left behind any `*` at the front.
    fn trim_stars(&self) -> &[u8] {
        &self[self.iter().take_while(|&&byte| byte == b'*').count()..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_servers_match_them() {
        for (pattern, fits, others) in [
            ("*", "a ab", ""),
            ("**", "a ab", ""),
            ("a*", "a ab", "ba"),
            ("*a*b*", "ab xaxbx", "ba"),
            ("h[ae]llo", "hello hallo", "hillo hllo"),
            ("h[^e]llo", "hallo", "hello"),
            ("[a-c]", "a b c", "d ab"),
            ("[c-a]", "b", "d"),
            ("[]", "", "a ]"),
            ("[", "", "a ["),
            ("[a", "a", "b"),
            ("[\\]]", "]", "a"),
            ("a\\*", "a*", "ab"),
            ("a\\", "a\\", "a"),
            ("__key*__:*", "__keyspace@0__:foo __keyevent@15__:set", "_keyspace@0__:foo"),
        ] {
            for text in fits.split_whitespace() {
                assert!(matches(pattern.as_bytes(), text.as_bytes()), "{pattern} {text}");
            }
            for text in others.split_whitespace() {
                assert!(!matches(pattern.as_bytes(), text.as_bytes()), "{pattern} {text}");
            }
        }
    }

    #[test]
    fn many_stars_take_no_time() {
        assert!(!matches(&b"a*".repeat(50), &b"a".repeat(49)));
        assert!(!matches(&[&b"*a".repeat(40)[..], b"b"].concat(), &b"a".repeat(5000)));
    }
}
