"""Access to the archive of a journal, which opens when it is first used."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from treadle.domain.passages import By, Filters, Found, NewPassage, Passage
from treadle.errors import UnknownPassage
from treadle.journal.base import Journal
from treadle.memory.archive.embedders import Embedder, EmbedFunction, as_embedder

if TYPE_CHECKING:
    from treadle.memory.archive.index import Statistics
    from treadle.memory.archive.store import ArchiveStore, Matrix


class ArchiveAccess:
    """Creates the `ArchiveStore` of a journal when it is first needed.

    - `index`: the file of the index; None keeps the index in memory.
    - `embedder`: an embedder or a function; None searches by full text only.

    Raises `ConfigurationError` for an embedder that is not valid.
    """

    def __init__(
        self, journal: Journal, index: Path | None, embedder: Embedder | EmbedFunction | str | None
    ) -> None:
        self._journal = journal
        self._index = index
        self._embedder = None if embedder is None else as_embedder(embedder)
        self._store: ArchiveStore | None = None

    def open(self) -> None:
        """Makes the archive usable, including after `close`."""
        self._store = None

    async def close(self) -> None:
        """Closes the index if it is open; a second call does nothing."""
        if self._store is not None:
            await self._store.close()

    def _opened(self) -> "ArchiveStore":
        if self._store is None:
            # Imported late: sqlite3 takes longer to import than all of treadle, and programs that
            # do not use the archive must not pay for it.
            make = import_module("treadle.memory.archive.store").ArchiveStore
            store: ArchiveStore = make(self._journal, self._index, self._embedder)
            self._store = store
        return self._store

    async def search(
        self, owner: str, text: str, *, by: By, filters: Filters, limit: int, offset: int
    ) -> list[Found]:
        """Returns the passages that fit `text` best; see `ArchiveStore.search`."""
        return await self._opened().search(
            owner, text, by=by, filters=filters, limit=limit, offset=offset
        )

    async def passages(self, owner: str, passage_id: str) -> list[Passage]:
        """Returns a passage of an owner, once for each thread that has it: forks have copies.

        Raises `UnknownPassage` if no thread has it.
        """
        # A lone surrogate cannot be encoded for SQLite, and is not part of any id.
        id = passage_id.encode("utf-8", "replace").decode()
        found = await self._opened().passages(owner, id)
        if not found:
            raise UnknownPassage(f"The archive has no passage {passage_id[:100]!r}.")
        return found

    async def statistics(self, owner: str) -> "Statistics":
        """Returns how many passages of an owner are in the index."""
        return await self._opened().statistics(owner)

    async def follow(self, owner: str) -> None:
        """Waits until the index has all passages of an owner, with their vectors."""
        await self._opened().follow_whole(owner)

    async def forget(self, owner: str, thread_id: str, events: Sequence[int] | None = None) -> None:
        """Removes a thread or some of its messages; see `ArchiveStore.forget`."""
        if self._may_have_index:
            await self._opened().forget(owner, thread_id, events)

    async def sweep(self, owner: str) -> None:
        """Removes all deleted threads of an owner; see `ArchiveStore.sweep`."""
        if self._may_have_index:
            await self._opened().sweep(owner)

    @property
    def _may_have_index(self) -> bool:
        """Whether an index may exist; an earlier process may have written the file."""
        return self._store is not None or self._index is not None

    async def vectors_of(self, texts: Sequence[str]) -> "list[Matrix]":
        """Returns the vectors of texts, nothing without an embedder; raises `MemoryFailed`."""
        return [] if self._embedder is None else await self._opened().vectors_of(texts)

    @asynccontextmanager
    async def adding(
        self, owner: str, passages: Sequence[NewPassage], vectors: "Sequence[Matrix]"
    ) -> AsyncGenerator[None]:
        """Holds the vectors of passages that become durable inside the block for the index.

        The index reads a passage as soon as it is durable, so its vector must be held before.
        Without vectors there is nothing to hold: the next search reads the passages.
        """
        if not vectors:
            yield
            return
        store = self._opened()
        store.keep_vectors(passages, vectors)
        try:
            yield
        except BaseException:
            store.drop_vectors(passages)
            raise
        await store.added(owner)
