//! One destination, several real peers: they die, hang, refuse, leave and come back, and every item
//! arrives.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use forebay_exporters::balance::{RoutingKey, Strategy};
use forebay_exporters::batch::DropReason;
use forebay_exporters::breaker;
use forebay_exporters::destination::{Backends, Destination, Kind, OtlpGrpc, Queue, RetryCodes};
use forebay_exporters::discovery::fixed::Static;
use forebay_exporters::dispatch::Waiting;
use tonic::{Code, Status};

use crate::grpc_peer::{Answer, GrpcPeer};
use crate::http_peer::{HttpPeer, Reply};
use crate::rig::{Rig, batch, delivered, destination, drop_reason, grpc_to, http_to, until};

const MS: Duration = Duration::from_millis(1);

/// Breakers that open after three failures in a row and are soon tried again.
pub(crate) fn quick() -> breaker::Settings {
    breaker::Settings {
        failure_threshold: 3,
        recovery_timeout: 100 * MS,
        recovery_timeout_max: 400 * MS,
        success_threshold: 1,
        probe_timeout: Duration::from_secs(5),
        ..breaker::Settings::default()
    }
}

pub(crate) fn list(addresses: &[SocketAddr]) -> Static {
    let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    Static::of(addresses.iter().map(String::as_str), None).unwrap()
}

pub(crate) fn fleet(addresses: &[SocketAddr], timeout: Duration) -> Destination {
    let grpc = OtlpGrpc { authority: None, timeout, ..grpc_to(addresses[0]) };
    let backends = Backends { breaker: quick(), ..Backends::of(list(addresses)) };
    Destination { backends, ..destination(Kind::OtlpGrpc(grpc)) }
}

pub(crate) fn hashing(addresses: &[SocketAddr]) -> Destination {
    let destination = fleet(addresses, Duration::from_secs(20));
    let strategy = Strategy::ConsistentHashing;
    let routing_key = Some(RoutingKey::TraceId);
    let backends = Backends { strategy, routing_key, ..destination.backends };
    Destination { backends, ..destination }
}

/// An address at which nobody listens for now. Its host is its own, one of the many that loopback
/// has, so that nobody else takes the port meanwhile.
pub(crate) fn free_address() -> SocketAddr {
    static TAKEN: AtomicU8 = AtomicU8::new(0);
    let nth = TAKEN.fetch_add(1, Ordering::Relaxed);
    let process = std::process::id().to_be_bytes()[3];
    let host = SocketAddr::from(([127, 45, process, nth], 0));
    TcpListener::bind(host).unwrap().local_addr().unwrap()
}

fn well() -> GrpcPeer {
    GrpcPeer::start(|_, _| Answer::Ok)
}

fn names_at(peer: &GrpcPeer) -> Vec<String> {
    peer.take().into_iter().flat_map(|got| got.names).collect()
}

#[test]
fn an_endpoint_that_dies_in_the_middle_costs_its_calls_a_hop_and_no_item() {
    const BATCHES: u64 = 600;
    let peers: Vec<GrpcPeer> = (0..3).map(|_| well()).collect();
    let addresses: Vec<SocketAddr> = peers.iter().map(|peer| peer.address).collect();
    let mut destination = fleet(&addresses, Duration::from_secs(60));
    destination.retry.initial_interval = Duration::from_secs(60);
    destination.retry.max_interval = Duration::from_secs(60);
    let rig = Rig::new(vec![destination]);
    let mut peers = peers.into_iter();
    let mut victim = peers.next();
    let (mut offered, mut took) = (BTreeMap::new(), Vec::new());
    let mut death = None;
    for seq in 0..BATCHES {
        if seq == BATCHES / 3 {
            // Beside the offers: to end a runtime takes its time.
            let victim = victim.take().expect("it dies once");
            death = Some(std::thread::spawn(move || victim.stop()));
        }
        offered.insert(seq, Instant::now());
        rig.offer(0, batch(seq, &[&format!("{seq} a"), &format!("{seq} b")]));
        if seq >= 20 {
            let settled = rig.next_end();
            assert_eq!(settled.outcome, delivered());
            took.push(offered[&settled.batch.seq].elapsed());
        }
    }
    assert!(rig.ends(20).values().all(|outcome| *outcome == delivered()));
    let stats = rig.finish().remove(0);
    assert_eq!((stats.delivered_items, stats.delivered_batches), (2 * BATCHES, BATCHES));
    let before_its_death = death.expect("it died").join().unwrap();
    let mut got: BTreeSet<String> =
        before_its_death.into_iter().flat_map(|got| got.names).collect();
    got.extend(peers.flat_map(|peer| names_at(&peer)));
    assert_eq!(got.len() as u64, 2 * BATCHES);
    // Nobody waited for a timeout or for a retry: either would have taken a minute. How long a hop
    // takes is the simulation's to judge, whose time is not shared with other programs.
    let slowest = took.iter().max().expect("some were measured");
    assert!(*slowest < Duration::from_secs(15), "{slowest:?}");
}

