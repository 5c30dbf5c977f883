"""The archive of an owner, or of a thread, as its users hold it."""

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from treadle.actors.access import ThreadAccess
from treadle.domain.arguments import require_string, require_text, shown
from treadle.domain.entries import InsertEntry, RemoveEntry
from treadle.domain.ids import id_of, new_id
from treadle.domain.passages import By, Found, NewPassage, Passage
from treadle.errors import InvalidInput
from treadle.journal.base import JournalReader
from treadle.memory.archive.query import Moment, filters_of, moment, new_passage

if TYPE_CHECKING:
    from treadle.memory.archive.pages import Statistics

SHARED = "archive"
"""The name of the shared memory on which passages live that belong to no conversation."""

CHUNK = 256
"""How many passages become durable together."""


class Archive:
    """Texts that are kept and found again, by words and by meaning, always within one owner.

    What is put in belongs to the thread, and is deleted with it; in the archive of a `Runtime` it
    belongs to the owner. A handle costs nothing; the index behind it opens with the first search.
    In a process that does not drive the threads, what is put in is found once the driving process
    has taken it.

    All raise `JournalError` when the journal fails, `ArchiveFailed` when the index does, and what
    is refused changes nothing.
    """

    def __init__(
        self, threads: ThreadAccess, journal: JournalReader, *, owner: str = "", thread_id: str = ""
    ) -> None:
        self._threads = threads
        self._journal = journal
        self._owner = owner
        self._thread_id = thread_id

    async def insert(
        self,
        text: str,
        *,
        tags: Sequence[str] = (),
        created_at: Moment | None = None,
        key: str = "",
    ) -> str:
        """Puts a text in; returns its id once it cannot be lost any more.

        - `text`: at most 100,000 characters. `tags`: at most 50, of 200 characters.
        - `created_at`: of when the text is, where that is not now.
        - `key`: with the same key the same text is put in once.

        Raises `InvalidInput`, `EmbeddingFailed` and `EmbeddingInvalid`.
        """
        require_text("key", key)
        at = None if created_at is None else moment(created_at)
        new_passage("", text, tags, at)  # refuses it before a shared memory is created
        thread_id = await self._thread()
        id = id_of("passage", thread_id, key) if key else new_id("passage")
        await self._insert(thread_id, [new_passage(id, text, tags, at)])
        return id

    async def insert_many(
        self, texts: Iterable[str], *, tags: Sequence[str] = (), created_at: Moment | None = None
    ) -> list[str]:
        """Puts texts in, some hundred at a time; returns their ids.

        Raises as `insert` does; then the hundreds before are in, and the others are not.
        """
        if isinstance(texts, str) or not hasattr(texts, "__iter__"):
            raise InvalidInput(
                f"insert_many takes a list of texts, not {shown(texts)}; a single one goes to "
                "insert."
            )
        thread_id = await self._thread()
        at = None if created_at is None else moment(created_at)
        left, ids = iter(texts), list[str]()
        while chunk := list(islice(left, CHUNK)):
            passages = [new_passage(new_id("passage"), text, tags, at) for text in chunk]
            await self._insert(thread_id, passages)
            ids += [passage.id for passage in passages]
        return ids

    async def search(
        self,
        text: str = "",
        *,
        any_tags: Sequence[str] = (),
        all_tags: Sequence[str] = (),
        since: Moment | None = None,
        until: Moment | None = None,
        this_thread: bool = False,
        by: By = "both",
        limit: int = 10,
        offset: int = 0,
    ) -> list[Found]:
        """Returns the texts that fit `text` best; without a text, the newest.

        - `any_tags`, `all_tags`: which have one of these tags, and each of those.
        - `since`, `until`: of that time, both included, whichever is earlier. A date is a whole
          day; texts are in ISO 8601; what names no time zone is UTC.
        - `this_thread`: only those of the thread; otherwise all of its owner's.
        - `by`: `"both"` combines full text and vectors, where there is an embedder.
        - `limit`, `offset`: which of them, 100 at a time and of the best 500.

        Any text may be searched for; none of it is syntax. Raises `InvalidInput`,
        `EmbeddingFailed`, `EmbeddingInvalid`, and `ConfigurationError` for `by="vector"` without
        an embedder.
        """
        filters = filters_of(
            "archive",
            thread_id=await self._thread() if this_thread else "",
            any_tags=any_tags,
            all_tags=all_tags,
            since=since,
            until=until,
        )
        return await self._threads.archive.search(
            await self._owned_by(), text, by=by, filters=filters, limit=limit, offset=offset
        )

    async def get(self, passage_id: str) -> Passage:
        """Returns a text of the owner's archive; raises `UnknownPassage`."""
        require_string("passage_id", passage_id)
        return (await self._threads.archive.passages(await self._owned_by(), passage_id))[0]

    async def remove(self, passage_id: str) -> None:
        """Takes a text out, wherever in the owner's archive it is; raises `UnknownPassage`."""
        require_string("passage_id", passage_id)
        owner = await self._owned_by()
        for passage in await self._threads.archive.passages(owner, passage_id):
            await self._threads.submit(passage.thread_id, RemoveEntry(passage_id))

    async def statistics(self) -> "Statistics":
        """Returns how much of the owner's is in the index."""
        return await self._threads.archive.statistics(await self._owned_by())

    async def follow(self) -> None:
        """Waits until all of the owner's can be found, by vectors as well.

        A search itself finds all that is durable, but makes at most some hundred vectors at once;
        where an embedder is new to many texts, the others get theirs in the background.
        """
        await self._threads.archive.follow(await self._owned_by())

    async def _insert(self, thread_id: str, passages: Sequence[NewPassage]) -> None:
        archive, owner = self._threads.archive, await self._owned_by()
        vectors = await archive.vectors_of([passage.text for passage in passages])
        async with archive.adding(owner, passages, vectors):
            await self._threads.submit(thread_id, InsertEntry(tuple(passages)))

    async def _thread(self) -> str:
        """Returns the thread to which a new text belongs."""
        if self._thread_id:
            return self._thread_id
        return await self._threads.shared(self._owner, SHARED)

    async def _owned_by(self) -> str:
        if self._thread_id:
            return (await self._journal.info(self._thread_id)).owner
        return self._owner
