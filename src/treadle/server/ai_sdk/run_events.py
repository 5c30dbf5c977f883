"""What the journal has of a run."""

from collections.abc import AsyncIterator

from treadle.domain.events import RecordedEvent
from treadle.domain.inputs import MAX_MESSAGES
from treadle.journal.projection import RunRecord
from treadle.runtime.thread import Thread

EVENTS_AT_ONCE = 1000


async def run_events(thread: Thread, record: RunRecord) -> AsyncIterator[RecordedEvent]:
    """Yields the events of a run that there are."""
    if not record.seq:
        return
    # Its messages come before the event that starts it.
    after = max(min(record.seq, record.first_seq or record.seq) - 1 - MAX_MESSAGES, 0)
    while page := await thread.events(after, EVENTS_AT_ONCE):
        for event in page:
            if event.run_id == record.id:
                yield event
                if event.seq == record.last_seq:
                    return
        after = page[-1].seq
