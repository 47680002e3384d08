//! The sockets of a fake ring: one slot each, with what is in flight on it and what came of that
//! and is not shown yet. As on the kernel's ring, a slot is kept until its last completion came.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};

use super::line::{FakeSocket, LineEnd, World};
use crate::ring::Key;

/// What a one-shot receive takes at most.
const ONESHOT_BYTES: usize = 4096;

pub(super) enum Receiving {
    Nothing,
    Multishot { cancelling: bool },
    Oneshot { buffer: BytesMut },
    Into { buffer: BytesMut, bytes_max: usize },
}

/// A receive's completion. An end is an errno, or 0 where the peer's bytes ended.
pub(super) enum Got {
    Provided { buffer: u16, bytes: u32, more: bool },
    Bytes,
    End(i32),
}

impl Got {
    pub(super) fn is_last(&self) -> bool {
        !matches!(self, Got::Provided { more: true, .. })
    }
}

#[derive(Default)]
pub(super) struct Slots {
    slots: Vec<Slot>,
    free: Vec<usize>,
}

pub(super) struct Slot {
    generation: u32,
    socket: Option<FakeSocket>,
    pub(super) receiving: Receiving,
    /// The receive has its last completion.
    receive_is_over: bool,
    /// Completions of receives that are not shown yet.
    pub(super) got: VecDeque<Got>,
    pub(super) sending: Option<Bytes>,
    /// The send's completion, if it is not shown yet: an errno, or 0.
    pub(super) sent: Option<i32>,
    pub(super) in_flight: u32,
    pub(super) has_finished: bool,
    pub(super) closing: bool,
}

impl Slots {
    pub(super) fn open(&mut self, socket: FakeSocket) -> Key {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::new());
            self.slots.len() - 1
        });
        let slot = &mut self.slots[index];
        *slot = Slot { generation: slot.generation, socket: Some(socket), ..Slot::new() };
        self.key(index)
    }

    pub(super) fn key(&self, index: usize) -> Key {
        Key { index: index as u32, generation: self.slots[index].generation }
    }

    pub(super) fn at(&mut self, index: usize) -> &mut Slot {
        &mut self.slots[index]
    }

    pub(super) fn iter(&mut self) -> impl Iterator<Item = &mut Slot> {
        self.slots.iter_mut()
    }

    /// The slot of a socket that is open.
    ///
    /// # Panics
    /// If it is not: its key means nothing any more, and whoever uses it has lost count.
    pub(super) fn open_at(&mut self, key: Key) -> &mut Slot {
        let slot = &mut self.slots[key.index as usize];
        let is_open = slot.generation == key.generation && slot.socket.is_some();
        assert!(is_open && !slot.closing, "{key:?} is closed");
        slot
    }

    /// Frees a slot that is to be closed and has nothing in flight. The socket closes with it.
    pub(super) fn free_if_idle(&mut self, index: usize) -> Option<FakeSocket> {
        let slot = &mut self.slots[index];
        if !slot.closing || slot.in_flight > 0 {
            return None;
        }
        slot.closing = false;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(index);
        slot.socket.take()
    }
}

impl Slot {
    fn new() -> Slot {
        Slot {
            generation: 0,
            socket: None,
            receiving: Receiving::Nothing,
            receive_is_over: false,
            got: VecDeque::new(),
            sending: None,
            sent: None,
            in_flight: 0,
            has_finished: false,
            closing: false,
        }
    }

    /// The place of its line.
    pub(super) fn line(&self) -> usize {
        self.socket.as_ref().expect("a slot in use has a socket").id()
    }

    pub(super) fn reset_on_close(&mut self) {
        if let Some(socket) = &mut self.socket {
            socket.reset_on_close();
        }
    }

    pub(super) fn begin_receive(&mut self, receiving: Receiving) {
        self.receiving = receiving;
        self.receive_is_over = false;
        self.in_flight += 1;
    }

    /// The receive's last completion is shown.
    pub(super) fn end_receive(&mut self) -> Receiving {
        self.in_flight -= 1;
        std::mem::replace(&mut self.receiving, Receiving::Nothing)
    }

    /// The kernel's part of a receive. Says whether it could go on by itself.
    pub(super) fn work_receive(&mut self, buffers: &mut Buffers, world: &mut World) -> bool {
        while !matches!(self.receiving, Receiving::Nothing) && !self.receive_is_over {
            let cancelling = matches!(self.receiving, Receiving::Multishot { cancelling: true });
            let found = world.lines[self.line()].up_bytes();
            if found == Ok(0) && !cancelling && !self.closing {
                return false;
            }
            if world.is_idle() {
                return true;
            }
            // Bytes may come first, or not.
            let ends_now = (cancelling || self.closing) && world.dice.of_1000(500);
            match found {
                _ if ends_now && cancelling => self.got_last(Got::End(libc::ECANCELED)),
                _ if ends_now => self.got_last(Got::End(0)),
                Err(LineEnd::Finished) => self.got_last(Got::End(0)),
                Err(LineEnd::Reset) => self.got_last(Got::End(libc::ECONNRESET)),
                Ok(0) => {}
                Ok(bytes) => self.receive(bytes, buffers, world),
            }
        }
        false
    }

