//! A client of HTTP/2: its frames made by hand, the server's held to the windows that it was given.

use std::collections::BTreeMap;

use forebay_net::ring::fake::Dice;

use crate::talk::{Got, Made, Oracle, Talk};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_BYTES_MAX: usize = 16_384;
const WINDOW_INITIAL: i64 = 65_535;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const HAS_PRIORITY: u8 = 0x20;
const REFUSED_STREAM: u32 = 7;

pub(crate) struct Http2 {
    output: Vec<u8>,
    input: Vec<u8>,
    /// Streams that wait for their answers, or for the rest of their bodies to be sent.
    streams: BTreeMap<u32, Stream>,
    next_stream: u32,
    at_once: usize,
    /// Resets some of its streams.
    is_fickle: bool,
    has_reset: bool,
    has_table_entry: bool,
    /// What we may send: on all streams, and on each at its start.
    out_window: i64,
    out_window_initial: i64,
    /// What the server may send.
    in_window: i64,
    in_window_initial: i64,
    said_go: bool,
}

struct Stream {
    id: u64,
    /// What is left of the body; `None` once its end is sent.
    rest: Option<Vec<u8>>,
    out_window: i64,
    in_window: i64,
    got: Got,
    is_answered: bool,
}

impl Http2 {
    pub(crate) fn new(dice: &mut Dice, is_fickle: bool) -> Http2 {
        let in_window_initial = match dice.below(3) {
            0 => dice.below(100) as i64,
            1 => WINDOW_INITIAL,
            _ => 1 << 20,
        };
        let mut settings = vec![0, 4];
        settings.extend((in_window_initial as u32).to_be_bytes());
        if dice.of_1000(300) {
            settings.extend([0, 1, 0, 0, 0, 0]);
        }
        let mut output = PREFACE.to_vec();
        put(&mut output, SETTINGS, 0, 0, &settings);
        Http2 {
            output,
            input: Vec::new(),
            streams: BTreeMap::new(),
            next_stream: 1,
            at_once: 1 + dice.below(12) as usize,
            is_fickle,
            has_reset: false,
            has_table_entry: false,
            out_window: WINDOW_INITIAL,
            out_window_initial: WINDOW_INITIAL,
            in_window: WINDOW_INITIAL,
            in_window_initial,
            said_go: false,
        }
    }

    fn put_head(&mut self, stream: u32, made: &Made, dice: &mut Dice) {
        let mut block = b"\x83\x86\x01\x01a".to_vec();
        block.extend([0x04, made.path.len() as u8]);
        block.extend(made.path.bytes());
        for (name, value) in &made.headers {
            block.extend([0x00, name.len() as u8]);
            block.extend(name.bytes());
            block.push(value.len() as u8);
            block.extend(value.bytes());
        }
        if dice.of_1000(500) {
            let length = made.body.len().to_string();
            block.extend([0x0f, 0x0d, length.len() as u8]);
            block.extend(length.bytes());
        }
        if self.has_table_entry {
            block.push(0xbe);
        } else if dice.of_1000(500) {
            block.extend(b"\x40\x03x-a\x05value");
            self.has_table_entry = true;
        }
        let ends = if made.body.is_empty() { END_STREAM } else { 0 };
        let pieces = if dice.of_1000(200) { 1 + dice.below(4) } else { 1 };
        let mut rest = &block[..];
        for nth in 0..pieces {
            let last = nth + 1 == pieces;
            let bytes = if last { rest.len() } else { dice.below(rest.len() as u64 + 1) as usize };
            let (piece, behind) = rest.split_at(bytes);
            rest = behind;
            let end = if last { END_HEADERS } else { 0 };
            match nth {
                0 => self.put_first(stream, ends | end, piece, dice),
                _ => put(&mut self.output, CONTINUATION, end, stream, piece),
            }
        }
    }

    /// A HEADERS frame, in one of its dresses.
    fn put_first(&mut self, stream: u32, flags: u8, piece: &[u8], dice: &mut Dice) {
        let (mut flags, mut payload) = (flags, Vec::new());
        let padding = if dice.of_1000(200) { dice.below(60) as u8 } else { 0 };
        if padding > 0 {
            flags |= PADDED;
            payload.push(padding);
        }
        if dice.of_1000(200) {
            flags |= HAS_PRIORITY;
            payload.extend([0, 0, 0, 0, 15]);
        }
        payload.extend_from_slice(piece);
        payload.extend(std::iter::repeat_n(0, usize::from(padding)));
        put(&mut self.output, HEADERS, flags, stream, &payload);
    }

