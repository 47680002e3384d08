//! The ring against a real kernel, on every rung of the ladder: what it promises about buffers,
//! slots and late completions.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use forebay_net::ring::uring::Uring;
use forebay_net::ring::{Done, End, Key, Options, Ring, Rung};

const PATIENCE: Duration = Duration::from_secs(10);

fn options(highest: Rung, buffers: u16) -> Options {
    Options { entries: 64, buffers, buffer_bytes: 512, datagram_buffers: 0, highest }
}

fn ring(rung: Rung, buffers: u16) -> Uring {
    let ring = Uring::new(&options(rung, buffers)).expect("this machine has io_uring");
    assert_eq!(ring.rung(), rung, "this kernel carries every rung");
    ring
}

fn pair(ring: &mut Uring) -> (Key, UnixStream) {
    let (near, far) = UnixStream::pair().expect("a socket pair");
    (ring.open(OwnedFd::from(near)), far)
}

/// Everything that is done until `enough` says so. Chunks are given back, as (key, bytes).
fn collect(ring: &mut Uring, mut enough: impl FnMut(&Seen) -> bool) -> Seen {
    let deadline = Instant::now() + PATIENCE;
    let mut seen = Seen::default();
    while !enough(&seen) {
        assert!(Instant::now() < deadline, "the ring did not do it: {seen:?}");
        ring.wait(Some(Duration::from_millis(10))).expect("the ring waits");
        while let Some(done) = ring.next_done() {
            match done {
                Done::Received { key, chunk } => {
                    seen.received.push((key, ring.bytes(&chunk).to_vec()));
                    ring.give_back(chunk);
                }
                Done::ReceiveEnded { key, end } => seen.ended.push((key, end)),
                Done::ReceivedInto { buffer, .. } => seen.into.push(buffer),
                Done::ReceiveIntoEnded { end, .. } => seen.into_ended.push(end),
                Done::Sent { key } => seen.sent.push(key),
                Done::SendFailed { key, .. } => seen.send_failed.push(key),
                Done::Woken => seen.woken += 1,
                Done::Datagrams { .. }
                | Done::DatagramsEnded { .. }
                | Done::DatagramsSent { .. } => panic!("no datagram socket is open"),
                Done::Accepted { .. } | Done::AcceptEnded { .. } => seen.accepts += 1,
            }
        }
    }
    seen
}

#[derive(Debug, Default)]
struct Seen {
    received: Vec<(Key, Vec<u8>)>,
    ended: Vec<(Key, End)>,
    into: Vec<BytesMut>,
    into_ended: Vec<End>,
    sent: Vec<Key>,
    send_failed: Vec<Key>,
    woken: usize,
    accepts: usize,
}

impl Seen {
    fn bytes_of(&self, key: Key) -> Vec<u8> {
        let mine = self.received.iter().filter(|(k, _)| *k == key);
        mine.flat_map(|(_, bytes)| bytes.clone()).collect()
    }
}

#[test]
fn bytes_arrive_in_order_and_then_the_end_on_every_rung() {
    for rung in Rung::LADDER {
        let mut ring = ring(rung, 8);
        let (key, mut far) = pair(&mut ring);
        let sent: Vec<u8> = (0..20_000u32).map(|n| n as u8).collect();
        ring.receive(key);
        let writer = std::thread::spawn({
            let sent = sent.clone();
            move || far.write_all(&sent)
        });
        let mut received = Vec::new();
        let mut at_end = false;
        let deadline = Instant::now() + PATIENCE;
        while !at_end {
            assert!(Instant::now() < deadline, "{rung:?}: {} bytes came", received.len());
            let seen = collect(&mut ring, |seen| !seen.ended.is_empty());
            received.extend(seen.bytes_of(key));
            at_end = matches!(seen.ended[0].1, End::Eof);
            if !at_end {
                // A one-shot receive is over, or no buffer was free: both mean "arm again".
                assert!(matches!(seen.ended[0].1, End::Again | End::NoBuffers), "{seen:?}");
                ring.receive(key);
            }
        }
        writer.join().expect("the writer ends").expect("all is written");
        assert!(received == sent, "{rung:?}");
    }
}

