"""What a database holds, read as any program could."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from chaos.database import Reading, reading
from treadle.domain.envelope import decode_events
from treadle.domain.events import RecordedEvent
from treadle.journal.base import Work
from treadle.journal.sql_connection import SEQ_BITS

_WORK = msgspec.json.Decoder(Work)


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
    with reading(database) as connection:
        for number, thread_id in connection.execute("SELECT n, id FROM thread").fetchall():
            yield _thread(connection, number, thread_id)


def _thread(connection: Reading, number: int, thread_id: str) -> StoredThread:
    def rows(query: str) -> list[tuple[Any, ...]]:
        return connection.execute(query, (number,)).fetchall()

    events = connection.execute(
        "SELECT CAST(body AS BLOB) FROM event"
        " WHERE position > ? AND position < ? ORDER BY position",
        (number << SEQ_BITS, (number + 1) << SEQ_BITS),
    )
    bodies = [bytes(body) for (body,) in events.fetchall()]
    (status,) = rows("SELECT status FROM activity WHERE n = ?")[0]
    runs = rows("SELECT id, status, first_seq, last_seq FROM run WHERE n = ?")
    keys = rows("SELECT key, run_id FROM sent WHERE n = ?")
    ((parent, work, owner, memory, key, forked_from),) = rows(
        "SELECT parent, work, owner, memory, key, forked_from FROM thread WHERE n = ?"
    )
    works_for = "" if work is None else _WORK.decode(work).call_id
    ((waiting,),) = rows("SELECT count(*) FROM inbox WHERE n = ?")
    return StoredThread(
        thread_id,
        bodies,
        decode_events(b"[" + b",".join(bodies) + b"]"),
        None if status is None else str(status),
        {str(id): (str(now), int(str(first)), int(str(last))) for id, now, first, last in runs},
        {str(key): str(run_id) for key, run_id in keys},
        int(str(waiting)),
        str(parent),
        works_for,
        str(owner),
        str(memory),
        str(key),
        str(forked_from),
    )
