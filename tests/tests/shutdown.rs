//! The end of the process: in order, in time, and with every item accounted for.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use forebay_codec::signal::Signal;
use forebay_codec::status::Status;
use forebay_tests::forebay::{End, PATIENCE, Process, RECEIVERS, SERVICE, config, program};
use forebay_tests::frames::{self, Frames};
use forebay_tests::items;
use forebay_tests::sink::{Reply, Sink};
use forebay_tests::wire::{Answer, Http1, Http2, path_of};
use rustix::process::{Pid, Signal as Kill, kill_process};

const PROTO: [(&str, &str); 1] = [("content-type", "application/x-protobuf")];

fn post(forebay: &Process, signal: Signal, first: i64, n: i64) -> Answer {
    let mut connection = Http1::connect(forebay.http_address());
    connection.post(path_of(signal), &PROTO, &items::proto(signal, first, n))
}

fn dropped(end: &End, reason: &str) -> u64 {
    let routes = end.ledger["routes"].as_array().expect("routes");
    routes.iter().filter_map(|route| route["dropped_items"][reason].as_u64()).sum()
}

fn said(end: &End, message: &str) -> usize {
    end.logs.iter().filter(|line| line["msg"] == message).count()
}

/// Batches for an hour in front of `sink`; `engine` is the inside of that block.
fn patient(sink: &Sink, engine: &str) -> Process {
    let exporter = sink.grpc_exporter();
    Process::start(&format!(
        "{RECEIVERS}{SERVICE}  pipelines:
    logs: {{receivers: [otlp], processors: [batch], exporters: [otlp_grpc]}}
processors: {{batch: {{send_batch_size: 100000, timeout: 1h}}}}
exporters: {{otlp_grpc: {exporter}}}
engine: {{{engine}}}
"
    ))
}

#[test]
fn sigterm_and_sigint_send_an_open_batch_on_its_way_at_once() {
    for (signal, name) in [(Kill::TERM, "SIGTERM"), (Kill::INT, "SIGINT")] {
        let sink = Sink::start();
        let forebay = patient(&sink, "drain_timeout: 25s");
        for request in 0..20 {
            assert_eq!(post(&forebay, Signal::Logs, request * 10, 10).status, 200);
        }
        assert_eq!(forebay.ledger()["in_flight_items"], 200);
        assert_eq!(sink.requests(), 0, "the batch is open");
        forebay.signal(signal);
        let end = forebay.wait();
        assert!(end.took < Duration::from_secs(10), "{:?}, which is not at once", end.took);
        assert_eq!(sink.counts(Signal::Logs), (200, 1, 1));
        assert_eq!(end.ledger["delivered_items"], 200);
        let received = end.logs.iter().find(|line| line["msg"] == "Received signal from OS");
        assert_eq!(received.expect("the line")["signal"], name);
        assert_eq!((said(&end, "Starting shutdown..."), said(&end, "Shutdown complete.")), (1, 1));
    }
}

#[test]
fn a_process_that_did_nothing_ends_at_once() {
    let sink = Sink::start();
    let end = patient(&sink, "drain_timeout: 25s").stop();
    assert!(end.took < Duration::from_secs(5), "{:?}", end.took);
    assert_eq!(end.ledger["received_items"], 0);
}

#[test]
fn c9_a_stuck_destination_costs_the_drain_timeout_and_every_item_is_counted() {
    // Stuck in an attempt, in the queue behind it, and in an open batch; and one that refuses.
    for reply in [Reply::Never, Reply::Fail(tonic::Code::Unavailable, None)] {
        let sink = Sink::scripted(move |_| reply.clone());
        let exporter =
            sink.grpc_exporter().replacen('{', "{sending_queue: {num_consumers: 2}, ", 1);
        let forebay = Process::start(&config(
            "[otlp_grpc]",
            &format!("exporters: {{otlp_grpc: {exporter}}}\nengine: {{drain_timeout: 1s}}\n"),
        ));
        for request in 0..20 {
            assert_eq!(post(&forebay, Signal::Logs, request * 10, 10).status, 200);
        }
        sink.wait_until("two requests", |sink| sink.requests() >= 2);
        let end = forebay.stop();
        assert!(end.took >= Duration::from_secs(1), "{:?}", end.took);
        assert!(end.took < Duration::from_secs(10), "{:?}", end.took);
        assert_eq!((dropped(&end, "shutdown"), &end.ledger["delivered_items"]), (200, &0.into()));
        let warning = end.logs.iter().find(|line| line["drain_timeout_ms"] == 1000);
        let warning = warning.expect("a line about the deadline");
        assert_eq!((&warning["level"], &warning["in_flight_items"]), (&"warn".into(), &200.into()));
        let told = end.logs.iter().find(|line| line["msg"] == "Exporting failed. Dropping data.");
        assert_eq!(told.expect("the destination's line")["reason"], "shutdown");
    }
}

