//! What was acknowledged arrives, whatever the destination does meanwhile; and the log says what
//! happened and what it cost.
//!
//! The destinations here refuse, forget, hang, reset, talk nonsense, go away and come back. Items
//! are numbered, so that each one that is missing or came twice is seen.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use forebay_codec::signal::Signal;
use forebay_tests::forebay::{End, PATIENCE, Process, RECEIVERS, SERVICE, config};
use forebay_tests::items;
use forebay_tests::sink::{
    Reply, Sink, Stranger, any_port, closed_port, grpc_exporter, http_exporter, own_port,
};
use forebay_tests::wire::{Http1, path_of};
use serde_json::Value;
use tonic::Code;

const WILL_RETRY: &str = "Exporting failed. Will retry the request after interval.";
const WORKS_AGAIN: &str = "Exporting works again.";
const DROPPING: &str = "Exporting failed. Dropping data.";

/// Which protocol the destination speaks.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Speech {
    Grpc,
    Http,
}

const BOTH: [Speech; 2] = [Speech::Grpc, Speech::Http];

impl Speech {
    fn exporter(self, sink: &Sink) -> String {
        match self {
            Speech::Grpc => sink.grpc_exporter(),
            Speech::Http => sink.http_exporter(),
        }
    }

    fn id(self) -> &'static str {
        match self {
            Speech::Grpc => "otlp_grpc",
            Speech::Http => "otlp_http",
        }
    }

    fn exporter_at(self, address: std::net::SocketAddr) -> String {
        match self {
            Speech::Grpc => grpc_exporter(address),
            Speech::Http => http_exporter(address),
        }
    }

    /// A sink that speaks this on `address` and answers every request with success.
    fn sink_on(self, address: std::net::SocketAddr) -> Sink {
        match self {
            Speech::Grpc => Sink::on(address, |_| Reply::Ok),
            Speech::Http => Sink::on_both(any_port(), address, |_| Reply::Ok),
        }
    }
}

fn forward(speech: Speech, exporter: &str) -> Process {
    let id = speech.id();
    Process::start(&config(&format!("[{id}]"), &format!("exporters:\n  {id}: {exporter}\n")))
}

