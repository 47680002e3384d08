"""Sends traces, metrics and logs with the OpenTelemetry Python SDK.

Every export call goes out twice with the same SDK objects: to `--via`, the server under test, and
to `--twin`, a Collector that nothing stands before. What reached the two is compared elsewhere.
The ids of everything sent are written to `--ledger`, with every export that did not succeed.
"""

import grpc
from opentelemetry import trace
from opentelemetry._logs import SeverityNumber
from opentelemetry.exporter.otlp.common.http import Compression as JsonCompression
from opentelemetry.exporter.otlp.json.http import _log_exporter as json_logs
from opentelemetry.exporter.otlp.json.http import metric_exporter as json_metrics
from opentelemetry.exporter.otlp.json.http import trace_exporter as json_traces
from opentelemetry.exporter.otlp.proto import http as over_http
from opentelemetry.exporter.otlp.proto.grpc import _log_exporter as grpc_logs
from opentelemetry.exporter.otlp.proto.grpc import metric_exporter as grpc_metrics
from opentelemetry.exporter.otlp.proto.grpc import trace_exporter as grpc_traces
from opentelemetry.exporter.otlp.proto.http import _log_exporter as http_logs
from opentelemetry.exporter.otlp.proto.http import metric_exporter as http_metrics
from opentelemetry.exporter.otlp.proto.http import trace_exporter as http_traces
from opentelemetry.metrics import Observation
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import (
    BatchLogRecordProcessor,
    LogRecordExporter,
    LogRecordExportResult,
)
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    MetricExporter,
    MetricExportResult,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode
from opentelemetry.trace import TraceFlags, TraceState

from arguments import Ledger, parse

SCHEMA_URL = "https://opentelemetry.io/schemas/1.30.0"
START_NS = 1_790_000_000_123_456_789

RESOURCE = Resource.create(
    {
        "service.name": "wehr-steuerung",
        "service.version": "1.4.2",
        "deployment.environment.name": "prüfstand",
        "host.cpu.count": 2,
        "interop.load": 0.75,
        "interop.flags": [True, False],
    }
)


def main() -> None:
    options = parse(protocols=["grpc", "http-proto", "http-json"])
    ledger = Ledger("python-sdk")
    via, twin = exporters(options, options.via), exporters(options, options.twin)
    send_traces(options, ledger, Tee(ledger, "traces", SpanExportResult.SUCCESS, via[0], twin[0]))
    send_metrics(options, ledger, MetricTee(ledger, via[1], twin[1]))
    send_logs(options, ledger, LogTee(ledger, via[2], twin[2]))
    ledger.write(options.ledger)


def exporters(options, base_url: str) -> tuple:
    """The SDK's exporters of the three signals for one destination."""
    if options.protocol == "grpc":
        compression = {"none": grpc.Compression.NoCompression, "gzip": grpc.Compression.Gzip}
        told = {
            "endpoint": base_url,
            "insecure": base_url.startswith("http://"),
            "compression": compression[options.compression],
            "timeout": options.timeout_s,
        }
        return (
            grpc_traces.OTLPSpanExporter(**told),
            grpc_metrics.OTLPMetricExporter(**told),
            grpc_logs.OTLPLogExporter(**told),
        )
    if options.protocol == "http-proto":
        kinds = (
            http_traces.OTLPSpanExporter,
            http_metrics.OTLPMetricExporter,
            http_logs.OTLPLogExporter,
        )
        compression = over_http.Compression(options.compression)
    else:
        kinds = (
            json_traces.OTLPSpanExporter,
            json_metrics.OTLPMetricExporter,
            json_logs.OTLPLogExporter,
        )
        compression = JsonCompression(options.compression)
    return tuple(
        kind(
            endpoint=f"{base_url}/v1/{signal}",
            compression=compression,
            timeout=options.timeout_s,
        )
        for kind, signal in zip(kinds, ("traces", "metrics", "logs"))
    )


class Tee(SpanExporter):
    """Hands each batch to both destinations and notes what either refused."""

    def __init__(self, ledger, signal, success, via, twin):
        super().__init__()
        self.ledger, self.signal, self.success = ledger, signal, success
        self.via, self.twin = via, twin

    def export(self, batch, *args, **kwargs):
        outcomes = {}
        for name, exporter in (("via", self.via), ("twin", self.twin)):
            outcomes[name] = exporter.export(batch, *args, **kwargs)
            if outcomes[name] is not self.success:
                self.ledger.failed(f"{self.signal} to {name}: {outcomes[name]}")
        return outcomes["via"]

    def shutdown(self, *args, **kwargs):
        self.via.shutdown()
        self.twin.shutdown()

    def force_flush(self, timeout_millis=30_000):
        return True


class LogTee(Tee, LogRecordExporter):
    def __init__(self, ledger, via, twin):
        Tee.__init__(self, ledger, "logs", LogRecordExportResult.SUCCESS, via, twin)


class MetricTee(MetricExporter):
    def __init__(self, ledger, via, twin):
        super().__init__()
        self.tee = Tee(ledger, "metrics", MetricExportResult.SUCCESS, via, twin)

    def export(self, metrics_data, timeout_millis=10_000, **kwargs):
        return self.tee.export(metrics_data, timeout_millis=timeout_millis)

    def force_flush(self, timeout_millis=10_000):
        return True

    def shutdown(self, timeout_millis=30_000, **kwargs):
        self.tee.shutdown()


