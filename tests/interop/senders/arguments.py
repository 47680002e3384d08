"""The command line and the ledger that all Python senders share.

A ledger is a JSON file: `ids` by signal are the values of the attribute `interop.id` of all that
was sent, `failures` what was not acknowledged, in words.
"""

import argparse
import json
import os
import uuid
from collections import Counter
from pathlib import Path


def parse(protocols: list[str]) -> argparse.Namespace:
    return parser(protocols).parse_args()


def parser(protocols: list[str]) -> argparse.ArgumentParser:
    """For senders that add words of their own."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--protocol", choices=protocols, required=True)
    parser.add_argument("--compression", default="none")
    parser.add_argument("--via", required=True, help="base URL of the server under test")
    parser.add_argument("--twin", required=True, help="base URL of the Collector beside it")
    parser.add_argument("--count", type=int, default=200, help="items of each signal")
    parser.add_argument("--batch", type=int, default=64, help="items of one request, at most")
    parser.add_argument("--timeout-s", type=int, default=10)
    parser.add_argument("--ledger", type=Path, required=True)
    return parser


def tls_file(what: str) -> str | None:
    """CERTIFICATE (of the CA), CLIENT_CERTIFICATE or CLIENT_KEY, where the SDKs look for it."""
    return os.environ.get(f"OTEL_EXPORTER_OTLP_{what}")


class Ledger:
    """What was sent, by id."""

    def __init__(self, sender: str):
        self.sender = sender
        self.ids: dict[str, list[str]] = {}
        self.failures: list[str] = []

    def take(self, signal: str) -> str:
        """A new id, which from now on must arrive."""
        item_id = str(uuid.uuid4())
        self.ids.setdefault(signal, []).append(item_id)
        return item_id

    def add(self, part: "Ledger") -> None:
        """Takes over what another ledger holds."""
        for signal, ids in part.ids.items():
            self.ids.setdefault(signal, []).extend(ids)

    def lost_any(self) -> bool:
        """Whether a request failed; a wrong form of success (S3) is no such failure."""
        return any(not failure.startswith("S3:") for failure in self.failures)

    def failed(self, what: str) -> None:
        self.failures.append(what)

    def write(self, path: Path) -> None:
        counted = Counter(self.failures)
        failures = [f"{times} x {what}" for what, times in counted.items()]
        content = {"sender": self.sender, "ids": self.ids, "failures": failures}
        path.write_text(json.dumps(content))
