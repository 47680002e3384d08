//! `otlp_grpc` against a tonic server, and against peers that are none.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use forebay_codec::status::Status as WireStatus;
use forebay_exporters::batch::{DropReason, Outcome};
use forebay_exporters::destination::{
    Algorithm, Compression, Keepalive, Kind, OtlpGrpc, Queue, Retry,
};
use forebay_exporters::verdict::FailureKind;
use tokio::sync::Barrier;
use tonic::transport::Server;
use tonic::{Code, Status};

use crate::cable::Cable;
use crate::grpc_peer::{Answer, GrpcPeer};
use crate::rig::{
    Rig, batch, delivered, destination, drop_reason, grpc_to, http_headers, soon, until,
};

fn rig(settings: OtlpGrpc) -> Rig {
    Rig::new(vec![destination(Kind::OtlpGrpc(settings))])
}

fn with_retry_info(code: Code, delay: Duration) -> Status {
    let details = WireStatus {
        code: code as u32,
        message: "busy".to_owned(),
        retry_delay: Some(delay),
        bad_request: None,
    };
    Status::with_details(code, "busy", details.to_proto().into())
}

#[test]
fn a_batch_arrives_whole_with_its_headers_and_settles_as_delivered() {
    let peer = GrpcPeer::start(|_, _| Answer::Ok);
    let settings =
        OtlpGrpc { headers: http_headers(&[("x-tenant", "a")]), ..grpc_to(peer.address) };
    let rig = rig(settings);
    rig.offer(0, batch(1, &["one", "two", "three"]));
    assert_eq!(rig.ends(1)[&(0, 1)], delivered());
    let stats = rig.finish().remove(0);
    assert_eq!((stats.delivered_items, stats.delivered_batches, stats.attempts), (3, 1, 1));
    let got = peer.take().remove(0);
    assert_eq!(got.names, ["one", "two", "three"]);
    assert_eq!(got.metadata.get("x-tenant").unwrap(), "a");
    assert_eq!(got.metadata.get("grpc-timeout").unwrap(), "20000m");
    let agent = got.metadata.get("user-agent").unwrap().to_str().unwrap();
    assert!(agent.starts_with("forebay/") && agent.contains("(linux/"), "{agent}");
}

#[test]
fn every_compression_of_grpc_is_read_by_its_peer_and_its_answers_by_us() {
    for algorithm in [Algorithm::Gzip, Algorithm::Zstd, Algorithm::Deflate] {
        let partial = || Answer::Partial { rejected: 0, message: "slow down ".repeat(50) };
        let peer = GrpcPeer::start(move |_, _| partial());
        let compression = Compression { algorithm, level: None };
        let rig = rig(OtlpGrpc { compression, ..grpc_to(peer.address) });
        let long = "a name that compresses ".repeat(500);
        rig.offer(0, batch(1, &[&long, "two"]));
        assert_eq!(rig.ends(1)[&(0, 1)], delivered(), "{algorithm:?}");
        let stats = rig.finish().remove(0);
        assert!(stats.sent_bytes < 2000, "{algorithm:?}: {} bytes sent", stats.sent_bytes);
        assert_eq!(peer.take()[0].names, [long, "two".to_owned()], "{algorithm:?}");
    }
}

#[test]
fn c1_a_batch_over_the_limit_is_cut_and_an_item_over_it_is_dropped() {
    let peer = GrpcPeer::start(|_, _| Answer::Ok);
    let rig = rig(OtlpGrpc { request_bytes_max: 1000, ..grpc_to(peer.address) });
    let middle = "m".repeat(600);
    let large = "l".repeat(2000);
    rig.offer(0, batch(1, &[&middle, &middle, &large, &middle]));
    rig.offer(0, batch(2, &[&large]));
    let ends = rig.ends(2);
    let Outcome::Parted { dropped_items, .. } = &ends[&(0, 1)] else {
        panic!("one of its parts was dropped: {ends:?}");
    };
    assert_eq!(dropped_items[DropReason::TooLarge.index()], 1);
    assert_eq!(dropped_items.iter().sum::<u64>(), 1);
    assert_eq!(drop_reason(&ends[&(0, 2)]), Some(DropReason::TooLarge));
    let stats = rig.finish().remove(0);
    assert_eq!(stats.dropped_items[DropReason::TooLarge.index()], 2);
    let got: Vec<_> = peer.take().into_iter().flat_map(|got| got.names).collect();
    assert_eq!(got, [&middle[..], &middle, &middle]);
}

