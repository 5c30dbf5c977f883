"""Access to the archive of a journal, which opens when it is first used."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from treadle.domain.passages import By, Filters, Found, NewPassage, Passage
from treadle.errors import UnknownPassage
from treadle.journal.base import Journal
from treadle.memory.archive.embedders import Embedder, EmbedFunction, as_embedder

if TYPE_CHECKING:
    from treadle.memory.archive.pages import Statistics
    from treadle.memory.archive.vectors import Matrix


class Store(Protocol):
    """The port to an index of the archive: it is made of events, and searched within one owner.

    All methods raise `MemoryFailed`, and `JournalError` where the journal fails.
    """

    async def close(self) -> None:
        """Waits for operations in progress, and closes the index."""
        ...

    async def search(
        self, owner: str, text: str, *, by: By, filters: Filters, limit: int, offset: int
    ) -> list[Found]:
        """Returns the passages that fit `text` best, of everything that is durable now.

        Raises `InvalidInput` for an unknown `by` and for arguments out of bounds, and
        `ConfigurationError` for a search by vectors without an embedder.
        """
        ...

    async def passages(self, owner: str, passage_id: str) -> list[Passage]:
        """Returns the passage `passage_id` of an owner, once for each thread that has it."""
        ...

    async def statistics(self, owner: str) -> "Statistics":
        """Brings the index up to date; returns the size of the owner's part of it."""
        ...

    async def follow_whole(self, owner: str) -> None:
        """Brings the index up to date, with the vectors of all texts."""
        ...

    async def forget(self, owner: str, thread_id: str, events: Sequence[int] | None = None) -> None:
        """Removes a deleted thread, or what `events` of a thread added; logs errors only."""
        ...

    async def sweep(self, owner: str) -> None:
        """Removes all deleted threads of an owner; logs errors only."""
        ...

    async def vectors_of(self, texts: Sequence[str]) -> "list[Matrix]":
        """Returns the vectors of texts, or nothing without an embedder."""
        ...

    def adding(
        self, owner: str, passages: Sequence[NewPassage], vectors: "Sequence[Matrix]"
    ) -> AbstractAsyncContextManager[None]:
        """Keeps the vectors of passages that become durable inside the block."""
        ...


class ArchiveAccess:
    """Creates the `Store` of a journal when it is first needed.

    - `index`: the file of the index. None keeps it in the database of a journal that several nodes
      share, and that of any other journal in memory.
    - `embedder`: an embedder or a function; None searches by full text only.

    Raises `ConfigurationError` for an embedder that is not valid.
    """

    def __init__(
        self, journal: Journal, index: Path | None, embedder: Embedder | EmbedFunction | str | None
    ) -> None:
        self._journal = journal
        self._index = index
        self._embedder = None if embedder is None else as_embedder(embedder)
        self._store: Store | None = None

    def open(self) -> None:
        """Makes the archive usable, including after `close`."""
        self._store = None

    async def close(self) -> None:
        """Closes the index if it is open; a second call does nothing."""
        if self._store is not None:
            await self._store.close()

    def _opened(self) -> Store:
        if self._store is None:
            # Imported late: sqlite3 takes longer to import than all of treadle, and programs that
            # do not use the archive must not pay for it.
            if self._is_in_database:
                make = import_module("treadle.memory.archive.postgres_archive").PostgresArchive
                self._store = cast("Store", make(self._journal, self._embedder))
            else:
                make = import_module("treadle.memory.archive.store").ArchiveStore
                self._store = cast("Store", make(self._journal, self._index, self._embedder))
        return self._store

    async def search(
        self, owner: str, text: str, *, by: By, filters: Filters, limit: int, offset: int
    ) -> list[Found]:
        """Returns the passages that fit `text` best; see `Store.search`."""
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
        """Removes a thread or some of its messages; see `Store.forget`."""
        if self._may_have_index:
            await self._opened().forget(owner, thread_id, events)

    async def sweep(self, owner: str) -> None:
        """Removes all deleted threads of an owner; see `Store.sweep`."""
        if self._may_have_index:
            await self._opened().sweep(owner)

    @property
    def _may_have_index(self) -> bool:
        """Whether an index may exist; an earlier process, or another one, may have made it."""
        return self._store is not None or self._index is not None or self._is_in_database

    @property
    def _is_in_database(self) -> bool:
        return self._index is None and self._journal.has_nodes

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
        async with self._opened().adding(owner, passages, vectors):
            yield
