//! What a client has subscribed to of one kind, and where each subscription stands with it.

use std::collections::{HashMap, hash_map::Entry};

use bytes::Bytes;

/// Where a subscription stands with the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Asked for, not confirmed.
    New,
    /// Confirmed.
    Confirmed,
    /// To be ended, which is not confirmed.
    Leaving,
}

/// Names and where they stand. How many there are of each is known without looking: each confirmation tells it.
#[derive(Default)]
pub struct Topics {
    standing: HashMap<Bytes, Standing>,
    new: usize,
}

impl Topics {
    pub fn is_empty(&self) -> bool {
        self.standing.is_empty()
    }

    /// How many the client knows to be subscribed to.
    pub fn known(&self) -> usize {
        self.standing.len() - self.new
    }

    /// Whether some are asked for and not confirmed.
    pub fn has_new(&self) -> bool {
        self.new > 0
    }

    pub fn standing(&self, name: &Bytes) -> Option<Standing> {
        self.standing.get(name).copied()
    }

    /// All names.
    pub fn names(&self) -> impl Iterator<Item = &Bytes> {
        self.standing.keys()
    }

    /// The names that are not to be ended.
    pub fn wanted(&self) -> impl Iterator<Item = &Bytes> {
        self.standing.iter().filter(|(_, standing)| **standing != Standing::Leaving).map(|(name, _)| name)
    }

    /// Adds a name; false where it is there already.
    pub fn add(&mut self, name: &Bytes) -> bool {
        let Entry::Vacant(place) = self.standing.entry(name.clone()) else { return false };
        place.insert(Standing::New);
        self.new += 1;
        true
    }

    /// A name that is here stands so from now on.
    pub fn set(&mut self, name: &Bytes, now: Standing) {
        if let Some(standing) = self.standing.get_mut(name) {
            let before = std::mem::replace(standing, now);
            self.new = self.new + usize::from(now == Standing::New) - usize::from(before == Standing::New);
        }
    }

    /// Takes a name away; false where it is not there.
    pub fn remove(&mut self, name: &Bytes) -> bool {
        let standing = self.standing.remove(name);
        self.new -= usize::from(standing == Some(Standing::New));
        standing.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_those_of_the_names() {
        let [a, b, c] = ["a", "b", "c"].map(Bytes::from);
        let mut topics = Topics::default();
        assert!(topics.is_empty() && !topics.has_new());
        assert!(topics.add(&a) && topics.add(&b) && topics.add(&c) && !topics.add(&a));
        assert_eq!((topics.known(), topics.has_new()), (0, true));
        topics.set(&a, Standing::Confirmed);
        topics.set(&a, Standing::Confirmed);
        topics.set(&b, Standing::Leaving);
        topics.set(&Bytes::from_static(b"none"), Standing::Confirmed);
        assert_eq!((topics.known(), topics.has_new()), (2, true));
        assert_eq!(topics.wanted().count(), 2);
        assert!(topics.remove(&c) && !topics.remove(&c));
        assert_eq!((topics.known(), topics.has_new()), (2, false));
        topics.remove(&a);
        topics.remove(&b);
        assert!(topics.is_empty());
    }
}
