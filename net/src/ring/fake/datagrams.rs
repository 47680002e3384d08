//! Datagram sockets as the fake ring serves them. No datagram is lost unless the
//! [`Temper`](super::Temper) says so; but they overtake each other, both ways, those of one sender
//! are put together or not, receiving ends for no reason, and sends end in any order.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;

use super::line::{FakeSocket, World};
use super::slot::Buffers;
use crate::datagrams::Datagram;
use crate::ring::datagrams::{
    ARRIVAL_BYTES_MAX, Arrival, Departure, SENDS_MAX, TRAIN_SEGMENTS_MAX,
};

/// What is on its way to a datagram socket, and from it.
#[derive(Default)]
pub(super) struct Post {
    up: VecDeque<Datagram>,
    down: VecDeque<Departure>,
    is_left: bool,
}

impl Post {
    pub(super) fn leave(&mut self) {
        self.is_left = true;
        self.up.clear();
    }

    pub(super) fn is_left(&self) -> bool {
        self.is_left
    }
}

/// All who send to a datagram socket and hear from it, whatever their addresses.
pub struct Everybody {
    world: Rc<RefCell<World>>,
    post: usize,
}

impl Everybody {
    pub(super) fn new(world: Rc<RefCell<World>>, post: usize) -> Everybody {
        Everybody { world, post }
    }

    /// Sends a datagram to the socket; it is lost if the socket is closed.
    pub fn send(&self, datagram: Datagram) {
        assert!(datagram.bytes.len() <= ARRIVAL_BYTES_MAX, "no datagram is so long");
        let post = &mut self.world.borrow_mut().posts[self.post];
        if !post.is_left {
            post.up.push_back(datagram);
        }
    }

    /// The next datagram that the socket sent, a single one.
    pub fn receive(&self) -> Option<Departure> {
        self.world.borrow_mut().posts[self.post].down.pop_front()
    }
}

/// A receive's completion that is not shown yet.
enum Got {
    Datagrams { buffer: u16, bytes: u32, more: bool },
    Truncated,
    End(i32),
}

/// What a shown completion of a receive says.
#[derive(Default)]
pub(super) struct Shown {
    pub(super) chunk: Option<(u16, u32)>,
    pub(super) end: Option<i32>,
    pub(super) is_truncated: bool,
}

pub(super) struct Datagrams {
    buffers: Buffers,
    /// By buffer.
    arrivals: Vec<Option<Arrival>>,
    sockets: Vec<Socket>,
}

struct Socket {
    /// None: closed.
    socket: Option<FakeSocket>,
    closing: bool,
    is_armed: bool,
    /// The receive has its last completion.
    is_over: bool,
    got: VecDeque<Got>,
    sending: Vec<Departure>,
    /// An errno each, or 0.
    sent: VecDeque<i32>,
}

impl Datagrams {
    pub(super) fn new(buffers: u16) -> Datagrams {
        Datagrams {
            buffers: Buffers::new(buffers, ARRIVAL_BYTES_MAX as u32),
            arrivals: vec![None; usize::from(buffers)],
            sockets: Vec::new(),
        }
    }

    pub(super) fn open(&mut self, socket: FakeSocket) -> io::Result<u16> {
        if self.arrivals.is_empty() {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        self.sockets.push(Socket {
            socket: Some(socket),
            closing: false,
            is_armed: false,
            is_over: false,
            got: VecDeque::new(),
            sending: Vec::new(),
            sent: VecDeque::new(),
        });
        Ok(self.sockets.len() as u16 - 1)
    }

    pub(super) fn receive(&mut self, number: u16) {
        let socket = &mut self.sockets[usize::from(number)];
        if !socket.closing && !socket.is_armed {
            (socket.is_armed, socket.is_over) = (true, false);
        }
    }

    pub(super) fn room(&self, number: u16) -> usize {
        let socket = &self.sockets[usize::from(number)];
        let in_flight = socket.sending.len() + socket.sent.len();
        if socket.closing { 0 } else { SENDS_MAX - in_flight }
    }

    pub(super) fn send(&mut self, number: u16, departure: Departure) {
        departure.assert_possible();
        assert!(self.room(number) > 0, "more sends than there is room for");
        self.sockets[usize::from(number)].sending.push(departure);
    }

    pub(super) fn close(&mut self, number: u16) {
        let socket = &mut self.sockets[usize::from(number)];
        assert!(!socket.closing, "datagram socket {number} is closed");
        socket.closing = true;
        socket.free_if_idle();
    }

    pub(super) fn arrival(&self, buffer: u16) -> Arrival {
        self.arrivals[usize::from(buffer)].expect("datagrams lie in this buffer")
    }

    pub(super) fn bytes(&self, buffer: u16, bytes: u32) -> &[u8] {
        self.buffers.bytes(buffer, bytes)
    }

    pub(super) fn take_out(&mut self, buffer: u16) {
        self.buffers.take_out(buffer);
    }

    pub(super) fn give_back(&mut self, buffer: u16) {
        self.arrivals[usize::from(buffer)] = None;
        self.buffers.give_back(buffer);
    }

    // --- the kernel's part ---

    /// Says whether something is under way that needs nobody else.
    pub(super) fn work(&mut self, multishot: bool, world: &mut World) -> bool {
        let mut waits = false;
        for socket in &mut self.sockets {
            waits |= socket.work_receive(multishot, &mut self.buffers, &mut self.arrivals, world);
            waits |= socket.work_send(world);
        }
        waits
    }

    pub(super) fn with_receives(&self) -> impl Iterator<Item = usize> {
        (0..self.sockets.len()).filter(|index| !self.sockets[*index].got.is_empty())
    }

    pub(super) fn with_sends(&self) -> impl Iterator<Item = usize> {
        (0..self.sockets.len()).filter(|index| !self.sockets[*index].sent.is_empty())
    }

    /// The first completion of a receive, and whether there are more.
    pub(super) fn show_receive(&mut self, index: usize) -> (Shown, bool) {
        let socket = &mut self.sockets[index];
        let mut shown = Shown::default();
        match socket.got.pop_front() {
            Some(Got::Datagrams { buffer, bytes, more }) => {
                if socket.closing {
                    self.buffers.free(buffer);
                } else {
                    shown.chunk = Some((buffer, bytes));
                }
                shown.end = (!more).then_some(libc::EAGAIN);
            }
            Some(Got::Truncated) => shown.is_truncated = true,
            Some(Got::End(errno)) => shown.end = Some(errno),
            None => {}
        }
        if shown.end.is_some() {
            socket.is_armed = false;
        }
        if socket.closing {
            shown.end = None;
            socket.free_if_idle();
        }
        (shown, !socket.got.is_empty())
    }

    /// How the first send that is over ended, if anybody wants to know; and whether there are more.
    pub(super) fn show_send(&mut self, index: usize) -> (Option<i32>, bool) {
        let socket = &mut self.sockets[index];
        let errno = socket.sent.pop_front();
        let errno = errno.filter(|_| !socket.closing);
        socket.free_if_idle();
        (errno, !socket.sent.is_empty())
    }
}

impl Socket {
    fn free_if_idle(&mut self) {
        let sends = !self.sending.is_empty() || !self.sent.is_empty();
        if self.closing && !self.is_armed && !sends {
            self.socket = None;
        }
    }

