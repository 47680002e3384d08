//! Datagrams through the ring beside `sendmmsg` and `recvmmsg`, over loopback.
//!
//! One thread sends a burst of datagrams to itself and takes it, again and again; both sides learn
//! source, local address and ECN of each. "Trains" are what QUIC has to send when it has much for
//! one peer: the ring sends each in one piece (GSO) and takes it in one piece (GRO). "Singles" are
//! what many peers with little to say send: there the ring has nothing to put together. The last
//! contest gives both sides trains, through the ring and through system calls. The CPU time is
//! that of the thread, and nearly all of it the kernel's: both sides' network stack runs in it.

mod timing;

use std::io::{IoSlice, IoSliceMut};
use std::net::{SocketAddr, SocketAddrV4};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::ExitCode;

use bytes::Bytes;
use forebay_net::ring::datagrams::Departure;
use forebay_net::ring::uring::Uring;
use forebay_net::ring::{Done, Options, Ring, Rung};
use forebay_net::server::listen_datagrams::{PortLock, listen_datagrams};
use nix::cmsg_space;
use nix::libc::{in_addr, in_pktinfo};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg,
    sendmmsg, setsockopt, sockopt,
};

use timing::{Bar, Contender, Contest, Cpu, Outcome, Session};

fn main() -> ExitCode {
    let mut session = Session::start("Datagrams over loopback");
    if let Err(why) = Uring::new(&OPTIONS) {
        println!("\n*** NOTHING WAS MEASURED: this machine gives no io_uring: {why} ***");
        return session.finish();
    }
    session.run(contest("trains of 32 x 1200 bytes, sendmmsg and recvmmsg", 1200, 32, 1));
    session.run(contest("trains of 4 x 1200 bytes, sendmmsg and recvmmsg", 1200, 4, 1));
    session.run(contest("singles of 1200 bytes, sendmmsg and recvmmsg", 1200, 1, 1));
    session.run(contest("singles of 100 bytes, sendmmsg and recvmmsg", 100, 1, 1));
    session.run(contest("trains of 32 x 1200 bytes, the same with GSO and GRO", 1200, 32, 32));
    session.finish()
}

/// Datagrams that are sent before the first is taken.
const BURST: usize = 64;
const BURSTS: usize = 8;
/// Messages of one system call: quinn and others take as many.
const CALL_MESSAGES: usize = 32;
const OPTIONS: Options = Options {
    entries: 256,
    buffers: 2,
    buffer_bytes: 4096,
    datagram_buffers: 128,
    highest: Rung::Deferred,
};

/// `our_train`, `their_train`: how many datagrams are given to the kernel in one piece.
fn contest(
    name: &'static str,
    datagram_bytes: usize,
    our_train: usize,
    their_train: usize,
) -> Contest<'static> {
    let ours = || Ours::new(datagram_bytes, our_train);
    let theirs = || Theirs::new(datagram_bytes, their_train);
    let (mut ours, mut ours_told, mut theirs, mut theirs_told) =
        (ours(), ours(), theirs(), theirs());
    Contest {
        name,
        unit: "datagram",
        bytes: (datagram_bytes * BURST * BURSTS) as u64,
        cpu: Cpu::ThisThread,
        ours: Contender {
            name: "ring",
            work: Box::new(move || ours.exchange(|_| ())),
            outcome: Box::new(move || told(|heard| ours_told.exchange(heard))),
        },
        theirs: Contender {
            name: "system calls",
            work: Box::new(move || theirs.exchange(|_| ())),
            outcome: Box::new(move || told(|heard| theirs_told.exchange(heard))),
        },
        bar: Bar::None,
    }
}