#[test]
fn an_endpoint_that_hangs_is_shut_off_and_what_it_held_goes_to_another() {
    let hanging = GrpcPeer::start(|_, _| Answer::Hang);
    let others = [well(), well()];
    let addresses = [hanging.address, others[0].address, others[1].address];
    let rig = Rig::new(vec![fleet(&addresses, 300 * MS)]);
    for seq in 0..90 {
        rig.offer(0, batch(seq, &[&format!("{seq}")]));
    }
    assert!(rig.ends(90).values().all(|outcome| *outcome == delivered()));
    let stats = rig.finish().remove(0);
    assert_eq!((stats.delivered_items, stats.dropped_items), (90, [0; 5]));
    let got: BTreeSet<String> = others.iter().flat_map(names_at).collect();
    assert_eq!(got.len(), 90);
    // Shut off after three, and tried by one at a time: it could not collect all senders.
    assert!(hanging.count() < 60, "{} went to who hangs", hanging.count());
}

#[test]
fn what_one_endpoint_refuses_for_now_another_takes_at_once() {
    let codes = [
        Code::Cancelled,
        Code::DeadlineExceeded,
        Code::Aborted,
        Code::OutOfRange,
        Code::Unavailable,
        Code::DataLoss,
    ];
    for code in codes {
        let refusing = GrpcPeer::start(move |_, _| Answer::Fail(Status::new(code, "not now")));
        let other = well();
        let rig = Rig::new(vec![fleet(&[refusing.address, other.address], 5000 * MS)]);
        for seq in 0..20 {
            rig.offer(0, batch(seq, &[&format!("{seq}")]));
        }
        assert!(rig.ends(20).values().all(|outcome| *outcome == delivered()), "{code:?}");
        let stats = rig.finish().remove(0);
        assert_eq!(names_at(&other).len(), 20, "{code:?}");
        assert_eq!(stats.attempts_again, refusing.count() as u64, "{code:?}: {stats:?}");
        assert!(stats.parts_again > 0, "{code:?}");
    }
}

fn answer(status: u16) -> Reply {
    let head = "content-type: application/x-protobuf\r\ncontent-length: 0";
    Reply::Send(format!("HTTP/1.1 {status} X\r\n{head}\r\n\r\n").into_bytes())
}

#[test]
fn only_the_codes_that_are_listed_are_tried_again() {
    let once_then_ok = |code| {
        GrpcPeer::start(move |count, _| match count {
            0 => Answer::Fail(Status::new(code, "once")),
            _ => Answer::Ok,
        })
    };
    for (code, is_retried) in [(Code::Internal, true), (Code::Unavailable, false)] {
        let peer = once_then_ok(code);
        let mut destination = destination(Kind::OtlpGrpc(grpc_to(peer.address)));
        destination.retry.codes = RetryCodes { grpc: Some(vec![13]), http: None };
        let rig = Rig::new(vec![destination]);
        rig.offer(0, batch(0, &["one"]));
        let end = rig.next_end().outcome;
        let expected = if is_retried { None } else { Some(DropReason::Refused) };
        assert_eq!((drop_reason(&end), peer.count()), (expected, 1 + usize::from(is_retried)));
        rig.finish();
    }
    for (status, is_retried) in [(500, true), (503, false), (413, false)] {
        let peer = HttpPeer::start(move |count, _| match count {
            0 => answer(status),
            _ => answer(200),
        });
        let mut destination = destination(Kind::OtlpHttp(http_to(peer.address)));
        destination.retry.codes = RetryCodes { grpc: None, http: Some(vec![500]) };
        let rig = Rig::new(vec![destination]);
        rig.offer(0, batch(0, &["one"]));
        let end = rig.next_end().outcome;
        let expected = if is_retried { None } else { Some(DropReason::Refused) };
        assert_eq!(drop_reason(&end), expected, "{status}");
        rig.finish();
    }
}

