//! Replies on their way out of a database: keys in them are named as the client knows them, piece by piece as they come.

mod rewritten;

use std::{rc::Rc, sync::Arc};

use self::rewritten::{LogView, rewritten, takes_all};
use super::{Database, WrappedScripts, enter::entries_wanted};
use crate::{
    commands::{scripts::Sha, table::in_database::ReplyKeys},
    protocol::{
        resp::{Request, reply::Scanner, write},
        says,
    },
};

/// One reply, or as much of it as has come.
#[derive(Debug)]
pub struct Strip {
    database: Arc<Database>,
    scripts: Rc<WrappedScripts>,
    /// The script that runs as a whole for the first time.
    proves: Option<Sha>,
    /// What the whole reply tells.
    reply_keys: ReplyKeys,
    /// What of a log is told.
    log: LogView,
    /// What each element of a transaction's reply tells.
    replies: Vec<ReplyKeys>,
    /// The aggregates that have begun and not ended.
    open: Vec<Aggregate>,
    at: At,
    /// The beginning of a line, or of a key, whose end has not come.
    held: Vec<u8>,
}

#[derive(Debug)]
struct Aggregate {
    kind: u8,
    reply_keys: ReplyKeys,
    /// How many elements are still to come, and have come.
    left: u64,
    index: usize,
}

/// What comes next.
#[derive(Debug)]
enum At {
    /// A frame's first line.
    Line,
    /// So many bytes of a string, its line end included.
    Text(usize),
    /// A key of so many bytes.
    Key(usize),
    /// A script's digest.
    Digest,
    /// A frame that is told once all of it has come.
    All(Scanner, ReplyKeys),
}

/// How long a script's digest is.
const DIGEST: usize = 40;

impl Strip {
    /// For a reply that tells this; `None` where that is nothing.
    pub fn new(database: &Arc<Database>, scripts: &Rc<WrappedScripts>, reply_keys: ReplyKeys) -> Option<Box<Strip>> {
        let (database, scripts, held) = (database.clone(), scripts.clone(), Vec::new());
        let strip = Strip {
            database,
            scripts,
            proves: None,
            reply_keys,
            log: LogView { most: usize::MAX, with_keyless: false },
            replies: Vec::new(),
            open: Vec::new(),
            at: At::Line,
            held,
        };
        let is_of_channels = reply_keys == ReplyKeys::ChannelPairs;
        let is_as_it_is = reply_keys == ReplyKeys::Nothing || is_of_channels && strip.database.channels.is_none();
        (!is_as_it_is).then(|| Box::new(strip))
    }

    /// For the reply to EXEC, whose elements tell this; `None` where none tells anything.
    pub fn of_all(
        database: &Arc<Database>,
        scripts: &Rc<WrappedScripts>,
        replies: Vec<ReplyKeys>,
    ) -> Option<Box<Strip>> {
        let reply_keys = if replies.iter().all(|&reply_keys| reply_keys == ReplyKeys::Nothing) {
            ReplyKeys::Nothing
        } else {
            ReplyKeys::Replies
        };
        let mut strip = Strip::new(database, scripts, reply_keys)?;
        strip.replies = replies;
        Some(strip)
    }

    /// Unless the reply is an error, this script runs.
    pub fn proves(&mut self, script: Sha) {
        self.proves = Some(script);
    }

    /// The reply is to this.
    pub fn is_of(&mut self, request: &Request) {
        if takes_all(self.reply_keys) {
            self.log.most = entries_wanted(request).unwrap_or(usize::MAX);
        }
    }

    /// A log is told with what names no keys.
    pub fn tells_keyless(&mut self) {
        self.log.with_keyless = true;
    }

