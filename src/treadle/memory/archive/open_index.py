"""The open files of an index, and the two threads that work with them."""

import contextlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from treadle.errors import ArchiveFailed
from treadle.memory.archive.embedder import Embedder
from treadle.memory.archive.finder import Finder
from treadle.memory.archive.index import Index
from treadle.memory.archive.index_file import IndexDamaged, reader, set_aside
from treadle.memory.archive.space import VectorFiles


class OpenIndex:
    """Opens the index `path`, or one in memory; a damaged file is put aside and made anew.

    `index` is for the thread `writer`, `finder` for the thread `reader`. Raises `ArchiveFailed`.
    """

    def __init__(self, path: Path | None, embedder: Embedder | None) -> None:
        self._path = path
        try:
            self.index = _index(path, embedder)
        except IndexDamaged:
            if path is None:
                raise
            set_aside(path)
            self.index = _index(path, embedder)
        self._inode = _inode(path)
        self.writer = ThreadPoolExecutor(1, thread_name_prefix="treadle-archive")
        if path is None:
            # What is in memory has one connection, and one thread that uses it.
            self.finder = Finder(self.index.connection, self.index.files)
            self.reader = self.writer
        else:
            try:
                connection = reader(path)
            except BaseException:
                self.index.close()
                raise
            self.finder = Finder(connection, VectorFiles(path))
            self.reader = ThreadPoolExecutor(1, thread_name_prefix="treadle-archive-reader")

    def close(self) -> None:
        """Waits for what was begun, and closes the files."""
        self.writer.shutdown(wait=True)
        self.reader.shutdown(wait=True)
        with contextlib.suppress(ArchiveFailed):  # what is damaged is given up in any case
            if self.index.untidy:
                self.index.tidy()
        for open_file in (self.finder, self.index):
            with contextlib.suppress(ArchiveFailed):  # one that fails must not leave the other open
                open_file.close()

    def set_aside(self) -> None:
        """Puts the file aside, unless another process has done so and there is a new one."""
        if self._path is not None and _inode(self._path) == self._inode:
            set_aside(self._path)


def _index(path: Path | None, embedder: Embedder | None) -> Index:
    index = Index(path)
    try:
        if embedder is not None:
            index.use_embedder(embedder.name, embedder.dimensions)
        else:
            index.remove_leftovers()
    except BaseException:
        index.close()
        raise
    return index


def _inode(path: Path | None) -> int:
    try:
        return path.stat().st_ino if path is not None else 0
    except FileNotFoundError:  # somebody removed it: then it is made anew
        return 0
