//! Bytes as a plan of frames: mostly what a client may send, some of it wrong.
//!
//! Each frame says whether two servers may differ about it. Whoever changes the rules here says in
//! a line why the h2 crate is right to see it otherwise.

use std::collections::BTreeMap;

pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub(super) const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";
const SETTINGS_ACK: &[u8] = b"\0\0\0\x04\x01\0\0\0\0";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS_KIND: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const HAS_PRIORITY: u8 = 0x20;

#[derive(Debug)]
pub(super) struct Frame {
    pub(super) bytes: Vec<u8>,
    /// From here on the connections may fare differently.
    pub(super) leaves_a_choice: bool,
    /// Its header block has not ended: what is wrong with it may be seen now or then.
    pub(super) is_unfinished: bool,
    /// This stream may fare differently.
    pub(super) excuses_stream: Option<u32>,
}

/// Fields as they are written: first what makes a request, then what may go with it.
const BEGINNINGS: [&[u8]; 8] = [
    b"\x83\x86\x84",
    b"\x82\x86\x04\x02/a",
    b"\x83\x87\x44\x04/b?c",
    b"\x83\x86\x44\x85\x62\x53\x9e\x4f\xff",
    b"\x86\x04\x03/no\x83\x41\x01h",
    b"\x42\x04HEAD\x87\x05\x06/small",
    b"\x42\x03PUT\x86\x14\x01*",
    NO_BEGINNING,
];
/// A request can't be without one.
const NO_BEGINNING: &[u8] = b"";
const FIELDS: [&[u8]; 24] = [
    b"\x66\x01h",
    b"\x40\x01a\x01b",
    b"\x40\x02te\x08trailers",
    b"\x00\x01a\x03b c",
    b"\x10\x01s\x00",
    b"\xbe",
    b"\xbf",
    b"\xc0",
    b"\x5f\x10application/grpc",
    b"\x40\x82\x1c\xff\x01x",
    b"\x0f\x11\x04gzip",
    b"\x60\x03a=b",
    b"\x60\x03c=d",
    b"\x00\x03a\xc3\x01x",
    b"\x0f\x0d\x013",
    b"\x0f\x0d\x010",
    // From here on: what makes a request malformed.
    b"\x40\x02te\x04gzip",
    b"\x40\x0aconnection\x05close",
    b"\x40\x07:status\x03200",
    b"\x83",
    b"\x84",
    b"\x41\x01i",
    b"\x0f\x0d\x01x",
    b"\x40\x07upgrade\x01x",
];
const CONTENT_LENGTH: &[u8] = b"\x0f\x0d";
/// Its value is longer than what may follow it in its piece: it takes in the next ones, and then
/// its name, which is malformed, ends the crate's connection and our stream.
const RUNS_ON: usize = 13;
const MALFORMED_FROM: usize = 16;
/// CONTINUATIONs of a block that the crate takes before it has enough; we take more.
const CRATE_PIECES_MAX: usize = 5;
/// What says something about the table, at the beginning of a block.
const SIZES: [&[u8]; 5] = [b"", b"\x20", b"\x3f\x45", b"\x20\x3f\xe1\x1f", b"\x3f\xe2\x1f"];

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Ended,
    Gone,
}

struct Planner<'a> {
    rest: &'a [u8],
    streams: BTreeMap<u32, State>,
    /// The stream of a header block that has not ended.
    block: Option<u32>,
    /// CONTINUATIONs of it so far.
    pieces: usize,
    /// A malformed field is in the table.
    table_is_odd: bool,
    table_has_pseudo: bool,
    /// One that is malformed was taken from there.
    ends_connection: bool,
    frames: Vec<Frame>,
}

pub(super) fn plan(input: &[u8]) -> Vec<Frame> {
    let mut planner = Planner {
        rest: input,
        streams: BTreeMap::new(),
        block: None,
        pieces: 0,
        table_is_odd: false,
        table_has_pseudo: false,
        ends_connection: false,
        frames: Vec::new(),
    };
    planner.push([PREFACE, SETTINGS].concat(), false, None);
    planner.push(SETTINGS_ACK.to_vec(), false, None);
    while let Some(kind) = planner.draw() {
        planner.frame(kind);
    }
    planner.frames
}

