"""The threads that this process drives: their actors, and what brings them in and out of memory."""

import asyncio
import time
from collections.abc import Callable

from treadle.actors.access import ThreadAccess
from treadle.actors.actor import ThreadActor
from treadle.actors.engine import Engine
from treadle.actors.following import Following
from treadle.actors.host import AnyAgent
from treadle.actors.shared_memory import shared_id
from treadle.bus.base import Bus
from treadle.bus.position import Position
from treadle.bus.subscription import Subscription
from treadle.domain.entries import CancelEntry
from treadle.domain.state import ThreadState, can_go_on
from treadle.errors import JournalError, JournalLocked, ThreadNotFound, TreadleError
from treadle.journal.base import Claim, Journal, ThreadInfo, Work
from treadle.logging import logger_of
from treadle.memory.archive.access import ArchiveAccess
from treadle.memory.blocks.thread_memory import ThreadMemory
from treadle.models.transport import Transport, use_transport

_LOGGER = logger_of("treadle.runtime")

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
        deps: Callable[[ThreadInfo], object],
        lend: Callable[[AnyAgent], None],
        idle_seconds: float,
        transport: Transport | None = None,
    ) -> None:
        self.journal = journal
        self.archive = archive
        self.threads = threads
        self.agent = agent
        self.deps = deps
        self.lend = lend
        self.is_stopping = False
        self._following = following
        self._engine = engine
        self._bus = bus
        self._idle_seconds = idle_seconds
        self._transport = transport
        self._actors: dict[str, ThreadActor] = {}
        self._loading: dict[str, asyncio.Task[ThreadActor]] = {}
        self._evictions: dict[str, asyncio.TimerHandle] = {}
        self._expiries: dict[str, asyncio.TimerHandle] = {}
        self._due: set[str] = set()
        self._poller: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Resumes what was not finished."""
        await self._engine.start(self)
        for unfinished in await self.journal.unfinished():
            if unfinished.status == "requires_action":
                self._expire_at(unfinished.thread_id, unfinished.expires_at)
            if unfinished.status != "requires_action" or unfinished.jobs:
                self._engine.wake(unfinished.thread_id)
        if self.journal.is_shared:
            self._poller = asyncio.create_task(self._poll(), name="treadle inbox poller")
        await self._bus.serve(self)

    async def stop(self) -> None:
        """Interrupts all runs, to be resumed later, and waits until what was recorded is kept.

        Raises `ConfigurationError` in a job: it would wait for itself.
        """
        for actor in self._actors.values():
            actor.jobs.refuse_inside("shut the runtime down")
        self.is_stopping = True
        for timer in [*self._evictions.values(), *self._expiries.values()]:
            timer.cancel()
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
            try:
                await actor.settle()
            except JournalError as error:
                _LOGGER.warning("%s could not be kept: %s", thread_id, error.message)
            actor.close()
            await actor.jobs.close()
            await actor.compactor.close()
            self._engine.release(thread_id)
        self._actors.clear()

    # The way to actors

    def known(self, thread_id: str) -> ThreadActor | None:
        """Returns the actor of a thread that is in memory here and well."""
        actor = self._actors.get(thread_id)
        return actor if actor is not None and actor.failure is None else None

    async def reach(self, thread_id: str) -> ThreadActor | None:
        """Returns the actor of a thread, loaded if it has none; None if another node has it.

        What it left undone is resumed. Raises `ThreadNotFound` and `JournalError`.
        """
        actor = self.known(thread_id)
        if actor is None:
            if not await self._engine.take(thread_id):
                return None
            actor = await self._load_once(thread_id)
            if can_go_on(actor.state) or actor.state.jobs:
                self._engine.wake(thread_id)
        return actor

    async def require(self, thread_id: str) -> ThreadActor:
        """Returns the actor of a thread; raises `JournalLocked` if another node has it."""
        actor = await self.reach(thread_id)
        if actor is None:
            raise JournalLocked(
                f"{thread_id} is in use by another runtime, which has to do this; try it there."
            )
        return actor

    async def create(self, info: ThreadInfo) -> None:
        """Adds a thread; there is nothing to load."""
        claim = await self.journal.create(info)
        await self._engine.take(info.id)
        actor = self._host(info, ThreadState(), claim)
        if info.agent and info.work is None:
            actor.memory.seed(self.agent(info.agent).blocks)
            await actor.settle()

    async def delete(self, thread_id: str) -> None:
        """Interrupts the thread, and removes it; raises `ConfigurationError` in a job of it."""
        known = self._actors.get(thread_id)
        if known is not None:
            known.jobs.refuse_inside("delete its thread")
        info = await self.journal.info(thread_id)
        if not await self._engine.take(thread_id):
            raise JournalLocked(f"{thread_id} is in use by another runtime; delete it there.")
        await self._engine.interrupt(thread_id)
        for work in await self.journal.threads(limit=-1, after="", owner=None, parent=thread_id):
            await self.delete(work.id)
        actor = self._actors.get(thread_id)
        if actor is not None:
            await actor.stop_intake()
            await actor.jobs.close()
            await actor.compactor.close()
        await self.journal.delete(thread_id)
        loading = self._loading.get(thread_id)
        if loading is not None:
            await asyncio.wait([loading])  # it may have read the thread before
        error = ThreadNotFound(f"The thread {thread_id} was deleted.")
        self._drop(thread_id, error)
        self._following.drop(thread_id, error)  # it may have been watched without an actor
        await self.archive.forget(info.owner, thread_id)

    # What actors ask for

    def wake(self, thread_id: str) -> None:
        """Asks for a thread to be driven."""
        self._engine.wake(thread_id)

    async def abandon(self, thread_id: str) -> ThreadState:
        """Cancels what an agent does for a run that no longer needs it; returns the state then."""
        actor = await self.require(thread_id)
        run = actor.state.active_run
        if run is not None:
            await actor.submit(CancelEntry(run.id))
            await self.threads.ended(thread_id, run.id)
        await actor.jobs.cancel_background()
        return actor.state

    async def shared_memory(self, owner: str, name: str) -> ThreadMemory:
        """Returns the memory that the threads of an owner share under a name."""
        thread_id = shared_id(owner, name)
        if self.known(thread_id) is None:  # it may have been deleted
            await self.threads.shared(owner, name)
        actor = await self.require(thread_id)
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

    def follow(self, thread_id: str) -> None:
        """Follows a thread that another runtime drives, if it is watched here."""
        self._following.follow(thread_id)

    # Actors come and go

    async def _load_once(self, thread_id: str) -> ThreadActor:
        loading = self._loading.get(thread_id)
        if loading is None:
            loading = asyncio.create_task(self._load(thread_id), name=f"treadle load {thread_id}")
            self._loading[thread_id] = loading
            loading.add_done_callback(lambda task: self._loaded(thread_id, task))
        return await asyncio.shield(loading)

    def _loaded(self, thread_id: str, loading: asyncio.Task[ThreadActor]) -> None:
        self._loading.pop(thread_id, None)
        if loading.cancelled() or loading.exception() is not None:  # raised where it is awaited
            self._engine.release(thread_id)

    async def _load(self, thread_id: str) -> ThreadActor:
        failed = self._actors.get(thread_id)
        if failed is not None:
            await failed.stop_intake()
            await failed.jobs.close()  # what may be started again must not run twice at once
            await failed.compactor.close()
        info = await self.journal.info(thread_id)
        claim = await self.journal.claim(thread_id)
        state = await self.journal.load(thread_id)
        waiting = await self.journal.inbox(thread_id)
        await self._following.hand_over(thread_id, state.seq)
        actor = self._host(info, state, claim)
        if waiting:
            actor.ring()
        return actor

    def _host(self, info: ThreadInfo, state: ThreadState, claim: Claim) -> ThreadActor:
        topic = self._following.open(info.id, state.seq)
        actor = self._actors[info.id] = ThreadActor(info, state, claim, topic, self)
        self._bus.announce(info.id)
        self.may_be_idle(info.id)
        return actor

    def may_be_idle(self, thread_id: str) -> None:
        """Looks in `idle_seconds` whether the thread is still in use."""
        if thread_id not in self._actors:
            return
        timer = self._evictions.pop(thread_id, None)
        if timer is not None:
            timer.cancel()
        loop = asyncio.get_running_loop()
        self._evictions[thread_id] = loop.call_later(self._idle_seconds, self._evict, thread_id)

    def _evict(self, thread_id: str) -> None:
        """Drops the actor unless it is in use; whatever uses it calls `may_be_idle` at its end."""
        self._evictions.pop(thread_id, None)
        actor = self._actors.get(thread_id)
        if actor is not None and actor.is_idle and not self._engine.is_driving(thread_id):
            self._drop(thread_id)

    def _drop(self, thread_id: str, error: TreadleError | None = None) -> None:
        timer = self._evictions.pop(thread_id, None)
        if timer is not None:
            timer.cancel()
        actor = self._actors.pop(thread_id, None)
        if actor is not None:
            actor.jobs.abandon()  # a program that kept its tree is refused
            actor.compactor.abandon()
            actor.close(error)
            self._following.drop(thread_id, error)
            self.journal.release(actor.claim)
        self._engine.release(thread_id)

    # Driving

    async def drive(self, thread_id: str) -> None:
        """Works off what is to be done on a thread."""
        actor = await self.reach(thread_id)
        if actor is None:
            return  # the node that has it drives it
        if thread_id in self._due:
            self._due.discard(thread_id)
            actor.expire()
        try:
            with use_transport(self._transport):
                await actor.work()
        finally:
            self.may_be_idle(thread_id)
        run = actor.state.active_run
        self._expire_at(thread_id, run.expires_at if run is not None else None)

    def _expire_at(self, thread_id: str, at: float | None) -> None:
        timer = self._expiries.pop(thread_id, None)
        if timer is not None:
            timer.cancel()
        if at is not None:
            loop, delay = asyncio.get_running_loop(), max(0.0, at - time.time())
            self._expiries[thread_id] = loop.call_later(delay, self._expire, thread_id)

    def _expire(self, thread_id: str) -> None:
        del self._expiries[thread_id]
        self._due.add(thread_id)
        self._engine.wake(thread_id)

    async def _poll(self) -> None:
        """Looks at the inboxes at intervals; a failure of the journal is met where it is used."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            try:
                waiting = await self.journal.waiting_threads()
            except TreadleError as error:
                _LOGGER.warning("The inboxes could not be read: %s", error.message)
                continue
            for thread_id in waiting:
                try:
                    actor = await self.reach(thread_id)
                except TreadleError as error:  # the others are not to wait for it
                    _LOGGER.warning("%s could not be loaded: %s", thread_id, error.message)
                else:
                    if actor is not None:
                        actor.ring()
