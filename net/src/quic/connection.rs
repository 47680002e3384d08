//! One connection: quinn's half, which is the transport, and HTTP/3 above it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use quinn_proto::{ConnectionError, ConnectionHandle, Dir, Event, StreamEvent, StreamId, VarInt};
use rustls::pki_types::CertificateDer;

use super::config::{stream_window, streams_at_first, window_at_first};
use super::gaps::Gaps;
use super::lane::{Behind, Chunks, Lane};
use super::moves::Moves;
use super::windows::Window;
use crate::http3::{Carrier, Code, Http3};
use crate::request::{Answer, Limits, Nanos, Turn};
use crate::ring::Key;
use crate::server::lifetime::{Age, Step};
use crate::tls::Failure;
use crate::tls::peer::PeerIdentity;

/// Of a handshake, however it is cut and repeated. Behind it a client has none to say, and what of
/// them comes behind a gap would be held for ever.
const CRYPTO_FRAMES_MAX: u64 = 512;
/// What a connection may take to end that was never established.
const CLOSING: Nanos = 1_000_000_000;

pub(super) struct Connection {
    pub(super) key: Key,
    pub(super) handle: ConnectionHandle,
    pub(super) quic: quinn_proto::Connection,
    http3: Option<Http3>,
    identity: Option<Arc<PeerIdentity>>,
    /// Why it ended before its handshake did.
    failure: Option<Failure>,
    /// Streams that we opened.
    opened: usize,
    /// What the peer may send ahead.
    window: Window,
    /// What of it came behind gaps.
    gaps: Gaps,
    /// Requests that the peer may have open.
    streams_allowed: u32,
    /// Where the peer is, and was.
    moves: Moves,
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
}

impl Connection {
    pub(super) fn new(
        key: Key,
        handle: ConnectionHandle,
        quic: quinn_proto::Connection,
        age: Age,
        handshake_due: Nanos,
    ) -> Connection {
        let moves = Moves::new(quic.remote_address());
        Connection {
            key,
            handle,
            quic,
            http3: None,
            identity: None,
            failure: None,
            opened: 0,
            window: Window::default(),
            gaps: Gaps::default(),
            streams_allowed: 0,
            moves,
            handshake_due,
            age,
            was_handshaking: true,
            is_touched: false,
            is_sending: false,
            timer_at: Nanos::MAX,
        }
    }

    pub(super) fn peer(&self) -> SocketAddr {
        self.moves.here()
    }

    /// Whether a datagram from there may be looked at.
    pub(super) fn may_come_from(&mut self, from: SocketAddr, now: Nanos) -> bool {
        from == self.quic.remote_address() || self.moves.take(from, now)
    }

    /// Who the peer proved to be, by a certificate.
    pub(super) fn identity(&self) -> Option<&Arc<PeerIdentity>> {
        self.identity.as_ref()
    }

    /// Why its handshake came to nothing, if it did.
    pub(super) fn failure(&self) -> Failure {
        self.failure.unwrap_or(Failure::Other)
    }

    /// Its handshake has had its time and ended otherwise: nothing more is to be said to it.
    pub(super) fn is_overdue(&self, now: Nanos) -> bool {
        self.http3.is_none() && self.quic.is_closed() && self.forgotten_at() <= now
    }

    fn forgotten_at(&self) -> Nanos {
        self.handshake_due.saturating_add(CLOSING)
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
                    self.failure.get_or_insert(failure_of(&reason));
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
        if self.quic.is_closed()
            && let Some(http3) = &mut self.http3
        {
            // Where we closed it ourselves, no event says so.
            http3.handle_lost(turn);
        }
        self.charge_gaps(now, turn);
        self.moves.note(self.quic.remote_address(), turn.now)
    }

    fn begin(&mut self, now: Instant, turn: &mut Turn<'_>) {
        if self.failure.is_some() {
            // We had ended it when its last word came.
            return;
        }
        let Ok(identity) = identity(&self.quic) else {
            self.failure = Some(Failure::BadCertificate);
            let reason = Bytes::from_static(b"the certificate can't be read");
            return self.quic.close(now, no_error(), reason);
        };
        self.identity.clone_from(&identity);
        turn.peer = identity;
        self.gaps = Gaps::new(stream_window(turn.limits) as usize);
        let mut lane = Lane::new(&mut self.quic, now, &mut self.opened, &mut self.gaps);
        self.http3 = Some(Http3::new(turn.limits, turn.now, &mut lane));
        self.window = Window::new(window_at_first(turn.limits), turn.now);
        self.streams_allowed = streams_at_first(turn.limits);
    }

    /// Asks the door for what is held behind gaps, and ends a connection that holds too much.
    fn charge_gaps(&mut self, now: Instant, turn: &mut Turn<'_>) {
        if !self.quic.is_closed()
            && (!self.gaps.charge(self.window.allowed(), turn.door)
                || self.quic.stats().frame_rx.crypto > CRYPTO_FRAMES_MAX)
        {
            self.with(now, |http3, lane| http3.handle_gaps(turn, lane));
        }
        if self.quic.is_closed() {
            self.gaps.give_back(turn.door);
        }
    }

