//! `receivers`: which addresses take OTLP.

pub(crate) mod cors;
pub(crate) mod http3;
pub(crate) mod tls;

use forebay_codec::signal::Signal;

use super::keys::{Table, block, ignored, only, refused, value};
use super::plan::{Grpc, Http, Lifetime, Listener};
use super::problem::{Place, Problem, Report};
use super::section::{Component, Section};
use super::values;

const AUTH: &str = "authentication is not supported yet: put it in front of forebay";
const ONLY_TCP: &str = "unix sockets are not supported yet: listen on a TCP address";
const NO_METADATA: &str = "client metadata is not kept yet, so nothing could use it";
const RING_BUFFERS: &str = "forebay receives into `engine.ring.buffers` of `buffer_bytes` each";
const NO_PINGS: &str = "forebay sends no pings: remove it; `max_connection_idle` ends connections \
                        whose clients have gone";
const CALM: &str =
    "remove it: pings are bounded for every client, and a usual pace is always taken";
const TIMEOUTS: &str = "it is one for all receivers: set it under `engine.limits`";

pub(crate) const KINDS: [&str; 1] = ["otlp"];

pub(crate) const OTLP: Table = Table {
    path: "receivers.otlp[/name]",
    keys: &[block("protocols", "Which protocols to take; at least one.")],
};

pub(crate) const PROTOCOLS: Table = Table {
    path: "receivers.otlp[/name].protocols",
    keys: &[
        block("grpc", "OTLP/gRPC. Absent: off; `grpc:` alone: on, with all defaults."),
        block("http", "OTLP/HTTP, protobuf and JSON. Absent: off; `http:` alone: on."),
        block("http3", "OTLP/HTTP over QUIC. Absent: off; it needs a `tls` block."),
    ],
};

pub(crate) const GRPC: Table = Table {
    path: "receivers.otlp[/name].protocols.grpc",
    keys: &[
        value(
            "endpoint",
            "host:port",
            "localhost:4317",
            "Where to listen. The same as `http`'s: \
            one shared port. An empty host is all IPv4 addresses; port 0 any free one.",
        ),
        value(
            "max_recv_msg_size_mib",
            "MiB",
            "64",
            "The largest request, after decompression. 0: \
            the default. (Collector: 4)",
        ),
        only("transport", "tcp", ONLY_TCP),
        only("include_metadata", "false", NO_METADATA),
        ignored("read_buffer_size", RING_BUFFERS),
        ignored("write_buffer_size", RING_BUFFERS),
        block("tls", "TLS. Absent: cleartext. Empty or null is a mistake."),
        refused("auth", AUTH),
        block("keepalive", "How long connections live; on a shared port, those of `http` as well."),
        refused("max_concurrent_streams", "set `engine.limits.connection_requests_max`"),
        refused("middlewares", "remove it"),
    ],
};

pub(crate) const KEEPALIVE: Table = Table {
    path: "receivers.otlp[/name].protocols.grpc.keepalive",
    keys: &[block("server_parameters", "Idle time and age."), refused("enforcement_policy", CALM)],
};

pub(crate) const SERVER_PARAMETERS: Table = Table {
    path: "receivers.otlp[/name].protocols.grpc.keepalive.server_parameters",
    keys: &[
        value(
            "max_connection_idle",
            "duration",
            "",
            "A connection without any request is closed. None: `engine.limits.idle_timeout`. 0: \
            never.",
        ),
        value(
            "max_connection_age",
            "duration",
            "",
            "Give or take a tenth, then a connection is told to leave. None: \
            `engine.limits.connection_age_max`. 0: never.",
        ),
        value(
            "max_connection_age_grace",
            "duration",
            "0s",
            "From then on, until the connection is cut. 0: it is not.",
        ),
        refused("time", NO_PINGS),
        refused("timeout", NO_PINGS),
    ],
};

