//! One connection: which protocol it speaks, and where it is in its life.
//!
//! Its first bytes tell HTTP/2 with prior knowledge from HTTP/1.1 (RFC 9113 3.3); until then it
//! holds nothing. Then all goes to that protocol's core. After the core has finished, what the
//! peer still sends is read and thrown away for a moment (`lingering_until`).
//!
//! On a listener with TLS there is a [`Sealed`] between the socket and the protocol; the protocol
//! is then the one that both agreed on. One without has no more of it than an empty place.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::handshakes::Progress;
use super::lifetime::{Age, Step};
use super::sealed::{HANDSHAKE, Outcome, Said, Sealed};
use super::{FLOOD_BYTES_MIN, LINGER_BYTES_MAX, Turn};
use crate::http1::Http1;
use crate::http2::Http2;
use crate::request::{Answer, Core, Limits, Nanos, Standing};
use crate::ring::Key;
use crate::tls::Acceptor;
use crate::tls::peer::PeerIdentity;
use crate::tls::session::Alpn;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// As many bytes of the preface as no HTTP/1.1 request can start with.
const PREFACE_CERTAIN: usize = 5;

pub(super) struct Connection {
    pub(super) key: Key,
    pub(super) listener: u16,
    pub(super) touched: bool,
    pub(super) eof: bool,
    pub(super) sending_since: Option<Nanos>,
    pub(super) lingering_until: Option<Nanos>,
    /// The earliest entry of this connection in the timer heap.
    pub(super) timer_at: Nanos,
    /// It is among the handshakes under way that the server counts.
    pub(super) is_counted: bool,
    was_worn: bool,
    sealed: Option<Box<Sealed>>,
    /// It can't be sealed any more: not even its protocol can end it in order.
    is_broken: bool,
    lingered_bytes: usize,
    since: Nanos,
    age: Age,
    speaks: Speaks,
}

enum Speaks {
    /// At most [`PREFACE_CERTAIN`] bytes have come.
    Unknown(BytesMut),
    Http1(Http1),
    Http2(Box<Http2>),
    /// It left, or was told to, before it said anything that could be understood.
    Nothing(Standing),
}

impl Connection {
    /// `acceptor`: if its listener has TLS.
    pub(super) fn new(
        key: Key,
        listener: u16,
        acceptor: Option<&Acceptor>,
        age: Age,
        now: Nanos,
    ) -> Connection {
        Connection {
            key,
            listener,
            touched: false,
            eof: false,
            sending_since: None,
            lingering_until: None,
            timer_at: Nanos::MAX,
            is_counted: false,
            was_worn: false,
            sealed: acceptor.map(|acceptor| Box::new(Sealed::new(acceptor))),
            is_broken: false,
            lingered_bytes: 0,
            since: now,
            age,
            speaks: Speaks::Unknown(BytesMut::new()),
        }
    }

    /// Takes cleartext. `false`: it was none.
    pub(super) fn handle_input(&mut self, input: &[u8], turn: &mut Turn<'_>) -> bool {
        if self.lingering_until.is_some() {
            self.linger(input.len());
            return true;
        }
        match &mut self.speaks {
            Speaks::Unknown(first) => {
                if first.is_empty() {
                    self.since = turn.now;
                }
                if first.is_empty() && input.first() == Some(&HANDSHAKE) {
                    self.speaks = Speaks::Nothing(Standing::Finish);
                    return false;
                }
                first.extend_from_slice(input);
                let compared = first.len().min(PREFACE_CERTAIN);
                if first[..compared] != PREFACE[..compared] {
                    let first = std::mem::take(first);
                    self.begin(Alpn::Http1, &first, turn);
                } else if compared == PREFACE_CERTAIN {
                    let first = std::mem::take(first);
                    self.begin(Alpn::Http2, &first, turn);
                }
            }
            speaks => {
                if let Some(core) = speaks.core_mut() {
                    core.handle_input(input, turn);
                }
            }
        }
        true
    }

    /// Takes ciphertext. `has_room`: one more handshake may begin.
    pub(super) fn handle_sealed(
        &mut self,
        input: &mut [u8],
        acceptor: &Acceptor,
        has_room: bool,
        turn: &mut Turn<'_>,
    ) {
        if self.lingering_until.is_some() {
            return self.linger(input.len());
        }
        let Some(mut sealed) = self.sealed.take() else {
            return;
        };
        let was_open = sealed.is_open();
        let heard = sealed.handle_input(input, acceptor, has_room, |said| match said {
            Said::Plaintext(bytes, alpn, peer) => {
                if turn.peer.is_none() {
                    turn.peer = peer.cloned();
                }
                self.handle_plaintext(bytes, alpn, turn);
            }
            Said::Finished => self.finish_input(turn),
        });
        if sealed.is_open() && !was_open && matches!(self.speaks, Speaks::Unknown(_)) {
            self.since = turn.now;
        }
        self.sealed = Some(sealed);
        if heard.is_err() {
            self.handle_lost(turn);
            self.speaks = Speaks::Nothing(Standing::FinishThenLinger);
        }
    }

