//! Binds datagram sockets, one per receiver core on the same address, and has the kernel steer
//! QUIC packets to the core that their connection ID names.
//!
//! A program on the group picks the socket, by the order in which they were bound: a packet with a
//! short header goes where the first byte of its connection ID says, one with a long header where
//! the kernel's hash of both addresses leads, so that a handshake stays on one core. See
//! [`crate::datagrams::owner`] for what the program can't see.
//!
//! Always
//! - No two processes share a port: that would shift the places and steer into the wrong one.
//! - A path's packets are never cut into fragments: QUIC finds out how long they may be.
//!
//! What a kernel lacks beside that (GRO, larger buffers) costs speed and is no error.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixDatagram};

use socket2::{Domain, Protocol, Socket, Type};

use crate::ring::socket_options::{Instruction, attach_reuseport_program, set_number};

/// What a socket may hold that its core has not taken yet, and the network neither. The kernel
/// gives an unprivileged process at most `net.core.rmem_max` and `net.core.wmem_max`.
pub const SOCKET_BYTES_WANTED: usize = 8 << 20;

/// Sockets that share an address, in the order of their cores.
#[derive(Debug)]
pub struct Group {
    pub address: SocketAddr,
    pub sockets: Vec<OwnedFd>,
    /// What the kernel lets each of them hold of what came, as it counts.
    pub receive_buffer_bytes: usize,
    pub lock: PortLock,
}

/// Keeps other processes off a port. To be held until the last socket of the group is closed.
#[derive(Debug)]
pub struct PortLock {
    _held: UnixDatagram,
}

/// Binds `count` sockets to `address` (port 0: one that is free). None of them may be closed
/// while the others serve: the kernel would give its place to the last.
pub fn listen_datagrams(address: SocketAddr, count: usize) -> io::Result<Group> {
    // Without SO_REUSEPORT this fails where any other socket is bound. It is let go only when the
    // lock is ours, and nobody who asks for the lock first comes between.
    let alone = bind(address, false)?;
    let address = alone.local_addr()?.as_socket().unwrap_or(address);
    let lock = PortLock::take(address)?;
    drop(alone);
    let bound: io::Result<Vec<Socket>> = (0..count).map(|_| bind(address, true)).collect();
    let bound = bound?;
    if count > 1 {
        attach_reuseport_program(&bound[0], &mut steering(count as u32))?;
    }
    let sizes = bound.iter().map(|socket| socket.recv_buffer_size().unwrap_or(0));
    let receive_buffer_bytes = sizes.min().unwrap_or(0);
    let sockets = bound.into_iter().map(OwnedFd::from).collect();
    Ok(Group { address, sockets, receive_buffer_bytes, lock })
}

impl PortLock {
    /// A name outside of the file system, in the same network namespace as the port; it is free
    /// again when its holder is gone, however that ended.
    fn take(address: SocketAddr) -> io::Result<PortLock> {
        let name = format!("forebay/udp/{address}");
        let bound = UnixAddress::from_abstract_name(&name)
            .and_then(|address| UnixDatagram::bind_addr(&address));
        match bound {
            Ok(held) => Ok(PortLock { _held: held }),
            Err(error) => {
                let kind = error.kind();
                let why = match kind {
                    io::ErrorKind::AddrInUse => "another process has it",
                    _ => "this system gives no abstract socket to hold it by",
                };
                Err(io::Error::new(kind, format!("the lock @{name} of this port: {why} ({error})")))
            }
        }
    }
}

fn bind(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    if shared {
        socket.set_reuse_port(true)?;
        set_buffers(&socket)?;
        set_up(&socket, domain == Domain::IPV6, address.ip().is_unspecified())?;
    }
    if domain == Domain::IPV6 {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Asks for the local address and ECN of what comes, that several datagrams come together, and
/// that none that goes is cut by a router.
fn set_up(socket: &Socket, is_ipv6: bool, is_dual: bool) -> io::Result<()> {
    if is_ipv6 {
        set_number(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)?;
        set_number(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS, 1)?;
        let probe = libc::IPV6_PMTUDISC_PROBE;
        set_number(socket, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, probe)?;
    }
    if !is_ipv6 {
        set_number(socket, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)?;
    }
    if !is_ipv6 || is_dual {
        set_number(socket, libc::IPPROTO_IP, libc::IP_RECVTOS, 1)?;
        let probe = libc::IP_PMTUDISC_PROBE;
        set_number(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, probe)?;
    }
    if let Err(error) = set_number(socket, libc::SOL_UDP, libc::UDP_GRO, 1) {
        tracing::debug!(%error, "each datagram comes alone: this kernel has no UDP_GRO");
    }
    Ok(())
}

/// As large as we are allowed to.
fn set_buffers(socket: &Socket) -> io::Result<()> {
    let bytes = SOCKET_BYTES_WANTED as i32;
    for (forced, asked) in
        [(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF), (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)]
    {
        if set_number(socket, libc::SOL_SOCKET, forced, bytes).is_err() {
            set_number(socket, libc::SOL_SOCKET, asked, bytes)?;
        }
    }
    Ok(())
}

/// The program for a group of `count`: the place of a packet's socket. A place that there is not
/// tells the kernel to choose by its hash; a packet that is too short for any goes to the first.
fn steering(count: u32) -> [Instruction; 6] {
    use libc::{BPF_ABS, BPF_ALU, BPF_B, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_MOD, BPF_RET};
    let does = |code: u32, k: u32| Instruction { code: code as u16, jt: 0, jf: 0, k };
    let long_header = Instruction { jt: 3, ..does(BPF_JMP | BPF_JSET | BPF_K, 0x80) };
    [
        does(BPF_LD | BPF_B | BPF_ABS, 0),
        long_header,
        does(BPF_LD | BPF_B | BPF_ABS, 1),
        does(BPF_ALU | BPF_MOD | BPF_K, count),
        does(BPF_RET | BPF_A, 0),
        does(BPF_RET | BPF_K, u32::MAX),
    ]
}

/// `RET` of the accumulator, which `libc` does not name.
const BPF_A: u32 = 0x10;

#[cfg(test)]
mod tests;
