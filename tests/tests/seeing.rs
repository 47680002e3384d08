//! What an operator sees: metrics that a strict reader takes and that agree with the ledger,
//! health, logs in both forms; and never a secret, anywhere.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use forebay_codec::signal::Signal;
use forebay_tests::forebay::{PATIENCE, Process, RECEIVERS, SERVICE, config, get, program};
use forebay_tests::items;
use forebay_tests::sink::{Reply, Sink, closed_port};
use forebay_tests::wire::{Http1, Http2, path_of};
use serde_json::Value;
use tonic::Code;

const PROTO: [(&str, &str); 1] = [("content-type", "application/x-protobuf")];
const STABLE: [Signal; 3] = [Signal::Traces, Signal::Metrics, Signal::Logs];

/// A page in Prometheus' text format 0.0.4, read strictly.
#[derive(Debug, Default)]
struct Page {
    kinds: BTreeMap<String, String>,
    /// By name and labels, the labels in order.
    samples: BTreeMap<(String, Vec<(String, String)>), f64>,
}

impl Page {
    /// Panics over whatever a scraper might stumble over.
    fn read(text: &str) -> Page {
        let mut page = Page::default();
        let mut helped = BTreeSet::new();
        let mut family = String::new();
        assert!(text.ends_with('\n'), "the last line ends");
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').expect("a name and a text");
                assert!(!help.trim().is_empty() && is_name(name), "{line}");
                assert!(helped.insert(name.to_owned()), "two HELP lines: {line}");
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect("a name and a kind");
                assert!(matches!(kind, "counter" | "gauge"), "{line}");
                let before = page.kinds.insert(name.to_owned(), kind.to_owned());
                assert!(before.is_none(), "two TYPE lines: {line}");
                assert!(helped.contains(name), "no HELP before {line}");
                family = name.to_owned();
            } else {
                let (name, labels, value) = sample(line);
                assert_eq!(name, family, "samples stand under their TYPE line: {line}");
                assert!(value.is_finite() && value >= 0.0, "{line}");
                let before = page.samples.insert((name, labels), value);
                assert!(before.is_none(), "the same sample twice: {line}");
            }
        }
        page
    }

    /// The sum of all samples of `name` with these labels.
    fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        assert!(self.kinds.contains_key(name), "no family {name}");
        let has = |found: &Vec<(String, String)>, (label, value): &(&str, &str)| {
            found.iter().any(|(l, v)| (l.as_str(), v.as_str()) == (*label, *value))
        };
        self.samples
            .iter()
            .filter(|((n, found), _)| n == name && labels.iter().all(|label| has(found, label)))
            .map(|(_, value)| value)
            .sum()
    }
}

/// `name{label="value",...} number`
fn sample(line: &str) -> (String, Vec<(String, String)>, f64) {
    let (series, value) = line.rsplit_once(' ').expect("a value");
    let value = value.parse().unwrap_or_else(|_| panic!("no number: {line}"));
    let Some((name, rest)) = series.split_once('{') else {
        assert!(is_name(series), "{line}");
        return (series.to_owned(), Vec::new(), value);
    };
    assert!(is_name(name), "{line}");
    let mut labels = Vec::new();
    let mut rest = rest.strip_suffix('}').expect("a closing brace");
    loop {
        let (label, quoted) = rest.split_once("=\"").expect("a label");
        assert!(is_name(label) && !label.contains(':'), "{line}");
        let (text, left) = unquote(quoted).unwrap_or_else(|| panic!("no closing quote: {line}"));
        labels.push((label.to_owned(), text));
        match left.strip_prefix(',') {
            Some(next) => rest = next,
            None => {
                assert_eq!(left, "", "{line}");
                break;
            }
        }
    }
    labels.sort();
    let names: BTreeSet<&String> = labels.iter().map(|(label, _)| label).collect();
    assert_eq!(names.len(), labels.len(), "a label twice: {line}");
    (name.to_owned(), labels, value)
}

fn unquote(text: &str) -> Option<(String, &str)> {
    let mut plain = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((plain, &text[at + 1..])),
            '\\' => plain.push(match chars.next()?.1 {
                'n' => '\n',
                c @ ('\\' | '"') => c,
                _ => return None,
            }),
            c => plain.push(c),
        }
    }
    None
}

fn is_name(text: &str) -> bool {
    let part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    !text.is_empty() && text.chars().all(part) && !text.starts_with(|c: char| c.is_ascii_digit())
}

