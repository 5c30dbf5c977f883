"""The archive of a journal: an index that follows the threads, and is searched.

It has threads of its own to write and to read with, and opens when it is first used. It only ever
reads the journal: whatever becomes of the index, no conversation waits for it or depends on it.
"""

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast
from weakref import WeakValueDictionary

from msgspec import Struct

from treadle.domain.passages import By, Filters, Found, NewPassage, Passage
from treadle.errors import (
    ArchiveFailed,
    ConfigurationError,
    EmbeddingInvalid,
    JournalError,
    MemoryFailed,
    ThreadNotFound,
)
from treadle.journal.base import Journal, ThreadMark
from treadle.logging import logger_of
from treadle.memory.archive.embedders import (
    THREADS,
    Embedder,
    Vectors,
    embedded,
    vectors_apart,
)
from treadle.memory.archive.finder import Finder
from treadle.memory.archive.index import Index, Known, Page, Source, Statistics, page_of
from treadle.memory.archive.index_file import (
    IndexDamaged,
    IndexGone,
    VectorFiles,
    Written,
    reader,
    remove_damaged,
    set_aside,
)
from treadle.memory.archive.query import Query, require_bounds, require_way
from treadle.memory.archive.words import terms

if TYPE_CHECKING:
    from treadle.memory.archive.vectors import Matrix

    _Check = Callable[[Vectors, int, int | None], Iterable[Matrix]]

_Told = tuple[str, int]
"""A passage that is not indexed yet: its id, and the hash of its text, which may be another one."""

T = TypeVar("T")
_LOGGER = logger_of("treadle.archive")

PAGE = 500
"""How many events are looked at in one transaction of the index."""

BATCH = 128
"""How many texts an embedder is given at a time."""

AT_ONCE = 512
"""How many texts without a vector a search waits for; the others get theirs in the background."""

_KEPT_VECTORS = 4096
_KEPT_OWNERS = 64
_FEW = 4


class _Settled(Struct, frozen=True):
    """What the index had of an owner, and how often it was written to by then."""

    marks: list[ThreadMark]
    written: Written


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