pub(crate) const HTTP: Table = Table {
    path: "receivers.otlp[/name].protocols.http",
    keys: &[
        value("endpoint", "host:port", "localhost:4318", "Where to listen, as for `grpc`."),
        value("traces_url_path", "path", "/v1/traces", "Path for traces."),
        value("metrics_url_path", "path", "/v1/metrics", "Path for metrics."),
        value(
            "logs_url_path",
            "path",
            "/v1/logs",
            "Path for logs. Profiles always have \
            `/v1development/profiles`.",
        ),
        value(
            "max_request_body_size",
            "size",
            "64MiB",
            "The largest body, before and after \
            decompression. 0: the default. (Collector: 20 MiB)",
        ),
        value(
            "compression_algorithms",
            "list of names",
            "[\"\", gzip, zstd, zlib, snappy, \
            deflate, lz4, x-snappy-framed]",
            "Taken as Content-Encoding; others get 415. \
            Bodies without compression are always taken.",
        ),
        only("transport", "tcp", ONLY_TCP),
        only("include_metadata", "false", NO_METADATA),
        only("keep_alives_enabled", "true", "connections always stay open between requests"),
        block("tls", "TLS, as for `grpc`; on a shared port the same."),
        refused("auth", AUTH),
        block("cors", "Whose pages may send telemetry from browsers. Absent: none."),
        refused("response_headers", "remove it, or add headers in a proxy in front"),
        refused("read_timeout", TIMEOUTS),
        refused("read_header_timeout", TIMEOUTS),
        refused("write_timeout", TIMEOUTS),
        refused("idle_timeout", TIMEOUTS),
        refused("middlewares", "remove it"),
    ],
};

/// Names of encodings, in the order of the default list.
const ENCODINGS: [&str; 7] =
    ["gzip", "zstd", "zlib", "snappy", "deflate", "lz4", "x-snappy-framed"];

/// The most one request may hold, whatever the configuration says: 1 GiB.
const REQUEST_BYTES_MAX: u64 = 1 << 30;

const MIB: u64 = 1 << 20;

pub(crate) struct Receiver {
    pub(crate) name: String,
    pub(crate) place: Place,
    /// One to three, with their places for messages.
    pub(crate) listeners: Vec<(Listener, Place)>,
}

