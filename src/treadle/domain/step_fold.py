"""The fold of the open step: one response of the model, its calls and their outputs."""

from typing import assert_never

from msgspec.structs import replace

from treadle.domain.events import (
    MessageAdded,
    ProviderItemAdded,
    ReasoningAdded,
    ResponseCompleted,
    StepCompleted,
    StepInterrupted,
    StepStarted,
    ToolApproved,
    ToolCallRequested,
    ToolDelegated,
    ToolOutputRecorded,
    ToolStarted,
)
from treadle.domain.fold_requirements import require_active_run, require_open_step, require_pending
from treadle.domain.items import FunctionCall
from treadle.domain.open_step import EditableCall, Step
from treadle.domain.state import ThreadState, ToolCount
from treadle.errors import InvalidTransition


def step_changed(
    state: ThreadState, event: StepStarted | StepCompleted | StepInterrupted
) -> ThreadState:
    """Returns the state after a step was opened, or was closed and entered the history."""
    match event:
        case StepStarted():
            return _step_started(state, event)
        case StepCompleted() | StepInterrupted():
            return _step_closed(state, event)
        case _ as unreachable:
            assert_never(unreachable)


def _step_started(state: ThreadState, event: StepStarted) -> ThreadState:
    run = require_active_run(state, event)
    if state.step is not None or event.step != run.steps + 1:
        raise InvalidTransition(f"Step {event.step} cannot start now.")
    return replace(state, run=replace(run, steps=event.step), step=Step(event.step))


def _step_closed(state: ThreadState, event: StepCompleted | StepInterrupted) -> ThreadState:
    run, step = require_active_run(state, event), require_open_step(state, event)
    if step.pending:
        raise InvalidTransition(f"Call {step.pending[0].call_id} has no output yet.")
    if isinstance(event, StepCompleted) and step.finish_reason is None:
        raise InvalidTransition(f"The response of step {step.number} is not complete.")
    cut_off = isinstance(event, StepInterrupted) and step.finish_reason is None
    calls = step.calls
    if step.editable:
        step = replace(step, editable=())
    run = replace(
        run,
        last_step=step,
        interrupted=run.interrupted + cut_off,
        calls=run.calls + len(calls),
        seconds=run.seconds + event.seconds,
        tools=_counted(run.tools, step) if calls else run.tools,
    )
    return replace(
        state,
        run=run,
        step=None,
        history=state.history.extended(step.settled()),
    )


def _counted(counts: tuple[ToolCount, ...], step: Step) -> tuple[ToolCount, ...]:
    """Adds the calls of a step that were made; a refused call was not."""
    tools = {count.name: count for count in counts}
    for call in step.calls:
        output = step.output(call.call_id)
        succeeded = output is not None and not output.is_error
        if succeeded or call.call_id in step.started:
            old = tools.get(call.name, ToolCount(call.name, 0, 0))
            tools[call.name] = ToolCount(call.name, old.made + 1, old.succeeded + succeeded)
    return tuple(tools.values())


def response_completed(state: ThreadState, event: ResponseCompleted) -> ThreadState:
    """Returns the state after the response of the open step is complete: its tokens count."""
    run, step = require_active_run(state, event), require_open_step(state, event)
    if step.finish_reason is not None:
        raise InvalidTransition(f"The response of step {step.number} is already complete.")
    return replace(
        state,
        context=state.context.measured(
            event.usage.input_tokens, len(state.history), event.frame_tokens
        ),
        run=replace(run, usage=run.usage + event.usage, cost=run.cost + event.cost),
        step=replace(step, finish_reason=event.finish_reason),
    )


def item_finished(
    state: ThreadState,
    event: MessageAdded | ReasoningAdded | ProviderItemAdded | ToolCallRequested,
) -> ThreadState:
    """Returns the state after the response has a further item."""
    step, item = require_open_step(state, event), event.item
    if isinstance(item, FunctionCall) and step.call(item.call_id) is not None:
        raise InvalidTransition(f"Call {item.call_id} was already requested.")
    step = replace(step, items=(*step.items, (event.index, item)))
    if isinstance(event, ToolCallRequested) and event.awaits is not None:
        step = replace(step, awaits=(*step.awaits, (event.item.call_id, event.awaits)))
        if event.parameters is not None:
            editable = EditableCall(event.item.call_id, event.parameters, event.to_user)
            step = replace(step, editable=(*step.editable, editable))
    return replace(state, step=step)


def call_changed(
    state: ThreadState, event: ToolStarted | ToolApproved | ToolDelegated | ToolOutputRecorded
) -> ThreadState:
    """Returns the state after a call has started, was approved or delegated, or has its output."""
    step = require_open_step(state, event)
    match event:
        case ToolStarted():
            require_pending(step, event.call_id)
            if step.awaits_of(event.call_id) is not None:
                raise InvalidTransition(f"Call {event.call_id} waits for someone outside.")
            return replace(state, step=replace(step, started=(*step.started, event.call_id)))
        case ToolApproved():
            require_pending(step, event.call_id)
            if step.awaits_of(event.call_id) != "approval":
                raise InvalidTransition(f"Call {event.call_id} waits for no approval.")
            state = _answered_by(state, event.call_id, event.by)
            state = replace(state, approved=state.approved | {event.call_id})
            step = replace(step, approved=(*step.approved, event.call_id))
            if event.arguments:
                step = _with_arguments(step, event.call_id, event.arguments)
        case ToolDelegated():
            require_pending(step, event.call_id)
            step = replace(step, delegated=(*step.delegated, event.thread_id))
        case ToolOutputRecorded():
            require_pending(step, event.item.call_id)
            state = _answered_by(state, event.item.call_id, event.by)
            step = replace(step, outputs=(*step.outputs, event.item))
        case _ as unreachable:
            assert_never(unreachable)
    run = state.run
    # The run continues as soon as no call of its step is awaited from outside.
    if run is not None and run.status == "requires_action" and not step.awaited:
        run = replace(run, status="in_progress", expires_at=None)
    return replace(state, run=run, step=step)


def _with_arguments(step: Step, call_id: str, arguments: str) -> Step:
    """Returns a step in which a call has other arguments than the model wrote."""
    return replace(
        step,
        items=tuple(
            (place, replace(item, arguments=arguments, proposed=item.arguments))
            if isinstance(item, FunctionCall) and item.call_id == call_id
            else (place, item)
            for place, item in step.items
        ),
    )


def _answered_by(state: ThreadState, call_id: str, by: str) -> ThreadState:
    return replace(state, answered_by={**state.answered_by, call_id: by}) if by else state
