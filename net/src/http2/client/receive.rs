//! Frames in: cut out of the bytes as they lie, checked, and given to whom they concern.

use super::answer::Block;
use super::{Answer, Client, Fault, HEADER_BYTES_MAX, PING, Ping, Why};
use crate::http2::frame::{
    self, Code, FRAME_BYTES_MAX, FrameHead, HEAD_BYTES, WINDOW_MAX, flag, kind, setting,
};
use crate::http2::hpack::HpackError;
use crate::request::{Nanos, Trouble};

/// An encoded block may be longer than the list that it may hold, so that a list that is somewhat
/// too long is its stream's end and not the connection's.
const BLOCK_BYTES_MAX: usize = 2 * HEADER_BYTES_MAX;
const CONTINUATIONS_MAX: usize = 64;
const INTERIM_HEADS_MAX: u32 = 8;
const PRIORITY_BYTES: usize = 5;
/// A SETTINGS frame with more than so many is as dear as several.
const SETTINGS_USUAL: usize = 8;
/// A window that grows by so much is bounded by how far windows grow.
const INCREMENT_USUAL: i64 = 1 << 10;
/// A DATA frame of so much is a body's, not a flood's.
const DATA_BYTES_USUAL: usize = 1 << 10;

/// A header block in pieces.
pub(super) struct HeaderBlock {
    stream: u32,
    ends: bool,
    bytes: Vec<u8>,
    continuations: usize,
}

/// What can be cut off the front of some bytes.
enum Cut<'a> {
    /// So many bytes, all together, are needed for more.
    Needs(usize),
    /// A frame, and what is behind it.
    Frame(FrameHead, &'a [u8], &'a [u8]),
}

impl Client {
    /// Bytes from the peer.
    pub fn handle_input(&mut self, input: &[u8], now: Nanos) {
        if self.end.is_some() {
            return;
        }
        self.put_ping_off(now);
        if let Err(Fault::Connection(code, reason)) = self.receive(input, now) {
            self.fail(code, reason);
        }
        if self.end.is_none()
            && let Some(increment) = self.window.due()
        {
            frame::put_window_update(&mut self.control, 0, increment);
        }
        self.settle();
    }

    /// A peer from which something comes is there.
    fn put_ping_off(&mut self, now: Nanos) {
        if let Some(keepalive) = self.settings.keepalive {
            self.ping = match self.ping {
                Ping::Never => Ping::Never,
                Ping::Due(_) => Ping::Due(now + keepalive.every),
                Ping::Sent(_) => Ping::Sent(now + keepalive.timeout),
            };
        }
    }

    /// Takes all of `input`. An error is the connection's.
    fn receive(&mut self, input: &[u8], now: Nanos) -> Result<(), Fault> {
        let mut rest = input;
        if !self.partial.is_empty() {
            let mut partial = std::mem::take(&mut self.partial);
            while let Cut::Needs(bytes) = self.cut(&partial)? {
                let lacking = bytes - partial.len();
                let (taken, behind) = rest.split_at(lacking.min(rest.len()));
                partial.extend_from_slice(taken);
                rest = behind;
                if taken.len() < lacking {
                    self.partial = partial;
                    return Ok(());
                }
            }
            self.take_next(&partial, now)?;
        }
        while !rest.is_empty() {
            match self.take_next(rest, now)? {
                Some(behind) => rest = behind,
                None => {
                    self.partial.extend_from_slice(rest);
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Takes the frame that `bytes` begin with, and returns what is behind it; `None` if it is not
    /// all there.
    fn take_next<'a>(&mut self, bytes: &'a [u8], now: Nanos) -> Result<Option<&'a [u8]>, Fault> {
        let Cut::Frame(head, payload, rest) = self.cut(bytes)? else {
            return Ok(None);
        };
        match self.take_frame(&head, payload, now) {
            Err(Fault::Stream(id, code, why)) => self.reset(id, code, why, now)?,
            taken => taken?,
        }
        Ok(Some(rest))
    }

    /// Cuts off the frame that `bytes` begin with, if it may stand here.
    fn cut<'a>(&self, bytes: &'a [u8]) -> Result<Cut<'a>, Fault> {
        let Some((head, rest)) = bytes.split_first_chunk::<HEAD_BYTES>() else {
            return Ok(Cut::Needs(HEAD_BYTES));
        };
        let head = FrameHead::read(head);
        if head.length > FRAME_BYTES_MAX {
            return Err(frame_size("a frame is longer than our settings allow"));
        }
        let is_settings = head.kind == kind::SETTINGS && !head.has(flag::ACK);
        if !self.peer.has_settings && !is_settings {
            return Err(protocol("the first frame is not the settings"));
        }
        match (&self.block, head.kind) {
            (Some(block), kind::CONTINUATION) if block.stream == head.stream => {}
            (Some(_), _) => return Err(protocol("a header block is interrupted")),
            (None, kind::CONTINUATION) => {
                return Err(protocol("a CONTINUATION without its HEADERS"));
            }
            _ => {}
        }
        Ok(match rest.split_at_checked(head.length) {
            Some((payload, rest)) => Cut::Frame(head, payload, rest),
            None => Cut::Needs(HEAD_BYTES + head.length),
        })
    }

