"""The memory blocks of a thread as the state of AG-UI."""

from treadle.domain.arguments import is_mapping
from treadle.domain.block_memory import BlockMemory
from treadle.domain.events import MemoryUpdated
from treadle.errors import InvalidTransition
from treadle.server.ag_ui.run_frames import Json

MEMORY = "memory"
"""The key of the blocks in the state; the other keys are the client's own."""


class BlockState:
    """The state that a client has: its own, and below `memory` the text of each block.

    Blocks that threads share are not part of it.
    """

    def __init__(self, given: object, memory: BlockMemory, seq: int) -> None:
        self._own = dict(given) if is_mapping(given) else {}
        self._memory = memory
        self._seq = seq
        self._is_shown = False

    @property
    def snapshot(self) -> Json | None:
        """The whole state; None if there is no block, and the client knows of none."""
        if not self._memory.blocks and MEMORY not in self._own and not self._is_shown:
            return None
        self._is_shown = True
        blocks = {block.label: block.value for block in self._memory.blocks}
        return {**self._own, MEMORY: blocks}

    def change(self, event: MemoryUpdated) -> tuple[Json | None, list[Json]]:
        """Returns the state after a change: as a whole for a client that has none, else a patch."""
        if event.seq <= self._seq or event.memory:
            return None, []
        try:
            memory = self._memory.changed(event)
        except InvalidTransition:
            return None, []  # a change outside of the run came between; the next snapshot has it
        label = event.label
        was, block = self._memory.get(label), memory.get(label)
        self._memory = memory
        if not self._is_shown:
            return self.snapshot, []
        path = f"/{MEMORY}/{label}"  # labels need no escapes in a JSON Pointer
        if block is None:
            return None, [{"op": "remove", "path": path}]
        if was is not None and was.value == block.value:
            return None, []
        return None, [
            {"op": "add" if was is None else "replace", "path": path, "value": block.value}
        ]
