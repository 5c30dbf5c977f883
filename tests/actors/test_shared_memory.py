"""Memory blocks where things go wrong: journals that fail, threads that come and go."""

import asyncio
import json
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import pytest

import treadle
from treadle import Agent, Block, MemoryUpdated, RunContext, Runtime, tool
from treadle.actors import actor
from treadle.domain.blocks import AppendText, CreateBlock, DeleteBlock
from treadle.domain.entries import EditEntry
from treadle.domain.envelope import Envelope
from treadle.domain.events import RecordedEvent
from treadle.domain.items import FunctionCallOutput
from treadle.domain.state import ThreadState
from treadle.errors import (
    ConfigurationError,
    InvalidInput,
    JournalError,
    JournalFull,
    ThreadNotFound,
)
from treadle.journal.base import Batch, Claim, ThreadInfo
from treadle.journal.files import NewFile
from treadle.journal.memory import MemoryJournal
from treadle.journal.projection import Projection
from treadle.testing import Call, ScriptedModel

pytestmark = pytest.mark.anyio

Open = Callable[..., Runtime]

BOARD = Block("board", "first", shared="office")


@tool(idempotent=True)
async def note(ctx: RunContext, text: str) -> str:
    """Notes something on the board."""
    block = await ctx.memory.edit(AppendText("board", text), key=ctx.call_id)
    assert block is not None
    return block.value


def noting(text: str, call_id: str = "") -> Call:
    return Call("note", json.dumps({"text": text}), call_id or None)


def agent_of(*outputs: str | Call, blocks: tuple[Block, ...] = (BOARD,)) -> Agent:
    return Agent(ScriptedModel([*outputs]), name="noter", tools=[note], blocks=blocks)


async def lines_of(memory: treadle.Memory, label: str = "board") -> list[str]:
    block = await memory.get(label)
    assert block is not None
    return block.value.splitlines()


def told_in(events: list[RecordedEvent]) -> list[MemoryUpdated]:
    return [event for event in events if isinstance(event, MemoryUpdated) and event.memory]


async def test_calls_of_two_threads_may_have_the_same_id(open_runtime: Open) -> None:
    agent = agent_of(noting("one", "call_0"), "ok", noting("two", "call_0"), "ok")
    async with open_runtime(agent) as runtime:
        threads = [await runtime.create_thread(agent) for _ in range(2)]
        for thread in threads:
            await (await thread.send("go")).result()
        office = await runtime.memory("office")
        assert await lines_of(office) == ["first", "one", "two"]
        for thread in threads:
            (told,) = told_in(await thread.events())
            assert told.key == f"{thread.id}/call_0"


async def test_a_shared_block_that_the_model_deleted_it_can_make_again(open_runtime: Open) -> None:
    @tool
    async def renew(ctx: RunContext) -> str:
        """Deletes the board and makes another, twice."""
        assert await ctx.memory.edit(DeleteBlock("board"), key="") is None
        made = await ctx.memory.edit(CreateBlock(Block("board", "second")), key="")
        assert made is not None
        await ctx.memory.edit(CreateBlock(Block("board", "third")), key="")
        return "not reached"

    model = ScriptedModel([Call("renew", "{}"), "done"])
    agent = Agent(model, tools=[renew], blocks=[BOARD])
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        await (await thread.send("go")).result()
        assert await lines_of(await runtime.memory("office")) == ["second"]
        assert await thread.memory.blocks() == ()
        (output,) = [i for i in await thread.history() if isinstance(i, FunctionCallOutput)]
        assert "There is a memory block 'board' already" in output.text


class FailingJournal(MemoryJournal):
    """Refuses to make threads, or to append to one, as long as it is told to."""

    makes_none = False
    failing = ""

    async def create(
        self,
        info: ThreadInfo,
        entries: Sequence[Envelope] = (),
        projection: Projection | None = None,
        files: Sequence[NewFile] = (),
    ) -> Claim:
        if self.makes_none:
            raise JournalFull("The disk is full; make room and try again.")
        return await super().create(info, entries, projection, files)

    def append(self, batch: Batch) -> asyncio.Future[None]:
        kept = self._by_number.get(batch.claim.number)
        if kept is None or kept.info.id != self.failing:
            return super().append(batch)
        refused: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        refused.set_exception(JournalFull("The disk is full; make room and try again."))
        return refused


