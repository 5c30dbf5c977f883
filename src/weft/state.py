"""The state of a thread: a fold of its durable events.

`apply(state, event)` is the only way a state comes about. A run goes

    in_progress ──► completed | incomplete | failed | cancelled

and, while it is in progress, through steps: a step opens with `step.started`, collects the items
of one response and the outputs of its calls, and closes with `step.completed` or
`step.interrupted`. Only a closed step enters the history, so nothing can ever stand between a call
and its output.
"""

from typing import Literal, assert_never

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from weft.errors import InvalidTransition
from weft.events import (
    FinishReason,
    MessageAdded,
    ProviderItemAdded,
    RateLimitHit,
    ReasoningAdded,
    RecordedEvent,
    ResponseCompleted,
    Retrying,
    RunCancelled,
    RunCompleted,
    RunFailed,
    RunIncomplete,
    RunStarted,
    StepCompleted,
    StepInterrupted,
    StepStarted,
    StopReason,
    TerminalEvent,
    ToolCallRequested,
    ToolOutputRecorded,
    ToolStarted,
)
from weft.history import History
from weft.items import FunctionCall, FunctionCallOutput, Item, Reasoning
from weft.usage import Usage

RunStatus = Literal["in_progress", "completed", "incomplete", "failed", "cancelled"]


class Step(Struct, frozen=True):
    """One response of the model and the calls it asked for.

    `items` pairs each item with its place in the response, because items may finish out of order.
    `finish_reason` is None until the response is complete.
    """

    number: int
    items: tuple[tuple[int, Item], ...] = ()
    outputs: tuple[FunctionCallOutput, ...] = ()
    started: tuple[str, ...] = ()
    finish_reason: FinishReason | None = None

    @property
    def calls(self) -> tuple[FunctionCall, ...]:
        """The finished calls, in the order of the response."""
        return tuple(item for item in self.ordered if isinstance(item, FunctionCall))

    @property
    def pending(self) -> tuple[FunctionCall, ...]:
        """The calls without an output."""
        return tuple(call for call in self.calls if not self.is_answered(call.call_id))

    def has_call(self, call_id: str) -> bool:
        """Whether the response has a finished call of that id."""
        return any(
            isinstance(item, FunctionCall) and item.call_id == call_id for _, item in self.items
        )

    def is_answered(self, call_id: str) -> bool:
        """Whether the call of that id has its output."""
        return any(output.call_id == call_id for output in self.outputs)

    @property
    def ordered(self) -> list[Item]:
        """The items of the response in its own order."""
        return [item for _, item in sorted(self.items, key=_place)]

    def settled(self) -> list[Item]:
        """The items of the response, then the outputs of its calls in call order.

        Reasoning at the end of a response that broke off led to nothing and is left out, because
        a provider refuses reasoning that is not followed by what it led to.
        """
        items = self.ordered
        while items and isinstance(items[-1], Reasoning):
            items.pop()
        outputs = {output.call_id: output for output in self.outputs}
        return [*items, *(outputs[call.call_id] for call in self.calls)]


class Run(Struct, frozen=True):
    """One activation of an agent on a thread.

    `last_step` is the step closed last, or None once a message was added after it.
    `corrections` counts the messages weft itself added. `first_item` is the length of the history
    when the run started.
    """

    id: str
    agent: str
    status: RunStatus = "in_progress"
    stop_reason: StopReason | None = None
    steps: int = 0
    usage: Usage = Usage()
    last_step: Step | None = None
    corrections: int = 0
    first_item: int = 0


class ThreadState(Struct, frozen=True):
    """All that is known of a thread: what was said, the run, and the step that is open."""

    seq: int = 0
    history: History = msgspec.field(default_factory=History)
    run: Run | None = None
    step: Step | None = None


def apply(state: ThreadState, event: RecordedEvent) -> ThreadState:
    """Returns the state after `event`.

    Raises `InvalidTransition` when the event cannot follow.
    """
    if event.seq != state.seq + 1:
        raise InvalidTransition(f"Event {event.seq} cannot follow event {state.seq} of a thread.")
    return replace(_transition(state, event), seq=event.seq)


