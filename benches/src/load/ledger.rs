//! What one load thread knows of the numbers that it gave out, until the sink is asked.

use std::collections::BTreeMap;

use crate::account::Claim;

/// How a request ended, as far as its items go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// Acknowledged: its items must arrive.
    Taken,
    /// Refused: its items must not arrive.
    NotTaken,
    /// Nobody knows.
    Unknown,
}

/// Numbers of one thread, all requests being equally long.
#[derive(Debug)]
pub(super) struct Ledger {
    source: u8,
    items: u64,
    /// Fresh numbers: first numbers of the requests that were not simply taken.
    exceptions: BTreeMap<u64, Known>,
    /// Repeating numbers: how often each request was taken, and how often nobody knows.
    times: BTreeMap<u64, (u32, u32)>,
    is_repeating: bool,
    next: u64,
}

impl Ledger {
    pub(super) fn new(source: u8, items: u64, is_repeating: bool) -> Ledger {
        let (exceptions, times) = (BTreeMap::new(), BTreeMap::new());
        Ledger { source, items, exceptions, times, is_repeating, next: 0 }
    }

    /// The first number of a new request; only where numbers are fresh.
    pub(super) fn take(&mut self) -> u64 {
        let first = self.next;
        self.next += self.items;
        first
    }

    pub(super) fn note(&mut self, first: u64, known: Known) {
        if self.is_repeating {
            let (taken, unknown) = self.times.entry(first).or_default();
            *taken += u32::from(known == Known::Taken);
            *unknown += u32::from(known == Known::Unknown);
        } else if known != Known::Taken {
            self.exceptions.insert(first, known);
        }
    }

    /// Every number that was given out is in exactly one claim.
    pub(super) fn into_claims(self) -> Vec<Claim> {
        let source = self.source;
        let claim = |first, items, times_min, times_max| Claim {
            source,
            first,
            items,
            times_min,
            times_max,
        };
        if self.is_repeating {
            let times = self.times.into_iter();
            return times
                .map(|(first, (taken, unknown))| claim(first, self.items, taken, taken + unknown))
                .collect();
        }
        let mut claims = Vec::new();
        let mut at = 0;
        for (first, known) in self.exceptions {
            if first > at {
                claims.push(claim(at, first - at, 1, 1));
            }
            claims.push(claim(first, self.items, 0, u32::from(known == Known::Unknown)));
            at = first + self.items;
        }
        if self.next > at {
            claims.push(claim(at, self.next - at, 1, 1));
        }
        claims
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_cover_every_number_once_whatever_became_of_it() {
        let mut ledger = Ledger::new(2, 10, false);
        let firsts: Vec<u64> = (0..5).map(|_| ledger.take()).collect();
        let ends = [Known::NotTaken, Known::Taken, Known::Taken, Known::Unknown, Known::Taken];
        firsts.iter().zip(ends).for_each(|(first, known)| ledger.note(*first, known));
        let claims: Vec<_> = ledger
            .into_claims()
            .into_iter()
            .map(|claim| (claim.first, claim.items, claim.times_min, claim.times_max))
            .collect();
        assert_eq!(claims, [(0, 10, 0, 0), (10, 20, 1, 1), (30, 10, 0, 1), (40, 10, 1, 1)]);
    }

    #[test]
    fn repeating_numbers_are_claimed_as_often_as_their_request_was_taken() {
        let mut ledger = Ledger::new(0, 3, true);
        for known in [Known::Taken, Known::Taken, Known::NotTaken, Known::Unknown] {
            ledger.note(6, known);
        }
        let claim = ledger.into_claims()[0];
        assert_eq!((claim.first, claim.items), (6, 3));
        assert_eq!((claim.times_min, claim.times_max), (2, 3));
    }
}
