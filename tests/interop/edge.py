"""A Collector in front: it takes OTLP over TLS and hands it to forebay over TLS, each side with a
certificate of its own. The servers' `tls` block is the same text at both.
"""

import json
from collections.abc import Callable
from pathlib import Path

import papers
from bench import Bench, Load, exporter_to, hold_against
from collector import BINARY
from forebay import Forebay, Setup
from processes import LOOPBACK, Failed, Server, answers_200, free_port

CONFIG = """\
receivers:
  otlp:
    protocols:
      grpc: {{endpoint: "127.0.0.1:{grpc}", tls: {server}}}
exporters:
  otlp_{protocol}:
    endpoint: {endpoint}
    tls: {client}
    retry_on_failure: {{initial_interval: 20ms, max_interval: 200ms}}
extensions:
  health_check: {{endpoint: "127.0.0.1:{health}"}}
service:
  extensions: [health_check]
  telemetry: {{metrics: {{level: none}}, logs: {{level: warn}}}}
  pipelines:
    traces: {{receivers: [otlp], exporters: [otlp_{protocol}]}}
    metrics: {{receivers: [otlp], exporters: [otlp_{protocol}]}}
    logs: {{receivers: [otlp], exporters: [otlp_{protocol}]}}
"""


class Edge:
    def __init__(self, folder: Path, protocol: str, forebay: Forebay, blocks: tuple[dict, dict]):
        self._folder, self._protocol, self._forebay = folder, protocol, forebay
        self._server_block, self._client_block = blocks
        self._port, self._health_port = free_port(), free_port()
        self._server: Server | None = None

    def base_url(self, _: str) -> str:
        return f"https://{LOOPBACK}:{self._port}"

    def start(self) -> None:
        config = self._folder / "edge.yaml"
        forebay = self._forebay
        config.write_text(
            CONFIG.format(
                grpc=self._port,
                health=self._health_port,
                protocol=self._protocol,
                endpoint=forebay.grpc if self._protocol == "grpc" else forebay.http,
                server=json.dumps(self._server_block),
                client=json.dumps(self._client_block),
            )
        )
        self._server = Server("edge", [BINARY, "--config", config], self._folder)
        url = f"http://{LOOPBACK}:{self._health_port}/"
        self._server.wait_ready(lambda: answers_200(url))

    def end(self) -> None:
        """It hands on what it has, and ends."""
        if (code := self._server.end()) != 0:
            raise Failed(f"the edge ended with {code}:\n{self._server.tail()}")

    def kill(self) -> None:
        if self._server:
            self._server.kill()


def in_front(protocol: str) -> Callable[[Bench], str]:
    """`protocol`: of the edge's exporter, grpc or http."""

    def body(bench: Bench) -> str:
        ours = papers.Authority(bench.folder)
        block = papers.server_block(ours.issue("server"), ours) | {
            "min_version": "1.2",
            "max_version": "1.3",
            "reload_interval": "1h",
        }
        client = ours.issue("client")
        downstream, twin = bench.collector("downstream"), bench.collector("twin")
        forebay = bench.forebay(Setup([exporter_to("grpc", downstream)], tls=block))
        blocks = (block, papers.client_block(ours, client) | {"min_version": "1.3"})
        edge = bench.proxy(Edge(bench.folder, protocol, forebay, blocks))
        load = Load("python", "grpc", "gzip", 200, 64, papers.environment(ours, client))
        sent = bench.send(load, edge, twin)
        edge.end()
        twin.end()
        ledger = forebay.end()
        downstream.end()
        return hold_against(sent, twin, [downstream], ledger)

    return body
