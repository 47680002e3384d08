//! HTTP/1.1, the server's side of one connection, sans-I/O. RFC 9112.
//!
//! httparse reads heads; framing is ours, and strict: a message whose length could be read in two
//! ways is refused and its connection closed, so that no proxy before us can be made to disagree
//! with us about where a request ends (request smuggling).
//!
//! Always
//! - One request at a time: the next is read when the last is answered, and when the answers that
//!   wait to be sent are fewer than [`OUTPUT_BYTES_MAX`]. What comes before that waits in `input`,
//!   at most [`INPUT_BYTES_MAX`]; then the socket is not read.
//! - A body that is kept is reserved at the door; one that is refused is thrown away, not kept.

mod chunked;
mod head;

use std::mem;

use bytes::{Buf, Bytes, BytesMut};
use http::{Method, StatusCode};

use self::chunked::Chunked;
use self::head::{Complete, Malformed, parse};
use crate::pace::Pace;
use crate::request::{
    Answer, Core, Head, Limits, Nanos, Part, Protocol, Refusal, Request, RequestId, Standing, Turn,
};

/// What may wait behind a request that is not answered yet.
const INPUT_BYTES_MAX: usize = 64 << 10;
/// With this much unsent no further request is read: the peer does not read its answers.
const OUTPUT_BYTES_MAX: usize = 64 << 10;
/// A refused body up to this long is read and thrown away, so that the connection lives on.
const DISCARD_BYTES_MAX: u64 = 1 << 20;
/// A body with at least this much still to come is received straight into its own buffer.
const DIRECT_BYTES_MIN: u64 = 16 << 10;
/// About what the head of an answer takes.
const ANSWER_BYTES: usize = 192;
/// A long body's buffer grows by at most this at a time: nobody gets memory for a promise.
const GROWTH_BYTES_MAX: u64 = 1 << 20;

pub struct Http1 {
    input: BytesMut,
    output: BytesMut,
    state: State,
    /// Number of the request that was last handed out.
    stream: u32,
    awaiting_answer: bool,
    /// The next request waits: for this one's answer, or for answers to be sent.
    blocked: bool,
    /// The request is a HEAD: its answer says how long its body would be, and has none.
    bodiless: bool,
    keep_alive: bool,
    /// The peer sends no more.
    eof: bool,
    /// The next answer is the last one.
    draining: bool,
    /// No request will be read any more; set with the last answer.
    finish: Option<Standing>,
    /// First byte of the head that is being read, or last answer.
    since: Nanos,
}

enum State {
    Head,
    Body(Box<Receiving>),
    /// The rest of a refused body.
    Discard {
        framing: Framing,
        left: u64,
        pace: Pace,
    },
    /// The connection is past its last request.
    Over,
}

struct Receiving {
    head: Head,
    tag: u32,
    bytes_max: usize,
    framing: Framing,
    pace: Pace,
    body: BytesMut,
    reserved: usize,
    /// Length of `body` when it was lent to the kernel.
    lent_at: usize,
}

enum Framing {
    Length(u64),
    Chunked(Chunked),
}

impl Http1 {
    pub fn new(now: Nanos) -> Http1 {
        Http1 {
            input: BytesMut::new(),
            output: BytesMut::new(),
            state: State::Head,
            stream: 0,
            awaiting_answer: false,
            blocked: false,
            bodiless: false,
            keep_alive: true,
            eof: false,
            draining: false,
            finish: None,
            since: now,
        }
    }

    /// Takes as many steps as the input allows. What of `fresh` can't be used yet is kept; else it
    /// is read where it lies.
    fn advance(&mut self, fresh: &[u8], turn: &mut Turn<'_>) {
        let mut kept = mem::take(&mut self.input);
        if kept.is_empty() {
            let mut rest = fresh;
            self.take_steps(&mut rest, turn);
            self.input.extend_from_slice(rest);
        } else {
            kept.extend_from_slice(fresh);
            let mut rest = &kept[..];
            self.take_steps(&mut rest, turn);
            let taken = kept.len() - rest.len();
            kept.advance(taken);
            if !kept.is_empty() {
                // Else let go of: an idle connection holds no buffer.
                self.input = kept;
            }
        }
        let waits = self.awaiting_answer || (self.blocked && !self.input.is_empty());
        if self.eof && !waits && self.finish.is_none() {
            self.abandon(turn);
            self.end(Standing::Finish, turn);
        }
    }

