//! `otlp_grpc` and `otlp_http`: OTLP to the next hop.

use std::time::Duration;

use forebay_codec::signal::Signal;
use forebay_exporters::destination::{
    Algorithm, Backends, Compression, Encoding, Keepalive, Kind, OtlpGrpc, OtlpHttp,
};
use forebay_exporters::discovery::dns::Dns;
use http::header::HeaderValue;
use http::uri::{Authority, Uri};

use super::endpoints::{Found, Target, authority};
use super::tls::{Way, Ways};
use super::{Made, Remote, delivery, headers};
use crate::config::keys::{Table, block, ignored, only, refused, value};
use crate::config::section::Section;
use crate::config::values;

pub(crate) mod fleet;

use fleet::{FLEET, given, grpc_fleet, guarded, http_fleet};

const NO_AUTH: &str = "authenticators are not supported: set headers.authorization";
const OWN_BUFFERS: &str = "batches are written as they are, without copies into a buffer";

pub(crate) const GRPC: Table = Table {
    path: "exporters.otlp_grpc[/name]",
    keys: &[
        value(
            "endpoint",
            "host:port, http://host:port or https://host:port",
            "",
            "One of `endpoint`, `endpoints` and `discovery` is required. Without a scheme it is \
            TLS unless `tls.insecure` is true, as for the Collector. `http://` is cleartext, \
            warned of unless `tls.insecure` is true, for the Collector has TLS there. \
            `dns:///host:port`: all \
            addresses of the name, as `discovery.dns`.",
        ),
        block("endpoints", "forebay's own: a list of such texts, or of `{endpoint, weight}`."),
        block("discovery", "forebay's own: a source that knows the endpoints."),
        block("balancing", "forebay's own: which endpoint gets a batch."),
        value(
            "balancer_name",
            "round_robin, weighted_round_robin, least_request or pick_first",
            "",
            "As gRPC names them, for `endpoint`. All but `pick_first` make of a host's name all \
            of its addresses, as `dns:///` does. None: what the name's first address is at each \
            connect.",
        ),
        block("circuit_breaker", "forebay's own: when an endpoint is left alone."),
        block("retry_budget", "forebay's own: how many retries all endpoints together may see."),
        block("health_check", "forebay's own: how endpoints are looked at."),
        block("pool", "forebay's own: how long connections live."),
        block("tls", "Whom to trust, and what to show. Absent: TLS, and the system's CAs."),
        value("compression", "gzip, zstd, snappy or none", "gzip", "Of each message."),
        value("timeout", "duration", "5s", "For one attempt."),
        value("headers", "map of texts", "{}", "Sent with each request; never shown or logged."),
        value(
            "authority",
            "host:port",
            "",
            "Sent as `:authority`. None: `tls.server_name_override`, else the endpoint's.",
        ),
        value("user_agent", "text", "", "None: forebay's name and version."),
        block("keepalive", "HTTP/2 pings; absent: none."),
        block("retry_on_failure", "When and how long to try again."),
        block("sending_queue", "What may wait, and batching."),
        value(
            "connections",
            "connections",
            "1",
            "forebay's own: HTTP/2 connections per exporter \
            core.",
        ),
        value(
            "request_bytes_max",
            "size",
            "64MiB",
            "forebay's own: larger requests are never \
            sent. Before compression; OTLP's limit for clients.",
        ),
        value(
            "dead_letter",
            "name of an exporter",
            "",
            "forebay's own: what this one refuses for good goes there, with the reason.",
        ),
        ignored("wait_for_ready", "a batch always waits in its queue for a connection"),
        ignored("read_buffer_size", OWN_BUFFERS),
        ignored("write_buffer_size", OWN_BUFFERS),
        refused("auth", NO_AUTH),
        refused("middlewares", "remove it"),
    ],
};

pub(crate) const KEEPALIVE: Table = Table {
    path: "exporters.otlp_grpc[/name].keepalive",
    keys: &[
        value("time", "duration", "", "Ping after this long without a frame. None: no pings."),
        value("timeout", "duration", "20s", "No answer within this: the connection is closed."),
        value("permit_without_stream", "true or false", "false", "Ping idle connections, too."),
    ],
};

