//! One hash for all that must find the same place for the same bytes.

/// A hash of a key that is the same on every machine and in every version of forebay.
///
/// It resists nobody who wants keys to collide; that harms the balance between shards alone.
pub fn stable_hash(key: &[u8]) -> u64 {
    let mut hash = 0x9e37_79b9_7f4a_7c15 ^ key.len() as u64;
    let (words, rest) = key.as_chunks::<8>();
    for word in words {
        hash = mixed(hash ^ u64::from_le_bytes(*word));
    }
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    mixed(hash ^ u64::from_le_bytes(last))
}

/// Multiplies to 128 bits and folds: every bit of the input reaches every bit of the result.
fn mixed(word: u64) -> u64 {
    let wide = u128::from(word ^ 0xa076_1d64_78bd_642f) * u128::from(0xe703_7ed1_a0b4_28db_u64);
    (wide >> 64) as u64 ^ wide as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_differ_in_length_or_in_one_bit_fall_apart() {
        let zeros = [0; 40];
        let mut all: Vec<u64> = (0..=40).map(|length| stable_hash(&zeros[..length])).collect();
        for bit in 0..320 {
            let mut key = zeros;
            key[bit / 8] |= 1 << (bit % 8);
            all.push(stable_hash(&key));
        }
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }

    #[test]
    fn shards_get_even_shares_of_counting_keys() {
        let mut shares = [0; 8];
        for key in 0..80_000_u64 {
            shares[(stable_hash(&key.to_be_bytes()) % 8) as usize] += 1;
        }
        assert!(shares.iter().all(|share| (9_500..10_500).contains(share)), "{shares:?}");
    }

    #[test]
    fn the_hash_never_changes_for_it_places_what_lies_on_disks() {
        assert_eq!(stable_hash(b""), 0x7f40_f511_7e11_298b);
        assert_eq!(stable_hash(b"checkout"), 0x5a57_4252_29d5_14c2);
    }
}
