"""Items: list and read those of a thread, add some without a run, pin and remove one."""

from collections.abc import Sequence
from typing import Any

from msgspec import UNSET, Struct, UnsetType

from treadle.domain.inputs import as_history
from treadle.domain.items import Item, Message
from treadle.journal.base import Direction
from treadle.server.api_request import ApiRequest
from treadle.server.bodies import Added
from treadle.server.operation import Answer, Limit, Operations, Page
from treadle.server.streams import NO_CONTENT, present

ITEMS = Operations("Items")


class ItemQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """How many items, and from where."""

    limit: Limit = 50
    after: str = ""
    order: Direction = "asc"


class NewItems(Struct, frozen=True, forbid_unknown_fields=True):
    """Items to add, in the forms of a history; `expect` is the last event the sender has seen."""

    items: list[Any]
    key: str = ""
    expect: int | UnsetType = UNSET


def given_items(request: ApiRequest[Any, Any], given: list[Any]) -> Sequence[Item]:
    """Returns items that a client sent.

    Those of other roles than `user` give instructions to the model or write in its name, so they
    need the scope `admin`. Raises `InvalidInput`.
    """
    items = as_history(given)
    if not all(isinstance(item, Message) and item.role == "user" for item in items):
        request.require("admin", "An item that is not a message of the role user")
    messages = [item for item in items if isinstance(item, Message)]
    request.services.limits.require_size(messages)
    return items


@ITEMS.add(
    "GET",
    "/threads/{thread_id}/items",
    scope="read",
    query=ItemQuery,
    answers={200: Item},
    is_page=True,
)
async def list_items(request: ApiRequest[ItemQuery, None]) -> Page:
    """Lists the items of a thread, the oldest first."""
    thread = await request.runtime.connect(request.path["thread_id"])
    query = request.query
    found = await thread.items(limit=query.limit, after=query.after, order=query.order)
    return Page(list(found), found.next or None)


@ITEMS.add(
    "POST",
    "/threads/{thread_id}/items",
    scope="write",
    body=NewItems,
    answers={201: Added},
)
async def add_items(request: ApiRequest[Any, NewItems]) -> Added:
    """Adds items to a thread; starts no run."""
    body = request.body
    thread = await request.runtime.connect(request.path["thread_id"])
    await thread.add(
        given_items(request, body.items),
        key=request.headers.get(b"idempotency-key") or body.key,
        expect=None if body.expect is UNSET else body.expect,
    )
    return Added(thread_id=thread.id, position=present(await thread.last_seq()))


@ITEMS.add("GET", "/threads/{thread_id}/items/{item_id}", scope="read", answers={200: Item})
async def read_item(request: ApiRequest[Any, None]) -> Item:
    """Returns an item of a thread."""
    thread = await request.runtime.connect(request.path["thread_id"])
    return await thread.item(request.path["item_id"])


@ITEMS.add("DELETE", "/threads/{thread_id}/items/{item_id}", scope="write", answers={204: None})
async def remove_item(request: ApiRequest[Any, None]) -> Answer:
    """Removes an item, and its content, from a thread."""
    thread = await request.runtime.connect(request.path["thread_id"])
    await thread.remove_item(request.path["item_id"])
    return NO_CONTENT


@ITEMS.add("PUT", "/threads/{thread_id}/items/{item_id}/pin", scope="write", answers={204: None})
async def pin_message(request: ApiRequest[Any, None]) -> Answer:
    """Keeps a message in the model's window, whatever else leaves it."""
    thread = await request.runtime.connect(request.path["thread_id"])
    await thread.pin(request.path["item_id"])
    return NO_CONTENT


@ITEMS.add("DELETE", "/threads/{thread_id}/items/{item_id}/pin", scope="write", answers={204: None})
async def unpin_message(request: ApiRequest[Any, None]) -> Answer:
    """Lets a pinned message leave the window like others."""
    thread = await request.runtime.connect(request.path["thread_id"])
    await thread.unpin(request.path["item_id"])
    return NO_CONTENT
