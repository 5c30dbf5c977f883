"""Repairing a thread with events that cannot be read, or that do not fit; pure.

Such an event becomes an `EventRemoved` with its number. What it leaves for the state is chosen by
what follows: the end of a run, the output of a call, or nothing, whichever lets the most of the
following events fit.
"""

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from treadle.domain.envelope import decode_recorded
from treadle.domain.events import (
    EventRemoved,
    MessageAdded,
    RecordedEvent,
    ResponseCompleted,
    RunFailed,
    RunQueued,
    RunStarted,
    ScheduleFired,
    StepCompleted,
    StepInterrupted,
    StepStarted,
    ToolCallRequested,
    ToolOutputRecorded,
    ToolStarted,
)
from treadle.domain.fold import apply
from treadle.domain.items import FunctionCall, FunctionCallOutput, Message
from treadle.domain.state import ThreadState
from treadle.domain.usage import Usage
from treadle.errors import InvalidTransition

LOOK_AHEAD = 30
"""How many of the following events decide what a damaged one leaves."""

_LOST = "The output was lost: its event is damaged."


def repaired(stored: Mapping[int, bytes]) -> list[EventRemoved]:
    """Returns the events to store in place of damaged ones, by the stored events of a thread.

    Raises `JournalTooNew` if a newer version recorded one of them, which is not damaged.
    """
    last = max(stored, default=0)
    events = [_decoded(seq, stored.get(seq, b"")) for seq in range(1, last + 1)]
    state, changed, at = ThreadState(), list[EventRemoved](), 0.0
    for seq, event in enumerate(events, 1):
        at = event.at if event is not None else at
        following = [one for one in events[seq : seq + LOOK_AHEAD] if one is not None]
        fitting = None if event is None else _after(state, event)
        if fitting is None:
            left = [
                EventRemoved(seq=seq, at=at, event=one) for one in _candidates(state, following)
            ]
            best = max(left, key=lambda one: _fit(state, one, following))
            changed.append(best)
            fitting = _after(state, best)
            assert fitting is not None  # only what fits is a candidate
        state = fitting
    return changed


def _decoded(seq: int, body: bytes) -> RecordedEvent | None:
    try:
        event = decode_recorded(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return event if event.seq == seq else None


def _after(state: ThreadState, event: RecordedEvent) -> ThreadState | None:
    try:
        return apply(state, event)
    except InvalidTransition:
        return None


def _fit(state: ThreadState, event: RecordedEvent, following: Sequence[RecordedEvent]) -> int:
    """Counts the following events that fit after `event`; -1 if it does not fit itself."""
    fitting = _after(state, event)
    if fitting is None:
        return -1
    count = 0
    for one in following:
        fitting = _after(msgspec.structs.replace(fitting, seq=one.seq - 1), one)
        if fitting is None:
            break
        count += 1
    return count


def _candidates(
    state: ThreadState, following: Sequence[RecordedEvent]
) -> Iterator[RecordedEvent | None]:
    """Yields what a damaged event may have been; nothing first."""
    yield from _fired(state, following)
    yield None
    run, step = state.active_run, state.step
    if run is None:
        if following:
            yield RunStarted(run_id=following[0].run_id, agent="")
        return
    id = run.id
    if step is None:
        yield StepStarted(run_id=id, step=run.steps + 1, model="")
        waiting = state.steering[0].item if state.steering else Message("user", ())
        yield MessageAdded(run_id=id, item=Message("user", (), waiting.id), origin="user")
        yield RunFailed(
            run_id=id,
            code="thread_damaged",
            message="The event of its end is damaged.",
            retryable=False,
            usage=run.usage,
        )
        return
    for call in step.pending:
        item = FunctionCallOutput(call.call_id, _LOST, is_error=True)
        yield ToolOutputRecorded(run_id=id, item=item, name=call.name)
    for one in following:
        call_id = _call_id(one)
        if call_id and step.call(call_id) is None:
            lost = FunctionCall(call_id, "unknown", "{}")
            yield ToolCallRequested(run_id=id, item=lost, index=LOOK_AHEAD + len(step.items))
    yield ResponseCompleted(run_id=id, response_id="", finish_reason="stop", usage=Usage())
    yield StepCompleted(run_id=id, step=step.number)
    yield StepInterrupted(run_id=id, step=step.number, reason="an event of it is damaged")


def _fired(state: ThreadState, following: Sequence[RecordedEvent]) -> Iterator[RecordedEvent]:
    """Yields that a schedule was due, if its run follows: it must not be started once more."""
    for one in following[:2]:
        if not isinstance(one, RunStarted | RunQueued):
            continue
        schedule = state.schedules.get(one.schedule_id)
        if schedule is not None:
            # When it is due next is lost; it is computed again once it was due a minute later.
            yield ScheduleFired(
                run_id=one.run_id,
                schedule_id=schedule.id,
                due_at=schedule.due_at,
                next_at=one.at + 60 if schedule.cron else None,
            )


def _call_id(event: RecordedEvent) -> str:
    if isinstance(event, ToolStarted):
        return event.call_id
    return event.item.call_id if isinstance(event, ToolOutputRecorded) else ""
