//! What an OK means: with `accepted`, that the items are in forebay's hands; with `delivered`,
//! that each destination has them.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use forebay_codec::signal::Signal;
use forebay_codec::status::{PartialSuccess, Status};
use forebay_tests::dice::Dice;
use forebay_tests::forebay::{PATIENCE, Process, RECEIVERS, SERVICE, config};
use forebay_tests::items;
use forebay_tests::sink::{Gate, Reply, Sink};
use forebay_tests::wire::{Answer, Http1, Http2, Http2Answer, path_of};
use serde_json::Value;
use tonic::Code;

const PROTO: [(&str, &str); 1] = [("content-type", "application/x-protobuf")];
const DELIVERED: &str = "engine: {acks: {default: delivered}, drain_timeout: 20s}\n";

/// Forwards over gRPC to `sink`, with `engine` added to the configuration.
fn forward(sink: &Sink, engine: &str) -> Process {
    let exporters = format!("exporters:\n  otlp_grpc: {}\n", sink.grpc_exporter());
    Process::start(&config("[otlp_grpc]", &format!("{exporters}{engine}")))
}

fn post(forebay: &Process, signal: Signal, first: i64, n: i64) -> Answer {
    let mut connection = Http1::connect(forebay.http_address());
    connection.post(path_of(signal), &PROTO, &items::proto(signal, first, n))
}

async fn call(forebay: &Process, signal: Signal, first: i64, n: i64) -> Http2Answer {
    let connection = Http2::connect(forebay.grpc.expect("a port")).await;
    connection.export(signal, &items::proto(signal, first, n)).await.expect("an answer")
}

/// The `Status` of a gRPC answer's details, as tonic's clients read it.
fn details(answer: &Http2Answer) -> Option<Status> {
    let read = tonic::Status::from_header_map;
    let status = read(&answer.trailers).or_else(|| read(&answer.headers))?;
    (!status.details().is_empty()).then(|| Status::from_proto(status.details()).expect("a Status"))
}

/// A request that has been sent and not been answered: its socket has no bytes to read.
fn unanswered(connection: &Http1) -> bool {
    connection.stream.set_nonblocking(true).expect("an option can be set");
    let peeked = connection.stream.peek(&mut [0]);
    connection.stream.set_nonblocking(false).expect("an option can be set");
    peeked.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
}

/// Sends without waiting for the answer.
fn begin(forebay: &Process, signal: Signal, first: i64, n: i64) -> Http1 {
    let mut connection = Http1::connect(forebay.http_address());
    let body = items::proto(signal, first, n);
    let head = format!(
        "POST {} HTTP/1.1\r\nhost: test\r\ncontent-type: application/x-protobuf\r\n\
         content-length: {}\r\n\r\n",
        path_of(signal),
        body.len()
    );
    connection.send(&[head.as_bytes(), &body].concat());
    connection
}

fn dropped(ledger: &Value, reason: &str) -> u64 {
    let routes = ledger["routes"].as_array().expect("routes");
    routes.iter().filter_map(|route| route["dropped_items"][reason].as_u64()).sum()
}

/// How many requests of all doors ended so.
fn ended(ledger: &Value, outcome: &str) -> u64 {
    let doors = ledger["receivers"].as_array().expect("receivers");
    doors.iter().filter_map(|door| door["requests"][outcome].as_u64()).sum()
}

#[test]
fn accepted_answers_before_anything_is_delivered() {
    let sink = Sink::scripted(|_| Reply::Never);
    let forebay = forward(&sink, "engine: {drain_timeout: 300ms}\n");
    assert_eq!(post(&forebay, Signal::Traces, 0, 10).status, 200);
    sink.wait_until("the request", |sink| sink.requests() > 0);
    let end = forebay.stop();
    assert_eq!(end.ledger["delivered_items"], 0);
    assert_eq!(dropped(&end.ledger, "shutdown"), 10);
}

#[test]
fn delivered_answers_when_the_destination_has_said_ok_and_not_before() {
    let (gate, signal) = (Gate::default(), Signal::Logs);
    let sink = Sink::scripted(gate.script());
    let forebay = forward(&sink, DELIVERED);
    let mut waiting = begin(&forebay, signal, 0, 10);
    sink.wait_until("five attempts", |sink| sink.requests() >= 5);
    assert!(unanswered(&waiting));
    assert_eq!(forebay.ledger()["in_flight_items"], 10);
    gate.open();
    let answer = waiting.read_answer().expect("an answer");
    assert_eq!((answer.status, answer.body.len()), (200, 0), "{}", answer.text());
    assert_eq!(sink.counts(signal), (10, 1, 1), "the items were there before the answer");
    let end = forebay.stop();
    assert_eq!((&end.ledger["delivered_items"], ended(&end.ledger, "ok")), (&10.into(), 1));
}

