"""What an entry does to a thread: the one place where it is decided.

`accept` is a pure function of the state, so the process that drives a thread and every other one
decide alike: the driving process records what it returns, another one asks before it puts an entry
into the inbox.
"""

from collections.abc import Iterator, Sequence
from typing import assert_never, cast

from msgspec import Struct
from msgspec.structs import replace

from treadle.domain.answers import approval_of, denial_of, output_of, pin_of
from treadle.domain.block_edits import change, require_as_read
from treadle.domain.block_undo import undo
from treadle.domain.entries import (
    AddEntry,
    AnswerEntry,
    ApprovalEntry,
    CancelEntry,
    CancelJobEntry,
    CancelScheduleEntry,
    DenialEntry,
    EditEntry,
    Entry,
    FinishEntry,
    InsertEntry,
    KeyedEntry,
    OutputEntry,
    PinEntry,
    RemoveEntry,
    RemoveEventEntry,
    ScheduleEntry,
    SendEntry,
    UndoEntry,
    UpdateEntry,
)
from treadle.domain.events import (
    EntryEvent,
    ItemRemoved,
    ItemsAdded,
    MemoryUpdated,
    MessageAdded,
    MessageQueued,
    PassageAdded,
    PassageRemoved,
    RecordedEvent,
    RunCancelled,
    RunCancelling,
    RunFinishing,
    RunQueued,
    ScheduleCancelled,
    ScheduleCreated,
    ThreadUpdated,
)
from treadle.domain.ids import id_of
from treadle.domain.items import FunctionCall, FunctionCallOutput, Item, Message
from treadle.domain.removal import Removal
from treadle.domain.removed_items import key_of
from treadle.domain.schedules import MAX_SCHEDULES, Schedule
from treadle.domain.state import Run, ThreadState
from treadle.domain.usage import Usage
from treadle.errors import (
    ChangeNotUndoable,
    Conflict,
    InvalidInput,
    RunInProgress,
    TooManySchedules,
)


class StartRun(Struct, frozen=True):
    """The message starts its run at once: the thread has nothing else to do."""

    entry: SendEntry


class StopJob(Struct, frozen=True):
    """A job that is under way is to end; no event reports that before the job has ended."""

    job_id: str
    by: str = ""


class ForkThread(Struct, frozen=True):
    """The message goes to a copy of the thread: the conversation has gone on without it."""

    entry: SendEntry


Accepted = Sequence[RecordedEvent] | StartRun | StopJob | ForkThread
"""The events to record, none without an effect; or what only the driving process can do."""


def accept(
    state: ThreadState,
    entry: Entry,
    *,
    changes: Sequence[MemoryUpdated] = (),
    removal: Removal | None = None,
) -> Accepted:
    """Returns what `entry` does to a thread in this state.

    `changes` are those of the memory block that an `UndoEntry` names, from the one to undo up to
    now; see `treadle.memory.blocks.changes.undone_by`. `removal` is what a `RemoveEventEntry`
    removes; see `treadle.domain.removal.removal_of`. Raises the typed error of an entry that is
    refused: `InvalidInput`, `RunInProgress`, `UnknownToolCall`, `Conflict`, `RunNotInProgress`,
    `UnknownMessage`, `TooManySchedules`, and the kinds of `MemoryFailed`.
    """
    accepted = _accept(state, entry, changes, removal)
    if not entry.by or isinstance(accepted, StartRun | StopJob | ForkThread):
        return accepted
    return [
        replace(event, by=entry.by) if isinstance(event, EntryEvent) else event
        for event in accepted
    ]


def _accept(
    state: ThreadState,
    entry: Entry,
    changes: Sequence[MemoryUpdated],
    removal: Removal | None,
) -> Accepted:
    match entry:
        case SendEntry() | AddEntry():
            return _send(state, entry) if isinstance(entry, SendEntry) else _add(state, entry)
        case OutputEntry() | ApprovalEntry() | DenialEntry():
            return _recorded(_answer(state, entry))
        case CancelEntry():
            return _cancel(state, entry.run_id)
        case FinishEntry():
            run = state.active_run
            is_due = run is not None and run.id == entry.run_id and not run.finishing
            return [RunFinishing(run_id=entry.run_id)] if is_due else ()
        case CancelJobEntry():
            return StopJob(entry.job_id, entry.by) if entry.job_id in state.jobs else ()
        case PinEntry():
            return _recorded(pin_of(state, entry.message_id, pinned=entry.pinned))
        case EditEntry():
            if entry.read is not None:
                require_as_read(state.memory, entry.edit.label, entry.read, entry.key)
            event = change(state.memory, entry.edit, entry.author, key=entry.key)
            return () if event is None else [replace(event, thread_id=entry.thread_id)]
        case UndoEntry():
            return [_undo(state, entry, changes)]
        case InsertEntry():
            return list(passages_added(entry))
        case RemoveEventEntry():
            return _remove(state, removal)
        case ScheduleEntry() | CancelScheduleEntry():
            return _schedule(state, entry)
        case RemoveEntry():
            return [PassageRemoved(run_id="", passage_id=entry.passage_id)]
        case UpdateEntry():
            return [
                ThreadUpdated(
                    title=entry.title, metadata=entry.metadata, expires_at=entry.expires_at
                )
            ]
        case _ as unreachable:
            assert_never(unreachable)


