"""Messages: send one, and stream or wait for the run that answers it."""

from typing import Any

from msgspec import UNSET, Struct, UnsetType

from treadle.bus.position import Position
from treadle.domain.entries import OnBusy
from treadle.domain.inputs import as_message, as_messages
from treadle.domain.items import Message
from treadle.domain.options import RunOptions
from treadle.errors import InvalidInput
from treadle.loop.definition import AgentDefinition
from treadle.runtime.thread import Thread
from treadle.runtime.thread_run import ThreadRun
from treadle.server.api_request import ApiRequest
from treadle.server.bodies import Result, Sent
from treadle.server.operation import Answer, Operations
from treadle.server.routes.items import given_items
from treadle.server.routes.runs import wait_for
from treadle.server.streams import StreamAnswer, draining, present, run_headers
from treadle.server.waiting import result_of

MESSAGES = Operations("Messages")


class NewMessage(Struct, frozen=True, forbid_unknown_fields=True):
    """A message: a text, a message or parts, in the forms of `Input`; or several messages.

    - `messages`: an empty list sends none, and the run answers what the history ends with.
    - `options`: those of its run, as far as the agent lets callers override them.
    - `expect`: the number of the last event that the sender has seen; refused if another came.
    - `after`: the number of the event that it continues: here if that is possible, else in a copy.
    - `so_far`: items with which the answer begins, which need the scope `admin`.
    """

    message: Any = UNSET
    messages: list[Any] | UnsetType = UNSET
    on_busy: OnBusy | UnsetType = UNSET
    agent: str = ""
    key: str = ""
    options: RunOptions | UnsetType = UNSET
    expect: int | UnsetType = UNSET
    after: int | UnsetType = UNSET
    so_far: list[Any] = []


class MessageQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """How to answer: at once, with the events of the run, or with its result."""

    stream: bool = False
    foreground: bool = False
    wait: float | UnsetType = UNSET


@MESSAGES.add(
    "POST",
    "/threads/{thread_id}/messages",
    scope="write",
    query=MessageQuery,
    body=NewMessage,
    answers={202: Sent, 200: Result},
    is_stream=True,
)
async def send_message(request: ApiRequest[MessageQuery, NewMessage]) -> object:
    """Sends a message; the answer comes before the first token, unless it is asked to wait."""
    query, services = request.query, request.services
    if query.stream and query.wait is not UNSET:
        raise InvalidInput("Use only one of stream and wait.")
    if query.foreground and not query.stream:
        raise InvalidInput("foreground=true needs stream=true.")
    thread = await request.runtime.connect(request.path["thread_id"])
    if services.open_requests.is_draining:
        raise draining()
    messages = _messages(request.body)
    services.limits.require_size(messages)
    await _require_room(request, thread)
    before = await thread.last_seq()
    key = request.headers.get(b"idempotency-key") or request.body.key
    run = await _send(request, thread, messages, key)
    is_copy = run.thread_id != thread.id
    if is_copy:
        thread = await request.runtime.connect(run.thread_id)
        before = max((await run.info()).seq - 1, 0)
    if key or is_copy:  # the message may have been sent before
        async with await run.subscribe() as first:
            before = min(before, Position.parse(first.position).seq)
    position = present(before)
    sent = Sent(thread_id=thread.id, run_id=run.id, position=position)
    headers = run_headers(run)
    if query.stream:
        return StreamAnswer(
            services,
            await run.subscribe(position),
            in_step=True,
            headers=headers,
            on_leave=run.cancel if query.foreground else None,
        )
    if query.wait is not UNSET and await wait_for(request, thread, run, query.wait):
        return Answer(200, await result_of(thread, run), headers)
    return Answer(202, sent, headers)


async def _send(
    request: ApiRequest[MessageQuery, NewMessage],
    thread: Thread,
    messages: list[Message],
    key: str,
) -> ThreadRun:
    body = request.body
    options = await options_of(request, thread, body.options, body.agent)
    if body.after is UNSET:
        so_far = given_items(request, body.so_far)
        on_busy: OnBusy = "queue" if body.on_busy is UNSET else body.on_busy
        expect = None if body.expect is UNSET else body.expect
        return await thread.send(
            messages,
            on_busy=on_busy,
            key=key,
            agent=body.agent,
            expect=expect,
            so_far=so_far,
            **options,
        )
    if body.on_busy is not UNSET or body.expect is not UNSET or body.so_far:
        raise InvalidInput("Use after without expect, on_busy and so_far.")
    return await thread.send_after(body.after, messages, key=key, agent=body.agent, **options)


def _messages(body: NewMessage) -> list[Message]:
    if (body.message is UNSET) == (body.messages is UNSET):
        raise InvalidInput(
            'Send one message as {"message": "…"}, or several as {"messages": ["…", …]}.'
        )
    given = body.messages
    return as_messages(body.message) if given is UNSET else [as_message(one) for one in given]


async def _require_room(request: ApiRequest[MessageQuery, NewMessage], thread: Thread) -> None:
    """Raises 429 above the limits on streams and runs."""
    limits, owner = request.services.limits, request.principal.owner
    if request.query.stream:
        limits.require_stream(request.principal)
    if owner is None:
        owner = (await thread.info()).owner
    await limits.require_run(request.runtime, owner, thread.id)


async def options_of(
    request: ApiRequest[Any, Any], thread: Thread, options: RunOptions | UnsetType, name: str
) -> dict[str, Any]:
    """Returns the options of a run as arguments; raises `OptionNotAllowed`.

    `name` is that of the agent, "" for the one of the thread.
    """
    if options is UNSET:
        return {}
    agent = request.services.runtime.agent(name or (await thread.info()).agent)
    return arguments_of(agent, options)


def arguments_of(
    agent: AgentDefinition[Any, Any], options: RunOptions | UnsetType
) -> dict[str, Any]:
    """Returns the options of a run of an agent as arguments; raises `OptionNotAllowed`."""
    if options is UNSET:
        return {}
    default = RunOptions()
    arguments: dict[str, Any] = {
        field: value
        for field in RunOptions.__struct_fields__
        if (value := getattr(options, field)) != getattr(default, field)
    }
    agent.check_options(**arguments)
    return arguments
