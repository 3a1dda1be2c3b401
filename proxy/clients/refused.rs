//! What a user of the proxy's own was refused by its rules, for ACL LOG.

use std::{
    collections::VecDeque,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use crate::metrics::readable::unix_time;

/// How many entries are kept; the oldest go.
const MOST: usize = 128;
/// How long what is refused again counts as one entry, as by servers.
const TOGETHER: Duration = Duration::from_secs(60);
/// The longest object that is kept of.
const LONGEST: usize = 1024;

/// The newest first.
#[derive(Debug, Default)]
pub struct RefusedLog(Mutex<VecDeque<Entry>>);

/// What was refused once, or again and again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its number, of all entries of the proxy.
    pub id: u64,
    /// How often.
    pub count: u64,
    /// What is missing.
    pub what: Refused,
    /// The client that asked last, as CLIENT LIST has it.
    pub client: Vec<u8>,
    /// When it was first, and last, in milliseconds since 1970.
    pub times: [u64; 2],
}

/// What was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// `command`, `key` or `channel`.
    pub reason: &'static str,
    /// `toplevel`, or `multi`.
    pub context: &'static str,
    /// Its name.
    pub object: Vec<u8>,
}

impl RefusedLog {
    /// Takes note of what was refused.
    pub fn note(&self, mut what: Refused, client: Vec<u8>) {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        what.object.truncate(LONGEST);
        let now = now();
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_it =
            |entry: &Entry| entry.what == what && now.saturating_sub(entry.times[1]) <= TOGETHER.as_millis() as u64;
        let entry = match entries.iter().position(is_it).and_then(|at| entries.remove(at)) {
            Some(entry) => Entry { count: entry.count + 1, client, times: [entry.times[0], now], ..entry },
            None => Entry { id: NEXT.fetch_add(1, Relaxed), count: 1, what, client, times: [now; 2] },
        };
        entries.push_front(entry);
        entries.truncate(MOST);
    }

    /// The newest entries, so many at most.
    pub fn newest(&self, most: usize) -> Vec<Entry> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().take(most).cloned().collect()
    }

    /// Forgets all.
    pub fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// Milliseconds since 1970.
pub fn now() -> u64 {
    unix_time(SystemTime::now()).as_millis() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_again_is_one_entry_and_few_are_kept() {
        let log = RefusedLog::default();
        let key = |name: usize| Refused { reason: "key", context: "toplevel", object: name.to_string().into_bytes() };
        for name in [1, 2, 1] {
            log.note(key(name), name.to_string().into_bytes());
        }
        let entries = log.newest(10);
        assert_eq!(
            entries.iter().map(|entry| (&entry.what.object[..], entry.count)).collect::<Vec<_>>(),
            [(&b"1"[..], 2), (b"2", 1)]
        );
        assert!(entries[0].id < entries[1].id);
        (0..300).for_each(|name| log.note(key(name), Vec::new()));
        assert_eq!((log.newest(1).len(), log.newest(1000).len()), (1, MOST));
        log.clear();
        assert!(log.newest(10).is_empty());
    }
}