/// `lifetime`: of connections whose receiver says nothing of it.
pub(crate) fn read(
    components: &[Component<'_>],
    lifetime: Lifetime,
    report: &Report,
) -> Vec<Receiver> {
    let mut receivers = Vec::new();
    for component in components {
        match component.kind {
            "otlp" => receivers.push(otlp(component, receivers.len(), lifetime, report)),
            _ => report.add(component.unknown("receiver", &KINDS)),
        }
    }
    receivers
}

fn otlp(component: &Component<'_>, index: usize, lifetime: Lifetime, report: &Report) -> Receiver {
    let section =
        Section::open(component.node, component.place, component.path.as_str(), &OTLP, report);
    let protocols = section.block("protocols", &PROTOCOLS);
    let new = |address, endpoint: String| Listener {
        // Far fewer than 65,536 receivers fit into a tree of the size taken.
        receiver: u16::try_from(index).unwrap_or(u16::MAX),
        receiver_name: component.id.to_owned(),
        address,
        endpoint,
        grpc: None,
        http: None,
        is_quic: false,
        lifetime,
        tls: None,
    };
    let mut listeners: Vec<(Listener, Place)> = Vec::new();
    if protocols.entry("grpc").is_some() {
        let section = protocols.block("grpc", &GRPC);
        let (address, endpoint) = listen(&section);
        let keepalive = section.block("keepalive", &KEEPALIVE);
        let parameters = keepalive.block("server_parameters", &SERVER_PARAMETERS);
        let listener = Listener {
            grpc: Some(grpc(&section)),
            tls: tls::read(&section, &tls::GRPC_TLS, false),
            lifetime: self::lifetime(&parameters, lifetime),
            ..new(address, endpoint)
        };
        listeners.push((listener, section.place_of("endpoint").clone()));
    }
    if protocols.entry("http").is_some() {
        let section = protocols.block("http", &HTTP);
        let (address, endpoint) = listen(&section);
        let http = Some(http(&section, &cors::HTTP_CORS));
        let tls = tls::read(&section, &tls::HTTP_TLS, false);
        match listeners.first_mut() {
            Some((shared, _)) if shared.address == address && address.port() != 0 => {
                shared.http = http;
                if shared.tls != tls {
                    let what = format!("{} and grpc share a port, not their TLS", section.path);
                    let hint = "write the same tls block for both, or give each its own port";
                    report.add(Problem::error(section.place_of("tls"), what).hint(hint));
                }
            }
            _ => {
                let listener = Listener { http, tls, ..new(address, endpoint) };
                listeners.push((listener, section.place_of("endpoint").clone()));
            }
        }
    }
    listeners.extend(http3::read(&protocols, new));
    if listeners.is_empty() {
        let what = format!("{} takes no protocol", component.path);
        let hint = "add \"grpc:\" or \"http:\" under \"protocols:\"; without a value they listen \
        on localhost:4317 and localhost:4318";
        report.add(Problem::error(component.place, what).hint(hint));
    }
    Receiver { name: component.id.to_owned(), place: component.place.clone(), listeners }
}

fn listen(section: &Section<'_>) -> (std::net::SocketAddr, String) {
    let address = section.value("endpoint", values::listen_address);
    (address, section.value("endpoint", values::text))
}

fn grpc(section: &Section<'_>) -> Grpc {
    let mib = section.count("max_recv_msg_size_mib", 0..=REQUEST_BYTES_MAX / MIB);
    Grpc { request_bytes_max: bytes_or_default(mib * MIB) }
}

fn lifetime(section: &Section<'_>, default: Lifetime) -> Lifetime {
    let duration = |name| section.read(name, values::duration);
    Lifetime {
        idle_timeout: duration("max_connection_idle").unwrap_or(default.idle_timeout),
        age_max: duration("max_connection_age").unwrap_or(default.age_max),
        age_grace: section.duration("max_connection_age_grace"),
    }
}

fn http(section: &Section<'_>, cors_table: &'static Table) -> Http {
    Http {
        request_bytes_max: bytes_or_default(
            section.size("max_request_body_size", 0..=REQUEST_BYTES_MAX),
        ),
        paths: paths(section),
        encodings: encodings(section),
        cors: cors::read(section, cors_table),
    }
}

/// 0 has the Collector's meaning: not set.
fn bytes_or_default(bytes: u64) -> usize {
    let bytes = if bytes == 0 { 64 * MIB } else { bytes };
    usize::try_from(bytes).expect("at most 1 GiB")
}

fn paths(section: &Section<'_>) -> [String; 4] {
    let own = |signal: Signal| match signal {
        Signal::Traces => section.value("traces_url_path", path),
        Signal::Metrics => section.value("metrics_url_path", path),
        Signal::Logs => section.value("logs_url_path", path),
        Signal::Profiles => "/v1development/profiles".to_owned(),
    };
    let paths = Signal::ALL.map(own);
    for (index, path) in paths.iter().enumerate() {
        if paths[..index].contains(path) {
            let what = format!("{} takes two signals on the path {path}", section.path);
            let hint = "give each signal a path of its own";
            section.report.add(Problem::error(&section.place, what).hint(hint));
        }
    }
    paths
}

/// As in the Collector, a missing slash in front is added.
fn path(text: &str) -> Result<String, String> {
    let path = format!("/{}", text.strip_prefix('/').unwrap_or(text));
    match path.bytes().all(|b| b.is_ascii_graphic() && !b"?#".contains(&b)) {
        true => Ok(path),
        false => Err(format!("must be a URL path such as /v1/traces; this is \"{text}\"")),
    }
}

fn encodings(section: &Section<'_>) -> Vec<String> {
    if section.given("compression_algorithms").is_none() {
        return ENCODINGS.map(str::to_owned).to_vec();
    }
    let mut encodings = Vec::new();
    for (name, place) in section.texts("compression_algorithms") {
        match name {
            "" | "none" | "identity" => {}
            name if ENCODINGS.contains(&name) => encodings.push(name.to_owned()),
            name => {
                let what = format!("unknown compression algorithm \"{name}\"");
                let hint = format!("forebay has {}", ENCODINGS.join(", "));
                section.report.add(Problem::error(place, what).hint(hint));
            }
        }
    }
    encodings
}
