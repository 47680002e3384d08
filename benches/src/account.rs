//! Who arrived, and whether it is who should have: exact, item by item.
//!
//! A [`Book`] notes arrivals by number. At the end the load hands in its [`Claim`]s, what must have
//! arrived and what must not, and [`Book::audit`] compares every single number.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::items::Id;

/// Sequences above this are not ours, whatever they say: a bitmap must have an end.
const SEQUENCE_MAX: u64 = 1 << 33;

/// What one load thread says of a range of its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    pub source: u8,
    pub first: u64,
    pub items: u64,
    /// Each of them was acknowledged so often, and so must have arrived so often.
    pub times_min: u32,
    /// `times_min`, and the times that nobody knows of: the connection broke before the answer.
    pub times_max: u32,
}

/// The audit's result, in items.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Arrivals, each time of each item.
    pub arrivals: u64,
    /// Acknowledged, and not arrived that often.
    pub missing: u64,
    /// Arrived more often than sent.
    pub duplicates: u64,
    /// Arrived although nobody acknowledged them: refused, or never sent.
    pub unexpected: u64,
    /// Arrived with no number, or with one of another run.
    pub alien: u64,
}

impl Verdict {
    pub fn is_clean(&self) -> bool {
        self.missing == 0 && self.duplicates == 0 && self.unexpected == 0 && self.alien == 0
    }
}

/// How often one thread's numbers arrived: the first time as a bit, further times as a count.
#[derive(Clone, Debug, Default)]
struct Arrivals {
    seen: Vec<u64>,
    again: HashMap<u64, u32>,
}

/// The arrivals of one run.
#[derive(Clone, Debug)]
pub struct Book {
    run: u8,
    sources: Vec<Arrivals>,
    /// Numbers come again and again on purpose (compressed requests can't be renumbered).
    repeating: bool,
    counts: Vec<Vec<u32>>,
    alien: u64,
}

impl Book {
    /// `repeating`: each number is expected many times; memory is four bytes a number then.
    pub fn new(run: u8, repeating: bool) -> Book {
        Book { run, sources: Vec::new(), repeating, counts: Vec::new(), alien: 0 }
    }

    /// Notes an item that arrived; `None`: one without a number.
    pub fn note(&mut self, bits: Option<u64>) {
        let id = bits.and_then(Id::from_bits).filter(|id| id.run == self.run);
        match id.filter(|id| id.sequence < SEQUENCE_MAX) {
            None => self.alien += 1,
            Some(id) if self.repeating => {
                let counts = grown(&mut self.counts, usize::from(id.source));
                *grown(counts, id.sequence as usize) += 1;
            }
            Some(id) => grown(&mut self.sources, usize::from(id.source)).note(id.sequence),
        }
    }

    /// Adds what another thread of the sink noted.
    pub fn merge(&mut self, other: Book) {
        self.alien += other.alien;
        for (source, arrivals) in other.sources.into_iter().enumerate() {
            grown(&mut self.sources, source).merge(arrivals);
        }
        for (source, counts) in other.counts.into_iter().enumerate() {
            let mine = grown(&mut self.counts, source);
            for (sequence, count) in counts.into_iter().enumerate() {
                *grown(mine, sequence) += count;
            }
        }
    }

    /// Compares with what the load claims. Numbers that no claim covers must not have arrived.
    pub fn audit(&self, claims: &[Claim]) -> Verdict {
        let mut verdict = Verdict { alien: self.alien, ..Verdict::default() };
        let mut claimed = 0;
        for claim in claims {
            for sequence in claim.first..claim.first + claim.items {
                let times = self.times(claim.source, sequence);
                claimed += u64::from(times);
                verdict.missing += u64::from(claim.times_min.saturating_sub(times));
                let excess = u64::from(times.saturating_sub(claim.times_max));
                match claim.times_max {
                    0 => verdict.unexpected += excess,
                    _ => verdict.duplicates += excess,
                }
            }
        }
        let noted = self.noted();
        verdict.arrivals = noted + self.alien;
        verdict.unexpected += noted - claimed;
        verdict
    }

    fn times(&self, source: u8, sequence: u64) -> u32 {
        let source = usize::from(source);
        match self.repeating {
            true => self.counts.get(source).and_then(|c| c.get(sequence as usize)).copied(),
            false => self.sources.get(source).map(|arrivals| arrivals.times(sequence)),
        }
        .unwrap_or(0)
    }

