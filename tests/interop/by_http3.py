"""More clients of HTTP/3: curl (with ngtcp2 and BoringSSL, as curl_cffi brings it), ngtcp2's own
client (with GnuTLS), and Chromium, with pages that post OTLP.
"""

import asyncio
import base64
import json
import re
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer

from curl_cffi import CurlHttpVersion, CurlOpt, requests

import papers
from bench import Bench
from browser import Browser
from by_aioquic import EMPTY_SUCCESS, SIGNALS, Stage, must, set_up
from processes import LOOPBACK, Failed, free_port, run

# After `bench`, which knows where the senders are.
import requests_by_hand as by_hand  # isort: skip
from arguments import Ledger  # isort: skip
from raw_http import COMPRESS, TYPES  # isort: skip

ROUNDS = 3
# `CURLALTSVC_H2 | CURLALTSVC_H3`: what may be changed to.
TO_HTTP3 = 1 << 4 | 1 << 5
# Beyond what every page may send.
ALLOWED_HEADERS = ["Content-Type", "Content-Encoding"]
# ngtcp2's client can't say what it sends.
UNTYPED = 415
UNTYPED_REQUESTS = 20


def curl(bench: Bench) -> str:
    """Every signal, form and compression over one connection."""
    stage = set_up(bench)
    with over_http3(stage.authority) as session:
        for signal in SIGNALS:
            for form in ("proto", "json"):
                for encoding in ("none", "gzip", "zstd"):
                    spoken = curl_posts(stage, session, signal, form, encoding)
                    must(spoken == CurlHttpVersion.V3, f"{signal} came as {spoken}")
    stage.quic("connections_accepted", 1)
    return f"{stage.end()}; {stage.requests} requests on one connection"


def curl_posts(stage: Stage, session, signal: str, form: str, encoding: str = "none") -> int:
    """Returns the version of HTTP that was spoken."""
    request = stage.request(signal)
    plain = request.SerializeToString()
    stage.twin_gets(signal, plain)
    body = by_hand.to_json(request).encode() if form == "json" else plain
    headers = {"content-type": TYPES[f"http-{form}"]}
    if encoding != "none":
        headers["content-encoding"] = encoding
    url = f"https://localhost:{stage.forebay.http_port}/v1/{signal}"
    answer = session.post(url, data=COMPRESS[encoding](body), headers=headers)
    if (answer.status_code, answer.content) != (200, EMPTY_SUCCESS[form]):
        raise Failed(f"{signal} as {form}, {encoding}: {answer.status_code} {answer.content!r}")
    return answer.http_version


def over_http3(
    authority: papers.Authority,
    client: papers.Paper | None = None,
    version: CurlHttpVersion | None = CurlHttpVersion.V3ONLY,
    **more,
):
    return requests.Session(
        http_version=version,
        verify=str(authority.file),
        cert=(str(client.cert), str(client.key)) if client else None,
        trust_env=False,
        timeout=10,
        **more,
    )


def curl_with_certificates(bench: Bench) -> str:
    """Mutual TLS: who shows a certificate of the CA comes in; others do not, for all they try."""
    stage = set_up(bench, client_ca=True)
    ours, theirs = stage.authority, papers.Authority(bench.folder, "theirs")
    with over_http3(ours, ours.issue("client")) as session:
        for signal in SIGNALS:
            curl_posts(stage, session, signal, "proto")
    refused = [None, ours.issue("client", expired=True), theirs.issue("client")]
    url = f"https://localhost:{stage.forebay.http_port}/v1/logs"
    for paper in refused:
        with over_http3(ours, paper) as session:
            try:
                answer = session.post(url, data=b"{}", headers={"content-type": "application/json"})
            except requests.RequestsError:
                continue
            raise Failed(f"a client with {paper} was answered {answer.status_code}")
    stage.quic("handshakes_failed", len(refused))
    return f"{stage.end()}; {len(refused)} refused"


def curl_is_led(bench: Bench) -> str:
    """A client that knows nothing of HTTP/3 begins over TCP and goes where `Alt-Svc` leads."""
    stage = set_up(bench, over_tcp=True)
    options = {
        CurlOpt.ALTSVC: str(bench.folder / "alt-svc"),
        CurlOpt.ALTSVC_CTRL: TO_HTTP3,
        # A slow handshake over QUIC is not raced by one over TCP.
        CurlOpt.HAPPY_EYEBALLS_TIMEOUT_MS: 10_000,
    }
    spoken = []
    for _ in range(2):
        # Each with connections of its own: what leads there is in the file.
        with over_http3(stage.authority, version=None, curl_options=options) as session:
            spoken.append(curl_posts(stage, session, "logs", "proto"))
    must(spoken == [CurlHttpVersion.V2_0, CurlHttpVersion.V3], f"it spoke {spoken}")
    stage.quic("connections_accepted", 1)
    return f"{stage.end()}; HTTP/2 first, then HTTP/3"


