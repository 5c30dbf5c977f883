"""The vectors of texts and queries: made by an embedder, and checked."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, cast

from treadle.domain.passages import By, Filters
from treadle.errors import ConfigurationError
from treadle.memory.archive.embedders import (
    Embedder,
    Vectors,
    changed_size,
    embedded,
    in_thread,
)
from treadle.memory.archive.query import Query, require_bounds, require_way

if TYPE_CHECKING:
    from treadle.memory.archive.vectors import Matrix

    _Check = Callable[[Vectors, int, int | None], Iterable[Matrix]]

BATCH = 128
"""How many texts an embedder gets in one call."""

AT_ONCE = 512
"""How many missing vectors a search waits for; the others are made in the background."""

_FEW = 4
"""So many vectors are checked on the event loop; more of them in a thread."""


class TextVectors:
    """Makes the vectors of an archive, which all have one length.

    - `embedder`: None makes none.
    - `size_before`: returns the length of those that were made earlier, or None.
    """

    def __init__(
        self, embedder: Embedder | None, size_before: Callable[[], Awaitable[int | None]]
    ) -> None:
        self._embedder = embedder
        self._size_before = size_before
        self._check: _Check | None = None
        self._size: int | None = None

    async def query(self, text: str, by: By, filters: Filters, limit: int, offset: int) -> Query:
        """Returns a search, with the vector of its text if vectors are to be compared.

        Raises `InvalidInput` for an unknown `by` and for arguments out of bounds,
        `ConfigurationError` for a search by vectors without an embedder, `EmbeddingFailed` and
        `EmbeddingInvalid`.
        """
        require_way(by)
        require_bounds(text, limit, offset)
        if self._embedder is None:
            if by == "vector":
                raise ConfigurationError(
                    "by='vector' needs an embedder; open the runtime with embedder=…."
                )
            by = "text"
        lists = not text.strip()
        text = text.encode("utf-8", "replace").decode()  # no text has a lone surrogate
        vector = None if by == "text" or lists else (await self.of([text]))[0]
        words = None if by == "vector" or lists else text
        name = self._embedder.name if self._embedder is not None else ""
        return Query(filters, words, vector, limit, offset, name)

    async def of(self, texts: Sequence[str]) -> "list[Matrix]":
        """Returns the vectors of texts, scaled to length one; nothing without an embedder.

        Raises `EmbeddingFailed` and `EmbeddingInvalid`.
        """
        embedder = self._embedder
        if embedder is None or not texts:
            return []
        vectors = await embedded(embedder, texts)
        if self._check is None:
            # Imports numpy, which takes long and may be missing in programs without an embedder.
            module = await in_thread(import_module, "treadle.memory.archive.vectors")
            self._check = cast("_Check", module.checked)
        check, size = self._check, embedder.dimensions
        if size is None and self._size is None:
            known = await self._size_before()
            self._size = known if self._size is None else self._size
        if len(texts) <= _FEW:
            rows = list(check(vectors, len(texts), size))
        else:
            rows = list(await in_thread(check, vectors, len(texts), size))
        self._size = self._size or len(rows[0])
        if self._size != len(rows[0]):
            raise changed_size(embedder.name, len(rows[0]), self._size)
        return rows
