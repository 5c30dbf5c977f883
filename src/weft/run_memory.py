"""The port to what a run remembers."""

from collections.abc import Collection, Sequence
from typing import Protocol

from weft.blocks import Block, BlockEdit
from weft.passages import By, Filters, Found


class RunArchive(Protocol):
    """What was said and noted on all threads of the owner of a run, for the agent that works."""

    async def insert(self, text: str, *, tags: Sequence[str] = (), key: str = "") -> str:
        """Notes a text on the thread of the run; returns its id once it cannot be lost.

        The same `key` notes it once. Raises `InvalidInput`, `EmbeddingFailed`, `EmbeddingInvalid`
        and `JournalError`, and then notes nothing.
        """
        ...

    async def search(
        self, text: str, *, by: By = "both", filters: Filters, limit: int = 10, offset: int = 0
    ) -> Sequence[Found]:
        """Returns what fits `text` best; see `weft.runtime.archive.Archive.search`."""
        ...

    def left_window(self) -> Collection[str]:
        """Returns the ids of the thread's messages that its model no longer reads."""
        ...


class RunMemory(Protocol):
    """The memory of the agent that works on a run: the blocks of its thread, and shared ones."""

    async def prepare(self, declared: Sequence[Block]) -> None:
        """Makes the blocks that an agent declares be there; it is the one that works from now on.

        Raises `JournalError`.
        """
        ...

    async def blocks(self) -> Sequence[Block]:
        """Returns the blocks that the agent reads, as they are now and in a stable order."""
        ...

    async def edit(self, edit: BlockEdit, *, key: str, as_read: bool = False) -> Block | None:
        """Changes a block for the model; returns it as it is then, or None if it was deleted.

        Returns once the change cannot be lost; the same `key` changes it once. With `as_read` the
        block must hold what the agent read last, by `blocks` or before its step. Raises the kinds
        of `MemoryFailed`, and then changes nothing.
        """
        ...

    @property
    def archive(self) -> RunArchive:
        """The archive; raises `ConfigurationError` where there is none."""
        ...
