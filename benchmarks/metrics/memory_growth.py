"""Growth of resident memory over 10,000 runs of two steps, 100 at a time, after 2,000 others."""

import asyncio
import gc
import os
from pathlib import Path

from benchmarks.bench import Bench, figures_of
from benchmarks.party import Party
from benchmarks.plan import Plan
from benchmarks.row import Row, Target
from benchmarks.work import Figures, Options

REPEATS = 2
LIMIT_KB = 0.1
WARM_UP = 2_000
RUNS = 10_000
AT_A_TIME = 100


async def work(party: Party, options: Options) -> Figures:
    """Returns KB of growth per run."""
    model = Plan(calls=1, rounds=1).model
    await _runs(party, model, WARM_UP)
    before = _resident()
    await _runs(party, model, options["runs"])
    return {"growth": (_resident() - before) / 1024 / options["runs"]}


async def _runs(party: Party, model: str, runs: int) -> None:
    for _ in range(runs // AT_A_TIME):
        await asyncio.gather(*(party.converse(model) for _ in range(AT_A_TIME)))


def _resident() -> int:
    """Resident bytes once the garbage is collected."""
    gc.collect()
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def rows(bench: Bench) -> list[Row]:
    """Measures treadle, and the floor as the noise of the method."""
    taken = bench.interleave("memory_growth", ("treadle", "floor"), REPEATS, peers=False, runs=RUNS)
    growth = figures_of(taken, "growth")
    target = Target("<= 0.1 KB", growth["treadle"], LIMIT_KB)
    return [Row("memory_growth", "KB/run", growth, "", (target,))]
