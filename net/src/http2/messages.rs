//! Streamed requests: message by message in, message by message out, as long as both sides like.
//!
//! Made for calls that are few and idle for hours, beside the unary ones that are many.
//!
//! Always
//! - One message at a time: the next is handed out once the engine has said something and that has
//!   left. So neither unread messages nor answers pile up: what the peer sends ahead waits within
//!   its stream's window, which is not opened again before, and is reserved at the door.
//! - Whoever was handed a message hears how the stream ends, unless it was it that ended it.
//! - Between messages there is no deadline. One that has begun to come, or to leave, has one.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, Method};

use super::frame;
use super::requests::{discarding, malformed};
use super::stream::{Past, Recv, Send, Stream, Unsent, Window};
use super::{Fault, Going, Http2};
use crate::fields::Fields;
use crate::grpc::PREFIX_BYTES;
use crate::pace::Pace;
use crate::request::{
    Admitted, Answer, Head, Nanos, Part, Protocol, Refusal, Request, RequestId, Turn,
};

pub(super) struct Messages {
    head: Head,
    tag: u32,
    message_bytes_max: usize,
    /// What came and was not handed out.
    bytes: BytesMut,
    /// For `bytes`, and what the door took for the head.
    reserved: usize,
    pub(super) window: Window,
    came_bytes: u64,
    /// Of the message that comes, since its beginning or since something was said.
    pace: Pace,
    input: Input,
    /// The engine was handed something of this stream.
    is_known: bool,
    /// The engine was handed a message, and has said nothing since.
    is_awaited: bool,
    /// The answer's headers are out.
    has_begun: bool,
    /// Said while an earlier message waited for room, and when.
    newest: Option<(Bytes, Nanos)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Input {
    Open,
    /// No more comes.
    Ended,
    /// And the engine knows.
    EndTold,
}

/// What lies at the front of the bytes that came.
enum Front {
    Message(Bytes),
    /// Not yet a message.
    Piece,
    End,
    TooLarge,
    /// A message that will never be whole.
    CutOff,
}

impl Messages {
    pub(super) fn new(head: Head, admitted: Admitted, window: Window, now: Nanos) -> Messages {
        Messages {
            head,
            tag: admitted.tag,
            message_bytes_max: admitted.body_bytes_max,
            bytes: BytesMut::new(),
            reserved: admitted.reserved,
            window,
            came_bytes: 0,
            pace: Pace::new(now),
            input: Input::Open,
            is_known: false,
            is_awaited: false,
            has_begun: false,
            newest: None,
        }
    }

    /// Of a request that ends with its head.
    pub(super) fn without_any(mut self) -> Messages {
        self.input = Input::Ended;
        self
    }

    pub(super) fn is_ended(&self) -> bool {
        self.input != Input::Open
    }

    /// How the message does whose rest is due, or the first one.
    pub(super) fn pace(&self) -> Option<&Pace> {
        let is_due = !self.is_known || !self.bytes.is_empty();
        (self.input == Input::Open && !self.is_awaited && is_due).then_some(&self.pace)
    }

    fn front(&mut self) -> Front {
        let has_ended = self.input != Input::Open;
        let unfinished = if has_ended { Front::CutOff } else { Front::Piece };
        let Some([_, length @ ..]) = self.bytes.first_chunk::<PREFIX_BYTES>() else {
            return match self.bytes.is_empty() && self.input == Input::Ended {
                true => Front::End,
                false if self.bytes.is_empty() => Front::Piece,
                false => unfinished,
            };
        };
        let length = PREFIX_BYTES + u32::from_be_bytes(*length) as usize;
        match self.bytes.len() {
            _ if length > self.message_bytes_max => Front::TooLarge,
            came if came < length => unfinished,
            came if came == length => Front::Message(std::mem::take(&mut self.bytes).freeze()),
            _ => Front::Message(self.bytes.split_to(length).freeze()),
        }
    }

    /// What is handed out of this stream.
    fn part(&mut self, part: Part, body: Bytes, id: RequestId) -> Request {
        let reserved = body.len();
        self.reserved -= reserved;
        self.is_known = true;
        let head = Head {
            listener: self.head.listener,
            protocol: Protocol::Http2,
            method: Method::POST,
            path: Arc::default(),
            headers: Fields::new(),
            content_length: None,
            peer: self.head.peer.clone(),
        };
        Request { id, part, head, tag: self.tag, body, reserved }
    }
}

impl Http2 {
    /// A request that will be handed out message by message.
    pub(super) fn open_messages(
        &mut self,
        mut stream: Stream,
        messages: Messages,
        turn: &mut Turn<'_>,
    ) {
        let id = stream.id;
        stream.recv = Recv::Messages(Box::new(messages));
        self.streams.add(stream);
        if self.going != Going::No {
            // The peer did not know yet. A call that may last for hours would hold us up.
            return self.refuse_messages(id, Refusal::Draining, turn);
        }
        // Nothing has come that could be wrong.
        let _ = self.hand_out(self.streams.len() - 1, turn);
    }

