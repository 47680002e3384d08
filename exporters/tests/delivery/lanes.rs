//! Queues, retries and stops: each batch ends exactly once, and nobody waits for another.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use forebay_exporters::batch::{DropReason, Returns, Settled};
use forebay_exporters::core::{Stop, start};
use forebay_exporters::destination::{Kind, Queue};
use forebay_exporters::lane::Lane;
use tonic::Status;

use crate::grpc_peer::{Answer, GrpcPeer};
use crate::http_peer::{HttpPeer, Reply};
use crate::rig::{Rig, batch, delivered, destination, drop_reason, grpc_to, http_to, until};

#[test]
fn one_unavailable_answer_in_ten_loses_nothing_and_settles_each_batch_once() {
    let peer = GrpcPeer::start(|count, _| match count % 10 {
        3 => Answer::Fail(Status::unavailable("busy")),
        _ => Answer::Ok,
    });
    let mut destination = destination(Kind::OtlpGrpc(grpc_to(peer.address)));
    destination.queue = Queue { consumers: 8, batches_max: 1000, bytes_max: None };
    // Every third word finds its receiver's queue full.
    let rig = Rig::with_full_receivers(vec![destination], 3);
    for seq in 0..500 {
        rig.offer(0, batch(seq, &[&format!("{seq} a"), &format!("{seq} b")]));
    }
    assert!(rig.ends(500).values().all(|outcome| *outcome == delivered()));
    let stats = rig.finish().remove(0);
    assert_eq!(stats.delivered_items, 1000);
    // What was answered with UNAVAILABLE came again: every name is there.
    let got: HashSet<_> = peer.take().into_iter().flat_map(|got| got.names).collect();
    assert_eq!(got.len(), 1000);
}

#[test]
fn c12_a_destination_that_hangs_delays_no_other() {
    let hanging = HttpPeer::start(|_, _| Reply::Hang);
    let quick = GrpcPeer::start(|_, _| Answer::Ok);
    let rig = Rig::new(vec![
        destination(Kind::OtlpHttp(http_to(hanging.address))),
        destination(Kind::OtlpGrpc(grpc_to(quick.address))),
    ]);
    for seq in 0..50 {
        let shared = Arc::new(batch(seq, &["one"]));
        rig.lanes[0].offer(Arc::clone(&shared)).unwrap();
        rig.lanes[1].offer(shared).unwrap();
    }
    // The hanging one's timeout is far longer than the rig's patience would like.
    let ends = rig.ends(50);
    assert!(ends.iter().all(|((lane, _), outcome)| *lane == 1 && *outcome == delivered()));
    assert_eq!(rig.snapshot(0).queue_batches, 50);
    let (_, ends) = rig.abandon();
    assert_eq!(ends.len(), 50);
}

#[test]
fn batches_that_always_fail_hold_up_no_others() {
    let peer = GrpcPeer::start(|_, names| match names[0].as_str() {
        "poison" => Answer::Fail(Status::unavailable("not this one")),
        _ => Answer::Ok,
    });
    let mut destination = destination(Kind::OtlpGrpc(grpc_to(peer.address)));
    destination.queue = Queue { consumers: 2, batches_max: 100, bytes_max: None };
    let rig = Rig::new(vec![destination]);
    for seq in 0..10 {
        rig.offer(0, batch(seq, &["poison"]));
    }
    for seq in 10..60 {
        rig.offer(0, batch(seq, &["fine"]));
    }
    let ends = rig.ends(50);
    assert!(ends.iter().all(|((_, seq), outcome)| *seq >= 10 && *outcome == delivered()));
    let (stats, ends) = rig.abandon();
    assert_eq!((ends.len(), stats[0].delivered_items), (10, 50));
}

#[test]
fn a_full_lane_gives_the_batch_back_and_takes_again_once_there_is_room() {
    let peer = HttpPeer::start(|_, _| Reply::Hang);
    let mut destination = destination(Kind::OtlpHttp(http_to(peer.address)));
    destination.queue = Queue { consumers: 2, batches_max: 3, bytes_max: None };
    let rig = Rig::new(vec![destination]);
    let lane = &rig.lanes[0];
    for seq in 0..5 {
        assert!(lane.has_room());
        rig.offer(0, batch(seq, &["one"]));
    }
    assert!(!lane.has_room());
    let back = lane.offer(Arc::new(batch(9, &["one"]))).unwrap_err();
    assert_eq!(back.id.seq, 9);
    assert_eq!(rig.snapshot(0).queue_batches, rig.snapshot(0).queue_capacity);
    let lane = Arc::clone(lane);
    let (stats, ends) = rig.abandon();
    assert_eq!((ends.len(), stats[0].offered_items), (5, 5));
    // Ended: nobody would settle it.
    assert!(lane.offer(Arc::new(batch(10, &["one"]))).is_err());
}

#[test]
fn a_lane_is_full_at_its_bytes_and_always_takes_one_batch() {
    let small = batch(0, &["one"]).bytes;
    let queue = Queue { consumers: 2, batches_max: 100, bytes_max: Some(2 * small + 1) };
    let lane = Lane::new(0, &queue);
    let large = Arc::new(batch(1, &[&"x".repeat(1_000)]));
    assert!(large.bytes > 2 * small + 1);
    lane.offer(Arc::clone(&large)).expect("it is empty");
    assert!(!lane.has_room());
    let back = lane.offer(Arc::new(batch(2, &["one"]))).unwrap_err();
    assert_eq!(back.id.seq, 2);
    lane.let_go(&lane.pop().unwrap());
    for seq in 3..6 {
        assert!(lane.has_room());
        lane.offer(Arc::new(batch(seq, &["one"]))).expect("there is room");
    }
    assert!(!lane.has_room() && lane.offer(Arc::new(batch(6, &["one"]))).is_err());
    let stats = lane.stats().snapshot();
    assert_eq!((stats.queue_batches, stats.queue_bytes), (3, 3 * small));
    assert_eq!(stats.queue_bytes_max, Some(2 * small + 1));
}

