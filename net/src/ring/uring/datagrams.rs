//! The datagram sockets of the kernel's ring, and what is in flight on them.
//!
//! A receive brings everything in one buffer: a head that says how long the parts are, the
//! source's address, control messages, payload. The multishot lays it out like this, and where a
//! kernel has none, one receive at a time into a buffer that we take ourselves does the same.
//!
//! A send in flight is a [`Parcel`]: it owns all that the kernel reads. The kernel cuts a train
//! into datagrams. Where it will not (no checksum offload, an old kernel) they go out one by one,
//! and if that works the socket's later trains do so from the start.
//!
//! Always
//! - A parcel stays in its box, untouched, from its submission to its completion.
//! - A socket is closed when nothing is in flight on it.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use bytes::{Buf, Bytes, BytesMut};
use io_uring::squeue::Entry;
use io_uring::{Submitter, cqueue, opcode, types};

use super::super::control::{self, CONTROL_BYTES, NAME_BYTES, Written};
use super::super::datagrams::{ARRIVAL_BYTES_MAX, Arrival, Departure, SENDS_MAX};
use super::super::provided::{GROUP_DATAGRAMS, Provided};
use super::super::slots::{KIND_RECEIVE_DATAGRAMS, KIND_SEND_DATAGRAMS, pack_index};
use super::{Uring, empty_message};
use crate::ring::{Chunk, Done, End};

/// Four numbers: the lengths of address, control messages and payload, and flags.
const HEAD_BYTES: usize = 16;
const CONTROL_OFFSET: usize = HEAD_BYTES + NAME_BYTES;
const PAYLOAD_OFFSET: usize = CONTROL_OFFSET + CONTROL_BYTES;
/// Whole pages, so that a small datagram touches one.
const BUFFER_BYTES: usize = (PAYLOAD_OFFSET + ARRIVAL_BYTES_MAX).next_multiple_of(4096);

const _: () = assert!(CONTROL_OFFSET.is_multiple_of(8), "control messages stand at words");

pub(super) struct Datagrams {
    buffers: Provided,
    is_multishot: bool,
    /// For every multishot: which parts are wanted.
    shape: Box<libc::msghdr>,
    sockets: Vec<Socket>,
    #[expect(clippy::vec_box, reason = "the kernel knows a parcel by its place")]
    parcels: Vec<Box<Parcel>>,
    free: Vec<u32>,
}

struct Socket {
    /// None: closed.
    fd: Option<OwnedFd>,
    is_ipv6: bool,
    closing: bool,
    receiving: Receiving,
    /// Where a one-shot receive puts the parts.
    places: Box<Places>,
    sends: usize,
    cuts_trains_itself: bool,
}

enum Receiving {
    Nothing,
    Multishot,
    Oneshot { buffer: u16 },
}

struct Places {
    message: libc::msghdr,
    payload: libc::iovec,
}

/// Datagrams on their way to the kernel, and everything that it reads of them.
struct Parcel {
    socket: u16,
    message: libc::msghdr,
    payload: libc::iovec,
    name: [u8; NAME_BYTES],
    control: Written,
    /// Its bytes are those that are not sent yet.
    departure: Departure,
    state: Train,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Train {
    /// The kernel does all of it at once.
    Whole,
    /// The kernel refused that; whether it would do one datagram is not known.
    Refused,
    /// One by one.
    Apart,
}

/// What a receive's completion comes to.
struct Received {
    chunk: Option<(u16, u32)>,
    is_truncated: bool,
    /// The caller still wants to hear of it.
    is_open: bool,
}

/// What a send's completion comes to.
enum Sent {
    GoesOn { was_refused: bool },
    Ended { socket: u16, error: Option<io::Error>, is_open: bool },
}

/// What arming a receive comes to.
pub(super) enum Armed {
    Already,
    NoBuffers,
    By(Entry),
}

impl Uring {
    pub(super) fn datagrams_received(&mut self, socket: u16, result: i32, flags: u32) {
        let received = self.datagrams().received(socket, result, flags);
        self.stats.datagrams_truncated += u64::from(received.is_truncated);
        if let Some((buffer, bytes)) = received.chunk {
            let chunk = Chunk::Datagrams { buffer, bytes };
            self.done.push_back(Done::Datagrams { socket, chunk });
        }
        if !cqueue::more(flags) && received.is_open {
            // No datagram ends a socket, not even one without a byte.
            let end = if result >= 0 { End::Again } else { self.end_of(result) };
            self.done.push_back(Done::DatagramsEnded { socket, end });
        }
    }

