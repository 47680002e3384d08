//! From header blocks and DATA to complete requests, and what becomes of those that don't get
//! there: refused with an answer, reset by either side, abandoned.

use bytes::Bytes;
use http::{HeaderName, Method, StatusCode};

use super::frame::{self, Code};
use super::head::{self, Block, HeadBuilder};
use super::messages::Messages;
use super::receive::BlockHead;
use super::stream::{Arriving, Discarding, Past, Recv, Send, Stream, Window};
use super::{DISCARD_BYTES_MAX, Fault, Going, Http2, stream_window_bytes};
use crate::body::Receiving;
use crate::pace::Pace;
use crate::request::{
    Admitted, Answer, Head, Part, Protocol, Refusal, Request, RequestId, Trouble, Turn,
};

impl Http2 {
    /// A whole header block: a request's head, or the trailers behind its body.
    pub(super) fn take_block(
        &mut self,
        block: BlockHead,
        fragment: &[u8],
        turn: &mut Turn<'_>,
    ) -> Result<(), Fault> {
        let mut builder = HeadBuilder::new(turn.limits.header_bytes_max);
        let read_names = turn.door.read_names();
        let reads = |name: &HeaderName| read_names.is_none_or(|names| names.contains(name));
        self.decoder
            .decode(fragment, &mut |name| reads(name), |field, bytes| {
                builder.take(field, bytes);
            })
            .map_err(|error| {
                Fault::Connection(Code::COMPRESSION_ERROR, error.0, Trouble::Protocol)
            })?;
        if block.stream <= self.last_stream {
            return self.take_trailers(block, builder, turn);
        }
        self.last_stream = block.stream;
        if self.going == Going::Final {
            // Our last GOAWAY named an earlier stream: the peer knows that this one is not taken.
            self.streams.remember(block.stream, Past::ResetByUs);
            return self.strain(Trouble::Control, turn.now);
        }
        if block.is_circular {
            return Err(Fault::Stream(block.stream, Code::PROTOCOL_ERROR));
        }
        let open = self.streams.len() + self.ended_unsent;
        if open >= turn.limits.connection_requests_max {
            turn.door.trouble(Protocol::Http2, Trouble::Streams);
            frame::put_reset(&mut self.output, block.stream, Code::REFUSED_STREAM);
            self.streams.remember(block.stream, Past::ResetByUs);
            return self.strain(Trouble::Control, turn.now);
        }
        self.since = turn.now;
        self.take_request(block, builder.request(turn.listener, Protocol::Http2), turn)
    }

    fn take_request(
        &mut self,
        block: BlockHead,
        request: Block,
        turn: &mut Turn<'_>,
    ) -> Result<(), Fault> {
        let mut stream = Stream {
            id: block.stream,
            recv: Recv::Ended,
            send: Send::Awaiting,
            bodiless: false,
            orphaned: false,
            credit: 0,
        };
        match request {
            Block::Request(head) if !block.ends => {
                stream.bodiless = head.method == Method::HEAD;
                self.open(stream, head, turn);
            }
            Block::Request(head) if head::fits(&head, 0) => {
                stream.bodiless = head.method == Method::HEAD;
                self.hand_out_bodiless(stream, head, turn);
            }
            Block::Request(_) => return Err(malformed(block.stream, "no body", turn)),
            Block::Malformed(reason) => return Err(malformed(block.stream, reason, turn)),
            Block::TooLarge => {
                let reason = "the header is longer than it may be";
                let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
                let answer = turn.door.malformed(status, reason);
                stream.recv =
                    if block.ends { Recv::Ended } else { discarding(None, window(turn), turn) };
                self.refuse(stream, answer, turn);
            }
            Block::Connect => {
                let reason = "this is no proxy: CONNECT is not served";
                let answer = turn.door.malformed(StatusCode::NOT_IMPLEMENTED, reason);
                stream.recv =
                    if block.ends { Recv::Ended } else { discarding(None, window(turn), turn) };
                self.refuse(stream, answer, turn);
            }
        }
        Ok(())
    }

    /// A request whose body is to come.
    fn open(&mut self, mut stream: Stream, mut head: Head, turn: &mut Turn<'_>) {
        head.peer.clone_from(&turn.peer);
        let admitted = turn.door.admit(&mut head).and_then(|admitted| {
            let bytes_max = admitted.body_bytes_max;
            if head.content_length.is_none_or(|length| length <= bytes_max as u64) {
                return Ok(admitted);
            }
            turn.door.release(admitted.reserved);
            Err(turn.door.refuse(&head, Refusal::TooLarge { bytes_max }))
        });
        let admitted = match admitted {
            Ok(admitted) if admitted.streamed => {
                let messages = Messages::new(head, admitted, window(turn), turn.now);
                return self.open_messages(stream, messages, turn);
            }
            Ok(admitted) => admitted,
            Err(answer) => {
                stream.recv = discarding(head.content_length, window(turn), turn);
                return self.refuse(stream, answer, turn);
            }
        };
        let kept = Receiving::new(head, admitted, turn.now);
        stream.recv = Recv::Body(Box::new(Arriving { kept, window: window(turn) }));
        self.streams.add(stream);
    }

