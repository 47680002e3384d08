//! HTTP/3, the server's side of one connection, sans-I/O. RFC 9114; field sections are QPACK's.
//!
//! Bytes of streams and `now` in, requests out; what goes to the peer goes to a [`Carrier`], the
//! transport's streams, which sends it in its own time. Requests, doors, limits and answers are
//! those of HTTP/1.1 and HTTP/2; gRPC is not spoken here.
//!
//! Always
//! - A request's door is asked once its head is there, before a byte of its body is kept; a body
//!   is reserved at the door and copied once, into its own buffer.
//! - Heads that are not whole are bounded, for all streams of a connection together.
//! - A peer's error ends its stream or its connection, with the code that the standard gives it.
//!   What costs work and brings no request is bounded as it is for HTTP/2, and told to the door.
//! - A stream is here as long as either side has something to say on it, or the engine still works
//!   on its request: never longer than the transport keeps it.

mod answers;
mod control;
mod frame;
mod qpack;
mod requests;
mod stream;

use bytes::Bytes;

use self::control::Uni;
pub use self::frame::Code;
use self::stream::{Recv, Send, Streams};
use crate::http2::calm::Calm;
use crate::request::{Answer, Limits, Nanos, Protocol, Refusal, Trouble, Turn};

/// Our first GOAWAY names this stream, which no connection reaches (RFC 9114, 5.2).
const STREAM_MAX: u64 = (1 << 62) - 4;
/// No connection has more requests: their numbers have 32 bits.
const REQUESTS_MAX: u64 = u32::MAX as u64 - (1 << 16);

/// The transport's streams, as a connection of HTTP/3 uses them. What is said about a stream that
/// is gone is ignored.
pub trait Carrier {
    /// Opens a stream of one direction; `None`: the peer allows none.
    fn open_uni(&mut self) -> Option<u64>;
    /// Takes as much of `bytes` as there is room for off its front. Whoever left a rest is told
    /// by [`Http3::handle_writable`].
    fn write(&mut self, stream: u64, bytes: &mut Bytes);
    /// Nothing more will be written.
    fn finish(&mut self, stream: u64);
    /// What was written and has not arrived is given up.
    fn reset(&mut self, stream: u64, code: Code);
    /// The peer shall send no more, and what still comes is not handed in.
    fn stop(&mut self, stream: u64, code: Code);
    /// Ends the connection: nothing that has not arrived is sent again.
    fn close(&mut self, code: Code, reason: &'static str);
    /// Whether all that was written has arrived, but for what [`Carrier::open_uni`] opened.
    fn is_settled(&mut self) -> bool;
    /// From here to the peer and back.
    fn round_trip(&self) -> Nanos;
}

pub struct Http3 {
    is_over: bool,
    streams: Streams,
    /// Requests that the peer has begun: the next one's number.
    next_number: u64,
    unis: Vec<Uni>,
    /// Our control stream, and what did not fit into it.
    control: Option<u64>,
    control_unsent: Bytes,
    calm: Calm,
    in_flight: usize,
    /// Of the stream that is being read: bytes that have come behind those that are looked at.
    behind: usize,
    /// Bytes of all heads that are not whole.
    section_bytes: usize,
    /// No stream's deadline is earlier.
    streams_due: Nanos,
    since: Nanos,
    going: Going,
    /// The process ends: nobody is waited for who was refused or has not asked.
    drains: bool,
    /// The last GOAWAY is due by then.
    farewell_until: Nanos,
    /// Until then the peer may not have heard of the last GOAWAY: it is not overtaken by the end.
    unheard_until: Option<Nanos>,
    /// The peer said that it goes.
    peer_goes: bool,
}

/// How far we came with leaving.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Going {
    No,
    /// A GOAWAY that names no stream is sent: requests on their way are still taken.
    Announced,
    /// The last request is known.
    Final,
}

