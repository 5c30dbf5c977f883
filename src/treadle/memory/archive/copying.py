"""Copies the vectors of a SQLite index to PostgreSQL, so that no text is embedded again."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from importlib import import_module
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING

from treadle.errors import MemoryFailed
from treadle.journal.postgres import PostgresJournal
from treadle.journal.postgres_connection import PostgresConnection
from treadle.logging import logger_of
from treadle.memory.archive.index_file import VectorFiles, reader, space_of, typed_errors
from treadle.memory.archive.postgres_vectors import PostgresVectors

if TYPE_CHECKING:
    from treadle.memory.archive.vectors import Matrix, VectorFile

_LOGGER = logger_of("treadle.archive")
_ROWS = 500
_KEPT_DAYS = 30
"""After which time those vectors are removed whose texts were not indexed meanwhile."""


async def copy_vectors(index: Path, url: str) -> int:
    """Copies the vectors of the file `index` to the PostgreSQL database at `url`.

    Returns how many; 0 if the file cannot be read: then they are made again. The rest of the index
    follows from the events, and is made with the first searches. Raises `JournalError`.
    """
    journal = PostgresJournal(url, alone=True)
    await journal.open()
    try:
        return await journal.apart(lambda connection: _copy(index, connection))
    except MemoryFailed as error:
        _LOGGER.warning("The vectors of the archive are not copied: %s", error.message)
        return 0
    finally:
        await journal.close()


def _copy(index: Path, connection: PostgresConnection) -> int:
    count = 0
    with closing(reader(index)) as file:
        with typed_errors():
            space = space_of(file)
        if space.dimensions is None:
            return 0
        made = PostgresVectors(space.embedder, space.dimensions)
        made.prepare(connection)
        for owner, texts, vectors in _pages(file, VectorFiles(index).get(space)):
            made.keep(connection, owner, texts, vectors, f"{_KEPT_DAYS} days")
            count += len(texts)
    return count


def _pages(
    file: sqlite3.Connection, stored: "VectorFile"
) -> "Iterator[tuple[str, Sequence[str], Sequence[Matrix]]]":
    """Returns texts of an owner with their vectors, some hundred at a time."""
    np = import_module("numpy")
    with typed_errors():
        rows = file.execute(
            "SELECT w.name, p.text, p.slot FROM passage p JOIN owner w ON w.o = p.o"
            " WHERE p.slot >= 0 ORDER BY p.o, p.n"
        )
        while page := rows.fetchmany(_ROWS):
            slots = np.asarray([slot for _, _, slot in page], np.int64)
            written = stored.is_written(slots)
            found = [one for one, is_there in zip(page, written, strict=True) if is_there]
            for owner, group in groupby(found, key=itemgetter(0)):
                each = list(group)
                lines = stored.rows(0)
                yield owner, [text for _, text, _ in each], [lines[slot] for _, _, slot in each]
