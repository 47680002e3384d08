//! The group against the real kernel: who gets which packet, and who may not join.

use std::net::{IpAddr, UdpSocket};

use super::*;
use crate::datagrams::owner;
use crate::ring::fake::Dice;

const CORES: usize = 4;

fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

fn group(count: usize, address: SocketAddr) -> (SocketAddr, Vec<UdpSocket>, PortLock) {
    let group = listen_datagrams(address, count).unwrap();
    let sockets = group.sockets.into_iter().map(UdpSocket::from).collect::<Vec<_>>();
    for socket in &sockets {
        socket.set_nonblocking(true).unwrap();
    }
    (group.address, sockets, group.lock)
}

/// The socket that the kernel gave the only packet under way.
fn taker(sockets: &[UdpSocket], packet: &[u8]) -> usize {
    let look = || {
        sockets.iter().enumerate().filter_map(|(place, socket)| {
            let mut bytes = [0; 64];
            let length = socket.recv(&mut bytes).ok()?;
            assert_eq!(&bytes[..length], packet);
            Some(place)
        })
    };
    let place = until_some(|| look().next());
    assert_eq!(look().next(), None, "and no other");
    place
}

/// A kernel that is busy delivers a packet on loopback later than the call that sent it.
fn until_some<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let mut looks = (0..1_000_000).map(|_| {
        let found = look();
        if found.is_none() {
            std::thread::yield_now();
        }
        found
    });
    looks.find_map(|found| found).expect("a socket has the packet")
}

#[test]
fn a_short_header_goes_to_the_core_that_its_connection_id_names_whoever_sends_it() {
    for local in [loopback(), "[::1]:0".parse().unwrap()] {
        let (address, sockets, _lock) = group(CORES, local);
        let mut dice = Dice::new(1);
        for id in 0..=255u8 {
            let client = UdpSocket::bind(local).unwrap();
            let packet = [0x40 | dice.below(64) as u8, id, dice.number() as u8];
            client.send_to(&packet, address).unwrap();
            let place = taker(&sockets, &packet);
            assert_eq!(Some(place), owner(&packet, CORES), "the program and `owner` agree");
        }
    }
}

#[test]
fn long_headers_of_one_client_stay_on_one_core_and_those_of_many_are_spread() {
    let (address, sockets, _lock) = group(CORES, loopback());
    let mut taken = [0; CORES];
    for _ in 0..64 {
        let client = UdpSocket::bind(loopback()).unwrap();
        let places: Vec<usize> = (0..8u8)
            .map(|n| {
                let packet = [0xc0 | n, n, n.wrapping_mul(91), 7];
                client.send_to(&packet, address).unwrap();
                assert_eq!(owner(&packet, CORES), None);
                taker(&sockets, &packet)
            })
            .collect();
        assert!(places.iter().all(|place| *place == places[0]), "{places:?}");
        taken[places[0]] += 1;
    }
    assert!(taken.iter().all(|taken| *taken > 0), "64 clients on {CORES} cores: {taken:?}");
}

#[test]
fn what_is_too_short_for_a_connection_id_still_arrives_somewhere() {
    let (address, sockets, _lock) = group(CORES, loopback());
    let client = UdpSocket::bind(loopback()).unwrap();
    client.send_to(&[0x40], address).unwrap();
    taker(&sockets, &[0x40]);
}

#[test]
fn a_port_that_a_group_or_anybody_else_has_is_an_error() {
    let first = listen_datagrams(loopback(), 2).unwrap();
    let again = listen_datagrams(first.address, 2).unwrap_err();
    assert_eq!(again.kind(), io::ErrorKind::AddrInUse);
    let stranger = UdpSocket::bind(loopback()).unwrap();
    let refused = listen_datagrams(stranger.local_addr().unwrap(), 1).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
}

#[test]
fn the_lock_keeps_out_who_asks_before_the_sockets_are_bound_and_goes_with_its_holder() {
    let address = listen_datagrams(loopback(), 1).unwrap().address;
    let lock = PortLock::take(address).unwrap();
    let refused = listen_datagrams(address, 1).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
    drop(lock);
    let group = listen_datagrams(address, 1).unwrap();
    assert_eq!(group.address, address);
}

#[test]
fn a_wildcard_of_ipv6_hears_ipv4_too_and_an_address_only_its_own() {
    let any = listen_datagrams("[::]:0".parse().unwrap(), 1).unwrap();
    let only = listen_datagrams("[::1]:0".parse().unwrap(), 1).unwrap();
    let client = UdpSocket::bind(loopback()).unwrap();
    for (group, hears) in [(any, true), (only, false)] {
        let socket = UdpSocket::from(group.sockets.into_iter().next().unwrap());
        socket.set_nonblocking(true).unwrap();
        let to = SocketAddr::new(IpAddr::from([127, 0, 0, 1]), group.address.port());
        // To a port that nobody has the first packet goes unanswered.
        client.send_to(b"hello", to).unwrap();
        match hears {
            true => assert_eq!(until_some(|| socket.recv(&mut [0; 8]).ok()), 5),
            false => assert!(socket.recv(&mut [0; 8]).is_err()),
        }
    }
}

#[test]
fn the_buffers_are_as_large_as_the_kernel_lets_them_be() {
    let group = listen_datagrams(loopback(), 1).unwrap();
    let most = std::fs::read_to_string("/proc/sys/net/core/rmem_max").unwrap();
    let most: usize = most.trim().parse().unwrap();
    // The kernel doubles what it is asked for, and says so.
    let least = 2 * most.min(SOCKET_BYTES_WANTED);
    assert!(group.receive_buffer_bytes >= least, "{} bytes", group.receive_buffer_bytes);
    assert!(group.receive_buffer_bytes <= 2 * SOCKET_BYTES_WANTED);
}
