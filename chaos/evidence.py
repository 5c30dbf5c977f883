"""What happened, written down outside the database by whoever did or saw it."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import Struct

R = TypeVar("R", bound=Struct)


class Evidence:
    """Append-only logs of JSON lines in a folder, one for each kind of record.

    A line survives the process that wrote it. A kill in the middle of writing may leave the
    beginning of a line: then it was not said.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files: dict[type[Struct], int] = {}

    def add(self, record: Struct) -> None:
        """Writes one line with one system call."""
        kind = type(record)
        if kind not in self._files:
            flags = os.O_APPEND | os.O_CREAT | os.O_WRONLY
            self._files[kind] = os.open(self._path(kind), flags, 0o600)
        # The line break in front keeps this line apart from one that was cut off.
        os.write(self._files[kind], b"\n" + msgspec.json.encode(record) + b"\n")

    def read(self, kind: type[R]) -> Iterator[R]:
        """Yields the records of a kind, in the order in which they were written."""
        path = self._path(kind)
        for line in path.read_bytes().splitlines() if path.exists() else ():
            try:
                record = msgspec.json.decode(line, type=kind) if line else None
            except msgspec.DecodeError:
                continue  # the writer was killed within the line
            if record is not None:
                yield record

    def close(self) -> None:
        """Closes the files; what is added afterwards opens them again."""
        for file in self._files.values():
            os.close(file)
        self._files.clear()

    def _path(self, kind: type[Struct]) -> Path:
        return self.folder / f"{kind.__name__}.log"
