"""The memory blocks of a thread, and the shared blocks that its agent reads."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import cached_property
from typing import Protocol

from msgspec.structs import replace

from treadle.domain.block_edits import change, require_as_read, require_editable, seeds
from treadle.domain.block_memory import BlockMemory
from treadle.domain.blocks import Block, BlockEdit
from treadle.domain.entries import EditEntry
from treadle.domain.events import MemoryUpdated
from treadle.errors import ConfigurationError, StaleWriter
from treadle.ports import RunArchive, ThreadWriter


class SharedMemory(Protocol):
    """A memory that the threads of an owner share, wherever it is driven."""

    @property
    def thread_id(self) -> str:
        """The thread to which the blocks belong."""
        ...

    async def seed_shared(self, declared: Sequence[Block]) -> None:
        """Creates missing blocks that an agent declares in this memory."""
        ...

    async def make(
        self, entry: EditEntry, run_id: str = ""
    ) -> tuple[MemoryUpdated | None, str | None]:
        """Changes a block; returns the event, None if nothing changed, and the text after it.

        Raises the kinds of `MemoryFailed`. The change may not be durable yet.
        """
        ...

    async def kept(self) -> BlockMemory:
        """Returns the blocks once they are durable."""
        ...


class ThreadMemory:
    """Implements `LoopMemory` for the runs of a thread.

    - `shared`: returns the shared memory of the owner with a given name.
    - `lender`: for an agent that works on the memory of another thread, such as a sleep agent:
      returns that memory, which is then read and edited instead.
    - `archive`: the archive for the tools of the runs.
    """

    def __init__(
        self,
        thread: ThreadWriter,
        *,
        shared: Callable[[str], Awaitable[SharedMemory]] | None = None,
        lender: "Callable[[], Awaitable[ThreadMemory]] | None" = None,
        archive: RunArchive | None = None,
    ) -> None:
        self._thread = thread
        self._shared = shared
        self._lender = lender
        self._archive = archive
        self._declared: Sequence[Block] = ()
        self._names: Mapping[str, str] = {}
        self._read: dict[str, str | None] = {}

    @cached_property
    def editing(self) -> asyncio.Lock:
        """Held while a block is changed; an undo holds it while it reads the journal."""
        return asyncio.Lock()

    @property
    def thread_id(self) -> str:
        """The thread to which the blocks belong."""
        return self._thread.id

    # For the runs of the thread

    async def prepare(self, declared: Sequence[Block]) -> None:
        """Creates missing blocks that the agent of the next steps declares.

        If the memory is lent, nothing is created: the blocks are those of the other agent.
        """
        if self._lender is not None:
            return
        self.seed(declared)
        names = {block.label: block.shared for block in declared if block.shared}
        for name in dict.fromkeys(names.values()):
            memory = await self._of_name(name)
            await memory.seed_shared([block for block in declared if block.shared == name])
        self._declared, self._names = declared, names

    async def blocks(self) -> Sequence[Block]:
        """Returns the blocks that the agent declares, in its order, and the thread's other blocks.

        Of a shared memory, only declared blocks are returned, once their changes are durable.
        """
        blocks = await (await self._owner())._all()
        self._read = {block.label: block.value for block in blocks}
        return blocks

    async def _all(self) -> Sequence[Block]:
        own = self._thread.state.memory
        if not self._declared:
            return own.blocks
        names = dict.fromkeys(self._names.values())
        shared = {name: await (await self._of_name(name)).kept() for name in names}
        declared: list[Block] = []
        for block in self._declared:
            memory = shared[block.shared] if block.shared else own
            found = memory.get(block.label)
            if found is not None:
                declared.append(_as_declared(found, block) if block.shared else found)
        known = {block.label for block in self._declared}
        return (*declared, *(block for block in own.blocks if block.label not in known))

    async def edit(self, edit: BlockEdit, *, key: str, as_read: bool = False) -> Block | None:
        """Changes a block of the thread, a shared block or a lent one for the model of a run.

        - `key`: identifies the call; a repeated call changes nothing.
        - `as_read`: refuses the edit if the block has changed since the model read it.

        Returns the block as it is then, or None if it was deleted. A change of another thread's
        block is also recorded on this thread. Raises the kinds of `MemoryFailed`.
        """
        thread, label = self._thread, edit.label
        owner = await self._owner()
        for block in owner._declared:
            if block.label == label and block.shared:
                require_editable(block, "model")  # other agents may have declared it writable
        while True:
            memory = await owner._memory_of(label)
            try:
                return await self._edit(memory, edit, key, as_read=as_read)
            except StaleWriter:  # nothing was changed, and another node has the shared memory now
                if memory.thread_id == thread.id:
                    raise

    async def _edit(
        self, memory: SharedMemory, edit: BlockEdit, key: str, *, as_read: bool
    ) -> Block | None:
        thread, label = self._thread, edit.label
        read, run_id = self._read.get(label), _run_of(thread)
        own = memory.thread_id == thread.id
        if key and not own:
            # Ids of calls are unique within one conversation only; the other one has calls too.
            key = f"{thread.id}/{key}"
        entry = EditEntry(edit, "model", key, "" if own else thread.id, read if as_read else None)
        event, after = await memory.make(entry, run_id if own else "")
        # The model knows the text it has just written, unless another edit came in between. It has
        # not read that one, so `_read` stays as it was, and a later `as_read` is refused.
        if event is not None and _before(event, after) == read:
            self._read[label] = after
        kept = await memory.kept()
        # After the change is durable: a report of a change that is lost would be wrong.
        if event is not None and not own:
            thread.record(replace(event, run_id=run_id, thread_id="", memory=memory.thread_id))
            await thread.durable()
        return kept.get(label)

    @property
    def archive(self) -> RunArchive:
        """The archive of the thread's owner."""
        if self._archive is None:
            raise ConfigurationError(
                "The archive needs a thread in a journal: use treadle.open(agents=[agent]) and "
                "thread.send(…)."
            )
        return self._archive

    async def _owner(self) -> "ThreadMemory":
        """Returns the memory whose blocks are used: this one, or the one that is lent."""
        return self if self._lender is None else await self._lender()

    async def _memory_of(self, label: str) -> SharedMemory:
        """Returns the memory that has a block, or in which it would be created."""
        name = self._names.get(label)
        return self if name is None else await self._of_name(name)

    # For the thread itself

    def seed(self, declared: Sequence[Block]) -> None:
        """Creates missing blocks of this thread that an agent declares."""
        own = [block for block in declared if not block.shared]
        for event in seeds(self._thread.state.memory, own):
            self._thread.record(event)

    async def seed_shared(self, declared: Sequence[Block]) -> None:
        """Creates missing blocks that an agent declares in this shared memory.

        Agents may declare a block differently. The first declaration decides about its text and its
        limit; `description` and `read_only` apply to the agent that declares them.
        """
        for event in shared_seeds(self._thread.state.memory, declared):
            self._thread.record(event)

    async def make(
        self, entry: EditEntry, run_id: str = ""
    ) -> tuple[MemoryUpdated | None, str | None]:
        """Changes a block of this thread, in the run `run_id`; see `SharedMemory.make`."""
        async with self.editing:
            memory, label = self._thread.state.memory, entry.edit.label
            if entry.read is not None:
                require_as_read(memory, label, entry.read, entry.key)
            event = change(memory, entry.edit, entry.author, key=entry.key)
            if event is not None:
                event = replace(event, run_id=run_id, thread_id=entry.thread_id)
                self._thread.record(event)
        return event, value_of(self._thread.state.memory, label)

    async def kept(self) -> BlockMemory:
        """Returns the blocks of this thread once they are durable."""
        memory = self._thread.state.memory
        await self._thread.durable()
        return memory

    async def _of_name(self, name: str) -> SharedMemory:
        if self._shared is None:
            raise ConfigurationError(
                f"The shared memory {name!r} needs a thread in a journal: use "
                "treadle.open(agents=[agent]) and thread.send(…)."
            )
        return await self._shared(name)


def shared_seeds(memory: BlockMemory, declared: Sequence[Block]) -> Sequence[MemoryUpdated]:
    """Returns the events that create the blocks that an agent declares in a shared memory."""
    made = [replace(block, shared="", read_only=False) for block in declared]
    return seeds(memory, made, configures=False)


def value_of(memory: BlockMemory, label: str) -> str | None:
    """Returns the text of a block, None if there is none."""
    block = memory.get(label)
    return None if block is None else block.value


def _run_of(thread: ThreadWriter) -> str:
    """Returns the id of the run in progress, or an empty string."""
    run = thread.state.active_run
    return run.id if run is not None else ""


def _as_declared(block: Block, declared: Block) -> Block:
    """Returns a shared block with the description and `read_only` of the agent that reads it."""
    return replace(
        block,
        description=declared.description or block.description,
        read_only=declared.read_only or block.read_only,
    )


def _before(event: MemoryUpdated, after: str | None) -> str | None:
    """Returns the text of a block before a change; `after` is its text after it."""
    if after is None:
        return event.removed
    if event.was is None and event.becomes is not None:
        return None
    end = event.position + len(event.added)
    return after[: event.position] + event.removed + after[end:]
