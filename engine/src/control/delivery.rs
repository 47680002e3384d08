//! The state of delivery as JSON: each destination with its lanes, endpoints, breakers and
//! discovery. `GET /delivery` on the metrics' address.
//!
//! `docs/metrics.md` describes the shape. Always: a name once there keeps its meaning; new ones may
//! be added. A fleet of any size makes a page of bounded size.

use std::sync::Arc;
use std::time::{Duration, Instant};

use forebay_exporters::balance::Strategy;
use forebay_exporters::batch::{DropReason, Why};
use forebay_exporters::breaker::{State, Transition};
use forebay_exporters::cluster::Cluster;
use forebay_exporters::destination::{Destination, Kind};
use forebay_exporters::discovery::keeper;
use forebay_exporters::dispatch::Waiting;
use forebay_exporters::endpoints::Status;
use forebay_exporters::lane::Lane;
use forebay_exporters::verdict::FailureKind;
use serde_json::{Map, Value, json};

use super::View;

/// So many endpoints of a destination are shown; the first by address, those not closed before all.
pub const ENDPOINTS_SHOWN_MAX: usize = 1_000;

pub fn to_json(view: &View) -> Value {
    let now = Instant::now();
    let each = |(index, destination): (usize, &Destination)| {
        let discovery = view.discovered[index].status(now);
        destination_of(view, destination, index, now, discovery)
    };
    let destinations: Vec<Value> = view.plan.destinations.iter().enumerate().map(each).collect();
    json!({ "destinations": destinations })
}

fn destination_of(
    view: &View,
    destination: &Destination,
    index: usize,
    now: Instant,
    discovery: Option<keeper::Status>,
) -> Value {
    let (cluster, lanes) = (&view.clusters[index], &view.lanes[index]);
    let fleet = cluster.endpoints().fleet();
    let (shown, left_out) = endpoints(cluster, now);
    let lanes = lanes.iter().zip(&view.exporter_cores);
    json!({
        "name": destination.name,
        "kind": kind(&destination.kind),
        "needed": view.plan.needed()[index],
        "strategy": strategy(destination.backends.strategy),
        "members": fleet.members(),
        "broken": fleet.broken(),
        "ejected": fleet.ejected(),
        "panicking": fleet.is_panicking(),
        "ejections_spared": fleet.spared(),
        "outstanding_requests": fleet.outstanding(),
        "retry_budget_tokens": cluster.budget().tokens(now),
        "refuses_for_seconds": cluster.refuses(now).map(seconds),
        "transitions": transitions(fleet.transitions()),
        "discovery": discovery.map(discovery_of),
        "endpoints": shown,
        "endpoints_left_out": left_out,
        "lanes": lanes.map(|(lane, core)| lane_of(lane, *core)).collect::<Vec<_>>(),
    })
}

fn endpoints(cluster: &Cluster, now: Instant) -> (Vec<Value>, usize) {
    let mut all = cluster.status(now);
    all.sort_by_cached_key(|endpoint| {
        (endpoint.state == State::Closed, Arc::clone(&endpoint.address), endpoint.is_draining)
    });
    let left_out = all.len().saturating_sub(ENDPOINTS_SHOWN_MAX);
    all.truncate(ENDPOINTS_SHOWN_MAX);
    (all.iter().map(|endpoint| endpoint_of(endpoint, now)).collect(), left_out)
}

fn endpoint_of(endpoint: &Status, now: Instant) -> Value {
    let mut shown = json!({
        "address": &*endpoint.address,
        "state": endpoint.state.name(),
        "weight": endpoint.weight,
        "outstanding_requests": endpoint.outstanding,
        "latency_seconds": seconds(endpoint.latency),
        "draining": endpoint.is_draining,
    });
    if let Some(check) = &endpoint.check {
        shown["check"] = json!({
            "age_seconds": seconds(now.saturating_duration_since(check.at)),
            "took_seconds": seconds(check.took),
            "trouble": check.trouble,
        });
    }
    match endpoint.state {
        State::Open { retry_in, is_ejected } => {
            shown["retry_in_seconds"] = seconds(retry_in).into();
            shown["ejected"] = is_ejected.into();
        }
        State::HalfOpen { successes, is_probing } => {
            shown["successes"] = successes.into();
            shown["probing"] = is_probing.into();
        }
        State::Closed | State::Retired => {}
    }
    shown
}

fn transitions(counts: [u64; Transition::KINDS.len()]) -> Vec<Value> {
    let seen = Transition::KINDS.iter().zip(counts).filter(|(_, count)| *count > 0);
    seen.map(|((to, cause), count)| json!({"to": to, "cause": cause, "count": count})).collect()
}

fn discovery_of(status: keeper::Status) -> Value {
    let update = status.update.as_ref();
    json!({
        "source": status.source,
        "generation": update.map_or(0, |update| update.generation),
        "endpoints": update.map_or(0, |update| update.endpoints.len()),
        "age_seconds": status.age.map(seconds),
        "failing": status.failing,
        "failures_in_a_row": status.failures,
        "answers": status.answers_total,
        "failures": status.failures_total,
    })
}

fn lane_of(lane: &Lane, core: usize) -> Value {
    let stats = lane.stats().snapshot();
    let by_name = |names: Vec<&str>, counts: &[u64]| -> Map<String, Value> {
        let seen = names.into_iter().zip(counts).filter(|(_, count)| **count > 0);
        seen.map(|(name, count)| (name.to_owned(), (*count).into())).collect()
    };
    let dropped = DropReason::ALL.iter().map(|reason| reason.name()).collect();
    let failed = FailureKind::ALL.iter().map(|kind| kind.name()).collect();
    json!({
        "core": core,
        "queue_batches": stats.queue_batches,
        "queue_batches_max": stats.queue_capacity,
        "queue_bytes": stats.queue_bytes,
        "queue_bytes_max": stats.queue_bytes_max,
        "in_flight_requests": stats.in_flight_requests,
        "retries_waiting": stats.retries_waiting,
        "offered_items": stats.offered_items,
        "delivered_items": stats.delivered_items,
        "dropped_items": by_name(dropped, &stats.dropped_items),
        "given_back_items": by_name(Why::NAMES.to_vec(), &stats.given_back_items),
        "attempts": stats.attempts,
        "attempts_again": stats.attempts_again,
        "parts_again": stats.parts_again,
        "waits": by_name(Waiting::ALL.map(Waiting::name).to_vec(), &stats.waits),
        "failed_attempts": by_name(failed, &stats.failed_attempts),
        "sent_bytes": stats.sent_bytes,
        "repeated_requests": stats.repeated_requests,
        "connections_made": stats.connections_made,
        "connections_open": stats.connections_open,
    })
}

pub(crate) fn kind(kind: &Kind) -> &'static str {
    match kind {
        Kind::OtlpGrpc(_) => "otlp_grpc",
        Kind::OtlpHttp(_) => "otlp_http",
        Kind::File(_) => "file",
        Kind::Debug(_) => "debug",
        Kind::Nop => "nop",
    }
}

fn strategy(strategy: Strategy) -> &'static str {
    match strategy {
        Strategy::RoundRobin => "round_robin",
        Strategy::WeightedRoundRobin => "weighted_round_robin",
        Strategy::LeastOutstanding => "least_outstanding",
        Strategy::ConsistentHashing => "consistent_hashing",
    }
}

fn seconds(duration: Duration) -> f64 {
    // Microseconds are plenty, and shorter to read.
    (duration.as_secs_f64() * 1e6).round() / 1e6
}
