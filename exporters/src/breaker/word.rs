//! The whole state of a breaker in 64 bits, so that every change is one compare-and-swap.
//!
//! Never says what a change means. Always: `unpack` undoes `pack`.

pub(super) const CLOSED: u8 = 0;
pub(super) const OPEN: u8 = 1;
pub(super) const HALF_OPEN: u8 = 2;
pub(super) const RETIRED: u8 = 3;

/// The exponent of the longest opening.
pub(super) const GROWTH_MAX: u8 = 15;

const SERIAL_BITS: u32 = 12;
const AT_BITS: u32 = 40;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) kind: u8,
    /// It was opened for a rate, not because nothing worked.
    pub(super) is_ejected: bool,
    /// Half-open: probes that have succeeded.
    pub(super) successes: u8,
    /// The exponent of the next opening.
    pub(super) growth: u8,
    pub(super) serial: u16,
    /// Closed: since when. Open: until when. Half-open: the probe's deadline, 0 if there is none.
    /// Milliseconds since the fleet's epoch; 40 bits last for 34 years.
    pub(super) at_ms: u64,
}

impl Word {
    pub(super) fn pack(self) -> u64 {
        let at_ms = self.at_ms.min((1 << AT_BITS) - 1);
        u64::from(self.kind)
            | u64::from(self.is_ejected) << 2
            | u64::from(self.successes) << 3
            | u64::from(self.growth) << 8
            | u64::from(self.serial) << 12
            | at_ms << 24
    }

    pub(super) fn unpack(packed: u64) -> Word {
        Word {
            kind: Word::kind_of(packed),
            is_ejected: packed >> 2 & 1 == 1,
            successes: (packed >> 3 & 0x1f) as u8,
            growth: (packed >> 8 & 0xf) as u8,
            serial: Word::serial_of(packed),
            at_ms: packed >> 24,
        }
    }

    pub(super) fn kind_of(packed: u64) -> u8 {
        (packed & 3) as u8
    }

    pub(super) fn serial_of(packed: u64) -> u16 {
        (packed >> 12) as u16 & ((1 << SERIAL_BITS) - 1)
    }

    /// The same under the next serial.
    pub(super) fn next(self) -> Word {
        Word { serial: (self.serial + 1) & ((1 << SERIAL_BITS) - 1), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_survives_being_packed() {
        let mut rng = fastrand::Rng::with_seed(1);
        for _ in 0..10_000 {
            let word = Word {
                kind: rng.u8(0..4),
                is_ejected: rng.bool(),
                successes: rng.u8(0..32),
                growth: rng.u8(0..16),
                serial: rng.u16(0..4096),
                at_ms: rng.u64(0..1 << AT_BITS),
            };
            assert_eq!(Word::unpack(word.pack()), word);
        }
    }
}
