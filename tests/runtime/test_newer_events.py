"""A thread with an event of a newer version can be read, is not driven, and is not damaged."""

import asyncio
import logging
import sqlite3
from pathlib import Path

import pytest

import treadle
from treadle import Agent, Thread, UnknownEvent
from treadle.cli.conversation import show_thread, show_tree
from treadle.cli.transcript import Transcript
from treadle.domain.events import DurableEvent
from treadle.errors import JournalTooNew
from treadle.testing import ScriptedModel

pytestmark = [pytest.mark.anyio, pytest.mark.real_clock]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


RAW = b'{"type":"tool.paused","seq":8,"at":2.0,"run_id":"r","new":[1]}'
UNKNOWN = UnknownEvent(seq=8, at=2.0, run_id="r", original_type="tool.paused", raw=RAW)


def record(path: Path, thread_id: str, seq: int, body: bytes) -> None:
    """Records an event, as another version does."""
    with sqlite3.connect(path) as connection:
        (number,) = connection.execute("SELECT n FROM thread WHERE id = ?", (thread_id,)).fetchone()
        connection.execute("INSERT INTO event VALUES (?, ?)", (number << 32 | seq, body.decode()))
    connection.close()


async def conversation(url: str, agent: Agent) -> tuple[str, str]:
    """Returns the ids of two threads, on each of which one message was answered."""
    async with treadle.open(url, agents=[agent]) as runtime:
        threads = [await runtime.create_thread(agent) for _ in range(2)]
        for thread in threads:
            await (await thread.send("hello")).result()
            assert len(await thread.events()) == 7
    return threads[0].id, threads[1].id


async def followed(thread: Thread, after: int) -> list[DurableEvent]:
    """Returns the durable events up to number 8."""
    found: list[DurableEvent] = []
    async with asyncio.timeout(10), thread.subscribe(after=after) as events:
        while not found or found[-1].seq < 8:
            event = await anext(events)
            if isinstance(event, DurableEvent):
                found.append(event)
    return found


async def test_readers_have_it_and_writers_need_a_newer_version(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "treadle.db"
    url = f"sqlite:///{path}"
    agent = Agent(ScriptedModel(["one", "two", "three"]))
    id, other_id = await conversation(url, agent)
    record(path, id, 8, RAW)
    async with treadle.open(url, agents=[agent]) as runtime:
        thread = await runtime.connect(id)
        assert (await thread.events())[7:] == [UNKNOWN]
        assert (await thread.export())[8] == RAW
        assert (await followed(thread, 5))[2:] == [UNKNOWN]
        for refused in (
            thread.send("more"),
            thread.history(),
            thread.fork(),
            thread.repair(),
        ):
            with pytest.raises(JournalTooNew, match="event 8 has the type 'tool.paused'"):
                await refused
        async with treadle.open(url, drive=False) as outside:
            watched = await outside.connect(id)
            assert (await followed(watched, 0))[7:] == [UNKNOWN]
            (run,) = await watched.runs()
            texts = [text async for text in (await watched.run(run.id)).text_stream()]
            assert "".join(texts) == "one"
            with caplog.at_level(logging.WARNING, "treadle"):
                await watched.send("from outside")
                await asyncio.sleep(0.45)
            assert sum("set aside" in line.message for line in caplog.records) == 1
        other = await runtime.connect(other_id)
        assert await (await other.send("more")).text() == "three"
        assert (await thread.export())[8:] == [RAW]  # nothing was repaired or appended


async def test_such_a_thread_can_be_shown_and_deleted(tmp_path: Path) -> None:
    path = tmp_path / "treadle.db"
    url = f"sqlite:///{path}"
    agent = Agent(ScriptedModel(["one", "two"]))
    id, _ = await conversation(url, agent)
    record(path, id, 8, RAW)
    shown: list[str] = []
    async with treadle.open(url, drive=False) as runtime:
        thread = await runtime.connect(id)
        await show_thread(thread, Transcript(shown.append, echo=True))
        await show_tree(runtime, thread, shown.append)
    assert "one" in "".join(shown)
    assert "Event 8 has the type tool.paused; it needs a newer treadle." in "".join(shown)
    async with treadle.open(url, agents=[agent]) as runtime:
        await (await runtime.connect(id)).delete()
        assert len(await runtime.threads()) == 1
