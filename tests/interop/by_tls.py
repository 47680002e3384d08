"""TLS at the receiver's doors, with the TLS of others: BoringSSL in grpcio, OpenSSL in Node, curl
and by itself, Go's own. What they send through it arrives as the twin's; who must not come in hears
so at once and is counted.
"""

import itertools
import json
import re
import socket
import ssl
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import grpc

import compare
import papers
import telemetrygen
from bench import Bench, Load, exporter_to, flow
from by_curl import EXAMPLES, FILES
from by_grpcurl import BINARY as GRPCURL
from by_grpcurl import SERVICES, with_base64
from collector import Collector
from forebay import Forebay, Setup
from processes import LOOPBACK, Failed, run, wait_until

# After `bench`, which knows where the senders are.
import requests_by_hand as by_hand  # isort: skip
from arguments import Ledger  # isort: skip
from raw_grpc import PATHS  # isort: skip

PREFIX = "forebay_receiver_tls_"
HANDSHAKES, FAILURES = f"{PREFIX}handshakes", f"{PREFIX}handshake_failures"
# Whoever is at the wrong door is sent away long before any timeout of ours.
AWAY_S_MAX = 8.0
# For a client's start, handshake and end.
CLIENT_S_MAX = 15.0
CURL_TLS_FAILED = (35,)


def sent_through(load: Load, is_mutual: bool) -> Callable[[Bench], str]:
    """A sender as it is, told what to trust and, for mutual TLS, what to show."""

    def body(bench: Bench) -> str:
        ours = papers.Authority(bench.folder)
        block = papers.server_block(ours.issue("server"), ours if is_mutual else None)
        load.env = papers.environment(ours, ours.issue("client") if is_mutual else None)
        return flow(
            bench, load, lambda downstream: Setup([exporter_to("grpc", downstream)], tls=block)
        )

    return body


def through_telemetrygen(how: str) -> Callable[[Bench], str]:
    """Go's TLS, both sides with certificates."""

    def body(bench: Bench) -> str:
        stage = set_up(bench, is_mutual=True)
        client = stage.ours.issue("client")
        words = ["--ca-cert", stage.ours.file, "--mtls"]
        words += ["--client-cert", client.cert, "--client-key", client.key]
        for signal in telemetrygen.SENT:
            argv = telemetrygen.argv(signal, how, stage.forebay, words)
            run(argv, f"telemetrygen {signal}")
        return stage.end(telemetrygen.SENT)

    return body


def through_grpcurl(bench: Bench) -> str:
    """Reflection and export, over TLS and over mutual TLS."""
    notes = []
    for is_mutual in (False, True):
        stage = set_up(bench, is_mutual, name=f"mutual-{is_mutual}".lower())
        words = ["-cacert", stage.ours.file, "-max-time", 10]
        if is_mutual:
            client = stage.ours.issue("client")
            words += ["-cert", client.cert, "-key", client.key]
        for signal, name in FILES.items():
            text = json.loads((EXAMPLES / name).read_text(encoding="utf-8"))
            message = json.dumps(with_base64(text))
            method = f"{SERVICES[signal]}/Export"
            argv = [GRPCURL, *words, "-d", message, stage.forebay.grpc, method]
            answer = run(argv, f"grpcurl {method}")
            if json.loads(answer) != {}:
                raise Failed(f"{name} was answered {answer!r}")
        notes.append(stage.end({"traces": 3, "metrics": 4, "logs": 3}))
    return "; ".join(notes)


