"""Events of a run as a run of the Assistants API with its steps and messages, and as a stream."""

from typing import Any, cast

import msgspec

from treadle.domain.events import (
    DurableEvent,
    Event,
    HandedOff,
    MessageAdded,
    ProviderItemAdded,
    ResponseCompleted,
    RunCancelled,
    RunCancelling,
    RunCompleted,
    RunExpired,
    RunFailed,
    RunIncomplete,
    RunQueued,
    RunRequiresAction,
    RunStarted,
    StepInterrupted,
    TextDelta,
    ToolCallRequested,
    ToolOutputRecorded,
    ToUserDelta,
    UsageAdded,
)
from treadle.domain.items import HostedCall, Message
from treadle.domain.usage import Usage
from treadle.server.assistants.assistants_objects import (
    Json,
    hosted_call,
    incomplete_details,
    labels_of,
    last_error,
    message_object,
    run_object,
    seconds,
    step_object,
    text_content,
    usage_object,
)
from treadle.server.call_texts import said_id, said_text, shown_arguments
from treadle.server.openai.errors import ErrorBody, ErrorFields, error_fields
from treadle.server.problems import Problem
from treadle.server.run_parts import RunParts
from treadle.server.sse import Framed
from treadle.server.stream import EndReason
from treadle.server.stream_ends import end_text
from treadle.tools.output_type import OUTPUT_TOOL

DONE = b"event: done\ndata: [DONE]\n\n"

_encode = msgspec.json.Encoder().encode


def sse(kind: str, data: Json) -> bytes:
    """Returns an event of a stream."""
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), _encode(data))


