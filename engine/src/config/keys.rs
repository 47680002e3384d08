//! How a key is declared: once, beside the code that reads it. From the declaration come the
//! check of its name, its default, and its row in `docs/configuration.md`.

/// The keys of one map.
pub(crate) struct Table {
    /// Where the map stands, with `<...>` for what the user names: `receivers.otlp.protocols`.
    pub(crate) path: &'static str,
    pub(crate) keys: &'static [Key],
}

pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) role: Role,
    /// For values: type or unit, for people.
    pub(crate) kind: &'static str,
    /// For values: as it would be written. Empty: there is none.
    pub(crate) default: &'static str,
    /// For people: what it does; for refused keys, what to do instead.
    pub(crate) about: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Read.
    Value,
    /// A map or a list with declarations of its own.
    Block,
    /// Taken with this one value; any other is refused.
    Only,
    /// Known from the Collector, without effect here: a warning.
    Ignored,
    /// Known from the Collector and not supported: an error.
    Refused,
}

pub(crate) const fn value(
    name: &'static str,
    kind: &'static str,
    default: &'static str,
    about: &'static str,
) -> Key {
    Key { name, role: Role::Value, kind, default, about }
}

pub(crate) const fn block(name: &'static str, about: &'static str) -> Key {
    Key { name, role: Role::Block, kind: "block", default: "", about }
}

/// Takes the Collector's `name` only with the value `accepted`.
pub(crate) const fn only(name: &'static str, accepted: &'static str, about: &'static str) -> Key {
    Key { name, role: Role::Only, kind: "fixed", default: accepted, about }
}

pub(crate) const fn ignored(name: &'static str, about: &'static str) -> Key {
    Key { name, role: Role::Ignored, kind: "ignored", default: "", about }
}

pub(crate) const fn refused(name: &'static str, about: &'static str) -> Key {
    Key { name, role: Role::Refused, kind: "refused", default: "", about }
}

/// Every table, in the order of a file: what the documentation lists.
#[cfg(test)]
pub(crate) const TABLES: &[&Table] = &[
    &super::assemble::ROOT,
    &super::receivers::OTLP,
    &super::receivers::PROTOCOLS,
    &super::receivers::GRPC,
    &super::receivers::KEEPALIVE,
    &super::receivers::SERVER_PARAMETERS,
    &super::receivers::HTTP,
    &super::receivers::cors::HTTP_CORS,
    &super::receivers::tls::GRPC_TLS,
    &super::receivers::tls::HTTP_TLS,
    &super::receivers::http3::HTTP3,
    &super::receivers::cors::HTTP3_CORS,
    &super::receivers::tls::HTTP3_TLS,
    &super::receivers::tls::CERTIFICATE,
    &super::processors::BATCH,
    &super::processors::QUEUE_BATCH,
    &super::processors::QUEUE_BATCH_BATCH,
    &super::processors::MEMORY_LIMITER,
    &super::processors::attributes::ATTRIBUTES,
    &super::processors::attributes::ATTRIBUTES_ACTION,
    &super::processors::attributes::RESOURCE,
    &super::processors::attributes::RESOURCE_ACTION,
    &super::processors::filter::FILTER,
    &super::processors::filter::TRACES,
    &super::processors::filter::METRICS,
    &super::processors::filter::LOGS,
    &super::processors::sampler::SAMPLER,
    &super::exporters::otlp::GRPC,
    &super::exporters::otlp::KEEPALIVE,
    &super::exporters::otlp::HTTP,
    &super::exporters::otlp::COMPRESSION_PARAMS,
    &super::exporters::tls::TLS,
    &super::exporters::endpoints::ENDPOINT,
    &super::exporters::discovery::DISCOVERY,
    &super::exporters::discovery::STATIC,
    &super::exporters::discovery::FILE,
    &super::exporters::discovery::DNS,
    &super::exporters::discovery::DNS_SRV,
    &super::exporters::discovery::CONSUL,
    &super::exporters::discovery::ETCD,
    &super::exporters::balancing::BALANCING,
    &super::exporters::guards::CIRCUIT_BREAKER,
    &super::exporters::guards::RETRY_BUDGET,
    &super::exporters::guards::HEALTH_CHECK,
    &super::exporters::guards::POOL,
    &super::exporters::delivery::SENDING_QUEUE,
    &super::exporters::delivery::BATCH,
    &super::exporters::delivery::RETRY,
    &super::exporters::load_balancing::LOAD_BALANCING,
    &super::exporters::load_balancing::RESOLVER,
    &super::exporters::load_balancing::STATIC,
    &super::exporters::load_balancing::DNS,
    &super::exporters::load_balancing::PROTOCOL,
    &super::exporters::local::FILE,
    &super::exporters::local::ROTATION,
    &super::exporters::local::DEBUG,
    &super::exporters::local::QUEUE,
    &super::exporters::local::NOP,
    &super::connectors::FAILOVER,
    &super::connectors::ROUTING,
    &super::connectors::ROW,
    &super::connectors::SHIFT,
    &super::connectors::MIRROR,
    &super::service::HEALTH_CHECK,
    &super::service::SERVICE,
    &super::assemble::PIPELINE,
    &super::service::TELEMETRY,
    &super::service::METRICS,
    &super::service::READER,
    &super::service::PULL,
    &super::service::PULL_EXPORTER,
    &super::service::PROMETHEUS,
    &super::service::LOGS,
    &super::engine::ENGINE,
    &super::engine::CORES,
    &super::engine::RING,
    &super::engine::LIMITS,
    &super::engine::MEMORY,
    &super::engine::ACKS,
    &super::registration::REGISTRATION,
    &super::registration::CONSUL,
    &super::registration::ETCD,
    &super::engine::PRIORITIES,
    &super::engine::TENANT,
];
