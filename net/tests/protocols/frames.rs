//! Frames of HTTP/2 made and read by hand, for clients that a library would not let be.

use forebay_net::http2::Http2;
use forebay_net::request::Core;

use crate::desk::{Desk, LIMITS};

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PUSH_PROMISE: u8 = 5;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;
pub(crate) const ACK: u8 = 1;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
pub(crate) const PADDED: u8 = 8;
pub(crate) const HAS_PRIORITY: u8 = 0x20;

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// `:method POST`, `:scheme http`, and `:path /a` as a literal that is not indexed.
pub(crate) const REQUEST: &[u8] = b"\x83\x86\x04\x02/a";

/// A connection past its handshake.
pub(crate) fn open(desk: &mut Desk) -> Http2 {
    let mut core = Http2::new(&LIMITS, 0);
    core.handle_input(PREFACE, &mut desk.turn());
    core.handle_input(&frame(SETTINGS, 0, 0, &[]), &mut desk.turn());
    core.handle_input(&frame(SETTINGS, 1, 0, &[]), &mut desk.turn());
    assert!(!core.take_output().is_empty(), "our settings");
    core
}

/// The frames of an output: kind, flags, stream, payload.
pub(crate) fn frames(mut output: &[u8]) -> Vec<(u8, u8, u32, Vec<u8>)> {
    let mut frames = Vec::new();
    while let Some((head, rest)) = output.split_at_checked(9) {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        frames.push((head[3], head[4], stream, rest[..length].to_vec()));
        output = &rest[length..];
    }
    assert!(output.is_empty(), "whole frames");
    frames
}

pub(crate) fn goaway_code(output: &[u8]) -> Option<u32> {
    let (_, _, _, payload) = frames(output).into_iter().find(|frame| frame.0 == GOAWAY)?;
    Some(u32::from_be_bytes([payload[4], payload[5], payload[6], payload[7]]))
}

/// The code of the reset of a stream, if it was reset.
pub(crate) fn reset_code(output: &[u8], stream: u32) -> Option<u32> {
    let is_it = |frame: &(u8, u8, u32, Vec<u8>)| frame.0 == RST_STREAM && frame.2 == stream;
    let (_, _, _, payload) = frames(output).into_iter().find(is_it)?;
    Some(u32::from_be_bytes(payload.try_into().expect("four bytes")))
}
