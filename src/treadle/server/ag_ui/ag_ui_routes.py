"""The route of an agent for clients of AG-UI."""

from typing import Any, Literal

from msgspec import Struct

from treadle.server.ag_ui.run_input import RunAgentInput, RunQuery
from treadle.server.ag_ui.run_mapper import refused
from treadle.server.ag_ui.run_start import InputRefused, start_run
from treadle.server.api_request import ApiRequest
from treadle.server.operation import Operations
from treadle.server.problems import ErrorFormat
from treadle.server.stream import Receive, Scope, Send
from treadle.server.streamed import Streamed, start_stream
from treadle.server.streams import StreamAnswer, require_may_stream, run_headers

PREFIX = "/ag-ui"


class RunErrorBody(Struct, frozen=True, kw_only=True):
    """The body of a response that is an error, as the event that ends a run which failed."""

    type: Literal["RUN_ERROR"] = "RUN_ERROR"
    message: str
    code: str


AG_UI_ERRORS = ErrorFormat(
    "application/json",
    RunErrorBody,
    lambda problem, _: RunErrorBody(message=problem.detail, code=problem.code),
)

AG_UI = Operations("AG-UI", prefix=PREFIX, errors=AG_UI_ERRORS)


@AG_UI.add(
    "POST",
    "/{agent}",
    id="run_ag_ui",
    scope="write",
    query=RunQuery,
    body=RunAgentInput,
    answers={200: dict[str, Any]},
    is_stream=True,
)
async def run_ag_ui(request: ApiRequest[RunQuery, RunAgentInput]) -> object:
    """Runs an agent, and streams the events of AG-UI until it ends or waits for the client."""
    services, given = request.services, request.body
    agent = services.runtime.agent(request.path["agent"])
    require_may_stream(request)
    try:
        started = await start_run(request, agent)
    except InputRefused as error:
        return _RefusedRun(refused(given, error.code, error.message))
    run, mapper = started.run, started.mapper
    return StreamAnswer(
        services,
        started.source,
        first=mapper.frames(),
        framing=mapper,
        in_step=True,
        headers=run_headers(run),
        on_leave=run.cancel if request.query.foreground else None,
    )


class _RefusedRun(Streamed):
    """A stream that says why there is no run."""

    def __init__(self, frames: bytes) -> None:
        self._frames = frames

    async def send(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Writes the response."""
        if await start_stream(scope, send):
            await send({"type": "http.response.body", "body": self._frames})
