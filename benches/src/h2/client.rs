//! The load's side of HTTP/2: gRPC, or OTLP/HTTP with prior knowledge.
//!
//! Header fields go into the peer's dynamic table with the first request, and are a byte each
//! after that, as SDKs do it. Windows are honoured: what does not fit now waits in `pending`.

use std::collections::HashMap;

use forebay_codec::compress::Encoding;

use super::*;
use crate::client::{Answer, Heading, Outcome, Transport, outcome, path};
use crate::hpack;

/// What the peer may send before we give more: answers are small.
const CREDIT_BYTES: u32 = 1 << 30;
const GRPC_PREFIX_BYTES: usize = 5;
/// The last stream that a connection may have.
const STREAM_MAX: u32 = 0x7fff_ffff;

pub struct Client {
    reader: Reader,
    decoder: hpack::Decoder<Summary>,
    heads: Heads,
    is_grpc: bool,
    streams_max: usize,
    next_stream: u32,
    /// Windows that the peer gave.
    window: i64,
    stream_window: i64,
    /// DATA bytes taken since we last gave credit.
    taken: u32,
    open: HashMap<u32, Open, foldless::Build>,
    pending: Vec<Pending>,
    /// The peer's SETTINGS came: before that nothing begins.
    is_ready: bool,
    is_ending: bool,
}

/// What an answer's header block says.
#[derive(Clone, Copy, Default)]
struct Summary {
    status: Option<u16>,
    grpc_status: Option<u32>,
}

/// A request without its answer.
struct Open {
    ticket: u32,
    status: u16,
    message: Vec<u8>,
}

/// The rest of a body that did not fit the windows.
struct Pending {
    stream: u32,
    window: i64,
    rest: Vec<u8>,
    at: usize,
}

impl Client {
    pub fn new(heading: &Heading, out: &mut Vec<u8>) -> Client {
        out.extend_from_slice(PREFACE);
        put_settings(out, &[(INITIAL_WINDOW_SIZE, CREDIT_BYTES)]);
        put_window_update(out, 0, CREDIT_BYTES);
        Client {
            reader: Reader::default(),
            decoder: hpack::Decoder::new(summarise),
            heads: Heads::new(heading),
            is_grpc: heading.transport == Transport::Grpc,
            streams_max: heading.streams,
            next_stream: 1,
            window: WINDOW_BYTES,
            stream_window: WINDOW_BYTES,
            taken: 0,
            open: HashMap::default(),
            pending: Vec::new(),
            is_ready: false,
            is_ending: false,
        }
    }

    pub fn has_room(&self) -> bool {
        self.is_ready
            && !self.is_ending
            && self.open.len() < self.streams_max
            && self.next_stream < STREAM_MAX
    }

    pub fn begin(&mut self, ticket: u32, body: &[u8], out: &mut Vec<u8>) {
        let stream = self.next_stream;
        self.next_stream += 2;
        self.open.insert(stream, Open { ticket, status: 0, message: Vec::new() });
        self.heads.put(stream, body.len(), out);
        let mut prefix = [0; GRPC_PREFIX_BYTES];
        let prefix: &[u8] = match self.is_grpc {
            true => {
                prefix[0] = u8::from(self.heads.is_compressed);
                prefix[1..].copy_from_slice(&(body.len() as u32).to_be_bytes());
                &prefix
            }
            false => &[],
        };
        let all = prefix.len() + body.len();
        let mut window = self.stream_window;
        let mut sent = 0;
        while sent < all || all == 0 {
            let bytes = frame_bytes(all - sent, window, self.window);
            if bytes == 0 && all > 0 {
                let mut rest = Vec::with_capacity(all - sent);
                put_span(&mut rest, prefix, body, sent, all - sent);
                self.pending.push(Pending { stream, window, rest, at: 0 });
                return;
            }
            let flags = if sent + bytes == all { END_STREAM } else { 0 };
            put_head(out, bytes, DATA, flags, stream);
            put_span(out, prefix, body, sent, bytes);
            sent += bytes;
            window -= bytes as i64;
            self.window -= bytes as i64;
            if all == 0 {
                return;
            }
        }
    }

    pub fn handle(
        &mut self,
        bytes: &[u8],
        out: &mut Vec<u8>,
        answers: &mut Vec<Answer>,
    ) -> Result<(), String> {
        let mut reader = std::mem::take(&mut self.reader);
        let outcome = reader.feed(bytes, |frame| self.frame(frame, out, answers));
        self.reader = reader;
        if self.taken > CREDIT_BYTES / 2 {
            put_window_update(out, 0, self.taken);
            self.taken = 0;
        }
        self.send_pending(out);
        outcome
    }

