//! Connections between calls: made in time, replaced, closed, and looked after; endpoints that come
//! and go; health checks. All over real sockets.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use forebay_exporters::breaker::{self, State};
use forebay_exporters::cluster::Cluster;
use forebay_exporters::destination::{
    Backends, Destination, HealthCheck, Kind, OtlpGrpc, OtlpHttp, Pool, Probe, Queue,
};
use forebay_exporters::discovery::fixed::Static;
use forebay_exporters::discovery::{Discovery, Endpoint};
use forebay_exporters::endpoints::Status;
use forebay_exporters::stats::Snapshot;
use tokio::sync::Barrier;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic_health::ServingStatus;

use crate::grpc_peer::{Answer, GrpcPeer};
use crate::http_peer::{HttpPeer, Reply, ok};
use crate::rig::{Rig, batch, delivered, destination, grpc_to, http_to, until};

/// Nothing happens by itself.
const COLD: Pool = Pool { warm: false, age_max: None, idle_timeout: None };

fn over(kind: Kind, addresses: &[SocketAddr], pool: Pool) -> Destination {
    let kind = match kind {
        Kind::OtlpGrpc(grpc) => Kind::OtlpGrpc(OtlpGrpc { authority: None, ..grpc }),
        other => other,
    };
    let mut destination = destination(kind);
    let list = Static { endpoints: endpoints(addresses) };
    destination.backends =
        Backends { discovery: Discovery::Static(list), pool, ..Backends::local("under_test") };
    destination
}

fn endpoints(addresses: &[SocketAddr]) -> Vec<Endpoint> {
    addresses.iter().map(|address| Endpoint::of(*address)).collect()
}

fn grpc_over(addresses: &[SocketAddr], pool: Pool) -> Destination {
    over(Kind::OtlpGrpc(grpc_to(addresses[0])), addresses, pool)
}

fn failures(stats: &Snapshot) -> u64 {
    stats.failed_attempts.iter().sum()
}

fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

/// Keeps several calls under way until `enough`; how many batches that took.
fn load_until(rig: &Rig, enough: impl Fn(&Snapshot) -> bool) -> u64 {
    let mut offered = 0;
    until("enough connections", || {
        for _ in 0..8 {
            rig.offer(0, batch(offered, &["one"]));
            offered += 1;
        }
        assert!(rig.ends(8).values().all(|outcome| *outcome == delivered()));
        enough(&rig.snapshot(0))
    });
    offered
}

#[test]
fn connections_that_are_too_old_are_replaced_under_load_and_no_call_notices() {
    let pool = Pool { age_max: Some(Duration::from_millis(60)), ..COLD };
    let late = |_: usize, _: &[String]| Answer::Late(Duration::from_millis(3));
    let peer = GrpcPeer::start(late);
    let rig = Rig::new(vec![grpc_over(&[peer.address], pool)]);
    let sent = load_until(&rig, |stats| stats.connections_made >= 10);
    until("the old ones' end", || rig.snapshot(0).connections_open <= 2);
    let stats = rig.finish().remove(0);
    assert_eq!((failures(&stats), stats.repeated_requests), (0, 0), "{stats:?}");
    assert_eq!((stats.attempts, peer.count() as u64), (sent, sent));

    let peer = HttpPeer::start(|_, _| Reply::Send(ok()));
    let kind = Kind::OtlpHttp(http_to(peer.address));
    let rig = Rig::new(vec![over(kind, &[peer.address], pool)]);
    let sent = load_until(&rig, |stats| stats.connections_made >= 20);
    let stats = rig.finish().remove(0);
    assert_eq!((failures(&stats), stats.repeated_requests), (0, 0), "{stats:?}");
    assert_eq!((stats.attempts, peer.got().len() as u64), (sent, sent));
}

