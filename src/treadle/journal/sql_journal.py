"""What the journals in SQL have in common: one thread writes in groups, some threads read.

The events of a thread are stored next to each other and never rewritten. A page of events is read
as one JSON array: a driver of a database in C releases the interpreter lock for every row it
fetches, and has to win it back from a busy event loop each time.

Each thread has its own connection. All of it happens in threads, because a fold of many events
would hold up the event loop, and so that both databases are used in the same way.
"""

import asyncio
import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any, TypeVar, cast

import msgspec

from treadle.domain.cursor import cursor
from treadle.domain.desk import owner_mark
from treadle.domain.entries import Entry, is_newer_entry
from treadle.domain.envelope import Envelope, decode_events
from treadle.domain.events import RecordedEvent
from treadle.domain.fold import apply
from treadle.domain.history import HistoryUnread
from treadle.domain.page import Page
from treadle.domain.schedules import Schedule
from treadle.domain.spending import Spending, slot_of
from treadle.domain.state import ThreadState
from treadle.errors import (
    InvalidTransition,
    JournalClosed,
    JournalCorrupt,
    ThreadDamaged,
)
from treadle.journal import sql_writes as writes
from treadle.journal.base import (
    Batch,
    CallQuery,
    ChangeQuery,
    Changes,
    Claim,
    Direction,
    Due,
    DuePlace,
    Fork,
    ThreadInfo,
    ThreadMark,
    ThreadQuery,
    Unfinished,
    Waiting,
    WaitingCall,
    Work,
    not_found,
)
from treadle.journal.files import FileStore, NewFile
from treadle.journal.group_commit import GroupCommit
from treadle.journal.projection import DueKind, Projection, RunRecord, Sent
from treadle.journal.pulse import Pulse
from treadle.journal.snapshot import decode_snapshot
from treadle.journal.sql_changes import read_changes
from treadle.journal.sql_connection import SEQ_BITS, Connection
from treadle.journal.sql_files import SqlFiles
from treadle.journal.sql_lists import (
    COLUMNS,
    DUE,
    DUE_OF_OWNER,
    SPENDING,
    UNFINISHED,
    key_of,
    select_threads,
)
from treadle.journal.sql_runs import find_run, list_calls, list_open_runs, list_runs
from treadle.logging import logger_of

T = TypeVar("T")

_LOGGER = logger_of("treadle.runtime")
_DAMAGED = (
    "An entry in the inbox of %s cannot be read, and is set aside; Thread.repair() or treadle "
    "repair removes it."
)
_NEWER = "An entry in the inbox of %s is of a newer version of treadle, and waits for it."

LAST_SEQ = (1 << SEQ_BITS) - 1
LOAD_PAGE = 1000

_WORK = msgspec.json.Decoder(Work)
_SCHEDULE = msgspec.json.Decoder(Schedule)
_ENTRY = msgspec.json.Decoder(Entry)

_INFO = f"SELECT {COLUMNS} FROM thread t JOIN activity a ON a.n = t.n"  # noqa: S608 - of constants
_PAGE = """
    SELECT CAST(one.page AS BLOB) FROM (
        SELECT '[' || coalesce(group_concat(each.body, ','), '') || ']' AS page FROM (
            SELECT CAST(body AS TEXT) AS body FROM event
            WHERE position > ? AND position <= ? ORDER BY position LIMIT ?
        ) AS each) AS one
"""
# The end of a thread's events is found without reading the others.
_LAST_SEQ = """
    SELECT coalesce(max(position), 0) & ? FROM event
    WHERE position > t.n << ? AND position < (t.n + 1) << ?
"""
_MARKS = f"SELECT t.id, t.owner, t.n, ({_LAST_SEQ}), t.parent FROM thread t"  # noqa: S608 - of constants
MARKS_OF_OWNER = f"{_MARKS} WHERE t.owner = ?"


