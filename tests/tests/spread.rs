//! Over cores: connections that come together, one connection that is too much for one core, and
//! old connections that leave; none of it loses a request.

use std::cell::{Cell, RefCell};
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use forebay_codec::compress::{Compressor, Encoding};
use forebay_codec::signal::Signal;
use forebay_tests::forebay::{PATIENCE, Process, config};
use forebay_tests::items;
use forebay_tests::wire::{Http1, frame, method_of};
use h2::client::SendRequest;
use rustix::process::Signal as Kill;

const TWO_CORES: &str = "cores: {receivers: \"0,1\"}";
/// Streams of the one connection.
const STREAMS: usize = 16;
/// Spans of one of its requests: long enough to be worth the way to another core.
const SPANS: i64 = 1_000;
/// Different ones, made before the first is sent: their client shall not be what is slow.
const MESSAGES: i64 = 32;

/// A metric of each receiver core.
fn per_core(forebay: &Process, name: &str) -> Vec<f64> {
    let prefix = format!("forebay_receiver_core_{name}{{");
    let page = forebay.metrics();
    let lines = page.lines().filter(|line| line.starts_with(&prefix));
    lines
        .map(|line| line.rsplit(' ').next().and_then(|n| n.parse().ok()).expect("a number"))
        .collect()
}

fn sum(forebay: &Process, name: &str) -> f64 {
    per_core(forebay, name).iter().sum()
}

/// Two receiver cores, answers that wait for delivery, and nothing behind that could be slower.
fn two_cores(engine: &str) -> Process {
    let engine = format!("{TWO_CORES}, acks: {{default: delivered}}{engine}");
    let rest = format!("exporters: {{nop: }}\nengine: {{{engine}}}\n");
    Process::start(&config("[nop]", &rest))
}

