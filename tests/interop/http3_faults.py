"""What a client of HTTP/3 may do wrong, with the code that it must hear: RFC 9114, RFC 9204, and
some of RFC 9000.

Each fault gets a connection of its own, on which a good request is answered first. A fault of a
stream leaves its connection in order: the next request on it is answered too. Nothing of a faulty
request arrives, and everything else does.
"""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aioquic.quic.configuration import QuicConfiguration

from aioquic_client import Connection, frame, head_of, section, terms
from bench import Bench
from by_aioquic import Stage, set_up
from processes import Failed

AT_ONCE = 8

DATA, HEADERS, CANCEL_PUSH, SETTINGS = 0x00, 0x01, 0x03, 0x04
PUSH_PROMISE, GOAWAY, MAX_PUSH_ID = 0x05, 0x07, 0x0D
OF_HTTP2 = (0x02, 0x06, 0x08, 0x09)
CONTROL, PUSH, ENCODER, DECODER = b"\x00", b"\x01", b"\x02", b"\x03"
# A frame, a stream and a setting of kinds that mean nothing, and never will.
GREASE = 0x21

NO_ERROR, CREATION, CLOSED_CRITICAL, UNEXPECTED, FRAME_ERROR = 0x100, 0x103, 0x104, 0x105, 0x106
ID_ERROR, SETTINGS_ERROR, MISSING_SETTINGS = 0x108, 0x109, 0x10A
INCOMPLETE, MESSAGE = 0x10D, 0x10E
DECOMPRESSION, ENCODER_STREAM, DECODER_STREAM = 0x200, 0x201, 0x202
# Of QUIC itself.
STREAM_LIMIT, STREAM_STATE, FRAME_ENCODING, VIOLATION = 0x04, 0x05, 0x07, 0x0A
PARAMETER, NO_ALPN = 0x08, 0x178

# RFC 9000, 18.2: these are the server's to send, all but the last.
PARAMETERS = {
    "original_destination_connection_id": b"\x00\x08" + bytes(8),
    "stateless_reset_token": b"\x02\x10" + bytes(16),
    "preferred_address": b"\x0d\x31" + bytes(24) + b"\x08" + bytes(24),
    "retry_source_connection_id": b"\x10\x08" + bytes(8),
    "initial_max_data, twice": b"\x04\x01\x00\x04\x01\x00",
}

HEAD = head_of("/v1/logs", {"content-type": b"application/x-protobuf"})
EMPTY = frame(SETTINGS, b"")


@dataclass(frozen=True)
class Fault:
    """`act` sends it, and returns the stream that must be reset, or `None`: the connection ends."""

    name: str
    code: int
    act: Callable[[Connection], int | None | Awaitable]
    # Whether the client opens its control stream and those of QPACK, as it should.
    is_http: bool = True


def control(name: str, code: int, *frames: bytes) -> Fault:
    """On the only control stream."""
    return stream(name, code, CONTROL, joined(frames), of="control")


def stream(
    name: str, code: int, kind: bytes, behind: bytes, ends: bool = False, of: str = "stream"
) -> Fault:
    """On a stream of one direction."""

    def act(client: Connection) -> None:
        client.uni(kind + behind, ends)

    return Fault(f"{of}: {name}", code, act, is_http=False)


def twice(name: str, kind: bytes, behind: bytes = b"") -> Fault:
    def act(client: Connection) -> None:
        client.uni(kind + behind)
        client.uni(kind + behind)

    return Fault(f"stream: two {name} streams", CREATION, act, is_http=False)


def reset(name: str, kind: bytes, behind: bytes = b"") -> Fault:
    async def act(client: Connection) -> None:
        number = client.uni(kind + behind)
        # Its first bytes are to arrive: only they say what it is.
        await client.ping()
        client.quic.reset_stream(number, NO_ERROR)
        client.transmit()

    return Fault(f"stream: {name} is reset", CLOSED_CRITICAL, act, is_http=False)


def request(name: str, code: int, *frames: bytes, ends: bool = False) -> Fault:
    """On a request's stream; ends the connection."""

    def act(client: Connection) -> None:
        client.bidi(joined(frames), ends)

    return Fault(f"request: {name}", code, act)


