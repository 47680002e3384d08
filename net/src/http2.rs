//! HTTP/2, the server's side of one connection: the `h2` crate, polled over an in-memory pipe.
//!
//! The crate is asynchronous by its interface alone: here it is polled with a waker that does
//! nothing, whenever bytes came in or an answer was given, until it has nothing left to do. So it
//! is as sans-I/O as [`crate::http1`], and an own core can take its place behind [`Core`].
//!
//! Always
//! - A body that is kept is reserved at the door, and copied out of the crate's buffers: a slice
//!   would keep a whole read buffer alive for a few bytes.
//! - A refused request's body is read and thrown away for a while: a client that has not heard
//!   of the refusal yet does nothing wrong, and its other calls go on.
//! - Flow-control credit goes back when the bytes are taken, so that a client is never stalled by
//!   us; what bounds its bytes is the door.

mod pipe;

use std::collections::HashMap;
use std::future::Future as _;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::RecvStream;
use h2::server::{Connection, Handshake, SendResponse};
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Method, Response};

use self::pipe::Pipe;
use crate::request::{
    Answer, Core, Head, Limits, Nanos, Protocol, Refusal, Request, RequestId, Standing, Turn,
};

/// Per stream: a usual export request comes without waiting for a window update.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
const MAX_FRAME_BYTES: u32 = 16 << 10;
/// The HPACK table that a client may use.
const HEADER_TABLE_BYTES: u32 = 4096;
/// A refused body up to this long is thrown away; then its stream is reset.
const DISCARD_BYTES_MAX: usize = 1 << 20;
/// For how long, and for how many streams that we reset, the crate takes what still comes for
/// them for late, not for an error.
const RESETS_REMEMBERED_FOR: Duration = Duration::from_secs(5);
const RESETS_REMEMBERED_MAX: usize = 256;
/// Streams that a client may reset before we saw them, and that we may reset for its errors
/// (CVE-2025-8671): then the connection ends.
const RESETS_MAX: usize = 64;
/// How many more requests a client may reset than it lets us answer (CVE-2023-44487). A client
/// whose calls time out by the hundred meets it too, and loses nothing but its connection.
const RESETS_AHEAD_MAX: usize = 512;

pub struct Http2 {
    pipe: Pipe,
    state: State,
    streams: HashMap<u32, Stream>,
    /// Streams whose body is not complete.
    receiving: Vec<u32>,
    discarding: Vec<Discarding>,
    in_flight: usize,
    /// The peer sends no more; the crate hears of it when all that it asked is answered.
    eof: bool,
    /// Resets that no answered request has made up for.
    resets_ahead: usize,
    since: Nanos,
    draining: bool,
}

enum State {
    Handshake(Pin<Box<Handshake<Pipe, Bytes>>>),
    Open(Box<Connection<Pipe, Bytes>>),
    Over,
}

struct Stream {
    respond: SendResponse<Bytes>,
    receiving: Option<Receiving>,
    /// The request is a HEAD: its answer has no body.
    bodiless: bool,
}

/// The rest of a refused body.
struct Discarding {
    recv: RecvStream,
    left: usize,
    since: Nanos,
}

struct Receiving {
    head: Head,
    tag: u32,
    bytes_max: usize,
    recv: RecvStream,
    body: BytesMut,
    reserved: usize,
    since: Nanos,
}

/// How far the body of a stream came.
enum Step {
    Pending,
    Complete,
    Refused(Refusal),
    Reset,
}

impl Http2 {
    pub fn new(limits: &Limits, now: Nanos) -> Http2 {
        let pipe = Pipe::default();
        let handshake = h2::server::Builder::new()
            .initial_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_frame_size(MAX_FRAME_BYTES)
            .header_table_size(HEADER_TABLE_BYTES)
            .max_header_list_size(limits.header_bytes_max as u32)
            .max_concurrent_streams(limits.connection_requests_max as u32)
            .max_pending_accept_reset_streams(RESETS_MAX)
            .max_local_error_reset_streams(Some(RESETS_MAX))
            .reset_stream_duration(RESETS_REMEMBERED_FOR)
            .max_concurrent_reset_streams(RESETS_REMEMBERED_MAX)
            .handshake(pipe.clone());
        Http2 {
            pipe,
            state: State::Handshake(Box::pin(handshake)),
            streams: HashMap::new(),
            receiving: Vec::new(),
            discarding: Vec::new(),
            in_flight: 0,
            eof: false,
            resets_ahead: 0,
            since: now,
            draining: false,
        }
    }

