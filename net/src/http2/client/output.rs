//! What is to be sent, gathered: small frames side by side in one buffer, messages as they are.
//!
//! Never copies a message's bytes but in pieces so small that a place of their own in the send
//! would cost more. Always: what [`Output::slices`] shows is the next to be sent, in order.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes};

/// Shorter pieces are copied.
const PIECE_BYTES_MIN: usize = 512;
/// A buffer that grew beyond this is given back once it is sent.
const SPARE_BYTES_MAX: usize = 64 << 10;

#[derive(Default)]
pub struct Output {
    pieces: VecDeque<Piece>,
    /// The bytes of the small pieces, one behind the other; those before `sent` are sent.
    small: Vec<u8>,
    sent: usize,
    bytes: usize,
}

enum Piece {
    /// So many of the small bytes.
    Small(usize),
    Shared(Bytes),
}

impl Output {
    pub fn new() -> Output {
        Output::default()
    }

    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Bytes that are not sent yet.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Shows the beginning of what is to be sent in as many of `slices` as it takes; how many
    /// those are.
    pub fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut small = self.sent;
        let mut count = 0;
        for (piece, slice) in self.pieces.iter().zip(slices) {
            let bytes = match piece {
                Piece::Small(bytes) => {
                    small += bytes;
                    &self.small[small - bytes..small]
                }
                Piece::Shared(bytes) => bytes,
            };
            *slice = IoSlice::new(bytes);
            count += 1;
        }
        count
    }

    /// So many bytes are sent.
    pub fn advance(&mut self, bytes: usize) {
        self.bytes -= bytes;
        let mut left = bytes;
        while left > 0 {
            let piece = self.pieces.front_mut().expect("no more is sent than there is");
            let (sent, is_done) = match piece {
                Piece::Small(bytes) => {
                    let sent = left.min(*bytes);
                    *bytes -= sent;
                    self.sent += sent;
                    (sent, *bytes == 0)
                }
                Piece::Shared(bytes) => {
                    let sent = left.min(bytes.len());
                    bytes.advance(sent);
                    (sent, bytes.is_empty())
                }
            };
            left -= sent;
            if is_done {
                self.pieces.pop_front();
            }
        }
        if self.pieces.is_empty() {
            self.clear();
        }
    }

    /// Forgets what is not sent.
    pub fn clear(&mut self) {
        self.pieces.clear();
        self.small.clear();
        if self.small.capacity() > SPARE_BYTES_MAX {
            self.small = Vec::new();
        }
        (self.sent, self.bytes) = (0, 0);
    }

    pub(super) fn put_small(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.small.extend_from_slice(bytes);
        self.bytes += bytes.len();
        match self.pieces.back_mut() {
            Some(Piece::Small(last)) => *last += bytes.len(),
            _ => self.pieces.push_back(Piece::Small(bytes.len())),
        }
    }

    pub(super) fn put(&mut self, bytes: Bytes) {
        if bytes.len() < PIECE_BYTES_MIN {
            return self.put_small(&bytes);
        }
        self.bytes += bytes.len();
        self.pieces.push_back(Piece::Shared(bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(output: &Output, slices_max: usize) -> Vec<u8> {
        let mut slices = vec![IoSlice::new(&[]); slices_max];
        let count = output.slices(&mut slices);
        slices[..count].iter().flat_map(|slice| slice.to_vec()).collect()
    }

    #[test]
    fn what_is_put_comes_out_in_order_however_it_is_sent() {
        for seed in 1..200 {
            let mut random = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed);
            let mut below = |bound: u64| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                (random % bound) as usize
            };
            let (mut output, mut put, mut sent) = (Output::new(), Vec::new(), Vec::new());
            for _ in 0..100 {
                let piece = vec![below(256) as u8; below(2) * below(3000) + below(20)];
                put.extend_from_slice(&piece);
                match below(2) {
                    0 => output.put_small(&piece),
                    _ => output.put(piece.into()),
                }
                let shown = shown(&output, 3);
                let bytes = below(shown.len() as u64 + 1);
                sent.extend_from_slice(&shown[..bytes]);
                output.advance(bytes);
                assert_eq!(sent.len() + output.len(), put.len(), "seed {seed}");
            }
            while !output.is_empty() {
                let shown = shown(&output, 5);
                sent.extend_from_slice(&shown);
                output.advance(shown.len());
            }
            assert_eq!(sent, put, "seed {seed}");
        }
    }
}