    fn take_steps(&mut self, rest: &mut &[u8], turn: &mut Turn<'_>) {
        loop {
            self.blocked = self.awaiting_answer || self.output.len() >= OUTPUT_BYTES_MAX;
            let more = match &mut self.state {
                State::Over => false,
                State::Head if self.blocked => false,
                State::Head => self.read_head(rest, turn),
                State::Body(_) => self.read_body(rest, turn),
                State::Discard { .. } => self.discard(rest, turn.now),
            };
            if !more {
                break;
            }
        }
        if matches!(self.state, State::Over) {
            *rest = &[];
        }
    }

    /// The peer is gone: counts the request that it left unfinished, if it did.
    fn abandon(&mut self, turn: &mut Turn<'_>) {
        let unfinished = match self.state {
            State::Head => !self.awaiting_answer && !self.input.is_empty(),
            State::Body(_) => true,
            State::Discard { .. } | State::Over => false,
        };
        if unfinished {
            turn.door.abandoned(Protocol::Http1);
        }
    }

    /// Whether nothing of a request is here, and no answer due.
    fn is_idle(&self) -> bool {
        matches!(self.state, State::Head) && self.input.is_empty() && !self.awaiting_answer
    }

    fn read_head(&mut self, rest: &mut &[u8], turn: &mut Turn<'_>) -> bool {
        // A client may send an empty line before a request (RFC 9112, 2.2).
        while let Some(behind) = rest.strip_prefix(b"\r\n") {
            *rest = behind;
        }
        if rest.is_empty() {
            return false;
        }
        self.bodiless = false;
        let bytes_max = turn.limits.header_bytes_max;
        match parse(rest, turn.listener, bytes_max, turn.door.read_names()) {
            Ok(None) => false,
            Err(Malformed { head, status, reason }) => {
                let answer = match head {
                    Some(head) => turn.door.refuse(&head, Refusal::Malformed { status, reason }),
                    None => turn.door.malformed(status, reason),
                };
                self.refuse_and_finish(answer, turn);
                false
            }
            Ok(Some(complete)) => {
                *rest = &rest[complete.bytes..];
                self.since = turn.now;
                self.keep_alive = complete.keep_alive && !self.draining;
                self.bodiless = complete.head.method == Method::HEAD;
                self.take_head(complete, rest.is_empty(), turn);
                true
            }
        }
    }