#[test]
fn an_old_connection_stays_in_use_while_no_other_can_be_made() {
    let peer = GrpcPeer::start(|_, _| Answer::Ok);
    let one = OneConnection::to(peer.address);
    let pool = Pool { age_max: Some(Duration::from_millis(20)), ..COLD };
    let rig = Rig::new(vec![grpc_over(&[one.address], pool)]);
    load_until(&rig, |_| one.refused.load(Ordering::Relaxed) >= 1);
    let stats = rig.finish().remove(0);
    assert_eq!((failures(&stats), stats.repeated_requests), (0, 0), "{stats:?}");
}

/// Forwards the first connection to a peer, and closes every other.
struct OneConnection {
    address: SocketAddr,
    refused: Arc<AtomicUsize>,
}

impl OneConnection {
    fn to(peer: SocketAddr) -> OneConnection {
        let listener = TcpListener::bind(loopback()).unwrap();
        let address = listener.local_addr().unwrap();
        let refused = Arc::<AtomicUsize>::default();
        let count = Arc::clone(&refused);
        std::thread::spawn(move || {
            let (near, _) = listener.accept().unwrap();
            let far = std::net::TcpStream::connect(peer).unwrap();
            let ends = [(near.try_clone().unwrap(), far.try_clone().unwrap()), (far, near)];
            for (mut from, mut to) in ends {
                std::thread::spawn(move || std::io::copy(&mut from, &mut to));
            }
            for stream in listener.incoming() {
                drop(stream);
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        OneConnection { address, refused }
    }
}

#[test]
fn a_warm_endpoint_is_connected_before_its_first_call_and_again_when_that_ended() {
    for is_grpc in [true, false] {
        let closing = Closing::start();
        let kind = match is_grpc {
            true => Kind::OtlpGrpc(grpc_to(closing.address)),
            false => Kind::OtlpHttp(http_to(closing.address)),
        };
        let rig = Rig::new(vec![over(kind, &[closing.address], Pool { warm: true, ..COLD })]);
        until("several connections", || closing.count() >= 3);
        let stats = rig.finish().remove(0);
        assert_eq!(stats.attempts, 0, "grpc: {is_grpc}");
    }
}

/// Takes connections and closes each after its first bytes, or at once if none are to come.
struct Closing {
    address: SocketAddr,
    taken: Arc<AtomicUsize>,
}

impl Closing {
    fn start() -> Closing {
        let listener = TcpListener::bind(loopback()).unwrap();
        let address = listener.local_addr().unwrap();
        let taken = Arc::<AtomicUsize>::default();
        let count = Arc::clone(&taken);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                count.fetch_add(1, Ordering::Relaxed);
                stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
                let _ = stream.read(&mut [0; 64]);
            }
        });
        Closing { address, taken }
    }

    fn count(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }
}

#[test]
fn an_endpoint_whose_breaker_is_open_is_not_kept_warm() {
    let (shut_off, warm) = (Closing::start(), Closing::start());
    let mut destination = grpc_over(&[shut_off.address], Pool { warm: true, ..COLD });
    destination.backends.breaker =
        breaker::Settings { failure_threshold: 1, ..breaker::Settings::default() };
    let other = grpc_over(&[warm.address], Pool { warm: true, ..COLD });
    // The breaker opens before the exporter core is there.
    let rig = Rig::begun(vec![destination, other], |clusters| {
        let endpoint = Arc::clone(&clusters[0].endpoints().snapshot().endpoints()[0]);
        let call = endpoint.admit(Instant::now()).expect("it is closed");
        let failed = breaker::Outcome::Failure;
        call.end(Instant::now(), failed, &mut fastrand::Rng::with_seed(1)).expect("it opens");
    });
    until("the other's connections", || warm.count() >= 4);
    assert_eq!(shut_off.count(), 0);
    rig.finish();
}

#[test]
fn a_connection_without_calls_is_closed_and_made_again_for_the_next() {
    let pool = Pool { idle_timeout: Some(Duration::from_millis(500)), ..COLD };
    let peer = GrpcPeer::start(|_, _| Answer::Ok);
    let rig = Rig::new(vec![grpc_over(&[peer.address], pool)]);
    for seq in 0..3 {
        rig.offer(0, batch(seq, &["one"]));
        assert_eq!(rig.ends(1)[&(0, seq)], delivered());
        until("its end", || rig.snapshot(0).connections_open == 0);
    }
    let stats = rig.finish().remove(0);
    assert_eq!((stats.connections_made, stats.attempts), (3, 3));
}

