"""Search in the messages of threads."""

from typing import Annotated

from msgspec import Meta, Struct

from treadle.domain.items import Role
from treadle.domain.passages import By, Found
from treadle.server.api_request import ApiRequest
from treadle.server.operation import Operations, Page

SEARCH = Operations("Search")


class SearchQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """What to search for, and where; `owner` is for keys without an owner."""

    text: str = ""
    owner: str = ""
    thread_id: str = ""
    role: tuple[Role, ...] = ()
    since: str = ""
    until: str = ""
    by: By = "both"
    limit: Annotated[int, Meta(ge=1, le=100)] = 10
    offset: Annotated[int, Meta(ge=0)] = 0


@SEARCH.add("GET", "/search", scope="read", query=SearchQuery, answers={200: Found}, is_page=True)
async def search(request: ApiRequest[SearchQuery, None]) -> Page:
    """Returns the messages that fit best."""
    query = request.query
    found = await request.runtime.search(
        query.text,
        owner=query.owner,
        thread_id=query.thread_id,
        roles=query.role,
        since=query.since or None,
        until=query.until or None,
        by=query.by,
        limit=query.limit,
        offset=query.offset,
    )
    return Page(list(found))
