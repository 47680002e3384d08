//! Random batches against random fleets: nothing is lost, nothing is doubled, keys stay together.
//!
//! prost says what is in a piece. `SEED=n` runs one seed alone.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use forebay_codec::signal::{Counts, Signal};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::{
    Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, metric,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;

use super::*;
use crate::batch::{Batch, BatchId, DropReason, Outcome, Why};
use crate::breaker;
use crate::endpoints::{Endpoints, Member, Options};
use crate::held::Ended;

/// Trace and number of each span: the number tells it from all others.
type Spans = Vec<(u8, u32)>;

fn seeds() -> Vec<u64> {
    match std::env::var("SEED") {
        Ok(seed) => vec![seed.parse().expect("SEED is a number")],
        Err(_) => (0..60).collect(),
    }
}

/// Spans of a few traces, some without a trace id (trace 0), in up to three requests.
fn random_batch(rng: &mut fastrand::Rng) -> (Batch, Spans) {
    let mut spans = Spans::new();
    let mut chain = Vec::new();
    for _ in 0..rng.usize(1..4) {
        let of_request: Spans = (0..rng.u32(1..30))
            .map(|number| (rng.u8(0..12), number + 1000 * chain.len() as u32))
            .collect();
        let span = |&(trace, number): &(u8, u32)| Span {
            trace_id: if trace == 0 { Vec::new() } else { vec![trace; 16] },
            span_id: [&number.to_be_bytes()[..], &[0; 4]].concat(),
            name: "n".repeat(number as usize % 40),
            ..Span::default()
        };
        let scope =
            ScopeSpans { spans: of_request.iter().map(span).collect(), ..ScopeSpans::default() };
        let resource = ResourceSpans { scope_spans: vec![scope], ..ResourceSpans::default() };
        let request = ExportTraceServiceRequest { resource_spans: vec![resource] };
        chain.push(bytes::Bytes::from(request.encode_to_vec()));
        spans.extend(of_request);
    }
    let batch = Batch {
        id: BatchId { receiver: 0, seq: rng.u64(..) },
        signal: Signal::Traces,
        counts: Counts { items: spans.len() as u64, profiles: 0 },
        bytes: chain.iter().map(|bytes| bytes.len() as u64).sum(),
        chain,
        may_fail_over: true,
    };
    (batch, spans)
}

fn spans_of(chain: &[bytes::Bytes]) -> Spans {
    let request = ExportTraceServiceRequest::decode(chain.concat().as_slice()).unwrap();
    let scopes = request.resource_spans.iter().flat_map(|resource| &resource.scope_spans);
    let number = |span: &Span| u32::from_be_bytes(*span.span_id.first_chunk().unwrap());
    let trace = |span: &Span| span.trace_id.first().copied().unwrap_or(0);
    scopes.flat_map(|scope| &scope.spans).map(|span| (trace(span), number(span))).collect()
}

fn sorted(mut spans: Spans) -> Spans {
    spans.sort_unstable();
    spans
}

/// A fleet, some of whose breakers are open.
fn random_fleet(rng: &mut fastrand::Rng, now: Instant) -> Arc<Endpoints> {
    let settings = breaker::Settings { failure_threshold: 1, ..breaker::Settings::default() };
    let options = Options { breaker: settings, hashing: true, ..Options::default() };
    let endpoints = Endpoints::new(options, now);
    change(rng, &endpoints, now);
    for endpoint in endpoints.snapshot().endpoints() {
        if rng.u8(0..4) == 0 {
            let call = endpoint.admit(now).expect("a new breaker admits");
            call.end(now, breaker::Outcome::Failure, rng);
        }
    }
    endpoints
}

fn change(rng: &mut fastrand::Rng, endpoints: &Endpoints, now: Instant) {
    let count = rng.usize(1..9);
    let member = |number: usize| Member { address: format!("c-{number}:4317"), weight: 1 };
    let set: Vec<Member> = rng.choose_multiple(0..12, count).into_iter().map(member).collect();
    endpoints.apply(now, &set);
}

/// The endpoint that a trace belongs to while breakers stand as they do.
fn effective_owner(snapshot: &Snapshot, trace: u8, now: Instant) -> u64 {
    let hash = stable_hash(&[trace; 16]);
    let owners = (0..TURNS_MAX).map(|again| snapshot.owner(hash_again(hash, again)).unwrap());
    let takes = |owner: &usize| snapshot.endpoints()[*owner].breaker.refuses(now).is_none();
    let owner = owners.clone().find(takes).unwrap_or_else(|| owners.clone().next().unwrap());
    snapshot.endpoints()[owner].id()
}

