"""What identifies an item that is removed from a history, and what is left of it there."""

import hashlib
from collections.abc import Iterable
from typing import assert_never

import msgspec

from treadle.domain.items import (
    FunctionCall,
    FunctionCallOutput,
    Item,
    Message,
    ProviderItem,
    Reasoning,
)

_MARK = "(removed)"
_ENCODER = msgspec.json.Encoder()


def key_of(item: Item) -> str:
    """Returns what identifies an item: the id of its call, else a digest of all of it.

    Some providers repeat the ids of messages, so an id alone could name another message.
    """
    if isinstance(item, FunctionCall | FunctionCallOutput):
        return f"call:{item.call_id}"
    if isinstance(item, ProviderItem) and item.id:
        return f"hosted:{item.provider}:{item.id}"  # of a call and its result, which repeats it
    return hashlib.sha256(_ENCODER.encode(item)).hexdigest()[:32]


def redacted(item: Item) -> Item:
    """Returns what is left of a removed item: its place, its kind and its ids."""
    match item:
        case Message():
            return Message(item.role, (), item.id)
        case FunctionCall():
            return FunctionCall(item.call_id, item.name, "", _MARK)
        case FunctionCallOutput():
            return FunctionCallOutput(item.call_id, "", _MARK, item.is_error)
        case Reasoning():
            return Reasoning(_MARK)
        case ProviderItem():
            return ProviderItem(_MARK, msgspec.Raw(b"null"))
        case _ as unreachable:
            assert_never(unreachable)


def is_removed(item: Item) -> bool:
    """Whether nothing but its place is left of an item."""
    if isinstance(item, Message):
        return not item.content
    return (item.provider if isinstance(item, ProviderItem) else item.id) == _MARK


def visible(items: Iterable[Item]) -> list[Item]:
    """Returns the items that were not removed."""
    return [item for item in items if not is_removed(item)]
