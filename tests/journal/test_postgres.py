"""The parts that only the PostgreSQL journal has: a server that goes away, locks, versions."""

import asyncio
import contextlib
import signal
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from msgspec.structs import replace
from tests.journal.story import Driver, conversation, make, numbered, run_of_key, thread
from tests.postgres import Server, new_server, server

from treadle.domain.entries import CancelEntry, SendEntry
from treadle.domain.envelope import Envelope
from treadle.domain.events import MessageAdded, PassageRemoved, RecordedEvent
from treadle.domain.items import user_message
from treadle.errors import (
    ConfigurationError,
    JournalError,
    JournalLocked,
    JournalReadOnly,
    JournalTooNew,
    JournalUnavailable,
    StaleWriter,
)
from treadle.journal import postgres, postgres_database
from treadle.journal.base import Batch, ChangeQuery, ThreadQuery
from treadle.journal.files import FileInfo, file_id
from treadle.journal.postgres import PostgresJournal
from treadle.journal.postgres_connection import PostgresConnection
from treadle.journal.postgres_database import Address
from treadle.journal.sqlite import SqliteJournal

pytestmark = [pytest.mark.anyio, pytest.mark.real_clock, pytest.mark.needs("postgres")]


@pytest.fixture
def url() -> str:
    return server().url()


@contextlib.asynccontextmanager
async def opened(
    url: str, *, drive: bool = True, alone: bool = False
) -> AsyncIterator[PostgresJournal]:
    journal = PostgresJournal(url, drive=drive, alone=alone)
    await journal.open()
    try:
        yield journal
    finally:
        await journal.close()


@contextlib.contextmanager
def raw(url: str) -> Iterator[psycopg.Connection[Any]]:
    connection = psycopg.connect(url, autocommit=True)
    try:
        yield connection
    finally:
        connection.close()


def writer_of(journal: PostgresJournal) -> PostgresConnection:
    assert journal._writing is not None
    return journal._writing


def end_session(url: str, connection: PostgresConnection) -> None:
    with raw(url) as other:
        other.execute("SELECT pg_terminate_backend(%s)", (connection.raw.info.backend_pid,))


async def test_what_was_kept_is_there_when_it_is_opened_again(url: str) -> None:
    async with opened(url) as journal:
        driver = await make(journal)
        events = await driver.append(conversation())
        await journal.snapshot(driver.claim, driver.state)
    async with opened(url) as journal:
        assert await journal.read("thread_1", after=0) == events
        assert await journal.load("thread_1") == driver.state
    with raw(url) as connection:
        (body,) = connection.execute("SELECT body FROM event ORDER BY position").fetchone()  # type: ignore[misc]
        assert body.encode() == Envelope(events[0], 1).json


async def test_one_that_is_alone_keeps_the_others_out(url: str) -> None:
    async with opened(url) as journal, opened(url) as second, opened(url, drive=False) as other:
        with pytest.raises(JournalLocked, match="Another process drives the database"):
            await PostgresJournal(url, alone=True).open()
        for one in (journal, second, other):
            assert await one.is_driven()
    async with opened(url, alone=True), opened(server().url()):  # another schema is another journal
        with pytest.raises(JournalLocked, match="has to be alone with it"):
            await PostgresJournal(url).open()
    async with opened(url, drive=False) as other, asyncio.timeout(5):
        while await other.is_driven():  # noqa: ASYNC110 - until the server has missed the session
            await asyncio.sleep(0.01)


async def test_two_that_make_the_tables_at_once_make_them_once(url: str) -> None:
    journals = [PostgresJournal(url), PostgresJournal(url)]
    await asyncio.gather(*(one.open() for one in journals))
    await make(journals[0])
    assert [one.id for one in await journals[1].threads(ThreadQuery())] == ["thread_1"]
    await asyncio.gather(*(one.close() for one in journals))
    with raw(url) as connection:
        (rows,) = connection.execute("SELECT count(*) FROM version").fetchone() or (0,)
    assert rows == 1