#[test]
fn each_piece_holds_the_traces_of_one_endpoint_and_a_trace_is_in_one_piece() {
    let now = Instant::now();
    for seed in seeds() {
        let mut rng = fastrand::Rng::with_seed(seed);
        let endpoints = random_fleet(&mut rng, now);
        let snapshot = endpoints.snapshot();
        let (batch, spans) = random_batch(&mut rng);
        let pieces = by_key(Part::whole(Arc::new(batch)), &RoutingKey::TraceId, &snapshot, now);
        let mut all = Spans::new();
        let mut piece_of = HashMap::new();
        for (index, piece) in pieces.iter().enumerate() {
            let spans = spans_of(piece.chain());
            assert_eq!(piece.counts.items, spans.len() as u64, "seed {seed}");
            let bytes: usize = piece.chain().iter().map(|part| part.len()).sum();
            assert_eq!(piece.bytes, bytes as u64, "seed {seed}");
            let has_one = snapshot.endpoints().len() < 2;
            let owners: BTreeSet<Option<u64>> = spans
                .iter()
                .map(|(trace, _)| (*trace > 0).then(|| effective_owner(&snapshot, *trace, now)))
                .collect();
            assert!(has_one || owners.len() == 1, "seed {seed}: {owners:?} in a piece");
            let is_keyed = piece.delivery.key_hash.is_some();
            let expected = !has_one && owners.first().copied().flatten().is_some();
            assert_eq!(is_keyed, expected, "seed {seed}");
            for (trace, _) in &spans {
                assert_eq!(*piece_of.entry(*trace).or_insert(index), index, "seed {seed}");
            }
            all.extend(spans);
        }
        assert_eq!(sorted(all), sorted(spans), "seed {seed}");
    }
}

/// A part's hash leads to the endpoint that it was cut for: for good if that is its own.
#[test]
fn a_piece_names_a_key_of_the_endpoint_it_is_for() {
    let now = Instant::now();
    let mut keyed = 0;
    for seed in seeds() {
        let mut rng = fastrand::Rng::with_seed(seed);
        let endpoints = random_fleet(&mut rng, now);
        let snapshot = endpoints.snapshot();
        let (batch, _) = random_batch(&mut rng);
        let pieces = by_key(Part::whole(Arc::new(batch)), &RoutingKey::TraceId, &snapshot, now);
        for piece in pieces {
            let Some(hash) = piece.delivery.key_hash else { continue };
            let traces: BTreeSet<u8> =
                spans_of(piece.chain()).into_iter().map(|(trace, _)| trace).collect();
            let named = traces.iter().find(|trace| stable_hash(&[**trace; 16]) == hash);
            let named = *named.unwrap_or_else(|| panic!("seed {seed}: of another piece"));
            let owner = |trace: u8| {
                let owner = snapshot.owner(stable_hash(&[trace; 16])).unwrap();
                snapshot.endpoints()[owner].id()
            };
            let target = effective_owner(&snapshot, named, now);
            let own = traces.iter().filter(|trace| owner(**trace) == target).count();
            assert!(own == 0 || owner(named) == target, "seed {seed}: led by a stray");
            keyed += 1;
        }
    }
    assert!(std::env::var("SEED").is_ok() || keyed > 100);
}

/// One way after another: cut anew when the fleet has changed, by size, in halves; and each piece
/// ends in one way or another.
#[test]
fn whatever_becomes_of_pieces_the_batch_ends_once_and_its_items_add_up() {
    let now = Instant::now();
    for seed in seeds() {
        let mut rng = fastrand::Rng::with_seed(seed);
        let endpoints = random_fleet(&mut rng, now);
        let (batch, spans) = random_batch(&mut rng);
        let mut parts = vec![Part::whole(Arc::new(batch))];
        let mut got = Spans::new();
        let mut ended_items = 0;
        let mut lost_items = [0; DropReason::ALL.len()];
        let mut end = None;
        while let Some(part) = parts.pop() {
            let items = part.counts.items;
            let part_spans = spans_of(part.chain());
            let ended = match rng.u8(0..9) {
                0 => {
                    change(&mut rng, &endpoints, now + Duration::from_secs(1));
                    parts.extend(by_key(part, &RoutingKey::TraceId, &endpoints.snapshot(), now));
                    continue;
                }
                1 => {
                    parts.extend(by_size(part, rng.u64(1..2000)));
                    continue;
                }
                2 | 3 => match halves(part) {
                    Ok(halves) => {
                        assert_eq!(halves.len(), 2, "seed {seed}");
                        parts.extend(halves);
                        continue;
                    }
                    Err(part) => {
                        lost_items[DropReason::TooLarge.index()] += items;
                        part.dropped(DropReason::TooLarge, None, String::new())
                    }
                },
                4 | 5 => part.give_back(Why::Failover),
                6 => {
                    lost_items[DropReason::Refused.index()] += items;
                    part.dropped(DropReason::Refused, None, String::new())
                }
                _ => part.delivered(0),
            };
            got.extend(part_spans);
            assert!(end.is_none(), "seed {seed}: ended before its last part");
            end = ended;
            ended_items += items;
        }
        let Ended { outcome, given_back, bytes, .. } = end.expect("all its parts have ended");
        assert_eq!(sorted(got), sorted(spans.clone()), "seed {seed}");
        assert!(bytes > 0);
        let back: u64 = given_back.iter().map(|given_back| given_back.counts.items).sum();
        let back_spans = given_back.iter().flat_map(|given_back| spans_of(&given_back.chain));
        assert_eq!(back_spans.count() as u64, back, "seed {seed}");
        assert!(given_back.len() <= 1, "seed {seed}: one why, one giving back");
        assert_eq!(ended_items, spans.len() as u64, "seed {seed}");
        let delivered = ended_items - back - lost_items.iter().sum::<u64>();
        match outcome {
            Outcome::Delivered { rejected_items } => {
                assert_eq!((rejected_items, lost_items.iter().sum::<u64>()), (0, 0), "seed {seed}");
            }
            Outcome::Dropped { reason, .. } => {
                assert_eq!(delivered, 0, "seed {seed}: something was delivered");
                assert_eq!(
                    lost_items[reason.index()] + back,
                    ended_items,
                    "seed {seed}: {reason:?}"
                );
            }
            Outcome::Parted { dropped_items, .. } => {
                let reasons = lost_items.iter().filter(|items| **items > 0).count();
                assert!(delivered > 0 || reasons > 1, "seed {seed}: it ended in one way");
                assert_eq!(dropped_items, lost_items, "seed {seed}");
            }
        }
    }
}