    /// `is_last`: nothing has come behind it.
    fn take_head(&mut self, complete: Complete, is_last: bool, turn: &mut Turn<'_>) {
        let Complete { mut head, chunked, expects_continue: expects, .. } = complete;
        let framing = match chunked {
            true => Framing::Chunked(Chunked::new()),
            false => Framing::Length(head.content_length.unwrap_or(0)),
        };
        head.peer.clone_from(&turn.peer);
        let admitted = match turn.door.admit(&mut head) {
            Ok(admitted) => admitted,
            Err(answer) => return self.refuse(answer, framing, expects, turn),
        };
        if head.content_length.is_some_and(|length| length > admitted.body_bytes_max as u64) {
            let bytes_max = admitted.body_bytes_max;
            turn.door.release(admitted.reserved);
            let answer = turn.door.refuse(&head, Refusal::TooLarge { bytes_max });
            return self.refuse(answer, framing, expects, turn);
        }
        if expects && is_last {
            self.output.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        self.state = State::Body(Box::new(Receiving {
            head,
            tag: admitted.tag,
            bytes_max: admitted.body_bytes_max,
            framing,
            pace: Pace::new(turn.now),
            body: BytesMut::new(),
            reserved: admitted.reserved,
            lent_at: 0,
        }));
    }

    fn read_body(&mut self, rest: &mut &[u8], turn: &mut Turn<'_>) -> bool {
        let State::Body(receiving) = &mut self.state else {
            return false;
        };
        match receiving.take_from(rest, turn) {
            Step::NeedsMore => false,
            Step::Complete => {
                let State::Body(receiving) = mem::replace(&mut self.state, State::Head) else {
                    unreachable!("a body is being read");
                };
                self.hand_out(*receiving, turn);
                true
            }
            Step::Refused(refusal) => {
                let answer = turn.door.refuse(&receiving.head, refusal);
                self.drop_body(turn, answer);
                true
            }
            Step::Malformed => {
                let status = StatusCode::BAD_REQUEST;
                let reason = "the chunked body is malformed";
                let refusal = Refusal::Malformed { status, reason };
                let answer = turn.door.refuse(&receiving.head, refusal);
                self.keep_alive = false;
                self.drop_body(turn, answer);
                false
            }
        }
    }

    fn drop_body(&mut self, turn: &mut Turn<'_>, answer: Answer) {
        let State::Body(receiving) = mem::replace(&mut self.state, State::Head) else {
            unreachable!("a body is being read");
        };
        turn.door.release(receiving.reserved);
        self.refuse(answer, receiving.framing, false, turn);
    }

    fn hand_out(&mut self, receiving: Receiving, turn: &mut Turn<'_>) {
        self.stream = self.stream.wrapping_add(1);
        self.awaiting_answer = true;
        turn.requests.push(Request {
            part: Part::Whole,
            id: RequestId { key: turn.key, stream: self.stream },
            head: receiving.head,
            tag: receiving.tag,
            body: receiving.body.freeze(),
            reserved: receiving.reserved,
        });
    }

    /// Answers a request whose body will not be kept, and gets past that body: by reading a short
    /// one, by ending the connection after a long one.
    fn refuse(&mut self, answer: Answer, framing: Framing, expects: bool, turn: &mut Turn<'_>) {
        let left = match &framing {
            Framing::Length(left) => *left,
            Framing::Chunked(_) => 1,
        };
        // Whoever waits for `100 Continue` may send the body or not: no telling where it ends.
        if left > DISCARD_BYTES_MAX || (expects && left > 0) {
            return self.refuse_and_finish(answer, turn);
        }
        self.write(&answer, turn.date);
        self.since = turn.now;
        self.state = match left {
            0 => State::Head,
            _ => State::Discard { framing, left: DISCARD_BYTES_MAX, pace: Pace::new(turn.now) },
        };
        if !self.keep_alive {
            self.end(Standing::FinishThenLinger, turn);
        }
    }

    fn refuse_and_finish(&mut self, answer: Answer, turn: &mut Turn<'_>) {
        self.keep_alive = false;
        self.write(&answer, turn.date);
        self.end(Standing::FinishThenLinger, turn);
    }

    fn discard(&mut self, rest: &mut &[u8], now: Nanos) -> bool {
        let State::Discard { framing, left, pace } = &mut self.state else {
            return false;
        };
        let before = rest.len();
        let complete = match framing {
            Framing::Length(length) => {
                let taken = rest.len().min(*length as usize);
                *rest = &rest[taken..];
                *length -= taken as u64;
                *length == 0
            }
            Framing::Chunked(chunked) => loop {
                match chunked.next(rest) {
                    chunked::Piece::Data(_) => {}
                    chunked::Piece::NeedsMore => break false,
                    chunked::Piece::End => break true,
                    chunked::Piece::Malformed => {
                        *left = 0;
                        break false;
                    }
                }
            },
        };
        let taken = before - rest.len();
        *left = left.saturating_sub(taken as u64);
        pace.note(taken, now);
        if complete {
            (self.state, self.since) = (State::Head, now);
        } else if *left == 0 {
            self.finish = Some(Standing::FinishThenLinger);
            self.state = State::Over;
        }
        complete
    }

    fn end(&mut self, standing: Standing, turn: &mut Turn<'_>) {
        if let State::Body(receiving) = mem::replace(&mut self.state, State::Over) {
            turn.door.release(receiving.reserved);
        }
        self.finish = Some(standing);
        self.input = BytesMut::new();
    }

    fn write(&mut self, answer: &Answer, date: &str) {
        let out = &mut self.output;
        out.reserve(ANSWER_BYTES + answer.body.len());
        out.extend_from_slice(b"HTTP/1.1 ");
        out.extend_from_slice(answer.status.as_str().as_bytes());
        out.extend_from_slice(b" ");
        out.extend_from_slice(answer.status.canonical_reason().unwrap_or("").as_bytes());
        out.extend_from_slice(b"\r\n");
        for (name, value) in &answer.headers {
            out.extend_from_slice(name.as_str().as_bytes());
            out.extend_from_slice(b": ");
            out.extend_from_slice(value.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"date: ");
        out.extend_from_slice(date.as_bytes());
        // RFC 9110, 8.6: a 204 says nothing of a length.
        if answer.status != StatusCode::NO_CONTENT {
            out.extend_from_slice(b"\r\ncontent-length: ");
            put_decimal(out, answer.body.len());
        }
        if !self.keep_alive {
            out.extend_from_slice(b"\r\nconnection: close");
        }
        out.extend_from_slice(b"\r\n\r\n");
        if !self.bodiless {
            out.extend_from_slice(&answer.body);
        }
    }
}

/// Formatting machinery would cost more than the rest of a usual answer.
fn put_decimal(out: &mut BytesMut, mut number: usize) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return out.extend_from_slice(&digits[at..]);
        }
    }
}