#[test]
fn an_open_batch_for_a_stuck_destination_is_counted_too() {
    let sink = Sink::scripted(|_| Reply::Never);
    let forebay = patient(&sink, "drain_timeout: 300ms");
    assert_eq!(post(&forebay, Signal::Logs, 0, 10).status, 200);
    assert_eq!(dropped(&forebay.stop(), "shutdown"), 10);
}

#[test]
fn what_no_queue_had_room_for_is_counted_too() {
    let sink = Sink::scripted(|_| Reply::Never);
    let queue = "{sending_queue: {num_consumers: 1, queue_size: 1}, ";
    let exporter = sink.grpc_exporter().replacen('{', queue, 1);
    let forebay = Process::start(&config(
        "[otlp_grpc]",
        &format!("exporters: {{otlp_grpc: {exporter}}}\nengine: {{drain_timeout: 300ms}}\n"),
    ));
    let mut taken = 0;
    while post(&forebay, Signal::Logs, taken, 10).status == 200 {
        taken += 10;
        assert!(taken < 10_000, "the queue never fills");
    }
    let end = forebay.stop();
    assert_eq!(dropped(&end, "shutdown"), taken as u64);
}

#[tokio::test]
async fn requests_that_wait_for_delivery_are_answered_when_the_time_is_over() {
    let sink = Sink::scripted(|_| Reply::Never);
    let exporter = sink.grpc_exporter();
    let forebay = Process::start(&config(
        "[otlp_grpc]",
        &format!(
            "exporters: {{otlp_grpc: {exporter}}}\n\
             engine: {{acks: {{default: delivered}}, drain_timeout: 500ms}}\n"
        ),
    ));
    let mut posting = Http1::connect(forebay.http_address());
    let body = items::proto(Signal::Traces, 0, 10);
    let head = "POST /v1/traces HTTP/1.1\r\nhost: test\r\ncontent-type: application/x-protobuf";
    let head = format!("{head}\r\ncontent-length: {}\r\n\r\n", body.len());
    posting.send(&[head.as_bytes(), &body].concat());
    let connection = Http2::connect(forebay.grpc.expect("a port")).await;
    let body = items::proto(Signal::Traces, 10, 10);
    let calling = tokio::spawn(async move { connection.export(Signal::Traces, &body).await });
    let deadline = Instant::now() + PATIENCE;
    while forebay.ledger()["accepted_items"] != 20 {
        assert!(Instant::now() < deadline, "{}", forebay.ledger());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    forebay.signal(Kill::TERM);
    let answer = calling.await.expect("no panic").expect("an answer");
    assert_eq!(answer.grpc_status(), Some(14), "{answer:?}");
    assert!(answer.grpc_header("grpc-retry-pushback-ms").is_some(), "{answer:?}");
    let answer = posting.read_answer().expect("an answer");
    assert_eq!((answer.status, answer.header("connection")), (503, Some("close")));
    assert!(answer.header("retry-after").is_some(), "it may try another node");
    let status = Status::from_proto(&answer.body).expect("a Status");
    assert!(status.message.contains("stopped"), "{status:?}");
    assert_eq!(dropped(&forebay.wait(), "shutdown"), 20);
}

#[test]
fn an_answer_that_waits_for_its_readers_window_is_not_cut_off_by_the_end() {
    let forebay = Process::start(&config("[nop]", "exporters: {nop: }\n"));
    let mut reader = Frames::connect(forebay.http_address());
    let no_window = [&[0, 4], &0_u32.to_be_bytes()[..]].concat();
    assert!(reader.send(frames::SETTINGS, 0, 0, &no_window));
    let method = [(":method", "GET"), (":scheme", "http"), (":authority", "test")];
    let headers = frames::block(&[&method[..], &[(":path", "/nothing")]].concat());
    let whole = frames::END_HEADERS | frames::END_STREAM;
    assert!(reader.send(frames::HEADERS, whole, 1, &headers));
    reader.wait_for(frames::HEADERS, 1).expect("the beginning of an answer");
    forebay.signal(Kill::TERM);
    let ping = reader.wait_for(frames::PING, 0).expect("a first GOAWAY, and its PING");
    assert!(reader.send(frames::PING, frames::ACK, 0, &ping.payload));
    let goaway = reader.wait_for(frames::GOAWAY, 0).expect("the last GOAWAY");
    assert_eq!(goaway.payload[..4], 1_u32.to_be_bytes());
    // Longer than the last words of a process that owes nobody anything.
    std::thread::sleep(Duration::from_secs(1));
    assert!(reader.send(frames::WINDOW_UPDATE, 0, 1, &10_000_u32.to_be_bytes()));
    let body = reader.wait_for(frames::DATA, 1).expect("the rest of the answer");
    assert!(body.flags & frames::END_STREAM != 0 && !body.payload.is_empty());
    assert!(forebay.wait().took < Duration::from_secs(8));
}

#[test]
fn a_client_that_says_nothing_delays_the_end_by_no_more_than_its_time_to_hear_of_it() {
    let forebay = Process::start(&config("[nop]", "exporters: {nop: }\n"));
    let mut silent = Frames::connect(forebay.http_address());
    silent.wait_for(frames::SETTINGS, 0).expect("it was heard");
    let end = forebay.stop();
    assert!(end.took < Duration::from_secs(6), "{:?}", end.took);
    let mut named = Vec::new();
    while let Some(frame) = silent.next_frame() {
        if frame.kind == frames::GOAWAY {
            named.push(frame.payload[..4].to_vec());
        }
    }
    assert_eq!(named, [i32::MAX.to_be_bytes(), 0_i32.to_be_bytes()]);
}

#[test]
fn a_request_whose_body_is_under_way_does_not_hold_up_the_end() {
    let sink = Sink::start();
    let forebay = patient(&sink, "drain_timeout: 2s");
    let mut half = Http1::connect(forebay.http_address());
    let head = "POST /v1/logs HTTP/1.1\r\nhost: test\r\ncontent-type: application/x-protobuf";
    half.send(format!("{head}\r\ncontent-length: 1000\r\n\r\nhalf").as_bytes());
    let deadline = Instant::now() + PATIENCE;
    while forebay.metric("forebay_receiver_core_connections", &[]) < 1.0 {
        assert!(Instant::now() < deadline, "{}", forebay.metrics());
    }
    // The connection may be counted before its bytes have come: they are asked for by the door.
    while forebay.metric("forebay_receiver_core_memory_taken_bytes", &[]) < 1.0 {
        assert!(Instant::now() < deadline, "{}", forebay.metrics());
    }
    forebay.signal(Kill::TERM);
    let answer = half.read_answer().expect("an answer, not only an end");
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.header("retry-after").is_some(), "{answer:?}");
    let end = forebay.wait();
    assert!(end.took < Duration::from_secs(10), "{:?}", end.took);
    assert_eq!(end.ledger["received_items"], 0, "it was never complete, and never acknowledged");
}