    fn take_frame(&mut self, head: &FrameHead, payload: &[u8], now: Nanos) -> Result<(), Fault> {
        match head.kind {
            kind::DATA => self.take_data(head, payload, now),
            kind::HEADERS => self.take_headers(head, payload, now),
            kind::CONTINUATION => self.take_continuation(head, payload, now),
            kind::RST_STREAM => self.take_reset(head, payload, now),
            kind::WINDOW_UPDATE => self.take_window_update(head, payload, now),
            kind::SETTINGS => self.take_settings(head, payload, now),
            kind::PING => self.take_ping(head, payload, now),
            kind::GOAWAY => self.take_goaway(head, payload, now),
            kind::PUSH_PROMISE => Err(protocol("a push that our settings forbid")),
            kind::PRIORITY if head.stream == 0 => Err(protocol("PRIORITY for no stream")),
            // What a server thinks of priorities changes nothing, nor do frames that nobody knows.
            _ => self.strain(now),
        }
    }

    fn take_data(&mut self, head: &FrameHead, payload: &[u8], now: Nanos) -> Result<(), Fault> {
        self.must_be_opened(head.stream)?;
        let Some(data) = frame::unpadded(head, payload) else {
            return Err(protocol("more padding than payload"));
        };
        if !self.window.take(head.length) {
            let reason = "more DATA than the connection's window allows";
            return Err(Fault::Connection(Code::FLOW_CONTROL_ERROR, reason));
        }
        let (id, ends) = (head.stream, head.has(flag::END_STREAM));
        let is_crumb = data.len() < DATA_BYTES_USUAL;
        if self.streams.live(id).is_none() || (is_crumb && !ends) {
            self.strain(now)?;
        }
        let bytes_max = self.settings.answer_bytes_max;
        let Some(stream) = self.streams.live(id) else {
            // It was on its way when we reset the stream.
            return Ok(());
        };
        if !stream.window.take(head.length) {
            let why = Why::Malformed("more DATA than its window allows");
            return Err(Fault::Stream(id, Code::FLOW_CONTROL_ERROR, why));
        }
        let Some(answer) = &mut stream.answer else {
            return Err(malformed(id, "a body before its head"));
        };
        if answer.body.len() + data.len() > bytes_max {
            return Err(Fault::Stream(id, Code::CANCEL, Why::TooLarge));
        }
        answer.body.extend_from_slice(data);
        if ends {
            return self.complete(id, None);
        }
        if let Some(increment) = stream.window.due() {
            frame::put_window_update(&mut self.control, id, increment);
        }
        Ok(())
    }

    fn take_headers(&mut self, head: &FrameHead, payload: &[u8], now: Nanos) -> Result<(), Fault> {
        self.must_be_opened(head.stream)?;
        let Some(mut fragment) = frame::unpadded(head, payload) else {
            return Err(protocol("more padding than payload"));
        };
        if head.has(flag::PRIORITY) {
            fragment = fragment
                .get(PRIORITY_BYTES..)
                .ok_or_else(|| frame_size("HEADERS shorter than its priority"))?;
        }
        let ends = head.has(flag::END_STREAM);
        if head.has(flag::END_HEADERS) {
            return self.take_block(head.stream, ends, fragment, now);
        }
        let (stream, bytes) = (head.stream, fragment.to_vec());
        self.block = Some(HeaderBlock { stream, ends, bytes, continuations: 0 });
        Ok(())
    }

    fn take_continuation(
        &mut self,
        head: &FrameHead,
        payload: &[u8],
        now: Nanos,
    ) -> Result<(), Fault> {
        let Some(mut block) = self.block.take() else {
            return Err(protocol("a CONTINUATION without its HEADERS"));
        };
        block.continuations += 1;
        let is_long = block.bytes.len() + payload.len() > BLOCK_BYTES_MAX;
        if is_long || block.continuations > CONTINUATIONS_MAX {
            return Err(too_much("a header block in too many pieces, or too long"));
        }
        block.bytes.extend_from_slice(payload);
        if head.has(flag::END_HEADERS) {
            return self.take_block(block.stream, block.ends, &block.bytes, now);
        }
        self.block = Some(block);
        Ok(())
    }

