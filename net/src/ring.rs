//! One io_uring ring per receiver core: what may be asked of it, and what it says is done.
//!
//! The rest of `net` speaks to the kernel only through the trait [`Ring`]; the types here are plain
//! data, so that a receiver can be driven by something else than a kernel. The ladder of kernel
//! features is climbed down at run time ([`Rung`]), never at compile time.
//!
//! Always
//! - Memory that the kernel may write or read is owned by the ring until its completion came.
//! - A completion that names a socket of an earlier generation is dropped, never delivered.
//!
//! Not here: protocols, timers, what to do with a connection (`server`).

mod control;
pub mod datagrams;
pub mod explain;
pub mod fake;
mod provided;
mod slots;
pub(crate) mod socket_options;
pub mod uring;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use self::datagrams::{Arrival, Departure};
use crate::wake::Wake;

/// Names a socket on its ring. A slot is used again under another generation, so that a late
/// completion of the old socket can't be taken for the new one's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    pub index: u32,
    pub generation: u32,
}

/// How much of io_uring is used; each rung asks for less of the kernel than the one above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rung {
    /// Linux 6.1: single issuer, deferred task work; multishot accept and receive into provided
    /// buffers.
    Deferred,
    /// Linux 6.0: cooperative task work; multishot accept and receive into provided buffers.
    Cooperative,
    /// Linux 5.11: one operation, one completion; each receive has a buffer of its own.
    Oneshot,
}

impl Rung {
    pub const LADDER: [Rung; 3] = [Rung::Deferred, Rung::Cooperative, Rung::Oneshot];

    pub fn name(self) -> &'static str {
        match self {
            Rung::Deferred => "deferred",
            Rung::Cooperative => "cooperative",
            Rung::Oneshot => "oneshot",
        }
    }
}

/// The sizes of a ring.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Submission entries, a power of two; the completion queue holds four times as many.
    pub entries: u32,
    /// Provided buffers, a power of two.
    pub buffers: u16,
    /// Bytes of one provided buffer.
    pub buffer_bytes: u32,
    /// Buffers of 68 KiB for datagrams, a power of two; 0 for a ring without datagram sockets.
    /// Each is allocated when it is used for the first time.
    pub datagram_buffers: u16,
    /// Where the ladder is entered.
    pub highest: Rung,
}

/// Bytes that a receive brought. Read them with [`Ring::bytes`], then return the chunk with
/// [`Ring::give_back`]: a chunk that is kept is a buffer that the kernel lacks.
#[derive(Debug)]
pub enum Chunk {
    Provided {
        buffer: u16,
        bytes: u32,
    },
    Owned(BytesMut),
    /// What came with the datagrams, and then they themselves.
    Datagrams {
        buffer: u16,
        bytes: u32,
    },
}

/// Why a receive is no longer armed.
#[derive(Debug)]
pub enum End {
    /// The peer will send no more.
    Eof,
    /// The kernel ended a multishot, or was told to: arm it again if more is wanted.
    Again,
    /// No provided buffer was free: arm it again once some have come back.
    NoBuffers,
    Failed(io::Error),
}

/// What the ring did.
#[derive(Debug)]
pub enum Done<S> {
    Accepted {
        listener: u16,
        socket: S,
    },
    /// Accepting stopped. `None`: arm it again; an error (EMFILE ...): after a while.
    AcceptEnded {
        listener: u16,
        error: Option<io::Error>,
    },
    Received {
        key: Key,
        chunk: Chunk,
    },
    /// A direct receive appended `bytes` (at least one) to the buffer that it was lent.
    ReceivedInto {
        key: Key,
        buffer: BytesMut,
    },
    /// A direct receive came to nothing; the buffer is as it was.
    ReceiveIntoEnded {
        key: Key,
        buffer: BytesMut,
        end: End,
    },
    ReceiveEnded {
        key: Key,
        end: End,
    },
    /// All of it.
    Sent {
        key: Key,
    },
    SendFailed {
        key: Key,
        error: io::Error,
    },
    /// One datagram, or several of one sender: see [`Ring::arrival`].
    Datagrams {
        socket: u16,
        chunk: Chunk,
    },
    /// A datagram socket receives no more until it is armed again; also a failure ends nothing
    /// else, and [`End::Eof`] does not come.
    DatagramsEnded {
        socket: u16,
        end: End,
    },
    /// The kernel is done with one of this socket's sends. With an error some or all of it was not
    /// sent; the socket goes on.
    DatagramsSent {
        socket: u16,
        error: Option<io::Error>,
    },
    /// Somebody used this ring's [`crate::wake::Wake`].
    Woken,
}

/// A send in flight: what is left of it.
#[derive(Debug)]
pub(crate) struct Sending {
    pub(crate) rest: Bytes,
}

