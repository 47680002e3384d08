//! The ring that the kernel serves: operations in, [`Done`]s out. Lives on one thread.
//!
//! A socket's slot stays taken until the kernel has finished every operation on it, so a buffer
//! that the kernel may touch is never freed or lent twice. What stays in flight when the ring is
//! dropped is cancelled first; what the kernel then still holds is leaked, never freed.
#![allow(unsafe_code)]

mod datagrams;
mod setup;

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use io_uring::squeue::Entry;
use io_uring::{IoUring, cqueue, opcode, types};
use rustix::net::Shutdown;

use self::datagrams::{Armed, Datagrams};
use super::datagrams::{Arrival, Departure};
use super::provided::{GROUP, Provided};
use super::slots::{
    KIND_ACCEPT, KIND_CANCEL, KIND_RECEIVE, KIND_RECEIVE_DATAGRAMS, KIND_RECEIVE_INTO, KIND_SEND,
    KIND_SEND_DATAGRAMS, KIND_WAKE, NOBODY, Receiving, Slots, pack, pack_listener, raw_fd, unpack,
};
use super::{Chunk, Done, End, Key, Options, Ring, RingStats, Rung, Sending, explain};
use crate::wake::Wake;

/// What a one-shot receive offers the kernel when there are no provided buffers.
const ONESHOT_BYTES: usize = 4096;

struct Acceptor {
    fd: OwnedFd,
    armed: bool,
}

/// See the header.
pub struct Uring {
    // Dropped first: the kernel lets go of the buffers before they are freed.
    ring: Option<IoUring>,
    provided: Option<Provided>,
    rung: Rung,
    slots: Slots,
    /// From the first datagram socket on.
    datagrams: Option<Box<Datagrams>>,
    datagram_buffers: u16,
    acceptors: Vec<Acceptor>,
    wake: Arc<Wake>,
    wake_counter: Box<u64>,
    done: VecDeque<Done<OwnedFd>>,
    completions: Vec<(u64, i32, u32)>,
    in_flight: u64,
    stats: RingStats,
}

impl Uring {
    /// Sets up a ring on this thread: the highest rung that this kernel carries, at most
    /// `options.highest`. The error names cause and cure.
    pub fn new(options: &Options) -> Result<Uring, String> {
        let mut last = io::Error::from_raw_os_error(libc::EINVAL);
        let start = Rung::LADDER.iter().position(|rung| *rung == options.highest).unwrap_or(0);
        for rung in &Rung::LADDER[start..] {
            match Uring::on_rung(*rung, options) {
                Ok(ring) => return Ok(ring),
                Err(error) => {
                    tracing::debug!(rung = rung.name(), %error, "io_uring rung not available");
                    let forbidden = matches!(
                        error.raw_os_error(),
                        Some(libc::EPERM | libc::ENOSYS | libc::EMFILE | libc::ENFILE)
                    );
                    last = error;
                    if forbidden {
                        break;
                    }
                }
            }
        }
        Err(explain::setup_failed(&last, explain::sysctl_disabled().as_deref()))
    }
}

impl Ring for Uring {
    type Socket = OwnedFd;

    fn rung(&self) -> Rung {
        self.rung
    }

    fn stats(&self) -> RingStats {
        self.stats
    }

    fn wake(&self) -> Arc<Wake> {
        self.wake.clone()
    }

    // --- listeners ---

    fn listen(&mut self, socket: OwnedFd) -> u16 {
        let listener = self.acceptors.len() as u16;
        self.acceptors.push(Acceptor { fd: socket, armed: false });
        self.accept(listener);
        listener
    }

    fn accept(&mut self, listener: u16) {
        let acceptor = &mut self.acceptors[usize::from(listener)];
        if acceptor.armed {
            return;
        }
        acceptor.armed = true;
        let fd = types::Fd(acceptor.fd.as_raw_fd());
        let entry = match self.rung {
            Rung::Oneshot => opcode::Accept::new(fd, std::ptr::null_mut(), std::ptr::null_mut())
                .flags(libc::SOCK_CLOEXEC)
                .build(),
            _ => opcode::AcceptMulti::new(fd).flags(libc::SOCK_CLOEXEC).build(),
        };
        self.push(entry.user_data(pack_listener(listener)));
    }

