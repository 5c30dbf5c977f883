"""Measures, prints a table and writes benchmarks/results.json; exits 1 if a target is missed.

`python -m benchmarks [NAME...]` runs the metrics named, or all, and writes the results of all only.
"""

import argparse
import subprocess
import sys
import time
from importlib import import_module

from benchmarks.bench import Bench, WorkerFailed, installed_peers
from benchmarks.provider import provider
from benchmarks.results import write_results
from benchmarks.row import Row
from benchmarks.table import table

METRICS = (
    "provider_capacity",
    "text_delta_cpu",
    "first_delta_delay",
    "tool_round_trip",
    "blocking_tools",
    "early_tool_start",
    "to_user_delay",
    "served_events",
    "concurrent_runs",
    "journaled_run",
    "durable_events",
    "many_threads",
    "find_threads",
    "long_conversation",
    "hooks",
    "context_window",
    "memory_blocks",
    "prompt_cache",
    "memory_growth",
    "import_time",
    "distributions",
    "argument_scanner",
    "job_tree",
    "archive_search",
    "archive_recall",
    "sse_parser",
)


def main() -> int:
    """Runs the metrics asked for; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(METRICS))
    parser.add_argument("--no-peers", action="store_true", help="leave the other frameworks out")
    arguments = parser.parse_args()
    unknown = set(arguments.names) - set(METRICS)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(METRICS)}")
    rows = _measure(arguments.names or METRICS, peers=not arguments.no_peers)
    print(table(rows))
    if not arguments.names:
        write_results(rows)
    return int(any(row.reached is False for row in rows))


def _measure(names: tuple[str, ...], *, peers: bool) -> list[Row]:
    rows: list[Row] = []
    with provider("benchmarks.server") as url:
        bench = Bench(url, installed_peers() if peers else {})
        for name in names:
            start = time.monotonic()
            rows += _rows(bench, name)
            print(f"{name}: {time.monotonic() - start:.0f} s", file=sys.stderr)
    return rows


def _rows(bench: Bench, name: str) -> list[Row]:
    """Returns the rows of a metric; where it cannot be measured, one that says why."""
    try:
        return import_module(f"benchmarks.metrics.{name}").rows(bench)
    except (WorkerFailed, ImportError, RuntimeError, subprocess.SubprocessError) as error:
        return [Row(name, "", {}, failure=str(error))]


if __name__ == "__main__":
    sys.exit(main())