/// What a peer did wrong.
#[derive(Debug)]
enum Fault {
    /// The connection ends.
    Connection(Code, &'static str, Trouble),
    /// The stream is reset.
    Stream(Code),
}

impl Fault {
    fn connection(code: Code, reason: &'static str) -> Fault {
        Fault::Connection(code, reason, Trouble::Protocol)
    }
}

impl Http3 {
    /// A connection whose handshake is done. Opens our control stream.
    pub fn new(limits: &Limits, now: Nanos, carrier: &mut dyn Carrier) -> Http3 {
        let mut greeting = Vec::with_capacity(32);
        frame::put_greeting(&mut greeting, limits.header_bytes_max);
        let mut http3 = Http3 {
            is_over: false,
            streams: Streams::default(),
            next_number: 0,
            unis: Vec::new(),
            control: carrier.open_uni(),
            control_unsent: Bytes::from(greeting),
            calm: Calm::new(now),
            in_flight: 0,
            behind: 0,
            section_bytes: 0,
            streams_due: Nanos::MAX,
            since: now,
            going: Going::No,
            drains: false,
            farewell_until: Nanos::MAX,
            unheard_until: None,
            peer_goes: false,
        };
        http3.write_control(carrier);
        http3
    }

    /// The peer opened the next of its streams, of two directions or of one.
    pub fn handle_opened(&mut self, stream: u64, turn: &mut Turn<'_>, carrier: &mut dyn Carrier) {
        if self.is_over {
            return;
        }
        if !is_request(stream) {
            return self.unis.push(Uni::new(stream, turn.now));
        }
        let opened = self.open(stream, turn, carrier);
        self.contain(stream, opened, turn, carrier);
    }

    /// More of a stream that the peer opened. `ends`: nothing follows.
    pub fn handle_bytes(
        &mut self,
        stream: u64,
        bytes: &[u8],
        ends: bool,
        turn: &mut Turn<'_>,
        carrier: &mut dyn Carrier,
    ) {
        self.take_piece(stream, bytes, ends, turn, carrier);
        self.settle(carrier, turn);
    }

    /// The same, where it came in several pieces.
    pub fn handle_pieces(
        &mut self,
        stream: u64,
        pieces: &[Bytes],
        ends: bool,
        turn: &mut Turn<'_>,
        carrier: &mut dyn Carrier,
    ) {
        self.behind = pieces.iter().map(Bytes::len).sum();
        let mut rest = pieces;
        loop {
            if is_request(stream) && !self.is_over {
                // The last piece of all is not inside of anything.
                let most = rest.len().saturating_sub(usize::from(ends));
                let inside = self.take_inside(number_of(stream), &rest[..most], turn.now);
                rest = &rest[inside..];
            }
            let Some((piece, behind)) = rest.split_first() else {
                break;
            };
            rest = behind;
            self.behind -= piece.len();
            self.take_piece(stream, piece, ends && rest.is_empty(), turn, carrier);
            if !is_request(stream) && !self.unis.iter().any(|uni| uni.id == stream) {
                // Nobody reads it any more, and what its pieces mean is forgotten.
                self.behind = 0;
                break;
            }
        }
        if pieces.is_empty() && ends {
            self.take_piece(stream, &[], true, turn, carrier);
        }
        self.settle(carrier, turn);
    }

    fn take_piece(
        &mut self,
        stream: u64,
        bytes: &[u8],
        ends: bool,
        turn: &mut Turn<'_>,
        carrier: &mut dyn Carrier,
    ) {
        if self.is_over {
            return;
        }
        let taken = match is_request(stream) {
            true => self.take_bytes(number_of(stream), bytes, ends, turn, carrier),
            false => self.take_uni(stream, bytes, ends, turn, carrier),
        };
        self.contain(stream, taken, turn, carrier);
    }

    /// The peer will not send the rest of a stream.
    pub fn handle_reset(&mut self, stream: u64, turn: &mut Turn<'_>, carrier: &mut dyn Carrier) {
        if self.is_over {
            return;
        }
        let taken = match is_request(stream) {
            true => self.take_reset(number_of(stream), turn, carrier),
            false => self.take_uni_reset(stream, turn.now),
        };
        self.contain(stream, taken, turn, carrier);
        self.settle(carrier, turn);
    }

