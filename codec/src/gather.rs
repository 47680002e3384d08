//! Writing a request out of pieces of others: small ones are gathered, large ones shared.
//!
//! What is gathered lies in one buffer for the whole request; a shared piece stands between two
//! ranges of it. Lengths that are not known yet are left open and filled in later.
//!
//! Always: the parts that come out, one after another, are what was put in, in order.

use bytes::Bytes;

use crate::schema::LEN;
use crate::wire;

/// Below this a copy costs less than one more part in a vectored write.
pub(crate) const SHARED_BYTES_MIN: usize = 512;

#[derive(Debug, Default)]
pub(crate) struct Gather {
    copied: Vec<u8>,
    /// Each with the length that `copied` had when it was put in.
    shared: Vec<(usize, Bytes)>,
    shared_bytes: usize,
}

/// A length that is still to be filled in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gap {
    at: usize,
    width: usize,
    bytes_before: u64,
}

impl Gather {
    /// For about so many bytes in small pieces.
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self { copied: Vec::with_capacity(bytes), ..Self::default() }
    }

    pub(crate) fn bytes(&self) -> u64 {
        (self.copied.len() + self.shared_bytes) as u64
    }

    /// Copied if small, else shared with `whole`.
    #[inline]
    pub(crate) fn put(&mut self, whole: &Bytes, range: std::ops::Range<usize>) {
        if range.len() >= SHARED_BYTES_MIN {
            return self.share(whole.slice(range));
        }
        self.copied.extend_from_slice(&whole[range]);
    }

    pub(crate) fn put_bytes(&mut self, bytes: &Bytes) {
        self.put(bytes, 0..bytes.len());
    }

    pub(crate) fn put_copy(&mut self, bytes: &[u8]) {
        self.copied.extend_from_slice(bytes);
    }

    fn share(&mut self, bytes: Bytes) {
        self.shared_bytes += bytes.len();
        self.shared.push((self.copied.len(), bytes));
    }

    /// A message whose length is known.
    pub(crate) fn open_sized(&mut self, number: u32, length: u64) {
        wire::put_tag(&mut self.copied, number, LEN);
        wire::put_varint(&mut self.copied, length);
    }

    /// A message of at most `bytes_max` bytes; [`Gather::close`] fills its length in.
    pub(crate) fn open(&mut self, number: u32, bytes_max: usize) -> Gap {
        wire::put_tag(&mut self.copied, number, LEN);
        let width = wire::varint_bytes(bytes_max as u64);
        let at = self.copied.len();
        self.copied.resize(at + width, 0);
        Gap { at, width, bytes_before: self.bytes() }
    }

    /// All that was put in since `open` is the message. Its length may be a padded varint: legal
    /// everywhere, and nothing has to move.
    pub(crate) fn close(&mut self, gap: Gap) {
        let mut length = self.bytes() - gap.bytes_before;
        let Some(field) = self.copied.get_mut(gap.at..gap.at + gap.width) else { return };
        debug_assert!(length >> (7 * gap.width) == 0, "{length} in {} bytes", gap.width);
        if let Some((last, others)) = field.split_last_mut() {
            for byte in others {
                *byte = length as u8 | 0x80;
                length >>= 7;
            }
            *last = length as u8;
        }
    }

    /// The parts, none of them empty.
    pub(crate) fn finish(self) -> Vec<Bytes> {
        let copied = Bytes::from(self.copied);
        let mut parts = Vec::with_capacity(2 * self.shared.len() + 1);
        let mut from = 0;
        for (at, bytes) in self.shared {
            if from < at {
                parts.push(copied.slice(from..at));
            }
            from = at;
            parts.push(bytes);
        }
        if from < copied.len() {
            parts.push(copied.slice(from..));
        }
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_filled_in_across_copied_and_shared_pieces() {
        let large = Bytes::from(vec![b'x'; SHARED_BYTES_MIN]);
        let mut out = Gather::with_capacity(0);
        let outer = out.open(1, 1 << 20);
        let inner = out.open(2, 1 << 14);
        out.put_bytes(&Bytes::from_static(b"small"));
        out.put_bytes(&large);
        out.close(inner);
        out.put_copy(b"tail");
        out.close(outer);
        assert_eq!(out.bytes(), 4 + 4 + 5 + 512 + 4);
        let parts = out.finish();
        assert_eq!(parts.len(), 3);
        assert_eq!(parts[1].as_ptr(), large.as_ptr());
        let joined = parts.concat();
        let mut fields = wire::Fields::new(&joined, 0..joined.len());
        let outer = fields.next().unwrap();
        assert_eq!((outer.value.len(), fields.next()), (4 + 5 + 512 + 4, None));
        let inner = wire::Fields::new(&joined, outer.value).next().unwrap();
        assert_eq!(inner.value.len(), 5 + 512);
    }
}
