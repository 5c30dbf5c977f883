"""What was deleted is absent from the files on the disk, their free pages and logs included."""

import sqlite3
from pathlib import Path

import pytest

import treadle
from treadle import Agent, Block, InputFile, MessageAdded, Thread, tool
from treadle.memory import archive_tools
from treadle.testing import Call, ScriptedModel

pytestmark = pytest.mark.anyio

MARK = "q7mark"
"""What each text contains that is to be deleted; no other text does."""


@tool
async def look(place: str) -> str:
    """Looks."""
    return f"seen {place} {MARK}-output " * 400  # more than a page of the database


def agent_of(*, words: str = MARK) -> Agent:
    step = [Call("look", f'{{"place": "{words}-arguments"}}'), Call("archive_insert", _note(words))]
    return Agent(
        ScriptedModel([step, f"{words}-answer", *["ok"] * 10]),
        name="clerk",
        tools=[look, *archive_tools()],
        blocks=[Block("notes", f"{words}-block")],
    )


def _note(words: str) -> str:
    return f'{{"text": "{words}-passage"}}'


async def talk(runtime: treadle.Runtime, agent: Agent, owner: str) -> Thread:
    """Leaves the mark in everything that is kept of a thread."""
    thread = await runtime.create_thread(agent, owner=owner, metadata={"of": f"{MARK}-metadata"})
    page = InputFile.from_bytes(f"{MARK}-file ".encode() * 2000, f"{MARK}-name.txt")
    await (await thread.send([f"{MARK}-message " * 500, page], key=f"{MARK}-key")).result()
    await thread.update(title=f"{MARK}-title")
    await thread.schedule(f"{MARK}-schedule", after=1000)
    assert await runtime.search(f"{MARK}-answer", owner=owner)
    return thread


def found_in(folder: Path) -> dict[str, int]:
    """Returns how often the files of a folder contain the mark, without those that do not."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    counts = {path.name: path.read_bytes().lower().count(MARK.encode()) for path in files}
    return {name: count for name, count in counts.items() if count}


async def test_a_deleted_thread_leaves_nothing_on_the_disk(tmp_path: Path) -> None:
    agent = agent_of()
    async with treadle.open(f"sqlite:///{tmp_path}/treadle.db", agents=[agent]) as runtime:
        other = await runtime.create_thread(agent_of(words="other"), owner="bob")
        thread = await talk(runtime, agent, "ann")
        assert found_in(tmp_path)
        await thread.delete()
        assert found_in(tmp_path) == {}
        assert (await runtime.connect(other.id)).id == other.id
    assert found_in(tmp_path) == {}


async def test_a_deleted_owner_leaves_nothing_on_the_disk(tmp_path: Path) -> None:
    agent = agent_of()
    async with treadle.open(f"sqlite:///{tmp_path}/treadle.db", agents=[agent]) as runtime:
        await talk(runtime, agent, "ann")
        view = runtime.for_owner("ann")
        await view.files.put(f"{MARK}-put ".encode() * 2000, name=f"{MARK}.txt")
        await view.archive().insert(f"{MARK}-of-the-owner")
        memory = await view.memory("style")
        await memory.create("tone", f"{MARK}-tone")
        assert found_in(tmp_path)
        await runtime.delete_owner("ann")
        assert found_in(tmp_path) == {}
    assert found_in(tmp_path) == {}


@pytest.mark.parametrize("searched", [True, False])
async def test_a_removed_message_leaves_nothing_on_the_disk(
    tmp_path: Path, *, searched: bool
) -> None:
    agent = Agent(ScriptedModel(["ok"] * 3))
    async with treadle.open(f"sqlite:///{tmp_path}/treadle.db", agents=[agent]) as runtime:
        thread = await runtime.create_thread(agent)
        await (await thread.send(f"{MARK}-message " * 500)).result()
        if searched:
            assert await runtime.search(f"{MARK}-message")
        (sent, *_) = [one for one in await thread.events() if isinstance(one, MessageAdded)]
        await thread.remove_event(sent.seq)
        assert found_in(tmp_path) == {}


async def test_a_reader_delays_the_end_of_the_log(tmp_path: Path) -> None:
    agent = Agent(ScriptedModel(["ok"] * 3))
    path = tmp_path / "treadle.db"
    async with treadle.open(f"sqlite:///{path}", agents=[agent]) as runtime:
        thread = await runtime.create_thread(agent)
        second = await runtime.create_thread(agent)
        await (await thread.send(f"{MARK}-message " * 500)).result()
        reader = sqlite3.connect(path, isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM thread").fetchone()
        await thread.delete()  # is not kept from it
        assert found_in(tmp_path)
        reader.close()
        await second.delete()
        assert found_in(tmp_path) == {}
