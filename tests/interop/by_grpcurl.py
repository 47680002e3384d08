"""grpcurl, which has no .proto file: it asks forebay what there is, and then calls it."""

import base64
import json
import subprocess
from collections import Counter

import compare
from bench import Bench, exporter_to
from by_curl import EXAMPLES, FILES, JSON, post
from collector import TOOLS
from forebay import Setup
from processes import Failed, run, wait_until

BINARY = TOOLS / "bin" / "grpcurl"
COLLECTOR = "opentelemetry.proto.collector"
SERVICES = {
    "traces": f"{COLLECTOR}.trace.v1.TraceService",
    "metrics": f"{COLLECTOR}.metrics.v1.MetricsService",
    "logs": f"{COLLECTOR}.logs.v1.LogsService",
}
HEALTH = "grpc.health.v1.Health"
# Bytes, which OTLP's JSON writes as hex and protobuf's own JSON as base64.
IDS = ("traceId", "spanId", "parentSpanId")


def reflection(bench: Bench) -> str:
    """Lists, describes, and exports the example files: they arrive as curl's do."""
    downstream, twin = bench.collector("downstream"), bench.collector("twin")
    forebay = bench.forebay(Setup([exporter_to("grpc", downstream)]))
    listed = grpcurl([forebay.grpc, "list"]).split()
    if missing := {HEALTH, *SERVICES.values()} - set(listed):
        raise Failed(f"{missing} are not among {listed}")
    for service in listed:
        described = grpcurl([forebay.grpc, "describe", service])
        if "is a service" not in described:
            raise Failed(f"{service} is described as {described!r}")
    for signal, name in FILES.items():
        text = (EXAMPLES / name).read_text(encoding="utf-8")
        post(["-d", text, "-H", JSON, f"{twin.http}/v1/{signal}"])
        message = json.dumps(with_base64(json.loads(text)))
        answer = grpcurl(["-d", message, forebay.grpc, f"{SERVICES[signal]}/Export"])
        if json.loads(answer) != {}:
            raise Failed(f"{name} was answered {answer!r}")
    forebay.end()
    downstream.end()
    twin.end()
    for signal in FILES:
        truth = compare.items(twin.requests(), signal)
        difference = compare.differ(truth, compare.items(downstream.requests(), signal))
        if not truth or difference != compare.Difference(Counter(), Counter(), Counter()):
            raise Failed(f"{signal}: {compare.describe(difference)}")
    return f"{len(listed)} services, three example files"


def health(bench: Bench) -> str:
    """Check and List; and a Watch hears of the stop before it ends."""
    downstream = bench.collector("downstream")
    forebay = bench.forebay(Setup([exporter_to("grpc", downstream)]))
    for service in ("", SERVICES["logs"]):
        checked = call(forebay.grpc, "Check", {"service": service})
        if checked != {"status": "SERVING"}:
            raise Failed(f"{service!r} is {checked}")
    statuses = call(forebay.grpc, "List", {})["statuses"]
    if set(statuses) != {"", *SERVICES.values()}:
        raise Failed(f"{statuses} are listed")
    argv = [BINARY, "-plaintext", "-d", "{}", forebay.grpc, f"{HEALTH}/Watch"]
    path = bench.folder / "watch.stdout"
    with path.open("wb") as out:
        watch = subprocess.Popen(argv, stdout=out, stderr=subprocess.STDOUT)
    try:
        wait_until(lambda: '"SERVING"' in path.read_text(), "the watch saying SERVING")
        forebay.end()
        downstream.end()
        watch.wait(10)
    finally:
        watch.kill()
    said = path.read_text()
    if '"NOT_SERVING"' not in said or "Code: Unavailable" not in said:
        raise Failed(f"the watch said:\n{said}")
    return f"{len(statuses)} names; SERVING, NOT_SERVING, UNAVAILABLE"


def with_base64(value):
    if isinstance(value, dict):
        return {
            key: base64.b64encode(bytes.fromhex(inner)).decode()
            if key in IDS
            else with_base64(inner)
            for key, inner in value.items()
        }
    return [with_base64(one) for one in value] if isinstance(value, list) else value


def call(address: str, method: str, message: dict) -> dict:
    return json.loads(grpcurl(["-d", json.dumps(message), address, f"{HEALTH}/{method}"]))


def grpcurl(words: list) -> str:
    return run([BINARY, "-plaintext", "-max-time", 10, *words], f"grpcurl {words[-1]}")
