"""What comes to a thread that is driven here: entries of this process, and those of its inbox.

An entry changes the state in the turn of the event loop in which it comes, so there is no moment
at which two of them, or an entry and the loop, could disagree.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Protocol

from msgspec.structs import replace

from treadle.actors.access import Receipt
from treadle.actors.journaled import JournaledThread
from treadle.domain.accept import (
    ForkThread,
    StartRun,
    StopJob,
    accept,
    acknowledged,
    fire,
    identity_of,
    queue,
    require_same,
)
from treadle.domain.entries import (
    AddEntry,
    AnswerEntry,
    EditEntry,
    Entry,
    KeyedEntry,
    RemoveEventEntry,
    ScheduleEntry,
    SendEntry,
    UndoEntry,
)
from treadle.domain.events import (
    MemoryUpdated,
    MessageQueued,
    RecordedEvent,
    RunCancelling,
    ScheduleFired,
)
from treadle.domain.options import RunOptions
from treadle.domain.removal import Removal, removal_of
from treadle.domain.schedules import Schedule
from treadle.errors import (
    Conflict,
    InvalidInput,
    JournalError,
    RunInProgress,
    TreadleError,
    UnknownAgent,
)
from treadle.journal.base import Journal, ThreadInfo
from treadle.journal.projection import Sent
from treadle.logging import logger_of
from treadle.memory.archive.access import ArchiveAccess
from treadle.memory.blocks.changes import changes_of, undone_by
from treadle.memory.blocks.thread_memory import ThreadMemory
from treadle.schedules.times import next_time

_LOGGER = logger_of("treadle.runtime")


_NOTHING_TAKEN: frozenset[int] = frozenset()  # one for all threads: each takes 216 bytes
_REFUSALS = (Conflict, RunInProgress, InvalidInput)


class Driving(Protocol):
    """The part of an actor that drives its runs, as the intake sees it."""

    def start(self, entry: SendEntry) -> None:
        """Records the beginning of the run of a message; raises `UnknownAgent` before it does."""
        ...

    def require_options(self, agent: str, options: RunOptions) -> None:
        """Raises what keeps an agent from a run with options; "" is the agent of the thread."""
        ...

    async def fork_for(self, entry: SendEntry) -> None:
        """Sends a message to a copy of the thread up to the event that it continues."""
        ...

    def interrupt(self) -> None:
        """Interrupts what the active run is doing."""
        ...

    def notice(self) -> None:
        """Looks at the state again, soon."""
        ...

    async def stop_job(self, job_id: str, by: str, on_told: Callable[[], object]) -> None:
        """Cancels a job; `on_told` is called with the event of its end, or at once without one."""
        ...

    def require_agent(self, name: str) -> None:
        """Raises `UnknownAgent` unless the agent is known; "" is the agent of the thread."""
        ...

    def may_be_idle(self) -> None:
        """Notes that something has ended that kept the thread in use."""
        ...


def _nothing() -> None:
    """The end of a job that is cancelled from this process needs no other sign."""


class Intake:
    """Takes entries: decides by the state (`accept`), records, and acknowledges what is durable.

    `memory.editing` is held while a memory block is changed: an undo reads the journal first, and
    edits that come meanwhile have to stay behind it.
    """

    def __init__(
        self,
        info: ThreadInfo,
        thread: JournaledThread,
        journal: Journal,
        driving: Driving,
        memory: ThreadMemory,
        archive: ArchiveAccess,
    ) -> None:
        self._info = info
        self._thread = thread
        self._journal = journal
        self._driving = driving
        self._memory = memory
        self._archive = archive
        self._under_way = 0
        self._sending: dict[str, asyncio.Future[Sent]] = {}
        self._taken = _NOTHING_TAKEN
        self._has_mail = False
        self._has_read = False
        self._reader: asyncio.Task[None] | None = None

    @property
    def is_busy(self) -> bool:
        """Whether an entry is being taken."""
        return self._under_way > 0 or self._reader is not None

    def ring(self) -> None:
        """Takes the inbox soon, in parallel with the run that is driven; never waits."""
        self._has_mail = True
        if self._reader is None:
            self._reader = asyncio.create_task(
                self._read_mail(), name=f"treadle inbox {self._info.id}"
            )

    async def catch_up(self) -> None:
        """Waits for the first reading of the inbox, if one has begun.

        So what was sent while no process drove the thread has its effect before a run is resumed: a
        cancel saves a request, and a message steers the run that it was promised.
        """
        if self._reader is not None and not self._has_read:
            await asyncio.wait([self._reader])

    async def stop(self) -> None:
        """Ends the reading of the inbox; what was not taken waits there."""
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.wait([self._reader])
            self._reader = None  # a task that is cancelled before its first step does not do it

    async def submit(self, entry: Entry) -> Receipt:
        """Takes an entry; returns once it cannot be lost.

        Raises what `accept` raises, and `UnknownAgent`.
        """
        self._under_way += 1
        try:
            if isinstance(entry, KeyedEntry) and entry.key:
                return await self._send_once(entry)
            if isinstance(entry, AnswerEntry) and self._journal.is_shared:
                return await self._answer(entry)
            receipt = await self._take(entry)
            await self._thread.kept()
            return receipt
        finally:
            self._under_way -= 1
            self._driving.may_be_idle()

    async def _send_once(self, entry: KeyedEntry) -> Receipt:
        """Takes a message with a key; all that send it meanwhile wait for the first."""
        while (known := self._sending.get(entry.key)) is not None:
            await asyncio.wait([known])
            if not known.cancelled():  # else that sender left, before or after it was taken
                return await self._begun(entry, known.result())
        sending = self._sending[entry.key] = asyncio.get_running_loop().create_future()
        try:
            # What a sender left behind that was cancelled may be recorded and not kept yet: the
            # journal does not know its key before.
            await self._thread.durable()
            sent = await self._journal.sent(self._info.id, entry.key)
            receipt = None
            if sent is None:
                receipt = await self._take(entry)
                await self._thread.kept()
                sent = Sent(receipt.run_id, identity_of(entry))
            sending.set_result(sent)
        except BaseException as error:
            if isinstance(error, Exception):
                sending.set_exception(error)
                sending.exception()  # raised here, whether or not another task waits
            else:
                sending.cancel()
            raise
        finally:
            del self._sending[entry.key]
        return receipt or await self._begun(entry, sent)

    async def _begun(self, entry: KeyedEntry, sent: Sent) -> Receipt:
        """Returns what became of a message once the thread has it, and not only the inbox."""
        require_same(entry, sent.message_id)
        taken = await self._journal.sent(self._info.id, entry.key, inbox=False)
        if taken is None:  # which run it belongs to is known once it was taken
            await self.take_inbox()
            await self._thread.durable()
            taken = await self._journal.sent(self._info.id, entry.key, inbox=False)
        if taken is None:  # it was refused, or went to a copy of the thread
            return await self._send_once(entry)
        return Receipt(taken.run_id, self._info.id)

    async def _answer(self, entry: AnswerEntry) -> Receipt:
        """Takes an answer in its turn among those of other processes.

        All of them go through the inbox, so the first to be in it counts, and each of the others
        is told: one that was recorded here at once could overtake one that was acknowledged there.
        """
        if accept(self._thread.state, entry):
            try:
                await self._journal.enqueue(self._info.id, entry)
            finally:  # a sender that is cancelled has put it there all the same
                self.ring()
            await self.take_inbox()
            accept(self._thread.state, entry)
        await self._thread.kept()
        return Receipt()

    async def _take(self, entry: Entry, on_told: Callable[[], object] = _nothing) -> Receipt:
        """Does what an entry asks for."""
        if isinstance(entry, EditEntry | UndoEntry):
            async with self._memory.editing:
                return await self._do(entry, on_told)
        return await self._do(entry, on_told)

    async def _do(self, entry: Entry, on_told: Callable[[], object]) -> Receipt:
        if isinstance(entry, ScheduleEntry):
            self._driving.require_agent(entry.schedule.agent)
            if entry.schedule.options is not None:
                self._driving.require_options(entry.schedule.agent, entry.schedule.options)
            if await self._has_fired(entry.schedule):
                on_told()
                return Receipt()
        changes = await self._undone(entry) if isinstance(entry, UndoEntry) else ()
        removal = await self._removal(entry) if isinstance(entry, RemoveEventEntry) else None
        if isinstance(entry, SendEntry) and not entry.agent:
            entry = replace(entry, agent=self._info.agent)
        if isinstance(entry, SendEntry) and entry.options is not None:
            self._driving.require_options(entry.agent, entry.options)
        accepted = accept(self._thread.state, entry, changes=changes, removal=removal)
        run_id = entry.run_id if isinstance(entry, SendEntry) else ""
        after: int | None = None
        match accepted:
            case StartRun():
                before = self._thread.state.seq
                self._driving.start(accepted.entry)
                run = self._thread.state.run
                after = before if run is not None and run.id == run_id else None  # else it waits
            case StopJob():
                await self._driving.stop_job(accepted.job_id, accepted.by, on_told)
                return Receipt()
            case ForkThread():
                await self._driving.fork_for(accepted.entry)
                return Receipt(run_id, accepted.entry.fork)
            case _:
                for event in accepted:
                    self._thread.record(event)
                    if isinstance(event, RunCancelling):
                        self._driving.interrupt()
                    elif isinstance(event, MessageQueued):
                        run_id = event.run_id  # it steers a run that is there already
        if removal is not None:
            # After the event: a state, and so a snapshot, no longer has what is removed here. After
            # a crash in between, the sender asks again, and the inbox still has its entry.
            await self._thread.durable()
            await self._journal.redact(
                self._thread.claim,
                removal.events,
                clears_title=removal.has_title,
                files=removal.files,
            )
            if removal.events:
                numbers = [event.seq for event in removal.events]
                await self._archive.forget(self._info.owner, self._info.id, numbers)
        self._driving.notice()
        on_told()
        return Receipt(run_id, self._info.id, after=after)

    async def _has_fired(self, schedule: Schedule) -> bool:
        """Whether a schedule with this key came before, and has started its last run."""
        if schedule.id in self._thread.state.schedules:
            return False
        await self._thread.durable()  # as in `_send_once`
        return await self._journal.sent(self._info.id, schedule.id, inbox=False) is not None

    async def fire(self, now: float) -> None:
        """Starts the runs of the schedules that are due at `now` (Unix seconds).

        However many times were missed, one run is started. Its events and the next due time are
        recorded in one turn of the event loop, so that a crash leaves all of it or none.
        """
        self._under_way += 1
        try:
            schedules = self._thread.state.schedules.values()
            for schedule in sorted(schedules, key=lambda one: (one.due_at, one.id)):
                if schedule.due_at <= now:
                    self._fire(schedule, now)
            await self._thread.durable()
        finally:
            self._under_way -= 1
            self._driving.may_be_idle()

    def _fire(self, schedule: Schedule, now: float) -> None:
        next_at = next_time(schedule.cron, schedule.tz, now) if schedule.cron else None
        entry = fire(self._info.id, self._thread.state, schedule)
        run_id = "" if entry is None else entry.run_id
        self._thread.record(
            ScheduleFired(
                run_id=run_id,
                schedule_id=schedule.id,
                due_at=schedule.due_at,
                next_at=next_at,
            )
        )
        if entry is not None:
            self._start(replace(entry, agent=entry.agent or self._info.agent))
            self._driving.notice()

    def _start(self, entry: SendEntry) -> None:
        """Starts or queues the run of a message that must not be refused."""
        match accept(self._thread.state, entry):
            case StartRun():
                try:
                    self._driving.start(entry)
                except UnknownAgent as error:  # it may be known later, or in another process
                    _LOGGER.warning("A message to %s waits: %s", self._info.id, error.message)
                    self._thread.record(queue(entry))
            case _:
                self._thread.record(queue(entry))

    async def _undone(self, entry: UndoEntry) -> Sequence[MemoryUpdated]:
        """Returns the changes that an undo needs to know, true in this turn of the event loop."""

        async def read(label: str, first: int, last: int) -> Sequence[MemoryUpdated]:
            return await changes_of(self._journal, self._info.id, label, first, last)

        while True:
            state = self._thread.state
            await self._thread.durable()
            changes = await undone_by(state.memory, entry, read, state.seq)
            if state.memory is self._thread.state.memory:
                return changes  # else the memory was changed while the journal was read

    async def _removal(self, entry: RemoveEventEntry) -> Removal:
        await self._thread.durable()
        return removal_of(await whole(self._journal, self._info.id), entry.seq, entry.item)

    # The inbox: entries of other processes

    async def _read_mail(self) -> None:
        try:
            while self._has_mail:
                self._has_mail = False
                await self.take_inbox()
        except TreadleError as error:  # the journal keeps the entries until the next ring
            _LOGGER.warning("The inbox of %s waits: %s", self._info.id, error.message)
        finally:
            self._reader = None
            self._has_read = True
            self._driving.may_be_idle()

    @cached_property
    def _inbox(self) -> asyncio.Lock:
        """Held while entries are taken: in their order, by one task at a time."""
        return asyncio.Lock()

    async def take_inbox(self) -> None:
        """Takes the entries that wait in the inbox; each leaves it with the events it became."""
        async with self._inbox:
            waiting = await self._journal.inbox(self._info.id)
            self._taken &= {one.number for one in waiting}
            for one in waiting:
                if one.number not in self._taken:
                    await self._take_waiting(one.number, one.entry)

    async def _take_waiting(self, number: int, entry: Entry) -> None:
        def consume() -> None:
            self._taken |= {number}
            self._thread.consume(number)

        try:
            if isinstance(entry, SendEntry):
                await self._take_waiting_message(entry)
                consume()
            elif isinstance(entry, AddEntry) and await self._was_sent(entry):
                consume()
            else:
                # The wish to cancel a job waits in the inbox until the job has ended: no event
                # reports it before, and a restartable job would be started again after a crash.
                await self._take(entry, consume)
                self._taken |= {number}
        except JournalError:
            raise
        except TreadleError as error:  # its sender is gone, and the entry changes nothing
            if not isinstance(entry, AddEntry):  # its sender looks what became of it
                _LOGGER.warning("An entry of %s has no effect: %s", self._info.id, error.message)
            consume()

    async def _take_waiting_message(self, entry: SendEntry) -> None:
        """Takes a message that was acknowledged already, so that it must not be refused.

        One with `expect` was not: its sender waits to see what becomes of it.
        """
        if entry.key and await self._was_sent(entry):
            return
        entry = acknowledged(self._info.id, self._thread.state, entry)
        try:
            await self._take(entry)
        except JournalError:
            raise
        except TreadleError as error:  # its agent is not known here; it may be later
            if entry.item is None or (entry.expect is not None and isinstance(error, _REFUSALS)):
                return
            _LOGGER.warning("A message to %s waits: %s", self._info.id, error.message)
            self._thread.record(queue(replace(entry, agent=entry.agent or self._info.agent)))

    async def _was_sent(self, entry: KeyedEntry) -> bool:
        """Whether a message of the same key came before; one that is being sent is waited for."""
        while (sending := self._sending.get(entry.key)) is not None:
            await asyncio.wait([sending])
        await self._thread.durable()  # as in `_send_once`
        return await self._journal.sent(self._info.id, entry.key, inbox=False) is not None


async def whole(journal: Journal, thread_id: str) -> Sequence[RecordedEvent]:
    """Returns all events of a thread."""
    events: list[RecordedEvent] = []
    while page := await journal.read(thread_id, after=len(events)):
        events += page
    return events
