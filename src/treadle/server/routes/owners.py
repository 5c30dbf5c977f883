"""Owners: what one has spent, and the deletion of all that is theirs."""

from typing import Any

from msgspec import Struct

from treadle.actors.spending import Period
from treadle.domain.spending import Spending
from treadle.server.api_request import ApiRequest, own_owner
from treadle.server.operation import Answer, Operations
from treadle.server.streams import NO_CONTENT

OWNERS = Operations("Owners")


class SpendingQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """The day or the month, in a time zone; `owner` is for keys without an owner."""

    period: Period = "month"
    tz: str = "UTC"
    owner: str | None = None


class OwnerQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """The owner; it is for keys without an owner."""

    owner: str | None = None


@OWNERS.add("GET", "/spending", scope="read", query=SpendingQuery, answers={200: Spending})
async def read_spending(request: ApiRequest[SpendingQuery, None]) -> Spending:
    """Returns the tokens and the cost that an owner has spent today or this month so far."""
    query = request.query
    owner = own_owner(request, query.owner)
    return await request.runtime.spending(owner=owner, period=query.period, tz=query.tz)


@OWNERS.add("DELETE", "/owner", scope="admin", query=OwnerQuery, answers={204: None})
async def delete_owner(request: ApiRequest[OwnerQuery, Any]) -> Answer:
    """Deletes all threads of an owner, shared memories, files, and all that they remember."""
    await request.runtime.delete_owner(own_owner(request, request.query.owner))
    return NO_CONTENT
