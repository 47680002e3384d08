//! The buffers that the kernel picks from for multishot receives (`IORING_REGISTER_PBUF_RING`).
//!
//! One anonymous mapping: first the ring of entries (page-aligned, as the kernel asks), then the
//! buffers. The kernel takes an entry when it fills a buffer; [`Provided::give_back`] offers the
//! buffer again. Buffers that are not registered are taken from the same ring by our own hand
//! ([`Provided::take`]).
//!
//! The kernel takes them in the order in which they were offered, so each that is in use comes
//! round again only after all others: many of them are more than the processor's cache holds.
//! Therefore only a few are in use until it runs out of them ([`Provided::starved`]); the others'
//! memory is not even touched.
//!
//! Always
//! - Only the ring's owner touches the tail, on the thread that owns the ring.
//! - The mapping outlives the registration: `Uring` drops its ring before its buffers.
#![allow(unsafe_code)]

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::Submitter;
use io_uring::types::BufRingEntry;
use memmap2::MmapMut;

const ENTRY_BYTES: usize = size_of::<BufRingEntry>();
/// Where an entry names its buffer: behind the address and the length.
const BUFFER_ID_OFFSET: usize = 12;

/// The buffer groups that receives name: what streams bring, and datagrams.
pub(super) const GROUP: u16 = 0;
pub(super) const GROUP_DATAGRAMS: u16 = 1;

pub(super) struct Provided {
    map: MmapMut,
    /// Bytes from the mapping's start to the first buffer.
    buffers_offset: usize,
    buffer_bytes: usize,
    count: u16,
    tail: u16,
    /// What was taken by our own hand; the kernel keeps count of what it takes.
    head: u16,
    /// Neither offered nor held by anybody; the last one first.
    spare: Vec<u16>,
    /// How many shall be in use: offered, or filled and not given back.
    wanted: u16,
    /// Given back since the kernel last ran out of them.
    calm: u32,
}

/// In use at least, all together: half of what a core's second cache usually holds.
const USED_BYTES_MIN: usize = 512 << 10;
/// After so many without want, half as many are used.
const CALM: u32 = 1 << 14;

impl Provided {
    /// Maps and registers `count` buffers (a power of two) of `buffer_bytes`.
    pub(super) fn register(
        submitter: &Submitter<'_>,
        group: u16,
        count: u16,
        buffer_bytes: u32,
    ) -> io::Result<Provided> {
        let mut provided = Provided::unregistered(count, buffer_bytes)?;
        let entries = provided.map.as_mut_ptr() as u64;
        // SAFETY: the mapping starts at a page border, holds `count` entries, and lives as long
        // as the registration (see the header of this file).
        unsafe { submitter.register_buf_ring_with_flags(entries, count, group, 0)? };
        Ok(provided)
    }

