//! TLS, HTTP/3 and lossy paths: the load against servers that others wrote (rustls, `quinn` with
//! `h3`), the account exact.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Buf;
use clap::Parser;
use forebay_bench::account::Verdict;
use forebay_bench::certificates::{self, Certificates};
use forebay_bench::control::{Loaded, Sunk};
use forebay_bench::h3_service::{self, Service, Taken};
use forebay_bench::handshakes;
use forebay_bench::load::{self, Load};
use forebay_bench::lossy::{self, Lossy, Moved};
use forebay_bench::sink::{self, Sink};
use forebay_bench::trust::Trust;
use rustls::{HandshakeKind, ServerConnection};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Parser)]
struct Line<T: clap::Args> {
    #[command(flatten)]
    settings: T,
}

fn settings<T: clap::Args>(line: &str) -> T {
    let line = format!("program {line}");
    Line::<T>::parse_from(line.split_whitespace()).settings
}

fn certificates() -> (TempDir, Certificates) {
    let folder = TempDir::new().expect("a folder");
    let made = certificates::make(folder.path()).expect("certificates");
    (folder, made)
}

/// Drives `target` until `requests` are acknowledged.
fn drive(target: SocketAddr, line: &str, requests: u64) -> Loaded {
    let load: load::Settings = settings(&format!("{target} --run 7 {line}"));
    let load = Load::start(&load).expect("a load starts");
    load.begin();
    let deadline = Instant::now() + PATIENCE;
    while load.progress().ok_requests < requests {
        assert!(Instant::now() < deadline, "{line}: {:?}", load.progress());
        std::thread::sleep(Duration::from_millis(1));
    }
    load.stop()
}

// --- TLS ---

/// Ends TLS in front of a server, one thread a connection, and notes each handshake's kind: full or
/// resumed. Its address is all that a test needs; it ends with the process.
fn front(made: &Certificates, to: SocketAddr) -> (SocketAddr, Arc<std::sync::Mutex<Vec<bool>>>) {
    let config = certificates::server(&made.certificate, &made.key, &["h2", "http/1.1"]);
    let config = Arc::new(config.expect("a configuration"));
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    let resumed = Arc::<std::sync::Mutex<Vec<bool>>>::default();
    let noted = resumed.clone();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let session = ServerConnection::new(config.clone()).expect("a session");
            let (client, noted) = (client.expect("a client"), noted.clone());
            std::thread::spawn(move || {
                // Ends with an error as soon as either side is gone.
                let _ = carry(client, to, session, &noted);
            });
        }
    });
    (address, resumed)
}

fn carry(
    mut client: TcpStream,
    to: SocketAddr,
    mut session: ServerConnection,
    noted: &std::sync::Mutex<Vec<bool>>,
) -> std::io::Result<()> {
    while session.is_handshaking() {
        session.complete_io(&mut client)?;
    }
    let is_resumed = session.handshake_kind() == Some(HandshakeKind::Resumed);
    noted.lock().expect("nobody panics with it").push(is_resumed);
    let mut server = TcpStream::connect(to)?;
    let mut buffer = vec![0; 64 << 10];
    client.set_nonblocking(true)?;
    server.set_nonblocking(true)?;
    let is_later = |error: &std::io::Error| error.kind() == ErrorKind::WouldBlock;
    let mut onward: Vec<u8> = Vec::new();
    loop {
        let mut is_idle = true;
        match session.read_tls(&mut client) {
            Ok(0) => return Ok(()),
            Ok(_) => is_idle = false,
            Err(error) if is_later(&error) => {}
            Err(error) => return Err(error),
        }
        session.process_new_packets().map_err(std::io::Error::other)?;
        match session.reader().read(&mut buffer) {
            Ok(count) => onward.extend_from_slice(&buffer[..count]),
            Err(error) if is_later(&error) => {}
            Err(error) => return Err(error),
        }
        match server.write(&onward) {
            Ok(count) => drop(onward.drain(..count)),
            Err(error) if is_later(&error) => {}
            Err(error) => return Err(error),
        }
        match server.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => {
                is_idle = false;
                session.writer().write_all(&buffer[..count])?;
            }
            Err(error) if is_later(&error) => {}
            Err(error) => return Err(error),
        }
        while session.wants_write() {
            match session.write_tls(&mut client) {
                Ok(_) => {}
                Err(error) if is_later(&error) => break,
                Err(error) => return Err(error),
            }
        }
        if is_idle {
            std::thread::sleep(Duration::from_micros(200));
        }
    }
}

