"""The changes of memory blocks, read from the journal."""

from collections.abc import Sequence

from weft.events import MemoryUpdated
from weft.journal.base import Journal

PAGE = 500


async def changes_of(
    journal: Journal, thread_id: str, label: str = "", first: int = 1, last: int | None = None
) -> Sequence[MemoryUpdated]:
    """Returns the changes of a block of a thread, or of all its blocks, the oldest first.

    They are those of the events from number `first` to `last`. Raises `ThreadNotFound`.
    """
    found: list[MemoryUpdated] = []
    seq = first - 1
    while events := await journal.read(thread_id, after=seq, until=last, limit=PAGE):
        seq = events[-1].seq
        changes = (event for event in events if isinstance(event, MemoryUpdated))
        # One that tells of a block elsewhere is none of this thread.
        found += [one for one in changes if not one.memory and label in {"", one.label}]
    return found
