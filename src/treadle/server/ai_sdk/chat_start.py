"""What a request begins: a run that answers a message, or the rest of a run that waited."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from msgspec import UNSET

from treadle.domain.entries import OnBusy
from treadle.domain.ids import run_id_of_key
from treadle.domain.inputs import as_messages
from treadle.domain.items import Message
from treadle.errors import Conflict, RunNotFound
from treadle.loop.definition import AgentDefinition
from treadle.runtime.thread import Thread
from treadle.runtime.thread_run import ThreadRun
from treadle.server.ai_sdk.answers import calls_in, submit_answers
from treadle.server.ai_sdk.chat_request import ChatRequest, UiMessage
from treadle.server.ai_sdk.chats import chat_key, find_chat, message_key
from treadle.server.ai_sdk.last_run import remove_last_run, run_of_message
from treadle.server.ai_sdk.message_parts import content_of
from treadle.server.api_request import ApiRequest, own_owner
from treadle.server.problems import RequestRefused
from treadle.server.routes.messages import arguments_of
from treadle.server.waiting import waits_for_answer

Chat = ApiRequest[Any, ChatRequest]
Agent = AgentDefinition[Any, Any]


class StartedRun(NamedTuple):
    """A run, and the calls of it that the client has; None if it has none of its message."""

    thread: Thread
    run: ThreadRun
    known: set[str] | None = None


async def start_run(request: Chat, agent: Agent) -> StartedRun:
    """Begins a run, or continues one; raises 400 if the request has nothing for it."""
    body = request.body
    messages = _messages(body)
    thread = await find_chat(request, body.id)
    target = next((one for one in messages if one.id == body.message_id), messages[-1])
    if target.role == "assistant" and body.trigger == "submit-message":
        if thread is None:
            raise _refused("The chat has no run; send a message of the user first.")
        return await _continued(request, thread, messages, target)
    given = _at_the_end(messages)
    if not given:
        raise _refused("The last of messages must be one of the user, or answer a call.")
    made = as_messages([_fields(one) for one in given])
    request.services.limits.require_size(made)
    options = arguments_of(agent, body.options)
    if thread is None:
        thread = await _new_thread(request, agent)
    elif calls := calls_in(messages):
        await submit_answers(request, thread, calls)
    return StartedRun(thread, await _sent(request, agent, thread, made, options))


def _messages(body: ChatRequest) -> Sequence[UiMessage]:
    if body.message is not UNSET and body.messages is UNSET:
        return [body.message]
    if body.messages is UNSET or body.message is not UNSET or not body.messages:
        raise _refused("The body needs messages, or the last of them alone as message.")
    return body.messages


def _at_the_end(messages: Sequence[UiMessage]) -> list[UiMessage]:
    """Returns the messages of the user after the last of another role.

    Those before it are in the thread, or were removed from it.
    """
    first = len(messages)
    while first and messages[first - 1].role == "user":
        first -= 1
    return list(messages[first:])


def _fields(message: UiMessage) -> dict[str, Any]:
    return {"role": "user", "id": message.id, "content": content_of(message.parts)}


async def _new_thread(request: Chat, agent: Agent) -> Thread:
    owner, key = own_owner(request, None), chat_key(request.body.id)
    await request.services.limits.require_run(request.runtime, owner, "")
    try:
        return await request.runtime.create_thread(agent.name, owner=owner, key=key)
    except Conflict:  # another request was quicker, with another agent
        return await request.runtime.connect(key=key, owner=owner)


async def _continued(
    request: Chat, thread: Thread, messages: Sequence[UiMessage], target: UiMessage
) -> StartedRun:
    """Returns the run of a message of the assistant, after the answers of the client.

    A client that answers again, or after another one, gets what came of the first answer.
    """
    calls = calls_in(messages)
    active = await thread.active_run()
    if active is not None and await submit_answers(request, thread, calls):
        return StartedRun(thread, active, calls.keys() | set())
    try:
        run = await thread.run(target.id)
    except RunNotFound:
        raise _refused(f"The chat has no message {target.id[:100]!r} of the assistant.") from None
    return StartedRun(thread, run, calls_in([target]).keys() | set())


async def _sent(
    request: Chat,
    agent: Agent,
    thread: Thread,
    given: Sequence[Message],
    options: Mapping[str, Any],
) -> ThreadRun:
    """Sends the messages that the thread does not have; returns the run that answers the last."""
    body, last = request.body, given[-1]
    attempt, new = 0, list(given)
    if not thread.is_new:
        known = {one.id for one in await thread.history() if isinstance(one, Message)}
        new = [one for one in given if not await _is_known(thread, one.id, known)]
        if last not in new:
            found = await run_of_message(thread, last.id)
            if not (body.trigger == "regenerate-message" or body.message_id == last.id):
                return found.run
            attempt = await remove_last_run(request, thread, found)
            new = [last]
        await _require_run(request, thread)
    return await thread.send(
        new,
        key=message_key(last.id, attempt),
        agent=agent.name,
        on_busy=await _on_busy(body, thread),
        **options,
    )


async def _is_known(thread: Thread, id: str, known: set[str]) -> bool:
    if id in known:
        return True
    try:
        await thread.run(run_id_of_key(thread.id, message_key(id)))
    except RunNotFound:
        return False
    return True


async def _on_busy(body: ChatRequest, thread: Thread) -> OnBusy:
    if body.on_busy is not UNSET:
        return body.on_busy
    return "cancel" if await waits_for_answer(thread) else "queue"


async def _require_run(request: Chat, thread: Thread) -> None:
    owner = request.principal.owner
    if owner is None:
        owner = (await thread.info()).owner
    await request.services.limits.require_run(request.runtime, owner, thread.id)


def _refused(text: str) -> RequestRefused:
    return RequestRefused(400, "invalid_request", text)
