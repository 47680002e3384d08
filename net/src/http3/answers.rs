//! Answers out: a HEADERS frame without state, and the body as far as the transport has room.

use bytes::Bytes;
use smallvec::SmallVec;

use super::frame::{self, kind};
use super::stream::{Recv, Send, Unsent};
use super::{Carrier, Http3, stream_of};
use crate::request::{Answer, Nanos, Turn};

/// A body as short as this is copied behind its header: one piece is cheaper than two.
const COPIED_BYTES_MAX: usize = 1 << 10;

impl Http3 {
    /// The engine's answer to a request.
    pub(super) fn take_answer(
        &mut self,
        number: u32,
        answer: Answer,
        turn: &Turn<'_>,
        carrier: &mut dyn Carrier,
    ) {
        let Some(place) = self.streams.find(number) else {
            return;
        };
        let stream = self.streams.at(place);
        if !matches!((&stream.recv, &stream.send), (Recv::Ended, Send::Awaiting)) {
            return;
        }
        self.in_flight -= 1;
        self.since = turn.now;
        if stream.orphaned {
            self.streams.remove(place);
            return;
        }
        self.send_answer(place, answer, turn, carrier);
        self.streams.remove_if_over(place);
    }

    /// Sends an answer as far as there is room.
    pub(super) fn send_answer(
        &mut self,
        place: usize,
        answer: Answer,
        turn: &Turn<'_>,
        carrier: &mut dyn Carrier,
    ) {
        self.calm.answered();
        let stream = self.streams.at(place);
        let chunks = chunks(answer, stream.bodiless);
        stream.send = send(stream_of(stream.number), Unsent { chunks, since: turn.now }, carrier);
        if matches!(stream.send, Send::Blocked(_)) {
            self.expect_by(turn.now + turn.limits.write_timeout);
        }
    }

    /// Goes on with an answer that waits for room.
    pub(super) fn send_on(&mut self, number: u32, now: Nanos, carrier: &mut dyn Carrier) {
        let Some(place) = self.streams.find(number) else {
            return;
        };
        let stream = self.streams.at(place);
        match std::mem::replace(&mut stream.send, Send::Ended) {
            Send::Blocked(unsent) => {
                self.since = now;
                stream.send = send(stream_of(number), *unsent, carrier);
                self.streams.remove_if_over(place);
            }
            other => stream.send = other,
        }
    }
}

/// Everything that an answer is, in the order in which it is sent.
fn chunks(answer: Answer, bodiless: bool) -> SmallVec<[Bytes; 3]> {
    let Answer { status, headers, body, trailers } = answer;
    let body = if bodiless { Bytes::new() } else { body };
    let copied = if body.len() <= COPIED_BYTES_MAX { body.len() } else { 0 };
    let mut first = Vec::with_capacity(128 + copied);
    frame::put_headers(&mut first, Some(status), &headers);
    if !body.is_empty() {
        frame::put_number(&mut first, kind::DATA);
        frame::put_number(&mut first, body.len() as u64);
    }
    first.extend_from_slice(&body[..copied]);
    let has_trailers = !bodiless && !trailers.is_empty();
    if copied == body.len() {
        if has_trailers {
            frame::put_headers(&mut first, None, &trailers);
        }
        return SmallVec::from_iter([Bytes::from(first)]);
    }
    let mut chunks = SmallVec::from_iter([Bytes::from(first), body]);
    if has_trailers {
        let mut last = Vec::new();
        frame::put_headers(&mut last, None, &trailers);
        chunks.push(Bytes::from(last));
    }
    chunks
}

fn send(stream: u64, mut unsent: Unsent, carrier: &mut dyn Carrier) -> Send {
    while let Some(chunk) = unsent.chunks.first_mut() {
        carrier.write(stream, chunk);
        if !chunk.is_empty() {
            return Send::Blocked(Box::new(unsent));
        }
        unsent.chunks.remove(0);
    }
    carrier.finish(stream);
    Send::Ended
}