#[test]
fn c2_an_answer_over_4_mib_is_permanent() {
    let text = "x".repeat(5 << 20);
    let peer = GrpcPeer::start(move |_, _| Answer::Partial { rejected: 0, message: text.clone() });
    let rig = rig(grpc_to(peer.address));
    rig.offer(0, batch(1, &["one"]));
    assert_eq!(drop_reason(&rig.ends(1)[&(0, 1)]), Some(DropReason::Refused));
    rig.finish();
    assert_eq!(peer.count(), 1);
}

#[test]
fn c3_retryable_codes_are_sent_again_until_taken() {
    let codes = [
        Code::Cancelled,
        Code::DeadlineExceeded,
        Code::Aborted,
        Code::OutOfRange,
        Code::Unavailable,
        Code::DataLoss,
    ];
    let peer = GrpcPeer::start(move |count, _| match codes.get(count) {
        Some(code) => Answer::Fail(Status::new(*code, "not now")),
        None => Answer::Ok,
    });
    let rig = rig(grpc_to(peer.address));
    rig.offer(0, batch(1, &["one"]));
    assert_eq!(rig.ends(1)[&(0, 1)], delivered());
    let stats = rig.finish().remove(0);
    assert_eq!(stats.failed_attempts[FailureKind::Unavailable.index()], 6);
    assert_eq!(peer.count(), 7);
}

#[test]
fn c3_resource_exhausted_with_retry_info_is_sent_again_and_without_is_halved_once() {
    let peer = GrpcPeer::start(|_, names| match names {
        [one] if one == "patient" => {
            Answer::Fail(with_retry_info(Code::ResourceExhausted, Duration::from_millis(10)))
        }
        names if names.len() > 2 => Answer::Fail(Status::resource_exhausted("too large")),
        _ => Answer::Ok,
    });
    let rig = rig(grpc_to(peer.address));
    rig.offer(0, batch(1, &["a", "b", "c", "d"]));
    rig.offer(0, batch(2, &["1", "2", "3", "4", "5", "6"]));
    rig.offer(0, batch(3, &["patient"]));
    let ends = rig.ends(2);
    assert_eq!(ends[&(0, 1)], delivered());
    assert_eq!(drop_reason(&ends[&(0, 2)]), Some(DropReason::Refused));
    until("several attempts of the patient batch", || peer.count() > 10);
    let (stats, ends) = rig.abandon();
    assert_eq!(drop_reason(&ends[0].outcome), Some(DropReason::Shutdown));
    assert_eq!((stats[0].delivered_items, stats[0].dropped_items[0]), (4, 6));
}

#[test]
fn c5_retry_info_is_waited_first() {
    let delay = Duration::from_millis(300);
    let peer = GrpcPeer::start(move |count, _| match count {
        0 => Answer::Fail(with_retry_info(Code::Unavailable, delay)),
        _ => Answer::Ok,
    });
    let rig = rig(grpc_to(peer.address));
    let began = Instant::now();
    rig.offer(0, batch(1, &["one"]));
    assert_eq!(rig.ends(1)[&(0, 1)], delivered());
    assert!(began.elapsed() >= delay, "{:?}", began.elapsed());
    rig.finish();
}

#[test]
fn c6_a_partial_success_is_never_retried_and_its_rejects_are_counted() {
    let peer =
        GrpcPeer::start(|_, _| Answer::Partial { rejected: 2, message: "too old".to_owned() });
    let rig = rig(grpc_to(peer.address));
    rig.offer(0, batch(1, &["one", "two", "three"]));
    assert_eq!(rig.ends(1)[&(0, 1)], Outcome::Delivered { rejected_items: 2 });
    let stats = rig.finish().remove(0);
    assert_eq!(stats.delivered_items, 1);
    assert_eq!(stats.dropped_items[DropReason::PartialSuccess.index()], 2);
    assert_eq!(peer.count(), 1);
}

