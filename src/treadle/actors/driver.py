"""The threads that this process drives: their actors, and what brings them in and out of memory."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Sequence
from typing import assert_never

from treadle.actors.access import ThreadAccess
from treadle.actors.actor import ThreadActor
from treadle.actors.due_times import DueTimes
from treadle.actors.engine import Engine
from treadle.actors.following import Following
from treadle.actors.fork import Seed, fork_of
from treadle.actors.host import AnyAgent
from treadle.actors.remote_memory import RemoteMemory
from treadle.actors.repairing import repair_thread
from treadle.actors.shared_memory import shared_id
from treadle.actors.spending import SpendingGuard
from treadle.bus.base import Bus
from treadle.bus.position import Position
from treadle.bus.subscription import Subscription
from treadle.clock import now
from treadle.domain.accept import queue, require_same
from treadle.domain.entries import CancelEntry, SendEntry
from treadle.domain.state import ThreadState, can_go_on
from treadle.errors import (
    JournalError,
    JournalLocked,
    JournalTooNew,
    RunInterrupted,
    StaleWriter,
    ThreadDamaged,
    ThreadNotFound,
    TreadleError,
)
from treadle.journal.base import (
    Claim,
    Due,
    Journal,
    ThreadInfo,
    ThreadQuery,
    Work,
    deletions_of,
)
from treadle.journal.files import NewFile
from treadle.journal.projection import UNUSED, due_times
from treadle.logging import logger_of
from treadle.loop.catalog import Catalog
from treadle.memory.archive.access import ArchiveAccess
from treadle.memory.blocks.thread_memory import SharedMemory, ThreadMemory
from treadle.models.transport import Transport, use_transport
from treadle.repeating import repeat
from treadle.tools.callables import UserFunction

_LOGGER = logger_of("treadle.runtime")

DRAIN_LOOK_SECONDS = 0.05
"""How often a draining process looks which threads it can hand over."""

POLL_SECONDS = 0.1
"""How often the inboxes are read, for entries whose ring did not arrive."""


class Driver:
    """Fulfils `Host`, `Worker` and `Node` with one actor for each thread that is in use here.

    A thread that is not used for `idle_seconds` leaves the memory, until it is used again.
    `following` has the topics of this process, to which actors publish.
    """

    def __init__(
        self,
        journal: Journal,
        *,
        threads: ThreadAccess,
        following: Following,
        engine: Engine,
        bus: Bus,
        archive: ArchiveAccess,
        agent: Callable[[str], AnyAgent],
        deps: UserFunction[object],
        catalog: Catalog,
        lend: Callable[[AnyAgent], None],
        idle_seconds: float,
        spending: SpendingGuard,
        transport: Transport | None = None,
    ) -> None:
        self.journal = journal
        self.archive = archive
        self.threads = threads
        self.agent = agent
        self.catalog = catalog
        self.deps = deps
        self.lend = lend
        self.spending = spending
        self.is_stopping = False
        self.is_draining = False
        self._following = following
        self._engine = engine
        self._bus = bus
        self._idle_seconds = idle_seconds
        self._transport = transport
        self._actors: dict[str, ThreadActor] = {}
        self._loading: dict[str, asyncio.Task[ThreadActor]] = {}
        self._reaching: Counter[str] = Counter()  # callers that wait for a load
        # When threads were used last, in this order: one timer serves all of them.
        self._last_used: dict[str, float] = {}
        self._eviction: asyncio.TimerHandle | None = None
        self._beginning: set[str] = set()  # threads whose drive waits for their actor
        self._damaged: set[str] = set()  # threads that were set aside
        self._retiring: set[asyncio.Task[None]] = set()  # ends of actors that lost their threads
        self._poller: asyncio.Task[None] | None = None
        self._due_times = DueTimes(journal, self._act)

    async def start(self) -> None:
        """Resumes what was not finished."""
        await self._engine.start(self)
        if not self._engine.finds_work:
            await self._wake_unfinished()
        await self._bus.serve(self)
        self._due_times.start()

    async def _wake_unfinished(self) -> None:
        for unfinished in await self.journal.unfinished():
            if unfinished.status != "requires_action" or unfinished.jobs:
                self._engine.wake(unfinished.thread_id)
        for thread_id in await self.journal.waiting_threads():
            self._engine.wake(thread_id)
        if self.journal.is_shared:
            self._poller = asyncio.create_task(
                repeat(self._poll, _LOGGER, "The inboxes could not be looked at."),
                name="treadle inbox poller",
            )

    async def drain(self, seconds: float) -> None:
        """Lets each run continue up to its next request, for at most `seconds`.

        Threads on which nothing is under way are handed over to other nodes, if there are any; then
        their entries go to the inbox, and their subscribers follow the node that has them.
        """
        self.is_draining = True
        self._engine.drain()
        # What is recorded may wait for a database that is away, which takes longer than `seconds`.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while True:
                    is_busy = False
                    for thread_id in list(self._actors):
                        is_busy = await self._is_held(thread_id) or is_busy
                    if not is_busy:
                        return
                    await asyncio.sleep(DRAIN_LOOK_SECONDS)

    async def _is_held(self, thread_id: str) -> bool:
        """Hands a thread over; returns whether something is under way on it that keeps it here."""
        actor = self.known(thread_id)
        if actor is None:
            return False
        if self._engine.is_driving(thread_id) or actor.is_working:
            return True
        if self._engine.finds_work:
            with contextlib.suppress(JournalError):  # the actor has failed then
                await actor.settle()
            if self._engine.is_driving(thread_id) or actor.is_working:
                return True
            self.lose(thread_id)
        return False

    async def stop(self) -> None:
        """Interrupts all runs, to be resumed later, and waits until what was recorded is kept.

        Raises `ConfigurationError` in a job: it would wait for itself.
        """
        for actor in self._actors.values():
            actor.jobs.refuse_inside("shut the runtime down")
        self.is_stopping = True
        if self._eviction is not None:
            self._eviction.cancel()
        await self._due_times.stop()
        await self._bus.close()
        if self._poller is not None:
            self._poller.cancel()
            await asyncio.wait([self._poller])
        if self._loading:
            await asyncio.wait(list(self._loading.values()))
        await self._engine.stop()
        for actor in self._actors.values():
            actor.jobs.abandon()  # all at once: each may have to clean up
            actor.compactor.abandon()
        for thread_id, actor in list(self._actors.items()):
            await actor.stop_intake()
            # From here on entries go to the inbox, and what is asked of a run to the journal: the
            # actor is about to be closed, and another node may then take the thread.
            self._actors.pop(thread_id, None)
            try:
                await actor.settle()
            except JournalError as error:
                _LOGGER.warning("%s could not be kept: %s", thread_id, error.message)
            actor.close()
            await actor.jobs.close()
            await actor.compactor.close()
            self._engine.release(thread_id)
        if self._retiring:
            await asyncio.wait(list(self._retiring))
        await self._hand_over_due_times()
        await self._engine.leave()

    async def _hand_over_due_times(self) -> None:
        """Lets another node of this process look what is due: this one stored some of it."""
        if self._engine.finds_work:
            return  # in other processes, which look by themselves
        try:
            due = await self.journal.due(limit=1)
        except JournalError as error:
            _LOGGER.warning("The due times could not be read: %s", error.message)
            return
        for one in due:
            if await self._engine.take(one.thread_id):
                self._engine.release(one.thread_id)

    # The way to actors

    def known(self, thread_id: str) -> ThreadActor | None:
        """Returns the actor of a thread that is in memory here and well."""
        actor = self._actors.get(thread_id)
        return actor if actor is not None and actor.failure is None else None

    async def reach(self, thread_id: str) -> ThreadActor | None:
        """Returns the actor of a thread, loaded if it has none; None if another node has it.

        A node that stops loads none. What the thread left undone is resumed. The actor stays in
        memory until the caller waits for something else. Raises `ThreadNotFound` and
        `JournalError`.
        """
        actor = self.known(thread_id)
        if actor is not None:
            return actor
        if self.is_stopping:
            return None
        if not await self._engine.take(thread_id):
            self._leave(thread_id)
            return None
        try:
            return await self._load_once(thread_id)
        except StaleWriter:
            if not self._engine.finds_work:
                raise
            self._leave(thread_id)
            return None  # another node took it, because this one stood still

    def _leave(self, thread_id: str) -> None:
        """Gives up an actor that had failed, and whose thread another node has by now."""
        if self.known(thread_id) is None and thread_id not in self._loading:
            self.lost(thread_id)

    async def require(self, thread_id: str) -> ThreadActor:
        """Returns the actor of a thread; raises `JournalLocked` if another node has it.

        Raises `RunInterrupted` in a node that stops.
        """
        actor = await self.reach(thread_id)
        if actor is None and self.is_stopping:
            raise _stopped(thread_id)
        if actor is None:
            raise JournalLocked(
                f"{thread_id} is in use by another runtime, which has to do this; try it there."
            )
        return actor

    async def create(self, info: ThreadInfo, seed: Seed, files: Sequence[NewFile]) -> None:
        """Adds a thread; there is nothing to load."""
        claim = await self.journal.create(info, seed.entries, seed.projection, files)
        self.expect_deletion(info)
        # Its id may be known before, and another task or node have loaded it already.
        is_loaded = info.id in self._actors or info.id in self._loading
        if self.is_stopping or is_loaded or not await self._engine.take(info.id):
            return
        actor = self._host(info, seed.state, claim)
        if info.agent and info.work is None:
            actor.memory.seed(self.agent(info.agent).blocks)
            await actor.settle()

    async def delete(self, thread_id: str) -> None:
        """Interrupts the thread, and removes it; raises `ConfigurationError` in a job of it."""
        known = self._actors.get(thread_id)
        if known is not None:
            known.jobs.refuse_inside("delete its thread")
        info = await self.journal.info(thread_id)
        if not await self._engine.seize(thread_id):
            raise JournalLocked(f"{thread_id} is in use by another runtime; delete it there.")
        try:
            await self._delete(info)
        finally:
            self.release_unused(thread_id)

    def expect_deletion(self, info: ThreadInfo) -> None:
        """Notes when a new thread is to be deleted."""
        for one in deletions_of(info):
            if one.at is not None:
                self.due_at(one.at)

    async def _delete_due(self, due: Due) -> None:
        """Deletes a thread that has expired, or one that is not stored and not used any more."""
        info = await self.journal.info(due.thread_id)
        if due.id != UNUSED:
            # Else it was changed meanwhile, or another node has it, which deletes it.
            if info.expires_at == due.at and await self._engine.take(info.id):
                try:
                    await self._delete(info)
                finally:
                    self.release_unused(info.id)
            return
        found = await self.journal.due(limit=1, after=(due.at, due.kind, due.id, due.number - 1))
        if not found or found[0].place != due.place or not await self._engine.take(info.id):
            return
        try:
            await self._delete_work(info.id)
            if await self.journal.delete(info.id, due=due):
                await self._forget(info)
        finally:
            self.release_unused(info.id)

    async def repair(self, thread_id: str) -> list[int]:
        """Does what `repair_thread` does, for a thread that no other runtime has."""
        info = await self.journal.info(thread_id)
        if not await self._engine.seize(thread_id):
            raise JournalLocked(f"{thread_id} is in use by another runtime; repair it there.")
        try:
            await self._engine.interrupt(thread_id)
            removed = await repair_thread(self.journal, thread_id)
        finally:
            self.release_unused(thread_id)
        if removed.events:
            await self.archive.forget(info.owner, thread_id, removed.events)
        self._damaged.discard(thread_id)
        self._engine.wake(thread_id)
        return removed.events

    async def _delete(self, info: ThreadInfo) -> None:
        thread_id = info.id
        await self._engine.interrupt(thread_id)
        await self._delete_work(thread_id)
        await self._close_parts(thread_id)
        await self.journal.delete(thread_id)
        await self._forget(info)

    async def _delete_work(self, thread_id: str) -> None:
        """Deletes the threads on which agents work for a thread."""
        for work in await self.journal.threads(ThreadQuery(limit=-1, parent=thread_id)):
            await self.delete(work.id)

    async def _close_parts(self, thread_id: str) -> None:
        actor = self._actors.get(thread_id)
        if actor is not None:
            await actor.stop_intake()
            await actor.jobs.close()
            await actor.compactor.close()

    async def _forget(self, info: ThreadInfo) -> None:
        """Drops all that this process has of a thread that was deleted."""
        thread_id = info.id
        await self._close_parts(thread_id)
        loading = self._loading.get(thread_id)
        if loading is not None:
            await asyncio.wait([loading])  # it may have read the thread before
        error = ThreadNotFound(f"The thread {thread_id} was deleted.")
        self._drop(thread_id, error)
        self._following.drop(thread_id, error)  # it may have been watched without an actor
        self._bus.announce(thread_id)  # those who watch it elsewhere look, and find it gone
        await self.archive.forget(info.owner, thread_id)

    def release_unused(self, thread_id: str) -> None:
        """Lets other nodes have a thread that was taken here for a moment."""
        if thread_id not in self._actors and thread_id not in self._loading:
            self._engine.release(thread_id)

    def lose(self, thread_id: str) -> None:
        """Gives up the actor of a thread that another node may have."""
        if (loading := self._loading.get(thread_id)) is not None:
            loading.add_done_callback(lambda _: self.lose(thread_id))
        elif (actor := self.known(thread_id)) is not None:
            actor.lose()
        else:
            self._leave(thread_id)

    def hand_over(self, thread_id: str) -> None:
        """Gives up a thread on which nothing is under way, so that another node runs it."""
        actor = self.known(thread_id)
        if actor is not None and not actor.is_working:
            actor.lose()

    def node_ended(self) -> None:
        """Looks what is due: a node that has ended had noted it."""
        self._due_times.look()

    # What actors ask for

    def lost(self, thread_id: str) -> bool:
        """Notes that the actor of a thread was refused: another node has it, or it was deleted.

        Its subscribers follow that node from now on. Returns False if there are no other nodes, or
        if this one stops and has given the actor up already.
        """
        actor = self._actors.get(thread_id)
        if actor is None or not self._engine.finds_work:
            return False
        self._engine.release(thread_id)
        self._following.hand_off(thread_id)
        retiring = asyncio.create_task(self._retire(actor), name=f"treadle retire {thread_id}")
        self._retiring.add(retiring)
        retiring.add_done_callback(self._retiring.discard)
        return True

    async def _retire(self, actor: ThreadActor) -> None:
        """Ends what an actor has under way that may not write any more."""
        thread_id = actor.info.id
        await actor.stop_intake()
        await actor.jobs.close()
        await actor.compactor.close()
        if self._actors.get(thread_id) is actor and thread_id not in self._loading:
            del self._actors[thread_id]
            self._last_used.pop(thread_id, None)

    def wake(self, thread_id: str) -> None:
        """Asks for a thread to be driven."""
        self._engine.wake(thread_id)

    async def permit(self, thread_id: str, owner: str) -> bool:
        """Returns whether a run may be worked on now."""
        return await self._engine.permit(thread_id, owner)

    async def abandon(self, thread_id: str) -> ThreadState:
        """Cancels what an agent does for a run that no longer needs it; returns the state then."""
        actor = await self.reach(thread_id)
        if actor is None and self.is_stopping:
            raise _stopped(thread_id)
        state = actor.state if actor is not None else await self.threads.state(thread_id)
        run = state.active_run
        if run is not None:
            await self.threads.submit(thread_id, CancelEntry(run.id))
            await self.threads.ended(thread_id, run.id)
        if actor is None:
            return await self.threads.state(thread_id)
        await actor.jobs.cancel_background()
        return actor.state

    async def fork_for(self, thread_id: str, entry: SendEntry) -> None:
        """Copies a thread up to event `entry.expect`, with the message as its next run.

        Does nothing if the same entry has made the copy before; raises `Conflict` if another has.
        """
        assert entry.expect is not None
        info = await self.journal.info(thread_id)
        state = await self.journal.load(thread_id, at=entry.expect)
        runs = await self.journal.runs(thread_id)
        fork = fork_of(state, info, runs, id=entry.fork, then=queue(entry))
        try:
            await self.journal.fork(fork)
        except JournalError:
            if not await self.is_forked(entry):
                raise
        self.expect_deletion(fork.info)
        self._engine.wake(entry.fork)

    async def is_forked(self, entry: SendEntry) -> bool:
        """Returns whether the copy for a message exists; raises `Conflict` for another message."""
        try:
            sent = await self.journal.sent(entry.fork, entry.key)
        except ThreadNotFound:
            return False
        if sent is not None:
            require_same(entry, sent.message_id)
        return sent is not None

    async def shared_memory(self, owner: str, name: str) -> SharedMemory:
        """Returns the memory that the threads of an owner share under a name."""
        thread_id = shared_id(owner, name)
        if self.known(thread_id) is None:  # it may have been deleted
            await self.threads.shared(owner, name)
        actor = await self.reach(thread_id)
        if actor is None and self.is_stopping:
            raise _stopped(thread_id)
        if actor is None:
            return RemoteMemory(thread_id, self.threads, self.journal)
        self.may_be_idle(thread_id)
        return actor.memory

    async def lent_memory(self, work: Work) -> ThreadMemory:
        """Returns the memory of the thread for which an agent works."""
        return await (await self.require(work.thread_id)).lend_memory()

    # What the bus asks for

    def drives(self, thread_id: str) -> bool:
        """Returns whether the thread is driven here."""
        return self.known(thread_id) is not None

    def subscribe(self, thread_id: str, after: Position) -> Subscription:
        """Returns the events of a thread after a position."""
        return Subscription(
            lambda: self.threads.topic(thread_id),
            lambda after, until: self.journal.read(thread_id, after=after, until=until),
            after,
        )

    def ring(self, thread_id: str) -> None:
        """Looks at the inbox of a thread soon, if it is in memory; the poller finds the others."""
        actor = self.known(thread_id)
        if actor is not None:
            actor.ring()
        else:
            self._due_times.look()

    # Actors come and go

    async def _load_once(self, thread_id: str) -> ThreadActor:
        loading = self._loading.get(thread_id)
        if loading is None:
            loading = asyncio.create_task(self._load(thread_id), name=f"treadle load {thread_id}")
            self._loading[thread_id] = loading
            loading.add_done_callback(lambda task: self._loaded(thread_id, task))
        self._reaching[thread_id] += 1
        try:
            return await asyncio.shield(loading)
        finally:
            self._reaching[thread_id] -= 1
            if not self._reaching[thread_id]:
                del self._reaching[thread_id]
            self.may_be_idle(thread_id)

    def _loaded(self, thread_id: str, loading: asyncio.Task[ThreadActor]) -> None:
        self._loading.pop(thread_id, None)
        if loading.cancelled() or loading.exception() is not None:  # raised where it is awaited
            self._engine.release(thread_id)
        else:
            self.may_be_idle(thread_id)

    async def _load(self, thread_id: str) -> ThreadActor:
        failed = self._actors.get(thread_id)
        if failed is not None:
            await failed.stop_intake()
            await failed.jobs.close()  # what may be started again must not run twice at once
            await failed.compactor.close()
        info = await self.journal.info(thread_id)
        claim = await self.journal.claim(thread_id)
        state = await self.journal.load(thread_id)
        await self._following.hand_over(thread_id, state.seq)
        actor = self._host(info, state, claim)
        # The inbox is read only now that the actor can be rung, so that no entry is missed.
        actor.read_inbox()
        # Not for a drive that waits for it: one that fails each time would be begun forever.
        if thread_id not in self._beginning and (can_go_on(state) or state.jobs):
            self._engine.wake(thread_id)
        return actor

    def _host(self, info: ThreadInfo, state: ThreadState, claim: Claim) -> ThreadActor:
        topic = self._following.open(info.id, state.seq)
        actor = self._actors[info.id] = ThreadActor(info, state, claim, topic, self)
        self._bus.announce(info.id)
        self.may_be_idle(info.id)
        for one in due_times(state):  # a node that has stopped may have stored it
            if one.at is not None:
                self.due_at(one.at)
        return actor

    def due_at(self, at: float) -> None:
        """Notes that something is due on a thread that is driven here."""
        self._due_times.notice(at)

    def may_be_idle(self, thread_id: str) -> None:
        """Looks in `idle_seconds` whether the thread is still in use."""
        if thread_id not in self._actors:
            return
        loop = asyncio.get_running_loop()
        self._last_used.pop(thread_id, None)
        self._last_used[thread_id] = now = loop.time()
        if self._eviction is None and not self.is_stopping:
            self._eviction = loop.call_at(now + self._idle_seconds, self._evict_idle)

    def _evict_idle(self) -> None:
        """Drops the actors that were not used for `idle_seconds`."""
        self._eviction = None
        loop = asyncio.get_running_loop()
        idle: list[str] = []
        for thread_id, used in self._last_used.items():
            due = used + self._idle_seconds
            if due > loop.time():
                self._eviction = loop.call_at(due, self._evict_idle)
                break
            idle.append(thread_id)
        for thread_id in idle:
            del self._last_used[thread_id]
            self._evict(thread_id)

    def _evict(self, thread_id: str) -> None:
        """Drops the actor unless it is in use; whatever uses it calls `may_be_idle` at its end."""
        # A caller may be about to use what was loaded for it; and an actor that failed keeps the
        # thread while its successor is loaded.
        is_wanted = thread_id in self._reaching or thread_id in self._loading
        actor = self._actors.get(thread_id)
        if actor is None or is_wanted or not actor.is_idle or self._engine.is_driving(thread_id):
            return
        self._drop(thread_id)

    def _drop(self, thread_id: str, error: TreadleError | None = None) -> None:
        self._last_used.pop(thread_id, None)
        actor = self._actors.pop(thread_id, None)
        if actor is not None:
            actor.jobs.abandon()  # a program that kept its tree is refused
            actor.compactor.abandon()
            actor.close(error)
            self._following.drop(thread_id, error)
        self._engine.release(thread_id)

    # Driving

    async def drive_thread(self, thread_id: str) -> None:
        """Works off what is to be done on a thread."""
        self._beginning.add(thread_id)
        try:
            actor = await self.reach(thread_id)
        finally:
            self._beginning.discard(thread_id)
        if actor is None:
            return  # the node that has it drives it
        try:
            with use_transport(self._transport):
                await actor.work()
        finally:
            self.may_be_idle(thread_id)

    async def _act(self, due: Due) -> None:
        """Does what is due on a thread, unless another node has it."""
        if due.kind == "deletion":
            await self._delete_due(due)
            return
        actor = await self.reach(due.thread_id)
        if actor is None:
            return
        match due.kind:
            case "approval":
                actor.expire(due.at)
            case "schedule":
                await actor.fire(now())
            case _ as unreachable:
                assert_never(unreachable)

    async def _poll(self) -> None:
        """Looks at the inboxes, after a pause; a failure of the journal is met where it is used."""
        await asyncio.sleep(POLL_SECONDS)
        try:
            waiting = await self.journal.waiting_threads()
        except TreadleError as error:
            _LOGGER.warning("The inboxes could not be read: %s", error.message)
            return
        for thread_id in waiting:
            if thread_id in self._damaged:
                continue  # it was logged; only a repair, or a newer version, can help
            try:
                actor = await self.reach(thread_id)
            except (ThreadDamaged, JournalTooNew) as error:
                self._damaged.add(thread_id)
                _LOGGER.warning("%s is set aside: %s", thread_id, error.message)
            except TreadleError as error:  # the others are not to wait for it
                _LOGGER.warning("%s could not be loaded: %s", thread_id, error.message)
            else:
                if actor is not None:
                    actor.ring()


def _stopped(thread_id: str) -> RunInterrupted:
    return RunInterrupted(f"The runtime was shut down, so {thread_id} is not loaded here any more.")
