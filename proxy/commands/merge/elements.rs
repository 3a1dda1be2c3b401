//! Reading replies only as far as putting them together needs.

use crate::protocol::resp::{reply::Scanner, write};

/// The head of an array, set, push or map.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Head {
    /// `*`, `~`, `>` or `%`.
    pub kind: u8,
    /// How many elements; pairs in a map. None in a null.
    pub count: usize,
    /// Where the first element begins.
    pub body: usize,
}

impl Head {
    /// The head at the front of `reply`; `None` where it is something else.
    pub fn of(reply: &[u8]) -> Option<Head> {
        let kind = *reply.first()?;
        if !matches!(kind, b'*' | b'~' | b'>' | b'%') {
            return None;
        }
        let end = reply.iter().position(|&byte| byte == b'\r')?;
        let count: i64 = std::str::from_utf8(reply.get(1..end)?).ok()?.parse().ok()?;
        Some(Head { kind, count: usize::try_from(count).unwrap_or(0), body: end + 2 })
    }
}

/// The elements of an array or set, one after the other.
#[derive(Clone, Debug)]
pub struct Elements<'a> {
    /// The array's head.
    pub head: Head,
    left: &'a [u8],
}

impl<'a> Elements<'a> {
    /// The elements of `reply`; `None` where it is no array or set.
    pub fn of(reply: &'a [u8]) -> Option<Elements<'a>> {
        let head = Head::of(reply).filter(|head| head.kind != b'%')?;
        Some(Elements { head, left: reply.get(head.body..)? })
    }

    /// The next element, where it is an integer.
    pub fn next_integer(&mut self) -> Option<i64> {
        let end = self.left.iter().position(|&byte| byte == b'\n')? + 1;
        let (element, left) = self.left.split_at_checked(end)?;
        self.left = left;
        integer(element)
    }

    /// Steps over the next element where it is this one; else it stays the next.
    fn step_over(&mut self, element: &[u8]) -> Option<()> {
        self.left = self.left.strip_prefix(element)?;
        Some(())
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = &'a [u8];

    /// The next element, whole; `None` behind the last and where the bytes are malformed.
    fn next(&mut self) -> Option<&'a [u8]> {
        if self.left.is_empty() {
            return None;
        }
        let end = Scanner::default().find(self.left).ok()??;
        let (element, left) = self.left.split_at_checked(end)?;
        self.left = left;
        Some(element)
    }
}

/// The integer of `:n`.
pub fn integer(reply: &[u8]) -> Option<i64> {
    std::str::from_utf8(reply.strip_prefix(b":")?.strip_suffix(b"\r\n")?).ok()?.parse().ok()
}

/// Whether a reply is a null of RESP2 or RESP3.
pub fn is_null(reply: &[u8]) -> bool {
    reply.starts_with(b"$-1") || reply.starts_with(b"*-1") || reply.starts_with(b"_")
}

/// The text of an error, `-text` or `!length text`.
pub fn error_text(reply: &[u8]) -> Option<&[u8]> {
    match reply.split_first()? {
        (b'-', rest) => rest.strip_suffix(b"\r\n"),
        (b'!', rest) => {
            let end = rest.iter().position(|&byte| byte == b'\n')?;
            rest.get(end + 1..)?.strip_suffix(b"\r\n")
        }
        _ => None,
    }
}

/// Alternating names and integers, the same names in each reply.
pub fn sum_by_name(replies: &[Vec<u8>], out: &mut Vec<u8>) -> Option<()> {
    let mut parts = replies.iter().map(|reply| Elements::of(reply)).collect::<Option<Vec<_>>>()?;
    let head = parts.first().map(|part| part.head).filter(|head| head.count.is_multiple_of(2))?;
    out.reserve(replies.first()?.len());
    write::head(out, head.kind, head.count as i64);
    for _ in 0..head.count / 2 {
        let (first, others) = parts.split_first_mut()?;
        let name = first.next()?;
        let mut sum = first.next_integer()?;
        for part in others {
            part.step_over(name)?;
            sum = sum.checked_add(part.next_integer()?)?;
        }
        out.extend_from_slice(name);
        write::integer(out, sum);
    }
    Some(())
}

/// What DEBUG DIGEST says of an empty node: nothing is mixed in.
const OF_NOTHING: [u8; 20] = [0; 20];
/// What it says of database 0 before any key: the SHA-1 of the SHA-1 of the database's number.
const OF_DATABASE_0: [u8; 20] = [
    0xaa, 0x30, 0x98, 0xf3, 0xaa, 0xe9, 0x4b, 0xaa, 0xc1, 0x4e, 0x3b, 0x8b, 0x8d, 0xca, 0xe9, 0x89, 0xaf, 0x93, 0xf6,
    0xa2,
];

/// DEBUG DIGEST of all keys. Each key's own digest is mixed in by exclusive or, so that parts can be put together, where
/// only the database's own part must not be mixed in more than once.
pub fn digest(replies: &[Vec<u8>], out: &mut Vec<u8>) -> Option<()> {
    let mut whole = OF_NOTHING;
    let mix = |whole: &mut [u8; 20], part: &[u8; 20]| whole.iter_mut().zip(part).for_each(|(all, one)| *all ^= one);
    for reply in replies {
        let text = reply.strip_prefix(b"+")?.strip_suffix(b"\r\n")?;
        let mut part = OF_NOTHING;
        for (byte, digits) in part.iter_mut().zip(text.chunks_exact(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        }
        if part != OF_NOTHING {
            mix(&mut whole, &part);
            mix(&mut whole, &OF_DATABASE_0);
        }
    }
    if whole != OF_NOTHING {
        mix(&mut whole, &OF_DATABASE_0);
    }
    let text: String = whole.iter().map(|byte| format!("{byte:02x}")).collect();
    write::simple(out, &text);
    Some(())
}

/// A number that nobody foresees, good enough to choose a key by.
pub fn chance() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0u8)
}
