"""An executor for plain functions: threads on demand, which never delay the exit of the process.

The default pool of asyncio has too few threads on a small machine, where eight waiting functions
would take turns. The interpreter also waits for its threads at exit, so one function that hangs
would keep the process alive.
"""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import ParamSpec, TypeVar, cast

P = ParamSpec("P")
T = TypeVar("T")

_IDLE_SECONDS = 10.0
_Job = tuple["Future[object]", Callable[[], object]]


class DaemonExecutor(Executor):
    """An executor of daemon threads.

    A job takes an idle thread or starts a new one. Once there are `max_threads` threads, jobs wait
    for their turn. A thread ends after 10 idle seconds.
    """

    def __init__(self, max_threads: int = 128) -> None:
        if max_threads < 1:
            raise ValueError("max_threads must be at least 1.")
        self._max_threads = max_threads
        self._jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self._free = 0
        self._backlog = 0

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        """Runs `fn` in a thread; raises `RuntimeError` if the system cannot start a thread."""
        future: Future[T] = Future()
        if self._take_place():
            self._start()
        self._jobs.put((cast("Future[object]", future), lambda: fn(*args, **kwargs)))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Does nothing: idle threads end on their own."""

    def _take_place(self) -> bool:
        """Assigns the next job to a free thread or the backlog; returns True to start a thread."""
        # The thread is reserved before the job is queued. Otherwise two jobs could count on the
        # same idle thread, and one would wait although another thread may be started.
        with self._lock:
            if self._free:
                self._free -= 1
                return False
            if self._threads == self._max_threads:
                self._backlog += 1
                return False
            self._threads += 1
            return True

    def _start(self) -> None:
        try:
            threading.Thread(target=self._work, name="treadle executor", daemon=True).start()
        except RuntimeError:
            with self._lock:
                self._threads -= 1
            raise

    def _work(self) -> None:
        while True:
            try:
                future, job = self._jobs.get(timeout=_IDLE_SECONDS)
            except queue.Empty:
                if self._leave():
                    return
                continue
            _run(future, job)
            del future, job  # an idle thread must not keep its last job alive
            with self._lock:
                if self._backlog:
                    self._backlog -= 1
                else:
                    self._free += 1

    def _leave(self) -> bool:
        """Removes this thread from the free ones, unless a job has just been assigned to it."""
        with self._lock:
            if not self._free:
                return False
            self._free -= 1
            self._threads -= 1
            return True


def _run(future: "Future[object]", job: Callable[[], object]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = job()
    except StopIteration as error:
        # A future cannot carry StopIteration: raised in a coroutine, it would end the coroutine.
        future.set_exception(RuntimeError(f"the function raised {error!r}"))
    except BaseException as error:  # noqa: BLE001 - every exception belongs to the caller
        future.set_exception(error)
    else:
        future.set_result(result)
