//! A ring without a kernel: what it does, and when, comes from a seed.
//!
//! For tests that run a whole receiver in virtual time. A [`Network`] makes listening sockets, the
//! [`FakeRing`] that serves them, and [`Client`]s for the other ends; [`Ring::wait`] moves the
//! clock. The ring behaves as badly as a kernel may, by its [`Temper`]: it receives in pieces, ends
//! multishots for no reason, finishes sends late and in parts, runs out of buffers, shows the
//! completions of different sockets in any order and some of them much later, and keeps the slot of
//! a closed socket until the last one came.
//!
//! Always
//! - The same seed and the same calls bring the same completions.
//! - Completions of one kind on one socket keep their order, and no byte is lost or changed.
//! - A caller that breaks the ring's rules is told so by a panic.
//!
//! Never: threads, sleep, a clock, a socket.

mod acceptor;
mod datagrams;
mod dice;
mod line;
mod slot;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use self::acceptor::Acceptor;
pub use self::datagrams::Everybody;
use self::datagrams::{Datagrams, Shown};
pub use self::dice::Dice;
use self::line::World;
pub use self::line::{Client, FakeSocket, LineEnd};
use self::slot::{Buffers, Got, Receiving, Slots};
use super::datagrams::{Arrival, Departure};
use super::{Chunk, Done, End, Key, Options, Ring, RingStats, Rung};
use crate::request::Nanos;
use crate::wake::Wake;

/// How long a wait takes that finds something done, at most.
const BUSY_NANOS_MAX: u64 = 50_000;

/// How badly a network behaves: chances are of 1,000, and are asked for anew each time.
#[derive(Clone, Copy, Debug)]
pub struct Temper {
    /// An operation that could go on does not, in this wait.
    pub idle: u32,
    /// A completion that is there is not shown, in this wait.
    pub late: u32,
    /// A receive or a send takes a part of what it could.
    pub short: u32,
    /// A multishot, or a direct receive, ends although nothing is wrong.
    pub ends: u32,
    /// An accept fails for want of descriptors.
    pub accept_fails: u32,
    /// A wait ends with a wake that nobody made.
    pub wakes: u32,
    /// A datagram, or what was put together of several, does not fit its buffer, and is lost.
    pub truncates: u32,
    /// The kernel refuses to send datagrams, and they are lost.
    pub refuses: u32,
    /// What a client may have on its way to the ring, and the ring to a client.
    pub socket_bytes: usize,
}

impl Temper {
    /// A network on a good day.
    pub fn calm() -> Temper {
        Temper {
            idle: 0,
            late: 0,
            short: 0,
            ends: 0,
            accept_fails: 0,
            wakes: 0,
            truncates: 0,
            refuses: 0,
            socket_bytes: 64 << 10,
        }
    }

    /// Some day between a good one and a very bad one, but no datagram is lost.
    pub fn drawn(dice: &mut Dice) -> Temper {
        let mut chance = |most: u64| match dice.below(3) {
            0 => 0,
            _ => dice.below(most) as u32,
        };
        Temper {
            idle: chance(700),
            late: chance(700),
            short: chance(1_000),
            ends: chance(400),
            accept_fails: chance(300),
            wakes: chance(200),
            truncates: 0,
            refuses: 0,
            socket_bytes: 1 << (9 + dice.below(8)),
        }
    }
}

/// The wires between clients and rings, and the clock that all of them live by.
#[derive(Clone)]
pub struct Network(Rc<RefCell<World>>);

impl Network {
    /// All that happens follows from `seed`.
    pub fn new(seed: u64, temper: Temper) -> Network {
        Network(Rc::new(RefCell::new(World::new(Dice::new(seed), temper))))
    }

    /// A listening socket, for [`Ring::listen`]. Clients name it by the order of these calls.
    pub fn listener(&self) -> FakeSocket {
        FakeSocket::listening(self.0.clone())
    }

    /// A bound datagram socket, for [`Ring::open_datagrams`], and who speaks to it.
    pub fn datagrams(&self) -> (FakeSocket, Everybody) {
        let socket = FakeSocket::bound(self.0.clone());
        let everybody = Everybody::new(self.0.clone(), socket.id());
        (socket, everybody)
    }

