//! What moves between destinations and pipelines, and why requests were sent away.

use super::Page;
use crate::ledger::{PassReason, RefuseReason, Totals};

pub(super) fn render(page: &mut Page, totals: &Totals) {
    let name = "forebay_ledger_taken_over_items";
    page.family(name, "counter", "Items that a route took over from another of its pipeline.");
    for route in &totals.routes {
        let labels = [("pipeline", &*route.pipeline), ("exporter", &*route.destination)];
        page.sample(name, &labels, route.taken_over_items);
    }
    let name = "forebay_ledger_passed_on_items";
    page.family(name, "counter", "Items that went on to another route of the pipeline, by reason.");
    for route in &totals.routes {
        for (reason, count) in PassReason::ALL.iter().zip(route.passed_on_items) {
            let labels = [
                ("pipeline", &*route.pipeline),
                ("exporter", &*route.destination),
                ("reason", reason.name()),
            ];
            page.sample(name, &labels, count);
        }
    }
    let name = "forebay_ledger_routed_items";
    page.family(name, "counter", "Items that a routing sent to other pipelines.");
    for routing in &totals.routings {
        let labels = [("pipeline", &*routing.pipeline), ("connector", &*routing.connector)];
        page.sample(name, &labels, routing.routed_items.iter().sum::<u64>());
    }
    let name = "forebay_ledger_unrouted_items";
    page.family(name, "counter", "Items that were in no row of a routing, and are dropped.");
    for routing in &totals.routings {
        let labels = [("pipeline", &*routing.pipeline), ("connector", &*routing.connector)];
        page.sample(name, &labels, routing.unrouted_items);
    }
    let name = "forebay_refused_requests";
    page.family(name, "counter", "Requests sent away for now, by reason.");
    for door in totals.doors.iter().filter(|door| door.refused_requests.iter().any(|n| *n > 0)) {
        for (reason, count) in RefuseReason::ALL.iter().zip(door.refused_requests) {
            let labels = [
                ("receiver", door.receiver.as_str()),
                ("transport", door.transport.name()),
                ("signal", door.signal.name()),
                ("reason", reason.name()),
            ];
            page.sample(name, &labels, count);
        }
    }
}
