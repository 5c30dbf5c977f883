"""A process that ends without cutting responses: `Runtime.drain`, then `shutdown`."""

import asyncio
from collections.abc import Callable

import pytest

from treadle import Agent, Runtime, tool
from treadle.testing import Call, ScriptedModel, Text, Turn

pytestmark = pytest.mark.anyio

Open = Callable[..., Runtime]


def slow_agent() -> tuple[Agent, ScriptedModel]:
    @tool
    async def look() -> str:
        """Looks."""
        return "seen"

    model = ScriptedModel(
        [
            Turn((Call("look", "{}"),), first=5),
            Turn((Call("look", "{}"),), first=5),
            Turn((Text("Done."),), first=5),
            Turn((Text("Later."),), first=5),
        ]
    )
    return Agent(model, name="a", tools=[look]), model


async def test_the_step_in_progress_ends_and_the_next_process_continues(
    open_runtime: Open,
) -> None:
    agent, model = slow_agent()
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        run = await thread.send("go")
        await asyncio.sleep(6)
        assert len(model.requests) == 2
        begun = asyncio.get_running_loop().time()
        await runtime.drain(60)
        assert asyncio.get_running_loop().time() - begun < 6
        state = await thread.state()
        assert state.step is None
        assert state.active_run is not None
        await thread.send("and then")  # is accepted, and waits
        await asyncio.sleep(20)
        assert len(model.requests) == 2
    async with open_runtime(agent) as runtime:
        thread = await runtime.connect(thread.id)
        assert (await (await thread.run(run.id)).result()).text == "Done."
        async with asyncio.timeout(60):
            while (await thread.state()).active_run is not None:  # noqa: ASYNC110
                await asyncio.sleep(1)
    assert len(model.requests) == 4  # nothing was asked for twice


async def test_what_takes_longer_is_left_to_the_shutdown(open_runtime: Open) -> None:
    agent, model = slow_agent()
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        await thread.send("go")
        await asyncio.sleep(1)
        begun = asyncio.get_running_loop().time()
        await runtime.drain(2)
        assert asyncio.get_running_loop().time() - begun < 2.5
    assert len(model.requests) == 1


async def test_a_runtime_without_work_drains_at_once(open_runtime: Open) -> None:
    agent, _ = slow_agent()
    runtime = open_runtime(agent)
    await runtime.drain()  # it is not open
    async with runtime:
        begun = asyncio.get_running_loop().time()
        await runtime.create_thread(agent)
        await runtime.drain()
        assert asyncio.get_running_loop().time() == begun