    fn accept_everywhere(&mut self) {
        for listener in 0..self.acceptors.len() {
            self.accept(listener as u16);
        }
    }

    fn stop_listening(&mut self) {
        for index in 0..self.acceptors.len() {
            if self.acceptors[index].armed {
                let target = pack_listener(index as u16);
                self.cancel(target);
            }
            // Ends the listening state at once, whatever operation still holds the socket.
            let _ = rustix::net::shutdown(&self.acceptors[index].fd, Shutdown::Both);
        }
    }

    // --- sockets ---

    fn open(&mut self, socket: OwnedFd) -> Key {
        self.slots.open(socket)
    }

    fn receive(&mut self, key: Key) {
        let multishot = self.provided.is_some();
        let Some(slot) = self.slots.find(key) else { return };
        if !matches!(slot.receiving, Receiving::Nothing) || slot.closing {
            return;
        }
        let fd = types::Fd(raw_fd(slot));
        let entry = if multishot {
            slot.receiving = Receiving::Multishot { cancelling: false };
            opcode::RecvMulti::new(fd, GROUP).build()
        } else {
            let mut buffer = BytesMut::with_capacity(ONESHOT_BYTES);
            let spare = buffer.spare_capacity_mut();
            let entry =
                opcode::Recv::new(fd, spare.as_mut_ptr().cast(), spare.len() as u32).build();
            slot.receiving = Receiving::Oneshot { buffer };
            entry
        };
        slot.in_flight += 1;
        self.push(entry.user_data(pack(KIND_RECEIVE, key)));
    }

    fn receive_into(&mut self, key: Key, mut buffer: BytesMut, bytes_max: usize) {
        let Some(slot) = self.slots.find(key) else { return };
        assert!(matches!(slot.receiving, Receiving::Nothing) && !slot.closing);
        let fd = types::Fd(raw_fd(slot));
        let spare = buffer.spare_capacity_mut();
        let bytes = spare.len().min(bytes_max).min(1 << 30) as u32;
        assert!(bytes > 0, "a direct receive needs room");
        let entry = opcode::Recv::new(fd, spare.as_mut_ptr().cast(), bytes).build();
        slot.receiving = Receiving::Into { buffer };
        slot.in_flight += 1;
        self.push(entry.user_data(pack(KIND_RECEIVE_INTO, key)));
    }

    fn stop_receiving(&mut self, key: Key) {
        let Some(slot) = self.slots.find(key) else { return };
        if let Receiving::Multishot { cancelling: cancelling @ false } = &mut slot.receiving {
            *cancelling = true;
            self.cancel(pack(KIND_RECEIVE, key));
        }
    }

    fn is_receiving(&mut self, key: Key) -> bool {
        self.slots.find(key).is_some_and(|slot| !matches!(slot.receiving, Receiving::Nothing))
    }

    fn send(&mut self, key: Key, bytes: Bytes) {
        let Some(slot) = self.slots.find(key) else { return };
        assert!(slot.sending.is_none() && !slot.closing && !bytes.is_empty());
        slot.sending = Some(Sending { rest: bytes });
        slot.in_flight += 1;
        self.push_send(key);
    }

    fn is_sending(&mut self, key: Key) -> bool {
        self.slots.find(key).is_some_and(|slot| slot.sending.is_some())
    }

    fn finish_sending(&mut self, key: Key) {
        if let Some(fd) = self.slots.find(key).and_then(|slot| slot.fd.as_ref()) {
            let _ = rustix::net::shutdown(fd, Shutdown::Write);
        }
    }

    fn reset(&mut self, key: Key) {
        if let Some(fd) = self.slots.find(key).and_then(|slot| slot.fd.as_ref()) {
            let _ = rustix::net::sockopt::set_socket_linger(fd, Some(Duration::ZERO));
        }
        self.close(key);
    }

    fn close(&mut self, key: Key) {
        let Some(slot) = self.slots.find(key) else { return };
        slot.closing = true;
        if slot.in_flight > 0
            && let Some(fd) = &slot.fd
        {
            // Ends the operations in flight, on every kernel and without a cancel for each.
            let _ = rustix::net::shutdown(fd, Shutdown::Both);
        }
        self.slots.free_if_idle(key.index);
    }

    // --- datagrams ---