    fn handle_plaintext(&mut self, bytes: &[u8], alpn: Option<Alpn>, turn: &mut Turn<'_>) {
        match (&self.speaks, alpn) {
            (Speaks::Unknown(_), Some(alpn)) => self.begin(alpn, bytes, turn),
            _ => {
                self.handle_input(bytes, turn);
            }
        }
    }

    fn begin(&mut self, protocol: Alpn, first: &[u8], turn: &mut Turn<'_>) {
        self.speaks = match protocol {
            Alpn::Http1 => Speaks::Http1(Http1::new(turn.now)),
            Alpn::Http2 => Speaks::Http2(Box::new(Http2::new(turn.limits, turn.now))),
        };
        if let Some(core) = self.speaks.core_mut() {
            core.handle_input(first, turn);
        }
    }

    fn linger(&mut self, bytes: usize) {
        self.lingered_bytes += bytes;
        if self.lingered_bytes > LINGER_BYTES_MAX {
            self.eof = true;
        }
    }

    pub(super) fn handle_eof(&mut self, turn: &mut Turn<'_>) {
        self.eof = true;
        self.finish_input(turn);
    }

    fn finish_input(&mut self, turn: &mut Turn<'_>) {
        match self.speaks.core_mut() {
            Some(core) => core.handle_eof(turn),
            None => self.leave(),
        }
    }

    /// Ends what has no protocol to end it.
    fn leave(&mut self) {
        if !matches!(self.speaks, Speaks::Nothing(_)) {
            self.speaks = Speaks::Nothing(Standing::Finish);
        }
    }

    pub(super) fn core_answer(&mut self, stream: u32, answer: Answer, turn: &mut Turn<'_>) {
        if let Some(core) = self.speaks.core_mut() {
            core.handle_answer(stream, answer, turn);
        }
    }

    pub(super) fn core_message(&mut self, stream: u32, message: Answer, turn: &mut Turn<'_>) {
        if let Some(core) = self.speaks.core_mut() {
            core.handle_message(stream, message, turn);
        }
    }

    pub(super) fn handle_sent(&mut self, turn: &mut Turn<'_>) {
        self.sending_since = None;
        if let Some(core) = self.speaks.core_mut() {
            core.handle_sent(turn);
        }
    }

    pub(super) fn handle_timeout(&mut self, turn: &mut Turn<'_>) {
        match self.speaks.core_mut() {
            Some(core) => core.handle_timeout(turn),
            None => {
                self.leave();
                if let Some(sealed) = &mut self.sealed {
                    sealed.handle_timeout();
                }
            }
        }
    }

    /// Others need the place of its handshake.
    pub(super) fn give_way(&mut self) {
        self.leave();
        if let Some(sealed) = &mut self.sealed {
            sealed.give_way();
        }
    }

    pub(super) fn handle_lost(&mut self, turn: &mut Turn<'_>) {
        if let Some(core) = self.speaks.core_mut() {
            core.handle_lost(turn);
        }
    }

    /// As [`Connection::handle_lost`], and nothing can be said to the peer any more.
    pub(super) fn handle_closed(&mut self, turn: &mut Turn<'_>) {
        self.handle_lost(turn);
        if let Some(sealed) = &mut self.sealed {
            sealed.handle_lost();
        }
    }

    pub(super) fn drain(&mut self, turn: &mut Turn<'_>) {
        match self.speaks.core_mut() {
            Some(core) => core.drain(turn),
            None => self.leave(),
        }
    }

    pub(super) fn retire(&mut self, turn: &mut Turn<'_>) {
        match self.speaks.core_mut() {
            Some(core) => core.retire(turn),
            None => self.leave(),
        }
    }

    /// What its age asks for now.
    pub(super) fn grow_old(&mut self, now: Nanos) -> Option<Step> {
        self.age.step(now)
    }

    pub(super) fn take_output(&mut self) -> Bytes {
        let output = self.speaks.core_mut().map(|core| core.take_output()).unwrap_or_default();
        let is_last = self.standing() != Standing::Open;
        let Some(sealed) = &mut self.sealed else {
            return output;
        };
        sealed.seal(&output, is_last).unwrap_or_else(|()| {
            self.is_broken = true;
            sealed.seal(&[], true).unwrap_or_default()
        })
    }

