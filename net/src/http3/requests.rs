//! Requests in: from a stream's first byte to the request that is handed out, or to its refusal.
//! RFC 9114, sections 4.1 to 4.3.

use bytes::Bytes;
use http::{HeaderName, Method, StatusCode};

use super::frame::{Code, Piece, kind};
use super::stream::{Frame, Recv, Send, Stream};
use super::{Carrier, Fault, Going, Http3, REQUESTS_MAX, number_of, qpack, too_much};
use crate::body::Receiving;
use crate::http2::calm::crumb_weight;
use crate::http2::head::{self, Block, HeadBuilder};
use crate::pace::Pace;
use crate::request::{
    Admitted, Answer, Head, Nanos, Part, Protocol, Refusal, Request, RequestId, Trouble, Turn,
};

/// All heads of a connection that are not whole may be this many times as long as one may.
const SECTIONS_FACTOR: usize = 4;
/// A refused body up to this long is thrown away; then the peer is told to stop.
const DISCARD_BYTES_MAX: usize = 1 << 20;

impl Http3 {
    pub(super) fn open(
        &mut self,
        id: u64,
        turn: &mut Turn<'_>,
        carrier: &mut dyn Carrier,
    ) -> Result<(), Fault> {
        if self.going == Going::Final {
            // Our last GOAWAY named an earlier stream: the peer knows that this one is not taken.
            reject(id, carrier);
            return self.strain(Trouble::Control, turn.now);
        }
        if self.streams.len() >= turn.limits.connection_requests_max {
            turn.door.trouble(Protocol::Http3, Trouble::Streams);
            reject(id, carrier);
            return self.strain(Trouble::Control, turn.now);
        }
        self.next_number = (id >> 2) + 1;
        self.streams.add(Stream::new(number_of(id), turn.now));
        self.expect_by(turn.now + turn.limits.header_timeout);
        if self.next_number >= REQUESTS_MAX {
            self.finish_going(turn, carrier);
        }
        Ok(())
    }

    /// A stream's deadline may be as early as this.
    pub(super) fn expect_by(&mut self, due: Nanos) {
        self.streams_due = self.streams_due.min(due);
    }

    pub(super) fn take_bytes(
        &mut self,
        number: u32,
        bytes: &[u8],
        ends: bool,
        turn: &mut Turn<'_>,
        carrier: &mut dyn Carrier,
    ) -> Result<(), Fault> {
        let mut rest = bytes;
        loop {
            let Some(place) = self.streams.find(number) else {
                return Ok(());
            };
            let stream = self.streams.at(place);
            match stream.recv {
                Recv::Ended => return Ok(()),
                Recv::Discard(..) => {
                    self.discard(place, rest.len(), ends, turn, carrier);
                    return Ok(());
                }
                Recv::Head(_) | Recv::Body(_) => {}
            }
            match stream.cutter.cut(&mut rest) {
                Some(Piece::Begin { kind, length }) => {
                    self.begin_frame(place, kind, length, turn, carrier)?;
                }
                Some(Piece::Payload { bytes, ends: frame_ends }) => {
                    // A frame that comes to its end with its stream is the last piece of all.
                    let is_last = ends && frame_ends && rest.is_empty();
                    self.take_payload(place, bytes, frame_ends, is_last, turn, carrier)?;
                }
                None if ends => return self.end_request(place, turn, carrier),
                None => return Ok(()),
            }
        }
    }

    /// Takes those of the first pieces that are nothing but the inside of a DATA frame, and find
    /// room in their body: most of a long body are. Returns how many.
    pub(super) fn take_inside(&mut self, number: u32, pieces: &[Bytes], now: Nanos) -> usize {
        let Some(place) = self.streams.find(number) else {
            return 0;
        };
        let stream = self.streams.at(place);
        let (Recv::Body(receiving), Frame::Data) = (&mut stream.recv, stream.frame) else {
            return 0;
        };
        let mut taken = 0;
        for piece in pieces {
            if !receiving.has_room(piece.len()) || !stream.cutter.pass(piece.len()) {
                break;
            }
            receiving.body.extend_from_slice(piece);
            receiving.pace.note(piece.len(), now);
            self.behind -= piece.len();
            taken += 1;
        }
        if taken > 0 {
            self.since = now;
        }
        taken
    }

