//! HTTP/2, the client's side of one connection, sans-I/O. RFC 9113; header blocks are HPACK's.
//!
//! Made for unary gRPC: a call is a head that the peer's table knows after the first time, a
//! message that is never copied, and an answer that is small. All frames of all calls that were
//! opened since the last send leave together: [`Client::poll_output`] gathers them.
//!
//! Never opens a stream by itself, reads no clock, and says nothing about whether a request may be
//! sent again: a [`Failure`] says what the peer did, and whoever called judges.
//!
//! Always
//! - Each stream that was opened and not cancelled comes back once, as an [`Event`].
//! - Streams are sent in the order of their opening, as far as the peer's windows go; one that has
//!   no room holds up no other.
//! - What a peer may send is bounded: an answer's head and body, heads that announce others, and
//!   frames that say nothing about an answer. A peer's error ends its stream or its connection,
//!   with the code that the standard gives it.

mod answer;
mod head;
mod output;
mod receive;
mod send;
mod stream;

use std::collections::VecDeque;
use std::fmt;
use std::rc::Rc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, StatusCode};

use self::head::Encoder;
pub use self::head::RequestHead;
pub use self::output::Output;
use self::receive::HeaderBlock;
use self::stream::{Message, Stream, Streams};
use super::calm::Calm;
pub use super::frame::Code;
use super::frame::{self, FRAME_BYTES_MAX, PREFACE, WINDOW_INITIAL, WINDOW_MAX, kind, setting};
use super::hpack::Decoder;
use super::hpack::field::Side;
use super::stream::Window;
use crate::request::Nanos;

/// Per stream: a usual answer comes without waiting for a window update.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 1 << 20;
/// A header list, as HTTP/2 counts it.
const HEADER_BYTES_MAX: usize = 64 << 10;
/// Before its settings came a peer is taken to bear so many streams (RFC 9113, 6.5.2, asks no
/// server to bear fewer).
const STREAMS_ASSUMED: usize = 100;
/// With so many bytes of control frames unsent nothing more is read: the peer reads nothing.
const CONTROL_BYTES_MAX: usize = 64 << 10;
/// Of the memory for control frames this much is kept.
const CONTROL_BYTES_SPARE: usize = 16 << 10;
const PING: [u8; 8] = *b"forebay?";

/// How a connection is used.
#[derive(Clone, Copy)]
pub struct Settings {
    /// The body of an answer; a longer one fails its stream.
    pub answer_bytes_max: usize,
    /// Whether anybody reads a header of an answer; others are left out.
    pub reads: fn(&HeaderName) -> bool,
    /// `None`: no pings.
    pub keepalive: Option<Keepalive>,
}

/// When to ask whether the peer is still there.
#[derive(Clone, Copy)]
pub struct Keepalive {
    pub every: Nanos,
    /// An answer that takes longer ends the connection.
    pub timeout: Nanos,
    /// Also while no stream is open.
    pub when_idle: bool,
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    /// `None`: the body ended without, or the head was all there is.
    pub trailers: Option<HeaderMap>,
}

