"""What the journal has of a thread, or of a run: event by event, read in pages."""

from collections.abc import AsyncIterator

from treadle.domain.events import RecordedEvent
from treadle.domain.inputs import MAX_MESSAGES
from treadle.journal.projection import RunRecord
from treadle.runtime.thread import Thread

_EVENTS_AT_ONCE = 1000


async def thread_events(
    thread: Thread, after: int = 0, until: int | None = None
) -> AsyncIterator[RecordedEvent]:
    """Yields the events of a thread that there are, up to and with event `until`."""
    while page := await thread.events(after, _EVENTS_AT_ONCE):
        for event in page:
            if until is not None and event.seq > until:
                return
            yield event
        after = page[-1].seq
        if after == until:
            return


async def run_events(
    thread: Thread, record: RunRecord, after: int | None = None
) -> AsyncIterator[RecordedEvent]:
    """Yields the events of a run that there are, from its first one on, or those after `after`."""
    if not record.seq:
        return
    after = record.seq - 1 if after is None else after
    async for event in thread_events(thread, after, record.last_seq or None):
        if event.run_id == record.id:
            yield event


def before_messages(record: RunRecord) -> int:
    """Returns the number of an event before the messages of a run, which come before its start."""
    return max(min(record.seq, record.first_seq or record.seq) - 1 - MAX_MESSAGES, 0)