def message(name: str, head: list, *behind: bytes) -> Fault:
    """A whole request that is malformed; ends its stream."""
    frames = joined((frame(HEADERS, section(head)), *behind))
    return Fault(f"message: {name}", MESSAGE, lambda client: client.bidi(frames, True))


def packet(name: str, code: int, *data: int) -> Fault:
    """A frame of QUIC."""
    return Fault(f"QUIC: {name}", code, lambda client: client.inject(bytes(data)))


def joined(frames) -> bytes:
    return b"".join(frames)


def without(name: bytes) -> list:
    return [pair for pair in HEAD if pair[0] != name]


def of_connections() -> list[Fault]:
    return [
        control("does not begin with SETTINGS", MISSING_SETTINGS, frame(MAX_PUSH_ID, b"\x01")),
        control("SETTINGS twice", UNEXPECTED, EMPTY, EMPTY),
        control("DATA", UNEXPECTED, EMPTY, frame(DATA, b"x")),
        control("HEADERS", UNEXPECTED, EMPTY, frame(HEADERS, section(HEAD))),
        control("PUSH_PROMISE", UNEXPECTED, EMPTY, frame(PUSH_PROMISE, b"\x00")),
        *(control(f"HTTP/2's {kind}", UNEXPECTED, EMPTY, frame(kind, b"")) for kind in OF_HTTP2),
        *(
            control(f"HTTP/2's setting {kind}", SETTINGS_ERROR, frame(SETTINGS, bytes([kind, 1])))
            for kind in (0, 2, 3, 4, 5)
        ),
        control("a setting twice", SETTINGS_ERROR, frame(SETTINGS, b"\x06\x10\x06\x10")),
        control("half a setting", FRAME_ERROR, frame(SETTINGS, b"\x06")),
        control(
            "MAX_PUSH_ID falls",
            ID_ERROR,
            EMPTY,
            *(frame(MAX_PUSH_ID, n) for n in (b"\x05", b"\x04")),
        ),
        control("GOAWAY rises", ID_ERROR, EMPTY, *(frame(GOAWAY, n) for n in (b"\x00", b"\x01"))),
        control("CANCEL_PUSH of nothing", ID_ERROR, EMPTY, frame(CANCEL_PUSH, b"\x00")),
        control("MAX_PUSH_ID and more", FRAME_ERROR, EMPTY, frame(MAX_PUSH_ID, b"\x01\x01")),
        control("MAX_PUSH_ID of nothing", FRAME_ERROR, EMPTY, frame(MAX_PUSH_ID, b"")),
        twice("control", CONTROL, EMPTY),
        twice("encoder", ENCODER),
        twice("decoder", DECODER),
        stream("a client pushes", CREATION, PUSH, b"\x00"),
        stream("control ends", CLOSED_CRITICAL, CONTROL, EMPTY, ends=True),
        stream("encoder ends", CLOSED_CRITICAL, ENCODER, b"", ends=True),
        stream("decoder ends", CLOSED_CRITICAL, DECODER, b"", ends=True),
        reset("control", CONTROL, EMPTY),
        reset("encoder", ENCODER),
        stream("table capacity above the limit", ENCODER_STREAM, ENCODER, b"\x3f\xe1\x1f"),
        stream("an entry without room", ENCODER_STREAM, ENCODER, b"\xc0\x01a"),
        stream("an entry copied that is not", ENCODER_STREAM, ENCODER, b"\x00"),
        stream("a section acknowledged that is not", DECODER_STREAM, DECODER, b"\x84"),
        stream("an increment of 0", DECODER_STREAM, DECODER, b"\x00"),
        stream("an increment beyond all", DECODER_STREAM, DECODER, b"\x01"),
        request("DATA before HEADERS", UNEXPECTED, frame(DATA, b"x")),
        *(
            request(f"frame {kind} of the control stream", UNEXPECTED, frame(kind, b"\x00"))
            for kind in (SETTINGS, GOAWAY, MAX_PUSH_ID, CANCEL_PUSH)
        ),
        request("a client promises", UNEXPECTED, frame(PUSH_PROMISE, b"\x00")),
        *(request(f"HTTP/2's {kind}", UNEXPECTED, frame(kind, b"")) for kind in OF_HTTP2),
        request(
            "DATA behind trailers",
            UNEXPECTED,
            *(frame(HEADERS, section(one)) for one in (HEAD, [(b"x-sum", b"1")])),
            frame(DATA, b"x"),
        ),
        request("a frame cut off", FRAME_ERROR, frame(HEADERS, section(HEAD))[:-3], ends=True),
        request("an entry of the dynamic table", DECOMPRESSION, frame(HEADERS, b"\x00\x00\x80")),
        request("a section that waits for one", DECOMPRESSION, frame(HEADERS, b"\x02\x00\x80")),
        request("a name of the dynamic table", DECOMPRESSION, frame(HEADERS, b"\x00\x00\x40\x01a")),
        request("static entry 99", DECOMPRESSION, frame(HEADERS, b"\x00\x00\xff\x24")),
        request("bad padding of Huffman's", DECOMPRESSION, frame(HEADERS, b"\x00\x00\x29\x00\x00")),
        request("a text cut off", DECOMPRESSION, frame(HEADERS, b"\x00\x00\x2a:me")),
    ]