def identity_of(entry: KeyedEntry) -> str:
    """Returns what differs between two entries with the same key and other content."""
    if isinstance(entry, SendEntry):
        return entry.item.id if entry.item is not None else ""
    return entry.digest


def require_same(entry: KeyedEntry, sent_id: str) -> None:
    """Raises `Conflict` if the key of `entry` was used for a message other than `sent_id`."""
    if sent_id and sent_id != identity_of(entry):
        raise Conflict(
            f"The key {entry.key[:100]!r} was used for another message; use a key for one message."
        )


def entering(items: Sequence[Item], by: str = "") -> list[EntryEvent]:
    """Returns the events by which items of the caller enter the history, outside of a run.

    A message has an event of its own. Calls, their outputs and reasoning enter together, so that no
    event comes between them. The items must be a valid history.
    """
    events: list[EntryEvent] = []
    group: list[Item] = []
    unanswered = 0
    for item in items:
        if isinstance(item, Message) and not unanswered:
            events += _grouped(group, by)
            group = []
            events.append(MessageAdded(run_id="", item=item, origin="user", by=by))
            continue
        group.append(item)
        unanswered += isinstance(item, FunctionCall) - isinstance(item, FunctionCallOutput)
    return [*events, *_grouped(group, by)]


def _grouped(items: Sequence[Item], by: str) -> list[EntryEvent]:
    return [ItemsAdded(items=tuple(items), by=by)] if items else []


def queue(entry: SendEntry) -> RunQueued:
    """Returns the event by which a message waits for its turn."""
    assert entry.item is not None  # a run without a message does not wait
    return RunQueued(
        run_id=entry.run_id,
        item=entry.item,
        agent=entry.agent,
        key=entry.key,
        urgent=entry.on_busy == "cancel",
        before=entry.before,
        so_far=entry.so_far,
        by=entry.by,
        options=entry.options,
        schedule_id=entry.schedule_id,
    )


def acknowledged(thread_id: str, state: ThreadState, entry: SendEntry) -> SendEntry:
    """Returns a message that was acknowledged before as one that cannot be refused any more.

    One that was to steer a run that has ended meanwhile starts a run of its own, which is named as
    that of a message with a key is.
    """
    if entry.expect is not None:
        return entry  # its sender waits for the verdict
    assert entry.item is not None
    if entry.on_busy == "reject":
        return replace(entry, on_busy="queue")
    run = state.active_run
    steers = run is not None and run.id == entry.run_id and run.status != "cancelling"
    if entry.on_busy == "steer" and not steers:
        return replace(entry, run_id=id_of("run", thread_id, entry.key or entry.item.id))
    return entry


def passages_added(entry: InsertEntry, run_id: str = "") -> Iterator[PassageAdded]:
    """Yields the events that put texts into the archive, for the run `run_id` if one does."""
    for passage in entry.passages:
        yield PassageAdded(
            run_id=run_id,
            passage_id=passage.id,
            text=passage.text,
            author=entry.author,
            tags=passage.tags,
            written_at=passage.created_at,
        )


def require_same_schedule(schedule: Schedule, known: Schedule) -> None:
    """Raises `Conflict` if the key of a schedule is that of another one.

    When a schedule is due is not compared, because a time that was given as a delay moves on.
    """
    same = (known.item.id, known.cron, known.tz, known.agent)
    if (schedule.item.id, schedule.cron, schedule.tz, schedule.agent) != same:
        raise Conflict(
            "The key was used for another schedule; cancel that one first, or use another key."
        )


def _schedule(
    state: ThreadState, entry: ScheduleEntry | CancelScheduleEntry
) -> Sequence[ScheduleCreated | ScheduleCancelled]:
    if isinstance(entry, CancelScheduleEntry):
        if entry.schedule_id not in state.schedules:
            return ()
        return [ScheduleCancelled(run_id=entry.run_id, schedule_id=entry.schedule_id)]
    known = state.schedules.get(entry.schedule.id)
    if known is not None:
        require_same_schedule(entry.schedule, known)
        return ()
    if len(state.schedules) >= MAX_SCHEDULES:
        raise TooManySchedules(
            f"The thread has {MAX_SCHEDULES} schedules, which is the most; cancel one first."
        )
    return [ScheduleCreated(run_id=entry.run_id, schedule=replace(entry.schedule, by=entry.by))]


def fire(thread_id: str, state: ThreadState, schedule: Schedule) -> SendEntry | None:
    """Returns the message of a schedule that is due, or None if its run before has not begun.

    Run and message are named after schedule and due time, so that they are the same in any process.
    """
    if any(queued.schedule_id == schedule.id for queued in state.queue):
        return None
    names = (thread_id, schedule.id, repr(schedule.due_at))
    # The text of a schedule that is due once is removed together with its message.
    id = id_of("msg", *names) if schedule.cron else schedule.item.id
    item = replace(schedule.item, id=id)
    return SendEntry(
        id_of("run", *names),
        item,
        agent=schedule.agent,
        options=schedule.options,
        schedule_id=schedule.id,
        by=schedule.by,
    )


