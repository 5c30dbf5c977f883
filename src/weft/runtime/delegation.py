"""Agents that work for the run of a thread, each on a thread of its own in the same journal."""

import asyncio
import time
from collections.abc import Callable
from typing import Any, Protocol, TypeVar, cast

from weft.definition import AgentDefinition
from weft.delegation import Worker
from weft.envelope import Envelope
from weft.errors import ThreadNotFound, WeftError
from weft.ids import id_of, new_id
from weft.inputs import SendInput
from weft.items import Input, as_message
from weft.journal.base import Journal, ThreadInfo, Work
from weft.logging import logger_of
from weft.result import RunResult
from weft.runtime.access import ThreadAccess
from weft.runtime.delegated import AgentShown, delegated, record_spent, started
from weft.runtime.thread_run import result_of_ended
from weft.state import ThreadState
from weft.usage import Spent
from weft.writer import ThreadWriter

AnyAgent = AgentDefinition[object, object]
Out = TypeVar("Out")

_LOGGER = logger_of("weft.runtime")


class DrivingThreads(ThreadAccess, Protocol):
    """The threads that this process drives."""

    is_stopping: bool

    async def abandon(self, thread_id: str) -> ThreadState:
        """Cancels what an agent does for a run that needs it no more; returns what is then."""
        ...


class ThreadDelegation:
    """Fulfils `Delegation` for the thread `info`.

    The thread of the agent is named after the work, so that after a crash the same work is found
    where it was: the agent goes on by itself, and whoever asks again waits for it.
    """

    def __init__(
        self,
        info: ThreadInfo,
        thread: ThreadWriter,
        threads: DrivingThreads,
        journal: Journal,
        *,
        agents: Callable[[str], AnyAgent],
        register: Callable[[AnyAgent], None],
    ) -> None:
        self._info = info
        self._thread = thread
        self._threads = threads
        self._journal = journal
        self._agents = agents
        self._register = register

    async def run(
        self,
        agent: Worker[Out],
        input: Input,
        *,
        key: str,
        call_id: str = "",
        job_id: str = "",
        lends_memory: bool = False,
    ) -> RunResult[Out]:
        """Runs the agent, or waits for it where it works already."""
        thread, threads = self._thread, self._threads
        id = id_of("thread", self._info.id, key)
        self._register(cast("AnyAgent", agent))
        await self._require_thread(id, agent, call_id, job_id, lends_memory)
        if call_id or job_id:
            thread.record(started(thread.state, agent.name, id, call_id=call_id, job_id=job_id))
        shown = _Shown(AgentShown(thread, agent.name, call_id, id))
        topic = await threads.topic(id)
        topic.attach(shown)
        message = SendInput(new_id("run"), as_message(input), agent=agent.name, key=key)
        try:
            run_id = await threads.send(id, message)
            ended = await threads.ended(id, run_id)
        except asyncio.CancelledError:
            if not threads.is_stopping:  # else both go on in the next process
                await self._abandon(id, job_id)
            raise
        finally:
            topic.detach(shown)
        self._count(id, ended.state, job_id)
        return cast("RunResult[Out]", result_of_ended(ended, run_id, self._agents))

    async def _require_thread(
        self, id: str, agent: Worker[Any], call_id: str, job_id: str, lends_memory: bool
    ) -> None:
        """Makes the thread of the agent, unless an earlier process did."""
        info = self._info
        run_id, current, spent = self._given(job_id)
        depth = info.work.depth if info.work is not None else 0
        try:
            await self._journal.info(id)
        except ThreadNotFound:
            worker = delegated(self._agents(current), agent, spent, depth)
        else:
            return
        now = time.time()
        await self._threads.create(
            ThreadInfo(
                id=id,
                agent=agent.name,
                owner=info.owner,
                metadata=info.metadata,
                created_at=now,
                updated_at=now,
                work=Work(info.id, run_id, call_id, depth + 1, worker.limits, lends_memory),
            )
        )

    def _given(self, job_id: str) -> tuple[str, str, Spent]:
        """The run for which an agent works, the agent within whose limits, and what is used up.

        What works in the background has the limits of a run to itself.
        """
        state = self._thread.state
        job = state.jobs.get(job_id)
        if job is not None and job.background:
            return job.run_id, job.agent, Spent()
        assert state.run is not None
        return state.run.id, state.run.agent, state.run.spent

    async def _abandon(self, id: str, job_id: str) -> None:
        try:
            self._count(id, await self._threads.abandon(id), job_id)
        except WeftError as error:  # who cancelled the call is to hear of that alone
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
