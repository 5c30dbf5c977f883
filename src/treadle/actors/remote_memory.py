"""A shared memory that another node drives, for the runs of this one."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from msgspec.structs import replace

from treadle.actors.access import ThreadAccess
from treadle.domain.accept import accept
from treadle.domain.block_memory import BlockMemory
from treadle.domain.blocks import Block, CreateBlock
from treadle.domain.entries import EditEntry
from treadle.domain.events import MemoryUpdated
from treadle.domain.ids import new_id
from treadle.errors import BlockChanged, BlockExists, VerdictUnknown
from treadle.journal.base import Journal
from treadle.memory.blocks.changes import changes_of
from treadle.memory.blocks.thread_memory import shared_seeds, value_of

FIRST_LOOK_SECONDS = 0.005
LAST_LOOK_SECONDS = 0.1
"""How often it is looked what has become of a change, at first and later."""

VERDICT_SECONDS = 30.0
"""How long the driving node may take to decide about a change."""


class RemoteMemory:
    """Fulfils `SharedMemory`: a change is an entry that the driving node decides about."""

    def __init__(self, thread_id: str, threads: ThreadAccess, journal: Journal) -> None:
        self.thread_id = thread_id
        self._threads = threads
        self._journal = journal

    async def seed_shared(self, declared: Sequence[Block]) -> None:
        """Creates missing blocks that an agent declares in this memory."""
        blocks = {block.label: block for block in declared}
        for event in shared_seeds(await self.kept(), declared):
            made = replace(blocks[event.label], shared="", read_only=False)
            with suppress(BlockExists):  # another agent that declares it was quicker
                await self.make(EditEntry(CreateBlock(made), "agent"))

    async def make(
        self, entry: EditEntry, run_id: str = ""
    ) -> tuple[MemoryUpdated | None, str | None]:
        """Changes a block, once the driving node has taken the entry."""
        assert not run_id, "a run of another thread is named in the event of that thread"
        entry = entry if entry.key else replace(entry, key=new_id("call"))
        label, before = entry.edit.label, await self._journal.last_seq(self.thread_id)
        await self._threads.submit(self.thread_id, entry)
        await self._decided(entry)
        memory = await self.kept()
        if entry.key not in memory.keys:
            state = await self._threads.state(self.thread_id)
            if accept(state, entry):  # raises why it was refused
                raise BlockChanged(
                    f"The memory block {label!r} was being changed, and nothing was done; read it "
                    "again, and then edit it."
                )
            return None, value_of(memory, label)  # it changes nothing
        changes = await changes_of(self._journal, self.thread_id, label, first=before + 1)
        made = next((event for event in changes if event.key == entry.key), None)
        return made, value_of(memory, label)

    async def kept(self) -> BlockMemory:
        """Returns the blocks, as the journal has them."""
        return (await self._threads.head(self.thread_id)).memory

    async def _decided(self, entry: EditEntry) -> None:
        """Waits until the entry has left the inbox; raises `VerdictUnknown`."""
        loop = asyncio.get_running_loop()
        end, pause = loop.time() + VERDICT_SECONDS, FIRST_LOOK_SECONDS
        while True:
            waiting = await self._journal.inbox(self.thread_id)
            if not any(getattr(one.entry, "key", "") == entry.key for one in waiting):
                return
            if loop.time() >= end:
                raise VerdictUnknown(
                    f"The change of the memory block {entry.edit.label!r} waits for the node that "
                    "drives the shared memory; it may still be made."
                )
            await asyncio.sleep(pause)
            pause = min(2 * pause, LAST_LOOK_SECONDS)
