//! Who gives way when all places for handshakes are taken: numbers and keys alone.
//!
//! A first byte costs a stranger nothing, so it earns no place for long. The oldest that we have
//! not answered yet gives way at once: it has cost us nothing either. One that we have answered
//! cost a signature, and is close to its end if it means it: it gives way once it has had its
//! time ([`GRACE`]). If nobody can, the newest is sent away: in a crowd of honest clients the
//! first ones then end well, instead of all of them halfway.
//!
//! Always: what is remembered is bounded by a few per place.

use std::collections::VecDeque;

use crate::request::Nanos;
use crate::ring::Key;

/// What an honest client needs at most for its part of a handshake, over a bad line too.
const GRACE: Nanos = 1_000_000_000;
/// Beyond two per place, entries of handshakes that are over are cleared away.
const ENTRIES_SPARE: usize = 64;

/// How far a connection's handshake is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Nothing has come yet.
    Silent,
    /// Something has come, and we had nothing to say to it yet.
    Begun,
    Answered,
    /// There is none any more, or never was one.
    Over,
}

/// Those under way, and some that are over, each in the order of its beginning.
#[derive(Default)]
pub(crate) struct Handshakes {
    begun: VecDeque<Key>,
    answered: VecDeque<(Nanos, Key)>,
}

impl Handshakes {
    /// The handshake of `key` came to `progress`. `places`: how many may be under way at once;
    /// `progress_of`: how far each one is.
    pub(crate) fn note(
        &mut self,
        key: Key,
        progress: Progress,
        now: Nanos,
        places: u64,
        mut progress_of: impl FnMut(Key) -> Progress,
    ) {
        match progress {
            Progress::Begun => self.begun.push_back(key),
            Progress::Answered => self.answered.push_back((now, key)),
            Progress::Silent | Progress::Over => return,
        }
        let entries = (self.begun.len() + self.answered.len()).saturating_sub(ENTRIES_SPARE);
        if entries as u64 / 2 > places {
            self.begun.retain(|key| progress_of(*key) == Progress::Begun);
            self.answered.retain(|(_, key)| progress_of(*key) == Progress::Answered);
        }
    }

    /// Who is to give way to one more, if anybody is.
    pub(crate) fn give_way(
        &mut self,
        now: Nanos,
        mut progress_of: impl FnMut(Key) -> Progress,
    ) -> Option<Key> {
        while let Some(key) = self.begun.pop_front() {
            if progress_of(key) == Progress::Begun {
                return Some(key);
            }
        }
        while let Some((since, key)) = self.answered.front().copied() {
            let is_under_way = progress_of(key) == Progress::Answered;
            if is_under_way && now < since + GRACE {
                return None;
            }
            self.answered.pop_front();
            if is_under_way {
                return Some(key);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(index: u32) -> Key {
        Key { index, generation: 1 }
    }

    #[test]
    fn what_is_remembered_is_bounded_however_many_come_and_go() {
        let (mut handshakes, mut entries_max) = (Handshakes::default(), 0);
        for index in 0..10_000 {
            // Only the newest is under way.
            let progress_of = |asked| match asked == key(index) {
                true => Progress::Answered,
                false => Progress::Over,
            };
            handshakes.note(key(index), Progress::Begun, 0, 8, |_| Progress::Begun);
            handshakes.note(key(index), Progress::Answered, 0, 8, progress_of);
            entries_max = entries_max.max(handshakes.begun.len() + handshakes.answered.len());
        }
        assert!((16..=2 * 8 + ENTRIES_SPARE + 2).contains(&entries_max), "{entries_max}");
    }

    #[test]
    fn the_unanswered_give_way_first_and_the_answered_once_they_had_their_time() {
        let mut handshakes = Handshakes::default();
        let progress_of = |asked: Key| match asked.index {
            0 | 1 => Progress::Answered,
            2 | 3 => Progress::Begun,
            _ => Progress::Over,
        };
        for index in [4, 0, 2, 1, 3] {
            let progress = if index < 2 { Progress::Answered } else { Progress::Begun };
            handshakes.note(key(index), progress, u64::from(index), 8, progress_of);
        }
        let mut give_way = |now| handshakes.give_way(now, progress_of).map(|key| key.index);
        assert_eq!([give_way(5), give_way(5), give_way(5)], [Some(2), Some(3), None]);
        assert_eq!([give_way(GRACE), give_way(GRACE)], [Some(0), None]);
        assert_eq!([give_way(GRACE + 1), give_way(GRACE + 1)], [Some(1), None]);
    }
}
