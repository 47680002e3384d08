//! The ledger as others read it: a person at a terminal, and a program that parses JSON.

use super::{DoorTotal, PassReason, RefuseReason, RequestEnd, RouteTotal, Totals, loss_names};

impl Totals {
    /// For a person at a terminal: the sums, and the routes that anything took.
    pub fn to_text(&self) -> String {
        let sum = |of: fn(&DoorTotal) -> u64| self.doors.iter().map(of).sum::<u64>();
        let verdict = if self.is_balanced() { "balanced" } else { "NOT BALANCED" };
        let mut text = format!(
            "ledger: {verdict}\n  received {} = refused {} + accepted {}\n",
            sum(|door| door.received_items),
            sum(|door| door.refused_items.iter().sum()),
            sum(|door| door.accepted_items),
        );
        let took = |route: &&RouteTotal| route.accepted_items + route.taken_over_items > 0;
        for route in self.routes.iter().filter(took) {
            text +=
                &format!("  {} -> {}: {}\n", route.pipeline, route.destination, equation(route));
        }
        for routing in self.routings.iter().filter(|routing| routing.unrouted_items > 0) {
            text += &format!(
                "  {} -> {}: unrouted {}\n",
                routing.pipeline, routing.connector, routing.unrouted_items
            );
        }
        text
    }

    /// One line of JSON: the process's last word, and `GET /ledger`.
    pub fn to_json(&self) -> String {
        let doors: Vec<_> = self
            .doors
            .iter()
            .filter(|door| door.received_items > 0 || door.requests.iter().any(|n| *n > 0))
            .map(|door| {
                serde_json::json!({
                    "receiver": door.receiver,
                    "transport": door.transport.name(),
                    "signal": door.signal.name(),
                    "received_items": door.received_items,
                    "accepted_items": door.accepted_items,
                    "refused_items":
                        named(&door.refused_items, RefuseReason::ALL.map(RefuseReason::name)),
                    "requests": named(&door.requests, RequestEnd::ALL.map(RequestEnd::name)),
                    "refused_requests":
                        named(&door.refused_requests, RefuseReason::ALL.map(RefuseReason::name)),
                })
            })
            .collect();
        let routes: Vec<_> = self
            .routes
            .iter()
            .map(|route| {
                serde_json::json!({
                    "pipeline": route.pipeline,
                    "exporter": route.destination,
                    "accepted_items": route.accepted_items,
                    "filtered_items": route.filtered_items,
                    "delivered_items": route.delivered_items,
                    "dropped_items": named(&route.dropped_items, loss_names()),
                    "taken_over_items": route.taken_over_items,
                    "passed_on_items":
                        named(&route.passed_on_items, PassReason::ALL.map(PassReason::name)),
                    "in_flight_items": route.in_flight_items,
                })
            })
            .collect();
        let processors: Vec<_> = self
            .processors
            .iter()
            .map(|processor| {
                serde_json::json!({
                    "pipeline": processor.pipeline,
                    "processor": processor.processor,
                    "incoming_items": processor.incoming_items,
                    "filtered_items": processor.filtered_items,
                })
            })
            .collect();
        let routings: Vec<_> = self
            .routings
            .iter()
            .map(|routing| {
                serde_json::json!({
                    "pipeline": routing.pipeline,
                    "connector": routing.connector,
                    "routed_items": routing.routed_items.iter().sum::<u64>(),
                    "unrouted_items": routing.unrouted_items,
                })
            })
            .collect();
        let sum = |of: fn(&DoorTotal) -> u64| self.doors.iter().map(of).sum::<u64>();
        serde_json::json!({"ledger": {
            "balanced": self.is_balanced(),
            "received_items": sum(|door| door.received_items),
            "refused_items": sum(|door| door.refused_items.iter().sum()),
            "accepted_items": sum(|door| door.accepted_items),
            "filtered_items": self.filtered_items(),
            "delivered_items": self.routes.iter().map(|r| r.delivered_items).sum::<u64>(),
            "dropped_items": self.dropped_items(),
            "unrouted_items": self.unrouted_items(),
            "in_flight_items": self.in_flight_items(),
            "unrouted_requests": named(&self.unrouted, RequestEnd::ALL.map(RequestEnd::name)),
            "receivers": doors,
            "processors": processors,
            "routes": routes,
            "routings": routings,
        }})
        .to_string()
    }
}

/// The equation of one pipeline and destination; what only some have is left out where it is zero.
fn equation(route: &RouteTotal) -> String {
    let unless_zero = |name: &str, items: u64| match items {
        0 => String::new(),
        items => format!(" + {name} {items}"),
    };
    format!(
        "accepted {}{} = filtered {} + delivered {} + dropped {}{} + in flight {}",
        route.accepted_items,
        unless_zero("taken over", route.taken_over_items),
        route.filtered_items,
        route.delivered_items,
        route.dropped_items.iter().sum::<u64>(),
        unless_zero("passed on", route.passed_on_items.iter().sum()),
        route.in_flight_items,
    )
}

/// The counts that are not zero, by name.
fn named<const N: usize>(counts: &[u64; N], names: [&str; N]) -> serde_json::Value {
    names
        .iter()
        .zip(counts)
        .filter(|(_, count)| **count > 0)
        .map(|(name, count)| ((*name).to_owned(), serde_json::Value::from(*count)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}