impl Planner<'_> {
    /// The next byte of the plan, 0 behind its end.
    fn next(&mut self) -> u8 {
        self.draw().unwrap_or(0)
    }

    fn draw(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::from(self.next()) % from.len()]
    }

    fn push(&mut self, bytes: Vec<u8>, leaves_a_choice: bool, excuses_stream: Option<u32>) {
        let is_unfinished = matches!(bytes[..], [_, _, _, HEADERS | CONTINUATION, flags, ..]
            if flags & END_HEADERS == 0);
        let leaves_a_choice = leaves_a_choice || self.ends_connection;
        self.frames.push(Frame { bytes, leaves_a_choice, is_unfinished, excuses_stream });
    }

    fn frame(&mut self, kind: u8) {
        match kind % 16 {
            0..=4 => self.headers(),
            5..=8 => self.data(),
            9 => self.reset(),
            10 => self.window_update(),
            11 => self.settings(),
            12 => self.continuation(),
            13 => self.ping_or_unknown(),
            14 => self.priority(),
            _ => self.anything(),
        }
    }

    /// The next stream, or with the highest bit one of the latest.
    fn stream(&mut self) -> u32 {
        let byte = self.next();
        let latest = self.streams.keys().next_back().copied();
        match (byte & 0x80, latest) {
            (0, latest) => latest.map_or(1, |latest| latest + 2),
            (_, None) => u32::from(byte & 3),
            (_, Some(latest)) => latest.saturating_sub(2 * u32::from(byte & 3)),
        }
    }

    /// One that takes frames, if there is any.
    fn open_stream(&mut self) -> u32 {
        let byte = usize::from(self.next());
        let open: Vec<u32> = self
            .streams
            .iter()
            .filter(|(_, state)| **state == State::Open)
            .map(|(id, _)| *id)
            .collect();
        match open.is_empty() || byte & 0xf0 == 0xf0 {
            true => self.stream(),
            false => open[byte % open.len()],
        }
    }

    fn headers(&mut self) {
        let (id, shape) = (self.stream(), self.next());
        let state = self.streams.get(&id).copied();
        let ends = shape & 1 == 1;
        let has_ended = shape & 6 != 6;
        let (mut block, is_malformed) = self.block_of(state.is_some());
        let mut flags = if ends { END_STREAM } else { 0 };
        flags |= if has_ended { END_HEADERS } else { 0 };
        let (has_priority, depends_on) = (shape & 0x18 == 0x18, u32::from(shape >> 5));
        if has_priority {
            flags |= HAS_PRIORITY;
            block.splice(..0, [&depends_on.to_be_bytes()[..], &[7]].concat());
        }
        if shape & 0x60 == 0x60 {
            flags |= PADDED;
            block.insert(0, 3);
            block.extend([0; 3]);
        }
        // Behind a stream's end, or for one that was skipped: we end less for it than the crate
        // does, or more. A fault in a block's first piece makes the crate forget that more of the
        // block is to come, and a priority that depends on itself that the block is for the table.
        let is_late = matches!(state, Some(State::Ended | State::Gone)) || id == 0;
        let interrupts = self.block.is_some();
        let is_skipped =
            state.is_none() && self.streams.keys().next_back().is_some_and(|last| id < *last);
        // A request without a method, and without all of its kind, ends the crate's connection; RFC
        // 9113, 8.1.1, has it end the stream.
        let is_bare = state.is_none()
            && !BEGINNINGS.iter().any(|b| *b != NO_BEGINNING && contains(&block, b));
        let is_circular = has_priority && depends_on == id;
        // What is wrong with the fields may be looked at before the stream is.
        let is_forgotten = (is_malformed && (!has_ended || id % 2 == 0)) || is_circular;
        let leaves_a_choice = is_late || is_skipped || is_bare || is_forgotten;
        let bytes = frame(HEADERS, flags, id, &block);
        self.push(bytes, leaves_a_choice, is_malformed.then_some(id));
        if interrupts || id % 2 == 0 {
            return;
        }
        self.streams.insert(id, if ends { State::Ended } else { State::Open });
        self.block = (!has_ended).then_some(id);
        self.pieces = 0;
    }

    /// A block of fields, and whether two servers may differ about what it means.
    fn block_of(&mut self, is_trailers: bool) -> (Vec<u8>, bool) {
        let shape = self.next();
        let mut block = Vec::new();
        if shape & 0xc0 == 0xc0 {
            block.extend_from_slice(self.pick(&SIZES));
        }
        let mut may_differ = false;
        if !is_trailers || shape & 0x38 == 0x38 {
            let beginning = self.pick(&BEGINNINGS);
            self.table_has_pseudo |= beginning.iter().any(|byte| byte & 0xf8 == 0x40);
            block.extend_from_slice(beginning);
            may_differ |= is_trailers;
        }
        let mut lengths = 0;
        for _ in 0..shape & 7 {
            let nth = usize::from(self.next()) % FIELDS.len();
            let is_index = FIELDS[nth][0] & 0x80 != 0;
            // The crate takes the first of two lengths, and looks at none in trailers.
            lengths += usize::from(FIELDS[nth].starts_with(CONTENT_LENGTH));
            may_differ |= lengths > usize::from(!is_trailers);
            // A pseudo-header from the table comes twice, or too late, or in trailers: the crate
            // takes the last.
            let is_malformed = nth >= MALFORMED_FROM || nth == RUNS_ON;
            may_differ |= is_malformed || (is_index && self.table_has_pseudo);
            // What is malformed ends more in it when it comes from the table.
            self.ends_connection |= is_index && self.table_is_odd;
            self.table_is_odd |= nth >= MALFORMED_FROM && FIELDS[nth][0] & 0xc0 == 0x40;
            block.extend_from_slice(FIELDS[nth]);
        }
        (block, may_differ)
    }

    fn data(&mut self) {
        let (id, shape) = (self.open_stream(), self.next());
        let length = usize::from(self.next()) * if shape & 0xc0 == 0xc0 { 8 } else { 1 };
        let ends = shape & 1 == 1;
        let mut payload: Vec<u8> = (0..length).map(|nth| (nth * 7) as u8).collect();
        let mut flags = if ends { END_STREAM } else { 0 };
        if shape & 6 == 6 {
            flags |= PADDED;
            let padding = shape >> 3;
            payload.insert(0, padding);
            payload.extend(vec![0; usize::from(padding)]);
        }
        let state = self.streams.get(&id).copied();
        // Behind a stream's end the crate ends the connection, and we the stream.
        self.push(frame(DATA, flags, id, &payload), state == Some(State::Ended), None);
        if ends && state == Some(State::Open) {
            self.streams.insert(id, State::Ended);
        }
    }

    fn reset(&mut self) {
        let (id, code) = (self.open_stream(), self.next());
        self.push(frame(RST_STREAM, 0, id, &u32::from(code).to_be_bytes()), false, None);
        if let Some(state) = self.streams.get_mut(&id) {
            *state = State::Gone;
        }
    }

    fn window_update(&mut self) {
        let id = match self.next() & 1 {
            0 => 0,
            _ => self.open_stream(),
        };
        let increment: u32 = self.pick(&[1, 70_000, 0x7fff_ffff, 0x8000_0001, 0]);
        // Of nothing, for a stream: the crate ends the connection, and we the stream, as RFC 9113,
        // 6.9 has it.
        let leaves_a_choice = increment == 0 && id != 0;
        let bytes = frame(WINDOW_UPDATE, 0, id, &increment.to_be_bytes());
        self.push(bytes, leaves_a_choice, None);
    }

    fn settings(&mut self) {
        let mut payload = Vec::new();
        for _ in 0..self.next() & 3 {
            let id: u16 = self.pick(&[1, 2, 3, 4, 4, 5, 6, 99]);
            let value: u32 = self.pick(&[0, 1, 2, 100, 4_096, 16_384, 65_535, 0x8000_0000]);
            payload.extend_from_slice(&id.to_be_bytes());
            payload.extend_from_slice(&value.to_be_bytes());
        }
        self.push(frame(SETTINGS_KIND, 0, 0, &payload), false, None);
    }

    fn continuation(&mut self) {
        let shape = self.next();
        let (block, may_differ) = self.block_of(true);
        let id = self.block.unwrap_or(1);
        let flags = if shape & 3 == 3 { 0 } else { END_HEADERS };
        let is_forgotten = may_differ && flags != END_HEADERS;
        // To the crate each piece may begin with a resize.
        let resizes = block.first().is_some_and(|first| first & 0xe0 == 0x20);
        self.pieces += 1;
        let is_one_too_many = self.pieces > CRATE_PIECES_MAX;
        let leaves_a_choice = is_forgotten || resizes || is_one_too_many;
        let bytes = frame(CONTINUATION, flags, id, &block);
        self.push(bytes, leaves_a_choice, may_differ.then_some(id));
        if flags == END_HEADERS {
            self.block = None;
        }
    }

    fn ping_or_unknown(&mut self) {
        match self.next() {
            byte @ 0..128 => self.push(frame(PING, byte & 1, 0, b"12345678"), false, None),
            kind => {
                let id = self.stream();
                self.push(frame(kind, 0xff, id, b"whatever"), false, None);
            }
        }
    }

    fn priority(&mut self) {
        let id = self.open_stream();
        let depends_on = u32::from(self.next());
        let payload = [&depends_on.to_be_bytes()[..], &[16]].concat();
        // One that depends on itself resets a stream, which may not even be there.
        let is_circular = depends_on == id;
        self.push(frame(PRIORITY, 0, id, &payload), is_circular, None);
    }

    /// A frame of any kind with any flags, of any length: what is wrong with it is seen in
    /// different orders.
    fn anything(&mut self) {
        let kind: u8 =
            self.pick(&[DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS_KIND, 5, PING, GOAWAY, 8, 9]);
        let (flags, id, length) = (self.next(), self.stream(), usize::from(self.next() % 32));
        let (payload, rest) = self.rest.split_at(length.min(self.rest.len()));
        self.rest = rest;
        self.push(frame(kind, flags, id, payload), true, None);
    }
}

