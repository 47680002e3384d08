//! The sockets of a ring: one slot each, kept until the kernel has let go of everything in it.
//!
//! A slot owns what its operations in flight point at: the buffer that is received into, the bytes
//! that are sent. Its key (index and generation) travels through the kernel as `user_data`.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use bytes::BytesMut;

use super::{Key, Sending};

pub(super) const KIND_ACCEPT: u8 = 1;
pub(super) const KIND_RECEIVE: u8 = 2;
pub(super) const KIND_RECEIVE_INTO: u8 = 3;
pub(super) const KIND_SEND: u8 = 4;
pub(super) const KIND_WAKE: u8 = 5;
pub(super) const KIND_CANCEL: u8 = 6;
pub(super) const KIND_RECEIVE_DATAGRAMS: u8 = 7;
pub(super) const KIND_SEND_DATAGRAMS: u8 = 8;

/// For operations that belong to no socket.
pub(super) const NOBODY: Key = Key { index: 0, generation: 0 };

pub(super) enum Receiving {
    Nothing,
    Multishot { cancelling: bool },
    Oneshot { buffer: BytesMut },
    Into { buffer: BytesMut },
}

pub(super) struct Slot {
    generation: u32,
    pub(super) fd: Option<OwnedFd>,
    pub(super) receiving: Receiving,
    pub(super) sending: Option<Sending>,
    /// Operations whose last completion has not come.
    pub(super) in_flight: u32,
    pub(super) closing: bool,
}

#[derive(Default)]
pub(super) struct Slots {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

impl Slots {
    pub(super) fn open(&mut self, socket: OwnedFd) -> Key {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot {
                generation: 0,
                fd: None,
                receiving: Receiving::Nothing,
                sending: None,
                in_flight: 0,
                closing: false,
            });
            self.slots.len() as u32 - 1
        });
        let slot = &mut self.slots[index as usize];
        slot.fd = Some(socket);
        Key { index, generation: slot.generation }
    }

    /// The slot of a socket that is open, or closing.
    pub(super) fn find(&mut self, key: Key) -> Option<&mut Slot> {
        self.slots
            .get_mut(key.index as usize)
            .filter(|slot| slot.generation == key.generation && slot.fd.is_some())
    }

    /// The slot that a completion names.
    ///
    /// # Panics
    /// If it is another socket's: a slot is kept while the kernel uses it, so that is our mistake.
    pub(super) fn in_use(&mut self, key: Key) -> &mut Slot {
        let slot = &mut self.slots[key.index as usize];
        assert_eq!(slot.generation, key.generation, "a slot is kept while the kernel uses it");
        slot
    }

    /// Closes the socket and frees the slot, if it is to be closed and nothing is in flight.
    pub(super) fn free_if_idle(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        if slot.closing && slot.in_flight == 0 {
            slot.fd = None;
            slot.closing = false;
            slot.generation = slot.generation.wrapping_add(1);
            self.free.push(index);
        }
    }

    pub(super) fn sockets(&self) -> impl Iterator<Item = &OwnedFd> {
        self.slots.iter().filter_map(|slot| slot.fd.as_ref())
    }
}

pub(super) fn raw_fd(slot: &Slot) -> RawFd {
    slot.fd.as_ref().expect("an open slot has a socket").as_raw_fd()
}

/// 8 bits of kind, 24 of index, 32 of generation.
pub(super) fn pack(kind: u8, key: Key) -> u64 {
    assert!(key.index < 1 << 24, "a ring has at most 16,777,216 sockets");
    (u64::from(kind) << 56) | (u64::from(key.index) << 32) | u64::from(key.generation)
}

pub(super) fn pack_listener(listener: u16) -> u64 {
    pack_index(KIND_ACCEPT, u32::from(listener))
}

/// For what has a number that is not used again while anything is in flight on it.
pub(super) fn pack_index(kind: u8, index: u32) -> u64 {
    pack(kind, Key { index, generation: 0 })
}

pub(super) fn unpack(user_data: u64) -> (u8, Key) {
    let index = (user_data >> 32) as u32 & 0x00ff_ffff;
    ((user_data >> 56) as u8, Key { index, generation: user_data as u32 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_its_way_through_the_kernel() {
        for index in [0, 1, 0x00ff_ffff] {
            for generation in [0, 7, u32::MAX] {
                let key = Key { index, generation };
                assert_eq!(unpack(pack(KIND_SEND, key)), (KIND_SEND, key));
            }
        }
        assert_eq!(unpack(pack_listener(3)).1.index, 3);
    }
}
