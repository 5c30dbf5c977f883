"""Events of a run as chunks of a completion, and as the completion they add up to."""

from collections.abc import Callable, Collection
from typing import Any, NamedTuple, cast

from treadle.domain.events import (
    DurableEvent,
    Event,
    HandedOff,
    MessageAdded,
    RefusalDelta,
    ResponseCompleted,
    RunCancelled,
    RunCompleted,
    RunExpired,
    RunFailed,
    RunIncomplete,
    RunRequiresAction,
    StepInterrupted,
    StepStarted,
    TextDelta,
    ToolApproved,
    ToolCallRequested,
    ToolOutputRecorded,
    ToUserDelta,
    UsageAdded,
)
from treadle.domain.items import Message, OutputText
from treadle.domain.usage import Usage
from treadle.errors import RateLimited
from treadle.loop.definition import AgentDefinition, ends_run
from treadle.server.call_texts import said_text, shown_arguments
from treadle.server.chat_completions.completion_chunks import (
    CompletionChunks,
    Json,
    call_object,
    completion_object,
    url_annotations,
)
from treadle.server.chat_completions.completion_text import CompletionText
from treadle.server.openai.errors import ErrorFields, error_fields
from treadle.server.problems import Problem
from treadle.server.run_parts import RunParts
from treadle.server.sse import Framed
from treadle.server.stream import EndReason
from treadle.server.stream_ends import end_text
from treadle.tools.output_type import OUTPUT_TOOL

Agent = AgentDefinition[Any, Any]

_BROKE_OFF = (
    "The answer of the model broke off, and what was sent of it is void: its last paragraph. The "
    "thread has the answer that follows, if it is stored."
)


class Failure(NamedTuple):
    """Why there is no completion: the status of a response without a stream, and the error."""

    status: int
    fields: ErrorFields


