"""Conversations and their items: threads, as the API of OpenAI has them."""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from treadle.domain.inputs import with_ids
from treadle.journal.base import ThreadInfo
from treadle.server.api_request import ApiRequest, own_owner
from treadle.server.openai.errors import OPENAI_ERRORS
from treadle.server.openai.models import PREFIX
from treadle.server.operation import Operations
from treadle.server.responses.create_request import Metadata
from treadle.server.responses.input_items import (
    ItemList,
    ItemQuery,
    input_item,
    input_items,
    page_of,
)
from treadle.server.routes.items import given_items

CONVERSATIONS = Operations("OpenAI conversations", prefix=PREFIX, errors=OPENAI_ERRORS)

Items = Annotated[list[dict[str, Any]], Meta(max_length=20)]
Labels = Annotated[Metadata, Meta(max_length=16)]


class NewConversation(Struct, frozen=True, forbid_unknown_fields=True):
    """What a conversation begins with."""

    items: Items | None = None
    metadata: Labels | None = None


class ConversationChange(Struct, frozen=True, forbid_unknown_fields=True):
    """The labels to set."""

    metadata: Labels


class ConversationItems(Struct, frozen=True, forbid_unknown_fields=True):
    """Items to add, in the forms of a history."""

    items: Items


class Include(Struct, frozen=True, forbid_unknown_fields=True):
    """Accepted, without an effect."""

    include: tuple[str, ...] = ()


class Conversation(Struct, frozen=True, kw_only=True):
    """A thread."""

    id: str
    created_at: int
    metadata: dict[str, Any]
    object: Literal["conversation"] = "conversation"


class DeletedConversation(Struct, frozen=True, kw_only=True):
    """A conversation was deleted."""

    id: str
    object: Literal["conversation.deleted"] = "conversation.deleted"
    deleted: bool = True


def _shown(info: ThreadInfo) -> Conversation:
    return Conversation(id=info.id, created_at=int(info.created_at), metadata=dict(info.metadata))


@CONVERSATIONS.add(
    "POST",
    "/conversations",
    id="create_conversation",
    scope="write",
    body=NewConversation,
    answers={200: Conversation},
)
async def create_conversation(request: ApiRequest[Any, NewConversation]) -> Conversation:
    """Creates a conversation; each response in it names its agent."""
    body, key = request.body, request.headers.get(b"idempotency-key")
    thread = await request.runtime.create_thread(
        request.services.served[0],
        owner=own_owner(request, None),
        metadata=body.metadata or {},
        history=given_items(request, body.items or []),
        key=f"{PREFIX}/conversations {key}" if key else "",
    )
    return _shown(await thread.info())


@CONVERSATIONS.add(
    "GET",
    "/conversations/{thread_id}",
    id="read_conversation",
    scope="read",
    answers={200: Conversation},
)
async def read_conversation(request: ApiRequest[Any, None]) -> Conversation:
    """Returns a conversation."""
    thread = await request.runtime.connect(request.path["thread_id"])
    return _shown(await thread.info())


@CONVERSATIONS.add(
    "POST",
    "/conversations/{thread_id}",
    id="update_conversation",
    scope="write",
    body=ConversationChange,
    answers={200: Conversation},
)
async def update_conversation(request: ApiRequest[Any, ConversationChange]) -> Conversation:
    """Replaces the labels of a conversation."""
    thread = await request.runtime.connect(request.path["thread_id"])
    labels: dict[str, Any] = dict.fromkeys((await thread.info()).metadata)
    await thread.update(metadata=labels | request.body.metadata)
    return _shown(await thread.info())


@CONVERSATIONS.add(
    "DELETE",
    "/conversations/{thread_id}",
    id="delete_conversation",
    scope="write",
    answers={200: DeletedConversation},
)
async def delete_conversation(request: ApiRequest[Any, None]) -> DeletedConversation:
    """Deletes a conversation with everything that belongs to it."""
    thread = await request.runtime.connect(request.path["thread_id"])
    await thread.delete()
    return DeletedConversation(id=thread.id)


@CONVERSATIONS.add(
    "GET",
    "/conversations/{thread_id}/items",
    id="list_conversation_items",
    scope="read",
    query=ItemQuery,
    answers={200: ItemList},
)
async def list_conversation_items(request: ApiRequest[ItemQuery, None]) -> ItemList:
    """Lists the items of a conversation, the newest first."""
    thread = await request.runtime.connect(request.path["thread_id"])
    query = request.query
    found = await thread.items(limit=query.limit, after=query.after, order=query.order)
    page = page_of(input_items(found), ItemQuery(limit=100, order="asc"))
    return ItemList(
        data=page.data,
        first_id=page.first_id,
        last_id=page.last_id,
        has_more=bool(found.next),
    )


@CONVERSATIONS.add(
    "POST",
    "/conversations/{thread_id}/items",
    id="add_conversation_items",
    scope="write",
    query=Include,
    body=ConversationItems,
    answers={200: ItemList},
)
async def add_conversation_items(request: ApiRequest[Include, ConversationItems]) -> ItemList:
    """Adds items to a conversation."""
    thread = await request.runtime.connect(request.path["thread_id"])
    items = with_ids(given_items(request, request.body.items))
    await thread.add(items, key=request.headers.get(b"idempotency-key"))
    return page_of(input_items(items), ItemQuery(limit=100, order="asc"))


@CONVERSATIONS.add(
    "GET",
    "/conversations/{thread_id}/items/{item_id}",
    id="read_conversation_item",
    scope="read",
    query=Include,
    answers={200: dict[str, Any]},
)
async def read_conversation_item(request: ApiRequest[Include, None]) -> dict[str, Any]:
    """Returns an item of a conversation."""
    thread = await request.runtime.connect(request.path["thread_id"])
    return input_item(await thread.item(request.path["item_id"]))


@CONVERSATIONS.add(
    "DELETE",
    "/conversations/{thread_id}/items/{item_id}",
    id="delete_conversation_item",
    scope="write",
    answers={200: Conversation},
)
async def delete_conversation_item(request: ApiRequest[Any, None]) -> Conversation:
    """Removes an item, and its content, from a conversation."""
    thread = await request.runtime.connect(request.path["thread_id"])
    await thread.remove_item(request.path["item_id"])
    return _shown(await thread.info())
