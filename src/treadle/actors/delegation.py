"""Agents that work for a run: within its budget, shown on its thread, found again after a crash."""

import asyncio
from typing import Any, TypeVar, cast

from msgspec.structs import replace

from treadle.actors.definitions import agent_of, agent_on
from treadle.actors.host import AnyAgent, Host
from treadle.actors.result import result_of_ended
from treadle.bus.position import Position
from treadle.bus.topic import Topic
from treadle.clock import now
from treadle.domain.entries import SendEntry
from treadle.domain.envelope import Envelope
from treadle.domain.events import (
    AgentEvent,
    Event,
    JobDelegated,
    RecordedEvent,
    StepStarted,
    ToolDelegated,
    UsageAdded,
    streamed,
)
from treadle.domain.ids import id_of, new_id
from treadle.domain.inputs import as_message
from treadle.domain.items import Input
from treadle.domain.result import RunResult
from treadle.domain.state import ThreadState
from treadle.domain.usage import Spent
from treadle.errors import (
    AgentsTooDeep,
    BudgetUsedUp,
    ConfigurationError,
    ThreadNotFound,
    TreadleError,
)
from treadle.journal.base import ThreadInfo, Work
from treadle.logging import logger_of
from treadle.loop.definition import AgentDefinition, agent_within
from treadle.ports import ThreadWriter, Worker

Out = TypeVar("Out")


def delegated(
    definition: AgentDefinition[object, Any],
    agent: Worker[Out],
    spent: Spent,
    depth: int,
) -> AgentDefinition[object, Out]:
    """Returns the agent within what is left to that of `definition`, which has used up `spent`.

    It works at `depth` + 1. Raises `AgentsTooDeep` and `BudgetUsedUp`.
    """
    if not isinstance(agent, AgentDefinition):
        raise ConfigurationError(f"{agent!r:.100} is not an agent; pass an Agent.")
    limits = definition.limits
    if depth >= limits.max_depth:
        raise AgentsTooDeep(
            f"{agent.name} would work {depth + 1} deep, and {limits.max_depth} is allowed; do it "
            "without another agent, or raise Limits.max_depth."
        )
    reached = limits.reached(spent)
    if reached is not None and reached != "max_steps":
        raise BudgetUsedUp(f"The run has nothing left for another agent: {reached}.")
    worker = cast("AgentDefinition[object, Out]", agent)
    return agent_within(worker, limits.left(spent))


def started(
    state: ThreadState, agent: str, thread_id: str, *, call_id: str, job_id: str
) -> ToolDelegated | JobDelegated:
    """Returns the event that tells on which thread an agent works for a call, or for a job."""
    if job_id:
        run_id = state.jobs[job_id].run_id
        return JobDelegated(run_id=run_id, job_id=job_id, agent=agent, thread_id=thread_id)
    assert state.run is not None
    return ToolDelegated(run_id=state.run.id, call_id=call_id, agent=agent, thread_id=thread_id)


def record_spent(thread: ThreadWriter, spent: Spent, worker: str, job_id: str = "") -> None:
    """Counts what the agent on the thread `worker` used, once: for the run, or the thread.

    The latter where it worked for the background job `job_id`. Nothing is counted for what has
    ended meanwhile.
    """
    run, job = thread.state.active_run, thread.state.jobs.get(job_id)
    counts_for = job if job is not None and job.background else run
    if counts_for is None or worker in counts_for.counted or spent == Spent():
        return
    thread.record(
        UsageAdded(
            run_id=job.run_id if counts_for is job and job is not None else counts_for.id,
            usage=spent.usage,
            cost=spent.cost,
            calls=spent.tool_calls,
            thread_id=worker,
            job_id=job_id if counts_for is job else "",
        )
    )


class AgentShown:
    """Shows what an agent does to the subscribers of the thread that it works for."""

    def __init__(self, thread: ThreadWriter, agent: str, call_id: str, thread_id: str = "") -> None:
        self.thread_id = thread_id
        self._thread = thread
        self._agent = agent
        self._call_id = call_id

    def put(self, event: Event) -> None:
        """Takes an event of the agent."""
        self._thread.publish(AgentEvent(self._call_id, self._agent, self.thread_id, event))


Out = TypeVar("Out")

_LOGGER = logger_of("treadle.runtime")