class RunFold:
    """A run as far as its events tell; `run`, `steps` and `messages` are its objects.

    It is fed with all events of the run, from its first one on, and makes frames of them if it
    `is_streamed`. `is_over` tells that no further frame follows in a stream: the run has ended, or
    asks the client for outputs.
    """

    def __init__(
        self, run_id: str, thread_id: str, agent: str, *, is_streamed: bool = False
    ) -> None:
        self._is_streamed = is_streamed
        self.run = run_object(run_id, thread_id, agent)
        self.steps: list[Json] = []
        self.messages: list[Json] = []
        self.is_over = False
        self._frames: list[bytes] = []
        self._usage = Usage()
        self._open = ""  # the id of the message that grows
        self._sent: list[str] = []  # what of it was sent
        self._waiting: dict[str, list[str]] = {}  # what of others has arrived
        self._landed: list[Message] = []  # complete, behind it
        self._calls: dict[str, ToolCallRequested] = {}
        self._parts = RunParts({"output"})
        self._pending: list[str] = []
        self._agent = agent  # that writes
        self._at = 0.0

    # What a stream asks for

    def frame(self, envelope: Framed) -> bytes:
        """Returns the frames of an event."""
        self.feed(cast("Event", envelope.event))
        made = b"".join(self._frames)
        self._frames.clear()
        return made

    def end(self, reason: EndReason, problem: Problem | None = None) -> bytes:
        """Returns the frames of a stream that ends before the run does."""
        fields = ErrorFields(
            message=end_text(reason, "thread", "retrieve the run"),
            type="server_error",
            param=None,
            code=str(reason),
        )
        if problem is not None:
            fields = error_fields(problem)
        return b"event: error\ndata: %b\n\n%b" % (_encode(ErrorBody(fields)), DONE)

    def resume(self) -> None:
        """Begins a stream after what it was fed, which had ended because the client was asked."""
        self._is_streamed = True
        self.is_over = False

    # The fold

    def feed(self, event: Event) -> None:
        """Takes the next event of the run."""
        if not isinstance(event, DurableEvent):
            if isinstance(event, TextDelta | ToUserDelta):
                is_said = type(event) is ToUserDelta
                self._grow(said_id(event.item_id) if is_said else event.item_id, event.delta)
            return
        self._at = event.at
        self._take(event)
        if self._parts.feed(event) and self.run["status"] != "requires_action":
            self._ask()

    def _take(self, event: DurableEvent) -> None:
        match event:
            case RunQueued() | RunStarted():
                self._start(event)
            case MessageAdded(origin="model"):
                self._land(event.item)
            case ToolCallRequested():
                self._request(event)
            case ToolOutputRecorded():
                self._return(event)
            case ProviderItemAdded() if event.item.call is not None:
                self._add_hosted(event.item.call)
            case StepInterrupted():
                self._void("run_failed")
            case ResponseCompleted():
                self._usage += event.usage
            case UsageAdded() if not event.job_id:
                self._usage += event.usage
            case HandedOff():
                self._agent = event.agent
            case RunRequiresAction():
                self._pending = list(event.call_ids)
                self.run["expires_at"] = seconds(event.expires_at)
            case RunCancelling():
                self._change("cancelling")
            case RunCompleted() | RunIncomplete() | RunFailed() | RunCancelled() | RunExpired():
                self._end(event)
            case _:
                pass

    def _start(self, event: RunQueued | RunStarted) -> None:
        run = self.run
        self._agent = run["assistant_id"] = run["model"] = event.agent or run["assistant_id"]
        if not run["created_at"]:
            run["created_at"] = int(event.at)
            if event.options is not None:
                run["metadata"] = labels_of(event.options.metadata)
            self._emit("thread.run.created", run)
            self._emit("thread.run.queued", run)
        if isinstance(event, RunStarted):
            run["started_at"] = int(event.at)
            self._change("in_progress")

    def _change(self, status: str) -> None:
        self.run["status"] = status
        self._emit(f"thread.run.{status}", self.run)

    def _emit(self, kind: str, data: Json) -> None:
        if self._is_streamed:
            self._frames.append(sse(kind, data))

    # Messages, one after another

    def _grow(self, id: str, delta: str) -> None:
        if not self._open:
            self._begin(id)
        if id != self._open:
            self._waiting.setdefault(id, []).append(delta)
        elif delta:
            self._send(delta)

    def _begin(self, id: str) -> None:
        self._open, self._sent = id, []
        begun: Json = {
            **message_object(self.run["thread_id"], Message("assistant", (), id), self._at),
            "status": "in_progress",
            "content": [],
            "completed_at": None,
            "assistant_id": self._agent,
            "run_id": self.run["id"],
        }
        self.messages.append(begun)
        self._step(f"step_{id}", "message_creation", {"message_id": id})
        self._emit("thread.message.created", begun)
        self._emit("thread.message.in_progress", begun)
        if waiting := "".join(self._waiting.pop(id, ())):
            self._send(waiting)

    def _send(self, delta: str) -> None:
        self._sent.append(delta)
        content: Json = {"index": 0, "type": "text", "text": {"value": delta, "annotations": []}}
        self._emit(
            "thread.message.delta",
            {
                "id": self._open,
                "object": "thread.message.delta",
                "delta": {"content": [content]},
            },
        )

    def _land(self, message: Message) -> None:
        """Completes a message; behind another one that grows, it waits."""
        if self._open not in {"", message.id}:
            self._landed.append(message)
            return
        if not self._open:
            self._begin(message.id)
        if rest := message.text[sum(map(len, self._sent)) :]:
            self._send(rest)
        if message.refusal:
            part = {"index": 0, "type": "refusal", "refusal": message.refusal}
            self._emit(
                "thread.message.delta",
                {
                    "id": message.id,
                    "object": "thread.message.delta",
                    "delta": {"content": [part]},
                },
            )
        run = self.run
        whole = message_object(
            run["thread_id"], message, self._at, run_id=run["id"], agent=self._agent
        )
        whole["created_at"] = self.messages[-1]["created_at"] or whole["created_at"]
        self.messages[-1] = whole
        self._open = ""
        self._emit("thread.message.completed", whole)
        self._close(f"step_{message.id}", "completed")
        if self._landed:
            self._land(self._landed.pop(0))

    def _void(self, reason: str) -> None:
        """Ends the message that grows: the model has not completed it."""
        self._waiting.clear()
        if not self._open:
            return
        id, self._open = self._open, ""
        void = {
            **self.messages.pop(),
            "content": [text_content("".join(self._sent))],
            "status": "incomplete",
            "incomplete_at": int(self._at),
            "incomplete_details": {"reason": reason},
        }
        self._emit("thread.message.incomplete", void)
        status = {"run_cancelled": "cancelled", "run_expired": "expired"}.get(reason, "failed")
        self._close(f"step_{id}", status)
        if self._landed:
            self._land(self._landed.pop(0))

    # Steps

    def _step(self, id: str, kind: Any, details: Any) -> None:
        made = step_object(id, self.run, kind, details, agent=self._agent)
        made["created_at"] = int(self._at) or made["created_at"]
        self.steps.append(made)
        self._emit("thread.run.step.created", made)
        self._emit("thread.run.step.in_progress", made)

    def _close(self, id: str, status: str) -> None:
        for step in self.steps:
            if step["id"] == id and step["status"] == "in_progress":
                step["status"] = status
                step[f"{status}_at"] = int(self._at)
                self._emit(f"thread.run.step.{status}", step)

    def _request(self, event: ToolCallRequested) -> None:
        call = event.item
        self._calls[call.call_id] = event
        if call.name == OUTPUT_TOOL:
            return  # a message, if it is valid
        if said := said_text(event):
            self._land(Message("assistant", said, said_id(call.id)))
        arguments = shown_arguments(event)
        function = {"name": call.name, "arguments": arguments, "output": None}
        shown = {"id": call.call_id, "type": "function", "function": function}
        id = f"step_{call.call_id}"
        self._step(id, "tool_calls", [])
        self.steps[-1]["step_details"]["tool_calls"] = [shown]
        self._emit_call(id, shown)

    def _add_hosted(self, call: HostedCall) -> None:
        """Shows a call of a hosted tool; of a call and its result, which may be two items, once."""
        shown = hosted_call(call)
        if shown is None or call.status == "in_progress":
            return
        id = f"step_{call.call_id}"
        self._step(id, "tool_calls", [])
        self.steps[-1]["step_details"]["tool_calls"] = [shown]
        self._emit_call(id, shown)
        self._close(id, call.status)

    def _emit_call(self, id: str, shown: Json) -> None:
        details = {"type": "tool_calls", "tool_calls": [{"index": 0, **shown}]}
        self._emit(
            "thread.run.step.delta",
            {
                "id": id,
                "object": "thread.run.step.delta",
                "delta": {"step_details": details},
            },
        )

    def _return(self, event: ToolOutputRecorded) -> None:
        output = event.item
        call = self._calls.get(output.call_id)
        if call is not None and call.item.name == OUTPUT_TOOL:
            if not output.is_error:
                self._land(Message("assistant", call.item.arguments, call.item.id))
            return
        id = f"step_{output.call_id}"
        for step in self.steps:
            if step["id"] == id:
                step["step_details"]["tool_calls"][0]["function"]["output"] = output.text
        self._close(id, "completed")
        if output.call_id in self._pending:
            self._pending.remove(output.call_id)
            if self.run["status"] == "requires_action":
                self._require()
                if not self._pending:
                    self._change("in_progress")

    def _ask(self) -> None:
        """Asks the client, and ends the stream."""
        self._require()
        self._change("requires_action")
        self._finish()

    def _require(self) -> None:
        """Shows the calls that the client has to answer, if there are any."""
        calls = [self._calls[id] for id in self._pending if id in self._calls]
        asked = [
            {
                "id": call.item.call_id,
                "type": "function",
                "function": {"name": call.item.name, "arguments": shown_arguments(call)},
            }
            for call in calls
        ]
        required: Json = {
            "type": "submit_tool_outputs",
            "submit_tool_outputs": {"tool_calls": asked},
        }
        self.run["required_action"] = required if asked else None

    # Ends

    def _end(
        self, event: RunCompleted | RunIncomplete | RunFailed | RunCancelled | RunExpired
    ) -> None:
        run, at = self.run, int(event.at)
        run["required_action"] = run["expires_at"] = None
        run["usage"] = usage_object(self._usage)
        match event:
            case RunCompleted():
                if event.output is not None:  # a validator of the program changed it
                    self._land(Message("assistant", event.output.text, f"msg_{run['id']}"))
                status, void = "completed", "run_failed"
            case RunIncomplete():
                run["incomplete_details"] = incomplete_details(event.stop_reason)
                status, void = "incomplete", "max_tokens"
            case RunFailed():
                run["last_error"] = last_error(event.code, event.message)
                status, void = "failed", "run_failed"
            case RunCancelled():
                status, void = "cancelled", "run_cancelled"
            case RunExpired():
                status, void = "expired", "run_expired"
        self._void(void)
        for step in self.steps:
            ended = {"cancelled": "cancelled", "expired": "expired"}.get(status, "failed")
            self._close(step["id"], ended)
        if f"{status}_at" in run:
            run[f"{status}_at"] = at
        self._change(status)
        self._finish()

    def _finish(self) -> None:
        self.is_over = True
        if self._is_streamed:
            self._frames.append(DONE)
