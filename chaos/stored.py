"""What a database holds, read as any program could."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from treadle.domain.envelope import decode_events
from treadle.domain.events import RecordedEvent
from treadle.journal.sql_connection import SEQ_BITS


@dataclass(frozen=True)
class StoredThread:
    """A thread: its events as they are stored, and the rows that answer queries about it.

    `runs` holds status, first and last event of each run, `keys` the run of each key. `parent` is
    the thread for which its agent works, if that is why the thread is there, and `works_for` the
    call, if it is one. `memory` is its name where it is a shared memory. `key` is that of the
    caller, and `forked_from` the thread of which it is a copy.
    """

    id: str
    bodies: list[bytes]
    events: list[RecordedEvent]
    status: str | None
    runs: dict[str, tuple[str, int, int]]
    keys: dict[str, str]
    waiting: int
    parent: str
    works_for: str
    owner: str
    memory: str
    key: str
    forked_from: str


def stored_threads(database: Path) -> Iterator[StoredThread]:
    """Yields every thread of a database."""
    with closing(sqlite3.connect(database)) as connection:
        for number, thread_id in connection.execute("SELECT n, id FROM thread").fetchall():
            yield _thread(connection, number, thread_id)


def damage(database: Path) -> str:
    """Returns what SQLite finds wrong with the file, or nothing."""
    with closing(sqlite3.connect(database)) as connection:
        (found,) = connection.execute("PRAGMA integrity_check").fetchone()
    return "" if found == "ok" else str(found)


def _thread(connection: sqlite3.Connection, number: int, thread_id: str) -> StoredThread:
    def rows(query: str) -> list[tuple[object, ...]]:
        return connection.execute(query, {"n": number}).fetchall()

    events = connection.execute(
        "SELECT body FROM event WHERE position > ? AND position < ? ORDER BY position",
        (number << SEQ_BITS, (number + 1) << SEQ_BITS),
    )
    bodies = [bytes(body) for (body,) in events]
    (status,) = rows("SELECT status FROM activity WHERE n = :n")[0]
    runs = rows("SELECT id, status, first_seq, last_seq FROM run WHERE n = :n")
    keys = rows("SELECT key, run_id FROM sent WHERE n = :n")
    ((parent, works_for, owner, memory, key, forked_from),) = rows(
        "SELECT parent, coalesce(CAST(work AS TEXT) ->> '$.call_id', ''), owner, memory,"
        " key, forked_from FROM thread WHERE n = :n"
    )
    ((waiting,),) = rows("SELECT count(*) FROM inbox WHERE n = :n")
    return StoredThread(
        thread_id,
        bodies,
        decode_events(b"[" + b",".join(bodies) + b"]"),
        None if status is None else str(status),
        {str(id): (str(now), int(str(first)), int(str(last))) for id, now, first, last in runs},
        {str(key): str(run_id) for key, run_id in keys},
        int(str(waiting)),
        str(parent),
        str(works_for),
        str(owner),
        str(memory),
        str(key),
        str(forked_from),
    )
