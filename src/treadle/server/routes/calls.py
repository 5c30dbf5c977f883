"""Calls that wait for an output or an approval from outside."""

from typing import Any

from msgspec import UNSET, Struct

from treadle.domain.events import Awaited
from treadle.domain.items import FunctionCallOutput
from treadle.domain.state import ThreadState
from treadle.errors import TreadleError, UnknownToolCall
from treadle.journal.base import WaitingCall
from treadle.runtime.thread import Thread
from treadle.server.api_request import ApiRequest, scope_missing
from treadle.server.bodies import Answered
from treadle.server.operation import Answer, Limit, Operations, Page
from treadle.server.problems import problem_of
from treadle.server.streams import NO_CONTENT

CALLS = Operations("Calls")


class CallQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """Which calls, and how many; `owner` is for keys without an owner."""

    limit: Limit = 50
    after: str = ""
    agent: str = ""
    awaits: Awaited | None = None
    owner: str | None = None


class Output(Struct, frozen=True, forbid_unknown_fields=True):
    """The output of a call: any JSON."""

    output: Any
    is_error: bool = False


class Denial(Struct, frozen=True, forbid_unknown_fields=True):
    """Why a call is denied; the model reads it."""

    reason: str = ""


class Approval(Struct, frozen=True, forbid_unknown_fields=True):
    """All arguments with which a call runs, in place of those that the model wrote."""

    arguments: dict[str, Any] | None = None


class OutputAnswer(Struct, frozen=True, forbid_unknown_fields=True, tag="output"):
    """The output of a call."""

    call_id: str
    output: Any
    is_error: bool = False


class ApproveAnswer(Struct, frozen=True, forbid_unknown_fields=True, tag="approve"):
    """A call may run; with other `arguments` than the model wrote, if they are given."""

    call_id: str
    arguments: dict[str, Any] | None = None


class DenyAnswer(Struct, frozen=True, forbid_unknown_fields=True, tag="deny"):
    """A call must not run."""

    call_id: str
    reason: str = ""


CallAnswer = OutputAnswer | ApproveAnswer | DenyAnswer


class Answers(Struct, frozen=True, forbid_unknown_fields=True):
    """Answers to several calls; each is taken on its own."""

    answers: tuple[CallAnswer, ...]


@CALLS.add(
    "GET",
    "/threads/{thread_id}/calls",
    scope="read",
    query=CallQuery,
    answers={200: WaitingCall},
    is_page=True,
)
async def list_calls(request: ApiRequest[CallQuery, None]) -> Page:
    """Lists the calls of a thread that wait for an answer."""
    thread = await request.runtime.connect(request.path["thread_id"])
    return await _page(request, thread.id)


@CALLS.add("GET", "/calls", scope="read", query=CallQuery, answers={200: WaitingCall}, is_page=True)
async def list_all_calls(request: ApiRequest[CallQuery, None]) -> Page:
    """Lists the calls of all threads that wait for an answer, the longest first."""
    return await _page(request, "")


async def _page(request: ApiRequest[CallQuery, None], thread_id: str) -> Page:
    query = request.query
    found = await request.runtime.calls(
        limit=query.limit,
        after=query.after,
        owner=query.owner,
        thread_id=thread_id,
        agent=query.agent,
        awaits=query.awaits,
    )
    return Page(list(found), found.next or None, found.position or UNSET)


@CALLS.add(
    "POST",
    "/threads/{thread_id}/calls",
    scope="",
    body=Answers,
    answers={200: Answered},
    is_page=True,
)
async def answer_calls(request: ApiRequest[Any, Answers]) -> Page:
    """Answers several calls; the errors are in the answer, one for each call."""
    thread = await request.runtime.connect(request.path["thread_id"])
    answered: list[Any] = []
    for answer in request.body.answers:
        try:
            await _take(request, thread, answer)
            answered.append(Answered(answer.call_id))
        except TreadleError as error:
            answered.append(Answered(answer.call_id, problem_of(error)))
    return Page(answered)


@CALLS.add(
    "POST",
    "/threads/{thread_id}/calls/{call_id}/output",
    scope="write",
    body=Output,
    answers={204: None},
)
async def submit_output(request: ApiRequest[Any, Output]) -> Answer:
    """Answers an external call; the same output again has no effect."""
    body, call_id = request.body, request.path["call_id"]
    return await _take_one(request, OutputAnswer(call_id, body.output, body.is_error))


@CALLS.add(
    "POST",
    "/threads/{thread_id}/calls/{call_id}/approve",
    scope="approve",
    body=Approval,
    answers={204: None},
)
async def approve_call(request: ApiRequest[Any, Approval]) -> Answer:
    """Lets a call run that needs approval, with other arguments if they are given."""
    return await _take_one(request, ApproveAnswer(request.path["call_id"], request.body.arguments))


@CALLS.add(
    "POST",
    "/threads/{thread_id}/calls/{call_id}/deny",
    scope="approve",
    body=Denial,
    answers={204: None},
)
async def deny_call(request: ApiRequest[Any, Denial]) -> Answer:
    """Denies a call that needs approval."""
    return await _take_one(request, DenyAnswer(request.path["call_id"], request.body.reason))


async def _take_one(request: ApiRequest[Any, Any], answer: CallAnswer) -> Answer:
    thread = await request.runtime.connect(request.path["thread_id"])
    await _take(request, thread, answer)
    return NO_CONTENT


async def _take(request: ApiRequest[Any, Any], thread: Thread, answer: CallAnswer) -> None:
    match answer:
        case OutputAnswer():
            request.require("write", "The output of a call")
            if not request.principal.may("approve"):
                _require_external(await thread.state(), answer.call_id)
            await thread.submit_tool_output(answer.call_id, answer.output, is_error=answer.is_error)
        case ApproveAnswer():
            request.require("approve", "To approve a call")
            await thread.approve(answer.call_id, arguments=answer.arguments)
        case DenyAnswer():
            request.require("approve", "To deny a call")
            await thread.deny(answer.call_id, answer.reason)


def _require_external(state: ThreadState, call_id: str) -> None:
    """Raises unless a call waits for an output, or has one.

    An output answers a call that needs approval as well, which would be a way around the scope. A
    call that is not known yet is refused here: it could come to need approval before the output is
    submitted.
    """
    step = state.step
    if step is not None and step.call(call_id) is not None:
        if step.awaits_of(call_id) == "approval":
            raise scope_missing("approve", "The output of a call that needs approval")
        return
    history = state.history
    for index in range(len(history) - 1, -1, -1):
        item = history[index]
        if isinstance(item, FunctionCallOutput) and item.call_id == call_id:
            return
    raise UnknownToolCall(f"No call {call_id[:100]!r} waits for an output.")