class SqlJournal(ABC):
    """Fulfils `Journal` with the tables of a SQL database, except for opening and closing it."""

    def __init__(self, name: str, sweep: float) -> None:
        self._name = name
        self._pulse = Pulse(sweep)
        self._local = threading.local()
        self._damaged: set[int] = set()  # entries of inboxes that cannot be read here
        self._readers: ThreadPoolExecutor | None = None
        self._writer: GroupCommit[Batch | writes.Change] | None = None
        self.files: FileStore = SqlFiles(self._read, self._write, self._on_removed)

    @property
    def is_shared(self) -> bool:
        """Other processes can open the database with `drive=False`."""
        return True

    @property
    def has_nodes(self) -> bool:
        """One process at a time drives the threads, unless an adapter is for more."""
        return False

    @property
    def pulse(self) -> Pulse:
        """Beats when something was committed through this adapter."""
        return self._pulse

    @abstractmethod
    def _typed_errors(self) -> AbstractContextManager[None]:
        """Converts the errors of the database to errors of treadle."""

    @abstractmethod
    def _connect(self) -> Connection:
        """Opens a connection for a thread that reads."""

    @abstractmethod
    async def _on_removed(self) -> None:
        """Is called after content was removed, when that is durable."""

    def _write_with(self, connection: Connection) -> None:
        """Begins to accept writes."""
        commit = writes.Transactions(connection, self._typed_errors).commit
        self._writer = GroupCommit(commit, self._pulse.beat)

    # Writes

    async def create(
        self,
        info: ThreadInfo,
        entries: Sequence[Envelope] = (),
        projection: Projection | None = None,
        files: Sequence[NewFile] = (),
    ) -> Claim:
        """Adds a thread with its first events, and claims it."""
        create = writes.create(info, entries, projection, files)
        return writes.require_claim(await self._write(create))

    async def claim(self, thread_id: str) -> Claim:
        """Takes a thread over: older claims are refused from now on."""
        return writes.require_claim(await self._write(writes.claim(thread_id)))

    def append(self, batch: Batch) -> "asyncio.Future[None]":
        """Appends a batch, whole or not at all, in one transaction with other waiting writes."""
        return cast("asyncio.Future[None]", self._write(batch))

    async def snapshot(self, claim: Claim, state: ThreadState) -> None:
        """Keeps the fold of the events so far, so that `load` starts from it."""
        await self._write(writes.snapshot(claim, state))

    async def snapshot_seq(self, thread_id: str) -> int:
        """Returns the number of the last event in the newest snapshot."""

        def read(connection: Connection) -> int:
            number = writes.number_of(connection, thread_id)
            sql = "SELECT coalesce(max(seq), 0) FROM snapshot WHERE n = ?"
            return connection.execute(sql, (number,)).fetchone()[0]

        return await self._read(read)

    async def redact(
        self,
        claim: Claim,
        events: Sequence[RecordedEvent],
        *,
        clears_title: bool,
        files: Sequence[str] = (),
    ) -> None:
        """Stores events in place of those with their numbers, and drops all snapshots."""
        await self._write(writes.redact(claim, events, clears_title=clears_title, files=files))
        await self._on_removed()

    async def enqueue(self, thread_id: str, entry: Entry) -> None:
        """Puts an entry into the inbox of a thread, unless it was sent or answered before."""
        await self._write(writes.enqueue(thread_id, entry))

    async def discard(self, numbers: Sequence[int]) -> None:
        """Removes entries of inboxes that have no effect."""
        await self._write(writes.discard(numbers))

    async def fork(self, fork: Fork) -> None:
        """Adds a thread with a copy of the first events of another."""
        await self._write(writes.fork(fork))

    async def delete(self, thread_id: str, *, due: Due | None = None) -> bool:
        """Removes a thread and everything that belongs to it."""
        is_removed = bool(await self._write(writes.delete(thread_id, due)))
        if is_removed:
            await self._on_removed()
        return is_removed

    def _write(self, write: Batch | writes.Change) -> asyncio.Future[object]:
        if self._writer is None:
            raise JournalClosed("The journal is not open.")
        return self._writer.put(write)

    async def change(self, change: Callable[[Connection], None]) -> None:
        """Changes the database by a function, in a transaction of its own or of a group."""
        await self._write(writes.Change(change))

    # Reads

    async def info(self, thread_id: str) -> ThreadInfo:
        """Returns a thread as lists show it."""

        def read(connection: Connection) -> ThreadInfo:
            row = connection.execute(f"{_INFO} WHERE t.id = ?", (thread_id,)).fetchone()
            if row is None:
                raise not_found(thread_id)
            return _info(row)

        return await self._read(read)

    async def threads(self, query: ThreadQuery) -> Page[ThreadInfo]:
        """Returns a page of threads."""

        def read(connection: Connection) -> Page[ThreadInfo]:
            statement = select_threads(connection, query)
            rows = connection.execute(statement.sql, statement.values).fetchall()
            page = rows[: query.limit] if query.limit >= 0 else rows
            has_more = len(page) < len(rows)
            after = cursor(query.order, *key_of(page[-1])) if page and has_more else ""
            return Page([_info(row[:-2]) for row in page], after)

        return await self._read(read)

    async def marks(self, *, owner: str | None) -> list[ThreadMark]:
        """Returns the last event of each thread."""

        def read(connection: Connection) -> list[ThreadMark]:
            sql, values = (_MARKS, ()) if owner is None else (MARKS_OF_OWNER, (owner,))
            rows = connection.execute(sql, (LAST_SEQ, SEQ_BITS, SEQ_BITS, *values))
            return [ThreadMark(*row) for row in rows.fetchall()]

        return await self._read(read)

    async def load(self, thread_id: str, *, at: int | None = None) -> ThreadState:
        """Returns the fold of all events, or of the first `at`; starts from a snapshot."""
        # In one transaction, so that a deletion or a new snapshot cannot fall between two reads.
        return await self._read(lambda c: c.at_once(lambda: _fold(c, thread_id, at)))

    async def head(self, thread_id: str) -> ThreadState:
        """Returns the fold of all events, perhaps without the items of the newest snapshot."""

        def read(connection: Connection) -> ThreadState:
            try:
                return _fold(connection, thread_id, None, is_whole=False)
            except HistoryUnread:  # an event since then has to do with them
                return _fold(connection, thread_id, None)

        return await self._read(lambda connection: connection.at_once(lambda: read(connection)))

    async def read(
        self, thread_id: str, *, after: int, until: int | None = None, limit: int = 500
    ) -> list[RecordedEvent]:
        """Returns events with `after < seq <= until`."""
        last = until if until is not None else LAST_SEQ

        def read(connection: Connection) -> list[RecordedEvent]:
            number = writes.number_of(connection, thread_id)
            return _events(connection, number, after, last, limit)

        return await self._read(read)

    async def last_seq(self, thread_id: str) -> int:
        """Returns the number of the last event."""

        def read(connection: Connection) -> int:
            row = connection.execute(
                f"SELECT ({_LAST_SEQ}) FROM thread t WHERE t.id = ?",  # noqa: S608 - of constants
                (LAST_SEQ, SEQ_BITS, SEQ_BITS, thread_id),
            ).fetchone()
            if row is None:
                raise not_found(thread_id)
            return row[0]

        return await self._read(read)

    async def stored(self, thread_id: str, *, after: int, limit: int = 500) -> dict[int, bytes]:
        """Returns events as they are stored, by their numbers, even if they cannot be read."""

        def read(connection: Connection) -> dict[int, bytes]:
            number = writes.number_of(connection, thread_id)
            return _stored(connection, number, after, LAST_SEQ, limit)

        return await self._read(read)

    async def run(self, thread_id: str, run_id: str) -> RunRecord | None:
        """Returns the record of a run, or None."""

        def read(connection: Connection) -> RunRecord | None:
            writes.number_of(connection, thread_id)
            return find_run(connection, run_id, None, thread_id, inbox=False)

        return await self._read(read)

    async def find_run(
        self, run_id: str, *, owner: str | None = None, thread_id: str = ""
    ) -> RunRecord | None:
        """Returns the record of a run, or None: of any thread, of an owner's, or of one thread."""
        return await self._read(lambda c: find_run(c, run_id, owner, thread_id, inbox=True))

    async def sent(self, thread_id: str, key: str, *, inbox: bool = True) -> Sent | None:
        """Returns what was sent with this key, consumed or waiting."""

        def read(connection: Connection) -> Sent | None:
            number = writes.number_of(connection, thread_id)
            return writes.sent(connection, number, key, inbox=inbox) if key else None

        return await self._read(read)

    async def runs(
        self, thread_id: str, *, limit: int = -1, after: str = "", order: Direction = "asc"
    ) -> Page[RunRecord]:
        """Returns a page of the runs of a thread, by their first events."""

        def read(connection: Connection) -> Page[RunRecord]:
            number = writes.number_of(connection, thread_id)
            return list_runs(connection, number, thread_id, limit, after, order)

        return await self._read(read)

    async def open_runs(self, thread_id: str) -> list[RunRecord]:
        """Returns the runs of a thread that have not ended, by their first events."""

        def read(connection: Connection) -> list[RunRecord]:
            return list_open_runs(connection, writes.number_of(connection, thread_id))

        return await self._read(read)

    async def calls(self, query: CallQuery) -> Page[WaitingCall]:
        """Returns a page of the calls that wait for an answer."""

        def read(connection: Connection, newest: int) -> Page[WaitingCall]:
            page = list_calls(connection, query)
            return Page(page, page.next, str(newest))

        return await self._read(
            lambda connection: connection.at_newest(lambda newest: read(connection, newest))
        )

    async def changes(self, query: ChangeQuery) -> Changes:
        """Returns events of all threads behind a position."""

        return await self._read(
            lambda connection: connection.at_newest(
                lambda newest: read_changes(connection, query, newest)
            )
        )

    async def inbox(self, thread_id: str) -> list[Waiting]:
        """Returns the waiting entries, in order."""

        def read(connection: Connection) -> list[Waiting]:
            number = writes.number_of(connection, thread_id)
            waiting: list[Waiting] = []
            for at, body in _inbox(connection, number):
                entry = _entry(body)
                if entry is not None:
                    waiting.append(Waiting(at, entry))
                elif at not in self._damaged:
                    self._damaged.add(at)
                    _LOGGER.warning(_NEWER if is_newer_entry(body) else _DAMAGED, thread_id)
            return waiting

        return await self._read(read)

    async def damaged_entries(self, thread_id: str) -> dict[int, bytes]:
        """Returns the entries of an inbox that cannot be read, as they are stored."""

        def read(connection: Connection) -> dict[int, bytes]:
            number = writes.number_of(connection, thread_id)
            inbox = _inbox(connection, number)
            return {at: body for at, body in inbox if _entry(body) is None}

        return await self._read(read)

    async def waiting_threads(self) -> list[str]:
        """Returns the threads with entries in their inboxes that can be read."""
        damaged = list(self._damaged)

        def read(connection: Connection) -> list[str]:
            rows = connection.execute(
                "SELECT id FROM thread WHERE n IN (SELECT DISTINCT n FROM inbox"
                " WHERE NOT number IN (SELECT value FROM json_each(?)))",
                (connection.array(damaged),),
            )
            return [id for (id,) in rows.fetchall()]

        return await self._read(read)

    async def unfinished(self) -> list[Unfinished]:
        """Returns the threads with a run that waits or has not ended, or with open jobs."""

        def read(connection: Connection) -> list[Unfinished]:
            rows = connection.execute(UNFINISHED)
            return [Unfinished(*row) for row in rows.fetchall()]

        return await self._read(read)

    async def due(
        self,
        *,
        limit: int,
        after: DuePlace | None = None,
        kind: DueKind | None = None,
        owner: str | None = None,
    ) -> list[Due]:
        """Returns due times, the earliest first."""
        place = after or (-math.inf, "", "", 0)

        def read(connection: Connection) -> list[Due]:
            if owner is None:
                rows = connection.execute(DUE, (*place, kind, limit))
            else:
                rows = connection.execute(DUE_OF_OWNER, (*place, kind, owner, limit))
            return [_due(row) for row in rows.fetchall()]

        return await self._read(read)

    async def spending(self, owner: str, *, since: float, until: float) -> Spending:
        """Returns what an owner has spent from `since` to before `until`."""
        values = (owner_mark(owner), slot_of(since), slot_of(until))
        return await self._read(
            lambda connection: Spending(*connection.execute(SPENDING, values).fetchone())
        )

    async def _read(self, read: Callable[[Connection], T]) -> T:
        return await self._in_reader(lambda: self._work(read))

    async def _in_reader(self, work: Callable[[], T]) -> T:
        if self._readers is None:
            raise JournalClosed("The journal is not open.")
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._readers, work)

    def _work(self, read: Callable[[Connection], T]) -> T:
        with self._typed_errors():
            try:
                return read(self._reader())
            except (msgspec.DecodeError, UnicodeDecodeError, InvalidTransition) as error:
                raise JournalCorrupt(
                    f"{self._name} contains data that treadle cannot read ({error}); "
                    "restore a backup."
                ) from error

    def _reader(self) -> Connection:
        connection: Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = self._connect()
        return connection


