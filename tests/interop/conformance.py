"""Suites of others against the running binary: h2spec on both ports, httpwg's HTTP/2 tests.

Every case passes but those named here, and those must fail: one that passes all of a sudden is to
be taken off the list. A case that is skipped has not passed.
"""

import os
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable

from bench import Bench
from collector import TOOLS
from forebay import Exporter, Setup
from processes import Failed, free_port, run

# Each takes a second; what waits for an end that does not come takes a frame's time.
SUITE_S_MAX = 180
FRAME_S_MAX = 5
# Both exit with 1 if a case failed: which, is for the lists below.
CODES = (0, 1)

H2SPEC_CASES_MIN = 146
H2SPEC_MAY_FAIL = {
    # Text that is no request line gets what RFC 9112, 3, wants: a 400 or 505, then the end. The
    # suite takes only an end without an answer, for it thinks of ports without HTTP/1.1.
    "http2/3.5: Sends invalid connection preface",
}
HTTPWG_CASES_MIN = 107
HTTPWG_MAY_FAIL = {
    # It wants a 200 for GET /, and there is nothing at / in OTLP.
    "sends headers frame with te trailers",
}


def h2spec(port: str) -> Callable[[Bench], str]:
    """`port`: grpc or http."""

    def suite(bench: Bench, address: str) -> dict[str, bool]:
        report = bench.folder / "h2spec.xml"
        host, number = address.split(":")
        argv = [TOOLS / "bin" / "h2spec", "--strict", "--timeout", FRAME_S_MAX]
        argv += ["--host", host, "--port", number, "--junit-report", report]
        run(argv, "h2spec", SUITE_S_MAX, CODES)
        return {
            f"{case.get('package')}: {case.get('classname')}": len(case) == 0
            for case in ElementTree.parse(report).iter("testcase")
        }

    return against(port, suite, H2SPEC_MAY_FAIL, H2SPEC_CASES_MIN)


def httpwg(port: str) -> Callable[[Bench], str]:
    def suite(_: Bench, address: str) -> dict[str, bool]:
        argv = [TOOLS / "bin" / "httpwg", "--address", address]
        argv += ["--frame-timeout", FRAME_S_MAX * 1000]
        # It would take 256 MiB for its own buffers.
        few = os.environ | {"BUFFET_NUM_BUFS": "4096"}
        output = run(argv, "httpwg", SUITE_S_MAX, CODES, merged=True, env=few)
        output = re.sub(r"\x1b\[[0-9;]*m", "", output)
        names = re.findall(r"Test passed: .* :: (.+)", output)
        total = re.search(r"Passed (\d+)/(\d+) tests", output)
        if not total or int(total[1]) != len(names):
            raise Failed(f"httpwg did not come to its end:\n{output[-2000:]}")
        passed = {name.strip(): True for name in names}
        # It names those that pass. Which others there are is for the list to say.
        expected = {name: False for name in HTTPWG_MAY_FAIL if name not in passed}
        unnamed = int(total[2]) - len(passed) - len(expected)
        return passed | expected | {f"one without a name, {nth}": False for nth in range(unnamed)}

    return against(port, suite, HTTPWG_MAY_FAIL, HTTPWG_CASES_MIN)


def against(port: str, suite, may_fail: set[str], cases_min: int) -> Callable[[Bench], str]:
    def body(bench: Bench) -> str:
        # Nobody listens there: what these suites send is no telemetry.
        forebay = bench.forebay(Setup([Exporter("grpc", free_port())]))
        passed = suite(bench, forebay.base_url(port).removeprefix("http://"))
        forebay.end()
        return verdict(passed, may_fail, cases_min)

    return body


def verdict(passed: dict[str, bool], may_fail: set[str], cases_min: int) -> str:
    failed = {name for name, well in passed.items() if not well}
    if failed - may_fail:
        raise Failed("failed:\n  " + "\n  ".join(sorted(failed - may_fail)))
    if may_fail - failed:
        raise Failed("passed against the list, or gone:\n  " + "\n  ".join(may_fail - failed))
    if len(passed) < cases_min:
        raise Failed(f"{len(passed)} cases only, there were {cases_min}")
    return f"{len(passed) - len(failed)} of {len(passed)}, the others are named"