    fn post<'a>(&self, world: &'a mut World) -> &'a mut Post {
        let socket = self.socket.as_ref().expect("a socket is open while something is in flight");
        &mut world.posts[socket.id()]
    }

    fn work_receive(
        &mut self,
        multishot: bool,
        buffers: &mut Buffers,
        arrivals: &mut [Option<Arrival>],
        world: &mut World,
    ) -> bool {
        while self.is_armed && !self.is_over {
            let is_empty = self.post(world).up.is_empty();
            if is_empty && !self.closing {
                return false;
            }
            if world.is_idle() {
                return true;
            }
            // Datagrams may come first, or not.
            if self.closing && (is_empty || world.dice.of_1000(500)) {
                self.got_last(Got::End(libc::ECANCELED));
            } else if world.dice.of_1000(world.temper.ends) {
                self.got_last(Got::End(libc::EAGAIN));
            } else if let Some(buffer) = buffers.take() {
                let (arrival, bytes) = self.arrive(world);
                if world.dice.of_1000(world.temper.truncates) {
                    buffers.free(buffer);
                    self.got.push_back(Got::Truncated);
                    continue;
                }
                buffers.fill(buffer, &bytes);
                arrivals[usize::from(buffer)] = Some(arrival);
                let (bytes, more) = (bytes.len() as u32, multishot);
                self.is_over = !more;
                self.got.push_back(Got::Datagrams { buffer, bytes, more });
            } else {
                self.got_last(Got::End(libc::ENOBUFS));
            }
        }
        false
    }

    fn got_last(&mut self, got: Got) {
        self.is_over = true;
        self.got.push_back(got);
    }

    /// Takes a datagram, or several of one sender that can be put together.
    fn arrive(&self, world: &mut World) -> (Arrival, Vec<u8>) {
        let (late, puts_together) = (world.temper.late, world.dice.of_1000(500));
        let overtakes = world.dice.of_1000(late);
        let waiting = self.post(world).up.len() as u64;
        let place = if overtakes { world.dice.below(waiting) as usize } else { 0 };
        let up = &mut self.post(world).up;
        let first = up.remove(place).expect("there is one at every place");
        let Datagram { source, local, ecn, bytes } = first;
        let segment_bytes = bytes.len().max(1);
        let mut all = bytes.to_vec();
        while puts_together
            && all.len() % segment_bytes == 0
            && all.len() / segment_bytes < TRAIN_SEGMENTS_MAX
            && let Some(next) = up.get(place)
            && (next.source, next.local, next.ecn) == (source, local, ecn)
            && (1..=segment_bytes).contains(&next.bytes.len())
            && !all.is_empty()
            && all.len() + next.bytes.len() <= ARRIVAL_BYTES_MAX
        {
            all.extend_from_slice(&next.bytes);
            up.remove(place);
        }
        (Arrival { source, local, ecn, segment_bytes }, all)
    }

    fn work_send(&mut self, world: &mut World) -> bool {
        while !self.sending.is_empty() {
            if world.is_idle() {
                return true;
            }
            let overtakes = world.dice.of_1000(world.temper.late);
            let below = if overtakes { self.sending.len() as u64 } else { 1 };
            let departure = self.sending.remove(world.dice.below(below) as usize);
            if world.dice.of_1000(world.temper.refuses) {
                let errnos = [libc::EMSGSIZE, libc::ECONNREFUSED, libc::ENOBUFS];
                self.sent.push_back(errnos[world.dice.below(3) as usize]);
                continue;
            }
            let down = &mut self.post(world).down;
            for segment in departure.bytes.chunks(departure.segment_bytes) {
                let (segment_bytes, bytes) = (segment.len(), departure.bytes.slice_ref(segment));
                down.push_back(Departure { segment_bytes, bytes, ..departure });
            }
            self.sent.push_back(0);
        }
        false
    }
}

#[cfg(test)]
mod tests;
