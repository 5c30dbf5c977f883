"""Calls that wait for an approval, as interrupts: https://docs.ag-ui.com/concepts/interrupts."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import NamedTuple

from treadle.domain.arguments import is_mapping
from treadle.domain.events import ToolCallRequested
from treadle.errors import InvalidInput
from treadle.server.ag_ui.run_frames import Json
from treadle.server.ag_ui.run_input import ResumeEntry

_ABANDONED = "The user did not answer."


class Decision(NamedTuple):
    """What a client decided on a call: `thread_id` is that of the agent that works for the run."""

    thread_id: str
    call_id: str
    approved: bool
    reason: str
    arguments: Mapping[str, object] | None


def interrupt_of(call: ToolCallRequested, expires_at: float | None, subagent: str | None) -> Json:
    """Returns a call that waits for an approval; of another agent, its id names the thread."""
    item = call.item
    arguments = call.parameters or {"type": "object"}
    properties: Json = {
        "approved": {"type": "boolean"},
        "editedArgs": arguments,
        "reason": {"type": "string"},
    }
    interrupt: Json = {
        "id": item.call_id if subagent is None else f"{subagent}/{item.call_id}",
        "reason": "tool_call",
        "toolCallId": item.call_id,
        "message": call.said or f"The agent asks for an approval to call {item.name}.",
        "responseSchema": {
            "type": "object",
            "properties": properties,
            "required": ["approved"],
        },
    }
    if subagent is not None:
        interrupt["subagentRunId"] = subagent
    if expires_at is not None:
        moment = datetime.fromtimestamp(expires_at, UTC)
        interrupt["expiresAt"] = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return interrupt


def decisions_of(entries: Iterable[ResumeEntry]) -> dict[str, Decision]:
    """Returns the decisions of a request by the ids of their interrupts; raises `InvalidInput`."""
    return {entry.interrupt_id: _decision(entry) for entry in entries}


def _decision(entry: ResumeEntry) -> Decision:
    thread_id, slash, call_id = entry.interrupt_id.partition("/")
    if not (slash and thread_id.startswith("thread_")):
        thread_id, call_id = "", entry.interrupt_id
    if entry.status == "cancelled":
        return Decision(thread_id, call_id, False, _ABANDONED, None)
    payload = entry.payload
    if isinstance(payload, bool):
        return Decision(thread_id, call_id, payload, "", None)
    if is_mapping(payload):
        approved, reason = payload.get("approved"), payload.get("reason") or ""
        arguments = payload.get("editedArgs")
        if (
            isinstance(approved, bool)
            and isinstance(reason, str)
            and (arguments is None or is_mapping(arguments))
        ):
            return Decision(thread_id, call_id, approved, reason, arguments)
    raise InvalidInput(
        f"The payload for the interrupt {entry.interrupt_id[:100]!r} is not valid; send "
        '{"approved": true} or {"approved": false, "reason": "…"}, with editedArgs as an object if '
        "the arguments change."
    )