#[test]
fn c8_a_permanent_code_drops_the_batch_and_counts_its_items() {
    let peer = GrpcPeer::start(|_, _| Answer::Fail(Status::invalid_argument("no such field")));
    let rig = rig(grpc_to(peer.address));
    rig.offer(0, batch(1, &["one", "two"]));
    let ends = rig.ends(1);
    let Outcome::Dropped { reason, code, message } = &ends[&(0, 1)] else { panic!("{ends:?}") };
    assert_eq!((*reason, *code), (DropReason::Refused, Some(3)));
    assert_eq!(message, "INVALID_ARGUMENT: no such field");
    assert_eq!(rig.finish()[0].dropped_items[DropReason::Refused.index()], 2);
    assert_eq!(peer.count(), 1);
}

#[test]
fn c10_as_many_requests_are_in_flight_as_there_are_consumers() {
    let barrier = Arc::new(Barrier::new(6));
    let peer = GrpcPeer::start(move |_, _| Answer::Meet(Arc::clone(&barrier)));
    let settings = OtlpGrpc { connections: 2, ..grpc_to(peer.address) };
    let mut destination = destination(Kind::OtlpGrpc(settings));
    destination.queue = Queue { consumers: 6, batches_max: 100, bytes_max: None };
    let rig = Rig::new(vec![destination]);
    // None of them is answered unless all six are there together.
    for seq in 0..12 {
        rig.offer(0, batch(seq, &["one"]));
    }
    assert!(rig.ends(12).values().all(|outcome| *outcome == delivered()));
    rig.finish();
}

#[test]
fn a_peer_that_never_answers_costs_a_timeout_and_the_batch_is_sent_again() {
    let peer = GrpcPeer::start(|count, _| if count < 2 { Answer::Hang } else { Answer::Ok });
    let settings = OtlpGrpc { timeout: Duration::from_millis(500), ..grpc_to(peer.address) };
    let rig = rig(settings);
    rig.offer(0, batch(1, &["one"]));
    assert_eq!(rig.ends(1)[&(0, 1)], delivered());
    // The server knows the deadline too, and sometimes is the first to say that it passed.
    let failed = rig.finish()[0].failed_attempts;
    let timeouts = failed[FailureKind::Timeout.index()];
    let said = failed[FailureKind::Unavailable.index()];
    // A busy machine may miss the third answer, too.
    assert!(timeouts + said >= 2, "{failed:?}");
}

#[test]
fn retries_that_are_switched_off_or_used_up_drop_the_batch_by_name() {
    let peer = GrpcPeer::start(|_, _| Answer::Fail(Status::unavailable("never")));
    for retry in [
        Retry { enabled: false, ..soon() },
        Retry { max_elapsed_time: Some(Duration::from_millis(30)), ..soon() },
    ] {
        let mut destination = destination(Kind::OtlpGrpc(grpc_to(peer.address)));
        destination.retry = retry;
        let rig = Rig::new(vec![destination]);
        rig.offer(0, batch(1, &["one"]));
        assert_eq!(drop_reason(&rig.ends(1)[&(0, 1)]), Some(DropReason::RetriesExhausted));
        rig.finish();
    }
}

#[test]
fn a_destination_that_is_down_at_first_gets_everything_once_it_is_up() {
    // An address of its own, so that nobody else on this host takes the port meanwhile.
    let address = TcpListener::bind("127.44.3.1:0").unwrap().local_addr().unwrap();
    let rig = rig(grpc_to(address));
    for seq in 0..20 {
        rig.offer(0, batch(seq, &[&format!("span {seq}")]));
    }
    let connect = FailureKind::Connect.index();
    until("a failed attempt per batch", || rig.snapshot(0).failed_attempts[connect] >= 20);
    let peer = GrpcPeer::start_on(address, |_, _| Answer::Ok);
    assert!(rig.ends(20).values().all(|outcome| *outcome == delivered()));
    rig.finish();
    let mut got: Vec<_> = peer.take().into_iter().flat_map(|got| got.names).collect();
    got.sort();
    got.dedup();
    assert_eq!(got.len(), 20);
}

