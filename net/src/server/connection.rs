//! One connection: which protocol it speaks, and where it is in its life.
//!
//! Its first bytes tell HTTP/2 with prior knowledge from HTTP/1.1 (RFC 9113 3.3); until then it
//! holds nothing. Then all goes to that protocol's core. After the core has finished, what the
//! peer still sends is read and thrown away for a moment (`lingering_until`).

use bytes::{Bytes, BytesMut};

use super::lifetime::{Age, Step};
use super::{FLOOD_BYTES_MIN, LINGER_BYTES_MAX, Turn};
use crate::http1::Http1;
use crate::http2::Http2;
use crate::request::{Answer, Core, Limits, Nanos, Standing};
use crate::ring::Key;

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
    /// It left, or was told to, before it said anything.
    Nothing,
}

impl Connection {
    pub(super) fn new(key: Key, listener: u16, age: Age, now: Nanos) -> Connection {
        Connection {
            key,
            listener,
            touched: false,
            eof: false,
            sending_since: None,
            lingering_until: None,
            timer_at: Nanos::MAX,
            lingered_bytes: 0,
            since: now,
            age,
            speaks: Speaks::Unknown(BytesMut::new()),
        }
    }

    pub(super) fn handle_input(&mut self, input: &[u8], turn: &mut Turn<'_>) {
        if self.lingering_until.is_some() {
            self.lingered_bytes += input.len();
            if self.lingered_bytes > LINGER_BYTES_MAX {
                self.eof = true;
            }
            return;
        }
        match &mut self.speaks {
            Speaks::Unknown(first) => {
                if first.is_empty() {
                    self.since = turn.now;
                }
                first.extend_from_slice(input);
                let compared = first.len().min(PREFACE_CERTAIN);
                if first[..compared] != PREFACE[..compared] {
                    let first = std::mem::take(first);
                    let mut core = Http1::new(turn.now);
                    core.handle_input(&first, turn);
                    self.speaks = Speaks::Http1(core);
                } else if compared == PREFACE_CERTAIN {
                    let first = std::mem::take(first);
                    let mut core = Box::new(Http2::new(turn.limits, turn.now));
                    core.handle_input(&first, turn);
                    self.speaks = Speaks::Http2(core);
                }
            }
            speaks => {
                if let Some(core) = speaks.core_mut() {
                    core.handle_input(input, turn);
                }
            }
        }
    }

    pub(super) fn handle_eof(&mut self, turn: &mut Turn<'_>) {
        self.eof = true;
        match self.speaks.core_mut() {
            Some(core) => core.handle_eof(turn),
            None => self.speaks = Speaks::Nothing,
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
            None => self.speaks = Speaks::Nothing,
        }
    }

    pub(super) fn handle_lost(&mut self, turn: &mut Turn<'_>) {
        if let Some(core) = self.speaks.core_mut() {
            core.handle_lost(turn);
        }
    }

    pub(super) fn drain(&mut self, turn: &mut Turn<'_>) {
        match self.speaks.core_mut() {
            Some(core) => core.drain(turn),
            None => self.speaks = Speaks::Nothing,
        }
    }

    pub(super) fn retire(&mut self, turn: &mut Turn<'_>) {
        match self.speaks.core_mut() {
            Some(core) => core.retire(turn),
            None => self.speaks = Speaks::Nothing,
        }
    }

    /// What its age asks for now.
    pub(super) fn grow_old(&mut self, now: Nanos) -> Option<Step> {
        self.age.step(now)
    }

    pub(super) fn take_output(&mut self) -> Bytes {
        self.speaks.core_mut().map(|core| core.take_output()).unwrap_or_default()
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
            (Speaks::Unknown(first), _) if !first.is_empty() => {
                Some(self.since + limits.header_timeout)
            }
            (Speaks::Nothing, _) => None,
            _ => (limits.idle_timeout > 0).then(|| self.since + limits.idle_timeout),
        };
        [write, read, self.age.due()].into_iter().flatten().min()
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
            (Speaks::Nothing, _) => Standing::Finish,
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
        self.lingering_until.is_none() && self.speaks.core().is_some_and(|core| core.wants_direct())
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
            Speaks::Unknown(_) | Speaks::Nothing => None,
        }
    }

    fn core_mut(&mut self) -> Option<&mut dyn Core> {
        match self {
            Speaks::Http1(core) => Some(core),
            Speaks::Http2(core) => Some(&mut **core),
            Speaks::Unknown(_) | Speaks::Nothing => None,
        }
    }
}
