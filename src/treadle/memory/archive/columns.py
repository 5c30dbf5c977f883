"""What filters ask of the passages that have a vector, as columns in memory."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from treadle.domain.passages import Filters
from treadle.memory.archive.row import KINDS, ROLES
from treadle.memory.archive.vectors import Slots, VectorFile

if TYPE_CHECKING:
    from numpy.typing import NDArray

Row = tuple[int, int, int, int, int, int, float]
"""A row of the index: stamp, n, slot, s, kind, role, at."""


class Columns:
    """The passages of one owner that have a vector, in the order in which they got it.

    `version` tells when what it holds is wrong and must be read again; rows are only added.
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
        """Adds rows; returns the numbers `n` of those whose vector is not in the file."""
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
        """Returns which rows pass the filters.

        `source` is the thread that is asked for, or `aside` those whose messages are left out;
        a row must be in each of `tagged`.
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
            # A table of all rows there may be is quicker than sorting them.
            known = np.zeros(int(self.n.max(initial=0)) + 1, np.bool_)
            numbers = np.asarray(rows, np.int64)
            known[numbers[numbers < len(known)]] = True
            chosen &= known[self.n]
        return chosen