    pub fn abandon(&mut self) -> Vec<u32> {
        self.pending.clear();
        self.open.drain().map(|(_, open)| open.ticket).collect()
    }

    fn frame(
        &mut self,
        frame: Frame<'_>,
        out: &mut Vec<u8>,
        answers: &mut Vec<Answer>,
    ) -> Result<(), String> {
        match frame {
            Frame::Headers { stream, block, is_last } => {
                let said = self.decoder.decode(block)?;
                let Some(open) = self.open.get_mut(&stream) else { return Ok(()) };
                open.status = said.status.unwrap_or(open.status);
                if is_last {
                    self.end(stream, said.grpc_status, answers);
                }
            }
            Frame::Data { stream, bytes, is_last } => {
                self.taken += bytes.len() as u32;
                let Some(open) = self.open.get_mut(&stream) else { return Ok(()) };
                // An empty gRPC message, the usual answer, is not worth keeping.
                if bytes != [0; GRPC_PREFIX_BYTES] || !open.message.is_empty() {
                    open.message.extend_from_slice(bytes);
                }
                if is_last {
                    self.end(stream, None, answers);
                }
            }
            Frame::Reset { stream, code } => {
                self.pending.retain(|pending| pending.stream != stream);
                if let Some(open) = self.open.remove(&stream) {
                    answers.push(Answer { ticket: open.ticket, outcome: Outcome::Reset(code) });
                }
            }
            Frame::Settings { pairs } => {
                self.heed_settings(pairs);
                put_settings_ack(out);
            }
            Frame::WindowUpdate { stream: 0, bytes } => self.window += i64::from(bytes),
            Frame::WindowUpdate { stream, bytes } => {
                let mut pending = self.pending.iter_mut();
                if let Some(pending) = pending.find(|pending| pending.stream == stream) {
                    pending.window += i64::from(bytes);
                }
            }
            Frame::Ping { opaque } => put_pong(out, opaque),
            Frame::GoAway { .. } => self.is_ending = true,
            Frame::SettingsAck => {}
        }
        Ok(())
    }

    fn end(&mut self, stream: u32, grpc_status: Option<u32>, answers: &mut Vec<Answer>) {
        let Some(open) = self.open.remove(&stream) else { return };
        self.pending.retain(|pending| pending.stream != stream);
        // A call that ends without a status has failed, whatever else it said.
        let grpc_status = if self.is_grpc { grpc_status.or(Some(2)) } else { None };
        let prefix = if self.is_grpc { GRPC_PREFIX_BYTES } else { 0 };
        let message = open.message.get(prefix..).unwrap_or_default();
        let outcome = outcome(open.status, grpc_status, message);
        answers.push(Answer { ticket: open.ticket, outcome });
    }

    fn heed_settings(&mut self, pairs: &[u8]) {
        self.is_ready = true;
        for (name, value) in settings(pairs) {
            match name {
                MAX_CONCURRENT_STREAMS => self.streams_max = self.streams_max.min(value as usize),
                INITIAL_WINDOW_SIZE => {
                    let change = i64::from(value) - self.stream_window;
                    self.stream_window += change;
                    self.pending.iter_mut().for_each(|pending| pending.window += change);
                }
                HEADER_TABLE_SIZE if (value as usize) < hpack::TABLE_BYTES => {
                    self.heads.spell_out();
                }
                _ => {}
            }
        }
    }

    fn send_pending(&mut self, out: &mut Vec<u8>) {
        for pending in &mut self.pending {
            loop {
                let left = pending.rest.len() - pending.at;
                let bytes = frame_bytes(left, pending.window, self.window);
                if bytes == 0 {
                    break;
                }
                let flags = if bytes == left { END_STREAM } else { 0 };
                put_head(out, bytes, DATA, flags, pending.stream);
                out.extend_from_slice(&pending.rest[pending.at..pending.at + bytes]);
                pending.at += bytes;
                pending.window -= bytes as i64;
                self.window -= bytes as i64;
            }
        }
        self.pending.retain(|pending| pending.at < pending.rest.len());
    }
}

/// How long the next DATA frame may be.
fn frame_bytes(left: usize, stream_window: i64, window: i64) -> usize {
    let credit = stream_window.min(window).max(0) as usize;
    left.min(credit).min(FRAME_BYTES_MAX)
}

