"""CPU of a run of two steps on a thread: kept in SQLite, kept in memory, and without a thread.

*wave* is 1,000 runs at once, each on a new thread, the provider silent for 20 ms before each
response; *single* is one run after the other, where no two threads can share a transaction.
"""

import asyncio
import time

from benchmarks.bench import Bench, figures_of
from benchmarks.party import Party
from benchmarks.plan import Plan
from benchmarks.row import Row, Target
from benchmarks.work import Figures, Options

REPEATS = 3
LIMIT = 1.25
WAVE = 1_000
SINGLE = 300
PARTIES = ("treadle", "treadle_memory", "treadle_sqlite")


async def work(party: Party, options: Options) -> Figures:
    """Returns ms of CPU per run, of all threads of the process."""
    wave = Plan(calls=1, rounds=1, first=20).model
    single = Plan(calls=1, rounds=1).model
    await _wave(party, wave)
    start = time.process_time()
    await _wave(party, wave)
    together = time.process_time() - start
    start = time.process_time()
    for _ in range(SINGLE):
        await party.converse(single)
    alone = time.process_time() - start
    return {"wave": together / WAVE * 1e3, "single": alone / SINGLE * 1e3}


async def _wave(party: Party, model: str) -> None:
    await asyncio.gather(*(party.converse(model) for _ in range(WAVE)))


def rows(bench: Bench) -> list[Row]:
    """Measures SQLite as a multiple of memory."""
    taken = bench.interleave("journaled_run", PARTIES, REPEATS, peers=False)
    return [_row(name, figures_of(taken, name)) for name in ("wave", "single")]


def _row(name: str, cpu: Figures) -> Row:
    times = cpu["treadle_sqlite"] / cpu["treadle_memory"]
    target = Target("sqlite <= 1.25 x memory", times, LIMIT)
    return Row(f"journaled_run.{name}", "ms/run", cpu, f"{times:.2f} x treadle_memory", (target,))
