//! What consistent hashing goes by, in the words of the Collector's load-balancing exporter.
//!
//! Never cuts a batch; `forebay_codec::split::by` does, with the key that this names.

use forebay_codec::signal::Signal;
use forebay_codec::split::by::Key;

/// `routing_key` and `routing_attributes`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RoutingKey {
    /// `traceID`: all spans and logs of a trace meet, for tail sampling. The default for traces.
    TraceId,
    /// `service`: the default for metrics.
    Service,
    /// `metric`: a metric's name.
    Metric,
    /// `resource`, by one of its attributes.
    Resource(String),
    /// `attributes`: one of the item's own.
    Attribute(String),
}

impl RoutingKey {
    /// From the configuration's word; `attribute` is for those that need one.
    pub fn parse(word: &str, attribute: Option<&str>) -> Result<RoutingKey, String> {
        let named = |of: fn(String) -> RoutingKey| match attribute {
            Some(attribute) => Ok(of(attribute.to_owned())),
            None => Err(format!("routing_key {word} needs the name of an attribute")),
        };
        match word {
            "traceID" => Ok(RoutingKey::TraceId),
            "service" => Ok(RoutingKey::Service),
            "metric" => Ok(RoutingKey::Metric),
            "resource" => named(RoutingKey::Resource),
            "attributes" => named(RoutingKey::Attribute),
            other => Err(format!(
                "{other} is no routing_key; there are traceID, service, metric, resource, \
                 attributes"
            )),
        }
    }

    /// What a batch of this signal is split by: a key that the signal does not have is replaced by
    /// the signal's default.
    pub fn of_signal(&self, signal: Signal) -> Key<'_> {
        match (self, signal) {
            (RoutingKey::TraceId, Signal::Metrics) => Key::SERVICE_NAME,
            (RoutingKey::Metric, Signal::Traces | Signal::Logs) => Key::TraceId,
            _ => self.key(),
        }
    }

    /// What a batch is split by.
    pub fn key(&self) -> Key<'_> {
        match self {
            RoutingKey::TraceId => Key::TraceId,
            RoutingKey::Service => Key::SERVICE_NAME,
            RoutingKey::Metric => Key::MetricName,
            RoutingKey::Resource(attribute) => Key::Resource(attribute),
            RoutingKey::Attribute(attribute) => Key::Attribute(attribute),
        }
    }
}