def of_streams() -> list[Fault]:
    body = frame(DATA, b"\x0a\x00")
    known = (b":method", b":scheme", b":path")
    return [
        *(message(f"no {name.decode()}", without(name), body) for name in known),
        *(
            message(f"two {name.decode()}", [*HEAD[:4], dict_entry(name), *HEAD[4:]], body)
            for name in known
        ),
        message("an upper-case name", [*HEAD, (b"X-Loud", b"1")], body),
        message("an empty name", [*HEAD, (b"", b"1")], body),
        message("a line feed in a value", [*HEAD, (b"x-a", b"1\n2")], body),
        message("an unknown pseudo-header", [*HEAD[:4], (b":colour", b"red"), *HEAD[4:]], body),
        message("an answer's pseudo-header", [*HEAD[:4], (b":status", b"200"), *HEAD[4:]], body),
        message("a pseudo-header behind others", [*HEAD[:3], HEAD[4], HEAD[3]], body),
        message("an empty path", [(n, b"" if n == b":path" else v) for n, v in HEAD], body),
        message("connection: close", [*HEAD, (b"connection", b"close")], body),
        message("transfer-encoding", [*HEAD, (b"transfer-encoding", b"chunked")], body),
        message("te: gzip", [*HEAD, (b"te", b"gzip")], body),
        message("a body too short", [*HEAD, (b"content-length", b"9")], body),
        message("a body too long", [*HEAD, (b"content-length", b"1")], body),
        message("two lengths", [*HEAD, *((b"content-length", n) for n in (b"2", b"3"))], body),
        message("a pseudo-header in trailers", HEAD, body, frame(HEADERS, section([HEAD[0]]))),
        Fault("message: nothing at all", INCOMPLETE, lambda client: client.bidi(b"", True)),
        Fault(
            "message: unknown frames and no head",
            INCOMPLETE,
            lambda client: client.bidi(frame(GREASE, b"abc"), True),
        ),
    ]


def dict_entry(name: bytes) -> tuple:
    return next(pair for pair in HEAD if pair[0] == name)


def of_transport() -> list[Fault]:
    """QUIC's frames (RFC 9000, 19) that a client must not send, or not so."""
    return [
        packet("HANDSHAKE_DONE by a client", VIOLATION, 0x1E),
        packet("NEW_TOKEN by a client", VIOLATION, 0x07, 1, 0x61),
        packet("a frame of no known kind", FRAME_ENCODING, 0x3B),
        packet("STREAM on a stream of the server's", STREAM_STATE, 0x0A, 3, 1, 0x61),
        packet("MAX_STREAM_DATA on a stream we only send on", STREAM_STATE, 0x11, 2 + 4 * 7, 1),
        packet("STOP_SENDING of a stream that is not", STREAM_STATE, 0x05, 1, 0),
        packet("STREAM beyond the limit", STREAM_LIMIT, 0x0A, 0x80, 0xFF, 0xFF, 0xFC, 1, 0x61),
        packet("MAX_STREAMS of 2^62-1", FRAME_ENCODING, 0x12, *(0xFF,) * 8),
        packet(
            "an acknowledgement of what was not sent", VIOLATION, 0x02, 0x80, 0, 0xFF, 0xFF, 0, 0, 0
        ),
        packet("RETIRE_CONNECTION_ID of one that is not", VIOLATION, 0x19, 0x3F),
    ]