class ThreadDelegation:
    """Fulfils `Delegation` for the thread `info`.

    The thread of the agent is named after the work, so that after a crash the same work is found
    where it was: the agent continues by itself, and a call that asks again waits for it.
    """

    def __init__(self, info: ThreadInfo, thread: ThreadWriter, host: Host) -> None:
        self._info = info
        self._thread = thread
        self._host = host

    async def run(
        self,
        agent: Worker[Out],
        input: Input,
        *,
        key: str,
        call_id: str = "",
        job_id: str = "",
        lends_memory: bool = False,
    ) -> RunResult[Out | None]:
        """Runs the agent, or waits for it where it works already."""
        thread, threads, item = self._thread, self._host.threads, as_message(input)
        id = id_of("thread", self._info.id, key)
        self._host.lend(cast("AnyAgent", agent))
        is_new = await self._require_thread(id, agent, call_id, job_id, lends_memory)
        if call_id or job_id:
            thread.record(started(thread.state, agent.name, id, call_id=call_id, job_id=job_id))
        shown = _Shown(AgentShown(thread, agent.name, call_id, id))
        # Named after the key alone: the run that asks again after a crash may word it differently.
        item = replace(item, id=id_of("msg", id, key))
        message = SendEntry(new_id("run"), item, agent=agent.name, key=key)
        topic: Topic | None = None
        try:
            if is_new:
                topic = await threads.topic(id)
            else:
                await threads.submit(id, message)  # which loads its thread
                topic = await self._show_left(id, shown)
            # An agent that an earlier process left is at work already: its texts begin before this.
            for envelope in topic.after(Position(topic.seq)):
                shown.put(envelope)
            topic.attach(shown)
            run_id = (await threads.submit(id, message)).run_id
            ended = await threads.ended(id, run_id)
        except asyncio.CancelledError:
            if not self._host.is_stopping:  # else both continue in the next process
                await self._abandon(id, job_id)
            raise
        finally:
            if topic is not None:
                topic.detach(shown)
                topic.shown_to = topic.seq
        self._count(id, ended.state, job_id)
        result = result_of_ended(
            ended, id, run_id, lambda run: agent_on(self._host, self._info, run.agent)
        )
        return cast("RunResult[Out | None]", result)

    async def _require_thread(
        self, id: str, agent: Worker[Any], call_id: str, job_id: str, lends_memory: bool
    ) -> bool:
        """Makes the thread of the agent; returns False if an earlier process did."""
        info = self._info
        run_id, spent = self._given(job_id)
        depth = info.work.depth if info.work is not None else 0
        try:
            await self._host.journal.info(id)
        except ThreadNotFound:
            worker = delegated(self._current(job_id), agent, spent, depth)
        else:
            return False
        created_at = now()
        await self._host.threads.create(
            ThreadInfo(
                id=id,
                agent=agent.name,
                owner=info.owner,
                metadata=info.metadata,
                created_at=created_at,
                updated_at=created_at,
                work=Work(info.id, run_id, call_id, depth + 1, worker.limits, lends_memory),
            )
        )
        return True

    async def _show_left(self, id: str, shown: "_Shown") -> Topic:
        """Shows what an earlier process may not have shown of the agent; returns its topic.

        That is the last step of that process, and what the agent has done here meanwhile: it is
        resumed by itself. A subscriber of another process that has seen an event does not get it
        again. There is no `await` between the last of these events and the return.
        """
        topic = await self._host.threads.topic(id)
        events: list[RecordedEvent] = []
        while len(events) < topic.seq:
            page = await self._host.journal.read(id, after=len(events), until=topic.seq)
            if not page:
                break
            events += page
        steps = (event.seq for event in events if isinstance(event, StepStarted))
        first = max((seq for seq in steps if seq <= topic.shown_to), default=1)
        for event in events[first - 1 :]:
            if event.seq > topic.shown_to:  # no subscriber has a part of its texts
                for whole in streamed(event):
                    shown.put(Envelope(whole, event.seq - 1))
            shown.put(Envelope(event, event.seq))
        return topic

    def _given(self, job_id: str) -> tuple[str, Spent]:
        """Returns the run for which an agent works, and what it has used."""
        state = self._thread.state
        job = state.jobs.get(job_id)
        if job is not None and job.background:
            return job.run_id, Spent()
        assert state.run is not None
        return state.run.id, state.run.spent

    def _current(self, job_id: str) -> AnyAgent:
        """Returns the agent whose limits hold for another that works for it.

        Work in the background has the limits of a run to itself, without the options of that run.
        """
        state = self._thread.state
        job = state.jobs.get(job_id)
        if job is not None and job.background:
            return agent_on(self._host, self._info, job.agent)
        assert state.run is not None
        return agent_of(self._host, self._info, state.run)

    async def _abandon(self, id: str, job_id: str) -> None:
        try:
            self._count(id, await self._host.abandon(id), job_id)
        except TreadleError as error:  # the caller that cancelled gets the cancellation alone
            _LOGGER.warning("The agent on %s could not be stopped: %s", id, error.message)

    def _count(self, id: str, state: ThreadState, job_id: str) -> None:
        record_spent(self._thread, state.spent, id, job_id)


class _Shown:
    """Fulfils `Subscriber`."""

    def __init__(self, shown: AgentShown) -> None:
        self._shown = shown

    def put(self, envelope: Envelope, /) -> None:
        """Shows an event of the agent."""
        self._shown.put(envelope.event)

    def close(self, error: Exception | None, /) -> None:
        """Nothing more is to be shown."""
