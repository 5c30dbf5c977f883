"""An event loop with virtual time, so that tests do not wait for timers.

When nothing is ready to run, time jumps to the next timer. It is the autojump clock of trio's
`MockClock`, for asyncio. With anyio's pytest plugin:

    @pytest.fixture
    def anyio_backend():
        return ("asyncio", {"loop_factory": VirtualClockLoop})

Without a plugin, call `run(main())`.

The loop can only wait for work that it knows. Jobs of `run_in_executor` (hence `asyncio.to_thread`
and name lookups) and child processes are counted: while one is running, a timer fires only once its
delay has really passed. So are the writes of a journal. Other threads get a grace period of a few
milliseconds before each jump; if that is too little, hold the clock with `VirtualClockLoop.busy`.
"""

import asyncio
import selectors
import threading
import time
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import Any, TypeVar, TypeVarTuple

from treadle.errors import TestingError

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

SHOWN_TASKS = 8

_COUNTED = ("asyncio_", "treadle executor", "treadle-archive", "treadle-journal", "treadle-reader")
"""How the names of the threads begin of which the loop knows when they are at work.

They live as long as a runtime is open. A grace period for them would make each virtual second in
which inboxes are polled take 20 ms.
"""


class NothingScheduled(TestingError):
    """Every task waits and nothing can ever wake one: no timer, no I/O, no worker.

    The message names the tasks and the lines they wait at.
    """

    code = "nothing_scheduled"


class _JumpingSelector(selectors.DefaultSelector):
    """A selector that advances `now`, in seconds, instead of waiting for a timeout."""

    def __init__(self, grace: float, patience: float) -> None:
        super().__init__()
        self.now = 0.0
        self.workers = 0
        self.children: set[asyncio.SubprocessTransport] = set()
        self._grace = grace
        self._patience = patience
        self._waited = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is not None and timeout <= 0:
            return super().select(0)
        if events := super().select(self._grace if self._watched() else 0):
            return events
        if timeout is None:
            return self._wait_for_io()
        if self._occupied() and (events := self._wait_really(timeout)):
            return events
        self.now += timeout
        self._waited = 0.0
        return []

    def _sockets(self) -> bool:
        # One registration is the loop's own self-pipe.
        return len(self.get_map()) > 1

    def _watched(self) -> bool:
        return self._sockets() or self._occupied() or has_other_threads()

    def _occupied(self) -> bool:
        if self.children:
            self.children = {c for c in self.children if c.get_returncode() is None}
        return bool(self.workers or self.children)

    def _wait_really(self, timeout: float) -> list[tuple[selectors.SelectorKey, int]]:
        # Waits before earlier wake-ups count too, so that a busy worker does not delay timers.
        started = time.monotonic()
        events = super().select(max(0.0, timeout - self._waited))
        self._waited += time.monotonic() - started
        return events

    def _wait_for_io(self) -> list[tuple[selectors.SelectorKey, int]]:
        if self._sockets() or self._occupied():
            return super().select(None)
        patience = self._patience if threading.active_count() > 1 else 0
        if events := super().select(patience):
            return events
        raise NothingScheduled(_stuck(asyncio.get_running_loop()))


def has_other_threads() -> bool:
    """Returns whether a thread is alive that may wake the loop without having been counted."""
    if threading.active_count() == 1:
        return False
    this = threading.current_thread()
    others = (thread for thread in threading.enumerate() if thread is not this)
    return not all(thread.name.startswith(_COUNTED) for thread in others)


class VirtualClockLoop(asyncio.SelectorEventLoop):
    """An asyncio event loop on virtual time: `time()` starts at 0 and jumps from timer to timer.

    Before a jump the loop really waits `grace` seconds for I/O (default 0.002), if sockets are
    open or threads are alive whose work it does not count; both ends of a loopback connection
    served by this loop need no more. A wait that nothing can end raises `NothingScheduled`: at
    once, or after `patience` real seconds (default 1) if other threads could still end it.
    """

    def __init__(self, *, grace: float = 0.002, patience: float = 1.0) -> None:
        self._jumping = _JumpingSelector(grace, patience)
        super().__init__(self._jumping)

    def time(self) -> float:
        """Returns the virtual time in seconds since the loop was made."""
        return self._jumping.now

    def wall_time(self) -> float:
        """Returns the time of day in Unix seconds, with the jumps of this loop added to it.

        Schedules, expiries and the times of events follow it.
        """
        return time.time() + self._jumping.now

    @contextmanager
    def busy(self) -> Generator[None, None, None]:
        """Keeps time from jumping while the body runs, for work done outside this loop."""
        self._jumping.workers += 1
        try:
            yield
        finally:
            self._jumping.workers -= 1

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts
    ) -> asyncio.Future[T]:
        """Runs `func` in a worker thread; time does not jump until it is done."""
        future = super().run_in_executor(executor, func, *args)
        self._jumping.workers += 1
        future.add_done_callback(self._worker_done)
        return future

    def _worker_done(self, _: "asyncio.Future[T]") -> None:
        self._jumping.workers -= 1

    async def subprocess_exec(
        self, *args: Any, **options: Any
    ) -> tuple[asyncio.SubprocessTransport, asyncio.SubprocessProtocol]:
        """Starts a child process; time does not jump while it lives."""
        with self.busy():
            transport, protocol = await super().subprocess_exec(*args, **options)
        self._jumping.children.add(transport)
        return transport, protocol

    async def subprocess_shell(
        self, *args: Any, **options: Any
    ) -> tuple[asyncio.SubprocessTransport, asyncio.SubprocessProtocol]:
        """Starts a shell command; time does not jump while it lives."""
        with self.busy():
            transport, protocol = await super().subprocess_shell(*args, **options)
        self._jumping.children.add(transport)
        return transport, protocol

    async def shutdown_default_executor(self, *args: Any, **options: Any) -> None:
        """Joins the worker threads, whose timeout must not be skipped."""
        with self.busy():
            await super().shutdown_default_executor(*args, **options)


def run(main: Coroutine[Any, Any, T], *, debug: bool | None = None) -> T:
    """Runs `main` on a new `VirtualClockLoop` and returns its result, like `asyncio.run`.

    Raises what `main` raises, and `NothingScheduled` if it waits forever.
    """
    with asyncio.Runner(debug=debug, loop_factory=VirtualClockLoop) as runner:
        return runner.run(main)


def _stuck(loop: asyncio.AbstractEventLoop) -> str:
    tasks = sorted(asyncio.all_tasks(loop), key=lambda task: task.get_name())
    places = [f"\n  {task.get_name()} at {_place(task)}" for task in tasks[:SHOWN_TASKS]]
    return (
        f"All {len(tasks)} tasks wait and nothing can wake one: no timer, no I/O, no worker. "
        "Find the code that should set the event or fill the queue." + "".join(places)
    )


def _place(task: "asyncio.Task[Any]") -> str:
    frames = task.get_stack()
    if not frames:
        return "an unknown line"
    code = frames[-1].f_code
    return f"{code.co_qualname} ({code.co_filename}:{frames[-1].f_lineno})"
