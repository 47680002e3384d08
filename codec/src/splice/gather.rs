//! A chain in the making, in which small requests are copied together.
//!
//! A request of a few hundred bytes in memory of its own costs more to carry (a piece in every
//! write, memory that one core takes and another gives back) than to copy once while it is hot.
//! Larger ones stay where they are.
//!
//! Always
//! - What [`Gatherer::finish`] gives is the chain that pushing the same requests to a [`Chain`]
//!   gives, but for where its parts end.
//! - Memory follows content: a piece that is copied together is at most twice as large as what is
//!   in it, or [`PIECE_BYTES_MIN`].

use bytes::BytesMut;

use super::Chain;
use crate::check::Checked;
use crate::signal::Signal;

/// A longer request is not copied.
const COPIED_BYTES_MAX: usize = 4 << 10;
const PIECE_BYTES_MIN: usize = 4 << 10;
/// A piece of this length takes no more.
const PIECE_BYTES_MAX: usize = 64 << 10;

/// See the header.
#[derive(Debug)]
pub struct Gatherer {
    chain: Chain,
    /// Counted in `chain` already, not yet one of its parts.
    piece: BytesMut,
}

impl Gatherer {
    pub fn new(signal: Signal) -> Gatherer {
        Gatherer { chain: Chain::new(signal), piece: BytesMut::new() }
    }

    /// Adds a request behind the others, copied if it is small.
    ///
    /// # Panics
    /// As [`Chain::push`].
    pub fn push(&mut self, checked: Checked) {
        let bytes = checked.bytes();
        if bytes.len() > COPIED_BYTES_MAX || bytes.is_empty() {
            return self.push_uncopied(checked);
        }
        self.chain.grow(checked.signal(), checked.counts(), bytes.len() as u64);
        if self.piece.len() + bytes.len() > PIECE_BYTES_MAX {
            self.end_piece();
        }
        if self.piece.capacity() - self.piece.len() < bytes.len() {
            let room = (2 * self.piece.len()).clamp(PIECE_BYTES_MIN, PIECE_BYTES_MAX);
            self.piece.reserve(room.max(self.piece.len() + bytes.len()) - self.piece.len());
        }
        self.piece.extend_from_slice(bytes);
    }

    /// As [`Gatherer::push`], and the request stays where it is: for one that is alone.
    ///
    /// # Panics
    /// As [`Chain::push`].
    pub fn push_uncopied(&mut self, checked: Checked) {
        self.end_piece();
        self.chain.push(checked);
    }

    /// Adds all of a chain behind this one, nothing of it copied.
    ///
    /// # Panics
    /// As [`Chain::push`].
    pub fn append(&mut self, chain: Chain) {
        self.end_piece();
        self.chain.append(chain);
    }

    /// What is in it so far: signal, counts and bytes. Its parts may not all be there yet.
    pub fn chain(&self) -> &Chain {
        &self.chain
    }

    pub fn finish(mut self) -> Chain {
        self.end_piece();
        self.chain
    }

    fn end_piece(&mut self) {
        if !self.piece.is_empty() {
            self.chain.parts.push(std::mem::take(&mut self.piece).freeze());
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::check::check;

    /// A request with one span whose name makes it about `bytes` long.
    fn request(bytes: usize, letter: u8) -> Checked {
        fn field(tag: u8, content: &[u8]) -> Vec<u8> {
            let mut field = vec![tag];
            let mut length = content.len();
            while length >= 0x80 {
                field.push(length as u8 | 0x80);
                length >>= 7;
            }
            field.push(length as u8);
            field.extend_from_slice(content);
            field
        }
        let span = field(0x2a, &vec![letter; bytes]);
        let request = field(0x0a, &field(0x12, &field(0x12, &span)));
        check(Signal::Traces, Bytes::from(request)).unwrap()
    }

    #[test]
    fn gathered_requests_are_the_same_chain_in_fewer_parts() {
        let mut state: u64 = 0x5eed;
        let mut draw = |below: u64| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) % below
        };
        for round in 0..50 {
            let (mut chain, mut gatherer) =
                (Chain::new(Signal::Traces), Gatherer::new(Signal::Traces));
            let mut small = 0;
            for nth in 0..draw(600) {
                let bytes = if draw(40) == 0 { 4000 + draw(9000) } else { draw(700) } as usize;
                let checked = request(bytes, b'a' + (nth % 26) as u8);
                small += usize::from(checked.bytes().len() <= COPIED_BYTES_MAX);
                if draw(30) == 0 {
                    let mut other = Chain::new(Signal::Traces);
                    other.push(checked.clone());
                    gatherer.append(other);
                } else {
                    gatherer.push(checked.clone());
                }
                chain.push(checked);
            }
            let requests = chain.parts.len();
            assert_eq!(gatherer.chain().counts, chain.counts, "round {round}");
            assert_eq!(gatherer.chain().bytes, chain.bytes, "round {round}");
            let gathered = gatherer.finish();
            assert_eq!(gathered.parts.concat(), chain.parts.concat(), "round {round}");
            assert!(gathered.parts.iter().all(|part| !part.is_empty()));
            let joins = small / 2;
            assert!(gathered.parts.len() <= requests - joins.min(requests / 2), "round {round}");
        }
    }

    #[test]
    fn a_large_request_keeps_its_own_memory() {
        let large = request(COPIED_BYTES_MAX + 1, b'x');
        let address = large.bytes().as_ptr();
        let mut gatherer = Gatherer::new(Signal::Traces);
        gatherer.push(request(10, b'a'));
        gatherer.push(large);
        gatherer.push(request(10, b'b'));
        let chain = gatherer.finish();
        assert_eq!(chain.parts.len(), 3);
        assert_eq!(chain.parts[1].as_ptr(), address);
    }
}