#[test]
fn an_endpoint_that_leaves_hands_what_waits_to_the_others() {
    let leaving = GrpcPeer::start(|_, _| Answer::Fail(Status::unavailable("going")));
    let staying = well();
    for is_hashing in [false, true] {
        let addresses = [leaving.address];
        let mut destination = fleet(&addresses, Duration::from_secs(5));
        if is_hashing {
            destination = hashing(&addresses);
        }
        let rig = Rig::new(vec![destination]);
        for seq in 0..40 {
            rig.offer(0, batch(seq, &[&format!("{} {seq}", seq % 7)]));
        }
        until("all of them wait", || rig.snapshot(0).retries_waiting == 40);
        rig.clusters[0].apply(Instant::now(), &list(&[staying.address]).endpoints);
        assert!(rig.ends(40).values().all(|outcome| *outcome == delivered()));
        let stats = rig.finish().remove(0);
        assert_eq!((stats.delivered_items, names_at(&staying).len()), (40, 40));
    }
}

#[test]
fn an_endpoint_that_was_gone_gets_a_probe_soon_however_long_all_batches_would_wait() {
    let address = free_address();
    let mut destination = fleet(&[address], Duration::from_secs(5));
    destination.retry.initial_interval = Duration::from_secs(3_600);
    destination.retry.max_interval = Duration::from_secs(3_600);
    let rig = Rig::new(vec![destination]);
    // As many as open the breaker: each has failed once and waits for up to an hour.
    for seq in 0..3 {
        rig.offer(0, batch(seq, &[&format!("{seq}")]));
    }
    until("the breaker is open", || rig.clusters[0].endpoints().fleet().closed() == 0);
    until("all of them wait", || rig.snapshot(0).retries_waiting == 3);
    // More, if a probe has failed meanwhile.
    assert!(rig.snapshot(0).waits[Waiting::Backoff.index()] >= 3);
    let peer = GrpcPeer::start_on(address, |_, _| Answer::Ok);
    let back = Instant::now();
    assert_eq!(rig.next_end().outcome, delivered());
    // The longest opening with its jitter, and the transport's own pause between two connections,
    // which may fail a probe, are seconds. Without a probe it would be an hour.
    assert!(back.elapsed() < Duration::from_secs(25), "after {:?}", back.elapsed());
    assert_eq!(rig.clusters[0].endpoints().fleet().closed(), 1);
    let (stats, ends) = rig.abandon();
    assert_eq!(ends.len(), 2);
    // One of them may have been on its way.
    assert!(peer.count() as u64 >= stats[0].delivered_items);
}

#[test]
fn a_fleet_that_dies_and_comes_back_loses_nothing() {
    let addresses = [free_address(), free_address()];
    let destination = fleet(&addresses, Duration::from_secs(5));
    let start = || addresses.map(|address| GrpcPeer::start_on(address, |_, _| Answer::Ok));
    let peers = start();
    let rig = Rig::new(vec![destination]);
    let mut got = BTreeSet::new();
    let mut offered = 0;
    let mut offer = |count: u64| {
        for seq in offered..offered + count {
            rig.offer(0, batch(seq, &[&format!("{seq}")]));
        }
        offered += count;
    };
    offer(20);
    until("some arrive", || peers.iter().map(GrpcPeer::count).sum::<usize>() > 5);
    for peer in peers {
        got.extend(peer.stop().into_iter().flat_map(|got| got.names));
    }
    offer(40);
    until("all breakers are open", || rig.clusters[0].endpoints().fleet().closed() == 0);
    let peers = start();
    assert!(rig.ends(60).values().all(|outcome| *outcome == delivered()));
    got.extend(peers.iter().flat_map(names_at));
    assert_eq!(got.len(), 60);
    rig.finish();
}

/// Offers batches of all traces; says at which peers each trace's spans arrived.
fn where_traces_go(
    rig: &Rig,
    peers: &[GrpcPeer],
    seqs: std::ops::Range<u64>,
) -> BTreeMap<char, BTreeSet<usize>> {
    let count = seqs.clone().count();
    for seq in seqs {
        let names: Vec<String> = ('a'..='z').map(|trace| format!("{trace} {seq}")).collect();
        rig.offer(0, batch(seq, &names.iter().map(String::as_str).collect::<Vec<_>>()));
    }
    assert!(rig.ends(count).values().all(|outcome| *outcome == delivered()));
    let mut places: BTreeMap<char, BTreeSet<usize>> = BTreeMap::new();
    let mut spans = 0;
    for (index, peer) in peers.iter().enumerate() {
        for name in names_at(peer) {
            places.entry(name.chars().next().unwrap()).or_default().insert(index);
            spans += 1;
        }
    }
    assert_eq!(spans, 26 * count, "each span arrives once");
    places
}

