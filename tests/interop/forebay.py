"""The server under test: its configuration, its life, and the ledger that it prints at its end.

The configuration is in the Collector's shape, so a Collector can stand in forebay's place
(`--subject collector`): that shows whether a test that fails is forebay's fault or its own.
"""

import json
import re
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

import collector
from processes import LOOPBACK, Failed, Server, answers_200, free_port, wait_until

REPOSITORY = Path(__file__).resolve().parents[2]
EXIT_S_MAX = 15.0
METRIC_S_MAX = 15.0

# `run.py --binary` sets another one.
binary_path = REPOSITORY / "target" / "release" / "forebay"

CONFIG = """\
receivers:
  otlp:
    protocols:
      grpc:
        endpoint: 127.0.0.1:{grpc}
{tls}      http:
        endpoint: 127.0.0.1:{http}
{tls}{cors}{http3}processors:
  batch:
    timeout: {batch_timeout}
    send_batch_size: {batch_items}
    send_batch_max_size: {batch_items}
exporters:
{exporters}
extensions:
  health_check:
    endpoint: 127.0.0.1:{health}
service:
  extensions: [health_check]
  telemetry:
    metrics:
{metrics}
  pipelines:
    traces: {pipeline}
    metrics: {pipeline}
    logs: {pipeline}
{more_pipelines}"""
TLS = "        tls: {block}\n"
CORS = "        cors: {block}\n"
# The port of HTTP, over UDP: its answers there say that HTTP/3 is here.
HTTP3 = "      http3: {block}\n"
READER = """\
      readers:
        - pull:
            exporter:
              prometheus:
                host: 127.0.0.1
                port: {port}"""
SHORT = "      address: 127.0.0.1:{port}"

EXPORTERS = {
    "grpc": """\
  otlp_grpc/{name}:
    endpoint: {address}
    tls: {{insecure: true}}
    compression: {compression}
""",
    "http": """\
  otlp_http/{name}:
    endpoint: http://{address}
    compression: {compression}
""",
    "http-json": """\
  otlp_http/{name}:
    endpoint: http://{address}
    encoding: json
    compression: {compression}
""",
}
RETRY = """\
    retry_on_failure: {initial_interval: 20ms, max_interval: 200ms, max_elapsed_time: 0s}
"""


@dataclass
class Exporter:
    """One destination: how it is spoken to, and where."""

    protocol: str
    port: int
    compression: str = "gzip"

    def id(self, name: str) -> str:
        return f"{'otlp_grpc' if self.protocol == 'grpc' else 'otlp_http'}/{name}"

    def yaml(self, name: str) -> str:
        address = f"{LOOPBACK}:{self.port}"
        text = EXPORTERS[self.protocol]
        return text.format(name=name, address=address, compression=self.compression) + RETRY


@dataclass
class Setup:
    """What a scenario asks of the configuration."""

    exporters: list[Exporter]
    batch: bool = True
    batch_items: int = 512
    batch_timeout: str = "50ms"
    acks: str | None = None
    metrics_in_short: bool = False
    profiles: bool = False
    # The block of both protocols over TCP, as `papers` makes them; none is cleartext.
    tls: dict | None = None
    # More of the block of HTTP/3: its `tls` at least. Ours alone.
    http3: dict | None = None
    # The block of HTTP, and of HTTP/3 if there is any.
    cors: dict | None = None
    # Ours alone, appended as written; a Collector cannot run these.
    engine: dict = field(default_factory=dict)

    def yaml(self, grpc: int, http: int, health: int, metrics: int) -> str:
        names = [f"to{index}" for index in range(len(self.exporters))]
        ids = ", ".join(one.id(name) for one, name in zip(self.exporters, names))
        processors = "processors: [batch], " if self.batch else ""
        pipeline = f"{{receivers: [otlp], {processors}exporters: [{ids}]}}"
        text = CONFIG.format(
            grpc=grpc,
            http=http,
            tls=TLS.format(block=json.dumps(self.tls)) if self.tls else "",
            cors=CORS.format(block=json.dumps(self.cors)) if self.cors else "",
            http3=self._http3(http),
            health=health,
            metrics=(SHORT if self.metrics_in_short else READER).format(port=metrics),
            batch_timeout=self.batch_timeout,
            batch_items=self.batch_items,
            exporters="".join(one.yaml(name) for one, name in zip(self.exporters, names)),
            pipeline=pipeline,
            more_pipelines=f"    profiles: {pipeline}\n" if self.profiles else "",
        )
        engine = dict(self.engine)
        if self.acks:
            engine["acks"] = {"default": self.acks}
        return text + (f"engine: {json.dumps(engine)}\n" if engine else "")

    def _http3(self, port: int) -> str:
        if not self.http3:
            return ""
        block = {"endpoint": f"{LOOPBACK}:{port}", **self.http3}
        if self.cors:
            block["cors"] = self.cors
        return HTTP3.format(block=json.dumps(block))


