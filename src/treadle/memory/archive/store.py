"""The archive of a journal: keeps the index up to date, and searches it.

The index opens with the first use, and has worker threads of its own. The archive only reads the
journal, so no conversation waits for the index or depends on it.
"""

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from weakref import WeakValueDictionary

from msgspec import Struct

from treadle.domain.passages import By, Filters, Found, NewPassage, Passage
from treadle.errors import (
    ArchiveFailed,
    EmbeddingInvalid,
    JournalError,
    MemoryFailed,
    ThreadDamaged,
    ThreadNotFound,
)
from treadle.journal.base import Journal, ThreadMark
from treadle.logging import logger_of
from treadle.memory.archive.embedders import (
    Embedder,
    embedded_or_refused,
    in_thread,
)
from treadle.memory.archive.finder import Finder
from treadle.memory.archive.following import next_page
from treadle.memory.archive.index import Index, Known, Source
from treadle.memory.archive.index_file import (
    IndexDamaged,
    IndexGone,
    VectorFiles,
    Written,
    reader,
    remove_damaged,
    set_aside,
)
from treadle.memory.archive.pages import Page, Statistics
from treadle.memory.archive.query import Query
from treadle.memory.archive.text_vectors import AT_ONCE, BATCH, TextVectors

if TYPE_CHECKING:
    from treadle.memory.archive.vectors import Matrix

_VectorKey = tuple[str, int]
"""The id of a passage, and the hash of its text: another thread may use the id for another text."""

T = TypeVar("T")
_LOGGER = logger_of("treadle.archive")

TIDY_SECONDS = 2.0
"""How long a deletion waits until what it removed is overwritten in the files of the index."""

_TIDY = "treadle archive tidy"
_QUICK_SECONDS = 0.1
_REST = 10
"""After a cleaning longer than `_QUICK_SECONDS`, the next one waits this many times as long."""

_KEPT_VECTORS = 4096
"""How many vectors wait for the index before `added` waits for it."""

_KEPT_OWNERS = 64


class _Settled(Struct, frozen=True):
    """The threads of an owner that the index had completely, and its count of writes then."""

    marks: list[ThreadMark]
    written: Written


