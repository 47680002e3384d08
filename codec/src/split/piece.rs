//! One piece while it grows: which runs of the request it takes, inside which frames.
//!
//! Lengths come before contents in protobuf, so a piece is a tree of byte ranges until it is
//! sealed; its size is known at any moment, and it is written in one go.
//!
//! Always
//! - A frame goes into a piece with its first child, so no piece holds a frame for nothing.
//! - `bytes_with` is exact: the size that the sealed piece would have.

use std::ops::Range;

use bytes::Bytes;

use crate::gather::Gather;
use crate::signal::{Counts, Signal};
use crate::splice::Chain;
use crate::wire;

/// A message around children: the request itself (number 0), a group, a cut metric, its data.
pub(super) struct Frame {
    number: u32,
    header: Bytes,
    /// What it holds in the present piece.
    nodes: Vec<Node>,
    nodes_bytes: u64,
}

enum Node {
    /// Children that lie side by side in the request.
    Run(Range<usize>),
    Frame(Frame),
}

impl Frame {
    pub(super) fn new(number: u32, header: Bytes) -> Self {
        Self { number, header, nodes: Vec::new(), nodes_bytes: 0 }
    }

    /// The same frame around nothing, for the next piece.
    fn again(&self) -> Self {
        Self::new(self.number, self.header.clone())
    }

    fn content_bytes(&self) -> u64 {
        self.header.len() as u64 + self.nodes_bytes
    }

    /// Its size with `more` bytes of content, tag and length included.
    fn bytes_with(&self, more: u64) -> u64 {
        let content = self.content_bytes() + more;
        match self.number {
            0 => content,
            number => {
                let tag = wire::varint_bytes(u64::from(number) << 3);
                (tag + wire::varint_bytes(content)) as u64 + content
            }
        }
    }

    fn push(&mut self, node: Node, bytes: u64) {
        self.nodes_bytes += bytes;
        if let (Some(Node::Run(last)), Node::Run(next)) = (self.nodes.last_mut(), &node)
            && last.end == next.start
        {
            last.end = next.end;
            return;
        }
        self.nodes.push(node);
    }

    fn write(&self, request: &Bytes, out: &mut Gather) {
        if self.number != 0 {
            out.open_sized(self.number, self.content_bytes());
        }
        out.put_bytes(&self.header);
        for node in &self.nodes {
            match node {
                Node::Run(range) => out.put(request, range.clone()),
                Node::Frame(frame) => frame.write(request, out),
            }
        }
    }
}

/// The piece that is being filled, as the path of frames that are open.
#[derive(Default)]
pub(super) struct Piece {
    open: Vec<Frame>,
    items: u64,
    holds_something: bool,
}

impl Piece {
    pub(super) fn open(&mut self, frame: Frame) {
        self.open.push(frame);
    }

    /// Closes the innermost frame. The request's own stays for `take`.
    pub(super) fn close(&mut self) {
        if self.open.len() == 1 {
            return;
        }
        if let Some(frame) = self.open.pop()
            && !frame.nodes.is_empty()
            && let Some(parent) = self.open.last_mut()
        {
            let bytes = frame.bytes_with(0);
            parent.push(Node::Frame(frame), bytes);
        }
    }

    pub(super) fn items(&self) -> u64 {
        self.items
    }

    pub(super) fn holds_something(&self) -> bool {
        self.holds_something
    }

    /// The size of the piece if `more` bytes went into the innermost frame.
    pub(super) fn bytes_with(&self, more: u64) -> u64 {
        self.open.iter().rev().fold(more, |bytes, frame| frame.bytes_with(bytes))
    }

    /// The size of a piece that holds nothing but these `more` bytes inside the open frames.
    pub(super) fn bytes_alone(&self, more: u64) -> u64 {
        self.open.iter().rev().fold(more, |bytes, frame| frame.again().bytes_with(bytes))
    }

    /// What a new piece would repeat of the present one.
    pub(super) fn header_bytes(&self) -> u64 {
        self.open.iter().map(|frame| frame.header.len() as u64).sum()
    }

    pub(super) fn add(&mut self, range: Range<usize>, items: u64) {
        self.items += items;
        self.holds_something = true;
        if let Some(frame) = self.open.last_mut() {
            let bytes = range.len() as u64;
            frame.push(Node::Run(range), bytes);
        }
    }

    /// The finished piece, or `None` if it would hold nothing. Goes on with the same frames, empty.
    pub(super) fn take(&mut self, signal: Signal, request: &Bytes) -> Option<Chain> {
        if !self.holds_something {
            return None;
        }
        let fresh: Vec<_> = self.open.iter().map(Frame::again).collect();
        let mut sealed = Piece { open: std::mem::replace(&mut self.open, fresh), ..*self };
        (self.items, self.holds_something) = (0, false);
        while sealed.open.len() > 1 {
            sealed.close();
        }
        let mut out = Gather::default();
        sealed.open.first()?.write(request, &mut out);
        let counts = Counts { items: sealed.items, profiles: 0 };
        Some(Chain { signal, counts, bytes: out.bytes(), parts: out.finish() })
    }
}
