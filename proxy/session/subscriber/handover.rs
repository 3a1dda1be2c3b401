//! While a subscription moves from one node to another, both deliver: what the one has brought is not taken from the
//! other again.
//!
//! That is as good as it gets, not certain. Nodes pass on what is published by their bus, at most once, in no time that is
//! bounded, and without a number that would tell one copy of a message from the next. So for two proxies that change the
//! pub/sub node each in its own moment:
//! - A message may be missed: published at one node, it is passed on to the other by a link of the bus that has just been
//!   lost or made anew, as it is when a node comes back. Nobody hears of that. For nothing to depend on the bus, all
//!   proxies would have to change in one moment, which none can know of another (and nodes know nothing of proxies).
//! - A message may come twice: a copy that the bus brings later than any time which is waited for here cannot be told from
//!   the same text published again, which must not be kept back.

use std::{collections::HashMap, hash::BuildHasher, pin::Pin, task::Context, time::Duration};

use bytes::Bytes;
use tokio::time::Sleep;

/// How long the old node is heard beside the new one: longer than a message takes from node to node, as a rule.
const OVERLAP: Duration = Duration::from_millis(300);
/// How often that is prolonged for an old node that is seen to be behind.
const PROLONGED: u32 = 10;
/// How many messages are remembered. Beyond it a message may come twice.
const MOST_REMEMBERED: usize = 10_000;

/// A move under way.
pub struct Handover {
    stage: Stage,
    /// How often each message has come, from each source: by its hash, so that large ones cost no more than small ones.
    seen: HashMap<u64, Vec<(u64, u32)>>,
    /// The hash of the first message that the new pub/sub node has brought before any other. What was published before is
    /// ahead of it on its way to the others: who has brought it too is not behind.
    mark: Option<u64>,
}

enum Stage {
    /// The new subscriptions are not all confirmed.
    Opening,
    /// They are; both nodes are heard. It may be prolonged so often.
    Overlap(Pin<Box<Sleep>>, u32),
    /// The old ones are gone; what the new node still brings may have been heard from the old.
    Fading(Pin<Box<Sleep>>),
}

/// What is to be done next.
#[derive(Debug, PartialEq, Eq)]
pub enum HandoverStep {
    /// Nothing yet.
    Wait,
    /// Drop what is surplus.
    DropOld,
    /// The move is over.
    Done,
}

impl Handover {
    pub fn begin() -> Handover {
        Handover { stage: Stage::Opening, seen: HashMap::new(), mark: None }
    }

    /// Another change of the topology: again from the start.
    pub fn restart(&mut self) {
        self.stage = Stage::Opening;
        self.mark = None;
    }

    /// What is to be done. `settled` says that all new subscriptions are confirmed, `leaving` which sources still
    /// speak, but are to be heard no more.
    pub fn poll(&mut self, cx: &mut Context<'_>, settled: bool, leaving: &[u64]) -> HandoverStep {
        if matches!(self.stage, Stage::Opening) && settled {
            self.stage = Stage::Overlap(Box::pin(tokio::time::sleep(OVERLAP)), PROLONGED);
        }
        let over = match &mut self.stage {
            Stage::Opening => false,
            Stage::Overlap(end, _) | Stage::Fading(end) => end.as_mut().poll(cx).is_ready(),
        };
        let is_behind = over && leaving.iter().any(|source| self.is_behind(*source));
        // It is polled at once, so that it knows whom to wake.
        let mut again = || {
            let mut sleep = Box::pin(tokio::time::sleep(OVERLAP));
            let _ = sleep.as_mut().poll(cx);
            sleep
        };
        match &mut self.stage {
            Stage::Overlap(end, left @ 1..) if is_behind => {
                (*end, *left) = (again(), *left - 1);
                HandoverStep::Wait
            }
            Stage::Overlap(..) if over => {
                self.stage = Stage::Fading(again());
                HandoverStep::DropOld
            }
            Stage::Fading(_) if over => HandoverStep::Done,
            Stage::Opening | Stage::Overlap(..) | Stage::Fading(_) => HandoverStep::Wait,
        }
    }

    fn is_behind(&self, source: u64) -> bool {
        let counts = self.mark.and_then(|mark| self.seen.get(&mark));
        counts.is_some_and(|counts| counts.iter().all(|(other, _)| *other != source))
    }

    /// Whether a message that `source` has brought is new: it is where this source has brought it more often than any
    /// other has. For classic channels: what is published there comes from every node. `stays` says that the source is
    /// at the new pub/sub node.
    pub fn is_new(&mut self, source: u64, stays: bool, frame: &Bytes) -> bool {
        if self.seen.len() >= MOST_REMEMBERED {
            self.seen.clear();
        }
        let hash = self.seen.hasher().hash_one(frame);
        let counts = self.seen.entry(hash).or_default();
        let most = counts.iter().filter(|(other, _)| *other != source).map(|(_, count)| *count).max().unwrap_or(0);
        let index = counts.iter().position(|(known, _)| *known == source).unwrap_or_else(|| {
            counts.push((source, 0));
            counts.len() - 1
        });
        let own = &mut counts[index].1;
        *own += 1;
        let is_new = *own > most;
        if is_new && stays {
            self.mark.get_or_insert(hash);
        }
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_message_counts_once() {
        let mut handover = Handover::begin();
        // They differ at their ends.
        let message = |end: u8| Bytes::from([vec![b'm'; 5000], vec![end]].concat());
        let (a, b) = (message(b'a'), message(b'b'));
        let news: Vec<bool> = [(1, &a), (2, &a), (2, &a), (1, &a), (2, &b), (1, &b), (1, &b)]
            .into_iter()
            .map(|(source, frame)| handover.is_new(source, true, frame))
            .collect();
        assert_eq!(news, [true, false, true, false, true, false, true]);
    }
}