    pub(super) fn datagrams_sent(&mut self, parcel: u32, result: i32) {
        let (sent, entry) = self.datagrams().sent(parcel, result);
        match sent {
            Sent::GoesOn { was_refused } => self.stats.trains_refused += u64::from(was_refused),
            Sent::Ended { socket, error, is_open: true } => {
                self.done.push_back(Done::DatagramsSent { socket, error });
            }
            Sent::Ended { .. } => {}
        }
        if let Some(entry) = entry {
            self.push(entry);
        }
    }
}

impl Datagrams {
    pub(super) fn new(
        submitter: &Submitter<'_>,
        is_multishot: bool,
        buffers: u16,
    ) -> io::Result<Datagrams> {
        let buffers = Provided::lendable(buffers, BUFFER_BYTES as u32)?;
        let buffers = match is_multishot {
            true => buffers.registered(submitter, GROUP_DATAGRAMS)?,
            false => buffers,
        };
        let mut shape = Box::new(empty_message());
        shape.msg_namelen = NAME_BYTES as libc::socklen_t;
        shape.msg_controllen = CONTROL_BYTES as _;
        let (sockets, parcels, free) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Datagrams { buffers, is_multishot, shape, sockets, parcels, free })
    }

    pub(super) fn open(&mut self, fd: OwnedFd) -> io::Result<u16> {
        // A ring waits for room; a socket that does not wait would have it ask again and again.
        rustix::io::ioctl_fionbio(&fd, false)?;
        let is_ipv6 =
            rustix::net::sockopt::socket_domain(&fd)? == rustix::net::AddressFamily::INET6;
        self.sockets.push(Socket {
            fd: Some(fd),
            is_ipv6,
            closing: false,
            receiving: Receiving::Nothing,
            places: Box::new(Places { message: empty_message(), payload: no_bytes() }),
            sends: 0,
            cuts_trains_itself: false,
        });
        Ok(self.sockets.len() as u16 - 1)
    }

    pub(super) fn sockets(&self) -> u16 {
        self.sockets.len() as u16
    }

    /// Says which operation is to be cancelled, if one is.
    pub(super) fn close(&mut self, number: u16) -> Option<u64> {
        let socket = &mut self.sockets[usize::from(number)];
        let is_armed = !matches!(socket.receiving, Receiving::Nothing) && !socket.closing;
        socket.closing = true;
        socket.free_if_idle();
        is_armed.then(|| pack_index(KIND_RECEIVE_DATAGRAMS, number.into()))
    }

    // --- receiving ---

    pub(super) fn arm(&mut self, number: u16) -> Armed {
        let socket = &mut self.sockets[usize::from(number)];
        let fd = match &socket.fd {
            Some(fd) if matches!(socket.receiving, Receiving::Nothing) && !socket.closing => {
                types::Fd(fd.as_raw_fd())
            }
            _ => return Armed::Already,
        };
        let entry = if self.is_multishot {
            socket.receiving = Receiving::Multishot;
            opcode::RecvMsgMulti::new(fd, &*self.shape, GROUP_DATAGRAMS).build()
        } else {
            let Some(buffer) = self.buffers.take() else {
                self.buffers.starved();
                return Armed::NoBuffers;
            };
            socket.receiving = Receiving::Oneshot { buffer };
            let message = socket.places.lay_out(self.buffers.room_mut(buffer));
            opcode::RecvMsg::new(fd, message).build()
        };
        Armed::By(entry.user_data(pack_index(KIND_RECEIVE_DATAGRAMS, number.into())))
    }

    fn received(&mut self, number: u16, result: i32, flags: u32) -> Received {
        if result == -libc::ENOBUFS {
            self.buffers.starved();
        }
        let socket = &mut self.sockets[usize::from(number)];
        let receiving = match cqueue::more(flags) {
            true => Receiving::Multishot,
            false => std::mem::replace(&mut socket.receiving, Receiving::Nothing),
        };
        let is_open = !socket.closing;
        let chunk = match (receiving, cqueue::buffer_select(flags)) {
            (_, Some(buffer)) => Some((buffer, result.max(0) as u32)),
            (Receiving::Oneshot { buffer }, None) => {
                let lengths = socket.places.lengths(result);
                write_head(self.buffers.room_mut(buffer), lengths);
                Some((buffer, (PAYLOAD_OFFSET as i32 + result).max(0) as u32))
            }
            _ => None,
        };
        socket.free_if_idle();
        let mut received = Received { chunk: None, is_truncated: false, is_open };
        if let Some((buffer, bytes)) = chunk {
            let is_whole = result >= 0 && self.is_whole(buffer, bytes);
            received.is_truncated = result >= 0 && !is_whole;
            if is_whole && is_open {
                received.chunk = Some((buffer, bytes));
            } else {
                self.buffers.give_back(buffer);
            }
        }
        received
    }

