"""A client of HTTP/3 made of aioquic: requests, moves, keys, and raw bytes on raw streams.

One `Connection` is one QUIC connection on a socket of its own. It keeps what the server said: the
answers by stream, and how each stream and the connection itself ended.
"""

import asyncio
import gzip
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.buffer import encode_uint_var
from aioquic.h3.connection import H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic import events
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.packet import QuicPacketType
from aioquic.tls import Epoch

from papers import Authority, Paper
from processes import LOOPBACK, Failed

ANSWER_S_MAX = 10.0
TYPES = {"proto": b"application/x-protobuf", "json": b"application/json"}


@dataclass
class Answer:
    status: int = 0
    headers: dict = field(default_factory=dict)
    body: bytes = b""


class Raw(QuicConnection):
    """Writes a frame of ours, however wrong, into the next packet, and parameters of ours behind
    its own."""

    frame: bytes = b""
    parameters: bytes = b""

    def _serialize_transport_parameters(self) -> bytes:
        return super()._serialize_transport_parameters() + self.parameters

    def _write_application(self, builder, network_path, now) -> None:
        if self.frame and self._cryptos[Epoch.ONE_RTT].send.is_valid():
            frame, self.frame = self.frame, b""
            builder.start_packet(QuicPacketType.ONE_RTT, self._cryptos[Epoch.ONE_RTT])
            # The kind's byte is written by the builder.
            builder.start_frame(frame[0], len(frame)).push_bytes(frame[1:])
        super()._write_application(builder, network_path, now)


class Connection(QuicConnectionProtocol):
    def __init__(self, quic: Raw, is_http: bool):
        super().__init__(quic)
        self.quic = quic
        self._is_http = is_http
        self.http: H3Connection | None = None
        self.handshake: events.HandshakeCompleted | None = None
        self.closed: asyncio.Future[events.ConnectionTerminated] = self._loop.create_future()
        self.resets: dict[int, asyncio.Future[int]] = {}
        self._answers: dict[int, tuple[Answer, asyncio.Future[Answer]]] = {}

    def quic_event_received(self, event: events.QuicEvent) -> None:
        if isinstance(event, events.ProtocolNegotiated) and self._is_http:
            self.http = H3Connection(self.quic)
        elif isinstance(event, events.HandshakeCompleted):
            self.handshake = event
        elif isinstance(event, events.StreamReset):
            self._reset(event.stream_id).set_result(event.error_code)
        elif isinstance(event, events.ConnectionTerminated) and not self.closed.done():
            self.closed.set_result(event)
            for _, whole in self._answers.values():
                if not whole.done():
                    whole.set_exception(ConnectionError(str(event)))
        if self.http:
            for one in self.http.handle_event(event):
                self._take(one)

    def _take(self, event) -> None:
        answer, whole = self._answers.get(event.stream_id, (None, None))
        if whole is None or whole.done():
            return
        if isinstance(event, HeadersReceived):
            headers = {name.decode(): value.decode() for name, value in event.headers}
            answer.status, answer.headers = int(headers[":status"]), headers
        elif isinstance(event, DataReceived):
            answer.body += event.data
        if event.stream_ended:
            whole.set_result(answer)

    def begin(self, path: str, headers: dict, body: bytes, method: str = "POST") -> int:
        """Sends a request, and returns its stream."""
        stream = self.expected(self.quic.get_next_available_stream_id())
        self.http.send_headers(stream, head_of(path, headers, method), end_stream=not body)
        if body:
            self.http.send_data(stream, body, end_stream=True)
        self.transmit()
        return stream

    def begin_early(self, path: str, headers: dict, body: bytes) -> int:
        """Sends a request before anything of the server is known, in 0-RTT if there are keys."""
        if not self.quic._cryptos[Epoch.ZERO_RTT].send.is_valid():
            raise Failed("the client does not try early data")
        sent = frame(0x01, section(head_of(path, headers))) + frame(0x00, body)
        return self.expected(self.bidi(sent, ends=True))

    def expected(self, stream: int) -> int:
        self._answers[stream] = (Answer(), self._loop.create_future())
        return stream

    async def answer(self, stream: int) -> Answer:
        return await asyncio.wait_for(self._answers[stream][1], ANSWER_S_MAX)

    async def post(self, path: str, form: str, body: bytes, zipped: bool = False) -> Answer:
        headers = {"content-type": TYPES[form]}
        if zipped:
            headers["content-encoding"], body = b"gzip", gzip.compress(body)
        return await self.answer(self.begin(path, headers, body))

    async def move(self, with_new_id: bool) -> None:
        """Goes on from another port: on purpose with another connection ID, or as behind a NAT
        that forgot the old port, with the same."""
        before = self._transport
        await self._loop.create_datagram_endpoint(lambda: self, local_addr=(LOOPBACK, 0))
        before.close()
        if with_new_id:
            self.quic.change_connection_id()
        await self.ping()

    def uni(self, data: bytes, ends: bool = False) -> int:
        """Opens a stream of one direction with these bytes."""
        stream = self.quic.get_next_available_stream_id(is_unidirectional=True)
        return self.raw(stream, data, ends)

    def bidi(self, data: bytes, ends: bool = False) -> int:
        return self.raw(self.quic.get_next_available_stream_id(), data, ends)

    def raw(self, stream: int, data: bytes, ends: bool = False) -> int:
        self.quic.send_stream_data(stream, data, end_stream=ends)
        self.transmit()
        return stream

    def inject(self, frame: bytes) -> None:
        """Sends this frame of QUIC."""
        self.quic.frame = frame
        self.quic.send_ping(0)
        self.transmit()

    async def close_code(self) -> int:
        """With which code the server ends the connection."""
        return (await asyncio.wait_for(asyncio.shield(self.closed), ANSWER_S_MAX)).error_code

    async def reset_code(self, stream: int) -> int:
        """With which code the server ends a stream."""
        return await asyncio.wait_for(self._reset(stream), ANSWER_S_MAX)

    def _reset(self, stream: int) -> asyncio.Future:
        return self.resets.setdefault(stream, self._loop.create_future())


