"""A thread that is driven in this process: its one writer, and the runs it works on."""

import asyncio
from collections.abc import Callable, Sequence

from msgspec.structs import replace

from treadle.actors.access import Receipt
from treadle.actors.definitions import agent_of, agent_on
from treadle.actors.delegation import ThreadDelegation
from treadle.actors.ending import Ended, Endings
from treadle.actors.host import AnyAgent, Host
from treadle.actors.intake import Intake
from treadle.actors.journaled import JournaledThread
from treadle.actors.sleeping import Sleeping
from treadle.actors.thread_jobs import ThreadJobs
from treadle.bus.topic import Topic
from treadle.domain.accept import queue
from treadle.domain.entries import Entry, SendEntry
from treadle.domain.events import (
    ItemsAdded,
    MemoryUpdated,
    MessageAdded,
    RecordedEvent,
    RunStarted,
    TerminalEvent,
    ThreadUpdated,
)
from treadle.domain.ids import id_of
from treadle.domain.items import Item, Message
from treadle.domain.metadata import updated
from treadle.domain.options import RunOptions
from treadle.domain.state import Run, ThreadState, can_go_on
from treadle.errors import (
    ConfigurationError,
    JournalError,
    MissingExtra,
    MissingKey,
    RunInProgress,
    RunInterrupted,
    RunNotFound,
    StaleWriter,
    TreadleError,
    UnknownAgent,
    UnknownModel,
    UnknownOption,
)
from treadle.jobs.failure import OnFailure
from treadle.journal.base import Claim, ThreadInfo, stale
from treadle.logging import logger_of
from treadle.loop.activation import Activation, run_context
from treadle.loop.definition import (
    agent_with_options,
    attends_ends,
    has_listeners,
    hash_of,
    reachable_from,
)
from treadle.loop.drive import DEPS_SECONDS, cancel, drive, expire, fail, run_ended
from treadle.loop.listener import EventListener
from treadle.loop.services import Services
from treadle.loop.signals import Signals
from treadle.loop.steering import announcements
from treadle.memory.archive.run_passages import RunPassages
from treadle.memory.blocks.thread_memory import SharedMemory, ThreadMemory
from treadle.memory.compaction.compactor import Compactor
from treadle.models.transport import carry, interception
from treadle.schedules.run_schedules import ThreadSchedules
from treadle.tools.context import CallServices
from treadle.tools.failure import explain_failure, reraise_interrupt

_LOGGER = logger_of("treadle.runtime")

_MISSING = (UnknownAgent, UnknownOption, UnknownModel, MissingKey, MissingExtra)
"""What another process may have: a run that lacks it waits."""

SNAPSHOT_EVERY = 500
"""Events after which a fold is kept, so that loading a thread reads few more than these.

They are counted from the last snapshot of any process: a thread may never be in use for so long.
"""


