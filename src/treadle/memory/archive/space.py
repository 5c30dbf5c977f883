"""Which vectors there are, and the file they are in."""

import contextlib
import os
import sqlite3
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from treadle.errors import ArchiveFailed

if TYPE_CHECKING:
    from treadle.memory.archive.columns import Columns
    from treadle.memory.archive.vectors import VectorFile


class VectorSpace(Struct, frozen=True):
    """Which vectors there are: whose, of which size, and in which file."""

    embedder: str
    dimensions: int | None
    file: str


def space_of(connection: sqlite3.Connection) -> VectorSpace:
    """Returns which vectors there are."""
    row = connection.execute("SELECT embedder, dimensions, file FROM vectors").fetchone()
    return VectorSpace(*row)


def require_embedder(space: VectorSpace, name: str) -> None:
    """Raises `ArchiveFailed` unless the vectors are those of the embedder `name`."""
    if space.embedder != name:
        raise ArchiveFailed(
            f"Another process makes the vectors of this archive with {space.embedder!r}, this one "
            f"with {name!r}; give both the same embedder."
        )


class VectorFiles:
    """Opens the file of the vectors beside the index `path`, or memory where that is None.

    numpy is imported with the first of them: without vectors, nobody needs it.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._open: dict[str, VectorFile] = {}

    def get(self, space: VectorSpace) -> "VectorFile":
        """Returns the file of a space whose size is known."""
        if space.file not in self._open:
            path = self._path.with_name(space.file) if self._path is not None else None
            make = import_module("treadle.memory.archive.vectors").VectorFile
            self._open = {space.file: make(path, space.dimensions)}
        return self._open[space.file]

    def wipe(self, space: VectorSpace, slots: Sequence[int]) -> None:
        """Overwrites slots on the disk that nobody names; raises `OSError`."""
        if self._path is None:
            return
        size = 4 * (space.dimensions or 0)
        path = self._path.with_name(space.file)
        with contextlib.suppress(FileNotFoundError), path.open("r+b") as file:
            end = file.seek(0, os.SEEK_END)
            for slot in slots:
                if slot * size < end:  # else it was never written
                    file.seek(slot * size)
                    file.write(bytes(size))

    def columns(self, version: object) -> "Columns":
        """Returns columns for the passages with vectors."""
        return import_module("treadle.memory.archive.columns").Columns(version)
