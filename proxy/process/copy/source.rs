//! The keys that are copied, as SCAN finds them: some at a time, as many as memory has room for.

use std::collections::VecDeque;

use bytes::Bytes;

use super::server::{Server, writes};
use crate::protocol::resp::Value;

/// Keys that one SCAN is to find.
const PAGE: usize = 512;
/// Keys that are carried at a time, at most and at first.
const MOST: usize = 256;
const FIRST: usize = 32;
/// Bytes that are carried at a time, about: no more keys are asked for than had room in it so far.
const ROOM: usize = 16 * 1024 * 1024;

/// The server that is copied from.
pub(super) struct Source<'a> {
    server: &'a mut Server,
    cursor: Bytes,
    /// SCAN has come to its end.
    is_over: bool,
    found: VecDeque<Bytes>,
    /// How many keys are carried at a time.
    portion: usize,
    tells_when: bool,
    gone: u64,
}

/// A key and what it holds.
pub(super) struct Entry {
    pub key: Bytes,
    pub dump: Bytes,
    pub expiry: Expiry,
}

/// When a key expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expiry {
    Never,
    /// Then, in milliseconds since 1970.
    At(u64),
    /// In so many milliseconds: before Redis 7.0, servers do not tell more.
    In(u64),
}

impl Expiry {
    /// What a server says, by PEXPIRETIME or by PTTL; `None` where the key is gone.
    pub fn of(said: &Value, tells_when: bool) -> Option<Expiry> {
        match said.integer()? {
            -1 => Some(Expiry::Never),
            time => {
                let time = u64::try_from(time).ok()?;
                // 0 would be for ever.
                Some(if tells_when { Expiry::At(time.max(1)) } else { Expiry::In(time.max(1)) })
            }
        }
    }

    /// As RESTORE has it.
    pub fn millis(self) -> u64 {
        match self {
            Expiry::Never => 0,
            Expiry::At(time) | Expiry::In(time) => time,
        }
    }

    /// Whether it is a point in time.
    pub fn is_absolute(self) -> bool {
        matches!(self, Expiry::At(_))
    }
}

impl<'a> Source<'a> {
    pub async fn new(server: &'a mut Server) -> Result<Source<'a>, String> {
        let tells_when = server.ask(&["PEXPIRETIME", "slotway"]).await?.integer().is_some();
        let cursor = Bytes::from_static(b"0");
        Ok(Source { server, cursor, is_over: false, found: VecDeque::new(), portion: FIRST, tells_when, gone: 0 })
    }

    /// Whether the server says when keys expire, and not just in how long.
    pub fn tells_when(&self) -> bool {
        self.tells_when
    }

    /// The server itself.
    pub fn server(&mut self) -> &mut Server {
        self.server
    }

    /// Keys that have gone since they were found.
    pub fn take_gone(&mut self) -> u64 {
        std::mem::take(&mut self.gone)
    }

    /// The next keys, and what they hold; `None` where there are no more. SCAN may find a key twice.
    pub async fn next(&mut self) -> Result<Option<VecDeque<Entry>>, String> {
        loop {
            let Some(keys) = self.next_keys().await? else { return Ok(None) };
            let mut frames = Vec::new();
            for key in &keys {
                writes(&mut frames, &[&b"DUMP"[..], key]);
                let ask = if self.tells_when { &b"PEXPIRETIME"[..] } else { b"PTTL" };
                writes(&mut frames, &[ask, key]);
            }
            let said = self.server.ask_all(&frames, keys.len() * 2).await?;
            let mut entries = VecDeque::new();
            for (key, said) in keys.into_iter().zip(said.chunks_exact(2)) {
                match (&said[0], Expiry::of(&said[1], self.tells_when)) {
                    (Value::Text(dump), Some(expiry)) => {
                        entries.push_back(Entry { key, dump: dump.clone(), expiry });
                    }
                    (error @ Value::Error(_), _) => return Err(self.server.odd("DUMP", error)),
                    _ => self.gone += 1,
                }
            }
            let largest = entries.iter().map(|entry| entry.dump.len()).max().unwrap_or_default();
            self.portion = (ROOM / largest.max(1)).clamp(1, (self.portion * 2).min(MOST));
            if !entries.is_empty() {
                return Ok(Some(entries));
            }
        }
    }

    /// The next keys alone.
    pub async fn next_keys(&mut self) -> Result<Option<Vec<Bytes>>, String> {
        while self.found.is_empty() {
            if self.is_over {
                return Ok(None);
            }
            let page = self.server.ask(&[&b"SCAN"[..], &self.cursor, b"COUNT", PAGE.to_string().as_bytes()]).await?;
            let [Value::Text(cursor), keys] = page.items() else { return Err(self.server.odd("SCAN", &page)) };
            self.is_over = **cursor == *b"0";
            self.cursor = cursor.clone();
            self.found.extend(keys.items().iter().filter_map(|key| match key {
                Value::Text(key) => Some(key.clone()),
                _ => None,
            }));
        }
        let count = self.portion.min(self.found.len());
        Ok(Some(self.found.drain(..count).collect()))
    }
}
