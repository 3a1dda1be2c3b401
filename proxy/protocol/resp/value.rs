//! A reply as a tree, for the control plane (`COMMAND`, `CLUSTER SLOTS`, `HELLO`): never on the path of a request.

use bytes::Bytes;

/// How deep a reply may nest before it is called malformed: real replies stay below ten.
const DEEPEST: usize = 32;

/// A reply of RESP2 or RESP3. Sets, pushes and maps (as alternating keys and values) are arrays here.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `$-1`, `*-1` or `_`.
    Null,
    /// `:n`, or a boolean as 0 and 1.
    Integer(i64),
    /// A bulk string, simple string, verbatim string, double or big number: its text.
    Text(Bytes),
    /// An error, without its `-`.
    Error(Bytes),
    /// An array, set, push, or a map as alternating keys and values.
    Array(Vec<Value>),
}

/// Why bytes are not a reply.
#[derive(Debug, PartialEq, Eq)]
pub struct Malformed;

impl Value {
    /// The value at the front of `bytes`, and how many bytes it takes; `None` where more bytes are needed.
    pub fn parse(bytes: &[u8]) -> Result<Option<(Value, usize)>, Malformed> {
        let mut at = 0;
        Ok(parse_one(bytes, &mut at, 0)?.map(|value| (value, at)))
    }

    /// The elements of an array; none for anything else.
    pub fn items(&self) -> &[Value] {
        match self {
            Value::Array(items) => items,
            _ => &[],
        }
    }

    /// The bytes of a text.
    pub fn text(&self) -> Option<&[u8]> {
        match self {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The text as UTF-8.
    pub fn str(&self) -> Option<&str> {
        std::str::from_utf8(self.text()?).ok()
    }

    /// The integer, also where it came as text.
    pub fn integer(&self) -> Option<i64> {
        match self {
            Value::Integer(number) => Some(*number),
            _ => self.str()?.parse().ok(),
        }
    }

    /// The value that follows `key` in an array of alternating keys and values.
    pub fn field(&self, key: &str) -> Option<&Value> {
        let mut pairs = self.items().chunks_exact(2);
        pairs.find(|pair| pair[0].text() == Some(key.as_bytes())).map(|pair| &pair[1])
    }
}

fn line<'a>(bytes: &'a [u8], at: &mut usize) -> Option<&'a [u8]> {
    let rest = bytes.get(*at..)?;
    let end = rest.windows(2).position(|pair| pair == b"\r\n")?;
    *at += end + 2;
    Some(&rest[..end])
}

fn number(text: &[u8]) -> Result<i64, Malformed> {
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).ok_or(Malformed)
}

fn parse_one(bytes: &[u8], at: &mut usize, depth: usize) -> Result<Option<Value>, Malformed> {
    if depth > DEEPEST {
        return Err(Malformed);
    }
    let Some(head) = line(bytes, at) else { return Ok(None) };
    let (&kind, rest) = head.split_first().ok_or(Malformed)?;
    Ok(Some(match kind {
        b'+' | b',' | b'(' => Value::Text(Bytes::copy_from_slice(rest)),
        b'-' => Value::Error(Bytes::copy_from_slice(rest)),
        b':' => Value::Integer(number(rest)?),
        b'_' => Value::Null,
        b'#' => Value::Integer(i64::from(rest == b"t")),
        b'$' | b'=' | b'!' => {
            let Ok(length) = usize::try_from(number(rest)?) else { return Ok(Some(Value::Null)) };
            let Some(text) = bytes.get(*at..).and_then(|rest| rest.get(..length + 2)) else { return Ok(None) };
            *at += length + 2;
            match kind {
                b'=' => Value::Text(Bytes::copy_from_slice(text.get(4..length).ok_or(Malformed)?)),
                b'!' => Value::Error(Bytes::copy_from_slice(&text[..length])),
                _ => Value::Text(Bytes::copy_from_slice(&text[..length])),
            }
        }
        b'*' | b'%' | b'~' | b'>' | b'|' => {
            let count = match usize::try_from(number(rest)?) {
                Ok(count) => count,
                Err(_) if kind == b'|' => return Err(Malformed),
                Err(_) => return Ok(Some(Value::Null)),
            };
            let count = if matches!(kind, b'%' | b'|') { count.checked_mul(2).ok_or(Malformed)? } else { count };
            let mut items = Vec::new();
            for _ in 0..count {
                match parse_one(bytes, at, depth + 1)? {
                    Some(item) => items.push(item),
                    None => return Ok(None),
                }
            }
            if kind == b'|' {
                // An attribute annotates the value that follows it; one upon the other, they nest as arrays do.
                return parse_one(bytes, at, depth + 1);
            }
            Value::Array(items)
        }
        _ => return Err(Malformed),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trees() {
        let bytes = b"%1\r\n$4\r\nmode\r\n*3\r\n:7\r\n_\r\n=6\r\ntxt:ok\r\nrest";
        let (value, used) = Value::parse(bytes).unwrap().unwrap();
        assert_eq!(used, bytes.len() - 4);
        let list = value.field("mode").unwrap();
        assert_eq!(list.items()[0].integer(), Some(7));
        assert_eq!(list.items()[1], Value::Null);
        assert_eq!(list.items()[2].str(), Some("ok"));
        for cut in 0..used {
            assert_eq!(Value::parse(&bytes[..cut]), Ok(None), "cut at {cut}");
        }
        assert_eq!(Value::parse(b"?\r\n"), Err(Malformed));
        assert_eq!(Value::parse(b"|-1\r\n+a\r\n"), Err(Malformed), "no server annotates without pairs");
        for head in ["*1\r\n", "|0\r\n"] {
            assert_eq!(Value::parse(head.repeat(40).as_bytes()), Err(Malformed), "{head}");
        }
    }
}