#[test]
fn hashing_keeps_a_trace_together_while_members_change() {
    let peers: Vec<GrpcPeer> = (0..4).map(|_| well()).collect();
    let all: Vec<SocketAddr> = peers.iter().map(|peer| peer.address).collect();
    let rig = Rig::new(vec![hashing(&all)]);
    let before = where_traces_go(&rig, &peers, 0..10);
    assert!(before.values().all(|peers| peers.len() == 1), "{before:?}");
    assert!(before.values().flatten().collect::<BTreeSet<_>>().len() > 1, "{before:?}");
    rig.clusters[0].apply(Instant::now(), &list(&all[..3]).endpoints);
    let after = where_traces_go(&rig, &peers, 10..20);
    assert!(after.values().all(|peers| peers.len() == 1), "{after:?}");
    for (trace, peer) in &before {
        let moved = after[trace] != *peer;
        assert_eq!(moved, peer.contains(&3), "trace {trace}: {peer:?}, then {:?}", after[trace]);
    }
    rig.clusters[0].apply(Instant::now(), &list(&all).endpoints);
    assert_eq!(where_traces_go(&rig, &peers, 20..30), before);
    rig.finish();
}

/// The first batch was cut for a set that is gone by the time there is a sender for its second
/// part.
#[test]
fn parts_that_were_not_sent_before_the_set_changed_are_cut_anew() {
    let gate = Arc::new(tokio::sync::Barrier::new(2));
    let busy = [(); 2].map(|()| {
        let gate = Arc::clone(&gate);
        GrpcPeer::start(move |_, _| Answer::Meet(Arc::clone(&gate)))
    });
    let peers: Vec<GrpcPeer> = (0..3).map(|_| well()).collect();
    let all: Vec<SocketAddr> = peers.iter().map(|peer| peer.address).collect();
    let mut destination = hashing(&busy.each_ref().map(|peer| peer.address));
    destination.queue = Queue { consumers: 1, ..destination.queue };
    let rig = Rig::new(vec![destination]);
    for seq in 0..11 {
        // Enough traces that both have some.
        let names: Vec<String> = ('A'..='z').map(|trace| format!("{trace} {seq}")).collect();
        rig.offer(0, batch(seq, &names.iter().map(String::as_str).collect::<Vec<_>>()));
    }
    let sent = || busy.iter().map(GrpcPeer::count).sum::<usize>();
    until("the one sender is busy", || sent() == 1);
    rig.clusters[0].apply(Instant::now(), &list(&all).endpoints);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(gate.wait());
    assert!(rig.ends(11).values().all(|outcome| *outcome == delivered()));
    let sent_before: Vec<String> = busy.iter().flat_map(names_at).collect();
    let per_batch = ('A'..='z').count();
    assert!(sent_before.len() < per_batch, "the first batch was cut in two");
    let mut place = BTreeMap::new();
    let mut spans = 0;
    for (index, peer) in peers.iter().enumerate() {
        for name in names_at(peer) {
            spans += 1;
            let trace = name.chars().next().unwrap();
            assert_eq!(*place.entry(trace).or_insert(index), index, "trace {trace}");
        }
    }
    assert_eq!(spans + sent_before.len(), 11 * per_batch);
    assert!(place.values().collect::<BTreeSet<_>>().len() > 1, "{place:?}");
    rig.finish();
}

#[test]
fn only_the_part_that_failed_is_sent_again_and_each_item_counts_once() {
    let failing = GrpcPeer::start(|count, _| match count {
        0 => Answer::Fail(Status::unavailable("once")),
        _ => Answer::Ok,
    });
    let peers = [failing, well(), well()];
    let all: Vec<SocketAddr> = peers.iter().map(|peer| peer.address).collect();
    let rig = Rig::new(vec![hashing(&all)]);
    // Enough traces that each peer has some.
    let names: Vec<String> = ('A'..='z').map(|trace| format!("{trace}")).collect();
    let items = names.len() as u64;
    rig.offer(0, batch(0, &names.iter().map(String::as_str).collect::<Vec<_>>()));
    assert_eq!(rig.next_end().outcome, delivered());
    let stats = rig.finish().remove(0);
    assert_eq!((stats.delivered_items, stats.delivered_batches), (items, 1));
    assert_eq!((stats.attempts, stats.attempts_again, stats.parts_again), (4, 1, 1));
    let refused: BTreeSet<String> = names_at(&peers[0]).into_iter().collect();
    let mut times: BTreeMap<String, u32> = BTreeMap::new();
    for name in peers[1..].iter().flat_map(names_at) {
        *times.entry(name).or_default() += 1;
    }
    assert!(!refused.is_empty() && refused.len() < names.len());
    assert_eq!(times.len() as u64, items, "what was refused arrived elsewhere");
    assert!(times.values().all(|times| *times == 1), "the other parts were sent once");
}
