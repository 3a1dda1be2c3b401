//! A line of MONITOR, written as a server writes it, and read.

use std::{io::Write, ops::Range, sync::atomic::Ordering::Relaxed, time::SystemTime};

use crate::{
    clients::Client,
    commands::table::{CommandTable, Spec},
    metrics::readable::unix_time,
};

/// A command of `client`. Where the line would have more than `most` bytes, it is cut: nobody can be shown it anyway.
pub(super) fn line(client: &Client, words: &[Vec<u8>], secrets: &[Range<usize>], most: usize) -> Vec<u8> {
    let now = unix_time(SystemTime::now());
    let (seconds, micros) = (now.as_secs(), now.subsec_micros());
    let (database, peer) = (client.database.load(Relaxed), client.peer().in_monitor());
    let mut line = format!("+{seconds}.{micros:06} [{database} {peer}]").into_bytes();
    for (at, arg) in words.iter().enumerate() {
        line.push(b' ');
        let shown = if secrets.iter().any(|secret| secret.contains(&at)) { b"(redacted)" } else { arg.as_slice() };
        quote(&mut line, shown, most);
    }
    line.extend_from_slice(b"\r\n");
    line
}

/// Appends a text in quotes, what cannot be printed escaped (`sdscatrepr`).
fn quote(out: &mut Vec<u8>, text: &[u8], most: usize) {
    out.push(b'"');
    for &byte in text {
        if most > 0 && out.len() > most {
            break;
        }
        match byte {
            b'\\' | b'"' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            7 => out.extend_from_slice(b"\\a"),
            8 => out.extend_from_slice(b"\\b"),
            b' '..=b'~' => out.push(byte),
            // Writing to a Vec cannot fail.
            _ => drop(write!(out, "\\x{byte:02x}")),
        }
    }
    out.push(b'"');
}

/// What a node tells in a line.
pub(super) struct MonitorLine<'a> {
    /// When, as it stands in front of the rest.
    time: &'a str,
    /// In which database.
    number: &'a str,
    /// By which address it knows who said it; `lua` for what a script calls.
    pub address: &'a str,
    /// The quoted words.
    words: &'a [u8],
}

impl<'a> MonitorLine<'a> {
    /// `None` for what is no such line.
    pub fn of(line: &'a [u8]) -> Option<MonitorLine<'a>> {
        let from = line.windows(2).position(|part| part == b" [")? + 2;
        let end = from + line.get(from..)?.windows(3).position(|part| part == b"] \"")?;
        let (number, address) = std::str::from_utf8(line.get(from..end)?).ok()?.split_once(' ')?;
        let time = std::str::from_utf8(&line[..from - 1]).ok()?;
        Some(MonitorLine { time, number, address, words: line.get(end + 2..)? })
    }

    /// The address without its port.
    pub fn host(&self) -> &'a str {
        self.address.rsplit_once(':').map_or(self.address, |(host, _)| host)
    }

    pub fn is_of_a_script(&self) -> bool {
        self.address == "lua"
    }

    /// The words, unquoted.
    pub fn unquoted(&self) -> Vec<Vec<u8>> {
        let (mut words, mut rest) = (Vec::new(), self.words);
        while let Some(begun) = rest.iter().position(|&byte| byte == b'"') {
            let (mut word, mut at) = (Vec::new(), begun + 1);
            loop {
                match rest.get(at..) {
                    None | Some([] | [b'"', ..]) => break,
                    Some([b'\\', b'x', high, low, ..]) => {
                        let digits = [*high, *low];
                        let byte = std::str::from_utf8(&digits).ok().and_then(|hex| u8::from_str_radix(hex, 16).ok());
                        word.push(byte.unwrap_or_default());
                        at += 4;
                    }
                    Some([b'\\', escaped, ..]) => {
                        word.push(match escaped {
                            b'n' => b'\n',
                            b'r' => b'\r',
                            b't' => b'\t',
                            b'a' => 7,
                            b'b' => 8,
                            other => *other,
                        });
                        at += 2;
                    }
                    Some([byte, ..]) => {
                        word.push(*byte);
                        at += 1;
                    }
                }
            }
            words.push(word);
            rest = rest.get(at + 1..).unwrap_or_default();
        }
        words
    }

    /// The line with other words, and another number for the database if there is one.
    pub fn rewritten(&self, number: Option<u32>, words: &[Vec<u8>]) -> Vec<u8> {
        let number = number.map_or_else(|| self.number.to_owned(), |number| number.to_string());
        let mut line = format!("{}[{number} {}]", self.time, self.address).into_bytes();
        for word in words {
            line.push(b' ');
            quote(&mut line, word, 0);
        }
        line.extend_from_slice(b"\r\n");
        line
    }

    /// Whether it is HELLO with this name.
    pub fn says(&self, name: &str) -> bool {
        self.words.starts_with(b"\"HELLO\" ") && self.nth(3) == Some(name.as_bytes())
    }

    /// The row of the command.
    pub fn command<'t>(&self, commands: &'t CommandTable) -> Option<&'t Spec> {
        let name = self.nth(0)?;
        let spec = commands.named(name, b"")?;
        let sub = self.nth(1).filter(|_| spec.container);
        sub.and_then(|sub| commands.named(name, sub)).or(Some(spec))
    }

    /// A word, where none up to it has a quote in it.
    fn nth(&self, at: usize) -> Option<&'a [u8]> {
        self.words.split(|&byte| byte == b'"').skip(1).step_by(2).nth(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_printed_is_escaped() {
        let mut out = Vec::new();
        quote(&mut out, b"a \"\\\n\r\t\x07\x08\x00\x7f\xff~", 0);
        assert_eq!(out, br#""a \"\\\n\r\t\a\b\x00\x7f\xff~""#);
        let mut out = Vec::new();
        quote(&mut out, &[b'a'; 100], 10);
        assert!(out.len() < 20);
    }

    #[test]
    fn lines_of_nodes_tell_who_did_what() {
        let table = CommandTable::builtin();
        for (line, address, host, row) in [
            ("+1.2 [0 127.0.0.1:80] \"GET\" \"a] \\\"b\"\r\n", "127.0.0.1:80", "127.0.0.1", Some("get")),
            ("+1.2 [15 [::1]:80] \"cluster\" \"MyId\"\r\n", "[::1]:80", "[::1]", Some("cluster|myid")),
            ("+1.2 [0 lua] \"set\" \"a\" \"1\"\r\n", "lua", "lua", Some("set")),
            ("+1.2 [0 unix:/a b] \"NOSUCH\"\r\n", "unix:/a b", "unix", None),
        ] {
            let told = MonitorLine::of(line.as_bytes()).expect(line);
            let found = told.command(&table).map(|spec| &*spec.name);
            assert_eq!((told.address, told.host(), found), (address, host, row), "{line}");
        }
        assert!(MonitorLine::of(b"+OK\r\n").is_none());
        let told = MonitorLine::of(b"+1.2 [0 127.0.0.1:80] \"HELLO\" \"2\" \"SETNAME\" \"me\"\r\n").expect("a line");
        assert!(told.says("me") && !told.says("m"));
    }
}
