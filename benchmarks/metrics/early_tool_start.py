"""Delay of a tool whose arguments are complete while its response streams on for a second.

The arguments hold the server's `time.monotonic_ns` of the write that completes them; the tool's
first line reads the clock again. 40 runs, one started each 50 ms, so about 20 are under way.
"""

import asyncio
import time

from benchmarks.bench import Bench
from benchmarks.party import QUESTION, Party
from benchmarks.plan import Plan, stamp_of
from benchmarks.quantile import quantile
from benchmarks.row import Row, Target
from benchmarks.work import Figures, Options
from treadle import Agent
from treadle.models.openai import OpenAIResponses

REPEATS = 3
LIMIT_MS = 5.0
RUNS = 40
APART = 0.05
PLAN = Plan(calls=1, rounds=1, stamped=1, tail=1, deltas=100, every=10)


async def work(party: Party, options: Options) -> Figures:
    """Returns the worst and the median delay in ms, of async tools or of plain functions."""
    delays: list[float] = []

    async def note(text: str) -> str:
        delays.append((time.monotonic_ns() - stamp_of(text)) / 1e6)
        return "noted"

    def note_in_thread(text: str) -> str:
        delays.append((time.monotonic_ns() - stamp_of(text)) / 1e6)
        return "noted"

    note_in_thread.__name__ = "note"
    url = f"http://127.0.0.1:{options['port']}/v1"
    model = OpenAIResponses(PLAN.model, api_key="", base_url=url)
    agent = Agent(model, tools=[note_in_thread if options["threads"] else note])

    async def run(number: int) -> None:
        await asyncio.sleep(number * APART)
        start = time.monotonic()
        await agent.run(QUESTION)
        if time.monotonic() - start < PLAN.deltas * PLAN.every / 1000:
            raise RuntimeError("The response was over too soon.")

    await asyncio.gather(*(run(number) for number in range(RUNS)))
    return {"p50": quantile(delays, 0.5), "worst": max(delays)}


def rows(bench: Bench) -> list[Row]:
    """Measures async tools and plain functions; the worst of each process is judged."""
    return [_row(bench, "async", 0), _row(bench, "thread", 1)]


def _row(bench: Bench, kind: str, threads: int) -> Row:
    port = int(bench.url.rpartition(":")[2].partition("/")[0])
    taken = bench.interleave(
        "early_tool_start", ("treadle",), REPEATS, peers=False, port=port, threads=threads
    )
    worst = taken["treadle"]["worst"]
    target = Target("<= 5 ms", worst, LIMIT_MS)
    text = f"median {taken['treadle']['p50']:.3f} ms"
    return Row(f"early_tool_start.{kind}", "ms, worst", {"treadle": worst}, text, (target,))
