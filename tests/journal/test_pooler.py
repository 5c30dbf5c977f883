"""A PostgreSQL database behind a pooler, whose sessions any transaction may get."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import psycopg
import pytest
from tests.journal.story import conversation, make
from tests.postgres import Pooler, pooler, server

import treadle
from treadle.domain.entries import SendEntry
from treadle.domain.items import user_message
from treadle.errors import ConfigurationError, JournalError, JournalUnavailable
from treadle.journal import postgres
from treadle.journal.base import ThreadQuery
from treadle.journal.postgres import PostgresJournal
from treadle.journal.postgres_database import _settings_in
from treadle.memory.archive.embedders import HashingEmbedder
from treadle.testing import ScriptedModel

pytestmark = [pytest.mark.anyio, pytest.mark.real_clock, pytest.mark.needs("pgbouncer")]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@asynccontextmanager
async def opened(
    url: str, pooler_url: str, *, drive: bool = True
) -> AsyncIterator[PostgresJournal]:
    journal = PostgresJournal(url, pooler=pooler_url, drive=drive)
    await journal.open()
    try:
        yield journal
    finally:
        await journal.close()


@contextmanager
def another(mode: str = "transaction", **settings: str) -> Iterator[Pooler]:
    one = Pooler(server(), mode, **settings)
    try:
        yield one
    finally:
        one.remove()


def count_sessions(connection: psycopg.Connection[tuple[int]]) -> int:
    """Returns how many connections to the server itself there are."""
    (count,) = connection.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
    ).fetchone() or (0,)
    return count


async def test_nodes_and_senders_behind_a_pooler_do_everything() -> None:
    url, behind = server().url(), pooler().url()
    agent = treadle.Agent(ScriptedModel(["The sea is blue."] * 20), name="a")

    def node() -> treadle.Runtime:
        embedder = HashingEmbedder()
        return treadle.open(
            url, agents=[agent], pooler=behind, embedder=embedder, max_runs_per_owner=2
        )

    with psycopg.connect(server().url("public"), autocommit=True) as connection:
        before = count_sessions(connection)
        async with (
            node() as one,
            node() as two,
            treadle.open(url, agents=[agent], pooler=behind, drive=False) as sender,
        ):
            threads = [await two.create_thread(agent, owner="ann") for _ in range(8)]
            senders = [await sender.connect(thread.id) for thread in threads]
            runs = await asyncio.gather(*(one.send("And the sky?") for one in senders))
            results = await asyncio.gather(*(run.result(timeout=30) for run in runs))
            assert {result.text for result in results} == {"The sea is blue."}
            await two.archive(owner="ann").insert("The sea is blue.")
            found = await one.archive(owner="ann").search("blue")
            assert found[0].text == "The sea is blue."
            await one.delete_owner("ann")
            assert await two.threads() == []
            # Two of each node, and those of the pooler.
            assert count_sessions(connection) - before <= 2 * 2 + 3
    # No session of the pool has kept anything.
    with psycopg.connect(behind, autocommit=True, prepare_threshold=None) as pooled:
        for _ in range(6):
            row = pooled.execute(
                "SELECT current_setting('search_path'), current_setting('jit'),"
                " (SELECT count(*) FROM pg_prepared_statements),"
                " (SELECT count(*) FROM pg_listening_channels()),"
                " (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
                "  AND pid = pg_backend_pid())"
            ).fetchone()
            assert row == ('"$user", public', "on", 0, 0, 0)


async def test_a_pooler_that_starts_again_is_a_pause() -> None:
    url = server().url()
    with another() as first:
        async with opened(url, first.url()) as node, opened(url, first.url(), drive=False) as other:
            await make(node)
            first.stop()
            reading = asyncio.create_task(node.threads(ThreadQuery()))
            sending = asyncio.create_task(other.last_seq("thread_1"))
            driver = await make(node, "thread_2")  # it writes meanwhile
            await driver.append(conversation())
            await asyncio.sleep(0.1)
            assert not reading.done()
            assert not sending.done()
            first.start()
            assert {one.id for one in await reading} == {"thread_1", "thread_2"}
            await sending
            await make(other, "thread_3")


async def test_what_is_sent_while_a_pooler_is_cut_off_is_stored_once() -> None:
    url = server().url()
    with another() as one:
        async with opened(url, one.url()) as node, opened(url, one.url(), drive=False) as sender:
            await make(node)
            sent: list[str] = []
            progress = asyncio.Semaphore(0)

            async def send(name: str) -> None:
                for n in range(30):
                    key = f"{name}{n}"
                    entry = SendEntry(run_id=key, item=user_message("hi"), key=key)
                    await sender.enqueue("thread_1", entry)
                    sent.append(key)
                    progress.release()

            sending = [asyncio.create_task(send(name)) for name in "abc"]
            for _ in range(4):
                for _ in range(15):
                    await progress.acquire()
                await asyncio.to_thread(one.stop)
                await asyncio.to_thread(one.start)
            await asyncio.gather(*sending)
            inbox = [waiting.entry for waiting in await node.inbox("thread_1")]
            keys = [entry.key for entry in inbox if isinstance(entry, SendEntry)]
            assert sorted(keys) == sorted(sent)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({}, "is a pooler; give the URL of the server itself"),
        ({"ignore_startup_parameters": "options"}, "ignores the options"),
    ],
)
async def test_a_pooler_in_place_of_the_server_is_refused(
    settings: dict[str, str], why: str
) -> None:
    with another(**settings) as one:
        for drive in (True, False):
            with pytest.raises(JournalError, match=why):
                await PostgresJournal(one.url(), drive=drive).open()


async def test_poolers_that_lead_elsewhere_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "OPEN_SECONDS", 0.2)
    url = server().url()
    with psycopg.connect(server().url("public"), autocommit=True) as connection:
        connection.execute("CREATE DATABASE elsewhere TEMPLATE template0")
    with pytest.raises(ConfigurationError, match="does not lead to the database 'postgres'"):
        await PostgresJournal(url, pooler=pooler().url("elsewhere")).open()
    with pytest.raises(JournalError, match="does not exist"):
        await PostgresJournal(url, pooler=pooler().url("missing")).open()
    with pytest.raises(JournalError, match="no such user|authentication failed") as caught:
        await PostgresJournal(url, pooler=pooler().url(user="nobody:s3cret")).open()
    assert "s3cret" not in str(caught.value)
    with pytest.raises(JournalUnavailable, match="/nowhere"):
        await PostgresJournal(url, pooler="postgresql://treadle@/postgres?host=/nowhere").open()
    with another("statement") as one, pytest.raises(JournalError, match="statement pooling"):
        await PostgresJournal(url, pooler=one.url()).open()


def test_urls_of_poolers() -> None:
    with pytest.raises(ConfigurationError, match="URL of the pooler"):
        PostgresJournal("postgresql://h/x", pooler="postgresql://[::1/z")
    for url in (None, "sqlite:///x.db"):
        with pytest.raises(ConfigurationError, match="A pooler is for a PostgreSQL database"):
            treadle.open(url, pooler="postgresql://h/x")


def test_options_of_a_url_as_settings() -> None:
    options = r"-c tcp_keepalives_idle=5 -c jit=off -csearch_path=my\ \"own\" --lock-timeout=1s"
    assert _settings_in(options) == {
        "jit": "off",
        "search_path": 'my "own"',
        "lock_timeout": "1s",
    }
