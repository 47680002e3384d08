"""A real OpenTelemetry Collector that writes what it receives to a file, one request a line."""

import json
from pathlib import Path

from processes import LOOPBACK, Failed, Server, answers_200, free_port

TOOLS = Path(__file__).parent / ".tools"
BINARY = TOOLS / "collector" / "otelcol-ref" / "otelcol-ref"

# Profiles are not stable yet, so a Collector has to be told.
PROFILES = "--feature-gates=service.profilesSupport"

CONFIG = """\
receivers:
  otlp:
    protocols:
      grpc: {{endpoint: "127.0.0.1:{grpc}", max_recv_msg_size_mib: 64}}
      http: {{endpoint: "127.0.0.1:{http}", max_request_body_size: 67108864}}
exporters:
  file: {{path: "{file}", flush_interval: 100ms}}
extensions:
  health_check: {{endpoint: "127.0.0.1:{health}"}}
service:
  extensions: [health_check]
  telemetry: {{metrics: {{level: none}}, logs: {{level: warn}}}}
  pipelines:
    traces: {{receivers: [otlp], exporters: [file]}}
    metrics: {{receivers: [otlp], exporters: [file]}}
    logs: {{receivers: [otlp], exporters: [file]}}
    profiles: {{receivers: [otlp], exporters: [file]}}
"""


class Collector:
    """`start` may come long after the making: the ports are known from the first moment."""

    def __init__(self, name: str, folder: Path):
        self.name, self.folder = name, folder
        self.file = folder / f"{name}.jsonl"
        self.grpc_port, self.http_port, self.health_port = free_port(), free_port(), free_port()
        self._server: Server | None = None

    @property
    def grpc(self) -> str:
        return f"{LOOPBACK}:{self.grpc_port}"

    @property
    def http(self) -> str:
        return f"http://{LOOPBACK}:{self.http_port}"

    def base_url(self, protocol: str) -> str:
        return f"http://{self.grpc}" if protocol == "grpc" else self.http

    def start(self) -> None:
        config = self.folder / f"{self.name}.yaml"
        config.write_text(self.config())
        self._server = Server(self.name, [BINARY, "--config", config, PROFILES], self.folder)

    def config(self) -> str:
        return CONFIG.format(
            grpc=self.grpc_port,
            http=self.http_port,
            health=self.health_port,
            file=self.file,
        )

    def wait_ready(self) -> None:
        url = f"http://{LOOPBACK}:{self.health_port}/"
        self._server.wait_ready(lambda: answers_200(url))

    def end(self) -> None:
        """Ends the Collector, which makes it write out all that it has."""
        code = self._server.end()
        if code != 0:
            raise Failed(f"{self.name} ended with {code}:\n{self._server.tail()}")

    def kill(self) -> None:
        if self._server:
            self._server.kill()

    def signal(self, number: int) -> None:
        self._server.signal(number)

    def requests(self, killed: bool = False) -> list[dict]:
        """What came, in OTLP JSON; whole only after `end`. One that was killed may have been in the
        middle of its last line."""
        if not self.file.exists():
            return []
        with self.file.open(encoding="utf-8", errors="replace" if killed else "strict") as file:
            lines = [line for line in file if line.strip()]
        if killed and lines and not lines[-1].endswith("\n"):
            lines.pop()
        return [json.loads(line) for line in lines]