    fn receive(&mut self, available: usize, buffers: &mut Buffers, world: &mut World) {
        let line = self.line();
        let ends = world.dice.of_1000(world.temper.ends);
        match &mut self.receiving {
            Receiving::Nothing => {}
            Receiving::Multishot { .. } => {
                let Some(buffer) = buffers.take() else {
                    return self.got_last(Got::End(libc::ENOBUFS));
                };
                let room = &mut buffers.buffers[usize::from(buffer)];
                let bytes = world.piece(available.min(room.len()));
                room[..bytes].copy_from_slice(&world.lines[line].take_up(bytes));
                let got = Got::Provided { buffer, bytes: bytes as u32, more: !ends };
                self.receive_is_over = ends;
                self.got.push_back(got);
            }
            Receiving::Oneshot { .. } | Receiving::Into { .. } if ends => {
                self.got_last(Got::End(libc::EAGAIN));
            }
            Receiving::Oneshot { buffer } => {
                let bytes = world.piece(available.min(ONESHOT_BYTES));
                buffer.extend_from_slice(&world.lines[line].take_up(bytes));
                self.got_last(Got::Bytes);
            }
            Receiving::Into { buffer, bytes_max } => {
                let room = (buffer.capacity() - buffer.len()).min(*bytes_max);
                let bytes = world.piece(available.min(room));
                buffer.extend_from_slice(&world.lines[line].take_up(bytes));
                self.got_last(Got::Bytes);
            }
        }
    }

    fn got_last(&mut self, got: Got) {
        self.receive_is_over = true;
        self.got.push_back(got);
    }

    /// The kernel's part of a send. Says whether it could go on by itself.
    pub(super) fn work_send(&mut self, world: &mut World) -> bool {
        while self.sent.is_none() && self.sending.is_some() {
            let line = self.line();
            let room = world.lines[line].down_room(world.temper.socket_bytes);
            if room == Ok(0) && !self.closing {
                return false;
            }
            if world.is_idle() {
                return true;
            }
            let Some(rest) = &mut self.sending else { return false };
            match room {
                // The socket was shut down.
                _ if self.closing => self.sent = Some(libc::EPIPE),
                Err(_) if world.dice.of_1000(500) => self.sent = Some(libc::EPIPE),
                Err(_) => self.sent = Some(libc::ECONNRESET),
                Ok(room) => {
                    let bytes = world.piece(room.min(rest.len()));
                    world.lines[line].put_down(&rest[..bytes]);
                    rest.advance(bytes);
                    self.sent = rest.is_empty().then_some(0);
                }
            }
        }
        false
    }
}

/// The buffers that multishot receives are given.
pub(super) struct Buffers {
    buffers: Vec<Vec<u8>>,
    free: Vec<u16>,
    /// By buffer: whether it is in a chunk that the caller has.
    are_out: Vec<bool>,
}

impl Buffers {
    pub(super) fn new(count: u16, buffer_bytes: u32) -> Buffers {
        Buffers {
            buffers: (0..count).map(|_| vec![0; buffer_bytes as usize]).collect(),
            free: (0..count).collect(),
            are_out: vec![false; usize::from(count)],
        }
    }

    pub(super) fn bytes(&self, buffer: u16, bytes: u32) -> &[u8] {
        assert!(self.are_out[usize::from(buffer)], "buffer {buffer} is read after its return");
        &self.buffers[usize::from(buffer)][..bytes as usize]
    }

    pub(super) fn bytes_mut(&mut self, buffer: u16, bytes: u32) -> &mut [u8] {
        assert!(self.are_out[usize::from(buffer)], "buffer {buffer} is changed after its return");
        &mut self.buffers[usize::from(buffer)][..bytes as usize]
    }

    /// One that is free.
    pub(super) fn take(&mut self) -> Option<u16> {
        self.free.pop()
    }

    pub(super) fn fill(&mut self, buffer: u16, bytes: &[u8]) {
        self.buffers[usize::from(buffer)][..bytes.len()].copy_from_slice(bytes);
    }

    pub(super) fn take_out(&mut self, buffer: u16) {
        self.are_out[usize::from(buffer)] = true;
    }

    pub(super) fn give_back(&mut self, buffer: u16) {
        let is_out = std::mem::take(&mut self.are_out[usize::from(buffer)]);
        assert!(is_out, "buffer {buffer} is given back twice");
        // Whoever still looks at it sees that it is not theirs.
        self.buffers[usize::from(buffer)].fill(0xdd);
        self.free(buffer);
    }

    /// Back without having been shown to anybody.
    pub(super) fn free(&mut self, buffer: u16) {
        self.free.push(buffer);
    }
}
