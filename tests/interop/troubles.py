"""Scenarios in which something goes wrong on purpose, and nothing acknowledged may be lost."""

import json
import subprocess

import compare
from bench import SENDER_S_MAX, Bench, Load, everything_arrives, exporter_to, flow, hold_against
from forebay import Setup
from processes import Failed, wait_until

# Small batches make many exports, so that a tenth of them is more than a few.
SMALL = {"batch_items": 16, "batch_timeout": "10ms"}


def flaky(who: str, out: str, acks: str | None = None):
    """A tenth of the Collector's answers become UNAVAILABLE or 503, half after delivery."""

    def body(bench: Bench) -> str:
        hops = []

        def setup_of(downstream) -> Setup:
            hop, port = bench.flaky(out, downstream)
            hops.append(hop)
            return Setup([exporter_to(out, downstream, port)], acks=acks, **SMALL)

        load = Load(who, "grpc", "gzip", 1000, 20)
        note = flow(bench, load, setup_of, at_least_once=True)
        faults = hops[0].faults
        if faults.instead == 0 or faults.after == 0:
            raise Failed(f"the hop made too few faults to prove anything: {faults}")
        return f"{note}; {faults}; seed {bench.seed}"

    return body


def collector_starts_late(bench: Bench) -> str:
    """Everything is acknowledged while nothing listens behind; then the Collector comes."""
    downstream, twin = bench.collector("downstream", start=False), bench.collector("twin")
    forebay = bench.forebay(Setup([exporter_to("grpc", downstream)]))
    sent = bench.send(Load("python", "grpc", "gzip"), forebay, twin)
    downstream.start()
    downstream.wait_ready()
    twin.end()
    everything_arrives(twin, downstream)
    ledger = forebay.end()
    downstream.end()
    return hold_against(sent, twin, [downstream], ledger, at_least_once=True)


def collector_restarts(bench: Bench) -> str:
    """The Collector goes away in the middle and comes back on the same ports."""
    downstream, twin = bench.collector("downstream"), bench.collector("twin")
    forebay = bench.forebay(Setup([exporter_to("grpc", downstream)], **SMALL))
    load = Load("grpcio", "grpc", "none", 3000, 10)
    path = bench.folder / "sent.json"
    sender = start_sender(load, forebay, twin, path)
    try:
        first_item_arrives(downstream)
        downstream.end()
        first = downstream.requests()
        downstream.file.rename(downstream.file.with_suffix(".first"))
        downstream.start()
        downstream.wait_ready()
        if sender.wait(SENDER_S_MAX) != 0:
            raise Failed("the sender failed")
    finally:
        sender.kill()
    sent = json.loads(path.read_text())
    ledger = forebay.end()
    downstream.end()
    twin.end()
    both = Joined(downstream.name, first + downstream.requests())
    return hold_against(sent, twin, [both], ledger, at_least_once=True)


class Joined:
    """What one Collector received in two lives."""

    def __init__(self, name: str, requests: list[dict]):
        self.name, self._requests = name, requests

    def requests(self) -> list[dict]:
        return self._requests


def terminated_under_load(bench: Bench) -> str:
    """SIGTERM while requests come in: what was acknowledged arrives, what was not is refused."""
    downstream, twin = bench.collector("downstream"), bench.collector("twin")
    forebay = bench.forebay(Setup([exporter_to("grpc", downstream)], **SMALL))
    path = bench.folder / "sent.json"
    sender = start_sender(Load("grpcio", "grpc", "none", 20_000, 10), forebay, twin, path)
    try:
        first_item_arrives(downstream)
        forebay.end()
        sender.wait(SENDER_S_MAX)
    finally:
        sender.kill()
    downstream.end()
    twin.end()
    return acknowledged_arrived(json.loads(path.read_text()), downstream)


def killed(bench: Bench) -> str:
    """With acks delivered an OK is worth what the Collector's own is: kill -9 loses nothing."""
    downstream, twin = bench.collector("downstream"), bench.collector("twin")
    setup = Setup([exporter_to("grpc", downstream)], acks="delivered", **SMALL)
    forebay = bench.forebay(setup)
    sent = bench.send(Load("grpcio", "grpc", "none", 2000, 10), forebay, twin)
    forebay.kill()
    downstream.end()
    twin.end()
    return hold_against(sent, twin, [downstream], None, at_least_once=True)


def fan_out(bench: Bench) -> str:
    """Two exporters in a pipeline: each destination gets everything."""
    first, second = bench.collector("first"), bench.collector("second")
    twin = bench.collector("twin")
    exporters = [exporter_to("grpc", first), exporter_to("http", second, compression="zstd")]
    forebay = bench.forebay(Setup(exporters))
    sent = bench.send(Load("python", "http-proto", "gzip"), forebay, twin)
    ledger = forebay.end()
    for collector in (first, second, twin):
        collector.end()
    return hold_against(sent, twin, [first, second], ledger)


def fan_out_one_down(bench: Bench) -> str:
    """A destination that is down does not keep the other one waiting."""
    up, down = bench.collector("up"), bench.collector("down", start=False)
    twin = bench.collector("twin")
    forebay = bench.forebay(Setup([exporter_to("http", down), exporter_to("grpc", up)]))
    sent = bench.send(Load("python", "grpc", "none"), forebay, twin)
    twin.end()
    everything_arrives(twin, up)
    down.start()
    down.wait_ready()
    everything_arrives(twin, down)
    ledger = forebay.end()
    for collector in (up, down):
        collector.end()
    return hold_against(sent, twin, [up, down], ledger, at_least_once=True)


def first_item_arrives(downstream) -> None:
    file = downstream.file
    wait_until(lambda: file.exists() and file.stat().st_size > 0, "the first item's arrival")


def start_sender(load: Load, forebay, twin, path) -> subprocess.Popen:
    words = [str(word) for word in load.argv(forebay.base_url(load.protocol), twin, path)]
    return subprocess.Popen(words, stdin=subprocess.DEVNULL)


def acknowledged_arrived(sent: dict, downstream) -> str:
    requests, counts = downstream.requests(), []
    for signal, ids in sent["ids"].items():
        missing = set(ids) - compare.ids(compare.items(requests, signal))
        if missing:
            raise Failed(f"{signal}: {len(missing)} of {len(ids)} acknowledged items are missing")
        counts.append(f"{len(ids)} {signal}")
    return f"acknowledged and arrived: {', '.join(counts)}; then: {'; '.join(sent['failures'])}"
