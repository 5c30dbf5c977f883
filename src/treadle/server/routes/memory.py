"""Memory blocks of a thread: read, edit and undo."""

from typing import Any

from msgspec import UNSET, Struct, UnsetType

from treadle.domain.arguments import shown
from treadle.domain.blocks import (
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
from treadle.errors import BlockExists, InvalidInput, UnknownBlock
from treadle.runtime.memory import Memory
from treadle.server.api_request import ApiRequest
from treadle.server.operation import Answer, Operations, Page
from treadle.server.streams import NO_CONTENT

MEMORY = Operations("Memory")


class Edit(Struct, frozen=True, forbid_unknown_fields=True):
    """A change of a block; the same `key` changes it once."""

    edit: BlockEdit
    key: str = ""


class BlockValue(Struct, frozen=True, forbid_unknown_fields=True):
    """The text of a block, and what holds for it; what is left out stays."""

    value: str
    description: str | UnsetType = UNSET
    limit: int | UnsetType = UNSET
    read_only: bool | UnsetType = UNSET


class Undo(Struct, frozen=True, forbid_unknown_fields=True):
    """The number of the change to take back; 0 is the last one that was not undone."""

    seq: int = 0


async def _memory(request: ApiRequest[Any, Any]) -> Memory:
    return (await request.runtime.connect(request.path["thread_id"])).memory


async def _block(memory: Memory, label: str) -> Block:
    block = await memory.get(label)
    if block is None:
        raise UnknownBlock(f"There is no memory block {label[:100]!r}.")
    return block


@MEMORY.add("GET", "/threads/{thread_id}/memory", scope="read", answers={200: Block}, is_page=True)
async def list_blocks(request: ApiRequest[Any, None]) -> Page:
    """Lists the memory blocks of a thread."""
    return Page(list(await (await _memory(request)).blocks()))


@MEMORY.add("POST", "/threads/{thread_id}/memory", scope="write", body=Edit, answers={204: None})
async def edit_block(request: ApiRequest[Any, Edit]) -> Answer:
    """Changes a memory block."""
    memory, key = await _memory(request), request.body.key
    match request.body.edit:
        case AppendText(label, text):
            await memory.append(label, text, key=key)
        case ReplaceText(label, old, new):
            await memory.replace(label, old, new, key=key)
        case InsertText(label, text, line):
            await memory.insert(label, text, line, key=key)
        case RewriteBlock(label, value):
            await memory.rewrite(label, value, key=key)
        case CreateBlock(block):
            if block.shared:
                raise InvalidInput(f"shared={shown(block.shared)} is declared by agents only.")
            await memory.create(
                block.label,
                block.value,
                description=block.description,
                limit=block.limit,
                read_only=block.read_only,
                key=key,
            )
        case ConfigureBlock(label, description, limit, read_only):
            await memory.configure(
                label, description=description, limit=limit, read_only=read_only, key=key
            )
        case DeleteBlock(label):
            await memory.delete(label, key=key)
    return NO_CONTENT


@MEMORY.add("GET", "/threads/{thread_id}/memory/{label}", scope="read", answers={200: Block})
async def read_block(request: ApiRequest[Any, None]) -> Block:
    """Returns a memory block."""
    return await _block(await _memory(request), request.path["label"])


@MEMORY.add(
    "PUT",
    "/threads/{thread_id}/memory/{label}",
    scope="write",
    body=BlockValue,
    answers={200: Block},
)
async def put_block(request: ApiRequest[Any, BlockValue]) -> Block:
    """Gives a memory block its text and rules; creates it if it is missing."""
    memory, label, body = await _memory(request), request.path["label"], request.body
    rules: dict[str, Any] = {
        name: value
        for name in ("description", "limit", "read_only")
        if (value := getattr(body, name)) is not UNSET
    }
    if await memory.get(label) is None:
        try:
            await memory.create(label, body.value, **rules)
            return await _block(memory, label)
        except BlockExists:
            pass  # created meanwhile
    if rules:
        await memory.configure(label, **rules)
    await memory.rewrite(label, body.value)
    return await _block(memory, label)


@MEMORY.add("DELETE", "/threads/{thread_id}/memory/{label}", scope="write", answers={204: None})
async def delete_block(request: ApiRequest[Any, None]) -> Answer:
    """Removes a memory block."""
    await (await _memory(request)).delete(request.path["label"])
    return NO_CONTENT


@MEMORY.add(
    "POST",
    "/threads/{thread_id}/memory/{label}/undo",
    scope="write",
    body=Undo,
    answers={200: Block, 204: None},
)
async def undo_change(request: ApiRequest[Any, Undo]) -> object:
    """Takes back a change of a memory block; 204 if the block is gone with it."""
    memory, label = await _memory(request), request.path["label"]
    await memory.undo(label, request.body.seq)
    block = await memory.get(label)
    return NO_CONTENT if block is None else block


@MEMORY.add(
    "GET",
    "/threads/{thread_id}/memory/{label}/changes",
    scope="read",
    answers={200: MemoryUpdated},
    is_page=True,
)
async def list_changes(request: ApiRequest[Any, None]) -> Page:
    """Lists the changes of a memory block, the oldest first."""
    return Page(list(await (await _memory(request)).changes(request.path["label"])))
