"""The process that drives the threads of a journal: their actors, and what wakes them."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from treadle.actors.actor import AnyAgent, ThreadActor
from treadle.actors.delegation import ThreadDelegation
from treadle.actors.ending import Ended, read_ending
from treadle.actors.engine import EmbeddedEngine
from treadle.actors.fork import fork_of
from treadle.actors.live import LiveServer, socket_path
from treadle.actors.shared_memory import require_shared, shared_id
from treadle.bus.position import Position
from treadle.bus.subscription import Subscription
from treadle.bus.topic import Topic
from treadle.domain.entries import AnswerEntry, MemoryEntry, PinEntry, SendEntry
from treadle.domain.state import ThreadState, can_go_on
from treadle.errors import InvalidInput, JournalError, ThreadNotFound, TreadleError
from treadle.journal.base import Claim, Journal, ThreadInfo, Work
from treadle.logging import logger_of
from treadle.memory.archive.access import ArchiveAccess
from treadle.memory.blocks.thread_memory import ThreadMemory
from treadle.ports import Delegation, ThreadWriter

_LOGGER = logger_of("treadle.runtime")

POLL_SECONDS = 0.1
"""How often the inboxes are looked at, for what other processes put there."""


class Driver:
    """Fulfils `ThreadAccess` with one actor for each thread that is in use.

    A thread that nobody needed for `idle_seconds` leaves the memory, until somebody does.
    `database` is the file that other processes read, and put inputs into; None where there are
    none. `archive` is that of all threads.
    """

    def __init__(
        self,
        journal: Journal,
        *,
        agents: Callable[[str], AnyAgent],
        deps: Callable[[ThreadInfo], object],
        register: Callable[[AnyAgent], None],
        idle_seconds: float,
        database: Path | None,
        archive: ArchiveAccess,
    ) -> None:
        self._journal = journal
        self.archive = archive
        self._agents = agents
        self._deps = deps
        self._register = register
        self.is_stopping = False
        self._idle_seconds = idle_seconds
        self._database = database
        socket = socket_path(database) if database is not None else None
        self._live = LiveServer(socket, self._subscribe) if socket is not None else None
        self._engine = EmbeddedEngine(self._drive)
        self._actors: dict[str, ThreadActor] = {}
        self._loading: dict[str, asyncio.Task[ThreadActor]] = {}
        self._evictions: dict[str, asyncio.TimerHandle] = {}
        self._expiries: dict[str, asyncio.TimerHandle] = {}
        self._due: set[str] = set()
        self._making = asyncio.Lock()  # a shared memory is made once
        self._poller: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Drives on whatever was not finished."""
        await self._engine.start()
        for unfinished in await self._journal.unfinished():
            if unfinished.status == "requires_action":
                self._expire_at(unfinished.thread_id, unfinished.expires_at)
            if unfinished.status != "requires_action" or unfinished.jobs:
                self._engine.wake(unfinished.thread_id)
        if self._database is not None:
            self._poller = asyncio.create_task(self._poll(), name="treadle inbox poller")
        if self._live is not None:
            await self._live.start()

    async def stop(self) -> None:
        """Interrupts all runs, to be driven on later, and waits until what was said is kept.

        Raises `ConfigurationError` in a job: it would wait for itself.
        """
        for actor in self._actors.values():
            actor.jobs.refuse_inside("shut the runtime down")
        self.is_stopping = True
        for timer in [*self._evictions.values(), *self._expiries.values()]:
            timer.cancel()
        if self._live is not None:
            await self._live.stop()
        if self._poller is not None:
            self._poller.cancel()
            await asyncio.wait([self._poller])
        if self._loading:
            await asyncio.wait(list(self._loading.values()))
        await self._engine.stop()
        for actor in self._actors.values():
            actor.jobs.abandon()  # all at once: each may have to clean up
            actor.compactor.abandon()
        for actor in list(self._actors.values()):
            try:
                await actor.settle()
            except JournalError as error:
                _LOGGER.warning("%s could not be kept: %s", actor.info.id, error.message)
            actor.close()
            await actor.jobs.close()
            await actor.compactor.close()
        self._actors.clear()

    # What handles ask for

    async def create(self, info: ThreadInfo) -> None:
        """Adds a thread; there is nothing to load."""
        actor = self._host(info, ThreadState(), await self._journal.create(info))
        if info.agent and info.work is None:
            actor.memory.seed(self._agents(info.agent).blocks)
            await actor.settle()

    async def connect(self, thread_id: str) -> None:
        """Loads the thread; however many connect at once, it is loaded once."""
        await self._reach(thread_id)

    async def send(self, thread_id: str, input: SendEntry) -> str:
        """Hands a message to the actor."""
        return await (await self._reach(thread_id)).send(input)

    async def answer(self, thread_id: str, input: AnswerEntry) -> None:
        """Hands the answer to a call to the actor."""
        await (await self._reach(thread_id)).answer(input)

    async def cancel(self, thread_id: str, run_id: str) -> None:
        """Has a run end now."""
        await (await self._reach(thread_id)).cancel(run_id)

    async def finish(self, thread_id: str, run_id: str) -> None:
        """Has a run end after its step."""
        await (await self._reach(thread_id)).finish(run_id)

    async def cancel_job(self, thread_id: str, job_id: str) -> None:
        """Has a job end now."""
        await (await self._reach(thread_id)).cancel_job(job_id)

    async def pin(self, thread_id: str, input: PinEntry) -> None:
        """Hands the wish to the actor."""
        await (await self._reach(thread_id)).pin(input)

    async def remember(self, thread_id: str, input: MemoryEntry) -> None:
        """Hands a change of a memory block to the actor."""
        await (await self._reach(thread_id)).remember(input)

    async def shared(self, owner: str, name: str) -> str:
        """Returns the id of a shared memory; whoever asks meanwhile waits until it is made."""
        async with self._making:
            return await require_shared(self, self._journal, owner, name)

    async def topic(self, thread_id: str) -> Topic:
        """Returns the topic of the actor."""
        return (await self._reach(thread_id)).topic

    async def state(self, thread_id: str) -> ThreadState:
        """Returns the state once all of it is kept."""
        actor = await self._reach(thread_id)
        state = actor.state
        await actor.settle()
        return state

    async def ended(self, thread_id: str, run_id: str) -> Ended:
        """Waits for the end of a run."""
        actor = await self._reach(thread_id)
        if not actor.knows(run_id):
            ending = await read_ending(self._journal, thread_id, run_id)
            if ending is not None:
                return ending
            actor = await self._reach(thread_id)
        return await actor.ended(run_id)

    async def fork(self, thread_id: str, at: int | None) -> str:
        """Copies a thread; returns the id of the copy."""
        state = await self.state(thread_id)
        info = await self._journal.info(thread_id)
        if info.memory:
            raise InvalidInput("A shared memory cannot be forked: nobody would share the copy.")
        if at is not None:
            if not 0 <= at <= state.seq:
                raise InvalidInput(f"The thread has the events 1 to {state.seq}, not {at}.")
            state = await self._journal.load(thread_id, at=at)
        fork = fork_of(state, info, await self._journal.runs(thread_id))
        await self._journal.fork(fork)
        return fork.info.id

    async def delete(self, thread_id: str) -> None:
        """Interrupts the thread, and removes it; raises `ConfigurationError` in a job of it."""
        known = self._actors.get(thread_id)
        if known is not None:
            known.jobs.refuse_inside("delete its thread")
        info = await self._journal.info(thread_id)
        await self._engine.interrupt(thread_id)
        for work in await self._journal.threads(limit=-1, after="", owner=None, parent=thread_id):
            await self.delete(work.id)
        actor = self._actors.get(thread_id)
        if actor is not None:
            await actor.jobs.close()
            await actor.compactor.close()
        await self._journal.delete(thread_id)
        loading = self._loading.get(thread_id)
        if loading is not None:
            await asyncio.wait([loading])  # it may have read the thread before
        self._drop(thread_id, ThreadNotFound(f"The thread {thread_id} was deleted."))
        await self.archive.forget(info.owner, thread_id)

    async def abandon(self, thread_id: str) -> ThreadState:
        """Cancels what an agent does for a run that needs it no more; returns what is then."""
        actor = await self._reach(thread_id)
        run = actor.state.active_run
        if run is not None:
            await actor.cancel(run.id)
            await self.ended(thread_id, run.id)
        await actor.jobs.cancel_background()
        return actor.state

    def _subscribe(self, thread_id: str, after: Position) -> Subscription:
        return Subscription(
            lambda: self.topic(thread_id),
            lambda after, until: self._journal.read(thread_id, after=after, until=until),
            after,
        )

    # Actors

    async def _reach(self, thread_id: str) -> ThreadActor:
        """Returns the actor for somebody; what it left undone, it goes on with."""
        known = self._actors.get(thread_id)
        actor = await self._actor(thread_id)
        if actor is not known and (can_go_on(actor.state) or actor.state.jobs):
            self._engine.wake(thread_id)
        return actor

    async def _actor(self, thread_id: str) -> ThreadActor:
        actor = self._actors.get(thread_id)
        if actor is not None and actor.failure is None:
            return actor
        loading = self._loading.get(thread_id)
        if loading is None:
            loading = asyncio.create_task(self._load(thread_id), name=f"treadle load {thread_id}")
            self._loading[thread_id] = loading
            loading.add_done_callback(lambda task: self._loaded(thread_id, task))
        return await asyncio.shield(loading)

    def _loaded(self, thread_id: str, loading: asyncio.Task[ThreadActor]) -> None:
        self._loading.pop(thread_id, None)
        if not loading.cancelled():
            loading.exception()  # raised where somebody waits, if anybody still does

    async def _load(self, thread_id: str) -> ThreadActor:
        failed = self._actors.get(thread_id)
        if failed is not None:
            await failed.jobs.close()  # what may be started again must not run twice at once
            await failed.compactor.close()
        info = await self._journal.info(thread_id)
        claim = await self._journal.claim(thread_id)
        return self._host(info, await self._journal.load(thread_id), claim)

    def _host(self, info: ThreadInfo, state: ThreadState, claim: Claim) -> ThreadActor:
        actor = self._actors[info.id] = ThreadActor(
            info,
            state,
            claim,
            self._journal,
            agents=self._agents,
            deps=self._deps,
            delegation=self._delegation,
            abandon=self.abandon,
            wake=lambda: self._engine.wake(info.id),
            on_unwatched=lambda: self._evict_later(info.id),
            shared=lambda name: self._shared(info.owner, name),
            archive=self.archive,
            lender=self._lender(info.work) if info.work is not None else None,
        )
        self._evict_later(info.id)
        return actor

    async def _shared(self, owner: str, name: str) -> ThreadMemory:
        id = shared_id(owner, name)
        known = self._actors.get(id)
        if known is None or known.failure is not None:  # which its deletion may have been
            await self.shared(owner, name)
        actor = await self._reach(id)
        self._evict_later(id)
        return actor.memory

    def _lender(self, work: Work) -> Callable[[], Awaitable[ThreadMemory]] | None:
        """Returns what finds the memory of the thread for which an agent works, if it is lent."""
        if not work.lends_memory:
            return None

        async def lender() -> ThreadMemory:
            actor = await self._reach(work.thread_id)
            await actor.lend_memory()
            return actor.memory

        return lender

    def _delegation(self, info: ThreadInfo, thread: ThreadWriter) -> Delegation:
        return ThreadDelegation(
            info, thread, self, self._journal, agents=self._agents, register=self._register
        )

    def _evict_later(self, thread_id: str) -> None:
        if thread_id not in self._actors:
            return
        timer = self._evictions.pop(thread_id, None)
        if timer is not None:
            timer.cancel()
        loop = asyncio.get_running_loop()
        self._evictions[thread_id] = loop.call_later(self._idle_seconds, self._evict, thread_id)

    def _evict(self, thread_id: str) -> None:
        """Drops the actor unless somebody needs it; who does comes back here when done."""
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
            actor.jobs.abandon()  # whoever kept its tree is refused
            actor.compactor.abandon()
            actor.close(error)
            self._journal.release(actor.claim)

    # Driving

    async def _drive(self, thread_id: str) -> None:
        actor = await self._actor(thread_id)
        if thread_id in self._due:
            self._due.discard(thread_id)
            actor.expire()
        try:
            await actor.drive()
        finally:
            self._evict_later(thread_id)
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
        """Looks at the inboxes again and again; a failure of the journal is met by who uses it."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            try:
                waiting = await self._journal.waiting_threads()
            except TreadleError as error:
                _LOGGER.warning("The inboxes could not be read: %s", error.message)
                continue
            for thread_id in waiting:
                try:
                    (await self._reach(thread_id)).inbox_changed()
                except TreadleError as error:  # the others are not to wait for it
                    _LOGGER.warning("%s could not be loaded: %s", thread_id, error.message)
