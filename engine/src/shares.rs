//! Who is next, where several share: in numbers alone.
//!
//! Always: of any run of turns each has its share, give or take one; the same key belongs to the
//! same share for as long as the weights stay.

/// Turns by weight, spread as evenly as they can be: after each turn everybody gains their weight,
/// and who had it loses the sum of all.
#[derive(Clone, Debug)]
pub struct Shares {
    weights: Vec<u32>,
    credits: Vec<i64>,
    sum: i64,
}

impl Shares {
    pub fn new(weights: Vec<u32>) -> Shares {
        let sum = weights.iter().map(|weight| i64::from(*weight)).sum();
        Shares { credits: vec![0; weights.len()], weights, sum }
    }

    /// Whose turn it is.
    pub fn next_turn(&mut self) -> usize {
        let mut best = 0;
        for (index, weight) in self.weights.iter().enumerate() {
            self.credits[index] += i64::from(*weight);
            if self.credits[index] > self.credits[best] {
                best = index;
            }
        }
        self.credits[best] -= self.sum;
        best
    }

    /// Whose a key is, by its hash.
    pub fn owner(&self, hash: u64) -> usize {
        let mut place = ((u128::from(hash) * self.sum as u128) >> 64) as i64;
        for (index, weight) in self.weights.iter().enumerate() {
            place -= i64::from(*weight);
            if place < 0 {
                return index;
            }
        }
        0
    }

    pub fn len(&self) -> usize {
        self.weights.len()
    }

    pub fn is_empty(&self) -> bool {
        self.weights.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use forebay_codec::hash::stable_hash;

    use super::*;

    #[test]
    fn in_any_run_of_turns_each_has_its_share_give_or_take_one() {
        let seed: u64 = 0x5a5e;
        let mut state = seed;
        let mut draw = |below: u64| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) % below
        };
        for _ in 0..50 {
            let weights: Vec<u32> = (0..1 + draw(6)).map(|_| 1 + draw(100) as u32).collect();
            let sum: u32 = weights.iter().sum();
            let mut shares = Shares::new(weights.clone());
            let mut turns = vec![0_i64; weights.len()];
            for turn in 1..500_i64 {
                turns[shares.next_turn()] += 1;
                for (had, weight) in turns.iter().zip(&weights) {
                    let due = turn as f64 * f64::from(*weight) / f64::from(sum);
                    let off = (*had as f64 - due).abs();
                    let few = weights.len() as f64;
                    assert!(off <= few, "seed {seed}: {weights:?} {turns:?} after {turn}");
                }
            }
            let whole = Shares::new(weights.clone()).next_all(sum as usize);
            let exact: Vec<u32> = whole.iter().map(|turns| *turns as u32).collect();
            assert_eq!(exact, weights, "a whole round is exact");
        }
    }

    #[test]
    fn keys_are_shared_by_weight_and_stay_where_they_are() {
        let shares = Shares::new(vec![90, 10]);
        let owners = || (0..10_000_u32).map(|key| shares.owner(stable_hash(&key.to_be_bytes())));
        let second = owners().filter(|owner| *owner == 1).count();
        assert!((850..1150).contains(&second), "{second}");
        assert!(owners().eq(owners()));
        assert_eq!((shares.owner(0), shares.owner(u64::MAX)), (0, 1));
    }

    impl Shares {
        fn next_all(mut self, turns: usize) -> Vec<usize> {
            let mut had = vec![0; self.len()];
            (0..turns).for_each(|_| had[self.next_turn()] += 1);
            had
        }
    }
}
