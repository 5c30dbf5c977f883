"""The nodes of a PostgreSQL journal, and which of them has which thread."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import psycopg
import pytest
from tests.journal.story import Driver, conversation, make
from tests.postgres import server

from treadle.domain.entries import SendEntry
from treadle.domain.items import user_message
from treadle.errors import JournalClosed, JournalUnavailable, StaleWriter
from treadle.journal import postgres
from treadle.journal.postgres import PostgresJournal
from treadle.journal.postgres_nodes import Waiting

pytestmark = [pytest.mark.anyio, pytest.mark.real_clock, pytest.mark.needs("postgres")]


@pytest.fixture
def url() -> str:
    return server().url()


@contextlib.asynccontextmanager
async def opened(url: str, *, drive: bool = True) -> AsyncIterator[PostgresJournal]:
    journal = PostgresJournal(url, drive=drive)
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


def locks(url: str) -> list[int]:
    with raw(url) as connection:
        rows = connection.execute(
            "SELECT objid FROM pg_locks WHERE locktype = 'advisory'"
            " AND classid = 'node'::regclass ORDER BY objid"
        )
        return [int(number) for (number,) in rows.fetchall()]


async def test_a_node_has_a_lock_and_an_address(url: str) -> None:
    async with opened(url) as journal, opened(url, drive=False) as other:
        await make(journal)
        with pytest.raises(JournalClosed):
            await journal.nodes.set_address("127.0.0.1:1")
        await journal.nodes.join(["a"])
        node = journal.nodes.id
        assert node is not None
        assert locks(url) == [node]
        assert await other.nodes.nodes_of(["thread_1"]) == {}
        with raw(url) as connection:
            connection.execute("UPDATE thread SET node = %s", (node,))
        assert await other.nodes.addresses() == {node: ""}
        await journal.nodes.set_address("127.0.0.1:1")
        assert await other.nodes.addresses() == {node: "127.0.0.1:1"}
        assert await other.nodes.nodes_of(["thread_1", "thread_2"]) == {"thread_1": node}
        await journal.nodes.leave()
        await journal.nodes.leave()
        assert locks(url) == []
        assert await other.nodes.nodes_of(["thread_1"]) == {}  # the thread is free


async def test_a_lost_connection_takes_the_lock_of_its_node_again(url: str) -> None:
    async with opened(url) as journal:
        await journal.nodes.join([])
        assert journal._writing is not None
        with raw(url) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(%s)", (journal._writing.raw.info.backend_pid,)
            )
        await make(journal)
        assert locks(url) == [journal.nodes.id]


async def test_a_connection_for_notifications_that_was_lost_is_forgotten(url: str) -> None:
    async with opened(url) as journal:
        lost = asyncio.Event()
        listener = await journal.nodes.listen(lambda _: None, lost.set)
        assert listener._connection in journal._reading
        with raw(url) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(%s)", (listener._connection.raw.info.backend_pid,)
            )
        async with asyncio.timeout(10):
            await lost.wait()
        assert listener._connection not in journal._reading
        listener = await journal.nodes.listen(lambda _: None, lost.set)
        listener.close()
        listener.close()
        assert listener._connection not in journal._reading


async def test_a_server_that_goes_away_while_it_is_listened_to_is_an_error_of_the_journal(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "AWAY_SECONDS", 0.1)
    async with opened(url) as journal:
        fileno = psycopg.Connection.fileno

        def gone(connection: psycopg.Connection[Any]) -> int:
            connection.close()
            return fileno(connection)

        with monkeypatch.context() as patched:
            patched.setattr(psycopg.Connection, "fileno", gone)
            with pytest.raises(JournalUnavailable):
                await journal.nodes.listen(lambda _: None, lambda: None)
        assert not any(connection.raw.closed for connection in journal._reading)
        (await journal.nodes.listen(lambda _: None, lambda: None)).close()


async def test_a_refused_append_is_not_logged_by_the_driver(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(url) as one, opened(url) as two:
        older = await make(one)
        newer = Driver(two, await two.claim("thread_1"))
        await newer.append(conversation())
        with pytest.raises(StaleWriter):
            await older.append(conversation())
        await newer.append(conversation("run_2"))
    assert [record for record in caplog.records if record.name.startswith("psycopg")] == []


async def test_a_thread_is_taken_and_given_back_as_the_node_that_this_process_is_then(
    url: str,
) -> None:
    async with opened(url) as journal:
        for id in ("t1", "t2"):
            await make(journal, id)
        nodes = journal.nodes
        await nodes.join(["a"])
        assert await nodes.take("t1")
        with raw(url) as connection:
            connection.execute("DELETE FROM node")  # another one took this one for dead
        kept, is_taken, _ = await asyncio.gather(
            nodes.rejoin(["a"], ["t1"], []), nodes.take("t2"), nodes.release(["t1"])
        )
        assert (kept, is_taken) == (["t1"], True)
        assert await nodes.nodes_of(["t1", "t2"]) == {"t2": nodes.id}


async def test_a_look_finds_entries_and_a_sweep_all_that_is_unfinished(url: str) -> None:
    async with opened(url) as journal:
        driver = await make(journal)
        await driver.append(conversation())
        await journal.nodes.join(["a"])

        async def found(*, sweeps: bool) -> dict[str, bool]:
            seen = await journal.nodes.look(["a"], (), beats=False, sweeps=sweeps, limit=10)
            return {id: one.has_entries for id, one in seen.threads.items()}

        assert await found(sweeps=True) == {}
        with raw(url) as connection:
            connection.execute("UPDATE activity SET status = 'in_progress'")
        assert await found(sweeps=False) == {}
        assert await found(sweeps=True) == {"thread_1": False}
        await journal.enqueue("thread_1", SendEntry("run_9", user_message("hi")))
        assert await found(sweeps=False) == {"thread_1": True}
        assert await found(sweeps=True) == {"thread_1": True}
        with raw(url) as connection:  # a node without a lock ends, and what it had is found
            connection.execute("DELETE FROM inbox")
            connection.execute("INSERT INTO node (id) VALUES (99)")
        seen = await journal.nodes.look(["a"], (), beats=False, sweeps=False, limit=10)
        assert [node for node, _ in seen.suspects] == [99]
        seen = await journal.nodes.look(["a"], seen.suspects, beats=False, sweeps=False, limit=10)
        assert list(seen.dead) == [99]
        assert seen.threads == {"thread_1": Waiting(has_entries=False, agent="a")}


async def test_a_thread_that_another_node_is_taking_is_not_waited_for(url: str) -> None:
    async with opened(url) as journal:
        await make(journal)
        await journal.nodes.join(["a"])
        with raw(url) as other:
            other.execute("BEGIN")
            other.execute("UPDATE thread SET node = 1 WHERE id = 'thread_1'")
            async with asyncio.timeout(5):
                assert await journal.nodes.take("thread_1") is False
            other.execute("ROLLBACK")
        assert await journal.nodes.take("thread_1") is True


async def test_what_a_dead_node_still_appends_and_a_node_that_claims_do_not_wait_for_each_other(
    url: str,
) -> None:
    async with opened(url) as journal:
        for id in ("thread_1", "thread_2"):
            await make(journal, id)
        with raw(url) as dead:
            dead.execute("BEGIN")
            dead.execute("SELECT 1 FROM thread WHERE id = 'thread_1' FOR SHARE")
            claims = asyncio.gather(journal.claim("thread_2"), journal.claim("thread_1"))
            await asyncio.sleep(0.2)
            dead.execute("SET lock_timeout = '100ms'")
            dead.execute("SELECT 1 FROM thread WHERE id = 'thread_2' FOR SHARE")
            dead.execute("COMMIT")
        async with asyncio.timeout(5):
            assert [claim.epoch for claim in await claims] == [2, 2]


async def test_nodes_that_seize_threads_from_each_other_do_not_wait_for_their_appends(
    url: str,
) -> None:
    async with opened(url) as journal, opened(url) as other:
        await make(journal)
        for one in (journal, other):
            await one.nodes.join(["a"])
        assert await journal.nodes.take("thread_1")
        with raw(url) as held:  # the group that the node of the thread writes
            held.execute("BEGIN")
            held.execute("SELECT 1 FROM thread WHERE id = 'thread_1' FOR SHARE")
            seizing = asyncio.ensure_future(other.nodes.seize("thread_1"))
            await asyncio.sleep(0.2)
            async with asyncio.timeout(5):
                await make(other, "thread_2")  # appends of the node that seizes are not held up
            assert not seizing.done()
            held.execute("COMMIT")
        async with asyncio.timeout(5):
            await seizing
        assert await journal.nodes.nodes_of(["thread_1"]) == {"thread_1": other.nodes.id}