#[tokio::test]
async fn delivered_over_grpc_answers_ok_with_an_empty_message() {
    let sink = Sink::start();
    let forebay = forward(&sink, DELIVERED);
    let answer = call(&forebay, Signal::Metrics, 0, 10).await;
    assert_eq!(answer.grpc_status(), Some(0), "{answer:?}");
    assert_eq!(answer.body, [0; 5]);
    assert_eq!(sink.counts(Signal::Metrics), (10, 1, 1));
    forebay.stop();
}

#[test]
fn s2_a_request_without_items_waits_for_nobody() {
    let sink = Sink::scripted(|_| Reply::Never);
    let forebay = forward(&sink, DELIVERED);
    let mut connection = Http1::connect(forebay.http_address());
    let answer = connection.post("/v1/traces", &PROTO, &[]);
    assert_eq!((answer.status, answer.body.len()), (200, 0));
    let end = forebay.stop();
    assert_eq!((end.ledger["received_items"].clone(), sink.requests()), (0.into(), 0));
}

#[tokio::test]
async fn delivered_passes_on_the_code_with_which_a_destination_refuses_for_good() {
    // The HTTP status is the Collector's for each code; the body says the code itself.
    for (code, status) in [
        (Code::InvalidArgument, 400),
        (Code::Unauthenticated, 401),
        (Code::PermissionDenied, 403),
        (Code::Unimplemented, 404),
        (Code::Internal, 500),
        (Code::NotFound, 500),
    ] {
        let sink = Sink::scripted(move |_| Reply::Fail(code, None));
        let forebay = forward(&sink, DELIVERED);
        let answer = call(&forebay, Signal::Traces, 0, 10).await;
        assert_eq!(answer.grpc_status(), Some(code as u32), "{answer:?}");
        let message = answer.grpc_header("grpc-message").expect("a message");
        assert!(message.contains("otlp_grpc") && message.contains("told"), "{message}");
        assert_eq!(details(&answer).and_then(|status| status.retry_delay), None);
        assert_eq!(answer.grpc_header("grpc-retry-pushback-ms"), None);

        let answer = post(&forebay, Signal::Traces, 10, 10);
        assert_eq!((answer.status, answer.header("retry-after")), (status, None), "{code:?}");
        let body = Status::from_proto(&answer.body).expect("a Status");
        assert_eq!(body.code, code as u32, "{body:?}");
        assert!(body.message.contains("told to"), "{body:?}");

        let end = forebay.stop();
        assert_eq!(dropped(&end.ledger, "refused_by_destination"), 20);
        assert_eq!((ended(&end.ledger, "failed"), sink.requests()), (2, 2), "{code:?}");
    }
}

#[tokio::test]
async fn delivered_translates_the_status_with_which_an_http_destination_refuses_for_good() {
    let sink = Sink::scripted(|_| Reply::Fail(Code::InvalidArgument, None));
    let exporters = format!("exporters:\n  otlp_http: {}\n{DELIVERED}", sink.http_exporter());
    let forebay = Process::start(&config("[otlp_http]", &exporters));
    let answer = call(&forebay, Signal::Logs, 0, 10).await;
    assert_eq!(answer.grpc_status(), Some(Code::InvalidArgument as u32), "{answer:?}");
    let answer = post(&forebay, Signal::Logs, 10, 10);
    assert_eq!(answer.status, 400);
    assert_eq!(dropped(&forebay.stop().ledger, "refused_by_destination"), 20);
}

#[tokio::test]
async fn g4_g5_h7_after_the_acks_timeout_the_answer_is_retryable_and_the_items_still_arrive_once() {
    let gate = Gate::default();
    let sink = Sink::scripted(gate.script());
    let forebay = forward(&sink, "engine: {acks: {default: delivered, timeout: 300ms}}\n");
    let answer = call(&forebay, Signal::Traces, 0, 10).await;
    assert_eq!(answer.grpc_status(), Some(Code::Unavailable as u32), "{answer:?}");
    let status = details(&answer).expect("details");
    assert!(status.retry_delay.is_some_and(|delay| delay > Duration::ZERO), "{status:?}");
    let pushback = answer.grpc_header("grpc-retry-pushback-ms").expect("a delay");
    assert!(pushback.parse::<u64>().is_ok_and(|millis| millis > 0), "{pushback}");

    let answer = post(&forebay, Signal::Traces, 10, 10);
    assert_eq!(answer.status, 503);
    let after = answer.header("retry-after").expect("a delay");
    assert!(after.parse::<u64>().is_ok_and(|seconds| seconds >= 1), "{after}");
    let status = Status::from_proto(&answer.body).expect("a Status");
    assert!(status.message.contains("engine.acks.timeout"), "{status:?}");

    assert_eq!(forebay.ledger()["in_flight_items"], 20, "nothing was given up");
    gate.open();
    sink.wait_for(Signal::Traces, 20);
    let end = forebay.stop();
    assert_eq!(end.ledger["delivered_items"], 20);
    assert_eq!((sink.counts(Signal::Traces), ended(&end.ledger, "overloaded")), ((20, 1, 1), 2));
}