def s_client(bench: Bench) -> str:
    """OpenSSL's own client: each version speaks each protocol, and resumes; older versions and
    other protocols are not spoken."""
    stage = set_up(bench)
    for version, protocol in itertools.product(("tls1_2", "tls1_3"), ("h2", "http/1.1")):
        session = bench.folder / f"{version}-{protocol.replace('/', '-')}"
        how = [f"-{version}", "-alpn", protocol]
        for begun, word in (("New", "-sess_out"), ("Reused", "-sess_in")):
            said = openssl(stage, *how, word, session)
            must_say(said, rf"^{begun}, TLSv1\.{version[-1]}", rf"^ALPN protocol: {protocol}$")
            must_say(said, r"Verify return code: 0 \(ok\)")
    must_say(openssl(stage, "-tls1_3", "-alpn", "spdy/1"), "alert no application protocol")
    for old in ("-tls1", "-tls1_1"):
        # Without the signature algorithms of 1.2 rustls does not get as far as the version.
        said = openssl(stage, old, "-cipher", "ALL:@SECLEVEL=0")
        must_say(said, "alert (protocol version|handshake failure)")
    stage.forebay.wait_metric(f"{PREFIX}handshakes_resumed", count=4)
    stage.forebay.wait_metric(FAILURES, 'reason="no_common_protocol"', count=3)
    stage.forebay.wait_metric(HANDSHAKES, 'result="ok"', count=8)
    stage.end({})
    return "1.2 and 1.3, h2 and http/1.1, full and resumed; 1.0 and 1.1 are refused"


