"""Runs: list, read, wait for, cancel and finish them."""

from typing import Any

from msgspec import Struct

from treadle.journal.base import Direction
from treadle.journal.projection import RunRecord
from treadle.runtime.thread import Thread
from treadle.runtime.thread_run import ThreadRun
from treadle.server.access import ACCESS
from treadle.server.api_request import ApiRequest, Disconnected
from treadle.server.bodies import Result
from treadle.server.operation import Answer, Limit, Operations, Page
from treadle.server.waiting import RunWait, result_of

RUNS = Operations("Runs")


class RunQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """The thread of the run, if the client knows it."""

    thread_id: str = ""


class RunsQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """How many runs, and from where."""

    limit: Limit = 50
    after: str = ""
    order: Direction = "asc"


class ResultQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """How long to wait for the end of the run, in seconds, and whether to add the history."""

    wait: float = 0.0
    history: bool = False
    thread_id: str = ""


async def find_run(request: ApiRequest[Any, Any], thread_id: str) -> tuple[Thread, ThreadRun]:
    """Returns the run in the path, and its thread; raises `RunNotFound`."""
    runtime, run_id = request.runtime, request.path["run_id"]
    if thread_id:
        thread = await runtime.connect(thread_id)
        return thread, await thread.run(run_id)
    run = await runtime.run(run_id)
    return await runtime.connect(run.thread_id), run


@RUNS.add(
    "GET",
    "/threads/{thread_id}/runs",
    scope="read",
    query=RunsQuery,
    answers={200: RunRecord},
    is_page=True,
)
async def list_runs(request: ApiRequest[RunsQuery, None]) -> Page:
    """Lists the runs of a thread, the oldest first."""
    thread = await request.runtime.connect(request.path["thread_id"])
    query = request.query
    found = await thread.runs(limit=query.limit, after=query.after, order=query.order)
    return Page(list(found), found.next or None)


@RUNS.add("GET", "/runs/{run_id}", scope="read", query=RunQuery, answers={200: RunRecord})
async def read_run(request: ApiRequest[RunQuery, None]) -> RunRecord:
    """Returns a run as lists show it."""
    _, run = await find_run(request, request.query.thread_id)
    return await run.info()


@RUNS.add(
    "GET",
    "/runs/{run_id}/result",
    scope="read",
    query=ResultQuery,
    answers={200: Result, 202: RunRecord},
)
async def read_result(request: ApiRequest[ResultQuery, None]) -> object:
    """Returns the result of a run, or 202 if it has not ended within the time."""
    thread, run = await find_run(request, request.query.thread_id)
    if await wait_for(request, thread, run, request.query.wait):
        return await result_of(thread, run, with_history=request.query.history)
    return Answer(202, await run.info())


async def wait_for(
    request: ApiRequest[Any, Any], thread: Thread, run: ThreadRun, seconds: float
) -> bool:
    """Waits for the end of a run; returns whether it has ended.

    Above the limit on open streams it does not wait.
    """
    most = request.services.settings.max_wait_seconds
    try:
        return await wait_seconds(request, thread, run, min(seconds, most))
    except Disconnected:
        return False  # what the request does after the wait is done for a client that left as well


async def wait_seconds(
    request: ApiRequest[Any, Any],
    thread: Thread,
    run: ThreadRun,
    seconds: float,
    *,
    is_patient: bool = False,
) -> bool:
    """Waits for any time; see `RunWait`. Raises `Disconnected` if the client leaves."""
    services = request.services
    limits = services.limits
    access = request.scope.get(ACCESS)
    wait = RunWait(services.open_requests, access, is_patient=is_patient)
    if not limits.open_stream(request.principal):
        return await wait.ended(thread, run, 0.0, request.receive)
    try:
        return await wait.ended(thread, run, seconds, request.receive)
    finally:
        limits.close_stream(request.principal)


@RUNS.add("POST", "/runs/{run_id}/cancel", scope="write", query=RunQuery, answers={202: RunRecord})
async def cancel_run(request: ApiRequest[RunQuery, None]) -> RunRecord:
    """Ends a run now; has no effect on one that has ended."""
    _, run = await find_run(request, request.query.thread_id)
    await run.cancel()
    return await run.info()


@RUNS.add("POST", "/runs/{run_id}/finish", scope="write", query=RunQuery, answers={202: RunRecord})
async def finish_run(request: ApiRequest[RunQuery, None]) -> RunRecord:
    """Ends a run after the step it is in; has no effect on one that has ended."""
    _, run = await find_run(request, request.query.thread_id)
    await run.finish()
    return await run.info()
