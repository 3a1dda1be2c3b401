//! What is about a whole database: a script at the node that has its slot. So long as the slot is half moved, no node runs
//! it: its keys are at two.

use std::sync::LazyLock;

use super::{Database, Entered, prologue};
use crate::protocol::resp::{Request, request::RequestWriter, write};

/// The script, without comments and line ends.
static SCRIPT: LazyLock<String> = LazyLock::new(|| prologue::compact(include_str!("whole.lua")));

/// Whether a text, or as much of it as servers tell, is the script.
pub(super) fn is_script(text: &[u8]) -> bool {
    const TOLD: usize = 64;
    text.len() >= TOLD && text[..TOLD] == SCRIPT.as_bytes()[..TOLD]
}

/// The command that the script is, by its arguments.
pub(super) fn said<'a>(mut args: impl Iterator<Item = &'a [u8]>) -> Option<Vec<Vec<u8>>> {
    let (what, mut behind) = (args.next()?, args.skip(2));
    let words: Vec<&[u8]> = match what {
        b"keys" => vec![b"KEYS", behind.next()?],
        b"count" => vec![b"DBSIZE"],
        b"random" => vec![b"RANDOMKEY"],
        b"flush" => vec![b"FLUSHDB"],
        b"scan" => vec![b"SCAN", behind.next()?],
        b"keyspace" => vec![b"INFO", b"keyspace"],
        _ => return None,
    };
    Some(words.into_iter().map(<[u8]>::to_vec).collect())
}

/// What the script is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whole<'a> {
    /// KEYS with this pattern.
    Keys(&'a [u8]),
    /// DBSIZE.
    Count,
    /// RANDOMKEY.
    Random,
    /// FLUSHDB.
    Flush,
}

impl Database {
    /// The script is to run, which is written into `anew`.
    pub(super) fn ask_whole(&self, what: Whole, writer: &mut RequestWriter) -> Entered {
        let name: &[u8] = if what == Whole::Flush { b"EVAL" } else { b"EVAL_RO" };
        let (word, behind): (&[u8], Vec<Vec<u8>>) = match what {
            Whole::Keys(pattern) => (b"keys", vec![pattern.to_vec(), [&self.pattern, pattern].concat()]),
            Whole::Count => (b"count", Vec::new()),
            Whole::Random => (b"random", Vec::new()),
            Whole::Flush => (b"flush", Vec::new()),
        };
        let guards: Vec<&[u8]> = self.guards.iter().map(|guard| &**guard).collect();
        let behind: Vec<&[u8]> = behind.iter().map(Vec::as_slice).collect();
        write_request(&self.frame_args(name, &guards, word, &behind), writer);
        Entered::Rewritten
    }

    /// The frame that empties the database.
    pub fn flush_frame(&self) -> Vec<u8> {
        self.whole_frame(b"EVAL", b"flush")
    }

    /// The frame that asks for three numbers: of the database's keys, of those that expire, and of the milliseconds that these
    /// have left on the average.
    pub fn keyspace_frame(&self) -> Vec<u8> {
        self.whole_frame(b"EVAL_RO", b"keyspace")
    }

    fn whole_frame(&self, name: &[u8], what: &[u8]) -> Vec<u8> {
        let guards: Vec<&[u8]> = self.guards.iter().map(|guard| &**guard).collect();
        let mut frame = Vec::new();
        write::request(&mut frame, &self.frame_args(name, &guards, what, &[]));
        frame
    }

    /// SCAN within a transaction: all that is left of a scan comes at once.
    pub(super) fn scan_at_once(&self, scan: &Request, writer: &mut RequestWriter) -> Entered {
        let guards: Vec<&[u8]> = self.guards.iter().map(|guard| &**guard).collect();
        let options = self.scan_options(scan);
        let mut behind = vec![scan.arg(1), b"1", &self.pattern];
        behind.extend(options.iter().map(Vec::as_slice));
        write_request(&self.frame_args(b"EVAL_RO", &guards, b"scan", &behind), writer);
        Entered::Rewritten
    }

    /// The frame by which a node is asked for a page of the database's keys: `scan` is a SCAN that has entered it, `cursor` the
    /// node's own.
    pub fn page(&self, scan: &Request, cursor: u64) -> Vec<u8> {
        let cursor = cursor.to_string();
        let mut behind = vec![cursor.as_bytes(), b"0", &self.pattern];
        behind.extend(scan.args().skip(2));
        let mut frame = Vec::new();
        write::request(&mut frame, &self.frame_args(b"EVAL_RO", &[], b"scan", &behind));
        frame
    }

    /// The last MATCH counts: the one that keeps to the database stands before those of the client.
    pub(super) fn scan_options(&self, scan: &Request) -> Vec<Vec<u8>> {
        let mut options = vec![b"MATCH".to_vec(), [&*self.pattern, b"*"].concat()];
        for at in (2..scan.len()).step_by(2) {
            options.push(scan.arg(at).to_vec());
            if let Some(value) = scan.get(at + 1) {
                let before = if scan.is(at, "MATCH") { &*self.pattern } else { b"" };
                options.push([before, value].concat());
            }
        }
        options
    }

    fn frame_args<'a>(
        &'a self,
        name: &'a [u8],
        keys: &[&'a [u8]],
        what: &'a [u8],
        behind: &[&'a [u8]],
    ) -> Vec<std::borrow::Cow<'a, [u8]>> {
        let mut args = vec![name.into(), SCRIPT.as_bytes().into(), keys.len().to_string().into_bytes().into()];
        args.extend(keys.iter().map(|&key| key.into()));
        args.extend([what.into(), self.slot.to_string().into_bytes().into(), (&*self.prefix).into()]);
        args.extend(behind.iter().map(|&arg| arg.into()));
        args
    }
}

fn write_request<T: AsRef<[u8]>>(args: &[T], writer: &mut RequestWriter) {
    writer.begin(args.len());
    args.iter().for_each(|arg| writer.push(&[arg.as_ref()]));
}
