"""Proxies in front: nginx and haproxy speak to forebay as they do to any upstream, and the SDKs and
clients speak to them. Everything arrives.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench import Bench, Load, exporter_to, hold_against
from forebay import Forebay, Setup
from processes import LOOPBACK, Failed, Server, free_port, listens

END_S_MAX = 10.0

NGINX = """\
worker_processes 1;
error_log {folder}/nginx.log error;
pid {folder}/nginx.pid;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_max_body_size 64m;
    client_body_temp_path {folder}/nginx-body;
    proxy_temp_path {folder}/nginx-proxy;
    fastcgi_temp_path {folder}/nginx-fastcgi;
    uwsgi_temp_path {folder}/nginx-uwsgi;
    scgi_temp_path {folder}/nginx-scgi;
    upstream by_grpc {{ server {forebay.grpc}; keepalive 4; }}
    upstream by_http {{ server {http}; keepalive 4; }}
    server {{
        listen {host}:{grpc_port} http2;
        location / {{ grpc_pass grpc://by_grpc; }}
    }}
    server {{
        listen {host}:{http_port};
        location / {{
            proxy_pass http://by_http;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_request_buffering {buffering};
        }}
    }}
}}
"""

HAPROXY = """\
global
    nbthread 1
defaults
    mode http
    option http-keep-alive
    http-reuse always
    timeout connect 5s
    timeout client 30s
    timeout server 30s
listen by_grpc
    bind {host}:{grpc_port} proto h2
    server forebay {forebay.grpc} proto h2
listen by_http
    bind {host}:{http_port}
    server forebay {http}
"""


@dataclass
class Proxy:
    """Stands where forebay stands, as far as a sender can see."""

    name: str
    folder: Path
    forebay: Forebay
    # nginx hands a body on as it comes, in chunks, or when it is whole, with its length.
    buffering: str = "on"

    def __post_init__(self):
        self.grpc_port, self.http_port = free_port(), free_port()
        self.server: Server | None = None

    def start(self) -> None:
        config = self.folder / f"{self.name}.conf"
        text = NGINX if self.name == "nginx" else HAPROXY
        http = self.forebay.http.removeprefix("http://")
        config.write_text(text.format(host=LOOPBACK, http=http, **vars(self)))
        argv = {
            "nginx": ["nginx", "-c", config, "-p", self.folder, "-g", "daemon off;"],
            # `-db`: in the foreground, one process.
            "haproxy": ["haproxy", "-db", "-f", config],
        }[self.name]
        self.server = Server(self.name, argv, self.folder)
        self.server.wait_ready(lambda: listens(self.grpc_port) and listens(self.http_port))

    def base_url(self, protocol: str) -> str:
        return f"http://{LOOPBACK}:{self.grpc_port if protocol == 'grpc' else self.http_port}"

    def complaints(self) -> str:
        """nginx writes down what goes wrong with its upstream; haproxy answers 502 and 503."""
        log = self.folder / "nginx.log"
        return log.read_text(errors="replace") if log.exists() else ""

    def end(self) -> None:
        self.server.end(END_S_MAX)

    def kill(self) -> None:
        if self.server:
            self.server.kill()


def in_front(name: str, load: Load, buffering: str = "on") -> Callable[[Bench], str]:
    """`load` goes to the proxy, which hands it on to forebay."""

    def body(bench: Bench) -> str:
        downstream, twin = bench.collector("downstream"), bench.collector("twin")
        forebay = bench.forebay(Setup([exporter_to("grpc", downstream)]))
        proxy = bench.proxy(Proxy(name, bench.folder, forebay, buffering))
        sent = bench.send(load, proxy, twin)
        proxy.end()
        twin.end()
        ledger = forebay.end()
        downstream.end()
        complaints = proxy.complaints()
        if complaints:
            raise Failed(f"{name} complains:\n{complaints[-2000:]}")
        return hold_against(sent, twin, [downstream], ledger)

    return body
