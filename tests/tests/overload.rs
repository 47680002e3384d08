//! Too much: clients are told to come back and when, and nothing is dropped for want of room.
//!
//! In all of these what was acknowledged arrives exactly once, and what was refused does not
//! arrive at all: the client still has it.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use forebay_codec::signal::Signal;
use forebay_codec::status::Status;
use forebay_tests::dice::Dice;
use forebay_tests::forebay::{PATIENCE, Process, config};
use forebay_tests::items;
use forebay_tests::sink::{Gate, Reply, Sink};
use forebay_tests::wire::{Answer, Http1, Http2, Http2Answer, path_of};
use rustix::process;
use tonic::Code;

const PROTO: [(&str, &str); 1] = [("content-type", "application/x-protobuf")];

/// The first `count` cores that this process may use, each for receiving and sending: on one, a
/// queue is one queue, however many cores there are.
fn cores(count: usize) -> String {
    let allowed = rustix::thread::sched_getaffinity(None).expect("the kernel says");
    let all = (0..rustix::thread::CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
    let list: Vec<String> = all.take(count).map(|core| core.to_string()).collect();
    format!("{{receivers: \"{0}\", exporters: \"{0}\"}}", list.join(","))
}

/// A queue of one batch and one sender before `sink`, on each of so many cores.
fn narrow(sink: &Sink, count: usize, engine: &str) -> Process {
    let queue = "{sending_queue: {queue_size: 1, num_consumers: 1}, ";
    let exporter = sink.grpc_exporter().replacen('{', queue, 1);
    let cores = cores(count);
    Process::start(&config(
        "[otlp_grpc]",
        &format!("exporters:\n  otlp_grpc: {exporter}\nengine: {{cores: {cores}{engine}}}\n"),
    ))
}

fn assert_come_back(answer: &Answer) {
    assert_eq!(answer.status, 503, "{}", answer.text());
    let after = answer.header("retry-after").expect("a delay");
    assert!(after.parse::<u64>().is_ok_and(|seconds| seconds >= 1), "{after}");
    let status = Status::from_proto(&answer.body).expect("a Status");
    assert_eq!(status.code, Code::Unavailable as u32);
    assert!(status.retry_delay.is_some(), "{status:?}");
}

fn assert_grpc_come_back(answer: &Http2Answer) {
    assert_eq!(answer.grpc_status(), Some(Code::Unavailable as u32), "{answer:?}");
    let read = tonic::Status::from_header_map;
    let status = read(&answer.trailers).or_else(|| read(&answer.headers)).expect("a status");
    let details = Status::from_proto(status.details()).expect("details");
    assert!(details.retry_delay.is_some_and(|delay| delay >= Duration::from_millis(500)));
    let pushback = answer.grpc_header("grpc-retry-pushback-ms").expect("a delay");
    assert!(pushback.parse::<u64>().is_ok_and(|millis| millis >= 500), "{pushback}");
}

/// Posts requests of ten items until one is refused; the number of items that were taken.
fn fill(connection: &mut Http1, refused: impl Fn(&Answer)) -> i64 {
    for request in 0..1000 {
        let body = items::proto(Signal::Traces, request * 10, 10);
        let answer = connection.post("/v1/traces", &PROTO, &body);
        if answer.status != 200 {
            refused(&answer);
            return request * 10;
        }
    }
    panic!("a narrow queue takes a thousand requests");
}

#[tokio::test]
async fn g5_h7_a_full_queue_refuses_with_a_delay_and_takes_again_when_there_is_room() {
    let gate = Gate::default();
    let sink = Sink::scripted(gate.script());
    let forebay = narrow(&sink, 1, "");
    let mut connection = Http1::connect(forebay.http_address());
    let taken = fill(&mut connection, |answer| {
        assert_come_back(answer);
        let status = Status::from_proto(&answer.body).expect("a Status");
        assert!(status.message.contains("queue is full"), "{status:?}");
    });
    // The queue, the sender's one, and the one whose offer found both taken.
    assert!((20..=40).contains(&taken), "{taken} items");
    let calls = Http2::connect(forebay.grpc.expect("a port")).await;
    let body = items::proto(Signal::Traces, taken, 10);
    let answer = calls.export(Signal::Traces, &body).await.expect("an answer");
    assert_grpc_come_back(&answer);
    let (status, body) = wait_for_health(&forebay, 503);
    assert!(status == 503 && body.contains("queue is full"), "{body}");
    assert_eq!(forebay.metric("forebay_healthy", &[]), 0.0);
    assert_eq!(forebay.ledger()["dropped_items"], 0);

    gate.open();
    sink.wait_for(Signal::Traces, taken);
    wait_for_health(&forebay, 200);
    let body = items::proto(Signal::Traces, taken, 10);
    assert_eq!(connection.post("/v1/traces", &PROTO, &body).status, 200);
    let body = items::proto(Signal::Traces, taken + 10, 10);
    let answer = calls.export(Signal::Traces, &body).await.expect("an answer");
    assert_eq!(answer.grpc_status(), Some(0), "{answer:?}");
    let end = forebay.stop();
    assert_eq!(end.ledger["delivered_items"], taken + 20);
    assert_eq!(sink.counts(Signal::Traces), (taken as usize + 20, 1, 1));
    let doors = end.ledger["receivers"].as_array().expect("receivers");
    let overloaded = doors.iter().filter_map(|door| door["requests"]["overloaded"].as_u64());
    assert_eq!(overloaded.sum::<u64>(), 2);
}

fn wait_for_health(forebay: &Process, status: u16) -> (u16, String) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let health = forebay.health();
        if health.0 == status {
            return health;
        }
        assert!(Instant::now() < deadline, "{health:?} instead of {status}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_full_queue_of_one_signal_leaves_the_others_open() {
    let stuck = Sink::scripted(|_| Reply::Never);
    let free = Sink::start();
    let queue = "{sending_queue: {queue_size: 1, num_consumers: 1}, ";
    let (narrow, wide) = (stuck.grpc_exporter().replacen('{', queue, 1), free.grpc_exporter());
    let text = config("[otlp_grpc/wide]", "").replace(
        "traces: {receivers: [otlp], exporters: [otlp_grpc/wide]}",
        "traces: {receivers: [otlp], exporters: [otlp_grpc/narrow]}",
    );
    let cores = cores(1);
    let forebay = Process::start(&format!(
        "{text}exporters:\n  otlp_grpc/narrow: {narrow}\n  otlp_grpc/wide: {wide}\n\
         engine: {{cores: {cores}, drain_timeout: 300ms}}\n"
    ));
    let mut connection = Http1::connect(forebay.http_address());
    let taken = fill(&mut connection, assert_come_back);
    for request in 0..20 {
        let body = items::proto(Signal::Logs, request * 10, 10);
        assert_eq!(connection.post("/v1/logs", &PROTO, &body).status, 200);
    }
    free.wait_for(Signal::Logs, 200);
    forebay.wait_for_ledger("the free one's", |ledger| ledger["delivered_items"] == 200);
    assert_eq!(forebay.health().0, 200, "a route is open");
    let end = forebay.stop();
    assert_eq!(
        (&end.ledger["delivered_items"], &end.ledger["dropped_items"]),
        (&200.into(), &taken.into())
    );
}

#[test]
fn g5_h7_a_used_up_memory_budget_refuses_with_a_delay_and_takes_again_when_there_is_room() {
    let gate = Gate::default();
    let sink = Sink::scripted(gate.script());
    let cores = cores(1);
    let exporter = sink.http_exporter();
    let text = config("[otlp_http]", "")
        .replace("grpc: {endpoint: 127.0.0.1:0}", "")
        .replace("http: {endpoint: ", "http: {max_request_body_size: 1MiB, endpoint: ");
    let forebay = Process::start(&format!(
        "{text}exporters: {{otlp_http: {exporter}}}\n\
         engine: {{cores: {cores}, memory: {{budget_bytes: 1MiB}}}}\n"
    ));
    let each = 2000;
    let mut connection = Http1::connect(forebay.http_address());
    let mut taken = 0;
    loop {
        let body = items::proto(Signal::Logs, taken, each);
        let answer = connection.post("/v1/logs", &PROTO, &body);
        if answer.status != 200 {
            assert_come_back(&answer);
            let status = Status::from_proto(&answer.body).expect("a Status");
            assert!(status.message.contains("memory budget"), "{status:?}");
            break;
        }
        taken += each;
        assert!(taken * 60 < 2 << 20, "{taken} items in a budget of 1 MiB");
    }
    assert!(taken >= 2 * each, "the budget is used before anything is refused: {taken}");
    let held = forebay.metric("forebay_receiver_core_memory_taken_bytes", &[]);
    assert!(held <= (1 << 20) as f64, "{held}");
    gate.open();
    sink.wait_for(Signal::Logs, taken);
    forebay.wait_for_ledger("nothing in flight", |ledger| ledger["in_flight_items"] == 0);
    let body = items::proto(Signal::Logs, taken, each);
    let answer = wire_post(&forebay, Signal::Logs, &body);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let end = forebay.stop();
    assert_eq!(end.ledger["delivered_items"], taken + each);
    assert_eq!(sink.counts(Signal::Logs), ((taken + each) as usize, 1, 1));
}

fn wire_post(forebay: &Process, signal: Signal, body: &[u8]) -> Answer {
    Http1::connect(forebay.http_address()).post(path_of(signal), &PROTO, body)
}

/// How the requests of one client ended.
#[derive(Default)]
struct Sent {
    acked: BTreeSet<i64>,
    /// The connection was gone before the answer: they may have arrived.
    unknown: BTreeSet<i64>,
    refused: u64,
}

/// One client: sends `requests` requests of its own numbers, each until it is taken, or until it
/// hangs up on one.
fn persist(grpc: SocketAddr, http: SocketAddr, client: i64, requests: u64, seed: u64) -> Sent {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let mut dice = Dice::new(seed ^ (client as u64 + 1));
    let mut posts = Http1::connect(http);
    let calls = runtime.block_on(Http2::connect(grpc));
    let mut sent = Sent::default();
    let mut next = client * 1_000_000;
    for _ in 0..requests {
        let items = 1 + dice.below(80) as i64;
        let body = items::proto(Signal::Traces, next, items);
        let numbers = next..next + items;
        next += items;
        let deadline = Instant::now() + PATIENCE;
        loop {
            if dice.one_in(15) {
                let mut hanging_up = Http1::connect(http);
                let length = body.len();
                let head = "POST /v1/traces HTTP/1.1\r\nhost: test\r\ncontent-type: ";
                let head =
                    format!("{head}application/x-protobuf\r\ncontent-length: {length}\r\n\r\n");
                hanging_up.send(&[head.as_bytes(), &body].concat());
                sent.unknown.extend(numbers);
                break;
            }
            let is_taken = if dice.one_in(2) {
                let answer = posts.post("/v1/traces", &PROTO, &body);
                (answer.status == 200) || {
                    assert_come_back(&answer);
                    false
                }
            } else {
                let answer = runtime.block_on(calls.export(Signal::Traces, &body));
                let answer = answer.expect("an answer");
                (answer.grpc_status() == Some(0)) || {
                    assert_grpc_come_back(&answer);
                    false
                }
            };
            if is_taken {
                sent.acked.extend(numbers);
                break;
            }
            sent.refused += 1;
            assert!(Instant::now() < deadline, "seed {seed:#x}: refused for ever");
            // Sooner than it was asked to, which is what makes it a test.
            std::thread::sleep(Duration::from_millis(dice.below(20)));
        }
    }
    sent
}

#[test]
fn all_that_was_acknowledged_arrives_once_whatever_is_refused_or_broken_off_on_the_way() {
    for (seed, count) in [(0x5eed_0001, 1), (0x5eed_0002, 1), (0x5eed_0003, 2)] {
        println!("seed {seed:#x}");
        let mut dice = Dice::new(seed);
        let sink = Sink::scripted(move |request| match request < 30 || dice.one_in(3) {
            true => Reply::Fail(Code::Unavailable, None),
            false => Reply::Ok,
        });
        let forebay = narrow(&sink, count, ", drain_timeout: 30s");
        let (grpc, http) = (forebay.grpc.expect("a port"), forebay.http_address());
        let clients: Vec<_> = (0..4)
            .map(|client| std::thread::spawn(move || persist(grpc, http, client, 25, seed)))
            .collect();
        let sent: Vec<_> = clients.into_iter().map(|client| client.join()).collect();
        // First this: if the process has died, its last words say more than its clients'.
        let end = forebay.stop();
        let sent: Vec<Sent> =
            sent.into_iter().map(|sent| sent.expect("a content client")).collect();
        let refused: u64 = sent.iter().map(|sent| sent.refused).sum();
        assert!(refused > 0, "seed {seed:#x}: the queue was never full");
        let arrived = sink.numbers(Signal::Traces);
        assert!(arrived.values().all(|count| *count == 1), "seed {seed:#x}: something came twice");
        let acked: BTreeSet<i64> = sent.iter().flat_map(|sent| &sent.acked).copied().collect();
        let unknown: BTreeSet<i64> = sent.iter().flat_map(|sent| &sent.unknown).copied().collect();
        let lost: Vec<_> = acked.iter().filter(|number| !arrived.contains_key(number)).collect();
        assert!(lost.is_empty(), "seed {seed:#x}: acknowledged and lost: {lost:?}");
        let strange = |number: &&i64| !acked.contains(number) && !unknown.contains(number);
        let strangers: Vec<_> = arrived.keys().filter(strange).collect();
        assert!(strangers.is_empty(), "seed {seed:#x}: refused and sent on: {strangers:?}");
        let count = |name: &str| end.ledger[name].as_u64().expect("a number");
        assert_eq!(count("delivered_items"), arrived.len() as u64, "seed {seed:#x}");
        assert_eq!(count("received_items"), count("refused_items") + count("accepted_items"));
        assert_eq!(count("dropped_items"), 0);
    }
}

#[tokio::test]
async fn draining_answers_what_is_in_flight_and_sends_everything_else_away() {
    let gate = Gate::default();
    let sink = Sink::scripted(gate.script());
    let exporter = sink.grpc_exporter();
    let mut forebay = Process::start(&config(
        "[otlp_grpc]",
        &format!(
            "exporters: {{otlp_grpc: {exporter}}}\nengine: {{acks: {{default: delivered}}, drain_timeout: 30s}}\n"
        ),
    ));
    let mut idle = Http1::connect(forebay.http_address());
    assert_eq!(idle.post("/v1/traces", &PROTO, &[]).status, 200);
    let mut waiting = Http1::connect(forebay.http_address());
    let body = items::proto(Signal::Traces, 0, 10);
    let head = "POST /v1/traces HTTP/1.1\r\nhost: test\r\ncontent-type: application/x-protobuf";
    let head = format!("{head}\r\ncontent-length: {}\r\n\r\n", body.len());
    waiting.send(&[head.as_bytes(), &body].concat());
    let connection = Arc::new(Http2::connect(forebay.grpc.expect("a port")).await);
    let calling = {
        let connection = connection.clone();
        let body = items::proto(Signal::Traces, 10, 10);
        tokio::spawn(async move { connection.export(Signal::Traces, &body).await })
    };
    let deadline = Instant::now() + PATIENCE;
    while forebay.ledger()["accepted_items"] != 20 {
        assert!(Instant::now() < deadline, "{}", forebay.ledger());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    forebay.signal(process::Signal::TERM);
    forebay.wait_for_log("Starting shutdown...");
    let (_, body) = wait_for_health(&forebay, 503);
    assert!(body.contains("draining"), "{body}");
    assert!(idle.is_closed(), "an idle connection ends");
    while std::net::TcpStream::connect(forebay.http_address()).is_ok() {
        assert!(Instant::now() < deadline, "new connections are still accepted");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // After a GOAWAY a client opens no stream; one that was faster is told to come back.
    let body = items::proto(Signal::Traces, 20, 10);
    match connection.export(Signal::Traces, &body).await {
        Ok(answer) => assert_grpc_come_back(&answer),
        Err(error) => assert!(error.is_go_away(), "{error:?}"),
    }
    gate.open();
    let answer = waiting.read_answer().expect("an answer");
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    assert!(waiting.is_closed());
    let answer = calling.await.expect("no panic").expect("an answer");
    assert_eq!(answer.grpc_status(), Some(0), "{answer:?}");
    let end = forebay.wait();
    assert_eq!(end.ledger["delivered_items"], 20);
    assert_eq!(sink.counts(Signal::Traces), (20, 1, 1));
}