    /// The peer does not want what we send on a stream.
    pub fn handle_stopped(&mut self, stream: u64, turn: &mut Turn<'_>, carrier: &mut dyn Carrier) {
        if self.is_over {
            return;
        }
        carrier.reset(stream, Code::REQUEST_CANCELLED);
        let taken = match self.control == Some(stream) {
            true => {
                let reason = "our control stream is not wanted";
                Err(Fault::connection(Code::CLOSED_CRITICAL_STREAM, reason))
            }
            false => self.take_stopped(number_of(stream), turn, carrier),
        };
        self.contain(stream, taken, turn, carrier);
        self.settle(carrier, turn);
    }

    /// There is room again on a stream of ours.
    pub fn handle_writable(&mut self, stream: u64, turn: &mut Turn<'_>, carrier: &mut dyn Carrier) {
        match self.control == Some(stream) {
            true => self.write_control(carrier),
            false => self.send_on(number_of(stream), turn.now, carrier),
        }
        self.settle(carrier, turn);
    }

    /// The peer lets us open streams of one direction.
    pub fn handle_room(&mut self, carrier: &mut dyn Carrier) {
        if self.control.is_none() && !self.is_over {
            self.control = carrier.open_uni();
            self.write_control(carrier);
        }
    }

    /// What was written may have arrived.
    pub fn handle_arrived(&mut self, turn: &mut Turn<'_>, carrier: &mut dyn Carrier) {
        self.settle(carrier, turn);
    }

    /// The answer to a request that came from this connection; an unknown one is ignored.
    pub fn handle_answer(
        &mut self,
        number: u32,
        answer: Answer,
        turn: &mut Turn<'_>,
        carrier: &mut dyn Carrier,
    ) {
        self.take_answer(number, answer, turn, carrier);
        self.settle(carrier, turn);
    }

    /// A deadline that [`Http3::deadline`] named has passed. Returns whether anybody missed it.
    pub fn handle_timeout(&mut self, turn: &mut Turn<'_>, carrier: &mut dyn Carrier) -> bool {
        if self.is_over {
            return false;
        }
        let mut was_missed = false;
        if self.streams_due <= turn.now {
            was_missed = self.end_stalled(turn, carrier);
        }
        was_missed |= self.end_nameless(turn, carrier);
        if self.is_over {
            return was_missed;
        }
        self.unheard_until.take_if(|until| *until <= turn.now);
        if self.going == Going::Announced && self.farewell_until <= turn.now {
            self.finish_going(turn, carrier);
        } else if self.streams.is_empty()
            && self.idle_due(turn.limits).is_some_and(|due| due <= turn.now)
        {
            match self.going == Going::No && !self.peer_goes {
                true => self.announce(turn.now + turn.limits.header_timeout, carrier),
                // The peer told us, and had its time.
                false => self.end_well(turn, carrier),
            }
            was_missed = true;
        }
        self.settle(carrier, turn);
        was_missed
    }

    /// Answer what is in flight, take no more, then finish.
    pub fn drain(&mut self, turn: &mut Turn<'_>, carrier: &mut dyn Carrier) {
        if self.is_over {
            return;
        }
        self.drains = true;
        for number in self.streams.numbers(|stream| matches!(stream.recv, Recv::Body(_))) {
            self.refuse_body(number, Refusal::Draining, false, turn, carrier);
        }
        for number in self.streams.numbers(|stream| matches!(stream.recv, Recv::Discard(..))) {
            self.stop_discarding(number, carrier);
        }
        if self.going == Going::Final {
            // It was told to go before we drained, and its last heads are not waited for any more.
            self.reject_heads(turn, carrier);
        }
        self.retire(turn, carrier);
    }

    /// The connection is old: what is under way is finished, bodies as well, what comes meanwhile
    /// is taken until the peer must have heard; then finish.
    pub fn retire(&mut self, turn: &mut Turn<'_>, carrier: &mut dyn Carrier) {
        if !self.is_over {
            self.announce(turn.now + patience(turn.limits, carrier), carrier);
            self.settle(carrier, turn);
        }
    }

    /// The connection is gone: gives back what is reserved at the door.
    pub fn handle_lost(&mut self, turn: &mut Turn<'_>) {
        self.end(turn);
    }