def _inbox(connection: Connection, number: int) -> list[tuple[int, bytes]]:
    return connection.execute(
        "SELECT number, CAST(body AS BLOB) FROM inbox WHERE n = ? ORDER BY number", (number,)
    ).fetchall()


def _entry(body: bytes) -> Entry | None:
    try:
        return _ENTRY.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _events(
    connection: Connection, number: int, after: int, until: int, limit: int
) -> list[RecordedEvent]:
    # Clamped, because positions outside this range belong to other threads.
    after, until = max(after, 0), min(until, LAST_SEQ)
    if after >= until:
        return []
    start = number << SEQ_BITS
    while True:
        try:
            (page,) = connection.execute(_PAGE, (start | after, start | until, limit)).fetchone()
            events = decode_events(page)
        except connection.too_long:
            if limit == 1:
                raise
            limit //= 2  # the page is longer than the longest text that the database allows
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            stored = _stored(connection, number, after, until, limit)
            seq = next((seq for seq, body in stored.items() if not _is_readable(body)), after + 1)
            raise _damaged(connection, number, seq, f"{error}") from error
        else:
            for seq, event in enumerate(events, after + 1):
                if event.seq != seq:
                    raise _damaged(connection, number, seq, "the event is missing")
            return events


def _stored(
    connection: Connection, number: int, after: int, until: int, limit: int
) -> dict[int, bytes]:
    start = number << SEQ_BITS
    rows = connection.execute(
        "SELECT position - ?, CAST(body AS BLOB) FROM event"
        " WHERE position > ? AND position <= ? ORDER BY position LIMIT ?",
        (start, start | after, start | until, limit),
    )
    return dict(rows.fetchall())


