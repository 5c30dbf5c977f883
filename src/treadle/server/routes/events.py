"""Events of a thread and of a run, as a stream; and the removal of what one added."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from treadle.domain.desk import DeskEvent
from treadle.domain.envelope import Envelope
from treadle.domain.events import RecordedEvent
from treadle.domain.items import Item
from treadle.errors import InvalidInput, RunNotFound, ThreadNotFound
from treadle.runtime.thread import Thread
from treadle.server.api_request import ApiRequest
from treadle.server.desk_source import DeskSource
from treadle.server.operation import Answer, Operations, Page
from treadle.server.problems import RequestRefused
from treadle.server.routes.runs import find_run
from treadle.server.sse import STATE, own_frame
from treadle.server.streamed import EndedStream
from treadle.server.streams import NO_CONTENT, StreamAnswer, gone, present, resumed_at

EVENTS = Operations("Events")

Start = Literal["start", "state", "now"]


class ThreadEvents(Struct, frozen=True, forbid_unknown_fields=True):
    """From where, and for a page of JSON how many."""

    after: str = ""
    start: Start = msgspec.field(name="from", default="start")
    limit: Annotated[int, Meta(ge=1, le=1000)] = 500


class Removal(Struct, frozen=True, forbid_unknown_fields=True):
    """One of the items of the event, if that added several."""

    item: Item | UnsetType = UNSET


class DeskQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """Which events, and from where; `owner` is for keys without an owner."""

    after: str = ""
    start: Literal["start", "now"] = msgspec.field(name="from", default="now")
    type: tuple[str, ...] = ()
    owner: str | None = None


class RunEvents(Struct, frozen=True, forbid_unknown_fields=True):
    """From where; `thread_id` is the thread of the run, if the client knows it."""

    after: str = ""
    thread_id: str = ""


@EVENTS.add(
    "GET",
    "/threads/{thread_id}/events",
    scope="read",
    query=ThreadEvents,
    answers={200: RecordedEvent},
    is_page=True,
    is_stream=True,
)
async def thread_events(request: ApiRequest[ThreadEvents, None]) -> object:
    """Streams the events of a thread; with `Accept: application/json`, returns a page of them."""
    query, services = request.query, request.services
    position = resumed_at(request, query.after)
    try:
        thread = await request.runtime.connect(request.path["thread_id"])
    except ThreadNotFound as error:
        raise gone(error, position) from error
    if "application/json" in request.headers.get(b"accept"):
        return await _page(thread, query)
    if services.open_requests.is_draining:
        return EndedStream(services, "draining")
    if position:
        return StreamAnswer(services, thread.subscribe(position), in_step=True)
    if query.start == "now":
        return StreamAnswer(services, thread.subscribe(present(await thread.last_seq())))
    if query.start == "state":
        view = await thread.view()
        return StreamAnswer(
            services,
            thread.subscribe(view.position),
            first=own_frame(STATE, view, view.position),
            in_step=view.step is not None and view.run is not None,
        )
    return StreamAnswer(services, thread.subscribe(0))


async def _page(thread: Thread, query: ThreadEvents) -> Page:
    if query.after and not (query.after.isascii() and query.after.isdigit()):
        raise RequestRefused(
            400, "invalid_request", f"after={query.after[:100]!r} is not the number of an event."
        )
    events = await thread.events(int(query.after[:18] or 0), query.limit)
    # A page of huge events may be cut, so only an empty one is the last.
    return Page([_json(event) for event in events], str(events[-1].seq) if events else None)


def _json(event: RecordedEvent) -> object:
    return msgspec.Raw(Envelope(event, event.seq).json)


@EVENTS.add(
    "POST",
    "/threads/{thread_id}/events/{seq}/remove",
    scope="write",
    body=Removal,
    answers={204: None},
)
async def remove_event(request: ApiRequest[Any, Removal]) -> Answer:
    """Removes the item that an event added to the history, and its content."""
    thread = await request.runtime.connect(request.path["thread_id"])
    item = request.body.item
    await thread.remove_event(_seq(request.path["seq"]), None if item is UNSET else item)
    return NO_CONTENT


def _seq(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise InvalidInput(f"{text[:100]!r} is not the number of an event.")
    return int(text)


@EVENTS.add(
    "GET", "/events", scope="read", query=DeskQuery, answers={200: DeskEvent}, is_stream=True
)
async def desk_events(request: ApiRequest[DeskQuery, None]) -> object:
    """Streams what happens on all threads."""
    services, query = request.services, request.query
    if services.open_requests.is_draining:
        return EndedStream(services, "draining")
    after = resumed_at(request, query.after) or ("start" if query.start == "start" else None)
    desk = request.runtime.subscribe(types=query.type, after=after, owner=query.owner)
    await desk.__aenter__()  # "now" is the moment of the request; the stream closes it
    return StreamAnswer(services, DeskSource(desk))


@EVENTS.add(
    "GET",
    "/runs/{run_id}/events",
    scope="read",
    query=RunEvents,
    answers={200: RecordedEvent, 204: None},
    is_stream=True,
)
async def run_events(request: ApiRequest[RunEvents, None]) -> object:
    """Streams the events of a run up to its end."""
    services, query = request.services, request.query
    position = resumed_at(request, query.after)
    try:
        _, run = await find_run(request, query.thread_id)
    except (ThreadNotFound, RunNotFound) as error:
        raise gone(error, position) from error
    source = await run.subscribe(position or None)
    if source.is_over:
        return Answer(204)
    if services.open_requests.is_draining:
        return EndedStream(services, "draining")
    return StreamAnswer(services, source, in_step=bool(position))
