"""Named commit points: the places where a kill is most likely to lose or double something.

The seams of the runtime are wrapped from outside, in the process that is to be killed; nothing of
this is in the runtime itself.
"""

import os
import signal
from collections.abc import Callable
from importlib import import_module
from types import UnionType
from typing import Any, NamedTuple, TypeVar, cast

import chaos.tasks
import treadle.actors.threads
import treadle.bus.socket
import treadle.journal.sql_writes
import treadle.loop.calls
import treadle.loop.drive
import treadle.loop.safe_point
import treadle.tools.call
from chaos.database import server
from treadle.actors.actor import ThreadActor
from treadle.actors.delegation import ThreadDelegation
from treadle.actors.driver import Driver
from treadle.actors.files import ThreadFiles
from treadle.actors.intake import Intake
from treadle.actors.journaled import JournaledThread
from treadle.actors.thread_jobs import ThreadJobs
from treadle.bus.topic import Topic
from treadle.domain.entries import (
    AddEntry,
    AnswerEntry,
    CancelEntry,
    MemoryEntry,
    ScheduleEntry,
    SendEntry,
    UndoEntry,
)
from treadle.domain.events import (
    JobDelegated,
    JobSettled,
    JobStarted,
    MemoryUpdated,
    MessageAdded,
    ScheduleFired,
    TerminalEvent,
    ToolOutputRecorded,
)
from treadle.jobs.lifecycle import Lifecycle
from treadle.journal.sql_files import SqlFiles
from treadle.journal.sql_journal import SqlJournal
from treadle.journal.sql_writes import Transactions
from treadle.memory.blocks.thread_memory import ThreadMemory

E = TypeVar("E")

_ADAPTER = import_module(f"treadle.journal.{'postgres' if server() else 'sqlite'}")

Wrapped = Callable[..., Any]
Reached = Callable[[], None]


class Point(NamedTuple):
    """A function and the place before, in or after it; reached at least `often` times a life."""

    owner: object
    attribute: str
    wrap: Callable[[Any, Reached], Any]
    often: int = 3


def kill_self() -> None:
    """Ends this process as `kill -9` does."""
    os.kill(os.getpid(), signal.SIGKILL)


def _before(original: Wrapped, reached: Reached) -> Wrapped:
    def wrapper(*args: Any, **options: Any) -> Any:
        reached()
        return original(*args, **options)

    return wrapper


def _after(original: Wrapped, reached: Reached) -> Wrapped:
    def wrapper(*args: Any, **options: Any) -> Any:
        result = original(*args, **options)
        reached()
        return result

    return wrapper


def _after_await(original: Wrapped, reached: Reached) -> Wrapped:
    async def wrapper(*args: Any, **options: Any) -> Any:
        result = await original(*args, **options)
        reached()
        return result

    return wrapper


def _taking(
    kind: type[E] | UnionType, where: Callable[[E], bool] = lambda entry: True
) -> Callable[[Wrapped, Reached], Wrapped]:
    """After a method that took an entry of this kind."""

    def wrap(original: Wrapped, reached: Reached) -> Wrapped:
        async def wrapper(self: object, entry: object, *args: Any) -> Any:
            result = await original(self, entry, *args)
            if isinstance(entry, kind) and where(cast("E", entry)):
                reached()
            return result

        return wrapper

    return wrap


def _with(
    kind: type[E] | UnionType, where: Callable[[E], bool] = lambda event: True
) -> Callable[[Wrapped, Reached], Wrapped]:
    """After a method that was given an event of this kind."""

    def wrap(original: Wrapped, reached: Reached) -> Wrapped:
        def wrapper(self: object, event: object) -> None:
            original(self, event)
            if isinstance(event, kind) and where(cast("E", event)):
                reached()

        return wrapper

    return wrap