async def test_versions_of_the_tables(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(JournalError, match="open it once with drive=True"):
        await PostgresJournal(url, drive=False).open()
    async with opened(url) as journal:
        await make(journal)
    scripts = await asyncio.to_thread(postgres_database._migrations)
    broken = [*scripts, "CREATE TABLE extra (x int); DROP TABLE label; SELECT missing();"]
    monkeypatch.setattr(postgres_database, "_migrations", lambda: broken)
    with pytest.raises(JournalError, match="missing"):
        await PostgresJournal(url).open()
    monkeypatch.undo()
    async with opened(url) as journal:  # whole or not at all
        assert [info.id for info in await journal.threads(ThreadQuery())] == ["thread_1"]
    with raw(url) as connection:
        connection.execute("UPDATE version SET number = 99")
    for drive in (True, False):
        with pytest.raises(JournalTooNew, match="version 99"):
            await PostgresJournal(url, drive=drive).open()


async def test_a_schema_that_was_made_for_us_is_used(url: str) -> None:
    with raw(url) as connection:
        (path,) = connection.execute("SHOW search_path").fetchone() or ("",)
        connection.execute(f"CREATE SCHEMA {path}")
    async with opened(url) as journal:
        await make(journal)
    with raw(url) as connection:
        found = connection.execute(f"SELECT id FROM {path}.thread").fetchall()
    assert found == [("thread_1",)]


async def test_urls_that_cannot_be_opened(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "OPEN_SECONDS", 0.1)
    with pytest.raises(ConfigurationError, match='URL of the database.*parameter: "unknown"'):
        PostgresJournal("postgresql://host/x?unknown=1")
    for wrong in ("[::1/z", *(f"ann:s3{one}cret@host/x" for one in "@/%"), "a:s3?@cret@h/x"):
        for given in ((f"postgresql://{wrong}",), (url, f"postgresql://{wrong}")):
            with pytest.raises(ConfigurationError, match="URL of the (database|pooler)") as refused:
                Address(*given)
            assert "s3" not in str(refused.value)
            assert "cret" not in str(refused.value)
            assert refused.value.__context__ is None
    for wrong in ("host=h password=s3cret", "s3cret"):
        with pytest.raises(ConfigurationError, match="URL of the pooler") as refused:
            Address(url, wrong)
        assert "s3cret" not in str(refused.value)
    folder = server().folder
    for wrong, why in (
        (f"postgresql://ann:s3cret@/missing?host={folder}", 'role "ann" does not exist'),
        (f"postgresql://treadle:s3cret@/missing?host={folder}", '"missing" does not exist'),
        ("postgresql://ann:s3cret@/x?host=/nowhere", "No such file"),
        ("postgresql://ann:s3cret@127.0.0.1:1/x", "refused"),
    ):
        with pytest.raises(JournalError, match=why) as caught:
            await PostgresJournal(wrong).open()
        assert isinstance(caught.value, JournalUnavailable) == ("exist" not in why)
        assert "s3cret" not in f"{caught.value} {caught.value!r} {caught.value.__cause__}"
    with pytest.raises(JournalReadOnly, match="primary"):
        await PostgresJournal(f"{url}%20-cdefault_transaction_read_only%3Don").open()


async def test_a_database_in_another_encoding_is_refused() -> None:
    folder = server().folder
    with raw(server().url("public")) as connection:
        connection.execute("CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0")
    with pytest.raises(JournalError, match="stores texts as LATIN1"):
        await PostgresJournal(f"postgresql://treadle@/latin?host={folder}").open()


ODD = 'a\0b\1c\1\1\2\0"\\\u2028é😀'


async def test_any_text_is_kept(url: str) -> None:
    async with opened(url) as journal:
        metadata: dict[str, object] = {ODD: ODD}
        driver = await make(journal, ODD, owner=ODD, agent=ODD, metadata=metadata)
        begun = conversation(ODD, ODD, key=ODD)
        events = await driver.append(begun)
        await journal.enqueue(ODD, SendEntry("run_2", user_message(ODD), key=f"{ODD}2"))
        assert await journal.read(ODD, after=0) == events
        assert await journal.load(ODD) == driver.state
        assert await run_of_key(journal, ODD, ODD) == ODD
        assert await run_of_key(journal, ODD, f"{ODD}2") == "run_2"
        assert await run_of_key(journal, ODD, f"{ODD}3") is None
        (info,) = await journal.threads(ThreadQuery(owner=ODD, agent=ODD, metadata=metadata))
        assert (info.id, info.owner, info.metadata) == (ODD, ODD, metadata)
        assert info.title == " ".join(ODD.split())
        changes = await journal.changes(ChangeQuery(after="start", owner=ODD))
        assert {one.thread_id for one in changes.events} == {ODD}


async def test_a_write_that_fails_reaches_only_its_caller(url: str) -> None:
    async with opened(url) as journal:
        one, two = await make(journal), await make(journal, "thread_2")
        results = await asyncio.gather(
            one.append(conversation()),
            journal.create(thread("thread_1")),
            two.append(conversation()),
            return_exceptions=True,
        )
        assert [isinstance(result, JournalError) for result in results] == [False, True, False]
        for id in ("thread_1", "thread_2"):
            assert len(await journal.read(id, after=0)) == 7


async def test_a_thread_deleted_right_behind_its_append_leaves_no_row(url: str) -> None:
    async with opened(url) as journal:
        driver = await make(journal)
        await asyncio.gather(driver.append(conversation(key="k")), journal.delete("thread_1"))
    with raw(url) as connection:
        tables = connection.execute(
            "SELECT tablename FROM pg_tables WHERE schemaname = current_schema()"
        ).fetchall()
        assert len(tables) > 10
        for (table,) in tables:
            if table not in {"change", "version", "written"}:
                assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,), table


