//! One connection: quinn's half, which is the transport, and HTTP/3 above it.

use std::net::SocketAddr;
use std::time::Instant;

use bytes::Bytes;
use quinn_proto::{ConnectionHandle, Dir, Event, StreamEvent, StreamId, VarInt};

use super::config::streams_at_first;
use super::lane::{Behind, Lane};
use crate::http3::{Code, Http3};
use crate::request::{Answer, Limits, Nanos, Turn};
use crate::ring::Key;
use crate::server::lifetime::{Age, Step};

pub(super) struct Connection {
    pub(super) key: Key,
    pub(super) handle: ConnectionHandle,
    pub(super) quic: quinn_proto::Connection,
    http3: Option<Http3>,
    /// Streams that we opened.
    opened: usize,
    /// Requests that the peer may have open.
    streams_allowed: u32,
    /// Where the peer was when we last looked.
    peer: SocketAddr,
    handshake_due: Nanos,
    age: Age,
    /// Counted as such by the endpoint.
    pub(super) was_handshaking: bool,
    /// Its events wait to be looked at.
    pub(super) is_touched: bool,
    /// It may have something to send.
    pub(super) is_sending: bool,
    /// The entry of the timer heap that counts.
    pub(super) timer_at: Nanos,
    pub(super) drains: bool,
}

impl Connection {
    pub(super) fn new(
        key: Key,
        handle: ConnectionHandle,
        quic: quinn_proto::Connection,
        age: Age,
        handshake_due: Nanos,
    ) -> Connection {
        let peer = quic.remote_address();
        Connection {
            key,
            handle,
            quic,
            http3: None,
            opened: 0,
            streams_allowed: 0,
            peer,
            handshake_due,
            age,
            was_handshaking: true,
            is_touched: false,
            is_sending: false,
            timer_at: Nanos::MAX,
            drains: false,
        }
    }

    pub(super) fn peer(&self) -> SocketAddr {
        self.peer
    }

    pub(super) fn is_handshaking(&self) -> bool {
        self.http3.is_none() && !self.quic.is_closed()
    }

    pub(super) fn is_established(&self) -> bool {
        self.http3.is_some()
    }

    pub(super) fn in_flight(&self) -> usize {
        self.http3.as_ref().map_or(0, Http3::in_flight)
    }

    /// Takes what quinn has to tell. Returns whether the peer has moved.
    pub(super) fn take_events(&mut self, now: Instant, turn: &mut Turn<'_>) -> bool {
        while let Some(event) = self.quic.poll() {
            match event {
                Event::Connected => self.begin(now, turn),
                Event::ConnectionLost { reason } => {
                    tracing::debug!(%reason, "a QUIC connection ended");
                    if let Some(http3) = &mut self.http3 {
                        http3.handle_lost(turn);
                    }
                }
                Event::Stream(event) => self.take_stream_event(event, now, turn),
                Event::HandshakeDataReady | Event::DatagramReceived | Event::DatagramsUnblocked => {
                }
            }
        }
        // Not every arrival has an event of its own.
        self.with(now, |http3, lane| http3.handle_arrived(turn, lane));
        let peer = self.quic.remote_address();
        std::mem::replace(&mut self.peer, peer) != peer
    }

    fn begin(&mut self, now: Instant, turn: &mut Turn<'_>) {
        let mut lane = Lane { quic: &mut self.quic, now, opened: &mut self.opened };
        let mut http3 = Http3::new(turn.limits, turn.now, &mut lane);
        if self.drains {
            http3.drain(turn, &mut lane);
        }
        self.http3 = Some(http3);
        self.streams_allowed = streams_at_first(turn.limits);
    }

    fn take_stream_event(&mut self, event: StreamEvent, now: Instant, turn: &mut Turn<'_>) {
        match event {
            StreamEvent::Opened { dir } => {
                while let Some(id) = self.quic.streams().accept(dir) {
                    if dir == Dir::Bi {
                        self.with(now, |http3, lane| http3.handle_opened(id.into(), turn, lane));
                    }
                    self.read(id, now, turn);
                }
                self.allow_streams(turn.limits);
            }
            StreamEvent::Readable { id } => self.read(id, now, turn),
            StreamEvent::Writable { id } => {
                self.with(now, |http3, lane| http3.handle_writable(id.into(), turn, lane));
            }
            StreamEvent::Stopped { id, .. } => {
                self.with(now, |http3, lane| http3.handle_stopped(id.into(), turn, lane));
            }
            StreamEvent::Finished { .. } | StreamEvent::Available { .. } => {}
        }
    }

