//! Any bytes as a gRPC body, a timeout, and a status: read as a model reads them, and a status that
//! is written is read again by others' decoders.
#![no_main]

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bytes::Bytes;
use forebay_net::grpc::{FrameError, failed, frame, ok, timeout, unframe};
use forebay_net::request::Answer;
use libfuzzer_sys::fuzz_target;
use percent_encoding::percent_decode;

fuzz_target!(|input: &[u8]| {
    assert_eq!(unframe(Bytes::copy_from_slice(input)), modelled(input));
    let framed = frame(input);
    assert_eq!(unframe(framed.clone()), Ok((false, Bytes::copy_from_slice(input))));
    assert_eq!(ok(input).body, framed);
    let text = String::from_utf8_lossy(input);
    assert_eq!(timeout(&text), modelled_timeout(&text), "{text}");
    status_comes_back(&text, input);
});

/// Reads message after message, as a call that streams would.
fn modelled(body: &[u8]) -> Result<(bool, Bytes), FrameError> {
    let mut messages = Vec::new();
    let mut rest = body;
    loop {
        let Some(([flag, length @ ..], behind)) = rest.split_first_chunk::<5>() else {
            let is_first = messages.is_empty();
            return match messages.pop() {
                Some(message) if messages.is_empty() && rest.is_empty() => Ok(message),
                _ if is_first => Err(FrameError::Truncated),
                _ => Err(FrameError::MoreThanOne),
            };
        };
        if !messages.is_empty() {
            return Err(FrameError::MoreThanOne);
        }
        if *flag > 1 {
            return Err(FrameError::BadFlag(*flag));
        }
        let length = u32::from_be_bytes(*length);
        let Some((message, behind)) = behind.split_at_checked(length as usize) else {
            return Err(FrameError::Truncated);
        };
        messages.push((*flag == 1, Bytes::copy_from_slice(message)));
        rest = behind;
    }
}

/// One to eight digits, then a unit, and nothing else.
fn modelled_timeout(text: &str) -> Option<Duration> {
    let mut count = 0u64;
    for (nth, character) in text.chars().enumerate() {
        if let Some(digit) = character.to_digit(10).filter(|_| nth < 8) {
            count = count * 10 + u64::from(digit);
            continue;
        }
        let unit = match character {
            'H' => Duration::from_secs(3600),
            'M' => Duration::from_secs(60),
            'S' => Duration::from_secs(1),
            'm' => Duration::from_millis(1),
            'u' => Duration::from_micros(1),
            'n' => Duration::from_nanos(1),
            _ => return None,
        };
        let is_last = nth > 0 && nth + 1 == text.len();
        return is_last.then(|| unit * u32::try_from(count).expect("eight digits"));
    }
    None
}

fn status_comes_back(message: &str, details: &[u8]) {
    let code = u32::from(details.first().copied().unwrap_or_default() % 17);
    let answer = failed(code, message, Some(details));
    assert_eq!(value(&answer, "grpc-status"), code.to_string().as_bytes());
    let written = value(&answer, "grpc-message");
    assert!(written.iter().all(|byte| matches!(byte, b' '..=b'~')), "visible ASCII");
    assert_eq!(percent_decode(written).decode_utf8().as_deref(), Ok(message));
    let written = value(&answer, "grpc-status-details-bin");
    assert_eq!(STANDARD_NO_PAD.decode(written).as_deref(), Ok(details));
    assert!(answer.body.is_empty() && answer.trailers.is_empty(), "trailers only");
}

fn value<'a>(answer: &'a Answer, name: &str) -> &'a [u8] {
    let found = answer.headers.iter().find(|(known, _)| known == name);
    found.expect("a failed call says it").1.as_bytes()
}
