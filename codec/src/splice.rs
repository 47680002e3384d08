//! Batching by splicing: a batch is a chain of byte ranges; only small requests are copied together
//! ([`Gatherer`]).
//!
//! A request of traces, metrics or logs is nothing but a repeated field, so the concatenation of
//! two valid requests is a valid request with the items of both. A [`Chain`] is such a
//! concatenation that has not been copied together; it goes out with one vectored write.
//!
//! Always
//! - `parts` concatenated are a valid request of `signal` that holds `counts`.
//! - No part ends inside an item, a resource or a scope: only groups, scope groups, metrics and
//!   their data reach from part to part, and their tags and lengths do not.
//! - `bytes` is the sum of the lengths of `parts`, none of which is empty.
//! - A chain of profiles holds at most one request: its dictionary belongs to it alone.

use bytes::Bytes;

use crate::check::Checked;
use crate::signal::{Counts, Signal};

pub use gather::Gatherer;
pub use merge::{Merged, Merger, PLACES_MAX};

mod gather;
mod merge;

/// A valid request as a chain of bytes. Cloning shares the bytes.
#[derive(Clone, Debug)]
pub struct Chain {
    pub signal: Signal,
    pub counts: Counts,
    pub bytes: u64,
    pub parts: Vec<Bytes>,
}

impl Chain {
    /// The empty request.
    pub fn new(signal: Signal) -> Self {
        Self { signal, counts: Counts::default(), bytes: 0, parts: Vec::new() }
    }

    /// Whether a non-empty request of this signal may still be added. False for profiles once
    /// there is one: the indices of a second request would point into the tables of the first.
    pub fn takes(&self, signal: Signal) -> bool {
        self.signal == signal && (signal != Signal::Profiles || self.is_empty())
    }

    /// Adds a request behind the others.
    ///
    /// # Panics
    /// If [`Chain::takes`] says no to a request that is not empty: that would corrupt the batch.
    pub fn push(&mut self, checked: Checked) {
        let (signal, counts) = (checked.signal(), checked.counts());
        let part = checked.into_bytes();
        if part.is_empty() {
            return;
        }
        self.grow(signal, counts, part.len() as u64);
        self.parts.push(part);
    }

    /// Adds all of another chain behind this one.
    ///
    /// # Panics
    /// As [`Chain::push`].
    pub fn append(&mut self, mut other: Chain) {
        if other.is_empty() {
            return;
        }
        self.grow(other.signal, other.counts, other.bytes);
        self.parts.append(&mut other.parts);
    }

    fn grow(&mut self, signal: Signal, counts: Counts, bytes: u64) {
        let takes = self.takes(signal);
        assert!(takes, "{signal} do not go into this chain of {}", self.signal);
        self.counts += counts;
        self.bytes += bytes;
    }

    /// Whether it is the request of zero bytes.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::check;

    /// One resource group with one scope group with `spans` empty spans.
    fn request(signal: Signal, spans: u8) -> Checked {
        let mut bytes = vec![0x0a, 2 + spans * 2, 0x12, spans * 2];
        bytes.extend([0x12, 0x00].repeat(spans as usize));
        check(signal, Bytes::from(bytes)).unwrap()
    }

    #[test]
    fn a_chain_of_requests_is_a_request_with_the_items_of_all() {
        let mut chain = Chain::new(Signal::Traces);
        assert!(chain.is_empty());
        chain.push(request(Signal::Traces, 3));
        let mut other = Chain::new(Signal::Traces);
        other.push(request(Signal::Traces, 4));
        other.push(check(Signal::Traces, Bytes::new()).unwrap());
        chain.append(other);
        let joined = check(Signal::Traces, chain.parts.concat().into()).unwrap();
        assert_eq!(joined.counts(), chain.counts);
        assert_eq!(chain.counts.items, 7);
        assert_eq!(chain.bytes, joined.bytes().len() as u64);
        assert_eq!(chain.parts.len(), 2);
    }

    #[test]
    fn r1_a_chain_of_profiles_takes_one_request_and_any_number_of_empty_ones() {
        let mut chain = Chain::new(Signal::Profiles);
        chain.push(check(Signal::Profiles, Bytes::new()).unwrap());
        assert!(chain.takes(Signal::Profiles));
        chain.push(request(Signal::Profiles, 1));
        assert!(!chain.takes(Signal::Profiles));
        chain.push(check(Signal::Profiles, Bytes::new()).unwrap());
        assert_eq!(chain.counts.profiles, 1);
    }

    #[test]
    #[should_panic(expected = "logs do not go into this chain of traces")]
    fn signals_never_mix() {
        let mut chain = Chain::new(Signal::Traces);
        chain.push(request(Signal::Logs, 1));
    }
}
