//! HTTP/2, the server's side of one connection, sans-I/O. RFC 9113; header blocks are HPACK's.
//!
//! Made for unary gRPC: a call's head is a few indices whose meaning the table keeps, its message
//! is one DATA frame, its answer three small frames; all calls of a read are answered by one write.
//! What else HTTP/2 has, long bodies, CONTINUATION, blocked answers, resets, goes the same way with
//! a stop in between. Calls that are streams of messages have a way of their own: [`messages`].
//!
//! Always
//! - Frames are read where they lie: only the beginning of one that is cut off is kept, and a body
//!   is copied once, into its own buffer. An idle connection holds no buffer.
//! - A body that is kept is reserved at the door. Flow-control credit goes back when its bytes are
//!   taken, so that a client is never stalled by us; what bounds its bytes is the door.
//! - A refused request's body is read and thrown away for a while: a client that has not heard of
//!   the refusal yet does nothing wrong, and its other calls go on.
//! - A peer's error ends its stream or its connection, with the code that the standard gives it.
//!   What costs work and brings no request is bounded by [`calm`], and told to the door.

mod answers;
pub(crate) mod calm;
pub mod client;
mod frame;
pub(crate) mod head;
pub(crate) mod hpack;
mod messages;
mod receive;
mod requests;
mod stream;

use std::mem;

use bytes::Bytes;

use self::calm::Calm;
use self::frame::{Code, WINDOW_INITIAL, setting};
use self::hpack::Decoder;
use self::receive::{DataFrame, HeaderBlock};
use self::stream::{Past, Recv, Send, Streams, Window};
use crate::request::{Answer, Core, Limits, Nanos, Protocol, Refusal, Standing, Trouble, Turn};

/// The window of a connection is so many times a stream's.
const STREAMS_IN_WINDOW: u32 = 4;
/// With this much unsent nothing more is read: the peer does not read its answers.
const OUTPUT_BYTES_MAX: usize = 256 << 10;
/// A refused body up to this long is thrown away; then its stream is reset.
const DISCARD_BYTES_MAX: usize = 1 << 20;
/// When the process ends, a peer gets so long to answer our first GOAWAY's PING.
const FAREWELL_NANOS: Nanos = 1_000_000_000;
/// Marks our first GOAWAY: once the peer answers it, no request is on its way that the peer did
/// not know to be late.
const FAREWELL: [u8; 8] = *b"farewell";

pub struct Http2 {
    phase: Phase,
    /// The beginning of a frame whose rest has not come.
    partial: Vec<u8>,
    /// A DATA frame whose payload has not all come.
    data: Option<DataFrame>,
    /// A header block that has not ended.
    block: Option<Box<HeaderBlock>>,
    /// When the unfinished frame or block began.
    unfinished_since: Nanos,
    decoder: Decoder,
    streams: Streams,
    /// The highest stream that the peer opened.
    last_stream: u32,
    /// What the peer may send on all streams together.
    window: Window,
    peer: Peer,
    output: Vec<u8>,
    /// About as much as the last output.
    output_bytes_expected: usize,
    calm: Calm,
    in_flight: usize,
    /// Streamed requests that were handed out and are not at their end.
    calls: usize,
    /// An answer that goes on has left, for which further messages may have waited.
    has_left: bool,
    /// Answers that wait for room.
    blocked: usize,
    /// Streams that ended in the output that has not left yet: to the peer they are open.
    ended_unsent: usize,
    since: Nanos,
    going: Going,
    /// The last GOAWAY is due by then, even if the peer has not answered the first one's PING.
    farewell_until: Nanos,
    /// The highest stream that our latest GOAWAY allows: no later one names a higher one.
    stream_allowed: u32,
    /// The peer sends no more.
    eof: bool,
    /// The peer said that it goes.
    peer_goes: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Preface,
    /// The peer's first frame must be its settings.
    Settings,
    Open,
    Over,
}

/// How far we came with leaving.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Going {
    No,
    /// A GOAWAY that names no stream is sent: requests on their way are still taken.
    Announced,
    /// The peer has heard of it: what lies in this read is still taken.
    Heard,
    /// The last request is known.
    Final,
}

/// What the peer's settings and window updates allow us.
struct Peer {
    frame_bytes_max: usize,
    stream_window: i64,
    /// Of all streams together.
    window: i64,
    /// Our next block must say that we use no table: the peer made its own smaller.
    wants_table_size: bool,
}

