//! Answers out: header blocks without state, bodies as far as the peer gives room.
//!
//! Our encoder uses no table and no Huffman code: what is always the same is copied, and nothing
//! that a peer's settings say can put the two sides out of step.

use http::header::{ALLOW, CONTENT_LENGTH, CONTENT_TYPE, DATE, RETRY_AFTER};
use http::{HeaderName, HeaderValue, StatusCode};

use super::frame::{self, Code, FrameHead, HEAD_BYTES, WINDOW_MAX, flag, kind};
use super::hpack::write::{put_integer, put_text};
use super::stream::{Past, Recv, Send, Stream, Unsent};
use super::{Fault, Http2};
use crate::fields::Fields;
use crate::request::{Answer, Nanos, Trouble, Turn};

/// Bits for the index of a name, in a literal that no table keeps; `:status` has one, too.
const NAME_PREFIX: u32 = 4;
const STATUS_NAME: usize = 8;
/// The encoder's table is of size 0 from here on.
const TABLE_SIZE_0: u8 = 0x20;

impl Http2 {
    /// The engine's answer to a request.
    pub(super) fn take_answer(&mut self, id: u32, answer: Answer, turn: &mut Turn<'_>) {
        let now = turn.now;
        let Some(place) = self.streams.find(id) else {
            return;
        };
        let stream = self.streams.at(place);
        if !matches!((&stream.recv, &stream.send), (Recv::Ended, Send::Awaiting)) {
            return self.end_messages(place, answer, turn);
        }
        self.in_flight -= 1;
        self.since = now;
        if stream.orphaned {
            self.streams.remove(place);
            return;
        }
        let mut stream = self.streams.remove(place);
        self.send_answer(&mut stream, answer, now);
        match stream.send {
            Send::Ended => self.streams.remember(id, Past::Ended),
            _ => self.streams.put_back(place, stream),
        }
    }

    /// Sends an answer as far as the peer gives room. `stream` is in nobody's hands but ours.
    pub(super) fn send_answer(&mut self, stream: &mut Stream, answer: Answer, now: Nanos) {
        self.calm.answered();
        self.ended_unsent += 1;
        if self.output.capacity() == 0 {
            self.output.reserve(self.output_bytes_expected);
        }
        let Answer { status, headers, body, trailers } = answer;
        let ends = stream.bodiless || (body.is_empty() && trailers.is_empty());
        self.put_block(stream.id, ends, Some(status), &headers);
        stream.send = match ends {
            true => Send::Ended,
            false => {
                let unsent = Unsent { body, trailers, goes_on: false, since: now };
                self.send_body(stream.id, &mut stream.credit, unsent)
            }
        };
        self.blocked += usize::from(matches!(stream.send, Send::Blocked(_)));
    }

    /// Sends as much as the peer gives room for.
    pub(super) fn send_body(&mut self, id: u32, credit: &mut i64, unsent: Unsent) -> Send {
        let Unsent { mut body, trailers, goes_on, since } = unsent;
        while !body.is_empty() {
            let room = self.peer.window.min(self.peer.stream_window + *credit);
            let room = room.clamp(0, self.peer.frame_bytes_max as i64) as usize;
            if room == 0 {
                return Send::Blocked(Box::new(Unsent { body, trailers, goes_on, since }));
            }
            let piece = body.split_to(room.min(body.len()));
            self.peer.window -= piece.len() as i64;
            *credit -= piece.len() as i64;
            let ends = body.is_empty() && trailers.is_empty() && !goes_on;
            let flags = if ends { flag::END_STREAM } else { 0 };
            frame::put(&mut self.output, kind::DATA, flags, id, &piece);
        }
        if !trailers.is_empty() {
            self.put_block(id, true, None, &trailers);
        }
        if goes_on { Send::Awaiting } else { Send::Ended }
    }

    /// Goes on with the answers that wait for room, the oldest stream first.
    pub(super) fn send_blocked(&mut self) {
        if self.blocked == 0 {
            return;
        }
        let window = self.peer.stream_window;
        let may_go_on =
            |stream: &Stream| matches!(stream.send, Send::Blocked(_)) && window + stream.credit > 0;
        for id in self.streams.ids(may_go_on) {
            if self.peer.window <= 0 {
                return;
            }
            self.send_on(id);
        }
    }

