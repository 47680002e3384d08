//! What a kernel that refuses comes to, on a real one that was told to refuse.

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use super::*;
use crate::ring::socket_options::set_number;
use crate::ring::uring::Uring;
use crate::ring::{Done, Options, Ring, Rung};

fn ring(rung: Rung) -> Uring {
    let options =
        Options { entries: 8, buffers: 2, buffer_bytes: 64, datagram_buffers: 2, highest: rung };
    Uring::new(&options).unwrap()
}

fn plain() -> UdpSocket {
    UdpSocket::bind("127.0.0.1:0").unwrap()
}

fn until_sent(ring: &mut Uring) -> Option<io::Error> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        ring.wait(Some(Duration::from_millis(10))).unwrap();
        match ring.next_done() {
            Some(Done::DatagramsSent { error, .. }) => return error,
            Some(other) => panic!("{other:?}"),
            None => assert!(Instant::now() < deadline, "the send never ends"),
        }
    }
}

fn train(to: SocketAddr) -> Departure {
    let bytes = (0..2_500u32).map(|n| n as u8).collect();
    Departure { to, from: None, ecn: 1, segment_bytes: 1_000, bytes }
}

#[test]
fn what_the_kernel_will_not_cut_goes_out_one_by_one_and_it_is_asked_once() {
    for rung in Rung::LADDER {
        let (sender, receiver) = (plain(), plain());
        // Without checksums Linux refuses to cut.
        set_number(&sender, libc::SOL_SOCKET, libc::SO_NO_CHECK, 1).unwrap();
        let mut ring = ring(rung);
        let socket = ring.open_datagrams(OwnedFd::from(sender)).unwrap();
        let train = train(receiver.local_addr().unwrap());
        for _ in 0..3 {
            ring.send_datagrams(socket, train.clone());
            assert!(until_sent(&mut ring).is_none(), "{rung:?}");
            assert_eq!(ring.datagram_room(socket), SENDS_MAX);
            for segment in train.bytes.chunks(1_000) {
                let mut bytes = [0; 2_000];
                let length = receiver.recv(&mut bytes).unwrap();
                assert_eq!(&bytes[..length], segment, "{rung:?}");
            }
        }
        assert_eq!(ring.stats().trains_refused, 1, "{rung:?}: later trains are not offered");
    }
}

#[test]
fn a_socket_that_does_not_wait_is_made_to() {
    let socket = plain();
    socket.set_nonblocking(true).unwrap();
    let same = socket.try_clone().unwrap();
    ring(Rung::Deferred).open_datagrams(OwnedFd::from(socket)).unwrap();
    let flags = rustix::fs::fcntl_getfl(&same).unwrap();
    assert!(!flags.contains(rustix::fs::OFlags::NONBLOCK));
}

#[test]
fn an_arrival_that_is_cut_short_or_comes_from_nowhere_is_seen_as_such() {
    let mut ring = ring(Rung::Oneshot);
    ring.open_datagrams(OwnedFd::from(plain())).unwrap();
    let all = ring.datagrams();
    let buffer = all.buffers.take().unwrap();
    let address: SocketAddr = "192.0.2.1:9".parse().unwrap();
    let mut name = [0; NAME_BYTES];
    let name_bytes = control::write_address(&address, false, &mut name) as u32;
    all.buffers.room_mut(buffer)[HEAD_BYTES..CONTROL_OFFSET].copy_from_slice(&name);
    let payload = 100;
    let bytes = PAYLOAD_OFFSET as u32 + payload;
    let truncated = libc::MSG_TRUNC as u32;
    let cases = [
        ([name_bytes, 0, payload, 0], bytes, true),
        ([name_bytes, 0, payload, truncated], bytes, false),
        ([name_bytes, 0, payload + 1, 0], bytes, false),
        ([name_bytes, 0, payload, libc::MSG_CTRUNC as u32], bytes, false),
        ([name_bytes, CONTROL_BYTES as u32 + 1, payload, 0], bytes, false),
        ([NAME_BYTES as u32 + 1, 0, payload, 0], bytes, false),
        ([0, 0, payload, 0], bytes, false),
        ([name_bytes, 0, 0, 0], PAYLOAD_OFFSET as u32 - 1, false),
    ];
    for (head, bytes, is_whole) in cases {
        write_head(all.buffers.room_mut(buffer), head);
        assert_eq!(all.is_whole(buffer, bytes), is_whole, "{head:?} {bytes}");
    }
    write_head(all.buffers.room_mut(buffer), cases[0].0);
    let arrival = all.arrival(buffer, bytes);
    let expected = Arrival { source: address, local: None, ecn: 0, segment_bytes: 100 };
    assert_eq!(arrival, expected);
}