/// Through TLS to a sink, which audits.
fn play(line: &str, sink: &str, requests: u64) -> (Loaded, Verdict, Sunk, Vec<bool>) {
    let (_folder, made) = certificates();
    let sink =
        Sink::start(&settings::<sink::Settings>(&format!("--run 7 {sink}"))).expect("a sink");
    let to = if line.contains("http") { sink.ready.http } else { sink.ready.grpc };
    let (front, resumed) = front(&made, to.expect("a sink listens"));
    let line = format!("--tls --ca {} {line}", made.ca.display());
    let loaded = drive(front, &line, requests);
    let (book, sunk) = sink.stop();
    let verdict = book.audit(&loaded.claims);
    let resumed = resumed.lock().expect("nobody panics with it").clone();
    (loaded, verdict, sunk, resumed)
}

#[test]
fn over_tls_each_item_arrives_once_whatever_the_transport() {
    for transport in ["grpc", "http1", "http2"] {
        let line = format!("--transport {transport} --items 7 --connections 3");
        let (loaded, verdict, sunk, _) = play(&line, "", 300);
        assert!(verdict.is_clean(), "{line}: {verdict:?} {:?}", loaded.problems);
        assert_eq!(sunk.items, loaded.progress.ok_items, "{line}");
        assert_eq!(loaded.connections_broken, 0, "{:?}", loaded.problems);
    }
}

#[test]
fn requests_of_many_records_arrive_whole() {
    let (loaded, verdict, ..) = play("--items 8192 --connections 2 --streams 3", "", 8);
    assert!(verdict.is_clean(), "{verdict:?} {:?}", loaded.problems);
    assert!(verdict.arrivals >= 8 * 8192);
}

#[test]
fn connections_that_come_and_go_resume_their_session_unless_that_is_forbidden() {
    let churning = "--items 2 --connections 2 --churn 5";
    let (_, verdict, _, resumed) = play(churning, "", 200);
    assert!(verdict.is_clean(), "{verdict:?}");
    let full = resumed.iter().filter(|resumed| !**resumed).count();
    assert!(resumed.len() > 20 && full <= 4, "{full} full of {}", resumed.len());
    let (_, _, _, resumed) = play(&format!("{churning} --no-resumption"), "", 100);
    assert!(resumed.len() > 10 && !resumed.contains(&true), "{resumed:?}");
}

#[test]
fn a_server_that_nobody_vouches_for_is_refused_and_one_in_clear_text_is_named() {
    let (_folder, made) = certificates();
    let (_other, stranger) = certificates();
    let sink = Sink::start(&settings::<sink::Settings>("")).expect("a sink");
    let plain = sink.ready.grpc.expect("a sink listens");
    let (front, _) = front(&made, plain);
    let refused = |target: SocketAddr, trust: &str| {
        let load: load::Settings = settings(&format!("{target} --tls {trust}"));
        Load::start(&load).err().expect("no load starts")
    };
    let error = refused(front, &format!("--ca {}", stranger.ca.display()));
    assert!(error.contains("invalid peer certificate"), "{error}");
    let error = refused(front, &format!("--ca {} --server-name elsewhere", made.ca.display()));
    assert!(error.contains("elsewhere"), "{error}");
    let error = refused(front, "");
    assert!(error.contains("--ca") && error.contains("--insecure"), "{error}");
    let error = refused(plain, "--insecure");
    assert!(error.contains("do not speak"), "{error}");
    sink.stop();
}

#[test]
fn handshakes_are_counted_as_what_they_were() {
    let (_folder, made) = certificates();
    let sink = Sink::start(&settings::<sink::Settings>("")).expect("a sink");
    let (front, noted) = front(&made, sink.ready.grpc.expect("a sink listens"));
    let service = service(&made);
    for (target, kind) in [(front, "--tls"), (service.address, "--quic")] {
        let count = |how: &str| {
            let line = format!("{target} {kind} {how} --insecure --at-once 2 --seconds 3");
            let (found, problem) = handshakes::run(&settings(&line)).expect("a run");
            assert_eq!((problem, found.failed), (None, 0), "{line}");
            (found.full, found.resumed)
        };
        let (full, resumed) = count("--full");
        assert!(full > 0 && resumed == 0, "{kind}: {full} {resumed}");
        let (full, resumed) = count("--resumed");
        assert!(full == 0 && resumed > 0, "{kind}: {full} {resumed}");
    }
    let noted = noted.lock().unwrap();
    assert!(noted.contains(&true) && noted.contains(&false), "the server saw the same");
    sink.stop();
    service.stop();
}

