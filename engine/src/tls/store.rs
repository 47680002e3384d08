//! The system's store of CAs, which others rewrite while it is read.
//!
//! A package's update empties a folder and fills it again, or writes a long file in pieces: who
//! looks meanwhile finds a part. Always: what is found adds to whom is trusted at once, and takes
//! away from it only what was found the same at two looks in a row, which lie [`PAUSE`] or more
//! apart.
//!
//! No file is read here.

use std::time::{Duration, Instant};

/// From a look that found CAs missing to the one that may believe it.
pub(super) const PAUSE: Duration = Duration::from_secs(10);

/// What is thought of a store between two looks.
#[derive(Default)]
pub(super) struct Store {
    doubted: Option<Doubted>,
}

struct Doubted {
    cas: Vec<Vec<u8>>,
    since: Instant,
}

impl Store {
    /// Whom to trust: what was `found` now, and what is `used` until it is sure. Both are sorted.
    pub(super) fn judged(
        &mut self,
        used: &[Vec<u8>],
        found: Vec<Vec<u8>>,
        now: Instant,
    ) -> Vec<Vec<u8>> {
        let missing = used.iter().filter(|ca| found.binary_search(ca).is_err()).count();
        if missing == 0 {
            self.doubted = None;
            return found;
        }
        let since = match self.doubted.take() {
            Some(Doubted { cas, since }) if cas == found => since,
            _ => {
                tell_of(missing, used.len(), found.len());
                now
            }
        };
        if now.saturating_duration_since(since) >= PAUSE {
            tracing::info!(missing, cas = found.len(), "The system's CAs are fewer: adopted");
            return found;
        }
        let mut both = [used, found.as_slice()].concat();
        both.sort_unstable();
        both.dedup();
        self.doubted = Some(Doubted { cas: found, since });
        both
    }

    /// Whether it has to be looked at again, in [`PAUSE`].
    pub(super) fn is_doubted(&self) -> bool {
        self.doubted.is_some()
    }
}

fn tell_of(missing: usize, used: usize, found: usize) {
    tracing::warn!(
        missing,
        used,
        found,
        pause_seconds = PAUSE.as_secs(),
        "The system's store of CAs lacks some that it had: it may be in the middle of an update. \
         The old ones stay in use until it is found the same once more"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cas(numbers: impl IntoIterator<Item = u32>) -> Vec<Vec<u8>> {
        let mut cas: Vec<Vec<u8>> =
            numbers.into_iter().map(|number| number.to_be_bytes().to_vec()).collect();
        cas.sort_unstable();
        cas
    }

    #[test]
    fn a_store_that_is_being_rewritten_takes_nobodys_trust_away_before_it_is_whole() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..200 {
            let mut now = Instant::now();
            let old = cas(0..random.u32(2..150));
            // One leaves and some come, as in any update.
            let gone = random.u32(0..old.len() as u32);
            let new: Vec<u32> =
                (0..old.len() as u32 + random.u32(0..9)).filter(|ca| *ca != gone).collect();
            let (mut store, mut used) = (Store::default(), old.clone());
            let mut written = 0;
            while written < new.len() {
                written = (written + random.usize(1..40)).min(new.len());
                used = store.judged(&used, cas(new[..written].iter().copied()), now);
                let kept = used.iter().filter(|ca| old.contains(ca)).count();
                assert_eq!(kept, old.len(), "after {written} of {}", new.len());
                now += random.u32(1..3) * PAUSE;
            }
            used = store.judged(&used, cas(new.iter().copied()), now);
            assert_eq!(used, cas(new.iter().copied()));
            assert!(!store.is_doubted());
        }
    }

    #[test]
    fn a_ca_that_is_added_counts_at_once_and_one_that_is_gone_after_two_looks_apart() {
        let (mut store, now) = (Store::default(), Instant::now());
        assert_eq!(store.judged(&cas([1, 2]), cas([1, 2, 3]), now), cas([1, 2, 3]));
        assert!(!store.is_doubted());
        let used = cas([1, 2, 3]);
        assert_eq!(store.judged(&used, cas([1, 2]), now), used);
        assert!(store.is_doubted());
        // As two SIGHUPs in a row.
        assert_eq!(store.judged(&used, cas([1, 2]), now + PAUSE / 2), used);
        assert_eq!(store.judged(&used, cas([1, 2]), now + PAUSE), cas([1, 2]));
        assert!(!store.is_doubted());
    }

    #[test]
    fn a_ca_that_takes_anothers_place_counts_at_once_and_the_other_goes_later() {
        let (mut store, now) = (Store::default(), Instant::now());
        let used = store.judged(&cas([1, 2]), cas([2, 3]), now);
        assert_eq!(used, cas([1, 2, 3]));
        assert_eq!(store.judged(&used, cas([2, 3]), now + PAUSE), cas([2, 3]));
        assert!(!store.is_doubted());
    }

    #[test]
    fn a_store_that_is_as_it_was_is_doubted_no_longer() {
        let (mut store, now) = (Store::default(), Instant::now());
        let used = cas([1, 2, 3]);
        assert_eq!(store.judged(&used, cas([1]), now), used);
        assert_eq!(store.judged(&used, used.clone(), now + PAUSE), used);
        assert_eq!(store.judged(&used, cas([1]), now + 2 * PAUSE), used);
    }
}
