"""A run in the foreground: on a thread kept in memory, as long as its holder holds it."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from contextlib import aclosing
from typing import Any, Generic, Literal, TypeVar, cast, overload

from msgspec.structs import replace

from treadle.actors.delegation import AgentShown, delegated, record_spent, started
from treadle.actors.result import result_of
from treadle.actors.thread_jobs import ThreadJobs
from treadle.bus.feed import Feed
from treadle.clock import now
from treadle.domain.events import (
    Event,
    LiveEvent,
    MessageAdded,
    RecordedEvent,
    RunCancelling,
    RunFinishing,
    RunStarted,
    TextDelta,
)
from treadle.domain.fold import apply
from treadle.domain.history import History
from treadle.domain.ids import new_id
from treadle.domain.inputs import as_history, as_message
from treadle.domain.items import Input, Item
from treadle.domain.options import RunOptions
from treadle.domain.result import RunResult, require_complete
from treadle.domain.state import ThreadState
from treadle.domain.usage import Spent
from treadle.errors import InvalidInput, RunInterrupted
from treadle.journal.base import ThreadInfo
from treadle.loop.activation import Activation
from treadle.loop.catalog import Catalog
from treadle.loop.definition import (
    AgentDefinition,
    Deps,
    Out,
    agent_with_options,
    has_listeners,
    reachable_from,
    require_local_tools,
    require_own_blocks,
)
from treadle.loop.drive import cancel, drive, run_ended
from treadle.loop.listener import EventListener
from treadle.loop.services import Services
from treadle.loop.signals import Signals
from treadle.memory.blocks.thread_memory import ThreadMemory
from treadle.memory.compaction.compactor import Compactor
from treadle.ports import Kept, Worker
from treadle.runtime.growing_output import growing_output

T = TypeVar("T")


Put = Callable[[Event], None]
"""How a subscriber takes an event."""


class MemoryThread:
    """A thread that lives as long as the process: its fold, and its subscriber `put`, if any."""

    def __init__(self, history: Iterable[Item] = (), put: Put | None = None) -> None:
        self.id = new_id("thread")
        self.state = ThreadState(history=History(history))
        self._put = put
        # The subscriber's own method, for a call less on the way of each delta.
        self.publish: Callable[[LiveEvent], None] = put or _drop

    @property
    def is_watched(self) -> bool:
        """Whether anyone is shown what happens."""
        return self._put is not None

    def listen(self, put: Put) -> None:
        """Shows everything from now on to `put` as well."""
        first = self._put

        def both(event: Event) -> None:
            if first is not None:
                first(event)
            put(event)

        self._put = self.publish = both

    def record(self, event: RecordedEvent) -> None:
        """Numbers `event`, applies it to the state and shows it to the subscriber."""
        event = replace(event, seq=self.state.seq + 1, at=now())
        self.state = apply(self.state, event)
        if self._put is not None:
            self._put(event)

    async def durable(self) -> None:
        """Returns at once: the state in memory is all there is."""

    async def event_of(self, item: Item) -> int:
        """Returns 0: no event is kept."""
        return 0


class _OwnContents:
    """Fulfils `RunFiles` where no file is kept: contents stay in their items."""

    async def keep(self, item: Kept) -> Kept:
        """Returns the item."""
        return item

    async def load(self, items: Sequence[Item]) -> Sequence[Item]:
        """Returns the items."""
        return items


_OWN_CONTENTS = _OwnContents()


def _drop(event: LiveEvent) -> None:
    """Does nothing: there is no subscriber."""


class Run(Generic[Out]):
    """A run under way: `text_stream()` and `events()` show it, `result()` waits for its result.

    A run has one reader: its events, or its text, can be iterated once. A slow reader never holds
    the run up: deltas that wait are joined, nothing is lost. The runs of threads (`ThreadRun`) have
    the same methods.
    """

    def __init__(
        self,
        definition: AgentDefinition[Deps, Out],
        input: Input,
        *,
        deps: Deps,
        history: Sequence[Item] = (),
        watched: bool = True,
        put: Put | None = None,
        depth: int = 0,
        options: RunOptions | None = None,
        catalog: Catalog | None = None,
    ) -> None:
        history = as_history(history)
        if options is not None:
            definition = agent_with_options(definition, options, catalog or Catalog())
        self._options = options
        for agent in reachable_from(definition).values():
            require_local_tools(agent)
            require_own_blocks(agent)
        self.id = new_id("run")
        self._message = as_message(input)
        self._definition = cast("AgentDefinition[object, Out]", definition)
        self._feed = Feed() if watched else None
        self._thread = MemoryThread(history, put if self._feed is None else self._feed.put)
        delegation = _Delegation(self._thread, lambda: self._activation.agent, deps, depth)
        signals = Signals()
        self._jobs = ThreadJobs(
            self._thread,
            signals,
            delegation=delegation,
            deps=lambda: deps,
            policy=lambda: self._activation.agent.on_job_failure,
            journal=False,
        )
        self._compactor = Compactor(self._thread)
        memory = ThreadMemory(self._thread)
        created_at = now()
        info = ThreadInfo(
            id=self._thread.id, agent=definition.name, created_at=created_at, updated_at=created_at
        )
        services = Services(
            delegation,
            self._jobs,
            memory,
            self._compactor,
            is_kept=False,
            info=lambda: info,
            files=_OWN_CONTENTS,
        )
        self._activation = Activation(self._thread, self._definition, deps, services, signals)
        self._has_ended = False
        self._ended: asyncio.Event | None = None  # made for the first that waits
        self._error: Exception | None = None
        self._driver: asyncio.Task[None] | None = None

    async def _drive(self) -> None:
        """Works until the run has ended; called once, by its owner, unless `_start` does."""
        self._begin()
        try:
            self._error = await drive(self._activation)
        except asyncio.CancelledError:
            # No other task can resume the run: it ends together with its holder.
            if self._thread.state.active_run is not None:
                await self._jobs.stop_for_good()
                cancel(self._thread)
                async with self._activation.listening():
                    pass  # the hooks are called for the events of the end
                await run_ended(self._activation)
            raise
        finally:
            await self._compactor.close()
            self._end()

    def _start(self) -> None:
        """Drives the run in a task, which its owner ends with `_stop`."""
        self._begin()
        self._driver = asyncio.create_task(self._drive(), name=f"treadle {self.id}")

    def _begin(self) -> None:
        thread, definition = self._thread, self._definition
        if thread.state.run is None:
            if has_listeners(definition):
                listener = self._activation.listener = EventListener()
                thread.listen(listener.put)
            thread.record(MessageAdded(run_id=self.id, item=self._message, origin="user"))
            thread.record(RunStarted(run_id=self.id, agent=definition.name, options=self._options))

    async def _stop(self) -> None:
        """Cancels the run if it has not ended, and waits for its end."""
        driver = self._driver
        if driver is None:
            return
        if not driver.done():
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
        self._has_ended = True
        if self._ended is not None:
            self._ended.set()

    def __repr__(self) -> str:
        return f"Run({self.id!r})"

    def __aiter__(self) -> AsyncIterator[Event]:
        """The same as `events()`."""
        return self.events()

    def events(self) -> AsyncGenerator[Event]:
        """Returns the events of the run; after the last one, raises the error of a failed run."""
        if self._feed is None:
            raise InvalidInput("This run was started without events; use agent.stream().")
        return aiter(self._feed)

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

    async def partial_output(self) -> AsyncGenerator[Out]:
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
        agents = reachable_from(self._definition)
        outputs = growing_output(
            self.events(),
            lambda run: cast("AgentDefinition[object, Out]", agents[run.agent]),
            self.result,
        )
        async with aclosing(outputs):
            async for output in outputs:
                yield output

    async def text(self, *, raise_on_incomplete: bool = True) -> str:
        """Waits for the end of the run and returns its `RunResult.text`; raises as `result` does.

        That is the last text of the model: without what it wrote before it called tools.
        """
        return (await self.result(raise_on_incomplete=raise_on_incomplete)).text

    @overload
    async def result(self, *, raise_on_incomplete: Literal[True] = True) -> RunResult[Out]: ...

    @overload
    async def result(self, *, raise_on_incomplete: bool) -> RunResult[Out | None]: ...

    async def result(
        self, *, raise_on_incomplete: bool = True
    ) -> RunResult[Out] | RunResult[Out | None]:
        """Waits for the end of the run and returns its result.

        Raises the error of a run that failed; and for a run that ended without an output a kind of
        `RunStopped` (`LimitReached`, `ContentFiltered`, `ReplyOverdue`, `CancelRequested` or
        `OutputMissing`), whose `result` contains what there is. With `raise_on_incomplete=False`
        that result is returned, and its `output` is None.
        """
        if not self._has_ended:
            if self._ended is None:
                self._ended = asyncio.Event()
            await self._ended.wait()
        if self._error is not None:
            raise self._error
        result = self._result()
        return require_complete(result) if raise_on_incomplete else result

    async def cancel(self) -> None:
        """Ends the run now: tools are cancelled, and every call is answered.

        Does nothing to a run that has ended.
        """
        run = self._thread.state.active_run
        if run is not None and run.status != "cancelling":
            self._thread.record(RunCancelling(run_id=self.id))
            self._activation.signals.interrupt()

    async def finish(self) -> None:
        """Ends the run after the step it is in; does nothing to one that has ended."""
        run = self._thread.state.active_run
        if run is not None and not run.finishing:
            self._thread.record(RunFinishing(run_id=self.id))

    @property
    def history(self) -> Sequence[Item]:
        """The conversation so far, without the step that is open; valid at any time."""
        return self._thread.state.history

    def _result(self) -> RunResult[Out | None]:
        state, run = self._thread.state, self._thread.state.run
        if run is None or run.is_active:
            raise RunInterrupted("The run was left before it began; start it again.")
        return result_of(self.thread_id, state, run, self._activation.agent)

    @property
    def thread_id(self) -> str:
        """The id of the thread in memory."""
        return self._thread.id

    @property
    def spent(self) -> Spent:
        """What the run has used up so far, and its summaries."""
        return self._thread.state.spent


async def drive_run(run: Run[Any]) -> None:
    """Works on a run until it has ended; called once, by the owner of the run."""
    await run._drive()  # pyright: ignore[reportPrivateUsage]


def start_run(run: Run[Any]) -> None:
    """Drives a run in a task, which its owner ends with `stop_run`."""
    run._start()  # pyright: ignore[reportPrivateUsage]


async def stop_run(run: Run[Any]) -> None:
    """Cancels a run that has not ended, and waits for its end."""
    await run._stop()  # pyright: ignore[reportPrivateUsage]


class _Delegation:
    """Fulfils `Delegation` with runs in the foreground, within the run of the thread."""

    def __init__(
        self,
        thread: MemoryThread,
        current: Callable[[], AgentDefinition[Any, Any]],
        deps: object,
        depth: int,
    ) -> None:
        self._thread = thread
        self._current = current
        self._deps = deps
        self._depth = depth

    async def run(
        self,
        agent: Worker[T],
        input: Input,
        *,
        key: str,
        call_id: str = "",
        job_id: str = "",
        lends_memory: bool = False,
    ) -> RunResult[T | None]:
        """Runs the agent; it is not resumed after a crash, so `key` is not used.

        Memory is lent to sleep agents only, which need a thread that outlives its run.
        """
        thread = self._thread
        assert thread.state.run is not None
        run = thread.state.run
        definition = delegated(self._current(), agent, run.spent, self._depth)
        shown = AgentShown(thread, agent.name, call_id)
        run = Run(
            definition,
            input,
            deps=self._deps,
            watched=False,
            put=shown.put if thread.is_watched else None,
            depth=self._depth + 1,
        )
        shown.thread_id = run.thread_id
        if call_id or job_id:
            event = started(thread.state, agent.name, run.thread_id, call_id=call_id, job_id=job_id)
            thread.record(event)
        try:
            await drive_run(run)
        finally:
            record_spent(thread, run.spent, run.thread_id)
        return await run.result(raise_on_incomplete=False)