def ngtcp2(bench: Bench) -> str:
    """Requests by ngtcp2's own client, which moves and changes its keys meanwhile. It can't name
    a content type: each is refused, and each hears so on its own stream."""
    stage = set_up(bench)
    body = bench.folder / "body"
    body.write_bytes(by_hand.make("logs", 10, Ledger("nowhere"), bench.seed).SerializeToString())
    port = stage.forebay.http_port
    log = run(
        [
            *("gtlsclient", "--no-quic-dump", "--exit-on-all-streams-close", "--timeout=5s"),
            *("--change-local-addr=20ms", "--key-update=40ms", "--delay-stream=150ms"),
            *("--http-method=POST", f"--data={body}", f"--nstreams={UNTYPED_REQUESTS}"),
            *(LOOPBACK, port, f"https://localhost:{port}/v1/logs"),
        ],
        "ngtcp2's client",
        merged=True,
    )
    answered = re.findall(r"stream 0x[0-9a-f]+ \[:status: (\d+)\]", log)
    if answered != [str(UNTYPED)] * UNTYPED_REQUESTS:
        raise Failed(f"{len(answered)} answers, {set(answered)}:\n{log[-2000:]}")
    must("key update confirmed" in log, "the keys were not changed")
    stage.quic("migrations", 1)
    stage.quic("connections_accepted", 1)
    # One that is taken, so that there is something to count.
    asyncio.run(one_more(stage))
    return f"{stage.end()}; {len(answered)} refusals after a move and a key update"


async def one_more(stage: Stage) -> None:
    async with stage.connected() as client:
        await stage.post(client, "logs")


POST = """
(async () => {
  const packed = (bytes) => new Response(
    new Blob([bytes]).stream().pipeThrough(new CompressionStream("gzip"))).arrayBuffer();
  const answers = REQUESTS.map(async ({ url, type, zipped, body }) => {
    const headers = { "content-type": type };
    if (zipped) headers["content-encoding"] = "gzip";
    let bytes = Uint8Array.from(atob(body), (letter) => letter.charCodeAt(0));
    if (zipped) bytes = await packed(bytes);
    try {
      const answer = await fetch(url, { method: "POST", headers, body: bytes });
      return `${answer.status} ${await answer.text()}`;
    } catch (error) {
      return error.name;
    }
  });
  return Promise.all(answers);
})()
"""
PROTOCOLS = """
performance.getEntriesByType("resource").map((entry) => entry.nextHopProtocol)
"""
BEACON = """
navigator.sendBeacon(REQUEST.url, new Blob([REQUEST.text], { type: "application/json" }))
"""


def chromium(bench: Bench) -> str:
    """A page of forebay's own origin: fetch of every form, all at once, and a beacon."""
    stage = set_up(bench)
    browser, base = browser_before(bench, stage, is_http3=True)
    # What it answers is no page; but it is a document of the origin, from which scripts may post.
    session = browser.open(f"{base}/v1/logs")
    posts = [
        page_request(stage, "", signal, form, zipped)
        for signal in SIGNALS * ROUNDS
        for form in ("proto", "json")
        for zipped in (False, True)
    ]
    answers = browser.run(session, POST.replace("REQUESTS", json.dumps(posts)))
    for post, answer in zip(posts, answers):
        form = "json" if "json" in post["type"] else "proto"
        if answer != f"200 {EMPTY_SUCCESS[form].decode()}":
            raise Failed(f"{post['url']} as {form} was answered {answer!r}")
    spoken = set(browser.run(session, PROTOCOLS))
    must(spoken == {"h3"}, f"the page speaks {spoken}")
    beacon = page_request(stage, "", "logs", "json", False)
    told = {"url": beacon["url"], "text": base64.b64decode(beacon["body"]).decode()}
    sent = browser.run(session, BEACON.replace("REQUEST", f"({json.dumps(told)})"))
    must(sent is True, "the browser takes no beacon")
    items = sum(len(ids) for ids in stage.ledger.ids.values())
    stage.forebay.wait_metric("forebay_ledger_received_items", count=items)
    browser.end()
    came_by_quic_alone(stage)
    return f"{stage.end()}; {len(posts)} fetches and a beacon"


