//! The streams of one connection: how far each request and each answer came, and which streams
//! ended lately.
//!
//! A stream is here as long as either side has something to say on it, or the engine still works
//! on its request. Ids grow, so the streams lie in their order and are found by halves.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use http::HeaderValue;
use http::header::CONTENT_TYPE;

use super::messages::Messages;
use crate::fields::Fields;
use crate::request::{Head, Nanos, Refusal, Turn};

/// Below this a body's buffer grows in steps of it.
const GROWTH_BYTES_MIN: usize = 4 << 10;
/// A body of which this much has come may have this many times as much room, up to its end if
/// that is known, and else twice as much.
const EAGER_BYTES_MIN: usize = 2 << 10;
const EAGER_GROWTH: usize = 8;
/// Where the length of a gRPC message ends.
const GRPC_PREFIX_BYTES: usize = crate::grpc::PREFIX_BYTES;
const GRPC: &[u8] = b"application/grpc";
/// With room for more streams than this and none open, the room is given back.
const SPARE_STREAMS_MAX: usize = 32;
const ENDED_REMEMBERED: usize = 8;
/// Late frames for so many reset streams are known for what they are.
const RESETS_REMEMBERED: usize = 128;

pub(super) struct Stream {
    pub(super) id: u32,
    pub(super) recv: Recv,
    pub(super) send: Send,
    /// The request is a HEAD: its answer has no body.
    pub(super) bodiless: bool,
    /// The stream is reset; the engine does not know yet, and its answer goes nowhere.
    pub(super) orphaned: bool,
    /// What the peer gave beyond its initial window, less what was sent.
    pub(super) credit: i64,
}

impl Stream {
    /// Since when a streamed request owes us the rest of a message, or its first.
    pub(super) fn stalls_since(&self) -> Option<Nanos> {
        match (&self.recv, &self.send) {
            (Recv::Messages(messages), Send::Awaiting) => messages.stalls_since(),
            _ => None,
        }
    }
}

/// What the peer still sends.
pub(super) enum Recv {
    Body(Box<Receiving>),
    /// Message after message, as long as the peer likes: until the answer ends.
    Messages(Box<Messages>),
    /// The rest of a refused body.
    Discard(Box<Discarding>),
    Ended,
}

impl Recv {
    /// Whether the peer has ended its side.
    pub(super) fn is_ended(&self) -> bool {
        match self {
            Recv::Ended => true,
            Recv::Messages(messages) => messages.is_ended(),
            Recv::Body(_) | Recv::Discard(_) => false,
        }
    }
}

/// What we still send.
pub(super) enum Send {
    /// The answer is not there yet.
    Awaiting,
    /// The answer waits for the peer to give room.
    Blocked(Box<Unsent>),
    Ended,
}

pub(super) struct Receiving {
    pub(super) head: Head,
    pub(super) tag: u32,
    pub(super) bytes_max: usize,
    pub(super) body: BytesMut,
    pub(super) reserved: usize,
    pub(super) window: Window,
    pub(super) since: Nanos,
}

pub(super) struct Discarding {
    /// As the head said, if all of the body is thrown away.
    pub(super) length: Option<u64>,
    /// Thrown away so far.
    pub(super) bytes: usize,
    pub(super) window: Window,
    pub(super) since: Nanos,
}

pub(super) struct Unsent {
    pub(super) body: Bytes,
    pub(super) trailers: Fields,
    /// This is not the answer's end: without trailers the stream stays open.
    pub(super) goes_on: bool,
    pub(super) since: Nanos,
}

/// What the peer may send before it hears from us.
#[derive(Clone, Copy)]
pub(super) struct Window {
    size: u32,
    left: u32,
}

impl Window {
    pub(super) const fn new(size: u32) -> Window {
        Window { size, left: size }
    }

    /// `false`: the peer sends more than it may.
    pub(super) fn take(&mut self, bytes: usize) -> bool {
        match self.left.checked_sub(bytes as u32) {
            Some(left) => self.left = left,
            None => return false,
        }
        true
    }

    /// What to give back now: nothing, until a quarter of the window is used.
    pub(super) fn due(&mut self) -> Option<u32> {
        let used = self.size - self.left;
        if used < self.size / 4 {
            return None;
        }
        self.left = self.size;
        Some(used)
    }
}

impl Receiving {
    /// Keeps more of the body, or says why not. The room that it has is reserved.
    pub(super) fn keep(&mut self, piece: &[u8], turn: &mut Turn<'_>) -> Result<(), Refusal> {
        let bytes = self.body.len() + piece.len();
        self.is_within_bounds(bytes)?;
        self.since = turn.now;
        if self.body.capacity() < bytes {
            self.grow(bytes, piece, turn)?;
        }
        self.body.extend_from_slice(piece);
        Ok(())
    }

    /// A body that came in one piece, in a buffer that is no longer than it.
    pub(super) fn keep_whole(
        &mut self,
        piece: &[u8],
        turn: &mut Turn<'_>,
    ) -> Result<Bytes, Refusal> {
        self.is_within_bounds(piece.len())?;
        self.reserve(piece.len(), turn)?;
        Ok(Bytes::copy_from_slice(piece))
    }