#[tokio::test]
async fn s4_a_partial_success_is_passed_on_when_the_batch_is_one_request() {
    let sink = Sink::scripted(|_| Reply::Partial(3));
    let forebay = forward(&sink, DELIVERED);
    let expected = |partial: Option<PartialSuccess>| {
        let partial = partial.expect("an export response");
        assert_eq!(partial.rejected, 3);
        assert!(partial.message.contains("otlp_grpc rejected 3"), "{partial:?}");
    };
    let answer = post(&forebay, Signal::Logs, 0, 10);
    assert_eq!(answer.status, 200);
    expected(PartialSuccess::response_from_proto(&answer.body));
    let answer = call(&forebay, Signal::Logs, 10, 10).await;
    assert_eq!(answer.grpc_status(), Some(0));
    expected(PartialSuccess::response_from_proto(&answer.body[5..]));
    let end = forebay.stop();
    assert_eq!((&end.ledger["delivered_items"], sink.requests()), (&14.into(), 2));
    assert_eq!(dropped(&end.ledger, "partial_success"), 6);
}

#[tokio::test]
async fn s5_a_rejection_that_may_be_anybodys_is_a_remark_to_all_of_the_batch() {
    let sink = Sink::scripted(|_| Reply::Partial(3));
    let batch = "processors:\n  batch: {send_batch_size: 20, timeout: 1h}\n";
    let exporter = sink.grpc_exporter();
    let forebay = Process::start(&format!(
        "{RECEIVERS}{SERVICE}  pipelines:
    logs: {{receivers: [otlp], processors: [batch], exporters: [otlp_grpc]}}
{batch}{DELIVERED}
exporters: {{otlp_grpc: {exporter}}}
"
    ));
    // One connection is on one core, so both requests travel in one batch.
    let connection = Http2::connect(forebay.grpc.expect("a port")).await;
    let (first, second) = (items::proto(Signal::Logs, 0, 10), items::proto(Signal::Logs, 10, 10));
    let (first, second) = tokio::join!(
        connection.export(Signal::Logs, &first),
        connection.export(Signal::Logs, &second)
    );
    for answer in [first, second] {
        let answer = answer.expect("an answer");
        let partial = PartialSuccess::response_from_proto(&answer.body[5..]).expect("a response");
        assert_eq!((answer.grpc_status(), partial.rejected), (Some(0), 0));
        assert!(partial.message.contains("rejected 3 of the 20 items"), "{partial:?}");
    }
    assert_eq!(sink.sizes(), [(Signal::Logs, 20)]);
    assert_eq!(dropped(&forebay.stop().ledger, "partial_success"), 3);
}

#[test]
fn delivered_waits_for_every_destination_of_the_fan_out() {
    let gate = Gate::default();
    let (quick, slow) = (Sink::start(), Sink::scripted(gate.script()));
    let exporters = format!(
        "exporters:\n  otlp_grpc: {}\n  otlp_http: {}\n{DELIVERED}",
        slow.grpc_exporter(),
        quick.http_exporter()
    );
    let forebay = Process::start(&config("[otlp_http, otlp_grpc]", &exporters));
    let mut waiting = begin(&forebay, Signal::Traces, 0, 10);
    quick.wait_for(Signal::Traces, 10);
    forebay.wait_for_ledger("the quick one's", |ledger| ledger["delivered_items"] == 10);
    slow.wait_until("an attempt", |sink| sink.requests() >= 2);
    assert!(unanswered(&waiting));
    gate.open();
    assert_eq!(waiting.read_answer().map(|answer| answer.status), Some(200));
    assert_eq!(slow.counts(Signal::Traces), (10, 1, 1));
    assert_eq!(forebay.stop().ledger["delivered_items"], 20);
}

