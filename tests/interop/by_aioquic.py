"""aioquic posts OTLP over HTTP/3: in every form, on many streams, from changing ports, and again.

What it sends arrives as what the twin got over HTTP/1.1, item by item.
"""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass

from aioquic.quic.connection import MAX_EARLY_DATA
from aioquic.quic.packet import QuicProtocolVersion
from aioquic.tls import SessionTicket

import papers
from aioquic_client import Connection, connected, terms
from bench import Bench, exporter_to, hold_against
from collector import Collector
from forebay import Forebay, Setup
from processes import Failed

# After `bench`, which knows where the senders are.
import requests_by_hand as by_hand  # isort: skip
from arguments import Ledger  # isort: skip
from raw_grpc import post_to_twin  # isort: skip

SIGNALS = ("traces", "metrics", "logs")
EMPTY_SUCCESS = {"proto": b"", "json": b"{}"}
# So that a connection has to be found on the core that it lives on.
TWO_CORES = {"cores": {"receivers": "0,1"}}
CONNECTIONS = 4
STREAMS = 48
ITEMS = 10
LARGE_TEXT = "x" * (8 << 20)
# Of the kind that nobody may ever give a meaning (RFC 9000, section 15).
VERSION_UNKNOWN = 0x1A2A3A4A


@dataclass
class Stage:
    """A forebay with HTTP/3, what stands behind and beside it, and what was sent so far."""

    bench: Bench
    authority: papers.Authority
    server: papers.Paper
    downstream: Collector
    twin: Collector
    forebay: Forebay
    ledger: Ledger
    requests: int = 0

    def request(self, signal: str, items: int = ITEMS):
        """The next request, which must arrive."""
        self.requests += 1
        return by_hand.make(signal, items, self.ledger, self.bench.seed + self.requests)

    async def post(self, client: Connection, signal: str, form="proto", zipped=False) -> None:
        await self.send(client, signal, self.request(signal), form, zipped)

    async def send(self, client, signal, request, form="proto", zipped=False) -> None:
        plain = request.SerializeToString()
        body = by_hand.to_json(request).encode() if form == "json" else plain
        self.twin_gets(signal, plain)
        answer = await client.post(f"/v1/{signal}", form, body, zipped)
        told = answer.headers.get("content-type", "")
        if (answer.status, answer.body) != (200, EMPTY_SUCCESS[form]) or form not in told:
            raise Failed(f"{signal} as {form}: {answer}")

    def twin_gets(self, signal: str, body: bytes) -> None:
        post_to_twin(self.twin.http, signal, body)

    def connected(self, told=None, **more):
        return connected(self.forebay.http_port, told or terms(self.authority), **more)

    def quic(self, name: str, count: int) -> None:
        self.forebay.wait_metric(f"forebay_receiver_quic_{name}", count=count)

    def end(self) -> str:
        """Everything that was sent has arrived, once."""
        totals = self.forebay.end()
        self.downstream.end()
        self.twin.end()
        sent = {"ids": self.ledger.ids}
        return hold_against(sent, self.twin, [self.downstream], totals)


def staged(play: Callable[[Stage], Coroutine[None, None, str]]) -> Callable[[Bench], str]:
    """A scenario that `play` is the sender of; it returns a note."""

    def body(bench: Bench) -> str:
        stage = set_up(bench)
        note = asyncio.run(play(stage))
        return f"{stage.end()}; {note}"

    return body


def set_up(
    bench: Bench,
    client_ca: bool = False,
    over_tcp: bool = False,
    over_quic: bool = True,
    **more,
) -> Stage:
    """`client_ca`: whoever comes has to show a certificate. `over_tcp`: there is TLS as well.
    `more`: of the setup."""
    authority = papers.Authority(bench.folder)
    server = authority.issue("server")
    block = papers.server_block(server, authority if client_ca else None)
    downstream, twin = bench.collector("downstream"), bench.collector("twin")
    setup = Setup(
        [exporter_to("grpc", downstream)],
        tls=block if over_tcp else None,
        http3={"tls": block} if over_quic else None,
        engine=TWO_CORES if over_quic else {},
        **more,
    )
    forebay, ledger = bench.forebay(setup), Ledger("HTTP/3")
    return Stage(bench, authority, server, downstream, twin, forebay, ledger)