    /// A ring on the rung that `options` ask for.
    ///
    /// # Panics
    /// If this process may open no file: a ring's [`Wake`] is one.
    pub fn ring(&self, options: &Options) -> FakeRing {
        FakeRing::new(self.clone(), options)
    }

    /// A client's end of a new connection. `None`: nobody listens.
    pub fn connect(&self, listener: usize) -> Option<Client> {
        let line = self.0.borrow_mut().connect(listener)?;
        Some(Client::new(self.0.clone(), line))
    }

    pub fn now(&self) -> Nanos {
        self.0.borrow().now
    }

    /// The next wait ends by then, although nothing is done.
    pub fn wake_by(&self, at: Nanos) {
        let mut world = self.0.borrow_mut();
        world.alarm = world.alarm.min(at);
    }

    /// What other threads do while a ring waits: called in each wait, before it is known whether
    /// anybody used the ring's [`Wake`].
    pub fn while_waiting(&self, act: impl FnMut() + 'static) {
        self.0.borrow_mut().others = Some(Box::new(act));
    }

    fn let_others_act(&self) {
        let others = self.0.borrow_mut().others.take();
        if let Some(mut others) = others {
            others();
            self.0.borrow_mut().others.get_or_insert(others);
        }
    }

    /// # Panics
    /// If a chunk was not given back, or a connection or datagram socket not closed.
    pub fn assert_at_rest(&self) {
        let world = self.0.borrow();
        assert_eq!(world.chunks_out, 0, "chunks that nobody gave back");
        let open = world.lines.iter().filter(|line| !line.is_left_by_server()).count();
        assert_eq!(open, 0, "connections that nobody closed");
        let open = world.posts.iter().filter(|post| !post.is_left()).count();
        assert_eq!(open, 0, "datagram sockets that nobody closed");
    }
}

/// See the header.
pub struct FakeRing {
    network: Network,
    rung: Rung,
    slots: Slots,
    acceptors: Vec<Acceptor>,
    buffers: Buffers,
    datagrams: Datagrams,
    done: VecDeque<Done<FakeSocket>>,
    wake: Arc<Wake>,
    stats: RingStats,
}

/// Completions that keep their order.
#[derive(Clone, Copy)]
enum Queue {
    Accepts(usize),
    Receives(usize),
    Sends(usize),
    Datagrams(usize),
    DatagramSends(usize),
}

impl FakeRing {
    fn new(network: Network, options: &Options) -> FakeRing {
        FakeRing {
            network,
            rung: options.highest,
            slots: Slots::default(),
            acceptors: Vec::new(),
            buffers: match options.highest {
                Rung::Oneshot => Buffers::new(0, 0),
                _ => Buffers::new(options.buffers, options.buffer_bytes),
            },
            datagrams: Datagrams::new(options.datagram_buffers),
            done: VecDeque::new(),
            wake: Arc::new(Wake::new().expect("a wake is a file, and one can be opened")),
            stats: RingStats::default(),
        }
    }

    /// The kernel's part of a wait. Says whether something is under way that needs no client.
    fn work(&mut self) -> bool {
        let world = self.network.0.clone();
        let world = &mut *world.borrow_mut();
        let multishot = self.rung != Rung::Oneshot;
        let mut waits = false;
        for acceptor in &mut self.acceptors {
            waits |= acceptor.work(multishot, world);
        }
        for slot in self.slots.iter() {
            waits |= slot.work_receive(&mut self.buffers, world);
            waits |= slot.work_send(world);
        }
        waits | self.datagrams.work(multishot, world)
    }