def head_of(path: str, headers: dict, method: str = "POST") -> list:
    return [
        (b":method", method.encode()),
        (b":scheme", b"https"),
        (b":authority", b"localhost"),
        (b":path", path.encode()),
        *((name.encode(), value) for name, value in headers.items()),
    ]


def section(head: list) -> bytes:
    """A field section without any table; names and values may be as wrong as you like."""
    out = b"\x00\x00"
    for name, value in head:
        out += integer(0x20, 3, len(name)) + name + integer(0x00, 7, len(value)) + value
    return out


def integer(pattern: int, bits: int, value: int) -> bytes:
    """RFC 7541, 5.1: in the low bits of a byte, and in more behind it."""
    full = (1 << bits) - 1
    if value < full:
        return bytes([pattern | value])
    out, value = [pattern | full], value - full
    while value >= 0x80:
        out.append(0x80 | value & 0x7F)
        value >>= 7
    return bytes([*out, value])


def frame(kind: int, payload: bytes) -> bytes:
    return encode_uint_var(kind) + encode_uint_var(len(payload)) + payload


def terms(authority: Authority, client: Paper | None = None, **more) -> QuicConfiguration:
    made = QuicConfiguration(alpn_protocols=["h3"], server_name="localhost", **more)
    made.load_verify_locations(cafile=str(authority.file))
    made.verify_mode = ssl.CERT_REQUIRED
    if client:
        made.load_cert_chain(client.cert, client.key)
    return made


@asynccontextmanager
async def connected(
    port: int,
    told: QuicConfiguration,
    is_http: bool = True,
    tickets=None,
    early=None,
    parameters: bytes = b"",
) -> AsyncIterator[Connection]:
    """A connection, closed at the end. `early(connection)` runs before the handshake is done."""
    quic = Raw(configuration=told, session_ticket_handler=tickets)
    quic.parameters = parameters
    loop = asyncio.get_running_loop()
    _, made = await loop.create_datagram_endpoint(
        lambda: Connection(quic, is_http), local_addr=(LOOPBACK, 0)
    )
    try:
        made.connect((LOOPBACK, port), transmit=early is None)
        if early:
            early(made)
            made.transmit()
        await asyncio.wait_for(made.wait_connected(), ANSWER_S_MAX)
        yield made
    finally:
        made.close()
        made._transport.close()
