//! What came of a connection's streams behind a gap: the transport holds it until the gap is
//! filled, and with each piece of it the buffer that the piece came in, however short it is. So it
//! is counted by frames, bounded, and asked for at the door.
//!
//! A frame that came and was not read is held. The transport tells each that comes but for the
//! first of a stream, and hands in each that is read: what is between the two is held, or came
//! twice, or was merged with another. Those are forgotten once so much more of their stream was
//! read that nothing which came before can still be ahead of it.
//!
//! Always
//! - No less is counted than is held.
//! - What comes in order, and once, counts for nothing when its turn is over.
//! - A connection that holds more than anybody who sends whole packets could, is ended. Where the
//!   door has no room it may hold as much as its window brings in full packets, and no more.

use bytes::Bytes;
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
/// On a stream of one direction, where nobody says much and nothing has to come by a time. As many
/// may come twice in its life, which is as long as its connection's.
const UNI_FRAMES_MAX: i32 = 32;

/// One connection's.
#[derive(Debug, Default)]
pub(super) struct Gaps {
    unread: Vec<Unread>,
    /// What comes of a stream is at most so far ahead of what was read of it.
    ahead_bytes: usize,
    charged: usize,
}

/// Frames of one stream.
#[derive(Debug)]
struct Unread {
    stream: StreamId,
    /// That came, less those that were read. Less than none, while it is not told of all that came
    /// yet.
    frames: i32,
    /// That were told while the last `bytes` were read.
    told: i32,
    bytes: usize,
}

impl Gaps {
    pub(super) fn new(ahead_bytes: usize) -> Gaps {
        Gaps { ahead_bytes, ..Gaps::default() }
    }

    /// One frame of a stream was told, and these were read.
    pub(super) fn note(&mut self, stream: StreamId, read: &[Bytes]) {
        let more = 1 - read.len() as i32;
        let Some(place) = self.unread.iter().position(|unread| unread.stream == stream) else {
            if more != 0 {
                self.unread.push(Unread { stream, frames: more, told: 1, bytes: 0 });
            }
            return;
        };
        let unread = &mut self.unread[place];
        unread.frames += more;
        unread.told += 1;
        unread.bytes += read.iter().map(Bytes::len).sum::<usize>();
        if unread.bytes > self.ahead_bytes {
            // What came before all of these bytes is read by now, or came twice.
            unread.frames = unread.frames.min(unread.told);
            (unread.told, unread.bytes) = (0, 0);
        }
        if unread.frames == 0 {
            self.unread.swap_remove(place);
        }
    }

    /// Nothing of a stream is held any more.
    pub(super) fn end(&mut self, stream: StreamId) {
        self.unread.retain(|unread| unread.stream != stream);
    }

    fn frames(&self) -> usize {
        self.unread.iter().map(|unread| usize::try_from(unread.frames).unwrap_or(0)).sum()
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
        let is_uni = |unread: &&Unread| unread.stream.dir() == Dir::Uni;
        let is_uni_full =
            self.unread.iter().filter(is_uni).any(|unread| unread.frames > UNI_FRAMES_MAX);
        // A stream that a later one opened counts for a frame, and nothing of it came.
        let opened = self.unread.iter().filter(|unread| !is_uni(unread)).count();
        let frames_max = FRAMES_MIN + opened + window as usize / BYTES_PER_FRAME;
        let uncharged_max =
            UNCHARGED_BYTES_MIN + opened * FRAME_BYTES + UNCHARGED_WINDOWS * window as usize;
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
