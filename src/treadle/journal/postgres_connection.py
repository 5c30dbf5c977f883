"""A connection to a PostgreSQL database, with what only PostgreSQL says so.

Source: https://www.psycopg.org/psycopg3/docs/, https://www.postgresql.org/docs/current/
"""

import re
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from secrets import token_hex
from typing import Any, LiteralString, TypeVar, cast

import psycopg
from psycopg import errors
from psycopg.abc import Buffer
from psycopg.adapt import Dumper, Loader
from psycopg.pq import Format

from treadle.domain.accept import identity_of
from treadle.domain.entries import AnswerEntry, Entry, KeyedEntry, SendEntry
from treadle.errors import JournalTooNew
from treadle.journal.base import stale
from treadle.journal.sql_connection import Cursor

T = TypeVar("T")

Raw = psycopg.Connection[tuple[Any, ...]]

_BIGINTS = frozenset(
    ("n", "position", "seq", "first_seq", "last_seq", "jobs", "slot", "tokens", "number")
)
_FLOATS = frozenset(("at", "since", "updated_at", "queued_at", "started_at", "ended_at", "cost"))

_FENCE = "SELECT n, epoch FROM thread WHERE n = ANY(%b::bigint[]) ORDER BY n FOR SHARE"
_LOCK_THREADS = "SELECT 1 FROM thread WHERE id = ANY(%b::text[]) ORDER BY n FOR NO KEY UPDATE"


# It inserts nothing after a breaking migration that this treadle does not know. Such a migration
# locks the table first, so it waits for transactions under way, and those after it see its version.
_NOTE = (
    "INSERT INTO written (writer, number) SELECT %s::text, %s::bigint FROM version"
    " WHERE CASE WHEN version.number >> 16 > 0 THEN version.number >> 16"
    " ELSE version.number END <= %s"
    " ON CONFLICT (writer) DO UPDATE SET number = excluded.number, at = now()"
    " WHERE written.number <> excluded.number RETURNING 1"
)


_SET = (
    "SELECT count(set_config(name, value, true))"
    " FROM unnest(%b::text[], %b::text[]) AS one (name, value)"
)

MAX_VERSION = 0xFFFF


class Committed(Exception):
    """The transaction was committed before."""


