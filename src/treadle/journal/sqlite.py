"""The journal in a SQLite database: one thread writes in groups, two threads read.

The events of a thread are stored next to each other and never rewritten. A page of events is read
as one JSON array: sqlite3 releases the interpreter lock for every row it fetches, and has to win it
back from a busy event loop each time.

The database has a write-ahead log (https://sqlite.org/wal.html): readers see the last commit and
neither wait for the writer nor hold it up. Each thread has its own connection.
"""

import asyncio
import math
import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar, cast

import msgspec

from treadle.domain.cursor import cursor
from treadle.domain.desk import owner_mark
from treadle.domain.entries import Entry
from treadle.domain.envelope import Envelope, decode_events
from treadle.domain.events import RecordedEvent
from treadle.domain.fold import apply
from treadle.domain.page import Page
from treadle.domain.schedules import Schedule
from treadle.domain.spending import Spending, slot_of
from treadle.domain.state import ThreadState
from treadle.errors import (
    InvalidTransition,
    JournalClosed,
    JournalCorrupt,
    JournalError,
    ThreadDamaged,
)
from treadle.journal import sqlite_writes as writes
from treadle.journal.base import (
    Batch,
    CallQuery,
    ChangeQuery,
    Changes,
    Claim,
    Direction,
    Due,
    DuePlace,
    Durability,
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
from treadle.journal.driver_lock import DriverLock
from treadle.journal.files import FileStore
from treadle.journal.group_commit import GroupCommit
from treadle.journal.projection import DueKind, Projection, RunRecord, Sent
from treadle.journal.pulse import IN_OTHERS, IN_PROCESS, Pulse
from treadle.journal.snapshot import decode_snapshot
from treadle.journal.sqlite_changes import newest_change, read_changes
from treadle.journal.sqlite_file import (
    SEQ_BITS,
    Access,
    connect,
    empty_log,
    make_file,
    migrate,
    prepare,
    readable_access,
    require_ours,
    require_tables,
    resolved,
    typed_errors,
)
from treadle.journal.sqlite_files import SqliteFiles
from treadle.journal.sqlite_lists import (
    COLUMNS,
    DUE,
    DUE_OF_OWNER,
    SPENDING,
    UNFINISHED,
    key_of,
    select_threads,
)
from treadle.journal.sqlite_runs import find_run, list_calls, list_runs
from treadle.logging import logger_of

T = TypeVar("T")

_LOGGER = logger_of("treadle.runtime")

LAST_SEQ = (1 << SEQ_BITS) - 1
READERS = 2
LOAD_PAGE = 1000

_WORK = msgspec.json.Decoder(Work)
_SCHEDULE = msgspec.json.Decoder(Schedule)
_ENTRY = msgspec.json.Decoder(Entry)

_INFO = f"SELECT {COLUMNS} FROM thread t JOIN activity a ON a.n = t.n"  # noqa: S608 - of constants
_PAGE = """
    SELECT CAST('[' || coalesce(group_concat(body, ','), '') || ']' AS BLOB) FROM (
        SELECT CAST(body AS TEXT) AS body FROM event
        WHERE position > ? AND position <= ? ORDER BY position LIMIT ?)
"""
# The end of a thread's events is found without reading the others.
_LAST_SEQ = """
    SELECT coalesce(max(position), 0) & ? FROM event
    WHERE position > t.n << ? AND position < (t.n + 1) << ?
"""
_MARKS = f"SELECT t.id, t.owner, t.n, ({_LAST_SEQ}), t.parent FROM thread t"  # noqa: S608 - of constants
MARKS_OF_OWNER = f"{_MARKS} WHERE t.owner = ?"
_HAS_EVENT = """
    SELECT EXISTS (SELECT 1 FROM event WHERE position = (t.n << ?) + ?) FROM thread t WHERE t.id = ?
"""


class SqliteJournal:
    """Fulfils `Journal` with the database file `path`.

    `durability` is what a durable event survives. With `drive`, the journal takes the lock of the
    driver, which one process at a time holds, and migrates the database. Without it, the database
    must exist; such a process reads, creates threads and enqueues entries next to the driver, or
    only reads if the file or its folder is read-only. The
    lock is not what keeps two drivers apart in a thread, the epoch of a claim is: a journal without
    `drive` that claims a thread takes it over as well.
    """

    def __init__(
        self, path: Path, *, durability: Durability = "process", drive: bool = True
    ) -> None:
        self._path = path
        self._durability: Durability = durability
        self._drive = drive
        self._pulse = Pulse(IN_PROCESS if drive else IN_OTHERS)
        self._lock = DriverLock(path)
        self._access: Access = "mode=rw"
        self._local = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._damaged: set[int] = set()  # entries of inboxes that cannot be read
        self._looking: sqlite3.Connection | None = None  # for `has_reached`, which never waits
        self._readers: ThreadPoolExecutor | None = None
        self._writer: GroupCommit[Batch | writes.Change] | None = None
        self.files: FileStore = SqliteFiles(self._read, self._write, self._empty_log)

    @property
    def is_shared(self) -> bool:
        """Other processes can open the database with `drive=False`."""
        return True

    @property
    def pulse(self) -> Pulse:
        """Beats when something was committed through this adapter."""
        return self._pulse

    async def open(self) -> None:
        """Opens the database, with `drive` creates or migrates it; raises `JournalError`."""
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="treadle-reader")
        try:
            connection = await self._read(lambda _: self._open(), connected=False)
        except BaseException:
            await self.close()
            raise
        commit = writes.Transactions(connection, self._path).commit
        self._writer = GroupCommit(commit, self._pulse.beat)

    def _open(self) -> sqlite3.Connection:
        self._path = resolved(self._path)
        self._lock = DriverLock(self._path)
        if not self._drive and not self._path.exists():
            raise JournalError(
                f"The database {self._path.name} does not exist; open it once with drive=True."
            )
        name = self._path.name
        if self._drive:
            make_file(self._path)
        else:
            self._access = readable_access(self._path)
        connection = self._keep(connect(self._path, self._access))
        # Checked before any write, even before the lock file: the file may belong to another
        # program.
        require_ours(connection, name)
        if self._drive:
            self._lock.acquire()
            prepare(connection, self._durability)
            migrate(connection, name)
        else:
            require_tables(connection, name)
            if self._access == "mode=rw":
                prepare(connection, self._durability)
        looking = self._keep(connect(self._path, self._access))
        looking.execute("PRAGMA query_only = on")
        looking.execute("PRAGMA busy_timeout = 0")
        self._looking = looking
        return connection

    async def close(self) -> None:
        """Closes the database after the calls already made; a second call does nothing."""
        writer, readers, self._looking = self._writer, self._readers, None
        if writer is not None:
            await writer.close()
        if readers is not None:
            self._readers = None
            await asyncio.to_thread(self._close_all, readers)
        self._pulse.beat()

    def _close_all(self, readers: ThreadPoolExecutor) -> None:
        readers.shutdown(wait=True)  # a connection must not be closed in the middle of a read
        for connection in self._connections:
            connection.close()
        self._connections.clear()
        self._lock.release()

    def _keep(self, connection: sqlite3.Connection) -> sqlite3.Connection:
        self._connections.append(connection)
        return connection

    async def is_driven(self) -> bool:
        """Returns whether a process holds the lock of the driver."""
        return await self._read(lambda _: self._lock.is_held(), connected=False)

    # Writes

    async def create(
        self,
        info: ThreadInfo,
        entries: Sequence[Envelope] = (),
        projection: Projection | None = None,
    ) -> Claim:
        """Adds a thread with its first events, and claims it."""
        return writes.require_claim(await self._write(writes.create(info, entries, projection)))

    async def claim(self, thread_id: str) -> Claim:
        """Takes a thread over: older claims are refused from now on."""
        return writes.require_claim(await self._write(writes.claim(thread_id)))

    def append(self, batch: Batch) -> "asyncio.Future[None]":
        """Appends a batch, whole or not at all, in one transaction with other waiting writes."""
        return cast("asyncio.Future[None]", self._write(batch))

    async def snapshot(self, claim: Claim, state: ThreadState) -> None:
        """Keeps the fold of the events so far, so that `load` starts from it."""
        await self._write(writes.snapshot(claim, state))

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
        await self._empty_log()

    async def enqueue(self, thread_id: str, entry: Entry) -> None:
        """Puts an entry into the inbox of a thread, unless it was sent or answered before."""
        await self._write(writes.enqueue(thread_id, entry))

    async def discard(self, numbers: Sequence[int]) -> None:
        """Removes entries of inboxes that have no effect."""
        await self._write(writes.discard(numbers))

    async def fork(self, fork: Fork) -> None:
        """Adds a thread with a copy of the first events of another."""
        await self._write(writes.fork(fork))

    async def delete(self, thread_id: str) -> None:
        """Removes a thread and everything that belongs to it."""
        await self._write(writes.delete(thread_id))
        await self._empty_log()

    async def _empty_log(self) -> None:
        """Removes deleted content from the log; what was deleted is, whether or not this works."""
        try:
            is_empty = await self._read(empty_log)
        except JournalError as error:
            _LOGGER.warning("The log could not be emptied: %s", error.message)
        else:
            if not is_empty:
                _LOGGER.debug("The log is read; it is emptied later.")

    def _write(self, write: Batch | writes.Change) -> asyncio.Future[object]:
        if self._writer is None:
            raise JournalClosed("The journal is not open.")
        return self._writer.put(write)

    # Reads

    async def info(self, thread_id: str) -> ThreadInfo:
        """Returns a thread as lists show it."""

        def read(connection: sqlite3.Connection) -> ThreadInfo:
            row = connection.execute(f"{_INFO} WHERE t.id = ?", (thread_id,)).fetchone()
            if row is None:
                raise not_found(thread_id)
            return _info(row)

        return await self._read(read)

    async def threads(self, query: ThreadQuery) -> Page[ThreadInfo]:
        """Returns a page of threads."""

        def read(connection: sqlite3.Connection) -> Page[ThreadInfo]:
            statement = select_threads(connection, query)
            rows = connection.execute(statement.sql, statement.values).fetchall()
            page = rows[: query.limit] if query.limit >= 0 else rows
            has_more = len(page) < len(rows)
            after = cursor(query.order, *key_of(page[-1])) if page and has_more else ""
            return Page([_info(row[:-2]) for row in page], after)

        return await self._read(read)

    async def marks(self, *, owner: str | None) -> list[ThreadMark]:
        """Returns the last event of each thread."""

        def read(connection: sqlite3.Connection) -> list[ThreadMark]:
            sql, values = (_MARKS, ()) if owner is None else (MARKS_OF_OWNER, (owner,))
            rows = connection.execute(sql, (LAST_SEQ, SEQ_BITS, SEQ_BITS, *values))
            return [ThreadMark(*row) for row in rows.fetchall()]

        return await self._read(read)

    async def load(self, thread_id: str, *, at: int | None = None) -> ThreadState:
        """Returns the fold of all events, or of the first `at`; starts from a snapshot."""

        def read(connection: sqlite3.Connection) -> ThreadState:
            number = writes.number_of(connection, thread_id)
            state = _snapshot(connection, number, at)
            last = at if at is not None else LAST_SEQ
            while events := _events(connection, number, state.seq, last, LOAD_PAGE):
                for event in events:
                    state = _applied(connection, number, state, event)
            return state

        # In one transaction, so that a deletion or a new snapshot cannot fall between two reads.
        return await self._read(lambda connection: _at_once(connection, read))

    async def read(
        self, thread_id: str, *, after: int, until: int | None = None, limit: int = 500
    ) -> list[RecordedEvent]:
        """Returns events with `after < seq <= until`."""
        last = until if until is not None else LAST_SEQ

        def read(connection: sqlite3.Connection) -> list[RecordedEvent]:
            number = writes.number_of(connection, thread_id)
            return _events(connection, number, after, last, limit)

        return await self._read(read)

    async def last_seq(self, thread_id: str) -> int:
        """Returns the number of the last event."""

        def read(connection: sqlite3.Connection) -> int:
            row = connection.execute(
                f"SELECT ({_LAST_SEQ}) FROM thread t WHERE t.id = ?",  # noqa: S608 - of constants
                (LAST_SEQ, SEQ_BITS, SEQ_BITS, thread_id),
            ).fetchone()
            if row is None:
                raise not_found(thread_id)
            return row[0]

        return await self._read(read)

    def has_reached(self, thread_id: str, seq: int) -> bool:
        """Returns whether the thread has an event `seq`; True if the database is locked or fails.

        It reads in the calling thread, which is some microseconds of the event loop.
        """
        if self._looking is None or not 0 <= seq <= LAST_SEQ:
            return self._looking is None
        try:
            row = self._looking.execute(_HAS_EVENT, (SEQ_BITS, seq, thread_id)).fetchone()
        except sqlite3.Error:
            return True
        return row is None or bool(row[0])

    async def stored(self, thread_id: str, *, after: int, limit: int = 500) -> dict[int, bytes]:
        """Returns events as they are stored, by their numbers, even if they cannot be read."""

        def read(connection: sqlite3.Connection) -> dict[int, bytes]:
            number = writes.number_of(connection, thread_id)
            return _stored(connection, number, after, LAST_SEQ, limit)

        return await self._read(read)

    async def run(self, thread_id: str, run_id: str) -> RunRecord | None:
        """Returns the record of a run, or None."""

        def read(connection: sqlite3.Connection) -> RunRecord | None:
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

        def read(connection: sqlite3.Connection) -> Sent | None:
            number = writes.number_of(connection, thread_id)
            return writes.sent(connection, number, key, inbox=inbox) if key else None

        return await self._read(read)

    async def runs(
        self, thread_id: str, *, limit: int = -1, after: str = "", order: Direction = "asc"
    ) -> Page[RunRecord]:
        """Returns a page of the runs of a thread, by their first events."""

        def read(connection: sqlite3.Connection) -> Page[RunRecord]:
            number = writes.number_of(connection, thread_id)
            return list_runs(connection, number, thread_id, limit, after, order)

        return await self._read(read)

    async def calls(self, query: CallQuery) -> Page[WaitingCall]:
        """Returns a page of the calls that wait for an answer."""

        def read(connection: sqlite3.Connection) -> Page[WaitingCall]:
            page = list_calls(connection, query)
            return Page(page, page.next, str(newest_change(connection)))

        return await self._read(lambda connection: _at_once(connection, read))

    async def changes(self, query: ChangeQuery) -> Changes:
        """Returns events of all threads behind a position."""

        def read(connection: sqlite3.Connection) -> Changes:
            return read_changes(connection, query)

        return await self._read(lambda connection: _at_once(connection, read))

    async def inbox(self, thread_id: str) -> list[Waiting]:
        """Returns the waiting entries, in order."""

        def read(connection: sqlite3.Connection) -> list[Waiting]:
            number = writes.number_of(connection, thread_id)
            waiting: list[Waiting] = []
            for at, body in _inbox(connection, number):
                entry = _entry(body)
                if entry is not None:
                    waiting.append(Waiting(at, entry))
                elif at not in self._damaged:
                    self._damaged.add(at)
                    _LOGGER.warning(
                        "An entry in the inbox of %s cannot be read, and is set aside; "
                        "Thread.repair() or treadle repair removes it.",
                        thread_id,
                    )
            return waiting

        return await self._read(read)

    async def damaged_entries(self, thread_id: str) -> dict[int, bytes]:
        """Returns the entries of an inbox that cannot be read, as they are stored."""

        def read(connection: sqlite3.Connection) -> dict[int, bytes]:
            number = writes.number_of(connection, thread_id)
            inbox = _inbox(connection, number)
            return {at: body for at, body in inbox if _entry(body) is None}

        return await self._read(read)

    async def waiting_threads(self) -> list[str]:
        """Returns the threads with entries in their inboxes that can be read."""
        damaged = msgspec.json.encode(list(self._damaged)).decode()

        def read(connection: sqlite3.Connection) -> list[str]:
            rows = connection.execute(
                "SELECT id FROM thread WHERE n IN (SELECT DISTINCT n FROM inbox"
                " WHERE number NOT IN (SELECT value FROM json_each(?)))",
                (damaged,),
            )
            return [id for (id,) in rows.fetchall()]

        return await self._read(read)

    async def unfinished(self) -> list[Unfinished]:
        """Returns the threads with a run that waits or has not ended, or with open jobs."""

        def read(connection: sqlite3.Connection) -> list[Unfinished]:
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

        def read(connection: sqlite3.Connection) -> list[Due]:
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

    async def _read(self, read: Callable[[sqlite3.Connection], T], *, connected: bool = True) -> T:
        if self._readers is None:
            raise JournalClosed("The journal is not open.")
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._readers, self._work, read, connected)

    def _work(self, read: Callable[[Any], T], connected: bool) -> T:
        with typed_errors(self._path):
            try:
                return read(self._reader() if connected else None)
            except (msgspec.DecodeError, UnicodeDecodeError, InvalidTransition) as error:
                raise JournalCorrupt(
                    f"{self._path.name} contains data that treadle cannot read ({error}); "
                    "restore a backup."
                ) from error

    def _reader(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._keep(connect(self._path, self._access))
            connection.execute("PRAGMA query_only = on")
            self._local.connection = connection
        return connection


def _inbox(connection: sqlite3.Connection, number: int) -> list[tuple[int, bytes]]:
    return connection.execute(
        "SELECT number, CAST(body AS BLOB) FROM inbox WHERE n = ? ORDER BY number", (number,)
    ).fetchall()


def _entry(body: bytes) -> Entry | None:
    try:
        return _ENTRY.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _at_once(connection: sqlite3.Connection, read: Callable[[sqlite3.Connection], T]) -> T:
    """Runs several reads in one transaction, so that all see the same commit."""
    connection.execute("BEGIN")
    try:
        return read(connection)
    finally:
        if connection.in_transaction:
            connection.execute("COMMIT")


def _events(
    connection: sqlite3.Connection, number: int, after: int, until: int, limit: int
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
        except sqlite3.DataError:
            if limit == 1:
                raise
            limit //= 2  # the page is longer than the longest text that SQLite allows
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
    connection: sqlite3.Connection, number: int, after: int, until: int, limit: int
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


def _applied(
    connection: sqlite3.Connection, number: int, state: ThreadState, event: RecordedEvent
) -> ThreadState:
    try:
        return apply(state, event)
    except InvalidTransition as error:
        raise _damaged(connection, number, event.seq, error.message) from error


def _damaged(connection: sqlite3.Connection, number: int, seq: int, why: str) -> ThreadDamaged:
    row = connection.execute("SELECT id FROM thread WHERE n = ?", (number,)).fetchone()
    id = row[0] if row is not None else ""
    return ThreadDamaged(
        f"Event {seq} of {id} contains data that treadle cannot read ({why}); print the thread "
        "with treadle show, use its methods export(), repair() or delete(), or restore a backup.",
        thread_id=id,
        seq=seq,
    )


def _snapshot(connection: sqlite3.Connection, number: int, at: int | None) -> ThreadState:
    last = at if at is not None else LAST_SEQ
    row = connection.execute(
        "SELECT head FROM snapshot WHERE n = ? AND seq <= ? ORDER BY seq DESC LIMIT 1",
        (number, last),
    ).fetchone()
    if row is None:
        return ThreadState()
    (chunks,) = connection.execute(
        "SELECT CAST('[' || coalesce(group_concat(items, ','), '') || ']' AS BLOB) FROM ("
        "SELECT CAST(items AS TEXT) AS items FROM history WHERE n = ? ORDER BY first)",
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
    forked_from, work, memory, key, key_digest = row[8:]
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
    )