pub(crate) const HTTP: Table = Table {
    path: "exporters.otlp_http[/name]",
    keys: &[
        value(
            "endpoint",
            "http[s]://host[:port][/path]",
            "",
            "Required, unless each signal in use \
            has its own. `/v1/traces` and so on is added. With `endpoints` or `discovery`: what \
            requests name as their host and path, and not where they go.",
        ),
        block(
            "endpoints",
            "forebay's own: a list of `http[s]://host:port` or `{endpoint, weight}`.",
        ),
        block("discovery", "forebay's own: a source that knows the endpoints."),
        block("balancing", "forebay's own: which endpoint gets a batch."),
        block("circuit_breaker", "forebay's own: when an endpoint is left alone."),
        block("retry_budget", "forebay's own: how many retries all endpoints together may see."),
        block("health_check", "forebay's own: how endpoints are looked at."),
        block("pool", "forebay's own: how long connections live."),
        value("traces_endpoint", "URL", "", "For traces, as it is; the same for the others."),
        value("metrics_endpoint", "URL", "", "For metrics."),
        value("logs_endpoint", "URL", "", "For logs."),
        value("profiles_endpoint", "URL", "", "For profiles."),
        block("tls", "Whom to trust, and what to show, where the scheme is `https`."),
        value("encoding", "proto or json", "proto", "Of each request."),
        value(
            "compression",
            "gzip, zstd, snappy, zlib, deflate, lz4 or none",
            "gzip",
            "Of each \
            body.",
        ),
        block("compression_params", "The algorithm's level."),
        value("timeout", "duration", "30s", "For one attempt."),
        value("headers", "map of texts", "{}", "Sent with each request; never shown or logged."),
        value("user_agent", "text", "", "forebay's own. None: forebay's name and version."),
        value(
            "max_conns_per_host",
            "connections",
            "0",
            "Per exporter core. 0: 8. (Collector: \
            0, no limit)",
        ),
        value("idle_conn_timeout", "duration", "90s", "Idle connections are closed after this."),
        block("retry_on_failure", "When and how long to try again."),
        block("sending_queue", "What may wait, and batching."),
        value(
            "request_bytes_max",
            "size",
            "64MiB",
            "forebay's own: larger requests are never \
            sent. Before compression; OTLP's limit for clients.",
        ),
        value(
            "dead_letter",
            "name of an exporter",
            "",
            "forebay's own: what this one refuses for good goes there, with the reason.",
        ),
        only("disable_keep_alives", "false", "connections are kept: remove it"),
        ignored("max_idle_conns", "idle connections count towards max_conns_per_host"),
        ignored("max_idle_conns_per_host", "idle connections count towards max_conns_per_host"),
        ignored("force_attempt_http2", "HTTP/1.1 is what every receiver speaks"),
        ignored("http2_read_idle_timeout", "HTTP/1.1 is spoken"),
        ignored("http2_ping_timeout", "HTTP/1.1 is spoken"),
        ignored("read_buffer_size", OWN_BUFFERS),
        ignored("write_buffer_size", OWN_BUFFERS),
        refused("auth", NO_AUTH),
        refused(
            "proxy_url",
            "proxies are not supported yet: remove it, or make the proxy the \
            endpoint",
        ),
        refused("cookies", "remove it"),
        refused("middlewares", "remove it"),
    ],
};

pub(crate) const COMPRESSION_PARAMS: Table = Table {
    path: "exporters.otlp_http[/name].compression_params",
    keys: &[value(
        "level",
        "level",
        "",
        "gzip, zlib, deflate: -1 to 9; zstd: 1 to 22. None, or \
        -1, is the algorithm's default.",
    )],
};

const GRPC_ALGORITHMS: &[(&str, Algorithm)] = &[
    ("gzip", Algorithm::Gzip),
    ("zstd", Algorithm::Zstd),
    ("snappy", Algorithm::Snappy),
    ("none", Algorithm::None),
    ("", Algorithm::None),
];

