//! Chance with a seed: what a property test draws can be drawn again.

/// xorshift64*. Spread, not secrecy.
pub struct Dice(u64);

impl Dice {
    /// Print the seed when the test fails.
    pub fn new(seed: u64) -> Dice {
        Dice(seed.max(1))
    }

    /// From 0 to `bound - 1`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16) % bound
    }

    /// True in one of `n` cases.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}
