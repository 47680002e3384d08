//! What connections may send ahead: it is held if it comes out of order, so it is asked for at the
//! door, and given back with the connection.
//!
//! Always
//! - A connection begins with a small window, and gets more only for what it has sent whole, and
//!   as fast as the window lets it: who leaves a gap and goes on gets none, nor who takes its time.
//! - A window that was not used for a while is small again. What a peer was allowed can't be
//!   unsaid, so it is given back at the door only as the peer uses it up.
//! - What is charged at the door is what all windows have beyond the first ones; what is held of
//!   any of them is charged on its own: [`super::gaps`].

use super::Quic;
use crate::request::{Door, Nanos};

/// A window is wanted wider if as much as it is came within twice the way there and back: at least
/// so long, for turns may take some of it, and at most, for the peer has a part in how it is
/// measured.
const PATIENCE_MIN: Nanos = 10_000_000;
const PATIENCE_MAX: Nanos = 1_000_000_000;
/// Wider than the first, it has to be used by half now and then.
const UNUSED_MAX: Nanos = 10_000_000_000;

/// One connection's.
#[derive(Debug, Default)]
pub(super) struct Window {
    first: u32,
    bytes: u32,
    /// Taken back of it, but the peer was allowed it and has not used it up.
    owed: u32,
    /// Used up of what was taken back, and not yet given back at the door.
    given_back: u32,
    /// What was read of late, and until when it is of late.
    read: u64,
    read_until: Nanos,
    used_at: Nanos,
}

impl Window {
    pub(super) fn new(first: u32, now: Nanos) -> Window {
        Window { first, bytes: first, used_at: now, ..Window::default() }
    }

    /// So much of what came was read. `round_trip`: to the peer and back. Returns what the window
    /// shall be, if it shall be narrower.
    pub(super) fn note(&mut self, read: usize, round_trip: Nanos, now: Nanos) -> Option<u32> {
        let used_up = self.owed.min(u32::try_from(read).unwrap_or(u32::MAX));
        self.owed -= used_up;
        self.given_back += used_up;
        if now > self.read_until {
            self.read = 0;
            let patience = round_trip.saturating_mul(2).clamp(PATIENCE_MIN, PATIENCE_MAX);
            self.read_until = now + patience;
        }
        self.read += read as u64;
        if self.read >= u64::from(self.bytes / 2) {
            self.used_at = now;
        }
        let is_unused = now >= self.used_at + UNUSED_MAX && self.bytes > self.first;
        is_unused.then(|| {
            self.owed += self.bytes - self.first;
            self.bytes = self.first;
            self.used_at = now;
            self.bytes
        })
    }

    /// How much more it should be: as much again, up to `most` in all.
    pub(super) fn wants(&self, most: u32, now: Nanos) -> Option<u32> {
        let is_earned = self.read >= u64::from(self.bytes) && now <= self.read_until;
        let more = most.saturating_sub(self.bytes).min(self.bytes);
        (more > 0 && is_earned && self.owed == 0).then_some(more)
    }

    /// Returns what it is now.
    pub(super) fn widen(&mut self, more: u32, now: Nanos) -> u32 {
        self.bytes += more;
        (self.read, self.used_at) = (0, now);
        self.bytes
    }

    /// What the peer may send ahead now.
    pub(super) fn allowed(&self) -> u32 {
        self.bytes + self.owed
    }

    /// What can be given back at the door.
    pub(super) fn take_given_back(&mut self) -> usize {
        std::mem::take(&mut self.given_back) as usize
    }

    /// All that the door was asked for: the window ends.
    pub(super) fn take_all(&mut self) -> usize {
        let charged = self.bytes - self.first + self.owed + self.given_back;
        *self = Window::default();
        charged as usize
    }
}

impl Quic {
    /// Connections may send so much ahead in sum, and the door's budget is asked for it; beside it
    /// each has a small first window. Without this the door alone bounds it.
    pub fn limit_windows(&mut self, bytes_max: usize) {
        self.windows_bytes_max = bytes_max;
    }

    /// A connection that has sent what it may gets as much again; what one had that needs it no
    /// more is given back.
    pub(super) fn adjust_window(&mut self, index: usize, now: Nanos, door: &mut dyn Door) {
        let Some(connection) = self.slots[index].connection.as_deref_mut() else {
            return;
        };
        let charge = connection.take_charge();
        self.stats.window_bytes -= charge as u64;
        door.release(charge);
        let room = (self.windows_bytes_max as u64).saturating_sub(self.stats.window_bytes);
        if let Some(more) = connection.wants_window(&self.config.limits, now)
            && u64::from(more) <= room
            && door.reserve(more as usize)
        {
            self.stats.window_bytes += u64::from(more);
            connection.widen(more, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: Nanos = 1_000_000;
    const FIRST: u32 = 32 << 10;
    const MOST: u32 = 1 << 20;

    /// Reads `bytes` in each step of `step`; returns what was given back at the door.
    fn read(window: &mut Window, now: &mut Nanos, step: Nanos, bytes: usize, times: u32) -> usize {
        let mut given_back = 0;
        for _ in 0..times {
            *now += step;
            window.note(bytes, 5 * MILLI, *now);
            given_back += window.take_given_back();
            if let Some(more) = window.wants(MOST, *now) {
                window.widen(more, *now);
            }
        }
        given_back
    }

    #[test]
    fn who_sends_slowly_gets_no_more_however_much_it_is() {
        let (mut window, mut now) = (Window::new(FIRST, 0), 0);
        read(&mut window, &mut now, 100 * MILLI, FIRST as usize - 1, 10_000);
        assert_eq!(window.bytes, FIRST);
        read(&mut window, &mut now, MILLI, 60_000, 100);
        assert_eq!((window.bytes, window.take_all()), (MOST, (MOST - FIRST) as usize));
    }

    #[test]
    fn what_is_not_used_is_taken_back_as_the_peer_uses_it_up() {
        let (mut window, mut now) = (Window::new(FIRST, 0), 0);
        read(&mut window, &mut now, MILLI, 60_000, 100);
        // Half of it at once now and then is use.
        read(&mut window, &mut now, 5_000 * MILLI, MOST as usize / 2, 10);
        assert_eq!(window.bytes, MOST);
        let mut given_back = read(&mut window, &mut now, 5_000 * MILLI, 1_000, 3);
        assert_eq!(window.bytes, FIRST);
        assert!(given_back < 3_000, "the peer may still send all of it: {given_back}");
        given_back += read(&mut window, &mut now, 5_000 * MILLI, 1_000, 2_000);
        assert_eq!(given_back, (MOST - FIRST) as usize);
        assert_eq!((window.bytes, window.take_all()), (FIRST, 0));
    }
}
