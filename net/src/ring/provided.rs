//! The buffers that the kernel picks from for multishot receives (`IORING_REGISTER_PBUF_RING`).
//!
//! One anonymous mapping: first the ring of entries (page-aligned, as the kernel asks), then the
//! buffers. The kernel takes an entry when it fills a buffer; [`Provided::give_back`] offers the
//! buffer again.
//!
//! Always
//! - Only the ring's owner touches the tail, on the thread that owns the ring.
//! - The mapping outlives the registration: `Uring` drops its ring before its buffers.
#![allow(unsafe_code)]

use std::io;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::Submitter;
use io_uring::types::BufRingEntry;
use memmap2::MmapMut;

const ENTRY_BYTES: usize = size_of::<BufRingEntry>();

/// The buffer group that receives name.
pub(super) const GROUP: u16 = 0;

pub(super) struct Provided {
    map: MmapMut,
    /// Bytes from the mapping's start to the first buffer.
    buffers_offset: usize,
    buffer_bytes: usize,
    count: u16,
    tail: u16,
}

impl Provided {
    /// Maps and registers `count` buffers (a power of two) of `buffer_bytes`.
    pub(super) fn register(
        submitter: &Submitter<'_>,
        count: u16,
        buffer_bytes: u32,
    ) -> io::Result<Provided> {
        if !count.is_power_of_two() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("the number of buffers must be a power of two, not {count}"),
            ));
        }
        let buffer_bytes = buffer_bytes as usize;
        let buffers_offset = (usize::from(count) * ENTRY_BYTES).next_multiple_of(4096);
        let mut map = MmapMut::map_anon(buffers_offset + usize::from(count) * buffer_bytes)?;
        // SAFETY: the mapping starts at a page border, holds `count` entries, and lives as long
        // as the registration (see the header of this file).
        unsafe {
            submitter.register_buf_ring_with_flags(map.as_mut_ptr() as u64, count, GROUP, 0)?
        };
        let mut provided = Provided { map, buffers_offset, buffer_bytes, count, tail: 0 };
        for buffer in 0..count {
            provided.give_back(buffer);
        }
        Ok(provided)
    }

    /// The first `bytes` of `buffer`.
    pub(super) fn bytes(&self, buffer: u16, bytes: u32) -> &[u8] {
        assert!(buffer < self.count && bytes as usize <= self.buffer_bytes);
        let start = self.buffers_offset + usize::from(buffer) * self.buffer_bytes;
        &self.map[start..start + bytes as usize]
    }

    /// Offers `buffer` to the kernel again.
    pub(super) fn give_back(&mut self, buffer: u16) {
        assert!(buffer < self.count);
        let address = self.map.as_ptr() as u64
            + (self.buffers_offset + usize::from(buffer) * self.buffer_bytes) as u64;
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
}
