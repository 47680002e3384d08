//! The streams of one connection: what is left to send of each request, and what came of its
//! answer.
//!
//! Ids grow, so the streams lie in their order and are found by halves.

use std::collections::VecDeque;
use std::vec;

use bytes::{Buf, Bytes};

use super::{Answer, STREAM_WINDOW_BYTES};
use crate::http2::stream::Window;

pub(super) struct Stream {
    pub(super) id: u32,
    pub(super) message: Message,
    /// What the peer gave beyond its initial window, less what was sent.
    pub(super) credit: i64,
    pub(super) answer: Option<Answer>,
    /// As the answer's head said.
    pub(super) content_length: Option<u64>,
    /// Heads that came before the answer's.
    pub(super) interim_heads: u32,
    /// What the peer may send.
    pub(super) window: Window,
}

impl Stream {
    pub(super) fn new(id: u32, message: Message) -> Stream {
        Stream {
            id,
            message,
            credit: 0,
            answer: None,
            content_length: None,
            interim_heads: 0,
            window: Window::new(STREAM_WINDOW_BYTES),
        }
    }

    /// Whether the answer's body is as long as its head says.
    pub(super) fn fits_length(&self) -> bool {
        let bytes = self.answer.as_ref().map_or(0, |answer| answer.body.len() as u64);
        self.content_length.is_none_or(|length| length == bytes)
    }
}

/// The rest of a request's message.
pub(super) struct Message {
    first: Bytes,
    others: vec::IntoIter<Bytes>,
    bytes: usize,
}

impl Message {
    pub(super) fn new(pieces: Vec<Bytes>) -> Message {
        let bytes = pieces.iter().map(Bytes::len).sum();
        Message { first: Bytes::new(), others: pieces.into_iter(), bytes }
    }

    pub(super) fn len(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// The next piece, of `bytes_max` at most; nothing at the end.
    pub(super) fn take(&mut self, bytes_max: usize) -> Option<Bytes> {
        while !self.first.has_remaining() {
            self.first = self.others.next()?;
        }
        let piece = self.first.split_to(bytes_max.min(self.first.len()));
        self.bytes -= piece.len();
        Some(piece)
    }
}

#[derive(Default)]
pub(super) struct Streams {
    open: VecDeque<Stream>,
}

impl Streams {
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// `stream`'s id is the highest so far.
    pub(super) fn add(&mut self, stream: Stream) {
        self.open.push_back(stream);
    }

    pub(super) fn live(&mut self, id: u32) -> Option<&mut Stream> {
        let place = self.find(id)?;
        self.open.get_mut(place)
    }

    pub(super) fn remove(&mut self, id: u32) -> Option<Stream> {
        let place = self.find(id)?;
        self.open.remove(place)
    }

    /// Takes the newest stream, if its id is above `last`.
    pub(super) fn pop_above(&mut self, last: u32) -> Option<Stream> {
        let is_above = self.open.back()?.id > last;
        is_above.then(|| self.open.pop_back())?
    }

    pub(super) fn drain(&mut self) -> impl Iterator<Item = Stream> {
        self.open.drain(..)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Stream> {
        self.open.iter_mut()
    }

    fn find(&self, id: u32) -> Option<usize> {
        // Answers mostly come in the order of the requests.
        if self.open.front()?.id == id {
            return Some(0);
        }
        self.open.binary_search_by_key(&id, |stream| stream.id).ok()
    }
}
