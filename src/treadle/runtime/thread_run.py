"""A run of a thread as its users hold it."""

from collections.abc import AsyncGenerator, Callable

from treadle.actors.access import ThreadAccess
from treadle.actors.result import result_of_ended
from treadle.bus.position import Position
from treadle.bus.subscription import Subscription
from treadle.domain.entries import CancelEntry, FinishEntry
from treadle.domain.events import (
    DurableEvent,
    Event,
    MessageAdded,
    RunStarted,
    TerminalEvent,
)
from treadle.domain.result import RunResult
from treadle.journal.base import Journal
from treadle.loop.definition import AgentDefinition

AnyAgent = AgentDefinition[object, object]


class ThreadRun:
    """A run on a thread: iterate it for its events, await `result()` for its result.

    The run needs neither to continue. A run that waits for an output or an approval from outside
    continues once the thread has it.
    """

    def __init__(
        self,
        id: str,
        thread_id: str,
        threads: ThreadAccess,
        journal: Journal,
        agents: Callable[[str], AnyAgent],
    ) -> None:
        self.id = id
        self.thread_id = thread_id
        self._threads = threads
        self._journal = journal
        self._agents = agents

    def __repr__(self) -> str:
        return f"ThreadRun({self.id!r})"

    async def result(self) -> RunResult[object]:
        """Waits for the end of the run and returns its result.

        Raises the error of a run that failed, `RunInterrupted` when the runtime is shut down
        before its end, `UnknownAgent` when its agent is not known here. A run that was cancelled,
        expired, or stopped by a limit has a result that says so.
        """
        ended = await self._threads.ended(self.thread_id, self.id)
        return result_of_ended(ended, self.id, self._agents)

    async def cancel(self) -> None:
        """Ends the run now, or takes it out of the queue; every open call is answered.

        Does nothing to a run that has ended.
        """
        await self._threads.submit(self.thread_id, CancelEntry(self.id))

    async def finish(self) -> None:
        """Ends the run after the step it is in; does nothing to one that has ended."""
        await self._threads.submit(self.thread_id, FinishEntry(self.id))

    async def __aiter__(self) -> AsyncGenerator[Event]:
        """The events of the run, from its first message to its terminal event."""
        start = (await self._threads.state(self.thread_id)).seq
        known = await self._journal.run(self.thread_id, self.id)
        if known is not None and known.first_seq:
            start = max(known.first_seq - 2, 0)  # right before it is the message that starts it
        subscription = Subscription(
            lambda: self._threads.topic(self.thread_id),
            lambda after, until: self._journal.read(self.thread_id, after=after, until=until),
            Position(start),
        )
        active = False
        async with subscription:
            async for event in subscription:
                if not isinstance(event, DurableEvent):
                    if active:
                        yield event
                    continue
                if event.run_id != self.id:
                    continue
                active = active or isinstance(event, MessageAdded | RunStarted)
                yield event
                if isinstance(event, TerminalEvent):
                    return
