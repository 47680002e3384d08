//! How much a TCP sender lets go before it hears of it: what a lossy path does to throughput.
//!
//! As Cubic behaves where losses are frequent and windows small, which is where it holds itself to
//! what Reno would get (RFC 9438 section 4.3), and as selective acknowledgement has it: each
//! segment leaves the window with its own. Counts in segments. No clock: time is what it is told.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

const INITIAL: f64 = 10.0;
const LEAST: f64 = 2.0;
/// What is left of a window after a loss, and what it grows by in a round trip.
const SHRUNK: f64 = 0.7;
const GROWTH: f64 = 3.0 * (1.0 - SHRUNK) / (1.0 + SHRUNK);

#[derive(Clone, Debug)]
pub(super) struct Window {
    size: f64,
    /// Below this it doubles in a round trip.
    threshold: f64,
    /// When what is under way will have been acknowledged.
    acks: BinaryHeap<Reverse<Instant>>,
    /// When the last one left, or will.
    last: Option<Instant>,
    /// When the sender learns of a loss; others until then are the same one to it.
    learns: Option<Instant>,
}

impl Window {
    pub(super) fn new() -> Window {
        Window::of(INITIAL)
    }

    fn of(size: f64) -> Window {
        let threshold = f64::INFINITY;
        Window { size, threshold, acks: BinaryHeap::new(), last: None, learns: None }
    }

    /// One that holds nothing up.
    #[cfg(test)]
    pub(super) fn boundless() -> Window {
        Window::of(f64::INFINITY)
    }

    /// When a segment that is there at `now` may leave; never before one that left earlier.
    pub(super) fn leave(&mut self, now: Instant) -> Instant {
        let mut at = self.last.map_or(now, |last| last.max(now));
        loop {
            self.hear(at);
            if self.learns.is_some_and(|learns| learns <= at) {
                self.learns = None;
                self.size = (self.size * SHRUNK).max(LEAST);
                self.threshold = self.size;
            }
            match self.acks.peek() {
                Some(Reverse(next)) if self.acks.len() as f64 >= self.size.floor() => at = *next,
                _ => {
                    self.last = Some(at);
                    return at;
                }
            }
        }
    }

    /// What left will be acknowledged then.
    pub(super) fn left(&mut self, acknowledged: Instant) {
        self.acks.push(Reverse(acknowledged));
    }

    /// What left was lost, and then the sender learns of it.
    pub(super) fn lost(&mut self, learns: Instant) {
        self.learns.get_or_insert(learns);
    }

    /// Takes the acknowledgements until `at`. A window that is not used does not grow.
    fn hear(&mut self, at: Instant) {
        let is_used = self.acks.len() as f64 * 2.0 >= self.size;
        while self.acks.peek().is_some_and(|Reverse(ack)| *ack <= at) {
            self.acks.pop();
            if is_used {
                let is_starting = self.size < self.threshold;
                self.size += if is_starting { 1.0 } else { GROWTH / self.size };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const ROUND_TRIP: Duration = Duration::from_millis(100);

    /// In which round trip each of `count` segments leaves that are all there at the start.
    fn rounds(window: &mut Window, start: Instant, count: usize) -> Vec<usize> {
        let mut rounds = vec![0; 40];
        for _ in 0..count {
            let at = window.leave(start);
            window.left(at + ROUND_TRIP);
            rounds[((at - start).as_millis() / ROUND_TRIP.as_millis()) as usize] += 1;
        }
        rounds
    }

    #[test]
    fn a_window_doubles_in_each_round_trip_until_something_is_lost() {
        let start = Instant::now();
        let mut window = Window::new();
        assert_eq!(rounds(&mut window, start, 150)[..4], [10, 20, 40, 80]);
        let later = start + 10 * ROUND_TRIP;
        window.leave(later);
        let was = window.size;
        // Two losses that the sender learns of in one round trip are one.
        window.lost(later);
        window.lost(later + ROUND_TRIP / 2);
        window.leave(later);
        let shrunk = window.size;
        assert!(shrunk < was && shrunk > 0.6 * was, "{was} {shrunk}");
        window.leave(later + ROUND_TRIP);
        assert_eq!(window.size, shrunk);
        let after = rounds(&mut window, later + ROUND_TRIP, 2000);
        let steps: Vec<usize> = after[..8].windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(steps.iter().all(|step| *step <= 1), "it creeps: {after:?}");
    }

    #[test]
    fn a_window_never_closes_and_one_without_bounds_holds_nothing_up() {
        let start = Instant::now();
        let mut window = Window::new();
        for nth in 0..100 {
            let at = start + nth * ROUND_TRIP;
            window.lost(at);
            window.leave(at);
        }
        assert_eq!(window.size, LEAST);
        let mut boundless = Window::boundless();
        boundless.lost(start);
        assert_eq!(rounds(&mut boundless, start, 5000)[0], 5000);
    }
}