/// What a peer did wrong.
#[derive(Debug)]
enum Fault {
    /// The connection ends.
    Connection(Code, &'static str, Trouble),
    /// The stream is reset.
    Stream(u32, Code),
}

impl Fault {
    fn protocol(reason: &'static str) -> Fault {
        Fault::Connection(Code::PROTOCOL_ERROR, reason, Trouble::Protocol)
    }

    fn frame_size(reason: &'static str) -> Fault {
        Fault::Connection(Code::FRAME_SIZE_ERROR, reason, Trouble::Protocol)
    }
}

impl Http2 {
    pub fn new(limits: &Limits, now: Nanos) -> Http2 {
        let mut output = Vec::with_capacity(64);
        let settings = [
            (setting::MAX_CONCURRENT_STREAMS, clamped(limits.connection_requests_max)),
            (setting::INITIAL_WINDOW_SIZE, stream_window_bytes(limits)),
            (setting::MAX_HEADER_LIST_SIZE, clamped(limits.header_bytes_max)),
        ];
        frame::put_settings(&mut output, &settings);
        let window_bytes = limits.connection_window_bytes.max(WINDOW_INITIAL as u32 + 1);
        let increment = window_bytes - WINDOW_INITIAL as u32;
        frame::put_window_update(&mut output, 0, increment);
        Http2 {
            phase: Phase::Preface,
            partial: Vec::new(),
            data: None,
            block: None,
            unfinished_since: now,
            decoder: Decoder::new(),
            streams: Streams::default(),
            last_stream: 0,
            window: Window::new(window_bytes),
            peer: Peer {
                frame_bytes_max: frame::FRAME_BYTES_MAX,
                stream_window: WINDOW_INITIAL,
                window: WINDOW_INITIAL,
                wants_table_size: false,
            },
            output,
            output_bytes_expected: 0,
            calm: Calm::new(now),
            in_flight: 0,
            calls: 0,
            has_left: false,
            blocked: 0,
            ended_unsent: 0,
            since: now,
            going: Going::No,
            farewell_until: Nanos::MAX,
            stream_allowed: frame::WINDOW_MAX as u32,
            eof: false,
            peer_goes: false,
        }
    }

    /// Ends the connection if it is past its last request.
    fn settle(&mut self) {
        let leaves = self.eof || self.going == Going::Final;
        if leaves && self.streams.is_empty() {
            self.phase = Phase::Over;
        }
    }

    /// Tells the peer what it did wrong, and ends the connection.
    fn fail(&mut self, fault: &Fault, turn: &mut Turn<'_>) {
        let Fault::Connection(code, reason, trouble) = *fault else {
            return;
        };
        tracing::debug!(code = code.0, reason, "an HTTP/2 connection broke");
        turn.door.trouble(Protocol::Http2, trouble);
        self.put_goaway(code, reason);
        self.end(turn);
    }

    /// Gives back all that is held. The output that is there is still sent.
    fn end(&mut self, turn: &mut Turn<'_>) {
        for stream in self.streams.take_all() {
            match stream.recv {
                Recv::Body(arriving) => {
                    turn.door.release(arriving.kept.reserved);
                    turn.door.abandoned(Protocol::Http2);
                }
                Recv::Messages(messages) => self.lose(stream.id, messages, turn),
                Recv::Discard(_) | Recv::Ended => {}
            }
        }
        (self.in_flight, self.calls, self.blocked) = (0, 0, 0);
        self.partial = Vec::new();
        self.data = None;
        self.block = None;
        self.phase = Phase::Over;
    }

    /// Counts one more of what `trouble` names.
    fn strain(&mut self, trouble: Trouble, now: Nanos) -> Result<(), Fault> {
        match self.calm.take(trouble, 1, now) {
            true => Ok(()),
            false => Err(too_much(trouble)),
        }
    }

    /// The first GOAWAY names no stream, and asks by a PING when the peer has heard of it.
    fn announce(&mut self, until: Nanos) {
        self.farewell_until = self.farewell_until.min(until);
        if self.going != Going::No {
            return;
        }
        self.going = Going::Announced;
        frame::put_goaway(&mut self.output, self.stream_allowed, Code::NO_ERROR, "");
        frame::put(&mut self.output, frame::kind::PING, 0, 0, &FAREWELL);
    }

