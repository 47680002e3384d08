//! What a newcomer sees, as text.

use std::sync::{Arc, Mutex};

use forebay_codec::json::json_to_proto;

use super::*;

#[derive(Clone, Default)]
struct Screen(Arc<Mutex<Vec<u8>>>);

impl Write for Screen {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Screen {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

fn settings(verbosity: Verbosity) -> Settings {
    Settings { verbosity, sampling_initial: 2, sampling_thereafter: 1 }
}

fn shown(verbosity: Verbosity, signal: Signal, items: u64, json: &str) -> String {
    let screen = Screen::default();
    let chain = [json_to_proto(signal, json.as_bytes(), usize::MAX).unwrap().into()];
    Printer::new(settings(verbosity), Box::new(screen.clone()))
        .show(signal, items, &chain, Instant::now())
        .unwrap();
    screen.text()
}

const TRACE: &str = r#"{"resourceSpans":[{
  "resource":{"attributes":[
    {"key":"service.name","value":{"stringValue":"checkout"}},
    {"key":"host.name","value":{"stringValue":"web-1"}}]},
  "scopeSpans":[{"scope":{"name":"my.library","version":"1.0.0"},"spans":[{
    "traceId":"5B8EFFF798038103D269B633813FC60C","spanId":"EEE19B7EC3C1B174",
    "parentSpanId":"EEE19B7EC3C1B173","name":"GET /cart","kind":2,
    "startTimeUnixNano":"1544712660000000000","endTimeUnixNano":"1544712660012345678",
    "status":{"code":2,"message":"card declined"},
    "attributes":[{"key":"http.response.status_code","value":{"intValue":"402"}}],
    "events":[{"timeUnixNano":"1544712660001000000","name":"retry"}]}]}]}]}"#;

#[test]
fn a_span_is_one_line_under_its_service_and_scope() {
    let expected = "\
traces  checkout  1 span  {host.name=web-1}
  my.library  1.0.0
    14:51:00.000000  GET /cart  server  12.3 ms  error: card declined  \
{http.response.status_code=402}  trace=5b8efff798038103d269b633813fc60c \
span=eee19b7ec3c1b174 parent=eee19b7ec3c1b173
      event  +1.00 ms  retry
";
    assert_eq!(shown(Verbosity::Normal, Signal::Traces, 1, TRACE), expected);
}

#[test]
fn a_log_record_is_one_line_that_no_body_can_break() {
    let json = r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{
      "timeUnixNano":"1544712660300000000","severityNumber":10,
      "body":{"stringValue":"two\nlines \u001b[31m"},
      "attributes":[{"key":"tags","value":{"arrayValue":{"values":[
        {"stringValue":"a"},{"boolValue":true}]}}}]}]}]}]}"#;
    let expected = "\
logs  (no service.name)  1 log record
    14:51:00.300000  INFO  two⏎lines \u{fffd}[31m  {tags=[a, true]}
";
    assert_eq!(shown(Verbosity::Normal, Signal::Logs, 1, json), expected);
}

#[test]
fn a_metric_shows_its_values_with_unit_and_attributes() {
    let json = r#"{"resourceMetrics":[{"resource":{"attributes":[
      {"key":"service.name","value":{"stringValue":"shop"}}]},"scopeMetrics":[{"metrics":[
      {"name":"requests","unit":"1","sum":{"aggregationTemporality":2,"isMonotonic":true,
        "dataPoints":[{"asInt":"42","attributes":[
          {"key":"route","value":{"stringValue":"/"}}]}]}},
      {"name":"temperature","gauge":{"dataPoints":[{"asDouble":21.5},{"asDouble":22}]}},
      {"name":"latency","unit":"ms","histogram":{"aggregationTemporality":1,"dataPoints":[
        {"count":"3","sum":12.5,"min":1,"max":9,"bucketCounts":["1","2"],
         "explicitBounds":[5]}]}}]}]}]}"#;
    let text = shown(Verbosity::Normal, Signal::Metrics, 4, json);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "metrics  shop  4 data points");
    assert_eq!(lines[1], "    requests  sum (cumulative, monotonic)  = 42 1  {route=/}");
    assert_eq!(lines[2], "    temperature  gauge");
    assert!(lines[3].starts_with("      = 21.5"), "{text}");
    assert!(lines[5].starts_with("    latency  histogram (delta)  count=3 sum=12.5"), "{text}");
    assert!(lines[5].ends_with("(ms)"), "{text}");
}

#[test]
fn basic_is_one_line_a_batch_and_detailed_has_every_field() {
    let basic = shown(Verbosity::Basic, Signal::Traces, 1, TRACE);
    assert_eq!(basic, "traces: 1 span from 1 resource\n");
    let detailed = shown(Verbosity::Detailed, Signal::Traces, 1, TRACE);
    for field in ["\"parentSpanId\"", "1544712660012345678", "card declined", "web-1"] {
        assert!(detailed.contains(field), "{field} is missing in {detailed}");
    }
}

#[test]
fn bytes_that_are_no_request_are_named_and_not_shown() {
    let screen = Screen::default();
    let mut printer = Printer::new(settings(Verbosity::Normal), Box::new(screen.clone()));
    printer.show(Signal::Logs, 5, &[Bytes::from_static(b"\xff")], Instant::now()).unwrap();
    assert!(screen.text().starts_with("logs: 5 items that cannot be shown:"), "{}", screen.text());
}

#[test]
fn the_first_batches_of_a_second_are_shown_then_every_nth() {
    let screen = Screen::default();
    let sampled = Settings { sampling_thereafter: 10, ..settings(Verbosity::Basic) };
    let mut printer = Printer::new(sampled, Box::new(screen.clone()));
    let start = Instant::now();
    let chain = [json_to_proto(Signal::Traces, TRACE.as_bytes(), usize::MAX).unwrap().into()];
    for _ in 0..25 {
        printer.show(Signal::Traces, 1, &chain, start).unwrap();
    }
    // 1, 2, then 12 and 22; each of the latter two says how many it stands for.
    assert_eq!(screen.text().matches("traces: 1 span").count(), 4);
    assert_eq!(screen.text().matches("(9 batches not shown").count(), 2);
    printer.show(Signal::Traces, 1, &chain, start + SAMPLING_WINDOW).unwrap();
    assert!(screen.text().contains("(3 batches not shown"), "{}", screen.text());
}