class PostgresConnection:
    """Fulfils `Connection` with a connection of psycopg.

    What is written is sent in a pipeline: a statement waits for the server only where its rows are
    asked for.

    Behind a pooler each transaction may be in another session. There is nothing outside of a
    transaction then, and each begins with its own `settings`, which are those of the session
    otherwise.
    """

    too_long = errors.ProgramLimitExceeded
    inbox = "inbox"

    def __init__(self, raw: Raw, settings: Mapping[str, str] | None = None) -> None:
        self.raw = raw
        self.settings = settings
        self._has_begun = False
        self.writer = token_hex(8)
        self.number = 0
        """The number of the transaction, which the database keeps for the `writer`."""
        self.known_version = MAX_VERSION
        """The newest migration that this treadle knows."""
        self.may_be_committed = False
        """Whether the last transaction has come to its commit."""
        self.node: int | None = None
        """The node whose lock the session holds."""
        self.was_lost = False
        """Whether the session replaced one that was lost."""
        self._checks: list[Callable[[], None]] = []

    @property
    def owned(self) -> str:
        """A node claims the threads that it took, so one that lost a thread takes nothing away."""
        return "" if self.node is None else f"AND node = {self.node}"

    def execute(self, sql: str, values: Sequence[object] = (), /) -> Cursor:
        """Executes a statement that is written for SQLite."""
        if self.settings is not None and not self._has_begun:
            return self._execute_alone(sql, values)
        return self.raw.execute(_translated(sql), values or None, binary=True)

    def _execute_alone(self, sql: str, values: Sequence[object]) -> Cursor:
        """Executes a statement in a transaction of its own, in one trip to the server."""
        try:
            with self.raw.pipeline():
                with self._begun("BEGIN"):
                    cursor = self.raw.execute(_translated(sql), values or None, binary=True)
                self.raw.execute("COMMIT")
        except BaseException:
            self._roll_back()
            raise
        return cursor

    @contextmanager
    def transaction(self) -> Generator[None]:
        """Runs a block in a transaction, or in a savepoint of the one that has begun."""
        with self.raw.transaction():
            if self._has_begun:
                yield
            else:
                with self._begun():
                    yield

    @contextmanager
    def _begun(self, begin: LiteralString = "") -> Generator[None]:
        """Begins a transaction, unless that is done; the caller ends it after the block."""
        if begin:
            self.raw.execute(begin)
        if self.settings is not None:
            self.raw.execute(_SET, (list(self.settings), list(self.settings.values())))
        self._has_begun = True
        try:
            yield
        finally:
            self._has_begun = False

    def transact(self, write: Callable[[], T], inserts: int = 0) -> T:
        """Runs `write` in a transaction."""
        self.number += 1
        return self.transact_once(write, is_again=False)

    def transact_once(self, write: Callable[[], T], *, is_again: bool) -> T:
        """Runs `write` in the transaction `number`; raises `Committed` if that was made before.

        With `is_again`, the connection was lost in its commit. The row of the writer says what
        became of it; one that the server still works on holds its lock, and is waited for.
        """
        self.may_be_committed = False
        self._checks.clear()
        try:
            with self.raw.pipeline() as pipeline:
                try:
                    with self._begun("BEGIN ISOLATION LEVEL READ COMMITTED"):
                        result = self._write_noted(write, is_again=is_again)
                    self.may_be_committed = True
                    self.raw.execute("COMMIT")
                except BaseException:
                    with suppress(psycopg.Error):  # of statements behind the one that failed
                        pipeline.sync()  # psycopg would log them
                    raise
        except BaseException as error:
            self._roll_back()
            if isinstance(error, errors.UniqueViolation):
                # An older claim writes numbers that the newest one has used.
                for check in self._checks:
                    check()
            raise
        return result

    def _write_noted(self, write: Callable[[], T], *, is_again: bool) -> T:
        noted = self.raw.execute(_NOTE, (self.writer, self.number, self.known_version))
        if is_again:
            self._require_note(noted)
        result = write()
        for check in self._checks:
            check()
        if not is_again:
            self._require_note(noted)
        return result

    def _require_note(self, noted: Cursor) -> None:
        """Waits for the statement that notes the transaction, and looks that it has done so."""
        if noted.fetchone() is not None:
            return
        row = self.raw.execute(
            "SELECT number FROM written WHERE writer = %s", (self.writer,)
        ).fetchone()
        if row == (self.number,):
            raise Committed
        raise JournalTooNew(
            "A newer treadle has changed the tables of the database while this process had it "
            "open; install that version, and start the process again."
        )

    def at_once(self, read: Callable[[], T]) -> T:
        """Runs reads in one transaction."""
        try:
            with self._begun("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"):
                return read()
        finally:
            self._roll_back()

    def _roll_back(self) -> None:
        with suppress(psycopg.Error):  # a connection that is lost has none
            self.raw.rollback()

    def at_newest(self, read: Callable[[int], T]) -> T:
        """Runs reads in one transaction, which begins once the newest change is known."""
        (newest,) = self.execute("SELECT newest_change()").fetchone()
        return self.at_once(lambda: read(newest))

    def lock(self, table: str, number: int) -> None:
        """Locks a thread in a table, until the transaction ends."""
        self.raw.execute(
            "SELECT pg_advisory_xact_lock(%s::regclass::oid::int, %s::int)", (table, number)
        )

    def lock_threads(self, thread_ids: Sequence[str]) -> None:
        """Locks threads against appends, in the order in which appends lock them.

        So a node that claims many threads of a dead one, whose last append is still under way,
        waits for that append, and it never waits for the node.
        """
        self.raw.execute(_LOCK_THREADS, (list(thread_ids),))

    def array(self, values: Sequence[object]) -> object:
        """Returns values as an array."""
        return list(values)

    def insert(self, table: str, columns: str, rows: Sequence[Sequence[object]], tail: str) -> None:
        """Inserts rows with one statement, as one array for each column."""
        if not rows:
            return
        names = columns.split(", ")
        arrays = [
            [value if value is None else float(cast("float", value)) for value in column]
            if name in _FLOATS
            else list(column)
            for name, column in zip(names, zip(*rows, strict=True), strict=True)
        ]
        unnested = ", ".join(f"%b::{_type_of(name)}[]" for name in names)
        sql = f"INSERT INTO {table} ({columns}) SELECT * FROM unnest({unnested}) {tail}"  # noqa: S608 - of constants
        self.raw.execute(cast("LiteralString", sql), arrays)

    def insert_events(self, claims: Mapping[int, int], rows: Sequence[tuple[int, bytes]]) -> None:
        """Inserts events; the epochs are locked first, and compared before the commit.

        A claim waits for the lock, so that none comes between.
        """
        found = self.raw.execute(_FENCE, (list(claims),))

        def check() -> None:
            if dict(found.fetchall()) != claims:
                raise stale()

        self._checks.append(check)
        self.insert("event", "position, body", rows, "")

    def put_entry(self, number: int, entry: Entry, body: bytes) -> None:
        """Inserts an entry into the inbox of a thread."""
        keyed = isinstance(entry, KeyedEntry)
        self.raw.execute(
            "INSERT INTO inbox (n, type, key, run_id, call_id, identity, body)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s)",
            (
                number,
                entry.__struct_config__.tag,
                entry.key if keyed else None,
                entry.run_id if isinstance(entry, SendEntry) else None,
                entry.call_id if isinstance(entry, AnswerEntry) else None,
                identity_of(entry) if keyed else None,
                body,
            ),
        )
        # Only inputs are announced, never events: such commits wait for each other.
        self.raw.execute(
            "SELECT pg_notify('treadle_' || 'inbox'::regclass::oid, json_build_object("
            "'thread', id, 'node', node, 'agent',"
            " CASE WHEN node IS NULL THEN next_agent(thread) END)::text)"
            " FROM thread WHERE n = %s AND octet_length(id) < 2000",
            (number,),
        )


