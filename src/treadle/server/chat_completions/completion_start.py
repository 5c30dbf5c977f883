"""What a request begins: a run with its own history or on a thread, or the next part of a run."""

from collections.abc import Collection
from typing import Any, NamedTuple

from treadle.domain.arguments import is_list
from treadle.domain.items import InputText, parts_of
from treadle.errors import InvalidInput, ThreadNotFound
from treadle.loop.definition import AgentDefinition
from treadle.runtime.thread import Thread
from treadle.runtime.thread_run import ThreadRun
from treadle.server.api_request import ApiRequest, own_owner
from treadle.server.chat_completions.completion_input import NewInput, read_new, read_whole
from treadle.server.chat_completions.completion_options import completion_options
from treadle.server.chat_completions.completion_request import CreateCompletion
from treadle.server.openai.errors import ParameterRefused
from treadle.server.openai.models import PREFIX

Create = ApiRequest[Any, CreateCompletion]
Agent = AgentDefinition[Any, Any]

THREAD_HEADER = b"x-thread-id"


class Started(NamedTuple):
    """The run that answers a request.

    `after` is the number of the event after which the completion begins, None for the beginning of
    the run; `approvals` are the ids of its calls that waited for an approval then. A run that is
    not `is_kept` exists for this request alone.
    """

    thread: Thread
    run: ThreadRun
    is_kept: bool
    after: int | None = None
    approvals: Collection[str] = ()

    @property
    def id(self) -> str:
        """The id of the completion: that of the run, and more for one that continues."""
        return self.run.id if self.after is None else f"{self.run.id}-{self.after}"


async def start_completion(request: Create, agent: Agent) -> Started:
    """Begins a completion; raises 400 for a request that is not valid."""
    request.body.require_served()
    thread_id = _named_thread(request)
    if thread_id:
        return await _on_thread(request, agent, thread_id)
    return await _with_history(request, agent)


def _named_thread(request: Create) -> str:
    """Returns the id of the thread that a request names, "" if it names none."""
    header = request.headers.get(THREAD_HEADER)
    metadata = (request.body.metadata or {}).get("thread_id", "")
    if header and metadata and header != metadata:
        raise ParameterRefused(
            "metadata", "metadata.thread_id and the header X-Thread-Id name different threads."
        )
    return header or metadata


def _key(request: Create) -> str:
    return request.headers.get(b"idempotency-key")


async def _with_history(request: Create, agent: Agent) -> Started:
    body, key = request.body, _key(request)
    given = read_whole(request, body.messages)
    options = completion_options(agent, body, given.instructions)
    owner = own_owner(request, None)
    await request.services.limits.require_run(request.runtime, owner, "")
    is_kept = body.store is True
    thread = await request.runtime.create_thread(
        agent.name,
        owner=owner,
        history=given.history,
        key=f"{PREFIX}/chat/completions {key}" if key else "",
        store=is_kept,
    )
    run = await thread.send(given.messages, key=key, so_far=given.so_far, **options)
    return Started(thread, run, is_kept)


async def _on_thread(request: Create, agent: Agent, thread_id: str) -> Started:
    try:
        thread = await request.runtime.connect(thread_id)
    except ThreadNotFound as error:
        raise ParameterRefused(
            "metadata",
            f"There is no thread {thread_id[:100]!r}.",
            code="thread_not_found",
            status=404,
        ) from error
    given = read_new(request, request.body.messages)
    after = await thread.last_seq()  # before the calls: what changes them follows in the stream
    pending = {call.call.call_id: call.awaits for call in await thread.pending_calls()}
    asked = [call_id for call_id, awaits in pending.items() if awaits == "output"]
    run = await thread.active_run()
    if run is not None and (asked or given.outputs):
        await _continue(request, thread, asked, given)
        return Started(thread, run, is_kept=True, after=after, approvals=pending.keys() - asked)
    if given.outputs:
        raise _not_waiting(min(given.outputs))
    if not given.messages:
        raise ParameterRefused("messages", "The last message must be one of the user.")
    options = completion_options(agent, request.body, given.instructions)
    owner = request.principal.owner
    if owner is None:
        owner = (await thread.info()).owner
    await request.services.limits.require_run(request.runtime, owner, thread.id)
    run = await thread.send(
        given.messages, key=_key(request), agent=agent.name, on_busy="reject", **options
    )
    return Started(thread, run, is_kept=True)


async def _continue(request: Create, thread: Thread, asked: list[str], given: NewInput) -> None:
    """Submits the outputs of all calls that wait for them; nothing is recorded if one is missing.

    The run continues with the options that it has.
    """
    if unknown := sorted(given.outputs.keys() - set(asked)):
        raise _not_waiting(unknown[0])
    if missing := [call_id for call_id in asked if call_id not in given.outputs]:
        raise ParameterRefused(
            "messages",
            f"No tool output found for function call {missing[0]}.",
            code="output_missing",
        )
    outputs = {call_id: _output(output) for call_id, output in given.outputs.items()}
    if given.messages:  # they enter the history after the outputs
        await thread.send(given.messages, key=_key(request), on_busy="steer")
    for call_id, output in outputs.items():
        await thread.submit_tool_output(call_id, output)


def _not_waiting(call_id: str) -> ParameterRefused:
    return ParameterRefused("messages", f"No call {call_id[:100]!r} waits for an output.")


def _output(given: object) -> object:
    """Returns an output of a call, whose parts are those of a message."""
    if not is_list(given):
        return given
    try:
        parts = parts_of("user", given)
    except InvalidInput as error:
        raise ParameterRefused("messages", f"messages is not valid: {error.message}") from error
    texts = [part.text for part in parts if isinstance(part, InputText)]
    return "".join(texts) if len(texts) == len(parts) else list(parts)