def _is_readable(body: bytes) -> bool:
    try:
        return len(decode_events(b"[" + body + b"]")) == 1
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False


def _fold(
    connection: Connection, thread_id: str, at: int | None, *, is_whole: bool = True
) -> ThreadState:
    number = writes.number_of(connection, thread_id)
    state = _snapshot(connection, number, at, is_whole=is_whole)
    last = at if at is not None else LAST_SEQ
    while events := _events(connection, number, state.seq, last, LOAD_PAGE):
        for event in events:
            state = _applied(connection, number, state, event)
    return state


def _applied(
    connection: Connection, number: int, state: ThreadState, event: RecordedEvent
) -> ThreadState:
    try:
        return apply(state, event)
    except InvalidTransition as error:
        raise _damaged(connection, number, event.seq, error.message) from error


def _damaged(connection: Connection, number: int, seq: int, why: str) -> ThreadDamaged:
    row = connection.execute("SELECT id FROM thread WHERE n = ?", (number,)).fetchone()
    id = row[0] if row is not None else ""
    return ThreadDamaged(
        f"Event {seq} of {id} contains data that treadle cannot read ({why}); print the thread "
        "with treadle show, use its methods export(), repair() or delete(), or restore a backup.",
        thread_id=id,
        seq=seq,
    )