#[test]
fn one_destination_that_refuses_for_good_makes_the_whole_answer_a_refusal() {
    let (good, bad) =
        (Sink::start(), Sink::scripted(|_| Reply::Fail(Code::PermissionDenied, None)));
    let exporters = format!(
        "exporters:\n  otlp_grpc: {}\n  otlp_http: {}\n{DELIVERED}",
        bad.grpc_exporter(),
        good.http_exporter()
    );
    let forebay = Process::start(&config("[otlp_http, otlp_grpc]", &exporters));
    assert_eq!(post(&forebay, Signal::Traces, 0, 10).status, 403);
    let end = forebay.stop();
    assert_eq!(end.ledger["delivered_items"], 10, "what one took, it has");
    assert_eq!(dropped(&end.ledger, "refused_by_destination"), 10);
}

#[test]
fn delivered_and_accepted_pipelines_of_one_receiver_keep_to_their_own() {
    let (gate, stuck) = (Gate::default(), Sink::scripted(|_| Reply::Never));
    let sink = Sink::scripted(gate.script());
    let (required, loose) = (sink.grpc_exporter(), stuck.http_exporter());
    let forebay = Process::start(&format!(
        "{RECEIVERS}{SERVICE}  pipelines:
    traces/required: {{receivers: [otlp], exporters: [otlp_grpc]}}
    traces/loose: {{receivers: [otlp], exporters: [otlp_http]}}
exporters:
  otlp_grpc: {required}
  otlp_http: {loose}
engine: {{acks: {{pipelines: {{traces/required: delivered}}}}, drain_timeout: 300ms}}
"
    ));
    let mut waiting = begin(&forebay, Signal::Traces, 0, 10);
    sink.wait_until("two attempts", |sink| sink.requests() >= 2);
    assert!(unanswered(&waiting));
    gate.open();
    assert_eq!(waiting.read_answer().map(|answer| answer.status), Some(200));
    let end = forebay.stop();
    assert_eq!(end.ledger["delivered_items"], 10);
    assert_eq!(dropped(&end.ledger, "shutdown"), 10, "of the loose one alone");
}

#[test]
fn a_request_in_several_batches_is_answered_with_the_last_and_worst_of_them() {
    let batch = "processors:\n  batch: {send_batch_size: 10, send_batch_max_size: 10}\n";
    for refused in [None, Some(2)] {
        let sink = Sink::scripted(move |request| match Some(request) == refused {
            true => Reply::Fail(Code::InvalidArgument, None),
            false => Reply::Ok,
        });
        let exporter = sink.grpc_exporter();
        let forebay = Process::start(&format!(
            "{RECEIVERS}{SERVICE}  pipelines:
    logs: {{receivers: [otlp], processors: [batch], exporters: [otlp_grpc]}}
{batch}{DELIVERED}
exporters: {{otlp_grpc: {exporter}}}
"
        ));
        let answer = post(&forebay, Signal::Logs, 0, 95);
        assert_eq!(answer.status, if refused.is_some() { 400 } else { 200 }, "{}", answer.text());
        let end = forebay.stop();
        assert_eq!(sink.requests(), 10);
        assert_eq!(ended(&end.ledger, "ok") + ended(&end.ledger, "failed"), 1);
        assert_eq!(
            end.ledger["delivered_items"].as_u64(),
            Some(95 - dropped(&end.ledger, "refused_by_destination"))
        );
    }
}

#[test]
fn a_request_whose_last_part_waits_in_an_open_batch_waits_with_it() {
    let sink = Sink::start();
    let batch = "{send_batch_size: 10, send_batch_max_size: 10, timeout: 1h}";
    let exporter = sink.grpc_exporter();
    let forebay = Process::start(&format!(
        "{RECEIVERS}{SERVICE}  pipelines:
    logs: {{receivers: [otlp], processors: [batch], exporters: [otlp_grpc]}}
processors: {{batch: {batch}}}
exporters: {{otlp_grpc: {exporter}}}
{DELIVERED}"
    ));
    let mut waiting = begin(&forebay, Signal::Logs, 0, 95);
    forebay.wait_for_ledger("nine batches", |ledger| ledger["delivered_items"] == 90);
    assert_eq!(forebay.ledger()["in_flight_items"], 5);
    assert!(unanswered(&waiting));
    forebay.signal(rustix::process::Signal::TERM);
    assert_eq!(waiting.read_answer().map(|answer| answer.status), Some(200));
    assert_eq!(sink.counts(Signal::Logs), (95, 1, 1));
    forebay.wait();
}

