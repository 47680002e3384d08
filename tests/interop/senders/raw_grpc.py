"""Sends hand-made requests with grpcio as bare bytes, many at once on one connection.

The same requests go to the twin over plain HTTP, uncompressed. Every answer must be OK and the
empty message, which is what full success looks like (S3).
"""

import urllib.request
from pathlib import Path

import grpc

import requests_by_hand as by_hand
from arguments import Ledger, parse, tls_file

PATHS = {
    "traces": "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    "metrics": "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
    "logs": "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
}
COMPRESSION = {
    "none": grpc.Compression.NoCompression,
    "gzip": grpc.Compression.Gzip,
    "deflate": grpc.Compression.Deflate,
}
IN_FLIGHT_MAX = 32


def main() -> None:
    options = parse(protocols=["grpc"])
    ledger = Ledger("grpcio")
    with channel_to(options.via, COMPRESSION[options.compression]) as channel:
        for signal, path in PATHS.items():
            send(options, ledger, signal, channel.unary_unary(path))
    ledger.write(options.ledger)


def channel_to(url: str, compression=None) -> grpc.Channel:
    scheme, _, address = url.partition("://")
    if scheme == "http":
        return grpc.insecure_channel(address, compression=compression)
    files = (tls_file(what) for what in ("CERTIFICATE", "CLIENT_KEY", "CLIENT_CERTIFICATE"))
    papers = [Path(file).read_bytes() if file else None for file in files]
    credentials = grpc.ssl_channel_credentials(*papers)
    return grpc.secure_channel(address, credentials, compression=compression)


def send(options, ledger, signal, export) -> None:
    """Sends until all is sent or one request fails: a server that goes away is not asked again."""
    waiting = []
    for number in range(max(1, options.count // options.batch)):
        part = Ledger("one request")
        body = by_hand.make(signal, options.batch, part, number).SerializeToString()
        post_to_twin(options.twin, signal, body)
        waiting.append((export.future(body, timeout=options.timeout_s), part))
        if len(waiting) == IN_FLIGHT_MAX:
            settle(ledger, signal, waiting)
        if ledger.lost_any():
            break
    settle(ledger, signal, waiting)


def settle(ledger, signal, waiting: list) -> None:
    """Takes into the ledger what was acknowledged, and only that."""
    for call, part in waiting:
        try:
            if call.result() != b"":
                ledger.failed(f"S3: {signal}: success was not the empty message")
            ledger.add(part)
        except grpc.RpcError as error:
            ledger.failed(f"{signal} to via: {error.code()} {error.details()}")
    waiting.clear()


def post_to_twin(base_url: str, signal: str, body: bytes) -> None:
    url = f"{base_url}/v1/{signal}"
    headers = {"Content-Type": "application/x-protobuf"}
    urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=10).close()


if __name__ == "__main__":
    main()