const HTTP_ALGORITHMS: &[(&str, Algorithm)] = &[
    ("gzip", Algorithm::Gzip),
    ("zstd", Algorithm::Zstd),
    ("snappy", Algorithm::Snappy),
    ("zlib", Algorithm::Zlib),
    ("deflate", Algorithm::Deflate),
    ("lz4", Algorithm::Lz4),
    ("none", Algorithm::None),
    ("", Algorithm::None),
];

const HTTP_CONNECTIONS_DEFAULT: u64 = 8;

/// By signal, below an endpoint.
const PATHS: [&str; 4] = ["v1/traces", "v1/metrics", "v1/logs", "v1development/profiles"];

pub(crate) fn grpc(section: &Section<'_>) -> Option<Made> {
    let ways = Ways::of(section);
    let found = grpc_fleet(section, &ways);
    let name = ways.authority().or_else(|| found.as_ref()?.name.clone());
    let settings = grpc_settings(section, name);
    let source_tls = found.as_ref().and_then(|found| found.source_tls.clone());
    let backends = found.map(|found| guarded(section, found, settings.timeout, true));
    let tls = ways.settled("h2", settings.authority.as_deref());
    // Last: all of the section's problems shall be found before it may be missing.
    let made = remote(section, section, section, Kind::OtlpGrpc(settings), backends, Vec::new());
    Some(Made { tls, source_tls, ..made? })
}

/// `name`: what requests call the peer unless `authority` says otherwise.
pub(crate) fn grpc_settings(section: &Section<'_>, name: Option<String>) -> OtlpGrpc {
    let algorithm = section.value("compression", values::choice(GRPC_ALGORITHMS));
    let authority = section.read("authority", |text| match text.parse::<Authority>() {
        Ok(_) if !text.contains('@') => Ok(text.to_owned()),
        _ => Err("must be a host, with or without a port".to_owned()),
    });
    OtlpGrpc {
        compression: Compression { algorithm, level: None },
        timeout: attempt_timeout(section),
        headers: headers::read(section),
        connections: connections(section.count("connections", 1..=1024)),
        keepalive: keepalive(&section.block("keepalive", &KEEPALIVE)),
        authority: authority.or(name),
        user_agent: user_agent(section),
        request_bytes_max: section.size("request_bytes_max", 1..=1 << 31),
    }
}

pub(crate) fn http(section: &Section<'_>) -> Option<Made> {
    let ways = Ways::of(section);
    let found = http_fleet(section, &ways);
    let has_fleet = given(section, &FLEET[1..]);
    let (urls, signals_missing) = match has_fleet && section.given("endpoint").is_none() {
        true => (found.as_ref().and_then(nominal_urls), Vec::new()),
        false => urls(section, &ways),
    };
    let algorithm = section.value("compression", values::choice(HTTP_ALGORITHMS));
    let level = level(&section.block("compression_params", &COMPRESSION_PARAMS), algorithm);
    const ENCODINGS: &[(&str, Encoding)] = &[("proto", Encoding::Proto), ("json", Encoding::Json)];
    let conns = match section.count("max_conns_per_host", 0..=65_536) {
        0 => HTTP_CONNECTIONS_DEFAULT,
        conns => conns,
    };
    let is_nameless = found.as_ref().is_some_and(|found| found.name.is_none());
    let settings = OtlpHttp {
        encoding: section.value("encoding", values::choice(ENCODINGS)),
        compression: Compression { algorithm, level },
        timeout: attempt_timeout(section),
        headers: headers::read(section),
        connections: connections(conns),
        idle_timeout: section.duration_above_zero("idle_conn_timeout"),
        user_agent: user_agent(section),
        request_bytes_max: section.size("request_bytes_max", 1..=1 << 31),
        urls: urls.clone().unwrap_or_default(),
        authority_of_endpoint: is_nameless && section.given("endpoint").is_none(),
        addresses: urls.as_ref().filter(|_| !has_fleet).and_then(own_addresses),
    };
    let found = match has_fleet {
        true => found,
        false => urls.and_then(|urls| Found::at(&address(&urls[0]))),
    };
    let source_tls = found.as_ref().and_then(|found| found.source_tls.clone());
    let backends = found.map(|found| guarded(section, found, settings.timeout, false));
    // Where many share a URL, its host is what each of them must prove to be.
    let named = has_fleet && !settings.authority_of_endpoint;
    let name = settings.urls[0].authority().filter(|_| named).map(ToString::to_string);
    let tls = ways.settled("http/1.1", name.as_deref());
    let kind = Kind::OtlpHttp(settings);
    let made = remote(section, section, section, kind, backends, signals_missing);
    Some(Made { tls, source_tls, ..made? })
}

