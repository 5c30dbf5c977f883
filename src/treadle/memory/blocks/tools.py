"""The tools with which a model edits the memory blocks it reads."""

from treadle.domain.blocks import (
    BLOCK_CHARS,
    AppendText,
    Block,
    BlockEdit,
    CreateBlock,
    DeleteBlock,
    InsertText,
    ReplaceText,
    RewriteBlock,
)
from treadle.errors import ConfigurationError
from treadle.tools.context import RunContext
from treadle.tools.function import Tool, tool


def block_tools(*names: str) -> list[Tool[..., object]]:
    """Returns the memory tools with these names; all of them without names.

    The names are `memory_append`, `memory_replace`, `memory_insert`, `memory_rewrite`,
    `memory_create` and `memory_delete`. Each tool returns the new size of the block, or the reason
    why nothing changed; the model reads the text in its next step. A call changes a block once,
    even if it is repeated after a crash. Rewriting, deleting and inserting by line number are
    refused if the block has changed since the model read it. Raises `ConfigurationError` for an
    unknown name.
    """
    unknown = [name for name in names if name not in _TOOLS]
    if unknown:
        raise ConfigurationError(
            f"Unknown memory tool {unknown[0]!r}; the names are {', '.join(_TOOLS)}."
        )
    return [_TOOLS[name] for name in dict.fromkeys(names or _TOOLS)]


@tool(idempotent=True)
async def memory_append(ctx: RunContext[object], label: str, text: str) -> str:
    """Add text at the end of a memory block, on a new line.

    Args:
        label: The label of the block.
        text: What to add.
    """
    return await _edited(ctx, AppendText(label, text))


@tool(idempotent=True)
async def memory_replace(ctx: RunContext[object], label: str, old: str, new: str) -> str:
    """Replace a text that stands in a memory block exactly once.

    Args:
        label: The label of the block.
        old: The text to be replaced, copied exactly, with enough around it to be found once.
        new: What stands there instead; empty to remove the text.
    """
    return await _edited(ctx, ReplaceText(label, old, new))


@tool(idempotent=True)
async def memory_insert(ctx: RunContext[object], label: str, text: str, line: int) -> str:
    """Insert lines into a memory block.

    Args:
        label: The label of the block.
        text: The lines to insert.
        line: The number of the line after which they stand; 0 for the beginning, -1 for the end.
    """
    return await _edited(ctx, InsertText(label, text, line), as_read=True)


@tool(idempotent=True)
async def memory_rewrite(ctx: RunContext[object], label: str, value: str) -> str:
    """Replace the whole text of a memory block, to reorganize or shorten it.

    Args:
        label: The label of the block.
        value: The new text; nothing else is kept.
    """
    return await _edited(ctx, RewriteBlock(label, value), as_read=True)


@tool(idempotent=True)
async def memory_create(
    ctx: RunContext[object],
    label: str,
    description: str,
    value: str = "",
    limit: int = BLOCK_CHARS,
) -> str:
    """Make a new memory block.

    Args:
        label: Its label, of letters, digits, _ and -.
        description: What belongs in it.
        value: Its text.
        limit: How many characters its text may have.
    """
    return await _edited(ctx, CreateBlock(Block(label, value, description, limit)))


@tool(idempotent=True)
async def memory_delete(ctx: RunContext[object], label: str) -> str:
    """Delete a memory block and all of its text.

    Args:
        label: The label of the block.
    """
    return await _edited(ctx, DeleteBlock(label), as_read=True)


async def _edited(ctx: RunContext[object], edit: BlockEdit, *, as_read: bool = False) -> str:
    block = await ctx.memory.edit(edit, key=ctx.call_id, as_read=as_read)
    if block is None:
        return f"{edit.label}: deleted."
    return f"{block.label}: {len(block.value):,} of {block.limit:,} characters."


_TOOLS: dict[str, Tool[..., object]] = {
    made.name: made
    for made in (
        memory_append,
        memory_replace,
        memory_insert,
        memory_rewrite,
        memory_create,
        memory_delete,
    )
}
