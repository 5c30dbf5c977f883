"""The memory of a thread, or one that threads share, as its users hold it."""

from collections.abc import Sequence

from treadle.actors.access import ThreadAccess
from treadle.domain.blocks import (
    BLOCK_CHARS,
    AppendText,
    Block,
    BlockEdit,
    ConfigureBlock,
    CreateBlock,
    DeleteBlock,
    InsertText,
    ReplaceText,
    RewriteBlock,
)
from treadle.domain.entries import EditEntry, UndoEntry
from treadle.domain.events import MemoryUpdated
from treadle.journal.base import JournalReader
from treadle.memory.blocks.changes import changes_of


class Memory:
    """Memory blocks: read them, edit them, undo what was done to them.

    Every change is a `MemoryUpdated` event of the thread `thread_id`, and an agent reads it before
    its next step. A handle costs nothing. What is refused raises one of the kinds of
    `MemoryFailed`, and changes nothing. In a process that does not drive the threads, a change is
    made once the driving process takes it.
    """

    def __init__(self, thread_id: str, threads: ThreadAccess, journal: JournalReader) -> None:
        self.thread_id = thread_id
        self._threads = threads
        self._journal = journal

    def __repr__(self) -> str:
        return f"Memory({self.thread_id!r})"

    async def blocks(self) -> Sequence[Block]:
        """Returns the blocks in the order in which they were made."""
        return (await self._threads.head(self.thread_id)).memory.blocks

    async def get(self, label: str) -> Block | None:
        """Returns a block, or None if there is none of that label."""
        return (await self._threads.head(self.thread_id)).memory.get(label)

    async def append(self, label: str, text: str, *, key: str = "") -> None:
        """Adds a line at the end of a block; here and below, the same `key` changes it once."""
        await self._edit(AppendText(label, text), key)

    async def replace(self, label: str, old: str, new: str, *, key: str = "") -> None:
        """Replaces a text that stands in a block exactly once.

        Raises `TextNotFound`, and `TextNotUnique`, which tells the lines.
        """
        await self._edit(ReplaceText(label, old, new), key)

    async def insert(self, label: str, text: str, line: int = -1, *, key: str = "") -> None:
        """Inserts lines after line number `line`: 0 puts them first, -1 last."""
        await self._edit(InsertText(label, text, line), key)

    async def rewrite(self, label: str, value: str, *, key: str = "") -> None:
        """Gives a block another text."""
        await self._edit(RewriteBlock(label, value), key)

    async def create(
        self,
        label: str,
        value: str = "",
        *,
        description: str = "",
        limit: int = BLOCK_CHARS,
        read_only: bool = False,
        key: str = "",
    ) -> None:
        """Makes a block; see `Block`. Raises `BlockExists`."""
        await self._edit(CreateBlock(Block(label, value, description, limit, read_only)), key)

    async def configure(
        self,
        label: str,
        *,
        description: str | None = None,
        limit: int | None = None,
        read_only: bool | None = None,
        key: str = "",
    ) -> None:
        """Changes what holds for the text of a block; None leaves it, and the text stays.

        Of a block of its own, an agent that declares otherwise changes it back with its next run.
        """
        await self._edit(ConfigureBlock(label, description, limit, read_only), key)

    async def delete(self, label: str, *, key: str = "") -> None:
        """Removes a block; an agent that declares it does not make it again."""
        await self._edit(DeleteBlock(label), key)

    async def undo(self, label: str, seq: int = 0) -> None:
        """Takes back the change of a block that has the number `seq`, and no other.

        Without a number it is the last that was not undone, so that each call goes one further
        back. To undo an undo does it again. Raises `ChangeNotUndoable` where later changes stand
        in its place.
        """
        await self._threads.submit(self.thread_id, UndoEntry(label, seq))

    async def changes(self, label: str = "") -> Sequence[MemoryUpdated]:
        """Returns the changes of a block, or of all blocks, the oldest first."""
        return await changes_of(self._journal, self.thread_id, label)

    async def _edit(self, edit: BlockEdit, key: str) -> None:
        await self._threads.submit(self.thread_id, EditEntry(edit, key=key))