#[test]
fn an_endpoint_that_leaves_finishes_its_calls_and_its_connections_are_closed() {
    let barrier = Arc::new(Barrier::new(2));
    let shared = Arc::clone(&barrier);
    let leaver = GrpcPeer::start(move |_, _| Answer::Meet(Arc::clone(&shared)));
    let stayer = GrpcPeer::start(|_, _| Answer::Ok);
    let rig = Rig::new(vec![grpc_over(&[leaver.address], COLD)]);
    rig.offer(0, batch(0, &["held"]));
    until("the call", || leaver.count() == 1);
    rig.clusters[0].apply(Instant::now(), &endpoints(&[stayer.address]));
    rig.offer(0, batch(1, &["other"]));
    assert_eq!(rig.ends(1)[&(0, 1)], delivered());
    assert_eq!(rig.snapshot(0).connections_open, 2);
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(barrier.wait());
    assert_eq!(rig.ends(1)[&(0, 0)], delivered());
    until("the end of its connection", || rig.snapshot(0).connections_open == 1);
    assert_eq!(failures(&rig.finish()[0]), 0);
    assert_eq!((leaver.count(), stayer.count()), (1, 1));
}

#[test]
fn thousands_of_endpoints_that_come_and_go_leave_nothing_behind() {
    const ROUNDS: usize = 40;
    const AT_ONCE: usize = 50;
    // All of 127.0.0.0/8 is this host.
    let peer = GrpcPeer::start_on("0.0.0.0:0".parse().unwrap(), |_, _| Answer::Ok);
    let address = |number: usize| -> SocketAddr {
        let [.., high, low] = number.to_be_bytes();
        SocketAddr::from(([127, 51, high, low], peer.address.port()))
    };
    let mut destination = grpc_over(&[address(1)], COLD);
    destination.queue = Queue { consumers: AT_ONCE, batches_max: 100, bytes_max: None };
    let rig = Rig::new(vec![destination]);
    for round in 0..ROUNDS {
        let first = 1 + round * AT_ONCE;
        let set: Vec<SocketAddr> = (first..first + AT_ONCE).map(address).collect();
        rig.clusters[0].apply(Instant::now(), &endpoints(&set));
        for seq in 0..AT_ONCE {
            rig.offer(0, batch((round * AT_ONCE + seq) as u64, &["one"]));
        }
        assert!(rig.ends(AT_ONCE).values().all(|outcome| *outcome == delivered()));
    }
    until("the end of the others", || rig.snapshot(0).connections_open <= AT_ONCE as u64);
    let stats = rig.finish().remove(0);
    assert!(stats.connections_made > (ROUNDS * AT_ONCE / 2) as u64, "{stats:?}");
    assert_eq!(failures(&stats), 0, "{stats:?}");
}

#[test]
fn a_further_connection_is_made_when_the_first_has_no_stream_left() {
    let barrier = Arc::new(Barrier::new(3));
    let meet = move |count: usize, _: &[String]| match count {
        0 => Answer::Ok,
        _ => Answer::Meet(Arc::clone(&barrier)),
    };
    let server = Server::builder().max_concurrent_streams(1);
    let peer = GrpcPeer::start_with(loopback(), server, meet);
    let settings = OtlpGrpc { connections: 3, ..grpc_to(peer.address) };
    let rig = Rig::new(vec![over(Kind::OtlpGrpc(settings), &[peer.address], COLD)]);
    rig.offer(0, batch(0, &["first"]));
    assert_eq!(rig.ends(1)[&(0, 0)], delivered());
    assert_eq!(rig.snapshot(0).connections_made, 1);
    // None of them is answered unless all three are there together.
    for seq in 1..10 {
        rig.offer(0, batch(seq, &["one"]));
    }
    assert!(rig.ends(9).values().all(|outcome| *outcome == delivered()));
    let stats = rig.finish().remove(0);
    assert_eq!((stats.connections_made, failures(&stats)), (3, 0), "{stats:?}");
}

