"""What may be asked of a memory block, and the change that comes of it; pure functions.

An edit is what a model asks for with a tool and a program with a call, and what waits in an inbox.
`change` makes the event of one. It alone decides what is allowed; where it raises, nothing changed.
Positions, limits and lengths count characters.
"""

import re
from collections.abc import Iterator, Sequence
from itertools import accumulate, islice
from typing import assert_never

from msgspec import Struct, ValidationError, convert, to_builtins

from treadle.domain.block_memory import BlockMemory
from treadle.domain.blocks import (
    AppendText,
    Block,
    BlockEdit,
    BlockRules,
    ConfigureBlock,
    CreateBlock,
    DeleteBlock,
    InsertText,
    ReplaceText,
    RewriteBlock,
)
from treadle.domain.events import MemoryAuthor, MemoryUpdated
from treadle.errors import (
    BlockChanged,
    BlockExists,
    BlockReadOnly,
    BlockTooLong,
    ConfigurationError,
    InvalidInput,
    MemoryFailed,
    TextNotFound,
    TextNotUnique,
    UnknownBlock,
)

MAX_BLOCKS = 64
"""How many blocks a memory may have."""
MAX_LIMIT = 100_000
"""How long a block may be allowed to become, in characters."""
MAX_DESCRIPTION = 2000
"""How long the description of a block may be, in characters."""

_LABEL = re.compile(r"[a-zA-Z0-9_-]{1,64}")
# Of the control characters only tab, newline and carriage return belong in a text.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_MEMORY_NAME = re.compile(r"[a-zA-Z0-9_.-]{1,64}")
_LISTED = 10
_LINE_CHARS = 80


TextEdit = AppendText | ReplaceText | InsertText | RewriteBlock


class Splice(Struct, frozen=True):
    """A change of a text: where `removed` stood, at character `position`, `added` stands."""

    position: int
    removed: str
    added: str


def change(
    memory: BlockMemory, edit: BlockEdit, author: MemoryAuthor, *, key: str = ""
) -> MemoryUpdated | None:
    """Returns the event that makes an edit.

    None where nothing would change, or where an edit with the same `key` was made already.
    Raises `UnknownBlock`, `BlockExists`, `BlockReadOnly` (for the author "model"), `BlockTooLong`,
    `TextNotFound`, `TextNotUnique`, `MemoryFailed` for a line that is not there and for too many
    blocks, and `InvalidInput` for a label, limit or text that no block may have.
    """
    _require_typed(edit, BlockEdit)
    _require_typed(key, str)
    require_text(key, "The key")
    if key and key in memory.keys:
        return None
    match edit:
        case CreateBlock(block=block):
            require_block(block)
            if memory.get(block.label) is not None:
                raise BlockExists(
                    f"There is a memory block {block.label!r} already; edit it, or choose another "
                    "label."
                )
            require_room(memory)
            return _creation(memory, block, author, key)
        case ConfigureBlock():
            return _configuration(memory, edit, author, key)
        case DeleteBlock():
            return _deletion(memory, _editable(memory, edit.label, author), author, key)
        case AppendText() | ReplaceText() | InsertText() | RewriteBlock():
            return _text_change(memory, edit, author, key)
        case _ as unreachable:
            assert_never(unreachable)


def seeds(
    memory: BlockMemory, declared: Sequence[Block], *, configures: bool = True
) -> list[MemoryUpdated]:
    """Returns the events that give a memory the blocks that an agent declares.

    Those that are missing are made, unless they were deleted. The texts of the others stay, also
    where they are longer than now declared. What holds for them becomes what is declared, where
    the agent `configures` them.
    """
    events: list[MemoryUpdated] = []
    for block in declared:
        known = memory.get(block.label)
        if known is None and block.label not in memory.deleted:
            events.append(_creation(memory, block, "agent", ""))
        elif known is not None and configures and known.rules != block.rules:
            events.append(_configured(memory, known, block.rules, "agent", ""))
    return events


def require_blocks(declared: Sequence[Block]) -> None:
    """Raises `ConfigurationError` unless an agent can declare these blocks together."""
    labels: set[str] = set()
    for block in declared:
        try:
            require_block(block)
            if block.shared:
                require_memory_name(block.shared)
        except (InvalidInput, BlockTooLong) as error:
            raise ConfigurationError(error.message) from error
        if block.label in labels:
            raise ConfigurationError(
                f"Two memory blocks are called {block.label!r}; rename one of them."
            )
        labels.add(block.label)
    if len(labels) > MAX_BLOCKS:
        raise ConfigurationError(f"An agent has at most {MAX_BLOCKS} memory blocks.")


def require_memory_name(name: str) -> None:
    """Raises `InvalidInput` for a name that a shared memory cannot have."""
    if not _MEMORY_NAME.fullmatch(name):
        raise InvalidInput(
            f"{_short(name)!r} is not a valid name for a shared memory; use letters, digits, "
            "dots, _ and -, at most 64."
        )