/// A stream has ended.
#[derive(Debug)]
pub struct Event {
    pub stream: u32,
    pub outcome: Result<Answer, Failure>,
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    pub why: Why,
    /// The head of an answer had come.
    pub began: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The peer reset the stream. With `REFUSED_STREAM` it has done nothing.
    Reset(Code),
    /// The peer went away and says that it has not looked at this stream.
    Unprocessed(Code),
    /// What came is no answer. The stream was reset.
    Malformed(&'static str),
    /// The answer is longer than it may be. The stream was reset.
    TooLarge,
    /// The connection ended; [`Client::end`] says why.
    Ended,
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The peer closed it.
    Closed,
    /// We left, and every stream has ended.
    Left,
    /// The peer said that it goes, and every stream has ended.
    GoneAway(Code),
    /// What came is no HTTP/2, or not as it must be.
    Broken(Code, &'static str),
    /// The peer did not answer a ping.
    Silent,
}

pub struct Client {
    settings: Settings,
    control: Vec<u8>,
    /// The beginning of a frame whose rest has not come.
    partial: Vec<u8>,
    /// A header block that has not ended.
    block: Option<HeaderBlock>,
    decoder: Decoder,
    encoder: Encoder,
    streams: Streams,
    next_stream: u32,
    /// Streams whose messages are not all sent.
    unsent: usize,
    /// What the peer may send on all streams together.
    window: Window,
    peer: Peer,
    calm: Calm,
    /// Control frames that the peer may send because of our DATA.
    owed_control: u32,
    ping: Ping,
    events: VecDeque<Event>,
    /// The peer said that it goes.
    goes: Option<Code>,
    leaves: bool,
    end: Option<End>,
}

/// What the peer's settings and window updates allow us.
struct Peer {
    has_settings: bool,
    frame_bytes_max: usize,
    streams_max: usize,
    stream_window: i64,
    /// Of all streams together.
    window: i64,
}

#[derive(Clone, Copy)]
enum Ping {
    Never,
    Due(Nanos),
    /// Sent, and to be answered by then.
    Sent(Nanos),
}

/// What a peer did wrong.
enum Fault {
    /// The connection ends.
    Connection(Code, &'static str),
    /// The stream is reset.
    Stream(u32, Code, Why),
}

impl Client {
    pub fn new(settings: Settings, now: Nanos) -> Client {
        let mut control = Vec::with_capacity(128);
        control.extend_from_slice(PREFACE);
        let ours = [
            (setting::ENABLE_PUSH, 0),
            (setting::INITIAL_WINDOW_SIZE, STREAM_WINDOW_BYTES),
            (setting::MAX_HEADER_LIST_SIZE, HEADER_BYTES_MAX as u32),
        ];
        frame::put_settings(&mut control, &ours);
        let increment = CONNECTION_WINDOW_BYTES - WINDOW_INITIAL as u32;
        frame::put_window_update(&mut control, 0, increment);
        Client {
            settings,
            control,
            partial: Vec::new(),
            block: None,
            decoder: Decoder::of(Side::Answer),
            encoder: Encoder::new(),
            streams: Streams::default(),
            next_stream: 1,
            unsent: 0,
            window: Window::new(CONNECTION_WINDOW_BYTES),
            peer: Peer {
                has_settings: false,
                frame_bytes_max: FRAME_BYTES_MAX,
                streams_max: STREAMS_ASSUMED,
                stream_window: WINDOW_INITIAL,
                window: WINDOW_INITIAL,
            },
            calm: Calm::new(now),
            owed_control: 0,
            ping: settings.keepalive.map_or(Ping::Never, |keep| Ping::Due(now + keep.every)),
            events: VecDeque::new(),
            goes: None,
            leaves: false,
            end: None,
        }
    }

    /// Whether a stream can be opened now.
    pub fn can_open(&self) -> bool {
        self.is_usable() && self.streams.len() < self.peer.streams_max
    }

    /// Whether a stream can be opened now or once others have ended.
    pub fn is_usable(&self) -> bool {
        let has_ids = i64::from(self.next_stream) <= WINDOW_MAX;
        self.end.is_none() && self.goes.is_none() && !self.leaves && has_ids
    }

    /// Whether messages wait for the peer to take more on all streams together: that of a further
    /// stream would wait behind them.
    pub fn is_held_up(&self) -> bool {
        self.unsent > 0 && self.peer.window <= 0
    }

    /// Whether the peer has sent its settings, as HTTP/2 wants it to do first.
    pub fn has_settings(&self) -> bool {
        self.peer.has_settings
    }

    /// Opens a stream and returns its id, if it can be opened now.
    pub fn open(&mut self, head: &Rc<RequestHead>, message: Vec<Bytes>) -> Option<u32> {
        if !self.can_open() {
            return None;
        }
        let id = self.next_stream;
        self.next_stream += 2;
        let message = Message::new(message);
        self.put_head(id, head, message.is_empty());
        self.unsent += usize::from(!message.is_empty());
        self.streams.add(Stream::new(id, message));
        Some(id)
    }

    /// Nobody waits for this stream's answer any more. No event follows.
    pub fn cancel(&mut self, stream: u32) {
        if self.drop_stream(stream).is_some() {
            frame::put_reset(&mut self.control, stream, Code::CANCEL);
        }
        self.settle();
    }

    /// Opens no more streams, and ends once those that are open have.
    pub fn leave(&mut self) {
        self.leaves = true;
        self.settle();
    }

    /// The peer will send no more.
    pub fn handle_eof(&mut self) {
        if !self.peer.has_settings && !self.partial.is_empty() {
            self.fail(Code::PROTOCOL_ERROR, "it ended in its first frame");
        }
        self.finish(End::Closed);
    }

    /// The time that [`Client::deadline`] named has come.
    pub fn handle_timeout(&mut self, now: Nanos) {
        let Some(keepalive) = self.settings.keepalive.filter(|_| self.end.is_none()) else {
            return;
        };
        match self.ping {
            Ping::Due(at) if at <= now => {
                if self.streams.is_empty() && !keepalive.when_idle {
                    self.ping = Ping::Due(now + keepalive.every);
                    return;
                }
                self.ping = Ping::Sent(now + keepalive.timeout);
                frame::put(&mut self.control, kind::PING, 0, 0, &PING);
            }
            Ping::Sent(until) if until <= now => self.finish(End::Silent),
            _ => {}
        }
    }

    /// When [`Client::handle_timeout`] is wanted.
    pub fn deadline(&self) -> Option<Nanos> {
        match self.ping {
            _ if self.end.is_some() => None,
            Ping::Never => None,
            Ping::Due(at) | Ping::Sent(at) => Some(at),
        }
    }

    /// The next stream that has ended.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Streams that are open.
    pub fn in_flight(&self) -> usize {
        self.streams.len()
    }

    /// Whether the connection has ended, and why. What there is of output is still to be sent.
    pub fn end(&self) -> Option<End> {
        self.end
    }

    /// Whether more may be read now: not while a peer that sends reads nothing itself.
    pub fn wants_input(&self) -> bool {
        self.end.is_none() && self.control.len() < CONTROL_BYTES_MAX
    }

    fn end_stream(&mut self, stream: u32, outcome: Result<Answer, Failure>) {
        self.events.push_back(Event { stream, outcome });
    }

    fn fail_stream(&mut self, stream: Stream, why: Why) {
        let began = stream.answer.is_some();
        self.end_stream(stream.id, Err(Failure { why, began }));
    }

    /// A stream that is open no more, whatever was left to send.
    fn drop_stream(&mut self, id: u32) -> Option<Stream> {
        let stream = self.streams.remove(id)?;
        self.unsent -= usize::from(!stream.message.is_empty());
        Some(stream)
    }

    /// Ends the connection if it is past its last stream.
    fn settle(&mut self) {
        if !self.streams.is_empty() || self.end.is_some() {
            return;
        }
        if let Some(code) = self.goes {
            self.finish(End::GoneAway(code));
        } else if self.leaves {
            frame::put_goaway(&mut self.control, 0, Code::NO_ERROR, "");
            self.finish(End::Left);
        }
    }

    /// Tells the peer what it did wrong, and ends the connection.
    fn fail(&mut self, code: Code, reason: &'static str) {
        tracing::debug!(code = code.0, reason, "an HTTP/2 connection to a destination broke");
        frame::put_goaway(&mut self.control, 0, code, reason);
        self.finish(End::Broken(code, reason));
    }

    fn finish(&mut self, end: End) {
        if self.end.is_some() {
            return;
        }
        self.end = Some(end);
        let mut streams = std::mem::take(&mut self.streams);
        for stream in streams.drain() {
            self.fail_stream(stream, Why::Ended);
        }
        self.unsent = 0;
        (self.partial, self.block) = (Vec::new(), None);
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::Reset(code) => write!(f, "the destination reset it ({code})"),
            Why::Unprocessed(code) => write!(f, "the destination goes away ({code})"),
            Why::Malformed(reason) => write!(f, "its answer has {reason}"),
            Why::TooLarge => f.write_str("its answer is too large"),
            Why::Ended => f.write_str("the connection ended"),
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::Closed => f.write_str("the destination closed the connection"),
            End::Left => f.write_str("the connection was given up"),
            End::GoneAway(code) => write!(f, "the destination went away ({code})"),
            End::Broken(code, reason) => write!(f, "{reason} ({code})"),
            End::Silent => f.write_str("a keepalive ping stayed unanswered"),
        }
    }
}
