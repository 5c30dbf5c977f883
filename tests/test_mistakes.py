"""What people write by mistake is answered with what to write instead."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import treadle
from treadle.errors import (
    ConfigurationError,
    Conflict,
    InvalidInput,
    InvalidTool,
    JournalLocked,
    RunNotInProgress,
    UnknownAgent,
    UnknownToolCall,
)
from treadle.testing import Call, ScriptedModel


class Shop:
    """What tools of a shop need."""


@treadle.tool
async def buy(context: treadle.RunContext[Shop], article: str) -> str:
    """Buys an article."""
    return f"{article} at {context.deps}"


@treadle.tool
async def look(context: treadle.RunContext[Shop | None], article: str) -> str:
    """Looks at an article."""
    return f"{article} {context.deps}"


def agent_of(*script: Any, **options: Any) -> Any:
    return treadle.Agent(ScriptedModel(script or ["Hello."]), **options)


async def iterate_a_stream() -> None:
    async for _ in agent_of().stream("Hello!"):
        pass


async def open_a_stream_with_with() -> None:
    with agent_of().stream("Hello!"):
        pass


async def await_a_stream() -> None:
    await agent_of().stream("Hello!")


async def iterate_a_runtime() -> None:
    async for _ in treadle.open():  # pyright: ignore
        pass


async def enter_a_stream_twice() -> None:
    stream = agent_of().stream("Hello!")
    async with stream, stream:
        pass


async def put_an_agent_into_tools() -> None:
    agent_of(tools=[agent_of(name="helper")])


async def register_an_agent_as_tool() -> None:
    treadle.open(tools=[agent_of(name="helper")])


async def run_without_deps() -> None:
    await agent_of(Call("buy", '{"article": "tea"}'), "Done.", tools=[buy]).run("Buy tea.")


async def run_a_helper_without_deps() -> None:
    await agent_of(tools=[agent_of(name="helper", tools=[buy]).as_tool()]).run("Buy tea.")


async def run_a_thread_without_deps() -> None:
    agent = agent_of(tools=[buy])
    async with treadle.open(agents=[agent]) as runtime:
        await (await (await runtime.create_thread(agent)).send("Buy tea.")).result()


async def approve_on_an_idle_thread() -> None:
    async with treadle.open(agents=[agent_of()]) as runtime:
        thread = await runtime.create_thread("agent")
        await (await thread.send("Hello!")).result()
        await thread.approve("typo")


async def answer_a_call_that_is_not_there() -> None:
    agent = agent_of(Call("wait", "{}"), "Done.", tools=[wait])
    async with treadle.open(agents=[agent]) as runtime:
        thread = await runtime.create_thread(agent)
        run = await thread.send("Wait.")
        async for event in run:
            if event.type == "run.requires_action":
                break
        await thread.submit_tool_output("typo", "yes")


@treadle.tool(external=True)
async def wait() -> None:
    """Waits."""


async def create_a_thread_without_agents() -> None:
    async with treadle.open() as runtime:
        await runtime.create_thread("support")


async def create_a_thread_of_another_agent() -> None:
    async with treadle.open(agents=[agent_of(name="sales")]) as runtime:
        await runtime.create_thread("support")


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("mistake", "error", "words"),
    [
        (iterate_a_stream, TypeError, r"`async with agent\.stream\(…\) as run:`"),
        (open_a_stream_with_with, TypeError, r"`async with agent\.stream\(…\) as run:`"),
        (await_a_stream, TypeError, r"`async with agent\.stream\(…\) as run:`"),
        (iterate_a_runtime, TypeError, r"`async with treadle\.open\(…\) as runtime:`"),
        (enter_a_stream_twice, InvalidInput, r"call stream\(\) for another"),
        (put_an_agent_into_tools, InvalidTool, r"'helper'.*as_tool\(\).*handoffs=\[agent\]"),
        (register_an_agent_as_tool, InvalidTool, r"as_tool\(\)"),
        (run_without_deps, ConfigurationError, r"tool buy needs deps of the type Shop.*deps=…"),
        (run_a_helper_without_deps, ConfigurationError, r"tool buy needs deps"),
        (run_a_thread_without_deps, ConfigurationError, r"deps=….*treadle\.open"),
        (approve_on_an_idle_thread, UnknownToolCall, r"no call 'typo'; pending_calls\(\)"),
        (answer_a_call_that_is_not_there, UnknownToolCall, r"no open call 'typo'; pending_calls"),
        (create_a_thread_without_agents, UnknownAgent, r"without agents: .*agents=\[agent\]"),
        (create_a_thread_of_another_agent, UnknownAgent, r"knows: sales"),
    ],
)
async def test_a_mistake(
    mistake: Callable[[], Awaitable[None]], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        await mistake()


@pytest.mark.anyio
async def test_a_database_that_another_runtime_of_the_process_drives(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'treadle.db'}"
    async with treadle.open(url):
        with pytest.raises(JournalLocked, match=r"another runtime of this process.*drive=False"):
            async with treadle.open(url):
                pass
    async with treadle.open(url):
        pass


@pytest.mark.anyio
async def test_a_call_that_was_answered_by_the_end_of_its_run() -> None:
    agent = agent_of(Call("wait", "{}", call_id="call_1"), "Done.", tools=[wait])
    async with treadle.open(agents=[agent]) as runtime:
        thread = await runtime.create_thread(agent)
        run = await thread.send("Wait.")
        async for event in run:
            if event.type == "run.requires_action":
                break
        await run.cancel()
        await run.result(raise_on_incomplete=False)
        with pytest.raises((RunNotInProgress, Conflict)):
            await thread.approve("call_1")


@pytest.mark.anyio
async def test_tools_that_may_be_without_deps() -> None:
    calls = [Call("look", '{"article": "tea"}')]
    result = await agent_of(calls, "Done.", tools=[look]).run("Look at tea.")
    outputs = [i.text for i in result.items if isinstance(i, treadle.FunctionCallOutput)]
    assert outputs == ["tea None"]
    result = await agent_of(tools=[buy]).run("Buy tea.", deps=Shop())
    assert result.text == "Hello."


@pytest.mark.anyio
async def test_a_stream_that_is_never_entered() -> None:
    """It starts nothing, and nothing is left of it."""
    model = ScriptedModel([])
    treadle.Agent(model).stream("Hello!")
    assert model.requests == []