def require_block(block: Block) -> None:
    """Raises `InvalidInput` or `BlockTooLong` for an invalid block."""
    _require_typed(block, Block)
    if not _LABEL.fullmatch(block.label):
        raise InvalidInput(
            f"{_short(block.label)!r} is not a valid label for a memory block; use letters, "
            "digits, _ and -, at most 64."
        )
    if not 1 <= block.limit <= MAX_LIMIT:
        raise InvalidInput(
            f"The limit of the memory block {block.label!r} is {block.limit}; it must be from 1 to "
            f"{MAX_LIMIT:,} characters."
        )
    require_text(block.description, f"The description of the memory block {block.label!r}")
    if len(block.description) > MAX_DESCRIPTION:
        raise InvalidInput(
            f"The description of the memory block {block.label!r} has {len(block.description):,} "
            f"characters; at most {MAX_DESCRIPTION:,} are allowed."
        )
    require_text(block.value, f"The text of the memory block {block.label!r}")
    require_fits(block, block.value)


def require_text(text: str, what: str) -> None:
    """Raises `InvalidInput` for a text that no model can be given; `what` names it."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(
            f"{what} is not valid UTF-8 at character {error.start}; decode it before."
        ) from error
    found = _CONTROL.search(text)
    if found is not None:
        raise InvalidInput(
            f"{what} has the control character U+{ord(found[0]):04X} at character "
            f"{found.start()}; leave it out."
        )


def require_as_read(memory: BlockMemory, label: str, read: str, key: str = "") -> None:
    """Raises `BlockChanged` where a block holds another text than the one that was `read`.

    An edit that was made already, with `key`, may be asked for again.
    """
    block = memory.get(label)
    if block is not None and block.value != read and key not in memory.keys:
        raise BlockChanged(
            f"The memory block {label!r} was changed since you read it, and nothing was done; read "
            "it again, as it is in your next step, and then edit it."
        )


def require_editable(block: Block, author: MemoryAuthor) -> None:
    """Raises `BlockReadOnly` where `author` may not change the block."""
    if block.read_only and author == "model":
        raise BlockReadOnly(f"The memory block {block.label!r} is read-only: you cannot change it.")


def require_fits(block: Block, value: str) -> None:
    """Raises `BlockTooLong` for a text above the block's limit, unless it makes it shorter."""
    over = len(value) - block.limit
    if over > 0 and len(value) >= len(block.value):
        raise BlockTooLong(
            f"The text of the memory block {block.label!r} would have {len(value):,} characters, "
            f"{over:,} more than its limit of {block.limit:,}; make it shorter."
        )


def require_room(memory: BlockMemory) -> None:
    """Raises `MemoryFailed` where a memory cannot have another block."""
    if len(memory.blocks) >= MAX_BLOCKS:
        raise MemoryFailed(
            f"There are {len(memory.blocks)} memory blocks, and at most {MAX_BLOCKS} are allowed; "
            "delete one, or use one of them."
        )


def unknown_block(memory: BlockMemory, label: str) -> UnknownBlock:
    """Returns the error for a label that no block has; it lists the labels there are."""
    labels = ", ".join(block.label for block in memory.blocks)
    known = f"the labels are {labels}" if labels else "there are none yet"
    return UnknownBlock(f"There is no memory block {_short(label)!r}; {known}.")


def smallest_splice(old: str, new: str) -> Splice:
    """Returns the smallest single change that makes `new` of `old`."""
    start = _common_prefix(old, new)
    end = _common_prefix(old[start:][::-1], new[start:][::-1])
    return Splice(start, old[start : len(old) - end], new[start : len(new) - end])


def _require_typed(value: object, type: object) -> None:
    """Raises `InvalidInput` for a field of another type: no journal could read it back."""
    try:
        convert(to_builtins(value), type)
    except (ValidationError, TypeError) as error:
        raise InvalidInput(f"This cannot be kept of a memory block: {error}.") from error


def _editable(memory: BlockMemory, label: str, author: MemoryAuthor) -> Block:
    block = memory.get(label)
    if block is None:
        raise unknown_block(memory, label)
    require_editable(block, author)
    return block


def _configuration(
    memory: BlockMemory, edit: ConfigureBlock, author: MemoryAuthor, key: str
) -> MemoryUpdated | None:
    known = _editable(memory, edit.label, author)
    rules = BlockRules(
        known.description if edit.description is None else edit.description,
        known.limit if edit.limit is None else edit.limit,
        known.read_only if edit.read_only is None else edit.read_only,
    )
    require_block(Block(known.label, "", rules.description, rules.limit))
    return None if rules == known.rules else _configured(memory, known, rules, author, key)


def _configured(
    memory: BlockMemory, known: Block, rules: BlockRules, author: MemoryAuthor, key: str
) -> MemoryUpdated:
    return MemoryUpdated(
        label=known.label,
        operation="configure",
        author=author,
        was=known.rules,
        becomes=rules,
        key=key,
        before=memory.undo.get(known.label, 0),
    )


def _creation(memory: BlockMemory, block: Block, author: MemoryAuthor, key: str) -> MemoryUpdated:
    return MemoryUpdated(
        label=block.label,
        operation="create",
        author=author,
        added=block.value,
        becomes=block.rules,
        key=key,
        before=memory.undo.get(block.label, 0),
    )