#[test]
fn receivers_that_offer_at_once_never_pass_the_bytes_by_more_than_a_batch() {
    let bytes = batch(0, &["one"]).bytes;
    let bytes_max = 5 * bytes - 1;
    let queue = Queue { consumers: 1, batches_max: 1_000, bytes_max: Some(bytes_max) };
    let lane = Lane::new(0, &queue);
    let (taken, given_back) = (AtomicU64::new(0), AtomicU64::new(0));
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let offering: Vec<_> = (0..3)
            .map(|thread| {
                let (lane, taken, given_back) = (&lane, &taken, &given_back);
                scope.spawn(move || {
                    for seq in 0..3_000 {
                        let batch = Arc::new(batch(thread * 10_000 + seq, &["one"]));
                        let count = if lane.offer(batch).is_ok() { taken } else { given_back };
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        let popping = scope.spawn(|| {
            let mut popped = 0;
            loop {
                let is_last = ended.load(Ordering::Acquire);
                while let Some(batch) = lane.pop() {
                    // Popped, it still counts, and so do offers that are just being refused.
                    let refused_now = 3 * bytes;
                    let held = lane.stats().snapshot().queue_bytes;
                    assert!(held <= bytes_max + bytes + refused_now, "{held}");
                    lane.let_go(&batch);
                    popped += 1;
                }
                if is_last {
                    return popped;
                }
            }
        });
        offering.into_iter().for_each(|thread| thread.join().unwrap());
        ended.store(true, Ordering::Release);
        assert_eq!(popping.join().unwrap(), taken.load(Ordering::Relaxed));
    });
    assert_eq!(taken.into_inner() + given_back.into_inner(), 9_000);
    let stats = lane.stats().snapshot();
    assert_eq!((stats.queue_batches, stats.queue_bytes), (0, 0));
}

#[test]
fn c9_an_abandoned_core_settles_all_it_holds_as_shutdown() {
    let peer = GrpcPeer::start(|_, names| match names[0].as_str() {
        "hang" => Answer::Hang,
        _ => Answer::Fail(Status::unavailable("busy")),
    });
    let rig = Rig::with_full_receivers(vec![destination(Kind::OtlpGrpc(grpc_to(peer.address)))], 2);
    for seq in 0..30 {
        rig.offer(0, batch(seq, &[if seq == 0 { "hang" } else { "fail" }]));
    }
    until("some in flight and some waiting for a retry", || {
        let stats = rig.snapshot(0);
        stats.in_flight_requests > 0 && stats.retries_waiting > 0
    });
    let (stats, ends) = rig.abandon();
    let ended: HashSet<_> = ends.iter().map(|end| end.batch.seq).collect();
    assert_eq!((ends.len(), ended.len()), (30, 30));
    assert!(ends.iter().all(|end| drop_reason(&end.outcome) == Some(DropReason::Shutdown)));
    assert_eq!(stats[0].dropped_items[DropReason::Shutdown.index()], 30);
}

#[test]
fn c9_a_closed_core_drains_before_it_ends() {
    let peer = GrpcPeer::start(|count, _| match count {
        0..20 => Answer::Fail(Status::unavailable("busy")),
        _ => Answer::Ok,
    });
    let rig = Rig::new(vec![destination(Kind::OtlpGrpc(grpc_to(peer.address)))]);
    for seq in 0..40 {
        rig.offer(0, batch(seq, &["one"]));
    }
    rig.stop.close();
    assert!(rig.ends(40).values().all(|outcome| *outcome == delivered()));
    rig.finish();
}

#[test]
fn offers_from_many_threads_against_a_stop_are_settled_or_given_back() {
    for round in 0..5 {
        let rig = Rig::new(vec![destination(Kind::Nop)]);
        let taken = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (lane, taken) = (&rig.lanes[0], &taken);
                scope.spawn(move || {
                    for seq in 0..2000 {
                        let batch = Arc::new(batch(thread * 10_000 + seq, &["one"]));
                        if lane.offer(batch).is_ok() {
                            taken.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
            until("some batches", || rig.snapshot(0).delivered_batches > 50);
            rig.stop.abandon();
        });
        let taken = taken.load(Ordering::Relaxed);
        let (stats, ends) = rig.abandon();
        let ended: HashSet<_> = ends.iter().map(|end| end.batch.seq).collect();
        assert_eq!((ends.len() as u64, ended.len() as u64), (taken, taken), "round {round}");
        assert_eq!(stats[0].offered_items, taken, "round {round}");
    }
}

#[test]
fn a_core_that_is_not_there_is_an_error_with_its_number() {
    struct Nobody;
    impl Returns for Nobody {
        fn settle(&self, settled: Settled) -> Result<(), Settled> {
            Err(settled)
        }
    }
    let stop = Arc::new(Stop::new());
    let error = start("x".into(), Some(60_000), Vec::new(), Arc::new(Nobody), stop).unwrap_err();
    assert!(error.to_string().contains("core 60000"), "{error}");
}