async def test_a_thread_is_told_only_of_changes_that_are_kept() -> None:
    journal = FailingJournal()
    agent = agent_of("ok", noting("lost"), "sorry", noting("kept"), "noted")
    async with Runtime(journal, agents=[agent]) as runtime:
        thread = await runtime.create_thread(agent)
        await (await thread.send("hi")).result()
        office = await runtime.memory("office")
        journal.failing = office.thread_id
        await (await thread.send("note it")).result()
        assert told_in(await thread.events()) == []
        journal.failing = ""
        await (await thread.send("again")).result()
        assert await lines_of(office) == ["first", "kept"]
        assert [told.added for told in told_in(await thread.events())] == ["\nkept"]


async def test_a_shared_memory_that_cannot_be_made_says_why() -> None:
    journal = FailingJournal()
    async with Runtime(journal) as runtime:
        journal.makes_none = True
        with pytest.raises(JournalFull):
            await runtime.memory("office")
        journal.makes_none = False
        assert await (await runtime.memory("office")).blocks() == ()


async def test_a_shared_memory_that_failed_and_is_gone_is_made_again() -> None:
    journal = FailingJournal()
    agent = agent_of("ok", "ok")
    async with Runtime(journal, agents=[agent]) as runtime:
        thread = await runtime.create_thread(agent)
        await (await thread.send("hi")).result()
        office = await runtime.memory("office")
        journal.failing = office.thread_id
        with pytest.raises(JournalFull):
            await office.append("board", "lost")
        await journal.delete(office.thread_id)
        journal.failing = ""
        await (await thread.send("hi")).result()
        assert await lines_of(office) == ["first"]


class SlowJournal(MemoryJournal):
    """Has what it is given before it says so, and takes its time to read."""

    async def create(
        self,
        info: ThreadInfo,
        entries: Sequence[Envelope] = (),
        projection: Projection | None = None,
        files: Sequence[NewFile] = (),
    ) -> Claim:
        claim = await super().create(info, entries, projection, files)
        await asyncio.sleep(1)
        return claim

    async def read(
        self, thread_id: str, *, after: int, until: int | None = None, limit: int = 500
    ) -> list[RecordedEvent]:
        await asyncio.sleep(1)
        return await super().read(thread_id, after=after, until=until, limit=limit)


class SlowLoad(MemoryJournal):
    """Hands a state out some time after it was read."""

    async def load(self, thread_id: str, *, at: int | None = None) -> ThreadState:
        state = await super().load(thread_id, at=at)
        await asyncio.sleep(1)
        return state


async def test_a_thread_that_is_deleted_while_it_is_loaded_is_gone() -> None:
    async with Runtime(SlowLoad(), idle_seconds=0.1) as runtime:
        office = await runtime.memory("office")
        thread = await runtime.connect(office.thread_id)
        await asyncio.sleep(5)  # it has left the memory
        read = asyncio.create_task(office.blocks())
        await asyncio.sleep(0.5)
        await thread.delete()
        assert await read == ()
        with pytest.raises(ThreadNotFound):
            await office.blocks()


async def test_who_asks_for_a_shared_memory_while_it_is_made_waits() -> None:
    async with Runtime(SlowJournal()) as runtime:

        async def made(label: str) -> None:
            await asyncio.sleep(0.5 * int(label))
            await (await runtime.memory("office")).create(label)

        await asyncio.gather(*(made(str(n)) for n in range(4)))
        blocks = await (await runtime.memory("office")).blocks()
        assert sorted(block.label for block in blocks) == ["0", "1", "2", "3"]


async def test_a_thread_is_not_dropped_while_a_change_is_being_undone() -> None:
    async with Runtime(SlowJournal(), idle_seconds=0.1) as runtime:
        office = await runtime.memory("office")
        await office.create("board")
        await office.append("board", "one")
        await asyncio.sleep(5)  # it has left the memory
        undo = asyncio.create_task(office.undo("board"))
        await asyncio.sleep(0.5)
        await office.append("board", "two")
        await undo
        assert await lines_of(office) == ["two"]


