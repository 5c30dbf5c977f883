"""CPU of 1,000 concurrent conversations of two steps: one tool call, then text.

The provider is silent for 20 ms before each response. A wave of the same size goes before, so
that connections stand and what is measured is the work, not the opening of sockets.
"""

import asyncio
import time

from benchmarks.bench import CORE, Bench, figures_of
from benchmarks.party import Party
from benchmarks.plan import Plan
from benchmarks.row import Row, Target, ratio
from benchmarks.work import Figures, Options

REPEATS = 3
LIMIT = 2.5
RUNS = 1_000


async def work(party: Party, options: Options) -> Figures:
    """Returns ms of CPU per conversation."""
    model = Plan(calls=1, rounds=1, first=20).model
    await _wave(party, model, options["runs"])
    start = time.process_time()
    await _wave(party, model, options["runs"])
    seconds = time.process_time() - start
    return {"cpu": seconds / options["runs"] * 1e3}


async def _wave(party: Party, model: str, runs: int) -> None:
    texts = await asyncio.gather(*(party.converse(model) for _ in range(runs)))
    if len(set(texts)) != 1 or not texts[0]:
        raise RuntimeError("A conversation came to another text.")


def rows(bench: Bench) -> list[Row]:
    """Measures treadle's CPU as a multiple of the floor's."""
    taken = bench.interleave("concurrent_runs", CORE, REPEATS, peers=True, runs=RUNS)
    cpu = figures_of(taken, "cpu")
    target = Target("<= 2.5 x floor", cpu["treadle"] / cpu["floor"], LIMIT)
    return [
        Row("concurrent_runs", "ms/run", cpu, ratio(cpu, "floor", "openai_sdk"), (target,)),
    ]