class ThreadActor:
    """Drives the runs of one thread, and has all that belongs to it in this process.

    Entries come in through its `Intake`; its `Endings` are what the ends of runs are waited for
    with. `topic` is where its events are published.
    """

    def __init__(
        self, info: ThreadInfo, state: ThreadState, claim: Claim, topic: Topic, host: Host
    ) -> None:
        self.info = info
        self._host = host
        self._thread = JournaledThread(
            info.id,
            state,
            claim,
            host.journal,
            topic,
            is_stored=info.store,
            on_kept=self._on_kept,
            on_failed=self._on_failed,
            on_due=host.due_at,
        )
        self._endings = Endings(self.may_be_idle)
        lent = ThreadDelegation(info, self._thread, host)
        self._signals = Signals()
        self.jobs = ThreadJobs(
            self._thread,
            self._signals,
            delegation=lent,
            deps=self._deps_of_jobs,
            policy=self._job_policy,
            wake=self._wake,
            end_agent=self._end_agent,
            journal=True,
        )
        work = info.work
        self.compactor = Compactor(
            self._thread, wake=self._wake, has_blocks=work is None or not work.lends_memory
        )
        self.memory = ThreadMemory(
            self._thread,
            shared=self._shared_memory,
            lender=(lambda: host.lent_memory(work)) if work and work.lends_memory else None,
            archive=RunPassages(info, self._thread, host.archive),
        )
        self._services = Services(
            lent,
            self.jobs,
            self.memory,
            self.compactor,
            is_kept=True,
            info=self._current_info,
            files=host.threads.files(info.id),
            schedules=ThreadSchedules(info, self._thread, host.journal),
            require_budget=(
                (lambda: host.spending.require(info.owner)) if host.spending.is_needed else None
            ),
            is_draining=self._is_draining,
        )
        self._deps: tuple[object, ...] = ()  # made last
        self._intake = Intake(info, self._thread, host.journal, self, self.memory, host.archive)
        self._sleeping = Sleeping(self._thread, self.jobs, self._wake)
        # Held while one task recovers; those that come meanwhile wait. None: nothing is left.
        self._recovering = asyncio.Lock() if state.jobs else None
        self._listener: EventListener | None = None
        self._is_ending = False
        self._awaits_permit = False
        self._due = ""
        self._definition: AnyAgent | None = None
        self._snapshot_seq = 0 if state.seq < SNAPSHOT_EVERY else None  # None: the journal knows
        self._origin = interception()

    @property
    def state(self) -> ThreadState:
        """The fold of all events recorded so far."""
        return self._thread.state

    @property
    def topic(self) -> Topic:
        """Where subscribers get the events of the thread."""
        return self._thread.topic

    @property
    def claim(self) -> Claim:
        """The right to append."""
        return self._thread.claim

    @property
    def failure(self) -> JournalError | None:
        """What the journal failed with; the thread must be loaded again then."""
        return self._thread.failure

    @property
    def is_idle(self) -> bool:
        """Whether the actor is not in use, so that it can leave the memory."""
        return (
            self._thread.is_settled
            and not self._awaits_permit
            and not self._intake.is_busy
            and not self._endings.are_awaited
            and not self.topic.is_watched
            and not self.jobs.is_busy
            and not self.compactor.is_busy
        )

    async def submit(self, entry: Entry) -> Receipt:
        """Takes an entry; see `ThreadAccess.submit`."""
        self._origin = interception()  # runs are recorded or replayed where they are asked for
        return await self._intake.submit(entry)

    def read_inbox(self) -> None:
        """Takes what waits in the inbox, soon; the thread is driven only if there is something."""
        self._intake.ring()

    def ring(self) -> None:
        """Notes that entries of other processes wait in the inbox."""
        self.read_inbox()
        self._wake()

    async def stop_intake(self) -> None:
        """Takes no more from the inbox; what waits there is kept for the next process."""
        await self._intake.stop()

    async def settle(self) -> None:
        """Waits until all that was recorded is kept; raises `JournalError`."""
        await self._thread.durable()

    @property
    def is_working(self) -> bool:
        """Whether an entry, a job or a compaction is under way, besides the run that is driven."""
        return self._intake.is_busy or self.jobs.is_busy or self.compactor.is_busy

    def lose(self) -> None:
        """Ends the actor as if the journal had refused it: another node has the thread."""
        self._thread.fail(stale())

    async def lend_memory(self) -> ThreadMemory:
        """Returns the memory with the blocks that the agent of this thread reads, for another."""
        run = self.state.run
        await self.memory.prepare(self._agent(run.agent if run else self.info.agent).blocks)
        return self.memory

    def expire(self, at: float) -> None:
        """Ends the run that waits for an answer until `at` (Unix seconds), if it still does."""
        run = self.state.active_run
        if (
            run is not None
            and run.status == "requires_action"
            and run.expires_at == at
            and not can_go_on(self.state)
        ):
            self._due = run.id
            self._wake()

    async def fire(self, now: float) -> None:
        """Starts the runs of the schedules that are due at `now` (Unix seconds)."""
        await self._intake.fire(now)

    # What the intake asks for

    def start(self, entry: SendEntry) -> None:
        """Begins the run of a message; it waits while hooks still handle the end of the last.

        Raises `RunInProgress` then for a run without a message.
        """
        if self._is_ending and entry.item is not None:
            self._thread.record(queue(entry))
        elif self._is_ending:
            raise RunInProgress("The end of a run is being handled; send it again in a moment.")
        else:
            items = () if entry.item is None else (*entry.before, entry.item)
            self._begin(
                entry.run_id,
                items,
                entry.agent,
                entry.key,
                entry.by,
                entry.options,
                entry.schedule_id,
                entry.so_far,
            )

    def require_options(self, agent: str, options: RunOptions) -> None:
        """Raises what keeps an agent from a run with options; "" is the agent of the thread."""
        definition = agent_on(self._host, self.info, agent or self.info.agent)
        agent_with_options(definition, options, self._host.catalog)

    async def fork_for(self, entry: SendEntry) -> None:
        """Sends a message to a copy of the thread up to the event that it continues."""
        await self._thread.durable()
        await self._host.fork_for(self.info.id, entry)

    def require_agent(self, name: str) -> None:
        """Raises `UnknownAgent` unless the agent is known."""
        agent_on(self._host, self.info, name or self.info.agent)

    def interrupt(self) -> None:
        """Interrupts what the active run is doing."""
        self._signals.interrupt()

    def notice(self) -> None:
        """Looks at the state again: the step in progress, or else the next drive."""
        self._signals.notify()
        self._wake()

    async def stop_job(self, job_id: str, by: str, on_told: Callable[[], object]) -> None:
        """Cancels a job and all that it started."""
        await self._recover()
        self.jobs.cancel(job_id, on_told, by)

    def may_be_idle(self) -> None:
        """Lets the host look whether the thread is still in use."""
        self._host.may_be_idle(self.info.id)

    # Driving

    async def work(self) -> None:
        """Works off the active run and the queue; returns when nothing is left to do.

        Raises `UnknownAgent` and `JournalError`; the run can then be resumed later.
        """
        self._awaits_permit = is_permitted = False
        await self._intake.catch_up()
        await self._recover()
        while True:
            state = self.state
            run = state.active_run
            if run is not None and run.id == self._due:
                await self._expire_now(run)
            elif self._host.is_draining:
                return  # another process does the rest
            elif not can_go_on(state):
                await self._keep_snapshot()  # of what jobs have added since the last run
                self._tend_memory()
                return
            elif not (is_permitted or self._needs_no_permit(run)):
                is_permitted = await self._host.permit(self.info.id, self.info.owner)
                if not is_permitted:
                    self._awaits_permit = True
                    await self.settle()
                    return
            elif run is None:
                self._begin_next()
            else:
                definition = await self._agent_of(run)
                if definition is not None:
                    with carry(self._origin):
                        await self._drive_on(run, definition)
                    await self._keep_snapshot()
                is_permitted = False

    def _needs_no_permit(self, run: Run | None) -> bool:
        """Whether a run is part of another one, which has a permit, or is about to end."""
        return self.info.work is not None or (run is not None and run.status == "cancelling")

    def _begin(
        self,
        run_id: str,
        items: Sequence[Message],
        agent: str,
        key: str = "",
        by: str = "",
        options: RunOptions | None = None,
        schedule_id: str = "",
        so_far: Sequence[Item] = (),
    ) -> None:
        """Begins a run with what background jobs announced meanwhile, and messages if any.

        Items with which its answer begins enter before it: what they contain is not its doing.
        """
        definition = self._agent(agent)
        self._hear(definition)
        for announced in announcements(self.state, run_id):
            self._thread.record(announced)
        origin = "schedule" if schedule_id else "user"
        for item in items:
            self._thread.record(MessageAdded(run_id=run_id, item=item, origin=origin, by=by))
        if so_far:
            self._thread.record(ItemsAdded(run_id=run_id, items=tuple(so_far), by=by))
        self._thread.record(
            RunStarted(
                run_id=run_id,
                agent=agent,
                agent_hash=hash_of(definition),
                key=key,
                by=by,
                options=options,
                schedule_id=schedule_id,
            )
        )
        # With options, it is made when the run is driven: what they lack must fail a run, or wait.
        self._definition = definition if options is None else None

    def _begin_next(self) -> None:
        """Begins the run that waits first, or else one that answers what background jobs tell."""
        if self.state.queue:
            queued = self.state.queue[0]
            items = (*queued.before, queued.item)
            self._begin(
                queued.id,
                items,
                queued.agent,
                queued.key,
                queued.by,
                queued.options,
                queued.schedule_id,
                queued.so_far,
            )
            return
        told = next(told for told in self.state.announced if told.wakes)
        # Named after the message, so that it is the same run after a crash.
        run_id = id_of("run", self.info.id, told.item.id)
        self._begin(run_id, (), told.agent or self.info.agent)

    def _agent(self, name: str) -> AnyAgent:
        return agent_on(self._host, self.info, name)

    async def _agent_of(self, run: Run) -> AnyAgent | None:
        """Finds the agent of the active run; None if the run ended because there is none."""
        if self._definition is None or self._definition.name != run.agent:
            try:
                self._definition = agent_of(self._host, self.info, run)
            except _MISSING:
                if run.status != "cancelling":
                    raise
                await self.jobs.stop()
                cancel(self._thread)  # ending it does not need to know how it works
                return None
            except TreadleError as error:  # no other process could work with these options either
                await self.jobs.stop()
                self._endings.failed(run.id, fail(self._thread, error))
                return None
        return self._definition

    async def _drive_on(self, run: Run, definition: AnyAgent) -> None:
        thread, left = self._thread, self.state.step
        self._hear(definition)
        # A message that comes while hooks handle the end starts its run after them.
        self._is_ending = attends_ends(definition)
        try:
            failure = await drive(self._activation(definition))
        finally:
            self._is_ending = False
        if failure is not None:
            self._endings.failed(run.id, failure)
        if self.state.active_run is None:
            self._definition = self._listener = self._thread.on_live = None
            for thread_id in left.delegated if left is not None else ():
                await self._host.abandon(thread_id)  # an earlier process let it begin to work
        await thread.durable()
        if self.state.active_run is None and not self._host.is_draining:
            self._compact_after(definition)

    def _hear(self, definition: AnyAgent) -> None:
        """Collects events for the hooks `on_event` from now on, if there are any."""
        if self._listener is None and has_listeners(definition):
            self._listener = EventListener()
            self._thread.on_live = self._listener.put

    def _activation(self, definition: AnyAgent) -> Activation[object, object]:
        return Activation(
            self._thread,
            definition,
            None,
            self._services,
            self._signals,
            self._listener,
            make_deps=self._make_deps,
        )

    async def _make_deps(self) -> object:
        """Makes what tools, hooks and jobs are given; raises `HookFailed`."""
        lent, run = CallServices(writer=self._thread, memory=self.memory), self.state.run
        agent = run.agent if run is not None else self.info.agent
        context = run_context(self._thread, self._services, lent, deps=None, agent=agent)
        deps = await self._host.deps.result(context, self.info)
        self._deps = (deps,)
        return deps

    def _deps_of_jobs(self) -> object:
        if not self._deps:
            raise ConfigurationError("The deps of this thread could not be made; see the log.")
        return self._deps[0]

    async def _expire_now(self, run: Run) -> None:
        """Ends a run that waited too long; its hooks are called, if its agent is known."""
        self._due = ""
        if run.status != "requires_action" or can_go_on(self.state):
            return  # the answer was quicker
        await self.jobs.stop()
        task = asyncio.current_task()
        try:
            activation = self._activation(agent_of(self._host, self.info, run))
            async with asyncio.timeout(DEPS_SECONDS):
                activation.deps = await self._make_deps()
        except BaseException as error:  # noqa: BLE001 - the run ends all the same
            reraise_interrupt(error, task)
            problem = explain_failure(error)
            _LOGGER.warning("No hook is called for the expiry of %s: %s", run.id, problem)
            expire(self._thread)
        else:
            self._hear(activation.agent)
            activation.listener = self._listener
            self._is_ending = attends_ends(activation.agent)
            try:
                expire(self._thread)
                async with activation.listening():
                    pass  # the hooks are called for what is recorded already
                await run_ended(activation)
            finally:
                self._is_ending = False
        self._definition = self._listener = self._thread.on_live = None

    # Between runs

    async def _recover(self) -> None:
        """Takes care of the jobs that an earlier process left."""
        recovering = self._recovering
        if recovering is not None:
            async with recovering:
                if self._recovering is not None:
                    if any(job.kind for job in self.state.jobs.values()):
                        await self._make_deps_of_jobs()
                    await self.jobs.recover()
                    self._recovering = None

    async def _make_deps_of_jobs(self) -> None:
        """Makes the deps of jobs that are started again before a run is."""
        task = asyncio.current_task()
        try:
            async with asyncio.timeout(DEPS_SECONDS):
                await self._make_deps()
        except BaseException as error:  # noqa: BLE001 - a job that reads them fails
            reraise_interrupt(error, task)
            _LOGGER.warning("Jobs of %s have no deps: %s", self.info.id, explain_failure(error))

    async def _end_agent(self, thread_id: str) -> None:
        """Stops an agent that worked for a job here."""
        try:
            await self._host.abandon(thread_id)
        except RunInterrupted:
            raise  # this process ends, and the next one stops it
        except TreadleError as error:  # its thread was deleted, or fails: nothing is left to stop
            _LOGGER.warning("The agent on %s could not be stopped: %s", thread_id, error.message)

    # Methods, because a closure takes three times the memory of one in each thread.

    def _current_info(self) -> ThreadInfo:
        return self.info

    def _is_draining(self) -> bool:
        return self._host.is_draining

    async def _shared_memory(self, name: str) -> SharedMemory:
        return await self._host.shared_memory(self.info.owner, name)

    def _job_policy(self) -> OnFailure:
        run, definition = self.state.run, self._definition
        assert run is not None
        if definition is None:
            if run.status == "cancelling":
                return "fail_fast"  # ending it does not need to know how it works
            definition = self._agent(run.agent)
        return reachable_from(definition).get(run.agent, definition).on_job_failure

    def _tend_memory(self) -> None:
        """Starts the agent that tends the memory of the thread, if it has one with work to do."""
        run = self.state.run
        if run is None or run.is_active or self.info.work is not None:
            return
        try:
            definition = self._agent(run.agent)
        except UnknownAgent:
            return  # a process that knows it will start it
        if definition.sleep_agent is not None and not self._is_used_up(definition):
            self._sleeping.look(definition.sleep_agent)

    def _compact_after(self, definition: AnyAgent) -> None:
        """Begins to shorten what the model reads, after a run has ended and its end is known."""
        run = self.state.run
        if run is None or self.info.work is not None:
            return  # a thread that worked for another run is not continued
        if run.options is not None:  # the next run has the model of the agent again
            try:
                definition = self._agent(run.agent)
            except UnknownAgent:
                return
        worker = reachable_from(definition).get(run.agent, definition)
        if worker.budget is not None and not self._is_used_up(worker):
            self.compactor.after_run(worker.budget)

    def _is_used_up(self, definition: AnyAgent) -> bool:
        """Whether no further run of the thread is possible, for which it would be prepared."""
        return definition.thread_limits.reached(self.state.spent) is not None

    @property
    def _is_snapshot_due(self) -> bool:
        return self.state.seq - (self._snapshot_seq or 0) >= SNAPSHOT_EVERY

    async def _keep_snapshot(self) -> None:
        if self._is_snapshot_due and self._snapshot_seq is None:
            self._snapshot_seq = await self._host.journal.snapshot_seq(self.info.id)
        if self._is_snapshot_due:
            state = self.state
            self._snapshot_seq = state.seq
            # A snapshot that is ahead of the journal would contain events that may be lost.
            await self._thread.durable()
            await self._host.journal.snapshot(self.claim, state)

    # Endings

    def knows(self, run_id: str) -> bool:
        """Returns whether the run has not ended, or was the last to end."""
        state = self.state
        return (
            self._endings.is_last(run_id)
            or (state.active_run is not None and state.active_run.id == run_id)
            or any(queued.id == run_id for queued in state.queue)
            or run_id in self._thread.final
        )

    async def ended(self, run_id: str) -> Ended:
        """Waits for the end of a run that it `knows`.

        Raises `RunInterrupted` when this process stops driving it, `JournalError` when it fails.
        """
        if self.failure is not None:
            raise self.failure
        if not self.knows(run_id):
            raise RunNotFound(f"The run {run_id[:100]!r} is not open.")
        return await self._endings.of(run_id)

    def close(self, error: TreadleError | None = None) -> None:
        """Ends the actor for all that wait for it or watch it."""
        reason = self.failure or error
        self.topic.close(reason)
        self._endings.close(reason or _interrupted(self.info.id))

    def _on_kept(self, event: RecordedEvent) -> None:
        if self._listener is not None:
            self._listener.put(event)
        if isinstance(event, TerminalEvent):
            self._endings.tell(event, self._thread.final.pop(event.run_id))
        elif isinstance(event, MemoryUpdated) and self._is_snapshot_due:
            self._wake()  # a memory that threads share has no run after which one is kept
        elif isinstance(event, ThreadUpdated):
            metadata = updated(self.info.metadata, event.metadata or {})
            title = self.info.title if event.title is None else event.title
            expires_at = self.info.expires_at
            if event.expires_at is not None:
                expires_at = None if event.expires_at == "never" else event.expires_at
            self.info = replace(self.info, metadata=metadata, title=title, expires_at=expires_at)

    def _on_failed(self) -> None:
        self._signals.interrupt()
        self.jobs.abandon()
        self.compactor.abandon()
        assert self.failure is not None
        if self.failure.retryable:
            # The thread is loaded again and resumed: its subscribers stay, and so do the callers
            # that wait for a run (see `Threads.ended`).
            self._endings.close(self.failure)
            self._wake()
        elif isinstance(self.failure, StaleWriter) and self._host.lost(self.info.id):
            self._endings.close(self.failure)  # the callers that wait ask the node that has it
        else:
            self.close()

    def _wake(self) -> None:
        self._host.wake(self.info.id)


def _interrupted(thread_id: str) -> RunInterrupted:
    return RunInterrupted(
        f"The runtime was shut down; the run is resumed when {thread_id} is driven again."
    )
