//! What a lane holds beside its batches counts, and goes when they go: copies of what was cut, and
//! what is packed already for the next attempt.

use std::sync::Arc;
use std::time::Duration;

use forebay_exporters::destination::{Algorithm, Compression, Destination, Kind, Queue};
use tonic::Status;

use crate::fleet::hashing;
use crate::grpc_peer::{Answer, GrpcPeer};
use crate::rig::{Rig, batch, delivered, destination, grpc_to, until};

/// One span of each of twenty traces.
fn names() -> Vec<String> {
    ('a'..='t').map(|letter| format!("{letter}: {}", "long ".repeat(20))).collect()
}

fn gzip_to(peer: &GrpcPeer) -> Destination {
    let mut grpc = grpc_to(peer.address);
    grpc.compression = Compression { algorithm: Algorithm::Gzip, level: None };
    destination(Kind::OtlpGrpc(grpc))
}

#[test]
fn copies_of_a_batch_that_was_cut_are_held_by_its_lane_and_close_its_door() {
    let peers: Vec<GrpcPeer> = (0..3).map(|_| GrpcPeer::start(|_, _| Answer::Hang)).collect();
    let addresses: Vec<_> = peers.iter().map(|peer| peer.address).collect();
    let names = names();
    let cut = batch(0, &names.iter().map(String::as_str).collect::<Vec<_>>());
    let bytes = cut.bytes;
    let mut destination = hashing(&addresses);
    // Uncut it would leave room for another.
    destination.queue = Queue { consumers: 1, batches_max: 100, bytes_max: Some(bytes + 1) };
    let rig = Rig::new(vec![destination]);
    rig.offer(0, cut);
    until("a part of it is on its way", || rig.snapshot(0).in_flight_requests == 1);
    let held = rig.snapshot(0).queue_bytes;
    assert!(held > bytes, "{held} of {bytes}: nothing is said of the copies");
    assert!(held < 4 * bytes, "{held} of {bytes}: nobody copies that much");
    assert!(!rig.lanes[0].has_room(), "what is held is more than may be");
    assert!(rig.lanes[0].offer(Arc::new(batch(1, &["x"]))).is_err(), "{held} of {bytes}");
    // At the end of it no byte is held: the rig sees to that.
    let (_, ends) = rig.abandon();
    assert_eq!(ends.len(), 1);
}

#[test]
fn what_is_compressed_is_kept_for_the_next_attempt_where_there_is_room_to_spare() {
    let names = names();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let bytes = batch(0, &names).bytes;
    for (bytes_max, is_kept) in [(None, true), (Some(8 * bytes), true), (Some(2 * bytes), false)] {
        let peer = GrpcPeer::start(|_, _| Answer::Fail(Status::unavailable("busy")));
        let mut destination = gzip_to(&peer);
        destination.retry.initial_interval = Duration::from_secs(3_600);
        destination.retry.max_interval = Duration::from_secs(3_600);
        destination.queue.bytes_max = bytes_max;
        let rig = Rig::new(vec![destination]);
        rig.offer(0, batch(0, &names));
        until("it waits for its retry", || rig.snapshot(0).retries_waiting == 1);
        let held = rig.snapshot(0).queue_bytes;
        assert_eq!(held > bytes, is_kept, "{held} of {bytes}, at most {bytes_max:?}");
        assert!(held < 2 * bytes, "{held} of {bytes}: it was compressed");
        rig.abandon();
    }
}

#[test]
fn what_was_kept_is_what_is_sent_and_each_batch_keeps_its_own() {
    const BATCHES: u64 = 50;
    let peer = GrpcPeer::start(|count, _| match count % 3 {
        0 => Answer::Ok,
        _ => Answer::Fail(Status::unavailable("busy")),
    });
    let mut destination = gzip_to(&peer);
    destination.backends.retry_budget.min_per_second = 10_000.0;
    let rig = Rig::new(vec![destination]);
    for seq in 0..BATCHES {
        rig.offer(0, batch(seq, &[&format!("{seq} a"), &format!("{seq} b")]));
    }
    assert!(rig.ends(BATCHES as usize).values().all(|outcome| *outcome == delivered()));
    let stats = rig.finish().remove(0);
    assert!(stats.attempts_again >= BATCHES, "{} retries", stats.attempts_again);
    let mut got: Vec<Vec<String>> = peer.take().into_iter().map(|got| got.names).collect();
    assert!(got.iter().all(|names| names.len() == 2), "{got:?}");
    got.sort();
    got.dedup();
    assert_eq!(got.len() as u64, BATCHES, "each pair stays a pair");
}
