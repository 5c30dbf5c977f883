"""The database file of the SQLite journal: opening it, its errors, its migrations.

Sources: https://sqlite.org/pragma.html, https://sqlite.org/wal.html, https://sqlite.org/rescode.html
"""

import errno
import os
import sqlite3
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import msgspec

from treadle.errors import (
    JournalCorrupt,
    JournalError,
    JournalFull,
    JournalLocked,
    JournalReadOnly,
)
from treadle.journal.base import Durability
from treadle.journal.labels import labels_of
from treadle.journal.schema_version import (
    SchemaVersion,
    read_migrations,
    require_known,
    require_usable,
    version_of,
)
from treadle.journal.sqlite_connection import SqliteConnection

APPLICATION_ID = 0x7472646C  # "trdl", so that the database of another program is recognized
BUSY_SECONDS = 5.0
PAGE_BYTES = 1024
LOG_BYTES = 16 * 1024 * 1024
LOG_BUSY_MS = 200


@contextmanager
def typed_errors(path: Path) -> Generator[None]:
    """Converts errors of sqlite3 and of files to errors of treadle."""
    try:
        yield
    except sqlite3.Error as error:
        raise _typed(error, path.name) from error
    except OSError as error:
        raise file_error(error, path.name) from error


def _typed(error: sqlite3.Error, name: str) -> JournalError:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in _CANNOT_OPEN and has_too_many_open():
        return JournalError(f"{name} cannot be opened: {TOO_MANY_OPEN}.")
    match code:
        case sqlite3.SQLITE_FULL:
            return JournalFull(f"The disk of {name} is full; make room and try again.")
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return JournalLocked(f"Another program has {name} locked for too long; try again.")
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM:
            return JournalReadOnly(f"{name} or its folder is read-only; allow writing to it.")
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return JournalCorrupt(f"{name} is damaged or not a database; restore a backup.")
        case sqlite3.SQLITE_CANTOPEN:
            return JournalError(f"{name} cannot be opened; does its folder exist?")
        case _:
            return JournalError(f"{name} failed: {error}.")


_CANNOT_OPEN = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR)
_TOO_MANY = (errno.EMFILE, errno.ENFILE)

TOO_MANY_OPEN = "too many files are open; close some, or raise the limit of open files (ulimit -n)"


def has_too_many_open() -> bool:
    """Returns whether a database cannot be opened for want of descriptors.

    SQLite does not report that. It needs one for the file, and two for its log.
    """
    opened: list[int] = []
    try:
        for _ in range(3):
            one = os.open(os.devnull, os.O_RDONLY)
            opened.append(one)  # one at a time: those before a failure must be closed
    except OSError as error:
        return error.errno in _TOO_MANY
    finally:
        for one in opened:
            os.close(one)
    return False


Access = Literal["mode=rw", "mode=ro", "immutable=1"]
"""How a file is opened: https://sqlite.org/uri.html."""


def connect(path: Path, access: Access = "mode=rw") -> SqliteConnection:
    """Opens the database file, which must exist, without changing it.

    Without implicit transactions (`isolation_level`): the writer begins with BEGIN IMMEDIATE.
    A transaction that reads first and then writes would fail at once, without waiting, if another
    connection had committed in between (SQLITE_BUSY_SNAPSHOT).
    """
    return sqlite3.connect(
        f"{path.as_uri()}?{access}",
        timeout=BUSY_SECONDS,
        isolation_level=None,
        check_same_thread=False,
        uri=True,
        factory=SqliteConnection,
    )


def readable_access(path: Path) -> Access:
    """Returns how a database can be read whose file or folder may be read-only.

    SQLite reads a database with a log only if it can create the files of the log, unless it is told
    that nothing changes the file. That is true of a read-only folder in which no log is left.
    Raises `JournalReadOnly` if one is left: it contains the newest events.
    """
    for access in ("mode=rw", "mode=ro"):
        connection = connect(path, access)
        try:
            connection.execute("SELECT count(*) FROM sqlite_master")
        except sqlite3.OperationalError as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF not in _CANNOT_WRITE:
                raise
        else:
            return access
        finally:
            connection.close()
    log = path.with_name(f"{path.name}-wal")
    if log.exists() and log.stat().st_size:
        raise JournalReadOnly(
            f"The newest events are in {log.name}, which cannot be read in a read-only folder; "
            "copy both files to another folder, or allow writing to it."
        )
    return "immutable=1"


_CANNOT_WRITE = (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM)


def prepare(connection: sqlite3.Connection, durability: Durability) -> None:
    """Prepares a connection for writing to a database of treadle."""
    # A new database has small pages, because a commit changes few bytes in each of ten tables and
    # indexes, and writes each of these pages to the log as a whole. An existing one keeps its own.
    connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
    # With a write-ahead log, readers do not hold the writer up.
    connection.execute("PRAGMA journal_mode = wal")
    # Four times the size by default: the pages that each group changes (the end of the events,
    # `activity`) are copied from the log to the database less often.
    (page,) = connection.execute("PRAGMA page_size").fetchone()
    connection.execute(f"PRAGMA wal_autocheckpoint = {LOG_BYTES // page}")
    # With `normal`, a commit survives the end of the process, but a loss of power may undo the
    # newest commits (never half of one). With `full`, each commit waits for the disk.
    connection.execute(f"PRAGMA synchronous = {'full' if durability == 'power' else 'normal'}")
    # Overwrites deleted content, so that it cannot be read from the free space of the file.
    connection.execute("PRAGMA secure_delete = on")


