"""Growing tool arguments: µs per delta of treadle's scanner and of re-parsing all that has come.

Deltas of 8 characters, at 1 KB and at 1 MB of arguments in all. *skipped*: none of the fields is
streamed, as in a tool without any. *field*: the long one is, and its growth is taken; *events* are
the live events of it, as the step publishes them. Re-parsing is
`jiter.from_json(partial_mode="trailing-strings")`; at 1 MB only every 500th delta is re-parsed and
the mean taken, because all of them would take minutes. Figures are the median of several repeats.
"""

import time
from collections.abc import Callable
from statistics import median

import jiter
import msgspec

from benchmarks.bench import Bench
from benchmarks.row import Row, Target
from treadle.domain.events import ToolArgumentsDelta, ToolCallStarted
from treadle.streaming.jsonfields import JsonFieldScanner
from treadle.streaming.streamed_fields import StreamedFields, StreamedParameters
from treadle.testing.simulator.prose import prose

SIZES = {"1KB": (1_000, 200, 1), "1MB": (1_000_000, 1, 500)}
DELTA = 8
REPEATS = 5
LIMIT_US = 0.5
FLAT = 1.2

Scan = Callable[[list[str], int], float]


def rows(bench: Bench) -> list[Row]:
    """Measures both sizes in this process."""
    scans: dict[str, Scan] = {"skipped": _skip, "field": _scan, "events": _events}
    taken = {size: _measure(scans, *numbers) for size, numbers in SIZES.items()}
    return [_row(kind, size, taken) for kind in scans for size in SIZES]


def _measure(scans: dict[str, Scan], length: int, times: int, sample: int) -> dict[str, float]:
    text = msgspec.json.encode({"title": "A report", "text": prose(length)}).decode()
    deltas = [text[at : at + DELTA] for at in range(0, len(text), DELTA)]
    rounds = [{name: scan(deltas, times) for name, scan in scans.items()} for _ in range(REPEATS)]
    figures = {name: median(round[name] for round in rounds) for name in scans}
    return {**figures, "jiter": _parse_again(deltas, times, sample)}


def _row(kind: str, size: str, taken: dict[str, dict[str, float]]) -> Row:
    figures = {"treadle": taken[size][kind], "jiter": taken[size]["jiter"]}
    growth = taken["1MB"][kind] / taken["1KB"][kind]
    text = (
        f"jiter {figures['jiter'] / figures['treadle']:.0f} x treadle; 1 MB is {growth:.2f} x 1 KB"
    )
    targets = (
        Target(f"<= {LIMIT_US:g} µs", figures["treadle"], LIMIT_US),
        Target(f"1 MB <= {FLAT:g} x 1 KB", growth, FLAT),
    )
    judged = targets if kind == "field" else ()
    return Row(f"argument_scanner.{kind}.{size}", "µs/delta", figures, text, judged)


def _skip(deltas: list[str], times: int) -> float:
    return _scan(deltas, times, ())


def _scan(deltas: list[str], times: int, fields: tuple[str, ...] = ("text",)) -> float:
    start = time.process_time()
    for _ in range(times):
        scanner = JsonFieldScanner(fields)
        for delta in deltas:
            scanner.feed(delta)
    return (time.process_time() - start) / (times * len(deltas)) * 1e6


def _events(deltas: list[str], times: int) -> float:
    events = [ToolArgumentsDelta("fc", "call", delta) for delta in deltas]
    start = time.process_time()
    for _ in range(times):
        fields = StreamedFields(lambda _: StreamedParameters("text", ()))
        fields.feed(ToolCallStarted("fc", "call", "write"))
        for event in events:
            fields.feed(event)
    return (time.process_time() - start) / (times * len(deltas)) * 1e6


def _parse_again(deltas: list[str], times: int, sample: int) -> float:
    prefixes = [bytes("".join(deltas[: n + 1]), "utf-8") for n in range(0, len(deltas), sample)]
    start = time.process_time()
    for _ in range(times):
        for prefix in prefixes:
            jiter.from_json(prefix, partial_mode="trailing-strings")
    return (time.process_time() - start) / (times * len(prefixes)) * 1e6
