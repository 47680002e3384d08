"""A fleet of Collectors behind one exporter: its members restart, hang, die and come back.

Requests go on at a steady pace meanwhile, with acks `delivered`, so each answer says that a
Collector has the items, and how long that took.
"""

import json
import math
import signal
import statistics
import threading
import time
from dataclasses import dataclass

import compare
import grpc
from bench import Bench, hold_against
from collector import Collector
from forebay import RETRY, Setup
from processes import Failed, wait_until
from troubles import Joined

# After `bench`, which knows where the senders are.
import requests_by_hand as by_hand  # isort: skip
from arguments import Ledger  # isort: skip
from raw_grpc import PATHS, post_to_twin  # isort: skip

MEMBERS = 3
PAUSE_S = 0.01
ITEMS = 4
# A Collector writes its file every 0.1 s; what it acknowledged since then dies with it. Either may
# be late: the Collector to write, or we to note the answer.
LATE_S = 1.5
P99_S_MAX = 1.0
ANSWER_S_MAX = 30.0
TRACES = 60


@dataclass
class FleetExporter:
    """One `otlp_grpc` exporter with several endpoints."""

    members: list[Collector]
    more: str = ""

    def id(self, name: str) -> str:
        return f"otlp_grpc/{name}"

    def yaml(self, name: str) -> str:
        endpoints = ", ".join(member.grpc for member in self.members)
        return f"""\
  otlp_grpc/{name}:
    endpoints: [{endpoints}]
    tls: {{insecure: true}}
    compression: none
    timeout: 500ms
    circuit_breaker: {{recovery_timeout: 500ms}}
    health_check: {{interval: 1s}}
{RETRY}{self.more}"""


@dataclass
class BalancingExporter:
    """The Collector's `load_balancing` exporter, in its own words."""

    members: list[Collector]

    def id(self, name: str) -> str:
        return f"load_balancing/{name}"

    def yaml(self, name: str) -> str:
        hostnames = ", ".join(f'"{member.grpc}"' for member in self.members)
        return f"""\
  load_balancing/{name}:
    routing_key: traceID
    protocol: {{otlp: {{tls: {{insecure: true}}, compression: none}}}}
    resolver: {{static: {{hostnames: [{hostnames}]}}}}
"""


@dataclass
class Answer:
    """One request: which items it had, when it was sent, how long its answer took."""

    ids: set[str]
    sent_at: float
    took_s: float
    failure: str | None


class SteadySender:
    """Sends log requests at an even pace until it is told to stop."""

    def __init__(self, address: str, twin: Collector):
        self._address, self._twin = address, twin
        self._stop, self._lock = threading.Event(), threading.Lock()
        self._thread = threading.Thread(target=self._run)
        self._number = 0
        self.answers: list[Answer] = []

    def start(self) -> None:
        self._thread.start()

    def finish(self) -> None:
        self._stop.set()
        self._thread.join()

    def kill(self) -> None:
        self._stop.set()

    def answered(self) -> int:
        with self._lock:
            return len(self.answers)

    def _run(self) -> None:
        waiting = []
        with grpc.insecure_channel(self._address) as channel:
            export = channel.unary_unary(PATHS["logs"])
            while not self._stop.wait(PAUSE_S):
                waiting.append(self._send(export))
            for call in waiting:
                # The answer is read where it comes; here only its coming is waited for.
                call.exception()

    def _send(self, export):
        self._number += 1
        part = Ledger("one request")
        body = by_hand.make("logs", ITEMS, part, self._number).SerializeToString()
        post_to_twin(self._twin.http, "logs", body)
        ids, sent_at = set(part.ids["logs"]), time.monotonic()
        call = export.future(body, timeout=ANSWER_S_MAX + 5)
        call.add_done_callback(lambda done: self._note(ids, sent_at, done))
        return call

    def _note(self, ids: set[str], sent_at: float, call) -> None:
        error = call.exception()
        failure = f"{error.code()} {error.details()}" if error else None
        with self._lock:
            self.answers.append(Answer(ids, sent_at, time.monotonic() - sent_at, failure))


def restarts(bench: Bench) -> str:
    """Each member is restarted in order, under load: no item is lost, no answer is late."""

    def trouble(member, sender, lives) -> None:
        member.end()
        lives += member.requests()
        member.file.unlink()
        more_answers(sender)
        member.start()
        member.wait_ready()

    return through_trouble(bench, trouble)


def one_is_killed(bench: Bench) -> str:
    """kill -9 of each in turn: what it had written or not acknowledged is there or comes again."""
    killed_at = []

    def trouble(member, sender, lives) -> None:
        killed_at.append(time.monotonic())
        member.kill()
        more_answers(sender, 400)
        lives += member.requests(killed=True)
        member.file.unlink()
        member.start()
        member.wait_ready()

    def may_be_lost(answer: Answer) -> bool:
        answered_at = answer.sent_at + answer.took_s
        return any(abs(answered_at - at) < LATE_S for at in killed_at)

    return through_trouble(bench, trouble, may_be_lost)


