//! The door towards neighbours: what another core let in is let in here by the same rules.

use forebay_net::request::{Part, RequestId};
use forebay_net::ring::Key;
use http::HeaderValue;

use super::*;
use crate::config::{self, Source};

/// Traces are shed first, logs last; tenants come before both.
const PRIORITIES: &str = "
receivers: {otlp: {protocols: {grpc: {endpoint: '127.0.0.1:0'}}}}
exporters: {nop: {}}
service:
  pipelines:
    traces: {receivers: [otlp], exporters: [nop]}
    metrics: {receivers: [otlp], exporters: [nop]}
    logs: {receivers: [otlp], exporters: [nop]}
engine:
  priorities:
    pipelines: {traces: low, logs: high}
    tenant: {header: x-tenant, high: [gold], low: [lead]}
";

fn door() -> Ingest {
    let source = Source::Text { name: "test".to_owned(), text: PRIORITIES.to_owned() };
    let loaded = config::load(&[source], &[]).unwrap_or_else(|problems| panic!("{problems:?}"));
    let plan = Arc::new(loaded.plan);
    Ingest::new(plan.clone(), Arc::new(Ledger::new(&plan, 1)), 0)
}

/// A request as its own core's door has let it in and a neighbour gets it.
fn moved(door: &mut Ingest, signal: Signal, tenant: Option<&'static str>) -> Request {
    let path = match signal {
        Signal::Traces => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
        Signal::Metrics => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
        _ => "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
    };
    let mut headers = Fields::new();
    headers.push(http::header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    if let Some(tenant) = tenant {
        headers.push(HeaderName::from_static("x-tenant"), HeaderValue::from_static(tenant));
    }
    let mut head = Head {
        listener: 0,
        protocol: Protocol::Http2,
        method: http::Method::POST,
        path: path.into(),
        headers,
        content_length: None,
        peer: None,
    };
    let admitted = door.admit(&mut head).unwrap_or_else(|_| panic!("an empty door lets all in"));
    door.release(admitted.reserved);
    let id = RequestId { key: Key { index: 1, generation: 1 }, stream: 1 };
    let (tag, reserved) = (admitted.tag, admitted.reserved);
    Request { id, part: Part::Whole, head, tag, body: Bytes::new(), reserved }
}

#[test]
fn a_request_that_comes_from_a_neighbour_is_shed_by_its_priority_as_at_the_door() {
    // By percent of the budget that is taken: who is still let in.
    let rows = [
        (60, [true, true, true], [true, true]),
        (80, [false, true, true], [true, false]),
        (95, [false, false, true], [true, false]),
    ];
    for (percent, by_signal, by_tenant) in rows {
        let taken = |door: &mut Ingest, signal: Signal, tenant: Option<&'static str>| {
            let request = moved(door, signal, tenant);
            let filled = door.budget.bytes_max() / 100 * percent;
            assert!(door.reserve(filled), "the door was empty");
            let before = door.budget.taken_bytes();
            let has_room = door.has_room_for(&request);
            let reserved = if has_room { request.reserved } else { 0 };
            assert_eq!(door.budget.taken_bytes(), before + reserved, "{percent} %, {signal:?}");
            door.release(filled + reserved);
            has_room
        };
        let mut door = door();
        let signals = [Signal::Traces, Signal::Metrics, Signal::Logs];
        let let_in = signals.map(|signal| taken(&mut door, signal, None));
        assert_eq!(let_in, by_signal, "{percent} % taken: traces, metrics, logs");
        let let_in = ["gold", "lead"].map(|name| taken(&mut door, Signal::Metrics, Some(name)));
        assert_eq!(let_in, by_tenant, "{percent} % taken: gold, lead");
    }
}
