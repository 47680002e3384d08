//! What a destination gives back: to another destination while nobody takes it, and to the dead
//! letters what is refused for good.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use forebay_exporters::batch::{Batch, DropReason, GivenBack, Outcome, Settled, Why};
use forebay_exporters::destination::{Destination, Kind};
use forebay_exporters::discovery::fixed::Static;
use forebay_exporters::dispatch::Waiting;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;
use tonic::Status;

use crate::fleet::{fleet, free_address, list};
use crate::grpc_peer::{Answer, GrpcPeer};
use crate::rig::{Rig, batch, delivered, destination, drop_reason, grpc_to, names, until};

/// A destination that another one stands in for. Its own retries would take an hour.
fn failing_over(list: &Static) -> Destination {
    let mut destination = fleet(&[free_address()], Duration::from_secs(5));
    let endpoints = list.endpoints.clone();
    destination.backends.discovery =
        forebay_exporters::discovery::Discovery::Static(Static { endpoints });
    destination.retry.initial_interval = Duration::from_secs(3_600);
    destination.retry.max_interval = Duration::from_secs(3_600);
    destination.fails_over = true;
    destination
}

fn movable(seq: u64) -> Batch {
    Batch { may_fail_over: true, ..batch(seq, &[&format!("{seq} a"), &format!("{seq} b")]) }
}

fn names_in(given_back: &GivenBack) -> Vec<String> {
    names(&ExportTraceServiceRequest::decode(given_back.chain.concat().as_slice()).unwrap())
}

fn is_failed_over(settled: &Settled) -> bool {
    matches!(settled.given_back.as_slice(), [GivenBack { why: Why::Failover, .. }])
}

#[test]
fn what_no_endpoint_takes_is_given_back_and_what_waits_for_a_retry_with_it() {
    const BATCHES: u64 = 30;
    let rig = Rig::new(vec![failing_over(&list(&[free_address(), free_address()]))]);
    let began = Instant::now();
    for seq in 0..BATCHES {
        rig.offer(0, movable(seq));
    }
    let mut got = BTreeSet::new();
    for _ in 0..BATCHES {
        let settled = rig.next_end();
        assert!(is_failed_over(&settled), "{settled:?}");
        assert_eq!(settled.outcome, delivered(), "nothing is left to be told of");
        let [given_back] = settled.given_back.as_slice() else { unreachable!() };
        assert_eq!(given_back.counts.items, 2);
        let bytes: usize = given_back.chain.iter().map(|bytes| bytes.len()).sum();
        assert_eq!(given_back.bytes, bytes as u64);
        got.extend(names_in(given_back));
    }
    assert_eq!(got.len() as u64, 2 * BATCHES);
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    let stats = rig.finish().remove(0);
    assert_eq!(stats.given_back_items, [2 * BATCHES, 0]);
    assert_eq!((stats.delivered_items, stats.delivered_batches), (0, 0));
}

#[test]
fn what_comes_before_discovery_has_answered_waits_for_it_and_does_not_fail_over() {
    let peer = GrpcPeer::start(|_, _| Answer::Ok);
    let mut destination = failing_over(&Static { endpoints: Vec::new() });
    destination.retry.initial_interval = Duration::from_millis(20);
    // Longer than this test may take.
    destination.backends.first_answer_max = Duration::from_secs(3_600);
    let rig = Rig::new(vec![destination]);
    rig.offer(0, movable(0));
    until("it is held up again and again", || {
        rig.snapshot(0).waits[Waiting::Breakers.index()] >= 3
    });
    assert_eq!(rig.snapshot(0).given_back_items, [0, 0]);
    let found = list(&[peer.address]);
    rig.clusters[0].apply(Instant::now(), &found.endpoints);
    let settled = rig.next_end();
    assert!(settled.given_back.is_empty(), "{settled:?}");
    assert_eq!(settled.outcome, delivered());
    rig.finish();
}

#[test]
fn what_waits_for_discovery_s_first_answer_fails_over_once_its_time_is_over() {
    let mut destination = failing_over(&Static { endpoints: Vec::new() });
    destination.backends.first_answer_max = Duration::from_millis(700);
    let began = Instant::now();
    let rig = Rig::new(vec![destination]);
    rig.offer(0, movable(0));
    let settled = rig.next_end();
    assert!(is_failed_over(&settled), "{settled:?}");
    assert!(began.elapsed() >= Duration::from_millis(700), "{:?}", began.elapsed());
    rig.finish();
}

#[test]
fn what_may_not_wait_as_long_as_discovery_may_take_fails_over_and_is_not_lost() {
    let mut destination = failing_over(&Static { endpoints: Vec::new() });
    destination.retry.initial_interval = Duration::from_millis(20);
    destination.retry.max_elapsed_time = Some(Duration::from_millis(300));
    destination.backends.first_answer_max = Duration::from_secs(3_600);
    let rig = Rig::new(vec![destination]);
    rig.offer(0, movable(0));
    let settled = rig.next_end();
    assert!(is_failed_over(&settled), "{settled:?}");
    rig.finish();
}