    /// A piece of what the peer says. `ends`: the last.
    pub(super) fn take_messages(
        &mut self,
        place: usize,
        piece: &[u8],
        ends: bool,
        turn: &mut Turn<'_>,
    ) -> Result<(), Fault> {
        let stream = self.streams.at(place);
        let id = stream.id;
        let Recv::Messages(messages) = &mut stream.recv else {
            return Ok(());
        };
        messages.came_bytes += piece.len() as u64;
        let came = messages.came_bytes;
        let is_other = |length: u64| came > length || (ends && came < length);
        if messages.head.content_length.is_some_and(is_other) {
            return Err(malformed(id, "the body is not as long as it said", turn));
        }
        if !turn.door.reserve(piece.len()) {
            self.refuse_messages(id, Refusal::Overloaded, turn);
            return Ok(());
        }
        messages.reserved += piece.len();
        if messages.is_known && messages.bytes.is_empty() {
            messages.pace = Pace::new(turn.now);
        }
        messages.pace.note(piece.len(), turn.now);
        messages.bytes.extend_from_slice(piece);
        if ends {
            messages.input = Input::Ended;
        }
        self.hand_out(place, turn)
    }

    /// Hands out the next message, or the end, if it is there and its turn has come.
    fn hand_out(&mut self, place: usize, turn: &mut Turn<'_>) -> Result<(), Fault> {
        let stream = self.streams.at(place);
        let id = stream.id;
        let Recv::Messages(messages) = &mut stream.recv else {
            return Ok(());
        };
        if messages.is_awaited || !matches!(stream.send, Send::Awaiting) {
            return Ok(());
        }
        let request = RequestId { key: turn.key, stream: id };
        let was_known = messages.is_known;
        match messages.front() {
            Front::Message(body) => {
                messages.is_awaited = true;
                turn.requests.push(messages.part(Part::Message, body, request));
            }
            Front::End => {
                messages.input = Input::EndTold;
                turn.requests.push(messages.part(Part::End, Bytes::new(), request));
            }
            Front::Piece => {
                if !messages.is_ended()
                    && let Some(increment) = messages.window.due()
                {
                    frame::put_window_update(&mut self.output, id, increment);
                }
                return Ok(());
            }
            Front::TooLarge => {
                let bytes_max = messages.message_bytes_max;
                self.refuse_messages(id, Refusal::TooLarge { bytes_max }, turn);
                return Ok(());
            }
            Front::CutOff => return Err(malformed(id, "a message that is cut off", turn)),
        }
        self.calls += usize::from(!was_known);
        Ok(())
    }

    /// Goes on with the streams whose messages had to wait for an answer to leave.
    pub(super) fn hand_out_waiting(&mut self, turn: &mut Turn<'_>) -> Result<(), Fault> {
        self.has_left = false;
        for id in self.streams.ids(|stream| matches!(stream.recv, Recv::Messages(_))) {
            if let Some(place) = self.streams.find(id) {
                let handed_out = self.hand_out(place, turn);
                self.contain(handed_out, turn)?;
            }
        }
        Ok(())
    }

    /// What the engine says on a stream, with more to come.
    pub(super) fn take_message(
        &mut self,
        id: u32,
        message: Answer,
        turn: &mut Turn<'_>,
    ) -> Result<(), Fault> {
        let Some(place) = self.streams.find(id) else {
            return Ok(());
        };
        let stream = self.streams.at(place);
        let Recv::Messages(messages) = &mut stream.recv else {
            return Ok(());
        };
        if messages.is_awaited {
            self.calm.answered();
        }
        (messages.is_awaited, messages.pace) = (false, Pace::new(turn.now));
        let Answer { status, headers, body, .. } = message;
        if matches!(stream.send, Send::Blocked(_)) {
            messages.newest = Some((body, turn.now));
            return Ok(());
        }
        let begins = !std::mem::replace(&mut messages.has_begun, true);
        self.since = turn.now;
        if begins {
            self.put_block(id, false, Some(status), &headers);
        }
        self.say(place, body, turn.now);
        let handed_out = self.hand_out(place, turn);
        self.contain(handed_out, turn)
    }

