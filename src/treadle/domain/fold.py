"""The state of a thread: a fold of its durable events.

`apply(state, event)` is the only way to a new state. A run has these states

    queued ──► in_progress ◄──► requires_action
                    │  └───────────────┐│
                    ▼                  ▼▼
       completed | incomplete | failed | cancelled | expired

(by way of `cancelling` to `cancelled`) and, while it is active, through steps: a step opens with
`step.started`, collects the items of one response and the outputs of its calls, and closes with
`step.completed` or `step.interrupted`. Only a closed step enters the history, so no other item can
come between a call and its output: providers refuse a history in which one does.
"""

from collections.abc import Sequence
from typing import assert_never

from msgspec.structs import replace

from treadle.domain.context import Context
from treadle.domain.events import (
    ContextCompacted,
    EventRemoved,
    HandedOff,
    HistoryReplaced,
    ItemRemoved,
    ItemsAdded,
    JobDelegated,
    JobSettled,
    JobStarted,
    MemoryTended,
    MemoryUpdated,
    MessageAdded,
    MessagePinned,
    MessageQueued,
    PassageAdded,
    PassageRemoved,
    ProviderItemAdded,
    QuotaHit,
    RateLimitHit,
    ReasoningAdded,
    RecordedEvent,
    RequestAdapted,
    ResponseCompleted,
    RetriesExhausted,
    Retrying,
    RunCancelled,
    RunCancelling,
    RunCompleted,
    RunContinued,
    RunExpired,
    RunFailed,
    RunFinishing,
    RunIncomplete,
    RunQueued,
    RunRequiresAction,
    RunStarted,
    ScheduleCancelled,
    ScheduleCreated,
    ScheduleFired,
    StepCompleted,
    StepInterrupted,
    StepStarted,
    TerminalEvent,
    ThreadUpdated,
    ToolApproved,
    ToolCallRequested,
    ToolChoiceIgnored,
    ToolDelegated,
    ToolOutputRecorded,
    ToolStarted,
    UnknownEvent,
    UsageAdded,
)
from treadle.domain.fold_requirements import require_active_run, require_open_step
from treadle.domain.history import History, require_valid
from treadle.domain.items import Item, Message
from treadle.domain.job_fold import announcement_added, job_changed, usage_added
from treadle.domain.removal import remove
from treadle.domain.removed_items import is_removed
from treadle.domain.schedules import NO_SCHEDULES
from treadle.domain.state import (
    QueuedRun,
    Run,
    SteeringMessage,
    ThreadState,
    message_place,
)
from treadle.domain.step_fold import call_changed, item_finished, response_completed, step_changed
from treadle.domain.usage import Spent
from treadle.errors import InvalidInput, InvalidTransition, JournalTooNew

_ASIDE = frozenset(
    {
        ContextCompacted,
        ItemRemoved,
        JobDelegated,
        JobSettled,
        JobStarted,
        MemoryTended,
        MemoryUpdated,
        MessagePinned,
        PassageAdded,
        PassageRemoved,
        ScheduleCancelled,
        ScheduleCreated,
        ScheduleFired,
        ThreadUpdated,
        UsageAdded,
    }
)
"""Events after which a sender that has not seen them still sends to the same conversation."""


def apply(state: ThreadState, event: RecordedEvent) -> ThreadState:
    """Returns the state after `event`.

    Raises `InvalidTransition` when the event cannot follow, and `JournalTooNew` for one of a type
    that this version does not know: what it changed is unknown too.
    """
    if event.seq != state.seq + 1:
        raise InvalidTransition(f"Event {event.seq} cannot follow event {state.seq} of a thread.")
    inner = event.event if isinstance(event, EventRemoved) else None
    said = state.said if type(inner or event) in _ASIDE else event.seq
    return replace(_transition(state, event), seq=event.seq, said=said)


