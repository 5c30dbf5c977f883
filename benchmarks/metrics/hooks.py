"""What hooks that do nothing cost: CPU of a step with them, beyond a step without.

A step is a response of one call of a trivial tool, from a model in the same process; 400 steps in a
run, the least of runs taken in turn, because what disturbs a run of milliseconds can only add. A
hook of each kind by itself, all of a step together, `on_event`, which is called for each of the
step's events, and tool rules.
"""

import asyncio
import time
from collections.abc import AsyncGenerator

from benchmarks.bench import Bench
from benchmarks.row import Row, Target
from treadle import Agent, Hooks, Limits, ToolRules, tool
from treadle.domain.items import FunctionCall, Message, OutputText
from treadle.domain.usage import Usage
from treadle.models.base import ModelRequest
from treadle.streaming.demux import ItemFinished, ResponseFinished, StreamEvent

REPEATS = 15
STEPS = 400
LIMIT_US = 5.0


class Calls:
    """A model that calls the tool in each response but the last."""

    name = provider = "calls"

    async def stream(self, request: ModelRequest) -> AsyncGenerator[StreamEvent]:
        """Yields the next response."""
        length = len(request.items)
        if length < 2 * STEPS:
            yield ItemFinished(0, FunctionCall(f"c{length}", "same", '{"text":"x"}', "fc"))
        else:
            yield ItemFinished(0, Message("assistant", (OutputText("Done."),), "msg"))
        yield ResponseFinished("r", "stop", Usage())


@tool
async def same(text: str) -> str:
    """Returns what it is given."""
    return text


def nothing(*_: object) -> None:
    """Does nothing."""


KINDS = {
    "before_model": Hooks(before_model=nothing),
    "after_completion": Hooks(after_completion=nothing),
    "before_tool": Hooks(before_tool=nothing),
    "after_tool": Hooks(after_tool=nothing),
    "all_of_a_step": Hooks(
        before_model=nothing, after_completion=nothing, before_tool=nothing, after_tool=nothing
    ),
    "on_event": Hooks(on_event=nothing),
}
WITHOUT_TARGET = {"on_event"}


def rows(bench: Bench) -> list[Row]:
    """Measures in this process."""
    return asyncio.run(_rows())


async def _rows() -> list[Row]:
    await _step_us(Hooks())
    taken: dict[str, list[float]] = {kind: [] for kind in (*KINDS, "rules")}
    steps: list[float] = []
    rules = ToolRules(max_calls={"same": 10 * STEPS}, required=["same"])
    for _ in range(REPEATS):
        steps.append(await _step_us(Hooks()))
        for kind, hooks in KINDS.items():
            taken[kind].append(await _step_us(hooks))
        taken["rules"].append(await _step_us(Hooks(), rules))
    least = min(steps)
    text = f"a step takes {least:.0f} µs"
    return [_row(kind, min(figures) - least, text) for kind, figures in taken.items()]


def _row(kind: str, added: float, text: str) -> Row:
    wanted = kind not in {*WITHOUT_TARGET, "rules"}
    targets = (Target("<= 5 µs", added, LIMIT_US),) if wanted else ()
    return Row(f"hooks.{kind}", "µs/step", {"treadle": added}, text, targets)


async def _step_us(hooks: Hooks, rules: ToolRules | None = None) -> float:
    limits = Limits(max_steps=STEPS + 1)
    agent = Agent(Calls(), tools=[same], hooks=hooks, rules=rules, limits=limits)
    start = time.process_time()
    await agent.run("Go.")
    return (time.process_time() - start) / STEPS * 1e6