    /// Sends a message as far as the peer gives room. None may be waiting.
    fn say(&mut self, place: usize, body: Bytes, since: Nanos) {
        let stream = self.streams.at(place);
        let (id, mut credit) = (stream.id, stream.credit);
        let unsent = Unsent { body, trailers: Fields::new(), goes_on: true, since };
        let send = self.send_body(id, &mut credit, unsent);
        let stream = self.streams.at(place);
        (stream.credit, stream.send) = (credit, send);
        self.blocked += usize::from(matches!(stream.send, Send::Blocked(_)));
    }

    /// A message that waited for room has left: the one behind it follows.
    pub(super) fn say_newest(&mut self, place: usize) {
        self.has_left = true;
        if let Recv::Messages(messages) = &mut self.streams.at(place).recv
            && let Some((body, since)) = messages.newest.take()
        {
            self.say(place, body, since);
        }
    }

    /// The engine's answer ends a stream: what is said and has not left goes first.
    pub(super) fn end_messages(&mut self, place: usize, answer: Answer, turn: &mut Turn<'_>) {
        let mut stream = self.streams.remove(place);
        let messages = match std::mem::replace(&mut stream.recv, Recv::Ended) {
            Recv::Messages(messages) => messages,
            other => {
                stream.recv = other;
                return self.streams.put_back(place, stream);
            }
        };
        turn.door.release(messages.reserved);
        self.calls -= usize::from(messages.is_known);
        self.since = turn.now;
        if !messages.is_ended() {
            stream.recv = discarding(None, messages.window, turn);
        }
        match messages.has_begun {
            false => self.send_answer(&mut stream, answer, turn.now),
            true => self.send_end(&mut stream, answer, messages.newest),
        }
        match (&stream.recv, &stream.send) {
            (Recv::Ended, Send::Ended) => self.streams.remember(stream.id, Past::Ended),
            _ => self.streams.put_back(place, stream),
        }
    }

    /// The end of an answer whose headers are out: of this one, all are trailers.
    fn send_end(&mut self, stream: &mut Stream, answer: Answer, newest: Option<(Bytes, Nanos)>) {
        self.calm.answered();
        self.ended_unsent += 1;
        let trailers = all_as_trailers(answer);
        if let Send::Blocked(unsent) = &mut stream.send {
            if let Some((newest, _)) = newest {
                unsent.body = [&unsent.body[..], &newest[..]].concat().into();
            }
            (unsent.trailers, unsent.goes_on) = (trailers, false);
            return;
        }
        self.put_block(stream.id, true, None, &trailers);
        stream.send = Send::Ended;
    }

    /// Ends a stream with the door's word for it; what more comes is thrown away.
    pub(super) fn refuse_messages(&mut self, id: u32, refusal: Refusal, turn: &mut Turn<'_>) {
        let Some(place) = self.streams.find(id) else {
            return;
        };
        let Recv::Messages(messages) = &mut self.streams.at(place).recv else {
            return;
        };
        let answer = turn.door.refuse(&messages.head, refusal);
        if messages.is_known {
            let request = RequestId { key: turn.key, stream: id };
            turn.requests.push(messages.part(Part::Lost, Bytes::new(), request));
        }
        self.end_messages(place, answer, turn);
    }

    /// The connection is to go: whoever knows of a stream is asked to end it.
    pub(super) fn end_calls(&mut self, turn: &mut Turn<'_>) {
        for id in self.streams.ids(|stream| matches!(stream.recv, Recv::Messages(_))) {
            let Some(place) = self.streams.find(id) else {
                continue;
            };
            let Recv::Messages(messages) = &mut self.streams.at(place).recv else {
                continue;
            };
            match messages.is_known {
                true => {
                    let request = RequestId { key: turn.key, stream: id };
                    turn.requests.push(messages.part(Part::Leaving, Bytes::new(), request));
                }
                false => self.refuse_messages(id, Refusal::Draining, turn),
            }
        }
    }

    /// A stream is gone without an end.
    pub(super) fn lose(&mut self, id: u32, mut messages: Box<Messages>, turn: &mut Turn<'_>) {
        turn.door.release(messages.reserved);
        if !messages.is_known {
            return turn.door.abandoned(Protocol::Http2);
        }
        self.calls -= 1;
        let request = RequestId { key: turn.key, stream: id };
        turn.requests.push(messages.part(Part::Lost, Bytes::new(), request));
    }
}

/// gRPC's status may come in an answer's headers or its trailers: behind a message it is a trailer.
fn all_as_trailers(answer: Answer) -> Fields {
    let Answer { headers, trailers, .. } = answer;
    let is_trailer = |(name, _): &(HeaderName, HeaderValue)| *name != CONTENT_TYPE;
    headers.into_iter().filter(is_trailer).chain(trailers).collect()
}
