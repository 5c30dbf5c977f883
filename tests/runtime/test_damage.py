"""A damaged event sets one thread aside, with a way out, and nothing else."""

import asyncio
import logging
import sqlite3
import threading
from pathlib import Path

import pytest

import treadle
from treadle import Agent, EventRemoved, tool
from treadle.actors import repairing
from treadle.cli.conversation import show_thread
from treadle.cli.transcript import Transcript
from treadle.domain import repair
from treadle.errors import ThreadDamaged
from treadle.testing import Call, ScriptedModel

pytestmark = [pytest.mark.anyio, pytest.mark.real_clock]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@tool
async def look() -> str:
    """Looks."""
    return "seen"


def damage(path: Path, thread_id: str, seq: int, body: str = "{") -> None:
    with sqlite3.connect(path) as connection:
        (number,) = connection.execute("SELECT n FROM thread WHERE id = ?", (thread_id,)).fetchone()
        connection.execute(
            "UPDATE event SET body = ? WHERE position = ?", (body, number << 32 | seq)
        )
    connection.close()


@pytest.mark.parametrize("seq", [1, 4, 7, 12])
async def test_one_thread_is_set_aside_and_can_be_repaired(
    tmp_path: Path, seq: int, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "treadle.db"
    url = f"sqlite:///{path}"
    agent = Agent(ScriptedModel([[Call("look", "{}")], "done", "ok", "again"]), tools=[look])
    async with treadle.open(url, agents=[agent]) as runtime:
        thread = await runtime.create_thread(agent, owner="me")
        await (await thread.send("hello there")).result()
        other = await runtime.create_thread(agent, owner="me")
        await (await other.send("somewhere else")).result()
        count = len(await thread.events())
    damage(path, thread.id, seq)
    async with treadle.open(url, agents=[agent]) as runtime:
        thread = await runtime.connect(thread.id)
        with pytest.raises(ThreadDamaged, match=f"Event {seq} of {thread.id}") as caught:
            await thread.history()
        assert (caught.value.code, caught.value.seq) == ("thread_damaged", seq)
        assert {info.id for info in await runtime.threads(owner="me")} == {thread.id, other.id}
        found = await runtime.search("somewhere", owner="me")
        assert [one.passage.thread_id for one in found] == [other.id]
        found = await runtime.search("hello", owner="me")
        assert [one.passage.thread_id for one in found] == ([thread.id] if seq > 1 else [])
        with pytest.raises(ThreadDamaged):
            await thread.send("more")
        lines = await thread.export()
        assert (len(lines), lines[seq]) == (count + 1, b"{")  # behind the header
        # What another process sends is acknowledged, waits, and is logged once.
        async with treadle.open(url, drive=False) as outside:
            with caplog.at_level(logging.WARNING, "treadle"):
                await (await outside.connect(thread.id)).send("from outside")
                await asyncio.sleep(0.45)
            assert sum("set aside" in line.message for line in caplog.records) == 1
            assert len(caplog.records) <= 3
        assert await thread.repair() == [seq]
        events = await thread.events()
        assert isinstance(events[seq - 1], EventRemoved)
        run = await thread.send("last")
        assert (await run.result()).status == "completed"
        assert await thread.repair() == []


async def test_the_node_of_a_thread_that_is_repaired_works_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long repair must not keep the heartbeat of its node from being sent."""
    url = f"sqlite:///{tmp_path}/treadle.db"
    agent = Agent(ScriptedModel(["done", "ok"]))
    begun, other_has_run = threading.Event(), threading.Event()

    def repaired(stored: dict[int, bytes]) -> list[EventRemoved]:
        begun.set()
        assert other_has_run.wait(10)
        return repair.repaired(stored)

    monkeypatch.setattr(repairing, "repaired", repaired)
    async with treadle.open(url, agents=[agent]) as runtime:
        thread = await runtime.create_thread(agent)
        await (await thread.send("hello")).result()
        repair_of = asyncio.create_task(thread.repair())
        assert await asyncio.to_thread(begun.wait, 10)
        other = await runtime.create_thread(agent)
        assert (await (await other.send("hello")).result()).output == "ok"
        other_has_run.set()
        assert await repair_of == []


async def test_what_a_repair_removes_leaves_the_archive(tmp_path: Path) -> None:
    path = tmp_path / "treadle.db"
    url = f"sqlite:///{path}"
    agent = Agent(ScriptedModel(["fine"]))
    async with treadle.open(url, agents=[agent]) as runtime:
        thread = await runtime.create_thread(agent, owner="me")
        await (await thread.send("hello there")).result()
        archive = runtime.archive(owner="me")
        await thread.archive.insert("hello again")
        assert len(await runtime.search("hello", owner="me")) == 1
        assert len(await archive.search("hello")) == 1
        events = await thread.events()
        seqs = [e.seq for e in events if e.type in {"message.added", "archive.inserted"}]
    for seq in seqs:
        damage(path, thread.id, seq)
    async with treadle.open(url, agents=[agent]) as runtime:
        assert await (await runtime.connect(thread.id)).repair() == seqs
        assert await runtime.search("hello", owner="me") == []
        assert await runtime.archive(owner="me").search("hello") == []


async def test_a_damaged_thread_can_be_shown_and_deleted(tmp_path: Path) -> None:
    path = tmp_path / "treadle.db"
    url = f"sqlite:///{path}"
    agent = Agent(ScriptedModel(["first answer", "second answer"]))
    async with treadle.open(url, agents=[agent]) as runtime:
        thread = await runtime.create_thread(agent, owner="me")
        for text in ("one", "two"):
            await (await thread.send(text)).result()
    damage(path, thread.id, 4)
    shown: list[str] = []
    async with treadle.open(url, drive=False) as runtime:
        await show_thread(await runtime.connect(thread.id), Transcript(shown.append, echo=True))
    assert "Event 4 cannot be read" in "".join(shown)
    assert "second answer" in "".join(shown)
    async with treadle.open(url, agents=[agent]) as runtime:
        await (await runtime.connect(thread.id)).delete()
        assert not await runtime.threads()
        again = await runtime.create_thread(agent, owner="me")
        damage(path, again.id, 1)
        await runtime.delete_owner("me")
        assert not await runtime.threads()


@pytest.mark.parametrize("body", [b"{", b"[]", b"\xff", b'{"type": "send", "call_id": "c1"}'])
async def test_a_damaged_entry_of_the_inbox_is_set_aside(
    tmp_path: Path, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "treadle.db"
    url = f"sqlite:///{path}"
    agent = Agent(ScriptedModel(["one", "two", "three"]))
    async with treadle.open(url, agents=[agent]) as runtime:
        thread = await runtime.create_thread(agent)
    async with treadle.open(url, agents=[agent], drive=False) as outside:
        sender = await outside.connect(thread.id)
        lost = await sender.send("lost")
        with sqlite3.connect(path) as connection:
            connection.execute("UPDATE inbox SET body = ?", (body,))
        connection.close()
        with caplog.at_level(logging.WARNING, "treadle"):
            async with treadle.open(url, agents=[agent]) as runtime:
                thread = await runtime.connect(thread.id)
                assert (await (await sender.send("there", key="k")).result()).text == "one"
                assert (await (await thread.send("here", key="l")).result()).text == "two"
                with pytest.raises(ThreadDamaged, match="send it again"):
                    await lost.result()
                await asyncio.sleep(0.3)
                told = [one.message for one in caplog.records if "set aside" in one.message]
                assert 1 <= len(told) <= 2  # once in each runtime that reads the inbox
                assert thread.id in told[0]
                assert await thread.repair() == []
                assert "1 damaged entries were removed from the inbox" in caplog.text
                caplog.clear()
                assert (await (await thread.send("last")).result()).text == "three"
            async with treadle.open(url, agents=[agent]):
                await asyncio.sleep(0.2)
            assert not caplog.records