class Forebay:
    """One running server under test."""

    def __init__(self, subject: str, setup: Setup, folder: Path, name: str = "forebay"):
        self.subject, self.setup, self.folder, self.name = subject, setup, folder, name
        self.grpc_port, self.http_port = free_port(), free_port()
        self.health_port, self.metrics_port = free_port(), free_port()
        self._server: Server | None = None

    @property
    def grpc(self) -> str:
        return f"{LOOPBACK}:{self.grpc_port}"

    @property
    def http(self) -> str:
        return f"{self._scheme}://{LOOPBACK}:{self.http_port}"

    @property
    def metrics_url(self) -> str:
        return f"http://{LOOPBACK}:{self.metrics_port}/metrics"

    def base_url(self, protocol: str) -> str:
        return f"{self._scheme}://{self.grpc}" if protocol == "grpc" else self.http

    @property
    def _scheme(self) -> str:
        return "https" if self.setup.tls else "http"

    def metric(self, name: str, *labels: str) -> int:
        """The sum of the samples that have all labels, such as `result="ok"`."""
        with urllib.request.urlopen(self.metrics_url, timeout=5) as response:
            page = response.read().decode()
        samples = re.findall(rf"^{name}(?:_total)?(?:\{{(.*)\}})? (\S+)$", page, re.MULTILINE)
        if not samples:
            raise Failed(f"there is no metric {name}")
        return sum(
            int(float(value)) for given, value in samples if all(label in given for label in labels)
        )

    def wait_metric(self, name: str, *labels: str, count: int) -> None:
        """Counters are shown with a little delay; then it is this one and stays there."""
        what = f"{name} {' '.join(labels)} being {count}"
        wait_until(lambda: self.metric(name, *labels) >= count, what, METRIC_S_MAX)
        if (seen := self.metric(name, *labels)) != count:
            raise Failed(f"{what}: it is {seen}")

    def start(self) -> None:
        config = self.folder / f"{self.name}.yaml"
        ports = (self.grpc_port, self.http_port, self.health_port, self.metrics_port)
        config.write_text(self.setup.yaml(*ports))
        binary = collector.BINARY if self.subject == "collector" else forebay_binary()
        self._server = Server(self.name, [binary, "--config", config], self.folder)

    def wait_ready(self) -> None:
        url = f"http://{LOOPBACK}:{self.health_port}/"
        self._server.wait_ready(lambda: answers_200(url))

    def end(self) -> dict | None:
        """SIGTERM; it must exit with 0 in time, and its ledger must balance. Returns the ledger."""
        code = self._server.end(EXIT_S_MAX)
        if code != 0:
            raise Failed(f"{self.name} ended with {code}, not 0:\n{self._server.tail()}")
        if self.subject == "collector":
            return None
        return balanced(ledger_in(self._server.stdout_path.read_text(errors="replace")))

    def kill(self) -> None:
        if self._server:
            self._server.kill()

    def output(self) -> str:
        return self._server.stdout_path.read_text(errors="replace") + self._server.tail(100_000)

    def resident_bytes(self) -> int:
        return self._server.resident_bytes()


def forebay_binary() -> Path:
    if not binary_path.exists():
        raise Failed(f"{binary_path} is not there: run `cargo build --release` first")
    return binary_path


def ledger_in(stdout: str) -> dict:
    """The ledger is the last line on standard output that holds one."""
    for line in reversed(stdout.splitlines()):
        if line.startswith("{") and '"ledger"' in line:
            return json.loads(line)["ledger"]
    raise Failed(f"no ledger on standard output at the end; the output was:\n{stdout[-1500:]}")


def balanced(ledger: dict) -> dict:
    """The invariant of every end-to-end test: nothing is in flight, nothing vanished."""
    wrong = []
    if ledger.get("balanced") is not True:
        wrong.append("it does not balance")
    if ledger.get("in_flight_items") != 0:
        wrong.append("items are still in flight")
    if ledger.get("dropped_items") != 0:
        wrong.append("items were dropped")
    if wrong:
        raise Failed(f"the ledger at the end: {', '.join(wrong)}: {json.dumps(ledger)}")
    return ledger
