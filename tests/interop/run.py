"""Runs the scenarios one after the other: a line for each, then `N passed, N failed`.

    run.py [--subject forebay|collector] [--binary PATH] [--seed N] [--list] [words of a name ...]

What a scenario leaves (configurations, logs, what arrived) lies in .tools/runs/ until the next run.
"""

import argparse
import os
import re
import shutil
import sys
import time
import traceback
from pathlib import Path

import forebay
from bench import Bench
from collector import TOOLS
from processes import Failed
from scenarios import Scenario, all_scenarios

RUNS = TOOLS / "runs"


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--subject", choices=["forebay", "collector"], default="forebay")
    parser.add_argument("--seed", type=int, default=20260821)
    parser.add_argument("--binary", type=Path, help="forebay, if not target/release/forebay")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("words", nargs="*", help="only scenarios whose name has all of them")
    options = parser.parse_args()
    chosen = [
        one
        for one in all_scenarios()
        if all(word in one.name for word in options.words)
        and not (one.forebay_only and options.subject == "collector")
    ]
    if options.list:
        print("\n".join(one.name for one in chosen))
        return 0
    if options.binary:
        forebay.binary_path = options.binary
    clear_old_runs()
    begun = time.monotonic()
    failed = sum(not passes(one, options) for one in chosen)
    print(f"took {time.monotonic() - begun:.0f} s")
    print(f"{len(chosen) - failed} passed, {failed} failed", flush=True)
    return 1 if failed or not chosen else 0


def clear_old_runs() -> None:
    """Runs that have ended leave their folder, named by process id, until the next one starts."""
    for folder in RUNS.glob("*"):
        if not Path(f"/proc/{folder.name}").exists():
            shutil.rmtree(folder, ignore_errors=True)


def passes(scenario: Scenario, options) -> bool:
    words = re.sub(r"[^a-z0-9]+", "-", scenario.name.lower()).strip("-")
    folder = RUNS / str(os.getpid()) / words
    folder.mkdir(parents=True)
    bench = Bench(options.subject, folder, options.seed)
    begun, note, why = time.monotonic(), "", ""
    try:
        note = scenario.body(bench)
    except Failed as failure:
        why = str(failure)
    except Exception:  # A fault of the tests themselves fails one scenario, not the run.
        why = traceback.format_exc()
    finally:
        bench.clear()
    note = note or "see below"
    taken_s = time.monotonic() - begun
    verdict = "FAIL" if why else "ok"
    print(f"{verdict:4} {scenario.name}  ({taken_s:.1f} s; {note})", flush=True)
    if why:
        print(f"     seed {options.seed}; what it left: {folder}")
        print("     " + why.replace("\n", "\n     "), flush=True)
    return not why


if __name__ == "__main__":
    sys.exit(main())