    fn open_datagrams(&mut self, socket: OwnedFd) -> io::Result<u16> {
        if self.datagrams.is_none() {
            let ring = self.ring.as_ref().expect("the ring lives until drop");
            let multishot = self.provided.is_some();
            let datagrams = Datagrams::new(&ring.submitter(), multishot, self.datagram_buffers)?;
            self.datagrams = Some(Box::new(datagrams));
        }
        self.datagrams().open(socket)
    }

    fn receive_datagrams(&mut self, socket: u16) {
        match self.datagrams().arm(socket) {
            Armed::By(entry) => self.push(entry),
            Armed::Already => {}
            Armed::NoBuffers => {
                let end = self.end_of(-libc::ENOBUFS);
                self.done.push_back(Done::DatagramsEnded { socket, end });
            }
        }
    }

    fn datagram_room(&self, socket: u16) -> usize {
        self.datagrams.as_ref().map_or(0, |datagrams| datagrams.room(socket))
    }

    fn send_datagrams(&mut self, socket: u16, departure: Departure) {
        departure.assert_possible();
        assert!(self.datagram_room(socket) > 0, "more sends than there is room for");
        let entry = self.datagrams().send(socket, departure);
        self.push(entry);
    }

    fn close_datagrams(&mut self, socket: u16) {
        if let Some(target) = self.datagrams().close(socket) {
            self.cancel(target);
        }
    }

    fn arrival(&self, chunk: &Chunk) -> Arrival {
        match (chunk, &self.datagrams) {
            (Chunk::Datagrams { buffer, bytes }, Some(all)) => all.arrival(*buffer, *bytes),
            _ => unreachable!("a stream's bytes come from nowhere else than its peer"),
        }
    }

    fn bytes<'a>(&'a self, chunk: &'a Chunk) -> &'a [u8] {
        match (chunk, &self.provided, &self.datagrams) {
            (Chunk::Owned(buffer), ..) => buffer,
            (Chunk::Provided { buffer, bytes }, Some(all), _) => all.bytes(*buffer, *bytes),
            (Chunk::Datagrams { buffer, bytes }, _, Some(all)) => all.bytes(*buffer, *bytes),
            _ => &[],
        }
    }

    fn bytes_mut<'a>(&'a mut self, chunk: &'a mut Chunk) -> &'a mut [u8] {
        match (chunk, &mut self.provided) {
            (Chunk::Owned(buffer), _) => buffer,
            (Chunk::Provided { buffer, bytes }, Some(provided)) => {
                provided.bytes_mut(*buffer, *bytes)
            }
            (Chunk::Provided { .. } | Chunk::Datagrams { .. }, _) => &mut [],
        }
    }

    fn lend(&mut self, chunk: Chunk) -> Result<BytesMut, Chunk> {
        let lent = match (&chunk, &mut self.datagrams) {
            (Chunk::Datagrams { buffer, bytes }, Some(all)) => all.lend(*buffer, *bytes),
            _ => None,
        };
        lent.ok_or(chunk)
    }

    fn give_back(&mut self, chunk: Chunk) {
        match (chunk, &mut self.provided, &mut self.datagrams) {
            (Chunk::Provided { buffer, .. }, Some(provided), _) => provided.give_back(buffer),
            (Chunk::Datagrams { buffer, .. }, _, Some(all)) => all.give_back(buffer),
            _ => {}
        }
    }

    // --- the wait ---

    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.stats.enters += 1;
        if let Some(datagrams) = &mut self.datagrams {
            datagrams.take_back();
        }
        let ring = self.ring.as_mut().expect("the ring lives until drop");
        let waited = match timeout {
            Some(Duration::ZERO) => ring.submit(),
            Some(timeout) => {
                let timespec = types::Timespec::from(timeout);
                let arguments = types::SubmitArgs::new().timespec(&timespec);
                ring.submitter().submit_with_args(1, &arguments)
            }
            None => ring.submit_and_wait(1),
        };
        let outcome = match waited {
            Ok(_) => Ok(()),
            Err(error) => match error.raw_os_error() {
                // A full completion queue (EBUSY) is emptied below, like any other.
                Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
                _ => Err(error),
            },
        };
        self.reap();
        while !self.completions.is_empty() {
            // Completing may push, and pushing may reap more.
            let mut completions = std::mem::take(&mut self.completions);
            for (user_data, result, flags) in completions.drain(..) {
                self.complete(user_data, result, flags);
            }
            if self.completions.is_empty() {
                self.completions = completions;
            }
        }
        outcome
    }

    fn next_done(&mut self) -> Option<Done<OwnedFd>> {
        self.done.pop_front()
    }
}