    fn hand_out_bodiless(&mut self, stream: Stream, mut head: Head, turn: &mut Turn<'_>) {
        head.peer.clone_from(&turn.peer);
        match turn.door.admit(&mut head) {
            Ok(admitted) if admitted.streamed => {
                let messages = Messages::new(head, admitted, window(turn), turn.now);
                self.open_messages(stream, messages.without_any(), turn);
            }
            Ok(Admitted { tag, reserved, .. }) => {
                let id = RequestId { key: turn.key, stream: stream.id };
                let body = Bytes::new();
                let part = Part::Whole;
                turn.requests.push(Request { id, part, head, tag, body, reserved });
                self.in_flight += 1;
                self.streams.add(stream);
            }
            Err(answer) => self.refuse(stream, answer, turn),
        }
    }

    /// Answers a new request whose body will not be kept.
    fn refuse(&mut self, mut stream: Stream, answer: Answer, turn: &Turn<'_>) {
        self.send_answer(&mut stream, answer, turn.now);
        match (&stream.recv, &stream.send) {
            (Recv::Ended, Send::Ended) => self.streams.remember(stream.id, Past::Ended),
            _ => self.streams.add(stream),
        }
    }

    fn take_trailers(
        &mut self,
        block: BlockHead,
        builder: HeadBuilder,
        turn: &mut Turn<'_>,
    ) -> Result<(), Fault> {
        let id = block.stream;
        let Some(stream) = self.live(id) else {
            return self.take_late_headers(id, turn);
        };
        if stream.recv.is_ended() {
            return Err(Fault::Stream(id, Code::STREAM_CLOSED));
        }
        if block.is_circular {
            return Err(Fault::Stream(id, Code::PROTOCOL_ERROR));
        }
        if !block.ends {
            return Err(malformed(id, "trailers that do not end the stream", turn));
        }
        if let Some(reason) = builder.trailers() {
            return Err(malformed(id, reason, turn));
        }
        self.take_data(id, &[], true, turn)
    }

    /// HEADERS for a stream that is not open any more.
    fn take_late_headers(&mut self, id: u32, turn: &Turn<'_>) -> Result<(), Fault> {
        match self.streams.past(id) {
            Past::ResetByUs => self.strain(Trouble::Control, turn.now),
            Past::ResetByPeer => Err(Fault::Stream(id, Code::STREAM_CLOSED)),
            Past::Ended => {
                let reason = "HEADERS for a stream that has ended";
                Err(Fault::Connection(Code::STREAM_CLOSED, reason, Trouble::Protocol))
            }
            Past::Forgotten => Err(Fault::protocol("HEADERS for an earlier stream")),
        }
    }

    /// A piece of a body. `ends`: the last.
    pub(super) fn take_data(
        &mut self,
        id: u32,
        piece: &[u8],
        ends: bool,
        turn: &mut Turn<'_>,
    ) -> Result<(), Fault> {
        let Some(place) = self.streams.find(id) else {
            return Ok(());
        };
        self.since = turn.now;
        match &mut self.streams.at(place).recv {
            Recv::Ended => Ok(()),
            Recv::Discard(_) => self.discard(place, piece.len(), ends, turn),
            Recv::Messages(_) => self.take_messages(place, piece, ends, turn),
            Recv::Body(arriving) => {
                let receiving = &mut arriving.kept;
                let bytes = receiving.body.len() + piece.len();
                let is_over = receiving.head.content_length.is_some_and(|l| (bytes as u64) > l);
                if is_over || (ends && !head::fits(&receiving.head, bytes)) {
                    return Err(malformed(id, "the body is not as long as it said", turn));
                }
                if ends {
                    self.complete(place, piece, turn);
                } else if let Err(refusal) = receiving.keep(piece, 0, turn) {
                    self.refuse_body(id, refusal, ends, turn);
                } else if let Some(increment) = arriving.window.due() {
                    frame::put_window_update(&mut self.output, id, increment);
                }
                Ok(())
            }
        }
    }

    /// The last piece of a body: the request is handed out.
    fn complete(&mut self, place: usize, piece: &[u8], turn: &mut Turn<'_>) {
        let stream = self.streams.at(place);
        let id = stream.id;
        let Recv::Body(arriving) = &mut stream.recv else {
            return;
        };
        let receiving = &mut arriving.kept;
        let kept = match receiving.body.is_empty() {
            true => receiving.keep_whole(piece, turn),
            false => receiving.keep(piece, 0, turn).map(|()| Bytes::new()),
        };
        let whole = match kept {
            Ok(whole) => whole,
            Err(refusal) => return self.refuse_body(id, refusal, true, turn),
        };
        let Recv::Body(arriving) = std::mem::replace(&mut stream.recv, Recv::Ended) else {
            return;
        };
        let (head, tag, body, reserved) = arriving.kept.into_body();
        self.in_flight += 1;
        turn.requests.push(Request {
            id: RequestId { key: turn.key, stream: id },
            part: Part::Whole,
            head,
            tag,
            body: if body.is_empty() { whole } else { body },
            reserved,
        });
    }

