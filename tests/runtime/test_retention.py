"""Threads that are deleted at a time, and threads that are kept only while they are used."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from treadle import Agent, Runtime, Thread, tool
from treadle.clock import now
from treadle.errors import Conflict, InvalidInput, ThreadNotFound
from treadle.journal.sqlite import SqliteJournal
from treadle.testing import Call, Pause, ScriptedModel, Text

pytestmark = pytest.mark.anyio

Open = Callable[..., Runtime]


@pytest.fixture(autouse=True)
def rarely_polled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks at the inboxes of SQLite less often, so that an hour on the virtual clock is short."""
    monkeypatch.setattr("treadle.actors.driver.POLL_SECONDS", 30.0)


def agent_of(*answers: Any, **fields: Any) -> Agent[Any, Any]:
    return Agent(ScriptedModel(list(answers)), name="assistant", **fields)


def moment(seconds: float) -> datetime:
    """The time that many seconds from now."""
    return datetime.fromtimestamp(now(), UTC) + timedelta(seconds=seconds)


async def is_there(runtime: Runtime, thread: Thread) -> bool:
    try:
        await runtime.connect(thread.id)
    except ThreadNotFound:
        return False
    return True


async def test_a_thread_expires(open_runtime: Open) -> None:
    agent = agent_of("Hi.", [Pause(5000), Text("late")])
    async with open_runtime(agent, idle_seconds=5) as runtime:
        at = moment(1000)
        thread = await runtime.create_thread(agent, expires_at=at)
        other = await runtime.create_thread(agent)
        assert (await thread.info()).expires_at == at.timestamp()
        assert (await other.info()).expires_at is None
        await (await thread.send("Hello")).result()
        await other.update(expires_at=moment(1500))
        busy = await other.send("Hello")
        events = other.subscribe()
        await asyncio.sleep(900)
        assert await is_there(runtime, thread)
        await asyncio.sleep(110)
        assert not await is_there(runtime, thread)
        assert await is_there(runtime, other)
        await asyncio.sleep(500)
        assert not await is_there(runtime, other)
        with pytest.raises(ThreadNotFound):
            await busy.result()
        with pytest.raises(ThreadNotFound):
            async for _ in events:
                pass
        assert await runtime.threads() == []


async def test_the_expiry_is_changed(open_runtime: Open) -> None:
    agent = agent_of("Hi.")
    async with open_runtime(agent, idle_seconds=5) as runtime:
        later, never, sooner = [
            await runtime.create_thread(agent, expires_at=moment(1000)) for _ in range(3)
        ]
        await later.update(expires_at=moment(2000), title="x")
        await never.update(expires_at="never")
        await sooner.update(expires_at=moment(500))
        assert (await never.info()).expires_at is None
        updated = [one for one in await never.events() if one.type == "thread.updated"]
        assert [one.expires_at for one in updated] == ["never"]
        await asyncio.sleep(510)
        assert [await is_there(runtime, one) for one in (later, never, sooner)] == [1, 1, 0]
        await asyncio.sleep(1000)
        assert [await is_there(runtime, one) for one in (later, never)] == [1, 1]
        await asyncio.sleep(500)
        assert [await is_there(runtime, one) for one in (later, never)] == [0, 1]


async def test_what_expires_while_no_process_runs(open_runtime: Open) -> None:
    agent = agent_of("Hi.", "Hi.")
    async with open_runtime(agent) as runtime:
        expired = await runtime.create_thread(agent, expires_at=moment(100))
        unstored = await runtime.create_thread(agent, store=False)
        await (await unstored.send("Hello")).result()
        copy = await unstored.fork()
        kept = await runtime.create_thread(agent)
    await asyncio.sleep(2000)
    async with open_runtime(agent) as runtime:
        await asyncio.sleep(1)
        there = [await is_there(runtime, one) for one in (expired, unstored, copy, kept)]
        assert there == [False, False, False, True]