class CompletionMapper:
    """Makes a completion of the events of a run, from its first one on.

    - `agent_of` returns an agent by its name; `agent` is the one with which the run begins.
    - `is_structured`: whether the answer has a form; then nothing but the answer is shown.
    - `shows_to_user`: whether the texts for the user in calls are shown.
    - `is_streamed`: whether chunks are sent. What was sent cannot be taken back.
    - `approvals`: the ids of calls before the first event that wait for an approval.

    `is_over` tells that the completion is complete: the run has ended, or asks the client for
    outputs.
    """

    def __init__(
        self,
        id: str,
        agent: Agent,
        created: int,
        agent_of: Callable[[str], Agent],
        *,
        is_structured: bool,
        shows_to_user: bool,
        is_streamed: bool,
        has_usage: bool = False,
        approvals: Collection[str] = (),
    ) -> None:
        self.is_over = False
        self.failure: Failure | None = None
        self._identity = (id, agent.name, created)
        self._chunks = CompletionChunks(*self._identity, has_usage=has_usage)
        self._agent_name, self._agent_of = agent.name, agent_of
        self._is_structured = is_structured
        self._shows_to_user = shows_to_user and not is_structured
        self._is_streamed = is_streamed
        self._text = CompletionText()
        self._refusals: dict[str, str] = {}
        self._cited: list[Message] = []  # those of the model, with their sources
        self._landed: set[str] = set()  # the ids of messages that are complete
        self._client_calls: dict[str, Json] = {}
        self._parts = RunParts({"output"})
        self._pending: list[str] = []  # the ids of the calls that the run waits for
        self._approvals = set(approvals)
        self._shown_calls: list[Json] = []
        self._said = ""  # in the step, of an answer with a form
        self._step_calls: dict[str, ToolCallRequested] = {}
        self._outputs: dict[str, str] = {}  # in the step, of calls that did not fail
        self._is_taken_back = False
        self._usage = Usage()
        self._finish = ""

    @property
    def is_waiting(self) -> bool:
        """Whether the run waits for an approval."""
        return bool(self._approvals)

    # What a stream asks for

    def opening(self) -> bytes:
        """Returns the chunk before all others."""
        return self._chunks.delta(role="assistant", content="", refusal=None)

    def frame(self, envelope: Framed) -> bytes:
        """Returns the chunks of an event."""
        event = cast("Event", envelope.event)
        if type(event) is TextDelta:
            if self._is_structured:
                return b""
            return self._chunks.text(self._text.grow(event.item_id, event.delta))
        return self._take(event)

    def end(self, reason: EndReason, problem: Problem | None = None) -> bytes:
        """Returns the frames of a stream that ends before the completion does."""
        if problem is not None:
            return self._fail(Failure(problem.status, error_fields(problem)))
        status = {"draining": 503, "limited": 429, "thread_deleted": 404, "not_authenticated": 401}
        text = end_text(reason, "thread", "send the request again")
        return self._fail(_failure(status.get(reason, 500), reason, text))

    # What a response without a stream asks for

    @property
    def completion(self) -> Json:
        """The completion as a whole."""
        text, refusal = self._text.text, "".join(self._refusals.values())
        message: Json = {
            "role": "assistant",
            "content": text or (None if self._shown_calls or refusal else ""),
            "refusal": refusal or None,
            "annotations": self._annotations(),
        }
        if self._shown_calls:
            message["tool_calls"] = self._shown_calls
        return completion_object(*self._identity, message, self._finish, self._usage)

    def _take(self, event: Event) -> bytes:
        shown = self._show(event)
        if isinstance(event, DurableEvent) and self._parts.feed(event) and not self.is_waiting:
            shown += self._ask()
        return shown

    def _show(self, event: Event) -> bytes:
        match event:
            case ToUserDelta() if self._shows_to_user:
                return self._chunks.text(self._text.grow(event.item_id, event.delta))
            case RefusalDelta():
                return self._refuse(event.item_id, event.delta)
            case MessageAdded(origin="model"):
                return self._land(event)
            case ToolCallRequested():
                return self._note_call(event)
            case StepStarted():
                return self._start_step()
            case RunCompleted() | RunIncomplete():
                return self._complete(event)
            case RunFailed() | RunCancelled() | RunExpired():
                return self._fail(_ended(event))
            case _:
                self._note(event)
                return b""

    def _note(self, event: Event) -> None:
        match event:
            case RunRequiresAction():
                self._pending = list(event.call_ids)
                self._approvals = {id for id in self._pending if id not in self._client_calls}
            case ToolApproved():
                self._approvals.discard(event.call_id)
            case ToolOutputRecorded():
                self._return(event)
            case StepInterrupted():
                self._take_back()
            case ResponseCompleted():
                self._usage += event.usage
            case UsageAdded() if not event.job_id:
                self._usage += event.usage
            case HandedOff():
                self._agent_name = event.agent
            case _:
                pass

    def _take_back(self) -> None:
        """Drops what the model has not completed."""
        void = self._refusals.keys() - self._landed
        self._refusals = {id: text for id, text in self._refusals.items() if id not in void}
        self._is_taken_back = self._text.take_back() or bool(void)

    def _refuse(self, id: str, growth: str) -> bytes:
        self._refusals[id] = self._refusals.get(id, "") + growth
        return self._chunks.delta(refusal=growth)

    def _land(self, event: MessageAdded) -> bytes:
        message, refused = event.item, b""
        if any(isinstance(part, OutputText) and part.annotations for part in message.content):
            self._cited.append(message)
        self._landed.add(message.id)
        if rest := message.refusal[len(self._refusals.get(message.id, "")) :]:
            refused = self._refuse(message.id, rest)
        if self._is_structured:
            self._said += message.text
            return refused
        return self._chunks.text(self._text.finish(message.id, message.text)) + refused

    def _note_call(self, event: ToolCallRequested) -> bytes:
        call = event.item
        self._step_calls[call.call_id] = event
        if event.awaits == "output":
            self._client_calls[call.call_id] = call_object(
                call.call_id, call.name, shown_arguments(event)
            )
        if call.name == OUTPUT_TOOL:
            return b""  # it is the answer only if it is valid
        if self._shows_to_user:
            return self._chunks.text(self._text.finish(call.id, said_text(event)))
        return b""

    def _start_step(self) -> bytes:
        self._said = ""
        self._step_calls.clear()
        self._outputs.clear()
        if self._is_taken_back and self._is_streamed:
            return self._fail(_failure(500, "response_interrupted", _BROKE_OFF))
        self._is_taken_back = False
        return b""

    # Ends

    def _return(self, event: ToolOutputRecorded) -> None:
        output = event.item
        if not output.is_error:
            self._outputs[output.call_id] = output.text
        self._approvals.discard(output.call_id)  # it was denied
        if output.call_id in self._pending:
            self._pending.remove(output.call_id)

    def _ask(self) -> bytes:
        """Asks the client."""
        self._shown_calls = [self._client_calls[id] for id in self._pending]
        asked = [{"index": index, **call} for index, call in enumerate(self._shown_calls)]
        return self._chunks.delta(tool_calls=asked) + self._close("tool_calls")

    def _complete(self, event: RunCompleted | RunIncomplete) -> bytes:
        shown = self._chunks.text(self._text.finish("answer", self._answer(event)))
        if isinstance(event, RunCompleted):
            return shown + self._close("stop")
        is_filtered = event.stop_reason == "content_filter"
        return shown + self._close("content_filter" if is_filtered else "length")

    def _answer(self, event: RunCompleted | RunIncomplete) -> str:
        """Returns what of the answer is not shown yet."""
        if isinstance(event, RunCompleted):
            if event.output is not None:  # a validator of the program changed it
                return event.output.text
            for id, call in self._step_calls.items():
                if id not in self._outputs:
                    continue
                if call.item.name == OUTPUT_TOOL:
                    return call.item.arguments
                if event.stop_reason == "terminal_tool" and self._ends_run(call.item.name):
                    return self._outputs[id]
        return self._said

    def _ends_run(self, tool: str) -> bool:
        return ends_run(self._agent_of(self._agent_name), tool)

    def _close(self, reason: str) -> bytes:
        self.is_over = True
        self._finish = reason
        found = self._annotations()
        cited = self._chunks.delta(annotations=found) if found else b""
        return cited + self._chunks.finish(reason, self._usage)

    def _annotations(self) -> list[Json]:
        """Returns the pages that the answer cites, with their places in all of its text."""
        found: list[Json] = []
        for message in self._cited:
            start = self._text.start_of(message.id)
            if start is not None:
                found += url_annotations(message, start)
        return found

    def _fail(self, failure: Failure) -> bytes:
        self.is_over = True
        self.failure = failure
        return self._chunks.error(failure.fields)


def _ended(event: RunFailed | RunCancelled | RunExpired) -> Failure:
    match event:
        case RunFailed():
            return _failure(
                429 if event.code == RateLimited.code else 500, event.code, event.message
            )
        case RunCancelled():
            return _failure(409, "run_cancelled", "The run was cancelled.")
        case RunExpired():
            message = "The run has expired: an approval or an output did not come in time."
            return _failure(409, "run_expired", message)


def _failure(status: int, code: str, message: str) -> Failure:
    kind = "rate_limit_error" if status == 429 else "server_error"
    if status in {401, 404, 409}:
        kind = "invalid_request_error"
    return Failure(status, ErrorFields(message=message, type=kind, param=None, code=code))