#[test]
fn without_a_free_buffer_a_receive_ends_and_goes_on_when_one_comes_back() {
    let mut ring = ring(Rung::Deferred, 2);
    let (key, mut far) = pair(&mut ring);
    ring.receive(key);
    far.write_all(&[7; 4096]).expect("the socket takes it");
    let deadline = Instant::now() + PATIENCE;
    let mut held = Vec::new();
    let mut starved = false;
    while !starved {
        assert!(Instant::now() < deadline, "two buffers can't hold 4096 bytes");
        ring.wait(Some(Duration::from_millis(10))).expect("the ring waits");
        while let Some(done) = ring.next_done() {
            match done {
                Done::Received { chunk, .. } => held.push(chunk),
                Done::ReceiveEnded { end: End::NoBuffers, .. } => starved = true,
                other => panic!("{other:?}"),
            }
        }
    }
    assert!(ring.stats().no_buffers > 0);
    let mut bytes: usize = held.iter().map(|chunk| ring.bytes(chunk).len()).sum();
    held.into_iter().for_each(|chunk| ring.give_back(chunk));
    while bytes < 4096 {
        ring.receive(key);
        let seen = collect(&mut ring, |seen| !seen.received.is_empty());
        bytes += seen.bytes_of(key).len();
    }
    assert_eq!(bytes, 4096);
}

#[test]
fn a_long_send_to_a_slow_reader_leaves_whole() {
    for rung in Rung::LADDER {
        let mut ring = ring(rung, 8);
        let (key, mut far) = pair(&mut ring);
        let sent: Vec<u8> = (0..3_000_000u32).map(|n| (n * 7) as u8).collect();
        ring.send(key, Bytes::from(sent.clone()));
        assert!(ring.is_sending(key));
        let reader = std::thread::spawn(move || {
            let mut received = vec![0; 3_000_000];
            far.read_exact(&mut received).map(|()| received)
        });
        let seen = collect(&mut ring, |seen| !seen.sent.is_empty());
        assert_eq!(seen.sent, [key]);
        let received = reader.join().expect("the reader ends").expect("all is read");
        assert!(received == sent, "{rung:?}");
    }
}

#[test]
fn a_direct_receive_appends_to_the_buffer_it_was_lent() {
    for rung in Rung::LADDER {
        let mut ring = ring(rung, 8);
        let (key, mut far) = pair(&mut ring);
        let mut buffer = BytesMut::with_capacity(64);
        buffer.extend_from_slice(b"head ");
        ring.receive_into(key, buffer, 4);
        far.write_all(b"body!").expect("the socket takes it");
        let seen = collect(&mut ring, |seen| !seen.into.is_empty());
        assert_eq!(seen.into[0], "head body", "{rung:?}: at most four bytes were asked for");
        drop(far);
        ring.receive_into(key, BytesMut::with_capacity(8), 8);
        let seen = collect(&mut ring, |seen| !seen.into.is_empty());
        assert_eq!(seen.into[0], "!");
        ring.receive_into(key, BytesMut::with_capacity(8), 8);
        let seen = collect(&mut ring, |seen| !seen.into_ended.is_empty());
        assert!(matches!(seen.into_ended[0], End::Eof));
    }
}

