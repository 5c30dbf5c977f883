"""Agents that work for the run of a thread, each on a thread of its own in the same journal."""

import asyncio
import hashlib
import time
from collections.abc import Callable
from typing import Any, Protocol, TypeVar, cast

from weft.definition import AgentDefinition
from weft.delegation import Worker
from weft.envelope import Envelope
from weft.errors import ThreadNotFound
from weft.ids import new_id
from weft.inputs import SendInput
from weft.items import Input, as_message
from weft.journal.base import Journal, ThreadInfo, Work
from weft.result import RunResult
from weft.runtime.access import ThreadAccess
from weft.runtime.delegated import AgentShown, delegated, record_spent, started
from weft.runtime.ending import Ended
from weft.runtime.thread_run import result_of_ended
from weft.writer import ThreadWriter

AnyAgent = AgentDefinition[object, object]
Out = TypeVar("Out")


class DrivingThreads(ThreadAccess, Protocol):
    """The threads that this process drives."""

    is_stopping: bool


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
        self, agent: Worker[Out], input: Input, *, key: str, call_id: str = ""
    ) -> RunResult[Out]:
        """Runs the agent, or waits for it where it works already."""
        thread, threads = self._thread, self._threads
        id = _id_of(self._info.id, key)
        self._register(cast("AnyAgent", agent))
        await self._require_thread(id, agent, call_id)
        if call_id:
            thread.record(started(thread.state, call_id, agent.name, id))
        run_id = await threads.send(
            id, SendInput(new_id("run"), as_message(input), agent=agent.name, key=key)
        )
        topic = await threads.topic(id)
        shown = _Shown(AgentShown(thread, agent.name, call_id, id))
        topic.attach(shown)
        try:
            ended = await self._ended(id, run_id)
        finally:
            topic.detach(shown)
        result = result_of_ended(ended, run_id, self._agents)
        return cast("RunResult[Out]", result)

    async def _require_thread(self, id: str, agent: Worker[Any], call_id: str) -> None:
        """Makes the thread of the agent, unless an earlier process did."""
        state, info = self._thread.state, self._info
        assert state.run is not None
        depth = info.work.depth if info.work is not None else 0
        try:
            await self._journal.info(id)
        except ThreadNotFound:
            worker = delegated(state, self._agents(state.run.agent), agent, depth)
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
                work=Work(info.id, state.run.id, call_id, depth + 1, worker.limits),
            )
        )

    async def _ended(self, id: str, run_id: str) -> Ended:
        """Waits for the end; who waits no longer has the agent stop, and counts what it used."""
        try:
            ended = await self._threads.ended(id, run_id)
        except asyncio.CancelledError:
            if not self._threads.is_stopping:  # else both go on in the next process
                await self._threads.cancel(id, run_id)
                self._count(await self._threads.ended(id, run_id))
            raise
        self._count(ended)
        return ended

    def _count(self, ended: Ended) -> None:
        if ended.state.run is not None:
            record_spent(self._thread, ended.state.run.spent)


class _Shown:
    """Fulfils `Subscriber`."""

    def __init__(self, shown: AgentShown) -> None:
        self._shown = shown

    def put(self, envelope: Envelope, /) -> None:
        """Shows an event of the agent."""
        self._shown.put(envelope.event)

    def close(self, error: Exception | None, /) -> None:
        """Nothing more is to be shown."""


def _id_of(thread_id: str, key: str) -> str:
    digest = hashlib.sha256(f"{thread_id}/{key}".encode()).hexdigest()
    return f"thread_{digest[:26]}"
