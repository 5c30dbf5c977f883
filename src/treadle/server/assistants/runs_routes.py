"""Runs and their steps: create, list, read, cancel them, and answer their calls."""

from typing import Any

from treadle.errors import ItemNotFound
from treadle.runtime.thread import Thread
from treadle.runtime.thread_run import ThreadRun
from treadle.server.api_request import ApiRequest
from treadle.server.assistants.assistants_objects import Json, ObjectQuery, page_of, thread_object
from treadle.server.assistants.assistants_requests import (
    NewRun,
    NewThread,
    NewThreadAndRun,
    ToolOutputs,
)
from treadle.server.assistants.found_objects import read_object, read_objects, read_run
from treadle.server.assistants.run_fold import RunFold, sse
from treadle.server.assistants.run_start import start_run, submit_outputs
from treadle.server.assistants.threads_routes import new_thread
from treadle.server.openai.errors import OPENAI_ERRORS
from treadle.server.openai.models import PREFIX
from treadle.server.operation import Answer, Operations
from treadle.server.streams import StreamAnswer, require_may_stream, run_headers

ASSISTANTS_RUNS = Operations("OpenAI assistants' runs", prefix=PREFIX, errors=OPENAI_ERRORS)

POLL_MILLISECONDS = b"100"
"""After how many milliseconds a client should look again."""


async def _found(request: ApiRequest[Any, Any]) -> tuple[Thread, ThreadRun]:
    thread = await request.runtime.connect(request.path["thread_id"])
    return thread, await thread.run(request.path["run_id"])


async def _shown(thread: Thread, run: ThreadRun) -> Answer:
    shown = await read_object(thread, await run.info())
    return Answer(200, shown, ((b"openai-poll-after-ms", POLL_MILLISECONDS),))


async def _streamed(
    request: ApiRequest[Any, Any], run: ThreadRun, fold: RunFold, after: int | None, first: bytes
) -> StreamAnswer:
    return StreamAnswer(
        request.services,
        await run.subscribe(after),
        first=first,
        framing=fold,
        in_step=True,
        headers=run_headers(run),
    )


@ASSISTANTS_RUNS.add(
    "POST",
    "/threads/runs",
    id="create_thread_and_run",
    scope="write",
    body=NewThreadAndRun,
    answers={200: dict[str, Any]},
    is_stream=True,
)
async def create_thread_and_run(request: ApiRequest[Any, NewThreadAndRun]) -> object:
    """Creates a thread, and a run on it."""
    body = request.body
    require_may_stream(request, is_stream=body.stream is True)
    name = request.services.runtime.agent(body.assistant_id).name
    thread = await new_thread(request, body.thread or NewThread(), name)
    run = await start_run(request, thread, body)
    if not body.stream:
        return await _shown(thread, run)
    first = sse("thread.created", thread_object(await thread.info()))
    fold = RunFold(run.id, thread.id, name, is_streamed=True)
    return await _streamed(request, run, fold, None, first)


@ASSISTANTS_RUNS.add(
    "POST",
    "/threads/{thread_id}/runs",
    id="create_assistants_run",
    scope="write",
    query=ObjectQuery,
    body=NewRun,
    answers={200: dict[str, Any]},
    is_stream=True,
)
async def create_run(request: ApiRequest[ObjectQuery, NewRun]) -> object:
    """Starts a run that answers the messages of a thread."""
    body = request.body
    thread = await request.runtime.connect(request.path["thread_id"])
    require_may_stream(request, is_stream=body.stream is True)
    run = await start_run(request, thread, body)
    if not body.stream:
        return await _shown(thread, run)
    fold = RunFold(run.id, thread.id, body.assistant_id, is_streamed=True)
    return await _streamed(request, run, fold, None, b"")


@ASSISTANTS_RUNS.add(
    "GET",
    "/threads/{thread_id}/runs",
    id="list_assistants_runs",
    scope="read",
    query=ObjectQuery,
    answers={200: dict[str, Any]},
)
async def list_runs(request: ApiRequest[ObjectQuery, None]) -> Json:
    """Lists the runs of a thread, the newest first."""
    thread = await request.runtime.connect(request.path["thread_id"])
    return page_of(await read_objects(thread), request.query)


@ASSISTANTS_RUNS.add(
    "GET",
    "/threads/{thread_id}/runs/{run_id}",
    id="read_assistants_run",
    scope="read",
    answers={200: dict[str, Any]},
)
async def read_assistants_run(request: ApiRequest[Any, None]) -> Answer:
    """Returns a run."""
    return await _shown(*(await _found(request)))


@ASSISTANTS_RUNS.add(
    "POST",
    "/threads/{thread_id}/runs/{run_id}/cancel",
    id="cancel_assistants_run",
    scope="write",
    answers={200: dict[str, Any]},
)
async def cancel_run(request: ApiRequest[Any, None]) -> Answer:
    """Cancels a run; has no effect on one that has ended."""
    thread, run = await _found(request)
    await run.cancel()
    return await _shown(thread, run)


@ASSISTANTS_RUNS.add(
    "POST",
    "/threads/{thread_id}/runs/{run_id}/submit_tool_outputs",
    id="submit_tool_outputs",
    scope="write",
    body=ToolOutputs,
    answers={200: dict[str, Any]},
    is_stream=True,
)
async def submit_tool_outputs(request: ApiRequest[Any, ToolOutputs]) -> object:
    """Answers all calls that a run waits for; it continues."""
    thread, run = await _found(request)
    require_may_stream(request, is_stream=request.body.stream is True)
    fold, seq = await read_run(thread, run)
    await submit_outputs(thread, run, request.body)
    if not request.body.stream:
        return await _shown(thread, run)
    fold.resume()
    return await _streamed(request, run, fold, seq, b"")


@ASSISTANTS_RUNS.add(
    "GET",
    "/threads/{thread_id}/runs/{run_id}/steps",
    id="list_run_steps",
    scope="read",
    query=ObjectQuery,
    answers={200: dict[str, Any]},
)
async def list_steps(request: ApiRequest[ObjectQuery, None]) -> Json:
    """Lists the steps of a run, the newest first."""
    fold, _ = await read_run(*(await _found(request)))
    return page_of(fold.steps, request.query)


@ASSISTANTS_RUNS.add(
    "GET",
    "/threads/{thread_id}/runs/{run_id}/steps/{step_id}",
    id="read_run_step",
    scope="read",
    query=ObjectQuery,
    answers={200: dict[str, Any]},
)
async def read_step(request: ApiRequest[ObjectQuery, None]) -> Json:
    """Returns a step of a run."""
    fold, _ = await read_run(*(await _found(request)))
    for step in fold.steps:
        if step["id"] == request.path["step_id"]:
            return step
    raise ItemNotFound(f"The run has no step {request.path['step_id'][:100]!r}.")
