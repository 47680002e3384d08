"""telemetrygen, the Collector project's load generator: what it sent must arrive, by count."""

import compare
from bench import Bench, exporter_to
from collector import TOOLS
from forebay import Setup
from processes import Failed, run

BINARY = TOOLS / "bin" / "telemetrygen"
WORKERS = 2
EACH = 150
# A generated trace is one parent and one child.
SENT = {"traces": WORKERS * EACH * 2, "metrics": WORKERS * EACH, "logs": WORKERS * EACH}


def generated_counts(how: str, out: str):
    def body(bench: Bench) -> str:
        downstream = bench.collector("downstream")
        forebay = bench.forebay(Setup([exporter_to(out, downstream)]))
        for signal in SENT:
            run(argv(signal, how, forebay), f"telemetrygen {signal}")
        ledger = forebay.end()
        downstream.end()
        requests = downstream.requests()
        came = {one: sum(compare.items(requests, one).values()) for one in SENT}
        if came != SENT:
            raise Failed(f"{came} came, {SENT} were sent")
        if ledger and ledger["received_items"] != sum(SENT.values()):
            raise Failed(f"the ledger counts {ledger['received_items']}, not {SENT}")
        return f"{came['traces']} spans, {came['metrics']} points, {came['logs']} logs"

    return body


def argv(signal: str, how: str, forebay, security=("--otlp-insecure",)) -> list:
    endpoint = forebay.base_url(how).partition("://")[2]
    each = {"traces": "--traces", "metrics": "--metrics", "logs": "--logs"}[signal]
    return [
        *(BINARY, signal, *security, "--otlp-endpoint", endpoint),
        *("--workers", WORKERS, each, EACH, "--rate", 0),
        *(["--otlp-http"] if how == "http" else []),
    ]
