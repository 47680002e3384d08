//! The buffers that the kernel picks from for multishot receives (`IORING_REGISTER_PBUF_RING`).
//!
//! One anonymous mapping: first the ring of entries (page-aligned, as the kernel asks), then the
//! buffers. The kernel takes an entry when it fills a buffer; [`Provided::give_back`] offers the
//! buffer again. Buffers that are not registered are taken from the same ring by our own hand
//! ([`Provided::take`]).
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
}

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
        let mut provided = Provided { map, buffers_offset, buffer_bytes, count, tail: 0, head: 0 };
        for buffer in 0..count {
            provided.give_back(buffer);
        }
        Ok(provided)
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

    /// Offers `buffer` to the kernel again.
    pub(super) fn give_back(&mut self, buffer: u16) {
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