    /// Polls everything until nothing moves.
    fn pump(&mut self, turn: &mut Turn<'_>) {
        let mut context = Context::from_waker(Waker::noop());
        loop {
            let accepted = self.poll_accept(&mut context, turn);
            let received = self.poll_bodies(&mut context, turn);
            if !accepted && !received {
                break;
            }
        }
        if self.resets_ahead > RESETS_AHEAD_MAX
            && let State::Open(connection) = &mut self.state
        {
            self.resets_ahead = 0;
            connection.abrupt_shutdown(h2::Reason::ENHANCE_YOUR_CALM);
            // Writes the GOAWAY; the end of the connection comes with one of the next polls.
            let _ = connection.poll_closed(&mut context);
            self.release_all(turn);
            self.state = State::Over;
        }
    }

    /// Answers, and remembers whether anybody was there to be answered.
    fn respond(&mut self, stream: Stream, answer: Answer) {
        match respond_to(stream, answer) {
            Ok(()) => self.resets_ahead = self.resets_ahead.saturating_sub(1),
            Err(_) => self.resets_ahead += 1,
        }
    }

    fn poll_accept(&mut self, context: &mut Context<'_>, turn: &mut Turn<'_>) -> bool {
        match &mut self.state {
            State::Over => false,
            State::Handshake(handshake) => match handshake.as_mut().poll(context) {
                Poll::Pending => false,
                Poll::Ready(Ok(mut connection)) => {
                    if self.draining {
                        connection.graceful_shutdown();
                    }
                    self.state = State::Open(Box::new(connection));
                    true
                }
                Poll::Ready(Err(error)) => self.broken(&error, turn),
            },
            State::Open(connection) => match connection.poll_accept(context) {
                Poll::Pending => false,
                Poll::Ready(Some(Ok((request, respond)))) => {
                    self.since = turn.now;
                    self.take(request, respond, turn);
                    true
                }
                Poll::Ready(Some(Err(error))) => self.broken(&error, turn),
                Poll::Ready(None) => {
                    self.release_all(turn);
                    self.state = State::Over;
                    false
                }
            },
        }
    }

    /// The connection can't go on; the crate has queued its GOAWAY if one was due.
    fn broken(&mut self, error: &h2::Error, turn: &mut Turn<'_>) -> bool {
        tracing::debug!(%error, "an HTTP/2 connection broke");
        if let State::Open(connection) = &mut self.state {
            let mut context = Context::from_waker(Waker::noop());
            let _ = connection.poll_closed(&mut context);
        }
        self.release_all(turn);
        self.state = State::Over;
        false
    }

    fn take(
        &mut self,
        request: http::Request<RecvStream>,
        respond: SendResponse<Bytes>,
        turn: &mut Turn<'_>,
    ) {
        let (parts, recv) = request.into_parts();
        let mut head = Head {
            listener: turn.listener,
            protocol: Protocol::Http2,
            method: parts.method,
            path: parts.uri.path().to_owned(),
            content_length: content_length(&parts.headers),
            headers: parts.headers,
        };
        let bodiless = head.method == Method::HEAD;
        let stream = Stream { respond, receiving: None, bodiless };
        let admitted = match turn.door.admit(&mut head) {
            Ok(admitted) => admitted,
            Err(answer) => return self.refuse(stream, recv, answer, turn.now),
        };
        let bytes_max = admitted.body_bytes_max;
        if head.content_length.is_some_and(|length| length > bytes_max as u64) {
            turn.door.release(admitted.reserved);
            let answer = turn.door.refuse(&head, Refusal::TooLarge { bytes_max });
            return self.refuse(stream, recv, answer, turn.now);
        }
        let id = stream.respond.stream_id().as_u32();
        let receiving = Receiving {
            head,
            tag: admitted.tag,
            bytes_max,
            recv,
            body: BytesMut::new(),
            reserved: admitted.reserved,
            since: turn.now,
        };
        self.streams.insert(id, Stream { receiving: Some(receiving), ..stream });
        self.receiving.push(id);
    }

    /// Answers a request whose body will not be kept, and gets past a body that is not long.
    fn refuse(&mut self, stream: Stream, recv: RecvStream, answer: Answer, now: Nanos) {
        self.respond(stream, answer);
        if !recv.is_end_stream() {
            self.discarding.push(Discarding { recv, left: DISCARD_BYTES_MAX, since: now });
        }
    }