async def every_form(stage: Stage) -> str:
    """Each signal as protobuf and JSON, plain and compressed; then many streams at once, on
    several connections at once, some of which are refused."""
    async with stage.connected() as client:
        for signal in SIGNALS:
            for form, zipped in (
                ("proto", False),
                ("proto", True),
                ("json", False),
                ("json", True),
            ):
                await stage.post(client, signal, form, zipped)
    await asyncio.gather(*(many_streams(stage) for _ in range(CONNECTIONS)))
    stage.quic("handshakes", 1 + CONNECTIONS)
    return f"{stage.requests} requests on {1 + CONNECTIONS} connections"


async def many_streams(stage: Stage) -> None:
    async with stage.connected() as client:
        streams = []
        for number in range(STREAMS):
            if number % 4 == 3:
                headers = {"content-type": b"text/csv"}
                streams.append((415, client.begin("/v1/logs", headers, b"a,b")))
                continue
            body = stage.request("logs").SerializeToString()
            stage.twin_gets("logs", body)
            headers = {"content-type": b"application/x-protobuf"}
            streams.append((200, client.begin("/v1/logs", headers, body)))
        for status, stream in streams:
            answer = await client.answer(stream)
            if answer.status != status:
                raise Failed(f"stream {stream} got {answer}, not {status}")


async def moves(stage: Stage) -> str:
    """The client's port changes, with a new connection ID and without; keys change too."""
    async with stage.connected() as client:
        for number in range(6):
            await stage.post(client, SIGNALS[number % 3])
            if number % 3 == 2:
                client.request_key_update()
            else:
                await client.move(with_new_id=number % 3 == 1)
        await stage.post(client, "logs")
    stage.quic("migrations", 4)
    stage.quic("connections_accepted", 1)
    return "4 changes of port, 2 of keys, one connection"


async def large_body(stage: Stage) -> str:
    """8 MiB of text and more in one request, as it is and compressed, beside small ones."""
    async with stage.connected() as client:
        for zipped in (False, True):
            request = stage.request("traces")
            span = request.resource_spans[0].scope_spans[0].spans[0]
            span.attributes.add(key="padding").value.string_value = LARGE_TEXT
            large = stage.send(client, "traces", request, zipped=zipped)
            await asyncio.gather(large, *(stage.post(client, "logs") for _ in range(8)))
    return f"{len(LARGE_TEXT) >> 20} MiB in a request"


async def comes_again(stage: Stage) -> str:
    """Sessions resume, but a request in 0-RTT is not taken; and an unknown version is answered."""
    tickets = []
    async with stage.connected(tickets=tickets.append) as client:
        await stage.post(client, "logs")
    if len(tickets) < 2 or any(ticket.max_early_data_size for ticket in tickets):
        raise Failed(f"not two tickets that allow no early data: {tickets}")
    async with stage.connected(terms(stage.authority, session_ticket=tickets[0])) as client:
        await stage.post(client, "logs")
        must(client.handshake.session_resumed, "the session is not resumed")
    await sends_early(stage, tickets[1])
    versions = [VERSION_UNKNOWN, QuicProtocolVersion.VERSION_1]
    told = terms(stage.authority, original_version=VERSION_UNKNOWN, supported_versions=versions)
    async with stage.connected(told) as client:
        await stage.post(client, "logs")
        must(client.quic._version == QuicProtocolVersion.VERSION_1, "another version is spoken")
    stage.quic("handshakes", 4)
    return "resumed, no early data, version 1 after negotiation"


async def sends_early(stage: Stage, ticket: SessionTicket) -> None:
    """The client believes that the ticket allows early data. The server takes none, and the same
    request comes again once the handshake is done: it is taken once."""
    ticket.max_early_data_size = MAX_EARLY_DATA
    body = stage.request("logs").SerializeToString()
    stage.twin_gets("logs", body)
    headers, streams = {"content-type": b"application/x-protobuf"}, []

    def early(client: Connection) -> None:
        streams.append(client.begin_early("/v1/logs", headers, body))

    async with stage.connected(
        terms(stage.authority, session_ticket=ticket), early=early
    ) as client:
        answer = await client.answer(streams[0])
        must(not client.handshake.early_data_accepted, "early data is accepted")
        must(answer.status == 200, f"the request that came again got {answer}")


def must(holds: bool, otherwise: str) -> None:
    if not holds:
        raise Failed(otherwise)