#[test]
fn a_further_connection_is_made_when_the_window_of_the_first_is_stuck() {
    let listener = TcpListener::bind(loopback()).unwrap();
    let address = listener.local_addr().unwrap();
    let (taken, read) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
    let (connections, bytes) = (Arc::clone(&taken), Arc::clone(&read));
    std::thread::spawn(move || {
        // Takes all that a window allows, and never widens it.
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            connections.fetch_add(1, Ordering::Relaxed);
            stream.write_all(b"\0\0\0\x04\0\0\0\0\0").unwrap();
            let bytes = Arc::clone(&bytes);
            std::thread::spawn(move || {
                while let Ok(count @ 1..) = stream.read(&mut [0; 4096]) {
                    bytes.fetch_add(count, Ordering::Relaxed);
                }
            });
        }
    });
    let settings = OtlpGrpc { connections: 2, ..grpc_to(address) };
    let rig = Rig::new(vec![over(Kind::OtlpGrpc(settings), &[address], COLD)]);
    rig.offer(0, batch(0, &["x".repeat(200 << 10).as_str()]));
    until("all that the window allows", || read.load(Ordering::Relaxed) >= 65_535);
    rig.offer(0, batch(1, &["one"]));
    until("a second connection", || taken.load(Ordering::Relaxed) == 2);
    rig.abandon();
}

#[test]
fn an_endpoint_that_hangs_cannot_hold_all_senders() {
    let hanging = GrpcPeer::start(|_, _| Answer::Hang);
    let working = GrpcPeer::start(|_, _| Answer::Ok);
    let timeout = Duration::from_secs(600);
    let settings = OtlpGrpc { timeout, ..grpc_to(working.address) };
    let addresses = [hanging.address, working.address];
    let mut destination = over(Kind::OtlpGrpc(settings), &addresses, COLD);
    destination.queue = Queue { consumers: 8, batches_max: 300, bytes_max: None };
    let rig = Rig::new(vec![destination]);
    for seq in 0..300 {
        rig.offer(0, batch(seq, &["one"]));
    }
    // Seven of eight at most are held; long before the timeout all else is through.
    assert!(rig.ends(293).values().all(|outcome| *outcome == delivered()));
    assert!(hanging.count() <= 7, "{} calls hang", hanging.count());
    rig.abandon();
}

#[test]
fn a_request_that_met_a_closing_connection_is_repeated_once_there_and_counted() {
    let peer = HttpPeer::start(|count, _| match count {
        1 => Reply::Close,
        _ => Reply::Send(ok()),
    });
    let other = HttpPeer::start(|_, _| Reply::Send(ok()));
    let settings = OtlpHttp { authority_of_endpoint: true, ..http_to(peer.address) };
    let addresses = [peer.address];
    let rig = Rig::new(vec![over(Kind::OtlpHttp(settings), &addresses, COLD)]);
    rig.offer(0, batch(0, &["one"]));
    assert_eq!(rig.ends(1)[&(0, 0)], delivered());
    rig.offer(0, batch(1, &["two"]));
    assert_eq!(rig.ends(1)[&(0, 1)], delivered());
    rig.clusters[0].apply(Instant::now(), &endpoints(&[other.address]));
    rig.offer(0, batch(2, &["three"]));
    assert_eq!(rig.ends(1)[&(0, 2)], delivered());
    let stats = rig.finish().remove(0);
    assert_eq!((stats.attempts, stats.repeated_requests, failures(&stats)), (3, 1, 0));
    // Each endpoint is called by its own name.
    for peer in [peer, other] {
        let name = peer.address.to_string();
        assert!(peer.got().iter().all(|request| request.header("host") == Some(&name)));
    }
}

