"""One scenario's processes, and the flow that nearly all scenarios are: send, end, compare.

    sender --via---> server under test --> (flaky hop) --> Collector "downstream" --> file A
       \\---twin----------------------------------------> Collector "twin"       --> file B

Both Collectors run the same binary, so whatever it changes it changes in both files: A must equal
B, item by item. The ids in the sender's own ledger show that B is complete.
"""

import json
import os
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import compare
from collector import TOOLS, Collector
from flaky_proxy import Faults, FlakyGrpc, FlakyHttp
from forebay import Exporter, Forebay, Setup
from processes import LOOPBACK, Failed, free_port, run, wait_until

HERE = Path(__file__).parent
# What the senders share is of use to some scenarios too.
sys.path.insert(0, str(HERE / "senders"))
PYTHON = TOOLS / "venv" / "bin" / "python"
SENDERS = {
    "python": [PYTHON, HERE / "senders" / "python_sdk.py"],
    "node": ["node", HERE / "node-sender" / "send.js"],
    "rust": [TOOLS / "rust-target" / "debug" / "forebay-interop-rust-sender"],
    "grpcio": [PYTHON, HERE / "senders" / "raw_grpc.py"],
    "curl": [PYTHON, HERE / "senders" / "raw_http.py", "--client", "curl"],
    "curl-h2": [PYTHON, HERE / "senders" / "raw_http.py", "--client", "curl-h2"],
    "nghttp": [PYTHON, HERE / "senders" / "raw_http.py", "--client", "nghttp"],
}
# These send the truth to the twin by a way of their own: plain protobuf over HTTP.
BY_HAND = ("grpcio", "curl", "curl-h2", "nghttp")
SENDER_S_MAX = 90


@dataclass
class Load:
    """What a sender is told."""

    sender: str
    protocol: str
    compression: str = "none"
    count: int = 200
    batch: int = 64
    # What it is to trust and to show, as `papers.environment` has it.
    env: dict = field(default_factory=dict)

    def argv(self, via_url: str, twin: Collector, ledger: Path) -> list:
        twin_url = twin.http if self.sender in BY_HAND else twin.base_url(self.protocol)
        return [
            *SENDERS[self.sender],
            *("--protocol", self.protocol, "--compression", self.compression),
            *("--via", via_url, "--twin", twin_url, "--ledger", ledger),
            *("--count", self.count, "--batch", self.batch),
        ]


@dataclass
class Bench:
    """Makes processes and ends them all, however the scenario ends."""

    subject: str
    folder: Path
    seed: int
    _made: list = field(default_factory=list)

    def collector(self, name: str, start: bool = True) -> Collector:
        made = Collector(name, self.folder)
        self._made.append(made)
        if start:
            made.start()
            made.wait_ready()
        return made

    def forebay(self, setup: Setup, name: str = "forebay") -> Forebay:
        made = Forebay(self.subject, setup, self.folder, name)
        self._made.append(made)
        made.start()
        made.wait_ready()
        return made

    def proxy(self, made):
        """Something else that listens: started here, and ended with all others."""
        self._made.append(made)
        made.start()
        return made

    def flaky(self, protocol: str, target: Collector, share: float = 0.1):
        """A flaky hop before the Collector; returns the hop and its port."""
        faults, port = Faults(self.seed, share), free_port()
        if protocol == "grpc":
            hop = FlakyGrpc(port, target.grpc, faults)
        else:
            hop = FlakyHttp(port, f"{LOOPBACK}:{target.http_port}", faults)
        hop.kill = hop.stop
        self._made.append(hop)
        hop.start()
        return hop, port

    def send(self, load: Load, via, twin: Collector) -> dict:
        """Runs the sender towards `via`, forebay or a proxy, to its end; returns its ledger, which
        must hold no failure."""
        path = self.folder / "sent.json"
        argv = load.argv(via.base_url(load.protocol), twin, path)
        run(argv, f"the {load.sender} sender", SENDER_S_MAX, env=os.environ | load.env)
        ledger = json.loads(path.read_text())
        failures = [one for one in ledger["failures"] if not self._forgives(one)]
        if failures:
            raise Failed("the sender was not answered well: " + "\n".join(failures[:5]))
        return ledger

    def _forgives(self, failure: str) -> bool:
        """The Collector sets `partial_success` to an empty message, against S3."""
        return self.subject == "collector" and "S3:" in failure

    def clear(self) -> None:
        for made in reversed(self._made):
            made.kill()


def exporter_to(protocol: str, target: Collector, port: int | None = None, **more) -> Exporter:
    own = target.grpc_port if protocol == "grpc" else target.http_port
    return Exporter(protocol, port or own, **more)


def flow(bench: Bench, load: Load, setup_of, at_least_once: bool = False) -> str:
    """One sender through one server to one Collector. `setup_of(downstream)` is the setup."""
    downstream, twin = bench.collector("downstream"), bench.collector("twin")
    forebay = bench.forebay(setup_of(downstream))
    sent = bench.send(load, forebay, twin)
    twin.end()
    if at_least_once and bench.subject == "collector":
        # At SIGTERM a Collector drops what it is trying again, so it gets the time to deliver.
        everything_arrives(twin, downstream)
    ledger = forebay.end()
    downstream.end()
    return hold_against(sent, twin, [downstream], ledger, at_least_once)


def everything_arrives(twin: Collector, downstream: Collector) -> None:
    """Waits until the running Collector has every item of the twin, which has ended."""
    truth = [compare.items(twin.requests(), signal) for signal in compare.SHAPES]

    def arrived() -> bool:
        try:
            requests = downstream.requests()
        except json.JSONDecodeError:
            # The Collector is in the middle of writing a line.
            return False
        came = [compare.items(requests, signal) for signal in compare.SHAPES]
        return all(set(sent) <= set(got) for sent, got in zip(truth, came))

    # A breaker that found nobody for long asks again within 40 s.
    wait_until(arrived, f"everything reaching {downstream.name}", deadline_s=60.0, poll_s=0.2)


def hold_against(
    sent: dict,
    twin: Collector,
    downstreams: list[Collector],
    ledger: dict | None,
    at_least_once: bool = False,
) -> str:
    """Every downstream has what the twin has, and the twin has all that was sent."""
    expected = twin.requests()
    counts, repeated = {}, 0
    for signal in compare.SHAPES:
        truth = compare.items(expected, signal)
        lost_ids = set(sent["ids"].get(signal, [])) - compare.ids(truth)
        if lost_ids:
            raise Failed(f"{signal}: the twin itself lacks {len(lost_ids)} of what was sent")
        counts[signal] = sum(truth.values())
        for downstream in downstreams:
            came = compare.items(downstream.requests(), signal)
            repeated += must_match(f"{signal} at {downstream.name}", truth, came, at_least_once)
    total = sum(counts.values())
    if ledger is not None and ledger["received_items"] != total:
        raise Failed(f"the ledger counts {ledger['received_items']} items, {total} were sent")
    note = f"{counts['traces']} spans, {counts['metrics']} points, {counts['logs']} logs"
    return note + (f", {repeated} repeated" if at_least_once else "")


def must_match(what: str, truth: Counter, came: Counter, at_least_once: bool) -> int:
    """Fails unless they are equal; repeats are allowed and counted where duplicates may be."""
    difference = compare.differ(truth, came)
    repeated = sum(difference.extra.values())
    if difference.missing or difference.unknown or (repeated and not at_least_once):
        raise Failed(f"{what}: {compare.describe(difference)}")
    return repeated

