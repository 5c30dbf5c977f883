"""A tree of jobs: CPU and memory of a node, whatever the size of the tree, and of a round.

Each node has up to ten children and does nothing else. Parents keep treadle's jobs; the
same tree of tasks in `asyncio.TaskGroup`s is the floor, and agere's jobs a peer. Memory is the
growth of what `tracemalloc` counts, per node, once the tree has settled and is still held, and at
its peak. *unkept*: the jobs keep none that has settled, as agere's. *handlers*: agere's jobs run
one after the other, and only its handlers at once. A round is a job whose settled callback submits
the next one.
"""

import gc
import sys
import time
import tracemalloc
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any, cast

from benchmarks.bench import Bench, figures_of
from benchmarks.party import Party
from benchmarks.row import Row, Target, ratio
from benchmarks.work import Figures, Options

NODES = 100_000
FEW = 1_000
SIZES = (FEW, NODES)
PARTIES = {"treadle": "treadle_jobs", "floor": "task_group", "agere": "agere_jobs"}
OTHER = {"unkept": "grow_unkept", "handlers": "grow"}
ROUNDS = 100_000
BRANCHES = 10
REPEATS = 3
LIMIT_US = 20.0
LIMIT_KB = 2.5
LINEAR = 1.3
FLOOR = 5.0
FLAT_KB = 100.0


def parts(size: int) -> list[int]:
    """Returns the sizes of the subtrees below the top of a tree of `size` nodes."""
    share, more = divmod(size - 1, BRANCHES)
    sizes = [share + (number < more) for number in range(BRANCHES)]
    return [part for part in sizes if part]


async def work(party: Party, options: Options) -> Figures:
    """Returns what is asked for: CPU, memory, or the growth over many rounds."""
    runner = cast("Any", party)
    if options.get("rounds"):
        return await _rounds(runner, options["rounds"])
    if options.get("memory"):
        return await _memory(runner, options["memory"])
    figures: Figures = {}
    for kind in ("grow", "grow_handlers", "grow_unkept"):
        if grow := getattr(runner, kind, None):
            figures[f"{kind}.{FEW}"] = await _cpu(grow, FEW, NODES // FEW)
            figures[f"{kind}.{NODES}"] = await _cpu(grow, NODES, 1)
    gc.disable()
    for size in (FEW, NODES):
        figures[f"uncollected.{size}"] = await _cpu(runner.grow, size, NODES // size)
    return figures


async def _cpu(grow: Callable[[int], Awaitable[None]], size: int, times: int) -> float:
    """Returns µs per node; a tree is let go before the next."""
    gc.collect()
    start = time.process_time()
    for _ in range(times):
        await grow(size)
    return (time.process_time() - start) / (size * times) * 1e6


async def _memory(runner: Any, size: int) -> Figures:
    await runner.grow(FEW)
    gc.collect()
    tracemalloc.start()
    await runner.grow(size)
    gc.collect()
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return {"kept": kept / 1024 / size, "peak": peak / 1024 / size}


async def _rounds(runner: Any, number: int) -> Figures:
    await runner.rounds(number // 10)
    gc.collect()
    tracemalloc.start()
    await runner.rounds(number // 10)
    before = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    await runner.rounds(number)
    growth = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    start = time.process_time()
    await runner.rounds(number)
    return {"cpu": (time.process_time() - start) / number * 1e6, "growth": growth / 1024}


def rows(bench: Bench) -> list[Row]:
    """Measures treadle, the floor and agere, where it is installed, in turn."""
    taken: dict[str, list[Figures]] = {"treadle": [], "floor": [], "agere": []}
    for _ in range(REPEATS):
        for name, party in PARTIES.items():
            python = bench.peers.get("agere") if name == "agere" else Path(sys.executable)
            if python is not None:
                taken[name].append(bench.run(party, "job_tree", python))
    figures = {name: _medians(runs) for name, runs in taken.items() if runs}
    memory = bench.run("treadle_jobs", "job_tree", Path(sys.executable), memory=NODES)
    rounds = bench.run("treadle_jobs", "job_tree", Path(sys.executable), rounds=ROUNDS)
    return [
        *(_cpu_row(size, figures) for size in (FEW, NODES)),
        *(_other_row(kind, size, figures) for kind in ("unkept", "handlers") for size in SIZES),
        _linear_row(figures),
        *_memory_rows(memory),
        *_round_rows(rounds),
    ]


def _medians(runs: list[Figures]) -> Figures:
    return {name: median(run[name] for run in runs) for name in runs[0]}


def _cpu_row(size: int, taken: Mapping[str, Figures]) -> Row:
    figures = figures_of(taken, f"grow.{size}")
    targets = (
        Target(f"<= {LIMIT_US:g} µs", figures["treadle"], LIMIT_US),
        Target(f"<= {FLOOR:g} x TaskGroup", figures["treadle"] / figures["floor"], FLOOR),
    )
    if "agere" in figures:
        targets += (Target("< agere", figures["treadle"], figures["agere"]),)
    said = ratio(figures, "floor", "agere")
    return Row(f"job_tree.cpu.{size}", "µs/node", figures, said, targets)


def _other_row(kind: str, size: int, taken: Mapping[str, Figures]) -> Row:
    """Beside jobs that are not kept: agere keeps none. Beside handlers: agere's jobs take turns."""
    figures = {"treadle": taken["treadle"][f"{OTHER[kind]}.{size}"]}
    if "agere" in taken:
        figures["agere"] = taken["agere"][
            f"{'grow' if kind == 'unkept' else 'grow_handlers'}.{size}"
        ]
    return Row(f"job_tree.{kind}.{size}", "µs/node", figures, ratio(figures, "agere"))


def _linear_row(taken: Mapping[str, Figures]) -> Row:
    """Without the garbage collector, whose walks over all that is kept are not linear."""
    growth = {
        name: figures[f"uncollected.{NODES}"] / figures[f"uncollected.{FEW}"]
        for name, figures in taken.items()
    }
    target = Target(f"<= {LINEAR:g}", growth["treadle"], LINEAR)
    return Row(f"job_tree.growth.{NODES}", f"x {FEW:,}", growth, "", (target,))


def _memory_rows(memory: Figures) -> list[Row]:
    kept = Target(f"<= {LIMIT_KB:g} KB", memory["kept"], LIMIT_KB)
    return [
        Row("job_tree.memory.kept", "KB/node", {"treadle": memory["kept"]}, "", (kept,)),
        Row("job_tree.memory.peak", "KB/node", {"treadle": memory["peak"]}),
    ]


def _round_rows(rounds: Figures) -> list[Row]:
    flat = Target(f"<= {FLAT_KB:g} KB", rounds["growth"], FLAT_KB)
    return [
        Row("job_tree.rounds.cpu", "µs/round", {"treadle": rounds["cpu"]}),
        Row(f"job_tree.rounds.growth.{ROUNDS}", "KB", {"treadle": rounds["growth"]}, "", (flat,)),
    ]