#[test]
fn peers_that_speak_no_grpc_never_take_a_batch_and_are_tried_again() {
    let garbage: [&'static [u8]; 4] = [
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"\x00\x00\x00\x04\x00\x00\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        b"SSH-2.0-OpenSSH\r\n",
        b"",
    ];
    for (case, bytes) in garbage.into_iter().enumerate() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                // Some of what comes is read, so that closing it is a reset.
                let _ = stream.read(&mut [0; 8]);
                let _ = stream.write_all(bytes);
            }
        });
        let rig = rig(grpc_to(address));
        rig.offer(0, batch(1, &["one"]));
        let failed = || rig.snapshot(0).failed_attempts.iter().sum::<u64>();
        until("several attempts", || failed() >= 3);
        if !bytes.is_empty() {
            let garbage = FailureKind::Garbage.index();
            until("its name", || rig.snapshot(0).failed_attempts[garbage] > 0);
        }
        let (_, ends) = rig.abandon();
        let reasons: Vec<_> = ends.iter().map(|end| drop_reason(&end.outcome)).collect();
        assert_eq!(reasons, [Some(DropReason::Shutdown)], "case {case}");
    }
}

#[test]
fn a_server_that_restarts_misses_nothing() {
    let first = GrpcPeer::start_on("127.44.3.2:0".parse().unwrap(), |count, _| match count {
        0..10 => Answer::Ok,
        _ => Answer::Hang,
    });
    let address = first.address;
    let rig = rig(grpc_to(address));
    for seq in 0..60 {
        rig.offer(0, batch(seq, &[&format!("span {seq}")]));
    }
    until("some requests in flight", || first.count() > 10);
    let mut got = first.stop();
    let second = GrpcPeer::start_on(address, |_, _| Answer::Ok);
    assert!(rig.ends(60).values().all(|outcome| *outcome == delivered()));
    rig.finish();
    got.truncate(10);
    got.extend(second.take());
    let mut names: Vec<_> = got.into_iter().flat_map(|got| got.names).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 60);
}

#[test]
fn connections_that_a_server_retires_are_replaced_without_a_failed_attempt() {
    let server = Server::builder().max_connection_age(Duration::from_millis(50));
    let peer = GrpcPeer::start_with("127.0.0.1:0".parse().unwrap(), server, |_, _| Answer::Ok);
    let rig = rig(grpc_to(peer.address));
    let began = Instant::now();
    let mut seq = 0;
    while began.elapsed() < Duration::from_millis(600) {
        rig.offer(0, batch(seq, &["one"]));
        assert_eq!(rig.ends(1)[&(0, seq)], delivered());
        seq += 1;
    }
    let stats = rig.finish().remove(0);
    assert_eq!(stats.failed_attempts.iter().sum::<u64>(), 0, "{seq} batches: {stats:?}");
}

#[test]
fn an_unanswered_keepalive_ping_ends_the_connection_before_the_timeout_does() {
    // Takes everything and says nothing, as a host does that was cut off.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || while stream.read(&mut [0; 4096]).unwrap_or(0) > 0 {});
        }
    });
    let keepalive = Keepalive {
        time: Some(Duration::from_millis(50)),
        timeout: Some(Duration::from_millis(50)),
        permit_without_stream: false,
    };
    // The timeout is longer than the test's patience.
    let timeout = Duration::from_secs(600);
    let rig = rig(OtlpGrpc { keepalive, timeout, ..grpc_to(address) });
    rig.offer(0, batch(1, &["one"]));
    let disconnected = FailureKind::Disconnected.index();
    until("a broken connection", || rig.snapshot(0).failed_attempts[disconnected] > 0);
    rig.abandon();
}

#[test]
fn a_connection_whose_peer_vanished_is_replaced_after_two_timeouts() {
    let peer = GrpcPeer::start(|_, _| Answer::Ok);
    let cable = Cable::to(peer.address);
    let settings = OtlpGrpc { timeout: Duration::from_secs(4), ..grpc_to(cable.address) };
    let rig = rig(settings);
    rig.offer(0, batch(1, &["one"]));
    assert_eq!(rig.ends(1)[&(0, 1)], delivered());
    cable.cut_connections();
    rig.offer(0, batch(2, &["two"]));
    assert_eq!(rig.ends(1)[&(0, 2)], delivered());
    let failed = rig.finish()[0].failed_attempts;
    assert_eq!(failed[FailureKind::Timeout.index()], 2, "{failed:?}");
    assert_eq!(failed.iter().sum::<u64>(), 2, "{failed:?}");
    assert_eq!((cable.connections(), peer.count()), (2, 2));
}