fn contains(block: &[u8], fields: &[u8]) -> bool {
    block.windows(fields.len()).any(|window| window == fields)
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = (payload.len() as u32).to_be_bytes();
    let mut frame = vec![a, b, c, kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// Plans to begin with.
pub(super) fn seeds() -> [(&'static str, &'static [u8]); 7] {
    [
        // Stream 1 without a body; stream 3 with one, in two pieces; and both once more.
        ("calls", b"\0\0\x01\x02\0\x08\0\0\0\0\0\x05\0\0\x09\x05\0\x01\x07\0\0\x01\x01\0\x05"),
        // A block in three pieces, with a resize and indices, then padded DATA.
        ("pieces", b"\0\0\x06\xc2\x02\x01\x01\x01\x0c\x03\x01\x05\x0c\0\x01\x06\x05\0\x1f\x04"),
        // A block in eight pieces that are empty but the first.
        (
            "many_pieces",
            b"\0\0\x06\0\0\x0c\x03\0\x0c\x03\0\x0c\x03\0\x0c\x03\0\x0c\x03\0\x0c\x03\0\
                           \x0c\0\0",
        ),
        // A field whose value goes on in the next pieces.
        (
            "runs_on",
            b"\0\0\x07\x05\0\0\0\x0d\x05\x01\x0c\x03\x04\x0a\x0a\0\0\x0c\x03\x06\x02\x08\
                       \x03\x08\x0a\0\x0c\0\x07\x03\x0c\x03",
        ),
        // Settings, windows, a ping, a priority and a reset around a request.
        (
            "around",
            b"\x0b\x02\x03\x04\x04\x06\0\0\0\0\0\x0a\0\x01\x0a\x01\0\x01\x0d\0\x0e\0\x05\
                     \x09\0\x08",
        ),
        // A content-length that is right, trailers, and one that is wrong.
        (
            "lengths",
            b"\0\0\0\x01\0\x0e\x05\0\x01\x03\0\0\0\x01\0\x0e\x05\0\x01\x04\0\0\0\0\0\0\x80\
                      \x01\x01\x01",
        ),
        ("wrong", b"\0\0\x01\x01\0\x10\x0f\x07\0\0\x08\0\0\0\0\0\0\0\0"),
    ]
}
