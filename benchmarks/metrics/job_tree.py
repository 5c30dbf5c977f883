"""A tree of jobs: CPU and memory of a node, whatever the size of the tree, and of a round.

Each node has up to ten children and does nothing else. weft's jobs are kept by their parents; the
same tree of tasks in `asyncio.TaskGroup`s is the floor, and agere's jobs a peer. Memory is the
growth of what `tracemalloc` counts, per node, once the tree has settled and is still held, and at
its peak. A round is a job whose settled callback submits the next one.
"""

import gc
import time
import tracemalloc
from typing import Any, cast

from benchmarks.bench import Bench, WorkerFailed, figures_of
from benchmarks.party import Party
from benchmarks.row import Row, Target, ratio
from benchmarks.work import Figures, Options

NODES = 100_000
FEW = 1_000
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
    return {
        "few": await _cpu(runner, FEW, NODES // FEW),
        "many": await _cpu(runner, NODES, 1),
    }


async def _cpu(runner: Any, size: int, times: int) -> float:
    """Returns µs per node; a tree is let go before the next."""
    gc.collect()
    start = time.process_time()
    for _ in range(times):
        await runner.grow(size)
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
    """Measures weft and the floor in turn, and agere where it is installed."""
    parties = ("weft_jobs", "task_group")
    taken = bench.interleave("job_tree", parties, REPEATS, peers=False)
    weft, floor = taken["weft_jobs"], taken["task_group"]
    figures = {"weft": weft, "floor": floor}
    if "agere" in bench.peers:
        try:
            figures["agere"] = bench.run("agere_jobs", "job_tree", bench.peers["agere"])
        except WorkerFailed as error:
            print(error)
    memory = bench.interleave("job_tree", ("weft_jobs",), 1, peers=False, memory=NODES)
    rounds = bench.interleave("job_tree", ("weft_jobs",), 1, peers=False, rounds=ROUNDS)
    return [
        *(_cpu_row(size, figures_of(figures, size), weft) for size in ("few", "many")),
        *_memory_rows(memory["weft_jobs"]),
        *_round_rows(rounds["weft_jobs"]),
    ]


def _cpu_row(size: str, figures: Figures, weft: Figures) -> Row:
    count = {"few": FEW, "many": NODES}[size]
    targets = (
        Target(f"<= {LIMIT_US:g} µs", figures["weft"], LIMIT_US),
        Target(f"<= {FLOOR:g} x TaskGroup", figures["weft"] / figures["floor"], FLOOR),
    )
    if "agere" in figures:
        targets += (Target("< agere", figures["weft"], figures["agere"]),)
    if size == "many":
        growth = weft["many"] / weft["few"]
        targets += (Target(f"<= {LINEAR:g} x that of {FEW:,}", growth, LINEAR),)
    said = ratio(figures, "floor", "agere")
    return Row(f"job_tree.cpu.{count}", "µs/node", figures, said, targets)


def _memory_rows(memory: Figures) -> list[Row]:
    kept = Target(f"<= {LIMIT_KB:g} KB", memory["kept"], LIMIT_KB)
    return [
        Row("job_tree.memory.kept", "KB/node", {"weft": memory["kept"]}, "", (kept,)),
        Row("job_tree.memory.peak", "KB/node", {"weft": memory["peak"]}),
    ]


def _round_rows(rounds: Figures) -> list[Row]:
    flat = Target(f"<= {FLAT_KB:g} KB", rounds["growth"], FLAT_KB)
    return [
        Row("job_tree.rounds.cpu", "µs/round", {"weft": rounds["cpu"]}),
        Row(f"job_tree.rounds.growth.{ROUNDS}", "KB", {"weft": rounds["growth"]}, "", (flat,)),
    ]
