"""A run in the foreground: on a thread kept in memory, as long as its holder holds it."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Generic, cast

from msgspec.structs import replace

from weft.bus.feed import Feed
from weft.control import RunControl
from weft.definition import AgentDefinition, Deps, Out
from weft.errors import InvalidInput, RunInterrupted
from weft.events import (
    Event,
    LiveEvent,
    MessageAdded,
    RecordedEvent,
    RunCancelling,
    RunFinishing,
    RunStarted,
)
from weft.history import History, require_valid
from weft.ids import new_id
from weft.items import Input, Item, as_message
from weft.loop import cancel, drive
from weft.runtime.result import RunResult, result_of
from weft.state import ThreadState, apply


class MemoryThread:
    """A thread that lives as long as the process: its fold, and one subscriber at most."""

    def __init__(self, history: Iterable[Item] = (), feed: Feed | None = None) -> None:
        self.id = new_id("thread")
        self.state = ThreadState(history=History(history))
        self._feed = feed
        # The feed's own method, for a call less on the way of each delta.
        self.publish: Callable[[LiveEvent], None] = _drop if feed is None else feed.put

    def record(self, event: RecordedEvent) -> None:
        """Numbers `event`, applies it to the state and shows it to the subscriber."""
        event = replace(event, seq=self.state.seq + 1, at=time.time())
        self.state = apply(self.state, event)
        if self._feed is not None:
            self._feed.put(event)

    async def durable(self) -> None:
        """Returns at once: the state in memory is all there is."""


def _drop(event: LiveEvent) -> None:
    """Nobody watches: live events are for those who do."""


class Run(Generic[Out]):
    """A run under way: iterate it for its events, await `result()` for what came of it.

    A slow reader never holds the run up: deltas that wait are joined, nothing is lost.
    """

    def __init__(
        self,
        definition: AgentDefinition[Deps, Out],
        input: Input,
        *,
        deps: Deps,
        history: Sequence[Item] = (),
        watched: bool = True,
    ) -> None:
        require_valid(history)
        definition.require_local_tools()
        self.id = new_id("run")
        self._message = as_message(input)
        self._definition = cast("AgentDefinition[object, Out]", definition)
        self._deps = deps
        self._feed = Feed() if watched else None
        self._thread = MemoryThread(history, self._feed)
        self._control = RunControl()
        self._ended = asyncio.Event()
        self._error: Exception | None = None
        self._driver: asyncio.Task[None] | None = None

    async def drive(self) -> None:
        """Works until the run has ended; called once, by its owner, unless `start` does."""
        self._begin()
        try:
            self._error = await drive(self._thread, self._definition, self._deps, self._control)
        except asyncio.CancelledError:
            # Nobody can drive the run on: with its holder it ends.
            cancel(self._thread)
            raise
        finally:
            self._end()

    def start(self) -> None:
        """Drives the run in a task, which its owner ends with `stop`."""
        self._begin()
        self._driver = asyncio.create_task(self.drive(), name=f"weft {self.id}")

    def _begin(self) -> None:
        thread, definition = self._thread, self._definition
        if thread.state.run is None:
            thread.record(MessageAdded(run_id=self.id, item=self._message, origin="user"))
            thread.record(RunStarted(run_id=self.id, agent=definition.name))

    async def stop(self) -> None:
        """Cancels the run if it has not ended, and waits for its end."""
        driver = self._driver
        if driver is None:
            return
        driver.cancel()
        await asyncio.wait([driver])
        if self._thread.state.active_run is not None:  # the task was cancelled before it began
            cancel(self._thread)
        self._end()
        if not driver.cancelled() and (error := driver.exception()) is not None:
            raise error

    def _end(self) -> None:
        if self._feed is not None:
            self._feed.close(self._error)
        self._ended.set()

    def __aiter__(self) -> AsyncIterator[Event]:
        """The events of the run; after the last one, raises the error of a failed run."""
        if self._feed is None:
            raise InvalidInput("This run was started without events; use agent.stream().")
        return aiter(self._feed)

    async def result(self) -> RunResult[Out]:
        """Waits for the end of the run and returns what came of it.

        Raises the error of a run that failed; a run that was cancelled or stopped by a limit has
        a result that says so.
        """
        await self._ended.wait()
        if self._error is not None:
            raise self._error
        return self._result()

    def cancel(self) -> None:
        """Ends the run now: tools are cancelled, and every call is answered."""
        run = self._thread.state.active_run
        if run is not None and run.status != "cancelling":
            self._thread.record(RunCancelling(run_id=self.id))
            self._control.cancel()

    def finish(self) -> None:
        """Ends the run after the step it is in."""
        run = self._thread.state.active_run
        if run is not None and not run.finishing:
            self._thread.record(RunFinishing(run_id=self.id))

    @property
    def history(self) -> Sequence[Item]:
        """The conversation so far, without the step that is open; valid at any time."""
        return self._thread.state.history

    def _result(self) -> RunResult[Out]:
        state, run = self._thread.state, self._thread.state.run
        if run is None or run.is_active:
            raise RunInterrupted("The run was left before it began; start it again.")
        return result_of(state, run, self._definition)
