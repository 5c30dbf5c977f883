"""Finding runs, items and waiting calls, and updating threads; on every journal."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

import treadle
from treadle import Agent, Runtime, ThreadUpdated, tool
from treadle.domain.events import RunRequiresAction
from treadle.domain.items import FunctionCall, FunctionCallOutput, Message, ProviderItem
from treadle.errors import InvalidInput, ItemNotFound, RunNotFound, ThreadNotFound
from treadle.testing import Call, ScriptedModel

pytestmark = pytest.mark.anyio

Open = Callable[..., Runtime]


@tool(needs_approval=True)
async def pay(euros: int) -> str:
    """Pays."""
    return f"paid {euros}"


def clerk(*steps: object) -> Agent:
    return Agent(ScriptedModel(list(steps)), name="clerk", tools=[pay])  # type: ignore[arg-type]


async def until_it_waits(run: treadle.ThreadRun) -> None:
    async for event in run.events():
        if isinstance(event, RunRequiresAction):
            return


async def test_a_run_by_its_id_alone(open_runtime: Open) -> None:
    agent = clerk("one", "two", RuntimeError("broken"))
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent, owner="ann")
        first = await thread.send("hi")
        result = await first.result()
        found = await runtime.run(first.id)
        assert (found.id, found.thread_id) == (first.id, thread.id)
        assert (await found.result()).text == "one"
        info = await found.info()
        assert (info.status, info.stop_reason, info.usage) == (
            "completed",
            "end_turn",
            result.usage,
        )
        history = await thread.history()
        assert isinstance(history[0], Message)
        assert info.message_id == history[0].id
        assert info.started_at is not None
        assert info.ended_at is not None
        assert info.started_at <= info.ended_at
        assert (info.queued_at, info.error, info.steps) == (None, None, 1)
        assert (await runtime.run(first.id, owner="ann")).id == first.id
        assert (await runtime.for_owner("ann").run(first.id)).thread_id == thread.id
        with pytest.raises(RunNotFound, match=r"no run 'run_"):
            await runtime.for_owner("bob").run(first.id)
        for owner in ("bob", ""):
            with pytest.raises(RunNotFound, match=r"no run 'run_"):
                await runtime.run(first.id, owner=owner)
        with pytest.raises(RunNotFound):
            await runtime.run("run_none")
        with pytest.raises(InvalidInput, match="run_id must be a text"):
            await runtime.run(5)  # type: ignore[arg-type]
        await (await thread.send("again")).result()
        failing = await thread.send("and again")
        with pytest.raises(Exception, match="broken"):
            await failing.result()
        newest, *_ = await thread.runs(limit=1, order="desc")
        assert newest.id == failing.id
        assert newest.error is not None
        assert (newest.status, newest.stop_reason) == ("failed", "failed")
        assert "broken" in newest.error.message
        page = await thread.runs(limit=2)
        assert [run.id for run in await thread.runs(after=page.next)] == [failing.id]
        await thread.delete()
        with pytest.raises(RunNotFound):
            await runtime.run(first.id)
        with pytest.raises(ThreadNotFound):
            await found.info()
        with pytest.raises(ThreadNotFound):
            await thread.run(first.id)


@pytest.mark.real_clock
async def test_a_promised_run_is_found_before_it_is_taken(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'treadle.db'}"
    agent = clerk("one")
    async with treadle.open(url, agents=[agent]) as runtime:
        thread_id = (await runtime.create_thread(agent, owner="ann")).id
    async with treadle.open(url, drive=False) as watching:
        thread = await watching.connect(thread_id)
        run = await thread.send("hi")
        found = await watching.run(run.id, owner="ann")
        info = await found.info()
        assert (info.status, info.agent, info.thread_id) == ("queued", "clerk", thread_id)
        assert (await thread.run(run.id)).id == run.id
        await thread.update(title="Later", metadata={"x": 1})
        assert (await thread.info()).title == ""
    async with treadle.open(url, agents=[agent]) as runtime:
        assert (await (await runtime.run(run.id)).result()).text == "one"
        info = await (await runtime.connect(thread_id)).info()
        assert (info.title, info.metadata) == ("Later", {"x": 1})


async def test_calls_of_all_threads(open_runtime: Open) -> None:
    asks = [Call("pay", '{"euros": 5}')]
    agent = clerk(asks, asks, "paid", "not paid")
    async with open_runtime(agent) as runtime:
        first = await runtime.create_thread(agent, owner="ann")
        second = await runtime.create_thread(agent, owner="bob")
        for thread in (first, second):
            await until_it_waits(await thread.send("pay"))
        one, two = await runtime.calls()
        assert (one.thread_id, two.thread_id) == (first.id, second.id)
        assert (one.tool, one.arguments, one.awaits) == ("pay", {"euros": 5}, "approval")
        (only,) = await runtime.calls(owner="bob")
        assert only == two
        assert await runtime.for_owner("bob").calls() == [two]
        assert await runtime.for_owner("eve").calls() == []
        page = await runtime.calls(limit=1)
        assert await runtime.calls(limit=1, after=page.next) == [two]
        assert await runtime.calls(awaits="output") == []
        assert await runtime.calls(thread_id=first.id, agent="clerk", awaits="approval") == [one]
        waiting = await (await runtime.run(one.run_id)).info()
        assert waiting.status == "requires_action"
        await first.approve(one.call.call_id)
        await (await runtime.run(one.run_id)).result()
        assert await runtime.calls() == [two]
        cancelled = await runtime.run(two.run_id)
        await cancelled.cancel()
        with pytest.raises(treadle.TreadleError):
            await cancelled.result()
        assert await runtime.calls() == []
        with pytest.raises(InvalidInput, match="awaits='money' is not known"):
            await runtime.calls(awaits="money")  # type: ignore[arg-type]
        with pytest.raises(InvalidInput, match="not a cursor"):
            await runtime.calls(after="x")


async def test_items_by_id_and_in_pages(open_runtime: Open) -> None:
    agent = clerk([Call("pay", '{"euros": 5}')], "paid", "again")
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        run = await thread.send("pay")
        await until_it_waits(run)
        # The step is open, its call is finished.
        message, call = await thread.items()
        assert isinstance(call, FunctionCall)
        assert await thread.item(call.id) == call
        await thread.approve(call.call_id)
        await run.result()
        await (await thread.send("more")).result()
        items = list(await thread.items())
        assert items == list(await thread.history())
        assert len(items) == 6
        output = items[2]
        assert isinstance(output, FunctionCallOutput)
        for item in items:
            assert not isinstance(item, ProviderItem)
            assert await thread.item(item.id) == item
        pages, after = [], ""
        while True:
            page = await thread.items(limit=4, after=after, order="desc")
            pages.append(list(page))
            after = page.next
            if not after:
                break
        assert [len(page) for page in pages] == [4, 2]
        assert [item for page in pages for item in page] == items[::-1]
        assert isinstance(message, Message)
        assert await thread.items(after=message.id) == items[1:]
        # A cursor survives the removal of its item.
        first = await thread.items(limit=2)
        (requested,) = [event for event in await thread.events() if event.type == "tool.requested"]
        await thread.remove_event(requested.seq)
        assert await thread.items(after=first.next) == items[3:]
        with pytest.raises(ItemNotFound):
            await thread.item(call.id)
        for wrong in ("item_none", "99", ".", "\0"):
            with pytest.raises(InvalidInput, match="nor the id of an item"):
                await thread.items(after=wrong)
        assert await thread.items(after="999.x") == []
        with pytest.raises(InvalidInput, match="order='up' is not known"):
            await thread.items(order="up")  # type: ignore[arg-type]
        with pytest.raises(ItemNotFound):
            await thread.item("")


async def test_a_thread_is_updated(open_runtime: Open) -> None:
    seen: list[object] = []

    def deps(info: treadle.ThreadInfo) -> object:
        seen.append(dict(info.metadata))
        return None

    agent = clerk("one", "two")
    async with open_runtime(agent, deps=deps) as runtime:
        thread = await runtime.create_thread(agent, metadata={"ticket": 1, "open": True})
        async with thread.subscribe() as events:
            await (await thread.send("first words")).result()
            view = runtime.for_owner(None, by="root")
            changes = {"ticket": None, "plan": {"a": [1]}}
            await (await view.connect(thread.id)).update(title="A title", metadata=changes)
            async for event in events:
                if isinstance(event, ThreadUpdated):
                    break
        assert (event.title, event.by) == ("A title", "root")
        info = await thread.info()
        assert (info.title, info.metadata) == ("A title", {"open": True, "plan": {"a": [1]}})
        (found,) = await runtime.threads(metadata={"plan": {"a": [1]}})
        assert found == info
        # The first message gave the title, but it was named since.
        await thread.remove_event(1)
        assert (await thread.info()).title == "A title"
        copy = await thread.fork()
        assert (await copy.info()).metadata == info.metadata
        await (await thread.send("more")).result()
        assert seen == [{"ticket": 1, "open": True}, info.metadata]
        for wrong, words in (
            ({}, "nothing to change"),
            ({"title": "x" * 501}, "title has 501 characters"),
            ({"title": 5}, "title must be a text"),
            ({"title": "\ud800"}, "title is not valid UTF-8"),
            ({"metadata": {"a": object()}}, "not a JSON object"),
            ({"metadata": [1]}, "not a JSON object"),
        ):
            with pytest.raises(InvalidInput, match=words):
                await thread.update(**wrong)  # type: ignore[arg-type]
        assert await thread.info() != info  # it was used since
    async with open_runtime(agent) as runtime:
        again = await runtime.connect(thread.id)
        assert (await again.info()).metadata == {"open": True, "plan": {"a": [1]}}


async def test_what_a_thread_used(open_runtime: Open) -> None:
    agent = clerk("one", "two")
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        assert (await thread.usage()) == treadle.Spent()
        runs = [await (await thread.send("hi")).result() for _ in range(2)]
        spent = await thread.usage()
        assert spent.usage == runs[0].usage + runs[1].usage
        assert spent.steps == 2
        records = await thread.runs()
        assert spent.usage == records[0].usage + records[1].usage


async def test_updates_at_once_are_all_kept(open_runtime: Open) -> None:
    agent = clerk()
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        await asyncio.gather(*(thread.update(metadata={f"f{n}": n}) for n in range(30)))
        assert (await thread.info()).metadata == {f"f{n}": n for n in range(30)}