    fn send_on(&mut self, id: u32) {
        let Some(place) = self.streams.find(id) else {
            return;
        };
        let stream = self.streams.at(place);
        let Send::Blocked(unsent) = std::mem::replace(&mut stream.send, Send::Ended) else {
            return;
        };
        let mut credit = stream.credit;
        let send = self.send_body(id, &mut credit, *unsent);
        let stream = self.streams.at(place);
        stream.credit = credit;
        stream.send = send;
        if matches!(stream.send, Send::Blocked(_)) {
            return;
        }
        self.blocked -= 1;
        match stream.recv {
            Recv::Ended => {
                self.streams.remove(place);
                self.streams.remember(id, Past::Ended);
            }
            Recv::Messages(_) => self.say_newest(place),
            Recv::Body(_) | Recv::Discard(_) => {}
        }
    }

    /// The peer gives room on all streams together.
    pub(super) fn widen(&mut self, increment: i64) -> Result<(), Fault> {
        let was_shut = self.peer.window <= 0;
        self.peer.window += increment;
        if self.peer.window > WINDOW_MAX {
            return Err(window_overflow());
        }
        // Else who waits does so for room on its own stream.
        if was_shut {
            self.send_blocked();
        }
        Ok(())
    }

    /// The peer gives room on one stream.
    pub(super) fn widen_stream(&mut self, id: u32, increment: i64) -> Result<(), Fault> {
        let initial = self.peer.stream_window;
        let Some(stream) = self.live(id) else {
            return Ok(());
        };
        stream.credit += increment;
        if initial + stream.credit > WINDOW_MAX {
            return Err(Fault::Stream(id, Code::FLOW_CONTROL_ERROR));
        }
        if matches!(stream.send, Send::Blocked(_)) {
            self.send_on(id);
        }
        Ok(())
    }

    /// The peer changes what all streams begin with, those that are open as well.
    pub(super) fn set_stream_window(&mut self, window: i64) -> Result<(), Fault> {
        if self.streams.iter().any(|stream| window + stream.credit > WINDOW_MAX) {
            return Err(window_overflow());
        }
        self.peer.stream_window = window;
        Ok(())
    }

    /// Appends a header block as a frame, or as several if the peer takes no frame so long.
    pub(super) fn put_block(
        &mut self,
        id: u32,
        ends: bool,
        status: Option<StatusCode>,
        headers: &Fields,
    ) {
        let out = &mut self.output;
        let start = out.len();
        out.extend_from_slice(&[0; HEAD_BYTES]);
        if std::mem::take(&mut self.peer.wants_table_size) {
            out.push(TABLE_SIZE_0);
        }
        if let Some(status) = status {
            put_status(out, status);
        }
        for (name, value) in headers {
            put_field(out, name, value);
        }
        let length = out.len() - start - HEAD_BYTES;
        let flags = if ends { flag::END_STREAM } else { 0 };
        if length <= self.peer.frame_bytes_max {
            let flags = flags | flag::END_HEADERS;
            let head = FrameHead { length, kind: kind::HEADERS, flags, stream: id };
            out[start..start + HEAD_BYTES].copy_from_slice(&head.bytes());
            return;
        }
        let block = out.split_off(start + HEAD_BYTES);
        out.truncate(start);
        let pieces = block.chunks(self.peer.frame_bytes_max);
        let last = pieces.len() - 1;
        for (nth, piece) in pieces.enumerate() {
            let (kind, flags) =
                if nth == 0 { (kind::HEADERS, flags) } else { (kind::CONTINUATION, 0) };
            let flags = if nth == last { flags | flag::END_HEADERS } else { flags };
            frame::put(out, kind, flags, id, piece);
        }
    }
}

fn window_overflow() -> Fault {
    let reason = "a window grows beyond its largest size";
    Fault::Connection(Code::FLOW_CONTROL_ERROR, reason, Trouble::Protocol)
}

fn put_status(out: &mut Vec<u8>, status: StatusCode) {
    let index = match status.as_u16() {
        200 => 8,
        204 => 9,
        206 => 10,
        304 => 11,
        400 => 12,
        404 => 13,
        500 => 14,
        _ => {
            put_integer(out, 0, NAME_PREFIX, STATUS_NAME);
            return put_text(out, status.as_str().as_bytes());
        }
    };
    out.push(0x80 | index);
}

fn put_field(out: &mut Vec<u8>, name: &HeaderName, value: &HeaderValue) {
    match static_name(name) {
        Some(index) => put_integer(out, 0, NAME_PREFIX, index),
        None => {
            out.push(0);
            put_text(out, name.as_str().as_bytes());
        }
    }
    put_text(out, value.as_bytes());
}

/// The index of a name that our answers use.
fn static_name(name: &HeaderName) -> Option<usize> {
    const NAMES: [(HeaderName, usize); 5] =
        [(CONTENT_TYPE, 31), (CONTENT_LENGTH, 28), (RETRY_AFTER, 53), (DATE, 33), (ALLOW, 22)];
    NAMES.iter().find(|(known, _)| known == name).map(|(_, index)| *index)
}
