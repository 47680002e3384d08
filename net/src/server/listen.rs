//! Binds listening sockets, one per receiver core on the same address.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};

/// Connections that may wait to be accepted; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;
/// A connection may rightly be silent for hours: the kernel asks after this long whether its host
/// is still there, and ends it if nobody answers that often.
const SILENCE: Duration = Duration::from_secs(120);
const ASK_AGAIN: Duration = Duration::from_secs(30);
const ASKED_MAX: u32 = 4;

/// Binds `count` sockets to `address` (port 0: one that is free, the same for all) and listens.
/// The kernel spreads connections over them. An address that another process listens on is an
/// error, even where that process would share it.
pub fn listen(address: SocketAddr, count: usize) -> io::Result<(SocketAddr, Vec<OwnedFd>)> {
    if address.port() != 0 {
        // Without SO_REUSEPORT this fails where any other socket listens.
        bind(address, false)?.listen(1)?;
    }
    let mut bound = address;
    let mut sockets = Vec::with_capacity(count);
    for _ in 0..count {
        let socket = bind(bound, true)?;
        socket.listen(BACKLOG)?;
        bound = socket.local_addr()?.as_socket().unwrap_or(bound);
        sockets.push(OwnedFd::from(socket));
    }
    Ok((bound, sockets))
}

fn bind(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    if domain == Domain::IPV6 {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    // Accepted sockets inherit it: an answer never waits for another.
    socket.set_tcp_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(SILENCE).with_interval(ASK_AGAIN);
    socket.set_tcp_keepalive(&keepalive.with_retries(ASKED_MAX))?;
    socket.bind(&address.into())?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_whose_host_is_gone_is_found_by_the_kernel() {
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let (address, mut sockets) = listen(any, 1).unwrap();
        let listener = Socket::from(sockets.remove(0));
        let _client = std::net::TcpStream::connect(address).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        assert!(accepted.keepalive().unwrap());
        assert_eq!(accepted.tcp_keepalive_time().unwrap(), SILENCE);
        assert_eq!(accepted.tcp_keepalive_retries().unwrap(), ASKED_MAX);
    }

    #[test]
    fn a_port_that_somebody_listens_on_is_an_error_and_not_shared() {
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let (address, sockets) = listen(any, 3).unwrap();
        assert_eq!(sockets.len(), 3);
        assert_ne!(address.port(), 0);
        let error = listen(address, 1).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }
}
