//! Whether one prefix of keys is within another: a change would be told twice. However many there are, each is looked at
//! a few times only.

use std::collections::BTreeSet;

use bytes::Bytes;

/// An overlap, by the order in which Redis looks for them.
#[derive(Debug, PartialEq, Eq)]
pub struct Overlap<'a> {
    /// The first prefix given that overlaps with another.
    pub prefix: &'a Bytes,
    /// With which one.
    pub other: &'a Bytes,
    /// Whether that is one there was before; else it is given behind the first.
    pub existing: bool,
}

/// The first overlap of prefixes that are `given` with those there are `now`, or with each other.
pub fn find<'a>(given: &'a [Bytes], now: &'a BTreeSet<Bytes>) -> Option<Overlap<'a>> {
    let among = first_among(given);
    // All behind it are of no interest.
    let checked = given.iter().take(among.map_or(given.len(), |index| index + 1));
    let with_existing =
        checked.filter_map(|prefix| Some(Overlap { prefix, other: existing(prefix, now)?, existing: true }));
    with_existing.into_iter().next().or_else(|| {
        let (prefix, behind) = given.get(among?..)?.split_first()?;
        let other = behind.iter().find(|other| other.starts_with(prefix) || prefix.starts_with(other))?;
        Some(Overlap { prefix, other, existing: false })
    })
}

/// The first of the existing ones, which do not overlap each other but for the empty one, that `prefix` overlaps with.
fn existing<'a>(prefix: &Bytes, now: &'a BTreeSet<Bytes>) -> Option<&'a Bytes> {
    let all = now.first().filter(|first| first.is_empty());
    let before = || now.range(..=prefix.clone()).next_back().filter(|other| prefix.starts_with(other));
    let behind = || now.range(prefix.clone()..).next().filter(|other| other.starts_with(prefix));
    all.or_else(before).or_else(behind)
}

/// The index of the first that overlaps with one behind it.
fn first_among(given: &[Bytes]) -> Option<usize> {
    let mut sorted: Vec<(&Bytes, usize)> = given.iter().zip(0..).collect();
    sorted.sort();
    // In this order a prefix stands ahead of all that are within it, one behind the other. The stack has those around
    // the one that is looked at, each with the lowest index of itself and those around it.
    let mut around: Vec<(&Bytes, usize)> = Vec::new();
    let mut first = None::<usize>;
    for (prefix, index) in sorted {
        while around.pop_if(|(outer, _)| !prefix.starts_with(outer)).is_some() {}
        let lowest = around.last().map_or(index, |(_, lowest)| index.min(*lowest));
        if !around.is_empty() {
            first = Some(first.map_or(lowest, |first| first.min(lowest)));
        }
        around.push((prefix, lowest));
    }
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Redis does it.
    fn slowly<'a>(given: &'a [Bytes], now: &'a BTreeSet<Bytes>) -> Option<Overlap<'a>> {
        given.iter().enumerate().find_map(|(index, prefix)| {
            let overlap = |other: &&Bytes| other.starts_with(prefix) || prefix.starts_with(other);
            let old = now.iter().find(overlap).map(|other| Overlap { prefix, other, existing: true });
            let new = || Some(Overlap { prefix, other: given[index + 1..].iter().find(overlap)?, existing: false });
            old.or_else(new)
        })
    }

    proptest::proptest! {
        #[test]
        fn overlaps_are_those_that_redis_finds(
            given in proptest::collection::vec("[ab]{0,4}", 0..6),
            now in proptest::collection::vec("[ab]{2,5}", 0..4),
            all in proptest::bool::ANY,
        ) {
            let given: Vec<Bytes> = given.into_iter().map(Bytes::from).collect();
            let mut existing = BTreeSet::new();
            for prefix in now.into_iter().map(Bytes::from) {
                if find(std::slice::from_ref(&prefix), &existing).is_none() {
                    existing.insert(prefix);
                }
            }
            if all {
                existing.insert(Bytes::new());
            }
            proptest::prop_assert_eq!(find(&given, &existing), slowly(&given, &existing));
        }
    }
}
