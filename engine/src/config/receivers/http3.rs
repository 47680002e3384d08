//! `protocols.http3` of a receiver: OTLP/HTTP over QUIC, on a UDP port, always with TLS.

use super::cors::HTTP3_CORS;
use super::tls::{self, HTTP3_TLS};
use super::{AUTH, http, listen};
use crate::config::keys::{Table, block, only, refused, value};
use crate::config::plan::Listener;
use crate::config::problem::{Place, Problem};
use crate::config::section::Section;

const ONLY_UDP: &str = "HTTP/3 is spoken over UDP alone";

pub(crate) const HTTP3: Table = Table {
    path: "receivers.otlp[/name].protocols.http3",
    keys: &[
        value(
            "endpoint",
            "host:port",
            "localhost:4318",
            "Where to listen, on UDP. The port may be that of `http`. If the host is the same, or \
            all, the answers there say that there is HTTP/3 (`Alt-Svc`).",
        ),
        value("traces_url_path", "path", "/v1/traces", "Path for traces."),
        value("metrics_url_path", "path", "/v1/metrics", "Path for metrics."),
        value("logs_url_path", "path", "/v1/logs", "Path for logs. Profiles as for `http`."),
        value("max_request_body_size", "size", "64MiB", "As for `http`."),
        value(
            "compression_algorithms",
            "list of names",
            "[\"\", gzip, zstd, zlib, snappy, \
            deflate, lz4, x-snappy-framed]",
            "As for `http`.",
        ),
        only("transport", "udp", ONLY_UDP),
        block("tls", "TLS, as for `grpc`; required, and 1.3."),
        refused("auth", AUTH),
        block("cors", "As for `http`."),
        refused("response_headers", "remove it, or add headers in a proxy in front"),
        refused("middlewares", "remove it"),
    ],
};

/// `new`: a listener of this receiver without any protocol.
pub(super) fn read(
    protocols: &Section<'_>,
    new: impl Fn(std::net::SocketAddr, String) -> Listener,
) -> Option<(Listener, Place)> {
    protocols.entry("http3")?;
    let section = protocols.block("http3", &HTTP3);
    let (address, endpoint) = listen(&section);
    if section.given("tls").is_none() {
        let what = format!("{} has no tls block", section.path);
        section.report.add(
            Problem::error(&section.place, what).why("HTTP/3 is never spoken in cleartext").hint(
                "add tls: {cert_file: ..., key_file: ...}; for a first try: openssl req -x509 \
                     -newkey rsa:2048 -nodes -days 30 -subj /CN=localhost -addext \
                     subjectAltName=DNS:localhost -addext basicConstraints=critical,CA:FALSE \
                     -keyout server.key -out server.pem",
            ),
        );
    }
    let (http, tls) = (Some(http(&section, &HTTP3_CORS)), tls::read(&section, &HTTP3_TLS, true));
    let listener = Listener { http, tls, is_quic: true, ..new(address, endpoint) };
    Some((listener, section.place_of("endpoint").clone()))
}
