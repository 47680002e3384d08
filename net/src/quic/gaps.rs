//! What came of a connection's streams behind a gap: the transport holds it until the gap is
//! filled, and with each piece of it the buffer that the piece came in, however short it is. So it
//! is counted by frames, bounded, and asked for at the door.
//!
//! A frame that came and was not read is held. The transport tells each that comes but for the
//! first of a stream, and hands in each that is read: what is between the two is held, or came
//! twice, or was merged with another.
//!
//! Always
//! - No less is counted than is held.
//! - What comes in order counts for nothing once its turn is over.
//! - A connection that holds more than anybody who sends whole packets could, is ended. Where the
//!   door has no room it may hold as much as its window brings in full packets, and no more.

use quinn_proto::{Dir, StreamId};

use super::config::ARRIVAL_BYTES_MAX;
use crate::request::Door;

/// A frame keeps at most this: two datagrams may have come in one copy; and its place in a list. A
/// buffer on loan from the ring is longer, but those are few, and the ring's own.
const FRAME_BYTES: usize = 2 * ARRIVAL_BYTES_MAX as usize + 96;
/// Frames that a connection may have behind gaps, beside one for so many bytes of its window. A
/// client whose packets are full has a third of it.
const FRAMES_MIN: usize = 128;
const BYTES_PER_FRAME: usize = 512;
/// What may be held where the door has no room for it: as much as a window of full packets keeps,
/// and some more. Nobody is ended because others fill the budget and the network lost a packet.
const UNCHARGED_BYTES_MIN: usize = 64 << 10;
const UNCHARGED_WINDOWS: usize = 3;
/// On a stream of one direction: nobody says so much there, and none of it has to come by a time.
const UNI_FRAMES_MAX: i32 = 8;

/// One connection's.
#[derive(Debug, Default)]
pub(super) struct Gaps {
    /// By stream: frames that came, less those that were read. Less than none, while it is not told
    /// of all that came yet.
    unread: Vec<(StreamId, i32)>,
    charged: usize,
}

impl Gaps {
    /// So many frames of a stream were told, and so many were read.
    pub(super) fn note(&mut self, stream: StreamId, told: usize, read: usize) {
        let more = told as i32 - read as i32;
        if more == 0 {
            return;
        }
        let Some(place) = self.unread.iter().position(|(id, _)| *id == stream) else {
            return self.unread.push((stream, more));
        };
        self.unread[place].1 += more;
        if self.unread[place].1 == 0 {
            self.unread.swap_remove(place);
        }
    }

    /// Nothing of a stream is held any more.
    pub(super) fn end(&mut self, stream: StreamId) {
        self.unread.retain(|(id, _)| *id != stream);
    }

    fn frames(&self) -> usize {
        self.unread.iter().map(|(_, unread)| usize::try_from(*unread).unwrap_or(0)).sum()
    }

    /// Asks the door for what is held now, and gives back what is not. `window`: what the peer may
    /// send ahead. `false`: it holds more than it may.
    pub(super) fn charge(&mut self, window: u32, door: &mut dyn Door) -> bool {
        if self.unread.is_empty() && self.charged == 0 {
            return true;
        }
        let frames = self.frames();
        let held = frames * FRAME_BYTES;
        if held < self.charged {
            door.release(self.charged - held);
            self.charged = held;
        } else if held > self.charged && door.reserve(held - self.charged) {
            self.charged = held;
        }
        let is_uni_full =
            self.unread.iter().any(|(id, unread)| id.dir() == Dir::Uni && *unread > UNI_FRAMES_MAX);
        let frames_max = FRAMES_MIN + window as usize / BYTES_PER_FRAME;
        let uncharged_max = UNCHARGED_BYTES_MIN + UNCHARGED_WINDOWS * window as usize;
        frames <= frames_max && !is_uni_full && held - self.charged <= uncharged_max
    }

    /// What the door was asked for.
    pub(super) fn charged(&self) -> usize {
        self.charged
    }

    /// The connection ends: all of it is given back.
    pub(super) fn give_back(&mut self, door: &mut dyn Door) {
        self.unread = Vec::new();
        door.release(std::mem::take(&mut self.charged));
    }
}
