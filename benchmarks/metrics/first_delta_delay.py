"""The delay of the first text delta, from the server's write to the consumer.

The delta's text is the server's `time.monotonic_ns` in the instant of its write; on one machine
that clock is the same in every process. What counts is what treadle adds: its p99 less the floor's.
`one`: streams one after the other. `200`: 200 streams at a time, which start evenly spread and
bring 50 deltas a second each; the client keeps to one core. Two figures beside, without a target:
`200_at_once`, the same streams all started in one instant; and `call_to_text`, from the call of
the library to the consumer, less the provider's own 2 ms.
"""

import asyncio
import time

from benchmarks.bench import CORE, Bench, figures_of
from benchmarks.party import Party
from benchmarks.plan import Plan, stamp_of
from benchmarks.quantile import quantile
from benchmarks.row import Row, Target, ratio
from benchmarks.work import Figures, Options

REPEATS = 3
ALONE_LIMIT = 1.0
CROWD_LIMIT = 10.0
FIRST_MS = 2
ROUNDS = 400
WARM_UP = 20
CROWD = 200
CROWD_ROUNDS = 3
CROWD_PLAN = Plan(deltas=50, every=20, stamped=1, first=FIRST_MS)
ALONE_PLAN = Plan(deltas=3, every=1, stamped=1, first=FIRST_MS)

Delay = tuple[float, float]


async def work(party: Party, options: Options) -> Figures:
    """Returns the p50 and p99 of the delays in ms."""
    streams = options["streams"]
    if streams == 1:
        model = ALONE_PLAN.model
        delays = [await _delay(party, model) for _ in range(WARM_UP + ROUNDS)][WARM_UP:]
    else:
        delays = await _crowd(party, streams, at_once=bool(options["at_once"]))
    writes = [delay for delay, _ in delays]
    calls = [call for _, call in delays]
    return {
        "p50": quantile(writes, 0.5),
        "p99": quantile(writes, 0.99),
        "call_p50": quantile(calls, 0.5),
        "call_p99": quantile(calls, 0.99),
    }


async def _crowd(party: Party, streams: int, *, at_once: bool) -> list[Delay]:
    """Streams that go on one after the other, so many at a time; the first of each is warm-up."""
    spread = 0.0 if at_once else CROWD_PLAN.deltas * CROWD_PLAN.every / 1000 / streams

    async def rounds(number: int) -> list[Delay]:
        await asyncio.sleep(number * spread)
        model = CROWD_PLAN.model
        return [await _delay(party, model) for _ in range(1 + CROWD_ROUNDS)][1:]

    lists = await asyncio.gather(*(rounds(number) for number in range(streams)))
    return [delay for delays in lists for delay in delays]


async def _delay(party: Party, model: str) -> Delay:
    start = time.monotonic_ns()
    first = await party.first_delta(model)
    return (first.at - stamp_of(first.text)) / 1e6, (first.at - start) / 1e6 - FIRST_MS


def rows(bench: Bench) -> list[Row]:
    """Measures one stream, 200 in a steady flow, and 200 at once."""
    alone = bench.interleave("first_delta_delay", CORE, REPEATS, peers=True, streams=1, at_once=0)
    crowd, burst = (
        bench.interleave(
            "first_delta_delay", CORE[:2], REPEATS, peers=False, streams=CROWD, at_once=at_once
        )
        for at_once in (0, 1)
    )
    return [
        _row("first_delta_delay.one", alone, "p99", ALONE_LIMIT),
        _row("first_delta_delay.200", crowd, "p99", CROWD_LIMIT),
        _row("first_delta_delay.200_at_once", burst, "p99", None),
        _row("first_delta_delay.call_to_text", alone, "call_p99", None),
    ]


def _row(name: str, taken: dict[str, Figures], figure: str, limit: float | None) -> Row:
    delays = figures_of(taken, figure)
    added = delays["treadle"] - delays["floor"]
    targets = () if limit is None else (Target(f"<= floor + {limit:g} ms", added, limit),)
    return Row(name, "ms p99", delays, f"{added:+.3f} ms, {ratio(delays, 'floor')}", targets)