def _transition(state: ThreadState, event: RecordedEvent) -> ThreadState:
    match event:
        case MessageAdded() | ItemsAdded():
            return _content_added(state, event)
        case ReasoningAdded() | ProviderItemAdded() | ToolCallRequested():
            return item_finished(state, event)
        case ToolStarted() | ToolApproved() | ToolDelegated() | ToolOutputRecorded():
            return call_changed(state, event)
        case StepStarted() | StepCompleted() | StepInterrupted():
            return step_changed(state, event)
        case ResponseCompleted():
            return response_completed(state, event)
        case RunQueued() | RunStarted():
            return _run_began(state, event)
        case RunCompleted() | RunIncomplete() | RunFailed() | RunCancelled() | RunExpired():
            return _run_ended(state, event)
        case (
            MessageQueued()
            | RunFinishing()
            | RunCancelling()
            | RunRequiresAction()
            | RequestAdapted()
        ):
            return _run_changed(state, event)
        case UsageAdded():
            return usage_added(state, event)
        case HistoryReplaced() | RunContinued() | HandedOff():
            return _safe_point_used(state, event)
        case JobStarted() | JobDelegated() | JobSettled():
            return job_changed(state, event)
        case (
            MemoryUpdated()
            | ContextCompacted()
            | MessagePinned()
            | MemoryTended()
            | PassageAdded()
            | PassageRemoved()
            | ThreadUpdated()
            | ScheduleCreated()
            | ScheduleCancelled()
            | ScheduleFired()
        ):
            return _remembered(state, event)
        case RateLimitHit() | Retrying() | RetriesExhausted() | QuotaHit() | ToolChoiceIgnored():
            require_open_step(state, event)
            return state
        case ItemRemoved() | EventRemoved() | UnknownEvent():
            return _content_is_missing(state, event)
        case _ as unreachable:
            assert_never(unreachable)


def _content_is_missing(
    state: ThreadState, event: ItemRemoved | EventRemoved | UnknownEvent
) -> ThreadState:
    if isinstance(event, UnknownEvent):
        raise JournalTooNew(
            f"The thread needs a newer treadle: event {event.seq} has the type "
            f"{event.original_type[:100]!r}, which this version does not know. Its events can be "
            "read and exported; to continue the conversation, install a newer treadle."
        )
    if isinstance(event, ItemRemoved):
        return remove(state, event)
    state = replace(state, context=replace(state.context, removed=True))
    return state if event.event is None else _transition(state, event.event)


def _content_added(state: ThreadState, event: MessageAdded | ItemsAdded) -> ThreadState:
    if isinstance(event, ItemsAdded):
        return _items_added(state, event)
    return _message_added(state, event)


def _message_added(state: ThreadState, event: MessageAdded) -> ThreadState:
    if event.origin == "model":
        return item_finished(state, event)
    if state.step is not None:
        raise InvalidTransition("A message cannot enter the history while a step is open.")
    if event.origin == "job":
        return announcement_added(state, event)
    run = state.active_run
    if run is None:
        return replace(state, history=state.history.extended((event.item,)))
    if event.origin == "hook":
        # A message of a hook does not make the run continue; see `RunContinued`.
        run = replace(run, hooked=run.steps)
        return replace(state, run=run, history=state.history.extended((event.item,)))
    corrections = run.corrections + (event.origin == "runtime")
    return replace(
        state,
        run=replace(run, last_step=None, corrections=corrections),
        history=state.history.extended((event.item,)),
        steering=_without(state.steering, event.item.id),
    )


def _items_added(state: ThreadState, event: ItemsAdded) -> ThreadState:
    if state.active_run is not None:
        raise InvalidTransition(f"Items cannot be added during the run {state.active_run.id}.")
    try:
        require_valid(event.items)
    except InvalidInput as error:
        raise InvalidTransition(error.message) from error
    return replace(state, history=state.history.extended(event.items))


def _without(messages: tuple[SteeringMessage, ...], id: str) -> tuple[SteeringMessage, ...]:
    """Returns messages without the first of that id: a program may send one object twice."""
    for index, waiting in enumerate(messages):
        if waiting.item.id == id:
            return messages[:index] + messages[index + 1 :]
    return messages


