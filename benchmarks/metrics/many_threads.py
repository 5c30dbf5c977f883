"""Many threads in one process.

*idle*: KB of resident memory that each of 10,000 threads leaves behind once it was used and has
left the memory. *active*: CPU of each of 1,000 runs at once, with three subscribers each, that
read every delta. *revive*: ms to connect to a thread of 10,000 events that is not in memory.
"""

import asyncio
import gc
import os
import time
from pathlib import Path
from statistics import median
from typing import cast

from benchmarks.bench import Bench
from benchmarks.parties.treadle_threads import TreadleThreads
from benchmarks.party import QUESTION, Party
from benchmarks.plan import Plan
from benchmarks.row import Row, Target
from benchmarks.work import Figures, Options
from treadle import RunCompleted, TextDelta, Thread

IDLE = 10_000
WARM_UP = 2_000
ACTIVE = 1_000
WATCHERS = 3
DELTAS = 20
REVIVED_EVENTS = 10_000
REVIVALS = 15
IDLE_KB = 1.0
REVIVE_MS = 50.0


async def work(party: Party, options: Options) -> Figures:
    """Measures all three in one process, the memory first."""
    threads = cast("TreadleThreads", party)
    threads.runtime._threads._driver._idle_seconds = 0.05  # type: ignore[attr-defined]
    figures = {"idle": await _idle(threads)}
    figures["active"] = await _active(threads)
    figures["revive"] = await _revive(threads)
    return figures


async def _idle(party: TreadleThreads) -> float:
    model = Plan().model
    await _use(party, model, WARM_UP)
    before = _resident()
    await _use(party, model, IDLE)
    return (_resident() - before) / 1024 / IDLE


async def _use(party: TreadleThreads, model: str, count: int) -> None:
    for _ in range(count // 100):
        await asyncio.gather(*(party.converse(model) for _ in range(100)))
    await asyncio.sleep(0.5)
    if party.runtime._threads._driver._actors:  # type: ignore[attr-defined]
        raise RuntimeError("Idle threads are still in memory.")


async def _active(party: TreadleThreads) -> float:
    plan = Plan(deltas=DELTAS, first=100, every=20)
    agent = party.agent(plan.model)
    threads = [await party.runtime.create_thread(agent) for _ in range(ACTIVE)]
    watching = [asyncio.create_task(_text(thread)) for thread in threads for _ in range(WATCHERS)]
    await asyncio.sleep(0)
    start = time.process_time()
    runs = await asyncio.gather(*(thread.send(QUESTION) for thread in threads))
    results = await asyncio.gather(*(run.result() for run in runs))
    texts = await asyncio.gather(*watching)
    spent = time.process_time() - start
    if {result.text for result in results} != set(texts):
        raise RuntimeError("A subscriber saw another text than the run came to.")
    return spent / ACTIVE * 1e3


async def _text(thread: Thread) -> str:
    text = ""
    async with thread.subscribe() as events:
        async for event in events:
            if isinstance(event, TextDelta):
                text += event.delta
            elif isinstance(event, RunCompleted):
                break
    return text


async def _revive(party: TreadleThreads) -> float:
    model = Plan(calls=1, rounds=1).model
    thread = await party.runtime.create_thread(party.agent(model))
    while (await thread.state()).seq < REVIVED_EVENTS:
        await (await thread.send(QUESTION)).result()
    times: list[float] = []
    for _ in range(REVIVALS):
        while party.runtime._threads._driver._actors:  # type: ignore[attr-defined]
            await asyncio.sleep(0.05)
        start = time.perf_counter()
        # Connecting loads nothing; an entry without effect loads the thread, and changes nothing.
        await (await party.runtime.connect(thread.id)).cancel_job("job_none")
        times.append((time.perf_counter() - start) * 1e3)
    return median(times)


def _resident() -> int:
    """Resident bytes once the garbage is collected."""
    gc.collect()
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def rows(bench: Bench) -> list[Row]:
    """Measures treadle on SQLite."""
    taken = bench.interleave("many_threads", ("treadle_sqlite",), 1, peers=False)["treadle_sqlite"]
    idle = Target("< 1 KB", taken["idle"], IDLE_KB)
    revive = Target("< 50 ms", taken["revive"], REVIVE_MS)
    return [
        Row("many_threads.idle", "KB/thread", {"treadle": taken["idle"]}, "", (idle,)),
        Row(
            "many_threads.active", "ms CPU/run", {"treadle": taken["active"]}, "3 subscribers each"
        ),
        Row("many_threads.revive", "ms", {"treadle": taken["revive"]}, "10,000 events", (revive,)),
    ]