    /// Shows completions, in an order that only keeps to each queue's own. Says whether some are
    /// still to be shown.
    fn reap(&mut self) -> bool {
        let accepts = self.acceptors.iter().enumerate();
        let accepts = accepts.filter(|(_, acceptor)| !acceptor.done.is_empty());
        let mut queues: Vec<Queue> = accepts.map(|(index, _)| Queue::Accepts(index)).collect();
        for (index, slot) in self.slots.iter().enumerate() {
            queues.extend((!slot.got.is_empty()).then_some(Queue::Receives(index)));
            queues.extend(slot.sent.is_some().then_some(Queue::Sends(index)));
        }
        queues.extend(self.datagrams.with_receives().map(Queue::Datagrams));
        queues.extend(self.datagrams.with_sends().map(Queue::DatagramSends));
        let mut waits = false;
        while !queues.is_empty() {
            let (place, is_late) = {
                let world = &mut *self.network.0.borrow_mut();
                let place = world.dice.below(queues.len() as u64) as usize;
                (place, world.dice.of_1000(world.temper.late))
            };
            let has_more = !is_late && self.show(queues[place]);
            waits |= is_late;
            if !has_more {
                queues.swap_remove(place);
            }
        }
        waits
    }

    /// The first completion of a queue. Says whether there are more.
    fn show(&mut self, queue: Queue) -> bool {
        self.stats.completions += 1;
        match queue {
            Queue::Accepts(index) => {
                self.done.extend(self.acceptors[index].done.pop_front());
                !self.acceptors[index].done.is_empty()
            }
            Queue::Receives(index) => {
                self.show_receive(index);
                !self.slots.at(index).got.is_empty()
            }
            Queue::Sends(index) => {
                self.show_send(index);
                false
            }
            Queue::Datagrams(index) => {
                let (shown, has_more) = self.datagrams.show_receive(index);
                self.show_datagrams(index as u16, &shown);
                has_more
            }
            Queue::DatagramSends(index) => {
                let (errno, has_more) = self.datagrams.show_send(index);
                let socket = index as u16;
                self.done.extend(errno.map(|errno| {
                    let error = (errno != 0).then(|| io::Error::from_raw_os_error(errno));
                    Done::DatagramsSent { socket, error }
                }));
                has_more
            }
        }
    }

    fn show_datagrams(&mut self, socket: u16, shown: &Shown) {
        self.stats.datagrams_truncated += u64::from(shown.is_truncated);
        if let Some((buffer, bytes)) = shown.chunk {
            let chunk = Chunk::Datagrams { buffer, bytes };
            self.done.push_back(Done::Datagrams { socket, chunk });
        }
        if let Some(errno) = shown.end {
            let end = self.end_of(errno);
            self.done.push_back(Done::DatagramsEnded { socket, end });
        }
    }

    fn show_receive(&mut self, index: usize) {
        let key = self.slots.key(index);
        let slot = self.slots.at(index);
        let Some(got) = slot.got.pop_front() else { return };
        let receiving = match got.is_last() {
            true => slot.end_receive(),
            false => Receiving::Nothing,
        };
        if slot.closing {
            if let Got::Provided { buffer, .. } = got {
                self.buffers.free(buffer);
            }
            return self.free_if_idle(index);
        }
        let again = || Done::ReceiveEnded { key, end: End::Again };
        match (got, receiving) {
            (Got::Provided { buffer, bytes, more }, _) => {
                let chunk = Chunk::Provided { buffer, bytes };
                self.done.push_back(Done::Received { key, chunk });
                self.done.extend((!more).then(again));
            }
            (Got::Bytes, Receiving::Oneshot { buffer }) => {
                let chunk = Chunk::Owned(buffer);
                self.done.push_back(Done::Received { key, chunk });
                self.done.push_back(again());
            }
            (Got::Bytes, Receiving::Into { buffer, .. }) => {
                self.done.push_back(Done::ReceivedInto { key, buffer });
            }
            (Got::End(errno), Receiving::Into { buffer, .. }) => {
                let end = self.end_of(errno);
                self.done.push_back(Done::ReceiveIntoEnded { key, buffer, end });
            }
            (Got::End(errno), _) => {
                let end = self.end_of(errno);
                self.done.push_back(Done::ReceiveEnded { key, end });
            }
            (Got::Bytes, _) => unreachable!("a multishot receives into provided buffers"),
        }
    }

    fn end_of(&mut self, errno: i32) -> End {
        match errno {
            0 => End::Eof,
            libc::ENOBUFS => {
                self.stats.no_buffers += 1;
                End::NoBuffers
            }
            libc::ECANCELED | libc::EAGAIN => End::Again,
            errno => End::Failed(io::Error::from_raw_os_error(errno)),
        }
    }

