"""The changes that events make in the tables for queries; pure, the same for every journal."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Literal, assert_never

import msgspec
from msgspec import Struct
from msgspec.structs import asdict, replace

from treadle.domain.desk import DESK_TYPES
from treadle.domain.events import (
    Awaited,
    DurableEvent,
    ItemsAdded,
    JobSettled,
    JobStarted,
    MessageAdded,
    MessageQueued,
    RecordedEvent,
    RunCancelled,
    RunCompleted,
    RunExpired,
    RunFailed,
    RunIncomplete,
    RunQueued,
    RunStarted,
    ScheduleCancelled,
    ScheduleCreated,
    ScheduleFired,
    StopReason,
    TerminalEvent,
    ThreadUpdated,
    ToolApproved,
    ToolCallRequested,
    ToolOutputRecorded,
)
from treadle.domain.retention import UNSTORED_SECONDS, is_unused
from treadle.domain.schedules import Schedule
from treadle.domain.state import RunStatus, ThreadState, can_go_on
from treadle.domain.usage import Usage

MAX_TITLE = 80

OPEN_STATUSES: tuple[RunStatus, ...] = ("queued", "in_progress", "requires_action", "cancelling")
"""The statuses of runs that have not ended, and so of threads that have such a run."""

NO_STATES: Mapping[str, ThreadState] = MappingProxyType({})


class RunError(Struct, frozen=True):
    """Why a run failed: the fields of its `RunFailed`."""

    code: str
    message: str
    retryable: bool = False


class RunRecord(Struct, frozen=True, kw_only=True):
    """A run as lists show it.

    `agent` is the one that it began with. `first_seq` is the number of its `run.started`, 0 before
    the run has begun, `last_seq` that of its terminal event, 0 before it has ended; `seq` is the
    number of its first event, which is its place in lists. `message_id` is the id of the message
    that it answers, "" for a run that reports the end of a background job.

    Times are Unix seconds, None if it did not wait, has not begun or not ended. `usage`, `cost` (in
    the currency of the prices) and `steps` are set once it has ended, and so is `stop_reason`;
    `error` is set if it failed. `metadata` is that of the options of the run.
    """

    id: str
    thread_id: str = ""
    agent: str
    agent_hash: str = ""
    status: RunStatus = "queued"
    seq: int = 0
    first_seq: int = 0
    last_seq: int = 0
    message_id: str = ""
    queued_at: float | None = None
    started_at: float | None = None
    ended_at: float | None = None
    steps: int = 0
    usage: Usage = Usage()
    cost: float = 0.0
    stop_reason: StopReason | None = None
    error: RunError | None = None
    metadata: Mapping[str, object] = msgspec.field(default_factory=dict[str, object])


class CallRecord(Struct, frozen=True):
    """A call that waits for an answer, and the event `seq` that requested it."""

    call_id: str
    run_id: str
    agent: str
    awaits: Awaited
    seq: int
    since: float


class Sent(Struct, frozen=True):
    """A message that was sent with an idempotency key, and the run that it started or steered.

    For items that were added, `run_id` is "", and `message_id` identifies the items.
    """

    run_id: str
    message_id: str


DueKind = Literal["approval", "deletion", "schedule"]
"""What is due: the expiry of a run that requires action, the deletion of a thread, or a schedule.
"""

UNUSED = "unused"
"""The id of the deletion of a thread that is not stored; that of one that expires has none."""


class DueTime(Struct, frozen=True):
    """The time (Unix seconds) at which something is due on a thread; None if it no longer is.

    `id` and `schedule` are those of a schedule; of a deletion, `id` is `UNUSED` or "".
    """

    kind: DueKind
    at: float | None
    id: str = ""
    schedule: Schedule | None = None


class Projection(Struct, frozen=True):
    """The rows that a batch of events changes: of the thread, its runs, keys and due times.

    `keys` are pairs of an idempotency key and what was sent with it. `jobs` counts the jobs that
    have not settled, or whose end has not been announced yet. `awaited` are the ids of all calls
    that wait for an answer, `calls` those of them that are new; None changes no row of a call.
    `title` is used if the thread has none. `new_title`, `metadata` (changes, see
    `treadle.domain.metadata.updated`) and `expires_at` are those of a `ThreadUpdated`. `told` are
    the numbers and types of the events that a desk is told of (`treadle.domain.desk`).
    """

    status: RunStatus | None
    updated_at: float
    title: str
    runs: tuple[RunRecord, ...]
    keys: tuple[tuple[str, Sent], ...] = ()
    jobs: int = 0
    awaited: tuple[str, ...] | None = None
    calls: tuple[CallRecord, ...] = ()
    new_title: str | None = None
    metadata: Mapping[str, object] | None = None
    told: tuple[tuple[int, str], ...] = ()
    due: tuple[DueTime, ...] = ()
    expires_at: float | Literal["never"] | None = None


class Standing(Struct, frozen=True):
    """What the rows of a thread follow from besides the events.

    Its status, the awaited calls, when its run expires, and the status of its active run.
    """

    status: RunStatus | None = None
    awaited: tuple[str, ...] = ()
    expires_at: float | None = None
    run: RunStatus | None = None


def standing_of(state: ThreadState) -> Standing:
    """Returns the standing of a thread."""
    step, run = state.step, state.active_run
    if run is None:
        return Standing(status_of(state))
    if step is None or not step.awaits:
        return Standing(status_of(state), run=run.status)
    awaited = tuple(call.call_id for call in step.awaited)
    return Standing(status_of(state), awaited, run.expires_at, run.status)


def project(
    events: Sequence[RecordedEvent],
    before: Standing,
    state: ThreadState,
    final: Mapping[str, ThreadState] = NO_STATES,
    *,
    is_stored: bool = True,
) -> Projection | None:
    """Returns the rows that `events` change, or None.

    `before` is the standing of the thread before them, `state` the fold after them, and `final`
    contains the states right after the ends of runs among them. A thread that is not stored is
    due for deletion some time after the last change, if nothing is left to do on it.
    """
    after = standing_of(state)
    rows = _Rows(final, before.awaited, after.awaited)
    for event in events:
        rows.take(event)
    active = state.active_run
    if active is not None and (active.id in rows.runs or after.run != before.run):
        known = rows.runs.get(active.id) or RunRecord(id=active.id, agent="")
        rows.runs[active.id] = replace(known, status=active.status)
    is_waiting_changed = before.awaited != after.awaited or bool(rows.calls)
    due = [_due_time(state, id) for id in sorted(rows.scheduled)]
    if before.expires_at != after.expires_at:
        due.append(DueTime("approval", after.expires_at))
    if rows.expires_at is not None:
        due.append(DueTime("deletion", None if rows.expires_at == "never" else rows.expires_at))
    if not (rows.are_changed or is_waiting_changed or due or after.status != before.status):
        return None
    if not is_stored:
        unused_at = events[-1].at + UNSTORED_SECONDS if is_unused(state) else None
        due.append(DueTime("deletion", unused_at, UNUSED))
    return Projection(
        after.status,
        events[-1].at,
        rows.title,
        tuple(rows.runs.values()),
        tuple(rows.keys.items()),
        jobs_of(state),
        after.awaited if is_waiting_changed else None,
        tuple(replace(call, agent=active.agent) for call in rows.calls) if active else (),
        rows.new_title,
        rows.metadata,
        tuple(rows.told),
        tuple(due),
        rows.expires_at,
    )


def _due_time(state: ThreadState, schedule_id: str) -> DueTime:
    schedule = state.schedules.get(schedule_id)
    at = None if schedule is None else schedule.due_at
    return DueTime("schedule", at, schedule_id, schedule)


def due_times(state: ThreadState) -> Iterator[DueTime]:
    """Yields all that is due on a thread in this state."""
    expires_at = standing_of(state).expires_at
    if expires_at is not None:
        yield DueTime("approval", expires_at)
    for id in state.schedules:
        yield _due_time(state, id)


class _Rows:
    """The rows that events change, collected."""

    def __init__(
        self,
        final: Mapping[str, ThreadState],
        waited: Collection[str],
        awaited: Collection[str],
    ) -> None:
        self.runs: dict[str, RunRecord] = {}
        self.keys: dict[str, Sent] = {}
        self.calls: list[CallRecord] = []
        self.title = ""
        self.new_title: str | None = None
        self.metadata: dict[str, object] | None = None
        self.expires_at: float | Literal["never"] | None = None
        self.scheduled: set[str] = set()
        self._others = False  # what is counted
        self._final = final
        self._awaited = awaited
        self._waiting = set(waited)  # the calls that wait where the next event comes
        self.told: list[tuple[int, str]] = []
        self._asked: MessageAdded | None = None  # the message that starts the next run

    @property
    def are_changed(self) -> bool:
        """Whether any row changes, other than by a status."""
        is_updated = self.new_title is not None or self.metadata is not None
        others = self._others or is_updated or self.told
        return bool(self.runs or self.keys or self.title or others)

    def take(self, event: RecordedEvent) -> None:
        """Takes note of an event."""
        if self._is_told(event):
            self.told.append((event.seq, event.type))
        match event:
            case RunQueued():
                self._add_key(event.key, event.run_id, event.item.id)
                self.runs[event.run_id] = RunRecord(
                    id=event.run_id,
                    agent=event.agent,
                    seq=event.seq,
                    message_id=event.item.id,
                    queued_at=event.at,
                    metadata=_metadata(event),
                )
            case MessageQueued():
                self._add_key(event.key, event.run_id, event.item.id)
            case RunStarted():
                self._start(event)
            case RunCompleted() | RunIncomplete() | RunFailed() | RunCancelled() | RunExpired():
                self._end(event)
            case ToolCallRequested(awaits=awaits, item=item) if awaits is not None:
                if item.call_id in self._awaited:
                    self.calls.append(
                        CallRecord(item.call_id, event.run_id, "", awaits, event.seq, event.at)
                    )
            case ScheduleCreated() | ScheduleCancelled() | ScheduleFired():
                self._schedule(event)
            case JobStarted() | JobSettled() | MessageAdded(origin="job"):
                self._others = True
            case MessageAdded(origin="user" | "schedule"):
                self._ask(event)
            case ItemsAdded():
                self._others = True
                self._add_key(event.key, "", event.digest)
            case ThreadUpdated():
                self._update(event)
            case _:
                pass  # changes no row

    def _is_told(self, event: RecordedEvent) -> bool:
        match event:
            case ToolCallRequested(awaits=awaits, item=item):
                if awaits is not None:
                    self._waiting.add(item.call_id)
                return awaits is not None
            case ToolApproved(call_id=call_id):
                self._waiting.discard(call_id)
                return True
            case ToolOutputRecorded(item=item):
                is_answer = item.call_id in self._waiting
                self._waiting.discard(item.call_id)
                return is_answer
            case _:
                return event.type in DESK_TYPES

    def _ask(self, event: MessageAdded) -> None:
        self._asked = event
        if not event.run_id:
            self._others = True
            if event.item.role != "user":
                return  # not what a person began the conversation with
        self.title = self.title or _title(event.item.text)
        if self.new_title == "":  # it was to be named anew
            self.new_title = _title(event.item.text)

    def _update(self, event: ThreadUpdated) -> None:
        if event.title is not None:
            self.new_title = event.title
        if event.metadata is not None:
            self.metadata = {**(self.metadata or {}), **event.metadata}
        if event.expires_at is not None:
            self.expires_at = event.expires_at

    def _schedule(self, event: ScheduleCreated | ScheduleCancelled | ScheduleFired) -> None:
        if isinstance(event, ScheduleCreated):
            self.scheduled.add(event.schedule.id)
            return
        self.scheduled.add(event.schedule_id)
        if isinstance(event, ScheduleFired) and event.next_at is None:
            # It must not be created again with its key.
            self.keys.setdefault(event.schedule_id, Sent(event.run_id, ""))

    def _add_key(self, key: str, run_id: str, message_id: str) -> None:
        if key:
            self.keys[key] = Sent(run_id, message_id)

    def _start(self, event: RunStarted) -> None:
        # The message is recorded in the same turn of the event loop, right before.
        asked = self._asked if self._asked and self._asked.run_id == event.run_id else None
        message_id = asked.item.id if asked is not None else ""
        self._add_key(event.key, event.run_id, message_id)
        record = RunRecord(
            id=event.run_id,
            agent=event.agent,
            agent_hash=event.agent_hash,
            status="in_progress",
            seq=event.seq,
            first_seq=event.seq,
            message_id=message_id,
            started_at=event.at,
            metadata=_metadata(event),
        )
        queued = self.runs.get(event.run_id)
        self.runs[event.run_id] = record if queued is None else merged(queued, record)

    def _end(self, event: TerminalEvent) -> None:
        known = self.runs.get(event.run_id) or RunRecord(id=event.run_id, agent="")
        status = _END[type(event)]
        state = self._final.get(event.run_id)
        run = state.run if state is not None else None
        is_last = run is not None and run.id == event.run_id  # else it was dropped from the queue
        self.runs[event.run_id] = replace(
            known,
            seq=known.seq or event.seq,
            status=status,
            last_seq=event.seq,
            ended_at=event.at,
            steps=run.steps if run is not None and is_last else 0,
            usage=run.usage if run is not None and is_last else event.usage,
            cost=run.cost if run is not None and is_last else 0.0,
            stop_reason=_stop_reason(event),
            error=(
                RunError(event.code, event.message, event.retryable)
                if isinstance(event, RunFailed)
                else None
            ),
        )


def _metadata(event: RunQueued | RunStarted) -> Mapping[str, object]:
    return event.options.metadata if event.options is not None else {}


def _stop_reason(event: TerminalEvent) -> StopReason:
    match event:
        case RunCompleted() | RunIncomplete():
            return event.stop_reason
        case RunFailed():
            return "failed"
        case RunCancelled():
            return "cancelled"
        case RunExpired():
            return "expired"
        case _ as unreachable:
            assert_never(unreachable)


def jobs_of(state: ThreadState) -> int:
    """Counts the jobs of a thread that have not settled, or whose end was not announced yet."""
    return len(state.jobs) + sum(told.wakes for told in state.announced)


def status_of(state: ThreadState) -> RunStatus | None:
    """Returns the status of a thread: of its active run, else of its queue, else of its last run.

    A run that requires action while other calls of its step still run counts as in progress, so
    that it is resumed after a crash; its own record is that of a run that requires action.
    """
    run = state.active_run
    if run is not None:
        waits = run.status == "requires_action"
        return "in_progress" if waits and can_go_on(state) else run.status
    if state.queue:
        return "queued"
    return state.run.status if state.run is not None else None


_END: dict[type[DurableEvent], RunStatus] = {
    RunCompleted: "completed",
    RunIncomplete: "incomplete",
    RunFailed: "failed",
    RunCancelled: "cancelled",
    RunExpired: "expired",
}


_EMPTY = asdict(RunRecord(id="", agent=""))


def merged(old: RunRecord, new: RunRecord) -> RunRecord:
    """Returns `new`, with its empty fields taken from `old`."""
    fields = asdict(new)
    kept = {
        name: value
        for name, value in asdict(old).items()
        if name != "status" and fields[name] == _EMPTY[name]
    }
    seq = old.seq or new.seq  # it is its first event that counts
    return replace(new, **{**kept, "seq": seq})


def place_of(run: RunRecord) -> tuple[int, str]:
    """Returns the sort key of a run in its thread: by its first event."""
    return (run.seq, run.id)


def _title(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= MAX_TITLE else f"{line[: MAX_TITLE - 1]}…"
