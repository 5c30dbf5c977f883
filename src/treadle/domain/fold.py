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
from treadle.domain.history import History, require_valid
from treadle.domain.items import FunctionCall, Item, Message
from treadle.domain.open_step import EditableCall, Step
from treadle.domain.removal import remove
from treadle.domain.removed_items import is_removed
from treadle.domain.schedules import NO_SCHEDULES
from treadle.domain.state import (
    Announcement,
    OpenJob,
    QueuedRun,
    Run,
    SteeringMessage,
    ThreadState,
    ToolCount,
    message_place,
)
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
            return _item_finished(state, event)
        case ToolStarted() | ToolApproved() | ToolDelegated() | ToolOutputRecorded():
            return _call_changed(state, event)
        case StepStarted() | StepCompleted() | StepInterrupted():
            return _step_changed(state, event)
        case ResponseCompleted():
            return _response_completed(state, event)
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
            return _usage_added(state, event)
        case HistoryReplaced() | RunContinued() | HandedOff():
            return _safe_point_used(state, event)
        case JobStarted() | JobDelegated() | JobSettled():
            return _job_changed(state, event)
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
            _open_step(state, event)
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
        return _item_finished(state, event)
    if state.step is not None:
        raise InvalidTransition("A message cannot enter the history while a step is open.")
    if event.origin == "job":
        return _announcement_added(state, event)
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
    run = _active_run(state, event)
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


def _step_changed(
    state: ThreadState, event: StepStarted | StepCompleted | StepInterrupted
) -> ThreadState:
    match event:
        case StepStarted():
            return _step_started(state, event)
        case StepCompleted() | StepInterrupted():
            return _step_closed(state, event)
        case _ as unreachable:
            assert_never(unreachable)


def _step_started(state: ThreadState, event: StepStarted) -> ThreadState:
    run = _active_run(state, event)
    if state.step is not None or event.step != run.steps + 1:
        raise InvalidTransition(f"Step {event.step} cannot start now.")
    return replace(state, run=replace(run, steps=event.step), step=Step(event.step))


def _call_changed(
    state: ThreadState, event: ToolStarted | ToolApproved | ToolDelegated | ToolOutputRecorded
) -> ThreadState:
    step = _open_step(state, event)
    match event:
        case ToolStarted():
            _require_pending(step, event.call_id)
            if step.awaits_of(event.call_id) is not None:
                raise InvalidTransition(f"Call {event.call_id} waits for someone outside.")
            return replace(state, step=replace(step, started=(*step.started, event.call_id)))
        case ToolApproved():
            _require_pending(step, event.call_id)
            if step.awaits_of(event.call_id) != "approval":
                raise InvalidTransition(f"Call {event.call_id} waits for no approval.")
            state = _answered_by(state, event.call_id, event.by)
            state = replace(state, approved=state.approved | {event.call_id})
            step = replace(step, approved=(*step.approved, event.call_id))
            if event.arguments:
                step = _with_arguments(step, event.call_id, event.arguments)
        case ToolDelegated():
            _require_pending(step, event.call_id)
            step = replace(step, delegated=(*step.delegated, event.thread_id))
        case ToolOutputRecorded():
            _require_pending(step, event.item.call_id)
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


def _run_changed(
    state: ThreadState,
    event: MessageQueued | RunFinishing | RunCancelling | RunRequiresAction | RequestAdapted,
) -> ThreadState:
    run = _active_run(state, event)
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
            if not _open_step(state, event).awaited or run.status == "cancelling":
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


def _response_completed(state: ThreadState, event: ResponseCompleted) -> ThreadState:
    run, step = _active_run(state, event), _open_step(state, event)
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


def _step_closed(state: ThreadState, event: StepCompleted | StepInterrupted) -> ThreadState:
    run, step = _active_run(state, event), _open_step(state, event)
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


def _run_ended(state: ThreadState, event: TerminalEvent) -> ThreadState:
    if isinstance(event, RunCancelled) and any(run.id == event.run_id for run in state.queue):
        # A run that never started leaves nothing behind.
        return replace(state, queue=tuple(run for run in state.queue if run.id != event.run_id))
    run = _active_run(state, event)
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


def _announcement_added(state: ThreadState, event: MessageAdded) -> ThreadState:
    """The announcement of a job enters the history; one that wakes needs a response."""
    found = next((one for one in state.announced if one.item.id == event.item.id), None)
    if found is None:
        raise InvalidTransition(f"No job announced the message {event.item.id}.")
    run = state.active_run
    return replace(
        state,
        run=replace(run, last_step=None) if run is not None and found.wakes else state.run,
        history=state.history.extended((event.item,)),
        announced=tuple(one for one in state.announced if one is not found),
    )


