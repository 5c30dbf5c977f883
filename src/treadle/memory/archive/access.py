"""The way to the archive of a journal, which opens when it is first used."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from treadle.domain.passages import By, Filters, Found, NewPassage, Passage
from treadle.errors import ConfigurationError, UnknownPassage
from treadle.journal.base import Journal

if TYPE_CHECKING:
    from treadle.memory.archive.embedders import Embedder, EmbedFunction
    from treadle.memory.archive.index import Statistics
    from treadle.memory.archive.store import ArchiveStore, Matrix


class ArchiveAccess:
    """Makes the `ArchiveStore` of a journal when it is needed: programs without one load none.

    `index` is the file of the index; None keeps it in memory.
    """

    def __init__(
        self,
        journal: Journal,
        index: Path | None,
        embedder: "Embedder | EmbedFunction | None",
    ) -> None:
        _require_embedder(embedder)
        self._journal = journal
        self._index = index
        self._embedder = embedder
        self._store: ArchiveStore | None = None

    def open(self) -> None:
        """Lets it be used, also again after `close`."""
        self._store = None

    async def close(self) -> None:
        """Closes what was opened; a second call does nothing."""
        if self._store is not None:
            await self._store.close()

    def _made(self) -> "ArchiveStore":
        if self._store is not None:
            return self._store
        # Imported when it is first used: SQLite takes longer to import than all of treadle.
        embedder = self._embedder
        if embedder is not None:
            embedder = import_module("treadle.memory.archive.embedders").as_embedder(embedder)
        make = import_module("treadle.memory.archive.store").ArchiveStore
        made: ArchiveStore = make(self._journal, self._index, embedder)
        self._store = made
        return made

    async def search(
        self, owner: str, text: str, *, by: By, filters: Filters, limit: int, offset: int
    ) -> list[Found]:
        """Returns what fits `text` best; see `ArchiveStore.search`."""
        return await self._made().search(
            owner, text, by=by, filters=filters, limit=limit, offset=offset
        )

    async def passages(self, owner: str, passage_id: str) -> list[Passage]:
        """Returns a passage of an owner's archive, from each thread that has it; forks have it too.

        Raises `UnknownPassage` where none has.
        """
        id = passage_id.encode("utf-8", "replace").decode()  # half of a pair is in no id
        found = await self._made().passages(owner, id)
        if not found:
            raise UnknownPassage(f"There is no passage {passage_id[:100]!r} in the archive.")
        return found

    async def statistics(self, owner: str) -> "Statistics":
        """Returns how much of an owner's there is."""
        return await self._made().statistics(owner)

    async def follow(self, owner: str) -> None:
        """Waits until the index has all of an owner's, with vectors."""
        await self._made().follow_whole(owner)

    async def forget(self, owner: str, thread_id: str) -> None:
        """Forgets a thread that was deleted; see `ArchiveStore.forget`."""
        if self._may_have_index:
            await self._made().forget(owner, thread_id)

    async def sweep(self, owner: str) -> None:
        """Forgets all threads of an owner that were deleted; see `ArchiveStore.sweep`."""
        if self._may_have_index:
            await self._made().sweep(owner)

    @property
    def _may_have_index(self) -> bool:
        """Whether there is an index, maybe one that an earlier process made."""
        return self._store is not None or self._index is not None

    async def vectors_of(self, texts: Sequence[str]) -> "list[Matrix]":
        """Returns the vectors of texts, none without an embedder; raises `MemoryFailed`."""
        return [] if self._embedder is None else await self._made().vectors_of(texts)

    @asynccontextmanager
    async def adding(
        self, owner: str, passages: Sequence[NewPassage], vectors: "Sequence[Matrix]"
    ) -> AsyncGenerator[None]:
        """Keeps the vectors of passages that become durable inside, so that the index finds them.

        Without vectors there is nothing to keep: the next search finds what is durable.
        """
        if not vectors:
            yield
            return
        store = self._made()
        store.keep_vectors(passages, vectors)
        try:
            yield
        except BaseException:
            store.drop_vectors(passages)
            raise
        await store.added(owner)


def _require_embedder(embedder: object) -> None:
    """Raises `ConfigurationError` for what is neither None nor an embedder nor a function."""
    if embedder is None or (callable(embedder) and not hasattr(embedder, "embed")):
        return
    if not callable(getattr(embedder, "embed", None)):
        raise ConfigurationError(
            f"{embedder!r} cannot embed; give an Embedder, or a function of a list of texts."
        )
    name, size = getattr(embedder, "name", None), getattr(embedder, "dimensions", "missing")
    if not isinstance(name, str) or not name.isprintable() or not name:
        raise ConfigurationError(
            f"The name of the embedder is {name!r:.100}; it must be a text that tells its vectors "
            "from those of others."
        )
    if size is not None and (not isinstance(size, int) or size < 1):
        raise ConfigurationError(
            f"The dimensions of the embedder {name} are {size!r:.100}; they must be a number, or "
            "None where only the first vector tells."
        )