async def test_an_undo_is_not_put_off_by_those_who_go_on_editing() -> None:
    async with Runtime(SlowJournal()) as runtime:
        office = await runtime.memory("office")
        await office.create("board", "first")
        await office.append("board", "one")
        edits = [asyncio.create_task(office.append("board", f"{n}")) for n in range(9)]
        undo = asyncio.create_task(office.undo("board", 2))
        edits += [asyncio.create_task(edit_later(office, n)) for n in range(9)]
        async with asyncio.timeout(3):
            await undo
        await asyncio.gather(*edits)
        assert len(await lines_of(office)) == 19


async def edit_later(memory: treadle.Memory, n: int) -> None:
    await asyncio.sleep(0.5 * n)
    await memory.append("board", f"later {n}")


class CountingJournal(MemoryJournal):
    """Counts the snapshots of shared memories."""

    snapshots = 0

    async def snapshot(self, claim: Claim, state: ThreadState) -> None:
        self.snapshots += state.run is None
        await super().snapshot(claim, state)


async def test_what_models_write_into_a_shared_memory_is_in_snapshots(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(actor, "SNAPSHOT_EVERY", 4)
    journal = CountingJournal()
    agent = agent_of(*(noting(f"{n}") for n in range(9)), "ok")
    async with Runtime(journal, agents=[agent]) as runtime:
        await (await (await runtime.create_thread(agent)).send("go")).result()
        assert journal.snapshots == 2


async def test_blocks_are_kept_when_the_thread_is_made(open_runtime: Open) -> None:
    agent = agent_of(blocks=(Block("notes", "first"),))
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        kept = await runtime.journal.load(thread.id)
        assert [block.value for block in kept.memory.blocks] == ["first"]


async def test_a_shared_memory_is_not_forked(open_runtime: Open) -> None:
    async with open_runtime() as runtime:
        office = await runtime.memory("office")
        await office.create("board")
        with pytest.raises(InvalidInput, match="forked"):
            await (await runtime.connect(office.thread_id)).fork()


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"limit": 2.5}, "limit"),
        ({"limit": True}, "limit"),
        ({"read_only": "yes"}, "read_only"),
        ({"value": 5}, "value"),
        ({"key": 5}, "str"),
        ({"key": "\ud800"}, "key"),
    ],
)
async def test_what_could_not_be_read_back_is_refused(
    open_runtime: Open, options: dict[str, object], field: str
) -> None:
    agent = agent_of("hello", blocks=(Block("notes"),))
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        await (await thread.send("hi")).result()
        with pytest.raises(InvalidInput, match=field):
            await thread.memory.create("board", **options)  # type: ignore[arg-type]
        with pytest.raises(InvalidInput):
            await thread.memory.append("notes", 5)  # type: ignore[arg-type]
    async with open_runtime(agent) as runtime:
        thread = await runtime.connect(thread.id)
        assert len(await thread.history()) == 2
        assert await thread.memory.blocks() == (Block("notes"),)


def test_an_agent_declares_no_block_that_could_not_be_read_back() -> None:
    with pytest.raises(ConfigurationError, match="limit"):
        agent_of(blocks=(Block("notes", limit=2.5),))  # type: ignore[arg-type]


@pytest.mark.real_clock
async def test_a_thread_that_cannot_be_loaded_holds_no_other_up(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'treadle.db'}"
    agent = agent_of(blocks=(Block("notes"),))
    async with treadle.open(url, agents=[agent]) as runtime:
        broken, sound = [await runtime.create_thread(agent) for _ in range(2)]
        await sound.memory.append("notes", "one")

    with closing(sqlite3.connect(tmp_path / "treadle.db")) as connection:
        connection.execute(
            "UPDATE event SET body = '{}' WHERE position = (SELECT min(position) FROM event)"
        )
        connection.commit()
    async with treadle.open(url, agents=[agent]) as runtime:
        for id in (broken.id, sound.id):
            await runtime.journal.enqueue(id, EditEntry(AppendText("notes", "two")))
        with pytest.raises(JournalError):
            await (await runtime.connect(broken.id)).state()
        memory = (await runtime.connect(sound.id)).memory
        async with asyncio.timeout(10):
            while await lines_of(memory, "notes") != ["one", "two"]:  # noqa: ASYNC110 - polled
                await asyncio.sleep(0.02)
