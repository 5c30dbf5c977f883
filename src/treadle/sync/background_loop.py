"""An event loop in a thread of its own, and calls that other threads make on it."""

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, wait
from contextlib import suppress
from importlib import import_module
from typing import Any, Generic, ParamSpec, TypeVar
from weakref import WeakSet

from treadle.errors import ConfigurationError, JournalClosed

P = ParamSpec("P")
T = TypeVar("T")

_running: "WeakSet[BackgroundLoop]" = WeakSet()


def _exit_all() -> None:
    # Functions of `atexit` are called when no executor takes work any more, so a shutdown would
    # fail there. Those of threading are called before, the last one first; the pool of threads has
    # one, too, so it is imported first.
    for loop in list(_running):
        loop.exit()


# This function is private; without it, the loop is cut off as by a kill.
_before_executors: Callable[[Callable[[], None]], None] | None
_before_executors = getattr(threading, "_register_atexit", None)
if _before_executors is not None:
    import_module("concurrent.futures.thread")
    _before_executors(_exit_all)


class _Call(Generic[T]):
    """A call on the loop; `done` has its outcome, whatever happens to the loop."""

    def __init__(self, function: Callable[[], Awaitable[T]]) -> None:
        self.done: Future[T] = Future()
        self._function = function
        self._task: asyncio.Task[None] | None = None

    def begin(self, under_way: "set[_Call[Any]]") -> None:
        if self.done.done():
            return
        under_way.add(self)

        def end(_: asyncio.Task[None]) -> None:
            under_way.discard(self)
            self.give_up()

        self._task = asyncio.ensure_future(self._run())
        self._task.add_done_callback(end)

    def cancel(self) -> None:
        if self._task is None:
            self.give_up()
        else:
            self._task.cancel()

    def give_up(self) -> None:
        """Ends the call without an outcome; does nothing if it has one."""
        if not self.done.done():
            self.done.set_exception(_closed())

    async def _run(self) -> None:
        try:
            outcome = await self._function()
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - it belongs to the caller, not to the loop
            self.done.set_exception(error)
        else:
            self.done.set_result(outcome)


class BackgroundLoop:
    """Runs an event loop in a thread from `start` to `stop`; any thread may `call` in between.

    `on_exit` is called at the exit of an interpreter in which the loop still runs.
    """

    def __init__(self, on_exit: Callable[[], object]) -> None:
        self._on_exit = on_exit
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._end: asyncio.Event | None = None
        self._sent: set[_Call[Any]] = set()
        self._under_way: set[_Call[Any]] = set()  # used by the loop only; it owns their tasks
        self._pid = 0

    @property
    def is_running(self) -> bool:
        """Whether the loop runs, in this process."""
        return self._loop is not None and self._pid == os.getpid()

    def start(self) -> None:
        """Starts the loop; raises `ConfigurationError` if it was started before."""
        self._require_no_fork()
        started = Future[asyncio.AbstractEventLoop]()
        with self._lock:
            if self._thread is not None:
                raise ConfigurationError(
                    "This runtime was started before; make another one with treadle.sync.open(…)."
                )
            self._pid = os.getpid()
            # A program that never calls `stop` must be able to exit.
            self._thread = threading.Thread(
                target=self._work, args=[started], name="treadle loop", daemon=True
            )
            self._thread.start()
        self._loop = started.result()
        _running.add(self)

    def stop(self) -> None:
        """Ends the loop, and the calls in progress with `JournalClosed`; may be called again."""
        self._require_no_fork()
        loop, end, thread = self._loop, self._end, self._thread
        self._loop = None
        _running.discard(self)
        if loop is None or end is None or thread is None:
            return
        with suppress(RuntimeError):  # it has ended
            loop.call_soon_threadsafe(end.set)
        if thread is not threading.current_thread():
            thread.join()

    def call(self, function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Calls a function on the loop and returns its outcome.

        An exception in the calling thread, such as that of Ctrl-C, cancels the call and waits for
        its end. Raises `JournalClosed` if the loop does not run, and `ConfigurationError` in the
        thread of the loop and in a fork of the process.
        """
        self._require_no_fork()
        loop = self._loop
        if loop is None:
            raise _closed()
        if threading.current_thread() is self._thread:
            raise ConfigurationError(
                "This was called on the event loop of the runtime, for example in an async tool or "
                "a hook, where it would wait for itself; use the RunContext there, or make the "
                "tool a plain function, which runs in a thread."
            )
        call = _Call(lambda: function(*args, **kwargs))
        try:
            self._send(loop, call)
            return call.done.result()
        except BaseException:
            if not call.done.done():  # it comes from this thread
                with suppress(RuntimeError):  # the loop has ended, and given up the call
                    loop.call_soon_threadsafe(call.cancel)
                wait([call.done])
            raise
        finally:
            with self._lock:
                self._sent.discard(call)
            del call  # its exception has this frame in its traceback

    def post(self, function: Callable[[], Awaitable[object]]) -> None:
        """Calls a function on the loop without waiting for it; never raises.

        It is for clean-ups, which the garbage collector may start in any thread, at any moment, and
        after a fork.
        """
        loop = self._loop
        if loop is not None and self._pid == os.getpid():
            with suppress(RuntimeError):  # the loop has ended, and what it ran with it
                loop.call_soon_threadsafe(_Call(function).begin, self._under_way)

    def _send(self, loop: asyncio.AbstractEventLoop, call: _Call[Any]) -> None:
        with self._lock:  # so that the end of the loop gives up this call, or it is not sent
            try:
                loop.call_soon_threadsafe(call.begin, self._under_way)
            except RuntimeError:
                call.give_up()
            else:
                self._sent.add(call)

    def _work(self, started: Future[asyncio.AbstractEventLoop]) -> None:
        with asyncio.Runner() as runner:
            runner.run(self._serve(started))
        with self._lock:
            for call in self._sent:
                call.give_up()

    async def _serve(self, started: Future[asyncio.AbstractEventLoop]) -> None:
        self._end = asyncio.Event()
        started.set_result(asyncio.get_running_loop())
        await self._end.wait()

    def exit(self) -> None:
        """Calls `on_exit`, unless the loop belongs to the parent of this process."""
        if self.is_running:
            self._on_exit()

    def _require_no_fork(self) -> None:
        # The thread of the loop is not in a fork, and what wakes the loop belongs to the parent.
        if self._pid not in {0, os.getpid()}:
            raise ConfigurationError(
                f"The runtime was opened in process {self._pid}, and this process is a fork of it; "
                "open one in each process, after the fork."
            )


def _closed() -> JournalClosed:
    return JournalClosed(
        "The runtime is not open; use `with treadle.sync.open(…)`, or call start()."
    )