def openssl(stage: "Stage", *words) -> str:
    """What `s_client` says about a connection that it ends once it has kept a new session."""
    argv = ["openssl", "s_client", "-connect", f"{LOOPBACK}:{stage.forebay.http_port}"]
    argv += ["-CAfile", stage.ours.file, "-verify_hostname", "localhost"]
    with subprocess.Popen(
        [str(word) for word in (*argv, *words)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as child:
        try:
            if "-sess_out" in words:
                kept = words[-1]
                wait_until(lambda: file_is_full(kept), f"s_client {words} keeping a session")
            # At a line's start it ends the client.
            said, _ = child.communicate(b"Q\n", timeout=CLIENT_S_MAX)
        finally:
            child.kill()
    return said.decode(errors="replace")


def file_is_full(file: Path) -> bool:
    return file.exists() and file.read_bytes().rstrip().endswith(b"-----")


def must_say(said: str, *patterns: str) -> None:
    for pattern in patterns:
        if not re.search(pattern, said, re.MULTILINE):
            raise Failed(f"s_client does not say {pattern!r}:\n{said[-3000:]}")


def strangers(bench: Bench) -> str:
    """Mutual TLS: with no certificate, an expired one, or another CA's nobody comes in."""
    stage = set_up(bench, is_mutual=True)
    ours, theirs = stage.ours, papers.Authority(bench.folder, "theirs")
    refused = {
        "bad_certificate": None,
        "expired": ours.issue("client", expired=True),
        "unknown_ca": theirs.issue("client"),
    }
    for reason, paper in refused.items():
        for version in ("--http1.1", "--http2"):
            status = curl(stage, paper, version)
            if status != 0:
                raise Failed(f"{reason}: curl {version} was answered {status}")
        stage.forebay.wait_metric(FAILURES, f'reason="{reason}"', count=2)
        code = grpc_code(stage, paper)
        if code is not grpc.StatusCode.UNAVAILABLE:
            raise Failed(f"{reason}: grpcio got {code}")
    good, ledger = ours.issue("client"), Ledger("those let in")
    body = by_hand.make("traces", 10, ledger, bench.seed).SerializeToString()
    for version in ("--http1.1", "--http2"):
        if (status := curl(stage, good, version, body)) != 200:
            raise Failed(f"curl {version} with a certificate was answered {status}")
    if (code := grpc_code(stage, good, body)) is not grpc.StatusCode.OK:
        raise Failed(f"grpcio with a certificate got {code}")
    return f"{stage.end({'traces': 30})}; {len(refused)} kinds of strangers stay out"


def curl(stage: "Stage", client: papers.Paper | None, version: str, body: bytes = b"") -> int:
    """The status; 0: no answer came."""
    argv = ["curl", "-sS", "--max-time", "10", "--noproxy", "*", "-o", "/dev/null", version]
    argv += ["--cacert", stage.ours.file, "-w", "%{http_code}", "--data-binary", "@-"]
    if client:
        argv += ["--cert", client.cert, "--key", client.key]
    argv += ["-H", "Content-Type: application/x-protobuf", f"{stage.forebay.http}/v1/traces"]
    done = subprocess.run([str(word) for word in argv], input=body, capture_output=True, timeout=20)
    return int(done.stdout)


def grpc_code(stage: "Stage", client: papers.Paper | None, body: bytes = b"") -> grpc.StatusCode:
    """With which code grpcio ends a call."""
    files = [stage.ours.file, *([client.key, client.cert] if client else [])]
    credentials = grpc.ssl_channel_credentials(*(file.read_bytes() for file in files))
    with grpc.secure_channel(stage.forebay.grpc, credentials) as channel:
        return code_of(channel, body)


def code_of(channel: grpc.Channel, body: bytes = b"") -> grpc.StatusCode:
    call = channel.unary_unary(PATHS["traces"]).future(body, timeout=10)
    return call.code()


def wrong_doors(bench: Bench) -> str:
    """Cleartext where TLS is spoken and TLS where it is not: an end at once, and a count of it."""
    sealed = set_up(bench)
    plain = set_up(bench, name="cleartext", is_sealed=False)
    cleartext = {
        sealed.forebay.grpc_port: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        sealed.forebay.http_port: b"POST /v1/logs HTTP/1.1\r\nhost: localhost\r\n\r\n",
    }
    for port, greeting in cleartext.items():
        ends_at_once(port, greeting)
    sealed.forebay.wait_metric(FAILURES, 'reason="plaintext"', count=2)
    with grpc.insecure_channel(sealed.forebay.grpc) as channel:
        if (code := code_of(channel)) is not grpc.StatusCode.UNAVAILABLE:
            raise Failed(f"grpcio without TLS got {code}")
    hello = client_hello()
    for port in (plain.forebay.grpc_port, plain.forebay.http_port):
        ends_at_once(port, hello)
    plain.forebay.wait_metric(f"{PREFIX}on_cleartext_port", count=2)
    url = f"https://{plain.forebay.http.partition('://')[2]}/"
    run(["curl", "-sS", "-k", "--noproxy", "*", url], "curl with TLS", codes=CURL_TLS_FAILED)
    plain.end({})
    sealed.end({})
    return "both wrong ways end at once, at both doors"


def ends_at_once(port: int, greeting: bytes) -> None:
    begun = time.monotonic()
    with socket.create_connection((LOOPBACK, port), timeout=AWAY_S_MAX) as connection:
        connection.sendall(greeting)
        try:
            while connection.recv(4096):
                pass
        except ConnectionResetError:
            pass
    if (took_s := time.monotonic() - begun) > AWAY_S_MAX:
        raise Failed(f"{greeting[:16]!r} at port {port}: an end after {took_s:.1f} s")


def client_hello() -> bytes:
    out = ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(
        ssl.MemoryBIO(), out, server_hostname="localhost"
    )
    try:
        client.do_handshake()
    except ssl.SSLWantReadError:
        pass
    return out.read()


@dataclass
class Stage:
    """A forebay with TLS at both doors, and what stands behind it."""

    ours: papers.Authority
    downstream: Collector
    forebay: Forebay

    def end(self, sent: dict[str, int]) -> str:
        """Everything that was sent has arrived, by count, and nothing else."""
        ledger = self.forebay.end()
        self.downstream.end()
        requests = self.downstream.requests()
        came = {one: sum(compare.items(requests, one).values()) for one in compare.SHAPES}
        wanted = dict.fromkeys(compare.SHAPES, 0) | sent
        if came != wanted or ledger["received_items"] != sum(wanted.values()):
            raise Failed(f"{came} came, {wanted} were sent; {ledger['received_items']} received")
        return f"{came['traces']} spans, {came['metrics']} points, {came['logs']} logs"


def set_up(
    bench: Bench,
    is_mutual: bool = False,
    kind: str = "ecdsa",
    name: str = "tls",
    is_sealed: bool = True,
) -> Stage:
    folder = bench.folder / name
    folder.mkdir()
    ours = papers.Authority(folder)
    block = papers.server_block(ours.issue("server", kind), ours if is_mutual else None)
    downstream = bench.collector(f"{name}-downstream")
    setup = Setup([exporter_to("grpc", downstream)], tls=block if is_sealed else None)
    forebay = bench.forebay(setup, name)
    return Stage(ours, downstream, forebay)
