"""An executor for plain functions: threads on demand, which never delay the exit of the process.

The default pool of asyncio has too few threads on a small machine, where eight waiting functions
would take turns. The interpreter also waits for its threads at exit, so one function that hangs
would keep the process alive.
"""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_IDLE_SECONDS = 10.0
_GROWTH = 8


class _JobFuture(Future[T]):
    """The future of a job; `left_behind` is set if it was cancelled while the job ran."""

    def __init__(self, on_left_behind: "Callable[[_JobFuture[T]], None]") -> None:
        super().__init__()
        self._on_left_behind = on_left_behind
        self.left_behind = False

    def cancel(self) -> bool:
        """Cancels a job that has not begun; one that runs is left behind."""
        if super().cancel():
            return True
        self._on_left_behind(self)
        return False


_Job = tuple["_JobFuture[Any]", Callable[[], object]]


class DaemonExecutor(Executor):
    """An executor of daemon threads.

    A job takes an idle thread or starts a new one. Once `max_threads` threads are at work, jobs
    wait for their turn. A thread ends after 10 idle seconds.

    A thread cannot be stopped. A job whose future is cancelled while it runs is left behind: its
    thread no longer counts, so that jobs that hang do not keep others from starting. There are
    never more than 8 times `max_threads` threads.
    """

    def __init__(self, max_threads: int = 128) -> None:
        if max_threads < 1:
            raise ValueError("max_threads must be at least 1.")
        self._max_threads = max_threads
        self._bound = max_threads * _GROWTH
        self._jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self._free = 0
        self._backlog = 0
        self._left_behind = 0

    @property
    def size(self) -> int:
        """How many threads there are."""
        return self._threads

    @property
    def left_behind(self) -> int:
        """How many threads run a job that was cancelled and has not ended."""
        return self._left_behind

    @property
    def is_full(self) -> bool:
        """Whether jobs wait for a thread."""
        return self._backlog > 0

    def grow(self) -> bool:
        """Starts a thread for a job that waits, beyond `max_threads`; False if none may start."""
        with self._lock:
            if not self._backlog or self._threads >= self._bound:
                return False
            self._backlog -= 1
            self._threads += 1
        try:
            self._start()
        except RuntimeError:  # the system has no more threads
            with self._lock:
                self._backlog += 1
            return False
        return True

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        """Runs `fn` in a thread; raises `RuntimeError` if the system cannot start a thread."""
        future: _JobFuture[T] = _JobFuture(self._leave_behind)
        if self._take_place():
            self._start()
        self._jobs.put((future, lambda: fn(*args, **kwargs)))
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
            at_work = self._threads - self._left_behind
            if at_work >= self._max_threads or self._threads >= self._bound:
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
            with self._lock:
                self._left_behind -= future.left_behind
                del future, job  # an idle thread must not keep its last job alive
                if self._backlog:
                    self._backlog -= 1
                else:
                    self._free += 1

    def _leave_behind(self, future: "_JobFuture[Any]") -> None:
        """Stops counting the thread of a job that runs, and starts one for a job that waits."""
        with self._lock:
            if future.left_behind or not future.running():
                return
            future.left_behind = True
            self._left_behind += 1
        self.grow()

    def _leave(self) -> bool:
        """Removes this thread from the free ones, unless a job has just been assigned to it."""
        with self._lock:
            if not self._free:
                return False
            self._free -= 1
            self._threads -= 1
            return True


def _run(future: "_JobFuture[Any]", job: Callable[[], object]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = job()
    except (StopIteration, GeneratorExit) as error:
        # A future cannot carry these: thrown into the coroutines that await it, the first would
        # end them, and the second close them.
        problem = RuntimeError(f"the function raised {type(error).__name__}")
        problem.__cause__ = error
        future.set_exception(problem)
    except BaseException as error:  # noqa: BLE001 - every exception belongs to the caller
        future.set_exception(error)
    else:
        future.set_result(result)