def send_traces(options, ledger, tee) -> None:
    provider = TracerProvider(resource=RESOURCE)
    provider.add_span_processor(
        BatchSpanProcessor(
            tee,
            max_queue_size=options.count * 2 + 64,
            schedule_delay_millis=50,
            max_export_batch_size=options.batch,
        )
    )
    tracers = [
        provider.get_tracer("interop.gates", "0.3.0", schema_url=SCHEMA_URL),
        provider.get_tracer("interop.pumps", "", attributes={"team": "Süd", "lanes": [1, 2, 3]}),
    ]
    remote = SpanContext(
        trace_id=0x5B8EFFF798038103D269B633813FC60C,
        span_id=0xEEE19B7EC3C1B174,
        is_remote=True,
        trace_flags=TraceFlags(TraceFlags.SAMPLED),
        trace_state=TraceState([("wehr", "t61rcWkgMzE"), ("forebay", "1")]),
    )
    parent = trace.set_span_in_context(NonRecordingSpan(remote))
    for number in range(options.count):
        one_span(tracers[number % 2], ledger.take("traces"), number, parent, remote)
    provider.force_flush()
    provider.shutdown()


def one_span(tracer, item_id, number, parent, remote) -> None:
    kinds = list(SpanKind)
    start_ns = START_NS + number * 1_000_003
    span = tracer.start_span(
        f"Öffne Tor {number % 7} 🌊",
        context=parent if number % 3 == 0 else None,
        kind=kinds[number % len(kinds)],
        links=[Link(remote, {"why": "batch", "n": number})] if number % 5 == 0 else None,
        start_time=start_ns,
        attributes={"interop.id": item_id, **scalars(number)},
    )
    if number % 2 == 0:
        span.add_event("gate.moved", {"angle": number / 3, "steps": [1, -2, 2**62]}, start_ns + 10)
        span.add_event("", timestamp=start_ns + 20)
    if number % 4 == 0:
        span.record_exception(ValueError("Pegel zu hoch\nüber Soll"), timestamp=start_ns + 30)
    if number % 4 == 1:
        span.set_status(Status(StatusCode.ERROR, "clogged: 水位"))
    if number % 4 == 2:
        span.set_status(Status(StatusCode.OK))
    span.end(end_time=start_ns + 1_000 + number)


def scalars(number: int) -> dict:
    return {
        "text": f"Zeile {number}\t\"quoted\" \\ / \u2028",
        "empty": "",
        "int.min": -(2**63),
        "int.max": 2**63 - 1,
        "real": number * 0.1,
        "tiny": 5e-324,
        "yes": number % 2 == 0,
        "texts": ["a", "", "ß"],
        "reals": [0.5, -1e300],
        "long": "x" * (number % 400),
    }


def send_metrics(options, ledger, tee) -> None:
    reader = PeriodicExportingMetricReader(tee, export_interval_millis=3_600_000)
    provider = MeterProvider(
        metric_readers=[reader],
        resource=RESOURCE,
        views=[
            View(
                instrument_name="gate.torque",
                aggregation=ExponentialBucketHistogramAggregation(max_size=40),
            )
        ],
    )
    meter = provider.get_meter("interop.meters", "2.0", attributes={"bank": "links"})
    instruments = {
        "add": [
            meter.create_counter("gate.moves", "1", "how often a gate moved"),
            meter.create_counter("water.out", "m3", "Wasser, gesamt"),
            meter.create_up_down_counter("gates.open"),
        ],
        "record": [
            meter.create_histogram("gate.duration", "ms"),
            meter.create_histogram("gate.torque", "N.m"),
        ],
        "set": [meter.create_gauge("water.level", "cm", "Pegel")],
    }
    observed = [(number, ledger.take("metrics")) for number in range(5)]
    meter.create_observable_gauge(
        "pump.temperature",
        [lambda _: [Observation(20.5 + n, {"interop.id": i}) for n, i in observed]],
        "Cel",
    )
    tracer = TracerProvider().get_tracer("exemplars")
    for number in range(options.count):
        act, made = list(instruments.items())[number % 3]
        attributes = {"interop.id": ledger.take("metrics"), "n": number, "frac": 0.25}
        value = (number * 37 % 1000) / 8
        # A sampled span around the measurement gives the point an exemplar.
        with tracer.start_as_current_span("measure"):
            for instrument in made:
                getattr(instrument, act)(value, attributes)
    provider.force_flush()
    provider.force_flush()
    provider.shutdown()


def send_logs(options, ledger, tee) -> None:
    provider = LoggerProvider(resource=RESOURCE)
    provider.add_log_record_processor(
        BatchLogRecordProcessor(
            tee,
            max_queue_size=options.count + 64,
            schedule_delay_millis=50,
            max_export_batch_size=options.batch,
        )
    )
    logger = provider.get_logger("interop.logs", "1.0", attributes={"nested": "no"})
    severities = list(SeverityNumber)
    context = trace.set_span_in_context(
        NonRecordingSpan(SpanContext(0xABCDEF, 0x123, False, TraceFlags(TraceFlags.SAMPLED)))
    )
    for number in range(options.count):
        severity = severities[number % len(severities)]
        logger.emit(
            timestamp=START_NS + number,
            observed_timestamp=START_NS + number + 5,
            context=context if number % 2 else None,
            severity_number=severity,
            severity_text=severity.name,
            body=bodies(number)[number % 7],
            attributes={"interop.id": ledger.take("logs"), **scalars(number), **deep(number)},
            event_name="gate.event" if number % 3 == 0 else None,
        )
    provider.force_flush()
    provider.shutdown()


def bodies(number: int) -> list:
    return [
        f"Tor {number} geöffnet 🚪",
        {"a": {"b": {"c": [number, "zwei", 3.0, {"d": None}]}}},
        ["gemischt", number, True],
        b"\x00\xff raw bytes",
        number,
        number / 7,
        None,
    ]


def deep(number: int) -> dict:
    return {"map": {"list": [1, {"leaf": "ä"}], "n": number}, "blob": b"\x01\x02\xfe"}


if __name__ == "__main__":
    main()
