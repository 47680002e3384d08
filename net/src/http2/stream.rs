//! The streams of one connection: how far each request and each answer came, and which streams
//! ended lately.
//!
//! A stream is here as long as either side has something to say on it, or the engine still works
//! on its request. Ids grow, so the streams lie in their order and are found by halves.

use std::collections::VecDeque;

use bytes::Bytes;

use super::messages::Messages;
use crate::body::Receiving;
use crate::fields::Fields;
use crate::pace::Pace;
use crate::request::{Limits, Nanos};

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
    /// How what comes does: a body, its rest, or of a streamed request the rest of a message, or
    /// its first. `None`: none of it is awaited.
    pub(super) fn pace(&self) -> Option<&Pace> {
        match (&self.recv, &self.send) {
            (Recv::Body(arriving), _) => Some(&arriving.kept.pace),
            (Recv::Discard(discarding), _) => Some(&discarding.pace),
            (Recv::Messages(messages), Send::Awaiting) => messages.pace(),
            _ => None,
        }
    }

    /// When the peer has to have gone on.
    pub(super) fn due(&self, limits: &Limits) -> Option<Nanos> {
        match (self.pace(), &self.send) {
            (Some(pace), _) => Some(pace.due(limits)),
            (None, Send::Blocked(unsent)) => Some(unsent.since + limits.write_timeout),
            (None, _) => None,
        }
    }
}

/// What the peer still sends.
pub(super) enum Recv {
    Body(Box<Arriving>),
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

/// A body and what the peer may still send of it.
pub(super) struct Arriving {
    pub(super) kept: Receiving,
    pub(super) window: Window,
}

pub(super) struct Discarding {
    /// As the head said, if all of the body is thrown away.
    pub(super) length: Option<u64>,
    /// Thrown away so far.
    pub(super) bytes: usize,
    pub(super) window: Window,
    pub(super) pace: Pace,
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
