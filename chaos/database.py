"""The database of a round: a file, or a schema on the server that CHAOS_DATABASE names."""

import hashlib
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Protocol

from treadle.journal.sql_connection import Cursor


class Reading(Protocol):
    """A connection that reads."""

    def execute(self, sql: str, values: tuple[Any, ...] = (), /) -> Cursor: ...


def server() -> str:
    """Returns the URL of the server, or "" for files."""
    return os.environ.get("CHAOS_DATABASE", "")


def url_of(database: Path) -> str:
    """Returns the URL of the database that has its place at a path."""
    if not server():
        return f"sqlite:///{database}"
    schema = f"chaos_{hashlib.sha256(bytes(database.absolute())).hexdigest()[:16]}"
    return f"{server()}{'&' if '?' in server() else '?'}options=-csearch_path%3D{schema}"


@contextmanager
def reading(database: Path) -> Iterator[Reading]:
    """Opens a database without the runtime."""
    if not server():
        with closing(sqlite3.connect(database)) as connection:
            yield connection
        return
    from treadle.journal.postgres_database import Address  # noqa: PLC0415 - an extra

    other = Address(url_of(database)).connect()
    try:
        yield other
    finally:
        other.raw.close()


def damage(database: Path) -> str:
    """Returns what SQLite finds wrong with the file, or nothing."""
    if server():
        return ""
    with closing(sqlite3.connect(database)) as connection:
        (found,) = connection.execute("PRAGMA integrity_check").fetchone()
    return "" if found == "ok" else str(found)