#[test]
fn a_part_that_is_a_half_is_not_halved_again() {
    let mut rng = fastrand::Rng::with_seed(1);
    let (batch, _) = random_batch(&mut rng);
    let halves_once = halves(Part::whole(Arc::new(batch))).ok().expect("it has several spans");
    for half in halves_once {
        assert!(halves(half).is_err());
    }
}

/// A batch of metrics with so many points for each service, one of them without a name.
fn metrics_of(services: &[&str], points: usize) -> Batch {
    let text = |text: &str| AnyValue { value: Some(any_value::Value::StringValue(text.into())) };
    let resource_metrics = services.iter().map(|service| {
        let name = KeyValue {
            key: "service.name".into(),
            value: Some(text(service)),
            ..KeyValue::default()
        };
        let attributes = if service.is_empty() { Vec::new() } else { vec![name] };
        let resource = Some(Resource { attributes, ..Resource::default() });
        let data_points = vec![NumberDataPoint::default(); points];
        let data = Some(metric::Data::Gauge(Gauge { data_points }));
        let metrics = vec![Metric { name: (*service).into(), data, ..Metric::default() }];
        let scope_metrics = vec![ScopeMetrics { metrics, ..ScopeMetrics::default() }];
        ResourceMetrics { resource, scope_metrics, ..ResourceMetrics::default() }
    });
    let request = ExportMetricsServiceRequest { resource_metrics: resource_metrics.collect() };
    let chain = vec![bytes::Bytes::from(request.encode_to_vec())];
    Batch {
        id: BatchId { receiver: 0, seq: 0 },
        signal: Signal::Metrics,
        counts: Counts { items: (services.len() * points) as u64, profiles: 0 },
        bytes: chain[0].len() as u64,
        chain,
        may_fail_over: false,
    }
}

#[test]
fn metrics_have_no_trace_and_go_by_their_service_unless_told_otherwise() {
    let now = Instant::now();
    let services = ["", "a", "b", "c", "d", "e", "f", "g", "a", "b", "c", ""];
    let endpoints = Endpoints::new(Options { hashing: true, ..Options::default() }, now);
    let member = |number: u32| Member { address: format!("c-{number}:4317"), weight: 1 };
    endpoints.apply(now, &(0..5).map(member).collect::<Vec<_>>());
    let snapshot = endpoints.snapshot();
    let keys = [RoutingKey::TraceId, RoutingKey::Service, RoutingKey::Metric];
    // Metrics without points are no items, and have keys like any other.
    for (key, points) in keys.iter().flat_map(|key| [(key, 1), (key, 0)]) {
        let part = Part::whole(Arc::new(metrics_of(&services, points)));
        let pieces = by_key(part, key, &snapshot, now);
        let mut place = HashMap::new();
        let mut metrics = Vec::new();
        for (index, piece) in pieces.iter().enumerate() {
            let bytes = piece.chain().concat();
            let request = ExportMetricsServiceRequest::decode(bytes.as_slice()).unwrap();
            let of_piece = request.resource_metrics.iter().flat_map(|group| &group.scope_metrics);
            for metric in of_piece.flat_map(|scope| &scope.metrics) {
                // Each service has a metric of its own name.
                assert_eq!(*place.entry(metric.name.clone()).or_insert(index), index);
                let owner = snapshot.owner(stable_hash(metric.name.as_bytes()));
                let target = piece.delivery.key_hash.and_then(|hash| snapshot.owner(hash));
                assert_eq!(target, owner.filter(|_| !metric.name.is_empty()), "{key:?}");
                metrics.push(metric.name.clone());
            }
        }
        metrics.sort_unstable();
        let mut expected = services.map(str::to_owned);
        expected.sort_unstable();
        assert_eq!(metrics, expected, "{key:?}");
        assert!(pieces.len() > 2);
    }
}