    /// More of what came has gaps before it than the transport may hold.
    pub fn handle_gaps(&mut self, turn: &mut Turn<'_>, carrier: &mut dyn Carrier) {
        if !self.is_over {
            let reason = "too much comes with gaps before it";
            let fault = Fault::Connection(Code::EXCESSIVE_LOAD, reason, Trouble::Gaps);
            self.contain(STREAM_MAX, Err(fault), turn, carrier);
        }
    }

    /// Requests handed out and not answered.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// The connection is closed, or will never be used again.
    pub fn is_over(&self) -> bool {
        self.is_over
    }

    /// When to call [`Http3::handle_timeout`] if nothing happens before; maybe too early.
    pub fn deadline(&self, limits: &Limits) -> Option<Nanos> {
        if self.is_over {
            return None;
        }
        let streams = (self.streams_due < Nanos::MAX).then_some(self.streams_due);
        let farewell = (self.going == Going::Announced).then_some(self.farewell_until);
        let idle = self.idle_due(limits).filter(|_| self.streams.is_empty());
        let unis = self.unis.iter().filter_map(|uni| uni.due(limits)).min();
        [streams, farewell, self.unheard_until, idle, unis].into_iter().flatten().min()
    }

    fn idle_due(&self, limits: &Limits) -> Option<Nanos> {
        // The last answers may have to be sent again, and their reader may be gone.
        if self.going == Going::Final {
            return Some(self.since + limits.header_timeout.min(ARRIVAL_MAX));
        }
        // What a peer that was told to go may still send has a deadline of its own.
        if self.going == Going::Announced {
            return None;
        }
        // A peer that goes gets a little while for it.
        if self.peer_goes {
            return Some(self.since + limits.header_timeout);
        }
        (limits.idle_timeout > 0).then(|| self.since + limits.idle_timeout)
    }

    /// A stream's fault ends that stream, unless there are too many of them; others end all.
    fn contain(
        &mut self,
        stream: u64,
        taken: Result<(), Fault>,
        turn: &mut Turn<'_>,
        carrier: &mut dyn Carrier,
    ) {
        let taken = match taken {
            Err(Fault::Stream(code)) => {
                self.let_go(number_of(stream), code, turn, carrier);
                self.strain(Trouble::Errors, turn.now)
            }
            other => other,
        };
        if let Err(Fault::Connection(code, reason, trouble)) = taken {
            tracing::debug!(code = code.0, reason, "an HTTP/3 connection broke");
            turn.door.trouble(Protocol::Http3, trouble);
            carrier.close(code, reason);
            self.end(turn);
        }
    }

    /// Counts one more of what `trouble` names.
    fn strain(&mut self, trouble: Trouble, now: Nanos) -> Result<(), Fault> {
        match self.calm.take(trouble, 1, now) {
            true => Ok(()),
            false => Err(too_much(trouble)),
        }
    }

    /// The first GOAWAY names no stream.
    fn announce(&mut self, until: Nanos, carrier: &mut dyn Carrier) {
        self.farewell_until = self.farewell_until.min(until);
        if self.going == Going::No {
            self.going = Going::Announced;
            self.put_goaway(STREAM_MAX, carrier);
        }
    }

    /// The last GOAWAY: what has not come by now is not taken. The peer learns of it before the
    /// connection ends, for what it names may not be asked for twice (RFC 9114, 5.2).
    fn finish_going(&mut self, turn: &mut Turn<'_>, carrier: &mut dyn Carrier) {
        self.going = Going::Final;
        self.since = turn.now;
        self.unheard_until = Some(turn.now + patience(turn.limits, carrier));
        self.put_goaway(self.next_number << 2, carrier);
        if self.drains {
            self.reject_heads(turn, carrier);
        }
    }

    fn reject_heads(&mut self, turn: &mut Turn<'_>, carrier: &mut dyn Carrier) {
        for number in self.streams.numbers(|stream| matches!(stream.recv, Recv::Head(_))) {
            self.let_go(number, Code::REQUEST_REJECTED, turn, carrier);
        }
    }

    fn put_goaway(&mut self, stream: u64, carrier: &mut dyn Carrier) {
        let mut control = self.control_unsent.to_vec();
        frame::put_goaway(&mut control, stream);
        self.control_unsent = Bytes::from(control);
        self.write_control(carrier);
    }

