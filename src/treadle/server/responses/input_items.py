"""What a response answers, as the Responses API lists it."""

from collections.abc import Iterable
from typing import Annotated, Any, Literal, cast

import msgspec
from msgspec import Meta, Struct

from treadle.domain.items import (
    FunctionCall,
    FunctionCallOutput,
    Item,
    Message,
    ProviderItem,
    Reasoning,
)
from treadle.errors import InvalidInput
from treadle.server.responses.hosted_item import hosted_item
from treadle.server.responses.response_object import Json

ITEMS_AT_ONCE = 20


class ItemQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """Which items; the newest come first."""

    limit: Annotated[int, Meta(ge=1, le=100)] = ITEMS_AT_ONCE
    after: str = ""
    order: Literal["asc", "desc"] = "desc"
    include: tuple[str, ...] = ()


class ItemList(Struct, frozen=True, kw_only=True):
    """A page of items."""

    data: list[dict[str, Any]]
    first_id: str
    last_id: str
    has_more: bool
    object: Literal["list"] = "list"


def input_items(items: Iterable[Item]) -> list[Json]:
    """Returns items of a history; what only the provider of a model reads is left out."""
    return [made for item in items if (made := input_item(item))]


def input_item(item: Item) -> Json:
    """Returns an item of a history; an empty object if only the provider of the model reads it."""
    if isinstance(item, ProviderItem):
        return {} if item.call is None else hosted_item(item.call)
    fields = cast("Json", msgspec.to_builtins(item))
    fields.pop("provider_fields", None)
    match item:
        case Message():
            fields["content"] = [_part(part) for part in cast("list[Json]", fields["content"])]
            fields.setdefault("status", "completed")
        case FunctionCall():
            fields.setdefault("status", "completed")
            fields.setdefault("id", item.call_id)
        case FunctionCallOutput():
            fields.setdefault("status", "completed")
            fields.setdefault("id", f"{item.call_id}_output")
        case Reasoning():
            fields.setdefault("summary", [])
    return fields


def _part(part: Json) -> Json:
    if part.get("type") == "output_text":
        return {"annotations": [], "logprobs": [], **part}
    if part.get("type") == "input_image":
        return {"detail": "auto", **part}
    return part


def page_of(items: list[Json], query: ItemQuery) -> ItemList:
    """Returns a page of items, which are given from the oldest to the newest."""
    items = items if query.order == "asc" else items[::-1]
    start = 0
    if query.after:
        ids = [item["id"] for item in items]
        if query.after not in ids:
            raise InvalidInput(f"after={query.after[:100]!r} is not the id of an item of the list.")
        start = ids.index(query.after) + 1
    page = items[start : start + query.limit]
    return ItemList(
        data=page,
        first_id=cast("str", page[0]["id"]) if page else "",
        last_id=cast("str", page[-1]["id"]) if page else "",
        has_more=start + len(page) < len(items),
    )