/// Waits, or says what it waited for.
fn until(forebay: &Process, what: &str, mut is_it: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_it() {
        assert!(Instant::now() < deadline, "{what}: {}", forebay.metrics());
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn connections_that_come_together_end_up_evenly_on_all_cores() {
    let rest = format!("exporters: {{nop: }}\nengine: {{{TWO_CORES}}}\n");
    let forebay = Process::start(&config("[nop]", &rest));
    let address = forebay.http_address();
    let mut open: Vec<TcpStream> = Vec::new();
    // Cores that others keep busy get fewer, and should: on a machine of our own the first round
    // is even.
    let is_even = (1..=8).any(|round| {
        let connect = || TcpStream::connect(address).expect("it listens");
        open.extend(std::iter::repeat_with(connect).take(200));
        let count = 200.0 * f64::from(round);
        until(&forebay, "all connections", || sum(&forebay, "connections") >= count);
        let counts = per_core(&forebay, "connections");
        let given = sum(&forebay, "connections_given");
        println!("round {round}: {counts:?}, {given} given away");
        // The kernel deals by chance: now and then it is even without a move.
        given > 0.0 && (counts[0] - counts[1]).abs() <= 4.0_f64.max(count / 16.0) + 1.0
    });
    assert!(is_even);
    // Each core shows its own count when its time comes.
    until(&forebay, "as many taken as given", || {
        sum(&forebay, "connections_taken") == sum(&forebay, "connections_given")
    });
    assert_eq!(sum(&forebay, "connections_accepted"), open.len() as f64);
    for mut stream in open {
        let request = b"GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n";
        std::io::Write::write_all(&mut stream, request).expect("it reads");
        let mut answer = String::new();
        std::io::Read::read_to_string(&mut stream, &mut answer).expect("it answers");
        assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    }
    until(&forebay, "no connections", || sum(&forebay, "connections") == 0.0);
    forebay.stop();
}

/// What became of a request that was sent whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Ok,
    /// UNAVAILABLE: it may be sent again.
    Refused,
    /// The client knows that the connection did not take it, and may send it on another.
    Unsent,
}

async fn connect(address: SocketAddr) -> SendRequest<Bytes> {
    let stream = tokio::net::TcpStream::connect(address).await.expect("it listens");
    stream.set_nodelay(true).expect("an option can be set");
    let mut builder = h2::client::Builder::new();
    let (send, connection) =
        builder.initial_connection_window_size(4 << 20).handshake(stream).await.expect("HTTP/2");
    tokio::spawn(async move {
        // Its end is told to whoever waits for an answer.
        let _ = connection.await;
    });
    send
}

/// One call; a request that was sent and is not answered is a panic.
async fn call(send: &SendRequest<Bytes>, encoding: &str, message: Bytes) -> Fate {
    let uri = format!("http://test{}", method_of(Signal::Traces));
    let request = http::Request::post(uri)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-encoding", encoding);
    let Ok(mut send) = send.clone().ready().await else {
        return Fate::Unsent;
    };
    let Ok((response, mut body)) = send.send_request(request.body(()).expect("a request"), false)
    else {
        return Fate::Unsent;
    };
    body.send_data(message, true).expect("the stream is open");
    let response = tokio::time::timeout(PATIENCE, response).await.expect("an answer in time");
    let (head, mut rest) = match response {
        Ok(response) => response.into_parts(),
        // Its stream is above the last GOAWAY's: it was not taken, and may be sent again.
        Err(error) if error.is_go_away() && error.is_remote() => return Fate::Unsent,
        Err(error) => panic!("what was sent is answered: {error}"),
    };
    while let Some(data) = rest.data().await {
        let data = data.expect("what was sent is answered whole");
        rest.flow_control().release_capacity(data.len()).expect("it was taken");
    }
    let trailers = rest.trailers().await.expect("what was sent is answered to the end");
    let trailers = trailers.unwrap_or(head.headers);
    match trailers.get("grpc-status").map(|status| status.as_bytes()) {
        Some(b"0") => Fate::Ok,
        Some(b"14") => Fate::Refused,
        other => panic!("{other:?}"),
    }
}

/// The spans of one of many requests, framed and compressed.
fn message(nth: i64) -> Bytes {
    let spans = Bytes::from(items::proto(Signal::Traces, nth * SPANS, SPANS));
    frame(1, &Compressor::new().compress(Encoding::Gzip, None, &[spans]).expect("compressed"))
}

/// Calls on [`STREAMS`] streams of one connection until `is_over`, then one after another to the
/// end. Returns how many were OK and how many were refused.
async fn drive(address: SocketAddr, is_over: Rc<Cell<bool>>) -> (i64, i64) {
    let send = Rc::new(connect(address).await);
    let messages: Rc<[Bytes]> = (0..MESSAGES).map(message).collect();
    let (next, fates) = (Rc::new(Cell::new(0_usize)), Rc::new(RefCell::new(Vec::new())));
    let stream = |_| {
        let (send, next, messages) = (send.clone(), next.clone(), messages.clone());
        let (is_over, fates) = (is_over.clone(), fates.clone());
        async move {
            while !is_over.get() {
                let nth = next.replace(next.get() + 1);
                let message = messages[nth % messages.len()].clone();
                let fate = call(&send, "gzip", message).await;
                fates.borrow_mut().push(fate);
                if fate != Fate::Ok {
                    break;
                }
            }
        }
    };
    let streams: Vec<_> = (0..STREAMS).map(|n| tokio::task::spawn_local(stream(n))).collect();
    for stream in streams {
        stream.await.expect("a stream ends");
    }
    let count = |fate| fates.borrow().iter().filter(|f| **f == fate).count() as i64;
    (count(Fate::Ok), count(Fate::Refused))
}

/// Runs `drive` until `watch`, which looks at the process now and then, says that it is over.
fn drive_until(forebay: &Process, watch: impl Fn(&Process) -> bool) -> (i64, i64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let address = forebay.grpc.expect("a gRPC listener");
    let is_over = Rc::new(Cell::new(false));
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let driving = tokio::task::spawn_local(drive(address, is_over.clone()));
        let deadline = Instant::now() + PATIENCE;
        while !watch(forebay) {
            assert!(Instant::now() < deadline, "{}", forebay.metrics());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        is_over.set(true);
        driving.await.expect("all streams end")
    })
}

#[test]
fn one_busy_connection_is_decoded_by_all_cores_and_each_request_is_answered() {
    let forebay = two_cores("");
    let (ok, refused) = drive_until(&forebay, |forebay| sum(forebay, "requests_taken") >= 100.0);
    assert_eq!(refused, 0);
    until(&forebay, "the counts of the last turn", || {
        sum(&forebay, "requests_given")
            == sum(&forebay, "requests_taken") + sum(&forebay, "requests_returned")
    });
    let connections = sum(&forebay, "connections_accepted");
    assert_eq!(connections, 1.0, "it was one connection");
    until(&forebay, "memory given back", || sum(&forebay, "memory_taken_bytes") == 0.0);
    let ledger = forebay.stop().ledger;
    assert_eq!(ledger["delivered_items"], ok * SPANS);
}

