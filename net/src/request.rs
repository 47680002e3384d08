//! What every protocol yields and takes: a request, its answer, and the door between them.
//!
//! A protocol asks the [`Door`] once it has a request's head and before it keeps a byte of its
//! body; so a request that would be refused anyway costs no memory. Body bytes are kept only after
//! [`Door::reserve`]; whoever ends up with the [`Request`] owes the door `reserved` bytes.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, Method, StatusCode};

use crate::fields::Fields;
use crate::ring::Key;
use crate::tls::peer::PeerIdentity;

/// Nanoseconds on the monotonic clock of whoever drives this code.
pub type Nanos = u64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    Http2,
    Http3,
}

impl Protocol {
    pub const ALL: [Protocol; 3] = [Protocol::Http1, Protocol::Http2, Protocol::Http3];

    /// As a metric's attribute says it.
    pub const fn name(self) -> &'static str {
        match self {
            Protocol::Http1 => "http1",
            Protocol::Http2 => "http2",
            Protocol::Http3 => "http3",
        }
    }
}

/// A request's head. `path` is without its query.
#[derive(Debug)]
pub struct Head {
    pub listener: u16,
    pub protocol: Protocol,
    pub method: Method,
    pub path: Arc<str>,
    /// Those that the door reads ([`Door::read_names`]), maybe more.
    pub headers: Fields,
    /// Bytes of body that the client announced, if it did.
    pub content_length: Option<u64>,
    /// Who the client proved to be, by a certificate.
    pub peer: Option<Arc<PeerIdentity>>,
}

/// Names a request until it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestId {
    pub key: Key,
    /// HTTP/2's stream id; else the number of the request on its connection.
    pub stream: u32,
}

/// A complete request, or what happened on one that is streamed.
#[derive(Debug)]
pub struct Request {
    pub id: RequestId,
    pub part: Part,
    /// Nearly empty for all parts but [`Part::Whole`]: the tag says where they belong.
    pub head: Head,
    /// What the door said when it let the request in.
    pub tag: u32,
    pub body: Bytes,
    /// Bytes that are reserved at the door for this request; the receiver of it releases them.
    pub reserved: usize,
}

/// What of a request is handed out. All but the first are about streamed requests, of which any
/// number of messages comes, and to which any number goes back before the answer ends them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    Whole,
    /// One message: the body is a gRPC message with its prefix. The next one is not handed out
    /// before something was said on the stream and has left.
    Message,
    /// The last message was handed out. The answer may still go on.
    End,
    /// The connection is to go: whoever answers should come to an end now.
    Leaving,
    /// The stream is gone, and what is said on it goes nowhere.
    Lost,
}

/// What goes back.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: Fields,
    pub body: Bytes,
    /// gRPC's status; only HTTP/2 carries them. Without a body they travel as trailers-only,
    /// which is for the caller to say by putting them into `headers`.
    pub trailers: Fields,
}

/// The terms on which a request may come in.
#[derive(Clone, Copy, Debug)]
pub struct Admitted {
    /// A longer body, of a streamed request a longer message, is refused as
    /// [`Refusal::TooLarge`].
    pub body_bytes_max: usize,
    /// The body is handed out message by message, see [`Part`]. Only HTTP/2 does so.
    pub streamed: bool,
    /// Comes back with the [`Request`].
    pub tag: u32,
    /// What the door has reserved for the head and the state that its protocol keeps.
    pub reserved: usize,
}

/// Why a request is refused whose head could be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The body is longer than it may be.
    TooLarge { bytes_max: usize },
    /// The budget has no room: come back later.
    Overloaded,
    /// No byte of the body came for too long.
    BodyTimeout,
    /// The body came, but more slowly than [`crate::pace::BYTES_PER_SECOND_MIN`].
    BodyTooSlow,
    /// The process is about to stop: come back later.
    Draining,
    /// Its framing can't be relied on: a `status` of HTTP and what is wrong.
    Malformed { status: StatusCode, reason: &'static str },
}

/// The one that lets requests in. Called on the receiver's own thread, never waits.
pub trait Door {
    /// Asked once per request, before any of its body is kept. What the door does not need any
    /// more it takes out of the head's headers: they are kept until the body is complete.
    fn admit(&mut self, head: &mut Head) -> Result<Admitted, Answer>;
    /// Takes `bytes` from the budget, or says that they don't fit.
    fn reserve(&mut self, bytes: usize) -> bool;
    /// Gives back what [`Door::reserve`] took.
    fn release(&mut self, bytes: usize);
    /// The answer to a request that was let in and then could not be kept, or that may not be let
    /// in because where its body ends is in doubt.
    fn refuse(&mut self, head: &Head, refusal: Refusal) -> Answer;
    /// The answer to what has no head that could be read: a `status` of HTTP and what is wrong.
    fn malformed(&mut self, status: StatusCode, reason: &'static str) -> Answer;
    /// A client left in the middle of a request: `protocol` lost it before it was complete.
    fn abandoned(&mut self, protocol: Protocol);
    /// The headers whose values somebody reads (`None`: all); others a protocol may leave out of
    /// the head. The answer is the same for as long as the door lasts: a protocol may remember it.
    fn read_names(&self) -> Option<&'static [HeaderName]> {
        None
    }
    /// A peer's behaviour cost it a stream or its connection of HTTP/2 or HTTP/3. To be counted.
    fn trouble(&mut self, _: Protocol, _: Trouble) {}
}