    fn show_send(&mut self, index: usize) {
        let key = self.slots.key(index);
        let slot = self.slots.at(index);
        let Some(errno) = slot.sent.take() else { return };
        slot.sending = None;
        slot.in_flight -= 1;
        if slot.closing {
            return self.free_if_idle(index);
        }
        self.done.push_back(match errno {
            0 => Done::Sent { key },
            errno => Done::SendFailed { key, error: io::Error::from_raw_os_error(errno) },
        });
    }

    fn free_if_idle(&mut self, index: usize) {
        // The socket closes here, and the other end learns of it.
        drop(self.slots.free_if_idle(index));
    }

    /// Lets time pass: a moment if something was or is to be done, else all that there is.
    fn pass(&mut self, timeout: Option<Duration>, is_busy: bool) {
        let world = &mut *self.network.0.borrow_mut();
        let alarm = std::mem::replace(&mut world.alarm, Nanos::MAX);
        let until = timeout
            .map_or(Nanos::MAX, |timeout| world.now.saturating_add(timeout.as_nanos() as Nanos));
        let until = until.min(alarm.max(world.now));
        assert!(is_busy || until < Nanos::MAX, "a wait without an end");
        let moment = 1 + world.dice.below(BUSY_NANOS_MAX);
        world.now = match is_busy {
            true => world.now + moment.min(until - world.now),
            false => until,
        };
    }
}

impl Ring for FakeRing {
    type Socket = FakeSocket;

    fn rung(&self) -> Rung {
        self.rung
    }

    fn stats(&self) -> RingStats {
        self.stats
    }

    fn wake(&self) -> Arc<Wake> {
        self.wake.clone()
    }

    fn listen(&mut self, socket: FakeSocket) -> u16 {
        let listener = self.acceptors.len() as u16;
        self.acceptors.push(Acceptor::new(listener, socket));
        self.accept(listener);
        listener
    }

    fn accept(&mut self, listener: u16) {
        self.acceptors[usize::from(listener)].arm();
    }

    fn accept_everywhere(&mut self) {
        self.acceptors.iter_mut().for_each(Acceptor::arm);
    }

    fn stop_listening(&mut self) {
        self.acceptors.iter_mut().for_each(Acceptor::stop);
    }

    fn open(&mut self, socket: FakeSocket) -> Key {
        self.slots.open(socket)
    }

    fn receive(&mut self, key: Key) {
        let multishot = self.rung != Rung::Oneshot;
        let slot = self.slots.open_at(key);
        if matches!(slot.receiving, Receiving::Nothing) {
            slot.begin_receive(match multishot {
                true => Receiving::Multishot { cancelling: false },
                false => Receiving::Oneshot { buffer: BytesMut::new() },
            });
        }
    }

    fn receive_into(&mut self, key: Key, buffer: BytesMut, bytes_max: usize) {
        let slot = self.slots.open_at(key);
        assert!(matches!(slot.receiving, Receiving::Nothing), "one receive at a time");
        assert!(buffer.capacity() > buffer.len() && bytes_max > 0, "a direct receive needs room");
        slot.begin_receive(Receiving::Into { buffer, bytes_max });
    }

    fn stop_receiving(&mut self, key: Key) {
        if let Receiving::Multishot { cancelling } = &mut self.slots.open_at(key).receiving {
            *cancelling = true;
        }
    }

    fn is_receiving(&mut self, key: Key) -> bool {
        !matches!(self.slots.open_at(key).receiving, Receiving::Nothing)
    }

    fn send(&mut self, key: Key, bytes: Bytes) {
        let slot = self.slots.open_at(key);
        assert!(slot.sending.is_none(), "one send at a time");
        assert!(!bytes.is_empty(), "a send of nothing");
        assert!(!slot.has_finished, "a send after the last");
        slot.sending = Some(bytes);
        slot.in_flight += 1;
    }

    fn is_sending(&mut self, key: Key) -> bool {
        self.slots.open_at(key).sending.is_some()
    }