    /// Twice as many requests as before, where more than half of those are open: their answers
    /// have not arrived yet.
    fn allow_streams(&mut self, limits: &Limits) {
        let open = self.quic.streams().send_streams().saturating_sub(self.opened);
        let most = u32::try_from(limits.connection_requests_max).unwrap_or(u32::MAX);
        if self.streams_allowed < most && open > self.streams_allowed as usize / 2 {
            self.streams_allowed = self.streams_allowed.saturating_mul(2).min(most);
            let allowed = VarInt::from_u32(self.streams_allowed);
            self.quic.set_max_concurrent_streams(Dir::Bi, allowed);
        }
    }

    /// Hands on what came of a stream.
    fn read(&mut self, id: StreamId, now: Instant, turn: &mut Turn<'_>) {
        self.with(now, |http3, lane| {
            let Some(read) = lane.read(id) else {
                return;
            };
            let ends = read.behind == Behind::End;
            http3.handle_pieces(id.into(), &read.chunks, ends, turn, lane);
            if read.behind == Behind::Reset {
                http3.handle_reset(id.into(), turn, lane);
            }
        });
    }

    pub(super) fn take_answer(
        &mut self,
        number: u32,
        answer: Answer,
        now: Instant,
        turn: &mut Turn<'_>,
    ) {
        self.with(now, |http3, lane| http3.handle_answer(number, answer, turn, lane));
    }

    /// Does what is due. Returns whether the peer missed a deadline.
    pub(super) fn take_time(&mut self, now: Instant, turn: &mut Turn<'_>) -> bool {
        if self.quic.poll_timeout().is_some_and(|due| due <= now) {
            self.quic.handle_timeout(now);
        }
        if self.is_handshaking() {
            let is_late = self.handshake_due <= turn.now;
            if is_late {
                self.close(now, turn);
            }
            return is_late;
        }
        match self.age.step(turn.now) {
            Some(Step::Retire) => self.with(now, |http3, lane| http3.retire(turn, lane)),
            Some(Step::Cut) => self.close(now, turn),
            None => {}
        }
        let is_due = |http3: &Http3| http3.deadline(turn.limits).is_some_and(|at| at <= turn.now);
        let mut was_missed = false;
        if self.http3.as_ref().is_some_and(is_due) {
            self.with(now, |http3, lane| was_missed = http3.handle_timeout(turn, lane));
        }
        was_missed
    }

    /// Answer what is in flight, take no more, then finish.
    pub(super) fn drain(&mut self, now: Instant, turn: &mut Turn<'_>) {
        self.drains = true;
        self.with(now, |http3, lane| http3.drain(turn, lane));
    }

    /// Ends it at once.
    pub(super) fn close(&mut self, now: Instant, turn: &mut Turn<'_>) {
        if let Some(http3) = &mut self.http3 {
            http3.handle_lost(turn);
        }
        let code = VarInt::from_u64(Code::NO_ERROR.0).unwrap_or(VarInt::MAX);
        self.quic.close(now, code, Bytes::new());
    }

    /// When something is due, by either half. `nanos` tells quinn's time in ours.
    pub(super) fn due(
        &mut self,
        limits: &Limits,
        nanos: impl Fn(Instant) -> Nanos,
    ) -> Option<Nanos> {
        let transport = self.quic.poll_timeout().map(nanos);
        if self.quic.is_closed() {
            return transport;
        }
        let handshake = self.http3.is_none().then_some(self.handshake_due);
        let http3 = self.http3.as_ref().and_then(|http3| http3.deadline(limits));
        let age = self.age.due().filter(|_| self.http3.is_some());
        [transport, handshake, http3, age].into_iter().flatten().min()
    }

    fn with(&mut self, now: Instant, act: impl FnOnce(&mut Http3, &mut Lane<'_>)) {
        if let Some(http3) = &mut self.http3 {
            let mut lane = Lane { quic: &mut self.quic, now, opened: &mut self.opened };
            act(http3, &mut lane);
        }
    }
}
