//! Keys and hash slots. The only place that knows how many slots there are.

use crc::{CRC_16_XMODEM, Crc, Table};

/// How many hash slots a cluster has (Redis Cluster specification).
pub const SLOTS: usize = 16384;

/// Sixteen bytes of a key at a step: most keys are longer.
static CRC16: Crc<u16, Table<16>> = Crc::<u16, Table<16>>::new(&CRC_16_XMODEM);

/// A hash slot, always below [`SLOTS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(u16);

impl Slot {
    /// The slot of a key: CRC16 (XMODEM) of its hash tag, or of the whole key where it has none.
    ///
    /// ```
    /// use slotway::protocol::slot::Slot;
    ///
    /// assert_eq!(Slot::of(b"foo").index(), 12182);
    /// // The text between the first `{` and the next `}` decides where there is any: keys can be kept together.
    /// assert_eq!(Slot::of(b"{foo}:likes"), Slot::of(b"{foo}:friends"));
    /// assert_ne!(Slot::of(b"{}foo"), Slot::of(b"foo"));
    /// ```
    pub fn of(key: &[u8]) -> Slot {
        Slot(CRC16.checksum(tag(key)) % SLOTS as u16)
    }

    /// The slot with this number; `None` where there is no such slot.
    pub fn new(number: u64) -> Option<Slot> {
        (number < SLOTS as u64).then_some(Slot(number as u16))
    }

    /// The slot's number.
    pub fn number(self) -> u16 {
        self.0
    }

    /// The slot's number, to index an array of [`SLOTS`].
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl std::fmt::Display for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// What of a key is hashed: the text between its first `{` and the next `}`, unless that is empty.
fn tag(key: &[u8]) -> &[u8] {
    let Some(open) = memchr::memchr(b'{', key) else { return key };
    let rest = &key[open + 1..];
    match memchr::memchr(b'}', rest) {
        None | Some(0) => key,
        Some(close) => &rest[..close],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_server() {
        // Each number is what `CLUSTER KEYSLOT` of Redis 7.0.15 answers.
        for (key, slot) in [
            ("foo", 12182),
            ("bar", 5061),
            ("", 0),
            ("{foo}x", 12182),
            ("x{foo}{bar}", 12182),
            ("{}foo", 9500),
            ("foo{", 7673),
            ("{{foo}", 13308),
        ] {
            assert_eq!(Slot::of(key.as_bytes()).index(), slot, "{key}");
        }
    }
}
