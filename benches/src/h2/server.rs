//! The sink's side of HTTP/2: whole requests in, answers out, credit without end.

use std::collections::HashMap;

use super::*;
use crate::hpack;
use crate::sink::exchange::{Asked, Head, Reply, Retry};

const CREDIT_BYTES: u32 = 1 << 30;
const STREAMS_MAX: u32 = 4096;

pub struct Server {
    reader: Reader,
    decoder: hpack::Decoder<Head>,
    streams: HashMap<u32, Asked>,
    preface_left: usize,
    /// What the peer lets us send, for all streams together: answers are small, one stream's own
    /// window never matters.
    window: i64,
    /// Success answers that wait for window.
    waiting: Vec<u32>,
    taken: u32,
    spare: Vec<Vec<u8>>,
}

impl Server {
    pub fn new(out: &mut Vec<u8>) -> Server {
        put_settings(
            out,
            &[(INITIAL_WINDOW_SIZE, CREDIT_BYTES), (MAX_CONCURRENT_STREAMS, STREAMS_MAX)],
        );
        put_window_update(out, 0, CREDIT_BYTES);
        Server {
            reader: Reader::default(),
            decoder: hpack::Decoder::new(summarise),
            streams: HashMap::new(),
            preface_left: PREFACE.len(),
            window: WINDOW_BYTES,
            waiting: Vec::new(),
            taken: 0,
            spare: Vec::new(),
        }
    }

    /// Whole requests go to `asked`. An error ends the connection.
    pub fn handle(
        &mut self,
        bytes: &[u8],
        out: &mut Vec<u8>,
        asked: &mut Vec<Asked>,
    ) -> Result<(), String> {
        let skipped = self.preface_left.min(bytes.len());
        let expected = &PREFACE[PREFACE.len() - self.preface_left..][..skipped];
        if bytes[..skipped] != *expected {
            return Err("it does not open like HTTP/2".to_owned());
        }
        self.preface_left -= skipped;
        let mut reader = std::mem::take(&mut self.reader);
        let outcome = reader.feed(&bytes[skipped..], |frame| self.frame(frame, out, asked));
        self.reader = reader;
        if self.taken > CREDIT_BYTES / 2 {
            put_window_update(out, 0, self.taken);
            self.taken = 0;
        }
        outcome
    }

    /// Takes a body's memory back, to be used again.
    pub fn recycle(&mut self, mut body: Vec<u8>) {
        body.clear();
        self.spare.push(body);
    }

    fn frame(
        &mut self,
        frame: Frame<'_>,
        out: &mut Vec<u8>,
        asked: &mut Vec<Asked>,
    ) -> Result<(), String> {
        match frame {
            Frame::Headers { stream, block, is_last } => {
                let head = self.decoder.decode(block)?;
                let body = self.spare.pop().unwrap_or_default();
                self.streams.entry(stream).or_insert(Asked { stream, head, body });
                self.end_if(is_last, stream, asked);
            }
            Frame::Data { stream, bytes, is_last } => {
                self.taken += bytes.len() as u32;
                if let Some(open) = self.streams.get_mut(&stream) {
                    open.body.extend_from_slice(bytes);
                    self.end_if(is_last, stream, asked);
                }
            }
            Frame::Reset { stream, .. } => drop(self.streams.remove(&stream)),
            Frame::Settings { .. } => put_settings_ack(out),
            Frame::Ping { opaque } => put_pong(out, opaque),
            Frame::WindowUpdate { stream: 0, bytes } => {
                self.window += i64::from(bytes);
                while self.window > 0
                    && let Some(stream) = self.waiting.pop()
                {
                    self.accept_grpc(stream, out);
                }
            }
            Frame::WindowUpdate { .. } | Frame::SettingsAck | Frame::GoAway { .. } => {}
        }
        Ok(())
    }

    fn end_if(&mut self, is_last: bool, stream: u32, asked: &mut Vec<Asked>) {
        if is_last {
            asked.extend(self.streams.remove(&stream));
        }
    }

    pub fn answer(&mut self, stream: u32, is_grpc: bool, reply: Reply, out: &mut Vec<u8>) {
        match (reply, is_grpc) {
            (Reply::Ok, true) => self.accept_grpc(stream, out),
            (Reply::Ok, false) => {
                let mut block = vec![0x80 | STATUS_200];
                hpack::put_literal(&mut block, false, "content-type", "application/x-protobuf");
                put_head(out, block.len(), HEADERS, END_HEADERS | END_STREAM, stream);
                out.extend_from_slice(&block);
            }
            (Reply::Refuse { code, retry }, true) => {
                let mut block = vec![0x80 | STATUS_200];
                hpack::put_literal(&mut block, false, "content-type", "application/grpc");
                hpack::put_literal(&mut block, false, "grpc-status", &code.to_string());
                hpack::put_literal(&mut block, false, "grpc-message", "as the scenario says");
                if let Some(details) = retry.map(Retry::to_status_details) {
                    hpack::put_literal(&mut block, false, "grpc-status-details-bin", &details);
                }
                put_head(out, block.len(), HEADERS, END_HEADERS | END_STREAM, stream);
                out.extend_from_slice(&block);
            }
            (Reply::Refuse { retry, .. }, false) => {
                let mut block = Vec::new();
                hpack::put_literal(&mut block, false, ":status", "503");
                if let Some(retry) = retry {
                    hpack::put_literal(&mut block, false, "retry-after", &retry.to_seconds());
                }
                put_head(out, block.len(), HEADERS, END_HEADERS | END_STREAM, stream);
                out.extend_from_slice(&block);
            }
        }
    }

    /// `:status: 200`, an empty message, `grpc-status: 0`.
    fn accept_grpc(&mut self, stream: u32, out: &mut Vec<u8>) {
        if self.window < EMPTY_MESSAGE.len() as i64 {
            self.waiting.push(stream);
            return;
        }
        self.window -= EMPTY_MESSAGE.len() as i64;
        put_head(out, ACCEPT.len(), HEADERS, END_HEADERS, stream);
        out.extend_from_slice(ACCEPT);
        put_head(out, EMPTY_MESSAGE.len(), DATA, 0, stream);
        out.extend_from_slice(&EMPTY_MESSAGE);
        put_head(out, OK_TRAILERS.len(), HEADERS, END_HEADERS | END_STREAM, stream);
        out.extend_from_slice(OK_TRAILERS);
    }
}

const STATUS_200: u8 = 8;
const EMPTY_MESSAGE: [u8; 5] = [0; 5];
/// Index 8 of the static table, and `content-type` (31) spelled out.
const ACCEPT: &[u8] = b"\x88\x0f\x10\x10application/grpc";
const OK_TRAILERS: &[u8] = b"\x00\x0bgrpc-status\x010";

fn summarise(fields: &[hpack::Field]) -> Head {
    let value = |wanted: &str| {
        let (_, value) = fields.iter().find(|(name, _)| name == wanted.as_bytes())?;
        std::str::from_utf8(value).ok()
    };
    Head::of(
        value(":path").unwrap_or_default(),
        value("content-type").unwrap_or_default(),
        value("grpc-encoding"),
        value("content-encoding"),
    )
}
