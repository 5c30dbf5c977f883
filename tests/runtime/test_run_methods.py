"""Runs in the foreground and runs of threads have the same methods for their readers."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import cast

import pytest

import treadle
from treadle import (
    Agent,
    FunctionCallOutput,
    Limits,
    RetryPolicy,
    Run,
    RunContext,
    Runtime,
    ThreadRun,
    tool,
)
from treadle.errors import (
    CancelRequested,
    ContentFiltered,
    LimitReached,
    OutputMissing,
    ReplyOverdue,
    RunStopped,
    ServerFailed,
)
from treadle.testing import Call, Pause, ScriptedModel, Text, Turn

pytestmark = pytest.mark.anyio

Open = Callable[..., Runtime]
OWN = {"drive", "start", "stop", "history", "spent"}
"""What only the owner of a foreground run needs."""
KEPT = {"info", "subscribe"}
"""What needs the journal, which a run in the foreground does not have."""


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
        assert (await run.result(raise_on_incomplete=False)).status == "incomplete"


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
        result = await queued.result(raise_on_incomplete=False)
        assert (result.run_id, result.thread_id) == (queued.id, thread.id)
        assert result.status == "cancelled"


def stopped() -> dict[str, tuple[Agent, type[RunStopped], str]]:
    """Agents whose runs end without an output, what they raise, and why they end."""
    call = [Text("I look. "), Call("look", "{}")]
    early = Turn([Text("half")], finish="content_filter")
    return {
        "limit": (
            Agent(ScriptedModel([call]), tools=[look], limits=Limits(max_steps=1)),
            LimitReached,
            "max_steps",
        ),
        "length": (
            Agent(ScriptedModel([Turn([Text("half")], finish="length")])),
            LimitReached,
            "max_output_tokens",
        ),
        "filter": (Agent(ScriptedModel([early])), ContentFiltered, "content_filter"),
        "cancel": (Agent(ScriptedModel([[Pause(60)]])), CancelRequested, "cancelled"),
        "finish": (
            Agent(ScriptedModel([call]), tools=[look], output=int),
            OutputMissing,
            "finish_requested",
        ),
    }


@KINDS
@pytest.mark.parametrize("case", stopped())
async def test_a_run_without_an_output_raises(begin: Callable[[Agent], object], case: str) -> None:
    agent, kind, reason = stopped()[case]
    async with begin(agent) as run:  # type: ignore[attr-defined]
        if case == "cancel":
            await run.cancel()
        elif case == "finish":
            await run.finish()
        for ask in (run.result, run.text):
            with pytest.raises(kind) as caught:
                await ask()
            assert not caught.value.retryable
            assert "raise_on_incomplete=False" in caught.value.message
        result = await run.result(raise_on_incomplete=False)
        assert caught.value.result == result
        assert (result.output, result.is_complete, result.stop_reason) == (None, False, reason)
        assert await run.text(raise_on_incomplete=False) == result.text
        assert [event async for event in run.text_stream()] or case == "cancel"


async def test_an_agent_without_an_output_raises_where_it_is_run() -> None:
    for run in (Agent.run, Agent.run_sync):
        agent, kind, _ = stopped()["limit"]
        in_thread = run is Agent.run_sync
        with pytest.raises(kind):
            await (asyncio.to_thread(run, agent, "hello") if in_thread else run(agent, "hello"))
    agent, _, _ = stopped()["limit"]
    result = await agent.run("hello", raise_on_incomplete=False)
    assert (result.output, result.status) == (None, "incomplete")


async def test_a_run_that_expired_raises(open_runtime: Open) -> None:
    @tool(external=True)
    async def ask() -> str:
        """Asks."""

    agent = Agent(ScriptedModel([Call("ask", "{}")]), tools=[ask], action_timeout=60)
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        with pytest.raises(ReplyOverdue) as caught:
            await (await thread.send("hello")).result()
        assert caught.value.result.status == "expired"


async def test_none_is_an_output() -> None:
    agent = Agent(ScriptedModel(['{"value": null}']), output=cast("type[int | None]", int | None))
    result = await agent.run("hello")
    assert (result.output, result.is_complete) == (None, True)


async def test_an_agent_that_works_for_another_raises_too() -> None:
    seen: list[object] = []

    @tool
    async def ask(context: RunContext) -> str:
        """Asks."""
        seen.append((await context.run_agent(worker, "go", raise_on_incomplete=False)).output)
        return (await context.run_agent(worker, "go")).output

    worker = Agent(
        ScriptedModel([[Text("I look. "), Call("look", "{}")]] * 2),
        name="worker",
        tools=[look],
        limits=Limits(max_steps=1),
    )
    agent = Agent(ScriptedModel([Call("ask", "{}"), "Well."]), tools=[ask])
    result = await agent.run("hello")
    assert seen == [None]
    (output,) = [item for item in result.items if isinstance(item, FunctionCallOutput)]
    assert output.is_error
    assert "max_steps" in output.text
