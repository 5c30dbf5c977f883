"""The journal in a SQLite database file; see `sql_journal`.

The database has a write-ahead log (https://sqlite.org/wal.html): readers see the last commit and
neither wait for the writer nor hold it up.
"""

import asyncio
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

from treadle.errors import JournalError
from treadle.journal.base import Durability
from treadle.journal.driver_lock import DriverLock
from treadle.journal.pulse import IN_OTHERS, IN_PROCESS
from treadle.journal.sql_connection import SEQ_BITS, Connection
from treadle.journal.sql_journal import LAST_SEQ, SqlJournal
from treadle.journal.sqlite_connection import SqliteConnection
from treadle.journal.sqlite_file import (
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
from treadle.logging import logger_of

_LOGGER = logger_of("treadle.runtime")

READERS = 2

_HAS_EVENT = """
    SELECT EXISTS (SELECT 1 FROM event WHERE position = (t.n << ?) + ?) FROM thread t WHERE t.id = ?
"""


class SqliteJournal(SqlJournal):
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
        super().__init__(path.name, IN_PROCESS if drive else IN_OTHERS)
        self._path = path
        self._durability: Durability = durability
        self._drive = drive
        self._lock = DriverLock(path)
        self._access: Access = "mode=rw"
        self._connections: list[SqliteConnection] = []
        self._looking: SqliteConnection | None = None  # for `has_reached`, which never waits

    async def open(self) -> None:
        """Opens the database, with `drive` creates or migrates it; raises `JournalError`."""
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="treadle-reader")
        try:
            connection = await self._in_reader(self._open)
        except BaseException:
            await self.close()
            raise
        self._write_with(connection)

    def _open(self) -> SqliteConnection:
        with self._typed_errors():
            return self._open_file()

    def _open_file(self) -> SqliteConnection:
        self._path = resolved(self._path)
        self._lock = DriverLock(self._path)
        if not self._drive and not self._path.exists():
            raise JournalError(
                f"The database {self._path} does not exist, and drive=False does not create it; "
                "start the process that drives it first, or correct the path."
            )
        name = self._name = self._path.name
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

    def limit_waits(self, seconds: float | None) -> None:
        """Does nothing: a file is not away."""

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

    def _keep(self, connection: SqliteConnection) -> SqliteConnection:
        self._connections.append(connection)
        return connection

    async def is_driven(self) -> bool:
        """Returns whether a process holds the lock of the driver."""
        return await self._in_reader(self._lock.is_held)

    def _typed_errors(self) -> AbstractContextManager[None]:
        return typed_errors(self._path)

    def _connect(self) -> SqliteConnection:
        connection = self._keep(connect(self._path, self._access))
        connection.execute("PRAGMA query_only = on")
        return connection

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

    async def _on_removed(self) -> None:
        """Removes deleted content from the log; what was deleted is, whether or not this works."""
        try:
            is_empty = await self._read(_empty_log)
        except JournalError as error:
            _LOGGER.warning("The log could not be emptied: %s", error.message)
        else:
            if not is_empty:
                _LOGGER.debug("The log is read; it is emptied later.")


def _empty_log(connection: Connection) -> bool:
    assert isinstance(connection, SqliteConnection)
    return empty_log(connection)
