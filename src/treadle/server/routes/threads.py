"""Threads: create, find, read, change, copy and delete them."""

from typing import Any

from msgspec import UNSET, Struct, UnsetType

from treadle.domain.state import RunStatus
from treadle.domain.usage import Spent
from treadle.errors import InvalidInput
from treadle.journal.base import ThreadInfo, ThreadOrder
from treadle.runtime.thread_view import ThreadView
from treadle.server.api_request import ApiRequest, decode_body, own_owner
from treadle.server.bodies import Repaired
from treadle.server.moments import moment
from treadle.server.operation import Answer, Content, Limit, Operations, Page
from treadle.server.routes.items import given_items
from treadle.server.streams import NO_CONTENT

THREADS = Operations("Threads")

NDJSON = b"application/x-ndjson"


class NewThread(Struct, frozen=True, forbid_unknown_fields=True):
    """A thread to create; `key` is an id of the client, `history` what the thread begins with.

    It is deleted at `expires_at` (Unix seconds); with `store` false, 10 minutes after its last use.
    """

    agent: str = ""
    metadata: dict[str, Any] = {}
    key: str = ""
    history: list[Any] = []
    owner: str | None = None
    expires_at: float | None = None
    store: bool = True


class ThreadFilter(Struct, frozen=True, forbid_unknown_fields=True):
    """Which threads, and how many.

    `metadata` is a JSON object; `owner` is for keys without an owner.
    """

    limit: Limit = 50
    after: str = ""
    order: ThreadOrder = "-updated"
    owner: str | None = None
    parent: str = ""
    status: tuple[RunStatus, ...] = ()
    agent: str = ""
    metadata: str = ""


class ThreadChange(Struct, frozen=True, forbid_unknown_fields=True):
    """What to change; a field of the metadata that is null is removed, others stay.

    The thread is deleted at `expires_at` (Unix seconds), or never if that is null.
    """

    title: str | UnsetType = UNSET
    metadata: dict[str, Any] | UnsetType = UNSET
    expires_at: float | UnsetType | None = UNSET


class ImportQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """How a thread is imported: `owner` and `keep_id` are for keys without an owner."""

    owner: str | None = None
    keep_id: bool = False


class ForkAt(Struct, frozen=True, forbid_unknown_fields=True):
    """The number of the last event of a copy; None copies all."""

    at: int | None = None


@THREADS.add(
    "POST",
    "/threads",
    scope="write",
    body=NewThread,
    answers={201: ThreadInfo, 200: ThreadInfo},
)
async def create_thread(request: ApiRequest[Any, NewThread]) -> Answer:
    """Creates a thread, or returns the one that was created with the key before."""
    body = request.body
    owner = own_owner(request, body.owner)
    history = given_items(request, body.history)
    thread = await request.runtime.create_thread(
        body.agent or _only_agent(request),
        metadata=body.metadata,
        owner=owner,
        history=history,
        key=body.key,
        expires_at=moment("expires_at", body.expires_at),
        store=body.store,
    )
    return Answer(201 if thread.is_new else 200, await thread.info())


def _only_agent(request: ApiRequest[Any, Any]) -> str:
    names = request.services.served
    if len(names) != 1:
        raise InvalidInput(f"The server has several agents; name one as agent: {', '.join(names)}.")
    return names[0]


@THREADS.add(
    "GET", "/threads", scope="read", query=ThreadFilter, answers={200: ThreadInfo}, is_page=True
)
async def list_threads(request: ApiRequest[ThreadFilter, None]) -> Page:
    """Lists threads, those used last first."""
    query = request.query
    found = await request.runtime.threads(
        limit=query.limit,
        after=query.after,
        order=query.order,
        owner=query.owner,
        parent=query.parent,
        status=query.status,
        agent=query.agent,
        metadata=_metadata(query.metadata),
    )
    return Page(list(found), found.next or None)


def _metadata(text: str) -> dict[str, Any]:
    return decode_body(text.encode(), dict[str, Any]) if text else {}


@THREADS.add(
    "POST",
    "/threads/import",
    # An export can have any role write anything, in the name of any principal.
    scope="admin",
    query=ImportQuery,
    body=bytes,
    answers={201: ThreadInfo},
)
async def import_thread(request: ApiRequest[ImportQuery, bytes]) -> ThreadInfo:
    """Adds the thread of an export, whose lines are the body."""
    thread = await request.runtime.import_thread(
        request.body,
        owner=own_owner(request, request.query.owner),
        keep_id=request.query.keep_id,
    )
    return await thread.info()


@THREADS.add("GET", "/threads/{thread_id}", scope="read", answers={200: ThreadInfo})
async def read_thread(request: ApiRequest[Any, None]) -> ThreadInfo:
    """Returns a thread as lists show it."""
    thread = await request.runtime.connect(request.path["thread_id"])
    return await thread.info()


@THREADS.add(
    "PATCH",
    "/threads/{thread_id}",
    scope="write",
    body=ThreadChange,
    answers={200: ThreadInfo},
)
async def update_thread(request: ApiRequest[Any, ThreadChange]) -> ThreadInfo:
    """Changes the title, the metadata or the expiry of a thread."""
    thread = await request.runtime.connect(request.path["thread_id"])
    title, metadata, at = request.body.title, request.body.metadata, request.body.expires_at
    await thread.update(
        title=None if title is UNSET else title,
        metadata=None if metadata is UNSET else metadata,
        expires_at=None if at is UNSET else moment("expires_at", at) or "never",
    )
    return await thread.info()


@THREADS.add("DELETE", "/threads/{thread_id}", scope="write", answers={204: None})
async def delete_thread(request: ApiRequest[Any, None]) -> Answer:
    """Deletes a thread with everything that belongs to it."""
    thread = await request.runtime.connect(request.path["thread_id"])
    await thread.delete()
    return NO_CONTENT


@THREADS.add(
    "POST", "/threads/{thread_id}/fork", scope="write", body=ForkAt, answers={201: ThreadInfo}
)
async def fork_thread(request: ApiRequest[Any, ForkAt]) -> ThreadInfo:
    """Copies a thread up to an event."""
    thread = await request.runtime.connect(request.path["thread_id"])
    return await (await thread.fork(request.body.at)).info()


@THREADS.add("GET", "/threads/{thread_id}/export", scope="read", answers={200: bytes})
async def export_thread(request: ApiRequest[Any, None]) -> Content:
    """Returns a thread as JSON lines: a header, the durable events, and their files."""
    thread = await request.runtime.connect(request.path["thread_id"])
    return Content(b"".join(b"%b\n" % line for line in await thread.export()), NDJSON)


@THREADS.add("GET", "/threads/{thread_id}/state", scope="read", answers={200: ThreadView})
async def read_state(request: ApiRequest[Any, None]) -> ThreadView:
    """Returns the present state, which events after its position continue."""
    return await (await request.runtime.connect(request.path["thread_id"])).view()


@THREADS.add("GET", "/threads/{thread_id}/usage", scope="read", answers={200: Spent})
async def read_usage(request: ApiRequest[Any, None]) -> Spent:
    """Returns what a thread has used up: all its runs, and the work outside of runs."""
    return await (await request.runtime.connect(request.path["thread_id"])).usage()


@THREADS.add("POST", "/threads/{thread_id}/repair", scope="admin", answers={200: Repaired})
async def repair_thread(request: ApiRequest[Any, None]) -> Repaired:
    """Removes the events of a thread that cannot be read, or that no longer fit."""
    thread = await request.runtime.connect(request.path["thread_id"])
    return Repaired(await thread.repair())
