//! The destinations' queues and attempts on the metrics page, all exporter cores together.

use forebay_codec::signal::Signal;
use forebay_exporters::batch::Why;
use forebay_exporters::dispatch::Waiting;
use forebay_exporters::stats::Snapshot;
use forebay_exporters::verdict::FailureKind;

use super::Page;
use crate::control::View;

pub(super) fn render(page: &mut Page, view: &View) {
    let snapshots: Vec<(&str, Vec<Snapshot>)> = view
        .plan
        .destinations
        .iter()
        .zip(&view.lanes)
        .map(|(destination, lanes)| {
            let snapshots = lanes.iter().map(|lane| lane.stats().snapshot()).collect();
            (destination.name.as_str(), snapshots)
        })
        .collect();
    let mut each = |name: &str, kind: &str, help: &str, of: &dyn Fn(&Snapshot) -> u64| {
        page.family(name, kind, help);
        for (exporter, lanes) in &snapshots {
            page.sample(name, &[("exporter", exporter)], lanes.iter().map(of).sum::<u64>());
        }
    };
    for signal in Signal::ALL {
        let items = signal.items_name();
        let index = signal.index();
        each(
            &format!("otelcol_exporter_sent_{items}"),
            "counter",
            "Items that were delivered.",
            &|s| s.delivered_items_by_signal[index],
        );
        let failed = format!("otelcol_exporter_send_failed_{items}");
        each(&failed, "counter", "Items that were dropped after they were accepted.", &|s| {
            s.dropped_items_by_signal.iter().map(|by_signal| by_signal[index]).sum()
        });
        let refused = format!("otelcol_exporter_enqueue_failed_{items}");
        each(&refused, "counter", "Items dropped for a full queue: there is no way.", &|_| 0);
    }
    let gauge = "gauge";
    each("otelcol_exporter_queue_size", gauge, "Batches that the exporter holds.", &|s| {
        s.queue_batches
    });
    each("otelcol_exporter_queue_capacity", gauge, "Batches that the exporter may hold.", &|s| {
        s.queue_capacity
    });
    each("otelcol_exporter_in_flight_requests", gauge, "Requests that wait for an answer.", &|s| {
        s.in_flight_requests
    });
    let bytes = "Request bytes that the exporter holds, copies included.";
    each("forebay_exporter_queue_bytes", gauge, bytes, &|s| s.queue_bytes);
    each("forebay_exporter_retries_waiting", gauge, "Batches that wait for a retry.", &|s| {
        s.retries_waiting
    });
    each("forebay_exporter_attempts", "counter", "Requests that were sent.", &|s| s.attempts);
    each("forebay_exporter_sent_bytes", "counter", "Message bytes after compression.", &|s| {
        s.sent_bytes
    });
    each("forebay_exporter_attempts_again", "counter", "Of these, those beyond a first.", &|s| {
        s.attempts_again
    });
    each(
        "forebay_exporter_parts_again",
        "counter",
        "Parts of batches sent more than once.",
        &|s| s.parts_again,
    );
    each(
        "forebay_exporter_repeated_requests",
        "counter",
        "Sent again at once: nobody had read them.",
        &|s| s.repeated_requests,
    );
    each("forebay_exporter_connections_made", "counter", "Connections made.", &|s| {
        s.connections_made
    });
    each("forebay_exporter_connections_open", gauge, "Connections that are open.", &|s| {
        s.connections_open
    });
    let mut by_label = |name, help, label, names: &[&str], of: fn(&Snapshot) -> &[u64]| {
        page.family(name, "counter", help);
        for (exporter, lanes) in &snapshots {
            for (index, value) in names.iter().enumerate() {
                let count: u64 = lanes.iter().map(|lane| of(lane)[index]).sum();
                page.sample(name, &[("exporter", exporter), (label, value)], count);
            }
        }
    };
    by_label(
        "forebay_exporter_failed_attempts",
        "Attempts that failed, by what failed.",
        "kind",
        &FailureKind::ALL.map(FailureKind::name),
        |lane| &lane.failed_attempts,
    );
    by_label(
        "forebay_exporter_waits",
        "Times that a part of a batch had to wait, by what for.",
        "reason",
        &Waiting::ALL.map(Waiting::name),
        |lane| &lane.waits,
    );
    by_label(
        "forebay_exporter_given_back_items",
        "Items that went on to another destination, by reason.",
        "reason",
        &Why::NAMES,
        |lane| &lane.given_back_items,
    );
    let name = "forebay_exporter_queue_bytes_max";
    page.family(name, "gauge", "Request bytes that the exporter may hold; none: no own bound.");
    for (exporter, lanes) in &snapshots {
        if let Some(bytes_max) = lanes.iter().map(|lane| lane.queue_bytes_max).sum::<Option<u64>>()
        {
            page.sample(name, &[("exporter", exporter)], bytes_max);
        }
    }
    tls(page, view);
}

/// Of the exporters with TLS.
fn tls(page: &mut Page, view: &View) {
    let name = "forebay_exporter_tls_unverified";
    page.family(name, "gauge", "1: it takes any certificate (tls.insecure_skip_verify).");
    for outlet in view.tls.outlets() {
        let labels = [("exporter", outlet.site.exporter())];
        page.sample(name, &labels, u64::from(!outlet.site.is_verified()));
    }
    let name = "forebay_exporter_tls_certificate_not_after_seconds";
    page.family(name, "gauge", "When its own certificate expires: seconds since 1970.");
    for outlet in view.tls.outlets() {
        for shown in outlet.shown() {
            let exporter = outlet.site.exporter();
            let labels = [("exporter", exporter), ("certificate", shown.name.as_str())];
            page.sample(name, &labels, shown.not_after);
        }
    }
    let name = "forebay_exporter_tls_reloads";
    page.family(name, "counter", "Times that its TLS files had changed, by what became of it.");
    for outlet in view.tls.outlets() {
        let (ok, failed) = outlet.reloads();
        for (result, count) in [("ok", ok), ("failed", failed)] {
            let labels = [("exporter", outlet.site.exporter()), ("result", result)];
            page.sample(name, &labels, count);
        }
    }
}
