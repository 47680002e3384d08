//! HTTP/2, frames of any kind in any order and in any pieces: the same requests and the same bytes
//! back however they are cut, nothing kept at the end, and the h2 crate hears what we hear.

mod plan;
mod theirs;

use bytes::BytesMut;
use forebay_net::http2::Http2;
use forebay_net::request::{Core, Standing};
use http::StatusCode;

use self::plan::{Frame, PREFACE, SETTINGS, plan};
use self::theirs::Theirs;
use crate::porch::{Cut, Porch, Told, answer, lose, sizes};

const HEAD_BYTES: usize = 9;
/// No frame that costs us an answer is shorter, in bytes of answer for one of input.
const OUTPUT_FACTOR: usize = 8;
const OUTPUT_BYTES_BEGINNING: usize = 256;
/// More than any input has.
const STREAMS_MAX: usize = 100_000;

/// # Panics
/// If an input breaks what this target holds.
pub fn check(input: &[u8]) {
    let Some((terms, input)) = input.split_first() else { return };
    let Some((cut, rest)) = sizes(input, 7) else { return };
    let frames = plan(rest);
    let is_raw = terms & 1 == 1;
    let bytes = match is_raw {
        true => [PREFACE, SETTINGS, rest].concat(),
        false => frames.iter().flat_map(|frame| frame.bytes.clone()).collect(),
    };
    is_the_same_however_it_is_cut(&bytes, cut);
    survives(&bytes, cut, *terms);
    if !is_raw {
        agrees_with_the_crate(&frames);
    }
}

/// With room for all: how much of it a body takes at once depends on what of the body is there.
fn is_the_same_however_it_is_cut(bytes: &[u8], cut: &[u8]) {
    let whole = converse(bytes, Cut::Whole);
    for cut in [Cut::Sizes(cut), Cut::Bytewise] {
        let other = converse(bytes, cut);
        assert_eq!(other.requests, whole.requests, "{cut:?}");
        assert_eq!(other.standing, whole.standing, "{cut:?}");
        assert!(other.output == whole.output, "{cut:?}: the output");
    }
}

struct Outcome {
    requests: Vec<Told>,
    output: BytesMut,
    standing: Standing,
}

/// Feeds `bytes` to a connection whose requests are answered when all has come.
fn converse(bytes: &[u8], cut: Cut<'_>) -> Outcome {
    let mut porch = Porch::strict(usize::MAX, STREAMS_MAX);
    let mut core = Http2::new(&porch.limits, 0);
    let mut output = BytesMut::new();
    cut.each(bytes, |piece| {
        core.handle_input(piece, &mut porch.turn());
        output.extend_from_slice(&core.take_output());
    });
    let standing = core.standing();
    let requests = std::mem::take(&mut porch.requests);
    for request in &requests {
        porch.settle(request);
        core.handle_answer(request.id.stream, answer(StatusCode::OK), &mut porch.turn());
        output.extend_from_slice(&core.take_output());
    }
    check_output(&output, bytes.len());
    lose(&mut core, &mut porch);
    Outcome { requests: requests.into_iter().map(Told::from).collect(), output, standing }
}

/// Few streams, answers at once, time that passes, and leaving in the middle: whatever comes of it.
fn survives(bytes: &[u8], cut: &[u8], terms: u8) {
    let mut porch = Porch::strict(2_000, 4);
    let mut core = Http2::new(&porch.limits, 0);
    let (mut output, mut pieces) = (BytesMut::new(), 0u64);
    cut_evenly(cut).each(bytes, |piece| {
        pieces += 1;
        core.handle_input(piece, &mut porch.turn());
        assert!(core.in_flight() <= 4, "as many as there may be");
        for request in std::mem::take(&mut porch.requests) {
            porch.settle(&request);
            let of_odd = request.id.stream % 4 == 1;
            if of_odd || terms & 4 == 4 {
                core.handle_answer(request.id.stream, answer(StatusCode::OK), &mut porch.turn());
            }
        }
        output.extend_from_slice(&core.take_output());
        core.handle_sent(&mut porch.turn());
        if terms & 8 == 8 {
            porch.now += 400;
        }
        if core.deadline(&porch.limits).is_some_and(|deadline| deadline <= porch.now) {
            core.handle_timeout(&mut porch.turn());
        }
        if terms & 16 == 16 && pieces == 6 {
            core.drain(&mut porch.turn());
        }
    });
    if terms & 32 == 32 {
        core.handle_eof(&mut porch.turn());
    }
    output.extend_from_slice(&core.take_output());
    check_output(&output, bytes.len());
    lose(&mut core, &mut porch);
}

/// Some pieces at least.
fn cut_evenly(cut: &[u8]) -> Cut<'_> {
    if cut.is_empty() { Cut::Sizes(&[40]) } else { Cut::Sizes(cut) }
}

/// Whole frames of kinds that a server sends, and not many.
fn check_output(output: &[u8], input_bytes: usize) {
    let bytes_max = OUTPUT_BYTES_BEGINNING + OUTPUT_FACTOR * input_bytes;
    assert!(output.len() <= bytes_max, "{} bytes for {input_bytes}", output.len());
    let mut rest = output;
    while let Some((head, behind)) = rest.split_first_chunk::<HEAD_BYTES>() {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        assert!(matches!(head[3], 0 | 1 | 3 | 4 | 6..=9), "a frame of kind {}", head[3]);
        rest = behind.split_at_checked(length).expect("whole frames").1;
    }
    assert!(rest.is_empty(), "whole frames");
}

/// Frame by frame, for as long as both connections live and the frames leave no choice.
fn agrees_with_the_crate(frames: &[Frame]) {
    let mut porch = Porch::open();
    let mut core = Http2::new(&porch.limits, 0);
    let mut ours: Vec<Told> = Vec::new();
    let mut theirs = Theirs::new();
    let mut excused = Vec::new();
    for frame in frames {
        if frame.leaves_a_choice {
            break;
        }
        excused.extend(frame.excuses_stream);
        core.handle_input(&frame.bytes, &mut porch.turn());
        let said = core.take_output();
        for request in porch.requests.drain(..) {
            porch.books.reserved -= request.reserved;
            ours.push(Told::from(request));
        }
        let they_live = theirs.take(&frame.bytes);
        let we_live = core.standing() == Standing::Open;
        if frame.is_unfinished {
            continue;
        }
        let is = |lives: bool| if lives { "open" } else { "over" };
        let why = format!("{frame:?}; we said {}; {:?}", said.escape_ascii(), theirs.why);
        assert_eq!(is(we_live), is(they_live), "ours, and the crate's, behind {why}");
        if !we_live {
            break;
        }
        let is_compared = |told: &&Told| !excused.contains(&told.stream);
        let sorted = |told: &[Told]| {
            let mut told: Vec<Told> = told.iter().filter(is_compared).cloned().collect();
            told.sort_by_key(|told| told.stream);
            told
        };
        assert_eq!(sorted(&ours), sorted(&theirs.requests), "behind {why}");
    }
    lose(&mut core, &mut porch);
}

/// Plans and raw frames to begin with, each behind its terms and its cut.
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let mut seeds: Vec<_> =
        plan::seeds().map(|(name, plan)| (name, [&[4, 2, 20, 3], plan].concat())).into();
    let raw = b"\0\0\x05\x01\x04\0\0\0\x01\x83\x86\x04\x02/a\0\0\x03\0\x01\0\0\0\x01abc";
    seeds.push(("raw", [&[5, 1, 7], &raw[..]].concat()));
    seeds
}
