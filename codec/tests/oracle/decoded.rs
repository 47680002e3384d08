//! A request as prost decodes it, whatever its signal.

use forebay_codec::signal::{Counts, Signal};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::profiles::v1development::ExportProfilesServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::Metric;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use prost::{DecodeError, Message};

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Decoded {
    Traces(ExportTraceServiceRequest),
    Metrics(ExportMetricsServiceRequest),
    Logs(ExportLogsServiceRequest),
    Profiles(ExportProfilesServiceRequest),
}

impl Decoded {
    pub(crate) fn from_proto(signal: Signal, bytes: &[u8]) -> Result<Self, DecodeError> {
        Ok(match signal {
            Signal::Traces => Self::Traces(Message::decode(bytes)?),
            Signal::Metrics => Self::Metrics(Message::decode(bytes)?),
            Signal::Logs => Self::Logs(Message::decode(bytes)?),
            Signal::Profiles => Self::Profiles(Message::decode(bytes)?),
        })
    }

    /// In prost's own form: equal bytes mean equal requests, even where one holds a NaN.
    pub(crate) fn to_proto(&self) -> Vec<u8> {
        match self {
            Self::Traces(request) => request.encode_to_vec(),
            Self::Metrics(request) => request.encode_to_vec(),
            Self::Logs(request) => request.encode_to_vec(),
            Self::Profiles(request) => request.encode_to_vec(),
        }
    }

    /// As the crate's serde support writes it.
    pub(crate) fn to_json(&self) -> Vec<u8> {
        let written = match self {
            Self::Traces(request) => serde_json::to_vec(request),
            Self::Metrics(request) => serde_json::to_vec(request),
            Self::Logs(request) => serde_json::to_vec(request),
            Self::Profiles(request) => serde_json::to_vec(request),
        };
        written.expect("plain data has a JSON form")
    }

    pub(crate) fn from_json(signal: Signal, json: &[u8]) -> serde_json::Result<Self> {
        Ok(match signal {
            Signal::Traces => Self::Traces(serde_json::from_slice(json)?),
            Signal::Metrics => Self::Metrics(serde_json::from_slice(json)?),
            Signal::Logs => Self::Logs(serde_json::from_slice(json)?),
            Signal::Profiles => Self::Profiles(serde_json::from_slice(json)?),
        })
    }

    pub(crate) fn counts(&self) -> Counts {
        let items: usize = match self {
            Self::Traces(request) => {
                let scopes = request.resource_spans.iter().flat_map(|group| &group.scope_spans);
                scopes.map(|scope| scope.spans.len()).sum()
            }
            Self::Logs(request) => {
                let scopes = request.resource_logs.iter().flat_map(|group| &group.scope_logs);
                scopes.map(|scope| scope.log_records.len()).sum()
            }
            Self::Metrics(request) => {
                let scopes = request.resource_metrics.iter().flat_map(|group| &group.scope_metrics);
                scopes.flat_map(|scope| &scope.metrics).map(points_count).sum()
            }
            Self::Profiles(request) => {
                let scopes = request.resource_profiles.iter().flat_map(|r| &r.scope_profiles);
                let profiles: Vec<_> = scopes.flat_map(|s| &s.profiles).collect();
                let samples: usize = profiles.iter().map(|profile| profile.samples.len()).sum();
                return Counts { items: samples as u64, profiles: profiles.len() as u64 };
            }
        };
        Counts { items: items as u64, profiles: 0 }
    }

    /// Each item with everything that stands above it, as bytes of its own; none for profiles.
    pub(crate) fn items(&self) -> Vec<Vec<u8>> {
        let mut items = Vec::new();
        match self {
            Self::Traces(request) => {
                for mut group in request.resource_spans.clone() {
                    for mut scope in std::mem::take(&mut group.scope_spans) {
                        for span in std::mem::take(&mut scope.spans) {
                            let parts = (&group, &scope, &span);
                            items.push(framed([
                                parts.0.encode_to_vec(),
                                parts.1.encode_to_vec(),
                                parts.2.encode_to_vec(),
                            ]));
                        }
                    }
                }
            }
            Self::Logs(request) => {
                for mut group in request.resource_logs.clone() {
                    for mut scope in std::mem::take(&mut group.scope_logs) {
                        for record in std::mem::take(&mut scope.log_records) {
                            items.push(framed([
                                group.encode_to_vec(),
                                scope.encode_to_vec(),
                                record.encode_to_vec(),
                            ]));
                        }
                    }
                }
            }
            Self::Metrics(request) => {
                for mut group in request.resource_metrics.clone() {
                    for mut scope in std::mem::take(&mut group.scope_metrics) {
                        for metric in std::mem::take(&mut scope.metrics) {
                            for point in points(metric) {
                                items.push(framed([
                                    group.encode_to_vec(),
                                    scope.encode_to_vec(),
                                    point.encode_to_vec(),
                                ]));
                            }
                        }
                    }
                }
            }
            Self::Profiles(_) => {}
        }
        items
    }
}

fn points_count(metric: &Metric) -> usize {
    match &metric.data {
        None => 0,
        Some(Data::Gauge(data)) => data.data_points.len(),
        Some(Data::Sum(data)) => data.data_points.len(),
        Some(Data::Histogram(data)) => data.data_points.len(),
        Some(Data::ExponentialHistogram(data)) => data.data_points.len(),
        Some(Data::Summary(data)) => data.data_points.len(),
    }
}

/// A metric for each data point, with that point alone.
fn points(metric: Metric) -> Vec<Metric> {
    let with = |data| Metric { data: Some(data), ..metric.clone() };
    macro_rules! each {
        ($data:expr, $kind:path) => {{
            let mut frame = $data;
            let points = std::mem::take(&mut frame.data_points);
            let one = |point| {
                let mut data = frame.clone();
                data.data_points = vec![point];
                with($kind(data))
            };
            points.into_iter().map(one).collect()
        }};
    }
    match metric.data.clone() {
        None => Vec::new(),
        Some(Data::Gauge(data)) => each!(data, Data::Gauge),
        Some(Data::Sum(data)) => each!(data, Data::Sum),
        Some(Data::Histogram(data)) => each!(data, Data::Histogram),
        Some(Data::ExponentialHistogram(data)) => each!(data, Data::ExponentialHistogram),
        Some(Data::Summary(data)) => each!(data, Data::Summary),
    }
}

fn framed(parts: [Vec<u8>; 3]) -> Vec<u8> {
    parts.iter().flat_map(|part| [&(part.len() as u64).to_le_bytes()[..], part].concat()).collect()
}
