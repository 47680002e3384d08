//! One io_uring ring per receiver core: what may be asked of it, and what it says is done.
//!
//! The rest of `net` speaks to the kernel only through [`uring::Uring`]; the types here are plain
//! data, so that a receiver can be driven by something else than a kernel. The ladder of kernel
//! features is climbed down at run time ([`Rung`]), never at compile time.
//!
//! Always
//! - Memory that the kernel may write or read is owned by the ring until its completion came.
//! - A completion that names a socket of an earlier generation is dropped, never delivered.
//!
//! Not here: protocols, timers, what to do with a connection (`server`).

pub mod explain;
mod provided;
mod slots;
pub mod uring;

use std::io;
use std::os::fd::OwnedFd;

use bytes::{Bytes, BytesMut};

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
    /// Where the ladder is entered.
    pub highest: Rung,
}

/// Bytes that a receive brought. Read them with `Uring::bytes`, then return the chunk with
/// `Uring::give_back`: a chunk that is kept is a buffer that the kernel lacks.
#[derive(Debug)]
pub enum Chunk {
    Provided { buffer: u16, bytes: u32 },
    Owned(BytesMut),
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
pub enum Done {
    Accepted {
        listener: u16,
        socket: OwnedFd,
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
    /// Somebody used this ring's [`crate::wake::Wake`].
    Woken,
}

/// A send in flight: what is left of it.
#[derive(Debug)]
pub(crate) struct Sending {
    pub(crate) rest: Bytes,
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
}
