"""The archive: texts that are kept and found again."""

from typing import Annotated, Any

from msgspec import Meta, Struct

from treadle.domain.passages import By, Found, Passage
from treadle.memory.archive.pages import Statistics
from treadle.runtime.archive import Archive
from treadle.server.api_request import ApiRequest, own_owner
from treadle.server.bodies import Inserted
from treadle.server.moments import moment
from treadle.server.operation import Answer, Operations, Page
from treadle.server.streams import NO_CONTENT

ARCHIVE = Operations("Archive")


class NewText(Struct, frozen=True, forbid_unknown_fields=True):
    """A text to keep; the same `key` keeps the same text once.

    `created_at` (Unix seconds) is of when the text is, if that is not now. With a `thread_id` it
    belongs to that thread, and is deleted with it. `owner` is for keys without an owner.
    """

    text: str
    tags: list[str] = []
    created_at: float | None = None
    key: str = ""
    thread_id: str = ""
    owner: str | None = None


class ArchiveQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """What to search for, and where; `owner` is for keys without an owner.

    A text must have each `tag`, and one of `any_tag`.
    """

    text: str = ""
    tag: tuple[str, ...] = ()
    any_tag: tuple[str, ...] = ()
    since: str = ""
    until: str = ""
    thread_id: str = ""
    by: By = "both"
    limit: Annotated[int, Meta(ge=1, le=100)] = 10
    offset: Annotated[int, Meta(ge=0)] = 0
    owner: str | None = None


class OwnerQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """The owner of the archive; it is for keys without an owner."""

    owner: str | None = None


async def _archive(
    request: ApiRequest[Any, Any], owner: str | None, thread_id: str = ""
) -> Archive:
    owned_by = own_owner(request, owner)
    if thread_id:
        return (await request.runtime.connect(thread_id)).archive
    return request.runtime.archive(owner=owned_by)


@ARCHIVE.add("POST", "/archive", scope="write", body=NewText, answers={201: Inserted})
async def insert_text(request: ApiRequest[Any, NewText]) -> Inserted:
    """Puts a text into the archive."""
    body = request.body
    archive = await _archive(request, body.owner, body.thread_id)
    id = await archive.insert(
        body.text, tags=body.tags, created_at=moment("created_at", body.created_at), key=body.key
    )
    return Inserted(id)


@ARCHIVE.add(
    "GET", "/archive", scope="read", query=ArchiveQuery, answers={200: Found}, is_page=True
)
async def search_archive(request: ApiRequest[ArchiveQuery, None]) -> Page:
    """Returns the texts that fit best; without a text to search for, the newest."""
    query = request.query
    archive = await _archive(request, query.owner, query.thread_id)
    found = await archive.search(
        query.text,
        any_tags=query.any_tag,
        all_tags=query.tag,
        since=query.since or None,
        until=query.until or None,
        this_thread=bool(query.thread_id),
        by=query.by,
        limit=query.limit,
        offset=query.offset,
    )
    return Page(list(found))


# In front of the route of one text; no id of a text is this word.
@ARCHIVE.add(
    "GET", "/archive/statistics", scope="read", query=OwnerQuery, answers={200: Statistics}
)
async def archive_statistics(request: ApiRequest[OwnerQuery, None]) -> Statistics:
    """Returns how much of the owner's is in the index."""
    archive = await _archive(request, request.query.owner)
    return await archive.statistics()


@ARCHIVE.add("GET", "/archive/{passage_id}", scope="read", query=OwnerQuery, answers={200: Passage})
async def read_text(request: ApiRequest[OwnerQuery, None]) -> Passage:
    """Returns a text of the archive."""
    archive = await _archive(request, request.query.owner)
    return await archive.get(request.path["passage_id"])


@ARCHIVE.add(
    "DELETE", "/archive/{passage_id}", scope="write", query=OwnerQuery, answers={204: None}
)
async def remove_text(request: ApiRequest[OwnerQuery, None]) -> Answer:
    """Takes a text out of the archive."""
    archive = await _archive(request, request.query.owner)
    await archive.remove(request.path["passage_id"])
    return NO_CONTENT
