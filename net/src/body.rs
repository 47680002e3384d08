//! A request's body while it comes in pieces: kept within its bounds and within what the door
//! reserves for it. Knows nothing of frames or windows: HTTP/2 and HTTP/3 share it.

use bytes::{Bytes, BytesMut};
use http::HeaderValue;
use http::header::CONTENT_TYPE;

use crate::pace::Pace;
use crate::request::{Admitted, Head, Nanos, Refusal, Turn};

/// Below this a body's buffer grows in steps of it.
const GROWTH_BYTES_MIN: usize = 4 << 10;
/// A body of which this much has come may have this many times as much room, up to its end if
/// that is known, and else twice as much.
const EAGER_BYTES_MIN: usize = 2 << 10;
const EAGER_GROWTH: usize = 8;
/// Where the length of a gRPC message ends.
const GRPC_PREFIX_BYTES: usize = crate::grpc::PREFIX_BYTES;
const GRPC: &[u8] = b"application/grpc";

/// A request's head, and as much of its body as came.
pub(crate) struct Receiving {
    pub(crate) head: Head,
    pub(crate) tag: u32,
    pub(crate) bytes_max: usize,
    pub(crate) body: BytesMut,
    pub(crate) reserved: usize,
    pub(crate) pace: Pace,
}

impl Receiving {
    /// Nothing of the body has come.
    pub(crate) fn new(head: Head, admitted: Admitted, now: Nanos) -> Receiving {
        let Admitted { body_bytes_max: bytes_max, tag, reserved, .. } = admitted;
        Receiving { head, tag, bytes_max, body: BytesMut::new(), reserved, pace: Pace::new(now) }
    }

    /// Keeps more of the body, or says why not. The room that it has is reserved. So many bytes
    /// `behind` the piece have come as well.
    pub(crate) fn keep(
        &mut self,
        piece: &[u8],
        behind: usize,
        turn: &mut Turn<'_>,
    ) -> Result<(), Refusal> {
        let bytes = self.body.len() + piece.len();
        self.is_within_bounds(bytes)?;
        self.pace.note(piece.len(), turn.now);
        if self.body.capacity() < bytes {
            self.grow(bytes, behind, piece, turn)?;
        }
        self.body.extend_from_slice(piece);
        Ok(())
    }

    /// Whether the body may have so many bytes more, by its bounds and what its head said, and has
    /// the room for them: nobody has to be asked.
    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        let whole = self.body.len() + bytes;
        let said = self.head.content_length.unwrap_or(u64::MAX);
        whole <= self.body.capacity().min(self.bytes_max) && whole as u64 <= said
    }

    /// A body that came in one piece, in a buffer that is no longer than it.
    pub(crate) fn keep_whole(
        &mut self,
        piece: &[u8],
        turn: &mut Turn<'_>,
    ) -> Result<Bytes, Refusal> {
        self.is_within_bounds(piece.len())?;
        self.reserve(piece.len(), turn)?;
        Ok(Bytes::copy_from_slice(piece))
    }

    /// The body, in a buffer that is not much longer than it.
    pub(crate) fn into_body(self) -> (Head, u32, Bytes, usize) {
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
    fn grow(
        &mut self,
        bytes: usize,
        behind: usize,
        piece: &[u8],
        turn: &mut Turn<'_>,
    ) -> Result<(), Refusal> {
        // One that is passed already was wrong, and says nothing of what is to come.
        let expected = self.expected(piece).filter(|expected| *expected >= bytes);
        let expected = expected.map(|expected| expected.min(self.bytes_max));
        let come = bytes + behind;
        let room = match expected {
            Some(expected) if come >= EAGER_BYTES_MIN => expected.min(EAGER_GROWTH * come),
            Some(expected) => expected.min(GROWTH_BYTES_MIN),
            None => (2 * bytes).max(come).max(GROWTH_BYTES_MIN).min(self.bytes_max),
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
