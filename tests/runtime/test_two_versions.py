"""Two versions of treadle use one database: the newer one has a migration that the other lacks."""

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, LiteralString, cast

import psycopg
import pytest
from tests.postgres import server

import treadle
from treadle import Agent, Runtime, UnknownEvent
from treadle.actors import postgres_engine
from treadle.domain.entries import is_newer_entry
from treadle.errors import JournalTooNew
from treadle.journal import postgres_database, sqlite_file
from treadle.journal.schema_version import ADDITIVE
from treadle.testing import ScriptedModel

pytestmark = [pytest.mark.anyio, pytest.mark.real_clock]

TABLES = ("thread", "event", "activity", "label", "run", "call", "sent", "due", "inbox", "snapshot",
          "history", "file", "file_use", "spending", "change")  # fmt: skip
COLUMNS = "\n".join(f"ALTER TABLE {name} ADD COLUMN added int DEFAULT 7;" for name in TABLES)
ADDED = f"{ADDITIVE}\nCREATE TABLE added (x int);\n{COLUMNS}"
KNOWN = {module: module._migrations() for module in (sqlite_file, postgres_database)}
BREAKING = "CREATE TABLE replaced (x int);"
RAW = b'{"type":"tool.paused","seq":8,"at":2.0,"run_id":"r","new":[1]}'
UNKNOWN = UnknownEvent(seq=8, at=2.0, run_id="r", original_type="tool.paused", raw=RAW)
ENTRY = '{"type":"pause","call_id":"c","by":""}'


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.needs("postgres"))])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return server().url() if request.param == "postgres" else f"sqlite:///{tmp_path / 'treadle.db'}"


@contextlib.contextmanager
def newer(url: str, *scripts: str) -> Iterator[None]:
    """Inside, a treadle with more migrations opens the database."""
    module = sqlite_file if url.startswith("sqlite") else postgres_database
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_migrations", lambda: [*KNOWN[module], *scripts])
        yield


def execute(url: str, sql: str, *given: object) -> list[tuple[Any, ...]]:
    """Changes the database as a newer version does; returns the rows of a query."""
    if url.startswith("sqlite"):
        with contextlib.closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
            rows = connection.execute(sql, given).fetchall()
            connection.commit()
            return rows
    with psycopg.connect(url) as connection:
        cursor = connection.execute(cast("LiteralString", sql.replace("?", "%s")), given)
        return cursor.fetchall() if cursor.description is not None else []


def record(url: str, thread_id: str) -> None:
    """Records an event of a new type, with the number 8."""
    ((number,),) = execute(url, "SELECT n FROM thread WHERE id = ?", thread_id)
    execute(url, "INSERT INTO event (position, body) VALUES (?, ?)", number << 32 | 8, RAW.decode())


def stored(url: str) -> int:
    """The number of the version in the database."""
    is_file = url.startswith("sqlite")
    sql = "PRAGMA user_version" if is_file else "SELECT number FROM version"
    ((number,),) = execute(url, sql)
    return int(number)


def agent_of(turns: int = 40) -> Agent[None, str]:
    return Agent(ScriptedModel(["Hello."] * turns), name="a")


async def turns(runtime: Runtime, thread_id: str, count: int) -> None:
    thread = await runtime.connect(thread_id)
    for number in range(count):
        run = await thread.send(f"message {number}")
        assert (await run.result(timeout=30)).text == "Hello."


async def use_all(runtime: Runtime, agent: Agent[None, str]) -> str:
    """Writes to every kind of table; returns the id of the thread."""
    thread = await runtime.create_thread(agent, owner="ann", metadata={"n": 1})
    await turns(runtime, thread.id, 7)  # a statement is prepared when it was used five times
    await thread.schedule("later", after=3600)
    fork = await thread.fork()
    await turns(runtime, fork.id, 1)
    (page,) = [await runtime.threads(owner="ann", limit=1)]
    assert len(page) == 1
    await thread.update(title="kept")
    await fork.delete()
    return thread.id


async def test_an_older_version_uses_a_database_with_additions(url: str) -> None:
    agent = agent_of()
    async with treadle.open(url, agents=[agent]) as runtime:
        id = await use_all(runtime, agent)
    with newer(url, ADDED):
        async with treadle.open(url, agents=[agent]) as runtime:
            await turns(runtime, id, 1)
    version = stored(url)
    async with treadle.open(url, agents=[agent]) as older:
        await turns(older, id, 1)
        await use_all(older, agent)
        async with treadle.open(url, agents=[agent], drive=False) as reader:
            assert await reader.threads(owner="ann")
            await (await (await reader.connect(id)).send("from outside")).result(timeout=30)
    assert stored(url) == version
    with newer(url, ADDED):
        async with treadle.open(url, agents=[agent]) as runtime:
            await turns(runtime, id, 1)
            runs = await (await runtime.connect(id)).runs()
            assert [run.status for run in runs] == ["completed"] * 11
    assert stored(url) == version


async def test_an_older_version_refuses_a_database_with_changes(url: str) -> None:
    with newer(url, ADDED, BREAKING, ADDED.replace("added", "later")):
        async with treadle.open(url, agents=[agent_of()]):
            pass
    for more in ((), (ADDED,)):
        for drive in (True, False):
            with newer(url, *more), pytest.raises(JournalTooNew, match="install a newer treadle"):
                async with treadle.open(url, agents=[agent_of()], drive=drive):
                    raise AssertionError
    with newer(url, ADDED, BREAKING):  # it has the change, but not what was added later
        async with treadle.open(url, agents=[agent_of()]):
            pass