/// A ring, as a receiver uses it. [`uring::Uring`] is the kernel's; another one may bring what it
/// likes in whatever order a kernel could.
pub trait Ring {
    /// A socket that belongs to nobody's slot yet: connected, or listening.
    type Socket;

    /// The rung of the ladder it stands on.
    fn rung(&self) -> Rung;
    fn stats(&self) -> RingStats;
    /// What others use to end this ring's wait.
    fn wake(&self) -> Arc<Wake>;

    /// Takes a bound, listening socket and begins to accept. Its index is the order of calls.
    fn listen(&mut self, socket: Self::Socket) -> u16;
    /// Arms accepting again after [`Done::AcceptEnded`]; nothing if it is armed.
    fn accept(&mut self, listener: u16);
    /// Arms accepting on every listener where it has stopped.
    fn accept_everywhere(&mut self);
    /// Stops accepting everywhere: waiting connections get a reset, new ones are refused.
    fn stop_listening(&mut self);

    /// Gives a connected socket a slot.
    fn open(&mut self, socket: Self::Socket) -> Key;
    /// Arms receiving; nothing if any receive is in flight.
    fn receive(&mut self, key: Key);
    /// Lends `buffer` to the kernel: at most `bytes_max` bytes are appended into the capacity it
    /// has. Only when no receive is in flight (see [`Ring::is_receiving`]).
    fn receive_into(&mut self, key: Key, buffer: BytesMut, bytes_max: usize);
    /// Asks the kernel to end a multishot receive; [`Done::ReceiveEnded`] says when it has, and
    /// bytes may still come before that.
    fn stop_receiving(&mut self, key: Key);
    fn is_receiving(&mut self, key: Key) -> bool;
    /// Sends all of `bytes`; one send at a time (see [`Ring::is_sending`]).
    fn send(&mut self, key: Key, bytes: Bytes);
    fn is_sending(&mut self, key: Key) -> bool;
    /// Says to the peer that no more will come, and goes on receiving.
    fn finish_sending(&mut self, key: Key);
    /// As [`Ring::close`], but the peer gets a reset, and what it has not received is thrown away:
    /// for one that heard that we have finished and goes on sending. A shutdown alone would open
    /// its window no more and leave it waiting until the kernel forgets the socket.
    fn reset(&mut self, key: Key);
    /// Ends the connection. Its key means nothing from here on; the slot is free once the kernel
    /// has let go of it.
    fn close(&mut self, key: Key);

    /// Takes a bound datagram socket. Its number is the order of calls, and is not used again.
    fn open_datagrams(&mut self, socket: Self::Socket) -> io::Result<u16>;
    /// Arms receiving on a datagram socket; nothing if it is armed, or closed.
    fn receive_datagrams(&mut self, socket: u16);
    /// Sends that this socket has room for beside those in flight. 0 also where it is closed.
    fn datagram_room(&self, socket: u16) -> usize;
    /// Sends datagrams to one receiver, if there is room. Sends that are in flight together may
    /// overtake each other.
    fn send_datagrams(&mut self, socket: u16, departure: Departure);
    /// Receives no more, and closes the socket once what is in flight is sent.
    fn close_datagrams(&mut self, socket: u16);
    /// Where the datagrams of a [`Done::Datagrams`] come from, and where one ends.
    fn arrival(&self, chunk: &Chunk) -> Arrival;

    /// The bytes of a chunk; of datagrams those of their payload.
    fn bytes<'a>(&'a self, chunk: &'a Chunk) -> &'a [u8];
    /// The same of a stream's chunk, to be changed where they lie.
    fn bytes_mut<'a>(&'a mut self, chunk: &'a mut Chunk) -> &'a mut [u8];
    /// Lends out a chunk of datagrams, in place of giving it back: their payload, to be changed
    /// where it lies. The kernel gets the buffer again once nobody holds any of it. Or hands the
    /// chunk back: few are lent at a time.
    fn lend(&mut self, chunk: Chunk) -> Result<BytesMut, Chunk>;
    /// Returns a chunk's buffer to the kernel.
    fn give_back(&mut self, chunk: Chunk);

    /// Submits what was asked and waits until something is done, `timeout` passed (`None`: no
    /// limit) or the [`Wake`] was used.
    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()>;
    /// What was done, in the order in which the kernel said so.
    fn next_done(&mut self) -> Option<Done<Self::Socket>>;
}

/// Counters that a ring keeps for the metrics; all since its start.
#[derive(Clone, Copy, Debug, Default)]
pub struct RingStats {
    /// `io_uring_enter` calls.
    pub enters: u64,
    pub completions: u64,
    /// Completions that the kernel could not queue at once.
    pub cq_overflows: u64,
    /// Receives that found no provided buffer.
    pub no_buffers: u64,
    /// Datagrams that were thrown away because they did not fit a buffer.
    pub datagrams_truncated: u64,
    /// Trains that the kernel would not cut, and whose datagrams were sent one by one.
    pub trains_refused: u64,
}
