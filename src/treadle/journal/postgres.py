"""The journal in a PostgreSQL database; see `sql_journal`.

One connection writes, in the transactions of groups; each reading thread has one of its own. What
comes while the server is away waits for it: a group whose connection was lost in the commit is
looked up by the number of its transaction, and written again if it was not committed. So a restart
of the server is a pause, and no append is lost or doubled.
"""

import asyncio
import math
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from threading import Lock
from typing import TypeVar, cast

import psycopg

from treadle.errors import JournalClosed, JournalError, JournalLocked, JournalUnavailable
from treadle.journal.postgres_access import AccessRows
from treadle.journal.postgres_connection import Committed, PostgresConnection
from treadle.journal.postgres_database import (
    Address,
    is_driver_locked,
    is_lost,
    known_version,
    migrate,
    require_same,
    require_tables,
    take_driver_lock,
    typed_errors,
)
from treadle.journal.postgres_nodes import Nodes, lock
from treadle.journal.pulse import IN_OTHERS, IN_PROCESS
from treadle.journal.sql_connection import Connection
from treadle.journal.sql_journal import SqlJournal
from treadle.journal.sql_writes import Change
from treadle.logging import logger_of

_LOGGER = logger_of("treadle.runtime")

T = TypeVar("T")

READERS = 4

APART = 2
"""How many connections are for the archive, if it is used."""

AWAY_SECONDS = 30.0
"""How long a write or a read waits for a server that is away."""

OPEN_SECONDS = 5.0
"""How long `open` waits for one, such as a server that starts at the same time."""

FIRST_PAUSE, LAST_PAUSE = 0.02, 1.0
LOCK_SECONDS = 2.0
"""How long the server may need to notice the end of the process that had the lock."""