#[test]
fn a_lane_that_is_abandoned_alone_counts_what_it_had_and_the_others_go_on() {
    let peer = GrpcPeer::start(|_, _| Answer::Ok);
    let silent = GrpcPeer::start(|_, _| Answer::Hang);
    let to = |address| destination(Kind::OtlpGrpc(grpc_to(address)));
    let rig = Rig::new(vec![to(silent.address), to(peer.address)]);
    for seq in 0..10_u64 {
        rig.offer(0, batch(seq, &["a", "b"]));
    }
    until("calls are under way", || rig.snapshot(0).in_flight_requests == 4);
    rig.lanes[0].abandon();
    for _ in 0..10 {
        let settled = rig.next_end();
        assert_eq!(drop_reason(&settled.outcome), Some(DropReason::Shutdown), "{settled:?}");
    }
    assert!(rig.lanes[0].offer(Arc::new(batch(10, &["c"]))).is_err(), "it takes no more");
    rig.offer(1, batch(11, &["d"]));
    assert_eq!(rig.next_end().outcome, delivered());
    let stats = rig.finish();
    assert_eq!(stats[0].dropped_items[DropReason::Shutdown.index()], 20);
    assert_eq!(stats[1].delivered_items, 1);
}

#[test]
fn a_batch_that_may_go_nowhere_else_stays() {
    let rig = Rig::new(vec![failing_over(&list(&[free_address()]))]);
    for seq in 0..20_u64 {
        rig.offer(0, Batch { may_fail_over: seq.is_multiple_of(2), ..movable(seq) });
    }
    for _ in 0..10 {
        let settled = rig.next_end();
        assert!(is_failed_over(&settled) && settled.batch.seq.is_multiple_of(2), "{settled:?}");
    }
    until("the others wait", || rig.snapshot(0).retries_waiting == 10);
    let (stats, ends) = rig.abandon();
    assert_eq!((ends.len(), stats[0].given_back_items), (10, [20, 0]));
}

/// Both cores of a process hear of it, also the one that had no part in it.
#[test]
fn what_waits_is_given_back_when_another_core_finds_the_fleet_dead() {
    let peer = GrpcPeer::start(|_, _| Answer::Fail(Status::unavailable("once")));
    let mut destination = failing_over(&list(&[peer.address]));
    // Nothing but the state of the others says so.
    destination.backends.breaker.recovery_timeout = Duration::from_secs(3_600);
    destination.backends.breaker.recovery_timeout_max = Duration::from_secs(3_600);
    let rig = Rig::new(vec![destination]);
    rig.offer(0, movable(0));
    until("it waits", || rig.snapshot(0).retries_waiting == 1);
    let endpoints = rig.clusters[0].endpoints().snapshot();
    let mut rng = fastrand::Rng::with_seed(1);
    while endpoints.fleet().closed() > 0 {
        let now = Instant::now();
        let call = endpoints.endpoints()[0].admit(now).expect("it is closed");
        call.end(now, forebay_exporters::breaker::Outcome::Failure, &mut rng);
    }
    assert!(is_failed_over(&rig.next_end()));
    rig.finish();
}

#[test]
fn a_destination_that_is_back_takes_batches_again() {
    let address = free_address();
    let rig = Rig::new(vec![failing_over(&list(&[address]))]);
    let mut seq = 0;
    let mut offer = || {
        rig.offer(0, movable(seq));
        seq += 1;
        rig.next_end()
    };
    // Until the breaker opens, what fails waits.
    rig.offer(0, movable(1_000));
    rig.offer(0, movable(1_001));
    while !is_failed_over(&offer()) {}
    let peer = GrpcPeer::start_on(address, |_, _| Answer::Ok);
    until("one is delivered", || {
        offer();
        rig.snapshot(0).delivered_items > 0
    });
    assert!(peer.count() > 0);
    let (stats, _) = rig.abandon();
    assert!(stats[0].given_back_items[0] > 0, "{stats:?}");
}

#[test]
fn what_is_refused_for_good_is_given_back_with_the_reason() {
    let peer = GrpcPeer::start(|_, names| match names[0].as_str() {
        "bad" => Answer::Fail(Status::invalid_argument("no such field")),
        "huge" => Answer::Fail(Status::resource_exhausted("too much")),
        _ => Answer::Ok,
    });
    let mut destination = destination(Kind::OtlpGrpc(grpc_to(peer.address)));
    destination.keeps_refused = true;
    let rig = Rig::new(vec![destination]);
    rig.offer(0, batch(0, &["fine"]));
    rig.offer(0, batch(1, &["bad"]));
    // In halves: one of them is taken.
    rig.offer(0, batch(2, &["huge", "small"]));
    let ends: Vec<Settled> = (0..3).map(|_| rig.next_end()).collect();
    for Settled { batch, outcome, given_back, .. } in ends {
        assert_eq!(outcome, Outcome::Delivered { rejected_items: 0 });
        let expected = match batch.seq {
            0 => None,
            1 => Some((3, "bad", "INVALID_ARGUMENT: no such field")),
            _ => Some((8, "huge", "RESOURCE_EXHAUSTED: too much")),
        };
        let got = given_back.first().map(|given_back| {
            let Why::Refused { code, message, .. } = &given_back.why else { unreachable!() };
            (code.unwrap(), names_in(given_back), message.as_str())
        });
        let expected = expected.map(|(code, name, text)| (code, vec![name.to_owned()], text));
        assert_eq!((got, given_back.len() > 1), (expected, false));
    }
    let stats = rig.finish().remove(0);
    assert_eq!((stats.delivered_items, stats.given_back_items), (2, [0, 2]));
}
