"""The way to the threads of a journal: to the actor where one is driven here, else around it."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

from msgspec.structs import replace

from treadle.actors.access import Receipt
from treadle.actors.driver import Driver
from treadle.actors.ending import Ended, read_ending
from treadle.actors.expected import BY_RUNS, changing_runs, expected_state, outline_of
from treadle.actors.files import Contents, NewThreadFiles, ThreadFiles
from treadle.actors.following import Following
from treadle.actors.fork import Seed, fork_of, seed_of
from treadle.actors.shared_memory import require_shared
from treadle.bus.base import Bus
from treadle.bus.position import Position
from treadle.bus.topic import Topic
from treadle.domain.accept import (
    Accepted,
    ForkThread,
    StartRun,
    StopJob,
    accept,
    identity_of,
    require_same,
)
from treadle.domain.entries import (
    AddEntry,
    AnswerEntry,
    Entry,
    InsertEntry,
    KeyedEntry,
    PinEntry,
    RemoveEntry,
    RemoveEventEntry,
    ScheduleEntry,
    SendEntry,
    UndoEntry,
    is_newer_entry,
)
from treadle.domain.envelope import Envelope
from treadle.domain.events import (
    MemoryUpdated,
    MessagePinned,
    MessageQueued,
    TerminalEvent,
)
from treadle.domain.history import HistoryUnread
from treadle.domain.ids import new_id
from treadle.domain.items import Item
from treadle.domain.removal import foreseen_removal, require_event
from treadle.domain.state import ThreadState
from treadle.errors import (
    Conflict,
    InvalidInput,
    JournalError,
    JournalLocked,
    JournalTooNew,
    NotDriven,
    RunInterrupted,
    RunNotFound,
    StaleWriter,
    ThreadDamaged,
    ThreadNotFound,
    VerdictUnknown,
)
from treadle.journal.base import Journal, ThreadInfo, Waiting
from treadle.journal.files import FileStore, NewFile
from treadle.memory.archive.access import ArchiveAccess
from treadle.memory.blocks.changes import changes_of, undone_by

FIRST_LOOK_SECONDS = 0.005
LAST_LOOK_SECONDS = 0.25
"""How often a sender looks what has become of its entry, at first and later."""

VERDICT_SECONDS = 30.0
"""How long a sender waits for the driving node to decide about its entry."""


class Threads:
    """Fulfils `ThreadAccess`; `driver` is None in a process that drives no threads.

    Reading and watching never take a thread. An entry goes to the actor of a thread that this
    process drives, or that no other node drives; else it goes to the inbox, and the node that
    drives the thread is rung.
    """

    def __init__(
        self,
        journal: Journal,
        bus: Bus,
        archive: ArchiveAccess,
        make_driver: "Callable[[Threads, Following], Driver] | None",
    ) -> None:
        self.archive = archive
        self._journal = journal
        self._bus = bus
        polls = make_driver is None and not bus.announces
        self._following = Following(journal, bus, polls=polls, on_unwatched=self._unwatched)
        self._driver = make_driver(self, self._following) if make_driver is not None else None
        self._contents = Contents()
        self._creating = asyncio.Lock()  # a shared memory is created once

    async def start(self) -> None:
        """Makes the threads reachable, and resumes what was not finished if this process drives."""
        self._bus.listen(self._following)
        if self._driver is not None:
            await self._driver.start()

    async def drain(self, seconds: float) -> None:
        """Lets runs continue up to their next request, for at most `seconds`; see `Driver`."""
        if self._driver is not None:
            await self._driver.drain(seconds)

    async def stop(self) -> None:
        """Ends what was started; raises `ConfigurationError` in a job, which would wait for it."""
        if self._driver is not None:
            await self._driver.stop()
        await self._following.stop()
        await self._bus.close()

    async def create(self, info: ThreadInfo, items: Sequence[Item] = (), *, by: str = "") -> None:
        """Adds a thread; the process that drives loads it once there is something to do."""
        files = NewThreadFiles(self._journal.files, info.owner)
        seed = seed_of(info.id, await files.without_contents(items), by)
        if self._driver is not None:
            await self._driver.create(info, seed, files.new)
        else:
            await self._journal.create(info, seed.entries, seed.projection, files.new)

    @property
    def owner(self) -> str | None:
        """None: it reaches the threads of all owners."""
        return None

    @property
    def file_store(self) -> FileStore:
        """The contents of the files of the journal."""
        return self._journal.files

    def files(self, thread_id: str) -> ThreadFiles:
        """Returns what moves contents out of the items of a thread, and into requests."""
        return ThreadFiles(self._journal.files, thread_id, self._contents)

    async def submit(self, thread_id: str, entry: Entry) -> Receipt:
        """Submits an entry to the actor, or to the inbox if another node drives the thread."""
        entry = await self.files(thread_id).accepted(entry)
        actor = await self._driver.reach(thread_id) if self._driver is not None else None
        if actor is None:
            return await self._enqueue(thread_id, entry)
        try:
            return await actor.submit(entry)
        except StaleWriter:
            await self._journal.info(thread_id)  # raises ThreadNotFound if it was deleted
            if not self._journal.has_nodes:
                raise
            return await self.submit(thread_id, entry)  # nothing of it was kept

    async def shared(self, owner: str, name: str) -> str:
        """Returns the id of a shared memory; tasks that ask meanwhile wait until it is created."""
        async with self._creating:
            return await require_shared(self, self._journal, owner, name)

    async def topic(self, thread_id: str) -> Topic:
        """Returns the topic of a thread: fed by its actor, or followed."""
        actor = self._driver.known(thread_id) if self._driver is not None else None
        return actor.topic if actor is not None else await self._following.topic(thread_id)

    def follow(self, thread_id: str, after: Position) -> AsyncGenerator[Envelope]:
        """Yields the events after a position from the node that drives the thread."""
        return self._bus.follow(thread_id, after)

    def has_reached(self, thread_id: str, seq: int) -> bool:
        """Returns whether the thread has an event `seq`: from memory, or else from the journal."""
        actor = self._driver.known(thread_id) if self._driver is not None else None
        if actor is not None:
            return seq <= actor.state.seq
        return self._following.has_reached(thread_id, seq) or self._journal.has_reached(
            thread_id, seq
        )

    async def state(self, thread_id: str) -> ThreadState:
        """Returns the state of a thread once all of it is kept."""
        actor = self._driver.known(thread_id) if self._driver is not None else None
        if actor is None:
            return await self._journal.load(thread_id)
        state = actor.state
        await actor.settle()
        return state

    async def head(self, thread_id: str) -> ThreadState:
        """Returns the state of a thread once all of it is kept, perhaps without its history."""
        if self._driver is not None and self._driver.known(thread_id) is not None:
            return await self.state(thread_id)
        return await self._journal.head(thread_id)

    async def is_driven(self) -> bool:
        """Returns whether this process drives the threads, or another one."""
        return self._driver is not None or await self._journal.is_driven()

    async def ended(self, thread_id: str, run_id: str) -> Ended:
        """Waits for the end of a run, which may still be in the inbox."""
        while True:
            actor = self._driver.known(thread_id) if self._driver is not None else None
            if actor is not None and actor.knows(run_id):
                try:
                    return await actor.ended(run_id)
                except JournalError as error:
                    if isinstance(error, StaleWriter):
                        await self._journal.info(thread_id)  # as in `submit`
                        if self._journal.has_nodes:
                            continue
                    if not error.retryable:
                        raise
                    # The thread is loaded again and resumed, and this run with it.
            topic = await self.topic(thread_id)
            waiter = _EndWaiter(run_id)
            topic.attach(waiter)  # before the journal is read, so that no end is missed
            try:
                run = await self._journal.run(thread_id, run_id)
                if run is not None and run.last_seq:
                    ending = await read_ending(self._journal, thread_id, run_id)
                    assert ending is not None
                    return ending
                if run is None:
                    await self._require_waiting(thread_id, run_id)
                await waiter.ended
            finally:
                topic.detach(waiter)

    async def fork(self, thread_id: str, at: int | None) -> str:
        """Copies a thread, which no process needs to drive; returns the id of the copy."""
        state = await self.state(thread_id)
        info = await self._journal.info(thread_id)
        if info.memory:
            raise InvalidInput("A shared memory cannot be forked: no agent would share the copy.")
        if at is not None:
            if not 0 <= at <= state.seq:
                raise InvalidInput(f"The thread has the events 1 to {state.seq}, not {at}.")
            state = await self._journal.load(thread_id, at=at)
        fork = fork_of(state, info, await self._journal.runs(thread_id))
        await self._journal.fork(fork)
        await self._expect_deletion(fork.info)
        return fork.info.id

    async def import_thread(self, info: ThreadInfo, seed: Seed, files: Sequence[NewFile]) -> None:
        """Adds a thread with its past, which no process needs to drive."""
        await self._journal.create(info, seed.entries, seed.projection, files)
        await self._expect_deletion(info)

    async def _expect_deletion(self, info: ThreadInfo) -> None:
        if self._driver is not None:
            self._driver.expect_deletion(info)
        else:
            await self._ring(info.id)  # the process that drives looks when it is to be deleted

    async def repair(self, thread_id: str) -> list[int]:
        """Removes damaged events; raises `JournalLocked` in a process that does not drive."""
        if self._driver is None:
            raise _not_here("repair")
        return await self._driver.repair(thread_id)

    async def delete(self, thread_id: str) -> None:
        """Removes a thread; raises `JournalLocked` in a process that does not drive it."""
        if self._driver is None:
            raise _not_here("delete")
        await self._driver.delete(thread_id)

    def _unwatched(self, thread_id: str) -> None:
        if self._driver is not None:
            self._driver.may_be_idle(thread_id)

    async def _require_waiting(self, thread_id: str, run_id: str) -> None:
        """Raises `RunNotFound` unless the message that starts the run waits in the inbox."""
        waiting = await self._journal.inbox(thread_id)
        if any(isinstance(one.entry, SendEntry) and one.entry.run_id == run_id for one in waiting):
            return
        if await self._journal.run(thread_id, run_id) is None:  # it was not taken meanwhile
            unread = await self._journal.damaged_entries(thread_id)
            if any(map(is_newer_entry, unread.values())):
                raise JournalTooNew(
                    f"The inbox of {thread_id} has entries of a newer version of treadle, and the "
                    f"message of the run {run_id[:100]!r} may be one of them; a process of that "
                    "version takes them."
                )
            if unread:
                raise ThreadDamaged(
                    f"The inbox of {thread_id} has entries that cannot be read, and the message of "
                    f"the run {run_id[:100]!r} may be one of them; remove them with "
                    "Thread.repair(), and send it again.",
                    thread_id=thread_id,
                )
            raise RunNotFound(f"The thread {thread_id} has no run {run_id[:100]!r}.")

    # Entries for a thread that another node drives

    async def _enqueue(self, thread_id: str, entry: Entry) -> Receipt:
        """Puts an entry into the inbox, if it has an effect after those that wait there.

        The driving node decides again, by the state in which it takes the entry.
        """
        journal = self._journal
        if isinstance(entry, AddEntry) or (
            isinstance(entry, SendEntry) and entry.expect is not None
        ):
            return await self._decided(thread_id, entry)
        if isinstance(entry, SendEntry):
            return await self._enqueue_message(thread_id, entry)
        if isinstance(entry, ScheduleEntry) and await journal.sent(
            thread_id, entry.schedule.id, inbox=False
        ):
            return Receipt()  # a schedule with its key came before, and has started its last run
        waiting = await journal.inbox(thread_id)
        if isinstance(entry, UndoEntry):
            if any(isinstance(one.entry, UndoEntry) or _edits(one, entry.label) for one in waiting):
                # What it takes back may have no number yet: it is the newest when its turn comes.
                return Receipt(is_driven=await self._put(thread_id, entry))
            state = await self._expected(thread_id, waiting)
            changes = await self._changes(thread_id, state, entry)
            accept(state, entry, changes=changes)
            is_driven = await self._put(thread_id, replace(entry, seq=changes[0].seq))
            return Receipt(is_driven=is_driven)
        try:
            accepted = await self._foreseen(thread_id, entry, waiting)
        except HistoryUnread:
            assert isinstance(entry, PinEntry)
            return await self._pin(thread_id, entry)
        is_driven = True
        if isinstance(accepted, StartRun | StopJob | ForkThread) or accepted:
            is_driven = await self._put(thread_id, entry)
        if isinstance(entry, AnswerEntry):
            # Another one may have been quicker, even if this one waits: it may have been taken.
            await self._foreseen(thread_id, entry, await journal.inbox(thread_id))
        elif isinstance(entry, InsertEntry | RemoveEntry) and is_driven:
            await self._left(thread_id, entry)
        return Receipt(is_driven=is_driven)

    async def _left(self, thread_id: str, entry: Entry) -> None:
        """Waits until an entry has left the inbox, so that its sender reads what it has changed.

        It cannot be lost in any case, so a driving node that is away or slow is no failure.
        """

        async def find() -> None:
            return None

        with contextlib.suppress(NotDriven, VerdictUnknown):
            await self._verdict(thread_id, lambda one: one == entry, find, "")

    async def _foreseen(
        self, thread_id: str, entry: Entry, waiting: Sequence[Waiting] = ()
    ) -> Accepted:
        """Returns what an entry will do after those that wait, or raises why it is refused.

        What was in the history at the newest snapshot is read only if it decides. For a pin it is
        not, if there is a node that can look: then it raises `HistoryUnread`.
        """
        if isinstance(entry, BY_RUNS):
            return accept(await self._expected_runs(thread_id, waiting), entry)
        removal = None
        if isinstance(entry, RemoveEventEntry):
            last = await self._journal.last_seq(thread_id)
            require_event(entry.seq, last)
            events = await self._journal.read(thread_id, after=entry.seq - 1, until=entry.seq)
            removal = foreseen_removal(events[0], entry.item)

        def decide(state: ThreadState) -> Accepted:
            return accept(expected_state(thread_id, state, waiting), entry, removal=removal)

        try:
            return decide(await self._journal.head(thread_id))
        except HistoryUnread:
            if isinstance(entry, PinEntry) and await self.is_driven():
                raise
            return decide(await self._journal.load(thread_id))

    async def _expected(self, thread_id: str, waiting: Sequence[Waiting]) -> ThreadState:
        """Returns the state after the entries that wait."""
        try:
            return expected_state(thread_id, await self._journal.head(thread_id), waiting)
        except HistoryUnread:
            return expected_state(thread_id, await self._journal.load(thread_id), waiting)

    async def _pin(self, thread_id: str, entry: PinEntry) -> Receipt:
        """Puts a pin into the inbox, and waits whether the history has its message."""
        seq = await self._journal.last_seq(thread_id)

        async def find() -> Receipt | None:
            nonlocal seq
            while events := await self._journal.read(thread_id, after=seq):
                seq = events[-1].seq
                pins = (event for event in events if isinstance(event, MessagePinned))
                if any(event.message_id == entry.message_id for event in pins):
                    return Receipt()
            return None

        is_driven = await self._put(thread_id, entry)
        with contextlib.suppress(NotDriven):
            if await self._verdict(thread_id, lambda one: one == entry, find, "pin it again"):
                return Receipt()
        accept(await self._journal.load(thread_id), entry)  # raises why it was refused
        return Receipt(is_driven=is_driven)

    async def _decided(self, thread_id: str, entry: KeyedEntry) -> Receipt:
        """Puts an entry into the inbox that may be refused, and waits for what becomes of it.

        The driving node decides. The entry gets a key, which it has used if it was accepted.
        """
        journal = self._journal
        if not entry.key:
            entry = replace(entry, key=new_id("msg"))
        if (taken := await self._taken(thread_id, entry)) is not None:
            return taken
        if any(_is_of(one.entry, entry.key) for one in await journal.inbox(thread_id)):
            # Its sender was cancelled, and what becomes of it is not known yet.
            taken = await self._becomes(thread_id, entry)
            if taken is not None:
                return taken
        if not await self.is_driven():
            raise _not_driven("The entry was not sent", "send it again when one does")
        await self._put(thread_id, entry)
        taken = await self._becomes(thread_id, entry)
        if taken is None:
            await self._foreseen(thread_id, entry)  # raises why it was refused
            raise Conflict(
                "Another message came between; read what was said, and send again with the "
                "number of the last event."
            )
        return taken

    async def _becomes(self, thread_id: str, entry: KeyedEntry) -> Receipt | None:
        """Waits until the entry with this key has left the inbox; returns what it has become.

        Returns None if it was refused, and raises what `_verdict` raises.
        """
        return await self._verdict(
            thread_id,
            lambda one: _is_of(one, entry.key),
            lambda: self._taken(thread_id, entry),
            f"send it again with key={entry.key[:100]!r}",
        )

    async def _verdict(
        self,
        thread_id: str,
        is_entry: Callable[[Entry], bool],
        find: Callable[[], Awaitable[Receipt | None]],
        remedy: str,
    ) -> Receipt | None:
        """Waits until an entry has left the inbox, or `find` has found what it has become.

        Returns None if it was refused. Raises `NotDriven` if no process drives the threads any
        more, and `VerdictUnknown` if the one that does takes too long.
        """
        loop = asyncio.get_running_loop()
        end, pause = loop.time() + VERDICT_SECONDS, FIRST_LOOK_SECONDS
        while True:
            # In this order: it leaves the inbox together with the events that it becomes.
            waiting = await self._journal.inbox(thread_id)
            if (found := await find()) is not None:
                return found
            if not any(is_entry(one.entry) for one in waiting):
                return None
            if loop.time() >= end:
                raise VerdictUnknown(
                    f"The node that drives {thread_id} has not decided in {VERDICT_SECONDS:.0f} "
                    f"seconds; the entry may still be accepted: {remedy}."
                )
            await asyncio.sleep(pause)
            pause = min(2 * pause, LAST_LOOK_SECONDS)
            # Another node may have taken over meanwhile, which is rung as well.
            if pause == LAST_LOOK_SECONDS and not await self._ring(thread_id):
                raise _not_driven(
                    "The entry waits in the inbox",
                    "send it again with the same key to see if it was accepted",
                )

    async def _taken(self, thread_id: str, entry: KeyedEntry) -> Receipt | None:
        """Returns what became of an entry with a key that was accepted."""
        sent = await self._journal.sent(thread_id, entry.key, inbox=False)
        if sent is not None:
            require_same(entry, sent.message_id)
            return Receipt(sent.run_id, thread_id)
        if isinstance(entry, SendEntry) and entry.fork:
            with contextlib.suppress(ThreadNotFound):
                sent = await self._journal.sent(entry.fork, entry.key)
                if sent is not None:
                    require_same(entry, sent.message_id)
                    return Receipt(sent.run_id, entry.fork)
        return None

    async def _enqueue_message(self, thread_id: str, entry: SendEntry) -> Receipt:
        journal = self._journal
        if entry.key and (sent := await journal.sent(thread_id, entry.key)) is not None:
            require_same(entry, sent.message_id)
            return await self._promised(thread_id, entry)
        stored = entry
        if entry.on_busy == "reject":
            accept(outline_of(await journal.open_runs(thread_id)), entry)
        elif entry.on_busy == "steer":
            state = await self._expected_runs(thread_id, await journal.inbox(thread_id))
            if steered := _steered(accept(state, entry)):
                # Which run it enters is known once it was taken, and found by its key then.
                entry = replace(entry, key=entry.key or new_id("msg"))
                stored = replace(entry, run_id=steered)
            else:
                stored = replace(entry, on_busy="queue")
        is_driven = await self._put(thread_id, stored)
        if entry.key:  # the same message may have been sent from elsewhere meanwhile
            return await self._promised(thread_id, entry, is_driven=is_driven)
        return Receipt(entry.run_id, thread_id, is_driven)

    async def _promised(
        self, thread_id: str, entry: SendEntry, *, is_driven: bool | None = None
    ) -> Receipt:
        """Returns the run of a message that is in the inbox, or was there.

        Its sender may have been cancelled before it rang (`is_driven` is None). What depends on the
        moment at which it is taken is waited for: the run to steer may have ended by then, and an
        entry with `expect` may be refused. Without a process that drives the threads nothing is
        waited for: the first one takes the inbox before it resumes a run.
        """
        waiting = await self._journal.inbox(thread_id)
        stored = next((one.entry for one in waiting if _is_of(one.entry, entry.key)), None)
        if isinstance(stored, SendEntry):
            require_same(entry, identity_of(stored))
            is_driven = await self._ring(thread_id) if is_driven is None else is_driven
            if not is_driven or (stored.on_busy != "steer" and stored.expect is None):
                return Receipt(stored.run_id, thread_id, is_driven)
        try:
            taken = await self._becomes(thread_id, entry)
        except NotDriven:
            return await self._promised(thread_id, entry)
        return taken or await self._enqueue_message(thread_id, entry)

    async def _expected_runs(self, thread_id: str, waiting: Sequence[Waiting]) -> ThreadState:
        """Returns the state as far as runs go, after the entries that wait; see `outline_of`."""
        waiting = changing_runs(waiting)
        if any(getattr(one.entry, "expect", None) is not None for one in waiting):
            return await self._expected(thread_id, waiting)  # no row has what it expects
        state = outline_of(await self._journal.open_runs(thread_id))
        return expected_state(thread_id, state, waiting)

    async def _put(self, thread_id: str, entry: Entry) -> bool:
        """Puts an entry into the inbox; returns whether a node will take it from there."""
        try:
            await self._journal.enqueue(thread_id, entry)
        finally:  # a caller that is cancelled has put it there all the same
            is_driven = await self._ring(thread_id)
        return is_driven

    async def _ring(self, thread_id: str) -> bool:
        if self._journal.has_nodes:
            return await self.is_driven()  # the database has rung, with the commit
        if await self._bus.ring(thread_id):
            return True
        if self._driver is not None:
            # The node that had the thread gave it back meanwhile, or loads it: which reads the
            # inbox as well.
            self._driver.ring(thread_id)
            self._driver.wake(thread_id)
        return await self.is_driven()

    async def _changes(
        self, thread_id: str, state: ThreadState, entry: UndoEntry
    ) -> Sequence[MemoryUpdated]:
        async def read(label: str, first: int, last: int) -> Sequence[MemoryUpdated]:
            return await changes_of(self._journal, thread_id, label, first, last)

        return await undone_by(state.memory, entry, read, state.seq)


class _EndWaiter:
    """Fulfils `Subscriber`: waits for the end of one run."""

    def __init__(self, run_id: str) -> None:
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._run_id = run_id

    def put(self, envelope: Envelope, /) -> None:
        """Notes the terminal event of the run."""
        event = envelope.event
        is_end = isinstance(event, TerminalEvent) and event.run_id == self._run_id
        if is_end and not self.ended.done():
            self.ended.set_result(None)

    def close(self, error: Exception | None, /) -> None:
        """Notes that no event comes here any more."""
        if not self.ended.done():
            self.ended.set_exception(
                error
                or RunInterrupted("The runtime was shut down before the run ended; open it again.")
            )
            self.ended.exception()  # the task that waits may have been cancelled meanwhile


def _edits(waiting: Waiting, label: str) -> bool:
    """Whether an entry that waits changes the memory block of that label."""
    entry = waiting.entry
    return getattr(getattr(entry, "edit", None), "label", None) == label


def _is_of(entry: Entry, key: str) -> bool:
    return isinstance(entry, KeyedEntry) and entry.key == key


def _steered(accepted: Accepted) -> str:
    """Returns the run that a message enters, "" if it starts its own."""
    events = () if isinstance(accepted, StartRun | StopJob | ForkThread) else accepted
    return next((event.run_id for event in events if isinstance(event, MessageQueued)), "")


def _not_driven(what: str, remedy: str) -> NotDriven:
    return NotDriven(
        f"{what}, because no process drives the database: open it with drive=True, and {remedy}."
    )


def _not_here(what: str) -> JournalLocked:
    return JournalLocked(f"Only the process that drives the database can {what} a thread.")