    /// The last GOAWAY: what has not come by now is not taken.
    fn finish_going(&mut self) {
        self.going = Going::Final;
        self.put_goaway(Code::NO_ERROR, "");
        self.settle();
    }

    fn put_goaway(&mut self, code: Code, reason: &str) {
        self.stream_allowed = self.stream_allowed.min(self.last_stream);
        frame::put_goaway(&mut self.output, self.stream_allowed, code, reason);
    }

    fn is_unfinished(&self) -> bool {
        !self.partial.is_empty() || self.block.is_some()
    }

    /// What is due once all that came is taken.
    fn finish_turn(&mut self) {
        if self.phase == Phase::Over {
            return;
        }
        if let Some(increment) = self.window.due() {
            frame::put_window_update(&mut self.output, 0, increment);
        }
        if self.going == Going::Heard {
            self.finish_going();
        }
        self.settle();
    }

    /// Answers the bodies that stalled, and resets the streams whose answers did.
    fn end_stalled(&mut self, turn: &mut Turn<'_>) -> bool {
        let (now, limits) = (turn.now, turn.limits);
        let answer_is_late = |since: Nanos| since + limits.write_timeout <= now;
        let late =
            self.streams.ids(|stream| stream.pace().is_some_and(|pace| pace.is_late(now, limits)));
        let unsent = self.streams.ids(
            |stream| matches!(&stream.send, Send::Blocked(rest) if answer_is_late(rest.since)),
        );
        late.iter().for_each(|id| self.end_late(*id, turn));
        for id in &unsent {
            turn.door.trouble(Protocol::Http2, Trouble::Window);
            self.let_go(*id, Code::CANCEL, turn);
        }
        !(late.is_empty() && unsent.is_empty())
    }

    /// Ends a stream on which too little came.
    fn end_late(&mut self, id: u32, turn: &mut Turn<'_>) {
        let Some(place) = self.streams.find(id) else {
            return;
        };
        let stream = self.streams.at(place);
        let refusal = stream.pace().map(|pace| pace.refusal(turn.now, turn.limits));
        match (&stream.recv, refusal) {
            (Recv::Body(_), Some(refusal)) => self.refuse_body(id, refusal, false, turn),
            (Recv::Messages(_), Some(refusal)) => self.refuse_messages(id, refusal, turn),
            _ => self.let_go(id, Code::NO_ERROR, turn),
        }
    }
}

impl Core for Http2 {
    fn handle_input(&mut self, input: &[u8], turn: &mut Turn<'_>) {
        if self.phase == Phase::Over {
            return;
        }
        let mut received = self.receive(input, turn);
        if self.has_left && received.is_ok() {
            received = self.hand_out_waiting(turn);
        }
        if let Err(fault) = received {
            self.fail(&fault, turn);
        }
        self.finish_turn();
    }

    fn handle_eof(&mut self, turn: &mut Turn<'_>) {
        if self.phase == Phase::Over {
            return;
        }
        self.eof = true;
        // Nor does a frame or a header block that is cut off.
        (self.partial, self.data, self.block) = (Vec::new(), None, None);
        // Bodies never become whole now, and answers that wait for room never get it.
        let waits = |stream: &stream::Stream| {
            !matches!(stream.recv, Recv::Ended) || matches!(stream.send, Send::Blocked(_))
        };
        for id in self.streams.ids(waits) {
            self.abandon(id, Past::ResetByPeer, turn);
        }
        self.settle();
    }

    fn handle_answer(&mut self, stream: u32, answer: Answer, turn: &mut Turn<'_>) {
        self.take_answer(stream, answer, turn);
        self.settle();
    }

    fn handle_message(&mut self, stream: u32, message: Answer, turn: &mut Turn<'_>) {
        if let Err(fault) = self.take_message(stream, message, turn) {
            self.fail(&fault, turn);
        }
        self.settle();
    }