def _type_of(column: str) -> str:
    if column in _BIGINTS:
        return "bigint"
    return "float8" if column in _FLOATS else "text"


_TRANSLATIONS = (
    (re.compile(r"/\*! (.*?) \*/"), r"\1"),
    (re.compile(r" INDEXED BY \w+"), ""),
    (re.compile(r"\bIN \(SELECT value FROM json_each\(\?\)\)"), "= ANY(?)"),
    (re.compile(r"\bCAST\(([\w.]+) AS BLOB\)"), r"convert_to(\1, 'UTF8')"),
    (re.compile(r"\bgroup_concat\("), "string_agg("),
    (re.compile(r"\?"), "%b"),
)


@lru_cache(maxsize=512)
def _translated(sql: str) -> LiteralString:
    """Returns a statement of `sql_connection` as PostgreSQL reads it."""
    for pattern, replacement in _TRANSLATIONS:
        sql = pattern.sub(replacement, sql)
    return cast("LiteralString", sql)


# PostgreSQL stores no U+0000, which callers and models may send: it is written as two U+0001, and
# U+0001 as U+0001 U+0002. JSON contains neither of them, so nothing in it changes.


def _escaped(text: str) -> str:
    return text.replace("\1", "\1\2").replace("\0", "\1\1")


def _unescaped(text: str) -> str:
    return re.sub("\1([\1\2])", lambda found: "\0" if found[1] == "\1" else "\1", text)


class _TextDumper(Dumper):
    format = Format.BINARY
    oid = psycopg.adapters.types["text"].oid

    def dump(self, obj: str) -> Buffer:
        return (_escaped(obj) if "\0" in obj or "\1" in obj else obj).encode()


class _JsonDumper(Dumper):
    """JSON is bytes here, and text in the database."""

    format = Format.BINARY
    oid = psycopg.adapters.types["text"].oid

    def dump(self, obj: bytes) -> Buffer:
        return obj


class _TextLoader(Loader):
    format = Format.BINARY

    def load(self, data: Buffer) -> str:
        text = bytes(data).decode()
        return _unescaped(text) if "\1" in text else text


def adapt(raw: Raw) -> None:
    """Registers how values are written and read."""
    raw.adapters.register_dumper(str, _TextDumper)
    raw.adapters.register_dumper(bytes, _JsonDumper)
    raw.adapters.register_loader("text", _TextLoader)
