//! The key of every item, as prost's types tell it.

use forebay_codec::split::by::Key;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::metrics::v1::Metric;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::resource::v1::Resource;

use crate::decoded::Decoded;

/// In the order of [`Decoded::items`]; for profiles one key, that of the request.
pub(super) fn keys(request: &Decoded, key: Key<'_>, tenant: &[u8]) -> Vec<Vec<u8>> {
    let mut keys = Vec::new();
    match request {
        Decoded::Traces(request) => {
            for group in &request.resource_spans {
                for span in group.scope_spans.iter().flat_map(|scope| &scope.spans) {
                    keys.push(match key {
                        Key::TraceId => span.trace_id.clone(),
                        Key::Attribute(name) => attribute(&span.attributes, name),
                        key => above(key, tenant, group.resource.as_ref()),
                    });
                }
            }
        }
        Decoded::Logs(request) => {
            for group in &request.resource_logs {
                for record in group.scope_logs.iter().flat_map(|scope| &scope.log_records) {
                    keys.push(match key {
                        Key::TraceId => record.trace_id.clone(),
                        Key::Attribute(name) => attribute(&record.attributes, name),
                        key => above(key, tenant, group.resource.as_ref()),
                    });
                }
            }
        }
        Decoded::Metrics(request) => {
            for group in &request.resource_metrics {
                for metric in group.scope_metrics.iter().flat_map(|scope| &scope.metrics) {
                    for attributes in point_attributes(metric) {
                        keys.push(match key {
                            Key::MetricName => metric.name.clone().into_bytes(),
                            Key::Attribute(name) => attribute(attributes, name),
                            key => above(key, tenant, group.resource.as_ref()),
                        });
                    }
                }
            }
        }
        Decoded::Profiles(request) => {
            let first = request.resource_profiles.first();
            keys.push(above(key, tenant, first.and_then(|group| group.resource.as_ref())));
        }
    }
    keys
}

fn above(key: Key<'_>, tenant: &[u8], resource: Option<&Resource>) -> Vec<u8> {
    match (key, resource) {
        (Key::Tenant, _) => tenant.to_vec(),
        (Key::Resource(name), Some(resource)) => attribute(&resource.attributes, name),
        _ => Vec::new(),
    }
}

fn attribute(attributes: &[KeyValue], name: &str) -> Vec<u8> {
    let first = attributes.iter().find(|pair| pair.key == name);
    let value = first.and_then(|pair| pair.value.as_ref()).and_then(|any| any.value.as_ref());
    match value {
        Some(Value::StringValue(text)) => text.clone().into_bytes(),
        Some(Value::BytesValue(bytes)) => bytes.clone(),
        Some(Value::BoolValue(bool)) => bool.to_string().into_bytes(),
        Some(Value::IntValue(number)) => number.to_string().into_bytes(),
        Some(Value::DoubleValue(number)) => number.to_be_bytes().to_vec(),
        _ => Vec::new(),
    }
}

fn point_attributes(metric: &Metric) -> Vec<&[KeyValue]> {
    macro_rules! each {
        ($data:expr) => {
            $data.data_points.iter().map(|point| &point.attributes[..]).collect()
        };
    }
    match &metric.data {
        None => Vec::new(),
        Some(Data::Gauge(data)) => each!(data),
        Some(Data::Sum(data)) => each!(data),
        Some(Data::Histogram(data)) => each!(data),
        Some(Data::ExponentialHistogram(data)) => each!(data),
        Some(Data::Summary(data)) => each!(data),
    }
}