#[tokio::test]
async fn a_client_that_leaves_while_it_waits_harms_nothing() {
    let gate = Gate::default();
    let sink = Sink::scripted(gate.script());
    let forebay = forward(&sink, DELIVERED);
    let mut stays = begin(&forebay, Signal::Traces, 0, 10);
    let leaves = begin(&forebay, Signal::Traces, 10, 10);
    let connection = Http2::connect(forebay.grpc.expect("a port")).await;
    let body = items::proto(Signal::Traces, 20, 10);
    let calling = tokio::spawn(async move { connection.export(Signal::Traces, &body).await });
    let deadline = Instant::now() + PATIENCE;
    while forebay.ledger()["accepted_items"] != 30 {
        assert!(Instant::now() < deadline, "{}", forebay.ledger());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    drop(leaves);
    calling.abort();
    gate.open();
    assert_eq!(stays.read_answer().map(|answer| answer.status), Some(200));
    sink.wait_for(Signal::Traces, 30);
    forebay.wait_for_ledger("everything", |ledger| ledger["delivered_items"] == 30);
    while forebay.metric("forebay_receiver_core_requests_waiting", &[]) != 0.0 {
        assert!(Instant::now() < deadline, "a ticket stayed behind");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let end = forebay.stop();
    assert_eq!(sink.counts(Signal::Traces), (30, 1, 1));
    assert_eq!(end.ledger["delivered_items"], 30);
}

#[test]
fn whenever_delivered_says_ok_the_items_are_at_the_destination_already() {
    for seed in [0xacce_0001, 0xacce_0002] {
        println!("seed {seed:#x}");
        let mut dice = Dice::new(seed);
        let sink = Sink::scripted(move |_| match dice.below(10) {
            0..3 => Reply::Fail(Code::Unavailable, None),
            3 => Reply::KeepAndFail(Code::Unavailable),
            4 => Reply::Fail(Code::InvalidArgument, None),
            _ => Reply::Ok,
        });
        let batch = "{send_batch_size: 60, send_batch_max_size: 80, timeout: 5ms}";
        let exporter = sink.grpc_exporter();
        let forebay = Process::start(&format!(
            "{RECEIVERS}{SERVICE}  pipelines:
    logs: {{receivers: [otlp], processors: [batch], exporters: [otlp_grpc]}}
processors: {{batch: {batch}}}
exporters: {{otlp_grpc: {exporter}}}
{DELIVERED}"
        ));
        let address = forebay.http_address();
        let clients: Vec<_> = std::thread::scope(|scope| {
            let clients: Vec<_> = (0..4)
                .map(|client| {
                    let sink = &sink;
                    scope.spawn(move || ask_for_proof(address, sink, client, seed))
                })
                .collect();
            clients.into_iter().map(|client| client.join()).collect()
        });
        // First this: if the process has died, its last words say more than its clients'.
        let end = forebay.stop();
        let clients = clients.into_iter().map(|client| client.expect("proof"));
        let (ok, failed) = clients.fold((0, 0), |sum, end| (sum.0 + end.0, sum.1 + end.1));
        assert!(ok > 20 && failed > 0, "seed {seed:#x}: {ok} ok, {failed} refused");
        assert_eq!((ended(&end.ledger, "ok"), ended(&end.ledger, "failed")), (ok, failed));
        let dropped = dropped(&end.ledger, "refused_by_destination");
        assert_eq!(end.ledger["dropped_items"], dropped, "seed {seed:#x}: for no other reason");
    }
}

/// Sends 40 requests; after each OK the sink must have all of its items. Returns how many were
/// answered OK and how many were refused.
fn ask_for_proof(address: SocketAddr, sink: &Sink, client: u64, seed: u64) -> (u64, u64) {
    let mut dice = Dice::new(seed ^ (client + 1));
    let mut connection = Http1::connect(address);
    let (mut ok, mut failed) = (0, 0);
    let mut next = client as i64 * 1_000_000;
    for _ in 0..40 {
        let items = 1 + dice.below(200) as i64;
        let body = items::proto(Signal::Logs, next, items);
        let answer = connection.post("/v1/logs", &PROTO, &body);
        match answer.status {
            200 => {
                let there = sink.numbers(Signal::Logs);
                let missing: Vec<i64> =
                    (next..next + items).filter(|number| !there.contains_key(number)).collect();
                assert!(missing.is_empty(), "seed {seed:#x}: answered OK without {missing:?}");
                ok += 1;
            }
            400 => failed += 1,
            status => panic!("seed {seed:#x}: {status} {}", answer.text()),
        }
        next += items;
    }
    (ok, failed)
}