#[test]
fn a_slot_is_used_again_under_another_generation_and_old_completions_are_not_its() {
    for rung in Rung::LADDER {
        let mut ring = ring(rung, 8);
        let (old, mut old_far) = pair(&mut ring);
        ring.receive(old);
        ring.wait(Some(Duration::ZERO)).expect("the receive is under way");
        // The bytes and the close race; whatever the kernel makes of it stays with the old slot.
        old_far.write_all(b"late").expect("the socket takes it");
        ring.close(old);
        let deadline = Instant::now() + PATIENCE;
        let (new, mut new_far) = loop {
            let (key, far) = pair(&mut ring);
            if key.index == old.index {
                break (key, far);
            }
            assert!(Instant::now() < deadline, "{rung:?}: the slot never came free");
            ring.wait(Some(Duration::from_millis(1))).expect("the ring waits");
        };
        assert_ne!(new.generation, old.generation);
        ring.receive(new);
        new_far.write_all(b"mine").expect("the socket takes it");
        let seen = collect(&mut ring, |seen| !seen.bytes_of(new).is_empty());
        assert_eq!(seen.bytes_of(new), b"mine");
        assert_eq!(seen.bytes_of(old), b"", "{rung:?}: nothing is said of what was closed");
        ring.receive(old);
        assert!(!ring.is_receiving(old), "an old key means nothing");
    }
}

#[test]
fn a_cancelled_multishot_says_so_once_and_may_still_bring_bytes() {
    let mut ring = ring(Rung::Deferred, 8);
    let (key, mut far) = pair(&mut ring);
    for round in 0..50 {
        ring.receive(key);
        far.write_all(b"x").expect("the socket takes it");
        ring.stop_receiving(key);
        ring.stop_receiving(key);
        let seen = collect(&mut ring, |seen| !seen.ended.is_empty());
        assert_eq!(seen.ended.len(), 1, "round {round}");
        assert!(!ring.is_receiving(key));
        if seen.bytes_of(key).is_empty() {
            ring.receive(key);
            let seen = collect(&mut ring, |seen| !seen.received.is_empty());
            assert_eq!(seen.bytes_of(key), b"x", "round {round}");
            ring.stop_receiving(key);
            collect(&mut ring, |seen| !seen.ended.is_empty());
        }
    }
}

#[test]
fn a_peer_that_is_gone_fails_the_send_and_not_the_ring() {
    let mut ring = ring(Rung::Deferred, 8);
    let (dead, far) = pair(&mut ring);
    drop(far);
    ring.send(dead, Bytes::from_static(b"anybody?"));
    let seen = collect(&mut ring, |seen| !seen.send_failed.is_empty());
    assert_eq!(seen.send_failed, [dead]);
    let (alive, mut far) = pair(&mut ring);
    ring.receive(alive);
    far.write_all(b"here").expect("the socket takes it");
    collect(&mut ring, |seen| seen.bytes_of(alive) == b"here");
}

#[test]
fn a_wake_from_another_thread_ends_the_wait() {
    for rung in Rung::LADDER {
        let mut ring = ring(rung, 8);
        let wake = ring.wake();
        wake.about_to_sleep();
        let other = std::thread::spawn(move || wake.wake());
        // A wait may also end early, by a signal say; the wake itself must come all the same.
        let deadline = Instant::now() + PATIENCE;
        loop {
            ring.wait(Some(PATIENCE)).expect("the ring waits");
            match ring.next_done() {
                Some(done) => break assert!(matches!(done, Done::Woken), "{rung:?}: {done:?}"),
                None => assert!(Instant::now() < deadline, "{rung:?}: it was never woken"),
            }
        }
        other.join().expect("the waker ends");
    }
}

#[test]
fn a_ring_that_is_dropped_in_the_middle_of_everything_lets_go_of_its_peers() {
    for rung in Rung::LADDER {
        let mut far_ends = Vec::new();
        {
            let mut ring = ring(rung, 8);
            for n in 0..32 {
                let (key, far) = pair(&mut ring);
                match n % 3 {
                    0 => ring.receive(key),
                    1 => ring.receive_into(key, BytesMut::with_capacity(4096), 4096),
                    _ => ring.send(key, Bytes::from(vec![1; 1 << 20])),
                }
                far_ends.push(far);
            }
            ring.wait(Some(Duration::ZERO)).expect("all of it is under way");
        }
        for mut far in far_ends {
            let mut rest = Vec::new();
            far.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
            far.read_to_end(&mut rest).expect("the peer sees the end");
        }
    }
}