POINTS: dict[str, Point] = {
    "before the tables are made": Point(_ADAPTER, "migrate", _before, 1),
    "after the tables are made": Point(_ADAPTER, "migrate", _after, 1),
    "live socket open": Point(treadle.bus.socket.SocketBus, "serve", _after_await, 1),
    "thread made": Point(Driver, "create", _after_await, 1),
    "thread claimed": Point(SqlJournal, "claim", _after_await, 5),
    "before the transaction": Point(Transactions, "commit", _before, 40),
    "events written, not their rows": Point(
        treadle.journal.sql_writes, "_insert_events", _after, 40
    ),
    "in the transaction": Point(Transactions, "_append", _after, 40),
    "after the transaction": Point(Transactions, "commit", _after, 40),
    "before publishing": Point(Topic, "publish", _before, 40),
    "after publishing": Point(Topic, "publish", _after, 40),
    "message taken": Point(Intake, "_take", _taking(SendEntry), 8),
    "message durable, not acknowledged": Point(ThreadActor, "submit", _taking(SendEntry), 8),
    "answer taken": Point(Intake, "_take", _taking(AnswerEntry), 5),
    "answer durable, not acknowledged": Point(ThreadActor, "submit", _taking(AnswerEntry), 5),
    "cancel taken": Point(Intake, "_take", _taking(CancelEntry), 1),
    "inbox taken": Point(Intake, "take_inbox", _after_await),
    "tool started": Point(treadle.loop.calls.StepCalls, "_attempt", _after_await, 21),
    "tool done, no output yet": Point(treadle.tools.call, "_attempt", _after_await, 21),
    "tool output recorded": Point(JournaledThread, "record", _with(ToolOutputRecorded), 21),
    "run ended, not durable": Point(JournaledThread, "record", _with(TerminalEvent), 3),
    "run ended, durable": Point(ThreadActor, "_on_kept", _with(TerminalEvent), 3),
    "hook done, nothing recorded": Point(treadle.loop.safe_point, "_record", _before, 3),
    "agent asked to work": Point(ThreadDelegation, "_require_thread", _after_await, 2),
    "agent done, not counted": Point(ThreadDelegation, "_count", _before, 2),
    "job recorded, not durable": Point(JournaledThread, "record", _with(JobStarted), 10),
    "job durable": Point(ThreadActor, "_on_kept", _with(JobStarted), 10),
    "job began": Point(chaos.tasks, "begin", _after, 10),
    "in a job": Point(chaos.tasks, "at_work", _after_await, 10),
    "job done, nothing recorded": Point(Lifecycle, "_node_body_ended", _before, 10),
    "job settled, not durable": Point(JournaledThread, "record", _with(JobSettled), 10),
    "job settled, durable": Point(ThreadActor, "_on_kept", _with(JobSettled), 10),
    "agent asked to work for a job": Point(JournaledThread, "record", _with(JobDelegated), 2),
    "job announced": Point(
        ThreadActor, "_on_kept", _with(JobSettled, lambda event: event.wakes), 1
    ),
    "job announced to the agent": Point(
        JournaledThread, "record", _with(MessageAdded, lambda event: event.origin == "job"), 2
    ),
    "run waits for its jobs": Point(treadle.loop.drive, "_wait_for_jobs", _before),
    "jobs recovered, not durable": Point(ThreadJobs, "recover", _after),
    "job to be started again": Point(
        ThreadActor, "_on_kept", _with(JobStarted, lambda event: event.attempt > 1)
    ),
    "agent of a job to be stopped": Point(Driver, "abandon", _before, 1),
    "shared memory to be made": Point(treadle.actors.threads, "require_shared", _before, 1),
    "shared memory made": Point(treadle.actors.threads, "require_shared", _after_await, 1),
    "blocks prepared, not durable": Point(ThreadMemory, "prepare", _after_await),
    "block changed, not durable": Point(JournaledThread, "record", _with(MemoryUpdated), 10),
    "block changed, durable": Point(ThreadActor, "_on_kept", _with(MemoryUpdated), 10),
    "thread to be told of a change": Point(
        JournaledThread, "record", _with(MemoryUpdated, lambda event: bool(event.memory))
    ),
    "block edited by a call": Point(ThreadMemory, "edit", _after_await),
    "change of a block taken": Point(Intake, "_take", _taking(MemoryEntry)),
    "change of a block durable, not acknowledged": Point(
        ThreadActor, "submit", _taking(MemoryEntry)
    ),
    "change of a block undone": Point(Intake, "_take", _taking(UndoEntry), 1),
    "message with expect taken": Point(
        Intake, "_take", _taking(SendEntry, lambda entry: entry.expect is not None), 1
    ),
    "items added, not acknowledged": Point(ThreadActor, "submit", _taking(AddEntry), 1),
    "thread copied": Point(SqlJournal, "fork", _after_await, 1),
    "schedule made, not acknowledged": Point(ThreadActor, "submit", _taking(ScheduleEntry), 1),
    "schedule due, not durable": Point(JournaledThread, "record", _with(ScheduleFired), 1),
    "schedule due, durable": Point(ThreadActor, "_on_kept", _with(ScheduleFired), 1),
    "output validated, nothing recorded": Point(treadle.loop.drive, "validate", _after_await, 1),
    "file stored, not its message": Point(ThreadFiles, "accepted", _after_await, 8),
    "thread to be deleted": Point(Driver, "_delete", _before, 1),
    "thread deleted, still in memory": Point(SqlJournal, "delete", _after_await, 1),
    "threads of an owner deleted": Point(SqlFiles, "drop_owner", _before, 1),
    "in a snapshot": Point(treadle.journal.sql_writes, "encode_items", _after),
    "snapshot kept": Point(SqlJournal, "snapshot", _after_await),
}


def arm(name: str, n: int, on_reached: Reached) -> None:
    """Has this process killed when it reaches the point for the n-th time."""
    left = n

    def reached() -> None:
        nonlocal left
        left -= 1
        if left <= 0:
            on_reached()
            kill_self()

    point = POINTS[name]
    setattr(
        point.owner, point.attribute, point.wrap(getattr(point.owner, point.attribute), reached)
    )
