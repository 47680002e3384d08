//! The destinations on this host: files whose lines hold what was sent, a terminal that a person
//! can read, and nowhere.

use std::collections::BTreeSet;
use std::path::Path;

use forebay_codec::json::json_to_proto;
use forebay_codec::signal::Signal;
use forebay_tests::forebay::{Process, config};
use forebay_tests::items;
use forebay_tests::wire::{Http1, path_of};
use opentelemetry_proto::tonic::collector::{logs, metrics, trace};
use prost::Message;
use serde_json::Value;

const PROTO: [(&str, &str); 1] = [("content-type", "application/x-protobuf")];
const STABLE: [Signal; 3] = [Signal::Traces, Signal::Metrics, Signal::Logs];

fn writing(path: &Path, settings: &str) -> Process {
    let path = path.display();
    Process::start(&config("[file]", &format!("exporters: {{file: {{path: {path}{settings}}}}}\n")))
}

fn send(forebay: &Process, signal: Signal, first: i64, requests: i64, each: i64) {
    let mut connection = Http1::connect(forebay.http_address());
    for request in 0..requests {
        let body = items::proto(signal, first + request * each, each);
        assert_eq!(connection.post(path_of(signal), &PROTO, &body).status, 200);
    }
}

/// The lines of a file: each one whole, each one a JSON object.
fn lines(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).expect("the file is there");
    assert!(text.is_empty() || text.ends_with('\n'), "the last line is whole");
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for line in &lines {
        let value: Value = serde_json::from_str(line).expect("a line of JSON");
        assert!(value.is_object(), "{line}");
    }
    lines
}

/// Which signal a line of OTLP JSON is of.
fn signal_of(line: &str) -> Signal {
    let value: Value = serde_json::from_str(line).expect("JSON");
    STABLE
        .into_iter()
        .zip(["resourceSpans", "resourceMetrics", "resourceLogs"])
        .find_map(|(signal, key)| value.get(key).map(|_| signal))
        .expect("a known signal")
}

/// Whether a line says the same as a protobuf request, by the reading of opentelemetry-proto.
fn is_the_same(signal: Signal, line: &str, request: &[u8]) -> bool {
    macro_rules! compare {
        ($request:ty) => {{
            let read: $request = serde_json::from_str(line).expect("OTLP JSON");
            read == <$request>::decode(request).expect("a request")
        }};
    }
    match signal {
        Signal::Traces => compare!(trace::v1::ExportTraceServiceRequest),
        Signal::Metrics => compare!(metrics::v1::ExportMetricsServiceRequest),
        _ => compare!(logs::v1::ExportLogsServiceRequest),
    }
}

/// The numbers of the items of all lines.
fn numbers(signal: Signal, lines: &[String]) -> Vec<i64> {
    let proto =
        |line: &String| json_to_proto(signal, line.as_bytes(), usize::MAX).expect("OTLP JSON");
    lines.iter().flat_map(|line| items::numbers_of(signal, &proto(line))).collect()
}

#[test]
fn j1_j2_j5_the_files_lines_are_otlp_json_equal_to_what_was_sent() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("all.jsonl");
    let forebay = writing(&path, "");
    for signal in STABLE {
        send(&forebay, signal, 0, 3, 7);
    }
    assert_eq!(forebay.stop().ledger["delivered_items"], 63);
    let lines = lines(&path);
    assert_eq!(lines.len(), 9, "one request a line");
    for signal in STABLE {
        let of_signal: Vec<&String> = lines.iter().filter(|l| signal_of(l) == signal).collect();
        assert_eq!(of_signal.len(), 3);
        for request in 0..3 {
            let sent = items::proto(signal, request * 7, 7);
            let found = of_signal.iter().filter(|line| is_the_same(signal, line, &sent)).count();
            assert_eq!(found, 1, "{signal} {request}: {of_signal:#?}");
        }
    }
    let text = lines.concat();
    assert!(text.contains("\"traceId\":\"00000000000000000000000000000001\""), "hex: {text}");
    assert!(text.contains("\"timeUnixNano\":\"1700000000000000000\""), "a string: {text}");
    assert!(text.contains("\"severityNumber\":9"), "a number: {text}");
}

#[test]
fn a_file_is_emptied_at_start_unless_it_is_to_be_appended_to() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("logs.jsonl");
    for (settings, expected) in [("", 10), (", append: true", 20), (", append: true", 30), ("", 10)]
    {
        let forebay = writing(&path, settings);
        send(&forebay, Signal::Logs, 0, 1, 10);
        forebay.stop();
        assert_eq!(numbers(Signal::Logs, &lines(&path)).len(), expected, "{settings:?}");
    }
}

