"""Responses: create, retrieve, cancel and delete them, and list what they answer."""

from contextlib import suppress
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from treadle.errors import ItemNotFound, TreadleError
from treadle.server.api_request import ApiRequest, Disconnected
from treadle.server.openai.errors import OPENAI_ERRORS, ParameterRefused
from treadle.server.openai.models import PREFIX
from treadle.server.operation import Answer, Operations
from treadle.server.problems import RequestRefused
from treadle.server.responses.create_request import CreateResponse
from treadle.server.responses.found_response import find_response
from treadle.server.responses.input_items import ItemList, ItemQuery, input_items, page_of
from treadle.server.responses.response_object import Json
from treadle.server.responses.response_start import start_response
from treadle.server.routes.runs import wait_for, wait_seconds
from treadle.server.streams import StreamAnswer, require_may_stream, run_headers

RESPONSES = Operations("OpenAI responses", prefix=PREFIX, errors=OPENAI_ERRORS)

CANCEL_SECONDS = 10.0
"""How long a cancel waits for the end of the run."""

FOREVER = 365 * 86400.0


class ResponseQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """Whether to stream, and after which event; `include` and obfuscation have no effect."""

    stream: bool = False
    starting_after: Annotated[int, Meta(ge=0)] | UnsetType = UNSET
    include_obfuscation: bool = False
    include: tuple[str, ...] = ()


class DeletedResponse(Struct, frozen=True, kw_only=True):
    """A response was deleted."""

    id: str
    object: Literal["response"] = "response"
    deleted: bool = True


@RESPONSES.add(
    "POST",
    "/responses",
    id="create_response",
    scope="write",
    body=CreateResponse,
    answers={200: dict[str, Any]},
    is_stream=True,
)
async def create_response(request: ApiRequest[Any, CreateResponse]) -> object:
    """Creates a response: streams it, or answers once it is complete."""
    services, body = request.services, request.body
    require_may_stream(request)
    found = await start_response(request)
    thread, run = found.thread, found.run
    headers = run_headers(run)
    if not body.stream:
        if not body.background:
            try:
                await wait_seconds(request, thread, run, FOREVER, is_patient=True)
            except (Disconnected, RequestRefused):  # the client left, or its credentials ended
                if body.store is False:
                    with suppress(TreadleError):  # the runtime has shut down
                        await run.cancel()
                raise
        mapper = await found.read()
        if body.store is False and mapper.asked:
            await run.cancel()
        if not (mapper.is_over or body.background):
            raise RequestRefused(
                503,
                "response_in_progress",
                f"The server is about to end; the response {found.id} continues: retrieve it.",
            )
        return Answer(200, mapper.response, headers)
    mapper, source = await found.stream(-1, services.delta_cuts.of(found.id))

    async def end() -> None:
        if mapper.asked:
            await run.cancel()

    # It cannot be continued later, so it would run, or wait, for no reader.
    on_leave, on_end = (run.cancel, end) if body.store is False else (None, None)
    return StreamAnswer(
        services,
        source,
        first=mapper.frames(),
        framing=mapper,
        in_step=True,
        headers=headers,
        on_leave=on_leave,
        on_end=on_end,
    )


@RESPONSES.add(
    "GET",
    "/responses/{run_id}",
    id="read_response",
    scope="read",
    query=ResponseQuery,
    answers={200: dict[str, Any]},
    is_stream=True,
)
async def read_response(request: ApiRequest[ResponseQuery, None]) -> object:
    """Returns a response, or streams its events after the one with a number."""
    found = await find_response(request.runtime, request.path["run_id"])
    query, services = request.query, request.services
    if not query.stream:
        if query.starting_after is not UNSET:
            raise ParameterRefused("starting_after", "starting_after needs stream=true.")
        return (await found.read()).response
    require_may_stream(request)
    after = -1 if query.starting_after is UNSET else query.starting_after
    mapper, source = await found.stream(after, services.delta_cuts.of(found.id))
    return StreamAnswer(
        services, source, first=mapper.frames(), framing=mapper, in_step=not mapper.is_over
    )


@RESPONSES.add(
    "POST",
    "/responses/{run_id}/cancel",
    id="cancel_response",
    scope="write",
    answers={200: dict[str, Any]},
)
async def cancel_response(request: ApiRequest[Any, None]) -> Json:
    """Cancels a response; has no effect on one that has ended."""
    found = await find_response(request.runtime, request.path["run_id"])
    if not (await found.read()).is_over:
        await found.run.cancel()
        await wait_for(request, found.thread, found.run, CANCEL_SECONDS)
    return (await found.read()).response


@RESPONSES.add(
    "DELETE",
    "/responses/{run_id}",
    id="delete_response",
    scope="write",
    answers={200: DeletedResponse},
)
async def delete_response(request: ApiRequest[Any, None]) -> DeletedResponse:
    """Deletes a response: with its thread if that has no other run, else what it said."""
    found = await find_response(request.runtime, request.path["run_id"])
    await found.read()
    thread, run = found.thread, found.run
    if len(await thread.runs(limit=2)) == 1:
        await thread.delete()
        return DeletedResponse(id=found.id)
    await run.cancel()
    await wait_for(request, thread, run, CANCEL_SECONDS)
    for id in await found.item_ids():
        with suppress(ItemNotFound):  # a call leaves together with its output
            await thread.remove_item(id)
    return DeletedResponse(id=found.id)


@RESPONSES.add(
    "GET",
    "/responses/{run_id}/input_items",
    id="list_input_items",
    scope="read",
    query=ItemQuery,
    answers={200: ItemList},
)
async def list_input_items(request: ApiRequest[ItemQuery, None]) -> ItemList:
    """Lists what a response answers."""
    found = await find_response(request.runtime, request.path["run_id"])
    await found.read()
    return page_of(input_items(await found.input()), request.query)