    fn write_control(&mut self, carrier: &mut dyn Carrier) {
        if let Some(control) = self.control
            && !self.control_unsent.is_empty()
        {
            carrier.write(control, &mut self.control_unsent);
        }
    }

    /// Ends the connection once it is past its last request and all answers have arrived.
    fn settle(&mut self, carrier: &mut dyn Carrier, turn: &mut Turn<'_>) {
        let is_past = self.going == Going::Final && self.streams.is_empty();
        let is_past = is_past && self.unheard_until.is_none();
        if !self.is_over && is_past && carrier.is_settled() {
            self.end_well(turn, carrier);
        }
    }

    fn end_well(&mut self, turn: &mut Turn<'_>, carrier: &mut dyn Carrier) {
        carrier.close(Code::NO_ERROR, "");
        self.end(turn);
    }

    /// Gives back all that is held.
    fn end(&mut self, turn: &mut Turn<'_>) {
        for stream in self.streams.take_all() {
            if let Recv::Body(receiving) = stream.recv {
                turn.door.release(receiving.reserved);
                turn.door.abandoned(Protocol::Http3);
            }
        }
        self.unis = Vec::new();
        (self.in_flight, self.section_bytes) = (0, 0);
        self.is_over = true;
    }

    /// Answers the bodies that stalled, and resets the streams whose heads or answers did. Returns
    /// whether any did.
    fn end_stalled(&mut self, turn: &mut Turn<'_>, carrier: &mut dyn Carrier) -> bool {
        let (now, limits) = (turn.now, turn.limits);
        let is_late = |stream: &stream::Stream| stream.due(limits).is_some_and(|due| due <= now);
        let late = self.streams.numbers(is_late);
        for number in late.iter().copied() {
            let Some(place) = self.streams.find(number) else {
                continue;
            };
            let stream = self.streams.at(place);
            match (&stream.recv, &stream.send) {
                (_, Send::Blocked(_)) => {
                    turn.door.trouble(Protocol::Http3, Trouble::Window);
                    self.let_go(number, Code::REQUEST_CANCELLED, turn, carrier);
                }
                (Recv::Body(receiving), _) => {
                    let refusal = receiving.pace.refusal(now, limits);
                    self.refuse_body(number, refusal, false, turn, carrier);
                }
                (Recv::Head(_), _) => {
                    turn.door.trouble(Protocol::Http3, Trouble::Stalled);
                    self.let_go(number, Code::REQUEST_CANCELLED, turn, carrier);
                }
                _ => self.let_go(number, Code::NO_ERROR, turn, carrier),
            }
        }
        let due = self.streams.iter().filter_map(|stream| stream.due(limits)).min();
        self.streams_due = due.unwrap_or(Nanos::MAX);
        !late.is_empty()
    }
}

/// How long a peer may take to hear of a GOAWAY.
const FAREWELL_MIN: Nanos = 10_000_000;
const FAREWELL_MAX: Nanos = 1_000_000_000;
/// How long it is waited for the last answers to arrive.
const ARRIVAL_MAX: Nanos = 2_000_000_000;

/// Twice there and back: the peer has heard by then, and what was on its way has come, unless it
/// was lost.
fn patience(limits: &Limits, carrier: &dyn Carrier) -> Nanos {
    let patience = (2 * carrier.round_trip()).clamp(FAREWELL_MIN, FAREWELL_MAX);
    patience.min(limits.header_timeout)
}

fn too_much(trouble: Trouble) -> Fault {
    let reason = match trouble {
        Trouble::Resets => "too many requests are reset",
        Trouble::Errors => "too many streams had to be reset",
        Trouble::Crumbs => "too many tiny or empty DATA frames",
        _ => "too many frames and streams that say nothing about a request",
    };
    Fault::Connection(Code::EXCESSIVE_LOAD, reason, trouble)
}

/// RFC 9000, 2.1: opened by the client, in both directions.
fn is_request(stream: u64) -> bool {
    stream & 0b11 == 0
}

/// Of a request's stream. Later ones are never opened: [`REQUESTS_MAX`].
fn number_of(stream: u64) -> u32 {
    (stream >> 2) as u32
}

fn stream_of(number: u32) -> u64 {
    u64::from(number) << 2
}