    /// A piece of a body that is thrown away; its length is held against the head all the same.
    fn discard(
        &mut self,
        place: usize,
        bytes: usize,
        ends: bool,
        turn: &mut Turn<'_>,
    ) -> Result<(), Fault> {
        let stream = self.streams.at(place);
        let id = stream.id;
        let Recv::Discard(discarding) = &mut stream.recv else {
            return Ok(());
        };
        discarding.pace.note(bytes, turn.now);
        discarding.bytes += bytes;
        let came = discarding.bytes as u64;
        let is_other = |length: u64| came > length || (ends && came < length);
        if discarding.length.is_some_and(is_other) {
            return Err(malformed(id, "the body is not as long as it said", turn));
        }
        if ends {
            stream.recv = Recv::Ended;
            if matches!(stream.send, Send::Ended) {
                self.streams.remove(place);
                self.streams.remember(id, Past::Ended);
            }
        } else if discarding.bytes > DISCARD_BYTES_MAX {
            self.let_go(id, Code::NO_ERROR, turn);
        } else if let Some(increment) = discarding.window.due() {
            frame::put_window_update(&mut self.output, id, increment);
        }
        Ok(())
    }

    /// Answers a request whose body was being kept, and throws the body away.
    pub(super) fn refuse_body(
        &mut self,
        id: u32,
        refusal: Refusal,
        ends: bool,
        turn: &mut Turn<'_>,
    ) {
        let Some(place) = self.streams.find(id) else {
            return;
        };
        let mut stream = self.streams.remove(place);
        let Recv::Body(arriving) = std::mem::replace(&mut stream.recv, Recv::Ended) else {
            return;
        };
        turn.door.release(arriving.kept.reserved);
        let answer = turn.door.refuse(&arriving.kept.head, refusal);
        if !ends {
            stream.recv = discarding(None, arriving.window, turn);
        }
        self.send_answer(&mut stream, answer, turn.now);
        match (&stream.recv, &stream.send) {
            (Recv::Ended, Send::Ended) => self.streams.remember(id, Past::Ended),
            _ => self.streams.put_back(place, stream),
        }
    }

    /// Resets a stream for the peer's error.
    pub(super) fn reset(&mut self, id: u32, code: Code, turn: &mut Turn<'_>) -> Result<(), Fault> {
        self.let_go(id, code, turn);
        self.strain(Trouble::Errors, turn.now)
    }

    /// Resets a stream.
    pub(super) fn let_go(&mut self, id: u32, code: Code, turn: &mut Turn<'_>) {
        frame::put_reset(&mut self.output, id, code);
        self.abandon(id, Past::ResetByUs, turn);
    }

    /// Ends a stream on both sides. If the engine works on its request, that goes on, and its
    /// answer will go nowhere.
    pub(super) fn abandon(&mut self, id: u32, past: Past, turn: &mut Turn<'_>) {
        let Some(place) = self.streams.find(id) else {
            if self.streams.past(id) == Past::Forgotten {
                self.streams.remember(id, past);
            }
            return;
        };
        let stream = self.streams.at(place);
        if stream.orphaned {
            return;
        }
        self.since = turn.now;
        if matches!((&stream.recv, &stream.send), (Recv::Ended, Send::Awaiting)) {
            stream.orphaned = true;
        } else {
            let stream = self.streams.remove(place);
            self.blocked -= usize::from(matches!(stream.send, Send::Blocked(_)));
            match stream.recv {
                Recv::Body(arriving) => {
                    turn.door.release(arriving.kept.reserved);
                    turn.door.abandoned(Protocol::Http2);
                }
                Recv::Messages(messages) => self.lose(id, messages, turn),
                Recv::Discard(_) | Recv::Ended => {}
            }
        }
        self.streams.remember(id, past);
    }

    /// A stream on which something may still be said.
    pub(super) fn live(&mut self, id: u32) -> Option<&mut Stream> {
        let place = self.streams.find(id)?;
        Some(self.streams.at(place)).filter(|stream| !stream.orphaned)
    }
}

/// Of a new stream.
fn window(turn: &Turn<'_>) -> Window {
    Window::new(stream_window_bytes(turn.limits))
}

/// `length`: of the whole body, if its head said so.
pub(super) fn discarding(length: Option<u64>, window: Window, turn: &Turn<'_>) -> Recv {
    Recv::Discard(Box::new(Discarding { length, bytes: 0, window, pace: Pace::new(turn.now) }))
}

pub(super) fn malformed(id: u32, reason: &'static str, turn: &mut Turn<'_>) -> Fault {
    tracing::debug!(reason, "a malformed request over HTTP/2 is reset");
    turn.door.trouble(Protocol::Http2, Trouble::Malformed);
    Fault::Stream(id, Code::PROTOCOL_ERROR)
}