    /// The body, in a buffer that is not much longer than it.
    pub(super) fn into_body(self) -> (Head, u32, Bytes, usize) {
        let Receiving { head, tag, body, reserved, .. } = self;
        let is_loose = body.capacity() > body.len() + body.len() / 4;
        let body = if is_loose { Bytes::copy_from_slice(&body) } else { body.freeze() };
        (head, tag, body, reserved)
    }

    fn is_within_bounds(&self, bytes: usize) -> Result<(), Refusal> {
        match bytes > self.bytes_max {
            true => Err(Refusal::TooLarge { bytes_max: self.bytes_max }),
            false => Ok(()),
        }
    }

    fn reserve(&mut self, bytes: usize, turn: &mut Turn<'_>) -> Result<(), Refusal> {
        if !turn.door.reserve(bytes) {
            return Err(Refusal::Overloaded);
        }
        self.reserved += bytes;
        Ok(())
    }

    /// Makes room for `bytes`, and for some of what is still to come, but not beyond the body's
    /// end: nobody gets memory for a promise alone, and the door is charged for all of it.
    fn grow(&mut self, bytes: usize, piece: &[u8], turn: &mut Turn<'_>) -> Result<(), Refusal> {
        // One that is passed already was wrong, and says nothing of what is to come.
        let expected = self.expected(piece).filter(|expected| *expected >= bytes);
        let expected = expected.map(|expected| expected.min(self.bytes_max));
        let room = match expected {
            Some(expected) if bytes >= EAGER_BYTES_MIN => expected.min(EAGER_GROWTH * bytes),
            Some(expected) => expected.min(GROWTH_BYTES_MIN),
            None => (2 * bytes).max(GROWTH_BYTES_MIN).min(self.bytes_max),
        };
        let room = room.max(bytes);
        self.reserve(room - self.body.capacity(), turn)?;
        let body = BytesMut::with_capacity(room);
        let before = std::mem::replace(&mut self.body, body);
        self.body.extend_from_slice(&before);
        Ok(())
    }

    /// How long the body will be, if its head or its beginning says so.
    fn expected(&self, piece: &[u8]) -> Option<usize> {
        if let Some(length) = self.head.content_length {
            return usize::try_from(length).ok();
        }
        let content_type = self.head.headers.get(&CONTENT_TYPE).map(HeaderValue::as_bytes);
        if !content_type.is_some_and(|value| value.starts_with(GRPC)) {
            return None;
        }
        let beginning = if self.body.is_empty() { piece } else { &self.body };
        let prefix = beginning.get(1..GRPC_PREFIX_BYTES)?;
        let length = u32::from_be_bytes(prefix.try_into().ok()?) as usize;
        Some(GRPC_PREFIX_BYTES + length)
    }
}

/// How a stream ended that is not here any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Past {
    Ended,
    ResetByPeer,
    ResetByUs,
    /// Long ago, or it was skipped.
    Forgotten,
}

#[derive(Default)]
pub(super) struct Streams {
    open: VecDeque<Stream>,
    ended: [u32; ENDED_REMEMBERED],
    ended_at: u8,
    resets: VecDeque<(u32, Past)>,
}

impl Streams {
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// A stream's place, for as long as none is added or removed.
    pub(super) fn find(&self, id: u32) -> Option<usize> {
        if self.open.back()?.id == id {
            return Some(self.open.len() - 1);
        }
        if self.open.front()?.id == id {
            return Some(0);
        }
        self.open.binary_search_by_key(&id, |stream| stream.id).ok()
    }

    pub(super) fn at(&mut self, place: usize) -> &mut Stream {
        &mut self.open[place]
    }

    /// `stream`'s id is the highest so far.
    pub(super) fn add(&mut self, stream: Stream) {
        self.open.push_back(stream);
    }

    pub(super) fn remove(&mut self, place: usize) -> Stream {
        let stream = self.open.remove(place).expect("the place was found just now");
        if self.open.is_empty() && self.open.capacity() > SPARE_STREAMS_MAX {
            self.open = VecDeque::new();
        }
        stream
    }

    /// Takes back a stream that was removed from `place`, with nothing else done in between.
    pub(super) fn put_back(&mut self, place: usize, stream: Stream) {
        self.open.insert(place, stream);
    }

    pub(super) fn remember(&mut self, id: u32, past: Past) {
        if past == Past::Ended {
            self.ended[usize::from(self.ended_at)] = id;
            self.ended_at = (self.ended_at + 1) % ENDED_REMEMBERED as u8;
            return;
        }
        if self.resets.len() == RESETS_REMEMBERED {
            self.resets.pop_front();
        }
        self.resets.push_back((id, past));
    }

    pub(super) fn past(&self, id: u32) -> Past {
        if self.ended.contains(&id) {
            return Past::Ended;
        }
        let found = self.resets.iter().rev().find(|(reset, _)| *reset == id);
        found.map_or(Past::Forgotten, |(_, past)| *past)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Stream> {
        self.open.iter()
    }

    /// The ids of those that `is_chosen`.
    pub(super) fn ids(&self, is_chosen: impl Fn(&Stream) -> bool) -> Vec<u32> {
        self.open.iter().filter(|stream| is_chosen(stream)).map(|stream| stream.id).collect()
    }

    pub(super) fn take_all(&mut self) -> VecDeque<Stream> {
        self.resets = VecDeque::new();
        std::mem::take(&mut self.open)
    }
}
