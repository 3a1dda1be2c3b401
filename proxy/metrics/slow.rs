//! Requests that took long, with where the time went: what SLOWLOG of one server is, for all nodes and with the way to them.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use bytes::Bytes;

use super::{RequestClass, lock, spans::Span};
use crate::protocol::{resp::request::Parser, slot::Slot};

/// How many are remembered (`slowlog-max-len`).
const MOST_KEPT: usize = 128;

/// A request that took long.
#[derive(Clone, Debug)]
pub struct Slow {
    /// Grows from one to the next, from 0; given by the log.
    pub id: u64,
    /// When it was answered.
    pub at: SystemTime,
    /// The node's label.
    pub node: Arc<str>,
    /// Its slot, where it has one.
    pub slot: Option<Slot>,
    /// What it does.
    pub class: RequestClass,
    /// The front of its frame: enough for its name and some arguments.
    pub frame: Bytes,
    /// The client's id; 0: none is known.
    pub client: u64,
    /// How long it waited here until it was written.
    pub here: Duration,
    /// And from then on until its reply had come: the network and the node.
    pub there: Duration,
}

impl Slow {
    /// The span that shows it: with its command's name, and none of its arguments.
    pub(super) fn span(&self) -> Span {
        let mut parser = Parser::default();
        let name = parser.find_front(&self.frame, 1).and_then(|request| request.get(0).map(<[u8]>::to_vec));
        Span {
            end: self.at,
            took: self.here + self.there,
            node: self.node.clone(),
            slot: self.slot,
            class: self.class,
            command: name.map(|name| String::from_utf8_lossy(&name).to_uppercase()),
            client: self.client,
            parts: Some((self.here, self.there)),
            error: None,
        }
    }
}

/// The latest of them.
#[derive(Debug, Default)]
pub struct SlowLog(Mutex<(u64, VecDeque<Slow>)>);

impl SlowLog {
    /// Adds one.
    pub fn note(&self, slow: Slow) {
        let (next, kept) = &mut *lock(&self.0);
        kept.push_front(Slow { id: *next, ..slow });
        *next += 1;
        kept.truncate(MOST_KEPT);
    }

    /// The latest, the newest first.
    pub fn latest(&self, most: usize) -> Vec<Slow> {
        lock(&self.0).1.iter().take(most).cloned().collect()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        lock(&self.0).1.len()
    }

    /// Forgets them; numbers go on.
    pub fn clear(&self) {
        lock(&self.0).1.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_come_first_and_numbers_go_on() {
        let log = SlowLog::default();
        let slow = Slow {
            id: 0,
            at: SystemTime::now(),
            node: "a:1".into(),
            slot: None,
            class: RequestClass::Read,
            frame: Bytes::new(),
            client: 0,
            here: Duration::ZERO,
            there: Duration::from_secs(1),
        };
        (0..MOST_KEPT + 2).for_each(|_| log.note(slow.clone()));
        assert_eq!(log.count(), MOST_KEPT);
        assert_eq!(log.latest(2).iter().map(|slow| slow.id).collect::<Vec<_>>(), [129, 128]);
        log.clear();
        log.note(slow);
        assert_eq!(log.latest(9).iter().map(|slow| slow.id).collect::<Vec<_>>(), [130]);
    }
}
