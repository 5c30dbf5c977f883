"""The files of one folder, for tools restricted to it."""

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

MAX_FILES = 200
MAX_BYTES = 100_000


class Folder:
    """Text files below `root`; a path that leads out of it, by `..` or by a link, is refused.

    The files of `database` are excluded: opening and closing the file of a database that this
    process uses releases its locks (https://sqlite.org/howtocorrupt.html, section 2.2).
    """

    def __init__(self, root: Path, database: Path | None = None) -> None:
        self._root = root
        self._database = database.resolve() if database is not None else None

    def files(self) -> list[str]:
        """Returns the paths of at most 200 files, without hidden ones."""
        found = self._paths(MAX_FILES + 1)
        if len(found) > MAX_FILES:
            found[MAX_FILES:] = [f"… only the first {MAX_FILES} files are listed"]
        return found

    def searchable(self) -> list[str]:
        """Returns the paths of `files`, without the note about omitted ones."""
        return self._paths(MAX_FILES)

    def read(self, path: str) -> str:
        """Returns the text of a file, cut after 100,000 bytes.

        Raises `ValueError` for a path outside the folder, a path that is not a file, and text that
        is not UTF-8.
        """
        root = self._root.resolve()
        try:
            target = (root / path).resolve()
        except (OSError, ValueError) as error:
            raise ValueError(f"{path[:200]!r} is not a valid path.") from error
        if not target.is_relative_to(root):
            raise ValueError(f"{path[:200]!r} is outside the folder.")
        if not target.is_file() or self._is_database(target):
            raise ValueError(f"{path[:200]!r} is not a file in the folder.")
        with target.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        try:
            text = data[:MAX_BYTES].decode(errors="strict" if len(data) <= MAX_BYTES else "ignore")
        except UnicodeDecodeError as error:
            raise ValueError(f"{path[:200]!r} is not UTF-8 text.") from error
        return text if len(data) <= MAX_BYTES else f"{text}\n… [cut after {MAX_BYTES} bytes]"

    def _paths(self, count: int) -> list[str]:
        first = islice(self._walk(), count)
        return [path.relative_to(self._root).as_posix() for path in first]

    def _walk(self) -> Iterator[Path]:
        for folder, folders, names in os.walk(self._root):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in sorted(names):
                path = Path(folder, name)
                if name.startswith(".") or not path.is_file() or path.is_symlink():
                    continue
                if not self._is_database(path.resolve()):
                    yield path

    def _is_database(self, path: Path) -> bool:
        database = self._database
        return (
            database is not None
            and path.parent == database.parent
            and path.name.startswith(database.name)
        )
