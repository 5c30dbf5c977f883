"""The agents of a round: one whose model, tools and hooks fail by chance, and an innocent one."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from chaos.inside.faults import Faults
from treadle import Agent, Hooks, RunContext, Tool, tool
from treadle.models.base import ModelRequest
from treadle.models.retry import RetryPolicy
from treadle.streaming.demux import Demux, StreamEvent

TOOLS = ("work", "compute", "stubborn", "ask", "risky", "helper")
CALM_TEXT = "".join(f"word {n}, " for n in range(40))


class Speaker:
    """A model that writes texts, reasoning and calls by chance, in turns, and breaks off."""

    name = provider = "speaker"

    def __init__(self, faults: Faults, tools: tuple[str, ...]) -> None:
        self._faults = faults
        self._tools = tools

    async def stream(self, request: ModelRequest) -> AsyncGenerator[StreamEvent]:
        """Yields a response."""
        chance = self._faults.chance
        demux = Demux(self.provider, request.used_call_ids)
        pieces = [(0, "text")] * chance.randint(0, 12) + [(1, "reasoning")] * chance.randint(0, 6)
        calls = chance.randint(1, 3) if self._tools and chance.random() < 0.5 else 0
        for number in range(calls):
            name = chance.choice(self._tools)
            arguments = '{"message": "help"}' if name == "helper" else '{"what": "it"}'
            demux.call(2 + number, "", name)
            demux.arguments(2 + number, arguments if chance.random() < 0.95 else '{"wh')
        if not calls:
            demux.text(0, "Well, ")
        chance.shuffle(pieces)
        for number, (key, kind) in enumerate(pieces):
            (demux.text if kind == "text" else demux.reasoning)(key, f"{kind} {number} ")
            for event in demux.take():
                yield event
            self._faults.visit("model")
            await asyncio.sleep(chance.choice([0, 0, 0.001, 0.05]))
        demux.finish_all(truncated=False)
        demux.end("stop")
        for event in demux.take():
            yield event


class Calm:
    """A model that always writes the same text, in pieces."""

    name = provider = "calm"

    async def stream(self, request: ModelRequest) -> AsyncGenerator[StreamEvent]:
        """Yields a response."""
        demux = Demux(self.provider, request.used_call_ids)
        for word in CALM_TEXT.split(" "):
            demux.text(0, f"{word} " if word else "")
            for event in demux.take():
                yield event
            await asyncio.sleep(0.01)
        demux.finish_all(truncated=False)
        demux.end("stop")
        for event in demux.take():
            yield event


def cast_of(faults: Faults) -> tuple[Agent[Any, Any], Agent[Any, Any]]:
    """Returns the agent that is attacked, and the innocent one."""
    retry = RetryPolicy(max_retries=2, first_delay=0.1)
    helper = Agent(Speaker(faults, ("work",)), name="helper", tools=_tools(faults)[:1], retry=retry)
    attacked = Agent(
        Speaker(faults, TOOLS),
        name="attacked",
        instructions=lambda _: _instructions(faults),
        tools=[*_tools(faults), helper.as_tool()],
        hooks=Hooks(
            before_model=lambda *_: faults.visit("before_model"),
            before_tool=lambda *_: faults.visit("before_tool"),
            after_tool=lambda *_: faults.visit("after_tool"),
            after_completion=lambda *_: faults.visit("after_completion"),
            on_run_end=lambda *_: faults.visit("on_run_end"),
            on_event=lambda *_: faults.visit("on_event"),
        ),
        retry=retry,
        action_timeout=300,
    )
    return attacked, Agent(Calm(), name="calm")


def _instructions(faults: Faults) -> str:
    faults.visit("instructions")
    return "Be good."


def _tools(faults: Faults) -> list[Tool[..., Any]]:
    @tool
    async def work(ctx: RunContext[object], what: str) -> str:
        """Works for a while."""
        await asyncio.sleep(faults.chance.choice([0, 0.01, 1]))
        ctx.progress(what)
        faults.visit("tool")
        return f"did {what}"

    @tool
    def compute(what: str) -> str:
        """Works in a thread."""
        faults.visit("plain tool")
        return f"computed {what}"

    @tool(timeout=2)
    async def stubborn(what: str) -> str:
        """Ends only when it was cancelled several times."""
        for _ in range(faults.chance.randint(0, 3)):
            try:
                await asyncio.sleep(3)
            except asyncio.CancelledError:
                continue
        return f"at last {what}"

    @tool(external=True)
    async def ask(what: str) -> str:
        """Is answered from outside."""
        raise AssertionError(what)

    @tool(needs_approval=lambda *_, **__: _is_risky(faults))
    async def risky(what: str) -> str:
        """Needs a person, most of the time."""
        return f"dared {what}"

    return [work, compute, stubborn, ask, risky]


def _is_risky(faults: Faults) -> bool:
    faults.visit("needs_approval")
    return faults.chance.random() < 0.8