class ArchiveStore:
    """Searches what was said and noted on the threads of a journal.

    `path` is the file of the index; None keeps it in memory. Without an `embedder`, it finds by
    full text only.
    """

    def __init__(self, journal: Journal, path: Path | None, embedder: Embedder | None) -> None:
        self._journal = journal
        self._path = path
        self.embedder = embedder
        self._opening = asyncio.Lock()
        self._files: OpenIndex | None = None
        self._following: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._embedding: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._vectors: dict[_Told, Matrix] = {}
        self._background: dict[str, asyncio.Task[None]] = {}
        self._refused: list[int] = []
        self._check: _Check | None = None
        self._size: int | None = None
        self._settled: OrderedDict[str, _Settled] = OrderedDict()
        self._closed = False

    async def close(self) -> None:
        """Ends after what was begun; a second call does nothing."""
        self._closed = True
        tasks = list(self._background.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        async with self._opening:
            await self._shut()

    # What is asked of it

    async def search(
        self, owner: str, text: str, *, by: By, filters: Filters, limit: int, offset: int
    ) -> list[Found]:
        """Returns what fits `text` best, of all that is durable now.

        Raises `InvalidInput` for a `by` that is none and for a limit or a text out of bounds,
        `ConfigurationError` where vectors are asked for without an embedder, and `MemoryFailed`.
        """
        require_way(by)
        require_bounds(text, limit, offset)
        if self.embedder is None:
            if by == "vector":
                raise ConfigurationError(
                    "Searching by vectors needs an embedder; open the runtime with embedder=…."
                )
            by = "text"
        lists = not text.strip()
        with_vectors = by != "text" and not lists
        text = text.encode("utf-8", "replace").decode()  # half of a pair is in no text
        vector = (await self.vectors_of([text]))[0] if with_vectors else None
        words = None if lists or by == "vector" else terms(text)
        name = self.embedder.name if self.embedder is not None else ""
        query = Query(filters, words, vector, limit, offset, name)
        return await self._repaired(lambda: self._search(owner, query))

    async def _search(self, owner: str, query: Query) -> list[Found]:
        with_vectors = query.vector is not None
        await self._follow(owner, with_vectors=with_vectors)
        settled = self._settled.get(owner)
        answer = await self._read(lambda finder: finder.find(owner, query))
        if settled is not None and answer.written != settled.written:
            # Another process wrote meanwhile, maybe what it had read before a deletion.
            self._settled.pop(owner, None)
            await self._follow(owner, with_vectors=with_vectors)
            answer = await self._read(lambda finder: finder.find(owner, query))
        if answer.broken:
            # The power failed between the vectors and their rows, or the file is gone.
            await self._write(lambda index: index.lose(answer.broken))
            await self._follow(owner, with_vectors=with_vectors)
            answer = await self._read(lambda finder: finder.find(owner, query))
        return answer.found

    async def passages(self, owner: str, passage_id: str) -> list[Passage]:
        """Returns what was put into the archive of an owner under an id, on each thread."""
        return await self._followed(owner, lambda index: index.passages(owner, passage_id))

    async def statistics(self, owner: str) -> Statistics:
        """Returns how much of an owner's is in the index, once it has followed."""
        return await self._followed(owner, lambda index: index.statistics(owner))

    async def _followed(self, owner: str, read: Callable[[Index], T]) -> T:
        async def operation() -> T:
            self._settled.pop(owner, None)  # another process may have written meanwhile
            await self._follow(owner, with_vectors=False)
            return await self._write(read)

        return await self._repaired(operation)

    async def forget(self, owner: str, thread_id: str) -> None:
        """Forgets a thread that was deleted, if there is an index.

        What it leaves in the files is overwritten with the end, or by `sweep`. What fails is
        logged: the next search forgets the thread as well.
        """

        async def operation() -> None:
            async with _lock(self._following, owner):  # who follows may have read of the thread
                self._settled.pop(owner, None)
                await self._write(lambda index: index.drop([thread_id]))

        await self._forgotten(operation)

    async def sweep(self, owner: str) -> None:
        """Forgets all threads of an owner that were deleted, and overwrites what they left.

        What fails is logged, as in `forget`.
        """

        async def operation() -> None:
            self._settled.pop(owner, None)
            await self._follow(owner, with_vectors=False)
            await self._write(Index.tidy)

        await self._forgotten(operation)

    async def _forgotten(self, operation: Callable[[], Awaitable[None]]) -> None:
        try:
            if self._files is not None or await self._is_there():
                await self._repaired(operation)
        except (MemoryFailed, JournalError) as error:
            _LOGGER.warning("Deleted threads are still in the archive: %s", error.message)

    # Vectors

    async def vectors_of(self, texts: Sequence[str]) -> "list[Matrix]":
        """Returns the vectors of texts; raises `EmbeddingFailed` and `EmbeddingInvalid`.

        Without an embedder there is nothing to return.
        """
        embedder = self.embedder
        if embedder is None or not texts:
            return []
        vectors = await embedded(embedder, texts)
        if self._check is None:
            # Imported with the first vectors: without, nobody needs numpy.
            module = await _in_thread(lambda: import_module("treadle.memory.archive.vectors"))
            self._check = cast("_Check", module.checked)
        check, size = self._check, embedder.dimensions
        if size is None and self._size is None:
            known = await self._size_before()
            self._size = known if self._size is None else self._size
        if len(texts) <= _FEW:
            rows = list(check(vectors, len(texts), size))
        else:
            rows = list(await _in_thread(lambda: check(vectors, len(texts), size)))
        self._require_one_size(embedder.name, len(rows[0]))
        return rows

    async def _size_before(self) -> int | None:
        """Returns the size of the vectors that an earlier process made, if there are any."""
        try:
            if self._files is None and not await self._is_there():
                return None
            return await self._repaired(lambda: self._write(lambda index: index.dimensions))
        except ArchiveFailed:
            return None  # what is put in does not depend on the index

    def _require_one_size(self, name: str, size: int) -> None:
        """Raises `EmbeddingInvalid` for vectors of another size than those before."""
        if self._size is None:
            self._size = size
        elif self._size != size:
            raise EmbeddingInvalid(
                f"The embedder {name} returned vectors of the size {size}, and before of "
                f"{self._size}; an embedder that changed needs another name."
            )

    def keep_vectors(self, passages: Sequence[NewPassage], vectors: "Sequence[Matrix]") -> None:
        """Keeps the vectors of passages that are about to be added, until the index has them."""
        self._vectors.update(zip(map(_told, passages), vectors, strict=True))

    def drop_vectors(self, passages: Sequence[NewPassage]) -> None:
        """Forgets the vectors of passages that were not added."""
        for passage in passages:
            self._vectors.pop(_told(passage), None)

    async def added(self, owner: str) -> None:
        """Has the index take the passages that were added, with the vectors that are kept.

        It does so in the background; whoever brings more than it takes waits for it.
        """
        if len(self._vectors) <= _KEPT_VECTORS:
            self._follow_soon(owner)
            return
        await self.follow(owner, with_vectors=False)
        # What is left was deleted meanwhile, or waits for another process: it is made again.
        while len(self._vectors) > _KEPT_VECTORS:
            del self._vectors[next(iter(self._vectors))]

    # Following the journal

    async def follow(self, owner: str, *, with_vectors: bool) -> None:
        """Brings the index up to what is durable now of an owner's threads.

        The newest texts without a vector get theirs; where there are more than some hundred, the
        others get them in the background.
        """
        self._settled.pop(owner, None)  # another process may have written meanwhile
        await self._repaired(lambda: self._follow(owner, with_vectors=with_vectors))

    async def follow_whole(self, owner: str) -> None:
        """Brings the index up to date, with the vectors of all texts."""
        with_vectors = self.embedder is not None
        await self.follow(owner, with_vectors=with_vectors)
        while with_vectors and await self._embed(owner):
            pass

    def _follow_soon(self, owner: str) -> None:
        """Brings the index up to date in the background."""
        if owner not in self._background and not self._closed:
            task = asyncio.create_task(self._follow_logged(owner), name="treadle archive")
            self._background[owner] = task
            task.add_done_callback(lambda _: self._background.pop(owner, None))

    async def _follow_logged(self, owner: str) -> None:
        try:
            await self.follow(owner, with_vectors=False)
        except (MemoryFailed, JournalError) as error:  # whoever searches meets it again
            _LOGGER.warning("The archive could not follow: %s", error.message)

    async def _follow(self, owner: str, *, with_vectors: bool) -> None:
        async with _lock(self._following, owner):
            await self._follow_threads(owner)
        if not with_vectors:
            return
        # Beside it, because an embedder may be slow: what needs no vectors waits for none.
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
        # Only now: another process may have added to both, and the journal never has less.
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
                with contextlib.suppress(ThreadNotFound):  # deleted meanwhile
                    await self._follow_thread(mark, source)
        written = await self._write(lambda index: index.settled(owner, latest))
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
                # The journal is another one now, such as a backup.
                await self._write(lambda index: index.drop([mark.id]))
                seq = 0
        while seq < mark.seq:
            events = await self._journal.read(mark.id, after=seq, limit=PAGE)
            page = page_of(mark.id, events)
            if page is None:
                return  # it was made anew meanwhile
            seq = await self._apply(source, page)

    async def _apply(self, source: Source, page: Page) -> int:
        told = {one.id: _told(one) for one in page.added if _told(one) in self._vectors}
        vectors = {id: self._vectors[one] for id, one in told.items()}
        try:
            seq = await self._write(lambda index: index.apply(source, page, vectors))
        except EmbeddingInvalid:
            # Another process has begun with another size: who searches by vectors is told.
            seq = await self._write(lambda index: index.apply(source, page, {}))
        for one in told.values():
            self._vectors.pop(one, None)
        return seq

    async def _embed(self, owner: str) -> int:
        """Makes the vectors of some texts that have none; returns of how many."""
        async with _lock(self._embedding, owner):
            refused = self._refused
            lacking = await self._write(lambda index: index.lacking(owner, BATCH, refused))
            if not lacking:
                return 0
            files = self._files
            vectors = await vectors_apart(self.vectors_of, [one.text for one in lacking])
            # In an index that was made again meanwhile, the numbers are of other texts.
            if self._files is files:
                given = [
                    one.n
                    for one, vector in zip(lacking, vectors, strict=True)
                    if vector is not None
                ]
                kept = [vector for vector in vectors if vector is not None]
                await self._write(lambda index: index.give(given, kept))
                self._refuse([one.n for one in lacking if one.n not in given])
            return len(lacking)

    def _refuse(self, numbers: Sequence[int]) -> None:
        """Lets texts be without a vector for as long as the index is open."""
        if numbers:
            _LOGGER.warning(
                "The embedder refuses %d texts of the archive; they are found by their words only.",
                len(numbers),
            )
            self._refused = [*self._refused, *numbers]

    def _embed_in_background(self, owner: str) -> None:
        key = f"vectors/{owner}"
        if key not in self._background:
            task = asyncio.create_task(self._embed_all(owner), name="treadle archive vectors")
            self._background[key] = task
            task.add_done_callback(lambda _: self._background.pop(key, None))

    async def _embed_all(self, owner: str) -> None:
        try:
            while await self._embed(owner):
                pass
        except MemoryFailed as error:  # the next search tries again, and raises
            _LOGGER.warning("Vectors are missing in the archive: %s", error.message)

    # The threads, and the files

    async def _repaired(self, operation: Callable[[], Awaitable[T]]) -> T:
        """Does something; where the index is damaged or gone, once more with another one."""
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
        """Closes files that turn out to be damaged or gone, once for all who use them."""
        try:
            yield
        except (IndexDamaged, IndexGone) as error:
            async with self._opening:
                if self._files is files:
                    await self._shut()
                    if isinstance(error, IndexDamaged):
                        await _in_thread(files.set_aside)
            raise

    async def _opened(self) -> OpenIndex:
        if self._files is not None:
            return self._files
        async with self._opening:
            if self._closed:
                raise ArchiveFailed("The runtime is not open; use `async with treadle.open(…)`.")
            if self._files is None:
                opened = await _in_thread(lambda: OpenIndex(self._path, self.embedder))
                try:
                    await self._forget_deleted(opened)
                except BaseException:
                    await _in_thread(opened.close)
                    raise
                self._files = opened
            return self._files

    async def _is_there(self) -> bool:
        """Whether there is an index on the disk, also one that was put aside."""
        path = self._path
        return path is not None and await _in_thread(lambda: remove_damaged(path))

    async def _forget_deleted(self, opened: OpenIndex) -> None:
        """Drops threads that were deleted while the index was not open."""
        loop = asyncio.get_running_loop()
        known = await loop.run_in_executor(opened.writer, opened.index.sources)
        numbers = {mark.id: mark.number for mark in await self._journal.marks(owner=None)}
        gone = [id for id, source in known.items() if numbers.get(id) != source.number]
        if gone:
            await loop.run_in_executor(opened.writer, opened.index.drop, gone)

    async def _shut(self) -> None:
        files, self._files = self._files, None
        self._settled.clear()
        self._refused = []
        if files is not None:
            await _in_thread(files.close)


def _told(passage: NewPassage | Passage) -> _Told:
    return passage.id, hash(passage.text)


def _lock(locks: WeakValueDictionary[str, asyncio.Lock], owner: str) -> asyncio.Lock:
    """Returns the lock of an owner, which is kept as long as somebody has it."""
    lock = locks.get(owner)
    if lock is None:
        lock = locks[owner] = asyncio.Lock()
    return lock


async def _in_thread(function: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(THREADS, function)


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
