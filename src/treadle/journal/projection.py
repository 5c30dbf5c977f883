"""The changes that events make in the tables for queries; pure, the same for every journal."""

from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from treadle.domain.events import (
    DurableEvent,
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
    RunRequiresAction,
    RunStarted,
)
from treadle.domain.items import Message
from treadle.domain.state import RunStatus, ThreadState, can_go_on

MAX_TITLE = 80


class RunRecord(Struct, frozen=True, kw_only=True):
    """A run as the journal lists it: its agent, its status, and its first and last event.

    `first_seq` is 0 before the run has begun, `last_seq` before it has ended.
    """

    id: str
    agent: str
    agent_hash: str = ""
    status: RunStatus = "queued"
    first_seq: int = 0
    last_seq: int = 0


class Sent(Struct, frozen=True):
    """A message that was sent with an idempotency key, and the run that it started or steered."""

    run_id: str
    message_id: str


class Projection(Struct, frozen=True):
    """The rows that a batch of events changes: of the thread, of its runs and of its keys.

    `keys` are pairs of an idempotency key and what was sent with it. `jobs` counts the jobs that
    have not settled, or whose end has not been announced yet.
    """

    status: RunStatus | None
    updated_at: float
    title: str
    expires_at: float | None
    runs: tuple[RunRecord, ...]
    keys: tuple[tuple[str, Sent], ...] = ()
    jobs: int = 0


def project(
    events: Sequence[RecordedEvent], before: RunStatus | None, state: ThreadState
) -> Projection | None:
    """Returns the rows that `events` change, or None.

    `before` is the status of the thread before them, `state` the fold after them.
    """
    status = status_of(state)
    runs: dict[str, RunRecord] = {}
    title = ""
    keys: dict[str, Sent] = {}
    asked: Message | None = None  # the message that starts the next run
    waits = jobs = False
    for event in events:
        if isinstance(event, RunQueued | MessageQueued) and event.key:
            keys[event.key] = Sent(event.run_id, event.item.id)
        match event:
            case RunQueued():
                runs[event.run_id] = RunRecord(id=event.run_id, agent=event.agent)
            case RunStarted():
                # The message is recorded in the same turn of the event loop, right before.
                if event.key and asked is not None:
                    keys[event.key] = Sent(event.run_id, asked.id)
                runs[event.run_id] = RunRecord(
                    id=event.run_id,
                    agent=event.agent,
                    agent_hash=event.agent_hash,
                    status="in_progress",
                    first_seq=event.seq,
                )
            case RunCompleted() | RunIncomplete() | RunFailed() | RunCancelled() | RunExpired():
                runs[event.run_id] = _ended(runs.get(event.run_id), event, _END[type(event)])
            case RunRequiresAction():
                waits = True  # it may expire at another time than before
            case JobStarted() | JobSettled() | MessageAdded(origin="job"):
                jobs = True
            case MessageAdded(origin="user"):
                title, asked = title or _title(event.item.text), event.item
            case _:
                pass  # changes no row
    if not (runs or keys or title or waits or jobs) and status == before:
        return None
    expires_at = state.active_run.expires_at if state.active_run is not None else None
    return Projection(
        status,
        events[-1].at,
        title,
        expires_at,
        tuple(runs.values()),
        tuple(keys.items()),
        jobs_of(state),
    )


def jobs_of(state: ThreadState) -> int:
    """Counts the jobs of a thread that have not settled, or whose end was not announced yet."""
    return len(state.jobs) + sum(told.wakes for told in state.announced)


def status_of(state: ThreadState) -> RunStatus | None:
    """Returns the status of a thread: of its active run, else of its queue, else of its last run.

    A run that requires action while other calls of its step still run counts as in progress, so
    that it is resumed after a crash.
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


def _ended(known: RunRecord | None, event: RecordedEvent, status: RunStatus) -> RunRecord:
    """The record of a run that ended; empty fields keep their value in the table."""
    known = known or RunRecord(id=event.run_id, agent="")
    return replace(known, status=status, last_seq=event.seq)


def merged(old: RunRecord, new: RunRecord) -> RunRecord:
    """Returns `new`, with its empty fields taken from `old`."""
    return RunRecord(
        id=old.id,
        agent=new.agent or old.agent,
        agent_hash=new.agent_hash or old.agent_hash,
        status=new.status,
        first_seq=new.first_seq or old.first_seq,
        last_seq=new.last_seq or old.last_seq,
    )


def order(run: RunRecord) -> tuple[int, str]:
    """Returns the sort key of a run in its thread: by its beginning; waiting runs come last."""
    return (run.first_seq or run.last_seq or 1 << 62, run.id)


def _title(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= MAX_TITLE else f"{line[: MAX_TITLE - 1]}…"
