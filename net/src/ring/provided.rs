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
//! What came into a buffer can be lent out where it lies ([`Provided::lend`]), to somebody who
//! changes it in place and drops it at some time; the buffer is offered again once nobody holds
//! any part of it ([`Provided::take_back`]). Such buffers lie each in memory of its own.
//!
//! Always
//! - Only the ring's owner touches the tail, on the thread that owns the ring.
//! - The memory outlives the registration: `Uring` drops its ring before its buffers.
//! - A quarter of the buffers is lent at most: who keeps what was lent leaves the kernel the rest.
#![allow(unsafe_code)]

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU16, Ordering};

use bytes::{Buf, BytesMut};
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
    /// The entries, and the buffers of [`Rooms::Mapped`].
    map: MmapMut,
    rooms: Rooms,
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
    /// Buffers of which somebody may hold a part.
    lent: Vec<u16>,
}

/// Where the buffers lie.
enum Rooms {
    /// In the mapping, behind so many bytes.
    Mapped(usize),
    /// Each by itself, and empty as long as it was never used. What is not lent is as long as a
    /// buffer; what is lent begins behind that.
    Lendable(Vec<BytesMut>),
}

/// In use at least, all together: half of what a core's second cache usually holds.
const USED_BYTES_MIN: usize = 512 << 10;
/// So many times as many as may be lent.
const LENT_PART: u16 = 4;
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
        Provided::mapped(count, buffer_bytes)?.registered(submitter, group)
    }

    /// Tells the kernel of the buffers.
    pub(super) fn registered(
        mut self,
        submitter: &Submitter<'_>,
        group: u16,
    ) -> io::Result<Provided> {
        let (entries, count) = (self.map.as_mut_ptr() as u64, self.count);
        // SAFETY: the mapping starts at a page border, holds `count` entries, and lives as long
        // as the registration (see the header of this file).
        unsafe { submitter.register_buf_ring_with_flags(entries, count, group, 0)? };
        Ok(self)
    }

    /// Maps `count` buffers (a power of two) of `buffer_bytes` that the kernel knows nothing of.
    fn mapped(count: u16, buffer_bytes: u32) -> io::Result<Provided> {
        let offset = entries_bytes(count);
        let mapped_bytes = offset + usize::from(count) * buffer_bytes as usize;
        Provided::new(count, buffer_bytes, Rooms::Mapped(offset), mapped_bytes)
    }

    /// The same of such as can be lent.
    pub(super) fn lendable(count: u16, buffer_bytes: u32) -> io::Result<Provided> {
        let rooms = Rooms::Lendable(vec![BytesMut::new(); usize::from(count)]);
        Provided::new(count, buffer_bytes, rooms, entries_bytes(count))
    }

    fn new(
        count: u16,
        buffer_bytes: u32,
        rooms: Rooms,
        mapped_bytes: usize,
    ) -> io::Result<Provided> {
        if !count.is_power_of_two() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("the number of buffers must be a power of two, not {count}"),
            ));
        }
        let mut provided = Provided {
            map: MmapMut::map_anon(mapped_bytes)?,
            rooms,
            buffer_bytes: buffer_bytes as usize,
            count,
            tail: 0,
            head: 0,
            spare: (0..count).rev().collect(),
            wanted: 0,
            calm: 0,
            lent: Vec::new(),
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
        for _ in self.used()..usize::from(self.wanted) {
            if let Some(buffer) = self.spare.pop() {
                self.offer(buffer);
            }
        }
    }

    /// Offered, or filled and not given back; what is lent is of no use to the kernel.
    fn used(&self) -> usize {
        usize::from(self.count) - self.spare.len() - self.lent.len()
    }

    fn used_min(&self) -> u16 {
        let used = (USED_BYTES_MIN / self.buffer_bytes.max(1)).max(1);
        u16::try_from(used).unwrap_or(u16::MAX).min(self.count)
    }

    /// The first `bytes` of `buffer`.
    pub(super) fn bytes(&self, buffer: u16, bytes: u32) -> &[u8] {
        match &self.rooms {
            Rooms::Mapped(offset) => &self.map[self.place(*offset, buffer, bytes as usize)],
            Rooms::Lendable(rooms) => &rooms[usize::from(buffer)][..bytes as usize],
        }
    }

    /// The same, to be changed where they lie.
    pub(super) fn bytes_mut(&mut self, buffer: u16, bytes: u32) -> &mut [u8] {
        match self.rooms {
            Rooms::Mapped(offset) => {
                let place = self.place(offset, buffer, bytes as usize);
                &mut self.map[place]
            }
            Rooms::Lendable(ref mut rooms) => &mut rooms[usize::from(buffer)][..bytes as usize],
        }
    }

    /// All of `buffer`, which somebody has taken.
    pub(super) fn room_mut(&mut self, buffer: u16) -> &mut [u8] {
        self.bytes_mut(buffer, self.buffer_bytes as u32)
    }

    fn place(&self, offset: usize, buffer: u16, bytes: usize) -> Range<usize> {
        assert!(buffer < self.count && bytes <= self.buffer_bytes);
        let start = offset + usize::from(buffer) * self.buffer_bytes;
        start..start + bytes
    }

    /// Lends out what lies in `range` of `buffer`. `None`: too much is lent already, or this is
    /// not lent at all, and the buffer is as it was.
    pub(super) fn lend(&mut self, buffer: u16, range: Range<usize>) -> Option<BytesMut> {
        let Rooms::Lendable(rooms) = &mut self.rooms else {
            return None;
        };
        if self.lent.len() >= usize::from(self.count / LENT_PART) {
            return None;
        }
        let mut lent = rooms[usize::from(buffer)].split_to(range.end);
        lent.advance(range.start);
        self.lent.push(buffer);
        Some(lent)
    }

    /// Offers those of the lent buffers to the kernel again of which nobody holds a part, and
    /// others for those that are still held.
    pub(super) fn take_back(&mut self) {
        let mut place = 0;
        while let Some(buffer) = self.lent.get(place).copied() {
            if self.reclaim(buffer) {
                self.lent.swap_remove(place);
                self.give_back(buffer);
            } else {
                place += 1;
            }
        }
        self.use_more(0);
    }

    /// Makes a lent buffer whole again, if nobody holds a part of it.
    fn reclaim(&mut self, buffer: u16) -> bool {
        let Rooms::Lendable(rooms) = &mut self.rooms else {
            return true;
        };
        let room = &mut rooms[usize::from(buffer)];
        room.clear();
        let is_free = room.try_reclaim(self.buffer_bytes);
        if is_free {
            // SAFETY: a room is a vector of so many zeros, which others may have written over; that
            // there is room for so many says that this is all of it.
            unsafe { room.set_len(self.buffer_bytes) };
        }
        is_free
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
        match self.used() > usize::from(self.wanted) {
            true => self.spare.push(buffer),
            false => self.offer(buffer),
        }
    }

    fn offer(&mut self, buffer: u16) {
        assert!(buffer < self.count);
        let address = match &mut self.rooms {
            Rooms::Mapped(offset) => {
                let start = *offset + usize::from(buffer) * self.buffer_bytes;
                self.map.as_ptr() as u64 + start as u64
            }
            Rooms::Lendable(rooms) => {
                let room = &mut rooms[usize::from(buffer)];
                if room.is_empty() {
                    *room = BytesMut::zeroed(self.buffer_bytes);
                }
                room.as_mut_ptr() as u64
            }
        };
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

fn entries_bytes(count: u16) -> usize {
    (usize::from(count) * ENTRY_BYTES).next_multiple_of(4096)
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
        let mut provided = Provided::mapped(COUNT, 64 << 10).expect("memory");
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
    fn what_is_lent_is_replaced_as_long_as_any_part_of_it_is_held_and_none_is_lost() {
        let mut provided = Provided::lendable(COUNT, 64 << 10).expect("memory");
        let mut held = Vec::new();
        loop {
            let buffer = provided.take().expect("one is free");
            let Some(mut lent) = provided.lend(buffer, 10..100) else {
                provided.give_back(buffer);
                break;
            };
            held.push(lent.split_off(50).split_to(1));
            drop(lent);
            provided.take_back();
        }
        assert_eq!(held.len(), usize::from(COUNT / LENT_PART));
        let free = all_offered(&mut provided);
        assert_eq!(free.len(), USED_BYTES_MIN / (64 << 10));
        for buffer in free {
            provided.give_back(buffer);
        }
        held.clear();
        provided.take_back();
        let mut free = all_offered(&mut provided);
        assert_eq!(free.len(), USED_BYTES_MIN / (64 << 10), "no more than before");
        for _ in 0..3 {
            provided.starved();
            free.extend(all_offered(&mut provided));
        }
        free.sort_unstable();
        assert_eq!(free, (0..COUNT).collect::<Vec<u16>>());
        assert!(free.iter().all(|buffer| provided.bytes(*buffer, 64 << 10).len() == 64 << 10));
    }

    #[test]
    fn after_a_calm_fewer_are_in_use_and_none_is_lost() {
        let mut provided = Provided::mapped(COUNT, 64 << 10).expect("memory");
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
