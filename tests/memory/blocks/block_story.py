"""Changes of memory blocks, ready to be made one after the other in tests."""

from collections.abc import Sequence

from msgspec.structs import replace

from treadle.domain.block_edits import change
from treadle.domain.block_memory import BlockMemory
from treadle.domain.block_undo import undo
from treadle.domain.blocks import Block, BlockEdit
from treadle.domain.events import MemoryAuthor, MemoryUpdated


class Story:
    """A memory and all the changes it came from; `edit` and `undo` add the next."""

    def __init__(self, *blocks: Block) -> None:
        self.memory = BlockMemory()
        self.changes: list[MemoryUpdated] = []
        for block in blocks:
            self.record(
                MemoryUpdated(
                    label=block.label,
                    operation="create",
                    author="agent",
                    added=block.value,
                    becomes=block.rules,
                    before=self.memory.undo.get(block.label, 0),
                )
            )

    def record(self, event: MemoryUpdated) -> MemoryUpdated:
        event = replace(event, seq=len(self.changes) + 1)
        self.memory = self.memory.changed(event)
        self.changes.append(event)
        return event

    def edit(
        self, edit: BlockEdit, author: MemoryAuthor = "user", key: str = ""
    ) -> MemoryUpdated | None:
        event = change(self.memory, edit, author, key=key)
        return None if event is None else self.record(event)

    def undo(self, seq: int, author: MemoryAuthor = "user") -> MemoryUpdated:
        later = self.changes[seq:]
        return self.record(undo(self.memory, self.changes[seq - 1], later, author))

    def text(self, label: str = "human") -> str:
        block = self.memory.get(label)
        assert block is not None
        return block.value


def texts(memory: BlockMemory) -> dict[str, str]:
    return {block.label: block.value for block in memory.blocks}


def seqs(changes: Sequence[MemoryUpdated]) -> list[int]:
    return [one.seq for one in changes]