async def test_a_desk_waits_for_the_writer_that_took_the_smaller_number(url: str) -> None:
    async with opened(url) as journal, opened(url, drive=False) as other:
        await make(journal, "thread_1")
        start = (await journal.changes(ChangeQuery(after=""))).position
        with raw(url) as slow:
            slow.execute("BEGIN")
            slow.execute("INSERT INTO change (n, seq, type) VALUES (1, 0, 'thread.created')")
            await make(other, "thread_2")
            for reader in (journal, other):
                assert (await reader.changes(ChangeQuery(after=start))).events == []
                assert (await reader.changes(ChangeQuery(after=""))).position == start
            slow.execute("COMMIT")
        (late, early) = (await journal.changes(ChangeQuery(after=start))).events
        assert [late.thread_id, early.thread_id] == ["thread_1", "thread_2"]
        # A writer that is rolled back leaves a gap, which nothing waits for.
        with raw(url) as slow:
            slow.execute("BEGIN")
            slow.execute("INSERT INTO change (n, seq, type) VALUES (1, 0, 'thread.created')")
            slow.execute("ROLLBACK")
        await make(journal, "thread_3")
        (one,) = (await journal.changes(ChangeQuery(after=early.position))).events
        assert one.thread_id == "thread_3"


@pytest.mark.parametrize("idle", [True, False])
async def test_a_connection_that_is_lost_is_replaced(url: str, idle: bool) -> None:
    async with opened(url) as journal:
        driver = await make(journal)
        await driver.append(conversation()[:2])
        await journal.info("thread_1")
        end_session(url, writer_of(journal))
        for connection in list(journal._reading):
            end_session(url, connection)
        if idle:  # the lock is taken again before anything is written
            async with opened(url, drive=False) as other:
                await journal.info("thread_1")
                for _ in range(200):
                    if await other.is_driven():
                        break
                    await asyncio.sleep(0.01)
                assert await other.is_driven()
        await driver.append(conversation()[2:])
        assert len(await journal.read("thread_1", after=0)) == 7


