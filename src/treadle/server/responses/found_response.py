"""Responses by their ids: their run, and what its events say."""

from treadle.domain.events import (
    ItemsAdded,
    MessageAdded,
    ProviderItemAdded,
    ReasoningAdded,
    ToolCallRequested,
)
from treadle.domain.items import Item
from treadle.errors import RunNotFound
from treadle.journal.projection import RunRecord
from treadle.runtime.run_subscription import RunSubscription
from treadle.runtime.thread import Thread
from treadle.runtime.thread_run import ThreadRun
from treadle.runtime.view import RuntimeView
from treadle.server.responses.delta_cuts import DeltaCuts
from treadle.server.responses.response_ids import response_id, run_and_part
from treadle.server.responses.response_mapper import ResponseMapper
from treadle.server.run_events import before_messages, run_events, thread_events


class FoundResponse:
    """A part of a run; `is_new` if this request makes it, whether or not it has an event yet."""

    def __init__(
        self, thread: Thread, run: ThreadRun, part: int = 1, *, is_new: bool = False
    ) -> None:
        self.thread = thread
        self.run = run
        self.part = part
        self._is_new = is_new

    @property
    def id(self) -> str:
        """The id of the response."""
        return response_id(self.run.id, self.part)

    async def read(self) -> ResponseMapper:
        """Returns the response as it is now; raises `RunNotFound` if it does not exist."""
        return (await self._read(-1))[0]

    async def stream(self, after: int, cuts: DeltaCuts) -> tuple[ResponseMapper, RunSubscription]:
        """Returns the response as it is now, for a reader that has seen it up to a number.

        The second value is the events that continue it. What there is already is read from the
        journal: the deltas of the process that drives the run may contain what was taken back.
        """
        mapper, seq = await self._read(after, cuts)
        return mapper, await self.run.subscribe(seq or None)

    async def _read(self, after: int, cuts: DeltaCuts | None = None) -> tuple[ResponseMapper, int]:
        record, seq = await self.run.info(), 0
        mapper = ResponseMapper(record, self.part, after, cuts)
        async for event in run_events(self.thread, record, _start(record)):
            mapper.feed(event)
            seq = event.seq
        if not (mapper.exists or self._is_new):
            raise unknown_response(self.id)
        return mapper, seq

    async def input(self) -> list[Item]:
        """Returns what the run answers; for the first run of a thread, all that was before it."""
        record = await self.run.info()
        if not record.first_seq:
            return []
        first, *_ = await self.thread.runs(limit=1)
        is_first = first.id == self.run.id
        after = 0 if is_first else before_messages(record)
        items: list[Item] = []
        async for event in thread_events(self.thread, after, record.first_seq - 1):
            if event.run_id == self.run.id or (is_first and not event.run_id):
                if isinstance(event, MessageAdded):
                    items.append(event.item)
                elif isinstance(event, ItemsAdded):
                    items += event.items
        return items

    async def item_ids(self) -> list[str]:
        """Returns the ids of all items of the run."""
        record = await self.run.info()
        ids: dict[str, None] = {}
        for item in await self.input():
            ids[item_id(item)] = None
        async for event in run_events(self.thread, record, _start(record)):
            if isinstance(
                event, MessageAdded | ReasoningAdded | ProviderItemAdded | ToolCallRequested
            ):
                ids[event.item.id] = None
        return [id for id in ids if id]


async def find_response(runtime: RuntimeView, id: str) -> FoundResponse:
    """Returns a response; raises `RunNotFound`."""
    run_id, part = run_and_part(id)
    try:
        run = await runtime.run(run_id)
    except RunNotFound as error:
        raise unknown_response(id) from error
    return FoundResponse(await runtime.connect(run.thread_id), run, part)


def unknown_response(id: str) -> RunNotFound:
    """Returns the error for a response that does not exist."""
    return RunNotFound(f"There is no response {id[:100]!r}.")


def item_id(item: Item) -> str:
    """Returns the id of an item, "" if it has none."""
    return str(getattr(item, "id", ""))


def _start(record: RunRecord) -> int:
    """Returns the number of the event before the first one that says something of the run.

    That is the message that it answers: a response is deleted if that is removed.
    """
    first = min(record.seq, record.first_seq - 1) if record.first_seq else record.seq
    return max(first - 1, 0)
