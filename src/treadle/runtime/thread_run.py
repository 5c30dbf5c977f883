"""A run of a thread as its users hold it."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, suppress

from treadle.actors.access import ThreadAccess
from treadle.actors.ending import Ended
from treadle.actors.result import result_of_ended
from treadle.bus.position import Position
from treadle.domain.entries import CancelEntry, FinishEntry
from treadle.domain.events import Event, EventRemoved, MessageAdded, RunFailed, TextDelta
from treadle.domain.inputs import MAX_MESSAGES
from treadle.domain.result import RunResult, require_complete
from treadle.domain.state import Run
from treadle.errors import NotDriven, RunNotFound, RunTimeout
from treadle.journal.base import JournalReader
from treadle.journal.projection import RunRecord
from treadle.loop.definition import AgentDefinition
from treadle.runtime.growing_output import growing_output
from treadle.runtime.positions import require_reached
from treadle.runtime.run_subscription import RunSubscription

AnyAgent = AgentDefinition[object, object]


class ThreadRun:
    """A run on a thread: `text_stream()` and `events()` show it, `result()` waits for its result.

    The run needs none of them to continue, and has any number of readers. A run that waits for an
    output or an approval from outside continues once the thread has it.

    `is_driven` is False if no process drove the threads when the message was sent: it waits in the
    inbox for the next process that opens the database with `drive=True`.
    """

    def __init__(
        self,
        id: str,
        thread_id: str,
        threads: ThreadAccess,
        journal: JournalReader,
        agent_of: Callable[[Run], AnyAgent],
        *,
        is_driven: bool = True,
        after: int | None = None,
    ) -> None:
        self.id = id
        self.thread_id = thread_id
        self._threads = threads
        self._journal = journal
        self._agent_of = agent_of
        self.is_driven = is_driven
        self._begins_after = after  # None: the journal knows

    def __repr__(self) -> str:
        return f"ThreadRun({self.id!r})"

    def __aiter__(self) -> AsyncIterator[Event]:
        """The same as `events()`."""
        return self.events()

    async def text_stream(self) -> AsyncGenerator[str]:
        """Yields the text of the model as it arrives, from all steps of the run.

        The text of other agents, reasoning and refusals are not part of it. What was seen of a
        response that broke off is not taken back; `StepInterrupted` among `events()` reports it.
        Raises the error of a failed run after the text.
        """
        async with aclosing(self.events()) as events:
            async for event in events:
                if type(event) is TextDelta:
                    yield event.delta
                elif isinstance(event, RunFailed):
                    await self.result()  # raises its error

    async def partial_output(self) -> AsyncGenerator[object]:
        """Yields the output while the model writes it, and at last the output itself.

        - Of a model or a dataclass each value is an instance in which fields that have not arrived
          have their default, or are None if they are required. Its validators do not run before it
          is complete.
        - A `TypedDict` or a mapping has the keys, a list the elements that have arrived; a text
          grows. Any other value is there once it is complete and valid.

        A text that grows is read again when it is an eighth longer, so a long output has fewer
        values. Each response starts anew: after a correction, and after one that broke off. Output
        validators run before the last value only. Raises as `result` does.
        """
        outputs = growing_output(self.events(), self._agent_of, self.result)
        async with aclosing(outputs):
            async for output in outputs:
                yield output

    async def text(self, *, timeout: float | None = None, raise_on_incomplete: bool = True) -> str:
        """Waits for the end of the run and returns its `RunResult.text`; raises as `result` does.

        That is the last text of the model: without what it wrote before it called tools.
        """
        return (await self.result(timeout=timeout, raise_on_incomplete=raise_on_incomplete)).text

    async def result(
        self, *, timeout: float | None = None, raise_on_incomplete: bool = True
    ) -> RunResult[object]:
        """Waits for the end of the run and returns its result.

        - `timeout`: how long to wait, in seconds; by default without end. After that it raises
          `NotDriven` if no process drives the threads, and `RunTimeout` otherwise. The run itself
          is not affected.

        Raises the error of a run that failed; and for a run that ended without an output a kind of
        `RunStopped` (`LimitReached`, `ContentFiltered`, `ReplyOverdue`, `CancelRequested` or
        `OutputMissing`), whose `result` contains what there is. With `raise_on_incomplete=False`
        that result is returned, and its `output` is None.

        Raises `RunInterrupted` if the runtime is shut down before the end of the run,
        `UnknownAgent` if its agent is not known here, and `UnknownOption` if an output type or a
        tool among its options is not.
        """
        if timeout is None:
            ended = await self._threads.ended(self.thread_id, self.id)
        else:
            ended = await self._ended_within(timeout)
        result = result_of_ended(ended, self.thread_id, self.id, self._agent_of)
        return require_complete(result) if raise_on_incomplete else result

    async def info(self) -> RunRecord:
        """Returns what lists show of the run: its status, its times, what it used.

        Raises `ThreadNotFound` if its thread was deleted.
        """
        record = await self._journal.find_run(self.id, thread_id=self.thread_id)
        if record is None:
            await self._journal.info(self.thread_id)  # raises if there is no such thread
            raise RunNotFound(f"The thread {self.thread_id} has no run {self.id[:100]!r}.")
        return record

    async def _ended_within(self, timeout: float) -> Ended:
        limit = asyncio.timeout(timeout)
        try:
            async with limit:
                return await self._threads.ended(self.thread_id, self.id)
        except TimeoutError:
            if not limit.expired():
                raise
            if not await self._threads.is_driven():
                raise NotDriven(
                    f"The run {self.id} has not ended in {timeout:g} s, and no process drives the "
                    "database; open it with drive=True in one."
                ) from None
            raise RunTimeout(
                f"The run {self.id} has not ended in {timeout:g} s; it continues, so wait again or "
                "cancel it."
            ) from None

    async def _before(self, seq: int) -> int:
        """Returns the number of the event before the messages with which the run began."""
        after = max(seq - 1 - MAX_MESSAGES, 0)
        earlier = await self._journal.read(self.thread_id, after=after, until=seq - 1)
        for event in reversed(earlier):
            if not isinstance(event, MessageAdded | EventRemoved) or event.run_id != self.id:
                break
            seq = event.seq
        return seq - 1

    async def cancel(self) -> None:
        """Ends the run now, or takes it out of the queue; every open call is answered.

        Does nothing to a run that has ended.
        """
        await self._threads.submit(self.thread_id, CancelEntry(self.id))

    async def finish(self) -> None:
        """Ends the run after the step it is in; does nothing to one that has ended."""
        await self._threads.submit(self.thread_id, FinishEntry(self.id))

    async def events(self) -> AsyncGenerator[Event]:
        """Yields the events of the run, from its first message to its terminal event.

        They come once they are durable, and can be iterated at any time, as often as needed.
        """
        async with await self.subscribe() as subscription:
            with suppress(StopAsyncIteration):
                while True:
                    while (envelope := subscription.take()) is None:
                        await subscription.wait()
                    yield envelope.event

    async def subscribe(self, after: int | str | Position | None = None) -> RunSubscription:
        """Returns the events of the run after a position; iterate it. It ends with the run.

        `after` is as in `Thread.subscribe`; by default it is right before the first message of the
        run. After the end of the run there is no event. Raises `InvalidInput` for a position that
        the thread does not have.
        """
        if after is None and self._begins_after is not None:
            return self._events(Position(self._begins_after))
        known, seen = await self._journal.run(self.thread_id, self.id), 0
        if after is None and (known is None or not (known.first_seq or known.last_seq)):
            seen = await self._journal.last_seq(self.thread_id)
            # Again: it may have begun, and ended as well, before `seen` was read.
            known = await self._journal.run(self.thread_id, self.id)
        first, last = (known.first_seq, known.last_seq) if known is not None else (0, 0)
        if after is None:
            if first:
                start = await self._before(first)
            else:
                start = last - 1 if last else seen
            position = Position(start)
        else:
            position = Position.parse(after)
            require_reached(self._threads, self.thread_id, position)
        return self._events(
            position,
            is_active=bool(first) and position.seq >= first - 1,
            is_over=bool(last) and position.seq >= last,
        )

    def _events(
        self, after: Position, *, is_active: bool = False, is_over: bool = False
    ) -> RunSubscription:
        return RunSubscription(
            lambda: self._threads.topic(self.thread_id),
            lambda after, until: self._journal.read(self.thread_id, after=after, until=until),
            after,
            follow=lambda after: self._threads.follow(self.thread_id, after),
            run_id=self.id,
            is_active=is_active,
            is_over=is_over,
        )
