"""The list of scenarios: what is sent by whom, through which configuration, under which trouble.

Each is a name and a function of a `Bench` that returns a note or raises `Failed`.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import by_aioquic
import by_curl
import by_grpcurl
import by_http3
import by_tls
import comparing
import conformance
import edge
import fleet
import http3_faults
import profiles
import proxies
import refusals
import secured
import tls_scan
import troubles
import uploads
from bench import Bench, Load, exporter_to, flow
from forebay import Setup
from telemetrygen import generated_counts

COMPRESSIONS_HTTP = ("gzip", "zstd", "deflate", "zlib", "snappy", "x-snappy-framed", "lz4")


@dataclass
class Scenario:
    name: str
    body: Callable[[Bench], str]
    # Asks for what a Collector does not do, so it cannot stand in for forebay here.
    forebay_only: bool = False


def all_scenarios() -> list[Scenario]:
    return [
        Scenario("the comparison itself sees every change", comparing.check),
        *sdks(),
        *by_hand(),
        *exporter_compressions(),
        *generators(),
        *with_trouble(),
        *fleets(),
        *answers(),
        *behind_proxies(),
        *through_tls(),
        *over_http3(),
        *with_tls(),
        *suites(),
    ]


def sdks() -> list[Scenario]:
    """Every SDK, protocol and compression, towards both exporters."""
    product = itertools.product(
        ("python", "node", "rust"),
        ("grpc", "http-proto", "http-json"),
        ("none", "gzip"),
        ("grpc", "http"),
    )
    made = [
        sent_by(f"{who} SDK", Load(who, protocol, compression), out)
        for who, protocol, compression, out in product
    ]
    zstd = [Load("rust", protocol, "zstd") for protocol in ("grpc", "http-proto")]
    return made + [sent_by("rust SDK", load, "grpc", forebay_only=True) for load in zstd]


def by_hand() -> list[Scenario]:
    """Shapes, compressions and protocol versions that SDKs leave out."""
    grpcio = [Load("grpcio", "grpc", one, 2000, 20) for one in ("none", "gzip", "deflate")]
    curl = [
        Load("curl", protocol, compression)
        for protocol in ("http-proto", "http-json")
        for compression in ("none", *COMPRESSIONS_HTTP)
    ]
    http2 = [
        Load(client, protocol, compression)
        for client in ("curl-h2", "nghttp")
        for protocol, compression in (("http-proto", "none"), ("http-json", "gzip"))
    ]
    big = Load("grpcio", "grpc", "none", 10_000, 10_000)
    return [
        *(sent_by("grpcio", load, "grpc", load.compression == "deflate") for load in grpcio),
        *(sent_by("curl", load, "http", "framed" in load.compression) for load in curl),
        *(sent_by(load.sender, load, "grpc", forebay_only=True) for load in http2),
        sent_by("grpcio, 10,000 items a request", big, "grpc", forebay_only=True),
        Scenario("grpcio -> no batching -> grpc", unbatched),
        Scenario("profiles pass through whole", profiles.pass_through, forebay_only=True),
        *(
            Scenario(f"curl, large uploads over {version}", uploads.uploads(version), True)
            for version in uploads.VERSIONS
        ),
    ]


def exporter_compressions() -> list[Scenario]:
    """What the exporters compress, the Collector reads."""
    pairs = [
        *(("grpc", one) for one in ("none", "snappy", "zstd")),
        *(("http", one) for one in ("none", "zstd", "snappy", "zlib", "deflate", "lz4")),
        *(("http-json", one) for one in ("none", "gzip")),
    ]
    load = Load("grpcio", "grpc", "gzip", 400, 40)
    return [
        sent_by(f"grpcio -> exporter with {compression}", load, out, compression=compression)
        for out, compression in pairs
    ]


def generators() -> list[Scenario]:
    return [
        Scenario(f"telemetrygen, {how} -> {out}", generated_counts(how, out))
        for how, out in (("grpc", "grpc"), ("http", "http"))
    ]


def with_trouble() -> list[Scenario]:
    return [
        *(
            Scenario(f"{who}, every tenth answer UNAVAILABLE -> {out}", troubles.flaky(who, out))
            for who in ("python", "node", "rust", "grpcio")
            for out in ("grpc", "http")
        ),
        Scenario(
            "grpcio, acks delivered, every tenth answer UNAVAILABLE -> grpc",
            troubles.flaky("grpcio", "grpc", acks="delivered"),
            forebay_only=True,
        ),
        Scenario("the Collector starts late", troubles.collector_starts_late),
        Scenario("the Collector restarts under load", troubles.collector_restarts),
        Scenario("SIGTERM under load", troubles.terminated_under_load),
        Scenario("kill -9 with acks delivered", troubles.killed, forebay_only=True),
        Scenario("fan-out to two Collectors", troubles.fan_out),
        Scenario("fan-out while one Collector is down", troubles.fan_out_one_down),
    ]


def fleets() -> list[Scenario]:
    """Several Collectors behind one exporter."""
    return [
        Scenario("a fleet whose members restart in turn", fleet.restarts, forebay_only=True),
        Scenario("a fleet of which one is killed", fleet.one_is_killed, forebay_only=True),
        Scenario("a fleet of which one hangs", fleet.one_hangs, forebay_only=True),
        Scenario("traces stay together", fleet.traces_stay_together, forebay_only=True),
    ]


def with_tls() -> list[Scenario]:
    """A Collector that wants a certificate, over both exporters."""
    return [
        Scenario(f"mutual TLS to a Collector, {out} out", partial(secured.mutual, protocol=out))
        for out in ("grpc", "http", "http-json")
    ]


def answers() -> list[Scenario]:
    return [
        Scenario("curl -d @trace.json without a header", by_curl.without_header, True),
        Scenario("curl with the example files", by_curl.example_files),
        Scenario("the embedded default shows what curl sends", by_curl.embedded_default, True),
        Scenario("the local cluster under load", by_curl.local_cluster, forebay_only=True),
        Scenario("grpcurl lists, describes, exports", by_grpcurl.reflection, forebay_only=True),
        Scenario("grpcurl asks for the health", by_grpcurl.health, forebay_only=True),
        Scenario("refusals over HTTP", refusals.over_http, forebay_only=True),
        Scenario("refusals over gRPC", refusals.over_grpc, forebay_only=True),
        Scenario("broken requests poison nobody", refusals.poison_nobody, forebay_only=True),
        Scenario("accepted items at the metrics address", by_curl.metrics, forebay_only=True),
    ]


def behind_proxies() -> list[Scenario]:
    """nginx and haproxy as HTTP/2 and HTTP/1.1 clients of forebay."""
    loads = [
        ("nginx", Load("grpcio", "grpc", "gzip", 400, 20)),
        ("nginx", Load("node", "grpc")),
        ("nginx", Load("curl", "http-proto", "none")),
        ("haproxy", Load("grpcio", "grpc", "none", 400, 20)),
        ("haproxy", Load("rust", "grpc")),
        ("haproxy", Load("python", "http-proto", "gzip")),
    ]
    streamed = Load("python", "http-json", "gzip")
    return [
        *(
            Scenario(f"{load.sender}, {load.protocol} -> {name}", proxies.in_front(name, load))
            for name, load in loads
        ),
        Scenario(
            "python, http-json -> nginx without buffering",
            proxies.in_front("nginx", streamed, buffering="off"),
        ),
    ]


def through_tls() -> list[Scenario]:
    """Clients of TLS, with and without certificates of their own."""
    loads = [
        (Load("python", "grpc", "gzip"), False),
        (Load("python", "http-proto"), True),
        (Load("node", "grpc"), True),
        (Load("node", "http-json", "gzip"), False),
        (Load("grpcio", "grpc", "none", 400, 20), True),
        (Load("curl", "http-json"), True),
        (Load("curl-h2", "http-proto", "gzip"), False),
    ]
    sent = [
        Scenario(
            f"{'mutual TLS' if is_mutual else 'TLS'}: {load.sender}, {load.protocol}",
            by_tls.sent_through(load, is_mutual),
            forebay_only=load.sender == "curl-h2",
        )
        for load, is_mutual in loads
    ]
    bodies = {
        "mutual TLS: telemetrygen, grpc": by_tls.through_telemetrygen("grpc"),
        "mutual TLS: telemetrygen, http": by_tls.through_telemetrygen("http"),
        "TLS and mutual TLS: grpcurl": by_tls.through_grpcurl,
        "TLS: OpenSSL's s_client": by_tls.s_client,
        "mutual TLS: strangers": by_tls.strangers,
        "TLS: the wrong door": by_tls.wrong_doors,
        "TLS: sslyze finds nothing weak": tls_scan.nothing_weak,
        "mutual TLS: a Collector in front -> grpc": edge.in_front("grpc"),
        "mutual TLS: a Collector in front -> http": edge.in_front("http"),
    }
    others = [Scenario(name, body, forebay_only=True) for name, body in bodies.items()]
    cors = by_http3.allowed_origin(is_http3=False)
    return [*sent, *others, Scenario("TLS: Chromium over HTTP/2, CORS", cors)]


def over_http3() -> list[Scenario]:
    """Clients of HTTP/3, which a Collector does not speak."""
    plays = {
        "aioquic, every form, many streams": by_aioquic.every_form,
        "aioquic, another port in mid-connection": by_aioquic.moves,
        "aioquic, large bodies": by_aioquic.large_body,
        "aioquic, resumption, early data, versions": by_aioquic.comes_again,
    }
    others = {
        "curl, every form": by_http3.curl,
        "curl, client certificates": by_http3.curl_with_certificates,
        "curl, led there by Alt-Svc": by_http3.curl_is_led,
        "ngtcp2's client, another port, other keys": by_http3.ngtcp2,
        "Chromium, a page posts": by_http3.chromium,
        "Chromium, a page of another origin": by_http3.other_origin,
        "Chromium, CORS": by_http3.allowed_origin(is_http3=True),
        "each fault has its code": http3_faults.each_is_told,
    }
    bodies = {name: by_aioquic.staged(play) for name, play in plays.items()} | others
    return [Scenario(f"HTTP/3: {name}", body, forebay_only=True) for name, body in bodies.items()]


def suites() -> list[Scenario]:
    return [
        *(
            Scenario(f"h2spec at the {port} port", conformance.h2spec(port), forebay_only=True)
            for port in ("grpc", "http")
        ),
        *(
            Scenario(f"httpwg at the {port} port", conformance.httpwg(port), forebay_only=True)
            for port in ("grpc", "http")
        ),
    ]


def sent_by(
    who: str, load: Load, out: str, forebay_only: bool = False, compression: str = "gzip"
) -> Scenario:
    def body(bench: Bench) -> str:
        return flow(
            bench,
            load,
            lambda downstream: Setup([exporter_to(out, downstream, compression=compression)]),
        )

    name = f"{who}, {load.protocol}, {load.compression} -> {out}"
    return Scenario(name, body, forebay_only)


def unbatched(bench: Bench) -> str:
    load = Load("grpcio", "grpc", "none", 2000, 20)
    return flow(
        bench, load, lambda downstream: Setup([exporter_to("grpc", downstream)], batch=False)
    )
