"""A thread that is lost while an append is under way: what its senders are told."""

import asyncio
from typing import Any, cast

import pytest

from treadle import Agent, Runtime
from treadle.actors.engine import EmbeddedEngine
from treadle.actors.journaled import JournaledThread
from treadle.bus.topic import Topic
from treadle.domain.events import MessageAdded
from treadle.domain.items import user_message
from treadle.domain.state import ThreadState
from treadle.errors import JournalUnavailable, StaleWriter
from treadle.journal.base import Batch, stale
from treadle.journal.memory import MemoryJournal
from treadle.testing import ScriptedModel

pytestmark = pytest.mark.anyio


class SlowJournal:
    """Ends each append when it is told to."""

    def __init__(self) -> None:
        self.appends: list[asyncio.Future[None]] = []

    def append(self, batch: Batch) -> asyncio.Future[None]:
        self.appends.append(asyncio.get_running_loop().create_future())
        return self.appends[-1]


class Lost:
    """A thread with an append under way, one that has not begun, and those that wait for them."""

    def __init__(self) -> None:
        self.journal = SlowJournal()
        self.failures = 0
        self.thread = JournaledThread(
            "t",
            ThreadState(),
            cast("Any", None),
            cast("Any", self.journal),
            Topic(0, lambda: None),
            is_stored=True,
            on_kept=lambda _: None,
            on_failed=self._failed,
            on_due=lambda _: None,
        )

    def _failed(self) -> None:
        self.failures += 1

    def record(self) -> None:
        self.thread.record(
            MessageAdded(run_id="r", item=user_message("hi"), origin="user"),
        )


@pytest.fixture
async def lost() -> Lost:
    lost = Lost()
    lost.record()
    return lost


async def test_what_was_kept_all_the_same_is_not_sent_again(lost: Lost) -> None:
    sender = asyncio.create_task(lost.thread.kept())
    tool = asyncio.create_task(lost.thread.durable())
    await asyncio.sleep(0.1)
    lost.record()
    late = asyncio.create_task(lost.thread.kept())
    await asyncio.sleep(0)
    lost.thread.fail(stale())
    await asyncio.sleep(0.1)
    assert not sender.done()
    with pytest.raises(StaleWriter):
        await late
    lost.journal.appends[0].set_result(None)
    await sender
    with pytest.raises(StaleWriter):  # no tool starts on a thread that another node has
        await tool
    with pytest.raises(StaleWriter):
        await lost.thread.durable()
    await asyncio.sleep(0.1)
    assert len(lost.journal.appends) == 1
    assert lost.failures == 1


@pytest.mark.parametrize("error", [stale(), JournalUnavailable("away")])
async def test_what_was_refused_is_refused_for_all(lost: Lost, error: Exception) -> None:
    sender = asyncio.create_task(lost.thread.kept())
    await asyncio.sleep(0.1)
    lost.record()
    later = asyncio.create_task(lost.thread.kept())
    await asyncio.sleep(0.1)
    lost.thread.fail(stale())
    lost.journal.appends[0].set_exception(error)
    for waiting in (sender, later):
        with pytest.raises(type(error)):
            await waiting
    lost.journal.appends[1].set_exception(stale())
    await asyncio.sleep(0.1)
    assert lost.failures == 1


async def test_an_append_that_is_refused_while_its_node_stops(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(EmbeddedEngine, "finds_work", True)
    problems: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, problem: problems.append(problem))
    agent = Agent(ScriptedModel(["Hello."]), name="a")
    journal = MemoryJournal()
    runtime = Runtime(journal, agents=[agent])
    await runtime.start()
    thread = await runtime.create_thread(agent)
    await (await thread.send("hi")).result()
    actor = cast("Any", runtime)._threads._driver._actors[thread.id]

    def refuse(_: Batch) -> asyncio.Future[None]:
        refused = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(1, refused.set_exception, stale())
        return refused

    monkeypatch.setattr(journal, "append", refuse)
    actor._thread.record(MessageAdded(run_id="r", item=user_message("hi"), origin="user"))
    await runtime.shutdown()
    await asyncio.sleep(5)
    assert problems == []
