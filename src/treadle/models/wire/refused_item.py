"""Which item of a request a provider's error names."""

import re
from collections.abc import Iterator, Sequence

from treadle.domain.items import FunctionCall, FunctionCallOutput, Item, Message, Reasoning

Sources = Sequence[Sequence[Item | None]]

# "Invalid 'input[2].name'" (OpenAI), "messages.[3].role" (OpenAI), "messages.1.content.0: …"
# (Anthropic), ["body", "messages", 3, "content"] (FastAPI), "message at position 3" (Moonshot),
# "contents[1].parts[0].inline_data" (Gemini).
_PLACE = re.compile(
    r"(?:\b(?:messages|input|contents)(?:\.\[|\.|\[)"
    r"|['\"](?:messages|input)['\"], ?"
    r"|\bmessage at position )(\d+)"
)
_PART = re.compile(
    r"^\]?['\"]?,? ?\.?['\"]?(content|parts|tool_calls)['\"]?(?:\.\[|\.|\[|, ?)(\d+)"
)
_SHORTEST_ID = 8


def named_item(sources: Sources, error: str) -> Item | None:
    """Returns the item that the text of an error names by its place or its id, or None."""
    for found in _PLACE.finditer(error):
        place = int(found[1])
        if place < len(sources) and (item := _part(sources[place], error[found.end() :])):
            return item
    for entry in sources:
        for item in entry:
            if item is not None and any(id in error for id in _ids(item)):
                return item
    return None


def _part(entry: Sequence[Item | None], path: str) -> Item | None:
    """Returns the item of an entry that the rest of a path leads to; the first one without it."""
    found = _PART.match(path)
    items = list(entry)
    if found is not None and found[1] == "tool_calls":
        items = [item for item in entry if isinstance(item, FunctionCall)]
    if found is not None and int(found[2]) < len(items):
        return items[int(found[2])]
    return next((item for item in items if item is not None), None)


def _ids(item: Item) -> Iterator[str]:
    if isinstance(item, FunctionCall | FunctionCallOutput) and len(item.call_id) >= _SHORTEST_ID:
        yield item.call_id
    is_named = isinstance(item, Message | Reasoning | FunctionCall | FunctionCallOutput)
    if is_named and len(item.id) >= _SHORTEST_ID:
        yield item.id