    fn handle_timeout(&mut self, turn: &mut Turn<'_>) {
        if self.phase == Phase::Over {
            return;
        }
        if self.phase == Phase::Preface {
            return self.end(turn);
        }
        let is_late = self.unfinished_since + turn.limits.header_timeout <= turn.now;
        if self.is_unfinished() && is_late {
            let reason = "the rest of a frame or of a header block did not come in time";
            let fault = Fault::Connection(Code::ENHANCE_YOUR_CALM, reason, Trouble::Stalled);
            return self.fail(&fault, turn);
        }
        let has_stalled = self.end_stalled(turn);
        if self.going == Going::Announced && self.farewell_until <= turn.now {
            self.finish_going();
        } else if !has_stalled && self.streams.is_empty() {
            match self.going == Going::No && !self.peer_goes {
                true => self.announce(turn.now + turn.limits.header_timeout),
                // The peer told us, and had its time.
                false => self.phase = Phase::Over,
            }
        }
        self.since = turn.now;
        self.settle();
    }

    fn drain(&mut self, turn: &mut Turn<'_>) {
        if self.phase == Phase::Over {
            return;
        }
        if self.phase == Phase::Preface {
            // It has asked for nothing yet.
            return self.end(turn);
        }
        for id in self.streams.ids(|stream| matches!(stream.recv, Recv::Body(_))) {
            self.refuse_body(id, Refusal::Draining, false, turn);
        }
        self.end_calls(turn);
        if self.peer_goes && self.streams.is_empty() {
            self.phase = Phase::Over;
            return;
        }
        self.announce(turn.now + turn.limits.header_timeout.min(FAREWELL_NANOS));
    }

    fn retire(&mut self, turn: &mut Turn<'_>) {
        if self.phase != Phase::Over {
            self.end_calls(turn);
            self.announce(turn.now + turn.limits.header_timeout);
        }
    }

    fn take_output(&mut self) -> Bytes {
        self.output_bytes_expected = self.output.len().min(OUTPUT_BYTES_MAX);
        self.ended_unsent = 0;
        Bytes::from(mem::take(&mut self.output))
    }

    fn in_flight(&self) -> usize {
        self.in_flight + self.calls
    }

    fn owes(&self) -> bool {
        let is_asked = self.going == Going::Announced && self.phase != Phase::Over;
        self.in_flight() > 0 || self.blocked > 0 || is_asked
    }

    fn deadline(&self, limits: &Limits) -> Option<Nanos> {
        match self.phase {
            Phase::Preface => return Some(self.since + limits.header_timeout),
            Phase::Over => return None,
            // A client may open a connection long before it has anything to say.
            Phase::Settings | Phase::Open => {}
        }
        let unfinished =
            self.is_unfinished().then(|| self.unfinished_since + limits.header_timeout);
        // Streams that only wait for the engine have no deadline, and most are such.
        let has_others = self.streams.len() > self.in_flight;
        let streams =
            has_others.then(|| self.streams.iter().filter_map(|stream| stream.due(limits)));
        let farewell = (self.going == Going::Announced).then_some(self.farewell_until);
        match streams.into_iter().flatten().chain(unfinished).chain(farewell).min() {
            Some(earliest) => Some(earliest),
            None if self.in_flight() > 0 => None,
            // A peer that goes, or was told to, gets a little while for it.
            None if self.going != Going::No || self.peer_goes => {
                Some(self.since + limits.header_timeout)
            }
            None => (limits.idle_timeout > 0).then(|| self.since + limits.idle_timeout),
        }
    }

    fn standing(&self) -> Standing {
        match self.phase {
            Phase::Over => Standing::FinishThenLinger,
            _ => Standing::Open,
        }
    }

    fn wants_input(&self) -> bool {
        self.phase != Phase::Over && !self.eof && self.output.len() < OUTPUT_BYTES_MAX
    }

    fn handle_lost(&mut self, turn: &mut Turn<'_>) {
        self.end(turn);
    }
}

fn too_much(trouble: Trouble) -> Fault {
    let reason = match trouble {
        Trouble::Resets => "too many requests are reset",
        Trouble::Errors => "too many streams had to be reset",
        Trouble::Crumbs => "too many tiny or empty DATA frames",
        Trouble::HeaderBlock => "a header block in too many pieces, or too long",
        _ => "too many frames that say nothing about a request",
    };
    Fault::Connection(Code::ENHANCE_YOUR_CALM, reason, trouble)
}

/// What a peer may send ahead on one stream: a usual export request comes without waiting.
fn stream_window_bytes(limits: &Limits) -> u32 {
    limits.connection_window_bytes / STREAMS_IN_WINDOW
}

fn clamped(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}
