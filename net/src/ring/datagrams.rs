//! Datagrams as a ring takes and brings them: where they came from, where they go.
//!
//! One receive may bring several datagrams of one sender that the kernel put together (GRO), one
//! send may carry several to one receiver that it cuts apart (GSO, a train). All but the last are
//! [`Arrival::segment_bytes`] long, and so [`Arrival::segments`] finds them.
//!
//! Always
//! - Addresses are what they are: an IPv4 peer of an IPv6 socket has an IPv4 address here.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;

/// What one receive brings at most: no UDP payload is longer, put together or not.
pub const ARRIVAL_BYTES_MAX: usize = 65_535;
/// What one send carries at most: the payload of the longest IPv4 packet.
pub const TRAIN_BYTES_MAX: usize = 65_507;
/// What one send carries at most: older kernels cut no train into more.
pub const TRAIN_SEGMENTS_MAX: usize = 64;
/// Sends that may be in flight on one datagram socket.
pub const SENDS_MAX: usize = 256;

/// What the kernel said about the datagrams of one receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    pub source: SocketAddr,
    /// The address of this host that they were sent to, and are to be answered from. `None`: the
    /// socket was not told to ask.
    pub local: Option<IpAddr>,
    /// The two bits of explicit congestion notification.
    pub ecn: u8,
    /// The length of each datagram but the last, which may be shorter. Never 0.
    pub segment_bytes: usize,
}

impl Arrival {
    /// The datagrams in `bytes`, one by one.
    pub fn segments<'a>(&self, bytes: &'a [u8]) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        bytes.chunks(self.segment_bytes)
    }
}

/// Datagrams to one receiver, for one send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Departure {
    pub to: SocketAddr,
    /// The address of this host that they come from. `None`: the kernel chooses.
    pub from: Option<IpAddr>,
    /// The two bits of explicit congestion notification.
    pub ecn: u8,
    /// The length of each datagram but the last, which may be shorter.
    pub segment_bytes: usize,
    pub bytes: Bytes,
}

impl Departure {
    /// How many datagrams these are.
    pub fn segments(&self) -> usize {
        self.bytes.len().div_ceil(self.segment_bytes)
    }

    /// # Panics
    /// If no kernel could send it.
    pub(super) fn assert_possible(&self) {
        assert!(!self.bytes.is_empty(), "a send of nothing");
        assert!(self.bytes.len() <= TRAIN_BYTES_MAX, "a train of {} bytes", self.bytes.len());
        assert!(self.segment_bytes > 0, "a train of segments without a length");
        assert!(self.segments() <= TRAIN_SEGMENTS_MAX, "a train of {} segments", self.segments());
        assert!(self.ecn < 4, "ECN has two bits, and this is {}", self.ecn);
    }
}
