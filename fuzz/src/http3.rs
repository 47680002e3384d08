//! HTTP/3, any bytes on any streams: the same requests, resets and closing code however they are
//! cut; and whatever a client does in between, nothing stays reserved and the output has a bound.

use std::collections::BTreeMap;

use forebay_net::http3::{Code, Http3};

use crate::porch::{Cut, Porch, Told, answer, sizes};
use crate::streams::{DATA, HEADERS, Lines, REQUEST, SETTINGS, frame};

/// Requests' streams that a plan may use; those of one direction are as many.
const STREAMS: u64 = 4;
const ANSWER_BYTES_MAX: usize = 64;
const STREAMS_MAX: usize = 100_000;

/// What a client does.
#[derive(Clone, Copy)]
enum Step<'a> {
    Bytes { stream: u64, bytes: &'a [u8], ends: bool },
    Reset(u64),
    Stop(u64),
    Answer,
    Writable(u64),
    Wait(u8),
    Drain,
}

/// # Panics
/// If an input breaks what this target holds.
pub fn check(input: &[u8]) {
    let Some((cut, rest)) = sizes(input, 7) else { return };
    let steps = plan(rest);
    let whole = converse(&steps, Cut::Whole);
    for cut in [Cut::Sizes(cut), Cut::Bytewise] {
        assert_eq!(converse(&steps, cut), whole, "{cut:?}");
    }
    survives(&steps, cut);
}

/// Each step is behind a byte that says its kind and stream, and bytes behind their length.
fn plan(input: &[u8]) -> Vec<Step<'_>> {
    let mut steps = Vec::new();
    let mut rest = input;
    while let [first, behind @ ..] = rest {
        rest = behind;
        let request = u64::from(first >> 4) % STREAMS * 4;
        let stream = request | if first & 8 == 8 { 2 } else { 0 };
        steps.push(match first & 7 {
            0..=2 => {
                let [length, behind @ ..] = rest else { break };
                let (bytes, behind) = behind.split_at(behind.len().min(usize::from(*length)));
                rest = behind;
                Step::Bytes { stream, bytes, ends: first & 7 == 2 }
            }
            3 => Step::Reset(stream),
            4 => Step::Stop(request),
            5 => Step::Answer,
            6 => Step::Writable(request),
            _ if first & 8 == 8 => Step::Drain,
            _ => Step::Wait(first >> 4),
        });
    }
    steps
}

#[derive(Debug, PartialEq)]
struct Outcome {
    requests: Vec<Told>,
    closed: Option<Code>,
    resets: BTreeMap<u64, Code>,
    stops: BTreeMap<u64, Code>,
    written: BTreeMap<u64, Vec<u8>>,
}

/// A connection, and which streams its client has opened or ended.
struct Line {
    http3: Http3,
    lines: Lines,
    porch: Porch,
    opened: u64,
    ended: Vec<u64>,
}

impl Line {
    fn new(porch: Porch) -> Line {
        let mut lines = Lines::default();
        let http3 = Http3::new(&porch.limits, 0, &mut lines);
        Line { http3, lines, porch, opened: 0, ended: Vec::new() }
    }

    /// As a transport would: streams come in their order, and nothing behind their end.
    fn feed(&mut self, stream: u64, bytes: &[u8], ends: bool) {
        let Line { http3, lines, porch, .. } = self;
        while stream & 2 == 0 && self.opened <= stream {
            http3.handle_opened(self.opened, &mut porch.turn(), lines);
            self.opened += 4;
        }
        if !self.ended.contains(&stream) && !lines.stops.contains_key(&stream) {
            http3.handle_bytes(stream, bytes, ends, &mut porch.turn(), lines);
        }
    }

    fn end(&mut self, stream: u64) {
        self.ended.push(stream);
    }

    fn lose(mut self) {
        self.http3.handle_lost(&mut self.porch.turn());
        for request in std::mem::take(&mut self.porch.requests) {
            self.porch.settle(&request);
        }
        assert_eq!(self.porch.books.reserved, 0, "what was reserved is given back");
        assert_eq!(self.http3.in_flight(), 0, "a connection that is gone waits for nothing");
    }
}