    /// A frame's head alone: whether it may stand here (sections 4.1 and 7.2).
    fn begin_frame(
        &mut self,
        place: usize,
        kind: u64,
        length: u64,
        turn: &mut Turn<'_>,
        carrier: &mut dyn Carrier,
    ) -> Result<(), Fault> {
        let stream = self.streams.at(place);
        let is_head = matches!(stream.recv, Recv::Head(_));
        stream.frame = match kind {
            kind::HEADERS if is_head => Frame::Head,
            kind::HEADERS if !stream.has_trailers => Frame::Trailers,
            kind::DATA if !is_head && !stream.has_trailers => Frame::Data,
            kind::HEADERS | kind::DATA => {
                let reason = match is_head {
                    true => "DATA before the request's head",
                    false => "HEADERS or DATA behind the request's trailers",
                };
                return Err(Fault::connection(Code::FRAME_UNEXPECTED, reason));
            }
            kind::SETTINGS
            | kind::GOAWAY
            | kind::MAX_PUSH_ID
            | kind::CANCEL_PUSH
            | kind::PUSH_PROMISE => {
                let reason = "a frame on a request's stream that does not belong there";
                return Err(Fault::connection(Code::FRAME_UNEXPECTED, reason));
            }
            _ if kind::is_of_http2(kind) => {
                return Err(Fault::connection(Code::FRAME_UNEXPECTED, "a frame of HTTP/2"));
            }
            _ => Frame::Skipped,
        };
        let frame = stream.frame;
        match frame {
            Frame::Skipped => self.strain(Trouble::Control, turn.now),
            Frame::Data => {
                let weight = crumb_weight(usize::try_from(length).unwrap_or(usize::MAX));
                match weight == 0 || self.calm.take(Trouble::Crumbs, weight, turn.now) {
                    true => Ok(()),
                    false => Err(too_much(Trouble::Crumbs)),
                }
            }
            Frame::Head if length > turn.limits.header_bytes_max as u64 => {
                self.refuse_long_head(place, false, turn, carrier);
                Ok(())
            }
            Frame::Trailers if length > turn.limits.header_bytes_max as u64 => {
                Err(malformed("trailers longer than they may be", turn))
            }
            Frame::Head | Frame::Trailers => Ok(()),
        }
    }

    /// `is_last`: of the stream, and not only of its frame.
    fn take_payload(
        &mut self,
        place: usize,
        bytes: &[u8],
        frame_ends: bool,
        is_last: bool,
        turn: &mut Turn<'_>,
        carrier: &mut dyn Carrier,
    ) -> Result<(), Fault> {
        let stream = self.streams.at(place);
        match stream.frame {
            Frame::Skipped if is_last => self.end_request(place, turn, carrier),
            Frame::Skipped => Ok(()),
            Frame::Data => self.take_data(place, bytes, is_last, turn, carrier),
            Frame::Head | Frame::Trailers if frame_ends && stream.section.is_empty() => {
                self.take_section(place, bytes, is_last, turn, carrier)
            }
            Frame::Head | Frame::Trailers => {
                self.section_bytes += bytes.len();
                stream.section.extend_from_slice(bytes);
                if frame_ends {
                    let section = std::mem::take(&mut stream.section);
                    self.section_bytes -= section.len();
                    return self.take_section(place, &section, is_last, turn, carrier);
                }
                match self.section_bytes > SECTIONS_FACTOR * turn.limits.header_bytes_max {
                    true => {
                        let reason = "too many heads at once that are not whole";
                        Err(Fault::Connection(Code::EXCESSIVE_LOAD, reason, Trouble::HeaderBlock))
                    }
                    false => Ok(()),
                }
            }
        }
    }

