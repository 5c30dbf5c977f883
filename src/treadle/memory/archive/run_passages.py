"""The archive as the tools of a run use it."""

from collections.abc import Collection, Sequence

from treadle.domain.accept import passages_added
from treadle.domain.entries import InsertEntry
from treadle.domain.ids import id_of, new_id
from treadle.domain.items import Message
from treadle.domain.passages import By, Filters, Found
from treadle.journal.base import ThreadInfo
from treadle.memory.archive.access import ArchiveAccess
from treadle.memory.archive.query import new_passage
from treadle.ports import ThreadWriter


class RunPassages:
    """Implements `RunArchive`. Inserted texts belong to the thread, searches cover its owner."""

    def __init__(self, info: ThreadInfo, thread: ThreadWriter, archive: ArchiveAccess) -> None:
        self._info = info
        self._thread = thread
        self._archive = archive

    async def insert(self, text: str, *, tags: Sequence[str] = (), key: str = "") -> str:
        """Adds a text to the archive; returns its id once the text is durable.

        With the same `key`, the thread keeps one text only. Raises `InvalidInput`, `MemoryFailed`
        and `JournalError`.
        """
        id = id_of("passage", self._info.id, key) if key else new_id("passage")
        passage = new_passage(id, text, tags)
        # Before the event: a text that cannot be embedded is refused, and nothing has changed.
        vectors = await self._archive.vectors_of([text])
        run = self._thread.state.active_run
        run_id = run.id if run is not None else ""
        async with self._archive.adding(self._info.owner, [passage], vectors):
            for event in passages_added(InsertEntry((passage,), "model"), run_id):
                self._thread.record(event)
            await self._thread.durable()
        return id

    async def search(
        self, text: str, *, by: By = "both", filters: Filters, limit: int = 10, offset: int = 0
    ) -> Sequence[Found]:
        """Returns the passages of the owner that fit `text` best."""
        # The index follows what is durable; the run must find its own last message and notes.
        await self._thread.durable()
        return await self._archive.search(
            self._info.owner, text, by=by, filters=filters, limit=limit, offset=offset
        )

    def left_window(self) -> Collection[str]:
        """Returns the ids of the thread's messages that the model no longer reads."""
        state = self._thread.state
        kept = set(state.context.kept)
        return {
            item.id
            for index, item in enumerate(state.history[: state.context.cut])
            if isinstance(item, Message) and index not in kept
        }
