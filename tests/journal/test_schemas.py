"""Databases of all versions before this one open, and have what they had."""

import asyncio
import sqlite3
from pathlib import Path

import pytest
from tests.journal.schema_file import SCHEMAS
from tests.journal.story import Driver, conversation, run_of_key

from treadle.errors import JournalError
from treadle.journal import sqlite_file
from treadle.journal.base import CallQuery, ChangeQuery, ThreadQuery
from treadle.journal.sqlite import SqliteJournal

pytestmark = [pytest.mark.anyio, pytest.mark.real_clock]

NEWEST = len(sqlite_file._migrations())


def restore(version: int, path: Path) -> None:
    """Makes the database that `schema_file` wrote with that version."""
    with sqlite3.connect(path) as connection:
        connection.executescript((SCHEMAS / f"v{version}.sql").read_text(encoding="utf-8"))
    connection.close()


def schema(path: Path) -> list[tuple[object, ...]]:
    """The tables with their columns, and the indexes with theirs."""
    with sqlite3.connect(path) as connection:
        names = connection.execute(
            "SELECT type, name FROM sqlite_master WHERE name NOT LIKE 'sqlite%' ORDER BY name"
        ).fetchall()
        return [
            (name, *connection.execute(f"PRAGMA {kind}_xinfo('{name}')").fetchall())
            for kind, name in names
        ]


def test_there_is_a_file_of_each_version_before_this_one() -> None:
    versions = {int(path.stem.removeprefix("v")) for path in SCHEMAS.glob("v*.sql")}
    assert versions >= set(range(1, NEWEST)), "run python -m tests.journal.schema_file before"


@pytest.mark.parametrize("version", range(1, NEWEST))
async def test_a_database_of_an_older_version(version: int, path: Path) -> None:
    await asyncio.to_thread(restore, version, path)
    watching = SqliteJournal(path, drive=False)
    with pytest.raises(JournalError, match="older treadle"):
        await watching.open()
    fresh = SqliteJournal(path.with_name("fresh.db"))
    await fresh.open()
    await fresh.close()
    journal = SqliteJournal(path)
    await journal.open()
    try:
        assert await asyncio.to_thread(schema, path) == await asyncio.to_thread(
            schema, path.with_name("fresh.db")
        )
        waiting, failed, fork, first = await journal.threads(ThreadQuery(order="-created"))
        assert [waiting.status, failed.status, fork.status, first.status] == [
            "requires_action",
            "failed",
            "cancelled",
            "completed",
        ]
        (ticket,) = await journal.threads(
            ThreadQuery(metadata={"ticket": "T-1"}, status=["completed"])
        )
        assert (ticket.owner, ticket.agent, ticket.title) == ("ann", "clerk", "hi")
        (number,) = await journal.threads(ThreadQuery(metadata={"n": 3}, agent="clerk"))
        assert number == waiting
        assert failed.owner == "bob"
        assert first == ticket
        assert fork.forked_from == first.id
        (unfinished,) = await journal.unfinished()
        assert (unfinished.thread_id, unfinished.status) == (waiting.id, "requires_action")
        (call,) = await journal.calls(CallQuery(owner="bob"))
        assert (call.thread_id, call.tool, call.arguments) == (waiting.id, "pay", {"euros": 5})
        assert (call.awaits, call.agent) == ("approval", "clerk")
        # Databases before version 7 did not keep when a run was queued.
        runs = await journal.runs(waiting.id)
        queued, begun = sorted(runs, key=lambda run: run.status == "requires_action")
        assert (queued.status, begun.status) == ("queued", "requires_action")
        assert call.run_id == begun.id
        (broken,) = await journal.runs(failed.id)
        assert (broken.stop_reason, broken.error and broken.error.code) == (
            "failed",
            "unexpected_request",
        )
        assert broken.started_at is not None
        assert broken.ended_at is not None
        assert 0 <= broken.ended_at - broken.started_at < 60
        (done, _) = await journal.runs(ticket.id)
        assert done == await journal.find_run(done.id)
        assert (done.usage.requests, done.stop_reason) == (1, "end_turn")
        if version < 9:  # before, there was no desk
            changes = await journal.changes(ChangeQuery(after="start"))
            assert (changes.events, changes.position) == ([], "0")
        assert await run_of_key(journal, ticket.id, "hi") is not None
        assert await journal.waiting_threads() == [ticket.id]
        state = await journal.load(ticket.id)
        assert [item.text for item in state.history] == ["hi", "hello", "and again", "again"]  # type: ignore[union-attr]
        driver = Driver(journal, await journal.claim(ticket.id), state)
        await driver.append(conversation("run_new"))
        assert (await journal.info(ticket.id)).status == "completed"
    finally:
        await journal.close()