def _answer(state: ThreadState, entry: AnswerEntry) -> RecordedEvent | None:
    match entry:
        case OutputEntry():
            return output_of(state, entry.call_id, entry.output, is_error=entry.is_error)
        case ApprovalEntry():
            return approval_of(state, entry.call_id, entry.arguments)
        case DenialEntry():
            return denial_of(state, entry.call_id, entry.reason)
        case _ as unreachable:
            assert_never(unreachable)


def _recorded(event: RecordedEvent | None) -> Sequence[RecordedEvent]:
    return () if event is None else [event]


def _send(state: ThreadState, entry: SendEntry) -> Accepted:
    if entry.on_busy == "steer" and (entry.options is not None or entry.so_far):
        # Refused whether or not a run is active, so that it does not depend on the moment.
        what = "options" if entry.options is not None else "so_far"
        raise InvalidInput(
            'A message with on_busy="steer" enters the active run, which has its options and its '
            f'answer already; send it without {what}, or with on_busy="queue" or "cancel".'
        )
    run = state.active_run
    if entry.fork and _has_gone_on(state, entry.expect):
        return ForkThread(entry)
    _require_expected(state, entry.expect)
    if entry.item is None and not state.history:
        raise InvalidInput("The thread has no message that a run could answer; send one.")
    if run is None and not state.queue:
        return StartRun(entry)
    item = entry.item
    if item is not None and entry.on_busy == "steer" and run and run.status != "cancelling":
        waiting = [MessageQueued(run_id=run.id, item=item) for item in entry.before]
        return [*waiting, MessageQueued(run_id=run.id, item=item, key=entry.key)]
    if entry.on_busy == "reject" or entry.item is None:
        busy = run.id if run is not None else state.queue[0].id
        raise RunInProgress(f"The run {busy} is in progress; try again later.", run_id=busy)
    if entry.on_busy == "cancel" and run is not None:
        return [*_cancelling(run), queue(entry)]
    return [queue(entry)]


def _add(state: ThreadState, entry: AddEntry) -> Sequence[RecordedEvent]:
    _require_expected(state, entry.expect)
    run = state.active_run
    if run is not None or state.queue:
        busy = run.id if run is not None else state.queue[0].id
        raise RunInProgress(
            f"The run {busy} is in progress, so no items can be added; send them, or add them when "
            "it has ended.",
            run_id=busy,
        )
    events = cast("list[RecordedEvent]", entering(entry.items))
    marks = [ItemsAdded(key=entry.key, digest=entry.digest)] if entry.key else []
    return [*events, *marks]


def _has_gone_on(state: ThreadState, expect: int | None) -> bool:
    """Whether the thread cannot simply continue after event `expect`."""
    if expect is not None and expect <= state.seq:
        return expect < state.said or state.active_run is not None or bool(state.queue)
    return False


def _require_expected(state: ThreadState, expect: int | None) -> None:
    """Raises `Conflict` if the conversation has gone on after event `expect`."""
    if expect is None:
        return
    if expect > state.seq:
        raise InvalidInput(f"The thread has the events 1 to {state.seq}, not {expect}.")
    if expect < state.said:
        raise Conflict(
            f"Event {state.said} came after event {expect}; read what was said, and send again "
            f"with expect={state.seq}.",
            seq=state.seq,
        )


def _cancel(state: ThreadState, run_id: str) -> Sequence[RecordedEvent]:
    run = state.active_run
    if run is not None and run.id == run_id:
        return _cancelling(run)
    if any(queued.id == run_id for queued in state.queue):
        return [RunCancelled(run_id=run_id, usage=Usage())]
    return ()


def _cancelling(run: Run) -> Sequence[RecordedEvent]:
    return () if run.status == "cancelling" else [RunCancelling(run_id=run.id)]


def _remove(state: ThreadState, removal: Removal | None) -> Sequence[ItemRemoved]:
    if removal is None or not removal.events:
        return ()  # it was removed before
    step = state.step
    if step is not None and any(key_of(item) in removal.keys for _, item in step.items):
        raise Conflict("The item belongs to the step in progress; remove it once the step is over.")
    if any(key_of(one.item) in removal.keys for one in state.schedules.values()):
        raise Conflict("The message belongs to a schedule; cancel that one first.")
    numbers = tuple(event.seq for event in removal.events)
    return [ItemRemoved(events=numbers, keys=tuple(sorted(removal.keys)))]


def _undo(state: ThreadState, entry: UndoEntry, changes: Sequence[MemoryUpdated]) -> MemoryUpdated:
    if not changes:
        what = (
            f"There is no change {entry.seq} of" if entry.seq else "There is no change to undo of"
        )
        raise ChangeNotUndoable(f"{what} the memory block {entry.label[:100]!r}.")
    return undo(state.memory, changes[0], changes[1:], "user")
