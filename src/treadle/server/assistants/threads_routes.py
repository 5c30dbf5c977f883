"""Assistants, threads and messages: list and read them, create and change threads and messages."""

from typing import Any, Literal

from msgspec import Struct

from treadle.clock import now
from treadle.domain.inputs import with_ids
from treadle.domain.items import Message
from treadle.errors import ItemNotFound
from treadle.runtime.thread import Thread
from treadle.server.api_request import ApiRequest, own_owner
from treadle.server.assistants.assistants_objects import (
    Json,
    ObjectQuery,
    assistant_object,
    message_object,
    page_of,
    thread_object,
)
from treadle.server.assistants.assistants_requests import NewMessage, NewThread, ThreadChange
from treadle.server.assistants.found_objects import read_messages
from treadle.server.assistants.run_start import given_messages
from treadle.server.openai.errors import OPENAI_ERRORS
from treadle.server.openai.models import PREFIX
from treadle.server.operation import Operations
from treadle.server.routes.items import given_items

ASSISTANTS = Operations("OpenAI assistants", prefix=PREFIX, errors=OPENAI_ERRORS)


class Deleted(Struct, frozen=True, kw_only=True):
    """Something was deleted."""

    id: str
    object: Literal["thread.deleted", "thread.message.deleted"] = "thread.deleted"
    deleted: bool = True


@ASSISTANTS.add(
    "GET",
    "/assistants",
    id="list_assistants",
    scope="read",
    query=ObjectQuery,
    answers={200: dict[str, Any]},
)
async def list_assistants(request: ApiRequest[ObjectQuery, None]) -> Json:
    """Lists the agents as assistants."""
    runtime = request.services.runtime
    found = [assistant_object(runtime.agent(name)) for name in request.services.served]
    return page_of(found, request.query)


@ASSISTANTS.add(
    "GET", "/assistants/{name}", id="read_assistant", scope="read", answers={200: dict[str, Any]}
)
async def read_assistant(request: ApiRequest[Any, None]) -> Json:
    """Returns an agent as an assistant."""
    return assistant_object(request.services.runtime.agent(request.path["name"]))


async def new_thread(request: ApiRequest[Any, Any], body: NewThread, agent: str = "") -> Thread:
    """Creates a thread; `agent` answers on it, unless a run names another."""
    key = request.headers.get(b"idempotency-key")
    return await request.runtime.create_thread(
        agent or request.services.served[0],
        owner=own_owner(request, None),
        metadata=body.metadata or {},
        history=given_items(request, given_messages(body.messages)),
        key=f"{PREFIX}/threads {key}" if key else "",
    )


@ASSISTANTS.add(
    "POST",
    "/threads",
    id="create_assistants_thread",
    scope="write",
    body=NewThread,
    answers={200: dict[str, Any]},
)
async def create_thread(request: ApiRequest[Any, NewThread]) -> Json:
    """Creates a thread, with messages or without."""
    return thread_object(await (await new_thread(request, request.body)).info())


@ASSISTANTS.add(
    "GET",
    "/threads/{thread_id}",
    id="read_assistants_thread",
    scope="read",
    answers={200: dict[str, Any]},
)
async def read_assistants_thread(request: ApiRequest[Any, None]) -> Json:
    """Returns a thread."""
    thread = await request.runtime.connect(request.path["thread_id"])
    return thread_object(await thread.info())


@ASSISTANTS.add(
    "POST",
    "/threads/{thread_id}",
    id="update_assistants_thread",
    scope="write",
    body=ThreadChange,
    answers={200: dict[str, Any]},
)
async def update_thread(request: ApiRequest[Any, ThreadChange]) -> Json:
    """Replaces the labels of a thread."""
    thread = await request.runtime.connect(request.path["thread_id"])
    if (labels := request.body.metadata) is not None:
        removed: dict[str, Any] = dict.fromkeys((await thread.info()).metadata)
        await thread.update(metadata=removed | labels)
    return thread_object(await thread.info())


@ASSISTANTS.add(
    "DELETE",
    "/threads/{thread_id}",
    id="delete_assistants_thread",
    scope="write",
    answers={200: Deleted},
)
async def delete_thread(request: ApiRequest[Any, None]) -> Deleted:
    """Deletes a thread with everything that belongs to it."""
    thread = await request.runtime.connect(request.path["thread_id"])
    await thread.delete()
    return Deleted(id=thread.id)


@ASSISTANTS.add(
    "POST",
    "/threads/{thread_id}/messages",
    id="create_assistants_message",
    scope="write",
    body=NewMessage,
    answers={200: dict[str, Any]},
)
async def create_message(request: ApiRequest[Any, NewMessage]) -> Json:
    """Adds a message to a thread, which the next run answers."""
    thread = await request.runtime.connect(request.path["thread_id"])
    items = with_ids(given_items(request, given_messages([request.body])))
    await thread.add(items, key=request.headers.get(b"idempotency-key"))
    (message,) = (item for item in items if isinstance(item, Message))
    return message_object(thread.id, message, now())


@ASSISTANTS.add(
    "GET",
    "/threads/{thread_id}/messages",
    id="list_assistants_messages",
    scope="read",
    query=ObjectQuery,
    answers={200: dict[str, Any]},
)
async def list_messages(request: ApiRequest[ObjectQuery, None]) -> Json:
    """Lists the messages of a thread, the newest first; those of a run with `run_id`."""
    thread = await request.runtime.connect(request.path["thread_id"])
    return page_of(await read_messages(thread, request.query.run_id), request.query)


@ASSISTANTS.add(
    "GET",
    "/threads/{thread_id}/messages/{item_id}",
    id="read_assistants_message",
    scope="read",
    answers={200: dict[str, Any]},
)
async def read_message(request: ApiRequest[Any, None]) -> Json:
    """Returns a message."""
    thread = await request.runtime.connect(request.path["thread_id"])
    messages = await read_messages(thread)
    for message in messages:
        if message["id"] == request.path["item_id"]:
            return message
    raise ItemNotFound(f"The thread has no message {request.path['item_id'][:100]!r}.")


@ASSISTANTS.add(
    "DELETE",
    "/threads/{thread_id}/messages/{item_id}",
    id="delete_assistants_message",
    scope="write",
    answers={200: Deleted},
)
async def delete_message(request: ApiRequest[Any, None]) -> Deleted:
    """Removes a message, and its content, from a thread."""
    thread = await request.runtime.connect(request.path["thread_id"])
    await thread.remove_item(request.path["item_id"])
    return Deleted(id=request.path["item_id"], object="thread.message.deleted")
