"""A copy of a thread up to some event, closed so that it can continue in another way."""

from collections.abc import Sequence
from typing import NamedTuple, cast

from msgspec.structs import replace

from treadle.clock import now
from treadle.domain.accept import entering
from treadle.domain.envelope import Envelope, recorded
from treadle.domain.events import (
    JobSettled,
    LiveEvent,
    MessageAdded,
    RecordedEvent,
    RunCancelled,
    RunQueued,
    ScheduleCancelled,
    TerminalEvent,
)
from treadle.domain.fold import apply
from treadle.domain.ids import new_id
from treadle.domain.items import Item
from treadle.domain.retention import is_unused
from treadle.domain.state import ThreadState
from treadle.domain.usage import Usage
from treadle.journal.base import Fork, ThreadInfo
from treadle.journal.projection import (
    UNUSED,
    DueTime,
    Projection,
    RunRecord,
    Sent,
    Standing,
    jobs_of,
    merged,
    project,
    status_of,
)
from treadle.loop.drive import cancel


class Addition:
    """Fulfils `ThreadWriter` by collecting the events of a thread that does not exist yet.

    New events have the time `at`. `final` contains the states right after the ends of its runs.
    """

    def __init__(self, thread_id: str, state: ThreadState, at: float) -> None:
        self.id = thread_id
        self.at = at
        self.state = state
        self.entries: list[Envelope] = []
        self.final: dict[str, ThreadState] = {}

    def record(self, event: RecordedEvent) -> None:
        """Numbers `event` and adds it."""
        self.add(replace(event, seq=self.state.seq + 1, at=self.at))

    def add(self, event: RecordedEvent) -> None:
        """Applies an event that has its number; raises what `apply` raises."""
        self.state = apply(self.state, event)
        self.entries.append(Envelope(event, event.seq))
        if isinstance(event, TerminalEvent):
            self.final[event.run_id] = self.state

    async def durable(self) -> None:
        """Returns at once: all is appended together."""

    def publish(self, event: LiveEvent, /) -> None:
        """Does nothing: a thread that does not exist yet has no subscribers."""

    async def event_of(self, item: Item) -> int:
        """Returns 0: a thread that does not exist yet asks no model."""
        return 0


class Seed(NamedTuple):
    """The first events of a thread, their fold, and the rows for queries that follow from them."""

    entries: Sequence[Envelope]
    state: ThreadState
    projection: Projection | None


def seed_of(thread_id: str, items: Sequence[Item], by: str) -> Seed:
    """Returns how a thread begins that has `items`, a valid history, from the principal `by`."""
    addition = Addition(thread_id, ThreadState(), now())
    for event in entering(items, by):
        addition.record(cast("RecordedEvent", event))
    entries = addition.entries
    projection = project(recorded(entries), Standing(), addition.state) if entries else None
    return Seed(entries, addition.state, projection)


def close(addition: Addition) -> None:
    """Ends what is under way: the run, its jobs, the runs that wait, and the schedules.

    Jobs and runs are cancelled. What background jobs had to tell is told.
    """
    state = addition.state
    for job in reversed(list(state.jobs.values())):
        addition.record(JobSettled(run_id=job.run_id, job_id=job.id, outcome="cancelled"))
    if state.active_run is not None:
        cancel(addition)
    for told in addition.state.announced:  # it starts no run
        addition.record(MessageAdded(run_id=told.run_id, item=told.item, origin="job"))
    for schedule_id in addition.state.schedules:  # else it would be due in both threads
        addition.record(ScheduleCancelled(schedule_id=schedule_id))
    for queued in addition.state.queue:
        addition.record(RunCancelled(run_id=queued.id, usage=Usage()))


def fork_of(
    state: ThreadState,
    original: ThreadInfo,
    runs: list[RunRecord],
    *,
    id: str = "",
    then: RunQueued | None = None,
) -> Fork:
    """Returns the fork of a thread right after the event that led to `state`.

    A run and the jobs that were under way are cancelled in the fork, and the runs that waited are
    dropped. What background jobs had to tell is told. `id` is that of the fork, by default a new
    one; `then` is the run that is next in it.
    """
    created_at = now()
    info = replace(
        original,
        id=id or new_id("thread"),
        key="",
        key_digest="",
        created_at=created_at,
        updated_at=created_at,
        status=None,
        forked_from=original.id,
        work=None,
    )
    addition = Addition(info.id, state, created_at)
    close(addition)
    if then is not None:
        addition.record(then)
    copied = {
        run.id: run if run.last_seq <= state.seq else _not_ended(run)
        for run in runs
        if 0 < run.first_seq <= state.seq
    }
    waited = {run.id: run for run in runs}
    for queued in state.queue:
        waiting = waited.get(queued.id) or RunRecord(id=queued.id, agent=queued.agent)
        copied[queued.id] = _not_begun(waiting)
    if addition.entries:
        events = recorded(addition.entries)
        added = project(events, Standing(), addition.state, addition.final)
        for run in added.runs if added is not None else ():
            copied[run.id] = merged(copied.get(run.id, run), run)
    projection = Projection(
        status_of(addition.state),
        created_at,
        info.title,
        tuple(copied.values()),
        ((then.key, Sent(then.run_id, then.item.id)),) if then is not None and then.key else (),
        jobs=jobs_of(addition.state),
        due=(
            () if info.store or is_unused(addition.state) else (DueTime("deletion", None, UNUSED),)
        ),
    )
    return Fork(original.id, state.seq, info, addition.entries, projection)


def _not_ended(run: RunRecord) -> RunRecord:
    """Returns a run as it was before its end."""
    return replace(
        run,
        status="in_progress",
        last_seq=0,
        ended_at=None,
        steps=0,
        usage=Usage(),
        cost=0.0,
        stop_reason=None,
        error=None,
    )


def _not_begun(run: RunRecord) -> RunRecord:
    """Returns a run as it was while it waited."""
    run = _not_ended(run)
    return replace(run, status="queued", first_seq=0, started_at=None, agent_hash="")