#[test]
fn large_uploads_that_sigterm_meets_are_answered_ok_or_try_again_and_never_as_invalid() {
    const CLIENTS: i64 = 12;
    const ITEMS: i64 = 100_000;
    let body = items::proto(Signal::Logs, 0, ITEMS);
    assert!(body.len() > 3 << 20, "{} bytes", body.len());
    for round in 0..3 {
        let forebay = Process::start(&config("[nop]", "exporters: {nop: }\n"));
        let address = forebay.http_address();
        let statuses: Vec<Option<u16>> = std::thread::scope(|scope| {
            let upload = || {
                let mut connection = Http1::connect(address);
                let head = format!(
                    "POST /v1/logs HTTP/1.1\r\nhost: test\r\ncontent-type: \
                     application/x-protobuf\r\ncontent-length: {}\r\n\r\n",
                    body.len()
                );
                // A refused client may be cut off while it sends: what it was told counts.
                let sent = [head.as_bytes(), &body]
                    .into_iter()
                    .try_for_each(|piece| std::io::Write::write_all(&mut connection.stream, piece));
                (connection.read_answer().map(|answer| answer.status), sent.is_ok())
            };
            let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(upload)).collect();
            let deadline = Instant::now() + PATIENCE;
            while forebay.metric("forebay_receiver_core_received_bytes", &[]) < 1e6 {
                assert!(Instant::now() < deadline, "{}", forebay.metrics());
            }
            forebay.signal(Kill::TERM);
            clients.into_iter().map(|client| client.join().expect("a client ends").0).collect()
        });
        let end = forebay.wait();
        let ok = statuses.iter().filter(|status| **status == Some(200)).count() as i64;
        let others = statuses.iter().flatten().all(|status| [200, 503].contains(status));
        assert!(others, "round {round}: {statuses:?}");
        assert_eq!(end.ledger["delivered_items"], ok * ITEMS, "round {round}: {statuses:?}");
    }
}

/// A process without the harness, for ends that are not orderly.
fn start(config: &str) -> (tempfile::TempDir, Child) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("forebay.yaml");
    std::fs::write(&path, config).expect("it can be written");
    let mut command = Command::new(program());
    command.arg("--config").arg(&path).stdin(Stdio::null());
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    (folder, child.expect("forebay starts"))
}