/// `bytes` from `at` on of `prefix` and `body`, one after the other.
fn put_span(out: &mut Vec<u8>, prefix: &[u8], body: &[u8], at: usize, bytes: usize) {
    let from_prefix = prefix.get(at..).unwrap_or_default();
    let from_prefix = &from_prefix[..from_prefix.len().min(bytes)];
    out.extend_from_slice(from_prefix);
    let start = at.saturating_sub(prefix.len());
    out.extend_from_slice(&body[start..start + bytes - from_prefix.len()]);
}

fn summarise(fields: &[hpack::Field]) -> Summary {
    let number = |wanted: &str| {
        let (_, value) = fields.iter().find(|(name, _)| name == wanted.as_bytes())?;
        std::str::from_utf8(value).ok()?.parse::<u32>().ok()
    };
    let status = number(":status").map(|status| status as u16);
    Summary { status, grpc_status: number("grpc-status") }
}

/// The header blocks of requests: all alike but for the content length.
struct Heads {
    fields: Vec<(&'static str, String)>,
    /// What the first request of the connection writes, and every other.
    first: Option<Vec<u8>>,
    other: Vec<u8>,
    has_length: bool,
    is_compressed: bool,
    block: Vec<u8>,
}

const DYNAMIC_FIRST: u8 = 62;
const METHOD_POST: u8 = 3;
const SCHEME_HTTP: u8 = 6;

impl Heads {
    fn new(heading: &Heading) -> Heads {
        let is_grpc = heading.transport == Transport::Grpc;
        let is_compressed = heading.encoding != Encoding::Identity;
        let content_type = if is_grpc { "application/grpc" } else { "application/x-protobuf" };
        let mut fields = vec![
            (":path", path(heading.transport, heading.signal).to_owned()),
            (":authority", heading.authority.clone()),
            ("content-type", content_type.to_owned()),
            ("user-agent", "forebay-bench".to_owned()),
        ];
        if is_grpc {
            fields.push(("te", "trailers".to_owned()));
        }
        if is_compressed {
            let name = if is_grpc { "grpc-encoding" } else { "content-encoding" };
            let value = heading.encoding.grpc_name().unwrap_or(heading.encoding.http_name());
            fields.push((name, value.to_owned()));
        }
        let mut first = vec![0x80 | METHOD_POST, 0x80 | SCHEME_HTTP];
        let mut other = first.clone();
        for (nth, (name, value)) in fields.iter().enumerate() {
            hpack::put_literal(&mut first, true, name, value);
            // The last that went in has the lowest index.
            let index = DYNAMIC_FIRST + (fields.len() - 1 - nth) as u8;
            hpack::put_indexed(&mut other, index);
        }
        let (first, has_length, block) = (Some(first), !is_grpc, Vec::new());
        Heads { fields, first, other, has_length, is_compressed, block }
    }

    /// The peer keeps a smaller table, or none: use none.
    fn spell_out(&mut self) {
        let mut plain = vec![0x80 | METHOD_POST, 0x80 | SCHEME_HTTP];
        for (name, value) in &self.fields {
            hpack::put_literal(&mut plain, false, name, value);
        }
        // The first block says that the table is empty from here on.
        self.first = Some([&[0x20], plain.as_slice()].concat());
        self.other = plain;
    }

    fn put(&mut self, stream: u32, length: usize, out: &mut Vec<u8>) {
        self.block.clear();
        match self.first.take() {
            Some(first) => self.block.extend_from_slice(&first),
            None => self.block.extend_from_slice(&self.other),
        }
        if self.has_length {
            hpack::put_literal(&mut self.block, false, "content-length", &length.to_string());
        }
        put_head(out, self.block.len(), HEADERS, END_HEADERS, stream);
        out.extend_from_slice(&self.block);
    }
}

/// A hash for stream ids: they are odd, ascending and few, and come from ourselves.
mod foldless {
    use std::hash::{BuildHasherDefault, Hasher};

    pub(super) type Build = BuildHasherDefault<Id>;

    #[derive(Default)]
    pub(super) struct Id(u64);

    impl Hasher for Id {
        fn finish(&self) -> u64 {
            self.0
        }

        fn write(&mut self, bytes: &[u8]) {
            bytes.iter().for_each(|byte| self.write_u32(u32::from(*byte)));
        }

        fn write_u32(&mut self, id: u32) {
            self.0 = (self.0 ^ u64::from(id)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
    }
}