class PostgresJournal(SqlJournal):
    """Fulfils `Journal` with the database at `url`, which libpq reads.

    With `drive`, the journal migrates the database, and its process may become one of the `nodes`
    that drive threads; with `alone`, no other process may be open with `drive` meanwhile. Without
    `drive`, the tables must exist; such a process reads, creates threads and enqueues entries.

    `pooler` is the URL of a pooler in front of the database, which all connections use then, except
    the two of a node that keep their session: the one that writes, and the one that is told of new
    entries.
    """

    def __init__(
        self, url: str, *, pooler: str = "", drive: bool = True, alone: bool = False
    ) -> None:
        self._address = Address(url, pooler)
        super().__init__(self._address.name, IN_PROCESS if drive else IN_OTHERS)
        self._drive = drive
        self._alone = alone
        self._limit = _Limit(self._name)
        self._writing: _Writer | None = None
        self._reading: set[PostgresConnection] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._apart: ThreadPoolExecutor | None = None
        self.access = AccessRows(self._read_with, self._write_with_node)
        self.nodes = Nodes(
            self._read_with, self._write_with_node, self._connect_directly, self._disconnect
        )

    async def open(self) -> None:
        """Connects, with `drive` creates or migrates the tables; raises `JournalError`."""
        self._loop = asyncio.get_running_loop()
        self._limit.set(None)
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="treadle-reader")
        try:
            self._writing = await self._in_reader(self._open)
        except BaseException:
            await self.close()
            raise
        self._write_with(self._writing)

    def _open(self) -> "_Writer":
        patience = _Patience(OPEN_SECONDS, self._limit)
        while True:
            try:
                with self._typed_errors():
                    return self._open_once()
            except JournalUnavailable:
                if not patience.wait():
                    raise

    def _open_once(self) -> "_Writer":
        writer = _Writer(self._address, self._limit, drives=self._drive, alone=self._alone)
        try:
            self._address.require_session(writer)
            (migrate if self._drive else require_tables)(writer, self._name)
            writer.known_version = known_version()
            if self._drive and self._address.has_pooler:
                self._require_pooler(writer)
            if self._drive:
                writer.execute("DELETE FROM written WHERE at < now() - interval '30 days'")
        except BaseException:
            writer.raw.close()
            raise
        return writer

    def _require_pooler(self, writer: PostgresConnection) -> None:
        pooled = self._address.connect_pooled()
        try:
            require_same(writer, pooled, self._name)
        finally:
            pooled.raw.close()

    def limit_waits(self, seconds: float | None) -> None:
        """Limits how long calls still wait for a server that is away, from now on; see `Journal`.

        Once that has passed, a server that does not answer one more time is not tried again.
        """
        self._limit.set(seconds)

    async def close(self) -> None:
        """Closes the connections after the calls already made; a second call does nothing."""
        writer, readers = self._writer, self._readers
        if writer is not None:
            await writer.close()
        if readers is not None:
            self._readers = None
            await asyncio.to_thread(self._close_all, readers)
        self._pulse.beat()

    def _close_all(self, readers: ThreadPoolExecutor) -> None:
        readers.shutdown(wait=True)
        if self._apart is not None:
            self._apart.shutdown(wait=True)
            self._apart = None
        writing = [self._writing] if self._writing is not None else []
        for connection in (*writing, *self._reading):
            connection.raw.close()
        self._reading.clear()
        self._writing = None

    async def is_driven(self) -> bool:
        """Returns whether a process is open that drives."""
        return self._drive or await self._read(lambda c: is_driver_locked(_ours(c)))

    @property
    def has_nodes(self) -> bool:
        """Any number of processes drive the threads; see `postgres_nodes`."""
        return True

    def has_reached(self, thread_id: str, seq: int) -> bool:
        """Returns True: it would have to wait for the server."""
        return True

    def _typed_errors(self) -> AbstractContextManager[None]:
        return typed_errors(self._name)

    async def _read_with(self, read: Callable[[PostgresConnection], T]) -> T:
        return await self._read(lambda connection: read(_ours(connection)))

    async def _write_with_node(self, write: Callable[[PostgresConnection], T]) -> T:
        change = Change(lambda connection: write(_ours(connection)), ordered=False)
        return cast("T", await self._write(change))

    async def apart(self, work: Callable[[PostgresConnection], T]) -> T:
        """Runs `work` in a thread with a connection of its own, which no append or read waits for.

        It is run again if the connection is lost, even in a commit.
        """
        if self._readers is None:
            raise JournalClosed("The journal is not open.")
        if self._apart is None:
            self._apart = ThreadPoolExecutor(APART, thread_name_prefix="treadle-archive")
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            self._apart, lambda: self._work(lambda connection: work(_ours(connection)))
        )

    def _connect(self) -> PostgresConnection:
        self._limit.require_waiting()
        return self._kept(self._address.connect_pooled())

    def _connect_directly(self) -> PostgresConnection:
        self._limit.require_waiting()
        return self._kept(self._address.connect())

    def _kept(self, connection: PostgresConnection) -> PostgresConnection:
        self._reading.add(connection)
        return connection

    def _disconnect(self, connection: PostgresConnection) -> None:
        self._reading.discard(connection)
        connection.raw.close()

    async def _on_removed(self) -> None:
        """Does nothing: the server removes what was deleted when it vacuums."""

    def _work(self, read: Callable[[Connection], T]) -> T:
        patience = _Patience(AWAY_SECONDS, self._limit)
        while True:
            try:
                return super()._work(read)
            except JournalUnavailable:
                lost: PostgresConnection | None = getattr(self._local, "connection", None)
                if lost is not None:
                    self._local.connection = None
                    self._disconnect(lost)
                    if self._loop is not None:
                        self._loop.call_soon_threadsafe(self._check_writer)
                if not patience.wait():
                    raise

    def _check_writer(self) -> None:
        """Has the writer take its lock again soon, which the server has freed."""
        if self._drive and self._readers is not None:
            done = self._write(Change(lambda connection: connection.execute("SELECT 1").fetchone()))
            done.add_done_callback(self._log_failure)

    def _log_failure(self, done: "asyncio.Future[object]") -> None:
        error = None if done.cancelled() else done.exception()
        if isinstance(error, JournalError) and not self._limit.has_given_up:  # which is logged
            _LOGGER.warning("The journal cannot be written: %s", error.message)


def _ours(connection: Connection) -> PostgresConnection:
    assert isinstance(connection, PostgresConnection)
    return connection