    /// A whole header block. It is read in any case: the table must stay what the peer thinks.
    fn take_block(
        &mut self,
        id: u32,
        ends: bool,
        fragment: &[u8],
        now: Nanos,
    ) -> Result<(), Fault> {
        let mut block = Block::new(HEADER_BYTES_MAX);
        let reads = self.settings.reads;
        self.decoder
            .decode(fragment, &mut |name| reads(name), |field, bytes| block.take(field, bytes))
            .map_err(|HpackError(reason)| Fault::Connection(Code::COMPRESSION_ERROR, reason))?;
        let Some(stream) = self.streams.live(id) else {
            return self.strain(now);
        };
        match (block.malformed, &stream.answer, block.status) {
            (Some(reason), ..) => Err(malformed(id, reason)),
            (_, Some(_), Some(_)) => Err(malformed(id, "a status in its trailers")),
            (_, Some(_), None) if !ends => Err(malformed(id, "trailers before its end")),
            (_, Some(_), None) => self.complete(id, Some(block.headers)),
            (_, None, None) => Err(malformed(id, "no status")),
            (_, None, Some(status)) if status.is_informational() => {
                stream.interim_heads += 1;
                let is_flood = stream.interim_heads > INTERIM_HEADS_MAX;
                match ends || is_flood {
                    true => Err(malformed(id, "nothing but a head that announces others")),
                    false => self.strain(now),
                }
            }
            (_, None, Some(status)) => {
                stream.content_length = block.content_length;
                let (headers, body) = (block.headers, Vec::new());
                stream.answer = Some(Answer { status, headers, body, trailers: None });
                if ends { self.complete(id, None) } else { Ok(()) }
            }
        }
    }

    /// An answer is whole. What is left of its request nobody wants.
    fn complete(&mut self, id: u32, trailers: Option<http::HeaderMap>) -> Result<(), Fault> {
        let Some(stream) = self.streams.live(id) else {
            return Ok(());
        };
        if !stream.fits_length() {
            return Err(malformed(id, "another length than it says"));
        }
        let Some(stream) = self.drop_stream(id) else {
            return Ok(());
        };
        if !stream.message.is_empty() {
            frame::put_reset(&mut self.control, id, Code::NO_ERROR);
        }
        self.calm.answered();
        if let Some(mut answer) = stream.answer {
            answer.trailers = trailers;
            self.end_stream(id, Ok(answer));
        }
        Ok(())
    }

    fn take_reset(&mut self, head: &FrameHead, payload: &[u8], now: Nanos) -> Result<(), Fault> {
        let Some(code) = frame::number(payload) else {
            return Err(frame_size("RST_STREAM is four bytes long"));
        };
        self.must_be_opened(head.stream)?;
        match self.drop_stream(head.stream) {
            Some(stream) => self.fail_stream(stream, Why::Reset(Code(code))),
            // It has ended already, or we reset it too.
            None => self.strain(now)?,
        }
        Ok(())
    }

    fn take_window_update(
        &mut self,
        head: &FrameHead,
        payload: &[u8],
        now: Nanos,
    ) -> Result<(), Fault> {
        let Some(increment) = frame::number(payload) else {
            return Err(frame_size("WINDOW_UPDATE is four bytes long"));
        };
        let increment = i64::from(increment & 0x7fff_ffff);
        if increment < INCREMENT_USUAL {
            self.strain(now)?;
        }
        match (head.stream, increment) {
            (0, 0) => Err(protocol("a window update of nothing")),
            (0, increment) => self.widen(increment),
            (stream, increment) => {
                self.must_be_opened(stream)?;
                match (self.streams.live(stream).is_some(), increment) {
                    // Grown is no window that is gone, so nothing else would bound these.
                    (false, _) if increment >= INCREMENT_USUAL => self.strain(now),
                    (false, _) => Ok(()),
                    (true, 0) => {
                        let why = Why::Malformed("a window update of nothing");
                        Err(Fault::Stream(stream, Code::PROTOCOL_ERROR, why))
                    }
                    (true, increment) => self.widen_stream(stream, increment),
                }
            }
        }
    }

    fn take_settings(&mut self, head: &FrameHead, payload: &[u8], now: Nanos) -> Result<(), Fault> {
        if head.stream != 0 {
            return Err(protocol("SETTINGS for a stream"));
        }
        if head.has(flag::ACK) && !payload.is_empty() {
            return Err(frame_size("SETTINGS acknowledged at length"));
        }
        let (settings, rest) = payload.as_chunks::<6>();
        if !rest.is_empty() {
            return Err(frame_size("SETTINGS that are cut off"));
        }
        for _ in 0..=settings.len() / SETTINGS_USUAL {
            self.strain(now)?;
        }
        if head.has(flag::ACK) {
            return Ok(());
        }
        if !self.peer.has_settings {
            self.peer.has_settings = true;
            // Unless it says otherwise.
            self.peer.streams_max = usize::MAX;
        }
        for [i, d, v @ ..] in settings {
            let (id, value) = (u16::from_be_bytes([*i, *d]), u32::from_be_bytes(*v));
            self.take_setting(id, value)?;
        }
        frame::put(&mut self.control, kind::SETTINGS, flag::ACK, 0, &[]);
        Ok(())
    }