def _safe_point_used(
    state: ThreadState, event: HistoryReplaced | RunContinued | HandedOff
) -> ThreadState:
    """Between two steps a hook may change the history, and an agent hand over to another."""
    run = require_active_run(state, event)
    if state.step is not None:
        raise InvalidTransition(f"Step {state.step.number} is still open.")
    match event:
        case HistoryReplaced():
            try:
                require_valid(event.items)
            except InvalidInput as error:
                raise InvalidTransition(error.message) from error
            first = _first_item_of(run, state.history, event.items)
            run = replace(run, hooked=run.steps, first_item=first)
            return replace(
                state,
                run=run,
                history=History(event.items),
                edited=event.seq,
                context=Context(
                    pinned=state.context.pinned, removed=any(map(is_removed, event.items))
                ),
                tended=0,
            )
        case RunContinued():
            run = replace(run, hooked=run.steps, last_step=None)
        case HandedOff():
            run = replace(
                run,
                agent=event.agent,
                agent_hash=event.agent_hash,
                handoffs=run.handoffs + 1,
                last_step=None,
            )
        case _ as unreachable:
            assert_never(unreachable)
    return replace(state, run=run)


def _first_item_of(run: Run, before: History, items: Sequence[Item]) -> int:
    """Where a run begins in the history that replaces another: behind the message it began with.

    Where that is not there any more, the last message of the user stands for it.
    """
    if not run.first_item:
        return 0
    place = message_place(run, before)
    began = None if place is None else before[place]
    messages = [(i, item) for i, item in enumerate(items) if isinstance(item, Message)]
    places = [i for i, item in messages if item.role == "user"]
    same = [i for i in places if items[i] == began]
    found = (same or places)[-1:]
    return found[0] + 1 if found else min(run.first_item, len(items))


def _run_began(state: ThreadState, event: RunQueued | RunStarted) -> ThreadState:
    match event:
        case RunQueued():
            return _run_queued(state, event)
        case RunStarted():
            return _run_started(state, event)
        case _ as unreachable:
            assert_never(unreachable)


def _run_queued(state: ThreadState, event: RunQueued) -> ThreadState:
    known = {run.id for run in state.queue}
    if event.run_id in known or (state.run is not None and state.run.id == event.run_id):
        raise InvalidTransition(f"Run {event.run_id} is already known.")
    run = QueuedRun(
        event.run_id,
        event.item,
        event.agent,
        event.key,
        event.by,
        options=event.options,
        before=event.before,
        schedule_id=event.schedule_id,
        so_far=event.so_far,
    )
    return replace(state, queue=(run, *state.queue) if event.urgent else (*state.queue, run))


def _run_started(state: ThreadState, event: RunStarted) -> ThreadState:
    if state.active_run is not None:
        raise InvalidTransition(f"Run {state.active_run.id} is still in progress.")
    run = Run(
        event.run_id,
        event.agent,
        event.agent_hash,
        first_item=len(state.history),
        options=event.options,
        first_agent=event.agent if event.options is not None else "",
    )
    queue = tuple(queued for queued in state.queue if queued.id != event.run_id)
    return replace(state, run=run, queue=queue)


def _run_changed(
    state: ThreadState,
    event: MessageQueued | RunFinishing | RunCancelling | RunRequiresAction | RequestAdapted,
) -> ThreadState:
    run = require_active_run(state, event)
    match event:
        case MessageQueued():
            waiting = SteeringMessage(event.item, event.by)
            return replace(state, steering=(*state.steering, waiting))
        case RunFinishing():
            return replace(state, run=replace(run, finishing=True))
        case RunCancelling():
            return replace(state, run=replace(run, status="cancelling", cancelled_by=event.by))
        case RequestAdapted():
            ids = [one.item_id for one in event.items if one.item_id not in run.adapted]
            return replace(state, run=replace(run, adapted=(*run.adapted, *dict.fromkeys(ids))))
        case RunRequiresAction():
            if not require_open_step(state, event).awaited or run.status == "cancelling":
                raise InvalidTransition(f"Run {run.id} has no call to wait for.")
            run = replace(
                run,
                status="requires_action",
                expires_at=event.expires_at,
                seconds=run.seconds + event.seconds,
            )
            return replace(state, run=run)
        case _ as unreachable:
            assert_never(unreachable)


