"""Makes OTLP requests by hand, with shapes that no SDK sends but the protocol allows.

Every kind of attribute value, empty ones too, every kind of metric, exemplars, NaN and infinities,
links, events, all flags: drawn by a seed, so that a failure can be made again.
"""

import base64
import json
import random

from google.protobuf import json_format
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.metrics.v1 import metrics_pb2 as metrics
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

START_NS = 1_790_000_000_123_456_789
TEXTS = ["", "a", "Überlauf", "堰", "🌊🌊", 'quote " \\ / \n\t\u0001', "x" * 300, "\u2028"]
REALS = [0.0, -0.0, 0.1, 1e300, 5e-324, -1.5, float("inf"), float("-inf"), float("nan")]
INTS = [0, 1, -1, 2**63 - 1, -(2**63), 2**53 + 1]
HEX_KEYS = ("traceId", "spanId", "parentSpanId")


def make(signal: str, items: int, ledger, seed: int):
    """One request with that many items in a few resources and scopes; at least one item each."""
    return {"traces": trace_request, "metrics": metrics_request, "logs": logs_request}[signal](
        items, ledger, random.Random(seed)
    )


def to_json(request) -> str:
    """OTLP JSON: proto3 JSON with integer enums, and hex where OTLP wants it."""
    content = json_format.MessageToDict(request, use_integers_for_enums=True)
    return json.dumps(hexed(content), ensure_ascii=False)


def hexed(value):
    if isinstance(value, dict):
        return {
            key: base64.b64decode(inner).hex() if key in HEX_KEYS else hexed(inner)
            for key, inner in value.items()
        }
    if isinstance(value, list):
        return [hexed(one) for one in value]
    return value


def trace_request(items, ledger, rng):
    request = ExportTraceServiceRequest()
    for share in shares(items, rng):
        group = request.resource_spans.add(resource=resource(rng), schema_url=rng.choice(TEXTS))
        for part in shares(share, rng):
            scoped = group.scope_spans.add(scope=scope(rng), schema_url=rng.choice(TEXTS))
            scoped.spans.extend(span(ledger.take("traces"), rng) for _ in range(part))
    return request


def metrics_request(items, ledger, rng):
    request = ExportMetricsServiceRequest()
    for share in shares(items, rng):
        group = request.resource_metrics.add(resource=resource(rng), schema_url=rng.choice(TEXTS))
        for part in shares(share, rng):
            scoped = group.scope_metrics.add(scope=scope(rng), schema_url=rng.choice(TEXTS))
            for points in shares(part, rng):
                scoped.metrics.append(metric(points, ledger, rng))
    return request


def logs_request(items, ledger, rng):
    request = ExportLogsServiceRequest()
    for share in shares(items, rng):
        group = request.resource_logs.add(resource=resource(rng), schema_url=rng.choice(TEXTS))
        for part in shares(share, rng):
            scoped = group.scope_logs.add(scope=scope(rng), schema_url=rng.choice(TEXTS))
            scoped.log_records.extend(record(ledger.take("logs"), rng) for _ in range(part))
    return request


def shares(total: int, rng) -> list[int]:
    """The total cut into one to three parts, none empty."""
    cuts = sorted(rng.sample(range(1, total), min(rng.randrange(3), total - 1)))
    return [end - start for start, end in zip([0, *cuts], [*cuts, total])]


def resource(rng) -> Resource:
    return Resource(attributes=attributes(rng), dropped_attributes_count=rng.randrange(2))


def scope(rng) -> InstrumentationScope:
    return InstrumentationScope(
        name=rng.choice(TEXTS),
        version=rng.choice(TEXTS),
        attributes=attributes(rng),
        dropped_attributes_count=rng.randrange(3),
    )


def span(item_id, rng) -> Span:
    start_ns = START_NS + rng.randrange(10**12)
    made = Span(
        trace_id=rng.randbytes(16),
        span_id=rng.randbytes(8),
        trace_state=rng.choice(["", "wehr=1", "a=b,c=d"]),
        parent_span_id=rng.choice([b"", rng.randbytes(8)]),
        flags=rng.choice([0, 1, 0x100, 0x301]),
        name=rng.choice(TEXTS),
        kind=rng.randrange(6),
        start_time_unix_nano=start_ns,
        end_time_unix_nano=start_ns + rng.randrange(10**9),
        attributes=attributes(rng, item_id),
        dropped_attributes_count=rng.randrange(2),
        dropped_events_count=rng.randrange(2),
        dropped_links_count=rng.randrange(2),
    )
    for _ in range(rng.randrange(3)):
        made.events.add(
            time_unix_nano=start_ns + rng.randrange(1000),
            name=rng.choice(TEXTS),
            attributes=attributes(rng),
            dropped_attributes_count=rng.randrange(2),
        )
    for _ in range(rng.randrange(3)):
        made.links.add(
            trace_id=rng.randbytes(16),
            span_id=rng.randbytes(8),
            trace_state=rng.choice(["", "k=v"]),
            attributes=attributes(rng),
            flags=rng.randrange(0x400),
        )
    if rng.random() < 0.7:
        made.status.CopyFrom(Status(code=rng.randrange(3), message=rng.choice(TEXTS)))
    return made


