//! The peer's streams of one direction (RFC 9114, 6.2): its control stream, those of QPACK, and
//! whatever else it may open.
//!
//! Always
//! - A critical stream comes once and never ends; what is unknown is not read and not an error.
//! - A stream has as long to say what it is as a request has for its head.

use super::frame::{self, Code, Cutter, Piece, kind, number, stream_kind};
use super::qpack::{Instructions, Writer};
use super::{Carrier, Fault, Http3};
use crate::request::{Limits, Nanos, Protocol, Trouble, Turn};

/// Of a SETTINGS frame. Nobody has so many settings.
const SETTINGS_BYTES_MAX: u64 = 1 << 10;
/// Of the other frames of a control stream: each is one number.
const NUMBER_BYTES_MAX: u64 = 8;

/// A stream of one direction that the peer opened and that we read.
pub(super) struct Uni {
    pub(super) id: u64,
    role: Role,
}

enum Role {
    /// Its kind has not all come: so many bytes of it have, since it was opened.
    Unknown([u8; 8], u8, Nanos),
    Control(Box<Control>),
    Qpack(Instructions),
}

#[derive(Default)]
struct Control {
    cutter: Cutter,
    kind: u64,
    payload: Vec<u8>,
    has_settings: bool,
    /// Of the peer's last GOAWAY and MAX_PUSH_ID.
    goaway: Option<u64>,
    max_push: Option<u64>,
}

impl Uni {
    pub(super) fn new(id: u64, now: Nanos) -> Uni {
        Uni { id, role: Role::Unknown([0; 8], 0, now) }
    }

    /// When its kind has to have come.
    pub(super) fn due(&self, limits: &Limits) -> Option<Nanos> {
        match self.role {
            Role::Unknown(_, _, since) => Some(since + limits.header_timeout),
            Role::Control(_) | Role::Qpack(_) => None,
        }
    }
}

impl Http3 {
    /// Reads no further on the streams that did not say in time what they are. Returns whether
    /// there were any.
    pub(super) fn end_nameless(&mut self, turn: &mut Turn<'_>, carrier: &mut dyn Carrier) -> bool {
        let (now, limits) = (turn.now, turn.limits);
        let is_late = |uni: &mut Uni| uni.due(limits).is_some_and(|due| due <= now);
        let late: Vec<Uni> = self.unis.extract_if(.., is_late).collect();
        for Uni { id, .. } in &late {
            if self.is_over {
                break;
            }
            turn.door.trouble(Protocol::Http3, Trouble::Stalled);
            carrier.stop(*id, Code::STREAM_CREATION_ERROR);
            let strained = self.strain(Trouble::Control, now);
            self.contain(*id, strained, turn, carrier);
        }
        !late.is_empty()
    }

    /// More of a stream of one direction. `ends`: nothing follows.
    pub(super) fn take_uni(
        &mut self,
        id: u64,
        bytes: &[u8],
        ends: bool,
        turn: &mut Turn<'_>,
        carrier: &mut dyn Carrier,
    ) -> Result<(), Fault> {
        let place = match self.unis.iter().position(|uni| uni.id == id) {
            Some(place) => place,
            None => {
                self.unis.push(Uni::new(id, turn.now));
                self.unis.len() - 1
            }
        };
        // It stands aside while it is read: its frames concern the whole connection.
        let mut uni = self.unis.swap_remove(place);
        let mut rest = bytes;
        if let Role::Unknown(partial, count, _) = &mut uni.role {
            let Some(kind) = cut_kind(partial, count, &mut rest) else {
                if ends {
                    return self.strain(Trouble::Control, turn.now);
                }
                self.unis.push(uni);
                return Ok(());
            };
            match self.role(kind)? {
                Some(role) => uni.role = role,
                None => {
                    if !ends {
                        carrier.stop(id, Code::STREAM_CREATION_ERROR);
                    }
                    return self.strain(Trouble::Control, turn.now);
                }
            }
        }
        match &mut uni.role {
            Role::Control(control) => self.take_control(control, rest, turn)?,
            Role::Qpack(instructions) => {
                let code = match instructions.writer() {
                    Writer::Encoder => Code::QPACK_ENCODER_STREAM_ERROR,
                    Writer::Decoder => Code::QPACK_DECODER_STREAM_ERROR,
                };
                let begun = instructions.take(rest);
                let begun = begun.map_err(|error| Fault::connection(code, error.0))?;
                if !self.calm.take(Trouble::Control, begun, turn.now) {
                    return Err(super::too_much(Trouble::Control));
                }
            }
            Role::Unknown(..) => {}
        }
        if ends {
            return Err(closed_critical());
        }
        self.unis.push(uni);
        Ok(())
    }

    /// The peer reset a stream of one direction.
    pub(super) fn take_uni_reset(&mut self, id: u64, now: Nanos) -> Result<(), Fault> {
        let place = self.unis.iter().position(|uni| uni.id == id);
        match place.map(|place| self.unis.swap_remove(place).role) {
            Some(Role::Control(_) | Role::Qpack(_)) => Err(closed_critical()),
            Some(Role::Unknown(..)) | None => self.strain(Trouble::Control, now),
        }
    }

