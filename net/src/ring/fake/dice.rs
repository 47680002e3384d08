//! Chance from a seed: splitmix64, the same on every machine.

/// Numbers that look drawn by chance and follow from a seed.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 up to, and without, `below`, which is not 0.
    pub fn below(&mut self, below: u64) -> u64 {
        self.number() % below
    }

    /// Whether something happens that does so `chance` times of 1,000.
    pub fn of_1000(&mut self, chance: u32) -> bool {
        self.below(1_000) < u64::from(chance)
    }

    /// Dice of their own, so that whoever throws more of them disturbs nobody else.
    pub fn fork(&mut self) -> Dice {
        Dice(self.number())
    }
}
