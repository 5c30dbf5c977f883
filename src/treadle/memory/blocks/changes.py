"""The changes of memory blocks, read from the journal."""

from collections.abc import Awaitable, Callable, Sequence

from treadle.domain.block_memory import BlockMemory
from treadle.domain.block_undo import newest_standing
from treadle.domain.entries import UndoEntry
from treadle.domain.events import MemoryUpdated
from treadle.journal.base import JournalReader

PAGE = 500
Changes = Callable[[str, int, int], Awaitable[Sequence[MemoryUpdated]]]
"""Reads the changes of a block of one thread, from one event number to another."""


async def changes_of(
    journal: JournalReader, thread_id: str, label: str = "", first: int = 1, last: int | None = None
) -> Sequence[MemoryUpdated]:
    """Returns the changes of a block of a thread, or of all its blocks, the oldest first.

    - `first`, `last`: the numbers of the first and the last event that are read.

    Raises `ThreadNotFound`.
    """
    found: list[MemoryUpdated] = []
    seq = first - 1
    while events := await journal.read(thread_id, after=seq, until=last, limit=PAGE):
        seq = events[-1].seq
        changes = (event for event in events if isinstance(event, MemoryUpdated))
        # An event with `memory` reports a change of a block of another thread.
        found += [one for one in changes if not one.memory and label in {"", one.label}]
    return found


async def undone_by(
    memory: BlockMemory, entry: UndoEntry, changes: Changes, last: int
) -> Sequence[MemoryUpdated]:
    """Returns the change that `entry` undoes and those of its block after it, the oldest first.

    Without a number, that is the newest change that is not undone. `memory` is the memory of the
    thread after event `last`. Returns nothing if the change is not found.
    """
    seq, first = entry.seq, entry.seq or memory.undo.get(entry.label, 0)
    while first:
        known = await changes(entry.label, first, last)
        target = _numbered(known, seq) if seq else newest_standing(known)
        if target is not None:
            return known[known.index(target) :]
        first = known[0].before if known and not seq else 0
    return ()


def _numbered(changes: Sequence[MemoryUpdated], seq: int) -> MemoryUpdated | None:
    return next((change for change in changes if change.seq == seq), None)