impl Uring {
    /// Takes the completions out of the kernel's queue, so that it has room again.
    fn reap(&mut self) {
        let ring = self.ring.as_mut().expect("the ring lives until drop");
        let mut queue = ring.completion();
        self.stats.cq_overflows = u64::from(queue.overflow());
        let before = self.completions.len();
        self.completions
            .extend(queue.by_ref().map(|entry| (entry.user_data(), entry.result(), entry.flags())));
        self.stats.completions += (self.completions.len() - before) as u64;
    }

    fn complete(&mut self, user_data: u64, result: i32, flags: u32) {
        let more = cqueue::more(flags);
        if !more {
            self.in_flight -= 1;
        }
        let (kind, key) = unpack(user_data);
        match kind {
            KIND_ACCEPT => self.accepted(key.index as u16, result, more),
            KIND_WAKE => {
                self.wake.awake();
                self.done.push_back(Done::Woken);
                // Cancelled only when the ring is dropped; whatever else ends it, it goes on.
                if result != -libc::ECANCELED {
                    self.arm_wake();
                }
            }
            KIND_RECEIVE => self.received(key, result, flags, more),
            KIND_RECEIVE_INTO => self.received_into(key, result),
            KIND_SEND => self.sent(key, result),
            KIND_RECEIVE_DATAGRAMS => self.datagrams_received(key.index as u16, result, flags),
            KIND_SEND_DATAGRAMS => self.datagrams_sent(key.index, result),
            _ => {}
        }
    }

    fn accepted(&mut self, listener: u16, result: i32, more: bool) {
        if result >= 0 {
            // SAFETY: a successful accept returns a new descriptor that nobody else owns.
            let socket = unsafe { OwnedFd::from_raw_fd(result) };
            self.done.push_back(Done::Accepted { listener, socket });
        }
        if !more {
            self.acceptors[usize::from(listener)].armed = false;
            let error = (result < 0 && result != -libc::ECANCELED)
                .then(|| io::Error::from_raw_os_error(-result));
            self.done.push_back(Done::AcceptEnded { listener, error });
        }
    }

    fn received(&mut self, key: Key, result: i32, flags: u32, more: bool) {
        match &mut self.provided {
            Some(provided) if result == -libc::ENOBUFS => provided.starved(),
            _ => {}
        }
        let slot = self.slots.in_use(key);
        let receiving = match more {
            true => None,
            false => Some(std::mem::replace(&mut slot.receiving, Receiving::Nothing)),
        };
        if !more {
            slot.in_flight -= 1;
        }
        let closing = slot.closing;
        let chunk = match (receiving, cqueue::buffer_select(flags)) {
            (_, Some(buffer)) => Some(Chunk::Provided { buffer, bytes: result.max(0) as u32 }),
            (Some(Receiving::Oneshot { mut buffer }), None) if result > 0 => {
                // SAFETY: the kernel wrote `result` bytes into the capacity it was lent.
                unsafe { buffer.set_len(result as usize) };
                Some(Chunk::Owned(buffer))
            }
            _ => None,
        };
        match chunk {
            Some(chunk) if closing || result <= 0 => self.give_back(chunk),
            Some(chunk) => self.done.push_back(Done::Received { key, chunk }),
            None => {}
        }
        if closing {
            self.slots.free_if_idle(key.index);
        } else if !more {
            let end = self.end_of(result);
            self.done.push_back(Done::ReceiveEnded { key, end });
        }
    }

    fn received_into(&mut self, key: Key, result: i32) {
        let slot = self.slots.in_use(key);
        slot.in_flight -= 1;
        let Receiving::Into { mut buffer } =
            std::mem::replace(&mut slot.receiving, Receiving::Nothing)
        else {
            unreachable!("a direct receive completes a direct receive");
        };
        if slot.closing {
            self.slots.free_if_idle(key.index);
        } else if result > 0 {
            // SAFETY: the kernel wrote `result` bytes behind the buffer's length, inside the
            // capacity that it was lent.
            unsafe { buffer.set_len(buffer.len() + result as usize) };
            self.done.push_back(Done::ReceivedInto { key, buffer });
        } else {
            let end = self.end_of(result);
            self.done.push_back(Done::ReceiveIntoEnded { key, buffer, end });
        }
    }