class _Limit:
    """Until when any caller waits for a server that is away: forever, or until a shutdown must end.

    It is set on the event loop, and read by the threads that wait.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = Lock()
        self._end = math.inf
        self.has_given_up = False

    def set(self, seconds: float | None) -> None:
        """Ends all waits after `seconds`; None lets them be as long as their callers want."""
        with self._lock:
            self._end = math.inf if seconds is None else time.monotonic() + seconds
            self.has_given_up = False

    def left(self) -> float:
        """Returns how many seconds may still be waited, 0 at the end."""
        return max(0.0, self._end - time.monotonic())

    def give_up(self) -> None:
        """Notes that the server did not answer before the end."""
        with self._lock:
            is_first, self.has_given_up = not self.has_given_up, True
        if is_first:
            _LOGGER.warning(
                "%s does not answer, and the shutdown waits for it no longer. What was acknowledged"
                " is stored there. Runs that have not ended are resumed by another node, or by the"
                " next process that opens the database.",
                self._name[0].upper() + self._name[1:],
            )

    def require_waiting(self) -> None:
        """Raises what a connection that is lost raises, if the server is not waited for any more.

        A server that answers nothing at all would hold up each attempt for seconds.
        """
        if self.has_given_up:
            raise psycopg.OperationalError("the runtime shuts down and waits for it no longer")


class _Patience:
    """The pauses of a caller that tries again while the server is away."""

    def __init__(self, seconds: float, limit: _Limit) -> None:
        self._end = time.monotonic() + seconds
        self._pause = FIRST_PAUSE
        self._limit = limit

    def wait(self) -> bool:
        """Waits a moment; returns False if it was long enough."""
        left = self._limit.left()
        if left == 0:
            self._limit.give_up()
            return False
        if time.monotonic() >= self._end:
            return False
        pause = self._pause * random.uniform(0.5, 1)  # noqa: S311 - no secret
        time.sleep(min(pause, left))
        self._pause = min(2 * self._pause, LAST_PAUSE)
        return True


class _Writer(PostgresConnection):
    """The connection that writes; it is replaced when it is lost.

    With `drives` it has the lock of processes that drive, and that of its node once there is one.
    """

    def __init__(self, address: Address, limit: _Limit, *, drives: bool, alone: bool) -> None:
        self._address = address
        self._limit = limit
        self._drives = drives
        self._alone = alone
        self.node = None
        connection = self._connected()
        super().__init__(connection.raw, connection.settings)

    def _connected(self) -> PostgresConnection:
        if not self._drives:  # it has no lock, so it needs no session of its own
            return self._address.connect_pooled()
        connection = self._address.connect()
        end = time.monotonic() + LOCK_SECONDS
        while not take_driver_lock(connection, alone=self._alone):
            if time.monotonic() >= end:
                connection.raw.close()
                raise JournalLocked(
                    f"Another process drives {self._address.name}, or has to be alone with it; end "
                    "that process, or open the database with drive=False to read, watch and send."
                )
            time.sleep(FIRST_PAUSE)
        if self.node is not None:
            lock(connection, self.node)
        return connection

    def _reconnect(self) -> None:
        self._limit.require_waiting()
        self.was_lost = True
        try:
            self.raw = self._connected().raw
        except JournalLocked as error:
            raise JournalUnavailable(
                f"Another process has begun to use {self._address.name} alone while the server was "
                "away; open the runtime again."
            ) from error

    def transact(self, write: Callable[[], T], inserts: int = 0) -> T:
        """Runs `write` in a transaction, again if the connection is lost before the commit."""
        patience = _Patience(AWAY_SECONDS, self._limit)
        results: list[T] = []

        def keep() -> T:
            results.append(write())
            return results[-1]

        self.number += 1
        is_doubtful = is_away = False
        while True:
            try:
                if self.raw.closed:
                    self._reconnect()
                result = self.transact_once(keep, is_again=is_doubtful)
                if is_away:
                    _LOGGER.info("%s has answered again.", self._address.name)
                return result
            except Committed:
                return results[-1]
            except psycopg.Error as error:
                if not (self.raw.closed or is_lost(error)):
                    raise
                with suppress(psycopg.Error):
                    self.raw.close()
                is_doubtful = is_doubtful or self.may_be_committed
                waits = min(AWAY_SECONDS, self._limit.left())
                if not is_away and waits:
                    is_away = True
                    _LOGGER.warning(
                        "The connection to %s was lost; what is to be written waits for it, up to "
                        "%d seconds: %s",
                        self._address.name,
                        math.ceil(waits),
                        str(error).partition("\n")[0],
                    )
                if not patience.wait():
                    raise