async def test_a_thread_that_is_not_stored(open_runtime: Open) -> None:
    agent = agent_of("Hi.", [Pause(1000), Text("Hi again.")])
    async with open_runtime(agent, idle_seconds=5) as runtime:
        thread = await runtime.create_thread(agent, store=False)
        unused = await runtime.create_thread(agent, store=False)
        assert not (await thread.info()).store
        await asyncio.sleep(450)
        run = await thread.send("Hello")
        assert (await run.result()).text == "Hi."
        await asyncio.sleep(200)
        assert [await is_there(runtime, one) for one in (thread, unused)] == [True, False]
        # A reader that was cut off still finds the end; then it works for longer than it is kept.
        assert (await (await runtime.run(run.id)).result()).text == "Hi."
        assert (await (await thread.send("Hello")).result()).text == "Hi again."
        await asyncio.sleep(550)
        assert await is_there(runtime, thread)
        await asyncio.sleep(60)
        assert not await is_there(runtime, thread)


async def test_a_thread_that_waits_is_kept(open_runtime: Open) -> None:
    @tool(needs_approval=True)
    async def pay() -> str:
        """Pays."""
        return "paid"

    agent = agent_of([Call("pay", "{}")], "Paid.", "Good morning.", tools=[pay])
    async with open_runtime(agent, idle_seconds=5) as runtime:
        thread = await runtime.create_thread(agent, store=False)
        run = await thread.send("Pay")
        await asyncio.sleep(1500)
        (call,) = await thread.pending_calls()
        await thread.schedule("Wake up", after=1500)
        await thread.approve(call.call.call_id)
        assert (await run.result()).text == "Paid."
        await asyncio.sleep(1300)
        assert await is_there(runtime, thread)
        await asyncio.sleep(900)
        assert not await is_there(runtime, thread)


async def test_agents_that_work_for_a_thread_leave_with_it(open_runtime: Open) -> None:
    helper = agent_of("found")
    main = Agent(
        ScriptedModel([[Call("helper", '{"message": "x"}')], "Done."]),
        name="main",
        tools=[helper.as_tool(name="helper", description="Helps.")],
    )
    async with open_runtime(main, helper) as runtime:
        thread = await runtime.create_thread(main, store=False)
        await (await thread.send("Hello")).result()
        assert len(await runtime.threads(parent=thread.id)) == 1
        await asyncio.sleep(601)
        assert await runtime.threads(parent=thread.id) == await runtime.threads() == []
        assert await runtime.journal.marks(owner=None) == []


async def test_another_process_makes_and_changes_them(tmp_path: Path) -> None:
    path, agent = tmp_path / "treadle.db", agent_of("Hi.", "Hi.")
    async with (
        Runtime(SqliteJournal(path), agents=[agent], idle_seconds=5) as runtime,
        Runtime(SqliteJournal(path, drive=False), agents=[agent], drive=False) as outside,
    ):
        thread = await outside.create_thread(agent, expires_at=moment(1000))
        unstored = await outside.create_thread(agent, store=False)
        await thread.update(expires_at=moment(100))
        await (await unstored.send("Hello")).result()
        await asyncio.sleep(500)
        assert not await is_there(runtime, thread)
        await (await unstored.send("Hello")).result()
        await asyncio.sleep(500)
        assert await is_there(runtime, unstored)
        await asyncio.sleep(200)
        assert not await is_there(runtime, unstored)


async def test_an_owner_and_a_key(open_runtime: Open) -> None:
    agent = agent_of("Hi.")
    async with open_runtime(agent) as runtime:
        view = runtime.for_owner("ann")
        thread = await view.create_thread(agent, key="k", expires_at=moment(100), store=False)
        again = await view.create_thread(agent, key="k", expires_at=moment(200), store=False)
        assert again.id == thread.id
        assert (await again.info()).expires_at == (await thread.info()).expires_at
        with pytest.raises(Conflict):
            await view.create_thread(agent, key="k")
        with pytest.raises(ThreadNotFound):
            await (await runtime.for_owner("bob").connect(thread.id)).update(expires_at="never")
        await asyncio.sleep(101)
        assert (await view.create_thread(agent, key="k")).id == thread.id
        assert (await thread.info()).store


@pytest.mark.parametrize("wrong", [5, datetime(2100, 1, 1), datetime(2000, 1, 1, tzinfo=UTC), "x"])
async def test_what_is_refused(open_runtime: Open, wrong: Any) -> None:
    agent = agent_of("Hi.")
    async with open_runtime(agent) as runtime:
        with pytest.raises(InvalidInput, match="expires_at"):
            await runtime.create_thread(agent, expires_at=wrong)
        thread = await runtime.create_thread(agent)
        with pytest.raises(InvalidInput, match="expires_at"):
            await thread.update(expires_at=wrong)
        assert (await thread.info()).expires_at is None