/// Some of everything: three signals, two transports, a partial success, a refusal, bad input.
async fn busy(forebay: &Process, sink: &Sink) {
    let mut connection = Http1::connect(forebay.http_address());
    let calls = Http2::connect(forebay.grpc.expect("a port")).await;
    let mut first = 0;
    for _ in 0..5 {
        for signal in STABLE {
            let body = items::proto(signal, first, 10);
            assert_eq!(connection.post(path_of(signal), &PROTO, &body).status, 200);
            let body = items::proto(signal, first + 10, 10);
            let answer = calls.export(signal, &body).await.expect("an answer");
            assert_eq!(answer.grpc_status(), Some(0));
        }
        first += 20;
    }
    assert_eq!(connection.post("/v1/traces", &PROTO, b"\xff\xff").status, 400);
    assert_eq!(connection.post("/v1/nowhere", &PROTO, b"").status, 404);
    let at_rest = |ledger: &Value| ledger["in_flight_items"] == 0;
    forebay.wait_for_ledger("nothing in flight", at_rest);
    assert!(sink.requests() >= 30);
}

/// Until the page's own samples have caught up with what a core did last.
fn settled_page(forebay: &Process, connections: f64) -> Page {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let page = Page::read(&forebay.metrics());
        // A batch for each request of `busy` that was taken, and all of them let go.
        if page.sum("forebay_receiver_core_connections_accepted", &[]) >= connections
            && page.sum("forebay_receiver_core_batches_sealed", &[]) >= 30.0
            && page.sum("otelcol_exporter_queue_size", &[]) == 0.0
        {
            return page;
        }
        assert!(Instant::now() < deadline, "{page:#?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[tokio::test]
async fn the_metrics_page_is_well_formed_and_agrees_with_the_ledger() {
    let sink = Sink::scripted(|request| match request {
        3 => Reply::Fail(Code::InvalidArgument, None),
        5 => Reply::Partial(4),
        7 => Reply::Fail(Code::Unavailable, None),
        _ => Reply::Ok,
    });
    let exporters = format!("exporters:\n  otlp_grpc: {}\n", sink.grpc_exporter());
    let forebay = Process::start(&config("[otlp_grpc]", &exporters));
    busy(&forebay, &sink).await;
    let page = settled_page(&forebay, 2.0);
    let ledger = forebay.ledger();
    let total = |name: &str| ledger[name].as_f64().expect("a number");
    let names = |what: &str| {
        let items = Signal::ALL.map(|signal| signal.items_name());
        items.map(|items| format!("otelcol_{what}_{items}"))
    };
    let sum = |what: &str| -> f64 { names(what).iter().map(|name| page.sum(name, &[])).sum() };
    assert_eq!((sum("receiver_accepted"), total("accepted_items")), (300.0, 300.0));
    assert_eq!(sum("receiver_refused"), total("refused_items"));
    assert_eq!((sum("exporter_sent"), total("delivered_items")), (286.0, 286.0));
    assert_eq!((sum("exporter_send_failed"), total("dropped_items")), (14.0, 14.0));
    assert_eq!((sum("receiver_failed"), sum("exporter_enqueue_failed")), (0.0, 0.0));
    for transport in ["grpc", "http"] {
        let labels = [("receiver", "otlp"), ("transport", transport)];
        assert_eq!(page.sum("otelcol_receiver_accepted_spans", &labels), 50.0);
        let ok = [("receiver", "otlp"), ("transport", transport), ("outcome", "success")];
        assert_eq!(page.sum("otelcol_receiver_requests", &ok), 15.0);
    }
    assert_eq!(page.sum("otelcol_receiver_requests", &[("outcome", "failure")]), 1.0);
    assert_eq!(page.sum("forebay_receiver_requests", &[("outcome", "invalid")]), 1.0);
    assert_eq!(page.sum("forebay_unrouted_requests", &[("outcome", "unserved")]), 1.0);

    for (name, column) in [
        ("forebay_ledger_received_items", "received_items"),
        ("forebay_ledger_refused_items", "refused_items"),
        ("forebay_ledger_accepted_items", "accepted_items"),
        ("forebay_ledger_delivered_items", "delivered_items"),
        ("forebay_ledger_dropped_items", "dropped_items"),
        ("forebay_ledger_in_flight_items", "in_flight_items"),
    ] {
        assert_eq!(page.sum(name, &[]), total(column), "{name}");
    }
    for (reason, count) in [("refused_by_destination", 10.0), ("partial_success", 4.0)] {
        assert_eq!(page.sum("forebay_ledger_dropped_items", &[("reason", reason)]), count);
    }
    let kind = [("kind", "unavailable")];
    assert_eq!(page.sum("forebay_exporter_failed_attempts", &kind), 1.0);
    assert_eq!(page.sum("forebay_exporter_attempts", &[]), 31.0);

    let capacity = page.sum("otelcol_exporter_queue_capacity", &[("exporter", "otlp_grpc")]);
    assert!(capacity >= 1000.0, "{capacity}");
    for empty in ["queue_size", "in_flight_requests"] {
        assert_eq!(page.sum(&format!("otelcol_exporter_{empty}"), &[]), 0.0, "{empty}");
    }
    for positive in ["uptime", "memory_rss", "cpu_seconds"] {
        let name = format!("otelcol_process_{positive}");
        assert!(page.sum(&name, &[]) > 0.0, "{name}");
        let kind = if positive == "memory_rss" { "gauge" } else { "counter" };
        assert_eq!(page.kinds[&name], kind);
    }
    forebay.stop();
}

#[tokio::test]
async fn each_receiver_core_shows_what_it_does() {
    let sink = Sink::start();
    let exporters = format!("exporters:\n  otlp_http: {}\n", sink.http_exporter());
    let forebay = Process::start(&config("[otlp_http]", &exporters));
    busy(&forebay, &sink).await;
    let page = settled_page(&forebay, 2.0);
    let cores: BTreeSet<&Vec<(String, String)>> = page
        .samples
        .keys()
        .filter(|(name, _)| name == "forebay_receiver_core_turns")
        .map(|(_, labels)| labels)
        .collect();
    assert!(!cores.is_empty() && cores.iter().all(|labels| labels[0].0 == "core"), "{cores:?}");
    let core = |name: &str| page.sum(&format!("forebay_receiver_core_{name}"), &[]);
    for positive in [
        "turns",
        "connections_accepted",
        "received_bytes",
        "answered_bytes",
        "ring_enters",
        "ring_completions",
        "memory_budget_bytes",
        "batches_sealed",
    ] {
        assert!(core(positive) > 0.0, "{positive}");
    }
    for zero in ["accept_errors", "connections_over_limit", "ring_overflows", "requests_waiting"] {
        assert_eq!(core(zero), 0.0, "{zero}");
    }
    assert_eq!(page.sum("forebay_healthy", &[]), 1.0);
    assert_eq!(page.sum("forebay_open_receiver_cores", &[]), cores.len() as f64);
    assert!(page.sum("forebay_exporter_sent_bytes", &[("exporter", "otlp_http")]) > 0.0);
    forebay.stop();
}

#[test]
fn health_says_that_it_is_available_and_for_how_long() {
    let forebay = Process::start(&config("[nop]", "exporters: {nop: {}}\n"));
    let (status, body) = forebay.health();
    let body: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!((status, &body["status"]), (200, &"Server available".into()));
    assert!(body["uptime"].as_str().is_some_and(|uptime| uptime.ends_with('s')), "{body}");
    forebay.stop();
}

#[tokio::test]
async fn every_line_of_the_json_log_is_json_with_a_level_a_time_and_a_text() {
    let sink = Sink::scripted(|request| match request {
        2 => Reply::Fail(Code::Unavailable, None),
        4 => Reply::Partial(1),
        _ => Reply::Ok,
    });
    let text =
        config("[otlp_grpc]", &format!("exporters: {{otlp_grpc: {}}}\n", sink.grpc_exporter()));
    let text = text.replace("logs: {encoding: json}", "logs: {encoding: json, level: debug}");
    let forebay = Process::start(&text);
    busy(&forebay, &sink).await;
    let end = forebay.stop();
    assert!(end.logs.len() > 6, "{:?}", end.logs);
    for line in &end.logs {
        let field = |name: &str| line[name].as_str().unwrap_or_else(|| panic!("{name}: {line}"));
        assert!(matches!(field("level"), "debug" | "info" | "warn" | "error"), "{line}");
        assert!(!field("msg").is_empty(), "{line}");
        let ts = field("ts");
        assert!(ts.len() == 24 && ts.ends_with('Z') && ts.as_bytes()[10] == b'T', "{ts}");
    }
    assert!(end.logs.iter().any(|line| line["level"] == "debug"), "the level is taken");
}

/// A process whose every word is kept, in whatever form.
struct Heard {
    ready: String,
    stderr: String,
    stdout: String,
}

/// Runs `text` until `act`, given the addresses of metrics and HTTP, has returned.
fn hear(text: &str, secret: &str, act: impl FnOnce(SocketAddr, SocketAddr)) -> Heard {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("forebay.yaml");
    std::fs::write(&path, text).expect("it can be written");
    let mut child = Command::new(program())
        .arg("--config")
        .arg(&path)
        .env("CANARY", secret)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("forebay starts");
    let mut reader = BufReader::new(child.stderr.take().expect("stderr is piped"));
    let mut stderr = String::new();
    let ready = loop {
        let start = stderr.len();
        assert!(reader.read_line(&mut stderr).expect("text") > 0, "it ended: {stderr}");
        if stderr[start..].contains("Everything is ready") {
            break stderr[start..].to_owned();
        }
    };
    let rest = std::thread::spawn(move || {
        let mut rest = String::new();
        reader.read_to_string(&mut rest).expect("text");
        rest
    });
    let http = stderr.lines().find(|line| line.contains("Starting HTTP server")).expect("a line");
    act(address(&ready, "\"metrics\":\""), address(http, "\"endpoint\":\""));
    let pid = rustix::process::Pid::from_raw(child.id() as i32).expect("a process id");
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it takes signals");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{output:?}");
    stderr += &rest.join().expect("no panic");
    Heard { ready, stderr, stdout: String::from_utf8(output.stdout).expect("text") }
}

fn address(line: &str, before: &str) -> SocketAddr {
    let (_, rest) = line.split_once(before).expect("an address");
    rest.split('"').next().and_then(|text| text.parse().ok()).expect("an address")
}

#[test]
fn the_console_log_is_the_collectors_tab_separated_form() {
    let text = config("[nop]", "exporters: {nop: {}}\n").replace("{encoding: json}", "{}");
    let heard = hear(&text, "", |_, _| {});
    for line in heard.stderr.lines() {
        let columns: Vec<&str> = line.split('\t').collect();
        assert!((3..=4).contains(&columns.len()), "{line}");
        assert!(columns[0].ends_with('Z') && columns[0].len() == 24, "{line}");
        assert!(matches!(columns[1], "info" | "warn"), "{line}");
        assert!(!columns[2].is_empty(), "{line}");
        if let Some(fields) = columns.get(3) {
            let fields: Value = serde_json::from_str(fields).expect("the fields are JSON");
            assert!(fields.is_object(), "{line}");
        }
    }
    assert!(heard.ready.contains("receiver_cores") && heard.ready.contains("exporter_cores"));
    assert!(!heard.stderr.contains('\x1b'), "no colours where no terminal is");
    let last = heard.stdout.lines().last().expect("the ledger");
    let ledger: Value = serde_json::from_str(last).expect("JSON");
    assert_eq!(ledger["ledger"]["balanced"], true);
}

#[test]
fn a_secret_of_the_configuration_appears_in_no_output() {
    let secret = "canary-7f3a9c41";
    let sink = Sink::scripted(|request| match request {
        0..3 => Reply::Fail(Code::Unauthenticated, None),
        _ => Reply::Ok,
    });
    let headers = format!(
        "{{headers: {{authorization: \"Bearer ${{env:CANARY}}\", x-api-key: {secret}, \
         x-tenant: \"{secret}\"}}, "
    );
    let grpc = sink.grpc_exporter().replacen('{', &headers, 1);
    let down = forebay_tests::sink::http_exporter(closed_port()).replacen('{', &headers, 1);
    let good = format!(
        "{RECEIVERS}{SERVICE}  pipelines:
    traces: {{receivers: [otlp], exporters: [otlp_grpc, otlp_http]}}
exporters:
  otlp_grpc: {grpc}
  otlp_http: {down}
engine: {{drain_timeout: 300ms}}
"
    )
    .replace("logs: {encoding: json}", "logs: {encoding: json, level: debug}");
    let mut pages = String::new();
    let heard = hear(&good, secret, |metrics, http| {
        let mut connection = Http1::connect(http);
        for request in 0..10 {
            let body = items::proto(Signal::Traces, request * 10, 10);
            assert_eq!(connection.post("/v1/traces", &PROTO, &body).status, 200);
        }
        sink.wait_until("all requests", |sink| sink.requests() >= 10);
        pages = get(metrics, "/metrics").1 + &get(metrics, "/ledger").1;
    });
    assert!(heard.stderr.contains("Will retry"), "the log had something to say: {}", heard.stderr);
    assert!(pages.contains("otelcol_exporter_sent_spans"), "{pages}");
    for (what, said) in [("stderr", &heard.stderr), ("stdout", &heard.stdout), ("pages", &pages)] {
        assert!(!said.contains(secret), "the secret is in {what}: {said}");
    }

    let folder = tempfile::tempdir().expect("a folder");
    let bad = good.replace("drain_timeout", "drain_tiemout").replace("x-tenant", "\"x tenant\"");
    for (name, text) in [("good.yaml", &good), ("bad.yaml", &bad)] {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("it can be written");
        for verb in ["validate", "print-config", "run"] {
            if (name, verb) == ("good.yaml", "run") {
                continue;
            }
            let mut command = Command::new(program());
            command.arg(verb).arg("--config").arg(&path).env("CANARY", secret);
            let output = command.output().expect("forebay runs");
            assert_eq!(output.status.success(), name == "good.yaml", "{verb} {output:?}");
            let said = [output.stdout, output.stderr].concat();
            let said = String::from_utf8(said).expect("text");
            assert!(!said.is_empty() && !said.contains(secret), "{verb} of {name} says: {said}");
        }
    }
}