/// What peers do that costs work and brings no request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// A connection ended: more requests reset than answered.
    Resets,
    /// A connection ended: too many streams had to be reset for the peer's errors.
    Errors,
    /// A connection ended: too many frames that say nothing about a request.
    Control,
    /// A connection ended: bodies in too many tiny or empty pieces.
    Crumbs,
    /// A connection ended: a header block in too many pieces, or too long by far.
    HeaderBlock,
    /// A connection ended: the peer broke the protocol.
    Protocol,
    /// A connection ended: the peer did not send the rest of a frame or of a header block.
    Stalled,
    /// A request was malformed, and its stream reset.
    Malformed,
    /// A stream was refused: too many at once.
    Streams,
    /// A stream ended: the peer gave no room for its answer for too long.
    Window,
    /// A connection ended: too much of what came had gaps before it.
    Gaps,
}

impl Trouble {
    pub const ALL: [Trouble; 11] = [
        Trouble::Resets,
        Trouble::Errors,
        Trouble::Control,
        Trouble::Crumbs,
        Trouble::HeaderBlock,
        Trouble::Protocol,
        Trouble::Stalled,
        Trouble::Malformed,
        Trouble::Streams,
        Trouble::Window,
        Trouble::Gaps,
    ];

    /// As a metric's attribute says it.
    pub const fn name(self) -> &'static str {
        match self {
            Trouble::Resets => "resets",
            Trouble::Errors => "errors",
            Trouble::Control => "control",
            Trouble::Crumbs => "crumbs",
            Trouble::HeaderBlock => "header_block",
            Trouble::Protocol => "protocol",
            Trouble::Stalled => "stalled",
            Trouble::Malformed => "malformed",
            Trouble::Streams => "streams",
            Trouble::Window => "window",
            Trouble::Gaps => "gaps",
        }
    }
}

/// Bounds of what a connection may ask for. All are bytes, counts or nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub header_bytes_max: usize,
    pub connections_max: usize,
    /// HTTP/2 streams at once on one connection.
    pub connection_requests_max: usize,
    /// What an HTTP/2 peer may send ahead on all streams of one connection; on one, a quarter.
    pub connection_window_bytes: u32,
    pub header_timeout: Nanos,
    /// Between two arrivals of a body, and for all of it beside what its bytes earn:
    /// [`crate::pace`].
    pub body_timeout: Nanos,
    /// 0: never.
    pub idle_timeout: Nanos,
    pub write_timeout: Nanos,
}

/// A connection's protocol.
///
/// Bytes and `now` in, requests and bytes out. `handle_*` takes what happened, `poll_*` and
/// `take_*` hand out what is due.
pub trait Core {
    /// Bytes from the peer.
    fn handle_input(&mut self, input: &[u8], turn: &mut Turn<'_>);
    /// The peer will send no more.
    fn handle_eof(&mut self, turn: &mut Turn<'_>);
    /// The output that was taken is sent: there is room for more.
    fn handle_sent(&mut self, _turn: &mut Turn<'_>) {}
    /// The answer to a request that came from this connection; an unknown stream is ignored (the
    /// peer may have reset it).
    fn handle_answer(&mut self, stream: u32, answer: Answer, turn: &mut Turn<'_>);
    /// A message for a streamed request, whose answer goes on until [`Core::handle_answer`] ends
    /// it. The first one's headers are sent, of the others the body alone. While a message waits
    /// for room only the newest of those behind it is kept.
    fn handle_message(&mut self, _stream: u32, _message: Answer, _turn: &mut Turn<'_>) {}
    /// A deadline that [`Core::deadline`] named has passed.
    fn handle_timeout(&mut self, turn: &mut Turn<'_>);
    /// Answer what is in flight, take no more, then finish.
    fn drain(&mut self, turn: &mut Turn<'_>);
    /// The connection is old: what is under way is finished, bodies as well, what comes meanwhile
    /// is taken as far as the protocol can tell the peer in time; then finish.
    fn retire(&mut self, turn: &mut Turn<'_>);
    /// Bytes for the peer, all that there are.
    fn take_output(&mut self) -> Bytes;
    /// Requests handed out and not answered.
    fn in_flight(&self) -> usize;
    /// Whether the peer still gets something that a draining process waits for: an answer, or the
    /// time to hear that we go.
    fn owes(&self) -> bool {
        self.in_flight() > 0
    }
    /// When to call [`Core::handle_timeout`] if nothing happens before.
    fn deadline(&self, limits: &Limits) -> Option<Nanos>;
    /// How the connection stands.
    fn standing(&self) -> Standing;
    /// Whether more input would be used now.
    fn wants_input(&self) -> bool;
    /// The connection is gone: give back what is reserved at the door.
    fn handle_lost(&mut self, turn: &mut Turn<'_>);
    /// Whether [`Core::lend_body`] has something to lend.
    fn wants_direct(&self) -> bool {
        false
    }
    /// The end of a long body may go straight into its own buffer: at most `.1` bytes.
    fn lend_body(&mut self) -> Option<(bytes::BytesMut, usize)> {
        None
    }
    /// The buffer that was lent comes back, longer by what the kernel wrote.
    fn return_body(&mut self, _buffer: bytes::BytesMut, _turn: &mut Turn<'_>) {}
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Open,
    /// Once the output is sent: say that no more comes, and read what the peer still sends until
    /// it ends or a moment has passed, so that the last answer is not lost in a reset.
    FinishThenLinger,
    /// Once the output is sent, close.
    Finish,
}

/// What a core may use while it handles something.
pub struct Turn<'a> {
    pub now: Nanos,
    pub key: Key,
    pub listener: u16,
    pub limits: &'a Limits,
    /// Who the connection's client is, if it has a certificate.
    pub peer: Option<Arc<PeerIdentity>>,
    pub door: &'a mut dyn Door,
    pub requests: &'a mut Vec<Request>,
    /// For the `Date` header: an IMF-fixdate, as long as the turn lasts.
    pub date: &'a str,
}
