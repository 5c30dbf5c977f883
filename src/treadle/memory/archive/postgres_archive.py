"""The archive of a PostgreSQL journal: one index in the database, for all nodes.

Every search first brings the index up to what is durable, whichever node does it. A text that has
no vector is claimed by the process that embeds it; others wait for it, or take it once the claim
has ended.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar
from weakref import WeakValueDictionary

from treadle.domain.passages import By, Filters, Found, NewPassage, Passage
from treadle.errors import ArchiveFailed, JournalError, MemoryFailed, ThreadDamaged, ThreadNotFound
from treadle.journal.postgres import PostgresJournal
from treadle.journal.postgres_connection import PostgresConnection
from treadle.logging import logger_of
from treadle.memory.archive.embedders import Embedder, embedded_or_refused
from treadle.memory.archive.following import next_page
from treadle.memory.archive.pages import Page, Statistics
from treadle.memory.archive.postgres_finder import COMPARED, find, passages, statistics
from treadle.memory.archive.postgres_index import Behind, PostgresIndex
from treadle.memory.archive.postgres_vectors import CLAIM_SECONDS, PostgresVectors, Unembedded
from treadle.memory.archive.query import Query
from treadle.memory.archive.text_vectors import AT_ONCE, BATCH, TextVectors
from treadle.memory.archive.words import lexemes

if TYPE_CHECKING:
    from treadle.memory.archive.vectors import Matrix

T = TypeVar("T")
_LOGGER = logger_of("treadle.archive")

LOOK_SECONDS = 0.05
"""How often a search looks whether other processes have made the vectors that it waits for."""

WAIT_SECONDS = 60.0
"""How long a search waits for them."""


class PostgresArchive:
    """Fulfils `Store` with the tables of the journal's database.

    - `embedder`: None searches by full text only.
    """

    def __init__(self, journal: PostgresJournal, embedder: Embedder | None) -> None:
        self._journal = journal
        self._index = PostgresIndex()
        self._vectors = (
            None if embedder is None else PostgresVectors(embedder.name, embedder.dimensions)
        )
        self._texts = TextVectors(embedder, self._size_before)
        self._following: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._background: dict[str, asyncio.Task[None]] = {}
        self._preparing = asyncio.Lock()
        self._is_prepared = False
        self._damaged: set[str] = set()
        self._closed = False

    async def close(self) -> None:
        """Ends what is done in the background; a second call does nothing."""
        self._closed = True
        tasks = list(self._background.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    # Searching and removing

    async def search(
        self, owner: str, text: str, *, by: By, filters: Filters, limit: int, offset: int
    ) -> list[Found]:
        """Returns the passages that fit `text` best, of everything that is durable now.

        Raises what `TextVectors.query` does, and `JournalError`.
        """
        query = await self._texts.query(text, by, filters, limit, offset)
        await self._follow(owner)
        if query.vector is not None and await self._embed_some(owner, AT_ONCE):
            self._in_background(owner, self._embed_logged)
        return await self._run(lambda connection: self._find(connection, owner, query))

    def _find(self, connection: PostgresConnection, owner: str, query: Query) -> list[Found]:
        words = lexemes(query.words or "")
        stems = self._index.stemmed(connection, words)
        terms = list(dict.fromkeys(stems[word] for word in words))
        embedder = None if self._vectors is None else self._vectors.number(connection)
        return connection.at_once(lambda: find(connection, owner, query, terms, embedder))

    async def passages(self, owner: str, passage_id: str) -> list[Passage]:
        """Returns the passage `passage_id` of an owner, once for each thread that has it."""
        await self._follow(owner)
        return await self._run(lambda c: passages(c, owner, passage_id))

    async def statistics(self, owner: str) -> Statistics:
        """Brings the index up to date; returns the size of the owner's part of it."""
        await self._follow(owner)
        vectors = self._vectors
        return await self._run(
            lambda c: statistics(c, owner, 0 if vectors is None else vectors.number(c)[0])
        )

    async def forget(self, owner: str, thread_id: str, events: Sequence[int] | None = None) -> None:
        """Removes the vectors of a deleted thread, or what `events` of a thread added.

        The texts of a deleted thread left the index in the transaction of the deletion, and so did
        that of an event whose content was removed. Errors are logged only: the marks that they left
        in the index are worked off by the next call of any node.
        """

        def remove(connection: PostgresConnection) -> None:
            if events is not None:
                self._index.forget(connection, thread_id, events)
            self._index.sweep(connection)

        try:
            await self._run(remove)
        except JournalError as error:
            _LOGGER.warning("Deleted texts still have vectors in the archive: %s", error.message)

    async def sweep(self, owner: str) -> None:
        """Removes the vectors of deleted threads; errors are logged only, as in `forget`."""
        await self.forget(owner, "")

    # Following the journal

    async def follow_whole(self, owner: str) -> None:
        """Brings the index up to date, with the vectors of all texts."""
        await self._follow(owner)
        if self._vectors is not None:
            while await self._embed_some(owner, AT_ONCE):
                pass

    async def _follow(self, owner: str) -> None:
        async with self._lock(owner):
            for behind in await self._run(lambda c: self._index.behind(c, owner)):
                await self._follow_thread(behind)

    async def _follow_thread(self, behind: Behind) -> None:
        seq: int | None = behind.seq
        while seq is not None and seq < behind.last:
            try:
                page = await next_page(self._journal, behind.thread_id, seq)
            except ThreadNotFound:
                return  # deleted in between
            except ThreadDamaged as error:
                # Its readable beginning is in the index; the other threads must be found.
                if behind.thread_id not in self._damaged:
                    self._damaged.add(behind.thread_id)
                    _LOGGER.warning("The search leaves out a part: %s", error.message)
                return
            if page is None:
                return  # a new thread with the same id has replaced it
            seq = await self._apply(behind.number, page)

    async def _apply(self, number: int, page: Page) -> int | None:
        return await self._run(lambda connection: self._index.apply(connection, number, page))

    def _lock(self, owner: str) -> asyncio.Lock:
        """Returns the lock of an owner, which keeps the searches of this process from one work."""
        lock = self._following.get(owner)
        if lock is None:
            lock = self._following[owner] = asyncio.Lock()
        return lock

    # Vectors

    @property
    def _made(self) -> PostgresVectors:
        assert self._vectors is not None  # without an embedder, nothing asks for vectors
        return self._vectors

    async def vectors_of(self, texts: Sequence[str]) -> "list[Matrix]":
        """Returns the vectors of texts, or nothing without an embedder; see `TextVectors.of`."""
        return await self._texts.of(texts)

    async def _size_before(self) -> int | None:
        return await self._run(self._made.dimensions)

    @asynccontextmanager
    async def adding(
        self, owner: str, passages: Sequence[NewPassage], vectors: "Sequence[Matrix]"
    ) -> AsyncGenerator[None]:
        """Stores the vectors of passages before they become durable inside the block.

        So no process embeds them again, not even after the end of this one.
        """
        texts = [one.text for one in passages]
        await self._run(lambda c: self._made.keep(c, owner, texts, vectors))
        yield
        self._in_background(owner, self._follow_logged)

    async def _embed_some(self, owner: str, limit: int) -> bool:
        """Makes up to `limit` missing vectors, and waits for those that others are making.

        Returns whether some may still be missing.
        """
        end = asyncio.get_running_loop().time() + WAIT_SECONDS
        while limit > 0:
            texts = await self._run(lambda c: self._made.claim(c, owner, BATCH))
            if texts:
                await self._embed(owner, texts)
                limit -= len(texts)
            elif asyncio.get_running_loop().time() < end and await self._run(
                lambda c: self._made.are_coming(c, owner)
            ):
                await asyncio.sleep(LOOK_SECONDS)
            else:
                return False
        return True

    async def _embed(self, owner: str, texts: Sequence[Unembedded]) -> None:
        digests = [one.digest for one in texts]
        renewing = asyncio.create_task(self._renew(owner, digests), name="treadle archive claim")
        try:
            made = await embedded_or_refused(self.vectors_of, [one.text for one in texts])
            vectors = dict(zip(digests, made, strict=True))
            await self._run(lambda c: self._made.store(c, owner, vectors))
        except BaseException:
            # Not by `_run`: a closed archive gives its claim back as well. Else it ends by itself.
            with contextlib.suppress(JournalError):
                await self._journal.apart(lambda c: self._made.release(c, owner, digests))
            raise
        finally:
            renewing.cancel()
        refused = sum(one is None for one in made)
        if refused:
            _LOGGER.warning(
                "The embedder refuses %d texts of the archive; only full text finds them.", refused
            )

    async def _renew(self, owner: str, digests: Sequence[str]) -> None:
        while True:
            await asyncio.sleep(CLAIM_SECONDS / 3)
            with contextlib.suppress(JournalError):
                await self._run(lambda c: self._made.renew(c, owner, digests))

    # Background and threads

    def _in_background(
        self, owner: str, work: Callable[[str], Coroutine[None, None, None]]
    ) -> None:
        """Starts a task for an owner, unless one is running, or the archive is closed."""
        key = f"{work.__name__} {owner}"
        if key not in self._background and not self._closed:
            task = asyncio.create_task(work(owner), name="treadle archive")
            self._background[key] = task
            task.add_done_callback(lambda _: self._background.pop(key, None))

    async def _follow_logged(self, owner: str) -> None:
        try:
            await self._follow(owner)
            await self._run(self._index.sweep)
        except (MemoryFailed, JournalError) as error:  # the next search raises it
            _LOGGER.warning("The archive could not follow: %s", error.message)

    async def _embed_logged(self, owner: str) -> None:
        try:
            while await self._embed_some(owner, AT_ONCE):
                pass
        except (MemoryFailed, JournalError) as error:  # the next search tries again
            _LOGGER.warning("Vectors are missing in the archive: %s", error.message)

    async def _run(self, work: Callable[[PostgresConnection], T]) -> T:
        if self._closed:
            raise ArchiveFailed("The runtime is not open; use `async with treadle.open(…)`.")
        if not self._is_prepared:
            async with self._preparing:
                if not self._is_prepared:
                    await self._prepare()
                self._is_prepared = True
        return await self._journal.apart(work)

    async def _prepare(self) -> None:
        await self._journal.apart(self._index.sweep)  # what a process has left when it ended
        if self._vectors is not None and not await self._journal.apart(self._vectors.prepare):
            _LOGGER.info(
                "Searches by vectors compare the newest %d passages that fit; with the extension"
                " pgvector, which a superuser may have to create, all.",
                COMPARED,
            )
