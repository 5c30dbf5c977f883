"""What a request begins: a run on a new thread or a stored one, or the next part of a run."""

from collections.abc import Mapping
from typing import Any

from treadle.domain.arguments import is_list
from treadle.domain.items import InputText, parts_of
from treadle.errors import RunNotFound, ThreadNotFound, UnknownToolCall
from treadle.loop.definition import AgentDefinition
from treadle.runtime.thread import Thread
from treadle.runtime.thread_run import ThreadRun
from treadle.server.api_request import ApiRequest, own_owner
from treadle.server.openai.errors import ParameterRefused
from treadle.server.openai.models import PREFIX
from treadle.server.responses.create_request import ConversationId, CreateResponse
from treadle.server.responses.found_response import FoundResponse, find_response
from treadle.server.responses.request_input import Outputs, read_answers, read_input
from treadle.server.responses.run_options import run_options

Create = ApiRequest[Any, CreateResponse]
Agent = AgentDefinition[Any, Any]


async def start_response(request: Create) -> FoundResponse:
    """Begins a response; raises 400 for a request that is not valid."""
    body = request.body
    agent = request.services.runtime.agent(body.model)
    if body.previous_response_id is not None and body.conversation is not None:
        raise ParameterRefused(
            "conversation", "Use only one of previous_response_id and conversation."
        )
    if body.background and body.store is False:
        raise ParameterRefused("background", "background needs store, to be retrieved.")
    if body.previous_response_id is not None:
        return await _after_response(request, agent, body.previous_response_id)
    if body.conversation is not None:
        given = body.conversation
        id = given.id if isinstance(given, ConversationId) else given
        return await _in_conversation(request, agent, id)
    return await _on_new_thread(request, agent)


def _key(request: Create) -> str:
    return request.headers.get(b"idempotency-key")


async def _on_new_thread(request: Create, agent: Agent) -> FoundResponse:
    body, key = request.body, _key(request)
    options = run_options(agent, body)
    given = read_input(request, body.input)
    owner = own_owner(request, None)
    await request.services.limits.require_run(request.runtime, owner, "")
    thread = await request.runtime.create_thread(
        agent.name,
        owner=owner,
        history=given.history,
        key=f"{PREFIX}/responses {key}" if key else "",
        store=body.store is not False,
    )
    run = await thread.send(given.messages, key=key, so_far=given.so_far, **options)
    return FoundResponse(thread, run)


async def _after_response(request: Create, agent: Agent, id: str) -> FoundResponse:
    try:
        previous = await find_response(request.runtime, id)
        mapper = await previous.read()
    except (RunNotFound, ThreadNotFound) as error:
        raise ParameterRefused(
            "previous_response_id",
            f"There is no response {id[:100]!r}.",
            code="previous_response_not_found",
            status=404,
        ) from error
    if not mapper.is_over:
        raise ParameterRefused(
            "previous_response_id",
            f"The response {id[:100]!r} is in progress; wait for its end, or cancel it.",
            code="response_in_progress",
            status=409,
        )
    thread, run = previous.thread, previous.run
    given = read_answers(request, request.body.input)
    record = await run.info()
    asked = mapper.asked
    if asked and (given.outputs or given.approvals or not record.last_seq):
        await _answer(request, thread, asked, given)
        return FoundResponse(thread, run, previous.part + 1, is_new=True)
    if asked:
        raise ParameterRefused(
            "previous_response_id",
            "The run of this response has continued; use its last response.",
            code="conflict",
            status=409,
        )
    _require_messages(given)
    await _require_run(request, thread)
    sent = await thread.send_after(
        record.last_seq,
        given.messages,
        key=_key(request),
        agent=agent.name,
        **run_options(agent, request.body),
    )
    if sent.thread_id != thread.id:
        thread = await request.runtime.connect(sent.thread_id)
    return FoundResponse(thread, sent)