    /// What a new stream of this kind is for; `None`: nothing that we know.
    fn role(&self, kind: u64) -> Result<Option<Role>, Fault> {
        let role = match kind {
            stream_kind::CONTROL => Role::Control(Box::default()),
            stream_kind::QPACK_ENCODER => Role::Qpack(Instructions::new(Writer::Encoder)),
            stream_kind::QPACK_DECODER => Role::Qpack(Instructions::new(Writer::Decoder)),
            stream_kind::PUSH => {
                let reason = "a client can't push";
                return Err(Fault::connection(Code::STREAM_CREATION_ERROR, reason));
            }
            _ => return Ok(None),
        };
        match self.unis.iter().any(|uni| uni.role.is_as(&role)) {
            true => {
                let reason = "a second stream of a kind that comes once";
                Err(Fault::connection(Code::STREAM_CREATION_ERROR, reason))
            }
            false => Ok(Some(role)),
        }
    }

    fn take_control(
        &mut self,
        control: &mut Control,
        bytes: &[u8],
        turn: &mut Turn<'_>,
    ) -> Result<(), Fault> {
        let mut rest = bytes;
        while let Some(piece) = control.cutter.cut(&mut rest) {
            match piece {
                Piece::Begin { kind, length } => {
                    control.begin(kind, length)?;
                    self.strain(Trouble::Control, turn.now)?;
                }
                Piece::Payload { bytes, ends } if control.is_kept() => {
                    control.payload.extend_from_slice(bytes);
                    if ends {
                        self.take_control_frame(control, turn)?;
                        control.payload = Vec::new();
                    }
                }
                Piece::Payload { .. } => {}
            }
        }
        Ok(())
    }

    fn take_control_frame(&mut self, control: &mut Control, turn: &Turn<'_>) -> Result<(), Fault> {
        if control.kind == kind::SETTINGS {
            control.has_settings = true;
            return frame::check_settings(&control.payload)
                .map_err(|(code, reason)| Fault::connection(code, reason));
        }
        let mut rest = &control.payload[..];
        let (Some(value), true) = (number(&mut rest), rest.is_empty()) else {
            let reason = "a frame of the control stream is not one number";
            return Err(Fault::connection(Code::FRAME_ERROR, reason));
        };
        match control.kind {
            // Section 5.2: ids of pushes, of which there are none, and which never grow.
            kind::GOAWAY if control.goaway.is_none_or(|last| value <= last) => {
                control.goaway = Some(value);
                self.peer_goes = true;
                self.since = turn.now;
                Ok(())
            }
            kind::GOAWAY => Err(Fault::connection(Code::ID_ERROR, "a GOAWAY takes one back")),
            kind::MAX_PUSH_ID if control.max_push.is_none_or(|last| value >= last) => {
                control.max_push = Some(value);
                Ok(())
            }
            kind::MAX_PUSH_ID => {
                Err(Fault::connection(Code::ID_ERROR, "a MAX_PUSH_ID below the last one"))
            }
            // Section 7.2.3: nothing was promised.
            _ => Err(Fault::connection(Code::ID_ERROR, "a CANCEL_PUSH of what was not promised")),
        }
    }
}

impl Control {
    /// What a frame's head alone tells (sections 6.2.1 and 7.2).
    fn begin(&mut self, kind: u64, length: u64) -> Result<(), Fault> {
        self.kind = kind;
        let bytes_max = match kind {
            kind::SETTINGS if self.has_settings => {
                let reason = "the settings come twice";
                return Err(Fault::connection(Code::FRAME_UNEXPECTED, reason));
            }
            kind::SETTINGS => SETTINGS_BYTES_MAX,
            _ if !self.has_settings => {
                let reason = "the control stream does not begin with the settings";
                return Err(Fault::connection(Code::MISSING_SETTINGS, reason));
            }
            kind::GOAWAY | kind::MAX_PUSH_ID | kind::CANCEL_PUSH => NUMBER_BYTES_MAX,
            kind::DATA | kind::HEADERS | kind::PUSH_PROMISE => {
                let reason = "a frame of a request on the control stream";
                return Err(Fault::connection(Code::FRAME_UNEXPECTED, reason));
            }
            _ if kind::is_of_http2(kind) => {
                return Err(Fault::connection(Code::FRAME_UNEXPECTED, "a frame of HTTP/2"));
            }
            _ => u64::MAX,
        };
        match (length > bytes_max, kind) {
            (false, _) => Ok(()),
            (true, kind::SETTINGS) => {
                Err(Fault::connection(Code::EXCESSIVE_LOAD, "settings without end"))
            }
            (true, _) => {
                let reason = "a frame of the control stream is not one number";
                Err(Fault::connection(Code::FRAME_ERROR, reason))
            }
        }
    }

    fn is_kept(&self) -> bool {
        matches!(self.kind, kind::SETTINGS | kind::GOAWAY | kind::MAX_PUSH_ID | kind::CANCEL_PUSH)
    }
}

impl Role {
    fn is_as(&self, other: &Role) -> bool {
        match (self, other) {
            (Role::Control(_), Role::Control(_)) => true,
            (Role::Qpack(one), Role::Qpack(other)) => one.writer() == other.writer(),
            _ => false,
        }
    }
}

/// The number that a stream begins with, once all of it has come.
fn cut_kind(partial: &mut [u8; 8], count: &mut u8, rest: &mut &[u8]) -> Option<u64> {
    while let Some((byte, behind)) = rest.split_first() {
        *rest = behind;
        partial[usize::from(*count)] = *byte;
        *count += 1;
        if let Some(kind) = number(&mut &partial[..usize::from(*count)]) {
            return Some(kind);
        }
    }
    None
}

fn closed_critical() -> Fault {
    Fault::connection(Code::CLOSED_CRITICAL_STREAM, "a stream ended that must last")
}
