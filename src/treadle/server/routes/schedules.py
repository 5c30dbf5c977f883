"""Schedules: messages that are sent to a thread at a later time."""

from typing import Any

from msgspec import UNSET, Struct, UnsetType

from treadle.domain.inputs import as_message
from treadle.domain.options import RunOptions
from treadle.domain.schedules import Schedule
from treadle.server.api_request import ApiRequest
from treadle.server.moments import moment
from treadle.server.operation import Answer, Limit, Operations, Page
from treadle.server.routes.messages import options_of
from treadle.server.streams import NO_CONTENT

SCHEDULES = Operations("Schedules")


class NewSchedule(Struct, frozen=True, forbid_unknown_fields=True):
    """A message to send later: `at` (Unix seconds), `after` (seconds), or repeatedly by `cron`.

    The same `key` makes one schedule. `options` are those of its runs, as far as the agent lets
    callers override them.
    """

    message: Any
    at: float | None = None
    after: float | None = None
    cron: str | None = None
    tz: str = "UTC"
    key: str = ""
    agent: str = ""
    options: RunOptions | UnsetType = UNSET


class ScheduleQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """How many schedules, and from where; `owner` is for keys without an owner."""

    limit: Limit = 50
    after: str = ""
    owner: str | None = None


@SCHEDULES.add(
    "POST",
    "/threads/{thread_id}/schedules",
    scope="write",
    body=NewSchedule,
    answers={201: Schedule},
)
async def add_schedule(request: ApiRequest[Any, NewSchedule]) -> Schedule:
    """Sends a message to a thread at a later time."""
    body = request.body
    thread = await request.runtime.connect(request.path["thread_id"])
    message = as_message(body.message)
    request.services.limits.require_size([message])
    return await thread.schedule(
        message,
        at=moment("at", body.at),
        after=body.after,
        cron=body.cron,
        tz=body.tz,
        key=request.headers.get(b"idempotency-key") or body.key,
        agent=body.agent,
        **await options_of(request, thread, body.options, body.agent),
    )


@SCHEDULES.add(
    "GET", "/threads/{thread_id}/schedules", scope="read", answers={200: Schedule}, is_page=True
)
async def list_schedules(request: ApiRequest[Any, None]) -> Page:
    """Lists the schedules of a thread, the one that is due first first."""
    thread = await request.runtime.connect(request.path["thread_id"])
    return Page(list(await thread.schedules()))


@SCHEDULES.add(
    "DELETE",
    "/threads/{thread_id}/schedules/{schedule_id}",
    scope="write",
    answers={204: None},
)
async def cancel_schedule(request: ApiRequest[Any, None]) -> Answer:
    """Cancels a schedule; has no effect on one that is over."""
    thread = await request.runtime.connect(request.path["thread_id"])
    await thread.cancel_schedule(request.path["schedule_id"])
    return NO_CONTENT


@SCHEDULES.add(
    "GET", "/schedules", scope="read", query=ScheduleQuery, answers={200: Schedule}, is_page=True
)
async def all_schedules(request: ApiRequest[ScheduleQuery, None]) -> Page:
    """Lists the schedules of all threads, the one that is due first first."""
    query = request.query
    found = await request.runtime.schedules(limit=query.limit, after=query.after, owner=query.owner)
    return Page(list(found), found.next or None)