/// `host:port` of a URL.
fn address(url: &Uri) -> String {
    let port_default = if url.scheme_str() == Some("https") { 443 } else { 80 };
    let port = url.port_u16().unwrap_or(port_default);
    format!("{}:{port}", url.host().unwrap_or_default())
}

/// If signals go to different hosts.
fn own_addresses(urls: &[Uri; 4]) -> Option<[String; 4]> {
    let addresses = urls.each_ref().map(address);
    addresses.windows(2).any(|pair| pair[0] != pair[1]).then_some(addresses)
}

/// `queue` and `retry` are the sections that have those blocks.
pub(crate) fn remote(
    section: &Section<'_>,
    queue: &Section<'_>,
    retry: &Section<'_>,
    kind: Kind,
    backends: Option<Backends>,
    signals_missing: Vec<Signal>,
) -> Option<Made> {
    let queue = queue.block("sending_queue", &delivery::SENDING_QUEUE);
    let speaks_grpc = matches!(kind, Kind::OtlpGrpc(_));
    let made = Made {
        queue: delivery::queue(&queue),
        retry: delivery::retry(&retry.block("retry_on_failure", &delivery::RETRY), speaks_grpc),
        remote: Some(Remote {
            batch: delivery::queue_batch(&queue),
            waits_for_result: queue.flag("wait_for_result"),
            waits_place: queue.place_of("wait_for_result").clone(),
            dead_letter: section
                .read("dead_letter", values::text)
                .map(|name| (name, section.place_of("dead_letter").clone())),
            signals_missing,
        }),
        kind,
        backends: None,
        tls: None,
        source_tls: None,
    };
    Some(Made { backends: Some(backends?), ..made })
}

fn require_endpoint(section: &Section<'_>) {
    if section.given("endpoint").is_none() {
        section.fault("endpoint", "is missing: where shall the telemetry go?");
    }
}

/// The forms a gRPC client of the Collector takes, less those that need a socket file.
fn grpc_endpoint(text: &str, ways: &Ways<'_>) -> Result<Target, String> {
    let form = "must be host:port, http://host:port or https://host:port";
    let bare = |target: &'_ str| target.strip_suffix('/').unwrap_or(target).to_owned();
    let (way, target) = match text.split_once("://") {
        Some(("http", target)) => (Some(Way::Cleartext), bare(target)),
        Some(("https", target)) => (Some(Way::Tls), bare(target)),
        Some(("dns", target)) if target.contains('@') => return Err(form.into()),
        Some(("dns", _)) => {
            let dns = Dns::of_target(text).map_err(|fault| format!("is wrong: {fault}"))?;
            ways.note(None);
            return Ok(Target::Named(dns));
        }
        Some(("passthrough", target)) => (None, target.trim_start_matches('/').to_owned()),
        Some(("unix" | "unix-abstract", _)) => {
            return Err("is a unix socket, and those are not supported yet".into());
        }
        Some(_) => return Err(form.into()),
        None if text.starts_with("unix:") => {
            return Err("is a unix socket, and those are not supported yet".into());
        }
        None => (None, text.to_owned()),
    };
    let authority = authority(&target).ok_or(form)?;
    if authority.port_u16().is_none() {
        return Err(format!("needs a port: OTLP/gRPC usually has 4317, \"{authority}\" has none"));
    }
    ways.note(way);
    Ok(Target::At(authority.to_string()))
}

