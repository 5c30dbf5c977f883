"""Events: what happened on a thread.

*Durable* events carry a `seq`, unique and without gaps within their thread, and are recorded
before anyone sees them; the state of a thread is their fold (`weft.state`). *Live* events are the
deltas in between; they stream past and are not recorded one by one.
"""

from typing import Literal

from msgspec import Struct

from weft.items import FunctionCall, FunctionCallOutput, Message, ProviderItem, Reasoning
from weft.usage import Usage

StopReason = Literal[
    "end_turn",
    "terminal_tool",
    "finish_requested",
    "max_steps",
    "max_tokens",
    "max_cost",
    "max_seconds",
    "max_output_tokens",
    "content_filter",
    "cancelled",
    "failed",
]
"""Why a run ended.

`max_tokens`, `max_cost` and `max_seconds` are limits of the run; `max_output_tokens` and
`content_filter` are the provider's reasons for a response that it did not write to its end.
"""

FinishReason = Literal["stop", "length", "content_filter", "pause"]
"""Why the provider ended a response.

After `pause` it is asked again, with the response so far at the end of the history, and goes on.
"""

Origin = Literal["user", "model", "runtime"]
"""Who added a message: the caller, the model, or weft itself (a correction of invalid output)."""


class DurableEvent(Struct, frozen=True, kw_only=True):
    """What every recorded event has: its number, its time (Unix seconds) and its run."""

    seq: int = 0
    at: float = 0.0
    run_id: str


class MessageAdded(DurableEvent, frozen=True, tag="message.added"):
    """A message entered the history; `index` is its place in the response that wrote it."""

    item: Message
    origin: Origin
    index: int = 0


class RunStarted(DurableEvent, frozen=True, gc=False, tag="run.started"):
    """A run began to work."""

    agent: str


class StepStarted(DurableEvent, frozen=True, gc=False, tag="step.started"):
    """A request is about to be sent to the model; steps count from 1 in each run."""

    step: int
    model: str


class ReasoningAdded(DurableEvent, frozen=True, tag="reasoning.added"):
    """The model finished a reasoning item."""

    item: Reasoning
    index: int = 0


class ProviderItemAdded(DurableEvent, frozen=True, tag="provider_item.added"):
    """The model finished an item that only its provider understands."""

    item: ProviderItem
    index: int = 0


class ToolCallRequested(DurableEvent, frozen=True, tag="tool.requested"):
    """The model finished a tool call; its arguments are complete."""

    item: FunctionCall
    index: int = 0


class ToolStarted(DurableEvent, frozen=True, gc=False, tag="tool.started"):
    """A tool is about to be called; `attempt` counts from 1."""

    call_id: str
    name: str
    attempt: int


class ToolOutputRecorded(DurableEvent, frozen=True, tag="tool.output"):
    """A tool call has its output. `seconds` is the time the tool took."""

    item: FunctionCallOutput
    name: str
    seconds: float = 0.0


class ResponseCompleted(DurableEvent, frozen=True, tag="response.completed"):
    """The response of the model is complete; its calls may still be running."""

    response_id: str
    finish_reason: FinishReason
    usage: Usage


class StepCompleted(DurableEvent, frozen=True, gc=False, tag="step.completed"):
    """The response is complete and every call of it is answered."""

    step: int


class StepInterrupted(DurableEvent, frozen=True, gc=False, tag="step.interrupted"):
    """The response broke off: discard its unfinished text; finished items stand."""

    step: int
    reason: str


class RateLimitHit(DurableEvent, frozen=True, gc=False, tag="rate_limited"):
    """The provider asked to wait; the request is repeated after `delay` seconds."""

    delay: float
    retries_remaining: int
    message: str


class Retrying(DurableEvent, frozen=True, gc=False, tag="retrying"):
    """A request failed and is repeated after `delay` seconds; `code` tells the failure."""

    code: str
    delay: float
    retries_remaining: int
    message: str


class RunCompleted(DurableEvent, frozen=True, tag="run.completed"):
    """The run reached its end."""

    stop_reason: StopReason
    usage: Usage


class RunIncomplete(DurableEvent, frozen=True, tag="run.incomplete"):
    """The run was stopped by a limit; `stop_reason` names it."""

    stop_reason: StopReason
    usage: Usage


class RunFailed(DurableEvent, frozen=True, tag="run.failed"):
    """The run failed; `code` and `retryable` are those of the error."""

    code: str
    message: str
    retryable: bool
    usage: Usage


class RunCancelled(DurableEvent, frozen=True, tag="run.cancelled"):
    """The run was cancelled."""

    usage: Usage


class TextDelta(Struct, frozen=True, gc=False, tag="text.delta"):
    """Growth of the text of the message `item_id`."""

    item_id: str
    delta: str


class ReasoningDelta(Struct, frozen=True, gc=False, tag="reasoning.delta"):
    """Growth of the reasoning (or its summary) of the item `item_id`."""

    item_id: str
    delta: str


class RefusalDelta(Struct, frozen=True, gc=False, tag="refusal.delta"):
    """Growth of the refusal of the message `item_id`."""

    item_id: str
    delta: str


class ToolCallStarted(Struct, frozen=True, gc=False, tag="tool.call_started"):
    """The model began to write a tool call."""

    item_id: str
    call_id: str
    name: str


class ToolArgumentsDelta(Struct, frozen=True, gc=False, tag="tool.arguments.delta"):
    """Growth of the raw JSON arguments of the call `call_id`."""

    item_id: str
    call_id: str
    delta: str


class ToolProgress(Struct, frozen=True, gc=False, tag="tool.progress"):
    """A running tool reported progress."""

    call_id: str
    name: str
    message: str


Delta = TextDelta | ReasoningDelta | RefusalDelta | ToolArgumentsDelta
LiveEvent = Delta | ToolCallStarted | ToolProgress
TerminalEvent = RunCompleted | RunIncomplete | RunFailed | RunCancelled
RecordedEvent = (
    MessageAdded
    | RunStarted
    | StepStarted
    | ReasoningAdded
    | ProviderItemAdded
    | ToolCallRequested
    | ToolStarted
    | ToolOutputRecorded
    | ResponseCompleted
    | StepCompleted
    | StepInterrupted
    | RateLimitHit
    | Retrying
    | RunCompleted
    | RunIncomplete
    | RunFailed
    | RunCancelled
)
Event = RecordedEvent | LiveEvent