def _remembered(
    state: ThreadState,
    event: MemoryUpdated
    | ContextCompacted
    | MessagePinned
    | MemoryTended
    | PassageAdded
    | PassageRemoved
    | ThreadUpdated
    | ScheduleCreated
    | ScheduleCancelled
    | ScheduleFired,
) -> ThreadState:
    match event:
        case ScheduleCreated() | ScheduleCancelled() | ScheduleFired():
            return _schedule_changed(state, event)
        case PassageAdded() | PassageRemoved():
            return state  # the archive is an index of these events, and no part of the state
        case ThreadUpdated():
            return state  # it is what lists show, and no part of the state
        case MemoryUpdated():
            # A change in a block of another thread is only recorded here.
            return state if event.memory else replace(state, memory=state.memory.changed(event))
        case ContextCompacted():
            spent = Spent(event.usage, event.cost)
            context = state.context.compacted(state.history, event)
            return replace(state, context=context, ended=state.ended + spent)
        case MessagePinned():
            return replace(state, context=state.context.with_pin(state.history, event))
        case MemoryTended():
            # The history may have been replaced by a shorter one meanwhile.
            return replace(state, tended=min(event.until, len(state.history)))
        case _ as unreachable:
            assert_never(unreachable)


def _run_ended(state: ThreadState, event: TerminalEvent) -> ThreadState:
    if isinstance(event, RunCancelled) and any(run.id == event.run_id for run in state.queue):
        # A run that never started leaves nothing behind.
        return replace(state, queue=tuple(run for run in state.queue if run.id != event.run_id))
    run = require_active_run(state, event)
    if state.step is not None:
        raise InvalidTransition(f"Step {state.step.number} is still open.")
    if state.steering:
        raise InvalidTransition("A message still waits to enter the history.")
    if any(job.run_id == run.id and not job.background for job in state.jobs.values()):
        raise InvalidTransition("A job of the run has not settled.")
    if event.seconds:
        run = replace(run, seconds=run.seconds + event.seconds)
    match event:
        case RunCompleted():
            ended = replace(
                run, status="completed", stop_reason=event.stop_reason, output=event.output
            )
        case RunIncomplete():
            ended = replace(run, status="incomplete", stop_reason=event.stop_reason)
        case RunFailed():
            ended = replace(run, status="failed", stop_reason="failed")
        case RunCancelled():
            ended = replace(run, status="cancelled", stop_reason="cancelled")
        case RunExpired():
            ended = replace(run, status="expired", stop_reason="expired")
        case _ as unreachable:
            assert_never(unreachable)
    return replace(state, run=ended, ended=state.ended + ended.spent)


def _schedule_changed(
    state: ThreadState, event: ScheduleCreated | ScheduleCancelled | ScheduleFired
) -> ThreadState:
    schedules = dict(state.schedules)
    if isinstance(event, ScheduleCreated):
        if event.schedule.id in schedules:
            raise InvalidTransition(f"Schedule {event.schedule.id} is already known.")
        schedules[event.schedule.id] = event.schedule
        return replace(state, schedules=schedules)
    schedule = schedules.pop(event.schedule_id, None)
    if schedule is None:
        raise InvalidTransition(f"Schedule {event.schedule_id} is not known.")
    if isinstance(event, ScheduleFired) and event.next_at is not None:
        schedules[schedule.id] = replace(schedule, due_at=event.next_at)
    return replace(state, schedules=schedules or NO_SCHEDULES)