/// URLs by signal, and the signals that have none. `None`: there is not one to use.
fn urls(section: &Section<'_>, ways: &Ways<'_>) -> (Option<[Uri; 4]>, Vec<Signal>) {
    let base = section.read("endpoint", |text| url(text, ways));
    let own = Signal::ALL.map(|signal| {
        let name = match signal {
            Signal::Traces => "traces_endpoint",
            Signal::Metrics => "metrics_endpoint",
            Signal::Logs => "logs_endpoint",
            Signal::Profiles => "profiles_endpoint",
        };
        section
            .read(name, |text| url(text, ways))
            .or_else(|| under(base.as_ref()?, PATHS[signal.index()]))
    });
    let missing: Vec<Signal> =
        Signal::ALL.into_iter().filter(|signal| own[signal.index()].is_none()).collect();
    let Some(any) = own.iter().flatten().next().cloned() else {
        require_endpoint(section);
        return (None, missing);
    };
    // No pipeline may use the stand-in: the assembly refuses those of a missing signal.
    (Some(own.map(|url| url.unwrap_or_else(|| any.clone()))), missing)
}

fn url(text: &str, ways: &Ways<'_>) -> Result<Uri, String> {
    let form = "must be a URL such as http://collector:4318";
    let way = match text.split_once("://") {
        Some(("http", _)) => Way::Cleartext,
        Some(("https", _)) => Way::Tls,
        _ => return Err(format!("{form}; the scheme is missing, or neither http nor https")),
    };
    let uri: Uri = text.parse().map_err(|_| form.to_owned())?;
    match uri.authority().and_then(|part| authority(part.as_str())) {
        Some(_) => {
            ways.note(Some(way));
            Ok(uri)
        }
        None => Err(format!("{form}; credentials belong into headers.authorization")),
    }
}

/// The signal's path below the base, with one slash between. A query makes no sense there.
fn under(base: &Uri, path: &str) -> Option<Uri> {
    let path = format!("{}/{path}", base.path().trim_end_matches('/'));
    let authority = base.authority()?.clone();
    let scheme = base.scheme_str().unwrap_or("http");
    Uri::builder().scheme(scheme).authority(authority).path_and_query(path).build().ok()
}

/// For endpoints that share no URL: paths are what counts of these, and the host if all of them
/// are addresses of one name.
fn nominal_urls(found: &Found) -> Option<[Uri; 4]> {
    let host = found.name.as_deref().unwrap_or("endpoint");
    let base: Uri = format!("http://{host}").parse().ok()?;
    Some(PATHS.map(|path| under(&base, path).unwrap_or_default()))
}

/// The Collector takes 0 as "wait for ever"; one attempt that never ends would hold its batch.
fn attempt_timeout(section: &Section<'_>) -> Duration {
    section.value("timeout", attempt)
}

pub(crate) fn attempt(text: &str) -> Result<Duration, String> {
    match values::duration(text)? {
        Duration::ZERO => Err("must be longer than zero: an attempt has to end".to_owned()),
        timeout => Ok(timeout),
    }
}

fn connections(count: u64) -> usize {
    usize::try_from(count).expect("the ranges are small")
}

fn user_agent(section: &Section<'_>) -> Option<String> {
    section.read("user_agent", |text| match HeaderValue::from_str(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err("must be printable text".to_owned()),
    })
}

fn keepalive(section: &Section<'_>) -> Keepalive {
    Keepalive {
        time: section.read("time", values::duration).filter(|time| !time.is_zero()),
        timeout: section.read("timeout", values::duration).filter(|time| !time.is_zero()),
        permit_without_stream: section.flag("permit_without_stream"),
    }
}

fn level(section: &Section<'_>, algorithm: Algorithm) -> Option<i32> {
    let level = section.read("level", |text| {
        text.parse::<i32>().map_err(|_| format!("must be a whole number; this is \"{text}\""))
    })?;
    let range = match algorithm {
        Algorithm::Gzip | Algorithm::Zlib | Algorithm::Deflate => 0..=9,
        Algorithm::Zstd => 1..=22,
        Algorithm::None | Algorithm::Snappy | Algorithm::Lz4 => {
            section.fault("level", "is given, but this compression has no levels");
            return None;
        }
    };
    if level == -1 {
        return None;
    }
    if !range.contains(&level) {
        let fault = format!("must lie from {} to {}", range.start(), range.end());
        section.fault("level", &fault);
    }
    Some(level)
}
