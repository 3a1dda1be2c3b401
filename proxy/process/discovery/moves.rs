//! Who has taken which slots from whom: told at once where a replica took over, and once it is over where slots move one by
//! one, since a reshard moves thousands.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    cluster::topology::{NOBODY, Role, Topology, slots_text},
    metrics::readable::length,
};

/// After so long without another slot a move is over.
const QUIET: Duration = Duration::from_secs(3);
/// How often it is told of one that goes on.
const AGAIN: Duration = Duration::from_secs(60);

/// Slots by who had them and who has them, as labels.
type Taken = BTreeMap<(Arc<str>, Arc<str>), Vec<usize>>;

/// How long it is remembered whose replica a node was. In a planned fail-over the two sides change their roles one after the
/// other, and MOVED tells of slots one by one: what is seen in between is a primary that takes slots from another.
const REMEMBERED: Duration = Duration::from_secs(30);

/// Slots that have moved and of which nobody has been told.
#[derive(Debug, Default)]
pub struct Moves {
    slots: Taken,
    /// Whose replica each node was, and when last, by ids.
    followed: HashMap<String, (String, Instant)>,
    since: Option<Instant>,
    last: Option<Instant>,
}

/// What a new snapshot brought.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Takeovers(pub Vec<String>);

impl Moves {
    /// Notes what is different in `next`; a fail-over is returned, in words.
    pub fn note(&mut self, current: &Topology, next: &Topology, now: Instant) -> Takeovers {
        let mut taken: BTreeMap<(u16, u16), Vec<usize>> = BTreeMap::new();
        // The same numbers mean the same nodes where nothing has come or gone.
        let same_nodes = current.nodes.len() == next.nodes.len()
            && current.nodes.iter().zip(&next.nodes).all(|(one, other)| one.id == other.id);
        for (slot, (&before, &after)) in current.slots.iter().zip(next.slots.iter()).enumerate() {
            if before == NOBODY || after == NOBODY || same_nodes && before == after {
                continue;
            }
            taken.entry((before, after)).or_default().push(slot);
        }
        self.remember(current, now);
        let mut takeovers = Vec::new();
        for ((before, after), slots) in taken {
            let (Some(old), Some(new)) = (current.nodes.get(usize::from(before)), next.nodes.get(usize::from(after)))
            else {
                continue;
            };
            if old.id == new.id {
                continue;
            }
            let was_replica = current.node(&new.id).is_none()
                || self.followed.get(&new.id).is_some_and(|(primary, _)| *primary == old.id);
            let has_none = next.owners().all(|owner| owner.id != old.id);
            if was_replica && has_none {
                // Those of which MOVED told beforehand were the first of them.
                let mut slots = slots;
                slots.extend(self.slots.remove(&(old.label.clone(), new.label.clone())).unwrap_or_default());
                slots.sort_unstable();
                slots.dedup();
                let fate = match next.node(&old.id) {
                    Some(node) if node.replicates.as_deref() == Some(&*new.id) => "which is its replica now",
                    _ if next.is_failing(&old.id) || current.lost(&old.id).is_some() => "which does not answer",
                    _ => "which owns no slot now",
                };
                let slots = slots_text(&ranges(&slots));
                takeovers.push(format!("fail-over: {} took over {slots} from {}, {fate}", new.label, old.label));
            } else {
                self.slots.entry((old.label.clone(), new.label.clone())).or_default().extend(slots);
                self.since.get_or_insert(now);
                self.last = Some(now);
            }
        }
        Takeovers(takeovers)
    }

    /// Whether a node was the other's replica a moment ago: to be so again is no news.
    pub fn has_followed(&self, id: &str, primary: &str) -> bool {
        self.followed.get(id).is_some_and(|(known, _)| known == primary)
    }

    fn remember(&mut self, current: &Topology, now: Instant) {
        self.followed.retain(|_, (_, since)| now - *since < REMEMBERED);
        for node in &current.nodes {
            if let (Role::Replica, Some(primary)) = (node.role, &node.replicates) {
                self.followed.insert(node.id.clone(), (primary.clone(), now));
            }
        }
    }

    /// When there may be something to tell.
    pub fn due(&self) -> Option<Instant> {
        if self.slots.is_empty() {
            return None;
        }
        Some((self.last? + QUIET).min(self.since? + AGAIN))
    }

    /// What is to be told by now, in words.
    pub fn take(&mut self, now: Instant) -> Vec<String> {
        if self.due().is_none_or(|due| now < due) {
            return Vec::new();
        }
        let since = self.since.take().unwrap_or(now);
        let took = self.last.take().unwrap_or(now) - since;
        let moved = std::mem::take(&mut self.slots).into_iter().map(|((from, to), mut slots)| {
            slots.sort_unstable();
            slots.dedup();
            let count = slots.len();
            let moved = if count == 1 { "slot moved" } else { "slots moved" };
            let which = slots_text(&ranges(&slots));
            let time = if count > 1 { format!(", within {}", length(took)) } else { String::new() };
            format!("{count} {moved} from {from} to {to}: {which}{time}")
        });
        moved.collect()
    }
}