    /// A DATA frame on any stream that has something to say and room for it.
    fn put_data(&mut self, dice: &mut Dice) {
        let window = self.out_window;
        let open = self.streams.iter_mut().filter(|(_, stream)| stream.rest.is_some());
        let mut open: Vec<_> =
            open.filter(|(_, stream)| stream.out_window.min(window) > 64).collect();
        if open.is_empty() {
            return;
        }
        let place = dice.below(open.len() as u64) as usize;
        let (number, stream) = &mut open[place];
        let padding = if dice.of_1000(150) { dice.below(60) as u8 } else { 0 };
        let room = stream.out_window.min(window).min(FRAME_BYTES_MAX as i64) as usize - 61;
        let rest = stream.rest.take().expect("those are chosen");
        let bytes = if dice.of_1000(500) { room } else { 1 + dice.below(room as u64) as usize };
        let (piece, behind) = rest.split_at(bytes.min(rest.len()));
        let mut flags = if behind.is_empty() { END_STREAM } else { 0 };
        let mut payload = piece.to_vec();
        if padding > 0 {
            flags |= PADDED;
            payload.insert(0, padding);
            payload.extend(std::iter::repeat_n(0, usize::from(padding)));
        }
        stream.rest = (!behind.is_empty()).then(|| behind.to_vec());
        stream.out_window -= payload.len() as i64;
        self.out_window -= payload.len() as i64;
        let (number, is_over) = (**number, stream.rest.is_none() && stream.is_answered);
        if is_over {
            self.streams.remove(&number);
        }
        put(&mut self.output, DATA, flags, number, &payload);
    }

    /// Gives the server room where it has little.
    fn give_room(&mut self, dice: &mut Dice) {
        if self.in_window < WINDOW_INITIAL / 2 {
            let more = 1 + dice.below(100_000) as u32;
            self.in_window += i64::from(more);
            put(&mut self.output, WINDOW_UPDATE, 0, 0, &more.to_be_bytes());
        }
        for (number, stream) in &mut self.streams {
            if stream.in_window <= 100 {
                let more = 1 + dice.below(20_000) as u32;
                stream.in_window += i64::from(more);
                put(&mut self.output, WINDOW_UPDATE, 0, *number, &more.to_be_bytes());
            }
        }
    }

    fn reset_one(&mut self, dice: &mut Dice) {
        let place = dice.below(self.streams.len().max(1) as u64) as usize;
        let Some(number) = self.streams.keys().nth(place).copied() else { return };
        self.streams.remove(&number);
        self.has_reset = true;
        put(&mut self.output, RST_STREAM, 0, number, &8u32.to_be_bytes());
    }

    fn take_frame(&mut self, frame: &Frame, oracle: &mut dyn Oracle) {
        match frame.kind {
            HEADERS => {
                assert!(frame.flags & END_HEADERS != 0, "our blocks are short");
                if let Some(stream) = self.streams.get_mut(&frame.stream) {
                    take_fields(&frame.payload, &mut stream.got);
                }
                self.end_if_said(frame, oracle);
            }
            DATA => {
                let bytes = frame.payload.len() as i64;
                self.in_window -= bytes;
                assert!(self.in_window >= 0, "more than the connection's window");
                if let Some(stream) = self.streams.get_mut(&frame.stream) {
                    stream.in_window -= bytes;
                    assert!(stream.in_window >= 0, "more than the stream's window");
                    stream.got.body.extend_from_slice(&frame.payload);
                }
                self.end_if_said(frame, oracle);
            }
            SETTINGS if frame.flags & ACK == 0 => {
                for [i, d, value @ ..] in frame.payload.as_chunks::<6>().0 {
                    if (*i, *d) == (0, 4) {
                        let window = i64::from(u32::from_be_bytes(*value));
                        let more = window - self.out_window_initial;
                        self.streams.values_mut().for_each(|stream| stream.out_window += more);
                        self.out_window_initial = window;
                    }
                }
                put(&mut self.output, SETTINGS, ACK, 0, &[]);
            }
            PING if frame.flags & ACK == 0 => put(&mut self.output, PING, ACK, 0, &frame.payload),
            WINDOW_UPDATE => {
                let more = i64::from(number(&frame.payload));
                match self.streams.get_mut(&frame.stream) {
                    Some(stream) => stream.out_window += more,
                    None if frame.stream == 0 => self.out_window += more,
                    None => {}
                }
            }
            GOAWAY => {
                assert_eq!(number(&frame.payload[4..]), 0, "{}", frame.payload.escape_ascii());
                self.said_go = true;
            }
            RST_STREAM => {
                let code = number(&frame.payload);
                if let Some(stream) = self.streams.remove(&frame.stream) {
                    let is_refused = self.is_fickle && code == REFUSED_STREAM;
                    assert!(stream.is_answered || is_refused, "a reset with {code}");
                }
            }
            _ => {}
        }
    }

