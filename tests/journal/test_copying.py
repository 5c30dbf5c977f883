"""A SQLite database is copied to PostgreSQL, whole or not at all."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from tests.journal.schema_file import fill
from tests.journal.story import Driver, conversation, make, run_of_key
from tests.postgres import server

import treadle
from treadle import Agent
from treadle.errors import JournalCorrupt, JournalError, JournalTooNew, ThreadDamaged
from treadle.journal import postgres_database, sqlite_file
from treadle.journal.base import CallQuery, ChangeQuery, ThreadQuery
from treadle.journal.copying import copy_journal
from treadle.journal.files import FileInfo, file_id
from treadle.journal.postgres import PostgresJournal
from treadle.journal.schema_version import ADDITIVE
from treadle.journal.sqlite import SqliteJournal
from treadle.testing import ScriptedModel

pytestmark = [pytest.mark.anyio, pytest.mark.real_clock, pytest.mark.needs("postgres")]

CONTENT = b"%PDF" + bytes(range(256)) * 40
FILE = FileInfo(file_id(CONTENT), "application/pdf", len(CONTENT), "a.pdf", 1.0)


async def test_everything_is_there_and_continues(path: Path) -> None:
    await fill(path)
    old = SqliteJournal(path)
    await old.open()
    driver = await make(old, owner="ann")
    for n in range(30):
        await driver.append(conversation(f"run_{n}"))
        await old.snapshot(driver.claim, driver.state)
    await old.files.put(FILE, CONTENT, owner="ann")
    threads = await old.threads(ThreadQuery(limit=-1))
    calls = await old.calls(CallQuery())
    changes = await old.changes(ChangeQuery(after="start"))
    unfinished = await old.unfinished()
    inboxes = await old.waiting_threads()
    await old.close()

    url = server().url()
    assert await copy_journal(path, url) == len(threads) + 1  # a shared memory is not listed
    new = PostgresJournal(url)
    await new.open()
    try:
        assert await new.threads(ThreadQuery(limit=-1)) == threads
        assert await new.calls(CallQuery()) == calls
        found = await new.changes(ChangeQuery(after="start"))
        assert (found.events, found.position) == (changes.events, changes.position)
        assert await new.unfinished() == unfinished
        assert await new.waiting_threads() == inboxes
        assert await run_of_key(new, inboxes[0], "later") is not None
        assert await new.files.content(FILE.id, owner="ann") == CONTENT
        assert await new.load("thread_1") == driver.state
        # Numbers continue behind those that were copied.
        again = Driver(new, await new.claim("thread_1"), driver.state)
        await again.append(conversation("run_more"))
        await make(new, "thread_new")
        (last,) = (await new.changes(ChangeQuery(after=changes.position))).events[-1:]
        assert (last.thread_id, last.type) == ("thread_new", "thread.created")
    finally:
        await new.close()
    with pytest.raises(JournalError, match="has threads already"):
        await copy_journal(path, url)


async def test_a_copy_answers_what_was_asked(path: Path) -> None:
    agent = Agent(ScriptedModel(["Hello."]), name="a")
    async with treadle.open(f"sqlite:///{path}", agents=[agent]) as runtime:
        thread = await runtime.create_thread(agent)
        await (await thread.send("hi")).result()
    async with treadle.open(f"sqlite:///{path}", drive=False) as runtime:
        await (await runtime.connect(thread.id)).send("and?", key="k")
    url = server().url()
    await copy_journal(path, url)
    agent = Agent(ScriptedModel(["Yes."]), name="a")
    async with treadle.open(url, agents=[agent]) as runtime:
        run = await (await runtime.connect(thread.id)).send("and?", key="k")
        assert (await run.result()).text == "Yes."


async def damaged(path: Path, body: bytes) -> None:
    old = SqliteJournal(path)
    await old.open()
    await (await make(old)).append(conversation())
    await (await make(old, "thread_2")).append(conversation())
    await old.close()

    def damage() -> None:
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("UPDATE event SET body = ? WHERE position = (1 << 32) + 3", (body,))
            connection.commit()

    await asyncio.to_thread(damage)


async def test_what_is_not_text_copies_nothing(path: Path) -> None:
    await damaged(path, b"\xff\x00")
    url = server().url()
    with pytest.raises(JournalCorrupt, match="table event is damaged"):
        await copy_journal(path, url)
    new = PostgresJournal(url)
    await new.open()
    assert await new.threads(ThreadQuery()) == []
    await new.close()


@pytest.mark.parametrize("body", [b"\xff\x00", b'{"type":', b'{"type":"whistle"}', b"[" * 99_999])
async def test_an_entry_that_cannot_be_read_copies_nothing(path: Path, body: bytes) -> None:
    await fill(path)

    def damage() -> None:
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("UPDATE inbox SET body = ?", (body,)).rowcount
            connection.commit()

    await asyncio.to_thread(damage)
    with pytest.raises(JournalCorrupt, match="An entry that waits for the thread thread_"):
        await copy_journal(path, server().url())


async def test_a_damaged_thread_is_copied_as_it_is(path: Path) -> None:
    await damaged(path, b'{"type":')
    url = server().url()
    assert await copy_journal(path, url) == 2
    new = PostgresJournal(url)
    await new.open()
    try:
        with pytest.raises(ThreadDamaged, match="Event 3"):
            await new.load("thread_1")
        assert (await new.stored("thread_1", after=2, limit=1)) == {3: b'{"type":'}
        assert len(await new.read("thread_2", after=0)) == 7
    finally:
        await new.close()


@pytest.mark.parametrize("side", ["source", "target"])
async def test_what_a_newer_version_added_is_not_left_out(
    path: Path, side: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = sqlite_file if side == "source" else postgres_database
    known = await asyncio.to_thread(module._migrations)
    url = server().url()
    with monkeypatch.context() as newer:
        more = [*known, f"{ADDITIVE}\nALTER TABLE activity ADD COLUMN mood text;"]
        newer.setattr(module, "_migrations", lambda: more)
        for journal in (SqliteJournal(path), PostgresJournal(url)):
            await journal.open()
            await journal.close()
    with pytest.raises(JournalTooNew, match="copy with a newer treadle"):
        await copy_journal(path, url)
