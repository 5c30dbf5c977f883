"""Memory blocks of a thread, or of a memory that threads share: read, edit and undo."""

from collections.abc import Callable, Mapping
from functools import partial
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
from treadle.errors import BlockExists, InvalidInput, ThreadNotFound, UnknownBlock
from treadle.journal.base import ThreadInfo
from treadle.runtime.memory import Memory
from treadle.server.api_request import ApiRequest, own_owner
from treadle.server.operation import Answer, Handler, Limit, Operations, Page
from treadle.server.principal import Scope
from treadle.server.streams import NO_CONTENT

MEMORY = Operations("Memory")


class SharedQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """The owner of the shared memory; it is for keys without an owner."""

    owner: str = ""


class MemoriesQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """How many shared memories, and from where; `owner` is for keys without an owner."""

    limit: Limit = 50
    after: str = ""
    owner: str | None = None


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


def _add(
    method: str,
    path: str,
    *,
    scope: Scope,
    answers: Mapping[int, Any],
    body: type[Any] | None = None,
    is_page: bool = False,
) -> Callable[[Handler], Handler]:
    """Makes two operations of a function: for the memory of a thread, and for a shared one."""

    def register(handler: Handler) -> Handler:
        add = partial(MEMORY.add, method, scope=scope, answers=answers, body=body, is_page=is_page)
        add(path=f"/threads/{{thread_id}}/memory{path}")(handler)
        id = f"shared_{getattr(handler, '__name__', '')}"
        add(path=f"/memory/{{name}}{path}", query=SharedQuery, id=id)(handler)
        return handler

    return register


async def _memory(request: ApiRequest[Any, Any], *, create: bool = True) -> Memory:
    thread_id = request.path.get("thread_id")
    if thread_id is not None:
        return (await request.runtime.connect(thread_id)).memory
    name, owner = request.path["name"], own_owner(request, request.query.owner or None)
    return await request.runtime.memory(name, owner=owner, create=create)


async def _block(memory: Memory, label: str) -> Block:
    block = await memory.get(label)
    if block is None:
        raise _unknown(label)
    return block


def _unknown(label: str) -> UnknownBlock:
    return UnknownBlock(f"There is no memory block {label[:100]!r}.")


@MEMORY.add(
    "GET", "/memory", scope="read", query=MemoriesQuery, answers={200: ThreadInfo}, is_page=True
)
async def list_memories(request: ApiRequest[MemoriesQuery, None]) -> Page:
    """Lists the shared memories, the oldest first; `memory` is the name of each."""
    query = request.query
    found = await request.runtime.memories(limit=query.limit, after=query.after, owner=query.owner)
    return Page(list(found), found.next or None)


@_add("GET", "", scope="read", answers={200: Block}, is_page=True)
async def list_blocks(request: ApiRequest[Any, None]) -> Page:
    """Lists the memory blocks."""
    try:
        memory = await _memory(request, create=False)
    except ThreadNotFound:
        if "thread_id" in request.path:
            raise
        return Page([])  # a shared memory that was not used yet
    return Page(list(await memory.blocks()))


@_add("POST", "", scope="write", body=Edit, answers={204: None})
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


@_add("GET", "/{label}", scope="read", answers={200: Block})
async def read_block(request: ApiRequest[Any, None]) -> Block:
    """Returns a memory block."""
    label = request.path["label"]
    try:
        memory = await _memory(request, create=False)
    except ThreadNotFound:
        if "thread_id" in request.path:
            raise
        raise _unknown(label) from None
    return await _block(memory, label)


@_add(
    "PUT",
    "/{label}",
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


@_add("DELETE", "/{label}", scope="write", answers={204: None})
async def delete_block(request: ApiRequest[Any, None]) -> Answer:
    """Removes a memory block."""
    await (await _memory(request)).delete(request.path["label"])
    return NO_CONTENT


@_add(
    "POST",
    "/{label}/undo",
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


@_add(
    "GET",
    "/{label}/changes",
    scope="read",
    answers={200: MemoryUpdated},
    is_page=True,
)
async def list_changes(request: ApiRequest[Any, None]) -> Page:
    """Lists the changes of a memory block, the oldest first."""
    try:
        memory = await _memory(request, create=False)
    except ThreadNotFound:
        if "thread_id" in request.path:
            raise
        return Page([])
    return Page(list(await memory.changes(request.path["label"])))