def metric(points: int, ledger, rng) -> metrics.Metric:
    made = metrics.Metric(name=rng.choice(TEXTS[1:]), description=rng.choice(TEXTS), unit="By")
    kind = rng.choice(["gauge", "sum", "histogram", "exponential_histogram", "summary"])
    data = getattr(made, kind)
    if kind not in ("gauge", "summary"):
        data.aggregation_temporality = rng.choice([1, 2])
    if kind == "sum":
        data.is_monotonic = rng.random() < 0.5
    fill = {"gauge": number, "sum": number}.get(kind) or globals()[kind]
    for _ in range(points):
        start_ns = START_NS + rng.randrange(10**9)
        point = data.data_points.add(
            attributes=attributes(rng, ledger.take("metrics")),
            start_time_unix_nano=start_ns,
            time_unix_nano=start_ns + 1000,
            flags=rng.randrange(2),
        )
        fill(point, rng)
    return made


def number(point, rng) -> None:
    which = rng.randrange(3)
    if which == 0:
        point.as_int = rng.choice(INTS)
    elif which == 1:
        point.as_double = rng.choice(REALS)
    point.exemplars.extend(exemplars(rng))


def histogram(point, rng) -> None:
    point.explicit_bounds.extend([0.0, 1.5, 10.0])
    point.bucket_counts.extend([1, 0, 2**40, 3])
    point.count = sum(point.bucket_counts)
    extremes(point, rng)
    point.exemplars.extend(exemplars(rng))


def exponential_histogram(point, rng) -> None:
    point.scale = rng.randrange(-10, 20)
    point.zero_count = rng.randrange(9)
    point.zero_threshold = rng.choice([0.0, 1e-9])
    point.positive.offset = rng.randrange(-100, 100)
    point.positive.bucket_counts.extend([1, 2, 0, 4])
    if rng.random() < 0.5:
        point.negative.offset = -3
        point.negative.bucket_counts.extend([2**35])
    point.count = point.zero_count + 7 + sum(point.negative.bucket_counts)
    extremes(point, rng)
    point.exemplars.extend(exemplars(rng))


def summary(point, rng) -> None:
    point.count = rng.randrange(100)
    point.sum = rng.choice(REALS)
    for quantile in (0.0, 0.5, 0.99):
        point.quantile_values.add(quantile=quantile, value=rng.choice(REALS))


def extremes(point, rng) -> None:
    if rng.random() < 0.7:
        point.sum, point.min, point.max = 12.5, 0.0, 9.75


def exemplars(rng) -> list:
    return [
        metrics.Exemplar(
            filtered_attributes=attributes(rng),
            time_unix_nano=START_NS,
            trace_id=rng.randbytes(16),
            span_id=rng.randbytes(8),
            **rng.choice([{"as_int": rng.choice(INTS)}, {"as_double": 0.25}]),
        )
        for _ in range(rng.randrange(2))
    ]


def record(item_id, rng) -> LogRecord:
    made = LogRecord(
        time_unix_nano=rng.choice([0, START_NS + rng.randrange(10**12)]),
        observed_time_unix_nano=START_NS,
        severity_number=rng.randrange(25),
        severity_text=rng.choice(TEXTS),
        attributes=attributes(rng, item_id),
        dropped_attributes_count=rng.randrange(2),
        flags=rng.randrange(2),
        trace_id=rng.choice([b"", rng.randbytes(16)]),
        span_id=rng.choice([b"", rng.randbytes(8)]),
        event_name=rng.choice(["", "ereignis"]),
    )
    if rng.random() < 0.9:
        made.body.CopyFrom(any_value(rng, 3))
    return made


def attributes(rng, item_id: str | None = None) -> list[KeyValue]:
    made = [
        KeyValue(key=f"{rng.choice(TEXTS)[:12]}.{number}", value=any_value(rng, 2))
        for number in range(rng.randrange(5))
    ]
    if item_id:
        place = rng.randrange(len(made) + 1)
        made.insert(place, KeyValue(key="interop.id", value=AnyValue(string_value=item_id)))
    return made


def any_value(rng, depth: int) -> AnyValue:
    kind = rng.randrange(8 if depth else 6)
    value = AnyValue()
    if kind == 0:
        value.string_value = rng.choice(TEXTS)
    elif kind == 1:
        value.bool_value = rng.random() < 0.5
    elif kind == 2:
        value.int_value = rng.choice(INTS)
    elif kind == 3:
        value.double_value = rng.choice(REALS)
    elif kind == 4:
        value.bytes_value = rng.randbytes(rng.randrange(9))
    elif kind == 6:
        value.array_value.SetInParent()
        inner = (any_value(rng, depth - 1) for _ in range(rng.randrange(4)))
        value.array_value.values.extend(inner)
    elif kind == 7:
        value.kvlist_value.SetInParent()
        pairs = (
            KeyValue(key=f"k{number}", value=any_value(rng, depth - 1))
            for number in range(rng.randrange(4))
        )
        value.kvlist_value.values.extend(pairs)
    return value