    /// A whole field section: a request's head, or the trailers behind its body.
    fn take_section(
        &mut self,
        place: usize,
        section: &[u8],
        is_last: bool,
        turn: &mut Turn<'_>,
        carrier: &mut dyn Carrier,
    ) -> Result<(), Fault> {
        let mut builder = HeadBuilder::new(turn.limits.header_bytes_max);
        let read_names = turn.door.read_names();
        let mut reads = |name: &HeaderName| read_names.is_none_or(|names| names.contains(name));
        qpack::decode(section, &mut reads, |field, bytes| builder.take(field, bytes))
            .map_err(|error| Fault::connection(Code::QPACK_DECOMPRESSION_FAILED, error.0))?;
        let stream = self.streams.at(place);
        if stream.frame == Frame::Trailers {
            stream.has_trailers = true;
            return match (builder.trailers(), is_last) {
                (Some(reason), _) => Err(malformed(reason, turn)),
                (None, true) => self.end_request(place, turn, carrier),
                (None, false) => Ok(()),
            };
        }
        self.since = turn.now;
        match builder.request(turn.listener, Protocol::Http3) {
            Block::Request(mut head) => {
                head.peer.clone_from(&turn.peer);
                stream.bodiless = head.method == Method::HEAD;
                if is_last {
                    return self.hand_out_bodiless(place, head, turn, carrier);
                }
                self.admit(place, head, turn, carrier);
                Ok(())
            }
            Block::Malformed(reason) => Err(malformed(reason, turn)),
            Block::TooLarge => {
                self.refuse_long_head(place, is_last, turn, carrier);
                Ok(())
            }
            Block::Connect => {
                let reason = "this is no proxy: CONNECT is not served";
                let answer = turn.door.malformed(StatusCode::NOT_IMPLEMENTED, reason);
                self.refuse(place, answer, is_last, turn, carrier);
                Ok(())
            }
        }
    }

    /// A request whose body is to come, unless its stream ends here.
    fn admit(
        &mut self,
        place: usize,
        mut head: Head,
        turn: &mut Turn<'_>,
        carrier: &mut dyn Carrier,
    ) {
        let admitted = turn.door.admit(&mut head).and_then(|admitted| {
            let bytes_max = admitted.body_bytes_max;
            if head.content_length.is_none_or(|length| length <= bytes_max as u64) {
                return Ok(admitted);
            }
            turn.door.release(admitted.reserved);
            Err(turn.door.refuse(&head, Refusal::TooLarge { bytes_max }))
        });
        match admitted {
            Ok(admitted) => {
                let receiving = Receiving::new(head, admitted, turn.now);
                self.streams.at(place).recv = Recv::Body(Box::new(receiving));
                self.expect_by(turn.now + turn.limits.body_timeout);
            }
            Err(answer) => self.refuse(place, answer, false, turn, carrier),
        }
    }

    fn hand_out_bodiless(
        &mut self,
        place: usize,
        mut head: Head,
        turn: &mut Turn<'_>,
        carrier: &mut dyn Carrier,
    ) -> Result<(), Fault> {
        if !head::fits(&head, 0) {
            return Err(malformed("no body", turn));
        }
        match turn.door.admit(&mut head) {
            Ok(Admitted { tag, reserved, .. }) => {
                self.hand_out(place, head, tag, Bytes::new(), reserved, turn);
            }
            Err(answer) => self.refuse(place, answer, true, turn, carrier),
        }
        Ok(())
    }

    fn take_data(
        &mut self,
        place: usize,
        piece: &[u8],
        is_last: bool,
        turn: &mut Turn<'_>,
        carrier: &mut dyn Carrier,
    ) -> Result<(), Fault> {
        self.since = turn.now;
        let behind = self.behind;
        let stream = self.streams.at(place);
        let Recv::Body(receiving) = &mut stream.recv else {
            return Ok(());
        };
        let bytes = receiving.body.len() + piece.len();
        let is_over = receiving.head.content_length.is_some_and(|l| (bytes as u64) > l);
        if is_over || (is_last && !head::fits(&receiving.head, bytes)) {
            return Err(malformed("the body is not as long as it said", turn));
        }
        let kept = match is_last && receiving.body.is_empty() {
            true => receiving.keep_whole(piece, turn),
            false => receiving.keep(piece, behind, turn).map(|()| Bytes::new()),
        };
        let number = stream.number;
        match kept {
            Ok(whole) if is_last => self.complete(place, whole, turn),
            Ok(_) => {}
            Err(refusal) => self.refuse_body(number, refusal, is_last, turn, carrier),
        }
        Ok(())
    }

