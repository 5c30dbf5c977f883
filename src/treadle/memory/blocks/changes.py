"""The changes of memory blocks, read from the journal."""

from collections.abc import Awaitable, Callable, Sequence

from treadle.domain.block_memory import BlockMemory
from treadle.domain.entries import UndoEntry
from treadle.domain.events import MemoryUpdated
from treadle.errors import ChangeNotUndoable
from treadle.journal.base import Journal
from treadle.memory.blocks.undo import newest_standing, undo

PAGE = 500
Changes = Callable[[str, int, int], Awaitable[Sequence[MemoryUpdated]]]
"""Reads the changes of a block of one thread, from one number to another."""


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


async def undo_of(
    memory: BlockMemory, input: UndoEntry, changes: Changes, last: int
) -> MemoryUpdated:
    """Returns the event that undoes the change of a block that was asked for.

    Without a number that is the newest that is not undone. The `memory` is that of the state
    `last`. Raises `ChangeNotUndoable`, and as an edit.
    """
    seq, first = input.seq, input.seq or memory.undo.get(input.label, 0)
    while first:
        known = await changes(input.label, first, last)
        target = _numbered(known, seq) if seq else newest_standing(known)
        if target is not None:
            return undo(memory, target, known[known.index(target) + 1 :], "user")
        first = known[0].before if known and not seq else 0
    what = f"There is no change {seq} of" if seq else "There is no change to undo of"
    raise ChangeNotUndoable(f"{what} the memory block {input.label[:100]!r}.")


def _numbered(changes: Sequence[MemoryUpdated], seq: int) -> MemoryUpdated | None:
    return next((change for change in changes if change.seq == seq), None)
