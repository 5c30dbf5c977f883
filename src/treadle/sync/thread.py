"""Threads and their runs for synchronous code."""

from collections.abc import Generator
from typing import Literal, overload

from treadle.bus.position import Position
from treadle.bus.subscription import Subscription as AsyncSubscription
from treadle.domain.events import Event
from treadle.runtime.state_subscription import StateSubscription as AsyncStateSubscription
from treadle.runtime.thread import Thread as AsyncThread
from treadle.runtime.thread_run import ThreadRun as AsyncThreadRun
from treadle.sync.archive import Archive
from treadle.sync.files import Files
from treadle.sync.handle import Handle, iterates, makes, waits_for
from treadle.sync.memory import Memory
from treadle.sync.subscriptions import RunSubscription, StateSubscription, Subscription


class ThreadRun(Handle[AsyncThreadRun]):
    """`treadle.ThreadRun` for synchronous code: the same methods, which wait.

    Streams are generators. Leaving one early ends the stream, not the run.
    """

    text_stream = iterates(AsyncThreadRun.text_stream)
    partial_output = iterates(AsyncThreadRun.partial_output)
    text = waits_for(AsyncThreadRun.text)
    result = waits_for(AsyncThreadRun.result)
    info = waits_for(AsyncThreadRun.info)
    cancel = waits_for(AsyncThreadRun.cancel)
    finish = waits_for(AsyncThreadRun.finish)
    events = iterates(AsyncThreadRun.events)
    subscribe = makes(RunSubscription, AsyncThreadRun.subscribe)

    def __iter__(self) -> Generator[Event]:
        """The same as `events()`."""
        return self.events()

    @property
    def id(self) -> str:
        """The id of the run."""
        return self._target.id

    @property
    def thread_id(self) -> str:
        """The id of its thread."""
        return self._target.thread_id

    @property
    def is_driven(self) -> bool:
        """Whether a process drove the threads when the message was sent."""
        return self._target.is_driven


class Thread(Handle[AsyncThread]):
    """`treadle.Thread` for synchronous code: the same methods, which wait."""

    send = makes(ThreadRun, AsyncThread.send)
    send_after = makes(ThreadRun, AsyncThread.send_after)
    add = waits_for(AsyncThread.add)
    submit_tool_output = waits_for(AsyncThread.submit_tool_output)
    approve = waits_for(AsyncThread.approve)
    deny = waits_for(AsyncThread.deny)
    pin = waits_for(AsyncThread.pin)
    unpin = waits_for(AsyncThread.unpin)
    remove_event = waits_for(AsyncThread.remove_event)
    remove_item = waits_for(AsyncThread.remove_item)
    jobs = waits_for(AsyncThread.jobs)
    cancel_job = waits_for(AsyncThread.cancel_job)
    search = waits_for(AsyncThread.search)
    info = waits_for(AsyncThread.info)
    state = waits_for(AsyncThread.state)
    view = waits_for(AsyncThread.view)
    history = waits_for(AsyncThread.history)
    events = waits_for(AsyncThread.events)
    last_seq = waits_for(AsyncThread.last_seq)
    item = waits_for(AsyncThread.item)
    items = waits_for(AsyncThread.items)
    schedule = waits_for(AsyncThread.schedule)
    schedules = waits_for(AsyncThread.schedules)
    cancel_schedule = waits_for(AsyncThread.cancel_schedule)
    update = waits_for(AsyncThread.update)
    usage = waits_for(AsyncThread.usage)
    runs = waits_for(AsyncThread.runs)
    run = makes(ThreadRun, AsyncThread.run)
    pending_calls = waits_for(AsyncThread.pending_calls)
    export = waits_for(AsyncThread.export)
    repair = waits_for(AsyncThread.repair)
    delete = waits_for(AsyncThread.delete)

    def active_run(self) -> ThreadRun | None:
        """Returns the run that has not ended, if there is one."""
        run = self._loop.call(self._target.active_run)
        return None if run is None else ThreadRun(self._loop, run)

    def fork(self, at: int | None = None) -> "Thread":
        """Copies the thread up to and with event number `at`; see `treadle.Thread.fork`."""
        return Thread(self._loop, self._loop.call(self._target.fork, at))

    @overload
    def subscribe(  # pyright: ignore[reportOverlappingOverload]
        self, after: Literal["state"]
    ) -> StateSubscription: ...

    @overload
    def subscribe(self, after: int | str | Position = 0) -> Subscription: ...

    def subscribe(self, after: int | str | Position = 0) -> Subscription | StateSubscription:
        """Returns the events after a position; see `treadle.Thread.subscribe`."""

        async def make() -> AsyncSubscription | AsyncStateSubscription:
            return self._target.subscribe(after)

        made = self._loop.call(make)
        if isinstance(made, AsyncStateSubscription):
            return StateSubscription(self._loop, made)
        return Subscription(self._loop, made)

    @property
    def id(self) -> str:
        """The id of the thread."""
        return self._target.id

    @property
    def is_new(self) -> bool:
        """Whether the `create_thread` that returned this handle made the thread."""
        return self._target.is_new

    @property
    def memory(self) -> Memory:
        """The memory blocks of the thread."""
        return Memory(self._loop, self._target.memory)

    @property
    def archive(self) -> Archive:
        """The archive: what is put into it here belongs to the thread."""
        return Archive(self._loop, self._target.archive)

    @property
    def files(self) -> Files:
        """The files that the thread uses."""
        return Files(self._loop, self._target.files)