/// Slots in order, as ranges.
fn ranges(slots: &[usize]) -> Vec<(usize, usize)> {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for &slot in slots {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == slot => *last = slot,
            _ => ranges.push((slot, slot)),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cluster::topology::{Lost, Node},
        protocol::slot::SLOTS,
    };

    fn topology(nodes: &[(&str, Option<&str>)], owner: impl Fn(usize) -> u16) -> Topology {
        let node = |(id, of): &(&str, Option<&str>)| {
            let node = Node::primary(id, &format!("{id}:1"));
            let Some(of) = of else { return node };
            Arc::new(Node { role: Role::Replica, replicates: Some((*of).to_owned()), ..(*node).clone() })
        };
        let slots: Vec<u16> = (0..SLOTS).map(owner).collect();
        let slots: Box<[u16; SLOTS]> = slots.into_boxed_slice().try_into().unwrap();
        Topology::unknown("").with_layout(nodes.iter().map(node).collect(), slots)
    }

    #[test]
    fn a_takeover_is_told_at_once() {
        let now = Instant::now();
        let half = |slot| u16::from(slot >= 8192);
        let before = topology(&[("a", None), ("b", None), ("c", Some("a"))], half);
        let by_c = |slot| if slot < 8192 { 2 } else { 1 };
        let mut moves = Moves::default();

        let mut dead = topology(&[("a", None), ("b", None), ("c", None)], by_c);
        dead.failing = vec!["a".into()];
        dead.lost = vec![Lost { id: "a".into(), since: std::time::SystemTime::now(), why: "".into() }];
        let text = "fail-over: c:1 took over slots 0-8191 from a:1, which does not answer";
        assert_eq!(moves.note(&before, &dead, now), Takeovers(vec![text.into()]));

        let planned = topology(&[("a", Some("c")), ("b", None), ("c", None)], by_c);
        let text = "fail-over: c:1 took over slots 0-8191 from a:1, which is its replica now";
        assert_eq!(moves.note(&before, &planned, now), Takeovers(vec![text.into()]));

        // Who is not there any more has other numbers behind it.
        let gone = topology(&[("b", None), ("c", None)], |slot| u16::from(slot < 8192));
        let text = "fail-over: c:1 took over slots 0-8191 from a:1, which owns no slot now";
        assert_eq!(moves.note(&before, &gone, now), Takeovers(vec![text.into()]));
        assert_eq!(moves.due(), None);
        assert_eq!(moves.note(&before, &before, now), Takeovers::default());
    }

    #[test]
    fn a_planned_takeover_is_one_however_it_is_seen() {
        let now = Instant::now();
        let half = |slot| u16::from(slot >= 8192);
        let by_c = |slot| if slot < 8192 { 2 } else { 1 };
        let before = topology(&[("a", None), ("b", None), ("c", Some("a"))], half);
        let text = ["fail-over: c:1 took over slots 0-8191 from a:1, which owns no slot now".to_owned()];

        // MOVED tells of two slots, then the map comes; the former primary calls itself one all the time.
        let mut moves = Moves::default();
        let moved = |slot| if slot == 7 || slot == 9 { 2 } else { half(slot) };
        let two = topology(&[("a", None), ("b", None), ("c", Some("a"))], moved);
        assert_eq!(moves.note(&before, &two, now), Takeovers::default());
        let both = topology(&[("a", None), ("b", None), ("c", None)], by_c);
        assert_eq!(moves.note(&two, &both, now).0, text);
        assert!(moves.take(now + QUIET).is_empty(), "it is told once");
        assert!(moves.has_followed("c", "a") && !moves.has_followed("a", "c"));

        // The replica calls itself a primary before it has a slot.
        let mut moves = Moves::default();
        let promoted = topology(&[("a", None), ("b", None), ("c", None)], half);
        assert_eq!(moves.note(&before, &promoted, now), Takeovers::default());
        assert_eq!(moves.note(&promoted, &both, now + Duration::from_secs(1)).0, text);

        // Who was its replica long ago, or another's, takes slots as anybody.
        let later = now + Duration::from_secs(2) + REMEMBERED;
        assert_eq!(moves.note(&promoted, &both, later), Takeovers::default());
        assert_eq!(moves.take(later + QUIET), ["8192 slots moved from a:1 to c:1: slots 0-8191, within 0 ms"]);
    }

    #[test]
    fn slots_that_move_one_by_one_are_told_once() {
        let start = Instant::now();
        let nodes = [("a", None), ("b", None)];
        let mut moves = Moves::default();
        for step in 0..10u32 {
            let at = |edge: usize| topology(&nodes, move |slot| u16::from(slot >= edge));
            let (before, after) = (at(100 - step as usize), at(99 - step as usize));
            let now = start + Duration::from_millis(500) * step;
            assert_eq!(moves.note(&before, &after, now), Takeovers::default());
            assert!(moves.take(now).is_empty());
        }
        let over = start + Duration::from_millis(4500) + QUIET;
        assert_eq!(moves.due(), Some(over));
        assert_eq!(moves.take(over), ["10 slots moved from a:1 to b:1: slots 90-99, within 4 s"]);
        assert_eq!(moves.due(), None);
    }
}