@pytest.fixture
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_engine, "LOOK_SECONDS", 0.1)


@pytest.mark.needs("postgres")
@pytest.mark.usefixtures("quickly")
async def test_nodes_of_two_versions_are_replaced_one_by_one() -> None:
    """While the older node answers, the newer one migrates; nothing is cut, nothing is lost."""
    url, agent = server().url(), agent_of(200)
    async with contextlib.AsyncExitStack() as stack:
        older = await stack.enter_async_context(treadle.open(url, agents=[agent]))
        ids = [await use_all(older, agent) for _ in range(2)]
        ids += [(await older.create_thread(agent)).id for _ in range(4)]
        talking = [asyncio.create_task(turns(older, id, 6)) for id in ids]
        async with newer_node(url, agent) as runtime:
            mine = await use_all(runtime, agent)
            await asyncio.gather(*talking)
            await asyncio.gather(*(turns(runtime, id, 1) for id in ids), turns(older, mine, 1))
            await older.drain(10)
            await stack.aclose()
            await asyncio.gather(*(turns(runtime, id, 1) for id in ids))
            for id in ids:
                thread = await runtime.connect(id)
                runs = await thread.runs()
                assert {run.status for run in runs} == {"completed"}
                assert len(runs) == (15 if id in ids[:2] else 8)
                assert "step.interrupted" not in {one.type for one in await thread.events()}


@pytest.mark.needs("postgres")
async def test_a_migration_gives_way_to_those_who_use_the_tables(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A transaction of an older node would wait for the migration, which waits for it."""
    url, agent = server().url(), agent_of()
    monkeypatch.setattr(postgres_database, "LOCK_MILLISECONDS", 50)
    async with treadle.open(url, agents=[agent]) as older:
        id = (await older.create_thread(agent)).id
        using = await psycopg.AsyncConnection.connect(url)
        async with using, using.transaction():
            await using.execute("SELECT count(*) FROM change")  # what the migration locks last
            opening = asyncio.create_task(opened(url, agent, id))
            await asyncio.sleep(0.3)
            await using.execute("SELECT count(*) FROM thread")  # what it locks first
            await turns(older, id, 1)
            assert not opening.done()
        await asyncio.wait_for(opening, 20)


async def opened(url: str, agent: Agent[None, str], id: str) -> None:
    async with newer_node(url, agent) as runtime:
        await turns(runtime, id, 1)


@contextlib.asynccontextmanager
async def newer_node(url: str, agent: Agent[None, str]) -> AsyncIterator[Runtime]:
    with newer(url, ADDED):
        runtime = treadle.open(url, agents=[agent])
        await runtime.__aenter__()
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_exit(runtime)
        yield runtime


@pytest.mark.needs("postgres")
@pytest.mark.usefixtures("quickly")
async def test_older_nodes_leave_a_thread_with_a_newer_event_alone() -> None:
    url, agent = server().url(), agent_of()
    async with (
        treadle.open(url, agents=[agent]) as first,
        treadle.open(url, agents=[agent]) as second,
    ):
        threads = [await first.create_thread(agent) for _ in range(2)]
        for thread in threads:
            await turns(first, thread.id, 1)
        id, other = (thread.id for thread in threads)
        await first.drain(5)  # so that neither has the thread in memory
        record(url, id)
        thread = await second.connect(id)
        assert (await thread.events())[7:] == [UNKNOWN]
        with pytest.raises(JournalTooNew, match=r"event 8 has the type 'tool\.paused'"):
            await thread.send("more")
        with pytest.raises(JournalTooNew):
            await thread.repair()
        await turns(second, other, 1)
        await asyncio.sleep(0.3)
        query = "SELECT n FROM node JOIN thread ON thread.node = node.id WHERE thread.id = ?"
        assert execute(url, query, id) == []  # a newer node can take it
        assert (await thread.export())[8:] == [RAW]


async def test_an_entry_of_a_newer_version_waits_for_it(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    agent = agent_of()
    async with treadle.open(url, agents=[agent]) as runtime:
        thread = await runtime.create_thread(agent)
        await turns(runtime, thread.id, 1)
    with caplog.at_level(logging.WARNING, "treadle"):
        async with treadle.open(url, agents=[agent], drive=False) as outside:
            lost = await (await outside.connect(thread.id)).send("in another way")
            execute(url, "UPDATE inbox SET body = ?", ENTRY)
            with pytest.raises(JournalTooNew, match="a process of that version takes them"):
                await lost.result()
        async with treadle.open(url, agents=[agent]) as runtime:
            await turns(runtime, thread.id, 1)
            same = await runtime.connect(thread.id)
            await same.repair()
            await turns(runtime, thread.id, 1)
    told = [line.message for line in caplog.records if thread.id in line.message]
    assert set(told) == {
        f"An entry in the inbox of {thread.id} is of a newer version of treadle, and waits for it."
    }
    assert execute(url, "SELECT body FROM inbox") == [(ENTRY,)]


@pytest.mark.parametrize(
    ("data", "is_newer"),
    [
        (b'{"type":"pause"}', True),
        (b'{"type":"send"}', False),  # known, so it is damaged
        (b'{"type":"Pause!"}', False),
        (b'{"type":7}', False),
        (b'{"typ', False),
        (b"\xff", False),
        (b"[" * 100_000, False),
    ],
)
def test_only_a_word_counts_as_a_new_type(data: bytes, is_newer: bool) -> None:
    assert is_newer_entry(data) == is_newer
