"""Sends hand-made requests with curl or nghttp, in every encoding and compression of OTLP/HTTP.

The same requests go to the twin as plain protobuf, so JSON is held against protobuf and every
compression against none. Every answer must be 200 with the empty success in the request's
encoding (S3, H2).
"""

import gzip
import re
import subprocess
import tempfile
import zlib
from pathlib import Path

import cramjam
import lz4.frame
import zstandard

import requests_by_hand as by_hand
from arguments import Ledger, parser, tls_file
from raw_grpc import post_to_twin

TYPES = {"http-proto": "application/x-protobuf", "http-json": "application/json"}
EMPTY_SUCCESS = {"http-proto": b"", "http-json": b"{}"}
CURL_FILES = {
    "--cacert": "CERTIFICATE",
    "--cert": "CLIENT_CERTIFICATE",
    "--key": "CLIENT_KEY",
}
COMPRESS = {
    "none": bytes,
    "gzip": gzip.compress,
    "zstd": zstandard.compress,
    "deflate": zlib.compress,
    "zlib": zlib.compress,
    "snappy": lambda body: bytes(cramjam.snappy.compress_raw(body)),
    "x-snappy-framed": lambda body: bytes(cramjam.snappy.compress(body)),
    "lz4": lz4.frame.compress,
}


def main() -> None:
    arguments = parser(protocols=list(TYPES))
    arguments.add_argument("--client", choices=["curl", "curl-h2", "nghttp"], default="curl")
    options = arguments.parse_args()
    ledger = Ledger(options.client)
    with tempfile.TemporaryDirectory() as folder:
        for signal in ("traces", "metrics", "logs"):
            for number in range(max(1, options.count // options.batch)):
                request = by_hand.make(signal, options.batch, ledger, number)
                post_to_twin(options.twin, signal, request.SerializeToString())
                send(options, ledger, signal, request, Path(folder))
    ledger.write(options.ledger)


def send(options, ledger, signal, request, folder: Path) -> None:
    json = options.protocol == "http-json"
    body = by_hand.to_json(request).encode() if json else request.SerializeToString()
    body_file = folder / "body"
    body_file.write_bytes(COMPRESS[options.compression](body))
    headers = {"content-type": TYPES[options.protocol]}
    if options.compression != "none":
        headers["content-encoding"] = options.compression
    ask = nghttp if options.client == "nghttp" else curl
    status, content_type, answer = ask(options, signal, headers, body_file, folder)
    if (status, content_type) != (200, TYPES[options.protocol]):
        ledger.failed(f"{signal}: answered {status} as {content_type!r}: {answer[:300]!r}")
    elif answer != EMPTY_SUCCESS[options.protocol]:
        ledger.failed(f"S3: {signal}: success was not the empty message: {answer!r}")


def curl(options, signal, headers, body_file, folder) -> tuple:
    answer_file = folder / "answer"
    answer_file.write_bytes(b"")
    argv = ["curl", "-sS", "--max-time", "10", "--noproxy", "*"]
    argv.append("--http2-prior-knowledge" if options.client == "curl-h2" else "--http1.1")
    for word, what in CURL_FILES.items():
        if file := tls_file(what):
            argv += [word, file]
    for name, value in headers.items():
        argv += ["-H", f"{name}: {value}"]
    argv += ["--data-binary", f"@{body_file}", "-o", answer_file]
    argv += ["-w", "%{http_code} %{content_type}", f"{options.via}/v1/{signal}"]
    status, _, content_type = output_of(argv).decode().partition(" ")
    return int(status), content_type, answer_file.read_bytes()


def nghttp(options, signal, headers, body_file, folder) -> tuple:
    """nghttp speaks HTTP/2 without asking first; its log shows every frame that came."""
    argv = ["nghttp", "--verbose", "--timeout=10", "--no-dep", f"--data={body_file}"]
    argv += [f"--header={name}: {value}" for name, value in headers.items()]
    log = re.sub(rb"\x1b\[[0-9;]*m", b"", output_of([*argv, f"{options.via}/v1/{signal}"]))
    status = re.search(rb"recv \(stream_id=\d+\) :status: (\d+)", log)
    content_type = re.search(rb"recv \(stream_id=\d+\) content-type: (\S+)", log)
    length = sum(map(int, re.findall(rb"recv DATA frame <length=(\d+)", log)))
    return (
        int(status.group(1)) if status else 0,
        content_type.group(1).decode() if content_type else "",
        b"{}" if length == 2 and b"{}" in log else b"?" * length,
    )


def output_of(argv) -> bytes:
    return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=20).stdout


if __name__ == "__main__":
    main()