class OpenIndex:
    """Opens the index `path`, or one in memory; sets a damaged file aside and makes a new one.

    `index` is used in the thread `writer` only, `finder` in the thread `reader` only. Raises
    `ArchiveFailed`.
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
            # A database in memory belongs to one connection, which one thread uses.
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
        """Waits for operations in progress, and closes the files."""
        self.writer.shutdown(wait=True)
        self.reader.shutdown(wait=True)
        with contextlib.suppress(ArchiveFailed):  # a damaged file cannot be tidied
            while self.index.untidy:
                self.index.tidy()
        for open_file in (self.finder, self.index):
            with contextlib.suppress(ArchiveFailed):  # one that fails must not leave the other open
                open_file.close()

    def set_aside(self) -> None:
        """Sets the file aside, unless another process has already replaced it by a new one."""
        if self._path is not None and _inode(self._path) == self._inode:
            set_aside(self._path)


class ArchiveStore:
    """Searches the messages and the texts that are on the threads of a journal.

    - `path`: the file of the index; None keeps it in memory.
    - `embedder`: None searches by full text only.
    """

    def __init__(self, journal: Journal, path: Path | None, embedder: Embedder | None) -> None:
        self._journal = journal
        self._path = path
        self.embedder = embedder
        self._opening = asyncio.Lock()
        self._files: OpenIndex | None = None
        self._following: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._embedding: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._vectors: dict[_VectorKey, Matrix] = {}
        self._background: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._refused: list[int] = []
        self._texts = TextVectors(embedder, self._size_before)
        self._settled: OrderedDict[str, _Settled] = OrderedDict()
        self._damaged: set[str] = set()
        self._rests_until = 0.0
        self._closed = False

    async def close(self) -> None:
        """Waits for operations in progress, and closes the index; a second call does nothing."""
        self._closed = True
        tasks = list(self._background.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        async with self._opening:
            await self._shut()

    # Searching and removing

    async def search(
        self, owner: str, text: str, *, by: By, filters: Filters, limit: int, offset: int
    ) -> list[Found]:
        """Returns the passages that fit `text` best, of everything that is durable now.

        Raises `InvalidInput` for an unknown `by` and for arguments out of bounds,
        `ConfigurationError` for a search by vectors without an embedder, and `MemoryFailed`.
        """
        query = await self._texts.query(text, by, filters, limit, offset)
        return await self._repaired(lambda: self._search(owner, query))

    async def _search(self, owner: str, query: Query) -> list[Found]:
        with_vectors = query.vector is not None
        await self._follow(owner, with_vectors=with_vectors)
        settled = self._settled.get(owner)
        answer = await self._read(lambda finder: finder.find(owner, query))
        if settled is not None and answer.written != settled.written:
            # Another process wrote after `_follow`. It may have read a thread before its deletion
            # and written the passages after we removed them, so the answer may contain them.
            self._settled.pop(owner, None)
            await self._follow(owner, with_vectors=with_vectors)
            answer = await self._read(lambda finder: finder.find(owner, query))
        if answer.broken:
            # A power failure lost vectors whose rows are durable, or the file is missing.
            await self._write(lambda index: index.unset_vectors(answer.broken))
            await self._follow(owner, with_vectors=with_vectors)
            answer = await self._read(lambda finder: finder.find(owner, query))
        return answer.found

    async def passages(self, owner: str, passage_id: str) -> list[Passage]:
        """Returns the passage `passage_id` of an owner, once for each thread that has it."""
        return await self._followed(owner, lambda index: index.passages(owner, passage_id))

    async def statistics(self, owner: str) -> Statistics:
        """Brings the index up to date; returns the size of the owner's part of it."""
        return await self._followed(owner, lambda index: index.statistics(owner))

    async def _followed(self, owner: str, read: Callable[[Index], T]) -> T:
        async def operation() -> T:
            self._settled.pop(owner, None)  # another process may have written since
            await self._follow(owner, with_vectors=False)
            return await self._write(read)

        return await self._repaired(operation)

    async def forget(self, owner: str, thread_id: str, events: Sequence[int] | None = None) -> None:
        """Removes a deleted thread from the index, or what `events` of a thread added.

        Waits up to `TIDY_SECONDS` until the remains in the files are overwritten, and continues in
        the background. Does nothing without an index. Errors are logged only, because the next
        search removes the thread or the messages as well.
        """

        def remove(index: Index) -> None:
            if events is None:
                index.drop([thread_id])
            else:
                index.drop_events(thread_id, events)

        async def operation() -> None:
            # Under the lock: a task that follows may have read the thread before its deletion, and
            # would add it again after this.
            async with _lock(self._following, owner):
                self._settled.pop(owner, None)
                await self._write(remove)
            if asyncio.get_running_loop().time() >= self._rests_until:
                await self._tidy()
            else:
                self._in_background(_TIDY, self._tidy_later, "")

        # A task, because no thread may wait for as long as another one is being indexed.
        what = "" if events is None else f" {list(events)}"
        task = self._in_background(
            f"treadle archive forget {thread_id}{what}",
            lambda _: self._log_failure_of_removal(operation),
            owner,
        )
        if task is not None:
            await asyncio.wait([task], timeout=TIDY_SECONDS)

    async def sweep(self, owner: str) -> None:
        """Removes all deleted threads of an owner, and overwrites their remains in the files.

        Errors are logged only, as in `forget`.
        """

        async def operation() -> None:
            self._settled.pop(owner, None)
            await self._follow(owner, with_vectors=False)
            await self._tidy()

        await self._log_failure_of_removal(operation)

    async def _log_failure_of_removal(self, operation: Callable[[], Awaitable[None]]) -> None:
        try:
            if self._files is not None or await self._exists():
                await self._repaired(operation)
        except (MemoryFailed, JournalError) as error:
            _LOGGER.warning("Deleted threads are still in the archive: %s", error.message)

    async def _tidy_later(self, _: str) -> None:
        await asyncio.sleep(max(0.0, self._rests_until - asyncio.get_running_loop().time()))
        await self._log_failure_of_removal(self._tidy)

    async def _tidy(self) -> None:
        """Overwrites the remains of what was removed, in steps between other operations."""
        clock = asyncio.get_running_loop().time
        began = clock()
        while not await self._write(Index.tidy):
            pass
        took = clock() - began
        if took > _QUICK_SECONDS:
            # The merge of a large index must not follow each of many deletions.
            self._rests_until = clock() + _REST * took

    # Vectors

    async def vectors_of(self, texts: Sequence[str]) -> "list[Matrix]":
        """Returns the vectors of texts, or nothing without an embedder; see `TextVectors.of`."""
        return await self._texts.of(texts)

    async def _size_before(self) -> int | None:
        """Returns the length of the vectors that an earlier process has made, or None."""
        try:
            if self._files is None and not await self._exists():
                return None
            return await self._repaired(lambda: self._write(lambda index: index.dimensions))
        except ArchiveFailed:
            return None  # adding a text must not depend on the index

    def keep_vectors(self, passages: Sequence[NewPassage], vectors: "Sequence[Matrix]") -> None:
        """Holds the vectors of passages that are about to be added, until the index has them."""
        self._vectors.update(zip(map(_vector_key, passages), vectors, strict=True))

    @asynccontextmanager
    async def adding(
        self, owner: str, passages: Sequence[NewPassage], vectors: "Sequence[Matrix]"
    ) -> AsyncGenerator[None]:
        """Holds the vectors of passages that become durable inside the block for the index."""
        self.keep_vectors(passages, vectors)
        try:
            yield
        except BaseException:
            for passage in passages:
                self._vectors.pop(_vector_key(passage), None)
            raise
        await self._added(owner)

    async def _added(self, owner: str) -> None:
        """Adds the passages that have become durable to the index, in the background.

        Waits for the index if too many vectors are held, which slows a fast writer down.
        """
        if len(self._vectors) <= _KEPT_VECTORS:
            self._follow_in_background(owner)
            return
        await self.follow(owner, with_vectors=False)
        # Vectors that are still held belong to passages that were deleted, or that another process
        # has indexed. They are dropped, and made again if they are needed.
        while len(self._vectors) > _KEPT_VECTORS:
            del self._vectors[next(iter(self._vectors))]

    # Following the journal

    async def follow(self, owner: str, *, with_vectors: bool) -> None:
        """Brings the index up to everything that is durable now on an owner's threads.

        With `with_vectors`, also makes up to `AT_ONCE` missing vectors, for the newest texts first,
        and continues with the others in the background.
        """
        self._settled.pop(owner, None)  # another process may have written meanwhile
        await self._repaired(lambda: self._follow(owner, with_vectors=with_vectors))

    async def follow_whole(self, owner: str) -> None:
        """Brings the index up to date, with the vectors of all texts."""
        with_vectors = self.embedder is not None
        await self.follow(owner, with_vectors=with_vectors)
        while with_vectors and await self._embed(owner):
            pass

    def _follow_in_background(self, owner: str) -> None:
        self._in_background("treadle archive", self._follow_logged, owner)

    async def _follow_logged(self, owner: str) -> None:
        try:
            await self.follow(owner, with_vectors=False)
        except (MemoryFailed, JournalError) as error:  # the next search raises it
            _LOGGER.warning("The archive could not follow: %s", error.message)

    def _in_background(
        self, name: str, work: Callable[[str], Coroutine[None, None, None]], owner: str
    ) -> asyncio.Task[None] | None:
        """Starts a task for an owner, unless one of this name is running; returns that task.

        Returns None if the archive is closed.
        """
        key = (name, owner)
        task = self._background.get(key)
        if (task is None or task.done()) and not self._closed:
            task = self._background[key] = asyncio.create_task(work(owner), name=name)
            task.add_done_callback(lambda task: self._ended(key, task))
        return task

    def _ended(self, key: tuple[str, str], task: asyncio.Task[None]) -> None:
        if self._background.get(key) is task:
            del self._background[key]

    async def _follow(self, owner: str, *, with_vectors: bool) -> None:
        async with _lock(self._following, owner):
            await self._follow_threads(owner)
        if not with_vectors:
            return
        # Outside the lock, because an embedder may be slow: searches by text must not wait for it.
        left = AT_ONCE
        while left > 0 and (done := await self._embed(owner)):
            left -= done
        if left <= 0:
            self._embed_in_background(owner)

    async def _follow_threads(self, owner: str) -> None:
        latest = await self._journal.marks(owner=owner)
        settled = self._settled.get(owner)
        if self._files is not None and settled is not None and latest == settled.marks:
            return
        known = await self._write(lambda index: index.sources(owner))
        # Read again, after `known`: another process may have added to the journal and the index
        # in between, and its threads would then look as if the journal had lost events.
        latest = await self._journal.marks(owner=owner)
        marks = {mark.id: mark for mark in latest}
        gone = [
            id
            for id, source in known.items()
            if id not in marks
            or (source.number, source.seq) > (marks[id].number, marks[id].seq)
            or source.number != marks[id].number
        ]
        if gone:
            await self._write(lambda index: index.drop(gone))
            known = {id: source for id, source in known.items() if id not in gone}
        for mark in marks.values():
            source = known.get(mark.id, Known(mark.number, 0, 0.0))
            if source.seq < mark.seq:
                try:
                    await self._follow_thread(mark, source)
                except ThreadNotFound:
                    pass  # deleted in between
                except ThreadDamaged as error:
                    # Its readable beginning is in the index; the other threads must be found.
                    if mark.id not in self._damaged:
                        self._damaged.add(mark.id)
                        _LOGGER.warning("The search leaves out a part: %s", error.message)
        written, untidy = await self._write(
            lambda index: (index.settled(owner, latest), index.untidy)
        )
        if untidy:
            self._in_background(_TIDY, self._tidy_later, "")
        self._settled.pop(owner, None)
        if written is not None:
            self._settled[owner] = _Settled(latest, written)
            if len(self._settled) > _KEPT_OWNERS:
                self._settled.popitem(last=False)

    async def _follow_thread(self, mark: ThreadMark, known: Known) -> None:
        source = Source(mark.id, mark.owner, mark.number, bool(mark.parent))
        seq = known.seq
        if seq:
            last = await self._journal.read(mark.id, after=seq - 1, limit=1)
            if [event.at for event in last] != [known.at]:
                # The journal has been replaced, for example by a backup.
                await self._write(lambda index: index.drop([mark.id]))
                seq = 0
        while seq < mark.seq:
            page = await next_page(self._journal, mark.id, seq)
            if page is None:
                return  # a new thread with the same id has replaced it
            seq = await self._apply(source, page)

    async def _apply(self, source: Source, page: Page) -> int:
        keys = {one.id: _vector_key(one) for one in page.added}
        held = {id: key for id, key in keys.items() if key in self._vectors}
        vectors = {id: self._vectors[key] for id, key in held.items()}
        try:
            seq = await self._write(lambda index: index.apply(source, page, vectors))
        except EmbeddingInvalid:
            # Another process has started with vectors of another length. Only searches by vectors
            # may fail for that; the passage itself must get into the index.
            seq = await self._write(lambda index: index.apply(source, page, {}))
        for key in held.values():
            self._vectors.pop(key, None)
        return seq

    async def _embed(self, owner: str) -> int:
        """Makes a batch of missing vectors; returns the number of its texts."""
        async with _lock(self._embedding, owner):
            refused = self._refused
            texts = await self._write(lambda index: index.without_vector(owner, BATCH, refused))
            if not texts:
                return 0
            files = self._files
            vectors = await embedded_or_refused(self.vectors_of, [one.text for one in texts])
            # If the index was made again in between, its rows have other numbers.
            if self._files is files:
                given = [
                    one.n for one, vector in zip(texts, vectors, strict=True) if vector is not None
                ]
                kept = [vector for vector in vectors if vector is not None]
                await self._write(lambda index: index.set_vectors(given, kept))
                self._refuse([one.n for one in texts if one.n not in given])
            return len(texts)

    def _refuse(self, numbers: Sequence[int]) -> None:
        """Leaves texts without a vector for as long as the index is open."""
        if numbers:
            _LOGGER.warning(
                "The embedder refuses %d texts of the archive; only full text finds them.",
                len(numbers),
            )
            self._refused = [*self._refused, *numbers]

    def _embed_in_background(self, owner: str) -> None:
        self._in_background("treadle archive vectors", self._embed_all, owner)

    async def _embed_all(self, owner: str) -> None:
        try:
            while await self._embed(owner):
                pass
        except MemoryFailed as error:  # the next search tries again, and raises it
            _LOGGER.warning("Vectors are missing in the archive: %s", error.message)

    # Worker threads and files

    async def _repaired(self, operation: Callable[[], Awaitable[T]]) -> T:
        """Runs an operation, and once more with a new index if the index is damaged or gone."""
        try:
            return await operation()
        except IndexDamaged as error:
            _LOGGER.warning("%s It is made again.", error.message)
        except IndexGone as error:
            _LOGGER.warning("%s It is opened again.", error.message)
        return await operation()

    async def _write(self, operation: Callable[[Index], T]) -> T:
        files = await self._opened()
        async with self._watched(files):
            return await asyncio.get_running_loop().run_in_executor(
                files.writer, operation, files.index
            )

    async def _read(self, operation: Callable[[Finder], T]) -> T:
        files = await self._opened()
        async with self._watched(files):
            return await asyncio.get_running_loop().run_in_executor(
                files.reader, operation, files.finder
            )

    @asynccontextmanager
    async def _watched(self, files: OpenIndex) -> AsyncGenerator[None]:
        """Closes files that turn out to be damaged or gone, once for all operations on them."""
        try:
            yield
        except (IndexDamaged, IndexGone) as error:
            async with self._opening:
                if self._files is files:
                    await self._shut()
                    if isinstance(error, IndexDamaged):
                        await in_thread(files.set_aside)
            raise

    async def _opened(self) -> OpenIndex:
        if self._files is not None:
            return self._files
        async with self._opening:
            if self._closed:
                raise ArchiveFailed("The runtime is not open; use `async with treadle.open(…)`.")
            if self._files is None:
                # A cancel does not stop the thread: what it opens must be closed even then.
                opening = asyncio.ensure_future(in_thread(OpenIndex, self._path, self.embedder))
                try:
                    opened = await asyncio.shield(opening)
                except asyncio.CancelledError:
                    with contextlib.suppress(ArchiveFailed):
                        await in_thread((await opening).close)
                    raise
                try:
                    untidy = await self._forget_deleted(opened)
                except BaseException:
                    await in_thread(opened.close)
                    raise
                self._files = opened
                if untidy:  # an earlier process has left remains, or `_forget_deleted`
                    self._in_background(_TIDY, self._tidy_later, "")
            return self._files

    async def _exists(self) -> bool:
        """Whether an index is on the disk; also removes one that was set aside."""
        path = self._path
        return path is not None and await in_thread(remove_damaged, path)

    async def _forget_deleted(self, opened: OpenIndex) -> bool:
        """Removes threads that were deleted while the index was not open.

        Returns whether remains of deleted texts are left in the files.
        """
        loop = asyncio.get_running_loop()
        known = await loop.run_in_executor(opened.writer, opened.index.sources)
        numbers = {mark.id: mark.number for mark in await self._journal.marks(owner=None)}
        gone = [id for id, source in known.items() if numbers.get(id) != source.number]
        if gone:
            await loop.run_in_executor(opened.writer, opened.index.drop, gone)
        return await loop.run_in_executor(opened.writer, lambda: opened.index.untidy)

    async def _shut(self) -> None:
        files, self._files = self._files, None
        self._settled.clear()
        self._refused = []
        if files is not None:
            await in_thread(files.close)


def _vector_key(passage: NewPassage | Passage) -> _VectorKey:
    return passage.id, hash(passage.text)


def _lock(locks: WeakValueDictionary[str, asyncio.Lock], owner: str) -> asyncio.Lock:
    """Returns the lock of an owner, which lives as long as a task holds it or waits for it."""
    lock = locks.get(owner)
    if lock is None:
        lock = locks[owner] = asyncio.Lock()
    return lock


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
    except FileNotFoundError:  # removed in between; the next use opens a new one
        return 0
