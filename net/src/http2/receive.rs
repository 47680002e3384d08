//! Frames in: cut out of the bytes as they lie, checked, and given to whom they concern.

use super::calm::crumb_weight;
use super::frame::{
    self, Code, FRAME_BYTES_MAX, FrameHead, HEAD_BYTES, PREFACE, flag, kind, setting,
};
use super::stream::{Past, Recv};
use super::{FAREWELL, Fault, Going, Http2, Phase, too_much};
use crate::request::{Trouble, Turn};

/// An encoded block may be this many times as long as the list it may hold, so that a list that is
/// somewhat too long is answered and not the connection's end.
const BLOCK_FACTOR: usize = 4;
const CONTINUATIONS_MAX: usize = 64;
const PRIORITY_BYTES: usize = 5;
/// A SETTINGS frame with more than so many is as dear as several.
const SETTINGS_USUAL: usize = 8;
/// A DATA frame of so much for a stream that we reset is a body's, not a flood's.
const LATE_BYTES_MIN: usize = 1 << 10;

/// A DATA frame whose payload is still to come.
pub(super) struct DataFrame {
    /// 0: nobody wants it.
    stream: u32,
    left: usize,
    padding: usize,
    ends: bool,
}

/// A header block in pieces.
pub(super) struct HeaderBlock {
    head: BlockHead,
    bytes: Vec<u8>,
    continuations: usize,
}

/// What a HEADERS frame says beside its fields.
#[derive(Clone, Copy)]
pub(super) struct BlockHead {
    pub(super) stream: u32,
    pub(super) ends: bool,
    /// Its priority makes it depend on itself.
    pub(super) is_circular: bool,
}

