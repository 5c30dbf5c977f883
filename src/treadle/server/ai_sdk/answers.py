"""What a client answers to calls: in the parts of the messages of the assistant that it repeats."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from treadle.domain.arguments import is_mapping
from treadle.runtime.thread import PendingCall, Thread
from treadle.server.ai_sdk.chat_request import UiMessage
from treadle.server.api_request import ApiRequest
from treadle.server.problems import RequestRefused


class Answer(NamedTuple):
    """An output of a call, or an approval of it with its reason; `value` is None for the latter."""

    kind: str
    value: object = None
    reason: str = ""


def calls_in(messages: Iterable[UiMessage]) -> dict[str, Mapping[str, Any]]:
    """Returns the calls that the client has, by their ids."""
    calls: dict[str, Mapping[str, Any]] = {}
    for message in messages:
        if message.role == "assistant":
            for part in message.parts:
                kind, id = part.get("type"), part.get("toolCallId")
                is_call = kind == "dynamic-tool" or str(kind).startswith("tool-")
                if is_call and isinstance(id, str):
                    calls[id] = part
    return calls


async def submit_answers(
    request: ApiRequest[Any, Any], thread: Thread, calls: Mapping[str, Mapping[str, Any]]
) -> bool:
    """Answers the calls that wait, as far as the client did; returns whether there was one.

    Parts of other calls are what the client repeats of the thread, and are ignored. All are checked
    before the first is recorded.
    """
    answers: dict[str, Answer] = {}
    for pending in await thread.pending_calls():
        id = pending.call.call_id
        if id in calls and (answer := _answer(pending, calls[id])) is not None:
            answers[id] = answer
    if any(answer.kind in {"approve", "deny"} for answer in answers.values()):
        request.require("approve", "To approve a call")
    for id, answer in answers.items():
        match answer.kind:
            case "approve":
                await thread.approve(id)
            case "deny":
                await thread.deny(id, answer.reason)
            case _:
                await thread.submit_tool_output(id, answer.value, is_error=answer.kind == "error")
    return bool(answers)


def _answer(pending: PendingCall, part: Mapping[str, Any]) -> Answer | None:
    """Returns what a part says of a call that waits; None if it does not answer it."""
    id, state = pending.call.call_id, part.get("state")
    if pending.awaits == "approval":
        approval = part.get("approval")
        if state in {"output-available", "output-error"}:
            raise RequestRefused(
                400,
                "approval_missing",
                f"The call {id[:100]!r} waits for an approval, and takes no output.",
            )
        if state not in {"approval-responded", "output-denied"} or not is_mapping(approval):
            return None
        approved, reason = approval.get("approved"), approval.get("reason") or ""
        if not isinstance(approved, bool) or not isinstance(reason, str):
            raise RequestRefused(
                400,
                "invalid_request",
                f"The approval of the call {id[:100]!r} needs approved, true or false; its reason "
                "is a text.",
            )
        return Answer("approve") if approved else Answer("deny", reason=reason)
    if state == "output-available":
        return Answer("output", part.get("output"))
    if state == "output-error":
        return Answer("error", str(part.get("errorText") or "The tool failed."))
    return None
