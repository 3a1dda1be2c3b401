//! A small random generator whose seed is printed, so that a failure can be repeated.

/// A xorshift generator.
pub struct Random {
    state: u64,
    /// What it began with.
    pub seed: u64,
}

impl Random {
    /// Begins with `SLOTWAY_TEST_SEED` where that is set, with the clock otherwise, and prints which.
    pub fn seeded(what: &str) -> Random {
        let clock = || std::time::UNIX_EPOCH.elapsed().map_or(1, |elapsed| elapsed.as_nanos() as u64);
        let seed = std::env::var("SLOTWAY_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(clock);
        println!("{what}: SLOTWAY_TEST_SEED={seed}");
        Random::new(seed)
    }

    /// Begins with `seed`.
    pub fn new(seed: u64) -> Random {
        Random { state: seed | 1, seed }
    }

    /// Any number.
    pub fn next(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next() >> 11) as usize % end
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// One of `choices`.
    pub fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len())]
    }

    /// `length` bytes of any value.
    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next() as u8).collect()
    }
}
