//! Finding a field by its name: one multiplication and three compares, whatever the message.
//!
//! A key is cut into words, and their hash picks the one field that it can be. Each message looks
//! for a multiplier of its own when it is compiled, one that sends no two of its names to the same
//! slot, so that there is no second place to look.

use super::Field;

/// No name in OTLP is longer, in either spelling.
const NAME_BYTES_MAX: usize = 24;

/// A name as words, zeros behind its last byte.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    words: [u64; 3],
    bytes: u8,
}

impl Key {
    /// `None`: longer than any name.
    pub fn of(name: &[u8]) -> Option<Self> {
        let mut block = [0; BLOCK_BYTES];
        block.get_mut(..name.len())?.copy_from_slice(name);
        Self::cut(&block, name.len())
    }

    /// The first bytes of a block that goes on behind them.
    #[inline]
    pub fn cut(block: &[u8; BLOCK_BYTES], bytes: usize) -> Option<Self> {
        let masks = MASKS.get(bytes)?;
        let ([low, middle, high, _], []) = block.as_chunks::<8>() else { return None };
        let words = [
            u64::from_le_bytes(*low) & masks[0],
            u64::from_le_bytes(*middle) & masks[1],
            u64::from_le_bytes(*high) & masks[2],
        ];
        Some(Self { words, bytes: bytes as u8 })
    }

    /// As [`Key::of`], of a name that is known to be short enough.
    pub(super) const fn of_name(name: &[u8]) -> Self {
        assert!(name.len() <= NAME_BYTES_MAX, "a name is longer than the tables expect");
        let mut words = [0; 3];
        let mut at = 0;
        while at < name.len() {
            words[at / 8] |= (name[at] as u64) << (at % 8 * 8);
            at += 1;
        }
        Self { words, bytes: name.len() as u8 }
    }

    #[inline]
    pub(super) fn is(&self, other: &Key) -> bool {
        let [low, middle, high] = self.words;
        let differing =
            (low ^ other.words[0]) | (middle ^ other.words[1]) | (high ^ other.words[2]);
        differing == 0 && self.bytes == other.bytes
    }

    #[inline]
    const fn slot(&self, multiplier: u64) -> usize {
        // No two names of a message have the same length and the same first eight bytes.
        let mixed = self.words[0] ^ self.bytes as u64;
        (mixed.wrapping_mul(multiplier) >> (u64::BITS - SLOT_BITS)) as usize
    }
}

/// Which field a key can be.
#[derive(Debug)]
pub(super) struct Names {
    multiplier: u64,
    /// Index of the field plus one; 0 means that no name leads here.
    slots: [u8; 1 << SLOT_BITS],
}

impl Names {
    pub(super) const fn new(fields: &[Field]) -> Self {
        let mut multiplier = 0x9e37_79b9_7f4a_7c15u64;
        loop {
            if let Some(slots) = slots(fields, multiplier) {
                return Self { multiplier, slots };
            }
            multiplier = multiplier.wrapping_mul(0xd129_0be7_a1ff_5d3d).wrapping_add(2);
        }
    }

    /// The index of the only field that this key can name.
    #[inline]
    pub(super) fn candidate(&self, key: &Key) -> Option<usize> {
        usize::from(self.slots[key.slot(self.multiplier)]).checked_sub(1)
    }
}

/// `None`: two names have the same slot.
const fn slots(fields: &[Field], multiplier: u64) -> Option<[u8; 1 << SLOT_BITS]> {
    let mut slots = [0; 1 << SLOT_BITS];
    let mut index = 0;
    while index < fields.len() {
        let own = index as u8 + 1;
        let [one, other] =
            [fields[index].json_key.slot(multiplier), fields[index].snake_key.slot(multiplier)];
        if (slots[one] != 0 && slots[one] != own) || (slots[other] != 0 && slots[other] != own) {
            return None;
        }
        (slots[one], slots[other]) = (own, own);
        index += 1;
    }
    Some(slots)
}

/// What a key is cut from.
pub(super) const BLOCK_BYTES: usize = 32;
const SLOT_BITS: u32 = 7;

/// For each length, which bits of each word belong to the name.
const MASKS: [[u64; 3]; NAME_BYTES_MAX + 1] = {
    let mut masks = [[0; 3]; NAME_BYTES_MAX + 1];
    let mut bytes = 0;
    while bytes <= NAME_BYTES_MAX {
        let mut at = 0;
        while at < bytes {
            masks[bytes][at / 8] |= 0xff << (at % 8 * 8);
            at += 1;
        }
        bytes += 1;
    }
    masks
};
