"""The tools for models: add a text to the archive, search it, and search conversations."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal

from treadle.domain.passages import Filters, Found, Passage
from treadle.errors import ConfigurationError, EmbeddingFailed
from treadle.memory.archive.query import filters_of
from treadle.tools.context import RunContext
from treadle.tools.function import Tool, tool

MAX_FOUND = 50
_MAX_TEXT = 1000
_MAX_OUTPUT = 20_000
_MORE = 30
_PAGE = 100
_DEPTH = 500


def archive_tools(*names: str) -> list[Tool[..., object]]:
    """Returns the archive tools with these names; all of them without names.

    The names are `archive_insert`, `archive_search` and `conversation_search`. An inserted text
    belongs to the thread, and is found from all threads of its owner. If the vector of a query
    cannot be made, the tools search by full text and report that. A call inserts its text once,
    even if it is repeated after a crash. Raises `ConfigurationError` for an unknown name.
    """
    unknown = [name for name in names if name not in _TOOLS]
    if unknown:
        raise ConfigurationError(
            f"Unknown archive tool {unknown[0]!r}; the names are {', '.join(_TOOLS)}."
        )
    return [_TOOLS[name] for name in dict.fromkeys(names or _TOOLS)]


@tool(idempotent=True)
async def archive_insert(
    ctx: RunContext[object], text: str, tags: Sequence[str] | None = None
) -> str:
    """Note something in your archive, to find it again in this conversation and in later ones.

    Args:
        text: What to note, understandable by itself: say who and what, not "he" or "it".
        tags: Words to find it by, such as topics or names.
    """
    id = await ctx.memory.archive.insert(text, tags=tags or (), key=ctx.call_id)
    return f"Noted as {id}."


@tool(idempotent=True)
async def archive_search(
    ctx: RunContext[object],
    query: str,
    tags: Sequence[str] | None = None,
    match_all_tags: bool = False,
    since: str | None = None,
    until: str | None = None,
    limit: int = 10,
) -> str:
    """Search your archive for what was noted; the best matches come first.

    Args:
        query: Words or a question; empty for the newest notes.
        tags: Only notes with one of these tags.
        match_all_tags: Whether a note must have all of the tags.
        since: Only notes from this day on, such as 2026-03-01.
        until: Only notes up to this day, with it.
        limit: How many to return, at most 50.
    """
    chosen = tuple(tags or ())
    filters = filters_of(
        "archive",
        any_tags=() if match_all_tags else chosen,
        all_tags=chosen if match_all_tags else (),
        since=since or None,
        until=until or None,
    )
    found, note = await _search(ctx, query, filters, _bounded(limit))
    return _shown(found, note)


@tool(idempotent=True)
async def conversation_search(
    ctx: RunContext[object],
    query: str,
    role: Literal["user", "assistant"] | None = None,
    this_conversation: bool = False,
    since: str | None = None,
    until: str | None = None,
    limit: int = 10,
) -> str:
    """Search what was said before, here and in other conversations; the best matches come first.

    Args:
        query: Words or a question; empty for the newest messages.
        role: Only what the user or what the assistant said.
        this_conversation: Only what was said in this conversation, which may be longer than what
            you can read of it.
        since: Only messages from this day on, such as 2026-03-01.
        until: Only messages up to this day, with it.
        limit: How many to return, at most 50.
    """
    filters = filters_of(
        "message",
        thread_id=ctx.thread_id if this_conversation else "",
        roles=() if role is None else (role,),
        since=since or None,
        until=until or None,
    )
    return _shown(*await _search_earlier(ctx, query, filters, _bounded(limit)))


async def _search_earlier(
    ctx: RunContext[object], query: str, filters: Filters, number: int
) -> tuple[Sequence[Found], str]:
    """Searches without the messages of this run that its model still reads.

    Otherwise the question of the user would be the best match for most queries.
    """
    left = ctx.memory.archive.left_window()
    earlier: list[Found] = []
    note, start, limit = "", 0, number + _MORE
    while len(earlier) < number and limit > 0:
        found, note = await _search(ctx, query, filters, limit, start)
        earlier += [
            one for one in found if one.passage.run_id != ctx.run_id or one.passage.id in left
        ]
        if len(found) < limit:
            break
        start += limit
        limit = min(_PAGE, _DEPTH - start)
    return earlier[:number], note


async def _search(
    ctx: RunContext[object], query: str, filters: Filters, limit: int, offset: int = 0
) -> tuple[Sequence[Found], str]:
    """Returns the results, and a note for the model if the search fell back to full text."""
    archive = ctx.memory.archive
    try:
        return await archive.search(query, filters=filters, limit=limit, offset=offset), ""
    except EmbeddingFailed as error:
        found = await archive.search(query, by="text", filters=filters, limit=limit, offset=offset)
        return found, f" by words only, because {error.message}"


def _bounded(limit: int) -> int:
    return max(1, min(limit, MAX_FOUND))


def _shown(found: Sequence[Found], note: str) -> str:
    if not found:
        return f"Nothing was found{note}."
    lines = [f"{len(found)} found{note}, the best first:"]
    size = 0
    for number, one in enumerate(found, 1):
        line = f"{number}. {_described(one.passage)} {_cut(one.text)}"
        size += len(line)
        if size > _MAX_OUTPUT:
            lines.append(f"({len(found) - number + 1} more are too long to show; ask for fewer.)")
            break
        lines.append(line)
    return "\n".join(lines)


def _described(passage: Passage) -> str:
    at = datetime.fromtimestamp(passage.created_at, UTC)
    parts = [at.strftime("%Y-%m-%d %H:%M UTC")]
    if passage.role is not None:
        parts += [passage.role, passage.thread_id]
    if passage.tags:
        # On one line, so that a tag cannot pretend to be another result.
        parts.append(f"tags: {', '.join(' '.join(tag.split()) for tag in passage.tags)}")
    return f"[{'; '.join(parts)}]"


def _cut(text: str) -> str:
    line = " ".join(text.split())
    if len(line) <= _MAX_TEXT:
        return line
    return f"{line[:_MAX_TEXT]}… ({len(line) - _MAX_TEXT:,} more characters)"


_TOOLS: dict[str, Tool[..., object]] = {
    made.name: made for made in (archive_insert, archive_search, conversation_search)
}