/// Ends by itself, within the harness's patience.
fn output_of(config: &str) -> Output {
    let (_folder, mut child) = start(config);
    let deadline = Instant::now() + PATIENCE;
    while child.try_wait().expect("it can be waited for").is_none() {
        if Instant::now() > deadline {
            child.kill().expect("it can be killed");
            panic!("it did not end");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().expect("it can be waited for")
}

#[test]
fn a_second_signal_ends_it_at_once_with_exit_code_1() {
    for second in [Kill::TERM, Kill::INT] {
        let sink = Sink::scripted(|_| Reply::Never);
        let exporter = sink.grpc_exporter();
        let (_folder, mut child) = start(&config(
            "[otlp_grpc]",
            &format!("exporters: {{otlp_grpc: {exporter}}}\nengine: {{drain_timeout: 10m}}\n"),
        ));
        let mut lines = BufReader::new(child.stderr.take().expect("stderr is piped")).lines();
        let mut line_with = |text: &str| -> serde_json::Value {
            let line = lines.by_ref().map_while(Result::ok).find(|line| line.contains(text));
            serde_json::from_str(&line.unwrap_or_else(|| panic!("no line {text}"))).expect("JSON")
        };
        let http = line_with("Starting HTTP server");
        let address = http["endpoint"].as_str().expect("an address").parse().expect("one");
        line_with("Everything is ready");
        let body = items::proto(Signal::Logs, 0, 10);
        assert_eq!(Http1::connect(address).post("/v1/logs", &PROTO, &body).status, 200);
        let pid = Pid::from_raw(child.id() as i32).expect("a process id");
        kill_process(pid, Kill::TERM).expect("it takes signals");
        line_with("Starting shutdown...");
        let told = std::thread::scope(|scope| {
            let told = scope.spawn(|| line_with("second signal"));
            // One that comes at once is taken for an echo of the first; who insists is heard.
            while !told.is_finished() {
                kill_process(pid, second).expect("it takes signals");
                std::thread::sleep(Duration::from_millis(50));
            }
            told.join().expect("the line is JSON")
        });
        assert_eq!(told["level"], "error", "{told}");
        assert!(told["msg"].as_str().is_some_and(|text| text.contains("lost")), "{told}");
        assert_eq!(child.wait().expect("it ends").code(), Some(1));
    }
}

#[test]
fn a_signal_that_comes_twice_at_once_is_one_and_nothing_is_lost() {
    let sink = Sink::start();
    let exporter = sink.grpc_exporter();
    let exporters = format!("exporters: {{otlp_grpc: {exporter}}}\n");
    let forebay = Process::start(&config("[otlp_grpc]", &exporters));
    let body = items::proto(Signal::Logs, 0, 10);
    let address = forebay.http_address();
    assert_eq!(Http1::connect(address).post("/v1/logs", &PROTO, &body).status, 200);
    // Stopped meanwhile, it gets all of them at once, however slow we are.
    forebay.signal(Kill::STOP);
    forebay.signal(Kill::TERM);
    forebay.signal(Kill::TERM);
    forebay.signal(Kill::INT);
    forebay.signal(Kill::CONT);
    forebay.wait();
    assert!(sink.missing(Signal::Logs, 10).is_empty());
}

#[test]
fn sighup_where_nothing_can_be_reloaded_says_so_and_ends_nothing() {
    let sink = Sink::start();
    let mut forebay = patient(&sink, "");
    forebay.signal(Kill::HUP);
    forebay.wait_for("a word about it", |line| {
        line["msg"].as_str().is_some_and(|text| text.starts_with("SIGHUP: there is nothing"))
    });
    assert_eq!(post(&forebay, Signal::Logs, 1, 1).status, 200);
    assert_eq!(forebay.stop().ledger["received_items"], 1);
}

#[test]
fn a_port_that_is_taken_is_named_with_what_it_costs_and_what_to_do() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("an address").to_string();
    let text = config("[nop]", "exporters: {nop: {}}\n");
    for (block, hint) in [
        ("grpc: {endpoint: 127.0.0.1:0}", "change the receiver's endpoint"),
        ("http: {endpoint: 127.0.0.1:0}", "change the receiver's endpoint"),
        ("metrics: {address: 127.0.0.1:0}", "service.telemetry.metrics.address"),
        ("health_check: {endpoint: 127.0.0.1:0}", "extensions.health_check.endpoint"),
    ] {
        assert!(text.contains(block), "{block}");
        let output = output_of(&text.replace(block, &block.replace("127.0.0.1:0", &address)));
        assert_eq!(output.status.code(), Some(1), "{block}");
        let told = String::from_utf8_lossy(&output.stderr);
        for part in [&*address, "error: ", "cost: ", "hint: ", "does not start", hint] {
            assert!(told.contains(part), "{part:?} in {told}");
        }
        assert!(!told.contains("Everything is ready"), "{told}");
        let mut stdout = String::new();
        (&output.stdout[..]).read_to_string(&mut stdout).expect("text");
        assert_eq!(stdout, "", "no ledger of a process that never ran");
    }
}