    /// What the client is given of the next piece.
    pub fn feed(&mut self, mut bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len() + self.held.len());
        while !bytes.is_empty() {
            if matches!(self.at, At::Line) && self.held.is_empty() && takes_all(self.next_reply_keys()) {
                self.at = At::All(Scanner::default(), self.next_reply_keys());
            }
            match &mut self.at {
                At::All(scanner, reply_keys) => {
                    let (reply_keys, before) = (*reply_keys, self.held.len());
                    self.held.extend_from_slice(bytes);
                    match scanner.find(&self.held) {
                        Ok(None) => break,
                        Ok(Some(end)) => {
                            let frame = std::mem::take(&mut self.held);
                            bytes = &bytes[end - before..];
                            out.extend(rewritten(&self.database, &self.scripts, (reply_keys, self.log), &frame[..end]));
                            self.ended();
                        }
                        // Nobody can tell where it ends: it ends here.
                        Err(_) => return out,
                    }
                }
                At::Line => {
                    let Some(end) = bytes.iter().position(|&byte| byte == b'\n') else {
                        self.held.extend_from_slice(bytes);
                        break;
                    };
                    let (line, rest) = bytes.split_at(end + 1);
                    bytes = rest;
                    if self.held.is_empty() {
                        self.line(line, &mut out);
                    } else {
                        self.held.extend_from_slice(line);
                        let line = std::mem::take(&mut self.held);
                        self.line(&line, &mut out);
                    }
                }
                At::Text(left) => {
                    let left = *left;
                    let (text, rest) = bytes.split_at(left.min(bytes.len()));
                    out.extend_from_slice(text);
                    bytes = rest;
                    self.at = At::Text(left - text.len());
                    if left == text.len() {
                        self.ended();
                    }
                }
                At::Digest => {
                    let (front, rest) = bytes.split_at((DIGEST - self.held.len()).min(bytes.len()));
                    self.held.extend_from_slice(front);
                    bytes = rest;
                    if self.held.len() == DIGEST {
                        out.extend(self.scripts.as_said(&std::mem::take(&mut self.held)));
                        self.at = At::Text(2);
                    }
                }
                At::Key(length) => {
                    let length = *length;
                    let prefix = self.database.prefix().len();
                    let (front, rest) = bytes.split_at((prefix - self.held.len()).min(bytes.len()));
                    self.held.extend_from_slice(front);
                    bytes = rest;
                    if self.held.len() == prefix {
                        self.key(length, &mut out);
                    }
                }
            }
        }
        out
    }

    /// The first line of a frame, its end included.
    fn line(&mut self, line: &[u8], out: &mut Vec<u8>) {
        let reply_keys = self.next_reply_keys();
        let (kind, number) = (line.first().copied().unwrap_or_default(), number(line));
        if let Some(script) = self.proves.take().filter(|_| kind != b'-') {
            self.scripts.prove(&script);
        }
        match (kind, number) {
            (b'$', Some(length)) if reply_keys == ReplyKeys::Key && length >= self.database.prefix().len() => {
                self.at = At::Key(length);
                return;
            }
            (b'-', _)
                if line.starts_with(b"-TRYAGAIN Multiple keys request")
                    && matches!(reply_keys, ReplyKeys::Script | ReplyKeys::Whole | ReplyKeys::Page) =>
            {
                out.extend_from_slice(&write::error_frame(says::half_moved(
                    self.database.name(),
                    self.database.slot(),
                )));
            }
            (b'-', _) if matches!(reply_keys, ReplyKeys::Script | ReplyKeys::Digest) => {
                out.extend(self.scripts.as_said(line))
            }
            (b'$', Some(DIGEST)) if reply_keys == ReplyKeys::Digest => {
                out.extend_from_slice(line);
                self.at = At::Digest;
                return;
            }
            (b'-', _) if matches!(reply_keys, ReplyKeys::Whole | ReplyKeys::Page) => out.extend(of_own_script(line)),
            (b'-', _) if matches!(reply_keys, ReplyKeys::Group | ReplyKeys::Streams) => out.extend(self.error(line)),
            _ => out.extend_from_slice(line),
        }
        match (kind, number) {
            (b'$' | b'=' | b'!', Some(length)) => self.at = At::Text(length + 2),
            (b'*' | b'~' | b'>' | b'%' | b'|', Some(count)) if count > 0 => {
                let left = count as u64 * if matches!(kind, b'%' | b'|') { 2 } else { 1 };
                let reply_keys = if kind == b'|' { ReplyKeys::Nothing } else { reply_keys };
                self.open.push(Aggregate { kind, reply_keys, left, index: 0 });
            }
            _ => self.ended(),
        }
    }

    /// What the frame that comes next tells.
    fn next_reply_keys(&self) -> ReplyKeys {
        let Some(within) = self.open.last() else { return self.reply_keys };
        match (within.reply_keys, within.index) {
            (ReplyKeys::Each, _) | (ReplyKeys::First, 0) => ReplyKeys::Key,
            (ReplyKeys::Pairs, index) if index % 2 == 0 => ReplyKeys::Key,
            (ReplyKeys::Page, 1) => ReplyKeys::Each,
            (ReplyKeys::Streams, index) if within.kind == b'%' && index % 2 == 0 => ReplyKeys::Key,
            (ReplyKeys::Streams, _) if within.kind != b'%' => ReplyKeys::First,
            (ReplyKeys::Replies, index) => self.replies.get(index).copied().unwrap_or_default(),
            _ => ReplyKeys::Nothing,
        }
    }

    /// A key of so many bytes, as many of which are held as a prefix has.
    fn key(&mut self, length: usize, out: &mut Vec<u8>) {
        let front = std::mem::take(&mut self.held);
        let kept = if self.database.own(&front).is_some() { length - front.len() } else { length };
        write::head(out, b'$', kept as i64);
        if kept == length {
            out.extend_from_slice(&front);
        }
        self.at = At::Text(length - front.len() + 2);
    }

    /// A frame has ended.
    fn ended(&mut self) {
        self.at = At::Line;
        while let Some(within) = self.open.last_mut() {
            within.left -= 1;
            within.index += 1;
            if within.left > 0 {
                return;
            }
            if self.open.pop().is_some_and(|ended| ended.kind == b'|') {
                // It annotates the frame behind it, which is to come.
                return;
            }
        }
    }

    /// An error, with the key in it as the client knows it.
    fn error(&self, line: &[u8]) -> Vec<u8> {
        const NO_KEY: &[u8] = b"-NOGROUP No such key '";
        const NO_GROUP: &[u8] = b"-NOGROUP No such consumer group '";
        const FOR_KEY: &[u8] = b"' for key name '";
        let prefix = self.database.prefix();
        let at = if line.starts_with(NO_KEY) {
            Some(NO_KEY.len())
        } else if line.starts_with(NO_GROUP) {
            let mut places = line.windows(FOR_KEY.len() + prefix.len());
            places.rposition(|part| part.ends_with(prefix) && part.starts_with(FOR_KEY)).map(|at| at + FOR_KEY.len())
        } else {
            None
        };
        match at.and_then(|at| line.split_at_checked(at)) {
            Some((before, key)) => [before, key.strip_prefix(prefix).unwrap_or(key)].concat(),
            None => line.to_vec(),
        }
    }
}

/// An error of a script that the proxy has made of a command: the client has not sent one.
fn of_own_script(error: &[u8]) -> Vec<u8> {
    let place = |text: &[u8]| error.windows(text.len()).position(|part| part == text);
    if error.starts_with(b"-NOPERM") || place(b"The user executing the script").is_some() {
        return write::error_frame(says::TAKES_SCRIPTS).to_vec();
    }
    match place(b" script: ") {
        Some(end) => [&error[..end], b"\r\n"].concat(),
        None => error.to_vec(),
    }
}

/// The number in a frame's first line, where it is one that is not negative.
fn number(line: &[u8]) -> Option<usize> {
    std::str::from_utf8(line.get(1..)?.strip_suffix(b"\r\n")?).ok()?.parse().ok()
}