#[test]
fn an_answer_between_two_timeouts_keeps_the_connection() {
    // Each batch hangs when it comes for the first time.
    let seen = Mutex::new(BTreeSet::new());
    let peer = GrpcPeer::start(move |_, names| {
        let is_first = seen.lock().unwrap().insert(names.to_vec());
        if is_first { Answer::Hang } else { Answer::Ok }
    });
    let cable = Cable::to(peer.address);
    let settings = OtlpGrpc { timeout: Duration::from_secs(1), ..grpc_to(cable.address) };
    let rig = rig(settings);
    for seq in 0..3 {
        rig.offer(0, batch(seq, &[&format!("{seq}")]));
        assert_eq!(rig.ends(1)[&(0, seq)], delivered());
    }
    let failed: u64 = rig.finish()[0].failed_attempts.iter().sum();
    // An answer that a busy machine made late is a second timeout in a row.
    let late = failed.checked_sub(3).expect("each batch hung once") as usize;
    assert!((1..=1 + late).contains(&cable.connections()), "{late} late");
    assert!((6..=6 + late).contains(&peer.count()), "{late} late");
}

#[test]
fn requests_that_the_peer_has_no_stream_for_wait_for_one() {
    let server = Server::builder().max_concurrent_streams(1);
    let peer = GrpcPeer::start_with("127.0.0.1:0".parse().unwrap(), server, |_, _| Answer::Ok);
    let settings = OtlpGrpc { connections: 1, ..grpc_to(peer.address) };
    let mut destination = destination(Kind::OtlpGrpc(settings));
    destination.queue = Queue { consumers: 8, batches_max: 100, bytes_max: None };
    let rig = Rig::new(vec![destination]);
    // With its answer come the settings of the peer.
    rig.offer(0, batch(0, &["first"]));
    assert_eq!(rig.ends(1)[&(0, 0)], delivered());
    for seq in 1..60 {
        rig.offer(0, batch(seq, &["one"]));
    }
    assert!(rig.ends(59).values().all(|outcome| *outcome == delivered()));
    let stats = rig.finish().remove(0);
    assert_eq!(stats.failed_attempts.iter().sum::<u64>(), 0, "{stats:?}");
    assert_eq!(peer.count(), 60);
}

#[test]
fn streams_are_given_out_in_turn_so_that_nobody_waits_for_long() {
    let server = Server::builder().max_concurrent_streams(2);
    let late = |_: usize, _: &[String]| Answer::Late(Duration::from_millis(20));
    let peer = GrpcPeer::start_with("127.0.0.1:0".parse().unwrap(), server, late);
    let cable = Cable::to(peer.address);
    let timeout = Duration::from_secs(4);
    let settings = OtlpGrpc { connections: 1, timeout, ..grpc_to(cable.address) };
    let mut destination = destination(Kind::OtlpGrpc(settings));
    destination.queue = Queue { consumers: 8, batches_max: 1000, bytes_max: None };
    let rig = Rig::new(vec![destination]);
    rig.offer(0, batch(0, &["first"]));
    assert_eq!(rig.ends(1)[&(0, 0)], delivered());
    // Two at a time, they take longer than the timeout; each of them waits for a moment.
    for seq in 1..500 {
        rig.offer(0, batch(seq, &["one"]));
    }
    assert!(rig.ends(499).values().all(|outcome| *outcome == delivered()));
    let stats = rig.finish().remove(0);
    assert_eq!(stats.failed_attempts.iter().sum::<u64>(), 0, "{stats:?}");
    assert_eq!((cable.connections(), peer.count()), (1, 500));
}

#[test]
fn a_batch_of_many_mebibytes_passes_every_window() {
    let peer = GrpcPeer::start(|_, _| Answer::Ok);
    let rig = rig(grpc_to(peer.address));
    let long = "x".repeat(1 << 20);
    let names: Vec<&str> = std::iter::repeat_n(long.as_str(), 12).collect();
    rig.offer(0, batch(1, &names));
    rig.offer(0, batch(2, &names));
    assert!(rig.ends(2).values().all(|outcome| *outcome == delivered()));
    rig.finish();
    let got = peer.take();
    assert!(got.iter().all(|got| got.names == names), "what arrived is not what was sent");
}