    pub(super) fn peer(&self) -> Option<&Arc<PeerIdentity>> {
        self.sealed.as_ref().and_then(|sealed| sealed.peer())
    }

    /// Its keys are to seal little more: it is to be retired. Said once.
    pub(super) fn wears_out(&mut self) -> bool {
        let is_worn = self.sealed.as_ref().is_some_and(|sealed| sealed.is_worn());
        let wears_out = is_worn && !self.was_worn;
        self.was_worn |= is_worn;
        wears_out
    }

    pub(super) fn progress(&self) -> Progress {
        self.sealed.as_ref().map_or(Progress::Over, |sealed| sealed.progress())
    }

    pub(super) fn is_handshaking(&self) -> bool {
        self.sealed.as_ref().is_some_and(|sealed| sealed.is_handshaking())
    }

    /// What became of its handshake; once.
    pub(super) fn take_outcome(&mut self) -> Option<Outcome> {
        self.sealed.as_mut().and_then(|sealed| sealed.take_outcome())
    }

    /// Whether its TLS broke after the handshake; once.
    pub(super) fn take_breakage(&mut self) -> bool {
        self.sealed.as_mut().is_some_and(|sealed| sealed.take_breakage())
    }

    pub(super) fn owes(&self) -> bool {
        self.speaks.core().is_some_and(Core::owes)
    }

    /// When something has to have happened.
    pub(super) fn deadline(&self, limits: &Limits) -> Option<Nanos> {
        if let Some(until) = self.lingering_until {
            return Some(until);
        }
        let write = self.sending_since.map(|since| since + limits.write_timeout);
        let read = match (&self.speaks, self.speaks.core()) {
            (_, Some(core)) => core.deadline(limits),
            (Speaks::Unknown(_), None) if self.handshake_timeout().is_some() => {
                self.handshake_timeout().map(|timeout| self.since + timeout)
            }
            (Speaks::Unknown(first), _) if !first.is_empty() => {
                Some(self.since + limits.header_timeout)
            }
            (Speaks::Nothing(_), _) => None,
            _ => (limits.idle_timeout > 0).then(|| self.since + limits.idle_timeout),
        };
        [write, read, self.age.due()].into_iter().flatten().min()
    }

    /// Until its handshake has ended.
    fn handshake_timeout(&self) -> Option<Nanos> {
        let sealed = self.sealed.as_ref().filter(|sealed| !sealed.is_open())?;
        Some(sealed.handshake_timeout())
    }

    /// Whether the peer heard that we have finished and sends as if it had not.
    pub(super) fn is_flooded(&self) -> bool {
        self.lingered_bytes >= FLOOD_BYTES_MIN
    }

    /// Whether a passed deadline means to close at once: the peer does not read, or had its time.
    pub(super) fn is_past_saving(&self, now: Nanos, limits: &Limits) -> bool {
        let unread = self.sending_since.is_some_and(|since| since + limits.write_timeout <= now);
        self.lingering_until.is_some() || unread
    }

    pub(super) fn standing(&self) -> Standing {
        match (&self.speaks, self.speaks.core()) {
            _ if self.is_broken => Standing::Finish,
            (Speaks::Nothing(standing), _) => *standing,
            (_, Some(core)) => core.standing(),
            _ => Standing::Open,
        }
    }

    pub(super) fn wants_input(&self) -> bool {
        if self.eof {
            return false;
        }
        self.lingering_until.is_some() || self.speaks.core().is_none_or(|core| core.wants_input())
    }

    pub(super) fn wants_direct(&self) -> bool {
        // A body in ciphertext has to be opened first.
        let is_clear = self.sealed.is_none() && self.lingering_until.is_none();
        is_clear && self.speaks.core().is_some_and(|core| core.wants_direct())
    }

    pub(super) fn lend_body(&mut self) -> Option<(BytesMut, usize)> {
        self.speaks.core_mut().and_then(|core| core.lend_body())
    }

    pub(super) fn return_body(&mut self, buffer: BytesMut, turn: &mut Turn<'_>) {
        if let Some(core) = self.speaks.core_mut() {
            core.return_body(buffer, turn);
        }
    }
}

impl Speaks {
    fn core(&self) -> Option<&dyn Core> {
        match self {
            Speaks::Http1(core) => Some(core),
            Speaks::Http2(core) => Some(&**core),
            Speaks::Unknown(_) | Speaks::Nothing(_) => None,
        }
    }

    fn core_mut(&mut self) -> Option<&mut dyn Core> {
        match self {
            Speaks::Http1(core) => Some(core),
            Speaks::Http2(core) => Some(&mut **core),
            Speaks::Unknown(_) | Speaks::Nothing(_) => None,
        }
    }
}