// --- HTTP/3 ---

fn service(made: &Certificates) -> Service {
    let (cert, key) = (made.certificate.display(), made.key.display());
    let line = format!("--cert {cert} --key {key}");
    Service::start(&settings::<h3_service::Settings>(&line)).expect("a service starts")
}

/// From a load over HTTP/3 to the service, over `path` if there is one.
fn play_h3(line: &str, path: Option<&str>, requests: u64) -> (Loaded, Taken, Option<Moved>) {
    let (_folder, made) = certificates();
    let service = service(&made);
    let path = path.map(|path| {
        let lossy: lossy::Settings = settings(&format!("--to {} {path}", service.address));
        Lossy::start(&lossy).expect("a path")
    });
    let target = path.as_ref().map_or(service.address, |path| path.address);
    let line = format!("--transport http3 --ca {} {line}", made.ca.display());
    let loaded = drive(target, &line, requests);
    (loaded, service.stop(), path.map(Lossy::stop))
}

fn assert_exact(line: &str, loaded: &Loaded, taken: &Taken) {
    let progress = &loaded.progress;
    assert_eq!(progress.failed_requests, 0, "{line}: {:?}", loaded.problems);
    assert_eq!(loaded.connections_broken, 0, "{line}: {:?}", loaded.problems);
    assert_eq!(taken.items, progress.ok_items, "{line}");
    assert_eq!(taken.refused, 0, "{line}");
    assert_eq!(taken.requests, progress.ok_requests, "{line}");
    assert_eq!(progress.sent_requests, progress.ok_requests, "{line}");
    let claimed: u64 = loaded.claims.iter().map(|c| c.items * u64::from(c.times_min)).sum();
    assert_eq!(claimed, progress.ok_items, "{line}");
}

#[test]
fn over_http3_each_item_is_taken_once_whatever_the_signal_and_compression() {
    for signal in ["traces", "metrics", "logs"] {
        for compression in ["none", "gzip", "zstd"] {
            let line = format!(
                "--signal {signal} --compression {compression} --items 7 --connections 3 \
                 --streams 4"
            );
            let (loaded, taken, _) = play_h3(&line, None, 200);
            assert_exact(&line, &loaded, &taken);
            let ok = loaded.progress.ok_requests;
            // The last answers come when latencies no longer count, and may be all streams'.
            assert!((ok - 12..=ok).contains(&loaded.latencies), "{line}: {}", loaded.latencies);
        }
    }
}

#[test]
fn over_http3_large_requests_rates_threads_and_churn_keep_the_account() {
    for line in [
        "--items 8192 --connections 2 --streams 3",
        "--items 5 --connections 4 --rate 2000",
        "--items 3 --connections 6 --cores 0,0,0",
        "--items 2 --connections 3 --streams 4 --churn 10",
    ] {
        let (loaded, taken, _) = play_h3(line, None, 100);
        assert_exact(line, &loaded, &taken);
    }
}

/// What the service answers to a client that others wrote: status and message.
async fn ask(address: SocketAddr, head: http::Request<()>, body: &[u8]) -> (u16, Vec<u8>) {
    let trust = Trust { insecure: true, ..Trust::default() };
    let tls = trust.config(&["h3"]).expect("a configuration");
    let tls = quinn::crypto::rustls::QuicClientConfig::try_from(tls).expect("TLS 1.3");
    let endpoint = quinn::Endpoint::client(([127, 0, 0, 1], 0).into()).expect("a socket");
    let config = quinn::ClientConfig::new(Arc::new(tls));
    let connecting = endpoint.connect_with(config, address, "localhost").expect("an address");
    let connection = h3_quinn::Connection::new(connecting.await.expect("a connection"));
    let (mut driver, mut requests) = h3::client::new(connection).await.expect("HTTP/3");
    let driving = tokio::spawn(async move {
        std::future::poll_fn(|cx| driver.poll_close(cx)).await;
    });
    let mut stream = requests.send_request(head).await.expect("a stream");
    stream.send_data(bytes::Bytes::copy_from_slice(body)).await.expect("a body");
    stream.finish().await.expect("its end");
    let status = stream.recv_response().await.expect("an answer").status().as_u16();
    let mut message = Vec::new();
    while let Some(mut piece) = stream.recv_data().await.expect("a message") {
        let count = piece.remaining();
        message.extend_from_slice(&piece.copy_to_bytes(count));
    }
    drop(requests);
    driving.await.expect("the connection ends");
    (status, message)
}