def each_is_told(bench: Bench) -> str:
    """All faults of connections and streams, some connections at a time."""
    stage = set_up(bench)
    faults = [*of_connections(), *of_streams(), *of_transport()]
    wrong = asyncio.run(judged(stage, faults))
    if wrong:
        raise Failed("\n".join(wrong))
    # All but those that came no further than the handshake, and the one without a fault.
    stage.quic("handshakes", len(faults) + 1)
    return f"{stage.end()}; {len(faults) + len(PARAMETERS) + 1} faults"


async def judged(stage: Stage, faults: list[Fault]) -> list[str]:
    """What was not as it should be."""
    turns = asyncio.Semaphore(AT_ONCE)

    async def one(fault: Fault) -> str:
        async with turns:
            try:
                seen = await seen_of(stage, fault)
            except (Failed, ConnectionError, TimeoutError) as error:
                seen = f"nothing: {error!r}"
        return "" if seen == fault.code else f"{fault.name}: {told(seen)}, not {told(fault.code)}"

    parameters = (misspoken(stage, name) for name in PARAMETERS)
    found = await asyncio.gather(*map(one, faults), *parameters, harmless(stage), stranger(stage))
    return [wrong for wrong in found if wrong]


async def seen_of(stage: Stage, fault: Fault) -> int:
    """The code that the client hears."""
    async with stage.connected(is_http=fault.is_http) as client:
        if fault.is_http:
            await stage.post(client, "logs")
        else:
            await client.ping()
        number = fault.act(client)
        if inspect.isawaitable(number):
            number = await number
        if number is None:
            return await client.close_code()
        code = await client.reset_code(number)
        await stage.post(client, "logs")
        return code


async def harmless(stage: Stage) -> str:
    """Frames, streams and settings of kinds that nobody knows are nothing wrong."""
    async with stage.connected() as client:
        client.uni(bytes([GREASE]) + b"whatever")
        part = stage.request("logs").SerializeToString()
        stage.twin_gets("logs", part)
        frames = (
            frame(GREASE, b"abc"),
            frame(HEADERS, section(HEAD)),
            frame(GREASE, b""),
            *(frame(DATA, part[start : start + 400]) for start in range(0, len(part), 400)),
            frame(HEADERS, section([(b"x-sum", b"1")])),
            frame(GREASE, b"z" * 100),
        )
        number = client.expected(client.bidi(joined(frames), True))
        answer = await client.answer(number)
        return "" if answer.status == 200 else f"unknown frames: {answer}"


async def stranger(stage: Stage) -> str:
    """A client of another protocol gets no further than the handshake."""
    of_another = terms(stage.authority)
    of_another.alpn_protocols = ["h9"]
    seen = await refusal(stage, of_another)
    return "" if seen == NO_ALPN else f"an unknown protocol: {told(seen)}, not {told(NO_ALPN)}"


async def misspoken(stage: Stage, name: str) -> str:
    """Nor does one with a transport parameter that is not for clients, or comes twice."""
    seen = await refusal(stage, terms(stage.authority), parameters=PARAMETERS[name])
    return "" if seen == PARAMETER else f"parameter {name}: {told(seen)}, not {told(PARAMETER)}"


async def refusal(stage: Stage, how: QuicConfiguration, **more) -> int:
    """The code that the handshake ends with."""
    made = []
    try:
        async with stage.connected(how, early=made.append, **more) as client:
            # A client is done before the server has read all of what it says.
            return await client.close_code()
    except ConnectionError:
        return await made[0].close_code()


def told(code) -> str:
    return hex(code) if isinstance(code, int) else str(code)