    fn poll_bodies(&mut self, context: &mut Context<'_>, turn: &mut Turn<'_>) -> bool {
        let mut moved = false;
        let mut pending = mem::take(&mut self.receiving);
        pending.retain(|id| {
            let step = match self.streams.get_mut(id).and_then(|s| s.receiving.as_mut()) {
                Some(receiving) => {
                    let before = receiving.reserved;
                    let step = receiving.poll(context, turn);
                    moved |= receiving.reserved != before;
                    step
                }
                None => return false,
            };
            if matches!(step, Step::Pending) {
                return true;
            }
            moved = true;
            self.finish_body(*id, step, turn);
            false
        });
        pending.append(&mut self.receiving);
        self.receiving = pending;
        self.discarding.retain_mut(|discarding| discarding.poll(context, &mut moved, turn.now));
        if moved {
            self.since = turn.now;
        }
        moved
    }

    fn finish_body(&mut self, id: u32, step: Step, turn: &mut Turn<'_>) {
        let Some(mut stream) = self.streams.remove(&id) else {
            return;
        };
        let Some(receiving) = stream.receiving.take() else {
            return;
        };
        match step {
            Step::Complete => {
                self.in_flight += 1;
                self.streams.insert(id, stream);
                turn.requests.push(Request {
                    id: RequestId { key: turn.key, stream: id },
                    head: receiving.head,
                    tag: receiving.tag,
                    body: receiving.body.freeze(),
                    reserved: receiving.reserved,
                });
            }
            Step::Refused(refusal) => {
                turn.door.release(receiving.reserved);
                let answer = turn.door.refuse(&receiving.head, refusal);
                self.refuse(stream, receiving.recv, answer, turn.now);
            }
            Step::Reset | Step::Pending => {
                turn.door.release(receiving.reserved);
                turn.door.abandoned(Protocol::Http2);
                self.resets_ahead += 1;
            }
        }
    }

    fn release_all(&mut self, turn: &mut Turn<'_>) {
        for (_, stream) in self.streams.drain() {
            if let Some(receiving) = stream.receiving {
                turn.door.release(receiving.reserved);
                turn.door.abandoned(Protocol::Http2);
            }
        }
        self.receiving.clear();
        self.discarding.clear();
        self.in_flight = 0;
    }

    /// A peer that sends no more may still read its answers. The crate takes the end of the input
    /// for the end of the connection, so it is told when the last answer is given.
    fn pass_on_eof(&mut self, turn: &mut Turn<'_>) {
        if self.eof && self.in_flight == 0 {
            self.pipe.feed_eof();
            self.pump(turn);
        }
    }
}

impl Core for Http2 {
    fn handle_input(&mut self, input: &[u8], turn: &mut Turn<'_>) {
        if !matches!(self.state, State::Over) {
            self.pipe.feed(input);
            self.pump(turn);
        }
    }

    fn handle_eof(&mut self, turn: &mut Turn<'_>) {
        self.eof = true;
        self.pump(turn);
        self.pass_on_eof(turn);
    }

    fn handle_sent(&mut self, turn: &mut Turn<'_>) {
        if !matches!(self.state, State::Over) {
            self.pump(turn);
        }
    }

    fn handle_answer(&mut self, stream: u32, answer: Answer, turn: &mut Turn<'_>) {
        if let Some(stream) = self.streams.remove(&stream) {
            self.in_flight -= 1;
            self.since = turn.now;
            self.respond(stream, answer);
            self.pump(turn);
            self.pass_on_eof(turn);
        }
    }

    fn handle_timeout(&mut self, turn: &mut Turn<'_>) {
        if matches!(self.state, State::Handshake(_)) {
            self.state = State::Over;
            return;
        }
        let timeout = turn.limits.body_timeout;
        let late = |receiving: &Receiving| receiving.since + timeout <= turn.now;
        let stalled: Vec<u32> = self
            .streams
            .iter()
            .filter(|(_, stream)| stream.receiving.as_ref().is_some_and(late))
            .map(|(id, _)| *id)
            .collect();
        for id in &stalled {
            self.receiving.retain(|receiving| receiving != id);
            self.finish_body(*id, Step::Refused(Refusal::BodyTimeout), turn);
        }
        let discarding = self.discarding.len();
        self.discarding.retain(|discarding| discarding.since + timeout > turn.now);
        let nothing_stalled = stalled.is_empty() && discarding == self.discarding.len();
        if nothing_stalled && self.streams.is_empty() {
            self.drain(turn);
        }
        self.since = turn.now;
        self.pump(turn);
    }

