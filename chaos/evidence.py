"""What happened, written down outside the database by whoever did or saw it."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec

Kind = Literal["threads", "intents", "acks", "effects", "repeats", "seen"]


class Evidence:
    """Append-only logs of JSON lines in a folder; a line survives the process that wrote it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files: dict[Kind, int] = {}

    def add(self, kind: Kind, *values: object) -> None:
        """Writes one line with one system call, so that a kill cannot leave half of it."""
        if kind not in self._files:
            flags = os.O_APPEND | os.O_CREAT | os.O_WRONLY
            self._files[kind] = os.open(self._path(kind), flags, 0o600)
        os.write(self._files[kind], msgspec.json.encode(values) + b"\n")

    def read(self, kind: Kind) -> Iterator[list[str]]:
        """Yields the lines of a log, each a list of texts."""
        path = self._path(kind)
        if path.exists():
            for line in path.read_bytes().splitlines():
                yield msgspec.json.decode(line, type=list[str])

    def _path(self, kind: Kind) -> Path:
        return self.folder / f"{kind}.log"
