"""Subscriptions to the events of all threads; on every journal."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import treadle
from treadle import Agent, DeskSubscription, RunCompleted, RunRequiresAction, Runtime, tool
from treadle.errors import InvalidInput
from treadle.testing import Call, ScriptedModel

pytestmark = pytest.mark.anyio

Open = Callable[..., Runtime]


@tool(needs_approval=True)
async def pay(euros: int) -> str:
    """Pays."""
    return f"paid {euros}"


async def until(desk: DeskSubscription, type: str) -> list[str]:
    """The types up to the first event of one."""
    seen: list[str] = []
    async for one in desk:
        seen.append(one.type)
        if one.type == type:
            return seen
    return seen


async def test_a_desk_follows_all_threads(open_runtime: Open) -> None:
    asks = [Call("pay", '{"euros": 5}')]
    agent = Agent(ScriptedModel([asks, "paid", "hello"]), name="clerk", tools=[pay])
    async with open_runtime(agent) as runtime:
        before = await runtime.create_thread(agent, owner="bob")
        async with runtime.subscribe() as desk, runtime.subscribe(owner="bob") as bobs:
            thread = await runtime.create_thread(agent, owner="ann")
            run = await thread.send("pay")
            waiting = ["thread.created", "run.started", "tool.requested", "run.requires_action"]
            assert await until(desk, "run.requires_action") == waiting
            position = desk.position
            (call,) = calls = await runtime.calls()
            await thread.approve(call.call.call_id)
            await run.result()
            assert await until(desk, "run.completed") == ["tool.approved", "run.completed"]
            await (await before.send("hi")).result()
            assert await until(bobs, "run.completed") == ["run.started", "run.completed"]
        with pytest.raises(StopAsyncIteration):
            await anext(desk)
        for after in (position, calls.position):
            types = ["tool.approved", RunCompleted]
            async with runtime.subscribe(after=after, types=types) as again:
                assert await until(again, "run.completed") == ["tool.approved", "run.completed"]
        async with runtime.for_owner("bob").subscribe(after="start") as view:
            first = await anext(view)
            assert (first.thread_id, first.owner, first.type) == (
                before.id,
                "bob",
                "thread.created",
            )
            assert b'"thread.created"' in first.json
            assert await until(view, "run.completed") == ["run.started", "run.completed"]
            await before.delete()
            (gone,) = [await anext(view)]
            assert (gone.thread_id, gone.owner, gone.type) == (before.id, "", "thread.deleted")


async def test_a_desk_ends_with_its_runtime_and_when_it_is_left(open_runtime: Open) -> None:
    async with open_runtime() as runtime:
        desks = [runtime.subscribe() for _ in range(3)]
        waiting = [asyncio.create_task(until(desk, "never")) for desk in desks]
        await asyncio.sleep(0.01)
        await desks[0].aclose()
        assert await waiting[0] == []
        waiting[1].cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting[1]
    assert await waiting[2] == []


async def test_a_slow_reader_gets_all_and_holds_a_page(open_runtime: Open) -> None:
    agent = Agent(ScriptedModel(["."] * 300), name="a")
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        desk = runtime.subscribe(after="start", types=["run.completed"])
        for _ in range(250):
            await (await thread.send("hi")).result()
        runs: list[str] = []
        async for one in desk:
            assert len(desk._events) < 200
            assert isinstance(one.event, RunCompleted)
            runs.append(one.event.run_id)
            if len(runs) == 250:
                break
        assert len(set(runs)) == 250


async def test_bad_subscriptions_are_refused(open_runtime: Open) -> None:
    async with open_runtime() as runtime:
        for wrong in (["text.delta"], [5], [treadle.TextDelta], [RunRequiresAction, "x"]):
            with pytest.raises(InvalidInput, match="which a runtime does not report"):
                runtime.subscribe(types=wrong)  # type: ignore[arg-type]
        with pytest.raises(InvalidInput, match="after is empty"):
            runtime.subscribe(after="")
        with pytest.raises(InvalidInput, match="owner must be a text"):
            runtime.subscribe(owner=5)  # type: ignore[arg-type]
        for after in ("17.4", "x", "99999"):
            with pytest.raises(InvalidInput, match="not a position of this desk"):
                await anext(runtime.subscribe(after=after))


@pytest.mark.real_clock
async def test_a_desk_in_another_process(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'treadle.db'}"
    agent = Agent(ScriptedModel(["one", "two"]), name="a")
    async with treadle.open(url, agents=[agent]) as runtime:
        thread = await runtime.create_thread(agent)
        async with (
            treadle.open(url, drive=False) as watching,
            watching.subscribe(types=["run.completed"]) as desk,
        ):
            waiting = asyncio.create_task(until(desk, "run.completed"))
            await (await thread.send("hi")).result()
            start = time.monotonic()
            assert await asyncio.wait_for(waiting, 20) == ["run.completed"]
            assert time.monotonic() - start < 15
            position = desk.position
    async with treadle.open(url, agents=[agent]) as runtime:
        thread = await runtime.connect(thread.id)
        await (await thread.send("more")).result()
        async with runtime.subscribe(after=position) as desk:
            assert await until(desk, "run.completed") == ["run.started", "run.completed"]
