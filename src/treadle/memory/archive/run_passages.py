"""The archive as the runs of a thread use it."""

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
    """Fulfils `RunArchive`: what is noted belongs to the thread, what is found to its owner."""

    def __init__(self, info: ThreadInfo, thread: ThreadWriter, archive: ArchiveAccess) -> None:
        self._info = info
        self._thread = thread
        self._archive = archive

    async def insert(self, text: str, *, tags: Sequence[str] = (), key: str = "") -> str:
        """Notes a text on the thread of the run; returns its id once it cannot be lost."""
        id = id_of("passage", self._info.id, key) if key else new_id("passage")
        passage = new_passage(id, text, tags)
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
        """Returns what fits `text` best of all that is the owner's."""
        await self._thread.durable()  # what the run has just said or noted is found as well
        return await self._archive.search(
            self._info.owner, text, by=by, filters=filters, limit=limit, offset=offset
        )

    def left_window(self) -> Collection[str]:
        """Returns the ids of the thread's messages that its model no longer reads."""
        state = self._thread.state
        kept = set(state.context.kept)
        return {
            item.id
            for index, item in enumerate(state.history[: state.context.cut])
            if isinstance(item, Message) and index not in kept
        }