def _snapshot(
    connection: Connection, number: int, at: int | None, *, is_whole: bool
) -> ThreadState:
    last = at if at is not None else LAST_SEQ
    row = connection.execute(
        "SELECT head FROM snapshot WHERE n = ? AND seq <= ? ORDER BY seq DESC LIMIT 1",
        (number, last),
    ).fetchone()
    if row is None:
        return ThreadState()
    chunks = None
    if is_whole:
        (chunks,) = connection.execute(
            "SELECT CAST(one.page AS BLOB) FROM ("
            "SELECT '[' || coalesce(group_concat(each.items, ','), '') || ']' AS page FROM ("
            "SELECT CAST(items AS TEXT) AS items FROM history WHERE n = ? ORDER BY first"
            ") AS each) AS one",
            (number,),
        ).fetchone()
    try:
        return decode_snapshot(row[0], chunks)
    except (msgspec.DecodeError, UnicodeDecodeError, TypeError):
        return ThreadState()  # a damaged snapshot is not used: all of it follows from the events


def _due(row: tuple[Any, ...]) -> Due:
    at, number, thread_id, kind, id, body = row
    schedule = None if body is None else _SCHEDULE.decode(body)
    return Due(at=at, number=number, thread_id=thread_id, kind=kind, id=id, schedule=schedule)


def _info(row: tuple[Any, ...]) -> ThreadInfo:
    id, agent, owner, metadata, title, status, created_at, updated_at = row[:8]
    forked_from, work, memory, key, key_digest, expires_at, store = row[8:]
    return ThreadInfo(
        id=id,
        agent=agent,
        owner=owner,
        metadata=writes.decode_metadata(metadata),
        title=title,
        status=status,
        created_at=created_at,
        updated_at=updated_at,
        forked_from=forked_from,
        work=_WORK.decode(work) if work is not None else None,
        memory=memory,
        key=key,
        key_digest=key_digest,
        expires_at=expires_at,
        store=bool(store),
    )
