"""Runs in the foreground and runs of threads have the same methods for their readers."""

import inspect
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

import treadle
from treadle import Agent, Limits, RetryPolicy, Run, Runtime, ThreadRun, tool
from treadle.errors import ServerFailed
from treadle.testing import Call, Pause, ScriptedModel, Text

pytestmark = pytest.mark.anyio

Open = Callable[..., Runtime]
OWN = {"drive", "start", "stop", "history", "spent"}
"""What only the owner of a foreground run needs."""
KEPT = {"subscribe"}
"""What needs positions, which a run in the foreground does not have."""


@tool
async def look() -> str:
    """Looks."""
    return "seen"


@asynccontextmanager
async def foreground(agent: Agent) -> AsyncIterator[Run[str]]:
    async with agent.stream("hello") as run:
        yield run


@asynccontextmanager
async def on_thread(agent: Agent) -> AsyncIterator[ThreadRun]:
    async with treadle.open(agents=[agent]) as runtime:
        thread = await runtime.create_thread(agent)
        yield await thread.send("hello")


KINDS = pytest.mark.parametrize("begin", [foreground, on_thread])


def public(kind: type) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_")} - OWN


def test_both_have_the_same_methods_with_the_same_asynchrony() -> None:
    assert public(Run) - {"thread_id"} == public(ThreadRun) - KEPT
    for name in public(ThreadRun) - KEPT:
        one, other = getattr(Run, name), getattr(ThreadRun, name)
        assert inspect.iscoroutinefunction(one) == inspect.iscoroutinefunction(other), name


@KINDS
async def test_the_text_of_a_run(begin: Callable[[Agent], object]) -> None:
    model = ScriptedModel([[Text("I look. "), Call("look", "{}")], "I saw it."])
    async with begin(Agent(model, tools=[look])) as run:  # type: ignore[attr-defined]
        assert "".join([text async for text in run.text_stream()]) == "I look. I saw it."
        assert await run.text() == "I saw it."
        result = await run.result()
        assert (result.run_id, result.thread_id) == (run.id, run.thread_id)
        assert (result.usage.requests, result.cost) == (2, 0.0)
        assert repr(run.id) in repr(run)
        for end in (run.cancel, run.finish):  # nothing is left to end
            await end()
        assert (await run.result()).status == "completed"


@KINDS
async def test_the_events_of_a_run(begin: Callable[[Agent], object]) -> None:
    types: list[str] = []
    async with begin(Agent(ScriptedModel(["I saw it."]))) as run:  # type: ignore[attr-defined]
        async for event in run.events():
            if event.type == "text.delta":
                assert event.delta
            else:
                types.append(event.type)
    assert types == [
        "message.added",
        "run.started",
        "step.started",
        "message.added",
        "response.completed",
        "step.completed",
        "run.completed",
    ]


@KINDS
async def test_the_text_of_a_run_that_fails(begin: Callable[[Agent], object]) -> None:
    model = ScriptedModel([[Text("I look. "), Call("look", "{}")], ServerFailed("It broke.")])
    agent = Agent(model, tools=[look], retry=RetryPolicy(max_retries=0))
    seen: list[str] = []
    async with begin(agent) as run:  # type: ignore[attr-defined]
        with pytest.raises(ServerFailed, match="It broke"):
            async for text in run.text_stream():
                seen.append(text)
        with pytest.raises(ServerFailed, match="It broke"):
            await run.text()
    assert "".join(seen) == "I look. "


@KINDS
async def test_a_run_that_stops_early_has_its_text(begin: Callable[[Agent], object]) -> None:
    model = ScriptedModel([[Text("I look. "), Call("look", "{}")]])
    async with begin(Agent(model, tools=[look], limits=Limits(max_steps=1))) as run:  # type: ignore[attr-defined]
        assert "".join([text async for text in run.text_stream()]) == "I look. "
        assert (await run.result()).status == "incomplete"


async def test_the_text_of_a_run_that_has_ended(open_runtime: Open) -> None:
    agent = Agent(ScriptedModel(["Hello.", "Again."]))
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        runs = [await thread.send(text) for text in ("one", "two")]
        assert [await run.text() for run in runs] == ["Hello.", "Again."]
        for _ in range(2):
            for run, text in zip(runs, ("Hello.", "Again."), strict=True):
                assert "".join([part async for part in run.text_stream()]) == text


async def test_a_run_that_was_taken_out_of_the_queue_has_ids() -> None:
    agent = Agent(ScriptedModel([[Pause(60), Text("Hello.")]]))
    async with treadle.open(agents=[agent]) as runtime:
        thread = await runtime.create_thread(agent)
        await thread.send("one")
        queued = await thread.send("two")
        await queued.cancel()
        result = await queued.result()
        assert (result.run_id, result.thread_id) == (queued.id, thread.id)
        assert result.status == "cancelled"
