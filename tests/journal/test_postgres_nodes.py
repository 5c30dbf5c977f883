"""The nodes of a PostgreSQL journal, and which of them has which thread."""

import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import psycopg
import pytest
from tests.journal.story import make
from tests.postgres import server

from treadle.errors import JournalClosed
from treadle.journal.postgres import PostgresJournal

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
