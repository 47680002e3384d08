"""Large bodies by curl, as clients send them that can't know better: behind `Expect: 100-continue`,
in chunks, over HTTP/2, and given up in the middle. What is given up leaves no trace.
"""

import itertools
import json
from collections.abc import Callable
from pathlib import Path

from bench import Bench, exporter_to, hold_against
from forebay import Setup
from processes import run

# After `bench`, which knows where the senders are.
import requests_by_hand as by_hand  # isort: skip
from arguments import Ledger  # isort: skip

UPLOADS = 12
# One in so many is given up first, and then sent again as another request.
ABORTED_EACH = 6
ITEMS = 20
# More than a buffer, a stream's window, or curl's own limit for `Expect`.
PADDING = "x" * (2 << 20)
# curl's exit code when its time is over, and the terms under which it is.
TIMED_OUT = 28
SLOWLY = ["--limit-rate", "50k", "--max-time", "0.3"]
KINDS = {
    "Expect: 100-continue": ["-H", "Expect: 100-continue"],
    "chunked": ["-H", "Transfer-Encoding: chunked", "-H", "Expect:"],
    "both": ["-H", "Transfer-Encoding: chunked", "-H", "Expect: 100-continue"],
}
VERSIONS = {"HTTP/1.1": ["--http1.1"], "HTTP/2": ["--http2-prior-knowledge"]}


def uploads(version: str) -> Callable[[Bench], str]:
    kinds = list(KINDS.values()) if version == "HTTP/1.1" else [KINDS["Expect: 100-continue"], []]

    def body(bench: Bench) -> str:
        downstream, twin = bench.collector("downstream"), bench.collector("twin")
        forebay = bench.forebay(Setup([exporter_to("grpc", downstream)]))
        ledger, thrown_away = Ledger("curl"), Ledger("curl")
        for nth, kind in zip(range(UPLOADS), itertools.cycle(kinds)):
            how = [*VERSIONS[version], *kind]
            if nth % ABORTED_EACH == 0:
                lost = write(bench.folder, thrown_away, bench.seed - nth)
                post([*how, *SLOWLY], forebay.http, lost, codes=(TIMED_OUT,))
            body_file = write(bench.folder, ledger, bench.seed + nth)
            post(how, forebay.http, body_file)
            post([], twin.http, body_file)
        twin.end()
        totals = forebay.end()
        downstream.end()
        ledger.write(bench.folder / "sent.json")
        sent = json.loads((bench.folder / "sent.json").read_text())
        note = hold_against(sent, twin, [downstream], totals)
        return f"{note}; {UPLOADS // ABORTED_EACH} given up"

    return body


def write(folder: Path, ledger: Ledger, seed: int) -> Path:
    request = by_hand.make("traces", ITEMS, ledger, seed)
    span = request.resource_spans[0].scope_spans[0].spans[0]
    span.attributes.add(key="padding").value.string_value = PADDING
    body_file = folder / "body"
    body_file.write_bytes(request.SerializeToString())
    return body_file


def post(how: list, url: str, body_file: Path, codes=(0,)) -> None:
    argv = ["curl", "-sS", "--fail-with-body", "--max-time", "20", "--noproxy", "*", *how]
    argv += ["-H", "Content-Type: application/x-protobuf", "--data-binary", f"@{body_file}"]
    run([*argv, f"{url}/v1/traces"], f"curl {' '.join(how)}", codes=codes)
