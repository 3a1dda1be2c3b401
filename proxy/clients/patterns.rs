//! The patterns that clients of databases with channels of their own are subscribed to: nodes count them together with those of
//! others, and do not name them.

use std::{collections::HashMap, sync::Mutex};

use bytes::Bytes;

use super::lock;
use crate::commands::database::Scope;

/// Patterns, by whose they are, each with how many clients are subscribed to it.
#[derive(Debug, Default)]
pub struct Patterns {
    all: Mutex<HashMap<Scope, HashMap<Bytes, usize>>>,
}

impl Patterns {
    /// One more client is subscribed to it.
    pub fn add(&self, scope: Scope, pattern: &Bytes) {
        *lock(&self.all).entry(scope).or_default().entry(pattern.clone()).or_default() += 1;
    }

    /// A client is subscribed to it no more.
    pub fn remove(&self, scope: Scope, pattern: &Bytes) {
        let mut all = lock(&self.all);
        let Some(known) = all.get_mut(&scope) else { return };
        if let Some(count) = known.get_mut(pattern) {
            *count -= 1;
            if *count == 0 {
                known.remove(pattern);
            }
        }
        if known.is_empty() {
            all.remove(&scope);
        }
    }

    /// How many there are, however many clients each has: PUBSUB NUMPAT.
    pub fn count(&self, scope: Scope) -> usize {
        lock(&self.all).get(&scope).map_or(0, HashMap::len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_counts_once_as_long_as_it_has_a_client() {
        let (patterns, scope) = (Patterns::default(), Scope::CLUSTER);
        let [a, b] = [Bytes::from_static(b"a*"), Bytes::from_static(b"b*")];
        [&a, &a, &b].into_iter().for_each(|pattern| patterns.add(scope, pattern));
        assert_eq!(patterns.count(scope), 2);
        patterns.remove(scope, &a);
        assert_eq!(patterns.count(scope), 2);
        patterns.remove(scope, &a);
        patterns.remove(scope, &b);
        patterns.remove(scope, &b);
        assert_eq!(patterns.count(scope), 0);
    }
}