    /// Whether all parts are there, and the source's address is one.
    fn is_whole(&self, buffer: u16, bytes: u32) -> bool {
        let parts = self.buffers.bytes(buffer, bytes);
        if parts.len() < PAYLOAD_OFFSET {
            return false;
        }
        let [name, control, payload, flags] = read_head(parts);
        name as usize <= NAME_BYTES
            && control as usize <= CONTROL_BYTES
            && payload as usize == parts.len() - PAYLOAD_OFFSET
            && flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) as u32 == 0
            && control::read_address(&parts[HEAD_BYTES..][..name as usize]).is_some()
    }

    pub(super) fn arrival(&self, buffer: u16, bytes: u32) -> Arrival {
        let parts = self.buffers.bytes(buffer, bytes);
        let [name, control, payload, _] = read_head(parts);
        let source = control::read_address(&parts[HEAD_BYTES..][..name as usize]);
        let said = control::read(&parts[CONTROL_OFFSET..][..control as usize]);
        Arrival {
            source: source.expect("datagrams without an address are not shown to anybody"),
            local: said.local,
            ecn: said.ecn,
            segment_bytes: said.segment_bytes.unwrap_or(payload as usize).max(1),
        }
    }

    pub(super) fn bytes(&self, buffer: u16, bytes: u32) -> &[u8] {
        &self.buffers.bytes(buffer, bytes)[PAYLOAD_OFFSET..]
    }

    pub(super) fn lend(&mut self, buffer: u16, bytes: u32) -> Option<BytesMut> {
        self.buffers.lend(buffer, PAYLOAD_OFFSET..bytes as usize)
    }

    pub(super) fn take_back(&mut self) {
        self.buffers.take_back();
    }

    pub(super) fn give_back(&mut self, buffer: u16) {
        self.buffers.give_back(buffer);
    }

    // --- sending ---

    pub(super) fn room(&self, number: u16) -> usize {
        let socket = &self.sockets[usize::from(number)];
        if socket.closing { 0 } else { SENDS_MAX - socket.sends }
    }

    pub(super) fn send(&mut self, number: u16, departure: Departure) -> Entry {
        let socket = &mut self.sockets[usize::from(number)];
        socket.sends += 1;
        let state = if socket.cuts_trains_itself { Train::Apart } else { Train::Whole };
        let index = self.free.pop().unwrap_or_else(|| {
            self.parcels.push(Box::new(Parcel::empty()));
            self.parcels.len() as u32 - 1
        });
        let parcel = &mut self.parcels[index as usize];
        parcel.socket = number;
        parcel.departure = departure;
        parcel.state = state;
        self.submit(index)
    }

    fn submit(&mut self, index: u32) -> Entry {
        let parcel = &mut self.parcels[index as usize];
        let socket = &self.sockets[usize::from(parcel.socket)];
        let fd = socket.fd.as_ref().expect("a socket is open while a send is in flight");
        let message = parcel.address(socket.is_ipv6);
        opcode::SendMsg::new(types::Fd(fd.as_raw_fd()), message)
            .flags(libc::MSG_NOSIGNAL as u32)
            .build()
            .user_data(pack_index(KIND_SEND_DATAGRAMS, index))
    }

    /// What became of a parcel, and what is to be submitted if it goes on.
    fn sent(&mut self, index: u32, result: i32) -> (Sent, Option<Entry>) {
        let parcel = &mut self.parcels[index as usize];
        let socket = &mut self.sockets[usize::from(parcel.socket)];
        let was_refused = parcel.is_refusal(result);
        if was_refused {
            parcel.state = Train::Refused;
        } else if result >= 0 {
            // If one goes where all together did not, it was the train that the kernel disliked.
            socket.cuts_trains_itself |= parcel.state == Train::Refused;
            parcel.advance();
        }
        let interrupted = matches!(-result, libc::EINTR | libc::EAGAIN);
        if was_refused || interrupted || (result >= 0 && !parcel.departure.bytes.is_empty()) {
            let entry = self.submit(index);
            return (Sent::GoesOn { was_refused }, Some(entry));
        }
        parcel.departure.bytes = Bytes::new();
        socket.sends -= 1;
        let number = parcel.socket;
        self.free.push(index);
        let is_open = !socket.closing;
        socket.free_if_idle();
        let error = (result < 0).then(|| io::Error::from_raw_os_error(-result));
        (Sent::Ended { socket: number, error, is_open }, None)
    }
}

