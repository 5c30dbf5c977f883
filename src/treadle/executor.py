"""An executor for plain functions: as many threads as are needed, and none that holds up exit.

The standard library's pool is too narrow on a small machine, where eight functions that wait would
take turns, and the interpreter waits for its threads at exit, so one function that hangs would
keep the process alive.
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

    A job takes an idle thread or starts a new one; beyond `max_threads` it waits its turn. A
    thread ends after 10 idle seconds.
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
        """Runs `fn` in a thread; raises `RuntimeError` when the system gives no more threads."""
        future: Future[T] = Future()
        if self._take_place():
            self._start()
        self._jobs.put((cast("Future[object]", future), lambda: fn(*args, **kwargs)))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Does nothing: idle threads end by themselves."""

    def _take_place(self) -> bool:
        """Promises the next job to a free thread or to the backlog; else tells to start one."""
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
            del future, job  # an idle thread must not keep alive what it worked on
            with self._lock:
                if self._backlog:
                    self._backlog -= 1
                else:
                    self._free += 1

    def _leave(self) -> bool:
        """Takes this thread out of the free ones, unless a job has just been promised to it."""
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
        # A future cannot carry it: raised in a coroutine it would look like its end.
        future.set_exception(RuntimeError(f"the function raised {error!r}"))
    except BaseException as error:  # noqa: BLE001 - whatever it is, it belongs to the caller
        future.set_exception(error)
    else:
        future.set_result(result)
