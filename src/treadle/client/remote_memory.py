"""The memory of a thread on a server, as its users hold it."""

from collections.abc import Sequence

from treadle.client.address import segment
from treadle.client.connection import Connection
from treadle.client.listed import Listed, read_events
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
from treadle.domain.events import MemoryUpdated
from treadle.domain.ids import new_id
from treadle.errors import InvalidInput, ThreadNotFound, UnknownBlock


class RemoteMemory:
    """Memory blocks, with the methods of `treadle.Memory`.

    They are those of the thread `thread_id`, or those that the threads of an owner share under a
    `name`.
    """

    def __init__(
        self, connection: Connection, *, thread_id: str, name: str = "", owner: str = ""
    ) -> None:
        self.thread_id = thread_id
        self._name = name
        self._query = {"owner": owner} if name else {}
        self._connection = connection

    def __repr__(self) -> str:
        return f"RemoteMemory({self.thread_id!r})"

    async def blocks(self) -> Sequence[Block]:
        """Returns the blocks in the order in which they were made."""
        return tuple((await self._connection.get(self._path, Listed[Block], self._query)).data)

    async def get(self, label: str) -> Block | None:
        """Returns a block, or None if there is none of that label."""
        return next((one for one in await self.blocks() if one.label == label), None)

    async def append(self, label: str, text: str, *, key: str = "") -> None:
        """Adds a line at the end of a block; here and below, the same `key` changes it once."""
        await self._edit(AppendText(label, text), key)

    async def replace(self, label: str, old: str, new: str, *, key: str = "") -> None:
        """Replaces a text that stands in a block exactly once."""
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
        """Changes what holds for the text of a block; None leaves it, and the text stays."""
        await self._edit(ConfigureBlock(label, description, limit, read_only), key)

    async def delete(self, label: str, *, key: str = "") -> None:
        """Removes a block."""
        await self._edit(DeleteBlock(label), key)

    async def undo(self, label: str, seq: int = 0) -> None:
        """Takes back the change of a block that has the number `seq`, 0 for the last one.

        It is not sent again if the answer is lost: that could take back another change.
        """
        path = f"{self._path}/{segment(label, UnknownBlock, 'memory block')}/undo"
        await self._connection.call(
            "POST", path, query=self._query, body={"seq": seq}, repeats=False
        )

    async def changes(self, label: str = "") -> Sequence[MemoryUpdated]:
        """Returns the changes of a block, or of all blocks, the oldest first."""
        if not label:
            events = await read_events(self._connection, self.thread_id, 0, None)
            return [event for event in events if isinstance(event, MemoryUpdated)]
        path = f"{self._path}/{segment(label, UnknownBlock, 'memory block')}/changes"
        return (await self._connection.get(path, Listed[MemoryUpdated], self._query)).data

    async def _edit(self, edit: BlockEdit, key: str) -> None:
        # With a key of its own, an edit whose answer was lost is sent again and has one effect.
        body = {"edit": edit, "key": key or new_id("evt")}
        await self._connection.call("POST", self._path, query=self._query, body=body)

    @property
    def _path(self) -> str:
        if not self._name:
            return f"/threads/{segment(self.thread_id, ThreadNotFound, 'thread')}/memory"
        return f"/memory/{segment(self._name, InvalidInput, 'memory')}"
