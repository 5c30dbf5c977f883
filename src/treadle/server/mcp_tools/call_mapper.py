"""Events of a run as the messages of a call: progress, questions, and the result."""

from collections.abc import Mapping
from typing import Any, cast

from treadle.domain.events import (
    AgentEvent,
    Event,
    RunCancelled,
    RunCompleted,
    RunExpired,
    RunFailed,
    RunIncomplete,
    RunRequiresAction,
    ToolCallRequested,
    ToolProgress,
)
from treadle.loop.definition import AgentDefinition
from treadle.server.call_texts import said_text, shown_arguments
from treadle.server.mcp_tools.rpc_message import (
    INTERNAL_ERROR,
    RpcId,
    error_of,
    frame_of,
    result_of,
)
from treadle.server.problems import Problem
from treadle.server.run_answer import RunAnswer
from treadle.server.sse import Framed
from treadle.server.stream import EndReason
from treadle.tools.output_type import OUTPUT_TOOL

_APPROVE = {
    "type": "object",
    "properties": {
        "approve": {
            "type": "boolean",
            "title": "Approve",
            "description": "Whether the call may run.",
        }
    },
    "required": ["approve"],
}


class CallMapper:
    """Makes the messages of the call `id` of an agent, which works on the thread `thread_id`.

    `progress` is the token of its client for progress, None without. `asks` says whether the client
    can ask a person for an approval.
    """

    def __init__(
        self,
        id: RpcId,
        agent: AgentDefinition[Any, Any],
        thread_id: str,
        *,
        progress: RpcId | None,
        asks: bool,
    ) -> None:
        self.is_over = False
        self._id = id
        self._thread_id = thread_id
        self._progress = progress
        self._asks = asks
        self._steps = 0
        self._answer = RunAnswer(agent)
        self._calls: dict[str, ToolCallRequested] = {}

    def frame(self, envelope: Framed) -> bytes:
        """Returns the messages of an event."""
        return self._feed(cast("Event", envelope.event), self._thread_id)

    def end(self, reason: EndReason, problem: Problem | None = None) -> bytes:
        """Returns the answer to a call whose stream ends before its run."""
        message = f"The stream ended: {reason}." if problem is None else problem.detail
        return frame_of(error_of(self._id, INTERNAL_ERROR, message))

    def _feed(self, event: Event, thread_id: str) -> bytes:
        if isinstance(event, AgentEvent):
            return self._feed(event.event, event.thread_id)
        if thread_id == self._thread_id:
            self._answer.feed(event)
        match event:
            case ToolCallRequested():
                self._calls[event.item.call_id] = event
                if event.item.name == OUTPUT_TOOL:
                    return b""
                return self._show(said_text(event) or f"Calls {event.item.name}.")
            case ToolProgress():
                return self._show(f"{event.name}: {event.message}")
            case RunRequiresAction():
                return self._ask(event, thread_id)
            case RunCompleted() | RunIncomplete() | RunFailed() | RunCancelled() | RunExpired():
                return self._end(event) if thread_id == self._thread_id else b""
            case _:
                return b""

    def _show(self, text: str) -> bytes:
        if self._progress is None:
            return b""
        self._steps += 1
        params = {"progressToken": self._progress, "progress": self._steps, "message": text}
        return frame_of({"jsonrpc": "2.0", "method": "notifications/progress", "params": params})

    def _ask(self, event: RunRequiresAction, thread_id: str) -> bytes:
        """Asks for the approvals that a run waits for; without a way to, the call fails."""
        calls = [self._calls[id] for id in event.call_ids if id in self._calls]
        names = ", ".join(call.item.name for call in calls)
        if any(call.awaits == "output" for call in calls):
            return self._fail(f"The agent waits for the output of {names}, which MCP cannot give.")
        if not self._asks:
            return self._fail(
                f"The agent waits for an approval to call {names}, which this client cannot give; "
                f"approve it on the thread {thread_id}."
            )
        return b"".join(self._question(call, thread_id) for call in calls)

    def _question(self, call: ToolCallRequested, thread_id: str) -> bytes:
        said = said_text(call)
        text = f"Call {call.item.name} with {shown_arguments(call)}?"
        return frame_of(
            {
                "jsonrpc": "2.0",
                "id": f"{thread_id}/{call.item.call_id}",
                "method": "elicitation/create",
                "params": {
                    "message": f"{said}\n{text}" if said else text,
                    "requestedSchema": _APPROVE,
                },
            }
        )

    def _end(
        self, event: RunCompleted | RunIncomplete | RunFailed | RunCancelled | RunExpired
    ) -> bytes:
        match event:
            case RunCompleted():
                output, text = self._answer.output, self._answer.text
                answer = text if output is None else output
                return self._finish(text, answer=answer)
            case RunIncomplete():
                return self._fail(f"The agent was stopped by the limit {event.stop_reason}.")
            case RunFailed():
                return self._fail(f"The agent failed: {event.message}")
            case RunCancelled():
                return self._fail("The call was cancelled.")
            case RunExpired():
                return self._fail("The agent waited too long for an approval.")

    def _fail(self, text: str) -> bytes:
        return self._finish(text, is_error=True)

    def _finish(self, text: str, *, answer: object = None, is_error: bool = False) -> bytes:
        self.is_over = True
        result: dict[str, object] = {"content": [{"type": "text", "text": text}]}
        if is_error:
            result["isError"] = True
        else:
            result["structuredContent"] = {"answer": answer, "conversation": self._thread_id}
        return frame_of(result_of(self._id, result))


def decision_in(result: Mapping[str, object]) -> tuple[bool, str]:
    """Returns whether a person approved a call, and why not."""
    content = result.get("content")
    if result.get("action") == "accept" and isinstance(content, dict):
        approve = cast("dict[str, object]", content).get("approve")
        return approve is True, "" if approve is True else "The user declined."
    is_declined = result.get("action") == "decline"
    return False, "The user declined." if is_declined else "The user did not answer."
