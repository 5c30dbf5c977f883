"""A thread in this process: it takes inputs, and drives the runs they start.

Inputs change the state in the turn of the event loop in which they come, so there is no moment at
which two of them, or an input and the loop, could disagree.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import assert_never

from msgspec.structs import replace

from treadle.actors.ending import Ended, Endings
from treadle.actors.journaled import JournaledThread
from treadle.actors.sleeping import Sleeping
from treadle.actors.thread_jobs import ThreadJobs
from treadle.bus.topic import Topic
from treadle.domain.answers import approval_of, denial_of, output_of, pin_of
from treadle.domain.entries import (
    AnswerEntry,
    ApprovalEntry,
    CancelEntry,
    CancelJobEntry,
    DenialEntry,
    EditEntry,
    FinishEntry,
    InsertEntry,
    MemoryEntry,
    OutputEntry,
    PinEntry,
    RemoveEntry,
    SendEntry,
    UndoEntry,
)
from treadle.domain.events import (
    LiveEvent,
    MemoryUpdated,
    MessageAdded,
    MessageQueued,
    RecordedEvent,
    RunCancelled,
    RunCancelling,
    RunFinishing,
    RunQueued,
    RunStarted,
    TerminalEvent,
)
from treadle.domain.ids import id_of, new_id
from treadle.domain.items import Message
from treadle.domain.state import Run, ThreadState, can_go_on
from treadle.domain.usage import Usage
from treadle.errors import (
    JournalError,
    RunInProgress,
    RunInterrupted,
    RunNotFound,
    TreadleError,
    UnknownAgent,
)
from treadle.jobs.failure import OnFailure
from treadle.journal.base import Claim, Journal, ThreadInfo
from treadle.logging import logger_of
from treadle.loop.control import RunControl
from treadle.loop.definition import AgentDefinition
from treadle.loop.drive import cancel, drive, expire, fail, run_ended, tell_announcements
from treadle.loop.listener import EventListener
from treadle.memory.archive.access import ArchiveAccess
from treadle.memory.archive.run_passages import RunPassages, passage_events
from treadle.memory.blocks.changes import changes_of
from treadle.memory.blocks.thread_memory import ThreadMemory
from treadle.memory.compaction.compactor import Compactor
from treadle.ports import Delegation, ThreadWriter

_LOGGER = logger_of("treadle.runtime")

SNAPSHOT_EVERY = 500
"""Events after which a fold is kept, so that loading a thread reads few more than these."""

AnyAgent = AgentDefinition[object, object]


class ThreadActor:
    """The one writer of a thread.

    `agents` finds an agent's definition by name, `deps` what its tools get, `delegation` how other
    agents work for it, `abandon` has the agent on a thread stop, `wake` has the engine call
    `drive`, `on_unwatched` is called when the last subscriber left. `shared` finds a shared memory
    by its name, `lender` the memory of the thread for which this one works, `archive` is that of
    all threads.
    """

    def __init__(
        self,
        info: ThreadInfo,
        state: ThreadState,
        claim: Claim,
        journal: Journal,
        *,
        agents: Callable[[str], AnyAgent],
        deps: Callable[[ThreadInfo], object],
        delegation: Callable[[ThreadInfo, ThreadWriter], Delegation],
        abandon: Callable[[str], Awaitable[object]],
        wake: Callable[[], None],
        on_unwatched: Callable[[], None],
        shared: Callable[[str], Awaitable[ThreadMemory]],
        archive: ArchiveAccess,
        lender: Callable[[], Awaitable[ThreadMemory]] | None = None,
    ) -> None:
        self.info = info
        self._journal = journal
        self._find_agent = agents
        self._deps = deps
        self._abandon = abandon
        self._wake = wake
        self._thread = JournaledThread(
            info.id,
            state,
            claim,
            journal,
            on_kept=self._on_kept,
            on_live=self._on_live,
            on_failed=self._on_failed,
            on_unwatched=on_unwatched,
        )
        lent = delegation(info, self._thread)
        self._control = RunControl(lent)
        self.jobs = self._control.jobs = ThreadJobs(
            self._thread,
            self._control,
            delegation=lent,
            deps=lambda: deps(info),
            policy=self._job_policy,
            wake=wake,
            end_agent=self._end_agent,
            journal=True,
        )
        self.compactor = self._control.compactor = Compactor(
            self._thread, wake=wake, has_blocks=lender is None
        )
        self.memory = self._control.memory = ThreadMemory(
            self._thread,
            shared=shared,
            lender=lender,
            changes=self._read_changes,
            archive=RunPassages(info, self._thread, archive),
        )
        self._sleeping = Sleeping(self._thread, self.jobs, wake)
        self._must_recover = bool(state.jobs)
        self._recovering = asyncio.Lock()  # one does it, and who comes meanwhile waits for it
        self._listener: EventListener[object] | None = None
        self._is_ending = False
        self._due = ""
        self._definition: AnyAgent | None = None
        self._sending: dict[str, asyncio.Future[str]] = {}
        self._remembering = 0
        self._endings = Endings()
        self._snapshot_seq = state.seq
        self._taken: set[int] = set()
        self._inbox_changed = False
        self._inbox = asyncio.Lock()  # its inputs are taken in their order, by one at a time

    @property
    def state(self) -> ThreadState:
        """The fold of all events recorded so far."""
        return self._thread.state

    @property
    def topic(self) -> Topic:
        """Where subscribers hear of the thread."""
        return self._thread.topic

    @property
    def claim(self) -> Claim:
        """The right to append."""
        return self._thread.claim

    @property
    def failure(self) -> JournalError | None:
        """What the journal failed with; the thread is to be loaded again then."""
        return self._thread.failure

    @property
    def is_idle(self) -> bool:
        """Whether nobody would miss the actor."""
        return (
            self._thread.is_settled
            and not self._endings.are_awaited
            and not self._sending
            and not self._remembering
            and not self.topic.is_watched
            and not self.jobs.is_busy
            and not self.compactor.is_busy
        )

    async def settle(self) -> None:
        """Waits until all that was recorded is kept; raises `JournalError`."""
        await self._thread.durable()

    # Inputs

    async def send(self, input: SendEntry) -> str:
        """Takes a message; returns the id of its run once it cannot be lost any more.

        Raises `RunInProgress` and `UnknownAgent`.
        """
        if not input.key:
            run_id = self._accept_message(input)
            await self._thread.durable()
            return run_id
        known = self._sending.get(input.key)
        if known is not None:
            return await self._begun(input.key, await asyncio.shield(known))
        sent = self._sending[input.key] = asyncio.get_running_loop().create_future()
        try:
            run_id = await self._send_once(input)
            sent.set_result(run_id)
        except BaseException as error:
            if isinstance(error, Exception):
                sent.set_exception(error)
                sent.exception()  # it is raised here, whether or not somebody else waits
            else:
                sent.cancel()
            raise
        finally:
            del self._sending[input.key]
        return await self._begun(input.key, run_id)

    async def _send_once(self, input: SendEntry) -> str:
        run_id = await self._journal.run_of_key(self.info.id, input.key)
        if run_id is None:
            run_id = self._accept_message(input)
            await self._thread.durable()
        return run_id

    async def _begun(self, key: str, run_id: str) -> str:
        """Returns the run of a message once the thread has it, and not only the inbox."""
        if self.knows(run_id) or await self._journal.run(self.info.id, run_id) is not None:
            return run_id
        await self._take_inbox()
        await self._thread.durable()
        return await self._journal.run_of_key(self.info.id, key) or run_id

    async def answer(self, input: AnswerEntry) -> None:
        """Takes the answer to a call; raises `ThreadError`."""
        self._accept_answer(input)
        await self._thread.durable()

    async def cancel(self, run_id: str) -> None:
        """Ends a run, or takes it out of the queue; does nothing for one that has ended."""
        self._accept_cancel(run_id)
        await self._thread.durable()

    async def finish(self, run_id: str) -> None:
        """Ends a run after its step; does nothing for one that has ended."""
        self._accept_finish(run_id)
        await self._thread.durable()

    async def pin(self, input: PinEntry) -> None:
        """Has the model read a message for ever, or no longer; raises `UnknownMessage`."""
        self._accept_pin(input)
        await self._thread.durable()

    async def remember(self, input: MemoryEntry) -> None:
        """Changes a memory block; raises the kinds of `MemoryFailed`."""
        self._remembering += 1
        try:
            await self._accept_change(input)
            await self._thread.durable()
        finally:
            self._remembering -= 1
            if self.failure is None:
                self._wake()  # it may be idle from now on

    async def _accept_change(self, input: MemoryEntry) -> None:
        match input:
            case EditEntry():
                await self.memory.take(input)
            case UndoEntry():
                await self.memory.take_back(input)
            case InsertEntry() | RemoveEntry():
                for event in passage_events(input):
                    self._record(event)
            case _ as unreachable:
                assert_never(unreachable)

    async def _read_changes(self, label: str, first: int, last: int) -> Sequence[MemoryUpdated]:
        return await changes_of(self._journal, self.info.id, label, first, last)

    async def lend_memory(self) -> None:
        """Makes the blocks be there that the agent of this thread reads, for another one."""
        run = self.state.run
        await self.memory.prepare(self._agents(run.agent if run else self.info.agent).blocks)

    async def cancel_job(self, job_id: str) -> None:
        """Ends a job and all that it started; does nothing for one that has settled."""
        await self._recover()
        self.jobs.cancel(job_id)

    def expire(self) -> None:
        """Ends the run that waits for an answer, if it still does."""
        run = self.state.active_run
        if run is not None and run.status == "requires_action" and not can_go_on(self.state):
            self._due = run.id
            self._wake()

    def _accept_message(self, input: SendEntry, *, must_keep: bool = False) -> str:
        state, run = self.state, self.state.active_run
        agent = input.agent or self.info.agent
        if run is None and not state.queue:
            if self._is_ending:
                self._queue(input, agent)
            else:
                self._start(input.run_id, input.item, agent, input.key)
        elif input.on_busy == "steer" and run is not None and run.status != "cancelling":
            self._record(MessageQueued(run_id=run.id, item=input.item, key=input.key))
            self._control.notify()
            self._wake()
            return run.id
        elif input.on_busy == "reject" and not must_keep:
            busy = run.id if run is not None else state.queue[0].id
            raise RunInProgress(f"The run {busy} is in progress; try again later.", run_id=busy)
        else:
            urgent = input.on_busy == "cancel"
            if urgent and run is not None:
                self._cancel_active(run)
            self._queue(input, agent, urgent=urgent)
        self._wake()
        return input.run_id

    def _queue(self, input: SendEntry, agent: str, *, urgent: bool = False) -> None:
        self._record(
            RunQueued(
                run_id=input.run_id, item=input.item, agent=agent, key=input.key, urgent=urgent
            )
        )

    def _agents(self, name: str) -> AnyAgent:
        """Finds an agent; one that works for another run, within what was left to that."""
        agent, work = self._find_agent(name), self.info.work
        return agent if work is None else agent.within(work.limits)

    def _start(self, run_id: str, item: Message | None, agent: str, key: str) -> None:
        """Starts a run with what background jobs have told meanwhile, and with a message if any."""
        definition = self._agents(agent)
        self._hear(definition)
        tell_announcements(self._thread, run_id)
        if item is not None:
            self._record(MessageAdded(run_id=run_id, item=item, origin="user"))
        self._record(RunStarted(run_id=run_id, agent=agent, agent_hash=definition.hash, key=key))
        self._definition = definition

    def _accept_answer(self, input: AnswerEntry) -> None:
        match input:
            case OutputEntry():
                event = output_of(self.state, input.call_id, input.output, is_error=input.is_error)
            case ApprovalEntry():
                event = approval_of(self.state, input.call_id)
            case DenialEntry():
                event = denial_of(self.state, input.call_id, input.reason)
            case _ as unreachable:
                assert_never(unreachable)
        if event is not None:
            self._record(event)
            self._control.notify()
            self._wake()

    def _accept_cancel(self, run_id: str) -> None:
        run = self.state.active_run
        if run is not None and run.id == run_id:
            self._cancel_active(run)
        elif any(queued.id == run_id for queued in self.state.queue):
            self._record(RunCancelled(run_id=run_id, usage=Usage()))

    def _cancel_active(self, run: Run) -> None:
        if run.status != "cancelling":
            self._record(RunCancelling(run_id=run.id))
            self._control.cancel()
            self._wake()

    def _accept_finish(self, run_id: str) -> None:
        run = self.state.active_run
        if run is not None and run.id == run_id and not run.finishing:
            self._record(RunFinishing(run_id=run_id))

    def _accept_pin(self, input: PinEntry) -> None:
        event = pin_of(self.state, input.message_id, pinned=input.pinned)
        if event is not None:
            self._record(event)

    # The inbox: inputs of other processes

    def inbox_changed(self) -> None:
        """Takes note that inputs of other processes wait."""
        self._inbox_changed = True
        self._wake()

    async def _take_inbox(self) -> None:
        async with self._inbox:
            await self._take_waiting()

    async def _take_waiting(self) -> None:
        self._inbox_changed = False
        waiting = await self._journal.inbox(self.info.id)
        self._taken &= {entry.number for entry in waiting}
        for entry in waiting:
            if entry.number in self._taken:
                continue
            if isinstance(entry.entry, CancelJobEntry):
                await self._accept_waiting_cancel(entry.entry, entry.number)
                continue
            try:
                await self._accept_waiting(entry.entry)
            except JournalError:
                raise
            except TreadleError as error:  # who sent it is gone, and it changes nothing
                _LOGGER.warning("An input to %s has no effect: %s", self.info.id, error.message)
            # Only now: whoever takes it may be interrupted before.
            self._taken.add(entry.number)
            self._thread.consume(entry.number)

    async def _accept_waiting_cancel(self, input: CancelJobEntry, number: int) -> None:
        """Cancels a job; the wish waits in the inbox until its end is told.

        No event tells of it before, and a restartable job would be started again after a crash.
        """
        await self._recover()
        self._taken.add(number)
        self.jobs.cancel(input.job_id, lambda: self._thread.consume(number))

    async def _accept_waiting(
        self, input: SendEntry | AnswerEntry | CancelEntry | FinishEntry | PinEntry | MemoryEntry
    ) -> None:
        match input:
            case SendEntry():
                await self._accept_waiting_message(input)
            case OutputEntry() | ApprovalEntry() | DenialEntry():
                self._accept_answer(input)
            case CancelEntry():
                self._accept_cancel(input.run_id)
            case FinishEntry():
                self._accept_finish(input.run_id)
            case PinEntry():
                self._accept_pin(input)
            case EditEntry() | UndoEntry() | InsertEntry() | RemoveEntry():
                await self._accept_change(input)
            case _ as unreachable:
                assert_never(unreachable)

    async def _accept_waiting_message(self, input: SendEntry) -> None:
        """Takes a message that was acknowledged already, so that it must not be refused."""
        if input.key and await self._was_sent(input):
            return
        run = self.state.active_run
        steered = run is not None and run.id == input.run_id and run.status != "cancelling"
        if input.on_busy == "steer" and not steered:
            # The run it was to steer has ended, and what it starts needs an id of its own.
            input = replace(input, run_id=new_id("run"))
        try:
            self._accept_message(input, must_keep=True)
        except JournalError:
            raise
        except TreadleError as error:  # its agent is not known here; it may be later
            _LOGGER.warning("A message to %s waits: %s", self.info.id, error.message)
            self._queue(input, input.agent or self.info.agent)

    async def _was_sent(self, input: SendEntry) -> bool:
        """Whether a message of the same key came before; what is being sent here is waited for."""
        while (sending := self._sending.get(input.key)) is not None:
            await asyncio.wait([sending])
        return await self._journal.run_of_key(self.info.id, input.key, inbox=False) is not None

    # Driving

    async def drive(self) -> None:
        """Works off the inbox, the active run and the queue; returns when nothing is left to do.

        Raises `UnknownAgent` and `JournalError`; the run can then be driven on later.
        """
        await self._recover()
        while True:
            if self._inbox_changed:
                await self._take_inbox()
            state = self.state
            run = state.active_run
            if run is not None and run.id == self._due:
                await self._expire_now(run)
                continue
            if not can_go_on(state):
                await self._keep_snapshot()  # of what jobs have added since the last run
                self._tend_memory()
                return
            if run is None:
                self._start_next()
                continue
            definition = self._definition
            if definition is None or definition.name != run.agent:
                try:
                    definition = self._definition = self._agents(run.agent)
                except UnknownAgent:
                    if run.status != "cancelling":
                        raise
                    await self.jobs.stop()
                    cancel(self._thread)  # to end it, nobody needs to know how it works
                    continue
            await self._drive_on(run, definition)
            await self._keep_snapshot()

    def _tend_memory(self) -> None:
        """Starts the agent that tends the memory of the thread, if it has one with work to do."""
        run = self.state.run
        if run is None or run.is_active or self.info.work is not None:
            return
        try:
            definition = self._agents(run.agent)
        except UnknownAgent:
            return  # whoever knows it will have it done
        if definition.sleep_agent is not None and not self._is_used_up(definition):
            self._sleeping.look(definition.sleep_agent)

    def _is_used_up(self, definition: AnyAgent) -> bool:
        """Whether no run of the thread may do anything more, for which it would be prepared."""
        return definition.thread_limits.reached(self.state.spent) is not None

    def _start_next(self) -> None:
        """Starts the run that waits first, or else one that answers what background jobs tell."""
        if self.state.queue:
            queued = self.state.queue[0]
            self._start(queued.id, queued.item, queued.agent, queued.key)
            return
        told = next(told for told in self.state.announced if told.wakes)
        # Named after the message, so that it is the same run after a crash.
        run_id = id_of("run", self.info.id, told.item.id)
        self._start(run_id, None, told.agent or self.info.agent, "")

    async def _recover(self) -> None:
        """Takes care of the jobs that an earlier process left."""
        if self._must_recover:
            async with self._recovering:
                if self._must_recover:
                    await self.jobs.recover()
                    self._must_recover = False

    async def _end_agent(self, thread_id: str) -> None:
        """Has an agent stop that worked for a job here."""
        try:
            await self._abandon(thread_id)
        except RunInterrupted:
            raise  # this process ends, and the next one has it stop
        except TreadleError as error:  # its thread was deleted, or fails: nothing is left to stop
            _LOGGER.warning("The agent on %s could not be stopped: %s", thread_id, error.message)

    def _job_policy(self) -> OnFailure:
        run, definition = self.state.run, self._definition
        assert run is not None
        if definition is None:
            if run.status == "cancelling":
                return "fail_fast"  # to end it, nobody needs to know how it works
            definition = self._agents(run.agent)
        return definition.reachable.get(run.agent, definition).on_job_failure

    async def _expire_now(self, run: Run) -> None:
        """Ends a run that waited too long; its hooks are told, if its agent is known."""
        self._due = ""
        if run.status != "requires_action" or can_go_on(self.state):
            return  # the answer was quicker
        await self.jobs.stop()
        try:
            definition, deps = self._agents(run.agent), self._deps(self.info)
        except Exception as error:  # noqa: BLE001 - the run ends all the same
            _LOGGER.warning("No hook is told that %s expired: %s", run.id, error)
            expire(self._thread)
        else:
            self._hear(definition)
            self._is_ending = definition.attends_ends
            try:
                expire(self._thread)
                await self._tell_of_end(definition, deps)
            finally:
                self._is_ending = False
        self._definition = self._listener = None

    async def _tell_of_end(self, definition: AnyAgent, deps: object) -> None:
        thread, listener = self._thread, self._listener
        if listener is not None:
            listener.deps = deps
            listener.start()
            try:
                await thread.durable()
            finally:
                await listener.stop()
            listener.log_failure()
        await run_ended(thread, definition, deps, self._control)

    async def _drive_on(self, run: Run, definition: AnyAgent) -> None:
        thread, left = self._thread, self.state.step
        try:
            deps = self._deps(self.info)
        except Exception as error:  # noqa: BLE001 - a function of the user's may raise anything
            await self.jobs.stop()
            failure: Exception | None = fail(thread, error)
        else:
            self._hear(definition)
            if self._listener is not None:
                self._listener.deps = deps
            # A message that comes while hooks are told of the end starts its run after them.
            self._is_ending = definition.attends_ends
            try:
                failure = await drive(thread, definition, deps, self._control, self._listener)
            finally:
                self._is_ending = False
        if failure is not None:
            self._endings.failed(run.id, failure)
        if self.state.active_run is None:
            self._definition = self._listener = None
            for thread_id in left.delegated if left is not None else ():
                await self._abandon(thread_id)  # an earlier process had it begin to work
        await thread.durable()
        if self.state.active_run is None:
            self._compact_after(definition)

    def _compact_after(self, definition: AnyAgent) -> None:
        """Begins to make what the model reads shorter, after a run has ended and all know of it."""
        run = self.state.run
        if run is None or self.info.work is not None:
            return  # what worked for another run is not gone on with
        worker = definition.reachable.get(run.agent, definition)
        if worker.budget is not None and not self._is_used_up(worker):
            self.compactor.after_run(worker.budget)

    def _hear(self, definition: AnyAgent) -> None:
        """Has the hooks `on_event` told of what comes, if there are any."""
        if self._listener is None and definition.listens:
            self._listener = EventListener(definition, self._thread, None, self._control)

    @property
    def _is_snapshot_due(self) -> bool:
        return self.state.seq - self._snapshot_seq >= SNAPSHOT_EVERY

    async def _keep_snapshot(self) -> None:
        if self._is_snapshot_due:
            state = self.state
            self._snapshot_seq = state.seq
            await self._thread.durable()  # a snapshot of what is then lost would be of a fiction
            await self._journal.snapshot(self.claim, state)

    # Endings

    def knows(self, run_id: str) -> bool:
        """Whether the run has not ended, or was the last to end."""
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

    def _on_live(self, event: LiveEvent) -> None:
        if self._listener is not None:
            self._listener.put(event)

    def _on_kept(self, event: RecordedEvent) -> None:
        if self._listener is not None:
            self._listener.put(event)
        if isinstance(event, TerminalEvent):
            self._endings.tell(event, self._thread.final.pop(event.run_id))
        elif isinstance(event, MemoryUpdated) and self._is_snapshot_due:
            self._wake()  # a memory that threads share has no run after which one is kept

    def _on_failed(self) -> None:
        self._control.cancel()
        self.jobs.abandon()
        self.compactor.abandon()
        self.close()

    def close(self, error: TreadleError | None = None) -> None:
        """Ends the actor for all who wait for it or watch it."""
        reason = self.failure or error
        self.topic.close(reason)
        self._endings.close(reason or _interrupted(self.info.id))

    def _record(self, event: RecordedEvent) -> None:
        self._thread.record(event)


def _interrupted(thread_id: str) -> RunInterrupted:
    return RunInterrupted(
        f"The runtime was shut down; the run goes on when {thread_id} is driven again."
    )