/// Feeds the bytes alone to a connection whose requests are answered when all has come.
fn converse(steps: &[Step<'_>], cut: Cut<'_>) -> Outcome {
    let mut line = Line::new(Porch::strict(usize::MAX, STREAMS_MAX));
    let mut bytes_sent = 0;
    for step in steps {
        let Step::Bytes { stream, bytes, ends } = *step else { continue };
        bytes_sent += bytes.len() + 8;
        cut.each(bytes, |piece| line.feed(stream, piece, false));
        if ends {
            line.feed(stream, &[], true);
            line.end(stream);
        }
    }
    let requests = std::mem::take(&mut line.porch.requests);
    for request in &requests {
        line.porch.settle(request);
        let Line { http3, lines, porch, .. } = &mut line;
        let answer = answer(http::StatusCode::OK);
        http3.handle_answer(request.id.stream, answer, &mut porch.turn(), lines);
    }
    let output: usize = line.lines.written.values().map(Vec::len).sum();
    assert!(output <= ANSWER_BYTES_MAX * (1 + bytes_sent), "{output} for {bytes_sent}");
    let outcome = Outcome {
        requests: requests.into_iter().map(Told::from).collect(),
        closed: line.lines.closed,
        resets: line.lines.resets.clone(),
        stops: line.lines.stops.clone(),
        written: line.lines.written.clone(),
    };
    line.lose();
    outcome
}

/// Everything that a client may do, a small budget, little room, and time that passes.
fn survives(steps: &[Step<'_>], cut: &[u8]) {
    let mut line = Line::new(Porch::strict(2_000, 3));
    line.lines.room = 400;
    for step in steps {
        match *step {
            Step::Bytes { stream, bytes, ends } => {
                Cut::Sizes(cut).each(bytes, |piece| line.feed(stream, piece, false));
                if ends {
                    line.feed(stream, &[], true);
                    line.end(stream);
                }
            }
            Step::Wait(times) => {
                line.porch.now += 200 * u64::from(times);
                let Line { http3, lines, porch, .. } = &mut line;
                if http3.deadline(&porch.limits).is_some_and(|due| due <= porch.now) {
                    http3.handle_timeout(&mut porch.turn(), lines);
                }
            }
            Step::Answer => {
                for request in std::mem::take(&mut line.porch.requests) {
                    line.porch.settle(&request);
                    let Line { http3, lines, porch, .. } = &mut line;
                    let answer = answer(http::StatusCode::OK);
                    http3.handle_answer(request.id.stream, answer, &mut porch.turn(), lines);
                }
            }
            Step::Reset(stream) | Step::Stop(stream) | Step::Writable(stream) => {
                // None of a stream that nobody opened.
                line.feed(stream, &[], false);
                let Line { http3, lines, porch, ended, .. } = &mut line;
                match step {
                    Step::Reset(_) if !ended.contains(&stream) => {
                        ended.push(stream);
                        http3.handle_reset(stream, &mut porch.turn(), lines);
                    }
                    Step::Stop(_) => http3.handle_stopped(stream, &mut porch.turn(), lines),
                    Step::Writable(_) => {
                        lines.room = lines.room.saturating_add(100);
                        http3.handle_writable(stream, &mut porch.turn(), lines);
                    }
                    _ => {}
                }
            }
            Step::Drain => {
                let Line { http3, lines, porch, .. } = &mut line;
                http3.drain(&mut porch.turn(), lines);
            }
        }
        assert!(line.http3.in_flight() <= 3, "as many as there may be");
    }
    line.lose();
}

/// Plans to begin with, each behind its cut.
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let step = |first: u8, bytes: &[u8]| [&[first, bytes.len() as u8], bytes].concat();
    let control = step(0x08, &[&[0][..], &frame(SETTINGS, &[0x21, 1])].concat());
    let request = frame(HEADERS, REQUEST);
    let whole = [&request[..], &frame(DATA, b"body"), &frame(0x21, b"?")].concat();
    let plans: [(&str, Vec<Vec<u8>>); 5] = [
        ("usual", vec![control.clone(), step(2, &whole), vec![5]]),
        ("pieces", vec![control.clone(), step(0x10, &whole[..20]), step(0x12, &whole[20..])]),
        ("given-up", vec![control.clone(), step(0x20, &request), vec![0x23], step(2, &whole)]),
        ("wrong", vec![step(0x08, b"\0\0\x01a"), step(0x18, b"\x02\x20"), vec![0x1b, 0xf7]]),
        ("leaves", vec![control, step(0, &whole), vec![0x0f, 0x37, 5, 6, 0x04]]),
    ];
    let plan = |(name, steps): (&'static str, Vec<Vec<u8>>)| {
        (name, [&[2, 3, 20][..], &steps.concat()].concat())
    };
    plans.into_iter().map(plan).collect()
}