    fn handle_lost(&mut self, turn: &mut Turn<'_>) {
        self.release_all(turn);
        self.state = State::Over;
    }

    fn drain(&mut self, turn: &mut Turn<'_>) {
        if self.draining {
            // The peer was told and had its time.
            if self.streams.is_empty() {
                self.state = State::Over;
            }
            return;
        }
        self.draining = true;
        for id in mem::take(&mut self.receiving) {
            self.finish_body(id, Step::Refused(Refusal::Draining), turn);
        }
        if let State::Open(connection) = &mut self.state {
            connection.graceful_shutdown();
        }
        self.pump(turn);
    }

    fn take_output(&mut self) -> Bytes {
        self.pipe.take_output()
    }

    fn in_flight(&self) -> usize {
        self.in_flight
    }

    fn deadline(&self, limits: &Limits) -> Option<Nanos> {
        match self.state {
            State::Handshake(_) => return Some(self.since + limits.header_timeout),
            State::Over => return None,
            State::Open(_) => {}
        }
        let receiving = self.streams.values().filter_map(|s| Some(s.receiving.as_ref()?.since));
        let discarding = self.discarding.iter().map(|discarding| discarding.since);
        match receiving.chain(discarding).min() {
            Some(since) => Some(since + limits.body_timeout),
            None if self.in_flight > 0 => None,
            // A peer that was told to go gets a little while for it.
            None if self.draining => Some(self.since + limits.header_timeout),
            None => (limits.idle_timeout > 0).then(|| self.since + limits.idle_timeout),
        }
    }

    fn standing(&self) -> Standing {
        match self.state {
            State::Over => Standing::FinishThenLinger,
            _ => Standing::Open,
        }
    }

    fn wants_input(&self) -> bool {
        !matches!(self.state, State::Over) && self.pipe.has_room()
    }
}

impl Receiving {
    fn poll(&mut self, context: &mut Context<'_>, turn: &mut Turn<'_>) -> Step {
        loop {
            match self.recv.poll_data(context) {
                Poll::Pending => return Step::Pending,
                Poll::Ready(None) => return Step::Complete,
                Poll::Ready(Some(Err(_))) => return Step::Reset,
                Poll::Ready(Some(Ok(data))) => {
                    self.since = turn.now;
                    // Fails only on a stream that is gone, which the next poll tells.
                    let _ = self.recv.flow_control().release_capacity(data.len());
                    if self.body.len() + data.len() > self.bytes_max {
                        let bytes_max = self.bytes_max;
                        return Step::Refused(Refusal::TooLarge { bytes_max });
                    }
                    if !turn.door.reserve(data.len()) {
                        return Step::Refused(Refusal::Overloaded);
                    }
                    self.reserved += data.len();
                    self.body.extend_from_slice(&data);
                }
            }
        }
    }
}

impl Discarding {
    /// Whether more is to come. Sets `moved` if something came.
    fn poll(&mut self, context: &mut Context<'_>, moved: &mut bool, now: Nanos) -> bool {
        loop {
            match self.recv.poll_data(context) {
                Poll::Pending => return true,
                Poll::Ready(Some(Ok(data))) if data.len() <= self.left => {
                    self.left -= data.len();
                    self.since = now;
                    *moved = true;
                    let _ = self.recv.flow_control().release_capacity(data.len());
                }
                Poll::Ready(_) => return false,
            }
        }
    }
}

/// An error means that the peer reset the stream: nobody waits for the answer.
fn respond_to(mut stream: Stream, answer: Answer) -> Result<(), h2::Error> {
    let mut response = Response::new(());
    *response.status_mut() = answer.status;
    let headers = response.headers_mut();
    headers.extend(answer.headers.into_iter().map(|(name, value)| (Some(name), value)));
    let ends = stream.bodiless || (answer.body.is_empty() && answer.trailers.is_empty());
    let mut send = stream.respond.send_response(response, ends)?;
    if ends {
        return Ok(());
    }
    let body_ends = answer.trailers.is_empty();
    send.send_data(answer.body, body_ends)?;
    if body_ends {
        return Ok(());
    }
    let mut trailers = HeaderMap::new();
    trailers.extend(answer.trailers.into_iter().map(|(name, value)| (Some(name), value)));
    send.send_trailers(trailers)
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
