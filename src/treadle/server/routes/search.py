"""Search in the messages of threads, and in the archive."""

from typing import Annotated, Any

from msgspec import Meta, Struct

from treadle.domain.items import Role
from treadle.domain.passages import By, Found, Kind
from treadle.errors import InvalidInput
from treadle.server.api_request import ApiRequest
from treadle.server.operation import Operations, Page

SEARCH = Operations("Search")


class SearchQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """What to search for, and where; `owner` is for keys without an owner."""

    text: str = ""
    kind: Kind = "message"
    owner: str = ""
    thread_id: str = ""
    role: tuple[Role, ...] = ()
    tag: tuple[str, ...] = ()
    since: str = ""
    until: str = ""
    by: By = "both"
    limit: Annotated[int, Meta(ge=1, le=100)] = 10
    offset: Annotated[int, Meta(ge=0)] = 0


@SEARCH.add("GET", "/search", scope="read", query=SearchQuery, answers={200: Found}, is_page=True)
async def search(request: ApiRequest[SearchQuery, None]) -> Page:
    """Returns the messages, or the texts of the archive, that fit best."""
    query, runtime = request.query, request.runtime
    when: dict[str, Any] = {"since": query.since or None, "until": query.until or None}
    if query.kind == "message":
        if query.tag:
            raise InvalidInput("tag is for kind=archive: messages have no tags.")
        found = await runtime.search(
            query.text,
            owner=query.owner,
            thread_id=query.thread_id,
            roles=query.role,
            by=query.by,
            limit=query.limit,
            offset=query.offset,
            **when,
        )
        return Page(list(found))
    if query.role:
        raise InvalidInput("role is for kind=message: texts of the archive have no role.")
    archive = (
        (await runtime.connect(query.thread_id)).archive
        if query.thread_id
        else runtime.archive(owner=query.owner)
    )
    return Page(
        list(
            await archive.search(
                query.text,
                all_tags=query.tag,
                this_thread=bool(query.thread_id),
                by=query.by,
                limit=query.limit,
                offset=query.offset,
                **when,
            )
        )
    )