impl Core for Http1 {
    fn handle_input(&mut self, input: &[u8], turn: &mut Turn<'_>) {
        if matches!(self.state, State::Over) {
            return;
        }
        if self.input.is_empty() && matches!(self.state, State::Head) {
            self.since = turn.now;
        }
        self.advance(input, turn);
    }

    fn handle_eof(&mut self, turn: &mut Turn<'_>) {
        self.eof = true;
        self.advance(&[], turn);
    }

    fn handle_sent(&mut self, turn: &mut Turn<'_>) {
        if !self.input.is_empty() && matches!(self.state, State::Head) {
            // The time that the peer took to read its answers is not the next header's.
            self.since = turn.now;
        }
        self.advance(&[], turn);
    }

    fn handle_answer(&mut self, stream: u32, answer: Answer, turn: &mut Turn<'_>) {
        if !self.awaiting_answer || stream != self.stream {
            return;
        }
        self.awaiting_answer = false;
        if self.draining {
            self.keep_alive = false;
        }
        self.write(&answer, turn.date);
        self.since = turn.now;
        if !self.keep_alive {
            self.end(Standing::FinishThenLinger, turn);
        }
        self.advance(&[], turn);
    }

    fn handle_timeout(&mut self, turn: &mut Turn<'_>) {
        match &self.state {
            State::Body(receiving) => {
                let refusal = receiving.pace.refusal(turn.now, turn.limits);
                let answer = turn.door.refuse(&receiving.head, refusal);
                self.refuse_and_finish(answer, turn);
            }
            State::Head if !self.input.is_empty() => {
                let reason = "the header did not arrive in time";
                let answer = turn.door.malformed(StatusCode::REQUEST_TIMEOUT, reason);
                self.refuse_and_finish(answer, turn);
            }
            _ => self.end(Standing::Finish, turn),
        }
    }

    fn drain(&mut self, turn: &mut Turn<'_>) {
        self.draining = true;
        self.keep_alive = false;
        if let State::Body(receiving) = &self.state {
            let answer = turn.door.refuse(&receiving.head, Refusal::Draining);
            return self.refuse_and_finish(answer, turn);
        }
        if self.is_idle() {
            self.end(Standing::FinishThenLinger, turn);
        }
    }

    fn retire(&mut self, turn: &mut Turn<'_>) {
        self.draining = true;
        // Else it is told with its next answer: a request that is on its way is not lost.
        if self.is_idle() && self.since + turn.limits.header_timeout <= turn.now {
            self.end(Standing::FinishThenLinger, turn);
        }
    }

    fn take_output(&mut self) -> Bytes {
        mem::take(&mut self.output).freeze()
    }