def empty_log(connection: sqlite3.Connection) -> bool:
    """Moves the log into the database; returns whether nothing is left in it.

    Until then it contains what was deleted. It is not emptied while another connection reads an
    older state; a later call does it, or the last connection when it closes.
    """
    (timeout,) = connection.execute("PRAGMA busy_timeout").fetchone()
    # Short: the writer waits while this connection waits for readers.
    connection.execute(f"PRAGMA busy_timeout = {LOG_BUSY_MS}")
    try:
        (busy, _, _) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    except sqlite3.OperationalError as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF not in _IN_USE:
            raise
        return False
    finally:
        connection.execute(f"PRAGMA busy_timeout = {timeout}")
    return not busy


_IN_USE = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def make_file(path: Path) -> None:
    """Creates the database file if it does not exist, with access for its owner only.

    An existing file is not opened: closing it would free the locks that SQLite holds on it for this
    process, and another process could then remove the log while it is written.
    See https://sqlite.org/howtocorrupt.html, section 2.2.
    """
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except FileExistsError as error:
        if path.is_dir():
            raise JournalError(f"{path.name} is a folder; pass a file in it.") from error
    except OSError as error:
        raise file_error(error, path.name) from error


def file_error(error: OSError, name: str) -> JournalError:
    """Returns the error to raise for a file that the system refuses."""
    match error.errno:
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return JournalReadOnly(f"{name} cannot be written; allow writing to it and its folder.")
        case errno.ENOSPC | errno.EDQUOT:
            return JournalFull(f"The disk of {name} is full; make room and try again.")
        case errno.EMFILE | errno.ENFILE:
            return JournalError(f"{name} cannot be opened: {TOO_MANY_OPEN}.")
        case errno.ENOENT | errno.ENOTDIR:
            return JournalError(f"{name} cannot be created; create its folder first.")
        case _:
            return JournalError(f"{name} cannot be opened: {error.strerror}.")


def resolved(path: Path) -> Path:
    """Returns the one path of a database file, however it is reached; raises `JournalError`.

    The lock of the driver and the log of SQLite stand next to the file and have its name, so a
    file with two names would have two of each: https://sqlite.org/howtocorrupt.html, section 2.5.
    """
    try:
        path = path.resolve()
        names = path.stat().st_nlink
    except FileNotFoundError:
        return path
    except OSError as error:
        raise file_error(error, path.name) from error
    except RuntimeError as error:  # before Python 3.13
        raise JournalError(f"{path.name} is a loop of symbolic links.") from error
    if names > 1 and path.is_file():
        raise JournalError(
            f"{path.name} has {names} names (hard links), and SQLite would keep a log for each; "
            "open a copy, or remove the other names."
        )
    return path


def require_ours(connection: sqlite3.Connection, name: str) -> None:
    """Raises `JournalCorrupt` or `JournalTooNew` if this treadle cannot write to the database."""
    _version(connection, name, len(_migrations()))


def migrate(connection: sqlite3.Connection, name: str) -> None:
    """Migrates the tables to the newest version; each migration is one transaction."""
    scripts = _migrations()
    version = _version(connection, name, len(scripts))
    connection.create_function("treadle_labels", 2, _labels, deterministic=True)
    for number, script in enumerate(scripts[version:], version + 1):
        stored = version_of(scripts[:number]).pack()
        connection.executescript(
            f"BEGIN IMMEDIATE; {script} PRAGMA user_version = {stored}; "
            f"PRAGMA application_id = {APPLICATION_ID}; COMMIT;"
        )


def _labels(agent: str, metadata: bytes) -> str:
    """Returns the labels of a thread as JSON, for the migration that adds them."""
    try:
        fields = msgspec.json.decode(metadata, type=dict[str, object])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        fields = {}  # damaged metadata is not used
    return msgspec.json.encode(labels_of(agent, fields)).decode()


def require_tables(connection: sqlite3.Connection, name: str) -> None:
    """Raises `JournalError` if the tables are missing, or of an older version."""
    scripts = _migrations()
    version = _version(connection, name, len(scripts))
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if not tables:
        raise JournalError(
            f"{name} has no tables yet; start the process that drives it, which creates them."
        )
    if version < len(scripts):
        raise JournalError(f"{name} was created by an older treadle; open it once with drive=True.")


def require_no_newer(connection: sqlite3.Connection, name: str) -> None:
    """Raises `JournalTooNew` if the tables have something that this treadle does not know."""
    known = len(_migrations())
    require_known(_version(connection, name, known), known, name)


def _version(connection: sqlite3.Connection, name: str, known: int) -> int:
    """Returns the number of the last migration; raises if this treadle cannot use the tables."""
    (stored,) = connection.execute("PRAGMA user_version").fetchone()
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application != APPLICATION_ID and tables:
        raise JournalCorrupt(f"{name} is the database of another program; use another file.")
    version = SchemaVersion.unpack(stored)
    require_usable(version, known, name)
    return version.number


def _migrations() -> list[str]:
    return read_migrations(Path(__file__).with_name("migrations"))
