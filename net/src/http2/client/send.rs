//! Frames out: heads as they are opened, messages as far as the peer gives room.

use std::rc::Rc;

use super::stream::Stream;
use super::{CONTROL_BYTES_SPARE, Client, Fault, Output, Peer, RequestHead};
use crate::http2::frame::{Code, FrameHead, WINDOW_MAX, flag, kind};

/// A DATA frame may cost a peer so many frames to us: two windows that it widens, a ping to
/// measure how long that takes.
const CONTROL_PER_DATA: u32 = 4;
const OWED_CONTROL_MAX: u32 = 4096;

impl Client {
    /// Moves to `output` what is to be sent now: control frames and heads, then messages, until
    /// `output` is `bytes_max` long or longer.
    pub fn poll_output(&mut self, output: &mut Output, bytes_max: usize) {
        output.put_small(&self.control);
        self.control.clear();
        self.control.shrink_to(CONTROL_BYTES_SPARE);
        if self.unsent == 0 {
            return;
        }
        for stream in self.streams.iter_mut().filter(|stream| !stream.message.is_empty()) {
            if self.peer.window <= 0 || output.len() >= bytes_max {
                return;
            }
            let frames = send_message(stream, &mut self.peer, output, bytes_max);
            let owed = self.owed_control + frames * CONTROL_PER_DATA;
            self.owed_control = owed.min(OWED_CONTROL_MAX);
            self.unsent -= usize::from(stream.message.is_empty());
        }
    }

    pub(super) fn put_head(&mut self, stream: u32, head: &Rc<RequestHead>, ends: bool) {
        let begin = self.control.len();
        let ends = if ends { flag::END_STREAM } else { 0 };
        // Its length is known when it is there.
        self.control.extend_from_slice(&[0; crate::http2::frame::HEAD_BYTES]);
        let block_begin = self.control.len();
        self.encoder.encode(head, &mut self.control);
        let length = self.control.len() - block_begin;
        if length <= self.peer.frame_bytes_max {
            let flags = ends | flag::END_HEADERS;
            let head = FrameHead { length, kind: kind::HEADERS, flags, stream };
            self.control[begin..block_begin].copy_from_slice(&head.bytes());
            return;
        }
        let block = self.control.split_off(block_begin);
        self.control.truncate(begin);
        let mut kind = kind::HEADERS;
        let mut flags = ends;
        let mut fragments = block.chunks(self.peer.frame_bytes_max).peekable();
        while let Some(fragment) = fragments.next() {
            if fragments.peek().is_none() {
                flags |= flag::END_HEADERS;
            }
            crate::http2::frame::put(&mut self.control, kind, flags, stream, fragment);
            (kind, flags) = (kind::CONTINUATION, 0);
        }
    }

    /// The peer gives room for more, on all streams together.
    pub(super) fn widen(&mut self, increment: i64) -> Result<(), Fault> {
        self.peer.window += increment;
        fits(self.peer.window)
    }

    pub(super) fn widen_stream(&mut self, id: u32, increment: i64) -> Result<(), Fault> {
        let initial = self.peer.stream_window;
        let Some(stream) = self.streams.live(id) else {
            return Ok(());
        };
        stream.credit += increment;
        match initial + stream.credit <= WINDOW_MAX {
            true => Ok(()),
            false => {
                let why = super::Why::Malformed("a window that is too large");
                Err(Fault::Stream(id, Code::FLOW_CONTROL_ERROR, why))
            }
        }
    }

    /// The initial window of all streams, also of those that are open.
    pub(super) fn set_stream_window(&mut self, window: i64) -> Result<(), Fault> {
        self.peer.stream_window = window;
        let widest = self.streams.iter_mut().map(|stream| stream.credit).max();
        fits(window + widest.unwrap_or(0))
    }
}

/// No frame is longer, whatever the peer takes: others wait behind it, and it can't be called back.
const DATA_BYTES_MAX: usize = 64 << 10;

/// Sends of one message what there is room for; in how many frames.
fn send_message(
    stream: &mut Stream,
    peer: &mut Peer,
    output: &mut Output,
    bytes_max: usize,
) -> u32 {
    let mut frames = 0;
    while !stream.message.is_empty() && output.len() < bytes_max {
        let room = peer.window.min(peer.stream_window + stream.credit);
        let room = room.clamp(0, peer.frame_bytes_max.min(DATA_BYTES_MAX) as i64) as usize;
        let length = room.min(stream.message.len());
        if length == 0 {
            return frames;
        }
        peer.window -= length as i64;
        stream.credit -= length as i64;
        let flags = if length == stream.message.len() { flag::END_STREAM } else { 0 };
        let head = FrameHead { length, kind: kind::DATA, flags, stream: stream.id };
        output.put_small(&head.bytes());
        let mut left = length;
        while left > 0
            && let Some(piece) = stream.message.take(left)
        {
            left -= piece.len();
            output.put(piece);
        }
        frames += 1;
    }
    frames
}

fn fits(window: i64) -> Result<(), Fault> {
    match window <= WINDOW_MAX {
        true => Ok(()),
        false => Err(Fault::Connection(Code::FLOW_CONTROL_ERROR, "a window was made too large")),
    }
}
