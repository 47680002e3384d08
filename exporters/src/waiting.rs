//! The clock beside a lane: what is not to be sent before a time of its own. A lane has parts
//! there.
//!
//! Sans I/O: time is an argument. Always: parts come back in the order in which they are due, and
//! each once.

use std::collections::BTreeMap;
use std::time::Instant;

/// See the file's head.
pub struct Waiting<T> {
    /// By due time, and a number that keeps equal times apart.
    parts: BTreeMap<(Instant, u64), T>,
    parts_made: u64,
}

impl<T> Default for Waiting<T> {
    fn default() -> Waiting<T> {
        Waiting { parts: BTreeMap::new(), parts_made: 0 }
    }
}

impl<T> Waiting<T> {
    /// Not before `due`.
    pub fn add(&mut self, part: T, due: Instant) {
        self.parts.insert((due, self.parts_made), part);
        self.parts_made += 1;
    }

    /// The first that is due.
    pub fn take_due(&mut self, now: Instant) -> Option<T> {
        let first = self.parts.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }

    /// How many are due, but no more than `most`.
    pub fn due(&self, now: Instant, most: usize) -> usize {
        self.parts.range(..=(now, u64::MAX)).take(most).count()
    }

    /// When the first that is not due yet will be.
    pub fn next_due(&self, now: Instant) -> Option<Instant> {
        self.parts.range((now, u64::MAX)..).next().map(|((due, _), _)| *due)
    }

    /// Makes the first one due, unless one is.
    pub fn hurry(&mut self, now: Instant) {
        if self.due(now, 1) == 0
            && let Some((_, part)) = self.parts.pop_first()
        {
            self.add(part, now);
        }
    }

    /// Those that `is_wanted` wait no longer.
    pub fn take(&mut self, is_wanted: impl Fn(&T) -> bool) -> Vec<T> {
        if !self.parts.values().any(&is_wanted) {
            return Vec::new();
        }
        let all = std::mem::take(&mut self.parts);
        let (taken, kept): (BTreeMap<_, _>, _) =
            all.into_iter().partition(|(_, part)| is_wanted(part));
        self.parts = kept;
        taken.into_values().collect()
    }

    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    pub fn count(&self) -> u64 {
        self.parts.len() as u64
    }
}