#[test]
fn the_service_answers_as_otlp_says() {
    let (_folder, made) = certificates();
    let service = service(&made);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let protobuf = "application/x-protobuf";
    let cases: [(&str, &str, &str, &[u8], u16); 7] = [
        ("POST", "/v1/logs", protobuf, b"", 200),
        ("POST", "/v1/traces", protobuf, b"\x0a\x00", 200),
        ("POST", "/v1/traces", protobuf, b"\x0a\x7f", 400),
        ("POST", "/v1/traces", "application/json", b"{}", 415),
        ("POST", "/v2/traces", protobuf, b"", 404),
        ("GET", "/v1/traces", protobuf, b"", 405),
        ("POST", "/v1/metrics", "gzip", b"no gzip", 400),
    ];
    for (method, path, kind, body, expected) in cases {
        let head = http::Request::builder().method(method);
        let head = head.uri(format!("https://localhost{path}"));
        let head = match kind {
            "gzip" => head.header("content-type", protobuf).header("content-encoding", kind),
            kind => head.header("content-type", kind),
        };
        let (status, message) =
            runtime.block_on(ask(service.address, head.body(()).unwrap(), body));
        assert_eq!(status, expected, "{method} {path} {kind}");
        let fault = forebay_codec::status::Status::from_proto(&message).expect("a Status");
        assert_eq!(fault.message.is_empty(), expected == 200, "{method} {path}: {fault:?}");
    }
    let taken = service.stop();
    assert_eq!((taken.requests, taken.refused, taken.items), (7, 5, 0));
}

// --- lossy paths ---

#[test]
fn a_path_that_loses_doubles_delays_and_rebinds_costs_no_item() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let path = format!(
        "--seed {seed} --loss 0.03 --delay-ms 2 --jitter-ms 1 --reorder 0.02 --duplicate 0.02 \
         --rebind-after 200"
    );
    let line = "--items 20 --connections 4 --streams 4";
    let (loaded, taken, moved) = play_h3(line, Some(&path), 500);
    assert_exact(line, &loaded, &taken);
    let moved = moved.expect("there was a path");
    assert!(moved.lost > 0 && moved.doubled > 0 && moved.overtaken > 0, "{moved:?}");
    assert!(moved.rebound > 0, "{moved:?}");
    // A round trip is four milliseconds at least.
    assert!(loaded.latency_us.p50 > 4_000.0, "{:?}", loaded.latency_us);
}

#[test]
fn a_stream_over_such_a_path_keeps_its_bytes_and_their_order() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let sink = Sink::start(&settings::<sink::Settings>("--run 7")).expect("a sink");
    let to = sink.ready.grpc.expect("a sink listens");
    let line = format!("--tcp --to {to} --seed {seed} --loss 0.03 --delay-ms 2 --jitter-ms 1");
    let path = Lossy::start(&settings::<lossy::Settings>(&line)).expect("a path");
    let loaded = drive(path.address, "--items 50 --connections 3", 300);
    let (book, _) = sink.stop();
    let verdict = book.audit(&loaded.claims);
    assert!(verdict.is_clean(), "{verdict:?} {:?}", loaded.problems);
    assert!(loaded.latency_us.p50 > 4_000.0, "{:?}", loaded.latency_us);
    assert!(path.stop().lost > 0);
}

#[test]
fn a_path_that_makes_no_sense_is_refused_with_the_reason() {
    for (line, named) in [("--loss 1", "--loss"), ("--delay-ms -1", "--delay-ms")] {
        let line = format!("--to 127.0.0.1:9 {}", line.replace(" -1", "=-1"));
        let error = Lossy::start(&settings::<lossy::Settings>(&line)).err().expect("refused");
        assert!(error.contains(named), "{error}");
    }
}