    fn finish_sending(&mut self, key: Key) {
        let slot = self.slots.open_at(key);
        assert!(slot.sending.is_none(), "the last send is not over");
        slot.has_finished = true;
        self.network.0.borrow_mut().lines[slot.line()].finish_down();
    }

    fn reset(&mut self, key: Key) {
        self.slots.open_at(key).reset_on_close();
        self.close(key);
    }

    fn close(&mut self, key: Key) {
        let slot = self.slots.open_at(key);
        slot.closing = true;
        if slot.in_flight > 0 {
            self.network.0.borrow_mut().lines[slot.line()].finish_down();
        }
        self.free_if_idle(key.index as usize);
    }

    fn open_datagrams(&mut self, socket: FakeSocket) -> io::Result<u16> {
        self.datagrams.open(socket)
    }

    fn receive_datagrams(&mut self, socket: u16) {
        self.datagrams.receive(socket);
    }

    fn datagram_room(&self, socket: u16) -> usize {
        self.datagrams.room(socket)
    }

    fn send_datagrams(&mut self, socket: u16, departure: Departure) {
        self.datagrams.send(socket, departure);
    }

    fn close_datagrams(&mut self, socket: u16) {
        self.datagrams.close(socket);
    }

    fn arrival(&self, chunk: &Chunk) -> Arrival {
        match chunk {
            Chunk::Datagrams { buffer, .. } => self.datagrams.arrival(*buffer),
            _ => panic!("a stream's bytes come from nowhere else than its peer"),
        }
    }

    fn bytes<'a>(&'a self, chunk: &'a Chunk) -> &'a [u8] {
        match chunk {
            Chunk::Owned(bytes) => bytes,
            Chunk::Provided { buffer, bytes } => self.buffers.bytes(*buffer, *bytes),
            Chunk::Datagrams { buffer, bytes } => self.datagrams.bytes(*buffer, *bytes),
        }
    }

    fn bytes_mut<'a>(&'a mut self, chunk: &'a mut Chunk) -> &'a mut [u8] {
        match chunk {
            Chunk::Owned(bytes) => bytes,
            Chunk::Provided { buffer, bytes } => self.buffers.bytes_mut(*buffer, *bytes),
            Chunk::Datagrams { .. } => panic!("datagrams are read, not changed"),
        }
    }

    fn lend(&mut self, chunk: Chunk) -> Result<BytesMut, Chunk> {
        let is_lent = self.network.0.borrow_mut().dice.of_1000(500);
        if !is_lent {
            return Err(chunk);
        }
        let lent = BytesMut::from(self.bytes(&chunk));
        self.give_back(chunk);
        Ok(lent)
    }

    fn give_back(&mut self, chunk: Chunk) {
        self.network.0.borrow_mut().chunks_out -= 1;
        match chunk {
            Chunk::Owned(_) => {}
            Chunk::Provided { buffer, .. } => self.buffers.give_back(buffer),
            Chunk::Datagrams { buffer, .. } => self.datagrams.give_back(buffer),
        }
    }

    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.stats.enters += 1;
        let works = self.work();
        let waits = self.reap();
        let was_sleeping = self.wake.is_sleeping();
        self.network.let_others_act();
        let is_woken = was_sleeping && !self.wake.is_sleeping();
        if is_woken {
            self.wake.take();
        }
        let is_startled = {
            let world = &mut *self.network.0.borrow_mut();
            world.dice.of_1000(world.temper.wakes)
        };
        self.done.extend((is_woken || is_startled).then_some(Done::Woken));
        self.pass(timeout, works || waits || !self.done.is_empty());
        Ok(())
    }

    fn next_done(&mut self) -> Option<Done<FakeSocket>> {
        let done = self.done.pop_front();
        if let Some(Done::Received { chunk, .. } | Done::Datagrams { chunk, .. }) = &done {
            self.network.0.borrow_mut().chunks_out += 1;
            match chunk {
                Chunk::Owned(_) => {}
                Chunk::Provided { buffer, .. } => self.buffers.take_out(*buffer),
                Chunk::Datagrams { buffer, .. } => self.datagrams.take_out(*buffer),
            }
        }
        done
    }
}

#[cfg(test)]
mod tests;
