//! What connections may send ahead: it is held if it comes out of order, so it is asked for at the
//! door, and given back with the connection.
//!
//! Always
//! - A connection begins with a small window, and gets more only for what it has sent whole: who
//!   leaves a gap and goes on gets none.
//! - What is charged at the door is what all windows have beyond the first ones.

use super::Quic;
use crate::request::Door;

impl Quic {
    /// Connections may send so much ahead in sum, and the door's budget is asked for it; beside it
    /// each has a small first window. Without this the door alone bounds it.
    pub fn limit_windows(&mut self, bytes_max: usize) {
        self.windows_bytes_max = bytes_max;
    }

    /// A connection that has sent what it may gets as much again; what one had that is closed is
    /// given back.
    pub(super) fn adjust_window(&mut self, index: usize, door: &mut dyn Door) {
        let Some(connection) = self.slots[index].connection.as_deref_mut() else {
            return;
        };
        let charge = connection.take_charge();
        self.stats.window_bytes -= charge as u64;
        door.release(charge);
        let room = (self.windows_bytes_max as u64).saturating_sub(self.stats.window_bytes);
        if let Some(more) = connection.wants_window(&self.config.limits)
            && u64::from(more) <= room
            && door.reserve(more as usize)
        {
            self.stats.window_bytes += u64::from(more);
            connection.widen(more);
        }
    }
}
