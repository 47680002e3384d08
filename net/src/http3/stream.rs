//! The request streams of one connection: how far each request and each answer came.
//!
//! Numbers grow, so the streams lie in their order and are found by halves.

use std::collections::VecDeque;

use bytes::Bytes;
use smallvec::SmallVec;

use super::frame::Cutter;
use crate::body::Receiving;
use crate::pace::Pace;
use crate::request::{Limits, Nanos};

/// With room for more streams than this and none open, the room is given back.
const SPARE_STREAMS_MAX: usize = 16;

pub(super) struct Stream {
    pub(super) number: u32,
    pub(super) cutter: Cutter,
    /// Of the frame that is open.
    pub(super) frame: Frame,
    pub(super) recv: Recv,
    pub(super) send: Send,
    /// A HEADERS frame that is not whole.
    pub(super) section: Vec<u8>,
    /// The trailers came: nothing but their stream's end may follow.
    pub(super) has_trailers: bool,
    /// The request is a HEAD: its answer has no body.
    pub(super) bodiless: bool,
    /// The stream is reset; the engine does not know yet, and its answer goes nowhere.
    pub(super) orphaned: bool,
}

/// What the payload of a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Frame {
    Skipped,
    Head,
    Data,
    Trailers,
}

/// What the peer still sends.
pub(super) enum Recv {
    /// Its head, since when.
    Head(Nanos),
    Body(Box<Receiving>),
    /// The rest of a refused request: so many bytes came.
    Discard(usize, Pace),
    Ended,
}

/// What we still send.
pub(super) enum Send {
    /// The answer is not there yet.
    Awaiting,
    /// The answer waits for the peer to give room.
    Blocked(Box<Unsent>),
    Ended,
}

pub(super) struct Unsent {
    pub(super) chunks: SmallVec<[Bytes; 3]>,
    pub(super) since: Nanos,
}

impl Stream {
    pub(super) fn new(number: u32, now: Nanos) -> Stream {
        Stream {
            number,
            cutter: Cutter::default(),
            frame: Frame::Skipped,
            recv: Recv::Head(now),
            send: Send::Awaiting,
            section: Vec::new(),
            has_trailers: false,
            bodiless: false,
            orphaned: false,
        }
    }

    /// When the peer has to have gone on.
    pub(super) fn due(&self, limits: &Limits) -> Option<Nanos> {
        match (&self.recv, &self.send) {
            (_, Send::Blocked(unsent)) => Some(unsent.since + limits.write_timeout),
            (Recv::Head(since), _) => Some(since + limits.header_timeout),
            (Recv::Body(receiving), _) => Some(receiving.pace.due(limits)),
            (Recv::Discard(_, pace), _) => Some(pace.due(limits)),
            (Recv::Ended, _) => None,
        }
    }

    pub(super) fn is_over(&self) -> bool {
        matches!((&self.recv, &self.send), (Recv::Ended, Send::Ended))
    }
}

#[derive(Default)]
pub(super) struct Streams(VecDeque<Stream>);

impl Streams {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Stream> {
        self.0.iter()
    }

    /// A stream's place, for as long as none is added or removed.
    pub(super) fn find(&self, number: u32) -> Option<usize> {
        if self.0.back()?.number == number {
            return Some(self.0.len() - 1);
        }
        if self.0.front()?.number == number {
            return Some(0);
        }
        self.0.binary_search_by_key(&number, |stream| stream.number).ok()
    }

    pub(super) fn at(&mut self, place: usize) -> &mut Stream {
        &mut self.0[place]
    }

    /// `stream`'s number is the highest so far.
    pub(super) fn add(&mut self, stream: Stream) {
        self.0.push_back(stream);
    }

    pub(super) fn remove(&mut self, place: usize) -> Stream {
        let stream = self.0.remove(place).expect("the place was found just now");
        if self.0.is_empty() && self.0.capacity() > SPARE_STREAMS_MAX {
            self.0 = VecDeque::new();
        }
        stream
    }

    pub(super) fn remove_if_over(&mut self, place: usize) {
        if self.0[place].is_over() {
            self.remove(place);
        }
    }

    pub(super) fn numbers(&self, is: impl Fn(&Stream) -> bool) -> Vec<u32> {
        self.0.iter().filter(|stream| is(stream)).map(|stream| stream.number).collect()
    }

    pub(super) fn take_all(&mut self) -> VecDeque<Stream> {
        std::mem::take(&mut self.0)
    }
}
