"""Messages: send one, and stream or wait for the run that answers it."""

from typing import Any

from msgspec import UNSET, Struct, UnsetType

from treadle.bus.position import Position
from treadle.domain.entries import OnBusy
from treadle.domain.options import RunOptions
from treadle.errors import InvalidInput
from treadle.runtime.thread import Thread
from treadle.server.api_request import ApiRequest
from treadle.server.bodies import Result, Sent
from treadle.server.operation import Answer, Operations
from treadle.server.routes.runs import wait_for
from treadle.server.streams import StreamAnswer, draining, present
from treadle.server.waiting import result_of

MESSAGES = Operations("Messages")


class NewMessage(Struct, frozen=True, forbid_unknown_fields=True):
    """A message: a text, a message or parts, in the forms of `Input`.

    `options` are those of its run, as far as the agent lets callers override them.
    """

    message: Any = UNSET
    on_busy: OnBusy = "queue"
    agent: str = ""
    key: str = ""
    options: RunOptions | UnsetType = UNSET


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
    body, query, services = request.body, request.query, request.services
    if body.message is UNSET:
        raise InvalidInput('The body has no message; send {"message": "…"}.')
    if query.stream and query.wait is not UNSET:
        raise InvalidInput("Use only one of stream and wait.")
    if query.foreground and not query.stream:
        raise InvalidInput("foreground=true needs stream=true.")
    thread = await request.runtime.connect(request.path["thread_id"])
    if services.open_requests.is_draining:
        raise draining()
    before = await thread.last_seq()
    key = request.headers.get(b"idempotency-key") or body.key
    run = await thread.send(
        body.message,
        on_busy=body.on_busy,
        key=key,
        agent=body.agent,
        **await _options(request, thread),
    )
    position = present(before)
    if key:  # the message may have been sent before
        async with await run.subscribe() as first:
            position = present(min(before, Position.parse(first.position).seq))
    sent = Sent(thread_id=thread.id, run_id=run.id, position=position)
    headers = ((b"x-thread-id", thread.id.encode()), (b"x-run-id", run.id.encode()))
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


async def _options(request: ApiRequest[MessageQuery, NewMessage], thread: Thread) -> dict[str, Any]:
    """Returns the options of the run as arguments; raises `OptionNotAllowed`."""
    options = request.body.options
    if options is UNSET:
        return {}
    name = request.body.agent or (await thread.info()).agent
    agent = request.services.runtime.agent(name)
    default = RunOptions()
    arguments: dict[str, Any] = {
        field: value
        for field in RunOptions.__struct_fields__
        if (value := getattr(options, field)) != getattr(default, field)
    }
    agent.check_options(**arguments)
    return arguments
