"""A run on a server as its users hold it."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

from msgspec import UNSET

from treadle.bus.position import Position
from treadle.client.address import segment
from treadle.client.connection import Connection, decoded
from treadle.client.event_stream import EventStream
from treadle.client.remote_subscription import RemoteSubscription
from treadle.domain.events import Event, RunFailed, TextDelta
from treadle.domain.options import RunOptions
from treadle.domain.result import RunResult, require_complete
from treadle.domain.state import Run
from treadle.errors import (
    JournalClosed,
    RunInterrupted,
    RunNotFound,
    RunTimeout,
    ThreadNotFound,
    UnknownAgent,
    UnknownOption,
    error_of,
)
from treadle.journal.projection import RunRecord
from treadle.loop.definition import AgentDefinition
from treadle.runtime.growing_output import growing_output
from treadle.server.bodies import Result

WAIT_SECONDS = 25.0
"""For how long one request waits for the end of a run; proxies cut those that last longer."""

AnyAgent = AgentDefinition[Any, Any]


class RemoteRun:
    """A run on a thread of a server, with the methods of `treadle.ThreadRun`.

    The run needs no reader to continue, and has any number of them.
    """

    is_driven = True

    def __init__(
        self,
        id: str,
        thread_id: str,
        connection: Connection,
        agent_of: Callable[[Run], AnyAgent],
        options: RunOptions | None = None,
    ) -> None:
        self.id = id
        self.thread_id = thread_id
        self._connection = connection
        self._agent_of = agent_of
        self._options = options

    def __repr__(self) -> str:
        return f"RemoteRun({self.id!r})"

    def __aiter__(self) -> AsyncIterator[Event]:
        """The same as `events()`."""
        return self.events()

    async def text_stream(self) -> AsyncGenerator[str]:
        """Yields the text of the model as it arrives; see `ThreadRun.text_stream`."""
        async with aclosing(self.events()) as events:
            async for event in events:
                if type(event) is TextDelta:
                    yield event.delta
                elif isinstance(event, RunFailed):
                    raise error_of(event.code, event.message, retryable=event.retryable)

    async def partial_output(self) -> AsyncGenerator[object]:
        """Yields the output while the model writes it; see `ThreadRun.partial_output`.

        The output has the type of its agent, which must be known here: `Client(agents=[agent])`.
        Raises `UnknownAgent` otherwise.
        """
        outputs = growing_output(self.events(), self._agent_of, self.result)
        async with aclosing(outputs):
            async for output in outputs:
                yield output

    async def text(self, *, timeout: float | None = None, raise_on_incomplete: bool = True) -> str:
        """Waits for the end of the run and returns its `RunResult.text`; raises as `result` does.

        It does not transfer the history.
        """
        result = await self._result(timeout, with_history=False)
        return (require_complete(result) if raise_on_incomplete else result).text

    async def result(
        self, *, timeout: float | None = None, raise_on_incomplete: bool = True
    ) -> RunResult[object]:
        """Waits for the end of the run and returns its result; see `ThreadRun.result`.

        - `timeout`: how long to wait, in seconds; by default without end. After that `RunTimeout`
          is raised, and the run is not affected.

        `output` has the type of the agent if that is known here, by `Client(agents=[agent])`;
        otherwise it is plain JSON.
        """
        result = await self._result(timeout, with_history=True)
        return require_complete(result) if raise_on_incomplete else result

    async def info(self) -> RunRecord:
        """Returns what lists show of the run: its status, its times, what it used."""
        return await self._connection.get(self._path, RunRecord, self._thread)

    async def cancel(self) -> None:
        """Ends the run now, or takes it out of the queue; does nothing to one that has ended."""
        await self._connection.call("POST", f"{self._path}/cancel", query=self._thread)

    async def finish(self) -> None:
        """Ends the run after the step it is in; does nothing to one that has ended."""
        await self._connection.call("POST", f"{self._path}/finish", query=self._thread)

    async def events(self) -> AsyncGenerator[Event]:
        """Yields the events of the run, from its first message to its terminal event."""
        async with await self.subscribe() as subscription:
            async for event in subscription:
                yield event

    async def subscribe(self, after: int | str | Position | None = None) -> RemoteSubscription:
        """Returns the events of the run after a position; iterate it. It ends with the run.

        `after` is as in `RemoteThread.subscribe`; by default it is right before the first message
        of the run. Raises `RunNotFound`, and `InvalidInput` for a position that the thread does not
        have.
        """
        position = None if after is None else Position.parse(after)
        path = f"{self._path}/events"
        events = RemoteSubscription(self._connection, path, self._thread, position, self.id)
        await events.connect()
        return events

    @property
    def _path(self) -> str:
        return f"/runs/{segment(self.id, RunNotFound, 'run')}"

    @property
    def _thread(self) -> dict[str, str]:
        return {"thread_id": self.thread_id}

    async def _result(self, timeout: float | None, *, with_history: bool) -> RunResult[object]:
        limit = asyncio.timeout(timeout)
        try:
            async with limit:
                found = await self._ended(with_history=with_history)
        except JournalClosed as error:
            raise RunInterrupted(
                f"The client was closed before the run {self.id} had ended; the run continues."
            ) from error
        except TimeoutError:
            if not limit.expired():
                raise
            raise RunTimeout(
                f"The run {self.id} has not ended in {timeout:g} s; it continues, so wait again or "
                "cancel it."
            ) from None
        if found.error is not None:
            failed = found.error
            raise error_of(failed.code, failed.message, retryable=failed.retryable)
        return RunResult(
            run_id=found.run_id,
            thread_id=found.thread_id,
            output=self._output_of(found) if found.is_complete else None,
            text=found.text,
            refusal=found.refusal,
            items=tuple(found.items),
            history=() if found.history is UNSET else tuple(found.history),
            usage=found.usage,
            status=found.status,
            stop_reason=found.stop_reason or "cancelled",
            steps=found.steps,
            cost=found.cost,
            agent=found.agent,
            is_complete=found.is_complete,
        )

    def _output_of(self, found: Result) -> object:
        """Returns the output in its type; plain JSON if that is not known here."""
        try:
            run = Run(found.run_id, found.agent, options=self._options)
            output = self._agent_of(run).output
            return found.output if output is None else output.convert(found.output)
        except (UnknownAgent, UnknownOption, ValueError):
            return found.output

    async def _ended(self, *, with_history: bool) -> Result:
        """Waits for the end of the run."""
        seconds = WAIT_SECONDS
        while True:
            status, answer = await self._connection.send(
                "GET",
                f"{self._path}/result",
                query={**self._thread, "wait": seconds, "history": with_history},
                seconds=seconds,
            )
            if status == 200:
                return decoded(answer, Result)
            # It takes longer, or needs an answer from outside, for which no request waits.
            position = await position_now(self._connection, self.thread_id)
            async with await self.subscribe(position) as events:
                async for _ in events:
                    pass
            seconds = 0.0


async def position_now(connection: Connection, thread_id: str) -> str:
    """Returns the present position of a thread."""
    path = f"/threads/{segment(thread_id, ThreadNotFound, 'thread')}/events"
    stream = EventStream(connection, path, {"from": "now"}, "")
    try:
        await stream.begin()
    finally:
        await stream.aclose()
    return stream.position
