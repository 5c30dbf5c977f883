"""Vectors on disk: a file of float32 rows of length one, searched exhaustively with numpy.

A row of the file is a *slot*. The index records the slot of each passage. The file is written
inside the transaction of the index and before its commit. A crash in between leaves a slot without
a passage, which is free. A power failure can leave a passage whose slot was not written; it is
recognized because the vector does not have length one.
"""

import contextlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

from treadle.domain.passages import Filters
from treadle.errors import EmbeddingInvalid, MissingExtra
from treadle.memory.archive.query import KINDS, ROLES, Hit

try:
    import numpy as np
    from numpy.typing import NDArray
except ImportError as error:
    raise MissingExtra(
        "Searching by vectors needs numpy: install treadle[memory]. Without an embedder, the "
        "archive is searched by full text."
    ) from error

Matrix: TypeAlias = "NDArray[np.float32]"
Slots: TypeAlias = "NDArray[np.int64]"

_CHUNK = 2048
"""How many scattered slots are copied together."""

_DENSE = 4
"""A scan of all slots is faster than gathering single ones from a share of one in four."""

_LENGTH_ERROR = 1e-3


class VectorFile:
    """Vectors of one length in a file, or in memory if `path` is None.

    The file only grows, so that the mappings of other processes stay valid.
    """

    def __init__(self, path: Path | None, dimensions: int) -> None:
        self.path = path
        self.dimensions = dimensions
        self._rows: Matrix = np.zeros((0, dimensions), np.float32)

    def write(self, slots: Sequence[int], vectors: Sequence[Matrix]) -> None:
        """Writes vectors to ascending slots, and waits for the disk; raises `OSError`."""
        rows = np.stack(vectors)
        if self.path is None:
            self._write_memory(slots, rows)
            return
        with self.path.open("r+b" if self.path.exists() else "w+b", buffering=0) as file:
            for start, stop in _runs(slots):
                file.seek(slots[start] * self.dimensions * 4)
                _write_all(file.write, rows[start:stop].tobytes())
            os.fsync(file.fileno())

    def _write_memory(self, slots: Sequence[int], rows: Matrix) -> None:
        if slots and slots[-1] >= len(self._rows):
            grown = np.zeros((max(slots[-1] + 1, len(self._rows) * 2), self.dimensions), np.float32)
            grown[: len(self._rows)] = self._rows
            self._rows = grown
        self._rows[np.asarray(slots, np.int64)] = rows

    def rows(self, least: int) -> Matrix:
        """Returns all slots, including the first `least` of them as far as the file has them.

        Raises `OSError`.
        """
        if self.path is not None and len(self._rows) < least:
            with contextlib.suppress(FileNotFoundError):  # the caller finds all of them missing
                whole = self.path.stat().st_size // (self.dimensions * 4)
                if whole > len(self._rows):
                    self._rows = np.asarray(
                        np.memmap(self.path, np.float32, "r", shape=(whole, self.dimensions))
                    )
        return self._rows

    def is_written(self, slots: Slots) -> "NDArray[np.bool_]":
        """Returns for each slot whether it contains a vector."""
        rows = self.rows(int(slots.max(initial=-1)) + 1)
        written = slots < len(rows)
        lengths = np.zeros(len(slots), np.float32)
        if len(rows) and len(slots) * _DENSE >= len(rows):
            lengths[written] = np.einsum("ij,ij->i", rows, rows)[slots[written]]
        else:
            chosen = rows[slots[written]]
            lengths[written] = np.einsum("ij,ij->i", chosen, chosen)
        return written & (np.abs(lengths - 1) < _LENGTH_ERROR)

    def scores(self, slots: Slots, query: Matrix) -> Matrix:
        """Returns the cosine similarity of `query` and each vector in `slots`."""
        if not len(slots):
            return np.zeros(0, np.float32)
        low, high = int(slots.min()), int(slots.max()) + 1
        rows = self.rows(high)
        if len(slots) * _DENSE >= high - low:
            return _products(rows[low:high], query)[slots - low]
        scores = np.empty(len(slots), np.float32)
        chunk = np.empty((min(_CHUNK, len(slots)), self.dimensions), np.float32)
        for start in range(0, len(slots), _CHUNK):
            part = slots[start : start + _CHUNK]
            np.take(rows, part, axis=0, out=chunk[: len(part)], mode="clip")
            scores[start : start + len(part)] = _products(chunk[: len(part)], query)
        return scores

    @staticmethod
    def best(scores: Matrix, n: Slots, limit: int) -> list[Hit]:
        """Returns the rows `n` with the highest scores, newer rows first among equal scores."""
        places = np.arange(len(scores))
        if len(scores) > limit:
            least = np.partition(scores, len(scores) - limit)[len(scores) - limit]
            places = np.flatnonzero(scores >= least)
        order = places[np.lexsort((-n[places], -scores[places]))][:limit]
        return list(map(Hit, n[order].tolist(), scores[order].tolist()))


Row = tuple[int, int, int, int, int, int, float]
"""A row of the table `passage`: stamp, n, slot, s, kind, role, at."""