/// What can be cut off the front of some bytes.
enum Cut<'a> {
    /// So many bytes, all together, are needed for more.
    Needs(usize),
    Preface(&'a [u8]),
    Frame(FrameHead, &'a [u8], &'a [u8]),
    /// The head of a DATA frame, and its padding's length if it has any.
    Data(FrameHead, Option<u8>, &'a [u8]),
}

impl Http2 {
    /// Takes all of `input`. An error is the connection's.
    pub(super) fn receive(&mut self, input: &[u8], turn: &mut Turn<'_>) -> Result<(), Fault> {
        let mut rest = input;
        if !self.partial.is_empty() {
            rest = self.complete_partial(rest, turn)?;
        }
        while !rest.is_empty() && self.phase != Phase::Over {
            if self.data.is_some() {
                rest = self.receive_data(rest, turn)?;
                continue;
            }
            match self.cut(rest)? {
                Cut::Needs(_) => {
                    self.begin_waiting(turn);
                    self.partial.extend_from_slice(rest);
                    return Ok(());
                }
                cut => rest = self.take(cut, turn)?,
            }
        }
        Ok(())
    }

    /// The rest of a frame or of a header block is due from now on. What is inside of a block does
    /// not make it younger.
    fn begin_waiting(&mut self, turn: &Turn<'_>) {
        if self.block.is_none() {
            self.unfinished_since = turn.now;
        }
    }

    /// Adds to the frame that was cut off what it lacks. Returns what is behind it.
    fn complete_partial<'a>(
        &mut self,
        input: &'a [u8],
        turn: &mut Turn<'_>,
    ) -> Result<&'a [u8], Fault> {
        let mut rest = input;
        let mut partial = std::mem::take(&mut self.partial);
        loop {
            match self.cut(&partial)? {
                Cut::Needs(bytes) => {
                    let lacking = (bytes - partial.len()).min(rest.len());
                    if lacking == 0 {
                        self.partial = partial;
                        return Ok(rest);
                    }
                    let (taken, behind) = rest.split_at(lacking);
                    partial.extend_from_slice(taken);
                    rest = behind;
                }
                cut => {
                    self.take(cut, turn)?;
                    return Ok(rest);
                }
            }
        }
    }

    /// Cuts off the next frame, if it may stand here.
    fn cut<'a>(&self, bytes: &'a [u8]) -> Result<Cut<'a>, Fault> {
        if self.phase == Phase::Preface {
            let compared = bytes.len().min(PREFACE.len());
            if bytes[..compared] != PREFACE[..compared] {
                return Err(Fault::protocol("the preface is wrong"));
            }
            return Ok(match bytes.split_at_checked(PREFACE.len()) {
                Some((_, rest)) => Cut::Preface(rest),
                None => Cut::Needs(PREFACE.len()),
            });
        }
        let Some((head, rest)) = bytes.split_first_chunk::<HEAD_BYTES>() else {
            return Ok(Cut::Needs(HEAD_BYTES));
        };
        let head = FrameHead::read(head);
        self.check(&head)?;
        if head.kind == kind::DATA {
            return Ok(match (head.has(flag::PADDED), rest.split_first()) {
                (false, _) => Cut::Data(head, None, rest),
                (true, Some((padding, rest))) => Cut::Data(head, Some(*padding), rest),
                (true, None) => Cut::Needs(HEAD_BYTES + 1),
            });
        }
        Ok(match rest.split_at_checked(head.length) {
            Some((payload, rest)) => Cut::Frame(head, payload, rest),
            None => Cut::Needs(HEAD_BYTES + head.length),
        })
    }

    /// What a frame's head alone tells.
    fn check(&self, head: &FrameHead) -> Result<(), Fault> {
        if head.length > FRAME_BYTES_MAX {
            return Err(Fault::frame_size("a frame is longer than our settings allow"));
        }
        if self.phase == Phase::Settings && (head.kind != kind::SETTINGS || head.has(flag::ACK)) {
            return Err(Fault::protocol("the first frame is not the settings"));
        }
        if head.kind == kind::DATA && head.has(flag::PADDED) && head.length == 0 {
            return Err(Fault::protocol("more padding than payload"));
        }
        match (&self.block, head.kind) {
            (Some(block), kind::CONTINUATION) if block.head.stream == head.stream => Ok(()),
            (Some(_), _) => Err(Fault::protocol("a header block is interrupted")),
            (None, kind::CONTINUATION) => {
                Err(Fault::protocol("a CONTINUATION without its HEADERS"))
            }
            _ => Ok(()),
        }
    }

    /// Takes what was cut off, and returns what is behind it.
    fn take<'a>(&mut self, cut: Cut<'a>, turn: &mut Turn<'_>) -> Result<&'a [u8], Fault> {
        match cut {
            Cut::Needs(_) => unreachable!("whoever cuts looks for it"),
            Cut::Preface(rest) => {
                self.phase = Phase::Settings;
                Ok(rest)
            }
            Cut::Frame(head, payload, rest) => {
                let taken = self.take_frame(&head, payload, turn);
                self.contain(taken, turn)?;
                Ok(rest)
            }
            Cut::Data(head, padding, rest) => {
                let begun = self.begin_data(&head, padding, turn);
                self.contain(begun, turn)?;
                match self.data.as_ref().is_some_and(|data| data.left + data.padding == 0) {
                    true => self.receive_data(rest, turn),
                    false => Ok(rest),
                }
            }
        }
    }

    /// A stream's fault ends that stream; unless there are too many of them.
    pub(super) fn contain(
        &mut self,
        taken: Result<(), Fault>,
        turn: &mut Turn<'_>,
    ) -> Result<(), Fault> {
        match taken {
            Err(Fault::Stream(stream, code)) => self.reset(stream, code, turn),
            other => other,
        }
    }

    /// A DATA frame's head: may it come, and who takes it?
    fn begin_data(
        &mut self,
        head: &FrameHead,
        padding: Option<u8>,
        turn: &mut Turn<'_>,
    ) -> Result<(), Fault> {
        if !self.was_opened(head.stream) {
            return Err(Fault::protocol("DATA for a stream that was not opened"));
        }
        let framing = padding.map_or(0, |padding| 1 + usize::from(padding));
        let Some(left) = head.length.checked_sub(framing) else {
            return Err(Fault::protocol("more padding than payload"));
        };
        if !self.window.take(head.length) {
            let reason = "more DATA than the connection's window allows";
            let code = Code::FLOW_CONTROL_ERROR;
            return Err(Fault::Connection(code, reason, Trouble::Protocol));
        }
        let (ends, stream) = (head.has(flag::END_STREAM), head.stream);
        let padding = usize::from(padding.unwrap_or(0));
        let mut data = DataFrame { stream, left, padding, ends };
        let weight = if ends { 0 } else { crumb_weight(left) };
        if weight > 0 && !self.calm.take(Trouble::Crumbs, weight, turn.now) {
            return Err(too_much(Trouble::Crumbs));
        }
        let accepted = self.accept_data(stream, head.length, turn);
        if !matches!(accepted, Ok(true)) {
            data.stream = 0;
        }
        self.data = Some(data);
        accepted.map(|_| ())
    }

    /// Whether a stream takes DATA.
    fn accept_data(&mut self, id: u32, bytes: usize, turn: &Turn<'_>) -> Result<bool, Fault> {
        if let Some(stream) = self.live(id) {
            let window = match &mut stream.recv {
                Recv::Body(arriving) => &mut arriving.window,
                Recv::Discard(discarding) => &mut discarding.window,
                Recv::Messages(messages) if !messages.is_ended() => &mut messages.window,
                Recv::Messages(_) | Recv::Ended => {
                    return Err(Fault::Stream(id, Code::STREAM_CLOSED));
                }
            };
            return match window.take(bytes) {
                true => Ok(true),
                false => Err(Fault::Stream(id, Code::FLOW_CONTROL_ERROR)),
            };
        }
        match self.streams.past(id) {
            Past::Ended => {
                let reason = "DATA for a stream that has ended";
                Err(Fault::Connection(Code::STREAM_CLOSED, reason, Trouble::Protocol))
            }
            Past::ResetByPeer => Err(Fault::Stream(id, Code::STREAM_CLOSED)),
            // It was on its way when we reset the stream, and may be as much as the window was.
            Past::ResetByUs if bytes >= LATE_BYTES_MIN => Ok(false),
            Past::ResetByUs | Past::Forgotten => {
                self.strain(Trouble::Control, turn.now).map(|()| false)
            }
        }
    }

    /// Takes as much of a DATA frame's payload as is there.
    fn receive_data<'a>(
        &mut self,
        input: &'a [u8],
        turn: &mut Turn<'_>,
    ) -> Result<&'a [u8], Fault> {
        let Some(data) = &mut self.data else {
            return Ok(input);
        };
        let (piece, rest) = input.split_at(data.left.min(input.len()));
        let skipped = data.padding.min(rest.len());
        data.left -= piece.len();
        let ends = data.ends && data.left == 0;
        let stream = data.stream;
        if data.left == 0 {
            data.ends = false;
            data.padding -= skipped;
            if data.padding == 0 {
                self.data = None;
            }
        }
        if stream != 0 && (ends || !piece.is_empty()) {
            let taken = self.take_data(stream, piece, ends, turn);
            self.contain(taken, turn)?;
        }
        Ok(&rest[skipped..])
    }

    fn take_frame(
        &mut self,
        head: &FrameHead,
        payload: &[u8],
        turn: &mut Turn<'_>,
    ) -> Result<(), Fault> {
        match head.kind {
            kind::HEADERS => self.take_headers(head, payload, turn),
            kind::CONTINUATION => self.take_continuation(head, payload, turn),
            kind::RST_STREAM => self.take_reset(head, payload, turn),
            kind::WINDOW_UPDATE => self.take_window_update(head, payload, turn),
            kind::SETTINGS => self.take_settings(head, payload, turn),
            kind::PING => self.take_ping(head, payload, turn),
            kind::PRIORITY => self.take_priority(head, payload, turn),
            kind::GOAWAY => self.take_goaway(head, payload, turn),
            kind::PUSH_PROMISE => Err(Fault::protocol("a client can't push")),
            _ => self.strain(Trouble::Control, turn.now),
        }
    }

    fn take_headers(
        &mut self,
        head: &FrameHead,
        payload: &[u8],
        turn: &mut Turn<'_>,
    ) -> Result<(), Fault> {
        if head.stream.is_multiple_of(2) {
            return Err(Fault::protocol("HEADERS for a stream that no client can open"));
        }
        let Some(mut fragment) = frame::unpadded(head, payload) else {
            return Err(Fault::protocol("more padding than payload"));
        };
        let mut is_circular = false;
        if head.has(flag::PRIORITY) {
            let Some((priority, rest)) = fragment.split_at_checked(PRIORITY_BYTES) else {
                return Err(Fault::frame_size("HEADERS shorter than its priority"));
            };
            is_circular = depends_on(priority) == head.stream;
            fragment = rest;
        }
        let ends = head.has(flag::END_STREAM);
        let block = BlockHead { stream: head.stream, ends, is_circular };
        if head.has(flag::END_HEADERS) {
            return self.take_block(block, fragment, turn);
        }
        self.begin_waiting(turn);
        let bytes = fragment.to_vec();
        self.block = Some(Box::new(HeaderBlock { head: block, bytes, continuations: 0 }));
        Ok(())
    }

    fn take_continuation(
        &mut self,
        head: &FrameHead,
        payload: &[u8],
        turn: &mut Turn<'_>,
    ) -> Result<(), Fault> {
        let Some(mut block) = self.block.take() else {
            return Err(Fault::protocol("a CONTINUATION without its HEADERS"));
        };
        block.continuations += 1;
        let bytes_max = BLOCK_FACTOR * turn.limits.header_bytes_max.max(FRAME_BYTES_MAX);
        let is_long = block.bytes.len() + payload.len() > bytes_max;
        if is_long || block.continuations > CONTINUATIONS_MAX {
            return Err(too_much(Trouble::HeaderBlock));
        }
        block.bytes.extend_from_slice(payload);
        if head.has(flag::END_HEADERS) {
            return self.take_block(block.head, &block.bytes, turn);
        }
        self.block = Some(block);
        Ok(())
    }

    fn take_reset(
        &mut self,
        head: &FrameHead,
        payload: &[u8],
        turn: &mut Turn<'_>,
    ) -> Result<(), Fault> {
        if frame::number(payload).is_none() {
            return Err(Fault::frame_size("RST_STREAM is four bytes long"));
        }
        if !self.was_opened(head.stream) {
            return Err(Fault::protocol("RST_STREAM for a stream that was not opened"));
        }
        let trouble = match self.live(head.stream).map(|stream| &stream.recv) {
            // Its answer is given already: a client may well lose interest.
            None | Some(Recv::Discard(_)) => Trouble::Control,
            Some(_) => Trouble::Resets,
        };
        self.abandon(head.stream, Past::ResetByPeer, turn);
        self.strain(trouble, turn.now)
    }

    fn take_window_update(
        &mut self,
        head: &FrameHead,
        payload: &[u8],
        turn: &mut Turn<'_>,
    ) -> Result<(), Fault> {
        let Some(increment) = frame::number(payload) else {
            return Err(Fault::frame_size("WINDOW_UPDATE is four bytes long"));
        };
        self.strain(Trouble::Control, turn.now)?;
        let increment = i64::from(increment & 0x7fff_ffff);
        match (head.stream, increment) {
            (0, 0) => Err(Fault::protocol("a window update of nothing")),
            (0, increment) => self.widen(increment),
            (stream, _) if !self.was_opened(stream) => {
                Err(Fault::protocol("WINDOW_UPDATE for a stream that was not opened"))
            }
            (stream, 0) => match self.live(stream) {
                Some(_) => Err(Fault::Stream(stream, Code::PROTOCOL_ERROR)),
                None => Ok(()),
            },
            (stream, increment) => self.widen_stream(stream, increment),
        }
    }

    fn take_settings(
        &mut self,
        head: &FrameHead,
        payload: &[u8],
        turn: &mut Turn<'_>,
    ) -> Result<(), Fault> {
        if head.stream != 0 {
            return Err(Fault::protocol("SETTINGS for a stream"));
        }
        if head.has(flag::ACK) && !payload.is_empty() {
            return Err(Fault::frame_size("SETTINGS acknowledged at length"));
        }
        let (settings, rest) = payload.as_chunks::<6>();
        if !rest.is_empty() {
            return Err(Fault::frame_size("SETTINGS that are cut off"));
        }
        for _ in 0..=settings.len() / SETTINGS_USUAL {
            self.strain(Trouble::Control, turn.now)?;
        }
        if head.has(flag::ACK) {
            return Ok(());
        }
        // Each is looked at; of those for all streams, the last one counts.
        let mut window = None;
        for [i, d, v @ ..] in settings {
            let (id, value) = (u16::from_be_bytes([*i, *d]), u32::from_be_bytes(*v));
            self.take_setting(id, value)?;
            if id == setting::INITIAL_WINDOW_SIZE {
                window = Some(i64::from(value));
            }
        }
        if let Some(window) = window {
            self.set_stream_window(window)?;
        }
        if self.phase == Phase::Settings {
            self.phase = Phase::Open;
            self.since = turn.now;
        }
        frame::put(&mut self.output, kind::SETTINGS, flag::ACK, 0, &[]);
        self.send_blocked();
        Ok(())
    }

    fn take_setting(&mut self, id: u16, value: u32) -> Result<(), Fault> {
        match id {
            setting::HEADER_TABLE_SIZE => {
                self.peer.wants_table_size |= (value as usize) < super::hpack::TABLE_BYTES_MAX;
            }
            setting::ENABLE_PUSH if value > 1 => {
                return Err(Fault::protocol("ENABLE_PUSH is neither 0 nor 1"));
            }
            setting::INITIAL_WINDOW_SIZE if i64::from(value) > frame::WINDOW_MAX => {
                let reason = "INITIAL_WINDOW_SIZE is too large";
                let code = Code::FLOW_CONTROL_ERROR;
                return Err(Fault::Connection(code, reason, Trouble::Protocol));
            }
            setting::MAX_FRAME_SIZE => {
                if !(FRAME_BYTES_MAX..1 << 24).contains(&(value as usize)) {
                    return Err(Fault::protocol("MAX_FRAME_SIZE is out of range"));
                }
                self.peer.frame_bytes_max = value as usize;
            }
            // The rest is about pushing, or of no interest.
            _ => {}
        }
        Ok(())
    }

    fn take_ping(
        &mut self,
        head: &FrameHead,
        payload: &[u8],
        turn: &mut Turn<'_>,
    ) -> Result<(), Fault> {
        if head.stream != 0 {
            return Err(Fault::protocol("PING for a stream"));
        }
        if payload.len() != 8 {
            return Err(Fault::frame_size("PING is eight bytes long"));
        }
        self.strain(Trouble::Control, turn.now)?;
        if !head.has(flag::ACK) {
            frame::put(&mut self.output, kind::PING, flag::ACK, 0, payload);
        } else if self.going == Going::Announced && payload == FAREWELL {
            // Clients answer a PING before they send what they began before they heard.
            self.going = Going::Heard;
        }
        Ok(())
    }

    /// Priorities change nothing, and may still be wrong.
    fn take_priority(
        &mut self,
        head: &FrameHead,
        payload: &[u8],
        turn: &mut Turn<'_>,
    ) -> Result<(), Fault> {
        self.strain(Trouble::Control, turn.now)?;
        if head.stream == 0 {
            return Err(Fault::protocol("PRIORITY for no stream"));
        }
        if payload.len() != PRIORITY_BYTES {
            return Err(Fault::Stream(head.stream, Code::FRAME_SIZE_ERROR));
        }
        match depends_on(payload) == head.stream {
            true => Err(Fault::Stream(head.stream, Code::PROTOCOL_ERROR)),
            false => Ok(()),
        }
    }

    /// The peer opens no more streams, and will close when it has its answers; whatever its reason.
    fn take_goaway(
        &mut self,
        head: &FrameHead,
        payload: &[u8],
        turn: &mut Turn<'_>,
    ) -> Result<(), Fault> {
        self.strain(Trouble::Control, turn.now)?;
        if head.stream != 0 {
            return Err(Fault::protocol("GOAWAY for a stream"));
        }
        if payload.len() < 8 {
            return Err(Fault::frame_size("GOAWAY is eight bytes long at least"));
        }
        self.peer_goes = true;
        self.since = turn.now;
        Ok(())
    }

    /// Whether the peer has ever opened this stream, or skipped it.
    fn was_opened(&self, stream: u32) -> bool {
        !stream.is_multiple_of(2) && stream <= self.last_stream
    }
}

/// The stream that a priority names; its highest bit is a flag.
fn depends_on(priority: &[u8]) -> u32 {
    priority.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes) & 0x7fff_ffff)
}