async def test_one_that_lost_the_lock_meanwhile_writes_nothing(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "LOCK_SECONDS", 0.1)
    async with opened(url) as journal:
        driver = await make(journal)
        writer_of(journal).raw.close()
        async with opened(url, alone=True) as heir:
            with pytest.raises(JournalUnavailable, match="has begun to use") as caught:
                await driver.append(conversation())
            assert caught.value.retryable
            assert await heir.read("thread_1", after=0) == []


def lost(connection: PostgresConnection) -> None:
    connection.raw.close()
    raise psycopg.OperationalError("the connection is lost")


@pytest.mark.parametrize("when", ["before", "in doubt"])
async def test_a_commit_in_doubt_is_looked_up(
    url: str, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is written once, whether or not the server committed it before the connection broke."""
    original = PostgresConnection.transact_once
    left = 3

    def transact(self: PostgresConnection, write: Callable[[], Any], *, is_again: bool) -> Any:
        nonlocal left
        left -= 1
        if left < 0 or not isinstance(self, postgres._Writer):
            return original(self, write, is_again=is_again)
        if when == "before":

            def broken() -> None:
                write()
                lost(self)

            return original(self, broken, is_again=is_again)
        original(self, write, is_again=is_again)
        return lost(self)

    async with opened(url) as journal:
        driver = await make(journal)
        monkeypatch.setattr(PostgresConnection, "transact_once", transact)
        events = await driver.append(conversation())
        assert left == (-1 if when == "before" else 1)
        left = 1
        await journal.enqueue("thread_1", CancelEntry("run_1"))
        left = 1
        claim = await journal.claim("thread_1")
        assert claim.epoch == driver.claim.epoch + 1
        assert await journal.read("thread_1", after=0) == events
        assert len(await journal.inbox("thread_1")) == 1
        await Driver(journal, claim, driver.state).append(conversation("run_2"))


@pytest.fixture
def own_server() -> Iterator[Server]:
    one = new_server()
    yield one
    one.remove()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT], ids=["restart", "crash"])
async def test_a_restart_of_the_server_loses_and_doubles_nothing(
    own_server: Server, how: signal.Signals
) -> None:
    async with opened(own_server.url()) as journal:
        drivers = [await make(journal, f"thread_{n}") for n in range(20)]
        stop = False

        async def write(driver: Driver) -> list[RecordedEvent]:
            kept: list[RecordedEvent] = []
            while not stop:
                event = PassageRemoved(run_id="", passage_id=f"p{len(kept)}")
                kept += await driver.append([event])
            return kept

        async def ask() -> int:
            count = 0
            while not stop:
                await journal.enqueue("thread_0", CancelEntry(f"run_{count}"))
                count += 1
                await journal.info("thread_0")
            return count

        writing = [asyncio.create_task(write(driver)) for driver in drivers]
        asking = asyncio.create_task(ask())
        await asyncio.sleep(0.2)
        await asyncio.to_thread(own_server.stop, how)
        await asyncio.sleep(0.2)
        await asyncio.to_thread(own_server.start)
        await asyncio.sleep(0.5)
        stop = True
        kept = await asyncio.gather(*writing)
        count = await asking
        for driver, id in zip(drivers, range(20), strict=True):
            events: list[RecordedEvent] = []
            while page := await journal.read(f"thread_{id}", after=len(events)):
                events += page
            assert events == kept[id]
            assert len(events) == driver.state.seq
        asked = [waiting.entry for waiting in await journal.inbox("thread_0")]
        assert asked == [CancelEntry(f"run_{n}") for n in range(count)]


async def test_a_server_that_starts_later_is_waited_for(own_server: Server) -> None:
    own_server.stop()
    url = own_server.url()
    journal = PostgresJournal(url)
    opening = asyncio.create_task(journal.open())
    await asyncio.sleep(0.2)
    assert not opening.done()
    await asyncio.to_thread(own_server.start)
    await opening
    assert await journal.threads(ThreadQuery()) == []
    await journal.close()


async def test_a_server_that_stays_away_is_reported(
    own_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "AWAY_SECONDS", 0.3)
    async with opened(own_server.url()) as journal:
        drivers = [await make(journal, f"thread_{n}") for n in range(30)]
        own_server.stop()
        done = await asyncio.gather(
            journal.info("thread_1"),
            *(driver.append(conversation()) for driver in drivers),
            return_exceptions=True,
        )
        assert {type(result) for result in done} == {JournalUnavailable}
        await asyncio.to_thread(own_server.start)
        with pytest.raises(StaleWriter):  # what was refused leaves no gap
            await drivers[0].append(conversation())
        again = Driver(journal, await journal.claim("thread_0"))
        await again.append(conversation())
        assert len(await journal.read("thread_0", after=0)) == 7


async def test_a_process_that_stands_still_in_a_transaction_holds_nobody_up(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(postgres_database._SETTINGS, "idle_in_transaction_session_timeout", "300ms")
    async with opened(url) as journal:
        driver = await make(journal)
        frozen = await asyncio.to_thread(Address(url).connect)
        frozen.raw.execute("BEGIN")
        frozen.raw.execute("SELECT epoch FROM thread FOR SHARE")
        claim = await journal.claim("thread_1")  # waits until the server ends that session
        with pytest.raises(StaleWriter):
            await driver.append(conversation())
        assert claim.epoch == 2
        frozen.raw.close()


async def test_a_file_with_a_use_is_kept_while_others_end(url: str) -> None:
    """One process puts a content while another removes its last use."""
    content = b"x" * 5000
    info = FileInfo(file_id(content), "text/plain", len(content), "x.txt", 1.0)
    async with opened(url) as one, opened(url, drive=False) as two:
        for n in range(40):
            await one.files.put(info, content, owner="ann")
            await asyncio.gather(
                one.files.drop(info.id, owner="ann"),
                two.files.put(replace(info, name=f"{n}"), content, owner="bob"),
            )
            assert await one.files.content(info.id, owner="bob") == content
            await two.files.drop(info.id, owner="bob")
            assert await one.files.content(info.id) is None


async def test_many_rows_are_written_at_once(url: str) -> None:
    async with opened(url) as journal:
        driver = await make(journal)
        message = MessageAdded(run_id="r", item=user_message("hi" * 500), origin="user")
        entries = [Envelope(event, event.seq) for event in numbered([message] * 5000)]
        await journal.append(Batch(driver.claim, entries))
        assert await journal.last_seq("thread_1") == 5000
        assert len(await journal.read("thread_1", after=0, limit=10_000)) == 5000


async def test_the_tables_are_those_of_sqlite(url: str, path: Path) -> None:
    """A migration of one database needs its counterpart in the other.

    SQLite has one node, and a file of its own for the index of the archive.
    """
    sqlite = SqliteJournal(path)
    await sqlite.open()
    await sqlite.close()
    async with opened(url):
        pass
    with contextlib.closing(sqlite3.connect(path)) as database:
        wanted = {
            (table, column)
            for (table,) in database.execute(
                "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'"
            ).fetchall()
            for _, column, *_ in database.execute(f"PRAGMA table_info({table})").fetchall()
        }
    with raw(url) as connection:
        found = set(
            connection.execute(
                "SELECT table_name, column_name FROM information_schema.columns"
                " WHERE table_schema = current_schema()"
            ).fetchall()
        )
    extra = {("inbox", name) for name in ("type", "key", "run_id", "call_id", "identity")}
    only_here = {"node", "written", "permit", "access_key", "access_secret", "ended_session"}
    extra |= {(table, column) for table, column in found if table in only_here}
    extra |= {(table, column) for table, column in found if table.startswith("archive_")}
    extra |= {("version", "number"), ("thread", "node")}
    assert found - extra == wanted - {("file", "number")}
