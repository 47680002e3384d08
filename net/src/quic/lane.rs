//! A connection's streams, as HTTP/3 uses them.

use std::time::Instant;

use bytes::Bytes;
use quinn_proto::{Dir, ReadError, StreamId, VarInt, WriteError};
use smallvec::SmallVec;

use super::gaps::Gaps;
use crate::http3::{Carrier, Code};
use crate::request::Nanos;

pub(super) struct Lane<'a> {
    pub(super) quic: &'a mut quinn_proto::Connection,
    pub(super) now: Instant,
    /// Streams that we opened: they never end.
    pub(super) opened: &'a mut usize,
    pub(super) gaps: &'a mut Gaps,
}

/// What a stream had to give: of a long body some ten datagrams come together.
pub(super) type Chunks = SmallVec<[Bytes; 16]>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Behind {
    More,
    End,
    Reset,
}

impl<'a> Lane<'a> {
    pub(super) fn new(
        quic: &'a mut quinn_proto::Connection,
        now: Instant,
        opened: &'a mut usize,
        gaps: &'a mut Gaps,
    ) -> Lane<'a> {
        Lane { quic, now, opened, gaps }
    }

    /// Appends all that came of a stream, in its order, and says what comes behind. `None`: nobody
    /// reads it any more. To be called for each frame that is told.
    pub(super) fn read(&mut self, id: StreamId, chunks: &mut Chunks) -> Option<Behind> {
        let before = chunks.len();
        let mut stream = self.quic.recv_stream(id);
        let Ok(mut coming) = stream.read(true) else {
            self.gaps.end(id);
            return None;
        };
        let behind = loop {
            match coming.next(usize::MAX) {
                Ok(Some(chunk)) => chunks.push(chunk.bytes),
                Ok(None) => break Behind::End,
                Err(ReadError::Blocked) => break Behind::More,
                Err(ReadError::Reset(_)) => break Behind::Reset,
            }
        };
        // Whoever drives the connection sends whatever is due in any case.
        let _ = coming.finalize();
        match behind {
            Behind::More => self.gaps.note(id, &chunks[before..]),
            Behind::End | Behind::Reset => self.gaps.end(id),
        }
        Some(behind)
    }
}

impl Carrier for Lane<'_> {
    fn open_uni(&mut self) -> Option<u64> {
        let id = self.quic.streams().open(Dir::Uni)?;
        *self.opened += 1;
        Some(u64::from(id))
    }

    fn write(&mut self, stream: u64, bytes: &mut Bytes) {
        let mut left = [std::mem::take(bytes)];
        loop {
            match self.quic.send_stream(id(stream)).write_chunks(&mut left) {
                Ok(_) if left[0].is_empty() => return,
                Ok(_) => {}
                Err(WriteError::Blocked) => break,
                // Nobody wants it: it counts as taken.
                Err(WriteError::Stopped(_) | WriteError::ClosedStream) => return,
            }
        }
        [*bytes] = left;
    }

    fn finish(&mut self, stream: u64) {
        // Else it is stopped or gone, and that is told by an event.
        let _ = self.quic.send_stream(id(stream)).finish();
    }

    fn reset(&mut self, stream: u64, code: Code) {
        let _ = self.quic.send_stream(id(stream)).reset(number(code));
    }

    fn stop(&mut self, stream: u64, code: Code) {
        let _ = self.quic.recv_stream(id(stream)).stop(number(code));
        self.gaps.end(id(stream));
    }

    fn close(&mut self, code: Code, reason: &'static str) {
        self.quic.close(self.now, number(code), Bytes::from_static(reason.as_bytes()));
    }

    fn is_settled(&mut self) -> bool {
        self.quic.streams().send_streams() <= *self.opened
    }

    fn round_trip(&self) -> Nanos {
        Nanos::try_from(self.quic.rtt().as_nanos()).unwrap_or(Nanos::MAX)
    }
}

fn id(stream: u64) -> StreamId {
    VarInt::from_u64(stream).map_or(StreamId::from(VarInt::MAX), StreamId::from)
}

fn number(code: Code) -> VarInt {
    VarInt::from_u64(code.0).unwrap_or(VarInt::MAX)
}