    /// The stream's end, with nothing before it that was not taken.
    fn end_request(
        &mut self,
        place: usize,
        turn: &mut Turn<'_>,
        _: &mut dyn Carrier,
    ) -> Result<(), Fault> {
        let stream = self.streams.at(place);
        if stream.cutter.is_inside() {
            // Section 7.1.
            return Err(Fault::connection(Code::FRAME_ERROR, "a frame is cut off"));
        }
        match &stream.recv {
            // Section 4.1: no error of a message, for there is none.
            Recv::Head(_) => {
                turn.door.trouble(Protocol::Http3, Trouble::Malformed);
                Err(Fault::Stream(Code::REQUEST_INCOMPLETE))
            }
            Recv::Body(receiving) if !head::fits(&receiving.head, receiving.body.len()) => {
                Err(malformed("the body is not as long as it said", turn))
            }
            Recv::Body(_) => {
                self.complete(place, Bytes::new(), turn);
                Ok(())
            }
            Recv::Discard(..) | Recv::Ended => Ok(()),
        }
    }

    /// All of a request is there: `whole`, or what was kept.
    fn complete(&mut self, place: usize, whole: Bytes, turn: &mut Turn<'_>) {
        let recv = std::mem::replace(&mut self.streams.at(place).recv, Recv::Ended);
        let Recv::Body(receiving) = recv else {
            return;
        };
        let (head, tag, body, reserved) = receiving.into_body();
        let body = if body.is_empty() { whole } else { body };
        self.hand_out(place, head, tag, body, reserved, turn);
    }

    fn hand_out(
        &mut self,
        place: usize,
        head: Head,
        tag: u32,
        body: Bytes,
        reserved: usize,
        turn: &mut Turn<'_>,
    ) {
        let stream = self.streams.at(place);
        stream.recv = Recv::Ended;
        self.in_flight += 1;
        let id = RequestId { key: turn.key, stream: stream.number };
        turn.requests.push(Request { id, part: Part::Whole, head, tag, body, reserved });
    }

    fn refuse_long_head(
        &mut self,
        place: usize,
        is_last: bool,
        turn: &mut Turn<'_>,
        carrier: &mut dyn Carrier,
    ) {
        let reason = "the header is longer than it may be";
        let answer = turn.door.malformed(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, reason);
        self.refuse(place, answer, is_last, turn, carrier);
    }

    /// Answers a request whose body will not be kept, and throws away what comes of it: nothing,
    /// if it has come to its end already. Its place may be another's afterwards.
    fn refuse(
        &mut self,
        place: usize,
        answer: Answer,
        is_last: bool,
        turn: &Turn<'_>,
        carrier: &mut dyn Carrier,
    ) {
        let stream = self.streams.at(place);
        let number = stream.number;
        stream.recv = if is_last { Recv::Ended } else { Recv::Discard(0, Pace::new(turn.now)) };
        self.section_bytes -= std::mem::take(&mut stream.section).len();
        self.expect_by(turn.now + turn.limits.body_timeout);
        self.send_answer(place, answer, turn, carrier);
        match self.drains && !is_last {
            true => self.stop_discarding(number, carrier),
            false => self.streams.remove_if_over(place),
        }
    }

    /// The answer of a refused request is complete without the rest of it (section 4.1).
    pub(super) fn stop_discarding(&mut self, number: u32, carrier: &mut dyn Carrier) {
        if let Some(place) = self.streams.find(number) {
            carrier.stop(super::stream_of(number), Code::NO_ERROR);
            self.streams.at(place).recv = Recv::Ended;
            self.streams.remove_if_over(place);
        }
    }

    /// Answers a request whose body was being kept, and throws the body away.
    pub(super) fn refuse_body(
        &mut self,
        number: u32,
        refusal: Refusal,
        ends: bool,
        turn: &mut Turn<'_>,
        carrier: &mut dyn Carrier,
    ) {
        let Some(place) = self.streams.find(number) else {
            return;
        };
        let recv = std::mem::replace(&mut self.streams.at(place).recv, Recv::Ended);
        if let Recv::Body(receiving) = recv {
            turn.door.release(receiving.reserved);
            let answer = turn.door.refuse(&receiving.head, refusal);
            self.refuse(place, answer, ends, turn, carrier);
        }
    }