    /// What the door was asked for because it is held behind gaps.
    pub(super) fn held_bytes(&self) -> usize {
        self.gaps.charged()
    }

    /// How much more it should be allowed to send ahead.
    pub(super) fn wants_window(&self, limits: &Limits, now: Nanos) -> Option<u32> {
        let more = self.window.wants(limits.connection_window_bytes, now);
        more.filter(|_| !self.quic.is_closed())
    }

    /// Lets it send more ahead, for which the budget was asked.
    pub(super) fn widen(&mut self, more: u32, now: Nanos) {
        let bytes = self.window.widen(more, now);
        self.quic.set_receive_window(VarInt::from_u32(bytes));
    }

    /// Takes out what the budget was asked for and need not be any more: what was taken back of the
    /// window, and all of it once nothing that comes is held.
    pub(super) fn take_charge(&mut self) -> usize {
        match self.quic.is_closed() {
            true => self.window.take_all(),
            false => self.window.take_given_back(),
        }
    }

    fn take_stream_event(&mut self, event: StreamEvent, now: Instant, turn: &mut Turn<'_>) {
        match event {
            StreamEvent::Opened { dir } => {
                while let Some(id) = self.quic.streams().accept(dir) {
                    self.with(now, |http3, lane| http3.handle_opened(id.into(), turn, lane));
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
            StreamEvent::Available { dir: Dir::Uni } => {
                self.with(now, |http3, lane| http3.handle_room(lane));
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
        let (mut bytes, mut round_trip) = (0, 0);
        self.with(now, |http3, lane| {
            round_trip = lane.round_trip();
            let mut chunks = Chunks::new();
            let Some(behind) = lane.read(id, &mut chunks) else {
                return;
            };
            bytes = chunks.iter().map(Bytes::len).sum();
            http3.handle_pieces(id.into(), &chunks, behind == Behind::End, turn, lane);
            if behind == Behind::Reset {
                http3.handle_reset(id.into(), turn, lane);
            }
        });
        if let Some(narrower) = self.window.note(bytes, round_trip, turn.now) {
            self.quic.set_receive_window(VarInt::from_u32(narrower));
        }
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
                self.failure.get_or_insert(Failure::Timeout);
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

    /// Answer what is in flight, take no more, then finish. Whose handshake is not done is owed
    /// nothing.
    pub(super) fn drain(&mut self, now: Instant, turn: &mut Turn<'_>) {
        if self.is_handshaking() {
            return self.close(now, turn);
        }
        self.with(now, |http3, lane| http3.drain(turn, lane));
    }

    /// Ends it at once.
    pub(super) fn close(&mut self, now: Instant, turn: &mut Turn<'_>) {
        match &mut self.http3 {
            Some(http3) => http3.handle_lost(turn),
            // Nothing that comes can make it one that is established.
            None => _ = self.failure.get_or_insert(Failure::Other),
        }
        self.quic.close(now, no_error(), Bytes::new());
    }

    /// When something is due, by either half. `nanos` tells quinn's time in ours.
    pub(super) fn due(
        &mut self,
        limits: &Limits,
        nanos: impl Fn(Instant) -> Nanos,
    ) -> Option<Nanos> {
        let transport = self.quic.poll_timeout().map(nanos);
        if self.quic.is_closed() {
            let forgotten = self.http3.is_none().then_some(self.forgotten_at());
            return transport.into_iter().chain(forgotten).min();
        }
        let handshake = self.http3.is_none().then_some(self.handshake_due);
        let http3 = self.http3.as_ref().and_then(|http3| http3.deadline(limits));
        let age = self.age.due().filter(|_| self.http3.is_some());
        [transport, handshake, http3, age].into_iter().flatten().min()
    }

    fn with(&mut self, now: Instant, act: impl FnOnce(&mut Http3, &mut Lane<'_>)) {
        if let Some(http3) = &mut self.http3 {
            let mut lane = Lane::new(&mut self.quic, now, &mut self.opened, &mut self.gaps);
            act(http3, &mut lane);
        }
    }
}

/// Who a peer proved to be. An error: nobody knows whom, and it is not taken for nobody.
fn identity(quic: &quinn_proto::Connection) -> Result<Option<Arc<PeerIdentity>>, ()> {
    let Some(chain) = quic.crypto_session().peer_identity() else {
        return Ok(None);
    };
    let chain = chain.downcast::<Vec<CertificateDer<'static>>>().map_err(|_| ())?;
    let first = chain.first().and_then(|der| PeerIdentity::of(der)).ok_or(())?;
    Ok(Some(Arc::new(first)))
}

/// Why a handshake came to nothing.
pub(super) fn failure_of(reason: &ConnectionError) -> Failure {
    match reason {
        ConnectionError::TransportError(error) => Failure::of_quic(error.code.into()),
        ConnectionError::ConnectionClosed(close) => Failure::of_quic(close.error_code.into()),
        ConnectionError::VersionMismatch => Failure::NoCommonProtocol,
        ConnectionError::TimedOut => Failure::Timeout,
        _ => Failure::Other,
    }
}

fn no_error() -> VarInt {
    VarInt::from_u64(Code::NO_ERROR.0).unwrap_or(VarInt::MAX)
}