    fn end_of(&mut self, result: i32) -> End {
        match -result {
            0 => End::Eof,
            libc::ENOBUFS => {
                self.stats.no_buffers += 1;
                End::NoBuffers
            }
            libc::ECANCELED | libc::EINTR | libc::EAGAIN => End::Again,
            errno if errno < 0 => End::Again,
            errno => End::Failed(io::Error::from_raw_os_error(errno)),
        }
    }

    fn sent(&mut self, key: Key, result: i32) {
        let slot = self.slots.in_use(key);
        let Some(sending) = &mut slot.sending else {
            unreachable!("a send completes a send");
        };
        if result > 0 {
            sending.rest.advance(result as usize);
        }
        let unfinished = result > 0 && !sending.rest.is_empty();
        let interrupted = matches!(-result, libc::EINTR | libc::EAGAIN);
        if (unfinished || interrupted) && !slot.closing {
            self.push_send(key);
            return;
        }
        slot.in_flight -= 1;
        slot.sending = None;
        if slot.closing {
            self.slots.free_if_idle(key.index);
        } else if result < 0 {
            let error = io::Error::from_raw_os_error(-result);
            self.done.push_back(Done::SendFailed { key, error });
        } else {
            self.done.push_back(Done::Sent { key });
        }
    }

    /// # Panics
    /// If no datagram socket was ever opened, and so none can be named.
    fn datagrams(&mut self) -> &mut Datagrams {
        self.datagrams.as_mut().expect("the socket was opened on this ring")
    }

    // --- submission ---

    fn push_send(&mut self, key: Key) {
        let slot = self.slots.in_use(key);
        let rest = &slot.sending.as_ref().expect("a send is in flight").rest;
        let entry = opcode::Send::new(types::Fd(raw_fd(slot)), rest.as_ptr(), rest.len() as u32)
            .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL)
            .build();
        self.push(entry.user_data(pack(KIND_SEND, key)));
    }

    fn arm_wake(&mut self) {
        let counter: *mut u64 = &mut *self.wake_counter;
        let entry = opcode::Read::new(types::Fd(self.wake.raw_fd()), counter.cast(), 8).build();
        self.push(entry.user_data(pack(KIND_WAKE, NOBODY)));
    }

    fn cancel(&mut self, target: u64) {
        let entry = opcode::AsyncCancel::new(target).build();
        self.push(entry.user_data(pack(KIND_CANCEL, NOBODY)));
    }

    fn push(&mut self, entry: Entry) {
        self.in_flight += 1;
        loop {
            let ring = self.ring.as_mut().expect("the ring lives until drop");
            // SAFETY: what `entry` points at is owned by a slot, by `wake_counter` or by
            // `datagrams` until the operation's last completion: see `received`,
            // `received_into`, `sent` and `Datagrams`.
            if unsafe { ring.submission().push(&entry) }.is_ok() {
                break;
            }
            // Full: hand over what is queued. The kernel takes it all, or says that completions
            // wait first.
            if ring.submit().is_err() {
                self.reap();
            }
        }
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        for fd in self.slots.sockets() {
            let _ = rustix::net::shutdown(fd, Shutdown::Both);
        }
        for socket in 0..self.datagrams.as_ref().map_or(0, |all| all.sockets()) {
            self.close_datagrams(socket);
        }
        self.stop_listening();
        self.cancel(pack(KIND_WAKE, NOBODY));
        // A dropped ring's operations end in their own time: wait for them, but not for ever.
        for _ in 0..100 {
            if self.in_flight == 0 || self.wait(Some(Duration::from_millis(10))).is_err() {
                break;
            }
            self.done.clear();
        }
        self.ring = None;
        if self.in_flight > 0 {
            std::mem::forget(std::mem::take(&mut self.slots));
            std::mem::forget(self.provided.take());
            std::mem::forget(self.datagrams.take());
            std::mem::forget(std::mem::take(&mut self.wake_counter));
        }
    }
}

/// A message of no parts.
fn empty_message() -> libc::msghdr {
    // SAFETY: a message is numbers and pointers, for which zero bytes are 0 and null.
    unsafe { std::mem::zeroed() }
}
