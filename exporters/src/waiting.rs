//! The clock beside a lane: parts that are not to be sent before a time of their own.
//!
//! Sans I/O: time is an argument. Always: parts come back in the order in which they are due, and
//! each once.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::held::Part;

#[derive(Default)]
pub(crate) struct Waiting {
    /// By due time, and a number that keeps equal times apart.
    parts: BTreeMap<(Instant, u64), Part>,
    parts_made: u64,
}

impl Waiting {
    pub(crate) fn add(&mut self, part: Part, due: Instant) {
        self.parts.insert((due, self.parts_made), part);
        self.parts_made += 1;
    }

    pub(crate) fn take_due(&mut self, now: Instant) -> Option<Part> {
        let first = self.parts.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }

    /// How many are due, but no more than `most`.
    pub(crate) fn due(&self, now: Instant, most: usize) -> usize {
        self.parts.range(..=(now, u64::MAX)).take(most).count()
    }

    /// When the first that is not due yet will be.
    pub(crate) fn next_due(&self, now: Instant) -> Option<Instant> {
        self.parts.range((now, u64::MAX)..).next().map(|((due, _), _)| *due)
    }

    /// Makes the first one due, unless one is.
    pub(crate) fn hurry(&mut self, now: Instant) {
        if self.due(now, 1) == 0
            && let Some((_, part)) = self.parts.pop_first()
        {
            self.add(part, now);
        }
    }

    /// Those that `is_wanted` wait no longer.
    pub(crate) fn take(&mut self, is_wanted: impl Fn(&Part) -> bool) -> Vec<Part> {
        if !self.parts.values().any(&is_wanted) {
            return Vec::new();
        }
        let all = std::mem::take(&mut self.parts);
        let (taken, kept): (BTreeMap<_, _>, _) =
            all.into_iter().partition(|(_, part)| is_wanted(part));
        self.parts = kept;
        taken.into_values().collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    pub(crate) fn count(&self) -> u64 {
        self.parts.len() as u64
    }
}