def _transition(state: ThreadState, event: RecordedEvent) -> ThreadState:
    match event:
        case MessageAdded():
            return _message_added(state, event)
        case RunStarted():
            return _run_started(state, event)
        case StepStarted():
            return _step_started(state, event)
        case ReasoningAdded() | ProviderItemAdded() | ToolCallRequested():
            return _item_finished(state, event)
        case ToolStarted():
            step = _open_step(state, event)
            _require_pending(step, event.call_id)
            return replace(state, step=replace(step, started=(*step.started, event.call_id)))
        case ToolOutputRecorded():
            step = _open_step(state, event)
            _require_pending(step, event.item.call_id)
            return replace(state, step=replace(step, outputs=(*step.outputs, event.item)))
        case ResponseCompleted():
            return _response_completed(state, event)
        case StepCompleted() | StepInterrupted():
            return _step_closed(state, event)
        case RateLimitHit() | Retrying():
            _open_step(state, event)
            return state
        case RunCompleted() | RunIncomplete() | RunFailed() | RunCancelled():
            return _run_ended(state, event)
        case _ as unreachable:
            assert_never(unreachable)


def _message_added(state: ThreadState, event: MessageAdded) -> ThreadState:
    if event.origin == "model":
        return _item_finished(state, event)
    if state.step is not None:
        raise InvalidTransition("A message cannot enter the history while a step is open.")
    run = state.run
    if run is not None and run.status == "in_progress":
        corrections = run.corrections + (event.origin == "runtime")
        run = replace(run, last_step=None, corrections=corrections)
    return replace(state, run=run, history=state.history.extended((event.item,)))


def _run_started(state: ThreadState, event: RunStarted) -> ThreadState:
    if state.run is not None and state.run.status == "in_progress":
        raise InvalidTransition(f"Run {state.run.id} is still in progress.")
    run = Run(id=event.run_id, agent=event.agent, first_item=len(state.history))
    return replace(state, run=run)


def _step_started(state: ThreadState, event: StepStarted) -> ThreadState:
    run = _active_run(state, event)
    if state.step is not None or event.step != run.steps + 1:
        raise InvalidTransition(f"Step {event.step} cannot start now.")
    return replace(state, run=replace(run, steps=event.step), step=Step(event.step))


def _response_completed(state: ThreadState, event: ResponseCompleted) -> ThreadState:
    run, step = _active_run(state, event), _open_step(state, event)
    if step.finish_reason is not None:
        raise InvalidTransition(f"The response of step {step.number} is already complete.")
    return replace(
        state,
        run=replace(run, usage=run.usage + event.usage),
        step=replace(step, finish_reason=event.finish_reason),
    )


def _step_closed(state: ThreadState, event: StepCompleted | StepInterrupted) -> ThreadState:
    run, step = _active_run(state, event), _open_step(state, event)
    if step.pending:
        raise InvalidTransition(f"Call {step.pending[0].call_id} has no output yet.")
    if isinstance(event, StepCompleted) and step.finish_reason is None:
        raise InvalidTransition(f"The response of step {step.number} is not complete.")
    return replace(
        state,
        run=replace(run, last_step=step),
        step=None,
        history=state.history.extended(step.settled()),
    )


def _run_ended(state: ThreadState, event: TerminalEvent) -> ThreadState:
    run = _active_run(state, event)
    if state.step is not None:
        raise InvalidTransition(f"Step {state.step.number} is still open.")
    match event:
        case RunCompleted():
            ended = replace(run, status="completed", stop_reason=event.stop_reason)
        case RunIncomplete():
            ended = replace(run, status="incomplete", stop_reason=event.stop_reason)
        case RunFailed():
            ended = replace(run, status="failed", stop_reason="failed")
        case RunCancelled():
            ended = replace(run, status="cancelled", stop_reason="cancelled")
        case _ as unreachable:
            assert_never(unreachable)
    return replace(state, run=ended)


def _active_run(state: ThreadState, event: RecordedEvent) -> Run:
    if state.run is None or state.run.id != event.run_id or state.run.status != "in_progress":
        raise InvalidTransition(f"Run {event.run_id} is not in progress.")
    return state.run


def _open_step(state: ThreadState, event: RecordedEvent) -> Step:
    _active_run(state, event)
    if state.step is None:
        raise InvalidTransition(f"{type(event).__name__} needs an open step.")
    return state.step


def _item_finished(
    state: ThreadState,
    event: MessageAdded | ReasoningAdded | ProviderItemAdded | ToolCallRequested,
) -> ThreadState:
    step, item = _open_step(state, event), event.item
    if isinstance(item, FunctionCall) and step.has_call(item.call_id):
        raise InvalidTransition(f"Call {item.call_id} was already requested.")
    return replace(state, step=replace(step, items=(*step.items, (event.index, item))))


def _require_pending(step: Step, call_id: str) -> None:
    if not step.has_call(call_id) or step.is_answered(call_id):
        raise InvalidTransition(f"Call {call_id} is not open.")


def _place(entry: tuple[int, Item]) -> int:
    return entry[0]