def _job_changed(state: ThreadState, event: JobStarted | JobDelegated | JobSettled) -> ThreadState:
    jobs = dict(state.jobs)
    job = jobs.get(event.job_id)
    match event:
        case JobStarted():
            _start_job(state, jobs, job, event)
            return replace(state, jobs=jobs)
        case JobDelegated():
            if job is None:
                raise InvalidTransition(f"Job {event.job_id} is not open.")
            threads = (*job.delegated, event.thread_id)
            return replace(state, jobs={**jobs, job.id: replace(job, delegated=threads)})
        case JobSettled():
            if job is None or job.children:
                raise InvalidTransition(f"Job {event.job_id} is not open, or has open children.")
            if event.fails_run:
                run = _active_run(state, event)
                failure = run.job_failure or event.message or "it failed"
                state = replace(state, run=replace(run, job_failure=failure))
            del jobs[event.job_id]
            _leave_parent(jobs, job)
            announced = state.announced
            if event.announcement is not None:
                added = Announcement(event.announcement, event.run_id, job.agent, event.wakes)
                announced = (*announced, added)
            return replace(state, jobs=jobs, announced=announced)
        case _ as unreachable:
            assert_never(unreachable)


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


def _usage_added(state: ThreadState, event: UsageAdded) -> ThreadState:
    job = state.jobs.get(event.job_id)
    if event.job_id:
        if job is None or not job.background:
            raise InvalidTransition(f"The background job {event.job_id} is not open.")
        spent = Spent(event.usage, event.cost, tool_calls=event.calls)
        job = replace(job, counted=(*job.counted, event.thread_id))
        return replace(state, jobs={**state.jobs, job.id: job}, ended=state.ended + spent)
    run = _active_run(state, event)
    run = replace(
        run,
        usage=run.usage + event.usage,
        cost=run.cost + event.cost,
        calls=run.calls + event.calls,
        counted=(*run.counted, event.thread_id),
    )
    return replace(state, run=run)


def _start_job(
    state: ThreadState, jobs: dict[str, OpenJob], before: OpenJob | None, event: JobStarted
) -> None:
    if not event.background:
        _active_run(state, event)
    if event.attempt != (1 if before is None else before.attempt + 1):
        raise InvalidTransition(f"Job {event.job_id} cannot have attempt {event.attempt} now.")
    # What it started may still be below it, and belongs to the run or the thread as it does.
    if before is not None and (event.parent or event.background != before.background):
        raise InvalidTransition(f"Job {event.job_id} cannot start again in another place.")
    parent = jobs.get(event.parent)
    if event.parent and (parent is None or parent.background != event.background):
        raise InvalidTransition(f"The job {event.parent}, to which one belongs, is not open.")
    if before is not None:
        _leave_parent(jobs, before)
        again = replace(before, parent="", attempt=event.attempt, announces=event.announces)
        jobs[before.id] = again
        return
    if parent is not None:
        jobs[parent.id] = replace(parent, children=parent.children + 1)
    jobs[event.job_id] = OpenJob(
        event.job_id,
        event.name,
        event.run_id,
        event.parent,
        event.background,
        event.agent,
        event.announces,
        event.kind,
        event.arguments,
    )


def _leave_parent(jobs: dict[str, OpenJob], job: OpenJob) -> None:
    if job.parent:
        parent = jobs[job.parent]
        jobs[job.parent] = replace(parent, children=parent.children - 1)


def _active_run(state: ThreadState, event: RecordedEvent) -> Run:
    run = state.active_run
    if run is None or run.id != event.run_id:
        raise InvalidTransition(f"Run {event.run_id} is not in progress.")
    return run


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
    if isinstance(item, FunctionCall) and step.call(item.call_id) is not None:
        raise InvalidTransition(f"Call {item.call_id} was already requested.")
    step = replace(step, items=(*step.items, (event.index, item)))
    if isinstance(event, ToolCallRequested) and event.awaits is not None:
        step = replace(step, awaits=(*step.awaits, (event.item.call_id, event.awaits)))
        if event.parameters is not None:
            editable = EditableCall(event.item.call_id, event.parameters, event.to_user)
            step = replace(step, editable=(*step.editable, editable))
    return replace(state, step=step)


def _require_pending(step: Step, call_id: str) -> None:
    if step.call(call_id) is None or step.is_answered(call_id):
        raise InvalidTransition(f"Call {call_id} is not open.")