#[test]
fn sigterm_amid_shared_work_answers_every_request_and_delivers_what_it_acknowledged() {
    for round in 0..3 {
        let forebay = two_cores(", drain_timeout: 20s");
        let (ok, refused) = drive_until(&forebay, |forebay| {
            let is_time = sum(forebay, "requests_taken") >= 20.0;
            if is_time {
                forebay.signal(Kill::TERM);
            }
            is_time
        });
        let end = forebay.wait();
        assert_eq!(end.ledger["delivered_items"], ok * SPANS, "round {round}, {refused} refused");
        assert!(end.took < Duration::from_secs(15), "round {round}: {:?}", end.took);
    }
}

/// A short age for every connection; nothing behind.
fn short_lived(keepalive: &str, engine: &str) -> Process {
    let rest = format!("exporters: {{nop: }}\nengine: {{{TWO_CORES}{engine}}}\n");
    let text = config("[nop]", &rest);
    let grpc = "grpc: {endpoint: 127.0.0.1:0";
    assert!(text.contains(grpc));
    let parameters = format!("{grpc}, keepalive: {{server_parameters: {{{keepalive}}}}}");
    Process::start(&text.replace(grpc, &parameters))
}

#[test]
fn an_old_grpc_connection_leaves_without_losing_a_request() {
    let forebay = short_lived("max_connection_age: 200ms", "");
    let address = forebay.grpc.expect("a gRPC listener");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let local = tokio::task::LocalSet::new();
    let (mut ok, mut connections) = (0, 0);
    local.block_on(&runtime.expect("a runtime"), async {
        while connections < 6 {
            let send = Rc::new(connect(address).await);
            connections += 1;
            let stream = |_| {
                let send = send.clone();
                async move {
                    let body = frame(0, &items::proto(Signal::Traces, 0, 10));
                    let mut ok = 0;
                    loop {
                        match call(&send, "identity", body.clone()).await {
                            Fate::Ok => ok += 1,
                            Fate::Refused => panic!("an old connection still takes requests"),
                            Fate::Unsent => return ok,
                        }
                    }
                }
            };
            let streams: Vec<_> = (0..8).map(|n| tokio::task::spawn_local(stream(n))).collect();
            for stream in streams {
                ok += stream.await.expect("every request that was sent is answered");
            }
        }
    });
    assert!(ok > 100, "{ok} requests in {connections} lives");
    until(&forebay, "ages", || sum(&forebay, "connections_aged") >= f64::from(connections));
    assert_eq!(forebay.stop().ledger["accepted_items"], ok * 10);
}

#[test]
fn an_old_http_1_connection_is_told_with_its_answer_and_one_without_requests_is_closed() {
    let forebay = short_lived("", ", limits: {connection_age_max: 300ms, header_timeout: 4s}");
    let (mut posted, mut told) = (0, 0);
    let mut silent = Http1::connect(forebay.http_address());
    assert_eq!(silent.post("/v1/logs", &PROTO, &items::proto(Signal::Logs, 0, 1)).status, 200);
    let mut connection = Http1::connect(forebay.http_address());
    while told < 3 {
        let answer = connection.post("/v1/logs", &PROTO, &items::proto(Signal::Logs, 0, 1));
        assert_eq!(answer.status, 200);
        posted += 1;
        if answer.header("connection") == Some("close") {
            assert!(connection.is_closed());
            connection = Http1::connect(forebay.http_address());
            told += 1;
        }
    }
    assert!(posted > 10, "{posted} requests in {told} lives");
    assert!(silent.is_closed());
    assert_eq!(forebay.stop().ledger["accepted_items"], posted + 1);
}

const PROTO: [(&str, &str); 1] = [("content-type", "application/x-protobuf")];

#[test]
fn a_client_that_stays_although_it_was_told_to_leave_is_cut_after_the_grace() {
    let keepalive = "max_connection_age: 200ms, max_connection_age_grace: 300ms";
    let forebay = short_lived(keepalive, "");
    let mut silent = forebay_tests::frames::Frames::connect(forebay.grpc.expect("a port"));
    // A body that never ends: it keeps its stream.
    let headers = forebay_tests::frames::block(&[
        (":method", "POST"),
        (":scheme", "http"),
        (":path", method_of(Signal::Traces)),
        (":authority", "test"),
        ("content-type", "application/grpc"),
    ]);
    let begun = Instant::now();
    assert!(silent.send(
        forebay_tests::frames::HEADERS,
        forebay_tests::frames::END_HEADERS,
        1,
        &headers
    ));
    until(&forebay, "the cut", || {
        sum(&forebay, "connections_aged") == 1.0 && sum(&forebay, "connections") == 0.0
    });
    assert!(begun.elapsed() < Duration::from_secs(20), "that was its body's timeout");
    forebay.stop();
}