    fn discard(
        &mut self,
        place: usize,
        bytes: usize,
        ends: bool,
        turn: &Turn<'_>,
        carrier: &mut dyn Carrier,
    ) {
        let stream = self.streams.at(place);
        let Recv::Discard(discarded, pace) = &mut stream.recv else {
            return;
        };
        *discarded += bytes;
        pace.note(bytes, turn.now);
        if !ends && *discarded > DISCARD_BYTES_MAX {
            let number = stream.number;
            self.stop_discarding(number, carrier);
        } else if ends {
            stream.recv = Recv::Ended;
            self.streams.remove_if_over(place);
        }
    }

    /// The peer gave up sending a request.
    pub(super) fn take_reset(
        &mut self,
        number: u32,
        turn: &mut Turn<'_>,
        carrier: &mut dyn Carrier,
    ) -> Result<(), Fault> {
        let Some(place) = self.streams.find(number) else {
            return self.strain(Trouble::Control, turn.now);
        };
        if let stream @ Stream { recv: Recv::Discard(..), .. } = self.streams.at(place) {
            // Its answer is given already: a client may well lose interest in the rest.
            stream.recv = Recv::Ended;
            self.streams.remove_if_over(place);
            return self.strain(Trouble::Control, turn.now);
        }
        carrier.reset(super::stream_of(number), Code::REQUEST_CANCELLED);
        self.abandon(place, turn);
        self.strain(Trouble::Resets, turn.now)
    }

    /// The peer gave up an answer: nothing of its request is of use any more.
    pub(super) fn take_stopped(
        &mut self,
        number: u32,
        turn: &mut Turn<'_>,
        carrier: &mut dyn Carrier,
    ) -> Result<(), Fault> {
        let Some(place) = self.streams.find(number) else {
            return self.strain(Trouble::Control, turn.now);
        };
        if !matches!(self.streams.at(place).recv, Recv::Ended) {
            carrier.stop(super::stream_of(number), Code::REQUEST_CANCELLED);
        }
        self.abandon(place, turn);
        self.strain(Trouble::Resets, turn.now)
    }

    /// Resets a stream in both directions.
    pub(super) fn let_go(
        &mut self,
        number: u32,
        code: Code,
        turn: &mut Turn<'_>,
        carrier: &mut dyn Carrier,
    ) {
        let Some(place) = self.streams.find(number) else {
            return;
        };
        let stream = self.streams.at(place);
        if !matches!(stream.recv, Recv::Ended) {
            carrier.stop(super::stream_of(number), code);
        }
        if !matches!(stream.send, Send::Ended) {
            carrier.reset(super::stream_of(number), code);
        }
        self.abandon(place, turn);
    }

    /// Ends a stream on both sides. If the engine works on its request, that goes on, and its
    /// answer will go nowhere.
    fn abandon(&mut self, place: usize, turn: &mut Turn<'_>) {
        let stream = self.streams.at(place);
        self.since = turn.now;
        if matches!((&stream.recv, &stream.send), (Recv::Ended, Send::Awaiting)) {
            stream.orphaned = true;
            return;
        }
        let stream = self.streams.remove(place);
        self.section_bytes -= stream.section.len();
        if let Recv::Body(receiving) = stream.recv {
            turn.door.release(receiving.reserved);
            turn.door.abandoned(Protocol::Http3);
        }
    }
}

/// Section 4.1.1: not processed, and so the client may try again.
fn reject(id: u64, carrier: &mut dyn Carrier) {
    carrier.stop(id, Code::REQUEST_REJECTED);
    carrier.reset(id, Code::REQUEST_REJECTED);
}

/// Section 4.1.2.
fn malformed(reason: &'static str, turn: &mut Turn<'_>) -> Fault {
    tracing::debug!(reason, "a malformed request over HTTP/3 is reset");
    turn.door.trouble(Protocol::Http3, Trouble::Malformed);
    Fault::Stream(Code::MESSAGE_ERROR)
}
