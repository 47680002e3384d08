"""Takes OTLP JSON apart into items, and says how what came differs from what was sent.

An item is a span, a log record or a data point together with all that it hangs from: resource,
scope, their schema URLs, and for a point its metric's name, unit, kind and temporality. How items
were grouped into requests is the one thing that is not compared: that is what batching changes.
"""

import difflib
import json
from collections import Counter
from dataclasses import dataclass

SHAPES = {
    "traces": ("resourceSpans", "scopeSpans", "spans"),
    "metrics": ("resourceMetrics", "scopeMetrics", "metrics"),
    "logs": ("resourceLogs", "scopeLogs", "logRecords"),
}
POINT_KINDS = ("gauge", "sum", "histogram", "exponentialHistogram", "summary")
SHOWN_MAX = 2
SHOWN_CHARS_MAX = 600


@dataclass
class Difference:
    """Items of one signal, by text: how often each is missing, and how often it came too often."""

    missing: Counter
    extra: Counter
    unknown: Counter


def items(requests: list[dict], signal: str) -> Counter:
    """Every item of the signal in a canonical text, with how often it occurs."""
    groups_key, scopes_key, items_key = SHAPES[signal]
    found = Counter()
    for request in requests:
        for group in request.get(groups_key, []):
            for scope_group in group.get(scopes_key, []):
                around = {
                    "resource": group.get("resource", {}),
                    "resourceSchemaUrl": group.get("schemaUrl", ""),
                    "scope": scope_group.get("scope", {}),
                    "scopeSchemaUrl": scope_group.get("schemaUrl", ""),
                }
                for item in scope_group.get(items_key, []):
                    for part in points(item) if signal == "metrics" else [item]:
                        found[canonical({**around, "item": part})] += 1
    return found


def points(metric: dict) -> list[dict]:
    """One item for each data point; a metric without any is one item too."""
    kind = next((kind for kind in POINT_KINDS if kind in metric), None)
    if kind is None:
        return [metric]
    data = metric[kind]
    about = {**metric, kind: {key: data[key] for key in data if key != "dataPoints"}}
    return [{**about, "point": point} for point in data.get("dataPoints", [])] or [about]


def canonical(value) -> str:
    return json.dumps(sort_attributes(value), sort_keys=True, ensure_ascii=False, indent=1)


def sort_attributes(value):
    """Attributes are maps written as lists: their order means nothing, so it is taken out."""
    if isinstance(value, dict):
        return {
            key: sorted((sort_attributes(one) for one in inner), key=lambda one: json.dumps(one))
            if key == "attributes"
            else sort_attributes(inner)
            for key, inner in value.items()
        }
    if isinstance(value, list):
        return [sort_attributes(one) for one in value]
    return value


def differ(sent: Counter, came: Counter) -> Difference:
    return Difference(
        missing=sent - came,
        extra=Counter({item: n - sent[item] for item, n in came.items() if 0 < sent[item] < n}),
        unknown=Counter({item: n for item, n in came.items() if item not in sent}),
    )


def ids(found: Counter) -> set[str]:
    """The values of the attribute `interop.id`, wherever the item carries it."""
    values = set()
    for text in found:
        item = json.loads(text)["item"]
        for attribute in item.get("point", item).get("attributes", []):
            if attribute["key"] == "interop.id":
                values.add(attribute["value"].get("stringValue"))
    return values


def describe(difference: Difference) -> str:
    """What differs, with the first few items shown beside the nearest one that did come."""
    lines = [
        f"{sum(difference.missing.values())} missing, {sum(difference.extra.values())} repeated, "
        f"{sum(difference.unknown.values())} that were never sent"
    ]
    unknown = list(difference.unknown)
    for item in list(difference.missing)[:SHOWN_MAX]:
        nearest = difflib.get_close_matches(item, unknown[:200], n=1, cutoff=0.5)
        if nearest:
            changes = difflib.unified_diff(
                item.splitlines(), nearest[0].splitlines(), "sent", "came", lineterm="", n=1
            )
            lines.extend(changes)
        else:
            lines.append("missing: " + " ".join(item.split())[:SHOWN_CHARS_MAX])
    return "\n".join(lines)