class Columns:
    """The columns that filters need, for the passages of one owner that have a vector.

    Rows are in the order in which they got their vectors, and are only added. When rows change or
    leave, the owner's `version` in the index changes, and a new `Columns` is read from scratch.
    """

    def __init__(self, version: object) -> None:
        self.version = version
        self.stamp = 0
        self.n: Slots = np.zeros(0, np.int64)
        self.slot: Slots = np.zeros(0, np.int64)
        self._source: Slots = np.zeros(0, np.int64)
        self._kind: NDArray[np.int8] = np.zeros(0, np.int8)
        self._role: NDArray[np.int8] = np.zeros(0, np.int8)
        self._at: NDArray[np.float64] = np.zeros(0, np.float64)

    def __len__(self) -> int:
        return len(self.n)

    def add(self, rows: Sequence[Row], file: VectorFile) -> list[int]:
        """Adds rows; returns the numbers `n` of rows whose vector is missing from the file."""
        if not rows:
            return []
        stamps, *columns = zip(*rows, strict=True)
        self.stamp = stamps[-1]
        numbers, slots = np.asarray(columns[0], np.int64), np.asarray(columns[1], np.int64)
        written = file.is_written(slots)
        source, kind, role, at = columns[2:]
        self.n = np.concatenate([self.n, numbers[written]])
        self.slot = np.concatenate([self.slot, slots[written]])
        self._source = np.concatenate([self._source, np.asarray(source, np.int64)[written]])
        self._kind = np.concatenate([self._kind, np.asarray(kind, np.int8)[written]])
        self._role = np.concatenate([self._role, np.asarray(role, np.int8)[written]])
        self._at = np.concatenate([self._at, np.asarray(at, np.float64)[written]])
        return [int(n) for n in numbers[~written]]

    def chosen(
        self,
        filters: Filters,
        *,
        source: int | None,
        aside: Sequence[int],
        tagged: Sequence[Sequence[int]],
    ) -> "NDArray[np.bool_]":
        """Returns for each row whether it passes the filters.

        - `source`: the only thread that is searched, or None.
        - `aside`: without a `source`, the threads whose messages are left out.
        - `tagged`: lists of row numbers `n`; a row must be in each of them.
        """
        chosen = np.ones(len(self), np.bool_)
        if source is not None:
            chosen &= self._source == source
        elif aside:
            chosen &= ~(np.isin(self._source, aside) & (self._kind == KINDS.index("message")))
        if filters.kind is not None:
            chosen &= self._kind == KINDS.index(filters.kind)
        if filters.roles:
            chosen &= np.isin(self._role, [ROLES.index(role) for role in filters.roles])
        if filters.period.since is not None:
            chosen &= self._at >= filters.period.since
        if filters.period.until is not None:
            chosen &= self._at <= filters.period.until
        for rows in tagged:
            # A lookup table over all row numbers is faster than `isin`, which sorts.
            known = np.zeros(int(self.n.max(initial=0)) + 1, np.bool_)
            numbers = np.asarray(rows, np.int64)
            known[numbers[numbers < len(known)]] = True
            chosen &= known[self.n]
        return chosen


def checked(vectors: Sequence[Sequence[float]], count: int, dimensions: int | None) -> Matrix:
    """Returns the vectors of an embedder for `count` texts, scaled to length one.

    A vector of zeros has no direction and stays as it is. Raises `EmbeddingInvalid` unless there
    are `count` vectors of finite numbers, all of `dimensions` or of one size if that is None.
    """
    if len(vectors) != count:
        raise EmbeddingInvalid(
            f"The embedder returned {len(vectors)} vectors for {count} texts; it must return one "
            "for each, in the same order."
        )
    try:
        sizes = {len(vector) for vector in vectors}
    except TypeError as error:
        raise EmbeddingInvalid(f"The embedder did not return vectors: {error}.") from error
    if len(sizes) > 1 or 0 in sizes or (dimensions is not None and sizes != {dimensions}):
        known = "one size" if dimensions is None else f"the size {dimensions}"
        raise EmbeddingInvalid(
            f"The embedder returned vectors of the sizes {', '.join(map(str, sorted(sizes)))}; "
            f"all must have {known}."
        )
    try:
        matrix = np.asarray(vectors, np.float64)
    except (TypeError, ValueError) as error:
        raise EmbeddingInvalid(f"The embedder did not return vectors: {error}.") from error
    if matrix.ndim != 2:
        raise EmbeddingInvalid("The embedder returned nested lists; a vector is a list of numbers.")
    if not np.isfinite(matrix).all():
        raise EmbeddingInvalid("The embedder returned a vector with infinite or missing numbers.")
    # Divided by the largest number first, so that the squares do not overflow.
    matrix /= np.maximum(np.abs(matrix).max(axis=1, keepdims=True), np.finfo(np.float64).tiny)
    lengths = np.linalg.norm(matrix, axis=1, keepdims=True)
    return (matrix / np.maximum(lengths, np.finfo(np.float64).tiny)).astype(np.float32)


def best_of(rows: Sequence[tuple[int, bytes]], query: Matrix, limit: int) -> list[Hit]:
    """Returns the rows `n` whose vectors (little-endian floats) are closest to `query`."""
    if not rows:
        return []
    stored = np.frombuffer(b"".join(vector for _, vector in rows), "<f4")
    scores = _products(stored.reshape(len(rows), -1), query)
    return VectorFile.best(scores, np.asarray([n for n, _ in rows], np.int64), limit)


def floats_in(vector: bytes) -> list[float]:
    """Returns the numbers of a vector of little-endian floats."""
    return np.frombuffer(vector, "<f4").tolist()


def _products(rows: Matrix, query: Matrix) -> Matrix:
    # Not `@`: a BLAS library keeps its threads spinning for a while after each product, and this
    # process and others then wait for a free core.
    return np.einsum("ij,j->i", rows, query)


def _runs(slots: Sequence[int]) -> list[tuple[int, int]]:
    """Returns the bounds in `slots` of each run of slots that are adjacent in the file."""
    cuts = [at for at in range(1, len(slots)) if slots[at] != slots[at - 1] + 1]
    return list(zip([0, *cuts], [*cuts, len(slots)], strict=True)) if slots else []


def _write_all(write: Callable[[bytes | memoryview], int | None], data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[write(left) or 0 :]
