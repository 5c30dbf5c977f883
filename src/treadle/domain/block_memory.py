"""The memory blocks of a thread: a fold of `MemoryUpdated`."""

from collections.abc import Mapping

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from treadle.domain.blocks import Block
from treadle.domain.events import MemoryUpdated
from treadle.errors import InvalidTransition

REMEMBERED = 256
"""How many keys of changes, and labels of deleted blocks, are known: the newest."""


class BlockMemory(Struct, frozen=True, gc=False):
    """Blocks in the order in which they were made.

    `undo` contains for each label the number of the change that is undone next, `deleted` the
    labels of deleted blocks, `keys` the idempotency keys of changes.
    """

    blocks: tuple[Block, ...] = ()
    undo: Mapping[str, int] = msgspec.field(default_factory=dict[str, int])
    deleted: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()

    def get(self, label: str) -> Block | None:
        """Returns the block of that label, if there is one."""
        return next((block for block in self.blocks if block.label == label), None)

    def changed(self, event: MemoryUpdated) -> "BlockMemory":
        """Returns the blocks after `event`; raises `InvalidTransition` where it cannot follow."""
        label, block = event.label, self.get(event.label)
        if event.before != self.undo.get(label, 0) and not event.undoes:
            raise InvalidTransition(f"The change of the block {label!r} does not follow its last.")
        blocks, deleted = self.blocks, self.deleted
        if event.was is None and event.becomes is not None:
            if block is not None:
                raise InvalidTransition(f"There is a block {label!r} already.")
            rules = event.becomes
            made = Block(label, "", rules.description, rules.limit, rules.read_only)
            blocks = (*blocks, _edited(made, event))
            deleted = tuple(one for one in deleted if one != label)
        elif block is None:
            raise InvalidTransition(f"The block {label!r} does not exist.")
        elif event.was is not None and event.becomes is None:
            if event.removed != block.value:
                raise InvalidTransition(f"The block {label!r} holds another text.")
            blocks = tuple(one for one in blocks if one is not block)
            deleted = (*deleted, label)[-REMEMBERED:]
        else:
            edited = _edited(block, event)
            blocks = tuple(edited if one is block else one for one in blocks)
        undo = dict(self.undo)
        undo.pop(label, None)  # the labels changed last come last
        undo[label] = event.before if event.undoes else event.seq
        if len(undo) > 2 * REMEMBERED:
            del undo[next(iter(undo))]
        keys = (*self.keys, event.key)[-REMEMBERED:] if event.key else self.keys
        return BlockMemory(blocks, undo, deleted, keys)


def _edited(block: Block, event: MemoryUpdated) -> Block:
    value, end = block.value, event.position + len(event.removed)
    if value[event.position : end] != event.removed or event.position > len(value):
        raise InvalidTransition(f"The block {block.label!r} holds another text there.")
    rules = event.becomes or block.rules
    return replace(
        block,
        value=value[: event.position] + event.added + value[end:],
        description=rules.description,
        limit=rules.limit,
        read_only=rules.read_only,
    )


NO_MEMORY = BlockMemory()