/// Requests of `each` items numbered on from `first`, all acknowledged.
fn send(forebay: &Process, signal: Signal, first: i64, requests: i64, each: i64) {
    let mut connection = Http1::connect(forebay.http_address());
    let headers = [("content-type", "application/x-protobuf")];
    for request in 0..requests {
        let body = items::proto(signal, first + request * each, each);
        let answer = connection.post(path_of(signal), &headers, &body);
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

fn failed_attempts(forebay: &Process, kind: &str) -> f64 {
    let kind = format!("kind=\"{kind}\"");
    forebay.metric("forebay_exporter_failed_attempts", &[&kind])
}

/// Polls until `count` attempts failed as one of `kinds` says.
fn wait_for_failures(forebay: &Process, kinds: &[&str], count: f64) {
    let deadline = std::time::Instant::now() + PATIENCE;
    while kinds.iter().map(|kind| failed_attempts(forebay, kind)).sum::<f64>() < count {
        assert!(std::time::Instant::now() < deadline, "no {kinds:?} in\n{}", forebay.metrics());
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Waits for the first retry's line, which has to say what it means for the data.
fn told_of_retry(forebay: &mut Process, kinds: &[&str]) -> Value {
    let line = forebay.wait_for_log(WILL_RETRY);
    let kind = line["kind"].as_str().expect("a kind");
    assert!(kinds.contains(&kind), "{kinds:?}: {line}");
    assert_eq!(line["level"], "warn", "{line}");
    for field in ["interval", "error", "cost", "hint", "destination"] {
        assert!(line[field].as_str().is_some_and(|text| !text.is_empty()), "{field}: {line}");
    }
    assert!(line["cost"].as_str().is_some_and(|cost| cost.contains("nothing is lost")), "{line}");
    line
}

fn delivered(end: &End) -> &Value {
    &end.ledger["delivered_items"]
}

fn dropped(end: &End, reason: &str) -> u64 {
    let routes = end.ledger["routes"].as_array().expect("routes");
    routes.iter().filter_map(|route| route["dropped_items"][reason].as_u64()).sum()
}

#[test]
fn c3_c4_one_refusal_in_ten_loses_nothing_and_delivers_nothing_twice() {
    let delays = [None, Some(Duration::from_millis(40))];
    for (speech, delay) in BOTH.into_iter().flat_map(|s| delays.map(|delay| (s, delay))) {
        let sink = Sink::scripted(move |request| match request % 10 {
            3 => Reply::Fail(Code::Unavailable, delay),
            _ => Reply::Ok,
        });
        let mut forebay = forward(speech, &speech.exporter(&sink));
        send(&forebay, Signal::Traces, 0, 100, 20);
        sink.wait_for(Signal::Traces, 2000);
        told_of_retry(&mut forebay, &["unavailable"]);
        let end = forebay.stop();
        assert_eq!(*delivered(&end), 2000, "{speech:?} {delay:?}");
        assert_eq!(sink.counts(Signal::Traces), (2000, 1, 1), "{speech:?} {delay:?}");
        let refused = sink.requests() - 100;
        assert_eq!(refused, (sink.requests() + 6) / 10, "each refusal made one more request");
    }
}

#[test]
fn c13_answers_that_get_lost_cost_duplicates_and_no_item() {
    for speech in BOTH {
        let sink = Sink::scripted(|request| match request % 10 {
            3 => Reply::KeepAndFail(Code::Unavailable),
            _ => Reply::Ok,
        });
        let forebay = forward(speech, &speech.exporter(&sink));
        send(&forebay, Signal::Logs, 0, 100, 20);
        sink.wait_for(Signal::Logs, 2000);
        let end = forebay.stop();
        assert_eq!(*delivered(&end), 2000, "the ledger counts each item once");
        let twice: usize = sink.numbers(Signal::Logs).values().map(|count| count - 1).sum();
        let forgotten = sink.requests() - 100;
        assert!(forgotten >= 10, "{forgotten} requests were answered wrongly");
        assert_eq!(twice, forgotten * 20, "{speech:?}: duplicates come from lost answers alone");
    }
}

#[test]
fn c7_a_destination_that_is_down_at_the_start_gets_everything_once_it_is_up() {
    for speech in BOTH {
        let address = closed_port();
        let mut forebay = forward(speech, &speech.exporter_at(address));
        send(&forebay, Signal::Metrics, 0, 30, 10);
        let line = told_of_retry(&mut forebay, &["connect"]);
        assert!(line["items"].as_u64().is_some_and(|items| items == 10), "{line}");
        assert_eq!(forebay.health().0, 200, "one destination that is down closes no route");
        let sink = speech.sink_on(address);
        sink.wait_for(Signal::Metrics, 300);
        assert_eq!(forebay.wait_for_log(WORKS_AGAIN)["destination"], speech.id());
        let end = forebay.stop();
        assert_eq!(*delivered(&end), 300);
        assert_eq!(sink.counts(Signal::Metrics), (300, 1, 1), "{speech:?}");
    }
}

#[test]
fn c7_a_destination_that_goes_away_and_comes_back_on_its_port_misses_nothing() {
    for speech in BOTH {
        let first = speech.sink_on(own_port());
        let address = match speech {
            Speech::Grpc => first.grpc,
            Speech::Http => first.http,
        };
        let mut forebay = forward(speech, &speech.exporter_at(address));
        send(&forebay, Signal::Traces, 0, 20, 10);
        first.wait_for(Signal::Traces, 200);
        first.stop();
        send(&forebay, Signal::Traces, 200, 20, 10);
        forebay.wait_for_log(WILL_RETRY);
        let second = speech.sink_on(address);
        second.wait_until("the second half", |sink| sink.counts(Signal::Traces).0 >= 200);
        forebay.wait_for_log(WORKS_AGAIN);
        let end = forebay.stop();
        assert_eq!(*delivered(&end), 400);
        let numbers: Vec<i64> = second.numbers(Signal::Traces).into_keys().collect();
        assert_eq!(numbers, (200..400).collect::<Vec<_>>(), "{speech:?}");
    }
}

/// A destination that does `act` to each connection, and later becomes a good one.
fn survives(speech: Speech, kinds: &[&str], act: impl Fn(TcpStream) + Send + 'static) -> Value {
    let stranger = Stranger::start(act);
    let address = stranger.address;
    let mut forebay = forward(speech, &speech.exporter_at(address));
    send(&forebay, Signal::Logs, 0, 10, 10);
    let line = told_of_retry(&mut forebay, kinds);
    wait_for_failures(&forebay, kinds, 15.0);
    assert!(stranger.connections() > 0);
    assert_eq!(forebay.ledger()["in_flight_items"], 100, "it took nothing");
    drop(stranger);
    let sink = speech.sink_on(address);
    sink.wait_for(Signal::Logs, 100);
    forebay.wait_for_log(WORKS_AGAIN);
    let end = forebay.stop();
    assert_eq!(*delivered(&end), 100);
    assert_eq!(sink.counts(Signal::Logs), (100, 1, 1));
    line
}

/// Waits for the peer's first bytes.
fn first_bytes(stream: &mut TcpStream) {
    let _ = stream.set_read_timeout(Some(Duration::from_secs(1)));
    let _ = stream.read(&mut [0; 16]);
}

#[test]
fn a_destination_that_resets_every_connection_loses_nothing() {
    for speech in BOTH {
        // Between two connections that end at once a gRPC call hears that there is none.
        let kinds: &[&str] = match speech {
            Speech::Grpc => &["disconnected", "connect"],
            Speech::Http => &["disconnected"],
        };
        // Closing with bytes unread makes the kernel send a reset.
        survives(speech, kinds, |mut stream| first_bytes(&mut stream));
    }
}

#[test]
fn a_destination_that_answers_garbage_loses_nothing() {
    let garbage = |mut stream: TcpStream| {
        first_bytes(&mut stream);
        let _ = stream.write_all(b"\x16\x03\x01 SSH-2.0-OpenSSH_9.2\r\nlogin: \r\n\r\n");
    };
    survives(Speech::Http, &["garbage"], garbage);
    // HTTP/2 ends the connection at the first frame that is none.
    survives(Speech::Grpc, &["garbage"], garbage);
}

#[test]
fn a_web_page_in_place_of_an_otlp_endpoint_is_no_success() {
    let line = survives(Speech::Http, &["garbage"], |mut stream| {
        first_bytes(&mut stream);
        // What has not been read would become a reset, and the page would not arrive.
        let _ = stream.set_read_timeout(Some(Duration::from_millis(20)));
        while stream.read(&mut [0; 4096]).is_ok_and(|bytes| bytes > 0) {}
        let page = "<html>please log in</html>";
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\nconnection: close\r\n";
        let length = page.len();
        let _ = write!(stream, "{head}content-length: {length}\r\n\r\n{page}");
    });
    let error = line["error"].as_str().expect("a text");
    assert!(error.contains("text/html") && error.contains("please log in"), "{error}");
}

#[test]
fn a_destination_that_hangs_and_recovers_loses_nothing() {
    for speech in BOTH {
        let sink = Sink::scripted(|request| match request {
            0..6 => Reply::Never,
            _ => Reply::Ok,
        });
        let exporter = speech.exporter(&sink).replacen('{', "{timeout: 200ms, ", 1);
        let mut forebay = forward(speech, &exporter);
        send(&forebay, Signal::Traces, 0, 10, 10);
        // A gRPC server knows the timeout too, and may be the first to call the attempt off.
        let given_up = |forebay: &Process| {
            failed_attempts(forebay, "timeout") + failed_attempts(forebay, "unavailable")
        };
        let line = forebay.wait_for_log(WILL_RETRY);
        let error = line["error"].as_str().unwrap_or_default();
        assert!(line["kind"] != "timeout" || error.contains("200ms"), "{line}");
        sink.wait_for(Signal::Traces, 100);
        let at_rest = |ledger: &Value| ledger["in_flight_items"] == 0;
        forebay.wait_for_ledger("nothing in flight", at_rest);
        // On a busy machine an answer may be late as well.
        assert!(given_up(&forebay) >= 6.0, "{speech:?}: {}", forebay.metrics());
        assert!(speech == Speech::Grpc || failed_attempts(&forebay, "timeout") >= 6.0);
        assert_eq!(*delivered(&forebay.stop()), 100, "{speech:?}");
    }
}

#[test]
fn c3_c4_c8_what_is_refused_for_good_is_dropped_and_counted_and_said() {
    for speech in BOTH {
        let sink = Sink::scripted(|request| match request {
            1 => Reply::Fail(Code::InvalidArgument, None),
            _ => Reply::Ok,
        });
        let mut forebay = forward(speech, &speech.exporter(&sink));
        for request in 0..3 {
            // One after the other: the refused one is known.
            send(&forebay, Signal::Traces, request * 10, 1, 10);
            sink.wait_until("one more request", |sink| sink.requests() as i64 > request);
        }
        let line = forebay.wait_for_log(DROPPING);
        assert_eq!(line["dropped_items"], 10, "{line}");
        assert_eq!(line["reason"], "refused_by_destination", "{line}");
        assert!(line["hint"].is_string() && line["destination"] == speech.id(), "{line}");
        forebay.wait_for_ledger("nothing in flight", |ledger| ledger["in_flight_items"] == 0);
        assert_eq!(forebay.metric("otelcol_exporter_send_failed_spans", &[]), 10.0);
        assert_eq!(forebay.metric("otelcol_exporter_sent_spans", &[]), 20.0);
        let reason = ["pipeline=\"traces\"", "reason=\"refused_by_destination\""];
        assert_eq!(forebay.metric("forebay_ledger_dropped_items", &reason), 10.0);
        let end = forebay.stop();
        assert_eq!((dropped(&end, "refused_by_destination"), sink.requests()), (10, 3));
        assert_eq!(sink.missing(Signal::Traces, 30), (10..20).collect::<Vec<_>>());
    }
}

#[test]
fn c6_a_partial_success_is_counted_and_never_retried() {
    for speech in BOTH {
        let sink = Sink::scripted(|_| Reply::Partial(3));
        let mut forebay = forward(speech, &speech.exporter(&sink));
        send(&forebay, Signal::Logs, 0, 5, 10);
        let line = forebay.wait_for_log("Partial success response");
        assert_eq!(line["dropped_items"], 3, "{line}");
        assert_eq!(line["message"], "told to", "what the destination said: {line}");
        sink.wait_for(Signal::Logs, 50);
        let end = forebay.stop();
        assert_eq!(*delivered(&end), 35);
        assert_eq!(dropped(&end, "partial_success"), 15);
        assert_eq!(sink.requests(), 5, "{speech:?}");
    }
}

#[test]
fn without_retries_a_refused_batch_is_dropped_under_that_name() {
    let sink = Sink::scripted(|_| Reply::Fail(Code::Unavailable, None));
    let exporter =
        sink.grpc_exporter().replace("retry_on_failure: {", "retry_on_failure: {enabled: false, ");
    let mut forebay = forward(Speech::Grpc, &exporter);
    send(&forebay, Signal::Logs, 0, 1, 10);
    let line = forebay.wait_for_log(DROPPING);
    assert_eq!(line["reason"], "retries_exhausted", "{line}");
    assert!(line["hint"].as_str().is_some_and(|hint| hint.contains("max_elapsed_time")), "{line}");
    let end = forebay.stop();
    assert_eq!((dropped(&end, "retries_exhausted"), sink.requests()), (10, 1));
}

/// Two pipelines of one signal; what stands between them and the sinks is up to the test.
fn two_pipelines(a: &Sink, b: &Sink, processors: &str, of_a: &str, of_b: &str) -> String {
    let (a, b) = (a.grpc_exporter(), b.http_exporter());
    format!(
        "{RECEIVERS}{SERVICE}  pipelines:
    traces/a: {{receivers: [otlp], processors: [{of_a}], exporters: [otlp_grpc]}}
    traces/b: {{receivers: [otlp], processors: [{of_b}], exporters: [otlp_http]}}
{processors}
exporters:
  otlp_grpc: {a}
  otlp_http: {b}
"
    )
}

#[test]
fn c12_all_pipelines_of_one_receiver_get_everything() {
    let (a, b) = (Sink::start(), Sink::start());
    let processors = "processors:\n  batch: {send_batch_size: 100, timeout: 50ms}\n";
    let forebay = Process::start(&two_pipelines(&a, &b, processors, "batch", ""));
    send(&forebay, Signal::Traces, 0, 60, 10);
    a.wait_for(Signal::Traces, 600);
    b.wait_for(Signal::Traces, 600);
    let end = forebay.stop();
    assert_eq!(end.ledger["received_items"], 600);
    assert_eq!(*delivered(&end), 1200, "by each of the two");
    assert_eq!((a.counts(Signal::Traces), b.counts(Signal::Traces)), ((600, 1, 1), (600, 1, 1)));
    assert_eq!(b.requests(), 60, "the pipeline without a batch processor hands on as it gets");
    assert!(a.requests() < 60, "the other splices: {}", a.requests());
}

#[test]
fn c12_a_pipeline_that_fails_for_good_takes_nothing_from_its_neighbour() {
    let a = Sink::scripted(|_| Reply::Fail(Code::InvalidArgument, None));
    let b = Sink::start();
    let forebay = Process::start(&two_pipelines(&a, &b, "", "", ""));
    send(&forebay, Signal::Traces, 0, 20, 10);
    b.wait_for(Signal::Traces, 200);
    let end = forebay.stop();
    assert_eq!((delivered(&end), dropped(&end, "refused_by_destination")), (&200.into(), 200));
}

fn batched(processors: &str, name: &str, sink: &Sink) -> Process {
    let exporter = sink.grpc_exporter();
    Process::start(&format!(
        "{RECEIVERS}{SERVICE}  pipelines:
    logs: {{receivers: [otlp], processors: [{name}], exporters: [otlp_grpc]}}
processors:
  {processors}
exporters:
  otlp_grpc: {exporter}
"
    ))
}

fn sizes(sink: &Sink) -> Vec<usize> {
    let mut sizes: Vec<usize> = sink.sizes().into_iter().map(|(_, items)| items).collect();
    sizes.sort_unstable();
    sizes
}

#[test]
fn many_small_requests_are_spliced_into_batches_of_the_configured_size() {
    let sink = Sink::start();
    let batch = "batch: {send_batch_size: 100, send_batch_max_size: 100, timeout: 1h}";
    let forebay = batched(batch, "batch", &sink);
    send(&forebay, Signal::Logs, 0, 25, 10);
    sink.wait_until("two full batches", |sink| sink.requests() >= 2);
    let held = forebay.ledger();
    assert_eq!(held["in_flight_items"].as_u64().map(|items| items >= 50), Some(true), "{held}");
    let end = forebay.stop();
    assert_eq!(*delivered(&end), 250, "the open batch left with the stop");
    assert_eq!(sizes(&sink), [50, 100, 100]);
    assert_eq!(sink.counts(Signal::Logs), (250, 1, 1));
}

#[test]
fn a_batch_waits_for_its_timeout_and_no_longer() {
    let sink = Sink::start();
    let forebay = batched("batch: {timeout: 2s}", "batch", &sink);
    let began = std::time::Instant::now();
    send(&forebay, Signal::Logs, 0, 3, 10);
    sink.wait_for(Signal::Logs, 30);
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(2), "{took:?}");
    assert!(took < Duration::from_secs(8), "{took:?}");
    assert_eq!(sizes(&sink), [30], "one batch of all three");
    forebay.stop();
}

#[test]
fn a_request_larger_than_a_batch_is_split_at_item_borders() {
    let sink = Sink::start();
    let batch = "batch: {send_batch_size: 300, send_batch_max_size: 300, timeout: 1h}";
    let forebay = batched(batch, "batch", &sink);
    send(&forebay, Signal::Logs, 0, 1, 1000);
    sink.wait_until("the full batches", |sink| sink.requests() >= 3);
    let end = forebay.stop();
    assert_eq!(*delivered(&end), 1000);
    assert_eq!(sizes(&sink), [100, 300, 300, 300]);
    assert_eq!(sink.counts(Signal::Logs), (1000, 1, 1));
}

#[test]
fn batches_can_be_bounded_by_bytes() {
    let sink = Sink::start();
    let batch = "queue_batch: {batch: {sizer: bytes, min_size: 1, max_size: 8192}}";
    let forebay = batched(batch, "queue_batch", &sink);
    let bytes = items::proto(Signal::Logs, 0, 1000).len();
    send(&forebay, Signal::Logs, 0, 1, 1000);
    sink.wait_for(Signal::Logs, 1000);
    assert_eq!(*delivered(&forebay.stop()), 1000);
    let batches = sink.sizes().len();
    assert!(batches >= bytes / 8192 && batches <= bytes / 8192 * 2, "{batches} for {bytes} bytes");
    // The smallest items are the first ones; a batch of them all is the largest that can be.
    let largest = *sizes(&sink).last().expect("batches");
    let smallest = items::proto(Signal::Logs, 0, 10).len() - items::proto(Signal::Logs, 0, 9).len();
    assert!(largest * smallest <= 8192, "{largest} items of {smallest} bytes or more");
}
