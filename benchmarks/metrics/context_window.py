"""A conversation of 5,000 steps within 32,000 tokens, and what choosing a cut takes.

*requests*: the longest request of a run that calls a tool 5,000 times, as the model counts it: a
third more than treadle estimates, with single items up to a tenth off. Each request must be a valid
history; the run fails otherwise. *step* is the CPU of a step of it, all included.

*cut*: choosing where a history of 10,000 items is cut. *kept*: its tally is there already, as on
every step of a conversation; *fresh*: it is made anew, as after a restart. Medians.
"""

import asyncio
import time
import zlib
from collections.abc import AsyncGenerator, Callable
from statistics import median

from benchmarks.bench import Bench
from benchmarks.row import Row, Target
from treadle import Agent, Limits, tool
from treadle.domain.context import WHOLE
from treadle.domain.events import ContextCompacted
from treadle.domain.history import History, require_valid
from treadle.domain.items import (
    FunctionCall,
    FunctionCallOutput,
    Item,
    Message,
    OutputText,
    user_message,
)
from treadle.domain.usage import Usage
from treadle.memory import SlidingWindow
from treadle.memory.compaction.cut import Aim, Cutter
from treadle.memory.compaction.tally import Tally
from treadle.memory.compaction.tokens import frame_tokens, item_tokens
from treadle.models.base import ModelRequest
from treadle.streaming.demux import Demux, StreamEvent
from treadle.testing.simulator.prose import prose

STEPS = 5_000
WINDOW = 32_000
ITEMS = 10_000
REPEATS = 30
LIMIT_MS = 5


class _Model:
    """Calls the tool in each of `STEPS` responses, and counts what it is sent."""

    name = provider = "counting"

    def __init__(self) -> None:
        self.longest = 0
        self.asked = 0

    async def stream(self, request: ModelRequest) -> AsyncGenerator[StreamEvent]:
        require_valid(request.items)
        counted = round(1.3 * frame_tokens(request) + sum(map(_counted, request.items)))
        self.longest = max(self.longest, counted)
        demux = Demux(self.provider, [])
        demux.usage = Usage(counted, 5, requests=1)
        if self.asked < STEPS:
            demux.call(0, f"call_{self.asked}", "look")
            demux.arguments(0, f'{{"place": {self.asked}}}')
        else:
            demux.text(0, "Done.")
        self.asked += 1
        demux.finish_all(truncated=False)
        demux.end("stop")
        for event in demux.take():
            yield event


def _counted(item: Item) -> float:
    noise = zlib.crc32(repr(item)[-40:].encode()) % 1000 / 500 - 1
    return item_tokens(item) * 1.3 * (1 + 0.1 * noise)


@tool
async def look(place: int) -> str:
    """Looks at a place."""
    return prose(200 + place % 400)


async def _converse() -> tuple[int, int, float]:
    """Returns the longest request, the number of compactions, and ms of CPU a step."""
    model = _Model()
    agent = Agent(
        model,
        tools=[look],
        context=SlidingWindow(max_tokens=WINDOW),
        limits=Limits(max_steps=None),
    )
    compactions, start = 0, time.process_time()
    async with agent.stream("Look at all of it.") as run:
        async for event in run:
            compactions += isinstance(event, ContextCompacted)
        result = await run.result()
    each = (time.process_time() - start) / STEPS * 1e3
    assert result.steps == STEPS + 1
    assert len(result.history) == 2 * STEPS + 2
    return model.longest, compactions, each


def _history() -> History:
    items: list[Item] = []
    n = 0
    while len(items) < ITEMS:
        items.append(user_message(prose(80)))
        for _ in range(3):
            items.append(FunctionCall(f"call_{n}", "look", '{"place": 12}'))
            items.append(FunctionCallOutput(f"call_{n}", prose(400)))
            n += 1
        items.append(Message("assistant", (OutputText(prose(200)),)))
    return History(items)


def _cuts() -> tuple[float, float]:
    """Returns ms to choose a cut with the tally that is there, and with one that is made anew."""
    history, tally = _history(), Tally()
    tally.extend(history)
    aim = Aim(goal=12_000, limit=28_000, keep=10, frame=900)

    def kept() -> None:
        assert Cutter(tally, history, WHOLE).choose(aim) is not None

    def fresh() -> None:
        anew = Tally()
        anew.extend(history)
        assert Cutter(anew, history, WHOLE).choose(aim) is not None

    return _median(kept), _median(fresh)


def _median(work: Callable[[], None]) -> float:
    taken: list[float] = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        work()
        taken.append((time.perf_counter() - start) * 1e3)
    return median(taken)


def rows(bench: Bench) -> list[Row]:
    """Measures both in this process."""
    longest, compactions, each = asyncio.run(_converse())
    kept, fresh = _cuts()
    within = Target(f"<= {WINDOW:,} tokens", longest, WINDOW)
    quick = Target(f"kept <= {LIMIT_MS} ms", kept, LIMIT_MS)
    return [
        Row(
            "context_window.requests",
            "tokens at most",
            {"treadle": longest},
            f"{STEPS:,} steps, {compactions} compactions",
            (within,),
        ),
        Row("context_window.step", "ms CPU/step", {"treadle": each}),
        Row(
            "context_window.cut", "ms", {"kept": kept, "fresh": fresh}, f"{ITEMS:,} items", (quick,)
        ),
    ]
