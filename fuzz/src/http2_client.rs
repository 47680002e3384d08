//! What a server may send to our client: any frames in any order and pieces, to calls that begin,
//! are called off and wait. The same ends however the bytes are cut, each call ends once, and what
//! is kept and sent back is bounded.

use std::collections::HashSet;
use std::rc::Rc;

use bytes::Bytes;
use forebay_net::http2::client::{Client, End, Event, Keepalive, Output, RequestHead, Settings};
use http::HeaderMap;

use crate::porch::{Cut, sizes};

const HEAD_BYTES: usize = 9;
const ANSWER_BYTES_MAX: usize = 1_000;
/// As many fields of an answer are read here, and as many bytes of them as HTTP/2 counts.
const HEADER_BYTES_MAX: usize = 64 << 10;
const CALLS: usize = 5;
/// Of a request that meets no window.
const MESSAGE_BYTES: usize = 200;
/// No frame that costs us an answer is shorter, in bytes of answer for one of input.
const OUTPUT_FACTOR: usize = 8;
const OUTPUT_BYTES_BEGINNING: usize = 512;
/// Nothing that a call does costs more than its head, its message and its end.
const OUTPUT_BYTES_CALL: usize = 1_000;

/// # Panics
/// If an input breaks what this target holds.
pub fn check(input: &[u8]) {
    let Some((terms, input)) = input.split_first() else { return };
    let Some((cut, rest)) = sizes(input, 7) else { return };
    let bytes = if terms & 1 == 1 { [SETTINGS, rest].concat() } else { frames(rest) };
    is_the_same_however_it_is_cut(&bytes, cut);
    survives(&bytes, cut, *terms);
}

const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";

/// Whole frames of what an input says: kind, flags, stream, how much of it is payload.
fn frames(mut plan: &[u8]) -> Vec<u8> {
    let mut bytes = SETTINGS.to_vec();
    while let Some(([kind, flags, stream, length], rest)) = plan.split_first_chunk::<4>() {
        let (payload, rest) = rest.split_at(usize::from(*length).min(rest.len()));
        plan = rest;
        let stream = u32::from(*stream) % 16;
        bytes.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
        bytes.extend_from_slice(&[*kind % 11, *flags]);
        bytes.extend_from_slice(&stream.to_be_bytes());
        bytes.extend_from_slice(payload);
    }
    bytes
}

/// All calls before the first byte, and nothing of ours in between.
fn is_the_same_however_it_is_cut(bytes: &[u8], cut: &[u8]) {
    let whole = converse(bytes, Cut::Whole);
    let has_gone = |end| matches!(end, Some(End::GoneAway(_)));
    for cut in [Cut::Sizes(cut), Cut::Bytewise] {
        let other = converse(bytes, cut);
        assert_eq!(other.told, whole.told, "{cut:?}");
        // Of a peer that has gone, what more came with its last word may be heard or not.
        if !has_gone(other.end) && !has_gone(whole.end) {
            assert_eq!(other.end, whole.end, "{cut:?}");
            assert!(other.sent == whole.sent, "{cut:?}: what is sent");
        }
    }
}

struct Outcome {
    /// How the calls ended, in words.
    told: Vec<String>,
    end: Option<End>,
    sent: Vec<u8>,
}

fn converse(bytes: &[u8], cut: Cut<'_>) -> Outcome {
    let mut caller = Caller::new();
    (0..CALLS).for_each(|_| caller.call());
    caller.send(usize::MAX);
    cut.each(bytes, |piece| caller.client.handle_input(piece, 0));
    caller.hear();
    let end = caller.client.end();
    caller.send(usize::MAX);
    caller.client.handle_eof();
    caller.hear();
    caller.check(bytes.len());
    Outcome { told: caller.told, end, sent: caller.sent }
}

/// Calls that come and go, time that passes, sends that are cut short, leaving in the middle.
fn survives(bytes: &[u8], cut: &[u8], terms: u8) {
    let mut caller = Caller::new();
    let cut = if cut.is_empty() { Cut::Sizes(&[11]) } else { Cut::Sizes(cut) };
    let (mut now, mut turn) = (0, 0_u32);
    cut.each(bytes, |piece| {
        turn += 1;
        if caller.open.len() < CALLS {
            caller.call();
        }
        if terms & 2 == 2 && turn.is_multiple_of(3) {
            caller.cancel();
        }
        if terms & 4 == 4 && turn == 5 {
            caller.client.leave();
        }
        if terms & 8 == 8 {
            now += 400;
        }
        if caller.client.deadline().is_some_and(|deadline| deadline <= now) {
            caller.client.handle_timeout(now);
        }
        if caller.client.wants_input() {
            caller.client.handle_input(piece, now);
        }
        caller.hear();
        caller.send(if terms & 16 == 16 { 50 } else { usize::MAX });
    });
    caller.client.handle_eof();
    caller.hear();
    caller.send(usize::MAX);
    caller.check(bytes.len());
}

