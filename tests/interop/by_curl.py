"""curl as a newcomer uses it, with the example files of deploy/local."""

import json
import re
import time
import urllib.request
from collections import Counter

import compare
from bench import Bench, exporter_to
from forebay import EXIT_S_MAX, REPOSITORY, Setup, balanced, forebay_binary, ledger_in
from processes import LOOPBACK, Failed, Server, answers_200, listens, run, wait_until

EXAMPLES = REPOSITORY / "deploy" / "local"
FILES = {"traces": "trace.json", "metrics": "metrics.json", "logs": "logs.json"}
JSON = "Content-Type: application/json"
SHOWN_S_MAX = 5.0
CLUSTER_S = 4
DEFAULT_PORTS = (4317, 4318, 8888, 13133)


def example_files(bench: Bench) -> str:
    """The three example files, as the README sends them."""
    return sent_like(bench, ["-H", JSON])


def without_header(bench: Bench) -> str:
    """`curl -d @trace.json` alone says it sends a form; forebay sees that it is JSON."""
    return sent_like(bench, [])


def sent_like(bench: Bench, header: list) -> str:
    downstream, twin = bench.collector("downstream"), bench.collector("twin")
    forebay = bench.forebay(Setup([exporter_to("grpc", downstream)]))
    for signal, name in FILES.items():
        file = f"@{EXAMPLES / name}"
        post(["-d", file, "-H", JSON, f"{twin.http}/v1/{signal}"])
        answer = post(["-d", file, *header, f"{forebay.http}/v1/{signal}"])
        if json.loads(answer) not in ({}, {"partialSuccess": {}}):
            raise Failed(f"{name} was answered {answer!r}")
    forebay.end()
    downstream.end()
    twin.end()
    for signal in FILES:
        truth = compare.items(twin.requests(), signal)
        difference = compare.differ(truth, compare.items(downstream.requests(), signal))
        if not truth or difference != compare.Difference(Counter(), Counter(), Counter()):
            raise Failed(f"{signal}: {compare.describe(difference)}")
    return "trace.json, metrics.json, logs.json"


def embedded_default(bench: Bench) -> str:
    """No configuration at all: what curl sends is to be read within a second."""
    taken = [port for port in DEFAULT_PORTS if listens(port)]
    if taken:
        raise Failed(f"something else listens on {taken}, the ports of the embedded default")
    server = Server("default", [forebay_binary()], bench.folder)
    try:
        server.wait_ready(lambda: answers_200(f"http://{LOOPBACK}:13133/"))
        post(["-d", f"@{EXAMPLES / 'trace.json'}", "localhost:4318/v1/traces"])
        sent_at = time.monotonic()
        name = first_span_name()
        wait_until(lambda: name in server.tail(100_000), f"showing {name!r}", SHOWN_S_MAX)
        shown_ms = (time.monotonic() - sent_at) * 1000
        if server.end(EXIT_S_MAX) != 0:
            raise Failed(f"it did not exit with 0:\n{server.tail()}")
        balanced(ledger_in(server.stdout_path.read_text(errors="replace")))
    finally:
        server.kill()
    return f"shown after {shown_ms:.0f} ms"


def local_cluster(bench: Bench) -> str:
    """deploy/local/cluster: one forebay before three sinks; every ledger it prints balances."""
    argv = [EXAMPLES / "cluster", "start", CLUSTER_S]
    output = run(argv, "the local cluster", CLUSTER_S + 45)
    ledgers = {
        line.split()[0]: balanced(json.loads(line.split(maxsplit=1)[1])["ledger"])
        for line in output.splitlines()
        if '"ledger"' in line
    }
    if set(ledgers) != {"front", "north", "middle", "south"}:
        raise Failed(f"ledgers of {sorted(ledgers)} only:\n{output}")
    received = {name: ledger["received_items"] for name, ledger in ledgers.items()}
    if len(set(received.values())) != 1 or received["front"] == 0:
        raise Failed(f"not every sink got everything: {received}")
    return f"{received['front']} items at the front and at each sink"


def first_span_name() -> str:
    request = json.loads((EXAMPLES / "trace.json").read_text(encoding="utf-8"))
    return request["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["name"]


def metrics(bench: Bench) -> str:
    """The Collector's names at the Prometheus address, told in our short form."""
    downstream = bench.collector("downstream")
    forebay = bench.forebay(Setup([exporter_to("grpc", downstream)], metrics_in_short=True))
    for signal, name in FILES.items():
        post(["-d", f"@{EXAMPLES / name}", "-H", JSON, f"{forebay.http}/v1/{signal}"])
    wanted = {"spans": 3, "metric_points": 4, "log_records": 3}
    wait_until(lambda: accepted(forebay.metrics_url) == wanted, f"accepted items being {wanted}", 5)
    forebay.end()
    downstream.end()
    return ", ".join(f"{count} {items}" for items, count in wanted.items())


def accepted(url: str) -> dict[str, int]:
    """`otelcol_receiver_accepted_*` of the HTTP receiver, summed over what else it is split by."""
    with urllib.request.urlopen(url, timeout=5) as response:
        text = response.read().decode()
    counts: dict[str, int] = {}
    pattern = r'^otelcol_receiver_accepted_(\w+?)(?:_total)?\{([^}]*)\} (\S+)'
    for items, labels, value in re.findall(pattern, text, re.MULTILINE):
        if 'transport="http"' in labels and float(value) > 0:
            counts[items] = counts.get(items, 0) + int(float(value))
    return counts


def post(words: list) -> str:
    argv = ["curl", "-sS", "--fail-with-body", "--max-time", "10", "--noproxy", "*", *words]
    return run(argv, f"curl {' '.join(map(str, words))}")