def one_hangs(bench: Bench) -> str:
    """A member that is stopped, each in turn, holds its connections and answers nothing."""

    def trouble(member, sender, lives) -> None:
        member.signal(signal.SIGSTOP)
        more_answers(sender, 300)
        member.signal(signal.SIGCONT)

    return through_trouble(bench, trouble)


def through_trouble(bench: Bench, trouble, may_be_lost=lambda answer: False) -> str:
    """`trouble` comes over each member in turn, with good times before and after it."""
    members = [bench.collector(f"member{number}") for number in range(MEMBERS)]
    twin = bench.collector("twin")
    setup = Setup([FleetExporter(members)], acks="delivered", batch_items=16, batch_timeout="5ms")
    forebay = bench.forebay(setup)
    sender = bench.proxy(SteadySender(forebay.grpc, twin))
    lives: list[dict] = []
    rounds_at = []
    for member in members:
        rounds_at.append(time.monotonic())
        more_answers(sender)
        trouble(member, sender, lives)
        more_answers(sender)
    sender.finish()
    ledger = forebay.end()
    for member in members:
        member.end()
        lives += member.requests()
    twin.end()
    failures = [answer.failure for answer in sender.answers if answer.failure]
    if failures:
        raise Failed(f"{len(failures)} requests were refused, the first with: {failures[0]}")
    forgiven = set().union(*(one.ids for one in sender.answers if may_be_lost(one)))
    all_ids = set().union(*(one.ids for one in sender.answers))
    fleet = Joined("the fleet", lives)
    if forgiven:
        came = compare.ids(compare.items(lives, "logs"))
        missing = all_ids - forgiven - came
        if missing:
            raise Failed(f"{len(missing)} of {len(all_ids)} acknowledged items are nowhere")
    else:
        sent = {"ids": {"logs": list(all_ids)}}
        hold_against(sent, twin, [fleet], ledger, at_least_once=True)
    return f"{len(all_ids)} items; {in_time(sender.answers, rounds_at)}"


def in_time(answers: list[Answer], rounds_at: list[float]) -> str:
    """The 99th percentile of each round, of which the median is judged: a machine that stands
    still for a second makes one round late, a failover that is slow makes all of them late."""
    took = sorted(answer.took_s for answer in answers)
    p99s = []
    for begun, ended in zip(rounds_at, [*rounds_at[1:], math.inf]):
        of_round = [one.took_s for one in answers if begun <= one.sent_at < ended]
        p99s.append(statistics.quantiles(of_round, n=100)[98])
    shown = ", ".join(f"{p99 * 1000:.0f}" for p99 in p99s)
    text = f"p50 {took[len(took) // 2] * 1000:.0f} ms, p99 {shown} ms, {took[-1]:.2f} s"
    if statistics.median(p99s) > P99_S_MAX or took[-1] > ANSWER_S_MAX:
        raise Failed(f"answers came late: {text}")
    return text + " at most"


def more_answers(sender: SteadySender, count: int = 100) -> None:
    wanted = sender.answered() + count
    wait_until(lambda: sender.answered() >= wanted, f"{count} more answers", 60.0)


def traces_stay_together(bench: Bench) -> str:
    """The load_balancing exporter: all spans of a trace meet at one Collector."""
    members = [bench.collector(f"member{number}") for number in range(MEMBERS)]
    forebay = bench.forebay(Setup([BalancingExporter(members)], batch_items=32))
    with grpc.insecure_channel(forebay.grpc) as channel:
        export = channel.unary_unary(PATHS["traces"])
        for number in range(TRACES):
            export(part_of_every_trace(number).SerializeToString(), timeout=10)
    ledger = forebay.end()
    homes: dict[str, set[str]] = {}
    spans = 0
    for member in members:
        member.end()
        for trace in traces_in(member.requests()):
            homes.setdefault(trace, set()).add(member.name)
            spans += 1
    torn = [trace for trace, at in homes.items() if len(at) > 1]
    if torn or len(homes) != TRACES or spans != TRACES * TRACES:
        raise Failed(f"{len(torn)} of {len(homes)} traces are torn apart; {spans} spans came")
    if ledger["received_items"] != TRACES * TRACES:
        raise Failed(f"the ledger counts {ledger['received_items']}")
    shares = [sum(member.name in at for at in homes.values()) for member in members]
    if min(shares) == 0:
        raise Failed(f"a member got no trace at all: {shares}")
    return f"{TRACES} traces over {MEMBERS} members: {shares}"


def part_of_every_trace(number: int):
    """One span of each trace, so that every request has to be cut."""
    request = by_hand.ExportTraceServiceRequest()
    spans = request.resource_spans.add().scope_spans.add().spans
    for trace in range(TRACES):
        spans.add(
            trace_id=(trace + 1).to_bytes(16, "big"),
            span_id=(number + 1).to_bytes(8, "big"),
            name=f"span {number} of trace {trace}",
        )
    return request


def traces_in(requests: list[dict]):
    for text in compare.items(requests, "traces").elements():
        yield json.loads(text)["item"]["traceId"]