    fn noted(&self) -> u64 {
        let once: u64 = self.sources.iter().map(Arrivals::total).sum();
        once + self.counts.iter().flatten().map(|count| u64::from(*count)).sum::<u64>()
    }
}

impl Arrivals {
    fn note(&mut self, sequence: u64) {
        let word = grown(&mut self.seen, (sequence / 64) as usize);
        let bit = 1 << (sequence % 64);
        match *word & bit {
            0 => *word |= bit,
            _ => *self.again.entry(sequence).or_default() += 1,
        }
    }

    fn merge(&mut self, other: Arrivals) {
        for (sequence, count) in other.again {
            *self.again.entry(sequence).or_default() += count;
        }
        for (index, bits) in other.seen.into_iter().enumerate() {
            let mine = grown(&mut self.seen, index);
            let mut both = *mine & bits;
            *mine |= bits;
            while both != 0 {
                let sequence = index as u64 * 64 + u64::from(both.trailing_zeros());
                *self.again.entry(sequence).or_default() += 1;
                both &= both - 1;
            }
        }
    }

    fn times(&self, sequence: u64) -> u32 {
        let word = self.seen.get((sequence / 64) as usize).copied().unwrap_or(0);
        match word >> (sequence % 64) & 1 {
            0 => 0,
            _ if self.again.is_empty() => 1,
            _ => 1 + self.again.get(&sequence).copied().unwrap_or(0),
        }
    }

    fn total(&self) -> u64 {
        let once: u64 = self.seen.iter().map(|word| u64::from(word.count_ones())).sum();
        once + self.again.values().map(|count| u64::from(*count)).sum::<u64>()
    }
}

/// The element at `index`, after growing the list so far.
fn grown<T: Clone + Default>(list: &mut Vec<T>, index: usize) -> &mut T {
    if index >= list.len() {
        list.resize(index + 1, T::default());
    }
    &mut list[index]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bits(source: u8, sequence: u64) -> Option<u64> {
        Some(Id { run: 9, source, sequence }.to_bits())
    }

    fn claim(first: u64, items: u64, times: u32) -> Claim {
        Claim { source: 0, first, items, times_min: times, times_max: times }
    }

    #[test]
    fn random_losses_and_doubles_are_counted_exactly() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        for repeating in [false, true] {
            let mut books = [Book::new(9, repeating), Book::new(9, repeating)];
            let (mut missing, mut duplicates, mut unexpected, mut alien) = (0, 0, 0, 0);
            for sequence in 0..20_000 {
                let acked = sequence < 10_000;
                let times = random.u64(0..4) * u64::from(random.u8(..) < 20);
                let times = if random.u8(..) < 200 { u64::from(acked) } else { times };
                for _ in 0..times {
                    books[random.usize(0..2)].note(bits(0, sequence));
                }
                match acked {
                    true => missing += u64::from(times == 0),
                    false => unexpected += times,
                }
                duplicates += if acked { times.saturating_sub(1) } else { 0 };
                if random.u8(..) == 0 {
                    books[0].note([None, Some(sequence), bits(200, 1 << 35)][random.usize(0..3)]);
                    alien += 1;
                }
            }
            let [mut book, other] = books;
            book.merge(other);
            let verdict = book.audit(&[claim(0, 10_000, 1), claim(10_000, 5_000, 0)]);
            assert_eq!(verdict.missing, missing);
            assert_eq!(verdict.duplicates, duplicates);
            assert_eq!(verdict.unexpected, unexpected);
            assert_eq!(verdict.alien, alien);
        }
    }

    #[test]
    fn numbers_that_repeat_on_purpose_must_come_exactly_so_often() {
        let mut book = Book::new(9, true);
        for sequence in 0..10 {
            for _ in 0..3 {
                book.note(bits(0, sequence));
            }
        }
        assert!(book.audit(&[claim(0, 10, 3)]).is_clean());
        assert_eq!(book.audit(&[claim(0, 10, 4)]).missing, 10);
        assert_eq!(book.audit(&[claim(0, 10, 1)]).duplicates, 20);
    }

    #[test]
    fn what_nobody_knows_may_have_arrived_or_not() {
        let mut book = Book::new(9, false);
        book.note(bits(0, 0));
        let unknown = Claim { source: 0, first: 0, items: 2, times_min: 0, times_max: 1 };
        assert!(book.audit(&[unknown]).is_clean());
    }
}