    fn end_if_said(&mut self, frame: &Frame, oracle: &mut dyn Oracle) {
        let Some(stream) = self.streams.get_mut(&frame.stream) else { return };
        if frame.flags & END_STREAM == 0 {
            return;
        }
        oracle.answer(stream.id, &stream.got);
        stream.is_answered = true;
        if stream.rest.is_none() {
            self.streams.remove(&frame.stream);
        } else if stream.id.is_multiple_of(2) {
            // Who has its answer early need not send the rest; or may all the same.
            self.streams.remove(&frame.stream);
            put(&mut self.output, RST_STREAM, 0, frame.stream, &8u32.to_be_bytes());
        }
    }
}

impl Talk for Http2 {
    fn wants_request(&self) -> bool {
        self.streams.len() < self.at_once && !self.said_go
    }

    fn say(&mut self, made: Made, dice: &mut Dice) {
        let number = self.next_stream;
        self.next_stream += 2;
        self.put_head(number, &made, dice);
        let stream = Stream {
            id: made.id,
            rest: (!made.body.is_empty()).then_some(made.body),
            out_window: self.out_window_initial,
            in_window: self.in_window_initial,
            got: Got::default(),
            is_answered: false,
        };
        self.streams.insert(number, stream);
    }

    fn next_output(&mut self, dice: &mut Dice) -> Vec<u8> {
        if self.is_fickle && dice.of_1000(30) {
            self.reset_one(dice);
        }
        self.give_room(dice);
        self.put_data(dice);
        std::mem::take(&mut self.output)
    }

    fn hear(&mut self, bytes: &[u8], oracle: &mut dyn Oracle) {
        self.input.extend_from_slice(bytes);
        while let Some(frame) = cut_frame(&mut self.input) {
            self.take_frame(&frame, oracle);
        }
    }

    fn has_given_up_some(&self) -> bool {
        self.has_reset
    }

    fn is_all_said(&self) -> bool {
        self.output.is_empty() && self.streams.values().all(|stream| stream.rest.is_none())
    }

    fn unanswered(&self) -> Vec<u64> {
        let waiting = self.streams.values().filter(|stream| !stream.is_answered);
        waiting.map(|stream| stream.id).collect()
    }

    fn was_told_to_go(&self) -> bool {
        self.said_go
    }
}

struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

fn cut_frame(input: &mut Vec<u8>) -> Option<Frame> {
    let head: [u8; 9] = input.get(..9)?.try_into().ok()?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
    let payload = input.get(9..9 + length)?.to_vec();
    input.drain(..9 + length);
    Some(Frame { kind: head[3], flags: head[4], stream: number(&head[5..]), payload })
}

fn put(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    out.extend(&(payload.len() as u32).to_be_bytes()[1..]);
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend_from_slice(payload);
}

fn number(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes[..4].try_into().expect("four bytes"))
}

/// Reads a header block of an encoder that uses neither a table nor Huffman's code.
fn take_fields(block: &[u8], got: &mut Got) {
    let mut rest = block;
    while let Some((first, behind)) = rest.split_first() {
        rest = behind;
        if *first >= 0x80 {
            let statuses = [200, 204, 206, 304, 400, 404, 500];
            got.status = statuses[usize::from(first & 0x7f) - 8];
            continue;
        }
        if *first >= 0x20 {
            // The size of a table that is not used.
            continue;
        }
        let name = match first & 15 {
            0 => text(take_text(&mut rest)),
            8 => ":status".to_owned(),
            15 => {
                let index = 15 + rest[0];
                rest = &rest[1..];
                format!("static {index}")
            }
            index => format!("static {index}"),
        };
        let value = text(take_text(&mut rest));
        match name == ":status" {
            true => got.status = value.parse().expect("a status"),
            false => got.fields.push((name, value)),
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("a field is text")
}

/// A text of any length: an integer of seven bits and more, then the bytes.
fn take_text<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    assert!(rest[0] < 0x80, "without Huffman's code");
    let mut length = usize::from(rest[0]);
    let mut behind = &rest[1..];
    if length == 127 {
        let mut shift = 0;
        loop {
            let byte = behind[0];
            behind = &behind[1..];
            length += usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                break;
            }
        }
    }
    let (text, behind) = behind.split_at(length);
    *rest = behind;
    text
}