def _deletion(memory: BlockMemory, block: Block, author: MemoryAuthor, key: str) -> MemoryUpdated:
    return MemoryUpdated(
        label=block.label,
        operation="delete",
        author=author,
        removed=block.value,
        was=block.rules,
        key=key,
        before=memory.undo.get(block.label, 0),
    )


def _text_change(
    memory: BlockMemory, edit: TextEdit, author: MemoryAuthor, key: str
) -> MemoryUpdated | None:
    block = _editable(memory, edit.label, author)
    match edit:
        case AppendText():
            operation, made = "append", _inserted(block, edit.text, -1)
        case InsertText():
            operation, made = "insert", _inserted(block, edit.text, edit.line)
        case ReplaceText():
            operation, made = "replace", _replaced(block, edit.old, edit.new)
        case RewriteBlock():
            operation, made = "rewrite", smallest_splice(block.value, edit.value)
        case _ as unreachable:
            assert_never(unreachable)
    if made.added == made.removed:
        return None
    require_text(made.added, "The text")
    end = made.position + len(made.removed)
    require_fits(block, block.value[: made.position] + made.added + block.value[end:])
    return MemoryUpdated(
        label=block.label,
        operation=operation,
        author=author,
        position=made.position,
        removed=made.removed,
        added=made.added,
        key=key,
        before=memory.undo.get(block.label, 0),
    )


def _inserted(block: Block, text: str, line: int) -> Splice:
    """Inserts lines behind a line; the last line of a block may have no newline at its end."""
    value = block.value
    lines = value.split("\n")
    if not lines[-1]:
        lines.pop()  # after the last newline no line begins
    if not -1 <= line <= len(lines):
        raise MemoryFailed(
            f"There is no line {line} in the memory block {block.label!r}; give a line from 0 "
            f"(before the first) to {len(lines)}, or -1 for the end."
        )
    if not text:
        return Splice(0, "", "")
    if line in {-1, len(lines)}:
        gap = "\n" if value and not value.endswith("\n") else ""
        return Splice(len(value), "", gap + text)
    position = sum(len(one) + 1 for one in lines[:line])
    return Splice(position, "", text if text.endswith("\n") else text + "\n")


def _replaced(block: Block, old: str, new: str) -> Splice:
    if not old:
        raise InvalidInput(
            "The text to be replaced is empty; give some of the text of the block, or use an edit "
            "that adds to it."
        )
    found = list(islice(_places(block.value, old), _LISTED + 1))
    if not found:
        raise TextNotFound(_not_found(block, old))
    if len(found) > 1:
        raise TextNotUnique(_not_unique(block, old, found))
    made = smallest_splice(old, new)
    return Splice(found[0] + made.position, made.removed, made.added)


def _places(value: str, text: str) -> Iterator[int]:
    """Where a text stands in a value, also where it overlaps itself."""
    at = value.find(text)
    while at >= 0:
        yield at
        at = value.find(text, at + 1)


def _not_unique(block: Block, old: str, found: Sequence[int]) -> str:
    lines = [block.value.count("\n", 0, at) + 1 for at in found[:_LISTED]]
    more = "\n…" if len(found) > _LISTED else ""
    return (
        f"The text to be replaced stands more than once in the memory block {block.label!r}; give "
        f"more of what is around it. It begins in these lines:\n{_listing(block, lines)}{more}"
    )


def _not_found(block: Block, old: str) -> str:
    """Says how near the text is: the same words with other spaces, or its first line."""
    problem = f"The text to be replaced is not in the memory block {block.label!r}"
    words = _folded(old)
    at = _folded(block.value).find(words) if words else -1
    if at >= 0:
        line = _line_of_word(block.value, _folded(block.value).count(" ", 0, at))
        text = _listing(block, [line])
        return f"{problem} exactly; with other spaces or capitals it is in line {text}"
    first = old.strip().split("\n")[0].strip()
    if first and first in block.value:
        line = block.value.count("\n", 0, block.value.find(first)) + 1
        return f"{problem}; only its beginning is, in line {_listing(block, [line])}"
    return f"{problem}; copy it from there exactly."


def _folded(text: str) -> str:
    return " ".join(text.split()).casefold()


def _line_of_word(value: str, place: int) -> int:
    """Returns the number of the line in which the word of that place stands."""
    words = accumulate(len(line.split()) for line in value.split("\n"))
    return 1 + sum(before <= place for before in words)


def _listing(block: Block, numbers: Sequence[int]) -> str:
    lines = block.value.split("\n")
    return "\n".join(f"{number}: {_short(lines[number - 1])}" for number in numbers)


def _common_prefix(one: str, other: str) -> int:
    """Returns how many characters two texts have in common from their beginning."""
    same, most = 0, min(len(one), len(other))
    while same < most:
        middle = (same + most + 1) // 2
        if one[same:middle] == other[same:middle]:
            same = middle
        else:
            most = middle - 1
    return same


def _short(text: str) -> str:
    return text if len(text) <= _LINE_CHARS else f"{text[: _LINE_CHARS - 1]}…"