/// A client, and the books of its calls.
struct Caller {
    client: Client,
    head: Rc<RequestHead>,
    calls: usize,
    open: HashSet<u32>,
    told: Vec<String>,
    sent: Vec<u8>,
}

impl Caller {
    fn new() -> Caller {
        let keepalive = Keepalive { every: 1_000, timeout: 3_000, when_idle: true };
        let settings = Settings {
            answer_bytes_max: ANSWER_BYTES_MAX,
            reads: |_| true,
            keepalive: Some(keepalive),
        };
        let uri = "http://a/b".parse().expect("a URI");
        Caller {
            client: Client::new(settings, 0),
            head: Rc::new(RequestHead::post(&uri, &HeaderMap::new())),
            calls: 0,
            open: HashSet::new(),
            told: Vec::new(),
            sent: Vec::new(),
        }
    }

    fn call(&mut self) {
        let message = vec![Bytes::from_static(&[7; MESSAGE_BYTES])];
        let may = self.client.can_open();
        let stream = self.client.open(&self.head, message);
        assert_eq!(stream.is_some(), may, "a call begins if it may");
        if let Some(stream) = stream {
            self.calls += 1;
            assert!(self.open.insert(stream), "a stream of its own");
        }
    }

    fn cancel(&mut self) {
        if let Some(stream) = self.open.iter().min().copied() {
            self.open.remove(&stream);
            self.client.cancel(stream);
        }
    }

    fn hear(&mut self) {
        while let Some(Event { stream, outcome }) = self.client.poll_event() {
            assert!(self.open.remove(&stream), "a call ends once");
            if let Ok(answer) = &outcome {
                assert!(answer.body.len() <= ANSWER_BYTES_MAX);
                for map in [Some(&answer.headers), answer.trailers.as_ref()].into_iter().flatten() {
                    let sizes = map.iter().map(|(name, value)| name.as_str().len() + value.len());
                    assert!(sizes.sum::<usize>() <= HEADER_BYTES_MAX);
                }
            }
            self.told.push(format!("{stream}: {outcome:?}"));
        }
        assert_eq!(self.client.in_flight(), self.open.len());
        assert!(self.client.end().is_none() || self.open.is_empty(), "nobody waits for nothing");
    }

    fn send(&mut self, bytes_max: usize) {
        let mut output = Output::new();
        self.client.poll_output(&mut output, bytes_max);
        while !output.is_empty() {
            let mut slices = [std::io::IoSlice::new(&[]); 8];
            let count = output.slices(&mut slices);
            let sent: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.to_vec()).collect();
            output.advance(sent.len());
            self.sent.extend_from_slice(&sent);
        }
    }

    /// Nobody is left waiting, and what was sent is whole frames, not many.
    fn check(&self, input_bytes: usize) {
        assert!(self.open.is_empty(), "every call has ended");
        let bytes_max = OUTPUT_BYTES_BEGINNING
            + OUTPUT_FACTOR * input_bytes
            + OUTPUT_BYTES_CALL * self.calls.max(1);
        assert!(self.sent.len() <= bytes_max, "{} bytes for {input_bytes}", self.sent.len());
        let mut rest = self.sent.strip_prefix(PREFACE).expect("the preface comes first");
        while let Some((head, behind)) = rest.split_first_chunk::<HEAD_BYTES>() {
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            assert!(matches!(head[3], 0 | 1 | 3 | 4 | 6..=9), "a frame of kind {}", head[3]);
            rest = behind.split_at_checked(length).expect("whole frames").1;
        }
        assert!(rest.is_empty(), "whole frames");
    }
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Plans and raw frames to begin with, each behind its terms and its cut.
pub fn seeds() -> [(&'static str, Vec<u8>); 4] {
    // A head of status 200, a message, trailers with an indexed field; then word that it goes.
    let answer = b"\x01\x04\x01\x01\x88\x00\x00\x01\x05\0\0\0\0\0\x01\x05\x01\x03\x0f\x0d\x00";
    let goes = b"\x07\0\0\x08\0\0\0\x03\0\0\0\0";
    let control = b"\x04\0\0\x06\0\x03\0\0\0\x02\x06\0\0\x08pingpong\x08\0\0\x04\0\0\x01\0\x03\0\x03\x04\0\0\0\x07";
    let raw = b"\0\0\x01\x01\x05\0\0\0\x01\x88\0\0\0\0\x01\0\0\0\x03";
    [
        ("answer", [&[0, 0][..], answer, goes].concat()),
        ("control", [&[30, 2, 9, 3][..], control, answer].concat()),
        ("goes", [&[4, 1, 7][..], goes, answer].concat()),
        ("raw", [&[1, 1, 5][..], raw].concat()),
    ]
}