    fn take_setting(&mut self, id: u16, value: u32) -> Result<(), Fault> {
        match id {
            setting::HEADER_TABLE_SIZE => self.encoder.set_table_bytes(value),
            setting::ENABLE_PUSH if value != 0 => {
                return Err(protocol("a server's ENABLE_PUSH is not 0"));
            }
            setting::MAX_CONCURRENT_STREAMS => self.peer.streams_max = value as usize,
            setting::INITIAL_WINDOW_SIZE => {
                if i64::from(value) > WINDOW_MAX {
                    let reason = "INITIAL_WINDOW_SIZE is too large";
                    return Err(Fault::Connection(Code::FLOW_CONTROL_ERROR, reason));
                }
                self.set_stream_window(i64::from(value))?;
            }
            setting::MAX_FRAME_SIZE => {
                if !(FRAME_BYTES_MAX..1 << 24).contains(&(value as usize)) {
                    return Err(protocol("MAX_FRAME_SIZE is out of range"));
                }
                self.peer.frame_bytes_max = value as usize;
            }
            _ => {}
        }
        Ok(())
    }

    fn take_ping(&mut self, head: &FrameHead, payload: &[u8], now: Nanos) -> Result<(), Fault> {
        if head.stream != 0 {
            return Err(protocol("PING for a stream"));
        }
        if payload.len() != 8 {
            return Err(frame_size("PING is eight bytes long"));
        }
        if !head.has(flag::ACK) {
            frame::put(&mut self.control, kind::PING, flag::ACK, 0, payload);
        } else if payload == PING
            && let (Ping::Sent(_), Some(keepalive)) = (self.ping, self.settings.keepalive)
        {
            self.ping = Ping::Due(now + keepalive.every);
            return Ok(());
        }
        self.strain(now)
    }

    /// The peer takes no more streams, and has not looked at those above the one that it names.
    fn take_goaway(&mut self, head: &FrameHead, payload: &[u8], now: Nanos) -> Result<(), Fault> {
        if head.stream != 0 {
            return Err(protocol("GOAWAY for a stream"));
        }
        let Some((last, rest)) = payload.split_first_chunk::<4>() else {
            return Err(frame_size("GOAWAY is eight bytes long at least"));
        };
        let Some(code) = rest.first_chunk::<4>() else {
            return Err(frame_size("GOAWAY is eight bytes long at least"));
        };
        let last = u32::from_be_bytes(*last) & 0x7fff_ffff;
        let code = Code(u32::from_be_bytes(*code));
        self.goes = Some(code);
        while let Some(stream) = self.streams.pop_above(last) {
            self.unsent -= usize::from(!stream.message.is_empty());
            self.fail_stream(stream, Why::Unprocessed(code));
        }
        self.strain(now)
    }

    /// Resets a stream for the peer's error; unless there are too many of them.
    fn reset(&mut self, id: u32, code: Code, why: Why, now: Nanos) -> Result<(), Fault> {
        if let Some(stream) = self.drop_stream(id) {
            frame::put_reset(&mut self.control, id, code);
            self.fail_stream(stream, why);
        }
        match self.calm.take(Trouble::Errors, 1, now) {
            true => Ok(()),
            false => Err(too_much("too many streams had to be reset")),
        }
    }

    /// A frame that says nothing about an answer: some come because of our own, more must not.
    fn strain(&mut self, now: Nanos) -> Result<(), Fault> {
        if let Some(owed) = self.owed_control.checked_sub(1) {
            self.owed_control = owed;
            return Ok(());
        }
        match self.calm.take(Trouble::Control, 1, now) {
            true => Ok(()),
            false => Err(too_much("too many frames that say nothing about an answer")),
        }
    }

    fn must_be_opened(&self, stream: u32) -> Result<(), Fault> {
        match !stream.is_multiple_of(2) && stream < self.next_stream {
            true => Ok(()),
            false => Err(protocol("a frame for a stream that was not opened")),
        }
    }
}

fn protocol(reason: &'static str) -> Fault {
    Fault::Connection(Code::PROTOCOL_ERROR, reason)
}

fn frame_size(reason: &'static str) -> Fault {
    Fault::Connection(Code::FRAME_SIZE_ERROR, reason)
}

fn too_much(reason: &'static str) -> Fault {
    Fault::Connection(Code::ENHANCE_YOUR_CALM, reason)
}

fn malformed(stream: u32, reason: &'static str) -> Fault {
    Fault::Stream(stream, Code::PROTOCOL_ERROR, Why::Malformed(reason))
}