def other_origin(bench: Bench) -> str:
    """A page of another origin, and no CORS: its preflight is refused, and nothing of what it
    posts comes in."""
    stage = set_up(bench)
    page = bench.proxy(Page())
    browser, base = browser_before(bench, stage, is_http3=True)
    kept_back(bench, browser, page, base)
    browser.end()
    came_by_quic_alone(stage)
    asyncio.run(one_more(stage))
    return f"{stage.end()}; the browser kept the other request back"


def allowed_origin(is_http3: bool) -> Callable[[Bench], str]:
    """CORS: a page of an allowed origin posts, after a preflight, and reads the answers, refusals
    too; a page of an origin that is not allowed posts nothing."""

    def body(bench: Bench) -> str:
        page, stranger = bench.proxy(Page()), bench.proxy(Page())
        cors = {"allowed_origins": [page.origin], "allowed_headers": ALLOWED_HEADERS}
        stage = set_up(bench, over_tcp=not is_http3, over_quic=is_http3, cors=cors)
        browser, base = browser_before(bench, stage, is_http3)
        session = browser.open(page.url)
        posts = [
            page_request(stage, base, signal, form, zipped)
            for signal in SIGNALS
            for form in ("proto", "json")
            for zipped in (False, True)
        ]
        refused = posts[0] | {"type": "text/csv"}
        answers = browser.run(session, POST.replace("REQUESTS", json.dumps([*posts, refused])))
        statuses = [answer.split()[0] for answer in answers]
        if statuses != ["200"] * len(posts) + ["415"]:
            raise Failed(f"the page of an allowed origin reads {answers}")
        kept_back(bench, browser, stranger, base)
        browser.end()
        if is_http3:
            came_by_quic_alone(stage)
        return f"{stage.end()}; {len(posts)} posts and a refusal"

    return body


def browser_before(bench: Bench, stage: Stage, is_http3: bool) -> tuple[Browser, str]:
    """A browser, and the URL at which it finds forebay."""
    origin = f"localhost:{stage.forebay.http_port}"
    browser = Browser(bench.folder, stage.server, [origin] if is_http3 else [])
    return bench.proxy(browser), f"https://{origin}"


def kept_back(bench: Bench, browser: Browser, page: "Page", base: str) -> None:
    """The browser does not let this page post."""
    request = by_hand.make("logs", 10, Ledger("nowhere"), bench.seed)
    post = posted(base, "logs", TYPES["http-proto"], False, request.SerializeToString())
    answers = browser.run(browser.open(page.url), POST.replace("REQUESTS", json.dumps([post])))
    must(answers == ["TypeError"], f"the page got {answers}")


def page_request(stage: Stage, base: str, signal: str, form: str, zipped: bool) -> dict:
    """One that must arrive, as the page's script takes it."""
    request = stage.request(signal)
    plain = request.SerializeToString()
    stage.twin_gets(signal, plain)
    body = by_hand.to_json(request).encode() if form == "json" else plain
    return posted(base, signal, TYPES[f"http-{form}"], zipped, body)


def posted(base: str, signal: str, content_type: str, zipped: bool, body: bytes) -> dict:
    return {
        "url": f"{base}/v1/{signal}",
        "type": content_type,
        "zipped": zipped,
        "body": base64.b64encode(body).decode(),
    }


def came_by_quic_alone(stage: Stage) -> None:
    accepted = "connections_accepted"
    must(stage.forebay.metric(f"forebay_receiver_quic_{accepted}") > 0, "nothing came over QUIC")
    over_tcp = stage.forebay.metric(f"forebay_receiver_core_{accepted}")
    must(over_tcp == 0, f"{over_tcp} connections came over TCP")


class Page:
    """An empty page of an origin of its own."""

    def __init__(self):
        self._port = free_port()
        self._server: HTTPServer | None = None

    @property
    def origin(self) -> str:
        return f"http://localhost:{self._port}"

    @property
    def url(self) -> str:
        return f"{self.origin}/"

    def start(self) -> None:
        self._server = HTTPServer((LOOPBACK, self._port), Empty)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def kill(self) -> None:
        if self._server:
            self._server.shutdown()
            self._server.server_close()


class Empty(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>page</title>")

    def log_message(self, *_) -> None:
        pass
