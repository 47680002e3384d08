"""What a client is told when it is refused, read with software that knows the protocols.

Rows of the OTLP checklist: G6 (unknown method, unknown encoding), H2 (the answer's encoding), H5
(400), H6 (a google.rpc.Status in every refusal), H9 (404, 405 with Allow, 415).
"""

import http.client
import json
import struct
from pathlib import Path

import grpc
from google.rpc import status_pb2

import compare
from bench import Bench, exporter_to
from forebay import Setup
from processes import LOOPBACK, Failed, run

# After `bench`, which knows where the senders are.
import requests_by_hand as by_hand  # isort: skip
from arguments import Ledger  # isort: skip
from raw_grpc import PATHS  # isort: skip

PROTO, JSON = "application/x-protobuf", "application/json"
TRUNCATED = b"\x0a\x7f\x12"


def over_http(bench: Bench) -> str:
    downstream = bench.collector("downstream")
    forebay = bench.forebay(Setup([exporter_to("grpc", downstream)]))
    cases = [
        # what, method, path, content type, further headers, body, wanted status
        ("truncated protobuf", "POST", "/v1/traces", PROTO, {}, TRUNCATED, 400),
        ("truncated JSON", "POST", "/v1/traces", JSON, {}, b'{"resourceSpans": [', 400),
        ("text for gzip", "POST", "/v1/logs", PROTO, {"Content-Encoding": "gzip"}, b"no", 400),
        ("unknown path", "POST", "/v1/nothing", PROTO, {}, b"", 404),
        ("wrong method", "GET", "/v1/metrics", JSON, {}, None, 405),
        ("unknown media type", "POST", "/v1/logs", "text/csv", {}, b"a,b", 415),
    ]
    for what, method, path, content_type, headers, body, wanted in cases:
        told = {"Content-Type": content_type, **headers}
        status, answer_headers, answer = ask(forebay.http_port, method, path, told, body)
        if status != wanted:
            raise Failed(f"{what}: {status} {answer[:200]!r}, not {wanted}")
        if not status_message(answer_headers, answer):
            raise Failed(f"{what}: no message in {answer!r}")
        if content_type in (PROTO, JSON) and answer_headers["Content-Type"] != content_type:
            raise Failed(f"{what}: answered in {answer_headers['Content-Type']}")
        if status == 405 and "POST" not in answer_headers.get("Allow", ""):
            raise Failed(f"{what}: no Allow: {dict(answer_headers)}")
    forebay.end()
    downstream.end()
    nothing_came(downstream)
    return f"{len(cases)} refusals, each with a Status"


def ask(port: int, method: str, path: str, headers: dict, body) -> tuple:
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=10)
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def status_message(headers, answer: bytes) -> str:
    """The message of the google.rpc.Status, in whichever encoding the answer says it is in."""
    content_type = headers.get("Content-Type", "").partition(";")[0]
    if content_type == JSON:
        return json.loads(answer).get("message", "")
    if content_type == PROTO:
        return status_pb2.Status.FromString(answer).message
    raise Failed(f"the answer is {content_type!r}, which holds no Status: {answer[:200]!r}")


def over_grpc(bench: Bench) -> str:
    downstream = bench.collector("downstream")
    forebay = bench.forebay(Setup([exporter_to("grpc", downstream)]))
    with grpc.insecure_channel(forebay.grpc) as channel:
        refused(channel, PATHS["traces"], TRUNCATED, grpc.StatusCode.INVALID_ARGUMENT)
        refused(channel, "/no.such.Service/Export", b"", grpc.StatusCode.UNIMPLEMENTED)
        unknown = PATHS["logs"].replace("Export", "Import")
        refused(channel, unknown, b"", grpc.StatusCode.UNIMPLEMENTED)
    unknown_encoding(forebay.grpc_port, bench.folder / "frame")
    forebay.end()
    downstream.end()
    nothing_came(downstream)
    return "INVALID_ARGUMENT, UNIMPLEMENTED, unknown encoding"


def refused(channel, path: str, body: bytes, wanted: grpc.StatusCode) -> None:
    try:
        answer = channel.unary_unary(path)(body, timeout=10)
    except grpc.RpcError as error:
        if error.code() is not wanted or not error.details():
            raise Failed(f"{path}: {error.code()} {error.details()!r}, not {wanted}") from error
        return
    raise Failed(f"{path} took {body!r} and answered {answer!r}")


def unknown_encoding(port: int, frame: Path) -> None:
    """G6: nghttp plays a gRPC client that compresses in a way nobody knows.

    Not curl: it gives up when an answer comes, rightly, before it has sent its body.
    """
    frame.write_bytes(struct.pack(">BI", 1, 2) + b"??")
    told = ("content-type: application/grpc", "te: trailers", "grpc-encoding: br")
    log = run(
        [
            *("nghttp", "--verbose", "--timeout=10", f"--data={frame}"),
            *(f"--header={header}" for header in told),
            f"http://{LOOPBACK}:{port}{PATHS['traces']}",
        ],
        "nghttp as a gRPC client",
    )
    if "grpc-status: 12" not in log or "grpc-accept-encoding: " not in log:
        raise Failed(f"an unknown grpc-encoding was answered:\n{log}")


def poison_nobody(bench: Bench) -> str:
    """Broken and whole requests side by side on one connection: the whole ones all arrive."""
    downstream = bench.collector("downstream")
    forebay = bench.forebay(Setup([exporter_to("grpc", downstream)]))
    ledger, refusals = Ledger("whole requests"), 0
    with grpc.insecure_channel(forebay.grpc) as channel:
        export = channel.unary_unary(PATHS["traces"])
        calls = []
        for number in range(60):
            whole = by_hand.make("traces", 10, ledger, number).SerializeToString()
            # Cut inside the last field: a length that points past the end.
            calls.append((export.future(whole, timeout=10), True))
            calls.append((export.future(whole[: -1 - number % 40], timeout=10), False))
        for call, is_whole in calls:
            code = call.code()
            if is_whole and code is not grpc.StatusCode.OK:
                raise Failed(f"a whole request was answered {code} {call.details()}")
            if not is_whole and code is not grpc.StatusCode.INVALID_ARGUMENT:
                raise Failed(f"a broken request was answered {code} {call.details()}")
            refusals += not is_whole
    forebay.end()
    downstream.end()
    came = compare.items(downstream.requests(), "traces")
    if compare.ids(came) != set(ledger.ids["traces"]):
        raise Failed("what arrived is not what was sent in whole requests")
    return f"{sum(came.values())} spans arrived, {refusals} broken requests refused"


def nothing_came(downstream) -> None:
    if downstream.requests():
        raise Failed(f"something of a refused request arrived: {downstream.requests()[0]}")
