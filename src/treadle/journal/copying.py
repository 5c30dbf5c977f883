"""Copies a SQLite database to an empty PostgreSQL database: both have the same tables."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, LiteralString, cast

import msgspec

from treadle.domain.entries import Entry
from treadle.errors import JournalCorrupt, JournalError
from treadle.journal import postgres_database, sqlite_file
from treadle.journal.base import Journal
from treadle.journal.postgres import PostgresJournal
from treadle.journal.postgres_connection import PostgresConnection
from treadle.journal.snapshot import encode_head
from treadle.journal.sql_connection import Connection
from treadle.journal.sqlite import SqliteJournal
from treadle.journal.sqlite_file import connect, resolved

ROWS = 500
"""How many rows are copied with one statement; events can be large."""

_TABLES = (
    "thread", "event", "activity", "label", "run", "call", "sent", "due", "inbox", "snapshot",
    "history", "file", "file_use", "change", "spending",
)  # fmt: skip
_SEQUENCES = (("thread", "n"), ("change", "number"))

_ENTRY = msgspec.json.Decoder(Entry)


async def copy_journal(source: Path, url: str) -> int:
    """Copies all threads of a SQLite database to PostgreSQL; returns how many.

    It happens in one transaction: whole, or not at all, so that it can be repeated. Then each
    thread is loaded from both and compared. No process may drive either database meanwhile. Raises
    `JournalError` if the target has threads, and `JournalCorrupt` if a thread differs.
    """
    old, new = SqliteJournal(source), PostgresJournal(url, alone=True)
    await old.open()
    try:
        await new.open()
        try:
            await new.change(lambda connection: _copy(source, connection))
            return await _compare(old, new)
        finally:
            await new.close()
    finally:
        await old.close()


def _copy(source: Path, connection: Connection) -> None:
    assert isinstance(connection, PostgresConnection)
    if connection.execute("SELECT EXISTS (SELECT 1 FROM thread)").fetchone()[0]:
        raise JournalError("The PostgreSQL database has threads already; copy to an empty one.")
    with closing(connect(resolved(source), "mode=ro")) as reading:
        reading.execute("BEGIN")
        sqlite_file.require_no_newer(reading, source.name)
        postgres_database.require_no_newer(connection, "The PostgreSQL database")
        for table in _TABLES:
            if table == "inbox":
                _copy_inbox(reading, connection)
            else:
                _copy_table(reading, connection, table)
    for table, column in _SEQUENCES:
        connection.execute(
            f"SELECT setval('{table}_{column}_seq', greatest(max({column}), 1)) FROM {table}"  # noqa: S608 - of constants
        ).fetchone()
    # The planner would otherwise know nothing of the rows until the server looks by itself.
    connection.raw.execute(f"ANALYZE {', '.join(_TABLES)}")


def _copy_table(reading: sqlite3.Connection, connection: PostgresConnection, table: str) -> None:
    types: dict[str, str] = dict(
        connection.execute(
            "SELECT column_name, data_type FROM information_schema.columns"
            " WHERE table_schema = current_schema() AND table_name = ? AND column_name != 'node'",
            (table,),  # no node drives what was copied
        ).fetchall()
    )
    columns = ", ".join(types)
    arrays = ", ".join(f"%b::{type}[]" for type in types.values())
    sql = f"INSERT INTO {table} ({columns}) SELECT * FROM unnest({arrays})"  # noqa: S608 - of constants
    for rows in _pages(reading, f"SELECT {columns} FROM {table}"):  # noqa: S608 - of constants
        values = [
            [_value(value, type, table) for value in column]
            for column, type in zip(zip(*rows, strict=True), types.values(), strict=True)
        ]
        connection.raw.execute(cast("LiteralString", sql), values)
        connection.execute("SELECT 1").fetchone()  # bounds what waits in the pipeline


def _copy_inbox(reading: sqlite3.Connection, connection: PostgresConnection) -> None:
    """Inserts the entries in their order; their numbers are new, and nothing refers to them."""
    for rows in _pages(reading, "SELECT n, CAST(body AS BLOB) FROM inbox ORDER BY number"):
        for number, body in rows:
            try:
                entry = _ENTRY.decode(body)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                (id,) = reading.execute("SELECT id FROM thread WHERE n = ?", (number,)).fetchone()
                raise JournalCorrupt(
                    f"An entry that waits for the thread {id} cannot be read ({error}); repair the "
                    "thread first, or copy with the version of treadle that wrote it."
                ) from error
            connection.put_entry(number, entry, body)
        connection.execute("SELECT 1").fetchone()


def _pages(reading: sqlite3.Connection, sql: str) -> Iterator[Sequence[tuple[Any, ...]]]:
    cursor = reading.execute(sql)
    while rows := cursor.fetchmany(ROWS):
        yield rows


def _value(value: Any, type: str, table: str) -> object:
    if value is None:
        return None
    match type:
        case "boolean":
            return bool(value)
        case "double precision":
            return float(value)
        case "bytea":
            return memoryview(value)
        case "text" if isinstance(value, bytes):
            try:
                return value.decode()
            except UnicodeDecodeError as error:
                raise JournalCorrupt(
                    f"A row of the table {table} is damaged ({error}); repair its thread first."
                ) from error
        case _:
            return value


async def _compare(old: Journal, new: Journal) -> int:
    """Loads each thread from both, and compares the folds; returns how many."""
    marks = await old.marks(owner=None)
    for mark in marks:
        if await old.info(mark.id) != await new.info(mark.id) or not await _is_same(
            old, new, mark.id
        ):
            raise JournalCorrupt(
                f"{mark.id} is not the same in both databases; drop the schema in PostgreSQL, and "
                "report this."
            )
    return len(marks)


async def _is_same(old: Journal, new: Journal, thread_id: str) -> bool:
    try:
        there = await old.load(thread_id)
    except JournalError:  # damaged, or of a newer treadle: it is so in both
        every = 1 << 31
        return await old.stored(thread_id, after=0, limit=every) == await new.stored(
            thread_id, after=0, limit=every
        )
    here = await new.load(thread_id)
    return encode_head(there) == encode_head(here) and there.history[:] == here.history[:]
