//! Prometheus metrics: the Collector's names where the Collector has one, `forebay_*` for ours.
//!
//! Source of the names: a Collector v0.159.0 with its default reader (no `_total`, no units).

use std::fmt::{Display, Write};
use std::sync::atomic::Ordering;

use forebay_codec::signal::Signal;
use forebay_net::request::{Protocol, Trouble};
use forebay_net::tls::Failure;
use forebay_net::tls::settings::ShownKind;

use super::{View, health, logs};
use crate::ledger::{
    LateBody, ProcessorTotal, RefuseReason, RequestEnd, RouteTotal, Totals, loss_names,
};
use crate::shard::ShardStats;
use crate::shard::datagrams::ROWS;

mod exporters;
mod fleets;
mod flow;
#[cfg(test)]
mod tests;

/// Name, kind and help of a family, and where its value stands in a row.
type Column<Row> = (&'static str, &'static str, &'static str, fn(&Row) -> u64);

/// The whole page, in the text format 0.0.4.
pub fn render(view: &View) -> String {
    let mut page = Page::default();
    let totals = view.ledger.totals(&view.plan);
    doors(&mut page, &totals);
    processors(&mut page, &totals);
    exporters::render(&mut page, view);
    fleets::render(&mut page, view);
    ledger(&mut page, &totals);
    flow::render(&mut page, &totals);
    cores(&mut page, view);
    preflights(&mut page, view);
    services(&mut page, view);
    tls(&mut page, view);
    quic(&mut page, view);
    load(&mut page, view);
    process(&mut page, view);
    page.text
}

fn doors(page: &mut Page, totals: &Totals) {
    for signal in Signal::ALL {
        let items = signal.items_name();
        let rows = || totals.doors.iter().filter(move |door| door.signal == signal);
        let accepted = format!("otelcol_receiver_accepted_{items}");
        page.family(&accepted, "counter", "Items that were taken into a pipeline.");
        for door in rows() {
            let labels =
                [("receiver", door.receiver.as_str()), ("transport", door.transport.name())];
            page.sample(&accepted, &labels, door.accepted_items);
        }
        let refused = format!("otelcol_receiver_refused_{items}");
        page.family(&refused, "counter", "Items that were refused; their clients were told so.");
        for door in rows() {
            let labels =
                [("receiver", door.receiver.as_str()), ("transport", door.transport.name())];
            page.sample(&refused, &labels, door.refused_items.iter().sum::<u64>());
        }
        let failed = format!("otelcol_receiver_failed_{items}");
        page.family(
            &failed,
            "counter",
            "Items lost to an error of forebay's own: there is no way.",
        );
        for door in rows() {
            let labels =
                [("receiver", door.receiver.as_str()), ("transport", door.transport.name())];
            page.sample(&failed, &labels, 0);
        }
    }
    requests(page, totals);
}

fn requests(page: &mut Page, totals: &Totals) {
    let name = "otelcol_receiver_requests";
    page.family(name, "counter", "Requests for a known signal, in the Collector's three outcomes.");
    for (receiver, transport, ends) in requests_by_transport(totals) {
        for outcome in ["success", "refused", "failure"] {
            let is_it = |(end, _): &(&RequestEnd, u64)| collector_outcome(**end) == outcome;
            let count: u64 =
                RequestEnd::ALL.iter().zip(ends).filter(is_it).map(|(_, count)| count).sum();
            let labels = [("receiver", receiver), ("transport", transport), ("outcome", outcome)];
            page.sample(name, &labels, count);
        }
    }
    let name = "forebay_receiver_requests";
    page.family(name, "counter", "Requests by how they ended.");
    for door in totals.doors.iter().filter(|door| door.requests.iter().any(|n| *n > 0)) {
        for (end, count) in RequestEnd::ALL.iter().zip(door.requests) {
            let labels = [
                ("receiver", door.receiver.as_str()),
                ("transport", door.transport.name()),
                ("signal", door.signal.name()),
                ("outcome", end.name()),
            ];
            page.sample(name, &labels, count);
        }
    }
    let name = "forebay_unrouted_requests";
    page.family(name, "counter", "Requests that ended before their signal was known.");
    for (end, count) in RequestEnd::ALL.iter().zip(totals.unrouted) {
        page.sample(name, &[("outcome", end.name())], count);
    }
    let families = [
        (
            "forebay_http2_troubles",
            "What HTTP/2 clients did that cost them a stream or connection.",
            totals.http2_troubles,
        ),
        (
            "forebay_http3_troubles",
            "What HTTP/3 clients did that cost them a stream or connection.",
            totals.http3_troubles,
        ),
    ];
    for (name, help, counts) in families {
        page.family(name, "counter", help);
        for (trouble, count) in Trouble::ALL.iter().zip(counts) {
            page.sample(name, &[("kind", trouble.name())], count);
        }
    }
    let name = "forebay_receiver_late_bodies";
    page.family(
        name,
        "counter",
        "Requests refused because their bodies stalled or came too slowly.",
    );
    for (protocol, counts) in Protocol::ALL.iter().zip(totals.late_bodies) {
        for (late, count) in LateBody::ALL.iter().zip(counts) {
            let labels = [("protocol", protocol.name()), ("kind", late.name())];
            page.sample(name, &labels, count);
        }
    }
}

type Ends = [u64; RequestEnd::ALL.len()];

/// The doors of all signals taken together, each receiver and transport once.
fn requests_by_transport(totals: &Totals) -> Vec<(&str, &'static str, Ends)> {
    let mut sums: Vec<(&str, &'static str, Ends)> = Vec::new();
    for door in &totals.doors {
        let (receiver, transport) = (door.receiver.as_str(), door.transport.name());
        let place = sums.iter().position(|(r, t, _)| (*r, *t) == (receiver, transport));
        let place = place.unwrap_or_else(|| {
            sums.push((receiver, transport, [0; RequestEnd::ALL.len()]));
            sums.len() - 1
        });
        for (sum, count) in sums[place].2.iter_mut().zip(door.requests) {
            *sum += count;
        }
    }
    sums
}

/// The Collector knows three ends: taken, sent away for now, and everything else.
fn collector_outcome(end: RequestEnd) -> &'static str {
    match end {
        RequestEnd::Ok => "success",
        RequestEnd::Overloaded => "refused",
        _ => "failure",
    }
}

/// A processor in several pipelines of a signal is one row, as in the Collector.
fn processors(page: &mut Page, totals: &Totals) {
    let mut rows: Vec<ProcessorTotal> = Vec::new();
    for total in &totals.processors {
        let is_same = |row: &&mut ProcessorTotal| {
            row.processor == total.processor && row.signal == total.signal
        };
        match rows.iter_mut().find(is_same) {
            Some(row) => {
                row.incoming_items += total.incoming_items;
                row.filtered_items += total.filtered_items;
            }
            None => rows.push(total.clone()),
        }
    }
    let columns: [Column<ProcessorTotal>; 2] = [
        ("otelcol_processor_incoming_items", "counter", "Items that came to a processor.", |row| {
            row.incoming_items
        }),
        (
            "otelcol_processor_outgoing_items",
            "counter",
            "Items that a processor let pass.",
            |row| row.incoming_items - row.filtered_items,
        ),
    ];
    for (name, kind, help, of) in columns {
        page.family(name, kind, help);
        for row in &rows {
            let labels = [("processor", &*row.processor), ("otel_signal", row.signal.name())];
            page.sample(name, &labels, of(row));
        }
    }
    for (signal, items) in
        [(Signal::Traces, "spans"), (Signal::Metrics, "datapoints"), (Signal::Logs, "logs")]
    {
        let name = format!("otelcol_processor_filter_{items}_filtered");
        page.family(&name, "counter", "Items that a filter dropped.");
        for row in rows.iter().filter(|row| row.kind == "filter" && row.signal == signal) {
            page.sample(&name, &[("processor", &row.processor)], row.filtered_items);
        }
    }
}

fn ledger(page: &mut Page, totals: &Totals) {
    let received = "forebay_ledger_received_items";
    page.family(received, "counter", "Items of well-formed requests: refused plus accepted.");
    for door in &totals.doors {
        let labels = [
            ("receiver", door.receiver.as_str()),
            ("transport", door.transport.name()),
            ("signal", door.signal.name()),
        ];
        page.sample(received, &labels, door.received_items);
    }
    let refused = "forebay_ledger_refused_items";
    page.family(refused, "counter", "Items that were refused, by reason.");
    for door in totals.doors.iter().filter(|door| door.received_items > 0) {
        for (reason, count) in RefuseReason::ALL.iter().zip(door.refused_items) {
            let labels = [
                ("receiver", door.receiver.as_str()),
                ("transport", door.transport.name()),
                ("signal", door.signal.name()),
                ("reason", reason.name()),
            ];
            page.sample(refused, &labels, count);
        }
    }
    let replaced = "forebay_replaced_texts";
    page.family(
        replaced,
        "counter",
        "Texts that were not UTF-8 and had their bad bytes replaced (engine.invalid_utf8).",
    );
    for door in totals.doors.iter().filter(|door| door.received_items > 0) {
        let labels = [
            ("receiver", door.receiver.as_str()),
            ("transport", door.transport.name()),
            ("signal", door.signal.name()),
        ];
        page.sample(replaced, &labels, door.replaced_texts);
    }
    let filtered = "forebay_ledger_filtered_items";
    page.family(filtered, "counter", "Accepted items that a processor dropped on purpose.");
    for row in &totals.processors {
        let labels = [("pipeline", &*row.pipeline), ("processor", &*row.processor)];
        page.sample(filtered, &labels, row.filtered_items);
    }
    let columns: [Column<RouteTotal>; 3] = [
        ("forebay_ledger_accepted_items", "counter", "Items that a route took.", |r| {
            r.accepted_items
        }),
        ("forebay_ledger_delivered_items", "counter", "Items that arrived.", |r| r.delivered_items),
        ("forebay_ledger_in_flight_items", "gauge", "Items under way.", |r| r.in_flight_items),
    ];
    for (name, kind, help, of) in columns {
        page.family(name, kind, help);
        for route in &totals.routes {
            let labels = [("pipeline", &*route.pipeline), ("exporter", &*route.destination)];
            page.sample(name, &labels, of(route));
        }
    }
    let dropped = "forebay_ledger_dropped_items";
    page.family(dropped, "counter", "Accepted items that will never arrive, by reason.");
    for route in &totals.routes {
        for (reason, count) in loss_names().iter().zip(route.dropped_items) {
            let labels = [
                ("pipeline", &*route.pipeline),
                ("exporter", &*route.destination),
                ("reason", reason),
            ];
            page.sample(dropped, &labels, count);
        }
    }
}

fn cores(page: &mut Page, view: &View) {
    let columns: [Column<ShardStats>; 23] = [
        ("turns", "counter", "Passes of the receiver's loop.", |s| s.turns.read()),
        ("connections", "gauge", "Open connections.", |s| s.connections.read()),
        ("connections_accepted", "counter", "Connections since the start.", |s| {
            s.connections_accepted.read()
        }),
        ("connections_over_limit", "counter", "Connections closed at once.", |s| {
            s.connections_over_limit.read()
        }),
        ("accept_errors", "counter", "Accepts that failed.", |s| s.accept_errors.read()),
        ("connection_timeouts", "counter", "Deadlines that connections missed.", |s| {
            s.timeouts.read()
        }),
        ("received_bytes", "counter", "Bytes from clients.", |s| s.received_bytes.read()),
        ("answered_bytes", "counter", "Bytes to clients.", |s| s.sent_bytes.read()),
        ("ring_enters", "counter", "io_uring_enter calls.", |s| s.ring_enters.read()),
        ("ring_completions", "counter", "Completions taken.", |s| s.ring_completions.read()),
        ("ring_overflows", "counter", "Completions that overflowed.", |s| s.ring_overflows.read()),
        (
            "ring_no_buffers",
            "counter",
            "Receives that found no buffer and began again. Each puts twice as many buffers in turn, \
             so a few after a burst are usual.",
            |s| s.ring_no_buffers.read(),
        ),
        ("memory_taken_bytes", "gauge", "Request bytes held.", |s| s.budget_taken_bytes.read()),
        ("memory_budget_bytes", "gauge", "Request bytes that may be held.", |s| {
            s.budget_bytes.read()
        }),
        ("batches_pending", "gauge", "Batches under way.", |s| s.batches_pending.read()),
        ("batches_sealed", "counter", "Batches since the start.", |s| s.batches_sealed.read()),
        ("requests_waiting", "gauge", "Requests that wait for delivery.", |s| s.tickets.read()),
        ("connections_aged", "counter", "Connections told to leave for their age.", |s| {
            s.connections_aged.read()
        }),
        ("connections_given", "counter", "Fresh connections given to other cores.", |s| {
            s.connections_given.read()
        }),
        ("connections_taken", "counter", "Fresh connections from other cores.", |s| {
            s.connections_taken.read()
        }),
        ("requests_given", "counter", "Requests given to other cores.", |s| {
            s.requests_given.read()
        }),
        ("requests_taken", "counter", "Requests done for other cores.", |s| {
            s.requests_taken.read()
        }),
        ("requests_returned", "counter", "Requests that other cores gave back.", |s| {
            s.requests_returned.read()
        }),
    ];
    for (name, kind, help, of) in columns {
        let name = format!("forebay_receiver_core_{name}");
        page.family(&name, kind, help);
        for (stats, core) in view.shards.iter().zip(&view.receiver_cores) {
            page.sample(&name, &[("core", &core.to_string())], of(stats));
        }
    }
}

fn preflights(page: &mut Page, view: &View) {
    let name = "forebay_receiver_cors_preflights";
    let help = "Browsers that asked what a page may send, by whether its origin is allowed.";
    page.family(name, "counter", help);
    let sum = |of: fn(&ShardStats) -> u64| view.shards.iter().map(|s| of(s)).sum::<u64>();
    page.sample(name, &[("result", "allowed")], sum(|s| s.preflights_allowed.read()));
    page.sample(name, &[("result", "refused")], sum(|s| s.preflights_refused.read()));
}

fn services(page: &mut Page, view: &View) {
    let columns: [Column<ShardStats>; 3] = [
        ("forebay_health_requests", "counter", "Calls of the gRPC health service.", |s| {
            s.health_requests.read()
        }),
        ("forebay_reflection_requests", "counter", "Questions to gRPC server reflection.", |s| {
            s.reflection_requests.read()
        }),
        ("forebay_open_calls", "gauge", "Open streams of health watches and reflection.", |s| {
            s.open_calls.read()
        }),
    ];
    for (name, kind, help, of) in columns {
        page.family(name, kind, help);
        page.sample(name, &[], view.shards.iter().map(|shard| of(shard)).sum::<u64>());
    }
}

fn tls(page: &mut Page, view: &View) {
    let sum = |of: fn(&ShardStats) -> u64| view.shards.iter().map(|s| of(s)).sum::<u64>();
    let failed = |index: usize| -> u64 {
        view.shards.iter().map(|s| s.handshakes_failed[index].read()).sum()
    };
    let name = "forebay_receiver_tls_handshakes";
    page.family(name, "counter", "TLS handshakes that have ended.");
    page.sample(name, &[("result", "ok")], sum(|s| s.handshakes_completed.read()));
    let all_failed: u64 = (0..Failure::ALL.len()).map(failed).sum();
    page.sample(name, &[("result", "failed")], all_failed);
    let name = "forebay_receiver_tls_handshake_failures";
    page.family(name, "counter", "TLS handshakes that came to nothing, by the reason.");
    for (index, failure) in Failure::ALL.iter().enumerate() {
        page.sample(name, &[("reason", failure.name())], failed(index));
    }
    let columns: [Column<ShardStats>; 4] = [
        ("forebay_receiver_tls_handshakes_resumed", "counter", "Those that resumed.", |s| {
            s.handshakes_resumed.read()
        }),
        (
            "forebay_receiver_tls_broken",
            "counter",
            "Connections ended because their clients broke TLS after the handshake.",
            |s| s.tls_broken.read(),
        ),
        ("forebay_receiver_tls_handshakes_pending", "gauge", "Handshakes under way.", |s| {
            s.handshakes_pending.read()
        }),
        (
            "forebay_receiver_tls_on_cleartext_port",
            "counter",
            "Connections that began TLS on a port without it, and were ended.",
            |s| s.tls_misdirected.read(),
        ),
    ];
    for (name, kind, help, of) in columns {
        page.family(name, kind, help);
        page.sample(name, &[], sum(of));
    }
    certificates(page, view);
}

fn certificates(page: &mut Page, view: &View) {
    let dated = [
        (
            ShownKind::Certificate,
            "forebay_receiver_tls_certificate_not_after_seconds",
            "When a certificate of ours expires: seconds since 1970.",
            "certificate",
        ),
        (
            ShownKind::RevocationList,
            "forebay_receiver_tls_revocation_list_next_update_seconds",
            "When a list of revoked certificates is out of date: seconds since 1970.",
            "issuer",
        ),
    ];
    for (kind, name, help, label) in dated {
        page.family(name, "gauge", help);
        for door in view.tls.all() {
            for shown in door.shown().iter().filter(|shown| shown.kind == kind) {
                let which = match kind {
                    ShownKind::Certificate => shown.name.as_str(),
                    ShownKind::RevocationList => shown.subject.as_str(),
                };
                let labels = [
                    ("receiver", door.site.receiver.as_str()),
                    ("protocols", door.site.protocols),
                    (label, which),
                ];
                page.sample(name, &labels, shown.not_after);
            }
        }
    }
    let name = "forebay_receiver_tls_reloads";
    page.family(name, "counter", "Times that files of TLS had changed, by what became of it.");
    for door in view.tls.all() {
        let (ok, failed) = door.reloads();
        for (result, count) in [("ok", ok), ("failed", failed)] {
            let labels = [
                ("receiver", door.site.receiver.as_str()),
                ("protocols", door.site.protocols),
                ("result", result),
            ];
            page.sample(name, &labels, count);
        }
    }
}

/// Shown where there is HTTP/3.
fn quic(page: &mut Page, view: &View) {
    if !view.plan.listeners.iter().any(|listener| listener.is_quic) {
        return;
    }
    for (index, row) in ROWS.iter().enumerate() {
        let name = format!("forebay_receiver_quic_{}", row.name);
        page.family(&name, row.kind, row.help);
        for (stats, core) in view.shards.iter().zip(&view.receiver_cores) {
            page.sample(&name, &[("core", &core.to_string())], stats.datagrams[index].read());
        }
    }
    let name = "forebay_receiver_quic_handshake_failures";
    page.family(name, "counter", "QUIC handshakes that came to nothing, by the reason.");
    for (index, failure) in Failure::ALL.iter().enumerate() {
        let count: u64 = view.shards.iter().map(|s| s.quic_failed[index].read()).sum();
        page.sample(name, &[("reason", failure.name())], count);
    }
}

/// What `spread` goes by.
fn load(page: &mut Page, view: &View) {
    let name = "forebay_receiver_core_load";
    page.family(
        name,
        "gauge",
        "Share of time in which the core's thread ran or was ready to, 0 to 1.",
    );
    for (stats, core) in view.shards.iter().zip(&view.receiver_cores) {
        page.sample(name, &[("core", &core.to_string())], stats.load.read() as f64 / 1000.0);
    }
}

fn process(page: &mut Page, view: &View) {
    let uptime = view.epoch.elapsed().as_secs_f64();
    page.family("otelcol_process_uptime", "counter", "Seconds since the start.");
    page.sample("otelcol_process_uptime", &[], uptime);
    if let Some(usage) = Usage::read() {
        page.family("otelcol_process_cpu_seconds", "counter", "CPU time, user and system.");
        page.sample("otelcol_process_cpu_seconds", &[], usage.cpu_seconds);
        page.family("otelcol_process_memory_rss", "gauge", "Resident bytes.");
        page.sample("otelcol_process_memory_rss", &[], usage.resident_bytes);
    }
    let dropped = "forebay_dropped_log_lines";
    page.family(dropped, "counter", "Log lines dropped because nobody read standard error.");
    page.sample(dropped, &[], logs::dropped_lines());
    page.family("forebay_healthy", "gauge", "1 while the health check answers 200.");
    page.sample("forebay_healthy", &[], u64::from(health::health(view).is_ok()));
    page.family("forebay_open_receiver_cores", "gauge", "Receiver cores that take requests.");
    let open = view.shards.iter().filter(|s| s.open.load(Ordering::Relaxed)).count();
    page.sample("forebay_open_receiver_cores", &[], open);
}

struct Usage {
    cpu_seconds: f64,
    resident_bytes: u64,
}

impl Usage {
    /// From `/proc/self/stat` (proc(5)): times in ticks, resident size in pages.
    fn read() -> Option<Usage> {
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        let fields: Vec<&str> = stat.rsplit(')').next()?.split_whitespace().collect();
        let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        Some(Usage {
            cpu_seconds: (number(11)? + number(12)?) as f64 / ticks,
            resident_bytes: number(21)? * rustix::param::page_size() as u64,
        })
    }
}

#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.text.push_str(name);
        for (index, (label, text)) in labels.iter().enumerate() {
            let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.text, "{}{label}=\"{text}\"", if index == 0 { '{' } else { ',' });
        }
        let _ = writeln!(self.text, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }
}