impl Socket {
    fn free_if_idle(&mut self) {
        if self.closing && self.sends == 0 && matches!(self.receiving, Receiving::Nothing) {
            self.fd = None;
        }
    }
}

impl Places {
    /// Points at the parts of `buffer`.
    fn lay_out(&mut self, buffer: &mut [u8]) -> *mut libc::msghdr {
        let (head, payload) = buffer.split_at_mut(PAYLOAD_OFFSET);
        let (head, control) = head.split_at_mut(CONTROL_OFFSET);
        self.payload = libc::iovec {
            iov_base: payload.as_mut_ptr().cast(),
            iov_len: payload.len().min(ARRIVAL_BYTES_MAX),
        };
        self.message = empty_message();
        self.message.msg_name = head[HEAD_BYTES..].as_mut_ptr().cast();
        self.message.msg_namelen = NAME_BYTES as libc::socklen_t;
        self.message.msg_control = control.as_mut_ptr().cast();
        self.message.msg_controllen = CONTROL_BYTES as _;
        self.message.msg_iov = &mut self.payload;
        self.message.msg_iovlen = 1;
        &mut self.message
    }

    /// What the kernel wrote there, as a multishot would say it.
    fn lengths(&self, result: i32) -> [u32; 4] {
        let message = &self.message;
        let control = message.msg_controllen as u32;
        [message.msg_namelen, control, result.max(0) as u32, message.msg_flags as u32]
    }
}

fn write_head(buffer: &mut [u8], numbers: [u32; 4]) {
    for (place, number) in buffer.chunks_exact_mut(4).zip(numbers) {
        place.copy_from_slice(&number.to_ne_bytes());
    }
}

fn read_head(parts: &[u8]) -> [u32; 4] {
    let mut numbers = [0; 4];
    for (number, place) in numbers.iter_mut().zip(parts.as_chunks().0) {
        *number = u32::from_ne_bytes(*place);
    }
    numbers
}

impl Parcel {
    fn empty() -> Parcel {
        let nowhere = std::net::SocketAddr::from(([0; 4], 0));
        Parcel {
            socket: 0,
            message: empty_message(),
            payload: no_bytes(),
            name: [0; NAME_BYTES],
            control: Written::new(),
            departure: Departure {
                to: nowhere,
                from: None,
                ecn: 0,
                segment_bytes: 1,
                bytes: Bytes::new(),
            },
            state: Train::Whole,
        }
    }

    /// Writes the address on it, and how the kernel is to cut what it carries.
    fn address(&mut self, is_ipv6: bool) -> *const libc::msghdr {
        let Departure { to, from, ecn, segment_bytes, .. } = self.departure;
        // A train's segments are shorter than the train, and that fits two bytes.
        self.control.write(&to, from, ecn, self.is_to_be_cut().then_some(segment_bytes as u16));
        let name_bytes = control::write_address(&to, is_ipv6, &mut self.name);
        let (rest, iov_len) = (&self.departure.bytes, self.now_bytes());
        self.payload = libc::iovec { iov_base: rest.as_ptr().cast_mut().cast(), iov_len };
        let control = self.control.bytes();
        self.message.msg_control = control.as_ptr().cast_mut().cast();
        self.message.msg_controllen = control.len() as _;
        self.message.msg_name = self.name.as_mut_ptr().cast();
        self.message.msg_namelen = name_bytes as libc::socklen_t;
        self.message.msg_iov = &mut self.payload;
        self.message.msg_iovlen = 1;
        &self.message
    }

    /// How much of the rest goes with the next submission.
    fn now_bytes(&self) -> usize {
        let Departure { segment_bytes, ref bytes, .. } = self.departure;
        match self.state {
            Train::Whole => bytes.len(),
            Train::Refused | Train::Apart => bytes.len().min(segment_bytes),
        }
    }

    fn advance(&mut self) {
        let sent_bytes = self.now_bytes();
        self.departure.bytes.advance(sent_bytes);
        if self.state == Train::Refused {
            self.state = Train::Apart;
        }
    }

    /// Whether the kernel is told to cut it.
    fn is_to_be_cut(&self) -> bool {
        self.state == Train::Whole && self.departure.bytes.len() > self.departure.segment_bytes
    }

    /// Whether the kernel may have disliked that this is a train, and nothing else.
    fn is_refusal(&self, result: i32) -> bool {
        self.is_to_be_cut() && matches!(-result, libc::EINVAL | libc::EIO | libc::EOPNOTSUPP)
    }
}

fn no_bytes() -> libc::iovec {
    libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }
}

#[cfg(test)]
mod tests;
