//! The destinations' fleets on the metrics page: members, breakers, retry budgets, discovery.
//!
//! Always: a destination has at most [`ROWS_MAX`] endpoints of its own on the page, however many
//! there are; the rest are one row more.

use std::collections::BTreeMap;
use std::time::Instant;

use forebay_exporters::breaker::{State, Transition};
use forebay_exporters::cluster::Cluster;
use forebay_exporters::destination::{Destination, Kind};
use forebay_exporters::discovery::keeper;
use forebay_exporters::endpoints::Status;

use super::Page;
use crate::control::View;

const ROWS_MAX: usize = 100;
const OTHERS: &str = "others";

/// What is shown of one endpoint, or of all that have no row of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Row {
    /// 0 closed, 1 half-open, 2 open.
    state: u32,
    outstanding: u64,
    latency_seconds: f64,
    weight: u64,
    draining: u64,
}

struct Fleet<'v> {
    name: &'v str,
    cluster: &'v Cluster,
    discovery: Option<keeper::Status>,
    rows: BTreeMap<String, Row>,
}

type Column<Of> = (&'static str, &'static str, &'static str, fn(&Of) -> f64);

pub(super) fn render(page: &mut Page, view: &View) {
    let now = Instant::now();
    let destinations = view.plan.destinations.iter();
    let fleets: Vec<Fleet<'_>> = destinations
        .zip(&view.clusters)
        .zip(&view.discovered)
        .filter(|((destination, _), _)| is_remote(destination))
        .map(|((destination, cluster), discovered)| Fleet {
            name: &destination.name,
            cluster,
            discovery: discovered.status(now),
            rows: rows(cluster.status(now)),
        })
        .collect();
    endpoints(page, &fleets);
    whole(page, &fleets, now);
    transitions(page, &fleets);
    discoveries(page, &fleets);
}

fn is_remote(destination: &Destination) -> bool {
    matches!(destination.kind, Kind::OtlpGrpc(_) | Kind::OtlpHttp(_))
}

fn endpoints(page: &mut Page, fleets: &[Fleet<'_>]) {
    let columns: [Column<Row>; 5] = [
        (
            "state",
            "gauge",
            "The breaker of an endpoint: 0 closed, 1 half-open, 2 open. Of others: the highest.",
            |row| row.state.into(),
        ),
        ("outstanding_requests", "gauge", "Requests that an endpoint has not answered yet.", |r| {
            r.outstanding as f64
        }),
        (
            "latency_seconds",
            "gauge",
            "Peak-sensitive moving average of an endpoint's answers. Of others: the highest.",
            |row| row.latency_seconds,
        ),
        ("weight", "gauge", "An endpoint's share relative to the others.", |row| row.weight as f64),
        ("draining", "gauge", "1 while an endpoint has left and ends its requests.", |row| {
            row.draining as f64
        }),
    ];
    for (name, kind, help, of) in columns {
        let name = format!("forebay_endpoint_{name}");
        page.family(&name, kind, help);
        for fleet in fleets {
            for (address, row) in &fleet.rows {
                page.sample(&name, &[("exporter", fleet.name), ("address", address)], of(row));
            }
        }
    }
}

fn whole(page: &mut Page, fleets: &[Fleet<'_>], now: Instant) {
    type Of = fn(&Fleet<'_>, Instant) -> f64;
    let columns: [(&str, &str, &str, Of); 7] = [
        ("endpoints", "gauge", "Endpoints of a destination.", |fleet, _| {
            fleet.cluster.endpoints().fleet().members().into()
        }),
        (
            "broken_endpoints",
            "gauge",
            "Endpoints shut off by their breaker because nothing worked.",
            |fleet, _| fleet.cluster.endpoints().fleet().broken().into(),
        ),
        (
            "ejected_endpoints",
            "gauge",
            "Endpoints shut off by their breaker because too much failed or was slow.",
            |fleet, _| fleet.cluster.endpoints().fleet().ejected().into(),
        ),
        (
            "spared_ejections",
            "counter",
            "Ejections not made, because too many endpoints were shut off already.",
            |fleet, _| fleet.cluster.endpoints().fleet().spared() as f64,
        ),
        ("outstanding_requests", "gauge", "Requests under way to all endpoints.", |fleet, _| {
            fleet.cluster.endpoints().fleet().outstanding().into()
        }),
        (
            "refusing",
            "gauge",
            "1 while no endpoint of a destination takes requests.",
            |fleet, now| u32::from(fleet.cluster.refuses(now).is_some()).into(),
        ),
        ("retry_budget_tokens", "gauge", "Retries that may be made at once.", |fleet, now| {
            fleet.cluster.budget().tokens(now) as f64
        }),
    ];
    for (name, kind, help, of) in columns {
        let name = format!("forebay_destination_{name}");
        page.family(&name, kind, help);
        for fleet in fleets {
            page.sample(&name, &[("exporter", fleet.name)], of(fleet, now));
        }
    }
}

fn transitions(page: &mut Page, fleets: &[Fleet<'_>]) {
    let name = "forebay_breaker_transitions";
    page.family(name, "counter", "Changes of breakers, by the state they led to and its cause.");
    for fleet in fleets {
        let counts = fleet.cluster.endpoints().fleet().transitions();
        for ((to, cause), count) in Transition::KINDS.iter().zip(counts) {
            let labels = [("exporter", fleet.name), ("to", *to), ("cause", *cause)];
            page.sample(name, &labels, count);
        }
    }
}

fn discoveries(page: &mut Page, fleets: &[Fleet<'_>]) {
    let columns: [Column<keeper::Status>; 5] = [
        ("generation", "counter", "Sets of endpoints that discovery has brought.", |status| {
            status.update.as_ref().map_or(0, |update| update.generation) as f64
        }),
        ("age_seconds", "gauge", "Since discovery's source last said who is there.", |status| {
            status.age.unwrap_or_default().as_secs_f64()
        }),
        ("failing", "gauge", "Failures of discovery's source since its last answer.", |status| {
            status.failures.into()
        }),
        ("answers", "counter", "Good answers of discovery's source.", |status| {
            status.answers_total as f64
        }),
        ("failures", "counter", "Failures of discovery's source, and empty answers.", |status| {
            status.failures_total as f64
        }),
    ];
    for (name, kind, help, of) in columns {
        let name = format!("forebay_discovery_{name}");
        page.family(&name, kind, help);
        for (fleet, status) in fleets.iter().filter_map(|f| Some((f, f.discovery.as_ref()?))) {
            page.sample(&name, &[("exporter", fleet.name)], of(status));
        }
    }
}

/// By address. One that has left and come back is one row, as long as its old self drains.
fn rows(endpoints: Vec<Status>) -> BTreeMap<String, Row> {
    let mut all: BTreeMap<String, Row> = BTreeMap::new();
    for endpoint in &endpoints {
        let row = row(endpoint);
        match all.get_mut(&*endpoint.address) {
            Some(sum) => add(sum, &row),
            None => drop(all.insert(endpoint.address.to_string(), row)),
        }
    }
    let Some(first_left_out) = all.keys().nth(ROWS_MAX).cloned() else {
        return all;
    };
    let mut others = Row::default();
    all.split_off(&first_left_out).values().for_each(|row| add(&mut others, row));
    all.insert(OTHERS.to_owned(), others);
    all
}

fn row(endpoint: &Status) -> Row {
    Row {
        state: match endpoint.state {
            State::Closed | State::Retired => 0,
            State::HalfOpen { .. } => 1,
            State::Open { .. } => 2,
        },
        outstanding: endpoint.outstanding.into(),
        latency_seconds: endpoint.latency.as_secs_f64(),
        weight: if endpoint.is_draining { 0 } else { endpoint.weight.into() },
        draining: endpoint.is_draining.into(),
    }
}

fn add(sum: &mut Row, row: &Row) {
    sum.state = sum.state.max(row.state);
    sum.outstanding += row.outstanding;
    sum.latency_seconds = sum.latency_seconds.max(row.latency_seconds);
    sum.weight += row.weight;
    sum.draining += row.draining;
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use forebay_exporters::breaker::Outcome;
    use forebay_exporters::destination::Backends;
    use forebay_exporters::discovery::fixed::Static;
    use forebay_exporters::endpoints::Call;

    use super::*;

    /// So many endpoints of weight 2; every other one is shut off, and each has held up to six
    /// calls since.
    fn fleet(count: usize, now: Instant) -> (std::sync::Arc<Cluster>, Vec<Call>) {
        let address = |number: usize| format!("host-{number:04}:1");
        let addresses: Vec<String> = (0..count).map(address).collect();
        let list = Static::of(addresses.iter().map(String::as_str), None).expect("addresses");
        let found: Vec<_> = list.endpoints.into_iter().map(|one| one.weighing(2)).collect();
        let cluster = Cluster::new(&Backends::of(Static::default()), now);
        cluster.apply(now, &found);
        let (mut calls, mut rng) = (Vec::new(), fastrand::Rng::with_seed(3));
        for (index, endpoint) in cluster.endpoints().snapshot().endpoints().iter().enumerate() {
            calls.extend((0..index % 7).filter_map(|_| endpoint.admit(now).ok()));
            for _ in 0..if index % 2 == 1 { 5 } else { 0 } {
                let call = endpoint.admit(now).expect("it opens after the fifth");
                call.end(now + Duration::from_millis(3), Outcome::Failure, &mut rng);
            }
        }
        (cluster, calls)
    }

    #[test]
    fn a_fleet_of_any_size_has_a_bounded_number_of_rows_and_loses_no_request() {
        let now = Instant::now();
        for count in [0, 1, 99, 100, 101, 5_000] {
            let (cluster, calls) = fleet(count, now);
            let rows = rows(cluster.status(now));
            assert_eq!(rows.len(), count.min(ROWS_MAX + 1));
            let outstanding: u64 = rows.values().map(|row| row.outstanding).sum();
            assert_eq!(outstanding, calls.len() as u64, "{count}");
            let weight: u64 = rows.values().map(|row| row.weight).sum();
            assert_eq!(weight, 2 * count as u64);
            assert_eq!(rows.contains_key(OTHERS), count > ROWS_MAX);
            if count > ROWS_MAX + 1 {
                assert_eq!(rows[OTHERS].state, 2, "one of the others is open");
            }
        }
    }

    #[test]
    fn an_endpoint_that_came_back_while_it_drained_is_one_row() {
        let now = Instant::now();
        let (cluster, _) = fleet(2, now);
        let call = cluster.endpoints().snapshot().endpoints()[0].admit(now).expect("it is closed");
        let address = call.endpoint().address().to_owned();
        for addresses in [vec!["other:1"], vec!["other:1", &address]] {
            let list = Static::of(addresses, None).expect("addresses");
            cluster.apply(now, &list.endpoints);
        }
        let row = rows(cluster.status(now))[&address];
        assert_eq!((row.outstanding, row.weight, row.draining), (1, 1, 1));
    }
}