fn checked(address: SocketAddr, probe: Probe) -> Destination {
    let mut destination = grpc_over(&[address], COLD);
    let interval = Duration::from_millis(300);
    destination.backends.health_check =
        HealthCheck { probe, interval, timeout: Duration::from_secs(10) };
    destination.backends.breaker = breaker::Settings {
        failure_threshold: 2,
        recovery_timeout: Duration::from_millis(50),
        recovery_timeout_max: Duration::from_millis(200),
        ..breaker::Settings::default()
    };
    destination
}

fn status(cluster: &Cluster) -> Status {
    cluster.status(Instant::now()).remove(0)
}

/// The last check, once there was one: `Some(None)` is a good one.
fn trouble(cluster: &Cluster) -> Option<Option<String>> {
    status(cluster).check.map(|check| check.trouble.clone())
}

#[test]
fn an_endpoint_that_says_it_serves_no_more_is_shut_off_and_let_in_again_without_a_call() {
    let (reporter, service) = tonic_health::server::health_reporter();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let set = |status| runtime.block_on(reporter.set_service_status("otlp", status));
    set(ServingStatus::Serving);
    let routes = Routes::new(service);
    let peer = GrpcPeer::start_beside(loopback(), Server::builder(), routes, |_, _| Answer::Ok);
    let rig = Rig::new(vec![checked(peer.address, Probe::Grpc("otlp".to_owned()))]);
    let cluster = &rig.clusters[0];
    until("a good check", || trouble(cluster) == Some(None));
    assert_eq!(status(cluster).state, State::Closed);
    set(ServingStatus::NotServing);
    until("an open breaker", || status(cluster).state != State::Closed);
    assert_eq!(trouble(cluster), Some(Some("it says that it is not serving".to_owned())));
    set(ServingStatus::Serving);
    until("a closed breaker", || status(cluster).state == State::Closed);
    // Over the endpoint's own connection, and no batch was at stake.
    let stats = rig.finish().remove(0);
    assert_eq!((stats.connections_made, stats.attempts, peer.count()), (1, 0, 0));
}

#[test]
fn a_server_without_health_service_is_well_and_an_unknown_service_is_not() {
    let without = GrpcPeer::start(|_, _| Answer::Ok);
    let (_reporter, service) = tonic_health::server::health_reporter();
    let routes = Routes::new(service);
    let with = GrpcPeer::start_beside(loopback(), Server::builder(), routes, |_, _| Answer::Ok);
    let probe = || Probe::Grpc("unknown".to_owned());
    let rig = Rig::new(vec![checked(without.address, probe()), checked(with.address, probe())]);
    until("a good check", || trouble(&rig.clusters[0]) == Some(None));
    until("a bad check", || trouble(&rig.clusters[1]).flatten().is_some());
    let why = trouble(&rig.clusters[1]).flatten().unwrap();
    assert!(why.contains("no service \"unknown\""), "{why}");
    rig.finish();
}

#[test]
fn an_endpoint_that_cannot_be_connected_to_is_shut_off_before_a_batch_pays_for_it() {
    let peer = GrpcPeer::start_on("127.44.3.9:0".parse().unwrap(), |_, _| Answer::Ok);
    let address = peer.address;
    let rig = Rig::new(vec![checked(address, Probe::Connect)]);
    let cluster = &rig.clusters[0];
    until("a good check", || trouble(cluster) == Some(None));
    peer.stop();
    until("an open breaker", || status(cluster).state != State::Closed);
    let why = trouble(cluster).flatten().unwrap();
    assert!(why.starts_with("no connection: "), "{why}");
    // Back again, a batch is the probe.
    let peer = GrpcPeer::start_on(address, |_, _| Answer::Ok);
    until("a good check", || trouble(cluster) == Some(None));
    for seq in 0..3 {
        rig.offer(0, batch(seq, &["one"]));
        assert_eq!(rig.ends(1)[&(0, seq)], delivered());
    }
    assert_eq!(status(cluster).state, State::Closed);
    assert_eq!(peer.count(), 3);
    assert_eq!(failures(&rig.finish()[0]), 0);
}