#[test]
fn a_file_is_rotated_at_its_size_and_no_item_is_lost_or_doubled_between_the_files() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("logs.jsonl");
    let forebay = writing(&path, ", rotation: {max_megabytes: 1, max_backups: 100}");
    let (requests, each) = (40, 500);
    send(&forebay, Signal::Logs, 0, requests, each);
    assert_eq!(forebay.stop().ledger["delivered_items"], requests * each);
    let mut all = Vec::new();
    let mut names = BTreeSet::new();
    for entry in std::fs::read_dir(folder.path()).expect("the folder is there") {
        let entry = entry.expect("an entry");
        let bytes = entry.metadata().expect("it is a file").len();
        assert!(bytes <= 1 << 20, "{} has {bytes} bytes", entry.path().display());
        all.extend(lines(&entry.path()));
        names.insert(entry.file_name().into_string().expect("a name"));
    }
    assert!(names.len() >= 3, "{names:?}");
    assert!(names.iter().all(|n| n.starts_with("logs") && n.ends_with(".jsonl")), "{names:?}");
    let mut numbers = numbers(Signal::Logs, &all);
    numbers.sort_unstable();
    assert_eq!(numbers, (0..requests * each).collect::<Vec<_>>());
}

#[test]
fn old_rotated_files_are_removed_beyond_the_configured_number() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("logs.jsonl");
    let forebay = writing(&path, ", rotation: {max_megabytes: 1, max_backups: 1}");
    send(&forebay, Signal::Logs, 0, 40, 500);
    forebay.stop();
    assert_eq!(std::fs::read_dir(folder.path()).expect("the folder is there").count(), 2);
}

#[test]
fn a_file_that_cannot_be_written_is_retried_until_it_can() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("later/logs.jsonl");
    let mut forebay = writing(&path, "");
    send(&forebay, Signal::Logs, 0, 1, 10);
    let line = forebay.wait_for_log("Exporting failed. Will retry the request after interval.");
    assert_eq!((&line["kind"], &line["level"]), (&"write".into(), &"warn".into()), "{line}");
    let shown = path.display().to_string();
    assert!(line["error"].as_str().is_some_and(|error| error.contains(&shown)), "{line}");
    std::fs::create_dir(folder.path().join("later")).expect("it can be made");
    forebay.wait_for_ledger("the items", |ledger| ledger["delivered_items"] == 10);
    forebay.stop();
    assert_eq!(numbers(Signal::Logs, &lines(&path)), (0..10).collect::<Vec<_>>());
}

/// What the debug exporter printed: the lines of standard error that are no log line.
fn printed(settings: &str) -> Vec<String> {
    let text = config("[debug]", &format!("exporters: {{debug: {settings}}}\n"));
    let forebay = Process::start(&text);
    for signal in STABLE {
        send(&forebay, signal, 0, 1, 3);
    }
    let end = forebay.stop();
    assert_eq!(end.ledger["delivered_items"], 9);
    end.logs.iter().filter_map(|line| line.as_str().map(str::to_owned)).collect()
}

#[test]
fn debug_shows_a_person_what_came_by_name_and_attribute() {
    let text = printed("{verbosity: detailed}").join("\n");
    for part in ["GET /0", "GET /2", "checkout", "service.name", "line 1", "queue.depth", "tests"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!(!text.contains('\x1b'), "no colours where no terminal is");
    let text = printed("{verbosity: normal}").join("\n");
    for part in ["GET /0", "n=0", "line 2", "queue.depth"] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn debug_is_one_line_a_batch_unless_asked_for_more() {
    let lines = printed("{}");
    assert_eq!(lines.len(), 3, "{lines:#?}");
    for (signal, line) in ["traces", "metrics", "logs"].iter().zip(&lines) {
        assert!(line.contains(signal) && line.contains('3'), "{lines:#?}");
    }
}

#[test]
fn debug_samples_what_it_shows_and_takes_everything() {
    let settings = "{sampling_initial: 1, sampling_thereafter: 10, verbosity: basic}";
    let text = config("[debug]", &format!("exporters: {{debug: {settings}}}\n"));
    let forebay = Process::start(&text);
    send(&forebay, Signal::Logs, 0, 50, 2);
    let end = forebay.stop();
    assert_eq!(end.ledger["delivered_items"], 100, "shown or not");
    let shown = end.logs.iter().filter(|line| line.is_string()).count();
    assert!((1..30).contains(&shown), "{shown} lines for 50 batches");
}

#[test]
fn nop_takes_everything_and_keeps_nothing() {
    let forebay = Process::start(&config("[nop]", "exporters: {nop: {}}\n"));
    for signal in STABLE {
        send(&forebay, signal, 0, 20, 50);
    }
    let end = forebay.stop();
    assert_eq!(end.ledger["delivered_items"], 3000);
    assert_eq!(end.ledger["dropped_items"], 0);
}