    /// Maps `count` buffers (a power of two) of `buffer_bytes` that the kernel knows nothing of.
    pub(super) fn unregistered(count: u16, buffer_bytes: u32) -> io::Result<Provided> {
        if !count.is_power_of_two() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("the number of buffers must be a power of two, not {count}"),
            ));
        }
        let buffer_bytes = buffer_bytes as usize;
        let buffers_offset = (usize::from(count) * ENTRY_BYTES).next_multiple_of(4096);
        let map = MmapMut::map_anon(buffers_offset + usize::from(count) * buffer_bytes)?;
        let mut provided = Provided {
            map,
            buffers_offset,
            buffer_bytes,
            count,
            tail: 0,
            head: 0,
            spare: (0..count).rev().collect(),
            wanted: 0,
            calm: 0,
        };
        provided.use_more(provided.used_min());
        Ok(provided)
    }

    /// The kernel had no buffer where it wanted one: from now on twice as many are in use, if
    /// there are so many.
    pub(super) fn starved(&mut self) {
        self.calm = 0;
        self.use_more(self.wanted.max(1));
    }

    fn use_more(&mut self, more: u16) {
        self.wanted = self.wanted.saturating_add(more).min(self.count);
        let used = usize::from(self.count) - self.spare.len();
        for _ in used..usize::from(self.wanted) {
            if let Some(buffer) = self.spare.pop() {
                self.offer(buffer);
            }
        }
    }

    fn used_min(&self) -> u16 {
        let used = (USED_BYTES_MIN / self.buffer_bytes.max(1)).max(1);
        u16::try_from(used).unwrap_or(u16::MAX).min(self.count)
    }

    /// The first `bytes` of `buffer`.
    pub(super) fn bytes(&self, buffer: u16, bytes: u32) -> &[u8] {
        &self.map[self.place(buffer, bytes)]
    }

    /// The same, to be changed where they lie.
    pub(super) fn bytes_mut(&mut self, buffer: u16, bytes: u32) -> &mut [u8] {
        let place = self.place(buffer, bytes);
        &mut self.map[place]
    }

    fn place(&self, buffer: u16, bytes: u32) -> Range<usize> {
        assert!(bytes as usize <= self.buffer_bytes);
        let start = self.start_of(buffer);
        start..start + bytes as usize
    }

    /// All of `buffer`, which somebody has taken.
    pub(super) fn room_mut(&mut self, buffer: u16) -> &mut [u8] {
        let start = self.start_of(buffer);
        &mut self.map[start..start + self.buffer_bytes]
    }

    /// A buffer that is free, if these are not registered.
    pub(super) fn take(&mut self) -> Option<u16> {
        if self.head == self.tail {
            return None;
        }
        let place = usize::from(self.head & (self.count - 1)) * ENTRY_BYTES + BUFFER_ID_OFFSET;
        self.head = self.head.wrapping_add(1);
        self.map[place..].first_chunk().map(|id| u16::from_ne_bytes(*id))
    }

    /// Offers `buffer` to the kernel again, or keeps it where more are in use than shall be.
    pub(super) fn give_back(&mut self, buffer: u16) {
        self.calm += 1;
        if self.calm >= CALM {
            self.calm = 0;
            self.wanted = (self.wanted / 2).max(self.used_min());
        }
        let used = usize::from(self.count) - self.spare.len();
        match used > usize::from(self.wanted) {
            true => self.spare.push(buffer),
            false => self.offer(buffer),
        }
    }

    fn offer(&mut self, buffer: u16) {
        let address = self.map.as_ptr() as u64 + self.start_of(buffer) as u64;
        let entries = self.map.as_mut_ptr().cast::<BufRingEntry>();
        let slot = usize::from(self.tail & (self.count - 1));
        // SAFETY: `slot` < `count`, and the mapping starts with `count` entries, all zero bytes or
        // written here. The kernel reads an entry only after the tail below passed it.
        unsafe {
            let entry = &mut *entries.add(slot);
            entry.set_addr(address);
            entry.set_len(self.buffer_bytes as u32);
            entry.set_bid(buffer);
        }
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: `tail` gives the address of a field of the first entry, which is valid and
        // aligned for an atomic u16; nobody but the kernel reads it, and only with acquire.
        unsafe {
            let tail = BufRingEntry::tail(entries).cast::<AtomicU16>();
            (*tail).store(self.tail, Ordering::Release);
        }
    }

    fn start_of(&self, buffer: u16) -> usize {
        assert!(buffer < self.count);
        self.buffers_offset + usize::from(buffer) * self.buffer_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COUNT: u16 = 64;

    fn all_offered(provided: &mut Provided) -> Vec<u16> {
        std::iter::from_fn(|| provided.take()).collect()
    }

    #[test]
    fn few_buffers_are_in_use_until_there_is_want_and_all_of_them_if_it_goes_on() {
        let mut provided = Provided::unregistered(COUNT, 64 << 10).expect("memory");
        let mut held = all_offered(&mut provided);
        assert_eq!(held.len(), USED_BYTES_MIN / (64 << 10));
        while held.len() < usize::from(COUNT) {
            let before = held.len();
            provided.starved();
            held.extend(all_offered(&mut provided));
            assert_eq!(held.len(), 2 * before);
        }
        provided.starved();
        assert!(all_offered(&mut provided).is_empty());
        held.sort_unstable();
        assert_eq!(held, (0..COUNT).collect::<Vec<u16>>(), "each is offered once");
    }

    #[test]
    fn after_a_calm_fewer_are_in_use_and_none_is_lost() {
        let mut provided = Provided::unregistered(COUNT, 64 << 10).expect("memory");
        for _ in 0..3 {
            provided.starved();
        }
        for _ in 0..4 * CALM {
            let buffer = provided.take().expect("one is free");
            provided.give_back(buffer);
        }
        let mut held = all_offered(&mut provided);
        assert_eq!(held.len(), USED_BYTES_MIN / (64 << 10));
        for _ in 0..3 {
            provided.starved();
            held.extend(all_offered(&mut provided));
        }
        held.sort_unstable();
        assert_eq!(held, (0..COUNT).collect::<Vec<u16>>());
    }
}
