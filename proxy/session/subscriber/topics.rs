//! What a client has subscribed to of one kind, and where each subscription stands with it.

use std::collections::{HashMap, hash_map::Entry};

use bytes::Bytes;

/// Where a subscription stands with the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubscriptionState {
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
    state: HashMap<Bytes, SubscriptionState>,
    new: usize,
}

impl Topics {
    pub fn is_empty(&self) -> bool {
        self.state.is_empty()
    }

    /// How many the client knows to be subscribed to.
    pub fn known(&self) -> usize {
        self.state.len() - self.new
    }

    /// Whether some are asked for and not confirmed.
    pub fn has_new(&self) -> bool {
        self.new > 0
    }

    pub fn state(&self, name: &Bytes) -> Option<SubscriptionState> {
        self.state.get(name).copied()
    }

    /// All names.
    pub fn names(&self) -> impl Iterator<Item = &Bytes> {
        self.state.keys()
    }

    /// The names that are not to be ended.
    pub fn wanted(&self) -> impl Iterator<Item = &Bytes> {
        self.state.iter().filter(|(_, state)| **state != SubscriptionState::Leaving).map(|(name, _)| name)
    }

    /// Adds a name; false where it is there already.
    pub fn add(&mut self, name: &Bytes) -> bool {
        let Entry::Vacant(place) = self.state.entry(name.clone()) else { return false };
        place.insert(SubscriptionState::New);
        self.new += 1;
        true
    }

    /// A name that is here stands so from now on.
    pub fn set(&mut self, name: &Bytes, now: SubscriptionState) {
        if let Some(state) = self.state.get_mut(name) {
            let before = std::mem::replace(state, now);
            self.new =
                self.new + usize::from(now == SubscriptionState::New) - usize::from(before == SubscriptionState::New);
        }
    }

    /// Takes a name away; false where it is not there.
    pub fn remove(&mut self, name: &Bytes) -> bool {
        let state = self.state.remove(name);
        self.new -= usize::from(state == Some(SubscriptionState::New));
        state.is_some()
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
        topics.set(&a, SubscriptionState::Confirmed);
        topics.set(&a, SubscriptionState::Confirmed);
        topics.set(&b, SubscriptionState::Leaving);
        topics.set(&Bytes::from_static(b"none"), SubscriptionState::Confirmed);
        assert_eq!((topics.known(), topics.has_new()), (2, true));
        assert_eq!(topics.wanted().count(), 2);
        assert!(topics.remove(&c) && !topics.remove(&c));
        assert_eq!((topics.known(), topics.has_new()), (2, false));
        topics.remove(&a);
        topics.remove(&b);
        assert!(topics.is_empty());
    }
}
