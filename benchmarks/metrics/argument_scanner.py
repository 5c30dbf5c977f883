"""Growing tool arguments: µs per delta of weft's scanner and of re-parsing all that has come.

Deltas of 8 characters, at 1 KB and at 1 MB of arguments in all. Re-parsing is
`jiter.from_json(partial_mode="trailing-strings")`; at 1 MB only every 500th delta is re-parsed and
the mean taken, because all of them would take minutes.
"""

import time

import jiter
import msgspec

from benchmarks.bench import Bench
from benchmarks.row import Row
from weft.streaming.jsonfields import JsonFieldScanner
from weft.testing.simulator.prose import prose

SIZES = {"1KB": (1_000, 200, 1), "1MB": (1_000_000, 1, 500)}
DELTA = 8


def rows(bench: Bench) -> list[Row]:
    """Measures both sizes in this process."""
    return [_row(name, *numbers) for name, numbers in SIZES.items()]


def _row(name: str, length: int, times: int, sample: int) -> Row:
    text = msgspec.json.encode({"title": "A report", "text": prose(length)}).decode()
    deltas = [text[at : at + DELTA] for at in range(0, len(text), DELTA)]
    figures = {"weft": _scan(deltas, times), "jiter": _parse_again(deltas, times, sample)}
    factor = f"jiter {figures['jiter'] / figures['weft']:.0f} x weft"
    return Row(f"argument_scanner.{name}", "µs/delta", figures, factor)


def _scan(deltas: list[str], times: int) -> float:
    start = time.process_time()
    for _ in range(times):
        scanner = JsonFieldScanner()
        for delta in deltas:
            scanner.feed(delta)
    return (time.process_time() - start) / (times * len(deltas)) * 1e6


def _parse_again(deltas: list[str], times: int, sample: int) -> float:
    prefixes = [bytes("".join(deltas[: n + 1]), "utf-8") for n in range(0, len(deltas), sample)]
    start = time.process_time()
    for _ in range(times):
        for prefix in prefixes:
            jiter.from_json(prefix, partial_mode="trailing-strings")
    return (time.process_time() - start) / (times * len(prefixes)) * 1e6
