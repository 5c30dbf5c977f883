"""Taking back one change of a memory block, whatever was changed after it; pure functions.

Every character has an identity, which it keeps when it is removed and an undo brings it back. So
what a change added is found again behind the changes after it; where some of it is gone, or
something was written into it, the change cannot be taken back by itself.
"""

from collections.abc import Collection, Sequence
from itertools import count, islice

from treadle.domain.block_edits import require_editable, require_fits, require_room
from treadle.domain.block_memory import BlockMemory
from treadle.domain.blocks import Block
from treadle.domain.events import MemoryAuthor, MemoryUpdated
from treadle.errors import ChangeNotUndoable


def undo(
    memory: BlockMemory,
    target: MemoryUpdated,
    later: Sequence[MemoryUpdated],
    author: MemoryAuthor,
) -> MemoryUpdated:
    """Returns the event that takes back the change `target`, and that change alone.

    `later` are the changes of the memory after it up to now, oldest first; those of other blocks
    are passed over. To take back an undo makes the change again. Raises `ChangeNotUndoable` where
    a later change stands in the way, `BlockReadOnly` and `BlockTooLong` as an edit does, and
    `MemoryFailed` where a deleted block would be one too many.
    """
    later = [change for change in later if change.label == target.label]
    newest, times = target.seq, 0  # of those that took it back, and made it again
    for change in later:
        if change.undoes == newest:
            newest, times = change.seq, times + 1
    if times % 2:
        raise ChangeNotUndoable(
            f"Change {target.seq} of the memory block {target.label!r} was taken back already, by "
            f"change {newest}; take that back to have it again."
        )
    block = memory.get(target.label)
    trace = _Trace(target, later, 0 if block is None else len(block.value))
    position = trace.position()
    if position is None:
        raise _in_the_way(target, trace.touching)
    if block is not None and target.becomes not in {None, block.rules}:
        configured = {change.seq for change in later if change.becomes is not None}
        raise _in_the_way(target, configured - taken_back(later))
    made = MemoryUpdated(
        label=target.label,
        operation="undo",
        author=author,
        position=position,
        removed=target.added,
        added=target.removed,
        was=target.becomes,
        becomes=target.was,
        undoes=newest,
        before=_before(memory, target),
    )
    _require_allowed(memory, block, made)
    return made


def taken_back(changes: Sequence[MemoryUpdated]) -> frozenset[int]:
    """Returns the numbers of the changes that are undone, by changes that are not.

    Those before the first of `changes` are among them where one of these took them back.
    """
    undone: set[int] = set()
    for change in reversed(changes):
        if change.undoes and change.seq not in undone:
            undone.add(change.undoes)
    return frozenset(undone)


def newest_standing(changes: Sequence[MemoryUpdated]) -> MemoryUpdated | None:
    """Returns the newest of `changes`, up to now, that is neither an undo nor taken back.

    An undo without a number means this change. None if it is not among `changes`: it may be older.
    """
    undone = taken_back(changes)
    standing = (one for one in reversed(changes) if not one.undoes and one.seq not in undone)
    return next(standing, None)


def _before(memory: BlockMemory, target: MemoryUpdated) -> int:
    """The change of the block to be undone next: one in the middle leaves it as it is."""
    newest = memory.undo.get(target.label, 0)
    if target.undoes:
        return max(newest, target.undoes)
    return target.before if newest == target.seq else newest


def _require_allowed(memory: BlockMemory, block: Block | None, made: MemoryUpdated) -> None:
    if block is None:
        assert made.becomes is not None  # only a deleted block is not there
        require_editable(Block(made.label, read_only=made.becomes.read_only), made.author)
        require_room(memory)
        return
    require_editable(block, made.author)
    if made.was is None:
        end = made.position + len(made.removed)
        require_fits(block, block.value[: made.position] + made.added + block.value[end:])


def _in_the_way(target: MemoryUpdated, changes: Collection[int]) -> ChangeNotUndoable:
    return ChangeNotUndoable(
        f"Change {target.seq} of the memory block {target.label!r} cannot be taken back by itself: "
        f"change {max(changes, default=0)} came on top of it; take that back first."
    )


class _Trace:
    """The characters of a block as numbers, from behind `target` up to now.

    The block itself has a number at each end, so that one that was deleted and made again is
    another. `touching` are the changes that removed some of what the target left there, or wrote
    into it, and were not taken back.
    """

    def __init__(self, target: MemoryUpdated, later: Sequence[MemoryUpdated], length: int) -> None:
        self.touching: set[int] = set()
        self._fresh = count()
        self._removed: dict[int, list[int]] = {}
        self._older: dict[int, int] = {}
        before = length - sum(len(change.added) - len(change.removed) for change in later)
        self._text = [] if _deletes(target) else self._new(before + 2)
        start = 0 if _creates(target) else target.position + 1
        end = len(self._text) if _creates(target) else start + len(target.added)
        self._left = self._text[start:end]
        self._beside = self._text[start - 1 : start + 1]
        inside, marked = set(self._left), {*self._left, *self._beside}
        for change in later:
            self._follow(change, inside, marked)
        self.touching -= taken_back(later)

    def position(self) -> int | None:
        """Where the text is that is to be removed or put back; None where it cannot be."""
        text, left = self._text, self._left
        if left:
            start = text.index(left[0]) if left[0] in text else len(text)
            return max(0, start - 1) if text[start : start + len(left)] == left else None
        if not self._beside:
            return None if self.touching else 0
        before, after = self._beside
        if before not in text and after not in text:
            return None
        place = text.index(before) + 1 if before in text else text.index(after)
        # What an undo brought back there, and the target did not know, may belong on either side.
        unknown = {self._older[one] for one in text[place - 1 : place + 1] if one in self._older}
        self.touching |= unknown
        return None if unknown else place - 1

    def _follow(self, change: MemoryUpdated, inside: set[int], marked: set[int]) -> None:
        text = self._text
        whole = _creates(change) or _deletes(change)
        start = 0 if whole else change.position + 1
        end = len(text) if whole else start + len(change.removed)
        removed, around = text[start:end], {*text[start - 1 : start], *text[end : end + 1]}
        added = self._removed.get(change.undoes)
        again = added is None and _creates(change)  # another block of the label
        written = bool(around) and around <= inside
        touches = not marked or again or written or not marked.isdisjoint(removed)
        if added is None and touches:  # else it makes one of these undone
            self.touching.add(change.seq)
        if added is None:
            added = self._new(len(change.added) + (2 if again else 0))
            if change.undoes:
                self._older.update(dict.fromkeys(added, change.seq))
        self._removed[change.seq] = removed
        text[start:end] = added

    def _new(self, length: int) -> list[int]:
        return list(islice(self._fresh, length))


def _creates(change: MemoryUpdated) -> bool:
    return change.was is None and change.becomes is not None


def _deletes(change: MemoryUpdated) -> bool:
    return change.was is not None and change.becomes is None