/// Counts the datagrams, and hashes their bytes and their ECN in the order in which they come.
fn told(exchange: impl FnOnce(&mut dyn FnMut(&Heard<'_>)) -> u64) -> Outcome {
    let mut all = Vec::new();
    let count = exchange(&mut |heard| {
        assert!(heard.source.ip().is_loopback());
        all.extend_from_slice(heard.bytes);
        all.push(heard.ecn);
    });
    Outcome::of(count, &all)
}

struct Heard<'a> {
    source: SocketAddr,
    ecn: u8,
    bytes: &'a [u8],
}

/// A burst, as pieces for the kernel.
fn pieces(datagram_bytes: usize, train: usize) -> Vec<Bytes> {
    let burst: Vec<u8> = (0..BURST * datagram_bytes).map(|n| (n * 7 + n / 251) as u8).collect();
    burst.chunks(datagram_bytes * train).map(Bytes::copy_from_slice).collect()
}

fn bound() -> (SocketAddr, OwnedFd, PortLock) {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut group = listen_datagrams(any, 1).expect("a port is free");
    (group.address, group.sockets.remove(0), group.lock)
}

struct Ours {
    ring: Uring,
    sender: u16,
    receiver: u16,
    to: SocketAddr,
    datagram_bytes: usize,
    pieces: Vec<Bytes>,
    _locks: [PortLock; 2],
}

impl Ours {
    fn new(datagram_bytes: usize, train: usize) -> Ours {
        let mut ring = Uring::new(&OPTIONS).expect("main has made one before");
        let ((_, sender, lock), (to, receiver, other_lock)) = (bound(), bound());
        let sender = ring.open_datagrams(sender).expect("the ring takes it");
        let receiver = ring.open_datagrams(receiver).expect("the ring takes it");
        ring.receive_datagrams(receiver);
        let pieces = pieces(datagram_bytes, train);
        Ours { ring, sender, receiver, to, datagram_bytes, pieces, _locks: [lock, other_lock] }
    }

    fn exchange(&mut self, mut heard: impl FnMut(&Heard<'_>)) -> u64 {
        let mut came = 0;
        for burst in 1..=BURSTS {
            for piece in &self.pieces {
                let departure = Departure {
                    to: self.to,
                    from: Some(self.to.ip()),
                    ecn: 1,
                    segment_bytes: self.datagram_bytes,
                    bytes: piece.clone(),
                };
                self.ring.send_datagrams(self.sender, departure);
            }
            while came < burst * BURST {
                self.ring.wait(None).expect("the ring waits");
                while let Some(done) = self.ring.next_done() {
                    came += self.handle(done, &mut heard);
                }
            }
        }
        came as u64
    }

    fn handle(&mut self, done: Done<OwnedFd>, heard: &mut impl FnMut(&Heard<'_>)) -> usize {
        let mut came = 0;
        match done {
            Done::Datagrams { chunk, .. } => {
                let arrival = self.ring.arrival(&chunk);
                let (source, ecn) = (arrival.source, arrival.ecn);
                for bytes in arrival.segments(self.ring.bytes(&chunk)) {
                    heard(&Heard { source, ecn, bytes });
                    came += 1;
                }
                self.ring.give_back(chunk);
            }
            Done::DatagramsEnded { .. } => self.ring.receive_datagrams(self.receiver),
            Done::DatagramsSent { error, .. } => assert!(error.is_none(), "{error:?}"),
            other => panic!("{other:?}"),
        }
        came
    }
}

struct Theirs {
    sender: OwnedFd,
    receiver: OwnedFd,
    to: SockaddrStorage,
    from: in_pktinfo,
    train: usize,
    datagram_bytes: usize,
    pieces: Vec<Bytes>,
    buffers: Vec<Vec<u8>>,
    out: MultiHeaders<SockaddrStorage>,
    into: MultiHeaders<SockaddrStorage>,
    _locks: [PortLock; 2],
}

impl Theirs {
    fn new(datagram_bytes: usize, train: usize) -> Theirs {
        let ((_, sender, lock), (to, receiver, other_lock)) = (bound(), bound());
        let gro = setsockopt(&receiver, sockopt::UdpGroSegment, &(train > 1));
        gro.expect("this kernel knows GRO");
        let loopback = in_addr { s_addr: u32::from_ne_bytes([127, 0, 0, 1]) };
        let nowhere = in_addr { s_addr: 0 };
        // Room for exactly what is said: the kernel reads all of it.
        let said = match train {
            1 => cmsg_space!(in_pktinfo, u8),
            _ => cmsg_space!(in_pktinfo, u8, u16),
        };
        let buffer_bytes = if train > 1 { 65_535 } else { 2_048 };
        Theirs {
            sender,
            receiver,
            to: SockaddrStorage::from(to),
            from: in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: loopback, ipi_addr: nowhere },
            train,
            datagram_bytes,
            pieces: pieces(datagram_bytes, train),
            buffers: vec![vec![0; buffer_bytes]; CALL_MESSAGES],
            out: MultiHeaders::preallocate(CALL_MESSAGES, Some(said)),
            into: MultiHeaders::preallocate(CALL_MESSAGES, Some(cmsg_space!(in_pktinfo, u8, i32))),
            _locks: [lock, other_lock],
        }
    }

    fn exchange(&mut self, mut heard: impl FnMut(&Heard<'_>)) -> u64 {
        let mut came = 0;
        for burst in 1..=BURSTS {
            self.send();
            while came < burst * BURST {
                came += self.receive(&mut heard);
            }
        }
        came as u64
    }

    fn send(&mut self) {
        let (tos, cut_at) = (1, self.datagram_bytes as u16);
        let said = [
            ControlMessage::Ipv4PacketInfo(&self.from),
            ControlMessage::Ipv4Tos(&tos),
            ControlMessage::UdpGsoSegments(&cut_at),
        ];
        let said = if self.train > 1 { &said[..] } else { &said[..2] };
        let to = [Some(self.to); CALL_MESSAGES];
        for pieces in self.pieces.chunks(CALL_MESSAGES) {
            let slices: Vec<_> = pieces.iter().map(|piece| [IoSlice::new(piece)]).collect();
            let fd = self.sender.as_raw_fd();
            let sent = sendmmsg(fd, &mut self.out, &slices, to, said, MsgFlags::empty());
            assert_eq!(sent.expect("loopback takes it").count(), pieces.len());
        }
    }

    fn receive(&mut self, heard: &mut impl FnMut(&Heard<'_>)) -> usize {
        let mut slices: Vec<_> =
            self.buffers.iter_mut().map(|buffer| [IoSliceMut::new(buffer)]).collect();
        let (fd, flags) = (self.receiver.as_raw_fd(), MsgFlags::MSG_DONTWAIT);
        let messages = recvmmsg(fd, &mut self.into, &mut slices, flags, None);
        let mut came = 0;
        for message in messages.expect("all that was sent is there") {
            let (mut ecn, mut segment_bytes, mut local) = (0, self.datagram_bytes, None);
            for said in message.cmsgs().expect("there is room for all that is said") {
                match said {
                    ControlMessageOwned::Ipv4PacketInfo(info) => local = Some(info.ipi_spec_dst),
                    ControlMessageOwned::Ipv4Tos(tos) => ecn = tos & 3,
                    ControlMessageOwned::UdpGroSegments(bytes) => segment_bytes = bytes as usize,
                    _ => {}
                }
            }
            assert!(local.is_some());
            let address = message.address.as_ref().and_then(|address| address.as_sockaddr_in());
            let source = SocketAddr::from(SocketAddrV4::from(*address.expect("an address")));
            for bytes in message.iovs().flat_map(|piece| piece.chunks(segment_bytes)) {
                heard(&Heard { source, ecn, bytes });
                came += 1;
            }
        }
        came
    }
}