async def _in_conversation(request: Create, agent: Agent, id: str) -> FoundResponse:
    try:
        thread = await request.runtime.connect(id)
    except ThreadNotFound as error:
        raise ParameterRefused(
            "conversation",
            f"There is no conversation {id[:100]!r}.",
            code="conversation_not_found",
            status=404,
        ) from error
    given = read_answers(request, request.body.input)
    if (given.outputs or given.approvals) and (run := await thread.active_run()) is not None:
        part = await waiting_part(thread, run)
        mapper = await FoundResponse(thread, run, part).read()
        await _answer(request, thread, mapper.asked, given)
        return FoundResponse(thread, run, part + 1, is_new=True)
    known = {getattr(item, "id", "") for item in await thread.history()}
    messages = [one for one in given.messages if one.id not in known]
    given = Outputs({}, {}, messages)
    _require_messages(given)
    await _require_run(request, thread)
    run = await thread.send(
        messages,
        key=_key(request),
        agent=agent.name,
        on_busy="reject",
        **run_options(agent, request.body, thread.id),
    )
    return FoundResponse(thread, run)


async def waiting_part(thread: Thread, run: ThreadRun) -> int:
    """Returns the number of the last part of a run that waits for answers."""
    part = 1
    while True:
        mapper = await FoundResponse(thread, run, part, is_new=True).read()
        if not mapper.is_over or not mapper.asked:
            return part
        following = await FoundResponse(thread, run, part + 1, is_new=True).read()
        if not following.exists:
            return part
        part += 1


async def _answer(
    request: Create, thread: Thread, asked: Mapping[str, str], given: Outputs
) -> None:
    """Submits the answers to all calls that wait; nothing is recorded if one is missing."""
    items = {item_id: call_id for call_id, item_id in asked.items()}
    unknown = sorted((given.outputs.keys() - asked) | (given.approvals.keys() - items))
    if unknown:
        raise ParameterRefused("input", f"No call {unknown[0][:100]!r} waits for an answer.")
    pending = {call.call.call_id: call.awaits for call in await thread.pending_calls()}
    for call_id in asked:
        awaits = pending.get(call_id)
        if awaits == "output" and call_id not in given.outputs:
            message = f"No tool output found for function call {call_id}."
            raise ParameterRefused("input", message, code="output_missing")
        if awaits == "approval" and asked[call_id] not in given.approvals:
            message = f"No approval found for the request {asked[call_id]}."
            raise ParameterRefused("input", message, code="approval_missing")
    if given.approvals:
        request.require("approve", "To approve a call")
    for call_id in given.outputs:
        if pending.get(call_id) == "approval":
            raise UnknownToolCall(f"The call {call_id[:100]!r} waits for an approval.")
    if given.messages:  # they enter the history after the outputs
        await thread.send(given.messages, key=_key(request), on_busy="steer")
    for call_id, output in given.outputs.items():
        await thread.submit_tool_output(call_id, _output(output))
    for item_id, approval in given.approvals.items():
        if approval.approve:
            await thread.approve(items[item_id])
        else:
            await thread.deny(items[item_id], approval.reason)


def _output(given: object) -> object:
    """Returns an output of a call, whose parts are those of a message."""
    if not is_list(given):
        return given
    parts = parts_of("user", given)
    texts = [part.text for part in parts if isinstance(part, InputText)]
    return "".join(texts) if len(texts) == len(parts) else list(parts)


def _require_messages(given: Outputs) -> None:
    if given.outputs or given.approvals:
        id = min([*given.outputs, *given.approvals])
        raise ParameterRefused("input", f"No call {id[:100]!r} waits for an answer.")
    if not given.messages:
        raise ParameterRefused("input", "input needs a message of the user.")


async def _require_run(request: Create, thread: Thread) -> None:
    owner = request.principal.owner
    if owner is None:
        owner = (await thread.info()).owner
    await request.services.limits.require_run(request.runtime, owner, thread.id)