    fn in_flight(&self) -> usize {
        usize::from(self.awaiting_answer)
    }

    fn deadline(&self, limits: &Limits) -> Option<Nanos> {
        let timeout = match &self.state {
            State::Head if self.blocked => return None,
            State::Over => return None,
            State::Head if self.input.is_empty() && self.draining => limits.header_timeout,
            State::Head if self.input.is_empty() => {
                return (limits.idle_timeout > 0).then(|| self.since + limits.idle_timeout);
            }
            State::Head => limits.header_timeout,
            State::Body(receiving) => return Some(receiving.pace.due(limits)),
            State::Discard { pace, .. } => return Some(pace.due(limits)),
        };
        Some(self.since + timeout)
    }

    fn standing(&self) -> Standing {
        self.finish.unwrap_or(Standing::Open)
    }

    fn wants_input(&self) -> bool {
        !self.eof && (!self.blocked || self.input.len() < INPUT_BYTES_MAX)
    }

    fn handle_lost(&mut self, turn: &mut Turn<'_>) {
        self.abandon(turn);
        self.end(Standing::Finish, turn);
    }

    fn wants_direct(&self) -> bool {
        matches!(&self.state, State::Body(receiving)
            if matches!(receiving.framing, Framing::Length(left) if left >= DIRECT_BYTES_MIN))
    }

    fn lend_body(&mut self) -> Option<(BytesMut, usize)> {
        let State::Body(receiving) = &mut self.state else {
            return None;
        };
        let Framing::Length(left) = receiving.framing else {
            return None;
        };
        if left < DIRECT_BYTES_MIN {
            return None;
        }
        let bytes_max = left.min(GROWTH_BYTES_MAX) as usize;
        let mut body = mem::take(&mut receiving.body);
        receiving.lent_at = body.len();
        if body.capacity() - body.len() < bytes_max.min(DIRECT_BYTES_MIN as usize) {
            body.reserve(bytes_max.max(body.len().min(left as usize)));
        }
        Some((body, left as usize))
    }

    fn return_body(&mut self, buffer: BytesMut, turn: &mut Turn<'_>) {
        let State::Body(receiving) = &mut self.state else {
            return;
        };
        let arrived = buffer.len() - receiving.lent_at;
        receiving.body = buffer;
        if let Framing::Length(left) = &mut receiving.framing {
            *left = left.checked_sub(arrived as u64).expect("no more is lent than is left");
        }
        receiving.pace.note(arrived, turn.now);
        if turn.door.reserve(arrived) {
            receiving.reserved += arrived;
        } else {
            let answer = turn.door.refuse(&receiving.head, Refusal::Overloaded);
            self.drop_body(turn, answer);
        }
        self.advance(&[], turn);
    }
}

enum Step {
    NeedsMore,
    Complete,
    Refused(Refusal),
    Malformed,
}

impl Receiving {
    fn take_from(&mut self, input: &mut &[u8], turn: &mut Turn<'_>) -> Step {
        loop {
            let piece = match &mut self.framing {
                Framing::Length(0) => return Step::Complete,
                Framing::Length(_) if input.is_empty() => return Step::NeedsMore,
                Framing::Length(left) => {
                    let taken = input.len().min(*left as usize);
                    *left -= taken as u64;
                    let (piece, behind) = input.split_at(taken);
                    *input = behind;
                    piece
                }
                Framing::Chunked(chunked) => match chunked.next(input) {
                    chunked::Piece::Data(data) => data,
                    chunked::Piece::NeedsMore => return Step::NeedsMore,
                    chunked::Piece::End => return Step::Complete,
                    chunked::Piece::Malformed => return Step::Malformed,
                },
            };
            if self.body.len() + piece.len() > self.bytes_max {
                return Step::Refused(Refusal::TooLarge { bytes_max: self.bytes_max });
            }
            if !turn.door.reserve(piece.len()) {
                return Step::Refused(Refusal::Overloaded);
            }
            self.reserved += piece.len();
            self.pace.note(piece.len(), turn.now);
            self.body.extend_from_slice(piece);
        }
    }
}
